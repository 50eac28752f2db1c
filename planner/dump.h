/* dump.h - a graph and its plan as text, for `djinn plan show` and for people who debug.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_DUMP_H
#define DJ_PLANNER_DUMP_H

#include "planner/plan.h"

/* Appends the listing; `plan` may be NULL. One line a binding, one a step (without a plan, one a
 * node): group, op, what it reads and writes as %storage.version with type and sizes, and where in
 * Stack its results lie. A buffer that cannot grow is marked `failed`. */
void dj_graph_print(const dj_graph_t *graph, const dj_plan_t *plan, dj_bytes_t *text);

#endif
