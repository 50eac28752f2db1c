/* What weights alone feed leaves the graph, and the two halves together compute what the whole did. */
#include "planner/fold.h"
#include "planner/rewrite.h"
#include "tests/planner/random_program.h"
#include "tests/planner/simulate.h"

typedef struct halves {
    dj_program_t program;
    dj_graph_t *recorded, *graph, *twin;
} halves_t;

static void halves_open(halves_t *h)
{
    assert_ok(decode(&h->program, &h->recorded));
    assert_ok(decode(&h->program, &h->graph));
    assert_ok(decode(&h->program, &h->twin));
    assert_ok(dj_graph_fold(h->graph, h->twin));
    assert_int_equal(h->graph->n_folded, h->twin->n_folded);
    assert_ok(dj_graph_rewrite(h->graph, NULL, 0, NULL));
    assert_ok(dj_graph_rewrite(h->twin, NULL, 0, NULL));
    assert_ok(dj_graph_check(h->graph));
}

static void halves_close(halves_t *h)
{
    dj_graph_destroy(h->recorded);
    dj_graph_destroy(h->graph);
    dj_graph_destroy(h->twin);
    dj_program_fini(&h->program);
}

/* Runs the whole; then the twin, then the rest with what the twin left. */
static void halves_compare(const halves_t *h)
{
    machine_t whole, twin, rest;
    const uint64_t *scalars = (const uint64_t *)h->program.scalars.data;
    machine_init(&whole, h->recorded, NULL, scalars);
    machine_init(&twin, h->twin, NULL, scalars);
    machine_init(&rest, h->graph, NULL, scalars);
    run_machine(&whole, 0);
    run_machine(&twin, 0);
    for (uint32_t i = 0; i < h->graph->n_folded; i++) {
        uint32_t storage = h->graph->bindings[h->graph->n_bindings + i];
        assert_int_equal(storage, h->twin->bindings[h->twin->n_bindings + i]);
        assert_int_equal(h->graph->storages[storage].binding, h->graph->n_bindings + i);
        memcpy(rest.storages[storage], twin.storages[storage],
               h->graph->storages[storage].bytes * sizeof(uint64_t));
    }
    run_machine(&rest, 0);
    for (uint32_t i = 0; i < h->recorded->n_bindings; i++) {
        uint32_t storage = h->recorded->bindings[i];
        assert_memory_equal(whole.storages[storage], rest.storages[storage],
                            h->recorded->storages[storage].bytes * sizeof(uint64_t));
    }
    machine_fini(&whole);
    machine_fini(&twin);
    machine_fini(&rest);
}

static void random_programs_fold(void **state)
{
    uint32_t n_folded = 0, n_programs = 0;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        halves_t h = {0};
        random_program(&h.program, seed, 4 + seed % 40);
        halves_open(&h);
        halves_compare(&h);
        n_folded += h.graph->n_folded;
        n_programs += h.graph->n_folded > 0;
        halves_close(&h);
    }
    print_message("%u values folded in %u of 3000 programs\n", n_folded, n_programs);
    assert_true(n_programs > 300);
}

static void record(dj_program_t *program, bool outputs_it, bool writes_it)
{
    dj_program_reset(program);
    dj_operand_t x = input_of(program, DJ_CLASS_STATE, shape(DJ_F32, 2, 8, 16));
    dj_operand_t w = input_of(program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 16, 16));
    dj_operand_t one = number_operand(DJ_F64, 1);
    dj_arg_t plus[] = {arg_tensor(&w), arg_tensor(&one), arg_whole(1)};
    dj_operand_t scaled = add_op(program, "add.Tensor", plus); /* 1 + w, as some norms have it */
    dj_operand_t soft = add_unary(program, "tanh", scaled);
    if (writes_it) {
        dj_arg_t again[] = {arg_tensor(&soft)};
        add_into(program, "tanh", again, NULL);
    }
    dj_arg_t mm[] = {arg_tensor(&x), arg_tensor(&soft)};
    dj_operand_t y = add_op(program, "mm", mm);
    uint32_t outputs[] = {soft.storage, y.storage};
    finish(program, outputs + !outputs_it, 1 + outputs_it);
}

static void a_chain_over_a_weight_is_one_value(void **state)
{
    halves_t h = {0};
    record(&h.program, false, false);
    halves_open(&h);
    assert_int_equal(h.graph->n_folded, 1);
    assert_int_equal(h.graph->n_nodes, 1); /* the product alone is left for each request */
    assert_int_equal(h.twin->n_nodes, 2);
    halves_compare(&h);
    halves_close(&h);
}

static void what_is_an_output_or_written_is_not_folded(void **state)
{
    halves_t h = {0};
    record(&h.program, true, false);
    halves_open(&h);
    /* tanh's result is the request's own; what it reads still folds */
    assert_int_equal(h.graph->n_folded, 1);
    assert_int_equal(h.graph->n_nodes, 2);
    halves_compare(&h);
    halves_close(&h);
    h = (halves_t){0};
    record(&h.program, false, true);
    halves_open(&h);
    assert_int_equal(h.graph->n_folded, 1);
    assert_true(h.graph->n_nodes >= 2);
    halves_compare(&h);
    halves_close(&h);
}

/* A small weight spread over much: keeping it would cost more than making it. */
static void what_grows_is_not_folded(void **state)
{
    halves_t h = {0};
    dj_program_reset(&h.program);
    dj_operand_t w = input_of(&h.program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 1, 16));
    dj_operand_t x = input_of(&h.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 64, 16));
    dj_operand_t wide = w;
    wide.view.sizes[0] = 64;
    wide.view.strides[0] = 0;
    dj_operand_t much = add_unary(&h.program, "exp", wide);
    dj_operand_t y = add_binary(&h.program, "maximum", much, x);
    finish(&h.program, &y.storage, 1);
    halves_open(&h);
    assert_int_equal(h.graph->n_folded, 0);
    halves_close(&h);
}

/* Dropout on a weight draws anew at every request. */
static void what_is_random_is_not_folded(void **state)
{
    halves_t h = {0};
    dj_program_reset(&h.program);
    dj_operand_t w = input_of(&h.program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 16, 16));
    dj_operand_t x = input_of(&h.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 16, 16));
    dj_arg_t args[] = {arg_tensor(&w), arg_real(0.5), arg_none()};
    dj_operand_t left = add_op(&h.program, "native_dropout", args);
    dj_operand_t y = add_binary(&h.program, "maximum", left, x);
    finish(&h.program, &y.storage, 1);
    halves_open(&h);
    assert_int_equal(h.graph->n_folded, 0);
    halves_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_an_output_or_written_is_not_folded),
        cmocka_unit_test(what_grows_is_not_folded),
        cmocka_unit_test(what_is_random_is_not_folded),
        cmocka_unit_test(a_chain_over_a_weight_is_one_value),
        cmocka_unit_test(random_programs_fold),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
