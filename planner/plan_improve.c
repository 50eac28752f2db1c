/* plan_improve.c - a better layout for a plan that is used again and again: exact search (pack.h) over
 * the places of its schedule.
 *
 * Order, groups and staging stay: only offsets change. Sizes are counted in units of the alignment.
 * Places that the plan lays over one another inside a fusion group (place.h: hands_over) become one
 * rectangle, since rectangles know no such exception; so the plan itself is always a solution, and the
 * search asks for less than it: for the bound first, then for what lies half-way.
 *
 * Called by a rank's upkeep thread, with time to spare (runtime/upkeep.c). */
#include <stdlib.h>
#include <string.h>

#include "planner/pack.h"
#include "planner/plan.h"
#include "planner/schedule.h"
#include "runtime/base/clock.h"

typedef struct improver {
    dj_schedule_t schedule;
    uint64_t base; /* units below all places */
    uint32_t n_rects;
    dj_rect_t *rects;
    uint32_t *rect_of; /* of each place */
    uint64_t *offsets, *best;
} improver_t;

static uint64_t units(uint64_t bytes)
{
    return (bytes + DJ_ALIGN_BYTES - 1) / DJ_ALIGN_BYTES;
}

/* Has the storage a place in Stack, as against none or one in the second slab? */
static bool in_stack(const dj_schedule_t *schedule, uint32_t storage)
{
    return schedule->place_of[storage] != DJ_SLOT_NONE &&
           !schedule->graph->storages[storage].is_spilled;
}

/* The schedule as the plan has it, offsets and all; false: its groups are not those made here. */
static bool adopt(dj_schedule_t *schedule, const dj_plan_t *plan)
{
    if (schedule->n_steps != plan->n_steps || schedule->n_groups != plan->n_groups)
        return false;
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        uint32_t place = schedule->stage_place[i];
        if (schedule->nodes[i] != plan->steps[i].node ||
            schedule->groups[i] != plan->steps[i].group)
            return false;
        if (place != DJ_SLOT_NONE)
            schedule->places[place].offset = plan->steps[i].staging;
    }
    for (uint32_t i = 0; i < plan->n_storages; i++)
        if (in_stack(schedule, i))
            schedule->places[schedule->place_of[i]].offset = plan->offsets[i];
    return true;
}

