/* replay.c - djinn plan replay: a recording planned, proven and run on the host device, with
 * made-up inputs.
 *
 * A recording has shapes and no contents, so the numbers mean nothing, but time and memory do.
 * Floats are small and of both signs, integers are ones (a valid row of most tables; zeros when a
 * kernel finds ones out of range). Weights lie in Text as a rank's do, so kernels pack them. The
 * peak is measured in a poisoned slab, twice with complementary poisons, as the tests do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/poison.h"
#include "gpu/segment.h"
#include "gpu/text.h"
#include "launcher/plan/file.h"
#include "runtime/base/clock.h"

typedef struct dj_stage {
    dj_device_t *device;
    const dj_plan_program_t *program;
    dj_executable_t *exe;
    dj_plan_t *plan;
    dj_text_store_t *store;
    dj_text_t **texts;      /* a binding; NULL where it is no weight */
    dj_segment_t *segments; /* a binding; all-zero where it is one */
    void **pointers;
    dj_segment_t stack;
    uint64_t predicted_peak, measured_peak;
} dj_stage_t;

static dj_status_t check_kernels(const dj_stage_t *stage)
{
    const dj_graph_t *graph = stage->program->graph;
    bool missing[DJ_OP_COUNT] = {0};
    char list[256] = "";
    uint32_t count = 0;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        uint16_t op = graph->nodes[i].call.op;
        if (missing[op] || stage->device->ops->supports(stage->device, op))
            continue;
        missing[op] = true;
        size_t used = strlen(list);
        if (count++ < 6)
            snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? ", " : "",
                     dj_op_info(op)->name);
    }
    if (count == 0)
        return DJ_OK;
    return dj_fail(DJ_ERR_RESOURCE,
                   "the host device has no kernel for %s%s; such a program cannot be "
                   "replayed here, `djinn plan show` reads it all the same",
                   list, count > 6 ? " and others" : "");
}

static dj_status_t check_memory(const dj_stage_t *stage)
{
    const dj_graph_t *graph = stage->program->graph;
    uint64_t wanted = stage->plan->peak_bytes;
    uint64_t there = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint32_t i = 0; i < graph->n_bindings; i++)
        wanted += graph->storages[graph->bindings[i]].bytes;
    char a[DJ_PLAN_BYTES_TEXT], b[DJ_PLAN_BYTES_TEXT];
    if (wanted > there)
        return dj_fail(DJ_ERR_RESOURCE,
                       "the program needs %s with its inputs; %s of memory are free",
                       dj_plan_bytes(wanted, a), dj_plan_bytes(there, b));
    return DJ_OK;
}

static dj_status_t compile(dj_stage_t *stage)
{
    const dj_device_info_t *info = stage->device->ops->info(stage->device);
    const dj_graph_t *graph = stage->program->graph;
    dj_status_t status = stage->device->ops->compile(stage->device, graph, &stage->exe);
    if (status != DJ_OK) /* this machine's affair, not the file's */
        return dj_fail_prefix(status == DJ_ERR_UNSUPPORTED ? DJ_ERR_RESOURCE : status,
                              "the host device cannot run it");
    dj_plan_needs_t needs = {.device_class = info->class_hash,
                             .workspace_bytes = stage->device->ops->workspaces(stage->exe),
                             .flops_per_ns = info->flops_per_ns,
                             .bytes_per_ns = info->bytes_per_ns,
                             .step_ns = info->step_ns};
    status = dj_plan_make(graph, &needs, &stage->plan);
    if (status == DJ_OK)
        status = dj_plan_verify(stage->plan, graph);
    if (status == DJ_OK)
        status = stage->device->ops->place(stage->exe, stage->plan);
    return status;
}

/* ---- contents ---- */

static uint8_t dtype_of(const dj_srg_t *srg, uint32_t storage)
{
    uint32_t count;
    const dj_srg_use_t *uses = dj_srg_uses(srg, storage, &count);
    return count > 0 ? uses[0].view->dtype : (uint8_t)DJ_U8;
}

/* Sixteen bits between 1/16 and 1/8, as float16, bfloat16 or the upper half of a float32. */
static uint32_t small_bits(uint64_t random, uint32_t base, uint32_t mantissa)
{
    return base | ((uint32_t)random & mantissa) | ((uint32_t)(random >> 40) & 1) << 15;
}

