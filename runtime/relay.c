/* relay.c - rank 0 passes a client that can reach no other port on to a worker.
 *
 * The client has proven its token to us; we choose a worker and connect to its door, and from then on bytes go
 * both ways as they come. We understand none of them: the worker's CHALLENGE reaches the client, the client's
 * proof reaches the worker. Each direction has one buffer; while it is full its source is not read, so a client
 * that stops reading stops its own worker's answers and nothing else. The end of one side, after what it sent
 * before has been passed on, is the end of the other.
 *
 * While the worker is being reached the client is still a connection of the door, which may end it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/control_socket.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/door.h"

#define DJ_LOG_MODULE "relay"

enum {
    DJ_RELAYS_MAX = 1024,
    DJ_RELAY_BYTES = 128 << 10,
    DJ_REACH_MS = 1000,
    DJ_PASS_ON_MS = 1000,      /* the last bytes of a side that has ended */
    DJ_PATIENCE_MS = 30000,
};

enum { CLIENT, WORKER };

/* From one side to the other. */
typedef struct dj_way {
    uint8_t *bytes;
    uint32_t from, to;
    bool ended; /* nothing more comes */
} dj_way_t;

struct dj_relay {
    struct dj_relay *next;
    uint64_t words[2]; /* epoll's, of each side */
    int fds[2];        /* of the client -1 until the worker is reached */
    uint32_t interest[2];
    dj_way_t ways[2]; /* ways[i] leads from fds[i] to the other */
    uint64_t waiting; /* the client's connection; 0: bytes flow */
    uint64_t deadline_ns; /* 0: none */
    uint32_t rank;
};

static void close_relay(dj_door_t *door, dj_relay_t *relay)
{
    dj_relay_t **at = &door->relays;
    while (*at != relay)
        at = &(*at)->next;
    *at = relay->next;
    door->n_relays--;
    for (int i = 0; i < 2; i++) {
        dj_table_remove(&door->relay_by_word, dj_key_u64(relay->words[i]));
        if (relay->fds[i] >= 0)
            close(relay->fds[i]);
        free(relay->ways[i].bytes);
    }
    dj_log(INFO, "the relay to rank %u ended", relay->rank);
    free(relay);
}

static dj_status_t watch(dj_door_t *door, dj_relay_t *relay, int side, int operation,
                         uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.u64 = relay->words[side]};
    if (operation == EPOLL_CTL_MOD && relay->interest[side] == interest)
        return DJ_OK;
    relay->interest[side] = interest;
    if (epoll_ctl(door->epoll_fd, operation, relay->fds[side], &event) == 0)
        return DJ_OK;
    return dj_fail(DJ_ERR_SYSTEM, "epoll: %s", strerror(errno));
}

/* ---- the beginning ---- */

static dj_status_t open_relay(dj_door_t *door, dj_relay_t *relay, const char *endpoint)
{
    dj_status_t status = DJ_OK;
    for (int i = 0; i < 2; i++) {
        relay->words[i] = ++door->last_connection;
        relay->ways[i].bytes = malloc(DJ_RELAY_BYTES);
        if (!relay->ways[i].bytes)
            return dj_fail(DJ_ERR_MEMORY, "no memory for a relay");
    }
    for (int i = 0; i < 2 && status == DJ_OK; i++)
        status = dj_table_put(&door->relay_by_word, dj_key_u64(relay->words[i]), relay);
    if (status == DJ_OK)
        status = dj_socket_begin(endpoint, &relay->fds[WORKER]);
    if (status == DJ_OK)
        status = watch(door, relay, WORKER, EPOLL_CTL_ADD, EPOLLOUT);
    return status;
}

dj_status_t dj_relay_begin(dj_rank_t *rank, const dj_connection_t *c, const dj_worker_t *worker)
{
    dj_door_t *door = rank->door;
    if (door->n_relays >= DJ_RELAYS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "rank 0 relays %u clients already, the most it does: let clients reach "
                                     "the workers, or close some", door->n_relays);
    dj_relay_t *relay = calloc(1, sizeof(*relay));
    if (!relay)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a relay");
    relay->fds[CLIENT] = relay->fds[WORKER] = -1;
    relay->waiting = c->id;
    relay->rank = worker->about.rank;
    relay->deadline_ns = dj_clock_ns() + DJ_REACH_MS * DJ_NS_PER_MS;
    relay->next = door->relays;
    door->relays = relay;
    door->n_relays++;
    dj_status_t status = open_relay(door, relay, worker->about.endpoint);
    if (status != DJ_OK) {
        close_relay(door, relay);
        return status;
    }
    dj_log(INFO, "the client at %s is relayed to rank %u at %s", dj_control_peer(c->control),
           worker->about.rank, worker->about.endpoint);
    return DJ_OK;
}

/* The status is one that the client's library answers with another try. */
static void give_up(dj_rank_t *rank, dj_relay_t *relay, const char *cause)
{
    dj_connection_t *c = dj_door_find(rank->door, relay->waiting);
    if (c)
        dj_door_refuse(rank, c, dj_fail(DJ_ERR_PEER_DIED, "rank %u cannot be reached from rank 0: %s",
                                        relay->rank, cause));
    close_relay(rank->door, relay);
}

