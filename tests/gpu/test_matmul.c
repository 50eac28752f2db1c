/* test_matmul.c - matrix products of every form against sums in double, under every promise. */
#include "tests/gpu/program.h"

#include <math.h>

#include "gpu/host/new_arena.h"

#define FLOATS 400000

static dj_device_t *device;
static float numbers[FLOATS]; /* inputs are windows of it */
static float result[FLOATS];

static dj_view_t strided(uint8_t rank, const int64_t *sizes, const int64_t *strides)
{
    dj_view_t view = dj_view_contiguous(DJ_F32, rank, sizes);
    memcpy(view.strides, strides, rank * sizeof(*strides));
    return view;
}

static dj_view_t dense(int64_t a, int64_t b, int64_t c)
{
    int64_t sizes[] = {a, b, c};
    return a == 0 ? dj_view_contiguous(DJ_F32, 2, sizes + 1) : dj_view_contiguous(DJ_F32, 3, sizes);
}

static dj_view_t vector(int64_t n)
{
    return dj_view_contiguous(DJ_F32, 1, &n);
}

static dj_view_t transposed(dj_view_t view)
{
    uint32_t a = view.rank - 2u, b = view.rank - 1u;
    int64_t size = view.sizes[a], stride = view.strides[a];
    view.sizes[a] = view.sizes[b], view.strides[a] = view.strides[b];
    view.sizes[b] = size, view.strides[b] = stride;
    return view;
}

static dj_operand_t input(test_case_t *test, uint32_t first, dj_view_t view)
{
    assert_true(first * sizeof(float) + dj_view_extent_bytes(&view) <= sizeof(numbers));
    return case_input(test, DJ_CLASS_STATE, numbers + first, dj_view_extent_bytes(&view), view);
}

/* Element [b, i, j] of a view right-aligned to three dimensions, sizes of 1 broadcast. */
static double element(const float *data, const dj_view_t *view, int64_t b, int64_t i, int64_t j)
{
    int64_t index[3] = {b, i, j}, at = 0;
    for (uint32_t d = 0; d < view->rank; d++)
        if (view->sizes[d] > 1)
            at += index[3 - view->rank + d] * view->strides[d];
    return data[at];
}

typedef struct expectation {
    const float *a, *b, *addend;
    dj_view_t a_view, b_view, addend_view, c_view; /* b as [.., k, n] */
    double alpha, beta;
} expectation_t;

static void check(const expectation_t *e, const float *c)
{
    const dj_view_t *v = &e->c_view;
    int64_t batch = v->rank == 3 ? v->sizes[0] : 1, m = v->sizes[v->rank - 2];
    int64_t n = v->sizes[v->rank - 1], k = e->a_view.sizes[e->a_view.rank - 1];
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < n; j++) {
                double sum = 0, size = 1e-3;
                for (int64_t l = 0; l < k; l++) {
                    double x = element(e->a, &e->a_view, b, i, l);
                    double y = element(e->b, &e->b_view, b, l, j);
                    sum += x * y, size += fabs(x * y);
                }
                sum *= e->alpha, size *= fabs(e->alpha) + 1;
                if (e->addend && e->beta != 0)
                    sum += e->beta * element(e->addend, &e->addend_view, b, i, j);
                double got = element(c, v, b, i, j);
                if (!(fabs(got - sum) <= 2e-6 * size + 1e-6 * fabs(sum))) {
                    print_error("[%ld, %ld, %ld]: %.9g, expected %.9g\n", (long)b, (long)i, (long)j,
                                got, sum);
                    fail();
                }
            }
        }
    }
}

static void build(test_case_t *test, const dj_operand_t *out)
{
    dj_status_t status = case_build(test, &out->storage, 1);
    if (status != DJ_OK)
        print_error("%s\n", dj_error_text());
    assert_int_equal(status, DJ_OK);
    test->bindings[test->n_inputs] = result;
}

