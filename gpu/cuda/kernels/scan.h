/* scan.h - parameters of the kernels that look at elements in order: cumsum, topk, sort (scan.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_SCAN_H
#define DJ_GPU_CUDA_KERNELS_SCAN_H

#include "gpu/cuda/kernels/dtypes.h"
#include "gpu/cuda/kernels/params.h"

typedef struct dj_scan_cumsum {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, to;
    dj_cuda_loop_t rows; /* one element a row: from, to */
    int64_t n, from_stride, to_stride; /* along a row; bytes */
    int64_t chunk, chunks;             /* elements a block takes; of a row */
    uint64_t sums; /* double or int64_t[rows * chunks], where a row has several */
    uint32_t dtype, to_dtype;
    uint32_t is_real, spare;
} dj_scan_cumsum_t;

/* Sorted runs of each row: tiles first, then merged two by two. Of a run only the first `k` keys are kept. */
#define DJ_SORT_TILE_NARROW 4096
#define DJ_SORT_TILE_WIDE 2048
typedef struct dj_scan_sort {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, values, indices; /* values may be absent */
    dj_cuda_loop_t rows;                 /* one element a row: from, values, indices */
    int64_t n, k;                        /* of a row: elements, and how many are wanted */
    int64_t from_stride, value_stride, index_stride; /* along a row; bytes */
    int64_t span, runs;      /* elements of a row that a run covers (the last one fewer); runs of a row */
    int64_t row_keys;        /* keys of a row in each buffer */
    uint64_t source, target; /* buffers of keys; target 0: the results are final and go to values and indices */
    uint32_t dtype, item_bytes, is_wide, descending;
} dj_scan_sort_t;

#endif
