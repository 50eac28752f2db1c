/* pull.c - PULL: the rank that has a tensor hands its bytes to the rank that MOVEs it (move.c).
 *
 * A PULL joins the queue of the session it reads, so that nothing overwrites the bytes before they have
 * left. It does not go to the end: what the client wants to have happened before it asked for the move was
 * answered before (djinn_move() synchronizes the source), so the PULL need only wait for the job that runs.
 * And it passes MOVEs, which touch nothing but their own new refs: two sessions that move to each other at
 * the same time would else wait for each other until a deadline. A ref that a MOVE still fills is not there
 * yet.
 *
 * Few bytes are the RESULT's payload. Many leave in PARTs, at most DJ_MOVE_PARTS of them under way: a blind
 * device's are copied out to bounce buffers, one part while the network has the one before it, so a move of
 * any size holds no more host memory than those. The device thread copies, this one sends. A session's PULLs
 * hold at most ingress_bytes so, or one of them more; others wait.
 *
 * Both ends on one rank: the PULL's turn is a device copy, made where long requests run.
 *
 * Trust: whoever knows session, generation and ref may read it, and no one but its client does. A client
 * that sends a PULL gets nothing: answers go over links alone. */
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/links.h"

#define PART_BYTES_MIN (64ull << 10) /* whatever the puller says */

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

/* ---- the queue ---- */

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

