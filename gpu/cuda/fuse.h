/* fuse.h - one device function for a run of pointwise steps, from the expressions of planner/ops.def.
 *
 * The steps of a fusion group have contiguous outputs of one shape. Their source computes element by element: each
 * step's value stays in a register for the later steps of the group and is stored where the plan has its place. A
 * step alone is a group of one and may have any output view. The text depends on ops, dtypes and which operands are
 * dense, broadcast or scalars, not on sizes, so plans of many sizes share it.
 *
 * Threads: pure but for the device's function cache. */
#ifndef DJ_GPU_CUDA_FUSE_H
#define DJ_GPU_CUDA_FUSE_H

#include "gpu/cuda/cuda_device.h"

/* Is there a kernel for this pointwise node (op, dtypes)? DJ_ERR_UNSUPPORTED says what is missing. */
dj_status_t dj_cuda_pointwise_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel);

typedef struct dj_cuda_fused dj_cuda_fused_t;

/* The launches of nodes[0..n), in the executable's arena, not yet with their functions. DJ_ERR_MEMORY. */
dj_status_t dj_cuda_fuse(dj_executable_t *exe, const dj_node_t *const *nodes, uint32_t n,
                         dj_cuda_fused_t **fused_p);
/* Gets the functions that any of them still lacks, several at once on the device's compiling threads. The jit's
 * statuses; after a failure it may be called again. */
dj_status_t dj_cuda_fused_load(dj_executable_t *exe, dj_cuda_fused_t *const *fused, uint32_t n);
/* Lets go of its functions, which nothing may run any more. */
void dj_cuda_fused_drop(dj_executable_t *exe, dj_cuda_fused_t *fused);
/* refs[i]: the operands of nodes[i], then its outputs, in order. */
dj_status_t dj_cuda_fused_emit(const dj_cuda_fused_t *fused, dj_cuda_emit_t *emit,
                               const dj_cuda_ref_t *const *refs);
/* The source alone, to look at and to test without a device; malloc'ed, freed by the caller. */
dj_status_t dj_cuda_fuse_source(const dj_node_t *const *nodes, uint32_t n, char **source_p, const char **name_p);

#endif
