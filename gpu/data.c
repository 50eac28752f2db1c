/* data.c - the memory of one session (data.h).
 *
 * Three layers. The address map: free ranges of the reservation, sorted and coalesced, first fit;
 * address space is plentiful, so this costs nothing but looks. Page blocks: a range of it with
 * pages at its start. Small pages: one page cut into equal slots of a power of two, with one bit a
 * slot. Slots go up to half a page, whatever a page is: of a GPU's 2 MiB a block of 100 KiB takes a
 * sixteenth, and not all.
 *
 * A freed page block keeps its pages in a short list for the next block of the same shape, because
 * the outputs of a loop are made and freed at every turn and a page fault costs more than a small
 * copy. The list holds at most DJ_DATA_CACHE_BYTES and gives way to the quota, and to the device where
 * that has no more pages.
 *
 * Called by runtime's refs and ingress. */
#include "gpu/data.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/gauge.h"
#include "runtime/base/table.h"

#define SMALL_MIN_BYTES 64ull
#define SMALL_CLASSES 20u /* 64 bytes to 32 MiB, as far as they are below a page */
#define WORD_SLOTS 64u
#define CACHED_MAX 64u
#define BLOCKS_MAX (1u << 20)

typedef struct range {
    uint64_t offset, bytes;
} range_t;

typedef struct small_page {
    struct small_page *next, *previous; /* pages of one class with a free slot */
    uint64_t offset;
    uint32_t class, n_slots, n_used;
    uint32_t first_word; /* no word before it has a free slot */
    uint64_t used[];     /* a bit a slot; those beyond the last slot are set */
} small_page_t;

typedef struct cached {
    uint64_t offset, backed_bytes, reserve_bytes;
} cached_t;

struct dj_data {
    dj_device_t *device;
    uint8_t *base;
    uint64_t reserved_bytes, quota_bytes, page_bytes, small_max_bytes, cache_bytes;
    range_t *free; /* sorted by offset, no two adjacent */
    uint64_t n_free, free_capacity;
    dj_table_t small_pages; /* by page number */
    small_page_t *open_pages[SMALL_CLASSES];
    cached_t cached[CACHED_MAX]; /* oldest first */
    uint32_t n_cached;
    uint64_t n_ranges; /* taken from the address map: bounds how many free ranges there can be */
    struct { /* as dj_data_counters_t: the session's thread changes them, others report them */
        dj_gauge_t used_bytes, backed_bytes, cached_bytes, peak_bytes, blocks;
    } counters;
};

static uint64_t round_up(const dj_data_t *data, uint64_t bytes)
{
    return (bytes + data->page_bytes - 1) / data->page_bytes * data->page_bytes;
}

/* The largest class below a page: two slots of it fill one. */
static uint64_t small_max(uint64_t page_bytes)
{
    uint64_t bytes = SMALL_MIN_BYTES;
    while (bytes < SMALL_MIN_BYTES << (SMALL_CLASSES - 1) && bytes * 4 <= page_bytes)
        bytes *= 2;
    return bytes;
}

dj_status_t dj_data_create(dj_device_t *device, uint64_t reserve_bytes, uint64_t quota_bytes,
                           dj_data_t **data_p)
{
    if (reserve_bytes > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "Data of %llu bytes: at most %llu",
                       (unsigned long long)reserve_bytes, DJ_TENSOR_BYTES_MAX);
    dj_data_t *data = calloc(1, sizeof(*data));
    range_t *free_ranges = calloc(16, sizeof(*free_ranges));
    dj_status_t status = DJ_ERR_MEMORY;
    if (!data || !free_ranges) {
        dj_fail(status, "Data: out of memory");
        goto err_free;
    }
    data->device = device;
    data->page_bytes = device->ops->info(device)->page_bytes;
    data->small_max_bytes = small_max(data->page_bytes);
    data->cache_bytes = DJ_DATA_CACHE_BYTES;
    if (data->page_bytes > DJ_DATA_CACHE_BYTES / CACHED_MAX) /* pages of the same number, up to a limit */
        data->cache_bytes = DJ_DATA_CACHE_BYTES * 2;
    data->reserved_bytes = round_up(data, reserve_bytes ? reserve_bytes : 1);
    data->quota_bytes = quota_bytes;
    void *base;
    status = device->ops->memory.reserve(device, data->reserved_bytes, &base);
    if (status != DJ_OK)
        goto err_free;
    data->base = base;
    data->free = free_ranges;
    data->free_capacity = 16;
    data->free[data->n_free++] = (range_t){0, data->reserved_bytes};
    *data_p = data;
    return DJ_OK;
err_free:
    free(free_ranges);
    free(data);
    return status;
}

