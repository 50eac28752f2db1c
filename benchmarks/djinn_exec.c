/* djinn_exec.c - the round trip of a request through the public client API, OSU style.
 *
 * Two rows a run: `null` is a request with nothing in it (message there, message back, session, order and
 * deadline checks on), `add` records a graph anew each time: two float tensors go in, they are added, the
 * sum comes back. Sizes are bytes of one tensor. Each figure is a full round trip in microseconds, as the
 * researcher's thread sees it.
 *
 *     djinn-run -n 1 -- build/release/bin/djinn_exec [-m MIN:MAX] [-i ITERATIONS] [-x WARMUP] [-c]
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/djinn.h"

typedef struct dj_bench {
    djinn_t *djinn;
    long min_bytes, max_bytes, iterations, warmup;
    int validate, full;
} dj_bench_t;

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void check(djinn_status_t status)
{
    if (status == DJINN_OK)
        return;
    fprintf(stderr, "djinn_exec: %s\n", djinn_error());
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void null_round(dj_bench_t *bench)
{
    djinn_request_t *request;
    check(djinn_submit(bench->djinn, NULL, 0, &request));
    check(djinn_wait(request));
    djinn_request_free(request);
}

static void add_round(dj_bench_t *bench, int op, const float *a, const float *b, float *sum,
                      int64_t count)
{
    djinn_tensor_t ta, tb, tsum;
    check(djinn_upload(bench->djinn, DJINN_FLOAT32, 1, &count, a, 0, &ta));
    check(djinn_upload(bench->djinn, DJINN_FLOAT32, 1, &count, b, 0, &tb));
    djinn_arg_t args[] = {{.kind = DJINN_ARG_TENSOR, .value.tensors = &ta},
                          {.kind = DJINN_ARG_TENSOR, .value.tensors = &tb},
                          {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1}};
    check(djinn_record(bench->djinn, op, args, 3, &tsum));
    djinn_release(ta.storage);
    djinn_release(tb.storage);
    check(djinn_fetch(bench->djinn, &tsum, sum, (uint64_t)count * sizeof(float)));
    djinn_release(tsum.storage);
}

static void print_row(const dj_bench_t *bench, const char *name, double *samples)
{
    double total = 0;
    for (long i = 0; i < bench->iterations; i++)
        total += samples[i];
    qsort(samples, (size_t)bench->iterations, sizeof(*samples), by_value);
    printf("%-10s%18.2f", name, total / (double)bench->iterations);
    if (bench->full)
        printf("%18.2f%18.2f%18.2f", samples[0], samples[bench->iterations / 2],
               samples[bench->iterations * 99 / 100]);
    printf("\n");
    fflush(stdout);
}

static void run_null(dj_bench_t *bench, double *samples)
{
    for (long i = -bench->warmup; i < bench->iterations; i++) {
        double began = now_us();
        null_round(bench);
        if (i >= 0)
            samples[i] = now_us() - began;
    }
    print_row(bench, "null", samples);
}

static int run_add(dj_bench_t *bench, long bytes, double *samples)
{
    int64_t count = bytes / (long)sizeof(float);
    int op = djinn_op("aten::add.Tensor"), wrong = 0;
    float *a = malloc((size_t)bytes), *b = malloc((size_t)bytes), *sum = malloc((size_t)bytes);
    char name[32];
    if (!a || !b || !sum)
        check(DJINN_ERR_MEMORY);
    for (int64_t i = 0; i < count; i++) {
        a[i] = (float)i;
        b[i] = 0.5f;
    }
    for (long i = -bench->warmup; i < bench->iterations; i++) {
        double began = now_us();
        a[0] = (float)i;
        add_round(bench, op, a, b, sum, count);
        if (i >= 0)
            samples[i] = now_us() - began;
        for (int64_t e = 0; bench->validate && e < count; e++)
            wrong += sum[e] != a[e] + b[e];
    }
    snprintf(name, sizeof(name), "add/%ld", bytes);
    print_row(bench, name, samples);
    free(a);
    free(b);
    free(sum);
    return wrong;
}

static void usage(FILE *to)
{
    fprintf(to, "usage: djinn_exec [-m [MIN:]MAX] [-i ITERATIONS] [-x WARMUP] [-c] [-f] [-h]\n"
                "  -m  bytes of one tensor, a power of two of at least 4 (default 64:64)\n"
                "  -i  iterations of a row (default 20000)\n"
                "  -x  iterations before counting (default 1000)\n"
                "  -c  check every sum\n"
                "  -f  also minimum, median and 99th percentile\n");
}

static long number(const char *text, long low, long high)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || (*end && *end != ':') || value < low || value > high) {
        fprintf(stderr, "djinn_exec: %s is not a number from %ld to %ld\n", text, low, high);
        usage(stderr);
        exit(1);
    }
    return value;
}

static void parse(dj_bench_t *bench, int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "m:i:x:cfh")) != -1) {
        const char *colon = optarg ? strchr(optarg, ':') : NULL;
        if (option == 'm') {
            bench->max_bytes = number(colon ? colon + 1 : optarg, 4, 1 << 26);
            bench->min_bytes = colon ? number(optarg, 4, bench->max_bytes) : 4;
        } else if (option == 'i') {
            bench->iterations = number(optarg, 1, 100000000);
        } else if (option == 'x') {
            bench->warmup = number(optarg, 0, 100000000);
        } else if (option == 'c') {
            bench->validate = 1;
        } else if (option == 'f') {
            bench->full = 1;
        } else {
            usage(option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 1);
        }
    }
}

int main(int argc, char **argv)
{
    dj_bench_t bench = {.min_bytes = 64, .max_bytes = 64, .iterations = 20000, .warmup = 1000};
    int wrong = 0;
    parse(&bench, argc, argv);
    double *samples = malloc((size_t)bench.iterations * sizeof(*samples));
    if (!samples)
        return 1;
    check(djinn_connect(NULL, &bench.djinn));
    printf("\n# Djinn Request Round Trip Test v" DJINN_VERSION "\n# Datatype: float32.\n"
           "# Request          Avg Time(us)%s\n",
           bench.full ? "           Min(us)           P50(us)           P99(us)" : "");
    run_null(&bench, samples);
    for (long bytes = bench.min_bytes; bytes <= bench.max_bytes; bytes *= 2)
        wrong += run_add(&bench, bytes, samples);
    djinn_close(bench.djinn);
    free(samples);
    if (wrong)
        fprintf(stderr, "djinn_exec: %d wrong elements\n", wrong);
    return wrong != 0;
}
