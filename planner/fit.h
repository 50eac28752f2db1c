/* fit.h - a graph that needs more Stack than there is, made to need less.
 *
 * Three means, in this order, each only while the bytes alive at once are above the capacity:
 *   reorder    another valid order of the same nodes (order.c); costs nothing
 *   recompute  a value that idles across the fullest step is made a second time after it, where all it is
 *              made of is still there
 *   spill      it is copied to a second slab before that step and back after it; the spill slab may be
 *              slower memory and is the device's to supply (dj_launch_t.spill)
 * Of the last two the one that the cost model calls cheaper per byte is taken, value by value. Like any
 * rewrite (rewrite.h) this changes nodes and storages, never bindings, scalars or keys. The plan of a fitted
 * graph is for the rank that fitted it: others have other capacities, so it is not published.
 *
 * The bytes counted are those of a perfect layout, rounded up to DJ_ALIGN_BYTES each; whether the planner
 * finds one is seen when it has planned. Work is bounded: after FIT_CHANGES_MAX changes, or when nothing
 * idle is left at the fullest step, it gives up.
 *
 * Threads: pure; the graph is the caller's alone. */
#ifndef DJ_PLANNER_FIT_H
#define DJ_PLANNER_FIT_H

#include "planner/plan.h"

typedef struct dj_fit_limits {
    uint64_t stack_bytes;       /* capacity */
    uint64_t workspace_bytes;   /* of it, what the neediest node takes */
    uint64_t spill_bytes;       /* of the second slab; 0: no spilling */
    double spill_bytes_per_ns;  /* of a copy to or from it */
} dj_fit_limits_t;

typedef struct dj_fit_report {
    bool reordered;
    uint32_t recomputed, spilled;        /* values */
    uint64_t before_bytes, after_bytes;  /* most alive at once, workspace included */
    uint64_t extra_ns;                   /* predicted cost of what was added */
} dj_fit_report_t;

/* Of `needs` the rates are used; workspaces follow anew when the device compiles the result.
 * DJ_ERR_RESOURCE: what one step needs at least is more; the sentence names it and both numbers.
 * DJ_ERR_MEMORY. After an error the graph is only to be destroyed. */
dj_status_t dj_graph_fit(dj_graph_t *graph, const dj_plan_needs_t *needs,
                         const dj_fit_limits_t *limits, dj_fit_report_t *report);

/* Reorders the nodes so that fewer bytes are alive at once, where it finds such an order; hazards and data
 * dependences stay. *most_p: bytes alive at once after it, without workspaces. DJ_ERR_MEMORY. */
dj_status_t dj_graph_reorder(dj_graph_t *graph, uint64_t *most_p);

/* Bytes of Stack alive at each node, staging included, each storage rounded up to DJ_ALIGN_BYTES.
 * `alive` has room for n_nodes + 1. Returns the most. */
uint64_t dj_graph_alive(const dj_graph_t *graph, uint64_t *alive);

#endif
