/* move.c - tensors from rank to rank: MOVE on the rank that gets the bytes, PULL on the one that has them.
 *
 * A MOVE is a job of its session like any other. At the head of the queue it makes its new ref, sends a PULL
 * over the link to the source (runtime/links.h) and stays there, DJ_JOB_MOVING, while other sessions go on.
 * The RESULT lands in the ref's block: by rendezvous directly. Then the client is answered. Whatever goes
 * wrong before (the link dies, the deadline passes, the client is gone) drops the ref and is the answer; a
 * RESULT that comes later finds no MOVE with its number. A link that ends under a MOVE that has received
 * nothing is opened once more, because the other side may have closed it as idle at that very moment.
 *
 * A PULL joins the queue of the session it reads, so that nothing overwrites the bytes before they have
 * left. It does not go to the end: what the client wants to have happened before it asked for the move was
 * answered before (djinn_move() synchronizes the source), so the PULL need only wait for the job that runs.
 * And it passes MOVEs, which touch nothing but their own new refs: two sessions that move to each other at
 * the same time would else wait for each other until a deadline. A ref that a MOVE still fills is not there
 * yet.
 *
 * Both ends on one rank: the PULL's turn is a device copy, made where long requests run.
 *
 * A blind device's bytes leave from a bounce buffer and arrive in one: they are copied out before they are
 * sent, and in before the client is answered; many of them where long requests run. A session's PULLs under
 * way hold at most ingress_bytes so, or one of them more; others wait.
 *
 * Trust: whoever knows session, generation and ref may read it, and no one but its client does. A client
 * that sends a PULL or a RESULT of its own making gets nothing: answers go over links alone, and numbers of
 * PULLs begin at 64 random bits. */
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/links.h"

#define DJ_LOG_MODULE "move"
#define DJ_MOVE_REACH_NS DJ_NS_PER_S            /* how long a source may take to be there */
#define DJ_MOVE_GRACE_NS (500 * DJ_NS_PER_MS)   /* for bytes that flow at the deadline */
#define DJ_MOVE_INLINE_BYTES (256u << 10)       /* copied on the progress thread */

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

