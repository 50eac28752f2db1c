/* executable.c - executables of the CUDA device: compile, place, bind (executable.h).
 *
 * compile() asks the slot table for one kernel a node. place() turns the plan's offsets and the graph's bindings into
 * one place an operand, has pointwise steps fused group by group, and emits both kinds of list once over made-up
 * addresses: so what emission can refuse is refused here, functions are loaded, and the lists' memory is there before
 * the first replay. Another plan of the same steps finds the fused functions made.
 *
 * Workspaces have no guard, but on a device that is opened to measure peaks (poison): there a workspace ends in
 * DJ_CUDA_GUARD_BYTES that are written before a replay and checked after it, as on the host. */
#include "gpu/cuda/executable.h"

#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/watch.h"
#include "planner/cost.h"

#define MADE_UP 0x1000000u /* an address; multiples of it are others */

void *dj_cuda_arena(dj_executable_t *base, size_t bytes)
{
    return dj_arena_alloc(&((dj_cuda_executable_t *)base)->arena, bytes);
}

static dj_status_t out_of_memory(const dj_graph_t *graph)
{
    return dj_fail(DJ_ERR_MEMORY, "executable of %u nodes: out of memory", graph->n_nodes);
}

/* ---- compile ---- */

static dj_status_t prepare_node(dj_cuda_executable_t *exe, uint32_t at, const dj_node_t *node)
{
    dj_cuda_kernel_t *kernel = &exe->kernels[at];
    const char *name = dj_op_info(node->call.op)->name;
    if (!dj_cuda_slots[node->call.op])
        return dj_fail(DJ_ERR_UNSUPPORTED, "node %u, %s: the cuda device has no kernel for it", at, name);
    *kernel = (dj_cuda_kernel_t){.node = node};
    dj_status_t status = dj_node_refuse_complex(node, "cuda");
    if (status == DJ_OK)
        status = dj_cuda_slots[node->call.op](&exe->base, kernel);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "node %u, %s", at, name);
    exe->workspaces[at] = kernel->workspace_bytes;
    if (kernel->workspace_bytes && dj_cuda_device_of(&exe->base)->poison)
        exe->workspaces[at] = ((kernel->workspace_bytes + 63) & ~(uint64_t)63) + DJ_CUDA_GUARD_BYTES;
    return DJ_OK;
}

static bool binding_moves(const dj_graph_t *graph, uint32_t binding)
{
    const dj_storage_t *storage = &graph->storages[graph->bindings[binding]];
    bool is_weight = storage->input_class == DJ_CLASS_WEIGHT && !storage->is_output;
    bool is_folded = binding >= graph->n_bindings;
    return !storage->is_input || !(is_weight || is_folded);
}

static dj_status_t allocate(dj_cuda_executable_t *exe, const dj_graph_t *graph)
{
    uint32_t nodes = graph->n_nodes + 1, bindings = dj_cuda_bindings(graph);
    exe->kernels = dj_cuda_arena(&exe->base, nodes * sizeof(*exe->kernels));
    exe->workspaces = dj_cuda_arena(&exe->base, nodes * sizeof(*exe->workspaces));
    exe->homes = dj_cuda_arena(&exe->base, nodes * sizeof(*exe->homes));
    exe->steps = dj_cuda_arena(&exe->base, nodes * sizeof(*exe->steps));
    exe->texts = dj_cuda_arena(&exe->base, (bindings + 1ull) * sizeof(*exe->texts));
    exe->moves = dj_cuda_arena(&exe->base, bindings + 1ull);
    if (!exe->kernels || !exe->workspaces || !exe->homes || !exe->steps || !exe->texts || !exe->moves)
        return out_of_memory(graph);
    for (uint32_t i = 0; i < bindings; i++) {
        exe->moves[i] = binding_moves(graph, i);
        exe->n_fixed += !exe->moves[i];
    }
    for (uint32_t i = 0; i < DJ_CUDA_INSTANCES_MAX; i++) {
        exe->instances[i].fixed = dj_cuda_arena(&exe->base, (exe->n_fixed + 1ull) * sizeof(void *));
        if (!exe->instances[i].fixed)
            return out_of_memory(graph);
    }
    return dj_places_make(graph, &exe->arena, &exe->first_place, &exe->places);
}

dj_status_t dj_cuda_compile(dj_device_t *device, const dj_graph_t *graph, dj_executable_t **exe_p)
{
    dj_status_t status = dj_cuda_enter((dj_cuda_device_t *)device);
    if (status != DJ_OK)
        return status;
    dj_cuda_executable_t *exe = calloc(1, sizeof(*exe));
    if (!exe)
        return out_of_memory(graph);
    exe->base = (dj_executable_t){.ops = device->ops, .device = device, .graph = graph};
    status = allocate(exe, graph);
    for (uint32_t i = 0; status == DJ_OK && i < graph->n_nodes; i++)
        status = prepare_node(exe, i, &graph->nodes[i]);
    if (status != DJ_OK) {
        dj_cuda_destroy(&exe->base);
        return status;
    }
    *exe_p = &exe->base;
    return DJ_OK;
}

