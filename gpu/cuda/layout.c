/* layout.c - ops that move or make elements without arithmetic: copies and conversions, empty, full, arange, cat,
 * tril and triu, repeat, flip. Most are the copy engine (copy.h) with other views. */
#include "gpu/cuda/copy.h"
#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/prepare.h"

#define THREADS 256

_Static_assert(sizeof(dj_layout_cat_t) <= DJ_CUDA_PARAMS_MAX, "fewer segments");

static dj_status_t no_memory(void)
{
    return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
}

static uint32_t out_operand(const dj_node_t *node)
{
    return dj_node_operand_index(&node->call, node->call.n_args);
}

static dj_status_t check_real(const dj_node_t *node, const dj_view_t *view)
{
    if (!dj_dtype_is_complex(view->dtype))
        return DJ_OK;
    return dj_fail(DJ_ERR_UNSUPPORTED, "%s of %s has no CUDA kernel", dj_op_info(node->call.op)->name,
                   dj_dtype_name(view->dtype));
}

/* --- fill: full, empty, and a copy of a number --- */

typedef struct fill {
    dj_cuda_device_t *device;
    CUfunction function;
    dj_layout_fill_t params;
} fill_t;

static dj_status_t emit_fill(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const fill_t *f = kernel->state;
    dj_layout_fill_t p = f->params;
    if (p.loop.count == 0)
        return DJ_OK;
    p.to = dj_cuda_emit_ref(emit, out_operand(kernel->node));
    dj_cuda_grid_t grid = dj_cuda_grid_flat(f->device, p.loop.count, THREADS, 4);
    return dj_cuda_emit_kernel(emit, f->function, &grid, &p, sizeof(p));
}

static dj_status_t fill_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel, const dj_loop_t *out,
                                uint8_t dtype, uint32_t item_bytes, dj_cuda_scalar_t value)
{
    fill_t *f = dj_cuda_arena(exe, sizeof(*f));
    dj_loop_t loop = *out;
    if (!f)
        return no_memory();
    f->device = dj_cuda_device_of(exe);
    f->params = (dj_layout_fill_t){.value = value, .dtype = dtype, .item_bytes = item_bytes};
    f->params.wide_bytes = dj_cuda_loop_widen(&loop, item_bytes, NULL, 0);
    dj_cuda_loop_put(&f->params.loop, &loop);
    kernel->state = f;
    kernel->emit = emit_fill;
    return dj_cuda_function(f->device, "dj_layout_fill", &f->function);
}

static dj_status_t number_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel, uint32_t arg)
{
    const dj_view_t *out = &kernel->node->outs[0].view;
    dj_loop_t loop;
    dj_status_t status = check_real(kernel->node, out);
    if (status == DJ_OK)
        status = dj_loop_make(&loop, &out, 1);
    return status != DJ_OK ? status
                           : fill_prepare(exe, kernel, &loop, out->dtype, dj_dtype_bytes(out->dtype),
                                          dj_cuda_scalar_of(kernel->node, arg));
}

dj_status_t dj_cuda_full_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    return number_prepare(exe, kernel, 1);
}

/* Zeros, because what lies in Stack was another session's. */
dj_status_t dj_cuda_empty_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    uint64_t bytes = dj_view_extent_bytes(&kernel->node->outs[0].view);
    dj_loop_t loop = {.n = 1, .rank = 1, .count = (int64_t)bytes, .sizes = {(int64_t)bytes}, .strides = {{1}}};
    return fill_prepare(exe, kernel, &loop, DJ_U8, 1, (dj_cuda_scalar_t){.slot = DJ_CUDA_NONE});
}

/* --- copy, to_copy, flip: one copy, from an offset for flip --- */

typedef struct moved {
    dj_cuda_device_t *device;
    dj_cuda_copy_t copy;
    uint64_t offset_bytes; /* of the first element read */
} moved_t;

static dj_status_t emit_moved(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const moved_t *m = kernel->state;
    dj_cuda_ref_t from = dj_cuda_emit_ref(emit, 0), to = dj_cuda_emit_ref(emit, out_operand(kernel->node));
    from.base += m->offset_bytes;
    return dj_cuda_copy_emit(&m->copy, emit, m->device, from, to);
}

static dj_status_t moved_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel, const dj_view_t *from,
                                 uint64_t offset_bytes)
{
    moved_t *m = dj_cuda_arena(exe, sizeof(*m));
    if (!m)
        return no_memory();
    m->device = dj_cuda_device_of(exe);
    m->offset_bytes = offset_bytes;
    kernel->state = m;
    kernel->emit = emit_moved;
    return dj_cuda_copy_make(exe, &m->copy, from, &kernel->node->outs[0].view);
}

