/* segment.h - one reserved range of device memory that grows from its start and never moves.
 *
 * Address space is reserved once; pages come as the segment grows. Growth keeps every pointer into
 * the segment valid. What was committed returns at shrink or destroy, to the byte.
 *
 * Threads: the caller's lock. */
#ifndef DJ_GPU_SEGMENT_H
#define DJ_GPU_SEGMENT_H

#include "gpu/device.h"
#include "runtime/base/gauge.h"

typedef struct dj_segment {
    dj_device_t *device;
    uint8_t *base;
    uint64_t reserved_bytes;
    dj_gauge_t committed_bytes; /* any thread may read it */
} dj_segment_t;

dj_status_t dj_segment_init(dj_segment_t *segment, dj_device_t *device, uint64_t reserve_bytes);
void dj_segment_fini(dj_segment_t *segment);
/* At least `bytes` committed from the base (rounded up to pages). DJ_ERR_LIMIT beyond the
 * reservation, DJ_ERR_MEMORY. */
dj_status_t dj_segment_grow(dj_segment_t *segment, uint64_t bytes);
/* Returns every page beyond the first `bytes`. */
void dj_segment_shrink(dj_segment_t *segment, uint64_t bytes);

#endif
