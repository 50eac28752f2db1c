/* reach.h - how the GPU's memory meets the network: what the driver offers, and the row of the memory-operation
 * table (runtime/base/memops.h) that comm's staging ring copies with.
 *
 * The choice itself (dma-buf, nvidia_peermem, cuda_ipc, staging) is comm/path.c's, from these facts and UCX's own.
 *
 * Threads: dj_cuda_reach_register() at start; the rest from any thread. */
#ifndef DJ_GPU_CUDA_REACH_H
#define DJ_GPU_CUDA_REACH_H

#include "gpu/cuda/cuda_device.h"

typedef struct dj_cuda_reach {
    bool rdma;     /* GPUDirect RDMA at all */
    bool rdma_vmm; /* of mapped (VMM) memory, which Text, Data and Stack are */
    bool dma_buf;  /* a range can be exported as a dma-buf */
} dj_cuda_reach_t;

/* The driver's attributes; a question that it does not know is a no. */
dj_cuda_reach_t dj_cuda_reach_of(const dj_cuda_device_t *device);
/* Makes this device the CUDA row of the table; the device must live as long as the process. DJ_ERR_INVALID: a row is
 * there already. */
dj_status_t dj_cuda_reach_register(dj_cuda_device_t *device);

#endif
