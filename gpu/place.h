/* place.h - where an operand of a step lies: behind a binding of the request, or at an offset of a slab;
 * found at compile, completed with the plan's offset at place. The same for every device.
 *
 * Threads: pure. */
#ifndef DJ_GPU_PLACE_H
#define DJ_GPU_PLACE_H

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

#endif
