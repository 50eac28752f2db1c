/* echo.c - bytes to a rank and the same bytes back, through the public client interface: session,
 * order, credits and deadline on.
 *
 * Each round uploads a fresh tensor and fetches it. Up to 64 KiB the bytes travel inside the one
 * request that asks for them back, so there is one message each way; larger ones go in a message
 * before it. */
#include <stdlib.h>

#include "benchmarks/traffic.h"

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

djinn_status_t dj_echo_measure(dj_bench_t *bench, uint64_t bytes)
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

djinn_status_t dj_echo_open(dj_bench_t *bench)
{
    echo_t *own = bench->own = calloc(1, sizeof(*own));
    if (own) {
        own->out = calloc(1, bench->options.max_bytes);
        own->back = calloc(1, bench->options.max_bytes);
    }
    return own && own->out && own->back ? DJINN_OK : dj_bench_no_memory();
}

void dj_echo_close(dj_bench_t *bench)
{
    echo_t *own = bench->own;
    if (own) {
        free(own->out);
        free(own->back);
    }
    free(own);
}
