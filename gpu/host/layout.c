/* layout.c - ops that move or make elements without arithmetic: copies and conversions, full,
 * arange, cat, repeat, flip, tril and triu. All of them are the copy engine (copy.h) with other
 * pointers. */
#include "gpu/host/copy.h"
#include "gpu/host/prepare.h"

static dj_status_t no_memory(void)
{
    return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
}

/* --- fill --- */

typedef struct fill {
    dj_loop_t loop; /* the output alone */
    dj_node_scalar_t value;
    dj_host_store_fn_t store; /* from float64 or int64, as the scalar is */
    uint32_t item_bytes;
} fill_t;

static void run_fill(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const fill_t *f = kernel->state;
    uint64_t item = 0;
    double real = dj_host_scalar_real(run, f->value);
    int64_t integer = dj_host_scalar_integer(run, f->value);
    f->store(1, f->value.dtype == DJ_F64 ? (void *)&real : (void *)&integer, &item, f->item_bytes);
    dj_copy_fill(&f->loop, run->outs[0], &item, f->item_bytes);
}

static dj_status_t fill_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel,
                                dj_node_scalar_t value)
{
    fill_t *f = dj_host_arena(exe, sizeof(*f));
    if (!f)
        return no_memory();
    const dj_view_t *out = &kernel->node->outs[0].view;
    f->value = value;
    f->item_bytes = dj_dtype_bytes(out->dtype);
    f->store = dj_host_store_of(value.dtype == DJ_F64 ? DJ_CLASS_F64 : DJ_CLASS_I64, out->dtype);
    kernel->state = f;
    kernel->run = run_fill;
    return dj_loop_make(&f->loop, &out, 1);
}

dj_status_t dj_host_full_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    return fill_prepare(exe, kernel, dj_node_scalar(kernel->node, 1));
}

/* --- copy, to_copy --- */

static void run_copy(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    dj_copy_run(kernel->state, run->operands[0], run->outs[0], run->threads);
}

dj_status_t dj_host_copy_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    dj_node_scalar_t value = dj_node_scalar(kernel->node, 0);
    if (value.slot != DJ_SLOT_NONE)
        return fill_prepare(exe, kernel, value);
    dj_copy_t *copy = dj_host_arena(exe, sizeof(*copy));
    if (!copy)
        return no_memory();
    kernel->state = copy;
    kernel->run = run_copy;
    kernel->in_place = true;
    kernel->threaded = dj_view_count(&kernel->node->outs[0].view) >= DJ_HOST_FORK_ELEMENTS;
    return dj_copy_make(copy, &dj_node_operand(kernel->node, 0)->view, &kernel->node->outs[0].view);
}

/* --- empty: zeros, because what lies in Stack was another session's --- */

static void run_empty(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    memset(run->outs[0], 0, dj_view_extent_bytes(&kernel->node->outs[0].view));
}

dj_status_t dj_host_empty_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    kernel->run = run_empty;
    return DJ_OK;
}

/* --- arange: count, start, step --- */

typedef struct arange {
    int64_t count, stride_bytes;
    dj_node_scalar_t start, step;
    bool real;
    dj_host_store_fn_t store;
} arange_t;

static void run_arange(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const arange_t *r = kernel->state;
    char *target = run->outs[0];
    int64_t start = dj_host_scalar_integer(run, r->start);
    int64_t step = dj_host_scalar_integer(run, r->step);
    double real_start = dj_host_scalar_real(run, r->start);
    double real_step = dj_host_scalar_real(run, r->step);
    for (int64_t i = 0; i < r->count; i++) {
        int64_t integer = start + i * step;
        double real = real_start + (double)i * real_step;
        r->store(1, r->real ? (void *)&real : (void *)&integer, target + i * r->stride_bytes,
                 r->stride_bytes);
    }
}

