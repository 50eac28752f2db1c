/* place_rank.c - the quick mode's second half: rectangles in the order of a rank, or by floors;
 * place_quick.c tells how they belong together. */
#include <stdlib.h>
#include <string.h>

#include "planner/pack_full.h"
#include "planner/pack_search.h"
#include "planner/place_quick.h"

#define PAIRS_EACH 256u /* of places that meet, listed at most, for each place */
#define PAIRS_MAX (1u << 23)
#define FULL_MAX 1024u /* rectangles */
#define SEARCH_MAX 512u
#define FULL_NODES 6000u
#define IMPROVE_ALONE 4096u /* places; above, moving one costs too much */

static int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* Chains that meet, each seen from both; false: too many. `settled` holds those alive. */
static bool walk_meetings(dj_quick_t *q, bool fill)
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

static bool list_meetings(dj_quick_t *q)
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
    return compare_u64(((const dj_used_t *)a)->offset, ((const dj_used_t *)b)->offset);
}

static void sort_near(dj_quick_t *q, uint32_t n)
{
    if (n > 24) {
        qsort(q->near, n, sizeof q->near[0], by_offset);
        q->work += 8ull * n;
        return;
    }
    for (uint32_t i = 1; i < n; i++) {
        dj_used_t used = q->near[i];
        uint32_t at = i;
        for (; at > 0 && q->near[at - 1].offset > used.offset; at--)
            q->near[at] = q->near[at - 1];
        q->near[at] = used;
        q->work += i - at + 1;
    }
}

static uint64_t lowest_gap(dj_quick_t *q, uint32_t number)
{
    uint32_t n = 0;
    uint64_t at = 0, units = q->chains.list[number].units;
    for (uint32_t i = q->meets_first[number]; i < q->meets_first[number + 1]; i++) {
        uint32_t other = q->meets[i];
        if (q->placed[other])
            q->near[n++] = (dj_used_t){q->chains.list[other].offset,
                                       q->chains.list[other].offset + q->chains.list[other].units};
    }
    q->work += q->meets_first[number + 1] - q->meets_first[number];
    sort_near(q, n);
    for (uint32_t i = 0; i < n && q->near[i].offset < at + units; i++)
        at = q->near[i].end > at ? q->near[i].end : at;
    return at;
}

/* False: the budget ended it. */
static bool place_in_order(dj_quick_t *q, const uint32_t *order)
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

static bool rests_lower(const dj_quick_t *q, uint32_t a, uint32_t b)
{
    return q->floors[a] != q->floors[b] ? q->floors[a] < q->floors[b] : q->rank[a] < q->rank[b];
}

static void sink(dj_quick_t *q, uint32_t n, uint32_t at)
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
static bool place_by_floors(dj_quick_t *q, const uint32_t *order)
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

/* Keeps the chains' offsets if they are better. Returns their end. */
static uint64_t keep_chains(dj_quick_t *q)
{
    uint64_t end = dj_chains_end(&q->chains, q->places, q->n, q->base);
    q->work += q->n;
    if (end < q->best) {
        q->best = end;
        dj_chains_apply(&q->chains, q->places, q->n, q->base);
    }
    return end;
}

