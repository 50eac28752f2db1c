/* links.c - see links.h. The dial thread is in dial.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/dial.h"
#include "runtime/links.h"

#define DJ_LOG_MODULE "links"

enum {
    DJ_LINK_RETRY_MS = 50,
    DJ_LINK_BEHIND_MAX = 32, /* endpoints made only to catch up with the peer's count */
};

typedef enum dj_link_state {
    DJ_LINK_ABSENT,
    DJ_LINK_DIALLING,
    DJ_LINK_OPEN,
} dj_link_state_t;

typedef struct dj_link {
    char endpoint_text[DJ_ENDPOINT_TEXT_MAX]; /* the roster's row; empty: the rank is not here */
    uint32_t incarnation;
    uint8_t state; /* dj_link_state_t */
    bool dialled;  /* by this side */
    bool direct;   /* device memory travels over it by itself */
    uint64_t number; /* of the open link, or of the dial under way */
    uint64_t connection;
    dj_endpoint_t *endpoint;
    uint32_t peer_incarnation;
    uint64_t peer_address; /* its hash, of the last endpoint */
    uint32_t made;         /* endpoints made here for that address */
    uint32_t holds;
    uint64_t used_ns, retry_ns;
    dj_status_t why; /* the last dial failed */
    char text[DJ_ERROR_TEXT_MAX];
} dj_link_t;

struct dj_links {
    dj_rank_t *rank;
    uint32_t n_links;
    uint64_t last_number;
    dj_dial_t *dials;
    dj_link_t links[]; /* by rank */
};

dj_status_t dj_links_create(dj_rank_t *rank, dj_links_t **links_p)
{
    dj_links_t *links = calloc(1, sizeof(*links) + rank->n_ranks * sizeof(links->links[0]));
    if (!links)
        return dj_fail(DJ_ERR_MEMORY, "no memory for links to %u ranks", rank->n_ranks);
    links->rank = rank;
    links->n_links = rank->n_ranks;
    *links_p = links;
    return DJ_OK;
}

static dj_link_t *link_of(dj_links_t *links, uint32_t rank)
{
    return links && rank < links->n_links && rank != links->rank->rank ? &links->links[rank] : NULL;
}

static uint32_t rank_of(const dj_links_t *links, const dj_link_t *link)
{
    return (uint32_t)(link - links->links);
}

static void count_open(dj_links_t *links, int change)
{
    atomic_fetch_add(&links->rank->counters.links, (uint64_t)(int64_t)change);
}

/* ---- ends ---- */

static void lose(dj_links_t *links, dj_link_t *link, const char *why)
{
    uint64_t number = link->number, connection = link->connection;
    if (link->state != DJ_LINK_OPEN)
        return;
    dj_log(DEBUG, "link to rank %u ends: %s", rank_of(links, link), why);
    dj_endpoint_close(link->endpoint);
    link->endpoint = NULL;
    link->state = DJ_LINK_ABSENT;
    link->connection = link->number = link->holds = 0;
    count_open(links, -1);
    dj_outbox_put(links->rank, connection, 0, NULL, 0, NULL, 0, true);
    dj_moves_lost(links->rank, number, why);
}

void dj_links_destroy(dj_links_t *links)
{
    if (!links)
        return;
    for (uint32_t i = 0; i < links->n_links; i++)
        lose(links, &links->links[i], "this rank ends");
    while (links->dials)
        dj_dial_join(&links->dials, links->dials->number);
    free(links);
}

void dj_links_break(dj_links_t *links, uint32_t rank, uint64_t number, const char *why)
{
    if (dj_links_endpoint(links, rank, number))
        lose(links, link_of(links, rank), why);
}

/* ---- opening ---- */

/* Counts go by the peer's worker address: another one is another process. */
static void meet(dj_link_t *link, const dj_command_t *command)
{
    uint64_t address = dj_hash_of(command->address, command->address_bytes).word[0];
    link->peer_incarnation = command->hello.incarnation;
    if (link->peer_address == address)
        return;
    link->peer_address = address;
    link->made = 0;
}

