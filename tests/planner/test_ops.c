/* The table's own consistency, lookup, and calls that do not fit their signature. */
#include "tests/planner/builder.h"

static void refuses_bad_calls(void **state)
{
    dj_view_t outs[DJ_OUTS_MAX];
    dj_operand_t a = operand_of(0, shape(DJ_F32, 2, 3, 4));
    dj_operand_t none = operand_of(DJ_STORAGE_NONE, a.view);
    dj_operand_t number = number_operand(DJ_F64, 1);
    dj_arg_t args[DJ_ARGS_MAX] = {arg_tensor(&a), arg_tensor(&a)};
    dj_call_t call = call_of("mul.Tensor", args);
    assert_ok(dj_op_infer(&call, outs));
    call.n_args = 1;
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_INVALID);
    call.n_args = 2;
    args[1] = arg_integer(3);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_INVALID);
    args[1] = arg_tensor(&none);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_INVALID);
    args[1] = arg_list(&a, 0);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_INVALID);
    a.view.rank = 9;
    args[1] = arg_tensor(&a);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_LIMIT);
    assert_non_null(strstr(dj_error_text(), "aten::mul.Tensor"));
    a.view.rank = 2;
    call.op = DJ_OP_COUNT;
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_UNSUPPORTED);

    args[0] = arg_tensor(&number); /* numbers stand in for tensors of pointwise ops alone */
    args[1] = arg_tensor(&a);
    call = call_of("mul.Tensor", args);
    assert_ok(dj_op_infer(&call, outs));
    call = call_of("mm", args);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_INVALID);
}

static void refuses_bad_attributes(void **state)
{
    dj_view_t outs[DJ_OUTS_MAX];
    dj_operand_t a = operand_of(0, shape(DJ_F32, 2, 3, 4)), many[DJ_LIST_MAX + 1];
    int64_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    dj_arg_t args[DJ_ARGS_MAX] = {arg_integers(sizes, 9), arg_integer(DJ_F32)};
    dj_call_t call = call_of("djinn::empty", args);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_LIMIT); /* rank 9 */
    args[0] = arg_integers(sizes, 2);
    args[1] = arg_integer(17);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_DTYPE);
    args[1] = arg_integer(DJ_F32);
    sizes[0] = -1;
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_LIMIT);
    sizes[0] = sizes[1] = sizes[2] = 1ll << 40; /* the product overflows 64 bits */
    args[0] = arg_integers(sizes, 3);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_LIMIT);
    sizes[2] = 0;
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_LIMIT);

    args[0] = arg_tensor(&a);
    args[1] = arg_integer(2);
    args[2] = arg_integer(2); /* a flag that is neither */
    call = call_of("_softmax", args);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_INVALID);
    args[2] = arg_integer(0);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_SHAPE); /* dimension 2 of rank 2 */

    for (uint32_t i = 0; i <= DJ_LIST_MAX; i++)
        many[i] = a;
    args[0] = arg_list(many, DJ_LIST_MAX + 1);
    args[1] = arg_integer(0);
    call = call_of("cat", args);
    assert_int_equal(dj_op_infer(&call, outs), DJ_ERR_LIMIT);
    args[0] = arg_list(many, DJ_LIST_MAX);
    assert_ok(dj_op_infer(&call, outs));
    assert_int_equal(outs[0].sizes[0], 3 * DJ_LIST_MAX);
}

static void checks_targets(void **state)
{
    dj_view_t result = shape(DJ_F32, 2, 3, 4), target = result;
    assert_ok(dj_op_check_target(DJ_OP_ADD, &result, &target));
    target = transposed(shape(DJ_F32, 2, 4, 3), 0, 1);
    assert_ok(dj_op_check_target(DJ_OP_ADD, &result, &target));
    target.strides[0] = 0; /* an expanded tensor has several elements at one place */
    assert_int_equal(dj_op_check_target(DJ_OP_ADD, &result, &target), DJ_ERR_SHAPE);
    target = shape(DJ_F32, 2, 4, 3);
    assert_int_equal(dj_op_check_target(DJ_OP_ADD, &result, &target), DJ_ERR_SHAPE);
    target = shape(DJ_I64, 2, 3, 4); /* float into integer: copies only */
    assert_int_equal(dj_op_check_target(DJ_OP_ADD, &result, &target), DJ_ERR_DTYPE);
    assert_ok(dj_op_check_target(DJ_OP_COPY, &result, &target));
    target = shape(DJ_F64, 2, 3, 4);
    assert_ok(dj_op_check_target(DJ_OP_ADD, &result, &target));
    assert_int_equal(dj_op_check_target(DJ_OP_MM, &result, &target), DJ_ERR_DTYPE);
}

static void table_is_consistent(void **state)
{
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++) {
        const dj_op_info_t *info = dj_op_info(op);
        const char *end = strchr(info->signature, '>');
        assert_non_null(end);
        assert_int_equal(end - info->signature, info->n_args);
        assert_true(info->n_args <= DJ_ARGS_MAX && info->n_outs <= DJ_OUTS_MAX);
        bool makes_none = end[1] == '!' || end[1] == 'v';
        assert_int_equal(info->n_outs, makes_none ? 0 : end[1] - '0');
        assert_true(info->is_view == (end[1] == 'v'));
        assert_true(info->broadcasts || !info->pointwise);
        assert_int_equal(end[2], '\0');
        assert_int_equal(strspn(info->signature, "tTlLnNdDbysS-"), info->n_args);
        assert_true(info->pointwise == (info->expression[0] != '\0'));
        assert_true(!info->pointwise || info->n_outs == 1);
        assert_int_equal(dj_op_find(info->name), op);
        if (strncmp(info->name, "aten::", 6) == 0)
            assert_int_equal(dj_op_find(info->name + 6), op);
    }
    assert_null(dj_op_info(DJ_OP_COUNT));
    assert_null(dj_op_info(UINT16_MAX));
    assert_int_equal(dj_op_find("aten::nonesuch"), DJ_OP_COUNT);
    assert_int_equal(dj_op_find(""), DJ_OP_COUNT);
    assert_string_equal(dj_op_info(DJ_OP_NEG)->expression, "-a");
    assert_string_equal(dj_op_info(DJ_OP_MM)->expression, "");
}

static void hash_is_stable(void **state)
{
    assert_true(dj_hash_equal(dj_op_table_hash(), dj_op_table_hash()));
    assert_false(dj_hash_equal(dj_op_table_hash(), (dj_hash_t){{0, 0}}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_calls), cmocka_unit_test(refuses_bad_attributes),
        cmocka_unit_test(checks_targets),    cmocka_unit_test(table_is_consistent),
        cmocka_unit_test(hash_is_stable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
