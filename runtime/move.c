/* move.c - tensors from rank to rank: MOVE on the rank that gets the bytes; pull.c is the one that has them.
 *
 * A MOVE is a job of its session like any other. At the head of the queue it makes its new ref, sends a PULL
 * over the link to the source (runtime/links.h) and stays there, DJ_JOB_MOVING, while other sessions go on.
 * The bytes come as a RESULT or as PARTs, and land in the ref's block: by rendezvous directly. Then the client
 * is answered. Whatever goes wrong before (the link dies, the deadline passes, the client is gone) drops the
 * ref and is the answer; what comes later finds no MOVE with its number. A link that ends under a MOVE that
 * has received nothing is opened once more, because the other side may have closed it as idle at that very
 * moment.
 *
 * Beside a blind device bytes arrive in bounce buffers: it asks for PARTs, and the device thread copies one in
 * while the next arrives. The source has at most DJ_MOVE_PARTS on their way, and as many buffers are used here:
 * parts that come while the device is behind are held at the source.
 *
 * Each arrival is a job without a queue, a part of the MOVE. A MOVE ends when no part is open: until then its
 * memory is in use.
 *
 * Trust: a client that sends a RESULT or a PART of its own making gets nothing: numbers of PULLs begin at 64
 * random bits. */
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/links.h"

#define DJ_LOG_MODULE "move"
#define DJ_MOVE_REACH_NS DJ_NS_PER_S            /* how long a source may take to be there */
#define DJ_MOVE_GRACE_NS (500 * DJ_NS_PER_MS)   /* for bytes that flow at the deadline */

/* ---- the end of a MOVE ---- */

static void unlist(dj_rank_t *rank, dj_job_t *job)
{
    for (dj_job_t **at_p = &rank->moves; *at_p; at_p = &(*at_p)->moving.next)
        if (*at_p == job) {
            *at_p = job->moving.next;
            return;
        }
}

static void forget_pull(dj_rank_t *rank, dj_job_t *job)
{
    if (job->moving.link)
        dj_links_let_go(rank->links, job->move.source_rank, job->moving.link);
    job->moving.link = job->moving.number = 0;
}

void dj_move_end(dj_job_t *job, dj_status_t status)
{
    dj_rank_t *rank = job->rank;
    unlist(rank, job);
    forget_pull(rank, job);
    if (job->moving.partner)
        job->moving.partner->moving.partner = NULL;
    job->moving.partner = NULL;
    if (status != DJ_OK) {
        dj_job_fail(job, status);
        dj_ref_drop(job->session, &rank->home, job->move.ref);
    } else {
        atomic_fetch_add(&rank->counters.moves, 1);
    }
    job->answer.result.queue_ns = job->started_ns - job->arrived_ns;
    job->answer.result.run_ns = dj_clock_ns() - job->started_ns;
    dj_job_finish(rank, job);
}

static dj_status_t source_lost(const dj_job_t *job, const char *why)
{
    return dj_fail(DJ_ERR_PEER_DIED, "rank %u, the source of the move, is lost (%.300s): if it died, "
                                     "connect to it again and rebuild its tensors",
                   job->move.source_rank, why);
}

/* ---- asking ---- */

static dj_status_t ask(dj_rank_t *rank, dj_job_t *job, dj_endpoint_t *endpoint)
{
    const dj_move_t *move = &job->move;
    if (!rank->last_pull)
        rank->last_pull = dj_random_u64() | 1;
    uint64_t number = ++rank->last_pull;
    const struct {
        dj_header_t header;
        dj_pull_t pull;
    } message = {{.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                  .type = DJ_MESSAGE_PULL, .request = number},
                 {.session = move->source_session, .ref = move->source_ref,
                  .offset = move->source_offset, .bytes = move->bytes,
                  .part_bytes = dj_home_is_blind(&rank->home) ? DJ_MOVE_PART_BYTES : 0,
                  .generation = move->source_generation, .rank = rank->rank}};
    dj_status_t status = dj_endpoint_send(endpoint, &message, sizeof(message), NULL, 0, NULL, NULL);
    if (status != DJ_OK && status != DJ_IN_PROGRESS)
        return status;
    job->moving.number = number;
    job->moving.incarnation = dj_links_incarnation(rank->links, move->source_rank);
    job->moving.link = dj_links_hold(rank->links, move->source_rank);
    return DJ_OK;
}

/* A rank that died a moment ago, or is about to be in the roster, or dials us while we dial it, is asked
 * again; one whose link has just broken under the MOVE is not waited for. */
