/* copy.h - copying one view onto another of the same shape, with conversion of dtypes, as launches.
 *
 * The engine behind copy, to_copy, cat, flip, repeat and the first step of scatter: made once from two views, then
 * emitted between any two operands. Equal dtypes move bytes, as wide as the strides allow; a transposition goes
 * through tiles in shared memory.
 *
 * Threads: as kernel.h says of prepare and emit. */
#ifndef DJ_GPU_CUDA_COPY_H
#define DJ_GPU_CUDA_COPY_H

#include "gpu/cuda/kernel.h"
#include "gpu/cuda/kernels/layout.h"

typedef enum dj_cuda_copy_mode {
    DJ_CUDA_COPY_NOTHING, /* no elements: no launch */
    DJ_CUDA_COPY_BYTES,   /* both dense in one piece */
    DJ_CUDA_COPY_ITEMS,
    DJ_CUDA_COPY_TRANSPOSE,
    DJ_CUDA_COPY_CONVERT,
} dj_cuda_copy_mode_t;

typedef struct dj_cuda_copy {
    dj_cuda_copy_mode_t mode;
    dj_loop_t loop; /* from, to; one element is wide_bytes */
    uint32_t item_bytes, wide_bytes;
    uint8_t from_dtype, to_dtype;
    CUfunction function;
} dj_cuda_copy_t;

/* `from` broadcasts to `to`. Strides may be negative (flip). DJ_ERR_SHAPE; DJ_ERR_UNSUPPORTED for conversions of
 * complex numbers; dj_cuda_function()'s. */
dj_status_t dj_cuda_copy_make(dj_executable_t *exe, dj_cuda_copy_t *copy, const dj_view_t *from, const dj_view_t *to);
/* The same from a loop of two views with elements of `item_bytes`, already ordered by the second one's strides. */
dj_status_t dj_cuda_copy_make_loop(dj_executable_t *exe, dj_cuda_copy_t *copy, const dj_loop_t *loop,
                                   uint32_t item_bytes);
dj_status_t dj_cuda_copy_emit(const dj_cuda_copy_t *copy, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_cuda_ref_t from, dj_cuda_ref_t to);

/* Zeros over dense bytes at an address that is a multiple of 16. */
typedef struct dj_cuda_zero {
    CUfunction function;
    uint64_t bytes;
} dj_cuda_zero_t;
dj_status_t dj_cuda_zero_make(dj_executable_t *exe, dj_cuda_zero_t *zero, uint64_t bytes);
dj_status_t dj_cuda_zero_emit(const dj_cuda_zero_t *zero, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_cuda_ref_t to);

/* The loop as kernels take it. */
void dj_cuda_loop_put(dj_cuda_loop_t *to, const dj_loop_t *from);
/* The width, a power of two of at most 16 bytes, at which the loop's rows can be moved in the views' own order: every
 * view dense along the last dimension in items of `item_bytes`, and all that is stepped over, the `steps` too, a
 * multiple of it. Changes the loop to elements of that width. */
uint32_t dj_cuda_loop_widen(dj_loop_t *loop, uint32_t item_bytes, const int64_t *steps, uint32_t n_steps);
/* Memory of the kernel's own as an operand. */
static inline dj_cuda_ref_t dj_cuda_ref_at(CUdeviceptr address)
{
    return (dj_cuda_ref_t){.base = address, .table = DJ_CUDA_NONE, .slot = DJ_CUDA_NONE, .present = 1};
}

#endif
