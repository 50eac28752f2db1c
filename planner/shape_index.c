/* shape_index.c - shape rules of gather, scatter and layout ops.
 *
 * Index values are data and are checked by the kernels; here only shapes and types are. Boolean
 * indices would make the result's size depend on data and are refused. */
#include "planner/shape.h"

static dj_status_t check_index_dtype(const dj_view_t *index)
{
    if (index->dtype == DJ_I64 || index->dtype == DJ_I32)
        return DJ_OK;
    return dj_fail(DJ_ERR_DTYPE, "an index of type %s; it must be int64 or int32",
                   dj_dtype_name(index->dtype));
}

/* weight, indices */
dj_status_t dj_shape_embedding(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *weight = dj_call_view(call, 0), *index = dj_call_view(call, 1);
    int64_t sizes[DJ_RANK_MAX + 1];
    if (weight->rank != 2)
        return dj_fail(DJ_ERR_SHAPE, "a weight of rank %u; it must be 2", weight->rank);
    if (index->rank == DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a result of rank %d", DJ_RANK_MAX + 1);
    memcpy(sizes, index->sizes, index->rank * sizeof sizes[0]);
    sizes[index->rank] = weight->sizes[1];
    outs[0] = dj_view_contiguous(weight->dtype, index->rank + 1, sizes);
    return check_index_dtype(index);
}

/* self, dim, index */
dj_status_t dj_shape_index_select(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0), *index = dj_call_view(call, 2);
    int64_t sizes[DJ_RANK_MAX];
    uint32_t dim;
    dj_status_t status = dj_shape_dim(call->args[1].integer, self->rank, &dim);
    if (status != DJ_OK)
        return status;
    if (index->rank > 1)
        return dj_fail(DJ_ERR_SHAPE, "an index of rank %u; at most 1", index->rank);
    memcpy(sizes, self->sizes, sizeof sizes);
    if (self->rank > 0)
        sizes[dim] = dj_view_count(index);
    else if (dj_view_count(index) != 1)
        return dj_fail(DJ_ERR_SHAPE, "%lld indices into a tensor without dimensions",
                       (long long)dj_view_count(index));
    outs[0] = dj_view_contiguous(self->dtype, self->rank, sizes);
    return check_index_dtype(index);
}

/* Every dimension of `index` but `dim` at most as long as that of `view`. */
static dj_status_t check_within(const dj_view_t *index, const dj_view_t *view, uint32_t dim)
{
    dj_view_t one = *view;
    if (index->rank <= 1 && view->rank <= 1)
        return DJ_OK;
    one.dtype = index->dtype; /* shapes are all that is compared */
    if (index->rank != view->rank)
        return dj_shape_misfit("index", index, &one);
    for (uint32_t i = 0; i < index->rank; i++)
        if (i != dim && index->sizes[i] > view->sizes[i])
            return dj_shape_misfit("index", index, &one);
    return DJ_OK;
}

/* self, dim, index, sparse_grad */
dj_status_t dj_shape_gather(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0), *index = dj_call_view(call, 2);
    uint32_t dim;
    dj_status_t status = dj_shape_dim(call->args[1].integer, self->rank, &dim);
    if (status == DJ_OK && dj_view_count(index) > 0)
        status = check_within(index, self, dim);
    if (status == DJ_OK)
        outs[0] = dj_view_contiguous(self->dtype, index->rank, index->sizes);
    return status == DJ_OK && dj_view_count(index) > 0 ? check_index_dtype(index) : status;
}

/* self, dim, index, source or value */
dj_status_t dj_shape_scatter(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0), *index = dj_call_view(call, 2);
    uint32_t dim;
    dj_status_t status = dj_shape_dim(call->args[1].integer, self->rank, &dim);
    if (status == DJ_OK && dj_view_count(index) > 0)
        status = check_within(index, self, dim);
    if (status == DJ_OK && call->op != DJ_OP_SCATTER_VALUE) {
        const dj_view_t *source = dj_call_view(call, 3);
        if (source->dtype != self->dtype)
            return dj_shape_misfit("source", source, self);
        if (dj_view_count(index) > 0)
            status = check_within(index, source, DJ_RANK_MAX);
        if (status == DJ_OK && index->rank <= 1 && dj_view_count(index) > dj_view_count(source))
            status = dj_shape_misfit("source", source, self);
    }
    if (status == DJ_OK)
        outs[0] = dj_view_contiguous(self->dtype, self->rank, self->sizes);
    return status == DJ_OK && dj_view_count(index) > 0 ? check_index_dtype(index) : status;
}

/* What self[indices] looks like: the indices' common shape stands where they stood when they are
 * adjacent, else in front; the other dimensions keep the order of their strides. */
