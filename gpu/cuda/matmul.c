/* matmul.c - MM, BMM, ADDMM, BADDBMM and LINEAR: one product C = alpha * A B + beta * addend.
 *
 * Preparing turns every op into [batch][rows][columns] windows and picks how the product is made:
 *
 *   reals, where cuBLASLt is and takes them    cuBLASLt (blas.h)
 *   integers, K = 0, all else                  own tiles of any strides (kernels/matmul.cu)
 *
 * What does not fold into such windows, and for the library what is not dense along one side, is gathered into the
 * workspace first; what moves with the request passes through it (kernel.h).
 *
 * alpha and beta are the request's, so a captured graph must read them from device memory: a small kernel makes them
 * there, of the library's type, together with what the product is added to. A value a column is the library's bias,
 * already times beta; any other addend is spread over C, which the product is then added to. */
#include <stdio.h>

#include "gpu/cuda/blas.h"
#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/kernels/matmul.h"
#include "gpu/cuda/passage.h"
#include "gpu/cuda/prepare.h"
#include "gpu/matrix.h"

#define ABSENT UINT32_MAX
#define NO_ROOM UINT64_MAX
#define BIAS_ALIGN_BYTES 16 /* the least at which the library reads a bias */

typedef struct side {
    const dj_view_t *view; /* as the node has it */
    dj_matrix_t matrix;       /* of that, or of its dense form */
    dj_cuda_passage_t passage;
} side_t;

/* How a library's product comes by its addend. */
typedef enum adding {
    ADD_NOTHING,
    ADD_BIAS,   /* the operand itself */
    ADD_VECTOR, /* a vector of the workspace: the operand times beta */
    ADD_SPREAD, /* C, where the operand was spread before */
} adding_t;

typedef struct product {
    dj_cuda_device_t *device;
    side_t a, b, c;
    uint32_t addend; /* operand, or ABSENT */
    const dj_view_t *addend_view;
    int64_t addend_strides[3];
    dj_cuda_scalar_t alpha, beta;
    CUfunction own;
    /* of the library: */
    dj_cuda_blas_t blas;
    adding_t adding;
    CUfunction spread;
    dj_cuda_loop_t loop;                    /* from the addend to the vector, or to C */
    uint64_t bias, factors, library;        /* offsets in the workspace */
} product_t;

/* ---- windows ---- */

static dj_status_t gather(dj_executable_t *exe, dj_cuda_kernel_t *kernel, side_t *side, bool batched, bool written)
{
    dj_view_t dense = dj_view_contiguous(side->view->dtype, side->view->rank, side->view->sizes);
    dj_matrix_of_view(&dense, batched, &side->matrix);
    return dj_cuda_passage_gather(exe, kernel, &side->passage, side->view, written);
}

/* Where the op keeps A, B and the addend among its arguments. */
typedef struct form {
    uint8_t a, b, addend; /* 255: none */
    bool batched, linear, factors;
} form_t;

static form_t form_of(uint16_t op)
{
    switch (op) {
    case DJ_OP_MM:
        return (form_t){0, 1, 255, false, false, false};
    case DJ_OP_BMM:
        return (form_t){0, 1, 255, true, false, false};
    case DJ_OP_ADDMM:
        return (form_t){1, 2, 0, false, false, true};
    case DJ_OP_BADDBMM:
        return (form_t){1, 2, 0, true, false, true};
    default:
        return (form_t){0, 1, 2, false, true, false};
    }
}

static dj_status_t take_side(dj_executable_t *exe, dj_cuda_kernel_t *kernel, side_t *side, uint32_t arg, bool batched)
{
    const dj_node_t *node = kernel->node;
    bool written = arg == node->call.n_args;
    side->passage.operand = dj_node_operand_index(&node->call, arg);
    side->view = written ? &node->outs[0].view : &node->call.args[arg].operands[0].view;
    return dj_matrix_of_view(side->view, batched, &side->matrix) ? DJ_OK : gather(exe, kernel, side, batched, written);
}

