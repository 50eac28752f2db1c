/* gather.c - gather, scatter and isin: one element at a time, chosen by an index of its own. */
#include "gpu/host/copy.h"
#include "gpu/host/index.h"
#include "gpu/host/prepare.h"

/* --- gather and scatter --- */

typedef struct picked {
    dj_loop_t loop; /* the indexed tensor without its dimension, the other tensor, the index */
    dj_copy_t copy; /* scatter: self onto the output first */
    int64_t size, step_bytes; /* of the indexed dimension */
    uint32_t item_bytes;
    bool is_wide;
    uint32_t index, other; /* places */
    dj_node_scalar_t value;
    uint8_t dtype;
    dj_class_t class;
    dj_host_store_fn_t store;
} picked_t;

static int64_t index_read(const picked_t *p, const dj_host_run_t *run, const char *at)
{
    int64_t value = p->is_wide ? *(const int64_t *)at : *(const int32_t *)at;
    return dj_index_clamp(run, value, p->size, false) * p->step_bytes;
}

static void gather_range(const picked_t *p, const dj_host_run_t *run, int64_t first, int64_t end)
{
    void *bases[3] = {run->operands[0], run->outs[0], run->operands[p->index]};
    dj_walk_t walk;
    dj_walk_seek(&p->loop, &walk, bases, first);
    for (; first < end; first++) {
        int64_t offset = index_read(p, run, walk.at[2]);
        if (p->size)
            memcpy(walk.at[1], walk.at[0] + offset, p->item_bytes);
        if (first + 1 < end)
            dj_walk_advance(&p->loop, &walk, 1);
    }
}

static void run_gather(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const picked_t *p = kernel->state;
    if (p->loop.count == 0)
        return;
    uint32_t threads = dj_host_threads(run, p->loop.count);
    if (threads == 1) {
        gather_range(p, run, 0, p->loop.count);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t first, end;
        dj_host_share(p->loop.count, 1, &first, &end);
        if (first < end)
            gather_range(p, run, first, end);
    }
}

static void run_scatter(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const picked_t *p = kernel->state;
    uint64_t item = 0;
    dj_copy_run(&p->copy, run->operands[0], run->outs[0], run->threads);
    if (p->loop.count == 0)
        return;
    void *bases[3] = {run->outs[0], run->operands[p->other], run->operands[p->index]};
    if (p->value.slot != DJ_SLOT_NONE) {
        dj_index_item(run, p->value, p->dtype, p->store, p->class, &item);
        bases[1] = &item;
    }
    dj_walk_t walk;
    for (int64_t i = 0; i < p->loop.count; i++) {
        dj_walk_seek(&p->loop, &walk, bases, i);
        int64_t offset = index_read(p, run, walk.at[2]);
        if (p->size)
            memcpy(walk.at[0] + offset, walk.at[1], p->item_bytes);
    }
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

/* The walk has the index's shape; `other` is cut to it, and NULL means one element. */
static dj_status_t picked_make(dj_executable_t *exe, dj_host_kernel_t *kernel,
                               const dj_view_t *self_view, const dj_view_t *other,
                               picked_t **picked_p)
{
    const dj_node_t *node = kernel->node;
    picked_t *p = dj_host_arena(exe, sizeof(*p));
    if (!p)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    dj_view_t self = at_least_one(self_view);
    dj_view_t index = at_least_one(&dj_node_operand(node, 2)->view), cut = index;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, self.rank);
    if (self.rank != index.rank)
        return dj_fail(DJ_ERR_SHAPE, "the index has not the rank of the tensor it indexes");
    p->item_bytes = dj_dtype_bytes(self.dtype);
    p->size = self.sizes[dim];
    p->step_bytes = self.strides[dim] * (int64_t)p->item_bytes;
    p->is_wide = index.dtype == DJ_I64;
    p->index = dj_node_operand_index(&node->call, 2);
    p->value.slot = DJ_SLOT_NONE;
    p->dtype = self.dtype;
    for (uint32_t d = 0; d < index.rank; d++) {
        if (d != dim && index.sizes[d] > self.sizes[d])
            return dj_fail(DJ_ERR_SHAPE, "the index is larger than the tensor it indexes");
        self.sizes[d] = index.sizes[d];
    }
    self.strides[dim] = 0;
    if (other) {
        dj_view_t wide = at_least_one(other);
        for (uint32_t d = 0; d < index.rank; d++) {
            if (wide.rank != index.rank || wide.sizes[d] < index.sizes[d])
                return dj_fail(DJ_ERR_SHAPE, "the index is larger than its source");
            cut.strides[d] = wide.strides[d];
        }
        cut.dtype = other->dtype;
    }
    const dj_view_t *views[3] = {&self, other ? &cut : NULL, &index};
    kernel->state = *picked_p = p;
    return dj_loop_make(&p->loop, views, 3);
}

dj_status_t dj_host_gather_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    picked_t *p = NULL;
    kernel->run = run_gather;
    kernel->threaded = dj_view_count(&node->outs[0].view) >= DJ_HOST_FORK_ELEMENTS;
    return picked_make(exe, kernel, &dj_node_operand(node, 0)->view, &node->outs[0].view, &p);
}

