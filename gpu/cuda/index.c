/* index.c - embedding, index_select, index.Tensor, and the other way round: index_copy, index_put.
 *
 * All five are one engine, as on the host: index tensors, broadcast to a common shape, choose for each position of
 * that shape one slice of the indexed tensor; the slice is copied to (or from) the place of that position in the
 * other tensor.
 *
 * Writing has an order where indices repeat. The last position wins: if there may be several, each slot of the
 * indexed tensor is given an owner in the workspace first, or the positions are sorted by slot, whichever takes less
 * memory. Accumulation sorts, too, and adds each slot's positions in order, so that sums do not differ from run to
 * run. */
#include "gpu/cuda/copy.h"
#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/kernels/index.h"
#include "gpu/cuda/prepare.h"
#include "gpu/cuda/sort.h"

#define THREADS 256
#define OWNERS_BYTES 64 /* a position, roughly what sorting takes; and at least the next */
#define OWNERS_BYTES_MIN (1 << 20)

_Static_assert(sizeof(dj_index_slices_t) <= DJ_CUDA_PARAMS_MAX, "a launch's parameters");

typedef struct indexed {
    dj_cuda_device_t *device;
    CUfunction function;            /* take, put or accumulate */
    dj_index_slices_t params;       /* without its refs */
    uint32_t operands[DJ_RANK_MAX]; /* of each index tensor */
    uint32_t self, other;           /* operands */
    bool accumulate, is_sorted;
    CUfunction mark;      /* put: the owners' or the slots' kernel; NULL: positions cannot meet */
    dj_cuda_zero_t zero;  /* of the owners */
    int64_t slots;        /* that indices can name */
    dj_cuda_sort_t sort;  /* of the slots */
    uint64_t slots_bytes; /* of one array of slots in the workspace: as they come, then sorted */
    uint64_t order_bytes;
} indexed_t;

/* --- emit --- */

static dj_index_slices_t slices_of(const indexed_t *x, const dj_cuda_emit_t *emit)
{
    dj_index_slices_t p = x->params;
    p.self = dj_cuda_emit_ref(emit, x->self);
    if (p.value.slot == DJ_CUDA_NONE)
        p.other = dj_cuda_emit_ref(emit, x->other);
    for (int32_t k = 0; k < p.positions.n; k++)
        p.positions.list[k].ref = dj_cuda_emit_ref(emit, x->operands[k]);
    return p;
}

static bool moves_nothing(const indexed_t *x)
{
    return x->params.positions.count == 0 || x->params.slice.count == 0;
}

static dj_status_t emit_take(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const indexed_t *x = kernel->state;
    if (moves_nothing(x))
        return DJ_OK;
    dj_index_slices_t p = slices_of(x, emit);
    dj_cuda_grid_t grid = dj_cuda_grid_flat(x->device, p.positions.count * p.slice.count, THREADS, 2);
    return dj_cuda_emit_kernel(emit, x->function, &grid, &p, sizeof(p));
}

static dj_status_t emit_slices(const indexed_t *x, dj_cuda_emit_t *emit, dj_index_slices_t *p)
{
    dj_cuda_grid_t grid = dj_cuda_grid_flat(x->device, p->positions.count * p->slice.count, THREADS, 1);
    return dj_cuda_emit_kernel(emit, x->function, &grid, p, sizeof(*p));
}

static dj_status_t emit_owned(const indexed_t *x, dj_cuda_emit_t *emit, dj_index_slices_t *p)
{
    dj_index_claim_t claim = {.positions = p->positions, .owner = dj_cuda_emit_workspace(emit)};
    dj_status_t status = dj_cuda_zero_emit(&x->zero, emit, x->device, dj_cuda_ref_at(claim.owner));
    if (status != DJ_OK)
        return status;
    dj_cuda_grid_t grid = dj_cuda_grid_flat(x->device, p->positions.count, THREADS, 1);
    status = dj_cuda_emit_kernel(emit, x->mark, &grid, &claim, sizeof(claim));
    p->owner = claim.owner;
    return status != DJ_OK ? status : emit_slices(x, emit, p);
}

