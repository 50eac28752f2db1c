/* norm.c - layer_norm, softmax and log_softmax: a row at a time, the row in cache.
 *
 * A row is a dense run of floats: the input's own where it lies so, else gathered into the
 * workspace (one row a thread), which is also how a softmax along another dimension than the last
 * works. Sums are kept in LANES partial sums, which is pairwise in effect. */
#include "gpu/host/convert.h"
#include "gpu/host/prepare.h"
#include "gpu/host/vector.h"

#define LANES 32

static float lanes_sum(float *lane)
{
    for (int64_t width = LANES / 2; width; width /= 2)
        for (int64_t j = 0; j < width; j++)
            lane[j] += lane[j + width];
    return lane[0];
}

static float row_sum(const float *x, int64_t n)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t j = 0; j < LANES; j++)
            lane[j] += x[i + j];
    for (int64_t j = 0; i < n; i++, j++)
        lane[j] += x[i];
    return lanes_sum(lane);
}

static float row_deviation(const float *x, int64_t n, float mean)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t j = 0; j < LANES; j++)
            lane[j] += (x[i + j] - mean) * (x[i + j] - mean);
    for (int64_t j = 0; i < n; i++, j++)
        lane[j] += (x[i] - mean) * (x[i] - mean);
    return lanes_sum(lane);
}

/* The largest; a NaN wins. */
static float row_max(const float *x, int64_t n)
{
    float lane[LANES];
    for (int64_t j = 0; j < LANES; j++)
        lane[j] = x[0];
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t j = 0; j < LANES; j++)
            lane[j] = (x[i + j] > lane[j] || x[i + j] != x[i + j]) ? x[i + j] : lane[j];
    for (; i < n; i++)
        lane[0] = (x[i] > lane[0] || x[i] != x[i]) ? x[i] : lane[0];
    float max = lane[0];
    for (int64_t j = 1; j < LANES; j++)
        max = (lane[j] > max || lane[j] != lane[j]) ? lane[j] : max;
    return max;
}

/* y = exp(x - max); returns the sum. y may be x. */
static float row_exp(const float *x, int64_t n, float max, float *y)
{
    dj_vector_t sums[2] = {{0}, {0}};
    int64_t i = 0;
    for (; i + 2 * DJ_LANES <= n; i += 2 * DJ_LANES)
        for (int64_t j = 0; j < 2; j++) {
            dj_vector_t e = dj_vector_exp(*(const dj_vector_t *)(x + i + j * DJ_LANES) - max);
            *(dj_vector_t *)(y + i + j * DJ_LANES) = e;
            sums[j] += e;
        }
    float sum = dj_vector_sum(sums[0] + sums[1]);
    while (i < n) {
        float rest[DJ_LANES] = {0};
        int64_t part = dj_host_min(n - i, DJ_LANES);
        memcpy(rest, x + i, (size_t)part * sizeof(float));
        dj_vector_t e = dj_vector_exp(*(dj_vector_t *)rest - max);
        memcpy(y + i, &e, (size_t)part * sizeof(float));
        for (int64_t j = 0; j < part; j++)
            sum += e[j];
        i += part;
    }
    return sum;
}

static void row_softmax(const float *x, int64_t n, float *y)
{
    float scale = 1 / row_exp(x, n, row_max(x, n), y);
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] *= scale;
}

/* `y` holds the exponentials before it holds the result; it must not be x. */
static void row_log_softmax(const float *x, int64_t n, float *y)
{
    float max = row_max(x, n);
    float shift = logf(row_exp(x, n, max, y));
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] - max - shift;
}

/* --- softmax --- */

typedef struct softmax {
    dj_loop_t rows;                      /* input, output: the first element of each row */
    int64_t size, in_stride, out_stride; /* of the row; strides in bytes */
    bool in_dense, out_dense, is_log;
    dj_host_load_fn_t load;
    dj_host_store_fn_t store;
    uint64_t thread_bytes;
} softmax_t;

static void softmax_range(const softmax_t *s, void *const *bases, float *scratch, int64_t first,
                          int64_t end)
{
    dj_walk_t walk;
    float *gathered = scratch, *made = scratch + (s->size + 15) / 16 * 16;
    dj_walk_seek(&s->rows, &walk, bases, first);
    for (; first < end; first++) {
        const float *x = (const float *)walk.at[0];
        /* The logarithm reads x after it wrote y: never in place. */
        bool direct = s->out_dense && !(s->is_log && walk.at[0] == walk.at[1]);
        float *y = direct ? (float *)walk.at[1] : made;
        if (!s->in_dense) {
            s->load(s->size, x, s->in_stride, gathered);
            x = gathered;
        }
        if (s->is_log)
            row_log_softmax(x, s->size, y);
        else
            row_softmax(x, s->size, y);
        if (!direct)
            s->store(s->size, y, walk.at[1], s->out_stride);
        if (first + 1 < end)
            dj_walk_advance(&s->rows, &walk, 1);
    }
}

