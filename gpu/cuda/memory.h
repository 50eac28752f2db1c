/* memory.h - what copies, transport, telemetry and tests ask of the device's memory beyond device.h.
 *
 * Threads: any. */
#ifndef DJ_GPU_CUDA_MEMORY_H
#define DJ_GPU_CUDA_MEMORY_H

#include "gpu/device.h"

typedef struct dj_cuda_memory_counters {
    uint64_t reserved_bytes; /* address space of all ranges */
    uint64_t mapped_bytes;   /* pages behind it */
    uint64_t held_bytes;     /* of mapped: decommitted, but waiting for memory to cut their chunk */
    uint64_t chunks, ranges;
} dj_cuda_memory_counters_t;
void dj_cuda_memory_counters(dj_device_t *device, dj_cuda_memory_counters_t *counters);

/* Bytes from `address` to the end of the mapped chunk that holds it; 0 where nothing is mapped. One transfer (a copy,
 * a registration, an export) must not reach beyond. */
uint64_t dj_cuda_memory_chunk_end(dj_device_t *device, const void *address);

/* As dj_device_memory_t says. (memory.c) */
dj_status_t dj_cuda_memory_reserve(dj_device_t *device, uint64_t bytes, void **base_p);
dj_status_t dj_cuda_memory_commit(dj_device_t *device, void *base, uint64_t bytes);
void dj_cuda_memory_decommit(dj_device_t *device, void *base, uint64_t bytes);
dj_status_t dj_cuda_memory_seal(dj_device_t *device, void *base, uint64_t bytes, bool sealed);
void dj_cuda_memory_release(dj_device_t *device, void *base, uint64_t bytes);
dj_status_t dj_cuda_memory_mirror(dj_device_t *device, void *window, void *base, uint64_t bytes);

/* The same. (copies.c) */
dj_status_t dj_cuda_copies_in(dj_device_t *device, void *target, const void *host, uint64_t bytes);
dj_status_t dj_cuda_copies_out(dj_device_t *device, void *host, const void *source, uint64_t bytes);
dj_status_t dj_cuda_copies_between(dj_device_t *device, void *target, const void *source, uint64_t bytes);
dj_status_t dj_cuda_copies_fill(dj_device_t *device, void *target, uint8_t value, uint64_t bytes);
dj_status_t dj_cuda_copies_pin(dj_device_t *device, uint64_t bytes, void **memory_p);
void dj_cuda_copies_unpin(dj_device_t *device, void *memory, uint64_t bytes);
dj_status_t dj_cuda_copies_start(dj_device_t *device, void *target, const void *host, uint64_t bytes,
                                 uint64_t *ticket_p);
dj_status_t dj_cuda_copies_finish(dj_device_t *device, uint64_t ticket);

/* The same. (slab.c) */
dj_status_t dj_cuda_slab_make(dj_device_t *device, uint64_t bytes, void **memory_p);
void dj_cuda_slab_drop(dj_device_t *device, void *memory, uint64_t bytes);

/* For the tables that hold them all. */
#define DJ_CUDA_MEMORY_OPS                                                                         \
    {                                                                                              \
        .reserve = dj_cuda_memory_reserve, .commit = dj_cuda_memory_commit,                        \
        .decommit = dj_cuda_memory_decommit, .seal = dj_cuda_memory_seal,                          \
        .release = dj_cuda_memory_release, .mirror = dj_cuda_memory_mirror,                        \
        .copy_in = dj_cuda_copies_in, .copy_out = dj_cuda_copies_out,                              \
        .copy = dj_cuda_copies_between,                                                            \
        .fill = dj_cuda_copies_fill, .pin = dj_cuda_copies_pin, .unpin = dj_cuda_copies_unpin,     \
        .copy_in_start = dj_cuda_copies_start, .copy_in_finish = dj_cuda_copies_finish,            \
        .slab_make = dj_cuda_slab_make, .slab_drop = dj_cuda_slab_drop,                            \
    }

#endif
