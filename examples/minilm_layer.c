/* minilm_layer.c - one layer of all-MiniLM-L6-v2, driven from C: attention and feed-forward with
 * their norms.
 *
 * The rank reads the weights itself from the checkpoint (djinn_load_many): none passes through this
 * program. The layer is recorded once a batch and leaves as one request when its result is fetched;
 * the second batch finds its plan. To check the result, the same layer is computed here in plain C
 * from the same file.
 *
 *     djinn-run -n 1 -- build/release/bin/minilm_layer PATH/model.safetensors
 *
 * Ends with 0 when every element is within 1e-4, with 77 when the file is not there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "djinn.h"

enum { BATCH = 2, LENGTH = 32, WIDTH = 384, HEADS = 12, DEPTH = 32, INNER = 1536, TURNS = 20 };
enum { ROWS = BATCH * LENGTH };
#define EPSILON 1e-12

/* The layer's parameters; weights and biases stand in pairs. */
enum {
    QUERY,
    KEY = 2,
    VALUE = 4,
    ATTENDED = 6,
    NORM_1 = 8,
    UP = 10,
    DOWN = 12,
    NORM_2 = 14,
    PARTS = 16
};

#define LAYER "encoder.layer.0."
static const char *const names[PARTS] = {LAYER "attention.self.query.weight",
                                         LAYER "attention.self.query.bias",
                                         LAYER "attention.self.key.weight",
                                         LAYER "attention.self.key.bias",
                                         LAYER "attention.self.value.weight",
                                         LAYER "attention.self.value.bias",
                                         LAYER "attention.output.dense.weight",
                                         LAYER "attention.output.dense.bias",
                                         LAYER "attention.output.LayerNorm.weight",
                                         LAYER "attention.output.LayerNorm.bias",
                                         LAYER "intermediate.dense.weight",
                                         LAYER "intermediate.dense.bias",
                                         LAYER "output.dense.weight",
                                         LAYER "output.dense.bias",
                                         LAYER "output.LayerNorm.weight",
                                         LAYER "output.LayerNorm.bias"};

static float input[ROWS * WIDTH], result[ROWS * WIDTH];

