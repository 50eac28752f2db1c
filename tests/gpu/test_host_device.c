/* test_host_device.c - opening, memory rules and executables of the host device; bad input first.
 */
#include <pthread.h>

#include "tests/gpu/program.h"

#include "gpu/host/executable.h"

static dj_device_t *device;

static dj_view_t matrix(int64_t rows, int64_t columns)
{
    return dj_view_contiguous(DJ_F32, 2, (int64_t[]){rows, columns});
}

static void bad_configurations_are_refused(void **state)
{
    dj_device_t *none = NULL;
    dj_config_t unknown = {.device = "abacus", .cores = ""};
    assert_int_equal(dj_device_open(&unknown, &none), DJ_ERR_INVALID);
    assert_non_null(strstr(dj_error_text(), "host, cuda"));
    dj_config_t cuda = {.device = "cuda", .cores = ""};
    assert_int_equal(dj_device_open(&cuda, &none), DJ_ERR_UNSUPPORTED);
    static const char *const lists[] = {"x", "1-", "3-1", "0,,1", "-1", "0 1", "1-2-3", "99999999"};
    for (uint32_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
        dj_config_t cores = {.device = "host", .cores = lists[i]};
        assert_int_equal(dj_device_open(&cores, &none), DJ_ERR_INVALID);
        assert_non_null(strstr(dj_error_text(), lists[i]));
    }
    dj_config_t threads = {.device = "host", .cores = "", .threads = 1ull << 40};
    assert_int_equal(dj_device_open(&threads, &none), DJ_ERR_LIMIT);
    assert_null(none);
}

static dj_device_info_t info_of(const char *cores, uint64_t threads)
{
    dj_config_t config = {.device = "host", .cores = cores, .threads = threads};
    dj_device_t *opened = NULL;
    assert_int_equal(dj_device_open(&config, &opened), DJ_OK);
    dj_device_info_t info = *opened->ops->info(opened);
    dj_device_close(opened);
    return info;
}

static void threads_come_from_the_configuration(void **state)
{
    assert_int_equal(info_of("", 3).threads, 3);
    assert_int_equal(info_of("0-3,8", 0).threads, 5);
    assert_int_equal(info_of("7", 0).threads, 1);
    assert_int_equal(info_of("0-3", 2).threads, 2);
    assert_true(info_of("", 0).threads >= 1);
}

static void a_class_is_what_plans_depend_on(void **state)
{
    dj_device_info_t one = info_of("", 1), again = info_of("5", 1), two = info_of("", 2);
    assert_true(dj_hash_equal(one.class_hash, again.class_hash));
    assert_false(dj_hash_equal(one.class_hash, two.class_hash));
    assert_string_equal(one.kind, "host");
    assert_true(one.memory_bytes > 0 && one.page_bytes >= 4096);
    assert_true(one.flops_per_ns > 0 && one.bytes_per_ns > 0);
}

/* relu(x @ w + bias) with the result of the product in Stack. */
typedef struct layer {
    float x[40 * 30], w[30 * 20], bias[20], out[40 * 20];
} layer_t;

static void build_layer(test_case_t *test, layer_t *layer)
{
    for (uint32_t i = 0; i < 1200; i++)
        layer->x[i] = (float)(i % 13) - 6;
    for (uint32_t i = 0; i < 600; i++)
        layer->w[i] = (float)(i % 7) - 3;
    for (uint32_t i = 0; i < 20; i++)
        layer->bias[i] = (float)i;
    case_open(test, device);
    int64_t n = 20;
    dj_operand_t x = case_input(test, DJ_CLASS_STATE, layer->x, sizeof(layer->x), matrix(40, 30));
    dj_operand_t w = case_input(test, DJ_CLASS_STATE, layer->w, sizeof(layer->w), matrix(30, 20));
    dj_operand_t bias = case_input(test, DJ_CLASS_STATE, layer->bias, sizeof(layer->bias),
                                   dj_view_contiguous(DJ_F32, 1, &n));
    dj_arg_t product[] = {tensor_arg(&bias), tensor_arg(&x), tensor_arg(&w), integer_arg(1),
                          integer_arg(1)};
    dj_operand_t y = case_add(test, DJ_OP_ADDMM, product, 5, NULL);
    dj_arg_t relu[] = {tensor_arg(&y)};
    dj_operand_t z = case_add(test, DJ_OP_RELU, relu, 1, NULL);
    assert_int_equal(case_build(test, &z.storage, 1), DJ_OK);
    test->bindings[3] = layer->out;
}

