/* worker.c - the progress thread: messages become jobs, jobs run in their session's order, answers leave.
 *
 * A message is checked here and joins its session's queue; only the head of a queue runs. What is short
 * runs at once on this thread, all else goes to the device thread and comes back through `done`. An
 * answer with bytes of the session's memory leaves from where they lie; releases happen after it, then the
 * next job starts. One that leans on nothing of the session's leaves while the next job runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/links.h"
#include "runtime/reaper.h"

#define DJ_LOG_MODULE "runtime"

static void advance(dj_rank_t *rank, dj_session_t *session);

/* ---- jobs ---- */

static dj_job_t *job_get(dj_rank_t *rank)
{
    dj_job_t *job = rank->free_jobs;
    if (job)
        rank->free_jobs = job->next;
    else if (!(job = calloc(1, sizeof(*job))))
        return NULL;
    job->next = NULL;
    job->payload = job->hold = NULL;
    job->owned = job->bounce = (dj_bounce_t){0};
    job->payload_bytes = 0;
    job->started_ns = 0;
    job->draft = NULL;
    job->exchange = NULL;
    job->landed = job->released = false;
    job->status = DJ_OK;
    job->n_pieces = 0;
    job->moving = (dj_moving_t){0};
    job->outgoing_bytes = 0;
    job->answer.result = (dj_result_t){.segment = UINT32_MAX};
    dj_bytes_clear(&job->reply);
    return job;
}

static void count_ingress(dj_rank_t *rank, dj_session_t *session, int64_t bytes)
{
    session->ingress_bytes += (uint64_t)bytes;
    atomic_fetch_add_explicit(&rank->counters.ingress_bytes, (uint64_t)bytes,
                              memory_order_relaxed);
}

static void give_payload(dj_rank_t *rank, dj_job_t *job)
{
    if (!job->owned.memory)
        return;
    count_ingress(rank, job->session, -(int64_t)job->payload_bytes);
    dj_bounce_give(rank->home.bounce, &job->owned);
}

void dj_job_put(dj_rank_t *rank, dj_job_t *job)
{
    give_payload(rank, job);
    job->session->outgoing_bytes -= job->outgoing_bytes;
    dj_bounce_give(rank->home.bounce, &job->bounce);
    if (job->draft)
        dj_text_discard(rank->home.text, job->draft);
    if (job->reply.capacity > (1u << 20))
        dj_bytes_fini(&job->reply);
    job->next = rank->free_jobs;
    rank->free_jobs = job;
}

void dj_job_fail(dj_job_t *job, dj_status_t status)
{
    if (job->status != DJ_OK)
        return;
    job->status = status;
    snprintf(job->text, sizeof(job->text), "%s", dj_error_text());
}

/* ---- the end of a job ---- */

void dj_job_release(dj_rank_t *rank, dj_job_t *job)
{
    const uint64_t *releases = job->payload;
    if (job->header.type != DJ_MESSAGE_EXEC || !job->payload || job->released ||
        job->payload_bytes / 8 < job->exec.n_releases)
        return;
    job->released = true;
    for (uint32_t i = 0; i < job->exec.n_releases; i++)
        dj_ref_drop(job->session, &rank->home, releases[i]);
}

/* It leaves the queue: the head, or a PULL from further back. */
static void unqueue(dj_job_t *job)
{
    dj_session_t *session = job->session;
    dj_job_t **at_p = &session->first_job;
    while (*at_p != job)
        at_p = &(*at_p)->next;
    *at_p = job->next;
    if (!job->next)
        session->last_job_p = at_p;
    session->pending--;
    session->landing -= job->landed;
}

static void retire(dj_rank_t *rank, dj_job_t *job)
{
    dj_job_release(rank, job);
    unqueue(job);
    dj_job_put(rank, job);
}

void dj_job_retire(dj_rank_t *rank, dj_job_t *job)
{
    dj_session_t *session = job->session;
    retire(rank, job);
    advance(rank, session);
}

