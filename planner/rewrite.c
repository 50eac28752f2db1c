/* rewrite.c - the driver of all passes, and what they change a graph with.
 *
 * Renames are a forest: each storage points to the one that took it over and how far inside it lies.
 * A pass may ask for roots while it walks; the nodes themselves are changed once, at the commit, which
 * also leaves dropped nodes out, puts moved ones in their place and derives versions and uses anew. */
#include "planner/rewrite.h"

#include <stdlib.h>
#include <string.h>

#include "planner/arena.h"
#include "planner/rewrite_passes.h"

struct dj_rewriter {
    dj_graph_t *graph;
    dj_rewrite_report_t *report;
    uint32_t *parent;  /* of each storage */
    uint64_t *inside;  /* bytes from the start of its parent */
    uint8_t *dropped;  /* of each node */
    uint32_t *behind;  /* of each node that moved: the node it follows, plus one; 0: to the start */
    uint8_t *moved;
    dj_storage_use_t *uses;
    bool uses_hold;     /* nothing changed since they were derived */
    uint32_t n_changes; /* since the last commit */
    uint32_t n_renames, n_drops, n_moves; /* of them */
};

dj_operand_t *dj_operand_next(dj_operand_walk_t *walk)
{
    const dj_call_t *call = &walk->node->call;
    for (; walk->arg < call->n_args; walk->arg++, walk->element = 0) {
        const dj_arg_t *arg = &call->args[walk->arg];
        while (arg->kind == DJ_ARG_TENSORS && walk->element < arg->count) {
            const dj_operand_t *operand = &arg->operands[walk->element++];
            if (operand->storage < DJ_STORAGE_SCALAR)
                return (dj_operand_t *)operand; /* the graph is ours to change */
        }
    }
    return NULL;
}

dj_graph_t *dj_rewriter_graph(dj_rewriter_t *rewriter)
{
    return rewriter->graph;
}

dj_rewrite_report_t *dj_rewriter_report(dj_rewriter_t *rewriter)
{
    return rewriter->report;
}

void *dj_rewriter_alloc(dj_rewriter_t *rewriter, size_t count, size_t size)
{
    dj_arena_t *arena = rewriter->graph->arena;
    void *piece = dj_arena_alloc(&arena, count * size);
    rewriter->graph->arena = arena;
    if (piece == NULL)
        dj_fail(DJ_ERR_MEMORY, "no memory to rewrite a graph of %u nodes", rewriter->graph->n_nodes);
    return piece;
}

/* The root and the bytes from its start. */
static uint32_t root_of(const dj_rewriter_t *rewriter, uint32_t storage, uint64_t *bytes_p)
{
    uint64_t bytes = 0;
    while (rewriter->parent[storage] != storage) {
        bytes += rewriter->inside[storage];
        storage = rewriter->parent[storage];
    }
    *bytes_p = bytes;
    return storage;
}

uint32_t dj_rewriter_root(dj_rewriter_t *rewriter, uint32_t storage)
{
    uint64_t bytes, to_root;
    uint32_t root = root_of(rewriter, storage, &bytes);
    while (rewriter->parent[storage] != storage) { /* the next walk is short */
        uint32_t next = rewriter->parent[storage];
        to_root = rewriter->inside[storage];
        rewriter->parent[storage] = root;
        rewriter->inside[storage] = bytes;
        bytes -= to_root;
        storage = next;
    }
    return root;
}

void dj_rewriter_rename(dj_rewriter_t *rewriter, uint32_t from, uint32_t to, uint64_t bytes)
{
    rewriter->parent[from] = to;
    rewriter->inside[from] = bytes;
    rewriter->n_renames++;
    rewriter->n_changes++;
}

void dj_rewriter_drop(dj_rewriter_t *rewriter, uint32_t node)
{
    rewriter->dropped[node] = 1;
    rewriter->n_drops++;
    rewriter->n_changes++;
}

bool dj_rewriter_dropped(const dj_rewriter_t *rewriter, uint32_t node)
{
    return rewriter->dropped[node];
}

bool dj_rewriter_move(dj_rewriter_t *rewriter, uint32_t node, uint32_t behind)
{
    if (behind != DJ_SLOT_NONE && rewriter->moved[behind])
        return false;
    rewriter->moved[node] = 1;
    rewriter->behind[node] = behind == DJ_SLOT_NONE ? 0 : behind + 1;
    rewriter->n_moves++;
    rewriter->n_changes++;
    return true;
}