/* Records, replays twice, checks. The product is new, or goes into `target`. */
static void run_mm(dj_view_t a, dj_view_t b)
{
    test_case_t test;
    case_open(&test, device);
    dj_operand_t x = input(&test, 3, a), y = input(&test, 1001, b);
    dj_arg_t args[] = {tensor_arg(&x), tensor_arg(&y)};
    dj_operand_t out = case_add(&test, a.rank == 3 ? DJ_OP_BMM : DJ_OP_MM, args, 2, NULL);
    build(&test, &out);
    expectation_t e = {.a = numbers + 3,
                       .b = numbers + 1001,
                       .a_view = a,
                       .b_view = b,
                       .c_view = out.view,
                       .alpha = 1};
    for (uint32_t turn = 0; turn < 2; turn++) {
        memset(result, 0xff, dj_view_extent_bytes(&out.view) + 64);
        assert_int_equal(case_replay(&test), DJ_OK);
        check(&e, result);
    }
    case_close(&test);
}

static void other_dtypes_are_refused(void **state)
{
    test_case_t test;
    int64_t sizes[] = {2, 2};
    dj_view_t view = dj_view_contiguous(DJ_F64, 2, sizes);
    case_open(&test, device);
    dj_operand_t x = case_input(&test, DJ_CLASS_STATE, numbers, 32, view);
    dj_arg_t args[] = {tensor_arg(&x), tensor_arg(&x)};
    dj_operand_t out = case_add(&test, DJ_OP_MM, args, 2, NULL);
    assert_int_equal(case_build(&test, &out.storage, 1), DJ_ERR_UNSUPPORTED);
    assert_non_null(strstr(dj_error_text(), "node 0, aten::mm"));
    assert_non_null(strstr(dj_error_text(), "float64"));
    case_close(&test);
}

static void products_of_two_matrices(void **state)
{
    static const int64_t shapes[][3] = {{1, 1, 1},   {5, 7, 3},    {64, 48, 33}, {1, 70, 65},
                                        {2, 130, 9}, {3, 257, 64}, {4, 64, 100}, {5, 33, 500},
                                        {1, 1, 300}, {200, 1, 17}, {33, 129, 1}, {128, 256, 384}};
    for (uint32_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        int64_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
        run_mm(dense(0, m, k), dense(0, k, n));
        run_mm(dense(0, m, k), transposed(dense(0, n, k)));
        run_mm(transposed(dense(0, k, m)), dense(0, k, n));
        run_mm(transposed(dense(0, k, m)), transposed(dense(0, n, k)));
    }
}

static void empty_products(void **state)
{
    run_mm(dense(0, 3, 0), dense(0, 0, 4)); /* zeros */
    run_mm(dense(0, 40, 0), dense(0, 0, 40));
    run_mm(dense(0, 0, 5), dense(0, 5, 4));
    run_mm(dense(0, 3, 5), dense(0, 5, 0));
    run_mm(dense(2, 3, 0), dense(2, 0, 4));
}

static void strides_that_no_library_takes(void **state)
{
    int64_t a[] = {6, 20}, b[] = {20, 10}, big[] = {40, 20};
    run_mm(strided(2, a, (int64_t[]){50, 2}), dense(0, 20, 10));
    run_mm(dense(0, 6, 20), strided(2, b, (int64_t[]){33, 3}));
    run_mm(strided(2, a, (int64_t[]){0, 1}), dense(0, 20, 10));
    run_mm(strided(2, a, (int64_t[]){1, 0}), strided(2, b, (int64_t[]){0, 0}));
    run_mm(strided(2, big, (int64_t[]){50, 2}), strided(2, b, (int64_t[]){33, 3}));
    run_mm(strided(2, a, (int64_t[]){50, 1}), strided(2, b, (int64_t[]){15, 1}));
    run_mm(strided(2, a, (int64_t[]){3, 1}), dense(0, 20, 10)); /* rows that overlap */
}

static void batches(void **state)
{
    int64_t heads[] = {4, 9, 16}, keys[] = {4, 16, 9};
    run_mm(dense(3, 5, 7), dense(3, 7, 4));
    run_mm(dense(1, 5, 7), dense(1, 7, 4));
    run_mm(dense(24, 33, 17), transposed(dense(24, 20, 17)));
    run_mm(dense(12, 1, 64), transposed(dense(12, 70, 64)));
    /* heads side by side in a row, as attention has them */
    run_mm(strided(3, heads, (int64_t[]){16, 64, 1}), strided(3, keys, (int64_t[]){16, 1, 64}));
    /* one matrix for all */
    run_mm(dense(4, 9, 16), strided(3, keys, (int64_t[]){0, 9, 1}));
    run_mm(strided(3, heads, (int64_t[]){0, 16, 1}), dense(4, 16, 9));
}

