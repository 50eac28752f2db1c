/* gather.c - gather, scatter and isin: one element at a time, chosen by an index of its own. */
#include "gpu/cuda/copy.h"
#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/kernels/index.h"
#include "gpu/cuda/prepare.h"

#define THREADS 256

typedef struct picked {
    dj_cuda_device_t *device;
    CUfunction function;
    dj_index_picked_t params;    /* without its refs */
    uint32_t self, other, index; /* operands */
    /* scatter */
    dj_cuda_copy_t copy; /* self onto the output first */
    CUfunction claim;    /* NULL: no two indices can meet */
    dj_cuda_zero_t zero; /* of the owners */
} picked_t;

static dj_status_t emit_picked(const picked_t *s, dj_cuda_emit_t *emit, CUfunction function, uint32_t self,
                               uint64_t owner)
{
    dj_index_picked_t p = s->params;
    if (p.loop.count == 0)
        return DJ_OK;
    p.self = dj_cuda_emit_ref(emit, self);
    if (p.value.slot == DJ_CUDA_NONE)
        p.other = dj_cuda_emit_ref(emit, s->other);
    p.index = dj_cuda_emit_ref(emit, s->index);
    p.owner = owner;
    dj_cuda_grid_t grid = dj_cuda_grid_flat(s->device, p.loop.count, THREADS, 2);
    return dj_cuda_emit_kernel(emit, function, &grid, &p, sizeof(p));
}

static dj_status_t emit_gather(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const picked_t *s = kernel->state;
    return emit_picked(s, emit, s->function, s->self, 0);
}

/* A rank-0 tensor as one of rank 1, which is how gather and scatter treat it. */
static dj_view_t at_least_one(const dj_view_t *view)
{
    dj_view_t wide = *view;
    if (wide.rank == 0) {
        wide.rank = 1;
        wide.sizes[0] = wide.strides[0] = 1;
    }
    return wide;
}

/* Self as the index sees it: without its indexed dimension, cut to the index's shape. */
static dj_status_t self_cut(dj_view_t *self, const dj_view_t *index, uint32_t dim)
{
    if (self->rank != index->rank)
        return dj_fail(DJ_ERR_SHAPE, "the index has not the rank of the tensor it indexes");
    for (uint32_t d = 0; d < index->rank; d++) {
        if (d != dim && index->sizes[d] > self->sizes[d])
            return dj_fail(DJ_ERR_SHAPE, "the index is larger than the tensor it indexes");
        self->sizes[d] = index->sizes[d];
    }
    self->strides[dim] = 0;
    return DJ_OK;
}

static dj_status_t other_cut(dj_view_t *cut, const dj_view_t *other, const dj_view_t *index)
{
    dj_view_t wide = at_least_one(other);
    *cut = *index;
    cut->dtype = other->dtype;
    for (uint32_t d = 0; d < index->rank; d++) {
        if (wide.rank != index->rank || wide.sizes[d] < index->sizes[d])
            return dj_fail(DJ_ERR_SHAPE, "the index is larger than its source");
        cut->strides[d] = wide.strides[d];
    }
    return DJ_OK;
}

/* The walk has the index's shape; `other` is cut to it, and NULL means one element. */
static dj_status_t picked_make(dj_executable_t *exe, dj_cuda_kernel_t *kernel, const dj_view_t *self_view,
                               const dj_view_t *other, picked_t **picked_p)
{
    const dj_node_t *node = kernel->node;
    picked_t *s = dj_cuda_arena(exe, sizeof(*s));
    if (!s)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    dj_view_t self = at_least_one(self_view), index = at_least_one(&dj_node_operand(node, 2)->view), cut;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, self.rank);
    dj_index_picked_t *p = &s->params;
    s->device = dj_cuda_device_of(exe);
    s->index = dj_node_operand_index(&node->call, 2);
    p->item_bytes = dj_dtype_bytes(self.dtype);
    p->size = self.sizes[dim];
    p->step_bytes = self.strides[dim] * (int64_t)p->item_bytes;
    p->is_wide = index.dtype == DJ_I64;
    p->dtype = self.dtype;
    p->value.slot = DJ_CUDA_NONE;
    kernel->state = *picked_p = s;
    dj_view_t slots = dj_view_contiguous(DJ_U8, self.rank, self.sizes); /* a byte an element: strides are numbers */
    p->step_slots = slots.strides[dim];
    if (dj_view_count(&index) == 0) /* whatever its dtype and rank */
        return DJ_OK;
    dj_status_t status = self_cut(&self, &index, dim);
    if (status == DJ_OK)
        status = self_cut(&slots, &index, dim);
    if (status == DJ_OK && other)
        status = other_cut(&cut, other, &index);
    const dj_view_t *views[4] = {&self, other ? &cut : NULL, &slots, &index};
    dj_loop_t loop;
    if (status == DJ_OK)
        status = dj_loop_make(&loop, views, 4);
    if (status == DJ_OK)
        dj_cuda_loop_put(&p->loop, &loop);
    return status;
}

dj_status_t dj_cuda_gather_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *self = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view;
    picked_t *s = NULL;
    dj_status_t status = picked_make(exe, kernel, self, out, &s);
    if (status != DJ_OK)
        return status;
    if (self->dtype != out->dtype)
        return dj_fail(DJ_ERR_UNSUPPORTED, "gather: source and target differ in dtype");
    s->other = dj_node_operand_index(&node->call, node->call.n_args);
    kernel->emit = emit_gather;
    return dj_cuda_function(s->device, "dj_index_gather", &s->function);
}

/* --- scatter --- */

