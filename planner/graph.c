/* graph.c - from a program's bytes to a checked graph.
 *
 * One pass over the structure: each item appends a storage or a node. Shapes are inferred here and
 * nothing that the client inferred is even transmitted, so there is no claim to believe. Versions
 * count writes; liveness is noted on the way. */
#include "planner/graph.h"

#include <stdlib.h>

#include "planner/decode.h"

static dj_storage_t *add_storage(dj_decoder_t *decoder, uint64_t bytes)
{
    if (decoder->storages.count >= DJ_PROGRAM_STORAGES_MAX) {
        dj_fail(DJ_ERR_LIMIT, "more than %d storages", DJ_PROGRAM_STORAGES_MAX);
        return NULL;
    }
    dj_storage_t *storage = dj_vector_add(decoder, &decoder->storages, sizeof *storage);
    if (storage == NULL)
        return NULL;
    *storage = (dj_storage_t){
        .bytes = bytes,
        .binding = DJ_SLOT_NONE,
        .producer = DJ_SLOT_NONE,
        .first_use = DJ_SLOT_NONE,
        .last_use = DJ_SLOT_NONE,
        .n_versions = 1,
    };
    return storage;
}

static dj_status_t read_input(dj_decoder_t *decoder)
{
    uint8_t operand_class = dj_reader_u8(&decoder->structure);
    uint64_t bytes = dj_reader_varint(&decoder->sizes);
    if (decoder->structure.failed || operand_class > DJ_CLASS_IMMEDIATE)
        return dj_fail(DJ_ERR_PROTOCOL, "input %u has class %u", decoder->n_inputs, operand_class);
    if (decoder->sizes.failed)
        return dj_fail(DJ_ERR_PROTOCOL, "input %u has no size", decoder->n_inputs);
    if (bytes > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "input %u of %llu bytes", decoder->n_inputs,
                       (unsigned long long)bytes);
    dj_storage_t *storage = add_storage(decoder, bytes);
    if (storage == NULL)
        return decoder->storages.count >= DJ_PROGRAM_STORAGES_MAX ? DJ_ERR_LIMIT : DJ_ERR_MEMORY;
    storage->is_input = 1;
    storage->input_class = operand_class;
    decoder->n_inputs++;
    return DJ_OK;
}

static void touch(dj_decoder_t *decoder, uint32_t number)
{
    dj_storage_t *storage = dj_decoder_storage(decoder, number);
    if (storage->first_use == DJ_SLOT_NONE)
        storage->first_use = decoder->nodes.count - 1;
    storage->last_use = decoder->nodes.count - 1;
}

/* The next version of a storage that exists already. */
static dj_status_t write_storage(dj_decoder_t *decoder, dj_output_t *out)
{
    dj_storage_t *storage = dj_decoder_storage(decoder, out->storage);
    if (storage->is_input && storage->input_class == DJ_CLASS_WEIGHT)
        return dj_fail(DJ_ERR_PROTOCOL, "writes storage %u, a sealed weight", out->storage);
    storage->is_output |= storage->is_input;
    out->version = storage->n_versions++;
    touch(decoder, out->storage);
    return DJ_OK;
}

static dj_status_t new_output(dj_decoder_t *decoder, const dj_view_t *view, dj_output_t *out)
{
    uint32_t node = decoder->nodes.count - 1;
    dj_storage_t *storage = add_storage(decoder, dj_view_extent_bytes(view));
    if (storage == NULL)
        return decoder->storages.count >= DJ_PROGRAM_STORAGES_MAX ? DJ_ERR_LIMIT : DJ_ERR_MEMORY;
    storage->producer = storage->first_use = storage->last_use = node;
    *out = (dj_output_t){
        .storage = decoder->storages.count - 1,
        .version = storage->n_versions++,
        .slot = DJ_SLOT_NONE,
        .target = DJ_TARGET_NEW,
        .view = *view,
    };
    return DJ_OK;
}

static dj_status_t target_operand(dj_decoder_t *decoder, const dj_call_t *call, uint8_t kind,
                                  uint8_t *arg_p, dj_operand_t *operand)
{
    if (kind == DJ_TARGET_VIEW)
        return dj_decode_operand(decoder, operand);
    uint64_t arg = dj_reader_varint(&decoder->structure);
    if (decoder->structure.failed || arg >= call->n_args || !dj_call_has(call, (uint32_t)arg))
        return dj_fail(DJ_ERR_PROTOCOL, "is written into argument %llu, which is no tensor",
                       (unsigned long long)arg);
    *arg_p = (uint8_t)arg;
    *operand = call->args[arg].operands[0];
    return DJ_OK;
}

