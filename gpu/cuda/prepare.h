/* prepare.h - the prepare functions of every kernel family, as slots.c puts them into slots. */
#ifndef DJ_GPU_CUDA_PREPARE_H
#define DJ_GPU_CUDA_PREPARE_H

#include "gpu/cuda/kernel.h"

/* X(function, family): dj_cuda_<function>_prepare in gpu/cuda/<family>.c */
#define DJ_CUDA_PREPARES(X)                                                                        \
    X(pointwise, fuse)                                                                             \
    X(copy, layout)                                                                                \
    X(empty, layout)                                                                               \
    X(full, layout)                                                                                \
    X(arange, layout)                                                                              \
    X(cat, layout)                                                                                 \
    X(triangle, layout)                                                                            \
    X(repeat, layout)                                                                              \
    X(flip, layout)                                                                                \
    X(embedding, index)                                                                            \
    X(index_select, index)                                                                         \
    X(gather, index)                                                                               \
    X(index, index)                                                                                \
    X(index_copy, index)                                                                           \
    X(index_put, index)                                                                            \
    X(scatter, index)                                                                              \
    X(isin, index)                                                                                 \
    X(reduce, reduce)                                                                              \
    X(arg_reduce, reduce)                                                                          \
    X(cumsum, scan)                                                                                \
    X(topk, scan)                                                                                  \
    X(sort, scan)                                                                                  \
    X(layer_norm, norm)                                                                            \
    X(softmax, norm)                                                                               \
    X(batch_norm, norm)                                                                            \
    X(attention, attention)                                                                        \
    X(matmul, matmul)                                                                              \
    X(convolution, convolution)                                                                    \
    X(pool, convolution)

#define DJ_CUDA_DECLARE(function, family)                                                          \
    dj_status_t dj_cuda_##function##_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel);
DJ_CUDA_PREPARES(DJ_CUDA_DECLARE)
#undef DJ_CUDA_DECLARE

#endif
