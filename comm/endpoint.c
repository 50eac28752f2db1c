/* endpoint.c - one peer: wire-up, sending, failing, closing.
 *
 * Wiring: the first thing on a new endpoint is a WIRE message and a flush; the peer's comm echoes
 * it. Until flush and echo are both here, what the owner sends is queued, because UCX 1.13 aborts
 * on a rendezvous that meets an unfinished wire-up. The echo goes back on the reply endpoint, so it
 * comes even if the peer's owner has not made its own endpoint yet. Both sides dial: with UCX 1.13
 * over tcp a side that only answers is aborted when the other is killed before it has acknowledged
 * the answer. For the same reason a close lets a wire-up under way come to its end.
 *
 * Failing: UCX's error callback, or dj_endpoint_close(), only changes the state.
 * dj_endpoint_tend(), outside of UCX, closes by force, lets UCX run for a while so that it lets go
 * of the memory of what is outstanding, then reports the rest as lost: a posted rendezvous may
 * never be completed by UCX.
 *
 * Sending: the fast path takes an operation from the pool, copies the header into it and calls UCX
 * once; no lock, no allocation. */
#define DJ_LOG_MODULE "comm"

#include <stdlib.h>
#include <string.h>

#include "comm/channel.h"
#include "comm/ucx.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

/* UCX lets go of a forced-down endpoint within a few rounds of progress; after this it never will.
 */
#define DRAIN_NS (50 * DJ_NS_PER_MS)
#define DRAIN_ROUNDS 64
/* How long a close waits for a wire-up under way: UCX 1.13 aborts the peer whose tcp wire-up is
 * cut. */
#define WIRE_GRACE_NS (500 * DJ_NS_PER_MS)

static void fail(dj_endpoint_t *endpoint)
{
    if (endpoint->state <= DJ_ENDPOINT_READY)
        endpoint->state = DJ_ENDPOINT_FAILED;
    endpoint->comm->attention = true;
}

static void on_error(void *argument, ucp_ep_h ucp, ucs_status_t status)
{
    dj_endpoint_t *endpoint = argument;
    dj_log(DEBUG, "endpoint %llu failed: %s", (unsigned long long)endpoint->id,
           ucs_status_string(status));
    fail(endpoint);
}

/* ---- sending ---- */

static void on_sent(void *request, ucs_status_t status, void *argument)
{
    dj_operation_t *operation = argument;
    dj_endpoint_t *endpoint = operation->endpoint;
    ucp_request_free(request);
    if (endpoint) {
        dj_operation_unlink(operation);
        dj_status_t ours = dj_ucx_status(status);
        if (ours != DJ_OK && endpoint->state >= DJ_ENDPOINT_FAILED)
            ours = DJ_ERR_PEER_DIED;
        if (operation->done)
            operation->done(operation->argument, ours);
    }
    dj_operation_give(operation);
}

static void describe(const dj_operation_t *operation, const void *data, bool many,
                     ucp_request_param_t *parameters)
{
    parameters->op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                               UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_DATATYPE;
    parameters->cb.send = on_sent;
    parameters->user_data = (void *)(uintptr_t)operation;
    parameters->datatype = many ? ucp_dt_make_iov() : ucp_dt_make_contig(1);
    parameters->flags = UCP_AM_SEND_FLAG_EAGER;
    /* The receiver needs to know whose rendezvous it is, to give it up when that endpoint fails. */
    if (operation->payload_bytes >= DJ_RENDEZVOUS_BYTES)
        parameters->flags = UCP_AM_SEND_FLAG_RNDV | UCP_AM_SEND_FLAG_REPLY;
    parameters->op_attr_mask |= UCP_OP_ATTR_FIELD_MEMORY_TYPE;
    parameters->memory_type = dj_comm_memory_type(operation->comm, many ? NULL : data);
}

static void count_sent(const dj_operation_t *operation)
{
    dj_comm_counters_t *counters = &operation->comm->counters;
    ++counters->messages_out;
    counters->bytes_out += operation->payload_bytes;
    counters->rendezvous_out += operation->payload_bytes >= DJ_RENDEZVOUS_BYTES;
}

