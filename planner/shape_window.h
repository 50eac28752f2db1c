/* shape_window.h - inside the shape rules: windows that slide over a picture.
 *
 * A picture is [batch, channels, spatial...] with one to three spatial dimensions; pools also take
 * it without a batch. Kernel, stride, padding and dilation are constants of a model, so they are
 * structural; each is a list of one number a spatial dimension, or of one for all.
 *
 * The numbers are foreign and a window reaches far: products are saturated, so that what does not
 * fit a limit is refused as too large and never wraps.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_SHAPE_WINDOW_H
#define DJ_PLANNER_SHAPE_WINDOW_H

#include "planner/shape.h"

#define DJ_SPATIAL_MAX 3
#define DJ_WINDOW_MAX (1 << 30) /* of kernel, stride, padding, dilation */

typedef struct dj_window {
    uint32_t n; /* spatial dimensions */
    int64_t kernel[DJ_SPATIAL_MAX], stride[DJ_SPATIAL_MAX];
    int64_t padding[DJ_SPATIAL_MAX], dilation[DJ_SPATIAL_MAX];
    bool ceil;
} dj_window_t;

/* a * b of numbers that are not negative, 2^60 at most: sums of a few of these stay in range. */
int64_t dj_window_times(int64_t a, int64_t b);
/* Elements that a kernel covers from its first to its last. */
int64_t dj_window_reach(int64_t kernel, int64_t dilation);
/* Argument `arg` as one number a spatial dimension, each at least `least`; an absent or empty list
 * is `otherwise`, if that is given. DJ_ERR_SHAPE names `what`. */
dj_status_t dj_window_take(const dj_call_t *call, uint32_t arg, const char *what, uint32_t n,
                           int64_t least, const int64_t *otherwise, int64_t *numbers);
/* Fails with DJ_ERR_SHAPE: the picture, and what is wanted of it. */
dj_status_t dj_window_misfit(const dj_view_t *view, const char *wanted);

#endif
