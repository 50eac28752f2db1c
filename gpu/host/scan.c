/* scan.c - ops that look at elements one after another along a dimension: argmax and its like, the
 * values with their places, cumsum, topk. Order matters here, so the walk is always in logical
 * order.
 *
 * Ties go to the first element and a NaN counts as larger than everything, as in PyTorch. */
#include "gpu/host/convert.h"
#include "gpu/host/prepare.h"
#include "gpu/host/vector.h"

#define TILE 256

typedef union scan_key {
    double real;
    int64_t integer;
} scan_key_t;

typedef struct scan {
    dj_loop_t kept;  /* input, output 0, output 1 */
    dj_loop_t along; /* input: what one output sees, in logical order */
    dj_class_t class;
    bool smallest, dense, has_values;
    int64_t k;              /* topk */
    int64_t out_strides[2]; /* of outputs 0 and 1 along the dimension, bytes */
    dj_host_load_fn_t load;
    dj_host_store_fn_t store_value, store_index;
} scan_t;

/* --- the best of a row --- */

/* The first best of n elements and whether it is better than *best; a NaN ends the search. */
#define BEST(class, T, name, better, reduction, worst)                                             \
    static int64_t best_##name##_##class(int64_t n, const T *x, T *best, bool *ended)              \
    {                                                                                              \
        T extreme = worst;                                                                         \
        int unordered = 0;                                                                         \
        _Pragma(reduction) for (int64_t i = 0; i < n; i++)                                         \
        {                                                                                          \
            extreme = x[i] better extreme ? x[i] : extreme;                                        \
            unordered |= x[i] != x[i];                                                             \
        }                                                                                          \
        if (!unordered && !(extreme better * best))                                                \
            return -1;                                                                             \
        *ended = unordered;                                                                        \
        for (int64_t i = 0; i < n; i++)                                                            \
            if (unordered ? x[i] != x[i] : x[i] == extreme) {                                      \
                *best = x[i];                                                                      \
                return i;                                                                          \
            }                                                                                      \
        return -1;                                                                                 \
    }
#define MAXIMISE "omp simd reduction(max : extreme) reduction(| : unordered)"
#define MINIMISE "omp simd reduction(min : extreme) reduction(| : unordered)"
BEST(F32, float, max, >, MAXIMISE, -INFINITY)
BEST(F64, double, max, >, MAXIMISE, -INFINITY)
BEST(I64, int64_t, max, >, MAXIMISE, INT64_MIN)
BEST(F32, float, min, <, MINIMISE, INFINITY)
BEST(F64, double, min, <, MINIMISE, INFINITY)
BEST(I64, int64_t, min, <, MINIMISE, INT64_MAX)

typedef union best {
    float f32;
    double f64;
    int64_t i64;
} best_t;

static int64_t best_of(const scan_t *s, int64_t n, const void *x, best_t *best, bool *ended)
{
    if (s->class == DJ_CLASS_F32)
        return s->smallest ? best_min_F32(n, x, &best->f32, ended)
                           : best_max_F32(n, x, &best->f32, ended);
    if (s->class == DJ_CLASS_F64)
        return s->smallest ? best_min_F64(n, x, &best->f64, ended)
                           : best_max_F64(n, x, &best->f64, ended);
    return s->smallest ? best_min_I64(n, x, &best->i64, ended)
                       : best_max_I64(n, x, &best->i64, ended);
}

/* Loads up to TILE elements of the row, or points at all of it; returns how many. */
static int64_t row_take(const scan_t *s, const dj_walk_t *walk, void *tile, const void **x_p)
{
    int64_t n = dj_walk_row(&s->along, walk);
    *x_p = walk->at[0];
    if (s->dense)
        return dj_host_min(n, 4096);
    n = dj_host_min(n, TILE);
    s->load(n, walk->at[0], s->along.strides[0][s->along.rank - 1], tile);
    *x_p = tile;
    return n;
}

static void best_find(const scan_t *s, char *base, best_t *best, int64_t *index_p)
{
    uint64_t tile[TILE];
    void *bases[2] = {base, NULL};
    dj_walk_t walk;
    bool ended = false;
    const void *x;
    *index_p = 0;
    dj_walk_seek(&s->along, &walk, bases, 0);
    for (int64_t done = 0; done < s->along.count && !ended;) {
        int64_t n = row_take(s, &walk, tile, &x);
        if (done == 0) { /* the first element is the one to beat, whatever it is */
            memcpy(best, x, dj_dtype_bytes(dj_class_dtype(s->class)));
            ended = s->class == DJ_CLASS_F32   ? best->f32 != best->f32
                    : s->class == DJ_CLASS_F64 ? best->f64 != best->f64
                                              : false;
        }
        int64_t found = ended ? -1 : best_of(s, n, x, best, &ended);
        if (found >= 0)
            *index_p = done + found;
        done += n;
        if (done < s->along.count)
            dj_walk_advance(&s->along, &walk, n);
    }
}

