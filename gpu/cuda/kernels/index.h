/* index.h - parameters of the kernels that follow index tensors (index.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_INDEX_H
#define DJ_GPU_CUDA_KERNELS_INDEX_H

#include "gpu/cuda/kernels/dtypes.h"
#include "gpu/cuda/kernels/params.h"

/* One index tensor over the positions. */
typedef struct dj_index_list {
    dj_cuda_ref_t ref;
    int64_t size, step_bytes, step_slots; /* of the indexed dimension */
    int64_t strides[DJ_CUDA_RANK_MAX];    /* of the positions' shape, bytes */
    uint32_t is_wide, spare;              /* int64, else int32 */
} dj_index_list_t;

/* Positions: the common shape of the index tensors. Each names a slot of the indexed tensor (a tuple of indices),
 * at which a slice lies, and a place in the other tensor. */
typedef struct dj_index_positions {
    int64_t count;
    int32_t rank, n; /* of the common shape; index tensors */
    int64_t sizes[DJ_CUDA_RANK_MAX];
    int64_t other_strides[DJ_CUDA_RANK_MAX]; /* bytes */
    dj_index_list_t list[DJ_CUDA_RANK_MAX];
    uint32_t negative_allowed, spare;
} dj_index_positions_t;

/* Slices from the indexed tensor to the other one (take), or back (put). */
typedef struct dj_index_slices {
    dj_cuda_head_t head;
    dj_cuda_ref_t self, other;
    dj_index_positions_t positions;
    dj_cuda_loop_t slice; /* self, other; one element is wide_bytes */
    uint32_t item_bytes, wide_bytes;
    uint32_t position_fast; /* neighbouring threads take neighbouring positions, else neighbours in a slice */
    /* put: a number in place of the other tensor, stored as `dtype` */
    uint32_t dtype;
    dj_cuda_scalar_t value;
    /* put: uint32_t[slots], the number + 1 of the position that may write each; 0: every position may */
    uint64_t owner;
    /* accumulate, or put without owners: int64_t[count], the positions in the order of their slots, and those slots: int32 or int64 */
    uint64_t order, slots;
    uint32_t slots_wide, spare;
} dj_index_slices_t;

/* Writes down the slot of each position: int64 or int32. */
typedef struct dj_index_slots {
    dj_cuda_head_t head;
    dj_index_positions_t positions;
    uint64_t slots;
    uint32_t is_wide, spare;
} dj_index_slots_t;

/* Makes the last position of each slot its owner. */
typedef struct dj_index_claim {
    dj_cuda_head_t head;
    dj_index_positions_t positions;
    uint64_t owner;
} dj_index_claim_t;

/* gather, scatter: an index of its own for each element. */
typedef struct dj_index_picked {
    dj_cuda_head_t head;
    dj_cuda_ref_t self, other, index;
    dj_cuda_loop_t loop; /* self without its dimension, the other tensor, slots of self, the index */
    int64_t size, step_bytes, step_slots; /* of the indexed dimension */
    uint32_t item_bytes, is_wide;
    /* scatter: as above; an element's slot is its number in a dense tensor of self's shape */
    uint32_t dtype, spare;
    dj_cuda_scalar_t value;
    uint64_t owner;
} dj_index_picked_t;

/* Each element against all tests. */
#define DJ_ISIN_TILE 256
typedef struct dj_index_isin {
    dj_cuda_head_t head;
    dj_cuda_ref_t elements, tests, to;
    dj_cuda_loop_t loop; /* elements, output */
    dj_cuda_loop_t test_loop;
    uint32_t dtype, test_dtype, to_dtype;
    uint32_t is_real, invert;
} dj_index_isin_t;

#endif
