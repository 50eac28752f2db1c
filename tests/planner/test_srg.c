/* The semantic view: costs against numbers counted by hand, lifecycles, alias classes, bounds. */
#include "planner/srg.h"
#include "tests/planner/random_program.h"

static void counts_totals(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_srg_t *srg;
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_IMMEDIATE, shape(DJ_F32, 2, 32, 16));
    dj_operand_t w = input_of(&program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 16, 8));
    dj_operand_t y = add_binary(&program, "mm", x, w);
    dj_operand_t z = add_unary(&program, "relu", y);
    finish(&program, &z.storage, 1);
    assert_ok(decode(&program, &graph));
    assert_ok(dj_srg_make(graph, NULL, DJ_PHASE_UNKNOWN, &srg));
    assert_true(srg->flops == 2.0 * 32 * 16 * 8 + 32 * 8);
    assert_int_equal(srg->bytes[DJ_LIFE_WEIGHT], 512);
    assert_int_equal(srg->bytes[DJ_LIFE_IMMEDIATE], 2048);
    assert_int_equal(srg->bytes[DJ_LIFE_STATE], 0);
    assert_int_equal(srg->bytes[DJ_LIFE_ACTIVATION], 1024);
    assert_int_equal(srg->bytes[DJ_LIFE_OUTPUT], 1024);
    assert_int_equal(srg->moved_bytes, 2048 + 512 + 1024 + 2048);
    assert_int_equal(srg->nodes[0].lifecycle, DJ_LIFE_ACTIVATION);
    assert_int_equal(srg->nodes[1].lifecycle, DJ_LIFE_OUTPUT);
    assert_true(srg->nodes[0].reduction == 1024.0f / 2560);
    assert_int_equal(srg->verdict.phase, DJ_PHASE_UNKNOWN);
    dj_srg_destroy(srg);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
}

static void bounds_by_roofline(void **state)
{
    const dj_roofline_t slow_memory = {.flops_per_ns = 1000, .bytes_per_ns = 1, .step_ns = 7};
    const dj_roofline_t slow_compute = {.flops_per_ns = 1, .bytes_per_ns = 1000};
    assert_int_equal(dj_roofline_bound(&slow_memory, 1000, 1000), DJ_BOUND_MEMORY);
    assert_int_equal(dj_roofline_bound(&slow_compute, 1000, 1000), DJ_BOUND_COMPUTE);
    assert_true(dj_roofline_ns(&slow_memory, 1000, 1000) == 1007);
    assert_true(dj_roofline_ns(&slow_compute, 1000, 1000) == 1000);
    const dj_roofline_t nothing = {0};
    assert_true(dj_roofline_ns(&nothing, 1e30, UINT64_MAX) == 0);
}

/* Every use of a storage is in its class, in program order, and none is anybody else's. */
static void classes_are_complete(void **state)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        dj_program_t program = {0};
        dj_graph_t *graph;
        dj_srg_t *srg;
        uint32_t n_uses = 0, n_listed = 0;
        random_program(&program, seed, 40);
        assert_ok(decode(&program, &graph));
        assert_ok(dj_srg_make(graph, NULL, DJ_PHASE_UNKNOWN, &srg));
        for (uint32_t i = 0; i < graph->n_nodes; i++) {
            n_uses += graph->nodes[i].n_outs;
            for (uint32_t a = 0; a < graph->nodes[i].call.n_args; a++) {
                const dj_arg_t *arg = &graph->nodes[i].call.args[a];
                for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++)
                    n_uses += arg->operands[j].storage < graph->n_storages;
            }
        }
        for (uint32_t s = 0; s < graph->n_storages; s++) {
            uint32_t count;
            const dj_srg_use_t *uses = dj_srg_uses(srg, s, &count);
            n_listed += count;
            for (uint32_t i = 0; i < count; i++) {
                const dj_node_t *node = &graph->nodes[uses[i].node];
                assert_true(i == 0 || uses[i - 1].node <= uses[i].node);
                if (uses[i].writes)
                    assert_int_equal(node->outs[uses[i].arg].storage, s);
                else
                    assert_int_equal(node->call.args[uses[i].arg].operands[uses[i].index].storage,
                                     s);
            }
        }
        assert_int_equal(n_uses, n_listed);
        dj_srg_destroy(srg);
        dj_graph_destroy(graph);
        dj_program_fini(&program);
    }
}

/* Rows of the op table that the cost model does not know by name. None today. */
static void knows_every_op(void **state)
{
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
        if (dj_op_traits(op).family == DJ_FAMILY_OTHER)
            fail_msg("%s is in no family (planner/family.c)", dj_op_info(op)->name);
}

static double flops_of(dj_program_t *program, dj_operand_t result)
{
    dj_graph_t *graph;
    double flops;
    uint64_t bytes;
    finish(program, &result.storage, 1);
    assert_ok(decode(program, &graph));
    dj_node_cost(graph, &graph->nodes[graph->n_nodes - 1], &flops, &bytes);
    dj_graph_destroy(graph);
    dj_program_fini(program);
    return flops;
}

