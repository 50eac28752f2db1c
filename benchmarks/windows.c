/* windows.c - many puts, or puts and fetches, under way at once.
 *
 * A round is a window of puts of `bytes` bytes, each to its own slot of one tensor as far as the
 * ring of slots has room (osu.h), then one wait until the rank has them all, as OSU waits for one
 * answer a window. Small puts are made without a request, so they may travel together; larger ones,
 * which would be waited for one by one, with a request each. Both ways: each put is followed by a
 * fetch from a second tensor.
 *
 * Checked data: what the rank holds after the round, and what the fetches brought. */
#include <stdlib.h>

#include "benchmarks/traffic.h"

enum { COPIED_BYTES = 32 << 10 }; /* smaller puts are copied by the client */

typedef struct windows {
    char *out, *in; /* in: dj_osu_ring_bytes() */
    djinn_tensor_t target, source;
    djinn_request_t **requests; /* two windows */
    uint32_t n_requests;
} windows_t;

static djinn_status_t post_put(dj_bench_t *bench, uint64_t slot, uint64_t bytes)
{
    windows_t *own = bench->own;
    djinn_tensor_t window = dj_bench_window(&own->target, slot * bytes, bytes);
    if (bytes < COPIED_BYTES)
        return djinn_put(bench->djinn, &window, own->out, bytes, NULL);
    djinn_status_t status =
        djinn_put(bench->djinn, &window, own->out, bytes, &own->requests[own->n_requests]);
    own->n_requests += status == DJINN_OK;
    return status;
}

static djinn_status_t post_fetch(dj_bench_t *bench, uint64_t slot, uint64_t bytes)
{
    windows_t *own = bench->own;
    djinn_fetch_t fetch = {.tensor = dj_bench_window(&own->source, slot * bytes, bytes),
                           .target = own->in + slot * bytes,
                           .bytes = bytes};
    djinn_status_t status = djinn_submit(bench->djinn, &fetch, 1, &own->requests[own->n_requests]);
    own->n_requests += status == DJINN_OK;
    return status;
}

/* All requests of the window, whatever became of them. */
static djinn_status_t finish(dj_bench_t *bench, djinn_status_t status)
{
    windows_t *own = bench->own;
    for (uint32_t i = 0; i < own->n_requests; i++) {
        djinn_status_t one = djinn_wait(own->requests[i]);
        status = status == DJINN_OK ? one : status;
        djinn_request_free(own->requests[i]);
    }
    own->n_requests = 0;
    return status == DJINN_OK ? djinn_synchronize(bench->djinn) : status;
}

static djinn_status_t one_window(dj_bench_t *bench, uint64_t bytes)
{
    uint64_t slots = dj_osu_slots(&bench->options, bytes);
    djinn_status_t status = DJINN_OK;
    for (uint64_t i = 0; i < bench->options.window && status == DJINN_OK; i++) {
        status = post_put(bench, i % slots, bytes);
        if (status == DJINN_OK && bench->kind->ways == 2)
            status = post_fetch(bench, i % slots, bytes);
    }
    return finish(bench, status);
}

/* What the rank holds now, slot by slot; the fetches of the window have the source's pattern. */
static djinn_status_t check(dj_bench_t *bench, uint64_t bytes, uint64_t round)
{
    windows_t *own = bench->own;
    uint64_t slots = dj_osu_slots(&bench->options, bytes);
    if (bench->kind->ways == 2)
        bench->wrong += dj_osu_wrong(own->in, slots * bytes, 0);
    djinn_tensor_t all = dj_bench_window(&own->target, 0, slots * bytes);
    djinn_status_t status = djinn_fetch(bench->djinn, &all, own->in, slots * bytes);
    for (uint64_t i = 0; i < slots && status == DJINN_OK; i++)
        bench->wrong += dj_osu_wrong(own->in + i * bytes, bytes, round);
    return status;
}

djinn_status_t dj_windows_measure(dj_bench_t *bench, uint64_t bytes)
{
    windows_t *own = bench->own;
    djinn_status_t status = DJINN_OK;
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJINN_OK; round++) {
        if (bench->options.validate)
            dj_osu_fill(own->out, bytes, round);
        double began = dj_osu_now_us();
        status = one_window(bench, bytes);
        dj_bench_sample(bench, round, dj_osu_now_us() - began);
        if (bench->options.validate && status == DJINN_OK)
            status = check(bench, bytes, round);
    }
    return status;
}

djinn_status_t dj_windows_open(dj_bench_t *bench)
{
    uint64_t ring = dj_osu_ring_bytes(&bench->options);
    windows_t *own = bench->own = calloc(1, sizeof(*own));
    if (!own)
        return dj_bench_no_memory();
    own->out = calloc(1, bench->options.max_bytes);
    own->in = calloc(1, ring);
    own->requests = calloc(2 * bench->options.window, sizeof(djinn_request_t *));
    if (!own->out || !own->in || !own->requests)
        return dj_bench_no_memory();
    djinn_status_t status = dj_bench_tensor(bench, ring, &own->target);
    if (status == DJINN_OK && bench->kind->ways == 2)
        status = dj_bench_tensor(bench, ring, &own->source);
    return status;
}

void dj_windows_close(dj_bench_t *bench)
{
    windows_t *own = bench->own;
    if (!own)
        return;
    djinn_release(own->target.storage);
    djinn_release(own->source.storage);
    free(own->requests);
    free(own->out);
    free(own->in);
    free(own);
}