/* The addend broadcast to C. */
static void take_addend(product_t *p, const dj_node_t *node, form_t form)
{
    p->alpha.slot = p->beta.slot = DJ_CUDA_NONE;
    p->addend = ABSENT;
    if (form.addend == 255 || !dj_node_operand(node, form.addend))
        return;
    const dj_view_t *view = &dj_node_operand(node, form.addend)->view;
    for (uint32_t d = 0; d < view->rank; d++)
        if (view->sizes[d] != 1)
            p->addend_strides[3 - view->rank + d] = view->strides[d];
    p->addend = dj_node_operand_index(&node->call, form.addend);
    p->addend_view = view;
    if (form.factors) {
        p->beta = dj_cuda_scalar_of(node, 3);
        p->alpha = dj_cuda_scalar_of(node, 4);
    }
}

/* ---- own tiles ---- */

/* Where the own kernel reads or writes: anywhere, but for a side with a dense form. */
static dj_cuda_ref_t side_ref(const side_t *side, dj_cuda_emit_t *emit)
{
    return side->passage.gathered ? dj_cuda_ref_at(dj_cuda_emit_workspace(emit) + side->passage.room)
                                  : dj_cuda_emit_ref(emit, side->passage.operand);
}

static dj_status_t side_enter(const product_t *p, const side_t *side, dj_cuda_emit_t *emit)
{
    CUdeviceptr address;
    return side->passage.gathered ? dj_cuda_passage_in(&side->passage, emit, p->device, &address) : DJ_OK;
}

static void put_strides(int64_t *strides, const dj_matrix_t *m)
{
    strides[0] = m->batch_stride;
    strides[1] = m->row_stride;
    strides[2] = m->column_stride;
}

static int64_t tiles_of(int64_t size)
{
    return (size + DJ_MATMUL_TILE - 1) / DJ_MATMUL_TILE;
}

static dj_status_t emit_own(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const product_t *p = kernel->state;
    const dj_matrix_t *c = &p->c.matrix;
    dj_matmul_t params = {.a = side_ref(&p->a, emit),
                          .b = side_ref(&p->b, emit),
                          .c = side_ref(&p->c, emit),
                          .alpha = p->alpha,
                          .beta = p->beta,
                          .batch = c->batch,
                          .rows = c->rows,
                          .columns = c->columns,
                          .depth = p->a.matrix.columns};
    put_strides(params.a_strides, &p->a.matrix);
    put_strides(params.b_strides, &p->b.matrix);
    put_strides(params.c_strides, c);
    for (uint32_t d = 0; d < 3; d++)
        params.addend_strides[d] = p->addend_strides[d];
    if (p->addend != ABSENT)
        params.addend = dj_cuda_emit_ref(emit, p->addend);
    int64_t tiles = c->batch * tiles_of(c->rows) * tiles_of(c->columns);
    dj_cuda_grid_t grid = dj_cuda_grid_flat(p->device, tiles * DJ_MATMUL_THREADS, DJ_MATMUL_THREADS, 1);
    dj_status_t status = side_enter(p, &p->a, emit);
    if (status == DJ_OK)
        status = side_enter(p, &p->b, emit);
    if (status == DJ_OK)
        status = dj_cuda_emit_kernel(emit, p->own, &grid, &params, sizeof(params));
    return status == DJ_OK && p->c.passage.gathered ? dj_cuda_passage_done(&p->c.passage, emit, p->device) : status;
}

static dj_status_t prepare_own(dj_cuda_kernel_t *kernel, product_t *p)
{
    char name[48];
    snprintf(name, sizeof(name), "dj_matmul_%s", dj_dtype_name(p->c.view->dtype));
    kernel->emit = emit_own;
    return dj_cuda_function(p->device, name, &p->own);
}

/* ---- the library's ---- */

static dj_cuda_blas_matrix_t blas_matrix(const side_t *side)
{
    const dj_matrix_t *m = &side->matrix;
    bool turned = m->column_stride != 1;
    dj_cuda_blas_matrix_t matrix = {.turned = turned,
                                    .line = turned ? m->column_stride : m->row_stride,
                                    .batch_stride = m->batch_stride,
                                    .align_bytes = DJ_ALIGN_BYTES};
    if (!side->passage.gathered) {
        uint64_t at = (uint64_t)side->view->offset * dj_dtype_bytes(side->view->dtype) | DJ_ALIGN_BYTES;
        matrix.align_bytes = (uint32_t)(at & -at);
    }
    return matrix;
}

