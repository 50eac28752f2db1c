/* work.c - copies, fills, launches and library calls become operations of a stream. */
#include <string.h>

#include "tests/gpu/simulator/inner.h"

/* ---- operations ---- */

sim_op_t *sim_op_create(enum sim_kind kind, size_t data_bytes)
{
    size_t bytes = sizeof(sim_op_t) + data_bytes;
    sim_op_t *op = sim_room_take(bytes);
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->bytes = bytes;
    return op;
}

void sim_ticket_unref(sim_ticket_t *ticket)
{
    if (ticket && --ticket->refs == 0)
        sim_room_give(ticket);
}

void sim_op_destroy(sim_op_t *op)
{
    if (op->kind == SIM_RECORD || op->kind == SIM_WAIT)
        sim_ticket_unref(op->ticket);
    if (op->kind == SIM_LAUNCH)
        sim_exec_unref(op->exec);
    sim_room_give(op);
}

/* ---- copies ---- */

static bool is_reached(uint64_t address, uint64_t bytes)
{
    return sim_is_device(address, bytes) || sim_is_pinned((const void *)address, bytes);
}

static sim_op_t *copy_create(uint64_t target, uint64_t source, uint64_t bytes, bool staged)
{
    sim_op_t *op = sim_op_create(SIM_COPY, staged ? bytes : 0);
    op->copy.target = target;
    op->copy.source = source;
    op->copy.bytes = bytes;
    op->copy.staged = staged;
    if (staged)
        memcpy(op->data, (const void *)source, bytes);
    return op;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr target, const void *host, size_t bytes, CUstream handle)
{
    CUresult result = sim_enter("cuMemcpyHtoDAsync", SIM_CONTEXT);
    sim_stream_t *stream = sim_stream_of(handle);
    if (result == CUDA_SUCCESS && stream == NULL)
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && bytes && (host == NULL || !is_reached(target, bytes)))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && bytes) {
        /* Pageable memory is staged at the call, but for a graph, which reads it at each launch. */
        bool staged = !stream->capture && !is_reached((uint64_t)host, bytes);
        result = sim_submit(stream, copy_create(target, (uint64_t)host, bytes, staged));
    }
    return sim_leave(result);
}

CUresult cuMemcpyDtoHAsync(void *host, CUdeviceptr source, size_t bytes, CUstream handle)
{
    CUresult result = sim_enter("cuMemcpyDtoHAsync", SIM_CONTEXT);
    sim_stream_t *stream = sim_stream_of(handle);
    if (result == CUDA_SUCCESS && stream == NULL)
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && bytes && (host == NULL || !is_reached(source, bytes)))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && bytes) {
        bool capturing = stream->capture != NULL;
        result = sim_submit(stream, copy_create((uint64_t)host, source, bytes, false));
        /* Into pageable memory the call returns when the bytes are there. */
        if (result == CUDA_SUCCESS && !capturing && !is_reached((uint64_t)host, bytes))
            result = sim_run_to(stream, stream->tail->sequence);
    }
    return sim_leave(result);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream handle)
{
    CUresult result = sim_enter("cuMemcpyDtoDAsync", SIM_CONTEXT);
    sim_stream_t *stream = sim_stream_of(handle);
    if (result == CUDA_SUCCESS && stream == NULL)
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && bytes && (!is_reached(target, bytes) || !is_reached(source, bytes)))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && bytes)
        result = sim_submit(stream, copy_create(target, source, bytes, false));
    return sim_leave(result);
}

/* ---- fills ---- */

static CUresult fill(const char *name, CUdeviceptr target, uint32_t value, uint32_t width, size_t count,
                     CUstream handle)
{
    CUresult result = sim_enter(name, SIM_CONTEXT);
    sim_stream_t *stream = sim_stream_of(handle);
    if (result == CUDA_SUCCESS && stream == NULL)
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && count &&
        (target % width || count > UINT64_MAX / width || !is_reached(target, count * width)))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && count) {
        sim_op_t *op = sim_op_create(SIM_FILL, 0);
        op->fill.target = target;
        op->fill.count = count;
        op->fill.value = value;
        op->fill.width = width;
        result = sim_submit(stream, op);
    }
    return sim_leave(result);
}

CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t count, CUstream stream)
{
    return fill("cuMemsetD8Async", target, value, 1, count, stream);
}

CUresult cuMemsetD32Async(CUdeviceptr target, unsigned value, size_t count, CUstream stream)
{
    return fill("cuMemsetD32Async", target, value, 4, count, stream);
}

/* ---- launches ---- */

static CUresult check_launch(const sim_function_t *function, const sim_op_t *op, void **params)
{
    const unsigned *grid = op->kernel.grid, *block = op->kernel.block;
    for (int d = 0; d < 3; ++d) {
        if (grid[d] == 0 || block[d] == 0 || grid[d] > (d ? 65535u : 2147483647u) || block[d] > (d == 2 ? 64u : 1024u))
            return CUDA_ERROR_INVALID_VALUE;
    }
    if ((uint64_t)block[0] * block[1] * block[2] > 1024 || op->kernel.shared > function->shared_max || params == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static CUresult launch(CUfunction handle, sim_op_t *op, CUstream stream_handle, void **params)
{
    sim_function_t *function = (sim_function_t *)handle;
    sim_stream_t *stream = sim_stream_of(stream_handle);
    CUresult result = check_launch(function, op, params);
    if (stream == NULL)
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result != CUDA_SUCCESS) {
        sim_op_destroy(op);
        return result;
    }
    /* Lazy loading: a function's first launch loads it. In a capture a driver may refuse that; here it does. */
    if (stream->capture && !function->loaded) {
        sim_say("kernel %s is launched in a capture before it was loaded", function->name);
        sim_op_destroy(op);
        return sim_capture_spoil(stream);
    }
    function->loaded = true;
    memcpy(op->data, params[0], function->params_bytes);
    return sim_submit(stream, op);
}

CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void **params,
                        void **extra)
{
    CUresult result = sim_enter("cuLaunchKernel", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && !sim_is(handle, SIM_FUNCTION))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && extra)
        result = CUDA_ERROR_NOT_SUPPORTED;
    if (result == CUDA_SUCCESS) {
        sim_function_t *function = (sim_function_t *)handle;
        sim_op_t *op = sim_op_create(SIM_KERNEL, function->params_bytes);
        op->kernel.function = function;
        memcpy(op->kernel.grid, (unsigned[]){grid_x, grid_y, grid_z}, sizeof op->kernel.grid);
        memcpy(op->kernel.block, (unsigned[]){block_x, block_y, block_z}, sizeof op->kernel.block);
        op->kernel.shared = shared_bytes;
        result = launch(handle, op, stream, params);
    }
    return sim_leave(result);
}

CUresult sim_enqueue(CUstream handle, void (*fn)(void *), const void *argument, size_t bytes)
{
    CUresult result = sim_enter("sim_enqueue", SIM_CONTEXT);
    sim_stream_t *stream = sim_stream_of(handle);
    if (result == CUDA_SUCCESS && stream == NULL)
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS) {
        sim_op_t *op = sim_op_create(SIM_CALL, bytes);
        op->call = fn;
        memcpy(op->data, argument, bytes);
        result = sim_submit(stream, op);
    }
    return sim_leave(result);
}
