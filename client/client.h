/* client.h - inside libdjinn: the connection, storages, recorders and requests.
 *
 * One lock a connection guards everything here; no call holds it while it sleeps. A recorder belongs to
 * one thread and holds what that thread has recorded and not yet sent: closed segments, then the open
 * one. A storage knows the segment that last touched it by serial number, so its number inside that
 * segment's program is found in constant time.
 *
 * What the session has shown the rank is mirrored: both sides keep the exact keys of the last
 * DJ_SHOWN_MAX programs in the order sent, so the client knows without asking whether a key alone will
 * do. */
#ifndef DJ_CLIENT_H
#define DJ_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>

#include "client/djinn.h"
#include "comm/channel.h"
#include "comm/control.h"
#include "comm/endpoint.h"
#include "comm/path.h"
#include "planner/bucket.h"
#include "planner/program.h"
#include "runtime/base/config.h"
#include "runtime/base/table.h"

enum {
    DJ_SEGMENT_NODES_MAX = 8192,         /* a longer segment is closed by itself */
    DJ_IMMEDIATE_BYTES_MAX = 64 << 10,   /* larger uploads leave at once, by rendezvous */
    DJ_GATHER_BYTES_MAX = 256 << 10,     /* immediates up to this sum are copied into one piece */
};

struct djinn_storage {
    djinn_t *djinn;
    atomic_uint references;
    uint64_t bytes;
    uint64_t ref;      /* 0: none on the rank yet */
    bool weight;       /* Text: reading it makes a WEIGHT input */
    char *name;        /* for snapshots; or NULL */
    void *immediate;   /* host copy that leaves with the segment that first uses it */
    struct dj_recorder *recorder; /* whose unsent segments know it, or NULL */
    uint64_t serial;   /* of the segment that knows it as number `local` */
    uint32_t local;
};

typedef struct dj_segment_storage {
    djinn_storage_t *storage; /* one reference */
    uint8_t role;             /* dj_segment_role_t */
    bool written;
} dj_segment_storage_t;

typedef enum dj_segment_role {
    DJ_ROLE_INPUT,     /* a ref the rank has */
    DJ_ROLE_IMMEDIATE, /* bytes that travel with the segment */
    DJ_ROLE_PRODUCED,
} dj_segment_role_t;

/* One segment: recorded, then closed with its keys, outputs and bindings. */
typedef struct dj_segment_record {
    struct dj_segment_record *next;
    uint64_t serial;
    dj_program_t program;
    dj_segment_storage_t *storages;
    uint32_t n_storages, room;
    dj_hash_t program_key, exact_key;
    dj_binding_t *inputs;
    uint64_t *outputs;
    uint32_t n_inputs, n_outputs, inputs_room, outputs_room;
    void **immediates; /* of inputs with immediate bytes, NULL elsewhere; owned */
} dj_segment_record_t;

typedef struct dj_recorder {
    struct dj_recorder *next;
    djinn_t *djinn;
    pthread_t thread;
    dj_segment_record_t *open;           /* NULL: nothing recorded */
    dj_segment_record_t *closed, **tail; /* in order */
    uint32_t n_closed;
    dj_operand_t *operands; /* scratch of one call */
    uint32_t operands_room;
} dj_recorder_t;

