/* Views that lie first, then what honest ones answer. */
#include "tests/planner/builder.h"

static void refuses_bad_views(void **state)
{
    dj_view_t view = shape(DJ_F32, 2, 3, 4);
    assert_ok(dj_view_check(&view, 48));
    assert_int_equal(dj_view_check(&view, 47), DJ_ERR_SHAPE);
    view.offset = 1;
    assert_int_equal(dj_view_check(&view, 48), DJ_ERR_SHAPE);
    view.offset = -1;
    assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_LIMIT);
    view.offset = INT64_MAX;
    assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_LIMIT);
    view.offset = 0;
    view.dtype = DJ_DTYPE_COUNT;
    assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_DTYPE);
    view.dtype = DJ_F32;
    view.rank = 9;
    assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_LIMIT);
    view.rank = 2;
    view.sizes[0] = -1;
    assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_SHAPE);
    view.sizes[0] = 3;
    view.strides[1] = -1;
    assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_SHAPE);
}

static void refuses_overflow(void **state)
{
    dj_view_t view = {.dtype = DJ_F64, .rank = 4};
    static const int64_t numbers[] = {1ll << 16, 1ll << 31, 1ll << 32, 1ll << 45, 1ll << 62,
                                      INT64_MAX};
    for (uint32_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        for (uint32_t j = 0; j < 4; j++) {
            view.sizes[j] = numbers[i];
            view.strides[j] = 0; /* a broadcast of everything: only the product is too much */
        }
        assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_LIMIT);
        view.sizes[3] = 0; /* and an empty tensor is no way around */
        assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_LIMIT);
    }
    view = shape(DJ_U8, 1, 2);
    view.strides[0] = INT64_MAX;
    assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_LIMIT);
    view.strides[0] = (int64_t)DJ_TENSOR_BYTES_MAX;
    assert_int_equal(dj_view_check(&view, UINT64_MAX), DJ_ERR_LIMIT);
    view.strides[0] = (int64_t)DJ_TENSOR_BYTES_MAX - 1;
    assert_ok(dj_view_check(&view, UINT64_MAX));
}

static void measures(void **state)
{
    dj_view_t view = shape(DJ_F32, 3, 2, 3, 4);
    assert_int_equal(dj_view_count(&view), 24);
    assert_int_equal(dj_view_extent_bytes(&view), 96);
    view.sizes[2] = 3; /* a slice */
    assert_int_equal(dj_view_extent_bytes(&view), 4 * (12 + 8 + 2 + 1));
    assert_int_equal(dj_view_dense_bytes(&view), 72);
    assert_false(dj_view_is_contiguous(&view));
    assert_false(dj_view_is_dense(&view));
    view.sizes[1] = 0;
    assert_int_equal(dj_view_extent_bytes(&view), 0);
    assert_true(dj_view_is_contiguous(&view));
    assert_true(dj_view_is_dense(&view));
    view = transposed(shape(DJ_F32, 3, 2, 3, 4), 0, 2);
    assert_false(dj_view_is_contiguous(&view));
    assert_true(dj_view_is_dense(&view));
    view = shape(DJ_F32, 2, 4, 4);
    view.strides[0] = 0;
    assert_false(dj_view_is_dense(&view));
    view = transposed(shape(DJ_F32, 3, 5, 1, 7), 0, 1);
    view.strides[0] = 12345; /* of a dimension of size 1 */
    assert_true(dj_view_is_contiguous(&view));
    assert_true(dj_view_is_dense(&view));
    view = shape(DJ_F32, 0);
    assert_int_equal(dj_view_count(&view), 1);
    assert_int_equal(dj_view_extent_bytes(&view), 4);
    assert_true(dj_view_is_contiguous(&view));
}

static void compares(void **state)
{
    dj_view_t a = shape(DJ_F32, 2, 1, 4), b = a;
    b.strides[0] = 99;
    assert_true(dj_view_equal(&a, &b));
    b.strides[1] = 2;
    assert_false(dj_view_equal(&a, &b));
    assert_true(dj_view_same_shape(&a, &b));
    b = a;
    b.offset = 1;
    assert_false(dj_view_equal(&a, &b));
    b = a;
    b.dtype = DJ_I32;
    assert_false(dj_view_equal(&a, &b));
}

static void prints(void **state)
{
    char text[160], tiny[8];
    dj_view_t view = shape(DJ_BF16, 2, 32, 384);
    assert_string_equal(dj_view_format(&view, text, sizeof text), "bfloat16[32, 384]");
    view = shape(DJ_I64, 0);
    assert_string_equal(dj_view_format(&view, text, sizeof text), "int64[]");
    view = shape(DJ_F32, 8, 1, 1, 1, 1, 1, 1, 1, 1);
    for (uint32_t i = 0; i < 8; i++)
        view.sizes[i] = (int64_t)DJ_TENSOR_BYTES_MAX;
    dj_view_format(&view, text, sizeof text);
    assert_int_equal(text[strlen(text) - 1], ']');
    assert_true(strlen(dj_view_format(&view, tiny, sizeof tiny)) < sizeof tiny);
    assert_string_equal(dj_dtype_name(200), "?");
    assert_int_equal(dj_dtype_bytes(200), 0);
    assert_true(dj_dtype_is_float(DJ_F16) && !dj_dtype_is_float(DJ_I64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_views), cmocka_unit_test(refuses_overflow),
        cmocka_unit_test(measures),          cmocka_unit_test(compares),
        cmocka_unit_test(prints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
