/* cost.c - what a node costs, and how long a device class needs for it. */
#include "planner/cost.h"

#include "planner/shape.h"

/* Operations an element: mean, variance and scale of a norm; maximum, exp, sum and division of a
 * softmax; the four neighbours of a bilinear sample. */
enum { NORM_FACTOR = 8, SOFTMAX_FACTOR = 12, SAMPLE_FACTOR = 8, VARIANCE_FACTOR = 3 };

static bool has_tensor(const dj_node_t *node, uint32_t arg)
{
    return arg < node->call.n_args && dj_call_has(&node->call, arg);
}

static double count_of(const dj_node_t *node, uint32_t arg)
{
    return has_tensor(node, arg) ? (double)dj_view_count(dj_call_view(&node->call, arg)) : 0;
}

static double out_count(const dj_node_t *node)
{
    double count = 0;
    for (uint32_t i = 0; i < node->n_outs; i++)
        count += (double)dj_view_count(&node->outs[i].view);
    return count;
}

/* Elements of the largest tensor that the node touches. */
static double largest_count(const dj_node_t *node)
{
    int64_t largest = 0;
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++) {
            if (arg->operands[j].storage == DJ_STORAGE_NONE)
                continue;
            int64_t count = dj_view_count(&arg->operands[j].view);
            largest = count > largest ? count : largest;
        }
    }
    for (uint32_t i = 0; i < node->n_outs; i++) {
        int64_t count = dj_view_count(&node->outs[i].view);
        largest = count > largest ? count : largest;
    }
    return (double)largest;
}

/* Pairs of a query and a key that are looked at. Causal: the first query sees the first key alone.
 */
static double attention_pairs(double queries, double keys, bool causal)
{
    if (!causal)
        return queries * keys;
    double steps = queries < keys ? queries : keys;
    return steps * (steps + 1) / 2 + (queries - steps) * keys;
}

/* Two matrix products. */
static double attention_flops(const dj_node_t *node)
{
    const dj_view_t *q = dj_call_view(&node->call, 0), *v = dj_call_view(&node->call, 2);
    if (q->rank < 2 || v->rank < 2)
        return largest_count(node);
    bool causal = node->call.n_args > 5 && node->call.args[5].kind == DJ_ARG_INTEGER &&
                  node->call.args[5].integer != 0;
    double pairs =
        attention_pairs((double)q->sizes[q->rank - 2], (double)v->sizes[v->rank - 2], causal);
    double heads = 1;
    for (uint32_t i = 0; i + 2 < q->rank; i++)
        heads *= (double)q->sizes[i];
    return 2 * heads * pairs * (double)(q->sizes[q->rank - 1] + v->sizes[v->rank - 1]);
}

/* The left factor: its last dimension is the one that is summed. */
static double product_flops(const dj_node_t *node)
{
    bool adds = node->call.op == DJ_OP_ADDMM || node->call.op == DJ_OP_BADDBMM;
    uint32_t left = adds ? 1 : 0;
    if (!has_tensor(node, left))
        return largest_count(node);
    const dj_view_t *view = dj_call_view(&node->call, left);
    return 2 * out_count(node) * (double)(view->rank > 0 ? view->sizes[view->rank - 1] : 1);
}

/* Each output (or, transposed, each input) element meets one filter of its group. */
static double convolution_flops(const dj_node_t *node, bool backward)
{
    uint32_t data = backward ? 1 : 0, weight = data + 1, transposed = backward ? 7 : 6;
    if (!has_tensor(node, data) || !has_tensor(node, weight))
        return largest_count(node);
    const dj_view_t *filters = dj_call_view(&node->call, weight);
    if (filters->rank == 0 || filters->sizes[0] == 0)
        return 0;
    double filter = (double)dj_view_count(filters) / (double)filters->sizes[0];
    bool turned = node->call.n_args > transposed &&
                  node->call.args[transposed].kind == DJ_ARG_INTEGER &&
                  node->call.args[transposed].integer != 0;
    double places = turned     ? count_of(node, data)
                    : backward ? count_of(node, 0)
                               : (double)dj_view_count(&node->outs[0].view);
    return 2 * places * filter * (backward ? 2 : 1);
}

/* A window is what the kernel argument says, or, when adaptive, what the input has to each output.
 */
static double pool_flops(const dj_node_t *node, bool backward)
{
    const dj_arg_t *window = &node->call.args[backward ? 2 : 1];
    double taps = 1, places = (double)dj_view_count(&node->outs[0].view);
    const char *name = dj_op_info(node->call.op)->name;
    if (strstr(name, "adaptive") != NULL || backward)
        return largest_count(node);
    for (uint32_t i = 0; window->kind == DJ_ARG_INTEGERS && i < window->count; i++)
        taps *= (double)window->integers[i];
    return places * taps;
}

/* Each slice is sorted by comparing: n log2 n, or n log2 k where only k are wanted. */
static double sort_flops(const dj_node_t *node)
{
    double count = largest_count(node), levels = 1;
    const dj_view_t *view = has_tensor(node, 0) ? dj_call_view(&node->call, 0) : NULL;
    int64_t length = view != NULL && view->rank > 0 ? view->sizes[view->rank - 1] : 1;
    if (node->call.op == DJ_OP_TOPK && node->call.args[1].kind == DJ_ARG_INTEGER)
        length = node->call.args[1].integer;
    for (; length > 1; length /= 2)
        levels++;
    return count * levels;
}

