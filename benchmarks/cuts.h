/* cuts.h - perfect packings made by cutting one time x space rectangle, for tests and figures.
 *
 * How it cuts: the pieces begin as the whole rectangle, [0, times) wide and `height` high. Until
 * there are `count` of them, one is drawn (with a chance that follows its area, or all alike:
 * `by_area`) and cut in one of two ways. A straight cut goes through the piece at a whole number
 * drawn evenly, across time or across space with even chance (what cannot be cut one way is cut the
 * other; a piece of one by one is drawn again). With `pinwheels` in 100 the piece is instead cut
 * into five around a middle one, two lines each way drawn evenly, which no sequence of straight
 * cuts can make. In the end the pieces are shuffled, so that nothing of their history is left. All
 * columns of time are full: the most bytes alive, `height`, are alive at all times, and the optimum
 * is `height`.
 *
 * Threads: pure. The same arguments give the same pieces on every machine. */
#ifndef DJ_BENCHMARKS_CUTS_H
#define DJ_BENCHMARKS_CUTS_H

#include "planner/pack.h"

typedef struct dj_cuts {
    uint64_t seed, times, height;
    uint32_t count;     /* of pieces; at most times * height, a pinwheel may not fit at the end */
    uint32_t pinwheels; /* of 100 */
    bool by_area;
} dj_cuts_t;

/* Fills pieces[0, cuts->count) and the offsets they were cut at. */
void dj_cuts_make(const dj_cuts_t *cuts, dj_rect_t *pieces, uint64_t *offsets);

#endif