/* `status` with the thread's sentence. */
static void end_move(dj_rank_t *rank, dj_job_t *job, dj_status_t status)
{
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

/* ---- PULL ---- */

static dj_status_t stale_pull(const dj_pull_t *pull)
{
    return dj_fail(DJ_ERR_STALE, "session %llx generation %u is not here to be read",
                   (unsigned long long)pull->session, pull->generation);
}

static dj_session_t *find_source(dj_rank_t *rank, const dj_pull_t *pull)
{
    dj_session_t *session = dj_table_get(&rank->sessions, dj_key_u64(pull->session));
    return session && session->state == DJ_SESSION_ATTACHED &&
                   session->generation == pull->generation
               ? session
               : NULL;
}

/* Whether a PULL must stay behind it: it runs, or bytes arrive in the refs themselves. */
static bool holds_refs(const dj_job_t *job)
{
    return job->state == DJ_JOB_RUNNING || job->state == DJ_JOB_ANSWERING ||
           job->state == DJ_JOB_MOVING || job->landed || job->header.type == DJ_MESSAGE_PULL;
}

static bool may_be_passed(const dj_job_t *job)
{
    return job->state == DJ_JOB_MOVING || job->header.type == DJ_MESSAGE_PULL;
}

/* Puts the PULL into its session's queue; it starts at once when nothing that runs is before it. */
static void queue_pull(dj_rank_t *rank, dj_job_t *job)
{
    dj_session_t *session = job->session;
    dj_job_t **place_p = &session->first_job;
    bool at_once = true;
    for (dj_job_t **at_p = place_p; *at_p; at_p = &(*at_p)->next)
        if (holds_refs(*at_p))
            place_p = &(*at_p)->next;
    for (dj_job_t *at = session->first_job; at != *place_p; at = at->next)
        at_once = at_once && may_be_passed(at);
    job->next = *place_p;
    *place_p = job;
    if (!job->next)
        session->last_job_p = &job->next;
    session->pending++;
    job->state = DJ_JOB_READY;
    if (at_once && dj_pull_may_start(job) && dj_pull_start(rank, job) != DJ_IN_PROGRESS)
        dj_job_retire(rank, job);
}

static bool is_being_filled(const dj_session_t *session, uint64_t ref)
{
    for (const dj_job_t *at = session->first_job; at; at = at->next)
        if (at->state == DJ_JOB_MOVING && at->move.ref == ref)
            return true;
    return false;
}

static dj_status_t find_bytes(dj_job_t *job)
{
    const dj_pull_t *pull = &job->pull;
    dj_ref_slot_t *slot;
    dj_status_t status = dj_ref_find(job->session, pull->ref, &slot);
    if (status != DJ_OK)
        return status;
    if (is_being_filled(job->session, pull->ref))
        return dj_fail(DJ_ERR_STALE, "ref %#llx is itself the target of a move that has not ended",
                       (unsigned long long)pull->ref);
    uint64_t have = dj_ref_bytes(slot);
    if (pull->offset > have || pull->bytes > have - pull->offset)
        return dj_fail(DJ_ERR_SHAPE, "a move wants %llu bytes at %llu of a ref of %llu",
                       (unsigned long long)pull->bytes, (unsigned long long)pull->offset,
                       (unsigned long long)have);
    job->moving.memory = (uint8_t *)dj_ref_data(slot) + pull->offset;
    return DJ_OK;
}

static void let_go(dj_rank_t *rank, dj_job_t *job)
{
    if (job->moving.link)
        dj_links_let_go(rank->links, job->pull.rank, job->moving.link);
    job->moving.link = 0;
}

static void pull_sent(void *argument, dj_status_t status)
{
    dj_job_t *job = argument;
    (void)status; /* lost with the link, which tells the other side too */
    let_go(job->rank, job);
    dj_job_retire(job->rank, job);
}

static dj_status_t send_bytes(dj_rank_t *rank, dj_job_t *job)
{
    dj_endpoint_t *endpoint = dj_links_endpoint(rank->links, job->pull.rank, job->moving.link);
    if (!endpoint)
        return DJ_ERR_PEER_DIED; /* who asked hears of it by the same loss */
    job->pieces[0] = (dj_piece_t){job->moving.memory, job->pull.bytes};
    if (job->status != DJ_OK)
        job->pieces[0] = (dj_piece_t){job->text, strlen(job->text)};
    job->answer.header = (dj_header_t){.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                                       .type = DJ_MESSAGE_RESULT,
                                       .request = job->header.request};
    job->answer.result.status = job->status;
    job->answer.result.bytes = job->pieces[0].bytes;
    return dj_endpoint_send(endpoint, &job->answer, sizeof(job->answer), job->pieces,
                            job->pieces[0].bytes ? 1 : 0, pull_sent, job);
}

/* The MOVE of a PULL that has copied, or failed. */
static void end_partner(dj_rank_t *rank, dj_job_t *job)
{
    dj_job_t *target = job->moving.partner;
    job->moving.partner = NULL;
    if (!target)
        return;
    target->moving.partner = NULL;
    target->moving.receiving = false;
    end_move(rank, target, job->status == DJ_OK ? DJ_OK : dj_fail(job->status, "%s", job->text));
}

bool dj_pull_may_start(const dj_job_t *job)
{
    const dj_rank_t *rank = job->rank;
    uint64_t held = job->session->pulled_bytes;
    return !dj_home_is_blind(&rank->home) || held == 0 ||
           job->pull.bytes <= rank->config->ingress_bytes - (held < rank->config->ingress_bytes
                                                                  ? held : rank->config->ingress_bytes);
}

static void count_pulled(dj_job_t *job)
{
    job->session->pulled_bytes += job->pull.bytes;
    job->moving.counted = true;
}

/* Out of the device first, then as send_bytes(). */
static dj_status_t start_bounced(dj_rank_t *rank, dj_job_t *job)
{
    count_pulled(job);
    if (job->pull.bytes > DJ_MOVE_INLINE_BYTES) {
        job->state = DJ_JOB_RUNNING;
        dj_queue_push(&rank->jobs, &job->entry);
        return DJ_IN_PROGRESS;
    }
    dj_pull_copy(rank, job);
    return send_bytes(rank, job);
}

static dj_status_t start_local(dj_rank_t *rank, dj_job_t *job)
{
    if (job->status == DJ_OK && job->pull.bytes > DJ_MOVE_INLINE_BYTES) {
        job->moving.partner->moving.receiving = true; /* from here on its memory is in use */
        job->state = DJ_JOB_RUNNING;
        dj_queue_push(&rank->jobs, &job->entry);
        return DJ_IN_PROGRESS;
    }
    if (job->status == DJ_OK)
        dj_pull_copy(rank, job);
    end_partner(rank, job);
    return DJ_OK;
}

dj_status_t dj_pull_start(dj_rank_t *rank, dj_job_t *job)
{
    bool local = job->pull.rank == rank->rank;
    dj_status_t status = DJ_OK;
    job->state = DJ_JOB_ANSWERING;
    job->started_ns = dj_clock_ns();
    bool wanted = local ? job->moving.partner != NULL : job->started_ns <= job->deadline_ns;
    if (wanted && (status = find_bytes(job)) != DJ_OK)
        dj_job_fail(job, status);
    bool bounced = wanted && !local && job->status == DJ_OK && dj_home_is_blind(&rank->home);
    if (bounced)
        status = start_bounced(rank, job);
    else if (wanted)
        status = local ? start_local(rank, job) : send_bytes(rank, job);
    if (status != DJ_IN_PROGRESS)
        let_go(rank, job);
    return status;
}

static dj_status_t copy_out(dj_rank_t *rank, dj_job_t *job)
{
    dj_status_t status = dj_bounce_take(rank->home.bounce, job->pull.bytes, &job->bounce);
    if (status == DJ_OK)
        status = dj_rank_copy_out(rank, job->bounce.memory, job->moving.memory, job->pull.bytes);
    if (status == DJ_OK)
        job->moving.memory = job->bounce.memory;
    return status;
}

void dj_pull_copy(dj_rank_t *rank, dj_job_t *job)
{
    dj_device_t *device = rank->home.device;
    dj_status_t status = DJ_OK;
    if (job->pull.rank != rank->rank)
        status = copy_out(rank, job);
    else if (job->pull.bytes)
        status = dj_rank_heed(rank, device->ops->memory.copy(device, job->moving.partner->moving.memory,
                                                             job->moving.memory, job->pull.bytes));
    if (status != DJ_OK)
        dj_job_fail(job, status);
}

void dj_pull_copied(dj_rank_t *rank, dj_job_t *job)
{
    job->state = DJ_JOB_ANSWERING;
    if (job->pull.rank != rank->rank) {
        if (send_bytes(rank, job) == DJ_IN_PROGRESS)
            return;
        let_go(rank, job);
    } else {
        end_partner(rank, job);
    }
    dj_job_retire(rank, job);
}

/* A PULL with nobody's job to be: its refusal is small and copied by the endpoint. */
static void refuse_pull(dj_rank_t *rank, const dj_incoming_t *incoming, uint64_t link,
                        dj_status_t status)
{
    const dj_pull_t *pull = incoming->body;
    const char *text = dj_error_text();
    const dj_piece_t pieces[2] = {{text, strlen(text)}, {NULL, 0}}; /* several are gathered */
    const struct {
        dj_header_t header;
        dj_result_t result;
    } answer = {{.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                 .type = DJ_MESSAGE_RESULT, .request = incoming->header->request},
                {.status = status, .segment = UINT32_MAX, .bytes = strlen(text)}};
    dj_endpoint_t *endpoint = dj_links_endpoint(rank->links, pull->rank, link);
    if (endpoint)
        dj_endpoint_send(endpoint, &answer, sizeof(answer), pieces, 2, NULL, NULL);
    dj_links_let_go(rank->links, pull->rank, link);
}

dj_status_t dj_pull_message(dj_rank_t *rank, const dj_incoming_t *incoming)
{
    const dj_pull_t *pull = incoming->body;
    if (incoming->payload_bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "a PULL with %llu bytes of payload",
                       (unsigned long long)incoming->payload_bytes);
    uint64_t link = dj_links_hold(rank->links, pull->rank);
    if (!link) {
        atomic_fetch_add_explicit(&rank->counters.stale, 1, memory_order_relaxed);
        return dj_fail(DJ_ERR_STALE, "a PULL for rank %u, to which there is no link", pull->rank);
    }
    dj_session_t *session = find_source(rank, pull);
    dj_status_t status = session ? DJ_OK : stale_pull(pull);
    if (status == DJ_OK && session->pending >= DJ_REQUESTS_MAX)
        status = dj_fail(DJ_ERR_BUSY, "the source has %u requests in its queue", session->pending);
    dj_job_t *job = status == DJ_OK ? dj_job_take(rank, session, incoming->header, pull) : NULL;
    if (status == DJ_OK && !job)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for a PULL");
    if (status != DJ_OK) {
        refuse_pull(rank, incoming, link, status);
        return status;
    }
    job->moving.link = link;
    queue_pull(rank, job);
    return DJ_OK;
}

/* ---- MOVE ---- */

static dj_status_t begin_local(dj_rank_t *rank, dj_job_t *job)
{
    const dj_move_t *move = &job->move;
    const dj_header_t header = {.type = DJ_MESSAGE_PULL};
    const dj_pull_t pull = {.session = move->source_session, .ref = move->source_ref,
                            .offset = move->source_offset, .bytes = move->bytes,
                            .generation = move->source_generation, .rank = rank->rank};
    dj_session_t *source = find_source(rank, &pull);
    if (!source)
        return stale_pull(&pull);
    if (source->pending >= DJ_REQUESTS_MAX)
        return dj_fail(DJ_ERR_BUSY, "the source has %u requests in its queue", source->pending);
    dj_job_t *partner = dj_job_take(rank, source, &header, &pull);
    if (!partner)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a PULL");
    partner->moving.partner = job;
    job->moving.partner = partner;
    queue_pull(rank, partner); /* and perhaps the MOVE is over and gone */
    return DJ_OK;
}

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

static dj_status_t check_answer(const dj_job_t *job, const dj_incoming_t *incoming)
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
    if (incoming->payload_bytes != job->move.bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "rank %u answers with %llu bytes where %llu were asked for",
                       job->move.source_rank, (unsigned long long)incoming->payload_bytes,
                       (unsigned long long)job->move.bytes);
    return DJ_OK;
}