struct djinn_request {
    djinn_request_t *next_free;
    djinn_t *djinn;
    uint64_t id, deadline_ns;
    dj_status_t status; /* DJ_IN_PROGRESS until answered */
    char text[DJ_ERROR_TEXT_MAX];
    bool detached; /* nobody holds it: free when done, keep its error for the next caller */
    bool sending;
    bool receiving; /* UCX writes the answer: over, whatever comes before, when it has let go */
    dj_status_t verdict; /* what came before, or DJ_OK */
    bool quiet;    /* done when a later one is answered, unless its own failure is */
    bool *left_p; /* set when UCX has let go of the payload; or NULL */
    uint64_t sent_bytes; /* of payload, counted against the credit until it is done */
    djinn_request_t *owner;               /* this is a part of that transfer */
    djinn_request_t *riders, *next_rider; /* small puts that travel in this one */
    struct dj_transfer {                  /* of one without a message of its own: id 0 */
        uint8_t kind;                     /* dj_transfer_kind_t */
        bool cancelled;
        uint32_t open; /* messages under way */
        dj_status_t first;
        uint64_t next_bytes, done_bytes, total_bytes;
        djinn_storage_t *storage; /* one reference, in parts */
        uint64_t offset;          /* of the window in the storage */
        uint8_t *host;
    } transfer;
    djinn_done_t done;
    void *done_argument;
    djinn_fetch_t *fetches;
    uint32_t n_fetches, fetches_room;
    uint64_t fetch_bytes;
    void *gather;    /* several fetches by rendezvous land here first */
    void *raw_reply; /* LOAD: where the payload goes */
    uint64_t raw_bytes;
    dj_bytes_t meta; /* the payload's first piece */
    dj_bytes_t parts; /* of gathered uploads: their table */
    dj_segment_record_t *segments; /* kept until sent: they own the immediates */
    struct {
        dj_header_t header;
        union {
            dj_exec_t exec;
            dj_upload_t upload;
            dj_load_t load;
            dj_put_t put;
            dj_move_t move;
        };
    } message;
    dj_piece_t pieces[DJ_PIECES_MAX];
    uint32_t n_pieces;
    djinn_storage_t **temporaries; /* contiguous copies made for fetches; released when done */
    uint32_t n_temporaries;
};

typedef enum dj_transfer_kind {
    DJ_TRANSFER_NONE,
    DJ_TRANSFER_PUT,
    DJ_TRANSFER_FETCH,
} dj_transfer_kind_t;

/* The exact keys last shown, oldest first. */
typedef struct dj_shown {
    dj_table_t keys;
    dj_hash_t ring[DJ_SHOWN_MAX];
    uint64_t count;
} dj_shown_t;

/* A program seen lately and its keys (keys.c). */
enum { DJ_MEMO_SLOTS = 64, DJ_MEMO_BYTES_MAX = 256 << 10 };
typedef struct dj_key_memo {
    bool filled;
    dj_bytes_t structure, sizes;
    dj_hash_t program_key, exact_key;
} dj_key_memo_t;

typedef struct dj_collector dj_collector_t;

struct djinn {
    dj_config_t config;
    pthread_mutex_t lock;
    atomic_uint references; /* the user, each storage, each request */
    uint32_t sleepers;      /* threads that wait for an answer without the lock */
    bool closed;
    char peer[DJ_ENDPOINT_TEXT_MAX];
    uint32_t rank, incarnation;
    uint32_t wanted_rank; /* or DJ_RANK_ANY */
    dj_path_t path;
    bool other_user; /* the rank on this host is: no shared memory with it */
    dj_buckets_t buckets;
    uint64_t ops[DJ_OPS_MAX / 64]; /* that the rank can run, as the WELCOME said; fixed from then on */

    dj_control_t *control;
    dj_comm_t *comm;
    dj_endpoint_t *endpoint;
    djinn_executor_t executor; /* instead of the three above */
    void *executor_context;
    pthread_t heartbeat;
    bool heartbeat_runs;
    int wake_fd; /* eventfd of that thread; -1: none */
    dj_channel_t *channel; /* of a relayed connection, else NULL; and room for one part's tail */
    uint8_t *tail;
    atomic_bool stop;
    _Atomic uint64_t path_lost_ns; /* when the data path was seen to have failed; 0: it has not */
    atomic_bool still_hears; /* lost by its data path alone: the rank can be told of the close */
    _Atomic int dead; /* a status once the rank is lost */
    char dead_text[DJ_ERROR_TEXT_MAX];
    _Atomic int ending; /* a status once the rank has said that it ends: it takes nothing new */
    char ending_text[DJ_ERROR_TEXT_MAX];

    uint64_t session;
    uint32_t generation, sequence;
    uint64_t deadline_ms, suspect_ms;
    uint64_t beat_ms, beat_ns; /* relayed: heartbeats go out at least this often; the last one (heartbeat.c) */
    uint64_t next_request, next_serial;
    djinn_request_t *requests[DJ_REQUESTS_MAX]; /* by id modulo */
    djinn_request_t *free_requests;
    uint64_t answered_id;  /* all quiet ones up to here are done */
    uint64_t unanswered_bytes, credit_bytes;
    uint32_t loud_puts; /* unanswered */
    uint32_t quiet_run; /* sent since the last one that will be answered, */
    uint64_t quiet_bytes; /* and their bytes */
    djinn_request_t *transfers; /* in parts, under way; by next_rider */
    djinn_request_t *gather; /* small neighbouring puts, not yet sent */
    dj_status_t deferred; /* of a detached request */
    char deferred_text[DJ_ERROR_TEXT_MAX];

