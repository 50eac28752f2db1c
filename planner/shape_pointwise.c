/* shape_pointwise.c - shape rules of pointwise ops, and the type in which they compute.
 *
 * Types follow PyTorch: tensors with dimensions outrank 0-dimensional tensors, which outrank plain
 * numbers; a lower class lifts the result only when it belongs to a higher category (bool, integer,
 * real, complex). A real number that is no tensor counts as float32, the default type. */
#include "planner/shape.h"

#define OPERANDS_MAX 3

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
    if (dj_dtype_is_complex(higher))
        return higher;
    if (dj_dtype_is_float(higher))
        return dj_dtype_is_complex(lower) ? dj_dtype_to_complex(higher) : higher;
    if (higher == DJ_BOOL || dj_dtype_is_float(lower) || dj_dtype_is_complex(lower))
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
        if (signature[i] == 't' || (signature[i] == 'T' && dj_call_has(call, i)))
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
    if (!info->broadcasts || info->shape == dj_shape_pw_keep ||
        info->shape == dj_shape_pw_real_keep || info->shape == dj_shape_pw_limits) {
        for (uint32_t i = 0; i < call->n_args; i++)
            if (call->args[i].kind == DJ_ARG_TENSORS && call->args[i].count > 0)
                return call->args[i].operands[0].view.dtype;
        return DJ_DTYPE_NONE;
    }
    dtype = promote_call(call, info->signature, 0, info->shape == dj_shape_pw_alpha);
    if ((info->shape == dj_shape_pw_real || info->shape == dj_shape_pw_math) &&
        !dj_dtype_is_float(dtype) && !dj_dtype_is_complex(dtype))
        return DJ_F32;
    return dtype;
}

/* The usual case: nothing is broadcast but numbers, and nothing lies out of order. */
static bool all_plain(const dj_view_t *const *inputs, uint32_t n_inputs, const int64_t *sizes,
                      uint8_t rank)
{
    for (uint32_t i = 0; i < n_inputs; i++)
        if (inputs[i]->rank > 0 && (inputs[i]->rank != rank ||
                                    memcmp(inputs[i]->sizes, sizes, rank * sizeof sizes[0]) != 0 ||
                                    !dj_view_is_contiguous(inputs[i])))
            return false;
    return true;
}

/* `common` is the type to which operands are converted first, but for a condition. A conversion
 * makes a dense copy, and the result follows the copy's strides. */
static dj_status_t pointwise(const dj_call_t *call, uint8_t common, uint8_t dtype, dj_view_t *out)
{
    const char *signature = dj_op_info(call->op)->signature;
    const dj_view_t *inputs[DJ_ARGS_MAX];
    dj_view_t copies[OPERANDS_MAX];
    int64_t sizes[DJ_RANK_MAX];
    uint8_t rank = 0;
    uint32_t n_inputs = 0;
    for (uint32_t i = 0; i < call->n_args && n_inputs < OPERANDS_MAX; i++) {
        if (signature[i] != 't' && (signature[i] != 'T' || !dj_call_has(call, i)))
            continue;
        const dj_view_t *input = dj_call_view(call, i);
        dj_status_t status = dj_shape_broadcast(input, sizes, &rank);
        if (status != DJ_OK)
            return status;
        inputs[n_inputs++] = input;
    }
    if (all_plain(inputs, n_inputs, sizes, rank)) {
        *out = dj_view_contiguous(dtype, rank, sizes);
        return DJ_OK;
    }
    for (uint32_t i = 0; i < n_inputs; i++) {
        inputs[i] = dj_shape_as_sent(inputs[i], &copies[i]);
        if (inputs[i]->dtype != common && (i > 0 || call->op != DJ_OP_WHERE) &&
            !dj_view_is_contiguous(inputs[i])) {
            copies[i] = dj_shape_preserved(common, inputs[i]);
            inputs[i] = &copies[i];
        }
    }
    *out = dj_shape_dense_like(dtype, inputs, n_inputs, sizes, rank);
    return DJ_OK;
}

dj_status_t dj_shape_pw(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    bool modulus = call->op == DJ_OP_ABS && dj_dtype_is_complex(dtype);
    return pointwise(call, dtype, modulus ? dj_dtype_to_real(dtype) : dtype, outs);
}

