/* features.c - one pass over a graph that counts what the detectors ask.
 *
 * Each storage carries where its content came from (dj_origin_t) and what it is just now (marks):
 * both are handed from operands to results, so a question such as "is this a product of two
 * activations that a softmax later sees" needs no search. */
#include <stdlib.h>

#include "planner/features_scan.h"

/* An input's origin is known at its first use, which gives it a type. */
static void meet_input(dj_scan_t *scan, const dj_operand_t *operand)
{
    dj_trail_t *trail = trail_of(scan, operand);
    if (!is_input(scan, operand) || trail->seen)
        return;
    trail->seen = true;
    trail->view = &operand->view;
    if (storage_of(scan, operand)->input_class != DJ_CLASS_WEIGHT)
        trail->origin |= dj_dtype_is_float(operand->view.dtype) ? DJ_ORIGIN_FLOAT : DJ_ORIGIN_IDS;
}

static uint16_t gather_operands(dj_scan_t *scan, const dj_node_t *node, uint8_t *marks_p)
{
    uint16_t origin = 0;
    uint8_t marks = 0;
    for (uint32_t a = 0; a < node->call.n_args; a++) {
        const dj_arg_t *arg = &node->call.args[a];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++) {
            const dj_operand_t *operand = &arg->operands[j];
            if (operand->storage >= scan->graph->n_storages)
                continue;
            meet_input(scan, operand);
            origin |= scan->trails[operand->storage].origin;
            marks |= scan->trails[operand->storage].marks;
        }
    }
    *marks_p = marks;
    return origin;
}

/* An activation function in place is no update, whatever it is applied to. */
static bool updates(const dj_node_t *node)
{
    switch (node->call.op) {
    case DJ_OP_RELU:
    case DJ_OP_SILU:
    case DJ_OP_GELU:
    case DJ_OP_GELU_TANH:
    case DJ_OP_SIGMOID:
    case DJ_OP_TANH:
    case DJ_OP_CLAMP:
    case DJ_OP_CLAMP_MIN:
        return false;
    default:
        return dj_op_traits(node->call.op).family == DJ_FAMILY_POINTWISE;
    }
}

/* An input overwritten: whole and pointwise is an update of a parameter or a statistic, a window or
 * a copy is state that moves on. */
static void visit_write(dj_scan_t *scan, const dj_node_t *node, const dj_output_t *out)
{
    const dj_storage_t *storage = &scan->graph->storages[out->storage];
    if (!storage->is_input || !dj_dtype_is_float(out->view.dtype))
        return;
    if (updates(node) && out->view.rank >= 1 && dj_view_dense_bytes(&out->view) == storage->bytes) {
        scan->features->n_updates++;
    } else if (out->view.rank >= 2) {
        scan->features->n_state_writes++;
        scan->trails[out->storage].marks |= MARK_CACHE;
    }
}

static void visit_outputs(dj_scan_t *scan, const dj_node_t *node, uint16_t origin, uint8_t marks)
{
    for (uint32_t i = 0; i < node->n_outs; i++) {
        const dj_output_t *out = &node->outs[i];
        dj_trail_t *trail = &scan->trails[out->storage];
        trail->origin |= origin;
        trail->marks |= marks;
        if (!scan->graph->storages[out->storage].is_input)
            trail->view = &out->view; /* the last: a result may begin as bytes without a type */
        visit_write(scan, node, out);
    }
}

static void add_flops(dj_scan_t *scan, const dj_node_t *node, uint16_t origin)
{
    const uint16_t kinds = DJ_ORIGIN_TOKEN | DJ_ORIGIN_IMAGE | DJ_ORIGIN_SOUND;
    dj_features_t *f = scan->features;
    double flops;
    uint64_t bytes;
    dj_node_cost(scan->graph, node, &flops, &bytes);
    f->flops += flops;
    f->token_flops += (origin & kinds) == DJ_ORIGIN_TOKEN ? flops : 0;
    f->image_flops += (origin & kinds) == DJ_ORIGIN_IMAGE ? flops : 0;
    f->sound_flops += (origin & kinds) == DJ_ORIGIN_SOUND ? flops : 0;
}

/* A denoiser's result is as large as what it was given, or twice as large where it learns a
 * variance too. Only sizes are compared: what the caller sees of the result is a window of its own.
 */
