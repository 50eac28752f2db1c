/* place.c - what a placement must hold, and the proof that it does. place_quick.c makes one. */
#include "planner/place.h"

#include <stdlib.h>
#include <string.h>

#include "planner/place_chain.h"

static int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int by_time(const void *a, const void *b, void *context)
{
    const dj_place_t *places = context;
    const dj_place_t *x = &places[*(const uint32_t *)a], *y = &places[*(const uint32_t *)b];
    int way = compare_u64(x->from, y->from);
    way = way != 0 ? way : compare_u64(x->first, y->first);
    return way != 0 ? way : compare_u64(y->bytes, x->bytes);
}

/* The proof walks through time with the ranges in use, ascending by offset: a newcomer is compared
 * with its neighbours alone, because those before it were proven disjoint. */
typedef struct prover {
    const dj_place_t *places;
    uint32_t *coming, *going; /* places by from, by last */
    uint32_t *used;           /* now alive, ascending by offset */
    uint32_t n_used;
} prover_t;

static int by_end(const void *a, const void *b, void *context)
{
    const dj_place_t *places = context;
    return compare_u64(places[*(const uint32_t *)a].last, places[*(const uint32_t *)b].last);
}

/* Index in `used` of the first range that begins at or above `offset`. */
static uint32_t find_used(const prover_t *p, uint64_t offset)
{
    uint32_t low = 0, high = p->n_used;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (p->places[p->used[middle]].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static dj_status_t fail_overlap(uint32_t a, uint32_t b)
{
    return dj_fail(DJ_ERR_CORRUPT, "places %u and %u share bytes while both are in use", a, b);
}

static dj_status_t prove_arrival(prover_t *p, uint32_t number)
{
    const dj_place_t *place = &p->places[number];
    uint32_t at = find_used(p, place->offset);
    if (at > 0) {
        const dj_place_t *below = &p->places[p->used[at - 1]];
        if (below->offset + below->bytes > place->offset)
            return fail_overlap(p->used[at - 1], number);
    }
    if (at < p->n_used && p->places[p->used[at]].offset < place->offset + place->bytes) {
        const dj_place_t *other = &p->places[p->used[at]];
        if (other->offset != place->offset || other->first >= place->first ||
            !dj_place_may_take_over(other, place))
            return fail_overlap(p->used[at], number);
        p->used[at] = number; /* the heir stands for both: it lives at least as long */
        return DJ_OK;
    }
    memmove(p->used + at + 1, p->used + at, (p->n_used - at) * sizeof p->used[0]);
    p->used[at] = number;
    p->n_used++;
    return DJ_OK;
}

static void remove_departed(prover_t *p, uint32_t number)
{
    uint32_t at = find_used(p, p->places[number].offset);
    if (at == p->n_used || p->used[at] != number)
        return; /* its heir stands there */
    p->n_used--;
    memmove(p->used + at, p->used + at + 1, (p->n_used - at) * sizeof p->used[0]);
}

static dj_status_t prove(prover_t *p, uint32_t n_places, uint64_t base)
{
    uint32_t gone = 0;
    for (uint32_t i = 0; i < n_places; i++)
        p->coming[i] = p->going[i] = i;
    qsort_r(p->coming, n_places, sizeof p->coming[0], by_time, (void *)p->places);
    qsort_r(p->going, n_places, sizeof p->going[0], by_end, (void *)p->places);
    for (uint32_t i = 0; i < n_places; i++) {
        const dj_place_t *place = &p->places[p->coming[i]];
        if (place->offset % DJ_ALIGN_BYTES != 0 || place->offset < base ||
            place->offset > UINT64_MAX / 2)
            return dj_fail(DJ_ERR_CORRUPT, "place %u at %llu", p->coming[i],
                           (unsigned long long)place->offset);
        if (place->bytes == 0)
            continue;
        while (p->places[p->going[gone]].last < place->from)
            remove_departed(p, p->going[gone++]);
        dj_status_t status = prove_arrival(p, p->coming[i]);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

dj_status_t dj_places_check(const dj_place_t *places, uint32_t n_places, uint64_t base)
{
    prover_t p = {.places = places};
    uint32_t *numbers = calloc(3 * (n_places + 1ull), sizeof numbers[0]);
    if (numbers == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to prove %u places", n_places);
    p.coming = numbers;
    p.going = numbers + n_places;
    p.used = numbers + 2ull * n_places;
    dj_status_t status = prove(&p, n_places, dj_align_up(base));
    free(numbers);
    return status;
}
