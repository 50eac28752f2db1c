/* shape_reduce.c - shape rules of reductions over dimensions. Results are contiguous. */
#include "planner/shape.h"

/* The argument with this letter of the signature; n_args when there is none. */
static uint32_t find_letter(const dj_call_t *call, char letter)
{
    const char *signature = dj_op_info(call->op)->signature;
    uint32_t i = 0;
    while (i < call->n_args && signature[i] != letter)
        i++;
    return i;
}

static bool flag_of(const dj_call_t *call)
{
    uint32_t arg = find_letter(call, 'b');
    return arg < call->n_args && call->args[arg].integer != 0;
}

static uint8_t dtype_of(const dj_call_t *call)
{
    uint32_t arg = find_letter(call, 'y');
    return arg < call->n_args ? dj_call_dtype(call, arg) : (uint8_t)DJ_DTYPE_NONE;
}

/* The reduced dimensions as a mask of bits. */
static dj_status_t dims_of(const dj_call_t *call, uint32_t rank, uint32_t *mask_p)
{
    uint32_t single = find_letter(call, 'd'), list = find_letter(call, 'D'), dim;
    static const dj_arg_t none = {.kind = DJ_ARG_NONE}; /* prod has no dimensions to choose from */
    const dj_arg_t *arg = single < call->n_args ? &call->args[single]
                          : list < call->n_args ? &call->args[list]
                                                : &none;
    uint32_t count = arg->kind == DJ_ARG_INTEGERS ? arg->count : arg->kind == DJ_ARG_INTEGER;
    bool literal = call->op == DJ_OP_ANY || call->op == DJ_OP_ALL;
    *mask_p = 0;
    /* An empty list means all dimensions, but for any and all, which take it literally. */
    if (count == 0 && !(literal && arg->kind == DJ_ARG_INTEGERS))
        *mask_p = (1u << rank) - 1;
    for (uint32_t i = 0; i < count; i++) {
        int64_t value = arg->kind == DJ_ARG_INTEGERS ? arg->integers[i] : arg->integer;
        dj_status_t status = dj_shape_dim(value, rank, &dim);
        if (status != DJ_OK)
            return status;
        if (*mask_p & 1u << dim)
            return dj_fail(DJ_ERR_SHAPE, "dimension %u is listed twice", dim);
        *mask_p |= 1u << dim;
    }
    return DJ_OK;
}

static dj_view_t reduced(const dj_view_t *view, uint8_t dtype, uint32_t mask, bool keep)
{
    int64_t sizes[DJ_RANK_MAX];
    uint8_t rank = 0;
    for (uint32_t i = 0; i < view->rank; i++) {
        if (!(mask & 1u << i))
            sizes[rank++] = view->sizes[i];
        else if (keep)
            sizes[rank++] = 1;
    }
    return dj_view_contiguous(dtype, rank, sizes);
}

/* Ops without a neutral element refuse to reduce nothing. */
static dj_status_t refuse_empty(const dj_view_t *view, uint32_t mask)
{
    for (uint32_t i = 0; i < view->rank; i++)
        if ((mask & 1u << i) && view->sizes[i] == 0)
            return dj_fail(DJ_ERR_SHAPE, "dimension %u to reduce has size 0", i);
    return DJ_OK;
}

static dj_status_t result_dtype(const dj_call_t *call, uint8_t own, uint8_t *dtype_p)
{
    uint8_t asked = dtype_of(call);
    uint8_t dtype = asked != DJ_DTYPE_NONE ? asked : own;
    switch (call->op) {
    case DJ_OP_SUM:
    case DJ_OP_PROD:
    case DJ_OP_PROD_ALL:
        if (asked == DJ_DTYPE_NONE && !dj_dtype_is_float(own))
            dtype = DJ_I64;
        break;
    case DJ_OP_ANY:
    case DJ_OP_ALL:
        dtype = own == DJ_U8 ? DJ_U8 : DJ_BOOL;
        break;
    case DJ_OP_MEAN:
    case DJ_OP_VAR:
        if (!dj_dtype_is_float(dtype))
            return dj_fail(DJ_ERR_DTYPE, "a result of type %s; give a floating-point dtype",
                           dj_dtype_name(dtype));
        break;
    default:
        break;
    }
    *dtype_p = dtype;
    return DJ_OK;
}

