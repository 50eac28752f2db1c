/* svg.h - the slab over time as a picture: what lies where, when, and how close it comes to the
 * bound.
 *
 * One rectangle a tensor: left to right the steps during which it lives, bottom to top its bytes in
 * Stack, coloured by the kind of op that made it, named in the rectangle where there is room and
 * always in its tooltip. Lines: the peak, the least possible peak, and the bytes alive at each
 * step. Bindings have no place in Stack and are not drawn.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_SVG_H
#define DJ_PLANNER_SVG_H

#include "planner/plan.h"
#include "planner/snapshot.h"
#include "planner/srg.h"

/* Appends an SVG document. `names` may be NULL. DJ_ERR_MEMORY. */
dj_status_t dj_plan_draw(const dj_srg_t *srg, const dj_plan_t *plan, const char *title,
                         const dj_snapshot_program_t *names, dj_bytes_t *text);

#endif
