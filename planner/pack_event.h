/* pack_event.h - the moments at which a full stack changes, and how each may.
 *
 * Where every column of time is full, the pieces that end at a moment leave gaps which those that
 * begin fill without rest: the two sets fall apart into balanced blocks, (some that end, some that
 * begin, of one sum), each the content of one gap. Which blocks there can be follows from sizes
 * alone, so they are listed once, the smallest first; a search then chooses.
 *
 * Inside the planner. Threads: pure. */
#ifndef DJ_PLANNER_PACK_EVENT_H
#define DJ_PLANNER_PACK_EVENT_H

#include "planner/pack_meter.h"

#define DJ_BLOCK_BITS 64u

typedef struct dj_block {
    uint64_t ends, starts; /* bit i: the event's ends[i], starts[i] */
} dj_block_t;

typedef struct dj_event {
    const uint32_t *ends, *starts; /* numbers of rectangles */
    uint32_t n_ends, n_starts;
    dj_block_t *blocks; /* few pieces first; without the block of all */
    uint32_t n_blocks;
    bool complete;      /* there are no other blocks, but for the block of all */
    uint32_t last_born; /* event at which the last of `ends` begins */
} dj_event_t;

typedef struct dj_events {
    dj_event_t *list;
    uint32_t n; /* the first begins all, the last ends all */
    uint32_t
        most_alive; /* pieces at once, while those that begin are there and those that end still */
    uint32_t *numbers; /* behind ends and starts */
} dj_events_t;

/* Ends with dj_events_fini(), also after an error. Of each side of an event at most
 * `subsets_max` subsets are looked at, the smallest; a spent meter leaves lists of blocks away.
 * DJ_ERR_MEMORY. */
dj_status_t dj_events_init(dj_events_t *events, const dj_rect_t *rects, uint32_t n,
                           uint32_t subsets_max, dj_pack_meter_t *meter);
void dj_events_fini(dj_events_t *events);

#endif
