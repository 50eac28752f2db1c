/* fold.c - what weights alone feed (planner/fold.h), computed once per content and kept with the weights.
 *
 * A folded value is a pack of the first weight it is made of, under a key over the ops that make it, the
 * contents of all weights they read and the values of their scalars: node by node a hash of the op, its
 * attributes and the hashes of what it reads. So another session, another program (the prefill beside the
 * decode) or another fine-tune finds it exactly when it would compute the same bytes, and it goes when its
 * weight goes.
 *
 * Scalars are the request's: a program whose folded part reads one that moves (a position) would leave a
 * value behind at every step. A weight that holds PACKS_MAX packs takes no more: the twin then runs at
 * every request, into memory of the session that lives as long as the request. The same where Text has no
 * room.
 *
 * Threads: the device thread alone; a plan with folds is never short (execute.c). */
#include <stdlib.h>
#include <string.h>

#include "planner/arena.h"
#include "planner/fold.h"
#include "planner/rewrite.h"
#include "runtime/rank.h"

#define PACKS_MAX 16u

struct dj_fold {
    dj_graph_t *graph; /* the twin */
    dj_plan_t *plan;
    dj_executable_t *exe;
    uint32_t n_weights;
    uint32_t *weights; /* bindings that the twin reads, ascending; the first holds the packs */
    uint32_t n_slots;
    uint32_t *slots;   /* scalars that it reads, ascending */
    /* what the values below belong to */
    uint64_t *serials; /* of each weight */
    uint64_t *scalars; /* of each slot */
    dj_hash_t *hashes; /* of each storage of the twin, as it stands */
    void **values;     /* of each folded value */
    dj_hash_t *keys;
    uint32_t *holders; /* binding of the weight whose pack it is */
    dj_bytes_t scratch;
    bool valid;
};

void dj_fold_destroy(dj_fold_t *fold)
{
    if (!fold)
        return;
    if (fold->exe)
        fold->exe->ops->destroy(fold->exe);
    dj_plan_destroy(fold->plan);
    dj_graph_destroy(fold->graph);
    free(fold->weights);
    free(fold->slots);
    free(fold->serials);
    free(fold->scalars);
    free(fold->hashes);
    free(fold->values);
    free(fold->keys);
    free(fold->holders);
    dj_bytes_fini(&fold->scratch);
    free(fold);
}

uint64_t dj_fold_peak(const dj_fold_t *fold)
{
    return fold->plan->peak_bytes;
}

uint64_t dj_fold_bytes(const dj_fold_t *fold)
{
    const dj_graph_t *graph = fold->graph;
    uint64_t bindings = graph->n_bindings + 1ull, scalars = graph->n_scalars + 1ull;
    uint64_t bytes = sizeof(*fold) + dj_arena_bytes(graph->arena) + fold->scratch.capacity +
                     fold->plan->n_steps * sizeof(fold->plan->steps[0]) +
                     fold->plan->n_storages * sizeof(fold->plan->offsets[0]);
    bytes += bindings * (sizeof(*fold->weights) + sizeof(*fold->serials));
    bytes += scalars * (sizeof(*fold->slots) + sizeof(*fold->scalars));
    bytes += graph->n_storages * sizeof(*fold->hashes);
    bytes += graph->n_folded * (sizeof(*fold->values) + sizeof(*fold->keys) + sizeof(*fold->holders));
    return bytes + (fold->exe->ops->bytes ? fold->exe->ops->bytes(fold->exe) : 0);
}

static void note_slot(uint8_t *used, uint32_t slot)
{
    if (slot != DJ_SLOT_NONE)
        used[slot] = 1;
}

/* Which bindings and which scalars the twin reads. */
static void find_used(const dj_graph_t *graph, uint8_t *bindings, uint8_t *slots)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_call_t *call = &graph->nodes[i].call;
        for (uint32_t j = 0; j < call->n_args; j++) {
            const dj_arg_t *arg = &call->args[j];
            if (arg->kind == DJ_ARG_SCALAR)
                note_slot(slots, arg->slot);
            for (uint32_t k = 0; arg->kind == DJ_ARG_TENSORS && k < arg->count; k++) {
                const dj_operand_t *operand = &arg->operands[k];
                note_slot(slots, operand->slot);
                if (operand->storage < graph->n_storages &&
                    graph->storages[operand->storage].is_input)
                    bindings[graph->storages[operand->storage].binding] = 1;
            }
        }
    }
}

