/* watch.h - who waits for the GPU, since when and for what (watch.c).
 *
 * Threads: any, each for itself; dj_cuda_responds() is for another one. */
#ifndef DJ_GPU_CUDA_WATCH_H
#define DJ_GPU_CUDA_WATCH_H

#include "gpu/cuda/cuda_device.h"

/* From here to its end a thread may be in the driver. NULL: too many are, and this one is not watched. */
dj_cuda_watch_t *dj_cuda_watch_begin(dj_cuda_device_t *device, bool is_replay);
void dj_cuda_watch_end(dj_cuda_watch_t *watch);
/* What a replay waits for next: these nodes, in the graph's order of steps. */
void dj_cuda_watch_nodes(dj_cuda_watch_t *watch, const dj_graph_t *graph, uint32_t from, uint32_t to);
/* An event of the compute stream was seen to be over. */
void dj_cuda_watch_heard(dj_cuda_device_t *device);

/* cuEventSynchronize() and cuStreamSynchronize() of copies. */
CUresult dj_cuda_wait(dj_cuda_device_t *device, CUevent event);
CUresult dj_cuda_drain(dj_cuda_device_t *device, CUstream stream);

static inline bool dj_cuda_hangs(const dj_cuda_device_t *device)
{
    return atomic_load_explicit(&device->hangs, memory_order_relaxed);
}

#endif
