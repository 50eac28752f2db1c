/* reference_layout.h - the reference of ops that are not arithmetic on elements: products,
 * attention, norms, indexing, layout (see reference.h). */
#ifndef DJ_TESTS_GPU_REFERENCE_LAYOUT_H
#define DJ_TESTS_GPU_REFERENCE_LAYOUT_H

#include "tests/gpu/reference.h"
#include "tests/gpu/reference_window.h"

/* --- products, attention, norms --- */

/* out = beta * addend + alpha * a * b; b's last two dimensions exchanged when transposed. */
static inline void ref_product(ref_t *out, const ref_t *a, const ref_t *b, bool transposed,
                               const ref_t *addend, double beta, double alpha)
{
    int64_t k = a->view.sizes[a->view.rank - 1], n = out->view.sizes[out->view.rank - 1];
    int64_t rows = b->view.rank == 3 ? out->view.sizes[1] : out->count / (n ? n : 1);
    for (int64_t i = 0; i < out->count; i++) {
        int64_t at[DJ_RANK_MAX], row = i / n, column = i % n;
        const double *matrix = b->real + (b->view.rank == 3 ? row / rows * k * n : 0);
        double sum = 0;
        for (int64_t j = 0; j < k; j++)
            sum += a->real[row * k + j] * matrix[transposed ? column * k + j : j * n + column];
        ref_unravel(out, i, at);
        sum *= alpha;
        if (addend && beta != 0)
            sum += beta * addend->real[ref_broadcast(addend, at, out->view.rank)];
        ref_set(out, i, sum, isfinite(sum) ? (int64_t)sum : 0);
    }
}

/* The weights of the query row at `at` (its last index is not used) over all keys; their sum. */
static inline double ref_weights(const ref_call_t *call, const int64_t *at, double *weight)
{
    ref_t *q = ref_arg(call, 0), *k = ref_arg(call, 1), *mask = ref_arg(call, 3);
    int64_t depth = q->view.sizes[3], keys = k->view.sizes[2];
    double scale = ref_real(call, 6, 1 / sqrt((double)depth)), max = -INFINITY, sum = 0;
    for (int64_t s = 0; s < keys; s++) {
        int64_t row[] = {at[0], at[1], at[2], 0}, seen[] = {at[0], at[1], at[2], s};
        int64_t from[] = {at[0], at[1] / (q->view.sizes[1] / k->view.sizes[1]), s, 0};
        weight[s] = 0;
        for (; row[3] < depth; row[3]++, from[3]++)
            weight[s] += q->real[ref_ravel(q, row)] * k->real[ref_ravel(k, from)] * scale;
        int64_t m = mask ? ref_broadcast(mask, seen, 4) : 0;
        if (mask && mask->view.dtype == DJ_BOOL)
            weight[s] = mask->integer[m] ? weight[s] : -INFINITY;
        else if (mask)
            weight[s] += mask->real[m];
        if (ref_flag(call, 5) && s > at[2])
            weight[s] = -INFINITY;
        max = fmax(max, weight[s]);
    }
    for (int64_t s = 0; s < keys; s++) {
        weight[s] = max == -INFINITY ? 0 : exp(weight[s] - max);
        sum += weight[s];
    }
    return sum;
}

static inline void ref_attention(const ref_call_t *call)
{
    ref_t *q = ref_arg(call, 0), *v = ref_arg(call, 2), *out = call->outs[0];
    int64_t keys = v->view.sizes[2], group = q->view.sizes[1] / v->view.sizes[1];
    double *weight = calloc((size_t)keys + 1, sizeof(*weight)), sum = 0;
    assert_non_null(weight);
    for (int64_t i = 0; i < out->count; i++) {
        int64_t at[DJ_RANK_MAX];
        double result = 0;
        ref_unravel(out, i, at);
        if (at[3] == 0)
            sum = ref_weights(call, at, weight);
        for (int64_t s = 0; s < keys; s++) {
            int64_t from[] = {at[0], at[1] / group, s, at[3]};
            result += weight[s] * v->real[ref_ravel(v, from)];
        }
        ref_set(out, i, sum == 0 ? 0 : result / sum, 0);
    }
    free(weight);
}