static void check(djinn_status_t status, const char *what)
{
    if (status == DJINN_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, djinn_error());
    exit(1);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* ---- on the rank ---- */

static djinn_t *djinn;
static djinn_tensor_t parts[PARTS];

static djinn_arg_t of(const djinn_tensor_t *tensor)
{
    return (djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = tensor};
}

static djinn_arg_t real(double value)
{
    return (djinn_arg_t){.kind = DJINN_ARG_REAL_SCALAR, .value.real = value};
}

static djinn_arg_t integer(int64_t value)
{
    return (djinn_arg_t){.kind = DJINN_ARG_INT, .value.integer = value};
}

static djinn_tensor_t linear(djinn_tensor_t x, int part)
{
    djinn_tensor_t y;
    djinn_arg_t args[] = {of(&x), of(&parts[part]), of(&parts[part + 1])};
    check(djinn_record(djinn, djinn_op("aten::linear"), args, 3, &y), "linear");
    return y;
}

/* norm(x + y); both are released. */
static djinn_tensor_t add_norm(djinn_tensor_t x, djinn_tensor_t y, int part)
{
    static const int64_t width[] = {WIDTH};
    djinn_tensor_t sum, outs[3];
    djinn_arg_t add[] = {of(&x), of(&y), {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1}};
    check(djinn_record(djinn, djinn_op("aten::add.Tensor"), add, 3, &sum), "add");
    djinn_arg_t norm[] = {of(&sum),
                          {.kind = DJINN_ARG_INTS, .count = 1, .value.integers = width},
                          of(&parts[part]),
                          of(&parts[part + 1]),
                          real(EPSILON)};
    check(djinn_record(djinn, djinn_op("aten::native_layer_norm"), norm, 5, outs), "norm");
    djinn_release(x.storage);
    djinn_release(y.storage);
    djinn_release(sum.storage);
    djinn_release(outs[1].storage); /* mean and deviation: only training wants them */
    djinn_release(outs[2].storage);
    return outs[0];
}

/* [batch, length, width] seen as [batch, heads, length, depth]: a window, no copy. */
static djinn_tensor_t by_heads(djinn_tensor_t x)
{
    const int64_t sizes[] = {BATCH, HEADS, LENGTH, DEPTH};
    const int64_t strides[] = {LENGTH * WIDTH, DEPTH, WIDTH, 1};
    x.rank = 4;
    memcpy(x.sizes, sizes, sizeof(sizes));
    memcpy(x.strides, strides, sizeof(strides));
    return x;
}

/* The other way; attention lays its output out so that this is a window too. */
static djinn_tensor_t by_rows(djinn_tensor_t x)
{
    const int64_t sizes[] = {BATCH, LENGTH, WIDTH}, strides[] = {LENGTH * WIDTH, WIDTH, 1};
    x.rank = 3;
    memcpy(x.sizes, sizes, sizeof(sizes));
    memcpy(x.strides, strides, sizeof(strides));
    return x;
}

static djinn_tensor_t attention(djinn_tensor_t x)
{
    djinn_tensor_t q = linear(x, QUERY), k = linear(x, KEY), v = linear(x, VALUE), out;
    djinn_tensor_t qh = by_heads(q), kh = by_heads(k), vh = by_heads(v);
    djinn_arg_t args[] = {of(&qh),
                          of(&kh),
                          of(&vh),
                          {.kind = DJINN_ARG_NONE},
                          real(0),
                          integer(0),
                          {.kind = DJINN_ARG_NONE},
                          integer(0)};
    check(djinn_record(djinn, djinn_op("djinn::attention"), args, 8, &out), "attention");
    djinn_release(q.storage);
    djinn_release(k.storage);
    djinn_release(v.storage);
    djinn_tensor_t y = linear(by_rows(out), ATTENDED);
    djinn_release(out.storage);
    return y;
}

/* Takes over x. */
static djinn_tensor_t layer(djinn_tensor_t x)
{
    djinn_tensor_t attended = add_norm(x, attention(x), NORM_1), wide = linear(attended, UP), bent;
    djinn_arg_t gelu[] = {of(&wide), {.kind = DJINN_ARG_NONE}};
    check(djinn_record(djinn, djinn_op("aten::gelu"), gelu, 2, &bent), "gelu");
    djinn_tensor_t narrow = linear(bent, DOWN);
    djinn_release(wide.storage);
    djinn_release(bent.storage);
    return add_norm(attended, narrow, NORM_2);
}

/* Up, through the layer, and back: one request. */
static double turn(void)
{
    static const int64_t sizes[] = {BATCH, LENGTH, WIDTH};
    djinn_tensor_t x;
    double began_ms = now_ms();
    check(djinn_upload(djinn, DJINN_FLOAT32, 3, sizes, input, 0, &x), "upload");
    djinn_tensor_t y = layer(x);
    check(djinn_fetch(djinn, &y, result, sizeof(result)), "fetch");
    djinn_release(y.storage);
    return now_ms() - began_ms;
}

/* ---- the same in plain C ---- */

static void fail(const char *path, const char *what)
{
    fprintf(stderr, "%s: %s: not found or not readable\n", path, what);
    exit(1);
}

/* Reads one float32 tensor by its entry in the checkpoint's header. */
static float *read_part(const char *path, const char *name)
{
    char quoted[160], *header = NULL, *entry;
    unsigned long long length, begin, end;
    FILE *file = fopen(path, "rb");
    if (!file || fread(&length, 8, 1, file) != 1 || length > 1 << 24 ||
        !(header = calloc(1, length + 1)) || fread(header, 1, length, file) != length)
        fail(path, "a safetensors header");
    snprintf(quoted, sizeof(quoted), "\"%s\":", name);
    entry = strstr(header, quoted);
    entry = entry ? strstr(entry, "\"data_offsets\":[") : NULL;
    if (!entry || sscanf(entry, "\"data_offsets\":[%llu,%llu]", &begin, &end) != 2 || end < begin)
        fail(path, name);
    float *values = malloc(end - begin);
    if (!values || fseek(file, (long)(8 + length + begin), SEEK_SET) != 0 ||
        fread(values, 1, end - begin, file) != end - begin)
        fail(path, name);
    fclose(file);
    free(header);
    return values;
}

static float *local[PARTS];

/* y[ROWS, out] = x[ROWS, in] w[out, in]' + b */
static void plain_linear(const float *x, int part, int in, int out, float *y)
{
    for (int r = 0; r < ROWS; r++)
        for (int o = 0; o < out; o++) {
            const float *w = local[part] + (size_t)o * in;
            double sum = local[part + 1][o];
            for (int i = 0; i < in; i++)
                sum += (double)x[r * in + i] * w[i];
            y[r * out + o] = (float)sum;
        }
}

/* x = norm(x + y) */
static void plain_add_norm(float *x, const float *y, int part)
{
    for (int r = 0; r < ROWS; r++, x += WIDTH, y += WIDTH) {
        double mean = 0, variance = 0;
        for (int i = 0; i < WIDTH; i++)
            mean += x[i] += y[i];
        mean /= WIDTH;
        for (int i = 0; i < WIDTH; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        double scale = 1 / sqrt(variance / WIDTH + EPSILON);
        for (int i = 0; i < WIDTH; i++)
            x[i] = (float)((x[i] - mean) * scale * local[part][i] + local[part + 1][i]);
    }
}

/* One row of one head: softmax(q k') v. */
static void plain_attend(const float *q, const float *k, const float *v, float *y)
{
    double scores[LENGTH], total = 0, top = -INFINITY;
    for (int j = 0; j < LENGTH; j++) {
        scores[j] = 0;
        for (int d = 0; d < DEPTH; d++)
            scores[j] += (double)q[d] * k[j * WIDTH + d];
        scores[j] /= sqrt(DEPTH);
        top = fmax(top, scores[j]);
    }
    for (int j = 0; j < LENGTH; j++)
        total += scores[j] = exp(scores[j] - top);
    for (int d = 0; d < DEPTH; d++) {
        double sum = 0;
        for (int j = 0; j < LENGTH; j++)
            sum += scores[j] * v[j * WIDTH + d];
        y[d] = (float)(sum / total);
    }
}

static void plain_layer(float *x)
{
    static float q[ROWS * WIDTH], k[ROWS * WIDTH], v[ROWS * WIDTH], y[ROWS * WIDTH];
    static float wide[ROWS * INNER];
    plain_linear(x, QUERY, WIDTH, WIDTH, q);
    plain_linear(x, KEY, WIDTH, WIDTH, k);
    plain_linear(x, VALUE, WIDTH, WIDTH, v);
    for (int r = 0; r < ROWS; r++)
        for (int h = 0; h < HEADS; h++) {
            int first = r / LENGTH * LENGTH * WIDTH + h * DEPTH;
            plain_attend(q + r * WIDTH + h * DEPTH, k + first, v + first,
                         y + r * WIDTH + h * DEPTH);
        }
    plain_linear(y, ATTENDED, WIDTH, WIDTH, q);
    plain_add_norm(x, q, NORM_1);
    plain_linear(x, UP, WIDTH, INNER, wide);
    for (int i = 0; i < ROWS * INNER; i++)
        wide[i] = (float)(wide[i] * 0.5 * (1 + erf(wide[i] / sqrt(2))));
    plain_linear(wide, DOWN, INNER, WIDTH, y);
    plain_add_norm(x, y, NORM_2);
}

/* ---- both ---- */

static void fill_input(void)
{
    unsigned seed = 7;
    for (int i = 0; i < ROWS * WIDTH; i++) {
        seed = seed * 1664525u + 1013904223u;
        input[i] = (float)(seed >> 8) / (1 << 23) - 1.0f;
    }
}

static double worst_error(const char *path)
{
    static float expected[ROWS * WIDTH];
    double worst = 0;
    for (int i = 0; i < PARTS; i++)
        local[i] = read_part(path, names[i]);
    memcpy(expected, input, sizeof(expected));
    plain_layer(expected);
    for (int i = 0; i < ROWS * WIDTH; i++)
        worst = fmax(worst, fabs((double)expected[i] - result[i]));
    for (int i = 0; i < PARTS; i++)
        free(local[i]);
    return worst;
}

int main(int argc, char **argv)
{
    djinn_stats_t first, stats;
    char *path = argc == 2 ? realpath(argv[1], NULL) : NULL; /* a path means the same to the rank */
    if (!path) {
        fprintf(stderr, "usage: minilm_layer MODEL.safetensors (of all-MiniLM-L6-v2)\n");
        return 77;
    }
    fill_input();
    check(djinn_connect(NULL, &djinn), "connect");
    double began_ms = now_ms();
    check(djinn_load_many(djinn, path, PARTS, names, parts), "load");
    double loaded_ms = now_ms() - began_ms, first_ms = turn(), warm_ms = 0;
    djinn_stats(djinn, &first);
    for (int i = 0; i < TURNS; i++)
        warm_ms += turn() / TURNS;
    djinn_stats(djinn, &stats);
    double error = worst_error(path);
    printf("MiniLM layer, %d x %d x %d: worst error %.2g\n", BATCH, LENGTH, WIDTH, error);
    printf("weights loaded by the rank in %.1f ms; first batch %.2f ms, then %.2f ms each "
           "(the rank ran %.2f)\n",
           loaded_ms, first_ms, warm_ms, (double)(stats.run_ns - first.run_ns) / 1e6 / TURNS);
    printf("plans: %llu made in %.2f ms, %llu hit; stack peak %llu bytes; %llu bytes up, %llu "
           "down\n",
           (unsigned long long)stats.plan_misses, (double)stats.planning_ns / 1e6,
           (unsigned long long)stats.plan_hits, (unsigned long long)stats.stack_peak_bytes,
           (unsigned long long)stats.bytes_up, (unsigned long long)stats.bytes_down);
    for (int i = 0; i < PARTS; i++)
        djinn_release(parts[i].storage);
    djinn_close(djinn);
    free(path);
    return error < 1e-4 ? 0 : 1;
}
