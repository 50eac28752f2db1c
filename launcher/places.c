/* places.c - see places.h. */
#include "launcher/places.h"

#include <stdlib.h>

dj_status_t dj_places_split(uint32_t asked, uint32_t n_tasks, const uint32_t *capacity,
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

dj_status_t dj_places_init(dj_places_t *places, uint32_t n)
{
    *places = (dj_places_t){.n = n, .seats = calloc(n, sizeof *places->seats)};
    return places->seats ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory for %u ranks", n);
}

void dj_places_fini(dj_places_t *places)
{
    free(places->seats);
    *places = (dj_places_t){0};
}

bool dj_places_take(dj_places_t *places, uint64_t member, uint32_t first, uint32_t count)
{
    if (count == 0 || first >= places->n || count > places->n - first)
        return false;
    for (uint32_t i = first; i < first + count; i++) {
        const dj_seat_t *seat = &places->seats[i];
        uint64_t last = seat->member ? seat->member : seat->last_member;
        if (last && last != member)
            return false;
    }
    for (uint32_t i = first; i < first + count; i++)
        places->seats[i].member = places->seats[i].last_member = member;
    return true;
}

bool dj_places_join(dj_places_t *places, uint64_t member, uint32_t capacity, uint32_t *first_p,
                    uint32_t *count_p)
{
    uint32_t first = 0, end;
    while (first < places->n && places->seats[first].member)
        first++;
    if (first == places->n)
        return false;
    uint64_t last = places->seats[first].last_member;
    for (end = first; end < places->n && (!capacity || end - first < capacity); end++) {
        dj_seat_t *seat = &places->seats[end];
        if (seat->member || seat->last_member != last)
            break;
        seat->incarnation += last != 0;
        seat->member = seat->last_member = member;
    }
    *first_p = first;
    *count_p = end - first;
    return true;
}

uint32_t dj_places_leave(dj_places_t *places, uint64_t member, uint32_t *first_p)
{
    uint32_t count = 0;
    for (uint32_t i = places->n; i-- > 0;) {
        dj_seat_t *seat = &places->seats[i];
        if (seat->member != member)
            continue;
        seat->member = 0;
        seat->serves = false;
        *first_p = i;
        count++;
    }
    return count;
}

bool dj_places_all_serve(const dj_places_t *places)
{
    for (uint32_t i = 0; i < places->n; i++) {
        if (!places->seats[i].serves)
            return false;
    }
    return true;
}