static inline void ref_layer_norm(const ref_call_t *call)
{
    ref_t *in = ref_arg(call, 0), *weight = ref_arg(call, 2), *bias = ref_arg(call, 3);
    int64_t size = 1;
    for (uint32_t i = 0; i < call->c->args[1].count; i++)
        size *= call->c->args[1].integers[i];
    for (int64_t row = 0; row < in->count / size; row++) {
        const double *x = in->real + row * size;
        double mean = 0, deviation = 0;
        for (int64_t i = 0; i < size; i++)
            mean += x[i] / (double)size;
        for (int64_t i = 0; i < size; i++)
            deviation += (x[i] - mean) * (x[i] - mean) / (double)size;
        double rstd = 1 / sqrt(deviation + ref_real(call, 4, 0));
        for (int64_t i = 0; i < size; i++)
            ref_set(call->outs[0], row * size + i,
                    (x[i] - mean) * rstd * (weight ? weight->real[i] : 1) +
                        (bias ? bias->real[i] : 0),
                    0);
        ref_set(call->outs[1], row, mean, 0);
        ref_set(call->outs[2], row, rstd, 0);
    }
}

/* input, weight, bias, running mean and variance, momentum, eps */
static inline void ref_batch_norm(const ref_call_t *call)
{
    ref_t *in = ref_arg(call, 0), *weight = ref_arg(call, 1), *bias = ref_arg(call, 2);
    ref_t *mean = ref_arg(call, 3), *variance = ref_arg(call, 4);
    for (int64_t c = 0; c < mean->count; c++) {
        ref_set(call->outs[1], c, mean->real[c], 0);
        ref_set(call->outs[2], c, 1 / sqrt(variance->real[c] + ref_real(call, 6, 0)), 0);
    }
    for (int64_t i = 0; i < in->count; i++) {
        int64_t at[DJ_RANK_MAX];
        ref_unravel(in, i, at);
        double x = (in->real[i] - mean->real[at[1]]) / sqrt(variance->real[at[1]] + ref_real(call, 6, 0));
        ref_set(call->outs[0], i,
                x * (weight ? weight->real[at[1]] : 1) + (bias ? bias->real[at[1]] : 0), 0);
    }
}

static inline void ref_softmax(const ref_call_t *call, bool is_log)
{
    ref_t *in = ref_arg(call, 0), *out = call->outs[0];
    uint32_t dim = ref_dim(call, 1, in->view.rank);
    int64_t count = in->view.rank > 0 ? in->view.sizes[dim] : 1;
    for (int64_t i = 0; i < in->count; i++) {
        int64_t at[DJ_RANK_MAX] = {0};
        double max = -INFINITY, sum = 0;
        ref_unravel(in, i, at);
        if (at[dim] != 0)
            continue; /* its row is done */
        for (int64_t j = 0; j < count; j++) {
            at[dim] = j;
            max = fmax(max, in->real[ref_ravel(in, at)]);
        }
        for (int64_t j = 0; j < count; j++) {
            at[dim] = j;
            sum += exp(in->real[ref_ravel(in, at)] - max);
        }
        for (int64_t j = 0; j < count; j++) {
            at[dim] = j;
            int64_t k = ref_ravel(in, at);
            double x = in->real[k] - max;
            ref_set(out, k, is_log ? x - log(sum) : exp(x) / sum, 0);
        }
    }
}

/* --- indexing --- */

