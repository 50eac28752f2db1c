/* memory.c - ranges of device memory by CUDA's virtual memory management.
 *
 * reserve() takes addresses, commit() puts chunks of physical memory behind them: one allocation for up to
 * DJ_CUDA_CHUNK_PAGES pages, because making and mapping one costs the same for 2 MiB as for 64. CUDA unmaps, and sets
 * access of, whole allocations only, while device.h lets callers decommit and seal any pages. Callers mostly do it
 * with what they committed in one call (a Text entry, a block of Data), which are whole chunks. Where a chunk is cut,
 * its remaining pages move: new allocations of just their size are filled by a copy and mapped in the old one's place,
 * so addresses and contents stay and the pages cut off return to the byte. Cutting wants memory for a moment. Where
 * there is none, the chunk stays whole and the pages are *held*: still mapped, but nobody's. They go with the rest of
 * the chunk, and a commit over them cuts again and says DJ_ERR_MEMORY when that still fails.
 *
 * A mirror is a second mapping of chunks' memory in another range. It holds no memory, so it counts none, and is not cut.
 *
 * The caller keeps kernels away from a chunk that is cut, as it does from pages that are decommitted.
 *
 * Threads: any; one lock, for the table of ranges and chunks: every copy looks there, so nobody may hold it long. The
 * zeroing of new pages and the return of old ones, for which a driver may wait until kernels have ended, are outside of
 * it; cutting, which is rare, is inside. Pages that are being made or returned are one thread's: its caller's. */
#define DJ_LOG_MODULE "cuda"

#include "gpu/cuda/memory.h"

#include <stdlib.h>

#include "gpu/cuda/chunks.h"
#include "gpu/cuda/cuda_device.h"
#include "runtime/base/log.h"

struct dj_cuda_memory {
    pthread_mutex_t lock;
    dj_cuda_ranges_t ranges;
    dj_cuda_memory_counters_t counters;
    uint64_t page_bytes;
    CUdeviceptr scratch; /* addresses for one chunk while it is cut */
    CUmemAllocationProp prop;
    bool seals; /* false: this driver cannot map device memory read-only */
};

static dj_cuda_device_t *device_of(dj_device_t *device)
{
    return (dj_cuda_device_t *)device;
}

static uint32_t pages_of(const struct dj_cuda_memory *memory, uint64_t bytes)
{
    return (uint32_t)(bytes / memory->page_bytes);
}

static uint32_t all_pages(const struct dj_cuda_memory *memory, const dj_cuda_chunk_t *chunk)
{
    return dj_cuda_chunk_pages(chunk, chunk->offset, chunk->offset + chunk->bytes, memory->page_bytes);
}

