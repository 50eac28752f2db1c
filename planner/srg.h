/* srg.h - what a graph means: a view over it, computed at the first question and never stored in
 * it.
 *
 * The graph (graph.h) says what is computed. This view says what that is for: the phase of the
 * workload, how many bytes live how long, how much work and traffic there is, which of the two
 * bounds each step on a device class, and which uses look at one storage. Nothing of it enters the
 * structure, a key or a plan, so a better detector changes no fingerprint.
 *
 * At first query: nobody pays for it who does not ask. dj_srg_make() does all the work, linear in
 * the graph; whoever holds the graph keeps the result as long as it wants it.
 *
 * Ownership: dj_srg_destroy(); the graph must outlive the view.
 * Threads: make it on one thread; immutable after, share freely. A holder that several threads may
 * ask first guards its pointer itself. */
#ifndef DJ_PLANNER_SRG_H
#define DJ_PLANNER_SRG_H

#include "planner/cost.h"
#include "planner/detect.h"

typedef enum dj_lifecycle {
    DJ_LIFE_WEIGHT,     /* read-only, shared, outlives sessions */
    DJ_LIFE_STATE,      /* the session's, before and after the request */
    DJ_LIFE_ACTIVATION, /* gone after the pass */
    DJ_LIFE_OUTPUT,     /* made here, outlives the request */
    DJ_LIFE_IMMEDIATE,  /* came with the request */
    DJ_LIFE_COUNT,
} dj_lifecycle_t;

const char *dj_lifecycle_name(uint8_t lifecycle);

/* One place where a node looks at a storage. Uses of one storage are an alias class: a write
 * through one is seen by every later one whose window overlaps. */
typedef struct dj_srg_use {
    uint32_t node;
    uint32_t version; /* read, or made by the write */
    uint8_t writes;
    uint8_t arg;    /* argument read, or output written */
    uint16_t index; /* in a list argument */
    const dj_view_t *view;
} dj_srg_use_t;

typedef struct dj_srg_node {
    double flops;
    uint64_t in_bytes, out_bytes;
    double ns;         /* on the roofline asked for */
    float reduction;   /* out_bytes / in_bytes; 1 when nothing is read */
    uint8_t bound;     /* dj_bound_t */
    uint8_t lifecycle; /* of output 0's storage */
    uint8_t phase;  /* of this node: another than the graph's where it serves a part of its own */
    uint8_t family; /* dj_family_t */
} dj_srg_node_t;

typedef struct dj_srg {
    const dj_graph_t *graph;
    dj_verdict_t verdict;
    dj_features_t features;
    uint64_t bytes[DJ_LIFE_COUNT]; /* of the storages of each lifecycle */
    double flops;
    uint64_t moved_bytes;
    double intensity; /* flops / moved_bytes */
    double ns;        /* sum over the nodes */
    uint8_t bound;    /* of the whole: which side costs more of `ns` */
    dj_roofline_t roofline;
    dj_srg_node_t *nodes;
    uint32_t *first_use; /* n_storages + 1 places in `uses` */
    dj_srg_use_t *uses;  /* by storage, in program order */
} dj_srg_t;

/* `roofline` NULL: dj_roofline_typical. `hint`: a user's phase or DJ_PHASE_UNKNOWN. DJ_ERR_MEMORY.
 */
dj_status_t dj_srg_make(const dj_graph_t *graph, const dj_roofline_t *roofline, uint8_t hint,
                        dj_srg_t **srg_p);
/* The same where the verdict is known: of the graph as it was recorded, say, before rewrites. */
dj_status_t dj_srg_make_as(const dj_graph_t *graph, const dj_roofline_t *roofline,
                           const dj_verdict_t *verdict, dj_srg_t **srg_p);
void dj_srg_destroy(dj_srg_t *srg); /* NULL is allowed */

/* The alias class of a storage. */
const dj_srg_use_t *dj_srg_uses(const dj_srg_t *srg, uint32_t storage, uint32_t *count_p);
dj_lifecycle_t dj_storage_lifecycle(const dj_storage_t *storage);

/* A present-day core with vectors; where no device is at hand. */
extern const dj_roofline_t dj_roofline_typical;

#endif
