/* connect.c - from an address to a session: hello, redirection, endpoint, heartbeats; and the end.
 *
 * Rank 0 answers a client with WELCOME when it is alone, else with REDIRECT to a worker. A worker that died
 * between the two, or a grant that it does not know any more, leads back to rank 0, each time later, until
 * the deadline: nothing was begun that could be done twice. A first connection that is refused is told at
 * once. Through the relay all of it happens on one connection. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "client"

enum {
    DJ_HEARTBEAT_MS_MAX = 3600000, /* that a WELCOME may announce: the configuration's range */
    DJ_BEAT_MS_MIN = 5,
    DJ_RETRY_MS = 10,              /* before the second try to connect; doubled each time */
    DJ_RELAY_PATIENCE_MS = 30000,  /* a tunnel may be slow; silence is noticed by heartbeats */
};

_Static_assert((int)DJINN_ERR_INTERNAL == (int)DJ_ERR_INTERNAL, "djinn.h and status.h agree");
_Static_assert((int)DJINN_COMPLEX128 == (int)DJ_C128 && DJINN_MAX_RANK == DJ_RANK_MAX, "tensor.h");
_Static_assert(DJINN_MAX_ARGS == DJ_ARGS_MAX && DJINN_MAX_OUTS == DJ_OUTS_MAX, "ops.h");

int djinn_abi_version(void)
{
    return DJINN_ABI_VERSION;
}

const char *djinn_error(void)
{
    return dj_error_text();
}

const char *djinn_status_name(int status)
{
    return dj_status_name(status);
}

int djinn_op(const char *name)
{
    uint16_t op = dj_op_find(name);
    return op == DJ_OP_COUNT ? -1 : op;
}

const char *djinn_op_signature(int op)
{
    const dj_op_info_t *info = op < 0 ? NULL : dj_op_info((uint16_t)op);
    return info ? info->signature : NULL;
}

int djinn_supports(djinn_t *djinn, int op)
{
    return op >= 0 && op < DJ_OP_COUNT && djinn->ops[op / 64] >> op % 64 & 1;
}

int64_t djinn_bucket(djinn_t *djinn, int64_t size)
{
    return size > 0 ? (int64_t)dj_bucket_of(&djinn->buckets, (uint64_t)size) : size;
}

/* What is logged is a process's first connection's to say: when others begin, threads of its own may log. */
static void begin_log(const char *spec)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool begun;
    pthread_mutex_lock(&lock);
    if (!begun)
        dj_log_init(spec, "client");
    begun = true;
    pthread_mutex_unlock(&lock);
}

dj_status_t dj_djinn_create(djinn_t **djinn_p)
{
    if (!dj_hash_setup())
        return dj_fail(DJ_ERR_SYSTEM, "the system has no source of random bytes");
    djinn_t *djinn = calloc(1, sizeof(*djinn));
    if (!djinn)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a connection");
    dj_status_t status = dj_config_load(&djinn->config, 0, NULL, NULL);
    if (status == DJ_OK)
        status = dj_buckets_parse(djinn->config.plan_buckets, &djinn->buckets);
    if (status != DJ_OK) {
        free(djinn);
        return status;
    }
    begin_log(djinn->config.log);
    pthread_mutex_init(&djinn->lock, NULL);
    atomic_init(&djinn->references, 1);
    djinn->deadline_ms = djinn->config.deadline_ms;
    djinn->suspect_ms = djinn->config.suspect_ms;
    djinn->wake_fd = -1;
    djinn->wanted_rank = DJ_RANK_ANY;
    djinn->session = dj_random_u64();
    djinn->tag_state = dj_random_u64();
    *djinn_p = djinn;
    return DJ_OK;
}

void dj_djinn_put_unlocked(djinn_t *djinn)
{
    if (atomic_fetch_sub(&djinn->references, 1) != 1)
        return;
    dj_recorder_t *recorder, *next;
    for (recorder = djinn->recorders; recorder; recorder = next) {
        next = recorder->next;
        free(recorder->operands);
        free(recorder);
    }
    for (dj_segment_record_t *segment = djinn->free_segments, *after; segment; segment = after) {
        after = segment->next;
        dj_segment_free(segment);
    }
    for (djinn_request_t *request = djinn->free_requests, *after; request; request = after) {
        after = request->next_free;
        dj_bytes_fini(&request->meta);
        dj_bytes_fini(&request->parts);
        free(request->fetches);
        free(request->temporaries);
        free(request);
    }
    dj_table_fini(&djinn->shown.keys);
    dj_collector_destroy(djinn->collector);
    dj_keys_fini(djinn);
    dj_bytes_fini(&djinn->releases);
    free(djinn->free_refs);
    pthread_mutex_destroy(&djinn->lock);
    free(djinn);
}

