/* djinn.h - the public C interface of Djinn: tensors that live on ranks, ops recorded by ATen name, one
 * request for a whole graph.
 *
 * Errors: functions return djinn_status_t: DJINN_OK (0) or a negative value; djinn_error() gives the
 * calling thread's last sentence: what, which object, which limit, what next. Output parameters are
 * set only on success.
 *
 * Order of calls: djinn_connect(); tensors by djinn_upload(), djinn_load(), djinn_record(); bytes back by
 * djinn_fetch() or djinn_submit() / djinn_wait(); djinn_close().
 *
 * Recording: djinn_record() checks and infers shapes at once and sends nothing. What was recorded leaves
 * in one request when bytes are asked for (djinn_submit, djinn_fetch) or at djinn_flush().
 *
 * Tensors: djinn_tensor_t is a plain window (dtype, sizes, strides, offset; in elements, outermost
 * dimension first) on a djinn_storage_t, which is a counted handle of bytes on the rank. Copy the struct
 * freely to make views; retain and release the storage. Functions that return a tensor give the caller
 * one reference.
 *
 * Threads: a connection may be used from several threads; each records its own segment. A storage that
 * one thread has recorded and another uses is flushed first. djinn_wait() blocks the calling thread
 * only. */
#ifndef DJINN_H
#define DJINN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DJINN_ABI_VERSION 1
#define DJINN_MAX_RANK 8

typedef enum djinn_status {
    DJINN_OK = 0,
    DJINN_IN_PROGRESS = 1,
    DJINN_ERR_INVALID = -1,
    DJINN_ERR_MEMORY = -2,
    DJINN_ERR_LIMIT = -3,
    DJINN_ERR_UNSUPPORTED = -4,
    DJINN_ERR_SHAPE = -5,
    DJINN_ERR_DTYPE = -6,
    DJINN_ERR_PROTOCOL = -7,
    DJINN_ERR_VERSION = -8,
    DJINN_ERR_AUTH = -9,
    DJINN_ERR_CONNECT = -10,
    DJINN_ERR_PEER_DIED = -11,
    DJINN_ERR_DEADLINE = -12,
    DJINN_ERR_STALE = -13,
    DJINN_ERR_NO_PLAN = -14,
    DJINN_ERR_CLASS = -15,
    DJINN_ERR_CORRUPT = -16,
    DJINN_ERR_FILE = -17,
    DJINN_ERR_RESOURCE = -18,
    DJINN_ERR_BUSY = -19,
    DJINN_ERR_CANCELLED = -20,
    DJINN_ERR_SYSTEM = -21,
    DJINN_ERR_INTERNAL = -22,
    DJINN_ERR_DEVICE = -23 /* a fault of the GPU: its rank ends and returns, its tensors are gone */
} djinn_status_t;

typedef enum djinn_dtype {
    DJINN_BOOL = 0,
    DJINN_UINT8 = 1,
    DJINN_INT8 = 2,
    DJINN_INT16 = 3,
    DJINN_INT32 = 4,
    DJINN_INT64 = 5,
    DJINN_FLOAT16 = 6,
    DJINN_BFLOAT16 = 7,
    DJINN_FLOAT32 = 8,
    DJINN_FLOAT64 = 9,
    DJINN_COMPLEX32 = 10, /* complex types have shapes, but no kernel on a host rank */
    DJINN_COMPLEX64 = 11,
    DJINN_COMPLEX128 = 12,
    DJINN_NO_DTYPE = 255
} djinn_dtype_t;

typedef struct djinn djinn_t;                 /* a connection, and the session behind it */
typedef struct djinn_storage djinn_storage_t; /* bytes on the rank */
typedef struct djinn_request djinn_request_t; /* an answer that is awaited */

typedef struct djinn_tensor {
    djinn_storage_t *storage;
    int32_t dtype, rank;
    int64_t offset;
    int64_t sizes[DJINN_MAX_RANK];
    int64_t strides[DJINN_MAX_RANK];
} djinn_tensor_t;

/* The version this library implements; compare with DJINN_ABI_VERSION. Any thread. */
int djinn_abi_version(void);
const char *djinn_error(void);
const char *djinn_status_name(int status); /* "ERR_SHAPE" */

/* ---- connection ---- */

