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
#define ARENA_CHUNK_BYTES (64u << 10)

void *dj_host_arena(dj_executable_t *base, size_t bytes)
{
    dj_host_executable_t *exe = (dj_host_executable_t *)base;
    size_t wanted = (bytes + 63) & ~(size_t)63;
    dj_host_arena_chunk_t *chunk = exe->chunks;
    if (wanted < bytes)
        return NULL;
    if (!chunk || chunk->capacity - chunk->used < wanted) {
        size_t capacity = wanted > ARENA_CHUNK_BYTES ? wanted : ARENA_CHUNK_BYTES;
        if (capacity > SIZE_MAX - sizeof(*chunk) - 63)
            return NULL;
        size_t size = (sizeof(*chunk) + capacity + 63) & ~(size_t)63;
        chunk = aligned_alloc(64, size);
        if (!chunk)
            return NULL;
        memset(chunk, 0, size);
        chunk->capacity = capacity;
        chunk->next = exe->chunks;
        exe->chunks = chunk;
    }
    void *data = chunk->data + chunk->used;
    chunk->used += wanted;
    return data;
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
    uint64_t total = 0;
    exe->first_place = calloc(graph->n_nodes + 1, sizeof(*exe->first_place));
    exe->kernels = calloc(graph->n_nodes + 1, sizeof(*exe->kernels));
    exe->workspaces = calloc(graph->n_nodes + 1, sizeof(*exe->workspaces));
    exe->steps = calloc(graph->n_nodes + 1, sizeof(*exe->steps));
    exe->texts = calloc(graph->n_bindings + graph->n_folded + 1, sizeof(*exe->texts));
    if (!exe->first_place || !exe->kernels || !exe->workspaces || !exe->steps || !exe->texts)
        return dj_fail(DJ_ERR_MEMORY, "executable of %u nodes: out of memory", graph->n_nodes);
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        exe->first_place[i] = (uint32_t)total;
        total += dj_places_count(&graph->nodes[i]);
    }
    if (total > UINT32_MAX)
        return dj_fail(DJ_ERR_LIMIT, "graph of %llu operands", (unsigned long long)total);
    exe->first_place[graph->n_nodes] = (uint32_t)total;
    exe->places = calloc(total + 1, sizeof(*exe->places));
    if (!exe->places)
        return dj_fail(DJ_ERR_MEMORY, "executable of %u nodes: out of memory", graph->n_nodes);
    return DJ_OK;
}

dj_status_t dj_host_compile(dj_device_t *device, const dj_graph_t *graph, dj_executable_t **exe_p)
{
    dj_host_executable_t *exe = calloc(1, sizeof(*exe));
    if (!exe)
        return dj_fail(DJ_ERR_MEMORY, "executable: out of memory");
    exe->base = (dj_executable_t){.ops = device->ops, .device = device, .graph = graph};
    device->ops->thread_start(device);
    dj_status_t status = allocate(exe, graph);
    for (uint32_t i = 0; status == DJ_OK && i < graph->n_nodes; i++) {
        dj_places_fill(graph, &graph->nodes[i], &exe->places[exe->first_place[i]]);
        status = prepare_node(exe, i, &graph->nodes[i]);
    }
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
    const dj_view_t *view = &node->outs[0].view;
    dj_host_kernel_t *kernel = &exe->kernels[at];
    if (dj_view_is_contiguous(view) || kernel->node != node) /* made for it by an earlier plan */
        return DJ_OK;
    dj_node_t *staged = dj_host_arena(&exe->base, sizeof(*staged));
    dj_output_t *outs = dj_host_arena(&exe->base, node->n_outs * sizeof(*outs));
    if (!staged || !outs)
        return dj_fail(DJ_ERR_MEMORY, "staged node %u: out of memory", at);
    memcpy(outs, node->outs, node->n_outs * sizeof(*outs));
    outs[0].view = dj_view_contiguous(view->dtype, view->rank, view->sizes);
    *staged = *node;
    staged->outs = outs;
    if (kernel->fini)
        kernel->fini(kernel);
    *kernel = (dj_host_kernel_t){0};
    return prepare_node(exe, at, staged);
}