static dj_job_t *find_move(dj_rank_t *rank, const dj_header_t *header)
{
    dj_job_t *job = rank->moves;
    while (job && (!job->moving.number || job->moving.number != header->request))
        job = job->moving.next;
    return job;
}

static dj_status_t damaged(const dj_job_t *job)
{
    return dj_fail(DJ_ERR_CORRUPT, "the bytes from rank %u were damaged on their way: their checksum does "
                                   "not fit; look for a failing card, cable or memory",
                   job->move.source_rank);
}

/* Where a rendezvous may write. */
static dj_status_t find_place(dj_rank_t *rank, dj_job_t *job, void **memory_p)
{
    *memory_p = job->moving.memory;
    if (!dj_home_is_blind(&rank->home))
        return DJ_OK;
    dj_status_t status = dj_bounce_take(rank->home.bounce, job->move.bytes, &job->bounce);
    *memory_p = job->bounce.memory;
    return status;
}

void dj_move_land(dj_rank_t *rank, dj_job_t *job)
{
    dj_status_t status = dj_rank_copy_in(rank, job->moving.memory, job->bounce.memory, job->move.bytes);
    if (status != DJ_OK)
        dj_job_fail(job, status);
}

void dj_move_landed(dj_rank_t *rank, dj_job_t *job)
{
    job->moving.receiving = false;
    end_move(rank, job, job->status == DJ_OK ? DJ_OK : dj_fail(job->status, "%s", job->text));
}

