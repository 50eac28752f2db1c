/* scan.c - cumsum, topk and sort: ops that see a dimension in order. */
#include "gpu/cuda/copy.h"
#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/prepare.h"
#include "gpu/cuda/sort.h"

#define THREADS 256
#define CHUNK_MIN 8192    /* elements: a row shorter than two of them is one block's */
#define COLUMN_ROWS 2048  /* rows side by side that are worth a thread each */
#define COLUMN_SIZE_MAX 16 /* rows this short are always a thread's */

/* A view without its dimension `dim`; a rank-0 one has a dimension of one element. */
static void dim_take(dj_view_t *view, uint32_t dim, int64_t *size_p, int64_t *stride_bytes_p)
{
    int64_t item = dj_dtype_bytes(view->dtype);
    *size_p = view->rank ? view->sizes[dim] : 1;
    *stride_bytes_p = view->rank ? view->strides[dim] * item : item;
    for (uint32_t d = dim; d + 1 < view->rank; d++) {
        view->sizes[d] = view->sizes[d + 1];
        view->strides[d] = view->strides[d + 1];
    }
    view->rank -= view->rank > 0;
}

/* Rows of up to three views that differ along `dim` alone. */
static dj_status_t rows_make(dj_cuda_loop_t *rows, const dj_view_t *const *views, uint32_t n_views, uint32_t dim,
                             int64_t *sizes, int64_t *strides)
{
    dj_view_t cut[3];
    const dj_view_t *cuts[3];
    dj_loop_t loop;
    for (uint32_t i = 0; i < n_views; i++) {
        cut[i] = *views[i];
        cuts[i] = &cut[i];
        dim_take(&cut[i], dim, &sizes[i], &strides[i]);
    }
    dj_status_t status = dj_loop_make(&loop, cuts, n_views);
    if (status == DJ_OK)
        dj_cuda_loop_put(rows, &loop);
    return status;
}

static dj_status_t check_real(const dj_node_t *node, const dj_view_t *view)
{
    if (!dj_dtype_is_complex(view->dtype))
        return DJ_OK;
    return dj_fail(DJ_ERR_UNSUPPORTED, "%s of %s has no CUDA kernel", dj_op_info(node->call.op)->name,
                   dj_dtype_name(view->dtype));
}

static uint32_t out_operand(const dj_node_t *node, uint32_t out)
{
    return dj_node_operand_index(&node->call, node->call.n_args) + out;
}

/* --- cumsum --- */

typedef struct cumsum {
    dj_cuda_device_t *device;
    CUfunction sums, carries, rows, columns; /* the first two: rows of several chunks */
    dj_scan_cumsum_t params;
} cumsum_t;

static dj_status_t emit_cumsum(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const cumsum_t *c = kernel->state;
    dj_scan_cumsum_t p = c->params;
    if (p.rows.count == 0 || p.n == 0)
        return DJ_OK;
    p.from = dj_cuda_emit_ref(emit, 0);
    p.to = dj_cuda_emit_ref(emit, out_operand(kernel->node, 0));
    p.sums = p.chunks > 1 ? dj_cuda_emit_workspace(emit) : 0;
    if (c->columns) {
        dj_cuda_grid_t grid = dj_cuda_grid_flat(c->device, p.rows.count, 128, 1);
        return dj_cuda_emit_kernel(emit, c->columns, &grid, &p, sizeof(p));
    }
    dj_cuda_grid_t chunks = dj_cuda_grid_flat(c->device, p.rows.count * p.chunks * THREADS, THREADS, 1);
    dj_cuda_grid_t rows = dj_cuda_grid_flat(c->device, p.rows.count * THREADS, THREADS, 1);
    dj_status_t status = DJ_OK;
    if (p.chunks > 1)
        status = dj_cuda_emit_kernel(emit, c->sums, &chunks, &p, sizeof(p));
    if (p.chunks > 1 && status == DJ_OK)
        status = dj_cuda_emit_kernel(emit, c->carries, &rows, &p, sizeof(p));
    return status != DJ_OK ? status : dj_cuda_emit_kernel(emit, c->rows, &chunks, &p, sizeof(p));
}

/* Few long rows are cut so that all multiprocessors have work; sums do not depend on it but in their last bits. */
static void chunks_set(dj_scan_cumsum_t *p)
{
    p->chunk = p->n;
    p->chunks = 1;
    if (p->n < 2 * CHUNK_MIN || p->rows.count >= 512)
        return;
    p->chunk = CHUNK_MIN;
    while (p->n / p->chunk > 1024)
        p->chunk *= 2;
    p->chunks = (p->n + p->chunk - 1) / p->chunk;
}

