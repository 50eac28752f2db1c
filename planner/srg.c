/* srg.c - the semantic view: costs a node, bytes a lifecycle, alias classes, phases. */
#include "planner/srg.h"

#include <stdlib.h>

const dj_roofline_t dj_roofline_typical = {.flops_per_ns = 50, .bytes_per_ns = 10, .step_ns = 500};

const char *dj_lifecycle_name(uint8_t lifecycle)
{
    static const char *const names[] = {"weight", "state", "activation", "output", "immediate"};
    return lifecycle < DJ_LIFE_COUNT ? names[lifecycle] : "?";
}

dj_lifecycle_t dj_storage_lifecycle(const dj_storage_t *storage)
{
    static const uint8_t of_class[] = {DJ_LIFE_WEIGHT, DJ_LIFE_STATE, DJ_LIFE_IMMEDIATE};
    if (storage->is_input)
        return (dj_lifecycle_t)of_class[storage->input_class];
    return storage->is_output ? DJ_LIFE_OUTPUT : DJ_LIFE_ACTIVATION;
}

static uint32_t count_uses(const dj_graph_t *graph, uint32_t *counts)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        for (uint32_t a = 0; a < node->call.n_args; a++) {
            const dj_arg_t *arg = &node->call.args[a];
            for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++)
                if (arg->operands[j].storage < graph->n_storages) {
                    counts[arg->operands[j].storage]++;
                    total++;
                }
        }
        for (uint32_t o = 0; o < node->n_outs; o++, total++)
            counts[node->outs[o].storage]++;
    }
    return total;
}

static void put_uses(dj_srg_t *srg, uint32_t at, uint32_t *next)
{
    const dj_node_t *node = &srg->graph->nodes[at];
    for (uint32_t a = 0; a < node->call.n_args; a++) {
        const dj_arg_t *arg = &node->call.args[a];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++) {
            const dj_operand_t *operand = &arg->operands[j];
            if (operand->storage < srg->graph->n_storages)
                srg->uses[next[operand->storage]++] = (dj_srg_use_t){.node = at,
                                                                     .version = operand->version,
                                                                     .arg = (uint8_t)a,
                                                                     .index = (uint16_t)j,
                                                                     .view = &operand->view};
        }
    }
    for (uint32_t o = 0; o < node->n_outs; o++) {
        const dj_output_t *out = &node->outs[o];
        srg->uses[next[out->storage]++] = (dj_srg_use_t){.node = at,
                                                         .version = out->version,
                                                         .writes = 1,
                                                         .arg = (uint8_t)o,
                                                         .view = &out->view};
    }
}