static CUresult access_set(const dj_cuda_device_t *device, CUdeviceptr address, uint64_t bytes, bool sealed)
{
    CUmemAccessDesc access = {
        .location = device->memory->prop.location,
        .flags = sealed ? CU_MEM_ACCESS_FLAGS_PROT_READ : CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    return dj_cuda.cuMemSetAccess(address, bytes, &access, 1);
}

/* ---- chunks ---- */

/* Physical memory at an address, without access. */
static CUresult chunk_map(const struct dj_cuda_memory *memory, CUdeviceptr address, uint64_t bytes,
                          CUmemGenericAllocationHandle *handle_p)
{
    CUresult result = dj_cuda.cuMemCreate(handle_p, bytes, &memory->prop, 0);
    if (result != CUDA_SUCCESS)
        return result;
    result = dj_cuda.cuMemMap(address, bytes, 0, *handle_p, 0);
    if (result != CUDA_SUCCESS)
        dj_cuda.cuMemRelease(*handle_p);
    return result;
}

static void chunk_return(CUdeviceptr base, const dj_cuda_chunk_t *chunk)
{
    CUresult result = dj_cuda.cuMemUnmap(base + chunk->offset, chunk->bytes);
    if (result == CUDA_SUCCESS && !chunk->mirror)
        result = dj_cuda.cuMemRelease(chunk->handle);
    if (dj_cuda_status(result, "returning device memory") != DJ_OK)
        dj_log(ERROR, "%llu bytes of device memory may be lost: %s", (unsigned long long)chunk->bytes,
               dj_error_text());
}

static void chunk_uncount(struct dj_cuda_memory *memory, const dj_cuda_chunk_t *chunk)
{
    memory->counters.mapped_bytes -= chunk->mirror ? 0 : chunk->bytes;
    memory->counters.held_bytes -= (uint64_t)__builtin_popcount(chunk->held) * memory->page_bytes;
    memory->counters.chunks--;
}

static void chunk_unmap(struct dj_cuda_memory *memory, dj_cuda_range_t *range, uint32_t index)
{
    chunk_return(range->base, &range->chunks[index]);
    chunk_uncount(memory, &range->chunks[index]);
    dj_cuda_range_drop(range, index);
}

/* The same, letting go of the lock meanwhile. */
static void chunk_unmap_aside(struct dj_cuda_memory *memory, dj_cuda_range_t *range, uint32_t index)
{
    dj_cuda_chunk_t chunk = range->chunks[index];
    dj_cuda_range_drop(range, index);
    pthread_mutex_unlock(&memory->lock);
    chunk_return(range->base, &chunk);
    pthread_mutex_lock(&memory->lock);
    chunk_uncount(memory, &chunk);
}

static void chunk_add(struct dj_cuda_memory *memory, dj_cuda_range_t *range, dj_cuda_chunk_t chunk)
{
    dj_cuda_range_insert(range, chunk);
    memory->counters.mapped_bytes += chunk.mirror ? 0 : chunk.bytes;
    memory->counters.chunks++;
}

/* ---- cutting ---- */

typedef struct pieces {
    dj_cuda_chunk_t of[DJ_CUDA_CHUNK_PAGES];
    uint32_t n;
} pieces_t;

/* Runs of the pages in `kept`; a run ends before a page in `borders`, too. */
static void pieces_find(pieces_t *pieces, const struct dj_cuda_memory *memory, const dj_cuda_chunk_t *chunk,
                        uint32_t kept, uint32_t borders)
{
    uint32_t n_pages = pages_of(memory, chunk->bytes);
    bool open = false;
    pieces->n = 0;
    for (uint32_t page = 0; page < n_pages; page++) {
        if (!(kept >> page & 1)) {
            open = false;
            continue;
        }
        if (!open || borders >> page & 1)
            pieces->of[pieces->n++] = (dj_cuda_chunk_t){.offset = chunk->offset + page * memory->page_bytes,
                                                        .sealed = chunk->sealed};
        pieces->of[pieces->n - 1].bytes += memory->page_bytes;
        open = true;
    }
}

/* Copies of the pieces in new allocations, which lie mapped at scratch, each as far from its start as in the chunk.
 * All or none. */
static dj_status_t pieces_copy(dj_cuda_device_t *device, const dj_cuda_range_t *range, const dj_cuda_chunk_t *chunk,
                               pieces_t *pieces)
{
    struct dj_cuda_memory *memory = device->memory;
    CUresult result = CUDA_SUCCESS;
    uint32_t mapped = 0;
    for (uint32_t i = 0; i < pieces->n && result == CUDA_SUCCESS; i++) {
        dj_cuda_chunk_t *piece = &pieces->of[i];
        CUmemGenericAllocationHandle handle = 0;
        CUdeviceptr at = memory->scratch + (piece->offset - chunk->offset);
        result = chunk_map(memory, at, piece->bytes, &handle);
        if (result != CUDA_SUCCESS)
            break;
        piece->handle = handle;
        mapped++;
        result = access_set(device, at, piece->bytes, false);
        if (result == CUDA_SUCCESS)
            result = dj_cuda.cuMemcpyDtoDAsync(at, range->base + piece->offset, piece->bytes, device->in);
    }
    CUresult waited = dj_cuda.cuStreamSynchronize(device->in);
    result = result == CUDA_SUCCESS ? waited : result;
    for (uint32_t i = 0; i < mapped; i++) {
        dj_cuda.cuMemUnmap(memory->scratch + (pieces->of[i].offset - chunk->offset), pieces->of[i].bytes);
        if (result != CUDA_SUCCESS)
            dj_cuda.cuMemRelease(pieces->of[i].handle);
    }
    return dj_cuda_status(result, "cutting a chunk of device memory");
}

/* The chunk becomes one chunk a run of `kept`. DJ_ERR_MEMORY and the like leave it as it was. */
static dj_status_t chunk_cut(dj_cuda_device_t *device, dj_cuda_range_t *range, uint32_t index, uint32_t kept,
                             uint32_t borders)
{
    struct dj_cuda_memory *memory = device->memory;
    dj_cuda_chunk_t chunk = range->chunks[index];
    pieces_t pieces;
    pieces_find(&pieces, memory, &chunk, kept, borders);
    if (chunk.mirror && pieces.n)
        return dj_fail(DJ_ERR_INVALID, "a mirror of device memory goes in whole");
    dj_status_t status = dj_cuda_range_make_room(range, pieces.n);
    if (status == DJ_OK && pieces.n)
        status = pieces_copy(device, range, &chunk, &pieces);
    if (status != DJ_OK)
        return status;
    chunk_unmap(memory, range, index);
    for (uint32_t i = 0; i < pieces.n; i++) {
        dj_cuda_chunk_t *piece = &pieces.of[i];
        CUdeviceptr at = range->base + piece->offset;
        CUresult result = dj_cuda.cuMemMap(at, piece->bytes, 0, piece->handle, 0);
        if (result == CUDA_SUCCESS)
            result = access_set(device, at, piece->bytes, piece->sealed && memory->seals);
        /* Addresses that were mapped a moment ago, and memory that is there: only a lost context refuses. */
        if (dj_cuda_status(result, "mapping a chunk's rest") != DJ_OK)
            dj_log(ERROR, "%s", dj_error_text());
        chunk_add(memory, range, *piece);
    }
    return DJ_OK;
}

/* Cuts what is held off the chunks in [first, end). */
static dj_status_t drop_held(dj_cuda_device_t *device, dj_cuda_range_t *range, uint64_t first, uint64_t end)
{
    for (uint32_t i = dj_cuda_range_at(range, first); i < range->n_chunks && range->chunks[i].offset < end;) {
        dj_cuda_chunk_t chunk = range->chunks[i];
        if (chunk.held) {
            dj_status_t status = chunk_cut(device, range, i, all_pages(device->memory, &chunk) & ~chunk.held, 0);
            if (status != DJ_OK)
                return status;
        }
        i = dj_cuda_range_at(range, chunk.offset + chunk.bytes);
    }
    return DJ_OK;
}

/* ---- the range's pages ---- */

/* The range, and [first, end) in it; DJ_ERR_INVALID when they are not all of one range's pages. */
static dj_status_t range_locate(const struct dj_cuda_memory *memory, const void *base, uint64_t bytes,
                                dj_cuda_range_t **range_p, uint64_t *first_p)
{
    uint64_t address = (uint64_t)(uintptr_t)base;
    dj_cuda_range_t *range = dj_cuda_ranges_find(&memory->ranges, address, bytes);
    if (!range || address % memory->page_bytes || bytes % memory->page_bytes)
        return dj_fail(DJ_ERR_INVALID, "device memory at %p, %llu bytes: not pages of a reserved range", base,
                       (unsigned long long)bytes);
    *range_p = range;
    *first_p = address - range->base;
    return DJ_OK;
}

static void unmap_pages(struct dj_cuda_memory *memory, dj_cuda_range_t *range, uint64_t first, uint64_t end)
{
    uint32_t i = dj_cuda_range_at(range, first);
    while (i < range->n_chunks && range->chunks[i].offset < end)
        chunk_unmap(memory, range, i);
}

/* Chunks for all of [first, end), where there are none. */
static dj_status_t map_pages(dj_cuda_device_t *device, dj_cuda_range_t *range, uint64_t first, uint64_t end)
{
    struct dj_cuda_memory *memory = device->memory;
    uint64_t most = DJ_CUDA_CHUNK_PAGES * memory->page_bytes;
    dj_status_t status = dj_cuda_range_make_room(range, (uint32_t)((end - first + most - 1) / most));
    for (uint64_t at = first, bytes; status == DJ_OK && at < end; at += bytes) {
        CUmemGenericAllocationHandle handle = 0;
        bytes = end - at < most ? end - at : most;
        CUresult result = chunk_map(memory, range->base + at, bytes, &handle);
        if (result == CUDA_SUCCESS)
            chunk_add(memory, range, (dj_cuda_chunk_t){.offset = at, .bytes = bytes, .handle = handle});
        status = dj_cuda_status(result, "memory of the GPU");
    }
    if (status == DJ_OK)
        status = dj_cuda_status(access_set(device, range->base + first, end - first, false), "access to new pages");
    return status;
}

static dj_status_t commit_locked(dj_cuda_device_t *device, dj_cuda_range_t *range, uint64_t first, uint64_t end)
{
    dj_status_t status = drop_held(device, range, first, end);
    if (status != DJ_OK)
        return status;
    uint32_t next = dj_cuda_range_at(range, first);
    if (next < range->n_chunks && range->chunks[next].offset < end)
        return dj_fail(DJ_ERR_INVALID, "device memory at %p: pages are there already",
                       (void *)(uintptr_t)(range->base + range->chunks[next].offset));
    status = map_pages(device, range, first, end);
    if (status != DJ_OK)
        unmap_pages(device->memory, range, first, end);
    return status;
}

static void decommit_locked(dj_cuda_device_t *device, dj_cuda_range_t *range, uint64_t first, uint64_t end)
{
    struct dj_cuda_memory *memory = device->memory;
    for (uint32_t i = dj_cuda_range_at(range, first); i < range->n_chunks && range->chunks[i].offset < end;) {
        dj_cuda_chunk_t chunk = range->chunks[i];
        uint32_t gone = dj_cuda_chunk_pages(&chunk, first, end, memory->page_bytes) | chunk.held;
        uint32_t kept = all_pages(memory, &chunk) & ~gone;
        if (kept == 0) {
            chunk_unmap_aside(memory, range, i);
        } else if (chunk_cut(device, range, i, kept, 0) != DJ_OK) {
            dj_log(INFO, "%u pages are returned later: %s", (unsigned)__builtin_popcount(gone), dj_error_text());
            memory->counters.held_bytes += (uint64_t)__builtin_popcount(gone & ~chunk.held) * memory->page_bytes;
            range->chunks[i].held = gone;
        }
        i = dj_cuda_range_at(range, chunk.offset + chunk.bytes);
    }
}

static CUresult chunk_seal(dj_cuda_device_t *device, const dj_cuda_range_t *range, dj_cuda_chunk_t *chunk, bool sealed)
{
    struct dj_cuda_memory *memory = device->memory;
    CUresult result = CUDA_SUCCESS;
    if (memory->seals || !sealed)
        result = access_set(device, range->base + chunk->offset, chunk->bytes, sealed);
    if (sealed && (result == CUDA_ERROR_NOT_SUPPORTED || result == CUDA_ERROR_INVALID_VALUE)) {
        dj_log(WARN, "GPU %s: weights are not sealed: the driver maps no device memory read-only", device->pci);
        memory->seals = false;
        result = access_set(device, range->base + chunk->offset, chunk->bytes, false);
    }
    if (result == CUDA_SUCCESS)
        chunk->sealed = sealed;
    return result;
}

static dj_status_t seal_locked(dj_cuda_device_t *device, dj_cuda_range_t *range, uint64_t first, uint64_t end,
                               bool sealed)
{
    struct dj_cuda_memory *memory = device->memory;
    uint64_t at = first;
    for (uint32_t i = dj_cuda_range_at(range, first); i < range->n_chunks && at < end; i++) {
        dj_cuda_chunk_t chunk = range->chunks[i];
        uint32_t all = all_pages(memory, &chunk);
        uint32_t some = dj_cuda_chunk_pages(&chunk, first, end, memory->page_bytes);
        if (chunk.offset > at || some & chunk.held)
            break;
        if (some != (all & ~chunk.held) || chunk.held) {
            /* Borders at the first of the pages and behind the last. */
            dj_status_t status = chunk_cut(device, range, i, all & ~chunk.held, some ^ some << 1);
            if (status != DJ_OK)
                return status;
            i = dj_cuda_range_at(range, at);
        }
        dj_status_t status = dj_cuda_status(chunk_seal(device, range, &range->chunks[i], sealed),
                                            sealed ? "sealing device memory" : "unsealing device memory");
        if (status != DJ_OK)
            return status;
        at = range->chunks[i].offset + range->chunks[i].bytes;
    }
    if (at < end)
        return dj_fail(DJ_ERR_SYSTEM, "cannot seal device memory at %p: no pages are there",
                       (void *)(uintptr_t)(range->base + at));
    return DJ_OK;
}

/* The chunks of [first, end) once more, at `at` of the window. */
static dj_status_t mirror_chunks(dj_cuda_device_t *device, dj_cuda_range_t *window, uint64_t at,
                                 const dj_cuda_range_t *range, uint64_t first, uint64_t end)
{
    uint64_t next = first;
    dj_status_t status = DJ_OK;
    for (uint32_t i = dj_cuda_range_at(range, first); status == DJ_OK && next < end; i++) {
        const dj_cuda_chunk_t *chunk = &range->chunks[i];
        if (i >= range->n_chunks || chunk->offset != next || chunk->bytes > end - next || chunk->held || chunk->mirror)
            return dj_fail(DJ_ERR_INVALID, "device memory at %p: not what one commit made",
                           (void *)(uintptr_t)(range->base + next));
        uint64_t offset = at + (next - first);
        status = dj_cuda_range_make_room(window, 1);
        if (status != DJ_OK)
            break;
        CUresult result = dj_cuda.cuMemMap(window->base + offset, chunk->bytes, 0, chunk->handle, 0);
        if (result == CUDA_SUCCESS)
            chunk_add(device->memory, window, (dj_cuda_chunk_t){.offset = offset, .bytes = chunk->bytes,
                                                                .handle = chunk->handle, .mirror = true});
        status = dj_cuda_status(result, "a second address of device memory");
        next += chunk->bytes;
    }
    if (status == DJ_OK)
        status = dj_cuda_status(access_set(device, window->base + at, end - first, false), "access to a mirror");
    return status;
}

static dj_status_t mirror_locked(dj_cuda_device_t *device, const void *window, const void *base, uint64_t bytes)
{
    struct dj_cuda_memory *memory = device->memory;
    dj_cuda_range_t *range, *shown;
    uint64_t first, at;
    dj_status_t status = range_locate(memory, base, bytes, &range, &first);
    if (status == DJ_OK)
        status = range_locate(memory, window, bytes, &shown, &at);
    if (status != DJ_OK)
        return status;
    uint32_t next = dj_cuda_range_at(shown, at);
    if (shown == range || (next < shown->n_chunks && shown->chunks[next].offset < at + bytes))
        return dj_fail(DJ_ERR_INVALID, "device memory at %p: pages are there already", window);
    status = mirror_chunks(device, shown, at, range, first, first + bytes);
    if (status != DJ_OK)
        unmap_pages(memory, shown, at, at + bytes);
    return status;
}

/* ---- device.h's functions ---- */

dj_status_t dj_cuda_memory_reserve(dj_device_t *base_device, uint64_t bytes, void **base_p)
{
    dj_cuda_device_t *device = device_of(base_device);
    struct dj_cuda_memory *memory = device->memory;
    CUdeviceptr base = 0;
    dj_status_t status = dj_cuda_enter(device);
    if (status == DJ_OK && (bytes == 0 || bytes % memory->page_bytes))
        status = dj_fail(DJ_ERR_INVALID, "a range of %llu bytes: not pages", (unsigned long long)bytes);
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuMemAddressReserve(&base, bytes, memory->page_bytes, 0, 0),
                                "addresses of the GPU");
    if (status != DJ_OK)
        return dj_fail_prefix(status, "cannot reserve %llu bytes (--data_bytes)", (unsigned long long)bytes);
    pthread_mutex_lock(&memory->lock);
    status = dj_cuda_ranges_add(&memory->ranges, base, bytes);
    if (status == DJ_OK) {
        memory->counters.reserved_bytes += bytes;
        memory->counters.ranges++;
    }
    pthread_mutex_unlock(&memory->lock);
    if (status == DJ_OK)
        *base_p = (void *)(uintptr_t)base;
    else
        dj_cuda.cuMemAddressFree(base, bytes);
    return status;
}

