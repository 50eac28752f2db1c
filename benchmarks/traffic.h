/* traffic.h - what several benchmarks do with a rank: echoes for latency, windows and wholes for bandwidth. */
#ifndef DJ_BENCHMARKS_TRAFFIC_H
#define DJ_BENCHMARKS_TRAFFIC_H

#include "benchmarks/frame.h"

/* The same bytes there and back, one exchange a round. */
djinn_status_t dj_echo_open(dj_bench_t *bench);
void dj_echo_close(dj_bench_t *bench);
djinn_status_t dj_echo_measure(dj_bench_t *bench, uint64_t bytes);

/* A window of puts into the slots of one tensor, with kind->ways 2 a window of fetches from another
 * beside it, then one wait for all. */
djinn_status_t dj_windows_open(dj_bench_t *bench);
void dj_windows_close(dj_bench_t *bench);
djinn_status_t dj_windows_measure(dj_bench_t *bench, uint64_t bytes);

/* One fetch, or one move between two ranks, at a time. */
djinn_status_t dj_fetches_open(dj_bench_t *bench);
djinn_status_t dj_moves_open(dj_bench_t *bench);
void dj_wholes_close(dj_bench_t *bench);
djinn_status_t dj_wholes_measure(dj_bench_t *bench, uint64_t bytes);

#endif