static dj_status_t list_used(dj_fold_t *fold)
{
    const dj_graph_t *graph = fold->graph;
    uint32_t n_bindings = graph->n_bindings, n_scalars = graph->n_scalars;
    uint8_t *used = calloc((size_t)n_bindings + n_scalars + 1, 1), *slots = used + n_bindings;
    fold->weights = calloc(n_bindings + 1, sizeof(*fold->weights));
    fold->slots = calloc(n_scalars + 1, sizeof(*fold->slots));
    fold->serials = calloc(n_bindings + 1, sizeof(*fold->serials));
    fold->scalars = calloc(n_scalars + 1, sizeof(*fold->scalars));
    fold->hashes = calloc(graph->n_storages + 1, sizeof(*fold->hashes));
    fold->values = calloc(graph->n_folded + 1, sizeof(*fold->values));
    fold->keys = calloc(graph->n_folded + 1, sizeof(*fold->keys));
    fold->holders = calloc(graph->n_folded + 1, sizeof(*fold->holders));
    if (!used || !fold->weights || !fold->slots || !fold->serials || !fold->scalars ||
        !fold->hashes || !fold->values || !fold->keys || !fold->holders) {
        free(used);
        return dj_fail(DJ_ERR_MEMORY, "no memory to fold %u values", graph->n_folded);
    }
    find_used(graph, used, slots);
    for (uint32_t i = 0; i < n_bindings; i++)
        if (used[i])
            fold->weights[fold->n_weights++] = i;
    for (uint32_t i = 0; i < n_scalars; i++)
        if (slots[i])
            fold->slots[fold->n_slots++] = i;
    free(used);
    return DJ_OK;
}

/* The weight that each value's packs hang on: the first of those it is made of. */
static dj_status_t find_holders(dj_fold_t *fold)
{
    const dj_graph_t *graph = fold->graph;
    uint32_t *first = malloc((graph->n_storages + 1) * sizeof(*first));
    if (!first)
        return dj_fail(DJ_ERR_MEMORY, "no memory to fold %u values", graph->n_folded);
    for (uint32_t i = 0; i < graph->n_storages; i++)
        first[i] = graph->storages[i].is_input ? graph->storages[i].binding : UINT32_MAX;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        dj_operand_walk_t walk = {node, 0, 0};
        for (const dj_operand_t *operand; (operand = dj_operand_next(&walk));)
            for (uint32_t j = 0; j < node->n_outs; j++)
                if (first[operand->storage] < first[node->outs[j].storage])
                    first[node->outs[j].storage] = first[operand->storage];
    }
    for (uint32_t i = 0; i < graph->n_folded; i++)
        fold->holders[i] = first[graph->bindings[graph->n_bindings + i]];
    free(first);
    return DJ_OK;
}

dj_status_t dj_fold_create(dj_rank_t *rank, dj_graph_t *twin, dj_fold_t **fold_p)
{
    dj_device_t *device = rank->home.device;
    const dj_device_info_t *info = device->ops->info(device);
    dj_fold_t *fold = calloc(1, sizeof(*fold));
    if (!fold) {
        dj_graph_destroy(twin);
        return dj_fail(DJ_ERR_MEMORY, "no memory to fold a program");
    }
    fold->graph = twin;
    dj_status_t status = dj_graph_rewrite(twin, NULL, 0, NULL);
    if (status == DJ_OK)
        status = list_used(fold);
    if (status == DJ_OK)
        status = find_holders(fold);
    if (status == DJ_OK)
        status = device->ops->compile(device, twin, &fold->exe);
    if (status == DJ_OK) {
        dj_plan_needs_t needs = {info->class_hash, device->ops->workspaces(fold->exe),
                                 info->flops_per_ns, info->bytes_per_ns, info->step_ns};
        status = dj_plan_make(twin, &needs, &fold->plan);
    }
    if (status == DJ_OK)
        status = device->ops->place(fold->exe, fold->plan);
    if (status == DJ_OK && fold->plan->peak_bytes > rank->config->stack_bytes)
        status = dj_fail(DJ_ERR_RESOURCE, "folding needs %llu bytes of Stack",
                         (unsigned long long)fold->plan->peak_bytes);
    if (status != DJ_OK) {
        dj_fold_destroy(fold);
        return status;
    }
    *fold_p = fold;
    return DJ_OK;
}

/* ---- values ---- */

