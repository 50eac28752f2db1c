/* intervals.h - programs whose tensors live as long as a test wants, for layouts that are hard to find.
 *
 * A tensor is made by `exp` of a part of the one input, and dies where its first element is added to a
 * running sum. So a program is a list of makings and deaths, and its places are those tensors, besides
 * the sums of one element. This file makes the list; each test records it in its own way. */
#ifndef DJ_TESTS_PLANNER_INTERVALS_H
#define DJ_TESTS_PLANNER_INTERVALS_H

#include <stdbool.h>
#include <stdint.h>

enum { INTERVALS_MAX = 64, INTERVAL_UNITS = 64 }; /* of 256 bytes */

/* The next thing that happens: tensor `number` of so many units is made, or dies. */
typedef struct interval_step {
    uint32_t units; /* 0: a death */
    uint32_t number;
} interval_step_t;

/* The same numbers on every machine, from `seed` on. */
static inline uint32_t interval_random(uint64_t *seed, uint32_t limit)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)((*seed >> 16) % limit);
}

/* At most `alive_max` tensors at once; `n` are made. steps has room for 2 n. */
static inline uint32_t random_intervals(uint64_t seed, uint32_t n, uint32_t alive_max,
                                        interval_step_t *steps)
{
    uint32_t alive[INTERVALS_MAX], n_alive = 0, made = 0, count = 0;
    seed = seed * 2654435761u + 1;
    while (made < n || n_alive > 0) {
        bool room = made < n && n_alive < alive_max;
        if (room && (n_alive == 0 || interval_random(&seed, 2) == 0)) {
            alive[n_alive++] = made;
            steps[count++] = (interval_step_t){1 + interval_random(&seed, INTERVAL_UNITS), made++};
        } else {
            uint32_t victim = interval_random(&seed, n_alive);
            steps[count++] = (interval_step_t){0, alive[victim]};
            alive[victim] = alive[--n_alive];
        }
    }
    return count;
}

#endif