const uint64_t *dj_cuda_workspaces(const dj_executable_t *exe)
{
    return ((const dj_cuda_executable_t *)exe)->workspaces;
}

/* ---- place ---- */

/* A staged result is written contiguously, so its kernel is made anew for that, once, and a copy brings it home. */
static dj_status_t stage_node(dj_cuda_executable_t *exe, uint32_t at)
{
    const dj_node_t *node = &exe->base.graph->nodes[at], *staged;
    dj_cuda_kernel_t *kernel = &exe->kernels[at];
    if (exe->homes[at])
        return DJ_OK;
    dj_cuda_copy_t *home = dj_cuda_arena(&exe->base, sizeof(*home));
    dj_status_t status = home ? dj_place_stage(node, &exe->arena, &staged) : out_of_memory(exe->base.graph);
    if (status == DJ_OK)
        status = dj_cuda_copy_make(&exe->base, home, &staged->outs[0].view, &node->outs[0].view);
    if (status != DJ_OK)
        return status;
    if (kernel->fini)
        kernel->fini(kernel);
    *kernel = (dj_cuda_kernel_t){0};
    status = prepare_node(exe, at, staged);
    if (status == DJ_OK)
        exe->homes[at] = home;
    return status;
}

static double predict_ns(const dj_cuda_executable_t *exe, const dj_node_t *node)
{
    const dj_device_info_t *info = &dj_cuda_device_of(&exe->base)->info;
    const dj_roofline_t roofline = {info->flops_per_ns, info->bytes_per_ns, info->step_ns};
    double flops;
    uint64_t bytes;
    dj_node_cost(exe->base.graph, node, &flops, &bytes);
    return dj_roofline_ns(&roofline, flops, bytes);
}

static dj_status_t place_step(dj_cuda_executable_t *exe, const dj_plan_t *plan, uint32_t at)
{
    const dj_graph_t *graph = exe->base.graph;
    uint32_t node = plan->steps[at].node;
    uint64_t staging = plan->steps[at].staging;
    dj_status_t status = dj_place_check_node(graph, plan, at);
    if (status == DJ_OK && staging != DJ_OFFSET_NONE)
        status = stage_node(exe, node);
    if (status != DJ_OK)
        return status;
    if (staging == DJ_OFFSET_NONE && dj_cuda_is_staged(&exe->base, exe->kernels[node].node))
        return dj_fail(DJ_ERR_CORRUPT, "plan step %u: staged by an earlier plan, and not by this one", at);
    dj_place_t *places = &exe->places[exe->first_place[node]];
    uint32_t n_places = exe->first_place[node + 1] - exe->first_place[node];
    exe->steps[at] = (dj_cuda_step_t){.kernel = &exe->kernels[node],
                                      .places = places,
                                      .node = node,
                                      .n_places = n_places,
                                      .n_outs = graph->nodes[node].n_outs,
                                      .group_steps = 1,
                                      .staging = staging,
                                      .home = staging == DJ_OFFSET_NONE ? NULL : exe->homes[node],
                                      .predicted_ns = predict_ns(exe, &graph->nodes[node])};
    return dj_places_resolve(places, n_places, plan, at, exe->workspaces[node]);
}

static bool joins(const dj_cuda_executable_t *exe, const dj_plan_t *plan, uint32_t first, uint32_t at)
{
    const dj_cuda_step_t *a = &exe->steps[first], *b = &exe->steps[at];
    return plan->steps[first].group == plan->steps[at].group && at - first < DJ_CUDA_FUSED_STEPS_MAX &&
           a->kernel->pointwise && b->kernel->pointwise && a->staging == DJ_OFFSET_NONE &&
           b->staging == DJ_OFFSET_NONE;
}

