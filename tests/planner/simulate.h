/* simulate.h - runs a program twice, as recorded and as rewritten and planned, on symbolic values.
 *
 * Memory is shadowed by one 64-bit value a byte. An op's result is a hash of the op with its attributes,
 * the element and what it reads, so two runs agree only if every read saw the same write; copies and
 * concatenations move the shadows themselves. The planned run is as
 * unfriendly as the plan allows: it scribbles over the workspace at every step, over every output
 * before a kernel that is not elementwise reads, walks elements backwards, and runs fusion groups
 * tile by tile. No code is shared with the planner or its proof. */
#ifndef DJ_TESTS_PLANNER_SIMULATE_H
#define DJ_TESTS_PLANNER_SIMULATE_H

#include "tests/planner/builder.h"

typedef struct machine {
    const dj_graph_t *graph;
    const dj_plan_t *plan; /* NULL: as recorded, every storage on its own */
    const uint64_t *scalars;
    uint64_t **storages;   /* of each storage; those in Stack point into it */
    uint64_t *stack, *spill;
    uint64_t touched;      /* highest byte of Stack written, plus one */
    uint64_t noise;
} machine_t;

static inline uint64_t mix(uint64_t a, uint64_t b)
{
    a = (a ^ b) * 0x9e3779b97f4a7c15ull;
    return a ^ a >> 29;
}

static inline int64_t offset_of(const machine_t *m, const dj_view_t *view, uint32_t slot)
{
    return view->offset + (slot != DJ_SLOT_NONE ? (int64_t)m->scalars[slot] : 0);
}

/* Byte of element `index` (row-major over `shape`) in a view broadcast to it. */
static inline uint64_t byte_of(const machine_t *m, const dj_view_t *view, uint32_t slot,
                               const dj_view_t *shape_view, uint64_t index)
{
    int64_t at = offset_of(m, view, slot);
    for (uint32_t i = shape_view->rank; i-- > 0;) {
        int64_t coordinate = (int64_t)(index % (uint64_t)shape_view->sizes[i]);
        index /= (uint64_t)shape_view->sizes[i];
        uint32_t lead = shape_view->rank - view->rank;
        if (i >= lead && view->sizes[i - lead] != 1)
            at += coordinate * view->strides[i - lead];
    }
    return (uint64_t)at * dj_dtype_bytes(view->dtype);
}

static inline uint64_t load(const uint64_t *memory, uint64_t byte, uint32_t item)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < item; i++)
        value = mix(value, memory[byte + i]);
    return value;
}

/* The shadows of one element's bytes. */
typedef struct element {
    uint64_t bytes[16];
} element_t;

static inline element_t element_of(uint64_t value)
{
    element_t element;
    for (uint32_t i = 0; i < 16; i++)
        element.bytes[i] = mix(value, i + 1);
    return element;
}

static inline void store(machine_t *m, uint64_t *memory, uint64_t byte, uint32_t item,
                         const element_t *element)
{
    memcpy(memory + byte, element->bytes, item * sizeof(uint64_t));
    if (m->plan != NULL && memory >= m->stack && memory <= m->stack + m->plan->peak_bytes) {
        uint64_t end = (uint64_t)(memory - m->stack) + byte + item;
        assert_true(end <= m->plan->peak_bytes);
        m->touched = end > m->touched ? end : m->touched;
    }
}

static inline uint64_t read_all(const machine_t *m, const dj_operand_t *operand)
{
    uint64_t value = 1;
    if (operand->storage >= m->graph->n_storages)
        return value;
    for (int64_t i = 0; i < dj_view_count(&operand->view); i++)
        value = mix(value, load(m->storages[operand->storage],
                                byte_of(m, &operand->view, operand->slot, &operand->view,
                                        (uint64_t)i),
                                dj_dtype_bytes(operand->view.dtype)));
    return value;
}

static inline void write_element(machine_t *m, const dj_output_t *out, uint64_t *memory,
                                 uint64_t index, const element_t *element)
{
    store(m, memory, byte_of(m, &out->view, out->slot, &out->view, index),
          dj_dtype_bytes(out->view.dtype), element);
}

