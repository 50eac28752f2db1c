/* place_quick.h - the state of the quick mode, between its sweeps along time (place_quick.c) and
 * its ranks (place_rank.c).
 *
 * Inside the planner. Threads: one. */
#ifndef DJ_PLANNER_PLACE_QUICK_H
#define DJ_PLANNER_PLACE_QUICK_H

#include "planner/place_chain.h"

typedef struct dj_used {
    uint64_t offset, end; /* units */
} dj_used_t;

typedef struct dj_quick {
    dj_place_t *places;
    uint32_t n;
    uint64_t base, best;        /* bytes */
    uint64_t least, least_bare; /* bounds of the end: with padding, and without any */
    uint64_t work, budget, padding_until;
    uint32_t *by_time;
    /* a sweep */
    uint32_t *order, *settled, n_settled, forget_at;
    uint64_t *offsets;
    /* orders of chains */
    dj_chains_t chains;
    uint32_t *meets_first, *meets;
    dj_used_t *near;
    uint64_t *floors;
    uint64_t *order_offsets, order_end; /* of the best order: units; bytes */
    bool *placed;
    uint32_t *best_order, *heap, *rank;
} dj_quick_t;

/* The budget is spent, or nothing better is possible. */
bool dj_quick_is_done(const dj_quick_t *quick);

/* Ranks and what follows them; keeps the best in quick->places. The caller frees what quick points
 * to, also after an error. DJ_ERR_MEMORY. */
dj_status_t dj_quick_try_chains(dj_quick_t *quick);

#endif