static void check_layer(const layer_t *layer)
{
    for (uint32_t i = 0; i < 40; i++)
        for (uint32_t j = 0; j < 20; j++) {
            float sum = layer->bias[j];
            for (uint32_t l = 0; l < 30; l++)
                sum += layer->x[i * 30 + l] * layer->w[l * 20 + j];
            assert_true(layer->out[i * 20 + j] == (sum > 0 ? sum : 0)); /* small integers: exact */
        }
}

static dj_status_t compile_unary(dj_op_t op, uint8_t dtype, uint8_t to, float *memory)
{
    test_case_t test;
    int64_t n = 4;
    case_open(&test, device);
    dj_operand_t x = case_input(&test, DJ_CLASS_STATE, memory, 64, dj_view_contiguous(dtype, 1, &n));
    dj_arg_t args[] = {tensor_arg(&x), integer_arg(to)};
    args[1].kind = DJ_ARG_INTEGER;
    args[1].integer = to;
    dj_operand_t y = case_add(&test, op, args, dj_op_info((uint16_t)op)->n_args, NULL);
    dj_status_t status = case_build(&test, &y.storage, 1);
    case_close(&test);
    return status;
}

/* They have rules, and no kernel computes with them: not even a copy, in or out. */
static void complex_numbers_are_refused(void **state)
{
    float memory[16] = {0};
    assert_int_equal(compile_unary(DJ_OP_EXP, DJ_F32, 0, memory), DJ_OK);
    assert_int_equal(compile_unary(DJ_OP_EXP, DJ_C64, 0, memory), DJ_ERR_UNSUPPORTED);
    assert_non_null(strstr(dj_error_text(), "complex64"));
    assert_int_equal(compile_unary(DJ_OP_COPY, DJ_C128, 0, memory), DJ_ERR_UNSUPPORTED);
    assert_int_equal(compile_unary(DJ_OP_TO_COPY, DJ_F32, DJ_C64, memory), DJ_ERR_UNSUPPORTED);
    assert_int_equal(compile_unary(DJ_OP_TO_COPY, DJ_C32, DJ_F32, memory), DJ_ERR_UNSUPPORTED);
}

static void a_layer_replays(void **state)
{
    static layer_t layer;
    test_case_t test;
    build_layer(&test, &layer);
    assert_true(test.plan->peak_bytes >= sizeof(layer.out));
    for (uint32_t turn = 0; turn < 3; turn++) {
        memset(layer.out, 0xff, sizeof(layer.out));
        layer.x[turn] = 5;
        assert_int_equal(case_replay(&test), DJ_OK);
        check_layer(&layer);
    }
    case_close(&test);
}

static void a_plan_of_another_class_is_refused(void **state)
{
    static layer_t layer;
    test_case_t test;
    build_layer(&test, &layer);
    uint64_t kept = test.plan->workspace_bytes;
    if (kept) {
        test.plan->workspace_bytes = kept - 64;
        assert_int_equal(device->ops->place(test.exe, test.plan), DJ_ERR_CLASS);
        test.plan->workspace_bytes = kept;
    }
    test.plan->n_storages--;
    assert_int_equal(device->ops->place(test.exe, test.plan), DJ_ERR_CORRUPT);
    test.plan->n_storages++;
    uint32_t node = test.plan->steps[0].node;
    test.plan->steps[0].node = 9999;
    assert_int_equal(device->ops->place(test.exe, test.plan), DJ_ERR_CORRUPT);
    test.plan->steps[0].node = node;
    assert_int_equal(device->ops->place(test.exe, test.plan), DJ_OK);
    case_close(&test);
}