/* Hands one operation to UCX. What is not DJ_IN_PROGRESS is over, and the operation given back. */
static dj_status_t post(dj_endpoint_t *endpoint, dj_operation_t *operation, const void *data,
                        size_t count, bool many)
{
    ucp_request_param_t parameters;
    describe(operation, data, many, &parameters);
    count_sent(operation);
    ucs_status_ptr_t result = ucp_am_send_nbx(endpoint->ucp, 0, operation->header,
                                              operation->header_bytes, data, count, &parameters);
    if (!UCS_PTR_IS_ERR(result) && result) {
        operation->endpoint = endpoint;
        dj_operation_link(&endpoint->outstanding, operation);
        return DJ_IN_PROGRESS;
    }
    dj_operation_give(operation);
    return dj_ucx_status(UCS_PTR_STATUS(result));
}

static dj_status_t post_kept(dj_endpoint_t *endpoint, dj_operation_t *operation)
{
    if (operation->n_pieces > 1)
        return post(endpoint, operation, operation->pieces, operation->n_pieces, true);
    const void *data = operation->n_pieces == 1 ? operation->pieces[0].buffer : operation->gathered;
    return post(endpoint, operation, data, operation->payload_bytes, false);
}

dj_status_t dj_endpoint_post(dj_endpoint_t *endpoint, dj_operation_t *operation)
{
    const dj_piece_t piece = {operation->gathered, operation->payload_bytes};
    if (endpoint->checksum)
        dj_checksum_put(operation->header, operation->header_bytes, &piece, 1);
    return post_kept(endpoint, operation);
}

/* n_pieces 0 afterwards: the payload lies in the operation itself. */
static void keep_pieces(dj_operation_t *operation, const dj_piece_t *pieces, uint32_t n_pieces)
{
    operation->n_pieces = 0;
    if (operation->payload_bytes <= DJ_GATHER_BYTES) {
        uint8_t *at = operation->gathered;
        for (uint32_t i = 0; i < n_pieces; ++i) {
            if (pieces[i].bytes > 0)
                memcpy(at, pieces[i].data, pieces[i].bytes);
            at += pieces[i].bytes;
        }
        return;
    }
    for (uint32_t i = 0; i < n_pieces; ++i) {
        if (pieces[i].bytes == 0)
            continue;
        operation->pieces[operation->n_pieces].buffer = (void *)(uintptr_t)pieces[i].data;
        operation->pieces[operation->n_pieces++].length = pieces[i].bytes;
    }
}

static dj_status_t enqueue(dj_endpoint_t *endpoint, dj_operation_t *operation)
{
    operation->endpoint = endpoint;
    operation->next = NULL;
    *endpoint->queue_last_p = operation;
    endpoint->queue_last_p = &operation->next;
    return DJ_IN_PROGRESS;
}

static dj_status_t check_send(const dj_endpoint_t *endpoint, uint32_t header_bytes,
                              uint32_t n_pieces)
{
    if (endpoint->state >= DJ_ENDPOINT_FAILED || endpoint->closed)
        return dj_fail(DJ_ERR_PEER_DIED, "the connection to the peer has ended");
    if (header_bytes > DJ_ENDPOINT_HEADER_MAX || n_pieces > DJ_PIECES_MAX)
        return dj_fail(DJ_ERR_LIMIT,
                       "a message with a header of %u bytes and %u pieces; limits are %d and %d",
                       header_bytes, n_pieces, DJ_ENDPOINT_HEADER_MAX, DJ_PIECES_MAX);
    return DJ_OK;
}

dj_status_t dj_endpoint_send(dj_endpoint_t *endpoint, const void *header, uint32_t header_bytes,
                             const dj_piece_t *pieces, uint32_t n_pieces, dj_sent_fn_t done,
                             void *argument)
{
    dj_status_t status = check_send(endpoint, header_bytes, n_pieces);
    if (status != DJ_OK)
        return status;
    if (endpoint->channel)
        return dj_channel_send(endpoint, header, header_bytes, pieces, n_pieces, done, argument);
    uint64_t payload_bytes = 0;
    for (uint32_t i = 0; i < n_pieces; ++i)
        payload_bytes += pieces[i].bytes;
    if (endpoint->state == DJ_ENDPOINT_READY &&
        dj_batch_wants(endpoint, header_bytes, payload_bytes)) {
        dj_batch_add(endpoint, header, header_bytes, pieces, n_pieces, payload_bytes);
        return DJ_OK;
    }
    if (endpoint->batch)
        dj_batch_flush(endpoint); /* it was said before */
    dj_operation_t *operation = dj_operation_take(endpoint->comm, DJ_OPERATION_SEND);
    if (!operation)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a message");
    operation->done = done;
    operation->argument = argument;
    operation->header_bytes = header_bytes;
    memcpy(operation->header, header, header_bytes);
    operation->payload_bytes = payload_bytes;
    if (endpoint->checksum)
        dj_checksum_put(operation->header, header_bytes, pieces, n_pieces);
    if (n_pieces == 1 && endpoint->state == DJ_ENDPOINT_READY)
        return post(endpoint, operation, pieces[0].data, pieces[0].bytes, false);
    keep_pieces(operation, pieces, n_pieces);
    if (endpoint->state == DJ_ENDPOINT_WIRING)
        return enqueue(endpoint, operation);
    return post_kept(endpoint, operation);
}

