/* shape_view.c - shape rules of view ops: which window on the first argument's storage they give.
 *
 * There are no views in a program (graph.h): a use carries its window. These rows exist so that
 * whoever records can compute a window the way PyTorch does; dj_op_infer() gives it with its
 * offset, and dj_program_add() and the decoder refuse the row. Sizes may be -1 where PyTorch takes
 * it, so they are structural letters; nothing of them crosses the wire.
 *
 * Offsets and strides are multiplied under dj_view_check()'s limits: a factor of an argument is
 * first brought into the range of the tensor's own sizes. */
#include "planner/shape.h"

/* Takes dimension `dim` out. */
static void drop_dim(dj_view_t *view, uint32_t dim)
{
    size_t after = (view->rank - dim - 1u) * sizeof view->sizes[0];
    memmove(&view->sizes[dim], &view->sizes[dim + 1], after);
    memmove(&view->strides[dim], &view->strides[dim + 1], after);
    view->rank--;
}

static dj_status_t fail_rank_0(void)
{
    return dj_fail(DJ_ERR_SHAPE, "a tensor without dimensions");
}

dj_status_t dj_shape_alias(const dj_call_t *call, dj_view_t *outs)
{
    outs[0] = *dj_call_view(call, 0);
    return DJ_OK;
}

/* self, sizes, strides, storage_offset */
dj_status_t dj_shape_as_strided(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *sizes = &call->args[1], *strides = &call->args[2], *offset = &call->args[3];
    if (sizes->count != strides->count)
        return dj_fail(DJ_ERR_SHAPE, "%u sizes and %u strides", sizes->count, strides->count);
    if (offset->kind == DJ_ARG_INTEGERS && offset->count != 1)
        return dj_fail(DJ_ERR_SHAPE, "%u storage offsets", offset->count);
    dj_view_t view = {.dtype = self->dtype,
                      .rank = (uint8_t)sizes->count,
                      .offset =
                          offset->kind == DJ_ARG_INTEGERS ? offset->integers[0] : self->offset};
    memcpy(view.sizes, sizes->integers, sizes->count * sizeof view.sizes[0]);
    memcpy(view.strides, strides->integers, strides->count * sizeof view.strides[0]);
    outs[0] = view;
    return DJ_OK;
}

/* self, offset, dim1, dim2 */
dj_status_t dj_shape_diagonal(const dj_call_t *call, dj_view_t *outs)
{
    dj_view_t view = *dj_call_view(call, 0);
    uint32_t first, second;
    if (view.rank < 2)
        return dj_fail(DJ_ERR_SHAPE, "a tensor of rank %u; at least 2", view.rank);
    dj_status_t status = dj_shape_dim(call->args[2].integer, view.rank, &first);
    if (status == DJ_OK)
        status = dj_shape_dim(call->args[3].integer, view.rank, &second);
    if (status != DJ_OK)
        return status;
    if (first == second)
        return dj_fail(DJ_ERR_SHAPE, "dimension %u with itself", first);
    int64_t rows = view.sizes[first], columns = view.sizes[second], offset = call->args[1].integer;
    bool above = offset >= 0;
    int64_t skipped = above ? columns : rows; /* at most: a diagonal further out is empty */
    if (above ? offset < columns : offset > -rows)
        skipped = above ? offset : -offset;
    int64_t left = above ? columns - skipped : rows - skipped, other = above ? rows : columns;
    int64_t length = left < other ? left : other;
    int64_t stride = view.strides[first] + view.strides[second];
    if (length > 0)
        view.offset += skipped * view.strides[above ? second : first];
    drop_dim(&view, first > second ? first : second);
    drop_dim(&view, first > second ? second : first);
    view.sizes[view.rank] = length;
    view.strides[view.rank++] = stride;
    outs[0] = view;
    return DJ_OK;
}

