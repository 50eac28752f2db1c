/* replay.c - executables of the host device: compile, place, bind, replay.
 *
 * compile() asks the slot table for one kernel a node; place() turns the plan's offsets and the
 * graph's bindings into one resolved place an operand; bind() shows each kernel the weights behind
 * its operands. What is left for replay() is to add a base address and perhaps a view's offset to
 * each place and to call: the pointers of one step lie on the replaying thread's own stack, so
 * nothing is allocated and nothing shared is written.
 *
 * The last DJ_HOST_GUARD_BYTES of the workspace are a guard, counted in what each node asks for. */
#include <stdlib.h>
#include <string.h>

#include "gpu/host/executable.h"
#include "gpu/host/strided.h"

#define GUARD_BYTE 0xa5

/* Whole cache lines: what the threads of a kernel keep in them meets nobody else's. */
void *dj_host_arena(dj_executable_t *base, size_t bytes)
{
    size_t line = 64, room = (bytes + line - 1) & ~(line - 1);
    if (room < bytes || room > SIZE_MAX - line)
        return NULL;
    uintptr_t piece = (uintptr_t)dj_arena_alloc(&((dj_host_executable_t *)base)->arena, room + line);
    return piece ? (void *)((piece + line - 1) & ~(uintptr_t)(line - 1)) : NULL;
}

uint32_t dj_host_device_threads(const dj_executable_t *exe)
{
    return dj_host_device_of(exe)->info.threads;
}

static dj_status_t prepare_node(dj_host_executable_t *exe, uint32_t at, const dj_node_t *node)
{
    dj_host_kernel_t *kernel = &exe->kernels[at];
    const dj_op_info_t *op = dj_op_info(node->call.op);
    dj_host_prepare_fn_t prepare = dj_host_device_of(&exe->base)->kernels->prepare[node->call.op];
    if (!prepare)
        return dj_fail(DJ_ERR_UNSUPPORTED, "node %u, %s: the host device has no kernel for it", at,
                       op->name);
    uint32_t n_places = exe->first_place[at + 1] - exe->first_place[at];
    if (n_places > DJ_HOST_OPERANDS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "node %u, %s: %u operands, at most %u", at, op->name, n_places,
                       (unsigned)DJ_HOST_OPERANDS_MAX);
    *kernel = (dj_host_kernel_t){.node = node};
    dj_status_t status = dj_node_refuse_complex(node, "host");
    if (status == DJ_OK)
        status = prepare(&exe->base, kernel);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "node %u, %s", at, op->name);
    exe->threaded |= kernel->threaded || kernel->bind; /* packed forms are state, too */
    exe->workspaces[at] = 0;
    if (kernel->workspace_bytes)
        exe->workspaces[at] =
            ((kernel->workspace_bytes + 63) & ~(uint64_t)63) + DJ_HOST_GUARD_BYTES;
    return DJ_OK;
}

static dj_status_t allocate(dj_host_executable_t *exe, const dj_graph_t *graph)
{
    size_t nodes = graph->n_nodes + 1u, bindings = graph->n_bindings + graph->n_folded + 1u;
    exe->kernels = dj_host_arena(&exe->base, nodes * sizeof(*exe->kernels));
    exe->workspaces = dj_host_arena(&exe->base, nodes * sizeof(*exe->workspaces));
    exe->steps = dj_host_arena(&exe->base, nodes * sizeof(*exe->steps));
    exe->texts = dj_host_arena(&exe->base, bindings * sizeof(*exe->texts));
    if (!exe->kernels || !exe->workspaces || !exe->steps || !exe->texts)
        return dj_fail(DJ_ERR_MEMORY, "executable of %u nodes: out of memory", graph->n_nodes);
    return dj_places_make(graph, &exe->arena, &exe->first_place, &exe->places);
}