/* ---- wiring ---- */

static void fill_wire(dj_operation_t *operation, uint64_t id, bool echo)
{
    const struct {
        dj_header_t header;
        dj_wire_t wire;
    } message = {
        {.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION, .type = DJ_MESSAGE_WIRE},
        {.endpoint = id, .echo = echo}};
    memcpy(operation->header, &message, sizeof(message));
    operation->header_bytes = sizeof(message);
    operation->payload_bytes = 0;
    operation->n_pieces = 0;
}

static dj_status_t send_wire(dj_comm_t *comm, ucp_ep_h ucp, uint64_t id, bool echo)
{
    dj_operation_t *operation = dj_operation_take(comm, DJ_OPERATION_SEND);
    if (!operation)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a message");
    fill_wire(operation, id, echo);
    ucp_request_param_t parameters;
    describe(operation, operation->gathered, false, &parameters);
    if (!echo)
        parameters.flags |= UCP_AM_SEND_FLAG_REPLY;
    ucs_status_ptr_t result = ucp_am_send_nbx(ucp, 0, operation->header, operation->header_bytes,
                                              operation->gathered, 0, &parameters);
    if (!UCS_PTR_IS_ERR(result) && result)
        return DJ_OK; /* an orphan: on_sent() gives it back */
    dj_operation_give(operation);
    return dj_ucx_status(UCS_PTR_STATUS(result));
}

static dj_endpoint_t *find_by_id(dj_comm_t *comm, uint64_t id)
{
    for (dj_endpoint_t *at = comm->endpoints; at; at = at->next)
        if (at->id == id)
            return at;
    return NULL;
}

void dj_endpoint_wired(dj_comm_t *comm, const dj_header_t *header, const dj_wire_t *wire,
                       ucp_ep_h reply_to)
{
    if (!wire->echo) {
        if (reply_to)
            send_wire(comm, reply_to, wire->endpoint, true);
        return;
    }
    dj_endpoint_t *endpoint = find_by_id(comm, wire->endpoint);
    if (endpoint) {
        endpoint->echoed = true;
        comm->attention = true;
    }
}

static void on_flushed(void *request, ucs_status_t status, void *argument)
{
    /* The endpoint may be gone: the argument is its name. */
    dj_operation_t *operation = argument;
    dj_comm_t *comm = operation->comm;
    uint64_t id;
    memcpy(&id, operation->gathered, sizeof(id));
    ucp_request_free(request);
    dj_operation_give(operation);
    dj_endpoint_t *endpoint = find_by_id(comm, id);
    if (!endpoint)
        return;
    endpoint->flushed = status == UCS_OK;
    if (status != UCS_OK)
        fail(endpoint);
    comm->attention = true;
}

static dj_status_t begin_flush(dj_endpoint_t *endpoint)
{
    dj_operation_t *operation = dj_operation_take(endpoint->comm, DJ_OPERATION_SEND);
    if (!operation)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a flush");
    memcpy(operation->gathered, &endpoint->id, sizeof(endpoint->id));
    const ucp_request_param_t parameters = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
        .cb.send = on_flushed,
        .user_data = operation,
    };
    ucs_status_ptr_t result = ucp_ep_flush_nbx(endpoint->ucp, &parameters);
    if (!UCS_PTR_IS_ERR(result) && result)
        return DJ_OK;
    dj_operation_give(operation);
    endpoint->flushed = result == NULL;
    return dj_ucx_status(UCS_PTR_STATUS(result));
}

