/* alive.c - the profile of live bytes that rewrites look at before they lengthen a life. */
#include <stdlib.h>

#include "planner/rewrite_passes.h"
#include "planner/schedule.h"

#define WORK_MAX (1ull << 23) /* nodes looked at by one pass: a few milliseconds */

struct dj_alive {
    uint64_t most, work;
    uint32_t n_nodes;
    uint64_t bytes[]; /* of each node */
};

dj_alive_t *dj_alive_create(dj_rewriter_t *rewriter, const dj_storage_use_t *uses)
{
    const dj_graph_t *graph = dj_rewriter_graph(rewriter);
    dj_alive_t *alive = calloc(1, sizeof *alive + (graph->n_nodes + 1ull) * sizeof alive->bytes[0]);
    if (alive == NULL) {
        dj_fail(DJ_ERR_MEMORY, "no memory to rewrite %u nodes", graph->n_nodes);
        return NULL;
    }
    alive->n_nodes = graph->n_nodes;
    for (uint32_t i = 0; i < graph->n_storages; i++) {
        if (graph->storages[i].binding != DJ_SLOT_NONE || uses[i].first == DJ_SLOT_NONE)
            continue;
        alive->bytes[uses[i].first] += graph->storages[i].bytes; /* changes first, then sums */
        alive->bytes[dj_storage_last_use(&uses[i]) + 1] -= graph->storages[i].bytes;
    }
    for (uint32_t i = 1; i < graph->n_nodes; i++)
        alive->bytes[i] += alive->bytes[i - 1];
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        if (dj_node_must_stage(graph, &graph->nodes[i]))
            alive->bytes[i] += dj_view_dense_bytes(&graph->nodes[i].outs[0].view);
        alive->most = alive->bytes[i] > alive->most ? alive->bytes[i] : alive->most;
    }
    return alive;
}

void dj_alive_destroy(dj_alive_t *alive)
{
    free(alive);
}

void dj_alive_add(dj_alive_t *alive, uint32_t first, uint32_t last, int64_t bytes)
{
    for (uint32_t i = first; i <= last && i < alive->n_nodes; i++)
        alive->bytes[i] += (uint64_t)bytes;
    alive->work += last - first + 1ull;
}

bool dj_alive_tired(const dj_alive_t *alive)
{
    return alive->work > WORK_MAX;
}

bool dj_alive_allows(dj_alive_t *alive, uint32_t first, uint32_t last, uint64_t bytes)
{
    if (dj_alive_tired(alive))
        return false;
    for (uint32_t i = first; i <= last; i++) {
        alive->work++;
        if (alive->bytes[i] + bytes > alive->most)
            return false;
    }
    return true;
}
