/* plan_parts.h - what djinn_plan measures: the parts of planning, each a function of one program.
 *
 * The head of djinn_plan.c says what each part is. A subject is prepared once, so that each part
 * finds what those before it make.
 *
 * Ownership: programs point at the caller's bytes; dj_subject_fini() frees the rest, also after a
 * failure.
 * Threads: one. */
#ifndef DJ_BENCHMARKS_PLAN_PARTS_H
#define DJ_BENCHMARKS_PLAN_PARTS_H

#include "planner/cache.h"
#include "planner/schedule.h"

/* A program's bytes, somebody else's. */
typedef struct dj_measured_program {
    const uint8_t *structure, *sizes;
    size_t structure_size, sizes_size;
    uint32_t n_scalars;
} dj_measured_program_t;

/* One program and what the parts make of it. */
typedef struct dj_subject {
    const char *name;
    dj_measured_program_t program;
    dj_measured_program_t other; /* of the same structure, with other sizes; all-zero: there is none */
    dj_graph_t *decoded, *graph, *fresh; /* `graph` is rewritten, `fresh` about to be */
    dj_plan_t *plan;
    dj_schedule_t schedule;
    dj_bytes_t encoded;
    dj_cache_t *cache;
    dj_hash_t exact_key;
} dj_subject_t;

/* Goals are of the design: microseconds for a program of so many ops; ns_per_node: for any. */
typedef struct dj_part {
    const char *name;
    dj_status_t (*run)(dj_subject_t *subject);
    dj_status_t (*ready)(dj_subject_t *subject); /* before each run, not timed; NULL: nothing */
    struct {
        uint32_t nodes; /* 0: any number */
        double us;
    } goals[2];
    double goal_ns_per_node;
} dj_part_t;

enum { DJ_PARTS = 13 };
extern const dj_part_t dj_parts[DJ_PARTS];

/* The bytes of what was recorded. */
dj_measured_program_t dj_measured_program(const dj_program_t *program);

/* With name and programs set, all else zero. Whatever planning may answer. */
dj_status_t dj_subject_prepare(dj_subject_t *subject);
void dj_subject_fini(dj_subject_t *subject);

/* Whether the subject has what the part needs: other sizes. */
bool dj_part_is_possible(const dj_part_t *part, const dj_subject_t *subject);

#endif