/* self, sizes (-1: as it is), implicit */
dj_status_t dj_shape_expand(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *wanted = &call->args[1];
    dj_view_t view = *self;
    if (wanted->kind != DJ_ARG_INTEGERS || wanted->count < self->rank ||
        wanted->count > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_SHAPE, "%u sizes for a tensor of rank %u", wanted->count, self->rank);
    uint32_t lead = wanted->count - self->rank;
    view.rank = (uint8_t)wanted->count;
    for (uint32_t i = 0; i < wanted->count; i++) {
        int64_t own = i < lead ? 1 : self->sizes[i - lead], size = wanted->integers[i];
        if (size == -1 && i >= lead)
            size = own;
        if (size < 0 || (own != 1 && own != size))
            return dj_fail(DJ_ERR_SHAPE, "dimension %u of size %lld does not expand to %lld", i,
                           (long long)own, (long long)wanted->integers[i]);
        view.sizes[i] = size;
        view.strides[i] = i < lead || own != size ? 0 : self->strides[i - lead];
    }
    outs[0] = view;
    return DJ_OK;
}

/* self, dims */
dj_status_t dj_shape_permute(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *dims = &call->args[1];
    dj_view_t view = *self;
    uint32_t seen = 0, dim;
    if (dims->kind != DJ_ARG_INTEGERS || dims->count != self->rank)
        return dj_fail(DJ_ERR_SHAPE, "%u dimensions of a tensor of rank %u", dims->count,
                       self->rank);
    for (uint32_t i = 0; i < dims->count; i++) {
        dj_status_t status = dj_shape_dim(dims->integers[i], self->rank, &dim);
        if (status != DJ_OK)
            return status;
        if (seen & 1u << dim)
            return dj_fail(DJ_ERR_SHAPE, "dimension %u is listed twice", dim);
        seen |= 1u << dim;
        view.sizes[i] = self->sizes[dim];
        view.strides[i] = self->strides[dim];
    }
    outs[0] = view;
    return DJ_OK;
}

dj_status_t dj_shape_take_slice(dj_view_t *view, uint32_t dim, const dj_arg_t *start,
                                const dj_arg_t *end, int64_t step)
{
    int64_t size = view->sizes[dim];
    if ((start->kind == DJ_ARG_INTEGERS && start->count != 1) ||
        (end->kind == DJ_ARG_INTEGERS && end->count != 1))
        return dj_fail(DJ_ERR_SHAPE, "start and end are one number each, or none");
    int64_t from = start->kind == DJ_ARG_INTEGERS ? start->integers[0] : 0;
    int64_t to = end->kind == DJ_ARG_INTEGERS ? end->integers[0] : size;
    if (step <= 0)
        return dj_fail(DJ_ERR_SHAPE, "a step of %lld", (long long)step);
    from = from < 0 ? (from < -size ? 0 : from + size) : from;
    to = to < 0 ? (to < -size ? 0 : to + size) : to;
    from = from > size ? size : from;
    to = to < from ? from : to > size ? size : to;
    int64_t length = (to - from) / step + ((to - from) % step != 0);
    if (from > 0)
        view->offset += from * view->strides[dim];
    view->sizes[dim] = length;
    if (__builtin_mul_overflow(view->strides[dim], step, &view->strides[dim]))
        return dj_fail(DJ_ERR_LIMIT, "a step of %lld", (long long)step);
    return DJ_OK;
}

/* self, dim, start, end, step */
dj_status_t dj_shape_slice(const dj_call_t *call, dj_view_t *outs)
{
    dj_view_t view = *dj_call_view(call, 0);
    uint32_t dim;
    if (view.rank == 0)
        return fail_rank_0();
    dj_status_t status = dj_shape_dim(call->args[1].integer, view.rank, &dim);
    if (status == DJ_OK)
        status =
            dj_shape_take_slice(&view, dim, &call->args[2], &call->args[3], call->args[4].integer);
    outs[0] = view;
    return status;
}

