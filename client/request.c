/* request.c - one request: what was recorded goes out as one message, the answer comes back as one.
 *
 * A request object is pooled and owns the bytes of its message until UCX has sent them and the answer is
 * here. Answers find their request by id. Bytes that were asked for land in the caller's memory directly
 * when one tensor is fetched by rendezvous; several land side by side and are copied out. */
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "runtime/base/clock.h"

djinn_request_t *dj_request_take(djinn_t *djinn)
{
    djinn_request_t *request = djinn->free_requests;
    if (request)
        djinn->free_requests = request->next_free;
    else if (!(request = calloc(1, sizeof(*request)))) {
        dj_fail(DJ_ERR_MEMORY, "no memory for a request");
        return NULL;
    }
    request->djinn = djinn;
    request->id = 0;
    request->message.header.type = 0;
    request->status = DJ_IN_PROGRESS;
    request->deadline_ns = dj_clock_coarse_ns() + djinn->deadline_ms * DJ_NS_PER_MS;
    request->detached = request->sending = request->receiving = request->quiet = false;
    request->verdict = DJ_OK;
    request->n_fetches = request->n_pieces = request->n_temporaries = 0;
    request->fetch_bytes = request->sent_bytes = 0;
    request->gather = request->raw_reply = NULL;
    request->raw_bytes = 0;
    request->segments = NULL;
    request->owner = request->riders = request->next_rider = NULL;
    request->transfer = (struct dj_transfer){.kind = DJ_TRANSFER_NONE};
    request->done = NULL;
    request->left_p = NULL;
    dj_bytes_clear(&request->meta);
    dj_bytes_clear(&request->parts);
    return request;
}

/* The credit: this many may be under way, and not every one of them quiet. */
dj_status_t dj_request_number(djinn_request_t *request, bool wait)
{
    djinn_t *djinn = request->djinn;
    djinn_request_t *before;
    while ((before = djinn->requests[(djinn->next_request + 1) % DJ_REQUESTS_MAX])) {
        uint64_t id = djinn->next_request + 1;
        dj_status_t status = wait ? dj_request_await(before) : DJ_ERR_BUSY;
        if (djinn->requests[id % DJ_REQUESTS_MAX] && djinn->next_request + 1 == id)
            return status < 0 ? status
                              : dj_fail(DJ_ERR_BUSY, "%u requests are under way: wait for some",
                                        (unsigned)DJ_REQUESTS_MAX);
    }
    request->id = ++djinn->next_request;
    djinn->requests[request->id % DJ_REQUESTS_MAX] = request;
    return DJ_OK;
}

dj_status_t dj_request_create(djinn_t *djinn, djinn_request_t **request_p)
{
    dj_status_t status = dj_gather_flush(djinn, true);
    djinn_request_t *request = status == DJ_OK ? dj_request_take(djinn) : NULL;
    if (!request)
        return status == DJ_OK ? DJ_ERR_MEMORY : status;
    status = dj_request_number(request, true);
    if (status != DJ_OK) {
        dj_request_recycle(request);
        return status;
    }
    *request_p = request;
    return DJ_OK;
}

static void recycle_segments(djinn_request_t *request)
{
    dj_segment_record_t *segment, *next;
    for (segment = request->segments; segment; segment = next) {
        next = segment->next;
        dj_segment_recycle(request->djinn, segment);
    }
    request->segments = NULL;
}

void dj_request_recycle(djinn_request_t *request)
{
    djinn_t *djinn = request->djinn;
    djinn_request_t **slot = &djinn->requests[request->id % DJ_REQUESTS_MAX];
    if (*slot == request)
        *slot = NULL;
    recycle_segments(request);
    if (request->transfer.kind != DJ_TRANSFER_NONE)
        dj_transfer_release(request);
    for (uint32_t i = 0; i < request->n_temporaries; i++)
        dj_storage_put(request->temporaries[i]);
    free(request->gather);
    request->gather = NULL;
    request->next_free = djinn->free_requests;
    djinn->free_requests = request;
}

