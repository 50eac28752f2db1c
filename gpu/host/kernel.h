/* kernel.h - what kernels share: a node's arguments, loops over views, threads' shares of work.
 *
 * A loop is the joint walk of up to DJ_LOOP_MAX views of one shape: dimensions of size 1 dropped,
 * ordered by the strides of the last view (the output), and merged where all views allow it. A
 * contiguous job of any rank is thus one dimension, and every kernel is an inner function over a
 * row.
 *
 * Threads: pure. */
#ifndef DJ_GPU_HOST_KERNEL_H
#define DJ_GPU_HOST_KERNEL_H

#include <omp.h>
#include <string.h>

#include "gpu/host/host.h"

#define DJ_LOOP_MAX 4

/* One dtype class a compute type (gpu/pointwise.h). */
typedef enum dj_host_class {
    DJ_HOST_F32,
    DJ_HOST_F64,
    DJ_HOST_I64,
    DJ_HOST_B8,
    DJ_HOST_CLASSES,
} dj_host_class_t;

static inline dj_host_class_t dj_host_class_of(uint8_t dtype)
{
    if (dtype == DJ_BOOL)
        return DJ_HOST_B8;
    if (dtype == DJ_F64)
        return DJ_HOST_F64;
    return dtype >= DJ_F16 && dtype <= DJ_F32 ? DJ_HOST_F32 : DJ_HOST_I64;
}

/* The dtype whose bytes are the class's own. */
static inline uint8_t dj_host_class_dtype(dj_host_class_t class)
{
    static const uint8_t dtypes[] = {DJ_F32, DJ_F64, DJ_I64, DJ_BOOL};
    return dtypes[class];
}

/* The operand of a tensor argument; NULL when absent. */
static inline const dj_operand_t *dj_host_operand(const dj_node_t *node, uint32_t arg)
{
    const dj_arg_t *a = &node->call.args[arg];
    if (a->kind != DJ_ARG_TENSORS || a->count == 0 || a->operands[0].storage == DJ_STORAGE_NONE)
        return NULL;
    return &a->operands[0];
}

/* A scalar argument, or a scalar standing in for a tensor: where its value will be. */
typedef struct dj_host_scalar {
    uint32_t slot; /* DJ_SLOT_NONE: absent */
    uint8_t dtype;
} dj_host_scalar_t;

static inline dj_host_scalar_t dj_host_scalar(const dj_node_t *node, uint32_t arg)
{
    const dj_arg_t *a = &node->call.args[arg];
    if (a->kind == DJ_ARG_TENSORS && a->count && a->operands[0].storage == DJ_STORAGE_SCALAR)
        return (dj_host_scalar_t){a->operands[0].slot, a->operands[0].view.dtype};
    if (a->kind == DJ_ARG_SCALAR && a->scalar.dtype != DJ_DTYPE_NONE)
        return (dj_host_scalar_t){a->slot, a->scalar.dtype};
    return (dj_host_scalar_t){DJ_SLOT_NONE, DJ_DTYPE_NONE};
}

static inline double dj_host_scalar_real(const dj_host_run_t *run, dj_host_scalar_t scalar)
{
    return dj_host_real(run->scalars[scalar.slot], scalar.dtype);
}

static inline int64_t dj_host_scalar_integer(const dj_host_run_t *run, dj_host_scalar_t scalar)
{
    return dj_host_integer(run->scalars[scalar.slot], scalar.dtype);
}

/* A structural integer or flag; `absent` when the argument is none. */
static inline int64_t dj_host_flag(const dj_node_t *node, uint32_t arg, int64_t absent)
{
    const dj_arg_t *a = &node->call.args[arg];
    return a->kind == DJ_ARG_INTEGER ? a->integer : absent;
}

/* A dimension argument brought into 0..rank-1 (0 for rank 0). */
static inline uint32_t dj_host_dim(int64_t dim, uint32_t rank)
{
    dim = dim < 0 ? dim + rank : dim;
    return dim >= 0 && dim < (int64_t)rank ? (uint32_t)dim : 0;
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

typedef struct dj_loop {
    uint32_t n, rank; /* views; dimensions, at least 1 */
    int64_t count;    /* elements */
    int64_t sizes[DJ_RANK_MAX];
    int64_t strides[DJ_LOOP_MAX][DJ_RANK_MAX]; /* bytes */
} dj_loop_t;

/* A joint walk over views broadcast to the shape of the last. NULL views are allowed (stride 0).
 * DJ_ERR_SHAPE when one does not broadcast. */
dj_status_t dj_loop_make(dj_loop_t *loop, const dj_view_t *const *views, uint32_t n);

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
