/* show.c - djinn plan show: what a recording is, what it needs, where its time goes. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/plan/file.h"
#include "planner/shape.h"
#include "planner/svg.h"

enum { TOP_NODES = 10, PROGRAMS_TOLD = 4 };

static const char *bound_name(uint8_t bound)
{
    return bound == DJ_BOUND_COMPUTE ? "compute" : "memory";
}

/* ---- for people ---- */

static void print_phase(const char *indent, const dj_verdict_t *verdict)
{
    printf("%sphase      %s", indent, dj_phase_name(verdict->phase));
    if (verdict->hinted)
        printf(", as the recording says\n");
    else
        printf(", %.0f%% sure: %s\n", verdict->confidence * 100, verdict->reason);
}

static void print_memory(const dj_srg_t *srg)
{
    char text[DJ_LIFE_COUNT][DJ_PLAN_BYTES_TEXT];
    for (uint32_t i = 0; i < DJ_LIFE_COUNT; i++)
        dj_plan_bytes(srg->bytes[i], text[i]);
    printf("  memory     weights %s, state %s, inputs %s, activations %s, outputs %s\n",
           text[DJ_LIFE_WEIGHT], text[DJ_LIFE_STATE], text[DJ_LIFE_IMMEDIATE],
           text[DJ_LIFE_ACTIVATION], text[DJ_LIFE_OUTPUT]);
}

static void print_peak(const dj_plan_t *plan, const dj_srg_t *srg)
{
    char peak[DJ_PLAN_BYTES_TEXT], bound[DJ_PLAN_BYTES_TEXT];
    uint64_t live = srg->bytes[DJ_LIFE_ACTIVATION];
    printf("  peak       %s of planned memory", dj_plan_bytes(plan->peak_bytes, peak));
    if (plan->bound_bytes > 0)
        printf(", %.3f of the least possible (%s)",
               (double)plan->peak_bytes / (double)plan->bound_bytes,
               dj_plan_bytes(plan->bound_bytes, bound));
    if (plan->peak_bytes > 0 && live > plan->peak_bytes + plan->peak_bytes / 10)
        printf("; %.1f times less than all activations", (double)live / (double)plan->peak_bytes);
    printf("\n");
}

static int by_time(const void *a, const void *b, void *nodes)
{
    const dj_srg_node_t *x = &((const dj_srg_node_t *)nodes)[*(const uint32_t *)a];
    const dj_srg_node_t *y = &((const dj_srg_node_t *)nodes)[*(const uint32_t *)b];
    return x->ns != y->ns                                ? (x->ns < y->ns ? 1 : -1)
           : *(const uint32_t *)a < *(const uint32_t *)b ? -1
                                                         : 1;
}

/* The nodes by predicted time, longest first; free() it. NULL when memory is short. */
static uint32_t *rank_nodes(const dj_srg_t *srg)
{
    uint32_t n = srg->graph->n_nodes, *order = malloc(((size_t)n + 1) * sizeof *order);
    for (uint32_t i = 0; order != NULL && i < n; i++)
        order[i] = i;
    if (order != NULL && n > 0)
        qsort_r(order, n, sizeof *order, by_time, srg->nodes);
    return order;
}

static const char *result_text(const dj_node_t *node, char *text)
{
    return dj_view_format(&node->outs[0].view, text, DJ_VIEW_TEXT);
}

