/* djinn_put_latency.c - the time to pull a small window of a tensor that a rank holds. */
#include "benchmarks/frame.h"

#include <stdlib.h>

typedef struct pull {
    djinn_tensor_t tensor; /* all sizes are windows of it */
    void *data;
} pull_t;

static djinn_status_t measure(dj_bench_t *bench, uint64_t bytes)
{
    pull_t *own = bench->own;
    djinn_tensor_t window = dj_bench_window(&own->tensor, 0, bytes);
    djinn_status_t status = DJINN_OK;
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJINN_OK; round++) {
        double began = dj_osu_now_us();
        status = djinn_fetch(bench->djinn, &window, own->data, bytes);
        dj_bench_sample(bench, round, dj_osu_now_us() - began);
        if (!bench->options.validate)
            continue;
        bench->wrong += dj_osu_wrong(own->data, bytes, 0);
        dj_osu_fill(own->data, bytes, 1); /* so that old bytes are not taken for new ones */
    }
    return status;
}

static djinn_status_t open_pull(dj_bench_t *bench)
{
    pull_t *own = bench->own = calloc(1, sizeof(*own));
    if (own)
        own->data = calloc(1, bench->options.max_bytes);
    if (!own || !own->data)
        return dj_bench_no_memory();
    return dj_bench_tensor(bench, bench->options.max_bytes, &own->tensor);
}

static void close_pull(dj_bench_t *bench)
{
    pull_t *own = bench->own;
    if (!own)
        return;
    djinn_release(own->tensor.storage);
    free(own->data);
    free(own);
}

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test =
            {.program = "djinn_put_latency",
             .title = "Djinn Ref Pull Latency Test",
             .datatype = "uint8",
             .about =
                 "The time from asking for SIZE bytes of a tensor on a rank until they are here.",
             .sized = true,
             .devices = true,
             .first_bytes = 1,
             .last_bytes = 4 << 20,
             .least_bytes = 1,
             .iterations = 10000,
             .warmup = 100,
             .iterations_large = 1000,
             .warmup_large = 10,
             .large_from = 8192},
        .least = 1,
        .most = 1,
        .open = open_pull,
        .close = close_pull,
        .measure = measure};
    return dj_bench_main(&kind, argc, argv);
}
