/* device.h - a device: memory by lifetime, and replay of plans. `host` and `cuda` stand behind it.
 *
 * Three layers, each a struct of functions: the device (what it is), its memory (reserve, commit,
 * seal: segment.h builds Text, Data and Stack on it), and executables (one per exact plan).
 *
 *   graph ──compile──▶ executable ──workspace needs──▶ planner ──plan──▶ place
 *   weights ──bind──▶ (packed forms, counted in Text)
 *   request ──replay──▶ steps, with no allocation
 *
 * compile() prepares a kernel a node for the graph's exact sizes (oneDNN primitives, cuBLASLt
 * algorithms) and states the workspace each needs; it refuses an op without a kernel slot
 * (DJ_ERR_UNSUPPORTED names the op). place() takes the plan's offsets. bind() is given the weights
 * behind each binding and makes or finds their packed forms; it is skipped when a request brings the
 * same weights as the last one. replay() runs the steps: it may read and write only the bindings, the
 * slab from 0 to the plan's peak, and packed forms; it allocates nothing and cannot fail half-way for
 * want of memory.
 *
 * Contract 3 (memory) is kept by segment.h, text.h and data.h; the device only supplies pages.
 *
 * Optional slots may be NULL and are marked so; all others must be set.
 *
 * Threads: compile, place and bind from one thread at a time per executable. replay() of one
 * executable from one thread at a time, unless `reentrant` says that it keeps no state. Different
 * executables replay concurrently. */
#ifndef DJ_GPU_DEVICE_H
#define DJ_GPU_DEVICE_H

#include "planner/plan.h"
#include "runtime/base/config.h"

typedef struct dj_device dj_device_t;
typedef struct dj_executable dj_executable_t;
struct dj_text;       /* text.h */
struct dj_text_store; /* text.h */

typedef struct dj_device_info {
    char kind[16];         /* "host", "cuda" */
    char name[64];         /* processor or GPU */
    char isa[32];          /* "avx512", "avx2", "sm_90" */
    dj_hash_t class_hash;  /* kind, instruction set or compute capability, library versions */
    uint64_t memory_bytes; /* of the device */
    uint64_t page_bytes;   /* granularity of commit and seal */
    uint32_t threads;      /* kernel threads (host) */
    bool host_reads;       /* host code may read and write device memory; else copies alone may touch it */
    bool slabs_in_host;    /* slab_make() gives host memory: all that carries bytes reads it */
    bool dma_buf;          /* the driver exports slabs by dma-buf */
    double flops_per_ns, bytes_per_ns;
    uint64_t step_ns;
} dj_device_info_t;

