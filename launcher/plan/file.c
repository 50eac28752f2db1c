/* file.c - reading, decoding and planning a snapshot; numbers for people. */
#include "launcher/plan/file.h"

#include <stdio.h>
#include <stdlib.h>

#include "planner/plugin.h"

static dj_status_t open_program(dj_plan_file_t *file, uint32_t at)
{
    const dj_device_info_t *info = file->device_info;
    dj_plan_program_t *program = &file->programs[at];
    dj_roofline_t roofline = {info->flops_per_ns, info->bytes_per_ns, info->step_ns};
    dj_plan_needs_t needs = {.device_class = info->class_hash,
                             .flops_per_ns = info->flops_per_ns,
                             .bytes_per_ns = info->bytes_per_ns,
                             .step_ns = info->step_ns};
    dj_features_t features = {0};
    dj_verdict_t verdict;
    uint32_t n_extra;
    const dj_rewrite_fn_t *extra = dj_plugins_rewrites(&n_extra);
    program->recorded = &file->snapshot->programs[at];
    dj_status_t status = dj_snapshot_graph(file->snapshot, at, &program->graph);
    if (status == DJ_OK)
        status = dj_features_of(program->graph, &features, NULL);
    if (status != DJ_OK)
        return status;
    dj_features_add(&file->features, &features);
    dj_detect(&features, file->snapshot->phase, &verdict);
    status = dj_graph_rewrite(program->graph, extra, n_extra, &program->rewrites);
    if (status == DJ_OK)
        status = dj_srg_make_as(program->graph, &roofline, &verdict, &program->srg);
    if (status == DJ_OK)
        status = dj_plan_make(program->graph, &needs, &program->plan);
    return status;
}

static dj_status_t open_device(dj_plan_file_t *file)
{
    dj_config_t config;
    dj_status_t status = dj_config_load(&config, 0, NULL, NULL);
    if (status != DJ_OK)
        return status;
    if (dj_plugins_count() == 0 && (status = dj_plugins_load(config.plugins)) != DJ_OK)
        return status;
    config.device = "host"; /* the only one whose costs are known without hardware */
    status = dj_device_open(&config, &file->device);
    if (status == DJ_OK)
        file->device_info = file->device->ops->info(file->device);
    return status;
}

dj_status_t dj_plan_file_open(const char *path, dj_plan_file_t *file)
{
    *file = (dj_plan_file_t){.path = path};
    dj_status_t status = dj_snapshot_read(path, &file->snapshot);
    if (status == DJ_OK)
        status = open_device(file);
    if (status == DJ_OK) {
        file->programs = calloc((size_t)file->snapshot->n_programs + 1, sizeof *file->programs);
        if (file->programs == NULL)
            status =
                dj_fail(DJ_ERR_MEMORY, "no memory for %u programs", file->snapshot->n_programs);
    }
    for (uint32_t i = 0; status == DJ_OK && i < file->snapshot->n_programs; i++) {
        file->n_programs++;
        status = open_program(file, i);
    }
    if (status == DJ_OK)
        dj_detect(&file->features, file->snapshot->phase, &file->verdict);
    else
        dj_plan_file_close(file);
    return status;
}

void dj_plan_file_close(dj_plan_file_t *file)
{
    for (uint32_t i = 0; i < file->n_programs; i++) {
        dj_plan_destroy(file->programs[i].plan);
        dj_srg_destroy(file->programs[i].srg);
        if (file->programs[i].graph != NULL)
            dj_graph_destroy(file->programs[i].graph);
    }
    free(file->programs);
    if (file->device != NULL)
        dj_device_close(file->device);
    if (file->snapshot != NULL)
        dj_snapshot_destroy(file->snapshot);
    *file = (dj_plan_file_t){0};
}

uint32_t dj_plan_file_largest(const dj_plan_file_t *file)
{
    uint32_t largest = 0;
    for (uint32_t i = 1; i < file->n_programs; i++)
        if (file->programs[i].plan->peak_bytes > file->programs[largest].plan->peak_bytes)
            largest = i;
    return largest;
}

const char *dj_plan_bytes(uint64_t bytes, char *text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    uint32_t unit = 0;
    for (; value >= 1024 && unit < 4; unit++)
        value /= 1024;
    snprintf(text, DJ_PLAN_BYTES_TEXT, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value,
             units[unit]);
    return text;
}

static const char *decimal(double value, const char *const *units, uint32_t n_units, char *text)
{
    uint32_t unit = 0;
    for (; value >= 1000 && unit + 1 < n_units; unit++)
        value /= 1000;
    snprintf(text, DJ_PLAN_BYTES_TEXT, value >= 100 || unit == 0 ? "%.0f %s" : "%.2f %s",
             value < 1e9 ? value : 1e9, units[unit]);
    return text;
}

const char *dj_plan_flops(double flops, char *text)
{
    static const char *const units[] = {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"};
    return decimal(flops, units, 5, text);
}

const char *dj_plan_time(double ns, char *text)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    return decimal(ns, units, 4, text);
}

int dj_plan_failed(dj_status_t status)
{
    fprintf(stderr, "djinn: %s\n", dj_error_text());
    switch (status) {
    case DJ_ERR_RESOURCE:
    case DJ_ERR_MEMORY:
    case DJ_ERR_SYSTEM:
    case DJ_ERR_CLASS:
        return 1;
    default:
        return 2;
    }
}
