/* messages.h - contract 4: the whole protocol: every message, every struct, every limit.
 *
 * Two channels join a client and a rank, and a rank and the coordinator:
 *   control  a TCP stream of frames (dj_frame_t, then `length` bytes). It carries the hello, proof of
 *            the token, heartbeats, and hands out UCX worker addresses. Its end is the death signal.
 *   data     UCX active messages, id 0 for all: dj_header_t and the message's struct are the active
 *            message's header, everything of variable length is its payload. Payloads above UCX's
 *            rendezvous threshold land straight in planned memory: a session's ingress, a block of
 *            Data, a draft of Text, the buffer a client fetches into.
 * There is no ucp_listener: 64 stray bytes abort UCX 1.13 there.
 *
 * Order: the server speaks first (CHALLENGE: version and nonce), the peer answers HELLO with a proof
 * keyed by the token over nonce and hello, so no token crosses the wire; then WELCOME, REDIRECT (rank 0
 * sends the client on to the worker it chose, with a grant) or REFUSE with a status and a sentence.
 * Everything else before WELCOME is refused.
 *
 * Identity: a session id is 64 random bits; every data message carries it with the session's
 * generation (raised when a lost client re-attaches), so that a late message of a dead incarnation is
 * dropped. Sequence numbers rise by one a message a direction. A request id is answered exactly once: a
 * repeat gets the kept answer. Requests of one session run in order. A request marked QUIET is answered
 * only when it fails; the answer of a later one that is not tells that it is done.
 *
 * A ref names a storage of the session: low 32 bits an index that the client manages, high 32 bits a
 * random tag. The server checks both; a stale tag is DJ_ERR_STALE.
 *
 * Nothing a peer sends is believed: lengths are checked against the frame or payload they arrived in
 * and against the limits below, then every number against the object it concerns.
 *
 * All structs are little-endian, naturally aligned, without holes, and of fixed size. */
#ifndef DJ_COMM_MESSAGES_H
#define DJ_COMM_MESSAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "planner/program.h"
#include "runtime/base/hash.h"
#include "runtime/base/status.h"

enum {
    DJ_FRAME_MAGIC = 0x434e4a44,  /* "DJNC" */
    DJ_HEADER_MAGIC = 0x444e4a44, /* "DJND" */
    DJ_PROTOCOL_VERSION = 5,
};

/* Every limit of the protocol. X(name, value, what it bounds) */
#define DJ_LIMIT_LIST(X) \
    X(DJ_FRAME_BYTES_MAX, 24 << 20, "a control frame's body (a published plan is the largest)") \
    X(DJ_HELLO_BYTES_MAX, 8192, "a control frame's body before the hello is accepted") \
    X(DJ_ADDRESS_BYTES_MAX, 4096, "a worker address in HELLO or WELCOME") \
    X(DJ_ENDPOINT_TEXT_MAX, 64, "a `host:port`, terminator included") \
    X(DJ_ENDPOINT_HEADER_MAX, 256, "a data message's header and struct") \
    X(DJ_ERROR_TEXT_MAX, 512, "a sentence in REFUSE, terminator included") \
    X(DJ_EXEC_SEGMENTS_MAX, 256, "segments of one EXEC") \
    X(DJ_EXEC_BINDINGS_MAX, 65536, "inputs, and outputs, of one segment") \
    X(DJ_EXEC_RELEASES_MAX, 65536, "refs released by one EXEC") \
    X(DJ_EXEC_FETCHES_MAX, 1024, "fetches of one EXEC") \
    X(DJ_EXEC_META_BYTES_MAX, 32 << 20, "an EXEC's payload before its immediate bytes") \
    X(DJ_LOAD_PATH_MAX, 4096, "bytes of a LOAD's path") \
    X(DJ_LOAD_NAME_MAX, 512, "bytes of a tensor's name") \
    X(DJ_LOAD_TENSORS_MAX, 4096, "tensors of one LOAD") \
    X(DJ_REFS_MAX, 1 << 20, "refs of one session") \
    X(DJ_REQUESTS_MAX, 1024, "unanswered requests of one session (the credit)") \
    X(DJ_SHOWN_MAX, 4096, "programs of one session that both sides remember") \
    X(DJ_SAFETENSORS_HEADER_MAX, 100 << 20, "bytes of a safetensors file's header") \
    X(DJ_DEADLINE_MS_MAX, 1 << 30, "milliseconds a request may ask for") \
    X(DJ_PUT_PARTS_MAX, 4096, "parts of one PUT") \
    X(DJ_BATCH_BYTES_MAX, 1536, "a BATCH's payload") \
    X(DJ_TUNNEL_PART_BYTES_MAX, 256 << 10, "payload bytes in one TUNNEL frame") \
    X(DJ_TUNNEL_MESSAGE_BYTES_MAX, 1 << 30, "payload of a data message that travels in TUNNEL frames") \
    X(DJ_RANKS_MAX, 4096, "ranks of one server") \
    X(DJ_OPS_MAX, 512, "ops of the table: a bit each in a WELCOME") \
    X(DJ_GROUP_BYTES_MAX, 1 << 30, "payload of one collective") \
    X(DJ_GROUP_PUBLISH_BYTES_MAX, 24 << 20, "payload of one publication to a group")

