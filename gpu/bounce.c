/* bounce.c - page-locked buffers by powers of two, plain memory for the rest, and a slab of the device's memory in
 * SLAB_PAGES pages, a bit each (bounce.h). */
#include "gpu/bounce.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CLASS_MIN_BYTES 4096ull
#define CLASSES 13u /* 4 KiB to 16 MiB */
#define SLAB_PAGES 64u
_Static_assert(CLASS_MIN_BYTES << (CLASSES - 1) == DJ_BOUNCE_PINNED_MAX, "the largest class");

/* At the start of an idle buffer. */
typedef struct idle {
    struct idle *next;
    uint64_t bytes;
} idle_t;

struct dj_bounce_pool {
    dj_device_t *device;
    uint64_t limit_bytes;
    pthread_mutex_t lock;
    idle_t *idle[CLASSES];
    dj_bounce_counters_t counters;
    uint8_t *slab; /* NULL: none */
    uint64_t slab_bytes, slab_taken; /* a bit each page */
};

static uint64_t class_bytes(uint32_t class)
{
    return (CLASS_MIN_BYTES << class) + DJ_BOUNCE_SLACK;
}

/* CLASSES: none is large enough. */
static uint32_t class_of(uint64_t bytes)
{
    uint32_t class = 0;
    while (class < CLASSES && class_bytes(class) < bytes)
        class++;
    return class;
}

dj_status_t dj_bounce_pool_create(dj_device_t *device, uint64_t pinned_bytes, dj_bounce_pool_t **pool_p)
{
    dj_bounce_pool_t *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a pool of buffers");
    if (pthread_mutex_init(&pool->lock, NULL) != 0) {
        free(pool);
        return dj_fail(DJ_ERR_SYSTEM, "a pool of buffers: cannot make a lock");
    }
    pool->device = device;
    pool->limit_bytes = device->ops->memory.pin ? pinned_bytes : 0;
    *pool_p = pool;
    return DJ_OK;
}

/* Under the lock: from the pool onto a list. */
static void drop_idle(dj_bounce_pool_t *pool, uint32_t class, idle_t **dropped_p)
{
    idle_t *buffer = pool->idle[class];
    pool->idle[class] = buffer->next;
    pool->counters.pinned_bytes -= class_bytes(class);
    pool->counters.idle_bytes -= class_bytes(class);
    buffer->bytes = class_bytes(class);
    buffer->next = *dropped_p;
    *dropped_p = buffer;
}

/* Not under the lock: a driver may wait for the GPU to be idle. */
static void unpin_all(dj_bounce_pool_t *pool, idle_t *dropped)
{
    while (dropped) {
        idle_t *next = dropped->next;
        pool->device->ops->memory.unpin(pool->device, dropped, dropped->bytes);
        dropped = next;
    }
}