/* Workspace: slots of positions, the same sorted, the order of positions, the sort's own. */
static dj_status_t emit_sorted(const indexed_t *x, dj_cuda_emit_t *emit, dj_index_slices_t *p)
{
    CUdeviceptr workspace = dj_cuda_emit_workspace(emit), rest = workspace + 2 * x->slots_bytes;
    dj_index_slots_t mark = {.positions = p->positions, .slots = workspace, .is_wide = p->slots_wide};
    dj_cuda_grid_t grid = dj_cuda_grid_flat(x->device, p->positions.count, THREADS, 1);
    p->slots = workspace + x->slots_bytes;
    p->order = rest;
    dj_status_t status = dj_cuda_emit_kernel(emit, x->mark, &grid, &mark, sizeof(mark));
    if (status == DJ_OK && x->slots > 0)
        status = dj_cuda_sort_emit(&x->sort, emit, x->device, dj_cuda_ref_at(mark.slots), dj_cuda_ref_at(p->slots),
                                   dj_cuda_ref_at(p->order), rest + x->order_bytes);
    return status != DJ_OK || x->slots == 0 ? status : emit_slices(x, emit, p);
}

static dj_status_t emit_put(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const indexed_t *x = kernel->state;
    if (moves_nothing(x))
        return DJ_OK;
    dj_index_slices_t p = slices_of(x, emit);
    if (x->is_sorted)
        return emit_sorted(x, emit, &p);
    return x->mark ? emit_owned(x, emit, &p) : emit_slices(x, emit, &p);
}

/* --- prepare --- */

static void view_push(dj_view_t *view, int64_t size, int64_t stride)
{
    view->sizes[view->rank] = size;
    view->strides[view->rank++] = stride;
}

/* Adds an index tensor on dimension `dim` of self. */
static dj_status_t index_add(indexed_t *x, const dj_view_t *self, uint32_t dim, const dj_view_t *view,
                             uint32_t operand)
{
    dj_index_positions_t *positions = &x->params.positions;
    if (positions->n == DJ_RANK_MAX || (view->dtype != DJ_I64 && view->dtype != DJ_I32))
        return dj_fail(DJ_ERR_UNSUPPORTED, "an index must be int64 or int32");
    x->operands[positions->n] = operand;
    dj_index_list_t *list = &positions->list[positions->n++];
    list->is_wide = view->dtype == DJ_I64;
    list->size = self->rank ? self->sizes[dim] : 1;
    list->step_bytes = (self->rank ? self->strides[dim] : 0) * (int64_t)dj_dtype_bytes(self->dtype);
    return DJ_OK;
}

/* Strides of every index over the common shape, which dimension `at` of `other` begins. */
static dj_status_t common_set(indexed_t *x, const dj_view_t *const *views, const dj_view_t *common,
                              const dj_view_t *other, uint32_t at)
{
    dj_index_positions_t *positions = &x->params.positions;
    positions->rank = common->rank;
    positions->count = dj_view_count(common);
    for (uint32_t d = 0; d < common->rank; d++) {
        positions->sizes[d] = common->sizes[d];
        positions->other_strides[d] = other->strides[at + d] * (int64_t)dj_dtype_bytes(other->dtype);
        for (int32_t k = 0; k < positions->n; k++) {
            uint32_t lead = common->rank - views[k]->rank;
            if (d < lead || views[k]->sizes[d - lead] == 1)
                continue;
            if (views[k]->sizes[d - lead] != common->sizes[d])
                return dj_fail(DJ_ERR_SHAPE, "index tensors do not broadcast together");
            positions->list[k].strides[d] = views[k]->strides[d - lead] * (int64_t)dj_dtype_bytes(views[k]->dtype);
        }
    }
    return DJ_OK;
}