dj_status_t dj_cuda_copy_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    if (dj_node_scalar(kernel->node, 0).slot != DJ_SLOT_NONE)
        return number_prepare(exe, kernel, 0);
    return moved_prepare(exe, kernel, &dj_node_operand(kernel->node, 0)->view, 0);
}

dj_status_t dj_cuda_flip_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_arg_t *dims = &kernel->node->call.args[1];
    dj_view_t in = dj_node_operand(kernel->node, 0)->view;
    bool turned[DJ_RANK_MAX] = {false};
    int64_t offset = 0;
    for (uint32_t i = 0; dims->kind == DJ_ARG_INTEGERS && i < dims->count && in.rank; i++)
        turned[dj_node_dim(dims->integers[i], in.rank)] = true;
    for (uint32_t d = 0; d < in.rank; d++) {
        if (!turned[d] || in.sizes[d] < 2)
            continue;
        offset += (in.sizes[d] - 1) * in.strides[d] * (int64_t)dj_dtype_bytes(in.dtype);
        in.strides[d] = -in.strides[d];
    }
    return moved_prepare(exe, kernel, &in, (uint64_t)offset);
}

/* --- arange: count, start, step --- */

typedef struct arange {
    dj_cuda_device_t *device;
    CUfunction function;
    dj_layout_arange_t params;
} arange_t;

static dj_status_t emit_arange(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const arange_t *a = kernel->state;
    dj_layout_arange_t p = a->params;
    if (p.count == 0)
        return DJ_OK;
    p.to = dj_cuda_emit_ref(emit, out_operand(kernel->node));
    dj_cuda_grid_t grid = dj_cuda_grid_flat(a->device, p.count, THREADS, 1);
    return dj_cuda_emit_kernel(emit, a->function, &grid, &p, sizeof(p));
}

dj_status_t dj_cuda_arange_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_view_t *out = &kernel->node->outs[0].view;
    arange_t *a = dj_cuda_arena(exe, sizeof(*a));
    if (!a)
        return no_memory();
    a->device = dj_cuda_device_of(exe);
    dj_layout_arange_t *p = &a->params;
    p->start = dj_cuda_scalar_of(kernel->node, 1);
    p->step = dj_cuda_scalar_of(kernel->node, 2);
    p->is_real = dj_dtype_is_float(out->dtype) || p->start.is_real || p->step.is_real;
    p->count = dj_view_count(out);
    p->stride_bytes = (out->rank ? out->strides[0] : 1) * (int64_t)dj_dtype_bytes(out->dtype);
    p->dtype = out->dtype;
    kernel->state = a;
    kernel->emit = emit_arange;
    dj_status_t status = check_real(kernel->node, out);
    return status != DJ_OK ? status : dj_cuda_function(a->device, "dj_layout_arange", &a->function);
}

/* --- cat: segments of dense rows by one launch, other pieces by a copy each --- */

typedef struct piece {
    uint32_t operand;
    bool is_segment;
    uint64_t offset_bytes; /* in the output */
    dj_cuda_copy_t copy;
} piece_t;

typedef struct pieces {
    dj_cuda_device_t *device;
    CUfunction function;
    uint32_t n;
    piece_t piece[];
} pieces_t;

/* Rows of bytes: what is left of the loop when all of its rows are dense. */
static dj_layout_segment_t segment_of(const piece_t *piece)
{
    const dj_loop_t *loop = &piece->copy.loop;
    uint32_t inner = loop->rank - 1;
    bool bytes = piece->copy.mode == DJ_CUDA_COPY_BYTES;
    dj_layout_segment_t segment = {.rows = inner ? loop->sizes[0] : 1,
                                   .row_bytes = loop->sizes[inner] * (int64_t)piece->copy.wide_bytes,
                                   .from_stride = inner ? loop->strides[0][0] : 0,
                                   .to_stride = inner ? loop->strides[1][0] : 0,
                                   .to_offset = (int64_t)piece->offset_bytes,
                                   .item_bytes = piece->copy.item_bytes,
                                   .wide_bytes = bytes ? 16 : piece->copy.wide_bytes};
    while (segment.wide_bytes > segment.item_bytes &&
           ((uint64_t)segment.row_bytes | piece->offset_bytes) & (segment.wide_bytes - 1))
        segment.wide_bytes /= 2;
    return segment;
}

static bool is_segment(const piece_t *piece)
{
    const dj_cuda_copy_t *copy = &piece->copy;
    uint32_t inner = copy->loop.rank - 1;
    return copy->mode == DJ_CUDA_COPY_BYTES ||
           (copy->mode == DJ_CUDA_COPY_ITEMS && inner <= 1 && copy->loop.strides[0][inner] == copy->wide_bytes &&
            copy->loop.strides[1][inner] == copy->wide_bytes);
}