void dj_request_release(djinn_request_t *request)
{
    if (request->sending)
        request->detached = true; /* recycled by sent() */
    else
        dj_request_recycle(request);
}

/* Tells whoever travels in it, or keeps the failure of one that nobody holds for the next caller. */
static void conclude(djinn_request_t *request)
{
    djinn_t *djinn = request->djinn;
    if (request->owner || request->message.header.type == DJ_MESSAGE_PUT) {
        dj_transfer_note(request, request->status, request->text);
    } else if (request->status < 0 && request->detached && djinn->deferred == DJ_OK) {
        djinn->deferred = request->status;
        memcpy(djinn->deferred_text, request->text, sizeof(request->text));
    }
}

/* The answer is here, or never will be. The owner of a part hears of it once UCX has let go of the
 * user's memory. */
void dj_request_finish(djinn_request_t *request, dj_status_t status, const char *text)
{
    djinn_t *djinn = request->djinn;
    if (request->status != DJ_IN_PROGRESS || request->verdict != DJ_OK)
        return;
    if (status == DJ_ERR_PEER_DIED && atomic_load(&djinn->ending)) { /* it did not die, it said that it would end */
        status = (dj_status_t)atomic_load(&djinn->ending);
        text = djinn->ending_text;
    }
    snprintf(request->text, sizeof(request->text), "%s", text);
    djinn_request_t **slot = &djinn->requests[request->id % DJ_REQUESTS_MAX];
    if (*slot == request)
        *slot = NULL;
    if (request->receiving) {
        request->verdict = status;
        return;
    }
    request->status = status;
    djinn->unanswered_bytes -= request->sent_bytes;
    request->sent_bytes = 0;
    if (!request->owner || !request->sending)
        conclude(request);
    if (request->done)
        request->done(request->done_argument, request, (djinn_status_t)status);
    if (request->detached && !request->sending)
        dj_request_recycle(request);
}

void dj_requests_fail(djinn_t *djinn, dj_status_t status, const char *text)
{
    djinn_request_t *message = djinn->gather;
    djinn->gather = NULL; /* first: the end of a put would send it */
    if (message) {
        dj_transfer_note(message, status, text);
        dj_request_recycle(message);
    }
    for (uint32_t i = 0; i < DJ_REQUESTS_MAX; i++)
        if (djinn->requests[i])
            dj_request_finish(djinn->requests[i], status, text);
}

/* ---- sending ---- */

static void sent(void *argument, dj_status_t status)
{
    djinn_request_t *request = argument;
    request->sending = false;
    if (request->left_p)
        *request->left_p = true;
    request->left_p = NULL;
    recycle_segments(request);
    if (request->status == DJ_IN_PROGRESS) {
        if (status == DJ_ERR_PEER_DIED)
            dj_request_finish(request, status, "the request could not be sent: the rank is gone");
        else if (status != DJ_OK)
            dj_request_finish(request, status, dj_error_text()); /* refused: comm says what was told */
        return;
    }
    if (request->owner)
        conclude(request);
    if (request->detached)
        dj_request_recycle(request);
}

static dj_status_t send_local(djinn_request_t *request, uint32_t header_bytes)
{
    djinn_t *djinn = request->djinn;
    dj_bytes_t joined = {0};
    uint64_t reply_bytes = request->raw_reply ? request->raw_bytes : request->fetch_bytes;
    for (uint32_t i = 0; i < request->n_pieces; i++)
        dj_bytes_put(&joined, request->pieces[i].data, request->pieces[i].bytes);
    uint8_t *reply = malloc(reply_bytes ? reply_bytes : 1);
    dj_status_t status = DJ_ERR_MEMORY;
    if (reply && !joined.failed) {
        djinn_local_message_t message = {&request->message, header_bytes, joined.data,
                                         joined.size, reply, reply_bytes};
        dj_djinn_unlock(djinn);
        status = (dj_status_t)djinn->executor(djinn->executor_context, &message);
        dj_djinn_lock(djinn);
    }
    uint64_t at = 0;
    if (status == DJ_OK && request->raw_reply)
        memcpy(request->raw_reply, reply, reply_bytes);
    for (uint32_t i = 0; status == DJ_OK && i < request->n_fetches; i++) {
        memcpy(request->fetches[i].target, reply + at, request->fetches[i].bytes);
        at += request->fetches[i].bytes;
    }
    free(reply);
    dj_bytes_fini(&joined);
    recycle_segments(request);
    dj_request_finish(request, status, dj_error_text());
    return DJ_OK;
}