/* Order and width of the pieces: what is dense in the written tensor goes to neighbouring threads. */
static void pieces_set(indexed_t *x, dj_loop_t *loop, uint32_t item_bytes)
{
    dj_index_slices_t *p = &x->params;
    int64_t steps[2 * DJ_RANK_MAX];
    uint32_t n = 0, inner = loop->rank - 1;
    int64_t slice_step = loop->strides[1][inner], position_step = 0;
    for (int32_t k = 0; k < p->positions.n; k++)
        steps[n++] = p->positions.list[k].step_bytes;
    for (int32_t d = 0; d < p->positions.rank; d++) {
        steps[n++] = p->positions.other_strides[d];
        if (p->positions.sizes[d] > 1)
            position_step = p->positions.other_strides[d];
    }
    p->position_fast = loop->sizes[inner] == 1 || (position_step != 0 && position_step < slice_step);
    p->item_bytes = item_bytes;
    p->wide_bytes = x->accumulate ? item_bytes : dj_cuda_loop_widen(loop, item_bytes, steps, n);
    dj_cuda_loop_put(&p->slice, loop);
}

/* The slice: what of self is not indexed, against what of other is not the common shape. */
static dj_status_t slice_make(indexed_t *x, const dj_view_t *self, const bool *is_indexed, const dj_view_t *other,
                              uint32_t at)
{
    dj_view_t from = {.dtype = self->dtype}, to = {.dtype = other->dtype};
    const dj_view_t *views[2] = {&from, &to};
    dj_loop_t loop;
    for (uint32_t d = 0; d < self->rank; d++)
        if (!is_indexed[d])
            view_push(&from, self->sizes[d], self->strides[d]);
    for (uint32_t d = 0; d < other->rank; d++)
        if (d < at || d >= at + (uint32_t)x->params.positions.rank)
            view_push(&to, other->sizes[d], other->strides[d]);
    if (!dj_view_same_shape(&from, &to))
        return dj_fail(DJ_ERR_SHAPE, "the indexed tensor and the other one do not fit");
    if (self->dtype != other->dtype)
        return dj_fail(DJ_ERR_UNSUPPORTED, "an indexed tensor of %s and another one of %s: convert one first",
                       dj_dtype_name(self->dtype), dj_dtype_name(other->dtype));
    dj_status_t status = dj_loop_make(&loop, views, 2);
    if (status == DJ_OK)
        pieces_set(x, &loop, dj_dtype_bytes(self->dtype));
    return status;
}

static dj_status_t indexed_create(dj_executable_t *exe, dj_cuda_kernel_t *kernel, indexed_t **indexed_p)
{
    indexed_t *x = dj_cuda_arena(exe, sizeof(*x));
    if (!x)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    x->device = dj_cuda_device_of(exe);
    x->params.value.slot = DJ_CUDA_NONE;
    kernel->state = *indexed_p = x;
    return DJ_OK;
}

static dj_status_t take_finish(dj_cuda_kernel_t *kernel, indexed_t *x)
{
    kernel->emit = emit_take;
    x->other = dj_node_operand_index(&kernel->node->call, kernel->node->call.n_args);
    return dj_cuda_function(x->device, "dj_index_take", &x->function);
}

/* One index tensor on one dimension: embedding, index_select, index_copy. */
static dj_status_t single_prepare(indexed_t *x, const dj_node_t *node, uint32_t dim, uint32_t index_arg,
                                  const dj_view_t *other)
{
    const dj_view_t *self = &dj_node_operand(node, 0)->view;
    dj_view_t index = dj_node_operand(node, index_arg)->view;
    const dj_view_t *views[1] = {&index};
    bool is_indexed[DJ_RANK_MAX] = {false};
    /* Selecting keeps the dimension, so a lone index is a list of one; embedding does not. */
    if (index.rank == 0 && self->rank > 0 && node->call.op != DJ_OP_EMBEDDING) {
        index.rank = 1;
        index.sizes[0] = index.strides[0] = 1;
    }
    if (self->rank == 0)
        index.rank = 0;
    is_indexed[dim] = true;
    dj_status_t status = index_add(x, self, dim, &index, dj_node_operand_index(&node->call, index_arg));
    if (status == DJ_OK)
        status = common_set(x, views, &index, other, dim);
    return status != DJ_OK ? status : slice_make(x, self, is_indexed, other, dim);
}

dj_status_t dj_cuda_embedding_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    indexed_t *x = NULL;
    dj_status_t status = indexed_create(exe, kernel, &x);
    if (status == DJ_OK)
        status = single_prepare(x, kernel->node, 0, 1, &kernel->node->outs[0].view);
    return status != DJ_OK ? status : take_finish(kernel, x);
}