/* Checks one step against the plan and resolves its places; the plan was proven, so what fails here
 * is a plan for other workspaces or a mistake of ours. */
static dj_status_t place_step(dj_host_executable_t *exe, const dj_plan_t *plan, uint32_t at)
{
    const dj_graph_t *graph = exe->base.graph;
    const dj_plan_step_t *planned = &plan->steps[at];
    uint32_t node = planned->node;
    if (node >= graph->n_nodes)
        return dj_fail(DJ_ERR_CORRUPT, "plan step %u: node %u of %u", at, node, graph->n_nodes);
    dj_status_t status = planned->staging == DJ_OFFSET_NONE ? DJ_OK : stage_node(exe, node);
    if (status != DJ_OK)
        return status;
    if (exe->workspaces[node] > plan->workspace_bytes)
        return dj_fail(DJ_ERR_CLASS, "plan step %u: %llu bytes of workspace needed, %llu planned",
                       at, (unsigned long long)exe->workspaces[node],
                       (unsigned long long)plan->workspace_bytes);
    dj_host_step_t *step = &exe->steps[at];
    *step = (dj_host_step_t){.kernel = &exe->kernels[node],
                             .places = &exe->places[exe->first_place[node]],
                             .n_places = exe->first_place[node + 1] - exe->first_place[node],
                             .n_outs = graph->nodes[node].n_outs,
                             .group_steps = 1,
                             .staging = planned->staging,
                             .target = &graph->nodes[node].outs[0].view};
    for (uint32_t i = 0; i < step->n_places; i++) {
        dj_place_t *place = &exe->places[exe->first_place[node] + i];
        if (place->storage == DJ_STORAGE_NONE || place->binding != DJ_SLOT_NONE)
            continue;
        place->offset = plan->offsets[place->storage];
        if (place->offset == DJ_OFFSET_NONE)
            return dj_fail(DJ_ERR_CORRUPT, "plan step %u: storage %u has no place", at,
                           place->storage);
    }
    return DJ_OK;
}

dj_status_t dj_host_place(dj_executable_t *base, const dj_plan_t *plan)
{
    dj_host_executable_t *exe = (dj_host_executable_t *)base;
    if (plan->n_steps > base->graph->n_nodes || plan->n_storages != base->graph->n_storages)
        return dj_fail(DJ_ERR_CORRUPT, "plan of %u steps and %u storages for %u nodes and %u",
                       plan->n_steps, plan->n_storages, base->graph->n_nodes,
                       base->graph->n_storages);
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        dj_status_t status = place_step(exe, plan, i);
        if (status != DJ_OK)
            return status;
    }
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
    uint64_t nodes = base->graph->n_nodes + 1ull, bindings = n_bindings(base->graph) + 1ull;
    uint64_t bytes = sizeof(*exe) + (exe->first_place[nodes - 1] + 1ull) * sizeof(*exe->places);
    bytes += nodes * (sizeof(*exe->first_place) + sizeof(*exe->kernels) + sizeof(*exe->steps) +
                      sizeof(*exe->workspaces));
    for (const dj_host_arena_chunk_t *chunk = exe->chunks; chunk; chunk = chunk->next)
        bytes += sizeof(*chunk) + chunk->capacity;
    return bytes + bindings * sizeof(*exe->texts);
}

void dj_host_destroy(dj_executable_t *base)
{
    dj_host_executable_t *exe = (dj_host_executable_t *)base;
    for (uint32_t i = 0; exe->kernels && i < base->graph->n_nodes; i++)
        if (exe->kernels[i].fini)
            exe->kernels[i].fini(&exe->kernels[i]);
    while (exe->chunks) {
        dj_host_arena_chunk_t *next = exe->chunks->next;
        free(exe->chunks);
        exe->chunks = next;
    }
    free(exe->first_place);
    free(exe->kernels);
    free(exe->places);
    free(exe->workspaces);
    free(exe->steps);
    free(exe->texts);
    free(exe);
}
