/* rewrite_passes.h - inside the planner: the passes of rewrite.h, as dj_graph_rewrite() runs them. */
#ifndef DJ_PLANNER_REWRITE_PASSES_H
#define DJ_PLANNER_REWRITE_PASSES_H

#include "planner/rewrite.h"

/* rewrite_values.c: what is computed */
dj_status_t dj_rewrite_dead(dj_rewriter_t *rewriter);
dj_status_t dj_rewrite_merge(dj_rewriter_t *rewriter);
dj_status_t dj_rewrite_copies(dj_rewriter_t *rewriter);
dj_status_t dj_rewrite_beside(dj_rewriter_t *rewriter);

/* rewrite_memory.c: where it lies */
dj_status_t dj_rewrite_concat(dj_rewriter_t *rewriter);
dj_status_t dj_rewrite_in_place(dj_rewriter_t *rewriter);

/* An input or an output of the request: it has no place in Stack. */
static inline bool dj_storage_is_bound(const dj_graph_t *graph, uint32_t storage)
{
    return graph->storages[storage].binding != DJ_SLOT_NONE;
}

/* The last node that touches a storage, DJ_SLOT_NONE when none does. */
static inline uint32_t dj_storage_last_use(const dj_storage_use_t *use)
{
    if (use->last_read == DJ_SLOT_NONE || use->last_write == DJ_SLOT_NONE)
        return use->last_read == DJ_SLOT_NONE ? use->last_write : use->last_read;
    return use->last_read > use->last_write ? use->last_read : use->last_write;
}

/* alive.c: bytes of Stack alive at each node, for passes that lengthen a life. Looking at long lives costs
 * time, so the work of one pass is bounded; beyond it nothing is allowed any more. */
typedef struct dj_alive dj_alive_t;

dj_alive_t *dj_alive_create(dj_rewriter_t *rewriter, const dj_storage_use_t *uses); /* or NULL */
void dj_alive_destroy(dj_alive_t *alive);
/* The work is done: who would still add to the profile does without the change instead. */
bool dj_alive_tired(const dj_alive_t *alive);
/* At every node of [first, last]. */
void dj_alive_add(dj_alive_t *alive, uint32_t first, uint32_t last, int64_t bytes);
/* May `bytes` more live during [first, last] without raising the most that were alive at the start? */
bool dj_alive_allows(dj_alive_t *alive, uint32_t first, uint32_t last, uint64_t bytes);

#endif