dj_status_t dj_cuda_index_select_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    indexed_t *x = NULL;
    const dj_node_t *node = kernel->node;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, dj_node_operand(node, 0)->view.rank);
    dj_status_t status = indexed_create(exe, kernel, &x);
    if (status == DJ_OK)
        status = single_prepare(x, node, dim, 2, &node->outs[0].view);
    return status != DJ_OK ? status : take_finish(kernel, x);
}

/* The shape of self[indices], with its common part at *at_p. */
static dj_status_t target_find(const dj_view_t *self, const bool *is_indexed, const dj_view_t *common, uint32_t n,
                               uint32_t at, dj_view_t *target)
{
    if (common->rank + self->rank - n > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "the indexed result has too many dimensions");
    *target = (dj_view_t){.dtype = self->dtype};
    for (uint32_t d = 0; d <= self->rank; d++) {
        for (uint32_t j = 0; d == at && j < common->rank; j++)
            view_push(target, common->sizes[j], 0);
        if (d < self->rank && !is_indexed[d])
            view_push(target, self->sizes[d], 0);
    }
    return DJ_OK;
}

/* A list of index tensors: index.Tensor (`values` is the output) and index_put. */
static dj_status_t list_prepare(indexed_t *x, const dj_node_t *node, const dj_view_t *values)
{
    const dj_view_t *self = &dj_node_operand(node, 0)->view, *views[DJ_RANK_MAX];
    const dj_arg_t *list = &node->call.args[1];
    uint32_t operand = dj_node_operand_index(&node->call, 1), first = 0, last = 0, n = 0;
    bool is_indexed[DJ_RANK_MAX] = {false};
    dj_view_t common = {.dtype = DJ_I64}, target, other;
    if (list->count > self->rank)
        return dj_fail(DJ_ERR_SHAPE, "more index tensors than dimensions");
    for (uint32_t d = 0; d < list->count; d++) {
        if (list->operands[d].storage >= DJ_STORAGE_SCALAR)
            continue;
        first = n == 0 ? d : first;
        last = d;
        views[n] = &list->operands[d].view;
        dj_views_widen(&common, views[n]);
        is_indexed[d] = true;
        dj_status_t status = index_add(x, self, d, views[n++], operand + d);
        if (status != DJ_OK)
            return status;
    }
    uint32_t at = last - first + 1 == n ? first : 0;
    dj_status_t status = target_find(self, is_indexed, &common, n, at, &target);
    if (status == DJ_OK)
        status = dj_view_expand(values, &target, &other);
    if (status == DJ_OK)
        status = common_set(x, views, &common, &other, at);
    return status != DJ_OK ? status : slice_make(x, self, is_indexed, &other, at);
}

dj_status_t dj_cuda_index_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    indexed_t *x = NULL;
    dj_status_t status = indexed_create(exe, kernel, &x);
    if (status != DJ_OK)
        return status;
    x->params.positions.negative_allowed = true;
    status = list_prepare(x, kernel->node, &kernel->node->outs[0].view);
    return status != DJ_OK ? status : take_finish(kernel, x);
}

/* --- writing --- */

/* A slot for each tuple of indices, counted with the last index tensor fastest. */
static void slots_number(indexed_t *x)
{
    dj_index_positions_t *positions = &x->params.positions;
    x->slots = 1;
    for (int32_t k = positions->n; k-- > 0;) {
        positions->list[k].step_slots = x->slots;
        x->slots *= positions->list[k].size;
    }
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + DJ_ALIGN_BYTES - 1) / DJ_ALIGN_BYTES * DJ_ALIGN_BYTES;
}