void dj_cuda_memory_decommit(dj_device_t *base_device, void *base, uint64_t bytes)
{
    dj_cuda_device_t *device = device_of(base_device);
    struct dj_cuda_memory *memory = device->memory;
    dj_cuda_range_t *range;
    uint64_t first;
    dj_status_t status = dj_cuda_enter(device);
    pthread_mutex_lock(&memory->lock);
    if (status == DJ_OK)
        status = range_locate(memory, base, bytes, &range, &first);
    if (status == DJ_OK)
        decommit_locked(device, range, first, first + bytes);
    pthread_mutex_unlock(&memory->lock);
    if (status != DJ_OK)
        dj_log(ERROR, "pages stay: %s", dj_error_text());
}

static dj_status_t commit_refuse(const dj_cuda_device_t *device, dj_status_t status, uint64_t bytes)
{
    size_t free_bytes = 0, total_bytes = 0;
    if (status == DJ_ERR_MEMORY && dj_cuda.cuMemGetInfo(&free_bytes, &total_bytes) == CUDA_SUCCESS)
        return dj_fail_prefix(status, "GPU %s: %llu bytes wanted, %llu are free of %llu", device->pci,
                              (unsigned long long)bytes, (unsigned long long)free_bytes,
                              (unsigned long long)total_bytes);
    return dj_fail_prefix(status, "GPU %s: cannot back %llu bytes", device->pci, (unsigned long long)bytes);
}

