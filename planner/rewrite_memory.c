/* rewrite_memory.c - passes over where results lie: parts of a concatenation written in their place, and
 * pointwise results in the place of an operand that dies.
 *
 * Both only rename storages. What was apart is then one storage with several windows or versions, and
 * everything downstream (hazards, groups, lifetimes, the proof) sees it as such. */
#include "planner/rewrite_passes.h"

#include <stdlib.h>

#include "planner/shape.h"

/* ---- in place ---- */

typedef struct placer {
    dj_rewriter_t *rewriter;
    dj_graph_t *graph;
    dj_storage_use_t *uses;
} placer_t;

/* May the result of `node` go where this operand is? Both are of one type and seen as a whole by all
 * that touch them, so that fusion groups can still walk them together. */
static bool may_take(const placer_t *p, uint32_t node, uint32_t storage, uint32_t result)
{
    const dj_storage_use_t *use = &p->uses[storage], *own = &p->uses[result];
    return storage != result && !dj_storage_is_bound(p->graph, storage) &&
           dj_storage_last_use(use) == node && use->whole && own->whole &&
           use->dtype == own->dtype && own->dtype != DJ_DTYPE_NONE &&
           p->graph->storages[storage].bytes == p->graph->storages[result].bytes;
}

static void join(placer_t *p, uint32_t from, uint32_t to)
{
    dj_storage_use_t *use = &p->uses[to], *other = &p->uses[from];
    uint32_t first = use->first < other->first ? use->first : other->first;
    uint32_t last = dj_storage_last_use(use), other_last = dj_storage_last_use(other);
    last = last > other_last ? last : other_last;
    dj_rewriter_rename(p->rewriter, from, to, 0);
    use->first = first;
    use->last_read = use->last_write = last;
}

static void place_result(placer_t *p, uint32_t number)
{
    dj_node_t *node = &p->graph->nodes[number];
    dj_output_t *out = &node->outs[0];
    if (!dj_op_is_elementwise(node->call.op) || node->n_outs != 1 ||
        out->target != DJ_TARGET_NEW || p->graph->storages[out->storage].bytes == 0)
        return;
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        if (arg->kind != DJ_ARG_TENSORS || arg->operands[0].storage >= DJ_STORAGE_SCALAR)
            continue;
        uint32_t storage = dj_rewriter_root(p->rewriter, arg->operands[0].storage);
        if (!may_take(p, number, storage, out->storage) ||
            !dj_view_equal(&arg->operands[0].view, &out->view))
            continue;
        out->target = DJ_TARGET_ARGUMENT;
        out->arg = (uint8_t)i;
        if (dj_storage_is_bound(p->graph, out->storage))
            join(p, storage, out->storage);
        else
            join(p, out->storage, storage);
        dj_rewriter_report(p->rewriter)->in_place++;
        return;
    }
}

dj_status_t dj_rewrite_in_place(dj_rewriter_t *rewriter)
{
    placer_t p = {rewriter, dj_rewriter_graph(rewriter), dj_rewriter_uses(rewriter)};
    for (uint32_t i = 0; i < p.graph->n_nodes; i++)
        place_result(&p, i);
    return DJ_OK;
}

/* ---- concat ---- */

#define PARTS_MAX 64u /* operands of one concatenation that are looked at */

typedef struct concat {
    dj_rewriter_t *rewriter;
    dj_graph_t *graph;
    dj_storage_use_t *uses;
    dj_alive_t *alive;
} concat_t;

typedef struct part {
    const dj_operand_t *operand;
    uint32_t storage; /* root */
    uint64_t bytes;   /* from the start of the whole */
    bool placed;
} part_t;

/* Could this part be written into the whole from the start? It must be all of a storage of the program's
 * own, not change after it was read here, and be seen at known places, so that it stays apart from its
 * neighbours. */
static bool is_placeable(const concat_t *c, uint32_t node, const part_t *part, uint32_t whole)
{
    const dj_storage_use_t *use = &c->uses[part->storage];
    const dj_storage_use_t *to = &c->uses[whole];
    const dj_output_t *out = &c->graph->nodes[node].outs[0];
    uint64_t bytes = c->graph->storages[part->storage].bytes;
    return !dj_storage_is_bound(c->graph, part->storage) && use->n_writes > 0 && bytes > 0 && use->fixed &&
           use->dtype == out->view.dtype && use->last_write < node &&
           part->operand->slot == DJ_SLOT_NONE && part->operand->view.offset == 0 &&
           dj_view_is_contiguous(&part->operand->view) &&
           dj_view_dense_bytes(&part->operand->view) == bytes &&
           (to->n_writes == 1 || dj_storage_last_use(use) == node);
}

/* The parts of a concatenation whose pieces lie one behind the other, 0 when they do not. */
static uint32_t find_parts(concat_t *c, uint32_t number, part_t *parts)
{
    const dj_node_t *node = &c->graph->nodes[number];
    const dj_arg_t *list = &node->call.args[0];
    const dj_output_t *out = &node->outs[0];
    uint32_t dim;
    uint64_t bytes = 0;
    if (out->target != DJ_TARGET_NEW || list->count > PARTS_MAX ||
        !dj_view_is_contiguous(&out->view) ||
        dj_shape_dim(node->call.args[1].integer, out->view.rank, &dim) != DJ_OK)
        return 0;
    for (uint32_t i = 0; i < dim; i++)
        if (out->view.sizes[i] != 1)
            return 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const dj_operand_t *operand = &list->operands[i];
        if (operand->storage >= DJ_STORAGE_SCALAR)
            return 0;
        uint32_t root = dj_rewriter_root(c->rewriter, operand->storage);
        parts[i] = (part_t){.operand = operand, .storage = root, .bytes = bytes};
        parts[i].placed = root == operand->storage && is_placeable(c, number, &parts[i],
                                                                   out->storage);
        for (uint32_t j = 0; j < i; j++)
            parts[i].placed &= parts[j].storage != root;
        bytes += (uint64_t)dj_view_count(&operand->view) * dj_dtype_bytes(out->view.dtype);
    }
    return list->count;
}

