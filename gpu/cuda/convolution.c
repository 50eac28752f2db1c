/* convolution.c - CONVOLUTION in one to three dimensions, transposed too, and pooling in two.
 *
 * Convolutions are cuDNN's where it is and takes them (dnn.h), else an own kernel that takes all: any strides, groups,
 * dtypes. Pooling is an own kernel throughout: it only waits for memory, and a library would want its operands at
 * fixed addresses, which costs a copy of what moves. */
#include <stdio.h>

#include "gpu/cuda/dnn.h"
#include "gpu/cuda/kernels/convolution.h"
#include "gpu/cuda/passage.h"
#include "gpu/cuda/prepare.h"

#define SPATIAL DJ_CONVOLUTION_SPATIAL

static dj_status_t emit_nothing(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    return DJ_OK;
}

static uint32_t out_operand(const dj_node_t *node)
{
    return dj_node_operand_index(&node->call, node->call.n_args);
}

/* The last `n` dimensions are spatial; before them come channels, and a batch if there is one. */
static dj_picture_t picture_of(const dj_view_t *view, uint32_t n)
{
    dj_picture_t picture = {.sizes = {1, 1, 1}};
    for (uint32_t i = 0; i < n; i++) {
        picture.sizes[SPATIAL - n + i] = view->sizes[view->rank - n + i];
        picture.strides[SPATIAL - n + i] = view->strides[view->rank - n + i];
    }
    picture.channel_stride = view->strides[view->rank - n - 1];
    picture.batch_stride = view->rank > n + 1 ? view->strides[0] : 0;
    return picture;
}

/* A list argument: one number a dimension, or one for all; absent or empty: `otherwise`. */
static void take_list(const dj_node_t *node, uint32_t arg, uint32_t n, const int64_t *otherwise, int64_t *numbers)
{
    const dj_arg_t *list = &node->call.args[arg];
    uint32_t count = list->kind == DJ_ARG_INTEGERS ? list->count : 0;
    for (uint32_t i = 0; i < n; i++)
        numbers[SPATIAL - n + i] =
            count == 0 ? otherwise[SPATIAL - n + i] : list->integers[count == 1 ? 0 : i];
}

static dj_status_t function_of(const dj_executable_t *exe, const char *what, uint8_t dtype, CUfunction *function_p)
{
    char name[64];
    snprintf(name, sizeof(name), "dj_%s_%s", what, dj_dtype_name(dtype));
    return dj_cuda_function(dj_cuda_device_of(exe), name, function_p);
}

static dj_status_t refuse(const dj_node_t *node, uint8_t dtype)
{
    return dj_fail(DJ_ERR_UNSUPPORTED, "%s of %s has no CUDA kernel", dj_op_info(node->call.op)->name,
                   dj_dtype_name(dtype));
}

static dj_status_t no_memory(void)
{
    return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
}

static const dj_sliding_t still = {
    .kernel = {1, 1, 1}, .stride = {1, 1, 1}, .padding = {0, 0, 0}, .dilation = {1, 1, 1}};

/* ---- convolution ---- */

/* input, weight, bias, stride, padding, dilation, transposed, output_padding, groups */
enum { INPUT, WEIGHT, BIAS, STRIDE, PADDING, DILATION, TRANSPOSED, GROUPS = 8 };

typedef struct convolution {
    dj_cuda_device_t *device;
    CUfunction own;
    dj_convolution_t params;
    uint32_t bias; /* operand */
    bool has_bias;
    dj_cuda_passage_t input, weight, output;
    /* of the library: */
    dj_cuda_dnn_t dnn;
    uint64_t library; /* offset in the workspace */
    CUfunction add;   /* bias, afterwards */
    dj_cuda_loop_t loop;
} convolution_t;

static dj_status_t emit_own(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const convolution_t *c = kernel->state;
    dj_convolution_t p = c->params;
    p.input = dj_cuda_emit_ref(emit, c->input.operand);
    p.weight = dj_cuda_emit_ref(emit, c->weight.operand);
    p.output = dj_cuda_emit_ref(emit, c->output.operand);
    if (c->has_bias)
        p.bias = dj_cuda_emit_ref(emit, c->bias);
    dj_cuda_grid_t grid = dj_cuda_grid_flat(c->device, p.count, DJ_CONVOLUTION_THREADS, 1);
    return dj_cuda_emit_kernel(emit, c->own, &grid, &p, sizeof(p));
}

