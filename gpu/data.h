/* data.h - contract 3, Data: what one session owns: outputs, state, mutable buffers.
 *
 * One virtual range a session, reserved once. A block is a range inside it that never moves; blocks of
 * at most half a page come from size classes, larger ones are whole pages of their own, committed when
 * made and returned when freed. So external fragmentation of memory is 0: what is free holds no pages,
 * except a bounded cache of recently freed blocks (DJ_DATA_CACHE_BYTES), which is counted apart and
 * goes first when the quota presses.
 *
 * A block may be made with room to grow: `reserve_bytes` of address space of which only the first
 * `bytes` have pages; dj_data_grow() adds pages in place.
 *
 * Threads: the session's owner at any one time (runtime/session.h). */
#ifndef DJ_GPU_DATA_H
#define DJ_GPU_DATA_H

#include "gpu/segment.h"

#define DJ_DATA_CACHE_BYTES (64ull << 20) /* twice that where a page is above 1 MiB */

typedef struct dj_data dj_data_t;

typedef struct dj_block {
    void *data;
    uint64_t bytes;         /* asked for */
    uint64_t backed_bytes;  /* pages or size class behind it */
    uint64_t reserve_bytes; /* address space */
} dj_block_t;

typedef struct dj_data_counters {
    uint64_t used_bytes, backed_bytes, cached_bytes, peak_bytes;
    uint64_t blocks;
} dj_data_counters_t;

dj_status_t dj_data_create(dj_device_t *device, uint64_t reserve_bytes, uint64_t quota_bytes,
                           dj_data_t **data_p);
/* Returns every page, whatever blocks are left. */
void dj_data_destroy(dj_data_t *data);

/* Contents are not cleared when the block comes from the cache. Aligned to 64 bytes; to
 * DJ_ALIGN_BYTES from 4 KiB on. DJ_ERR_RESOURCE names the quota; DJ_ERR_MEMORY. 0 bytes is a valid
 * block. */
dj_status_t dj_data_alloc(dj_data_t *data, uint64_t bytes, uint64_t reserve_bytes,
                          dj_block_t *block);
dj_status_t dj_data_grow(dj_data_t *data, dj_block_t *block, uint64_t bytes);
void dj_data_free(dj_data_t *data, dj_block_t *block);

/* Any thread; another may change them meanwhile. */
void dj_data_counters(const dj_data_t *data, dj_data_counters_t *counters);

#endif