dj_status_t dj_shape_reduce(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *view = dj_call_view(call, 0);
    uint32_t mask;
    uint8_t dtype = view->dtype;
    dj_status_t status = dims_of(call, view->rank, &mask);
    if (status == DJ_OK)
        status = result_dtype(call, view->dtype, &dtype);
    if (status == DJ_OK && (call->op == DJ_OP_AMAX || call->op == DJ_OP_AMIN))
        status = refuse_empty(view, mask);
    if (status != DJ_OK)
        return status;
    outs[0] = reduced(view, dtype, mask, flag_of(call));
    if (mask == 0 && (call->op == DJ_OP_ANY || call->op == DJ_OP_ALL))
        outs[0] = dj_shape_preserved(dtype, view); /* nothing is reduced: a conversion */
    return status;
}

dj_status_t dj_shape_vector_norm(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *view = dj_call_view(call, 0);
    uint8_t asked = dtype_of(call), dtype = asked != DJ_DTYPE_NONE ? asked : view->dtype;
    uint32_t mask;
    if (!dj_dtype_is_float(view->dtype) || !dj_dtype_is_float(dtype))
        return dj_fail(DJ_ERR_DTYPE, "a norm of %s as %s; both must be floating-point",
                       dj_dtype_name(view->dtype), dj_dtype_name(dtype));
    dj_status_t status = dims_of(call, view->rank, &mask);
    if (status == DJ_OK)
        outs[0] = reduced(view, dtype, mask, flag_of(call));
    return status;
}

dj_status_t dj_shape_arg_reduce(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *view = dj_call_view(call, 0);
    uint32_t mask;
    if (call->args[1].kind == DJ_ARG_INTEGERS && call->args[1].count > 1)
        return dj_fail(DJ_ERR_SHAPE, "%u dimensions; at most one", call->args[1].count);
    dj_status_t status = dims_of(call, view->rank, &mask);
    if (status == DJ_OK)
        status = refuse_empty(view, mask);
    if (status == DJ_OK)
        outs[0] = reduced(view, DJ_I64, mask, flag_of(call));
    return status;
}

dj_status_t dj_shape_max_dim(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *view = dj_call_view(call, 0);
    uint32_t mask;
    dj_status_t status = dims_of(call, view->rank, &mask);
    if (status == DJ_OK)
        status = refuse_empty(view, mask);
    if (status != DJ_OK)
        return status;
    outs[0] = reduced(view, view->dtype, mask, flag_of(call));
    outs[1] = reduced(view, DJ_I64, mask, flag_of(call));
    return DJ_OK;
}

dj_status_t dj_shape_cumsum(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *view = dj_call_view(call, 0);
    uint8_t asked = dj_call_dtype(call, 2);
    uint32_t dim;
    dj_status_t status = dj_shape_dim(call->args[1].integer, view->rank, &dim);
    if (status != DJ_OK)
        return status;
    if (asked == DJ_DTYPE_NONE)
        asked = dj_dtype_is_float(view->dtype) ? view->dtype : DJ_I64;
    outs[0] = dj_view_contiguous(asked, view->rank, view->sizes);
    return DJ_OK;
}

/* self, dim, descending */
dj_status_t dj_shape_sort(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    uint32_t dim;
    dj_status_t status = dj_shape_dim(call->args[1].integer, self->rank, &dim);
    if (status != DJ_OK)
        return status;
    if (dj_dtype_is_complex(self->dtype))
        return dj_fail(DJ_ERR_DTYPE, "%s has no order", dj_dtype_name(self->dtype));
    outs[0] = dj_shape_preserved(self->dtype, self);
    outs[1] = dj_shape_preserved(DJ_I64, self);
    return DJ_OK;
}