static void fill(void *target, uint64_t bytes, uint8_t dtype, uint64_t seed, int64_t whole)
{
    uint32_t item = dj_dtype_bytes(dtype);
    uint64_t random = seed * 0x9e3779b97f4a7c15ull + 88172645463325252ull;
    for (uint64_t i = 0; item > 0 && i < bytes / item; i++) {
        uint8_t *at = (uint8_t *)target + i * item;
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        float real = ((float)(random >> 40) / 16777216.0f - 0.5f) / 8;
        double wide = real;
        uint16_t half = (uint16_t)small_bits(random, dtype == DJ_F16 ? 0x2c00 : 0x3d80,
                                             dtype == DJ_F16 ? 0x3ff : 0x7f);
        if (dtype == DJ_F32)
            memcpy(at, &real, sizeof real);
        else if (dtype == DJ_F64)
            memcpy(at, &wide, sizeof wide);
        else if (dtype == DJ_F16 || dtype == DJ_BF16)
            memcpy(at, &half, sizeof half);
        else
            memcpy(at, &whole, item); /* little-endian, as everything here */
    }
}

static dj_status_t make_weight(dj_stage_t *stage, uint32_t binding, uint32_t storage)
{
    uint64_t bytes = stage->program->graph->storages[storage].bytes;
    dj_text_t *draft;
    dj_status_t status = dj_text_draft(stage->store, bytes, &draft);
    if (status != DJ_OK)
        return status;
    fill(draft->data, bytes, dtype_of(stage->program->srg, storage), storage, 1);
    status = dj_text_publish(stage->store, draft, 0, &stage->texts[binding]);
    if (status == DJ_OK)
        stage->pointers[binding] = stage->texts[binding]->data;
    return status;
}

static dj_status_t make_binding(dj_stage_t *stage, uint32_t binding)
{
    uint32_t at = stage->program->graph->bindings[binding];
    const dj_storage_t *storage = &stage->program->graph->storages[at];
    if (dj_storage_lifecycle(storage) == DJ_LIFE_WEIGHT && storage->bytes > 0)
        return make_weight(stage, binding, at);
    dj_segment_t *segment = &stage->segments[binding];
    dj_status_t status = dj_segment_init(segment, stage->device, storage->bytes + 1);
    if (status == DJ_OK)
        status = dj_segment_grow(segment, storage->bytes + 1);
    stage->pointers[binding] = segment->base;
    return status;
}

static void fill_bindings(dj_stage_t *stage, int64_t whole)
{
    const dj_graph_t *graph = stage->program->graph;
    for (uint32_t i = 0; i < graph->n_bindings; i++) {
        uint32_t at = graph->bindings[i];
        if (stage->texts[i] == NULL)
            fill(stage->pointers[i], graph->storages[at].bytes, dtype_of(stage->program->srg, at),
                 at, whole);
    }
}