static void print_top(const dj_plan_program_t *program)
{
    const dj_srg_t *srg = program->srg;
    uint32_t *order = rank_nodes(srg);
    if (order == NULL || srg->graph->n_nodes == 0) {
        free(order);
        return;
    }
    printf("  %6s %6s %10s %12s %10s  %-8s %s\n", "node", "share", "time", "work", "traffic",
           "bound by", "op and result");
    for (uint32_t i = 0; i < srg->graph->n_nodes && i < TOP_NODES; i++) {
        const dj_srg_node_t *view = &srg->nodes[order[i]];
        const dj_node_t *node = &srg->graph->nodes[order[i]];
        char time[DJ_PLAN_BYTES_TEXT], work[DJ_PLAN_BYTES_TEXT], traffic[DJ_PLAN_BYTES_TEXT];
        char result[DJ_VIEW_TEXT];
        printf("  %6u %5.1f%% %10s %12s %10s  %-8s %s -> %s", order[i],
               srg->ns > 0 ? 100 * view->ns / srg->ns : 0, dj_plan_time(view->ns, time),
               dj_plan_flops(view->flops, work),
               dj_plan_bytes(view->in_bytes + view->out_bytes, traffic), bound_name(view->bound),
               dj_op_info(node->call.op)->name, result_text(node, result));
        if (view->phase != srg->verdict.phase)
            printf("  (%s)", dj_phase_name(view->phase));
        printf("\n");
    }
    free(order);
}

static void print_rewrites(const dj_rewrite_report_t *report)
{
    const char *lead = "  rewrites   ";
#define X(name, what)                                                                              \
    if (report->name > 0) {                                                                        \
        printf("%s%u %s", lead, report->name, what);                                               \
        lead = ", ";                                                                               \
    }
    DJ_REWRITE_LIST(X)
#undef X
    if (lead[0] == ',')
        printf("\n");
}

static void print_program(const dj_plan_file_t *file, uint32_t at)
{
    const dj_plan_program_t *program = &file->programs[at];
    const dj_srg_t *srg = program->srg;
    const dj_plan_t *plan = program->plan;
    char key[33], work[DJ_PLAN_BYTES_TEXT], traffic[DJ_PLAN_BYTES_TEXT], time[DJ_PLAN_BYTES_TEXT];
    dj_hash_hex(program->graph->exact_key, key);
    printf("\nprogram %u, %.8s: %u nodes, %u steps in %u groups, %u bindings\n", at, key,
           program->graph->n_nodes, plan->n_steps, plan->n_groups, program->graph->n_bindings);
    if (file->n_programs > 1)
        print_phase("  ", &srg->verdict);
    print_rewrites(&program->rewrites);
    print_memory(srg);
    print_peak(plan, srg);
    printf("  work       %s, %s moved, %.1f FLOP a byte: bound by %s\n",
           dj_plan_flops(srg->flops, work), dj_plan_bytes(srg->moved_bytes, traffic),
           srg->intensity, bound_name(srg->bound));
    printf("  time       %s predicted, planned in %s\n",
           dj_plan_time((double)plan->predicted_ns, time),
           dj_plan_time((double)plan->planning_ns, work));
    print_top(program);
}

/* One line a program, where there are too many to tell all of each. */
static void print_table(const dj_plan_file_t *file)
{
    printf("\n%7s %6s %11s %11s %12s %10s  %s\n", "program", "nodes", "weights", "peak", "work",
           "time", "phase");
    for (uint32_t i = 0; i < file->n_programs; i++) {
        const dj_plan_program_t *program = &file->programs[i];
        char weights[DJ_PLAN_BYTES_TEXT], peak[DJ_PLAN_BYTES_TEXT], work[DJ_PLAN_BYTES_TEXT];
        char time[DJ_PLAN_BYTES_TEXT];
        printf("%7u %6u %11s %11s %12s %10s  %s\n", i, program->graph->n_nodes,
               dj_plan_bytes(program->srg->bytes[DJ_LIFE_WEIGHT], weights),
               dj_plan_bytes(program->plan->peak_bytes, peak),
               dj_plan_flops(program->srg->flops, work),
               dj_plan_time((double)program->plan->predicted_ns, time),
               dj_phase_name(program->srg->verdict.phase));
    }
}

