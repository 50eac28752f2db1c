/* group.h - collectives for control: broadcast, barrier and gather down a binomial tree of active messages.
 *
 * A group is n members, 0..n-1, each a process with a dj_comm_t. The group owns no connections: it asks its
 * owner for the endpoint of a member (`reach`) when it first needs one, and the owner hands it every GROUP
 * message that its comm receives (dj_group_message()). All members take part in the same collectives in the
 * same order; each call gets the next round number, and messages of an older round are dropped.
 *
 * Large payloads travel in parts, so that a member passes the first on while the rest arrives.
 *
 * A missing member is no reason to hang: who cannot be reached, dies, or stays silent beyond the deadline is
 * skipped with its subtree re-hung on its parent where it can be, else counted as missing. The collective
 * then ends with DJ_ERR_PEER_DIED or DJ_ERR_DEADLINE at members who know of it, with the number and the
 * first missing member in the sentence, and the members that are left agree on the next round.
 *
 * Ownership: buffers are the caller's until the call returns or the operation is done. Threads: the comm's
 * owner alone. */
#ifndef DJ_COMM_GROUP_H
#define DJ_COMM_GROUP_H

#include "comm/endpoint.h"

typedef struct dj_group dj_group_t;

typedef enum dj_group_kind {
    DJ_GROUP_BROADCAST = 1, /* root's bytes to all */
    DJ_GROUP_BARRIER = 2,   /* nobody leaves before all have come */
    DJ_GROUP_GATHER = 3,    /* each member's bytes, of one size, side by side at the root */
} dj_group_kind_t;

typedef struct dj_group_options {
    dj_comm_t *comm;
    uint32_t members, me;
    /* The endpoint of a member: DJ_OK, DJ_IN_PROGRESS (not yet: asked again), else it is missing. */
    dj_status_t (*reach)(void *context, uint32_t member, dj_endpoint_t **endpoint_p);
    void *context;
} dj_group_options_t;

dj_status_t dj_group_create(const dj_group_options_t *options, dj_group_t **group_p);
void dj_group_destroy(dj_group_t *group);

/* For each incoming GROUP message, in both calls of a rendezvous (comm/endpoint.h). */
dj_status_t dj_group_message(dj_group_t *group, const dj_incoming_t *incoming, void **memory_p,
                             void **token_p);
/* A member has died: what waits for it ends. It may come back under the same number (`reach` again). */
void dj_group_lost(dj_group_t *group, uint32_t member);

/* Each makes progress on the comm until it is over or the deadline has passed. The absolute deadline is in
 * nanoseconds of dj_clock_ns(). DJ_ERR_PEER_DIED, DJ_ERR_DEADLINE, DJ_ERR_LIMIT, DJ_ERR_MEMORY. */
dj_status_t dj_group_broadcast(dj_group_t *group, uint32_t root, void *data, uint64_t bytes,
                               uint64_t deadline_ns);
dj_status_t dj_group_barrier(dj_group_t *group, uint64_t deadline_ns);
/* `all` (members times `bytes`) is used at the root alone; parts of missing members are zeroed. */
dj_status_t dj_group_gather(dj_group_t *group, uint32_t root, const void *data, uint64_t bytes,
                            void *all, uint64_t deadline_ns);

#endif
