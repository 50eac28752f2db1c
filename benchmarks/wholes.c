/* wholes.c - one large transfer at a time: a fetch to here, or a move from rank to rank that passes this process by.
 *
 * A round is one djinn_fetch(), or one djinn_move() from a tensor on rank 1 to a new one on rank 2, which is released
 * again. Libdjinn and the ranks cut large ones into parts themselves.
 *
 * Checked data: what was fetched, or a fetch of what was moved. */
#include <stdlib.h>

#include "benchmarks/traffic.h"

typedef struct wholes {
    djinn_t *source_rank, *target_rank; /* of moves */
    djinn_tensor_t source;
    char *in;
} wholes_t;

static djinn_status_t connect_to(const dj_bench_t *bench, int rank, djinn_t **djinn_p)
{
    const dj_meeting_t *server = &bench->stage.server;
    djinn_options_t options = {.abi_version = DJINN_ABI_VERSION,
                               .address = server->endpoint[0] ? server->endpoint : NULL,
                               .token = server->token[0] ? server->token : NULL,
                               .flags = DJINN_CONNECT_RANK,
                               .rank = rank};
    return djinn_connect(&options, djinn_p);
}

static djinn_status_t make_source(dj_bench_t *bench, djinn_t *djinn)
{
    wholes_t *own = bench->own;
    int64_t size = (int64_t)bench->options.max_bytes;
    own->in = calloc(1, bench->options.max_bytes);
    if (!own->in)
        return dj_bench_no_memory();
    dj_osu_fill(own->in, bench->options.max_bytes, 0);
    djinn_status_t status = djinn_upload(djinn, DJINN_UINT8, 1, &size, own->in, 0, &own->source);
    return status == DJINN_OK ? djinn_fetch(djinn, &own->source, own->in, bench->options.max_bytes) : status;
}

djinn_status_t dj_fetches_open(dj_bench_t *bench)
{
    bench->own = calloc(1, sizeof(wholes_t));
    return bench->own ? make_source(bench, bench->djinn) : dj_bench_no_memory();
}

djinn_status_t dj_moves_open(dj_bench_t *bench)
{
    wholes_t *own = bench->own = calloc(1, sizeof(*own));
    if (!own)
        return dj_bench_no_memory();
    djinn_status_t status = connect_to(bench, 1, &own->source_rank);
    if (status == DJINN_OK)
        status = connect_to(bench, 2, &own->target_rank);
    return status == DJINN_OK ? make_source(bench, own->source_rank) : status;
}

static djinn_status_t move(dj_bench_t *bench, uint64_t bytes, double *took_us)
{
    wholes_t *own = bench->own;
    djinn_tensor_t moved, window = dj_bench_window(&own->source, 0, bytes);
    double began = dj_osu_now_us();
    djinn_status_t status = djinn_move(own->target_rank, &window, &moved);
    *took_us = dj_osu_now_us() - began;
    if (status != DJINN_OK)
        return status;
    if (bench->options.validate)
        status = djinn_fetch(own->target_rank, &moved, own->in, bytes);
    djinn_release(moved.storage);
    return status;
}

static djinn_status_t fetch(dj_bench_t *bench, uint64_t bytes, double *took_us)
{
    wholes_t *own = bench->own;
    djinn_tensor_t window = dj_bench_window(&own->source, 0, bytes);
    double began = dj_osu_now_us();
    djinn_status_t status = djinn_fetch(bench->djinn, &window, own->in, bytes);
    *took_us = dj_osu_now_us() - began;
    return status;
}

djinn_status_t dj_wholes_measure(dj_bench_t *bench, uint64_t bytes)
{
    wholes_t *own = bench->own;
    djinn_status_t status = DJINN_OK;
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJINN_OK; round++) {
        double took_us;
        status = own->target_rank ? move(bench, bytes, &took_us) : fetch(bench, bytes, &took_us);
        if (status == DJINN_OK)
            dj_bench_sample(bench, round, took_us);
        if (status == DJINN_OK && bench->options.validate)
            bench->wrong += dj_osu_wrong(own->in, bytes, 0);
    }
    return status;
}

void dj_wholes_close(dj_bench_t *bench)
{
    wholes_t *own = bench->own;
    if (!own)
        return;
    if (own->source.storage)
        djinn_release(own->source.storage);
    if (own->source_rank)
        djinn_close(own->source_rank);
    if (own->target_rank)
        djinn_close(own->target_rank);
    free(own->in);
    free(own);
}
