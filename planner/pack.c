/* pack.c - what a packing needs before and after the search.
 *
 * Rectangles that take no bytes or no time go to offset 0. The others fall into parts that no time
 * connects, each solved for itself: by pack_full.c where every column is full, else, and where that
 * did not come to an end, by pack_search.c. What a search found is proven before it is handed out.
 */
#include "planner/pack.h"

#include <stdlib.h>
#include <string.h>

#include "planner/pack_full.h"
#include "planner/pack_search.h"

typedef struct change {
    uint64_t time, size;
    int begins;
} change_t;

typedef struct packer {
    const dj_rect_t *rects;
    uint64_t capacity;
    dj_pack_meter_t *meter;
    uint32_t *numbers; /* of those that need a place, by begin */
    dj_rect_t *part;
    uint64_t *part_offsets;
    uint64_t *offsets;
} packer_t;

static dj_status_t check_input(const dj_rect_t *rects, uint32_t n, uint64_t capacity)
{
    if (n > DJ_PACK_RECTS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "%u rectangles; at most %u are packed", n, DJ_PACK_RECTS_MAX);
    if (capacity > DJ_PACK_SIZE_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a capacity of %llu; at most %llu",
                       (unsigned long long)capacity, (unsigned long long)DJ_PACK_SIZE_MAX);
    for (uint32_t i = 0; i < n; i++)
        if (rects[i].lower > rects[i].upper)
            return dj_fail(DJ_ERR_INVALID, "rectangle %u begins at %llu and ends at %llu", i,
                           (unsigned long long)rects[i].lower, (unsigned long long)rects[i].upper);
    return DJ_OK;
}

static int by_begin(const void *a, const void *b, void *context)
{
    const dj_rect_t *rects = context;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (rects[x].lower != rects[y].lower)
        return rects[x].lower < rects[y].lower ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int by_time(const void *a, const void *b)
{
    const change_t *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    return x->begins - y->begins; /* ends first */
}

/* The most and the least bytes alive between the first begin and the last end. The sum of sizes
 * saturates above every capacity. */
static dj_status_t measure(const dj_rect_t *rects, uint32_t n, uint64_t *least_p, uint64_t *most_p)
{
    change_t *changes = malloc(2 * (n + 1ull) * sizeof changes[0]);
    unsigned __int128 alive = 0, most = 0, least = (unsigned __int128)1 << 127;
    if (changes == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to measure %u rectangles", n);
    for (uint32_t i = 0; i < n; i++) {
        changes[2 * i] = (change_t){rects[i].lower, rects[i].size, 1};
        changes[2 * i + 1] = (change_t){rects[i].upper, rects[i].size, 0};
    }
    qsort(changes, 2ull * n, sizeof changes[0], by_time);
    for (uint32_t i = 0; i < 2 * n; i++) {
        alive = changes[i].begins ? alive + changes[i].size : alive - changes[i].size;
        if (i + 1 == 2 * n || changes[i + 1].time == changes[i].time)
            continue;
        most = alive > most ? alive : most;
        least = alive < least ? alive : least;
    }
    free(changes);
    *most_p = most > UINT64_MAX ? UINT64_MAX : (uint64_t)most;
    *least_p = least > UINT64_MAX ? UINT64_MAX : (uint64_t)least;
    return DJ_OK;
}

static dj_status_t solve_part(packer_t *p, uint32_t n, dj_pack_end_t *end_p)
{
    uint64_t least = 0, most = 0;
    dj_status_t status = measure(p->part, n, &least, &most);
    *end_p = most > p->capacity ? DJ_PACK_NONE : DJ_PACK_ENDED;
    if (status != DJ_OK || most > p->capacity || dj_pack_meter_spent(p->meter))
        return status;
    if (least == p->capacity && n <= DJ_PACK_FULL_MAX)
        status = dj_pack_full(p->part, n, DJ_PACK_FULL_LONG, p->meter, p->part_offsets, end_p);
    if (status == DJ_OK && *end_p == DJ_PACK_ENDED)
        status = dj_pack_search(p->part, n, p->capacity, p->meter, p->part_offsets, end_p);
    return status;
}

/* Solves the parts one after the other; the first that has no answer ends it. */
static dj_status_t solve_parts(packer_t *p, uint32_t n, dj_pack_end_t *end_p)
{
    dj_status_t status = DJ_OK;
    *end_p = DJ_PACK_FOUND;
    for (uint32_t first = 0, last; first < n && *end_p == DJ_PACK_FOUND && status == DJ_OK;
         first = last) {
        uint64_t end = 0;
        for (last = first; last < n; last++) {
            const dj_rect_t *rect = &p->rects[p->numbers[last]];
            if (last > first && rect->lower >= end)
                break;
            end = rect->upper > end ? rect->upper : end;
            p->part[last - first] = *rect;
        }
        status = solve_part(p, last - first, end_p);
        for (uint32_t i = first; i < last && *end_p == DJ_PACK_FOUND; i++)
            p->offsets[p->numbers[i]] = p->part_offsets[i - first];
    }
    return status;
}

static dj_status_t solve(packer_t *p, uint32_t n, dj_pack_end_t *end_p)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        p->offsets[i] = 0;
        if (p->rects[i].size > 0 && p->rects[i].lower < p->rects[i].upper)
            p->numbers[kept++] = i;
    }
    qsort_r(p->numbers, kept, sizeof p->numbers[0], by_begin, (void *)p->rects);
    dj_status_t status = solve_parts(p, kept, end_p);
    if (status == DJ_OK && *end_p == DJ_PACK_FOUND)
        status = dj_pack_check(p->rects, n, p->capacity, p->offsets);
    return status;
}

dj_status_t dj_pack_solve(const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                          const dj_pack_limits_t *limits, uint64_t *offsets,
                          dj_pack_result_t *result_p)
{
    dj_pack_meter_t meter = {.limits = limits, .random = limits->seed};
    packer_t p = {.rects = rects, .capacity = capacity, .meter = &meter};
    dj_pack_end_t end = DJ_PACK_ENDED;
    dj_status_t status = check_input(rects, n, capacity);
    if (status != DJ_OK)
        return status;
    p.numbers = malloc((n + 1ull) * sizeof p.numbers[0]);
    p.part = malloc((n + 1ull) * sizeof p.part[0]);
    p.part_offsets = malloc(2 * (n + 1ull) * sizeof p.part_offsets[0]);
    if (p.numbers == NULL || p.part == NULL || p.part_offsets == NULL) {
        status = dj_fail(DJ_ERR_MEMORY, "no memory to pack %u rectangles", n);
    } else {
        p.offsets = p.part_offsets + n + 1;
        status = solve(&p, n, &end);
    }
    if (status == DJ_OK) {
        if (end == DJ_PACK_FOUND)
            memcpy(offsets, p.offsets, n * sizeof offsets[0]);
        *result_p = (dj_pack_result_t){.end = end, .nodes = meter.nodes};
    }
    free(p.numbers);
    free(p.part);
    free(p.part_offsets);
    return status;
}