static dj_status_t try_remote(dj_rank_t *rank, dj_job_t *job)
{
    dj_endpoint_t *endpoint;
    if (job->moving.again && job->moving.incarnation !=
                                 dj_links_incarnation(rank->links, job->move.source_rank))
        return source_lost(job, "it was started again");
    dj_status_t status = dj_links_reach(rank->links, job->move.source_rank, &endpoint);
    if (status == DJ_OK)
        status = ask(rank, job, endpoint);
    if (status >= 0 || status == DJ_ERR_INVALID)
        return status;
    bool gone = job->moving.again && (status == DJ_ERR_CONNECT || status == DJ_ERR_PEER_DIED);
    if (!gone && dj_clock_ns() - job->moving.began_ns < DJ_MOVE_REACH_NS)
        return DJ_IN_PROGRESS;
    char why[DJ_ERROR_TEXT_MAX];
    snprintf(why, sizeof(why), "%s", dj_error_text());
    return source_lost(job, why);
}

/* ---- MOVE ---- */

static dj_status_t check_move(const dj_rank_t *rank, const dj_job_t *job)
{
    const dj_move_t *move = &job->move;
    if (job->payload_bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "a MOVE with %llu bytes of payload",
                       (unsigned long long)job->payload_bytes);
    if (move->source_rank >= rank->n_ranks || (move->source_rank == 0 && rank->n_ranks > 1))
        return dj_fail(DJ_ERR_INVALID, "a move from rank %u: ranks %u to %u hold tensors",
                       move->source_rank, rank->n_ranks > 1, rank->n_ranks - 1);
    if (dj_clock_ns() > job->deadline_ns)
        return dj_fail(DJ_ERR_DEADLINE, "the request waited past its deadline");
    return DJ_OK;
}

dj_status_t dj_move_start(dj_rank_t *rank, dj_job_t *job)
{
    dj_ref_slot_t *slot;
    dj_status_t status = check_move(rank, job);
    if (status == DJ_OK)
        status = dj_rank_heed(rank, dj_ref_create(job->session, job->move.ref, job->move.bytes, &slot));
    if (status != DJ_OK) {
        dj_job_fail(job, status);
        return status;
    }
    job->state = DJ_JOB_MOVING;
    job->started_ns = job->moving.began_ns = dj_clock_ns();
    job->moving.memory = slot->block.data;
    job->moving.next = rank->moves;
    rank->moves = job;
    return DJ_IN_PROGRESS; /* the source is asked by dj_moves_turn(), outside of any handler */
}

/* ---- the answer ---- */

static dj_status_t check_result(const dj_job_t *job, const dj_incoming_t *incoming)
{
    const dj_result_t *result = incoming->body;
    if (result->status > 0 || dj_status_name(result->status)[0] == '?')
        return dj_fail(DJ_ERR_PROTOCOL, "rank %u answers with the unknown status %d",
                       job->move.source_rank, result->status);
    if (result->status < 0)
        return dj_fail((dj_status_t)result->status, "rank %u: %.*s", job->move.source_rank,
                       incoming->payload && incoming->payload_bytes < DJ_ERROR_TEXT_MAX
                           ? (int)incoming->payload_bytes : 0,
                       incoming->payload ? (const char *)incoming->payload : "");
    if (incoming->payload_bytes != job->move.bytes || job->moving.begun_bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "rank %u answers with %llu bytes where %llu were asked for",
                       job->move.source_rank, (unsigned long long)incoming->payload_bytes,
                       (unsigned long long)(job->move.bytes - job->moving.begun_bytes));
    return DJ_OK;
}

static dj_status_t check_part(const dj_job_t *job, const dj_incoming_t *incoming)
{
    const dj_part_t *part = incoming->body;
    const dj_moving_t *moving = &job->moving;
    if (part->offset == moving->begun_bytes && part->bytes == incoming->payload_bytes && part->bytes > 0 &&
        part->bytes <= job->move.bytes - moving->begun_bytes && moving->n_held < DJ_MOVE_PARTS)
        return DJ_OK;
    return dj_fail(DJ_ERR_PROTOCOL, "rank %u sends a part of %llu bytes at %llu, after %llu of %llu, with %u held: no "
                                    "source of this version does that",
                   job->move.source_rank, (unsigned long long)part->bytes, (unsigned long long)part->offset,
                   (unsigned long long)moving->begun_bytes, (unsigned long long)job->move.bytes, moving->n_held);
}

/* One that still wants what comes. */
static dj_job_t *find_move(dj_rank_t *rank, const dj_header_t *header)
{
    dj_job_t *job = rank->moves;
    while (job && (!job->moving.number || job->moving.number != header->request))
        job = job->moving.next;
    return job && job->status == DJ_OK && job->moving.begun_bytes < job->move.bytes + !job->move.bytes ? job : NULL;
}

static dj_status_t damaged(const dj_job_t *job)
{
    return dj_fail(DJ_ERR_CORRUPT, "the bytes from rank %u were damaged on their way: their checksum does "
                                   "not fit; look for a failing card, cable or memory",
                   job->move.source_rank);
}

