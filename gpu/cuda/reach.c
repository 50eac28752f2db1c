/* reach.c - the driver's answers about GPUDirect, and copies for the staging ring (reach.h).
 *
 * A copy that goes on alone has a stream and an event of its own, made once: the ring keeps several under way, and
 * they must not wait for each other or for a replay. */
#include "gpu/cuda/reach.h"

#include <stdlib.h>

#include "runtime/base/memops.h"

typedef struct reach_copy {
    CUstream stream;
    CUevent event;
    bool under_way;
} reach_copy_t;

static dj_cuda_device_t *the_device; /* set once at start */

static bool has(const dj_cuda_device_t *device, CUdevice_attribute attribute)
{
    int value = 0;
    return dj_cuda.cuDeviceGetAttribute(&value, attribute, device->device) == CUDA_SUCCESS && value;
}

dj_cuda_reach_t dj_cuda_reach_of(const dj_cuda_device_t *device)
{
    return (dj_cuda_reach_t){
        .rdma = has(device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED),
        .rdma_vmm = has(device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED),
        .dma_buf = has(device, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED)};
}

/* ---- copies that are complete on return ---- */

static dj_status_t copy_in(void *target, const void *host, size_t size)
{
    return the_device->base.ops->memory.copy_in(&the_device->base, target, host, size);
}

static dj_status_t copy_out(void *host, const void *source, size_t size)
{
    return the_device->base.ops->memory.copy_out(&the_device->base, host, source, size);
}

static dj_status_t copy_between(void *target, const void *source, size_t size)
{
    return the_device->base.ops->memory.copy(&the_device->base, target, source, size);
}

static bool owns(const void *address)
{
    CUmemorytype type = 0;
    return dj_cuda_enter(the_device) == DJ_OK &&
           dj_cuda.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                         (CUdeviceptr)(uintptr_t)address) == CUDA_SUCCESS &&
           type == CU_MEMORYTYPE_DEVICE;
}

/* ---- copies that go on alone ---- */

static void copy_unprepare(void *handle)
{
    reach_copy_t *copy = handle;
    if (dj_cuda_enter(the_device) != DJ_OK)
        return;
    if (copy->under_way)
        dj_cuda.cuStreamSynchronize(copy->stream);
    if (copy->event)
        dj_cuda.cuEventDestroy(copy->event);
    if (copy->stream)
        dj_cuda.cuStreamDestroy(copy->stream);
    free(copy);
}

static dj_status_t copy_prepare(void **handle_p)
{
    dj_status_t status = dj_cuda_enter(the_device);
    if (status != DJ_OK)
        return status;
    reach_copy_t *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a copy of the staging ring");
    CUresult result = dj_cuda.cuStreamCreateWithPriority(&copy->stream, CU_STREAM_NON_BLOCKING, 0);
    if (result == CUDA_SUCCESS)
        result = dj_cuda.cuEventCreate(&copy->event, CU_EVENT_DISABLE_TIMING);
    if (result != CUDA_SUCCESS) {
        copy_unprepare(copy);
        return dj_cuda_status(result, "a stream for the staging ring");
    }
    *handle_p = copy;
    return DJ_OK;
}

static dj_status_t copy_start(void *handle, dj_copy_direction_t direction, void *target,
                              const void *source, size_t size)
{
    reach_copy_t *copy = handle;
    dj_status_t status = dj_cuda_enter(the_device);
    if (status != DJ_OK)
        return status;
    CUresult result =
        direction == DJ_COPY_IN
            ? dj_cuda.cuMemcpyHtoDAsync((CUdeviceptr)(uintptr_t)target, source, size, copy->stream)
            : dj_cuda.cuMemcpyDtoHAsync(target, (CUdeviceptr)(uintptr_t)source, size, copy->stream);
    if (result == CUDA_SUCCESS)
        result = dj_cuda.cuEventRecord(copy->event, copy->stream);
    copy->under_way = result == CUDA_SUCCESS;
    return copy->under_way ? DJ_IN_PROGRESS : dj_cuda_status(result, "a copy of the staging ring");
}

static dj_status_t copy_test(void *handle)
{
    reach_copy_t *copy = handle;
    dj_status_t status = dj_cuda_enter(the_device);
    if (status != DJ_OK || !copy->under_way)
        return status;
    CUresult result = dj_cuda.cuEventQuery(copy->event);
    if (result == CUDA_ERROR_NOT_READY)
        return DJ_IN_PROGRESS;
    copy->under_way = false;
    return dj_cuda_status(result, "a copy of the staging ring");
}

/* ---- pinned memory ---- */

static dj_status_t pin(size_t size, void **memory_p)
{
    dj_status_t status = dj_cuda_enter(the_device);
    if (status != DJ_OK)
        return status;
    return dj_cuda_status(dj_cuda.cuMemHostAlloc(memory_p, size, CU_MEMHOSTALLOC_PORTABLE),
                          "pinned memory for the staging ring");
}

static void unpin(void *memory, size_t size)
{
    if (dj_cuda_enter(the_device) == DJ_OK)
        dj_cuda.cuMemFreeHost(memory);
}

dj_status_t dj_cuda_reach_register(dj_cuda_device_t *device)
{
    static const dj_memops_t row = {.kind = DJ_MEMORY_CUDA,
                                    .name = "cuda",
                                    .copy_in = copy_in,
                                    .copy_out = copy_out,
                                    .copy_between = copy_between,
                                    .owns = owns,
                                    .copy_prepare = copy_prepare,
                                    .copy_start = copy_start,
                                    .copy_test = copy_test,
                                    .copy_unprepare = copy_unprepare,
                                    .pin = pin,
                                    .unpin = unpin};
    the_device = device;
    return dj_memops_register(&row);
}
