/* reduce.c - sum, mean, prod, amax, amin, any, all, vector norm, variance; argmax, argmin, and extremes with their
 * places.
 *
 * The input's dimensions part into those that are kept (one output each) and those that are reduced. How a block
 * shares them among its threads follows from which of the two the input lies along, and outputs that are too few to
 * fill the GPU are split; their parts meet in a second kernel. */
#include <stdio.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/kernels/reduce.h"
#include "gpu/cuda/prepare.h"

#define ELEMENTS_MIN 16 /* a thread folds at least so many before an output is split */
#define SPLITS_MAX 4096

typedef struct reduce {
    dj_reduce_params_t params;
    CUfunction fold, join;
    uint32_t in, out, index; /* operands; DJ_SLOT_NONE when absent */
    uint32_t blocks, join_blocks;
} reduce_t;

static int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* --- emit --- */

static dj_status_t emit_reduce(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const reduce_t *r = kernel->state;
    dj_reduce_params_t params = r->params;
    if (params.units == 0)
        return DJ_OK;
    params.in = dj_cuda_emit_ref(emit, r->in);
    if (r->out != DJ_SLOT_NONE)
        params.out = dj_cuda_emit_ref(emit, r->out);
    if (r->index != DJ_SLOT_NONE)
        params.index = dj_cuda_emit_ref(emit, r->index);
    params.partials = params.splits > 1 ? dj_cuda_emit_workspace(emit) : 0;
    dj_cuda_grid_t grid = {.blocks = {r->blocks, 1, 1}, .threads = {DJ_REDUCE_THREADS, 1, 1}};
    dj_status_t status = dj_cuda_emit_kernel(emit, r->fold, &grid, &params, sizeof(params));
    if (status != DJ_OK || params.splits == 1)
        return status;
    grid.blocks[0] = r->join_blocks;
    return dj_cuda_emit_kernel(emit, r->join, &grid, &params, sizeof(params));
}

/* --- what a block does --- */

/* The power of two that is at least n, within limits that are powers of two. */
static int32_t power_within(int64_t n, int32_t low, int32_t high)
{
    while (low < high && low < n)
        low *= 2;
    return low;
}

static void lanes_choose(dj_reduce_params_t *p, int64_t multiprocessors)
{
    int64_t along = p->along.strides[0][p->along.rank - 1], across = p->kept.strides[0][p->kept.rank - 1];
    p->columns = p->kept.count > 1 && p->kept.sizes[p->kept.rank - 1] > 1 &&
                 (p->along.count == 1 || across < along);
    if (p->columns) {
        int32_t width = power_within(p->kept.count, 1, 32), lanes = DJ_REDUCE_THREADS / width;
        while (lanes > 1 && p->along.count < 4 * (int64_t)lanes)
            lanes /= 2;
        p->lanes = lanes;
        return;
    }
    /* A row of a few thousand elements is a warp's, as long as there are rows enough. */
    bool few = p->kept.count < 8 * multiprocessors;
    if (p->along.count > (few ? 256 : 4096))
        p->lanes = DJ_REDUCE_THREADS;
    else
        p->lanes = power_within((p->along.count + 3) / 4, 1, 32);
}

static void blocks_choose(reduce_t *r, const dj_cuda_device_t *device, uint64_t value_bytes,
                          uint64_t *workspace_bytes_p)
{
    dj_reduce_params_t *p = &r->params;
    int64_t multiprocessors = device->multiprocessors ? device->multiprocessors : 1;
    lanes_choose(p, multiprocessors);
    int64_t width = DJ_REDUCE_THREADS / p->lanes, groups = (p->kept.count + width - 1) / width;
    int64_t splits = groups ? at_most(4 * multiprocessors / groups, SPLITS_MAX) : 1;
    splits = at_most(splits, p->along.count / ((int64_t)p->lanes * ELEMENTS_MIN));
    if (splits < 2)
        splits = 1;
    p->split_size = (p->along.count + splits - 1) / splits;
    if (p->split_size == 0)
        p->split_size = 1;
    p->splits = p->along.count ? (int32_t)((p->along.count + p->split_size - 1) / p->split_size) : 1;
    p->units = groups * p->splits;
    r->blocks = (uint32_t)at_most(p->units, INT32_MAX);
    dj_cuda_grid_t join = dj_cuda_grid_flat(device, p->kept.count * 32, DJ_REDUCE_THREADS, 1);
    r->join_blocks = join.blocks[0];
    *workspace_bytes_p = p->splits > 1 ? (uint64_t)(p->kept.count * p->splits) * value_bytes : 0;
}