dj_status_t dj_shape_take_index(dj_view_t *view, int64_t dim, int64_t index)
{
    uint32_t at;
    if (view->rank == 0)
        return fail_rank_0();
    dj_status_t status = dj_shape_dim(dim, view->rank, &at);
    if (status != DJ_OK)
        return status;
    int64_t size = view->sizes[at];
    if (index < -size || index >= size)
        return dj_fail(DJ_ERR_SHAPE, "element %lld of dimension %u, which has %lld",
                       (long long)index, at, (long long)size);
    view->offset += (index < 0 ? index + size : index) * view->strides[at];
    drop_dim(view, at);
    return DJ_OK;
}

/* self, dim, index */
dj_status_t dj_shape_select(const dj_call_t *call, dj_view_t *outs)
{
    outs[0] = *dj_call_view(call, 0);
    return dj_shape_take_index(&outs[0], call->args[1].integer, call->args[2].integer);
}

/* self, sizes, dim, which of the parts */
dj_status_t dj_shape_split_with_sizes(const dj_call_t *call, dj_view_t *outs)
{
    dj_view_t view = *dj_call_view(call, 0);
    const dj_arg_t *parts = &call->args[1];
    int64_t part = call->args[3].integer, before = 0, sum = 0;
    uint32_t dim;
    if (view.rank == 0)
        return fail_rank_0();
    dj_status_t status = dj_shape_dim(call->args[2].integer, view.rank, &dim);
    if (status != DJ_OK)
        return status;
    if (parts->kind != DJ_ARG_INTEGERS || part < 0 || part >= parts->count)
        return dj_fail(DJ_ERR_SHAPE, "part %lld of %u", (long long)part, parts->count);
    for (uint32_t i = 0; i < parts->count; i++) {
        int64_t size = parts->integers[i];
        if (size < 0 || size > view.sizes[dim])
            return dj_fail(DJ_ERR_SHAPE, "part %u has %lld of %lld elements", i, (long long)size,
                           (long long)view.sizes[dim]);
        before += i < part ? size : 0;
        sum += size;
    }
    if (sum != view.sizes[dim])
        return dj_fail(DJ_ERR_SHAPE, "the parts have %lld elements together; dimension %u has %lld",
                       (long long)sum, dim, (long long)view.sizes[dim]);
    view.offset += before * view.strides[dim];
    view.sizes[dim] = parts->integers[part];
    outs[0] = view;
    return DJ_OK;
}

/* self, dim */
dj_status_t dj_shape_squeeze(const dj_call_t *call, dj_view_t *outs)
{
    dj_view_t view = *dj_call_view(call, 0);
    uint32_t dim;
    dj_status_t status = dj_shape_dim(call->args[1].integer, view.rank, &dim);
    if (status == DJ_OK && view.rank > 0 && view.sizes[dim] == 1)
        drop_dim(&view, dim);
    outs[0] = view;
    return status;
}

/* self, dims */
dj_status_t dj_shape_squeeze_dims(const dj_call_t *call, dj_view_t *outs)
{
    dj_view_t view = *dj_call_view(call, 0);
    const dj_arg_t *dims = &call->args[1];
    uint32_t seen = 0, dim;
    for (uint32_t i = 0; dims->kind == DJ_ARG_INTEGERS && i < dims->count; i++) {
        dj_status_t status = dj_shape_dim(dims->integers[i], view.rank, &dim);
        if (status != DJ_OK)
            return status;
        if (seen & 1u << dim)
            return dj_fail(DJ_ERR_SHAPE, "dimension %u is listed twice", dim);
        seen |= 1u << dim;
    }
    for (uint32_t i = view.rank; i-- > 0;)
        if ((seen & 1u << i) && view.sizes[i] == 1)
            drop_dim(&view, i);
    outs[0] = view;
    return DJ_OK;
}

