/* cuda_device.h - the CUDA device from inside: what device.c opens and every file here uses.
 *
 * One GPU, one primary context, four streams: compute replays; in and out carry copies of landing and of answers;
 * weights carries the loader's ring. They meet in events alone; nothing here synchronises the whole device.
 *
 * Threads: dj_cuda_enter() makes the context current on the calling thread, at the top of every function of
 * dj_cuda_device_ops. */
#ifndef DJ_GPU_CUDA_DEVICE_H
#define DJ_GPU_CUDA_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "gpu/cuda/kernel.h"

struct dj_cuda_memory;  /* memory.c: mapped chunks */
struct dj_cuda_copies;  /* copies.c: pinned rings */
struct dj_cuda_modules; /* module.c: loaded fatbins and functions */
struct dj_cuda_jit;     /* jit.c: compiled sources, disk cache */
struct dj_cuda_telemetry; /* telemetry.c: NVML's handle */

/* A thread that may be held by the driver (watch.c). */
typedef struct dj_cuda_watch {
    _Atomic uint64_t since_ns; /* 0: nobody */
    atomic_bool is_replay;     /* else a copy */
    _Atomic uint64_t nodes;    /* of a replay: the first and the last one waited for, 32 bits each */
    _Atomic uint32_t ops;      /* theirs */
    uint64_t suspect_ns, suspected_ns; /* of whoever looks: `since_ns` that was too long ago, and when that was found */
} dj_cuda_watch_t;
#define DJ_CUDA_WATCHES_MAX 16

#define DJ_CUDA_COMPILERS_MAX 16

struct dj_cuda_device {
    dj_device_t base;
    dj_device_info_t info;
    CUdevice device;
    CUcontext context;
    CUstream compute, in, out, weights;
    int major, minor; /* compute capability */
    uint32_t multiprocessors, shared_bytes_max; /* of one block, opted in */
    uint32_t n_compilers; /* threads that compile at once, the asking one among them */
    bool fast;        /* DJINN_NUMERICS=fast: TF32 and the like */
    bool use_graphs;  /* false: every replay goes to the stream */
    bool flushes;     /* the GPU must be told to see what a network card has written */
    bool poison;      /* peaks are measured: workspaces end in a guard */
    uint64_t limit_ns; /* of silence; 0: none (watch.c) */
    atomic_bool hangs;         /* for good: nothing is asked of it any more */
    _Atomic uint64_t heard_ns; /* when an event of the compute stream was seen to be over */
    dj_cuda_watch_t watches[DJ_CUDA_WATCHES_MAX];
    struct dj_cuda_memory *memory;
    struct dj_cuda_copies *copies;
    struct dj_cuda_modules *modules;
    struct dj_cuda_jit *jit;
    struct dj_cuda_telemetry *telemetry; /* NULL: NVML is not here */
    cublasLtHandle_t blas; /* NULL: no cuBLASLt here; matmul.c makes it at first use, under `lock` */
    cudnnHandle_t dnn;     /* the same, convolution.c */
    pthread_mutex_t lock;
    char pci[16];
    dj_cuda_device_t *kept; /* the next one that hung (device.c) */
};

/* Makes the context current; cheap when it is. DJ_ERR_DEVICE when it is lost, and when the device hangs. */
dj_status_t dj_cuda_enter(dj_cuda_device_t *device);

/* memory.c: ranges by cuMemAddressReserve, pages by cuMemCreate and cuMemMap in chunks of info.page_bytes multiples. */
dj_status_t dj_cuda_memory_open(dj_cuda_device_t *device);
void dj_cuda_memory_close(dj_cuda_device_t *device);
extern const dj_device_memory_t dj_cuda_memory_ops;

/* copies.c */
dj_status_t dj_cuda_copies_open(dj_cuda_device_t *device);
void dj_cuda_copies_close(dj_cuda_device_t *device);

/* slab.c: before a copy that begins at `source`, where the GPU must be told to see what a card has written. */
CUresult dj_cuda_slab_see(dj_cuda_device_t *device, CUdeviceptr source);

/* telemetry.c; without NVML all fields stay unknown. */
void dj_cuda_telemetry_open(dj_cuda_device_t *device);
void dj_cuda_telemetry_close(dj_cuda_device_t *device);
void dj_cuda_telemetry_read(dj_device_t *device, dj_telemetry_t *says);

/* module.c */
dj_status_t dj_cuda_modules_open(dj_cuda_device_t *device);
void dj_cuda_modules_close(dj_cuda_device_t *device);

/* jit.c: a CUDA C++ source to a function, from the cache on disk (by source, compute capability and NVRTC's
 * version; directory mode 0700, files 0600) or by NVRTC. `name` is the extern "C" kernel in it. The function stays until
 * what was held is dropped; then, or a while later, its module is unloaded, which may wait for all work of the GPU.
 * DJ_ERR_UNSUPPORTED without NVRTC; DJ_ERR_INTERNAL with the compiler's log. */
#define DJ_CUDA_JIT_IDLE_MAX 256 /* modules that nobody holds any more, kept for whoever comes again */
typedef struct dj_cuda_jit_entry dj_cuda_jit_entry_t;
dj_status_t dj_cuda_jit_open(dj_cuda_device_t *device, const char *cache_directory);
void dj_cuda_jit_close(dj_cuda_device_t *device);
dj_status_t dj_cuda_jit_function(dj_cuda_device_t *device, const char *source, const char *name,
                                 CUfunction *function_p, dj_cuda_jit_entry_t **held_p);
void dj_cuda_jit_drop(dj_cuda_device_t *device, dj_cuda_jit_entry_t *held);

/* executable.c, replay.c and watch.c, as dj_device_ops_t says. */
dj_status_t dj_cuda_compile(dj_device_t *device, const dj_graph_t *graph, dj_executable_t **exe_p);
const uint64_t *dj_cuda_workspaces(const dj_executable_t *exe);
dj_status_t dj_cuda_place(dj_executable_t *exe, const dj_plan_t *plan);
dj_status_t dj_cuda_bind(dj_executable_t *exe, struct dj_text *const *texts);
bool dj_cuda_bound(const dj_executable_t *exe, struct dj_text *const *texts);
bool dj_cuda_reentrant(const dj_executable_t *exe);
dj_status_t dj_cuda_replay(dj_executable_t *exe, const dj_launch_t *launch);
uint64_t dj_cuda_bytes(const dj_executable_t *exe);
void dj_cuda_destroy(dj_executable_t *exe);
dj_status_t dj_cuda_responds(dj_device_t *device);

/* The table behind `cuda` (device.c). */
extern const dj_device_ops_t dj_cuda_device_ops;

#endif
