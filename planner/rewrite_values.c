/* rewrite_values.c - passes over what is computed: dead nodes, the same value twice, copies that only
 * repeat, and reductions that wait while what they reduce stays alive. */
#include "planner/rewrite_passes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cost.h"

static void drop(dj_rewriter_t *rewriter, uint32_t node)
{
    const dj_graph_t *graph = dj_rewriter_graph(rewriter);
    double flops;
    uint64_t bytes;
    dj_node_cost(graph, &graph->nodes[node], &flops, &bytes);
    dj_rewriter_report(rewriter)->bytes_moved += bytes;
    dj_rewriter_drop(rewriter, node);
}

/* ---- dead: backwards, a node lives when something it writes is still needed ---- */

dj_status_t dj_rewrite_dead(dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = dj_rewriter_graph(rewriter);
    uint8_t *needed = calloc(graph->n_storages + 1ull, 1);
    if (needed == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to rewrite %u storages", graph->n_storages);
    for (uint32_t i = 0; i < graph->n_storages; i++)
        needed[i] = graph->storages[i].is_output;
    for (uint32_t i = graph->n_nodes; i-- > 0;) {
        const dj_node_t *node = &graph->nodes[i];
        bool live = false;
        for (uint32_t j = 0; j < node->n_outs; j++)
            live |= needed[node->outs[j].storage];
        if (!live) {
            drop(rewriter, i);
            dj_rewriter_report(rewriter)->dead++;
            continue;
        }
        dj_operand_walk_t walk = {node, 0, 0};
        for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;)
            needed[operand->storage] = 1;
    }
    free(needed);
    return DJ_OK;
}

/* ---- merge: value numbering over an open table ---- */

#define PROBES_MAX 64u /* who records nodes that all hash alike gets them merged no further */

typedef struct merger {
    dj_rewriter_t *rewriter;
    dj_storage_use_t *uses;
    dj_alive_t *alive;
    uint32_t *slots; /* node + 1 */
    uint64_t mask;
} merger_t;

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 32;
}

static uint64_t hash_view(uint64_t hash, const dj_view_t *view)
{
    hash = mix(hash, view->dtype | (uint64_t)view->rank << 8 | (uint64_t)view->offset << 16);
    for (uint32_t i = 0; i < view->rank; i++)
        hash = mix(hash, (uint64_t)view->sizes[i]);
    return hash;
}

static uint64_t hash_argument(merger_t *m, uint64_t hash, const dj_arg_t *arg)
{
    hash = mix(hash, arg->kind | (uint64_t)arg->count << 8);
    for (uint32_t i = 0; arg->kind == DJ_ARG_TENSORS && i < arg->count; i++) {
        const dj_operand_t *operand = &arg->operands[i];
        if (operand->storage >= DJ_STORAGE_SCALAR)
            continue;
        hash = mix(hash, dj_rewriter_root(m->rewriter, operand->storage) |
                             (uint64_t)operand->version << 32);
        hash = hash_view(hash, &operand->view);
    }
    for (uint32_t i = 0; arg->kind == DJ_ARG_INTEGERS && i < arg->count; i++)
        hash = mix(hash, (uint64_t)arg->integers[i]);
    return arg->kind == DJ_ARG_INTEGER ? mix(hash, (uint64_t)arg->integer) : hash;
}

/* Scalars and offsets are the request's: two slots never stand for one value, whatever they held when
 * the program was recorded. */
static bool has_slot(const dj_node_t *node)
{
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        if (arg->kind == DJ_ARG_SCALAR && arg->slot != DJ_SLOT_NONE)
            return true;
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++)
            if (arg->operands[j].slot != DJ_SLOT_NONE)
                return true;
    }
    return false;
}

/* New results that nobody writes again; in their own order of bytes, so that one may stand for another. */
static bool is_candidate(const merger_t *m, const dj_node_t *node)
{
    if (dj_op_is_random(node->call.op) || has_slot(node))
        return false;
    for (uint32_t i = 0; i < node->n_outs; i++)
        if (node->outs[i].target != DJ_TARGET_NEW || m->uses[node->outs[i].storage].n_writes != 1)
            return false;
    return true;
}

static bool same_operands(merger_t *m, const dj_arg_t *a, const dj_arg_t *b)
{
    for (uint32_t i = 0; i < a->count; i++) {
        const dj_operand_t *x = &a->operands[i], *y = &b->operands[i];
        bool tensor = x->storage < DJ_STORAGE_SCALAR && y->storage < DJ_STORAGE_SCALAR;
        if (!tensor && x->storage != y->storage)
            return false;
        if (tensor && (dj_rewriter_root(m->rewriter, x->storage) !=
                           dj_rewriter_root(m->rewriter, y->storage) ||
                       x->version != y->version || !dj_view_equal(&x->view, &y->view)))
            return false;
    }
    return true;
}

