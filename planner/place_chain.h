/* place_chain.h - places as plain rectangles: chains that hand over become one.
 *
 * A place that takes over the range of one that died in its group lies exactly there. Whoever wants
 * to forget about that rule joins the two first: one rectangle, alive from the first one's begin to
 * the last one's end. What then shares no bytes obeys the rule.
 *
 * Inside the planner. Threads: pure. */
#ifndef DJ_PLANNER_PLACE_CHAIN_H
#define DJ_PLANNER_PLACE_CHAIN_H

#include "planner/place.h"

#define DJ_CHAIN_NONE UINT32_MAX

typedef struct dj_chain {
    uint64_t units, offset; /* in DJ_ALIGN_BYTES; the offset counts from the base */
    uint32_t from, last;    /* steps */
    uint64_t crowd;         /* the most units alive while it is; set by dj_chains_crowd() */
} dj_chain_t;

typedef struct dj_chains {
    dj_chain_t *list; /* ascending by from */
    uint32_t n;
    uint32_t *of; /* of each place: its chain; DJ_CHAIN_NONE: of no bytes */
} dj_chains_t;

static inline bool dj_places_meet(const dj_place_t *a, const dj_place_t *b)
{
    return a->from <= b->last && b->from <= a->last;
}

/* May the later of two places whose times meet lie exactly where the earlier one lay? */
static inline bool dj_place_may_take_over(const dj_place_t *a, const dj_place_t *b)
{
    const dj_place_t *early = a->first < b->first ? a : b, *late = early == a ? b : a;
    return early->last < late->first && early->hands_over && late->takes_over &&
           early->bytes == late->bytes;
}

/* `by_time` lists all places ascending by from. Ends with dj_chains_fini(), also after an error.
 * DJ_ERR_MEMORY. */
dj_status_t dj_chains_init(dj_chains_t *chains, const dj_place_t *places, uint32_t n_places,
                           const uint32_t *by_time);
void dj_chains_fini(dj_chains_t *chains);

/* Sets the places' offsets from their chains'; the highest end, or `base`. `base` is aligned. */
uint64_t dj_chains_apply(const dj_chains_t *chains, dj_place_t *places, uint32_t n_places,
                         uint64_t base);
uint64_t dj_chains_end(const dj_chains_t *chains, const dj_place_t *places, uint32_t n_places,
                       uint64_t base);

/* The least and the most units alive between the first begin and the last end. DJ_ERR_MEMORY. */
dj_status_t dj_chains_alive(const dj_chains_t *chains, uint64_t *least_p, uint64_t *most_p);

/* Sets every chain's crowd; false, with all at 0, when that takes more than `looks` or there is no
 * memory. */
bool dj_chains_crowd(dj_chains_t *chains, uint64_t looks);

#endif