dj_status_t dj_request_send(djinn_request_t *request, dj_message_t type, uint32_t struct_bytes)
{
    djinn_t *djinn = request->djinn;
    uint32_t header_bytes = (uint32_t)sizeof(dj_header_t) + struct_bytes;
    request->message.header = (dj_header_t){
        .magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION, .type = (uint16_t)type,
        .session = djinn->session, .generation = djinn->generation,
        .sequence = djinn->sequence++, .request = request->id};
    djinn->stats.requests++;
    djinn->stats.messages_out++;
    for (uint32_t i = 0; i < request->n_pieces; i++)
        request->sent_bytes += request->pieces[i].bytes;
    djinn->stats.bytes_up += request->sent_bytes;
    djinn->unanswered_bytes += request->sent_bytes;
    djinn->quiet_run = request->quiet ? djinn->quiet_run + 1 : 0;
    if (djinn->executor)
        return send_local(request, header_bytes);
    if (!djinn->endpoint) {
        dj_request_finish(request, DJ_ERR_PEER_DIED, djinn->dead_text);
        return DJ_ERR_PEER_DIED;
    }
    request->sending = true;
    dj_status_t status = dj_endpoint_send(djinn->endpoint, &request->message, header_bytes,
                                          request->pieces, request->n_pieces, sent, request);
    if (status == DJ_IN_PROGRESS)
        return DJ_OK;
    request->sending = false;
    recycle_segments(request);
    if (status != DJ_OK)
        dj_request_finish(request, status, dj_error_text());
    return status;
}

/* ---- submitting ---- */

/* A fetch wants dense bytes of a storage that the rank has: records the copy where need be, and sees to
 * it that storages known here alone travel. */
static dj_status_t prepare_fetch(dj_recorder_t *recorder, djinn_request_t *request,
                                 djinn_fetch_t *fetch)
{
    dj_view_t view;
    dj_status_t status = DJ_OK;
    dj_view_of_tensor(&fetch->tensor, &view);
    if (!fetch->tensor.storage || fetch->tensor.storage->djinn != recorder->djinn)
        return dj_fail(DJ_ERR_INVALID, "a fetch of a tensor that is not of this connection");
    status = dj_view_check(&view, fetch->tensor.storage->bytes);
    if (status != DJ_OK)
        return status;
    if (fetch->bytes != dj_view_dense_bytes(&view))
        return dj_fail(DJ_ERR_INVALID, "the tensor has %llu bytes, the target %llu",
                       (unsigned long long)dj_view_dense_bytes(&view),
                       (unsigned long long)fetch->bytes);
    if (!dj_view_is_contiguous(&view)) {
        djinn_arg_t arg = {.kind = DJINN_ARG_TENSOR, .value.tensors = &fetch->tensor};
        djinn_tensor_t fresh, dense;
        dj_view_t wanted = dj_view_contiguous(view.dtype, view.rank, view.sizes);
        djinn_arg_t sizes[2] = {{.kind = DJINN_ARG_INTS, .count = view.rank, .value.integers = wanted.sizes},
                                {.kind = DJINN_ARG_INT, .value.integer = view.dtype}};
        status = dj_recorder_record(recorder, DJ_OP_EMPTY, sizes, 2, NULL, &fresh);
        if (status != DJ_OK)
            return status;
        request->temporaries[request->n_temporaries++] = fresh.storage;
        dj_tensor_of_view(&wanted, fresh.storage, &dense);
        status = dj_recorder_record(recorder, DJ_OP_COPY, &arg, 1, &dense, NULL);
        fetch->tensor = dense;
        return status;
    }
    if (!fetch->tensor.storage->ref) {
        uint32_t local; /* an upload nothing has used yet: it travels as an input of a segment */
        status = dj_recorder_localise(recorder, fetch->tensor.storage, false, &local);
    }
    return status;
}

