/* emit.c - from steps to launches: what kernels read at prepare and call at emit (kernel.h), and the lists they fill
 * (executable.h).
 *
 * Emission is plain memory work: no call of the driver, so lists can be looked at without a GPU. */
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/executable.h"

#define BLOCKS_A_MULTIPROCESSOR 32u
#define BLOB_ALIGN 16u

/* ---- at prepare ---- */

dj_status_t dj_cuda_loop_make(dj_cuda_loop_t *to, const dj_view_t *const *views, uint32_t n)
{
    dj_loop_t loop;
    dj_status_t status = dj_loop_make(&loop, views, n);
    if (status == DJ_OK)
        dj_cuda_loop_put(to, &loop);
    return status;
}

dj_cuda_scalar_t dj_cuda_scalar_of(const dj_node_t *node, uint32_t arg)
{
    dj_node_scalar_t scalar = dj_node_scalar(node, arg);
    if (scalar.slot == DJ_SLOT_NONE)
        return (dj_cuda_scalar_t){.slot = DJ_CUDA_NONE};
    return (dj_cuda_scalar_t){.slot = (int32_t)scalar.slot, .is_real = scalar.dtype == DJ_F64};
}

typedef struct window {
    uint32_t storage, slot;
    const dj_view_t *view;
} window_t;

static window_t window_of(const dj_node_t *node, uint32_t operand)
{
    for (uint32_t a = 0; a < node->call.n_args; a++) {
        const dj_arg_t *arg = &node->call.args[a];
        if (arg->kind != DJ_ARG_TENSORS)
            continue;
        if (operand < arg->count)
            return (window_t){arg->operands[operand].storage, arg->operands[operand].slot,
                              &arg->operands[operand].view};
        operand -= arg->count;
    }
    if (operand < node->n_outs)
        return (window_t){node->outs[operand].storage, node->outs[operand].slot, &node->outs[operand].view};
    return (window_t){DJ_STORAGE_NONE, DJ_SLOT_NONE, NULL};
}

static bool is_first_out(const dj_node_t *node, uint32_t operand)
{
    return operand == dj_node_operand_index(&node->call, node->call.n_args);
}

uint64_t dj_cuda_moving_bytes(const dj_executable_t *base, const dj_node_t *node, uint32_t operand)
{
    const dj_cuda_executable_t *exe = (const dj_cuda_executable_t *)base;
    window_t window = window_of(node, operand);
    if (window.storage == DJ_STORAGE_NONE || window.storage == DJ_STORAGE_SCALAR)
        return 0;
    if (dj_cuda_is_staged(base, node) && is_first_out(node, operand))
        return 0;
    uint32_t binding = base->graph->storages[window.storage].binding;
    if (window.slot == DJ_SLOT_NONE && (binding == DJ_SLOT_NONE || !exe->moves[binding]))
        return 0;
    return dj_align_up(dj_view_extent_bytes(window.view));
}

dj_cuda_grid_t dj_cuda_grid_flat(const dj_cuda_device_t *device, int64_t count, uint32_t threads, uint32_t per_thread)
{
    uint64_t each = (uint64_t)threads * (per_thread ? per_thread : 1);
    uint64_t blocks = count > 0 ? ((uint64_t)count + each - 1) / each : 1;
    uint64_t most = (uint64_t)(device->multiprocessors ? device->multiprocessors : 1) * BLOCKS_A_MULTIPROCESSOR;
    return (dj_cuda_grid_t){.blocks = {(uint32_t)(blocks < most ? blocks : most), 1, 1}, .threads = {threads, 1, 1}};
}

/* ---- lists ---- */

void dj_cuda_list_fini(dj_cuda_list_t *list)
{
    free(list->records);
    free(list->blob);
    *list = (dj_cuda_list_t){0};
}

static dj_status_t grow(void **memory_p, uint32_t *room_p, uint64_t wanted, size_t size)
{
    uint64_t room = *room_p;
    if (wanted <= room)
        return DJ_OK;
    room = wanted > 2 * room ? wanted : 2 * room;
    void *grown = room <= UINT32_MAX ? realloc(*memory_p, room * size) : NULL;
    if (!grown)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a list of launches");
    *memory_p = grown;
    *room_p = (uint32_t)room;
    return DJ_OK;
}

