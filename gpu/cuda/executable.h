/* executable.h - what executable.c, emit.c, graphs.c and replay.c share: an executable, lists of launches, instances.
 *
 * An executable is a row of kernels, one a node, and after place() a row of steps. emit.c turns the steps into a
 * *list*: launches and library calls, in order, each with its parameters ready. That takes a *resolution*, which says
 * where things are:
 *
 *   direct   every address and every view offset is known: one replay's
 *   fixed    only what stays is known (Stack, spill, weights, folded values); all else is read on the device from the
 *            launch's table and scalars, so the list serves every request that brings the same weights
 *
 * replay.c plays a direct list to the compute stream. From the second replay of the same *key* (plan, slabs, addresses
 * of the weights) on, graphs.c has a fixed list captured as CUDA graphs, an *instance*, and a replay is a launch a
 * graph; the first one begins by reading table and scalars.
 *
 * Threads: as device.h says of executables. */
#ifndef DJ_GPU_CUDA_EXECUTABLE_H
#define DJ_GPU_CUDA_EXECUTABLE_H

#include "gpu/bound_text.h"
#include "gpu/cuda/copy.h"
#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/fuse.h"
#include "gpu/place.h"
#include "planner/arena.h"

#define DJ_CUDA_INSTANCES_MAX 4
#define DJ_CUDA_GRAPH_NS 2e6 /* a graph is cut where more than this is predicted: nobody waits for longer */
#define DJ_CUDA_GUARD_BYTES 64u
#define DJ_CUDA_CAPTURE_REST 64u /* replays after a capture that found no memory; twice as many after the next such */
#define DJ_CUDA_FUSED_STEPS_MAX 32
#define DJ_CUDA_FUSED_PLACES_MAX 8

typedef struct dj_cuda_executable dj_cuda_executable_t;

/* ---- lists (emit.c) ---- */

typedef struct dj_cuda_record {
    uint32_t step;       /* of the plan; the first one of a group */
    CUfunction function;
    dj_cuda_grid_t grid;
    dj_cuda_call_fn_t call; /* NULL: a kernel */
    const dj_cuda_kernel_t *kernel; /* of a call */
    uint32_t at, bytes;             /* in `blob`: the parameters, or the addresses */
} dj_cuda_record_t;

typedef struct dj_cuda_list {
    dj_cuda_record_t *records;
    uint32_t n_records, records_room;
    uint8_t *blob;
    uint32_t blob_bytes, blob_room;
} dj_cuda_list_t;

void dj_cuda_list_fini(dj_cuda_list_t *list);

typedef struct dj_cuda_resolution {
    CUdeviceptr stack, spill;
    void *const *bindings;   /* direct: of all; else only those that stay are looked at */
    const uint64_t *scalars; /* direct: values of offsets */
    bool direct;
} dj_cuda_resolution_t;

struct dj_cuda_emit {
    dj_cuda_executable_t *exe;
    const dj_cuda_resolution_t *resolution;
    dj_cuda_list_t *list;
    uint32_t step; /* being emitted; the first one of a group */
};

/* Fills the list anew from all steps; memory of an earlier filling is used again. DJ_ERR_MEMORY. */
dj_status_t dj_cuda_list_make(dj_cuda_executable_t *exe, const dj_cuda_resolution_t *resolution, dj_cuda_list_t *list);
/* One past the last record of the graph that begins with record `first`: whole steps of up to DJ_CUDA_GRAPH_NS. */
uint32_t dj_cuda_list_cut(const dj_cuda_executable_t *exe, const dj_cuda_list_t *list, uint32_t first);
/* Enqueues records [first, end). A driver's error as dj_cuda_status() says it. */
dj_status_t dj_cuda_list_play(dj_cuda_executable_t *exe, const dj_cuda_list_t *list, uint32_t first, uint32_t end,
                              CUstream stream);

/* ---- instances (graphs.c) ---- */

typedef struct dj_cuda_piece {
    CUgraphExec graph;
    uint32_t from, to; /* its first node and its last */
} dj_cuda_piece_t;

typedef struct dj_cuda_instance {
    CUdeviceptr stack, spill;
    void **fixed; /* addresses of the bindings that stay */
    uint64_t used; /* of exe->clock; 0: empty */
    uint32_t seen; /* replays of this key */
    bool refused;  /* could not be captured: plays directly for ever */
    uint32_t rests, rest; /* for want of memory: so many replays more play directly, of so many */
    dj_cuda_piece_t *pieces;
    uint32_t n_pieces;
    bool captured;
} dj_cuda_instance_t;

