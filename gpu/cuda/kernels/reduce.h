/* reduce.h - parameters of the reductions' kernels (reduce.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_REDUCE_H
#define DJ_GPU_CUDA_KERNELS_REDUCE_H

#include "gpu/cuda/kernels/params.h"

#define DJ_REDUCE_THREADS 256

/* What the elements become while they are folded. */
enum {
    DJ_REDUCE_SUM,
    DJ_REDUCE_PROD,
    DJ_REDUCE_MAX,
    DJ_REDUCE_MIN,
    DJ_REDUCE_ANY,
    DJ_REDUCE_ALL,
    DJ_REDUCE_NORM, /* which one, the scalar says when the kernel runs */
    DJ_REDUCE_VARIANCE,
    DJ_REDUCE_ABS_SUM,
    DJ_REDUCE_SQUARE_SUM,
    DJ_REDUCE_ABS_MAX,
    DJ_REDUCE_ABS_MIN,
    DJ_REDUCE_NONZERO_SUM,
    DJ_REDUCE_POWER_SUM,
};

/* A block has `lanes` threads an output and DJ_REDUCE_THREADS / lanes outputs. Each output's elements are cut into
 * `splits` runs of `split_size`; a unit is a run of a block's outputs. With more than one split the values go to
 * `partials` [output][split], which a second kernel joins. */
typedef struct dj_reduce_params {
    dj_cuda_head_t head;
    dj_cuda_ref_t in, out, index; /* index: of the arguments of an extreme; out may be absent there */
    uint64_t partials;            /* an address */
    dj_cuda_scalar_t scalar;      /* the norm's order, the variance's correction */
    double scalar_absent;
    dj_cuda_loop_t kept;  /* in, out, index */
    dj_cuda_loop_t along; /* in; where order matters in logical order */
    int64_t split_size, units;
    int32_t splits, lanes;
    int32_t columns;  /* neighbouring threads have neighbouring outputs, not neighbouring elements */
    int32_t mean;     /* divide by the count at the end */
    int32_t smallest; /* argmin */
    uint32_t kind, in_dtype, out_dtype;
} dj_reduce_params_t;

#endif