static void best_range(const scan_t *s, void *const *bases, int64_t first, int64_t end)
{
    dj_walk_t walk;
    dj_walk_seek(&s->kept, &walk, bases, first);
    for (; first < end; first++) {
        best_t best;
        int64_t index;
        best_find(s, walk.at[0], &best, &index);
        if (s->has_values)
            s->store_value(1, &best, walk.at[1], 8);
        s->store_index(1, &index, walk.at[s->has_values ? 2 : 1], 8);
        if (first + 1 < end)
            dj_walk_advance(&s->kept, &walk, 1);
    }
}

static void run_best(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const scan_t *s = kernel->state;
    void *bases[3] = {run->operands[0], run->outs[0], s->has_values ? run->outs[1] : run->outs[0]};
    if (s->kept.count == 0 || s->along.count == 0)
        return;
    uint32_t threads = dj_host_threads(run, s->kept.count * s->along.count);
    if (threads == 1 || s->kept.count == 1) {
        best_range(s, bases, 0, s->kept.count);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t first, end;
        dj_host_share(s->kept.count, 1, &first, &end);
        if (first < end)
            best_range(s, bases, first, end);
    }
}

/* --- cumsum --- */

static void cumsum_row(const scan_t *s, char *from, char *to)
{
    scan_key_t tile[TILE], sum = {.integer = 0};
    int64_t stride = s->along.strides[0][s->along.rank - 1], out_stride = s->out_strides[0];
    for (int64_t done = 0; done < s->along.count; done += TILE) {
        int64_t n = dj_host_min(s->along.count - done, TILE);
        s->load(n, from + done * stride, stride, tile);
        for (int64_t i = 0; i < n; i++) {
            if (s->class == DJ_CLASS_F64)
                tile[i].real = sum.real += tile[i].real;
            else
                tile[i].integer = sum.integer += tile[i].integer;
        }
        s->store_value(n, tile, to + done * out_stride, out_stride);
    }
}

static void run_cumsum(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const scan_t *s = kernel->state;
    void *bases[3] = {run->operands[0], run->outs[0], run->outs[0]};
    dj_walk_t walk;
    for (int64_t i = 0; i < s->kept.count && s->along.count; i++) {
        dj_walk_seek(&s->kept, &walk, bases, i);
        cumsum_row(s, walk.at[0], walk.at[1]);
    }
}

/* --- topk: a heap of the k best so far, the worst of them at its root --- */

typedef struct entry {
    scan_key_t key;
    int64_t index;
} entry_t;

static bool goes_before(const scan_t *s, const entry_t *a, const entry_t *b)
{
    if (s->class == DJ_CLASS_F64) {
        double x = a->key.real, y = b->key.real;
        bool x_nan = x != x, y_nan = y != y;
        if (x_nan != y_nan)
            return x_nan != s->smallest;
        if (!x_nan && x != y)
            return s->smallest ? x < y : x > y;
    } else if (a->key.integer != b->key.integer) {
        return s->smallest ? a->key.integer < b->key.integer : a->key.integer > b->key.integer;
    }
    return a->index < b->index;
}

