/* rank.h - one rank: coordinator, worker, or both; its threads and what they share.
 *
 *   control thread (door.c)    accepts, greets, heartbeats, frames; coordinator.c is its memory of workers
 *   progress thread (worker.c) UCX, sessions and their queues, short warm requests; the main thread
 *   device thread (rank.c)     everything that may take longer: cold plans, loads, long replays
 *   upkeep thread (upkeep.c)   better plans for hot programs, files of plans
 *   reaper thread (reaper.c)   the memory of sessions that have ended
 *
 * They share nothing but queues: commands (control to progress), jobs (progress to device), done (device
 * to progress), outbox (anyone to control). Text store and plan cache have locks of their own. Counters
 * are atomics that any thread adds to. */
#ifndef DJ_RUNTIME_RANK_H
#define DJ_RUNTIME_RANK_H

#include <stdatomic.h>

#include "comm/control.h"
#include "runtime/base/queue.h"
#include "runtime/session.h"

/* The exit status of a rank's process. */
enum {
    DJ_RANK_EXIT_TOLD = 0,     /* ended as told: by a signal, or by rank 0 */
    DJ_RANK_EXIT_FAILED = 1,   /* could not start, or cannot go on; the reason is logged */
    DJ_RANK_EXIT_WORDS = 2,    /* its options are wrong; one sentence on stderr */
    DJ_RANK_EXIT_DEVICE = 4,   /* its GPU failed; a new process may find it well */
    DJ_RANK_EXIT_REPLACED = 3, /* rank 0 knows another process as this rank: starting it anew is no use */
};

/* Runs a rank until it is told to end (ending.c); returns the exit status of the process. Writes "ready\n" to
 * config->ready_fd once it serves: rank 0 when it listens, a worker when rank 0 has registered it. */
int dj_rank_run(const dj_config_t *config);

/* X(name): counters that become dj_report_t (messages.h) */
#define DJ_COUNTER_LIST(X)                                                                         \
    X(requests)                                                                                    \
    X(planning_ns)                                                                                 \
    X(busy_ns)                                                                                     \
    X(refused)                                                                                     \
    X(stale)                                                                                       \
    X(peak_checks)                                                                                 \
    X(peak_mismatches)                                                                             \
    X(stack_peak_bytes)                                                                            \
    X(sessions)                                                                                    \
    X(detached)                                                                                    \
    X(refs)                                                                                        \
    X(data_bytes)                                                                                  \
    X(data_backed_bytes)                                                                           \
    X(ingress_bytes)                                                                               \
    X(messages_in)                                                                                 \
    X(messages_out)                                                                                \
    X(bytes_in)                                                                                    \
    X(bytes_out)                                                                                   \
    X(links)                                                                                       \
    X(moves)                                                                                       \
    X(direct_bytes)                                                                                \
    X(gpu_known)                                                                                   \
    X(gpu_utilization_percent)                                                                     \
    X(gpu_temperature_c)                                                                           \
    X(gpu_power_mw)                                                                                \
    X(gpu_memory_used_bytes)                                                                       \
    X(gpu_memory_total_bytes)                                                                      \
    X(gpu_ecc_corrected)                                                                           \
    X(gpu_ecc_uncorrected)                                                                         \
    X(gpu_xid)                                                                                     \
    X(gpu_xids)

typedef struct dj_rank_counters {
#define X(name) _Atomic uint64_t name;
    DJ_COUNTER_LIST(X)
#undef X
} dj_rank_counters_t;

/* What one thread needs to run requests: its Stack slab and pointer tables. */
typedef struct dj_runner {
    dj_segment_t stack, spill;
    void **bindings;
    dj_text_t **texts;
    uint32_t room;
    dj_block_t *temporaries; /* private copies of immediates that a program writes */
    uint32_t n_temporaries, temporaries_room;
    dj_bytes_t scratch; /* structures and plans on their way to or from the cache */
} dj_runner_t;

typedef enum dj_job_state {
    DJ_JOB_RECEIVING,
    DJ_JOB_READY,
    DJ_JOB_RUNNING,
    DJ_JOB_ANSWERING,
    DJ_JOB_MOVING, /* a MOVE at the head: its bytes are awaited (move.c) */
    DJ_JOB_LEAVING, /* in no queue: its answer is on its way and leans on nothing of the session's */
} dj_job_state_t;