/* self, dim */
dj_status_t dj_shape_unsqueeze(const dj_call_t *call, dj_view_t *outs)
{
    dj_view_t view = *dj_call_view(call, 0);
    uint32_t dim;
    if (view.rank == DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a result of rank %d", DJ_RANK_MAX + 1);
    dj_status_t status = dj_shape_dim(call->args[1].integer, view.rank + 1u, &dim);
    if (status != DJ_OK)
        return status;
    int64_t stride = 1;
    if (dim < view.rank) {
        stride = view.strides[dim] * view.sizes[dim];
        memmove(&view.sizes[dim + 1], &view.sizes[dim], (view.rank - dim) * sizeof stride);
        memmove(&view.strides[dim + 1], &view.strides[dim], (view.rank - dim) * sizeof stride);
    }
    view.sizes[dim] = 1;
    view.strides[dim] = stride;
    view.rank++;
    outs[0] = view;
    return DJ_OK;
}

/* The wanted sizes with a -1 filled in; together as many elements as `self` has. */
static dj_status_t view_sizes(const dj_view_t *self, const dj_arg_t *wanted, int64_t *sizes)
{
    int64_t count = dj_view_count(self), product = 1;
    uint32_t open = DJ_RANK_MAX;
    for (uint32_t i = 0; i < wanted->count; i++) {
        sizes[i] = wanted->integers[i];
        if (sizes[i] == -1 && open == DJ_RANK_MAX)
            open = i;
        else if (sizes[i] < 0 || __builtin_mul_overflow(product, sizes[i], &product))
            return dj_fail(DJ_ERR_SHAPE, "size %lld in dimension %u", (long long)sizes[i], i);
    }
    if (open == DJ_RANK_MAX ? product == count : product > 0 && count % product == 0) {
        if (open != DJ_RANK_MAX)
            sizes[open] = count / product;
        return DJ_OK;
    }
    return dj_fail(DJ_ERR_SHAPE, "%lld elements do not fill sizes of %lld", (long long)count,
                   (long long)product);
}

/* Strides for view->sizes such that the elements are those of `self` in their order. A run of
 * dimensions of `self` that lie behind one another may be cut anew; between runs a cut must stay.
 */
static bool view_strides(const dj_view_t *self, dj_view_t *view)
{
    int at = view->rank - 1;
    int64_t own = 1, made = 1, base = self->strides[self->rank - 1u];
    for (int d = self->rank - 1; d >= 0; d--) {
        own *= self->sizes[d];
        if (d > 0 && (self->sizes[d - 1] == 1 || self->strides[d - 1] == own * base))
            continue;
        while (at >= 0 && (made < own || view->sizes[at] == 1)) {
            /* unsigned: beside the cut it may be anything, and is refused below */
            view->strides[at] = (int64_t)((uint64_t)made * (uint64_t)base & INT64_MAX);
            made *= view->sizes[at--];
        }
        if (made != own)
            return false;
        base = d > 0 ? self->strides[d - 1] : 0;
        own = made = 1;
    }
    return at < 0;
}

/* self, sizes */
dj_status_t dj_shape_view(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *wanted = &call->args[1];
    int64_t sizes[DJ_RANK_MAX];
    char text[DJ_VIEW_TEXT];
    if (wanted->kind != DJ_ARG_INTEGERS || wanted->count > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a view of %u dimensions", wanted->count);
    dj_status_t status = view_sizes(self, wanted, sizes);
    if (status != DJ_OK)
        return status;
    dj_view_t view = dj_view_contiguous(self->dtype, (uint8_t)wanted->count, sizes);
    view.offset = self->offset;
    if (dj_view_count(self) == 0 && dj_view_same_shape(self, &view))
        view = *self;
    else if (dj_view_count(self) > 0 && self->rank > 0 && !view_strides(self, &view))
        return dj_fail(DJ_ERR_SHAPE, "the strides of %s do not allow it; copy it first",
                       dj_view_format(self, text, sizeof text));
    outs[0] = view;
    return DJ_OK;
}

/* self, sizes: the storage, grown where needed, anew */
dj_status_t dj_shape_resize(const dj_call_t *call, dj_view_t *outs)
{
    const dj_view_t *self = dj_call_view(call, 0);
    const dj_arg_t *sizes = &call->args[1];
    dj_view_t view = dj_view_contiguous(self->dtype, (uint8_t)sizes->count, sizes->integers);
    view.offset = self->offset;
    outs[0] = dj_view_same_shape(self, &view) ? *self : view;
    return DJ_OK;
}
