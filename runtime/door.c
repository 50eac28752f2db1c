/* door.c - the control thread: everyone who connects to this rank.
 *
 * A connection is a stranger until its hello was proven; strangers are few, have two seconds, and when
 * there are too many the next ones wait in the socket's backlog. After the hello its role says which frames
 * it may send. Nothing here waits for a peer: what its socket does not take is kept up to a bound, and a
 * peer that lets it grow past that loses its connection.
 *
 * Heartbeats go round: every connection gets one a round, some every few milliseconds, so that a thousand
 * clients do not wake in one moment. A client answers each with its own, so the rank sets the pace for both:
 * with many clients the rounds are longer, up to what the WELCOME announced. Who was silent for suspect_ms
 * is ended within one heartbeat_ms, however long the rounds are.
 *
 * epoll names a connection by its number, never by its address: what it says about one that has ended in the
 * meantime is dropped. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/bind.h"
#include "runtime/door.h"

#define DJ_LOG_MODULE "control"

enum {
    DJ_STRANGERS_MAX = 256,
    DJ_CONNECTIONS_MAX = 4096,
    DJ_HELLO_MS = 2000,
    DJ_ANSWER_MS = 10000, /* a tool's life, and the time a WELCOME may take */
    DJ_EVENTS_MAX = 128,
    DJ_FRAMES_PER_TURN = 64,
    DJ_UNSENT_BYTES_MAX = 1 << 20,
    DJ_UNSENT_PLANS_BYTES_MAX = 64 << 20, /* to a worker: plans */
    DJ_ROUND_MS_MAX = 600,
    DJ_FAST_ROUND_MAX = 160, /* connections that get a heartbeat every heartbeat_ms */
    DJ_SLICE = 32,           /* heartbeats sent in one moment */
    DJ_SLICE_MS = 10,
};

/* ---- connections ---- */

dj_connection_t *dj_door_find(const dj_door_t *door, uint64_t id)
{
    return dj_table_get(&door->by_id, dj_key_u64(id));
}

dj_status_t dj_door_watch(dj_door_t *door, int fd, uint64_t word)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = word};
    if (epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return DJ_OK;
    return dj_fail(DJ_ERR_SYSTEM, "epoll: %s", strerror(errno));
}

dj_command_t *dj_door_command(dj_command_kind_t kind, uint64_t connection)
{
    dj_command_t *command = calloc(1, sizeof(*command));
    if (!command)
        return NULL;
    command->kind = kind;
    command->connection = connection;
    return command;
}

void dj_door_post_command(dj_rank_t *rank, dj_command_t *command)
{
    dj_queue_push(&rank->commands, &command->entry);
    dj_comm_wake(rank->comm);
}

/* Strangers wait in the backlog while there are enough of them. */
static void set_listening(dj_door_t *door, bool listens)
{
    struct epoll_event event = {.events = listens ? EPOLLIN : 0, .data.u64 = DJ_DOOR_LISTENS};
    if (door->listens == listens)
        return;
    epoll_ctl(door->epoll_fd, EPOLL_CTL_MOD, door->listen_fd, &event);
    door->listens = listens;
}

void dj_door_greeted(dj_door_t *door)
{
    door->strangers--;
    set_listening(door, true);
}

static void forget(dj_door_t *door, dj_connection_t *c)
{
    dj_table_remove(&door->by_id, dj_key_u64(c->id));
    dj_connection_t *last = door->connections[--door->n_connections];
    door->connections[c->place] = last;
    last->place = c->place;
    free(c);
}

void dj_door_end(dj_rank_t *rank, dj_connection_t *c)
{
    dj_door_t *door = rank->door;
    if (c->channel)
        dj_channel_break(c->channel);
    dj_channel_put(c->channel);
    if (c->role == DJ_ROLE_CLIENT && c->greeted && rank->serves) {
        dj_command_t *command = dj_door_command(DJ_COMMAND_DETACH, c->id);
        if (command)
            dj_door_post_command(rank, command);
    }
    if (c->role == DJ_ROLE_PEER && c->greeted) {
        dj_command_t *command = dj_door_command(DJ_COMMAND_UNLINKED, c->id);
        if (command)
            dj_door_post_command(rank, command);
    }
    if (c->role == DJ_ROLE_WORKER)
        dj_coordinator_lost(&door->coordinator, c->id);
    if (!c->greeted)
        dj_door_greeted(door);
    dj_control_close(c->control);
    forget(door, c);
}

