/* transformer.h - a GPT of any length as a recorded program, for measuring the planner by size.
 *
 * Layers as eager PyTorch runs those of GPT-2 with a key/value cache: norm, one product for queries,
 * keys and values seen through three windows, the cache's `cat`s, attention, the product back, the sum,
 * and a feed-forward part whose GELU is written out. So most storages are small and short-lived, a few
 * are used far away, and half of the ops are pointwise, as in the real exports, which only come in the
 * sizes that people publish.
 *
 * Ownership: dj_program_fini() is the caller's. Threads: pure. */
#ifndef DJ_BENCHMARKS_TRANSFORMER_H
#define DJ_BENCHMARKS_TRANSFORMER_H

#include "planner/program.h"

enum { DJ_TRANSFORMER_NODES_MAX = 120000 }; /* its weights are storages too, and those are limited */

/* At least `n_nodes` ops (up to the end of a layer) for `length` new tokens after 256 in the cache.
 * Programs that differ in `length` alone have one structure. `program` is all-zero, or to be used
 * again. DJ_ERR_LIMIT, DJ_ERR_MEMORY. */
dj_status_t dj_transformer_record(uint32_t n_nodes, int64_t length, dj_program_t *program);

#endif
