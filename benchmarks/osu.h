/* osu.h - options, headers and columns of the suite, as the OSU micro-benchmarks 7.4 have them.
 *
 * A benchmark describes itself in a dj_osu_test_t; from it come its options, their checks, `-h`,
 * the header and the columns, the same for ours and for the MPI twins (benchmarks/mpi/), so that
 * one reader understands all. Differences from OSU: sizes that make no sense are refused instead of
 * taken (0, negative, not a number, MIN above MAX, beyond the limit), and `--json` prints one
 * document.
 *
 * A measurement leaves one sample an iteration; a process sums its samples up in a
 * dj_osu_summary_t, and those of several processes are merged into the row that is printed.
 *
 * Units: bytes, microseconds, MB of 1e6 bytes. Threads: one. */
#ifndef DJ_BENCHMARKS_OSU_H
#define DJ_BENCHMARKS_OSU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DJ_OSU_PERCENTILES_MAX = 8,
    DJ_OSU_WINDOW_MAX =
        512, /* a put and a fetch each are within a session's credit of 1,024 requests */
    DJ_OSU_PROCESSES_MAX = 1024,
    DJ_OSU_ITERATIONS_MAX = 100000000,
};
#define DJ_OSU_BYTES_MAX (1ull << 30)

typedef enum dj_osu_metric {
    DJ_OSU_LATENCY,   /* average time of an iteration */
    DJ_OSU_BANDWIDTH, /* MB/s */
    DJ_OSU_RATE,      /* MB/s and messages/s */
} dj_osu_metric_t;

typedef struct dj_osu_test {
    const char *program;  /* "djinn_latency" */
    const char *title;    /* "Djinn Latency Test" */
    const char *datatype; /* "uint8"; NULL: the test moves nothing */
    const char *about;    /* what a figure is, for -h: one line or more, each with its newline */
    dj_osu_metric_t metric;
    bool sized;     /* rows of sizes, and -m */
    bool windowed;  /* -W */
    bool processes; /* -p: pairs or members, where no launcher started several processes */
    bool named;     /* rows have names, and -f prints minimum, median and 99th percentile */
    bool devices;   /* -d */
    uint64_t first_bytes, last_bytes,
        least_bytes;                         /* the default range, the smallest size allowed */
    uint64_t multiple;                       /* sizes must be multiples of it; 0: any */
    uint64_t iterations, warmup;             /* up to large_from bytes */
    uint64_t iterations_large, warmup_large; /* above; 0: the same */
    uint64_t large_from;
} dj_osu_test_t;

typedef struct dj_osu_options {
    uint64_t min_bytes, max_bytes;
    uint64_t iterations, warmup; /* as given; UINT64_MAX: the test's own */
    uint64_t window, processes;  /* processes 0: not given */
    bool validate, full, json;
    uint32_t n_percentiles; /* -z; 0: none */
    uint32_t percentiles[DJ_OSU_PERCENTILES_MAX];
} dj_osu_options_t;

/* What one process has measured for one row. Plain data: it travels between processes as it is. */
typedef struct dj_osu_summary {
    double average_us, min_us, max_us, median_us, p99_us;
    double percentiles_us[DJ_OSU_PERCENTILES_MAX];
    double total_us;
    uint64_t iterations, wrong;
} dj_osu_summary_t;

typedef struct dj_osu_row {
    uint64_t bytes;
    const char *name;            /* of a `named` test */
    double mb_per_s, rate_per_s; /* of a BANDWIDTH or RATE */
    const dj_osu_summary_t *summary;
} dj_osu_row_t;

/* -1: go on. Else the process's exit status: 0 after -h and -v (on standard output), 1 after an
 * option that makes no sense, with the reason on standard error. Only the first process of a job
 * speaks. */
int dj_osu_parse(const dj_osu_test_t *test, int argc, char **argv, dj_osu_options_t *options);

/* Iterations, and those before counting, of a size. */
uint64_t dj_osu_iterations(const dj_osu_test_t *test, const dj_osu_options_t *options,
                           uint64_t bytes);
uint64_t dj_osu_warmup(const dj_osu_test_t *test, const dj_osu_options_t *options, uint64_t bytes);

/* Sorts `samples_us`; `count` is at least 1. */
void dj_osu_summarise(const dj_osu_options_t *options, double *samples_us, uint64_t count,
                      uint64_t wrong, dj_osu_summary_t *summary);
/* One process: as it is. Several: averages of all; minimum and maximum are of the processes'
 * averages, as in OSU's collectives; the total is the slowest's. */
void dj_osu_merge(const dj_osu_summary_t *summaries, uint32_t count, dj_osu_summary_t *merged);

/* To standard output, each flushed at once. `note` is a further header line ("[ pairs: 2 ] ...") or
 * NULL. */
void dj_osu_begin(const dj_osu_test_t *test, const dj_osu_options_t *options, const char *note);
void dj_osu_print(const dj_osu_test_t *test, const dj_osu_options_t *options,
                  const dj_osu_row_t *row);
void dj_osu_end(const dj_osu_test_t *test, const dj_osu_options_t *options);

/* Bandwidths write each message of a window to a slot of its own, as far as the ring of slots has
 * room (4 MiB, or one message); larger windows go round. The peers reuse one buffer: what is
 * measured is the transfer, and not how fast memory is beyond the caches. */
uint64_t dj_osu_slots(const dj_osu_options_t *options, uint64_t bytes);
/* Room for every size of the options. */
uint64_t dj_osu_ring_bytes(const dj_osu_options_t *options);

double dj_osu_now_us(void);
/* The pattern that -c sends and expects: a byte at `index` in iteration `round`. */
static inline uint8_t dj_osu_pattern(uint64_t index, uint64_t round)
{
    return (uint8_t)(index * 31 + (index >> 8) * 7 + round * 17 + 1);
}
void dj_osu_fill(void *data, uint64_t bytes, uint64_t round);
/* Bytes that are not as dj_osu_fill() made them. */
uint64_t dj_osu_wrong(const void *data, uint64_t bytes, uint64_t round);

#endif
