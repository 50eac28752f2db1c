/* order.c - an order of nodes in which fewer bytes are alive at once.
 *
 * List scheduling over the graph's hazards: a node waits for the writers of what it reads and, when it
 * writes, for those who read or wrote the version before. Of the nodes that are free to run, the one
 * that lets the most bytes go for the fewest it makes is next. Two walks are tried, from the start and
 * from the end (where a node frees what it writes and revives what it reads), and the better kept if it
 * beats the recorded order. Programs come in an order people wrote, which is hard to beat; what gains is
 * work that was recorded long before or after it is needed.
 *
 * A free list of FREE_MAX nodes is looked through at every turn; the rest wait in recorded order. When that
 * gets too much (lists of operands may be long), the first of them runs. */
#include <stdlib.h>
#include <string.h>

#include "planner/fit.h"
#include "planner/rewrite.h"
#include "planner/schedule.h"

#define FREE_MAX 64u
#define WORK_MAX (1ull << 28) /* storages looked at */

typedef struct edge {
    uint32_t from, to;
} edge_t;

typedef struct orderer {
    dj_graph_t *graph;
    edge_t *edges;
    uint32_t n_edges, room;
    uint32_t *first, *targets;      /* of each node: whom it holds up */
    uint32_t *waits;                /* of each node: how many it waits for */
    uint32_t *touch_first, *touched; /* of each node: the storages it touches, each once */
    uint32_t *touches;              /* of each storage: nodes that are still to touch it */
    uint8_t *live;                  /* of each storage */
    bool backward;
    uint32_t *heap, n_heap; /* what may run, by its turn in the recorded walk, least first */
    uint32_t window[FREE_MAX], n_window;
    uint64_t work;
    uint32_t *order;
} orderer_t;

static bool in_stack(const dj_graph_t *graph, uint32_t storage)
{
    return graph->storages[storage].binding == DJ_SLOT_NONE && !graph->storages[storage].is_spilled;
}

uint64_t dj_graph_alive(const dj_graph_t *graph, uint64_t *alive)
{
    uint64_t most = 0;
    memset(alive, 0, (graph->n_nodes + 1ull) * sizeof alive[0]);
    for (uint32_t i = 0; i < graph->n_storages; i++) {
        const dj_storage_t *storage = &graph->storages[i];
        if (!in_stack(graph, i) || storage->first_use == DJ_SLOT_NONE)
            continue;
        alive[storage->first_use] += dj_align_up(storage->bytes); /* changes first, then sums */
        alive[storage->last_use + 1] -= dj_align_up(storage->bytes);
    }
    for (uint32_t i = 1; i < graph->n_nodes; i++)
        alive[i] += alive[i - 1];
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        if (dj_node_must_stage(graph, &graph->nodes[i]))
            alive[i] += dj_align_up(dj_view_dense_bytes(&graph->nodes[i].outs[0].view));
        most = alive[i] > most ? alive[i] : most;
    }
    return most;
}

/* ---- hazards ---- */

/* Of each storage, while edges are found. */
typedef struct hazards {
    uint32_t *last_writer, *reader_head; /* DJ_SLOT_NONE: none */
    uint32_t *reader_node, *reader_next; /* reads since the last write, as lists */
    uint32_t n_readers;
} hazards_t;

static bool add_edge(orderer_t *o, uint32_t from, uint32_t to)
{
    if (from == to || from == DJ_SLOT_NONE)
        return true;
    if (o->n_edges == o->room) {
        uint32_t room = o->room > 0 ? o->room * 2 : 1024;
        edge_t *edges = realloc(o->edges, room * sizeof *edges);
        if (edges == NULL)
            return false;
        o->edges = edges;
        o->room = room;
    }
    o->edges[o->n_edges++] = (edge_t){from, to};
    return true;
}

static bool note_read(orderer_t *o, hazards_t *h, uint32_t node, uint32_t storage)
{
    h->reader_node[h->n_readers] = node;
    h->reader_next[h->n_readers] = h->reader_head[storage];
    h->reader_head[storage] = h->n_readers++;
    return add_edge(o, h->last_writer[storage], node);
}

static bool note_write(orderer_t *o, hazards_t *h, uint32_t node, uint32_t storage)
{
    bool good = add_edge(o, h->last_writer[storage], node);
    for (uint32_t i = h->reader_head[storage]; good && i != DJ_SLOT_NONE; i = h->reader_next[i])
        good = add_edge(o, h->reader_node[i], node);
    h->reader_head[storage] = DJ_SLOT_NONE;
    h->last_writer[storage] = node;
    return good;
}

