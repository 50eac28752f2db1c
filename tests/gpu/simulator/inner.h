/* inner.h - the simulated driver from inside.
 *
 *   driver.c   init, device, context; the gate every call passes (lock, injected failures, sticky faults)
 *   device.c   its facts
 *   pages.c    pages and mappings; what the fault handler opens
 *   memory.c   cuMemCreate, cuMemMap and their rules
 *   alloc.c    cuMemAlloc, pinned memory, facts of pointers
 *   streams.c  streams and events: lazy queues, and which of their work runs when
 *   work.c     copies, fills, launches become operations
 *   execute.c  runs one operation, catches its faults
 *   graphs.c   capture, graphs
 *   modules.c  images and functions
 *
 * Threads: one lock for all; simulated work runs under it. Handles are never reused and their memory never given
 * back, so a stale one is known by its magic; they stay linked. */
#ifndef DJ_TESTS_SIMULATOR_INNER_H
#define DJ_TESTS_SIMULATOR_INNER_H

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/gpu/simulator/simulator.h"

enum {
    SIM_PIECE_BYTES = 2 << 20, /* granularity, and what is opened at a time */
    SIM_POISON = 0x7f,
    SIM_PARAMS_MAX = 4096,
    SIM_NAME_MAX = 128,
};

enum sim_magic {
    SIM_STREAM = 0x5354524d,
    SIM_EVENT = 0x45564e54,
    SIM_MODULE = 0x4d4f4455,
    SIM_FUNCTION = 0x46554e43,
    SIM_GRAPH = 0x47524148,
    SIM_EXEC = 0x45584543,
    SIM_HANDLE = 0x48414e44,
    SIM_CAPTURE = 0x43415054,
    SIM_DEAD = 0x44454144,
};

/* Begins every handle. */
typedef struct sim_object {
    enum sim_magic magic;
    struct sim_object *next;
} sim_object_t;
void *sim_object_create(size_t bytes, enum sim_magic magic);
bool sim_is(const void *object, enum sim_magic magic); /* false for NULL and for what is dead */

/* ---- room.c: 16-byte aligned; aborts when the system has none ---- */

void *sim_room_take(size_t bytes);
void sim_room_give(void *room);

/* ---- driver.c: the gate ---- */

enum sim_need { SIM_ANYTIME, SIM_INIT, SIM_CONTEXT };
/* Takes the lock. Returns the failure injected for `name`, a sticky fault (for SIM_CONTEXT), or what is missing. */
CUresult sim_enter(const char *name, enum sim_need need);
CUresult sim_leave(CUresult result); /* returns it */
extern sim_counters_t sim_count;
extern uint64_t sim_memory_bytes;
extern bool sim_strict;
extern uint64_t sim_seed;
uint64_t sim_draw(void);
/* Until sim_end_hang(); others use the driver meanwhile. */
void sim_stand(void);
/* Says "simulator: ..." on stderr. */
void sim_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern CUresult sim_fault; /* of the context; sticky */

/* ---- pages.c ---- */

typedef struct sim_pages { /* a piece of the device's memory; a handle of cuMemCreate */
    sim_object_t object;
    uint64_t bytes, offset;  /* in the file that is the device's memory */
    uint64_t counted;        /* of the device */
    uint32_t refs;           /* mappings, and one until released */
    bool released;
    uint8_t *poisoned; /* by piece */
} sim_pages_t;

typedef struct sim_mapping {
    uint64_t base, bytes; /* whole pages */
    sim_pages_t *pages;
    CUmemAccess_flags access;
    bool is_alloc;         /* of cuMemAlloc */
    uint64_t first, exact; /* of cuMemAlloc: what was asked for */
    uint32_t n_open;
    uint8_t *open; /* by piece */
} sim_mapping_t;

sim_pages_t *sim_pages_create(uint64_t bytes, uint64_t counted); /* NULL: the device's memory is short */
void sim_pages_unref(sim_pages_t *pages);
uint64_t sim_range_reserve(uint64_t bytes, uint64_t alignment); /* 0: the process has no room */
void sim_range_release(uint64_t base, uint64_t bytes);
/* No access yet. NULL: the system has no mappings left. */
sim_mapping_t *sim_mapping_create(uint64_t base, uint64_t bytes, sim_pages_t *pages);
void sim_mapping_destroy(sim_mapping_t *mapping);
void sim_mapping_set_access(sim_mapping_t *mapping, CUmemAccess_flags access);
sim_mapping_t *sim_mapping_at(uint64_t address); /* NULL */
/* Does anything lie in the range? */
bool sim_is_touched(uint64_t address, uint64_t bytes);
/* Does [address, address + bytes) consist of whole mappings, seamlessly? */
bool sim_is_whole(uint64_t address, uint64_t bytes);
/* May the device touch [address, address + bytes)? */
bool sim_is_device(uint64_t address, uint64_t bytes);
/* From the fault handler: opens the piece. False: nothing is there, or the access is wrong. */
bool sim_open(uint64_t address);
/* After work: nothing is open any more (strict). */
void sim_close_all(void);

