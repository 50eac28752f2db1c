/* place_quick.c - the quick mode: several greedy placements within a budget, the best one kept.
 *
 * First what an allocator would do: along time, and backwards, each place at the lowest gap among
 * those alive. That costs little and is at the bound for most programs. Where it is not, chains of
 * places that hand over are joined into rectangles (place_chain.h) and those that meet are listed
 * once. Then three ranks (length of life, size, area) are each tried in two ways: in their order,
 * each at its lowest free offset; and by floors, next the one that can rest lowest, like a stack
 * filled from below. Where nothing at all is to spare the trees of pack_full.c are asked for a
 * moment. What is left of the budget goes into moving whoever is on top to an earlier turn.
 *
 * The budget counts looks at places, about a nanosecond each, and grows with their number alone: a
 * plan stays a pure function, and no program can hold a rank in its planner. When it is spent, what
 * has no place yet is stacked on top. */
#include <stdlib.h>
#include <string.h>

#include "planner/pack_full.h"
#include "planner/place_chain.h"

#define BUDGET_BASE (1ull << 18)
#define BUDGET_EACH 128u
#define PADDING_PART 8u /* of the budget, against padding alone */
#define PAIRS_EACH 256u /* of places that meet, listed at most, for each place */
#define PAIRS_MAX (1u << 23)
#define FULL_MAX 1024u /* rectangles */
#define FULL_NODES 6000u
#define IMPROVE_ALONE 4096u /* places; above, moving one costs too much */

typedef struct used {
    uint64_t offset, end; /* units */
} used_t;

typedef struct quick {
    dj_place_t *places;
    uint32_t n;
    uint64_t base, best; /* bytes */
    uint64_t least,
        least_bare; /* no placement ends lower: padded, but for the top; and not padded */
    uint64_t work, budget;
    uint32_t *by_time;
    /* a sweep */
    uint32_t *order, *settled, n_settled;
    uint64_t *offsets;
    /* orders of chains */
    dj_chains_t chains;
    uint32_t *meets_first, *meets;
    used_t *near;
    uint64_t *floors;
    bool *placed;
    uint32_t *best_order, *heap, *rank;
} quick_t;

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
static bool is_done(const quick_t *q)
{
    return q->work >= q->budget || q->best <= q->least_bare ||
           (dj_place_align(q->best) <= q->least && q->work >= q->budget / PADDING_PART);
}

/* Sweeps along time: settled places are alive, ascending by offset. */

static bool range_is_free(quick_t *q, const dj_place_t *place, uint64_t offset)
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
static uint64_t lowest_offset(quick_t *q, const dj_place_t *place)
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
            at = dj_place_align(offset + other->bytes);
    }
    return heir < at ? heir : at;
}

static void settle(quick_t *q, uint32_t number, uint64_t offset)
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

static void forget(quick_t *q, const dj_place_t *now, bool forwards)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < q->n_settled; i++) {
        const dj_place_t *place = &q->places[q->settled[i]];
        if (forwards ? place->last >= now->from : place->from <= now->last)
            q->settled[kept++] = q->settled[i];
    }
    q->work += q->n_settled;
    q->n_settled = kept;
}

static void keep_offsets(quick_t *q, uint64_t end)
{
    if (end >= q->best)
        return;
    q->best = end;
    for (uint32_t i = 0; i < q->n; i++)
        q->places[i].offset = q->offsets[i];
}

