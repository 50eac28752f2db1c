/* pack.h - exact placement: rectangles with fixed times and free offsets under a capacity.
 *
 * The quick mode of place.h answers in microseconds; this search is for when there are seconds and
 * the quick answer is not good enough: in the background on plans that are used again and again,
 * and for `djinn plan solve`. It finds a placement within the capacity, proves that there is none,
 * or says that its limits ended it. docs/placement.md tells how.
 *
 * Threads: pure, but for limits->cancel, which another thread may set. Memory is bounded by
 * DJ_PACK_RECTS_MAX and a fixed multiple of it; no recursion follows the input. */
#ifndef DJ_PLANNER_PACK_H
#define DJ_PLANNER_PACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

#define DJ_PACK_RECTS_MAX (1u << 17)
#define DJ_PACK_SIZE_MAX (1ull << 62) /* of a capacity */

typedef struct dj_rect {
    uint64_t lower, upper; /* alive from lower up to, not including, upper */
    uint64_t size;
} dj_rect_t;

/* Where a search ends without an answer; a zero or NULL sets no limit. */
typedef struct dj_pack_limits {
    uint64_t deadline_ns; /* of dj_clock_ns(); looked at every few microseconds of search */
    uint64_t nodes;       /* steps of search: the same answer on every machine */
    const atomic_bool *cancel;
    uint64_t seed; /* of restarts */
} dj_pack_limits_t;

typedef enum dj_pack_end {
    DJ_PACK_FOUND,
    DJ_PACK_NONE,  /* proven: no placement is within the capacity */
    DJ_PACK_ENDED, /* by the limits */
} dj_pack_end_t;

typedef struct dj_pack_result {
    dj_pack_end_t end;
    uint64_t nodes;
} dj_pack_result_t;

/* offsets[0, n) are set when the end is DJ_PACK_FOUND. DJ_ERR_INVALID: a rectangle that ends before
 * it begins, DJ_ERR_LIMIT: too many, a capacity or a size above DJ_PACK_SIZE_MAX; DJ_ERR_MEMORY. */
dj_status_t dj_pack_solve(const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                          const dj_pack_limits_t *limits, uint64_t *offsets,
                          dj_pack_result_t *result_p);

/* Proves a placement: nothing above the capacity, nothing shared. DJ_ERR_CORRUPT, DJ_ERR_MEMORY. */
dj_status_t dj_pack_check(const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                          const uint64_t *offsets);

#endif