/* After an arrival, or its end: with a failure the MOVE ends as soon as nothing uses its memory. */
static void settle(dj_job_t *job, dj_status_t status)
{
    if (status != DJ_OK)
        dj_job_fail(job, status);
    if (job->moving.open)
        return;
    if (job->status != DJ_OK)
        dj_move_end(job, dj_fail(job->status, "%s", job->text));
    else if (job->moving.done_bytes == job->move.bytes)
        dj_move_end(job, DJ_OK);
}

/* Where it may be written: the memory itself, or a bounce buffer that is the part's. The host reads what brings a
 * checksum. */
static dj_status_t find_room(dj_job_t *part)
{
    dj_rank_t *rank = part->rank;
    const dj_job_t *job = part->moving.whole;
    bool direct = part->header.checksum == 0 && dj_links_direct(rank->links, job->move.source_rank, job->moving.link);
    return dj_home_is_blind(&rank->home) ? dj_direct_take(rank, direct, part->part.bytes, &part->bounce) : DJ_OK;
}

static void *room_of(const dj_job_t *part)
{
    return part->bounce.memory ? part->bounce.memory : part->moving.memory;
}

static void hold(dj_job_t *job, dj_job_t *part, void *hold)
{
    dj_job_t **at_p = &job->moving.held;
    while (*at_p)
        at_p = &(*at_p)->next;
    *at_p = part;
    part->next = NULL;
    part->hold = hold;
    job->moving.n_held++;
}

static void unhold(dj_job_t *job, dj_job_t *part)
{
    dj_job_t **at_p = &job->moving.held;
    while (*at_p != part)
        at_p = &(*at_p)->next;
    *at_p = part->next;
    part->hold = NULL;
    job->moving.n_held--;
}

/* Those whose turn has come; also of a MOVE that has failed, whose source waits for an end. */
static void accept_held(dj_job_t *job)
{
    while (job->moving.held && job->moving.open - job->moving.n_held < DJ_MOVE_PARTS) {
        dj_job_t *part = job->moving.held;
        void *hold = part->hold;
        dj_status_t status = find_room(part);
        if (status != DJ_OK) { /* the link's end is theirs */
            dj_job_fail(job, status);
            if (job->moving.link)
                dj_links_break(job->rank->links, job->move.source_rank, job->moving.link, "no memory for what it brings");
            return;
        }
        unhold(job, part);
        dj_comm_accept(job->rank->comm, hold, room_of(part));
    }
}

/* A rendezvous's first call. DJ_IN_PROGRESS: it is held. */
static dj_status_t place_part(dj_job_t *job, const dj_incoming_t *incoming, dj_job_t **part_p, void **memory_p)
{
    dj_rank_t *rank = job->rank;
    const dj_header_t header = {.type = DJ_MESSAGE_PART, .checksum = incoming->header->checksum};
    const dj_part_t body = {.offset = job->moving.begun_bytes, .bytes = incoming->payload_bytes};
    bool held = dj_home_is_blind(&rank->home) && job->moving.open >= DJ_MOVE_PARTS;
    dj_job_t *part = dj_job_take(rank, job->session, &header, &body);
    if (!part)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a part of a move");
    part->moving.whole = job;
    part->moving.memory = (uint8_t *)job->moving.memory + body.offset;
    dj_status_t status = held ? DJ_OK : find_room(part);
    if (status != DJ_OK) {
        dj_job_put(rank, part);
        return status;
    }
    job->moving.open++;
    job->moving.begun_bytes += body.bytes;
    *part_p = part;
    *memory_p = room_of(part);
    if (held)
        hold(job, part, incoming->hold);
    return held ? DJ_IN_PROGRESS : DJ_OK;
}

static void drop_part(dj_job_t *part, dj_status_t status)
{
    dj_job_t *job = part->moving.whole;
    if (part->hold) /* its link ended first */
        unhold(job, part);
    job->moving.open--;
    job->moving.done_bytes += status == DJ_OK ? part->part.bytes : 0;
    dj_job_put(job->rank, part);
    accept_held(job);
    settle(job, status);
}

/* A rendezvous came to its end. Few bytes are copied in here, many by the device thread. */
static void end_arrival(dj_job_t *part, const dj_incoming_t *incoming)
{
    dj_rank_t *rank = part->rank;
    dj_job_t *job = part->moving.whole;
    dj_status_t status = incoming->failed ? source_lost(job, "its bytes did not arrive whole")
                         : incoming->corrupt ? damaged(job) : DJ_OK;
    if (status == DJ_OK && part->bounce.memory && part->part.bytes > DJ_COPY_INLINE_BYTES) {
        dj_queue_push(&rank->jobs, &part->entry);
        return;
    }
    if (status == DJ_OK && part->bounce.memory)
        status = dj_part_copy(rank, part);
    drop_part(part, status);
}

