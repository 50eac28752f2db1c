/* segment.c - ranges that grow in place (segment.h).
 *
 * The whole of contract 3's "never moves" rests on one fact: address space is reserved once and
 * only pages come and go. Text entries, a session's Data and the Stack slabs are all built on this.
 */
#include "gpu/segment.h"

static uint64_t round_up(uint64_t bytes, uint64_t page)
{
    return (bytes + page - 1) / page * page;
}

dj_status_t dj_segment_init(dj_segment_t *segment, dj_device_t *device, uint64_t reserve_bytes)
{
    uint64_t page = device->ops->info(device)->page_bytes;
    if (reserve_bytes > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "segment of %llu bytes: above the limit of %llu",
                       (unsigned long long)reserve_bytes, DJ_TENSOR_BYTES_MAX);
    uint64_t reserved = round_up(reserve_bytes ? reserve_bytes : 1, page);
    void *base = NULL;
    dj_status_t status = device->ops->memory.reserve(device, reserved, &base);
    if (status != DJ_OK)
        return status;
    *segment = (dj_segment_t){.device = device, .base = base, .reserved_bytes = reserved};
    return DJ_OK;
}

void dj_segment_fini(dj_segment_t *segment)
{
    if (!segment->base)
        return;
    segment->device->ops->memory.release(segment->device, segment->base, segment->reserved_bytes);
    *segment = (dj_segment_t){0};
}

dj_status_t dj_segment_grow(dj_segment_t *segment, uint64_t bytes)
{
    dj_device_t *device = segment->device;
    if (bytes <= dj_gauge_get(&segment->committed_bytes))
        return DJ_OK;
    if (bytes > segment->reserved_bytes)
        return dj_fail(DJ_ERR_LIMIT, "segment: %llu bytes wanted, %llu reserved",
                       (unsigned long long)bytes, (unsigned long long)segment->reserved_bytes);
    uint64_t wanted = round_up(bytes, device->ops->info(device)->page_bytes);
    uint64_t old = dj_gauge_get(&segment->committed_bytes);
    dj_status_t status = device->ops->memory.commit(device, segment->base + old, wanted - old);
    if (status == DJ_OK)
        dj_gauge_set(&segment->committed_bytes, wanted);
    return status;
}

void dj_segment_shrink(dj_segment_t *segment, uint64_t bytes)
{
    dj_device_t *device = segment->device;
    if (bytes >= dj_gauge_get(&segment->committed_bytes))
        return;
    uint64_t kept = round_up(bytes, device->ops->info(device)->page_bytes);
    if (kept >= dj_gauge_get(&segment->committed_bytes))
        return;
    device->ops->memory.decommit(device, segment->base + kept, dj_gauge_get(&segment->committed_bytes) - kept);
    dj_gauge_set(&segment->committed_bytes, kept);
}