static bool same_argument(merger_t *m, const dj_arg_t *a, const dj_arg_t *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case DJ_ARG_TENSORS:
        return a->count == b->count && same_operands(m, a, b);
    case DJ_ARG_INTEGERS:
        return a->count == b->count &&
               memcmp(a->integers, b->integers, a->count * sizeof a->integers[0]) == 0;
    case DJ_ARG_INTEGER:
        return a->integer == b->integer;
    default:
        return true; /* none, or an absent scalar */
    }
}

static bool same_node(merger_t *m, const dj_node_t *a, const dj_node_t *b)
{
    if (a->call.op != b->call.op)
        return false;
    for (uint32_t i = 0; i < a->call.n_args; i++)
        if (!same_argument(m, &a->call.args[i], &b->call.args[i]))
            return false;
    return true;
}

/* Keeping the first result until the second's last use must not raise the most bytes alive. */
static bool may_keep(merger_t *m, uint32_t kept, uint32_t gone, uint64_t bytes)
{
    const dj_graph_t *graph = dj_rewriter_graph(m->rewriter);
    bool kept_bound = dj_storage_is_bound(graph, kept), gone_bound = dj_storage_is_bound(graph, gone);
    uint32_t from = dj_storage_last_use(&m->uses[kept]) + 1, to = m->uses[gone].first;
    if (kept_bound || gone_bound)
        return !(kept_bound && gone_bound);
    if (from >= to)
        return !dj_alive_tired(m->alive);
    return dj_alive_allows(m->alive, from, to - 1, bytes);
}

static void note_kept(merger_t *m, uint32_t kept, uint32_t gone)
{
    dj_storage_use_t *use = &m->uses[kept], *other = &m->uses[gone];
    uint32_t from = dj_storage_last_use(use) + 1, last = dj_storage_last_use(other);
    int64_t bytes = (int64_t)dj_rewriter_graph(m->rewriter)->storages[kept].bytes;
    if (other->first < from) { /* both were alive: one is enough */
        uint32_t both = last < from ? last : from - 1;
        dj_alive_add(m->alive, other->first, both, -bytes);
    } else if (from < other->first) {
        dj_alive_add(m->alive, from, other->first - 1, bytes);
    }
    if (use->last_read == DJ_SLOT_NONE || last > use->last_read)
        use->last_read = last;
}

/* The second of two equal nodes goes; of two storages the bound one stays. */
static bool merge(merger_t *m, const dj_node_t *first, const dj_node_t *second)
{
    const dj_graph_t *graph = dj_rewriter_graph(m->rewriter);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < second->n_outs; i++)
        bytes += graph->storages[second->outs[i].storage].bytes;
    for (uint32_t i = 0; i < second->n_outs; i++)
        if (!may_keep(m, dj_rewriter_root(m->rewriter, first->outs[i].storage),
                      second->outs[i].storage, bytes))
            return false;
    for (uint32_t i = 0; i < second->n_outs; i++) {
        uint32_t kept = dj_rewriter_root(m->rewriter, first->outs[i].storage);
        uint32_t gone = second->outs[i].storage;
        if (dj_storage_is_bound(graph, gone)) {
            dj_rewriter_rename(m->rewriter, kept, gone, 0);
        } else {
            if (!dj_storage_is_bound(graph, kept))
                note_kept(m, kept, gone);
            dj_rewriter_rename(m->rewriter, gone, kept, 0);
        }
    }
    return true;
}

static void merge_node(merger_t *m, uint32_t number)
{
    dj_graph_t *graph = dj_rewriter_graph(m->rewriter);
    const dj_node_t *node = &graph->nodes[number];
    uint64_t hash = mix(0, node->call.op);
    if (!is_candidate(m, node))
        return;
    for (uint32_t i = 0; i < node->call.n_args; i++)
        hash = hash_argument(m, hash, &node->call.args[i]);
    uint64_t at = hash & m->mask;
    for (uint32_t probes = 0; m->slots[at] != 0; at = (at + 1) & m->mask) {
        if (++probes > PROBES_MAX)
            return;
        if (!same_node(m, &graph->nodes[m->slots[at] - 1], node))
            continue;
        if (merge(m, &graph->nodes[m->slots[at] - 1], node)) {
            drop(m->rewriter, number);
            dj_rewriter_report(m->rewriter)->merged++;
        }
        return;
    }
    m->slots[at] = number + 1;
}