static double attention_flops(int queries, int keys, int64_t causal)
{
    dj_program_t program = {0};
    dj_program_reset(&program);
    dj_operand_t q = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 4, 2, 3, queries, 16));
    dj_operand_t k = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 4, 2, 3, keys, 16));
    dj_arg_t args[] = {arg_tensor(&q), arg_tensor(&k),      arg_tensor(&k), arg_none(),
                       arg_real(0),    arg_integer(causal), arg_none(),     arg_integer(0)};
    return flops_of(&program, add_op(&program, "djinn::attention", args));
}

static void costs_attention(void **state)
{
    const double pair = 2.0 * 2 * 3 * 32; /* heads, both products */
    assert_true(attention_flops(5, 5, 0) == pair * 25);
    assert_true(attention_flops(5, 5, 1) == pair * 15);
    assert_true(attention_flops(2, 5, 1) == pair * 3);
    assert_true(attention_flops(5, 2, 1) == pair * (3 + 3 * 2));
}

static double convolution_flops(bool turned)
{
    static const int64_t ones[] = {1, 1}, zeros[] = {0, 0};
    dj_program_t program = {0};
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 4, 2, 6, 8, 8));
    dj_operand_t w =
        input_of(&program, DJ_CLASS_WEIGHT,
                 turned ? shape(DJ_F32, 4, 6, 5, 3, 3) : shape(DJ_F32, 4, 10, 3, 3, 3));
    dj_arg_t args[] = {arg_tensor(&x),        arg_tensor(&w),         arg_none(),
                       arg_integers(ones, 2), arg_integers(zeros, 2), arg_integers(ones, 2),
                       arg_integer(turned),   arg_integers(zeros, 2), arg_integer(2)};
    return flops_of(&program, add_op(&program, "convolution", args));
}

static void costs_convolutions(void **state)
{
    /* two groups: each of 10 filters over 3 channels, at 6 x 6 places */
    assert_true(convolution_flops(false) == 2.0 * 2 * 10 * 36 * (3 * 9));
    /* transposed: each of 6 x 64 inputs spread over 5 x 9 outputs */
    assert_true(convolution_flops(true) == 2.0 * 2 * 6 * 64 * (5 * 9));
}

static void a_lookup_reads_its_rows(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    uint64_t in, out;
    dj_program_reset(&program);
    dj_operand_t table = input_of(&program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 50000, 64));
    dj_operand_t ids = input_of(&program, DJ_CLASS_IMMEDIATE, shape(DJ_I64, 2, 2, 8));
    dj_arg_t args[] = {arg_tensor(&table), arg_tensor(&ids), arg_none(), arg_none(), arg_none()};
    dj_operand_t rows = add_op(&program, "embedding", args);
    finish(&program, &rows.storage, 1);
    assert_ok(decode(&program, &graph));
    dj_node_traffic(graph, &graph->nodes[0], &in, &out);
    assert_int_equal(out, 16 * 64 * 4);
    assert_int_equal(in, 16 * 64 * 4 + 16 * 8);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
}

static void a_hint_wins(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_srg_t *srg;
    uint8_t phase = 200;
    assert_int_equal(dj_phase_parse("sleep", &phase), DJ_ERR_INVALID);
    assert_int_equal(phase, 200);
    assert_ok(dj_phase_parse("speech", &phase));
    random_program(&program, 1, 20);
    assert_ok(decode(&program, &graph));
    assert_ok(dj_srg_make(graph, NULL, phase, &srg));
    assert_int_equal(srg->verdict.phase, DJ_PHASE_SPEECH);
    assert_true(srg->verdict.hinted && srg->verdict.confidence == 1);
    assert_int_equal(srg->nodes[0].phase, DJ_PHASE_SPEECH);
    dj_verdict_t verdict = srg->verdict;
    dj_srg_destroy(srg);
    verdict.phase = DJ_PHASE_DECODE;
    assert_ok(dj_srg_make_as(graph, NULL, &verdict, &srg));
    assert_int_equal(srg->verdict.phase, DJ_PHASE_DECODE);
    assert_int_equal(srg->nodes[0].phase, DJ_PHASE_DECODE);
    dj_srg_destroy(srg);
    assert_ok(dj_srg_make(graph, NULL, 77, &srg)); /* no such phase: no hint */
    assert_false(srg->verdict.hinted);
    dj_srg_destroy(srg);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hint_wins),        cmocka_unit_test(knows_every_op),
        cmocka_unit_test(counts_totals),      cmocka_unit_test(costs_attention),
        cmocka_unit_test(costs_convolutions), cmocka_unit_test(a_lookup_reads_its_rows),
        cmocka_unit_test(bounds_by_roofline), cmocka_unit_test(classes_are_complete),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
