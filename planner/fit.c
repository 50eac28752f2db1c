/* fit.c - recomputation and spilling, chosen value by value at the fullest step.
 *
 * At the step where the most bytes are alive, the storages that idle (used before it and after it, not at
 * it) are the candidates. The one with the least predicted cost a byte is taken, but no more of it than is
 * needed: among those that bring the step under the capacity by themselves the cheapest wins. Then the
 * profile is derived anew and the next fullest step looked at. Both means end a storage's life before the
 * step and begin that of a new one just before its next use, so the bytes at the step only ever fall. */
#include "planner/fit.h"

#include <stdlib.h>
#include <string.h>

#include "planner/arena.h"
#include "planner/cost.h"
#include "planner/rewrite.h"
#include "planner/schedule.h"

#define FIT_CHANGES_MAX 4096u
#define STALE_MAX 256u        /* changes without fewer bytes at the fullest step */
#define WORK_MAX (1ull << 24) /* nodes and storages looked at: a second or so */

typedef struct fitter {
    dj_graph_t *graph;
    const dj_plan_needs_t *needs;
    const dj_fit_limits_t *limits;
    dj_fit_report_t *report;
    uint64_t capacity; /* without the workspace */
    uint64_t *alive;   /* of each node */
    uint32_t *before, *after; /* of each storage: its last use before the fullest step, its first after it */
    uint32_t *version, *written; /* of each storage: as it is after the step, its first write after that */
    uint8_t *at;              /* of each storage: used at it */
} fitter_t;

typedef struct change {
    uint32_t storage; /* DJ_SLOT_NONE: none found */
    bool spills;
    double cost_ns;
    uint64_t bytes;
} change_t;

static void *arena_alloc(fitter_t *f, size_t count, size_t size)
{
    dj_arena_t *arena = f->graph->arena;
    void *piece = dj_arena_alloc(&arena, count * size);
    f->graph->arena = arena;
    if (piece == NULL)
        dj_fail(DJ_ERR_MEMORY, "no memory to fit a graph of %u nodes", f->graph->n_nodes);
    return piece;
}

/* ---- what idles at the fullest step ---- */

static void note_use(fitter_t *f, uint32_t storage, uint32_t node, uint32_t step)
{
    if (node < step)
        f->before[storage] = node;
    else if (node == step)
        f->at[storage] = 1;
    else if (f->after[storage] == DJ_SLOT_NONE)
        f->after[storage] = node;
}

static void note_write(fitter_t *f, const dj_output_t *out, uint32_t node, uint32_t step)
{
    if (node <= step)
        f->version[out->storage] = out->version;
    else if (f->written[out->storage] == DJ_SLOT_NONE)
        f->written[out->storage] = node;
}

static void find_idle(fitter_t *f, uint32_t step)
{
    memset(f->before, 0xff, f->graph->n_storages * sizeof f->before[0]);
    memset(f->after, 0xff, f->graph->n_storages * sizeof f->after[0]);
    memset(f->version, 0, f->graph->n_storages * sizeof f->version[0]);
    memset(f->written, 0xff, f->graph->n_storages * sizeof f->written[0]);
    memset(f->at, 0, f->graph->n_storages);
    for (uint32_t i = 0; i < f->graph->n_nodes; i++) {
        const dj_node_t *node = &f->graph->nodes[i];
        dj_operand_walk_t walk = {node, 0, 0};
        for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;)
            note_use(f, operand->storage, i, step);
        for (uint32_t j = 0; j < node->n_outs; j++) {
            note_use(f, node->outs[j].storage, i, step);
            note_write(f, &node->outs[j], i, step);
        }
    }
}

static bool is_idle(const fitter_t *f, uint32_t storage)
{
    const dj_storage_t *s = &f->graph->storages[storage];
    return s->binding == DJ_SLOT_NONE && !s->is_spilled && s->bytes > 0 && !f->at[storage] &&
           f->before[storage] != DJ_SLOT_NONE && f->after[storage] != DJ_SLOT_NONE;
}

/* ---- recomputation ---- */

/* Is this operand of the producer, which ran before the step, still there and unchanged at a node after it? */
static bool is_available(const fitter_t *f, const dj_operand_t *operand, uint32_t node)
{
    const dj_storage_t *s = &f->graph->storages[operand->storage];
    return f->version[operand->storage] == operand->version &&
           f->written[operand->storage] >= node && /* DJ_SLOT_NONE is behind all */
           (s->binding != DJ_SLOT_NONE || s->is_spilled || s->last_use >= node);
}