static dj_status_t read_target(dj_decoder_t *decoder, const dj_call_t *call, uint32_t index,
                               const dj_view_t *inferred, dj_output_t *out)
{
    uint8_t kind = dj_reader_u8(&decoder->structure), arg = 0;
    dj_operand_t operand = {0};
    if (decoder->structure.failed || kind > DJ_TARGET_VIEW || (kind != DJ_TARGET_NEW && index > 0))
        return dj_fail(DJ_ERR_PROTOCOL, "output %u has target %u", index, kind);
    if (kind == DJ_TARGET_NEW)
        return new_output(decoder, inferred, out);
    dj_status_t status = target_operand(decoder, call, kind, &arg, &operand);
    if (status == DJ_OK && operand.storage >= decoder->storages.count)
        status = dj_fail(DJ_ERR_PROTOCOL, "is written into a number");
    if (status == DJ_OK)
        status = dj_op_check_target(call->op, inferred, &operand.view);
    if (status != DJ_OK)
        return status;
    *out = (dj_output_t){
        .storage = operand.storage,
        .slot = operand.slot,
        .target = kind,
        .arg = arg,
        .view = operand.view,
    };
    return write_storage(decoder, out);
}

/* An op with '!' writes its first tensor, and may read that storage through no other operand: what
 * it would read there would depend on how far it has written. */
static dj_status_t write_first_tensor(dj_decoder_t *decoder, const dj_call_t *call,
                                      dj_output_t *out)
{
    const dj_operand_t *first = &call->args[0].operands[0];
    for (uint32_t i = 1; i < call->n_args; i++)
        for (uint32_t j = 0; call->args[i].kind == DJ_ARG_TENSORS && j < call->args[i].count; j++)
            if (call->args[i].operands[j].storage == first->storage)
                return dj_fail(DJ_ERR_UNSUPPORTED, "reads storage %u while it writes it; copy "
                               "argument %u first", first->storage, i);
    dj_status_t status = dj_op_check_target(call->op, &first->view, &first->view);
    if (status != DJ_OK)
        return status;
    *out = (dj_output_t){
        .storage = first->storage,
        .slot = first->slot,
        .target = DJ_TARGET_ARGUMENT,
        .view = first->view,
    };
    return write_storage(decoder, out);
}

static dj_status_t read_arguments(dj_decoder_t *decoder, const dj_op_info_t *info, dj_call_t *call)
{
    dj_arg_t *args = dj_decoder_alloc(decoder, info->n_args, sizeof *args);
    if (args == NULL)
        return DJ_ERR_MEMORY;
    call->n_args = info->n_args;
    call->args = args;
    for (uint32_t i = 0; i < info->n_args; i++) {
        dj_status_t status = dj_decode_argument(decoder, info->signature[i], &args[i]);
        if (status != DJ_OK)
            return dj_fail_prefix(status, "%s: argument %u", info->name, i);
        for (uint32_t j = 0; args[i].kind == DJ_ARG_TENSORS && j < args[i].count; j++)
            if (args[i].operands[j].storage < decoder->storages.count)
                touch(decoder, args[i].operands[j].storage);
    }
    return DJ_OK;
}

static dj_status_t read_outputs(dj_decoder_t *decoder, const dj_op_info_t *info,
                                const dj_call_t *call, const dj_view_t *inferred,
                                dj_output_t *outs)
{
    dj_status_t status = DJ_OK;
    if (info->n_outs == 0)
        status = write_first_tensor(decoder, call, &outs[0]);
    for (uint32_t i = 0; i < info->n_outs && status == DJ_OK; i++)
        status = read_target(decoder, call, i, &inferred[i], &outs[i]);
    return status == DJ_OK ? status : dj_fail_prefix(status, "%s", info->name);
}