/* ADDMM and BADDBMM. */
static void run_add(dj_view_t addend, dj_view_t a, dj_view_t b, dj_arg_t beta, dj_arg_t alpha)
{
    test_case_t test;
    case_open(&test, device);
    dj_operand_t s = input(&test, 50, addend), x = input(&test, 3, a), y = input(&test, 1001, b);
    dj_arg_t args[] = {tensor_arg(&s), tensor_arg(&x), tensor_arg(&y), beta, alpha};
    dj_operand_t out = case_add(&test, a.rank == 3 ? DJ_OP_BADDBMM : DJ_OP_ADDMM, args, 5, NULL);
    build(&test, &out);
    expectation_t e = {.a = numbers + 3,
                       .b = numbers + 1001,
                       .addend = numbers + 50,
                       .a_view = a,
                       .b_view = b,
                       .addend_view = addend,
                       .c_view = out.view};
    e.alpha = alpha.scalar.dtype == DJ_F64 ? alpha.scalar.real : (double)alpha.scalar.integer;
    e.beta = beta.scalar.dtype == DJ_F64 ? beta.scalar.real : (double)beta.scalar.integer;
    assert_int_equal(case_replay(&test), DJ_OK);
    check(&e, result);
    case_close(&test);
}

static void addends_and_factors(void **state)
{
    static const int64_t rows[] = {1, 3, 40};
    for (uint32_t i = 0; i < 3; i++) {
        int64_t m = rows[i], n = 37, k = 21;
        dj_view_t a = dense(0, m, k), b = dense(0, k, n);
        dj_view_t addends[] = {vector(n),      vector(1),      dense(0, 1, n),
                               dense(0, m, n), dense(0, m, 1), transposed(dense(0, n, m))};
        for (uint32_t j = 0; j < sizeof(addends) / sizeof(*addends); j++) {
            run_add(addends[j], a, b, integer_arg(1), integer_arg(1));
            run_add(addends[j], a, b, real_arg(1), real_arg(0.5));
            run_add(addends[j], a, b, real_arg(-2.5), integer_arg(3));
            run_add(addends[j], a, b, integer_arg(0), real_arg(1));
        }
        run_add(vector(n), dense(0, m, 0), dense(0, 0, n), real_arg(2), real_arg(1));
    }
    run_add(dense(3, 5, 4), dense(3, 5, 7), dense(3, 7, 4), real_arg(1), real_arg(1));
    run_add(vector(4), dense(3, 5, 7), dense(3, 7, 4), real_arg(1), real_arg(0.125));
    run_add(dense(0, 5, 1), dense(3, 5, 7), dense(3, 7, 4), integer_arg(2), real_arg(1));
}

static void a_zero_beta_ignores_what_it_multiplies(void **state)
{
    float kept[8];
    memcpy(kept, numbers + 50, sizeof(kept));
    for (uint32_t i = 0; i < 8; i++)
        numbers[50 + i] = NAN;
    dj_view_t addend = vector(8);
    test_case_t test;
    for (int64_t m = 2; m <= 50; m += 48) {
        case_open(&test, device);
        dj_view_t a = dense(0, m, 4), b = dense(0, 4, 8);
        dj_operand_t s = input(&test, 50, addend), x = input(&test, 100, a);
        dj_operand_t y = input(&test, 1001, b);
        dj_arg_t args[] = {tensor_arg(&s), tensor_arg(&x), tensor_arg(&y), integer_arg(0),
                           integer_arg(1)};
        dj_operand_t out = case_add(&test, DJ_OP_ADDMM, args, 5, NULL);
        build(&test, &out);
        expectation_t e = {.a = numbers + 100,
                           .b = numbers + 1001,
                           .a_view = a,
                           .b_view = b,
                           .c_view = out.view,
                           .alpha = 1};
        assert_int_equal(case_replay(&test), DJ_OK);
        check(&e, result);
        case_close(&test);
    }
    memcpy(numbers + 50, kept, sizeof(kept));
}