/* Ranges of device memory. All addresses and sizes are multiples of page_bytes. */
typedef struct dj_device_memory {
    /* Address space without pages. DJ_ERR_MEMORY. */
    dj_status_t (*reserve)(dj_device_t *device, uint64_t bytes, void **base_p);
    /* Pages behind [base, base + bytes): zeroed, readable and writable. DJ_ERR_MEMORY. */
    dj_status_t (*commit)(dj_device_t *device, void *base, uint64_t bytes);
    /* Returns the pages; the range faults again when touched. */
    void (*decommit)(dj_device_t *device, void *base, uint64_t bytes);
    /* Read-only by mapping; `sealed` false makes it writable again. DJ_ERR_SYSTEM. */
    dj_status_t (*seal)(dj_device_t *device, void *base, uint64_t bytes, bool sealed);
    void (*release)(dj_device_t *device, void *base, uint64_t bytes);
    /* Optional: a second address of pages. [window, window + bytes), of another range and without pages, shows the
     * pages behind [base, base + bytes), which one commit() made; writable, however those are sealed, until it is
     * decommitted in whole. The pages are those of `base`, which keeps them until then. Kernels that begin after the
     * copies into the window see their bytes at `base`. DJ_ERR_MEMORY, DJ_ERR_INVALID. */
    dj_status_t (*mirror)(dj_device_t *device, void *window, void *base, uint64_t bytes);
    /* Copies between device memory and host memory of any kind, complete on return, after every replay
     * that has returned. Ranges need no alignment. Any thread. DJ_ERR_DEVICE: the device failed for good
     * (as with replay); the bytes are then undefined. 0 bytes touch nothing. */
    dj_status_t (*copy_in)(dj_device_t *device, void *target, const void *host, uint64_t bytes);
    dj_status_t (*copy_out)(dj_device_t *device, void *host, const void *source, uint64_t bytes);
    dj_status_t (*copy)(dj_device_t *device, void *target, const void *source, uint64_t bytes);

    /* All below are optional: a device whose memory the host reads leaves them NULL. */

    /* Every byte becomes `value`; complete on return, as copies are. NULL: done by copies. */
    dj_status_t (*fill)(dj_device_t *device, void *target, uint8_t value, uint64_t bytes);
    /* Both or none: host memory that copies move at full speed (page-locked), aligned to 4096; contents
     * undefined. Slow to make: gpu/bounce.h keeps and reuses it. Any thread. DJ_ERR_MEMORY. */
    dj_status_t (*pin)(dj_device_t *device, uint64_t bytes, void **memory_p);
    void (*unpin)(dj_device_t *device, void *memory, uint64_t bytes);
    /* Both or none: copies into the device that go on alone, one after another in the order of their
     * starts, on a stream of their own (the loader's), beside replays. `host` lies in memory from pin()
     * and both ranges are in use until the copy is over. Tickets rise; finish(t) waits until the copy of
     * ticket t and all before it are over: replays that begin afterwards see the bytes. The calling thread
     * sleeps, it does not spin. Any thread, also several at a time. At most DJ_COPIES_MAX are under way:
     * start() waits for the oldest beyond that. DJ_ERR_DEVICE. */
    dj_status_t (*copy_in_start)(dj_device_t *device, void *target, const void *host, uint64_t bytes,
                                 uint64_t *ticket_p);
    dj_status_t (*copy_in_finish)(dj_device_t *device, uint64_t ticket);
    /* Both or none: memory of the device that a network card, or another process's device, may be shown: what travels
     * passes through it where that is proven to work (gpu/bounce.h). Text, Data and Stack are not shown to anybody.
     * copy() takes its addresses; after bytes have arrived there, copy() sees them. Contents undefined. Any thread.
     * DJ_ERR_MEMORY; DJ_ERR_UNSUPPORTED: no card may write to this device. */
    dj_status_t (*slab_make)(dj_device_t *device, uint64_t bytes, void **memory_p);
    void (*slab_drop)(dj_device_t *device, void *memory, uint64_t bytes);
} dj_device_memory_t;

#define DJ_COPIES_MAX 64

/* What a GPU says of itself just now. `known` has a bit for each field that it does say. */
typedef enum dj_telemetry_field {
    DJ_TELEMETRY_UTILIZATION = 1 << 0,
    DJ_TELEMETRY_MEMORY = 1 << 1, /* used and total */
    DJ_TELEMETRY_TEMPERATURE = 1 << 2,
    DJ_TELEMETRY_ECC = 1 << 3, /* corrected and uncorrected */
    DJ_TELEMETRY_XID = 1 << 4,
    DJ_TELEMETRY_POWER = 1 << 5,
} dj_telemetry_field_t;

typedef struct dj_telemetry {
    uint32_t known;
    uint32_t utilization_percent; /* of time with a kernel running, over the last sample */
    uint32_t temperature_c;
    uint32_t power_mw;
    uint64_t memory_used_bytes, memory_total_bytes; /* of the whole GPU, other processes too */
    uint64_t ecc_corrected, ecc_uncorrected;        /* errors since the driver was loaded (volatile) */
    uint32_t xid;        /* of the latest critical error event since open; 0: none */
    uint32_t xid_count;  /* of them since open */
} dj_telemetry_t;

/* One request's arguments to a replay. */
typedef struct dj_launch {
    void *const *bindings;    /* one pointer a binding of the graph, in its order; folded ones too */
    void *stack;              /* the slab; at least peak_bytes, aligned to DJ_ALIGN_BYTES */
    void *spill;              /* the second slab; at least spill_bytes, aligned alike */
    const uint64_t *scalars;  /* the scalar vector; offsets were checked */
} dj_launch_t;

