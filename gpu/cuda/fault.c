/* fault.c - the one conversion of CUDA's results to statuses.
 *
 * Three kinds matter to callers: memory is short (the request is refused, the rank goes on), the context is lost (the
 * rank must end, its supervisor starts another), anything else (this call failed). A fault is sticky: every later call
 * answers the same, so it is enough that whoever meets it first passes it up. */
#include "gpu/cuda/api.h"

bool dj_cuda_is_fault(CUresult result)
{
    switch ((int)result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case 226: /* CUDA_ERROR_CONTAINED, since 12.9: memory failed, the damage was kept in */
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case 721: /* CUDA_ERROR_TENSOR_MEMORY_LEAK, since 12.8 */
    case CUDA_ERROR_MPS_CLIENT_TERMINATED:
    case CUDA_ERROR_EXTERNAL_DEVICE:
    case CUDA_ERROR_UNKNOWN: /* a GPU that fell off its bus answers so */
        return true;
    default:
        return false;
    }
}

dj_status_t dj_cuda_status(CUresult result, const char *what)
{
    const char *name = NULL, *meaning = NULL;
    if (result == CUDA_SUCCESS)
        return DJ_OK;
    if (dj_cuda.cuGetErrorName && dj_cuda.cuGetErrorName(result, &name) != CUDA_SUCCESS)
        name = NULL;
    if (dj_cuda.cuGetErrorString && dj_cuda.cuGetErrorString(result, &meaning) != CUDA_SUCCESS)
        meaning = NULL;
    dj_status_t status = result == CUDA_ERROR_OUT_OF_MEMORY ? DJ_ERR_MEMORY
                         : dj_cuda_is_fault(result)         ? DJ_ERR_DEVICE
                                                            : DJ_ERR_SYSTEM;
    if (!name)
        return dj_fail(status, "%s: CUDA error %d", what, (int)result);
    return dj_fail(status, "%s: %s, %s", what, name, meaning ? meaning : "no more is known");
}
