/* index.c - embedding, index_select, index.Tensor, and the other way round: index_copy, index_put.
 *
 * All five are one engine: index tensors, broadcast to a common shape, choose for each position of
 * that shape one slice of the indexed tensor; the slice is copied to (or from) the place of that
 * position in the other tensor. The copy is the engine of copy.h.
 *
 * An index out of range is clamped to 0 and reported as a fault; none leaves the tensor. */
#include "gpu/host/copy.h"
#include "gpu/host/index.h"
#include "gpu/host/prepare.h"
#include "gpu/loop.h"

typedef struct index {
    uint32_t place;
    bool is_wide;                 /* int64, else int32 */
    int64_t size, step_bytes;     /* of the indexed dimension */
    int64_t strides[DJ_RANK_MAX]; /* of the common shape, bytes */
} index_t;

typedef struct indexed {
    uint32_t n, rank; /* index tensors; rank of the common shape */
    int64_t count, sizes[DJ_RANK_MAX];
    int64_t other_strides[DJ_RANK_MAX]; /* of the other tensor, bytes */
    index_t index[DJ_RANK_MAX];
    dj_copy_t slice;
    bool negative_allowed, is_put, accumulate;
    uint32_t self, other;   /* places; other may be the output's */
    dj_node_scalar_t value; /* a scalar in place of the other tensor */
    dj_view_t slice_self, slice_other;
    dj_host_load_fn_t load;
    dj_host_store_fn_t store;
    dj_class_t class;
} indexed_t;

/* --- run --- */

/* Byte offsets into the indexed tensor and into the other one of a position; false when there is no
 * element to access at all. */
static bool position_find(const indexed_t *x, const dj_host_run_t *run, int64_t position,
                          int64_t *offset_p, int64_t *other_p)
{
    int64_t at[DJ_RANK_MAX];
    *other_p = *offset_p = 0;
    for (uint32_t d = x->rank; d-- > 0;) {
        at[d] = position % x->sizes[d];
        position /= x->sizes[d];
        *other_p += at[d] * x->other_strides[d];
    }
    for (uint32_t k = 0; k < x->n; k++) {
        const index_t *index = &x->index[k];
        const char *from = run->operands[index->place];
        for (uint32_t d = 0; d < x->rank; d++)
            from += at[d] * index->strides[d];
        int64_t value = index->is_wide ? *(const int64_t *)from : *(const int32_t *)from;
        int64_t inside = dj_index_clamp(run, value, index->size, x->negative_allowed);
        *offset_p += inside * index->step_bytes;
        if (index->size == 0)
            return false;
    }
    return true;
}

static void slice_move(const dj_copy_t *slice, const char *from, char *to, uint32_t threads)
{
    if (slice->mode == DJ_COPY_BYTES && slice->loop.rank == 1)
        memcpy(to, from, (size_t)slice->loop.count * slice->item_bytes);
    else
        dj_copy_run(slice, from, to, threads);
}

static void take_range(const indexed_t *x, const dj_host_run_t *run, int64_t first, int64_t end)
{
    const char *self = run->operands[x->self];
    char *out = run->outs[0];
    for (int64_t position = first; position < end; position++) {
        int64_t other, offset;
        if (position_find(x, run, position, &offset, &other))
            slice_move(&x->slice, self + offset, out + other, 1);
    }
}

static void run_take(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const indexed_t *x = kernel->state;
    if (x->slice.loop.count == 0)
        return;
    uint32_t threads = dj_host_threads(run, x->count * x->slice.loop.count);
    if (threads == 1 || x->count == 1) {
        take_range(x, run, 0, x->count);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t first, end;
        dj_host_share(x->count, 1, &first, &end);
        take_range(x, run, first, end);
    }
}

/* self[...] += other, one element at a time. */
static void slice_add(const indexed_t *x, const char *from, char *to)
{
    void *bases[2] = {(void *)from, to};
    dj_walk_t walk;
    for (int64_t i = 0; i < x->slice.loop.count; i++) {
        union {
            double real;
            int64_t integer;
        } a, b;
        dj_walk_seek(&x->slice.loop, &walk, bases, i);
        x->load(1, walk.at[0], 0, &a);
        x->load(1, walk.at[1], 0, &b);
        if (x->class == DJ_CLASS_F64)
            b.real += a.real;
        else
            b.integer += a.integer;
        x->store(1, &b, walk.at[1], 8);
    }
}

/* In order: of two writes to one place the later one stays. */
static void run_put(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const indexed_t *x = kernel->state;
    char *self = run->operands[x->self];
    const char *values = run->operands[x->other];
    uint64_t item = 0;
    if (x->slice.loop.count == 0)
        return;
    if (x->value.slot != DJ_SLOT_NONE) {
        dj_index_item(run, x->value, x->slice_self.dtype, x->store, x->class, &item);
        values = (const char *)&item;
    }
    for (int64_t position = 0; position < x->count; position++) {
        int64_t other, offset;
        if (!position_find(x, run, position, &offset, &other))
            continue;
        if (x->accumulate)
            slice_add(x, values + other, self + offset);
        else
            slice_move(&x->slice, values + other, self + offset, run->threads);
    }
}

