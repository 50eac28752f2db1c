/* tsan.c - linked into every program of the `tsan` preset: what the thread sanitizer has to be told.
 *
 * It does not see what OpenMP's threads order among themselves (libgomp is built without it), so what kernels
 * do there is left out; nor two waits by the monotonic clock (GCC 12), which here wait by the other one.
 *
 * UCX's hooks into the memory calls run while a thread ends, where the sanitizer knows it no more and crashes: the
 * preset sets UCX_MEM_MMAP_HOOK_MODE=none for its tests. */
#include <pthread.h>
#include <time.h>

#include "runtime/base/clock.h"

const char *__tsan_default_suppressions(void);
const char *__tsan_default_options(void);

const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libgomp.so.1\n"
           "race:omp_fn\n"
           "race:gpu/host/\n"
           "race:copy_payload\n" /* what a kernel has written leaves through a tunnel */
           "race:libuc\n";
}

const char *__tsan_default_options(void)
{
    return "history_size=4 die_after_fork=0"; /* tests fork, and some of their children have threads */
}

static struct timespec by_real_time(clockid_t clock, const struct timespec *until)
{
    struct timespec here, there;
    clock_gettime(clock, &here);
    clock_gettime(CLOCK_REALTIME, &there);
    int64_t ns = (int64_t)(until->tv_sec - here.tv_sec + there.tv_sec) * (int64_t)DJ_NS_PER_S + until->tv_nsec -
                 here.tv_nsec + there.tv_nsec;
    return (struct timespec){ns / (int64_t)DJ_NS_PER_S, ns % (int64_t)DJ_NS_PER_S};
}

int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until)
{
    struct timespec real = by_real_time(clock, until);
    return pthread_mutex_timedlock(mutex, &real);
}

int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock, const struct timespec *until)
{
    struct timespec real = by_real_time(clock, until);
    return pthread_timedjoin_np(thread, result, &real);
}