dj_status_t dj_cuda_memory_commit(dj_device_t *base_device, void *base, uint64_t bytes)
{
    dj_cuda_device_t *device = device_of(base_device);
    struct dj_cuda_memory *memory = device->memory;
    dj_cuda_range_t *range;
    uint64_t first;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK)
        return status;
    pthread_mutex_lock(&memory->lock);
    status = range_locate(memory, base, bytes, &range, &first);
    if (status == DJ_OK && bytes)
        status = commit_locked(device, range, first, first + bytes);
    pthread_mutex_unlock(&memory->lock);
    if (status != DJ_OK)
        return commit_refuse(device, status, bytes);
    status = dj_cuda_copies_fill(base_device, base, 0, bytes);
    if (status != DJ_OK)
        dj_cuda_memory_decommit(base_device, base, bytes);
    return status;
}

dj_status_t dj_cuda_memory_seal(dj_device_t *base_device, void *base, uint64_t bytes, bool sealed)
{
    dj_cuda_device_t *device = device_of(base_device);
    struct dj_cuda_memory *memory = device->memory;
    dj_cuda_range_t *range;
    uint64_t first;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK)
        return status;
    pthread_mutex_lock(&memory->lock);
    status = range_locate(memory, base, bytes, &range, &first);
    if (status == DJ_OK)
        status = seal_locked(device, range, first, first + bytes, sealed);
    pthread_mutex_unlock(&memory->lock);
    return status;
}

