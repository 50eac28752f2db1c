/* prepare.h - the prepare functions of every kernel family, as kernels.c puts them into slots.
 *
 * Each file is compiled once an instruction set; DJ_ISA_NAME gives the names their suffix. */
#ifndef DJ_GPU_HOST_PREPARE_H
#define DJ_GPU_HOST_PREPARE_H

#include "gpu/host/host.h"

#define dj_host_pointwise_prepare DJ_ISA_NAME(dj_host_pointwise_prepare)
#define dj_host_reduce_prepare DJ_ISA_NAME(dj_host_reduce_prepare)
#define dj_host_arg_reduce_prepare DJ_ISA_NAME(dj_host_arg_reduce_prepare)
#define dj_host_cumsum_prepare DJ_ISA_NAME(dj_host_cumsum_prepare)
#define dj_host_layer_norm_prepare DJ_ISA_NAME(dj_host_layer_norm_prepare)
#define dj_host_softmax_prepare DJ_ISA_NAME(dj_host_softmax_prepare)
#define dj_host_attention_prepare DJ_ISA_NAME(dj_host_attention_prepare)
#define dj_host_embedding_prepare DJ_ISA_NAME(dj_host_embedding_prepare)
#define dj_host_index_select_prepare DJ_ISA_NAME(dj_host_index_select_prepare)
#define dj_host_gather_prepare DJ_ISA_NAME(dj_host_gather_prepare)
#define dj_host_index_prepare DJ_ISA_NAME(dj_host_index_prepare)
#define dj_host_index_copy_prepare DJ_ISA_NAME(dj_host_index_copy_prepare)
#define dj_host_index_put_prepare DJ_ISA_NAME(dj_host_index_put_prepare)
#define dj_host_scatter_prepare DJ_ISA_NAME(dj_host_scatter_prepare)
#define dj_host_isin_prepare DJ_ISA_NAME(dj_host_isin_prepare)
#define dj_host_topk_prepare DJ_ISA_NAME(dj_host_topk_prepare)
#define dj_host_copy_prepare DJ_ISA_NAME(dj_host_copy_prepare)
#define dj_host_empty_prepare DJ_ISA_NAME(dj_host_empty_prepare)
#define dj_host_full_prepare DJ_ISA_NAME(dj_host_full_prepare)
#define dj_host_arange_prepare DJ_ISA_NAME(dj_host_arange_prepare)
#define dj_host_cat_prepare DJ_ISA_NAME(dj_host_cat_prepare)
#define dj_host_triangle_prepare DJ_ISA_NAME(dj_host_triangle_prepare)
#define dj_host_repeat_prepare DJ_ISA_NAME(dj_host_repeat_prepare)
#define dj_host_flip_prepare DJ_ISA_NAME(dj_host_flip_prepare)

dj_status_t dj_host_pointwise_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_reduce_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_arg_reduce_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_cumsum_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_layer_norm_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_softmax_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_attention_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_embedding_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_index_select_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_gather_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_index_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_index_copy_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_index_put_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_scatter_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_isin_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_topk_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_copy_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_empty_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_full_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_arange_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_cat_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_triangle_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_repeat_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);
dj_status_t dj_host_flip_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);

#endif