static void sweep(quick_t *q, const uint32_t *order, bool forwards)
{
    uint64_t end = q->base;
    q->n_settled = 0;
    for (uint32_t i = 0; i < q->n; i++) {
        const dj_place_t *place = &q->places[order[i]];
        q->offsets[order[i]] = q->base;
        if (place->bytes == 0)
            continue;
        uint64_t offset = dj_place_align(end);
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

static void sweep_backwards(quick_t *q)
{
    memcpy(q->order, q->by_time, q->n * sizeof q->order[0]);
    qsort_r(q->order, q->n, sizeof q->order[0], by_end, q->places);
    sweep(q, q->order, false);
}

/* Orders of chains. */

/* Chains that meet, each seen from both; false: too many. `settled` holds those alive. */
static bool walk_meetings(quick_t *q, bool fill)
{
    uint32_t n_alive = 0;
    uint64_t pairs = 0, most = (uint64_t)q->chains.n * PAIRS_EACH + (1 << 16);
    for (uint32_t i = 0; i < q->chains.n; i++) {
        uint32_t kept = 0;
        for (uint32_t j = 0; j < n_alive; j++) {
            uint32_t other = q->settled[j];
            if (q->chains.list[other].last < q->chains.list[i].from)
                continue;
            q->settled[kept++] = other;
            if (fill) {
                q->meets[q->meets_first[i]++] = other;
                q->meets[q->meets_first[other]++] = i;
            } else {
                q->meets_first[i]++;
                q->meets_first[other]++;
            }
        }
        q->work += n_alive + 1;
        pairs += kept;
        n_alive = kept;
        q->settled[n_alive++] = i;
        if (pairs > most || pairs > PAIRS_MAX || q->work > q->budget)
            return false;
    }
    return true;
}

static bool list_meetings(quick_t *q)
{
    uint32_t n = q->chains.n, sum = 0;
    q->meets_first = calloc(n + 2ull, sizeof q->meets_first[0]);
    if (q->meets_first == NULL || !walk_meetings(q, false))
        return false;
    for (uint32_t i = 0; i <= n; i++) {
        uint32_t count = q->meets_first[i];
        q->meets_first[i] = sum;
        sum += count;
    }
    q->meets = malloc((sum + 1ull) * sizeof q->meets[0]);
    if (q->meets == NULL || !walk_meetings(q, true))
        return false;
    for (uint32_t i = n; i > 0; i--)
        q->meets_first[i] = q->meets_first[i - 1];
    q->meets_first[0] = 0;
    return true;
}

static int by_offset(const void *a, const void *b)
{
    return compare_u64(((const used_t *)a)->offset, ((const used_t *)b)->offset);
}

static void sort_near(quick_t *q, uint32_t n)
{
    if (n > 24) {
        qsort(q->near, n, sizeof q->near[0], by_offset);
        q->work += 8ull * n;
        return;
    }
    for (uint32_t i = 1; i < n; i++) {
        used_t used = q->near[i];
        uint32_t at = i;
        for (; at > 0 && q->near[at - 1].offset > used.offset; at--)
            q->near[at] = q->near[at - 1];
        q->near[at] = used;
        q->work += i - at + 1;
    }
}

static uint64_t lowest_gap(quick_t *q, uint32_t number)
{
    uint32_t n = 0;
    uint64_t at = 0, units = q->chains.list[number].units;
    for (uint32_t i = q->meets_first[number]; i < q->meets_first[number + 1]; i++) {
        uint32_t other = q->meets[i];
        if (q->placed[other])
            q->near[n++] = (used_t){q->chains.list[other].offset,
                                    q->chains.list[other].offset + q->chains.list[other].units};
    }
    q->work += q->meets_first[number + 1] - q->meets_first[number];
    sort_near(q, n);
    for (uint32_t i = 0; i < n && q->near[i].offset < at + units; i++)
        at = q->near[i].end > at ? q->near[i].end : at;
    return at;
}

/* False: the budget ended it. */
static bool place_in_order(quick_t *q, const uint32_t *order)
{
    memset(q->placed, 0, q->chains.n * sizeof q->placed[0]);
    for (uint32_t i = 0; i < q->chains.n; i++) {
        if (q->work > q->budget)
            return false;
        q->chains.list[order[i]].offset = lowest_gap(q, order[i]);
        q->placed[order[i]] = true;
    }
    return true;
}

static bool rests_lower(const quick_t *q, uint32_t a, uint32_t b)
{
    return q->floors[a] != q->floors[b] ? q->floors[a] < q->floors[b] : q->rank[a] < q->rank[b];
}

static void sink(quick_t *q, uint32_t n, uint32_t at)
{
    uint32_t number = q->heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        q->work++;
        if (child >= n)
            break;
        if (child + 1 < n && rests_lower(q, q->heap[child + 1], q->heap[child]))
            child++;
        if (!rests_lower(q, q->heap[child], number))
            break;
        q->heap[at] = q->heap[child];
        at = child;
    }
    q->heap[at] = number;
}

/* A heap by floors; a floor that rose since is found out when its chain comes to the top. */
static bool place_by_floors(quick_t *q, const uint32_t *order)
{
    uint32_t n = q->chains.n;
    for (uint32_t i = 0; i < n; i++) {
        q->rank[order[i]] = i;
        q->heap[i] = order[i]; /* all floors are 0: ascending by rank is a heap */
        q->floors[i] = 0;
        q->chains.list[i].offset = 0;
    }
    while (n > 0) {
        uint32_t number = q->heap[0];
        dj_chain_t *chain = &q->chains.list[number];
        if (q->work > q->budget)
            return false;
        if (q->floors[number] < chain->offset) { /* rose */
            q->floors[number] = chain->offset;
            sink(q, n, 0);
            continue;
        }
        uint64_t end = chain->offset + chain->units;
        q->heap[0] = q->heap[--n];
        if (n > 0)
            sink(q, n, 0);
        q->floors[number] = UINT64_MAX; /* placed */
        for (uint32_t i = q->meets_first[number]; i < q->meets_first[number + 1]; i++) {
            uint32_t other = q->meets[i];
            if (q->floors[other] != UINT64_MAX && q->chains.list[other].offset < end)
                q->chains.list[other].offset = end;
        }
        q->work += q->meets_first[number + 1] - q->meets_first[number];
    }
    return true;
}

/* Keeps the chains' offsets if they are better, or at least as good where asked. */
static bool keep_chains(quick_t *q, bool equal)
{
    uint64_t end = dj_chains_end(&q->chains, q->places, q->n, q->base);
    q->work += q->n;
    if (end > q->best || (end == q->best && !equal))
        return false;
    q->best = end;
    dj_chains_apply(&q->chains, q->places, q->n, q->base);
    return true;
}

static double length_of(const dj_chain_t *chain)
{
    return (double)(chain->last - chain->from) + 1;
}

static int by_length(const void *a, const void *b, void *context)
{
    const dj_chain_t *list = context;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    double x = length_of(&list[i]), y = length_of(&list[j]);
    int way = x != y ? (x > y ? -1 : 1) : compare_u64(list[j].units, list[i].units);
    return way != 0 ? way : compare_u64(i, j);
}

static int by_size(const void *a, const void *b, void *context)
{
    const dj_chain_t *list = context;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    int way = compare_u64(list[j].units, list[i].units);
    return way != 0 ? way : compare_u64(i, j);
}

static int by_area(const void *a, const void *b, void *context)
{
    const dj_chain_t *list = context;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    double x = length_of(&list[i]) * (double)list[i].units;
    double y = length_of(&list[j]) * (double)list[j].units;
    return x != y ? (x > y ? -1 : 1) : compare_u64(i, j);
}

static uint64_t sorting_work(uint32_t n)
{
    uint64_t work = 0;
    for (uint32_t i = n; i > 0; i /= 2)
        work += 4ull * n;
    return work;
}

static void try_ranks(quick_t *q)
{
    static int (*const ranks[])(const void *, const void *, void *) = {by_size, by_length, by_area};
    for (uint32_t i = 0; i < sizeof ranks / sizeof ranks[0] && !is_done(q); i++) {
        for (uint32_t j = 0; j < q->chains.n; j++)
            q->order[j] = j;
        qsort_r(q->order, q->chains.n, sizeof q->order[0], ranks[i], q->chains.list);
        q->work += sorting_work(q->chains.n);
        if (place_in_order(q, q->order) && keep_chains(q, i == 0))
            memcpy(q->best_order, q->order, q->chains.n * sizeof q->order[0]);
        if (!is_done(q) && place_by_floors(q, q->order) && keep_chains(q, false))
            memcpy(q->best_order, q->order, q->chains.n * sizeof q->order[0]);
    }
}

/* No place is to spare at any time: the orders of the stack are searched for a moment. */
static dj_status_t try_full(quick_t *q)
{
    dj_pack_limits_t limits = {.nodes = FULL_NODES};
    dj_pack_meter_t meter = {.limits = &limits};
    dj_pack_end_t end = DJ_PACK_ENDED;
    uint32_t n = q->chains.n;
    dj_rect_t *rects = malloc((n + 1ull) * sizeof rects[0]);
    uint64_t *offsets = malloc((n + 1ull) * sizeof offsets[0]);
    dj_status_t status = DJ_ERR_MEMORY;
    if (rects != NULL && offsets != NULL) {
        for (uint32_t i = 0; i < n; i++)
            rects[i] = (dj_rect_t){.lower = q->chains.list[i].from,
                                   .upper = q->chains.list[i].last + 1ull,
                                   .size = q->chains.list[i].units};
        status = dj_pack_full(rects, n, DJ_PACK_FULL_BRIEF, &meter, offsets, &end);
    }
    for (uint32_t i = 0; i < n && status == DJ_OK && end == DJ_PACK_FOUND; i++)
        q->chains.list[i].offset = offsets[i];
    if (status == DJ_OK && end == DJ_PACK_FOUND)
        keep_chains(q, false);
    free(rects);
    free(offsets);
    return status == DJ_OK ? status : dj_fail(status, "no memory to place %u tensors", n);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* Moves a chain that reaches the end to a random earlier turn. */
static bool promote_top(quick_t *q, uint64_t *state)
{
    for (uint32_t i = 0; i < q->n; i++) {
        uint32_t number = q->chains.of[i], turn = 0;
        if (number == DJ_CHAIN_NONE || q->places[i].offset + q->places[i].bytes != q->best)
            continue;
        while (q->order[turn] != number)
            turn++;
        if (turn == 0)
            continue;
        uint32_t earlier = (uint32_t)(next_random(state) % turn);
        memmove(q->order + earlier + 1, q->order + earlier, (turn - earlier) * sizeof q->order[0]);
        q->order[earlier] = number;
        q->work += q->n / 4;
        return true;
    }
    return false;
}

static void improve(quick_t *q)
{
    uint64_t state = q->n;
    while (!is_done(q) && q->n <= IMPROVE_ALONE) {
        memcpy(q->order, q->best_order, q->chains.n * sizeof q->order[0]);
        if (!promote_top(q, &state) || !place_in_order(q, q->order))
            break;
        if (keep_chains(q, true))
            memcpy(q->best_order, q->order, q->chains.n * sizeof q->order[0]);
    }
}

/* What the orders of chains need besides; one allocation. */
static bool allocate_orders(quick_t *q)
{
    uint64_t n = q->chains.n + 1ull;
    q->near = malloc(n * (sizeof q->near[0] + sizeof q->floors[0] + 3 * sizeof q->heap[0] +
                          sizeof q->placed[0]));
    if (q->near == NULL)
        return false;
    q->floors = (uint64_t *)(q->near + n);
    q->heap = (uint32_t *)(q->floors + n);
    q->rank = q->heap + n;
    q->best_order = q->rank + n;
    q->placed = (bool *)(q->best_order + n);
    for (uint32_t i = 0; i < q->chains.n; i++)
        q->best_order[i] = i;
    return true;
}

static dj_status_t try_chains(quick_t *q)
{
    uint64_t least, most;
    dj_status_t status = dj_chains_init(&q->chains, q->places, q->n, q->by_time);
    if (status == DJ_OK)
        status = dj_chains_alive(&q->chains, &least, &most);
    if (status != DJ_OK)
        return status;
    q->work += 8ull * q->n;
    if (least == most && q->chains.n <= FULL_MAX && q->chains.n > 0)
        status = try_full(q);
    if (status != DJ_OK || is_done(q))
        return status;
    if (!allocate_orders(q))
        return dj_fail(DJ_ERR_MEMORY, "no memory to place %u tensors", q->n);
    if (list_meetings(q)) {
        try_ranks(q);
        improve(q);
    }
    return DJ_OK;
}

static void sort_by_time(quick_t *q)
{
    bool sorted = true;
    for (uint32_t i = 0; i < q->n; i++) {
        q->by_time[i] = i;
        sorted = sorted && (i == 0 || by_begin(&q->by_time[i - 1], &q->by_time[i], q->places) < 0);
    }
    if (!sorted)
        qsort_r(q->by_time, q->n, sizeof q->by_time[0], by_begin, q->places);
}

static dj_status_t assign(quick_t *q)
{
    sort_by_time(q);
    sweep(q, q->by_time, true);
    if (!is_done(q))
        sweep_backwards(q);
    return is_done(q) ? DJ_OK : try_chains(q);
}

static dj_status_t find_least(quick_t *q)
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
    quick_t q = {.places = places, .n = n_places, .base = dj_place_align(base)};
    uint64_t numbers = n_places + 1ull;
    dj_status_t status = find_least(&q);
    if (status != DJ_OK)
        return status;
    q.best = UINT64_MAX / 2;
    q.budget = BUDGET_BASE + (uint64_t)BUDGET_EACH * n_places;
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