    dj_recorder_t *recorders;
    dj_segment_record_t *free_segments;
    dj_shown_t shown;
    dj_key_memo_t memo[DJ_MEMO_SLOTS];
    uint64_t tag_state;
    uint32_t n_refs;
    uint32_t *free_refs;
    uint32_t n_free_refs, free_refs_room;
    dj_bytes_t releases; /* u64 refs to drop with the next request */
    djinn_stats_t stats;
    dj_collector_t *collector; /* of a snapshot that has begun (snapshot.c); or NULL */
};

static inline void dj_djinn_lock(djinn_t *djinn)
{
    pthread_mutex_lock(&djinn->lock);
}

static inline void dj_djinn_unlock(djinn_t *djinn)
{
    pthread_mutex_unlock(&djinn->lock);
}

/* All below: the lock is held, except where a name ends in _unlocked. */

/* connect.c */
dj_status_t dj_djinn_create(djinn_t **djinn_p);
void dj_djinn_put_unlocked(djinn_t *djinn); /* drops one reference; the last frees */
dj_status_t dj_djinn_check(djinn_t *djinn); /* DJ_OK, or why the connection is of no use */
/* DJ_OK, or the failure of a request that nobody waited for. */
dj_status_t dj_djinn_check_deferred(djinn_t *djinn);
/* path.c. DJ_OK: djinn->path is set. DJ_IN_PROGRESS: connect again with tcp alone; control and comm are
 * closed. DJ_ERR_CONNECT: what was asked for cannot be had. `flags`: of the hello. */
dj_status_t dj_path_take(djinn_t *djinn, const dj_welcome_t *welcome, uint32_t flags);

dj_status_t dj_djinn_connect_control(const dj_config_t *config, uint32_t role,
                                     dj_hello_t *hello, const void *address, uint64_t deadline_ns,
                                     dj_control_t **control_p, dj_frame_t *frame,
                                     const void **body_p);

/* heartbeat.c: the control connection's own thread. */
dj_status_t dj_heartbeat_start(djinn_t *djinn);
void dj_heartbeat_stop(djinn_t *djinn); /* waits for it */
/* Under the lock, by whoever saw the endpoint fail: the thread marks the rank as lost in a moment. */
void dj_heartbeat_path_lost(djinn_t *djinn);
/* The endpoint of a relayed connection; before the thread starts. */
dj_status_t dj_heartbeat_open_channel(djinn_t *djinn);

/* storage.c */
dj_status_t dj_storage_create(djinn_t *djinn, uint64_t bytes, djinn_storage_t **storage_p);
void dj_storage_put(djinn_storage_t *storage); /* drops one reference, lock held */
dj_status_t dj_storage_assign_ref(djinn_storage_t *storage);
/* The pending releases have left: their indices may be used again. */
void dj_refs_recycle(djinn_t *djinn);

/* record.c */
dj_recorder_t *dj_recorder_mine(djinn_t *djinn); /* of the calling thread; NULL: no memory */
dj_segment_record_t *dj_recorder_open(dj_recorder_t *recorder);
/* The storage's number in the recorder's open segment, declared as an input if need be. */
dj_status_t dj_recorder_localise(dj_recorder_t *recorder, djinn_storage_t *storage, bool write,
                                 uint32_t *local_p);
dj_status_t dj_recorder_record(dj_recorder_t *recorder, int op, const djinn_arg_t *args,
                               int n_args, const djinn_tensor_t *target, djinn_tensor_t *outs);
dj_status_t dj_recorder_close_segment(dj_recorder_t *recorder);
/* Does anybody but the segments that know it hold the storage? Only then it outlives the request. */
bool dj_storage_outlives(const djinn_storage_t *storage);
void dj_segment_recycle(djinn_t *djinn, dj_segment_record_t *segment);
void dj_segment_free(dj_segment_record_t *segment);
void dj_recorder_discard(dj_recorder_t *recorder);

/* keys.c */
void dj_keys_find(djinn_t *djinn, const dj_program_t *program, dj_hash_t *program_key_p,
                  dj_hash_t *exact_key_p);
void dj_keys_fini(djinn_t *djinn);

