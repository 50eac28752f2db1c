/* matmul.c - MM, BMM, ADDMM, BADDBMM and LINEAR: one product C = alpha * A B + beta * addend.
 *
 * Preparing turns every op into [batch][rows][columns] windows and picks how the product is made:
 *
 *   few rows (decode)       own kernel over the plain weight (gemv.c)
 *   many rows, B a weight   oneDNN over a packed form, made at bind and kept in Text
 *   else                    oneDNN over plain strides
 *   what oneDNN declines    own kernel that packs into the workspace (gemm.c)
 *
 * Packing gains a tenth to a fifth from 16 rows up, and nothing certain at one row, where reading
 * the weight is the cost; so decode keeps half the memory and loses nothing. Rows that do not fold
 * into one dimension are gathered into the workspace first. A bias along the columns is folded into
 * the product when alpha and beta are 1, which only the request knows; otherwise a pass over C
 * applies both.
 *
 * Slots: kernels.c. Compiled once: oneDNN picks its instruction set itself. */
#include <string.h>

#include "gpu/host/executable.h"
#include "gpu/host/gemm.h"
#include "gpu/host/gemv.h"
#include "gpu/host/strided.h"
#include "gpu/matrix.h"

#define PACK_ROWS_MIN 32         /* below, packing a weight does not pay for its memory */
#define FORK_PRODUCTS (64 << 10) /* multiplications from which own kernels use all threads */
#define IN_PLACE UINT64_MAX

typedef struct side {
    uint32_t at;           /* in run->operands */
    const dj_view_t *view; /* as the node has it */
    dj_view_t dense;       /* when gathered */
    uint64_t gathered;     /* offset in the workspace, or IN_PLACE */
    bool regular;          /* a unit stride, and lines that do not overlap */
    dj_matrix_t matrix;
} side_t;

typedef struct factor {
    uint32_t slot; /* DJ_SLOT_NONE: 1 */
    uint8_t dtype;
} factor_t;

typedef struct product {
    side_t a, b, c;
    bool has_addend, folded;
    uint32_t addend_at;
    dj_matrix_t addend; /* stride 0 where it broadcasts */
    factor_t alpha, beta;
    /* At most one of the three; none when there is nothing to multiply. */
    void (*gemv)(const dj_gemv_t *gemv);
    void (*gemm)(const dj_gemm_t *gemm, void *workspace);
    dj_onednn_product_t *onednn;
    const void *packed;
    const float *zeros; /* stands in for a folded bias that this request cannot fold */
} product_t;

/* Gives the side a dense copy in the workspace. */
static void gather(side_t *side, bool batched, uint64_t *workspace_p)
{
    side->dense = dj_view_contiguous(side->view->dtype, side->view->rank, side->view->sizes);
    side->gathered = *workspace_p;
    *workspace_p += dj_align_up(dj_view_dense_bytes(side->view));
    dj_matrix_of_view(&side->dense, batched, &side->matrix);
}

static void take_side(side_t *side, uint32_t at, const dj_view_t *view, bool batched, bool turned,
                      uint64_t *workspace_p)
{
    *side = (side_t){.at = at, .view = view, .gathered = IN_PLACE};
    if (!dj_matrix_of_view(view, batched, &side->matrix))
        gather(side, batched, workspace_p);
    if (turned)
        dj_matrix_transpose(&side->matrix);
    side->regular = dj_matrix_is_regular(&side->matrix);
}

/* C needs dense rows, and a place of its own for every element. */
static void take_result(side_t *side, uint32_t at, const dj_view_t *view, bool batched,
                        uint64_t *workspace_p)
{
    *side = (side_t){.at = at, .view = view, .gathered = IN_PLACE};
    dj_matrix_t *m = &side->matrix;
    if (!dj_matrix_of_view(view, batched, m) || !dj_matrix_rows_are_dense(m) || (m->batch > 1 && m->batch_stride < 1))
        gather(side, batched, workspace_p);
}

/* The addend broadcast to C; `folded` when it is one value a column. */
static void take_addend(product_t *p, uint32_t at, const dj_view_t *view)
{
    int64_t sizes[3] = {1, 1, 1}, strides[3] = {0, 0, 0};
    for (uint32_t d = 0; d < view->rank; d++) {
        uint32_t to = 3 - view->rank + d;
        sizes[to] = view->sizes[d];
        strides[to] = view->sizes[d] == 1 ? 0 : view->strides[d];
    }
    p->has_addend = true;
    p->addend_at = at;
    p->addend = (dj_matrix_t){
        .batch_stride = strides[0], .row_stride = strides[1], .column_stride = strides[2]};
    p->folded = sizes[0] == 1 && sizes[1] == 1 && p->c.matrix.batch == 1 &&
                sizes[2] == p->c.matrix.columns && (strides[2] == 1 || sizes[2] == 1);
}