static inline void scribble(machine_t *m, const dj_output_t *out)
{
    for (int64_t i = 0; i < dj_view_count(&out->view); i++) {
        element_t noise = element_of(++m->noise);
        write_element(m, out, m->storages[out->storage], (uint64_t)i, &noise);
    }
}

/* What an op is, wherever it stands: the op, its attributes and its scalars. */
static inline uint64_t identity(const dj_node_t *node)
{
    uint64_t value = mix(77, node->call.op);
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        value = mix(value, arg->kind);
        if (arg->kind == DJ_ARG_INTEGER)
            value = mix(value, (uint64_t)arg->integer);
        for (uint32_t j = 0; arg->kind == DJ_ARG_INTEGERS && j < arg->count; j++)
            value = mix(value, (uint64_t)arg->integers[j]);
        if (arg->kind == DJ_ARG_SCALAR)
            value = mix(value, arg->slot);
        if (arg->kind == DJ_ARG_TENSORS && arg->operands[0].storage == DJ_STORAGE_SCALAR)
            value = mix(value, arg->operands[0].slot);
    }
    return value;
}

/* One element moved into a tensor of type `dtype`: as it is, or converted. */
static inline element_t move_element(const machine_t *m, const dj_operand_t *from,
                                     const dj_view_t *shape_view, uint64_t index, uint8_t dtype)
{
    uint64_t byte = byte_of(m, &from->view, from->slot, shape_view, index);
    uint32_t item = dj_dtype_bytes(from->view.dtype);
    element_t element = {{0}};
    if (from->view.dtype != dtype)
        return element_of(mix(dtype, load(m->storages[from->storage], byte, item)));
    memcpy(element.bytes, m->storages[from->storage] + byte, item * sizeof(uint64_t));
    return element;
}

/* Element `index` of an elementwise node. */
static inline element_t compute_element(const machine_t *m, const dj_node_t *node, uint64_t index)
{
    const dj_view_t *out = &node->outs[0].view;
    const dj_operand_t *first = &node->call.args[0].operands[0];
    if (!dj_op_info(node->call.op)->pointwise && first->storage < m->graph->n_storages)
        return move_element(m, first, out, index, out->dtype);
    uint64_t value = mix(identity(node), index);
    for (uint32_t j = 0; j < node->call.n_args; j++) {
        const dj_operand_t *a = node->call.args[j].operands;
        if (node->call.args[j].kind == DJ_ARG_TENSORS && a->storage < m->graph->n_storages)
            value = mix(value, load(m->storages[a->storage],
                                    byte_of(m, &a->view, a->slot, out, index),
                                    dj_dtype_bytes(a->view.dtype)));
    }
    return element_of(value);
}

/* Element `index` of a concatenation. */
static inline element_t concat_element(const machine_t *m, const dj_node_t *node, uint64_t index)
{
    const dj_view_t *out = &node->outs[0].view;
    int64_t dim = node->call.args[1].integer, at, inner = 1;
    dim = dim < 0 ? dim + out->rank : dim;
    for (uint32_t i = (uint32_t)dim + 1; i < out->rank; i++)
        inner *= out->sizes[i];
    at = (int64_t)index / inner % out->sizes[dim];
    for (uint32_t i = 0;; i++) {
        const dj_operand_t *part = &node->call.args[0].operands[i];
        int64_t size = part->view.rank == out->rank ? part->view.sizes[dim] : 0;
        if (at >= size) {
            at -= size;
            continue;
        }
        int64_t outer = (int64_t)index / inner / out->sizes[dim];
        uint64_t inside = (uint64_t)((outer * size + at) * inner + (int64_t)index % inner);
        return move_element(m, part, &part->view, inside, out->dtype);
    }
}

/* Elements [from, to) of an elementwise node, last first when planned. */
static inline void run_elements(machine_t *m, uint32_t number, uint64_t from, uint64_t to)
{
    const dj_node_t *node = &m->graph->nodes[number];
    const dj_output_t *out = &node->outs[0];
    for (uint64_t i = from; i < to; i++) {
        uint64_t index = m->plan != NULL ? from + to - 1 - i : i;
        element_t element = compute_element(m, node, index);
        write_element(m, out, m->storages[out->storage], index, &element);
    }
}

