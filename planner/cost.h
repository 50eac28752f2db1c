/* cost.h - inside the planner: work and traffic of a node, and how long a device would take.
 *
 * Conventions. A product, a convolution and attention count two operations a multiply-add; causal
 * attention counts the half that is computed. A pointwise op counts one an element, or
 * DJ_COST_FUNCTION where it calls exp, sin or their like; norms, softmax, sorts and the rest have a
 * factor of their own (cost.c). A gradient of a product or a convolution counts twice its forward
 * op. Bytes are what must cross to memory and back at least once: each operand and each result
 * once, a broadcast as what is stored, and of a table only the rows that are gathered. Good to a
 * factor, which is what queueing, cutting and fallback need.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_COST_H
#define DJ_PLANNER_COST_H

#include "planner/family.h"
#include "planner/graph.h"

#define DJ_COST_FUNCTION 8.0

/* Floating-point operations, and bytes read and written once each. */
void dj_node_cost(const dj_graph_t *graph, const dj_node_t *node, double *flops_p,
                  uint64_t *bytes_p);
/* The same bytes apart: what comes in and what goes out. */
void dj_node_traffic(const dj_graph_t *graph, const dj_node_t *node, uint64_t *in_p,
                     uint64_t *out_p);

/* A device class as the roofline sees it (dj_plan_needs_t has the same three). A zero rate: that
 * side costs nothing. */
typedef struct dj_roofline {
    double flops_per_ns, bytes_per_ns;
    uint64_t step_ns; /* fixed cost of one step */
} dj_roofline_t;

typedef enum dj_bound {
    DJ_BOUND_MEMORY,
    DJ_BOUND_COMPUTE,
} dj_bound_t;

/* max(flops / rate, bytes / rate) + step_ns. */
double dj_roofline_ns(const dj_roofline_t *roofline, double flops, uint64_t bytes);
dj_bound_t dj_roofline_bound(const dj_roofline_t *roofline, double flops, uint64_t bytes);

#endif
