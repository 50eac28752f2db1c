/* bucket.h - sizes rounded up, so that many sizes make few plans.
 *
 * A length that differs at every request makes an exact plan, prepared kernels and (on a GPU) a captured
 * graph each time. Who pads to buckets has few of them. Only the caller can pad, because only it knows
 * what padding means to the model; it asks djinn_bucket() how far (client/djinn.h).
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_BUCKET_H
#define DJ_PLANNER_BUCKET_H

#include <stdint.h>

#include "runtime/base/status.h"

enum { DJ_BUCKETS_MAX = 64 };

typedef enum dj_buckets_kind {
    DJ_BUCKETS_NONE, /* every size for itself */
    DJ_BUCKETS_POW2,
    DJ_BUCKETS_LIST,
} dj_buckets_kind_t;

typedef struct dj_buckets {
    dj_buckets_kind_t kind;
    uint32_t n_sizes;
    uint64_t sizes[DJ_BUCKETS_MAX]; /* ascending */
} dj_buckets_t;

/* "none", "pow2", or sizes in rising order: "64,128,512". DJ_ERR_INVALID says what is wrong. */
dj_status_t dj_buckets_parse(const char *text, dj_buckets_t *buckets_p);

/* The bucket of a size: the smallest that is not below it. The size itself where there is none, and
 * for 0 and 1, which often mean "none" or "broadcast" and not a length. */
uint64_t dj_bucket_of(const dj_buckets_t *buckets, uint64_t size);

#endif