enum { DJ_MOVE_PARTS = 4 };                 /* of one move on their way at a time */
#define DJ_COPY_INLINE_BYTES (256u << 10) /* moves, and what a blind device gives: copied on the progress thread */

/* Of a MOVE that is under way, of a PULL, or of a part of either. */
typedef struct dj_moving {
    struct dj_job *next;    /* rank->moves */
    struct dj_job *partner; /* source and target are here: the PULL of the MOVE and the other way round */
    struct dj_job *whole;   /* of a part: its MOVE or PULL */
    uint64_t number, link;  /* of the PULL on its way, of the link it travels over */
    uint64_t began_ns;
    uint64_t begun_bytes, done_bytes; /* in parts that were begun; of a MOVE: that have arrived */
    uint32_t open;        /* parts that use the memory: the network or the device thread has them */
    struct dj_job *held;  /* of a MOVE: of these, those that wait for a buffer, in order, by their `next` */
    uint32_t n_held;
    uint32_t incarnation; /* of the source, when it was asked first */
    void *memory; /* of the MOVE's new ref; what the PULL reads; a part's share of either */
    bool again;
    bool lost; /* of a PULL: the link, or whoever wanted it */
} dj_moving_t;

/* One message of a session, from arrival to the moment its answer has left. */
typedef struct dj_job {
    dj_queue_entry_t entry; /* first: queues */
    struct dj_job *next;    /* the session's queue, or the pool */
    struct dj_rank *rank;
    dj_session_t *session;
    dj_header_t header;
    union {
        dj_exec_t exec;
        dj_upload_t upload;
        dj_load_t load;
        dj_put_t put;
        dj_move_t move;
        dj_pull_t pull;
        dj_part_t part;
    };
    const void *payload;
    dj_bounce_t owned; /* the payload's memory in ingress, or none */
    void *hold;        /* a rendezvous that waits for its turn to land */
    uint64_t payload_bytes;
    dj_bounce_t bounce; /* a blind device's: a weight that lands, an answer, a move's bytes */
    dj_text_t *draft;   /* UPLOAD of a weight lands here */
    bool landed;        /* UPLOAD or PUT arrives in the block of its ref */
    bool released;      /* the refs that an EXEC names for it are gone */
    uint8_t state;
    uint64_t arrived_ns, started_ns, deadline_ns;

    dj_status_t status;
    char text[DJ_ERROR_TEXT_MAX];
    struct {
        dj_header_t header;
        dj_result_t result;
    } answer;
    dj_piece_t pieces[DJ_PIECES_MAX];
    uint32_t n_pieces;
    dj_bytes_t reply; /* gathered bytes, when pieces do not do */
    struct dj_exchange *exchange; /* no message of a session, but a plan to be exchanged (exchange.c) */
    dj_moving_t moving;
    uint64_t outgoing_bytes; /* counted in its session's */
} dj_job_t;

/* The answer's bytes are the job's own, so it leans on nothing of its session's. */
static inline bool dj_job_stands_alone(const dj_job_t *job)
{
    return job->n_pieces == 0 || job->status != DJ_OK || job->bounce.memory || job->reply.size;
}

typedef enum dj_command_kind {
    DJ_COMMAND_ATTACH, /* a greeted client: make or find its session, its endpoint, and welcome it */
    DJ_COMMAND_DETACH, /* its connection ended */
    DJ_COMMAND_CLOSE,  /* it said CLOSE */
    DJ_COMMAND_ROSTER,   /* hello: rank, incarnation; address: where its door is, or nothing */
    DJ_COMMAND_PEER,     /* a greeted rank wants a link */
    DJ_COMMAND_DIALLED,  /* a dial's outcome (dial.h) */
    DJ_COMMAND_UNLINKED, /* a link's connection ended */
} dj_command_kind_t;

