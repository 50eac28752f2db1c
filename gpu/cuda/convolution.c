/* convolution.c - CONVOLUTION and pooling in two dimensions. */
#include "gpu/cuda/prepare.h"

dj_status_t dj_cuda_convolution_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    return dj_fail(DJ_ERR_UNSUPPORTED, "%s has no CUDA kernel", dj_op_info(kernel->node->call.op)->name);
}

dj_status_t dj_cuda_pool_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    return dj_fail(DJ_ERR_UNSUPPORTED, "%s has no CUDA kernel", dj_op_info(kernel->node->call.op)->name);
}