enum {
#define X(name, value, text) name = (value),
    DJ_LIMIT_LIST(X)
#undef X
};

/* X(name, value, struct, channel, text) */
#define DJ_MESSAGE_LIST(X)                                                                         \
    X(CHALLENGE, 1, dj_challenge_t, CONTROL, "server to peer: version, nonce")                     \
    X(HELLO, 2, dj_hello_t, CONTROL, "peer to server: who, which tables, proof of the token")      \
    X(WELCOME, 3, dj_welcome_t, CONTROL, "server to peer: session and UCX address")                \
    X(REDIRECT, 4, dj_redirect_t, CONTROL, "coordinator to client: the worker to use, a grant")    \
    X(REFUSE, 5, dj_refuse_t, CONTROL, "server to peer: status and sentence, then the end")        \
    X(HEARTBEAT, 6, dj_heartbeat_t, CONTROL, "both ways: alive")                                   \
    X(CLOSE, 7, dj_close_t, CONTROL, "client to worker: end the session now")                      \
    X(REGISTER, 8, dj_register_t, CONTROL, "worker to coordinator: where and what it is")          \
    X(REPORT, 9, dj_report_t, CONTROL, "worker to coordinator: sessions and counters")             \
    X(PLAN, 10, dj_plan_message_t, CONTROL, "a plan on its way to the ranks of its class")         \
    X(INFO, 11, dj_info_t, CONTROL, "tool to server: describe yourself")                           \
    X(INFO_REPLY, 12, dj_info_reply_t, CONTROL, "server to tool: JSON")                            \
    X(ROSTER, 13, dj_roster_t, CONTROL, "coordinator to worker: where a rank is, or that it is gone") \
    X(TUNNEL, 14, dj_tunnel_t, CONTROL, "both ways: a part of a data message, for clients with one port") \
    X(ENDING, 15, dj_ending_t, CONTROL, "rank to all it serves, worker to coordinator: it ends")      \
    X(MUSTER, 16, dj_muster_t, CONTROL, "supervisor to rank 0's: who is here and what it can mind") \
    X(CREW, 17, dj_crew_t, CONTROL, "supervisor to supervisor: seats, ranks that serve, the end")  \
    X(EXEC, 32, dj_exec_t, DATA, "client to worker: segments to run, refs to drop, bytes to fetch") \
    X(UPLOAD, 33, dj_upload_t, DATA, "client to worker: bytes for a new ref")                      \
    X(LOAD, 34, dj_load_t, DATA, "client to worker: read weights from a file")                     \
    X(RESULT, 35, dj_result_t, DATA, "worker to client: the answer to any of these")             \
    X(WIRE, 36, dj_wire_t, DATA, "both ways: ends an endpoint's wire-up; never reaches a handler") \
    X(PUT, 37, dj_put_t, DATA, "client to worker: bytes into refs that exist, or small new refs")  \
    X(MOVE, 38, dj_move_t, DATA, "client to worker: a new ref, filled from another worker")        \
    X(PULL, 39, dj_pull_t, DATA, "worker to worker: asks for the bytes of a client's ref")         \
    X(BATCH, 40, dj_batch_t, DATA, "both ways: small messages in one; taken apart before a handler") \
    X(GROUP, 41, dj_group_step_t, DATA, "rank to rank: one step of a collective") \
    X(PART, 42, dj_part_t, DATA, "worker to worker: some of the bytes that a PULL asked for")