dj_status_t dj_rewrite_merge(dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = dj_rewriter_graph(rewriter);
    uint64_t room = 16;
    while (room < 2ull * graph->n_nodes)
        room *= 2;
    merger_t m = {.rewriter = rewriter, .uses = dj_rewriter_uses(rewriter), .mask = room - 1};
    m.slots = calloc(room, sizeof m.slots[0]);
    m.alive = dj_alive_create(rewriter, m.uses);
    bool ready = m.slots != NULL && m.alive != NULL;
    for (uint32_t i = 0; ready && i < graph->n_nodes; i++)
        merge_node(&m, i);
    free(m.slots);
    dj_alive_destroy(m.alive);
    return ready ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory to compare %u nodes", graph->n_nodes);
}

/* ---- copies ---- */

typedef struct copier {
    dj_rewriter_t *rewriter;
    dj_storage_use_t *uses;
    const dj_operand_t **instead; /* of each storage that is a copy: what its reader reads */
    bool any;                     /* of them */
} copier_t;

static uint32_t later(uint32_t a, uint32_t b)
{
    if (a == DJ_SLOT_NONE || b == DJ_SLOT_NONE)
        return a == DJ_SLOT_NONE ? b : a;
    return a > b ? a : b;
}

static bool written_after(const dj_storage_use_t *use, uint32_t node)
{
    return use->last_write != DJ_SLOT_NONE && use->last_write > node;
}

static void take_over(copier_t *c, uint32_t from, uint32_t to)
{
    dj_storage_use_t *use = &c->uses[to], *other = &c->uses[from];
    dj_rewriter_rename(c->rewriter, from, to, 0);
    use->n_reads += other->n_reads;
    use->n_writes += other->n_writes;
    use->last_read = later(use->last_read, other->last_read);
    use->last_write = later(use->last_write, other->last_write);
    use->whole &= other->whole;
}

/* A copy of a whole storage in the layout it has: one of the two is enough, if nobody could tell. */
static bool fold_whole(copier_t *c, uint32_t number, uint32_t source, uint32_t target)
{
    const dj_graph_t *graph = dj_rewriter_graph(c->rewriter);
    const dj_storage_use_t *from = &c->uses[source], *to = &c->uses[target];
    bool source_bound = dj_storage_is_bound(graph, source);
    bool target_bound = dj_storage_is_bound(graph, target);
    bool constant = to->n_writes == 1 && !written_after(from, number);
    bool dies = !source_bound && from->last_read == number && !written_after(from, number);
    if ((source_bound && target_bound) || (!constant && !dies))
        return false;
    if (target_bound)
        take_over(c, source, target);
    else
        take_over(c, target, source);
    return true;
}

/* A copy of a window, read by one elementwise node as it lies: that node may look through the window
 * itself. Only where the source is no larger, so that keeping it alive costs nothing. */
static bool fold_window(copier_t *c, uint32_t number, uint32_t source, const dj_output_t *out)
{
    dj_graph_t *graph = dj_rewriter_graph(c->rewriter);
    const dj_storage_use_t *from = &c->uses[source], *to = &c->uses[out->storage];
    if (dj_storage_is_bound(graph, out->storage) || to->n_writes != 1 || to->n_reads == 0 ||
        to->first_read != to->last_read || written_after(from, number) ||
        graph->storages[source].bytes > graph->storages[out->storage].bytes)
        return false;
    const dj_node_t *reader = &graph->nodes[to->last_read];
    if (!dj_op_is_elementwise(reader->call.op))
        return false;
    dj_operand_walk_t walk = {reader, 0, 0};
    for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;)
        if (operand->storage == out->storage &&
            (operand->slot != DJ_SLOT_NONE || !dj_view_equal(&operand->view, &out->view)))
            return false;
    for (uint32_t i = 0; i < reader->n_outs; i++)
        if (dj_rewriter_root(c->rewriter, reader->outs[i].storage) == source)
            return false;
    c->uses[source].last_read = later(from->last_read, to->last_read);
    c->uses[source].n_reads += to->n_reads;
    return true;
}

static void read_instead(copier_t *c, const dj_node_t *node)
{
    dj_operand_walk_t walk = {node, 0, 0};
    for (dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;)
        if (c->instead[operand->storage] != NULL)
            *operand = *c->instead[operand->storage];
}

