/* ops.c - ops of the kinds that models are made of, against a few lines of C each.
 *
 * A case gives its operands as shapes, its arguments as text, and a reference that computes in
 * double. Values are multiples of 1/64 below 1, so that every dtype holds them exactly. A case with
 * `via` runs in that dtype: its operands go up in float32 and are converted there and back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/selftest/selftest.h"

enum { OPERANDS_MAX = 4, ARGS_MAX = 8, RANK_MAX = 4 };

typedef struct shape {
    int dtype, rank;
    int64_t sizes[RANK_MAX];
    int64_t below; /* integers: values are 0 .. below - 1; 0: -9 .. 9 */
} shape_t;

struct op_case;
typedef void (*reference_t)(const struct op_case *op, double *const *in, double *out);

/* args: t the next operand, l2 a list of the next two, i3 and r0.5 a scalar, d-1 an integer,
 * D0,1 integers, _ none. `function` is for references that serve several rows. */
typedef struct op_case {
    const char *op, *args;
    shape_t in[OPERANDS_MAX], out;
    reference_t expect;
    double tolerance;
    double (*function)(double a, double b);
    int via; /* 0: no conversion */
} op_case_t;

static int64_t count_of(const shape_t *shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape->rank; i++)
        count *= shape->sizes[i];
    return count;
}

static size_t width_of(int dtype)
{
    switch (dtype) {
    case DJINN_BOOL:
        return 1;
    case DJINN_INT32:
    case DJINN_FLOAT32:
        return 4;
    default:
        return 8;
    }
}

/* ---- references ---- */

static double add(double a, double b)
{
    return a + b;
}

static double add_twice(double a, double b)
{
    return a + 2 * b;
}

static double multiply(double a, double b)
{
    return a * b;
}

static double divide(double a, double b)
{
    return a / b;
}

static double greater(double a, double b)
{
    return a > b;
}

static double exponential(double a, double b)
{
    return exp(a);
}

static double hyperbolic(double a, double b)
{
    return tanh(a);
}

static double gelu(double a, double b)
{
    return a * 0.5 * (1 + erf(a * sqrt(0.5)));
}

static double largest(double a, double b)
{
    return a > b ? a : b;
}

/* The second operand repeats where it is smaller. */
static void each(const op_case_t *op, double *const *in, double *out)
{
    int64_t count = count_of(&op->out), repeats = in[1] ? count_of(&op->in[1]) : 1;
    for (int64_t i = 0; i < count; i++)
        out[i] = op->function(in[0][i], in[1] ? in[1][i % repeats] : 0);
}

static void where(const op_case_t *op, double *const *in, double *out)
{
    for (int64_t i = 0; i < count_of(&op->out); i++)
        out[i] = in[0][i] != 0 ? in[1][i] : in[2][i];
}

/* Over the last dimension. */
static void reduce(const op_case_t *op, double *const *in, double *out)
{
    int64_t columns = op->in[0].sizes[op->in[0].rank - 1];
    for (int64_t i = 0; i < count_of(&op->out); i++) {
        out[i] = in[0][i * columns];
        for (int64_t j = 1; j < columns; j++)
            out[i] = op->function(out[i], in[0][i * columns + j]);
    }
}

static void cumulate(const op_case_t *op, double *const *in, double *out)
{
    int64_t columns = op->in[0].sizes[op->in[0].rank - 1];
    for (int64_t i = 0; i < count_of(&op->out); i++)
        out[i] = in[0][i] + (i % columns ? out[i - 1] : 0);
}

static void place_of_largest(const op_case_t *op, double *const *in, double *out)
{
    int64_t columns = op->in[0].sizes[op->in[0].rank - 1];
    for (int64_t i = 0; i < count_of(&op->out); i++) {
        out[i] = 0;
        for (int64_t j = 1; j < columns; j++)
            if (in[0][i * columns + j] > in[0][i * columns + (int64_t)out[i]])
                out[i] = (double)j;
    }
}