typedef struct djinn_options {
    int abi_version;          /* DJINN_ABI_VERSION */
    const char *address;      /* "host:port"; NULL: DJINN_ADDRESS */
    const char *token;        /* 64 hexadecimal digits; NULL: DJINN_TOKEN, else the token file */
    const char *mode;         /* "remote", "local_remote", "zero_copy"; NULL: DJINN_EXECUTION_MODE */
    uint32_t deadline_ms;     /* of every request; 0: the configured one */
    uint32_t flags;           /* DJINN_CONNECT_* */
    int rank;                 /* of the worker to use, with DJINN_CONNECT_RANK */
} djinn_options_t;

#define DJINN_CONNECT_RANK 1u     /* this rank and no other */
#define DJINN_CONNECT_RELAY 2u    /* all bytes through the one port of rank 0 (ssh tunnels, NAT) */
#define DJINN_CONNECT_CHECKSUM 4u /* every message carries a checksum */

/* Connects, authenticates and opens a session. `options` may be NULL. DJINN_ERR_CONNECT,
 * DJINN_ERR_AUTH, DJINN_ERR_VERSION, DJINN_ERR_DEADLINE. */
djinn_status_t djinn_connect(const djinn_options_t *options, djinn_t **djinn_p);
/* Ends the session; storages and requests still held become inert and must still be released. */
void djinn_close(djinn_t *djinn);
/* DJINN_OK while the rank answers, else why not: DJINN_ERR_PEER_DIED; DJINN_ERR_CANCELLED when the server has said
 * that it ends, from then on: requests under way are still answered, new ones fail with the same. Sends
 * nothing. */
djinn_status_t djinn_alive(djinn_t *djinn);

/* ---- tensors ---- */

#define DJINN_UPLOAD_WEIGHT 1u /* read-only and shared by content: a parameter */

/* Copies `sizes` elements from host memory (dense, row-major). Small tensors wait for the next request, many
 * small weights travel together, large ones are sent now; a failure of what was not sent now is told by the
 * next call that waits. The bytes are the caller's again on return. `data` NULL: the tensor exists and holds
 * nothing of meaning; djinn_put() fills it, with progress and cancel. */
djinn_status_t djinn_upload(djinn_t *djinn, djinn_dtype_t dtype, int rank, const int64_t *sizes,
                            const void *data, uint32_t flags, djinn_tensor_t *tensor);
/* A tensor of a safetensors file that the rank reads itself; shape and dtype come from the file.
 * `path` is absolute and as the rank sees it. DJINN_ERR_FILE. */
djinn_status_t djinn_load(djinn_t *djinn, const char *path, const char *name,
                          djinn_tensor_t *tensor);
/* The same for several tensors of one file in one message. */
djinn_status_t djinn_load_many(djinn_t *djinn, const char *path, int count,
                               const char *const *names, djinn_tensor_t *tensors);

djinn_storage_t *djinn_retain(djinn_storage_t *storage);
void djinn_release(djinn_storage_t *storage); /* NULL is allowed */
uint64_t djinn_storage_bytes(const djinn_storage_t *storage);
djinn_t *djinn_storage_owner(const djinn_storage_t *storage);

/* ---- recording ---- */

typedef enum djinn_arg_kind {
    DJINN_ARG_NONE,
    DJINN_ARG_TENSOR,   /* tensors[0] */
    DJINN_ARG_TENSORS,  /* tensors[0..count); a NULL storage is an absent element */
    DJINN_ARG_INT,      /* integer: also flags and dtypes */
    DJINN_ARG_INTS,     /* integers[0..count) */
    DJINN_ARG_BOOL_SCALAR,
    DJINN_ARG_INT_SCALAR,  /* integer, in the place of a scalar or of a tensor (x * 2) */
    DJINN_ARG_REAL_SCALAR  /* real */
} djinn_arg_kind_t;

typedef struct djinn_arg {
    int32_t kind;
    int32_t count;
    union {
        const djinn_tensor_t *tensors;
        const int64_t *integers;
        int64_t integer;
        double real;
    } value;
} djinn_arg_t;

#define DJINN_MAX_ARGS 16
#define DJINN_MAX_OUTS 5

/* The handle of an op by its ATen name ("aten::add.Tensor"); -1 when the table has no such row. */
int djinn_op(const char *name);
/* The row's signature ("tts>1", see planner/ops.h); NULL for a bad handle. Static. */
const char *djinn_op_signature(int op);

/* 1 if the rank behind the connection can run the op, 0 if it has no kernel for it (or the handle is bad): then
 * djinn_record() refuses it. The same for the life of the connection; sends nothing. Any thread. */
int djinn_supports(djinn_t *djinn, int op);

