/* route.h - which places to visit and in which order, so that neighbours are near.
 *
 * A path through `pick` of `n` places, each once, with the least sum of what the places and the
 * steps between neighbours cost. Exact: the dynamic program of Held and Karp (1962) over subsets,
 * one row of 16-bit sums a subset, for up to DJ_ROUTE_MAX places (2 ms for 16 of 16).
 *
 * What a set of places costs beyond the sum of its members is known to the caller alone (two GPUs
 * may want the same NIC): `surcharge` tells it, and sets are tried from the least bound up until no
 * bound is below the best found, or DJ_ROUTE_TRIES sets were tried. All sets of 9 places are tried
 * if need be. */
#ifndef DJ_LAUNCHER_ROUTE_H
#define DJ_LAUNCHER_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

enum {
    DJ_ROUTE_MAX = 16,
    DJ_ROUTE_TRIES = 128,
    DJ_ROUTE_COST_MAX = 400, /* of one place or step: sums stay below 2^15 */
};

typedef struct dj_route {
    uint32_t n, pick;
    uint16_t place[DJ_ROUTE_MAX];              /* costs */
    uint16_t step[DJ_ROUTE_MAX][DJ_ROUTE_MAX]; /* symmetric */
    /* NULL: none. Not negative. */
    uint32_t (*surcharge)(void *context, uint32_t places); /* a set, as bits */
    void *context;
} dj_route_t;

/* Of equals the one with the lowest numbers, in the order nearest to rising. *exact_p: proven.
 * DJ_ERR_MEMORY, DJ_ERR_INVALID (sizes). */
dj_status_t dj_route_find(const dj_route_t *route, uint32_t order[DJ_ROUTE_MAX], bool *exact_p);

#endif
