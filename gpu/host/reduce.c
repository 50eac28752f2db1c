/* reduce.c - sum, mean, prod, amax, amin, any, all, vector norm, variance.
 *
 * One inner function: fold(n, acc, x) brings n elements into n accumulators. Where the output lies
 * along the input's dense dimension the accumulators are neighbouring outputs (columns); where it
 * is the dense dimension that is reduced they are LANES partial results of one output, joined at
 * the end in a tree (rows). Floats accumulate in double, integers in int64. */
#include "gpu/host/convert.h"
#include "gpu/host/prepare.h"
#include "gpu/host/vector.h"

#define TILE 256
#define LANES 32

typedef union acc {
    double real;
    int64_t integer;
} acc_t;

typedef void (*fold_fn_t)(int64_t n, acc_t *acc, const void *x, const acc_t *aux);

/* X(kind, the first value in reals, in integers, r after x with aux y, r joined with another x) */
#define FOLDS(X)                                                                                   \
    X(SUM, 0, 0, r + x, r + x)                                                                     \
    X(PROD, 1, 1, r *x, r *x)                                                                      \
    X(MAX, -INFINITY, INT64_MIN, (x > r || x != x) ? x : r, (x > r || x != x) ? x : r)             \
    X(MIN, INFINITY, INT64_MAX, (x < r || x != x) ? x : r, (x < r || x != x) ? x : r)              \
    X(ANY, 0, 0, (r != 0 || x != 0), (r != 0 || x != 0))                                           \
    X(ALL, 1, 1, (r != 0 && x != 0), (r != 0 && x != 0))                                           \
    X(ABS_SUM, 0, 0, r + (x < 0 ? -x : x), r + x)                                                  \
    X(SQUARE_SUM, 0, 0, r + x * x, r + x)                                                          \
    X(ABS_MAX, 0, 0, ((x < 0 ? -x : x) > r || x != x) ? (x < 0 ? -x : x) : r,                      \
      (x > r || x != x) ? x : r)                                                                   \
    X(ABS_MIN, INFINITY, INT64_MAX, ((x < 0 ? -x : x) < r || x != x) ? (x < 0 ? -x : x) : r,       \
      (x < r || x != x) ? x : r)                                                                   \
    X(NONZERO_SUM, 0, 0, r + (x != 0), r + x)                                                      \
    X(POWER_SUM, 0, 0, r + pow((double)(x < 0 ? -x : x), (double)y), r + x)                        \
    X(DEVIATION_SUM, 0, 0, r + (x - y) * (x - y), r + x)

typedef enum fold_kind {
#define X(kind, ...) FOLD_##kind,
    FOLDS(X)
#undef X
        FOLD_COUNT
} fold_kind_t;

#define FOLD(kind, class, T, A, field, expression)                                                 \
    static void fold_##kind##_##class(int64_t n, acc_t * acc, const void *source,                  \
                                      const acc_t *aux)                                            \
    {                                                                                              \
        const T *row = source;                                                                     \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            A r = acc[i].field, x = (A)row[i], y = aux[i].field;                                   \
            (void)y;                                                                               \
            acc[i].field = (A)(expression);                                                        \
        }                                                                                          \
    }
