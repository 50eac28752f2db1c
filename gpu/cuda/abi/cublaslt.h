/* cublaslt.h - what is called of cuBLASLt 12 and 13 (matmul.c): NVIDIA's documented ABI. */
#ifndef DJ_GPU_CUDA_ABI_CUBLASLT_H
#define DJ_GPU_CUDA_ABI_CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

typedef struct cublasLtContext *cublasLtHandle_t;
typedef int cublasStatus_t; /* 0: success */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle);
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle);
size_t cublasLtGetVersion(void);

#define DJ_CUDA_BLAS(X)                                                                            \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetVersion)

#endif