static void take_convolution(convolution_t *c, const dj_node_t *node)
{
    const dj_view_t *input = &dj_node_operand(node, INPUT)->view, *weight = &dj_node_operand(node, WEIGHT)->view;
    const dj_view_t *out = &node->outs[0].view;
    dj_convolution_t *p = &c->params;
    uint32_t n = input->rank - 2u;
    int64_t groups = dj_node_flag(node, GROUPS, 1);
    p->window = still;
    take_list(node, STRIDE, n, still.stride, p->window.stride);
    take_list(node, PADDING, n, still.padding, p->window.padding);
    take_list(node, DILATION, n, still.dilation, p->window.dilation);
    p->transposed = dj_node_flag(node, TRANSPOSED, 0) != 0;
    p->in = picture_of(input, n);
    p->kernel = picture_of(weight, n);
    p->out = picture_of(out, n);
    for (uint32_t d = 0; d < SPATIAL; d++)
        p->window.kernel[d] = p->kernel.sizes[d];
    p->count = dj_view_count(out);
    p->channels = out->sizes[1];
    p->group_inputs = input->sizes[1] / groups;
    p->group_outputs = p->channels / groups;
    c->input.operand = dj_node_operand_index(&node->call, INPUT);
    c->weight.operand = dj_node_operand_index(&node->call, WEIGHT);
    c->output.operand = out_operand(node);
    c->has_bias = dj_node_operand(node, BIAS) != NULL;
    if (c->has_bias) {
        c->bias = dj_node_operand_index(&node->call, BIAS);
        p->bias_stride = dj_node_operand(node, BIAS)->view.strides[0];
    }
}

/* The library's: all in one piece and in order. */

static dj_status_t call_library(const dj_cuda_kernel_t *kernel, dj_cuda_device_t *device, CUstream stream,
                                const CUdeviceptr *addresses)
{
    const convolution_t *c = kernel->state;
    dj_cuda_dnn_at_t at;
    memcpy(&at, addresses, sizeof(at));
    return dj_cuda_dnn_run(&c->dnn, device, stream, &at);
}

static dj_status_t emit_bias(const convolution_t *c, dj_cuda_emit_t *emit, CUdeviceptr output)
{
    dj_convolution_bias_t p = {
        .bias = dj_cuda_emit_ref(emit, c->bias), .output = dj_cuda_ref_at(output), .loop = c->loop};
    dj_cuda_grid_t grid = dj_cuda_grid_flat(c->device, p.loop.count, DJ_CONVOLUTION_THREADS, 1);
    return dj_cuda_emit_kernel(emit, c->add, &grid, &p, sizeof(p));
}

static dj_status_t emit_library(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const convolution_t *c = kernel->state;
    dj_cuda_dnn_at_t at = {.workspace = dj_cuda_emit_workspace(emit) + c->library};
    dj_status_t status = dj_cuda_passage_in(&c->input, emit, c->device, &at.input);
    if (status == DJ_OK)
        status = dj_cuda_passage_in(&c->weight, emit, c->device, &at.weight);
    if (status == DJ_OK)
        status = dj_cuda_passage_out(&c->output, emit, &at.output);
    if (status == DJ_OK)
        status = dj_cuda_emit_call(emit, kernel, call_library, (const CUdeviceptr *)&at,
                                   sizeof(at) / sizeof(CUdeviceptr));
    if (status == DJ_OK && c->has_bias)
        status = emit_bias(c, emit, at.output);
    return status == DJ_OK ? dj_cuda_passage_done(&c->output, emit, c->device) : status;
}

static void give_back(dj_cuda_kernel_t *kernel)
{
    convolution_t *c = kernel->state;
    dj_cuda_dnn_destroy(&c->dnn);
}

static dj_status_t enter(dj_executable_t *exe, dj_cuda_kernel_t *kernel, dj_cuda_passage_t *passage,
                         const dj_view_t *view, bool is_output)
{
    if (!dj_view_is_contiguous(view))
        return dj_cuda_passage_gather(exe, kernel, passage, view, is_output);
    dj_cuda_passage_through(exe, kernel, passage);
    return DJ_OK;
}