static dj_status_t furnish(dj_stage_t *stage)
{
    uint32_t count = stage->program->graph->n_bindings;
    stage->texts = calloc((size_t)count + 1, sizeof *stage->texts);
    stage->segments = calloc((size_t)count + 1, sizeof *stage->segments);
    stage->pointers = calloc((size_t)count + 1, sizeof *stage->pointers);
    if (stage->texts == NULL || stage->segments == NULL || stage->pointers == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u bindings", count);
    dj_status_t status = dj_text_store_create(stage->device, UINT64_MAX, &stage->store);
    for (uint32_t i = 0; status == DJ_OK && i < count; i++)
        status = make_binding(stage, i);
    if (status == DJ_OK)
        status = dj_segment_init(&stage->stack, stage->device, stage->plan->peak_bytes + 1);
    if (status == DJ_OK)
        status = dj_segment_grow(&stage->stack, stage->plan->peak_bytes + 1);
    return status == DJ_OK ? stage->exe->ops->bind(stage->exe, stage->texts) : status;
}

static void clear_stage(dj_stage_t *stage)
{
    if (stage->exe != NULL)
        stage->exe->ops->destroy(stage->exe);
    dj_segment_fini(&stage->stack);
    for (uint32_t i = 0; i < stage->program->graph->n_bindings; i++) {
        if (stage->segments != NULL)
            dj_segment_fini(&stage->segments[i]);
        if (stage->texts != NULL && stage->texts[i] != NULL)
            dj_text_release(stage->store, stage->texts[i]);
    }
    if (stage->store != NULL)
        dj_text_store_destroy(stage->store);
    free(stage->texts);
    free(stage->segments);
    free(stage->pointers);
    dj_plan_destroy(stage->plan);
}

/* ---- running ---- */

static dj_status_t run(dj_stage_t *stage)
{
    dj_launch_t launch = {.bindings = stage->pointers,
                          .stack = stage->stack.base,
                          .scalars = stage->program->recorded->scalars};
    return stage->exe->ops->replay(stage->exe, &launch);
}

static dj_status_t measure_peak(dj_stage_t *stage)
{
    static const uint8_t poisons[] = {DJ_POISON_BYTE, (uint8_t)~DJ_POISON_BYTE};
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; status == DJ_OK && i < 2; i++) {
        uint64_t bytes = dj_gauge_get(&stage->stack.committed_bytes);
        dj_poison_fill(stage->stack.base, bytes, poisons[i]);
        status = run(stage);
        uint64_t peak = dj_poison_peak(stage->stack.base, bytes, poisons[i]);
        stage->measured_peak = peak > stage->measured_peak ? peak : stage->measured_peak;
    }
    return status;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static dj_status_t time_runs(dj_stage_t *stage, uint64_t count)
{
    char text[DJ_PLAN_BYTES_TEXT];
    uint64_t *times = calloc(count, sizeof *times);
    dj_status_t status = times != NULL ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory for times");
    printf("  time   %s predicted; measured",
           dj_plan_time((double)stage->plan->predicted_ns, text));
    for (uint64_t i = 0; status == DJ_OK && i < count; i++) {
        uint64_t began = dj_clock_ns();
        status = run(stage);
        times[i] = dj_clock_ns() - began;
        printf(" %s", dj_plan_time((double)times[i], text));
        fflush(stdout);
    }
    if (status == DJ_OK) {
        qsort(times, count, sizeof *times, by_size);
        printf(", median %s\n", dj_plan_time((double)times[count / 2], text));
    }
    free(times);
    return status;
}

static dj_status_t play(dj_stage_t *stage, uint64_t runs)
{
    char predicted[DJ_PLAN_BYTES_TEXT], measured[DJ_PLAN_BYTES_TEXT];
    fill_bindings(stage, 1);
    dj_status_t status = measure_peak(stage);
    if (status == DJ_ERR_INVALID) { /* a table of one row, or a count that began at 0 */
        fill_bindings(stage, 0);
        status = measure_peak(stage);
    }
    if (status != DJ_OK)
        return dj_fail_prefix(DJ_ERR_RESOURCE, "with made-up inputs");
    printf("  peak   %s predicted, %s measured%s\n",
           dj_plan_bytes(stage->plan->peak_bytes, predicted),
           dj_plan_bytes(stage->measured_peak, measured),
           stage->measured_peak == stage->plan->peak_bytes ? ": equal to the byte" : "");
    status = time_runs(stage, runs);
    if (status == DJ_OK && stage->measured_peak != stage->plan->peak_bytes)
        status = dj_fail(DJ_ERR_RESOURCE, "the peak was predicted as %llu bytes and is %llu",
                         (unsigned long long)stage->plan->peak_bytes,
                         (unsigned long long)stage->measured_peak);
    return status;
}

static dj_status_t replay_program(dj_plan_file_t *file, uint32_t at, uint64_t runs)
{
    dj_stage_t stage = {.device = file->device, .program = &file->programs[at]};
    char workspace[DJ_PLAN_BYTES_TEXT];
    dj_status_t status = check_kernels(&stage);
    if (status == DJ_OK)
        status = compile(&stage);
    if (status == DJ_OK)
        status = check_memory(&stage);
    if (status == DJ_OK)
        status = furnish(&stage);
    if (status == DJ_OK) {
        printf("program %u: %u steps in %u groups, %s of workspace, plan proven\n", at,
               stage.plan->n_steps, stage.plan->n_groups,
               dj_plan_bytes(stage.plan->workspace_bytes, workspace));
        status = play(&stage, runs);
    }
    clear_stage(&stage);
    return status == DJ_OK ? DJ_OK : dj_fail_prefix(status, "program %u", at);
}

int dj_plan_replay(const dj_plan_words_t *words)
{
    dj_plan_file_t file;
    dj_status_t status = dj_plan_file_open(words->path, &file);
    if (status != DJ_OK)
        return dj_plan_failed(status);
    if (words->program_given && words->program >= file.n_programs)
        status = dj_fail(DJ_ERR_INVALID, "%s has %u programs; there is no program %llu",
                         words->path, file.n_programs, (unsigned long long)words->program);
    for (uint32_t i = 0; status == DJ_OK && i < file.n_programs; i++)
        if (!words->program_given || words->program == i)
            status = replay_program(&file, i, words->runs);
    dj_plan_file_close(&file);
    return status == DJ_OK ? 0 : dj_plan_failed(status);
}