dj_status_t dj_host_arange_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    arange_t *r = dj_host_arena(exe, sizeof(*r));
    if (!r)
        return no_memory();
    const dj_view_t *out = &kernel->node->outs[0].view;
    r->start = dj_node_scalar(kernel->node, 1);
    r->step = dj_node_scalar(kernel->node, 2);
    r->real = dj_dtype_is_float(out->dtype) || r->start.dtype == DJ_F64 || r->step.dtype == DJ_F64;
    r->count = dj_view_count(out);
    r->stride_bytes = (out->rank ? out->strides[0] : 1) * (int64_t)dj_dtype_bytes(out->dtype);
    r->store = dj_host_store_of(r->real ? DJ_CLASS_F64 : DJ_CLASS_I64, out->dtype);
    kernel->state = r;
    kernel->run = run_arange;
    return DJ_OK;
}

/* --- cat: one copy a piece --- */

typedef struct piece {
    dj_copy_t copy;
    uint32_t place;
    int64_t offset_bytes; /* in the output */
} piece_t;

typedef struct pieces {
    uint32_t n;
    piece_t piece[];
} pieces_t;

static void run_cat(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const pieces_t *cat = kernel->state;
    for (uint32_t i = 0; i < cat->n; i++) {
        const piece_t *piece = &cat->piece[i];
        dj_copy_run(&piece->copy, run->operands[piece->place],
                    (char *)run->outs[0] + piece->offset_bytes, run->threads);
    }
}

dj_status_t dj_host_cat_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_arg_t *list = &node->call.args[0];
    const dj_view_t *out = &node->outs[0].view;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, out->rank);
    pieces_t *cat = dj_host_arena(exe, sizeof(*cat) + list->count * sizeof(piece_t));
    if (!cat)
        return no_memory();
    int64_t at = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const dj_view_t *view = &list->operands[i].view;
        /* An empty one-dimensional tensor fits anywhere: PyTorch's old habit. */
        if (list->operands[i].storage >= DJ_STORAGE_SCALAR || dj_view_count(view) == 0)
            continue;
        dj_view_t part = *out;
        if (view->rank != out->rank || at + view->sizes[dim] > out->sizes[dim])
            return dj_fail(DJ_ERR_SHAPE, "cat: piece %u does not fit the output", i);
        part.sizes[dim] = view->sizes[dim];
        piece_t *piece = &cat->piece[cat->n++];
        piece->place = i;
        piece->offset_bytes = at * out->strides[dim] * (int64_t)dj_dtype_bytes(out->dtype);
        dj_status_t status = dj_copy_make(&piece->copy, view, &part);
        if (status != DJ_OK)
            return status;
        at += view->sizes[dim];
    }
    kernel->state = cat;
    kernel->run = run_cat;
    kernel->threaded = dj_view_count(out) >= DJ_HOST_FORK_ELEMENTS;
    return DJ_OK;
}

/* --- repeat: one copy a repetition --- */

typedef struct repeat {
    dj_copy_t copy;   /* onto the output's first block */
    dj_loop_t blocks; /* one element a block of the output, with its bytes as strides */
} repeat_t;

static void run_repeat(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const repeat_t *r = kernel->state;
    void *bases[1] = {run->outs[0]};
    dj_walk_t walk;
    if (r->copy.loop.count == 0)
        return;
    for (int64_t i = 0; i < r->blocks.count; i++) {
        dj_walk_seek(&r->blocks, &walk, bases, i);
        dj_copy_run(&r->copy, run->operands[0], walk.at[0], run->threads);
    }
}

dj_status_t dj_host_repeat_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_view_t *in = &dj_node_operand(kernel->node, 0)->view;
    const dj_view_t *out = &kernel->node->outs[0].view;
    repeat_t *r = dj_host_arena(exe, sizeof(*r));
    if (!r)
        return no_memory();
    dj_view_t block = *out, blocks = *out;
    uint32_t lead = out->rank - in->rank;
    for (uint32_t d = 0; d < out->rank; d++) {
        block.sizes[d] = d < lead ? 1 : in->sizes[d - lead];
        blocks.sizes[d] = block.sizes[d] ? out->sizes[d] / block.sizes[d] : 0;
        blocks.strides[d] = out->strides[d] * block.sizes[d];
    }
    const dj_view_t *views[1] = {&blocks};
    dj_status_t status = dj_loop_make(&r->blocks, views, 1);
    kernel->state = r;
    kernel->run = run_repeat;
    kernel->threaded = dj_view_count(in) >= DJ_HOST_FORK_ELEMENTS;
    return status != DJ_OK ? status : dj_copy_make(&r->copy, in, &block);
}