static void print_total(const dj_plan_file_t *file)
{
    char work[DJ_PLAN_BYTES_TEXT], time[DJ_PLAN_BYTES_TEXT], peak[DJ_PLAN_BYTES_TEXT];
    double flops = 0, ns = 0;
    for (uint32_t i = 0; i < file->n_programs; i++) {
        flops += file->programs[i].srg->flops;
        ns += (double)file->programs[i].plan->predicted_ns;
    }
    printf("  together   %s, %s predicted, peak %s\n", dj_plan_flops(flops, work),
           dj_plan_time(ns, time),
           dj_plan_bytes(file->programs[dj_plan_file_largest(file)].plan->peak_bytes, peak));
}

static void print_file(const dj_plan_file_t *file, const dj_plan_words_t *words)
{
    const dj_device_info_t *device = file->device_info;
    bool all = file->n_programs <= PROGRAMS_TOLD;
    uint32_t chosen = (uint32_t)words->program;
    printf("%s, %u program%s, on a %s device (%s, %u thread%s)\n",
           file->snapshot->name[0] ? file->snapshot->name : file->path, file->n_programs,
           file->n_programs == 1 ? "" : "s", device->kind, device->isa, device->threads,
           device->threads == 1 ? "" : "s");
    print_phase("  ", &file->verdict);
    if (file->n_programs > 1)
        print_total(file);
    if (!all && !words->program_given) {
        print_table(file);
        printf("\nThe one with the highest peak; --program N tells of another:\n");
        chosen = dj_plan_file_largest(file);
    }
    for (uint32_t i = 0; i < file->n_programs; i++)
        if ((all && !words->program_given) || i == chosen)
            print_program(file, i);
}

/* ---- for programs ---- */

static json_t *json_phase(const dj_verdict_t *verdict)
{
    json_t *scores = json_object();
    for (uint8_t i = 0; i < DJ_PHASE_COUNT; i++)
        json_object_set_new(scores, dj_phase_name(i), json_real(verdict->scores[i]));
    return json_pack("{s:s, s:f, s:s, s:b, s:o}", "name", dj_phase_name(verdict->phase),
                     "confidence", verdict->confidence, "reason", verdict->reason, "hinted",
                     verdict->hinted, "scores", scores);
}

static json_t *json_nodes(const dj_srg_t *srg)
{
    json_t *nodes = json_array();
    for (uint32_t i = 0; i < srg->graph->n_nodes; i++) {
        const dj_srg_node_t *view = &srg->nodes[i];
        const dj_node_t *node = &srg->graph->nodes[i];
        char result[DJ_VIEW_TEXT];
        json_array_append_new(
            nodes,
            json_pack("{s:i, s:s, s:s, s:s, s:f, s:I, s:I, s:f, s:f, s:s, s:s, s:s}", "node",
                      (int)i, "op", dj_op_info(node->call.op)->name, "result",
                      result_text(node, result), "family", dj_family_name(view->family), "flops",
                      view->flops, "read_bytes", (json_int_t)view->in_bytes, "written_bytes",
                      (json_int_t)view->out_bytes, "reduction", (double)view->reduction, "ns",
                      view->ns, "bound", bound_name(view->bound), "lifecycle",
                      dj_lifecycle_name(view->lifecycle), "phase", dj_phase_name(view->phase)));
    }
    return nodes;
}

static json_t *json_rewrites(const dj_rewrite_report_t *report)
{
    json_t *all = json_object();
#define X(name, what) json_object_set_new(all, #name, json_integer((json_int_t)report->name));
    DJ_REWRITE_LIST(X)
#undef X
    json_object_set_new(all, "bytes_moved", json_integer((json_int_t)report->bytes_moved));
    return all;
}

