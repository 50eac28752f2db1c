/* group.c - fusion groups of the host device: a run of pointwise steps, tile by tile.
 *
 * The planner promises that steps of one group have contiguous outputs of one shape and see what
 * any of them writes through the same window, so all of them may work on elements [first, end)
 * before any goes on. A tile's operands then stay in the first-level cache, where whole tensors
 * would go out to memory and back at every step, and the threads fork once a group.
 *
 * Small groups gain nothing and run step by step. Called by replay.c. */
#include <omp.h>

#include "gpu/host/executable.h"

#define GROUP_STEPS_MAX 32
#define GROUP_PLACES_MAX 8
#define TILE_ELEMENTS 4096

static bool is_tileable(const dj_host_step_t *step)
{
    return step->kernel->run_part && step->n_places <= GROUP_PLACES_MAX && step->n_outs == 1 &&
           step->staging == DJ_OFFSET_NONE && step->kernel->workspace_bytes == 0 &&
           dj_view_count(step->target) >= 2 * TILE_ELEMENTS;
}

void dj_host_groups_mark(dj_host_step_t *steps, const dj_plan_t *plan)
{
    for (uint32_t first = 0, i = 0; i < plan->n_steps; i++) {
        bool joins = i > first && plan->steps[i].group == plan->steps[first].group &&
                     i - first < GROUP_STEPS_MAX && is_tileable(&steps[first]) &&
                     is_tileable(&steps[i]);
        if (joins)
            steps[first].group_steps++;
        else
            first = i;
    }
}

static void run_tiles(const dj_host_step_t *steps, const dj_host_run_t *runs, uint32_t n,
                      int64_t first, int64_t end)
{
    for (; first < end; first += TILE_ELEMENTS) {
        int64_t stop = end - first < TILE_ELEMENTS ? end : first + TILE_ELEMENTS;
        for (uint32_t i = 0; i < n; i++)
            steps[i].kernel->run_part(steps[i].kernel, &runs[i], first, stop);
    }
}

void dj_host_group_run(const dj_host_step_t *steps, uint32_t n, const dj_launch_t *launch,
                       uint32_t threads)
{
    void *pointers[GROUP_STEPS_MAX][GROUP_PLACES_MAX];
    dj_host_run_t runs[GROUP_STEPS_MAX];
    uint32_t fault = 0; /* pointwise kernels know none */
    bool threaded = false;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < steps[i].n_places; j++)
            pointers[i][j] = dj_host_resolve(&steps[i].places[j], launch);
        runs[i] = (dj_host_run_t){.operands = pointers[i],
                                  .outs = &pointers[i][steps[i].n_places - 1],
                                  .scalars = launch->scalars,
                                  .threads = 1,
                                  .fault_p = &fault};
        threaded |= steps[i].kernel->threaded;
    }
    int64_t count = dj_view_count(steps[0].target);
    if (threads <= 1 || !threaded) {
        run_tiles(steps, runs, n, 0, count);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t parts = omp_get_num_threads(), part = omp_get_thread_num();
        int64_t tiles = (count + TILE_ELEMENTS - 1) / TILE_ELEMENTS;
        int64_t share = (tiles + parts - 1) / parts * TILE_ELEMENTS, first = part * share;
        int64_t end = first + share < count ? first + share : count;
        run_tiles(steps, runs, n, first, end);
    }
}
