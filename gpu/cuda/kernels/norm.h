/* norm.h - parameters of the kernels of softmax, layer norm and batch norm (norm.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_NORM_H
#define DJ_GPU_CUDA_KERNELS_NORM_H

#include "gpu/cuda/kernels/params.h"

/* Rows of `size` elements; a block has `lanes` threads a row (a power of two up to 32, or the whole block). */
typedef struct dj_softmax_params {
    dj_cuda_head_t head;
    dj_cuda_ref_t in, out;
    dj_cuda_loop_t rows;                 /* in, out: the first element of each row */
    int64_t size, in_stride, out_stride; /* along a row; strides in bytes */
    int32_t lanes;
    int32_t columns; /* neighbouring threads have neighbouring rows, not neighbouring elements */
    int32_t dense;   /* both rows are: 16 bytes at once where addresses allow it */
    int32_t is_log;
} dj_softmax_params_t;

typedef struct dj_layer_norm_params {
    dj_cuda_head_t head;
    dj_cuda_ref_t in, weight, bias, out, mean, deviation;
    dj_cuda_scalar_t eps;
    dj_cuda_loop_t rows;  /* in, out, statistics */
    dj_cuda_loop_t along; /* in, weight, bias, out */
    int32_t lanes;
    int32_t dense; /* all four are along a row */
} dj_layer_norm_params_t;

/* First the channels: mean, factor and term of each into the workspace; then the elements. */
typedef struct dj_batch_norm_params {
    dj_cuda_head_t head;
    dj_cuda_ref_t in, weight, bias, mean, variance, out, saved_mean, saved_deviation;
    uint64_t channels; /* an address of float[3][n_channels] */
    dj_cuda_scalar_t eps;
    dj_cuda_loop_t elements; /* in, channel (one a byte), out */
    int64_t n_channels;
    int64_t strides[4];                   /* of weight, bias, mean, variance; bytes */
    uint32_t dtypes[4];
} dj_batch_norm_params_t;

#endif
