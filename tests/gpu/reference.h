/* reference.h - every op again, plainly: one element at a time, in double or int64, with no thought
 * of speed. Written from the meaning of the ops and sharing no code with the kernels.
 *
 * Values are logical: dense, row-major, both as a real and as an integer. */
#ifndef DJ_TESTS_GPU_REFERENCE_H
#define DJ_TESTS_GPU_REFERENCE_H

#include "tests/gpu/op_case.h"

typedef struct ref {
    dj_view_t view; /* dtype, rank and sizes matter */
    int64_t count;
    bool is_real;
    double *real;
    int64_t *integer;
} ref_t;

static inline ref_t *ref_create(const dj_view_t *view)
{
    ref_t *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->view = *view;
    r->count = dj_view_count(view);
    r->is_real = dj_dtype_is_float(view->dtype);
    r->real = calloc((size_t)r->count + 1, sizeof(double));
    r->integer = calloc((size_t)r->count + 1, sizeof(int64_t));
    assert_true(r->real && r->integer);
    return r;
}

static inline void ref_free(ref_t *r)
{
    if (!r)
        return;
    free(r->real);
    free(r->integer);
    free(r);
}

static inline void ref_unravel(const ref_t *r, int64_t i, int64_t *at)
{
    for (uint32_t d = r->view.rank; d-- > 0;) {
        at[d] = i % r->view.sizes[d];
        i /= r->view.sizes[d];
    }
}

static inline int64_t ref_ravel(const ref_t *r, const int64_t *at)
{
    int64_t i = 0;
    for (uint32_t d = 0; d < r->view.rank; d++)
        i = i * r->view.sizes[d] + at[d];
    return i;
}

/* Where the element at `at` of a shape of `rank` is in r, which broadcasts to it. */
static inline int64_t ref_broadcast(const ref_t *r, const int64_t *at, uint32_t rank)
{
    int64_t i = 0;
    for (uint32_t d = 0; d < r->view.rank; d++) {
        int64_t size = r->view.sizes[d];
        i = i * size + (size == 1 ? 0 : at[rank - r->view.rank + d]);
    }
    return i;
}

/* The elements of a window on `data`. */
static inline ref_t *ref_read(const uint8_t *data, const dj_view_t *view)
{
    ref_t *r = ref_create(view);
    for (int64_t i = 0; i < r->count; i++) {
        int64_t at[DJ_RANK_MAX], offset = view->offset;
        ref_unravel(r, i, at);
        for (uint32_t d = 0; d < view->rank; d++)
            offset += at[d] * view->strides[d];
        case_get(view->dtype, data + offset * dj_dtype_bytes(view->dtype), &r->real[i],
                 &r->integer[i]);
    }
    return r;
}

static inline ref_t *ref_scalar(dj_scalar_t scalar)
{
    dj_view_t view = {.dtype = scalar.dtype};
    ref_t *r = ref_create(&view);
    r->real[0] = scalar.dtype == DJ_F64 ? scalar.real : (double)scalar.integer;
    r->integer[0] = scalar.dtype == DJ_F64 ? (int64_t)scalar.real : scalar.integer;
    return r;
}

/* Sets a value as the dtype would hold it. */
static inline void ref_set(ref_t *r, int64_t i, double real, int64_t integer)
{
    uint64_t bytes = 0;
    if (r->view.dtype == DJ_BF16) { /* compared with a tolerance */
        r->real[i] = real;
        return;
    }
    case_put(r->view.dtype, &bytes, real, integer);
    case_get(r->view.dtype, &bytes, &r->real[i], &r->integer[i]);
}

static inline void ref_copy(ref_t *to, int64_t i, const ref_t *from, int64_t j)
{
    bool truth = to->view.dtype == DJ_BOOL;
    int64_t integer = from->is_real ? (int64_t)from->real[j] : from->integer[j];
    ref_set(to, i, from->real[j], truth ? from->real[j] != 0 : integer);
}

/* What an op's case looks like to the reference. */
typedef struct ref_call {
    const op_case_t *c;
    ref_t *operands[CASE_TENSORS_MAX]; /* NULL: none */
    ref_t *outs[DJ_OUTS_MAX];
} ref_call_t;