static bool find_edges(orderer_t *o)
{
    uint32_t n_storages = o->graph->n_storages, n_reads = o->touch_first[o->graph->n_nodes];
    hazards_t h = {.last_writer = malloc((2ull * n_storages + 2ull * n_reads + 1) *
                                         sizeof h.last_writer[0])};
    bool good = h.last_writer != NULL;
    if (!good)
        return false;
    h.reader_head = h.last_writer + n_storages;
    h.reader_node = h.reader_head + n_storages;
    h.reader_next = h.reader_node + n_reads;
    memset(h.last_writer, 0xff, 2ull * n_storages * sizeof h.last_writer[0]);
    for (uint32_t i = 0; good && i < o->graph->n_nodes; i++) {
        const dj_node_t *node = &o->graph->nodes[i];
        for (uint32_t j = o->touch_first[i]; good && j < o->touch_first[i + 1]; j++)
            good = note_read(o, &h, i, o->touched[j]);
        for (uint32_t j = 0; good && j < node->n_outs; j++)
            good = note_write(o, &h, i, node->outs[j].storage);
    }
    free(h.last_writer);
    return good;
}

/* Whom each node holds up, and how many each waits for; turned round when walking from the end. */
static void link_edges(orderer_t *o)
{
    uint32_t n = o->graph->n_nodes;
    bool backward = o->backward;
    memset(o->first, 0, (n + 2ull) * sizeof o->first[0]);
    memset(o->waits, 0, (n + 1ull) * sizeof o->waits[0]);
    for (uint32_t i = 0; i < o->n_edges; i++) {
        o->first[(backward ? o->edges[i].to : o->edges[i].from) + 2]++;
        o->waits[backward ? o->edges[i].from : o->edges[i].to]++;
    }
    for (uint32_t i = 2; i < n + 2; i++)
        o->first[i] += o->first[i - 1];
    for (uint32_t i = 0; i < o->n_edges; i++) {
        uint32_t from = backward ? o->edges[i].to : o->edges[i].from;
        o->targets[o->first[from + 1]++] = backward ? o->edges[i].from : o->edges[i].to;
    }
}

/* ---- one walk ---- */

static void push(orderer_t *o, uint32_t node)
{
    uint32_t at = o->n_heap++;
    for (; at > 0 && o->heap[(at - 1) / 2] > node; at = (at - 1) / 2)
        o->heap[at] = o->heap[(at - 1) / 2];
    o->heap[at] = node;
}

static uint32_t pop(orderer_t *o)
{
    uint32_t top = o->heap[0], node = o->heap[--o->n_heap], at = 0;
    for (uint32_t child; (child = 2 * at + 1) < o->n_heap; at = child) {
        child += child + 1 < o->n_heap && o->heap[child + 1] < o->heap[child];
        if (o->heap[child] >= node)
            break;
        o->heap[at] = o->heap[child];
    }
    o->heap[at] = node;
    return top;
}

/* The node at a turn of the walk, and the turn of a node. */
static uint32_t turned(const orderer_t *o, uint32_t number)
{
    return o->backward ? o->graph->n_nodes - 1 - number : number;
}

/* Bytes that running this node now lets go, less those that it makes live. */
static int64_t gain_of(const orderer_t *o, uint32_t node)
{
    int64_t gain = 0;
    for (uint32_t i = o->touch_first[node]; i < o->touch_first[node + 1]; i++) {
        uint32_t storage = o->touched[i];
        int64_t bytes = (int64_t)dj_align_up(o->graph->storages[storage].bytes);
        if (!in_stack(o->graph, storage))
            continue;
        gain -= o->live[storage] ? 0 : bytes;
        gain += o->touches[storage] == 1 ? bytes : 0;
    }
    return gain;
}

static uint32_t take_next(orderer_t *o)
{
    while (o->n_window < FREE_MAX && o->n_heap > 0)
        o->window[o->n_window++] = pop(o);
    uint32_t best = 0;
    int64_t best_gain = INT64_MIN;
    for (uint32_t i = 0; i < o->n_window; i++) {
        uint32_t node = turned(o, o->window[i]);
        o->work += o->touch_first[node + 1] - o->touch_first[node];
        int64_t gain = o->work < WORK_MAX ? gain_of(o, node) : 0;
        if (gain > best_gain || (gain == best_gain && o->window[i] < o->window[best])) {
            best = i;
            best_gain = gain;
        }
    }
    uint32_t turn = o->window[best];
    o->window[best] = o->window[--o->n_window];
    return turned(o, turn);
}

static void start_walk(orderer_t *o, bool backward)
{
    o->backward = backward;
    o->n_heap = o->n_window = 0;
    link_edges(o);
    memset(o->live, 0, o->graph->n_storages);
    memset(o->touches, 0, o->graph->n_storages * sizeof o->touches[0]);
    for (uint32_t i = 0; i < o->touch_first[o->graph->n_nodes]; i++)
        o->touches[o->touched[i]]++;
    for (uint32_t i = 0; i < o->graph->n_nodes; i++)
        if (o->waits[turned(o, i)] == 0)
            push(o, i);
}

