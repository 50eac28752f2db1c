/* place_quick.c - the quick mode: several greedy placements within a budget, the best one kept.
 *
 * First what an allocator would do: along time, and backwards, each place at the lowest gap among
 * those alive. That costs little and is at the bound for most programs. Where it is not, chains of
 * places that hand over are joined into rectangles (place_chain.h) and those that meet are listed
 * once. Then four ranks (the most crowded step, size, length of life, area) are each tried in two
 * ways: by floors, next the one that can rest lowest, as a stack is filled from below; and in their
 * order, each at its lowest free offset. The exact mode is asked for a moment: its trees before the
 * ranks where no byte is to spare, one dive of its search after them elsewhere. What is left of the
 * budget goes into moving whoever is on top to an earlier turn.
 *
 * The budget counts looks at places, about a nanosecond each, and grows with their number alone: a
 * plan stays a pure function, and no program can hold a rank in its planner. When it is spent, what
 * has no place yet is stacked on top. */
#include "planner/place_quick.h"

#include <stdlib.h>
#include <string.h>

#define BUDGET_BASE (1ull << 18)
#define BUDGET_EACH 128u
/* The first sweep has its own: it should come to its end for all programs but an adversary's. */
#define SWEEP_BASE (1ull << 20)
#define SWEEP_EACH 256u
#define FORGET_LEAST 8u
#define PADDING_PART 2u /* of the budget, against padding alone */

static int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int by_begin(const void *a, const void *b, void *context)
{
    const dj_place_t *places = context;
    const dj_place_t *x = &places[*(const uint32_t *)a], *y = &places[*(const uint32_t *)b];
    int way = compare_u64(x->from, y->from);
    way = way != 0 ? way : compare_u64(x->first, y->first);
    way = way != 0 ? way : compare_u64(y->bytes, x->bytes);
    return way != 0 ? way : compare_u64(*(const uint32_t *)a, *(const uint32_t *)b);
}

static int by_end(const void *a, const void *b, void *context)
{
    const dj_place_t *places = context;
    const dj_place_t *x = &places[*(const uint32_t *)a], *y = &places[*(const uint32_t *)b];
    int way = compare_u64(y->last, x->last);
    way = way != 0 ? way : compare_u64(y->bytes, x->bytes);
    return way != 0 ? way : compare_u64(*(const uint32_t *)a, *(const uint32_t *)b);
}

/* At the bound in aligned bytes only the padding on top can still be saved: worth a few more tries.
 */
bool dj_quick_is_done(const dj_quick_t *q)
{
    return q->work >= q->budget || q->best <= q->least_bare ||
           (dj_align_up(q->best) <= q->least && q->work >= q->padding_until);
}

/* Sweeps along time: settled places are alive, ascending by offset. */

static bool range_is_free(dj_quick_t *q, const dj_place_t *place, uint64_t offset)
{
    for (uint32_t i = 0; i < q->n_settled; i++) {
        uint32_t other = q->settled[i];
        q->work++;
        if (q->offsets[other] >= offset + place->bytes)
            return true;
        if (!dj_places_meet(place, &q->places[other]) ||
            q->offsets[other] + q->places[other].bytes <= offset)
            continue;
        if (q->offsets[other] != offset || !dj_place_may_take_over(place, &q->places[other]))
            return false;
    }
    return true;
}

/* The lowest offset where the place meets nobody of its time, or takes over an exact range. */
static uint64_t lowest_offset(dj_quick_t *q, const dj_place_t *place)
{
    uint64_t at = q->base, heir = UINT64_MAX;
    for (uint32_t i = 0; i < q->n_settled; i++) {
        const dj_place_t *other = &q->places[q->settled[i]];
        uint64_t offset = q->offsets[q->settled[i]];
        q->work++;
        if (!dj_places_meet(place, other))
            continue;
        if (offset >= at + place->bytes)
            break;
        if (heir == UINT64_MAX && dj_place_may_take_over(place, other) &&
            range_is_free(q, place, offset))
            heir = offset;
        if (offset + other->bytes > at)
            at = dj_align_up(offset + other->bytes);
    }
    return heir < at ? heir : at;
}

