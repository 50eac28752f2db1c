/* slots.c - the slot table of the CUDA device: which op has which kernel.
 *
 * Pointwise ops take theirs from the op table; the rest are the rows below. "Is it supported?" is
 * answered here and nowhere else. */
#include "gpu/cuda/prepare.h"
#include "gpu/rules.h"

#define ROW_VALUE(id) [DJ_OP_##id] = dj_cuda_pointwise_prepare,
#define ROW_REAL(id) ROW_VALUE(id)
#define ROW_TEST(id) ROW_VALUE(id)
#define ROW_NONE(id)
#define OP(id, name, signature, rule, ...) DJ_RULE_OF(ROW_, rule)(id)

const dj_cuda_prepare_fn_t dj_cuda_slots[DJ_OP_COUNT] = {
#include "planner/ops.def"
    [DJ_OP_COPY] = dj_cuda_copy_prepare,
    [DJ_OP_TO_COPY] = dj_cuda_copy_prepare,
    [DJ_OP_EMPTY] = dj_cuda_empty_prepare,
    [DJ_OP_FULL] = dj_cuda_full_prepare,
    [DJ_OP_ARANGE] = dj_cuda_arange_prepare,
    [DJ_OP_SUM] = dj_cuda_reduce_prepare,
    [DJ_OP_MEAN] = dj_cuda_reduce_prepare,
    [DJ_OP_AMAX] = dj_cuda_reduce_prepare,
    [DJ_OP_AMIN] = dj_cuda_reduce_prepare,
    [DJ_OP_ANY] = dj_cuda_reduce_prepare,
    [DJ_OP_ALL] = dj_cuda_reduce_prepare,
    [DJ_OP_PROD] = dj_cuda_reduce_prepare,
    [DJ_OP_VECTOR_NORM] = dj_cuda_reduce_prepare,
    [DJ_OP_VAR] = dj_cuda_reduce_prepare,
    [DJ_OP_ARGMAX] = dj_cuda_arg_reduce_prepare,
    [DJ_OP_ARGMIN] = dj_cuda_arg_reduce_prepare,
    [DJ_OP_MAX_DIM] = dj_cuda_arg_reduce_prepare,
    [DJ_OP_MIN_DIM] = dj_cuda_arg_reduce_prepare,
    [DJ_OP_CUMSUM] = dj_cuda_cumsum_prepare,
    [DJ_OP_MM] = dj_cuda_matmul_prepare,
    [DJ_OP_BMM] = dj_cuda_matmul_prepare,
    [DJ_OP_ADDMM] = dj_cuda_matmul_prepare,
    [DJ_OP_BADDBMM] = dj_cuda_matmul_prepare,
    [DJ_OP_LINEAR] = dj_cuda_matmul_prepare,
    [DJ_OP_SDPA] = dj_cuda_attention_prepare,
    [DJ_OP_LAYER_NORM] = dj_cuda_layer_norm_prepare,
    [DJ_OP_BATCH_NORM_EVAL] = dj_cuda_batch_norm_prepare,
    [DJ_OP_SOFTMAX] = dj_cuda_softmax_prepare,
    [DJ_OP_LOG_SOFTMAX] = dj_cuda_softmax_prepare,
    [DJ_OP_CONVOLUTION] = dj_cuda_convolution_prepare,
    [DJ_OP_MAX_POOL2D] = dj_cuda_pool_prepare,
    [DJ_OP_AVG_POOL2D] = dj_cuda_pool_prepare,
    [DJ_OP_ADAPTIVE_AVG_POOL2D] = dj_cuda_pool_prepare,
    [DJ_OP_EMBEDDING] = dj_cuda_embedding_prepare,
    [DJ_OP_INDEX_SELECT] = dj_cuda_index_select_prepare,
    [DJ_OP_GATHER] = dj_cuda_gather_prepare,
    [DJ_OP_INDEX] = dj_cuda_index_prepare,
    [DJ_OP_INDEX_COPY] = dj_cuda_index_copy_prepare,
    [DJ_OP_INDEX_PUT] = dj_cuda_index_put_prepare,
    [DJ_OP_SCATTER] = dj_cuda_scatter_prepare,
    [DJ_OP_SCATTER_VALUE] = dj_cuda_scatter_prepare,
    [DJ_OP_CAT] = dj_cuda_cat_prepare,
    [DJ_OP_TRIL] = dj_cuda_triangle_prepare,
    [DJ_OP_TRIU] = dj_cuda_triangle_prepare,
    [DJ_OP_ISIN] = dj_cuda_isin_prepare,
    [DJ_OP_TOPK] = dj_cuda_topk_prepare,
    [DJ_OP_SORT] = dj_cuda_sort_prepare,
    [DJ_OP_REPEAT] = dj_cuda_repeat_prepare,
    [DJ_OP_FLIP] = dj_cuda_flip_prepare,
};
