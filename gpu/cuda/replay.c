/* replay.c - one request on the device: its table and scalars go in, launches follow, one event says that all is over.
 *
 * All replays of a device share the compute stream, each waits for its own end, so the pinned mirror of an
 * executable is free again when the next one begins. The thread spins for SPIN_NS (most decode steps end within), then
 * sleeps at the event; watch.c says who minds that it is not for ever. Nothing is allocated: lists have their room
 * since place(). Only the second replay of a key captures (graphs.c).
 *
 * A long program goes to the stream in pieces of DJ_CUDA_GRAPH_NS, two at a time: the second keeps the GPU busy while
 * the thread sees the first one end, and another thread's replay gets its turn behind those two.
 *
 * A kernel that met an index out of range has clamped it and written its node into the fault word; what the GPU itself
 * faults on ends the rank (DJ_ERR_DEVICE). */
#include <string.h>

#include "gpu/cuda/executable.h"
#include "gpu/cuda/watch.h"
#include "runtime/base/clock.h"

#define SPIN_NS 100000u
#define GUARD_BYTE 0xa5
#define CAPTURE_AT 2 /* replays of a key; the first ones play directly */

static CUdeviceptr guard_of(const dj_cuda_executable_t *exe, const dj_launch_t *launch)
{
    uint64_t workspace = exe->base.plan->workspace_bytes;
    if (!dj_cuda_device_of(&exe->base)->poison || workspace < DJ_CUDA_GUARD_BYTES)
        return 0;
    return (CUdeviceptr)(uintptr_t)launch->stack + workspace - DJ_CUDA_GUARD_BYTES;
}

static void fill_block(dj_cuda_executable_t *exe, const dj_launch_t *launch)
{
    dj_cuda_block_t *block = &exe->block;
    *block->fault = 0;
    if (block->n_bindings)
        memcpy(block->mirror, launch->bindings, block->n_bindings * sizeof(uint64_t));
    if (block->n_scalars)
        memcpy(block->mirror + block->n_bindings, launch->scalars, block->n_scalars * sizeof(uint64_t));
}

/* Graphs fetch it themselves (graphs.c). */
static dj_status_t send_block(const dj_cuda_executable_t *exe, CUstream compute)
{
    const dj_cuda_block_t *block = &exe->block;
    size_t words = block->n_bindings + (size_t)block->n_scalars;
    if (words == 0)
        return DJ_OK;
    return dj_cuda_status(dj_cuda.cuMemcpyHtoDAsync(block->device, block->mirror, words * sizeof(uint64_t), compute),
                          "the launch's table");
}

/* Until piece `at` is over, of which `event` tells. */
static CUresult wait_piece(dj_cuda_executable_t *exe, uint32_t at, CUevent event)
{
    dj_cuda_watch_nodes(exe->watch, exe->base.graph, exe->ends[at % 2][0], exe->ends[at % 2][1]);
    CUresult result = dj_cuda.cuEventSynchronize(event);
    dj_cuda_watch_heard(dj_cuda_device_of(&exe->base));
    return result;
}

static void begin_piece(dj_cuda_executable_t *exe, uint32_t from, uint32_t to)
{
    uint32_t *ends = exe->ends[exe->n_played++ % 2];
    ends[0] = from;
    ends[1] = to;
}

/* After piece `at`, which is not the last: it may run ahead of the one before it, and no further. */
static dj_status_t pace(dj_cuda_executable_t *exe, uint32_t at, CUstream compute)
{
    CUresult result = dj_cuda.cuEventRecord(exe->paces[at % 2], compute);
    if (result == CUDA_SUCCESS && at > 0)
        result = wait_piece(exe, at - 1, exe->paces[(at - 1) % 2]);
    return dj_cuda_status(result, "a piece of a replay");
}

static dj_status_t play_direct(dj_cuda_executable_t *exe, const dj_launch_t *launch, CUstream compute)
{
    dj_cuda_resolution_t resolution = {(CUdeviceptr)(uintptr_t)launch->stack, (CUdeviceptr)(uintptr_t)launch->spill,
                                       launch->bindings, launch->scalars, true};
    const dj_cuda_list_t *list = &exe->direct;
    dj_status_t status = dj_cuda_list_make(exe, &resolution, &exe->direct);
    for (uint32_t first = 0, end, at = 0; status == DJ_OK && first < list->n_records; first = end, at++) {
        end = dj_cuda_list_cut(exe, list, first);
        begin_piece(exe, exe->steps[list->records[first].step].node, exe->steps[list->records[end - 1].step].node);
        status = dj_cuda_list_play(exe, list, first, end, compute);
        if (status == DJ_OK && end < list->n_records)
            status = pace(exe, at, compute);
    }
    exe->counters.direct_replays++;
    exe->counters.launches += list->n_records;
    return status;
}

static dj_status_t play_graphs(dj_cuda_executable_t *exe, const dj_cuda_instance_t *instance, CUstream compute)
{
    dj_status_t status = DJ_OK;
    for (uint32_t at = 0; status == DJ_OK && at < instance->n_pieces; at++) {
        const dj_cuda_piece_t *piece = &instance->pieces[at];
        begin_piece(exe, piece->from, piece->to);
        status = dj_cuda_status(dj_cuda.cuGraphLaunch(piece->graph, compute), "a graph");
        if (status == DJ_OK && at + 1 < instance->n_pieces)
            status = pace(exe, at, compute);
    }
    exe->counters.graph_replays++;
    exe->counters.launches += instance->n_pieces;
    return status;
}

