/* chunks.c - sorted arrays of ranges and chunks (chunks.h). */
#include "gpu/cuda/chunks.h"

#include <stdlib.h>
#include <string.h>

/* How many ranges begin at or before `address`. */
static uint32_t count_before(const dj_cuda_ranges_t *ranges, uint64_t address)
{
    uint32_t low = 0, high = ranges->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ranges->all[middle]->base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

dj_cuda_range_t *dj_cuda_ranges_find(const dj_cuda_ranges_t *ranges, uint64_t address, uint64_t bytes)
{
    uint32_t n = count_before(ranges, address);
    dj_cuda_range_t *range = n ? ranges->all[n - 1] : NULL;
    if (!range || address - range->base >= range->bytes || bytes > range->bytes - (address - range->base))
        return NULL;
    return range;
}

dj_status_t dj_cuda_ranges_add(dj_cuda_ranges_t *ranges, uint64_t base, uint64_t bytes)
{
    if (ranges->n == ranges->capacity) {
        uint32_t capacity = ranges->capacity ? ranges->capacity * 2 : 64;
        dj_cuda_range_t **grown = realloc(ranges->all, capacity * sizeof(*grown));
        if (!grown)
            return dj_fail(DJ_ERR_MEMORY, "no memory for the table of %u ranges", capacity);
        ranges->all = grown;
        ranges->capacity = capacity;
    }
    dj_cuda_range_t *range = calloc(1, sizeof(*range));
    if (!range)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a range's table");
    *range = (dj_cuda_range_t){.base = base, .bytes = bytes};
    uint32_t at = count_before(ranges, base);
    memmove(&ranges->all[at + 1], &ranges->all[at], (ranges->n - at) * sizeof(*ranges->all));
    ranges->all[at] = range;
    ranges->n++;
    return DJ_OK;
}

void dj_cuda_ranges_take(dj_cuda_ranges_t *ranges, dj_cuda_range_t *range)
{
    uint32_t at = count_before(ranges, range->base) - 1;
    memmove(&ranges->all[at], &ranges->all[at + 1], (--ranges->n - at) * sizeof(*ranges->all));
}

void dj_cuda_range_free(dj_cuda_range_t *range)
{
    free(range->chunks);
    free(range);
}

void dj_cuda_ranges_fini(dj_cuda_ranges_t *ranges)
{
    while (ranges->n)
        dj_cuda_range_free(ranges->all[--ranges->n]);
    free(ranges->all);
    *ranges = (dj_cuda_ranges_t){0};
}

uint32_t dj_cuda_range_at(const dj_cuda_range_t *range, uint64_t offset)
{
    uint32_t low = 0, high = range->n_chunks;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (range->chunks[middle].offset + range->chunks[middle].bytes <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

dj_status_t dj_cuda_range_make_room(dj_cuda_range_t *range, uint32_t more)
{
    uint64_t wanted = (uint64_t)range->n_chunks + more, capacity = range->capacity ? range->capacity : 4;
    if (wanted <= range->capacity)
        return DJ_OK;
    while (capacity < wanted)
        capacity *= 2;
    dj_cuda_chunk_t *grown = capacity > UINT32_MAX ? NULL : realloc(range->chunks, capacity * sizeof(*grown));
    if (!grown)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the table of %llu chunks", (unsigned long long)capacity);
    range->chunks = grown;
    range->capacity = (uint32_t)capacity;
    return DJ_OK;
}

void dj_cuda_range_insert(dj_cuda_range_t *range, dj_cuda_chunk_t chunk)
{
    uint32_t at = dj_cuda_range_at(range, chunk.offset);
    memmove(&range->chunks[at + 1], &range->chunks[at], (range->n_chunks - at) * sizeof(chunk));
    range->chunks[at] = chunk;
    range->n_chunks++;
}

void dj_cuda_range_drop(dj_cuda_range_t *range, uint32_t index)
{
    memmove(&range->chunks[index], &range->chunks[index + 1],
            (--range->n_chunks - index) * sizeof(*range->chunks));
}

uint32_t dj_cuda_chunk_pages(const dj_cuda_chunk_t *chunk, uint64_t first, uint64_t end, uint64_t page_bytes)
{
    uint64_t from = first > chunk->offset ? first - chunk->offset : 0;
    uint64_t to = end > chunk->offset ? end - chunk->offset : 0;
    to = to < chunk->bytes ? to : chunk->bytes;
    if (from >= to)
        return 0;
    uint64_t pages = (to - from) / page_bytes;
    return (uint32_t)(((1ull << pages) - 1) << from / page_bytes);
}
