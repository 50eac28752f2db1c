/* plan_parts.c - one small function a part, and what they need. */
#include "benchmarks/plan_parts.h"

#include "benchmarks/transformer.h"
#include "planner/rewrite.h"

/* A device like the one that the host device says it is; figures do not depend on it. */
static const dj_plan_needs_t needs = {
    .device_class = {{1, 1}}, .flops_per_ns = 100, .bytes_per_ns = 20, .step_ns = 1000};

/* ---- the parts ---- */

dj_measured_program_t dj_measured_program(const dj_program_t *program)
{
    return (dj_measured_program_t){
        .structure = program->structure.data,
        .structure_size = program->structure.size,
        .sizes = program->sizes.data,
        .sizes_size = program->sizes.size,
        .n_scalars = (uint32_t)(program->scalars.size / 8),
    };
}

static dj_status_t decode(const dj_measured_program_t *program, dj_graph_t **graph_p)
{
    return dj_graph_decode(program->structure, program->structure_size, program->sizes,
                           program->sizes_size, program->n_scalars, graph_p);
}

static dj_status_t decode_rewritten(const dj_measured_program_t *program, dj_graph_t **graph_p)
{
    dj_graph_t *graph;
    dj_status_t status = decode(program, &graph);
    if (status == DJ_OK && (status = dj_graph_rewrite(graph, NULL, 0, NULL)) != DJ_OK)
        dj_graph_destroy(graph);
    else if (status == DJ_OK)
        *graph_p = graph;
    return status;
}

static dj_status_t run_fingerprint(dj_subject_t *s)
{
    dj_hash_t key = dj_program_key(s->program.structure, s->program.structure_size);
    s->exact_key = dj_program_exact_key(key, s->program.sizes, s->program.sizes_size);
    return DJ_OK;
}

static dj_status_t run_decode(dj_subject_t *s)
{
    dj_graph_t *graph;
    dj_status_t status = decode(&s->program, &graph);
    if (status == DJ_OK)
        dj_graph_destroy(graph);
    return status;
}

/* A rewrite needs a graph that was not rewritten yet: made before the clock starts. */
static dj_status_t ready_rewrite(dj_subject_t *s)
{
    dj_graph_destroy(s->fresh);
    s->fresh = NULL;
    return decode(&s->program, &s->fresh);
}

static dj_status_t run_rewrite(dj_subject_t *s)
{
    return dj_graph_rewrite(s->fresh, NULL, 0, NULL);
}

