/* stub_device.h - the least that stands between a prepare function and its kernels: a device that compiles, places
 * and replays a program by running each launch at once on the CPU (simulator/emulate.cpp), without driver, streams
 * and graphs. So a family of kernels is tested by itself.
 *
 * Bindings are reached through the pointer table and view offsets through the scalar vector, as in the product.
 * `blocks_max` caps every grid, so that loops over grids are taken. Kernels are found by name in the program. */
#ifndef DJ_TESTS_GPU_CUDA_STUB_DEVICE_H
#define DJ_TESTS_GPU_CUDA_STUB_DEVICE_H

#include "tests/gpu/recorded.h"

#include "gpu/cuda/copy.h"
#include "gpu/cuda/cuda_device.h"
#include "gpu/place.h"
#include "tests/gpu/simulator/simulator.h"

#include <dlfcn.h>

#define STUB_ARENA_MAX 64
#define STUB_BINDINGS_MAX 64

static struct {
    uint32_t blocks_max;
    uint64_t launches;
} stub = {.blocks_max = 1 << 20};

typedef struct stub_step {
    dj_cuda_kernel_t *kernel;
    uint64_t staging;
    dj_cuda_copy_t unstage;
    uint32_t out; /* operand number of output 0 */
    uint32_t n_places;
    dj_place_t *places;
} stub_step_t;

typedef struct stub_exe {
    dj_executable_t base;
    dj_cuda_kernel_t *kernels;
    uint64_t *workspaces;
    uint32_t n_steps;
    stub_step_t *steps;
    void *arena[STUB_ARENA_MAX];
    uint32_t n_arena;
} stub_exe_t;

struct dj_cuda_emit {
    const stub_step_t *step;
    dj_cuda_head_t head;
    uint64_t stack, workspace;
    bool to_staging;
};

/* The families' prepare functions; set by the test. */
static dj_cuda_prepare_fn_t (*stub_slot)(uint16_t op);

/* ---- what kernel.h promises to kernels ---- */

void *dj_cuda_arena(dj_executable_t *exe, size_t bytes)
{
    stub_exe_t *self = (stub_exe_t *)exe;
    assert_in_range(self->n_arena, 0, STUB_ARENA_MAX - 1);
    return self->arena[self->n_arena++] = calloc(1, bytes);
}

dj_status_t dj_cuda_function(dj_cuda_device_t *device, const char *name, CUfunction *function_p)
{
    (void)device;
    *function_p = (CUfunction)dlsym(RTLD_DEFAULT, name);
    return *function_p ? DJ_OK : dj_fail(DJ_ERR_UNSUPPORTED, "no kernel %s", name);
}

dj_cuda_scalar_t dj_cuda_scalar_of(const dj_node_t *node, uint32_t arg)
{
    dj_node_scalar_t scalar = dj_node_scalar(node, arg);
    return (dj_cuda_scalar_t){scalar.slot == DJ_SLOT_NONE ? DJ_CUDA_NONE : (int32_t)scalar.slot,
                              scalar.dtype == DJ_F64};
}

dj_cuda_grid_t dj_cuda_grid_flat(const dj_cuda_device_t *device, int64_t count, uint32_t threads,
                                 uint32_t per_thread)
{
    (void)device;
    int64_t each = (int64_t)threads * per_thread, blocks = (count + each - 1) / each;
    blocks = blocks > stub.blocks_max ? stub.blocks_max : blocks;
    return (dj_cuda_grid_t){{(uint32_t)blocks, 1, 1}, {threads, 1, 1}, 0};
}

static dj_cuda_ref_t stub_ref(const dj_cuda_emit_t *emit, const dj_place_t *place)
{
    dj_cuda_ref_t ref = {.base = place->inside,
                         .table = DJ_CUDA_NONE,
                         .slot = place->slot == DJ_SLOT_NONE ? DJ_CUDA_NONE : (int32_t)place->slot,
                         .item_bytes = place->item_bytes,
                         .present = place->storage != DJ_STORAGE_NONE};
    if (!ref.present)
        ref.base = 0;
    else if (place->binding != DJ_SLOT_NONE)
        ref.table = (int32_t)place->binding;
    else
        ref.base += emit->stack + place->offset;
    return ref;
}