/* The producer could simply run again. */
static bool can_recompute(const fitter_t *f, uint32_t storage)
{
    const dj_storage_t *s = &f->graph->storages[storage];
    if (s->n_versions != 2 || s->producer == DJ_SLOT_NONE)
        return false;
    const dj_node_t *node = &f->graph->nodes[s->producer];
    if (node->n_outs != 1 || node->outs[0].target != DJ_TARGET_NEW ||
        dj_op_is_random(node->call.op) || node->outs[0].view.offset != 0)
        return false;
    dj_operand_walk_t walk = {node, 0, 0};
    for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;)
        if (!is_available(f, operand, f->after[storage]))
            return false;
    return true;
}

static double recompute_ns(const fitter_t *f, uint32_t storage)
{
    const dj_roofline_t roofline = {f->needs->flops_per_ns, f->needs->bytes_per_ns,
                                    f->needs->step_ns};
    double flops;
    uint64_t bytes;
    dj_node_cost(f->graph, &f->graph->nodes[f->graph->storages[storage].producer], &flops, &bytes);
    return dj_roofline_ns(&roofline, flops, bytes);
}

/* ---- choosing ---- */

static uint64_t spilled_bytes(const fitter_t *f)
{
    uint64_t bytes = 0; /* as if none of them shared a place */
    for (uint32_t i = 0; i < f->graph->n_storages; i++)
        bytes += f->graph->storages[i].is_spilled ? dj_align_up(f->graph->storages[i].bytes) : 0;
    return bytes;
}

static bool is_better(const change_t *change, const change_t *best, uint64_t excess)
{
    bool enough = change->bytes >= excess, best_enough = best->bytes >= excess;
    if (best->storage == DJ_SLOT_NONE || enough != best_enough)
        return best->storage == DJ_SLOT_NONE || enough;
    if (enough)
        return change->cost_ns < best->cost_ns;
    return change->cost_ns * (double)best->bytes < best->cost_ns * (double)change->bytes;
}

static change_t choose(const fitter_t *f, uint64_t excess)
{
    change_t best = {.storage = DJ_SLOT_NONE};
    uint64_t spilled = spilled_bytes(f);
    for (uint32_t i = 0; i < f->graph->n_storages; i++) {
        if (!is_idle(f, i))
            continue;
        change_t change = {.storage = i, .bytes = dj_align_up(f->graph->storages[i].bytes)};
        if (can_recompute(f, i)) {
            change.cost_ns = recompute_ns(f, i);
            best = is_better(&change, &best, excess) ? change : best;
        }
        if (f->limits->spill_bytes_per_ns > 0 && spilled + change.bytes <= f->limits->spill_bytes) {
            change.spills = true;
            change.cost_ns = 2 * ((double)f->graph->storages[i].bytes / f->limits->spill_bytes_per_ns +
                                  (double)f->needs->step_ns);
            best = is_better(&change, &best, excess) ? change : best;
        }
    }
    return best;
}

/* ---- changing ---- */

/* A new value of the program's own; there is room (open_fitter()). */
static uint32_t add_storage(fitter_t *f, uint64_t bytes)
{
    dj_graph_t *graph = f->graph;
    graph->storages[graph->n_storages] =
        (dj_storage_t){.bytes = bytes, .binding = DJ_SLOT_NONE, .producer = DJ_SLOT_NONE};
    return graph->n_storages++;
}

/* Puts `node` before number `at`; there is room. */
static void insert(fitter_t *f, uint32_t at, const dj_node_t *node)
{
    dj_node_t *nodes = f->graph->nodes;
    memmove(nodes + at + 1, nodes + at, (f->graph->n_nodes - at) * sizeof *nodes);
    nodes[at] = *node;
    f->graph->n_nodes++;
}

/* From node `from` on, `storage` is called `name`. */
static void rename_from(fitter_t *f, uint32_t from, uint32_t storage, uint32_t name)
{
    for (uint32_t i = from; i < f->graph->n_nodes; i++) {
        dj_node_t *node = &f->graph->nodes[i];
        dj_operand_walk_t walk = {node, 0, 0};
        for (dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;)
            operand->storage = operand->storage == storage ? name : operand->storage;
        for (uint32_t j = 0; j < node->n_outs; j++)
            if (node->outs[j].storage == storage)
                node->outs[j].storage = name;
    }
}