static void count_parts(const concat_t *c, const part_t *parts, uint32_t n_parts, int64_t sign)
{
    for (uint32_t i = 0; i < n_parts; i++) {
        const dj_storage_use_t *use = &c->uses[parts[i].storage];
        if (parts[i].placed)
            dj_alive_add(c->alive, use->first, dj_storage_last_use(use),
                         sign * (int64_t)c->graph->storages[parts[i].storage].bytes);
    }
}

/* Puts the placed parts into the whole, unless the most bytes alive would grow: the whole is then there
 * from the first part's first use to the last one's last. */
static bool place_parts(concat_t *c, uint32_t whole, const part_t *parts, uint32_t n_parts)
{
    dj_storage_use_t *to = &c->uses[whole];
    uint64_t bytes = dj_storage_is_bound(c->graph, whole) ? 0 : c->graph->storages[whole].bytes;
    uint32_t first = to->first, last = dj_storage_last_use(to), old_last = last;
    for (uint32_t i = 0; i < n_parts; i++) {
        const dj_storage_use_t *use = &c->uses[parts[i].storage];
        if (!parts[i].placed)
            continue;
        first = use->first < first ? use->first : first;
        last = dj_storage_last_use(use) > last ? dj_storage_last_use(use) : last;
    }
    count_parts(c, parts, n_parts, -1);
    if ((first < to->first && !dj_alive_allows(c->alive, first, to->first - 1, bytes)) ||
        (last > old_last && !dj_alive_allows(c->alive, old_last + 1, last, bytes))) {
        count_parts(c, parts, n_parts, 1);
        return false;
    }
    if (first < to->first)
        dj_alive_add(c->alive, first, to->first - 1, (int64_t)bytes);
    if (last > old_last)
        dj_alive_add(c->alive, old_last + 1, last, (int64_t)bytes);
    to->first = first;
    to->last_read = last > old_last ? last : to->last_read;
    to->whole = false;
    for (uint32_t i = 0; i < n_parts; i++) {
        if (!parts[i].placed)
            continue;
        dj_rewriter_rename(c->rewriter, parts[i].storage, whole, parts[i].bytes);
        dj_rewriter_report(c->rewriter)->appended++;
        dj_rewriter_report(c->rewriter)->bytes_moved +=
            2 * c->graph->storages[parts[i].storage].bytes;
    }
    return true;
}

/* The node becomes the copy of its only part that has to move. */
static dj_status_t copy_part(concat_t *c, uint32_t number, const part_t *part)
{
    dj_node_t *node = &c->graph->nodes[number];
    dj_view_t *view = &node->outs[0].view;
    dj_arg_t *arg = dj_rewriter_alloc(c->rewriter, 1, sizeof *arg);
    if (arg == NULL)
        return DJ_ERR_MEMORY;
    *arg = (dj_arg_t){.kind = DJ_ARG_TENSORS, .count = 1, .slot = DJ_SLOT_NONE};
    arg->operands = part->operand;
    node->call = (dj_call_t){.op = DJ_OP_COPY, .n_args = 1, .args = arg};
    *view = dj_view_contiguous(view->dtype, part->operand->view.rank, part->operand->view.sizes);
    view->offset = (int64_t)(part->bytes / dj_dtype_bytes(view->dtype));
    node->outs[0].target = DJ_TARGET_VIEW;
    return DJ_OK;
}

static dj_status_t rewrite_concat(concat_t *c, uint32_t number)
{
    part_t parts[PARTS_MAX];
    const part_t *moving = NULL;
    uint32_t n_parts = find_parts(c, number, parts), n_moving = 0, n_placed = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        n_placed += parts[i].placed;
        if (parts[i].placed || dj_view_count(&parts[i].operand->view) == 0)
            continue;
        moving = &parts[i];
        n_moving++;
    }
    if (n_placed == 0 || n_moving > 1 || dj_alive_tired(c->alive) ||
        !place_parts(c, c->graph->nodes[number].outs[0].storage, parts, n_parts))
        return DJ_OK;
    if (moving != NULL)
        return copy_part(c, number, moving);
    dj_rewriter_drop(c->rewriter, number);
    return DJ_OK;
}

dj_status_t dj_rewrite_concat(dj_rewriter_t *rewriter)
{
    concat_t c = {rewriter, dj_rewriter_graph(rewriter), dj_rewriter_uses(rewriter), NULL};
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; status == DJ_OK && i < c.graph->n_nodes; i++) {
        if (c.graph->nodes[i].call.op != DJ_OP_CAT)
            continue;
        if (c.alive == NULL && (c.alive = dj_alive_create(rewriter, c.uses)) == NULL)
            return DJ_ERR_MEMORY;
        status = rewrite_concat(&c, i);
    }
    dj_alive_destroy(c.alive);
    return status;
}
