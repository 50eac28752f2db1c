/* place.c - where operands lie, from the graph (place.h). */
#include "gpu/place.h"

uint32_t dj_places_count(const dj_node_t *node)
{
    uint32_t count = node->n_outs;
    for (uint32_t a = 0; a < node->call.n_args; a++)
        if (node->call.args[a].kind == DJ_ARG_TENSORS)
            count += node->call.args[a].count;
    return count;
}

static dj_place_t place_of(const dj_graph_t *graph, uint32_t storage, uint32_t slot,
                           const dj_view_t *view)
{
    uint32_t item_bytes = dj_dtype_bytes(view->dtype);
    dj_place_t place = {.storage = storage,
                        .binding = DJ_SLOT_NONE,
                        .slot = slot,
                        .item_bytes = item_bytes,
                        .inside = (uint64_t)view->offset * item_bytes,
                        .offset = DJ_OFFSET_NONE};
    if (storage == DJ_STORAGE_NONE || storage == DJ_STORAGE_SCALAR) {
        place.storage = DJ_STORAGE_NONE;
        place.slot = DJ_SLOT_NONE;
    } else {
        place.binding = graph->storages[storage].binding;
        place.spilled = graph->storages[storage].is_spilled;
    }
    return place;
}

void dj_places_fill(const dj_graph_t *graph, const dj_node_t *node, dj_place_t *place)
{
    for (uint32_t a = 0; a < node->call.n_args; a++) {
        const dj_arg_t *arg = &node->call.args[a];
        if (arg->kind != DJ_ARG_TENSORS)
            continue;
        for (uint32_t i = 0; i < arg->count; i++) {
            const dj_operand_t *operand = &arg->operands[i];
            *place++ = place_of(graph, operand->storage, operand->slot, &operand->view);
        }
    }
    for (uint32_t i = 0; i < node->n_outs; i++)
        *place++ =
            place_of(graph, node->outs[i].storage, node->outs[i].slot, &node->outs[i].view);
}