static void run_softmax(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const softmax_t *s = kernel->state;
    void *bases[2] = {run->operands[0], run->outs[0]};
    if (s->size == 0 || s->rows.count == 0)
        return;
    uint32_t threads = dj_host_threads(run, s->rows.count * s->size);
    if (threads == 1 || s->rows.count == 1) {
        softmax_range(s, bases, run->workspace, 0, s->rows.count);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t first, end;
        char *scratch = (char *)run->workspace + (uint64_t)omp_get_thread_num() * s->thread_bytes;
        dj_host_share(s->rows.count, 1, &first, &end);
        if (first < end)
            softmax_range(s, bases, (float *)scratch, first, end);
    }
}

static void dim_remove(dj_view_t *view, uint32_t dim)
{
    for (uint32_t d = dim; d + 1 < view->rank; d++) {
        view->sizes[d] = view->sizes[d + 1];
        view->strides[d] = view->strides[d + 1];
    }
    view->rank -= view->rank > 0;
}

dj_status_t dj_host_softmax_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    dj_view_t in = dj_node_operand(node, 0)->view, out = node->outs[0].view;
    softmax_t *s = dj_host_arena(exe, sizeof(*s));
    if (!s)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    if (in.dtype == DJ_F64 || out.dtype == DJ_F64)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s of float64 has no host kernel",
                       dj_op_info(node->call.op)->name);
    uint32_t dim = dj_node_dim(node->call.args[1].integer, in.rank);
    s->size = in.rank ? in.sizes[dim] : 1;
    s->in_stride = in.rank ? in.strides[dim] * (int64_t)dj_dtype_bytes(in.dtype) : 4;
    s->out_stride = out.rank ? out.strides[dim] * (int64_t)dj_dtype_bytes(out.dtype) : 4;
    s->in_dense = in.dtype == DJ_F32 && (s->in_stride == 4 || s->size == 1);
    s->out_dense = out.dtype == DJ_F32 && (s->out_stride == 4 || s->size == 1);
    s->is_log = node->call.op == DJ_OP_LOG_SOFTMAX;
    s->load = dj_host_load_of(in.dtype, DJ_CLASS_F32);
    s->store = dj_host_store_of(DJ_CLASS_F32, out.dtype);
    int64_t count = dj_view_count(&out);
    dim_remove(&in, dim);
    dim_remove(&out, dim);
    const dj_view_t *views[2] = {&in, &out};
    s->thread_bytes = (uint64_t)(s->size + 15) / 16 * 16 * 2 * sizeof(float);
    kernel->workspace_bytes = s->thread_bytes * dj_host_device_threads(exe);
    kernel->state = s;
    kernel->run = run_softmax;
    kernel->in_place = true;
    kernel->threaded = count >= DJ_HOST_FORK_ELEMENTS;
    return dj_loop_make(&s->rows, views, 2);
}

/* --- layer norm: input, normalised shape, weight, bias, eps → output, mean, 1 / deviation --- */

typedef struct layer_norm {
    int64_t rows, size;
    const dj_view_t *in, *out;       /* in the node */
    uint32_t n_dims;                 /* normalised ones */
    bool in_dense, out_dense, plain; /* plain: row i begins at i * size in both */
    uint32_t weight, bias;           /* places; DJ_SLOT_NONE when absent */
    dj_node_scalar_t eps;
    uint64_t thread_bytes;
} layer_norm_t;

/* Moves a row's strided block of the view to or from a dense row, the last dimension at a time. */
static void block_move(const dj_view_t *view, uint32_t n_dims, char *at, float *dense, bool in)
{
    uint32_t lead = view->rank - n_dims;
    int64_t item = dj_dtype_bytes(view->dtype);
    int64_t n = view->sizes[view->rank - 1], stride = view->strides[view->rank - 1] * item;
    int64_t blocks = 1;
    for (uint32_t d = lead; d + 1 < view->rank; d++)
        blocks *= view->sizes[d];
    for (int64_t b = 0; b < blocks; b++) {
        int64_t rest = b, offset = 0;
        for (uint32_t d = view->rank - 1; d-- > lead;) {
            offset += rest % view->sizes[d] * view->strides[d] * item;
            rest /= view->sizes[d];
        }
        if (in)
            dj_host_load_of(view->dtype, DJ_CLASS_F32)(n, at + offset, stride, dense + b * n);
        else
            dj_host_store_of(DJ_CLASS_F32, view->dtype)(n, dense + b * n, at + offset, stride);
    }
}

static char *row_at(const dj_view_t *view, uint32_t n_dims, char *base, int64_t row)
{
    int64_t offset = 0;
    for (uint32_t d = view->rank - n_dims; d-- > 0;) {
        offset += row % view->sizes[d] * view->strides[d];
        row /= view->sizes[d];
    }
    return base + offset * (int64_t)dj_dtype_bytes(view->dtype);
}

static void row_normalise(const float *x, int64_t n, float mean, float rstd, const float *weight,
                          const float *bias, float *y)
{
    if (weight && bias) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * rstd;
    for (int64_t i = 0; weight && i < n; i++)
        y[i] *= weight[i];
    for (int64_t i = 0; bias && i < n; i++)
        y[i] += bias[i];
}

