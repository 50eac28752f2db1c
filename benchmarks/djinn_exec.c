/* djinn_exec.c - the round trip of a request through the public client API, OSU style.
 *
 * Two rows a run: `null` is a request with nothing in it (message there, message back, session,
 * order and deadline checks on), `add` records a graph anew each time: two float tensors go in,
 * they are added, the sum comes back. Sizes are bytes of one tensor. Each figure is a full round
 * trip in microseconds, as the researcher's thread sees it.
 *
 *     djinn-run -n 1 -- build/release/bin/djinn_exec [-m MIN:MAX] [-i ITERATIONS] [-x WARMUP] [-c]
 */
#include <stdio.h>
#include <stdlib.h>

#include "benchmarks/frame.h"

typedef struct addition {
    int op;
    float *a, *b, *sum;
} addition_t;

static djinn_status_t null_round(dj_bench_t *bench)
{
    djinn_request_t *request;
    djinn_status_t status = djinn_submit(bench->djinn, NULL, 0, &request);
    if (status != DJINN_OK)
        return status;
    status = djinn_wait(request);
    djinn_request_free(request);
    return status;
}

static djinn_status_t add_round(dj_bench_t *bench, int64_t count)
{
    const addition_t *own = bench->own;
    djinn_tensor_t a = {0}, b = {0}, sum = {0};
    djinn_status_t status = djinn_upload(bench->djinn, DJINN_FLOAT32, 1, &count, own->a, 0, &a);
    if (status == DJINN_OK)
        status = djinn_upload(bench->djinn, DJINN_FLOAT32, 1, &count, own->b, 0, &b);
    djinn_arg_t args[] = {{.kind = DJINN_ARG_TENSOR, .value.tensors = &a},
                          {.kind = DJINN_ARG_TENSOR, .value.tensors = &b},
                          {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1}};
    if (status == DJINN_OK)
        status = djinn_record(bench->djinn, own->op, args, 3, &sum);
    djinn_release(a.storage);
    djinn_release(b.storage);
    if (status == DJINN_OK)
        status = djinn_fetch(bench->djinn, &sum, own->sum, (uint64_t)count * sizeof(float));
    djinn_release(sum.storage);
    return status;
}

static djinn_status_t measure_null(dj_bench_t *bench)
{
    djinn_status_t status = dj_bench_row_begin(bench, 0);
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJINN_OK; round++) {
        double began = dj_osu_now_us();
        status = null_round(bench);
        dj_bench_sample(bench, round, dj_osu_now_us() - began);
    }
    return status == DJINN_OK ? dj_bench_row_end(bench, "null", 0) : status;
}

static djinn_status_t measure_add(dj_bench_t *bench, uint64_t bytes)
{
    const addition_t *own = bench->own;
    int64_t count = (int64_t)(bytes / sizeof(float));
    char name[32];
    djinn_status_t status = dj_bench_row_begin(bench, bytes);
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJINN_OK; round++) {
        double began = dj_osu_now_us();
        own->a[0] = (float)(round % 1000);
        status = add_round(bench, count);
        dj_bench_sample(bench, round, dj_osu_now_us() - began);
        for (int64_t i = 0; bench->options.validate && i < count; i++)
            bench->wrong += sizeof(float) * (own->sum[i] != own->a[i] + own->b[i]);
    }
    snprintf(name, sizeof(name), "add/%llu", (unsigned long long)bytes);
    return status == DJINN_OK ? dj_bench_row_end(bench, name, bytes) : status;
}

static djinn_status_t rows(dj_bench_t *bench)
{
    djinn_status_t status = measure_null(bench);
    for (uint64_t bytes = bench->options.min_bytes;
         bytes <= bench->options.max_bytes && status == DJINN_OK; bytes *= 2)
        status = measure_add(bench, bytes);
    return status;
}

static djinn_status_t open_add(dj_bench_t *bench)
{
    uint64_t bytes = bench->options.max_bytes;
    addition_t *own = bench->own = calloc(1, sizeof(*own));
    if (!own)
        return dj_bench_no_memory();
    own->op = djinn_op("aten::add.Tensor");
    own->a = malloc(bytes);
    own->b = malloc(bytes);
    own->sum = malloc(bytes);
    if (!own->a || !own->b || !own->sum)
        return dj_bench_no_memory();
    for (uint64_t i = 0; i < bytes / sizeof(float); i++) {
        own->a[i] = (float)i;
        own->b[i] = 0.5f;
    }
    return DJINN_OK;
}

static void close_add(dj_bench_t *bench)
{
    addition_t *own = bench->own;
    if (!own)
        return;
    free(own->a);
    free(own->b);
    free(own->sum);
    free(own);
}

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_exec",
                 .title = "Djinn Request Round Trip Test",
                 .datatype = "float32",
                 .about =
                     "The time of a whole request: empty, and with a graph of one addition of two\n"
                     "tensors of SIZE bytes that go in and a sum that comes back.",
                 .sized = true,
                 .named = true,
                 .devices = true,
                 .first_bytes = 64,
                 .last_bytes = 64,
                 .least_bytes = 4,
                 .multiple = 4,
                 .iterations = 20000,
                 .warmup = 1000},
        .least = 1,
        .most = 1,
        .open = open_add,
        .close = close_add,
        .rows = rows};
    return dj_bench_main(&kind, argc, argv);
}