static dj_status_t emit_segments(const pieces_t *cat, dj_cuda_emit_t *emit, dj_layout_cat_t *p, uint32_t n)
{
    int64_t most = 0;
    if (n == 0)
        return DJ_OK;
    for (uint32_t i = 0; i < n; i++) {
        const dj_layout_segment_t *segment = &p->segment[i];
        int64_t count = segment->rows * (segment->row_bytes / segment->wide_bytes);
        most = count > most ? count : most;
    }
    dj_cuda_grid_t grid = dj_cuda_grid_flat(cat->device, most, THREADS, 2);
    grid.blocks[1] = n;
    return dj_cuda_emit_kernel(emit, cat->function, &grid, p, sizeof(*p));
}

static dj_status_t emit_cat(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const pieces_t *cat = kernel->state;
    dj_cuda_ref_t to = dj_cuda_emit_ref(emit, out_operand(kernel->node));
    dj_layout_cat_t p = {.to = to};
    dj_status_t status = DJ_OK;
    uint32_t n = 0;
    for (uint32_t i = 0; i < cat->n && status == DJ_OK; i++) {
        const piece_t *piece = &cat->piece[i];
        dj_cuda_ref_t from = dj_cuda_emit_ref(emit, piece->operand);
        if (!piece->is_segment) {
            dj_cuda_ref_t part = to;
            part.base += piece->offset_bytes;
            status = dj_cuda_copy_emit(&piece->copy, emit, cat->device, from, part);
            continue;
        }
        p.segment[n] = segment_of(piece);
        p.segment[n++].from = from;
        if (n == DJ_LAYOUT_SEGMENTS) {
            status = emit_segments(cat, emit, &p, n);
            n = 0;
        }
    }
    return status != DJ_OK ? status : emit_segments(cat, emit, &p, n);
}

static dj_status_t piece_make(dj_executable_t *exe, piece_t *piece, const dj_view_t *view, const dj_view_t *out,
                              uint32_t dim, int64_t at)
{
    dj_view_t part = *out;
    part.sizes[dim] = view->sizes[dim];
    piece->offset_bytes = (uint64_t)(at * out->strides[dim]) * dj_dtype_bytes(out->dtype);
    dj_status_t status = dj_cuda_copy_make(exe, &piece->copy, view, &part);
    piece->is_segment = status == DJ_OK && is_segment(piece);
    return status;
}

dj_status_t dj_cuda_cat_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_arg_t *list = &node->call.args[0];
    const dj_view_t *out = &node->outs[0].view;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, out->rank);
    pieces_t *cat = dj_cuda_arena(exe, sizeof(*cat) + list->count * sizeof(piece_t));
    if (!cat)
        return no_memory();
    int64_t at = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const dj_view_t *view = &list->operands[i].view;
        /* An empty one-dimensional tensor fits anywhere: PyTorch's old habit. */
        if (list->operands[i].storage >= DJ_STORAGE_SCALAR || dj_view_count(view) == 0)
            continue;
        if (view->rank != out->rank || at + view->sizes[dim] > out->sizes[dim])
            return dj_fail(DJ_ERR_SHAPE, "cat: piece %u does not fit the output", i);
        piece_t *piece = &cat->piece[cat->n++];
        piece->operand = i;
        dj_status_t status = piece_make(exe, piece, view, out, dim, at);
        if (status != DJ_OK)
            return status;
        at += view->sizes[dim];
    }
    cat->device = dj_cuda_device_of(exe);
    kernel->state = cat;
    kernel->emit = emit_cat;
    return dj_cuda_function(cat->device, "dj_layout_cat", &cat->function);
}

/* --- tril, triu --- */

typedef struct triangle {
    dj_cuda_device_t *device;
    CUfunction function;
    dj_layout_triangle_t params;
} triangle_t;

static dj_status_t emit_triangle(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const triangle_t *t = kernel->state;
    dj_layout_triangle_t p = t->params;
    if (p.loop.count == 0)
        return DJ_OK;
    p.from = dj_cuda_emit_ref(emit, 0);
    p.to = dj_cuda_emit_ref(emit, out_operand(kernel->node));
    dj_cuda_grid_t grid = dj_cuda_grid_flat(t->device, p.loop.count, THREADS, 2);
    return dj_cuda_emit_kernel(emit, t->function, &grid, &p, sizeof(p));
}

/* Not dj_loop_make(): rows and columns must stay what they are. */
static void logical_loop(dj_cuda_loop_t *loop, const dj_view_t *in, const dj_view_t *out)
{
    uint32_t lead = out->rank - in->rank;
    *loop = (dj_cuda_loop_t){.count = dj_view_count(out), .rank = out->rank, .views = 2};
    for (uint32_t d = 0; d < out->rank; d++) {
        loop->sizes[d] = out->sizes[d];
        loop->strides[1][d] = out->strides[d] * (int64_t)dj_dtype_bytes(out->dtype);
        loop->strides[0][d] = d < lead ? 0 : in->strides[d - lead] * (int64_t)dj_dtype_bytes(in->dtype);
    }
}