void dj_data_destroy(dj_data_t *data)
{
    small_page_t *page;
    dj_hash_t key;
    if (!data)
        return;
    for (size_t at = 0; (page = dj_table_next(&data->small_pages, &at, &key));)
        free(page);
    dj_table_fini(&data->small_pages);
    data->device->ops->memory.release(data->device, data->base, data->reserved_bytes);
    free(data->free);
    free(data);
}

/* Takes `bytes` of address space, and makes room now for the free range its return may need. */
static dj_status_t take_range(dj_data_t *data, uint64_t bytes, uint64_t *offset_p)
{
    if (data->n_ranges + 2 > data->free_capacity) {
        uint64_t capacity = data->free_capacity * 2;
        range_t *grown = realloc(data->free, capacity * sizeof(*grown));
        if (!grown)
            return dj_fail(DJ_ERR_MEMORY, "Data: out of memory");
        data->free = grown;
        data->free_capacity = capacity;
    }
    for (uint64_t i = 0; i < data->n_free; i++) {
        range_t *range = &data->free[i];
        if (range->bytes < bytes)
            continue;
        *offset_p = range->offset;
        range->offset += bytes;
        range->bytes -= bytes;
        if (range->bytes == 0)
            memmove(range, range + 1, (--data->n_free - i) * sizeof(*range));
        data->n_ranges++;
        return DJ_OK;
    }
    return dj_fail(DJ_ERR_MEMORY,
                   "Data: no %llu bytes of address space left of %llu (--data_bytes)",
                   (unsigned long long)bytes, (unsigned long long)data->reserved_bytes);
}