/* out[m][n] = sum of a[m][k] * b[k][n]; `turned`: of b[n][k]. */
static void product(const double *a, const double *b, int64_t m, int64_t k, int64_t n, bool turned,
                    double *out)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t x = 0; x < k; x++)
                sum += a[i * k + x] * b[turned ? j * k + x : x * n + j];
            out[i * n + j] = sum;
        }
}

static void mm(const op_case_t *op, double *const *in, double *out)
{
    product(in[0], in[1], op->in[0].sizes[0], op->in[0].sizes[1], op->in[1].sizes[1], false, out);
}

static void bmm(const op_case_t *op, double *const *in, double *out)
{
    const int64_t *a = op->in[0].sizes, *b = op->in[1].sizes;
    for (int64_t i = 0; i < a[0]; i++)
        product(in[0] + i * a[1] * a[2], in[1] + i * b[1] * b[2], a[1], a[2], b[2], false,
                out + i * a[1] * b[2]);
}

static void addmm(const op_case_t *op, double *const *in, double *out)
{
    int64_t rows = op->in[1].sizes[0], columns = op->in[2].sizes[1];
    product(in[1], in[2], rows, op->in[1].sizes[1], columns, false, out);
    for (int64_t i = 0; i < rows * columns; i++)
        out[i] += in[0][i % columns];
}

static void linear(const op_case_t *op, double *const *in, double *out)
{
    int64_t rows = op->in[0].sizes[0], columns = op->in[1].sizes[0];
    product(in[0], in[1], rows, op->in[0].sizes[1], columns, true, out);
    for (int64_t i = 0; i < rows * columns; i++)
        out[i] += in[2][i % columns];
}

static void soften(const double *in, int64_t columns, double *out)
{
    double top = in[0], sum = 0;
    for (int64_t j = 1; j < columns; j++)
        top = fmax(top, in[j]);
    for (int64_t j = 0; j < columns; j++)
        sum += out[j] = exp(in[j] - top);
    for (int64_t j = 0; j < columns; j++)
        out[j] /= sum;
}

static void softmax(const op_case_t *op, double *const *in, double *out)
{
    int64_t columns = op->out.sizes[op->out.rank - 1];
    for (int64_t i = 0; i < count_of(&op->out); i += columns)
        soften(in[0] + i, columns, out + i);
}

static void log_softmax(const op_case_t *op, double *const *in, double *out)
{
    softmax(op, in, out);
    for (int64_t i = 0; i < count_of(&op->out); i++)
        out[i] = log(out[i]);
}

static void layer_norm(const op_case_t *op, double *const *in, double *out)
{
    int64_t columns = op->out.sizes[op->out.rank - 1];
    for (int64_t i = 0; i < count_of(&op->out); i += columns) {
        double mean = 0, square = 0;
        for (int64_t j = 0; j < columns; j++)
            mean += in[0][i + j] / (double)columns;
        for (int64_t j = 0; j < columns; j++)
            square += pow(in[0][i + j] - mean, 2) / (double)columns;
        for (int64_t j = 0; j < columns; j++)
            out[i + j] = (in[0][i + j] - mean) / sqrt(square + 1e-5) * in[1][j] + in[2][j];
    }
}

/* Query, key and value of [batch, heads, length, depth]; a row of the causal form sees its past. */
static void attend(const op_case_t *op, double *const *in, double *out, bool causal)
{
    const int64_t *q = op->in[0].sizes;
    int64_t length = q[2], depth = q[3];
    double scores[256], weights[256];
    for (int64_t head = 0; head < q[0] * q[1]; head++) {
        const double *query = in[0] + head * length * depth, *key = in[1] + head * length * depth;
        const double *value = in[2] + head * length * depth;
        for (int64_t i = 0; i < length; i++) {
            int64_t seen = causal ? i + 1 : length;
            product(query + i * depth, key, 1, depth, seen, true, scores);
            for (int64_t j = 0; j < seen; j++)
                scores[j] /= sqrt((double)depth);
            soften(scores, seen, weights);
            product(weights, value, 1, seen, depth, false, out + (head * length + i) * depth);
        }
    }
}