dj_status_t dj_cuda_triangle_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view;
    triangle_t *t = dj_cuda_arena(exe, sizeof(*t));
    if (!t)
        return no_memory();
    if (out->rank < 2 || !dj_view_same_shape(in, out))
        return dj_fail(DJ_ERR_SHAPE, "tril and triu need two dimensions");
    if (in->dtype != out->dtype)
        return dj_fail(DJ_ERR_UNSUPPORTED, "tril and triu convert no dtype: %s into %s",
                       dj_dtype_name(in->dtype), dj_dtype_name(out->dtype));
    t->device = dj_cuda_device_of(exe);
    t->params.diagonal = node->call.args[1].integer;
    t->params.upper = node->call.op == DJ_OP_TRIU;
    t->params.item_bytes = dj_dtype_bytes(out->dtype);
    logical_loop(&t->params.loop, in, out);
    kernel->state = t;
    kernel->emit = emit_triangle;
    return dj_cuda_function(t->device, "dj_layout_triangle", &t->function);
}

/* --- repeat: a copy over (repetition, index) pairs of dimensions, where eight of them do --- */

typedef struct repeat {
    dj_cuda_device_t *device;
    CUfunction function; /* NULL: the copy */
    dj_cuda_copy_t copy;
    dj_layout_repeat_t params;
} repeat_t;

static dj_status_t emit_repeat(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const repeat_t *r = kernel->state;
    dj_cuda_ref_t from = dj_cuda_emit_ref(emit, 0), to = dj_cuda_emit_ref(emit, out_operand(kernel->node));
    if (!r->function)
        return dj_cuda_copy_emit(&r->copy, emit, r->device, from, to);
    dj_layout_repeat_t p = r->params;
    p.from = from;
    p.to = to;
    dj_cuda_grid_t grid = dj_cuda_grid_flat(r->device, p.loop.count, THREADS, 1);
    return dj_cuda_emit_kernel(emit, r->function, &grid, &p, sizeof(p));
}

/* The output's dimensions split in two each; false when they are more than eight. */
static bool repeat_split(const dj_view_t *in, const dj_view_t *out, dj_view_t *from, dj_view_t *to)
{
    uint32_t lead = out->rank - in->rank, rank = 0;
    *from = (dj_view_t){.dtype = in->dtype};
    *to = (dj_view_t){.dtype = out->dtype};
    for (uint32_t d = 0; d < out->rank; d++) {
        int64_t size = d < lead ? 1 : in->sizes[d - lead], times = out->sizes[d] / size;
        int64_t parts[2] = {times, size}, strides[2] = {0, d < lead ? 0 : in->strides[d - lead]};
        int64_t out_strides[2] = {out->strides[d] * size, out->strides[d]};
        for (uint32_t i = 0; i < 2; i++) {
            if (parts[i] == 1)
                continue;
            if (rank == DJ_RANK_MAX)
                return false;
            from->sizes[rank] = to->sizes[rank] = parts[i];
            from->strides[rank] = strides[i];
            to->strides[rank++] = out_strides[i];
        }
    }
    from->rank = to->rank = (uint8_t)rank;
    return true;
}

dj_status_t dj_cuda_repeat_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_view_t *in = &dj_node_operand(kernel->node, 0)->view, *out = &kernel->node->outs[0].view;
    repeat_t *r = dj_cuda_arena(exe, sizeof(*r));
    dj_view_t from, to;
    if (!r)
        return no_memory();
    r->device = dj_cuda_device_of(exe);
    kernel->state = r;
    kernel->emit = emit_repeat;
    if (in->rank > out->rank)
        return dj_fail(DJ_ERR_SHAPE, "repeat: fewer dimensions than its operand has");
    if (dj_view_count(out) == 0)
        return DJ_OK; /* the copy stays DJ_CUDA_COPY_NOTHING */
    if (repeat_split(in, out, &from, &to))
        return dj_cuda_copy_make(exe, &r->copy, &from, &to);
    if (in->dtype != out->dtype)
        return dj_fail(DJ_ERR_UNSUPPORTED, "repeat converts no dtype: %s into %s", dj_dtype_name(in->dtype),
                       dj_dtype_name(out->dtype));
    uint32_t lead = out->rank - in->rank;
    logical_loop(&r->params.loop, in, out);
    for (uint32_t d = 0; d < out->rank; d++)
        r->params.from_sizes[d] = d < lead ? 1 : in->sizes[d - lead];
    r->params.item_bytes = dj_dtype_bytes(out->dtype);
    return dj_cuda_function(r->device, "dj_layout_repeat", &r->function);
}