dj_status_t dj_cuda_memory_mirror(dj_device_t *base_device, void *window, void *base, uint64_t bytes)
{
    dj_cuda_device_t *device = device_of(base_device);
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK)
        return status;
    pthread_mutex_lock(&device->memory->lock);
    status = mirror_locked(device, window, base, bytes);
    pthread_mutex_unlock(&device->memory->lock);
    return status;
}

/* A range that is in no table any more. */
static void range_return(struct dj_cuda_memory *memory, dj_cuda_range_t *range)
{
    for (uint32_t i = range->n_chunks; i-- > 0;)
        chunk_return(range->base, &range->chunks[i]);
    if (dj_cuda_status(dj_cuda.cuMemAddressFree(range->base, range->bytes), "returning addresses") != DJ_OK)
        dj_log(ERROR, "%s", dj_error_text());
    pthread_mutex_lock(&memory->lock);
    for (uint32_t i = 0; i < range->n_chunks; i++)
        chunk_uncount(memory, &range->chunks[i]);
    memory->counters.reserved_bytes -= range->bytes;
    memory->counters.ranges--;
    pthread_mutex_unlock(&memory->lock);
    dj_cuda_range_free(range);
}

void dj_cuda_memory_release(dj_device_t *base_device, void *base, uint64_t bytes)
{
    dj_cuda_device_t *device = device_of(base_device);
    struct dj_cuda_memory *memory = device->memory;
    dj_cuda_range_t *range;
    uint64_t first;
    dj_status_t status = dj_cuda_enter(device);
    pthread_mutex_lock(&memory->lock);
    if (status == DJ_OK)
        status = range_locate(memory, base, bytes, &range, &first);
    if (status == DJ_OK)
        dj_cuda_ranges_take(&memory->ranges, range);
    pthread_mutex_unlock(&memory->lock);
    if (status == DJ_OK)
        range_return(memory, range);
    else
        dj_log(ERROR, "a range stays: %s", dj_error_text());
}

