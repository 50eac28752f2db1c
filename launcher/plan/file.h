/* file.h - inside djinn plan: a snapshot, decoded, understood and planned for this machine.
 *
 * Plans here know the device's costs but not its workspaces, which only kernels can tell: replay
 * makes its own.
 *
 * Ownership: dj_plan_file_close(). Threads: one. */
#ifndef DJ_LAUNCHER_PLAN_FILE_H
#define DJ_LAUNCHER_PLAN_FILE_H

#include "gpu/device.h"
#include "planner/cut.h"
#include "planner/rewrite.h"
#include "planner/snapshot.h"

typedef struct dj_plan_program {
    const dj_snapshot_program_t *recorded;
    dj_graph_t *graph; /* rewritten, as a rank would have it */
    dj_rewrite_report_t rewrites;
    dj_srg_t *srg; /* of that graph; the verdict is over the one recorded */
    dj_plan_t *plan;
} dj_plan_program_t;

typedef struct dj_plan_file {
    const char *path;
    dj_snapshot_t *snapshot;
    uint32_t n_programs;
    dj_plan_program_t *programs;
    dj_features_t features; /* of all programs together */
    dj_verdict_t verdict;   /* over those */
    dj_device_t *device;
    const dj_device_info_t *device_info;
} dj_plan_file_t;

/* Anything wrong with the file is told as it is by snapshot.h and graph.h. */
dj_status_t dj_plan_file_open(const char *path, dj_plan_file_t *file);
void dj_plan_file_close(dj_plan_file_t *file);

/* The program whose plan has the highest peak. */
uint32_t dj_plan_file_largest(const dj_plan_file_t *file);

/* "12.3 MiB" into text of at least 16 bytes; returns text. */
const char *dj_plan_bytes(uint64_t bytes, char *text);
#define DJ_PLAN_BYTES_TEXT 16
/* "8.21 GFLOP", "1.20 ms" in the same way. */
const char *dj_plan_flops(double flops, char *text);
const char *dj_plan_time(double ns, char *text);

/* Words of the command line. */
typedef struct dj_plan_words {
    const char *path, *svg;
    bool json, by_time, program_given;
    uint64_t program, stages, memory_bytes, runs;
} dj_plan_words_t;

int dj_plan_show(const dj_plan_words_t *words);
int dj_plan_replay(const dj_plan_words_t *words);
int dj_plan_cut(const dj_plan_words_t *words);

/* Prints "djinn: <sentence>"; returns the exit status that goes with it: 1 when the machine or the
 * numbers do not allow it, 2 when the file or the words are wrong. */
int dj_plan_failed(dj_status_t status);

#endif
