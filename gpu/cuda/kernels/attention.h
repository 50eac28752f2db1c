/* attention.h - parameters of the kernels of attention (attention.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_ATTENTION_H
#define DJ_GPU_CUDA_KERNELS_ATTENTION_H

#include "gpu/cuda/kernels/params.h"

#define DJ_ATTENTION_DEPTH_MAX 256
#define DJ_ATTENTION_TILE_KEYS 32
#define DJ_ATTENTION_TILE_THREADS 256
#define DJ_ATTENTION_FEW_THREADS 128
#define DJ_ATTENTION_TENSOR_ROWS 64 /* and as many keys */
#define DJ_ATTENTION_TENSOR_THREADS 128
#define DJ_ATTENTION_TENSOR_PAD 8 /* elements between rows, so that they begin in different banks */

enum { DJ_ATTENTION_NO_MASK, DJ_ATTENTION_BOOL_MASK, DJ_ATTENTION_ADDED_MASK };

/* Four dimensions: batch, head, row, column; strides in elements, 0 where an operand is broadcast. */
typedef struct dj_attention_matrix {
    dj_cuda_ref_t ref;
    int64_t strides[4];
} dj_attention_matrix_t;

typedef struct dj_attention_params {
    dj_cuda_head_t head;
    dj_attention_matrix_t query, key, value, mask, out;
    dj_cuda_scalar_t scale;        /* absent: 1 / sqrt(depth) */
    int64_t heads, length, keys;   /* query heads, query rows and keys of one */
    int32_t group;                 /* query heads a key head */
    int32_t depth, value_depth;
    int32_t is_causal, mask_kind;
    uint32_t out_dtype;
    int64_t units;
    /* Tiles: a unit is one tile of the query rows of one head. */
    int64_t tiles;
    /* Few rows: a unit is one split of the keys for up to R of the rows of one key head. */
    int64_t splits, split_keys, row_sets;
    int32_t lanes;     /* threads a key, 8 columns each */
    uint64_t partials; /* an address: [row][split][value_depth + 2], the last two maximum and sum */
} dj_attention_params_t;

#endif
