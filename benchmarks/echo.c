/* echo.c - bytes to a rank and the same bytes back, through the public client interface: session,
 * order, credits and deadline on.
 *
 * Up to 8 KiB a round uploads a fresh tensor and fetches it: the bytes travel inside the one
 * request that asks for them back, so there is one message each way. Larger ones are put into a
 * tensor that the rank holds, in a message of their own before the request, and are fetched from
 * it: fresh memory for each round would measure the rank's page faults. */
#include <stdlib.h>

#include "benchmarks/traffic.h"

enum { INSIDE_BYTES = 8 << 10 };

typedef struct echo {
    djinn_tensor_t tensor;
    void *out, *back;
} echo_t;

static djinn_status_t echo_inside(dj_bench_t *bench, uint64_t bytes)
{
    echo_t *own = bench->own;
    int64_t size = (int64_t)bytes;
    djinn_tensor_t tensor;
    djinn_status_t status = djinn_upload(bench->djinn, DJINN_UINT8, 1, &size, own->out, 0, &tensor);
    if (status != DJINN_OK)
        return status;
    status = djinn_fetch(bench->djinn, &tensor, own->back, bytes);
    djinn_release(tensor.storage);
    return status;
}

static djinn_status_t echo_put(dj_bench_t *bench, uint64_t bytes)
{
    echo_t *own = bench->own;
    djinn_tensor_t window = dj_bench_window(&own->tensor, 0, bytes);
    djinn_request_t *put;
    djinn_status_t status = djinn_put(bench->djinn, &window, own->out, bytes, &put);
    if (status != DJINN_OK)
        return status;
    status = djinn_fetch(bench->djinn, &window, own->back, bytes);
    djinn_status_t put_status = djinn_wait(put);
    djinn_request_free(put);
    return status == DJINN_OK ? put_status : status;
}

djinn_status_t dj_echo_measure(dj_bench_t *bench, uint64_t bytes)
{
    echo_t *own = bench->own;
    djinn_status_t status = DJINN_OK;
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJINN_OK; round++) {
        if (bench->options.validate)
            dj_osu_fill(own->out, bytes, round + 1);
        double began = dj_osu_now_us();
        status = bytes <= INSIDE_BYTES ? echo_inside(bench, bytes) : echo_put(bench, bytes);
        dj_bench_sample(bench, round, (dj_osu_now_us() - began) / 2);
        if (bench->options.validate)
            bench->wrong += dj_osu_wrong(own->back, bytes, round + 1);
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
    if (!own || !own->out || !own->back)
        return dj_bench_no_memory();
    return dj_bench_tensor(bench, bench->options.max_bytes, &own->tensor);
}

void dj_echo_close(dj_bench_t *bench)
{
    echo_t *own = bench->own;
    if (!own)
        return;
    djinn_release(own->tensor.storage);
    free(own->out);
    free(own->back);
    free(own);
}