static dj_status_t make_fetch_room(djinn_request_t *request, uint32_t count)
{
    if (count <= request->fetches_room)
        return DJ_OK;
    void *grown = realloc(request->fetches, count * sizeof(*request->fetches));
    if (grown)
        request->fetches = grown;
    void *temporaries = realloc(request->temporaries, count * sizeof(void *));
    if (temporaries)
        request->temporaries = temporaries;
    if (!grown || !temporaries)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u fetches", count);
    request->fetches_room = count;
    return DJ_OK;
}

static dj_status_t prepare_fetches(dj_recorder_t *recorder, djinn_request_t *request,
                                   const djinn_fetch_t *fetches, int count)
{
    dj_status_t status = make_fetch_room(request, (uint32_t)count);
    for (int i = 0; i < count && status == DJ_OK; i++) {
        request->fetches[i] = fetches[i];
        status = prepare_fetch(recorder, request, &request->fetches[i]);
        request->fetch_bytes += fetches[i].bytes;
    }
    request->n_fetches = (uint32_t)count;
    return status;
}

/* A request with nothing in it: its answer tells that the quiet ones before are done. */
static dj_status_t send_null(djinn_t *djinn)
{
    djinn_request_t *request = dj_request_take(djinn);
    if (!request)
        return DJ_ERR_MEMORY;
    request->detached = true;
    dj_status_t status = dj_request_number(request, true);
    if (status == DJ_OK)
        status = dj_request_build_exec(request, 0);
    if (status == DJ_OK)
        return dj_request_send(request, DJ_MESSAGE_EXEC, sizeof(dj_exec_t));
    dj_request_recycle(request);
    return status;
}

dj_status_t dj_request_send_fetch(djinn_request_t *request, djinn_storage_t *storage,
                                  uint64_t offset, void *target, uint64_t bytes)
{
    dj_status_t status = make_fetch_room(request, 1);
    if (status != DJ_OK) {
        dj_request_finish(request, status, dj_error_text());
        return status;
    }
    request->fetches[0] = (djinn_fetch_t){
        {.storage = storage, .dtype = DJINN_UINT8, .rank = 1, .offset = (int64_t)offset,
         .sizes = {(int64_t)bytes}, .strides = {1}}, target, bytes};
    request->n_fetches = 1;
    request->fetch_bytes = bytes;
    status = dj_request_build_exec(request, 0);
    if (status == DJ_OK)
        return dj_request_send(request, DJ_MESSAGE_EXEC, sizeof(dj_exec_t));
    dj_request_finish(request, status, dj_error_text());
    return status;
}

static void take_segments(dj_recorder_t *recorder, djinn_request_t *request, uint32_t *count_p)
{
    request->segments = recorder->closed;
    *count_p = recorder->n_closed;
    recorder->closed = NULL;
    recorder->tail = &recorder->closed;
    recorder->n_closed = 0;
}

static dj_status_t submit_prepared(dj_recorder_t *recorder, djinn_request_t *request)
{
    uint32_t n_segments;
    dj_status_t status = dj_recorder_close_segment(recorder);
    if (status != DJ_OK)
        return status;
    take_segments(recorder, request, &n_segments);
    if (n_segments > DJ_EXEC_SEGMENTS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "%u segments in one request, at most %u", n_segments,
                       (unsigned)DJ_EXEC_SEGMENTS_MAX);
    for (uint32_t i = 0; i < request->n_fetches; i++)
        if (!request->fetches[i].tensor.storage->ref)
            return dj_fail(DJ_ERR_STALE, "fetch %u: a tensor whose request failed", i);
    if ((status = dj_request_build_exec(request, n_segments)) != DJ_OK)
        return status;
    return dj_request_send(request, DJ_MESSAGE_EXEC, sizeof(dj_exec_t));
}

