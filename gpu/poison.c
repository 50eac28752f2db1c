/* poison.c - the poisoned slab (poison.h). The runtime uses it under --poison and in tests. */
#include "gpu/poison.h"

#include <stdlib.h>
#include <string.h>

#define PART_BYTES (1ull << 20)

void dj_poison_fill(void *slab, uint64_t bytes, uint8_t value)
{
    memset(slab, value, bytes);
}

uint64_t dj_poison_peak(const void *slab, uint64_t bytes, uint8_t value)
{
    const uint8_t *data = slab;
    uint64_t word, clean = 0x0101010101010101ull * value;
    while (bytes % sizeof(word) && data[bytes - 1] == value)
        bytes--;
    if (bytes % sizeof(word))
        return bytes;
    for (; bytes; bytes -= sizeof(word)) {
        memcpy(&word, data + bytes - sizeof(word), sizeof(word));
        if (word != clean)
            break;
    }
    while (bytes && data[bytes - 1] == value)
        bytes--;
    return bytes;
}

/* ---- memory of a device ---- */

static dj_status_t make_part(uint64_t bytes, uint64_t *part_p, uint8_t **part_data_p)
{
    *part_p = bytes < PART_BYTES ? bytes : PART_BYTES;
    *part_data_p = malloc(*part_p);
    return *part_data_p ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "poison: no memory for a part of the slab");
}

dj_status_t dj_poison_fill_slab(dj_device_t *device, void *slab, uint64_t bytes, uint8_t value)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    uint8_t *part;
    uint64_t part_bytes;
    if (device->ops->info(device)->host_reads) {
        dj_poison_fill(slab, bytes, value);
        return DJ_OK;
    }
    if (memory->fill)
        return memory->fill(device, slab, value, bytes);
    if (bytes == 0)
        return DJ_OK;
    dj_status_t status = make_part(bytes, &part_bytes, &part);
    if (status != DJ_OK)
        return status;
    memset(part, value, part_bytes);
    for (uint64_t at = 0; at < bytes && status == DJ_OK; at += part_bytes)
        status = memory->copy_in(device, (uint8_t *)slab + at, part,
                                 bytes - at < part_bytes ? bytes - at : part_bytes);
    free(part);
    return status;
}

dj_status_t dj_poison_peak_slab(dj_device_t *device, const void *slab, uint64_t bytes, uint8_t value,
                                uint64_t *peak_p)
{
    uint8_t *part;
    uint64_t part_bytes, peak = 0;
    if (device->ops->info(device)->host_reads || bytes == 0) {
        *peak_p = dj_poison_peak(slab, bytes, value);
        return DJ_OK;
    }
    dj_status_t status = make_part(bytes, &part_bytes, &part);
    for (uint64_t end = bytes; end && peak == 0 && status == DJ_OK;) {
        uint64_t n = end < part_bytes ? end : part_bytes;
        end -= n;
        status = device->ops->memory.copy_out(device, part, (const uint8_t *)slab + end, n);
        uint64_t found = status == DJ_OK ? dj_poison_peak(part, n, value) : 0;
        peak = found ? end + found : 0;
    }
    free(part);
    if (status == DJ_OK)
        *peak_p = peak;
    return status;
}