dj_status_t dj_host_compile(dj_device_t *device, const dj_graph_t *graph, dj_executable_t **exe_p)
{
    dj_host_executable_t *exe = calloc(1, sizeof(*exe));
    if (!exe)
        return dj_fail(DJ_ERR_MEMORY, "executable: out of memory");
    exe->base = (dj_executable_t){.ops = device->ops, .device = device, .graph = graph};
    device->ops->thread_start(device);
    dj_status_t status = allocate(exe, graph);
    for (uint32_t i = 0; status == DJ_OK && i < graph->n_nodes; i++)
        status = prepare_node(exe, i, &graph->nodes[i]);
    if (status != DJ_OK) {
        dj_host_destroy(&exe->base);
        return status;
    }
    *exe_p = &exe->base;
    return DJ_OK;
}

const uint64_t *dj_host_workspaces(const dj_executable_t *exe)
{
    return ((const dj_host_executable_t *)exe)->workspaces;
}

/* A staged result is written contiguously, so its kernel is made anew for that if the target is
 * not. */
static dj_status_t stage_node(dj_host_executable_t *exe, uint32_t at)
{
    const dj_node_t *node = &exe->base.graph->nodes[at];
    dj_host_kernel_t *kernel = &exe->kernels[at];
    if (dj_view_is_contiguous(&node->outs[0].view) || kernel->node != node) /* made for it by an earlier plan */
        return DJ_OK;
    const dj_node_t *staged;
    dj_status_t status = dj_place_stage(node, &exe->arena, &staged);
    if (status != DJ_OK)
        return status;
    if (kernel->fini)
        kernel->fini(kernel);
    *kernel = (dj_host_kernel_t){0};
    return prepare_node(exe, at, staged);
}

static dj_status_t place_step(dj_host_executable_t *exe, const dj_plan_t *plan, uint32_t at)
{
    const dj_graph_t *graph = exe->base.graph;
    uint32_t node = plan->steps[at].node;
    uint64_t staging = plan->steps[at].staging;
    dj_status_t status = dj_place_check_node(graph, plan, at);
    if (status == DJ_OK && staging != DJ_OFFSET_NONE)
        status = stage_node(exe, node);
    if (status != DJ_OK)
        return status;
    dj_place_t *places = &exe->places[exe->first_place[node]];
    uint32_t n_places = exe->first_place[node + 1] - exe->first_place[node];
    exe->steps[at] = (dj_host_step_t){.kernel = &exe->kernels[node],
                                      .places = places,
                                      .n_places = n_places,
                                      .n_outs = graph->nodes[node].n_outs,
                                      .group_steps = 1,
                                      .staging = staging,
                                      .target = &graph->nodes[node].outs[0].view};
    return dj_places_resolve(places, n_places, plan, at, exe->workspaces[node]);
}

dj_status_t dj_host_place(dj_executable_t *base, const dj_plan_t *plan)
{
    dj_host_executable_t *exe = (dj_host_executable_t *)base;
    dj_status_t status = dj_place_check_plan(base->graph, plan);
    for (uint32_t i = 0; status == DJ_OK && i < plan->n_steps; i++)
        status = place_step(exe, plan, i);
    if (status != DJ_OK)
        return status;
    dj_host_groups_mark(exe->steps, plan);
    exe->n_steps = plan->n_steps;
    base->plan = plan;
    return DJ_OK;
}

/* The request's, and those of folded values. */
static uint32_t n_bindings(const dj_graph_t *graph)
{
    return graph->n_bindings + graph->n_folded;
}

static dj_status_t bind_kernel(dj_host_executable_t *exe, uint32_t node, dj_text_t *const *bindings)
{
    dj_text_t *texts[DJ_HOST_OPERANDS_MAX];
    const dj_place_t *places = &exe->places[exe->first_place[node]];
    uint32_t n_places = exe->first_place[node + 1] - exe->first_place[node];
    for (uint32_t i = 0; i < n_places; i++) {
        bool bound = places[i].storage != DJ_STORAGE_NONE && places[i].binding != DJ_SLOT_NONE;
        texts[i] = bound ? bindings[places[i].binding] : NULL;
    }
    return exe->kernels[node].bind(&exe->kernels[node], &exe->base, texts);
}

dj_status_t dj_host_bind(dj_executable_t *base, dj_text_t *const *texts)
{
    dj_host_executable_t *exe = (dj_host_executable_t *)base;
    exe->bound = false;
    dj_bound_texts_set(exe->texts, texts, n_bindings(base->graph));
    for (uint32_t i = 0; i < base->graph->n_nodes; i++) {
        if (!exe->kernels[i].bind)
            continue;
        dj_status_t status = bind_kernel(exe, i, texts);
        if (status != DJ_OK)
            return status;
    }
    exe->bound = true;
    return DJ_OK;
}