static dj_status_t read_op(dj_decoder_t *decoder)
{
    uint64_t op = dj_reader_varint(&decoder->structure);
    const dj_op_info_t *info = op < DJ_OP_COUNT ? dj_op_info((uint16_t)op) : NULL;
    dj_view_t inferred[DJ_OUTS_MAX];
    if (info == NULL)
        return dj_fail(DJ_ERR_UNSUPPORTED, "op %llu is not in the op table",
                       (unsigned long long)op);
    if (info->is_view)
        return dj_fail(DJ_ERR_PROTOCOL, "%s gives a view, and a program has none: a use carries its "
                       "window", info->name);
    if (decoder->nodes.count >= DJ_PROGRAM_NODES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "more than %d ops", DJ_PROGRAM_NODES_MAX);
    dj_node_t *node = dj_vector_add(decoder, &decoder->nodes, sizeof *node);
    uint32_t n_outs = info->n_outs > 0 ? info->n_outs : 1;
    dj_output_t *outs = node != NULL ? dj_decoder_alloc(decoder, n_outs, sizeof *outs) : NULL;
    if (outs == NULL)
        return DJ_ERR_MEMORY;
    *node = (dj_node_t){.call.op = (uint16_t)op, .n_outs = n_outs, .outs = outs,
                        .recorded = decoder->nodes.count - 1};
    dj_status_t status = read_arguments(decoder, info, &node->call);
    if (status == DJ_OK)
        status = dj_op_infer(&node->call, inferred);
    if (status == DJ_OK)
        status = read_outputs(decoder, info, &node->call, inferred, outs);
    return status;
}

static dj_status_t read_items(dj_decoder_t *decoder)
{
    for (;;) {
        uint8_t item = dj_reader_u8(&decoder->structure);
        dj_status_t status = DJ_OK;
        if (decoder->structure.failed)
            return dj_fail(DJ_ERR_PROTOCOL, "the program has no end");
        if (item == DJ_ITEM_END)
            return DJ_OK;
        uint32_t node = decoder->nodes.count;
        if (item == DJ_ITEM_INPUT)
            status = read_input(decoder);
        else if (item == DJ_ITEM_OP)
            status = read_op(decoder);
        else
            status = dj_fail(DJ_ERR_PROTOCOL, "unknown item 0x%02x", item);
        if (status != DJ_OK)
            return dj_fail_prefix(status, "node %u", node);
    }
}

static dj_status_t read_listed_outputs(dj_decoder_t *decoder)
{
    uint64_t count = dj_reader_varint(&decoder->structure);
    int64_t previous = -1;
    if (decoder->structure.failed || count > decoder->storages.count)
        return dj_fail(DJ_ERR_PROTOCOL, "%llu outputs of %u storages", (unsigned long long)count,
                       decoder->storages.count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = dj_reader_varint(&decoder->structure);
        if (decoder->structure.failed || number >= decoder->storages.count ||
            (int64_t)number <= previous)
            return dj_fail(DJ_ERR_PROTOCOL, "output %llu lists storage %llu out of order or range",
                           (unsigned long long)i, (unsigned long long)number);
        dj_storage_t *storage = dj_decoder_storage(decoder, (uint32_t)number);
        if (storage->is_input)
            return dj_fail(DJ_ERR_PROTOCOL, "output %llu lists storage %llu, an input",
                           (unsigned long long)i, (unsigned long long)number);
        storage->is_output = 1;
        previous = (int64_t)number;
    }
    return DJ_OK;
}

static dj_status_t check_consumed(const dj_decoder_t *decoder)
{
    if (dj_reader_left(&decoder->structure) > 0 || dj_reader_left(&decoder->sizes) > 0)
        return dj_fail(DJ_ERR_PROTOCOL, "%zu bytes of structure and %zu of sizes are left over",
                       dj_reader_left(&decoder->structure), dj_reader_left(&decoder->sizes));
    if (decoder->next_scalar != decoder->n_scalars)
        return dj_fail(DJ_ERR_PROTOCOL, "the program uses %u scalars of the %u that came",
                       decoder->next_scalar, decoder->n_scalars);
    return DJ_OK;
}

static void bind(dj_graph_t *graph, uint32_t *bindings, uint32_t storage)
{
    graph->storages[storage].binding = graph->n_bindings;
    bindings[graph->n_bindings++] = storage;
}

/* Inputs first, in order of appearance, then the listed outputs. */
static dj_status_t bind_storages(dj_decoder_t *decoder, dj_graph_t *graph)
{
    uint32_t n_bindings = 0;
    for (uint32_t i = 0; i < graph->n_storages; i++)
        n_bindings += graph->storages[i].is_input || graph->storages[i].is_output;
    uint32_t *bindings = dj_decoder_alloc(decoder, n_bindings, sizeof *bindings);
    if (bindings == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < graph->n_storages; i++)
        if (graph->storages[i].is_input)
            bind(graph, bindings, i);
    for (uint32_t i = 0; i < graph->n_storages; i++)
        if (graph->storages[i].is_output && !graph->storages[i].is_input)
            bind(graph, bindings, i);
    graph->n_inputs = decoder->n_inputs;
    graph->bindings = bindings;
    return DJ_OK;
}