/* Control thread to progress thread. */
typedef struct dj_command {
    dj_queue_entry_t entry;
    dj_command_kind_t kind;
    uint64_t connection;
    dj_hello_t hello;
    uint64_t number; /* DIALLED */
    dj_status_t status;
    char text[DJ_ERROR_TEXT_MAX];
    struct dj_channel *channel; /* ATTACH of a relayed client: a reference; else NULL */
    uint32_t address_bytes;
    uint8_t address[DJ_ADDRESS_BYTES_MAX];
} dj_command_t;

/* To the control thread: a frame for a connection, for the coordinator (connection 0), or the end of
 * one. */
typedef struct dj_outgoing {
    dj_queue_entry_t entry;
    uint64_t connection;
    uint16_t type; /* 0: nothing to send */
    bool end;
    dj_control_t *adopt; /* with it: a connection that was dialled, for the control thread to keep */
    dj_command_t *news;  /* what the progress thread then hears */
    uint32_t body_bytes, tail_bytes;
    uint8_t bytes[];  /* body, then tail */
} dj_outgoing_t;

typedef struct dj_door dj_door_t;
typedef struct dj_links dj_links_t;
typedef struct dj_upkeep dj_upkeep_t;
typedef struct dj_reaper dj_reaper_t;
typedef struct dj_exchange dj_exchange_t;

/* What was found out once of this rank's device memory and the network (direct.c). */
typedef struct dj_direct {
    bool asked;
    char why_not[DJ_PATH_TEXT_MAX]; /* "": proven */
    dj_path_facts_t facts;          /* device_known, dma_buf, peermem, cuda_ipc */
} dj_direct_t;

typedef struct dj_rank {
    const dj_config_t *config;
    uint8_t token[32];
    uint32_t rank, n_ranks, incarnation;
    bool serves, coordinates;
    char endpoint[DJ_ENDPOINT_TEXT_MAX];

    dj_session_home_t home;
    dj_comm_t *comm;
    dj_direct_t direct;
    dj_table_t sessions;
    dj_job_t *free_jobs;
    dj_runner_t progress_runner, device_runner;
    dj_links_t *links;
    dj_job_t *moves; /* MOVEs under way */
    uint64_t last_pull;
    uint64_t swept_ns;

    dj_queue_t commands, jobs, done, outbox;
    int outbox_fd; /* eventfd: the control thread sleeps in poll() */
    pthread_t device_thread, control_thread;
    bool device_runs, control_runs;
    dj_upkeep_t *upkeep;
    dj_reaper_t *reaper;
    dj_exchange_t *_Atomic offered; /* by upkeep, to the progress thread */
    dj_exchange_t *exchanging;      /* progress thread: the device thread has it */
    pthread_t probe_thread; /* probe.c */
    atomic_int probe;
    bool probe_wanted;
    atomic_uint turns; /* of the progress thread, for the probe to see that it lives */
    dj_door_t *door;
    atomic_bool stop;
    _Atomic int64_t told_ms;  /* rank 0 ends, and leaves this rank so long; -1: it does not */
    _Atomic uint64_t ends_ns; /* when this rank ends at the latest; 0: it serves */
    atomic_bool deserted;     /* rank 0 ends, and no worker is connected any more */
    atomic_bool replaced;     /* rank 0 has registered another process as this rank */
    atomic_bool device_lost;  /* the GPU failed: this rank answers what it has, and ends */
    atomic_bool loses_device; /* somebody says so, before that */
    char lost_text[DJ_ERROR_TEXT_MAX];
    uint64_t lost_ns; /* when the control thread saw that; 0: not yet */
    dj_rank_counters_t counters;
} dj_rank_t;

/* lost.c: what the device answered, passed on. DJ_ERR_DEVICE is logged, and ends this rank. Any thread. Not for a
 * status that came from another rank. */
dj_status_t dj_rank_lose_device(dj_rank_t *rank);
static inline dj_status_t dj_rank_heed(dj_rank_t *rank, dj_status_t status)
{
    return status == DJ_ERR_DEVICE ? dj_rank_lose_device(rank) : status;
}
/* The control thread, at every turn: is the device lost without a word? Ends the process when the progress thread does
 * not come to it. */