static void attention(const op_case_t *op, double *const *in, double *out)
{
    attend(op, in, out, false);
}

static void causal_attention(const op_case_t *op, double *const *in, double *out)
{
    attend(op, in, out, true);
}

/* Rows of the first operand, by the second. */
static void rows_of(const op_case_t *op, double *const *in, double *out)
{
    int64_t columns = op->in[0].sizes[1];
    for (int64_t i = 0; i < count_of(&op->out); i++)
        out[i] = in[0][(int64_t)in[1][i / columns] * columns + i % columns];
}

static void gather(const op_case_t *op, double *const *in, double *out)
{
    int64_t columns = op->in[0].sizes[1], wide = op->in[1].sizes[1];
    for (int64_t i = 0; i < count_of(&op->out); i++)
        out[i] = in[0][i / wide * columns + (int64_t)in[1][i]];
}

static void join(const op_case_t *op, double *const *in, double *out)
{
    int64_t first = count_of(&op->in[0]);
    memcpy(out, in[0], (size_t)first * sizeof *out);
    memcpy(out + first, in[1], (size_t)count_of(&op->in[1]) * sizeof *out);
}

/* ---- values ---- */

static double draw(const shape_t *shape, uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    uint32_t bits = *seed >> 8;
    if (shape->dtype == DJINN_BOOL)
        return bits & 1;
    if (shape->dtype == DJINN_INT32 || shape->dtype == DJINN_INT64)
        return shape->below ? bits % (uint32_t)shape->below : (double)(bits % 19) - 9;
    double value = ((double)(bits % 127) - 63) / 64;
    return value == 0 ? 0.5 : value; /* nothing is divided by 0 */
}

static void encode(int dtype, const double *values, int64_t count, void *bytes)
{
    for (int64_t i = 0; i < count; i++) {
        if (dtype == DJINN_BOOL)
            ((uint8_t *)bytes)[i] = values[i] != 0;
        else if (dtype == DJINN_INT32)
            ((int32_t *)bytes)[i] = (int32_t)values[i];
        else if (dtype == DJINN_INT64)
            ((int64_t *)bytes)[i] = (int64_t)values[i];
        else if (dtype == DJINN_FLOAT32)
            ((float *)bytes)[i] = (float)values[i];
        else
            ((double *)bytes)[i] = values[i];
    }
}

static double decode(int dtype, const void *bytes, int64_t i)
{
    if (dtype == DJINN_BOOL)
        return ((const uint8_t *)bytes)[i];
    if (dtype == DJINN_INT32)
        return ((const int32_t *)bytes)[i];
    if (dtype == DJINN_INT64)
        return (double)((const int64_t *)bytes)[i];
    if (dtype == DJINN_FLOAT32)
        return ((const float *)bytes)[i];
    return ((const double *)bytes)[i];
}

/* ---- one case ---- */

typedef struct run {
    const op_case_t *op;
    int n_operands;
    double *values[OPERANDS_MAX + 1]; /* behind the operands: NULL */
    double *expected;
    void *bytes; /* of one operand, or of the result */
    djinn_tensor_t tensors[OPERANDS_MAX];
    djinn_tensor_t outs[DJINN_MAX_OUTS];
    int64_t integers[ARGS_MAX][RANK_MAX];
} run_t;

