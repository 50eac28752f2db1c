/* cost.h - inside the planner: work and traffic of a node, for predictions and totals. */
#ifndef DJ_PLANNER_COST_H
#define DJ_PLANNER_COST_H

#include "planner/graph.h"

/* Floating-point operations, and bytes read and written once each. */
void dj_node_cost(const dj_graph_t *graph, const dj_node_t *node, double *flops_p,
                  uint64_t *bytes_p);

#endif