static void redirect(const dj_rewriter_t *rewriter, uint32_t *storage_p, dj_view_t *view)
{
    uint64_t bytes;
    if (rewriter->parent[*storage_p] == *storage_p)
        return;
    *storage_p = root_of(rewriter, *storage_p, &bytes);
    view->offset += (int64_t)(bytes / dj_dtype_bytes(view->dtype));
}

static void redirect_all(const dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = rewriter->graph;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        if (rewriter->dropped[i])
            continue;
        dj_operand_walk_t walk = {&graph->nodes[i], 0, 0};
        for (dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;)
            redirect(rewriter, &operand->storage, &operand->view);
        for (uint32_t j = 0; j < graph->nodes[i].n_outs; j++)
            redirect(rewriter, &graph->nodes[i].outs[j].storage, &graph->nodes[i].outs[j].view);
    }
}

static dj_node_t *put_in_order(dj_rewriter_t *rewriter, const uint32_t *first, const uint32_t *next,
                               uint32_t behind, dj_node_t *at)
{
    for (uint32_t node = first[behind]; node != DJ_SLOT_NONE; node = next[node])
        if (!rewriter->dropped[node])
            *at++ = rewriter->graph->nodes[node];
    return at;
}

/* Nodes that moved follow the one they moved behind, in the order they had. */
static dj_status_t reorder(dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = rewriter->graph;
    uint32_t n = graph->n_nodes;
    uint32_t *first = malloc((2ull * n + 1) * sizeof *first), *next = first + n + 1;
    dj_node_t *nodes = malloc((n + 1ull) * sizeof *nodes), *at = nodes;
    if (first == NULL || nodes == NULL) {
        free(first);
        free(nodes);
        return dj_fail(DJ_ERR_MEMORY, "no memory to reorder %u nodes", n);
    }
    memset(first, 0xff, (n + 1ull) * sizeof *first);
    for (uint32_t i = n; i-- > 0;) {
        if (!rewriter->moved[i])
            continue;
        next[i] = first[rewriter->behind[i]];
        first[rewriter->behind[i]] = i;
    }
    at = put_in_order(rewriter, first, next, 0, at);
    for (uint32_t i = 0; i < n; i++) {
        if (!rewriter->dropped[i] && !rewriter->moved[i])
            *at++ = graph->nodes[i];
        at = put_in_order(rewriter, first, next, i + 1, at);
    }
    graph->n_nodes = (uint32_t)(at - nodes);
    memcpy(graph->nodes, nodes, graph->n_nodes * sizeof *nodes);
    free(first);
    free(nodes);
    return DJ_OK;
}

static void leave_out(dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = rewriter->graph;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (!rewriter->dropped[i])
            graph->nodes[kept++] = graph->nodes[i];
    graph->n_nodes = kept;
}

dj_status_t dj_rewriter_commit(dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = rewriter->graph;
    uint32_t n_nodes = graph->n_nodes;
    if (rewriter->n_changes == 0)
        return DJ_OK;
    if (rewriter->n_renames > 0)
        redirect_all(rewriter);
    dj_status_t status = DJ_OK;
    if (rewriter->n_moves > 0)
        status = reorder(rewriter);
    else if (rewriter->n_drops > 0)
        leave_out(rewriter);
    if (status != DJ_OK)
        return status;
    if (rewriter->n_drops + rewriter->n_moves > 0) {
        memset(rewriter->dropped, 0, n_nodes);
        memset(rewriter->moved, 0, n_nodes);
    }
    for (uint32_t i = 0; rewriter->n_renames > 0 && i < graph->n_storages; i++)
        rewriter->parent[i] = i;
    rewriter->n_changes = rewriter->n_renames = rewriter->n_drops = rewriter->n_moves = 0;
    rewriter->uses_hold = false;
    dj_graph_relink(graph);
    return DJ_OK;
}

static void note_window(dj_storage_use_t *use, const dj_storage_t *storage, const dj_view_t *view,
                        uint32_t slot, uint32_t node)
{
    bool first = use->n_reads + use->n_writes == 0;
    if (first)
        use->first = node;
    use->dtype = first || use->dtype == view->dtype ? view->dtype : (uint8_t)DJ_DTYPE_NONE;
    use->fixed &= slot == DJ_SLOT_NONE;
    use->whole &= slot == DJ_SLOT_NONE && view->offset == 0 && dj_view_is_contiguous(view) &&
                  dj_view_dense_bytes(view) == storage->bytes;
}

