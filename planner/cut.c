/* cut.c - the dynamic program over cut points.
 *
 * Memory and time of a run of nodes only grow with the run, so for each end the starts that are
 * allowed are a window, and the window's start never moves back. One sweep finds all windows (two
 * ends of a run moving over counters and a queue of maxima); the bytes aim is then the minimum over
 * a sliding window, the time aim the crossing of a rising and a falling line, once for each stage.
 */
#include "planner/cut.h"

#include <math.h>
#include <stdlib.h>

typedef struct dj_cutter {
    const dj_srg_t *srg;
    const dj_graph_t *graph;
    uint32_t n, n_stages;
    uint64_t *crossing; /* of a cut before node i; n + 1 places */
    uint64_t *alive;    /* activations at node i */
    double *time;       /* of the nodes before i; n + 1 places */
    uint32_t *window;   /* of a run that ends before node i: its first allowed start */
    uint32_t *queue;
    uint32_t *counts; /* of each storage: uses inside the run */
    double *cost, *last_cost;
    uint32_t *from; /* n_stages rows of n + 1: start of the last stage */
    void *memory;
} dj_cutter_t;

/* One block for all arrays; the widest types first. */
static dj_status_t allocate(dj_cutter_t *c)
{
    size_t places = (size_t)c->n + 1, storages = (size_t)c->graph->n_storages + 1;
    size_t wide = 5 * places * sizeof(uint64_t);
    size_t narrow = (2 * places + storages + places * c->n_stages) * sizeof(uint32_t);
    uint8_t *memory = c->memory = calloc(1, wide + narrow);
    if (memory == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to cut %u nodes into %u stages", c->n,
                       c->n_stages);
    c->crossing = (uint64_t *)memory;
    c->alive = c->crossing + places;
    c->time = (double *)(c->alive + places);
    c->cost = c->time + places;
    c->last_cost = c->cost + places;
    c->window = (uint32_t *)(c->last_cost + places);
    c->queue = c->window + places;
    c->from = c->queue + places;
    c->counts = c->from + places * c->n_stages;
    return DJ_OK;
}

static bool crosses(const dj_storage_t *storage)
{
    return !storage->is_input || storage->input_class == DJ_CLASS_STATE;
}

/* Differences first, sums after. */
static void measure(dj_cutter_t *c)
{
    uint32_t used;
    for (uint32_t i = 0; i < c->graph->n_storages; i++) {
        const dj_storage_t *storage = &c->graph->storages[i];
        const dj_srg_use_t *uses = dj_srg_uses(c->srg, i, &used);
        if (used == 0)
            continue;
        uint32_t first = uses[0].node, last = uses[used - 1].node;
        if (crosses(storage)) {
            c->crossing[first + 1] += storage->bytes;
            c->crossing[last + 1] -= storage->bytes;
        }
        if (dj_storage_lifecycle(storage) == DJ_LIFE_ACTIVATION) {
            c->alive[first] += storage->bytes;
            c->alive[last + 1] -= storage->bytes;
        }
    }
    for (uint32_t i = 0; i < c->n; i++) {
        c->crossing[i + 1] += c->crossing[i];
        c->alive[i + 1] += c->alive[i];
        c->time[i + 1] = c->time[i] + c->srg->nodes[i].ns;
    }
}

/* Adds (or takes away) what a node's operands and outputs hold; returns the bytes' change. */
static uint64_t touch_one(dj_cutter_t *c, uint32_t storage, bool enters)
{
    const dj_storage_t *held = &c->graph->storages[storage];
    if (dj_storage_lifecycle(held) == DJ_LIFE_ACTIVATION)
        return 0;
    uint32_t before = c->counts[storage];
    c->counts[storage] += enters ? 1 : UINT32_MAX;
    return before == (enters ? 0 : 1) ? held->bytes : 0;
}

static uint64_t touch(dj_cutter_t *c, uint32_t at, bool enters)
{
    const dj_node_t *node = &c->graph->nodes[at];
    uint64_t bytes = 0;
    for (uint32_t a = 0; a < node->call.n_args; a++) {
        const dj_arg_t *arg = &node->call.args[a];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++)
            if (arg->operands[j].storage < c->graph->n_storages)
                bytes += touch_one(c, arg->operands[j].storage, enters);
    }
    for (uint32_t o = 0; o < node->n_outs; o++)
        bytes += touch_one(c, node->outs[o].storage, enters);
    return bytes;
}