/* Out of the queue, its answer on its way; false: it must stay at its place until that has left. */
static bool leave(dj_rank_t *rank, dj_job_t *job)
{
    dj_session_t *session = job->session;
    if (!dj_job_stands_alone(job))
        return false;
    dj_job_release(rank, job);
    unqueue(job);
    give_payload(rank, job);
    job->outgoing_bytes = job->bounce.memory ? job->bounce.bytes : 0;
    session->outgoing_bytes += job->outgoing_bytes;
    job->state = DJ_JOB_LEAVING;
    job->next = session->first_leaving;
    session->first_leaving = job;
    session->leaving++;
    return true;
}

static void left(dj_rank_t *rank, dj_job_t *job)
{
    dj_session_t *session = job->session;
    dj_job_t **at_p = &session->first_leaving;
    while (*at_p != job)
        at_p = &(*at_p)->next;
    *at_p = job->next;
    session->leaving--;
    dj_job_put(rank, job);
    advance(rank, session);
}

static void answer_sent(void *argument, dj_status_t status)
{
    dj_job_t *job = argument;
    dj_rank_t *rank = job->rank;
    if (status != DJ_OK)
        dj_log(DEBUG, "an answer could not be sent: %s", dj_status_text(status));
    if (job->state == DJ_JOB_LEAVING)
        left(rank, job);
    else
        dj_job_retire(rank, job);
}

static void keep_answer(dj_job_t *job)
{
    job->session->last.request = job->header.request;
    job->session->last.result = job->answer.result;
}

static bool is_quiet(const dj_job_t *job)
{
    return (job->header.type == DJ_MESSAGE_PUT && job->put.flags & DJ_PUT_QUIET) ||
           (job->header.type == DJ_MESSAGE_EXEC && job->exec.flags & DJ_EXEC_QUIET);
}

/* Sends the answer. DJ_OK: it has left, or none is wanted; DJ_IN_PROGRESS: answer_sent() follows; else it never will. */
static dj_status_t send_answer(dj_rank_t *rank, dj_job_t *job)
{
    dj_session_t *session = job->session;
    dj_result_t *result = &job->answer.result;
    job->state = DJ_JOB_ANSWERING;
    if (job->status == DJ_OK && is_quiet(job))
        return DJ_OK;
    result->status = job->status;
    if (job->status != DJ_OK) {
        result->bytes = strlen(job->text);
        job->pieces[0] = (dj_piece_t){job->text, result->bytes};
        job->n_pieces = 1;
    } else if (job->reply.size) {
        job->pieces[0] = (dj_piece_t){job->reply.data, job->reply.size};
        job->n_pieces = 1;
    }
    job->answer.header = (dj_header_t){
        .magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION, .type = DJ_MESSAGE_RESULT,
        .session = session->id, .generation = session->generation,
        .sequence = session->sequence_out++, .request = job->header.request};
    keep_answer(job);
    if (!session->endpoint)
        return DJ_ERR_PEER_DIED; /* detached: the result is kept, nobody to tell */
    return dj_endpoint_send(session->endpoint, &job->answer, sizeof(job->answer), job->pieces,
                            job->n_pieces, answer_sent, job);
}

/* On the progress thread, after the job ran. DJ_OK: it is out of the queue; DJ_IN_PROGRESS: not until answer_sent(). */
static dj_status_t answer(dj_rank_t *rank, dj_job_t *job)
{
    atomic_fetch_add_explicit(&rank->counters.requests, 1, memory_order_relaxed);
    if (job->status != DJ_OK)
        atomic_fetch_add_explicit(&rank->counters.refused, 1, memory_order_relaxed);
    if (send_answer(rank, job) != DJ_IN_PROGRESS)
        retire(rank, job);
    else if (!leave(rank, job))
        return DJ_IN_PROGRESS;
    return DJ_OK;
}

void dj_job_finish(dj_rank_t *rank, dj_job_t *job)
{
    dj_session_t *session = job->session;
    if (answer(rank, job) == DJ_OK)
        advance(rank, session);
}