typedef enum dj_message {
#define X(name, value, type, channel, text) DJ_MESSAGE_##name = (value),
    DJ_MESSAGE_LIST(X)
#undef X
} dj_message_t;

/* ---- control ---- */

typedef struct dj_frame {
    uint32_t magic;
    uint16_t version, type;
    uint32_t length; /* of the body that follows */
    uint32_t sequence;
} dj_frame_t;

typedef enum dj_role {
    DJ_ROLE_CLIENT = 1,
    DJ_ROLE_WORKER = 2,
    DJ_ROLE_TOOL = 3,
    DJ_ROLE_PEER = 4, /* a rank that opens a link for data to this one */
    DJ_ROLE_SUPERVISOR = 5, /* at rank 0: is sent on to its supervisor's lifeline; there: wants seats */
} dj_role_t;

typedef struct dj_challenge {
    uint8_t nonce[32];
    uint32_t rank, incarnation;
} dj_challenge_t;

/* Then address_bytes of UCX worker address (clients). `proof` is keyed by the token over the nonce
 * and this struct with a zeroed proof and everything after it. */
typedef struct dj_hello {
    uint8_t proof[DJ_PROOF_BYTES];
    uint32_t role;
    uint32_t uid;
    uint32_t pid;
    uint32_t address_bytes;
    uint64_t host;       /* hash of boot id and IPC namespace: equal means shared memory works */
    dj_hash_t op_table;  /* clients and workers */
    uint64_t session;    /* to re-attach, or as granted by the coordinator; 0: a new one */
    uint32_t generation; /* with session to re-attach: the last one known */
    uint32_t flags;      /* DJ_HELLO_* */
    uint64_t grant_expires_ms; /* of CLOCK_REALTIME; 0 without a grant */
    uint8_t grant[DJ_PROOF_BYTES];
    uint32_t qos_class, deadline_ms;
    uint32_t features;          /* DJ_FEATURE_*: what this side wants */
    uint32_t rank, incarnation; /* of a PEER: its own; of a client: the wanted rank, or DJ_RANK_ANY */
    uint32_t reserved;
} dj_hello_t;

#define DJ_RANK_ANY UINT32_MAX

/* Agreed in the WELCOME: what either side wants. */
enum {
    DJ_FEATURE_CHECKSUM = 1, /* every data message carries dj_header_t.checksum, and it is checked */
    DJ_FEATURES_KNOWN = DJ_FEATURE_CHECKSUM,
};

enum {
    DJ_HELLO_TCP_ONLY = 1, /* the client asks for tcp although the host is shared */
    DJ_HELLO_REATTACH = 2,
    DJ_HELLO_DIRECT = 4, /* no redirection: talk to this rank or refuse */
    DJ_HELLO_RELAY = 8,  /* this connection is all there is: data travels in TUNNEL frames (no UCX address);
                          * rank 0 passes the connection on to a worker, whose CHALLENGE comes next */
    DJ_HELLO_DEVICE = 16, /* a PEER's tensors lie in device memory */
};

/* Whether the lanes of shared memory are used. */
enum {
    DJ_SHARED_NO = 0,
    DJ_SHARED_YES = 1,
    DJ_SHARED_OTHER_USER = 2, /* they must not be: a client that offered them comes again without */
};

/* Then address_bytes of UCX worker address. */
typedef struct dj_welcome {
    uint64_t session;
    uint32_t generation;
    uint32_t rank, incarnation;
    uint32_t heartbeat_ms; /* the longest time between two heartbeats of this rank; each is answered */
    uint32_t suspect_ms;   /* silence after which it takes the peer for dead */
    uint32_t address_bytes;
    uint32_t credits;    /* requests in flight that the worker accepts */
    uint32_t shared_memory; /* DJ_SHARED_* */
    uint64_t host;
    dj_hash_t device_class;
    uint64_t credit_bytes; /* payload in flight that the worker accepts: its ingress limit */
    uint32_t features;     /* DJ_FEATURE_* from here on */
    uint32_t flags;        /* to a PEER: DJ_HELLO_DEVICE of this rank */
    uint64_t ops[DJ_OPS_MAX / 64]; /* to clients: op n has a kernel on this rank if bit n % 64 of n / 64 is set */
} dj_welcome_t;