uint64_t dj_cuda_memory_chunk_end(dj_device_t *base_device, const void *pointer)
{
    struct dj_cuda_memory *memory = device_of(base_device)->memory;
    uint64_t address = (uint64_t)(uintptr_t)pointer, left = 0;
    pthread_mutex_lock(&memory->lock);
    const dj_cuda_range_t *range = dj_cuda_ranges_find(&memory->ranges, address, 1);
    if (range) {
        uint64_t offset = address - range->base;
        uint32_t i = dj_cuda_range_at(range, offset);
        if (i < range->n_chunks && range->chunks[i].offset <= offset)
            left = range->chunks[i].offset + range->chunks[i].bytes - offset;
    }
    pthread_mutex_unlock(&memory->lock);
    return left;
}

void dj_cuda_memory_counters(dj_device_t *device, dj_cuda_memory_counters_t *counters)
{
    struct dj_cuda_memory *memory = device_of(device)->memory;
    pthread_mutex_lock(&memory->lock);
    *counters = memory->counters;
    pthread_mutex_unlock(&memory->lock);
}

/* ---- open and close ---- */

static int attribute(const dj_cuda_device_t *device, CUdevice_attribute what)
{
    int value = 0;
    return dj_cuda.cuDeviceGetAttribute(&value, what, device->device) == CUDA_SUCCESS ? value : 0;
}

