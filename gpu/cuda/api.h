/* api.h - the functions of CUDA's libraries, opened at run time.
 *
 * One table for the process. Nothing of it is linked, so one binary starts with and without a GPU; what is missing
 * is NULL and `has` says which libraries are there. Tests fill the table with functions of their own, or put a
 * simulator's libcuda.so.1 in front (tests/gpu/simulator).
 *
 * Declarations: CUDA's own cuda.h for the driver; gpu/cuda/abi/ for the few calls of NVRTC, cuBLASLt, cuDNN and
 * NVML that are made here, because a toolkit may come without those headers (a test compares them where it has
 * them).
 *
 * Threads: dj_cuda_api_load() once, before anything else; then read-only. */
#ifndef DJ_GPU_CUDA_API_H
#define DJ_GPU_CUDA_API_H

#include <cuda.h>
#include <stdbool.h>

#include "gpu/cuda/abi/cublaslt.h"
#include "gpu/cuda/abi/cudnn.h"
#include "gpu/cuda/abi/nvml.h"
#include "gpu/cuda/abi/nvrtc.h"
#include "runtime/base/status.h"

/* X(function): cuda.h's macros give each its versioned symbol. */
#define DJ_CUDA_DRIVER(X)                                                                          \
    X(cuInit)                                                                                      \
    X(cuDriverGetVersion)                                                                          \
    X(cuGetErrorName)                                                                              \
    X(cuGetErrorString)                                                                            \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetCount)                                                                            \
    X(cuDeviceGetName)                                                                             \
    X(cuDeviceGetAttribute)                                                                        \
    X(cuDeviceGetUuid)                                                                             \
    X(cuDeviceGetPCIBusId)                                                                         \
    X(cuDeviceTotalMem)                                                                            \
    X(cuDevicePrimaryCtxRetain)                                                                    \
    X(cuDevicePrimaryCtxRelease)                                                                   \
    X(cuCtxSetCurrent)                                                                             \
    X(cuCtxSynchronize)                                                                            \
    X(cuMemGetInfo)                                                                                \
    X(cuMemAlloc)                                                                                  \
    X(cuMemFree)                                                                                   \
    X(cuMemHostAlloc)                                                                              \
    X(cuMemFreeHost)                                                                               \
    X(cuMemHostRegister)                                                                           \
    X(cuMemHostUnregister)                                                                         \
    X(cuMemAddressReserve)                                                                         \
    X(cuMemAddressFree)                                                                            \
    X(cuMemCreate)                                                                                 \
    X(cuMemRelease)                                                                                \
    X(cuMemMap)                                                                                    \
    X(cuMemUnmap)                                                                                  \
    X(cuMemSetAccess)                                                                              \
    X(cuMemGetAllocationGranularity)                                                               \
    X(cuMemGetHandleForAddressRange)                                                               \
    X(cuPointerGetAttribute)                                                                       \
    X(cuPointerSetAttribute)                                                                       \
    X(cuFlushGPUDirectRDMAWrites)                                                                  \
    X(cuMemcpyHtoDAsync)                                                                           \
    X(cuMemcpyDtoHAsync)                                                                           \
    X(cuMemcpyDtoDAsync)                                                                           \
    X(cuMemsetD8Async)                                                                             \
    X(cuMemsetD32Async)                                                                            \
    X(cuStreamCreateWithPriority)                                                                  \
    X(cuStreamDestroy)                                                                             \
    X(cuStreamSynchronize)                                                                         \
    X(cuStreamQuery)                                                                               \
    X(cuStreamWaitEvent)                                                                           \
    X(cuStreamBeginCapture)                                                                        \
    X(cuStreamEndCapture)                                                                          \
    X(cuEventCreate)                                                                               \
    X(cuEventDestroy)                                                                              \
    X(cuEventRecord)                                                                               \
    X(cuEventSynchronize)                                                                          \
    X(cuEventQuery)                                                                                \
    X(cuEventElapsedTime)                                                                          \
    X(cuGraphInstantiate)                                                                          \
    X(cuGraphUpload)                                                                               \
    X(cuGraphLaunch)                                                                               \
    X(cuGraphDestroy)                                                                              \
    X(cuGraphExecDestroy)                                                                          \
    X(cuModuleLoadData)                                                                            \
    X(cuModuleUnload)                                                                              \
    X(cuModuleGetFunction)                                                                         \
    X(cuFuncLoad)                                                                                  \
    X(cuFuncSetAttribute)                                                                          \
    X(cuFuncGetAttribute)                                                                          \
    X(cuLaunchKernel)

typedef struct dj_cuda_api {
#define DJ_CUDA_SLOT(name) __typeof__(&name) name;
    DJ_CUDA_DRIVER(DJ_CUDA_SLOT)
    DJ_CUDA_NVRTC(DJ_CUDA_SLOT)
    DJ_CUDA_BLAS(DJ_CUDA_SLOT)
    DJ_CUDA_DNN(DJ_CUDA_SLOT)
    DJ_CUDA_NVML(DJ_CUDA_SLOT)
#undef DJ_CUDA_SLOT
    struct {
        bool driver, nvrtc, blas, dnn, nvml;
    } has;
    int driver_version; /* as cuDriverGetVersion() says it: 13000 */
} dj_cuda_api_t;

extern dj_cuda_api_t dj_cuda;

/* Opens what is there, at most once a process. DJ_ERR_UNSUPPORTED when the driver is missing, older than
 * DJ_CUDA_DRIVER_MIN, or lacks a function; the sentence names it. A missing library beside it is only noted. */
#define DJ_CUDA_DRIVER_MIN 12040
dj_status_t dj_cuda_api_load(void);

/* The one conversion of the driver's results (fault.c): DJ_OK, or a status whose sentence is "what: NAME, meaning".
 * DJ_ERR_MEMORY for want of memory, DJ_ERR_RESOURCE where other processes leave no place on the GPU, DJ_ERR_DEVICE for
 * a fault that ends the context (dj_cuda_is_fault()), DJ_ERR_SYSTEM otherwise. */
dj_status_t dj_cuda_status(CUresult result, const char *what);
/* Illegal address, launch failure, ECC, assert and their like: the context is lost, the process must end. */
bool dj_cuda_is_fault(CUresult result);

#endif
