/* flow.c - edges lie in pairs: 2e is edge e, 2e + 1 its way back. */
#include "launcher/placement/flow.h"

#include <stdbool.h>
#include <stdlib.h>

#define NO_ARC UINT32_MAX

typedef struct arc {
    uint32_t to, next; /* the next arc that leaves the same node */
    uint32_t room;
    int32_t cost;
} arc_t;

struct dj_flow {
    uint32_t n_nodes, n_arcs;
    uint32_t *first;  /* arc of each node */
    uint32_t *arrive; /* the arc by which the shortest path comes */
    int64_t *far;
    uint32_t *queue; /* a ring of n_nodes */
    bool *queued;
    arc_t arcs[];
};

dj_status_t dj_flow_create(uint32_t nodes, uint32_t edges, dj_flow_t **flow_p)
{
    dj_flow_t *flow = calloc(1, sizeof *flow + 2 * (size_t)edges * sizeof flow->arcs[0]);
    if (!flow)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u edges", edges);
    flow->n_nodes = nodes;
    flow->first = malloc(nodes * sizeof flow->first[0]);
    flow->arrive = malloc(nodes * sizeof flow->arrive[0]);
    flow->far = malloc(nodes * sizeof flow->far[0]);
    flow->queue = malloc(nodes * sizeof flow->queue[0]);
    flow->queued = calloc(nodes, sizeof flow->queued[0]);
    if (!flow->first || !flow->arrive || !flow->far || !flow->queue || !flow->queued) {
        dj_flow_destroy(flow);
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u nodes", nodes);
    }
    for (uint32_t i = 0; i < nodes; i++)
        flow->first[i] = NO_ARC;
    *flow_p = flow;
    return DJ_OK;
}

void dj_flow_destroy(dj_flow_t *flow)
{
    if (!flow)
        return;
    free(flow->first);
    free(flow->arrive);
    free(flow->far);
    free(flow->queue);
    free(flow->queued);
    free(flow);
}

static void add_arc(dj_flow_t *flow, uint32_t from, arc_t arc)
{
    arc.next = flow->first[from];
    flow->first[from] = flow->n_arcs;
    flow->arcs[flow->n_arcs++] = arc;
}

uint32_t dj_flow_edge(dj_flow_t *flow, uint32_t from, uint32_t to, uint32_t capacity, int32_t cost)
{
    add_arc(flow, from, (arc_t){.to = to, .room = capacity, .cost = cost});
    add_arc(flow, to, (arc_t){.to = from, .room = 0, .cost = -cost});
    return flow->n_arcs / 2 - 1;
}

/* Distances from the source; false when the sink cannot be reached. */
static bool find_path(dj_flow_t *flow, uint32_t source, uint32_t sink)
{
    uint32_t head = 0, waiting = 1;
    for (uint32_t i = 0; i < flow->n_nodes; i++) {
        flow->far[i] = INT64_MAX;
        flow->arrive[i] = NO_ARC;
    }
    flow->far[source] = 0;
    flow->queue[0] = source;
    while (waiting > 0) {
        uint32_t at = flow->queue[head];
        head = head + 1 == flow->n_nodes ? 0 : head + 1;
        waiting--;
        flow->queued[at] = false;
        for (uint32_t a = flow->first[at]; a != NO_ARC; a = flow->arcs[a].next) {
            const arc_t *arc = &flow->arcs[a];
            if (arc->room == 0 || flow->far[at] + arc->cost >= flow->far[arc->to])
                continue;
            flow->far[arc->to] = flow->far[at] + arc->cost;
            flow->arrive[arc->to] = a;
            if (flow->queued[arc->to])
                continue;
            flow->queued[arc->to] = true;
            flow->queue[(head + waiting++) % flow->n_nodes] = arc->to;
        }
    }
    return flow->arrive[sink] != NO_ARC;
}

uint32_t dj_flow_run(dj_flow_t *flow, uint32_t source, uint32_t sink, uint32_t amount,
                     int64_t *cost_p)
{
    uint32_t sent = 0;
    *cost_p = 0;
    while (sent < amount && find_path(flow, source, sink)) {
        uint32_t units = amount - sent;
        for (uint32_t at = sink; at != source; at = flow->arcs[flow->arrive[at] ^ 1].to) {
            if (flow->arcs[flow->arrive[at]].room < units)
                units = flow->arcs[flow->arrive[at]].room;
        }
        for (uint32_t at = sink; at != source; at = flow->arcs[flow->arrive[at] ^ 1].to) {
            flow->arcs[flow->arrive[at]].room -= units;
            flow->arcs[flow->arrive[at] ^ 1].room += units;
        }
        sent += units;
        *cost_p += units * flow->far[sink];
    }
    return sent;
}

uint32_t dj_flow_on(const dj_flow_t *flow, uint32_t edge)
{
    return flow->arcs[2 * edge + 1].room;
}
