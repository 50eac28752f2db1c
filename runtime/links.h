/* links.h - links between ranks: an endpoint for data and a control connection to each rank that is needed.
 *
 * A link opens on demand (dj_links_reach), stays while it is used, and is closed by the side that dialled
 * when nothing has used it for link_idle_ms. It dies when its control connection ends or falls silent, when
 * its endpoint fails, and when the coordinator's roster names another incarnation (one that says the rank is
 * gone ends new dials alone); then whoever holds it hears of it (dj_moves_lost), and a later message that was meant for it
 * finds neither its link number nor its request.
 *
 * Who may dial: any rank; where two dial each other at once the lower rank's dial stands and the other is
 * refused with DJ_ERR_BUSY. The roster is believed and nobody else: a peer whose incarnation it does not
 * name is refused.
 *
 * UCX 1.13 pairs the n-th endpoint that one worker makes for another with the n-th the other makes for it.
 * So both sides count the endpoints they have made for each other's worker, the counts travel in HELLO and
 * WELCOME (`generation`), and the side that is behind makes and closes what is missing before the
 * real one: otherwise a dial that was given up half-way would leave rendezvous without an endpoint.
 *
 * Threads: the progress thread alone. Dialling blocks, so each dial has a short thread of its own, which
 * hands the connection to the control thread and ends. Nothing here needs sessions: a coordinator with a
 * dj_comm_t may have links too, for the groups of comm/group.h. */
#ifndef DJ_RUNTIME_LINKS_H
#define DJ_RUNTIME_LINKS_H

#include "runtime/rank.h"

/* Of `rank`, with its comm open. dj_links_destroy() waits for dials under way (a second at most). */
dj_status_t dj_links_create(dj_rank_t *rank, dj_links_t **links_p);
void dj_links_destroy(dj_links_t *links); /* NULL is allowed */

/* The endpoint of another rank: DJ_OK; DJ_IN_PROGRESS: being dialled, ask again; DJ_ERR_INVALID: no such
 * rank, or this one; else why there is none now (DJ_ERR_PEER_DIED: it is not here; DJ_ERR_CONNECT,
 * DJ_ERR_DEADLINE, DJ_ERR_BUSY...: the last dial failed, and one asked for later is made anew). `links` is
 * void so that it fits `reach` of comm/group.h. The endpoint is good until the next call of comm or links. */
dj_status_t dj_links_reach(void *links, uint32_t rank, dj_endpoint_t **endpoint_p);

/* Keeps an open link from being closed as idle; its number, which no other link ever has, or 0 when none is
 * open. Each hold is let go once; letting go of a link that has died is nothing. */
uint64_t dj_links_hold(dj_links_t *links, uint32_t rank);
void dj_links_let_go(dj_links_t *links, uint32_t rank, uint64_t number);
/* The endpoint of that very link, or NULL when it is no more. */
dj_endpoint_t *dj_links_endpoint(dj_links_t *links, uint32_t rank, uint64_t number);
/* Whether device memory travels by itself over that very link (direct.c). */
bool dj_links_direct(dj_links_t *links, uint32_t rank, uint64_t number);
/* The rank's incarnation, as the coordinator names it. */
uint32_t dj_links_incarnation(dj_links_t *links, uint32_t rank);
/* Ends that very link: what is outstanding on it is reported as lost. */
void dj_links_break(dj_links_t *links, uint32_t rank, uint64_t number, const char *why);

/* DJ_COMMAND_ROSTER, _PEER, _DIALLED, _UNLINKED from the control and dial threads. */
void dj_links_command(dj_links_t *links, dj_command_t *command);
/* Now and then: failed endpoints and idle links. */
void dj_links_sweep(dj_links_t *links, uint64_t now_ns);

#endif
