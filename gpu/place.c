/* place.c - where operands lie, from the graph (place.h). */
#include "gpu/place.h"

#include <string.h>

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

dj_status_t dj_places_make(const dj_graph_t *graph, dj_arena_t **arena_p, uint32_t **first_p, dj_place_t **places_p)
{
    uint64_t total = 0;
    uint32_t *first = dj_arena_alloc(arena_p, (graph->n_nodes + 1ull) * sizeof(*first));
    for (uint32_t i = 0; first && i < graph->n_nodes; i++) {
        first[i] = (uint32_t)total;
        total += dj_places_count(&graph->nodes[i]);
    }
    if (total > UINT32_MAX)
        return dj_fail(DJ_ERR_LIMIT, "graph of %llu operands", (unsigned long long)total);
    dj_place_t *places = dj_arena_alloc(arena_p, (total + 1) * sizeof(*places));
    if (!first || !places)
        return dj_fail(DJ_ERR_MEMORY, "executable of %u nodes: out of memory", graph->n_nodes);
    first[graph->n_nodes] = (uint32_t)total;
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        dj_places_fill(graph, &graph->nodes[i], &places[first[i]]);
    *first_p = first;
    *places_p = places;
    return DJ_OK;
}

dj_status_t dj_place_check_plan(const dj_graph_t *graph, const dj_plan_t *plan)
{
    if (plan->n_steps <= graph->n_nodes && plan->n_storages == graph->n_storages)
        return DJ_OK;
    return dj_fail(DJ_ERR_CORRUPT, "plan of %u steps and %u storages for %u nodes and %u", plan->n_steps,
                   plan->n_storages, graph->n_nodes, graph->n_storages);
}

dj_status_t dj_place_check_node(const dj_graph_t *graph, const dj_plan_t *plan, uint32_t at)
{
    uint32_t node = plan->steps[at].node;
    if (node < graph->n_nodes)
        return DJ_OK;
    return dj_fail(DJ_ERR_CORRUPT, "plan step %u: node %u of %u", at, node, graph->n_nodes);
}

dj_status_t dj_places_resolve(dj_place_t *places, uint32_t n, const dj_plan_t *plan, uint32_t at,
                              uint64_t workspace_bytes)
{
    if (workspace_bytes > plan->workspace_bytes)
        return dj_fail(DJ_ERR_CLASS, "plan step %u: %llu bytes of workspace needed, %llu planned", at,
                       (unsigned long long)workspace_bytes, (unsigned long long)plan->workspace_bytes);
    for (uint32_t i = 0; i < n; i++) {
        dj_place_t *place = &places[i];
        if (place->storage == DJ_STORAGE_NONE || place->binding != DJ_SLOT_NONE)
            continue;
        place->offset = plan->offsets[place->storage];
        if (place->offset == DJ_OFFSET_NONE)
            return dj_fail(DJ_ERR_CORRUPT, "plan step %u: storage %u has no place", at, place->storage);
    }
    return DJ_OK;
}

dj_status_t dj_place_stage(const dj_node_t *node, dj_arena_t **arena_p, const dj_node_t **staged_p)
{
    const dj_view_t *view = &node->outs[0].view;
    dj_node_t *staged = dj_arena_alloc(arena_p, sizeof(*staged));
    dj_output_t *outs = dj_arena_alloc(arena_p, node->n_outs * sizeof(*outs));
    if (!staged || !outs)
        return dj_fail(DJ_ERR_MEMORY, "a staged node: out of memory");
    memcpy(outs, node->outs, node->n_outs * sizeof(*outs));
    outs[0].view = dj_view_contiguous(view->dtype, view->rank, view->sizes);
    *staged = *node;
    staged->outs = outs;
    *staged_p = staged;
    return DJ_OK;
}
