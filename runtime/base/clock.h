/* clock.h - monotonic time in nanoseconds. Deadlines are absolute values of this clock. */
#ifndef DJ_BASE_CLOCK_H
#define DJ_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define DJ_NS_PER_MS 1000000ull
#define DJ_NS_PER_S 1000000000ull

static inline uint64_t dj_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * DJ_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* The same clock as of the kernel's last tick (some milliseconds ago), at a fifth of the price: for
 * deadlines. */
static inline uint64_t dj_clock_coarse_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * DJ_NS_PER_S + (uint64_t)now.tv_nsec;
}

#endif
