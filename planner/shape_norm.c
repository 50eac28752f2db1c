/* shape_norm.c - shape rules of normalisations, softmax and dropout.
 *
 * Layer norm and softmax give contiguous results; batch and group norm keep the picture's layout.
 * Statistics of half-precision inputs are float32 where PyTorch computes them in it. A gradient
 * that the output mask leaves out is a tensor of no elements. */
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

/* The normalised shape is the tail of the input's; *lead_p dimensions stand before it. */
static dj_status_t check_normalised(const dj_view_t *input, const dj_arg_t *shape, uint32_t *lead_p)
{
    char text[DJ_VIEW_TEXT];
    uint32_t lead = input->rank - shape->count;
    *lead_p = lead;
    if (shape->count > 0 && shape->count <= input->rank &&
        memcmp(shape->integers, input->sizes + lead, shape->count * sizeof(int64_t)) == 0)
        return DJ_OK;
    return dj_fail(DJ_ERR_SHAPE, "the normalised shape is not the tail of %s",
                   dj_view_format(input, text, sizeof text));
}

static uint8_t wide_dtype(uint8_t dtype)
{
    return dtype == DJ_F16 || dtype == DJ_BF16 ? DJ_F32 : dtype;
}

/* input, normalized_shape, weight, bias, eps -> result, mean, 1 / deviation */
dj_status_t dj_shape_layer_norm(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    const dj_arg_t *shape = &call->args[1];
    int64_t sizes[DJ_RANK_MAX];
    uint32_t lead = 0;
    if (!dj_dtype_is_float(input->dtype))
        return dj_fail(DJ_ERR_DTYPE, "an input of type %s; it must be floating-point",
                       dj_dtype_name(input->dtype));
    dj_status_t status = check_normalised(input, shape, &lead);
    if (status == DJ_OK)
        status = check_affine(call, 2, input, lead);
    if (status == DJ_OK)
        status = check_affine(call, 3, input, lead);
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < input->rank; i++)
        sizes[i] = i < lead ? input->sizes[i] : 1;
    outs[0] = dj_view_contiguous(input->dtype, input->rank, input->sizes);
    outs[1] = outs[2] = dj_view_contiguous(wide_dtype(input->dtype), input->rank, sizes);
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

/* ---- batch norm ---- */

static dj_status_t check_floats(const dj_view_t *input)
{
    if (dj_dtype_is_float(input->dtype))
        return DJ_OK;
    return dj_fail(DJ_ERR_DTYPE, "an input of type %s; it must be floating-point",
                   dj_dtype_name(input->dtype));
}

/* One number a channel, of any floating-point type. */
static dj_status_t check_channel(const dj_call_t *call, uint32_t arg, const dj_view_t *input,
                                 const char *what)
{
    if (!dj_call_has(call, arg))
        return DJ_OK;
    const dj_view_t *view = dj_call_view(call, arg);
    if (dj_dtype_is_float(view->dtype) && view->rank == 1 && view->sizes[0] == input->sizes[1])
        return DJ_OK;
    return dj_shape_misfit(what, view, input);
}

/* The picture less its mean: laid out as a pointwise op of these two, a half-precision picture as
 * the wider copy of it. */
static dj_view_t normalised_picture(const dj_view_t *input)
{
    int64_t sizes[DJ_RANK_MAX] = {1, input->sizes[1], 1, 1, 1, 1, 1, 1};
    dj_view_t mean = dj_view_contiguous(input->dtype, input->rank, sizes);
    dj_view_t wide = dj_shape_preserved(wide_dtype(input->dtype), input);
    const dj_view_t *inputs[] = {wide.dtype != input->dtype ? &wide : input, &mean};
    if (dj_view_is_contiguous(input))
        return dj_view_contiguous(input->dtype, input->rank, input->sizes);
    return dj_shape_dense_like(input->dtype, inputs, 2, input->sizes, input->rank);
}