static inline ref_t *ref_arg(const ref_call_t *call, uint32_t arg)
{
    const dj_arg_t *a = &call->c->args[arg];
    return a->kind == DJ_ARG_TENSORS && a->count ? call->operands[a->operands - call->c->operands]
                                                 : NULL;
}

static inline double ref_real(const ref_call_t *call, uint32_t arg, double absent)
{
    const dj_arg_t *a = &call->c->args[arg];
    if (a->kind != DJ_ARG_SCALAR)
        return absent;
    return a->scalar.dtype == DJ_F64 ? a->scalar.real : (double)a->scalar.integer;
}

static inline bool ref_flag(const ref_call_t *call, uint32_t arg)
{
    return call->c->args[arg].kind == DJ_ARG_INTEGER && call->c->args[arg].integer != 0;
}

static inline uint32_t ref_dim(const ref_call_t *call, uint32_t arg, uint32_t rank)
{
    int64_t dim = call->c->args[arg].integer;
    return (uint32_t)(dim < 0 ? dim + rank : dim);
}

/* --- pointwise --- */

typedef struct ref_values {
    double a, b, c, s0, s1;
} ref_values_t;

static inline double ref_floor_rest(double a, double b)
{
    double rest = fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

static inline double ref_gelu_tanh(double a)
{
    return 0.5 * a * (1 + tanh(sqrt(2 / M_PI) * (a + 0.044715 * a * a * a)));
}

/* Arithmetic is the same in double for every class here: the cases' integers are small. */
static inline bool ref_arithmetic(uint16_t op, const ref_values_t *v, double *result_p)
{
    double a = v->a, b = v->b, s0 = v->s0, s1 = v->s1, nan_b = isnan(b) ? b : a;
    switch (op) {
#define RESULT(id, value)                                                                          \
    case DJ_OP_##id:                                                                               \
        *result_p = (double)(value);                                                               \
        return true;
        RESULT(ADD, a + s0 * b)
        RESULT(SUB, a - s0 * b)
        RESULT(RSUB, s0 - s1 * a)
        RESULT(MUL, a * b)
        RESULT(DIV, a / b)
        RESULT(POW_SCALAR, pow(a, s0))
        RESULT(POW, pow(a, b))
        RESULT(NEG, -a)
        RESULT(ABS, fabs(a))
        RESULT(MAXIMUM, isnan(a) || isnan(b) ? nan_b : fmax(a, b))
        RESULT(MINIMUM, isnan(a) || isnan(b) ? nan_b : fmin(a, b))
        RESULT(CLAMP, isnan(a) ? a : fmin(fmax(a, s0), s1))
        RESULT(CLAMP_MIN, isnan(a) ? a : fmax(a, s0))
        RESULT(CLAMP_MAX, isnan(a) ? a : fmin(a, s0))
        RESULT(REMAINDER_SCALAR, ref_floor_rest(a, s0))
        RESULT(FLOOR_DIVIDE, floor(a / b))
        RESULT(EXP, exp(a))
        RESULT(LOG, log(a))
        RESULT(SQRT, sqrt(a))
        RESULT(RSQRT, 1 / sqrt(a))
        RESULT(RECIPROCAL, 1 / a)
        RESULT(SIN, sin(a))
        RESULT(COS, cos(a))
        RESULT(TANH, tanh(a))
        RESULT(ERF, erf(a))
        RESULT(SIGMOID, 1 / (1 + exp(-a)))
        RESULT(RELU, isnan(a) ? a : fmax(a, 0))
        RESULT(SILU, a / (1 + exp(-a)))
        RESULT(GELU, a * 0.5 * (1 + erf(a * M_SQRT1_2)))
        RESULT(GELU_TANH, ref_gelu_tanh(a))
    default:
        return false;
    }
}

static inline bool ref_logic(uint16_t op, const ref_values_t *v, bool is_bool, double *result_p)
{
    double a = v->a, b = v->b, c = v->c, s0 = v->s0;
    int64_t i = (int64_t)a, j = (int64_t)b;
    switch (op) {
        RESULT(EQ, a == b)
        RESULT(NE, a != b)
        RESULT(LT, a < b)
        RESULT(LE, a <= b)
        RESULT(GT, a > b)
        RESULT(GE, a >= b)
        RESULT(EQ_SCALAR, a == s0)
        RESULT(NE_SCALAR, a != s0)
        RESULT(LT_SCALAR, a < s0)
        RESULT(LE_SCALAR, a <= s0)
        RESULT(GT_SCALAR, a > s0)
        RESULT(GE_SCALAR, a >= s0)
        RESULT(ISNAN, isnan(a))
        RESULT(LOGICAL_NOT, a == 0)
        RESULT(LOGICAL_AND, a != 0 && b != 0)
        RESULT(LOGICAL_OR, a != 0 || b != 0)
        RESULT(BITWISE_NOT, is_bool ? a == 0 : ~i)
        RESULT(BITWISE_AND, i & j)
        RESULT(BITWISE_OR, i | j)
        RESULT(BITWISE_XOR, i ^ j)
        RESULT(WHERE, a != 0 ? b : c)
        RESULT(MASKED_FILL_SCALAR, b != 0 ? s0 : a)
        RESULT(MASKED_FILL, b != 0 ? c : a)
#undef RESULT
    default:
        return false;
    }
}

/* A result is of the op's own dtype before it goes into an output of another. */
static inline double ref_round(uint8_t own, double real)
{
    uint64_t bytes = 0;
    int64_t integer = isfinite(real) ? (int64_t)real : 0;
    if (own == DJ_BF16) /* compared with a tolerance */
        return real;
    case_put(own, &bytes, real, integer);
    case_get(own, &bytes, &real, &integer);
    return real;
}

/* A plain number wraps beside integers that cannot hold it. */
static inline double ref_wrap(uint8_t computes, double number)
{
    return computes >= DJ_U8 && computes < DJ_I64 && isfinite(number) ? ref_round(computes, number) : number;
}

static inline bool ref_pointwise(const ref_call_t *call)
{
    dj_view_t own[DJ_OUTS_MAX];
    dj_call_t inferred = {.op = call->c->op, .n_args = (uint16_t)call->c->n_args, .args = call->c->args};
    assert_int_equal(dj_op_infer(&inferred, own), DJ_OK);
    uint8_t computes = dj_op_compute_dtype(&inferred);
    const dj_op_info_t *info = dj_op_info(call->c->op);
    ref_t *tensors[3] = {NULL}, *out = call->outs[0];
    double scalars[2] = {-INFINITY, INFINITY};
    uint32_t n_tensors = 0, n_scalars = 0;
    for (uint32_t arg = 0; arg < info->n_args; arg++) {
        if (info->signature[arg] == 't')
            tensors[n_tensors++] = ref_arg(call, arg);
        else if (info->signature[arg] != '-' && n_scalars < 2) {
            scalars[n_scalars] = ref_wrap(computes, ref_real(call, arg, scalars[n_scalars]));
            n_scalars++;
        }
    }
    for (int64_t i = 0; i < out->count; i++) {
        int64_t at[DJ_RANK_MAX];
        double x[3] = {0}, result;
        ref_unravel(out, i, at);
        for (uint32_t k = 0; k < n_tensors; k++)
            x[k] = tensors[k]->real[ref_broadcast(tensors[k], at, out->view.rank)];
        ref_values_t v = {x[0], x[1], x[2], scalars[0], scalars[1]};
        if (!ref_arithmetic(call->c->op, &v, &result) &&
            !ref_logic(call->c->op, &v, tensors[0]->view.dtype == DJ_BOOL, &result))
            return false;
        result = ref_round(own->dtype, result);
        ref_set(out, i, result, isfinite(result) ? (int64_t)result : 0);
    }
    return true;
}

/* --- reductions and scans --- */

/* Any and all take an empty list as it is; for all others it means every dimension, as none does. */
static inline void ref_dims(const ref_call_t *call, uint32_t arg, uint32_t rank, bool *marked)
{
    const dj_arg_t *a = &call->c->args[arg];
    bool literal = call->c->op == DJ_OP_ANY || call->c->op == DJ_OP_ALL || call->c->op == DJ_OP_FLIP;
    bool all = a->kind == DJ_ARG_NONE || (a->kind == DJ_ARG_INTEGERS && a->count == 0 && !literal);
    for (uint32_t d = 0; d < rank; d++)
        marked[d] = all;
    if (a->kind == DJ_ARG_INTEGER)
        marked[ref_dim(call, arg, rank)] = true;
    for (uint32_t i = 0; a->kind == DJ_ARG_INTEGERS && i < a->count; i++)
        marked[a->integers[i] < 0 ? a->integers[i] + rank : a->integers[i]] = true;
}

/* The output that element `at` of the input belongs to. */
static inline int64_t ref_reduced(const ref_t *in, const ref_t *out, const bool *marked,
                                  const int64_t *at)
{
    int64_t kept[DJ_RANK_MAX];
    uint32_t rank = 0;
    for (uint32_t d = 0; d < in->view.rank; d++) {
        if (!marked[d])
            kept[rank++] = at[d];
        else if (out->view.rank == in->view.rank)
            kept[rank++] = 0;
    }
    return ref_ravel(out, kept);
}

typedef struct ref_sums {
    double sum, squares, product, max, min, abs_max, abs_min, powers;
    int64_t count, nonzero;
    bool has_nan;
} ref_sums_t;

static inline void ref_sums_add(ref_sums_t *s, double x, double order)
{
    s->max = s->count && !(x > s->max) ? s->max : x;
    s->min = s->count && !(x < s->min) ? s->min : x;
    s->product = s->count ? s->product * x : x;
    s->abs_max = fmax(s->abs_max, fabs(x));
    s->abs_min = s->count ? fmin(s->abs_min, fabs(x)) : fabs(x);
    s->sum += x;
    s->squares += x * x;
    s->powers += isfinite(order) ? pow(fabs(x), order) : 0;
    s->nonzero += x != 0;
    s->has_nan |= isnan(x);
    s->count++;
}

static inline double ref_reduce_one(uint16_t op, const ref_sums_t *s, double scalar)
{
    double mean = s->sum / (double)s->count;
    double deviation = s->squares - mean * s->sum;
    switch (op) {
    case DJ_OP_SUM:
        return s->sum;
    case DJ_OP_MEAN:
        return mean;
    case DJ_OP_AMAX:
        return s->has_nan ? NAN : s->max;
    case DJ_OP_AMIN:
        return s->has_nan ? NAN : s->min;
    case DJ_OP_ANY:
        return s->nonzero > 0;
    case DJ_OP_ALL:
        return s->nonzero == s->count;
    case DJ_OP_PROD:
        return s->product;
    case DJ_OP_VAR:
        return deviation / ((double)s->count - scalar);
    default:
        if (isinf(scalar))
            return s->has_nan ? NAN : scalar > 0 ? s->abs_max : s->abs_min;
        return scalar == 0 ? (double)s->nonzero : pow(s->powers, 1 / scalar);
    }
}

static inline void ref_reduce(const ref_call_t *call)
{
    uint16_t op = call->c->op;
    ref_t *in = ref_arg(call, 0), *out = call->outs[0];
    bool marked[DJ_RANK_MAX];
    double scalar = op == DJ_OP_VECTOR_NORM ? ref_real(call, 1, 2)
                    : op == DJ_OP_VAR       ? ref_real(call, 2, 1)
                                            : 0;
    ref_sums_t *sums = calloc((size_t)out->count + 1, sizeof(*sums));
    assert_non_null(sums);
    ref_dims(call, op == DJ_OP_VECTOR_NORM ? 2 : 1, in->view.rank, marked);
    for (int64_t i = 0; i < in->count; i++) {
        int64_t at[DJ_RANK_MAX];
        ref_unravel(in, i, at);
        ref_sums_add(&sums[ref_reduced(in, out, marked, at)], in->real[i], scalar);
    }
    for (int64_t i = 0; i < out->count; i++) {
        double value = ref_reduce_one(op, &sums[i], scalar);
        ref_set(out, i, value, isfinite(value) ? (int64_t)value : 0);
    }
    free(sums);
}

static inline bool ref_better(double x, double y, bool smallest)
{
    if (isnan(x) || isnan(y))
        return isnan(x) && !isnan(y);
    return smallest ? x < y : x > y;
}

static inline void ref_best(const ref_call_t *call, bool smallest, bool values)
{
    ref_t *in = ref_arg(call, 0), *index = call->outs[values];
    bool marked[DJ_RANK_MAX];
    const dj_arg_t *dims = &call->c->args[1];
    bool all = dims->kind == DJ_ARG_NONE || (dims->kind == DJ_ARG_INTEGERS && dims->count == 0);
    int64_t *best = calloc((size_t)index->count + 1, sizeof(*best));
    assert_non_null(best);
    ref_dims(call, 1, in->view.rank, marked);
    for (int64_t i = 0; i < index->count; i++)
        best[i] = -1;
    for (int64_t i = 0; i < in->count; i++) {
        int64_t at[DJ_RANK_MAX];
        ref_unravel(in, i, at);
        int64_t o = ref_reduced(in, index, marked, at);
        if (best[o] < 0 || ref_better(in->real[i], in->real[best[o]], smallest))
            best[o] = i;
    }
    for (int64_t o = 0; o < index->count; o++) {
        int64_t at[DJ_RANK_MAX], place = best[o];
        ref_unravel(in, best[o], at);
        for (uint32_t d = 0; d < in->view.rank && !all; d++)
            place = marked[d] ? at[d] : place;
        ref_set(index, o, (double)place, place);
        if (values)
            ref_copy(call->outs[0], o, in, best[o]);
    }
    free(best);
}

static inline void ref_cumsum(const ref_call_t *call)
{
    ref_t *in = ref_arg(call, 0), *out = call->outs[0];
    uint32_t dim = ref_dim(call, 1, in->view.rank);
    for (int64_t i = 0; i < in->count; i++) {
        int64_t at[DJ_RANK_MAX];
        double sum = 0;
        ref_unravel(in, i, at);
        for (int64_t end = at[dim], j = 0; j <= end; j++) {
            at[dim] = j;
            sum += in->real[ref_ravel(in, at)];
        }
        ref_set(out, i, sum, (int64_t)sum);
    }
}

/* An element of the row that is being sorted, and where it was. */
typedef struct ref_element {
    double value;
    int64_t at;
} ref_element_t;

/* A NaN is greater than everything; equal elements stay in order. */
static inline int ref_ascending(const void *a, const void *b)
{
    const ref_element_t *x = a, *y = b;
    if (isnan(x->value) != isnan(y->value))
        return isnan(x->value) ? 1 : -1;
    if (x->value != y->value && !isnan(x->value))
        return x->value > y->value ? 1 : -1;
    return (x->at > y->at) - (x->at < y->at);
}

static inline int ref_descending(const void *a, const void *b)
{
    const ref_element_t *x = a, *y = b;
    const ref_element_t other_x = {x->value, y->at}, other_y = {y->value, x->at};
    return -ref_ascending(&other_x, &other_y);
}

/* The row that begins at `at`. */
static inline void ref_sort_row(const ref_call_t *call, int64_t *at, uint32_t dim, int64_t n, bool descending)
{
    ref_t *in = ref_arg(call, 0), *values = call->outs[0], *indices = call->outs[1];
    int64_t kept = values->view.rank ? values->view.sizes[dim] : 1;
    ref_element_t *row = calloc((size_t)n, sizeof(*row));
    assert_non_null(row);
    for (int64_t i = 0; i < n; i++) {
        at[dim] = i;
        row[i] = (ref_element_t){in->real[ref_ravel(in, at)], i};
    }
    qsort(row, (size_t)n, sizeof(*row), descending ? ref_descending : ref_ascending);
    for (int64_t i = 0; i < kept; i++) {
        at[dim] = row[i].at;
        int64_t from = ref_ravel(in, at);
        at[dim] = i;
        int64_t to = ref_ravel(values, at);
        ref_copy(values, to, in, from);
        ref_set(indices, to, (double)row[i].at, row[i].at);
    }
    free(row);
}

/* Sort, and topk as the beginning of one. */
static inline void ref_sort(const ref_call_t *call, uint32_t dim_arg, bool descending)
{
    ref_t *in = ref_arg(call, 0);
    uint32_t dim = in->view.rank ? ref_dim(call, dim_arg, in->view.rank) : 0;
    int64_t n = in->view.rank ? in->view.sizes[dim] : 1;
    for (int64_t i = 0; i < in->count; i++) {
        int64_t at[DJ_RANK_MAX] = {0};
        ref_unravel(in, i, at);
        if (at[dim] == 0)
            ref_sort_row(call, at, dim, n, descending);
    }
}

#endif
