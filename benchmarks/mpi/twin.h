/* twin.h - what the MPI twins have in common: the options, columns and loops of ours
 * (benchmarks/osu.h) around plain MPI calls, so that a difference between two figures is one of the
 * library and not of the benchmark.
 *
 * As in OSU, process i of the first half is paired with process i of the second; the first half is
 * timed. In a collective all are. Threads: one. */
#ifndef DJ_BENCHMARKS_MPI_TWIN_H
#define DJ_BENCHMARKS_MPI_TWIN_H

#include <mpi.h>

#include "benchmarks/osu.h"

typedef struct dj_twin dj_twin_t;

typedef struct dj_twin_kind {
    dj_osu_test_t test;
    int least, most; /* processes */
    bool collective;
    int ways; /* of a bandwidth: messages that each one of a window stands for */
    void (*measure)(dj_twin_t *twin, uint64_t bytes);
} dj_twin_kind_t;

struct dj_twin {
    const dj_twin_kind_t *kind;
    dj_osu_options_t options;
    int rank, size, peer;  /* peer: of the pair */
    bool first;            /* the timed side of a pair */
    char *out, *in;        /* dj_osu_ring_bytes() each */
    MPI_Request *requests; /* two windows */
    uint64_t iterations, warmup, n_samples, wrong;
    double *samples;
};

/* The process's exit status. */
int dj_twin_main(const dj_twin_kind_t *kind, int argc, char **argv);

static inline uint64_t dj_twin_rounds(const dj_twin_t *twin)
{
    return twin->warmup + twin->iterations;
}

static inline void dj_twin_sample(dj_twin_t *twin, uint64_t round, double us)
{
    if (round >= twin->warmup)
        twin->samples[twin->n_samples++] = us;
}

/* One ping and its pong; what latency and multi_lat measure. */
void dj_twin_ping_pong(dj_twin_t *twin, uint64_t bytes);
/* Windows in one direction, or in both (kind->ways is 2), and a short answer; bw, bibw and mbw_mr.
 */
void dj_twin_windows(dj_twin_t *twin, uint64_t bytes);

#endif