/* Room for one more record, not yet counted, and `bytes` in the blob. */
static dj_status_t list_room(dj_cuda_list_t *list, uint32_t bytes)
{
    uint64_t end = (uint64_t)list->blob_bytes + bytes + BLOB_ALIGN;
    dj_status_t status = grow((void **)&list->records, &list->records_room, list->n_records + 1ull,
                              sizeof(*list->records));
    return status == DJ_OK ? grow((void **)&list->blob, &list->blob_room, end, 1) : status;
}

static uint32_t list_put(dj_cuda_list_t *list, const void *data, uint32_t bytes)
{
    uint32_t at = list->blob_bytes;
    if (bytes)
        memcpy(list->blob + at, data, bytes);
    list->blob_bytes = at + ((bytes + BLOB_ALIGN - 1) & ~(BLOB_ALIGN - 1));
    return at;
}

/* ---- at emit ---- */

static const dj_cuda_step_t *step_of(const dj_cuda_emit_t *emit)
{
    return &emit->exe->steps[emit->step];
}

static dj_cuda_ref_t resolve(const dj_cuda_emit_t *emit, const dj_place_t *place)
{
    const dj_cuda_resolution_t *r = emit->resolution;
    dj_cuda_ref_t ref = {.table = DJ_CUDA_NONE, .slot = DJ_CUDA_NONE, .item_bytes = place->item_bytes};
    if (place->storage == DJ_STORAGE_NONE)
        return ref;
    ref.present = 1;
    ref.base = place->inside;
    if (place->binding == DJ_SLOT_NONE)
        ref.base += (place->spilled ? r->spill : r->stack) + place->offset;
    else if (r->direct || !emit->exe->moves[place->binding])
        ref.base += (uint64_t)(uintptr_t)r->bindings[place->binding];
    else
        ref.table = (int32_t)place->binding;
    if (place->slot != DJ_SLOT_NONE && r->direct)
        ref.base += r->scalars[place->slot] * place->item_bytes;
    else if (place->slot != DJ_SLOT_NONE)
        ref.slot = (int32_t)place->slot;
    return ref;
}

static dj_cuda_ref_t operand_ref(const dj_cuda_emit_t *emit, uint32_t at, uint32_t operand)
{
    const dj_cuda_step_t *step = &emit->exe->steps[at];
    if (operand >= step->n_places)
        return (dj_cuda_ref_t){.table = DJ_CUDA_NONE, .slot = DJ_CUDA_NONE};
    if (step->staging != DJ_OFFSET_NONE && operand == step->n_places - step->n_outs)
        return (dj_cuda_ref_t){.base = emit->resolution->stack + step->staging,
                               .table = DJ_CUDA_NONE,
                               .slot = DJ_CUDA_NONE,
                               .item_bytes = step->places[operand].item_bytes,
                               .present = 1};
    return resolve(emit, &step->places[operand]);
}

dj_cuda_ref_t dj_cuda_emit_ref(const dj_cuda_emit_t *emit, uint32_t operand)
{
    return operand_ref(emit, emit->step, operand);
}

/* plan.h: it lies at the slab's start. */
CUdeviceptr dj_cuda_emit_workspace(const dj_cuda_emit_t *emit)
{
    return emit->resolution->stack;
}

dj_status_t dj_cuda_emit_kernel(dj_cuda_emit_t *emit, CUfunction function, const dj_cuda_grid_t *grid, void *params,
                                uint32_t params_bytes)
{
    const dj_cuda_block_t *block = &emit->exe->block;
    dj_cuda_head_t *head = params;
    if (params_bytes > DJ_CUDA_PARAMS_MAX)
        return dj_fail(DJ_ERR_INTERNAL, "a kernel with %u bytes of parameters, at most %u", params_bytes,
                       (unsigned)DJ_CUDA_PARAMS_MAX);
    dj_status_t status = list_room(emit->list, params_bytes);
    if (status != DJ_OK)
        return status;
    *head = (dj_cuda_head_t){.table = block->device,
                             .scalars = block->device + block->n_bindings * sizeof(uint64_t),
                             .fault = (uint64_t)(uintptr_t)block->fault,
                             .node = step_of(emit)->node};
    emit->list->records[emit->list->n_records++] =
        (dj_cuda_record_t){.step = emit->step,
                           .function = function,
                           .grid = *grid,
                           .at = list_put(emit->list, params, params_bytes),
                           .bytes = params_bytes};
    return DJ_OK;
}

