/* route.c - least[set][i] is the least cost of a path through all of `set` that begins at i.
 *
 * A row has 16 sums whatever n is, absent places being endless, so that the inner loop is a fixed
 * minimum over 16 numbers, which the compiler does with vectors. */
#include "launcher/placement/route.h"

#include <stdlib.h>

#define ENDLESS 0x3fff

typedef int16_t row_t[DJ_ROUTE_MAX];

typedef struct search {
    const dj_route_t *route;
    row_t *least; /* of each set */
    row_t step[DJ_ROUTE_MAX];
} search_t;

static int16_t least_of(const row_t row)
{
    int16_t best = ENDLESS;
    for (uint32_t i = 0; i < DJ_ROUTE_MAX; i++)
        best = row[i] < best ? row[i] : best;
    return best;
}

static int16_t least_sum(const row_t a, const row_t b)
{
    row_t sum;
    for (uint32_t i = 0; i < DJ_ROUTE_MAX; i++)
        sum[i] = (int16_t)(a[i] + b[i]);
    return least_of(sum);
}

static void fill(search_t *search)
{
    const dj_route_t *route = search->route;
    for (uint32_t set = 1; set < 1u << route->n; set++) {
        int16_t *row = search->least[set];
        if ((uint32_t)__builtin_popcount(set) > route->pick)
            continue;
        for (uint32_t i = 0; i < DJ_ROUTE_MAX; i++)
            row[i] = ENDLESS;
        for (uint32_t left = set; left; left &= left - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(left), others = set & ~(1u << i);
            int16_t way = others ? least_sum(search->least[others], search->step[i]) : 0;
            row[i] = (int16_t)(way + route->place[i]);
        }
    }
}

typedef struct candidate {
    uint16_t set;
    int16_t least;
} candidate_t;

static uint32_t list_candidates(const search_t *search, candidate_t *list)
{
    const dj_route_t *route = search->route;
    uint32_t count = 0;
    for (uint32_t set = 1; set < 1u << route->n; set++) {
        if ((uint32_t)__builtin_popcount(set) == route->pick)
            list[count++] = (candidate_t){(uint16_t)set, least_of(search->least[set])};
    }
    return count;
}

/* The set of least cost, surcharges counted: bounds are looked at in rising order. */
static uint32_t choose(const dj_route_t *route, const candidate_t *list, uint32_t count,
                       bool *exact_p)
{
    uint32_t best_set = 0, tried = 0;
    int32_t best = INT32_MAX, bound = 0;
    while (bound < best && bound < ENDLESS) {
        int32_t next = ENDLESS;
        for (uint32_t i = 0; i < count && bound < best; i++) {
            int32_t least = list[i].least;
            if (least > bound && least < next)
                next = least;
            if (least != bound)
                continue;
            if (tried++ == DJ_ROUTE_TRIES) {
                *exact_p = false;
                return best_set;
            }
            uint32_t more = route->surcharge ? route->surcharge(route->context, list[i].set) : 0;
            if (least + (int32_t)more < best) {
                best = least + (int32_t)more;
                best_set = list[i].set;
            }
        }
        bound = next;
    }
    *exact_p = true;
    return best_set;
}

static void walk(const search_t *search, uint32_t set, uint32_t order[DJ_ROUTE_MAX])
{
    const dj_route_t *route = search->route;
    int32_t rest = least_of(search->least[set]);
    for (uint32_t at = 0, last = 0; set; at++) {
        uint32_t next = 0;
        for (; next < route->n; next++) {
            int32_t step = at ? route->step[last][next] : 0;
            if (set >> next & 1 && search->least[set][next] + step == rest)
                break;
        }
        order[at] = last = next;
        rest = search->least[set][next] - route->place[next];
        set &= ~(1u << next);
    }
}

dj_status_t dj_route_find(const dj_route_t *route, uint32_t order[DJ_ROUTE_MAX], bool *exact_p)
{
    search_t search = {.route = route};
    if (route->n < 1 || route->n > DJ_ROUTE_MAX || route->pick < 1 || route->pick > route->n)
        return dj_fail(DJ_ERR_INVALID, "a route takes %u of %u places", route->pick, route->n);
    search.least = malloc((sizeof search.least[0]) << route->n);
    candidate_t *list = malloc((sizeof list[0]) << route->n);
    if (!search.least || !list) {
        free(search.least);
        free(list);
        return dj_fail(DJ_ERR_MEMORY, "no memory to order %u places", route->n);
    }
    for (uint32_t i = 0; i < route->n; i++) {
        for (uint32_t k = 0; k < route->n; k++)
            search.step[i][k] = (int16_t)route->step[i][k];
    }
    fill(&search);
    uint32_t set = (1u << route->n) - 1;
    *exact_p = true;
    if (route->pick < route->n)
        set = choose(route, list, list_candidates(&search, list), exact_p);
    walk(&search, set, order);
    free(list);
    free(search.least);
    return DJ_OK;
}
