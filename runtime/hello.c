/* hello.c - a stranger's HELLO: is the token known, is the grant good, and what follows from the role.
 *
 * A client's session is made by the progress thread; its WELCOME comes back through the outbox. Rank 0 of
 * several sends clients on to a worker, with a grant that the worker can check alone, or passes their connection
 * on when it is all they have. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime/base/clock.h"
#include "runtime/door.h"

enum { DJ_GRANT_MS = 10000 };

static uint64_t realtime_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

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
    if (hello->role != DJ_ROLE_TOOL && hello->role != DJ_ROLE_SUPERVISOR &&
        !dj_hash_equal(hello->op_table, table))
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

static bool post_hello(dj_rank_t *rank, dj_connection_t *c, dj_command_kind_t kind,
                       const dj_hello_t *hello)
{
    dj_status_t status = c->relay ? dj_carry_begin(rank, c) : DJ_OK;
    if (status != DJ_OK)
        return dj_door_refuse(rank, c, status);
    dj_command_t *command = dj_door_command(kind, c->id);
    if (!command)
        return dj_door_refuse(rank, c, dj_fail(DJ_ERR_MEMORY, "no memory for a session"));
    command->channel = dj_channel_get(c->channel);
    command->hello = *hello;
    command->address_bytes = hello->address_bytes;
    memcpy(command->address, hello + 1, hello->address_bytes);
    dj_door_post_command(rank, command);
    return true;
}

bool dj_door_redirect(dj_rank_t *rank, dj_connection_t *c)
{
    if (c->wanted != DJ_RANK_ANY && (c->wanted == 0 || c->wanted >= rank->n_ranks))
        return dj_door_refuse(rank, c, dj_fail(DJ_ERR_INVALID, "rank %u was asked for: ranks 1 to "
                                                               "%u serve clients here", c->wanted,
                                               rank->n_ranks - 1));
    dj_worker_t *worker = dj_coordinator_choose(&rank->door->coordinator, c->wanted);
    c->waits_for_worker = worker == NULL;
    if (!worker)
        return true;
    if (c->relay) {
        dj_status_t status = dj_relay_begin(rank, c, worker);
        return status == DJ_OK || dj_door_refuse(rank, c, status);
    }
    dj_redirect_t redirect = {.session = dj_random_u64(), .rank = worker->about.rank,
                              .incarnation = worker->about.incarnation,
                              .grant_expires_ms = realtime_ms() + DJ_GRANT_MS};
    snprintf(redirect.endpoint, sizeof(redirect.endpoint), "%s", worker->about.endpoint);
    dj_grant_prove(redirect.grant, rank->token, redirect.session, redirect.rank,
                   redirect.incarnation, redirect.grant_expires_ms, c->uid);
    if (dj_door_send(rank, c, DJ_MESSAGE_REDIRECT, &redirect, sizeof(redirect), NULL, 0))
        dj_door_end(rank, c);
    return false;
}

/* A supervisor that wants to join goes to ours. */
static bool send_to_lifeline(dj_rank_t *rank, dj_connection_t *c)
{
    dj_redirect_t redirect = {0};
    if (!rank->config->lifeline[0])
        return dj_door_refuse(rank, c, dj_fail(DJ_ERR_UNSUPPORTED,
                                               "rank %u has no supervisor that others may join",
                                               rank->rank));
    snprintf(redirect.endpoint, sizeof(redirect.endpoint), "%s", rank->config->lifeline);
    if (dj_door_send(rank, c, DJ_MESSAGE_REDIRECT, &redirect, sizeof(redirect), NULL, 0))
        dj_door_end(rank, c);
    return false;
}

static bool welcome_plainly(dj_rank_t *rank, dj_connection_t *c)
{
    dj_welcome_t welcome = {.rank = rank->rank, .incarnation = rank->incarnation,
                            .heartbeat_ms = dj_door_round_ms(rank->config),
                            .suspect_ms = (uint32_t)rank->config->suspect_ms,
                            .host = dj_host_identity()};
    c->welcomed = true;
    return dj_door_send(rank, c, DJ_MESSAGE_WELCOME, &welcome, sizeof(welcome), NULL, 0);
}

bool dj_door_greet(dj_rank_t *rank, dj_connection_t *c, const dj_hello_t *hello, uint32_t length)
{
    dj_status_t status = check_hello(rank, c, hello, length);
    if (status == DJ_OK && hello->role == DJ_ROLE_CLIENT && rank->serves)
        status = check_grant(rank, hello);
    if (status == DJ_OK && hello->role == DJ_ROLE_WORKER && !rank->coordinates)
        status = dj_fail(DJ_ERR_INVALID, "rank %u is no coordinator", rank->rank);
    if (status == DJ_OK && hello->role == DJ_ROLE_CLIENT && rank->serves &&
        hello->rank != DJ_RANK_ANY && hello->rank != rank->rank)
        status = dj_fail(DJ_ERR_INVALID, "rank %u was asked for, this is rank %u of %u",
                         hello->rank, rank->rank, rank->n_ranks);
    if (status == DJ_OK && hello->role == DJ_ROLE_PEER && !rank->comm)
        status = dj_fail(DJ_ERR_UNSUPPORTED, "rank %u coordinates alone: it has no links",
                         rank->rank);
    if (status == DJ_OK && (hello->role < DJ_ROLE_CLIENT || hello->role > DJ_ROLE_SUPERVISOR))
        status = dj_fail(DJ_ERR_PROTOCOL, "role %u in the hello", hello->role);
    if (status == DJ_OK && dj_rank_ends(rank) &&
        (hello->role == DJ_ROLE_CLIENT || hello->role == DJ_ROLE_WORKER))
        status = dj_ending_refuse();
    if (status != DJ_OK)
        return dj_door_refuse(rank, c, status);
    c->role = hello->role;
    c->uid = hello->uid;
    c->wanted = hello->rank;
    c->relay = hello->role == DJ_ROLE_CLIENT && (hello->flags & DJ_HELLO_RELAY);
    c->greeted = true;
    dj_door_greeted(rank->door);
    dj_control_trust(c->control);
    if (c->role == DJ_ROLE_SUPERVISOR)
        return send_to_lifeline(rank, c);
    if (c->role == DJ_ROLE_PEER)
        return post_hello(rank, c, DJ_COMMAND_PEER, hello);
    if (c->role != DJ_ROLE_CLIENT)
        return welcome_plainly(rank, c);
    if (rank->serves)
        return post_hello(rank, c, DJ_COMMAND_ATTACH, hello);
    return dj_door_redirect(rank, c);
}