static dj_status_t emit_scatter(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const picked_t *s = kernel->state;
    uint64_t owner = s->claim ? dj_cuda_emit_workspace(emit) : 0;
    dj_status_t status = dj_cuda_copy_emit(&s->copy, emit, s->device, dj_cuda_emit_ref(emit, 0),
                                           dj_cuda_emit_ref(emit, s->self));
    if (status == DJ_OK && s->claim)
        status = dj_cuda_zero_emit(&s->zero, emit, s->device, dj_cuda_ref_at(owner));
    if (status == DJ_OK && s->claim)
        status = emit_picked(s, emit, s->claim, s->self, owner);
    return status != DJ_OK ? status : emit_picked(s, emit, s->function, s->self, owner);
}

/* Along the indexed dimension two indices may name one element; the last one stays (see index.cu). */
static dj_status_t owners_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel, picked_t *s)
{
    const dj_view_t *out = &kernel->node->outs[0].view, index = at_least_one(&dj_node_operand(kernel->node, 2)->view);
    uint32_t dim = dj_node_dim(kernel->node->call.args[1].integer, index.rank);
    if (index.sizes[dim] <= 1 || s->params.value.slot != DJ_CUDA_NONE || s->params.loop.count == 0)
        return DJ_OK;
    if (s->params.loop.count >= UINT32_MAX)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%lld elements to scatter; a CUDA kernel takes fewer than %u",
                       (long long)s->params.loop.count, UINT32_MAX);
    uint64_t bytes = (uint64_t)dj_view_count(out) * sizeof(uint32_t);
    kernel->workspace_bytes = (bytes + DJ_ALIGN_BYTES - 1) / DJ_ALIGN_BYTES * DJ_ALIGN_BYTES;
    dj_status_t status = dj_cuda_zero_make(exe, &s->zero, kernel->workspace_bytes);
    return status != DJ_OK ? status : dj_cuda_function(s->device, "dj_index_scatter_claim", &s->claim);
}

dj_status_t dj_cuda_scatter_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *out = &node->outs[0].view;
    const dj_operand_t *source = dj_node_operand(node, 3);
    picked_t *s = NULL;
    dj_cuda_scalar_t value = dj_cuda_scalar_of(node, 3);
    bool is_number = value.slot != DJ_CUDA_NONE;
    dj_status_t status = picked_make(exe, kernel, out, is_number ? NULL : &source->view, &s);
    if (status != DJ_OK)
        return status;
    if (!is_number && source->view.dtype != out->dtype)
        return dj_fail(DJ_ERR_UNSUPPORTED, "scatter: source and target differ in dtype");
    if (is_number && dj_dtype_is_complex(out->dtype))
        return dj_fail(DJ_ERR_UNSUPPORTED, "a number scattered into %s has no CUDA kernel",
                       dj_dtype_name(out->dtype));
    s->params.value = value;
    s->self = dj_node_operand_index(&node->call, node->call.n_args);
    s->other = is_number ? 0 : dj_node_operand_index(&node->call, 3);
    kernel->emit = emit_scatter;
    status = dj_cuda_copy_make(exe, &s->copy, &dj_node_operand(node, 0)->view, out);
    if (status == DJ_OK)
        status = owners_prepare(exe, kernel, s);
    return status != DJ_OK ? status : dj_cuda_function(s->device, "dj_index_scatter", &s->function);
}

/* --- isin --- */

typedef struct isin {
    dj_cuda_device_t *device;
    CUfunction function;
    dj_index_isin_t params; /* without its refs */
} isin_t;

static dj_status_t emit_isin(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const isin_t *s = kernel->state;
    dj_index_isin_t p = s->params;
    if (p.loop.count == 0)
        return DJ_OK;
    p.elements = dj_cuda_emit_ref(emit, 0);
    p.tests = dj_cuda_emit_ref(emit, 1);
    p.to = dj_cuda_emit_ref(emit, dj_node_operand_index(&kernel->node->call, kernel->node->call.n_args));
    dj_cuda_grid_t grid = dj_cuda_grid_flat(s->device, p.loop.count, THREADS, 1);
    return dj_cuda_emit_kernel(emit, s->function, &grid, &p, sizeof(p));
}

dj_status_t dj_cuda_isin_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_operand_t *elements = dj_node_operand(node, 0), *tests = dj_node_operand(node, 1);
    isin_t *s = dj_cuda_arena(exe, sizeof(*s));
    if (!s)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    if (elements->storage == DJ_STORAGE_SCALAR || tests->storage == DJ_STORAGE_SCALAR)
        return dj_fail(DJ_ERR_UNSUPPORTED, "isin of a plain number has no CUDA kernel");
    if (dj_dtype_is_complex(elements->view.dtype) || dj_dtype_is_complex(tests->view.dtype))
        return dj_fail(DJ_ERR_UNSUPPORTED, "isin of complex numbers has no CUDA kernel");
    const dj_view_t *views[2] = {&elements->view, &node->outs[0].view}, *only[1] = {&tests->view};
    dj_index_isin_t *p = &s->params;
    dj_loop_t loop, test_loop;
    dj_status_t status = dj_loop_make(&loop, views, 2);
    if (status == DJ_OK)
        status = dj_loop_make(&test_loop, only, 1);
    if (status != DJ_OK)
        return status;
    s->device = dj_cuda_device_of(exe);
    dj_cuda_loop_put(&p->loop, &loop);
    dj_cuda_loop_put(&p->test_loop, &test_loop);
    p->dtype = elements->view.dtype;
    p->test_dtype = tests->view.dtype;
    p->to_dtype = node->outs[0].view.dtype;
    p->is_real = dj_dtype_is_float(elements->view.dtype) || dj_dtype_is_float(tests->view.dtype);
    p->invert = dj_node_flag(node, 3, 0) != 0;
    kernel->state = s;
    kernel->emit = emit_isin;
    return dj_cuda_function(s->device, "dj_index_isin", &s->function);
}