static inline void ref_gather(const ref_call_t *call)
{
    ref_t *in = ref_arg(call, 0), *index = ref_arg(call, 2), *out = call->outs[0];
    uint32_t dim = ref_dim(call, 1, in->view.rank);
    for (int64_t i = 0; i < out->count; i++) {
        int64_t at[DJ_RANK_MAX];
        ref_unravel(out, i, at);
        at[dim] = index->integer[i];
        ref_copy(out, i, in, ref_ravel(in, at));
    }
}

static inline void ref_scatter(const ref_call_t *call)
{
    ref_t *in = ref_arg(call, 0), *index = ref_arg(call, 2), *out = call->outs[0];
    ref_t *source = ref_arg(call, 3);
    uint32_t dim = ref_dim(call, 1, in->view.rank);
    for (int64_t i = 0; i < out->count; i++)
        ref_copy(out, i, in, i);
    for (int64_t i = 0; i < index->count; i++) {
        int64_t at[DJ_RANK_MAX];
        ref_unravel(index, i, at);
        int64_t from = source ? ref_ravel(source, at) : 0;
        at[dim] = index->integer[i];
        if (source)
            ref_copy(out, ref_ravel(out, at), source, from);
        else
            ref_set(out, ref_ravel(out, at), ref_real(call, 3, 0), (int64_t)ref_real(call, 3, 0));
    }
}

/* Where element `at` of self[indices...] lies in self. `indices[d]`: NULL where dimension d is
 * whole. */
static inline int64_t ref_indexed(const ref_t *self, ref_t *const *indices, const int64_t *at)
{
    uint32_t first = DJ_RANK_MAX, last = 0, n = 0, common = 0, next = 0;
    int64_t place[DJ_RANK_MAX];
    for (uint32_t d = 0; d < self->view.rank; d++)
        if (indices[d]) {
            first = n++ ? first : d;
            last = d;
            common = indices[d]->view.rank > common ? indices[d]->view.rank : common;
        }
    uint32_t begin = last - first + 1 == n ? first : 0;
    for (uint32_t d = 0; d < self->view.rank; d++) {
        if (next == begin)
            next += common;
        if (!indices[d]) {
            place[d] = at[next++];
            continue;
        }
        const int64_t *position = at + begin;
        int64_t value = indices[d]->integer[ref_broadcast(indices[d], position, common)];
        place[d] = value < 0 ? value + self->view.sizes[d] : value;
    }
    return ref_ravel(self, place);
}

/* embedding, index_select and index_copy are one index tensor; index and index_put a list. */
static inline void ref_indices(const ref_call_t *call, ref_t **indices)
{
    uint16_t op = call->c->op;
    ref_t *self = ref_arg(call, 0);
    memset(indices, 0, DJ_RANK_MAX * sizeof(*indices));
    if (op == DJ_OP_EMBEDDING) {
        indices[0] = ref_arg(call, 1);
    } else if (op == DJ_OP_INDEX_SELECT || op == DJ_OP_INDEX_COPY) {
        indices[ref_dim(call, 1, self->view.rank)] = ref_arg(call, 2);
    } else {
        const dj_arg_t *list = &call->c->args[1];
        for (uint32_t i = 0; i < list->count; i++)
            indices[i] = call->operands[list->operands + i - call->c->operands];
    }
}

static inline void ref_index(const ref_call_t *call)
{
    ref_t *self = ref_arg(call, 0), *out = call->outs[0], *indices[DJ_RANK_MAX];
    ref_indices(call, indices);
    for (int64_t i = 0; i < out->count; i++) {
        int64_t at[DJ_RANK_MAX];
        ref_unravel(out, i, at);
        ref_copy(out, i, self, ref_indexed(self, indices, at));
    }
}