/* The n-th endpoint for this peer's worker, after those that are missing before it. */
static dj_status_t make_endpoint(dj_links_t *links, dj_link_t *link, uint32_t number,
                                 const dj_command_t *command)
{
    dj_comm_t *comm = links->rank->comm;
    dj_endpoint_t *unused;
    if (number < link->made || number - link->made > DJ_LINK_BEHIND_MAX)
        return dj_fail(DJ_ERR_BUSY, "endpoint %u is proposed, this side has made %u", number,
                       link->made);
    while (link->made < number) {
        link->made++;
        dj_status_t status = dj_endpoint_create(comm, command->address, command->address_bytes,
                                                &unused);
        if (status != DJ_OK)
            return status;
        dj_endpoint_close(unused);
    }
    link->made++;
    return dj_endpoint_create(comm, command->address, command->address_bytes, &link->endpoint);
}

/* Ranks of one server are one user's. A path that is not what was asked for is no reason to have no link. */
static void choose_path(dj_links_t *links, dj_link_t *link, const dj_hello_t *peer, uint32_t features)
{
    dj_path_facts_t facts = {.same_host = peer->host == dj_host_identity(), .same_user = true,
                             .transports = links->rank->config->transports,
                             .there = peer->flags & DJ_HELLO_DEVICE ? DJ_MEMORY_CUDA : DJ_MEMORY_HOST,
                             .checksums = features & DJ_FEATURE_CHECKSUM};
    dj_path_t path = {.reach = DJ_REACH_STAGING};
    if (dj_direct_choose(links->rank, &facts, &path) != DJ_OK)
        snprintf(path.text, sizeof(path.text), "%.250s", dj_error_text());
    link->direct = facts.here == DJ_MEMORY_CUDA && dj_reach_is_direct(path.reach);
    dj_log(INFO, "path to rank %u: %s", rank_of(links, link), path.text);
}

static void become_open(dj_links_t *links, dj_link_t *link, const dj_command_t *command,
                        uint32_t features, bool dialled)
{
    dj_endpoint_set_checksum(link->endpoint, features & DJ_FEATURE_CHECKSUM);
    choose_path(links, link, &command->hello, features);
    link->state = DJ_LINK_OPEN;
    link->dialled = dialled;
    link->connection = command->connection;
    link->number = ++links->last_number;
    link->holds = 0;
    link->used_ns = dj_clock_ns();
    count_open(links, 1);
    dj_log(DEBUG, "link to rank %u incarnation %u is open, %s", rank_of(links, link),
           link->peer_incarnation, dialled ? "dialled" : "accepted");
}

/* ---- a peer's hello ---- */

static dj_status_t check_peer(dj_links_t *links, const dj_hello_t *hello)
{
    dj_link_t *link = link_of(links, hello->rank);
    uint32_t me = links->rank->rank;
    if (!link)
        return dj_fail(DJ_ERR_INVALID, "rank %u of %u opens no link to rank %u", hello->rank,
                       links->n_links, me);
    if (!link->endpoint_text[0] || hello->incarnation != link->incarnation)
        return dj_fail(hello->incarnation < link->incarnation ? DJ_ERR_STALE : DJ_ERR_BUSY,
                       "rank %u incarnation %u is not what the coordinator names (%u)", hello->rank,
                       hello->incarnation, link->incarnation);
    if (link->state == DJ_LINK_OPEN && link->peer_incarnation == hello->incarnation &&
        !dj_endpoint_failed(link->endpoint))
        return dj_fail(DJ_ERR_BUSY, "ranks %u and %u have a link", me, hello->rank);
    if (link->state == DJ_LINK_DIALLING && me < hello->rank)
        return dj_fail(DJ_ERR_BUSY, "rank %u dials rank %u already", me, hello->rank);
    return DJ_OK;
}

static uint32_t own_flags(const dj_links_t *links)
{
    return dj_home_is_blind(&links->rank->home) ? DJ_HELLO_DEVICE : 0;
}

static uint32_t own_features(const dj_links_t *links)
{
    return links->rank->config->checksums ? DJ_FEATURE_CHECKSUM : 0;
}

