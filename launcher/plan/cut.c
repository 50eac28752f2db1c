/* cut.c - djinn plan cut: a recording as stages for several devices. */
#include <stdio.h>
#include <stdlib.h>

#include "launcher/plan/file.h"
#include "planner/shape.h"

enum { VALUES_SHOWN = 4 };

static void print_values(const dj_plan_program_t *program, const dj_cut_t *cut, uint32_t at)
{
    const dj_cut_stage_t *stage = &cut->stages[at];
    for (uint32_t i = 0; i < stage->n_values && i < VALUES_SHOWN; i++) {
        uint32_t storage = cut->values[stage->first_value + i], count;
        const dj_srg_use_t *use = dj_srg_uses(program->srg, storage, &count);
        const char *name = dj_snapshot_name(program->recorded, storage);
        char view[DJ_VIEW_TEXT];
        printf("%s%%%u %s", i == 0 ? "         crossing: " : ", ", storage,
               name != NULL ? name : dj_view_format(use->view, view, sizeof view));
    }
    if (stage->n_values > VALUES_SHOWN)
        printf(" and %u more", stage->n_values - VALUES_SHOWN);
    if (stage->n_values > 0)
        printf("\n");
}

static void print_cut(const dj_plan_file_t *file, uint32_t at, const dj_cut_t *cut)
{
    const dj_plan_program_t *program = &file->programs[at];
    char bytes[DJ_PLAN_BYTES_TEXT], time[DJ_PLAN_BYTES_TEXT];
    printf("%s, program %u: %u stages, %s crossing, slowest stage %s\n",
           file->snapshot->name[0] ? file->snapshot->name : file->path, at, cut->n_stages,
           dj_plan_bytes(cut->crossing_bytes, bytes), dj_plan_time(cut->slowest_ns, time));
    printf("  %5s %15s %10s %12s %11s %11s %11s\n", "stage", "nodes", "time", "work", "memory",
           "weights", "comes in");
    for (uint32_t i = 0; i < cut->n_stages; i++) {
        const dj_cut_stage_t *stage = &cut->stages[i];
        char range[32], work[DJ_PLAN_BYTES_TEXT], memory[DJ_PLAN_BYTES_TEXT];
        char weights[DJ_PLAN_BYTES_TEXT];
        snprintf(range, sizeof range, "%u to %u", stage->first, stage->last);
        printf("  %5u %15s %10s %12s %11s %11s %11s\n", i, range, dj_plan_time(stage->ns, time),
               dj_plan_flops(stage->flops, work), dj_plan_bytes(stage->memory_bytes, memory),
               dj_plan_bytes(stage->weight_bytes, weights),
               dj_plan_bytes(stage->crossing_bytes, bytes));
        print_values(program, cut, i);
    }
}

int dj_plan_cut(const dj_plan_words_t *words)
{
    dj_plan_file_t file;
    dj_cut_t *cut = NULL;
    dj_cut_request_t request = {.n_stages = (uint32_t)words->stages,
                                .aim = words->by_time ? DJ_CUT_TIME : DJ_CUT_BYTES,
                                .memory_bytes = words->memory_bytes};
    dj_status_t status = dj_plan_file_open(words->path, &file);
    if (status != DJ_OK)
        return dj_plan_failed(status);
    uint32_t at = words->program_given ? (uint32_t)words->program : dj_plan_file_largest(&file);
    if (at >= file.n_programs)
        status = dj_fail(DJ_ERR_INVALID, "%s has %u programs; there is no program %u", words->path,
                         file.n_programs, at);
    else
        status = dj_cut_make(file.programs[at].srg, &request, &cut);
    if (status == DJ_OK)
        print_cut(&file, at, cut);
    dj_cut_destroy(cut);
    dj_plan_file_close(&file);
    return status == DJ_OK ? 0 : dj_plan_failed(status);
}