/* The guard is moved into what a kernel uses, as if that kernel wrote too far. */
static void an_overrun_of_the_workspace_is_found(void **state)
{
    static float x[64 * 50], w[50 * 70], out[70 * 64];
    test_case_t test;
    dj_view_t turned = matrix(50, 64), gaps = matrix(50, 70);
    turned.sizes[0] = 64, turned.sizes[1] = 50, turned.strides[0] = 1, turned.strides[1] = 64;
    gaps.sizes[1] = 35, gaps.strides[1] = 2;
    for (uint32_t i = 0; i < 3200; i++)
        x[i] = 1;
    for (uint32_t i = 0; i < 3500; i++)
        w[i] = 1;
    case_open(&test, device);
    dj_operand_t a = case_input(&test, DJ_CLASS_STATE, x, sizeof(x), turned);
    dj_operand_t b = case_input(&test, DJ_CLASS_STATE, w, sizeof(w), gaps);
    dj_arg_t args[] = {tensor_arg(&a), tensor_arg(&b)};
    dj_operand_t y = case_add(&test, DJ_OP_MM, args, 2, NULL);
    assert_int_equal(case_build(&test, &y.storage, 1), DJ_OK);
    test.bindings[2] = out;
    assert_int_equal(case_replay(&test), DJ_OK);
    assert_true(out[0] == 50);
    test.plan->workspace_bytes -= 256;
    dj_launch_t launch = {test.bindings,
                          aligned_alloc(256, (test.plan->peak_bytes + 255) & ~255ull), NULL, NULL};
    memset(launch.stack, 0, test.plan->peak_bytes);
    assert_int_equal(device->ops->replay(test.exe, &launch), DJ_ERR_INTERNAL);
    assert_non_null(strstr(dj_error_text(), "workspace"));
    free(launch.stack);
    case_close(&test);
}

static void an_index_out_of_range_is_named(void **state)
{
    static float table[10 * 4], out[3 * 4];
    static int64_t indices[3] = {0, 9, 10};
    test_case_t test;
    int64_t three = 3;
    case_open(&test, device);
    dj_operand_t weight = case_input(&test, DJ_CLASS_STATE, table, sizeof(table), matrix(10, 4));
    dj_operand_t index = case_input(&test, DJ_CLASS_IMMEDIATE, indices, sizeof(indices),
                                    dj_view_contiguous(DJ_I64, 1, &three));
    dj_arg_t args[] = {tensor_arg(&weight),
                       tensor_arg(&index),
                       {.kind = DJ_ARG_NONE},
                       {.kind = DJ_ARG_NONE},
                       {.kind = DJ_ARG_NONE}};
    dj_operand_t y = case_add(&test, DJ_OP_EMBEDDING, args, 5, NULL);
    assert_int_equal(case_build(&test, &y.storage, 1), DJ_OK);
    test.bindings[2] = out;
    assert_int_equal(case_replay(&test), DJ_ERR_INVALID);
    assert_non_null(strstr(dj_error_text(), "node 0, aten::embedding"));
    indices[2] = 9;
    assert_int_equal(case_replay(&test), DJ_OK);
    case_close(&test);
}

/* x[s:s+4] + x[t:t+4], the offsets in the scalar vector. */
static void offsets_come_with_the_request(void **state)
{
    static float x[64], out[4];
    test_case_t test;
    int64_t four = 4;
    for (uint32_t i = 0; i < 64; i++)
        x[i] = (float)i;
    case_open(&test, device);
    dj_operand_t a =
        case_input(&test, DJ_CLASS_STATE, x, sizeof(x), dj_view_contiguous(DJ_F32, 1, &four));
    dj_operand_t b = a;
    a.view.offset = 3, b.view.offset = 20;
    dj_arg_t args[] = {tensor_arg(&a), tensor_arg(&b), integer_arg(1)};
    dj_operand_t y = case_add(&test, DJ_OP_ADD, args, 3, NULL);
    assert_int_equal(case_build(&test, &y.storage, 1), DJ_OK);
    test.bindings[1] = out;
    assert_int_equal(case_replay(&test), DJ_OK);
    assert_true(out[0] == 23 && out[3] == 29);
    uint64_t *scalars = (uint64_t *)test.program.scalars.data;
    scalars[0] = 60;
    assert_int_equal(case_replay(&test), DJ_OK);
    assert_true(out[0] == 80 && out[3] == 86);
    assert_true(device->ops->reentrant(test.exe));
    case_close(&test);
}

typedef struct rider {
    test_case_t *test;
    const uint64_t *scalars;
    float *out, expected;
    void *x, *stack;
    unsigned long allocations;
} rider_t;

static void *ride(void *argument)
{
    rider_t *rider = argument;
    void *bindings[] = {rider->x, rider->out};
    dj_launch_t launch = {bindings, rider->stack, NULL, rider->scalars};
    for (uint32_t i = 0; i < 20000; i++) {
        if (device->ops->replay(rider->test->exe, &launch) != DJ_OK ||
            *rider->out != rider->expected)
            return rider;
        *rider->out = 0;
    }
    return NULL;
}

