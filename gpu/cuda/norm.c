/* norm.c - softmax, log_softmax, layer norm, batch norm with running statistics: which kernel, and how a block
 * shares its threads among rows. */
#include <stdio.h>
#include <string.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/kernels/norm.h"
#include "gpu/cuda/prepare.h"

#define THREADS 256
#define WARP_ROW_MAX 1024 /* longer rows get a block */

/* f32, f16, bf16; NULL for others. */
static const char *suffix_of(uint8_t dtype)
{
    return dtype == DJ_F32 ? "f32" : dtype == DJ_F16 ? "f16" : dtype == DJ_BF16 ? "bf16" : NULL;
}

static dj_status_t function_of(dj_executable_t *exe, const char *prefix, const char *suffix, CUfunction *function_p)
{
    char name[64];
    snprintf(name, sizeof(name), "%s%s", prefix, suffix);
    return dj_cuda_function(dj_cuda_device_of(exe), name, function_p);
}

/* Threads a row, at least enough to read it in a few steps. */
static int32_t lanes_of(int64_t size, uint32_t *threads_p)
{
    int32_t lanes = 1;
    *threads_p = THREADS;
    if (size > WARP_ROW_MAX) {
        *threads_p = size <= 8192 ? 256 : 512; /* more than that and registers would not suffice */
        return (int32_t)*threads_p;
    }
    while (lanes < 32 && lanes * 4 < size)
        lanes *= 2;
    return lanes;
}

/* Blocks of `width` rows; the kernels go on where the grid ends. */
static uint32_t blocks_of(int64_t rows, int64_t width)
{
    int64_t blocks = (rows + width - 1) / width;
    return (uint32_t)(blocks < INT32_MAX ? blocks : INT32_MAX);
}

/* --- softmax --- */

typedef struct softmax {
    dj_softmax_params_t params;
    CUfunction function;
    uint32_t threads;
} softmax_t;

static dj_status_t emit_softmax(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const softmax_t *s = kernel->state;
    const dj_call_t *call = &kernel->node->call;
    dj_softmax_params_t params = s->params;
    if (params.size == 0 || params.rows.count == 0)
        return DJ_OK;
    params.in = dj_cuda_emit_ref(emit, dj_node_operand_index(call, 0));
    params.out = dj_cuda_emit_ref(emit, dj_node_operand_index(call, call->n_args));
    uint32_t width = s->threads / (uint32_t)params.lanes;
    dj_cuda_grid_t grid = {.blocks = {blocks_of(params.rows.count, width), 1, 1}, .threads = {s->threads, 1, 1}};
    return dj_cuda_emit_kernel(emit, s->function, &grid, &params, sizeof(params));
}

static void dim_remove(dj_view_t *view, uint32_t dim)
{
    for (uint32_t d = dim; d + 1 < view->rank; d++) {
        view->sizes[d] = view->sizes[d + 1];
        view->strides[d] = view->strides[d + 1];
    }
    view->rank -= view->rank > 0;
}

/* Where rows lie beside one another, a block's neighbouring threads take neighbouring rows. */
static void softmax_share(softmax_t *s)
{
    dj_softmax_params_t *p = &s->params;
    int64_t across = p->rows.strides[0][p->rows.rank - 1];
    p->lanes = lanes_of(p->size, &s->threads);
    p->columns = p->size > 1 && p->rows.count > 1 && across < p->in_stride;
    if (!p->columns)
        return;
    int32_t width = 1;
    while (width < 32 && width < p->rows.count)
        width *= 2;
    s->threads = THREADS;
    p->lanes = THREADS / width;
}

dj_status_t dj_cuda_softmax_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    dj_view_t in = dj_node_operand(node, 0)->view, out = node->outs[0].view;
    const char *suffix = in.dtype == out.dtype                       ? suffix_of(in.dtype)
                         : in.dtype == DJ_F16 && out.dtype == DJ_F32 ? "f16_f32"
                                                                     : NULL;
    if (!suffix)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "%s of %s as %s has no CUDA kernel; float32, float16 and bfloat16 have one",
                       dj_op_info(node->call.op)->name, dj_dtype_name(in.dtype), dj_dtype_name(out.dtype));
    softmax_t *s = dj_cuda_arena(exe, sizeof(*s));
    if (!s)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    dj_softmax_params_t *p = &s->params;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, in.rank);
    int64_t in_item = dj_dtype_bytes(in.dtype), out_item = dj_dtype_bytes(out.dtype);
    p->size = in.rank ? in.sizes[dim] : 1;
    p->in_stride = in.rank ? in.strides[dim] * in_item : in_item;
    p->out_stride = out.rank ? out.strides[dim] * out_item : out_item;
    p->dense = p->in_stride == in_item && p->out_stride == out_item;
    p->is_log = node->call.op == DJ_OP_LOG_SOFTMAX;
    dim_remove(&in, dim);
    dim_remove(&out, dim);
    const dj_view_t *views[2] = {&in, &out};
    dj_status_t status = dj_cuda_loop_make(&p->rows, views, 2);
    if (status != DJ_OK)
        return status;
    softmax_share(s);
    kernel->state = s;
    kernel->emit = emit_softmax;
    return function_of(exe, "dj_norm_softmax_", suffix, &s->function);
}