static factor_t factor_of(const dj_node_t *node, uint32_t arg)
{
    const dj_arg_t *a = &node->call.args[arg];
    return (factor_t){a->slot, a->scalar.dtype};
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

static void take_sides(product_t *p, const dj_node_t *node, uint64_t *workspace_p)
{
    const dj_call_t *call = &node->call;
    form_t form = form_of(call->op);
    take_side(&p->a, dj_node_operand_index(call, form.a), &call->args[form.a].operands[0].view,
              form.batched, false, workspace_p);
    take_side(&p->b, dj_node_operand_index(call, form.b), &call->args[form.b].operands[0].view,
              form.batched, form.linear, workspace_p);
    take_result(&p->c, dj_node_operand_index(call, call->n_args), &node->outs[0].view, form.batched,
                workspace_p);
    p->has_addend = false;
    p->alpha.slot = p->beta.slot = DJ_SLOT_NONE;
    if (form.addend == 255 || call->args[form.addend].kind != DJ_ARG_TENSORS ||
        call->args[form.addend].operands[0].storage == DJ_STORAGE_NONE)
        return;
    take_addend(p, dj_node_operand_index(call, form.addend),
                &call->args[form.addend].operands[0].view);
    if (form.factors) {
        p->beta = factor_of(node, 3);
        p->alpha = factor_of(node, 4);
    }
}

static double value_of(factor_t factor, const dj_host_run_t *run)
{
    return factor.slot == DJ_SLOT_NONE ? 1 : dj_scalar_real(run->scalars[factor.slot], factor.dtype);
}

static void *enter(const side_t *side, const dj_host_run_t *run, bool read)
{
    void *where = run->operands[side->at];
    if (side->gathered == IN_PLACE)
        return where;
    void *dense = (uint8_t *)run->workspace + side->gathered;
    if (read)
        dj_host_copy_view(dense, &side->dense, where, side->view);
    return dense;
}

static void clear(float *c, const dj_matrix_t *m)
{
    for (int64_t b = 0; b < m->batch; b++)
        for (int64_t i = 0; i < m->rows; i++)
            memset(c + b * m->batch_stride + i * m->row_stride, 0,
                   (size_t)m->columns * sizeof(float));
}

/* C = alpha * C + beta * addend. With beta 0 the addend is not read, whatever it holds. */
static void combine(const product_t *p, const dj_host_run_t *run, float *c, float alpha, float beta)
{
    const dj_matrix_t *m = &p->c.matrix, *s = &p->addend;
    const float *addend = run->operands[p->addend_at];
    for (int64_t b = 0; b < m->batch; b++) {
        for (int64_t i = 0; i < m->rows; i++) {
            float *row = c + b * m->batch_stride + i * m->row_stride;
            const float *from = addend + b * s->batch_stride + i * s->row_stride;
            if (beta == 0)
                for (int64_t j = 0; j < m->columns; j++)
                    row[j] *= alpha;
            else
                for (int64_t j = 0; j < m->columns; j++)
                    row[j] = alpha * row[j] + beta * from[j * s->column_stride];
        }
    }
}

static void multiply_few(const product_t *p, const dj_host_run_t *run, const float *bias,
                         const float *a, const float *b, float *c)
{
    const dj_matrix_t *mb = &p->b.matrix;
    bool turned = mb->column_stride != 1;
    dj_gemv_t gemv = {.m = p->a.matrix.rows,
                      .n = mb->columns,
                      .k = mb->rows,
                      .a = a,
                      .b = b,
                      .bias = bias,
                      .c = c,
                      .a_row = p->a.matrix.row_stride,
                      .c_row = p->c.matrix.row_stride,
                      .b_line = turned ? mb->column_stride : mb->row_stride,
                      .b_transposed = turned,
                      .threads = run->threads};
    p->gemv(&gemv);
}

static dj_gemm_t gemm_of(const product_t *p, uint32_t threads)
{
    const dj_matrix_t *a = &p->a.matrix, *b = &p->b.matrix, *c = &p->c.matrix;
    return (dj_gemm_t){.batch = c->batch,
                       .m = c->rows,
                       .n = c->columns,
                       .k = a->columns,
                       .a_row = a->row_stride,
                       .a_column = a->column_stride,
                       .a_batch = a->batch_stride,
                       .b_row = b->row_stride,
                       .b_column = b->column_stride,
                       .b_batch = b->batch_stride,
                       .c_row = c->row_stride,
                       .c_batch = c->batch_stride,
                       .threads = threads};
}

static void multiply_any(const product_t *p, const dj_host_run_t *run, const float *bias,
                         const float *a, const float *b, float *c)
{
    dj_gemm_t gemm = gemm_of(p, run->threads);
    gemm.a = a;
    gemm.b = b;
    gemm.bias = bias;
    gemm.c = c;
    p->gemm(&gemm, run->workspace);
}

static void run_product(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const product_t *p = kernel->state;
    float alpha = (float)value_of(p->alpha, run), beta = (float)value_of(p->beta, run);
    bool fold = p->folded && alpha == 1 && beta == 1;
    const float *bias = fold ? run->operands[p->addend_at] : NULL;
    const float *a = enter(&p->a, run, true);
    const float *b = p->packed ? p->packed : enter(&p->b, run, true);
    float *c = enter(&p->c, run, false);
    if (p->gemv)
        multiply_few(p, run, bias, a, b, c);
    else if (p->onednn)
        dj_onednn_product_run(p->onednn, a, b, bias ? bias : p->zeros, c, run->workspace);
    else if (p->gemm)
        multiply_any(p, run, bias, a, b, c);
    else
        clear(c, &p->c.matrix);
    if (p->has_addend && !(fold && p->a.matrix.columns > 0))
        combine(p, run, c, alpha, beta);
    if (p->c.gathered != IN_PLACE)
        dj_host_copy_view(run->operands[p->c.at], p->c.view, c, &p->c.dense);
}

static void run_nothing(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
}

static void give_back(dj_host_kernel_t *kernel)
{
    product_t *p = kernel->state;
    dj_onednn_product_destroy(p->onednn);
    p->onednn = NULL;
}

/* Finds or makes the packed form of the weight behind B. */
static dj_status_t bind_weight(dj_host_kernel_t *kernel, dj_executable_t *exe,
                               dj_text_t *const *texts)
{
    product_t *p = kernel->state;
    dj_text_store_t *store = dj_text_store_of(exe->device);
    dj_text_t *text = texts[p->b.at];
    if (!text || !store)
        return dj_fail(DJ_ERR_INVALID, "a matrix product: its weight is not in Text");
    if (dj_view_extent_bytes(p->b.view) > text->bytes)
        return dj_fail(DJ_ERR_SHAPE, "a matrix product: weight of %llu bytes, %llu needed",
                       (unsigned long long)text->bytes,
                       (unsigned long long)dj_view_extent_bytes(p->b.view));
    dj_hash_t key = dj_onednn_product_pack_key(p->onednn);
    dj_text_pack_t *pack = dj_text_pack_find(store, text, key);
    if (!pack) {
        dj_status_t status =
            dj_text_pack_add(store, text, key, dj_onednn_product_pack_bytes(p->onednn), &pack);
        if (status == DJ_OK)
            status = dj_onednn_product_pack(p->onednn, text->data, pack->data);
        if (status == DJ_OK)
            status = dj_text_pack_seal(store, pack);
        if (status != DJ_OK)
            return status;
    }
    p->packed = pack->data;
    return DJ_OK;
}

static bool is_packable(const dj_executable_t *exe, const dj_node_t *node, const product_t *p)
{
    const dj_operand_t *b = &node->call.args[form_of(node->call.op).b].operands[0];
    return p->c.matrix.batch == 1 && p->c.matrix.rows >= PACK_ROWS_MIN &&
           p->b.gathered == IN_PLACE && b->slot == DJ_SLOT_NONE &&
           exe->graph->storages[b->storage].is_input &&
           exe->graph->storages[b->storage].input_class == DJ_CLASS_WEIGHT;
}

static dj_status_t prepare_onednn(dj_executable_t *exe, dj_host_kernel_t *kernel, product_t *p)
{
    const dj_matrix_t *a = &p->a.matrix, *b = &p->b.matrix, *c = &p->c.matrix;
    dj_onednn_shape_t shape = {.batch = c->batch,
                               .m = c->rows,
                               .n = c->columns,
                               .k = a->columns,
                               .a_row = a->row_stride,
                               .a_column = a->column_stride,
                               .a_batch = a->batch_stride,
                               .b_row = b->row_stride,
                               .b_column = b->column_stride,
                               .b_batch = b->batch_stride,
                               .c_row = c->row_stride,
                               .c_batch = c->batch_stride,
                               .bias = p->folded,
                               .pack = is_packable(exe, kernel->node, p)};
    dj_status_t status =
        dj_onednn_product_create(dj_host_device_of(exe)->onednn, &shape, &p->onednn);
    if (status == DJ_OK && dj_onednn_product_pack_bytes(p->onednn))
        kernel->bind = bind_weight;
    return status;
}

/* Our own kernels, by instruction set. */
static const struct own {
    const char *isa;
    void (*gemv)(const dj_gemv_t *gemv);
    void (*gemm)(const dj_gemm_t *gemm, void *workspace);
    uint64_t (*gemm_workspace)(const dj_gemm_t *gemm);
} owns[] = {{"avx512", dj_gemv_avx512, dj_gemm_avx512, dj_gemm_workspace_avx512},
            {"avx2", dj_gemv_avx2, dj_gemm_avx2, dj_gemm_workspace_avx2},
            {"base", dj_gemv_base, dj_gemm_base, dj_gemm_workspace_base}};

static const struct own *own_of(const dj_executable_t *exe)
{
    uint32_t i = 0;
    while (i < 2 && strcmp(owns[i].isa, dj_host_device_of(exe)->info.isa) != 0)
        i++;
    return &owns[i];
}

static dj_status_t choose_method(dj_executable_t *exe, dj_host_kernel_t *kernel, product_t *p,
                                 uint64_t *workspace_p)
{
    const dj_matrix_t *c = &p->c.matrix;
    const struct own *own = own_of(exe);
    if (c->batch == 1 && c->rows <= DJ_GEMV_ROWS_MAX && p->a.matrix.column_stride == 1 &&
        p->b.regular) {
        p->gemv = own->gemv;
        return DJ_OK;
    }
    dj_status_t status = DJ_ERR_UNSUPPORTED;
    if (p->a.regular && p->b.regular)
        status = prepare_onednn(exe, kernel, p);
    if (status == DJ_OK)
        *workspace_p = dj_onednn_product_workspace(p->onednn);
    if (status != DJ_ERR_UNSUPPORTED)
        return status;
    dj_gemm_t gemm = gemm_of(p, kernel->threaded ? dj_host_device_threads(exe) : 1);
    p->gemm = own->gemm;
    *workspace_p = own->gemm_workspace(&gemm);
    return DJ_OK;
}

/* The workspace is the method's first, then the gathered sides. */
static dj_status_t plan_product(dj_executable_t *exe, dj_host_kernel_t *kernel, product_t *p)
{
    uint64_t gathered = 0, first = 0;
    take_sides(p, kernel->node, &gathered);
    const dj_matrix_t *c = &p->c.matrix;
    kernel->threaded = c->batch * c->rows * c->columns * p->a.matrix.columns >= FORK_PRODUCTS;
    if (p->a.matrix.columns > 0) {
        dj_status_t status = choose_method(exe, kernel, p, &first);
        if (status != DJ_OK)
            return status;
    }
    kernel->threaded |= p->onednn != NULL;
    first = dj_align_up(first);
    side_t *sides[] = {&p->a, &p->b, &p->c};
    for (uint32_t i = 0; i < 3; i++)
        if (sides[i]->gathered != IN_PLACE)
            sides[i]->gathered += first;
    kernel->workspace_bytes = first + gathered;
    return DJ_OK;
}

dj_status_t dj_host_matmul_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_view_t *out = &kernel->node->outs[0].view;
    if (dj_view_count(out) == 0) {
        kernel->run = run_nothing;
        return DJ_OK;
    }
    const dj_operand_t *b = &kernel->node->call.args[form_of(kernel->node->call.op).b].operands[0];
    if (out->dtype != DJ_F32 || b->view.dtype != DJ_F32)
        return dj_fail(DJ_ERR_UNSUPPORTED, "matrix products are in float32, not %s into %s",
                       dj_dtype_name(b->view.dtype), dj_dtype_name(out->dtype));
    product_t *p = dj_host_arena(exe, sizeof(*p));
    if (!p)
        return dj_fail(DJ_ERR_MEMORY, "matrix product: out of memory");
    dj_status_t status = plan_product(exe, kernel, p);
    if (status != DJ_OK)
        return status;
    if (p->folded && p->onednn) {
        p->zeros = dj_host_arena(exe, (size_t)p->c.matrix.columns * sizeof(float));
        if (!p->zeros) {
            dj_onednn_product_destroy(p->onednn);
            return dj_fail(DJ_ERR_MEMORY, "matrix product: out of memory");
        }
    }
    kernel->state = p;
    kernel->run = run_product;
    kernel->fini = give_back;
    return DJ_OK;
}