void dj_endpoint_flush(dj_endpoint_t *endpoint)
{
    if (endpoint->channel || endpoint->closed || endpoint->state != DJ_ENDPOINT_READY)
        return;
    dj_batch_flush(endpoint);
    endpoint->flushed = false;
    if (begin_flush(endpoint) != DJ_OK)
        endpoint->flushed = true; /* nothing to wait for */
}

bool dj_endpoint_flushing(const dj_endpoint_t *endpoint)
{
    return !endpoint->channel && !endpoint->closed && endpoint->state == DJ_ENDPOINT_READY &&
           !endpoint->flushed;
}

static dj_status_t connect_ucp(dj_endpoint_t *endpoint, const void *address, uint32_t address_bytes)
{
    void *ucp_address;
    dj_status_t status = dj_address_unwrap(address, address_bytes, &ucp_address);
    if (status != DJ_OK)
        return status;
    const ucp_ep_params_t parameters = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = ucp_address,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = on_error, .arg = endpoint},
    };
    ucs_status_t result = ucp_ep_create(endpoint->comm->worker, &parameters, &endpoint->ucp);
    free(ucp_address);
    if (result == UCS_OK)
        return DJ_OK;
    endpoint->ucp = NULL;
    return dj_fail(DJ_ERR_CONNECT,
                   "ucx finds no transport to the peer: %s; is it alive? compare ucx_info -d on "
                   "both sides",
                   ucs_status_string(result));
}

/* The first message and the flush behind it. */
static dj_status_t begin_wiring(dj_endpoint_t *endpoint)
{
    dj_comm_t *comm = endpoint->comm;
    dj_status_t status =
        dj_table_put(&comm->by_ucp, dj_key_u64((uintptr_t)endpoint->ucp), endpoint);
    if (status == DJ_OK)
        status = send_wire(comm, endpoint->ucp, endpoint->id, false);
    if (status == DJ_OK)
        status = begin_flush(endpoint);
    return status;
}

dj_status_t dj_endpoint_create(dj_comm_t *comm, const void *address, uint32_t address_bytes,
                               dj_endpoint_t **endpoint_p)
{
    dj_endpoint_t *endpoint = calloc(1, sizeof(*endpoint));
    if (!endpoint)
        return dj_fail(DJ_ERR_MEMORY, "no memory for an endpoint");
    endpoint->comm = comm;
    endpoint->id = ++comm->next_id;
    endpoint->outstanding.next = endpoint->outstanding.previous = &endpoint->outstanding;
    endpoint->queue_last_p = &endpoint->queue;
    dj_status_t status = connect_ucp(endpoint, address, address_bytes);
    if (status != DJ_OK) {
        free(endpoint);
        return status;
    }
    endpoint->next = comm->endpoints;
    comm->endpoints = endpoint;
    status = begin_wiring(endpoint);
    if (status != DJ_OK) {
        dj_endpoint_close(endpoint);
        return status;
    }
    *endpoint_p = endpoint;
    return DJ_OK;
}

/* ---- ends ---- */

void dj_endpoint_close(dj_endpoint_t *endpoint)
{
    if (!endpoint || endpoint->closed)
        return;
    endpoint->closed = true;
    endpoint->comm->attention = true;
    endpoint->close_ns = dj_clock_ns();
    if (endpoint->state != DJ_ENDPOINT_WIRING)
        fail(endpoint);
}

void dj_endpoint_set_checksum(dj_endpoint_t *endpoint, bool on)
{
    endpoint->checksum = on;
}

bool dj_endpoint_failed(const dj_endpoint_t *endpoint)
{
    return endpoint->state >= DJ_ENDPOINT_FAILED || endpoint->closed;
}

bool dj_endpoint_ready(const dj_endpoint_t *endpoint)
{
    return endpoint->state == DJ_ENDPOINT_READY;
}

static void fail_queue(dj_endpoint_t *endpoint)
{
    dj_operation_t *at = endpoint->queue;
    endpoint->queue = NULL;
    endpoint->queue_last_p = &endpoint->queue;
    while (at) {
        dj_operation_t *operation = at;
        at = operation->next;
        if (operation->done)
            operation->done(operation->argument, DJ_ERR_PEER_DIED);
        dj_operation_give(operation);
    }
}

void dj_endpoint_fail(dj_endpoint_t *endpoint)
{
    if (endpoint->state == DJ_ENDPOINT_WIRING)
        fail_queue(endpoint);
    else if (!endpoint->closed)
        fail(endpoint);
}

