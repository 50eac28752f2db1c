/* abi_check.c - the declarations of gpu/cuda/abi/ against NVIDIA's own headers, by the compiler alone. Built where
 * CMake finds the headers; never run.
 *
 * The types come from NVIDIA, our functions are declared once more over its own, and our lists of values, sizes and
 * offsets are compared one by one. */
#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

#define DJ_CUDA_ABI_CHECK

#define SAME_VALUE(name, value) _Static_assert((int)(name) == (value), #name);
#define SAME_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "size of " #type);
#define SAME_OFFSET(type, member, bytes) _Static_assert(offsetof(type, member) == (bytes), #type "." #member);

#ifdef DJ_CHECK_CUBLASLT
#include <cublasLt.h>
/* ours after it */
#include "gpu/cuda/abi/cublaslt.h"
DJ_CUDA_BLAS_VALUES(SAME_VALUE)
DJ_CUDA_BLAS_SIZES(SAME_SIZE)
DJ_CUDA_BLAS_OFFSETS(SAME_OFFSET)
#endif

#ifdef DJ_CHECK_CUDNN
#include <cudnn.h>
/* ours after it */
#include "gpu/cuda/abi/cudnn.h"
DJ_CUDA_DNN_VALUES(SAME_VALUE)
DJ_CUDA_DNN_SIZES(SAME_SIZE)
DJ_CUDA_DNN_OFFSETS(SAME_OFFSET)
#endif

#ifdef DJ_CHECK_NVRTC
#include <nvrtc.h>
/* ours after it */
#include "gpu/cuda/abi/nvrtc.h"
SAME_VALUE(NVRTC_SUCCESS, 0)
SAME_SIZE(nvrtcResult, 4)
#endif

/* Structs of NVML have names of our own, so its functions are only compared by what they pass. */
#ifdef DJ_CHECK_NVML
#define nvmlDevice_t dj_nvmlDevice_t
#define nvmlEventSet_t dj_nvmlEventSet_t
#define nvmlReturn_t dj_nvmlReturn_t
#define nvmlInit_v2 dj_nvmlInit_v2
#define nvmlShutdown dj_nvmlShutdown
#define nvmlDeviceGetHandleByPciBusId_v2 dj_nvmlDeviceGetHandleByPciBusId_v2
#define nvmlDeviceGetUtilizationRates dj_nvmlDeviceGetUtilizationRates
#define nvmlDeviceGetMemoryInfo dj_nvmlDeviceGetMemoryInfo
#define nvmlDeviceGetTemperature dj_nvmlDeviceGetTemperature
#define nvmlDeviceGetPowerUsage dj_nvmlDeviceGetPowerUsage
#define nvmlDeviceGetTotalEccErrors dj_nvmlDeviceGetTotalEccErrors
#define nvmlEventSetCreate dj_nvmlEventSetCreate
#define nvmlEventSetFree dj_nvmlEventSetFree
#define nvmlDeviceRegisterEvents dj_nvmlDeviceRegisterEvents
#define nvmlEventSetWait_v2 dj_nvmlEventSetWait_v2
#include "gpu/cuda/abi/nvml.h"
#undef nvmlDevice_t
#undef nvmlEventSet_t
#undef nvmlReturn_t
#undef nvmlInit_v2
#undef nvmlShutdown
#undef nvmlDeviceGetHandleByPciBusId_v2
#undef nvmlDeviceGetUtilizationRates
#undef nvmlDeviceGetMemoryInfo
#undef nvmlDeviceGetTemperature
#undef nvmlDeviceGetPowerUsage
#undef nvmlDeviceGetTotalEccErrors
#undef nvmlEventSetCreate
#undef nvmlEventSetFree
#undef nvmlDeviceRegisterEvents
#undef nvmlEventSetWait_v2
/* theirs after it */
#include <nvml.h>

#define SAME_STRUCT(ours, theirs) _Static_assert(sizeof(ours) == sizeof(theirs), #theirs);
#define SAME_MEMBER(ours, member, theirs, their_member)                                            \
    _Static_assert(offsetof(ours, member) == offsetof(theirs, their_member), #theirs "." #their_member);
SAME_VALUE(NVML_SUCCESS, 0)
SAME_VALUE(NVML_TEMPERATURE_GPU, DJ_NVML_TEMPERATURE_GPU)
SAME_VALUE(NVML_MEMORY_ERROR_TYPE_CORRECTED, DJ_NVML_ECC_CORRECTED)
SAME_VALUE(NVML_MEMORY_ERROR_TYPE_UNCORRECTED, DJ_NVML_ECC_UNCORRECTED)
SAME_VALUE(NVML_VOLATILE_ECC, DJ_NVML_ECC_VOLATILE)
SAME_VALUE(nvmlEventTypeXidCriticalError, DJ_NVML_EVENT_XID)
SAME_STRUCT(dj_nvmlReturn_t, nvmlReturn_t)
SAME_STRUCT(dj_nvmlDevice_t, nvmlDevice_t)
SAME_STRUCT(dj_nvml_utilization_t, nvmlUtilization_t)
SAME_STRUCT(dj_nvml_memory_t, nvmlMemory_t)
SAME_MEMBER(dj_nvml_memory_t, used, nvmlMemory_t, used)
SAME_STRUCT(dj_nvml_event_t, nvmlEventData_t)
SAME_MEMBER(dj_nvml_event_t, type, nvmlEventData_t, eventType)
SAME_MEMBER(dj_nvml_event_t, data, nvmlEventData_t, eventData)
_Static_assert(sizeof(&nvmlInit_v2) && sizeof(&nvmlEventSetWait_v2) && sizeof(&nvmlDeviceGetHandleByPciBusId_v2),
               "versions that we ask for");
#endif
