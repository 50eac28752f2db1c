/* simulator.h - what the simulated driver offers beyond CUDA: to tests, and to the other simulated libraries.
 *
 * libcuda.so.1 here is a test double of the *driver*: host logic and device code really run, on the CPU. The product
 * never sees this header; tests find the functions by dlsym(RTLD_DEFAULT) or dlopen("libcuda.so.1"), the simulated
 * libraries (cublaslt.c, cudnn.c) link them.
 *
 * Environment: DJ_SIM_MEMORY (bytes of the device, k, m, g allowed; default 4g), DJ_SIM_SEED (order of threads, blocks
 * and streams; 0, the default, keeps them in order), DJ_SIM_STRICT=0 (device memory is open to host code),
 * DJ_SIM_CXX (the compiler behind NVRTC; default g++), DJ_SIM_FAULT_FILE (the next launch, of whichever process, that
 * finds this file takes it away and ends with an illegal address; if the file begins with "hang" it never ends, and if
 * with "stuck" the call of the driver that came upon it does not return, either). */
#ifndef DJ_TESTS_SIMULATOR_H
#define DJ_TESTS_SIMULATOR_H

#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* emulate.cpp: runs every thread of the grid, here and now. `params`: the struct that DJ_KERNEL names. */
typedef void (*sim_kernel_t)(const void *params);
void sim_launch(sim_kernel_t kernel, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes,
                const void *params);

/* Work of another library on a stream: fn(argument) runs when the stream gets there, device memory open. The argument
 * is copied; a capture takes it into the graph. Checks what cuLaunchKernel checks of the stream. */
CUresult sim_enqueue(CUstream stream, void (*fn)(void *), const void *argument, size_t bytes);

/* ---- hooks for tests ---- */

/* The next call of this function (cuda.h's name, without _v2) returns `result` and does nothing. */
void sim_fail_next(const char *function, CUresult result);
/* The same after `passed` calls of it that do what they should. 0: it has not come to that yet. */
void sim_fail_after(const char *function, unsigned passed, CUresult result);
int sim_has_failed(void);
/* The context is lost to `result` (as by an ECC error) from now on, until the primary context is released by all;
 * CUDA_SUCCESS forgets it at once. */
void sim_set_fault(CUresult result);

/* The next kernel never ends: its stream stands still, and so do calls that wait for it. `stuck`: so does the call that
 * came upon it, whatever it asks. Streams beside it go on. */
void sim_hang_next(int stuck);
/* It runs and ends after all. */
void sim_end_hang(void);

typedef struct sim_counters {
    uint64_t allocations;        /* live cuMemAlloc */
    uint64_t handles;            /* live cuMemCreate, mapped ones too */
    uint64_t reservations;       /* live cuMemAddressReserve */
    uint64_t reserved_bytes;
    uint64_t mapped_bytes;       /* of cuMemMap */
    uint64_t used_bytes;         /* of the device: cuMemCreate and cuMemAlloc */
    uint64_t pinned_bytes;       /* cuMemHostAlloc and cuMemHostRegister */
    uint64_t streams, events, modules, graphs, graph_execs; /* live */
    uint64_t contexts;           /* retains of the primary context */
    uint64_t graph_launches, kernel_launches, copies, memsets, calls; /* ever; those in graphs when they run */
    uint64_t synchronizations;   /* ever: stream, event, context */
    uint64_t queries;            /* ever: cuEventQuery and cuStreamQuery */
    uint64_t entered;            /* ever: functions of the driver called */
} sim_counters_t;
void sim_counters(sim_counters_t *counters);

/* libnvidia-ml.so.1: an Xid event, for those who registered. */
void sim_post_xid(unsigned xid);

#ifdef __cplusplus
}
#endif

#endif