dj_status_t dj_part_copy(dj_rank_t *rank, dj_job_t *part)
{
    dj_moving_t *moving = &part->moving;
    dj_status_t status =
        moving->whole->header.type == DJ_MESSAGE_MOVE
            ? dj_rank_drain(rank, moving->memory, &part->bounce, 0, part->part.bytes)
            : dj_rank_fill(rank, &part->bounce, 0, moving->memory, part->part.bytes);
    if (status != DJ_OK)
        dj_job_fail(part, status);
    return status;
}

void dj_part_copied(dj_job_t *part)
{
    if (part->moving.whole->header.type == DJ_MESSAGE_PULL)
        dj_pull_part_copied(part);
    else
        drop_part(part, part->status == DJ_OK ? DJ_OK : dj_fail(part->status, "%s", part->text));
}

dj_status_t dj_move_message(dj_rank_t *rank, const dj_incoming_t *incoming, void **memory_p,
                            void **token_p)
{
    dj_job_t *part = incoming->token;
    if (part) {
        end_arrival(part, incoming);
        return DJ_OK;
    }
    dj_job_t *job = find_move(rank, incoming->header);
    if (!job) {
        atomic_fetch_add_explicit(&rank->counters.stale, 1, memory_order_relaxed);
        return dj_fail(DJ_ERR_STALE, "a %s that nobody waits for", dj_message_name(incoming->header->type));
    }
    dj_status_t status = incoming->corrupt                                ? damaged(job)
                         : incoming->header->type == DJ_MESSAGE_PART ? check_part(job, incoming)
                                                                     : check_result(job, incoming);
    if (status == DJ_OK && incoming->rendezvous && (status = place_part(job, incoming, &part, memory_p)) >= 0) {
        *token_p = part;
        return status;
    }
    if (status == DJ_OK) {
        status = dj_rank_copy_in(rank, (uint8_t *)job->moving.memory + job->moving.begun_bytes, incoming->payload,
                                 incoming->payload_bytes);
        job->moving.begun_bytes += incoming->payload_bytes;
        job->moving.done_bytes += incoming->payload_bytes;
    }
    settle(job, status);
    return status;
}

/* ---- time and loss ---- */

/* Nothing arrived yet: once more, over a new link. Parts that arrive are reported as failed by comm. */
void dj_moves_lost(dj_rank_t *rank, uint64_t link, const char *why)
{
    for (dj_job_t *job = rank->moves, *next; job; job = next) {
        next = job->moving.next;
        if (!job->moving.link || job->moving.link != link)
            continue;
        job->moving.link = 0;
        if (job->moving.begun_bytes < job->move.bytes && job->moving.begun_bytes) /* more does not come */
            dj_job_fail(job, source_lost(job, why));
        if (job->moving.open)
            continue;
        job->moving.number = 0;
        if (!job->moving.again && !job->moving.begun_bytes) {
            job->moving.again = true;
            job->moving.began_ns = dj_clock_ns();
            continue;
        }
        dj_move_end(job, source_lost(job, why));
        next = rank->moves; /* whatever that set going */
    }
}

/* True: the MOVE has ended. */
static bool check_time(dj_rank_t *rank, dj_job_t *job, uint64_t now_ns)
{
    bool late = now_ns > job->deadline_ns, orphan = job->session->state == DJ_SESSION_ENDING;
    if (!late && !orphan)
        return false;
    if (job->moving.open) { /* its memory is in use until comm lets go */
        if (job->moving.link && (orphan || now_ns > job->deadline_ns + DJ_MOVE_GRACE_NS))
            dj_links_break(rank->links, job->move.source_rank, job->moving.link,
                           "bytes stand still past a deadline");
        return false;
    }
    dj_move_end(job, orphan ? dj_fail(DJ_ERR_CANCELLED, "the session has ended")
                    : dj_fail(DJ_ERR_DEADLINE, "rank %u did not hand over the bytes within the "
                                               "deadline: it is busy or stuck",
                              job->move.source_rank));
    return true;
}

/* True: the list of MOVEs has changed. */
static bool tend(dj_rank_t *rank, dj_job_t *job, uint64_t now_ns)
{
    if (check_time(rank, job, now_ns))
        return true;
    if (job->moving.number || job->moving.partner || job->moving.open)
        return false;
    bool local = job->move.source_rank == rank->rank;
    dj_status_t status = local ? dj_pull_begin_local(rank, job) : try_remote(rank, job);
    if (status < 0)
        dj_move_end(job, status);
    return status < 0 || local;
}

void dj_moves_turn(dj_rank_t *rank)
{
    uint64_t now_ns = dj_clock_ns();
    for (dj_job_t *job = rank->moves; job;)
        job = tend(rank, job, now_ns) ? rank->moves : job->moving.next;
}