static dj_status_t welcome_peer(dj_links_t *links, uint64_t connection, uint32_t number,
                                uint32_t features)
{
    const dj_rank_t *rank = links->rank;
    const void *address;
    uint32_t bytes;
    dj_status_t status = dj_comm_address(rank->comm, &address, &bytes);
    if (status != DJ_OK)
        return status;
    dj_welcome_t welcome = {.generation = number, .rank = rank->rank,
                            .incarnation = rank->incarnation,
                            .heartbeat_ms = (uint32_t)rank->config->heartbeat_ms,
                            .suspect_ms = (uint32_t)rank->config->suspect_ms,
                            .address_bytes = bytes, .features = features, .flags = own_flags(links),
                            .host = dj_host_identity()};
    return dj_outbox_welcome(links->rank, connection, &welcome, address);
}

static void accept_peer(dj_links_t *links, const dj_command_t *command)
{
    const dj_hello_t *hello = &command->hello;
    dj_status_t status = check_peer(links, hello);
    dj_link_t *link = link_of(links, hello->rank);
    if (status == DJ_OK) {
        lose(links, link, "the peer opens a new one");
        meet(link, command);
        uint32_t number = link->made > hello->generation ? link->made : hello->generation;
        status = make_endpoint(links, link, number, command);
        if (status == DJ_OK) { /* a dial of ours that is under way finds the link open, and ends */
            uint32_t features = (hello->features & DJ_FEATURES_KNOWN) | own_features(links);
            become_open(links, link, command, features, false);
            status = welcome_peer(links, command->connection, number, features);
        }
    }
    if (status == DJ_OK)
        return;
    dj_refuse_t refuse = {.status = status};
    snprintf(refuse.text, sizeof(refuse.text), "%s", dj_error_text());
    dj_outbox_put(links->rank, command->connection, DJ_MESSAGE_REFUSE, &refuse, sizeof(refuse),
                  NULL, 0, true);
    if (link && link->state == DJ_LINK_OPEN && link->connection == command->connection)
        lose(links, link, "no answer could be sent");
}

/* ---- dialling ---- */

static dj_status_t dial(dj_links_t *links, dj_link_t *link)
{
    uint64_t number = ++links->last_number;
    dj_hello_t hello = {.rank = links->rank->rank, .incarnation = links->rank->incarnation,
                        .generation = link->made, .flags = own_flags(links), .features = own_features(links)};
    dj_status_t status = dj_dial_start(links->rank, &links->dials, number, rank_of(links, link),
                                       link->incarnation, link->endpoint_text, &hello);
    if (status != DJ_OK)
        return status;
    link->state = DJ_LINK_DIALLING;
    link->number = number;
    return DJ_IN_PROGRESS;
}

static void dial_failed(dj_link_t *link, dj_status_t status, const char *text)
{
    link->state = DJ_LINK_ABSENT;
    link->number = 0;
    link->why = status;
    link->retry_ns = dj_clock_ns() + DJ_LINK_RETRY_MS * DJ_NS_PER_MS;
    snprintf(link->text, sizeof(link->text), "%s", text);
}

static void dialled(dj_links_t *links, const dj_command_t *command)
{
    const dj_hello_t *about = &command->hello;
    dj_link_t *link = link_of(links, about->rank);
    dj_status_t status = command->status;
    dj_dial_join(&links->dials, command->number);
    bool current = link && link->state == DJ_LINK_DIALLING && link->number == command->number;
    if (status != DJ_OK) {
        if (current)
            dial_failed(link, status, command->text);
        return;
    }
    if (current && about->incarnation == link->incarnation) {
        meet(link, command);
        status = make_endpoint(links, link, about->generation, command);
        if (status == DJ_OK)
            become_open(links, link, command, about->features, true);
        else
            dial_failed(link, status, dj_error_text());
    } else if (current) {
        dial_failed(link, DJ_ERR_STALE, "the rank was started again meanwhile");
    }
    if (!current || status != DJ_OK || link->state != DJ_LINK_OPEN)
        dj_outbox_put(links->rank, command->connection, 0, NULL, 0, NULL, 0, true);
}

