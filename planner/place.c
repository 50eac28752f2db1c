/* place.c - greedy placement in several orders, the best one kept and then improved.
 *
 * Each order takes the places one by one and puts each at the lowest offset where it meets nobody
 * of its time. By time is what an allocator would do and costs little; by size, and by size times
 * lifetime, are better where large and small mix. Where the best is above the most bytes alive at once,
 * the place on top is moved to an earlier turn, again and again within IMPROVE_WORK comparisons (a few
 * milliseconds); the choices are pseudo-random with a fixed seed, so a plan stays a pure function.
 * Quadratic orders are left out above QUADRATIC_MAX places, and the work of the first is bounded too: past WORK_MAX comparisons the rest
 * is stacked on top, so that no program can hold a rank in its planner. */
#include "planner/place.h"

#include <stdlib.h>
#include <string.h>

#define QUADRATIC_MAX 4096u
#define WORK_MAX (1ull << 28)
#define IMPROVE_WORK (1ull << 21)

typedef struct orderer {
    const dj_place_t *places;
    uint32_t *order;   /* in which places are taken */
    uint32_t *best;    /* the order that gave the offsets kept in `places` */
    uint32_t *settled; /* those with an offset, ascending by offset */
    uint32_t n_settled;
    uint64_t *offsets; /* of this attempt */
    uint64_t base, work;
    bool by_time; /* settled places of the past may be forgotten */
} orderer_t;

static uint64_t align_up(uint64_t value)
{
    return (value + DJ_ALIGN_BYTES - 1) & ~(uint64_t)(DJ_ALIGN_BYTES - 1);
}

static bool times_meet(const dj_place_t *a, const dj_place_t *b)
{
    return a->from <= b->last && b->from <= a->last;
}

/* May the later of two places whose times meet lie exactly where the earlier one lay? */
static bool may_take_over(const dj_place_t *a, const dj_place_t *b)
{
    const dj_place_t *early = a->first < b->first ? a : b, *late = early == a ? b : a;
    return early->last < late->first && early->hands_over && late->takes_over &&
           early->bytes == late->bytes;
}

static bool range_is_free(orderer_t *o, const dj_place_t *place, uint64_t offset)
{
    for (uint32_t i = 0; i < o->n_settled; i++) {
        uint32_t other = o->settled[i];
        o->work++;
        if (o->offsets[other] >= offset + place->bytes)
            return true;
        if (!times_meet(place, &o->places[other]) ||
            o->offsets[other] + o->places[other].bytes <= offset)
            continue;
        if (o->offsets[other] != offset || !may_take_over(place, &o->places[other]))
            return false;
    }
    return true;
}

/* The lowest offset where the place meets nobody of its time, or takes over an exact range. */
static uint64_t lowest_offset(orderer_t *o, const dj_place_t *place)
{
    uint64_t at = o->base, heir = UINT64_MAX;
    for (uint32_t i = 0; i < o->n_settled; i++) {
        const dj_place_t *other = &o->places[o->settled[i]];
        uint64_t offset = o->offsets[o->settled[i]];
        o->work++;
        if (!times_meet(place, other))
            continue;
        if (offset >= at + place->bytes)
            break;
        if (heir == UINT64_MAX && may_take_over(place, other) &&
            range_is_free(o, place, offset))
            heir = offset;
        if (offset + other->bytes > at)
            at = align_up(offset + other->bytes);
    }
    return heir < at ? heir : at;
}

static void settle(orderer_t *o, uint32_t number, uint64_t offset)
{
    uint32_t low = 0, high = o->n_settled;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (o->offsets[o->settled[middle]] <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    memmove(o->settled + low + 1, o->settled + low, (o->n_settled - low) * sizeof o->settled[0]);
    o->settled[low] = number;
    o->n_settled++;
    o->offsets[number] = offset;
}

static void forget_past(orderer_t *o, uint32_t now)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < o->n_settled; i++)
        if (o->places[o->settled[i]].last >= now)
            o->settled[kept++] = o->settled[i];
    o->work += o->n_settled;
    o->n_settled = kept;
}

/* One attempt; the highest end. */
static uint64_t attempt(orderer_t *o, uint32_t n_places)
{
    uint64_t end = o->base;
    o->n_settled = 0;
    o->work = 0;
    for (uint32_t i = 0; i < n_places; i++) {
        const dj_place_t *place = &o->places[o->order[i]];
        if (place->bytes == 0) {
            o->offsets[o->order[i]] = o->base;
            continue;
        }
        uint64_t offset = align_up(end);
        if (o->work < WORK_MAX) {
            if (o->by_time)
                forget_past(o, place->from);
            offset = lowest_offset(o, place);
            settle(o, o->order[i], offset);
        }
        o->offsets[o->order[i]] = offset;
        end = offset + place->bytes > end ? offset + place->bytes : end;
    }
    return end;
}

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

static int by_size(const void *a, const void *b, void *context)
{
    const dj_place_t *places = context;
    const dj_place_t *x = &places[*(const uint32_t *)a], *y = &places[*(const uint32_t *)b];
    int way = compare_u64(y->bytes, x->bytes);
    return way != 0 ? way : by_time(a, b, context);
}

static double area(const dj_place_t *place)
{
    return (double)place->bytes * (place->last - place->from + 1);
}

