/* door.h - the control thread's own state and parts. Private to runtime/.
 *
 *   door.c    connections: accepting, reading, heartbeats, the thread itself
 *   hello.c   who a stranger is: proof, grant, role; where clients are sent
 *   outbox.c  what other threads want sent
 *   link.c    a worker's link to the coordinator
 *   roster.c  who is where, for links between ranks
 *   relay.c   clients that rank 0 passes on to a worker
 *   carry.c   the data of a client that has no other connection
 *   ending.c  what all of them are told when this rank ends
 *
 * Threads: the control thread alone, except dj_outbox_*(). */
#ifndef DJ_RUNTIME_DOOR_H
#define DJ_RUNTIME_DOOR_H

#include "comm/channel.h"
#include "runtime/coordinator.h"

typedef struct dj_connection {
    uint64_t id;    /* also epoll's word for it */
    uint32_t place; /* in the door's list */
    dj_control_t *control;
    uint8_t nonce[32];
    uint64_t admitted_ns;
    bool greeted, waits_for_worker;
    bool welcomed; /* heartbeats begin after the WELCOME: it must be the hello's first answer */
    uint32_t interest; /* what epoll waits for */
    bool relay;    /* rank 0: to be passed on to a worker; a worker: data comes in TUNNEL frames */
    dj_channel_t *channel; /* of such a one at its worker, else NULL */
    bool more;     /* the channel has parts to send */
    bool full;     /* the channel takes no more: not read */
    bool unread;   /* frames lie in its buffer that were not looked at yet */
    bool closing;  /* it said CLOSE */
    uint32_t role, uid;
    uint32_t wanted; /* rank that a client asks for, or DJ_RANK_ANY */
    dj_hash_t device_class; /* of a worker */
} dj_connection_t;

typedef struct dj_relay dj_relay_t;

struct dj_door {
    int listen_fd, epoll_fd;
    int spare_fd; /* given up to accept, and refuse, the one connection too many */
    bool listens; /* false: enough strangers for now, the others wait in the backlog */
    dj_connection_t **connections;
    dj_table_t by_id;
    uint32_t n_connections, strangers;
    uint64_t last_connection; /* number given last, to a connection or to a relay's side */
    dj_relay_t *relays;
    dj_table_t relay_by_word;
    uint32_t n_relays;
    dj_control_t *link; /* to the coordinator; NULL when lost or this is it */
    uint64_t link_retry_ns, report_ns;
    uint64_t watched_ns;
    uint64_t round_ns; /* when this round of heartbeats began */
    uint32_t round_left, round_count; /* connections it has yet to greet; had at its start */
    bool unread; /* some connection has unread frames */
    bool announced;
    bool told; /* everybody, that this rank ends */
    dj_coordinator_t coordinator;
};

/* What epoll says for descriptors that are no connection's. */
enum { DJ_DOOR_LISTENS = 1, DJ_DOOR_OUTBOX, DJ_DOOR_LINK, DJ_DOOR_FIRST = 16 };

/* ---- door.c ---- */

/* Tells the supervisor that this rank serves, once. */
void dj_door_announce(dj_rank_t *rank);
dj_connection_t *dj_door_find(const dj_door_t *door, uint64_t id); /* NULL: it is gone */
/* Sends without waiting. False: the connection is gone. */
bool dj_door_send(dj_rank_t *rank, dj_connection_t *c, uint16_t type, const void *body,
                  uint32_t body_bytes, const void *tail, uint32_t tail_bytes);
/* Sends REFUSE with the calling thread's last sentence and ends the connection; always false. */
bool dj_door_refuse(dj_rank_t *rank, dj_connection_t *c, dj_status_t status);
void dj_door_end(dj_rank_t *rank, dj_connection_t *c);
/* The connection ends here and goes on elsewhere: gives its descriptor up. -1 and nothing done when bytes of it
 * lie here. */
int dj_door_release(dj_rank_t *rank, dj_connection_t *c);
/* Sets what epoll waits for, after unsent bytes, parts or room in the channel have changed. */
void dj_door_rewatch(dj_door_t *door, dj_connection_t *c);
/* One stranger fewer. */
void dj_door_greeted(dj_door_t *door);
/* Adds a descriptor to what the thread waits for. */
dj_status_t dj_door_watch(dj_door_t *door, int fd, uint64_t word);
/* A command with nothing in it but its kind and who asks; NULL: no memory. */
dj_command_t *dj_door_command(dj_command_kind_t kind, uint64_t connection);
void dj_door_post_command(dj_rank_t *rank, dj_command_t *command);
/* A connection that was dialled: from here on like one that was accepted and greeted. Both are taken over;
 * the progress thread hears `news` either way. */
void dj_door_adopt(dj_rank_t *rank, dj_control_t *control, dj_command_t *news);

/* ---- hello.c ---- */

/* A HELLO. False: the connection is gone. */
bool dj_door_greet(dj_rank_t *rank, dj_connection_t *c, const dj_hello_t *hello, uint32_t length);
/* Rank 0 of several: sends the client on, or keeps it waiting until a worker is here. */
bool dj_door_redirect(dj_rank_t *rank, dj_connection_t *c);

/* ---- relay.c ---- */

/* The client waits until its worker is reached. DJ_ERR_LIMIT, DJ_ERR_CONNECT, DJ_ERR_MEMORY. */
dj_status_t dj_relay_begin(dj_rank_t *rank, const dj_connection_t *c, const dj_worker_t *worker);
void dj_relay_event(dj_rank_t *rank, uint64_t word, uint32_t events);
void dj_relay_sweep(dj_rank_t *rank, uint64_t now_ns);
void dj_relay_end_all(dj_door_t *door);

/* ---- carry.c ---- */

/* Gives the connection a channel. */
dj_status_t dj_carry_begin(dj_rank_t *rank, dj_connection_t *c);
/* A TUNNEL frame's body. False: the connection is gone. */
bool dj_carry_in(dj_rank_t *rank, dj_connection_t *c, const dj_tunnel_t *part, uint32_t length);
/* Sends what the channel has, as far as the socket takes it. False: the connection is gone. */
bool dj_carry_out(dj_rank_t *rank, dj_connection_t *c);

/* ---- outbox.c ---- */

void dj_outbox_drain(dj_rank_t *rank);
void dj_outbox_empty(dj_rank_t *rank); /* sends nothing any more */

/* ---- link.c ---- */

/* Opens the link when it is time to; reports on it. */
void dj_link_keep(dj_rank_t *rank, uint64_t now_ns);
void dj_link_report(dj_rank_t *rank, uint64_t now_ns);
void dj_link_read(dj_rank_t *rank);
void dj_link_write(dj_rank_t *rank, const dj_outgoing_t *out);

/* ---- ending.c ---- */

/* Once the rank is to end: tells everybody, once. Rank 0 of several notices when all workers have left. */
void dj_ending_tell(dj_rank_t *rank);
void dj_ending_watch(dj_rank_t *rank);
/* One that was welcomed after the others were told. False: the connection is gone. */
bool dj_ending_tell_one(dj_rank_t *rank, dj_connection_t *c);
/* Before the connections end: what waits for their sockets, within bounds. */
void dj_ending_last_words(dj_rank_t *rank);

/* ---- roster.c ---- */

/* The coordinator: what the workers have not heard yet. All that is known, for one that has just come;
 * false: its connection is gone. */
void dj_roster_tell(dj_rank_t *rank);
bool dj_roster_tell_all(dj_rank_t *rank, dj_connection_t *c);
/* A worker: a row from the coordinator. */
void dj_roster_take(dj_rank_t *rank, const dj_roster_t *row);

#endif
