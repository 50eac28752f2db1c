/* flow.h - minimum-cost flow: things to places, at the least sum of costs.
 *
 * Successive shortest augmenting paths (Busacker and Gowen 1960; Jewell 1958), each found by
 * Bellman and Ford's method with a queue, which takes the negative costs of the way back. Exact for
 * any costs without a negative cycle. A cost that grows with use (the second guest of a NIC costs
 * more than the first) is several edges side by side, the cheap ones first.
 *
 * Sizes here: a hundred nodes, thousands of edges, tens of units: well below a millisecond. */
#ifndef DJ_LAUNCHER_FLOW_H
#define DJ_LAUNCHER_FLOW_H

#include <stdint.h>

#include "runtime/base/status.h"

typedef struct dj_flow dj_flow_t;

/* Ownership: dj_flow_destroy(), which takes NULL. DJ_ERR_MEMORY. */
dj_status_t dj_flow_create(uint32_t nodes, uint32_t edges, dj_flow_t **flow_p);
void dj_flow_destroy(dj_flow_t *flow);
/* Returns the edge's number: 0 for the first. At most `edges` of them. */
uint32_t dj_flow_edge(dj_flow_t *flow, uint32_t from, uint32_t to, uint32_t capacity, int32_t cost);
/* Sends up to `amount` units; how many went and what they cost. */
uint32_t dj_flow_run(dj_flow_t *flow, uint32_t source, uint32_t sink, uint32_t amount,
                     int64_t *cost_p);
/* How many units took the edge. */
uint32_t dj_flow_on(const dj_flow_t *flow, uint32_t edge);

#endif
