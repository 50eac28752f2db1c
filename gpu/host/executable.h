/* executable.h - what host_device.c, replay.c and matmul.c share: the device and its executables.
 *
 * An executable is a row of kernels, one a node, prepared for exact sizes, and one resolved place
 * an operand: which binding or which offset in the slab, and which scalar moves it. Nothing in it
 * changes during a replay except what a kernel with `threaded` set keeps in its own state. */
#ifndef DJ_GPU_HOST_EXECUTABLE_H
#define DJ_GPU_HOST_EXECUTABLE_H

#include "gpu/bound_text.h"
#include "gpu/host/host.h"
#include "gpu/host/onednn.h"
#include "gpu/place.h"

/* Written at the very end of the workspace before a replay and checked after it: a library that
 * writes past what it asked for is found, and the peak is reached even if it uses less. */
#define DJ_HOST_GUARD_BYTES 64u

typedef struct dj_host_device {
    dj_device_t base;
    dj_device_info_t info;
    const dj_host_kernels_t *kernels;
    dj_onednn_t *onednn;
} dj_host_device_t;

typedef struct dj_host_step {
    dj_host_kernel_t *kernel;
    const dj_place_t *places;
    uint32_t n_places, n_outs;
    uint32_t group_steps;    /* this and the next ones to run tile by tile, or 1 */
    uint64_t staging;        /* offset of output 0's staged form, contiguous, or DJ_OFFSET_NONE */
    const dj_view_t *target; /* output 0's window, which a staged form is copied to */
} dj_host_step_t;

typedef struct dj_host_executable {
    dj_executable_t base;
    dj_arena_t *arena; /* holds all that the pointers below point to, and the kernels' own state */
    dj_host_kernel_t *kernels; /* of each node */
    dj_place_t *places;        /* of each operand and output of each node, in node order */
    uint32_t *first_place;     /* of each node, and one past the last */
    uint64_t *workspaces;      /* of each node, guard included */
    dj_host_step_t *steps;     /* after place() */
    uint32_t n_steps;
    dj_bound_text_t *texts; /* of each binding, after bind() */
    bool bound, threaded;
} dj_host_executable_t;

static inline dj_host_device_t *dj_host_device_of(const dj_executable_t *exe)
{
    return (dj_host_device_t *)exe->device;
}

static inline void *dj_host_resolve(const dj_place_t *place, const dj_launch_t *launch)
{
    uint8_t *base;
    if (place->storage == DJ_STORAGE_NONE)
        return NULL;
    if (place->binding != DJ_SLOT_NONE)
        base = launch->bindings[place->binding];
    else
        base = (uint8_t *)(place->spilled ? launch->spill : launch->stack) + place->offset;
    base += place->inside;
    if (place->slot != DJ_SLOT_NONE)
        base += launch->scalars[place->slot] * place->item_bytes;
    return base;
}

/* group.c: marks the steps of a plan that run tile by tile, and runs `n` such. */
void dj_host_groups_mark(dj_host_step_t *steps, const dj_plan_t *plan);
void dj_host_group_run(const dj_host_step_t *steps, uint32_t n, const dj_launch_t *launch,
                       uint32_t threads);

dj_status_t dj_host_compile(dj_device_t *device, const dj_graph_t *graph, dj_executable_t **exe_p);
const uint64_t *dj_host_workspaces(const dj_executable_t *exe);
dj_status_t dj_host_place(dj_executable_t *exe, const dj_plan_t *plan);
dj_status_t dj_host_bind(dj_executable_t *exe, dj_text_t *const *texts);
bool dj_host_bound(const dj_executable_t *exe, dj_text_t *const *texts);
bool dj_host_reentrant(const dj_executable_t *exe);
dj_status_t dj_host_replay(dj_executable_t *exe, const dj_launch_t *launch);
uint64_t dj_host_bytes(const dj_executable_t *exe);
void dj_host_destroy(dj_executable_t *exe);

#endif