/* ---- running ---- */

/* A PULL that has nothing before it but others and MOVEs; NULL: none. */
static dj_job_t *next_pull(const dj_session_t *session)
{
    for (dj_job_t *at = session->first_job; at; at = at->next) {
        bool pull = at->header.type == DJ_MESSAGE_PULL;
        if (pull && at->state == DJ_JOB_READY && dj_pull_may_start(at))
            return at;
        if (!pull && at->state != DJ_JOB_MOVING)
            return NULL;
    }
    return NULL;
}

/* DJ_IN_PROGRESS: the device thread has it, or it waits for another rank. */
static dj_status_t run_head(dj_rank_t *rank, dj_job_t *job, bool at_once)
{
    job->state = DJ_JOB_RUNNING;
    if (job->status == DJ_OK && job->header.type == DJ_MESSAGE_MOVE)
        return dj_move_start(rank, job);
    if (job->status == DJ_OK && (!at_once || !dj_job_is_short(rank, job))) {
        dj_queue_push(&rank->jobs, &job->entry);
        return DJ_IN_PROGRESS;
    }
    dj_job_execute(rank, &rank->progress_runner, job);
    return DJ_OK;
}

/* Runs what is at the head and short, as far as it goes, and hands over what is not. Other sessions wait
 * meanwhile: not for more than RUN_AHEAD of them. */
static void advance(dj_rank_t *rank, dj_session_t *session)
{
    enum { RUN_AHEAD = 16 };
    int ran = 0;
    for (;;) {
        dj_job_t *job = next_pull(session);
        if (job) {
            if (dj_pull_start(rank, job) != DJ_IN_PROGRESS)
                retire(rank, job);
            continue;
        }
        job = session->first_job;
        if (!job && session->state == DJ_SESSION_ENDING) {
            dj_session_end(rank, session);
            return;
        }
        if (!job || job->state != DJ_JOB_READY || job->header.type == DJ_MESSAGE_PULL)
            break;
        if (session->outgoing_bytes >= rank->config->ingress_bytes) /* left() comes here again */
            break;
        if (run_head(rank, job, ++ran <= RUN_AHEAD) == DJ_IN_PROGRESS)
            return;
        if (answer(rank, job) == DJ_IN_PROGRESS)
            return;
    }
    if (session->landing)
        dj_landing_admit(rank, session);
}

/* Whether a rendezvous's bytes may wait in device memory: those of one tensor, which nothing on the host reads. */
static bool waits_in_device(const dj_job_t *job)
{
    return !job->payload && job->session->direct && job->header.type == DJ_MESSAGE_PUT && job->put.n_parts == 0 &&
           job->header.checksum == 0;
}

static dj_status_t own_payload(dj_rank_t *rank, dj_job_t *job)
{
    if (job->owned.memory || job->payload_bytes == 0)
        return DJ_OK;
    if (job->payload_bytes > rank->config->ingress_bytes ||
        job->session->ingress_bytes > rank->config->ingress_bytes - job->payload_bytes)
        return dj_fail(DJ_ERR_RESOURCE, "%llu bytes of inputs wait already, the limit is %llu: "
                                        "wait for answers or raise --ingress-bytes",
                       (unsigned long long)job->session->ingress_bytes,
                       (unsigned long long)rank->config->ingress_bytes);
    if (dj_direct_take(rank, waits_in_device(job), job->payload_bytes, &job->owned) != DJ_OK)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a request of %llu bytes",
                       (unsigned long long)job->payload_bytes);
    if (job->payload)
        memcpy(job->owned.memory, job->payload, job->payload_bytes);
    job->payload = job->owned.memory;
    count_ingress(rank, job->session, (int64_t)job->payload_bytes);
    return DJ_OK;
}

static void enqueue(dj_job_t *job)
{
    dj_session_t *session = job->session;
    *session->last_job_p = job;
    session->last_job_p = &job->next;
    session->pending++;
}

/* An eager message on an idle session: runs here when it is short. The payload is UCX's and gone when the
 * handler returns, so releases are applied from a copy if the answer cannot leave at once. */