/* True when what was bound last is what this request brings. */
static bool is_same(dj_fold_t *fold, const dj_folding_t *f)
{
    bool same = true;
    for (uint32_t i = 0; i < fold->n_weights; i++) {
        const dj_text_t *text = f->texts[fold->weights[i]];
        uint64_t serial = text ? text->serial : 0;
        same &= serial == fold->serials[i];
        fold->serials[i] = serial;
    }
    for (uint32_t i = 0; i < fold->n_slots; i++) {
        uint64_t scalar = f->scalars[fold->slots[i]];
        same &= scalar == fold->scalars[i];
        fold->scalars[i] = scalar;
    }
    return same && fold->valid;
}

static void put_hash(dj_bytes_t *bytes, dj_hash_t hash)
{
    dj_bytes_put(bytes, &hash, sizeof(hash));
}

static void put_view(dj_bytes_t *bytes, const dj_view_t *view)
{
    dj_bytes_put_u8(bytes, view->dtype);
    dj_bytes_put_u8(bytes, view->rank);
    dj_bytes_put_u64(bytes, (uint64_t)view->offset);
    dj_bytes_put(bytes, view->sizes, view->rank * sizeof(view->sizes[0]));
    dj_bytes_put(bytes, view->strides, view->rank * sizeof(view->strides[0]));
}

static void put_slot(dj_bytes_t *bytes, const dj_folding_t *f, uint32_t slot)
{
    dj_bytes_put_u8(bytes, slot != DJ_SLOT_NONE);
    if (slot != DJ_SLOT_NONE)
        dj_bytes_put_u64(bytes, f->scalars[slot]);
}

static void put_argument(dj_fold_t *fold, const dj_folding_t *f, const dj_arg_t *arg)
{
    dj_bytes_t *bytes = &fold->scratch;
    dj_bytes_put_u8(bytes, arg->kind);
    dj_bytes_put_u32(bytes, arg->count);
    if (arg->kind == DJ_ARG_INTEGER)
        dj_bytes_put_u64(bytes, (uint64_t)arg->integer);
    if (arg->kind == DJ_ARG_INTEGERS)
        dj_bytes_put(bytes, arg->integers, arg->count * sizeof(arg->integers[0]));
    if (arg->kind == DJ_ARG_SCALAR) {
        dj_bytes_put_u8(bytes, arg->scalar.dtype);
        put_slot(bytes, f, arg->slot);
    }
    for (uint32_t i = 0; arg->kind == DJ_ARG_TENSORS && i < arg->count; i++) {
        const dj_operand_t *operand = &arg->operands[i];
        bool stored = operand->storage < fold->graph->n_storages;
        dj_bytes_put_u8(bytes, stored ? 2 : operand->storage == DJ_STORAGE_SCALAR);
        put_view(bytes, &operand->view);
        put_slot(bytes, f, operand->slot);
        if (stored)
            put_hash(bytes, fold->hashes[operand->storage]);
    }
}

/* Node by node what each storage holds; the folded values' become their keys. False: a weight is not Text,
 * or memory is short. */
static bool find_keys(dj_fold_t *fold, const dj_folding_t *f)
{
    const dj_graph_t *graph = fold->graph;
    memset(fold->hashes, 0, graph->n_storages * sizeof(*fold->hashes)); /* nothing is written yet */
    for (uint32_t i = 0; i < fold->n_weights; i++) {
        const dj_text_t *text = f->texts[fold->weights[i]];
        if (!text)
            return false;
        fold->hashes[graph->bindings[fold->weights[i]]] = text->content;
    }
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        dj_bytes_clear(&fold->scratch);
        dj_bytes_put_u32(&fold->scratch, node->call.op);
        for (uint32_t j = 0; j < node->call.n_args; j++)
            put_argument(fold, f, &node->call.args[j]);
        for (uint32_t j = 0; j < node->n_outs; j++) {
            put_view(&fold->scratch, &node->outs[j].view);
            put_hash(&fold->scratch, fold->hashes[node->outs[j].storage]); /* parts are written one by one */
            dj_bytes_put_u32(&fold->scratch, j);
            fold->hashes[node->outs[j].storage] =
                dj_hash_of(fold->scratch.data, fold->scratch.size);
        }
    }
    for (uint32_t i = 0; i < graph->n_folded; i++)
        fold->keys[i] = fold->hashes[graph->bindings[graph->n_bindings + i]];
    return !fold->scratch.failed;
}

static uint64_t bytes_of(const dj_fold_t *fold, uint32_t value)
{
    const dj_graph_t *graph = fold->graph;
    return graph->storages[graph->bindings[graph->n_bindings + value]].bytes;
}