/* Subtraction takes no bool at all: PyTorch wants logical_not or bitwise_xor to be said. */
static bool subtracts_bool(const dj_call_t *call)
{
    if (call->op == DJ_OP_RSUB)
        return dj_call_view(call, 0)->dtype == DJ_BOOL || call->args[1].scalar.dtype == DJ_BOOL;
    return call->op == DJ_OP_SUB &&
           (dj_call_view(call, 0)->dtype == DJ_BOOL || dj_call_view(call, 1)->dtype == DJ_BOOL);
}

dj_status_t dj_shape_pw_alpha(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    const dj_scalar_t *alpha = &call->args[call->n_args - 1].scalar;
    if (!dj_dtype_is_float(dtype) && !dj_dtype_is_complex(dtype) && alpha->dtype == DJ_F64)
        return dj_fail(DJ_ERR_DTYPE, "a real alpha with a result of type %s", dj_dtype_name(dtype));
    if (subtracts_bool(call))
        return dj_fail(DJ_ERR_DTYPE, "subtraction of bool tensors; use bitwise_xor or logical_not");
    return pointwise(call, dtype, dtype, outs);
}

dj_status_t dj_shape_pw_real(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    return pointwise(call, dtype, dtype, outs);
}

dj_status_t dj_shape_pw_number(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    if (dtype == DJ_BOOL)
        return dj_fail(DJ_ERR_DTYPE, "bool operands");
    return pointwise(call, dtype, dtype, outs);
}

dj_status_t dj_shape_pw_bits(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    if (dj_dtype_is_float(dtype))
        return dj_fail(DJ_ERR_DTYPE, "operands of type %s; bitwise ops take integers and bool",
                       dj_dtype_name(dtype));
    return pointwise(call, dtype, dtype, outs);
}

dj_status_t dj_shape_pw_test(const dj_call_t *call, dj_view_t *outs)
{
    return pointwise(call, dj_op_compute_dtype(call), DJ_BOOL, outs);
}

dj_status_t dj_shape_pw_where(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t condition = dj_call_view(call, 0)->dtype;
    if (condition != DJ_BOOL && condition != DJ_U8)
        return dj_fail(DJ_ERR_DTYPE, "a condition of type %s; it must be bool",
                       dj_dtype_name(condition));
    uint8_t dtype = dj_op_compute_dtype(call);
    return pointwise(call, dtype, dtype, outs);
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

/* ---- rows without an expression yet ---- */

static dj_status_t refuse_complex(uint8_t dtype)
{
    if (!dj_dtype_is_complex(dtype))
        return DJ_OK;
    return dj_fail(DJ_ERR_DTYPE, "operands of type %s", dj_dtype_name(dtype));
}

dj_status_t dj_shape_pw_math(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    return pointwise(call, dtype, dtype, outs);
}

dj_status_t dj_shape_pw_flag(const dj_call_t *call, dj_view_t *outs)
{
    return pointwise(call, dj_op_compute_dtype(call), DJ_BOOL, outs);
}

/* rounding, remainders, integer division: numbers that have an order */
dj_status_t dj_shape_pw_ordered(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_op_compute_dtype(call);
    dj_status_t status = refuse_complex(dtype);
    return status == DJ_OK ? pointwise(call, dtype, dtype, outs) : status;
}

/* elu, leaky_relu */
dj_status_t dj_shape_pw_real_keep(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_call_view(call, 0)->dtype;
    if (!dj_dtype_is_float(dtype))
        return dj_fail(DJ_ERR_DTYPE, "an input of type %s; it must be floating-point",
                       dj_dtype_name(dtype));
    return pointwise(call, dtype, dtype, outs);
}

/* hardtanh */
dj_status_t dj_shape_pw_limits(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_call_view(call, 0)->dtype;
    if (dtype == DJ_BOOL || dj_dtype_is_complex(dtype))
        return dj_fail(DJ_ERR_DTYPE, "an input of type %s", dj_dtype_name(dtype));
    return pointwise(call, dtype, dtype, outs);
}

/* self, lower and upper limits as tensors, of which one may be absent */
dj_status_t dj_shape_pw_clamp(const dj_call_t *call, dj_view_t *outs)
{
    if (!dj_call_has(call, 1) && !dj_call_has(call, 2))
        return dj_fail(DJ_ERR_INVALID, "neither a lower nor an upper limit");
    return dj_shape_pw_ordered(call, outs);
}