int dj_door_release(dj_rank_t *rank, dj_connection_t *c)
{
    int fd = dj_control_release(c->control);
    if (fd >= 0)
        forget(rank->door, c);
    return fd;
}

void dj_door_rewatch(dj_door_t *door, dj_connection_t *c)
{
    uint32_t interest = (c->full ? 0 : (uint32_t)EPOLLIN) |
                        (c->more || dj_control_unsent(c->control) ? (uint32_t)EPOLLOUT : 0);
    struct epoll_event event = {.events = interest, .data.u64 = c->id};
    if (interest == c->interest)
        return;
    epoll_ctl(door->epoll_fd, EPOLL_CTL_MOD, dj_control_fd(c->control), &event);
    c->interest = interest;
}

bool dj_door_send(dj_rank_t *rank, dj_connection_t *c, uint16_t type, const void *body,
                  uint32_t body_bytes, const void *tail, uint32_t tail_bytes)
{
    uint64_t limit = c->role == DJ_ROLE_WORKER ? DJ_UNSENT_PLANS_BYTES_MAX : DJ_UNSENT_BYTES_MAX;
    dj_status_t status = dj_control_post(c->control, (dj_message_t)type, body, body_bytes, tail,
                                         tail_bytes);
    uint64_t unsent = dj_control_unsent(c->control);
    if (status == DJ_OK && unsent > limit)
        status = dj_fail(DJ_ERR_LIMIT, "it has left %llu bytes unread, the limit is %llu",
                         (unsigned long long)unsent, (unsigned long long)limit);
    if (status != DJ_OK) {
        dj_log(DEBUG, "%s: %s", dj_control_peer(c->control), dj_error_text());
        dj_door_end(rank, c);
        return false;
    }
    dj_door_rewatch(rank->door, c);
    return true;
}

bool dj_door_refuse(dj_rank_t *rank, dj_connection_t *c, dj_status_t status)
{
    dj_refuse_t refuse = {.status = status};
    snprintf(refuse.text, sizeof(refuse.text), "%s", dj_error_text());
    dj_log(INFO, "%s refused: %s", dj_control_peer(c->control), refuse.text);
    if (dj_door_send(rank, c, DJ_MESSAGE_REFUSE, &refuse, sizeof(refuse), NULL, 0))
        dj_door_end(rank, c);
    return false;
}

/* ---- admission ---- */

/* Takes the control connection over. */
static dj_status_t enlist(dj_door_t *door, dj_control_t *control, dj_connection_t **c_p)
{
    dj_connection_t *c = calloc(1, sizeof(*c));
    dj_status_t status = c ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory for a connection");
    if (status == DJ_OK && door->n_connections >= DJ_CONNECTIONS_MAX)
        status = dj_fail(DJ_ERR_LIMIT, "this rank has %u connections and takes no more",
                         door->n_connections);
    if (status == DJ_OK) {
        c->control = control;
        c->id = ++door->last_connection;
        status = dj_door_watch(door, dj_control_fd(control), c->id);
    }
    if (status == DJ_OK)
        status = dj_table_put(&door->by_id, dj_key_u64(c->id), c);
    if (status != DJ_OK) {
        dj_control_close(control);
        free(c);
        return status;
    }
    c->interest = EPOLLIN;
    c->admitted_ns = dj_clock_ns();
    c->place = door->n_connections;
    door->connections[door->n_connections++] = c;
    *c_p = c;
    return DJ_OK;
}