/* --- dimensions --- */

static void view_push(dj_view_t *view, int64_t size, int64_t stride)
{
    view->sizes[view->rank] = size;
    view->strides[view->rank++] = stride;
}

/* `outs[i]` may be NULL. `ordered`: the reduced elements are counted in logical order. */
static dj_status_t loops_make(dj_reduce_params_t *p, const dj_view_t *in, const dj_view_t *const outs[2],
                              const bool *marked, bool ordered)
{
    dj_view_t kept_in = {.dtype = in->dtype}, along = {.dtype = in->dtype}, kept_outs[2];
    for (uint32_t d = 0; d < in->rank; d++)
        view_push(marked[d] ? &along : &kept_in, in->sizes[d], in->strides[d]);
    for (uint32_t i = 0; i < 2; i++) {
        dj_status_t status = dj_node_kept_dims(in, outs[i] ? outs[i] : outs[!i], marked, &kept_outs[i]);
        if (status != DJ_OK)
            return status;
    }
    dj_view_t logical = dj_view_contiguous(DJ_BOOL, along.rank, along.sizes);
    const dj_view_t *kept[3] = {&kept_in, &kept_outs[0], &kept_outs[1]}, *seen[2] = {&along, &logical};
    dj_status_t status = dj_cuda_loop_make(&p->kept, kept, 3);
    return status != DJ_OK ? status : dj_cuda_loop_make(&p->along, seen, ordered ? 2 : 1);
}

/* --- reductions --- */

static const uint8_t kinds[DJ_OP_COUNT] = {
    [DJ_OP_SUM] = DJ_REDUCE_SUM,          [DJ_OP_MEAN] = DJ_REDUCE_SUM,     [DJ_OP_PROD] = DJ_REDUCE_PROD,
    [DJ_OP_AMAX] = DJ_REDUCE_MAX,         [DJ_OP_AMIN] = DJ_REDUCE_MIN,     [DJ_OP_ANY] = DJ_REDUCE_ANY,
    [DJ_OP_ALL] = DJ_REDUCE_ALL,          [DJ_OP_VAR] = DJ_REDUCE_VARIANCE,
    [DJ_OP_VECTOR_NORM] = DJ_REDUCE_NORM,
};

static bool folds_integers(const dj_node_t *node, uint8_t in, uint8_t out)
{
    uint16_t op = node->call.op;
    if (op == DJ_OP_ANY || op == DJ_OP_ALL)
        return true;
    return !dj_dtype_is_float(op == DJ_OP_AMAX || op == DJ_OP_AMIN ? in : out);
}

/* The names of the two kernels, and the bytes of the value they fold. */
static uint64_t kernels_choose(const dj_node_t *node, uint32_t kind, uint8_t in, uint8_t out, char *fold,
                               char *join, size_t size)
{
    static const char *const fast[] = {[DJ_REDUCE_SUM] = "sum", [DJ_REDUCE_MAX] = "max", [DJ_REDUCE_MIN] = "min"};
    const char *dtype = in == DJ_F32 ? "f32" : in == DJ_F16 ? "f16" : in == DJ_BF16 ? "bf16" : NULL;
    const char *slow = "real";
    if (folds_integers(node, in, out))
        slow = "integer";
    else if (kind == DJ_REDUCE_VARIANCE)
        slow = "variance";
    else if (dtype && out != DJ_F64 && (kind == DJ_REDUCE_SUM || kind == DJ_REDUCE_MAX || kind == DJ_REDUCE_MIN)) {
        snprintf(fold, size, "dj_reduce_%s_%s", fast[kind], dtype);
        snprintf(join, size, "dj_reduce_join_%s", fast[kind]);
        return kind == DJ_REDUCE_SUM ? 8 : 4;
    }
    snprintf(fold, size, "dj_reduce_%s", slow);
    snprintf(join, size, "dj_reduce_join_%s", slow);
    return kind == DJ_REDUCE_VARIANCE ? 24 : 8;
}

static dj_status_t check_dtypes(const dj_node_t *node, uint8_t in, uint8_t out)
{
    if (in > DJ_F64 || out > DJ_F64)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s of %s as %s has no CUDA kernel; convert it to a real dtype first",
                       dj_op_info(node->call.op)->name, dj_dtype_name(in), dj_dtype_name(out));
    return DJ_OK;
}