static void a_reentrant_executable_runs_on_two_threads(void **state)
{
    static float x[2][64], outs[2][4];
    test_case_t test;
    int64_t four = 4;
    case_open(&test, device);
    dj_operand_t a =
        case_input(&test, DJ_CLASS_STATE, x[0], sizeof(x[0]), dj_view_contiguous(DJ_F32, 1, &four));
    a.view.offset = 1;
    dj_arg_t args[] = {tensor_arg(&a), tensor_arg(&a), integer_arg(1)};
    dj_operand_t y = case_add(&test, DJ_OP_ADD, args, 3, NULL);
    dj_arg_t twice[] = {tensor_arg(&y), tensor_arg(&a)};
    dj_operand_t z = case_add(&test, DJ_OP_MUL, twice, 2, NULL);
    assert_int_equal(case_build(&test, &z.storage, 1), DJ_OK);
    assert_true(device->ops->reentrant(test.exe));
    assert_int_equal(device->ops->bind(test.exe, test.texts), DJ_OK);
    pthread_t threads[2];
    rider_t riders[2];
    uint64_t scalars[2][4];
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t j = 0; j < 64; j++)
            x[i][j] = (float)(j + i);
        assert_true(test.program.scalars.size <= sizeof(scalars[i]));
        memcpy(scalars[i], test.program.scalars.data, test.program.scalars.size);
        riders[i] = (rider_t){.test = &test,
                              .scalars = scalars[i],
                              .out = outs[i],
                              .x = x[i],
                              .expected = i ? 8 : 2,
                              .stack = aligned_alloc(256, 65536)};
        assert_int_equal(pthread_create(&threads[i], NULL, ride, &riders[i]), 0);
    }
    for (uint32_t i = 0; i < 2; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
        free(riders[i].stack);
    }
    case_close(&test);
}

static void *replay_elsewhere(void *argument)
{
    rider_t *rider = argument;
    dj_launch_t launch = {rider->test->bindings, rider->stack, NULL,
                          (uint64_t *)rider->test->program.scalars.data};
    device->ops->thread_start(device);
    allocations_start();
    dj_status_t status = device->ops->replay(rider->test->exe, &launch);
    rider->allocations = allocations_stop();
    return status == DJ_OK ? NULL : rider;
}

/* A started thread allocates nothing, not even in its first replay. */
static void the_first_replay_of_a_thread_allocates_nothing(void **state)
{
    static layer_t layer;
    test_case_t test;
    build_layer(&test, &layer);
    assert_int_equal(device->ops->bind(test.exe, test.texts), DJ_OK);
    rider_t rider = {.test = &test,
                     .stack = aligned_alloc(256, (test.plan->peak_bytes + 255) & ~255ull)};
    pthread_t thread;
    void *wrong = NULL;
    assert_int_equal(pthread_create(&thread, NULL, replay_elsewhere, &rider), 0);
    pthread_join(thread, &wrong);
    assert_null(wrong);
    assert_int_equal(rider.allocations, 0);
    check_layer(&layer);
    free(rider.stack);
    case_close(&test);
}

/* out = where(x > 0, 0.5 x (1 + tanh(x + 0.04 x^3)), bias); x += out. Every step has 3 x 7001
 * elements. */
static void record_chain(test_case_t *test, float *x_data, float *bias_data, uint32_t *output_p)
{
    int64_t columns = 7001;
    dj_operand_t x =
        case_input(test, DJ_CLASS_STATE, x_data, 3 * 7001 * sizeof(float), matrix(3, columns));
    dj_operand_t bias = case_input(test, DJ_CLASS_STATE, bias_data, 7001 * sizeof(float),
                                   dj_view_contiguous(DJ_F32, 1, &columns));
    dj_operand_t cube =
        case_add(test, DJ_OP_POW_SCALAR, (dj_arg_t[]){tensor_arg(&x), real_arg(3)}, 2, NULL);
    dj_operand_t sum = case_add(
        test, DJ_OP_ADD, (dj_arg_t[]){tensor_arg(&x), tensor_arg(&cube), real_arg(0.04)}, 3, NULL);
    dj_operand_t tanh = case_add(test, DJ_OP_TANH, (dj_arg_t[]){tensor_arg(&sum)}, 1, NULL);
    dj_operand_t more =
        case_add(test, DJ_OP_ADD,
                 (dj_arg_t[]){tensor_arg(&tanh), tensor_arg(&tanh), real_arg(-0.5)}, 3, NULL);
    dj_operand_t positive =
        case_add(test, DJ_OP_GT_SCALAR, (dj_arg_t[]){tensor_arg(&x), integer_arg(0)}, 2, NULL);
    dj_operand_t product =
        case_add(test, DJ_OP_MUL, (dj_arg_t[]){tensor_arg(&x), tensor_arg(&more)}, 2, NULL);
    dj_operand_t out = case_add(
        test, DJ_OP_WHERE,
        (dj_arg_t[]){tensor_arg(&positive), tensor_arg(&product), tensor_arg(&bias)}, 3, NULL);
    case_add(test, DJ_OP_ADD, (dj_arg_t[]){tensor_arg(&x), tensor_arg(&out), integer_arg(1)}, 3,
             &x);
    *output_p = out.storage;
}