/* The worker's socket has its outcome. */
static void reach(dj_rank_t *rank, dj_relay_t *relay)
{
    dj_door_t *door = rank->door;
    int error = 0;
    socklen_t size = sizeof(error);
    char peer[DJ_CONTROL_PEER_TEXT];
    if (getsockopt(relay->fds[WORKER], SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        give_up(rank, relay, strerror(error));
        return;
    }
    dj_connection_t *c = dj_door_find(door, relay->waiting);
    if (!c || dj_socket_prepare(relay->fds[WORKER], peer) != DJ_OK) {
        give_up(rank, relay, "it ended at once");
        return;
    }
    int fd = dj_door_release(rank, c);
    if (fd < 0) {
        give_up(rank, relay, "the client sent bytes that nobody asked for");
        return;
    }
    relay->fds[CLIENT] = fd;
    relay->waiting = 0;
    relay->deadline_ns = 0;
    dj_socket_set_patience(relay->fds[CLIENT], DJ_PATIENCE_MS);
    dj_socket_set_patience(relay->fds[WORKER], DJ_PATIENCE_MS);
    if (watch(door, relay, WORKER, EPOLL_CTL_MOD, EPOLLIN) != DJ_OK ||
        watch(door, relay, CLIENT, EPOLL_CTL_MOD, EPOLLIN) != DJ_OK)
        close_relay(door, relay);
}

/* ---- passing on ---- */

/* False: the connection is broken. */
static bool take(dj_relay_t *relay, int side)
{
    dj_way_t *way = &relay->ways[side];
    if (way->ended || way->to == DJ_RELAY_BYTES)
        return true;
    ssize_t got = recv(relay->fds[side], way->bytes + way->to, DJ_RELAY_BYTES - way->to, 0);
    if (got > 0)
        way->to += (uint32_t)got;
    way->ended = got == 0;
    return got >= 0 || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static bool pass(dj_relay_t *relay, int side)
{
    dj_way_t *way = &relay->ways[side];
    if (way->from == way->to)
        return true;
    ssize_t put = send(relay->fds[!side], way->bytes + way->from, way->to - way->from,
                       MSG_NOSIGNAL);
    if (put > 0)
        way->from += (uint32_t)put;
    if (way->from == way->to) {
        way->from = way->to = 0;
    } else if (way->from > DJ_RELAY_BYTES / 2) { /* room at the end, for little moved */
        memmove(way->bytes, way->bytes + way->from, way->to - way->from);
        way->to -= way->from;
        way->from = 0;
    }
    return put >= 0 || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static bool is_over(const dj_relay_t *relay)
{
    for (int i = 0; i < 2; i++)
        if (relay->ways[i].ended && relay->ways[i].from == relay->ways[i].to)
            return true;
    return false;
}

static uint32_t wanted(const dj_relay_t *relay, int side)
{
    const dj_way_t *out = &relay->ways[!side], *in = &relay->ways[side];
    return (!in->ended && in->to < DJ_RELAY_BYTES ? (uint32_t)EPOLLIN : 0) |
           (out->from < out->to ? (uint32_t)EPOLLOUT : 0);
}

void dj_relay_event(dj_rank_t *rank, uint64_t word, uint32_t events)
{
    dj_door_t *door = rank->door;
    dj_relay_t *relay = dj_table_get(&door->relay_by_word, dj_key_u64(word));
    if (!relay)
        return;
    if (relay->waiting) {
        reach(rank, relay);
        return;
    }
    int side = word == relay->words[WORKER];
    bool well = !((events & (EPOLLERR | EPOLLHUP)) && relay->ways[side].to == DJ_RELAY_BYTES);
    well = well && take(relay, side) && pass(relay, side) && pass(relay, !side);
    if (well && !is_over(relay)) {
        if ((relay->ways[0].ended || relay->ways[1].ended) && !relay->deadline_ns)
            relay->deadline_ns = dj_clock_ns() + DJ_PASS_ON_MS * DJ_NS_PER_MS;
        well = watch(door, relay, CLIENT, EPOLL_CTL_MOD, wanted(relay, CLIENT)) == DJ_OK &&
               watch(door, relay, WORKER, EPOLL_CTL_MOD, wanted(relay, WORKER)) == DJ_OK;
        if (well)
            return;
    }
    close_relay(door, relay);
}

void dj_relay_sweep(dj_rank_t *rank, uint64_t now_ns)
{
    for (dj_relay_t *relay = rank->door->relays, *next; relay; relay = next) {
        next = relay->next;
        if (!relay->deadline_ns || now_ns < relay->deadline_ns)
            continue;
        if (relay->waiting)
            give_up(rank, relay, "it does not answer");
        else
            close_relay(rank->door, relay);
    }
}

void dj_relay_end_all(dj_door_t *door)
{
    while (door->relays)
        close_relay(door, door->relays);
    dj_table_fini(&door->relay_by_word);
}
