/* place.h - inside the planner: where things with lifetimes go in one slab.
 *
 * A place wants `bytes` during the steps first to last. Two places may share bytes only when their
 * times are apart, and a time begins at the first step of its fusion group (`from`), because a
 * device may run a group tile by tile: what an earlier step of the group has finished reading in
 * this tile it may still have to read in the next. One exception: inside a group a place may take
 * over exactly the range of one that died there, when that one was walked element by element in the
 * group's order (hands_over) and so is the newcomer (takes_over): then each tile's bytes are free
 * when the tile needs them.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_PLACE_H
#define DJ_PLANNER_PLACE_H

#include "planner/plan.h"

typedef struct dj_place {
    uint64_t bytes, offset;
    uint32_t first, last; /* steps */
    uint32_t from;        /* first step of the group that `first` is in */
    bool hands_over;      /* walked element by element in its last group */
    bool takes_over;      /* and in its first */
} dj_place_t;

/* Gives every place an offset, a multiple of DJ_ALIGN_BYTES from `base` on: the best of several
 * orders. *end_p: the highest end. DJ_ERR_MEMORY. */
dj_status_t dj_places_assign(dj_place_t *places, uint32_t n_places, uint64_t base, uint64_t *end_p);

/* Proves the rule above, alignment and base. DJ_ERR_CORRUPT names the pair; DJ_ERR_MEMORY. */
dj_status_t dj_places_check(const dj_place_t *places, uint32_t n_places, uint64_t base);

/* The most bytes alive at one step, each place rounded up to `alignment`: no placement is lower. A
 * place is alive from its group's first step on, unless there is one that it may take over.
 * DJ_ERR_MEMORY. */
dj_status_t dj_places_alive(const dj_place_t *places, uint32_t n_places, uint32_t n_steps,
                            uint64_t alignment, uint64_t *bytes_p);

#endif
