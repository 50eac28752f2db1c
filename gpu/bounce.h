/* bounce.h - host memory that bytes pass through on their way into or out of a device that the host does not
 * read: ingress, answers, moves, parts of a weight file.
 *
 * Buffers up to DJ_BOUNCE_PINNED_MAX come page-locked where the device offers it, and are kept for the next
 * taker, because making one costs more than most copies; in all at most `pinned_bytes`. What is beyond that,
 * larger, or of a device without pin(), is plain memory: every copy takes both.
 *
 * A pool may be NULL: then all is plain memory. That is the host device's.
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
} dj_bounce_t;

typedef struct dj_bounce_counters {
    uint64_t pinned_bytes, idle_bytes; /* page-locked now; of them, not taken */
} dj_bounce_counters_t;

dj_status_t dj_bounce_pool_create(dj_device_t *device, uint64_t pinned_bytes, dj_bounce_pool_t **pool_p);
void dj_bounce_pool_destroy(dj_bounce_pool_t *pool); /* everything was given back; NULL is ignored */

/* Contents undefined. DJ_ERR_MEMORY. */
dj_status_t dj_bounce_take(dj_bounce_pool_t *pool, uint64_t bytes, dj_bounce_t *bounce);
void dj_bounce_give(dj_bounce_pool_t *pool, dj_bounce_t *bounce); /* empties it; an empty one is ignored */
void dj_bounce_counters(dj_bounce_pool_t *pool, dj_bounce_counters_t *counters);

#endif