static void run_linear(dj_view_t x_view, dj_view_t weight, bool biased)
{
    test_case_t test;
    dj_view_t bias_view = vector(weight.sizes[0]);
    case_open(&test, device);
    dj_operand_t x = input(&test, 3, x_view), w = input(&test, 1001, weight);
    dj_operand_t bias = {0};
    if (biased)
        bias = input(&test, 77, bias_view);
    dj_arg_t args[] = {tensor_arg(&x), tensor_arg(&w), tensor_arg(biased ? &bias : NULL)};
    dj_operand_t out = case_add(&test, DJ_OP_LINEAR, args, 3, NULL);
    build(&test, &out);
    assert_int_equal(case_replay(&test), DJ_OK);
    /* The reference sees rows of the input one after the other. */
    int64_t rows = dj_view_count(&x_view) / x_view.sizes[x_view.rank - 1];
    int64_t row_stride = x_view.rank > 1 ? x_view.strides[x_view.rank - 2] : 1;
    expectation_t e = {.a = numbers + 3,
                       .b = numbers + 1001,
                       .b_view = transposed(weight),
                       .addend = biased ? numbers + 77 : NULL,
                       .addend_view = bias_view,
                       .alpha = 1,
                       .beta = 1};
    e.a_view = strided(2, (int64_t[]){rows, x_view.sizes[x_view.rank - 1]},
                       (int64_t[]){row_stride, x_view.strides[x_view.rank - 1]});
    e.c_view = dense(0, rows, weight.sizes[0]);
    check(&e, result);
    case_close(&test);
}

static void linear_of_any_rank(void **state)
{
    int64_t one[] = {24}, four[] = {2, 3, 5, 24};
    dj_view_t weight = dense(0, 50, 24);
    for (uint32_t biased = 0; biased < 2; biased++) {
        run_linear(dj_view_contiguous(DJ_F32, 1, one), weight, biased);
        run_linear(dense(0, 3, 24), weight, biased);
        run_linear(dense(3, 17, 24), weight, biased);
        run_linear(dj_view_contiguous(DJ_F32, 4, four), weight, biased);
        run_linear(strided(2, (int64_t[]){9, 24}, (int64_t[]){31, 1}), weight, biased);
        run_linear(strided(2, (int64_t[]){9, 24}, (int64_t[]){50, 2}), weight, biased);
        run_linear(dense(0, 40, 24), transposed(dense(0, 24, 50)), biased);
        run_linear(dense(0, 2, 24), transposed(dense(0, 24, 50)), biased);
    }
}

/* [2, 4, 24] whose first two dimensions do not fold, against the same rows one by one. */
static void rows_that_do_not_fold(void **state)
{
    test_case_t test;
    dj_view_t x_view = strided(3, (int64_t[]){2, 4, 24}, (int64_t[]){200, 24, 1});
    dj_view_t w_view = dense(0, 10, 24);
    case_open(&test, device);
    dj_operand_t x = input(&test, 3, x_view), w = input(&test, 1001, w_view);
    dj_arg_t args[] = {tensor_arg(&x), tensor_arg(&w), tensor_arg(NULL)};
    dj_operand_t out = case_add(&test, DJ_OP_LINEAR, args, 3, NULL);
    build(&test, &out);
    assert_int_equal(case_replay(&test), DJ_OK);
    expectation_t e = {.a = numbers + 3,
                       .b = numbers + 1001,
                       .a_view = x_view,
                       .alpha = 1,
                       .c_view = dense(2, 4, 10)};
    e.b_view = strided(3, (int64_t[]){2, 24, 10}, (int64_t[]){0, 1, 24});
    check(&e, result);
    case_close(&test);
}

/* mm(x, w) into another window of x's own storage is staged, and exactly that window changes. */
static void run_staged(dj_view_t x_view, dj_view_t target_view)
{
    enum { N = 40 };
    static float x_data[2 * N * N], before[2 * N * N], expected[2 * N * N];
    test_case_t test;
    dj_view_t whole = dense(0, N, N);
    for (uint32_t i = 0; i < 2 * N * N; i++)
        before[i] = x_data[i] = numbers[i + 9];
    case_open(&test, device);
    dj_operand_t x = case_input(&test, DJ_CLASS_STATE, x_data, sizeof(x_data), x_view);
    dj_operand_t w = input(&test, 1001, whole), target = x;
    target.view = target_view;
    dj_arg_t args[] = {tensor_arg(&x), tensor_arg(&w)};
    case_add(&test, DJ_OP_MM, args, 2, &target);
    assert_int_equal(case_build(&test, NULL, 0), DJ_OK);
    assert_int_not_equal(test.plan->steps[0].staging, DJ_OFFSET_NONE);
    assert_int_equal(case_replay(&test), DJ_OK);
    expectation_t e = {.a = before,
                       .b = numbers + 1001,
                       .a_view = x_view,
                       .b_view = whole,
                       .c_view = target_view,
                       .alpha = 1};
    check(&e, x_data);
    memcpy(expected, before, sizeof(before));
    for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < N; j++) {
            int64_t at = i * target_view.strides[0] + j * target_view.strides[1];
            expected[at] = x_data[at];
        }
    assert_memory_equal(x_data, expected, sizeof(expected));
    case_close(&test);
}

