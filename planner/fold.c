/* fold.c - marks what weights alone feed, and splits the graph there. */
#include "planner/fold.h"

#include <stdlib.h>
#include <string.h>

#include "planner/arena.h"
#include "planner/rewrite.h"

#define FOLD_GROWTH 2u
#define FOLDS_MAX 4096u

/* What feeds a value. */
enum { FED_BY_REQUEST, FED_BY_SCALARS, FED_BY_WEIGHTS };

typedef struct marks {
    uint8_t *fed;     /* of each storage */
    uint8_t *node;    /* of each node: the same */
    uint8_t *crosses; /* of each storage: read by a node that stays */
    uint8_t *needed;  /* of each node: for a value that crosses */
    uint32_t n_crossing;
    uint64_t crossing_bytes, weight_bytes;
} marks_t;

static dj_status_t open_marks(marks_t *m, const dj_graph_t *graph)
{
    *m = (marks_t){.fed = calloc(2ull * graph->n_storages + 2ull * graph->n_nodes + 1, 1)};
    if (m->fed == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to fold a graph of %u nodes", graph->n_nodes);
    m->crosses = m->fed + graph->n_storages;
    m->node = m->crosses + graph->n_storages;
    m->needed = m->node + graph->n_nodes;
    return DJ_OK;
}

static uint8_t feed_of(const marks_t *m, const dj_graph_t *graph, const dj_node_t *node)
{
    uint8_t fed = FED_BY_SCALARS;
    if (dj_op_is_random(node->call.op))
        return FED_BY_REQUEST;
    for (uint32_t i = 0; i < node->n_outs; i++) {
        const dj_storage_t *storage = &graph->storages[node->outs[i].storage];
        if (node->outs[i].target != DJ_TARGET_NEW || storage->n_versions != 2 ||
            storage->binding != DJ_SLOT_NONE)
            return FED_BY_REQUEST;
    }
    dj_operand_walk_t walk = {node, 0, 0};
    for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;) {
        if (m->fed[operand->storage] == FED_BY_REQUEST)
            return FED_BY_REQUEST;
        fed = m->fed[operand->storage] > fed ? m->fed[operand->storage] : fed;
    }
    return fed;
}

static void note_crossing(marks_t *m, const dj_graph_t *graph, const dj_node_t *node)
{
    dj_operand_walk_t walk = {node, 0, 0};
    for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;) {
        uint32_t storage = operand->storage;
        if (graph->storages[storage].is_input || m->fed[storage] != FED_BY_WEIGHTS ||
            m->crosses[storage])
            continue;
        m->crosses[storage] = 1;
        m->n_crossing++;
        m->crossing_bytes += graph->storages[storage].bytes;
    }
}

static bool writes_crossing(const marks_t *m, const dj_node_t *node, const uint8_t *wanted)
{
    for (uint32_t i = 0; i < node->n_outs; i++)
        if (m->crosses[node->outs[i].storage] || wanted[node->outs[i].storage])
            return true;
    return false;
}

/* Backwards: the nodes that make what crosses, and the weights that they read. */
static dj_status_t find_needed(marks_t *m, const dj_graph_t *graph)
{
    uint8_t *wanted = calloc(graph->n_storages + 1ull, 1);
    if (wanted == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to fold a graph of %u nodes", graph->n_nodes);
    for (uint32_t i = graph->n_nodes; i-- > 0;) {
        const dj_node_t *node = &graph->nodes[i];
        if (m->node[i] == FED_BY_REQUEST || !writes_crossing(m, node, wanted))
            continue;
        m->needed[i] = 1;
        dj_operand_walk_t walk = {node, 0, 0};
        for (const dj_operand_t *operand; (operand = dj_operand_next(&walk)) != NULL;) {
            const dj_storage_t *storage = &graph->storages[operand->storage];
            if (storage->is_input && !wanted[operand->storage])
                m->weight_bytes += storage->bytes;
            wanted[operand->storage] = 1;
        }
    }
    free(wanted);
    return DJ_OK;
}

static dj_status_t mark(marks_t *m, const dj_graph_t *graph)
{
    dj_status_t status = open_marks(m, graph);
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < graph->n_storages; i++)
        m->fed[i] = graph->storages[i].is_input && graph->storages[i].input_class == DJ_CLASS_WEIGHT
                        ? FED_BY_WEIGHTS : FED_BY_REQUEST;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        m->node[i] = feed_of(m, graph, node);
        for (uint32_t j = 0; j < node->n_outs && m->node[i] != FED_BY_REQUEST; j++)
            m->fed[node->outs[j].storage] = m->node[i];
    }
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (m->node[i] != FED_BY_WEIGHTS)
            note_crossing(m, graph, &graph->nodes[i]);
    return m->n_crossing > 0 ? find_needed(m, graph) : DJ_OK;
}

static bool is_worth_it(const marks_t *m)
{
    return m->n_crossing > 0 && m->n_crossing <= FOLDS_MAX &&
           m->crossing_bytes <= FOLD_GROWTH * m->weight_bytes;
}

bool dj_graph_has_folds(const dj_graph_t *graph)
{
    marks_t m;
    bool folds = mark(&m, graph) == DJ_OK && is_worth_it(&m);
    free(m.fed);
    return folds;
}

/* Keeps the nodes that `keep` says, and binds what crosses behind the request's bindings. */
static dj_status_t keep_half(dj_graph_t *graph, const marks_t *m, bool folded)
{
    dj_arena_t *arena = graph->arena;
    uint32_t kept = 0, n_requests = graph->n_bindings;
    uint32_t *bindings =
        dj_arena_alloc(&arena, (n_requests + (size_t)m->n_crossing) * sizeof *bindings);
    graph->arena = arena;
    if (bindings == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to fold a graph of %u nodes", graph->n_nodes);
    memcpy(bindings, graph->bindings, n_requests * sizeof *bindings);
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (folded ? m->needed[i] : m->node[i] != FED_BY_WEIGHTS)
            graph->nodes[kept++] = graph->nodes[i];
    graph->n_nodes = kept;
    for (uint32_t i = 0; folded && i < n_requests; i++)
        graph->storages[bindings[i]].is_output = 0;
    for (uint32_t i = 0; i < graph->n_storages; i++) {
        dj_storage_t *storage = &graph->storages[i];
        if (!m->crosses[i])
            continue;
        storage->binding = n_requests + graph->n_folded;
        bindings[n_requests + graph->n_folded++] = i;
        storage->is_input = !folded;
        storage->input_class = DJ_CLASS_STATE; /* no packed forms: it is one itself */
        storage->is_output = folded;
    }
    graph->bindings = bindings;
    dj_graph_relink(graph);
    return DJ_OK;
}

dj_status_t dj_graph_fold(dj_graph_t *graph, dj_graph_t *twin)
{
    marks_t m;
    dj_status_t status = mark(&m, graph);
    if (status == DJ_OK && is_worth_it(&m)) {
        status = keep_half(graph, &m, false);
        if (status == DJ_OK)
            status = keep_half(twin, &m, true);
    }
    free(m.fed);
    return status;
}
