/* alloc.c - cuMemAlloc, pinned host memory, facts of pointers.
 *
 * An allocation lies at the end of its pages, 512-byte aligned, so that what runs past it faults. */
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/gpu/simulator/inner.h"

enum { PAGE_BYTES = 4096, ALIGN_BYTES = 512 };

typedef struct pinned {
    uint64_t base, bytes;
    bool owned; /* of cuMemHostAlloc */
    struct pinned *next;
} pinned_t;

static pinned_t *all_pinned;

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* ---- device memory ---- */

static CUresult device_alloc(CUdeviceptr *address, size_t bytes)
{
    uint64_t counted = round_up(bytes, ALIGN_BYTES), whole = round_up(bytes, PAGE_BYTES);
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes > sim_memory_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* A page after it stays shut. */
    uint64_t base = sim_range_reserve(whole + PAGE_BYTES, SIM_PIECE_BYTES);
    if (base == 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    sim_pages_t *pages = sim_pages_create(whole, counted);
    sim_mapping_t *mapping = pages ? sim_mapping_create(base, whole, pages) : NULL;
    if (pages)
        sim_pages_unref(pages);
    if (mapping == NULL) {
        sim_range_release(base, whole + PAGE_BYTES);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    mapping->is_alloc = true;
    mapping->first = base + whole - counted;
    mapping->exact = bytes;
    sim_mapping_set_access(mapping, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    ++sim_count.allocations;
    *address = mapping->first;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes)
{
    CUresult result = sim_enter("cuMemAlloc", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = sim_capture_forbid(false);
    if (result == CUDA_SUCCESS)
        result = device_alloc(address, bytes);
    return sim_leave(result);
}

static CUresult device_free(CUdeviceptr address)
{
    sim_mapping_t *mapping = sim_mapping_at(address);
    if (address == 0)
        return CUDA_SUCCESS;
    if (mapping == NULL || !mapping->is_alloc || mapping->first != address)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = sim_run_all(); /* as the driver does */
    uint64_t base = mapping->base, bytes = mapping->bytes;
    sim_mapping_destroy(mapping);
    sim_range_release(base, bytes + PAGE_BYTES);
    --sim_count.allocations;
    return result;
}

CUresult cuMemFree(CUdeviceptr address)
{
    CUresult result = sim_enter("cuMemFree", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = sim_capture_forbid(false);
    if (result == CUDA_SUCCESS)
        result = device_free(address);
    return sim_leave(result);
}

CUresult cuMemGetInfo(size_t *available, size_t *total)
{
    CUresult result = sim_enter("cuMemGetInfo", SIM_CONTEXT);
    if (result == CUDA_SUCCESS) {
        *available = sim_memory_bytes - sim_count.used_bytes;
        *total = sim_memory_bytes;
    }
    return sim_leave(result);
}

/* ---- pinned memory ---- */

static pinned_t *pinned_at(uint64_t address)
{
    for (pinned_t *at = all_pinned; at; at = at->next) {
        if (address >= at->base && address - at->base < at->bytes)
            return at;
    }
    return NULL;
}

bool sim_is_pinned(const void *host, uint64_t bytes)
{
    uint64_t address = (uint64_t)host;
    const pinned_t *pinned = pinned_at(address);
    return pinned && bytes <= pinned->bytes - (address - pinned->base);
}

static CUresult pin(uint64_t base, uint64_t bytes, bool owned)
{
    pinned_t *made = malloc(sizeof *made);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *made = (pinned_t){base, bytes, owned, all_pinned};
    all_pinned = made;
    sim_count.pinned_bytes += bytes;
    return CUDA_SUCCESS;
}

/* The pinned range that begins at `base`, taken off the list; `owned` must be right. */
static bool unpin(uint64_t base, bool owned, pinned_t *was)
{
    for (pinned_t **at = &all_pinned; *at; at = &(*at)->next) {
        if ((*at)->base != base || (*at)->owned != owned)
            continue;
        pinned_t *found = *at;
        *was = *found;
        *at = found->next;
        sim_count.pinned_bytes -= found->bytes;
        free(found);
        return true;
    }
    return false;
}

static CUresult host_alloc(void **host, size_t bytes)
{
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    void *block = mmap(NULL, round_up(bytes, PAGE_BYTES), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *host = block;
    return pin((uint64_t)block, bytes, true);
}

CUresult cuMemHostAlloc(void **host, size_t bytes, unsigned flags)
{
    CUresult result = sim_enter("cuMemHostAlloc", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && (flags & ~7u))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        result = sim_capture_forbid(false);
    if (result == CUDA_SUCCESS)
        result = host_alloc(host, bytes);
    return sim_leave(result);
}

CUresult cuMemFreeHost(void *host)
{
    pinned_t was;
    CUresult result = sim_enter("cuMemFreeHost", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = sim_capture_forbid(false);
    if (result == CUDA_SUCCESS) {
        result = sim_run_all(); /* as the driver does */
        if (unpin((uint64_t)host, true, &was))
            munmap(host, round_up(was.bytes, PAGE_BYTES));
        else if (result == CUDA_SUCCESS)
            result = CUDA_ERROR_INVALID_VALUE;
    }
    return sim_leave(result);
}

static CUresult host_register(void *host, size_t bytes)
{
    uint64_t base = (uint64_t)host;
    if (host == NULL || bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (const pinned_t *at = all_pinned; at; at = at->next) {
        if (base < at->base + at->bytes && at->base < base + bytes)
            return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    }
    return pin(base, bytes, false);
}

CUresult cuMemHostRegister(void *host, size_t bytes, unsigned flags)
{
    CUresult result = sim_enter("cuMemHostRegister", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = host_register(host, bytes);
    return sim_leave(result);
}

CUresult cuMemHostUnregister(void *host)
{
    pinned_t was;
    CUresult result = sim_enter("cuMemHostUnregister", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && !unpin((uint64_t)host, false, &was))
        result = CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    return sim_leave(result);
}

/* ---- facts of pointers ---- */

static CUresult pointer_fact(void *value, CUpointer_attribute attribute, CUdeviceptr address)
{
    const sim_mapping_t *mapping = sim_mapping_at(address);
    const pinned_t *pinned = pinned_at(address);
    if (mapping && mapping->is_alloc && address - mapping->first >= mapping->exact)
        mapping = NULL;
    if (mapping == NULL && pinned == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t start = !mapping ? pinned->base : mapping->is_alloc ? mapping->first : mapping->base;
    uint64_t bytes = !mapping ? pinned->bytes : mapping->is_alloc ? mapping->exact : mapping->bytes;
    switch ((int)attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)value = mapping ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)value = address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (mapping)
            return CUDA_ERROR_INVALID_VALUE;
        *(void **)value = (void *)address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(unsigned *)value = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)value = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)value = start;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)value = bytes;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

/* Of an allocation of cuMemAlloc alone: mapped memory has no such attribute. */
CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr address)
{
    CUresult result = sim_enter("cuPointerSetAttribute", SIM_CONTEXT);
    const sim_mapping_t *mapping = sim_mapping_at(address);
    if (result == CUDA_SUCCESS && (attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || *(const unsigned *)value > 1 ||
                                   !mapping || !mapping->is_alloc))
        result = CUDA_ERROR_INVALID_VALUE;
    return sim_leave(result);
}

CUresult cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target, CUflushGPUDirectRDMAWritesScope scope)
{
    CUresult result = sim_enter("cuFlushGPUDirectRDMAWrites", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && (target != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX ||
                                   (scope != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER &&
                                    scope != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_ALL_DEVICES)))
        result = CUDA_ERROR_INVALID_VALUE;
    return sim_leave(result);
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr address)
{
    CUresult result = sim_enter("cuPointerGetAttribute", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = pointer_fact(value, attribute, address);
    return sim_leave(result);
}