/* --- layer norm: input, normalised shape, weight, bias, eps → output, mean, 1 / deviation --- */

typedef struct layer_norm {
    dj_layer_norm_params_t params;
    CUfunction function;
    uint32_t threads;
} layer_norm_t;

/* The operand of an argument that may be missing. */
static void ref_take(dj_cuda_emit_t *emit, const dj_node_t *node, uint32_t arg, dj_cuda_ref_t *ref)
{
    if (dj_node_operand(node, arg))
        *ref = dj_cuda_emit_ref(emit, dj_node_operand_index(&node->call, arg));
}

static dj_status_t emit_layer_norm(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const layer_norm_t *l = kernel->state;
    const dj_node_t *node = kernel->node;
    dj_layer_norm_params_t params = l->params;
    if (params.rows.count == 0 || params.along.count == 0)
        return DJ_OK;
    uint32_t outs = dj_node_operand_index(&node->call, node->call.n_args);
    ref_take(emit, node, 0, &params.in);
    ref_take(emit, node, 2, &params.weight);
    ref_take(emit, node, 3, &params.bias);
    params.out = dj_cuda_emit_ref(emit, outs);
    params.mean = dj_cuda_emit_ref(emit, outs + 1);
    params.deviation = dj_cuda_emit_ref(emit, outs + 2);
    uint32_t width = l->threads / (uint32_t)params.lanes;
    dj_cuda_grid_t grid = {.blocks = {blocks_of(params.rows.count, width), 1, 1}, .threads = {l->threads, 1, 1}};
    return dj_cuda_emit_kernel(emit, l->function, &grid, &params, sizeof(params));
}

/* Of a view of rank `lead + n`, either end. */
static dj_view_t part_of(const dj_view_t *view, uint32_t first, uint32_t end)
{
    dj_view_t part = {.dtype = view->dtype, .rank = (uint8_t)(end - first)};
    memcpy(part.sizes, view->sizes + first, (end - first) * sizeof(int64_t));
    memcpy(part.strides, view->strides + first, (end - first) * sizeof(int64_t));
    return part;
}

static dj_status_t layer_norm_loops(dj_layer_norm_params_t *p, const dj_node_t *node, uint32_t n_dims)
{
    const dj_view_t *in = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view;
    const dj_operand_t *weight = dj_node_operand(node, 2), *bias = dj_node_operand(node, 3);
    uint32_t lead = in->rank - n_dims;
    dj_view_t row_in = part_of(in, 0, lead), row_out = part_of(out, 0, lead);
    dj_view_t row_statistics = part_of(&node->outs[1].view, 0, lead);
    dj_view_t along_in = part_of(in, lead, in->rank), along_out = part_of(out, lead, in->rank);
    const dj_view_t *rows[3] = {&row_in, &row_out, &row_statistics};
    const dj_view_t *along[4] = {&along_in, weight ? &weight->view : NULL, bias ? &bias->view : NULL, &along_out};
    dj_status_t status = dj_cuda_loop_make(&p->rows, rows, 3);
    if (status == DJ_OK)
        status = dj_cuda_loop_make(&p->along, along, 4);
    int64_t item = dj_dtype_bytes(in->dtype);
    p->dense = p->along.rank == 1;
    for (uint32_t k = 0; k < 4; k++)
        p->dense &= !along[k] || p->along.strides[k][0] == item;
    return status;
}

static dj_status_t layer_norm_check(const dj_node_t *node, uint32_t n_dims)
{
    const dj_view_t *in = &dj_node_operand(node, 0)->view, *statistics = &node->outs[1].view;
    bool fits = suffix_of(in->dtype) && node->outs[0].view.dtype == in->dtype && n_dims > 0 && n_dims <= in->rank;
    for (uint32_t arg = 2; arg < 4; arg++)
        fits &= !dj_node_operand(node, arg) || dj_node_operand(node, arg)->view.dtype == in->dtype;
    for (uint32_t i = 1; i < 3; i++)
        fits &= node->outs[i].view.dtype == DJ_F32 && node->outs[i].view.rank == in->rank &&
                memcmp(node->outs[i].view.strides, statistics->strides, in->rank * sizeof(int64_t)) == 0;
    if (!fits)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "layer_norm of %s has no CUDA kernel; float32, float16 and bfloat16 with weight and bias of "
                       "the same dtype and float32 statistics have one",
                       dj_dtype_name(in->dtype));
    return DJ_OK;
}