/* A rendezvous came to its end. Until bytes beside a blind device are in it the MOVE counts as receiving: its
 * memory is in use, but no link is any more. */
static void end_arrival(dj_rank_t *rank, dj_job_t *job, const dj_incoming_t *incoming)
{
    dj_status_t status = incoming->failed ? source_lost(job, "its bytes did not arrive whole")
                         : incoming->corrupt ? damaged(job) : DJ_OK;
    if (status == DJ_OK && job->bounce.memory) {
        forget_pull(rank, job);
        dj_queue_push(&rank->jobs, &job->entry);
        return;
    }
    job->moving.receiving = false;
    end_move(rank, job, status);
}

dj_status_t dj_move_message(dj_rank_t *rank, const dj_incoming_t *incoming, void **memory_p,
                            void **token_p)
{
    dj_job_t *job = incoming->token;
    if (job) {
        end_arrival(rank, job, incoming);
        return DJ_OK;
    }
    job = find_move(rank, incoming->header);
    if (!job || job->moving.receiving) {
        atomic_fetch_add_explicit(&rank->counters.stale, 1, memory_order_relaxed);
        return dj_fail(DJ_ERR_STALE, "a RESULT that nobody waits for");
    }
    dj_status_t status = incoming->corrupt ? damaged(job) : check_answer(job, incoming);
    if (status == DJ_OK && incoming->rendezvous && (status = find_place(rank, job, memory_p)) == DJ_OK) {
        job->moving.receiving = true;
        *token_p = job;
        return DJ_OK;
    }
    if (status == DJ_OK)
        status = dj_rank_copy_in(rank, job->moving.memory, incoming->payload, incoming->payload_bytes);
    end_move(rank, job, status);
    return status;
}

