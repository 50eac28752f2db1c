/* pack_search.h - exact placement in general: with room to spare, where pieces may float.
 *
 * Inside the planner. Threads: one. */
#ifndef DJ_PLANNER_PACK_SEARCH_H
#define DJ_PLANNER_PACK_SEARCH_H

#include "planner/pack_meter.h"

#define DJ_PACK_SEARCH_MAX 4096u /* rectangles; with more the answer is DJ_PACK_ENDED */

/* rects[0, n), n > 0, none of size 0 or of no time, none above the capacity, alive sums below 2^63.
 * Sets offsets on DJ_PACK_FOUND; DJ_PACK_NONE is proven. DJ_ERR_MEMORY. */
dj_status_t dj_pack_search(const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                           dj_pack_meter_t *meter, uint64_t *offsets, dj_pack_end_t *end_p);

#endif