typedef struct dj_redirect {
    uint64_t session; /* granted */
    uint32_t rank, incarnation;
    char endpoint[DJ_ENDPOINT_TEXT_MAX]; /* host:port, terminated */
    uint64_t grant_expires_ms;
    uint8_t grant[DJ_PROOF_BYTES]; /* keyed by the token over session, rank, incarnation, expiry, uid */
} dj_redirect_t;

typedef struct dj_refuse {
    int32_t status;
    uint32_t reserved;
    char text[DJ_ERROR_TEXT_MAX]; /* terminated */
} dj_refuse_t;

typedef struct dj_heartbeat {
    uint64_t sent_ns; /* sender's clock, echoed nowhere: for logs */
} dj_heartbeat_t;

typedef struct dj_close {
    uint64_t session;
    uint32_t generation;
    uint32_t reserved;
} dj_close_t;

typedef struct dj_register {
    uint32_t rank, incarnation;
    uint32_t pid;
    uint32_t threads;
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    char device[64];
    dj_hash_t device_class;
    uint64_t memory_bytes;
} dj_register_t;

/* Counters of one rank, as `djinn info` shows them. */
typedef struct dj_report {
    uint64_t sessions, detached;
    uint64_t requests, messages_in, messages_out, bytes_in, bytes_out;
    uint64_t plan_hits, plan_resizes, plan_misses, plan_received, plan_adopted, plan_rejected;
    uint64_t text_entries, text_bytes, pack_bytes, text_mapped_bytes, text_shared; /* mapped: in whole pages, both */
    uint64_t data_bytes, data_backed_bytes, stack_bytes, stack_peak_bytes, ingress_bytes;
    uint64_t refs;
    uint64_t busy_ns, planning_ns;
    uint64_t refused, stale;
    uint64_t peak_checks, peak_mismatches; /* with poison on */
    uint64_t links, moves; /* open links to other ranks; MOVEs that were answered well */
    uint64_t direct_bytes; /* that travelled to or from device memory without host memory between */
    uint64_t plan_loaded, plan_improved, plan_evicted;
    uint64_t plan_entries, plan_bytes; /* now */
    uint64_t gpu_known; /* dj_telemetry_field_t of gpu/device.h: which of the following say anything */
    uint64_t gpu_utilization_percent, gpu_temperature_c, gpu_power_mw;
    uint64_t gpu_memory_used_bytes, gpu_memory_total_bytes; /* by all processes; of the GPU */
    uint64_t gpu_ecc_corrected, gpu_ecc_uncorrected;
    uint64_t gpu_xid, gpu_xids; /* the latest critical error, and how many there were */
} dj_report_t;

/* Then structure, sizes and plan bytes. */
typedef struct dj_plan_message {
    dj_hash_t exact_key, device_class;
    uint32_t structure_bytes, sizes_bytes, plan_bytes, origin_rank;
} dj_plan_message_t;

typedef struct dj_info {
    uint32_t flags;
    uint32_t reserved;
} dj_info_t;

/* Then text_bytes of JSON. */
typedef struct dj_info_reply {
    uint32_t text_bytes;
    uint32_t reserved;
} dj_info_reply_t;

/* endpoint empty: the rank is gone. */
typedef struct dj_roster {
    uint32_t rank, incarnation;
    char endpoint[DJ_ENDPOINT_TEXT_MAX]; /* of its control socket, terminated */
} dj_roster_t;

/* The sender ends: it takes nothing new, and answers what it has accepted as far as drain_ms allow. From rank 0 to
 * a worker: end too. */
typedef struct dj_ending {
    uint32_t drain_ms;
    int32_t status; /* of whatever it does not answer any more */
    char text[DJ_ERROR_TEXT_MAX]; /* terminated */
} dj_ending_t;