/* --- flip: a copy from the far end, backwards --- */

typedef struct flip {
    dj_copy_t copy;
    int64_t offset_bytes;
} flip_t;

static void run_flip(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const flip_t *flip = kernel->state;
    if (flip->copy.loop.count)
        dj_copy_run(&flip->copy, (char *)run->operands[0] + flip->offset_bytes, run->outs[0],
                    run->threads);
}

dj_status_t dj_host_flip_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_arg_t *dims = &node->call.args[1];
    dj_view_t in = dj_node_operand(node, 0)->view;
    flip_t *flip = dj_host_arena(exe, sizeof(*flip));
    if (!flip)
        return no_memory();
    bool turned[DJ_RANK_MAX] = {false};
    for (uint32_t i = 0; dims->kind == DJ_ARG_INTEGERS && i < dims->count && in.rank; i++)
        turned[dj_node_dim(dims->integers[i], in.rank)] = true;
    for (uint32_t d = 0; d < in.rank; d++) {
        if (!turned[d] || in.sizes[d] < 2)
            continue;
        flip->offset_bytes += (in.sizes[d] - 1) * in.strides[d] * (int64_t)dj_dtype_bytes(in.dtype);
        in.strides[d] = -in.strides[d];
    }
    kernel->state = flip;
    kernel->run = run_flip;
    kernel->threaded = dj_view_count(&in) >= DJ_HOST_FORK_ELEMENTS;
    return dj_copy_make(&flip->copy, &in, &node->outs[0].view);
}

/* --- tril, triu: a copy, then zeros outside the triangle --- */

typedef struct triangle {
    dj_copy_t copy;
    dj_loop_t rows; /* one element a row of the output */
    int64_t n_rows, columns, diagonal, stride_bytes;
    bool upper;
} triangle_t;

static void run_triangle(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    static const uint64_t zero;
    const triangle_t *t = kernel->state;
    void *bases[1] = {run->outs[0]};
    dj_copy_run(&t->copy, run->operands[0], run->outs[0], run->threads);
    dj_loop_t row = {.n = 1, .rank = 1, .strides = {{t->stride_bytes}}};
    for (int64_t i = 0; i < t->rows.count; i++) {
        /* Columns up to r + diagonal are the lower triangle's. */
        int64_t edge = i % t->n_rows + t->diagonal + (t->upper ? 0 : 1);
        edge = dj_host_max(0, dj_host_min(edge, t->columns));
        int64_t first = t->upper ? 0 : edge;
        row.count = row.sizes[0] = t->upper ? edge : t->columns - edge;
        dj_walk_t walk;
        dj_walk_seek(&t->rows, &walk, bases, i);
        dj_copy_fill(&row, walk.at[0] + first * t->stride_bytes, &zero, t->copy.item_bytes);
    }
}

dj_status_t dj_host_triangle_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *out = &node->outs[0].view;
    triangle_t *t = dj_host_arena(exe, sizeof(*t));
    if (!t)
        return no_memory();
    if (out->rank < 2)
        return dj_fail(DJ_ERR_SHAPE, "tril and triu need two dimensions");
    t->upper = node->call.op == DJ_OP_TRIU;
    t->diagonal = node->call.args[1].integer;
    t->n_rows = out->sizes[out->rank - 2];
    t->columns = out->sizes[out->rank - 1];
    t->stride_bytes = out->strides[out->rank - 1] * (int64_t)dj_dtype_bytes(out->dtype);
    /* Not dj_loop_make(): the rows must stay in logical order. */
    t->rows = (dj_loop_t){.n = 1, .rank = out->rank - 1u, .count = t->columns ? 1 : 0};
    for (uint32_t d = 0; d < t->rows.rank; d++) {
        t->rows.sizes[d] = out->sizes[d];
        t->rows.strides[0][d] = out->strides[d] * (int64_t)dj_dtype_bytes(out->dtype);
        t->rows.count *= out->sizes[d];
    }
    kernel->state = t;
    kernel->run = run_triangle;
    kernel->in_place = true;
    kernel->threaded = dj_view_count(out) >= DJ_HOST_FORK_ELEMENTS;
    return dj_copy_make(&t->copy, &dj_node_operand(node, 0)->view, out);
}
