/* endpoint.h - active messages over UCX: contexts, endpoints, eager and rendezvous.
 *
 * One dj_comm_t a process (or a client connection): a UCX context and worker driven by one thread.
 * Peers exchange worker addresses over the control socket and make an endpoint each; nobody listens.
 *
 * Receiving: dj_comm_create() takes one handler, called from dj_comm_progress() for each message, after
 * dj_header_check(). With an eager message the payload is valid inside the handler only. For a rendezvous
 * message the handler is called first with `payload` NULL and must answer with memory for
 * payload_bytes (or a status, which becomes the sender's); it is called again, with the payload
 * in place, when the data has arrived. It may also answer DJ_IN_PROGRESS, keep `hold`, and name the memory
 * later with dj_comm_accept(): the sender waits, and nothing is held here but its description.
 *
 * Sending: dj_endpoint_send() copies the header; the pieces must stay until `done` was called (or the
 * call returned DJ_OK at once). An endpoint that failed reports DJ_ERR_PEER_DIED for what was
 * outstanding; dj_endpoint_close() forces it down and never waits for the peer.
 *
 * Transports: shm only where the peer's host identity and uid equal ours (another uid's shared memory
 * is refused at attach and UCX does not fall back), else tcp (and RDMA where found).
 *
 * Threads: everything from the owner of the comm, except dj_comm_wake(). */
#ifndef DJ_COMM_ENDPOINT_H
#define DJ_COMM_ENDPOINT_H

#include <stddef.h>

#include "comm/messages.h"
#include "comm/path.h"

typedef struct dj_comm dj_comm_t;
typedef struct dj_endpoint dj_endpoint_t;

#define DJ_PIECES_MAX 64

typedef struct dj_piece {
    const void *data;
    uint64_t bytes;
} dj_piece_t;

/* See above. `header` is a dj_header_t followed by the message's struct, aligned to 8. For the first
 * call of a rendezvous message `payload` is NULL with payload_bytes > 0: set *memory_p (and *token_p,
 * given back with the second call) and return DJ_OK, or *token_p and DJ_IN_PROGRESS, or refuse. `failed`
 * marks a rendezvous that will not arrive (second call with payload NULL): give the memory back. */
typedef struct dj_incoming {
    const dj_header_t *header;
    const void *body;      /* the message's struct, right after the header */
    const void *payload;
    uint64_t payload_bytes;
    bool rendezvous, failed;
    bool corrupt; /* its checksum does not fit what arrived: nothing but the header may be believed, and that
                   * only to tell the sender */
    void *token;
    void *hold; /* of a rendezvous's first call */
} dj_incoming_t;

typedef dj_status_t (*dj_message_fn_t)(void *context, const dj_incoming_t *incoming,
                                       void **memory_p, void **token_p);
typedef void (*dj_sent_fn_t)(void *argument, dj_status_t status);

typedef struct dj_comm_options {
    bool shared_memory; /* offer shm lanes */
    uint32_t batch_bytes; /* small messages of one round to one peer leave together up to this; 0: never */
    bool loopback_only; /* tcp on the loopback interface alone: for servers that listen there */
    const char *net_devices; /* as UCX_NET_DEVICES, which wins; NULL or "": UCX chooses */
    dj_message_fn_t on_message;
    void *context;
} dj_comm_options_t;

typedef struct dj_comm_counters {
    uint64_t messages_in, messages_out, bytes_in, bytes_out, rendezvous_in, rendezvous_out;
    uint64_t batches_in, batches_out, corrupt;
    uint64_t refused; /* incoming messages that were malformed, or rendezvous that was refused */
} dj_comm_counters_t;

/* DJ_ERR_UNSUPPORTED when UCX has no usable transport, with UCX's reason. */
dj_status_t dj_comm_create(const dj_comm_options_t *options, dj_comm_t **comm_p);
void dj_comm_destroy(dj_comm_t *comm);
/* This worker's address to hand to a peer (with a checksum, for dj_endpoint_create()); shm lanes left
 * out when shared_memory is false. Owned by the comm. */
dj_status_t dj_comm_address(dj_comm_t *comm, const void **address_p, uint32_t *bytes_p);

