/* kernels.c - the slot table of one instruction set: which op has which kernel on the host.
 *
 * Pointwise ops take theirs from the op table; the rest are the rows below. "Is it supported?" is
 * answered here and nowhere else. */
#include "gpu/host/prepare.h"
#include "gpu/rules.h"

#define NAME2(isa) #isa
#define NAME(isa) NAME2(isa)

#define ROW_VALUE(id) [DJ_OP_##id] = dj_host_pointwise_prepare,
#define ROW_REAL(id) ROW_VALUE(id)
#define ROW_TEST(id) ROW_VALUE(id)
#define ROW_NONE(id)
#define OP(id, name, signature, rule, ...) DJ_RULE_OF(ROW_, rule)(id)

const dj_host_kernels_t DJ_ISA_NAME(dj_host_kernels) = {
    .isa = NAME(DJ_ISA),
    .prepare = {
#include "planner/ops.def"
        [DJ_OP_COPY] = dj_host_copy_prepare,
        [DJ_OP_TO_COPY] = dj_host_copy_prepare,
        [DJ_OP_EMPTY] = dj_host_empty_prepare,
        [DJ_OP_FULL] = dj_host_full_prepare,
        [DJ_OP_ARANGE] = dj_host_arange_prepare,
        [DJ_OP_SUM] = dj_host_reduce_prepare,
        [DJ_OP_MEAN] = dj_host_reduce_prepare,
        [DJ_OP_AMAX] = dj_host_reduce_prepare,
        [DJ_OP_AMIN] = dj_host_reduce_prepare,
        [DJ_OP_ANY] = dj_host_reduce_prepare,
        [DJ_OP_ALL] = dj_host_reduce_prepare,
        [DJ_OP_PROD] = dj_host_reduce_prepare,
        [DJ_OP_VECTOR_NORM] = dj_host_reduce_prepare,
        [DJ_OP_VAR] = dj_host_reduce_prepare,
        [DJ_OP_ARGMAX] = dj_host_arg_reduce_prepare,
        [DJ_OP_ARGMIN] = dj_host_arg_reduce_prepare,
        [DJ_OP_MAX_DIM] = dj_host_arg_reduce_prepare,
        [DJ_OP_MIN_DIM] = dj_host_arg_reduce_prepare,
        [DJ_OP_CUMSUM] = dj_host_cumsum_prepare,
        [DJ_OP_MM] = dj_host_matmul_prepare,
        [DJ_OP_BMM] = dj_host_matmul_prepare,
        [DJ_OP_ADDMM] = dj_host_matmul_prepare,
        [DJ_OP_BADDBMM] = dj_host_matmul_prepare,
        [DJ_OP_LINEAR] = dj_host_matmul_prepare,
        [DJ_OP_SDPA] = dj_host_attention_prepare,
        [DJ_OP_LAYER_NORM] = dj_host_layer_norm_prepare,
        [DJ_OP_SOFTMAX] = dj_host_softmax_prepare,
        [DJ_OP_LOG_SOFTMAX] = dj_host_softmax_prepare,
        [DJ_OP_EMBEDDING] = dj_host_embedding_prepare,
        [DJ_OP_INDEX_SELECT] = dj_host_index_select_prepare,
        [DJ_OP_GATHER] = dj_host_gather_prepare,
        [DJ_OP_INDEX] = dj_host_index_prepare,
        [DJ_OP_INDEX_COPY] = dj_host_index_copy_prepare,
        [DJ_OP_INDEX_PUT] = dj_host_index_put_prepare,
        [DJ_OP_SCATTER] = dj_host_scatter_prepare,
        [DJ_OP_SCATTER_VALUE] = dj_host_scatter_prepare,
        [DJ_OP_CAT] = dj_host_cat_prepare,
        [DJ_OP_TRIL] = dj_host_triangle_prepare,
        [DJ_OP_TRIU] = dj_host_triangle_prepare,
        [DJ_OP_ISIN] = dj_host_isin_prepare,
        [DJ_OP_TOPK] = dj_host_topk_prepare,
        [DJ_OP_REPEAT] = dj_host_repeat_prepare,
        [DJ_OP_FLIP] = dj_host_flip_prepare,
    },
};