static void results_that_overwrite_their_operand(void **state)
{
    int64_t sizes[] = {40, 40};
    dj_view_t whole = dense(0, 40, 40);
    run_staged(whole, whole);
    run_staged(whole, transposed(whole));
    run_staged(whole, strided(2, sizes, (int64_t[]){80, 2}));
    run_staged(strided(2, sizes, (int64_t[]){80, 2}), strided(2, sizes, (int64_t[]){80, 1}));
}

static void windows_with_gaps(void **state)
{
    for (uint32_t rows = 3; rows <= 35; rows += 32) {
        test_case_t test;
        dj_view_t gaps = strided(2, (int64_t[]){rows, 6}, (int64_t[]){20, 3});
        dj_view_t a = dense(0, rows, 8), b = dense(0, 8, 6);
        memset(result, 0, 4096);
        case_open(&test, device);
        dj_operand_t x = input(&test, 3, a), y = input(&test, 1001, b);
        dj_operand_t target = case_input(&test, DJ_CLASS_STATE, result, 4096, gaps);
        dj_arg_t args[] = {tensor_arg(&x), tensor_arg(&y)};
        case_add(&test, DJ_OP_MM, args, 2, &target);
        assert_int_equal(case_build(&test, NULL, 0), DJ_OK);
        assert_int_equal(case_replay(&test), DJ_OK);
        expectation_t e = {.a = numbers + 3,
                           .b = numbers + 1001,
                           .a_view = a,
                           .b_view = b,
                           .c_view = gaps,
                           .alpha = 1};
        check(&e, result);
        for (uint32_t i = 0; i < 1024; i++)
            if (i / 20 >= rows || i % 20 > 15 || i % 20 % 3)
                assert_true(result[i] == 0);
        case_close(&test);
    }
}

static dj_text_t *load_weight(dj_text_store_t *store, const float *from, uint64_t bytes)
{
    dj_text_t *draft = NULL, *text = NULL;
    assert_int_equal(dj_text_draft(store, bytes, &draft), DJ_OK);
    memcpy(draft->data, from, bytes);
    assert_int_equal(dj_text_publish(store, draft, 1, &text), DJ_OK);
    return text;
}

static uint64_t pack_bytes(dj_text_store_t *store)
{
    dj_text_counters_t counters;
    dj_text_counters(store, &counters);
    return counters.pack_bytes;
}

static void open_packed(test_case_t *test, dj_text_t *text, int64_t m, dj_view_t weight)
{
    case_open(test, device);
    dj_operand_t x = input(test, 3, dense(0, m, weight.sizes[1]));
    dj_operand_t w = case_weight(test, text, weight);
    dj_operand_t bias = input(test, 77, vector(weight.sizes[0]));
    dj_arg_t args[] = {tensor_arg(&x), tensor_arg(&w), tensor_arg(&bias)};
    dj_operand_t out = case_add(test, DJ_OP_LINEAR, args, 3, NULL);
    build(test, &out);
}

static void check_packed(test_case_t *test, const float *weight_data, int64_t m, dj_view_t weight)
{
    expectation_t e = {.a = numbers + 3,
                       .b = weight_data,
                       .addend = numbers + 77,
                       .addend_view = vector(weight.sizes[0]),
                       .alpha = 1,
                       .beta = 1};
    e.a_view = dense(0, m, weight.sizes[1]);
    e.b_view = transposed(weight);
    e.c_view = dense(0, m, weight.sizes[0]);
    dj_status_t status = case_replay(test);
    if (status != DJ_OK)
        print_error("%s\n", dj_error_text());
    assert_int_equal(status, DJ_OK);
    check(&e, result);
}