/* ---- time and loss ---- */

/* Nothing arrived yet: once more, over a new link. Bytes that arrive are reported as failed by comm. */
void dj_moves_lost(dj_rank_t *rank, uint64_t link, const char *why)
{
    for (dj_job_t *job = rank->moves, *next; job; job = next) {
        next = job->moving.next;
        if (!job->moving.link || job->moving.link != link)
            continue;
        job->moving.link = 0;
        if (job->moving.receiving)
            continue;
        job->moving.number = 0;
        if (!job->moving.again) {
            job->moving.again = true;
            job->moving.began_ns = dj_clock_ns();
            continue;
        }
        end_move(rank, job, source_lost(job, why));
        next = rank->moves; /* whatever that set going */
    }
}

/* True: the MOVE has ended. */
static bool check_time(dj_rank_t *rank, dj_job_t *job, uint64_t now_ns)
{
    bool late = now_ns > job->deadline_ns, orphan = job->session->state == DJ_SESSION_ENDING;
    if (!late && !orphan)
        return false;
    if (job->moving.receiving) { /* its memory is in use until comm lets go */
        if (job->moving.link && (orphan || now_ns > job->deadline_ns + DJ_MOVE_GRACE_NS))
            dj_links_break(rank->links, job->move.source_rank, job->moving.link,
                           "bytes stand still past a deadline");
        return false;
    }
    end_move(rank, job,
             orphan ? dj_fail(DJ_ERR_CANCELLED, "the session has ended")
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
    if (job->moving.number || job->moving.partner || job->moving.receiving)
        return false;
    bool local = job->move.source_rank == rank->rank;
    dj_status_t status = local ? begin_local(rank, job) : try_remote(rank, job);
    if (status < 0)
        end_move(rank, job, status);
    return status < 0 || local;
}

void dj_moves_turn(dj_rank_t *rank)
{
    uint64_t now_ns = dj_clock_ns();
    for (dj_job_t *job = rank->moves; job;)
        job = tend(rank, job, now_ns) ? rank->moves : job->moving.next;
}