/* snapshot.c */
void dj_collector_add(dj_collector_t *collector, const dj_segment_record_t *segments);
void dj_collector_destroy(dj_collector_t *collector); /* NULL is allowed */

/* exec.c */
dj_status_t dj_request_build_exec(djinn_request_t *request, uint32_t n_segments);

/* request.c */
/* From the pool, not yet numbered. */
djinn_request_t *dj_request_take(djinn_t *djinn);
/* The next id, in the order of sending. DJ_ERR_BUSY when the credit is used up and `wait` is false. */
dj_status_t dj_request_number(djinn_request_t *request, bool wait);
/* Both, after what waits to be sent together has left. */
dj_status_t dj_request_create(djinn_t *djinn, djinn_request_t **request_p);
/* One turn of a short wait for UCX to let go of memory, the lock kept; past the deadline the connection is
 * given up, and it lets go soon. */
void dj_request_make_progress(djinn_t *djinn, uint64_t deadline_ns);
/* Under the lock: notes a failed data path; once the rank is lost, ends all requests and lets go of their memory. */
void dj_request_look_at_rank(djinn_t *djinn);
void dj_request_recycle(djinn_request_t *request);
/* The same, or as soon as UCX has let go of its bytes. */
void dj_request_release(djinn_request_t *request);
dj_status_t dj_request_send(djinn_request_t *request, dj_message_t type, uint32_t struct_bytes);
/* Progress and wait until answered; drops the lock while it sleeps. At the deadline, a connection whose
 * transfers still use the caller's memory is given up, so that the memory is free on return. */
dj_status_t dj_request_await(djinn_request_t *request);
dj_status_t dj_request_message(void *context, const dj_incoming_t *incoming, void **memory_p,
                               void **token_p);
/* The outcome is known. */
void dj_request_finish(djinn_request_t *request, dj_status_t status, const char *text);
dj_status_t dj_request_send_fetch(djinn_request_t *request, djinn_storage_t *storage,
                                  uint64_t offset, void *target, uint64_t bytes);
void dj_requests_fail(djinn_t *djinn, dj_status_t status, const char *text);
dj_status_t dj_recorder_submit(dj_recorder_t *recorder, const djinn_fetch_t *fetches, int count,
                               djinn_request_t **request_p);

/* gather.c */
djinn_request_t *dj_put_take(djinn_t *djinn, uint64_t ref, uint64_t offset, const void *data,
                             uint64_t bytes);
/* Numbers and sends a PUT; quiet where that may be. DJ_ERR_BUSY as dj_request_number(); a failure of the
 * sending itself is the message's outcome. */
dj_status_t dj_put_send(djinn_request_t *message, bool wait);
/* Whether a put of this size travels with others where it can. */
bool dj_gather_wants(const djinn_t *djinn, uint64_t bytes);
dj_status_t dj_gather_put(djinn_storage_t *storage, uint64_t offset, const void *data,
                          uint64_t bytes, djinn_request_t **transfer_p);
dj_status_t dj_gather_upload(djinn_storage_t *storage, const void *data, bool weight);
/* What is gathered leaves. */
dj_status_t dj_gather_flush_small(djinn_t *djinn, bool wait);

/* transfer.c: requests in parts. */
/* That, and the parts of transfers not yet sent: before anything else takes a number. */
dj_status_t dj_gather_flush(djinn_t *djinn, bool wait);
/* A message that belongs to transfers has its outcome. */
void dj_transfer_note(djinn_request_t *message, dj_status_t status, const char *text);
/* Makes a fetch of one large tensor into a transfer; `message` then brings its first part. */
dj_status_t dj_transfer_fetch(djinn_request_t *message, djinn_request_t **transfer_p);
/* Once that has been sent: some more parts behind it. */
void dj_transfer_follow(djinn_request_t *transfer);
bool dj_transfer_is_large(uint64_t bytes);
/* `bytes` of host memory over a storage that the rank has. */
dj_status_t dj_transfer_put(djinn_storage_t *storage, uint64_t offset, const void *data,
                            uint64_t bytes, djinn_request_t **transfer_p);
void dj_transfer_release(djinn_request_t *transfer); /* what it holds */

void dj_view_of_tensor(const djinn_tensor_t *tensor, dj_view_t *view);
void dj_tensor_of_view(const dj_view_t *view, djinn_storage_t *storage, djinn_tensor_t *tensor);

#endif