/* The picture and its two statistics; arguments `first` on are those of one number a channel. */
static dj_status_t batch_norm(const dj_call_t *call, uint32_t n_channels, dj_view_t *outs)
{
    static const char *const names[] = {"weight", "bias", "running mean", "running variance"};
    const dj_view_t *input = dj_call_view(call, 0);
    dj_status_t status = check_floats(input);
    if (status == DJ_OK && input->rank < 2)
        status = dj_fail(DJ_ERR_SHAPE, "an input of rank %u; batch and channels are needed",
                         input->rank);
    for (uint32_t i = 0; i < n_channels && status == DJ_OK; i++)
        status = check_channel(call, 1 + i, input, names[i]);
    if (status != DJ_OK)
        return status;
    outs[0] = normalised_picture(input);
    outs[1] = outs[2] = dj_view_contiguous(wide_dtype(input->dtype), 1, &input->sizes[1]);
    return DJ_OK;
}

/* input, weight, bias, running_mean, running_var, training, momentum, eps -> result, mean,
 * 1 / deviation, running_mean, running_var */
dj_status_t dj_shape_batch_norm(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    dj_status_t status = batch_norm(call, 4, outs);
    if (status != DJ_OK)
        return status;
    if (call->args[5].integer != 0 && dj_view_count(input) == input->sizes[1])
        return dj_fail(DJ_ERR_SHAPE, "one value a channel, which has no variance to learn from");
    for (uint32_t i = 0; i < 2; i++)
        outs[3 + i] = dj_view_contiguous(dj_call_view(call, 3 + i)->dtype, 1,
                                         dj_call_view(call, 3 + i)->sizes);
    return DJ_OK;
}

/* input, weight, bias, running_mean, running_var, momentum, eps */
dj_status_t dj_shape_batch_norm_eval(const dj_call_t *call, dj_view_t *outs)
{
    return batch_norm(call, 4, outs);
}

/* input, weight, bias, training, momentum, eps */
dj_status_t dj_shape_batch_norm_no_stats(const dj_call_t *call, dj_view_t *outs)
{
    if (call->args[3].integer == 0)
        return dj_fail(DJ_ERR_INVALID, "running statistics are needed when not training");
    return batch_norm(call, 2, outs);
}

/* ---- group norm ---- */

/* N, C, HxW and the groups from argument `first` on, against the picture. */
static dj_status_t check_groups(const dj_call_t *call, uint32_t first, const dj_view_t *input)
{
    int64_t batch = call->args[first].integer, channels = call->args[first + 1].integer;
    int64_t pixels = call->args[first + 2].integer, groups = call->args[first + 3].integer;
    int64_t elements = 1;
    char text[DJ_VIEW_TEXT];
    if (groups <= 0 || channels % groups != 0)
        return dj_fail(DJ_ERR_SHAPE, "%lld channels do not divide into %lld groups",
                       (long long)channels, (long long)groups);
    bool fits = input->rank >= 2 && input->sizes[0] == batch && input->sizes[1] == channels;
    for (uint32_t i = 2; i < input->rank; i++)
        elements *= input->sizes[i];
    if (fits && (dj_view_count(input) == 0 || elements == pixels))
        return DJ_OK;
    return dj_fail(DJ_ERR_SHAPE, "batch %lld, %lld channels of %lld elements are not %s",
                   (long long)batch, (long long)channels, (long long)pixels,
                   dj_view_format(input, text, sizeof text));
}

/* input, weight, bias, N, C, HxW, group, eps -> result, mean, 1 / deviation */
dj_status_t dj_shape_group_norm(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    dj_status_t status = check_floats(input);
    if (status == DJ_OK)
        status = check_groups(call, 3, input);
    if (status == DJ_OK)
        status = check_channel(call, 1, input, "weight");
    if (status == DJ_OK)
        status = check_channel(call, 2, input, "bias");
    if (status != DJ_OK)
        return status;
    int64_t sizes[2] = {input->sizes[0], call->args[6].integer};
    outs[0] =
        dj_shape_formatted(input->dtype, input->rank, input->sizes, dj_shape_channels_last(input));
    outs[1] = outs[2] = dj_view_contiguous(input->dtype, 2, sizes);
    return DJ_OK;
}