static bool prepare(run_t *run)
{
    uint32_t seed = 1;
    size_t room = (size_t)count_of(&run->op->out) * 8;
    for (; run->n_operands < OPERANDS_MAX && run->op->in[run->n_operands].rank; run->n_operands++) {
        const shape_t *shape = &run->op->in[run->n_operands];
        int64_t count = count_of(shape);
        double *values = run->values[run->n_operands] = calloc((size_t)count, sizeof *values);
        if (!values)
            return false;
        for (int64_t i = 0; i < count; i++)
            values[i] = draw(shape, &seed);
        room = room > (size_t)count * 8 ? room : (size_t)count * 8;
    }
    run->expected = calloc((size_t)count_of(&run->op->out), sizeof *run->expected);
    run->bytes = malloc(room);
    return run->expected && run->bytes;
}

static void fini(run_t *run)
{
    for (int i = 0; i < OPERANDS_MAX; i++) {
        free(run->values[i]);
        djinn_release(run->tensors[i].storage);
    }
    for (int i = 0; i < DJINN_MAX_OUTS; i++)
        djinn_release(run->outs[i].storage);
    free(run->expected);
    free(run->bytes);
}

/* The tensor in another dtype takes its place. */
static djinn_status_t convert(djinn_t *djinn, djinn_tensor_t *tensor, int dtype)
{
    djinn_tensor_t converted;
    djinn_arg_t args[] = {{.kind = DJINN_ARG_TENSOR, .value.tensors = tensor},
                          {.kind = DJINN_ARG_INT, .value.integer = dtype}};
    djinn_status_t status = djinn_record(djinn, djinn_op("djinn::to_copy"), args, 2, &converted);
    if (status != DJINN_OK)
        return status;
    djinn_release(tensor->storage);
    *tensor = converted;
    return DJINN_OK;
}

static djinn_status_t upload(run_t *run, djinn_t *djinn)
{
    djinn_status_t status = DJINN_OK;
    for (int i = 0; i < run->n_operands && status == DJINN_OK; i++) {
        const shape_t *shape = &run->op->in[i];
        encode(shape->dtype, run->values[i], count_of(shape), run->bytes);
        status = djinn_upload(djinn, (djinn_dtype_t)shape->dtype, shape->rank, shape->sizes,
                              run->bytes, 0, &run->tensors[i]);
        if (status == DJINN_OK && run->op->via && shape->dtype == DJINN_FLOAT32)
            status = convert(djinn, &run->tensors[i], run->op->via);
    }
    return status;
}

/* Reads run->op->args; the count. */
static int make_args(run_t *run, djinn_arg_t *args)
{
    int n = 0, operand = 0;
    for (const char *at = run->op->args; *at; n++) {
        djinn_arg_t *arg = &args[n];
        *arg = (djinn_arg_t){.kind = DJINN_ARG_NONE};
        switch (*at) {
        case 't':
            *arg =
                (djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = &run->tensors[operand++]};
            break;
        case 'l':
            *arg = (djinn_arg_t){.kind = DJINN_ARG_TENSORS,
                                 .count = atoi(at + 1),
                                 .value.tensors = &run->tensors[operand]};
            break;
        case 'i':
            *arg = (djinn_arg_t){.kind = DJINN_ARG_INT_SCALAR, .value.integer = atoi(at + 1)};
            break;
        case 'r':
            *arg = (djinn_arg_t){.kind = DJINN_ARG_REAL_SCALAR, .value.real = atof(at + 1)};
            break;
        case 'd':
            *arg = (djinn_arg_t){.kind = DJINN_ARG_INT, .value.integer = atoi(at + 1)};
            break;
        case 'D':
            run->integers[n][0] = atoi(at + 1);
            *arg = (djinn_arg_t){
                .kind = DJINN_ARG_INTS, .count = 1, .value.integers = run->integers[n]};
            break;
        }
        at += strcspn(at, " ");
        at += *at == ' ';
    }
    return n;
}

