/* sort.h - sorting rows as launches: what sort, topk and index_put's accumulation are made of.
 *
 * Stable: equal elements keep their order, also when descending. A NaN is greater than everything. With k below n
 * only the first k of each row come out.
 *
 * Threads: as kernel.h says of prepare and emit. */
#ifndef DJ_GPU_CUDA_SORT_H
#define DJ_GPU_CUDA_SORT_H

#include "gpu/cuda/kernel.h"
#include "gpu/cuda/kernels/scan.h"

typedef struct dj_cuda_sort {
    CUfunction tiles, merge;
    dj_scan_sort_t params; /* without refs and buffers */
    uint64_t buffer_bytes; /* of each of the two buffers */
} dj_cuda_sort_t;

/* Sets what follows from params.rows, n, k, dtype, item_bytes and the strides, which the caller has filled, and loads
 * the functions. DJ_ERR_UNSUPPORTED for rows too long for their buffers; dj_cuda_function()'s. */
dj_status_t dj_cuda_sort_make(dj_executable_t *exe, dj_cuda_sort_t *sort);
/* Room needed at `workspace`, a multiple of DJ_ALIGN_BYTES. */
static inline uint64_t dj_cuda_sort_bytes(const dj_cuda_sort_t *sort)
{
    return 2 * sort->buffer_bytes;
}
/* Indices are int64. `values` may be absent. */
dj_status_t dj_cuda_sort_emit(const dj_cuda_sort_t *sort, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                              dj_cuda_ref_t from, dj_cuda_ref_t values, dj_cuda_ref_t indices,
                              CUdeviceptr workspace);

#endif
