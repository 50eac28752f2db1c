/* hard_intervals.h - programs of tests/planner/intervals.h whose first plan is above its bound today.
 *
 * Quick placement gets better, and seeds that were hard become easy: so tests of better plans look for theirs
 * with the planner itself, as a rank would plan them, instead of naming them. */
#ifndef DJ_TESTS_RUNTIME_HARD_INTERVALS_H
#define DJ_TESTS_RUNTIME_HARD_INTERVALS_H

#include "tests/planner/intervals.h"

enum { INTERVAL_ELEMENTS = INTERVAL_UNITS * 64 + INTERVALS_MAX }; /* of the program's input */

/* The first `count` seeds of random_intervals(seed, n, alive_max); how many there are below 200,000. */
uint32_t hard_intervals(uint32_t n, uint32_t alive_max, uint32_t count, uint64_t *seeds);

#endif
