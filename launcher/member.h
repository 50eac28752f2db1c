/* member.h - a supervisor that is not rank 0's: its lifeline to the one that is (head.h).
 *
 * Ends of the lifeline: END, and every rank ends in good order; the connection breaks, and we come
 * again within 10 s with the ranks that we mind, or learn that they were replaced, or that the head
 * is no more (nobody listens there). Ranks that nobody minds on the other side must not live.
 *
 * Threads: one. */
#ifndef DJ_LAUNCHER_MEMBER_H
#define DJ_LAUNCHER_MEMBER_H

#include "comm/messages.h"
#include "runtime/base/clock.h"

/* The silence that is borne until all ranks serve, by both sides: a machine that is being looked at
 * (hwloc, drivers) or is crowded with starting ranks can be slow. A death or a cut link is noticed
 * by the socket all the same. */
#define DJ_LIFELINE_START_NS (10 * DJ_NS_PER_S)

typedef struct dj_member dj_member_t;

typedef struct dj_member_seats {
    uint32_t size; /* ranks of the whole server */
    uint32_t first, count;
    uint32_t *incarnations; /* of each of ours; free() */
} dj_member_seats_t;

typedef enum dj_member_news {
    DJ_MEMBER_NOTHING,
    DJ_MEMBER_END,      /* the server ends in good order */
    DJ_MEMBER_LOST,     /* the head is gone, or cannot be reached any more: the sentence says which */
    DJ_MEMBER_REPLACED, /* others mind our ranks */
} dj_member_news_t;

/* Connects to the head's lifeline and musters; waits until it gives seats. `about` but for member
 * and version is the caller's. DJ_ERR_CONNECT, DJ_ERR_DEADLINE, DJ_ERR_AUTH, DJ_ERR_VERSION,
 * DJ_ERR_BUSY (nothing to join). Ownership: dj_member_close(). */
dj_status_t dj_member_open(const char *lifeline, const uint8_t token[32], dj_muster_t *about,
                           uint64_t deadline_ns, dj_member_seats_t *seats, dj_member_t **member_p);
void dj_member_close(dj_member_t *member);

/* Asks rank 0 at `address` where its supervisor's lifeline is. DJ_ERR_UNSUPPORTED: it has none. */
dj_status_t dj_member_find(const char *address, const uint8_t token[32], uint64_t deadline_ns,
                           char lifeline[DJ_ENDPOINT_TEXT_MAX]);

int dj_member_fd(const dj_member_t *member); /* to poll for reading; -1: cut at the moment */
/* Hears, answers, comes again; waits 400 ms at most. When it wants to be called again. */
dj_member_news_t dj_member_turn(dj_member_t *member, uint64_t *again_at_ns_p);
bool dj_member_started(const dj_member_t *member); /* all ranks of the server have served */

/* STARTS, SERVES, LOST or DONE; kept and said again after a cut. */
void dj_member_tell(dj_member_t *member, dj_crew_kind_t kind, uint32_t rank, uint32_t incarnation,
                    int32_t value);

#endif
