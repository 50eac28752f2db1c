/* pack_order.h - from the chosen blocks of every event back to one order, and so to offsets.
 *
 * Inside the planner. Threads: pure. */
#ifndef DJ_PLANNER_PACK_ORDER_H
#define DJ_PLANNER_PACK_ORDER_H

#include "planner/pack_event.h"

/* A block of bits 0 stands for all of its event, where there are too many pieces for bits. */
typedef struct dj_step {
    uint32_t event;
    dj_block_t block;
} dj_step_t;

/* The steps, in order of their events, lead from the pieces of the first event to those that the
 * last one ends. DJ_ERR_INTERNAL: they do not; DJ_ERR_MEMORY. */
dj_status_t dj_order_offsets(const dj_rect_t *rects, uint32_t n, const dj_events_t *events,
                             const dj_step_t *steps, uint32_t n_steps, uint64_t *offsets);

#endif