/* ---- alloc.c ---- */

bool sim_is_pinned(const void *host, uint64_t bytes);

/* ---- operations ---- */

typedef struct sim_ticket { /* one record of an event */
    uint32_t refs;
    bool done;
    struct sim_stream *stream;
    uint64_t sequence;
    double time_ms;
} sim_ticket_t;

enum sim_kind { SIM_KERNEL, SIM_COPY, SIM_FILL, SIM_RECORD, SIM_WAIT, SIM_LAUNCH, SIM_CALL, SIM_NOTHING };

typedef struct sim_op {
    enum sim_kind kind;
    size_t bytes; /* of this struct and its data */
    uint64_t sequence;
    struct sim_op *next;
    union {
        struct {
            struct sim_function *function;
            unsigned grid[3], block[3], shared;
        } kernel; /* data: the params */
        struct {
            uint64_t target, source, bytes;
            bool staged; /* the source is in data */
        } copy;
        struct {
            uint64_t target, count;
            uint32_t value, width;
        } fill;
        sim_ticket_t *ticket;
        struct sim_exec *exec;
        void (*call)(void *argument); /* data: the argument */
    };
    _Alignas(16) unsigned char data[];
} sim_op_t;

sim_op_t *sim_op_create(enum sim_kind kind, size_t data_bytes);
void sim_op_destroy(sim_op_t *op); /* gives back its ticket or graph */
void sim_ticket_unref(sim_ticket_t *ticket);

/* ---- execute.c ---- */

void sim_work_begin(void); /* before a row of sim_execute() */
void sim_work_end(void);
/* Runs the op; sets sim_fault when it goes wrong. What hangs has not run. */
enum sim_hang sim_execute(sim_op_t *op);
/* From within simulated work: ends it, with this fault. */
void sim_leave_work(CUresult fault) __attribute__((noreturn));
enum sim_hang { SIM_RUNS, SIM_HANGS, SIM_STUCK };
extern enum sim_hang sim_hang_wanted; /* of the next kernel */
void sim_perform(sim_op_t *op); /* inside sim_execute(): a graph's nodes */

/* ---- streams.c ---- */

typedef struct sim_node_set { /* of a graph, by number */
    uint32_t n;
    uint32_t at[];
} sim_node_set_t;

typedef struct sim_stream {
    sim_object_t object;
    bool blocking; /* meets the default stream */
    bool hangs;    /* its first operation */
    sim_op_t *head, *tail;
    uint64_t target; /* scratch of the runner */
    struct sim_capture *capture;
    sim_node_set_t *leaves; /* of the capture: what the next node depends on */
    struct sim_stream *next;
} sim_stream_t;

typedef struct sim_event {
    sim_object_t object;
    bool timing;
    sim_ticket_t *ticket;        /* of the newest record, NULL before */
    struct sim_capture *capture; /* where it was recorded instead */
    sim_node_set_t *leaves;
} sim_event_t;

extern sim_stream_t sim_default, *sim_streams; /* all; the default one is last */
sim_stream_t *sim_stream_of(CUstream stream);  /* NULL: no such */
/* Appends to the stream, or to its capture; owns op. */
CUresult sim_submit(sim_stream_t *stream, sim_op_t *op);
/* Runs the stream's work up to `sequence` and all that it waits for. */
CUresult sim_run_to(sim_stream_t *stream, uint64_t sequence);
CUresult sim_run_all(void);
/* Forgets what is queued: the context is gone. */
void sim_drop_all(void);

/* ---- graphs.c ---- */

CUresult sim_capture_op(sim_stream_t *stream, sim_op_t *op);
CUresult sim_capture_record(sim_stream_t *stream, sim_event_t *event);
CUresult sim_capture_wait(sim_stream_t *stream, sim_event_t *event);
bool sim_capture_has(const sim_event_t *event); /* was it last recorded in a capture? */
/* A call that a capture forbids: spoils the stream's. */
CUresult sim_capture_spoil(sim_stream_t *stream);
/* The same of every capture where the caller is not allowed unsafe calls; `always`: in relaxed ones too. */
CUresult sim_capture_forbid(bool always);
/* The default stream may not be used beside a capture in a blocking stream. */
CUresult sim_capture_beside(const sim_stream_t *stream);
void sim_exec_run(struct sim_exec *exec);
void sim_exec_unref(struct sim_exec *exec);

/* ---- modules.c ---- */

typedef struct sim_function {
    sim_object_t object;
    char name[SIM_NAME_MAX];
    sim_kernel_t kernel;
    uint64_t params_bytes;
    char *const *shared; /* first and end of its object's __shared__ variables; NULL, NULL: it has none */
    struct sim_module *module;
    unsigned shared_max; /* dynamic */
    bool loaded;         /* by cuFuncLoad, or at its first launch */
} sim_function_t;

#endif
