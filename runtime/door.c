/* door.c - the control thread: everyone who connects to this rank, and the link to the coordinator.
 *
 * A connection is a stranger until its hello was proven; strangers are few, and have two seconds. After
 * that its role says which frames it may send. Sends never wait: a peer that does not read loses its
 * connection. Heartbeats go out and are watched here; silence ends a connection like its own end does. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/door.h"

#define DJ_LOG_MODULE "control"

enum {
    DJ_STRANGERS_MAX = 128,
    DJ_CONNECTIONS_MAX = 4096,
    DJ_HELLO_MS = 2000,
    DJ_GRANT_MS = 10000,
    DJ_LINK_MS = 150,
};

static uint64_t realtime_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- outbox ---- */

static dj_status_t outbox_push(dj_rank_t *rank, dj_outgoing_t *out)
{
    uint64_t one = 1;
    dj_queue_push(&rank->outbox, &out->entry);
    return write(rank->outbox_fd, &one, sizeof(one)) == sizeof(one)
               ? DJ_OK
               : dj_fail(DJ_ERR_SYSTEM, "waking the control thread: %s", strerror(errno));
}

static dj_outgoing_t *outgoing(uint64_t connection, uint16_t type, const void *body,
                               uint32_t body_bytes, const void *tail, uint32_t tail_bytes)
{
    dj_outgoing_t *out = calloc(1, sizeof(*out) + body_bytes + tail_bytes);
    if (!out)
        return NULL;
    out->connection = connection;
    out->type = type;
    out->body_bytes = body_bytes;
    out->tail_bytes = tail_bytes;
    if (body_bytes)
        memcpy(out->bytes, body, body_bytes);
    if (tail_bytes)
        memcpy(out->bytes + body_bytes, tail, tail_bytes);
    return out;
}

dj_status_t dj_outbox_put(dj_rank_t *rank, uint64_t connection, uint16_t type, const void *body,
                          uint32_t body_bytes, const void *tail, uint32_t tail_bytes, bool end)
{
    dj_outgoing_t *out = outgoing(connection, type, body, body_bytes, tail, tail_bytes);
    if (!out)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a control frame");
    out->end = end;
    return outbox_push(rank, out);
}

dj_status_t dj_outbox_welcome(dj_rank_t *rank, uint64_t connection, const dj_welcome_t *welcome,
                              const void *address)
{
    dj_outgoing_t *out = outgoing(connection, DJ_MESSAGE_WELCOME, welcome, sizeof(*welcome),
                                  address, welcome->address_bytes);
    if (!out)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a control frame");
    out->session = welcome->session;
    out->generation = welcome->generation;
    return outbox_push(rank, out);
}

/* ---- connections ---- */

static void end_connection(dj_rank_t *rank, dj_connection_t *c)
{
    dj_door_t *door = rank->door;
    if (c->role == DJ_ROLE_CLIENT && c->greeted && rank->serves) {
        dj_command_t *command = calloc(1, sizeof(*command));
        if (command) {
            command->kind = DJ_COMMAND_DETACH;
            command->connection = c->id;
            dj_queue_push(&rank->commands, &command->entry);
            dj_comm_wake(rank->comm);
        }
    }
    if (c->role == DJ_ROLE_WORKER)
        dj_coordinator_lost(&door->coordinator, c->id);
    if (!c->greeted)
        door->strangers--;
    dj_control_close(c->control);
    dj_connection_t *last = door->connections[--door->n_connections];
    door->connections[c->place] = last;
    last->place = c->place;
    free(c);
}

/* False: the connection is gone. */
static bool send_frame(dj_rank_t *rank, dj_connection_t *c, uint16_t type, const void *body,
                       uint32_t body_bytes, const void *tail, uint32_t tail_bytes)
{
    dj_status_t status = dj_control_send(c->control, (dj_message_t)type, body, body_bytes, tail,
                                         tail_bytes, dj_clock_ns() + 20 * DJ_NS_PER_MS);
    if (status == DJ_OK)
        return true;
    dj_log(DEBUG, "%s: %s", dj_control_peer(c->control), dj_error_text());
    end_connection(rank, c);
    return false;
}

static bool refuse(dj_rank_t *rank, dj_connection_t *c, dj_status_t status)
{
    dj_refuse_t refuse = {.status = status};
    snprintf(refuse.text, sizeof(refuse.text), "%s", dj_error_text());
    dj_log(INFO, "%s refused: %s", dj_control_peer(c->control), refuse.text);
    if (send_frame(rank, c, DJ_MESSAGE_REFUSE, &refuse, sizeof(refuse), NULL, 0))
        end_connection(rank, c);
    return false;
}