/* The first frame behind the hello of a lifeline (launcher/head.h). Texts are terminated. */
typedef struct dj_muster {
    uint64_t member;               /* a random name of this supervisor, the same when it comes again */
    uint32_t task;                 /* of the launcher; DJ_TASK_NONE: it joins by itself */
    uint32_t tasks_here;           /* of the launcher on its node */
    uint32_t capacity;             /* workers it can mind; 0 of one that joins: as many as were lost together */
    uint32_t first_rank, n_ranks;  /* that it minds already: it comes again after a cut; else 0 */
    uint32_t pid;
    char version[32], node[64];
} dj_muster_t;

#define DJ_TASK_NONE UINT32_MAX

typedef enum dj_crew_kind {
    DJ_CREW_SEAT = 1,   /* to a member: mind `rank`, begin at `incarnation`; `value` more seats follow */
    DJ_CREW_START = 2,  /* to a member: all ranks serve */
    DJ_CREW_END = 3,    /* to a member: the server ends */
    DJ_CREW_SERVES = 4, /* from a member: `rank` serves in `incarnation` */
    DJ_CREW_LOST = 5,   /* from a member: `rank` is given up, after `incarnation` */
    DJ_CREW_DONE = 6,   /* from a member: its command ended with `value` */
    DJ_CREW_STARTS = 7, /* from a member: `rank` is about to be started as `incarnation` */
} dj_crew_kind_t;

typedef struct dj_crew {
    uint32_t kind; /* dj_crew_kind_t */
    uint32_t rank, incarnation;
    int32_t value;
    uint32_t ranks; /* SEAT: of the whole server */
    uint32_t reserved;
} dj_crew_t;

/* Then header_bytes of the data message's header (with its struct; only where offset is 0), then bytes of
 * its payload. The parts of one message follow one another; offset counts payload bytes. */
typedef struct dj_tunnel {
    uint64_t payload_bytes; /* of the whole message */
    uint64_t offset;
    uint32_t header_bytes;
    uint32_t bytes;
} dj_tunnel_t;

/* ---- data ---- */

typedef struct dj_header {
    uint32_t magic;
    uint16_t version, type;
    uint64_t session;
    uint32_t generation, sequence;
    uint64_t request;
    uint64_t checksum; /* XXH3 of header (this field 0), struct and payload where agreed; else 0 */
} dj_header_t;

/* Payload: releases (u64 refs), then each segment: dj_segment_header_t, inputs (dj_binding_t), outputs
 * (u64 refs, 0: not kept, never for listed outputs), scalars (u64), sizes (padded to 8), structure
 * (padded to 8); then fetches (dj_fetch_t); then, at data_offset (a multiple of 64), immediate bytes up to
 * the payload's end. With no immediate bytes data_offset is 0 or lies within the last padding. */
typedef struct dj_exec {
    uint32_t n_segments, n_releases, n_fetches;
    uint32_t flags; /* DJ_EXEC_* */
    uint64_t data_offset, data_bytes;
    uint64_t deadline_ms; /* from arrival; 0: the server's default */
} dj_exec_t;

enum {
    DJ_EXEC_QUIET = 1, /* releases only; answered only when it fails */
};

typedef struct dj_segment_header {
    dj_hash_t program_key, exact_key;
    uint32_t structure_bytes; /* 0: the session sent this structure before */
    uint32_t sizes_bytes;     /* 0 and no DJ_SEGMENT_SIZES: the session sent this exact key before */
    uint32_t n_inputs, n_outputs, n_scalars;
    uint32_t flags;           /* DJ_SEGMENT_* */
} dj_segment_header_t;

enum {
    DJ_SEGMENT_SIZES = 1,     /* sizes are present (they may be empty) */
    DJ_SEGMENT_STRUCTURE = 2, /* structure is present */
};

/* What stands behind an input: an existing ref, or `bytes` of immediate data at `offset` of the data
 * region, which become a new ref if `ref` is not 0. */
typedef struct dj_binding {
    uint64_t ref;
    uint64_t offset; /* DJ_BINDING_REF: an existing ref */
    uint64_t bytes;
} dj_binding_t;
#define DJ_BINDING_REF UINT64_MAX

/* Bytes to return, in order, one after the other without padding. */
typedef struct dj_fetch {
    uint64_t ref;
    uint64_t offset, bytes;
} dj_fetch_t;

