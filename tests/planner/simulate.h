/* simulate.h - runs a graph twice, as recorded and as planned, on symbolic values.
 *
 * Memory is shadowed by one 64-bit value a byte. An op's result is a hash of its node, the element
 * and what it reads, so two runs agree only if every read saw the same write. The planned run is as
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
    uint64_t *stack;
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
    return slot != DJ_SLOT_NONE ? (int64_t)m->scalars[slot] : view->offset;
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

static inline void store(machine_t *m, uint64_t *memory, uint64_t byte, uint32_t item,
                         uint64_t value)
{
    for (uint32_t i = 0; i < item; i++)
        memory[byte + i] = mix(value, i + 1);
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
                                 uint64_t index, uint64_t value)
{
    store(m, memory, byte_of(m, &out->view, out->slot, &out->view, index),
          dj_dtype_bytes(out->view.dtype), value);
}

static inline void scribble(machine_t *m, const dj_output_t *out)
{
    for (int64_t i = 0; i < dj_view_count(&out->view); i++)
        write_element(m, out, m->storages[out->storage], (uint64_t)i, ++m->noise);
}

/* Elements [from, to) of an elementwise node, last first when planned. */
static inline void run_elements(machine_t *m, uint32_t number, uint64_t from, uint64_t to)
{
    const dj_node_t *node = &m->graph->nodes[number];
    const dj_output_t *out = &node->outs[0];
    for (uint64_t i = from; i < to; i++) {
        uint64_t index = m->plan != NULL ? from + to - 1 - i : i, value = mix(number + 1, index);
        for (uint32_t j = 0; j < node->call.n_args; j++) {
            const dj_arg_t *arg = &node->call.args[j];
            if (arg->kind != DJ_ARG_TENSORS || arg->operands[0].storage >= m->graph->n_storages)
                continue;
            const dj_operand_t *a = &arg->operands[0];
            value = mix(value, load(m->storages[a->storage],
                                    byte_of(m, &a->view, a->slot, &out->view, index),
                                    dj_dtype_bytes(a->view.dtype)));
        }
        write_element(m, out, m->storages[out->storage], index, value);
    }
}

/* The same through a buffer: as recorded, or staged. */
static inline void run_buffered(machine_t *m, uint32_t number, uint64_t *buffer, bool rewrites)
{
    const dj_node_t *node = &m->graph->nodes[number];
    const dj_output_t *out = &node->outs[0];
    bool elementwise = dj_op_is_elementwise(node->call.op);
    uint64_t everything = mix(number + 1, 99);
    for (uint32_t j = rewrites; j < node->call.n_args && !elementwise; j++)
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
        if (elementwise) {
            value = mix(number + 1, (uint64_t)i);
            for (uint32_t j = 0; j < node->call.n_args; j++) {
                const dj_operand_t *a = node->call.args[j].operands;
                if (node->call.args[j].kind == DJ_ARG_TENSORS &&
                    a->storage < m->graph->n_storages)
                    value = mix(value, load(m->storages[a->storage],
                                            byte_of(m, &a->view, a->slot, &out->view,
                                                    (uint64_t)i),
                                            dj_dtype_bytes(a->view.dtype)));
            }
        }
        buffer[i] = value;
    }
    for (uint32_t j = 1; j < node->n_outs; j++)
        for (int64_t i = 0; i < dj_view_count(&node->outs[j].view); i++)
            write_element(m, &node->outs[j], m->storages[node->outs[j].storage], (uint64_t)i,
                          mix(everything, (uint64_t)i + 7777 * j));
    for (int64_t i = 0; i < dj_view_count(&out->view); i++)
        write_element(m, out, m->storages[out->storage], (uint64_t)i, buffer[i]);
}

static inline void scribble_workspace(machine_t *m)
{
    for (uint64_t i = 0; i < m->plan->workspace_bytes; i++)
        store(m, m->stack, i, 1, ++m->noise);
}

static inline void run_step(machine_t *m, const dj_plan_step_t *step, uint64_t *buffer)
{
    const dj_node_t *node = &m->graph->nodes[step->node];
    bool rewrites = dj_op_info(node->call.op)->n_outs == 0;
    bool staged = step->staging != DJ_OFFSET_NONE;
    scribble_workspace(m);
    if (staged) { /* whatever the staging area overlaps is lost before anything is read */
        uint64_t bytes = dj_view_dense_bytes(&node->outs[0].view);
        for (uint64_t i = 0; i < bytes; i++)
            store(m, m->stack + step->staging, i, 1, ++m->noise);
    }
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
    uint64_t *buffer = calloc(largest_count(m->graph), sizeof *buffer);
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
        assert_non_null(m->stack);
    }
    for (uint32_t i = 0; i < graph->n_storages; i++) {
        const dj_storage_t *storage = &graph->storages[i];
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
}

/* True when the plan leaves every binding as the recorded program does. */
static inline bool simulate(const dj_graph_t *graph, const dj_plan_t *plan,
                            const uint64_t *scalars, uint64_t tile, uint64_t *touched_p)
{
    machine_t recorded, planned;
    bool same = true;
    machine_init(&recorded, graph, NULL, scalars);
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

#endif