/* 5 n log2 n of a fast Fourier transform, along all dimensions together. */
static double transform_flops(const dj_node_t *node)
{
    double count = largest_count(node), levels = 1;
    for (double length = count; length > 2; length /= 2)
        levels++;
    return 5 * count * levels;
}

/* Rows of a bag are summed; a plain gather only moves. */
static double embedding_flops(const dj_node_t *node)
{
    if (node->call.op == DJ_OP_EMBEDDING || !has_tensor(node, 0))
        return 0;
    const dj_view_t *table = dj_call_view(&node->call, 0);
    return count_of(node, 1) * (double)(table->rank > 0 ? table->sizes[table->rank - 1] : 1);
}

/* Pairs of rows, times their length, times difference, power and sum. */
static double distance_flops(const dj_node_t *node)
{
    const dj_view_t *rows = has_tensor(node, 0) ? dj_call_view(&node->call, 0) : NULL;
    return 3 * out_count(node) *
           (double)(rows != NULL && rows->rank > 0 ? rows->sizes[rows->rank - 1] : 1);
}

static double node_flops(const dj_node_t *node)
{
    dj_op_traits_t traits = dj_op_traits(node->call.op);
    switch (traits.family) {
    case DJ_FAMILY_PRODUCT:
        return product_flops(node);
    case DJ_FAMILY_CONVOLUTION:
        return convolution_flops(node, traits.backward);
    case DJ_FAMILY_ATTENTION:
        return attention_flops(node);
    case DJ_FAMILY_NORM:
        return NORM_FACTOR * largest_count(node);
    case DJ_FAMILY_SOFTMAX:
        return SOFTMAX_FACTOR * largest_count(node);
    case DJ_FAMILY_RESAMPLE:
        return SAMPLE_FACTOR * out_count(node);
    case DJ_FAMILY_POOL:
        return pool_flops(node, traits.backward);
    case DJ_FAMILY_SORT:
        return sort_flops(node);
    case DJ_FAMILY_DISTANCE:
        return distance_flops(node);
    case DJ_FAMILY_TRANSFORM:
        return transform_flops(node);
    case DJ_FAMILY_EMBEDDING:
        return embedding_flops(node);
    case DJ_FAMILY_COPY:
    case DJ_FAMILY_CREATE:
    case DJ_FAMILY_LAYOUT:
    case DJ_FAMILY_GATHER:
        return 0;
    case DJ_FAMILY_REDUCE:
        return largest_count(node) * (node->call.op == DJ_OP_VAR ? VARIANCE_FACTOR : 1);
    default:
        return largest_count(node) * (traits.transcendental ? DJ_COST_FUNCTION : 1);
    }
}

static uint64_t operand_bytes(const dj_graph_t *graph, const dj_operand_t *operand)
{
    if (operand->storage >= graph->n_storages)
        return 0;
    uint64_t dense = dj_view_dense_bytes(&operand->view);
    uint64_t held = graph->storages[operand->storage].bytes;
    return dense < held ? dense : held; /* a broadcast is read once */
}

/* Of the first operand an op of these families reads what the others name, no more. */
static bool reads_part(uint8_t family, const dj_node_t *node)
{
    return family == DJ_FAMILY_EMBEDDING || family == DJ_FAMILY_GATHER ||
           (family == DJ_FAMILY_SCATTER && dj_op_info(node->call.op)->n_outs == 0);
}

static uint64_t written_bytes(const dj_node_t *node, uint64_t operands)
{
    uint64_t bytes = 0;
    if (dj_op_info(node->call.op)->n_outs == 0)
        return operands; /* as much as its source has; the rest stays untouched */
    for (uint32_t i = 0; i < node->n_outs; i++)
        bytes += dj_view_dense_bytes(&node->outs[i].view);
    return bytes;
}

void dj_node_traffic(const dj_graph_t *graph, const dj_node_t *node, uint64_t *in_p,
                     uint64_t *out_p)
{
    uint8_t family = dj_op_traits(node->call.op).family;
    uint64_t first = 0, others = 0;
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++)
            *(i == 0 ? &first : &others) += operand_bytes(graph, &arg->operands[j]);
    }
    uint64_t written = written_bytes(node, others);
    if (reads_part(family, node) && first > written)
        first = written;
    if (node->call.op == DJ_OP_EMPTY)
        written = 0; /* nothing is written, only promised */
    *in_p = first + others;
    *out_p = written;
}

void dj_node_cost(const dj_graph_t *graph, const dj_node_t *node, double *flops_p,
                  uint64_t *bytes_p)
{
    uint64_t in, out;
    dj_node_traffic(graph, node, &in, &out);
    *bytes_p = in + out;
    *flops_p = node_flops(node);
}

static double compute_ns(const dj_roofline_t *roofline, double flops)
{
    return roofline->flops_per_ns > 0 ? flops / roofline->flops_per_ns : 0;
}

static double memory_ns(const dj_roofline_t *roofline, uint64_t bytes)
{
    return roofline->bytes_per_ns > 0 ? (double)bytes / roofline->bytes_per_ns : 0;
}

double dj_roofline_ns(const dj_roofline_t *roofline, double flops, uint64_t bytes)
{
    double compute = compute_ns(roofline, flops), memory = memory_ns(roofline, bytes);
    return (compute > memory ? compute : memory) + (double)roofline->step_ns;
}

dj_bound_t dj_roofline_bound(const dj_roofline_t *roofline, double flops, uint64_t bytes)
{
    return compute_ns(roofline, flops) > memory_ns(roofline, bytes) ? DJ_BOUND_COMPUTE
                                                                    : DJ_BOUND_MEMORY;
}