/* --- prepare --- */

static void view_push(dj_view_t *view, int64_t size, int64_t stride)
{
    view->sizes[view->rank] = size;
    view->strides[view->rank++] = stride;
}

/* Adds an index tensor on dimension `dim` of self and widens the common shape by it. */
static dj_status_t index_add(indexed_t *x, const dj_view_t *self, uint32_t dim,
                             const dj_view_t *view, uint32_t place)
{
    if (x->n == DJ_RANK_MAX || (view->dtype != DJ_I64 && view->dtype != DJ_I32))
        return dj_fail(DJ_ERR_UNSUPPORTED, "an index must be int64 or int32");
    index_t *index = &x->index[x->n++];
    index->place = place;
    index->is_wide = view->dtype == DJ_I64;
    index->size = self->rank ? self->sizes[dim] : 1;
    index->step_bytes =
        (self->rank ? self->strides[dim] : 0) * (int64_t)dj_dtype_bytes(self->dtype);
    return DJ_OK;
}

/* Strides of every index over the common shape, which dimension `at` of `other` begins. */
static dj_status_t common_set(indexed_t *x, const dj_view_t *const *views, const dj_view_t *common,
                              const dj_view_t *other, uint32_t at)
{
    x->rank = common->rank;
    x->count = dj_view_count(common);
    for (uint32_t d = 0; d < common->rank; d++) {
        x->sizes[d] = common->sizes[d];
        if (other)
            x->other_strides[d] = other->strides[at + d] * (int64_t)dj_dtype_bytes(other->dtype);
        for (uint32_t k = 0; k < x->n; k++) {
            uint32_t lead = common->rank - views[k]->rank;
            if (d < lead || views[k]->sizes[d - lead] == 1)
                continue;
            if (views[k]->sizes[d - lead] != common->sizes[d])
                return dj_fail(DJ_ERR_SHAPE, "index tensors do not broadcast together");
            x->index[k].strides[d] =
                views[k]->strides[d - lead] * (int64_t)dj_dtype_bytes(views[k]->dtype);
        }
    }
    return DJ_OK;
}

/* The slice: what of self is not indexed, against what of other is not the common shape. */
static dj_status_t slice_make(indexed_t *x, const dj_view_t *self, const bool *is_indexed,
                              const dj_view_t *other, uint32_t at)
{
    x->slice_self = (dj_view_t){.dtype = self->dtype};
    x->slice_other = (dj_view_t){.dtype = other->dtype};
    for (uint32_t d = 0; d < self->rank; d++)
        if (!is_indexed[d])
            view_push(&x->slice_self, self->sizes[d], self->strides[d]);
    for (uint32_t d = 0; d < other->rank; d++)
        if (d < at || d >= at + x->rank)
            view_push(&x->slice_other, other->sizes[d], other->strides[d]);
    if (!dj_view_same_shape(&x->slice_self, &x->slice_other))
        return dj_fail(DJ_ERR_SHAPE, "the indexed tensor and the other one do not fit");
    x->class = dj_dtype_is_float(self->dtype) ? DJ_CLASS_F64 : DJ_CLASS_I64;
    x->load = dj_host_load_of(self->dtype, x->class);
    x->store = dj_host_store_of(x->class, self->dtype);
    return x->is_put ? dj_copy_make(&x->slice, &x->slice_other, &x->slice_self)
                     : dj_copy_make(&x->slice, &x->slice_self, &x->slice_other);
}

static dj_status_t indexed_create(dj_executable_t *exe, dj_host_kernel_t *kernel,
                                  indexed_t **indexed_p)
{
    indexed_t *x = dj_host_arena(exe, sizeof(*x));
    if (!x)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    x->value.slot = DJ_SLOT_NONE;
    kernel->state = *indexed_p = x;
    return DJ_OK;
}

/* One index tensor on one dimension: embedding, index_select, index_copy. */
static dj_status_t single_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel, uint32_t dim,
                                  uint32_t self_arg, uint32_t index_arg, const dj_view_t *other)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *self = &dj_node_operand(node, self_arg)->view;
    dj_view_t index = dj_node_operand(node, index_arg)->view;
    const dj_view_t *views[1] = {&index};
    bool is_indexed[DJ_RANK_MAX] = {false};
    indexed_t *x = kernel->state;
    /* Selecting keeps the dimension, so a lone index is a list of one; embedding does not. */
    if (index.rank == 0 && self->rank > 0 && node->call.op != DJ_OP_EMBEDDING) {
        index.rank = 1;
        index.sizes[0] = index.strides[0] = 1;
    }
    if (self->rank == 0)
        index.rank = 0;
    is_indexed[dim] = true;
    x->self = dj_node_operand_index(&node->call, self_arg);
    dj_status_t status =
        index_add(x, self, dim, &index, dj_node_operand_index(&node->call, index_arg));
    if (status == DJ_OK)
        status = common_set(x, views, &index, other, dim);
    if (status == DJ_OK)
        status = slice_make(x, self, is_indexed, other, dim);
    kernel->run = x->is_put ? run_put : run_take;
    kernel->threaded = dj_view_count(other) >= DJ_HOST_FORK_ELEMENTS;
    return status;
}

