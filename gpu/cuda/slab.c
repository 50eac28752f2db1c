/* slab.c - memory of the GPU that network cards and other processes' GPUs may be shown (device.h: slab_make).
 *
 * Plain cuMemAlloc: every UCX that knows CUDA exports it by cuda_ipc and registers it for GPUDirect RDMA, which it does
 * with pages mapped one by one (memory.c) only on some drivers. GPUDirect wants SYNC_MEMOPS on what it is given.
 *
 * What a card writes must be seen by the copies that follow. Most GPUs order that by themselves; one that does not is
 * told before a copy out of memory that is no range's, which is a slab.
 *
 * Called by bounce.c, and by copies.c. */
#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/memory.h"

static bool can_flush(const dj_cuda_device_t *device)
{
    int options = 0;
    return dj_cuda.cuDeviceGetAttribute(&options, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS,
                                        device->device) == CUDA_SUCCESS &&
           (options & CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST);
}

CUresult dj_cuda_slab_see(dj_cuda_device_t *device, CUdeviceptr source)
{
    if (!device->flushes || dj_cuda_memory_chunk_end(&device->base, (const void *)(uintptr_t)source))
        return CUDA_SUCCESS;
    return dj_cuda.cuFlushGPUDirectRDMAWrites(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX,
                                              CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER);
}

dj_status_t dj_cuda_slab_make(dj_device_t *base, uint64_t bytes, void **memory_p)
{
    dj_cuda_device_t *device = (dj_cuda_device_t *)base;
    CUdeviceptr address = 0;
    unsigned on = 1;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK)
        return status;
    if (device->flushes && !can_flush(device))
        return dj_fail(DJ_ERR_UNSUPPORTED, "the GPU may not see what a network card writes into its memory");
    status = dj_cuda_status(dj_cuda.cuMemAlloc(&address, bytes), "memory to show the network");
    if (status != DJ_OK)
        return status;
    status = dj_cuda_status(dj_cuda.cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, address),
                            "memory to show the network");
    if (status != DJ_OK) {
        dj_cuda.cuMemFree(address);
        return status;
    }
    *memory_p = (void *)(uintptr_t)address;
    return DJ_OK;
}

void dj_cuda_slab_drop(dj_device_t *base, void *memory, uint64_t bytes)
{
    if (memory && dj_cuda_enter((dj_cuda_device_t *)base) == DJ_OK)
        dj_cuda.cuMemFree((CUdeviceptr)(uintptr_t)memory);
}
