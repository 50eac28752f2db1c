/* ucx.h - what comm's files share: the objects behind dj_comm_t and dj_endpoint_t. Private to
 * comm/.
 *
 *   ucx.c       settings, logging, signals, context and statuses of UCX
 *   comm.c      the worker: progress, waiting, waking, the tending of endpoints
 *   endpoint.c  wire-up, sending, failing, closing
 *   address.c   worker addresses as they travel
 *   incoming.c  the one active-message handler, rendezvous
 *
 * Operations that UCX has not finished (sends, rendezvous receives) are dj_operation_t, from a pool
 * of the comm: an operation given up by its endpoint stays allocated until UCX hands it back, so a
 * late callback finds an orphan and never freed memory. */
#ifndef DJ_COMM_UCX_H
#define DJ_COMM_UCX_H

#include <stdatomic.h>
#include <ucp/api/ucp.h>

#include "comm/endpoint.h"
#include "runtime/base/table.h"

/* Payloads from here on go by rendezvous into memory that the receiver names. */
#define DJ_RENDEZVOUS_BYTES (32u << 10)
/* Small payloads of several pieces are gathered here: one piece has UCX's fastest path. */
#define DJ_GATHER_BYTES DJ_BATCH_BYTES_MAX

typedef enum dj_operation_kind {
    DJ_OPERATION_SEND,
    DJ_OPERATION_RECEIVE,
} dj_operation_kind_t;

typedef struct dj_operation {
    struct dj_operation *next,
        *previous; /* of the endpoint's list; `next` alone in pool and queue */
    struct dj_comm *comm;
    struct dj_endpoint *endpoint; /* NULL: orphan, or an echo of WIRE */
    uint8_t kind;
    uint32_t header_bytes, n_pieces;
    uint64_t payload_bytes;
    dj_sent_fn_t done;
    void *argument; /* of done; a receive's token */
    void *memory;   /* of a receive */
    void *descriptor; /* of a receive not yet accepted */
    struct dj_operation *next_ended; /* receives that ended inside dj_comm_accept() */
    bool arrived;
    _Alignas(64) uint8_t header[DJ_ENDPOINT_HEADER_MAX];
    union {
        ucp_dt_iov_t pieces[DJ_PIECES_MAX];
        uint8_t gathered[DJ_GATHER_BYTES];
    };
} dj_operation_t;

typedef struct dj_operation_block {
    struct dj_operation_block *next;
    dj_operation_t operations[];
} dj_operation_block_t;

typedef enum dj_endpoint_state {
    DJ_ENDPOINT_WIRING, /* sends are queued until flush and echo are here */
    DJ_ENDPOINT_READY,
    DJ_ENDPOINT_FAILED,   /* told by UCX or by us; to be closed by the next tending */
    DJ_ENDPOINT_DRAINING, /* closed; UCX may still touch memory of what is outstanding */
    DJ_ENDPOINT_DEAD,     /* all reported */
} dj_endpoint_state_t;

struct dj_endpoint {
    struct dj_comm *comm;
    struct dj_endpoint *next; /* of the comm's list */
    ucp_ep_h ucp;             /* NULL when down */
    uint64_t id;
    uint8_t state;
    bool flushed, echoed; /* the halves of wire-up */
    bool closed;          /* the owner has let go */
    struct dj_channel *channel; /* NULL; else messages go that way and nothing here is UCX's (channel.c) */
    void *closing;        /* UCX's request, or NULL */
    uint64_t close_ns, drain_from_ns;
    uint32_t drain_rounds;
    dj_operation_t outstanding;            /* list head */
    dj_operation_t *queue, **queue_last_p; /* while wiring */
    bool checksum;
    uint64_t sent_round; /* batch.c: the last round in which a message left at once */
    dj_operation_t *batch;
    uint32_t batched, batch_bytes; /* messages, and bytes, gathered in it */
    dj_endpoint_t *next_batched;
};

struct dj_comm {
    ucp_context_h context;
    ucp_worker_h worker;
    dj_comm_options_t options;
    dj_comm_counters_t counters;
    ucp_address_t *ucp_address;
    uint8_t *address; /* as handed out: with our prefix */
    uint32_t address_bytes;
    bool host_memory_only;
    uint64_t memory_types; /* UCX's, those it knows */
    ucp_mem_h mapped;      /* or NULL */
    const uint8_t *mapped_base;
    uint64_t mapped_bytes;
    ucs_memory_type_t mapped_type;
    _Atomic bool attention; /* an endpoint has changed: tend it after this progress */
    uint64_t next_id;
    dj_endpoint_t *endpoints;
    dj_table_t by_ucp; /* ucp_ep_h → dj_endpoint_t */
    dj_operation_t *free_operations;
    dj_operation_block_t *blocks;
    dj_operation_t *ended;
    int fd;
    uint32_t corks;
    uint64_t round;
    dj_endpoint_t *batched;
    _Atomic bool armed, woken;
};

