/* shape_norm.c - shape rules of normalisations and softmax. Results are contiguous. */
#include "planner/shape.h"

static dj_status_t check_affine(const dj_call_t *call, uint32_t arg, const dj_view_t *input,
                                uint32_t lead)
{
    const dj_view_t *affine;
    char left[DJ_VIEW_TEXT], right[DJ_VIEW_TEXT];
    if (!dj_call_has(call, arg))
        return DJ_OK;
    affine = dj_call_view(call, arg);
    if (affine->dtype == input->dtype && affine->rank + lead == input->rank &&
        memcmp(affine->sizes, input->sizes + lead, affine->rank * sizeof(int64_t)) == 0)
        return DJ_OK;
    return dj_fail(affine->dtype != input->dtype ? DJ_ERR_DTYPE : DJ_ERR_SHAPE,
                   "weight or bias %s does not fit the normalised dimensions of %s",
                   dj_view_format(affine, left, sizeof left),
                   dj_view_format(input, right, sizeof right));
}

/* input, normalized_shape, weight, bias, eps -> result, mean, 1 / deviation */
dj_status_t dj_shape_layer_norm(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    const dj_arg_t *shape = &call->args[1];
    int64_t sizes[DJ_RANK_MAX];
    char text[DJ_VIEW_TEXT];
    if (!dj_dtype_is_float(input->dtype))
        return dj_fail(DJ_ERR_DTYPE, "an input of type %s; it must be floating-point",
                       dj_dtype_name(input->dtype));
    uint32_t lead = input->rank - shape->count;
    if (shape->count == 0 || shape->count > input->rank ||
        memcmp(shape->integers, input->sizes + lead, shape->count * sizeof(int64_t)) != 0)
        return dj_fail(DJ_ERR_SHAPE, "the normalised shape is not the tail of %s",
                       dj_view_format(input, text, sizeof text));
    dj_status_t status = check_affine(call, 2, input, lead);
    if (status == DJ_OK)
        status = check_affine(call, 3, input, lead);
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < input->rank; i++)
        sizes[i] = i < lead ? input->sizes[i] : 1;
    outs[0] = dj_view_contiguous(input->dtype, input->rank, input->sizes);
    outs[1] = outs[2] = dj_view_contiguous(input->dtype, input->rank, sizes);
    return DJ_OK;
}

/* input, dim, half_to_float */
dj_status_t dj_shape_softmax(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    bool widen = call->args[2].integer != 0;
    uint32_t dim;
    if (!dj_dtype_is_float(input->dtype) || (widen && input->dtype != DJ_F16))
        return dj_fail(DJ_ERR_DTYPE, "an input of type %s%s", dj_dtype_name(input->dtype),
                       widen ? " with half_to_float" : "");
    dj_status_t status = dj_shape_dim(call->args[1].integer, input->rank, &dim);
    if (status == DJ_OK)
        outs[0] = dj_view_contiguous(widen ? DJ_F32 : input->dtype, input->rank, input->sizes);
    return status;
}