dj_status_t dj_recorder_submit(dj_recorder_t *recorder, const djinn_fetch_t *fetches, int count,
                               djinn_request_t **request_p)
{
    djinn_t *djinn = recorder->djinn;
    djinn_request_t *request;
    dj_status_t status = dj_djinn_check(djinn);
    if (status != DJ_OK)
        return status;
    if (count < 0 || count > DJ_EXEC_FETCHES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "%d fetches in one request, at most %u", count,
                       (unsigned)DJ_EXEC_FETCHES_MAX);
    if (!count && !request_p && !recorder->open && !recorder->closed)
        return dj_gather_flush_small(djinn, true);
    /* What other threads recorded leaves first: ids must reach the rank in order. */
    for (int i = 0; i < count && status == DJ_OK; i++) {
        const djinn_storage_t *storage = fetches[i].tensor.storage;
        if (storage && storage->recorder && storage->recorder != recorder)
            status = dj_recorder_submit(storage->recorder, NULL, 0, NULL);
    }
    if (status != DJ_OK)
        return status;
    if ((status = dj_request_create(djinn, &request)) != DJ_OK)
        return status;
    request->detached = request_p == NULL;
    djinn_request_t *held = request; /* what the caller gets: the message, or what it is a part of */
    status = prepare_fetches(recorder, request, fetches, count);
    if (status == DJ_OK && request_p && count == 1 && dj_transfer_is_large(fetches[0].bytes) &&
        !djinn->executor)
        status = dj_transfer_fetch(request, &held);
    if (status == DJ_OK)
        status = submit_prepared(recorder, request);
    if (status != DJ_OK) {
        dj_recorder_discard(recorder);
        if (held != request) {
            request->owner = NULL;
            dj_request_recycle(held);
        }
        if (request->status == DJ_IN_PROGRESS || !request->detached) /* else it has recycled itself */
            dj_request_recycle(request);
        return status;
    }
    if (held != request)
        dj_transfer_follow(held);
    if (request_p) {
        atomic_fetch_add(&djinn->references, 1);
        *request_p = held;
    }
    return DJ_OK;
}

/* ---- receiving ---- */

static void deliver(djinn_request_t *request, const uint8_t *bytes, uint64_t size)
{
    if (request->raw_reply) {
        memcpy(request->raw_reply, bytes, size < request->raw_bytes ? size : request->raw_bytes);
        return;
    }
    for (uint32_t i = 0; i < request->n_fetches; i++) {
        if (request->fetches[i].target != bytes)
            memcpy(request->fetches[i].target, bytes, request->fetches[i].bytes);
        bytes += request->fetches[i].bytes;
    }
}

static void count_result(djinn_t *djinn, const dj_result_t *result, uint64_t payload_bytes)
{
    djinn_stats_t *stats = &djinn->stats;
    stats->messages_in++;
    stats->bytes_down += payload_bytes;
    stats->plan_hits += result->plan_hits;
    stats->plan_resizes += result->plan_resizes;
    stats->plan_misses += result->plan_misses;
    stats->run_ns += result->run_ns;
    stats->planning_ns += result->planning_ns;
    stats->queue_ns += result->queue_ns;
    if (result->stack_peak_bytes > stats->stack_peak_bytes)
        stats->stack_peak_bytes = result->stack_peak_bytes;
}