dj_storage_use_t *dj_rewriter_uses(dj_rewriter_t *rewriter)
{
    const dj_graph_t *graph = rewriter->graph;
    if (rewriter->uses_hold)
        return rewriter->uses;
    rewriter->uses_hold = true;
    for (uint32_t i = 0; i < graph->n_storages; i++)
        rewriter->uses[i] = (dj_storage_use_t){.first = DJ_SLOT_NONE,
                                               .first_read = DJ_SLOT_NONE,
                                               .last_read = DJ_SLOT_NONE,
                                               .last_write = DJ_SLOT_NONE,
                                               .earlier_read = DJ_SLOT_NONE,
                                               .fixed = true,
                                               .whole = true,
                                               .dtype = DJ_DTYPE_NONE};
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        dj_operand_walk_t walk = {node, 0, 0};
        for (dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;) {
            dj_storage_use_t *use = &rewriter->uses[operand->storage];
            note_window(use, &graph->storages[operand->storage], &operand->view, operand->slot, i);
            use->first_read = use->n_reads++ > 0 ? use->first_read : i;
            use->earlier_read = use->last_read != i ? use->last_read : use->earlier_read;
            use->last_read = i;
        }
        for (uint32_t j = 0; j < node->n_outs; j++) {
            const dj_output_t *out = &node->outs[j];
            dj_storage_use_t *use = &rewriter->uses[out->storage];
            note_window(use, &graph->storages[out->storage], &out->view, out->slot, i);
            use->n_writes++;
            use->last_write = i;
        }
    }
    return rewriter->uses;
}

static dj_status_t open_rewriter(dj_rewriter_t *rewriter)
{
    uint32_t n_storages = rewriter->graph->n_storages, n_nodes = rewriter->graph->n_nodes;
    rewriter->parent = calloc(n_storages + 1ull, sizeof rewriter->parent[0]);
    rewriter->inside = calloc(n_storages + 1ull, sizeof rewriter->inside[0]);
    rewriter->uses = calloc(n_storages + 1ull, sizeof rewriter->uses[0]);
    rewriter->behind = calloc(n_nodes + 1ull, sizeof rewriter->behind[0]);
    rewriter->dropped = calloc(n_nodes + 1ull, 1);
    rewriter->moved = calloc(n_nodes + 1ull, 1);
    if (rewriter->parent == NULL || rewriter->inside == NULL || rewriter->uses == NULL ||
        rewriter->behind == NULL || rewriter->dropped == NULL || rewriter->moved == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to rewrite a graph of %u nodes", n_nodes);
    for (uint32_t i = 0; i < n_storages; i++)
        rewriter->parent[i] = i;
    return DJ_OK;
}

static void close_rewriter(dj_rewriter_t *rewriter)
{
    free(rewriter->parent);
    free(rewriter->inside);
    free(rewriter->uses);
    free(rewriter->behind);
    free(rewriter->dropped);
    free(rewriter->moved);
}

static dj_status_t run_pass(dj_rewriter_t *rewriter, dj_rewrite_fn_t pass)
{
    dj_status_t status = pass(rewriter);
    return status == DJ_OK ? dj_rewriter_commit(rewriter) : status;
}

static dj_status_t run_extra(dj_rewriter_t *rewriter, dj_rewrite_fn_t pass)
{
    dj_status_t status = pass(rewriter);
    rewriter->report->plugin += rewriter->n_changes;
    if (status == DJ_OK)
        status = dj_rewriter_commit(rewriter);
    if (status == DJ_OK && (status = dj_graph_check(rewriter->graph)) != DJ_OK)
        status = dj_fail(DJ_ERR_INTERNAL, "a plugin's rewrite broke the graph: %s",
                         dj_error_text());
    return status;
}

dj_status_t dj_graph_rewrite(dj_graph_t *graph, const dj_rewrite_fn_t *extra, uint32_t n_extra,
                             dj_rewrite_report_t *report_p)
{
    static const dj_rewrite_fn_t passes[] = {dj_rewrite_dead,   dj_rewrite_merge,
                                             dj_rewrite_copies, dj_rewrite_concat,
                                             dj_rewrite_beside, dj_rewrite_in_place};
    dj_rewrite_report_t report = {0};
    dj_rewriter_t rewriter = {.graph = graph, .report = &report};
    dj_status_t status = open_rewriter(&rewriter);
    for (uint32_t i = 0; status == DJ_OK && i < sizeof passes / sizeof passes[0]; i++)
        status = run_pass(&rewriter, passes[i]);
    for (uint32_t i = 0; status == DJ_OK && i < n_extra; i++)
        status = run_extra(&rewriter, extra[i]);
    close_rewriter(&rewriter);
    if (status == DJ_OK && report_p != NULL)
        *report_p = report;
    return status;
}