void dj_rank_watch_device(dj_rank_t *rank, uint64_t now_ns);
/* The progress thread, once device_lost is set: answers what clients wait for, as far as that goes quickly, and ends the
 * process. */
void dj_rank_leave_device(dj_rank_t *rank);
/* Copies of `home.device`, heeded. */
static inline dj_status_t dj_rank_copy_in(dj_rank_t *rank, void *target, const void *host, uint64_t bytes)
{
    dj_device_t *device = rank->home.device;
    return bytes ? dj_rank_heed(rank, device->ops->memory.copy_in(device, target, host, bytes)) : DJ_OK;
}
static inline dj_status_t dj_rank_copy_out(dj_rank_t *rank, void *host, const void *source, uint64_t bytes)
{
    dj_device_t *device = rank->home.device;
    return bytes ? dj_rank_heed(rank, device->ops->memory.copy_out(device, host, source, bytes)) : DJ_OK;
}

/* worker.c */
dj_status_t dj_worker_message(void *context, const dj_incoming_t *incoming, void **memory_p,
                              void **token_p);
void dj_worker_turn(dj_rank_t *rank); /* commands, finished jobs, leases; progress thread */
void dj_worker_end(dj_rank_t *rank);  /* destroys every session */
bool dj_worker_is_busy(dj_rank_t *rank);  /* some request has no answer yet, or its answer has not left */
bool dj_worker_computes(dj_rank_t *rank); /* the device thread has one */

/* ending.c: SIGTERM, or rank 0's word. */
dj_status_t dj_ending_catch(void); /* takes the signals; DJ_ERR_SYSTEM */
/* The main thread asks, again and again: is it time to close? From the first word on nothing new is taken. */
bool dj_ending_is_over(dj_rank_t *rank);
void dj_ending_sleep(int limit_ms); /* until a signal, or dj_ending_wake() */
void dj_ending_wake(dj_rank_t *rank); /* any thread: something it waits for may have happened */
static inline bool dj_rank_ends(const dj_rank_t *rank)
{
    return atomic_load_explicit(&rank->ends_ns, memory_order_relaxed) != 0;
}
dj_status_t dj_ending_refuse(void); /* the status, with its sentence, of whatever comes too late */

/* direct.c: the path between this rank and a peer. Of *facts the caller says same_host, same_user, relay, transports,
 * there and checksums; the rest is filled in. As dj_path_choose(). Progress thread. */
dj_status_t dj_direct_choose(dj_rank_t *rank, dj_path_facts_t *facts, dj_path_t *path_p);
/* What bytes on their way pass through: device memory where the path is `direct` and they are worth it, else host
 * memory. Any thread. DJ_ERR_MEMORY. */
dj_status_t dj_direct_take(dj_rank_t *rank, bool direct, uint64_t bytes, dj_bounce_t *bounce);
/* dj_bounce_fill() and dj_bounce_drain(), heeded. 0 bytes are none. */
dj_status_t dj_rank_fill(dj_rank_t *rank, const dj_bounce_t *bounce, uint64_t at, const void *source, uint64_t bytes);
dj_status_t dj_rank_drain(dj_rank_t *rank, void *target, const dj_bounce_t *bounce, uint64_t at, uint64_t bytes);

/* attach.c */
void dj_attach_command(dj_rank_t *rank, dj_command_t *command);
void dj_session_end(dj_rank_t *rank, dj_session_t *session); /* now, or when its queue is empty */
void dj_sessions_count(dj_rank_t *rank); /* into its counters */
void dj_leases_check(dj_rank_t *rank, uint64_t now_ns);

/* execute.c: runs one job on the calling thread with its runner; the outcome is left in the job. */
void dj_job_execute(dj_rank_t *rank, dj_runner_t *runner, dj_job_t *job);
/* Whether the job may run on the progress thread at once. */
bool dj_job_is_short(dj_rank_t *rank, dj_job_t *job);
dj_status_t dj_runner_init(dj_runner_t *runner, const dj_rank_t *rank);
void dj_runner_fini(dj_runner_t *runner);

/* landing.c: UPLOAD and PUT. Where the bytes of the queue's last job may arrive: *memory_p, or it stays
 * NULL: in ingress; DJ_IN_PROGRESS: when those before it that write the same bytes are done. Then its turn. */