/* Tile by tile or step by step: the same bits, in the same memory. */
static void a_group_does_what_its_steps_do(void **state)
{
    enum { N = 3 * 7001 };
    static float x[N], start[N], bias[7001], out[N], tiled_x[N], tiled_out[N];
    test_case_t test;
    uint32_t output;
    for (uint32_t i = 0; i < N; i++)
        x[i] = start[i] = (float)((int)(i * 37 % 1001) - 500) / 300;
    for (uint32_t i = 0; i < 7001; i++)
        bias[i] = (float)i;
    case_open(&test, device);
    record_chain(&test, x, bias, &output);
    assert_int_equal(case_build(&test, &output, 1), DJ_OK);
    test.bindings[2] = out;
    const dj_host_executable_t *exe = (const dj_host_executable_t *)test.exe;
    assert_int_equal(exe->steps[0].group_steps, test.plan->n_steps);
    assert_int_equal(case_replay(&test), DJ_OK);
    memcpy(tiled_x, x, sizeof(x)), memcpy(tiled_out, out, sizeof(out));
    memcpy(x, start, sizeof(x)), memset(out, 0xff, sizeof(out));
    for (uint32_t i = 0; i < test.plan->n_steps; i++)
        test.plan->steps[i].group = i;
    assert_int_equal(device->ops->place(test.exe, test.plan), DJ_OK);
    assert_int_equal(exe->steps[0].group_steps, 1);
    assert_int_equal(case_replay(&test), DJ_OK);
    assert_memory_equal(tiled_x, x, sizeof(x));
    assert_memory_equal(tiled_out, out, sizeof(out));
    assert_true(x[1] != start[1]);
    case_close(&test);
}

static void a_counter_that_counts(void **state)
{
    allocations_start();
    void *volatile data = malloc(100);
    free(data);
    assert_int_equal(allocations_stop(), ALLOCATIONS_ARE_SEEN);
}

static void the_peak_is_the_highest_byte_changed(void **state)
{
    static uint8_t slab[1000];
    for (uint32_t bytes = 990; bytes <= 1000; bytes++) {
        dj_poison_fill(slab, bytes, DJ_POISON_BYTE);
        assert_int_equal(dj_poison_peak(slab, bytes, DJ_POISON_BYTE), 0);
        for (uint32_t at = 0; at < bytes; at += 7) {
            slab[at] = 0;
            assert_int_equal(dj_poison_peak(slab, bytes, DJ_POISON_BYTE), at + 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(threads_come_from_the_configuration),
        cmocka_unit_test(a_class_is_what_plans_depend_on),
        cmocka_unit_test(complex_numbers_are_refused),
        cmocka_unit_test(a_layer_replays),
        cmocka_unit_test(a_plan_of_another_class_is_refused),
        cmocka_unit_test(an_overrun_of_the_workspace_is_found),
        cmocka_unit_test(an_index_out_of_range_is_named),
        cmocka_unit_test(offsets_come_with_the_request),
        cmocka_unit_test(a_reentrant_executable_runs_on_two_threads),
        cmocka_unit_test(the_first_replay_of_a_thread_allocates_nothing),
        cmocka_unit_test(a_group_does_what_its_steps_do),
        cmocka_unit_test(a_counter_that_counts),
        cmocka_unit_test(the_peak_is_the_highest_byte_changed),
    };
    device = fixture_open(2);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dj_device_close(device);
    return failed;
}