void dj_bounce_pool_destroy(dj_bounce_pool_t *pool)
{
    if (!pool)
        return;
    idle_t *dropped = NULL;
    for (uint32_t class = 0; class < CLASSES; class++)
        while (pool->idle[class])
            drop_idle(pool, class, &dropped);
    unpin_all(pool, dropped);
    dj_bounce_slab_close(pool);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* Under the lock: counts one more buffer of the class; idle ones of others make room. */
static bool charge(dj_bounce_pool_t *pool, uint32_t class, idle_t **dropped_p)
{
    uint64_t bytes = class_bytes(class);
    if (bytes > pool->limit_bytes)
        return false;
    for (uint32_t other = CLASSES; other-- > 0;)
        while (pool->idle[other] && pool->counters.pinned_bytes > pool->limit_bytes - bytes)
            drop_idle(pool, other, dropped_p);
    if (pool->counters.pinned_bytes > pool->limit_bytes - bytes)
        return false;
    pool->counters.pinned_bytes += bytes;
    return true;
}

static bool take_pinned(dj_bounce_pool_t *pool, uint32_t class, void **memory_p)
{
    pthread_mutex_lock(&pool->lock);
    idle_t *buffer = pool->idle[class], *dropped = NULL;
    bool charged = false;
    if (buffer) {
        pool->idle[class] = buffer->next;
        pool->counters.idle_bytes -= class_bytes(class);
    } else {
        charged = charge(pool, class, &dropped);
    }
    pthread_mutex_unlock(&pool->lock);
    unpin_all(pool, dropped);
    *memory_p = buffer;
    if (buffer || !charged)
        return buffer != NULL;
    if (pool->device->ops->memory.pin(pool->device, class_bytes(class), memory_p) == DJ_OK)
        return true;
    pthread_mutex_lock(&pool->lock);
    pool->counters.pinned_bytes -= class_bytes(class);
    pthread_mutex_unlock(&pool->lock);
    return false;
}

dj_status_t dj_bounce_take(dj_bounce_pool_t *pool, uint64_t bytes, dj_bounce_t *bounce)
{
    uint32_t class = pool ? class_of(bytes) : CLASSES;
    dj_bounce_t made = {.bytes = bytes};
    made.pinned = class < CLASSES && take_pinned(pool, class, &made.memory);
    if (!made.pinned && bytes <= DJ_TENSOR_BYTES_MAX)
        made.memory = aligned_alloc(64, (bytes + 63 + !bytes) & ~63ull);
    if (!made.memory)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %llu bytes on their way", (unsigned long long)bytes);
    *bounce = made;
    return DJ_OK;
}

/* ---- the slab ---- */

dj_status_t dj_bounce_slab_open(dj_bounce_pool_t *pool, uint64_t bytes, void **memory_p)
{
    dj_device_t *device = pool->device;
    void *memory = NULL;
    if (!device->ops->memory.slab_make)
        return dj_fail(DJ_ERR_UNSUPPORTED, "the device has no memory to show the network");
    dj_status_t status = device->ops->memory.slab_make(device, bytes, &memory);
    if (status != DJ_OK)
        return status;
    pthread_mutex_lock(&pool->lock);
    pool->slab = memory;
    pool->slab_bytes = bytes;
    pthread_mutex_unlock(&pool->lock);
    *memory_p = memory;
    return DJ_OK;
}

void dj_bounce_slab_close(dj_bounce_pool_t *pool)
{
    pthread_mutex_lock(&pool->lock);
    void *memory = pool->slab;
    pool->slab = NULL;
    pthread_mutex_unlock(&pool->lock);
    if (memory)
        pool->device->ops->memory.slab_drop(pool->device, memory, pool->slab_bytes);
}

/* The bits of a run of pages at the slab's beginning; 0: none is so long. */
static uint64_t run_of(const dj_bounce_pool_t *pool, uint64_t bytes)
{
    uint64_t page_bytes = pool->slab_bytes / SLAB_PAGES;
    if (bytes == 0 || bytes > pool->slab_bytes)
        return 0;
    return UINT64_MAX >> (SLAB_PAGES - (bytes + page_bytes - 1) / page_bytes);
}

/* Under the lock. NULL: no room. */
static void *take_run(dj_bounce_pool_t *pool, uint64_t bytes)
{
    uint64_t run = pool->slab ? run_of(pool, bytes) : 0;
    for (uint32_t page = 0; run; page++) {
        if (!(pool->slab_taken & run)) {
            pool->slab_taken |= run;
            return pool->slab + page * (pool->slab_bytes / SLAB_PAGES);
        }
        run = run >> (SLAB_PAGES - 1) ? 0 : run << 1;
    }
    return NULL;
}

dj_status_t dj_bounce_take_slab(dj_bounce_pool_t *pool, uint64_t bytes, dj_bounce_t *bounce)
{
    pthread_mutex_lock(&pool->lock);
    void *memory = take_run(pool, bytes);
    pthread_mutex_unlock(&pool->lock);
    if (!memory)
        return dj_bounce_take(pool, bytes, bounce);
    *bounce = (dj_bounce_t){.memory = memory, .bytes = bytes, .slab = true};
    return DJ_OK;
}

static void give_run(dj_bounce_pool_t *pool, const dj_bounce_t *bounce)
{
    pthread_mutex_lock(&pool->lock);
    uint64_t page = (uint64_t)((uint8_t *)bounce->memory - pool->slab) / (pool->slab_bytes / SLAB_PAGES);
    pool->slab_taken &= ~(run_of(pool, bounce->bytes) << page);
    pthread_mutex_unlock(&pool->lock);
}

dj_status_t dj_bounce_fill(dj_device_t *device, const dj_bounce_t *bounce, uint64_t at, const void *source,
                           uint64_t bytes)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    void *target = (uint8_t *)bounce->memory + at;
    return bounce->slab ? memory->copy(device, target, source, bytes) : memory->copy_out(device, target, source, bytes);
}

dj_status_t dj_bounce_drain(dj_device_t *device, void *target, const dj_bounce_t *bounce, uint64_t at, uint64_t bytes)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    const void *source = (const uint8_t *)bounce->memory + at;
    return bounce->slab ? memory->copy(device, target, source, bytes) : memory->copy_in(device, target, source, bytes);
}

/* ---- back ---- */

void dj_bounce_give(dj_bounce_pool_t *pool, dj_bounce_t *bounce)
{
    if (!bounce->memory)
        return;
    if (bounce->slab) {
        give_run(pool, bounce);
    } else if (bounce->pinned) {
        uint32_t class = class_of(bounce->bytes);
        idle_t *buffer = bounce->memory;
        pthread_mutex_lock(&pool->lock);
        buffer->next = pool->idle[class];
        pool->idle[class] = buffer;
        pool->counters.idle_bytes += class_bytes(class);
        pthread_mutex_unlock(&pool->lock);
    } else {
        free(bounce->memory);
    }
    *bounce = (dj_bounce_t){0};
}

void dj_bounce_counters(dj_bounce_pool_t *pool, dj_bounce_counters_t *counters)
{
    pthread_mutex_lock(&pool->lock);
    *counters = pool->counters;
    pthread_mutex_unlock(&pool->lock);
}