/* First call of a rendezvous: memory for what comes. */
static dj_status_t make_room(djinn_request_t *request, uint64_t bytes, void **memory_p)
{
    uint64_t want = request->raw_reply ? request->raw_bytes : request->fetch_bytes;
    if (bytes != want)
        return dj_fail(DJ_ERR_PROTOCOL, "an answer of %llu bytes where %llu were asked for",
                       (unsigned long long)bytes, (unsigned long long)want);
    request->djinn->stats.rendezvous++;
    if (request->n_fetches == 1) {
        *memory_p = request->fetches[0].target;
        return DJ_OK;
    }
    free(request->gather);
    request->gather = malloc(bytes);
    *memory_p = request->gather;
    return request->gather ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory for an answer");
}

/* Requests run in order: an answer is also that of the quiet ones before it. */
static void answer_quiet_ones(djinn_t *djinn, uint64_t before)
{
    for (uint64_t id = djinn->answered_id + 1; id < before; id++) {
        djinn_request_t *request = djinn->requests[id % DJ_REQUESTS_MAX];
        if (request && request->id == id && request->quiet)
            dj_request_finish(request, DJ_OK, "");
    }
    if (before > djinn->answered_id + 1)
        djinn->answered_id = before - 1;
}

/* The answer is here, whole or not. */
static dj_status_t take_answer(djinn_request_t *request, const dj_incoming_t *incoming)
{
    const dj_result_t *result = incoming->body;
    if (incoming->failed) {
        dj_request_finish(request, DJ_ERR_PEER_DIED, "the answer did not arrive whole: the rank is gone");
        return DJ_OK;
    }
    if (incoming->corrupt) {
        dj_request_finish(request, DJ_ERR_CORRUPT,
                          "the answer was damaged on its way: its checksum does not fit; look for "
                          "a failing card, cable or memory");
        return DJ_OK;
    }
    count_result(request->djinn, result, incoming->payload_bytes);
    if (result->status < 0) {
        char text[DJ_ERROR_TEXT_MAX];
        uint64_t n = incoming->payload_bytes < sizeof(text) ? incoming->payload_bytes
                                                            : sizeof(text) - 1;
        memcpy(text, incoming->payload ? incoming->payload : "", incoming->payload ? n : 0);
        text[incoming->payload ? n : 0] = 0;
        dj_request_finish(request, (dj_status_t)result->status, text);
        return DJ_OK;
    }
    uint64_t want = request->raw_reply ? request->raw_bytes : request->fetch_bytes;
    if (incoming->payload_bytes != want) {
        dj_request_finish(request, DJ_ERR_PROTOCOL, "an answer of another size than was asked for");
        return DJ_OK;
    }
    if (want)
        deliver(request, incoming->payload, want);
    dj_request_finish(request, DJ_OK, "");
    return DJ_OK;
}

/* UCX has let go of the memory. */
static dj_status_t end_receiving(djinn_request_t *request, const dj_incoming_t *incoming)
{
    dj_status_t verdict = request->verdict;
    request->receiving = false;
    request->verdict = DJ_OK;
    if (verdict == DJ_OK)
        return take_answer(request, incoming);
    char text[DJ_ERROR_TEXT_MAX];
    memcpy(text, request->text, sizeof(text));
    dj_request_finish(request, verdict, text);
    return DJ_OK;
}

dj_status_t dj_request_message(void *context, const dj_incoming_t *incoming, void **memory_p,
                               void **token_p)
{
    djinn_t *djinn = context;
    const dj_header_t *header = incoming->header;
    if (incoming->token)
        return end_receiving(incoming->token, incoming);
    djinn_request_t *request = djinn->requests[header->request % DJ_REQUESTS_MAX];
    if (header->type != DJ_MESSAGE_RESULT || header->session != djinn->session ||
        header->generation != djinn->generation)
        return DJ_ERR_STALE; /* of another life: dropped */
    if (!request || request->id != header->request || request->receiving)
        return DJ_ERR_STALE;
    answer_quiet_ones(djinn, header->request);
    if (!incoming->rendezvous)
        return take_answer(request, incoming);
    dj_status_t status = make_room(request, incoming->payload_bytes, memory_p);
    request->receiving = status == DJ_OK;
    *token_p = request;
    return status;
}