static bool run_short(dj_rank_t *rank, dj_job_t *job)
{
    if (job->session->pending != 1)
        return false;
    if ((uintptr_t)job->payload % 8 && own_payload(rank, job) != DJ_OK)
        return false; /* tcp may leave it unaligned */
    if (!dj_job_is_short(rank, job))
        return false;
    job->state = DJ_JOB_RUNNING;
    job->started_ns = job->arrived_ns;
    dj_job_execute(rank, &rank->progress_runner, job);
    dj_session_t *session = job->session;
    if (answer(rank, job) == DJ_OK)
        advance(rank, session);
    else if (own_payload(rank, job) != DJ_OK)
        job->payload = NULL; /* its releases are lost until the session ends */
    return true;
}

static void accept_ready(dj_rank_t *rank, dj_job_t *job)
{
    dj_status_t status = DJ_OK;
    job->state = DJ_JOB_READY;
    if (job->status == DJ_OK && run_short(rank, job))
        return;
    if (job->status == DJ_OK && !job->draft && !job->landed)
        status = own_payload(rank, job);
    if (status != DJ_OK) {
        dj_job_fail(job, status);
        job->payload = NULL;
    }
    if (job->session->first_job == job)
        advance(rank, job->session);
}

/* ---- messages ---- */

static dj_session_t *find_session(dj_rank_t *rank, const dj_header_t *header)
{
    dj_session_t *session = dj_table_get(&rank->sessions, dj_key_u64(header->session));
    if (session && session->state == DJ_SESSION_ATTACHED &&
        session->generation == header->generation)
        return session;
    atomic_fetch_add_explicit(&rank->counters.stale, 1, memory_order_relaxed);
    dj_log(DEBUG, "a %s of session %llx generation %u was dropped: no such session now",
           dj_message_name(header->type), (unsigned long long)header->session, header->generation);
    return NULL;
}

dj_job_t *dj_job_take(dj_rank_t *rank, dj_session_t *session, const dj_header_t *header,
                      const void *body)
{
    dj_job_t *job = job_get(rank);
    if (!job)
        return NULL;
    job->rank = rank;
    job->session = session;
    job->header = *header;
    memcpy(&job->exec, body, dj_message_struct_bytes(header->type));
    job->arrived_ns = dj_clock_ns();
    uint64_t deadline_ms = header->type == DJ_MESSAGE_EXEC && job->exec.deadline_ms
                               ? job->exec.deadline_ms
                               : session->default_deadline_ms;
    job->deadline_ns = deadline_ms < UINT64_MAX / DJ_NS_PER_MS / 2
                           ? job->arrived_ns + deadline_ms * DJ_NS_PER_MS
                           : UINT64_MAX;
    return job;
}

static dj_job_t *make_job(dj_rank_t *rank, dj_session_t *session, const dj_incoming_t *incoming)
{
    const dj_header_t *header = incoming->header;
    dj_job_t *job;
    if (header->request <= session->last_seen_request || dj_session_is_full(session)) {
        atomic_fetch_add_explicit(&rank->counters.stale, 1, memory_order_relaxed);
        return NULL; /* a repeat: it was or will be answered; or past every credit */
    }
    if (!(job = dj_job_take(rank, session, header, incoming->body)))
        return NULL;
    session->last_seen_request = header->request;
    job->payload = incoming->payload_bytes ? incoming->payload : NULL;
    job->payload_bytes = incoming->payload_bytes;
    enqueue(job);
    return job;
}

static void arrive_eager(dj_rank_t *rank, dj_job_t *job)
{
    void *memory = NULL;
    dj_status_t status = DJ_OK;
    if (job->header.type == DJ_MESSAGE_UPLOAD)
        status = dj_landing_place(rank, job, &memory);
    if (status == DJ_OK && memory)
        status = dj_rank_copy_in(rank, memory, job->payload, job->payload_bytes);
    if (status != DJ_OK)
        dj_job_fail(job, status);
    if (memory || status != DJ_OK)
        job->payload = NULL;
    accept_ready(rank, job);
}

