/* passage.c - see passage.h. */
#include "gpu/cuda/passage.h"

uint64_t dj_cuda_take_room(dj_cuda_kernel_t *kernel, uint64_t bytes)
{
    uint64_t room = kernel->workspace_bytes;
    kernel->workspace_bytes += dj_align_up(bytes);
    return room;
}

dj_status_t dj_cuda_passage_gather(dj_executable_t *exe, dj_cuda_kernel_t *kernel, dj_cuda_passage_t *passage,
                                   const dj_view_t *view, bool is_output)
{
    dj_view_t dense = dj_view_contiguous(view->dtype, view->rank, view->sizes);
    passage->gathered = true;
    passage->room = dj_cuda_take_room(kernel, dj_view_dense_bytes(view));
    return is_output ? dj_cuda_copy_make(exe, &passage->copy, &dense, view)
                     : dj_cuda_copy_make(exe, &passage->copy, view, &dense);
}

void dj_cuda_passage_through(dj_executable_t *exe, dj_cuda_kernel_t *kernel, dj_cuda_passage_t *passage)
{
    passage->room = dj_cuda_take_room(kernel, dj_cuda_moving_bytes(exe, kernel->node, passage->operand));
}

static CUdeviceptr room_of(const dj_cuda_passage_t *passage, const dj_cuda_emit_t *emit)
{
    return dj_cuda_emit_workspace(emit) + passage->room;
}

dj_status_t dj_cuda_passage_in(const dj_cuda_passage_t *passage, dj_cuda_emit_t *emit, const dj_cuda_device_t *device,
                               CUdeviceptr *address_p)
{
    CUdeviceptr room = room_of(passage, emit);
    if (!passage->gathered)
        return dj_cuda_emit_fixed_in(emit, passage->operand, room, address_p);
    *address_p = room;
    return dj_cuda_copy_emit(&passage->copy, emit, device, dj_cuda_emit_ref(emit, passage->operand),
                             dj_cuda_ref_at(room));
}

dj_status_t dj_cuda_passage_out(const dj_cuda_passage_t *passage, dj_cuda_emit_t *emit, CUdeviceptr *address_p)
{
    *address_p = room_of(passage, emit);
    return passage->gathered ? DJ_OK : dj_cuda_emit_fixed_out(emit, passage->operand, *address_p, address_p);
}

dj_status_t dj_cuda_passage_done(const dj_cuda_passage_t *passage, dj_cuda_emit_t *emit,
                                 const dj_cuda_device_t *device)
{
    CUdeviceptr room = room_of(passage, emit);
    if (!passage->gathered)
        return dj_cuda_emit_fixed_done(emit, passage->operand, room);
    return dj_cuda_copy_emit(&passage->copy, emit, device, dj_cuda_ref_at(room),
                             dj_cuda_emit_ref(emit, passage->operand));
}
