/* group.h - collectives for control: broadcast, barrier, gather and publish, down a tree of active
 * messages.
 *
 * A group is n members, 0..n-1, each a process with a dj_comm_t. The group owns no connections: it
 * asks its owner for the endpoint of a member (`reach`) whenever it needs one, and the owner hands
 * it every GROUP message that its comm receives (dj_group_message()). Both sides of a pair must
 * dial: who hears of a dial by another member dials back.
 *
 * Rounds: all members take part in the same collectives in the same order; each call gets the next
 * round number, and messages of older rounds are answered with where the group is, or dropped. A
 * member pulls: it asks its parent in the tree, and nothing is sent to one that has not asked. So
 * data lands straight in the caller's buffer, nothing is kept for a member that is not there yet,
 * and what a peer can make this process hold is one small record a member. Large payloads travel in
 * parts: a member passes the first on while the rest arrives.
 *
 * A missing member is no reason to hang. Who is lost (dj_group_lost(), a failed endpoint, `reach`
 * says so) or silent for a good part of the time to the deadline is left out, and its children hang
 * on its parent for this round. A collective in which that happened ends with DJ_ERR_PEER_DIED (the
 * first of the missing is lost) or DJ_ERR_DEADLINE at those members who know of it, with the number
 * and the first missing member in the sentence; whoever could be served was served. The next round
 * goes on without them: a lost member is no member any more until `reach` gives it again, and not
 * missed; a silent one is not waited for, but missed, until it is heard or lost. A broadcast or
 * gather whose root is lost fails at all members.
 *
 * Ownership: buffers are the caller's and are not touched after the call returns. Destroy the comm
 * before the group. Threads: the comm's owner alone; no call from inside a handler, except
 * dj_group_message(), dj_group_lost() and dj_group_publish(). */
#ifndef DJ_COMM_GROUP_H
#define DJ_COMM_GROUP_H

#include "comm/endpoint.h"

typedef struct dj_group dj_group_t;

typedef enum dj_group_kind {
    DJ_GROUP_BROADCAST = 1, /* root's bytes to all */
    DJ_GROUP_BARRIER = 2,   /* nobody leaves before all have come */
    DJ_GROUP_GATHER = 3,    /* each member's bytes, of one size, side by side at the root */
    DJ_GROUP_PUBLISH = 4,   /* one member's bytes to all, without a round */
} dj_group_kind_t;

typedef struct dj_group_options {
    dj_comm_t *comm;
    uint32_t members, me;
    /* The endpoint of a member: DJ_OK, DJ_IN_PROGRESS (not yet: asked again), else it is missing.
     * Called often and never from inside a handler. After dj_group_lost() it gives no endpoint of
     * the dead one. */
    dj_status_t (*reach)(void *context, uint32_t member, dj_endpoint_t **endpoint_p);
    /* What another member has published: once each, from dj_group_progress() or inside a
     * collective. `data` is valid in the call alone. NULL: publications are passed on and not
     * looked at. */
    void (*deliver)(void *context, uint32_t origin, const void *data, uint64_t bytes);
    void *context;
    uint32_t
        radix; /* of the k-nomial tree, equal at all members; 0: DJ_GROUP_RADIX; 2 is binomial */
    uint64_t round; /* rounds that the group has behind it; for a member that joins late */
} dj_group_options_t;

typedef struct dj_group_counters {
    uint64_t messages; /* taken */
    uint64_t refused;  /* malformed, or not of this round */
    uint64_t published, delivered;
    uint64_t repeated;  /* publications that had been delivered before */
    uint64_t abandoned; /* members that a publication was given up for */
} dj_group_counters_t;

/* DJ_ERR_INVALID (no members, too many, `me` is none of them), DJ_ERR_MEMORY. */
dj_status_t dj_group_create(const dj_group_options_t *options, dj_group_t **group_p);
void dj_group_destroy(dj_group_t *group);
/* The rounds that this member has behind it. */
uint64_t dj_group_round(const dj_group_t *group);
void dj_group_counters(const dj_group_t *group, dj_group_counters_t *counters);

/* For each incoming GROUP message, in both calls of a rendezvous (comm/endpoint.h). */
dj_status_t dj_group_message(dj_group_t *group, const dj_incoming_t *incoming, void **memory_p,
                             void **token_p);
/* A member has died: what waits for it ends. It may come back under the same number. */
void dj_group_lost(dj_group_t *group, uint32_t member);
/* Whether `member` was missing in the last collective, as far as this member knows. */
bool dj_group_missed(const dj_group_t *group, uint32_t member);

/* Answers those who are behind, passes publications on and delivers them. After each
 * dj_comm_progress() of an owner outside of a collective; true while something waits for time to
 * pass: call again within 10 ms. */
bool dj_group_progress(dj_group_t *group);

/* Each makes progress on the comm until it is over or the deadline has passed. The absolute
 * deadline is in nanoseconds of dj_clock_ns(); a transfer that must be torn from the caller's
 * memory then takes up to 600 ms more, and ends that endpoint. DJ_ERR_PEER_DIED, DJ_ERR_DEADLINE,
 * DJ_ERR_LIMIT, DJ_ERR_MEMORY, DJ_ERR_INVALID (not a member; another
 * one is under way). A broadcast ends when this member has its bytes and its children theirs; where
 * others are is not known then. A member that was left behind catches up: rounds that are over end
 * at once. */
dj_status_t dj_group_broadcast(dj_group_t *group, uint32_t root, void *data, uint64_t bytes,
                               uint64_t deadline_ns);
dj_status_t dj_group_barrier(dj_group_t *group, uint64_t deadline_ns);
/* `all` (members times `bytes`) is used at the root alone; parts of missing members are zeroed.
 * Nobody leaves before the root has all that will come. */
dj_status_t dj_group_gather(dj_group_t *group, uint32_t root, const void *data, uint64_t bytes,
                            void *all, uint64_t deadline_ns);

/* Hands a copy of `bytes` bytes (at most DJ_GROUP_PUBLISH_BYTES_MAX) to every other member's
 * `deliver`, once each, down the tree rooted here. Does not wait; dj_group_progress() does the
 * work. The members need not enter anything. Kept until all have it or 10 s have passed; children
 * of a member that dies meanwhile get it from its parent. Publications of one origin may overtake
 * each other. DJ_ERR_BUSY: too much is under way; DJ_ERR_LIMIT, DJ_ERR_MEMORY. */
dj_status_t dj_group_publish(dj_group_t *group, const void *data, uint64_t bytes);

#endif