/* grad_out, input, mean, rstd, weight, N, C, HxW, group, output_mask */
dj_status_t dj_shape_group_norm_backward(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *grad = dj_call_view(call, 0), *input = dj_call_view(call, 1);
    uint32_t mask;
    dj_status_t status = check_groups(call, 5, input);
    if (status == DJ_OK)
        status = check_channel(call, 4, input, "weight");
    if (status == DJ_OK)
        status = dj_shape_mask(call, 9, 3, &mask);
    if (status != DJ_OK)
        return status;
    int64_t statistics = input->sizes[0] * call->args[8].integer;
    if (grad->dtype != input->dtype || !dj_view_same_shape(grad, input))
        return dj_shape_misfit("gradient", grad, input);
    for (uint32_t i = 2; i < 4; i++)
        if (dj_view_count(dj_call_view(call, i)) != statistics)
            return dj_shape_misfit("mean or deviation", dj_call_view(call, i), input);
    outs[0] = outs[1] = outs[2] = dj_shape_absent(input->dtype);
    if (mask & 1)
        outs[0] = dj_shape_formatted(input->dtype, input->rank, input->sizes,
                                     dj_shape_channels_last(input));
    for (uint32_t i = 1; i < 3; i++)
        if (mask & 1u << i)
            outs[i] = dj_view_contiguous(input->dtype, 1, &input->sizes[1]);
    return DJ_OK;
}

/* ---- layer norm backward, dropout ---- */

/* grad_out, input, normalized_shape, mean, rstd, weight, bias, output_mask */
dj_status_t dj_shape_layer_norm_backward(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *grad = dj_call_view(call, 0), *input = dj_call_view(call, 1);
    uint32_t mask, lead = 0;
    dj_status_t status = check_normalised(input, &call->args[2], &lead);
    if (status == DJ_OK)
        status = check_affine(call, 5, input, lead);
    if (status == DJ_OK)
        status = check_affine(call, 6, input, lead);
    if (status == DJ_OK)
        status = dj_shape_mask(call, 7, 3, &mask);
    if (status != DJ_OK)
        return status;
    if (grad->dtype != input->dtype || !dj_view_same_shape(grad, input))
        return dj_shape_misfit("gradient", grad, input);
    dj_view_t means = *input;
    for (uint32_t i = lead; i < input->rank; i++)
        means.sizes[i] = 1;
    for (uint32_t i = 3; i < 5; i++)
        if (!dj_view_same_shape(dj_call_view(call, i), &means))
            return dj_shape_misfit("mean or deviation", dj_call_view(call, i), &means);
    outs[0] = outs[1] = outs[2] = dj_shape_absent(input->dtype);
    if (mask & 1)
        outs[0] = dj_view_contiguous(input->dtype, input->rank, input->sizes);
    for (uint32_t i = 1; i < 3; i++)
        if ((mask & 1u << i) && dj_call_has(call, 4 + i))
            outs[i] = dj_view_contiguous(input->dtype, input->rank - lead, input->sizes + lead);
    return DJ_OK;
}

/* input, p, train */
dj_status_t dj_shape_dropout(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *input = dj_call_view(call, 0);
    const dj_arg_t *train = &call->args[2];
    bool drops = train->kind == DJ_ARG_INTEGERS && train->count == 1 && train->integers[0] != 0;
    if (train->kind == DJ_ARG_INTEGERS && train->count != 1)
        return dj_fail(DJ_ERR_INVALID, "train lists %u flags", train->count);
    if (drops && !dj_dtype_is_float(input->dtype))
        return dj_fail(DJ_ERR_DTYPE, "dropout of %s", dj_dtype_name(input->dtype));
    outs[0] = dj_shape_preserved(input->dtype, input);
    outs[1] = dj_shape_preserved(DJ_BOOL, input);
    return DJ_OK;
}
