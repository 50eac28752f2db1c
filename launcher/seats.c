/* seats.c - see seats.h. */
#include "launcher/seats.h"

#include <stdlib.h>

dj_status_t dj_seats_split(uint32_t asked, uint32_t n_tasks, const uint32_t *capacity,
                            uint32_t *counts)
{
    uint32_t workers = asked > 0 ? asked - 1 : 0;
    for (uint32_t i = 0; i < n_tasks; i++) {
        counts[i] = asked ? workers / n_tasks + (i < workers % n_tasks) : capacity[i];
        if (counts[i] > capacity[i])
            return dj_fail(DJ_ERR_INVALID,
                           "%u ranks are asked for: %u workers for task %u, whose node has devices "
                           "for %u; ask for fewer, or set --ranks-per-node",
                           asked, counts[i], i, capacity[i]);
        if (counts[i] == 0)
            return dj_fail(DJ_ERR_INVALID,
                           "%u ranks leave nothing to do for task %u of %u; ask for more ranks or "
                           "start fewer tasks",
                           asked, i, n_tasks);
    }
    counts[0]++;
    return DJ_OK;
}

dj_status_t dj_seats_init(dj_seats_t *seats, uint32_t n)
{
    *seats = (dj_seats_t){.n = n, .of_rank = calloc(n, sizeof *seats->of_rank)};
    return seats->of_rank ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory for %u ranks", n);
}

void dj_seats_fini(dj_seats_t *seats)
{
    free(seats->of_rank);
    *seats = (dj_seats_t){0};
}

bool dj_seats_take(dj_seats_t *seats, uint64_t member, uint32_t first, uint32_t count)
{
    if (count == 0 || first >= seats->n || count > seats->n - first)
        return false;
    for (uint32_t i = first; i < first + count; i++) {
        const dj_seat_t *seat = &seats->of_rank[i];
        uint64_t last = seat->member ? seat->member : seat->last_member;
        if (last && last != member)
            return false;
    }
    for (uint32_t i = first; i < first + count; i++)
        seats->of_rank[i].member = seats->of_rank[i].last_member = member;
    return true;
}

bool dj_seats_join(dj_seats_t *seats, uint64_t member, uint32_t capacity, uint32_t *first_p,
                    uint32_t *count_p)
{
    uint32_t first = 0, end;
    while (first < seats->n && seats->of_rank[first].member)
        first++;
    if (first == seats->n)
        return false;
    uint64_t last = seats->of_rank[first].last_member;
    for (end = first; end < seats->n && (!capacity || end - first < capacity); end++) {
        dj_seat_t *seat = &seats->of_rank[end];
        if (seat->member || seat->last_member != last)
            break;
        seat->incarnation += last != 0;
        seat->member = seat->last_member = member;
    }
    *first_p = first;
    *count_p = end - first;
    return true;
}

uint32_t dj_seats_leave(dj_seats_t *seats, uint64_t member, uint32_t *first_p)
{
    uint32_t count = 0;
    for (uint32_t i = seats->n; i-- > 0;) {
        dj_seat_t *seat = &seats->of_rank[i];
        if (seat->member != member)
            continue;
        seat->member = 0;
        seat->serves = false;
        *first_p = i;
        count++;
    }
    return count;
}

bool dj_seats_all_serve(const dj_seats_t *seats)
{
    for (uint32_t i = 0; i < seats->n; i++) {
        if (!seats->of_rank[i].serves)
            return false;
    }
    return true;
}
