/* raw.c - see raw.h. */
#include "tests/runtime/raw.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "planner/ops.h"
#include "runtime/base/clock.h"

static dj_status_t on_message(void *context, const dj_incoming_t *incoming, void **memory_p,
                              void **token_p)
{
    raw_t *raw = context;
    if (incoming->header->type != DJ_MESSAGE_RESULT)
        return DJ_ERR_PROTOCOL;
    if (incoming->rendezvous && !incoming->payload && !incoming->failed) {
        *memory_p = raw->payload;
        *token_p = raw;
        if (raw->holds)
            return DJ_IN_PROGRESS;
        return incoming->payload_bytes <= sizeof(raw->payload) ? DJ_OK : DJ_ERR_LIMIT;
    }
    raw->answers++;
    raw->answered = incoming->header->request;
    memcpy(&raw->result, incoming->body, sizeof(raw->result));
    raw->payload_bytes = incoming->payload_bytes;
    if (incoming->payload && incoming->payload != raw->payload &&
        incoming->payload_bytes <= sizeof(raw->payload))
        memcpy(raw->payload, incoming->payload, incoming->payload_bytes);
    return DJ_OK;
}

static dj_status_t open_comm(raw_t *raw, const void **address_p, uint32_t *bytes_p)
{
    dj_comm_options_t options = {
        .shared_memory = true, .loopback_only = true, .on_message = on_message, .context = raw};
    dj_status_t status = dj_comm_create(&options, &raw->comm);
    return status == DJ_OK ? dj_comm_address(raw->comm, address_p, bytes_p) : status;
}

dj_status_t raw_open_with(raw_t *raw, const server_t *server, const dj_hello_t *wanted,
                          const void *address, uint32_t address_bytes)
{
    uint8_t token[32];
    dj_frame_t frame;
    const void *body, *own;
    uint32_t bytes;
    dj_hello_t hello = *wanted;
    uint64_t deadline_ns = dj_clock_ns() + 5 * DJ_NS_PER_S;
    memset(raw, 0, sizeof(*raw));
    hello.role = DJ_ROLE_CLIENT;
    hello.uid = (uint32_t)getuid();
    hello.pid = (uint32_t)getpid();
    hello.host = dj_host_identity();
    hello.op_table = dj_op_table_hash();
    dj_status_t status = dj_token_parse(server->token, token);
    if (status == DJ_OK)
        status = open_comm(raw, &own, &bytes);
    if (status == DJ_OK)
        status = dj_control_connect(server->address, deadline_ns, &raw->control);
    hello.address_bytes = address ? address_bytes : bytes;
    if (status == DJ_OK)
        status = dj_control_greet(raw->control, token, &hello, address ? address : own, deadline_ns,
                                  &frame, &body);
    if (status != DJ_OK)
        return status;
    const dj_welcome_t *welcome = body;
    raw->session = welcome->session;
    raw->generation = welcome->generation;
    status = dj_endpoint_create(raw->comm, welcome + 1, welcome->address_bytes, &raw->endpoint);
    while (status == DJ_OK && !dj_endpoint_ready(raw->endpoint) && dj_clock_ns() < deadline_ns)
        raw_pump(raw);
    return status;
}

dj_status_t raw_open(raw_t *raw, const server_t *server)
{
    return raw_open_with(raw, server, &(dj_hello_t){.rank = DJ_RANK_ANY}, NULL, 0);
}

void raw_pump(raw_t *raw)
{
    dj_frame_t frame;
    const void *body;
    dj_status_t status;
    dj_comm_wait(raw->comm, 50 * 1000, 1); /* a whole core would be spent on polling else */
    if (now_ms() < raw->beat_ms + 50 || raw->ended)
        return;
    raw->beat_ms = now_ms();
    dj_heartbeat_t beat = {dj_clock_ns()};
    dj_control_send(raw->control, DJ_MESSAGE_HEARTBEAT, &beat, sizeof(beat), NULL, 0,
                    dj_clock_ns() + 10 * DJ_NS_PER_MS);
    while ((status = dj_control_try_receive(raw->control, &frame, &body)) == DJ_OK)
        ;
    raw->ended = status != DJ_IN_PROGRESS;
}

static void sent(void *argument, dj_status_t status)
{
    raw_t *raw = argument;
    raw->sending = false;
    raw->send_status = status;
}

dj_header_t raw_header(raw_t *raw, dj_message_t type)
{
    return (dj_header_t){.magic = DJ_HEADER_MAGIC,
                         .version = DJ_PROTOCOL_VERSION,
                         .type = (uint16_t)type,
                         .session = raw->session,
                         .generation = raw->generation,
                         .sequence = raw->sequence++,
                         .request = ++raw->request};
}

dj_status_t raw_say(raw_t *raw, const dj_header_t *header, const void *body, uint32_t struct_bytes,
                    const void *payload, uint64_t payload_bytes)
{
    dj_piece_t piece = {payload, payload_bytes};
    uint64_t end_ms = now_ms() + 5000;
    raw->message.header = *header;
    memcpy(raw->message.body, body, struct_bytes);
    raw->sending = true;
    dj_status_t status =
        dj_endpoint_send(raw->endpoint, &raw->message, (uint32_t)sizeof(*header) + struct_bytes,
                         &piece, payload_bytes ? 1 : 0, sent, raw);
    if (status != DJ_IN_PROGRESS)
        return status;
    while (raw->sending && now_ms() < end_ms)
        raw_pump(raw);
    return raw->sending ? DJ_ERR_DEADLINE : raw->send_status;
}

int raw_hear(raw_t *raw, int limit_ms)
{
    uint64_t end_ms = now_ms() + (uint64_t)limit_ms;
    while (raw->answered != raw->request && !raw->ended && now_ms() < end_ms)
        raw_pump(raw);
    return raw->answered == raw->request ? raw->result.status : DJ_IN_PROGRESS;
}

void raw_drop(raw_t *raw)
{
    if (raw->endpoint)
        dj_endpoint_close(raw->endpoint);
    if (raw->comm)
        dj_comm_destroy(raw->comm);
    if (raw->control)
        dj_control_close(raw->control);
    memset(raw, 0, sizeof(*raw));
}

bool raw_close(raw_t *raw)
{
    dj_close_t close = {raw->session, raw->generation, 0};
    uint64_t end_ms = now_ms() + 2000;
    dj_control_send(raw->control, DJ_MESSAGE_CLOSE, &close, sizeof(close), NULL, 0,
                    dj_clock_ns() + DJ_NS_PER_S);
    while (!raw->ended && now_ms() < end_ms)
        raw_pump(raw);
    bool ended = raw->ended;
    raw_drop(raw);
    return ended;
}