/* ---- waiting ---- */

/* When the rank is lost, UCX lets go of the callers' memory only once the endpoint is closed. */
static void let_go(djinn_t *djinn)
{
    if (djinn->endpoint)
        dj_endpoint_close(djinn->endpoint);
    djinn->endpoint = NULL;
    dj_requests_fail(djinn, (dj_status_t)atomic_load(&djinn->dead), djinn->dead_text);
}

/* Without its data path a rank is as good as lost: answers no longer come. */
void dj_request_look_at_rank(djinn_t *djinn)
{
    if (atomic_load(&djinn->dead))
        let_go(djinn);
    else if (djinn->endpoint && dj_endpoint_failed(djinn->endpoint))
        dj_heartbeat_path_lost(djinn);
}

static dj_status_t settle(djinn_request_t *request)
{
    djinn_t *djinn = request->djinn;
    if (request->status == DJ_IN_PROGRESS)
        dj_request_look_at_rank(djinn);
    if (request->status < 0)
        return dj_fail(request->status, "%s", request->text);
    return request->status;
}

/* A quiet request, or one that travels in such or still waits here, is to be heard of. */
static void want_answer(djinn_request_t *request)
{
    djinn_t *djinn = request->djinn;
    dj_status_t status = DJ_OK;
    if (request->status != DJ_IN_PROGRESS ||
        (!request->quiet && request->transfer.kind == DJ_TRANSFER_NONE))
        return;
    if (djinn->gather)
        status = dj_gather_flush_small(djinn, true);
    if (status == DJ_OK && djinn->quiet_run > 0)
        send_null(djinn);
}

/* The rank does not take what it was sent, and the memory is the caller's. */
static void give_up(djinn_t *djinn)
{
    if (atomic_load(&djinn->dead))
        return; /* it lets go already */
    snprintf(djinn->dead_text, sizeof(djinn->dead_text),
             "rank %u did not take a transfer within its deadline, and the connection was ended to "
             "give the memory back; look at djinn info, or raise --deadline-ms", djinn->rank);
    atomic_store(&djinn->dead, DJ_ERR_DEADLINE);
}

static void pass_deadline(djinn_request_t *request)
{
    if (request->sending || request->receiving || request->transfer.open)
        give_up(request->djinn);
    else
        dj_request_finish(request, DJ_ERR_DEADLINE,
                          "no answer within the deadline: the rank is busy or stuck; raise "
                          "--deadline-ms or look at djinn info");
}

/* Sleeps without the lock. UCX is touched under it alone, because several threads may wait. */
static void sleep_unlocked(djinn_t *djinn)
{
    struct pollfd entry = {.fd = dj_comm_fd(djinn->comm), .events = POLLIN};
    if (!dj_comm_arm(djinn->comm))
        return;
    djinn->sleepers++;
    dj_djinn_unlock(djinn);
    poll(&entry, 1, 20);
    dj_djinn_lock(djinn);
    djinn->sleepers--;
}

void dj_request_make_progress(djinn_t *djinn, uint64_t deadline_ns)
{
    dj_request_look_at_rank(djinn);
    if (dj_clock_ns() > deadline_ns)
        give_up(djinn);
    dj_comm_wait(djinn->comm, djinn->config.spin_us * 1000, 1);
}

dj_status_t dj_request_await(djinn_request_t *request)
{
    djinn_t *djinn = request->djinn;
    uint64_t spin_ns = djinn->config.spin_us * 1000, spun_from = 0;
    uint32_t polls = 0;
    want_answer(request); /* where that fails the request's own end comes: parts of it are under way */
    while (request->status == DJ_IN_PROGRESS && !djinn->executor) {
        if (dj_comm_progress(djinn->comm))
            spun_from = 0; /* no reason to skip what follows: a failed endpoint has news for ever */
        if (++polls % 64 != 0) /* the clock costs more than a poll */
            continue;
        uint64_t now = dj_clock_ns();
        if (settle(request) != DJ_IN_PROGRESS)
            break;
        if (now > request->deadline_ns)
            pass_deadline(request);
        else if (!spun_from) {
            spun_from = now;
        } else if (now - spun_from > spin_ns) {
            sleep_unlocked(djinn);
        } else {
            sched_yield(); /* the rank may want this very core */
        }
    }
    if (djinn->sleepers && djinn->comm)
        dj_comm_wake(djinn->comm); /* their answers may have come while this thread looked */
    return settle(request);
}