/* Takes the descriptor over. */
static dj_status_t add_connection(dj_door_t *door, int fd, dj_connection_t **c_p)
{
    dj_control_t *control;
    dj_status_t status = dj_control_adopt(fd, &control);
    if (status != DJ_OK) {
        close(fd);
        return status;
    }
    status = enlist(door, control, c_p);
    door->strangers += status == DJ_OK;
    return status;
}

void dj_door_adopt(dj_rank_t *rank, dj_control_t *control, dj_command_t *news)
{
    dj_connection_t *c;
    news->status = enlist(rank->door, control, &c);
    if (news->status == DJ_OK) {
        c->role = DJ_ROLE_PEER;
        c->greeted = c->welcomed = true;
        c->unread = rank->door->unread = true; /* frames may have come with the WELCOME */
        news->connection = c->id;
    } else {
        snprintf(news->text, sizeof(news->text), "%s", dj_error_text());
    }
    dj_door_post_command(rank, news);
}

/* The one connection too many is accepted all the same, to tell it why it goes. */
static void turn_away(dj_door_t *door, int fd)
{
    dj_control_t *control;
    dj_refuse_t refuse = {.status = DJ_ERR_LIMIT};
    snprintf(refuse.text, sizeof(refuse.text),
             "this rank has %u connections and takes no more (at most %d, and as many as its limit of open "
             "files allows, see ulimit -n): close some or start more ranks",
             door->n_connections, DJ_CONNECTIONS_MAX);
    dj_log(WARN, "a connection was turned away: %s", refuse.text);
    if (dj_control_adopt(fd, &control) != DJ_OK) {
        close(fd);
        return;
    }
    dj_control_post(control, DJ_MESSAGE_REFUSE, &refuse, sizeof(refuse), NULL, 0);
    dj_control_close(control);
}

