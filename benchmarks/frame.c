/* frame.c - runs a benchmark from argv to the last row. */
#include "benchmarks/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"

djinn_status_t dj_bench_no_memory(void)
{
    return (djinn_status_t)dj_fail(DJ_ERR_MEMORY, "no memory for messages of this size");
}

djinn_status_t dj_bench_tensor(dj_bench_t *bench, uint64_t bytes, djinn_tensor_t *tensor)
{
    int64_t size = (int64_t)bytes;
    void *data = malloc(bytes);
    if (!data)
        return dj_bench_no_memory();
    dj_osu_fill(data, bytes, 0);
    djinn_status_t status = djinn_upload(bench->djinn, DJINN_UINT8, 1, &size, data, 0, tensor);
    free(data);
    if (status == DJINN_OK)
        status = djinn_synchronize(bench->djinn);
    return status;
}

/* ---- rows ---- */

static djinn_status_t make_room(dj_bench_t *bench, uint64_t count)
{
    if (count <= bench->samples_room)
        return DJINN_OK;
    double *grown = realloc(bench->samples, count * sizeof(*grown));
    if (!grown)
        return (djinn_status_t)dj_fail(DJ_ERR_MEMORY, "no memory for %llu samples",
                                       (unsigned long long)count);
    bench->samples = grown;
    bench->samples_room = count;
    return DJINN_OK;
}

/* All processes are here: a gather of nothing much. */
static djinn_status_t line_up(dj_bench_t *bench)
{
    uint8_t mine = 0, all[DJ_OSU_PROCESSES_MAX];
    return (djinn_status_t)dj_stage_gather(&bench->stage, &mine, 1, all, bench->kind->idle, bench);
}

djinn_status_t dj_bench_row_begin(dj_bench_t *bench, uint64_t bytes)
{
    bench->iterations = dj_osu_iterations(&bench->kind->test, &bench->options, bytes);
    bench->warmup = dj_osu_warmup(&bench->kind->test, &bench->options, bytes);
    bench->n_samples = bench->wrong = 0;
    djinn_status_t status = make_room(bench, bench->iterations);
    return status == DJINN_OK ? line_up(bench) : status;
}

djinn_status_t dj_bench_row_end(dj_bench_t *bench, const char *name, uint64_t bytes)
{
    const dj_bench_kind_t *kind = bench->kind;
    uint32_t count = bench->stage.size;
    dj_osu_summary_t mine, merged, *all = calloc(count, sizeof(*all));
    if (!all)
        return (djinn_status_t)dj_fail(DJ_ERR_MEMORY, "no memory for %u processes", count);
    dj_osu_summarise(&bench->options, bench->samples, bench->n_samples, bench->wrong, &mine);
    djinn_status_t status =
        (djinn_status_t)dj_stage_gather(&bench->stage, &mine, sizeof(mine), all, kind->idle, bench);
    if (status == DJINN_OK) {
        dj_osu_merge(all, count, &merged);
        double messages = (double)bench->options.window * (double)merged.iterations * count *
                          (kind->ways ? kind->ways : 1);
        dj_osu_row_t row = {.bytes = bytes,
                            .name = name,
                            .summary = &merged,
                            .mb_per_s = messages * (double)bytes / merged.total_us,
                            .rate_per_s = messages / merged.total_us * 1e6};
        if (bench->stage.rank == 0)
            dj_osu_print(&kind->test, &bench->options, &row);
        if (merged.wrong)
            status = (djinn_status_t)dj_fail(DJ_ERR_CORRUPT, "%llu bytes came back wrong",
                                             (unsigned long long)merged.wrong);
    }
    free(all);
    return status;
}

static djinn_status_t run_sizes(dj_bench_t *bench)
{
    const dj_bench_kind_t *kind = bench->kind;
    djinn_status_t status = DJINN_OK;
    if (kind->rows)
        return kind->rows(bench);
    uint64_t bytes = kind->test.sized ? bench->options.min_bytes : 0;
    do {
        status = dj_bench_row_begin(bench, bytes);
        if (status == DJINN_OK)
            status = kind->measure(bench, bytes);
        if (status == DJINN_OK)
            status = dj_bench_row_end(bench, NULL, bytes);
        bytes *= 2;
    } while (status == DJINN_OK && kind->test.sized && bytes <= bench->options.max_bytes);
    return status;
}

/* ---- the run ---- */

static djinn_status_t connect_client(dj_bench_t *bench)
{
    const dj_meeting_t *server = &bench->stage.server;
    djinn_options_t options = {.abi_version = DJINN_ABI_VERSION,
                               .address = server->endpoint[0] ? server->endpoint : NULL,
                               .token = server->token[0] ? server->token : NULL};
    return djinn_connect(&options, &bench->djinn);
}

static void print_header(const dj_bench_t *bench)
{
    const dj_osu_test_t *test = &bench->kind->test;
    char note[64];
    snprintf(note, sizeof(note), "[ pairs: %u ] [ window size: %llu ]", bench->stage.size,
             (unsigned long long)bench->options.window);
    if (bench->stage.rank == 0)
        dj_osu_begin(test, &bench->options, test->metric == DJ_OSU_RATE ? note : NULL);
}

static djinn_status_t run(dj_bench_t *bench)
{
    const dj_bench_kind_t *kind = bench->kind;
    djinn_status_t status = kind->members ? DJINN_OK : connect_client(bench);
    if (status == DJINN_OK && kind->open)
        status = kind->open(bench);
    if (status == DJINN_OK)
        print_header(bench);
    if (status == DJINN_OK)
        status = run_sizes(bench);
    if (status == DJINN_OK && bench->stage.rank == 0)
        dj_osu_end(&kind->test, &bench->options);
    /* Nobody leaves while another still measures against it. */
    djinn_status_t ended = status == DJINN_OK ? line_up(bench) : status;
    if (ended != DJINN_OK)
        fprintf(stderr, "%s: %s: %s\n", kind->test.program, djinn_status_name(ended),
                djinn_error());
    if (kind->close)
        kind->close(bench);
    if (bench->djinn)
        djinn_close(bench->djinn);
    return ended;
}

int dj_bench_main(const dj_bench_kind_t *kind, int argc, char **argv)
{
    dj_bench_t bench = {.kind = kind};
    int decided = dj_osu_parse(&kind->test, argc, argv, &bench.options);
    if (decided >= 0)
        return decided;
    dj_stage_setup_t setup = {.members = kind->members,
                              .least = kind->least,
                              .most = kind->most,
                              .processes = (uint32_t)bench.options.processes};
    dj_log_init(NULL, "benchmark");
    djinn_status_t status = (djinn_status_t)dj_stage_open(&setup, &bench.stage);
    /* A refusal is the same in all processes; what else goes wrong, one of them alone knows. */
    if (status != DJINN_OK && (bench.stage.place.rank == 0 || status != DJINN_ERR_INVALID))
        fprintf(stderr, "%s: %s\n", kind->test.program, dj_error_text());
    if (status == DJINN_OK && bench.stage.serves)
        return dj_stage_serve(&bench.stage);
    if (status == DJINN_OK)
        status = run(&bench);
    free(bench.samples);
    bool well = dj_stage_close(&bench.stage);
    return status == DJINN_OK && well ? 0 : 1;
}
