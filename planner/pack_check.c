/* pack_check.c - the proof of a packing: time is walked with the ranges in use, ascending by
 * offset, so a newcomer is compared with its two neighbours alone. */
#include <stdlib.h>
#include <string.h>

#include "planner/pack.h"

typedef struct change {
    uint64_t time;
    uint32_t number;
    int begins;
} change_t;

static int by_time(const void *a, const void *b)
{
    const change_t *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    return x->begins - y->begins; /* ends first */
}

/* Index of the first range in use at or above `offset`. */
static uint32_t find_used(const uint32_t *used, uint32_t n_used, const uint64_t *offsets,
                          uint64_t offset)
{
    uint32_t low = 0, high = n_used;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (offsets[used[middle]] < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static dj_status_t walk(const dj_rect_t *rects, const change_t *changes, uint32_t n_changes,
                        const uint64_t *offsets, uint32_t *used)
{
    uint32_t n_used = 0;
    for (uint32_t i = 0; i < n_changes; i++) {
        uint32_t number = changes[i].number;
        uint32_t at = find_used(used, n_used, offsets, offsets[number]), other = number;
        if (!changes[i].begins) {
            n_used--;
            memmove(used + at, used + at + 1, (n_used - at) * sizeof used[0]);
            continue;
        }
        if (at < n_used && offsets[used[at]] - offsets[number] < rects[number].size)
            other = used[at];
        if (at > 0 && offsets[number] - offsets[used[at - 1]] < rects[used[at - 1]].size)
            other = used[at - 1];
        if (other != number)
            return dj_fail(DJ_ERR_CORRUPT, "rectangles %u and %u share bytes at %llu", other,
                           number, (unsigned long long)changes[i].time);
        memmove(used + at + 1, used + at, (n_used - at) * sizeof used[0]);
        used[at] = number;
        n_used++;
    }
    return DJ_OK;
}

dj_status_t dj_pack_check(const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                          const uint64_t *offsets)
{
    uint32_t n_changes = 0;
    for (uint32_t i = 0; i < n; i++)
        if (rects[i].size > capacity || offsets[i] > capacity - rects[i].size)
            return dj_fail(DJ_ERR_CORRUPT, "rectangle %u of %llu at %llu ends above %llu", i,
                           (unsigned long long)rects[i].size, (unsigned long long)offsets[i],
                           (unsigned long long)capacity);
    change_t *changes = malloc(2 * (n + 1ull) * sizeof changes[0]);
    uint32_t *used = malloc((n + 1ull) * sizeof used[0]);
    dj_status_t status = DJ_ERR_MEMORY;
    if (changes != NULL && used != NULL) {
        for (uint32_t i = 0; i < n; i++) {
            if (rects[i].size == 0 || rects[i].lower >= rects[i].upper)
                continue;
            changes[n_changes++] = (change_t){rects[i].lower, i, 1};
            changes[n_changes++] = (change_t){rects[i].upper, i, 0};
        }
        qsort(changes, n_changes, sizeof changes[0], by_time);
        status = walk(rects, changes, n_changes, offsets, used);
    } else {
        dj_fail(status, "no memory to prove %u rectangles", n);
    }
    free(changes);
    free(used);
    return status;
}