static void walk(orderer_t *o, bool backward)
{
    start_walk(o, backward);
    for (uint32_t turn = 0; turn < o->graph->n_nodes; turn++) {
        uint32_t node = take_next(o);
        for (uint32_t i = o->touch_first[node]; i < o->touch_first[node + 1]; i++) {
            o->touches[o->touched[i]]--;
            o->live[o->touched[i]] = o->touches[o->touched[i]] > 0;
        }
        o->order[turned(o, turn)] = node;
        for (uint32_t i = o->first[node]; i < o->first[node + 1]; i++)
            if (--o->waits[o->targets[i]] == 0)
                push(o, turned(o, o->targets[i]));
    }
}

/* ---- the whole ---- */

/* Each storage a node touches, once. `seen` holds the last node + 1 that touched it. */
static uint32_t list_touched(const dj_graph_t *graph, uint32_t *seen, uint32_t *first,
                             uint32_t *touched)
{
    uint32_t count = 0;
    memset(seen, 0, graph->n_storages * sizeof seen[0]);
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dj_node_t *node = &graph->nodes[i];
        dj_operand_walk_t walk_operands = {node, 0, 0};
        if (first != NULL)
            first[i] = count;
        for (const dj_operand_t *operand; (operand = dj_operand_next(&walk_operands)) != NULL;) {
            if (seen[operand->storage] == i + 1)
                continue;
            seen[operand->storage] = i + 1;
            if (touched != NULL)
                touched[count] = operand->storage;
            count++;
        }
        for (uint32_t j = 0; j < node->n_outs; j++) {
            if (seen[node->outs[j].storage] == i + 1)
                continue;
            seen[node->outs[j].storage] = i + 1;
            if (touched != NULL)
                touched[count] = node->outs[j].storage;
            count++;
        }
    }
    if (first != NULL)
        first[graph->n_nodes] = count;
    return count;
}

static bool open_orderer(orderer_t *o)
{
    uint64_t n_nodes = o->graph->n_nodes, n_storages = o->graph->n_storages;
    o->touches = malloc((n_storages + 1) * sizeof o->touches[0]);
    o->live = malloc(n_storages + 1);
    o->touch_first = malloc((5 * n_nodes + 8) * sizeof o->touch_first[0]);
    if (o->touches == NULL || o->live == NULL || o->touch_first == NULL)
        return false;
    o->first = o->touch_first + n_nodes + 1;
    o->waits = o->first + n_nodes + 2;
    o->heap = o->waits + n_nodes + 1;
    o->order = o->heap + n_nodes + 1;
    o->touched = malloc((list_touched(o->graph, o->touches, NULL, NULL) + 1ull) *
                        sizeof o->touched[0]);
    if (o->touched == NULL)
        return false;
    list_touched(o->graph, o->touches, o->touch_first, o->touched);
    if (!find_edges(o))
        return false;
    o->targets = malloc((o->n_edges + 1ull) * sizeof o->targets[0]);
    return o->targets != NULL;
}

static void close_orderer(orderer_t *o)
{
    free(o->touches);
    free(o->live);
    free(o->touch_first);
    free(o->touched);
    free(o->edges);
    free(o->targets);
}

/* The graph in the order of the last walk, from `nodes` as they were recorded. */
static uint64_t apply(orderer_t *o, const dj_node_t *nodes, uint64_t *alive)
{
    for (uint32_t i = 0; i < o->graph->n_nodes; i++)
        o->graph->nodes[i] = nodes[o->order[i]];
    dj_graph_relink(o->graph);
    return dj_graph_alive(o->graph, alive);
}

static uint64_t best_order(orderer_t *o, dj_node_t *nodes, uint64_t *alive)
{
    dj_graph_t *graph = o->graph;
    size_t bytes = graph->n_nodes * sizeof nodes[0];
    uint64_t most[3];
    memcpy(nodes, graph->nodes, bytes);
    most[0] = dj_graph_alive(graph, alive);
    walk(o, false);
    most[1] = apply(o, nodes, alive);
    walk(o, true);
    most[2] = apply(o, nodes, alive);
    if (most[2] < most[0] && most[2] < most[1])
        return most[2];
    if (most[1] < most[0]) {
        walk(o, false);
        return apply(o, nodes, alive);
    }
    memcpy(graph->nodes, nodes, bytes);
    dj_graph_relink(graph);
    return most[0];
}

dj_status_t dj_graph_reorder(dj_graph_t *graph, uint64_t *most_p)
{
    orderer_t o = {.graph = graph};
    *most_p = 0;
    if (graph->n_nodes == 0)
        return DJ_OK;
    dj_node_t *nodes = malloc((graph->n_nodes + 1ull) * sizeof nodes[0]);
    uint64_t *alive = malloc((graph->n_nodes + 1ull) * sizeof alive[0]);
    bool good = nodes != NULL && alive != NULL && open_orderer(&o);
    if (good)
        *most_p = best_order(&o, nodes, alive);
    close_orderer(&o);
    free(nodes);
    free(alive);
    return good ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory to reorder %u nodes", graph->n_nodes);
}
