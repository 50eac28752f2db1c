/* seats.h - which supervisor minds which rank; kept by rank 0's supervisor alone.
 *
 * A server has a fixed number of ranks, and each is a seat. A supervisor (a member, known by a
 * random number) minds one run of neighbouring seats. What a member leaves behind stays together:
 * a supervisor that joins later takes such a run, or a part of it.
 *
 * Threads: one. Everything here is pure but for the memory of the table. */
#ifndef DJ_LAUNCHER_SEATS_H
#define DJ_LAUNCHER_SEATS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

typedef struct dj_seat {
    uint64_t member;      /* 0: nobody minds it */
    uint64_t last_member; /* who did before; 0: nobody ever did */
    uint32_t incarnation; /* the last one that was heard of */
    bool serves;
} dj_seat_t;

typedef struct dj_seats {
    uint32_t n;
    dj_seat_t *of_rank; /* rank 0, 1, ... */
} dj_seats_t;

/* How many ranks each of `n_tasks` supervisors minds, each alone on its node; the first one has
 * rank 0, which only coordinates, besides its workers. `capacity` holds the workers that each can
 * mind. asked 0: all of that, so `counts` are capacities (and one for the first). Else `asked`
 * ranks in all, spread evenly, the first tasks having one more: DJ_ERR_INVALID when a task cannot
 * mind its part, or would have none. */
dj_status_t dj_seats_split(uint32_t asked, uint32_t n_tasks, const uint32_t *capacity,
                            uint32_t *counts);

/* DJ_ERR_MEMORY. Ownership: dj_seats_fini(). */
dj_status_t dj_seats_init(dj_seats_t *seats, uint32_t n);
void dj_seats_fini(dj_seats_t *seats);

/* The member minds these seats now, for the first time or again: true when nobody else does or did
 * after it. */
bool dj_seats_take(dj_seats_t *seats, uint64_t member, uint32_t first, uint32_t count);
/* The first run of seats that nobody minds and one member left behind (or nobody ever had), at most
 * `capacity` of it (0: all). The member minds it now; incarnations are raised where there was one.
 * False: every seat is minded. */
bool dj_seats_join(dj_seats_t *seats, uint64_t member, uint32_t capacity, uint32_t *first_p,
                    uint32_t *count_p);
/* The member is gone; its seats wait for another one. Returns their number, the first in *first_p.
 */
uint32_t dj_seats_leave(dj_seats_t *seats, uint64_t member, uint32_t *first_p);
bool dj_seats_all_serve(const dj_seats_t *seats);

#endif