static void admit(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    int fd;
    while ((fd = accept4(door->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        dj_connection_t *c = calloc(1, sizeof(*c));
        if (!c || door->strangers >= DJ_STRANGERS_MAX ||
            door->n_connections >= DJ_CONNECTIONS_MAX ||
            dj_control_adopt(fd, &c->control) != DJ_OK) {
            free(c);
            close(fd);
            continue;
        }
        c->id = ++door->last_connection;
        c->admitted_ns = dj_clock_ns();
        c->place = door->n_connections;
        door->connections[door->n_connections++] = c;
        door->strangers++;
        dj_challenge_t challenge = {.rank = rank->rank, .incarnation = rank->incarnation};
        dj_random_bytes(c->nonce, sizeof(c->nonce));
        memcpy(challenge.nonce, c->nonce, sizeof(c->nonce));
        send_frame(rank, c, DJ_MESSAGE_CHALLENGE, &challenge, sizeof(challenge), NULL, 0);
    }
}

/* ---- hello ---- */

static dj_status_t check_hello(const dj_rank_t *rank, const dj_connection_t *c,
                               const dj_hello_t *hello, uint32_t length)
{
    uint8_t proof[DJ_PROOF_BYTES];
    uint32_t tail = length - (uint32_t)sizeof(*hello);
    if (hello->address_bytes > tail || hello->address_bytes > DJ_ADDRESS_BYTES_MAX)
        return dj_fail(DJ_ERR_PROTOCOL, "HELLO announces an address of %u bytes and brings %u",
                       hello->address_bytes, tail);
    dj_hello_t unproven = *hello;
    memset(unproven.proof, 0, sizeof(unproven.proof));
    dj_hello_prove(proof, rank->token, c->nonce, &unproven, hello + 1, tail);
    if (!dj_proof_equal(proof, hello->proof))
        return dj_fail(DJ_ERR_AUTH, "the token is not this server's: give the one in the server's "
                                    "token file or in DJINN_TOKEN");
    dj_hash_t table = dj_op_table_hash();
    if (hello->role != DJ_ROLE_TOOL && !dj_hash_equal(hello->op_table, table))
        return dj_fail(DJ_ERR_VERSION, "the peer was built with another op table: install the same "
                                       "version of Djinn on both sides");
    return DJ_OK;
}

static dj_status_t check_grant(const dj_rank_t *rank, const dj_hello_t *hello)
{
    uint8_t proof[DJ_PROOF_BYTES];
    if (!hello->grant_expires_ms)
        return hello->session && !(hello->flags & DJ_HELLO_REATTACH)
                   ? dj_fail(DJ_ERR_AUTH, "a session is named without a grant")
                   : DJ_OK;
    dj_grant_prove(proof, rank->token, hello->session, rank->rank, rank->incarnation,
                   hello->grant_expires_ms, hello->uid);
    if (!dj_proof_equal(proof, hello->grant))
        return dj_fail(DJ_ERR_STALE, "the grant is not for rank %u incarnation %u: ask the "
                                     "coordinator again", rank->rank, rank->incarnation);
    if (realtime_ms() > hello->grant_expires_ms)
        return dj_fail(DJ_ERR_STALE, "the grant has expired: ask the coordinator again");
    return DJ_OK;
}

static bool post_client(dj_rank_t *rank, dj_connection_t *c, dj_command_kind_t kind,
                        const dj_hello_t *hello, const void *address)
{
    dj_command_t *command = calloc(1, sizeof(*command));
    if (!command)
        return refuse(rank, c, dj_fail(DJ_ERR_MEMORY, "no memory for a session"));
    command->kind = kind;
    command->connection = c->id;
    command->hello = *hello;
    command->address_bytes = hello->address_bytes;
    if (address)
        memcpy(command->address, address, hello->address_bytes);
    dj_queue_push(&rank->commands, &command->entry);
    dj_comm_wake(rank->comm);
    return true;
}

/* Rank 0 of several: sends the client on, or keeps it waiting until a worker is here. */
static bool redirect(dj_rank_t *rank, dj_connection_t *c)
{
    dj_worker_t *worker = dj_coordinator_choose(&rank->door->coordinator);
    c->waits_for_worker = worker == NULL;
    if (!worker)
        return true;
    dj_redirect_t redirect = {.session = dj_random_u64(), .rank = worker->about.rank,
                              .incarnation = worker->about.incarnation,
                              .grant_expires_ms = realtime_ms() + DJ_GRANT_MS};
    snprintf(redirect.endpoint, sizeof(redirect.endpoint), "%s", worker->about.endpoint);
    dj_grant_prove(redirect.grant, rank->token, redirect.session, redirect.rank,
                   redirect.incarnation, redirect.grant_expires_ms, c->uid);
    if (send_frame(rank, c, DJ_MESSAGE_REDIRECT, &redirect, sizeof(redirect), NULL, 0))
        end_connection(rank, c);
    return false;
}

static bool welcome_plainly(dj_rank_t *rank, dj_connection_t *c)
{
    dj_welcome_t welcome = {.rank = rank->rank, .incarnation = rank->incarnation,
                            .heartbeat_ms = (uint32_t)rank->config->heartbeat_ms,
                            .suspect_ms = (uint32_t)rank->config->suspect_ms,
                            .host = dj_host_identity()};
    c->welcomed = true;
    return send_frame(rank, c, DJ_MESSAGE_WELCOME, &welcome, sizeof(welcome), NULL, 0);
}

static bool greet(dj_rank_t *rank, dj_connection_t *c, const dj_hello_t *hello, uint32_t length)
{
    dj_status_t status = check_hello(rank, c, hello, length);
    if (status == DJ_OK && hello->role == DJ_ROLE_CLIENT && rank->serves)
        status = check_grant(rank, hello);
    if (status == DJ_OK && hello->role == DJ_ROLE_WORKER && !rank->coordinates)
        status = dj_fail(DJ_ERR_INVALID, "rank %u is no coordinator", rank->rank);
    if (status == DJ_OK && (hello->role < DJ_ROLE_CLIENT || hello->role > DJ_ROLE_TOOL))
        status = dj_fail(DJ_ERR_PROTOCOL, "role %u in the hello", hello->role);
    if (status != DJ_OK)
        return refuse(rank, c, status);
    c->role = hello->role;
    c->uid = hello->uid;
    c->greeted = true;
    rank->door->strangers--;
    dj_control_trust(c->control);
    if (c->role != DJ_ROLE_CLIENT)
        return welcome_plainly(rank, c);
    if (rank->serves)
        return post_client(rank, c, DJ_COMMAND_ATTACH, hello, hello + 1);
    return redirect(rank, c);
}

/* ---- frames of greeted peers ---- */

static bool take_plan(dj_rank_t *rank, dj_connection_t *c, const dj_frame_t *frame,
                      const void *body)
{
    dj_door_t *door = rank->door;
    const dj_plan_message_t *plan = body;
    uint64_t tail = (uint64_t)plan->structure_bytes + plan->sizes_bytes + plan->plan_bytes;
    if (tail != frame->length - sizeof(*plan))
        return refuse(rank, c, dj_fail(DJ_ERR_PROTOCOL, "PLAN's parts do not add up"));
    dj_coordinator_keep(&door->coordinator, body, frame->length);
    for (uint32_t i = 0; i < door->n_connections; i++) {
        dj_connection_t *to = door->connections[i];
        if (to == c || to->role != DJ_ROLE_WORKER ||
            !dj_hash_equal(to->device_class, plan->device_class))
            continue;
        if (!send_frame(rank, to, DJ_MESSAGE_PLAN, plan, sizeof(*plan), plan + 1, (uint32_t)tail))
            i--;
    }
    return true;
}

static bool take_register(dj_rank_t *rank, dj_connection_t *c, const dj_register_t *about)
{
    dj_door_t *door = rank->door;
    dj_status_t status = dj_coordinator_register(&door->coordinator, c->id, about);
    if (status != DJ_OK)
        return refuse(rank, c, status);
    c->device_class = about->device_class;
    dj_log(INFO, "rank %u incarnation %u serves at %s", about->rank, about->incarnation,
           about->endpoint);
    for (uint32_t i = 0; i < DJ_KEPT_PLANS_MAX; i++) {
        const dj_kept_plan_t *kept = &door->coordinator.plans[i];
        if (kept->data && dj_hash_equal(kept->device_class, about->device_class) &&
            !send_frame(rank, c, DJ_MESSAGE_PLAN, kept->data, sizeof(dj_plan_message_t),
                        kept->data + sizeof(dj_plan_message_t),
                        kept->bytes - (uint32_t)sizeof(dj_plan_message_t)))
            return false;
    }
    for (uint32_t i = door->n_connections; i-- > 0;)
        if (i < door->n_connections && door->connections[i]->waits_for_worker)
            redirect(rank, door->connections[i]);
    return true;
}

static bool take_info(dj_rank_t *rank, dj_connection_t *c)
{
    char *text = dj_coordinator_describe(&rank->door->coordinator, rank);
    if (!text)
        return refuse(rank, c, dj_fail(DJ_ERR_MEMORY, "no memory for the description"));
    dj_info_reply_t reply = {.text_bytes = (uint32_t)strlen(text)};
    bool alive = send_frame(rank, c, DJ_MESSAGE_INFO_REPLY, &reply, sizeof(reply), text,
                            reply.text_bytes);
    free(text);
    return alive;
}

static bool take_close(dj_rank_t *rank, dj_connection_t *c, const dj_close_t *close)
{
    dj_hello_t who = {.session = close->session, .generation = close->generation};
    return post_client(rank, c, DJ_COMMAND_CLOSE, &who, NULL);
}

/* False: the connection is gone. */
static bool take_frame(dj_rank_t *rank, dj_connection_t *c, const dj_frame_t *frame,
                       const void *body)
{
    if (!c->greeted && frame->type == DJ_MESSAGE_HELLO)
        return greet(rank, c, body, frame->length);
    if (c->greeted && frame->type == DJ_MESSAGE_HEARTBEAT)
        return true;
    if (c->role == DJ_ROLE_CLIENT && frame->type == DJ_MESSAGE_CLOSE && rank->serves)
        return take_close(rank, c, body);
    if (c->role == DJ_ROLE_TOOL && frame->type == DJ_MESSAGE_INFO)
        return take_info(rank, c);
    if (c->role == DJ_ROLE_WORKER && frame->type == DJ_MESSAGE_REGISTER)
        return take_register(rank, c, body);
    if (c->role == DJ_ROLE_WORKER && frame->type == DJ_MESSAGE_REPORT) {
        dj_coordinator_report(&rank->door->coordinator, c->id, body);
        return true;
    }
    if (c->role == DJ_ROLE_WORKER && frame->type == DJ_MESSAGE_PLAN)
        return take_plan(rank, c, frame, body);
    return refuse(rank, c, dj_fail(DJ_ERR_PROTOCOL, "%s is not for this peer to send here",
                                   dj_message_name(frame->type)));
}

static void read_connection(dj_rank_t *rank, dj_connection_t *c)
{
    dj_frame_t frame;
    const void *body;
    for (;;) {
        dj_status_t status = dj_control_try_receive(c->control, &frame, &body);
        if (status == DJ_IN_PROGRESS)
            return;
        if (status == DJ_ERR_PROTOCOL || status == DJ_ERR_VERSION || status == DJ_ERR_LIMIT) {
            refuse(rank, c, status);
            return;
        }
        if (status != DJ_OK) {
            end_connection(rank, c);
            return;
        }
        if (!take_frame(rank, c, &frame, body))
            return;
    }
}

/* ---- the link to the coordinator ---- */

static dj_status_t link_open(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    const dj_device_info_t *info = rank->home.device->ops->info(rank->home.device);
    uint64_t deadline_ns = dj_clock_ns() + DJ_LINK_MS * DJ_NS_PER_MS;
    dj_hello_t hello = {.role = DJ_ROLE_WORKER, .uid = (uint32_t)getuid(),
                        .pid = (uint32_t)getpid(), .host = dj_host_identity(),
                        .op_table = dj_op_table_hash()};
    dj_register_t about = {.rank = rank->rank, .incarnation = rank->incarnation,
                           .pid = (uint32_t)getpid(), .threads = info->threads,
                           .device_class = info->class_hash, .memory_bytes = info->memory_bytes};
    dj_frame_t frame;
    const void *body;
    snprintf(about.endpoint, sizeof(about.endpoint), "%s", rank->endpoint);
    snprintf(about.device, sizeof(about.device), "%.63s", info->name);
    dj_status_t status = dj_control_connect(rank->config->coordinator, deadline_ns, &door->link);
    if (status != DJ_OK)
        return status;
    status = dj_control_greet(door->link, rank->token, &hello, NULL, deadline_ns, &frame, &body);
    if (status == DJ_OK) {
        dj_control_trust(door->link);
        status = dj_control_send(door->link, DJ_MESSAGE_REGISTER, &about, sizeof(about), NULL, 0,
                                 deadline_ns);
    }
    if (status != DJ_OK) {
        dj_control_close(door->link);
        door->link = NULL;
    }
    return status;
}

static void link_lost(dj_door_t *door, const char *cause)
{
    dj_log(WARN, "the coordinator is lost: %s; sessions here go on", cause);
    dj_control_close(door->link);
    door->link = NULL;
    door->link_retry_ns = dj_clock_ns() + 50 * DJ_NS_PER_MS;
}

static void link_keep(dj_rank_t *rank, uint64_t now_ns)
{
    dj_door_t *door = rank->door;
    if (rank->coordinates || door->link || now_ns < door->link_retry_ns)
        return;
    if (link_open(rank) != DJ_OK) {
        dj_log(DEBUG, "no coordinator yet: %s", dj_error_text());
        door->link_retry_ns = dj_clock_ns() + 50 * DJ_NS_PER_MS;
    } else if (!door->announced) {
        dj_door_announce(rank);
    }
}

static void link_plan(dj_rank_t *rank, const dj_frame_t *frame, const dj_plan_message_t *plan)
{
    const uint8_t *structure = (const uint8_t *)(plan + 1);
    uint64_t tail = (uint64_t)plan->structure_bytes + plan->sizes_bytes + plan->plan_bytes;
    if (tail != frame->length - sizeof(*plan))
        return;
    const uint8_t *sizes = structure + plan->structure_bytes;
    dj_status_t status = dj_cache_publish(rank->home.cache, plan->exact_key, structure,
                                          plan->structure_bytes, sizes, plan->sizes_bytes,
                                          sizes + plan->sizes_bytes, plan->plan_bytes);
    if (status != DJ_OK)
        dj_log(WARN, "a published plan was not taken: %s", dj_error_text());
}

static void link_read(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    dj_frame_t frame;
    const void *body;
    dj_status_t status;
    while ((status = dj_control_try_receive(door->link, &frame, &body)) == DJ_OK) {
        if (frame.type == DJ_MESSAGE_PLAN)
            link_plan(rank, &frame, body);
        else if (frame.type == DJ_MESSAGE_REFUSE)
            dj_log(ERROR, "the coordinator refuses: %s", ((const dj_refuse_t *)body)->text);
    }
    if (status != DJ_IN_PROGRESS)
        link_lost(door, dj_error_text());
}

/* ---- time ---- */

static void beat(dj_rank_t *rank, uint64_t now_ns)
{
    dj_door_t *door = rank->door;
    uint64_t suspect_ns = rank->config->suspect_ms * DJ_NS_PER_MS;
    dj_heartbeat_t heartbeat = {now_ns};
    for (uint32_t i = door->n_connections; i-- > 0;) {
        dj_connection_t *c = door->connections[i];
        bool late = c->greeted ? now_ns > dj_control_last_heard_ns(c->control) + suspect_ns
                               : now_ns > c->admitted_ns + DJ_HELLO_MS * DJ_NS_PER_MS;
        if (c->role == DJ_ROLE_TOOL || (c->greeted && !c->welcomed))
            late = now_ns > c->admitted_ns + 10 * DJ_NS_PER_S;
        if (late)
            end_connection(rank, c);
        else if (c->welcomed)
            send_frame(rank, c, DJ_MESSAGE_HEARTBEAT, &heartbeat, sizeof(heartbeat), NULL, 0);
    }
    if (!door->link)
        return;
    dj_report_t report;
    dj_rank_report(rank, &report);
    if (now_ns > dj_control_last_heard_ns(door->link) + suspect_ns)
        link_lost(door, "it has been silent too long");
    else if (dj_control_send(door->link, DJ_MESSAGE_REPORT, &report, sizeof(report), NULL, 0,
                             now_ns + 20 * DJ_NS_PER_MS) != DJ_OK)
        link_lost(door, dj_error_text());
}

static void drain_outbox(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    dj_queue_entry_t *entry;
    uint64_t count;
    while (read(rank->outbox_fd, &count, sizeof(count)) > 0)
        ;
    while ((entry = dj_queue_try_pop(&rank->outbox))) {
        dj_outgoing_t *out = (dj_outgoing_t *)entry;
        dj_connection_t *c = NULL;
        for (uint32_t i = 0; i < door->n_connections && out->connection; i++)
            if (door->connections[i]->id == out->connection)
                c = door->connections[i];
        if (!out->connection && door->link && out->type)
            dj_control_send(door->link, (dj_message_t)out->type, out->bytes, out->body_bytes,
                            out->bytes + out->body_bytes, out->tail_bytes,
                            dj_clock_ns() + 100 * DJ_NS_PER_MS);
        bool alive = c && (!out->type || send_frame(rank, c, out->type, out->bytes,
                                                    out->body_bytes, out->bytes + out->body_bytes,
                                                    out->tail_bytes));
        if (alive && out->end)
            end_connection(rank, c);
        else if (alive && out->type == DJ_MESSAGE_WELCOME)
            c->welcomed = true;
        free(out);
    }
}

/* ---- the thread ---- */

void dj_door_announce(dj_rank_t *rank)
{
    rank->door->announced = true;
    if (rank->config->ready_fd && write((int)rank->config->ready_fd, "ready\n", 6) != 6)
        dj_log(WARN, "the supervisor does not hear that this rank is ready: %s", strerror(errno));
}

static void door_turn(dj_rank_t *rank, struct pollfd *polls)
{
    dj_door_t *door = rank->door;
    nfds_t n = 0;
    polls[n++] = (struct pollfd){.fd = door->listen_fd, .events = POLLIN};
    polls[n++] = (struct pollfd){.fd = rank->outbox_fd, .events = POLLIN};
    polls[n++] = (struct pollfd){.fd = door->link ? dj_control_fd(door->link) : -1,
                                 .events = POLLIN};
    uint32_t n_connections = door->n_connections;
    for (uint32_t i = 0; i < n_connections; i++)
        polls[n++] = (struct pollfd){.fd = dj_control_fd(door->connections[i]->control),
                                     .events = POLLIN};
    int wait_ms = rank->coordinates || door->link ? (int)rank->config->heartbeat_ms : 20;
    poll(polls, n, wait_ms);
    if (polls[1].revents)
        drain_outbox(rank);
    if (polls[2].revents && door->link)
        link_read(rank);
    for (uint32_t i = n_connections; i-- > 0;)
        if (polls[3 + i].revents && i < door->n_connections &&
            dj_control_fd(door->connections[i]->control) == polls[3 + i].fd)
            read_connection(rank, door->connections[i]);
    if (polls[0].revents)
        admit(rank);
}

void *dj_door_main(void *argument)
{
    dj_rank_t *rank = argument;
    dj_door_t *door = rank->door;
    uint64_t beat_ns = rank->config->heartbeat_ms * DJ_NS_PER_MS;
    struct pollfd *polls = calloc(DJ_CONNECTIONS_MAX + 3, sizeof(*polls));
    if (!polls)
        return NULL;
    pthread_setname_np(pthread_self(), "dj-control");
    if (rank->coordinates)
        dj_door_announce(rank);
    while (!atomic_load(&rank->stop)) {
        uint64_t now_ns = dj_clock_ns();
        link_keep(rank, now_ns);
        if (now_ns - door->beat_ns >= beat_ns) {
            door->beat_ns = now_ns;
            beat(rank, now_ns);
        }
        door_turn(rank, polls);
    }
    free(polls);
    return NULL;
}

dj_status_t dj_door_open(dj_rank_t *rank)
{
    dj_door_t *door = calloc(1, sizeof(*door));
    if (!door || !(door->connections = calloc(DJ_CONNECTIONS_MAX, sizeof(void *)))) {
        free(door);
        return dj_fail(DJ_ERR_MEMORY, "no memory for connections");
    }
    rank->door = door;
    door->listen_fd = (int)rank->config->listen_fd;
    dj_status_t status = DJ_OK;
    if (!door->listen_fd)
        status = dj_control_listen(rank->config->listen, &door->listen_fd, rank->endpoint);
    else
        status = dj_control_endpoint(door->listen_fd, rank->endpoint);
    if (status == DJ_OK && (rank->outbox_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        status = dj_fail(DJ_ERR_SYSTEM, "eventfd: %s", strerror(errno));
    return status;
}

void dj_door_close(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    dj_queue_entry_t *entry;
    if (!door)
        return;
    while (door->n_connections)
        end_connection(rank, door->connections[0]);
    while ((entry = dj_queue_try_pop(&rank->outbox)))
        free(entry);
    while ((entry = dj_queue_try_pop(&rank->commands))) /* nobody is left to obey them */
        free(entry);
    if (door->link)
        dj_control_close(door->link);
    dj_coordinator_fini(&door->coordinator);
    free(door->connections);
    free(door);
    rank->door = NULL;
}