dj_status_t dj_cuda_memory_open(dj_cuda_device_t *device)
{
    size_t page_bytes = 0;
    struct dj_cuda_memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return dj_fail(DJ_ERR_MEMORY, "device cuda: out of memory");
    memory->prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    memory->prop.location = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device->device};
    memory->prop.allocFlags.gpuDirectRDMACapable =
        attribute(device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED) != 0;
    memory->seals = true;
    dj_status_t status = DJ_OK;
    if (!attribute(device, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED))
        status = dj_fail(DJ_ERR_UNSUPPORTED, "GPU %s (%s) has no virtual memory management, which Djinn needs; a "
                         "virtual GPU must have its own memory (MIG) to have it", device->info.name, device->pci);
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuMemGetAllocationGranularity(&page_bytes, &memory->prop,
                                                                      CU_MEM_ALLOC_GRANULARITY_MINIMUM),
                                "the size of the GPU's pages");
    if (status == DJ_OK && page_bytes == 0)
        status = dj_fail(DJ_ERR_SYSTEM, "GPU %s: pages of 0 bytes", device->pci);
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuMemAddressReserve(&memory->scratch, DJ_CUDA_CHUNK_PAGES * page_bytes,
                                                            page_bytes, 0, 0),
                                "addresses of the GPU");
    if (status != DJ_OK) {
        free(memory);
        return status;
    }
    pthread_mutex_init(&memory->lock, NULL);
    memory->page_bytes = device->info.page_bytes = page_bytes;
    device->memory = memory;
    return DJ_OK;
}

void dj_cuda_memory_close(dj_cuda_device_t *device)
{
    struct dj_cuda_memory *memory = device->memory;
    if (!memory)
        return;
    if (memory->ranges.n)
        dj_log(WARN, "GPU %s: %u ranges were still held at close", device->pci, memory->ranges.n);
    while (memory->ranges.n) {
        dj_cuda_range_t *range = memory->ranges.all[memory->ranges.n - 1];
        dj_cuda_ranges_take(&memory->ranges, range);
        range_return(memory, range);
    }
    dj_cuda_ranges_fini(&memory->ranges);
    dj_cuda.cuMemAddressFree(memory->scratch, DJ_CUDA_CHUNK_PAGES * memory->page_bytes);
    pthread_mutex_destroy(&memory->lock);
    free(memory);
    device->memory = NULL;
}

const dj_device_memory_t dj_cuda_memory_ops = DJ_CUDA_MEMORY_OPS;