dj_status_t dj_landing_place(dj_rank_t *rank, dj_job_t *job, void **memory_p);
/* No more than a small copy: not one that first moves a weight out of Text. */
bool dj_landing_is_short(dj_session_t *session, const dj_put_t *put);
/* A small quiet PUT of a session with nothing else to do: done without a job. False: nothing has happened. */
bool dj_landing_at_once(dj_rank_t *rank, dj_session_t *session, const dj_incoming_t *incoming);
void dj_landing_admit(dj_rank_t *rank, dj_session_t *session);
dj_status_t dj_landing_apply(dj_rank_t *rank, dj_job_t *job);

/* execute.c, for fold.c: one replay, measured under poison; memory of the session until the request is over */
dj_status_t dj_replay(dj_rank_t *rank, dj_runner_t *runner, dj_executable_t *exe,
                      const dj_plan_t *plan, const uint64_t *scalars, void *const *bindings);
dj_status_t dj_runner_borrow(dj_runner_t *runner, dj_session_t *session, uint64_t bytes,
                             void **data_p);

/* fold.c: values that weights alone feed. The device thread's, like all below. */
typedef struct dj_fold dj_fold_t;

/* One segment about to run: its scalars, and its pointers with room for the folded values behind them. */
typedef struct dj_folding {
    dj_rank_t *rank;
    dj_runner_t *runner;
    dj_job_t *job;
    const uint64_t *scalars;
    void **bindings;
    dj_text_t **texts;
} dj_folding_t;

/* Takes `twin` over (planner/fold.h), also on failure. Whatever dj_fold_bind() needs later is refused here:
 * DJ_ERR_UNSUPPORTED, DJ_ERR_RESOURCE, DJ_ERR_MEMORY. */
dj_status_t dj_fold_create(dj_rank_t *rank, dj_graph_t *twin, dj_fold_t **fold_p);
void dj_fold_destroy(dj_fold_t *fold);
uint64_t dj_fold_peak(const dj_fold_t *fold);  /* of Stack */
uint64_t dj_fold_bytes(const dj_fold_t *fold); /* of host memory, to weigh its program */
/* Finds or computes the folded values and binds them. DJ_ERR_INVALID: an index was out of range;
 * DJ_ERR_RESOURCE, DJ_ERR_MEMORY. */
dj_status_t dj_fold_bind(dj_fold_t *fold, const dj_folding_t *folding);
static inline dj_fold_t *dj_fold_of(const dj_executable_t *exe)
{
    return exe->fold;
}

/* compile.c: the entry for a structure that is not ready here: known plan, published plan or a new one. */
dj_status_t dj_compile(dj_rank_t *rank, dj_runner_t *runner, dj_job_t *job,
                       const dj_exec_segment_t *segment, dj_cache_entry_t **entry_p);

/* compile.c: tells the ranks of this class; any thread. `scratch` is used for the message. */
void dj_plan_publish(dj_rank_t *rank, dj_bytes_t *scratch, const void *structure,
                     uint32_t structure_bytes, const void *sizes, uint32_t sizes_bytes,
                     const dj_plan_t *plan);

/* exchange.c: a better plan takes the place of an entry's. */
dj_status_t dj_exchange_offer(dj_rank_t *rank, dj_cache_entry_t *entry, dj_plan_t *better,
                              dj_exchange_t **exchange_p); /* upkeep thread */
bool dj_exchange_is_over(const dj_exchange_t *exchange, dj_status_t *status_p);
/* Takes entry and plan back where it never came to it; progress and device thread are at rest, or it is
 * over. The entry's reference is the caller's. */
void dj_exchange_destroy(dj_rank_t *rank, dj_exchange_t *exchange);
void dj_exchange_turn(dj_rank_t *rank);                           /* progress thread */
void dj_exchange_place(dj_rank_t *rank, dj_exchange_t *exchange); /* device thread */
void dj_exchange_placed(dj_rank_t *rank, dj_exchange_t *exchange); /* progress thread, after it */
/* Must requests for this entry wait for the device thread? Progress thread. */
bool dj_exchange_holds(const dj_rank_t *rank, const dj_cache_entry_t *entry);