static dj_status_t fuse_group(dj_cuda_executable_t *exe, uint32_t first, uint32_t n, dj_cuda_fused_t **fused_p)
{
    const dj_node_t *nodes[DJ_CUDA_FUSED_STEPS_MAX];
    for (uint32_t i = 0; i < n; i++) {
        const dj_cuda_step_t *step = &exe->steps[first + i];
        nodes[i] = step->kernel->node;
        if (step->n_places > DJ_CUDA_FUSED_PLACES_MAX)
            return dj_fail(DJ_ERR_LIMIT, "node %u: %u operands of a pointwise op, at most %u", step->node,
                           step->n_places, (unsigned)DJ_CUDA_FUSED_PLACES_MAX);
    }
    for (const dj_cuda_group_t *old = exe->groups; old; old = old->next)
        if (old->n == n && memcmp(old->nodes, nodes, n * sizeof(*nodes)) == 0) {
            *fused_p = old->fused;
            return DJ_OK;
        }
    dj_cuda_group_t *group = dj_cuda_arena(&exe->base, sizeof(*group) + n * sizeof(*nodes));
    if (!group)
        return out_of_memory(exe->base.graph);
    dj_status_t status = dj_cuda_fuse(&exe->base, nodes, n, fused_p);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "node %u, %s", exe->steps[first].node, dj_op_info(nodes[0]->call.op)->name);
    *group = (dj_cuda_group_t){.next = exe->groups, .fused = *fused_p, .n = n};
    memcpy(group->nodes, nodes, n * sizeof(*nodes));
    exe->groups = group;
    return DJ_OK;
}

/* The functions of all groups, those of earlier plans too. */
static dj_status_t load_groups(dj_cuda_executable_t *exe)
{
    uint32_t n = 0;
    for (const dj_cuda_group_t *group = exe->groups; group; group = group->next)
        n++;
    dj_cuda_fused_t **fused = malloc((n + 1) * sizeof(*fused));
    if (!fused)
        return out_of_memory(exe->base.graph);
    n = 0;
    for (const dj_cuda_group_t *group = exe->groups; group; group = group->next)
        fused[n++] = group->fused;
    dj_status_t status = dj_cuda_fused_load(&exe->base, fused, n);
    free(fused);
    return status;
}

static dj_status_t fuse_steps(dj_cuda_executable_t *exe, const dj_plan_t *plan)
{
    for (uint32_t first = 0, n; first < plan->n_steps; first += n) {
        dj_cuda_step_t *step = &exe->steps[first];
        n = 1;
        if (!step->kernel->pointwise)
            continue;
        while (first + n < plan->n_steps && joins(exe, plan, first, first + n))
            exe->steps[first + n++].group_steps = 0;
        step->group_steps = n;
        dj_status_t status = fuse_group(exe, first, n, &step->fused);
        if (status != DJ_OK)
            return status;
    }
    return load_groups(exe);
}

static void events_destroy(dj_cuda_executable_t *exe)
{
    CUevent *events[] = {&exe->done, &exe->paces[0], &exe->paces[1]};
    for (int i = 0; i < 3; i++) {
        if (*events[i])
            dj_cuda.cuEventDestroy(*events[i]);
        *events[i] = NULL;
    }
}

/* Memory and events of launches, once; its size follows from the graph. */
static dj_status_t block_make(dj_cuda_executable_t *exe)
{
    dj_cuda_block_t *block = &exe->block;
    uint32_t n_bindings = dj_cuda_bindings(exe->base.graph), n_scalars = exe->base.graph->n_scalars;
    size_t words = n_bindings + (size_t)n_scalars;
    CUdeviceptr device = 0;
    void *mirror = NULL;
    if (block->mirror)
        return DJ_OK;
    dj_status_t status = dj_cuda_function(dj_cuda_device_of(&exe->base), "dj_layout_bytes", &exe->move);
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuMemAlloc(&device, (words + 1) * 8), "memory for launches");
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuMemHostAlloc(&mirror, (words + 1) * 8 + DJ_CUDA_GUARD_BYTES,
                                                       CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE),
                                "pinned memory for launches");
    CUevent *events[] = {&exe->done, &exe->paces[0], &exe->paces[1]};
    for (int i = 0; status == DJ_OK && i < 3; i++)
        status = dj_cuda_status(dj_cuda.cuEventCreate(events[i], CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING),
                                "an event");
    if (status != DJ_OK) {
        events_destroy(exe);
        if (mirror)
            dj_cuda.cuMemFreeHost(mirror);
        if (device)
            dj_cuda.cuMemFree(device);
        return status;
    }
    uint64_t *fault = (uint64_t *)mirror + words;
    *fault = 0;
    *block = (dj_cuda_block_t){.device = device,
                               .mirror = mirror,
                               .fault = (volatile uint32_t *)fault,
                               .guard = (uint8_t *)(fault + 1),
                               .n_bindings = n_bindings,
                               .n_scalars = n_scalars};
    return DJ_OK;
}