dj_status_t dj_host_scatter_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *self = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view;
    const dj_operand_t *source = dj_node_operand(node, 3);
    picked_t *p = NULL;
    dj_node_scalar_t value = dj_node_scalar(node, 3);
    bool is_scalar = value.slot != DJ_SLOT_NONE;
    dj_status_t status = picked_make(exe, kernel, out, is_scalar ? NULL : &source->view, &p);
    if (status != DJ_OK)
        return status;
    p->value = value;
    p->other = is_scalar ? 0 : dj_node_operand_index(&node->call, 3);
    p->class = dj_dtype_is_float(out->dtype) ? DJ_CLASS_F64 : DJ_CLASS_I64;
    p->store = dj_host_store_of(p->class, out->dtype);
    if (!is_scalar && source->view.dtype != out->dtype)
        return dj_fail(DJ_ERR_UNSUPPORTED, "scatter: source and target differ in dtype");
    kernel->run = run_scatter;
    kernel->in_place = true;
    kernel->threaded = dj_view_count(out) >= DJ_HOST_FORK_ELEMENTS;
    return dj_copy_make(&p->copy, self, out);
}

/* --- isin: each element against every test element --- */

#define TILE 256

typedef struct isin {
    dj_loop_t loop; /* elements, output */
    dj_loop_t tests;
    bool invert, real;
    dj_host_load_fn_t load, load_test;
    dj_host_store_fn_t store;
} isin_t;

typedef union isin_tile {
    double real[TILE];
    int64_t integer[TILE];
} isin_tile_t;

static void found_mark(const isin_t *s, int64_t n, const isin_tile_t *elements, int64_t n_tests,
                       const isin_tile_t *tests, uint8_t *found)
{
    for (int64_t j = 0; j < n_tests; j++) {
        double real = tests->real[j];
        int64_t integer = tests->integer[j];
        if (s->real)
            for (int64_t i = 0; i < n; i++)
                found[i] |= elements->real[i] == real;
        else
            for (int64_t i = 0; i < n; i++)
                found[i] |= elements->integer[i] == integer;
    }
}

static void tests_walk(const isin_t *s, const dj_host_run_t *run, int64_t n,
                       const isin_tile_t *elements, uint8_t *found)
{
    void *bases[1] = {run->operands[1]};
    isin_tile_t tile;
    dj_walk_t walk;
    int64_t stride = s->tests.strides[0][s->tests.rank - 1];
    memset(found, 0, (size_t)n);
    if (s->tests.count)
        dj_walk_seek(&s->tests, &walk, bases, 0);
    for (int64_t done = 0; done < s->tests.count;) {
        int64_t part = dj_host_min(dj_walk_row(&s->tests, &walk), TILE);
        s->load_test(part, walk.at[0], stride, &tile);
        found_mark(s, n, elements, part, &tile, found);
        done += part;
        if (done < s->tests.count)
            dj_walk_advance(&s->tests, &walk, part);
    }
    for (int64_t i = 0; i < n; i++)
        found[i] ^= s->invert;
}

static void run_isin(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const isin_t *s = kernel->state;
    void *bases[2] = {run->operands[0], run->outs[0]};
    uint32_t inner = s->loop.rank - 1;
    isin_tile_t elements;
    uint8_t found[TILE];
    dj_walk_t walk;
    if (s->loop.count)
        dj_walk_seek(&s->loop, &walk, bases, 0);
    for (int64_t done = 0; done < s->loop.count;) {
        int64_t n = dj_host_min(dj_walk_row(&s->loop, &walk), TILE);
        s->load(n, walk.at[0], s->loop.strides[0][inner], &elements);
        tests_walk(s, run, n, &elements, found);
        s->store(n, found, walk.at[1], s->loop.strides[1][inner]);
        done += n;
        if (done < s->loop.count)
            dj_walk_advance(&s->loop, &walk, n);
    }
}

dj_status_t dj_host_isin_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_operand_t *elements = dj_node_operand(node, 0), *tests = dj_node_operand(node, 1);
    isin_t *s = dj_host_arena(exe, sizeof(*s));
    if (!s)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    if (elements->storage == DJ_STORAGE_SCALAR || tests->storage == DJ_STORAGE_SCALAR)
        return dj_fail(DJ_ERR_UNSUPPORTED, "isin of a plain number has no host kernel");
    const dj_view_t *views[2] = {&elements->view, &node->outs[0].view}, *only[1] = {&tests->view};
    s->real = dj_dtype_is_float(elements->view.dtype) || dj_dtype_is_float(tests->view.dtype);
    s->invert = dj_node_flag(node, 3, 0) != 0;
    s->load = dj_host_load_of(elements->view.dtype, s->real ? DJ_CLASS_F64 : DJ_CLASS_I64);
    s->load_test = dj_host_load_of(tests->view.dtype, s->real ? DJ_CLASS_F64 : DJ_CLASS_I64);
    s->store = dj_host_store_of(DJ_CLASS_B8, node->outs[0].view.dtype);
    kernel->state = s;
    kernel->run = run_isin;
    dj_status_t status = dj_loop_make(&s->loop, views, 2);
    return status != DJ_OK ? status : dj_loop_make(&s->tests, only, 1);
}