static void heap_sink(const scan_t *s, entry_t *heap, int64_t at, int64_t n)
{
    entry_t moved = heap[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && goes_before(s, &heap[child], &heap[child + 1]))
            child++;
        if (!goes_before(s, &moved, &heap[child]))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void topk_row(const scan_t *s, char *base, entry_t *heap)
{
    scan_key_t tile[TILE];
    int64_t stride = s->along.strides[0][s->along.rank - 1], held = 0;
    for (int64_t done = 0; done < s->along.count; done += TILE) {
        int64_t n = dj_host_min(s->along.count - done, TILE);
        s->load(n, base + done * stride, stride, tile);
        for (int64_t i = 0; i < n; i++) {
            entry_t entry = {tile[i], done + i};
            if (held < s->k) {
                heap[held++] = entry;
                for (int64_t at = held / 2; held == s->k && at-- > 0;)
                    heap_sink(s, heap, at, held);
            } else if (goes_before(s, &entry, &heap[0])) {
                heap[0] = entry;
                heap_sink(s, heap, 0, held);
            }
        }
    }
    for (int64_t n = held; n-- > 1;) {
        entry_t worst = heap[0];
        heap[0] = heap[n];
        heap[n] = worst;
        heap_sink(s, heap, 0, n);
    }
}

static void run_topk(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const scan_t *s = kernel->state;
    void *bases[3] = {run->operands[0], run->outs[0], run->outs[1]};
    entry_t *heap = run->workspace;
    dj_walk_t walk;
    for (int64_t i = 0; i < s->kept.count && s->k > 0; i++) {
        dj_walk_seek(&s->kept, &walk, bases, i);
        topk_row(s, walk.at[0], heap);
        for (int64_t j = 0; j < s->k; j++) {
            s->store_value(1, &heap[j].key, walk.at[1] + j * s->out_strides[0], 8);
            s->store_index(1, &heap[j].index, walk.at[2] + j * s->out_strides[1], 8);
        }
    }
}

/* --- prepare --- */

static void dim_take(dj_view_t *view, uint32_t dim, int64_t *size_p, int64_t *stride_p)
{
    *size_p = view->rank ? view->sizes[dim] : 1;
    *stride_p = view->rank ? view->strides[dim] : 1;
    for (uint32_t d = dim; d + 1 < view->rank; d++) {
        view->sizes[d] = view->sizes[d + 1];
        view->strides[d] = view->strides[d + 1];
    }
    view->rank -= view->rank > 0;
}

/* Splits input and outputs at `dim` (or takes all of the input when `all`). */
static dj_status_t split(scan_t *s, const dj_node_t *node, uint32_t dim, bool all)
{
    dj_view_t in = dj_node_operand(node, 0)->view, along = in, outs[2];
    bool keepdim = node->outs[0].view.rank == in.rank;
    if (!all) {
        along.rank = 1;
        dim_take(&in, dim, &along.sizes[0], &along.strides[0]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        int64_t size;
        outs[i] = node->outs[i < node->n_outs ? i : 0].view;
        s->out_strides[i] = dj_dtype_bytes(outs[i].dtype);
        if (all) {
            outs[i].rank = in.rank = 0;
        } else if (keepdim) {
            int64_t stride;
            dim_take(&outs[i], dim, &size, &stride);
            s->out_strides[i] *= stride;
        }
    }
    dj_view_t logical = dj_view_contiguous(DJ_BOOL, along.rank, along.sizes);
    const dj_view_t *kept[3] = {&in, &outs[0], &outs[1]}, *seen[2] = {&along, &logical};
    dj_status_t status = dj_loop_make(&s->kept, kept, 3);
    return status != DJ_OK ? status : dj_loop_make(&s->along, seen, 2);
}

static dj_status_t scan_make(dj_executable_t *exe, dj_host_kernel_t *kernel, uint32_t dim, bool all,
                             scan_t **scan_p)
{
    scan_t *s = dj_host_arena(exe, sizeof(*s));
    if (!s)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    kernel->state = *scan_p = s;
    return split(s, kernel->node, dim, all);
}

dj_status_t dj_host_arg_reduce_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view;
    const dj_arg_t *dims = &node->call.args[1];
    uint16_t op = node->call.op;
    scan_t *s = NULL;
    bool all = dims->kind == DJ_ARG_NONE || (dims->kind == DJ_ARG_INTEGERS && dims->count == 0);
    int64_t dim = all ? 0 : dims->kind == DJ_ARG_INTEGERS ? dims->integers[0] : dims->integer;
    dj_status_t status = scan_make(exe, kernel, dj_node_dim(dim, in->rank), all, &s);
    if (status != DJ_OK)
        return status;
    s->smallest = op == DJ_OP_ARGMIN || op == DJ_OP_MIN_DIM;
    s->has_values = op == DJ_OP_MAX_DIM || op == DJ_OP_MIN_DIM;
    s->class = dj_class_of(in->dtype);
    s->class = s->class == DJ_CLASS_B8 ? DJ_CLASS_I64 : s->class;
    s->load = dj_host_load_of(in->dtype, s->class);
    s->dense = in->dtype == dj_class_dtype(s->class) &&
               s->along.strides[0][s->along.rank - 1] == (int64_t)dj_dtype_bytes(in->dtype);
    s->store_value = dj_host_store_of(s->class, node->outs[0].view.dtype);
    s->store_index = dj_host_store_of(DJ_CLASS_I64, node->outs[s->has_values].view.dtype);
    kernel->run = run_best;
    kernel->threaded = dj_view_count(in) >= DJ_HOST_FORK_ELEMENTS;
    return DJ_OK;
}

dj_status_t dj_host_cumsum_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view;
    uint8_t dtype = node->outs[0].view.dtype;
    scan_t *s = NULL;
    uint32_t dim = dj_node_dim(node->call.args[1].integer, in->rank);
    dj_status_t status = scan_make(exe, kernel, dim, false, &s);
    if (status != DJ_OK)
        return status;
    s->class = dj_dtype_is_float(dtype) ? DJ_CLASS_F64 : DJ_CLASS_I64;
    s->load = dj_host_load_of(in->dtype, s->class);
    s->store_value = dj_host_store_of(s->class, dtype);
    kernel->run = run_cumsum;
    kernel->in_place = true;
    return DJ_OK;
}

dj_status_t dj_host_topk_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view;
    scan_t *s = NULL;
    uint32_t dim = dj_node_dim(node->call.args[2].integer, in->rank);
    dj_status_t status = scan_make(exe, kernel, dim, false, &s);
    if (status != DJ_OK)
        return status;
    s->k = node->call.args[1].integer;
    s->smallest = !dj_node_flag(node, 3, 1);
    s->class = dj_dtype_is_float(in->dtype) ? DJ_CLASS_F64 : DJ_CLASS_I64;
    s->load = dj_host_load_of(in->dtype, s->class);
    s->store_value = dj_host_store_of(s->class, node->outs[0].view.dtype);
    s->store_index = dj_host_store_of(DJ_CLASS_I64, node->outs[1].view.dtype);
    kernel->workspace_bytes = (uint64_t)s->k * sizeof(entry_t);
    kernel->run = run_topk;
    return DJ_OK;
}