static bool by_columns(const dj_scan_cumsum_t *p)
{
    int64_t inner = p->rows.strides[1][p->rows.rank - 1];
    return p->n <= COLUMN_SIZE_MAX || (p->rows.count >= COLUMN_ROWS && p->to_stride > inner && inner > 0);
}

static dj_status_t cumsum_functions(cumsum_t *c)
{
    if (by_columns(&c->params)) {
        c->params.chunks = 1;
        return dj_cuda_function(c->device, "dj_scan_cumsum_columns", &c->columns);
    }
    dj_status_t status = dj_cuda_function(c->device, "dj_scan_cumsum_rows", &c->rows);
    if (status == DJ_OK)
        status = dj_cuda_function(c->device, "dj_scan_cumsum_sums", &c->sums);
    return status != DJ_OK ? status : dj_cuda_function(c->device, "dj_scan_cumsum_carries", &c->carries);
}

dj_status_t dj_cuda_cumsum_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view, *views[2] = {in, out};
    uint32_t dim = dj_node_dim(node->call.args[1].integer, in->rank);
    int64_t sizes[2], strides[2];
    cumsum_t *c = dj_cuda_arena(exe, sizeof(*c));
    if (!c)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    dj_scan_cumsum_t *p = &c->params;
    c->device = dj_cuda_device_of(exe);
    dj_status_t status = check_real(node, in);
    if (status == DJ_OK)
        status = check_real(node, out);
    if (status == DJ_OK)
        status = rows_make(&p->rows, views, 2, dim, sizes, strides);
    if (status != DJ_OK)
        return status;
    p->n = sizes[0];
    p->from_stride = strides[0];
    p->to_stride = strides[1];
    p->dtype = in->dtype;
    p->to_dtype = out->dtype;
    p->is_real = dj_dtype_is_float(out->dtype);
    chunks_set(p);
    status = cumsum_functions(c);
    if (p->chunks > 1)
        kernel->workspace_bytes = (uint64_t)(p->rows.count * p->chunks) * 8;
    kernel->state = c;
    kernel->emit = emit_cumsum;
    return status;
}

/* --- topk, sort --- */

typedef struct sorted {
    dj_cuda_device_t *device;
    dj_cuda_sort_t sort;
} sorted_t;

static dj_status_t emit_sorted(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const sorted_t *s = kernel->state;
    return dj_cuda_sort_emit(&s->sort, emit, s->device, dj_cuda_emit_ref(emit, 0),
                             dj_cuda_emit_ref(emit, out_operand(kernel->node, 0)),
                             dj_cuda_emit_ref(emit, out_operand(kernel->node, 1)), dj_cuda_emit_workspace(emit));
}

static dj_status_t sorted_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel, int64_t dim_arg, bool descending)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view, *values = &node->outs[0].view;
    const dj_view_t *views[3] = {in, values, &node->outs[1].view};
    int64_t sizes[3], strides[3];
    sorted_t *s = dj_cuda_arena(exe, sizeof(*s));
    if (!s)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    dj_scan_sort_t *p = &s->sort.params;
    s->device = dj_cuda_device_of(exe);
    dj_status_t status = check_real(node, in);
    if (status == DJ_OK)
        status = rows_make(&p->rows, views, 3, dj_node_dim(dim_arg, in->rank), sizes, strides);
    if (status != DJ_OK)
        return status;
    if (values->dtype != in->dtype)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s converts no dtype: %s into %s", dj_op_info(node->call.op)->name,
                       dj_dtype_name(in->dtype), dj_dtype_name(values->dtype));
    p->n = sizes[0];
    p->k = sizes[1];
    p->from_stride = strides[0];
    p->value_stride = strides[1];
    p->index_stride = strides[2];
    p->dtype = in->dtype;
    p->item_bytes = dj_dtype_bytes(in->dtype);
    p->descending = descending;
    kernel->state = s;
    kernel->emit = emit_sorted;
    if (p->rows.count == 0 || p->k == 0) /* nothing comes out */
        p->n = 0;
    status = dj_cuda_sort_make(exe, &s->sort);
    kernel->workspace_bytes = dj_cuda_sort_bytes(&s->sort);
    return status;
}

/* self, k, dim, largest, sorted: always sorted */
dj_status_t dj_cuda_topk_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    return sorted_prepare(exe, kernel, node->call.args[2].integer, dj_node_flag(node, 3, 1) != 0);
}

/* self, dim, descending */
dj_status_t dj_cuda_sort_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    return sorted_prepare(exe, kernel, node->call.args[1].integer, dj_node_flag(node, 2, 0) != 0);
}