/* First call of a rendezvous. A refusal still gets its answer, in order; UCX's own status only ends the
 * transfer. */
static dj_status_t begin_rendezvous(dj_rank_t *rank, dj_job_t *job, void *hold, void **memory_p,
                                    void **token_p)
{
    void *memory = NULL;
    job->payload = NULL;
    job->state = DJ_JOB_RECEIVING;
    dj_status_t status = dj_landing_place(rank, job, &memory);
    if (status == DJ_IN_PROGRESS) {
        job->hold = hold;
        *token_p = job;
        return status;
    }
    if (status == DJ_OK && !memory) {
        status = own_payload(rank, job);
        memory = job->owned.memory;
    }
    if (status != DJ_OK) {
        dj_job_fail(job, status);
        accept_ready(rank, job);
        return status;
    }
    *memory_p = memory;
    *token_p = job;
    return DJ_OK;
}

static dj_status_t damaged(void)
{
    return dj_fail(DJ_ERR_CORRUPT, "the message was damaged on its way: its checksum does not fit; "
                                   "look for a failing card, cable or memory");
}

static dj_status_t end_rendezvous(dj_rank_t *rank, dj_job_t *job, bool failed, bool corrupt)
{
    job->hold = NULL;
    if (failed)
        dj_job_fail(job, dj_fail(DJ_ERR_PEER_DIED, "the request did not arrive whole"));
    else if (corrupt)
        dj_job_fail(job, damaged());
    job->state = DJ_JOB_READY;
    if (job->session->first_job == job)
        advance(rank, job->session);
    return DJ_OK;
}

/* What joins a session's queue. */
static bool is_request(uint16_t type)
{
    return type == DJ_MESSAGE_EXEC || type == DJ_MESSAGE_UPLOAD || type == DJ_MESSAGE_LOAD ||
           type == DJ_MESSAGE_PUT || type == DJ_MESSAGE_MOVE;
}

/* It keeps its place in the queue, so that answers come in order. A rendezvous ends with the status alone, eager
 * bytes are left where they are. */
static dj_status_t come_too_late(dj_rank_t *rank, dj_job_t *job)
{
    dj_status_t status = dj_ending_refuse();
    dj_job_fail(job, status);
    job->payload = NULL;
    job->payload_bytes = 0;
    accept_ready(rank, job);
    return status;
}

dj_status_t dj_worker_message(void *context, const dj_incoming_t *incoming, void **memory_p,
                              void **token_p)
{
    dj_rank_t *rank = context;
    if (incoming->header->type == DJ_MESSAGE_RESULT || incoming->header->type == DJ_MESSAGE_PART)
        return dj_move_message(rank, incoming, memory_p, token_p);
    if (incoming->header->type == DJ_MESSAGE_PULL)
        return dj_pull_message(rank, incoming);
    if (incoming->token)
        return end_rendezvous(rank, incoming->token, incoming->failed, incoming->corrupt);
    if (!is_request(incoming->header->type))
        return dj_fail(DJ_ERR_PROTOCOL, "a %s sent to a worker",
                       dj_message_name(incoming->header->type));
    dj_session_t *session = find_session(rank, incoming->header);
    if (!session)
        return DJ_ERR_STALE;
    if (incoming->header->type == DJ_MESSAGE_PUT && !dj_rank_ends(rank) && dj_landing_at_once(rank, session, incoming))
        return DJ_OK;
    dj_job_t *job = make_job(rank, session, incoming);
    if (!job)
        return DJ_ERR_BUSY;
    if (dj_rank_ends(rank))
        return come_too_late(rank, job);
    if (incoming->rendezvous)
        return begin_rendezvous(rank, job, incoming->hold, memory_p, token_p);
    if (incoming->corrupt) {
        dj_job_fail(job, damaged());
        job->payload = NULL;
        job->payload_bytes = 0;
        accept_ready(rank, job);
        return DJ_OK;
    }
    arrive_eager(rank, job);
    return DJ_OK;
}