dj_status_t dj_cuda_layer_norm_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    uint32_t n_dims = node->call.args[1].count;
    dj_status_t status = layer_norm_check(node, n_dims);
    if (status != DJ_OK)
        return status;
    layer_norm_t *l = dj_cuda_arena(exe, sizeof(*l));
    if (!l)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    status = layer_norm_loops(&l->params, node, n_dims);
    if (status != DJ_OK)
        return status;
    l->params.eps = dj_cuda_scalar_of(node, 4);
    l->params.lanes = lanes_of(l->params.along.count, &l->threads);
    kernel->state = l;
    kernel->emit = emit_layer_norm;
    return function_of(exe, "dj_norm_layer_", suffix_of(dj_node_operand(node, 0)->view.dtype), &l->function);
}

/* --- batch norm: input, weight, bias, mean, variance, momentum, eps → output, mean, 1 / deviation --- */

typedef struct batch_norm {
    dj_batch_norm_params_t params;
    CUfunction channels, elements;
    dj_cuda_grid_t channel_grid, element_grid;
} batch_norm_t;

static dj_status_t emit_batch_norm(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const batch_norm_t *b = kernel->state;
    const dj_node_t *node = kernel->node;
    dj_batch_norm_params_t params = b->params;
    uint32_t outs = dj_node_operand_index(&node->call, node->call.n_args);
    if (params.n_channels == 0)
        return DJ_OK;
    ref_take(emit, node, 0, &params.in);
    ref_take(emit, node, 1, &params.weight);
    ref_take(emit, node, 2, &params.bias);
    ref_take(emit, node, 3, &params.mean);
    ref_take(emit, node, 4, &params.variance);
    params.out = dj_cuda_emit_ref(emit, outs);
    params.saved_mean = dj_cuda_emit_ref(emit, outs + 1);
    params.saved_deviation = dj_cuda_emit_ref(emit, outs + 2);
    params.channels = dj_cuda_emit_workspace(emit);
    dj_status_t status = dj_cuda_emit_kernel(emit, b->channels, &b->channel_grid, &params, sizeof(params));
    if (status != DJ_OK || params.elements.count == 0)
        return status;
    return dj_cuda_emit_kernel(emit, b->elements, &b->element_grid, &params, sizeof(params));
}

static dj_status_t batch_norm_check(const dj_node_t *node)
{
    const dj_view_t *in = &dj_node_operand(node, 0)->view;
    bool fits = suffix_of(in->dtype) && node->outs[0].view.dtype == in->dtype;
    for (uint32_t i = 1; i < 3; i++)
        fits &= node->outs[i].view.dtype == DJ_F32 && dj_view_is_contiguous(&node->outs[i].view);
    if (!fits)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "%s of %s has no CUDA kernel; float32, float16 and bfloat16 with dense float32 statistics "
                       "have one",
                       dj_op_info(node->call.op)->name, dj_dtype_name(in->dtype));
    return DJ_OK;
}

dj_status_t dj_cuda_batch_norm_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view;
    dj_status_t status = batch_norm_check(node);
    if (status != DJ_OK)
        return status;
    batch_norm_t *b = dj_cuda_arena(exe, sizeof(*b));
    if (!b)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    dj_batch_norm_params_t *p = &b->params;
    dj_view_t channel = {.dtype = DJ_BOOL, .rank = in->rank}; /* one byte an element: its offset is the channel */
    for (uint32_t d = 0; d < in->rank; d++)
        channel.sizes[d] = d == 1 ? in->sizes[1] : 1;
    channel.strides[1] = 1;
    const dj_view_t *views[3] = {in, &channel, out};
    status = dj_cuda_loop_make(&p->elements, views, 3);
    if (status != DJ_OK)
        return status;
    p->n_channels = in->sizes[1];
    p->eps = dj_cuda_scalar_of(node, 6);
    for (uint32_t i = 0; i < 4; i++) {
        const dj_operand_t *operand = dj_node_operand(node, 1 + i);
        p->dtypes[i] = operand ? operand->view.dtype : DJ_F32;
        p->strides[i] = operand ? operand->view.strides[0] * (int64_t)dj_dtype_bytes(operand->view.dtype) : 0;
    }
    const dj_cuda_device_t *device = dj_cuda_device_of(exe);
    b->channel_grid = dj_cuda_grid_flat(device, p->n_channels, THREADS, 1);
    b->element_grid = dj_cuda_grid_flat(device, p->elements.count, THREADS, 4);
    kernel->workspace_bytes = (uint64_t)p->n_channels * 3 * sizeof(float);
    kernel->state = b;
    kernel->emit = emit_batch_norm;
    status = function_of(exe, "dj_norm_batch_", "channels", &b->channels);
    return status != DJ_OK ? status : function_of(exe, "dj_norm_batch_", suffix_of(in->dtype), &b->elements);
}
