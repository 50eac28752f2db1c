/* raw.h - a client that proves its token properly and then says whatever a test wants it to say.
 *
 * Built on comm alone: control socket, endpoint, messages by hand. One message at a time: raw_say()
 * sends it and raw_hear() pumps until its answer is here, keeping the heartbeats going. */
#ifndef TESTS_RUNTIME_RAW_H
#define TESTS_RUNTIME_RAW_H

#include "comm/control.h"
#include "comm/endpoint.h"
#include "tests/runtime/server.h"

typedef struct raw {
    dj_control_t *control;
    dj_comm_t *comm;
    dj_endpoint_t *endpoint;
    uint64_t session;
    uint32_t generation, sequence;
    uint64_t request; /* the last id used */
    bool ended;       /* the rank ended the control connection */
    bool holds;       /* the caller's: large answers are neither received nor refused */
    uint64_t beat_ms;
    bool sending;
    dj_status_t send_status;
    struct {
        dj_header_t header;
        uint8_t body[DJ_ENDPOINT_HEADER_MAX];
    } message;
    uint64_t answers;  /* RESULTs received, whatever their id */
    uint64_t answered; /* the id of the last one */
    dj_result_t result;
    uint8_t payload[1 << 16];
    uint64_t payload_bytes;
} raw_t;

/* Statuses as the library's; the raw client is in `raw` either way and wants raw_close(). */
dj_status_t raw_open(raw_t *raw, const server_t *server);
/* The same with a hello of the caller's making (role, uid and the like are filled in); `address`
 * NULL: the raw client's own, else these bytes stand for its worker address. */
dj_status_t raw_open_with(raw_t *raw, const server_t *server, const dj_hello_t *wanted,
                          const void *address, uint32_t address_bytes);
/* Says CLOSE and waits until the rank ends the connection. False: it did not within two seconds. */
bool raw_close(raw_t *raw);
/* Drops everything without a word. */
void raw_drop(raw_t *raw);

/* A header as it should be, with the next request id. */
dj_header_t raw_header(raw_t *raw, dj_message_t type);
/* Sends header and struct of `struct_bytes`, then the payload (the caller's until this returns). */
dj_status_t raw_say(raw_t *raw, const dj_header_t *header, const void *body, uint32_t struct_bytes,
                    const void *payload, uint64_t payload_bytes);
/* The status answered to the last raw_header()'s request; DJ_IN_PROGRESS: none came in time. */
int raw_hear(raw_t *raw, int limit_ms);
void raw_pump(raw_t *raw);

#endif