static void fold_copy(copier_t *c, uint32_t number)
{
    dj_graph_t *graph = dj_rewriter_graph(c->rewriter);
    const dj_node_t *node = &graph->nodes[number];
    const dj_operand_t *operand = &node->call.args[0].operands[0];
    const dj_output_t *out = &node->outs[0];
    if (operand->storage >= DJ_STORAGE_SCALAR || out->target != DJ_TARGET_NEW ||
        operand->view.dtype != out->view.dtype)
        return;
    uint32_t source = dj_rewriter_root(c->rewriter, operand->storage);
    bool whole = operand->slot == DJ_SLOT_NONE && operand->view.offset == 0 &&
                 dj_view_equal(&operand->view, &out->view) &&
                 graph->storages[source].bytes == graph->storages[out->storage].bytes;
    bool folded = whole ? fold_whole(c, number, source, out->storage)
                        : fold_window(c, number, source, out);
    if (!folded)
        return;
    if (!whole) {
        c->instead[out->storage] = operand;
        c->any = true;
    }
    drop(c->rewriter, number);
    dj_rewriter_report(c->rewriter)->copies++;
}

dj_status_t dj_rewrite_copies(dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = dj_rewriter_graph(rewriter);
    copier_t c = {.rewriter = rewriter, .uses = dj_rewriter_uses(rewriter)};
    c.instead = calloc(graph->n_storages + 1ull, sizeof c.instead[0]);
    if (c.instead == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to rewrite %u storages", graph->n_storages);
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        uint16_t op = graph->nodes[i].call.op;
        if (c.any)
            read_instead(&c, &graph->nodes[i]);
        if (op == DJ_OP_COPY || op == DJ_OP_TO_COPY)
            fold_copy(&c, i);
    }
    free(c.instead);
    return DJ_OK;
}

/* ---- beside ---- */

#define SHRINKS_TO 4 /* a node is moved when its results have at most a quarter of the bytes it frees */

/* Behind which node all that this one reads is there. False when it cannot move: something it reads is
 * written later. */
static bool find_behind(const dj_graph_t *graph, const dj_storage_use_t *uses, uint32_t number,
                        uint32_t *behind_p)
{
    dj_operand_walk_t walk = {&graph->nodes[number], 0, 0};
    *behind_p = DJ_SLOT_NONE;
    for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;) {
        if (written_after(&uses[operand->storage], number))
            return false;
        *behind_p = later(*behind_p, uses[operand->storage].last_write);
    }
    return *behind_p != DJ_SLOT_NONE && *behind_p + 1 < number;
}

/* The largest operand whose life ends here and would end behind `behind` if this node moved there. */
static uint64_t freed_by(const dj_graph_t *graph, const dj_storage_use_t *uses, uint32_t number,
                         uint32_t behind)
{
    dj_operand_walk_t walk = {&graph->nodes[number], 0, 0};
    uint64_t freed = 0;
    for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;) {
        const dj_storage_use_t *use = &uses[operand->storage];
        uint64_t bytes = graph->storages[operand->storage].bytes;
        if (!dj_storage_is_bound(graph, operand->storage) && use->last_read == number && bytes > freed &&
            (use->earlier_read == DJ_SLOT_NONE || use->earlier_read <= behind))
            freed = bytes;
    }
    return freed;
}

/* Most nodes: no need to look at their operands. */
static bool keeps_size(const dj_node_t *node)
{
    return dj_op_is_elementwise(node->call.op) &&
           dj_dtype_bytes(node->outs[0].view.dtype) * SHRINKS_TO > sizeof(double);
}

dj_status_t dj_rewrite_beside(dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = dj_rewriter_graph(rewriter);
    const dj_storage_use_t *uses = dj_rewriter_uses(rewriter);
    dj_alive_t *alive = dj_alive_create(rewriter, uses);
    if (alive == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        uint64_t made = 0;
        uint32_t behind;
        bool fresh = !keeps_size(node);
        for (uint32_t j = 0; j < node->n_outs; j++) {
            made += graph->storages[node->outs[j].storage].bytes;
            fresh &= node->outs[j].target == DJ_TARGET_NEW;
        }
        if (!fresh || !find_behind(graph, uses, i, &behind))
            continue;
        uint64_t freed = freed_by(graph, uses, i, behind);
        if (freed == 0 || freed < SHRINKS_TO * made ||
            !dj_alive_allows(alive, behind, behind, made) || !dj_rewriter_move(rewriter, i, behind))
            continue;
        dj_alive_add(alive, behind, behind, (int64_t)made); /* others may follow the same node */
        dj_rewriter_report(rewriter)->beside++;
    }
    dj_alive_destroy(alive);
    return DJ_OK;
}
