/* shape_pointwise.c - shape rules of pointwise ops, and the type in which they compute.
 *
 * Types follow PyTorch: tensors with dimensions outrank 0-dimensional tensors, which outrank plain
 * numbers; a lower class lifts the result only when it belongs to a higher category (bool, integer,
 * real). A real number that is no tensor counts as float32, the default type. */
#include "planner/shape.h"

typedef struct promotion {
    uint8_t dim, zero, number;
} promotion_t;

static uint8_t number_dtype(uint8_t dtype)
{
    return dtype == DJ_F64 ? DJ_F32 : dtype;
}

static void promotion_add(promotion_t *state, const dj_operand_t *operand)
{
    if (dj_operand_is_scalar(operand))
        state->number = dj_promote(state->number, number_dtype(operand->view.dtype));
    else if (operand->view.rank > 0)
        state->dim = dj_promote(state->dim, operand->view.dtype);
    else
        state->zero = dj_promote(state->zero, operand->view.dtype);
}

static uint8_t combine(uint8_t higher, uint8_t lower)
{
    if (higher == DJ_DTYPE_NONE)
        return lower;
    if (dj_dtype_is_float(higher))
        return higher;
    if (higher == DJ_BOOL || dj_dtype_is_float(lower))
        return dj_promote(higher, lower);
    return higher;
}

/* Over the tensors from argument `first` on and the scalars, the last `n_ignored` scalars (alpha)
 * left out. */
static uint8_t promote_call(const dj_call_t *call, const char *signature, uint32_t first,
                            bool ignore_last_scalar)
{
    promotion_t state = {DJ_DTYPE_NONE, DJ_DTYPE_NONE, DJ_DTYPE_NONE};
    for (uint32_t i = first; i < call->n_args; i++) {
        const dj_arg_t *arg = &call->args[i];
        if (signature[i] == 't')
            promotion_add(&state, &arg->operands[0]);
        else if (arg->kind == DJ_ARG_SCALAR && !(ignore_last_scalar && i + 1 == call->n_args))
            state.number = dj_promote(state.number, number_dtype(arg->scalar.dtype));
    }
    return combine(state.dim, combine(state.zero, state.number));
}

uint8_t dj_op_compute_dtype(const dj_call_t *call)
{
    const dj_op_info_t *info = dj_op_info(call->op);
    uint8_t dtype;
    if (info == NULL)
        return DJ_DTYPE_NONE;
    if (info->shape == dj_shape_pw_where)
        return promote_call(call, info->signature, 1, false);
    if (!info->pointwise || info->shape == dj_shape_pw_keep) {
        for (uint32_t i = 0; i < call->n_args; i++)
            if (call->args[i].kind == DJ_ARG_TENSORS && call->args[i].count > 0)
                return call->args[i].operands[0].view.dtype;
        return DJ_DTYPE_NONE;
    }
    dtype = promote_call(call, info->signature, 0, info->shape == dj_shape_pw_alpha);
    if (info->shape == dj_shape_pw_real && !dj_dtype_is_float(dtype))
        return DJ_F32;
    return dtype;
}

static dj_status_t pointwise(const dj_call_t *call, uint8_t dtype, dj_view_t *out)
{
    const char *signature = dj_op_info(call->op)->signature;
    const dj_view_t *inputs[DJ_ARGS_MAX];
    int64_t sizes[DJ_RANK_MAX];
    uint8_t rank = 0;
    uint32_t n_inputs = 0;
    for (uint32_t i = 0; i < call->n_args; i++) {
        if (signature[i] != 't')
            continue;
        inputs[n_inputs] = dj_call_view(call, i);
        dj_status_t status = dj_shape_broadcast(inputs[n_inputs++], sizes, &rank);
        if (status != DJ_OK)
            return status;
    }
    *out = dj_shape_dense_like(dtype, inputs, n_inputs, sizes, rank);
    return DJ_OK;
}

dj_status_t dj_shape_pw(const dj_call_t *call, dj_view_t *outs)
{
    return pointwise(call, dj_op_compute_dtype(call), outs);
}

dj_status_t dj_shape_pw_alpha(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    const dj_scalar_t *alpha = &call->args[call->n_args - 1].scalar;
    if (!dj_dtype_is_float(dtype) && alpha->dtype == DJ_F64)
        return dj_fail(DJ_ERR_DTYPE, "a real alpha with a result of type %s",
                       dj_dtype_name(dtype));
    if (dtype == DJ_BOOL && call->op != DJ_OP_ADD)
        return dj_fail(DJ_ERR_DTYPE, "subtraction of bool tensors; use bitwise_xor or logical_not");
    return pointwise(call, dtype, outs);
}

dj_status_t dj_shape_pw_real(const dj_call_t *call, dj_view_t *outs)
{
    return pointwise(call, dj_op_compute_dtype(call), outs);
}

dj_status_t dj_shape_pw_number(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    if (dtype == DJ_BOOL)
        return dj_fail(DJ_ERR_DTYPE, "bool operands");
    return pointwise(call, dtype, outs);
}

dj_status_t dj_shape_pw_bits(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    if (dj_dtype_is_float(dtype))
        return dj_fail(DJ_ERR_DTYPE, "operands of type %s; bitwise ops take integers and bool",
                       dj_dtype_name(dtype));
    return pointwise(call, dtype, outs);
}

dj_status_t dj_shape_pw_test(const dj_call_t *call, dj_view_t *outs)
{
    return pointwise(call, DJ_BOOL, outs);
}

dj_status_t dj_shape_pw_where(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t condition = dj_call_view(call, 0)->dtype;
    if (condition != DJ_BOOL && condition != DJ_U8)
        return dj_fail(DJ_ERR_DTYPE, "a condition of type %s; it must be bool",
                       dj_dtype_name(condition));
    return pointwise(call, dj_op_compute_dtype(call), outs);
}

/* masked_fill: the result is a contiguous copy of the first operand, widened by the mask. */
dj_status_t dj_shape_pw_keep(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0), *mask = dj_call_view(call, 1);
    int64_t sizes[DJ_RANK_MAX];
    uint8_t rank = 0;
    if (mask->dtype != DJ_BOOL)
        return dj_fail(DJ_ERR_DTYPE, "a mask of type %s; it must be bool",
                       dj_dtype_name(mask->dtype));
    if (call->op == DJ_OP_MASKED_FILL && dj_call_view(call, 2)->rank != 0)
        return dj_fail(DJ_ERR_SHAPE, "a value of rank %u; it must have no dimensions",
                       dj_call_view(call, 2)->rank);
    dj_status_t status = dj_shape_broadcast(self, sizes, &rank);
    if (status == DJ_OK)
        status = dj_shape_broadcast(mask, sizes, &rank);
    if (status == DJ_OK)
        outs[0] = dj_view_contiguous(self->dtype, rank, sizes);
    return status;
}