/* Its session, with room in the queue for one more; NULL with `status_p`. */
static dj_session_t *admit(dj_rank_t *rank, const dj_pull_t *pull, dj_status_t *status_p)
{
    dj_session_t *session = find_source(rank, pull);
    *status_p = session ? DJ_OK : stale_pull(pull);
    if (session && dj_session_is_full(session))
        *status_p = dj_fail(DJ_ERR_BUSY, "the source has %u requests in its queue", session->pending);
    return *status_p == DJ_OK ? session : NULL;
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

/* ---- to another rank ---- */

static uint64_t part_bytes_of(const dj_job_t *job)
{
    uint64_t wanted = job->pull.part_bytes;
    uint64_t limit = dj_home_is_blind(&job->rank->home) ? DJ_MOVE_PART_BYTES : UINT64_MAX;
    if (wanted == 0 || wanted > limit)
        return limit;
    return wanted > PART_BYTES_MIN ? wanted : PART_BYTES_MIN;
}

/* Host memory that it holds at most, of a blind device. */
static uint64_t held_bytes_of(const dj_job_t *job)
{
    uint64_t part = part_bytes_of(job), bytes = job->pull.bytes;
    return bytes / DJ_MOVE_PARTS < part ? bytes : part * DJ_MOVE_PARTS;
}

bool dj_pull_may_start(const dj_job_t *job)
{
    const dj_session_t *session = job->session;
    uint64_t limit = job->rank->config->ingress_bytes, held = session->outgoing_bytes;
    return !dj_home_is_blind(&job->rank->home) || held == 0 ||
           (held < limit && held_bytes_of(job) <= limit - held);
}

static dj_endpoint_t *endpoint_of(const dj_job_t *job)
{
    return dj_links_endpoint(job->rank->links, job->pull.rank, job->moving.link);
}

static void pull_sent(void *argument, dj_status_t status)
{
    dj_job_t *job = argument;
    (void)status; /* lost with the link, which tells the other side too */
    let_go(job->rank, job);
    dj_job_retire(job->rank, job);
}

/* The status with its sentence, or that there are no bytes. */
static dj_status_t send_result(dj_job_t *job)
{
    dj_endpoint_t *endpoint = endpoint_of(job);
    if (!endpoint)
        return DJ_ERR_PEER_DIED; /* who asked hears of it by the same loss */
    job->pieces[0] = (dj_piece_t){job->text, job->status == DJ_OK ? 0 : strlen(job->text)};
    job->answer.header = (dj_header_t){.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                                       .type = DJ_MESSAGE_RESULT,
                                       .request = job->header.request};
    job->answer.result.status = job->status;
    job->answer.result.bytes = job->pieces[0].bytes;
    return dj_endpoint_send(endpoint, &job->answer, sizeof(job->answer), job->pieces,
                            job->pieces[0].bytes ? 1 : 0, pull_sent, job);
}

static void go_on(dj_job_t *job);

/* It has left, or never will. */
static void drop_part(dj_job_t *part, dj_status_t status)
{
    dj_job_t *job = part->moving.whole;
    job->moving.open--;
    job->moving.lost = job->moving.lost || status != DJ_OK;
    dj_job_put(job->rank, part);
}

static void part_sent(void *argument, dj_status_t status)
{
    dj_job_t *part = argument, *job = part->moving.whole;
    drop_part(part, status);
    go_on(job);
}

/* As dj_endpoint_send(). The only part of all is the RESULT. */
static dj_status_t send_part(dj_job_t *part)
{
    const dj_job_t *job = part->moving.whole;
    dj_endpoint_t *endpoint = endpoint_of(job);
    if (!endpoint)
        return DJ_ERR_PEER_DIED;
    part->pieces[0] = (dj_piece_t){part->bounce.memory ? part->bounce.memory : part->moving.memory, part->part.bytes};
    bool only = part->part.bytes == job->pull.bytes;
    const dj_header_t header = {.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                                .type = only ? DJ_MESSAGE_RESULT : DJ_MESSAGE_PART,
                                .request = job->header.request};
    if (only) {
        part->answer.header = header;
        part->answer.result.bytes = part->part.bytes;
        return dj_endpoint_send(endpoint, &part->answer, sizeof(part->answer), part->pieces, 1, part_sent, part);
    }
    const struct {
        dj_header_t header;
        dj_part_t part;
    } message = {header, part->part};
    return dj_endpoint_send(endpoint, &message, sizeof(message), part->pieces, 1, part_sent, part);
}

/* DJ_IN_PROGRESS: the device thread has it, or the network. Else it is over. */
static dj_status_t begin_part(dj_job_t *part)
{
    dj_rank_t *rank = part->rank;
    if (!dj_home_is_blind(&rank->home))
        return send_part(part);
    const dj_job_t *job = part->moving.whole;
    bool direct = dj_links_direct(rank->links, job->pull.rank, job->moving.link);
    dj_status_t status = dj_direct_take(rank, direct, part->part.bytes, &part->bounce);
    bool first = job->moving.open == 1; /* others would be overtaken */
    if (status == DJ_OK && (part->part.bytes > DJ_COPY_INLINE_BYTES || !first)) {
        dj_queue_push(&rank->jobs, &part->entry);
        return DJ_IN_PROGRESS;
    }
    if (status == DJ_OK)
        status = dj_part_copy(rank, part);
    if (status == DJ_OK)
        return send_part(part);
    dj_job_fail(part->moving.whole, status);
    return DJ_OK;
}

/* The next of the bytes, as a job of its own in no queue; NULL: no memory. */
static dj_job_t *take_part(dj_job_t *job)
{
    dj_moving_t *moving = &job->moving;
    uint64_t limit = part_bytes_of(job), left = job->pull.bytes - moving->begun_bytes;
    const dj_header_t header = {.type = DJ_MESSAGE_PART};
    const dj_part_t body = {.offset = moving->begun_bytes, .bytes = left < limit ? left : limit};
    dj_job_t *part = dj_job_take(job->rank, job->session, &header, &body);
    if (!part)
        return NULL;
    part->moving.whole = job;
    part->moving.memory = (uint8_t *)moving->memory + body.offset;
    moving->begun_bytes += body.bytes;
    moving->open++;
    return part;
}

/* Begins what may be under way. DJ_IN_PROGRESS: pull_sent() or part_sent() follows. Else all is said. */
static dj_status_t advance_pull(dj_job_t *job)
{
    dj_moving_t *moving = &job->moving;
    while (job->status == DJ_OK && !moving->lost && moving->open < DJ_MOVE_PARTS &&
           moving->begun_bytes < job->pull.bytes) {
        dj_job_t *part = take_part(job);
        dj_status_t status;
        if (!part)
            dj_job_fail(job, dj_fail(DJ_ERR_MEMORY, "no memory for a part of a move"));
        else if ((status = begin_part(part)) != DJ_IN_PROGRESS)
            drop_part(part, status);
    }
    if (moving->open)
        return DJ_IN_PROGRESS;
    if (moving->lost)
        return DJ_ERR_PEER_DIED; /* who asked hears of it by the same loss */
    return job->status != DJ_OK || job->pull.bytes == 0 ? send_result(job) : DJ_OK;
}

static void go_on(dj_job_t *job)
{
    if (advance_pull(job) == DJ_IN_PROGRESS)
        return;
    let_go(job->rank, job);
    dj_job_retire(job->rank, job);
}

void dj_pull_part_copied(dj_job_t *part)
{
    dj_job_t *job = part->moving.whole;
    dj_status_t status = part->status == DJ_OK ? send_part(part) : DJ_OK;
    if (part->status != DJ_OK)
        dj_job_fail(job, dj_fail(part->status, "%s", part->text));
    if (status == DJ_IN_PROGRESS)
        return;
    drop_part(part, status);
    go_on(job);
}

static void count_outgoing(dj_job_t *job)
{
    if (!dj_home_is_blind(&job->rank->home))
        return;
    job->outgoing_bytes = held_bytes_of(job);
    job->session->outgoing_bytes += job->outgoing_bytes;
}

/* ---- within this rank ---- */

/* The MOVE of a PULL that has copied, or failed. */
static void end_partner(dj_job_t *job)
{
    dj_job_t *target = job->moving.partner;
    job->moving.partner = NULL;
    if (!target)
        return;
    target->moving.partner = NULL;
    target->moving.open = 0;
    dj_move_end(target, job->status == DJ_OK ? DJ_OK : dj_fail(job->status, "%s", job->text));
}

static dj_status_t start_local(dj_rank_t *rank, dj_job_t *job)
{
    if (job->status == DJ_OK && job->pull.bytes > DJ_COPY_INLINE_BYTES) {
        job->moving.partner->moving.open = 1; /* from here on its memory is in use */
        job->state = DJ_JOB_RUNNING;
        dj_queue_push(&rank->jobs, &job->entry);
        return DJ_IN_PROGRESS;
    }
    if (job->status == DJ_OK)
        dj_pull_copy(rank, job);
    end_partner(job);
    return DJ_OK;
}

void dj_pull_copy(dj_rank_t *rank, dj_job_t *job)
{
    dj_device_t *device = rank->home.device;
    dj_status_t status = DJ_OK;
    if (job->pull.bytes)
        status = dj_rank_heed(rank, device->ops->memory.copy(device, job->moving.partner->moving.memory,
                                                             job->moving.memory, job->pull.bytes));
    if (status != DJ_OK)
        dj_job_fail(job, status);
}

void dj_pull_copied(dj_rank_t *rank, dj_job_t *job)
{
    job->state = DJ_JOB_ANSWERING;
    end_partner(job);
    dj_job_retire(rank, job);
}

dj_status_t dj_pull_begin_local(dj_rank_t *rank, dj_job_t *move_job)
{
    const dj_move_t *move = &move_job->move;
    const dj_header_t header = {.type = DJ_MESSAGE_PULL};
    const dj_pull_t pull = {.session = move->source_session, .ref = move->source_ref,
                            .offset = move->source_offset, .bytes = move->bytes,
                            .generation = move->source_generation, .rank = rank->rank};
    dj_status_t status;
    dj_session_t *source = admit(rank, &pull, &status);
    if (!source)
        return status;
    dj_job_t *partner = dj_job_take(rank, source, &header, &pull);
    if (!partner)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a PULL");
    partner->moving.partner = move_job;
    move_job->moving.partner = partner;
    queue_pull(rank, partner); /* and perhaps the MOVE is over and gone */
    return DJ_OK;
}

/* ---- its turn, and its arrival ---- */

dj_status_t dj_pull_start(dj_rank_t *rank, dj_job_t *job)
{
    bool local = job->pull.rank == rank->rank;
    dj_status_t status = DJ_OK;
    job->state = DJ_JOB_ANSWERING;
    job->started_ns = dj_clock_ns();
    bool wanted = local ? job->moving.partner != NULL : job->started_ns <= job->deadline_ns;
    if (wanted && (status = find_bytes(job)) != DJ_OK)
        dj_job_fail(job, status);
    if (wanted && local)
        return start_local(rank, job);
    if (wanted) {
        count_outgoing(job);
        status = advance_pull(job);
    }
    if (status != DJ_IN_PROGRESS)
        let_go(rank, job);
    return status;
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
    dj_status_t status;
    dj_session_t *session = admit(rank, pull, &status);
    dj_job_t *job = session ? dj_job_take(rank, session, incoming->header, pull) : NULL;
    if (session && !job)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for a PULL");
    if (status != DJ_OK) {
        refuse_pull(rank, incoming, link, status);
        return status;
    }
    job->moving.link = link;
    queue_pull(rank, job);
    return DJ_OK;
}