dj_cuda_ref_t dj_cuda_emit_ref(const dj_cuda_emit_t *emit, uint32_t operand)
{
    assert_in_range(operand, 0, emit->step->n_places - 1);
    if (emit->to_staging && operand == emit->step->out)
        return dj_cuda_ref_at(emit->stack + emit->step->staging);
    return stub_ref(emit, &emit->step->places[operand]);
}

CUdeviceptr dj_cuda_emit_workspace(const dj_cuda_emit_t *emit)
{
    return emit->workspace;
}

dj_status_t dj_cuda_emit_kernel(dj_cuda_emit_t *emit, CUfunction function, const dj_cuda_grid_t *grid, void *params,
                                uint32_t params_bytes)
{
    char name[128];
    Dl_info info = {.dli_sname = NULL};
    assert_true(dladdr((void *)function, &info) && info.dli_sname);
    snprintf(name, sizeof(name), "%s_params_bytes", info.dli_sname);
    const uint64_t *expected = dlsym(RTLD_DEFAULT, name);
    assert_non_null(expected);
    assert_int_equal(params_bytes, *expected);
    assert_in_range(grid->blocks[0], 1, INT32_MAX);
    assert_in_range(grid->blocks[1], 1, UINT16_MAX);
    assert_in_range(grid->shared_bytes, 0, 48 << 10);
    assert_int_equal(grid->threads[0] % 32, 0);
    *(dj_cuda_head_t *)params = emit->head;
    stub.launches++;
    sim_launch((sim_kernel_t)function, grid->blocks, grid->threads, grid->shared_bytes, params);
    return DJ_OK;
}

/* ---- the device ---- */

static dj_status_t stub_prepare(stub_exe_t *exe, const dj_node_t *node, dj_cuda_kernel_t *kernel)
{
    dj_cuda_prepare_fn_t prepare = stub_slot(node->call.op);
    assert_non_null(prepare);
    *kernel = (dj_cuda_kernel_t){.node = node};
    return prepare(&exe->base, kernel);
}

static dj_status_t stub_compile(dj_device_t *device, const dj_graph_t *graph, dj_executable_t **exe_p)
{
    stub_exe_t *exe = calloc(1, sizeof(*exe));
    assert_non_null(exe);
    exe->base = (dj_executable_t){.ops = device->ops, .device = device, .graph = graph};
    exe->kernels = calloc(graph->n_nodes + 1, sizeof(*exe->kernels));
    exe->workspaces = calloc(graph->n_nodes + 1, sizeof(*exe->workspaces));
    *exe_p = &exe->base;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        dj_status_t status = stub_prepare(exe, &graph->nodes[i], &exe->kernels[i]);
        if (status != DJ_OK)
            return status;
        exe->workspaces[i] = exe->kernels[i].workspace_bytes;
    }
    return DJ_OK;
}

static const uint64_t *stub_workspaces(const dj_executable_t *exe)
{
    return ((const stub_exe_t *)exe)->workspaces;
}

/* A staged result is written contiguously, then copied through the target's window. */
static dj_status_t stub_stage(stub_exe_t *exe, const dj_node_t *node, stub_step_t *step)
{
    dj_node_t *staged = dj_cuda_arena(&exe->base, sizeof(*staged));
    dj_output_t *outs = dj_cuda_arena(&exe->base, node->n_outs * sizeof(*outs));
    const dj_view_t *view = &node->outs[0].view;
    memcpy(outs, node->outs, node->n_outs * sizeof(*outs));
    outs[0].view = dj_view_contiguous(view->dtype, view->rank, view->sizes);
    *staged = *node;
    staged->outs = outs;
    dj_status_t status = dj_cuda_copy_make(&exe->base, &step->unstage, &outs[0].view, view);
    return status != DJ_OK ? status : stub_prepare(exe, staged, step->kernel);
}

