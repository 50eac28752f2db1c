/* place.h - inside the planner: where things with lifetimes go in one slab.
 *
 * A place wants `bytes` during the steps first to last. Two places may share bytes only when their
 * times are apart, and times are widened to whole fusion groups (from, until), because a device may
 * run a group tile by tile: what one step of a group has finished reading, a later step of the same
 * group may still have to wait for in the next tile. One exception: inside a group a place may take
 * over exactly the range of one that died there, when both are walked element by element in the same
 * order (hands_over, takes_over), since then each tile's bytes are free when the tile needs them.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_PLACE_H
#define DJ_PLANNER_PLACE_H

#include "planner/plan.h"

typedef struct dj_place {
    uint64_t bytes, offset;
    uint32_t first, last; /* steps */
    uint32_t from, until; /* the same, widened to whole groups */
    bool takes_over;      /* at its first group */
    bool hands_over;      /* at its last group */
} dj_place_t;

/* Gives every place an offset, a multiple of DJ_ALIGN_BYTES from `base` on: the best of several
 * orders. *end_p: the highest end. DJ_ERR_MEMORY. */
dj_status_t dj_places_assign(dj_place_t *places, uint32_t n_places, uint64_t base, uint64_t *end_p);

/* Proves the rule above, alignment and base. DJ_ERR_CORRUPT names the pair; DJ_ERR_MEMORY. */
dj_status_t dj_places_check(const dj_place_t *places, uint32_t n_places, uint64_t base);

/* The most bytes alive at one step. DJ_ERR_MEMORY. */
dj_status_t dj_places_alive(const dj_place_t *places, uint32_t n_places, uint32_t n_steps,
                            uint64_t *bytes_p);

#endif
