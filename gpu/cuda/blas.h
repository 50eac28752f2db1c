/* blas.h - one matrix product prepared with cuBLASLt: descriptors, the algorithm it advises, the workspace that this
 * needs.
 *
 * The library sees matrices column by column, we row by row; so it is asked for C' = B' A', which are the same bytes.
 *
 * Ownership: dj_cuda_blas_destroy() after a prepare that succeeded.
 * Threads: as kernel.h says of prepare and emit; the library's handle is the device's. */
#ifndef DJ_GPU_CUDA_BLAS_H
#define DJ_GPU_CUDA_BLAS_H

#include "gpu/cuda/cuda_device.h"

/* A matrix whose lines lie dense, `line` elements apart: rows, or columns where `turned`. */
typedef struct dj_cuda_blas_matrix {
    bool turned;
    int64_t line, batch_stride;
    uint32_t align_bytes; /* of its address */
} dj_cuda_blas_matrix_t;

typedef struct dj_cuda_blas_shape {
    uint8_t dtype;
    int64_t batch, m, n, k;
    dj_cuda_blas_matrix_t a, b, c; /* c is not turned */
    bool bias;                     /* a vector of n is added to each row, from an address that is a multiple of 16 */
    bool adds;                     /* C already holds what the product is added to */
    bool factors;                  /* alpha and beta are read from device memory, else 1 and `adds` */
} dj_cuda_blas_shape_t;

typedef struct dj_cuda_blas {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t left, right, result; /* in the library's order: our B, our A, C */
    cublasLtMatmulAlgo_t algo;
    size_t workspace_bytes;
    double host_factors[2]; /* of the scale type, float or double */
    bool bias, factors;
    uint32_t scale_bytes;
} dj_cuda_blas_t;

/* DJ_ERR_UNSUPPORTED: no library here, or it has no algorithm for this; DJ_ERR_MEMORY. */
dj_status_t dj_cuda_blas_prepare(dj_cuda_device_t *device, const dj_cuda_blas_shape_t *shape, dj_cuda_blas_t *blas);
void dj_cuda_blas_destroy(dj_cuda_blas_t *blas);

/* Addresses of a product. `bias` and `factors` (alpha, then beta, of the scale type) where the shape has them. */
typedef struct dj_cuda_blas_at {
    CUdeviceptr a, b, c, workspace, bias, factors;
} dj_cuda_blas_at_t;
dj_status_t dj_cuda_blas_run(const dj_cuda_blas_t *blas, dj_cuda_device_t *device, CUstream stream,
                             const dj_cuda_blas_at_t *at);

/* The device's handle, made at first use; NULL, after one warning, where there is no library. */
cublasLtHandle_t dj_cuda_blas_handle(dj_cuda_device_t *device);

#endif
