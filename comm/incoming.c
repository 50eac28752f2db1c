/* incoming.c - the one active-message handler: checks, hands over, and receives rendezvous.
 *
 * Everything here runs inside UCX's progress. A message that fails dj_header_check() is counted and
 * dropped, or refused when it is a rendezvous: the status that the handler returns becomes the
 * sender's. The memory of a rendezvous belongs to the handler's owner from its first answer on; it
 * hears of the end exactly once, arrived or failed. */
#define DJ_LOG_MODULE "comm"

#include <string.h>

#include "comm/ucx.h"
#include "runtime/base/log.h"

static dj_status_t refuse(dj_comm_t *comm, dj_status_t status)
{
    ++comm->counters.refused;
    dj_log(DEBUG, "message refused: %s: %s", dj_status_name(status), dj_error_text());
    return status;
}

/* The second call: `arrived`, or the memory goes back. */
static void finish(dj_operation_t *operation, bool arrived)
{
    dj_comm_t *comm = operation->comm;
    void *memory = NULL, *token = NULL;
    dj_incoming_t incoming = {
        .header = (const dj_header_t *)operation->header,
        .body = operation->header + sizeof(dj_header_t),
        .payload = arrived ? operation->memory : NULL,
        .payload_bytes = operation->payload_bytes,
        .rendezvous = true,
        .failed = !arrived,
        .token = operation->argument,
    };
    incoming.corrupt =
        arrived && !dj_checksum_good(operation->header, operation->header_bytes, operation->memory,
                                     operation->payload_bytes);
    comm->counters.corrupt += incoming.corrupt;
    if (arrived) {
        ++comm->counters.messages_in;
        ++comm->counters.rendezvous_in;
        comm->counters.bytes_in += operation->payload_bytes;
    }
    comm->options.on_message(comm->options.context, &incoming, &memory, &token);
}

void dj_incoming_abandon(dj_operation_t *operation)
{
    if (operation->descriptor)
        ucp_am_data_release(operation->comm->worker, operation->descriptor);
    bool held = operation->descriptor != NULL;
    operation->descriptor = NULL;
    finish(operation, false);
    if (held)
        dj_operation_give(operation); /* UCX knows nothing of it */
}

static void on_received(void *request, ucs_status_t status, size_t bytes, void *argument)
{
    dj_operation_t *operation = argument;
    ucp_request_free(request);
    if (operation->endpoint) {
        dj_operation_unlink(operation);
        finish(operation, status == UCS_OK && bytes == operation->payload_bytes);
    }
    dj_operation_give(operation);
}

/* UCX may be done at once; then `at_once_p` says whether the bytes are here, and the caller ends it. */
static bool receive(dj_operation_t *operation, bool *at_once_p)
{
    dj_comm_t *comm = operation->comm;
    ucp_request_param_t parameters = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE,
        .cb.recv_am = on_received,
        .user_data = operation,
        .memory_type = dj_comm_memory_type(comm, operation->memory),
    };
    void *descriptor = operation->descriptor;
    operation->descriptor = NULL;
    ucs_status_ptr_t result = ucp_am_recv_data_nbx(comm->worker, descriptor, operation->memory,
                                                   operation->payload_bytes, &parameters);
    *at_once_p = result == NULL;
    return UCS_PTR_IS_ERR(result) || !result;
}

static void end(dj_operation_t *operation, bool arrived)
{
    dj_operation_unlink(operation);
    finish(operation, arrived);
    dj_operation_give(operation);
}

/* Not from inside dj_comm_accept(): the owner is in the middle of something. */
void dj_comm_accept(dj_comm_t *comm, void *hold, void *memory)
{
    dj_operation_t *operation = hold;
    bool arrived;
    operation->memory = memory;
    if (!receive(operation, &arrived))
        return;
    operation->arrived = arrived;
    operation->next_ended = comm->ended;
    comm->ended = operation;
    comm->attention = true;
}

void dj_incoming_tend(dj_comm_t *comm)
{
    while (comm->ended) {
        dj_operation_t *operation = comm->ended;
        comm->ended = operation->next_ended;
        if (operation->endpoint)
            end(operation, operation->arrived);
        else
            dj_operation_give(operation);
    }
}

static void keep(dj_operation_t *operation, const dj_incoming_t *incoming, uint32_t header_bytes,
                 dj_endpoint_t *endpoint, void *memory, void *token)
{
    memcpy(operation->header, incoming->header, header_bytes);
    operation->header_bytes = header_bytes;
    operation->payload_bytes = incoming->payload_bytes;
    operation->memory = memory;
    operation->argument = token;
    operation->endpoint = endpoint;
    dj_operation_link(&endpoint->outstanding, operation);
}

static dj_endpoint_t *sender_of(dj_comm_t *comm, const ucp_am_recv_param_t *parameters)
{
    dj_endpoint_t *endpoint = NULL;
    if (parameters->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP)
        endpoint = dj_table_get(&comm->by_ucp, dj_key_u64((uintptr_t)parameters->reply_ep));
    return endpoint && endpoint->state < DJ_ENDPOINT_FAILED ? endpoint : NULL;
}

