/* compile.c - from a structure that is not ready here to an entry of the cache: contract 2's cold path.
 *
 * The graph is decoded and inferred from the client's bytes and rewritten (rewrite.h), the device prepares
 * a kernel a node and says what workspace it needs, and the plan is made here, unless another rank of this
 * class published it: then it is proven and adopted. A plan made here is published in the background.
 *
 * A plan that needs more than this rank's Stack is made again for a fitted graph (fit.h), which runs slower;
 * where that fails too the first one is kept, and each request for it is refused before anything runs. */
#include "planner/fit.h"
#include "planner/fold.h"
#include "planner/plugin.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/rank.h"

#define DJ_LOG_MODULE "runtime"

typedef struct dj_compilation {
    dj_graph_t *graph;
    dj_executable_t *exe;
    dj_plan_t *plan;
    dj_fold_t *fold; /* of this graph; the executable's in the end */
    bool resized, adopted;
} dj_compilation_t;

static void discard(dj_compilation_t *c)
{
    dj_fold_destroy(c->fold);
    if (c->exe)
        c->exe->ops->destroy(c->exe);
    if (c->plan)
        dj_plan_destroy(c->plan);
    if (c->graph)
        dj_graph_destroy(c->graph);
}

static dj_status_t decode(const dj_exec_segment_t *segment, dj_graph_t **graph_p)
{
    const dj_segment_header_t *header = &segment->header;
    dj_graph_t *graph;
    dj_status_t status = dj_graph_decode(segment->structure, header->structure_bytes,
                                         segment->sizes, header->sizes_bytes, header->n_scalars,
                                         &graph);
    if (status != DJ_OK)
        return status;
    if (!dj_hash_equal(graph->program_key, header->program_key) ||
        !dj_hash_equal(graph->exact_key, header->exact_key)) {
        dj_graph_destroy(graph);
        return dj_fail(DJ_ERR_CORRUPT, "the program's keys are not those of its bytes");
    }
    *graph_p = graph;
    return DJ_OK;
}

/* A plan that another rank published for exactly this, if it stands the proof. */
static void adopt(dj_rank_t *rank, const dj_exec_segment_t *segment, const dj_plan_needs_t *needs,
                  dj_compilation_t *c)
{
    dj_bytes_t structure = {0}, sizes = {0}, plan = {0};
    if (dj_cache_published(rank->home.cache, segment->header.exact_key, &structure, &sizes,
                           &plan) == DJ_OK) {
        bool same = structure.size == segment->header.structure_bytes &&
                    sizes.size == segment->header.sizes_bytes &&
                    memcmp(structure.data, segment->structure, structure.size) == 0 &&
                    (sizes.size == 0 || memcmp(sizes.data, segment->sizes, sizes.size) == 0);
        if (same && dj_plan_decode(plan.data, plan.size, c->graph, needs, &c->plan) == DJ_OK) {
            c->adopted = true;
        } else {
            dj_log(WARN, "a published plan was refused: %s", dj_error_text());
            dj_cache_count_rejected(rank->home.cache);
            c->plan = NULL;
        }
    }
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    dj_bytes_fini(&plan);
}

void dj_plan_publish(dj_rank_t *rank, dj_bytes_t *tail, const void *structure,
                     uint32_t structure_bytes, const void *sizes, uint32_t sizes_bytes,
                     const dj_plan_t *plan)
{
    dj_plan_message_t message = {.exact_key = plan->exact_key, .device_class = plan->device_class,
                                 .structure_bytes = structure_bytes,
                                 .sizes_bytes = sizes_bytes, .origin_rank = rank->rank};
    if (rank->coordinates)
        return; /* alone: nobody to tell */
    dj_bytes_clear(tail);
    dj_bytes_put(tail, structure, structure_bytes);
    dj_bytes_put(tail, sizes, sizes_bytes);
    size_t before = tail->size;
    if (dj_plan_encode(plan, tail) != DJ_OK || tail->failed)
        return;
    message.plan_bytes = (uint32_t)(tail->size - before);
    if (dj_outbox_put(rank, 0, DJ_MESSAGE_PLAN, &message, sizeof(message), tail->data,
                      (uint32_t)tail->size, false) != DJ_OK)
        dj_log(WARN, "a plan could not be published: %s", dj_error_text());
}