void dj_endpoint_abandon(dj_endpoint_t *endpoint)
{
    fail_queue(endpoint);
    while (endpoint->outstanding.next != &endpoint->outstanding) {
        dj_operation_t *operation = endpoint->outstanding.next;
        dj_operation_unlink(operation);
        operation->endpoint = NULL;
        if (operation->kind == DJ_OPERATION_RECEIVE)
            dj_incoming_abandon(operation);
        else if (operation->done)
            operation->done(operation->argument, DJ_ERR_PEER_DIED);
    }
}

static void post_queue(dj_endpoint_t *endpoint)
{
    endpoint->state = DJ_ENDPOINT_READY;
    dj_operation_t *at = endpoint->queue;
    endpoint->queue = NULL;
    endpoint->queue_last_p = &endpoint->queue;
    while (at) {
        dj_operation_t *operation = at;
        at = operation->next;
        dj_sent_fn_t done = operation->done;
        void *argument = operation->argument;
        dj_status_t status = post_kept(endpoint, operation);
        /* The owner was told DJ_IN_PROGRESS, so it hears of the end whatever it is. */
        if (status != DJ_IN_PROGRESS && done)
            done(argument, status);
    }
}

static void force_down(dj_endpoint_t *endpoint)
{
    dj_batch_flush(endpoint); /* nowhere */
    const ucp_request_param_t parameters = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
        .flags = UCP_EP_CLOSE_FLAG_FORCE,
    };
    endpoint->state = DJ_ENDPOINT_DRAINING;
    endpoint->drain_from_ns = dj_clock_ns();
    dj_table_remove(&endpoint->comm->by_ucp, dj_key_u64((uintptr_t)endpoint->ucp));
    ucs_status_ptr_t result = ucp_ep_close_nbx(endpoint->ucp, &parameters);
    endpoint->ucp = NULL;
    endpoint->closing = UCS_PTR_IS_ERR(result) ? NULL : result;
}

/* Over when UCX has handed everything back, or has had its rounds and time. */
static bool drained(dj_endpoint_t *endpoint, uint64_t now_ns)
{
    ++endpoint->drain_rounds;
    if (endpoint->closing && ucp_request_check_status(endpoint->closing) != UCS_INPROGRESS) {
        ucp_request_free(endpoint->closing);
        endpoint->closing = NULL;
    }
    bool empty = endpoint->outstanding.next == &endpoint->outstanding;
    if (empty && !endpoint->closing)
        return true;
    return endpoint->drain_rounds >= DRAIN_ROUNDS && now_ns - endpoint->drain_from_ns >= DRAIN_NS;
}

/* Of a closed endpoint: what waited for the wire-up is lost, and the wire-up itself gets its time.
 */
static void end_wiring(dj_endpoint_t *endpoint, uint64_t now_ns)
{
    fail_queue(endpoint);
    if ((endpoint->flushed && endpoint->echoed) || now_ns - endpoint->close_ns >= WIRE_GRACE_NS)
        fail(endpoint);
}

bool dj_endpoint_tend(dj_endpoint_t *endpoint, uint64_t now_ns)
{
    if (endpoint->channel)
        return dj_channel_tend(endpoint);
    if (endpoint->closed && endpoint->state == DJ_ENDPOINT_WIRING)
        end_wiring(endpoint, now_ns);
    if (endpoint->state == DJ_ENDPOINT_WIRING && !endpoint->closed && endpoint->flushed &&
        endpoint->echoed)
        post_queue(endpoint);
    if (endpoint->state == DJ_ENDPOINT_FAILED) {
        force_down(endpoint);
        fail_queue(endpoint);
    } else if (endpoint->state == DJ_ENDPOINT_DRAINING && drained(endpoint, now_ns)) {
        if (endpoint->closing)
            ucp_request_free(endpoint->closing);
        endpoint->closing = NULL;
        dj_endpoint_abandon(endpoint);
        endpoint->state = DJ_ENDPOINT_DEAD;
    }
    return endpoint->state == DJ_ENDPOINT_DEAD && endpoint->closed;
}

bool dj_endpoint_restless(const dj_endpoint_t *endpoint)
{
    if (endpoint->channel)
        return endpoint->closed;
    return endpoint->state == DJ_ENDPOINT_FAILED || endpoint->state == DJ_ENDPOINT_DRAINING ||
           (endpoint->closed && endpoint->state == DJ_ENDPOINT_WIRING);
}