/* No descriptor is left: the spare one serves for a moment. */
static void accept_on_spare(dj_door_t *door)
{
    close(door->spare_fd);
    int fd = accept4(door->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        turn_away(door, fd);
    door->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void challenge(dj_rank_t *rank, dj_connection_t *c)
{
    dj_challenge_t challenge = {.rank = rank->rank, .incarnation = rank->incarnation};
    dj_random_bytes(c->nonce, sizeof(c->nonce));
    memcpy(challenge.nonce, c->nonce, sizeof(c->nonce));
    dj_door_send(rank, c, DJ_MESSAGE_CHALLENGE, &challenge, sizeof(challenge), NULL, 0);
}

static void admit(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    dj_connection_t *c;
    while (door->strangers < DJ_STRANGERS_MAX) {
        int fd = accept4(door->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE) && door->spare_fd >= 0)
            accept_on_spare(door);
        if (fd < 0)
            return;
        if (door->n_connections >= DJ_CONNECTIONS_MAX)
            turn_away(door, fd);
        else if (add_connection(door, fd, &c) == DJ_OK)
            challenge(rank, c);
    }
    set_listening(door, false);
}

/* ---- frames of greeted peers ---- */

static bool take_plan(dj_rank_t *rank, dj_connection_t *c, const dj_frame_t *frame,
                      const void *body)
{
    dj_door_t *door = rank->door;
    const dj_plan_message_t *plan = body;
    uint64_t tail = (uint64_t)plan->structure_bytes + plan->sizes_bytes + plan->plan_bytes;
    if (tail != frame->length - sizeof(*plan))
        return dj_door_refuse(rank, c, dj_fail(DJ_ERR_PROTOCOL, "PLAN's parts do not add up"));
    dj_coordinator_keep(&door->coordinator, body, frame->length);
    for (uint32_t i = 0; i < door->n_connections; i++) {
        dj_connection_t *to = door->connections[i];
        if (to == c || to->role != DJ_ROLE_WORKER ||
            !dj_hash_equal(to->device_class, plan->device_class))
            continue;
        if (!dj_door_send(rank, to, DJ_MESSAGE_PLAN, plan, sizeof(*plan), plan + 1, (uint32_t)tail))
            i--;
    }
    return true;
}

/* The process that was this rank before, if it is still connected, is told that it is no more. */
static void fence(dj_rank_t *rank, uint64_t connection, const dj_register_t *by)
{
    dj_connection_t *old = connection ? dj_door_find(rank->door, connection) : NULL;
    if (old)
        dj_door_refuse(rank, old, dj_fail(DJ_ERR_STALE, "rank %u was replaced: incarnation %u is at %s",
                                          by->rank, by->incarnation, by->endpoint));
}

static bool take_register(dj_rank_t *rank, dj_connection_t *c, const dj_register_t *about)
{
    dj_door_t *door = rank->door;
    uint64_t replaced;
    dj_status_t status = dj_coordinator_register(&door->coordinator, c->id, about, &replaced);
    if (status != DJ_OK)
        return dj_door_refuse(rank, c, status);
    c->device_class = about->device_class;
    dj_log(INFO, "rank %u incarnation %u serves at %s", about->rank, about->incarnation,
           about->endpoint);
    fence(rank, replaced, about);
    if (!dj_roster_tell_all(rank, c))
        return false;
    for (uint32_t i = 0; i < DJ_KEPT_PLANS_MAX; i++) {
        const dj_kept_plan_t *kept = &door->coordinator.plans[i];
        if (kept->data && dj_hash_equal(kept->device_class, about->device_class) &&
            !dj_door_send(rank, c, DJ_MESSAGE_PLAN, kept->data, sizeof(dj_plan_message_t),
                        kept->data + sizeof(dj_plan_message_t),
                        kept->bytes - (uint32_t)sizeof(dj_plan_message_t)))
            return false;
    }
    for (uint32_t i = door->n_connections; i-- > 0;)
        if (i < door->n_connections && door->connections[i]->waits_for_worker)
            dj_door_redirect(rank, door->connections[i]);
    return true;
}

static bool take_info(dj_rank_t *rank, dj_connection_t *c)
{
    char *text = dj_coordinator_describe(&rank->door->coordinator, rank);
    if (!text)
        return dj_door_refuse(rank, c, dj_fail(DJ_ERR_MEMORY, "no memory for the description"));
    dj_info_reply_t reply = {.text_bytes = (uint32_t)strlen(text)};
    bool alive = dj_door_send(rank, c, DJ_MESSAGE_INFO_REPLY, &reply, sizeof(reply), text,
                            reply.text_bytes);
    free(text);
    return alive;
}

static bool take_close(dj_rank_t *rank, dj_connection_t *c, const dj_close_t *close)
{
    if (c->closing) /* each one is a command, and commands have no other bound */
        return dj_door_refuse(rank, c, dj_fail(DJ_ERR_PROTOCOL, "CLOSE for the second time"));
    dj_command_t *command = dj_door_command(DJ_COMMAND_CLOSE, c->id);
    if (!command)
        return dj_door_refuse(rank, c, dj_fail(DJ_ERR_MEMORY, "no memory to end a session"));
    c->closing = true;
    command->hello.session = close->session;
    command->hello.generation = close->generation;
    dj_door_post_command(rank, command);
    return true;
}

/* False: the connection is gone. */
static bool take_frame(dj_rank_t *rank, dj_connection_t *c, const dj_frame_t *frame,
                       const void *body)
{
    if (!c->greeted && frame->type == DJ_MESSAGE_HELLO)
        return dj_door_greet(rank, c, body, frame->length);
    if (c->greeted && frame->type == DJ_MESSAGE_HEARTBEAT)
        return true;
    if (c->role == DJ_ROLE_CLIENT && frame->type == DJ_MESSAGE_CLOSE && rank->serves)
        return take_close(rank, c, body);
    if (c->channel && c->welcomed && frame->type == DJ_MESSAGE_TUNNEL)
        return dj_carry_in(rank, c, body, frame->length);
    if (c->role == DJ_ROLE_TOOL && frame->type == DJ_MESSAGE_INFO)
        return take_info(rank, c);
    if (c->role == DJ_ROLE_WORKER && frame->type == DJ_MESSAGE_REGISTER)
        return take_register(rank, c, body);
    if (c->role == DJ_ROLE_WORKER && frame->type == DJ_MESSAGE_REPORT) {
        dj_coordinator_report(&rank->door->coordinator, c->id, body);
        return true;
    }
    if (c->role == DJ_ROLE_WORKER && frame->type == DJ_MESSAGE_ENDING) {
        dj_coordinator_ending(&rank->door->coordinator, c->id);
        return true;
    }
    if (c->role == DJ_ROLE_WORKER && frame->type == DJ_MESSAGE_PLAN)
        return take_plan(rank, c, frame, body);
    return dj_door_refuse(rank, c, dj_fail(DJ_ERR_PROTOCOL, "%s is not for this peer to send here",
                                   dj_message_name(frame->type)));
}

/* What is there, but not so much that others wait long. */
static void read_connection(dj_rank_t *rank, dj_connection_t *c)
{
    dj_frame_t frame;
    const void *body;
    for (int i = 0; i < DJ_FRAMES_PER_TURN && !c->full; i++) {
        dj_status_t status = dj_control_try_receive(c->control, &frame, &body);
        if (status == DJ_IN_PROGRESS) {
            c->unread = false;
            return;
        }
        if (status == DJ_ERR_PROTOCOL || status == DJ_ERR_VERSION || status == DJ_ERR_LIMIT) {
            dj_door_refuse(rank, c, status);
            return;
        }
        if (status != DJ_OK) {
            dj_door_end(rank, c);
            return;
        }
        if (!take_frame(rank, c, &frame, body))
            return;
    }
    c->unread = true; /* in our buffer, where epoll does not look */
    rank->door->unread = rank->door->unread || !c->full;
    dj_door_rewatch(rank->door, c);
}

static void read_rest(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    if (!door->unread)
        return;
    door->unread = false;
    for (uint32_t i = door->n_connections; i-- > 0;)
        if (i < door->n_connections && door->connections[i]->unread && !door->connections[i]->full)
            read_connection(rank, door->connections[i]);
}

/* ---- heartbeats ---- */

static bool is_late(const dj_rank_t *rank, const dj_connection_t *c, uint64_t now_ns)
{
    if (c->role == DJ_ROLE_TOOL || (c->greeted && !c->welcomed))
        return now_ns > c->admitted_ns + DJ_ANSWER_MS * DJ_NS_PER_MS;
    if (!c->greeted)
        return now_ns > c->admitted_ns + DJ_HELLO_MS * DJ_NS_PER_MS;
    if (c->full)
        return false; /* we are the ones who do not listen */
    return now_ns > dj_control_last_heard_ns(c->control) + rank->config->suspect_ms * DJ_NS_PER_MS;
}

static void end_late(dj_rank_t *rank, dj_connection_t *c)
{
    if (!c->waits_for_worker)
        dj_door_end(rank, c);
    else if (c->wanted == DJ_RANK_ANY)
        dj_door_refuse(rank, c, dj_fail(DJ_ERR_DEADLINE, "none of the ranks 1 to %u is here to serve: see "
                                                         "djinn info and the server's log", rank->n_ranks - 1));
    else
        dj_door_refuse(rank, c, dj_fail(DJ_ERR_DEADLINE, "rank %u is not here to serve: see djinn info and the "
                                                         "server's log", c->wanted));
}

/* What it has sent may lie unread: this thread was stopped, or had too much to do. */
static void end_if_late(dj_rank_t *rank, dj_connection_t *c, uint64_t now_ns)
{
    uint64_t id = c->id;
    if (!is_late(rank, c, now_ns))
        return;
    read_connection(rank, c);
    c = dj_door_find(rank->door, id);
    if (c && is_late(rank, c, now_ns))
        end_late(rank, c);
}

static void end_silent(dj_rank_t *rank, uint64_t now_ns)
{
    dj_door_t *door = rank->door;
    uint64_t watch_ns = rank->config->heartbeat_ms * DJ_NS_PER_MS;
    if (now_ns - door->watched_ns < watch_ns)
        return;
    door->watched_ns = now_ns;
    for (uint32_t i = door->n_connections; i-- > 0;)
        if (i < door->n_connections)
            end_if_late(rank, door->connections[i], now_ns);
    dj_relay_sweep(rank, now_ns);
}

uint32_t dj_door_round_ms(const dj_config_t *config)
{
    uint64_t longest_ms = config->suspect_ms * 3 / 5;
    if (longest_ms > DJ_ROUND_MS_MAX)
        longest_ms = DJ_ROUND_MS_MAX;
    return (uint32_t)(longest_ms > config->heartbeat_ms ? longest_ms : config->heartbeat_ms);
}

static uint64_t round_length_ns(const dj_rank_t *rank)
{
    uint64_t beat_ns = rank->config->heartbeat_ms * DJ_NS_PER_MS;
    uint64_t longest_ns = dj_door_round_ms(rank->config) * DJ_NS_PER_MS;
    uint64_t wanted_ns = beat_ns * rank->door->n_connections / DJ_FAST_ROUND_MAX;
    if (wanted_ns > longest_ns)
        wanted_ns = longest_ns;
    return wanted_ns > beat_ns ? wanted_ns : beat_ns;
}

static void greet_again(dj_rank_t *rank, dj_connection_t *c, uint64_t now_ns)
{
    dj_heartbeat_t heartbeat = {now_ns};
    if (c->welcomed && !dj_control_unsent(c->control)) /* else what waits there is sign enough */
        dj_door_send(rank, c, DJ_MESSAGE_HEARTBEAT, &heartbeat, sizeof(heartbeat), NULL, 0);
}

/* From the list's end to its front: one that ends is replaced by the last, which had its heartbeat. */
static void go_round(dj_rank_t *rank, uint64_t now_ns)
{
    dj_door_t *door = rank->door;
    uint64_t length_ns = round_length_ns(rank);
    if (!door->round_left && now_ns - door->round_ns >= length_ns) {
        door->round_ns = now_ns;
        door->round_left = door->round_count = door->n_connections;
    }
    uint64_t due = (now_ns - door->round_ns) * 2 * door->round_count / length_ns + DJ_SLICE;
    while (door->round_left && door->round_count - door->round_left < due)
        if (--door->round_left < door->n_connections)
            greet_again(rank, door->connections[door->round_left], now_ns);
}

/* How long the thread may sleep. */
static int pause_ms(const dj_rank_t *rank)
{
    const dj_door_t *door = rank->door;
    if (door->unread)
        return 0;
    if (door->round_left)
        return DJ_SLICE_MS;
    if (!rank->coordinates && !door->link)
        return 20;
    return rank->config->heartbeat_ms < 1000 ? (int)rank->config->heartbeat_ms : 1000;
}

/* ---- the thread ---- */

void dj_door_announce(dj_rank_t *rank)
{
    rank->door->announced = true;
    if (rank->config->ready_fd && write((int)rank->config->ready_fd, "ready\n", 6) != 6)
        dj_log(WARN, "the supervisor does not hear that this rank is ready: %s", strerror(errno));
}

static void take_connection_event(dj_rank_t *rank, dj_connection_t *c, uint32_t events)
{
    if ((events & EPOLLOUT) && dj_control_flush(c->control) < 0) {
        dj_door_end(rank, c);
        return;
    }
    if ((events & EPOLLOUT) && c->channel && !dj_carry_out(rank, c))
        return;
    dj_door_rewatch(rank->door, c);
    if (events & (EPOLLERR | EPOLLHUP) && c->full)
        dj_door_end(rank, c); /* nothing may be read, and it would be said again and again */
    else
        read_connection(rank, c);
}

static void take_event(dj_rank_t *rank, const struct epoll_event *event)
{
    dj_door_t *door = rank->door;
    dj_connection_t *c;
    if (event->data.u64 == DJ_DOOR_LISTENS) {
        admit(rank);
    } else if (event->data.u64 == DJ_DOOR_OUTBOX) {
        dj_outbox_drain(rank);
    } else if (event->data.u64 == DJ_DOOR_LINK) {
        if (door->link)
            dj_link_read(rank);
    } else if ((c = dj_door_find(door, event->data.u64))) {
        take_connection_event(rank, c, event->events);
    } else {
        dj_relay_event(rank, event->data.u64, event->events);
    }
}

static void door_turn(dj_rank_t *rank)
{
    struct epoll_event events[DJ_EVENTS_MAX];
    int n = epoll_wait(rank->door->epoll_fd, events, DJ_EVENTS_MAX, pause_ms(rank));
    for (int i = 0; i < n; i++)
        take_event(rank, &events[i]);
    read_rest(rank);
}

void *dj_door_main(void *argument)
{
    dj_rank_t *rank = argument;
    pthread_setname_np(pthread_self(), "dj-control");
    dj_bind_thread(rank->config->heartbeat_cores, "heartbeat");
    if (rank->coordinates)
        dj_door_announce(rank);
    while (!atomic_load(&rank->stop)) {
        uint64_t now_ns = dj_clock_ns();
        dj_link_keep(rank, now_ns);
        dj_link_report(rank, now_ns);
        end_silent(rank, now_ns);
        go_round(rank, now_ns);
        dj_roster_tell(rank);
        dj_ending_tell(rank);
        dj_ending_watch(rank);
        dj_rank_watch_device(rank, now_ns);
        door_turn(rank);
    }
    dj_ending_last_words(rank);
    return NULL;
}

/* A client costs descriptors (its connection, shared memory): the hard limit is ours to use. */
static void raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static dj_status_t open_descriptors(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    door->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    door->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    rank->outbox_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (door->spare_fd < 0 || door->epoll_fd < 0 || rank->outbox_fd < 0)
        return dj_fail(DJ_ERR_SYSTEM, "no descriptors for the control thread: %s", strerror(errno));
    dj_status_t status = dj_door_watch(door, door->listen_fd, DJ_DOOR_LISTENS);
    door->listens = status == DJ_OK;
    return status == DJ_OK ? dj_door_watch(door, rank->outbox_fd, DJ_DOOR_OUTBOX) : status;
}

dj_status_t dj_door_open(dj_rank_t *rank)
{
    dj_door_t *door = calloc(1, sizeof(*door));
    if (!door || !(door->connections = calloc(DJ_CONNECTIONS_MAX, sizeof(void *)))) {
        free(door);
        return dj_fail(DJ_ERR_MEMORY, "no memory for connections");
    }
    raise_file_limit();
    rank->door = door;
    door->last_connection = DJ_DOOR_FIRST;
    door->epoll_fd = door->spare_fd = -1;
    door->listen_fd = (int)rank->config->listen_fd;
    dj_status_t status = DJ_OK;
    if (!door->listen_fd)
        status = dj_control_listen(rank->config->listen, &door->listen_fd, rank->endpoint);
    else
        status = dj_control_endpoint(door->listen_fd, rank->endpoint);
    return status == DJ_OK ? open_descriptors(rank) : status;
}

void dj_door_close(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    dj_queue_entry_t *entry;
    if (!door)
        return;
    while (door->n_connections)
        dj_door_end(rank, door->connections[0]);
    dj_outbox_empty(rank);
    dj_relay_end_all(door);
    while ((entry = dj_queue_try_pop(&rank->commands))) { /* nobody is left to obey them */
        dj_channel_put(((dj_command_t *)entry)->channel);
        free(entry);
    }
    if (door->link)
        dj_control_close(door->link);
    if (door->epoll_fd >= 0)
        close(door->epoll_fd);
    if (door->spare_fd >= 0)
        close(door->spare_fd);
    dj_table_fini(&door->by_id);
    dj_coordinator_fini(&door->coordinator);
    free(door->connections);
    free(door);
    rank->door = NULL;
}
