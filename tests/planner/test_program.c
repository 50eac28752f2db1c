/* What is in a key and what is not; limits of the recorder. */
#include "tests/planner/builder.h"

typedef struct keys {
    dj_hash_t program, exact;
} keys_t;

/* relu(x @ w.T + b), x of `rows` rows; `position` is an offset into a state. */
static keys_t record(int rows, double scale, int position, dj_operand_class_t weight_class)
{
    dj_program_t program = {0};
    keys_t keys;
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_IMMEDIATE, shape(DJ_F32, 2, rows, 16));
    dj_operand_t w = input_of(&program, weight_class, shape(DJ_F32, 2, 8, 16));
    dj_operand_t cache = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 2, 64, 8));
    dj_arg_t linear[] = {arg_tensor(&x), arg_tensor(&w), arg_none()};
    dj_operand_t y = add_op(&program, "linear", linear);
    dj_operand_t number = number_operand(DJ_F64, scale);
    dj_operand_t z = add_binary(&program, "mul.Tensor", y, number);
    cache.view.sizes[0] = 1;
    cache.view.offset = position * 8;
    dj_operand_t out = add_binary(&program, "add.Tensor", z, cache);
    assert_ok(dj_program_finish(&program, &out.storage, 1, &keys.program, &keys.exact));
    dj_program_fini(&program);
    return keys;
}

static void sizes_share_a_program_key(void **state)
{
    keys_t a = record(32, 1.5, 3, DJ_CLASS_WEIGHT), b = record(40, 1.5, 3, DJ_CLASS_WEIGHT);
    assert_true(dj_hash_equal(a.program, b.program));
    assert_false(dj_hash_equal(a.exact, b.exact));
}

static void scalars_offsets_and_bindings_are_no_part_of_keys(void **state)
{
    /* Two fine-tunes record the very same bytes: what stands behind an input comes with a request. */
    keys_t a = record(32, 1.5, 3, DJ_CLASS_WEIGHT), b = record(32, 2.5, 17, DJ_CLASS_WEIGHT);
    assert_true(dj_hash_equal(a.program, b.program));
    assert_true(dj_hash_equal(a.exact, b.exact));
}

static void operand_class_is_part_of_the_key(void **state)
{
    keys_t a = record(32, 1.5, 3, DJ_CLASS_WEIGHT), b = record(32, 1.5, 3, DJ_CLASS_STATE);
    assert_false(dj_hash_equal(a.program, b.program));
}

static void output_set_is_part_of_the_key(void **state)
{
    dj_hash_t keys[2][2];
    for (uint32_t i = 0; i < 2; i++) {
        dj_program_t program = {0};
        dj_program_reset(&program);
        dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 4));
        dj_operand_t y = add_unary(&program, "exp", x);
        add_unary(&program, "neg", y);
        uint32_t outputs[] = {1, 2};
        assert_ok(dj_program_finish(&program, outputs + i, 1, &keys[i][0], &keys[i][1]));
        dj_program_fini(&program);
    }
    assert_false(dj_hash_equal(keys[0][0], keys[1][0]));
}

static void refuses_too_many_ops(void **state)
{
    dj_program_t program = {0};
    dj_view_t view = shape(DJ_F32, 0);
    uint32_t storage = 0;
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, view);
    dj_arg_t args[] = {arg_tensor(&x)};
    dj_call_t call = call_of("neg", args);
    dj_status_t status = DJ_OK;
    while (status == DJ_OK && program.n_nodes <= DJ_PROGRAM_NODES_MAX)
        status = dj_program_add(&program, &call, NULL, &storage);
    assert_int_equal(status, DJ_ERR_LIMIT);
    assert_true(program.n_nodes > 100000);
    dj_program_reset(&program);
    assert_int_equal(program.n_nodes, 0);
    dj_program_fini(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_too_many_ops),
        cmocka_unit_test(sizes_share_a_program_key),
        cmocka_unit_test(scalars_offsets_and_bindings_are_no_part_of_keys),
        cmocka_unit_test(operand_class_is_part_of_the_key),
        cmocka_unit_test(output_set_is_part_of_the_key),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
