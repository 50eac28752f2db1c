/* rewrite.h - graph to graph: the same results with fewer ops, fewer bytes moved, fewer bytes alive.
 *
 * A rewrite runs after decoding and before a device chooses kernels, on a graph that nobody shares yet.
 * It changes nodes and the windows they look through, never bindings, scalars or keys: the program is
 * still the one its keys name. Every rank derives the same graph from the same program, so a plan for
 * the rewritten graph can be published and proven like any other.
 *
 * The passes, in their order (rewrite_values.c, rewrite_memory.c):
 *   dead      nodes that no output depends on
 *   merge     the same op on the same values: computed once
 *   copies    a copy that only repeats what can be read where it lies
 *   concat    what is concatenated is written where the concatenation has it; with a cache in front
 *             that is an append: only what is new moves
 *   beside    an op that shrinks its last-used operand (argmax, topk, sum) moves up to its producer
 *   in_place  a pointwise result takes over the place of an operand that dies there
 * then those of plugins (plugin.h), each followed by dj_graph_check().
 *
 * A pass may not raise the most bytes alive at once, as far as it can see; concat looks.
 *
 * For passes: storages are renamed and nodes dropped through the functions below, which take effect at
 * dj_rewriter_commit(). A pass walks forward and asks dj_rewriter_root() for the storage that stands
 * behind one that was renamed.
 *
 * Threads: pure; the graph is the caller's alone. */
#ifndef DJ_PLANNER_REWRITE_H
#define DJ_PLANNER_REWRITE_H

#include "planner/graph.h"

/* X(name, what the number counts) */
#define DJ_REWRITE_LIST(X)                                                                         \
    X(dead, "nodes that nothing depends on")                                                       \
    X(merged, "nodes computed once instead of again")                                              \
    X(copies, "copies left out")                                                                   \
    X(appended, "operands of a concatenation written in place")                                    \
    X(beside, "reductions moved up to their producer")                                             \
    X(in_place, "results that took over an operand's place")                                       \
    X(plugin, "changes by plugins")

typedef struct dj_rewrite_report {
#define X(name, what) uint32_t name;
    DJ_REWRITE_LIST(X)
#undef X
    uint64_t bytes_moved; /* that are no longer read or written */
} dj_rewrite_report_t;

typedef struct dj_rewriter dj_rewriter_t;

/* One pass. DJ_ERR_MEMORY; a plugin's may give any error, and the graph is then not used. */
typedef dj_status_t (*dj_rewrite_fn_t)(dj_rewriter_t *rewriter);

/* Runs all passes, then `extra[0, n_extra)`. `report_p` may be NULL. After an error the graph may only
 * be destroyed. DJ_ERR_MEMORY; DJ_ERR_INTERNAL: a plugin's pass broke the graph. */
dj_status_t dj_graph_rewrite(dj_graph_t *graph, const dj_rewrite_fn_t *extra, uint32_t n_extra,
                             dj_rewrite_report_t *report_p);

/* ---- for passes ---- */

dj_graph_t *dj_rewriter_graph(dj_rewriter_t *rewriter);
dj_rewrite_report_t *dj_rewriter_report(dj_rewriter_t *rewriter);
/* The storage that `storage` was renamed to, or itself. */
uint32_t dj_rewriter_root(dj_rewriter_t *rewriter, uint32_t storage);
/* From now on every window on `from` is one on `to`, `bytes` further on (a multiple of the item size of
 * all its windows). The caller sees to it that it fits; both are roots. */
void dj_rewriter_rename(dj_rewriter_t *rewriter, uint32_t from, uint32_t to, uint64_t bytes);
void dj_rewriter_drop(dj_rewriter_t *rewriter, uint32_t node);
bool dj_rewriter_dropped(const dj_rewriter_t *rewriter, uint32_t node);
/* Moves a node up to just behind `behind` (DJ_SLOT_NONE: to the start). False when that one moves too. */
bool dj_rewriter_move(dj_rewriter_t *rewriter, uint32_t node, uint32_t behind);
/* Applies renames, drops and moves, and derives versions, producers and uses anew. DJ_ERR_MEMORY. */
dj_status_t dj_rewriter_commit(dj_rewriter_t *rewriter);
/* Zeroed memory that goes with the graph; NULL when short. */
void *dj_rewriter_alloc(dj_rewriter_t *rewriter, size_t count, size_t size);

/* How a storage is used. */
typedef struct dj_storage_use {
    uint32_t n_reads, n_writes; /* operands, outputs */
    uint32_t first, first_read, last_read, last_write; /* nodes; DJ_SLOT_NONE when there is none */
    uint32_t earlier_read;                              /* the last before last_read */
    bool fixed; /* no window moves with the request */
    bool whole; /* every window is all of it, contiguous, at offset 0 */
    uint8_t dtype; /* of all windows; DJ_DTYPE_NONE when they differ */
} dj_storage_use_t;

/* One a storage, for the graph as it was at the last commit; valid until the next call. The caller may
 * change them to keep up with its renames. */
dj_storage_use_t *dj_rewriter_uses(dj_rewriter_t *rewriter);

/* The tensor operands of a node, in order. */
typedef struct dj_operand_walk {
    const dj_node_t *node;
    uint32_t arg, element;
} dj_operand_walk_t;

/* The next operand that is a tensor in a storage; NULL after the last. */
dj_operand_t *dj_operand_next(dj_operand_walk_t *walk);

#endif