/* Both lists over addresses that are nobody's: what emission says and needs shows before any replay. */
static dj_status_t rehearse(dj_cuda_executable_t *exe)
{
    uint32_t n_bindings = exe->block.n_bindings, n_scalars = exe->block.n_scalars;
    void **bindings = calloc(n_bindings + 1ull, sizeof(*bindings));
    uint64_t *scalars = calloc(n_scalars + 1ull, sizeof(*scalars));
    dj_status_t status = bindings && scalars ? DJ_OK : out_of_memory(exe->base.graph);
    for (uint32_t i = 0; status == DJ_OK && i < n_bindings; i++) /* unaligned: as many copies as there can be */
        bindings[i] = (void *)(uintptr_t)((i + 3ull) * MADE_UP + (exe->moves[i] ? 8 : 0));
    dj_cuda_resolution_t resolution = {MADE_UP, 2 * MADE_UP, bindings, scalars, true};
    if (status == DJ_OK)
        status = dj_cuda_list_make(exe, &resolution, &exe->direct);
    resolution.direct = false;
    if (status == DJ_OK && dj_cuda_device_of(&exe->base)->use_graphs)
        status = dj_cuda_list_make(exe, &resolution, &exe->fixed);
    free(bindings);
    free(scalars);
    return status;
}

dj_status_t dj_cuda_place(dj_executable_t *base, const dj_plan_t *plan)
{
    dj_cuda_executable_t *exe = (dj_cuda_executable_t *)base;
    dj_status_t status = dj_place_check_plan(base->graph, plan);
    if (status == DJ_OK)
        status = dj_cuda_enter(dj_cuda_device_of(base));
    for (uint32_t i = 0; status == DJ_OK && i < DJ_CUDA_INSTANCES_MAX; i++)
        dj_cuda_instance_clear(&exe->instances[i]);
    for (uint32_t i = 0; status == DJ_OK && i < plan->n_steps; i++)
        status = place_step(exe, plan, i);
    if (status == DJ_OK)
        status = fuse_steps(exe, plan);
    if (status == DJ_OK)
        status = block_make(exe);
    exe->n_steps = plan->n_steps;
    if (status == DJ_OK)
        status = rehearse(exe);
    if (status == DJ_OK)
        base->plan = plan;
    return status;
}

/* ---- bind ---- */

dj_status_t dj_cuda_bind(dj_executable_t *base, dj_text_t *const *texts)
{
    dj_cuda_executable_t *exe = (dj_cuda_executable_t *)base;
    dj_bound_texts_set(exe->texts, texts, dj_cuda_bindings(base->graph));
    exe->all_fixed = true;
    for (uint32_t i = 0; i < base->graph->n_bindings; i++)
        exe->all_fixed &= exe->moves[i] || texts[i];
    exe->bound = true;
    return DJ_OK;
}

bool dj_cuda_bound(const dj_executable_t *base, dj_text_t *const *texts)
{
    const dj_cuda_executable_t *exe = (const dj_cuda_executable_t *)base;
    return exe->bound && dj_bound_texts_are(exe->texts, texts, dj_cuda_bindings(base->graph));
}

/* One stream and one launch block: never. */
bool dj_cuda_reentrant(const dj_executable_t *exe)
{
    (void)exe;
    return false;
}

/* What the driver keeps of a captured graph is not known. */
uint64_t dj_cuda_bytes(const dj_executable_t *base)
{
    const dj_cuda_executable_t *exe = (const dj_cuda_executable_t *)base;
    uint64_t words = exe->block.n_bindings + (uint64_t)exe->block.n_scalars;
    uint64_t bytes = sizeof(*exe) + dj_arena_bytes(exe->arena) + 2 * words * sizeof(uint64_t);
    const dj_cuda_list_t *lists[] = {&exe->direct, &exe->fixed};
    for (int i = 0; i < 2; i++)
        bytes += lists[i]->records_room * sizeof(*lists[i]->records) + lists[i]->blob_room;
    return bytes;
}

void dj_cuda_destroy(dj_executable_t *base)
{
    dj_cuda_executable_t *exe = (dj_cuda_executable_t *)base;
    dj_cuda_enter(dj_cuda_device_of(base)); /* of a lost context all below is refused, and harmless */
    bool hangs = dj_cuda_hangs(dj_cuda_device_of(base)); /* then the driver keeps what it has */
    for (uint32_t i = 0; i < DJ_CUDA_INSTANCES_MAX; i++) {
        exe->instances[i].n_pieces = hangs ? 0 : exe->instances[i].n_pieces;
        dj_cuda_instance_clear(&exe->instances[i]);
    }
    for (dj_cuda_group_t *group = exe->groups; !hangs && group; group = group->next)
        dj_cuda_fused_drop(base, group->fused);
    for (uint32_t i = 0; exe->kernels && i < base->graph->n_nodes; i++)
        if (exe->kernels[i].fini)
            exe->kernels[i].fini(&exe->kernels[i]);
    if (exe->block.mirror && !hangs) {
        events_destroy(exe);
        dj_cuda.cuMemFree(exe->block.device);
        dj_cuda.cuMemFreeHost(exe->block.mirror);
    }
    dj_cuda_list_fini(&exe->direct);
    dj_cuda_list_fini(&exe->fixed);
    dj_arena_destroy(exe->arena);
    free(exe);
}
