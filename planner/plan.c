/* plan.c - makes a plan and proves one.
 *
 * Both go through the same schedule (schedule.h): the maker asks it for groups and lifetimes and
 * places them, the proof asks it for lifetimes under the plan's groups and checks the places. The
 * numbers a plan carries about itself are recomputed, never read. */
#include "planner/plan.h"

#include <stdlib.h>
#include <string.h>

#include "planner/cost.h"
#include "planner/schedule.h"
#include "runtime/base/clock.h"

/* One allocation: the plan, then offsets, then steps. */
static dj_plan_t *allocate_plan(const dj_graph_t *graph, uint32_t n_steps)
{
    size_t offsets = graph->n_storages * sizeof(uint64_t), steps = n_steps * sizeof(dj_plan_step_t);
    dj_plan_t *plan = calloc(1, sizeof *plan + offsets + steps);
    if (plan == NULL) {
        dj_fail(DJ_ERR_MEMORY, "no memory for a plan of %u steps", n_steps);
        return NULL;
    }
    plan->offsets = (uint64_t *)(plan + 1);
    plan->steps = (dj_plan_step_t *)(plan->offsets + graph->n_storages);
    plan->n_steps = n_steps;
    plan->n_storages = graph->n_storages;
    plan->program_key = graph->program_key;
    plan->exact_key = graph->exact_key;
    return plan;
}

void dj_plan_destroy(dj_plan_t *plan)
{
    free(plan);
}