/* Values that are there already; NULL for others. True when none is missing. */
static bool find_values(dj_fold_t *fold, const dj_folding_t *f)
{
    bool all = true;
    for (uint32_t i = 0; i < fold->graph->n_folded; i++) {
        dj_text_pack_t *pack = dj_text_pack_find(f->rank->home.text, f->texts[fold->holders[i]],
                                                 fold->keys[i]);
        fold->values[i] = pack ? pack->data : NULL;
        all &= pack != NULL;
    }
    return all;
}

static bool have_room(const dj_fold_t *fold, const dj_folding_t *f)
{
    for (uint32_t i = 0; i < fold->graph->n_folded; i++)
        if (dj_text_pack_count(f->rank->home.text, f->texts[fold->holders[i]]) >= PACKS_MAX)
            return false;
    return true;
}

static dj_status_t run_twin(dj_fold_t *fold, const dj_folding_t *f)
{
    if (!fold->exe->ops->reentrant(fold->exe) && !fold->exe->ops->bound(fold->exe, f->texts)) {
        dj_status_t status = fold->exe->ops->bind(fold->exe, f->texts);
        if (status != DJ_OK)
            return status;
    }
    return dj_replay(f->rank, f->runner, fold->exe, fold->plan, f->scalars, f->bindings);
}

static void discard(const dj_fold_t *fold, const dj_folding_t *f, dj_text_pack_t **packs)
{
    for (uint32_t i = 0; i < fold->graph->n_folded; i++)
        if (packs[i])
            dj_text_pack_discard(f->rank->home.text, f->texts[fold->holders[i]], packs[i]);
}

/* Memory for one value while the twin runs: a new pack, or a place of its own where there is one already. */
static dj_status_t place_value(dj_fold_t *fold, const dj_folding_t *f, uint32_t value,
                               dj_text_pack_t **pack_p)
{
    void **binding = &f->bindings[fold->graph->n_bindings + value];
    if (fold->values[value])
        return dj_runner_borrow(f->runner, f->job->session, bytes_of(fold, value), binding);
    dj_status_t status = dj_text_pack_add(f->rank->home.text, f->texts[fold->holders[value]],
                                          fold->keys[value], bytes_of(fold, value), pack_p);
    if (status == DJ_OK)
        *binding = fold->values[value] = (*pack_p)->data;
    return status;
}

/* Computes the missing values into packs. What fails leaves nothing. */
static dj_status_t make_values(dj_fold_t *fold, const dj_folding_t *f)
{
    uint32_t n = fold->graph->n_folded;
    dj_status_t status = DJ_OK;
    dj_text_pack_t **packs = calloc(n, sizeof(*packs));
    if (!packs)
        return dj_fail(DJ_ERR_MEMORY, "no memory to fold %u values", n);
    for (uint32_t i = 0; i < n && status == DJ_OK; i++)
        status = place_value(fold, f, i, &packs[i]);
    if (status == DJ_OK)
        status = run_twin(fold, f);
    for (uint32_t i = 0; i < n && status == DJ_OK; i++) {
        if (!packs[i])
            continue;
        status = dj_text_pack_seal(f->rank->home.text, packs[i]);
        fold->values[i] = packs[i]->data; /* not where it was written */
    }
    if (status != DJ_OK)
        discard(fold, f, packs);
    free(packs);
    return status;
}

/* Computes all values into memory of this request. */
static dj_status_t borrow_values(dj_fold_t *fold, const dj_folding_t *f)
{
    for (uint32_t i = 0; i < fold->graph->n_folded; i++) {
        dj_status_t status = dj_runner_borrow(f->runner, f->job->session, bytes_of(fold, i),
                                              &f->bindings[fold->graph->n_bindings + i]);
        if (status != DJ_OK)
            return status;
    }
    return run_twin(fold, f);
}

dj_status_t dj_fold_bind(dj_fold_t *fold, const dj_folding_t *f)
{
    uint32_t first = fold->graph->n_bindings, n = fold->graph->n_folded;
    bool same = is_same(fold, f);
    memset(f->texts + first, 0, n * sizeof(*f->texts));
    fold->valid = false;
    if (!same) {
        if (!find_keys(fold, f))
            return borrow_values(fold, f);
        if (!find_values(fold, f)) {
            if (!have_room(fold, f))
                return borrow_values(fold, f);
            dj_status_t status = make_values(fold, f);
            if (status == DJ_ERR_RESOURCE || status == DJ_ERR_MEMORY)
                return borrow_values(fold, f);
            if (status != DJ_OK)
                return status;
        }
    }
    fold->valid = true;
    memcpy(f->bindings + first, fold->values, n * sizeof(*fold->values));
    return DJ_OK;
}
