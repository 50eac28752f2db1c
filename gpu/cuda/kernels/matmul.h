/* matmul.h - parameters of the kernels of matrix products (matmul.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_MATMUL_H
#define DJ_GPU_CUDA_KERNELS_MATMUL_H

#include "gpu/cuda/kernels/params.h"

/* The threads of a block make one tile of C, 4 x 4 elements each. */
#define DJ_MATMUL_THREADS 256
#define DJ_MATMUL_TILE 64

/* C = alpha * A B + beta * addend. With beta 0 the addend is not read, whatever it holds; an absent factor is 1. */
typedef struct dj_matmul {
    dj_cuda_head_t head;
    dj_cuda_ref_t a, b, c, addend;
    dj_cuda_scalar_t alpha, beta;
    int64_t batch, rows, columns, depth;
    int64_t a_strides[3], b_strides[3], c_strides[3], addend_strides[3]; /* batch, row, column; elements */
} dj_matmul_t;

/* What comes before a library's product that reads alpha and beta from memory: the addend broadcast to `to`, times
 * beta where `scaled`, zeros where beta is 0; and the factors {alpha, beta} of the library's `compute` type, {alpha,
 * 0} where `scaled`. */
typedef struct dj_matmul_addend {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, to, factors; /* factors may be absent */
    dj_cuda_scalar_t alpha, beta;
    dj_cuda_loop_t loop; /* from, to */
    uint32_t scaled;
} dj_matmul_addend_t;

#endif