/* The rank can run all of the folded part as well as the rest; if it cannot, nothing is folded. */
static dj_status_t fold(dj_rank_t *rank, const dj_exec_segment_t *segment, dj_compilation_t *c)
{
    dj_graph_t *twin;
    dj_status_t status = decode(segment, &twin);
    if (status != DJ_OK)
        return status;
    status = dj_graph_fold(c->graph, twin);
    if (status != DJ_OK) {
        dj_graph_destroy(twin);
        return status;
    }
    if (dj_fold_create(rank, twin, &c->fold) == DJ_OK)
        return DJ_OK;
    dj_log(DEBUG, "nothing is folded: %s", dj_error_text());
    dj_graph_destroy(c->graph);
    c->graph = NULL;
    return decode(segment, &c->graph);
}

static dj_status_t read_graph(dj_rank_t *rank, const dj_exec_segment_t *segment,
                              dj_compilation_t *c)
{
    uint32_t n_extra;
    const dj_rewrite_fn_t *extra = dj_plugins_rewrites(&n_extra);
    dj_status_t status = decode(segment, &c->graph);
    if (status == DJ_OK && dj_graph_has_folds(c->graph))
        status = fold(rank, segment, c);
    return status == DJ_OK ? dj_graph_rewrite(c->graph, extra, n_extra, NULL) : status;
}

static dj_plan_needs_t needs_of(const dj_rank_t *rank, const dj_executable_t *exe)
{
    dj_device_t *device = rank->home.device;
    const dj_device_info_t *info = device->ops->info(device);
    return (dj_plan_needs_t){info->class_hash, device->ops->workspaces(exe), info->flops_per_ns,
                             info->bytes_per_ns, info->step_ns};
}

static void add_round(dj_fit_report_t *total, const dj_fit_report_t *round)
{
    total->reordered |= round->reordered;
    total->recomputed += round->recomputed;
    total->spilled += round->spilled;
    total->extra_ns += round->extra_ns;
}

/* Compiles and plans c->graph; what was made of it before is gone. */
static dj_status_t compile_again(dj_rank_t *rank, dj_compilation_t *c)
{
    dj_device_t *device = rank->home.device;
    dj_status_t status = device->ops->compile(device, c->graph, &c->exe);
    if (status != DJ_OK)
        return status;
    dj_plan_needs_t needs = needs_of(rank, c->exe);
    status = dj_plan_make(c->graph, &needs, &c->plan);
    return status == DJ_OK ? device->ops->place(c->exe, c->plan) : status;
}

/* A layout may end above what it holds at once: then a little less is asked for, FIT_ROUNDS times. */
static dj_status_t fit(dj_rank_t *rank, const dj_plan_needs_t *needs, uint64_t workspace_bytes,
                       dj_compilation_t *c, dj_fit_report_t *report)
{
    enum { FIT_ROUNDS = 3 };
    uint64_t allowed = rank->config->stack_bytes;
    dj_fit_limits_t limits = {.stack_bytes = allowed,
                              .workspace_bytes = workspace_bytes,
                              .spill_bytes = rank->config->spill_bytes,
                              .spill_bytes_per_ns = needs->bytes_per_ns};
    for (uint32_t i = 0; i < FIT_ROUNDS; i++) {
        dj_fit_report_t round;
        dj_status_t status = dj_graph_fit(c->graph, needs, &limits, &round);
        add_round(report, &round);
        if (status == DJ_OK)
            status = compile_again(rank, c);
        if (status != DJ_OK || c->plan->peak_bytes <= allowed)
            return status;
        uint64_t over = c->plan->peak_bytes - allowed;
        limits.stack_bytes -= over < limits.stack_bytes ? over : limits.stack_bytes;
        limits.workspace_bytes = c->plan->workspace_bytes;
        c->exe->ops->destroy(c->exe); /* before the graph that it refers to changes */
        dj_plan_destroy(c->plan);
        c->exe = NULL;
        c->plan = NULL;
    }
    return dj_fail(DJ_ERR_RESOURCE, "no layout below %llu bytes of Stack was found",
                   (unsigned long long)allowed);
}

