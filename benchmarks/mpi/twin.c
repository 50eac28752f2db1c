/* twin.c - runs an MPI twin from argv to the last row. MPI's own errors end the job. */
#include "benchmarks/mpi/twin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_TAG = 1, ANSWER_TAG = 2 };

/* ---- what several tests measure ---- */

void dj_twin_ping_pong(dj_twin_t *twin, uint64_t bytes)
{
    int count = (int)bytes;
    for (uint64_t round = 0; round < dj_twin_rounds(twin); round++) {
        if (!twin->first) {
            MPI_Recv(twin->in, count, MPI_CHAR, twin->peer, DATA_TAG, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
            MPI_Send(twin->in, count, MPI_CHAR, twin->peer, DATA_TAG, MPI_COMM_WORLD);
            continue;
        }
        if (twin->options.validate)
            dj_osu_fill(twin->out, bytes, round);
        double began = dj_osu_now_us();
        MPI_Send(twin->out, count, MPI_CHAR, twin->peer, DATA_TAG, MPI_COMM_WORLD);
        MPI_Recv(twin->in, count, MPI_CHAR, twin->peer, DATA_TAG, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
        dj_twin_sample(twin, round, (dj_osu_now_us() - began) / 2);
        if (twin->options.validate)
            twin->wrong += dj_osu_wrong(twin->in, bytes, round);
    }
}

/* Posts a window of sends, of receives, or of both, and waits for it. */
static void window(dj_twin_t *twin, uint64_t bytes, bool receives, bool sends)
{
    uint64_t slots = dj_osu_slots(&twin->options, bytes);
    int posted = 0;
    for (uint64_t i = 0; receives && i < twin->options.window; i++)
        MPI_Irecv(twin->in + i % slots * bytes, (int)bytes, MPI_CHAR, twin->peer, DATA_TAG,
                  MPI_COMM_WORLD, &twin->requests[posted++]);
    for (uint64_t i = 0; sends && i < twin->options.window; i++)
        MPI_Isend(twin->out, (int)bytes, MPI_CHAR, twin->peer, DATA_TAG, MPI_COMM_WORLD,
                  &twin->requests[posted++]);
    MPI_Waitall(posted, twin->requests, MPI_STATUSES_IGNORE);
}

void dj_twin_windows(dj_twin_t *twin, uint64_t bytes)
{
    bool both = twin->kind->ways == 2, receives = both || !twin->first;
    uint64_t slots = dj_osu_slots(&twin->options, bytes);
    char answer = 0;
    for (uint64_t round = 0; round < dj_twin_rounds(twin); round++) {
        if (twin->options.validate) {
            dj_osu_fill(twin->out, bytes, round);
            MPI_Barrier(MPI_COMM_WORLD);
        }
        double began = dj_osu_now_us();
        window(twin, bytes, receives, both || twin->first);
        if (twin->first)
            MPI_Recv(&answer, 1, MPI_CHAR, twin->peer, ANSWER_TAG, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        else
            MPI_Send(&answer, 1, MPI_CHAR, twin->peer, ANSWER_TAG, MPI_COMM_WORLD);
        dj_twin_sample(twin, round, dj_osu_now_us() - began);
        for (uint64_t i = 0; twin->options.validate && receives && i < slots; i++)
            twin->wrong += dj_osu_wrong(twin->in + i * bytes, bytes, round);
    }
}

/* ---- the run ---- */

static int fail(const dj_twin_t *twin, const char *reason)
{
    if (twin->rank == 0)
        fprintf(stderr, "%s: %s\n", twin->kind->test.program, reason);
    return 1;
}

static bool make_room(dj_twin_t *twin)
{
    const dj_osu_test_t *test = &twin->kind->test;
    uint64_t most = dj_osu_iterations(test, &twin->options, 0);
    uint64_t ring = test->sized ? dj_osu_ring_bytes(&twin->options) : 1;
    twin->samples = malloc(most * sizeof(*twin->samples));
    twin->requests = malloc(2 * twin->options.window * sizeof(*twin->requests));
    twin->out = calloc(1, ring);
    twin->in = calloc(1, ring);
    return twin->samples && twin->requests && twin->out && twin->in;
}

static void print_row(dj_twin_t *twin, const dj_osu_summary_t *all, uint64_t bytes,
                      uint64_t *wrong_p)
{
    const dj_twin_kind_t *kind = twin->kind;
    uint32_t timed = (uint32_t)(kind->collective ? twin->size : twin->size / 2);
    dj_osu_summary_t merged;
    dj_osu_merge(all, timed, &merged);
    for (int i = (int)timed; i < twin->size; i++)
        merged.wrong += all[i].wrong;
    double messages = (double)twin->options.window * (double)merged.iterations * timed *
                      (kind->ways ? kind->ways : 1);
    dj_osu_row_t row = {.bytes = bytes,
                        .summary = &merged,
                        .mb_per_s = messages * (double)bytes / merged.total_us,
                        .rate_per_s = messages / merged.total_us * 1e6};
    dj_osu_print(&kind->test, &twin->options, &row);
    *wrong_p += merged.wrong;
}

static int run(dj_twin_t *twin)
{
    const dj_twin_kind_t *kind = twin->kind;
    dj_osu_summary_t mine, *all = calloc((size_t)twin->size, sizeof(*all));
    uint64_t wrong = 0, bytes = kind->test.sized ? twin->options.min_bytes : 0;
    char note[64];
    if (!all || !make_room(twin))
        return fail(twin, "no memory");
    snprintf(note, sizeof(note), "[ pairs: %d ] [ window size: %llu ]", twin->size / 2,
             (unsigned long long)twin->options.window);
    if (twin->rank == 0)
        dj_osu_begin(&kind->test, &twin->options, kind->test.metric == DJ_OSU_RATE ? note : NULL);
    do {
        twin->iterations = dj_osu_iterations(&kind->test, &twin->options, bytes);
        twin->warmup = dj_osu_warmup(&kind->test, &twin->options, bytes);
        twin->n_samples = twin->wrong = 0;
        MPI_Barrier(MPI_COMM_WORLD);
        kind->measure(twin, bytes);
        if (twin->n_samples == 0)
            twin->samples[twin->n_samples++] = 0; /* an echo measures nothing */
        dj_osu_summarise(&twin->options, twin->samples, twin->n_samples, twin->wrong, &mine);
        MPI_Gather(&mine, sizeof(mine), MPI_BYTE, all, sizeof(mine), MPI_BYTE, 0, MPI_COMM_WORLD);
        if (twin->rank == 0)
            print_row(twin, all, bytes, &wrong);
        bytes *= 2;
    } while (kind->test.sized && bytes <= twin->options.max_bytes);
    if (twin->rank == 0)
        dj_osu_end(&kind->test, &twin->options);
    free(all);
    return wrong ? fail(twin, "bytes came back wrong") : 0;
}

int dj_twin_main(const dj_twin_kind_t *kind, int argc, char **argv)
{
    dj_twin_t twin = {.kind = kind};
    int result = dj_osu_parse(&kind->test, argc, argv, &twin.options);
    if (result >= 0)
        return result;
    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &twin.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &twin.size);
    twin.first = twin.rank < twin.size / 2;
    twin.peer = twin.first ? twin.rank + twin.size / 2 : twin.rank - twin.size / 2;
    if (twin.size < kind->least || twin.size > kind->most || (!kind->collective && twin.size % 2))
        result =
            fail(&twin, "not with this number of processes: two, or pairs for a test of pairs");
    else
        result = run(&twin);
    free(twin.samples);
    free(twin.requests);
    free(twin.out);
    free(twin.in);
    MPI_Finalize();
    return result;
}