dj_status_t dj_cuda_emit_call(dj_cuda_emit_t *emit, const dj_cuda_kernel_t *kernel, dj_cuda_call_fn_t call,
                              const CUdeviceptr *addresses, uint32_t n_addresses)
{
    uint32_t bytes = n_addresses * (uint32_t)sizeof(*addresses);
    if (n_addresses > DJ_CUDA_ADDRESSES_MAX)
        return dj_fail(DJ_ERR_INTERNAL, "a library call with %u addresses", n_addresses);
    dj_status_t status = list_room(emit->list, bytes);
    if (status != DJ_OK)
        return status;
    emit->list->records[emit->list->n_records++] =
        (dj_cuda_record_t){.step = emit->step,
                           .call = call,
                           .kernel = kernel,
                           .at = list_put(emit->list, addresses, bytes),
                           .bytes = bytes};
    return DJ_OK;
}

/* ---- operands of library calls ---- */

/* Is the address known, and, of an operand that may lie anywhere, as aligned as a copy of it would be? Libraries
 * choose their kernels by that, before any replay. */
static bool is_fixed(const dj_cuda_emit_t *emit, uint32_t operand, const dj_cuda_ref_t *ref)
{
    const dj_node_t *node = step_of(emit)->kernel->node;
    if (ref->table >= 0 || ref->slot >= 0)
        return false;
    return ref->base % DJ_ALIGN_BYTES == 0 || dj_cuda_moving_bytes(&emit->exe->base, node, operand) == 0;
}

/* Dense bytes between an operand and `room`. */
static dj_status_t emit_move(dj_cuda_emit_t *emit, uint32_t operand, dj_cuda_ref_t from, dj_cuda_ref_t to)
{
    dj_cuda_device_t *device = dj_cuda_device_of(&emit->exe->base);
    const dj_view_t *view = window_of(step_of(emit)->kernel->node, operand).view;
    dj_layout_bytes_t p = {.from = from,
                           .to = to,
                           .bytes = dj_view_extent_bytes(view),
                           .item_bytes = dj_dtype_bytes(view->dtype)};
    if (p.bytes == 0)
        return DJ_OK;
    if (!emit->exe->move) {
        dj_status_t status = dj_cuda_function(device, "dj_layout_bytes", &emit->exe->move);
        if (status != DJ_OK)
            return status;
    }
    dj_cuda_grid_t grid = dj_cuda_grid_flat(device, (int64_t)(p.bytes / 16 + 1), 256, 4);
    return dj_cuda_emit_kernel(emit, emit->exe->move, &grid, &p, sizeof(p));
}

dj_status_t dj_cuda_emit_fixed_in(dj_cuda_emit_t *emit, uint32_t operand, CUdeviceptr room, CUdeviceptr *address_p)
{
    dj_cuda_ref_t ref = dj_cuda_emit_ref(emit, operand);
    if (!ref.present || is_fixed(emit, operand, &ref)) {
        *address_p = ref.base;
        return DJ_OK;
    }
    *address_p = room;
    return emit_move(emit, operand, ref, dj_cuda_ref_at(room));
}

dj_status_t dj_cuda_emit_fixed_out(dj_cuda_emit_t *emit, uint32_t operand, CUdeviceptr room, CUdeviceptr *address_p)
{
    dj_cuda_ref_t ref = dj_cuda_emit_ref(emit, operand);
    *address_p = !ref.present || is_fixed(emit, operand, &ref) ? ref.base : room;
    return DJ_OK;
}

dj_status_t dj_cuda_emit_fixed_done(dj_cuda_emit_t *emit, uint32_t operand, CUdeviceptr room)
{
    dj_cuda_ref_t ref = dj_cuda_emit_ref(emit, operand);
    if (!ref.present || is_fixed(emit, operand, &ref))
        return DJ_OK;
    return emit_move(emit, operand, dj_cuda_ref_at(room), ref);
}

