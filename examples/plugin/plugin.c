/* plugin.c - an example plugin: one detector and one rewrite of a site's own.
 *
 * The site ranks documents with plain MLPs that end in one number a row. Djinn cannot know that
 * such a program is a recommendation; this detector can. And the site's code calls relu twice in
 * places: the rewrite leaves the second out, because relu(relu(x)) is relu(x) to the bit.
 *
 *     cc -shared -fPIC -I DJINN_SOURCES -o rankers.so plugin.c
 *     DJINN_PLUGINS=$PWD/rankers.so djinn-server
 */
#include "planner/plugin.h"

static const dj_plugin_host_t *djinn;

/* ---- a detector ---- */

static double ranks(const dj_features_t *f)
{
    bool plain = f->n_attention + f->n_conv_1d + f->n_conv_2d + f->n_conv_3d == 0;
    return plain && f->n_products >= 2 && f->n_scalar_outputs > 0 && f->n_backward == 0;
}

static const dj_detector_t detectors[] = {
    {"an MLP that ends in one number a row", DJ_PHASE_RECOMMENDATION, 2, ranks},
};

/* ---- a rewrite ---- */

/* Djinn's own passes have put a relu's result into its operand's place where nobody else reads
 * that, so what is looked for is a relu over the very window that a relu wrote last. */
static bool repeats(const dj_graph_t *graph, uint32_t at, uint32_t writer)
{
    if (writer == 0)
        return false;
    const dj_node_t *second = &graph->nodes[at], *first = &graph->nodes[writer - 1];
    const dj_operand_t *operand = &second->call.args[0].operands[0];
    const dj_output_t *made = &first->outs[0], *out = &second->outs[0];
    return first->call.op == second->call.op && out->storage == operand->storage &&
           made->slot == out->slot && out->slot == operand->slot && out->slot == DJ_SLOT_NONE &&
           djinn->view_equal(&made->view, &operand->view) &&
           djinn->view_equal(&out->view, &operand->view);
}

static dj_status_t drop_second_relu(dj_rewriter_t *rewriter)
{
    const dj_graph_t *graph = djinn->graph(rewriter);
    uint16_t relu = djinn->op_find("aten::relu");
    uint32_t *writer = djinn->alloc(rewriter, graph->n_storages, sizeof *writer); /* node + 1 */
    if (writer == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        const dj_operand_t *operand = node->call.op == relu ? node->call.args[0].operands : NULL;
        if (operand != NULL && operand->storage < graph->n_storages &&
            repeats(graph, i, writer[operand->storage])) {
            djinn->drop(rewriter, i);
            continue;
        }
        for (uint32_t j = 0; j < node->n_outs; j++)
            writer[node->outs[j].storage] = i + 1;
    }
    return DJ_OK;
}

static const dj_rewrite_fn_t rewrites[] = {drop_second_relu};

/* ---- the contract ---- */

static const dj_plugin_t plugin = {
    .abi = DJ_PLUGIN_ABI,
    .features_bytes = sizeof(dj_features_t),
    .layout = DJ_PLUGIN_LAYOUT,
    .name = "rankers",
    .version = "1.0",
    .n_detectors = sizeof detectors / sizeof detectors[0],
    .detectors = detectors,
    .n_rewrites = sizeof rewrites / sizeof rewrites[0],
    .rewrites = rewrites,
};

const dj_plugin_t *djinn_plugin(const dj_plugin_host_t *host)
{
    if (host->abi != DJ_PLUGIN_ABI || host->struct_bytes < sizeof *host)
        return NULL;
    djinn = host;
    return &plugin;
}
