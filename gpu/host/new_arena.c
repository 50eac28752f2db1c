/* new_arena.c - the allocation functions of C++, in C (new_arena.h).
 *
 * The names are those of the Itanium ABI for a 64-bit size_t. Every form is here, because a block
 * must be freed by the partner of what made it. Exceptions cannot be thrown from C: where the
 * standard wants bad_alloc, memory is out and the process stops, as it would with an uncaught one.
 */
#include "gpu/host/new_arena.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#define NEW_ALIGN 16u

static _Thread_local struct {
    uint8_t *base;
    size_t used, bytes;
    uint64_t live, served;
} arena;

static atomic_uint_fast64_t served, spilled, kept;

void dj_new_arena_open(void *memory, size_t bytes)
{
    arena.base = memory;
    arena.used = 0;
    arena.bytes = bytes;
    arena.live = arena.served = 0;
}

void dj_new_arena_close(void)
{
    arena.base = NULL;
    arena.bytes = 0;
    atomic_fetch_add_explicit(&served, arena.served, memory_order_relaxed);
    if (arena.live)
        atomic_fetch_add_explicit(&kept, arena.live, memory_order_relaxed);
}

void dj_new_arena_counters(dj_new_arena_counters_t *counters)
{
    *counters = (dj_new_arena_counters_t){.served = atomic_load(&served),
                                          .spilled = atomic_load(&spilled),
                                          .kept = atomic_load(&kept)};
}

static void *take(size_t bytes, size_t alignment)
{
    if (!arena.base)
        return NULL;
    size_t start = (arena.used + alignment - 1) & ~(alignment - 1);
    if (start > arena.bytes || bytes > arena.bytes - start) {
        atomic_fetch_add_explicit(&spilled, 1, memory_order_relaxed);
        return NULL;
    }
    arena.used = start + bytes;
    arena.live++;
    arena.served++;
    return arena.base + start;
}

static void *allocate(size_t bytes, size_t alignment)
{
    void *data = take(bytes, alignment);
    if (data)
        return data;
    if (alignment <= NEW_ALIGN)
        return malloc(bytes ? bytes : 1);
    return aligned_alloc(alignment, (bytes + alignment) & ~(alignment - 1));
}

static void *allocate_or_stop(size_t bytes, size_t alignment)
{
    void *data = allocate(bytes, alignment);
    if (!data)
        abort();
    return data;
}

static void deallocate(void *data)
{
    if (arena.base && (uint8_t *)data >= arena.base && (uint8_t *)data < arena.base + arena.bytes) {
        arena.live--;
        return;
    }
    free(data);
}

/* X(symbol, parameters, alignment, function) */
#define NEW_LIST(X)                                                                                \
    X(_Znwm, (size_t bytes), NEW_ALIGN, allocate_or_stop)                                          \
    X(_Znam, (size_t bytes), NEW_ALIGN, allocate_or_stop)                                          \
    X(_ZnwmRKSt9nothrow_t, (size_t bytes, const void *tag), NEW_ALIGN, allocate)                   \
    X(_ZnamRKSt9nothrow_t, (size_t bytes, const void *tag), NEW_ALIGN, allocate)                   \
    X(_ZnwmSt11align_val_t, (size_t bytes, size_t alignment), alignment, allocate_or_stop)         \
    X(_ZnamSt11align_val_t, (size_t bytes, size_t alignment), alignment, allocate_or_stop)         \
    X(_ZnwmSt11align_val_tRKSt9nothrow_t, (size_t bytes, size_t alignment, const void *tag),       \
      alignment, allocate)                                                                         \
    X(_ZnamSt11align_val_tRKSt9nothrow_t, (size_t bytes, size_t alignment, const void *tag),       \
      alignment, allocate)

#define X(symbol, parameters, alignment, function)                                                 \
    __attribute__((visibility("default"))) void *symbol parameters;                                \
    void *symbol parameters                                                                        \
    {                                                                                              \
        return function(bytes, alignment);                                                         \
    }
NEW_LIST(X)
#undef X

#define DELETE_LIST(X)                                                                             \
    X(_ZdlPv, (void *data))                                                                        \
    X(_ZdaPv, (void *data))                                                                        \
    X(_ZdlPvm, (void *data, size_t bytes))                                                         \
    X(_ZdaPvm, (void *data, size_t bytes))                                                         \
    X(_ZdlPvRKSt9nothrow_t, (void *data, const void *tag))                                         \
    X(_ZdaPvRKSt9nothrow_t, (void *data, const void *tag))                                         \
    X(_ZdlPvSt11align_val_t, (void *data, size_t alignment))                                       \
    X(_ZdaPvSt11align_val_t, (void *data, size_t alignment))                                       \
    X(_ZdlPvmSt11align_val_t, (void *data, size_t bytes, size_t alignment))                        \
    X(_ZdaPvmSt11align_val_t, (void *data, size_t bytes, size_t alignment))                        \
    X(_ZdlPvSt11align_val_tRKSt9nothrow_t, (void *data, size_t alignment, const void *tag))        \
    X(_ZdaPvSt11align_val_tRKSt9nothrow_t, (void *data, size_t alignment, const void *tag))

#define X(symbol, parameters)                                                                      \
    __attribute__((visibility("default"))) void symbol parameters;                                 \
    void symbol parameters                                                                         \
    {                                                                                              \
        deallocate(data);                                                                          \
    }
DELETE_LIST(X)
#undef X