/* The same through a buffer: as recorded, or staged. */
static inline void run_buffered(machine_t *m, uint32_t number, element_t *buffer, bool rewrites)
{
    const dj_node_t *node = &m->graph->nodes[number];
    const dj_output_t *out = &node->outs[0];
    bool elementwise = dj_op_is_elementwise(node->call.op), concat = node->call.op == DJ_OP_CAT;
    uint64_t everything = mix(identity(node), 99);
    for (uint32_t j = rewrites; j < node->call.n_args && !elementwise && !concat; j++)
        for (uint32_t k = 0; node->call.args[j].kind == DJ_ARG_TENSORS &&
                             k < node->call.args[j].count; k++)
            everything = mix(everything, read_all(m, &node->call.args[j].operands[k]));
    uint32_t item = dj_dtype_bytes(out->view.dtype);
    for (int64_t i = 0; i < dj_view_count(&out->view); i++) {
        uint64_t value = mix(everything, (uint64_t)i);
        if (rewrites)
            value = mix(value, load(m->storages[out->storage],
                                    byte_of(m, &out->view, out->slot, &out->view, (uint64_t)i),
                                    item));
        buffer[i] = elementwise ? compute_element(m, node, (uint64_t)i)
                    : concat    ? concat_element(m, node, (uint64_t)i)
                                : element_of(value);
    }
    for (uint32_t j = 1; j < node->n_outs; j++)
        for (int64_t i = 0; i < dj_view_count(&node->outs[j].view); i++) {
            element_t element = element_of(mix(everything, (uint64_t)i + 7777 * j));
            write_element(m, &node->outs[j], m->storages[node->outs[j].storage], (uint64_t)i,
                          &element);
        }
    for (int64_t i = 0; i < dj_view_count(&out->view); i++)
        write_element(m, out, m->storages[out->storage], (uint64_t)i, &buffer[i]);
}

static inline void scribble_bytes(machine_t *m, uint64_t *memory, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        element_t noise = element_of(++m->noise);
        store(m, memory, i, 1, &noise);
    }
}

static inline void scribble_workspace(machine_t *m)
{
    scribble_bytes(m, m->stack, m->plan->workspace_bytes);
}

static inline void run_step(machine_t *m, const dj_plan_step_t *step, element_t *buffer)
{
    const dj_node_t *node = &m->graph->nodes[step->node];
    bool rewrites = dj_op_info(node->call.op)->n_outs == 0;
    bool staged = step->staging != DJ_OFFSET_NONE;
    scribble_workspace(m);
    if (staged) /* whatever the staging area overlaps is lost before anything is read */
        scribble_bytes(m, m->stack + step->staging, dj_view_dense_bytes(&node->outs[0].view));
    for (uint32_t j = staged || rewrites; j < node->n_outs; j++)
        if (j > 0 || !dj_op_is_elementwise(node->call.op))
            scribble(m, &node->outs[j]);
    if (dj_op_is_elementwise(node->call.op) && !staged)
        run_elements(m, step->node, 0, (uint64_t)dj_view_count(&node->outs[0].view));
    else
        run_buffered(m, step->node, buffer, rewrites);
}

static inline void run_group(machine_t *m, uint32_t first, uint32_t last, uint64_t tile)
{
    uint64_t count =
        (uint64_t)dj_view_count(&m->graph->nodes[m->plan->steps[first].node].outs[0].view);
    for (uint64_t from = 0; from < count; from += tile)
        for (uint32_t i = first; i <= last; i++) {
            scribble_workspace(m);
            run_elements(m, m->plan->steps[i].node, from,
                         from + tile < count ? from + tile : count);
        }
}

static inline uint64_t largest_count(const dj_graph_t *graph)
{
    uint64_t largest = 1;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        uint64_t count = (uint64_t)dj_view_count(&graph->nodes[i].outs[0].view);
        largest = count > largest ? count : largest;
    }
    return largest;
}

