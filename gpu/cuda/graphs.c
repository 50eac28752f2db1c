/* graphs.c - instances: a fixed list captured as CUDA graphs, and which of them a launch finds (executable.h).
 *
 * A graph bakes in the addresses of Stack, spill, weights and folded values; those are an instance's key. Contents are
 * no part of it: what lies at an address when the graph runs is what counts, and bind() knows whose that is. A new
 * plan clears all instances. An executable keeps DJ_CUDA_INSTANCES_MAX; the one least recently used makes room.
 *
 * The first graph begins with a kernel that reads the launch's table and scalars from their pinned mirror, whose
 * content is each replay's own. It costs less than a copy before the graph: no call, and the copy engine and the
 * multiprocessors need not wait for each other.
 *
 * A key is captured at its second replay: most programs that come once never come again. The capture goes to a stream
 * of its own, so that what other threads enqueue meanwhile stays out of it. Long lists are cut into several graphs,
 * between steps (replay.c says why). */
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/executable.h"
#include "gpu/cuda/kernels/layout.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "gpu"

void dj_cuda_instance_clear(dj_cuda_instance_t *instance)
{
    for (uint32_t i = 0; i < instance->n_pieces; i++)
        dj_cuda.cuGraphExecDestroy(instance->pieces[i].graph);
    free(instance->pieces);
    *instance = (dj_cuda_instance_t){.fixed = instance->fixed};
}

static bool is_key(const dj_cuda_executable_t *exe, const dj_cuda_instance_t *instance, const dj_launch_t *launch)
{
    if (!instance->used || instance->stack != (CUdeviceptr)(uintptr_t)launch->stack ||
        instance->spill != (CUdeviceptr)(uintptr_t)launch->spill)
        return false;
    for (uint32_t i = 0, n = 0; n < exe->n_fixed; i++)
        if (!exe->moves[i] && instance->fixed[n++] != launch->bindings[i])
            return false;
    return true;
}

dj_cuda_instance_t *dj_cuda_instance_of(dj_cuda_executable_t *exe, const dj_launch_t *launch)
{
    dj_cuda_instance_t *oldest = &exe->instances[0];
    exe->clock++;
    for (uint32_t i = 0; i < DJ_CUDA_INSTANCES_MAX; i++) {
        dj_cuda_instance_t *instance = &exe->instances[i];
        if (is_key(exe, instance, launch)) {
            instance->used = exe->clock;
            return instance;
        }
        oldest = instance->used < oldest->used ? instance : oldest;
    }
    dj_cuda_instance_clear(oldest);
    oldest->used = exe->clock;
    oldest->stack = (CUdeviceptr)(uintptr_t)launch->stack;
    oldest->spill = (CUdeviceptr)(uintptr_t)launch->spill;
    for (uint32_t i = 0, n = 0; n < exe->n_fixed; i++)
        if (!exe->moves[i])
            oldest->fixed[n++] = launch->bindings[i];
    return oldest;
}

/* The mirror's content at the time of each launch goes to the device's block. */
static dj_status_t take_block(const dj_cuda_executable_t *exe, CUstream stream)
{
    const dj_cuda_block_t *block = &exe->block;
    uint64_t words = block->n_bindings + (uint64_t)block->n_scalars;
    dj_layout_bytes_t p = {.from = dj_cuda_ref_at((CUdeviceptr)(uintptr_t)block->mirror),
                           .to = dj_cuda_ref_at(block->device),
                           .bytes = words * sizeof(uint64_t),
                           .item_bytes = sizeof(uint64_t)};
    void *params[] = {&p};
    if (words == 0)
        return DJ_OK;
    dj_cuda_grid_t grid = dj_cuda_grid_flat(dj_cuda_device_of(&exe->base), (int64_t)(p.bytes / 16 + 1), 256, 1);
    return dj_cuda_status(dj_cuda.cuLaunchKernel(exe->move, grid.blocks[0], 1, 1, grid.threads[0], 1, 1, 0, stream,
                                                 params, NULL),
                          "the launch's table");
}