static void fit_or_keep(dj_rank_t *rank, const dj_exec_segment_t *segment,
                        const dj_plan_needs_t *needs, dj_compilation_t *c)
{
    dj_compilation_t fitted = {.resized = c->resized};
    dj_fit_report_t report = {0};
    dj_status_t status = read_graph(rank, segment, &fitted);
    if (status == DJ_OK)
        status = fit(rank, needs, c->plan->workspace_bytes, &fitted, &report);
    if (status != DJ_OK) {
        dj_log(WARN, "a program of %u ops does not fit: %s", c->graph->n_nodes, dj_error_text());
        discard(&fitted);
        return;
    }
    dj_log(WARN, "a program needs %llu bytes of Stack and %llu are allowed: %s%u values recomputed, "
           "%u spilled, %.2f ms a request more; raise --stack-bytes",
           (unsigned long long)c->plan->peak_bytes, (unsigned long long)rank->config->stack_bytes,
           report.reordered ? "reordered, " : "", report.recomputed, report.spilled,
           (double)report.extra_ns / 1e6);
    discard(c);
    *c = fitted;
}

static dj_status_t make(dj_rank_t *rank, dj_runner_t *runner, const dj_exec_segment_t *segment,
                        dj_compilation_t *c)
{
    dj_device_t *device = rank->home.device;
    dj_status_t status = read_graph(rank, segment, c);
    if (status != DJ_OK)
        return status;
    dj_bytes_clear(&runner->scratch);
    c->resized = dj_cache_structure(rank->home.cache, segment->header.program_key,
                                    &runner->scratch) == DJ_OK;
    if ((status = device->ops->compile(device, c->graph, &c->exe)) != DJ_OK)
        return status;
    dj_plan_needs_t needs = needs_of(rank, c->exe);
    adopt(rank, segment, &needs, c);
    if (!c->plan && (status = dj_plan_make(c->graph, &needs, &c->plan)) != DJ_OK)
        return status;
    if ((status = device->ops->place(c->exe, c->plan)) != DJ_OK)
        return status;
    if (c->plan->peak_bytes > rank->config->stack_bytes)
        fit_or_keep(rank, segment, &needs, c);
    return DJ_OK;
}

dj_status_t dj_compile(dj_rank_t *rank, dj_runner_t *runner, dj_job_t *job,
                       const dj_exec_segment_t *segment, dj_cache_entry_t **entry_p)
{
    dj_compilation_t c = {0};
    uint64_t began_ns = dj_clock_ns();
    dj_status_t status = make(rank, runner, segment, &c);
    uint64_t took_ns = dj_clock_ns() - began_ns;
    job->answer.result.planning_ns += took_ns;
    job->session->planning_ns += took_ns;
    atomic_fetch_add(&rank->counters.planning_ns, took_ns);
    if (status != DJ_OK) {
        discard(&c);
        return status;
    }
    if (c.adopted)
        job->answer.result.plan_hits++;
    else if (c.resized)
        job->answer.result.plan_resizes++;
    else
        job->answer.result.plan_misses++;
    dj_log(DEBUG, "planned %u nodes in %.1f ms: peak %llu bytes (bound %llu)%s", c.graph->n_nodes,
           (double)took_ns / 1e6, (unsigned long long)c.plan->peak_bytes,
           (unsigned long long)c.plan->bound_bytes, c.adopted ? ", published" : "");
    if (!c.adopted && !c.graph->fitted)
        dj_plan_publish(rank, &runner->scratch, segment->structure, segment->header.structure_bytes,
                        segment->sizes, segment->header.sizes_bytes, c.plan);
    c.exe->fold = c.fold;
    return dj_cache_insert(rank->home.cache, c.graph, c.plan, c.exe, segment->structure,
                           segment->header.structure_bytes, segment->sizes,
                           segment->header.sizes_bytes, c.resized, c.adopted, entry_p);
}