dj_status_t dj_links_reach(void *context, uint32_t rank, dj_endpoint_t **endpoint_p)
{
    dj_links_t *links = context;
    dj_link_t *link = link_of(links, rank);
    uint64_t now_ns = dj_clock_ns();
    if (!link)
        return dj_fail(DJ_ERR_INVALID, "rank %u is none that this rank has links with", rank);
    if (link->state == DJ_LINK_OPEN && dj_endpoint_failed(link->endpoint))
        lose(links, link, "its endpoint failed");
    if (link->state == DJ_LINK_OPEN) {
        link->used_ns = now_ns;
        *endpoint_p = link->endpoint;
        return DJ_OK;
    }
    if (link->state == DJ_LINK_DIALLING)
        return DJ_IN_PROGRESS;
    if (!link->endpoint_text[0])
        return dj_fail(DJ_ERR_PEER_DIED, "rank %u is not here", rank);
    if (now_ns < link->retry_ns)
        return dj_fail(link->why, "%s", link->text);
    return dial(links, link);
}

/* ---- holds ---- */

uint64_t dj_links_hold(dj_links_t *links, uint32_t rank)
{
    dj_link_t *link = link_of(links, rank);
    if (!link || link->state != DJ_LINK_OPEN)
        return 0;
    link->holds++;
    return link->number;
}

dj_endpoint_t *dj_links_endpoint(dj_links_t *links, uint32_t rank, uint64_t number)
{
    dj_link_t *link = link_of(links, rank);
    return link && link->state == DJ_LINK_OPEN && link->number == number ? link->endpoint : NULL;
}

bool dj_links_direct(dj_links_t *links, uint32_t rank, uint64_t number)
{
    return dj_links_endpoint(links, rank, number) && links->links[rank].direct;
}

uint32_t dj_links_incarnation(dj_links_t *links, uint32_t rank)
{
    const dj_link_t *link = link_of(links, rank);
    return link ? link->incarnation : 0;
}

void dj_links_let_go(dj_links_t *links, uint32_t rank, uint64_t number)
{
    if (!dj_links_endpoint(links, rank, number))
        return;
    dj_link_t *link = link_of(links, rank);
    link->used_ns = dj_clock_ns();
    link->holds--;
}

/* ---- news ---- */

/* A rank that is gone is dialled no more. A link that is open to it stays: its own connection tells sooner and
 * better whether the rank lives, and a coordinator that was stopped, or begins anew, says so of ranks that only
 * have yet to register again. */
static void take_row(dj_links_t *links, const dj_command_t *command)
{
    const dj_hello_t *row = &command->hello;
    dj_link_t *link = link_of(links, row->rank);
    if (!link || command->address_bytes > sizeof(link->endpoint_text))
        return;
    bool gone = !command->address_bytes || !command->address[0];
    if (link->peer_incarnation != row->incarnation)
        lose(links, link, "the rank was started again");
    memset(link->endpoint_text, 0, sizeof(link->endpoint_text));
    if (gone)
        return;
    memcpy(link->endpoint_text, command->address, command->address_bytes);
    link->endpoint_text[sizeof(link->endpoint_text) - 1] = 0;
    link->incarnation = row->incarnation;
    link->retry_ns = 0;
}

static void unlinked(dj_links_t *links, uint64_t connection)
{
    for (uint32_t i = 0; i < links->n_links; i++)
        if (links->links[i].state == DJ_LINK_OPEN && links->links[i].connection == connection)
            lose(links, &links->links[i], "its control connection ended");
}

void dj_links_command(dj_links_t *links, dj_command_t *command)
{
    switch (command->kind) {
    case DJ_COMMAND_ROSTER:
        take_row(links, command);
        break;
    case DJ_COMMAND_PEER:
        accept_peer(links, command);
        break;
    case DJ_COMMAND_DIALLED:
        dialled(links, command);
        break;
    case DJ_COMMAND_UNLINKED:
        unlinked(links, command->connection);
        break;
    default:
        break;
    }
}

void dj_links_sweep(dj_links_t *links, uint64_t now_ns)
{
    uint64_t idle_ns = links->rank->config->link_idle_ms * DJ_NS_PER_MS;
    for (uint32_t i = 0; i < links->n_links; i++) {
        dj_link_t *link = &links->links[i];
        if (link->state != DJ_LINK_OPEN)
            continue;
        if (dj_endpoint_failed(link->endpoint))
            lose(links, link, "its endpoint failed");
        else if (link->dialled && !link->holds && now_ns - link->used_ns > idle_ns)
            lose(links, link, "nothing has used it for a while");
    }
}