/* And the order that gave them, if no order did better. */
static void keep_order(dj_quick_t *q)
{
    uint64_t end = keep_chains(q);
    if (end > q->order_end)
        return;
    q->order_end = end;
    memcpy(q->best_order, q->order, q->chains.n * sizeof q->order[0]);
    for (uint32_t i = 0; i < q->chains.n; i++)
        q->order_offsets[i] = q->chains.list[i].offset;
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

static int by_crowd(const void *a, const void *b, void *context)
{
    const dj_chain_t *list = context;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    int way = compare_u64(list[j].crowd, list[i].crowd);
    return way != 0 ? way : by_length(a, b, context);
}

typedef int (*rank_t)(const void *, const void *, void *);

static uint64_t sorting_work(uint32_t n)
{
    uint64_t work = 0;
    for (uint32_t i = n; i > 0; i /= 2)
        work += 4ull * n;
    return work;
}

/* Fills q->order; false: the rank asks for too much. */
static bool rank_chains(dj_quick_t *q, rank_t rank)
{
    if (rank == by_crowd && !dj_chains_crowd(&q->chains, (q->budget - q->work) / 4))
        return false;
    for (uint32_t i = 0; i < q->chains.n; i++)
        q->order[i] = i;
    qsort_r(q->order, q->chains.n, sizeof q->order[0], rank, q->chains.list);
    q->work += sorting_work(q->chains.n);
    return true;
}

/* By floors first: that is cheap where many are alive at once. */
static void try_ranks(dj_quick_t *q)
{
    static const rank_t ranks[] = {by_crowd, by_size, by_length, by_area};
    enum { RANKS = sizeof ranks / sizeof ranks[0] };
    for (uint32_t i = 0; i < 2 * RANKS && !dj_quick_is_done(q); i++) {
        bool floors = i < RANKS;
        if (!rank_chains(q, ranks[i % RANKS]))
            continue;
        if (floors && place_by_floors(q, q->order))
            keep_chains(q);
        else if (!floors && place_in_order(q, q->order))
            keep_order(q);
    }
}

/* One of the exact mode's searches, for a moment, with the bound as capacity. */
static dj_status_t try_exact(dj_quick_t *q, bool full, uint64_t capacity)
{
    uint32_t n = q->chains.n;
    dj_pack_limits_t limits = {.nodes = full ? FULL_NODES : n + n / 2};
    dj_pack_meter_t meter = {.limits = &limits};
    dj_pack_end_t end = DJ_PACK_ENDED;
    dj_rect_t *rects = malloc((n + 1ull) * sizeof rects[0]);
    uint64_t *offsets = malloc((n + 1ull) * sizeof offsets[0]);
    dj_status_t status = DJ_ERR_MEMORY;
    if (rects != NULL && offsets != NULL) {
        for (uint32_t i = 0; i < n; i++)
            rects[i] = (dj_rect_t){.lower = q->chains.list[i].from,
                                   .upper = q->chains.list[i].last + 1ull,
                                   .size = q->chains.list[i].units};
        status = full ? dj_pack_full(rects, n, DJ_PACK_FULL_BRIEF, &meter, offsets, &end)
                      : dj_pack_search(rects, n, capacity, &meter, offsets, &end);
    }
    for (uint32_t i = 0; i < n && status == DJ_OK && end == DJ_PACK_FOUND; i++)
        q->chains.list[i].offset = offsets[i];
    if (status == DJ_OK && end == DJ_PACK_FOUND)
        keep_chains(q);
    free(rects);
    free(offsets);
    return status == DJ_OK ? status : dj_fail(status, "no memory to place %u tensors", n);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* Moves a chain that reaches the end of the best order to a random earlier turn. */
static bool promote_top(dj_quick_t *q, uint64_t *state)
{
    for (uint32_t i = 0; i < q->n; i++) {
        uint32_t number = q->chains.of[i], turn = 0;
        if (number == DJ_CHAIN_NONE ||
            q->base + q->order_offsets[number] * DJ_ALIGN_BYTES + q->places[i].bytes !=
                q->order_end)
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

static void improve(dj_quick_t *q)
{
    uint64_t state = q->n;
    while (!dj_quick_is_done(q) && q->n <= IMPROVE_ALONE && q->order_end != UINT64_MAX) {
        memcpy(q->order, q->best_order, q->chains.n * sizeof q->order[0]);
        if (!promote_top(q, &state) || !place_in_order(q, q->order))
            break;
        keep_order(q);
    }
}

/* What the orders of chains need besides; one allocation. */
static bool allocate_orders(dj_quick_t *q)
{
    uint64_t n = q->chains.n + 1ull;
    q->near = malloc(n * (sizeof q->near[0] + 2 * sizeof q->floors[0] + 3 * sizeof q->heap[0] +
                          sizeof q->placed[0]));
    if (q->near == NULL)
        return false;
    q->floors = (uint64_t *)(q->near + n);
    q->order_offsets = q->floors + n;
    q->order_end = UINT64_MAX;
    q->heap = (uint32_t *)(q->order_offsets + n);
    q->rank = q->heap + n;
    q->best_order = q->rank + n;
    q->placed = (bool *)(q->best_order + n);
    for (uint32_t i = 0; i < q->chains.n; i++)
        q->best_order[i] = i;
    return true;
}

dj_status_t dj_quick_try_chains(dj_quick_t *q)
{
    uint64_t least, most;
    dj_status_t status = dj_chains_init(&q->chains, q->places, q->n, q->by_time);
    if (status == DJ_OK)
        status = dj_chains_alive(&q->chains, &least, &most);
    if (status != DJ_OK)
        return status;
    q->work += 8ull * q->n;
    if (least == most && q->chains.n <= FULL_MAX && q->chains.n > 0)
        status = try_exact(q, true, most);
    if (status != DJ_OK || dj_quick_is_done(q))
        return status;
    if (!allocate_orders(q))
        return dj_fail(DJ_ERR_MEMORY, "no memory to place %u tensors", q->n);
    if (list_meetings(q)) {
        try_ranks(q);
        if (!dj_quick_is_done(q) && q->chains.n <= SEARCH_MAX)
            status = try_exact(q, false, most);
        improve(q);
    }
    return status;
}
