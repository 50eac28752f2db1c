/* pack_event.c - see pack_event.h. Blocks are found where the sums of two sorted lists of subsets
 * meet. */
#include "planner/pack_event.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    MASK_BITS = DJ_BLOCK_BITS,
    BLOCKS_MAX = 2048,
    BLOCKS_PART = 8,    /* of subsets_max: as many blocks, up to BLOCKS_MAX */
    MEETINGS_EACH = 32, /* of subsets with one sum, looked at, for each subset */
};

typedef struct subset {
    uint64_t sum, mask;
} subset_t;

typedef struct lister {
    const dj_rect_t *rects;
    subset_t *ends, *starts;
    dj_block_t *blocks;
    uint32_t subsets_max, blocks_max;
    int most_pieces; /* of a block that is still taken */
    bool complete;
} lister_t;

/* Of pieces that are alike (by size and, where it matters, by end) the lower come first: twins[i]
 * is the one before i, or MASK_BITS. */
static void find_twins(const dj_rect_t *rects, const uint32_t *pieces, uint32_t n, uint8_t *twins)
{
    for (uint32_t i = 0; i < n; i++) {
        twins[i] = MASK_BITS;
        for (uint32_t j = 0; j < i; j++)
            if (rects[pieces[i]].size == rects[pieces[j]].size &&
                rects[pieces[i]].upper == rects[pieces[j]].upper)
                twins[i] = (uint8_t)j;
    }
}

/* Subsets in order of their number of pieces, up to the limit; the empty one is out[0]. */
static uint32_t list_subsets(lister_t *l, const uint32_t *pieces, uint32_t n_pieces,
                             const uint8_t *twins, subset_t *out)
{
    uint32_t n = 1;
    out[0] = (subset_t){0};
    for (uint32_t from = 0; from < n; from++) {
        subset_t set = out[from];
        uint32_t i = set.mask == 0 ? 0 : MASK_BITS - (uint32_t)__builtin_clzll(set.mask);
        for (; i < n_pieces; i++) {
            if (twins != NULL && twins[i] < MASK_BITS && (set.mask >> twins[i] & 1) == 0)
                continue;
            if (n == l->subsets_max) {
                l->complete = false;
                return n;
            }
            out[n++] =
                (subset_t){.sum = set.sum + l->rects[pieces[i]].size, .mask = set.mask | 1ull << i};
        }
    }
    return n;
}

static int by_sum(const void *a, const void *b)
{
    const subset_t *x = a, *y = b;
    if (x->sum != y->sum)
        return x->sum < y->sum ? -1 : 1;
    int more = __builtin_popcountll(x->mask) - __builtin_popcountll(y->mask);
    return more != 0 ? more : (x->mask < y->mask ? -1 : x->mask > y->mask);
}

static int pieces_of(const dj_block_t *block)
{
    return __builtin_popcountll(block->ends) + __builtin_popcountll(block->starts);
}

static int by_pieces(const void *a, const void *b)
{
    const dj_block_t *x = a, *y = b;
    int more = pieces_of(x) - pieces_of(y);
    if (more != 0)
        return more;
    return x->ends != y->ends ? (x->ends < y->ends ? -1 : 1)
                              : (x->starts < y->starts ? -1 : x->starts > y->starts);
}

/* Keeps the smallest: when there is no more room, the larger half goes, and what is no smaller than
 * what went is not taken any more. */
static uint32_t add_block(lister_t *l, uint32_t n, dj_block_t block)
{
    if (pieces_of(&block) > l->most_pieces) {
        l->complete = false;
        return n;
    }
    l->blocks[n++] = block;
    if (n < 2 * l->blocks_max)
        return n;
    qsort(l->blocks, n, sizeof l->blocks[0], by_pieces);
    l->most_pieces = pieces_of(&l->blocks[l->blocks_max]) - 1;
    l->complete = false;
    return l->blocks_max;
}

static uint32_t meet(lister_t *l, const dj_event_t *event, uint32_t n_ends, uint32_t n_starts)
{
    uint32_t n = 0, j = 1, all = event->n_ends + event->n_starts;
    uint32_t budget = MEETINGS_EACH * l->subsets_max;
    for (uint32_t i = 1; i < n_ends; i++) {
        while (j < n_starts && l->starts[j].sum < l->ends[i].sum)
            j++;
        for (uint32_t k = j; k < n_starts && l->starts[k].sum == l->ends[i].sum; k++) {
            dj_block_t block = {.ends = l->ends[i].mask, .starts = l->starts[k].mask};
            if (pieces_of(&block) == (int)all)
                continue;
            if (budget-- == 0) {
                l->complete = false;
                return n;
            }
            n = add_block(l, n, block);
        }
    }
    return n;
}