/* Records [first, end) as one graph that is ready to launch. */
static dj_status_t capture_piece(dj_cuda_executable_t *exe, uint32_t first, uint32_t end, CUstream stream,
                                 dj_cuda_piece_t *piece)
{
    CUgraph graph = NULL;
    dj_status_t status = dj_cuda_status(dj_cuda.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED),
                                        "beginning a capture");
    if (status != DJ_OK)
        return status;
    if (first == 0)
        status = take_block(exe, stream);
    if (status == DJ_OK)
        status = dj_cuda_list_play(exe, &exe->fixed, first, end, stream);
    CUresult ended = dj_cuda.cuStreamEndCapture(stream, &graph);
    if (ended != CUDA_SUCCESS && !graph) /* a stream that still captures could not be given back */
        dj_cuda.cuStreamEndCapture(stream, &graph);
    if (status == DJ_OK)
        status = dj_cuda_status(ended, "ending a capture");
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuGraphInstantiate(&piece->graph, graph, 0), "instantiating a graph");
    if (graph)
        dj_cuda.cuGraphDestroy(graph);
    return status;
}

static dj_status_t capture_pieces(dj_cuda_executable_t *exe, dj_cuda_instance_t *instance, CUstream stream)
{
    CUstream compute = dj_cuda_device_of(&exe->base)->compute;
    dj_status_t status = DJ_OK;
    uint32_t n = 0;
    for (uint32_t first = 0; first < exe->fixed.n_records; n++)
        first = dj_cuda_list_cut(exe, &exe->fixed, first);
    instance->pieces = calloc(n + 1ull, sizeof(*instance->pieces));
    if (!instance->pieces)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u graphs", n);
    for (uint32_t first = 0, end; status == DJ_OK && first < exe->fixed.n_records; first = end) {
        dj_cuda_piece_t *piece = &instance->pieces[instance->n_pieces];
        end = dj_cuda_list_cut(exe, &exe->fixed, first);
        piece->from = exe->steps[exe->fixed.records[first].step].node;
        piece->to = exe->steps[exe->fixed.records[end - 1].step].node;
        status = capture_piece(exe, first, end, stream, piece);
        if (status != DJ_OK)
            break;
        instance->n_pieces++;
        status = dj_cuda_status(dj_cuda.cuGraphUpload(piece->graph, compute), "uploading a graph");
    }
    return status;
}

dj_status_t dj_cuda_instance_capture(dj_cuda_executable_t *exe, dj_cuda_instance_t *instance,
                                     const dj_launch_t *launch)
{
    dj_cuda_resolution_t resolution = {instance->stack, instance->spill, launch->bindings, launch->scalars, false};
    CUstream stream;
    dj_status_t status = dj_cuda_list_make(exe, &resolution, &exe->fixed);
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, 0),
                                "a stream to capture on");
    if (status == DJ_OK) {
        status = capture_pieces(exe, instance, stream);
        dj_cuda.cuStreamDestroy(stream);
    }
    if (status == DJ_OK) {
        instance->captured = true;
        exe->counters.captures++;
        return DJ_OK;
    }
    for (uint32_t i = 0; i < instance->n_pieces; i++)
        dj_cuda.cuGraphExecDestroy(instance->pieces[i].graph);
    free(instance->pieces);
    instance->pieces = NULL;
    instance->n_pieces = 0;
    bool is_first = instance->rest == 0;
    if (status == DJ_ERR_MEMORY) /* which may come back */
        instance->rests = instance->rest = is_first ? DJ_CUDA_CAPTURE_REST : 2 * instance->rest;
    else
        instance->refused = true;
    if (status != DJ_ERR_DEVICE && is_first)
        dj_log(WARN, "a program of %u steps replays without a CUDA graph: %s", exe->n_steps, dj_error_text());
    return status;
}
