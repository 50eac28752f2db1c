/* plan.h - contract 2: the plan: order, fusion, offsets, workspace and peak, before the first kernel.
 *
 * A plan is a pure function of (graph, device class, workspace needs); the needs themselves follow
 * from graph and device class, because a class hashes the device's kind, its instruction set or
 * compute capability and its libraries' versions. It holds no pointer and no address: offsets are
 * relative to the slab, bindings are indices. So it is serialisable, and the worker that missed it
 * publishes it to the ranks of its class; a receiver of another class refuses it (DJ_ERR_CLASS) and
 * plans for itself.
 *
 * Layout of the slab ("Stack"), low to high:
 *   [0, workspace_bytes)   the largest workspace any step needs (not rounded up), shared by all
 *   above, 256-aligned     every storage that lives only inside the request, 256-byte aligned,
 *                          disjoint from every storage alive at the same time
 *   peak_bytes             the highest end of any of these, not rounded up
 * Storages that outlive the request (bindings) have no place in Stack: kernels read and write them
 * where they lie (direct-out). Those that a fitted graph spills (fit.h) have theirs in a second slab,
 * [0, spill_bytes), laid out in the same way.
 *
 * Promise: the highest byte that replay changes in a poisoned slab is peak_bytes - 1, and nothing is
 * allocated anywhere else.
 *
 * A step is a node that survives dead-code elimination. When a node writes INTO a storage that it
 * also reads through another window, its result is staged: written to its own place in Stack and then
 * copied: the device writes it contiguously, in the target's dtype and sizes, at the step's `staging`
 * offset, then copies it through the target's window. A fusion group is a run of pointwise steps with
 * contiguous outputs of one shape which a device may execute tile by tile, if every tile covers the same
 * element numbers in all steps; the plan says which, the device how. (place.h says what that asks of
 * the layout.)
 *
 * Bindings of one request must not overlap each other unless none of them is written: the planner
 * sees storages, not addresses, so the runtime binds one storage per ref.
 *
 * Ownership: dj_plan_destroy(). Threads: immutable once made. */
#ifndef DJ_PLANNER_PLAN_H
#define DJ_PLANNER_PLAN_H

#include <stdatomic.h>

#include "planner/graph.h"

#define DJ_ALIGN_BYTES 256u
#define DJ_PLAN_VERSION 2
#define DJ_OFFSET_NONE UINT64_MAX

/* `bytes` and the padding behind them. */
static inline uint64_t dj_align_up(uint64_t bytes)
{
    return (bytes + DJ_ALIGN_BYTES - 1) & ~(uint64_t)(DJ_ALIGN_BYTES - 1);
}

typedef struct dj_plan_step {
    uint32_t node;
    uint32_t group;   /* steps of one fusion group are adjacent and share the number */
    uint64_t staging; /* offset of the staged output 0, or DJ_OFFSET_NONE */
} dj_plan_step_t;

typedef struct dj_plan {
    dj_hash_t program_key, exact_key, device_class;
    uint32_t n_steps, n_storages, n_groups;
    dj_plan_step_t *steps;
    uint64_t *offsets; /* of each storage in its slab; DJ_OFFSET_NONE: a binding, or never used */
    uint64_t workspace_bytes, peak_bytes;
    uint64_t spill_bytes; /* of the second slab, 0 unless the graph was fitted */
    uint64_t bound_bytes; /* workspace and the most bytes alive at once: no such layout is lower */
    uint64_t predicted_ns;
    uint64_t planning_ns; /* what making it took; charged to the session */
} dj_plan_t;

/* What the planner must know of a device. */
typedef struct dj_plan_needs {
    dj_hash_t device_class;
    const uint64_t *workspace_bytes; /* of each node; NULL: none */
    double flops_per_ns, bytes_per_ns; /* for predicted_ns */
    uint64_t step_ns;                  /* fixed cost of one step */
} dj_plan_needs_t;

/* DJ_ERR_MEMORY, DJ_ERR_LIMIT. */
dj_status_t dj_plan_make(const dj_graph_t *graph, const dj_plan_needs_t *needs, dj_plan_t **plan_p);
void dj_plan_destroy(dj_plan_t *plan);

/* Serialised form, little-endian, "DJPL" and version first. */
dj_status_t dj_plan_encode(const dj_plan_t *plan, dj_bytes_t *bytes);

/* Reads a plan made elsewhere and proves it for this graph and class: keys equal, every live node
 * present exactly once and after its producers, every place aligned, in range and disjoint from all
 * places alive with it, hazards staged, peak and bound as recomputed here. What passes is as safe as
 * a plan made here. DJ_ERR_CORRUPT, DJ_ERR_CLASS, DJ_ERR_VERSION, DJ_ERR_STALE (other keys). */
dj_status_t dj_plan_decode(const void *data, size_t size, const dj_graph_t *graph,
                           const dj_plan_needs_t *needs, dj_plan_t **plan_p);

/* The proof alone, also used by tests on plans made here. */
dj_status_t dj_plan_verify(const dj_plan_t *plan, const dj_graph_t *graph);

/* Where a search ends without an answer. */
typedef struct dj_plan_limits {
    uint64_t deadline_ns;      /* of dj_clock_ns() */
    const atomic_bool *cancel; /* another thread may set it; NULL: nobody will */
} dj_plan_limits_t;

/* Looks for a layout of the same steps with a lower peak, by exact search, and proves it.
 * *better_p: NULL when none was found, be it that there is none or that the limits came first.
 * DJ_ERR_MEMORY, DJ_ERR_LIMIT. */
dj_status_t dj_plan_improve(const dj_graph_t *graph, const dj_plan_t *plan,
                            const dj_plan_limits_t *limits, dj_plan_t **better_p);

#endif