/* window[b]: the first start of a run that ends before b and keeps both limits. */
static dj_status_t find_windows(dj_cutter_t *c, uint64_t limit_bytes, double limit_ns)
{
    uint64_t held = 0;
    uint32_t start = 0, head = 0, tail = 0;
    memset(c->counts, 0, c->graph->n_storages * sizeof *c->counts);
    for (uint32_t b = 1; b <= c->n; b++) {
        held += touch(c, b - 1, true);
        while (tail > head && c->alive[c->queue[tail - 1]] <= c->alive[b - 1])
            tail--;
        c->queue[tail++] = b - 1;
        while (start < b && ((limit_bytes > 0 && held + c->alive[c->queue[head]] > limit_bytes) ||
                             c->time[b] - c->time[start] > limit_ns)) {
            held -= touch(c, start, false);
            start++;
            head += head < tail && c->queue[head] < start;
            if (head == tail)
                break;
        }
        if (start == b)
            return dj_fail(DJ_ERR_RESOURCE,
                           "node %u, %s, needs %llu bytes by itself; a stage may "
                           "have %llu",
                           b - 1, dj_op_info(c->graph->nodes[b - 1].call.op)->name,
                           (unsigned long long)(touch(c, b - 1, true) + c->alive[b - 1]),
                           (unsigned long long)limit_bytes);
        c->window[b] = start;
    }
    return DJ_OK;
}

/* cost[b] = least bytes over all cuts of the nodes before b into so many stages, cuts' bytes
 * counted at their start. */
static void least_bytes(dj_cutter_t *c)
{
    for (uint32_t i = 0; i <= c->n; i++)
        c->last_cost[i] = i == 0 ? 0 : INFINITY;
    for (uint32_t k = 0; k < c->n_stages; k++) {
        uint32_t head = 0, tail = 0, *from = c->from + (size_t)k * (c->n + 1);
        c->cost[0] = INFINITY;
        for (uint32_t b = 1; b <= c->n; b++) {
            double fresh = c->last_cost[b - 1] + (double)c->crossing[b - 1];
            while (tail > head &&
                   c->last_cost[c->queue[tail - 1]] + (double)c->crossing[c->queue[tail - 1]] >=
                       fresh)
                tail--;
            c->queue[tail++] = b - 1;
            while (c->queue[head] < c->window[b])
                head++;
            uint32_t best = c->queue[head];
            c->cost[b] = c->last_cost[best] + (double)c->crossing[best];
            from[b] = best;
        }
        double *swap = c->last_cost;
        c->last_cost = c->cost;
        c->cost = swap;
    }
}

/* The least possible time of the slowest of at most n_stages stages; INFINITY when memory allows
 * none. A start later in the run has more behind it and less before it: both lines are monotone. */
static double least_time(dj_cutter_t *c)
{
    for (uint32_t i = 0; i <= c->n; i++)
        c->last_cost[i] = i == 0 ? 0 : INFINITY;
    for (uint32_t k = 0; k < c->n_stages; k++) {
        uint32_t at = 0;
        c->cost[0] = 0;
        for (uint32_t b = 1; b <= c->n; b++) {
            at = at < c->window[b] ? c->window[b] : at;
            while (at + 1 < b && c->last_cost[at] < c->time[b] - c->time[at])
                at++;
            c->cost[b] = fmax(c->last_cost[at], c->time[b] - c->time[at]);
            if (at > c->window[b])
                c->cost[b] =
                    fmin(c->cost[b], fmax(c->last_cost[at - 1], c->time[b] - c->time[at - 1]));
        }
        double *swap = c->last_cost;
        c->last_cost = c->cost;
        c->cost = swap;
    }
    return c->last_cost[c->n];
}

static void describe_stage(dj_cutter_t *c, dj_cut_stage_t *stage)
{
    uint64_t most = 0;
    memset(c->counts, 0, c->graph->n_storages * sizeof *c->counts);
    stage->crossing_bytes = stage->first > 0 ? c->crossing[stage->first] : 0;
    stage->ns = c->time[stage->last + 1] - c->time[stage->first];
    for (uint32_t i = stage->first; i <= stage->last; i++) {
        stage->memory_bytes += touch(c, i, true);
        stage->flops += c->srg->nodes[i].flops;
        most = c->alive[i] > most ? c->alive[i] : most;
    }
    for (uint32_t i = 0; i < c->graph->n_storages; i++)
        if (c->counts[i] > 0 && dj_storage_lifecycle(&c->graph->storages[i]) == DJ_LIFE_WEIGHT)
            stage->weight_bytes += c->graph->storages[i].bytes;
    stage->memory_bytes += most;
}