static dj_status_t stub_place(dj_executable_t *base, const dj_plan_t *plan)
{
    stub_exe_t *exe = (stub_exe_t *)base;
    dj_status_t status = DJ_OK;
    exe->base.plan = plan;
    exe->n_steps = plan->n_steps;
    exe->steps = calloc(plan->n_steps + 1, sizeof(*exe->steps));
    for (uint32_t i = 0; i < plan->n_steps && status == DJ_OK; i++) {
        const dj_node_t *node = &base->graph->nodes[plan->steps[i].node];
        stub_step_t *step = &exe->steps[i];
        step->kernel = &exe->kernels[plan->steps[i].node];
        step->staging = plan->steps[i].staging;
        step->out = dj_node_operand_index(&node->call, node->call.n_args);
        step->n_places = dj_places_count(node);
        step->places = calloc(step->n_places, sizeof(*step->places));
        dj_places_fill(base->graph, node, step->places);
        for (uint32_t k = 0; k < step->n_places; k++)
            if (step->places[k].storage != DJ_STORAGE_NONE && step->places[k].binding == DJ_SLOT_NONE)
                step->places[k].offset = plan->offsets[step->places[k].storage];
        if (step->staging != DJ_OFFSET_NONE)
            status = stub_stage(exe, node, step);
    }
    return status;
}

static dj_status_t stub_replay(dj_executable_t *base, const dj_launch_t *launch)
{
    const stub_exe_t *exe = (const stub_exe_t *)base;
    const dj_cuda_device_t *device = (const dj_cuda_device_t *)base->device;
    uint32_t fault = 0;
    for (uint32_t i = 0; i < exe->n_steps; i++) {
        const stub_step_t *step = &exe->steps[i];
        dj_cuda_emit_t emit = {.step = step,
                               .head = {.table = (uint64_t)launch->bindings,
                                        .scalars = (uint64_t)launch->scalars,
                                        .fault = (uint64_t)&fault,
                                        .node = base->plan->steps[i].node},
                               .stack = (uint64_t)launch->stack,
                               .workspace = (uint64_t)launch->stack /* workspace first: plan.h */,
                               .to_staging = step->staging != DJ_OFFSET_NONE};
        dj_status_t status = step->kernel->emit(step->kernel, &emit);
        if (status == DJ_OK && emit.to_staging) {
            dj_cuda_ref_t from = dj_cuda_emit_ref(&emit, step->out);
            dj_cuda_ref_t to = stub_ref(&emit, &step->places[step->out]);
            status = dj_cuda_copy_emit(&step->unstage, &emit, device, from, to);
        }
        if (status != DJ_OK)
            return status;
    }
    if (fault)
        return dj_fail(DJ_ERR_INVALID, "%s: a bad value",
                       dj_op_info(base->graph->nodes[fault - 1].call.op)->name);
    return DJ_OK;
}

static void stub_destroy(dj_executable_t *base)
{
    stub_exe_t *exe = (stub_exe_t *)base;
    for (uint32_t i = 0; i < exe->n_steps; i++)
        free(exe->steps[i].places);
    for (uint32_t i = 0; i < exe->n_arena; i++)
        free(exe->arena[i]);
    free(exe->steps);
    free(exe->kernels);
    free(exe->workspaces);
    free(exe);
}

static const dj_device_info_t *stub_info(const dj_device_t *device)
{
    return &((const dj_cuda_device_t *)device)->info;
}

static const dj_device_ops_t stub_ops = {.kind = "stub",
                                         .info = stub_info,
                                         .compile = stub_compile,
                                         .workspaces = stub_workspaces,
                                         .place = stub_place,
                                         .replay = stub_replay,
                                         .destroy = stub_destroy};

static dj_cuda_device_t stub_device = {.base = {.ops = &stub_ops}, .multiprocessors = 4};

#endif