/* outs[0] is self after the write; `shape`: of self[indices]. */
static inline void ref_index_put(const ref_call_t *call, const dj_view_t *shape)
{
    bool copies = call->c->op == DJ_OP_INDEX_COPY;
    ref_t *self = ref_arg(call, 0), *out = call->outs[0], *indices[DJ_RANK_MAX];
    ref_t *values = ref_arg(call, copies ? 3 : 2), target = {.view = *shape};
    bool accumulate = !copies && ref_flag(call, 3);
    ref_indices(call, indices);
    for (int64_t i = 0; i < out->count; i++)
        ref_copy(out, i, self, i);
    for (int64_t i = 0; i < dj_view_count(shape); i++) {
        int64_t at[DJ_RANK_MAX];
        ref_unravel(&target, i, at);
        int64_t to = ref_indexed(self, indices, at), from = ref_broadcast(values, at, shape->rank);
        if (accumulate)
            ref_set(out, to, out->real[to] + values->real[from],
                    out->integer[to] + values->integer[from]);
        else
            ref_copy(out, to, values, from);
    }
}

static inline void ref_isin(const ref_call_t *call)
{
    ref_t *elements = ref_arg(call, 0), *tests = ref_arg(call, 1);
    for (int64_t i = 0; i < elements->count; i++) {
        bool found = false;
        for (int64_t j = 0; j < tests->count; j++)
            found |= elements->real[i] == tests->real[j];
        ref_set(call->outs[0], i, 0, found != ref_flag(call, 3));
    }
}

/* --- layout and creation --- */

static inline void ref_cat(const ref_call_t *call)
{
    const dj_arg_t *list = &call->c->args[0];
    ref_t *out = call->outs[0];
    uint32_t dim = ref_dim(call, 1, out->view.rank);
    int64_t begin = 0;
    for (uint32_t piece = 0; piece < list->count; piece++) {
        ref_t *in = call->operands[list->operands + piece - call->c->operands];
        if (in->count == 0)
            continue;
        for (int64_t i = 0; i < in->count; i++) {
            int64_t at[DJ_RANK_MAX];
            ref_unravel(in, i, at);
            at[dim] += begin;
            ref_copy(out, ref_ravel(out, at), in, i);
        }
        begin += in->view.sizes[dim];
    }
}

static inline void ref_moved(const ref_call_t *call)
{
    uint16_t op = call->c->op;
    ref_t *in = ref_arg(call, 0), *out = call->outs[0];
    uint32_t rank = out->view.rank, lead = rank - in->view.rank;
    bool marked[DJ_RANK_MAX] = {false};
    if (op == DJ_OP_FLIP)
        ref_dims(call, 1, rank, marked);
    for (int64_t i = 0; i < out->count; i++) {
        int64_t at[DJ_RANK_MAX], from[DJ_RANK_MAX];
        ref_unravel(out, i, at);
        for (uint32_t d = 0; d < in->view.rank; d++)
            from[d] = marked[d] ? in->view.sizes[d] - 1 - at[d] : at[lead + d] % in->view.sizes[d];
        int64_t edge = op == DJ_OP_TRIL || op == DJ_OP_TRIU ? call->c->args[1].integer : 0;
        int64_t above = rank >= 2 ? at[rank - 1] - at[rank - 2] : 0;
        if ((op == DJ_OP_TRIL && above > edge) || (op == DJ_OP_TRIU && above < edge))
            ref_set(out, i, 0, 0);
        else
            ref_copy(out, i, in, ref_ravel(in, from));
    }
}

static inline void ref_made(const ref_call_t *call)
{
    bool is_arange = call->c->op == DJ_OP_ARANGE;
    double first = ref_real(call, 1, 0), step = is_arange ? ref_real(call, 2, 0) : 0;
    for (int64_t i = 0; i < call->outs[0]->count; i++)
        ref_set(call->outs[0], i, first + (double)i * step, (int64_t)(first + (double)i * step));
}