/* Sizes with one row put before a line; false when one is 0, or more than the library counts. */
static bool put_sizes(int *sizes, const dj_view_t *view)
{
    uint32_t lead = view->rank == 3 ? 1 : 0, to = 0;
    for (uint32_t d = 0; d < view->rank; d++) {
        if (view->sizes[d] < 1 || view->sizes[d] > INT32_MAX)
            return false;
        if (d == 2 && lead)
            sizes[to++] = 1;
        sizes[to++] = (int)view->sizes[d];
    }
    return dj_view_count(view) <= INT32_MAX;
}

static bool shape_of(const convolution_t *c, const dj_node_t *node, dj_cuda_dnn_shape_t *shape)
{
    const dj_view_t *input = &dj_node_operand(node, INPUT)->view;
    const dj_sliding_t *window = &c->params.window;
    *shape = (dj_cuda_dnn_shape_t){.dtype = input->dtype,
                                   .rank = input->rank == 5 ? 5 : 4,
                                   .groups = (int)dj_node_flag(node, GROUPS, 1),
                                   .transposed = c->params.transposed};
    for (int d = 5 - shape->rank, to = 0; d < SPATIAL; d++, to++) {
        shape->padding[to] = (int)window->padding[d];
        shape->stride[to] = (int)window->stride[d];
        shape->dilation[to] = (int)window->dilation[d];
    }
    return put_sizes(shape->input, input) && put_sizes(shape->weight, &dj_node_operand(node, WEIGHT)->view) &&
           put_sizes(shape->output, &node->outs[0].view);
}

static dj_status_t prepare_bias(dj_executable_t *exe, convolution_t *c, const dj_node_t *node)
{
    dj_view_t out = node->outs[0].view, bias = dj_node_operand(node, BIAS)->view;
    const dj_view_t *views[] = {&bias, &out};
    int64_t stride = bias.strides[0];
    if (c->output.gathered)
        out = dj_view_contiguous(out.dtype, out.rank, out.sizes);
    bias.rank = out.rank - 1; /* ones behind the channels */
    for (uint32_t d = 1; d < bias.rank; d++)
        bias.sizes[d] = bias.strides[d] = 1;
    bias.strides[0] = stride;
    dj_status_t status = dj_cuda_loop_make(&c->loop, views, 2);
    return status == DJ_OK ? function_of(exe, "convolution_bias", out.dtype, &c->add) : status;
}

/* DJ_ERR_UNSUPPORTED leaves kernel and convolution as they were. */
static dj_status_t prepare_library(dj_executable_t *exe, dj_cuda_kernel_t *kernel, convolution_t *c)
{
    const dj_node_t *node = kernel->node;
    const convolution_t before = *c;
    dj_cuda_dnn_shape_t shape;
    if (!shape_of(c, node, &shape) || !dj_cuda_dnn_handle(c->device))
        return DJ_ERR_UNSUPPORTED;
    dj_status_t status = enter(exe, kernel, &c->input, &dj_node_operand(node, INPUT)->view, false);
    if (status == DJ_OK)
        status = enter(exe, kernel, &c->weight, &dj_node_operand(node, WEIGHT)->view, false);
    if (status == DJ_OK)
        status = enter(exe, kernel, &c->output, &node->outs[0].view, true);
    if (status == DJ_OK && c->has_bias)
        status = prepare_bias(exe, c, node);
    if (status == DJ_OK)
        status = dj_cuda_dnn_prepare(c->device, &shape, &c->dnn);
    if (status == DJ_OK) {
        c->library = dj_cuda_take_room(kernel, c->dnn.workspace_bytes);
        kernel->emit = emit_library;
        kernel->fini = give_back;
    } else if (status == DJ_ERR_UNSUPPORTED) {
        *c = before;
        kernel->workspace_bytes = 0;
    }
    return status;
}