static void remember_inputs(dj_scan_t *scan)
{
    for (uint32_t i = 0; i < scan->graph->n_inputs; i++) {
        const dj_storage_t *storage = &scan->graph->storages[scan->graph->bindings[i]];
        const dj_trail_t *in = &scan->trails[scan->graph->bindings[i]];
        if (storage->input_class == DJ_CLASS_WEIGHT || in->view == NULL || in->like_weight ||
            in->view->rank < 3 || !dj_dtype_is_float(in->view->dtype) || storage->bytes == 0)
            continue;
        uint64_t count = storage->bytes / dj_dtype_bytes(in->view->dtype);
        remember(scan, &scan->input_counts, count);
        remember(scan, &scan->input_counts, 2 * count);
    }
}

static void visit_results(dj_scan_t *scan)
{
    const dj_graph_t *graph = scan->graph;
    for (uint32_t i = graph->n_inputs; i < graph->n_bindings; i++) {
        uint32_t storage = graph->bindings[i];
        const dj_trail_t *trail = &scan->trails[storage];
        if (trail->view == NULL || !dj_dtype_is_float(trail->view->dtype))
            continue;
        int64_t count = dj_view_count(trail->view);
        scan->features->n_scalar_outputs +=
            trail->view->rank <= 1 || count == trail->view->sizes[0];
        uint64_t elements = graph->storages[storage].bytes / dj_dtype_bytes(trail->view->dtype);
        scan->features->n_like_input +=
            dj_table_get(&scan->input_counts, dj_key_u64(elements)) != NULL;
    }
}

static void scan_graph(dj_scan_t *scan, uint16_t *origins)
{
    for (uint32_t i = 0; i < scan->graph->n_nodes; i++) {
        const dj_node_t *node = &scan->graph->nodes[i];
        uint8_t marks;
        uint16_t origin = gather_operands(scan, node, &marks);
        origin = dj_scan_visit(scan, node, origin, &marks);
        add_flops(scan, node, origin);
        visit_outputs(scan, node, origin, marks);
        if (origins != NULL)
            origins[i] = origin;
    }
    remember_inputs(scan);
    visit_results(scan);
}

dj_status_t dj_features_of(const dj_graph_t *graph, dj_features_t *features, uint16_t *origins)
{
    dj_features_t fresh = {.n_nodes = graph->n_nodes};
    dj_scan_t *scan = calloc(1, sizeof *scan);
    dj_trail_t *trails = calloc((size_t)graph->n_storages + 1, sizeof *trails);
    dj_status_t status = DJ_ERR_MEMORY;
    if (scan != NULL && trails != NULL) {
        *scan = (dj_scan_t){.graph = graph, .features = &fresh, .trails = trails};
        scan_graph(scan, origins);
        status = scan->status;
        dj_table_fini(&scan->weight_shapes);
        dj_table_fini(&scan->input_counts);
    }
    free(scan);
    free(trails);
    if (status != DJ_OK)
        return dj_fail(status, "no memory for the features of %u nodes", graph->n_nodes);
    dj_features_add(features, &fresh);
    return DJ_OK;
}

void dj_features_add(dj_features_t *into, const dj_features_t *from)
{
#define ADD(field) into->field += from->field
    ADD(n_nodes), ADD(n_products), ADD(n_norms), ADD(n_pools), ADD(n_scans), ADD(n_sorts);
    ADD(n_conv_1d), ADD(n_conv_2d), ADD(n_conv_3d), ADD(n_conv_turned);
    ADD(n_attention), ADD(n_attention_one), ADD(n_causal), ADD(n_cached);
    ADD(n_token_gathers), ADD(n_field_gathers), ADD(n_bags), ADD(n_tables), ADD(n_vocabulary);
    ADD(n_conv_1d_wide), ADD(n_reused_tables), ADD(n_offset_fields), ADD(n_gates);
    ADD(n_thin_stems), ADD(n_messages);
    ADD(n_image_stems), ADD(n_sound_stems), ADD(n_spectrogram_stems), ADD(n_patches);
    ADD(n_time_embeddings), ADD(n_like_input), ADD(n_fields_joined), ADD(n_sequence_products);
    ADD(n_scalar_outputs), ADD(n_state_writes);
    ADD(n_backward), ADD(n_weight_grads), ADD(n_losses), ADD(n_updates);
    ADD(flops), ADD(token_flops), ADD(image_flops), ADD(sound_flops);
#undef ADD
    if (from->tokens_per_row > into->tokens_per_row)
        into->tokens_per_row = from->tokens_per_row;
}
