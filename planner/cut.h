/* cut.h - a graph cut into stages, one after the other, for several devices in a row.
 *
 * Stages are runs of nodes in the graph's order. What a cut costs is what crosses it: every value
 * made or changed before it and used behind it, state included; weights do not cross, a stage that
 * uses one holds it, and bytes that come with the request go straight to where they are used. A
 * value that is used two stages on crosses both cuts, as in a pipeline.
 *
 * Memory of a stage: weights, state, inputs and outputs that its nodes touch, and the most
 * activation bytes alive at one of its nodes (those included that only pass through).
 *
 * Both aims are met exactly, by a dynamic program over the cut points in time and memory linear in
 * nodes times stages:
 *   DJ_CUT_BYTES  least bytes crossing, all cuts together
 *   DJ_CUT_TIME   least time of the slowest stage; of those cuts, least bytes crossing
 *
 * Ownership: dj_cut_destroy(). Threads: pure. */
#ifndef DJ_PLANNER_CUT_H
#define DJ_PLANNER_CUT_H

#include "planner/srg.h"

#define DJ_CUT_STAGES_MAX 4096

typedef enum dj_cut_aim {
    DJ_CUT_BYTES,
    DJ_CUT_TIME,
} dj_cut_aim_t;

typedef struct dj_cut_request {
    uint32_t n_stages; /* exactly as many, none empty */
    uint8_t aim;
    uint64_t memory_bytes; /* that a stage may need; 0: no limit */
} dj_cut_request_t;

typedef struct dj_cut_stage {
    uint32_t first, last; /* nodes */
    double ns, flops;
    uint64_t memory_bytes, weight_bytes;
    uint64_t crossing_bytes;        /* over the cut before this stage; 0 for the first */
    uint32_t first_value, n_values; /* in `values`: the storages that cross there */
} dj_cut_stage_t;

typedef struct dj_cut {
    uint32_t n_stages;
    uint64_t crossing_bytes; /* all cuts together */
    double slowest_ns;
    dj_cut_stage_t *stages;
    uint32_t *stage_of; /* of each node */
    uint32_t *values;
} dj_cut_t;

/* DJ_ERR_INVALID (no stages, more than nodes), DJ_ERR_LIMIT, DJ_ERR_RESOURCE (nothing fits: the
 * sentence names the node that is hardest to place), DJ_ERR_MEMORY. */
dj_status_t dj_cut_make(const dj_srg_t *srg, const dj_cut_request_t *request, dj_cut_t **cut_p);
void dj_cut_destroy(dj_cut_t *cut); /* NULL is allowed */

#endif