djinn_status_t djinn_submit(djinn_t *djinn, const djinn_fetch_t *fetches, int count,
                            djinn_request_t **request_p)
{
    dj_djinn_lock(djinn);
    dj_recorder_t *recorder = dj_recorder_mine(djinn);
    dj_status_t status = recorder ? dj_recorder_submit(recorder, fetches, count, request_p)
                                  : dj_fail(DJ_ERR_MEMORY, "no memory for a recorder");
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

djinn_status_t djinn_test(djinn_request_t *request)
{
    djinn_t *djinn = request->djinn;
    dj_djinn_lock(djinn);
    want_answer(request);
    for (int i = 0; i < 64 && djinn->comm && dj_comm_progress(djinn->comm); i++)
        ;
    dj_status_t status = settle(request);
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

djinn_status_t djinn_wait(djinn_request_t *request)
{
    djinn_t *djinn = request->djinn;
    dj_djinn_lock(djinn);
    dj_status_t status = dj_request_await(request);
    dj_djinn_unlock(djinn);
    return (djinn_status_t)status;
}

/* Under the lock, once nobody waits for it any more. */
static void release_request(djinn_request_t *request)
{
    dj_request_await(request);
    dj_request_release(request);
}

void djinn_request_free(djinn_request_t *request)
{
    if (!request)
        return;
    djinn_t *djinn = request->djinn;
    dj_djinn_lock(djinn);
    release_request(request);
    dj_djinn_unlock(djinn);
    dj_djinn_put_unlocked(djinn);
}

/* submit, wait and free under one lock: this is the path of a loop that looks at every result. */
static dj_status_t submit_and_await(djinn_t *djinn, const djinn_fetch_t *fetches, int count)
{
    djinn_request_t *request;
    dj_djinn_lock(djinn);
    dj_recorder_t *recorder = dj_recorder_mine(djinn);
    dj_status_t status = recorder ? dj_recorder_submit(recorder, fetches, count, &request)
                                  : dj_fail(DJ_ERR_MEMORY, "no memory for a recorder");
    bool submitted = status == DJ_OK;
    if (submitted) {
        status = dj_request_await(request);
        release_request(request);
        if (status == DJ_OK) /* of what was not waited for before */
            status = dj_djinn_check_deferred(djinn);
    }
    dj_djinn_unlock(djinn);
    if (submitted)
        dj_djinn_put_unlocked(djinn); /* the reference that the request held */
    return status;
}

djinn_status_t djinn_fetch(djinn_t *djinn, const djinn_tensor_t *tensor, void *target,
                           uint64_t bytes)
{
    djinn_fetch_t fetch = {*tensor, target, bytes};
    return (djinn_status_t)submit_and_await(djinn, &fetch, 1);
}

djinn_status_t djinn_flush(djinn_t *djinn)
{
    return djinn_submit(djinn, NULL, 0, NULL);
}

djinn_status_t djinn_synchronize(djinn_t *djinn)
{
    return (djinn_status_t)submit_and_await(djinn, NULL, 0);
}

int djinn_fd(djinn_t *djinn)
{
    return djinn->comm ? dj_comm_fd(djinn->comm) : -1;
}

djinn_status_t djinn_arm(djinn_t *djinn)
{
    dj_djinn_lock(djinn);
    bool armed = djinn->comm && dj_comm_arm(djinn->comm);
    dj_djinn_unlock(djinn);
    return armed ? DJINN_OK : DJINN_IN_PROGRESS;
}
