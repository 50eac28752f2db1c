/* attach.c - a session's life: attach and re-attach, detach, lease, end (contract 6).
 *
 * All of it happens on the progress thread, on the control thread's command. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/path.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "comm/channel.h"
#include "runtime/links.h"
#include "runtime/reaper.h"

#define DJ_LOG_MODULE "session"

static void refuse(dj_rank_t *rank, uint64_t connection, dj_status_t status)
{
    dj_refuse_t refuse = {.status = status};
    snprintf(refuse.text, sizeof(refuse.text), "%s", dj_error_text());
    dj_outbox_put(rank, connection, DJ_MESSAGE_REFUSE, &refuse, sizeof(refuse), NULL, 0, true);
}

static void close_endpoint(dj_session_t *session)
{
    if (session->endpoint)
        dj_endpoint_close(session->endpoint);
    session->endpoint = NULL;
}

void dj_sessions_count(dj_rank_t *rank)
{
    uint64_t attached = 0, detached = 0, refs = 0, used = 0, backed = 0;
    dj_session_t *session;
    dj_hash_t key;
    size_t at = 0;
    while ((session = dj_table_next(&rank->sessions, &at, &key))) {
        dj_data_counters_t data;
        dj_data_counters(session->data, &data);
        *(session->state == DJ_SESSION_ATTACHED ? &attached : &detached) += 1;
        refs += dj_gauge_get(&session->refs.count);
        used += data.used_bytes;
        backed += data.backed_bytes + data.cached_bytes;
    }
    if (rank->reaper)
        backed += dj_reaper_bytes(rank->reaper);
    atomic_store(&rank->counters.sessions, attached);
    atomic_store(&rank->counters.detached, detached);
    atomic_store(&rank->counters.refs, refs);
    atomic_store(&rank->counters.data_bytes, used);
    atomic_store(&rank->counters.data_backed_bytes, backed);
}

void dj_session_end(dj_rank_t *rank, dj_session_t *session)
{
    close_endpoint(session); /* answers on their way fail, so the queue empties */
    session->state = DJ_SESSION_ENDING;
    if (session->pending || session->leaving)
        return;
    dj_log(DEBUG, "session %llx ended", (unsigned long long)session->id);
    dj_table_remove(&rank->sessions, dj_key_u64(session->id));
    if (rank->reaper)
        dj_reaper_take(rank->reaper, session);
    else /* the rank ends */
        dj_session_destroy(session, &rank->home);
    dj_sessions_count(rank);
}

/* ---- attach ---- */

static dj_status_t new_session(dj_rank_t *rank, const dj_hello_t *hello, dj_session_t **session_p)
{
    uint64_t id = hello->session ? hello->session : dj_random_u64();
    if (rank->sessions.count >= rank->config->sessions)
        return dj_fail(DJ_ERR_LIMIT, "rank %u holds %zu sessions, the most it may: close some or "
                                     "raise --sessions", rank->rank, rank->sessions.count);
    if (dj_table_get(&rank->sessions, dj_key_u64(id)))
        return dj_fail(DJ_ERR_STALE, "session %llx exists already", (unsigned long long)id);
    dj_status_t status = dj_session_create(&rank->home, id, session_p);
    if (status != DJ_OK)
        return status;
    status = dj_table_put(&rank->sessions, dj_key_u64(id), *session_p);
    if (status != DJ_OK)
        dj_session_destroy(*session_p, &rank->home);
    return status;
}

/* The capability is the id: 64 random bits that only its client knows, with the generation it had. */
static dj_status_t find_detached(dj_rank_t *rank, const dj_hello_t *hello, dj_session_t **session_p)
{
    dj_session_t *session = dj_table_get(&rank->sessions, dj_key_u64(hello->session));
    if (!session || session->state == DJ_SESSION_ENDING ||
        session->generation != hello->generation)
        return dj_fail(DJ_ERR_STALE, "session %llx generation %u cannot be re-attached: its lease "
                                     "ended or another client has it",
                       (unsigned long long)hello->session, hello->generation);
    if (session->pending)
        return dj_fail(DJ_ERR_BUSY, "session %llx has %u requests that were sent before: re-attach when they "
                                    "have ended", (unsigned long long)session->id, session->pending);
    close_endpoint(session);
    session->generation++;
    *session_p = session;
    return DJ_OK;
}

