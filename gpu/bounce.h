/* bounce.h - memory that bytes pass through on their way into or out of a device that the host does not read:
 * ingress, answers, moves, parts of a weight file.
 *
 * Buffers up to DJ_BOUNCE_PINNED_MAX come page-locked where the device offers it, and are kept for the next
 * taker, because making one costs more than most copies; in all at most `pinned_bytes`. What is beyond that,
 * larger, or of a device without pin(), is plain memory: every copy takes both.
 *
 * A pool may be NULL: then all is plain memory. That is the host device's.
 *
 * Where the network reads and writes device memory itself, bytes pass through the pool's slab instead: one range of
 * the device's memory, registered once, of which takers get runs of pages. What lies there is touched by
 * dj_bounce_fill() and dj_bounce_drain() alone, which know the one kind from the other.
 *
 * Threads: any. */
#ifndef DJ_GPU_BOUNCE_H
#define DJ_GPU_BOUNCE_H

#include "gpu/device.h"

#define DJ_BOUNCE_PINNED_MAX (16ull << 20)
#define DJ_BOUNCE_ALIGN 4096 /* of pinned ones; 64 of plain ones */
#define DJ_BOUNCE_SLACK (2 * DJ_BOUNCE_ALIGN) /* a pinned buffer's room beyond a power of two, for aligned reads */

typedef struct dj_bounce_pool dj_bounce_pool_t;

typedef struct dj_bounce {
    void *memory; /* NULL: none */
    uint64_t bytes;
    bool pinned;
    bool slab; /* device memory: not for host code */
} dj_bounce_t;

typedef struct dj_bounce_counters {
    uint64_t pinned_bytes, idle_bytes; /* page-locked now; of them, not taken */
} dj_bounce_counters_t;

dj_status_t dj_bounce_pool_create(dj_device_t *device, uint64_t pinned_bytes, dj_bounce_pool_t **pool_p);
void dj_bounce_pool_destroy(dj_bounce_pool_t *pool); /* everything was given back; NULL is ignored */

/* Contents undefined. DJ_ERR_MEMORY. */
dj_status_t dj_bounce_take(dj_bounce_pool_t *pool, uint64_t bytes, dj_bounce_t *bounce);
void dj_bounce_give(dj_bounce_pool_t *pool, dj_bounce_t *bounce); /* empties it; an empty one is ignored */
/* Makes the pool's slab, once, before anybody asks for a part of it; `bytes` is a multiple of 64 pages of 4096.
 * DJ_ERR_UNSUPPORTED, DJ_ERR_MEMORY: the pool goes on without. */
dj_status_t dj_bounce_slab_open(dj_bounce_pool_t *pool, uint64_t bytes, void **memory_p);
void dj_bounce_slab_close(dj_bounce_pool_t *pool); /* no part is taken */
/* A part of the slab; where that has no room left, as dj_bounce_take(). Contents undefined. */
dj_status_t dj_bounce_take_slab(dj_bounce_pool_t *pool, uint64_t bytes, dj_bounce_t *bounce);

/* Between device memory and `bounce`, from `at` on: complete on return. As copy_out() and copy_in() of the device. */
dj_status_t dj_bounce_fill(dj_device_t *device, const dj_bounce_t *bounce, uint64_t at, const void *source,
                           uint64_t bytes);
dj_status_t dj_bounce_drain(dj_device_t *device, void *target, const dj_bounce_t *bounce, uint64_t at, uint64_t bytes);

void dj_bounce_counters(dj_bounce_pool_t *pool, dj_bounce_counters_t *counters);

#endif