#define X(kind, reals, integers, expression, join)                                                 \
    FOLD(kind, F32, float, double, real, expression)                                               \
    FOLD(kind, F64, double, double, real, expression)                                              \
    FOLD(kind, I64, int64_t, int64_t, integer, expression)                                         \
    FOLD(kind, B8, uint8_t, int64_t, integer, expression)                                          \
    FOLD(kind##_JOIN, F64, double, double, real, join)                                             \
    FOLD(kind##_JOIN, I64, int64_t, int64_t, integer, join)
FOLDS(X)
#undef X

static const struct {
    double real;
    int64_t integer;
    fold_fn_t fold[DJ_CLASSES], join[2]; /* of reals, of integers */
} folds[] = {
#define X(kind, reals, integers, ...)                                                              \
    {reals,                                                                                        \
     integers,                                                                                     \
     {fold_##kind##_F32, fold_##kind##_F64, fold_##kind##_I64, fold_##kind##_B8},                  \
     {fold_##kind##_JOIN_F64, fold_##kind##_JOIN_I64}},
    FOLDS(X)
#undef X
};

typedef struct reduce {
    dj_loop_t kept;    /* input, output */
    dj_loop_t reduced; /* input */
    uint16_t op;
    fold_kind_t kind;
    dj_class_t class;
    bool columns, dense, integers; /* dense: the row needs no load */
    dj_host_load_fn_t load;
    dj_host_store_fn_t store;
    dj_node_scalar_t scalar; /* the norm's order, the variance's correction */
} reduce_t;

/* --- run --- */

static void acc_fill(acc_t *acc, int64_t n, const reduce_t *r, fold_kind_t kind)
{
    acc_t first = {.real = folds[kind].real};
    if (r->integers)
        first.integer = folds[kind].integer;
    for (int64_t i = 0; i < n; i++)
        acc[i] = first;
}

/* One output from all its elements; `aux` holds LANES equal values. */
static acc_t fold_rows(const reduce_t *r, char *base, fold_kind_t kind, const acc_t *aux)
{
    acc_t acc[LANES];
    uint64_t tile[TILE];
    void *bases[1] = {base};
    dj_walk_t walk;
    uint32_t inner = r->reduced.rank - 1;
    int64_t item = dj_dtype_bytes(dj_class_dtype(r->class));
    fold_fn_t fold = folds[kind].fold[r->class];
    acc_fill(acc, LANES, r, kind);
    if (r->reduced.count)
        dj_walk_seek(&r->reduced, &walk, bases, 0);
    for (int64_t done = 0; done < r->reduced.count;) {
        int64_t n = dj_walk_row(&r->reduced, &walk);
        const char *x = walk.at[0];
        if (!r->dense) {
            n = dj_host_min(n, TILE);
            r->load(n, x, r->reduced.strides[0][inner], tile);
            x = (const char *)tile;
        }
        for (int64_t i = 0; i < n; i += LANES)
            fold(dj_host_min(n - i, LANES), acc, x + i * item, aux);
        done += n;
        if (done < r->reduced.count)
            dj_walk_advance(&r->reduced, &walk, n);
    }
    for (int64_t width = LANES / 2; width; width /= 2)
        folds[kind].join[r->integers](width, acc, acc + width, aux);
    return acc[0];
}

/* n neighbouring outputs, a position of the reduced dimensions at a time. */
static void fold_columns(const reduce_t *r, char *base, int64_t n, fold_kind_t kind, acc_t *acc,
                         const acc_t *aux)
{
    uint64_t tile[TILE];
    void *bases[1] = {base};
    dj_walk_t walk;
    int64_t stride = r->kept.strides[0][r->kept.rank - 1];
    fold_fn_t fold = folds[kind].fold[r->class];
    acc_fill(acc, n, r, kind);
    if (r->reduced.count)
        dj_walk_seek(&r->reduced, &walk, bases, 0);
    for (int64_t done = 0; done < r->reduced.count; done++) {
        const void *x = walk.at[0];
        if (!r->dense) {
            r->load(n, x, stride, tile);
            x = tile;
        }
        fold(n, acc, x, aux);
        if (done + 1 < r->reduced.count)
            dj_walk_advance(&r->reduced, &walk, 1);
    }
}

static fold_kind_t norm_kind(double order)
{
    if (order == 2)
        return FOLD_SQUARE_SUM;
    if (order == 1)
        return FOLD_ABS_SUM;
    if (order == 0)
        return FOLD_NONZERO_SUM;
    if (order == INFINITY)
        return FOLD_ABS_MAX;
    return order == -INFINITY ? FOLD_ABS_MIN : FOLD_POWER_SUM;
}

static void finish(const reduce_t *r, int64_t n, acc_t *acc, double scalar)
{
    double count = (double)r->reduced.count;
    for (int64_t i = 0; i < n; i++) {
        if (r->op == DJ_OP_MEAN)
            acc[i].real /= count;
        else if (r->op == DJ_OP_VAR)
            acc[i].real /= count > scalar ? count - scalar : 0;
        else if (r->op == DJ_OP_VECTOR_NORM && scalar == 2)
            acc[i].real = sqrt(acc[i].real);
        else if (r->op == DJ_OP_VECTOR_NORM && norm_kind(scalar) == FOLD_POWER_SUM)
            acc[i].real = pow(acc[i].real, 1 / scalar);
    }
}

/* Up to n outputs at once; returns in acc. */
static void run_outputs(const reduce_t *r, char *base, int64_t n, double scalar, acc_t *acc)
{
    acc_t aux[TILE];
    fold_kind_t kind = r->op == DJ_OP_VECTOR_NORM ? norm_kind(scalar) : r->kind;
    int64_t n_aux = r->columns ? n : LANES;
    for (int64_t i = 0; i < n_aux; i++)
        aux[i] = (acc_t){.real = r->integers ? 0 : scalar};
    if (r->op == DJ_OP_VAR) {
        if (r->columns)
            fold_columns(r, base, n, FOLD_SUM, acc, aux);
        else
            acc[0] = fold_rows(r, base, FOLD_SUM, aux);
        for (int64_t i = 0; i < n_aux; i++)
            aux[i].real = acc[r->columns ? i : 0].real / (double)r->reduced.count;
    }
    if (r->columns)
        fold_columns(r, base, n, kind, acc, aux);
    else
        acc[0] = fold_rows(r, base, kind, aux);
    finish(r, n, acc, scalar);
}

static void run_range(const reduce_t *r, void *const *bases, double scalar, int64_t first,
                      int64_t end)
{
    acc_t acc[TILE];
    dj_walk_t walk;
    int64_t stride = r->kept.strides[1][r->kept.rank - 1];
    dj_walk_seek(&r->kept, &walk, bases, first);
    while (first < end) {
        int64_t n = dj_host_min(dj_walk_row(&r->kept, &walk), dj_host_min(end - first, TILE));
        n = r->columns ? n : 1;
        run_outputs(r, walk.at[0], n, scalar, acc);
        r->store(n, acc, walk.at[1], stride);
        first += n;
        if (first < end)
            dj_walk_advance(&r->kept, &walk, n);
    }
}

static void run_reduce(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const reduce_t *r = kernel->state;
    void *bases[2] = {run->operands[0], run->outs[0]};
    double scalar = r->op == DJ_OP_VAR ? 1 : 0;
    if (r->scalar.slot != DJ_SLOT_NONE)
        scalar = dj_host_scalar_real(run, r->scalar);
    if (r->kept.count == 0)
        return;
    uint32_t threads = dj_host_threads(run, r->kept.count * r->reduced.count);
    if (threads == 1 || r->kept.count == 1) {
        run_range(r, bases, scalar, 0, r->kept.count);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t first, end;
        dj_host_share(r->kept.count, r->columns ? 16 : 1, &first, &end);
        if (first < end)
            run_range(r, bases, scalar, first, end);
    }
}

/* --- prepare --- */

static void view_push(dj_view_t *view, int64_t size, int64_t stride)
{
    view->sizes[view->rank] = size;
    view->strides[view->rank++] = stride;
}

static dj_status_t loops_make(reduce_t *r, const dj_view_t *in, const dj_view_t *out,
                              const bool *marked)
{
    dj_view_t kept_in = {.dtype = in->dtype}, reduced = {.dtype = in->dtype}, kept_out;
    for (uint32_t d = 0; d < in->rank; d++)
        view_push(marked[d] ? &reduced : &kept_in, in->sizes[d], in->strides[d]);
    const dj_view_t *kept[2] = {&kept_in, &kept_out}, *only[1] = {&reduced};
    dj_status_t status = dj_node_kept_dims(in, out, marked, &kept_out);
    if (status == DJ_OK)
        status = dj_loop_make(&r->kept, kept, 2);
    return status == DJ_OK ? dj_loop_make(&r->reduced, only, 1) : status;
}

static void way_choose(reduce_t *r, uint8_t dtype)
{
    int64_t along = r->reduced.strides[0][r->reduced.rank - 1];
    int64_t across = r->kept.strides[0][r->kept.rank - 1];
    r->columns = r->kept.count > 1 && r->kept.sizes[r->kept.rank - 1] > 1 &&
                 (r->reduced.count == 1 || across < along);
    int64_t stride = r->columns ? across : along;
    r->dense = dtype == dj_class_dtype(r->class) && stride == (int64_t)dj_dtype_bytes(dtype);
}

dj_status_t dj_host_reduce_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    const dj_view_t *in = &dj_node_operand(node, 0)->view, *out = &node->outs[0].view;
    reduce_t *r = dj_host_arena(exe, sizeof(*r));
    if (!r)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    static const uint8_t kinds[DJ_OP_COUNT] = {
        [DJ_OP_SUM] = FOLD_SUM,  [DJ_OP_MEAN] = FOLD_SUM,          [DJ_OP_PROD] = FOLD_PROD,
        [DJ_OP_AMAX] = FOLD_MAX, [DJ_OP_AMIN] = FOLD_MIN,          [DJ_OP_ANY] = FOLD_ANY,
        [DJ_OP_ALL] = FOLD_ALL,  [DJ_OP_VAR] = FOLD_DEVIATION_SUM,
    };
    uint16_t op = r->op = node->call.op;
    r->kind = kinds[op];
    r->scalar.slot = DJ_SLOT_NONE;
    if (op == DJ_OP_VECTOR_NORM)
        r->scalar = dj_node_scalar(node, 1);
    if (op == DJ_OP_VAR)
        r->scalar = dj_node_scalar(node, 2);
    bool by_input = op == DJ_OP_AMAX || op == DJ_OP_AMIN;
    r->class = dj_class_of(by_input ? in->dtype : out->dtype);
    if (op == DJ_OP_ANY || op == DJ_OP_ALL)
        r->class = DJ_CLASS_B8;
    else if (r->class == DJ_CLASS_B8 && !by_input)
        r->class = DJ_CLASS_I64;
    r->integers = r->class == DJ_CLASS_I64 || r->class == DJ_CLASS_B8;
    bool marked[DJ_RANK_MAX] = {false};
    dj_node_mark_dims(node, op == DJ_OP_VECTOR_NORM ? 2 : 1, in->rank, marked);
    dj_status_t status = loops_make(r, in, out, marked);
    if (status != DJ_OK)
        return status;
    way_choose(r, in->dtype);
    r->load = dj_host_load_of(in->dtype, r->class);
    r->store = dj_host_store_of(r->integers ? DJ_CLASS_I64 : DJ_CLASS_F64, out->dtype);
    kernel->state = r;
    kernel->run = run_reduce;
    kernel->threaded = dj_view_count(in) >= DJ_HOST_FORK_ELEMENTS;
    return DJ_OK;
}