static dj_status_t finish_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel, reduce_t *r, const char *fold,
                                  const char *join, uint64_t value_bytes)
{
    dj_cuda_device_t *device = dj_cuda_device_of(exe);
    blocks_choose(r, device, value_bytes, &kernel->workspace_bytes);
    dj_status_t status = dj_cuda_function(device, fold, &r->fold);
    if (status == DJ_OK && r->params.splits > 1)
        status = dj_cuda_function(device, join, &r->join);
    kernel->state = r;
    kernel->emit = emit_reduce;
    return status;
}

dj_status_t dj_cuda_reduce_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view;
    uint16_t op = node->call.op;
    reduce_t *r = dj_cuda_arena(exe, sizeof(*r));
    if (!r)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    dj_status_t status = check_dtypes(node, in->dtype, out->dtype);
    if (status != DJ_OK)
        return status;
    dj_reduce_params_t *p = &r->params;
    p->kind = kinds[op];
    p->in_dtype = in->dtype;
    p->out_dtype = out->dtype;
    p->mean = op == DJ_OP_MEAN;
    p->scalar.slot = DJ_CUDA_NONE;
    p->scalar_absent = op == DJ_OP_VAR;
    if (op == DJ_OP_VECTOR_NORM || op == DJ_OP_VAR)
        p->scalar = dj_cuda_scalar_of(node, op == DJ_OP_VECTOR_NORM ? 1 : 2);
    r->in = dj_node_operand_index(&node->call, 0);
    r->out = dj_node_operand_index(&node->call, node->call.n_args);
    r->index = DJ_SLOT_NONE;
    bool marked[DJ_RANK_MAX] = {false};
    const dj_view_t *outs[2] = {out, NULL};
    dj_node_mark_dims(node, op == DJ_OP_VECTOR_NORM ? 2 : 1, in->rank, marked);
    status = loops_make(p, in, outs, marked, false);
    if (status != DJ_OK)
        return status;
    char fold[48], join[48];
    uint64_t value_bytes = kernels_choose(node, p->kind, in->dtype, out->dtype, fold, join, sizeof(fold));
    return finish_prepare(exe, kernel, r, fold, join, value_bytes);
}

/* --- places of extremes --- */

dj_status_t dj_cuda_arg_reduce_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view;
    uint16_t op = node->call.op;
    bool has_values = op == DJ_OP_MAX_DIM || op == DJ_OP_MIN_DIM;
    reduce_t *r = dj_cuda_arena(exe, sizeof(*r));
    if (!r)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    const dj_view_t *outs[2] = {has_values ? &node->outs[0].view : NULL, &node->outs[has_values].view};
    uint8_t value = has_values ? outs[0]->dtype : in->dtype;
    dj_status_t status = check_dtypes(node, in->dtype, value);
    if (status != DJ_OK)
        return status;
    if (outs[1]->dtype != DJ_I64)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s with indices of type %s has no CUDA kernel; they must be int64",
                       dj_op_info(op)->name, dj_dtype_name(outs[1]->dtype));
    dj_reduce_params_t *p = &r->params;
    p->in_dtype = in->dtype;
    p->out_dtype = value;
    p->smallest = op == DJ_OP_ARGMIN || op == DJ_OP_MIN_DIM;
    p->scalar.slot = DJ_CUDA_NONE;
    uint32_t first = dj_node_operand_index(&node->call, node->call.n_args);
    r->in = dj_node_operand_index(&node->call, 0);
    r->out = has_values ? first : DJ_SLOT_NONE;
    r->index = first + has_values;
    bool marked[DJ_RANK_MAX] = {false};
    dj_node_mark_dims(node, 1, in->rank, marked);
    status = loops_make(p, in, outs, marked, true);
    if (status != DJ_OK)
        return status;
    dj_class_t class = dj_class_of(in->dtype);
    const char *suffix = class == DJ_CLASS_F32 ? "f32" : class == DJ_CLASS_F64 ? "f64" : "i64";
    char fold[48], join[48];
    snprintf(fold, sizeof(fold), "dj_reduce_place_%s", suffix);
    snprintf(join, sizeof(join), "dj_reduce_join_place_%s", suffix);
    status = finish_prepare(exe, kernel, r, fold, join, 16);
    if (p->along.count == 0)
        p->units = 0; /* nothing has no extreme: shape rules refuse it */
    return status;
}
