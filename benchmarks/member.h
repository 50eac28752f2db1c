/* member.h - a member of a group of processes that do collectives over comm/group.h, for the tests
 * of it. */
#ifndef DJ_BENCHMARKS_MEMBER_H
#define DJ_BENCHMARKS_MEMBER_H

#include "benchmarks/frame.h"
#include "comm/group.h"

typedef struct dj_member {
    dj_comm_t *comm;
    dj_group_t *group;
    struct dj_member_address *addresses; /* of all, by rank */
    dj_endpoint_t **endpoints;           /* made when the group first reaches for one */
    uint8_t *data;
} dj_member_t;

/* bench->own becomes a dj_member_t with bench->options.max_bytes of data. */
djinn_status_t dj_member_open(dj_bench_t *bench);
void dj_member_close(dj_bench_t *bench);
/* Progress while other processes are waited for. */
void dj_member_idle(void *bench);
/* When a collective that begins now has failed. */
uint64_t dj_member_deadline_ns(void);

#endif