static inline void run_machine(machine_t *m, uint64_t tile)
{
    element_t *buffer = calloc(largest_count(m->graph), sizeof *buffer);
    assert_non_null(buffer);
    if (m->plan == NULL) {
        for (uint32_t i = 0; i < m->graph->n_nodes; i++)
            run_buffered(m, i, buffer,
                         dj_op_info(m->graph->nodes[i].call.op)->n_outs == 0);
    } else {
        for (uint32_t i = 0, last; i < m->plan->n_steps; i = last + 1) {
            for (last = i; last + 1 < m->plan->n_steps &&
                           m->plan->steps[last + 1].group == m->plan->steps[i].group;)
                last++;
            if (last > i)
                run_group(m, i, last, tile);
            else
                run_step(m, &m->plan->steps[i], buffer);
        }
    }
    free(buffer);
}

static inline void machine_init(machine_t *m, const dj_graph_t *graph, const dj_plan_t *plan,
                                const uint64_t *scalars)
{
    *m = (machine_t){.graph = graph, .plan = plan, .scalars = scalars, .noise = 1ull << 60};
    m->storages = calloc(graph->n_storages + 1, sizeof m->storages[0]);
    assert_non_null(m->storages);
    if (plan != NULL) {
        m->stack = calloc(plan->peak_bytes + 1, sizeof m->stack[0]);
        m->spill = calloc(plan->spill_bytes + 1, sizeof m->spill[0]);
        assert_true(m->stack != NULL && m->spill != NULL);
    }
    for (uint32_t i = 0; i < graph->n_storages; i++) {
        const dj_storage_t *storage = &graph->storages[i];
        if (plan != NULL && storage->binding == DJ_SLOT_NONE && storage->is_spilled) {
            if (plan->offsets[i] != DJ_OFFSET_NONE)
                m->storages[i] = m->spill + plan->offsets[i];
            continue;
        }
        if (plan != NULL && storage->binding == DJ_SLOT_NONE) {
            if (plan->offsets[i] != DJ_OFFSET_NONE)
                m->storages[i] = m->stack + plan->offsets[i];
            continue;
        }
        m->storages[i] = calloc(storage->bytes + 1, sizeof(uint64_t));
        assert_non_null(m->storages[i]);
        for (uint64_t j = 0; storage->is_input && j < storage->bytes; j++)
            m->storages[i][j] = mix(i + 1000, j);
    }
}

static inline void machine_fini(machine_t *m)
{
    for (uint32_t i = 0; i < m->graph->n_storages; i++)
        if (m->plan == NULL || m->graph->storages[i].binding != DJ_SLOT_NONE)
            free(m->storages[i]);
    free(m->storages);
    free(m->stack);
    free(m->spill);
}

/* True when the plan of the graph, which may be a rewritten one, leaves every binding as the recorded
 * program does. */
static inline bool simulate_rewritten(const dj_graph_t *recorded_graph, const dj_graph_t *graph,
                                      const dj_plan_t *plan, const uint64_t *scalars, uint64_t tile,
                                      uint64_t *touched_p)
{
    machine_t recorded, planned;
    bool same = true;
    machine_init(&recorded, recorded_graph, NULL, scalars);
    machine_init(&planned, graph, plan, scalars);
    run_machine(&recorded, 0);
    run_machine(&planned, tile);
    for (uint32_t i = 0; i < graph->n_bindings; i++) {
        uint32_t storage = graph->bindings[i];
        same &= memcmp(recorded.storages[storage], planned.storages[storage],
                       graph->storages[storage].bytes * sizeof(uint64_t)) == 0;
    }
    *touched_p = planned.touched;
    machine_fini(&recorded);
    machine_fini(&planned);
    return same;
}

static inline bool simulate(const dj_graph_t *graph, const dj_plan_t *plan,
                            const uint64_t *scalars, uint64_t tile, uint64_t *touched_p)
{
    return simulate_rewritten(graph, graph, plan, scalars, tile, touched_p);
}

#endif