/* Payload: `bytes` bytes. */
typedef struct dj_upload {
    uint64_t ref; /* new */
    uint64_t bytes;
    uint32_t flags; /* DJ_UPLOAD_* */
    uint32_t reserved;
} dj_upload_t;

enum {
    DJ_UPLOAD_WEIGHT = 1, /* into Text: hashed, sealed, shared */
    DJ_UPLOAD_EMPTY = 2,  /* no payload: the ref is made, PUTs fill it */
};

/* Payload: path_bytes of absolute path, then for each tensor: u64 ref, u32 name_bytes, name. */
typedef struct dj_load {
    uint32_t path_bytes, n_tensors;
} dj_load_t;

/* Payload of a LOAD's answer: n of these. */
typedef struct dj_loaded {
    uint64_t bytes;
    uint32_t dtype, rank;
    int64_t sizes[DJ_RANK_MAX];
    uint32_t shared; /* 1: the content was in Text already */
    uint32_t reserved;
} dj_loaded_t;

/* Payload: the fetched bytes, or with a negative status the sentence. */
typedef struct dj_result {
    int32_t status;
    uint32_t segment;   /* with a negative status: the segment that failed; UINT32_MAX: none */
    uint64_t bytes;     /* of payload */
    uint32_t plan_hits, plan_resizes, plan_misses, reserved;
    uint64_t run_ns, planning_ns, queue_ns; /* where the time went, on the worker */
    uint64_t stack_peak_bytes;
} dj_result_t;

/* With n_parts 0: `bytes` of payload into `ref` at `offset`. Else the payload is n_parts of dj_put_part_t,
 * then at a multiple of 64 the bytes of the parts, each one at the next multiple of 64; ref, offset and
 * bytes are 0. */
typedef struct dj_put {
    uint64_t ref, offset, bytes;
    uint32_t n_parts;
    uint32_t flags; /* DJ_PUT_* */
} dj_put_t;

enum {
    DJ_PUT_QUIET = 1, /* answered only when it fails */
};

typedef struct dj_put_part {
    uint64_t ref, offset, bytes;
    uint32_t flags; /* DJ_PART_* */
    uint32_t reserved;
} dj_put_part_t;

enum {
    DJ_PART_NEW = 1,    /* the ref is made here, of `bytes` */
    DJ_PART_WEIGHT = 2, /* with NEW: into Text */
};

/* A new ref of `bytes` bytes, a copy of what `source_ref` of the client's session on another rank holds at
 * source_offset. The worker pulls it; the client's only part is to name it. */
typedef struct dj_move {
    uint64_t ref, bytes;
    uint64_t source_session, source_ref, source_offset;
    uint32_t source_generation, source_rank;
} dj_move_t;

/* The header's session is 0 and its request the puller's own number; the answer is a RESULT with the bytes
 * as payload, or, where there are many, PARTs. Knowing session, generation and tag is the right to read: no one
 * but the client does. */
typedef struct dj_pull {
    uint64_t session, ref, offset, bytes;
    uint64_t part_bytes; /* more bytes than these come in PARTs of so many; 0: the source decides */
    uint32_t generation;
    uint32_t rank; /* of the puller: the answer goes over the link with it */
} dj_pull_t;

/* The header is that of the PULL's RESULT. Parts come in the order of their offsets, without gaps, and the last one
 * ends the PULL; a RESULT with a status may come in the place of those that are left. Payload: `bytes` bytes. */
typedef struct dj_part {
    uint64_t offset, bytes; /* of what the PULL asked for */
} dj_part_t;

#define DJ_MOVE_PART_BYTES (4ull << 20)

/* Payload: n_messages times u32 header_bytes, u32 payload_bytes, header, payload, both padded
 * to 8. No BATCH inside a BATCH. */
typedef struct dj_batch {
    uint32_t n_messages;
    uint32_t reserved;
} dj_batch_t;

/* comm/group.h: what a member sends along its tree. The payload is a part of the collective's bytes. */
typedef struct dj_group_step {
    uint64_t round;         /* number of the collective in its group, or of the publication at its origin */
    uint64_t bytes, offset; /* of the whole payload (GATHER: of one member); of this part */
    uint32_t kind;          /* dj_group_kind_t */
    uint32_t step;          /* dj_group_step_kind_t (comm/group_state.h) */
    uint32_t from, root;    /* members */
    uint64_t missing[2];    /* how many members are missing by what the sender knows; which is the first */
} dj_group_step_t;