/* What either side wants. */
static uint32_t agree(const dj_rank_t *rank, uint32_t wanted)
{
    return (wanted & DJ_FEATURES_KNOWN) | (rank->config->checksums ? DJ_FEATURE_CHECKSUM : 0);
}

/* Decides what carries the session's bytes; the client decides alike from *shared_p. */
static dj_status_t choose_path(dj_rank_t *rank, dj_session_t *session, const dj_hello_t *hello, uint32_t features,
                               uint32_t *shared_p)
{
    bool tcp_only = hello->flags & DJ_HELLO_TCP_ONLY;
    dj_path_facts_t facts = {.same_host = hello->host == dj_host_identity(),
                             .same_user = hello->uid == (uint32_t)getuid(),
                             .relay = hello->flags & DJ_HELLO_RELAY,
                             .transports = tcp_only ? "tcp" : rank->config->transports,
                             .checksums = features & DJ_FEATURE_CHECKSUM};
    dj_path_t path;
    dj_status_t status = dj_direct_choose(rank, &facts, &path);
    if (status != DJ_OK)
        return status;
    session->direct = facts.here == DJ_MEMORY_CUDA && dj_reach_is_direct(path.reach);
    dj_log(INFO, "path to process %u of user %u: %s", hello->pid, hello->uid, path.text);
    *shared_p = path.carrier == DJ_CARRIER_SHM ? DJ_SHARED_YES : DJ_SHARED_NO;
    if (facts.same_host && !facts.same_user && strcmp(facts.transports, "tcp") != 0)
        *shared_p = DJ_SHARED_OTHER_USER;
    return DJ_OK;
}

static void put_ops(const dj_device_t *device, uint64_t ops[DJ_OPS_MAX / 64])
{
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
        ops[op / 64] |= (uint64_t)device->ops->supports(device, op) << op % 64;
}

static dj_status_t welcome(dj_rank_t *rank, dj_session_t *session, const dj_hello_t *hello,
                           uint64_t connection, uint32_t features)
{
    const void *address;
    uint32_t bytes, shared;
    dj_status_t status = dj_comm_address(rank->comm, &address, &bytes);
    if (status == DJ_OK)
        status = choose_path(rank, session, hello, features, &shared);
    if (status != DJ_OK)
        return status;
    dj_welcome_t welcome = {
        .session = session->id, .generation = session->generation, .rank = rank->rank,
        .incarnation = rank->incarnation, .heartbeat_ms = dj_door_round_ms(rank->config),
        .suspect_ms = (uint32_t)rank->config->suspect_ms, .address_bytes = bytes,
        .credits = DJ_REQUESTS_MAX, .credit_bytes = rank->config->ingress_bytes,
        .features = features, .shared_memory = shared,
        .host = dj_host_identity(),
        .device_class = rank->home.device->ops->info(rank->home.device)->class_hash};
    put_ops(rank->home.device, welcome.ops);
    return dj_outbox_welcome(rank, connection, &welcome, address);
}

static dj_status_t open_endpoint(dj_rank_t *rank, const dj_command_t *command,
                                 dj_session_t *session)
{
    if (command->channel)
        return dj_endpoint_create_tunnel(rank->comm, command->channel, &session->endpoint);
    return dj_endpoint_create(rank->comm, command->address, command->address_bytes,
                              &session->endpoint);
}

