/* frame.h - what every benchmark through the client interface has in common: options, stage,
 * connection, the loop over sizes, samples, rows.
 *
 * A benchmark gives its description and one function that measures one size; dj_bench_main() is the
 * rest. The function runs dj_bench_rounds() rounds and hands each round's time to
 * dj_bench_sample(). */
#ifndef DJ_BENCHMARKS_FRAME_H
#define DJ_BENCHMARKS_FRAME_H

#include "benchmarks/osu.h"
#include "benchmarks/stage.h"
#include "client/djinn.h"

typedef struct dj_bench dj_bench_t;

typedef struct dj_bench_kind {
    dj_osu_test_t test;
    uint32_t least, most; /* clients or members */
    bool members;
    uint32_t ways; /* of a bandwidth: messages that each one of a window stands for */
    /* Once, when all is connected; and its end. Either may be NULL. */
    djinn_status_t (*open)(dj_bench_t *bench);
    void (*close)(dj_bench_t *bench);
    /* One row: rounds of `bytes` bytes. */
    djinn_status_t (*measure)(dj_bench_t *bench, uint64_t bytes);
    /* Called while other processes are waited for; may be NULL. */
    void (*idle)(void *bench);
    /* Instead of the loop over sizes; may be NULL. */
    djinn_status_t (*rows)(dj_bench_t *bench);
} dj_bench_kind_t;

struct dj_bench {
    const dj_bench_kind_t *kind;
    dj_osu_options_t options;
    dj_stage_t stage;
    djinn_t *djinn; /* NULL for members */
    void *own;      /* the benchmark's */

    uint64_t iterations, warmup; /* of the row being measured */
    double *samples;
    uint64_t n_samples, samples_room, wrong;
};

/* The process's exit status: 0, or 1 with the reason on standard error. */
int dj_bench_main(const dj_bench_kind_t *kind, int argc, char **argv);

/* Begins a row: room for its samples, all processes here. `bytes` decides the iterations. */
djinn_status_t dj_bench_row_begin(dj_bench_t *bench, uint64_t bytes);
/* Merges all processes' samples and prints them; `name` for named rows. */
djinn_status_t dj_bench_row_end(dj_bench_t *bench, const char *name, uint64_t bytes);

/* All rounds of a row, those before counting with it. */
static inline uint64_t dj_bench_rounds(const dj_bench_t *bench)
{
    return bench->warmup + bench->iterations;
}

static inline void dj_bench_sample(dj_bench_t *bench, uint64_t round, double us)
{
    if (round >= bench->warmup)
        bench->samples[bench->n_samples++] = us;
}

/* DJINN_ERR_MEMORY with its sentence. */
djinn_status_t dj_bench_no_memory(void);
/* A tensor of `bytes` bytes on the rank, filled as dj_osu_fill() does in round 0; released with
 * djinn_release(tensor->storage). */
djinn_status_t dj_bench_tensor(dj_bench_t *bench, uint64_t bytes, djinn_tensor_t *tensor);
/* `bytes` bytes of it from `offset`. */
static inline djinn_tensor_t dj_bench_window(const djinn_tensor_t *tensor, uint64_t offset,
                                             uint64_t bytes)
{
    djinn_tensor_t window = *tensor;
    window.offset += (int64_t)offset;
    window.sizes[0] = (int64_t)bytes;
    return window;
}

#endif