static dj_status_t indexed_shape(const dj_view_t *self, const dj_arg_t *indices, dj_view_t *out)
{
    dj_view_t common = {.rank = 0}, spread = {.dtype = self->dtype}, room;
    const dj_view_t *lies = dj_shape_as_sent(self, &room);
    const dj_view_t *inputs[] = {&spread};
    uint32_t first = DJ_RANK_MAX, last = 0, n_present = 0, rank = 0;
    if (indices->count > self->rank)
        return dj_fail(DJ_ERR_SHAPE, "%u indices into a tensor of rank %u", indices->count,
                       self->rank);
    for (uint32_t i = 0; i < indices->count; i++) {
        if (indices->operands[i].storage == DJ_STORAGE_NONE)
            continue;
        const dj_view_t *index = &indices->operands[i].view;
        dj_status_t status = check_index_dtype(index);
        if (status == DJ_OK)
            status = dj_shape_broadcast(index, common.sizes, &common.rank);
        if (status != DJ_OK)
            return status;
        first = n_present++ == 0 ? i : first;
        last = i;
    }
    if (n_present == 0)
        return dj_fail(DJ_ERR_SHAPE, "no index at all");
    if (last - first + 1 != n_present)
        first = 0; /* not adjacent: in front */
    if (common.rank + self->rank - n_present > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a result of rank %u", common.rank + self->rank - n_present);
    for (uint32_t i = 0; i <= self->rank; i++) {
        if (i == first)
            for (uint32_t j = 0; j < common.rank; j++)
                spread.sizes[rank++] = common.sizes[j]; /* strides of 0 leave their order open */
        if (i < self->rank &&
            (i >= indices->count || indices->operands[i].storage == DJ_STORAGE_NONE)) {
            spread.sizes[rank] = self->sizes[i];
            spread.strides[rank++] = lies->strides[i];
        }
    }
    spread.rank = (uint8_t)rank;
    if (dj_view_count(self) > 0)
        *out = dj_shape_dense_like(self->dtype, inputs, 1, spread.sizes, spread.rank);
    else
        *out = dj_view_contiguous(self->dtype, spread.rank, spread.sizes);
    return DJ_OK;
}

dj_status_t dj_shape_index(const dj_call_t *call, dj_view_t *outs)
{
    return indexed_shape(dj_call_view(call, 0), &call->args[1], outs);
}

/* self, indices, values, accumulate */
dj_status_t dj_shape_index_put(const dj_call_t *call, dj_view_t *outs)
{
    const dj_operand_t *values = &call->args[2].operands[0];
    const dj_view_t *self = dj_call_view(call, 0);
    dj_view_t target;
    dj_status_t status = indexed_shape(self, &call->args[1], &target);
    if (status != DJ_OK || dj_operand_is_scalar(values))
        return status;
    if (values->view.dtype != self->dtype)
        return dj_shape_misfit("values", &values->view, self);
    status = dj_view_check(&target, UINT64_MAX);
    return status == DJ_OK ? dj_shape_expands(&values->view, target.sizes, target.rank) : status;
}

/* self, dim, index, source */
dj_status_t dj_shape_index_copy(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0), *index = dj_call_view(call, 2);
    const dj_view_t *source = dj_call_view(call, 3);
    uint32_t dim;
    dj_status_t status = dj_shape_dim(call->args[1].integer, self->rank, &dim);
    if (status == DJ_OK)
        status = check_index_dtype(index);
    if (status != DJ_OK)
        return status;
    if (index->rank > 1 || source->dtype != self->dtype || source->rank != self->rank)
        return dj_shape_misfit("source", source, self);
    for (uint32_t i = 0; i < self->rank; i++)
        if (source->sizes[i] != (i == dim ? dj_view_count(index) : self->sizes[i]))
            return dj_shape_misfit("source", source, self);
    if (self->rank == 0 && dj_view_count(index) != 1)
        return dj_shape_misfit("source", source, self);
    return DJ_OK;
}

/* An empty tensor of rank 1 joins anything, as it always did in PyTorch. */
static bool is_placeholder(const dj_view_t *view)
{
    return view->rank == 1 && view->sizes[0] == 0;
}

static dj_status_t join(const dj_view_t *view, uint32_t dim, dj_view_t *joined)
{
    dj_view_t own = *joined;
    own.dtype = view->dtype;
    if (view->rank != joined->rank)
        return dj_shape_misfit("operand", view, &own);
    for (uint32_t i = 0; i < view->rank; i++)
        if (i != dim && view->sizes[i] != joined->sizes[i])
            return dj_shape_misfit("operand", view, &own);
    joined->sizes[dim] += view->sizes[dim]; /* at most 1024 sizes of 2^46 */
    return DJ_OK;
}

