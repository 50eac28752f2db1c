/* allocations.h - counts every allocation of this process while told to; include in one file.
 *
 * The allocator's entry points are defined here, in the program, so that libraries' calls are seen
 * as well. Under a sanitizer, which owns them, the count stays 0. */
#ifndef DJ_TESTS_GPU_ALLOCATIONS_H
#define DJ_TESTS_GPU_ALLOCATIONS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_bool allocations_watched;
static atomic_ulong allocations_count;

static inline void allocations_start(void)
{
    atomic_store(&allocations_count, 0);
    atomic_store(&allocations_watched, true);
}

static inline unsigned long allocations_stop(void)
{
    atomic_store(&allocations_watched, false);
    return atomic_load(&allocations_count);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ALLOCATIONS_ARE_SEEN 1

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *data, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static inline void allocations_note(void)
{
    if (atomic_load_explicit(&allocations_watched, memory_order_relaxed))
        atomic_fetch_add(&allocations_count, 1);
}

void *malloc(size_t size)
{
    allocations_note();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocations_note();
    return __libc_calloc(count, size);
}

void *realloc(void *data, size_t size)
{
    allocations_note();
    return __libc_realloc(data, size);
}

void *memalign(size_t alignment, size_t size)
{
    allocations_note();
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    allocations_note();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **data_p, size_t alignment, size_t size)
{
    allocations_note();
    *data_p = __libc_memalign(alignment, size);
    return *data_p ? 0 : 12;
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    allocations_note();
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}
#else
#define ALLOCATIONS_ARE_SEEN 0
#endif

#endif