/* The size to pad `size` to so that few sizes, and so few plans, serve many: the smallest bucket that is not below
 * it. Buckets are the setting DJINN_PLAN_BUCKETS: "pow2" (the default), "none", or sizes in rising order
 * ("64,128,512"; beyond the last, and for 0 and 1, the size itself). Any thread. */
int64_t djinn_bucket(djinn_t *djinn, int64_t size);

/* Infers the outputs without recording: outs[i].storage is NULL. *count_p: how many. */
djinn_status_t djinn_infer(int op, const djinn_arg_t *args, int n_args, djinn_tensor_t *outs,
                           int *count_p);
/* Appends one op to the calling thread's segment; args follow the signature. outs receives the new
 * tensors, or (for an op that writes its first argument) nothing. DJINN_ERR_UNSUPPORTED: the rank has no kernel
 * for it. */
djinn_status_t djinn_record(djinn_t *djinn, int op, const djinn_arg_t *args, int n_args,
                            djinn_tensor_t *outs);
/* The same, but output 0 is written into `target` (whose sizes must equal the inferred ones; its dtype
 * decides the conversion): ATen's in-place and out= forms. */
djinn_status_t djinn_record_into(djinn_t *djinn, int op, const djinn_arg_t *args, int n_args,
                                 const djinn_tensor_t *target);
/* Splits fingerprints here; sends nothing. For the end of a module's call. */
djinn_status_t djinn_boundary(djinn_t *djinn);

/* ---- snapshots ---- */

/* Writes to `path` what the calling thread has recorded and not sent, as it would leave now: programs with sizes and
 * scalars, no tensor's bytes. `djinn plan show` and `djinn plan replay` read it. The recording is not disturbed and
 * nothing is sent; where nothing is recorded the file holds no program. The file is put in place whole or not at
 * all. DJINN_ERR_FILE, DJINN_ERR_LIMIT, DJINN_ERR_MEMORY. */
djinn_status_t djinn_snapshot(djinn_t *djinn, const char *path);

/* What the file says of itself; NULL for either function is all-zero. */
typedef struct djinn_snapshot_about {
    const char *name; /* NULL: the path's last part */
    int phase; /* a hint: 1 prefill, 2 decode, 3 vision, 4 diffusion, 5 speech, 6 recommendation, 7 training; 0 none */
} djinn_snapshot_about_t;

/* djinn_snapshot() with that. */
djinn_status_t djinn_snapshot_now(djinn_t *djinn, const char *path, const djinn_snapshot_about_t *about);
/* The same for every program that leaves the connection, whichever thread recorded it, from begin to end. One at a
 * time: DJINN_ERR_BUSY. `path` NULL: what was collected is thrown away. DJINN_ERR_LIMIT: more than 128 MiB or 65536
 * programs; the requests were sent all the same. */
djinn_status_t djinn_snapshot_begin(djinn_t *djinn);
djinn_status_t djinn_snapshot_end(djinn_t *djinn, const char *path, const djinn_snapshot_about_t *about);
/* The name that snapshots give a storage ("h.0.attn.weight"), copied; NULL: none. At most 255 bytes without control
 * characters: DJINN_ERR_LIMIT, DJINN_ERR_INVALID. */
djinn_status_t djinn_storage_set_name(djinn_storage_t *storage, const char *name);

/* ---- requests ---- */

/* Where fetched bytes go: the tensor's elements, dense and row-major, `bytes` of them. */
typedef struct djinn_fetch {
    djinn_tensor_t tensor;
    void *target;
    uint64_t bytes;
} djinn_fetch_t;

/* Sends all that the calling thread has recorded, as one request, and asks for `count` tensors (0: none).
 * Targets must stay until the request is done. Free the request with djinn_request_free(). */
djinn_status_t djinn_submit(djinn_t *djinn, const djinn_fetch_t *fetches, int count,
                            djinn_request_t **request_p);
/* DJINN_IN_PROGRESS, DJINN_OK or why it failed. */
djinn_status_t djinn_test(djinn_request_t *request);
djinn_status_t djinn_wait(djinn_request_t *request);
void djinn_request_free(djinn_request_t *request); /* waits for it first when it is under way */
/* Readable when djinn_test() may have news; for poll(), epoll and event loops. Call djinn_arm() before
 * sleeping on it: DJINN_OK armed, DJINN_IN_PROGRESS: test first. */
int djinn_fd(djinn_t *djinn);
djinn_status_t djinn_arm(djinn_t *djinn);

/* submit and wait, for one tensor. */
djinn_status_t djinn_fetch(djinn_t *djinn, const djinn_tensor_t *tensor, void *target,
                           uint64_t bytes);