dj_status_t dj_djinn_check(djinn_t *djinn)
{
    if (djinn->closed)
        return dj_fail(DJ_ERR_CONNECT, "this connection was closed");
    if (atomic_load(&djinn->ending))
        return dj_fail((dj_status_t)atomic_load(&djinn->ending), "%s", djinn->ending_text);
    if (atomic_load(&djinn->dead))
        return dj_fail((dj_status_t)atomic_load(&djinn->dead), "%s", djinn->dead_text);
    return dj_djinn_check_deferred(djinn);
}

dj_status_t dj_djinn_check_deferred(djinn_t *djinn)
{
    if (djinn->deferred != DJ_OK) {
        dj_status_t status = djinn->deferred;
        djinn->deferred = DJ_OK;
        return dj_fail(status, "an earlier request failed: %s", djinn->deferred_text);
    }
    return DJ_OK;
}

djinn_status_t djinn_alive(djinn_t *djinn)
{
    dj_djinn_lock(djinn);
    dj_status_t status = dj_djinn_check(djinn);
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

/* ---- the hello ---- */

static dj_status_t read_token(const dj_config_t *config, uint8_t token[32])
{
    char path[4096];
    if (config->token[0])
        return dj_token_parse(config->token, token);
    if (strcmp(config->auth, "none") == 0) {
        memset(token, 0, 32);
        return DJ_OK;
    }
    const char *home = dj_environment("HOME");
    if (config->token_file[0])
        snprintf(path, sizeof(path), "%s", config->token_file);
    else
        snprintf(path, sizeof(path), "%s/.djinn/token", home ? home : "");
    return dj_token_read(path, token);
}

static dj_status_t check_answer(const dj_frame_t *frame, const void *body)
{
    const dj_welcome_t *welcome = body;
    if (frame->type == DJ_MESSAGE_REDIRECT)
        return DJ_OK;
    if (frame->type != DJ_MESSAGE_WELCOME)
        return dj_fail(DJ_ERR_PROTOCOL, "the server answered the hello with %s",
                       dj_message_name(frame->type));
    if (welcome->address_bytes > frame->length - sizeof(*welcome))
        return dj_fail(DJ_ERR_PROTOCOL, "the WELCOME is shorter than the address it announces");
    return DJ_OK;
}

/* One connection and its hello. DJ_OK with WELCOME or REDIRECT in *frame. */
static dj_status_t greet_at(const char *endpoint, const uint8_t token[32], dj_hello_t *hello,
                            const void *address, uint64_t deadline_ns, dj_control_t **control_p,
                            dj_frame_t *frame, const void **body_p)
{
    dj_control_t *control;
    dj_status_t status = dj_control_connect(endpoint, deadline_ns, &control);
    if (status != DJ_OK)
        return status;
    if (hello->flags & DJ_HELLO_RELAY)
        dj_control_set_patience(control, DJ_RELAY_PATIENCE_MS);
    status = dj_control_greet(control, token, hello, address, deadline_ns, frame, body_p);
    if (status == DJ_OK)
        status = check_answer(frame, *body_p);
    if (status == DJ_OK)
        *control_p = control;
    else
        dj_control_close(control);
    return status;
}

static void follow(const dj_redirect_t *redirect, dj_hello_t *hello, char *endpoint, size_t size)
{
    snprintf(endpoint, size, "%.*s", DJ_ENDPOINT_TEXT_MAX - 1, redirect->endpoint);
    hello->session = redirect->session;
    hello->grant_expires_ms = redirect->grant_expires_ms;
    memcpy(hello->grant, redirect->grant, sizeof(hello->grant));
    hello->flags |= DJ_HELLO_DIRECT;
}

/* Rank 0, and where it sends us; asked_p: rank 0 has answered, so that another try may find another worker. */
static dj_status_t try_connect(const char *address_text, const uint8_t token[32], dj_hello_t *hello,
                               const void *address, uint64_t deadline_ns, bool *asked_p,
                               dj_control_t **control_p, dj_frame_t *frame, const void **body_p)
{
    char endpoint[256];
    dj_hello_t first = *hello;
    snprintf(endpoint, sizeof(endpoint), "%s", address_text);
    for (int hop = 0; hop < 2; hop++) {
        dj_control_t *control;
        dj_status_t status = greet_at(endpoint, token, &first, address, deadline_ns, &control, frame,
                                      body_p);
        if (status != DJ_OK)
            return status;
        if (frame->type == DJ_MESSAGE_WELCOME) {
            *control_p = control;
            return DJ_OK;
        }
        follow(*body_p, &first, endpoint, sizeof(endpoint));
        dj_control_close(control);
        *asked_p = hop == 0;
    }
    return dj_fail(DJ_ERR_CONNECT, "%s sends clients on in circles", endpoint);
}

/* The next try may end better: the worker is gone, ends or was started anew. */
static bool worth_another_try(dj_status_t status, bool asked, const dj_hello_t *hello)
{
    if (hello->flags & DJ_HELLO_RELAY)
        return status == DJ_ERR_PEER_DIED;
    return asked && (status == DJ_ERR_CONNECT || status == DJ_ERR_PEER_DIED ||
                     status == DJ_ERR_STALE || status == DJ_ERR_CANCELLED);
}

static void pause_for(uint64_t ms)
{
    poll(NULL, 0, (int)ms);
}

dj_status_t dj_djinn_connect_control(const dj_config_t *config, uint32_t role, dj_hello_t *hello,
                                     const void *address, uint64_t deadline_ns,
                                     dj_control_t **control_p, dj_frame_t *frame,
                                     const void **body_p)
{
    uint8_t token[32];
    dj_status_t status = read_token(config, token);
    if (status != DJ_OK)
        return status;
    if (!config->address[0])
        return dj_fail(DJ_ERR_CONNECT, "no server is named: set DJINN_ADDRESS to host:port of "
                                       "rank 0, or start one with djinn-run");
    hello->role = role;
    hello->uid = (uint32_t)getuid();
    hello->pid = (uint32_t)getpid();
    hello->host = dj_host_identity();
    hello->op_table = dj_op_table_hash();
    for (uint64_t pause_ms = DJ_RETRY_MS;; pause_ms *= 2) {
        bool asked = false;
        status = try_connect(config->address, token, hello, address, deadline_ns, &asked, control_p,
                             frame, body_p);
        if (status == DJ_OK || !worth_another_try(status, asked, hello) ||
            dj_clock_ns() + pause_ms * DJ_NS_PER_MS >= deadline_ns)
            return status;
        dj_log(DEBUG, "connecting again in %llu ms: %s", (unsigned long long)pause_ms,
               dj_error_text());
        pause_for(pause_ms);
    }
}

/* ---- connecting ---- */

static dj_status_t open_comm(djinn_t *djinn, bool shared_memory)
{
    dj_comm_options_t options = {.shared_memory = shared_memory,
                                 .loopback_only = strncmp(djinn->config.address, "127.", 4) == 0,
                                 .batch_bytes = (uint32_t)djinn->config.batch_bytes,
                                 .on_message = dj_request_message,
                                 .context = djinn};
    return dj_comm_create(&options, &djinn->comm);
}

static dj_status_t take_welcome(djinn_t *djinn, const dj_welcome_t *welcome, bool relay)
{
    djinn->session = welcome->session;
    djinn->generation = welcome->generation;
    djinn->rank = welcome->rank;
    djinn->incarnation = welcome->incarnation;
    memcpy(djinn->ops, welcome->ops, sizeof(djinn->ops));
    if (welcome->heartbeat_ms <= DJ_HEARTBEAT_MS_MAX &&
        djinn->suspect_ms < welcome->heartbeat_ms * 5ull / 3)
        djinn->suspect_ms = welcome->heartbeat_ms * 5ull / 3; /* one that is late is not yet silence */
    djinn->beat_ms = (welcome->suspect_ms < djinn->suspect_ms ? welcome->suspect_ms : djinn->suspect_ms) / 4;
    if (djinn->beat_ms < DJ_BEAT_MS_MIN)
        djinn->beat_ms = DJ_BEAT_MS_MIN;
    djinn->credit_bytes = welcome->credit_bytes;
    snprintf(djinn->peer, sizeof(djinn->peer), "%s", dj_control_peer(djinn->control));
    dj_status_t status = relay ? dj_heartbeat_open_channel(djinn)
                               : dj_endpoint_create(djinn->comm, welcome + 1,
                                                    welcome->address_bytes, &djinn->endpoint);
    if (status == DJ_OK)
        dj_endpoint_set_checksum(djinn->endpoint, welcome->features & DJ_FEATURE_CHECKSUM);
    return status;
}

/* Greets, and where rank and client cannot share memory makes the comm again without it. */
static dj_status_t open_session(djinn_t *djinn, uint32_t flags, uint64_t deadline_ns)
{
    dj_frame_t frame;
    const void *body, *address;
    uint32_t bytes;
    dj_hello_t hello = {.flags = flags,
                        .deadline_ms = (uint32_t)djinn->deadline_ms, .rank = djinn->wanted_rank,
                        .features = djinn->config.checksums ? DJ_FEATURE_CHECKSUM : 0};
    dj_status_t status = open_comm(djinn, !flags);
    if (status == DJ_OK)
        status = dj_comm_address(djinn->comm, &address, &bytes);
    if (status != DJ_OK)
        return status;
    if (!(flags & DJ_HELLO_RELAY))
        hello.address_bytes = bytes;
    status = dj_djinn_connect_control(&djinn->config, DJ_ROLE_CLIENT, &hello, address, deadline_ns,
                                      &djinn->control, &frame, &body);
    if (status == DJ_OK)
        status = dj_path_take(djinn, body, flags);
    if (status == DJ_IN_PROGRESS)
        return open_session(djinn, DJ_HELLO_TCP_ONLY, deadline_ns);
    if (status != DJ_OK)
        return status;
    return take_welcome(djinn, body, flags & DJ_HELLO_RELAY);
}

/* One empty request each way finishes the wire-up: UCX 1.13 aborts on a rendezvous posted before. */
static dj_status_t first_exchange(djinn_t *djinn, uint64_t deadline_ns)
{
    djinn_request_t *request;
    dj_djinn_lock(djinn);
    dj_status_t status = dj_request_create(djinn, &request);
    if (status == DJ_OK) {
        request->message.exec = (dj_exec_t){0};
        request->deadline_ns = deadline_ns;
        status = dj_request_send(request, DJ_MESSAGE_EXEC, sizeof(dj_exec_t));
        if (status == DJ_OK)
            status = dj_request_await(request);
        dj_request_release(request);
    }
    djinn->stats = (djinn_stats_t){0};
    dj_djinn_unlock(djinn);
    return status;
}

static dj_status_t apply_options(djinn_t *djinn, const djinn_options_t *options, uint32_t *flags_p)
{
    static const djinn_options_t defaults = {.abi_version = DJINN_ABI_VERSION};
    if (!options)
        options = &defaults;
    if (options->abi_version != DJINN_ABI_VERSION)
        return dj_fail(DJ_ERR_VERSION, "the program was built for ABI %d, this libdjinn has %d",
                       options->abi_version, DJINN_ABI_VERSION);
    if (options->address)
        djinn->config.address = options->address;
    if (options->token)
        djinn->config.token = options->token;
    if (options->flags & DJINN_CONNECT_CHECKSUM)
        djinn->config.checksums = true;
    if (options->deadline_ms)
        djinn->deadline_ms = options->deadline_ms;
    if (options->flags & DJINN_CONNECT_RANK) {
        if (options->rank < 0)
            return dj_fail(DJ_ERR_INVALID, "rank %d was asked for: ranks begin at 0", options->rank);
        djinn->wanted_rank = (uint32_t)options->rank;
    }
    const char *mode = options->mode ? options->mode : djinn->config.execution_mode;
    if (strcmp(djinn->config.transports, "tcp") == 0 || strcmp(mode, "remote") == 0)
        *flags_p = DJ_HELLO_TCP_ONLY;
    if (options->flags & DJINN_CONNECT_RELAY || strcmp(djinn->config.transports, "relay") == 0)
        *flags_p = DJ_HELLO_RELAY;
    if (strcmp(mode, "zero_copy") == 0)
        return dj_fail(DJ_ERR_UNSUPPORTED, "zero_copy needs RDMA and GPUDirect, and this machine "
                                           "has no RDMA device: use remote or local_remote");
    if (mode[0] && strcmp(mode, "remote") && strcmp(mode, "local_remote"))
        return dj_fail(DJ_ERR_INVALID, "execution mode %s: libdjinn knows remote, local_remote "
                                       "and zero_copy", mode);
    return DJ_OK;
}

djinn_status_t djinn_connect(const djinn_options_t *options, djinn_t **djinn_p)
{
    djinn_t *djinn;
    uint32_t flags = 0; /* DJ_HELLO_* */
    dj_status_t status = dj_djinn_create(&djinn);
    if (status != DJ_OK)
        return (djinn_status_t)status;
    uint64_t deadline_ns = dj_clock_ns() + djinn->config.connect_ms * DJ_NS_PER_MS;
    status = apply_options(djinn, options, &flags);
    if (status == DJ_OK)
        status = open_session(djinn, flags, deadline_ns);
    if (status == DJ_OK)
        status = dj_heartbeat_start(djinn);
    if (status == DJ_OK)
        status = first_exchange(djinn, deadline_ns);
    djinn->config.address = djinn->config.token = ""; /* the caller's strings */
    if (status != DJ_OK) {
        char text[DJ_ERROR_TEXT_MAX];
        snprintf(text, sizeof(text), "%s", dj_error_text());
        djinn_close(djinn);
        return (djinn_status_t)dj_fail(status, "%s", text);
    }
    *djinn_p = djinn;
    return DJINN_OK;
}

/* An executor is told of every row that can be recorded, and refuses by itself what it cannot run. Left out:
 * views, which nobody records, and the row whose result's size only the data says. */
static void offer_everything(djinn_t *djinn)
{
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
        if (!dj_op_info(op)->is_view && op != DJ_OP_NONZERO)
            djinn->ops[op / 64] |= 1ull << op % 64;
}

djinn_status_t djinn_connect_local(djinn_executor_t executor, void *context, djinn_t **djinn_p)
{
    dj_status_t status = dj_djinn_create(djinn_p);
    if (status != DJ_OK)
        return (djinn_status_t)status;
    (*djinn_p)->executor = executor;
    (*djinn_p)->executor_context = context;
    offer_everything(*djinn_p);
    return DJINN_OK;
}

/* ---- the end ---- */

static void say_close(djinn_t *djinn)
{
    dj_close_t close = {djinn->session, djinn->generation, 0};
    uint64_t deadline_ns = dj_clock_ns() + 500 * DJ_NS_PER_MS;
    dj_frame_t frame;
    const void *body;
    if (!djinn->control || (atomic_load(&djinn->dead) && !atomic_load(&djinn->still_hears)))
        return;
    if (dj_control_send(djinn->control, DJ_MESSAGE_CLOSE, &close, sizeof(close), NULL, 0,
                        deadline_ns) != DJ_OK)
        return;
    while (dj_control_receive(djinn->control, deadline_ns, &frame, &body) == DJ_OK)
        ; /* the rank ends the stream once the session's memory is back */
}

void djinn_close(djinn_t *djinn)
{
    if (!djinn)
        return;
    dj_heartbeat_stop(djinn);
    say_close(djinn);
    dj_djinn_lock(djinn);
    for (dj_recorder_t *recorder = djinn->recorders; recorder; recorder = recorder->next)
        dj_recorder_discard(recorder);
    djinn->closed = true;
    dj_requests_fail(djinn, DJ_ERR_CANCELLED, "the connection was closed");
    if (djinn->endpoint)
        dj_endpoint_close(djinn->endpoint);
    if (djinn->comm)
        dj_comm_destroy(djinn->comm);
    if (djinn->control)
        dj_control_close(djinn->control);
    dj_channel_put(djinn->channel);
    free(djinn->tail);
    djinn->endpoint = NULL;
    djinn->comm = NULL;
    djinn->control = NULL;
    djinn->channel = NULL;
    djinn->tail = NULL;
    atomic_store(&djinn->dead, DJ_ERR_CONNECT);
    snprintf(djinn->dead_text, sizeof(djinn->dead_text), "this connection was closed");
    dj_djinn_unlock(djinn);
    dj_djinn_put_unlocked(djinn);
}

void djinn_stats(djinn_t *djinn, djinn_stats_t *stats)
{
    dj_djinn_lock(djinn);
    *stats = djinn->stats;
    dj_djinn_unlock(djinn);
}