/* ---- all steps ---- */

static dj_status_t emit_fused(dj_cuda_emit_t *emit, const dj_cuda_step_t *step)
{
    dj_cuda_ref_t refs[DJ_CUDA_FUSED_STEPS_MAX][DJ_CUDA_FUSED_PLACES_MAX];
    const dj_cuda_ref_t *rows[DJ_CUDA_FUSED_STEPS_MAX];
    for (uint32_t i = 0; i < step->group_steps; i++) {
        rows[i] = refs[i];
        for (uint32_t j = 0; j < step[i].n_places; j++)
            refs[i][j] = operand_ref(emit, emit->step + i, j);
    }
    return dj_cuda_fused_emit(step->fused, emit, rows);
}

static dj_status_t emit_step(dj_cuda_emit_t *emit)
{
    const dj_cuda_step_t *step = step_of(emit);
    dj_status_t status =
        step->fused ? emit_fused(emit, step) : step->kernel->emit(step->kernel, emit);
    if (status != DJ_OK || step->staging == DJ_OFFSET_NONE)
        return status;
    uint32_t out = step->n_places - step->n_outs;
    return dj_cuda_copy_emit(step->home, emit, dj_cuda_device_of(&emit->exe->base), dj_cuda_emit_ref(emit, out),
                             resolve(emit, &step->places[out]));
}

dj_status_t dj_cuda_list_make(dj_cuda_executable_t *exe, const dj_cuda_resolution_t *resolution, dj_cuda_list_t *list)
{
    dj_cuda_emit_t emit = {.exe = exe, .resolution = resolution, .list = list};
    list->n_records = list->blob_bytes = 0;
    for (uint32_t i = 0; i < exe->n_steps; i++) {
        if (exe->steps[i].group_steps == 0)
            continue;
        emit.step = i;
        dj_status_t status = emit_step(&emit);
        if (status != DJ_OK)
            return dj_fail_prefix(status, "node %u", exe->steps[i].node);
    }
    return DJ_OK;
}

static double group_ns(const dj_cuda_executable_t *exe, uint32_t step)
{
    double ns = 0;
    for (uint32_t i = 0; i < exe->steps[step].group_steps; i++)
        ns += exe->steps[step + i].predicted_ns;
    return ns;
}

uint32_t dj_cuda_list_cut(const dj_cuda_executable_t *exe, const dj_cuda_list_t *list, uint32_t first)
{
    double ns = 0;
    uint32_t end = first;
    while (end < list->n_records) {
        uint32_t step = list->records[end].step;
        ns += group_ns(exe, step);
        if (end > first && ns > DJ_CUDA_GRAPH_NS)
            break;
        while (end < list->n_records && list->records[end].step == step)
            end++;
    }
    return end;
}

static dj_status_t play_kernel(const dj_cuda_list_t *list, const dj_cuda_record_t *record, CUstream stream)
{
    const dj_cuda_grid_t *grid = &record->grid;
    void *params[] = {list->blob + record->at};
    return dj_cuda_status(dj_cuda.cuLaunchKernel(record->function, grid->blocks[0], grid->blocks[1], grid->blocks[2],
                                                 grid->threads[0], grid->threads[1], grid->threads[2],
                                                 grid->shared_bytes, stream, params, NULL),
                          "a launch");
}

dj_status_t dj_cuda_list_play(dj_cuda_executable_t *exe, const dj_cuda_list_t *list, uint32_t first, uint32_t end,
                              CUstream stream)
{
    for (uint32_t i = first; i < end; i++) {
        const dj_cuda_record_t *record = &list->records[i];
        dj_status_t status =
            record->call ? record->call(record->kernel, dj_cuda_device_of(&exe->base), stream,
                                        (const CUdeviceptr *)(const void *)(list->blob + record->at))
                         : play_kernel(list, record, stream);
        if (status != DJ_OK)
            return dj_fail_prefix(status, "node %u", exe->steps[record->step].node);
    }
    return DJ_OK;
}
