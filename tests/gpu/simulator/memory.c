/* memory.c - virtual memory management, with CUDA's rules: whole granules, maps inside one reservation, whole
 * mappings unmapped and given access, addresses freed only when nothing is mapped, handles counted. */
#include <stdlib.h>

#include "tests/gpu/simulator/inner.h"

typedef struct reservation {
    uint64_t base, bytes;
    struct reservation *next;
} reservation_t;

static reservation_t *reservations;

static bool is_granular(uint64_t bytes)
{
    return bytes > 0 && bytes % SIM_PIECE_BYTES == 0;
}

static bool is_device_location(const CUmemLocation *location)
{
    return location->type == CU_MEM_LOCATION_TYPE_DEVICE && location->id == 0;
}

/* ---- addresses ---- */

static CUresult reserve(CUdeviceptr *address, size_t bytes, size_t alignment, unsigned long long flags)
{
    if (!is_granular(bytes) || (alignment & (alignment - 1)) || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (alignment < SIM_PIECE_BYTES)
        alignment = SIM_PIECE_BYTES;
    uint64_t base = sim_range_reserve(bytes, alignment);
    reservation_t *made = base ? malloc(sizeof *made) : NULL;
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *made = (reservation_t){base, bytes, reservations};
    reservations = made;
    ++sim_count.reservations;
    sim_count.reserved_bytes += bytes;
    *address = base;
    return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr *address, size_t bytes, size_t alignment, CUdeviceptr hint,
                             unsigned long long flags)
{
    CUresult result = sim_enter("cuMemAddressReserve", SIM_INIT);
    if (result == CUDA_SUCCESS)
        result = reserve(address, bytes, alignment, flags);
    return sim_leave(result);
}

static CUresult address_free(CUdeviceptr address, size_t bytes)
{
    for (reservation_t **at = &reservations; *at; at = &(*at)->next) {
        reservation_t *found = *at;
        if (found->base != address)
            continue;
        if (found->bytes != bytes || sim_is_touched(address, bytes)) {
            sim_say("cuMemAddressFree: of another size than reserved, or still mapped");
            return CUDA_ERROR_INVALID_VALUE;
        }
        sim_range_release(address, bytes);
        --sim_count.reservations;
        sim_count.reserved_bytes -= bytes;
        *at = found->next;
        free(found);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes)
{
    CUresult result = sim_enter("cuMemAddressFree", SIM_INIT);
    if (result == CUDA_SUCCESS)
        result = address_free(address, bytes);
    return sim_leave(result);
}

/* ---- handles ---- */

static bool is_plain(const CUmemAllocationProp *prop)
{
    return prop->type == CU_MEM_ALLOCATION_TYPE_PINNED && is_device_location(&prop->location);
}

CUresult cuMemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *prop,
                                       CUmemAllocationGranularity_flags option)
{
    CUresult result = sim_enter("cuMemGetAllocationGranularity", SIM_INIT);
    if (result == CUDA_SUCCESS && !is_plain(prop))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *bytes = SIM_PIECE_BYTES;
    return sim_leave(result);
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                     unsigned long long flags)
{
    CUresult result = sim_enter("cuMemCreate", SIM_INIT);
    if (result == CUDA_SUCCESS && (!is_granular(bytes) || !is_plain(prop) || flags))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        sim_pages_t *pages = sim_pages_create(bytes, bytes);
        if (pages == NULL)
            result = CUDA_ERROR_OUT_OF_MEMORY;
        else
            ++sim_count.handles;
        *handle = (CUmemGenericAllocationHandle)(uintptr_t)pages;
    }
    return sim_leave(result);
}

static sim_pages_t *pages_of(CUmemGenericAllocationHandle handle)
{
    sim_pages_t *pages = (sim_pages_t *)(uintptr_t)handle;
    return sim_is(pages, SIM_HANDLE) && !pages->released ? pages : NULL;
}

static void unref(sim_pages_t *pages)
{
    if (pages->refs == 1)
        --sim_count.handles;
    sim_pages_unref(pages);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    CUresult result = sim_enter("cuMemRelease", SIM_INIT);
    if (result == CUDA_SUCCESS && pages_of(handle) == NULL)
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        sim_pages_t *pages = pages_of(handle);
        pages->released = true;
        unref(pages);
    }
    return sim_leave(result);
}

/* ---- mappings ---- */

static bool is_reserved(uint64_t address, uint64_t bytes)
{
    for (const reservation_t *at = reservations; at; at = at->next) {
        if (address >= at->base && address - at->base < at->bytes)
            return bytes <= at->bytes - (address - at->base);
    }
    return false;
}

static CUresult map(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                    unsigned long long flags)
{
    sim_pages_t *pages = pages_of(handle);
    if (pages == NULL || offset || flags || bytes != pages->bytes || address % SIM_PIECE_BYTES ||
        !is_reserved(address, bytes) || sim_is_touched(address, bytes)) {
        sim_say("cuMemMap: not a whole handle into free, reserved addresses");
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (sim_mapping_create(address, bytes, pages) == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    sim_count.mapped_bytes += bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    CUresult result = sim_enter("cuMemMap", SIM_INIT);
    if (result == CUDA_SUCCESS)
        result = map(address, bytes, offset, handle, flags);
    return sim_leave(result);
}

CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    CUresult result = sim_enter("cuMemUnmap", SIM_INIT);
    if (result == CUDA_SUCCESS && (!is_granular(bytes) || !sim_is_whole(address, bytes))) {
        sim_say("cuMemUnmap: not whole mappings side by side");
        result = CUDA_ERROR_INVALID_VALUE;
    }
    for (uint64_t at = address; result == CUDA_SUCCESS && at < address + bytes;) {
        sim_mapping_t *mapping = sim_mapping_at(at);
        sim_pages_t *pages = mapping->pages;
        at += mapping->bytes;
        sim_count.mapped_bytes -= mapping->bytes;
        if (pages->refs == 1)
            --sim_count.handles;
        sim_mapping_destroy(mapping);
    }
    return sim_leave(result);
}

CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc *desc, size_t count)
{
    CUresult result = sim_enter("cuMemSetAccess", SIM_INIT);
    if (result == CUDA_SUCCESS && (count != 1 || !is_device_location(&desc->location) || !is_granular(bytes) ||
                                   !sim_is_whole(address, bytes))) {
        sim_say("cuMemSetAccess: not whole mappings side by side, or another device");
        result = CUDA_ERROR_INVALID_VALUE;
    }
    for (uint64_t at = address; result == CUDA_SUCCESS && at < address + bytes;) {
        sim_mapping_t *mapping = sim_mapping_at(at);
        at += mapping->bytes;
        sim_mapping_set_access(mapping, desc->flags);
    }
    return sim_leave(result);
}

CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr address, size_t bytes,
                                       CUmemRangeHandleType type, unsigned long long flags)
{
    CUresult result = sim_enter("cuMemGetHandleForAddressRange", SIM_CONTEXT);
    return sim_leave(result == CUDA_SUCCESS ? CUDA_ERROR_NOT_SUPPORTED : result);
}