/* Ops that choose and move elements; false for any other. */
static inline bool ref_moving(const ref_call_t *call, const dj_view_t *indexed_shape)
{
    switch (call->c->op) {
    case DJ_OP_COPY:
    case DJ_OP_TO_COPY:
    case DJ_OP_REPEAT:
    case DJ_OP_FLIP:
    case DJ_OP_TRIL:
    case DJ_OP_TRIU:
        ref_moved(call);
        return true;
    case DJ_OP_EMPTY:
        return true;
    case DJ_OP_FULL:
    case DJ_OP_ARANGE:
        ref_made(call);
        return true;
    case DJ_OP_EMBEDDING:
    case DJ_OP_INDEX_SELECT:
    case DJ_OP_INDEX:
        ref_index(call);
        return true;
    case DJ_OP_INDEX_COPY:
    case DJ_OP_INDEX_PUT:
        ref_index_put(call, indexed_shape);
        return true;
    case DJ_OP_GATHER:
        ref_gather(call);
        return true;
    case DJ_OP_SCATTER:
    case DJ_OP_SCATTER_VALUE:
        ref_scatter(call);
        return true;
    case DJ_OP_CAT:
        ref_cat(call);
        return true;
    case DJ_OP_ISIN:
        ref_isin(call);
        return true;
    default:
        return false;
    }
}

/* Products, attention and norms; false for any other op. */
static inline bool ref_multiplying(const ref_call_t *call)
{
    ref_t *out = call->outs[0], *a = ref_arg(call, 0), *b = ref_arg(call, 1);
    switch (call->c->op) {
    case DJ_OP_MM:
    case DJ_OP_BMM:
        ref_product(out, a, b, false, NULL, 0, 1);
        return true;
    case DJ_OP_ADDMM:
    case DJ_OP_BADDBMM:
        ref_product(out, b, ref_arg(call, 2), false, a, ref_real(call, 3, 1), ref_real(call, 4, 1));
        return true;
    case DJ_OP_LINEAR:
        ref_product(out, a, b, true, ref_arg(call, 2), 1, 1);
        return true;
    case DJ_OP_SDPA:
        ref_attention(call);
        return true;
    case DJ_OP_LAYER_NORM:
        ref_layer_norm(call);
        return true;
    case DJ_OP_BATCH_NORM_EVAL:
        ref_batch_norm(call);
        return true;
    case DJ_OP_SOFTMAX:
    case DJ_OP_LOG_SOFTMAX:
        ref_softmax(call, call->c->op == DJ_OP_LOG_SOFTMAX);
        return true;
    default:
        return false;
    }
}

/* Reductions and scans; false for any other op. */
static inline bool ref_reducing(const ref_call_t *call)
{
    switch (call->c->op) {
    case DJ_OP_SUM:
    case DJ_OP_MEAN:
    case DJ_OP_AMAX:
    case DJ_OP_AMIN:
    case DJ_OP_ANY:
    case DJ_OP_ALL:
    case DJ_OP_PROD:
    case DJ_OP_VECTOR_NORM:
    case DJ_OP_VAR:
        ref_reduce(call);
        return true;
    case DJ_OP_ARGMAX:
    case DJ_OP_ARGMIN:
        ref_best(call, call->c->op == DJ_OP_ARGMIN, false);
        return true;
    case DJ_OP_MAX_DIM:
    case DJ_OP_MIN_DIM:
        ref_best(call, call->c->op == DJ_OP_MIN_DIM, true);
        return true;
    case DJ_OP_CUMSUM:
        ref_cumsum(call);
        return true;
    case DJ_OP_TOPK:
        ref_sort(call, 2, ref_flag(call, 3));
        return true;
    case DJ_OP_SORT:
        ref_sort(call, 1, ref_flag(call, 2));
        return true;
    default:
        return false;
    }
}

/* Fills call->outs; false for an op that the reference does not know. */
static inline bool reference(const ref_call_t *call, const dj_view_t *indexed_shape)
{
    return ref_moving(call, indexed_shape) || ref_multiplying(call) || ref_reducing(call) ||
           ref_windows(call) || ref_pointwise(call);
}

#endif
