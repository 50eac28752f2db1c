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
    const dj_incoming_t incoming = {
        .header = (const dj_header_t *)operation->header,
        .body = operation->header + sizeof(dj_header_t),
        .payload = arrived ? operation->memory : NULL,
        .payload_bytes = operation->payload_bytes,
        .rendezvous = true,
        .failed = !arrived,
        .token = operation->argument,
    };
    if (arrived) {
        ++comm->counters.messages_in;
        ++comm->counters.rendezvous_in;
        comm->counters.bytes_in += operation->payload_bytes;
    }
    comm->options.on_message(comm->options.context, &incoming, &memory, &token);
}

void dj_incoming_abandon(dj_operation_t *operation)
{
    finish(operation, false);
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

static ucs_status_t receive(dj_operation_t *operation, dj_endpoint_t *endpoint, void *descriptor)
{
    dj_comm_t *comm = operation->comm;
    ucp_request_param_t parameters = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
        .cb.recv_am = on_received,
        .user_data = operation,
    };
    if (comm->host_memory_only) {
        parameters.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMORY_TYPE;
        parameters.memory_type = UCS_MEMORY_TYPE_HOST;
    }
    ucs_status_ptr_t result = ucp_am_recv_data_nbx(comm->worker, descriptor, operation->memory,
                                                   operation->payload_bytes, &parameters);
    if (!UCS_PTR_IS_ERR(result) && result) {
        operation->endpoint = endpoint;
        dj_operation_link(&endpoint->outstanding, operation);
        return UCS_OK;
    }
    finish(operation, result == NULL);
    dj_operation_give(operation);
    return UCS_OK;
}

/* Asks the owner for memory, then posts the receive there. */
static ucs_status_t handle_rendezvous(dj_comm_t *comm, const dj_incoming_t *incoming,
                                      uint32_t header_bytes, void *descriptor,
                                      const ucp_am_recv_param_t *parameters)
{
    dj_endpoint_t *endpoint = NULL;
    if (parameters->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP)
        endpoint = dj_table_get(&comm->by_ucp, dj_key_u64((uintptr_t)parameters->reply_ep));
    if (!endpoint || endpoint->state >= DJ_ENDPOINT_FAILED)
        return dj_ucx_refusal(
            refuse(comm, dj_fail(DJ_ERR_STALE, "rendezvous from a peer without an endpoint")));
    dj_operation_t *operation = dj_operation_take(comm, DJ_OPERATION_RECEIVE);
    if (!operation)
        return dj_ucx_refusal(refuse(comm, dj_fail(DJ_ERR_MEMORY, "no memory for a receive")));
    void *memory = NULL, *token = NULL;
    dj_status_t status = comm->options.on_message(comm->options.context, incoming, &memory, &token);
    if (status == DJ_OK && !memory)
        status = dj_fail(DJ_ERR_INTERNAL, "the handler named no memory");
    if (status != DJ_OK) {
        dj_operation_give(operation);
        return dj_ucx_refusal(refuse(comm, status));
    }
    memcpy(operation->header, incoming->header, header_bytes);
    operation->header_bytes = header_bytes;
    operation->payload_bytes = incoming->payload_bytes;
    operation->memory = memory;
    operation->argument = token;
    return receive(operation, endpoint, descriptor);
}

static void handle_eager(dj_comm_t *comm, const dj_incoming_t *incoming)
{
    void *memory = NULL, *token = NULL;
    ++comm->counters.messages_in;
    comm->counters.bytes_in += incoming->payload_bytes;
    comm->options.on_message(comm->options.context, incoming, &memory, &token);
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
    const dj_incoming_t incoming = {
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
    if (rendezvous)
        return handle_rendezvous(comm, &incoming, (uint32_t)header_bytes, data, parameters);
    handle_eager(comm, &incoming);
    return UCS_OK;
}
