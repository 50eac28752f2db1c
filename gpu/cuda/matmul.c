/* matmul.c - MM, BMM, ADDMM, BADDBMM and LINEAR: one product C = alpha * A B + beta * addend.
 *
 * Preparing turns every op into [batch][rows][columns] windows and picks how the product is made:
 *
 *   float dtypes, strides that a library takes    cuBLASLt (blas.h)
 *   all else                                      own tiles of any strides (kernels/matmul.cu)
 *
 * What does not fold into such windows, and for the library what is not dense along one side, is gathered into the
 * workspace first. */
#include <stdio.h>

#include "gpu/cuda/copy.h"
#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/kernels/matmul.h"
#include "gpu/cuda/prepare.h"

#define ABSENT UINT32_MAX

typedef struct matrix {
    int64_t batch, rows, columns, batch_stride, row_stride, column_stride; /* elements */
} matrix_t;

typedef struct side {
    uint32_t operand;
    const dj_view_t *view; /* as the node has it */
    matrix_t matrix;
    bool gathered;
    dj_cuda_copy_t copy; /* between the view and the dense room */
    uint64_t room;       /* offset in the workspace */
} side_t;

typedef struct product {
    dj_cuda_device_t *device;
    side_t a, b, c;
    uint32_t addend; /* operand, or ABSENT */
    int64_t addend_strides[3];
    dj_cuda_scalar_t alpha, beta;
    CUfunction own;
} product_t;

/* ---- windows ---- */

/* A view of any rank as one matrix: leading dimensions fold into rows, or the first of three becomes the batch.
 * False when they do not fold. */
static bool window(const dj_view_t *view, bool batched, matrix_t *matrix)
{
    int last = view->rank - 1, first = batched ? 1 : 0;
    matrix_t m = {.batch = 1,
                  .rows = 1,
                  .columns = view->sizes[last],
                  .row_stride = 1,
                  .column_stride = view->strides[last]};
    if (batched) {
        m.batch = view->sizes[0];
        m.batch_stride = view->strides[0];
    }
    for (int d = last - 1; d >= first; d--) {
        if (view->sizes[d] == 1)
            continue;
        if (m.rows != 1 && view->strides[d] != m.row_stride * m.rows)
            return false;
        if (m.rows == 1)
            m.row_stride = view->strides[d];
        m.rows *= view->sizes[d];
    }
    *matrix = m;
    return true;
}

static void transpose(matrix_t *m)
{
    int64_t rows = m->rows, stride = m->row_stride;
    m->rows = m->columns;
    m->row_stride = m->column_stride;
    m->columns = rows;
    m->column_stride = stride;
}

/* Gives the side a dense room in the workspace: a copy to it for what is read, from it for what is written. */
static dj_status_t gather(dj_executable_t *exe, dj_cuda_kernel_t *kernel, side_t *side, bool batched, bool written)
{
    dj_view_t dense = dj_view_contiguous(side->view->dtype, side->view->rank, side->view->sizes);
    side->gathered = true;
    side->room = kernel->workspace_bytes;
    kernel->workspace_bytes += dj_align_up(dj_view_dense_bytes(side->view));
    window(&dense, batched, &side->matrix);
    return written ? dj_cuda_copy_make(exe, &side->copy, &dense, side->view)
                   : dj_cuda_copy_make(exe, &side->copy, side->view, &dense);
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
    side->operand = dj_node_operand_index(&node->call, arg);
    side->view = written ? &node->outs[0].view : &node->call.args[arg].operands[0].view;
    return window(side->view, batched, &side->matrix) ? DJ_OK : gather(exe, kernel, side, batched, written);
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
    if (form.factors) {
        p->beta = dj_cuda_scalar_of(node, 3);
        p->alpha = dj_cuda_scalar_of(node, 4);
    }
}

/* ---- own tiles ---- */

/* Where to read or write the side's window. */
static dj_cuda_ref_t side_ref(const side_t *side, dj_cuda_emit_t *emit)
{
    return side->gathered ? dj_cuda_ref_at(dj_cuda_emit_workspace(emit) + side->room)
                          : dj_cuda_emit_ref(emit, side->operand);
}

static dj_status_t side_enter(const product_t *p, const side_t *side, dj_cuda_emit_t *emit)
{
    if (!side->gathered)
        return DJ_OK;
    return dj_cuda_copy_emit(&side->copy, emit, p->device, dj_cuda_emit_ref(emit, side->operand),
                             side_ref(side, emit));
}

static dj_status_t side_leave(const product_t *p, const side_t *side, dj_cuda_emit_t *emit)
{
    if (!side->gathered)
        return DJ_OK;
    return dj_cuda_copy_emit(&side->copy, emit, p->device, side_ref(side, emit),
                             dj_cuda_emit_ref(emit, side->operand));
}

static void put_strides(int64_t *strides, const matrix_t *m)
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
    const matrix_t *c = &p->c.matrix;
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
    return status == DJ_OK ? side_leave(p, &p->c, emit) : status;
}

static dj_status_t prepare_own(dj_cuda_kernel_t *kernel, product_t *p)
{
    char name[48];
    snprintf(name, sizeof(name), "dj_matmul_%s", dj_dtype_name(p->c.view->dtype));
    kernel->emit = emit_own;
    return dj_cuda_function(p->device, name, &p->own);
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
        transpose(&p->b.matrix);
    take_addend(p, node, form);
    return prepare_own(kernel, p);
}