static uint64_t largest_workspace(const dj_schedule_t *schedule, const dj_plan_needs_t *needs)
{
    uint64_t largest = 0;
    for (uint32_t i = 0; needs->workspace_bytes != NULL && i < schedule->n_steps; i++) {
        uint64_t bytes = needs->workspace_bytes[schedule->nodes[i]];
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static uint64_t highest_end(const dj_place_t *places, uint32_t n_places, uint64_t workspace_bytes)
{
    uint64_t peak = workspace_bytes;
    for (uint32_t i = 0; i < n_places; i++) {
        const dj_place_t *place = &places[i];
        if (place->bytes > 0 && place->offset + place->bytes > peak)
            peak = place->offset + place->bytes;
    }
    return peak;
}

static dj_status_t lower_bound(const dj_schedule_t *schedule, uint64_t workspace_bytes,
                               uint64_t *bound_p)
{
    uint64_t alive;
    dj_status_t status =
        dj_places_alive(schedule->places, schedule->n_places, schedule->n_steps, 1, &alive);
    if (status == DJ_OK)
        *bound_p = alive > 0 ? dj_align_up(workspace_bytes) + alive : workspace_bytes;
    return status;
}

static uint64_t predict_ns(const dj_schedule_t *schedule, const dj_plan_needs_t *needs)
{
    const dj_roofline_t roofline = {needs->flops_per_ns, needs->bytes_per_ns, needs->step_ns};
    double total = 0;
    for (uint32_t i = 0; i < schedule->n_steps; i++) {
        double flops;
        uint64_t bytes;
        dj_node_cost(schedule->graph, &schedule->graph->nodes[schedule->nodes[i]], &flops, &bytes);
        total += dj_roofline_ns(&roofline, flops, bytes);
    }
    return total < 1e18 ? (uint64_t)total : (uint64_t)1e18;
}

/* The place of a storage in its slab, or NULL. */
static dj_place_t *place_of(const dj_schedule_t *schedule, uint32_t storage)
{
    uint32_t place = schedule->place_of[storage];
    if (place == DJ_SLOT_NONE)
        return NULL;
    return schedule->graph->storages[storage].is_spilled ? &schedule->spills[place]
                                                         : &schedule->places[place];
}

static void fill_plan(const dj_schedule_t *schedule, dj_plan_t *plan)
{
    for (uint32_t i = 0; i < plan->n_storages; i++) {
        const dj_place_t *place = place_of(schedule, i);
        plan->offsets[i] = place != NULL ? place->offset : DJ_OFFSET_NONE;
    }
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        uint32_t place = schedule->stage_place[i];
        plan->steps[i] = (dj_plan_step_t){
            .node = schedule->nodes[i],
            .group = schedule->groups[i],
            .staging = place != DJ_SLOT_NONE ? schedule->places[place].offset : DJ_OFFSET_NONE,
        };
    }
    plan->n_groups = schedule->n_groups;
}

static dj_status_t place_all(dj_schedule_t *schedule, const dj_plan_needs_t *needs,
                             dj_plan_t *plan)
{
    uint64_t end;
    plan->device_class = needs->device_class;
    plan->workspace_bytes = largest_workspace(schedule, needs);
    if (plan->workspace_bytes > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a workspace of %llu bytes",
                       (unsigned long long)plan->workspace_bytes);
    dj_status_t status = dj_places_assign(schedule->places, schedule->n_places,
                                          plan->workspace_bytes, &end);
    if (status == DJ_OK)
        status = dj_places_assign(schedule->spills, schedule->n_spills, 0, &end);
    if (status == DJ_OK)
        status = lower_bound(schedule, plan->workspace_bytes, &plan->bound_bytes);
    if (status != DJ_OK)
        return status;
    plan->peak_bytes = highest_end(schedule->places, schedule->n_places, plan->workspace_bytes);
    plan->spill_bytes = highest_end(schedule->spills, schedule->n_spills, 0);
    plan->predicted_ns = predict_ns(schedule, needs);
    fill_plan(schedule, plan);
    return DJ_OK;
}

dj_status_t dj_plan_make(const dj_graph_t *graph, const dj_plan_needs_t *needs, dj_plan_t **plan_p)
{
    uint64_t started = dj_clock_ns();
    dj_schedule_t schedule;
    dj_status_t status = dj_schedule_init(&schedule, graph);
    if (status != DJ_OK)
        return status;
    status = dj_schedule_arrange(&schedule);
    dj_plan_t *plan = status == DJ_OK ? allocate_plan(graph, schedule.n_steps) : NULL;
    status = plan != NULL ? place_all(&schedule, needs, plan) : DJ_ERR_MEMORY;
    dj_schedule_fini(&schedule);
    if (status != DJ_OK) {
        dj_plan_destroy(plan);
        return status;
    }
    plan->planning_ns = dj_clock_ns() - started;
    *plan_p = plan;
    return DJ_OK;
}

/* The plan's steps must be the schedule's, its groups legal; the groups are taken over. */
static dj_status_t adopt_steps(dj_schedule_t *schedule, const dj_plan_t *plan)
{
    uint32_t first = 0;
    if (plan->n_steps != schedule->n_steps)
        return dj_fail(DJ_ERR_CORRUPT, "a plan of %u steps; the graph needs %u", plan->n_steps,
                       schedule->n_steps);
    schedule->n_groups = 0;
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        const dj_plan_step_t *step = &plan->steps[i];
        if (step->node != schedule->nodes[i])
            return dj_fail(DJ_ERR_CORRUPT, "step %u runs node %u; the graph needs node %u", i,
                           step->node, schedule->nodes[i]);
        if ((step->staging != DJ_OFFSET_NONE) != (schedule->stage_place[i] != DJ_SLOT_NONE))
            return dj_fail(DJ_ERR_CORRUPT, "step %u: staged where it need not, or not staged", i);
        bool starts = i == 0 || step->group != plan->steps[i - 1].group;
        if (step->group != schedule->n_groups - !starts ||
            (!starts && !dj_schedule_joins(schedule, first, i)))
            return dj_fail(DJ_ERR_CORRUPT, "step %u cannot be in group %u", i, step->group);
        first = starts ? i : first;
        if (starts)
            schedule->group_first[schedule->n_groups++] = i;
        schedule->groups[i] = step->group;
    }
    if (plan->n_groups != schedule->n_groups)
        return dj_fail(DJ_ERR_CORRUPT, "%u groups; the steps have %u", plan->n_groups,
                       schedule->n_groups);
    return DJ_OK;
}

static dj_status_t adopt_offsets(dj_schedule_t *schedule, const dj_plan_t *plan)
{
    for (uint32_t i = 0; i < plan->n_storages; i++) {
        dj_place_t *place = place_of(schedule, i);
        if ((place == NULL) != (plan->offsets[i] == DJ_OFFSET_NONE))
            return dj_fail(DJ_ERR_CORRUPT, "storage %u has %s in Stack", i,
                           place == NULL ? "no business" : "no place");
        if (place != NULL)
            place->offset = plan->offsets[i];
    }
    for (uint32_t i = 0; i < plan->n_steps; i++)
        if (schedule->stage_place[i] != DJ_SLOT_NONE)
            schedule->places[schedule->stage_place[i]].offset = plan->steps[i].staging;
    return DJ_OK;
}