/* By offset, then time: those that lie over one another are neighbours. */
static int by_range(const void *a, const void *b, void *context)
{
    const dj_place_t *places = context;
    const dj_place_t *x = &places[*(const uint32_t *)a], *y = &places[*(const uint32_t *)b];
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Does the later of two places with one offset lie over the earlier while that may still be read? */
static bool lies_over(const dj_place_t *early, const dj_place_t *late)
{
    return early->offset == late->offset && early->bytes == late->bytes && early->bytes > 0 &&
           late->first > early->last && late->from <= early->last;
}

static dj_status_t make_rects(improver_t *m)
{
    dj_place_t *places = m->schedule.places;
    uint32_t n = m->schedule.n_places;
    uint32_t *order = calloc(n + 1ull, sizeof *order);
    if (order == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to improve a plan of %u places", n);
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, n, sizeof *order, by_range, places);
    for (uint32_t i = 0; i < n; i++) {
        const dj_place_t *place = &places[order[i]];
        if (i > 0 && lies_over(&places[order[i - 1]], place))
            m->rects[m->n_rects - 1].upper = place->last + 1ull;
        else
            m->rects[m->n_rects++] = (dj_rect_t){
                .lower = place->from, .upper = place->last + 1ull, .size = units(place->bytes)};
        m->rect_of[order[i]] = m->n_rects - 1;
    }
    free(order);
    return DJ_OK;
}

static dj_status_t init(improver_t *m, const dj_graph_t *graph, const dj_plan_t *plan, bool *fits_p)
{
    dj_status_t status = dj_schedule_init(&m->schedule, graph);
    if (status != DJ_OK)
        return status;
    if ((status = dj_schedule_arrange(&m->schedule)) != DJ_OK)
        return status;
    size_t n = m->schedule.n_places + 1ull;
    m->base = units(plan->workspace_bytes);
    m->rects = calloc(n, sizeof *m->rects);
    m->rect_of = calloc(n, sizeof *m->rect_of);
    m->offsets = calloc(n, sizeof *m->offsets);
    m->best = calloc(n, sizeof *m->best);
    if (m->rects == NULL || m->rect_of == NULL || m->offsets == NULL || m->best == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to improve a plan of %zu places", n);
    *fits_p = adopt(&m->schedule, plan);
    return *fits_p ? make_rects(m) : DJ_OK;
}

static void fini(improver_t *m)
{
    dj_schedule_fini(&m->schedule);
    free(m->rects);
    free(m->rect_of);
    free(m->offsets);
    free(m->best);
}

/* Lowers the capacity between `low` (nothing less can be) and `high` (what the plan has) until no
 * time is left or nothing between. *found_p: whether m->best holds a solution below `high`. */
static dj_status_t search(improver_t *m, uint64_t low, uint64_t high,
                          const dj_plan_limits_t *limits, bool *found_p)
{
    uint64_t now_ns = dj_clock_ns(), target = low;
    uint64_t left_ns = limits->deadline_ns > now_ns ? limits->deadline_ns - now_ns : 0;
    while (low < high && left_ns > 0) {
        /* half of what is left for each question, so that one without an answer is not the last */
        dj_pack_limits_t pack = {.deadline_ns = now_ns + (left_ns + 1) / 2,
                                 .cancel = limits->cancel,
                                 .seed = 1};
        dj_pack_result_t result;
        dj_status_t status =
            dj_pack_solve(m->rects, m->n_rects, target, &pack, m->offsets, &result);
        if (status != DJ_OK || (limits->cancel && atomic_load(limits->cancel)))
            return status;
        if (result.end == DJ_PACK_FOUND) {
            memcpy(m->best, m->offsets, m->n_rects * sizeof *m->best);
            *found_p = true;
            high = target;
        } else { /* not to be had, or not in time: ask for less of an improvement */
            low = target + 1;
        }
        target = low + (high - low) / 2;
        now_ns = dj_clock_ns();
        left_ns = limits->deadline_ns > now_ns ? limits->deadline_ns - now_ns : 0;
    }
    return DJ_OK;
}

/* A copy with the offsets of m->best. */
static dj_plan_t *lay_out(const improver_t *m, const dj_plan_t *plan)
{
    const dj_schedule_t *schedule = &m->schedule;
    size_t offsets = plan->n_storages * sizeof(uint64_t);
    size_t steps = plan->n_steps * sizeof(dj_plan_step_t);
    dj_plan_t *better = malloc(sizeof *better + offsets + steps); /* as dj_plan_destroy() has it */
    if (better == NULL)
        return NULL;
    *better = *plan;
    better->offsets = (uint64_t *)(better + 1);
    better->steps = (dj_plan_step_t *)(better->offsets + plan->n_storages);
    memcpy(better->offsets, plan->offsets, offsets);
    memcpy(better->steps, plan->steps, steps);
    better->peak_bytes = plan->workspace_bytes;
    for (uint32_t i = 0; i < schedule->n_places; i++) {
        dj_place_t *place = &schedule->places[i];
        place->offset = (m->base + m->best[m->rect_of[i]]) * DJ_ALIGN_BYTES;
        if (place->bytes > 0 && place->offset + place->bytes > better->peak_bytes)
            better->peak_bytes = place->offset + place->bytes;
    }
    for (uint32_t i = 0; i < plan->n_storages; i++)
        if (in_stack(schedule, i))
            better->offsets[i] = schedule->places[schedule->place_of[i]].offset;
    for (uint32_t i = 0; i < plan->n_steps; i++)
        if (schedule->stage_place[i] != DJ_SLOT_NONE)
            better->steps[i].staging = schedule->places[schedule->stage_place[i]].offset;
    return better;
}

static dj_status_t improve(improver_t *m, const dj_graph_t *graph, const dj_plan_t *plan,
                           const dj_plan_limits_t *limits, dj_plan_t **better_p)
{
    uint64_t least, began_ns = dj_clock_ns();
    bool found = false;
    dj_status_t status = dj_places_alive(m->schedule.places, m->schedule.n_places,
                                         m->schedule.n_steps, DJ_ALIGN_BYTES, &least);
    if (status == DJ_OK)
        status = search(m, units(least), units(plan->peak_bytes) - m->base, limits, &found);
    if (status != DJ_OK || !found)
        return status;
    dj_plan_t *better = lay_out(m, plan);
    if (better == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a better plan");
    better->planning_ns = dj_clock_ns() - began_ns;
    status = dj_plan_verify(better, graph);
    if (status == DJ_OK && better->peak_bytes < plan->peak_bytes)
        *better_p = better;
    else
        dj_plan_destroy(better);
    return status;
}

dj_status_t dj_plan_improve(const dj_graph_t *graph, const dj_plan_t *plan,
                            const dj_plan_limits_t *limits, dj_plan_t **better_p)
{
    improver_t m = {.n_rects = 0};
    bool fits = false;
    *better_p = NULL;
    if (plan->peak_bytes <= plan->bound_bytes)
        return DJ_OK;
    dj_status_t status = init(&m, graph, plan, &fits);
    if (status == DJ_OK && fits)
        status = improve(&m, graph, plan, limits, better_p);
    fini(&m);
    return status;
}