/* Is the addend the same for every row? */
static bool is_a_row(const product_t *p)
{
    return p->c.matrix.batch == 1 && (p->c.matrix.rows == 1 || p->addend_strides[1] == 0);
}

static bool is_a_bias(const product_t *p)
{
    uint64_t at = (uint64_t)p->addend_view->offset * dj_dtype_bytes(p->addend_view->dtype);
    return is_a_row(p) && p->alpha.slot == DJ_CUDA_NONE && p->beta.slot == DJ_CUDA_NONE &&
           (p->addend_strides[2] == 1 || p->c.matrix.columns == 1) && at % BIAS_ALIGN_BYTES == 0;
}

static dj_status_t prepare_spread(product_t *p, const dj_view_t *to)
{
    char name[48];
    const dj_view_t *views[] = {p->addend_view, to};
    snprintf(name, sizeof(name), "dj_matmul_addend_%s", dj_dtype_name(to->dtype));
    dj_status_t status = dj_cuda_loop_make(&p->loop, views, 2);
    return status == DJ_OK ? dj_cuda_function(p->device, name, &p->spread) : status;
}

/* Rooms for the addend's vector and the factors, and the kernel that fills them. */
static dj_status_t prepare_adding(dj_executable_t *exe, dj_cuda_kernel_t *kernel, product_t *p)
{
    dj_view_t to = *p->c.view;
    if (p->adding == ADD_NOTHING)
        return DJ_OK;
    if (p->adding == ADD_BIAS) {
        p->bias = dj_cuda_take_room(kernel, dj_cuda_moving_bytes(exe, kernel->node, p->addend));
        return DJ_OK;
    }
    if (p->adding == ADD_VECTOR) {
        int64_t sizes[DJ_RANK_MAX];
        for (uint32_t d = 0; d < to.rank; d++)
            sizes[d] = d + 1u < to.rank ? 1 : to.sizes[d];
        to = dj_view_contiguous(to.dtype, to.rank, sizes);
        p->bias = dj_cuda_take_room(kernel, dj_view_dense_bytes(&to));
    } else if (p->c.passage.gathered) {
        to = dj_view_contiguous(to.dtype, to.rank, to.sizes);
    }
    if (p->alpha.slot != DJ_CUDA_NONE || p->beta.slot != DJ_CUDA_NONE)
        p->factors = dj_cuda_take_room(kernel, 2 * sizeof(double));
    return prepare_spread(p, &to);
}

static dj_status_t enter_library(dj_executable_t *exe, dj_cuda_kernel_t *kernel, side_t *side, bool turned,
                                 bool batched)
{
    dj_status_t status = DJ_OK;
    if (!dj_matrix_is_regular(&side->matrix) && !side->passage.gathered) {
        status = gather(exe, kernel, side, batched, false);
        if (turned)
            dj_matrix_transpose(&side->matrix);
        dj_matrix_is_regular(&side->matrix);
    }
    if (!side->passage.gathered)
        dj_cuda_passage_through(exe, kernel, &side->passage);
    return status;
}

/* C needs dense rows, and a place of its own for every element. */
static dj_status_t leave_library(dj_executable_t *exe, dj_cuda_kernel_t *kernel, side_t *side, bool batched)
{
    dj_matrix_t *m = &side->matrix;
    uint64_t moving = dj_cuda_moving_bytes(exe, kernel->node, side->passage.operand);
    bool fits = dj_matrix_rows_are_dense(m) && (m->batch == 1 || m->batch_stride >= m->rows * m->row_stride) &&
                (moving == 0 || dj_view_is_dense(side->view));
    if (side->passage.gathered)
        return DJ_OK;
    if (fits) {
        dj_cuda_passage_through(exe, kernel, &side->passage);
        return DJ_OK;
    }
    dj_status_t status = gather(exe, kernel, side, batched, true);
    dj_matrix_rows_are_dense(m);
    return status;
}