static void attach(dj_rank_t *rank, const dj_command_t *command)
{
    const dj_hello_t *hello = &command->hello;
    dj_session_t *session;
    bool fresh = !(hello->flags & DJ_HELLO_REATTACH);
    dj_status_t status = dj_rank_ends(rank) ? dj_ending_refuse()
                         : fresh            ? new_session(rank, hello, &session)
                                            : find_detached(rank, hello, &session);
    if (status == DJ_OK) {
        session->uid = hello->uid;
        session->pid = hello->pid;
        session->host = hello->host;
        session->connection = command->connection;
        session->state = DJ_SESSION_ATTACHED;
        if (hello->deadline_ms)
            session->default_deadline_ms = hello->deadline_ms;
        status = open_endpoint(rank, command, session);
        uint32_t features = agree(rank, hello->features);
        if (status == DJ_OK) {
            dj_endpoint_set_checksum(session->endpoint, features & DJ_FEATURE_CHECKSUM);
            status = welcome(rank, session, hello, command->connection, features);
        }
        if (status != DJ_OK && fresh)
            dj_session_end(rank, session);
        else if (status != DJ_OK) /* its client was told of no other; the connection's end detaches it */
            session->generation = hello->generation;
    }
    if (status != DJ_OK)
        refuse(rank, command->connection, status);
    dj_sessions_count(rank);
}

/* ---- detach and lease ---- */

static bool client_is_dead(const dj_session_t *session)
{
    char path[64], line[512] = "";
    if (session->host != dj_host_identity())
        return false;
    if (kill((pid_t)session->pid, 0) != 0)
        return errno == ESRCH;
    snprintf(path, sizeof(path), "/proc/%u/stat", session->pid);
    FILE *stat = fopen(path, "re");
    if (!stat)
        return errno == ENOENT;
    size_t n = fread(line, 1, sizeof(line) - 1, stat);
    fclose(stat);
    line[n] = 0;
    const char *state = strrchr(line, ')');
    return state && (state[2] == 'Z' || state[2] == 'X'); /* dead, not yet reaped */
}

static void detach(dj_rank_t *rank, uint64_t connection)
{
    dj_session_t *session;
    dj_hash_t key;
    size_t at = 0;
    while ((session = dj_table_next(&rank->sessions, &at, &key)))
        if (session->connection == connection)
            break;
    if (!session || session->state == DJ_SESSION_ENDING)
        return;
    session->connection = 0;
    session->closing = false;
    close_endpoint(session);
    if (client_is_dead(session)) {
        dj_session_end(rank, session);
        dj_probe_start(rank);
        return;
    }
    session->state = DJ_SESSION_DETACHED;
    session->lease_ends_ns = dj_clock_ns() + rank->config->lease_grace_ms * DJ_NS_PER_MS;
    dj_log(INFO, "session %llx lost its client; its memory is kept for %llu ms",
           (unsigned long long)session->id, (unsigned long long)rank->config->lease_grace_ms);
    dj_sessions_count(rank);
}

static void close_session(dj_rank_t *rank, const dj_command_t *command)
{
    dj_session_t *session = dj_table_get(&rank->sessions, dj_key_u64(command->hello.session));
    if (!session || session->connection != command->connection ||
        session->generation != command->hello.generation)
        return;
    session->closing = true;
    dj_session_end(rank, session);
}

void dj_leases_check(dj_rank_t *rank, uint64_t now_ns)
{
    dj_session_t *session;
    dj_hash_t key;
    size_t at = 0;
    while ((session = dj_table_next(&rank->sessions, &at, &key))) {
        if (session->state != DJ_SESSION_DETACHED)
            continue;
        bool dead = client_is_dead(session);
        if (dead)
            dj_probe_start(rank);
        if (dead || now_ns > session->lease_ends_ns)
            dj_session_end(rank, session);
    }
    dj_sessions_count(rank);
}

void dj_attach_command(dj_rank_t *rank, dj_command_t *command)
{
    switch (command->kind) {
    case DJ_COMMAND_ATTACH:
        attach(rank, command);
        break;
    case DJ_COMMAND_DETACH:
        detach(rank, command->connection);
        break;
    case DJ_COMMAND_CLOSE:
        close_session(rank, command);
        break;
    default:
        dj_links_command(rank->links, command);
    }
    dj_channel_put(command->channel);
}