/* A node with its own arguments and results, so that renaming one does not rename the other. */
static dj_status_t clone(fitter_t *f, const dj_node_t *node, dj_node_t *clone_p)
{
    dj_arg_t *args = arena_alloc(f, node->call.n_args, sizeof *args);
    dj_output_t *outs = arena_alloc(f, node->n_outs, sizeof *outs);
    if (args == NULL || outs == NULL)
        return DJ_ERR_MEMORY;
    memcpy(args, node->call.args, node->call.n_args * sizeof *args);
    memcpy(outs, node->outs, node->n_outs * sizeof *outs);
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        if (args[i].kind != DJ_ARG_TENSORS || args[i].count == 0)
            continue;
        dj_operand_t *operands = arena_alloc(f, args[i].count, sizeof *operands);
        if (operands == NULL)
            return DJ_ERR_MEMORY;
        memcpy(operands, args[i].operands, args[i].count * sizeof *operands);
        args[i].operands = operands;
    }
    *clone_p = *node;
    clone_p->call.args = args;
    clone_p->outs = outs;
    return DJ_OK;
}

static dj_status_t recompute(fitter_t *f, uint32_t storage)
{
    uint32_t at = f->after[storage], again = add_storage(f, f->graph->storages[storage].bytes);
    dj_node_t copy;
    dj_status_t status = clone(f, &f->graph->nodes[f->graph->storages[storage].producer], &copy);
    if (status != DJ_OK)
        return status;
    rename_from(f, at, storage, again);
    copy.outs[0].storage = again;
    insert(f, at, &copy);
    return DJ_OK;
}

/* A copy of all bytes of one storage to another. */
static dj_status_t insert_copy(fitter_t *f, uint32_t at, uint32_t from, uint32_t to)
{
    int64_t bytes = (int64_t)f->graph->storages[from].bytes;
    dj_arg_t *arg = arena_alloc(f, 1, sizeof *arg);
    dj_operand_t *operand = arena_alloc(f, 1, sizeof *operand);
    dj_output_t *out = arena_alloc(f, 1, sizeof *out);
    if (arg == NULL || operand == NULL || out == NULL)
        return DJ_ERR_MEMORY;
    dj_view_t view = dj_view_contiguous(DJ_U8, 1, &bytes);
    *operand = (dj_operand_t){.storage = from, .slot = DJ_SLOT_NONE, .view = view};
    *out = (dj_output_t){.storage = to, .slot = DJ_SLOT_NONE, .view = view};
    *arg = (dj_arg_t){.kind = DJ_ARG_TENSORS, .count = 1, .slot = DJ_SLOT_NONE};
    arg->operands = operand;
    dj_node_t node = {.call = {.op = DJ_OP_COPY, .n_args = 1, .args = arg},
                      .n_outs = 1,
                      .recorded = f->graph->nodes[at > 0 ? at - 1 : 0].recorded,
                      .outs = out};
    insert(f, at, &node);
    return DJ_OK;
}

static dj_status_t spill(fitter_t *f, uint32_t storage)
{
    uint32_t before = f->before[storage], after = f->after[storage];
    uint32_t away = add_storage(f, f->graph->storages[storage].bytes);
    uint32_t back = add_storage(f, f->graph->storages[storage].bytes);
    f->graph->storages[away].is_spilled = 1;
    rename_from(f, after, storage, back);
    dj_status_t status = insert_copy(f, after, away, back);
    return status == DJ_OK ? insert_copy(f, before + 1, storage, away) : status;
}

/* ---- the whole ---- */