static dj_status_t run_infer(dj_subject_t *s)
{
    dj_view_t outs[DJ_OUTS_MAX];
    for (uint32_t i = 0; i < s->decoded->n_nodes; i++) {
        dj_status_t status = dj_op_infer(&s->decoded->nodes[i].call, outs);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

static dj_status_t make_schedule(const dj_graph_t *graph, dj_schedule_t *schedule)
{
    dj_status_t status = dj_schedule_init(schedule, graph);
    if (status != DJ_OK)
        return status;
    return dj_schedule_arrange(schedule);
}

static dj_status_t run_schedule(dj_subject_t *s)
{
    dj_schedule_t schedule;
    dj_status_t status = make_schedule(s->graph, &schedule);
    if (status == DJ_OK)
        dj_schedule_fini(&schedule);
    return status;
}

static dj_status_t run_place(dj_subject_t *s)
{
    uint64_t end;
    return dj_places_assign(s->schedule.places, s->schedule.n_places, 0, &end);
}

static dj_status_t run_plan(dj_subject_t *s)
{
    dj_plan_t *plan;
    dj_status_t status = dj_plan_make(s->graph, &needs, &plan);
    if (status == DJ_OK)
        dj_plan_destroy(plan);
    return status;
}

static dj_status_t plan_program(const dj_measured_program_t *program)
{
    dj_graph_t *graph;
    dj_plan_t *plan;
    dj_status_t status = decode_rewritten(program, &graph);
    if (status != DJ_OK)
        return status;
    status = dj_plan_make(graph, &needs, &plan);
    if (status == DJ_OK)
        dj_plan_destroy(plan);
    dj_graph_destroy(graph);
    return status;
}

static dj_status_t run_cold(dj_subject_t *s)
{
    return plan_program(&s->program);
}

/* As a rank does it: other sizes are decoded and planned like a new program. */
static dj_status_t run_resize(dj_subject_t *s)
{
    return plan_program(&s->other);
}

static dj_status_t run_encode(dj_subject_t *s)
{
    dj_bytes_clear(&s->encoded);
    return dj_plan_encode(s->plan, &s->encoded);
}

static dj_status_t run_prove(dj_subject_t *s)
{
    dj_plan_t *plan;
    dj_status_t status = dj_plan_decode(s->encoded.data, s->encoded.size, s->graph, &needs, &plan);
    if (status == DJ_OK)
        dj_plan_destroy(plan);
    return status;
}

static dj_status_t run_hit(dj_subject_t *s)
{
    dj_cache_entry_t *entry = dj_cache_find(s->cache, s->exact_key);
    if (entry == NULL)
        return dj_fail(DJ_ERR_NO_PLAN, "the entry is gone");
    dj_cache_release(s->cache, entry);
    return DJ_OK;
}

static dj_status_t run_compare(dj_subject_t *s)
{
    const dj_measured_program_t *program = &s->program;
    dj_cache_entry_t *entry = dj_cache_find(s->cache, s->exact_key);
    if (entry == NULL)
        return dj_fail(DJ_ERR_NO_PLAN, "the entry is gone");
    dj_status_t status = dj_cache_compare(entry, program->structure, program->structure_size,
                                          program->sizes, program->sizes_size);
    dj_cache_release(s->cache, entry);
    return status;
}

const dj_part_t dj_parts[DJ_PARTS] = {
    {.name = "fingerprint", .run = run_fingerprint, .goal_ns_per_node = 100},
    {.name = "decode", .run = run_decode},
    {.name = "infer", .run = run_infer},
    {.name = "rewrite", .run = run_rewrite, .ready = ready_rewrite},
    {.name = "schedule", .run = run_schedule},
    {.name = "place", .run = run_place},
    {.name = "plan", .run = run_plan},
    {.name = "cold", .run = run_cold, .goals = {{3000, 5000}, {100000, 300000}}},
    {.name = "resize", .run = run_resize, .goals = {{1000, 50}}},
    {.name = "encode", .run = run_encode},
    {.name = "prove", .run = run_prove},
    {.name = "hit", .run = run_hit, .goals = {{0, 1}}},
    {.name = "compare", .run = run_compare},
};

/* ---- a subject ---- */

static dj_status_t keep(dj_subject_t *s, const dj_measured_program_t *program)
{
    dj_graph_t *graph = NULL;
    dj_plan_t *plan = NULL;
    dj_cache_entry_t *entry;
    dj_status_t status = decode_rewritten(program, &graph);
    if (status == DJ_OK)
        status = dj_plan_make(graph, &needs, &plan);
    if (status != DJ_OK) {
        dj_graph_destroy(graph);
        return status;
    }
    status = dj_cache_insert(s->cache, graph, plan, NULL, program->structure,
                             program->structure_size, program->sizes, program->sizes_size, false,
                             false, &entry);
    if (status == DJ_OK)
        dj_cache_release(s->cache, entry);
    return status;
}

/* The cache holds other programs too, as a rank's does. */
static dj_status_t fill_cache(dj_subject_t *s)
{
    enum { OTHERS = 63 };
    dj_program_t small = {0};
    dj_cache_options_t options = {.limit = OTHERS + 1};
    dj_status_t status = dj_cache_create(&options, &s->cache);
    for (int64_t length = 1; length <= OTHERS && status == DJ_OK; length++) {
        status = dj_transformer_record(19, length, &small);
        dj_measured_program_t program = dj_measured_program(&small);
        if (status == DJ_OK)
            status = keep(s, &program);
    }
    dj_program_fini(&small);
    return status == DJ_OK ? keep(s, &s->program) : status;
}

dj_status_t dj_subject_prepare(dj_subject_t *s)
{
    dj_status_t status = decode(&s->program, &s->decoded);
    if (status == DJ_OK)
        status = decode_rewritten(&s->program, &s->graph);
    if (status == DJ_OK)
        status = dj_plan_make(s->graph, &needs, &s->plan);
    if (status == DJ_OK)
        status = make_schedule(s->graph, &s->schedule);
    if (status == DJ_OK)
        status = run_encode(s);
    if (status == DJ_OK)
        status = run_fingerprint(s);
    return status == DJ_OK ? fill_cache(s) : status;
}

void dj_subject_fini(dj_subject_t *s)
{
    dj_cache_destroy(s->cache);
    dj_schedule_fini(&s->schedule);
    dj_plan_destroy(s->plan);
    dj_graph_destroy(s->graph);
    dj_graph_destroy(s->decoded);
    dj_graph_destroy(s->fresh);
    dj_bytes_fini(&s->encoded);
}

bool dj_part_is_possible(const dj_part_t *part, const dj_subject_t *subject)
{
    return part->run != run_resize || subject->other.structure != NULL;
}