static dj_status_t try_library(dj_executable_t *exe, dj_cuda_kernel_t *kernel, product_t *p, form_t form)
{
    dj_status_t status = enter_library(exe, kernel, &p->a, false, form.batched);
    if (status == DJ_OK)
        status = enter_library(exe, kernel, &p->b, form.linear, form.batched);
    if (status == DJ_OK)
        status = leave_library(exe, kernel, &p->c, form.batched);
    if (status == DJ_OK)
        status = prepare_adding(exe, kernel, p);
    if (status != DJ_OK)
        return status;
    dj_cuda_blas_shape_t shape = {.dtype = p->c.view->dtype,
                                  .batch = p->c.matrix.batch,
                                  .m = p->c.matrix.rows,
                                  .n = p->c.matrix.columns,
                                  .k = p->a.matrix.columns,
                                  .a = blas_matrix(&p->a),
                                  .b = blas_matrix(&p->b),
                                  .c = blas_matrix(&p->c),
                                  .bias = p->adding == ADD_BIAS || p->adding == ADD_VECTOR,
                                  .adds = p->adding == ADD_SPREAD,
                                  .factors = p->factors != NO_ROOM};
    status = dj_cuda_blas_prepare(p->device, &shape, &p->blas);
    if (status == DJ_OK)
        p->library = dj_cuda_take_room(kernel, p->blas.workspace_bytes);
    return status;
}

static dj_status_t emit_adding(const product_t *p, dj_cuda_emit_t *emit, dj_cuda_blas_at_t *at)
{
    CUdeviceptr workspace = dj_cuda_emit_workspace(emit);
    if (p->adding == ADD_NOTHING)
        return DJ_OK;
    if (p->adding == ADD_BIAS)
        return dj_cuda_emit_fixed_in(emit, p->addend, workspace + p->bias, &at->bias);
    at->bias = p->adding == ADD_VECTOR ? workspace + p->bias : 0;
    dj_matmul_addend_t params = {.from = dj_cuda_emit_ref(emit, p->addend),
                                 .to = dj_cuda_ref_at(at->bias ? at->bias : at->c),
                                 .alpha = p->alpha,
                                 .beta = p->beta,
                                 .loop = p->loop,
                                 .scaled = p->adding == ADD_VECTOR};
    if (p->factors != NO_ROOM) {
        at->factors = workspace + p->factors;
        params.factors = dj_cuda_ref_at(at->factors);
    }
    dj_cuda_grid_t grid = dj_cuda_grid_flat(p->device, p->loop.count, DJ_MATMUL_THREADS, 1);
    return dj_cuda_emit_kernel(emit, p->spread, &grid, &params, sizeof(params));
}

static dj_status_t call_library(const dj_cuda_kernel_t *kernel, dj_cuda_device_t *device, CUstream stream,
                                const CUdeviceptr *addresses)
{
    const product_t *p = kernel->state;
    dj_cuda_blas_at_t at;
    memcpy(&at, addresses, sizeof(at));
    return dj_cuda_blas_run(&p->blas, device, stream, &at);
}

static dj_status_t emit_library(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const product_t *p = kernel->state;
    dj_cuda_blas_at_t at = {.workspace = dj_cuda_emit_workspace(emit) + p->library};
    _Static_assert(sizeof(at) <= DJ_CUDA_ADDRESSES_MAX * sizeof(CUdeviceptr), "addresses of a call");
    dj_status_t status = dj_cuda_passage_in(&p->a.passage, emit, p->device, &at.a);
    if (status == DJ_OK)
        status = dj_cuda_passage_in(&p->b.passage, emit, p->device, &at.b);
    if (status == DJ_OK)
        status = dj_cuda_passage_out(&p->c.passage, emit, &at.c);
    if (status == DJ_OK)
        status = emit_adding(p, emit, &at);
    if (status == DJ_OK)
        status = dj_cuda_emit_call(emit, kernel, call_library, (const CUdeviceptr *)&at,
                                   sizeof(at) / sizeof(CUdeviceptr));
    return status == DJ_OK ? dj_cuda_passage_done(&p->c.passage, emit, p->device) : status;
}

