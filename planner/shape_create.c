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

/* empty: sizes, dtype; full: sizes, value, dtype */
dj_status_t dj_shape_full(const dj_call_t *call, dj_view_t *outs)
{
    const dj_arg_t *sizes = &call->args[0];
    bool full = call->op == DJ_OP_FULL;
    uint8_t dtype = dj_call_dtype(call, full ? 2 : 1);
    if (dtype == DJ_DTYPE_NONE)
        dtype = full ? default_dtype(&call->args[1].scalar) : (uint8_t)DJ_F32;
    outs[0] = dj_view_contiguous(dtype, (uint8_t)sizes->count, sizes->integers);
    return DJ_OK;
}

/* count, start, step, dtype */
dj_status_t dj_shape_arange(const dj_call_t *call, dj_view_t *outs)
{
    uint8_t dtype = dj_call_dtype(call, 3);
    if (dtype == DJ_DTYPE_NONE)
        dtype = dj_promote(default_dtype(&call->args[1].scalar),
                           default_dtype(&call->args[2].scalar));
    outs[0] = dj_view_contiguous(dtype, 1, &call->args[0].integer);
    return DJ_OK;
}
