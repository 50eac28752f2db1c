/* chunks.h - the table of reserved ranges and of the chunks mapped into each, by address.
 *
 * A chunk is one physical allocation behind consecutive pages. Offsets and sizes are bytes, multiples of a page.
 *
 * Threads: the caller's lock. */
#ifndef DJ_GPU_CUDA_CHUNKS_H
#define DJ_GPU_CUDA_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

#define DJ_CUDA_CHUNK_PAGES 32u /* at most: a bit each */

typedef struct dj_cuda_chunk {
    uint64_t offset, bytes; /* offset: in its range */
    uint64_t handle;        /* CUmemGenericAllocationHandle */
    uint32_t held;          /* bit a page: decommitted, but still mapped (memory.c) */
    bool sealed;
    bool mirror;            /* the memory is another chunk's, which holds the handle */
} dj_cuda_chunk_t;

typedef struct dj_cuda_range {
    uint64_t base, bytes;
    dj_cuda_chunk_t *chunks; /* by offset; they do not overlap */
    uint32_t n_chunks, capacity;
} dj_cuda_range_t;

typedef struct dj_cuda_ranges {
    dj_cuda_range_t **all; /* by base */
    uint32_t n, capacity;
} dj_cuda_ranges_t;

/* The range that holds all of [address, address + bytes); NULL. */
dj_cuda_range_t *dj_cuda_ranges_find(const dj_cuda_ranges_t *ranges, uint64_t address, uint64_t bytes);
/* DJ_ERR_MEMORY. */
dj_status_t dj_cuda_ranges_add(dj_cuda_ranges_t *ranges, uint64_t base, uint64_t bytes);
/* Out of the table: the caller's, who frees it when its chunks are unmapped. */
void dj_cuda_ranges_take(dj_cuda_ranges_t *ranges, dj_cuda_range_t *range);
void dj_cuda_range_free(dj_cuda_range_t *range);
void dj_cuda_ranges_fini(dj_cuda_ranges_t *ranges);

/* The first chunk that ends behind `offset`: the one that holds it, or the next; n_chunks when there is none. */
uint32_t dj_cuda_range_at(const dj_cuda_range_t *range, uint64_t offset);
/* Room for `more` chunks, so that as many inserts cannot fail. DJ_ERR_MEMORY. */
dj_status_t dj_cuda_range_make_room(dj_cuda_range_t *range, uint32_t more);
void dj_cuda_range_insert(dj_cuda_range_t *range, dj_cuda_chunk_t chunk);
void dj_cuda_range_drop(dj_cuda_range_t *range, uint32_t index);

/* The pages of a chunk that lie in [first, end), as bits. */
uint32_t dj_cuda_chunk_pages(const dj_cuda_chunk_t *chunk, uint64_t first, uint64_t end, uint64_t page_bytes);

#endif