static void layer_norm_range(const layer_norm_t *l, const dj_host_run_t *run, float *scratch,
                             const float *weight, const float *bias, int64_t first, int64_t end)
{
    float *made = scratch + (l->size + 15) / 16 * 16;
    float eps = (float)dj_host_scalar_real(run, l->eps);
    char *in = run->operands[0], *out = run->outs[0];
    float *means = run->outs[1], *rstds = run->outs[2];
    for (int64_t row = first; row < end; row++) {
        char *from = l->plain ? in + row * l->size * 4 : row_at(l->in, l->n_dims, in, row);
        char *to = l->plain ? out + row * l->size * 4 : row_at(l->out, l->n_dims, out, row);
        const float *x = l->in_dense ? (const float *)from : scratch;
        float *y = l->out_dense ? (float *)to : made;
        if (!l->in_dense)
            block_move(l->in, l->n_dims, from, scratch, true);
        float mean = row_sum(x, l->size) / (float)l->size;
        float rstd = 1 / sqrtf(row_deviation(x, l->size, mean) / (float)l->size + eps);
        row_normalise(x, l->size, mean, rstd, weight, bias, y);
        if (!l->out_dense)
            block_move(l->out, l->n_dims, to, made, false);
        if (means)
            means[row] = mean;
        if (rstds)
            rstds[row] = rstd;
    }
}

static void run_layer_norm(const dj_host_kernel_t *kernel, const dj_host_run_t *run)
{
    const layer_norm_t *l = kernel->state;
    const float *weight = l->weight == DJ_SLOT_NONE ? NULL : run->operands[l->weight];
    const float *bias = l->bias == DJ_SLOT_NONE ? NULL : run->operands[l->bias];
    uint32_t threads = dj_host_threads(run, l->rows * l->size);
    if (threads == 1) {
        layer_norm_range(l, run, run->workspace, weight, bias, 0, l->rows);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t first, end;
        char *scratch = (char *)run->workspace + (uint64_t)omp_get_thread_num() * l->thread_bytes;
        dj_host_share(l->rows, 1, &first, &end);
        layer_norm_range(l, run, (float *)scratch, weight, bias, first, end);
    }
}

/* The normalised dimensions lie dense and the rows before them in any order. */
static bool block_is_dense(const dj_view_t *view, uint32_t n_dims)
{
    int64_t expected = 1;
    for (uint32_t d = view->rank; d-- > view->rank - n_dims;) {
        if (view->sizes[d] != 1 && view->strides[d] != expected)
            return false;
        expected *= view->sizes[d];
    }
    return view->dtype == DJ_F32;
}

static dj_status_t parameter_take(const dj_node_t *node, uint32_t arg, uint32_t *place_p)
{
    const dj_operand_t *operand = dj_node_operand(node, arg);
    *place_p = operand ? dj_node_operand_index(&node->call, arg) : DJ_SLOT_NONE;
    if (operand && (operand->view.dtype != DJ_F32 || !dj_view_is_contiguous(&operand->view)))
        return dj_fail(DJ_ERR_UNSUPPORTED, "layer_norm: weight and bias must be dense float32");
    return DJ_OK;
}

dj_status_t dj_host_layer_norm_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    layer_norm_t *l = dj_host_arena(exe, sizeof(*l));
    if (!l)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    l->in = &dj_node_operand(node, 0)->view;
    l->out = &node->outs[0].view;
    l->n_dims = node->call.args[1].count;
    dj_status_t status = parameter_take(node, 2, &l->weight);
    if (status == DJ_OK)
        status = parameter_take(node, 3, &l->bias);
    if (status != DJ_OK)
        return status;
    bool statistics = l->in->dtype != DJ_F64 && l->n_dims > 0 && l->n_dims <= l->in->rank;
    for (uint32_t i = 1; i < 3; i++)
        statistics &=
            node->outs[i].view.dtype == DJ_F32 && dj_view_is_contiguous(&node->outs[i].view);
    if (!statistics)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "layer_norm: only float32 statistics have a host kernel");
    int64_t count = dj_view_count(l->in);
    l->size = 1;
    for (uint32_t d = l->in->rank - l->n_dims; d < l->in->rank; d++)
        l->size *= l->in->sizes[d];
    l->rows = l->size ? count / l->size : 0;
    l->eps = dj_node_scalar(node, 4);
    l->in_dense = block_is_dense(l->in, l->n_dims);
    l->out_dense = block_is_dense(l->out, l->n_dims);
    l->plain = l->in_dense && l->out_dense && dj_view_is_contiguous(l->in) &&
               dj_view_is_contiguous(l->out);
    l->thread_bytes = l->plain ? 0 : (uint64_t)(l->size + 15) / 16 * 16 * 2 * sizeof(float);
    kernel->workspace_bytes = l->thread_bytes * dj_host_device_threads(exe);
    kernel->state = l;
    kernel->run = run_layer_norm;
    kernel->in_place = true;
    kernel->threaded = count >= DJ_HOST_FORK_ELEMENTS;
    return DJ_OK;
}
