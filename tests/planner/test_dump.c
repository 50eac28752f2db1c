/* The listing names what a reader looks for, with and without a plan, for any random program. */
#include "planner/dump.h"
#include "tests/planner/random_program.h"

static void lists_everything(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_plan_t *plan;
    dj_plan_needs_t needs = {0};
    dj_bytes_t text = {0};
    dj_program_reset(&program);
    dj_operand_t w = input_of(&program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 64, 16));
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 2, 8, 16));
    dj_arg_t linear[] = {arg_tensor(&x), arg_tensor(&w), arg_none()};
    dj_operand_t y = add_op(&program, "linear", linear), z = add_unary(&program, "relu", y);
    finish(&program, &z.storage, 1);
    assert_ok(decode(&program, &graph));
    assert_ok(dj_plan_make(graph, &needs, &plan));
    dj_graph_print(graph, plan, &text);
    dj_bytes_put_u8(&text, 0);
    const char *listing = (const char *)text.data;
    assert_non_null(strstr(listing, "%0 weight 4096 bytes"));
    assert_non_null(strstr(listing, "%1 state 512 bytes"));
    assert_non_null(strstr(listing, "%3 output 2048 bytes"));
    assert_non_null(strstr(listing, "peak 2048 bound 2048"));
    assert_non_null(strstr(listing, "aten::linear  %1.0 float32[8, 16], %0.0 float32[64, 16], none "
                                    "-> %2.1 float32[8, 64] @0"));
    dj_plan_destroy(plan);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
    dj_bytes_fini(&text);
}

static void survives_random_programs(void **state)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        dj_program_t program = {0};
        dj_graph_t *graph;
        dj_bytes_t text = {0};
        random_program(&program, seed, 30);
        assert_ok(decode(&program, &graph));
        dj_graph_print(graph, NULL, &text);
        assert_false(text.failed);
        uint32_t n_lines = 0;
        for (size_t i = 0; i < text.size; i++)
            n_lines += text.data[i] == '\n';
        assert_int_equal(n_lines, 2 + graph->n_bindings + graph->n_nodes);
        dj_graph_destroy(graph);
        dj_program_fini(&program);
        dj_bytes_fini(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survives_random_programs),
        cmocka_unit_test(lists_everything),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