/* ---- ucx.c ---- */

/* Quiets UCX (its log goes to ours) and takes its handlers off the process's signals. Idempotent.
 */
void dj_ucx_setup(void);
dj_status_t dj_ucx_context_create(const dj_comm_options_t *options, ucp_context_h *context_p);
dj_status_t dj_ucx_status(ucs_status_t status);
ucs_status_t dj_ucx_refusal(dj_status_t status);

/* ---- address.c ---- */

/* Both results are the caller's to free. DJ_ERR_LIMIT, DJ_ERR_MEMORY; DJ_ERR_PROTOCOL,
 * DJ_ERR_VERSION. */
dj_status_t dj_address_wrap(const void *ucp_address, size_t bytes, uint8_t **wrapped_p,
                            uint32_t *wrapped_bytes_p);
dj_status_t dj_address_unwrap(const void *wrapped, uint32_t wrapped_bytes, void **ucp_address_p);

/* ---- comm.c ---- */

dj_operation_t *dj_operation_take(dj_comm_t *comm, dj_operation_kind_t kind); /* or NULL */
void dj_operation_give(dj_operation_t *operation);
static inline void dj_operation_link(dj_operation_t *head, dj_operation_t *operation)
{
    operation->next = head->next;
    operation->previous = head;
    head->next->previous = operation;
    head->next = operation;
}
static inline void dj_operation_unlink(dj_operation_t *operation)
{
    operation->previous->next = operation->next;
    operation->next->previous = operation->previous;
}

/* The kind of memory at `data`, so that UCX need not ask the driver for each message; UCS_MEMORY_TYPE_UNKNOWN: it must. */
static inline ucs_memory_type_t dj_comm_memory_type(const dj_comm_t *comm, const void *data)
{
    if ((uintptr_t)data - (uintptr_t)comm->mapped_base < comm->mapped_bytes)
        return comm->mapped_type;
    return comm->host_memory_only ? UCS_MEMORY_TYPE_HOST : UCS_MEMORY_TYPE_UNKNOWN;
}

/* ---- endpoint.c ---- */

/* One step of wiring, failing or draining; true when `endpoint` is dead and closed: free it. */
bool dj_endpoint_tend(dj_endpoint_t *endpoint, uint64_t now_ns);
/* Begins a flush, where there can be one; has it yet to end? */
void dj_endpoint_flush(dj_endpoint_t *endpoint);
bool dj_endpoint_flushing(const dj_endpoint_t *endpoint);
bool dj_endpoint_restless(const dj_endpoint_t *endpoint); /* needs tending without an event */
/* Reports everything outstanding as lost; UCX is done with it or will find orphans. */
void dj_endpoint_abandon(dj_endpoint_t *endpoint);
/* WIRE arrived. */
void dj_endpoint_wired(dj_comm_t *comm, const dj_header_t *header, const dj_wire_t *wire,
                       ucp_ep_h reply_to);

/* A kept operation (n_pieces 0: its payload is in `gathered`) leaves. DJ_OK: it has. */
dj_status_t dj_endpoint_post(dj_endpoint_t *endpoint, dj_operation_t *operation);

/* ---- batch.c ---- */

/* Whether a message of this size waits for the end of the round; then dj_batch_add(). */
bool dj_batch_wants(dj_endpoint_t *endpoint, uint32_t header_bytes, uint64_t payload_bytes);
void dj_batch_add(dj_endpoint_t *endpoint, const void *header, uint32_t header_bytes,
                  const dj_piece_t *pieces, uint32_t n_pieces, uint64_t payload_bytes);
void dj_batch_flush(dj_endpoint_t *endpoint);

/* ---- checksum.c ---- */

void dj_checksum_put(void *header, uint32_t header_bytes, const dj_piece_t *pieces,
                     uint32_t n_pieces);
bool dj_checksum_good(const void *header, uint32_t header_bytes, const void *payload,
                      uint64_t payload_bytes);

/* ---- incoming.c ---- */

ucs_status_t dj_incoming_handle(void *comm, const void *header, size_t header_bytes, void *data,
                                size_t bytes, const ucp_am_recv_param_t *parameters);
/* The second calls of receives that ended inside dj_comm_accept(). */
void dj_incoming_tend(dj_comm_t *comm);
/* The second call of a rendezvous that will not arrive. */
void dj_incoming_abandon(dj_operation_t *operation);

#endif