/* move.c and pull.c, with worker.c's queues below them */
/* The MOVE at its session's head begins. DJ_IN_PROGRESS: dj_job_finish() follows; else it has failed. */
dj_status_t dj_move_start(dj_rank_t *rank, dj_job_t *job);
void dj_move_end(dj_job_t *job, dj_status_t status); /* with the thread's sentence; no part is open */
void dj_moves_turn(dj_rank_t *rank); /* links that opened, deadlines, sessions that end */
void dj_moves_lost(dj_rank_t *rank, uint64_t link, const char *why);
/* RESULT and PART, as dj_worker_message(); PULL. */
dj_status_t dj_move_message(dj_rank_t *rank, const dj_incoming_t *incoming, void **memory_p,
                            void **token_p);
dj_status_t dj_pull_message(dj_rank_t *rank, const dj_incoming_t *incoming);
/* A PULL whose turn has come. DJ_IN_PROGRESS: it will retire by itself; else it is over. */
dj_status_t dj_pull_start(dj_rank_t *rank, dj_job_t *job);
bool dj_pull_may_start(const dj_job_t *job);
dj_status_t dj_pull_begin_local(dj_rank_t *rank, dj_job_t *move_job);
/* Source and target are here. Any thread; its failure is noted. */
void dj_pull_copy(dj_rank_t *rank, dj_job_t *job);
void dj_pull_copied(dj_rank_t *rank, dj_job_t *job); /* progress thread, after it */
/* A part beside a blind device, between its bounce buffer and the device. Any thread; its failure is noted. */
dj_status_t dj_part_copy(dj_rank_t *rank, dj_job_t *part);
void dj_part_copied(dj_job_t *part); /* progress thread, after it */
void dj_pull_part_copied(dj_job_t *part);

/* worker.c, for these: a job that is in no queue, with its clock started; one that ran (its answer leaves,
 * the next one starts); one without an answer. */
dj_job_t *dj_job_take(dj_rank_t *rank, dj_session_t *session, const dj_header_t *header,
                      const void *body);
void dj_job_put(dj_rank_t *rank, dj_job_t *job); /* one that is in no queue */
void dj_job_release(dj_rank_t *rank, dj_job_t *job); /* once: what an EXEC releases, when its bytes have left */
void dj_job_fail(dj_job_t *job, dj_status_t status); /* with the thread's sentence; the first stays */
void dj_job_finish(dj_rank_t *rank, dj_job_t *job);
void dj_job_retire(dj_rank_t *rank, dj_job_t *job);

/* loader.c: LOAD jobs. */
dj_status_t dj_load_execute(dj_rank_t *rank, dj_job_t *job);

/* door.c */
dj_status_t dj_door_open(dj_rank_t *rank);
void dj_door_close(dj_rank_t *rank);
void *dj_door_main(void *rank);
/* The longest time between two heartbeats to one peer, however many there are. */
uint32_t dj_door_round_ms(const dj_config_t *config);
dj_status_t dj_outbox_put(dj_rank_t *rank, uint64_t connection, uint16_t type, const void *body,
                          uint32_t body_bytes, const void *tail, uint32_t tail_bytes, bool end);
dj_status_t dj_outbox_wake(dj_rank_t *rank); /* the control thread looks whether anything has changed */
dj_status_t dj_outbox_welcome(dj_rank_t *rank, uint64_t connection, const dj_welcome_t *welcome,
                              const void *address);

/* A connection that was dialled; the progress thread hears `news` with its number, or with a failed status.
 * Both are taken over on success alone. */
dj_status_t dj_outbox_adopt(dj_rank_t *rank, dj_control_t *control, dj_command_t *news);

/* probe.c: a client was killed; look in the background whether shared memory is still good. */
void dj_probe_start(dj_rank_t *rank);
bool dj_probe_check(dj_rank_t *rank); /* false: it is not, this rank cannot go on */
void dj_probe_end(dj_rank_t *rank);   /* waits for a probe under way */

/* report.c */
void dj_rank_report(dj_rank_t *rank, dj_report_t *report);

#endif