static dj_status_t list_blocks(lister_t *l, dj_event_t *event)
{
    uint8_t twins[MASK_BITS];
    uint32_t n = 0;
    l->complete = true;
    l->most_pieces = INT_MAX;
    if (event->n_ends > MASK_BITS || event->n_starts > MASK_BITS) {
        l->complete = false;
    } else if (event->n_ends > 1 && event->n_starts > 1) {
        find_twins(l->rects, event->starts, event->n_starts, twins);
        uint32_t n_ends = list_subsets(l, event->ends, event->n_ends, NULL, l->ends);
        uint32_t n_starts = list_subsets(l, event->starts, event->n_starts, twins, l->starts);
        qsort(l->ends, n_ends, sizeof l->ends[0], by_sum);
        qsort(l->starts, n_starts, sizeof l->starts[0], by_sum);
        n = meet(l, event, n_ends, n_starts);
        qsort(l->blocks, n, sizeof l->blocks[0], by_pieces);
        if (n > l->blocks_max) {
            n = l->blocks_max;
            l->complete = false;
        }
    }
    event->complete = l->complete;
    event->n_blocks = n;
    if (n == 0)
        return DJ_OK;
    event->blocks = malloc(n * sizeof event->blocks[0]);
    if (event->blocks == NULL)
        return DJ_ERR_MEMORY;
    memcpy(event->blocks, l->blocks, n * sizeof event->blocks[0]);
    return DJ_OK;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Index of a time that is in the list. */
static uint32_t find_time(const uint64_t *times, uint32_t n, uint64_t time)
{
    uint32_t low = 0, high = n;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (times[middle] <= time)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Sorts the rectangles' numbers into the events. `begins` of each rectangle: the event it begins
 * at. */
static void fill_events(dj_events_t *events, const dj_rect_t *rects, uint32_t n,
                        const uint64_t *times, uint32_t *begins)
{
    uint32_t *next = events->numbers, alive = 0;
    for (uint32_t i = 0; i < n; i++) {
        begins[i] = find_time(times, events->n, rects[i].lower);
        events->list[begins[i]].n_starts++;
        events->list[find_time(times, events->n, rects[i].upper)].n_ends++;
    }
    for (uint32_t i = 0; i < events->n; i++) {
        dj_event_t *event = &events->list[i];
        event->ends = next;
        event->starts = next + event->n_ends;
        next += event->n_ends + event->n_starts;
        alive += event->n_starts;
        events->most_alive = alive > events->most_alive ? alive : events->most_alive;
        alive -= event->n_ends;
        event->n_ends = event->n_starts = 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        dj_event_t *from = &events->list[begins[i]];
        dj_event_t *to = &events->list[find_time(times, events->n, rects[i].upper)];
        events->numbers[from->starts - events->numbers + from->n_starts++] = i;
        events->numbers[to->ends - events->numbers + to->n_ends++] = i;
        to->last_born = begins[i] > to->last_born ? begins[i] : to->last_born;
    }
}

static uint32_t list_times(const dj_rect_t *rects, uint32_t n, uint64_t *times)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        times[2 * i] = rects[i].lower;
        times[2 * i + 1] = rects[i].upper;
    }
    qsort(times, 2 * n, sizeof times[0], by_value);
    for (uint32_t i = 0; i < 2 * n; i++)
        if (i == 0 || times[i] != times[i - 1])
            times[kept++] = times[i];
    return kept;
}

static dj_status_t init_lists(dj_events_t *events, const dj_rect_t *rects, uint32_t subsets_max,
                              dj_pack_meter_t *meter)
{
    lister_t l = {.rects = rects, .subsets_max = subsets_max};
    l.blocks_max = subsets_max / BLOCKS_PART < BLOCKS_MAX ? subsets_max / BLOCKS_PART : BLOCKS_MAX;
    dj_status_t status = DJ_ERR_MEMORY;
    l.ends = malloc(2ull * subsets_max * sizeof l.ends[0]);
    l.blocks = malloc(2ull * l.blocks_max * sizeof l.blocks[0]);
    if (l.ends != NULL && l.blocks != NULL) {
        l.starts = l.ends + subsets_max;
        status = DJ_OK;
    }
    for (uint32_t i = 1; i + 1 < events->n && status == DJ_OK && !dj_pack_meter_spent(meter); i++)
        status = list_blocks(&l, &events->list[i]);
    free(l.ends);
    free(l.blocks);
    return status;
}

dj_status_t dj_events_init(dj_events_t *events, const dj_rect_t *rects, uint32_t n,
                           uint32_t subsets_max, dj_pack_meter_t *meter)
{
    dj_status_t status = DJ_ERR_MEMORY;
    *events = (dj_events_t){0};
    uint64_t *times = malloc(2 * (n + 1ull) * sizeof times[0]);
    uint32_t *begins = malloc((n + 1ull) * sizeof begins[0]);
    if (times != NULL && begins != NULL) {
        events->n = list_times(rects, n, times);
        events->list = calloc(events->n + 1ull, sizeof events->list[0]);
        events->numbers = malloc(2 * (n + 1ull) * sizeof events->numbers[0]);
    }
    if (events->list != NULL && events->numbers != NULL) {
        fill_events(events, rects, n, times, begins);
        status = init_lists(events, rects, subsets_max, meter);
    }
    free(times);
    free(begins);
    return status == DJ_OK ? DJ_OK : dj_fail(status, "no memory for %u rectangles", n);
}

void dj_events_fini(dj_events_t *events)
{
    for (uint32_t i = 0; events->list != NULL && i < events->n; i++)
        free(events->list[i].blocks);
    free(events->list);
    free(events->numbers);
    *events = (dj_events_t){0};
}
