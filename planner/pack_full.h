/* pack_full.h - exact placement where every column of time is full.
 *
 * Inside the planner. Threads: one. */
#ifndef DJ_PLANNER_PACK_FULL_H
#define DJ_PLANNER_PACK_FULL_H

#include "planner/pack_meter.h"

#define DJ_PACK_FULL_MAX 20000u /* rectangles; more are not worth their memory */

typedef enum dj_pack_effort {
    DJ_PACK_FULL_BRIEF, /* for a millisecond or two: smaller lists, narrower beams */
    DJ_PACK_FULL_LONG,
} dj_pack_effort_t;

/* rects[0, n), 0 < n <= DJ_PACK_FULL_MAX, none of size 0 or of no time, use one capacity up at all
 * times from the first begin to the last end. Sets offsets on DJ_PACK_FOUND. DJ_PACK_NONE: there is
 * no packing; DJ_PACK_ENDED: the limits or its own ended the search. DJ_ERR_MEMORY. */
dj_status_t dj_pack_full(const dj_rect_t *rects, uint32_t n, dj_pack_effort_t effort,
                         dj_pack_meter_t *meter, uint64_t *offsets, dj_pack_end_t *end_p);

#endif