static dj_status_t prove_numbers(const dj_schedule_t *schedule, const dj_plan_t *plan)
{
    uint64_t bound = 0, peak = highest_end(schedule->places, schedule->n_places, plan->workspace_bytes);
    dj_status_t status = lower_bound(schedule, plan->workspace_bytes, &bound);
    if (status == DJ_OK &&
        highest_end(schedule->spills, schedule->n_spills, 0) != plan->spill_bytes)
        status = dj_fail(DJ_ERR_CORRUPT, "%llu bytes spilled; the places end elsewhere",
                         (unsigned long long)plan->spill_bytes);
    if (status == DJ_OK && (peak != plan->peak_bytes || bound != plan->bound_bytes))
        status = dj_fail(DJ_ERR_CORRUPT, "peak %llu and bound %llu; they are %llu and %llu",
                         (unsigned long long)plan->peak_bytes,
                         (unsigned long long)plan->bound_bytes, (unsigned long long)peak,
                         (unsigned long long)bound);
    return status;
}

static dj_status_t prove(dj_schedule_t *schedule, const dj_plan_t *plan)
{
    dj_status_t status = adopt_steps(schedule, plan);
    if (status != DJ_OK)
        return status;
    dj_schedule_lifetimes(schedule);
    status = adopt_offsets(schedule, plan);
    if (status == DJ_OK)
        status = dj_places_check(schedule->places, schedule->n_places, plan->workspace_bytes);
    if (status == DJ_OK)
        status = dj_places_check(schedule->spills, schedule->n_spills, 0);
    if (status == DJ_OK)
        status = prove_numbers(schedule, plan);
    return status;
}

dj_status_t dj_plan_verify(const dj_plan_t *plan, const dj_graph_t *graph)
{
    dj_schedule_t schedule;
    if (!dj_hash_equal(plan->program_key, graph->program_key) ||
        !dj_hash_equal(plan->exact_key, graph->exact_key))
        return dj_fail(DJ_ERR_STALE, "a plan of another program or other sizes");
    if (plan->n_storages != graph->n_storages || plan->workspace_bytes > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_CORRUPT, "%u storages and %llu bytes of workspace", plan->n_storages,
                       (unsigned long long)plan->workspace_bytes);
    dj_status_t status = dj_schedule_init(&schedule, graph);
    if (status != DJ_OK)
        return status;
    status = prove(&schedule, plan);
    dj_schedule_fini(&schedule);
    return status;
}

/* What a decoded plan claims about the device, against what the device says. Sets predicted_ns. */
static dj_status_t check_needs(dj_plan_t *plan, const dj_graph_t *graph,
                               const dj_plan_needs_t *needs)
{
    dj_schedule_t schedule;
    dj_status_t status = dj_schedule_init(&schedule, graph);
    if (status != DJ_OK)
        return status;
    uint64_t workspace = largest_workspace(&schedule, needs);
    plan->predicted_ns = predict_ns(&schedule, needs);
    dj_schedule_fini(&schedule);
    if (workspace != plan->workspace_bytes)
        return dj_fail(DJ_ERR_CORRUPT, "%llu bytes of workspace; the steps need %llu",
                       (unsigned long long)plan->workspace_bytes, (unsigned long long)workspace);
    return DJ_OK;
}

static void put_hash(dj_bytes_t *bytes, dj_hash_t hash)
{
    dj_bytes_put_u64(bytes, hash.word[0]);
    dj_bytes_put_u64(bytes, hash.word[1]);
}

static dj_hash_t get_hash(dj_reader_t *reader)
{
    dj_hash_t hash;
    hash.word[0] = dj_reader_u64(reader);
    hash.word[1] = dj_reader_u64(reader);
    return hash;
}

/* Offsets are multiples of the alignment: 0 stands for none, else 1 + offset / alignment. */
static void put_offset(dj_bytes_t *bytes, uint64_t offset)
{
    dj_bytes_put_varint(bytes, offset == DJ_OFFSET_NONE ? 0 : 1 + offset / DJ_ALIGN_BYTES);
}

static uint64_t get_offset(dj_reader_t *reader)
{
    uint64_t value = dj_reader_varint(reader);
    if (value > DJ_TENSOR_BYTES_MAX)
        reader->failed = true;
    return value == 0 ? DJ_OFFSET_NONE : (value - 1) * DJ_ALIGN_BYTES;
}

