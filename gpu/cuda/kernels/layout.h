/* layout.h - parameters of the kernels that move or make elements (layout.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_LAYOUT_H
#define DJ_GPU_CUDA_KERNELS_LAYOUT_H

#include "gpu/cuda/kernels/dtypes.h"
#include "gpu/cuda/kernels/params.h"

/* A dense range onto a dense range. */
typedef struct dj_layout_bytes {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, to;
    uint64_t bytes;
    uint32_t item_bytes; /* both addresses are multiples of it */
} dj_layout_bytes_t;

/* View 0 onto view 1, in pieces of wide_bytes if both addresses allow, else of item_bytes. */
typedef struct dj_layout_copy {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, to;
    dj_cuda_loop_t loop; /* one element is wide_bytes */
    uint32_t item_bytes, wide_bytes;
} dj_layout_copy_t;

/* The same where view 0 is dense along the next to last dimension and view 1 along the last one. */
#define DJ_LAYOUT_TILE 32
typedef struct dj_layout_transpose {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, to;
    dj_cuda_loop_t loop;
    int64_t tiles, tile_rows, tile_columns; /* of all matrices; of one */
} dj_layout_transpose_t;

typedef struct dj_layout_convert {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, to;
    dj_cuda_loop_t loop;
    uint32_t from_dtype, to_dtype;
} dj_layout_convert_t;

/* Every element of the only view; an absent value fills with zeros. */
typedef struct dj_layout_fill {
    dj_cuda_head_t head;
    dj_cuda_ref_t to;
    dj_cuda_loop_t loop; /* one element is wide_bytes */
    dj_cuda_scalar_t value;
    uint32_t dtype, item_bytes, wide_bytes;
} dj_layout_fill_t;

typedef struct dj_layout_arange {
    dj_cuda_head_t head;
    dj_cuda_ref_t to;
    int64_t count, stride_bytes;
    dj_cuda_scalar_t start, step;
    uint32_t dtype, is_real;
} dj_layout_arange_t;

/* Rows of bytes from many operands into one: what most concatenations are. One segment a blockIdx.y. */
typedef struct dj_layout_segment {
    dj_cuda_ref_t from;
    int64_t rows, row_bytes;
    int64_t from_stride, to_stride, to_offset; /* bytes */
    uint32_t item_bytes, wide_bytes;
} dj_layout_segment_t;

#define DJ_LAYOUT_SEGMENTS 48
typedef struct dj_layout_cat {
    dj_cuda_head_t head;
    dj_cuda_ref_t to;
    dj_layout_segment_t segment[DJ_LAYOUT_SEGMENTS];
} dj_layout_cat_t;

/* Views in logical order and not merged: the last two dimensions are row and column. */
typedef struct dj_layout_triangle {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, to;
    dj_cuda_loop_t loop;
    int64_t diagonal;
    uint32_t upper, item_bytes;
} dj_layout_triangle_t;

/* Every index of the output modulo the input's size. */
typedef struct dj_layout_repeat {
    dj_cuda_head_t head;
    dj_cuda_ref_t from, to;
    dj_cuda_loop_t loop; /* of the output's shape */
    int64_t from_sizes[DJ_CUDA_RANK_MAX];
    uint32_t item_bytes;
} dj_layout_repeat_t;

#endif
