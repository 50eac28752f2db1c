/* pointwise_nodes.h - pointwise nodes made by hand, as the planner would hand them to the CUDA device. */
#ifndef DJ_TESTS_GPU_CUDA_POINTWISE_NODES_H
#define DJ_TESTS_GPU_CUDA_POINTWISE_NODES_H

#include <string.h>

#include "planner/graph.h"

typedef struct made_node {
    dj_node_t node;
    dj_output_t out;
    dj_arg_t args[DJ_ARGS_MAX];
    dj_operand_t operands[3];
} made_node_t;

static inline dj_operand_t made_tensor(uint32_t storage, uint8_t dtype, uint8_t rank, const int64_t *sizes)
{
    return (dj_operand_t){
        .storage = storage, .slot = DJ_SLOT_NONE, .view = dj_view_contiguous(dtype, rank, sizes)};
}

/* A number that stands in for a tensor. */
static inline dj_operand_t made_number(uint32_t slot, uint8_t dtype)
{
    return (dj_operand_t){
        .storage = DJ_STORAGE_SCALAR, .slot = slot, .scalar = {.dtype = dtype}, .view = {.dtype = dtype}};
}

/* `operands` for the tensor arguments in order; scalars of `scalar_dtype` (DJ_DTYPE_NONE: absent ones) in slots from
 * `first_slot` on. The output is new, storage `out`, as the shape rule says. */
static inline dj_status_t made_node(made_node_t *made, uint16_t op, const dj_operand_t *operands, uint8_t scalar_dtype,
                                    uint32_t first_slot, uint32_t out)
{
    const dj_op_info_t *info = dj_op_info(op);
    dj_view_t outs[DJ_OUTS_MAX] = {{0}};
    uint32_t tensors = 0;
    memset(made, 0, sizeof(*made));
    for (uint32_t i = 0; i < info->n_args; i++) {
        char letter = info->signature[i];
        dj_arg_t *arg = &made->args[i];
        *arg = (dj_arg_t){.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE};
        if (letter == 't') {
            made->operands[tensors] = operands[tensors];
            *arg = (dj_arg_t){.kind = DJ_ARG_TENSORS, .count = 1, .operands = &made->operands[tensors++]};
        } else if ((letter == 's' || letter == 'S') && scalar_dtype != DJ_DTYPE_NONE) {
            *arg = (dj_arg_t){.kind = DJ_ARG_SCALAR, .slot = first_slot++, .scalar = {.dtype = scalar_dtype}};
        }
    }
    made->node.call = (dj_call_t){.op = op, .n_args = info->n_args, .args = made->args};
    made->node.n_outs = 1;
    made->node.outs = &made->out;
    dj_status_t status = dj_op_infer(&made->node.call, outs);
    made->out = (dj_output_t){.storage = out, .slot = DJ_SLOT_NONE, .view = outs[0]};
    return status;
}

#endif