/* The cuts that a storage crosses are those between its first and its last use. */
static dj_status_t list_values(dj_cutter_t *c, dj_cut_t *cut)
{
    uint32_t total = 0, used;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < c->graph->n_storages; i++) {
            const dj_srg_use_t *uses = dj_srg_uses(c->srg, i, &used);
            if (used == 0 || !crosses(&c->graph->storages[i]))
                continue;
            for (uint32_t s = cut->stage_of[uses[0].node] + 1;
                 s <= cut->stage_of[uses[used - 1].node]; s++) {
                dj_cut_stage_t *stage = &cut->stages[s];
                if (pass == 1)
                    cut->values[stage->first_value + stage->n_values] = i;
                stage->n_values++;
                total += pass == 0;
            }
        }
        if (pass == 1)
            break;
        cut->values = calloc((size_t)total + 1, sizeof *cut->values);
        if (cut->values == NULL)
            return dj_fail(DJ_ERR_MEMORY, "no memory for %u crossing values", total);
        for (uint32_t s = 0, at = 0; s < cut->n_stages; s++) {
            cut->stages[s].first_value = at;
            at += cut->stages[s].n_values;
            cut->stages[s].n_values = 0;
        }
    }
    return DJ_OK;
}

static dj_status_t read_back(dj_cutter_t *c, dj_cut_t *cut)
{
    cut->n_stages = c->n_stages;
    cut->stages = calloc(c->n_stages, sizeof *cut->stages);
    cut->stage_of = calloc((size_t)c->n + 1, sizeof *cut->stage_of);
    if (cut->stages == NULL || cut->stage_of == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u stages", c->n_stages);
    uint32_t end = c->n;
    for (uint32_t k = c->n_stages; k-- > 0;) {
        dj_cut_stage_t *stage = &cut->stages[k];
        stage->last = end - 1;
        stage->first = c->from[(size_t)k * (c->n + 1) + end];
        for (uint32_t i = stage->first; i < end; i++)
            cut->stage_of[i] = k;
        end = stage->first;
        describe_stage(c, stage);
        cut->crossing_bytes += stage->crossing_bytes;
        cut->slowest_ns = fmax(cut->slowest_ns, stage->ns);
    }
    return list_values(c, cut);
}

static dj_status_t solve(dj_cutter_t *c, const dj_cut_request_t *request)
{
    double limit_ns = INFINITY;
    measure(c);
    dj_status_t status = find_windows(c, request->memory_bytes, limit_ns);
    if (status == DJ_OK && request->aim == DJ_CUT_TIME) {
        limit_ns = least_time(c);
        if (isfinite(limit_ns)) /* sums of times are equal up to their rounding */
            status = find_windows(c, request->memory_bytes, limit_ns * (1 + 1e-9));
    }
    if (status != DJ_OK)
        return status;
    least_bytes(c);
    if (!isfinite(c->last_cost[c->n]))
        return dj_fail(DJ_ERR_RESOURCE,
                       "%u nodes do not fit in %u stages of %llu bytes; take more "
                       "stages or a higher limit",
                       c->n, c->n_stages, (unsigned long long)request->memory_bytes);
    return DJ_OK;
}

dj_status_t dj_cut_make(const dj_srg_t *srg, const dj_cut_request_t *request, dj_cut_t **cut_p)
{
    dj_cutter_t c = {
        .srg = srg, .graph = srg->graph, .n = srg->graph->n_nodes, .n_stages = request->n_stages};
    if (c.n_stages == 0 || c.n_stages > c.n)
        return dj_fail(DJ_ERR_INVALID,
                       "%u stages of %u nodes; at least 1, and no stage may be empty", c.n_stages,
                       c.n);
    if (c.n_stages > DJ_CUT_STAGES_MAX || (uint64_t)c.n_stages * c.n > 1u << 26)
        return dj_fail(DJ_ERR_LIMIT,
                       "%u stages of %u nodes; at most %u stages, and 2^26 places in "
                       "all",
                       c.n_stages, c.n, (unsigned)DJ_CUT_STAGES_MAX);
    dj_cut_t *cut = calloc(1, sizeof *cut);
    if (cut == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a cut");
    dj_status_t status = allocate(&c);
    if (status == DJ_OK)
        status = solve(&c, request);
    if (status == DJ_OK)
        status = read_back(&c, cut);
    free(c.memory);
    if (status != DJ_OK) {
        dj_cut_destroy(cut);
        return status;
    }
    *cut_p = cut;
    return DJ_OK;
}

void dj_cut_destroy(dj_cut_t *cut)
{
    if (cut == NULL)
        return;
    free(cut->stages);
    free(cut->stage_of);
    free(cut->values);
    free(cut);
}
