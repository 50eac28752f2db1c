/* graph_check.c - what follows from a graph's nodes, derived anew, and the proof that a changed graph is
 * still one that a program could have. */
#include "planner/graph.h"

static void note_use(dj_storage_t *storage, uint32_t node)
{
    if (storage->first_use == DJ_SLOT_NONE)
        storage->first_use = node;
    storage->last_use = node;
}

static void relink_node(dj_graph_t *graph, uint32_t number)
{
    dj_node_t *node = &graph->nodes[number];
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++) {
            dj_operand_t *operand = (dj_operand_t *)&arg->operands[j]; /* the graph is ours */
            if (operand->storage >= graph->n_storages)
                continue;
            operand->version = graph->storages[operand->storage].n_versions - 1;
            note_use(&graph->storages[operand->storage], number);
        }
    }
    for (uint32_t i = 0; i < node->n_outs; i++) {
        dj_storage_t *storage = &graph->storages[node->outs[i].storage];
        if (!storage->is_input && storage->producer == DJ_SLOT_NONE)
            storage->producer = number;
        node->outs[i].version = storage->n_versions++;
        note_use(storage, number);
    }
}

void dj_graph_relink(dj_graph_t *graph)
{
    for (uint32_t i = 0; i < graph->n_storages; i++) {
        dj_storage_t *storage = &graph->storages[i];
        storage->producer = storage->first_use = storage->last_use = DJ_SLOT_NONE;
        storage->n_versions = 1;
    }
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        relink_node(graph, i);
}

static dj_status_t check_window(const dj_graph_t *graph, uint32_t node, uint32_t number,
                                const dj_view_t *view)
{
    if (number >= graph->n_storages)
        return dj_fail(DJ_ERR_CORRUPT, "node %u: storage %u of %u", node, number,
                       graph->n_storages);
    dj_status_t status = dj_view_check(view, graph->storages[number].bytes);
    return status == DJ_OK ? DJ_OK
                           : dj_fail(DJ_ERR_CORRUPT, "node %u: %s", node, dj_error_text());
}

static dj_status_t check_operands(const dj_graph_t *graph, uint32_t number, const dj_arg_t *arg)
{
    for (uint32_t i = 0; arg->kind == DJ_ARG_TENSORS && i < arg->count; i++) {
        const dj_operand_t *operand = &arg->operands[i];
        if (operand->storage >= DJ_STORAGE_SCALAR)
            continue;
        dj_status_t status = check_window(graph, number, operand->storage, &operand->view);
        if (status != DJ_OK)
            return status;
        const dj_storage_t *storage = &graph->storages[operand->storage];
        if (!storage->is_input && (storage->producer == DJ_SLOT_NONE || storage->producer >= number))
            return dj_fail(DJ_ERR_CORRUPT, "node %u reads storage %u before it is made", number,
                           operand->storage);
    }
    return DJ_OK;
}

static dj_status_t check_node(const dj_graph_t *graph, uint32_t number)
{
    const dj_node_t *node = &graph->nodes[number];
    const dj_op_info_t *info = dj_op_info(node->call.op);
    dj_status_t status = DJ_OK;
    if (info == NULL || node->call.n_args != info->n_args ||
        node->n_outs != (info->n_outs > 0 ? info->n_outs : 1))
        return dj_fail(DJ_ERR_CORRUPT, "node %u: op %u with %u arguments and %u results", number,
                       node->call.op, node->call.n_args, node->n_outs);
    for (uint32_t i = 0; i < node->call.n_args && status == DJ_OK; i++)
        status = check_operands(graph, number, &node->call.args[i]);
    for (uint32_t i = 0; i < node->n_outs && status == DJ_OK; i++) {
        const dj_output_t *out = &node->outs[i];
        status = check_window(graph, number, out->storage, &out->view);
        if (status == DJ_OK && graph->storages[out->storage].is_input &&
            !graph->storages[out->storage].is_output)
            status = dj_fail(DJ_ERR_CORRUPT, "node %u writes storage %u, an input that the program "
                             "does not write", number, out->storage);
    }
    return status;
}

dj_status_t dj_graph_check(const dj_graph_t *graph)
{
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; i < graph->n_nodes && status == DJ_OK; i++)
        status = check_node(graph, i);
    for (uint32_t i = 0; i < graph->n_storages && status == DJ_OK; i++)
        if (graph->storages[i].is_output && !graph->storages[i].is_input &&
            graph->storages[i].producer == DJ_SLOT_NONE)
            status = dj_fail(DJ_ERR_CORRUPT, "output storage %u is not made", i);
    return status;
}