bool dj_host_bound(const dj_executable_t *base, dj_text_t *const *texts)
{
    const dj_host_executable_t *exe = (const dj_host_executable_t *)base;
    return exe->bound && dj_bound_texts_are(exe->texts, texts, n_bindings(base->graph));
}

bool dj_host_reentrant(const dj_executable_t *exe)
{
    return !((const dj_host_executable_t *)exe)->threaded;
}

/* False when the kernel met a bad value. */
static bool run_step(const dj_host_step_t *step, const dj_launch_t *launch, uint32_t threads)
{
    void *pointers[DJ_HOST_OPERANDS_MAX];
    uint32_t fault = 0;
    void **outs = &pointers[step->n_places - step->n_outs];
    const dj_host_kernel_t *kernel = step->kernel;
    for (uint32_t i = 0; i < step->n_places; i++)
        pointers[i] = dj_host_resolve(&step->places[i], launch);
    void *target = outs[0];
    if (step->staging != DJ_OFFSET_NONE)
        outs[0] = (uint8_t *)launch->stack + step->staging;
    dj_host_run_t run = {.operands = pointers,
                         .outs = outs,
                         .scalars = launch->scalars,
                         .workspace = launch->stack,
                         .threads = kernel->threaded ? threads : 1,
                         .fault_p = &fault};
    kernel->run(kernel, &run);
    if (step->staging != DJ_OFFSET_NONE)
        dj_host_copy_view(target, step->target, outs[0], &kernel->node->outs[0].view);
    return fault == 0;
}

static dj_status_t fail_step(const dj_executable_t *exe, uint32_t at)
{
    uint32_t node = exe->plan->steps[at].node;
    return dj_fail(DJ_ERR_INVALID, "node %u, %s: an index is out of range", node,
                   dj_op_info(exe->graph->nodes[node].call.op)->name);
}

static bool guard_holds(const uint8_t *guard)
{
    for (uint32_t i = 0; i < DJ_HOST_GUARD_BYTES; i++)
        if (guard[i] != GUARD_BYTE)
            return false;
    return true;
}

dj_status_t dj_host_replay(dj_executable_t *base, const dj_launch_t *launch)
{
    dj_host_executable_t *exe = (dj_host_executable_t *)base;
    uint8_t *guard = NULL;
    if (base->plan->workspace_bytes) {
        guard = (uint8_t *)launch->stack + base->plan->workspace_bytes - DJ_HOST_GUARD_BYTES;
        memset(guard, GUARD_BYTE, DJ_HOST_GUARD_BYTES);
    }
    uint32_t threads = dj_host_device_of(base)->info.threads;
    for (uint32_t i = 0; i < exe->n_steps; i += exe->steps[i].group_steps)
        if (exe->steps[i].group_steps > 1)
            dj_host_group_run(&exe->steps[i], exe->steps[i].group_steps, launch, threads);
        else if (!run_step(&exe->steps[i], launch, threads))
            return fail_step(base, i);
    if (guard && !guard_holds(guard))
        return dj_fail(DJ_ERR_INTERNAL, "replay: a kernel wrote past its workspace of %llu bytes",
                       (unsigned long long)base->plan->workspace_bytes);
    return DJ_OK;
}

/* What oneDNN keeps of a primitive is not known. */
uint64_t dj_host_bytes(const dj_executable_t *base)
{
    const dj_host_executable_t *exe = (const dj_host_executable_t *)base;
    return sizeof(*exe) + dj_arena_bytes(exe->arena);
}

void dj_host_destroy(dj_executable_t *base)
{
    dj_host_executable_t *exe = (dj_host_executable_t *)base;
    for (uint32_t i = 0; exe->kernels && i < base->graph->n_nodes; i++)
        if (exe->kernels[i].fini)
            exe->kernels[i].fini(&exe->kernels[i]);
    dj_arena_destroy(exe->arena);
    free(exe);
}
