/* cost.c - what a node costs, and what a whole graph does.
 *
 * Products count two operations a multiply-add; everything else counts its largest tensor once.
 * Good to a factor, which is what queueing and fallback need. */
#include "planner/cost.h"

static double attention_flops(const dj_node_t *node)
{
    const dj_view_t *q = &node->call.args[0].operands[0].view;
    const dj_view_t *v = &node->call.args[2].operands[0].view;
    double scores = (double)q->sizes[0] * (double)q->sizes[1] * (double)q->sizes[2] *
                    (double)v->sizes[2];
    return 2 * scores * (double)(q->sizes[3] + v->sizes[3]);
}

/* Length of the summed dimension, or 0 for ops that are no matrix product. */
static int64_t inner_size(const dj_node_t *node)
{
    uint32_t arg;
    switch (node->call.op) {
    case DJ_OP_MM:
    case DJ_OP_BMM:
    case DJ_OP_LINEAR:
        arg = 0;
        break;
    case DJ_OP_ADDMM:
    case DJ_OP_BADDBMM:
        arg = 1;
        break;
    default:
        return 0;
    }
    const dj_view_t *view = &node->call.args[arg].operands[0].view;
    return view->sizes[view->rank - 1];
}

void dj_node_cost(const dj_graph_t *graph, const dj_node_t *node, double *flops_p,
                  uint64_t *bytes_p)
{
    uint64_t bytes = 0;
    int64_t largest = 0;
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++) {
            const dj_operand_t *operand = &arg->operands[j];
            if (operand->storage >= graph->n_storages)
                continue;
            uint64_t dense = dj_view_dense_bytes(&operand->view);
            uint64_t held = graph->storages[operand->storage].bytes;
            bytes += dense < held ? dense : held; /* a broadcast is read once */
            largest = dj_view_count(&operand->view) > largest ? dj_view_count(&operand->view)
                                                              : largest;
        }
    }
    for (uint32_t i = 0; i < node->n_outs; i++) {
        int64_t count = dj_view_count(&node->outs[i].view);
        bytes += dj_view_dense_bytes(&node->outs[i].view);
        largest = count > largest ? count : largest;
    }
    *bytes_p = bytes;
    if (node->call.op == DJ_OP_SDPA)
        *flops_p = attention_flops(node);
    else if (inner_size(node) > 0)
        *flops_p = 2.0 * (double)dj_view_count(&node->outs[0].view) * (double)inner_size(node);
    else
        *flops_p = (double)largest;
}

void dj_graph_totals(const dj_graph_t *graph, dj_totals_t *totals)
{
    *totals = (dj_totals_t){0};
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        double flops;
        uint64_t bytes;
        dj_node_cost(graph, &graph->nodes[i], &flops, &bytes);
        totals->flops += flops;
        totals->bytes_moved += bytes;
    }
    for (uint32_t i = 0; i < graph->n_storages; i++) {
        const dj_storage_t *storage = &graph->storages[i];
        if (storage->is_input && storage->input_class == DJ_CLASS_WEIGHT)
            totals->weight_bytes += storage->bytes;
        else if (storage->is_input && storage->input_class == DJ_CLASS_STATE)
            totals->state_bytes += storage->bytes;
        else if (storage->is_input)
            continue; /* an immediate: it came with the request */
        else if (storage->is_output)
            totals->output_bytes += storage->bytes;
        else
            totals->activation_bytes += storage->bytes;
    }
}