static void settle(dj_quick_t *q, uint32_t number, uint64_t offset)
{
    uint32_t low = 0, high = q->n_settled;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (q->offsets[q->settled[middle]] <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    memmove(q->settled + low + 1, q->settled + low, (q->n_settled - low) * sizeof q->settled[0]);
    q->settled[low] = number;
    q->n_settled++;
    q->work += (q->n_settled - low) / 8;
}

/* The dead are left among the settled, where they do no harm, until they may be as many as those
 * alive. */
static void forget(dj_quick_t *q, const dj_place_t *now, bool forwards)
{
    uint32_t kept = 0;
    if (q->n_settled < q->forget_at)
        return;
    for (uint32_t i = 0; i < q->n_settled; i++) {
        const dj_place_t *place = &q->places[q->settled[i]];
        if (forwards ? place->last >= now->from : place->from <= now->last)
            q->settled[kept++] = q->settled[i];
    }
    q->work += q->n_settled;
    q->n_settled = kept;
    q->forget_at = 2 * kept + FORGET_LEAST;
}

static void keep_offsets(dj_quick_t *q, uint64_t end)
{
    if (end >= q->best)
        return;
    q->best = end;
    for (uint32_t i = 0; i < q->n; i++)
        q->places[i].offset = q->offsets[i];
}

static void sweep(dj_quick_t *q, const uint32_t *order, bool forwards)
{
    uint64_t end = q->base;
    q->n_settled = 0;
    q->forget_at = FORGET_LEAST;
    for (uint32_t i = 0; i < q->n; i++) {
        const dj_place_t *place = &q->places[order[i]];
        q->offsets[order[i]] = q->base;
        if (place->bytes == 0)
            continue;
        uint64_t offset = dj_align_up(end);
        if (q->work < q->budget) {
            forget(q, place, forwards);
            offset = lowest_offset(q, place);
            q->offsets[order[i]] = offset;
            settle(q, order[i], offset);
        }
        q->offsets[order[i]] = offset;
        end = offset + place->bytes > end ? offset + place->bytes : end;
    }
    keep_offsets(q, end);
}

static void sweep_backwards(dj_quick_t *q)
{
    memcpy(q->order, q->by_time, q->n * sizeof q->order[0]);
    qsort_r(q->order, q->n, sizeof q->order[0], by_end, q->places);
    sweep(q, q->order, false);
}

static void sort_by_time(dj_quick_t *q)
{
    bool sorted = true;
    for (uint32_t i = 0; i < q->n; i++) {
        q->by_time[i] = i;
        sorted = sorted && (i == 0 || by_begin(&q->by_time[i - 1], &q->by_time[i], q->places) < 0);
    }
    if (!sorted)
        qsort_r(q->by_time, q->n, sizeof q->by_time[0], by_begin, q->places);
}

static dj_status_t assign(dj_quick_t *q)
{
    sort_by_time(q);
    q->budget = SWEEP_BASE + (uint64_t)SWEEP_EACH * q->n;
    sweep(q, q->by_time, true);
    uint64_t budget = BUDGET_BASE + (uint64_t)BUDGET_EACH * q->n;
    q->budget = q->work + budget;
    q->padding_until = q->work + budget / PADDING_PART;
    if (!dj_quick_is_done(q))
        sweep_backwards(q);
    return dj_quick_is_done(q) ? DJ_OK : dj_quick_try_chains(q);
}

static dj_status_t find_least(dj_quick_t *q)
{
    uint32_t n_steps = 0;
    for (uint32_t i = 0; i < q->n; i++)
        n_steps = q->places[i].last >= n_steps ? q->places[i].last + 1 : n_steps;
    dj_status_t status = dj_places_alive(q->places, q->n, n_steps, DJ_ALIGN_BYTES, &q->least);
    if (status == DJ_OK)
        status = dj_places_alive(q->places, q->n, n_steps, 1, &q->least_bare);
    q->least += q->base;
    q->least_bare += q->base;
    return status;
}

dj_status_t dj_places_assign(dj_place_t *places, uint32_t n_places, uint64_t base, uint64_t *end_p)
{
    dj_quick_t q = {.places = places, .n = n_places, .base = dj_align_up(base)};
    uint64_t numbers = n_places + 1ull;
    dj_status_t status = find_least(&q);
    if (status != DJ_OK)
        return status;
    q.best = UINT64_MAX / 2;
    q.by_time = calloc(3 * numbers, sizeof q.by_time[0]);
    q.offsets = calloc(numbers, sizeof q.offsets[0]);
    if (q.by_time != NULL && q.offsets != NULL) {
        q.order = q.by_time + numbers;
        q.settled = q.order + numbers;
        status = assign(&q);
    } else {
        status = dj_fail(DJ_ERR_MEMORY, "no memory to place %u tensors", n_places);
    }
    if (status == DJ_OK)
        *end_p = q.best;
    free(q.by_time);
    free(q.offsets);
    free(q.meets_first);
    free(q.meets);
    free(q.near);
    dj_chains_fini(&q.chains);
    return status;
}