/* Sends what is recorded and asks for nothing; returns without waiting for the answer. */
djinn_status_t djinn_flush(djinn_t *djinn);
/* Sends what is recorded and waits until the rank has run it. */
djinn_status_t djinn_synchronize(djinn_t *djinn);

/* ---- transfers ---- */

/* Writes `bytes` bytes of host memory over a dense tensor that exists (its window, row-major; bytes must be
 * its size). Ordered with everything else of the connection: what was recorded before runs before, what
 * comes later sees the new bytes.
 *
 * With `request_p` the call returns at once and `data` must stay until the request is done; large ones go
 * out in parts, so that djinn_progress() moves and djinn_cancel() is quick. Without it the bytes are the
 * caller's again on return: small ones are copied and may travel together with their neighbours, large ones
 * are waited for; a failure that comes later is told by the next call that waits (djinn_synchronize()). */
djinn_status_t djinn_put(djinn_t *djinn, const djinn_tensor_t *target, const void *data,
                         uint64_t bytes, djinn_request_t **request_p);

/* How far a put, an upload or a fetch has come. Any thread; does not wait. Bytes that have arrived (a put:
 * at the rank, a fetch: here) of all that were asked for. */
typedef struct djinn_transfer {
    uint64_t done_bytes, total_bytes;
} djinn_transfer_t;
djinn_status_t djinn_progress(djinn_request_t *request, djinn_transfer_t *transfer);
/* Ends a request: parts not yet sent never are, those under way are waited for, so that on return the
 * caller's memory is free. DJINN_OK: it had finished already. DJINN_ERR_CANCELLED: it is over, what it wrote
 * is undefined (a put: any part of its window; a fetch: any part of its targets). */
djinn_status_t djinn_cancel(djinn_request_t *request);

/* Calls `done` once when the request has its outcome, from the thread that makes the connection progress
 * (inside djinn_test, djinn_wait, ...); no function of the connection may be called inside it. At once, if it
 * has its outcome already. */
typedef void (*djinn_done_t)(void *argument, djinn_request_t *request, djinn_status_t status);
djinn_status_t djinn_when_done(djinn_request_t *request, djinn_done_t done, void *argument);

/* A copy of the tensor's window on the rank behind `target`, made from rank to rank: its bytes do not pass
 * through this process. Both connections are of one server. The source is read as it is after all that its
 * connection has sent. */
djinn_status_t djinn_move(djinn_t *target, const djinn_tensor_t *source, djinn_tensor_t *tensor);

/* The rank behind the connection (-1: none, as after djinn_connect_local()), and how its bytes travel, with
 * the reason: "shm, because same host and user"; the first word is shm, tcp, rdma, relay or local. Both
 * stay as they are for the life of the connection, which owns the text. */
int djinn_rank(djinn_t *djinn);
const char *djinn_path(djinn_t *djinn);

/* ---- what happened ---- */

typedef struct djinn_stats {
    uint64_t requests, messages_out, messages_in; /* messages on the data channel */
    uint64_t bytes_up, bytes_down, rendezvous;
    uint64_t plan_hits, plan_resizes, plan_misses;
    uint64_t ops, segments;
    uint64_t run_ns, planning_ns, queue_ns; /* summed, as the rank measured them */
    uint64_t stack_peak_bytes;              /* the largest of any request */
    uint64_t storages;                      /* live handles */
    uint64_t program_bytes;                 /* structures and sizes sent */
} djinn_stats_t;

void djinn_stats(djinn_t *djinn, djinn_stats_t *stats);
/* The server's description as JSON (as `djinn info --json`); free() it. */
djinn_status_t djinn_info(const djinn_options_t *options, char **json_p);

/* ---- an executor in the place of a rank (execution mode `local`) ---- */

/* A request as it would have gone out: one EXEC, UPLOAD or LOAD message (comm/messages.h). `reply` has
 * room for reply_bytes of payload. Returns the status the rank would answer. */
typedef struct djinn_local_message {
    const void *header;       /* dj_header_t and the message's struct */
    uint32_t header_bytes;
    const void *payload;
    uint64_t payload_bytes;
    void *reply;
    uint64_t reply_bytes;
} djinn_local_message_t;

typedef djinn_status_t (*djinn_executor_t)(void *context, const djinn_local_message_t *message);
/* A connection to nothing: every message goes to `executor` in the calling thread. */
djinn_status_t djinn_connect_local(djinn_executor_t executor, void *context, djinn_t **djinn_p);

#ifdef __cplusplus
}
#endif

#endif