static dj_verdict_t judge(dj_selftest_t *self, run_t *run)
{
    const op_case_t *op = run->op;
    int64_t count = count_of(&op->out);
    double worst = 0;
    op->expect(op, run->values, run->expected);
    for (int64_t i = 0; i < count; i++) {
        double got = decode(op->out.dtype, run->bytes, i), want = run->expected[i];
        double error = fabs(got - want) / fmax(1, fabs(want));
        if (!(error <= op->tolerance))
            return dj_found(self, DJ_CHECK_FAIL,
                            "%s: element %lld of %lld is %.9g, not %.9g (tolerance %.1g)", op->op,
                            (long long)i, (long long)count, got, want, op->tolerance);
        worst = fmax(worst, error);
    }
    if (op->tolerance == 0)
        return dj_found(self, DJ_CHECK_OK, "%lld elements, exact", (long long)count);
    return dj_found(self, DJ_CHECK_OK, "%lld elements, worst error %.1e of %.0e", (long long)count,
                    worst, op->tolerance);
}

static dj_verdict_t compute(dj_selftest_t *self, run_t *run)
{
    const shape_t *out = &run->op->out;
    djinn_tensor_t *result = &run->outs[0];
    djinn_arg_t args[ARGS_MAX];
    int op = djinn_op(run->op->op);
    if (upload(run, self->djinn) != DJINN_OK)
        return dj_found_error(self, "the operands do not go up");
    int n_args = make_args(run, args);
    if (djinn_record(self->djinn, op, args, n_args, run->outs) != DJINN_OK)
        return dj_found_error(self, run->op->op);
    if (run->op->via && convert(self->djinn, result, DJINN_FLOAT32) != DJINN_OK)
        return dj_found_error(self, "the result cannot be converted");
    bool fits = result->dtype == out->dtype && result->rank == out->rank;
    for (int i = 0; i < out->rank; i++)
        fits = fits && result->sizes[i] == out->sizes[i];
    if (!fits)
        return dj_found(self, DJ_CHECK_FAIL, "%s: the result has another shape or type",
                        run->op->op);
    uint64_t bytes = (uint64_t)count_of(out) * width_of(out->dtype);
    if (djinn_fetch(self->djinn, result, run->bytes, bytes) != DJINN_OK)
        return dj_found_error(self, run->op->op);
    return judge(self, run);
}

static dj_verdict_t check_op(dj_selftest_t *self, const dj_check_t *check)
{
    run_t run = {.op = check->detail};
    int op = djinn_op(run.op->op);
    if (op < 0)
        return dj_found(self, DJ_CHECK_FAIL, "libdjinn knows no %s", run.op->op);
    if (!djinn_supports(self->djinn, op))
        return dj_found(self, DJ_CHECK_SKIPPED, "the rank has no kernel for %s", run.op->op);
    dj_verdict_t verdict =
        prepare(&run) ? compute(self, &run) : dj_found(self, DJ_CHECK_FAIL, "no memory");
    fini(&run);
    return verdict;
}

/* ---- the cases ---- */

#define SHAPE(dtype, below, ...)                                                                   \
    {                                                                                              \
        dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}, below            \
    }
#define F32(...) SHAPE(DJINN_FLOAT32, 0, __VA_ARGS__)
#define F64(...) SHAPE(DJINN_FLOAT64, 0, __VA_ARGS__)
#define I64(...) SHAPE(DJINN_INT64, 0, __VA_ARGS__)
#define I32(...) SHAPE(DJINN_INT32, 0, __VA_ARGS__)
#define BOOL(...) SHAPE(DJINN_BOOL, 0, __VA_ARGS__)
#define INDEX(below, ...) SHAPE(DJINN_INT64, below, __VA_ARGS__)

/* C(name, about, op, arguments, operands, result, reference, tolerance, ...further fields) */
#define ONE(a)                                                                                     \
    {                                                                                              \
        a                                                                                          \
    }
#define TWO(a, b)                                                                                  \
    {                                                                                              \
        a, b                                                                                       \
    }
#define THREE(a, b, c)                                                                             \
    {                                                                                              \
        a, b, c                                                                                    \
    }