/* ---- one turn ---- */

void dj_worker_turn(dj_rank_t *rank)
{
    dj_queue_entry_t *entry;
    dj_comm_cork(rank->comm); /* answers of this turn to one client leave together */
    while ((entry = dj_queue_try_pop(&rank->done))) {
        dj_job_t *job = (dj_job_t *)entry;
        if (job->exchange)
            dj_exchange_placed(rank, job->exchange);
        else if (job->header.type == DJ_MESSAGE_PULL)
            dj_pull_copied(rank, job);
        else if (job->header.type == DJ_MESSAGE_PART)
            dj_part_copied(job);
        else
            dj_job_finish(rank, job);
    }
    dj_comm_uncork(rank->comm);
    while ((entry = dj_queue_try_pop(&rank->commands))) {
        dj_attach_command(rank, (dj_command_t *)entry);
        free(entry);
    }
    if (rank->moves)
        dj_moves_turn(rank);
    dj_exchange_turn(rank);
    if (rank->reaper && dj_reaper_turn(rank->reaper))
        dj_sessions_count(rank);
}

static bool any_session(dj_rank_t *rank, bool (*is)(const dj_session_t *session))
{
    dj_session_t *session;
    dj_hash_t key;
    size_t at = 0;
    while ((session = dj_table_next(&rank->sessions, &at, &key)))
        if (is(session))
            return true;
    return false;
}

static bool has_jobs(const dj_session_t *session)
{
    return session->pending + session->leaving > 0;
}

static bool has_job_running(const dj_session_t *session)
{
    return session->pending > 0 && session->first_job->state == DJ_JOB_RUNNING;
}

bool dj_worker_is_busy(dj_rank_t *rank)
{
    return any_session(rank, has_jobs);
}

bool dj_worker_computes(dj_rank_t *rank)
{
    return any_session(rank, has_job_running);
}

/* What UCX still writes or reads belongs to jobs, so it must let go of them first. */
static void close_endpoints(dj_rank_t *rank)
{
    dj_session_t *session;
    dj_hash_t key;
    size_t at = 0;
    uint64_t until_ns = dj_clock_ns() + DJ_NS_PER_S;
    while ((session = dj_table_next(&rank->sessions, &at, &key))) {
        if (session->endpoint)
            dj_endpoint_close(session->endpoint);
        session->endpoint = NULL;
    }
    dj_links_destroy(rank->links);
    rank->links = NULL;
    while (dj_comm_draining(rank->comm) && dj_clock_ns() < until_ns)
        dj_comm_progress(rank->comm);
}

static void put_all(dj_rank_t *rank, dj_job_t *first)
{
    for (dj_job_t *job = first, *next; job; job = next) {
        next = job->next;
        dj_job_put(rank, job);
    }
}

/* Parts of moves that nobody copied, or came back too late: they are in no session's queue. An exchange is upkeep's. */
static void put_parts(dj_rank_t *rank, dj_queue_t *queue)
{
    dj_queue_entry_t *entry;
    while ((entry = dj_queue_try_pop(queue))) {
        dj_job_t *job = (dj_job_t *)entry;
        if (!job->exchange && job->header.type == DJ_MESSAGE_PART)
            dj_job_put(rank, job);
    }
}

void dj_worker_end(dj_rank_t *rank)
{
    dj_session_t *session;
    dj_hash_t key;
    size_t at = 0;
    close_endpoints(rank);
    put_parts(rank, &rank->jobs);
    put_parts(rank, &rank->done);
    while ((session = dj_table_next(&rank->sessions, &at, &key))) {
        put_all(rank, session->first_job);
        put_all(rank, session->first_leaving);
        dj_session_destroy(session, &rank->home);
    }
    dj_table_fini(&rank->sessions);
    for (dj_job_t *job = rank->free_jobs, *next; job; job = next) {
        next = job->next;
        dj_bytes_fini(&job->reply);
        free(job);
    }
}
