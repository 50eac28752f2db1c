/* shape_create.c - shape rules of copies and of tensors made from nothing. */
#include "planner/shape.h"

dj_status_t dj_shape_copy(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *view = dj_call_view(call, 0);
    outs[0] = dj_shape_preserved(view->dtype, view);
    return DJ_OK;
}

dj_status_t dj_shape_to_copy(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *view = dj_call_view(call, 0);
    uint8_t dtype = dj_call_dtype(call, 1);
    outs[0] = dj_shape_preserved(dtype != DJ_DTYPE_NONE ? dtype : view->dtype, view);
    return DJ_OK;
}

/* A plain number's own type: what torch.full makes of it. */
static uint8_t default_dtype(const dj_scalar_t *scalar)
{
    return scalar->dtype == DJ_F64 ? DJ_F32 : scalar->dtype;
}

/* empty, rand, randn: sizes, dtype; full: sizes, value, dtype */
dj_status_t dj_shape_full(const dj_call_t *call, dj_view_t *outs)
{
    const dj_arg_t *sizes = &call->args[0];
    bool full = call->op == DJ_OP_FULL;
    bool random = call->op == DJ_OP_RAND || call->op == DJ_OP_RANDN;
    uint8_t dtype = dj_call_dtype(call, full ? 2 : 1);
    if (dtype == DJ_DTYPE_NONE)
        dtype = full ? default_dtype(&call->args[1].scalar) : (uint8_t)DJ_F32;
    if (random && !dj_dtype_is_float(dtype) && !dj_dtype_is_complex(dtype))
        return dj_fail(DJ_ERR_DTYPE, "random numbers of type %s", dj_dtype_name(dtype));
    outs[0] = dj_view_contiguous(dtype, (uint8_t)sizes->count, sizes->integers);
    return DJ_OK;
}

/* sizes, strides, dtype */
dj_status_t dj_shape_empty_strided(const dj_call_t *call, dj_view_t *outs)
{
    const dj_arg_t *sizes = &call->args[0], *strides = &call->args[1];
    uint8_t dtype = dj_call_dtype(call, 2);
    if (sizes->count != strides->count)
        return dj_fail(DJ_ERR_SHAPE, "%u sizes and %u strides", sizes->count, strides->count);
    outs[0] = dj_view_contiguous(dtype != DJ_DTYPE_NONE ? dtype : (uint8_t)DJ_F32,
                                 (uint8_t)sizes->count, sizes->integers);
    memcpy(outs[0].strides, strides->integers, strides->count * sizeof outs[0].strides[0]);
    return DJ_OK;
}

/* count, dtype */
dj_status_t dj_shape_randperm(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_call_dtype(call, 1);
    if (dtype == DJ_BOOL || dj_dtype_is_complex(dtype))
        return dj_fail(DJ_ERR_DTYPE, "a permutation of type %s", dj_dtype_name(dtype));
    outs[0] = dj_view_contiguous(dtype != DJ_DTYPE_NONE ? dtype : (uint8_t)DJ_I64, 1,
                                 &call->args[0].integer);
    return DJ_OK;
}

/* self, value, dtype */
dj_status_t dj_shape_full_like(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    uint8_t dtype = dj_call_dtype(call, 2);
    outs[0] = dj_shape_preserved(dtype != DJ_DTYPE_NONE ? dtype : self->dtype, self);
    return DJ_OK;
}

/* self, source: the source as self lies, holes and all, unless elements share a place */
dj_status_t dj_shape_copy_like(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    dj_status_t status = dj_shape_expands(dj_call_view(call, 1), self->sizes, self->rank);
    if (status == DJ_OK)
        outs[0] = dj_shape_spread(self);
    return status;
}

/* count, start, step, dtype */
dj_status_t dj_shape_arange(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_call_dtype(call, 3);
    if (dtype == DJ_DTYPE_NONE)
        dtype =
            dj_promote(default_dtype(&call->args[1].scalar), default_dtype(&call->args[2].scalar));
    outs[0] = dj_view_contiguous(dtype, 1, &call->args[0].integer);
    return DJ_OK;
}