#define CASES(C)                                                                                   \
    C(add, "float32, a row onto each", "aten::add.Tensor", "t t i1", TWO(F32(4, 33), F32(33)),     \
      F32(4, 33), each, 1e-6, .function = add)                                                     \
    C(add_int64, "int64, twice the second", "aten::add.Tensor", "t t i2", TWO(I64(7), I64(7)),     \
      I64(7), each, 0, .function = add_twice)                                                      \
    C(add_float16, "there, added and back", "aten::add.Tensor", "t t i1",                          \
      TWO(F32(5, 21), F32(5, 21)), F32(5, 21), each, 1e-3, .function = add, .via = DJINN_FLOAT16)  \
    C(mul_bfloat16, "there, multiplied and back", "aten::mul.Tensor", "t t",                       \
      TWO(F32(5, 21), F32(5, 21)), F32(5, 21), each, 1e-2, .function = multiply,                   \
      .via = DJINN_BFLOAT16)                                                                       \
    C(mul_int32, "int32", "aten::mul.Tensor", "t t", TWO(I32(3, 50), I32(3, 50)), I32(3, 50),      \
      each, 0, .function = multiply)                                                               \
    C(div_float64, "float64", "aten::div.Tensor", "t t", TWO(F64(77), F64(77)), F64(77), each,     \
      1e-14, .function = divide)                                                                   \
    C(gt, "a bool for each", "aten::gt.Tensor", "t t", TWO(F32(9, 9), F32(9, 9)), BOOL(9, 9),      \
      each, 0, .function = greater)                                                                \
    C(where, "chosen by a mask", "aten::where.self", "t t t", THREE(BOOL(40), F32(40), F32(40)),   \
      F32(40), where, 0)                                                                           \
    C(exp, "float32", "aten::exp", "t", ONE(F32(1000)), F32(1000), each, 1e-6,                     \
      .function = exponential)                                                                     \
    C(tanh, "float32", "aten::tanh", "t", ONE(F32(1000)), F32(1000), each, 1e-6,                   \
      .function = hyperbolic)                                                                      \
    C(gelu, "float32", "aten::gelu", "t _", ONE(F32(1000)), F32(1000), each, 1e-6,                 \
      .function = gelu)                                                                            \
    C(sum, "over rows", "aten::sum.dim_IntList", "t D-1 d0 _", ONE(F32(8, 129)), F32(8), reduce,   \
      1e-5, .function = add)                                                                       \
    C(sum_int64, "over rows", "aten::sum.dim_IntList", "t D-1 d0 _", ONE(I64(5, 64)), I64(5),      \
      reduce, 0, .function = add)                                                                  \
    C(amax, "over rows", "aten::amax", "t D-1 d0", ONE(F32(8, 129)), F32(8), reduce, 0,            \
      .function = largest)                                                                         \
    C(argmax, "over rows", "aten::argmax", "t D-1 d0", ONE(F32(8, 40)), I64(8), place_of_largest,  \
      0)                                                                                           \
    C(cumsum, "along rows", "aten::cumsum", "t d-1 _", ONE(F32(4, 100)), F32(4, 100), cumulate,    \
      1e-5)                                                                                        \
    C(mm, "17 x 64 by 64 x 33", "aten::mm", "t t", TWO(F32(17, 64), F32(64, 33)), F32(17, 33), mm, \
      1e-5)                                                                                        \
    C(mm_large, "256 x 512 by 512 x 256", "aten::mm", "t t", TWO(F32(256, 512), F32(512, 256)),    \
      F32(256, 256), mm, 1e-4)                                                                     \
    C(bmm, "a batch of four", "aten::bmm", "t t", TWO(F32(4, 9, 16), F32(4, 16, 11)),              \
      F32(4, 9, 11), bmm, 1e-5)                                                                    \
    C(addmm, "with a bias", "aten::addmm", "t t t i1 i1", THREE(F32(24), F32(6, 32), F32(32, 24)), \
      F32(6, 24), addmm, 1e-5)                                                                     \
    C(linear, "with a bias", "aten::linear", "t t t", THREE(F32(6, 32), F32(24, 32), F32(24)),     \
      F32(6, 24), linear, 1e-5)                                                                    \
    C(softmax, "along rows", "aten::_softmax", "t d-1 d0", ONE(F32(3, 5, 70)), F32(3, 5, 70),      \
      softmax, 1e-6)                                                                               \
    C(log_softmax, "along rows", "aten::_log_softmax", "t d-1 d0", ONE(F32(6, 70)), F32(6, 70),    \
      log_softmax, 1e-5)                                                                           \
    C(layer_norm, "with weight and bias", "aten::native_layer_norm", "t D96 t t r1e-5",            \
      THREE(F32(7, 96), F32(96), F32(96)), F32(7, 96), layer_norm, 1e-5)                           \
    C(attention, "3 heads, 37 places", "djinn::attention", "t t t _ r0 d0 _ d0",                   \
      THREE(F32(2, 3, 37, 32), F32(2, 3, 37, 32), F32(2, 3, 37, 32)), F32(2, 3, 37, 32),           \
      attention, 1e-5)                                                                             \
    C(attention_causal, "each place sees its past", "djinn::attention", "t t t _ r0 d1 _ d0",      \
      THREE(F32(1, 2, 70, 64), F32(1, 2, 70, 64), F32(1, 2, 70, 64)), F32(1, 2, 70, 64),           \
      causal_attention, 1e-5)                                                                      \
    C(embedding, "rows by number", "aten::embedding", "t t _ _ _",                                 \
      TWO(F32(50, 16), INDEX(50, 4, 6)), F32(4, 6, 16), rows_of, 0)                                \
    C(index_select, "rows by number", "aten::index_select", "t d0 t",                              \
      TWO(I64(20, 5), INDEX(20, 9)), I64(9, 5), rows_of, 0)                                        \
    C(gather, "places in rows", "aten::gather", "t d1 t d0", TWO(F32(8, 30), INDEX(30, 8, 4)),     \
      F32(8, 4), gather, 0)                                                                        \
    C(cat, "one behind the other", "aten::cat", "l2 d0", TWO(F32(3, 17), F32(5, 17)), F32(8, 17),  \
      join, 0)