static int by_area(const void *a, const void *b, void *context)
{
    const dj_place_t *places = context;
    double x = area(&places[*(const uint32_t *)a]), y = area(&places[*(const uint32_t *)b]);
    return x != y ? (x > y ? -1 : 1) : by_time(a, b, context);
}

static int by_length(const void *a, const void *b, void *context)
{
    const dj_place_t *places = context;
    const dj_place_t *x = &places[*(const uint32_t *)a], *y = &places[*(const uint32_t *)b];
    int way = compare_u64(y->last - y->from, x->last - x->from);
    return way != 0 ? way : by_size(a, b, context);
}

static void keep(orderer_t *o, dj_place_t *places, uint32_t n_places)
{
    memcpy(o->best, o->order, n_places * sizeof o->order[0]);
    for (uint32_t i = 0; i < n_places; i++)
        places[i].offset = o->offsets[i];
}

static uint64_t try_orders(orderer_t *o, dj_place_t *places, uint32_t n_places)
{
    static int (*const orders[])(const void *, const void *, void *) = {by_time, by_size, by_area,
                                                                         by_length};
    uint32_t n_orders = n_places <= QUADRATIC_MAX ? sizeof orders / sizeof orders[0] : 1;
    uint64_t best = UINT64_MAX;
    for (uint32_t i = 0; i < n_orders; i++) {
        for (uint32_t j = 0; j < n_places; j++)
            o->order[j] = j;
        qsort_r(o->order, n_places, sizeof o->order[0], orders[i], places);
        o->by_time = i == 0;
        uint64_t end = attempt(o, n_places);
        if (end < best) {
            best = end;
            keep(o, places, n_places);
        }
    }
    return best;
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* Moves a place that reaches the end to a random earlier turn. */
static bool promote_top(orderer_t *o, const dj_place_t *places, uint32_t n_places, uint64_t end,
                        uint64_t *state)
{
    for (uint32_t i = 1; i < n_places; i++) {
        uint32_t number = o->order[i];
        if (places[number].offset + places[number].bytes != end)
            continue;
        uint32_t turn = (uint32_t)(next_random(state) % i);
        memmove(o->order + turn + 1, o->order + turn, (i - turn) * sizeof o->order[0]);
        o->order[turn] = number;
        return true;
    }
    return false;
}

static uint64_t improve(orderer_t *o, dj_place_t *places, uint32_t n_places, uint64_t end,
                        uint64_t least)
{
    uint64_t work = 0, state = n_places;
    o->by_time = false;
    while (align_up(end) > least && n_places <= QUADRATIC_MAX && work < IMPROVE_WORK) {
        memcpy(o->order, o->best, n_places * sizeof o->order[0]);
        if (!promote_top(o, places, n_places, end, &state))
            break;
        uint64_t found = attempt(o, n_places);
        work += o->work + n_places;
        if (found <= end) {
            end = found;
            keep(o, places, n_places);
        }
    }
    return end;
}

/* No placement ends lower, but for the padding of the place on top. */
static dj_status_t least_end(const dj_place_t *places, uint32_t n_places, uint64_t base,
                             uint64_t *least_p)
{
    uint32_t n_steps = 0;
    for (uint32_t i = 0; i < n_places; i++)
        n_steps = places[i].last >= n_steps ? places[i].last + 1 : n_steps;
    dj_status_t status = dj_places_alive(places, n_places, n_steps, DJ_ALIGN_BYTES, least_p);
    *least_p += base;
    return status;
}

dj_status_t dj_places_assign(dj_place_t *places, uint32_t n_places, uint64_t base, uint64_t *end_p)
{
    orderer_t o = {.places = places, .base = align_up(base)};
    uint64_t least = 0, numbers = n_places + 1ull;
    dj_status_t status = least_end(places, n_places, o.base, &least);
    if (status != DJ_OK)
        return status;
    o.order = calloc(3 * numbers, sizeof o.order[0]);
    o.offsets = calloc(numbers, sizeof o.offsets[0]);
    if (o.order != NULL && o.offsets != NULL) {
        o.settled = o.order + numbers;
        o.best = o.settled + numbers;
        uint64_t end = try_orders(&o, places, n_places);
        *end_p = improve(&o, places, n_places, end, least);
    } else {
        status = dj_fail(DJ_ERR_MEMORY, "no memory to place %u tensors", n_places);
    }
    free(o.order);
    free(o.offsets);
    return status;
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
            !may_take_over(other, place))
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
    dj_status_t status = prove(&p, n_places, align_up(base));
    free(numbers);
    return status;
}

dj_status_t dj_places_alive(const dj_place_t *places, uint32_t n_places, uint32_t n_steps,
                            uint64_t alignment, uint64_t *bytes_p)
{
    uint64_t *change = calloc(n_steps + 1ull, sizeof *change), alive = 0, most = 0;
    if (change == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u steps", n_steps);
    for (uint32_t i = 0; i < n_places; i++) {
        uint64_t bytes = (places[i].bytes + alignment - 1) / alignment * alignment;
        change[places[i].first] += bytes;
        change[places[i].last + 1] -= bytes; /* wraps; the sums do not */
    }
    for (uint32_t i = 0; i < n_steps; i++) {
        alive += change[i];
        most = alive > most ? alive : most;
    }
    free(change);
    *bytes_p = most;
    return DJ_OK;
}