static void return_range(dj_data_t *data, uint64_t offset, uint64_t bytes)
{
    uint64_t low = 0, high = data->n_free;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (data->free[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    range_t *after = &data->free[low], *before = low ? after - 1 : NULL;
    bool joins_before = before && before->offset + before->bytes == offset;
    bool joins_after = low < data->n_free && offset + bytes == after->offset;
    data->n_ranges--;
    if (joins_before && joins_after) {
        before->bytes += bytes + after->bytes;
        memmove(after, after + 1, (--data->n_free - low) * sizeof(*after));
    } else if (joins_before) {
        before->bytes += bytes;
    } else if (joins_after) {
        after->offset = offset;
        after->bytes += bytes;
    } else {
        memmove(after + 1, after, (data->n_free++ - low) * sizeof(*after));
        *after = (range_t){offset, bytes};
    }
}

static void drop_pages(dj_data_t *data, uint64_t offset, uint64_t backed, uint64_t reserved)
{
    if (backed)
        data->device->ops->memory.decommit(data->device, data->base + offset, backed);
    return_range(data, offset, reserved);
}

static void drop_cached(dj_data_t *data, uint32_t at)
{
    cached_t gone = data->cached[at];
    memmove(&data->cached[at], &data->cached[at + 1],
            (--data->n_cached - at) * sizeof(*data->cached));
    dj_gauge_subtract(&data->counters.cached_bytes, gone.backed_bytes);
    drop_pages(data, gone.offset, gone.backed_bytes, gone.reserve_bytes);
}

static uint64_t cached_bytes(const dj_data_t *data)
{
    return dj_gauge_get(&data->counters.cached_bytes);
}

/* Counts pages against the quota; cached blocks go first. */
static dj_status_t charge(dj_data_t *data, uint64_t bytes)
{
    uint64_t backed = dj_gauge_get(&data->counters.backed_bytes);
    if (bytes > data->quota_bytes || backed > data->quota_bytes - bytes)
        return dj_fail(DJ_ERR_RESOURCE,
                       "Data: %llu bytes wanted, %llu held, quota %llu (--data_quota_bytes)",
                       (unsigned long long)bytes, (unsigned long long)backed,
                       (unsigned long long)data->quota_bytes);
    backed += bytes;
    while (data->n_cached && backed + cached_bytes(data) > data->quota_bytes)
        drop_cached(data, 0);
    dj_gauge_set(&data->counters.backed_bytes, backed);
    if (backed > dj_gauge_get(&data->counters.peak_bytes))
        dj_gauge_set(&data->counters.peak_bytes, backed);
    return DJ_OK;
}

static bool take_cached(dj_data_t *data, uint64_t backed, uint64_t reserve, uint64_t *offset_p)
{
    for (uint32_t i = data->n_cached; i-- > 0;) {
        cached_t *cached = &data->cached[i];
        if (cached->backed_bytes != backed || cached->reserve_bytes != reserve)
            continue;
        *offset_p = cached->offset;
        dj_gauge_subtract(&data->counters.cached_bytes, backed);
        memmove(cached, cached + 1, (--data->n_cached - i) * sizeof(*cached));
        return true;
    }
    return false;
}

/* Where the device is full, the cache's pages are given back for it. */
static dj_status_t commit(dj_data_t *data, uint64_t offset, uint64_t bytes)
{
    dj_device_t *device = data->device;
    dj_status_t status = device->ops->memory.commit(device, data->base + offset, bytes);
    if (status != DJ_ERR_MEMORY || data->n_cached == 0)
        return status;
    while (data->n_cached)
        drop_cached(data, data->n_cached - 1);
    return device->ops->memory.commit(device, data->base + offset, bytes);
}

static dj_status_t take_pages(dj_data_t *data, uint64_t backed, uint64_t reserve,
                              uint64_t *offset_p)
{
    bool reused = take_cached(data, backed, reserve, offset_p);
    dj_status_t status = charge(data, backed);
    if (status != DJ_OK) {
        if (reused)
            drop_pages(data, *offset_p, backed, reserve);
        return status;
    }
    if (reused)
        return DJ_OK;
    status = take_range(data, reserve, offset_p);
    if (status == DJ_OK && backed) {
        status = commit(data, *offset_p, backed);
        if (status != DJ_OK)
            return_range(data, *offset_p, reserve);
    }
    if (status != DJ_OK)
        dj_gauge_subtract(&data->counters.backed_bytes, backed);
    return status;
}

static void give_pages(dj_data_t *data, uint64_t offset, uint64_t backed, uint64_t reserve)
{
    dj_gauge_subtract(&data->counters.backed_bytes, backed);
    if (backed == 0 || backed > data->cache_bytes) {
        drop_pages(data, offset, backed, reserve);
        return;
    }
    while (data->n_cached &&
           (data->n_cached == CACHED_MAX || cached_bytes(data) + backed > data->cache_bytes))
        drop_cached(data, 0);
    data->cached[data->n_cached++] = (cached_t){offset, backed, reserve};
    dj_gauge_add(&data->counters.cached_bytes, backed);
}

static void link_page(dj_data_t *data, small_page_t *page)
{
    small_page_t *first = data->open_pages[page->class];
    page->previous = NULL;
    page->next = first;
    if (first)
        first->previous = page;
    data->open_pages[page->class] = page;
}

static void unlink_page(dj_data_t *data, small_page_t *page)
{
    if (page->previous)
        page->previous->next = page->next;
    else
        data->open_pages[page->class] = page->next;
    if (page->next)
        page->next->previous = page->previous;
}

static bool page_is_full(const small_page_t *page)
{
    return page->n_used == page->n_slots;
}

static small_page_t *make_small_page(const dj_data_t *data, uint32_t class)
{
    uint64_t n_slots = data->page_bytes / (SMALL_MIN_BYTES << class);
    uint64_t n_words = (n_slots + WORD_SLOTS - 1) / WORD_SLOTS;
    small_page_t *page = calloc(1, sizeof(*page) + n_words * sizeof(page->used[0]));
    if (!page)
        return NULL;
    page->class = class;
    page->n_slots = (uint32_t)n_slots;
    if (n_slots % WORD_SLOTS)
        page->used[n_words - 1] = UINT64_MAX << n_slots % WORD_SLOTS;
    return page;
}

static dj_status_t open_page(dj_data_t *data, uint32_t class)
{
    small_page_t *page = make_small_page(data, class);
    if (!page)
        return dj_fail(DJ_ERR_MEMORY, "Data: out of memory");
    dj_status_t status = take_pages(data, data->page_bytes, data->page_bytes, &page->offset);
    if (status != DJ_OK) {
        free(page);
        return status;
    }
    status = dj_table_put(&data->small_pages, dj_key_u64(page->offset / data->page_bytes), page);
    if (status != DJ_OK) {
        give_pages(data, page->offset, data->page_bytes, data->page_bytes);
        free(page);
        return status;
    }
    link_page(data, page);
    return DJ_OK;
}

static dj_status_t take_slot(dj_data_t *data, uint32_t class, uint64_t *offset_p)
{
    if (!data->open_pages[class]) {
        dj_status_t status = open_page(data, class);
        if (status != DJ_OK)
            return status;
    }
    small_page_t *page = data->open_pages[class];
    while (page->used[page->first_word] == UINT64_MAX) /* it is not full: one has room */
        page->first_word++;
    uint32_t bit = (uint32_t)__builtin_ctzll(~page->used[page->first_word]);
    page->used[page->first_word] |= 1ull << bit;
    page->n_used++;
    if (page_is_full(page))
        unlink_page(data, page);
    *offset_p = page->offset + (page->first_word * WORD_SLOTS + bit) * (SMALL_MIN_BYTES << class);
    return DJ_OK;
}

static void give_slot(dj_data_t *data, uint64_t offset)
{
    dj_hash_t key = dj_key_u64(offset / data->page_bytes);
    small_page_t *page = dj_table_get(&data->small_pages, key);
    if (!page)
        return;
    bool was_full = page_is_full(page);
    uint32_t slot = (uint32_t)((offset - page->offset) / (SMALL_MIN_BYTES << page->class));
    page->used[slot / WORD_SLOTS] &= ~(1ull << slot % WORD_SLOTS);
    page->n_used--;
    if (slot / WORD_SLOTS < page->first_word)
        page->first_word = slot / WORD_SLOTS;
    if (page->n_used) {
        if (was_full)
            link_page(data, page);
        return;
    }
    if (!was_full)
        unlink_page(data, page);
    dj_table_remove(&data->small_pages, key);
    give_pages(data, page->offset, data->page_bytes, data->page_bytes);
    free(page);
}

dj_status_t dj_data_alloc(dj_data_t *data, uint64_t bytes, uint64_t reserve_bytes,
                          dj_block_t *block)
{
    uint64_t reserve = reserve_bytes > bytes ? reserve_bytes : bytes, offset;
    dj_block_t made = {.bytes = bytes};
    dj_status_t status;
    uint64_t blocks = dj_gauge_get(&data->counters.blocks);
    if (reserve > DJ_TENSOR_BYTES_MAX || blocks >= BLOCKS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "Data: block of %llu bytes, %llu blocks held (at most %u)",
                       (unsigned long long)reserve, (unsigned long long)blocks, BLOCKS_MAX);
    if (reserve <= data->small_max_bytes) {
        uint32_t class = 0;
        while ((SMALL_MIN_BYTES << class) < reserve)
            class ++;
        made.backed_bytes = made.reserve_bytes = SMALL_MIN_BYTES << class;
        status = take_slot(data, class, &offset);
    } else {
        made.backed_bytes = round_up(data, bytes);
        made.reserve_bytes = round_up(data, reserve);
        status = take_pages(data, made.backed_bytes, made.reserve_bytes, &offset);
    }
    if (status != DJ_OK)
        return status;
    made.data = data->base + offset;
    dj_gauge_add(&data->counters.used_bytes, bytes);
    dj_gauge_add(&data->counters.blocks, 1);
    *block = made;
    return DJ_OK;
}

dj_status_t dj_data_grow(dj_data_t *data, dj_block_t *block, uint64_t bytes)
{
    if (bytes <= block->bytes)
        return DJ_OK;
    if (bytes > block->reserve_bytes)
        return dj_fail(DJ_ERR_LIMIT, "Data: a block cannot grow to %llu bytes, %llu were reserved",
                       (unsigned long long)bytes, (unsigned long long)block->reserve_bytes);
    if (bytes > block->backed_bytes) {
        uint64_t more = round_up(data, bytes) - block->backed_bytes;
        dj_status_t status = charge(data, more);
        if (status != DJ_OK)
            return status;
        status = commit(data, (uint64_t)((uint8_t *)block->data - data->base) + block->backed_bytes, more);
        if (status != DJ_OK) {
            dj_gauge_subtract(&data->counters.backed_bytes, more);
            return status;
        }
        block->backed_bytes += more;
    }
    dj_gauge_add(&data->counters.used_bytes, bytes - block->bytes);
    block->bytes = bytes;
    return DJ_OK;
}

void dj_data_free(dj_data_t *data, dj_block_t *block)
{
    if (!block->data)
        return;
    uint64_t offset = (uint64_t)((uint8_t *)block->data - data->base);
    dj_gauge_subtract(&data->counters.used_bytes, block->bytes);
    dj_gauge_subtract(&data->counters.blocks, 1);
    if (block->reserve_bytes <= data->small_max_bytes)
        give_slot(data, offset);
    else
        give_pages(data, offset, block->backed_bytes, block->reserve_bytes);
    *block = (dj_block_t){0};
}

void dj_data_counters(const dj_data_t *data, dj_data_counters_t *counters)
{
    *counters = (dj_data_counters_t){.used_bytes = dj_gauge_get(&data->counters.used_bytes),
                                     .backed_bytes = dj_gauge_get(&data->counters.backed_bytes),
                                     .cached_bytes = dj_gauge_get(&data->counters.cached_bytes),
                                     .peak_bytes = dj_gauge_get(&data->counters.peak_bytes),
                                     .blocks = dj_gauge_get(&data->counters.blocks)};
}
