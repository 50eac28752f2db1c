/* loop.h - the joint walk of up to DJ_LOOP_MAX views of one shape: dimensions of size 1 dropped,
 * ordered by the strides of the last view (the output), and merged where all views allow it. A
 * contiguous job of any rank is thus one dimension.
 *
 * Threads: pure. */
#ifndef DJ_GPU_LOOP_H
#define DJ_GPU_LOOP_H

#include "planner/graph.h"

#define DJ_LOOP_MAX 4

typedef struct dj_loop {
    uint32_t n, rank; /* views; dimensions, at least 1 */
    int64_t count;    /* elements */
    int64_t sizes[DJ_RANK_MAX];
    int64_t strides[DJ_LOOP_MAX][DJ_RANK_MAX]; /* bytes */
} dj_loop_t;

/* A joint walk over views broadcast to the shape of the last. NULL views are allowed (stride 0).
 * DJ_ERR_SHAPE when one does not broadcast. */
dj_status_t dj_loop_make(dj_loop_t *loop, const dj_view_t *const *views, uint32_t n);

/* Widens a shape (strides are kept as they are) to what it and `view` broadcast to. */
void dj_views_widen(dj_view_t *common, const dj_view_t *view);
/* `other` seen with the shape's sizes: missing and single dimensions repeat. DJ_ERR_SHAPE. */
dj_status_t dj_view_expand(const dj_view_t *other, const dj_view_t *shape, dj_view_t *expanded);

#endif