static dj_status_t build_graph(dj_decoder_t *decoder, dj_graph_t **graph_p)
{
    dj_graph_t *graph = dj_decoder_alloc(decoder, 1, sizeof *graph);
    if (graph == NULL)
        return DJ_ERR_MEMORY;
    graph->nodes = decoder->nodes.data;
    graph->n_nodes = decoder->nodes.count;
    graph->storages = decoder->storages.data;
    graph->n_storages = decoder->storages.count;
    graph->offsets = decoder->offsets.data;
    graph->n_offsets = decoder->offsets.count;
    graph->scalar_dtypes = decoder->scalar_dtypes;
    graph->n_scalars = decoder->n_scalars;
    dj_status_t status = bind_storages(decoder, graph);
    *graph_p = graph;
    return status;
}

static dj_status_t read_header(dj_decoder_t *decoder)
{
    const char *magic = dj_reader_take(&decoder->structure, 3);
    uint8_t version = dj_reader_u8(&decoder->structure);
    if (magic == NULL || decoder->structure.failed || memcmp(magic, "DJP", 3) != 0)
        return dj_fail(DJ_ERR_PROTOCOL, "not a program");
    if (version != DJ_PROGRAM_VERSION)
        return dj_fail(DJ_ERR_VERSION, "a program of version %u; this side reads version %d",
                       version, DJ_PROGRAM_VERSION);
    decoder->scalar_dtypes = dj_decoder_alloc(decoder, decoder->n_scalars + 1ull, 1);
    return decoder->scalar_dtypes != NULL ? DJ_OK : DJ_ERR_MEMORY;
}

dj_status_t dj_graph_decode(const void *structure, size_t structure_size, const void *sizes,
                            size_t sizes_size, uint32_t n_scalars, dj_graph_t **graph_p)
{
    dj_decoder_t decoder = {.n_scalars = n_scalars};
    dj_graph_t *graph = NULL;
    if (structure_size > DJ_PROGRAM_BYTES_MAX || sizes_size > DJ_PROGRAM_BYTES_MAX ||
        n_scalars > DJ_PROGRAM_SCALARS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a program of %zu bytes with %zu of sizes and %u scalars",
                       structure_size, sizes_size, n_scalars);
    dj_reader_init(&decoder.structure, structure, structure_size);
    dj_reader_init(&decoder.sizes, sizes, sizes_size);
    dj_status_t status = read_header(&decoder);
    if (status == DJ_OK)
        status = read_items(&decoder);
    if (status == DJ_OK)
        status = read_listed_outputs(&decoder);
    if (status == DJ_OK)
        status = check_consumed(&decoder);
    if (status == DJ_OK)
        status = build_graph(&decoder, &graph);
    if (status != DJ_OK) {
        dj_arena_destroy(decoder.arena);
        return status;
    }
    graph->program_key = dj_program_key(structure, structure_size);
    graph->exact_key = dj_program_exact_key(graph->program_key, sizes, sizes_size);
    graph->arena = decoder.arena;
    *graph_p = graph;
    return DJ_OK;
}

void dj_graph_destroy(dj_graph_t *graph)
{
    if (graph != NULL)
        dj_arena_destroy(graph->arena); /* the graph itself lies in it */
}

dj_status_t dj_graph_check_offsets(const dj_graph_t *graph, const uint64_t *scalars)
{
    for (uint32_t i = 0; i < graph->n_offsets; i++) {
        const dj_offset_slot_t *slot = &graph->offsets[i];
        uint64_t bytes = graph->storages[slot->storage].bytes, elements = scalars[slot->slot];
        uint64_t room = bytes >= slot->extent_bytes ? bytes - slot->extent_bytes : 0;
        if (elements > room / slot->item_bytes)
            return dj_fail(DJ_ERR_SHAPE, "scalar %u: a view of %llu bytes at offset %lld times %u "
                           "leaves storage %u of %llu bytes", slot->slot,
                           (unsigned long long)slot->extent_bytes, (long long)elements,
                           slot->item_bytes, slot->storage, (unsigned long long)bytes);
    }
    return DJ_OK;
}