static json_t *json_program(const dj_plan_program_t *program)
{
    const dj_srg_t *srg = program->srg;
    const dj_plan_t *plan = program->plan;
    char key[33], exact[33];
    json_t *bytes = json_object();
    dj_hash_hex(program->graph->program_key, key);
    dj_hash_hex(program->graph->exact_key, exact);
    for (uint8_t i = 0; i < DJ_LIFE_COUNT; i++)
        json_object_set_new(bytes, dj_lifecycle_name(i), json_integer((json_int_t)srg->bytes[i]));
    return json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:f, s:I, s:f, s:s, s:I, s:I, s:I, s:I, s:o}",
        "program_key", key, "exact_key", exact, "steps", (json_int_t)plan->n_steps, "groups",
        (json_int_t)plan->n_groups, "bindings", (json_int_t)program->graph->n_bindings, "phase",
        json_phase(&srg->verdict), "rewrites", json_rewrites(&program->rewrites), "bytes", bytes,
        "flops", srg->flops, "moved_bytes", (json_int_t)srg->moved_bytes, "intensity",
        srg->intensity, "bound", bound_name(srg->bound), "peak_bytes", (json_int_t)plan->peak_bytes,
        "bound_bytes", (json_int_t)plan->bound_bytes, "predicted_ns",
        (json_int_t)plan->predicted_ns, "planning_ns", (json_int_t)plan->planning_ns, "nodes",
        json_nodes(srg));
}

static dj_status_t print_json(const dj_plan_file_t *file, const dj_plan_words_t *words)
{
    json_t *programs = json_array();
    for (uint32_t i = 0; i < file->n_programs; i++)
        if (!words->program_given || words->program == i)
            json_array_append_new(programs, json_program(&file->programs[i]));
    json_t *all = json_pack("{s:s, s:s, s:s, s:o, s:o}", "file", file->path, "name",
                            file->snapshot->name, "device", file->device_info->isa, "phase",
                            json_phase(&file->verdict), "programs", programs);
    if (all == NULL || json_dumpf(all, stdout, JSON_INDENT(1)) != 0) {
        json_decref(all);
        return dj_fail(DJ_ERR_SYSTEM, "%s cannot be told as JSON", file->path);
    }
    putchar('\n');
    json_decref(all);
    return DJ_OK;
}

/* ---- a picture ---- */

static dj_status_t write_text(const char *path, const dj_bytes_t *text)
{
    FILE *out = text->failed ? NULL : fopen(path, "w");
    if (text->failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the picture");
    bool good = out != NULL && fwrite(text->data, 1, text->size, out) == text->size;
    if (out != NULL)
        good = fclose(out) == 0 && good;
    return good ? DJ_OK : dj_fail(DJ_ERR_SYSTEM, "cannot write %s: %m", path);
}

static dj_status_t draw(const dj_plan_file_t *file, const dj_plan_words_t *words)
{
    uint32_t at = words->program_given ? (uint32_t)words->program : dj_plan_file_largest(file);
    const dj_plan_program_t *program = &file->programs[at];
    char title[320];
    dj_bytes_t text = {0};
    const char *name = file->snapshot->name[0] ? file->snapshot->name : file->path;
    if (file->n_programs > 1)
        snprintf(title, sizeof title, "%s, program %u of %u", name, at, file->n_programs);
    else
        snprintf(title, sizeof title, "%s", name);
    dj_status_t status = dj_plan_draw(program->srg, program->plan, title, program->recorded, &text);
    if (status == DJ_OK)
        status = write_text(words->svg, &text);
    dj_bytes_fini(&text);
    return status;
}

int dj_plan_show(const dj_plan_words_t *words)
{
    dj_plan_file_t file;
    dj_status_t status = dj_plan_file_open(words->path, &file);
    if (status != DJ_OK)
        return dj_plan_failed(status);
    if (words->program_given && words->program >= file.n_programs)
        status = dj_fail(DJ_ERR_INVALID, "%s has %u programs; there is no program %llu",
                         words->path, file.n_programs, (unsigned long long)words->program);
    else if (words->svg != NULL && file.n_programs == 0)
        status = dj_fail(DJ_ERR_INVALID, "%s has no program to draw", words->path);
    else if (words->svg != NULL)
        status = draw(&file, words);
    if (status == DJ_OK && words->json)
        status = print_json(&file, words);
    else if (status == DJ_OK && words->svg == NULL)
        print_file(&file, words);
    dj_plan_file_close(&file);
    return status == DJ_OK ? 0 : dj_plan_failed(status);
}
