/* head.h - rank 0's supervisor among the supervisors of one server.
 *
 * It listens on a port of its own, the lifeline. Every other supervisor (a member, member.h) keeps
 * a connection to it: an authenticated stream of control frames (comm/control.h) that begins with
 * hello and MUSTER. Over it a member is told which ranks it minds (CREW SEAT), that all serve
 * (START), that the server ends (END), and tells which ranks it starts (STARTS), which serve
 * (SERVES), which are given up (LOST) and how its command ended (DONE). Both sides send a HEARTBEAT
 * every 200 ms; silence of --suspect-ms (10 s until all serve) or the end of the stream is the loss
 * of the member: its ranks wait for a supervisor that joins (djinn-server --join), or for itself when
 * only the link was cut.
 *
 * Nothing a peer sends is believed before its proof of the token; a connection has 2 s for that,
 * and at most 64 more than members are kept.
 *
 * Order: open, then either dj_head_muster() (waits for every task) or nothing, then dj_head_seat(),
 * then the supervisor's loop with dj_head_watch() and dj_head_turn(). Threads: one. */
#ifndef DJ_LAUNCHER_HEAD_H
#define DJ_LAUNCHER_HEAD_H

#include <poll.h>

#include "comm/messages.h"
#include "launcher/seats.h"

typedef struct dj_head dj_head_t;

typedef struct dj_head_options {
    uint8_t token[32];
    uint32_t n_tasks;  /* of the launcher, ours included; 1: we are alone, others may join */
    uint32_t suspect_ms;
    uint64_t deadline_ns; /* by then every task has to be here */
    const char *address; /* rank 0's, for what is said to people */
} dj_head_options_t;

/* Listens on host:0; the address comes back in endpoint. DJ_ERR_CONNECT, DJ_ERR_MEMORY. */
dj_status_t dj_head_open(const dj_head_options_t *options, const char *listen,
                         char endpoint[DJ_ENDPOINT_TEXT_MAX], dj_head_t **head_p);
void dj_head_close(dj_head_t *head);

/* Waits until every other task has come, at most until the deadline; capacity[task] is what each can mind (ours is left as it
 * is), and *lonely_p whether each is alone on its node. DJ_ERR_DEADLINE names a missing task,
 * DJ_ERR_VERSION a node with another build. */
dj_status_t dj_head_muster(dj_head_t *head, uint32_t *capacity, bool *lonely_p);
/* Fixes who minds what: counts[task] ranks in the order of tasks, ours first; `size` in all, of
 * which those behind the last task's are for supervisors that join. Tasks that wait, and those
 * that come later, are told. DJ_ERR_MEMORY. */
dj_status_t dj_head_seat(dj_head_t *head, const uint32_t *counts, uint32_t size);

/* Descriptors for poll(), at most room; the number used. dj_head_room() is always enough. */
nfds_t dj_head_room(const dj_head_t *head);
nfds_t dj_head_watch(const dj_head_t *head, struct pollfd *polled, nfds_t room);
/* Hears everybody and looks at the clock; never waits. When it wants to be called again at the
 * latest. */
uint64_t dj_head_turn(dj_head_t *head);

void dj_head_serves(dj_head_t *head, uint32_t rank, uint32_t incarnation); /* of our own ranks */
bool dj_head_all_serve(const dj_head_t *head);
/* DJ_OK while the server can still start; else why not, with its sentence: DJ_ERR_VERSION (a task
 * has another build), DJ_ERR_DEADLINE (a task did not come), DJ_ERR_UNSUPPORTED
 * (a task has no device), DJ_ERR_PEER_DIED (a rank of a member was given up before all served). */
dj_status_t dj_head_state(const dj_head_t *head);
void dj_head_start(dj_head_t *head); /* all ranks serve: members may start their commands */
void dj_head_end(dj_head_t *head);   /* the server ends */
/* Waits until every task has had its seats and is gone (a dry run). */
void dj_head_dismiss(dj_head_t *head, uint64_t deadline_ns);
/* Seated members, and those of them whose command is not over. */
uint32_t dj_head_members(const dj_head_t *head);
uint32_t dj_head_busy(const dj_head_t *head);
uint32_t dj_head_missing(const dj_head_t *head); /* the first rank that does not serve */

#endif