/* The first message of an endpoint, and its echo: `endpoint` is the sender's name for it. Nothing else
 * is sent before the echo arrived, because UCX 1.13 aborts on a rendezvous during wire-up. */
typedef struct dj_wire {
    uint64_t endpoint;
    uint32_t echo; /* 0: asks, 1: answers */
    uint32_t reserved;
} dj_wire_t;

/* ---- helpers ---- */

const char *dj_message_name(uint16_t type); /* "EXEC"; "?" when unknown */
/* Size of the fixed struct of a message; 0 for an unknown type. */
uint32_t dj_message_struct_bytes(uint16_t type);

/* Fills magic, version and the rest. */
void dj_frame_init(dj_frame_t *frame, dj_message_t type, uint32_t length, uint32_t sequence);
/* Magic, version, known type of the control channel, length within the type's limits (and within
 * DJ_HELLO_BYTES_MAX when `authenticated` is false). DJ_ERR_PROTOCOL, DJ_ERR_VERSION, DJ_ERR_LIMIT. */
dj_status_t dj_frame_check(const dj_frame_t *frame, int authenticated);
/* The same for the data channel: header_bytes as received, and the message's struct inside it. */
dj_status_t dj_header_check(const void *header, uint64_t header_bytes);

/* One decoded segment; pointers lead into the payload. */
typedef struct dj_exec_segment {
    dj_segment_header_t header;
    const dj_binding_t *inputs;
    const uint64_t *outputs;
    const uint64_t *scalars;
    const uint8_t *sizes;
    const uint8_t *structure;
} dj_exec_segment_t;

/* A decoded EXEC body. `segments` is caller-owned room for exec->n_segments (checked here first). */
typedef struct dj_exec_body {
    const uint64_t *releases;
    const dj_fetch_t *fetches;
    const uint8_t *data;
} dj_exec_body_t;

/* Bounds every count and length against the payload (8-byte aligned by the caller) and the limits.
 * DJ_ERR_PROTOCOL or DJ_ERR_LIMIT with a sentence. */
dj_status_t dj_exec_decode(const dj_exec_t *exec, const void *payload, uint64_t payload_bytes,
                           dj_exec_segment_t *segments, uint32_t segments_room,
                           dj_exec_body_t *body);

/* A PUT's struct and the size of its payload, before any of it has arrived. DJ_ERR_PROTOCOL,
 * DJ_ERR_LIMIT. */
dj_status_t dj_put_check(const dj_put_t *put, uint64_t payload_bytes);
/* And its table of parts, which leads into the payload (8-byte aligned by the caller; untouched when
 * n_parts is 0). The first part's bytes lie at dj_put_data_offset(), the next one's at
 * dj_put_next_offset(). */
dj_status_t dj_put_decode(const dj_put_t *put, const void *payload, uint64_t payload_bytes,
                          const dj_put_part_t **parts_p);
uint64_t dj_put_data_offset(uint32_t n_parts);
uint64_t dj_put_next_offset(uint64_t at, const dj_put_part_t *part);

/* One message of a BATCH's payload, from *at_p, which moves on; it is not yet dj_header_check()ed. */
typedef struct dj_batch_item {
    const void *header, *payload;
    uint32_t header_bytes, payload_bytes;
} dj_batch_item_t;
dj_status_t dj_batch_next(const void *payload, uint64_t payload_bytes, uint64_t *at_p,
                          dj_batch_item_t *item);

/* proof = keyed hash over nonce, hello with zeroed proof, tail. */
void dj_hello_prove(uint8_t proof[DJ_PROOF_BYTES], const uint8_t token[32], const uint8_t nonce[32],
                    const dj_hello_t *hello, const void *tail, uint32_t tail_bytes);
void dj_grant_prove(uint8_t proof[DJ_PROOF_BYTES], const uint8_t token[32], uint64_t session,
                    uint32_t rank, uint32_t incarnation, uint64_t expires_ms, uint32_t uid);

#endif
