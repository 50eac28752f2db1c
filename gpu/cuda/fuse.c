/* fuse.c - pointwise kernels of the CUDA device: parts (part.h) become functions at place, launches at emit.
 *
 * A fusion group is one part, or several where its parameters or windows ask for that; each part is one launch.
 *
 * A text costs NVRTC tens to hundreds of milliseconds, and a program may bring dozens that nobody has compiled yet; so
 * the texts of all groups are made first and compiled side by side. */
#include "gpu/cuda/fuse.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/part.h"
#include "gpu/cuda/prepare.h"

#define THREADS 256

typedef struct place {
    uint32_t step, operand;
} place_t;

typedef struct launch {
    char *source; /* until it has its function; the name lies in it */
    const char *name;
    uint16_t op; /* the first one */
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
    launch_t *launch = dj_cuda_arena(exe, sizeof(*launch));
    if (!launch)
        return out_of_memory();
    *launch_p = launch;
    launch->op = part->steps[0].node->call.op;
    dj_status_t status = fill_launch(exe, part, first_step, launch);
    return status == DJ_OK ? dj_part_source(part, &launch->source, &launch->name) : status;
}

void dj_cuda_fused_drop(dj_executable_t *exe, dj_cuda_fused_t *fused)
{
    for (launch_t *launch = fused->first; launch; launch = launch->next) {
        free(launch->source);
        if (launch->held)
            dj_cuda_jit_drop(dj_cuda_device_of(exe), launch->held);
    }
}

/* ---- functions ---- */

typedef struct loading {
    dj_cuda_device_t *device;
    launch_t **launches;
    uint32_t n;
    atomic_uint next;
    atomic_bool failed;
    pthread_mutex_t lock;
    dj_status_t status; /* the first failure */
    char text[512]; /* as much of a sentence as its thread keeps */
} loading_t;

static void load_failed(loading_t *loading, dj_status_t status)
{
    pthread_mutex_lock(&loading->lock);
    if (!atomic_exchange(&loading->failed, true)) {
        loading->status = status;
        snprintf(loading->text, sizeof(loading->text), "%s", dj_error_text());
    }
    pthread_mutex_unlock(&loading->lock);
}

/* Takes the next one, until there is none or one has failed. */
static void *load_main(void *argument)
{
    loading_t *loading = argument;
    dj_status_t status = dj_cuda_enter(loading->device);
    if (status != DJ_OK)
        load_failed(loading, status);
    for (uint32_t i; !atomic_load(&loading->failed) && (i = atomic_fetch_add(&loading->next, 1)) < loading->n;) {
        launch_t *launch = loading->launches[i];
        status = dj_cuda_jit_function(loading->device, launch->source, launch->name, &launch->function, &launch->held);
        if (status == DJ_OK) {
            free(launch->source);
            launch->source = NULL;
        } else {
            load_failed(loading, dj_fail_prefix(status, "%s", dj_op_info(launch->op)->name));
        }
    }
    return NULL;
}

/* This thread and others; where no more can be made, as many as there are. */
static void load_all(loading_t *loading)
{
    pthread_t threads[DJ_CUDA_COMPILERS_MAX];
    uint32_t n_threads = 0, wanted = loading->device->n_compilers;
    wanted = wanted < loading->n ? wanted : loading->n;
    while (n_threads + 1 < wanted && pthread_create(&threads[n_threads], NULL, load_main, loading) == 0)
        n_threads++;
    load_main(loading);
    while (n_threads > 0)
        pthread_join(threads[--n_threads], NULL);
}

dj_status_t dj_cuda_fused_load(dj_executable_t *exe, dj_cuda_fused_t *const *fused, uint32_t n)
{
    loading_t loading = {.device = dj_cuda_device_of(exe), .lock = PTHREAD_MUTEX_INITIALIZER};
    uint32_t n_launches = 0;
    for (uint32_t i = 0; i < n; i++)
        for (const launch_t *launch = fused[i]->first; launch; launch = launch->next)
            n_launches += launch->source != NULL;
    if (n_launches == 0)
        return DJ_OK;
    loading.launches = malloc(n_launches * sizeof(*loading.launches));
    if (!loading.launches)
        return out_of_memory();
    for (uint32_t i = 0; i < n; i++)
        for (launch_t *launch = fused[i]->first; launch; launch = launch->next)
            if (launch->source)
                loading.launches[loading.n++] = launch;
    load_all(&loading);
    free(loading.launches);
    return loading.failed ? dj_fail(loading.status, "%s", loading.text) : DJ_OK;
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
