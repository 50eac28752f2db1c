/* kernel.h - what host kernels share: loops over views, threads' shares of work.
 *
 * A walk goes through a loop (gpu/loop.h) row by row: a contiguous job of any rank is one row, and
 * every kernel is an inner function over a row.
 *
 * Threads: pure. */
#ifndef DJ_GPU_HOST_KERNEL_H
#define DJ_GPU_HOST_KERNEL_H

#include <omp.h>
#include <string.h>

#include "gpu/host/host.h"
#include "gpu/loop.h"

static inline double dj_host_scalar_real(const dj_host_run_t *run, dj_node_scalar_t scalar)
{
    return dj_scalar_real(run->scalars[scalar.slot], scalar.dtype);
}

static inline int64_t dj_host_scalar_integer(const dj_host_run_t *run, dj_node_scalar_t scalar)
{
    return dj_scalar_integer(run->scalars[scalar.slot], scalar.dtype);
}

static inline int64_t dj_host_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t dj_host_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Threads for a job of `elements`: one when the job is small. */
static inline uint32_t dj_host_threads(const dj_host_run_t *run, int64_t elements)
{
    return elements < DJ_HOST_FORK_ELEMENTS || run->threads == 0 ? 1 : run->threads;
}

/* The calling thread's part [*first_p, *end_p) of `count`, in multiples of `grain`. */
static inline void dj_host_share(int64_t count, int64_t grain, int64_t *first_p, int64_t *end_p)
{
    int64_t n = omp_get_num_threads(), i = omp_get_thread_num();
    int64_t share = ((count + grain - 1) / grain + n - 1) / n * grain;
    *first_p = dj_host_min(share * i, count);
    *end_p = dj_host_min(share * (i + 1), count);
}

typedef struct dj_walk {
    int64_t index[DJ_RANK_MAX];
    char *at[DJ_LOOP_MAX];
} dj_walk_t;

static inline void dj_walk_seek(const dj_loop_t *loop, dj_walk_t *walk, void *const *bases,
                                int64_t element)
{
    for (uint32_t k = 0; k < loop->n; k++)
        walk->at[k] = bases[k];
    for (uint32_t d = loop->rank; d-- > 0;) {
        walk->index[d] = element % loop->sizes[d];
        element /= loop->sizes[d];
        for (uint32_t k = 0; k < loop->n; k++)
            if (walk->at[k])
                walk->at[k] += walk->index[d] * loop->strides[k][d];
    }
}

/* Moves on by `n` elements, which must not pass the end of the row. */
static inline void dj_walk_advance(const dj_loop_t *loop, dj_walk_t *walk, int64_t n)
{
    uint32_t d = loop->rank - 1;
    for (uint32_t k = 0; k < loop->n; k++)
        walk->at[k] += n * loop->strides[k][d];
    walk->index[d] += n;
    while (d > 0 && walk->index[d] == loop->sizes[d]) {
        for (uint32_t k = 0; k < loop->n; k++)
            walk->at[k] += loop->strides[k][d - 1] - loop->sizes[d] * loop->strides[k][d];
        walk->index[d] = 0;
        walk->index[--d]++;
    }
}

/* Elements left in the walk's row. */
static inline int64_t dj_walk_row(const dj_loop_t *loop, const dj_walk_t *walk)
{
    return loop->sizes[loop->rank - 1] - walk->index[loop->rank - 1];
}

#endif
