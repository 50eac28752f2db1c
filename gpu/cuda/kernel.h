/* kernel.h - inside the CUDA device: a kernel is prepared once for exact sizes, emitted when its place is known.
 *
 *   compile:  prepare(node)  ─▶ state, workspace bytes         (no device work but loading functions)
 *   place:    groups of pointwise steps become fused functions (fuse.h)
 *   emit:     kernel ─▶ launches: function, grid, parameter struct (kernels/params.h)
 *   replay:   launches go to the compute stream, or are captured once into CUDA graphs (replay.c)
 *
 * Kernels live by family as on the host: gpu/cuda/<family>.c holds prepare and emit, in C;
 * gpu/cuda/kernels/<family>.cu the device code, <family>.h beside it their parameter structs. slots.c is the table
 * of ops. An operand's number is dj_node_operand_index(): tensor arguments in call order, then outputs.
 *
 * Library calls (cuBLASLt, cuDNN) need real pointers, which a captured graph bakes in. So an operand of such a call
 * that is *moving* (behind a binding that is not Text, or with an offset that travels as a scalar) passes through
 * the workspace: the kernel asks for room at prepare (dj_cuda_moving_bytes()) and calls dj_cuda_emit_fixed_in() or
 * _out(), which copy only where it is needed.
 *
 * Threads: prepare and emit from one thread at a time per executable. */
#ifndef DJ_GPU_CUDA_KERNEL_H
#define DJ_GPU_CUDA_KERNEL_H

#include "gpu/cuda/api.h"
#include "gpu/cuda/kernels/params.h"
#include "gpu/device.h"
#include "gpu/loop.h"
#include "gpu/node.h"

typedef struct dj_cuda_device dj_cuda_device_t;
typedef struct dj_cuda_kernel dj_cuda_kernel_t;
typedef struct dj_cuda_emit dj_cuda_emit_t;

struct dj_cuda_kernel {
    const dj_node_t *node;
    void *state; /* of dj_cuda_arena() */
    uint64_t workspace_bytes;
    /* Appends the launches of one step. DJ_ERR_MEMORY; nothing else can go wrong once prepared. */
    dj_status_t (*emit)(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit);
    /* Optional: gives back what the arena does not hold (library descriptors). */
    void (*fini)(dj_cuda_kernel_t *kernel);
    bool pointwise; /* made by fuse.c at place, alone or with its group: emit is NULL */
};

/* Fills state, workspace_bytes, emit, fini or pointwise. DJ_ERR_UNSUPPORTED when dtypes or shapes have no kernel
 * (the sentence says which), DJ_ERR_MEMORY. */
typedef dj_status_t (*dj_cuda_prepare_fn_t)(dj_executable_t *exe, dj_cuda_kernel_t *kernel);

/* Slots by op; NULL: not supported (slots.c). */
extern const dj_cuda_prepare_fn_t dj_cuda_slots[DJ_OP_COUNT];

/* Zeroed memory that lives as long as the executable; NULL when memory is short. */
void *dj_cuda_arena(dj_executable_t *exe, size_t bytes);
static inline dj_cuda_device_t *dj_cuda_device_of(const dj_executable_t *exe)
{
    return (dj_cuda_device_t *)exe->device;
}

/* The device function `name` of the built-in fatbins; loaded at first use, kept. DJ_ERR_UNSUPPORTED says that this
 * GPU or driver has no code for it. (module.c) */
dj_status_t dj_cuda_function(dj_cuda_device_t *device, const char *name, CUfunction *function_p);

/* ---- at prepare ---- */

/* The loop of kernels/params.h from views broadcast to the last; DJ_ERR_SHAPE. */
dj_status_t dj_cuda_loop_make(dj_cuda_loop_t *loop, const dj_view_t *const *views, uint32_t n);
/* A scalar argument of the node, or a scalar in place of a tensor. */
dj_cuda_scalar_t dj_cuda_scalar_of(const dj_node_t *node, uint32_t arg);
/* 0 when the operand's address can be baked in; else the bytes from its view's first to past its last element,
 * rounded up to DJ_ALIGN_BYTES: room in the workspace for dj_cuda_emit_fixed_in() or _out(). */
uint64_t dj_cuda_moving_bytes(const dj_executable_t *exe, const dj_node_t *node, uint32_t operand);

/* ---- at emit ---- */

typedef struct dj_cuda_grid {
    uint32_t blocks[3], threads[3];
    uint32_t shared_bytes; /* dynamic */
} dj_cuda_grid_t;

/* Blocks of `threads` for `count` elements, `per_thread` each; at most what fills the GPU several times. */
dj_cuda_grid_t dj_cuda_grid_flat(const dj_cuda_device_t *device, int64_t count, uint32_t threads,
                                 uint32_t per_thread);

dj_cuda_ref_t dj_cuda_emit_ref(const dj_cuda_emit_t *emit, uint32_t operand);
CUdeviceptr dj_cuda_emit_workspace(const dj_cuda_emit_t *emit); /* the kernel's own workspace_bytes of it */
/* `params` begins with a dj_cuda_head_t, which is filled here; copied. */
dj_status_t dj_cuda_emit_kernel(dj_cuda_emit_t *emit, CUfunction function, const dj_cuda_grid_t *grid,
                                void *params, uint32_t params_bytes);

/* A library call: run once per capture, or once per replay where no graph is used. `addresses` (at most
 * DJ_CUDA_ADDRESSES_MAX) are copied. It only enqueues on `stream`. */
#define DJ_CUDA_ADDRESSES_MAX 8
typedef dj_status_t (*dj_cuda_call_fn_t)(const dj_cuda_kernel_t *kernel, dj_cuda_device_t *device,
                                         CUstream stream, const CUdeviceptr *addresses);
dj_status_t dj_cuda_emit_call(dj_cuda_emit_t *emit, const dj_cuda_kernel_t *kernel, dj_cuda_call_fn_t call,
                              const CUdeviceptr *addresses, uint32_t n_addresses);
/* A real address of an operand's first element: the operand's own, or of a copy at `room` (in the workspace). */
dj_status_t dj_cuda_emit_fixed_in(dj_cuda_emit_t *emit, uint32_t operand, CUdeviceptr room, CUdeviceptr *address_p);
/* The same for an output: write to *address_p, then dj_cuda_emit_fixed_done() copies it home where needed. Only for
 * outputs whose view is dense. */
dj_status_t dj_cuda_emit_fixed_out(dj_cuda_emit_t *emit, uint32_t operand, CUdeviceptr room, CUdeviceptr *address_p);
dj_status_t dj_cuda_emit_fixed_done(dj_cuda_emit_t *emit, uint32_t operand, CUdeviceptr room);

#endif