dj_status_t dj_cuda_convolution_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *out = &node->outs[0].view;
    const dj_operand_t *input = dj_node_operand(node, INPUT), *weight = dj_node_operand(node, WEIGHT);
    if (!dj_dtype_is_float(out->dtype) || !input || !weight || input->view.dtype != out->dtype ||
        weight->view.dtype != out->dtype)
        return refuse(node, input ? input->view.dtype : out->dtype);
    if (input->view.rank < 3 || input->view.rank > SPATIAL + 2 || input->view.rank != weight->view.rank ||
        dj_node_flag(node, GROUPS, 1) < 1)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s of %u dimensions has no CUDA kernel, only of 3 to 5",
                       dj_op_info(node->call.op)->name, input->view.rank);
    kernel->emit = emit_nothing;
    if (dj_view_count(out) == 0)
        return DJ_OK;
    convolution_t *c = dj_cuda_arena(exe, sizeof(*c));
    if (!c)
        return no_memory();
    c->device = dj_cuda_device_of(exe);
    take_convolution(c, node);
    kernel->state = c;
    dj_status_t status = prepare_library(exe, kernel, c);
    if (status != DJ_ERR_UNSUPPORTED)
        return status;
    kernel->emit = emit_own;
    return function_of(exe, "convolution", out->dtype, &c->own);
}

/* ---- pooling ---- */

typedef struct pool {
    dj_cuda_device_t *device;
    CUfunction function;
    dj_pool_t params;
    bool has_indices;
} pool_t;

static dj_status_t emit_pool(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const pool_t *pool = kernel->state;
    dj_pool_t p = pool->params;
    uint32_t out = out_operand(kernel->node);
    p.input = dj_cuda_emit_ref(emit, 0);
    p.output = dj_cuda_emit_ref(emit, out);
    if (pool->has_indices)
        p.indices = dj_cuda_emit_ref(emit, out + 1);
    dj_cuda_grid_t grid = dj_cuda_grid_flat(pool->device, p.count, DJ_CONVOLUTION_THREADS, 1);
    return dj_cuda_emit_kernel(emit, pool->function, &grid, &p, sizeof(p));
}

/* self, kernel_size, stride, padding, then dilation and ceil_mode, or ceil_mode, count_include_pad and
 * divisor_override; of adaptive pooling output_size, which is the output's. */
static void take_pool(pool_t *pool, const dj_node_t *node)
{
    const dj_view_t *input = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view;
    dj_pool_t *p = &pool->params;
    p->in = picture_of(input, 2);
    p->out = picture_of(out, 2);
    p->count = dj_view_count(out);
    p->channels = out->sizes[out->rank - 3u];
    p->channels_inner = p->channels > 1 && p->out.channel_stride == 1;
    p->window = still;
    if (node->call.op == DJ_OP_ADAPTIVE_AVG_POOL2D)
        return;
    take_list(node, 1, 2, still.kernel, p->window.kernel);
    take_list(node, 2, 2, p->window.kernel, p->window.stride);
    take_list(node, 3, 2, still.padding, p->window.padding);
    if (node->call.op == DJ_OP_MAX_POOL2D) {
        take_list(node, 4, 2, still.dilation, p->window.dilation);
        pool->has_indices = node->n_outs > 1;
        if (pool->has_indices)
            p->places = picture_of(&node->outs[1].view, 2);
        return;
    }
    const dj_arg_t *divisor = &node->call.args[6];
    p->with_padding = dj_node_flag(node, 5, 1) != 0;
    p->divisor = divisor->kind == DJ_ARG_INTEGERS && divisor->count == 1 ? divisor->integers[0] : 0;
}

dj_status_t dj_cuda_pool_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *out = &node->outs[0].view;
    const dj_operand_t *input = dj_node_operand(node, 0);
    const char *what = node->call.op == DJ_OP_MAX_POOL2D   ? "convolution_pool_max"
                       : node->call.op == DJ_OP_AVG_POOL2D ? "convolution_pool_average"
                                                           : "convolution_pool_adaptive";
    bool computes = node->call.op != DJ_OP_MAX_POOL2D;
    if (!input || input->view.dtype != out->dtype || out->dtype == DJ_BOOL || dj_dtype_is_complex(out->dtype) ||
        (computes && !dj_dtype_is_float(out->dtype)))
        return refuse(node, input ? input->view.dtype : out->dtype);
    kernel->emit = emit_nothing;
    if (dj_view_count(out) == 0)
        return DJ_OK;
    pool_t *pool = dj_cuda_arena(exe, sizeof(*pool));
    if (!pool)
        return no_memory();
    pool->device = dj_cuda_device_of(exe);
    take_pool(pool, node);
    kernel->state = pool;
    kernel->emit = emit_pool;
    return function_of(exe, what, out->dtype, &pool->function);
}