/* Asks the owner for memory, then posts the receive there; or keeps UCX's description of the data. */
static ucs_status_t handle_rendezvous(dj_comm_t *comm, dj_incoming_t *incoming,
                                      uint32_t header_bytes, void *descriptor,
                                      const ucp_am_recv_param_t *parameters)
{
    dj_endpoint_t *endpoint = sender_of(comm, parameters);
    if (!endpoint)
        return dj_ucx_refusal(
            refuse(comm, dj_fail(DJ_ERR_STALE, "rendezvous from a peer without an endpoint")));
    dj_operation_t *operation = dj_operation_take(comm, DJ_OPERATION_RECEIVE);
    if (!operation)
        return dj_ucx_refusal(refuse(comm, dj_fail(DJ_ERR_MEMORY, "no memory for a receive")));
    void *memory = NULL, *token = NULL;
    operation->descriptor = descriptor;
    incoming->hold = operation;
    dj_status_t status = comm->options.on_message(comm->options.context, incoming, &memory, &token);
    if (status == DJ_OK && !memory)
        status = dj_fail(DJ_ERR_INTERNAL, "the handler named no memory");
    if (status < 0) {
        dj_operation_give(operation);
        return dj_ucx_refusal(refuse(comm, status));
    }
    bool arrived;
    keep(operation, incoming, header_bytes, endpoint, memory, token);
    if (status == DJ_IN_PROGRESS)
        return UCS_INPROGRESS;
    if (receive(operation, &arrived))
        end(operation, arrived);
    return UCS_OK;
}

static void handle_eager(dj_comm_t *comm, const dj_incoming_t *incoming)
{
    void *memory = NULL, *token = NULL;
    ++comm->counters.messages_in;
    comm->counters.bytes_in += incoming->payload_bytes;
    comm->options.on_message(comm->options.context, incoming, &memory, &token);
}

/* A message inside a BATCH; false: it is none. */
static bool handle_item(dj_comm_t *comm, const dj_batch_item_t *item)
{
    if (dj_header_check(item->header, item->header_bytes) != DJ_OK)
        return false;
    const dj_incoming_t incoming = {
        .header = item->header,
        .body = (const uint8_t *)item->header + sizeof(dj_header_t),
        .payload = item->payload,
        .payload_bytes = item->payload_bytes,
    };
    if (incoming.header->type == DJ_MESSAGE_BATCH || incoming.header->type == DJ_MESSAGE_WIRE)
        return false;
    handle_eager(comm, &incoming);
    return true;
}

static void handle_batch(dj_comm_t *comm, const dj_incoming_t *incoming)
{
    _Alignas(8) uint8_t aligned[DJ_BATCH_BYTES_MAX];
    const dj_batch_t *batch = incoming->body;
    const void *payload = incoming->payload;
    dj_batch_item_t item;
    uint64_t at = 0;
    ++comm->counters.batches_in;
    if ((uintptr_t)payload % 8 != 0 && incoming->payload_bytes <= sizeof(aligned))
        payload = memcpy(aligned, payload, incoming->payload_bytes);
    for (uint32_t i = 0; i < batch->n_messages; ++i) {
        dj_status_t status = dj_batch_next(payload, incoming->payload_bytes, &at, &item);
        if (status == DJ_OK && !handle_item(comm, &item))
            status = DJ_ERR_PROTOCOL;
        if (status != DJ_OK) {
            refuse(comm, status);
            return;
        }
    }
}

ucs_status_t dj_incoming_handle(void *argument, const void *header, size_t header_bytes, void *data,
                                size_t bytes, const ucp_am_recv_param_t *parameters)
{
    dj_comm_t *comm = argument;
    bool rendezvous = parameters->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV;
    _Alignas(8) uint8_t aligned[DJ_ENDPOINT_HEADER_MAX];
    dj_status_t status = dj_header_check(header, header_bytes);
    if (status != DJ_OK) {
        refuse(comm, status);
        return rendezvous ? dj_ucx_refusal(status) : UCS_OK;
    }
    if ((uintptr_t)header % 8 != 0)
        header = memcpy(aligned, header, header_bytes);
    dj_incoming_t incoming = {
        .header = header,
        .body = (const uint8_t *)header + sizeof(dj_header_t),
        .payload = rendezvous ? NULL : data,
        .payload_bytes = bytes,
        .rendezvous = rendezvous,
    };
    if (incoming.header->type == DJ_MESSAGE_WIRE) {
        bool reply = parameters->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP;
        dj_endpoint_wired(comm, incoming.header, incoming.body,
                          reply ? parameters->reply_ep : NULL);
        return rendezvous ? dj_ucx_refusal(DJ_ERR_PROTOCOL) : UCS_OK;
    }
    if (!rendezvous && !dj_checksum_good(header, (uint32_t)header_bytes, data, bytes)) {
        incoming.corrupt = true;
        ++comm->counters.corrupt;
    }
    if (incoming.header->type == DJ_MESSAGE_BATCH) {
        dj_status_t refused = DJ_OK;
        if (rendezvous || incoming.corrupt)
            refused = refuse(comm, dj_fail(DJ_ERR_PROTOCOL, "a BATCH too large or damaged"));
        else
            handle_batch(comm, &incoming);
        return rendezvous ? dj_ucx_refusal(refused) : UCS_OK;
    }
    if (rendezvous)
        return handle_rendezvous(comm, &incoming, (uint32_t)header_bytes, data, parameters);
    handle_eager(comm, &incoming);
    return UCS_OK;
}