/* The type of a list's common result: tensors with dimensions outrank those without. */
static uint8_t common_dtype(const dj_arg_t *list)
{
    uint8_t dim = DJ_DTYPE_NONE, zero = DJ_DTYPE_NONE;
    for (uint32_t i = 0; i < list->count; i++) {
        const dj_view_t *view = &list->operands[i].view;
        if (view->rank > 0)
            dim = dj_promote(dim, view->dtype);
        else
            zero = dj_promote(zero, view->dtype);
    }
    return dim != DJ_DTYPE_NONE ? dim : zero;
}

static bool all_channels_last(const dj_arg_t *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (!dj_shape_channels_last(&list->operands[i].view))
            return false;
    return true;
}

/* tensors, dim */
dj_status_t dj_shape_cat(const dj_call_t *call, dj_view_t *outs)
{
    const dj_arg_t *list = &call->args[0];
    const dj_view_t *model = NULL;
    uint32_t dim;
    for (uint32_t i = 0; i < list->count && model == NULL; i++)
        if (!is_placeholder(&list->operands[i].view))
            model = &list->operands[i].view;
    if (model == NULL) { /* nothing joined is nothing, along whichever dimension */
        outs[0] = dj_view_contiguous(common_dtype(list), 1, list->operands[0].view.sizes);
        return DJ_OK;
    }
    if (model->rank == 0)
        return dj_fail(DJ_ERR_SHAPE, "tensors without dimensions cannot be joined");
    dj_status_t status = dj_shape_dim(call->args[1].integer, model->rank, &dim);
    if (status != DJ_OK)
        return status;
    dj_view_t joined = *model;
    joined.sizes[dim] = 0;
    for (uint32_t i = 0; i < list->count && status == DJ_OK; i++)
        if (!is_placeholder(&list->operands[i].view))
            status = join(&list->operands[i].view, dim, &joined);
    outs[0] =
        dj_shape_formatted(common_dtype(list), joined.rank, joined.sizes, all_channels_last(list));
    return status;
}

/* tril, triu: contiguous, same shape; at least a matrix */
dj_status_t dj_shape_triangle(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    if (self->rank < 2)
        return dj_fail(DJ_ERR_SHAPE, "a tensor of rank %u; at least 2", self->rank);
    outs[0] = dj_view_contiguous(self->dtype, self->rank, self->sizes);
    return DJ_OK;
}

/* self, dims */
dj_status_t dj_shape_flip(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *dims = &call->args[1];
    uint32_t seen = 0, dim;
    for (uint32_t i = 0; dims->kind == DJ_ARG_INTEGERS && i < dims->count; i++) {
        dj_status_t status = dj_shape_dim(dims->integers[i], self->rank, &dim);
        if (status != DJ_OK)
            return status;
        if (seen & 1u << dim)
            return dj_fail(DJ_ERR_SHAPE, "dimension %u is listed twice", dim);
        seen |= 1u << dim;
    }
    outs[0] = dj_shape_preserved(self->dtype, self);
    return DJ_OK;
}

/* elements, test elements, assume_unique, invert */
dj_status_t dj_shape_isin(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *elements = dj_call_view(call, 0);
    outs[0] = dj_view_contiguous(DJ_BOOL, elements->rank, elements->sizes);
    return DJ_OK;
}

/* self, k, dim, largest, sorted */
dj_status_t dj_shape_topk(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    int64_t sizes[DJ_RANK_MAX], k = call->args[1].integer;
    uint32_t dim;
    dj_status_t status = dj_shape_dim(call->args[2].integer, self->rank, &dim);
    if (status != DJ_OK)
        return status;
    if (k > (self->rank > 0 ? self->sizes[dim] : 1))
        return dj_fail(DJ_ERR_SHAPE, "the %lld largest of %lld elements", (long long)k,
                       (long long)(self->rank > 0 ? self->sizes[dim] : 1));
    memcpy(sizes, self->sizes, sizeof sizes);
    if (self->rank > 0)
        sizes[dim] = k;
    outs[0] = dj_view_contiguous(self->dtype, self->rank, sizes);
    outs[1] = dj_view_contiguous(DJ_I64, self->rank, sizes);
    return DJ_OK;
}

/* self, repeats */
dj_status_t dj_shape_repeat(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *repeats = &call->args[1];
    int64_t sizes[DJ_RANK_MAX];
    if (repeats->count < self->rank)
        return dj_fail(DJ_ERR_SHAPE, "%u repeats of a tensor of rank %u", repeats->count,
                       self->rank);
    for (uint32_t i = 0; i < repeats->count; i++) {
        uint32_t lead = repeats->count - self->rank;
        int64_t own = i < lead ? 1 : self->sizes[i - lead];
        if (__builtin_mul_overflow(own, repeats->integers[i], &sizes[i]))
            return dj_fail(DJ_ERR_LIMIT, "dimension %u repeated %lld times", i,
                           (long long)repeats->integers[i]);
    }
    outs[0] = dj_view_contiguous(self->dtype, (uint8_t)repeats->count, sizes);
    return DJ_OK;
}
