/* passage.h - how an operand of a library call comes to a fixed address: as it is, through the workspace where it moves
 * with the request, or by way of a dense form in the workspace where the library does not take its strides.
 *
 * Threads: as kernel.h says of prepare and emit. */
#ifndef DJ_GPU_CUDA_PASSAGE_H
#define DJ_GPU_CUDA_PASSAGE_H

#include "gpu/cuda/copy.h"

typedef struct dj_cuda_passage {
    uint32_t operand;
    bool gathered;       /* has a dense form */
    dj_cuda_copy_t copy; /* between the operand and that */
    uint64_t room;       /* offset in the workspace, of the dense form or of what moves */
} dj_cuda_passage_t;

/* The offset of `bytes` more of the kernel's workspace. */
uint64_t dj_cuda_take_room(dj_cuda_kernel_t *kernel, uint64_t bytes);

/* ---- at prepare; passage->operand is set ---- */

/* Gives the operand a dense form: filled from `view` when it is entered, or, of an output, brought home when it is
 * done. The copies' statuses. */
dj_status_t dj_cuda_passage_gather(dj_executable_t *exe, dj_cuda_kernel_t *kernel, dj_cuda_passage_t *passage,
                                   const dj_view_t *view, bool is_output);
/* Room to pass through where the operand moves; of an output, only if its view is dense. */
void dj_cuda_passage_through(dj_executable_t *exe, dj_cuda_kernel_t *kernel, dj_cuda_passage_t *passage);

/* ---- at emit ---- */

dj_status_t dj_cuda_passage_in(const dj_cuda_passage_t *passage, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                               CUdeviceptr *address_p);
dj_status_t dj_cuda_passage_out(const dj_cuda_passage_t *passage, dj_cuda_emit_t *emit, CUdeviceptr *address_p);
dj_status_t dj_cuda_passage_done(const dj_cuda_passage_t *passage, dj_cuda_emit_t *emit,
                                 const dj_cuda_device_t *device);

#endif
