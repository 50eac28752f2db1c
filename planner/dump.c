/* dump.c - lines such as
 *     3 g2  aten::add.Tensor  %1.0 float32[8, 64], %7.1 float32[64] -> %8.1 float32[8, 64] @4096
 */
#include "planner/dump.h"

#include "planner/cost.h"
#include "planner/shape.h"

static const char *class_name(const dj_storage_t *storage)
{
    static const char *const names[] = {"weight", "state", "immediate"};
    return storage->is_input ? names[storage->input_class] : "output";
}

static void print_view(dj_bytes_t *text, uint32_t storage, uint32_t version, const dj_view_t *view,
                       uint32_t slot)
{
    char shape[DJ_VIEW_TEXT];
    dj_bytes_printf(text, "%%%u.%u %s", storage, version,
                    dj_view_format(view, shape, sizeof shape));
    if (!dj_view_is_contiguous(view))
        dj_bytes_printf(text, " strided");
    if (slot != DJ_SLOT_NONE)
        dj_bytes_printf(text, " from $%u", slot);
}

static void print_operand(dj_bytes_t *text, const dj_operand_t *operand)
{
    if (operand->storage == DJ_STORAGE_NONE)
        dj_bytes_printf(text, "none");
    else if (operand->storage == DJ_STORAGE_SCALAR)
        dj_bytes_printf(text, "$%u %s", operand->slot, dj_dtype_name(operand->view.dtype));
    else
        print_view(text, operand->storage, operand->version, &operand->view, operand->slot);
}

static void print_argument(dj_bytes_t *text, char letter, const dj_arg_t *arg)
{
    switch (arg->kind) {
    case DJ_ARG_TENSORS:
        for (uint32_t i = 0; i < arg->count; i++) {
            dj_bytes_printf(text, "%s", i > 0 ? ", " : "");
            print_operand(text, &arg->operands[i]);
        }
        break;
    case DJ_ARG_INTEGER:
        if (letter == 'y')
            dj_bytes_printf(text, "%s", dj_dtype_name((uint8_t)arg->integer));
        else
            dj_bytes_printf(text, "%lld", (long long)arg->integer);
        break;
    case DJ_ARG_INTEGERS:
        for (uint32_t i = 0; i < arg->count; i++)
            dj_bytes_printf(text, "%s%lld", i > 0 ? " " : "[", (long long)arg->integers[i]);
        dj_bytes_printf(text, "%s", arg->count > 0 ? "]" : "[]");
        break;
    case DJ_ARG_SCALAR:
        dj_bytes_printf(text, "$%u %s", arg->slot, dj_dtype_name(arg->scalar.dtype));
        break;
    default:
        dj_bytes_printf(text, "none");
        break;
    }
}

static void print_node(dj_bytes_t *text, const dj_node_t *node, const dj_plan_t *plan)
{
    const dj_op_info_t *info = dj_op_info(node->call.op);
    dj_bytes_printf(text, "%s", info->name);
    for (uint32_t i = 0, n = 0; i < node->call.n_args; i++) {
        if (info->signature[i] == '-')
            continue;
        dj_bytes_printf(text, "%s", n++ == 0 ? "  " : ", ");
        print_argument(text, info->signature[i], &node->call.args[i]);
    }
    for (uint32_t i = 0; i < node->n_outs; i++) {
        const dj_output_t *out = &node->outs[i];
        dj_bytes_printf(text, "%s%s", i == 0 ? " -> " : ", ",
                        out->target == DJ_TARGET_NEW ? "" : "into ");
        print_view(text, out->storage, out->version, &out->view, out->slot);
        if (plan != NULL && plan->offsets[out->storage] != DJ_OFFSET_NONE)
            dj_bytes_printf(text, " @%llu", (unsigned long long)plan->offsets[out->storage]);
    }
}

static void print_head(dj_bytes_t *text, const dj_graph_t *graph, const dj_plan_t *plan)
{
    char program[33], exact[33];
    double flops = 0;
    dj_hash_hex(graph->program_key, program);
    dj_hash_hex(graph->exact_key, exact);
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        double own;
        uint64_t bytes;
        dj_node_cost(graph, &graph->nodes[i], &own, &bytes);
        flops += own;
    }
    dj_bytes_printf(text, "program %s exact %s\n", program, exact);
    dj_bytes_printf(text, "nodes %u storages %u bindings %u scalars %u gflop %.3f\n",
                    graph->n_nodes, graph->n_storages, graph->n_bindings, graph->n_scalars,
                    flops / 1e9);
    if (plan != NULL)
        dj_bytes_printf(text,
                        "steps %u groups %u workspace %llu peak %llu bound %llu predicted_us %.1f "
                        "planning_us %.1f\n",
                        plan->n_steps, plan->n_groups, (unsigned long long)plan->workspace_bytes,
                        (unsigned long long)plan->peak_bytes,
                        (unsigned long long)plan->bound_bytes, (double)plan->predicted_ns / 1e3,
                        (double)plan->planning_ns / 1e3);
    for (uint32_t i = 0; i < graph->n_bindings; i++) {
        const dj_storage_t *storage = &graph->storages[graph->bindings[i]];
        dj_bytes_printf(text, "  %%%u %s%s %llu bytes\n", graph->bindings[i], class_name(storage),
                        storage->is_input && storage->is_output ? " written" : "",
                        (unsigned long long)storage->bytes);
    }
}

void dj_graph_print(const dj_graph_t *graph, const dj_plan_t *plan, dj_bytes_t *text)
{
    print_head(text, graph, plan);
    for (uint32_t i = 0; plan == NULL && i < graph->n_nodes; i++) {
        dj_bytes_printf(text, "  %u ", i);
        print_node(text, &graph->nodes[i], NULL);
        dj_bytes_printf(text, "\n");
    }
    for (uint32_t i = 0; plan != NULL && i < plan->n_steps; i++) {
        const dj_plan_step_t *step = &plan->steps[i];
        dj_bytes_printf(text, "  %u g%u ", step->node, step->group);
        print_node(text, &graph->nodes[step->node], plan);
        if (step->staging != DJ_OFFSET_NONE)
            dj_bytes_printf(text, " staged @%llu", (unsigned long long)step->staging);
        dj_bytes_printf(text, "\n");
    }
}