typedef struct dj_device_ops {
    const char *kind;
    /* `cores`: list as in config; DJ_ERR_UNSUPPORTED when the hardware or a library is missing. */
    dj_status_t (*open)(const dj_config_t *config, dj_device_t **device_p);
    void (*close)(dj_device_t *device);
    const dj_device_info_t *(*info)(const dj_device_t *device);
    dj_device_memory_t memory;

    /* Optional: called once on a thread before its first replay, so that thread teams exist and no
     * replay, not even the first, allocates. */
    void (*thread_start)(dj_device_t *device);

    /* Is there a kernel slot for this op at all? */
    bool (*supports)(const dj_device_t *device, uint16_t op);
    /* `graph` must outlive the executable. */
    dj_status_t (*compile)(dj_device_t *device, const dj_graph_t *graph, dj_executable_t **exe_p);
    /* Workspace of each node of the graph, bytes; owned by the executable. */
    const uint64_t *(*workspaces)(const dj_executable_t *exe);
    /* Takes a plan for the same graph (kept alive by the caller). DJ_ERR_CLASS when a step needs more
     * workspace than the plan gives. May be called again, between replays, with a plan of the same
     * steps and groups and other offsets; what was bound stays bound. */
    dj_status_t (*place)(dj_executable_t *exe, const dj_plan_t *plan);
    /* `texts[i]`: the Text behind binding i, NULL where it is not Text. The executable keeps
     * pointers into them, no reference: a replay runs only while bound() says that the request brings
     * the same ones. DJ_ERR_MEMORY. */
    dj_status_t (*bind)(dj_executable_t *exe, struct dj_text *const *texts);
    /* True when bind() was called with exactly these and replay may follow. */
    bool (*bound)(const dj_executable_t *exe, struct dj_text *const *texts);
    /* True when replay may run on several threads at once and starts no threads of its own. */
    bool (*reentrant)(const dj_executable_t *exe);
    /* Complete on return: outputs may be copied out. DJ_ERR_INVALID: an index was out of range (the node is
     * named); DJ_ERR_DEVICE: the device failed for good, its memory is lost and the process must end. */
    dj_status_t (*replay)(dj_executable_t *exe, const dj_launch_t *launch);
    /* Optional: memory the executable holds, bytes, as far as that is cheap to say; shared packed
     * forms are Text's. */
    uint64_t (*bytes)(const dj_executable_t *exe);
    void (*destroy)(dj_executable_t *exe);

    /* Optional: fills all of *telemetry. One thread at a time, which nobody waits for (it may take
     * milliseconds, and on a GPU that fell off its bus seconds). Works without anything else of the device,
     * also after DJ_ERR_DEVICE. */
    void (*telemetry)(dj_device_t *device, dj_telemetry_t *telemetry);
    /* Optional: DJ_ERR_DEVICE when nothing has ended for longer than the device's limit while a replay or a
     * copy waits, perhaps in a call that never returns. Asked now and then, by one thread, which is never held itself. */
    dj_status_t (*responds)(dj_device_t *device);
} dj_device_ops_t;

/* Every device begins with its table, so device->ops->info(device) works on any. */
struct dj_device {
    const dj_device_ops_t *ops;
    struct dj_text_store *text; /* set by dj_text_store_create() */
};

struct dj_executable {
    const dj_device_ops_t *ops;
    dj_device_t *device;
    const dj_graph_t *graph;
    const dj_plan_t *plan; /* after place() */
    struct dj_fold *fold;  /* the runtime's, or NULL (runtime/fold.c) */
};

/* By config->device. DJ_ERR_INVALID names the known kinds; DJ_ERR_UNSUPPORTED. */
dj_status_t dj_device_open(const dj_config_t *config, dj_device_t **device_p);
static inline void dj_device_close(dj_device_t *device)
{
    device->ops->close(device);
}

#endif
