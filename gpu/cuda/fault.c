/* fault.c - the one conversion of CUDA's results to statuses.
 *
 * Four kinds matter to callers: memory is short (the request is refused, the rank goes on), the GPU has no place for
 * one more process just now (a later try may find one), the context is lost (the rank must end, its supervisor starts
 * another), anything else (this call failed). A fault is sticky: every later call answers the same, so it is enough that
 * whoever meets it first passes it up.
 *
 * Faults are those of which cuda.h (13.0) says that the process is in an inconsistent state, must be terminated, or that
 * the context cannot be used; hardware errors met during execution; and what ends a context without such words. Under
 * MPS that is the death of its server: its client's calls fail in the way between them. Of a failed key rotation
 * (confidential computing) nothing of that kind is said, so it is no fault; the calls after it will tell. */
#include "gpu/cuda/api.h"

bool dj_cuda_is_fault(CUresult result)
{
    switch ((int)result) {
    case CUDA_ERROR_DEINITIALIZED:
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
    case CUDA_ERROR_MPS_RPC_FAILURE:
    case CUDA_ERROR_MPS_CLIENT_TERMINATED:
    case CUDA_ERROR_EXTERNAL_DEVICE:
    case CUDA_ERROR_UNKNOWN: /* a GPU that fell off its bus answers so */
        return true;
    default:
        return false;
    }
}

/* Others hold what a context needs: another process an exclusive GPU, other clients all of MPS. */
static bool is_taken(CUresult result)
{
    switch ((int)result) {
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_MPS_CONNECTION_FAILED:
    case CUDA_ERROR_MPS_SERVER_NOT_READY:
    case CUDA_ERROR_MPS_MAX_CLIENTS_REACHED:
    case CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED:
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
                         : is_taken(result)                 ? DJ_ERR_RESOURCE
                         : dj_cuda_is_fault(result)         ? DJ_ERR_DEVICE
                                                            : DJ_ERR_SYSTEM;
    if (!name)
        return dj_fail(status, "%s: CUDA error %d", what, (int)result);
    return dj_fail(status, "%s: %s, %s", what, name, meaning ? meaning : "no more is known");
}