/* What a host rank has no kernels for. */
#define GPU_CASES(C)                                                                               \
    C(mm_float16, "converted, 64 x 256 by 256 x 96 and back", "aten::mm", "t t",                   \
      TWO(F32(64, 256), F32(256, 96)), F32(64, 96), mm, 2e-3, .via = DJINN_FLOAT16)                \
    C(mm_bfloat16, "converted, 64 x 256 by 256 x 96 and back", "aten::mm", "t t",                  \
      TWO(F32(64, 256), F32(256, 96)), F32(64, 96), mm, 1e-2, .via = DJINN_BFLOAT16)

#define C(name, about, op_, args_, in_, out_, expect_, ...)                                        \
    static const op_case_t case_##name = {.op = op_,                                               \
                                          .args = args_,                                           \
                                          .in = in_,                                               \
                                          .out = out_,                                             \
                                          .expect = expect_,                                       \
                                          .tolerance = __VA_ARGS__};
CASES(C)
GPU_CASES(C)
#undef C

const dj_check_t dj_selftest_ops[] = {
#define C(name, about, ...) {"op-" #name, NULL, about, check_op, &case_##name},
    CASES(C)
#undef C
#define C(name, about, ...) {"gpu-" #name, "cuda", about, check_op, &case_##name},
    GPU_CASES(C)
#undef C
};
const size_t dj_selftest_n_ops = sizeof dj_selftest_ops / sizeof dj_selftest_ops[0];