dj_status_t dj_plan_encode(const dj_plan_t *plan, dj_bytes_t *bytes)
{
    dj_bytes_put(bytes, "DJPL", 4);
    dj_bytes_put_u8(bytes, DJ_PLAN_VERSION);
    put_hash(bytes, plan->program_key);
    put_hash(bytes, plan->exact_key);
    put_hash(bytes, plan->device_class);
    dj_bytes_put_varint(bytes, plan->n_steps);
    dj_bytes_put_varint(bytes, plan->n_storages);
    dj_bytes_put_varint(bytes, plan->n_groups);
    dj_bytes_put_varint(bytes, plan->workspace_bytes);
    dj_bytes_put_varint(bytes, plan->peak_bytes);
    dj_bytes_put_varint(bytes, plan->bound_bytes);
    dj_bytes_put_varint(bytes, plan->spill_bytes);
    dj_bytes_put_varint(bytes, plan->planning_ns);
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        dj_bytes_put_varint(bytes, plan->steps[i].node);
        dj_bytes_put_varint(bytes, plan->steps[i].group);
        put_offset(bytes, plan->steps[i].staging);
    }
    for (uint32_t i = 0; i < plan->n_storages; i++)
        put_offset(bytes, plan->offsets[i]);
    return bytes->failed ? dj_fail(DJ_ERR_MEMORY, "no memory for a plan's bytes") : DJ_OK;
}

static dj_status_t read_header(dj_reader_t *reader, const dj_graph_t *graph,
                               const dj_plan_needs_t *needs)
{
    const char *magic = dj_reader_take(reader, 4);
    uint8_t version = dj_reader_u8(reader);
    if (magic == NULL || memcmp(magic, "DJPL", 4) != 0)
        return dj_fail(DJ_ERR_CORRUPT, "not a plan");
    if (version != DJ_PLAN_VERSION)
        return dj_fail(DJ_ERR_VERSION, "a plan of version %u; this side reads version %d", version,
                       DJ_PLAN_VERSION);
    dj_hash_t program_key = get_hash(reader), exact_key = get_hash(reader);
    dj_hash_t device_class = get_hash(reader);
    if (!dj_hash_equal(program_key, graph->program_key) ||
        !dj_hash_equal(exact_key, graph->exact_key))
        return dj_fail(DJ_ERR_STALE, "a plan of another program or other sizes");
    if (!dj_hash_equal(device_class, needs->device_class))
        return dj_fail(DJ_ERR_CLASS, "a plan made for another device class");
    return DJ_OK;
}

static void read_body(dj_reader_t *reader, dj_plan_t *plan)
{
    plan->n_groups = (uint32_t)dj_reader_varint(reader);
    plan->workspace_bytes = dj_reader_varint(reader);
    plan->peak_bytes = dj_reader_varint(reader);
    plan->bound_bytes = dj_reader_varint(reader);
    plan->spill_bytes = dj_reader_varint(reader);
    plan->planning_ns = dj_reader_varint(reader);
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        plan->steps[i].node = (uint32_t)dj_reader_varint(reader);
        plan->steps[i].group = (uint32_t)dj_reader_varint(reader);
        plan->steps[i].staging = get_offset(reader);
    }
    for (uint32_t i = 0; i < plan->n_storages; i++)
        plan->offsets[i] = get_offset(reader);
}

static dj_status_t read_plan(dj_reader_t *reader, const dj_graph_t *graph,
                             const dj_plan_needs_t *needs, dj_plan_t *plan)
{
    plan->device_class = needs->device_class;
    read_body(reader, plan);
    if (reader->failed || dj_reader_left(reader) > 0)
        return dj_fail(DJ_ERR_CORRUPT, "a plan that ends too early or too late");
    dj_status_t status = check_needs(plan, graph, needs);
    return status == DJ_OK ? dj_plan_verify(plan, graph) : status;
}

dj_status_t dj_plan_decode(const void *data, size_t size, const dj_graph_t *graph,
                           const dj_plan_needs_t *needs, dj_plan_t **plan_p)
{
    dj_reader_t reader;
    dj_reader_init(&reader, data, size);
    dj_status_t status = read_header(&reader, graph, needs);
    if (status != DJ_OK)
        return status;
    uint64_t n_steps = dj_reader_varint(&reader), n_storages = dj_reader_varint(&reader);
    if (reader.failed || n_steps > graph->n_nodes || n_storages != graph->n_storages)
        return dj_fail(DJ_ERR_CORRUPT, "a plan of %llu steps and %llu storages",
                       (unsigned long long)n_steps, (unsigned long long)n_storages);
    dj_plan_t *plan = allocate_plan(graph, (uint32_t)n_steps);
    if (plan == NULL)
        return DJ_ERR_MEMORY;
    status = read_plan(&reader, graph, needs, plan);
    if (status != DJ_OK) {
        dj_plan_destroy(plan);
        return status;
    }
    *plan_p = plan;
    return DJ_OK;
}
