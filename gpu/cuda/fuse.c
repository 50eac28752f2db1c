/* fuse.c - pointwise kernels of the CUDA device: parts (part.h) become functions at place, launches at emit.
 *
 * A fusion group is one part, or several where its parameters or windows ask for that; each part is one launch. */
#include "gpu/cuda/fuse.h"

#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/part.h"
#include "gpu/cuda/prepare.h"

#define THREADS 256

typedef struct place {
    uint32_t step, operand;
} place_t;

typedef struct launch {
    CUfunction function;
    dj_cuda_jit_entry_t *held; /* behind it */
    dj_cuda_grid_t grid;
    uint32_t params_bytes, refs_offset, n_refs;
    uint8_t *params; /* without the places */
    place_t *places; /* of the refs in them */
    struct launch *next;
} launch_t;

struct dj_cuda_fused {
    launch_t *first;
};

dj_status_t dj_cuda_pointwise_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    (void)exe;
    kernel->pointwise = true;
    return dj_part_check(kernel->node);
}

static dj_status_t out_of_memory(void)
{
    return dj_fail(DJ_ERR_MEMORY, "no memory for a fused kernel");
}

static dj_status_t fill_launch(dj_executable_t *exe, const dj_part_t *part, uint32_t first_step, launch_t *launch)
{
    dj_part_layout_t layout = dj_part_layout(part);
    launch->grid = dj_cuda_grid_flat(dj_cuda_device_of(exe), part->count, THREADS, part->packs ? part->lanes : 1);
    launch->params_bytes = layout.bytes;
    launch->refs_offset = layout.inputs;
    launch->n_refs = part->n_inputs + part->n_steps;
    launch->params = dj_cuda_arena(exe, layout.bytes);
    launch->places = dj_cuda_arena(exe, launch->n_refs * sizeof(*launch->places));
    if (!launch->params || !launch->places)
        return out_of_memory();
    dj_part_params(part, launch->params);
    for (uint32_t i = 0; i < launch->n_refs; i++) {
        const dj_part_window_t *window =
            i < part->n_inputs ? &part->inputs[i] : &part->steps[i - part->n_inputs].out;
        launch->places[i] = (place_t){first_step + window->step, window->operand};
    }
    return DJ_OK;
}

static dj_status_t make_launch(dj_executable_t *exe, const dj_part_t *part, uint32_t first_step, launch_t **launch_p)
{
    char *source = NULL;
    const char *name;
    launch_t *launch = dj_cuda_arena(exe, sizeof(*launch));
    if (!launch)
        return out_of_memory();
    dj_status_t status = fill_launch(exe, part, first_step, launch);
    if (status == DJ_OK)
        status = dj_part_source(part, &source, &name);
    if (status == DJ_OK)
        status = dj_cuda_jit_function(dj_cuda_device_of(exe), source, name, &launch->function, &launch->held);
    free(source);
    *launch_p = launch;
    return status;
}

void dj_cuda_fused_drop(dj_executable_t *exe, dj_cuda_fused_t *fused)
{
    for (launch_t *launch = fused->first; launch; launch = launch->next)
        if (launch->held)
            dj_cuda_jit_drop(dj_cuda_device_of(exe), launch->held);
}

dj_status_t dj_cuda_fuse(dj_executable_t *exe, const dj_node_t *const *nodes, uint32_t n, dj_cuda_fused_t **fused_p)
{
    dj_cuda_fused_t *fused = dj_cuda_arena(exe, sizeof(*fused));
    dj_part_t *part = malloc(sizeof(*part));
    dj_status_t status = fused && part ? DJ_OK : out_of_memory();
    launch_t **tail_p = fused ? &fused->first : NULL;
    for (uint32_t at = 0; at < n && status == DJ_OK; at += part->n_steps) {
        status = dj_part_make(part, &nodes[at], n - at);
        if (status != DJ_OK || part->count == 0)
            continue;
        status = make_launch(exe, part, at, tail_p);
        tail_p = &(*tail_p)->next;
    }
    free(part);
    if (status == DJ_OK)
        *fused_p = fused;
    else if (fused)
        dj_cuda_fused_drop(exe, fused);
    return status;
}

dj_status_t dj_cuda_fused_emit(const dj_cuda_fused_t *fused, dj_cuda_emit_t *emit, const dj_cuda_ref_t *const *refs)
{
    for (const launch_t *launch = fused->first; launch; launch = launch->next) {
        _Alignas(16) uint8_t params[DJ_CUDA_PARAMS_MAX];
        memcpy(params, launch->params, launch->params_bytes);
        dj_cuda_ref_t *to = (dj_cuda_ref_t *)(void *)(params + launch->refs_offset);
        for (uint32_t i = 0; i < launch->n_refs; i++)
            to[i] = refs[launch->places[i].step][launch->places[i].operand];
        dj_status_t status = dj_cuda_emit_kernel(emit, launch->function, &launch->grid, params, launch->params_bytes);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

dj_status_t dj_cuda_fuse_source(const dj_node_t *const *nodes, uint32_t n, char **source_p, const char **name_p)
{
    dj_part_t *part = malloc(sizeof(*part));
    if (!part)
        return out_of_memory();
    dj_status_t status = dj_part_make(part, nodes, n);
    if (status == DJ_OK)
        status = dj_part_source(part, source_p, name_p);
    free(part);
    return status;
}