/* Whether this UCX moves such memory at all. */
bool dj_comm_knows(const dj_comm_t *comm, dj_memory_kind_t kind);
/* Registers memory with every transport that can, until the comm ends: what is sent from it or received into
 * it is then found registered. Once a comm. DJ_ERR_UNSUPPORTED: UCX or a transport of it refuses; the sentence
 * says why. DJ_ERR_INVALID: the second time. */
dj_status_t dj_comm_map(dj_comm_t *comm, void *memory, uint64_t bytes, dj_memory_kind_t kind);

/* Receives a rendezvous that was answered with DJ_IN_PROGRESS; the second call follows, not from inside this
 * one. `hold` is void once that call was made (an endpoint that failed makes it too). */
void dj_comm_accept(dj_comm_t *comm, void *hold, void *memory);

/* Between the two, small messages to one peer may leave together (comm/batch.c); inside
 * dj_comm_progress() that is so without asking. They nest. */
void dj_comm_cork(dj_comm_t *comm);
void dj_comm_uncork(dj_comm_t *comm);

/* Handles what is there; returns how many events were handled. */
unsigned dj_comm_progress(dj_comm_t *comm);
/* A descriptor that becomes readable when there may be work, after dj_comm_arm() returned true (false:
 * work is here or dj_comm_wake() was called: look, progress, then arm again). */
int dj_comm_fd(dj_comm_t *comm);
bool dj_comm_arm(dj_comm_t *comm);
/* True while closed endpoints still have something outstanding to report. */
bool dj_comm_draining(const dj_comm_t *comm);
/* Waits until what was sent is the network's: the process may end then. Tunnels are their carrier's. */
void dj_comm_flush(dj_comm_t *comm, uint64_t deadline_ns);
/* Ends a wait of the owner, from any thread. */
void dj_comm_wake(dj_comm_t *comm);
/* Progress with spin_ns of polling, then sleep up to timeout_ms. Returns at the first event. */
void dj_comm_wait(dj_comm_t *comm, uint64_t spin_ns, int timeout_ms);
void dj_comm_counters(const dj_comm_t *comm, dj_comm_counters_t *counters);

/* `address` as the peer's dj_comm_address() gave it. Does not wait. DJ_ERR_PROTOCOL (not an address),
 * DJ_ERR_VERSION (UCX of another major version), DJ_ERR_CONNECT (no common transport), DJ_ERR_MEMORY.
 * Not from inside a handler. One endpoint at a time between two comms; after one that failed make a new
 * comm on one side. */
dj_status_t dj_endpoint_create(dj_comm_t *comm, const void *address, uint32_t address_bytes,
                               dj_endpoint_t **endpoint_p);
/* The endpoint is gone for the caller at once. What is outstanding (`done` of sends, `failed` of
 * rendezvous) is reported by the following calls of dj_comm_progress(), within 100 ms (600 when it was
 * still being wired) and without the peer's help, or by dj_comm_destroy(). May be called from a handler
 * or `done`. */
void dj_endpoint_close(dj_endpoint_t *endpoint);
/* As if UCX had reported the peer's death: what is outstanding is reported lost, in the time that a
 * close takes. While wiring only the kept sends are given up, at once, and the wire-up goes on. The
 * endpoint stays its owner's, who closes it. */
void dj_endpoint_fail(dj_endpoint_t *endpoint);
/* Wire-up is complete. Sends before that are kept and go out in order; no need to wait. */
bool dj_endpoint_ready(const dj_endpoint_t *endpoint);
bool dj_endpoint_failed(const dj_endpoint_t *endpoint);
/* From now on every message to this peer carries a checksum; those that arrive with one are checked anyway. */
void dj_endpoint_set_checksum(dj_endpoint_t *endpoint, bool on);

/* `header` is dj_header_t plus struct, header_bytes long (at most DJ_ENDPOINT_HEADER_MAX).
 * DJ_OK: sent, `done` is not called. DJ_IN_PROGRESS: `done` will be. Else a failure. */
dj_status_t dj_endpoint_send(dj_endpoint_t *endpoint, const void *header, uint32_t header_bytes,
                             const dj_piece_t *pieces, uint32_t n_pieces, dj_sent_fn_t done,
                             void *argument);

#endif