static void give_back(dj_cuda_kernel_t *kernel)
{
    product_t *p = kernel->state;
    dj_cuda_blas_destroy(&p->blas);
}

static bool is_for_library(const product_t *p)
{
    const dj_matrix_t *c = &p->c.matrix;
    return dj_dtype_is_float(p->c.view->dtype) && p->a.matrix.columns > 0 && c->batch <= UINT16_MAX &&
           c->rows <= INT32_MAX && c->columns <= INT32_MAX && p->a.matrix.columns <= INT32_MAX &&
           dj_cuda_blas_handle(p->device);
}

/* DJ_ERR_UNSUPPORTED leaves kernel and product as they were. */
static dj_status_t prepare_library(dj_executable_t *exe, dj_cuda_kernel_t *kernel, product_t *p, form_t form)
{
    const product_t before = *p;
    const uint64_t workspace = kernel->workspace_bytes;
    adding_t ways[2] = {ADD_NOTHING}; /* the better one first */
    uint32_t n_ways = 1;
    if (!is_for_library(p))
        return DJ_ERR_UNSUPPORTED;
    if (p->addend != ABSENT) {
        if (is_a_row(p))
            ways[n_ways++ - 1] = is_a_bias(p) ? ADD_BIAS : ADD_VECTOR;
        ways[n_ways - 1] = ADD_SPREAD;
    }
    for (uint32_t i = 0; i < n_ways; i++) {
        *p = before;
        kernel->workspace_bytes = workspace;
        p->adding = ways[i];
        dj_status_t status = try_library(exe, kernel, p, form);
        if (status == DJ_OK) {
            kernel->emit = emit_library;
            kernel->fini = give_back;
        }
        if (status != DJ_ERR_UNSUPPORTED)
            return status;
    }
    *p = before;
    kernel->workspace_bytes = workspace;
    return DJ_ERR_UNSUPPORTED;
}

/* ---- prepare ---- */

static dj_status_t emit_nothing(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    return DJ_OK;
}

static dj_status_t check_node(const dj_node_t *node, form_t form)
{
    uint8_t out = node->outs[0].view.dtype, in = node->call.args[form.b].operands[0].view.dtype;
    if (out != in || out == DJ_BOOL || dj_dtype_is_complex(out))
        return dj_fail(DJ_ERR_UNSUPPORTED, "a matrix product of %s into %s has no CUDA kernel", dj_dtype_name(in),
                       dj_dtype_name(out));
    if (form.addend != 255 && dj_node_scalar(node, form.addend).slot != DJ_SLOT_NONE)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s with a number for its addend has no CUDA kernel; give it a tensor",
                       dj_op_info(node->call.op)->name);
    return DJ_OK;
}

dj_status_t dj_cuda_matmul_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    form_t form = form_of(node->call.op);
    dj_status_t status = check_node(node, form);
    if (status != DJ_OK)
        return status;
    kernel->emit = emit_nothing;
    if (dj_view_count(&node->outs[0].view) == 0)
        return DJ_OK;
    product_t *p = dj_cuda_arena(exe, sizeof(*p));
    if (!p)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    kernel->state = p;
    p->device = dj_cuda_device_of(exe);
    status = take_side(exe, kernel, &p->a, form.a, form.batched);
    if (status == DJ_OK)
        status = take_side(exe, kernel, &p->b, form.b, form.batched);
    if (status == DJ_OK)
        status = take_side(exe, kernel, &p->c, node->call.n_args, form.batched);
    if (status != DJ_OK)
        return status;
    if (form.linear)
        dj_matrix_transpose(&p->b.matrix);
    take_addend(p, node, form);
    p->bias = p->factors = p->library = NO_ROOM;
    status = prepare_library(exe, kernel, p, form);
    return status == DJ_ERR_UNSUPPORTED ? prepare_own(kernel, p) : status;
}
