/* shape_scatter.c - shape rules of ops that write a part of a copy of their first tensor, of the
 * embedding's relatives, and of ops whose result only the data can size.
 *
 * Results of scatters are contiguous; those of select_scatter and slice_scatter lie as their first
 * tensor does, holes and all, as PyTorch clones it. */
#include "planner/shape.h"

/* self, dim, index, source, ...: scatter_add, scatter_reduce (whose reduction is a number: sum,
 * prod, mean, amax, amin) */
dj_status_t dj_shape_scatter_reduce(const dj_call_t *call, dj_view_t *outs)
{
    if (call->op == DJ_OP_SCATTER_REDUCE &&
        (call->args[4].integer < 0 || call->args[4].integer > 4))
        return dj_fail(DJ_ERR_INVALID, "reduction %lld; 0 to 4 are sum, prod, mean, amax, amin",
                       (long long)call->args[4].integer);
    return dj_shape_scatter(call, outs);
}

/* self, mask, source */
dj_status_t dj_shape_masked_scatter(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0), *mask = dj_call_view(call, 1);
    const dj_view_t *source = dj_call_view(call, 2);
    int64_t sizes[DJ_RANK_MAX];
    uint8_t rank = 0;
    if (mask->dtype != DJ_BOOL && mask->dtype != DJ_U8)
        return dj_fail(DJ_ERR_DTYPE, "a mask of type %s; it must be bool",
                       dj_dtype_name(mask->dtype));
    if (source->dtype != self->dtype)
        return dj_shape_misfit("source", source, self);
    dj_status_t status = dj_shape_broadcast(self, sizes, &rank);
    if (status == DJ_OK)
        status = dj_shape_broadcast(mask, sizes, &rank);
    if (status == DJ_OK)
        outs[0] = dj_view_contiguous(self->dtype, rank, sizes);
    return status;
}

static dj_status_t written(const dj_view_t *self, const dj_view_t *source, const dj_view_t *part,
                           dj_view_t *out)
{
    if (!dj_view_same_shape(source, part))
        return dj_shape_misfit("source", source, part);
    *out = dj_shape_spread(self);
    return DJ_OK;
}

/* self, source, dim, index */
dj_status_t dj_shape_select_scatter(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    dj_view_t part = *self;
    dj_status_t status = dj_shape_take_index(&part, call->args[2].integer, call->args[3].integer);
    return status == DJ_OK ? written(self, dj_call_view(call, 1), &part, outs) : status;
}

/* self, source, dim, start, end, step */
dj_status_t dj_shape_slice_scatter(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    dj_view_t part = *self;
    uint32_t dim;
    if (self->rank == 0)
        return dj_fail(DJ_ERR_SHAPE, "a tensor without dimensions");
    dj_status_t status = dj_shape_dim(call->args[2].integer, self->rank, &dim);
    if (status == DJ_OK)
        status =
            dj_shape_take_slice(&part, dim, &call->args[3], &call->args[4], call->args[5].integer);
    return status == DJ_OK ? written(self, dj_call_view(call, 1), &part, outs) : status;
}

static dj_status_t check_index_dtype(const dj_view_t *index, const char *what)
{
    if (index->dtype == DJ_I64 || index->dtype == DJ_I32)
        return DJ_OK;
    return dj_fail(DJ_ERR_DTYPE, "%s of type %s; they must be int64 or int32", what,
                   dj_dtype_name(index->dtype));
}

/* grad_output, indices, num_weights, padding_idx, scale_grad_by_freq */
dj_status_t dj_shape_embedding_backward(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *grad = dj_call_view(call, 0), *index = dj_call_view(call, 1);
    dj_status_t status = check_index_dtype(index, "indices");
    if (status != DJ_OK)
        return status;
    if (grad->rank != index->rank + 1 || !dj_dtype_is_float(grad->dtype) ||
        memcmp(grad->sizes, index->sizes, index->rank * sizeof grad->sizes[0]) != 0)
        return dj_shape_misfit("gradient", grad, index);
    int64_t sizes[2] = {call->args[2].integer, grad->sizes[index->rank]};
    outs[0] = dj_view_contiguous(grad->dtype, 2, sizes);
    return DJ_OK;
}

enum { BAG_SUM, BAG_MEAN, BAG_MAX };

static dj_status_t check_bag(const dj_call_t *call)
{
    const dj_view_t *weight = dj_call_view(call, 0), *index = dj_call_view(call, 1);
    const dj_view_t *offsets = dj_call_view(call, 2);
    int64_t mode = call->args[4].integer;
    dj_status_t status = check_index_dtype(index, "indices");
    if (status == DJ_OK)
        status = check_index_dtype(offsets, "offsets");
    if (status != DJ_OK)
        return status;
    if (mode < BAG_SUM || mode > BAG_MAX)
        return dj_fail(DJ_ERR_INVALID, "mode %lld; 0 to 2 are sum, mean, max", (long long)mode);
    if (!dj_dtype_is_float(weight->dtype) || weight->rank != 2 || index->rank != 1 ||
        offsets->rank != 1)
        return dj_shape_misfit("weight", weight, index);
    if (call->args[7].integer != 0 && offsets->sizes[0] == 0)
        return dj_fail(DJ_ERR_SHAPE, "no offset at all, and the last is to be left out");
    if (!dj_call_has(call, 6))
        return DJ_OK;
    const dj_view_t *scale = dj_call_view(call, 6);
    if (mode != BAG_SUM || scale->rank != 1 || scale->sizes[0] != index->sizes[0] ||
        scale->dtype != weight->dtype)
        return dj_shape_misfit("per_sample_weights", scale, index);
    return DJ_OK;
}

/* weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights,
 * include_last_offset, padding_idx -> bags, bag of each index, sizes of bags, where the maxima were
 */
dj_status_t dj_shape_embedding_bag(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *weight = dj_call_view(call, 0), *index = dj_call_view(call, 1);
    const dj_view_t *offsets = dj_call_view(call, 2);
    dj_status_t status = check_bag(call);
    if (status != DJ_OK)
        return status;
    int64_t sizes[2] = {offsets->sizes[0] - (call->args[7].integer != 0), weight->sizes[1]};
    outs[0] = dj_view_contiguous(weight->dtype, 2, sizes);
    outs[1] = dj_view_contiguous(index->dtype, 1, index->sizes);
    outs[2] = dj_view_contiguous(index->dtype, 1, offsets->sizes);
    outs[3] = call->args[4].integer == BAG_MAX ? dj_view_contiguous(index->dtype, 2, sizes)
                                               : dj_shape_absent(index->dtype);
    return DJ_OK;
}

/* nonzero and its like */
dj_status_t dj_shape_of_data(const dj_call_t *call, dj_view_t *outs)
{
    char text[DJ_VIEW_TEXT];
    (void)outs;
    return dj_fail(DJ_ERR_UNSUPPORTED,
                   "the result's size depends on the values in %s, which nobody "
                   "knows when a program is made; fetch the tensor and do it on the host",
                   dj_view_format(dj_call_view(call, 0), text, sizeof text));
}