/* A change adds at most two storages and two nodes: room for all of them is made once. */
static dj_status_t open_fitter(fitter_t *f)
{
    dj_graph_t *graph = f->graph;
    size_t more = 2 * FIT_CHANGES_MAX, n_nodes = graph->n_nodes + more;
    size_t n_storages = graph->n_storages + more;
    dj_node_t *nodes = arena_alloc(f, n_nodes, sizeof *nodes);
    dj_storage_t *storages = arena_alloc(f, n_storages, sizeof *storages);
    f->alive = malloc((n_nodes + 1) * sizeof f->alive[0]);
    f->before = malloc(4 * n_storages * sizeof f->before[0]);
    f->at = malloc(n_storages);
    if (nodes == NULL || storages == NULL || f->alive == NULL || f->before == NULL ||
        f->at == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to fit a graph of %u nodes", graph->n_nodes);
    f->after = f->before + n_storages;
    f->version = f->after + n_storages;
    f->written = f->version + n_storages;
    if (graph->n_nodes > 0) /* an empty program has no array at all */
        memcpy(nodes, graph->nodes, graph->n_nodes * sizeof *nodes);
    if (graph->n_storages > 0)
        memcpy(storages, graph->storages, graph->n_storages * sizeof *storages);
    graph->nodes = nodes;
    graph->storages = storages;
    graph->fitted = true;
    return DJ_OK;
}

static uint32_t fullest(const fitter_t *f, uint64_t most)
{
    uint32_t step = 0;
    while (f->alive[step] != most)
        step++;
    return step;
}

/* One change at the fullest step. DJ_ERR_RESOURCE when nothing there idles. */
static dj_status_t relieve(fitter_t *f, uint64_t most)
{
    uint32_t step = fullest(f, most);
    find_idle(f, step);
    change_t change = choose(f, most - f->capacity);
    if (change.storage == DJ_SLOT_NONE)
        return dj_fail(DJ_ERR_RESOURCE,
                       "%s needs %llu bytes of Stack at once, %llu are allowed, and nothing that "
                       "waits there can be recomputed or spilled: send less at once or raise "
                       "--stack-bytes", dj_op_info(f->graph->nodes[step].call.op)->name,
                       (unsigned long long)(most + f->limits->stack_bytes - f->capacity),
                       (unsigned long long)f->limits->stack_bytes);
    dj_status_t status = change.spills ? spill(f, change.storage) : recompute(f, change.storage);
    dj_graph_relink(f->graph);
    f->report->spilled += change.spills;
    f->report->recomputed += !change.spills;
    f->report->extra_ns += (uint64_t)change.cost_ns;
    return status;
}

static dj_status_t relieve_all(fitter_t *f, uint64_t workspace, uint64_t *most_p)
{
    dj_status_t status = DJ_OK;
    uint64_t work = 0, least = UINT64_MAX;
    uint32_t stale = 0;
    *most_p = dj_graph_alive(f->graph, f->alive);
    for (uint32_t i = 0; status == DJ_OK && *most_p > f->capacity; i++) {
        work += 4ull * f->graph->n_nodes + 2ull * f->graph->n_storages;
        stale = *most_p < least ? 0 : stale + 1;
        least = *most_p < least ? *most_p : least;
        if (i == FIT_CHANGES_MAX || work > WORK_MAX || stale > STALE_MAX)
            return dj_fail(DJ_ERR_RESOURCE, "%u values recomputed or spilled, and %llu bytes of Stack "
                           "are still needed; %llu are allowed: send less at once or raise "
                           "--stack-bytes", i, (unsigned long long)(workspace + *most_p),
                           (unsigned long long)f->limits->stack_bytes);
        status = relieve(f, *most_p);
        *most_p = dj_graph_alive(f->graph, f->alive);
    }
    return status;
}

static dj_status_t fit(fitter_t *f)
{
    uint64_t workspace = dj_align_up(f->limits->workspace_bytes), most = 0;
    if (workspace >= f->limits->stack_bytes)
        return dj_fail(DJ_ERR_RESOURCE, "a workspace of %llu bytes is needed and %llu bytes of Stack "
                       "are allowed: raise --stack-bytes", (unsigned long long)workspace,
                       (unsigned long long)f->limits->stack_bytes);
    if (f->graph->n_nodes == 0)
        return DJ_OK;
    f->capacity = f->limits->stack_bytes - workspace;
    dj_status_t status = open_fitter(f);
    if (status != DJ_OK)
        return status;
    f->report->before_bytes = workspace + dj_graph_alive(f->graph, f->alive);
    if (f->report->before_bytes > f->limits->stack_bytes) {
        status = dj_graph_reorder(f->graph, &most);
        f->report->reordered = workspace + most < f->report->before_bytes;
    }
    if (status == DJ_OK)
        status = relieve_all(f, workspace, &most);
    f->report->after_bytes = workspace + most;
    return status;
}

dj_status_t dj_graph_fit(dj_graph_t *graph, const dj_plan_needs_t *needs,
                         const dj_fit_limits_t *limits, dj_fit_report_t *report)
{
    *report = (dj_fit_report_t){0};
    fitter_t f = {.graph = graph, .needs = needs, .limits = limits, .report = report};
    dj_status_t status = fit(&f);
    free(f.alive);
    free(f.before);
    free(f.at);
    return status;
}