static dj_status_t find_uses(dj_srg_t *srg)
{
    const dj_graph_t *graph = srg->graph;
    uint32_t *next = calloc((size_t)graph->n_storages + 1, sizeof *next), at = 0;
    if (next == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the view of %u nodes", graph->n_nodes);
    uint32_t total = count_uses(graph, next);
    srg->uses = calloc((size_t)total + 1, sizeof *srg->uses);
    srg->first_use = calloc((size_t)graph->n_storages + 1, sizeof *srg->first_use);
    if (srg->uses == NULL || srg->first_use == NULL) {
        free(next);
        return dj_fail(DJ_ERR_MEMORY, "no memory for the view of %u nodes", graph->n_nodes);
    }
    for (uint32_t i = 0; i < graph->n_storages; i++) {
        uint32_t count = next[i];
        srg->first_use[i] = next[i] = at;
        at += count;
    }
    srg->first_use[graph->n_storages] = at;
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        put_uses(srg, i, next);
    free(next);
    return DJ_OK;
}

/* A part of a graph that only pictures or only sound have reached serves them, whatever the whole
 * is for; a gradient is training wherever it stands. */
static uint8_t node_phase(const dj_srg_t *srg, const dj_node_t *node, uint16_t origin)
{
    const uint16_t kinds = DJ_ORIGIN_IMAGE | DJ_ORIGIN_SOUND | DJ_ORIGIN_TOKEN | DJ_ORIGIN_TIME;
    uint8_t phase = srg->verdict.phase;
    if (dj_op_traits(node->call.op).backward)
        return DJ_PHASE_TRAINING;
    if (phase != DJ_PHASE_PREFILL && phase != DJ_PHASE_DECODE && phase != DJ_PHASE_UNKNOWN)
        return phase;
    if ((origin & kinds) == DJ_ORIGIN_IMAGE)
        return DJ_PHASE_VISION;
    return (origin & kinds) == DJ_ORIGIN_SOUND ? DJ_PHASE_SPEECH : phase;
}

static void describe_node(dj_srg_t *srg, uint32_t at, uint16_t origin)
{
    const dj_node_t *node = &srg->graph->nodes[at];
    dj_srg_node_t *view = &srg->nodes[at];
    uint64_t bytes;
    dj_node_cost(srg->graph, node, &view->flops, &bytes);
    dj_node_traffic(srg->graph, node, &view->in_bytes, &view->out_bytes);
    view->ns = dj_roofline_ns(&srg->roofline, view->flops, bytes);
    view->bound = dj_roofline_bound(&srg->roofline, view->flops, bytes);
    view->reduction = view->in_bytes > 0 ? (float)view->out_bytes / (float)view->in_bytes : 1.0f;
    view->lifecycle = dj_storage_lifecycle(&srg->graph->storages[node->outs[0].storage]);
    view->family = dj_op_traits(node->call.op).family;
    view->phase = node_phase(srg, node, origin);
}

static void sum_up(dj_srg_t *srg)
{
    double by_bound[2] = {0};
    for (uint32_t i = 0; i < srg->graph->n_nodes; i++) {
        const dj_srg_node_t *view = &srg->nodes[i];
        srg->flops += view->flops;
        srg->moved_bytes += view->in_bytes + view->out_bytes;
        srg->ns += view->ns;
        by_bound[view->bound] += view->ns;
    }
    for (uint32_t i = 0; i < srg->graph->n_storages; i++) {
        const dj_storage_t *storage = &srg->graph->storages[i];
        bool used = srg->first_use[i + 1] > srg->first_use[i]; /* rewrites leave some behind */
        if (used || storage->is_input || storage->is_output)
            srg->bytes[dj_storage_lifecycle(storage)] += storage->bytes;
    }
    srg->intensity = srg->moved_bytes > 0 ? srg->flops / (double)srg->moved_bytes : 0;
    srg->bound =
        by_bound[DJ_BOUND_COMPUTE] > by_bound[DJ_BOUND_MEMORY] ? DJ_BOUND_COMPUTE : DJ_BOUND_MEMORY;
}

static dj_status_t fill(dj_srg_t *srg, uint8_t hint, const dj_verdict_t *verdict)
{
    const dj_graph_t *graph = srg->graph;
    uint16_t *origins = calloc((size_t)graph->n_nodes + 1, sizeof *origins);
    srg->nodes = calloc((size_t)graph->n_nodes + 1, sizeof *srg->nodes);
    dj_status_t status = DJ_OK;
    if (origins == NULL || srg->nodes == NULL)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for the view of %u nodes", graph->n_nodes);
    if (status == DJ_OK)
        status = dj_features_of(graph, &srg->features, origins);
    if (status == DJ_OK)
        status = find_uses(srg);
    if (status == DJ_OK) {
        dj_detect(&srg->features, hint, &srg->verdict);
        if (verdict != NULL)
            srg->verdict = *verdict;
        for (uint32_t i = 0; i < graph->n_nodes; i++)
            describe_node(srg, i, origins[i]);
        sum_up(srg);
    }
    free(origins);
    return status;
}

static dj_status_t make(const dj_graph_t *graph, const dj_roofline_t *roofline, uint8_t hint,
                        const dj_verdict_t *verdict, dj_srg_t **srg_p)
{
    dj_srg_t *srg = calloc(1, sizeof *srg);
    if (srg == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the view of %u nodes", graph->n_nodes);
    srg->graph = graph;
    srg->roofline = roofline != NULL ? *roofline : dj_roofline_typical;
    dj_status_t status = fill(srg, hint, verdict);
    if (status != DJ_OK) {
        dj_srg_destroy(srg);
        return status;
    }
    *srg_p = srg;
    return DJ_OK;
}

dj_status_t dj_srg_make(const dj_graph_t *graph, const dj_roofline_t *roofline, uint8_t hint,
                        dj_srg_t **srg_p)
{
    return make(graph, roofline, hint, NULL, srg_p);
}

dj_status_t dj_srg_make_as(const dj_graph_t *graph, const dj_roofline_t *roofline,
                           const dj_verdict_t *verdict, dj_srg_t **srg_p)
{
    return make(graph, roofline, verdict->phase, verdict, srg_p);
}

void dj_srg_destroy(dj_srg_t *srg)
{
    if (srg == NULL)
        return;
    free(srg->nodes);
    free(srg->first_use);
    free(srg->uses);
    free(srg);
}

const dj_srg_use_t *dj_srg_uses(const dj_srg_t *srg, uint32_t storage, uint32_t *count_p)
{
    *count_p = srg->first_use[storage + 1] - srg->first_use[storage];
    return &srg->uses[srg->first_use[storage]];
}