/* The instance to launch, NULL: play directly. */
static dj_status_t find_instance(dj_cuda_executable_t *exe, const dj_launch_t *launch,
                                 const dj_cuda_instance_t **instance_p)
{
    *instance_p = NULL;
    if (!dj_cuda_device_of(&exe->base)->use_graphs || !exe->all_fixed)
        return DJ_OK;
    dj_cuda_instance_t *instance = dj_cuda_instance_of(exe, launch);
    instance->seen += instance->seen < CAPTURE_AT;
    if (instance->seen < CAPTURE_AT || instance->refused)
        return DJ_OK;
    if (instance->rests) {
        instance->rests--;
        return DJ_OK;
    }
    if (!instance->captured) {
        dj_status_t status = dj_cuda_instance_capture(exe, instance, launch);
        if (status != DJ_OK)
            return status == DJ_ERR_DEVICE ? status : DJ_OK;
    }
    *instance_p = instance;
    return DJ_OK;
}

static dj_status_t enqueue(dj_cuda_executable_t *exe, const dj_launch_t *launch, CUdeviceptr guard, CUstream compute)
{
    const dj_cuda_instance_t *instance;
    dj_status_t status = find_instance(exe, launch, &instance);
    fill_block(exe, launch);
    if (status == DJ_OK && !instance)
        status = send_block(exe, compute);
    if (status == DJ_OK && guard)
        status = dj_cuda_status(dj_cuda.cuMemsetD8Async(guard, GUARD_BYTE, DJ_CUDA_GUARD_BYTES, compute), "the guard");
    if (status != DJ_OK)
        return status;
    status = instance ? play_graphs(exe, instance, compute) : play_direct(exe, launch, compute);
    if (status == DJ_OK && guard)
        status = dj_cuda_status(dj_cuda.cuMemcpyDtoHAsync(exe->block.guard, guard, DJ_CUDA_GUARD_BYTES, compute),
                                "the guard");
    return status;
}

static dj_status_t wait_done(dj_cuda_executable_t *exe, CUstream compute)
{
    CUresult result = dj_cuda.cuEventRecord(exe->done, compute);
    uint32_t last = exe->n_played > 0 ? exe->n_played - 1 : 0;
    if (result == CUDA_SUCCESS && last > 0) /* that it is over must be heard, too */
        result = wait_piece(exe, last - 1, exe->paces[(last - 1) % 2]);
    if (result == CUDA_SUCCESS) {
        uint64_t until_ns = dj_clock_ns() + SPIN_NS;
        do
            result = dj_cuda.cuEventQuery(exe->done);
        while (result == CUDA_ERROR_NOT_READY && dj_clock_ns() < until_ns);
        if (result == CUDA_ERROR_NOT_READY)
            result = exe->n_played ? wait_piece(exe, last, exe->done) : dj_cuda.cuEventSynchronize(exe->done);
    }
    return dj_cuda_status(result, "a replay");
}

static dj_status_t check_faults(const dj_cuda_executable_t *exe, bool guarded)
{
    const dj_graph_t *graph = exe->base.graph;
    uint32_t fault = *exe->block.fault;
    if (fault > 0 && fault <= graph->n_nodes)
        return dj_fail(DJ_ERR_INVALID, "node %u, %s: an index is out of range", fault - 1,
                       dj_op_info(graph->nodes[fault - 1].call.op)->name);
    if (fault > 0)
        return dj_fail(DJ_ERR_INTERNAL, "replay: a kernel wrote over the fault word");
    for (uint32_t i = 0; guarded && i < DJ_CUDA_GUARD_BYTES; i++)
        if (exe->block.guard[i] != GUARD_BYTE)
            return dj_fail(DJ_ERR_INTERNAL, "replay: a kernel wrote past its workspace of %llu bytes",
                           (unsigned long long)exe->base.plan->workspace_bytes);
    return DJ_OK;
}

/* What was enqueued before the failure still reads the mirror, so it is waited for. Libraries answer a lost context
 * with errors of their own; the stream tells it from a call that was refused. */
static dj_status_t settle(CUstream compute, dj_status_t status)
{
    CUresult result = dj_cuda.cuStreamSynchronize(compute);
    return status != DJ_ERR_DEVICE && dj_cuda_is_fault(result) ? dj_cuda_status(result, "a replay") : status;
}

dj_status_t dj_cuda_replay(dj_executable_t *base, const dj_launch_t *launch)
{
    dj_cuda_executable_t *exe = (dj_cuda_executable_t *)base;
    dj_cuda_device_t *device = dj_cuda_device_of(base);
    CUdeviceptr guard = guard_of(exe, launch);
    if (!exe->bound)
        return dj_fail(DJ_ERR_INTERNAL, "replay: nothing was bound");
    dj_status_t status = dj_cuda_enter(device);
    exe->watch = dj_cuda_watch_begin(device, true);
    exe->n_played = 0;
    if (status == DJ_OK)
        status = enqueue(exe, launch, guard, device->compute);
    if (status == DJ_OK)
        status = wait_done(exe, device->compute);
    else
        status = settle(device->compute, status);
    dj_cuda_watch_end(exe->watch);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "GPU %s (%s)", device->info.name, device->pci);
    return check_faults(exe, guard != 0);
}
