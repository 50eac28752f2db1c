/* fold.h - what depends on weights alone is computed once and kept, not at every request.
 *
 * dj_graph_fold() splits two equal graphs in two: `graph` loses the nodes that only weights (and the
 * request's scalars) feed, `twin` keeps only those. Values that cross are folded: behind the request's
 * bindings both graphs get one more binding for each, which `twin` writes and `graph` reads as an input.
 * Who runs them sees to it that a folded value belongs to the weights' contents and the scalars' values it
 * was made of (runtime/fold.c), so two fine-tunes share the plans of both graphs and no value.
 *
 * It runs on decoded graphs before any other rewrite. Outputs of the request are never folded, nor what is
 * written more than once, nor random ops. Nothing is folded when the values would take more than
 * FOLD_GROWTH times the bytes of the weights they are made of.
 *
 * Threads: pure; the graphs are the caller's alone. */
#ifndef DJ_PLANNER_FOLD_H
#define DJ_PLANNER_FOLD_H

#include "planner/graph.h"

/* Is there anything to fold? False also when memory is short. */
bool dj_graph_has_folds(const dj_graph_t *graph);

/* Both decoded from one program. After DJ_OK graph->n_folded (= twin->n_folded) values cross.
 * DJ_ERR_MEMORY: both are only to be destroyed. */
dj_status_t dj_graph_fold(dj_graph_t *graph, dj_graph_t *twin);

#endif
