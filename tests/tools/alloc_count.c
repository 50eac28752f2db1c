/* alloc_count.c - counts a process's allocations, to prove that a replay makes none.
 *
 * Preloaded into a rank (LD_PRELOAD=liballoc_count.so, DJINN_POISON=1). The rank reads dj_alloc_count()
 * on the device thread before and after each replay and fails the request if it moved.
 *
 * Every thread is counted except those that are known to serve messages meanwhile: threads named in
 * `exempt`, and the first thread of a rank, which is its progress thread. A thread that nobody named
 * counts: a false alarm is seen, a false silence is not. Workers of an OpenMP team inherit the name of
 * the thread that made them, so those of the device thread are counted with it.
 *
 * A name can be given at any time, so it is asked for at each allocation: a system call, which is the
 * price of the preload and the reason that a rank never loads it by itself.
 *
 * The real functions are glibc's own entry points, since dlsym() itself may allocate. What libc maps for
 * its own heap is behind malloc and is counted there. */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *old, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);

__attribute__((visibility("default"))) uint64_t dj_alloc_count(void);

static const char *const exempt[] = {"dj-control", "dj-progress", "dj-probe", "dj-upkeep",
                                     "dj-search", "async"};
static const char progress_thread[] = "djinn-rank";

static _Atomic uint64_t allocations;

static bool is_exempt(void)
{
    char name[16];
    if (prctl(PR_GET_NAME, name) != 0)
        return false;
    for (size_t i = 0; i < sizeof(exempt) / sizeof(exempt[0]); i++)
        if (strcmp(name, exempt[i]) == 0)
            return true;
    return strcmp(name, progress_thread) == 0 && syscall(SYS_gettid) == getpid();
}

static void count(void)
{
    int kept = errno;
    if (!is_exempt())
        atomic_fetch_add(&allocations, 1);
    errno = kept;
}

uint64_t dj_alloc_count(void)
{
    return atomic_load(&allocations);
}

void *malloc(size_t bytes)
{
    count();
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    count();
    return __libc_calloc(n, bytes);
}

void *realloc(void *old, size_t bytes)
{
    count();
    return __libc_realloc(old, bytes);
}

void *memalign(size_t alignment, size_t bytes)
{
    count();
    return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

void *valloc(size_t bytes)
{
    return memalign((size_t)sysconf(_SC_PAGESIZE), bytes);
}

int posix_memalign(void **memory_p, size_t alignment, size_t bytes)
{
    if (alignment % sizeof(void *) || !alignment || alignment & (alignment - 1))
        return EINVAL;
    void *memory = memalign(alignment, bytes);
    if (!memory)
        return ENOMEM;
    *memory_p = memory;
    return 0;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    count();
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return mmap(at, bytes, protection, flags, fd, offset);
}

void *mremap(void *old, size_t old_bytes, size_t bytes, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    void *at = flags & MREMAP_FIXED ? va_arg(more, void *) : NULL;
    va_end(more);
    count();
    return (void *)syscall(SYS_mremap, old, old_bytes, bytes, flags, at);
}