/* The instance of this launch's key, made new (and empty) in place of the one least recently used. */
dj_cuda_instance_t *dj_cuda_instance_of(dj_cuda_executable_t *exe, const dj_launch_t *launch);
/* Captures it. A status that is not DJ_ERR_DEVICE only means that this key plays directly. */
dj_status_t dj_cuda_instance_capture(dj_cuda_executable_t *exe, dj_cuda_instance_t *instance,
                                     const dj_launch_t *launch);
void dj_cuda_instance_clear(dj_cuda_instance_t *instance);

/* ---- the executable ---- */

/* What a launch brings to the device: n_bindings addresses, then n_scalars scalars, 8 bytes each. */
typedef struct dj_cuda_block {
    CUdeviceptr device;
    uint64_t *mirror;         /* pinned; copied at the start of each replay */
    volatile uint32_t *fault; /* behind the mirror, mapped: kernels write it only on a fault */
    uint8_t *guard;           /* behind it: what a poisoned replay reads back of the workspace's end */
    uint32_t n_bindings, n_scalars;
} dj_cuda_block_t;

typedef struct dj_cuda_step {
    dj_cuda_kernel_t *kernel;
    const dj_place_t *places;
    uint32_t node, n_places, n_outs;
    uint32_t group_steps;        /* pointwise: this and the next ones are one function; 0: in an earlier one's */
    dj_cuda_fused_t *fused;      /* of the first one of a group */
    uint64_t staging;            /* offset of output 0's staged form, contiguous, or DJ_OFFSET_NONE */
    const dj_cuda_copy_t *home;  /* from there to output 0's window */
    double predicted_ns;
} dj_cuda_step_t;

/* A fused function, kept when another plan takes this one's place. */
typedef struct dj_cuda_group {
    struct dj_cuda_group *next;
    dj_cuda_fused_t *fused;
    uint32_t n;
    const dj_node_t *nodes[];
} dj_cuda_group_t;

typedef struct dj_cuda_counters {
    uint64_t direct_replays, graph_replays, captures;
    uint64_t launches; /* of kernels and calls by direct replays, of graphs by the others */
} dj_cuda_counters_t;

struct dj_cuda_executable {
    dj_executable_t base;
    dj_arena_t *arena;
    dj_cuda_kernel_t *kernels; /* of each node */
    dj_place_t *places;        /* of each operand and output of each node, in node order */
    uint32_t *first_place;     /* of each node, and one past the last */
    uint64_t *workspaces;      /* of each node */
    dj_cuda_copy_t **homes;    /* of each node that was ever staged */
    dj_cuda_group_t *groups;
    bool *moves;               /* of each binding: its address is a request's own */
    uint32_t n_fixed;          /* bindings that stay */
    dj_cuda_step_t *steps;     /* after place() */
    uint32_t n_steps;
    dj_cuda_block_t block;     /* after the first place() */
    CUevent done, paces[2];    /* of a replay; of its pieces in turn */
    dj_cuda_watch_t *watch;    /* of a replay */
    uint32_t n_played;         /* pieces of it */
    uint32_t ends[2][2];       /* the first and the last node of its pieces in turn */
    CUfunction move;           /* dense bytes from one operand to another */
    dj_cuda_list_t direct, fixed;
    dj_cuda_instance_t instances[DJ_CUDA_INSTANCES_MAX];
    uint64_t clock;
    dj_bound_text_t *texts; /* of each binding, after bind() */
    bool bound, all_fixed; /* every weight behind a binding is Text */
    dj_cuda_counters_t counters;
};

/* The request's, and those of folded values. */
static inline uint32_t dj_cuda_bindings(const dj_graph_t *graph)
{
    return graph->n_bindings + graph->n_folded;
}

/* Is it made for a step whose output is staged (place())? Then its output 0 is contiguous and not the graph's. */
static inline bool dj_cuda_is_staged(const dj_executable_t *exe, const dj_node_t *node)
{
    uintptr_t at = (uintptr_t)node, first = (uintptr_t)exe->graph->nodes;
    return at < first || at >= first + exe->graph->n_nodes * sizeof(*node);
}

#endif
