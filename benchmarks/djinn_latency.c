/* djinn_latency.c - half the round trip of `size` bytes to a rank and the same bytes back.
 *
 * Each iteration uploads a fresh tensor and fetches it, all through the public client interface:
 * session, order, credits and deadline on. Up to 64 KiB the bytes travel inside the one request
 * that asks for them back, larger ones in a message before it. */
#include "benchmarks/frame.h"

#include <stdlib.h>

typedef struct echo {
    void *out, *back;
} echo_t;

static djinn_status_t echo(dj_bench_t *bench, const void *out, void *back, uint64_t bytes)
{
    int64_t size = (int64_t)bytes;
    djinn_tensor_t tensor;
    djinn_status_t status = djinn_upload(bench->djinn, DJINN_UINT8, 1, &size, out, 0, &tensor);
    if (status != DJINN_OK)
        return status;
    status = djinn_fetch(bench->djinn, &tensor, back, bytes);
    djinn_release(tensor.storage);
    return status;
}

static djinn_status_t measure(dj_bench_t *bench, uint64_t bytes)
{
    echo_t *own = bench->own;
    djinn_status_t status = DJINN_OK;
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJINN_OK; round++) {
        if (bench->options.validate)
            dj_osu_fill(own->out, bytes, round);
        double began = dj_osu_now_us();
        status = echo(bench, own->out, own->back, bytes);
        dj_bench_sample(bench, round, (dj_osu_now_us() - began) / 2);
        if (bench->options.validate)
            bench->wrong += dj_osu_wrong(own->back, bytes, round);
    }
    return status;
}

static djinn_status_t open_echo(dj_bench_t *bench)
{
    echo_t *own = bench->own = calloc(1, sizeof(*own));
    if (own)
        own->out = calloc(1, bench->options.max_bytes);
    if (own)
        own->back = calloc(1, bench->options.max_bytes);
    return own && own->out && own->back ? DJINN_OK : DJINN_ERR_MEMORY;
}

static void close_echo(dj_bench_t *bench)
{
    echo_t *own = bench->own;
    if (own) {
        free(own->out);
        free(own->back);
    }
    free(own);
}

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test =
            {.program = "djinn_latency",
             .title = "Djinn Latency Test",
             .datatype = "uint8",
             .about =
                 "Half the time from sending SIZE bytes to a rank until they are back.",
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
        .open = open_echo,
        .close = close_echo,
        .measure = measure};
    return dj_bench_main(&kind, argc, argv);
}