dj_status_t dj_host_embedding_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    indexed_t *x = NULL;
    dj_status_t status = indexed_create(exe, kernel, &x);
    return status != DJ_OK ? status
                           : single_prepare(exe, kernel, 0, 0, 1, &kernel->node->outs[0].view);
}

dj_status_t dj_host_index_select_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    indexed_t *x = NULL;
    const dj_node_t *node = kernel->node;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, dj_node_operand(node, 0)->view.rank);
    dj_status_t status = indexed_create(exe, kernel, &x);
    return status != DJ_OK ? status : single_prepare(exe, kernel, dim, 0, 2, &node->outs[0].view);
}

dj_status_t dj_host_index_copy_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    indexed_t *x = NULL;
    const dj_node_t *node = kernel->node;
    const dj_operand_t *source = dj_node_operand(node, 3);
    uint32_t dim = dj_node_dim(node->call.args[1].integer, dj_node_operand(node, 0)->view.rank);
    dj_status_t status = indexed_create(exe, kernel, &x);
    if (status != DJ_OK)
        return status;
    x->is_put = true;
    x->other = dj_node_operand_index(&node->call, 3);
    return single_prepare(exe, kernel, dim, 0, 2, &source->view);
}

/* A list of index tensors: index.Tensor (`values` is the output) and index_put. */
static dj_status_t list_prepare(indexed_t *x, const dj_node_t *node, const dj_view_t *values)
{
    const dj_view_t *self = &dj_node_operand(node, 0)->view, *views[DJ_RANK_MAX];
    const dj_arg_t *list = &node->call.args[1];
    uint32_t place = dj_node_operand_index(&node->call, 1), first = 0, last = 0;
    bool is_indexed[DJ_RANK_MAX] = {false};
    dj_view_t common = {.dtype = DJ_I64}, target = {.dtype = self->dtype}, other;
    if (list->count > self->rank)
        return dj_fail(DJ_ERR_SHAPE, "more index tensors than dimensions");
    for (uint32_t d = 0; d < list->count; d++) {
        if (list->operands[d].storage >= DJ_STORAGE_SCALAR)
            continue;
        first = x->n == 0 ? d : first;
        last = d;
        views[x->n] = &list->operands[d].view;
        dj_views_widen(&common, views[x->n]);
        is_indexed[d] = true;
        dj_status_t status = index_add(x, self, d, views[x->n], place + d);
        if (status != DJ_OK)
            return status;
    }
    uint32_t at = last - first + 1 == x->n ? first : 0;
    if (common.rank + self->rank - x->n > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "the indexed result has too many dimensions");
    for (uint32_t d = 0; d <= self->rank; d++) {
        for (uint32_t j = 0; d == at && j < common.rank; j++)
            view_push(&target, common.sizes[j], 0);
        if (d < self->rank && !is_indexed[d])
            view_push(&target, self->sizes[d], 0);
    }
    dj_status_t status = dj_view_expand(values, &target, &other);
    if (status == DJ_OK)
        status = common_set(x, views, &common, &other, at);
    return status != DJ_OK ? status : slice_make(x, self, is_indexed, &other, at);
}

dj_status_t dj_host_index_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    indexed_t *x = NULL;
    const dj_view_t *out = &kernel->node->outs[0].view;
    dj_status_t status = indexed_create(exe, kernel, &x);
    if (status != DJ_OK)
        return status;
    x->negative_allowed = true;
    kernel->run = run_take;
    kernel->threaded = dj_view_count(out) >= DJ_HOST_FORK_ELEMENTS;
    return list_prepare(x, kernel->node, out);
}

dj_status_t dj_host_index_put_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    static const dj_view_t nothing = {.rank = 0};
    indexed_t *x = NULL;
    const dj_node_t *node = kernel->node;
    dj_status_t status = indexed_create(exe, kernel, &x);
    if (status != DJ_OK)
        return status;
    x->negative_allowed = x->is_put = true;
    x->accumulate = dj_node_flag(node, 3, 0) != 0;
    x->value = dj_node_scalar(node, 2);
    x->other = dj_node_operand_index(&node->call, 2);
    dj_view_t values = nothing;
    values.dtype = dj_node_operand(node, 0)->view.dtype; /* a scalar is made one of these */
    if (x->value.slot == DJ_SLOT_NONE)
        values = dj_node_operand(node, 2)->view;
    kernel->run = run_put;
    return list_prepare(x, node, &values);
}