static void a_weight_is_packed_once_and_its_pack_goes_with_it(void **state)
{
    dj_text_store_t *store = NULL;
    test_case_t many, more, few;
    dj_view_t weight = dense(0, 96, 64);
    uint64_t bytes = dj_view_extent_bytes(&weight);
    assert_int_equal(dj_text_store_create(device, 1 << 20, &store), DJ_OK);
    dj_text_t *text = load_weight(store, numbers + 2000, bytes);
    dj_text_t *other = load_weight(store, numbers + 9000, bytes);
    open_packed(&few, text, 3, weight);
    check_packed(&few, numbers + 2000, 3, weight);
    assert_int_equal(pack_bytes(store), 0); /* few rows read the plain weight */
    open_packed(&many, text, 128, weight);
    check_packed(&many, numbers + 2000, 128, weight);
    uint64_t once = pack_bytes(store);
    assert_true(many.plan->workspace_bytes > 0);
    open_packed(&more, text, 256, weight);
    check_packed(&more, numbers + 2000, 256, weight);
    if (once) {
        assert_true(once >= bytes);
        assert_int_equal(pack_bytes(store), once);
    }
    /* The same executable with another weight, and back. */
    many.texts[1] = other, many.bindings[1] = other->data;
    check_packed(&many, numbers + 9000, 128, weight);
    assert_int_equal(pack_bytes(store), 2 * once);
    many.texts[1] = text, many.bindings[1] = text->data;
    check_packed(&many, numbers + 2000, 128, weight);
    assert_int_equal(pack_bytes(store), 2 * once);
    assert_int_equal(text->references, 1); /* an executable holds none */
    case_close(&many), case_close(&more), case_close(&few);
    assert_int_equal(text->references, 1);
    dj_text_release(store, text), dj_text_release(store, other);
    dj_text_sweep(store, 0);
    assert_int_equal(pack_bytes(store), 0);
    dj_text_store_destroy(store);
}

static void a_pack_beyond_the_limit_is_refused(void **state)
{
    dj_text_store_t *store = NULL;
    test_case_t test;
    dj_view_t weight = dense(0, 96, 64);
    uint64_t bytes = dj_view_extent_bytes(&weight);
    assert_int_equal(dj_text_store_create(device, bytes + 4096, &store), DJ_OK);
    dj_text_t *text = load_weight(store, numbers + 2000, bytes);
    open_packed(&test, text, 128, weight);
    dj_status_t status = case_replay(&test);
    assert_true(status == DJ_ERR_RESOURCE || pack_bytes(store) == 0);
    case_close(&test);
    assert_int_equal(text->references, 1);
    dj_text_store_destroy(store);
}

/* Runs last: everything above went through the arena. */
static void the_library_kept_nothing_of_the_arena(void **state)
{
    dj_new_arena_counters_t counters;
    dj_new_arena_counters(&counters);
    assert_int_equal(counters.kept, 0);
    assert_int_equal(counters.spilled, 0);
    if (strcmp(device->ops->info(device)->isa, "avx512") == 0)
        assert_true(counters.served > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_dtypes_are_refused),
        cmocka_unit_test(products_of_two_matrices),
        cmocka_unit_test(empty_products),
        cmocka_unit_test(strides_that_no_library_takes),
        cmocka_unit_test(batches),
        cmocka_unit_test(addends_and_factors),
        cmocka_unit_test(a_zero_beta_ignores_what_it_multiplies),
        cmocka_unit_test(linear_of_any_rank),
        cmocka_unit_test(rows_that_do_not_fold),
        cmocka_unit_test(results_that_overwrite_their_operand),
        cmocka_unit_test(windows_with_gaps),
        cmocka_unit_test(a_weight_is_packed_once_and_its_pack_goes_with_it),
        cmocka_unit_test(a_pack_beyond_the_limit_is_refused),
        cmocka_unit_test(the_library_kept_nothing_of_the_arena),
    };
    uint32_t random = 1;
    for (uint32_t i = 0; i < FLOATS; i++) {
        random = random * 1664525 + 1013904223;
        numbers[i] = (float)((int32_t)(random >> 8) % 2001 - 1000) / 700;
    }
    device = fixture_open(2);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dj_device_close(device);
    return failed;
}
