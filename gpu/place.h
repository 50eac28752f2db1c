/* place.h - where an operand of a step lies: behind a binding of the request, or at an offset of a slab;
 * found at compile, completed with the plan's offset at place. The same for every device.
 *
 * Threads: pure. */
#ifndef DJ_GPU_PLACE_H
#define DJ_GPU_PLACE_H

#include "planner/arena.h"
#include "planner/plan.h"

typedef struct dj_place {
    uint32_t storage; /* DJ_STORAGE_NONE: the pointer is NULL */
    uint32_t binding; /* DJ_SLOT_NONE: in a slab at `offset` */
    bool spilled;     /* in the second slab */
    uint32_t slot;    /* of the view's offset in the scalar vector, DJ_SLOT_NONE when 0 */
    uint32_t item_bytes;
    uint64_t inside; /* bytes from the storage's start to the window, before the slot's */
    uint64_t offset;
} dj_place_t;

/* Operands of every tensor argument in call order, then the outputs (dj_node_operand_index()). */
uint32_t dj_places_count(const dj_node_t *node);
/* dj_places_count(node) of them; `offset` stays DJ_OFFSET_NONE. */
void dj_places_fill(const dj_graph_t *graph, const dj_node_t *node, dj_place_t *place);

/* ---- what compile() and place() of every device do with them ---- */

/* The places of all nodes, in node order, and the first one of each node and one past the last. DJ_ERR_LIMIT,
 * DJ_ERR_MEMORY. */
dj_status_t dj_places_make(const dj_graph_t *graph, dj_arena_t **arena_p, uint32_t **first_p, dj_place_t **places_p);
/* Is it a plan of as many storages as the graph's, and of no more steps than nodes? DJ_ERR_CORRUPT. */
dj_status_t dj_place_check_plan(const dj_graph_t *graph, const dj_plan_t *plan);
/* Is step `at` of a node of the graph? DJ_ERR_CORRUPT. */
dj_status_t dj_place_check_node(const dj_graph_t *graph, const dj_plan_t *plan, uint32_t at);
/* The plan's offsets into the `n` places of step `at`, whose node needs `workspace_bytes`. The plan was proven, so what
 * fails here is a plan for other workspaces (DJ_ERR_CLASS) or a mistake of ours (DJ_ERR_CORRUPT). */
dj_status_t dj_places_resolve(dj_place_t *places, uint32_t n, const dj_plan_t *plan, uint32_t at,
                              uint64_t workspace_bytes);
/* The node as it computes a staged result: output 0 contiguous. In the arena. DJ_ERR_MEMORY. */
dj_status_t dj_place_stage(const dj_node_t *node, dj_arena_t **arena_p, const dj_node_t **staged_p);

#endif