/* Sorting is for accumulation, and where owners would take more memory than that. */
static dj_status_t sorted_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel, indexed_t *x)
{
    dj_scan_sort_t *p = &x->sort.params;
    bool is_wide = x->slots > INT32_MAX;
    int64_t slot_bytes = is_wide ? 8 : 4;
    x->is_sorted = true;
    x->params.slots_wide = is_wide;
    p->n = p->k = x->params.positions.count;
    p->from_stride = p->value_stride = slot_bytes;
    p->index_stride = sizeof(int64_t);
    p->dtype = is_wide ? DJ_I64 : DJ_I32;
    p->item_bytes = (uint32_t)slot_bytes;
    p->rows = (dj_cuda_loop_t){.count = 1, .rank = 1, .views = 3, .sizes = {1}};
    dj_status_t status = dj_cuda_sort_make(exe, &x->sort);
    x->slots_bytes = aligned((uint64_t)(p->n * slot_bytes));
    x->order_bytes = aligned((uint64_t)p->n * sizeof(int64_t));
    kernel->workspace_bytes = 2 * x->slots_bytes + x->order_bytes + dj_cuda_sort_bytes(&x->sort);
    return status != DJ_OK ? status : dj_cuda_function(x->device, "dj_index_slots", &x->mark);
}

static dj_status_t owned_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel, indexed_t *x)
{
    uint64_t count = (uint64_t)x->params.positions.count;
    /* One position, or one number for all of them: nothing to decide. */
    if (count <= 1 || x->params.value.slot != DJ_CUDA_NONE)
        return DJ_OK;
    if (count >= UINT32_MAX)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%llu positions to write; a CUDA kernel takes fewer than %u",
                       (unsigned long long)count, UINT32_MAX);
    uint64_t owners_bytes = (uint64_t)x->slots * sizeof(uint32_t);
    if (owners_bytes > OWNERS_BYTES_MIN && owners_bytes / OWNERS_BYTES > count)
        return sorted_prepare(exe, kernel, x);
    kernel->workspace_bytes = aligned(owners_bytes);
    dj_status_t status = dj_cuda_zero_make(exe, &x->zero, kernel->workspace_bytes);
    return status != DJ_OK ? status : dj_cuda_function(x->device, "dj_index_claim", &x->mark);
}

static dj_status_t put_finish(dj_executable_t *exe, dj_cuda_kernel_t *kernel, indexed_t *x)
{
    x->params.dtype = dj_node_operand(kernel->node, 0)->view.dtype;
    slots_number(x);
    kernel->emit = emit_put;
    if (x->accumulate && dj_dtype_is_complex((uint8_t)x->params.dtype))
        return dj_fail(DJ_ERR_UNSUPPORTED, "accumulating %s has no CUDA kernel",
                       dj_dtype_name((uint8_t)x->params.dtype));
    dj_status_t status = x->accumulate ? sorted_prepare(exe, kernel, x) : owned_prepare(exe, kernel, x);
    const char *name = x->accumulate ? "dj_index_accumulate" : "dj_index_put";
    return status != DJ_OK ? status : dj_cuda_function(x->device, name, &x->function);
}

dj_status_t dj_cuda_index_copy_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    indexed_t *x = NULL;
    const dj_node_t *node = kernel->node;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, dj_node_operand(node, 0)->view.rank);
    dj_status_t status = indexed_create(exe, kernel, &x);
    if (status != DJ_OK)
        return status;
    x->other = dj_node_operand_index(&node->call, 3);
    status = single_prepare(x, node, dim, 2, &dj_node_operand(node, 3)->view);
    return status != DJ_OK ? status : put_finish(exe, kernel, x);
}

dj_status_t dj_cuda_index_put_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    indexed_t *x = NULL;
    const dj_node_t *node = kernel->node;
    dj_status_t status = indexed_create(exe, kernel, &x);
    if (status != DJ_OK)
        return status;
    x->params.positions.negative_allowed = true;
    x->accumulate = dj_node_flag(node, 3, 0) != 0;
    x->params.value = dj_cuda_scalar_of(node, 2);
    x->other = dj_node_operand_index(&node->call, 2);
    dj_view_t values = {.dtype = dj_node_operand(node, 0)->view.dtype}; /* a number is made one of these */
    if (x->params.value.slot == DJ_CUDA_NONE)
        values = dj_node_operand(node, 2)->view;
    else if (dj_dtype_is_complex(values.dtype))
        return dj_fail(DJ_ERR_UNSUPPORTED, "a number put into %s has no CUDA kernel", dj_dtype_name(values.dtype));
    status = list_prepare(x, node, &values);
    return status != DJ_OK ? status : put_finish(exe, kernel, x);
}
