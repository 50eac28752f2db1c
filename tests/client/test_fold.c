/* test_fold.c - what weights alone feed is computed once per content: two fine-tunes share plans and no
 * value, two sessions of one model share the value, and a scalar that moves leaves nothing behind. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

enum { SIDE = 16, COUNT = SIDE * SIDE, PAGE_MAX = 2 << 20 };

static server_t server;

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static djinn_t *open_client(void)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    options.mode = getenv("TEST_MODE");
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
}

static djinn_tensor_t upload(djinn_t *djinn, float first, uint32_t flags)
{
    int64_t sizes[] = {SIDE, SIDE};
    float values[COUNT];
    djinn_tensor_t tensor;
    for (int i = 0; i < COUNT; i++)
        values[i] = first + (float)i / COUNT;
    assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 2, sizes, values, flags, &tensor));
    return tensor;
}

/* x * tanh(number + w), elementwise: the second factor is the weight's and the number's alone. */
static void run(djinn_t *djinn, djinn_tensor_t x, djinn_tensor_t w, double number, float *result)
{
    djinn_arg_t add[] = {arg_tensor(&w), {.kind = DJINN_ARG_REAL_SCALAR, .value.real = number},
                         arg_int(1)};
    djinn_tensor_t sum, factor, y;
    assert_ok(djinn_record(djinn, djinn_op("aten::add.Tensor"), add, 3, &sum));
    djinn_arg_t tanh_args[] = {arg_tensor(&sum)};
    assert_ok(djinn_record(djinn, djinn_op("aten::tanh"), tanh_args, 1, &factor));
    djinn_arg_t mul[] = {arg_tensor(&x), arg_tensor(&factor)};
    assert_ok(djinn_record(djinn, djinn_op("aten::mul.Tensor"), mul, 2, &y));
    djinn_release(sum.storage);
    djinn_release(factor.storage);
    assert_ok(djinn_fetch(djinn, &y, result, COUNT * sizeof(float)));
    djinn_release(y.storage);
}

static void expect(const float *result, float x_first, float w_first, double number)
{
    for (int i = 0; i < COUNT; i++) {
        float x = x_first + (float)i / COUNT, w = w_first + (float)i / COUNT;
        float right = x * tanhf(w + (float)number);
        if (fabsf(result[i] - right) > 1e-5f)
            fail_msg("element %d: %g, not %g", i, (double)result[i], (double)right);
    }
}

static uint64_t packed(void)
{
    return server_number(&server, 0, "pack_bytes");
}

static void fine_tunes_share_plans_and_no_value(void **state)
{
    float result[COUNT];
    djinn_stats_t stats;
    djinn_t *first = open_client(), *second = open_client(), *third = open_client();
    djinn_tensor_t x1 = upload(first, 1, 0), w1 = upload(first, 0.25f, DJINN_UPLOAD_WEIGHT);
    djinn_tensor_t x2 = upload(second, 1, 0), w2 = upload(second, -2, DJINN_UPLOAD_WEIGHT);
    djinn_tensor_t x3 = upload(third, 3, 0), w3 = upload(third, 0.25f, DJINN_UPLOAD_WEIGHT);
    run(first, x1, w1, 1, result);
    expect(result, 1, 0.25f, 1);
    assert_true(server_becomes(&server, 0, "pack_bytes", COUNT * sizeof(float), 2000));
    run(second, x2, w2, 1, result); /* another content */
    expect(result, 1, -2, 1);
    djinn_stats(second, &stats);
    assert_int_equal(stats.plan_misses, 0);
    assert_int_equal(stats.plan_hits, 1);
    assert_true(server_becomes(&server, 0, "pack_bytes", 2 * COUNT * sizeof(float), 2000));
    uint64_t mapped = server_number(&server, 0, "text_mapped_bytes");
    assert_in_range(mapped, server_number(&server, 0, "text_bytes") + packed(), 4 * PAGE_MAX);
    run(third, x3, w3, 1, result); /* the first one's content in a session of its own */
    expect(result, 3, 0.25f, 1);
    for (int i = 0; i < 3; i++) { /* turn by turn on one executable */
        run(first, x1, w1, 1, result);
        expect(result, 1, 0.25f, 1);
        run(second, x2, w2, 1, result);
        expect(result, 1, -2, 1);
    }
    sleep_ms(300); /* counters follow within a tenth of a second */
    assert_int_equal(packed(), 2 * COUNT * sizeof(float));
    djinn_tensor_t *all[] = {&x1, &w1, &x2, &w2, &x3, &w3};
    for (int i = 0; i < 6; i++)
        djinn_release(all[i]->storage);
    djinn_close(first);
    djinn_close(second);
    djinn_close(third);
}

static void a_number_that_moves_leaves_little_behind(void **state)
{
    float result[COUNT];
    djinn_t *djinn = open_client();
    djinn_tensor_t x = upload(djinn, 1, 0), w = upload(djinn, 5, DJINN_UPLOAD_WEIGHT);
    uint64_t before = packed();
    for (int i = 0; i < 40; i++) {
        run(djinn, x, w, -i / 4.0, result);
        expect(result, 1, 5, -i / 4.0);
    }
    sleep_ms(300);
    assert_true(packed() <= before + 16 * COUNT * sizeof(float));
    djinn_release(x.storage);
    djinn_release(w.storage);
    djinn_close(djinn);
    assert_true(server_is_empty(&server, 0));
}

/* x * cat(tanh(w), tanh(own), tanh(w)) by rows: the second factor is one folded value that its parts are
 * written into. The weight that holds it and the last part are shared, what lies between them is not. */
static void run_parts(djinn_t *djinn, float own_first, float *result)
{
    int64_t sizes[] = {3 * SIDE, SIDE};
    float ones[3 * COUNT];
    djinn_tensor_t x, y, all, w[3], parts[3];
    for (int i = 0; i < 3 * COUNT; i++)
        ones[i] = 1;
    assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 2, sizes, ones, 0, &x));
    for (int i = 0; i < 3; i++) {
        w[i] = upload(djinn, i == 1 ? own_first : 0.5f * (float)i, DJINN_UPLOAD_WEIGHT);
        djinn_arg_t args[] = {arg_tensor(&w[i])};
        assert_ok(djinn_record(djinn, djinn_op("aten::tanh"), args, 1, &parts[i]));
    }
    djinn_arg_t cat[] = {{.kind = DJINN_ARG_TENSORS, .count = 3, .value.tensors = parts},
                         {.kind = DJINN_ARG_INT, .value.integer = 0}};
    assert_ok(djinn_record(djinn, djinn_op("aten::cat"), cat, 2, &all));
    djinn_arg_t mul[] = {arg_tensor(&x), arg_tensor(&all)};
    assert_ok(djinn_record(djinn, djinn_op("aten::mul.Tensor"), mul, 2, &y));
    djinn_release(all.storage);
    for (int i = 0; i < 3; i++)
        djinn_release(parts[i].storage);
    assert_ok(djinn_fetch(djinn, &y, result, 3 * COUNT * sizeof(float)));
    djinn_release(y.storage);
    djinn_release(x.storage);
    for (int i = 0; i < 3; i++)
        djinn_release(w[i].storage);
}

static void a_value_made_of_parts_belongs_to_all_of_them(void **state)
{
    float result[3 * COUNT];
    static const float own[] = {7, -3, 7};
    djinn_t *djinn = open_client();
    for (int round = 0; round < 3; round++) {
        run_parts(djinn, own[round], result);
        for (int i = 0; i < 3 * COUNT; i++) {
            float first = i / COUNT == 1 ? own[round] : 0.5f * (float)(i / COUNT);
            float right = tanhf(first + (float)(i % COUNT) / COUNT);
            if (fabsf(result[i] - right) > 1e-5f)
                fail_msg("round %d, element %d: %g, not %g", round, i, (double)result[i],
                         (double)right);
        }
    }
    djinn_close(djinn);
}

/* What the rank says a program of 100 ops on `w` weighs. */
static uint64_t weight_of_program(djinn_t *djinn, uint32_t flags)
{
    float result[COUNT];
    djinn_tensor_t x = upload(djinn, 1, 0), w = upload(djinn, 0.125f, flags), y, next;
    sleep_ms(300);
    uint64_t before = server_number(&server, 0, "plan_bytes");
    djinn_arg_t first[] = {arg_tensor(&w)};
    assert_ok(djinn_record(djinn, djinn_op("aten::tanh"), first, 1, &y));
    for (int i = 1; i < 100; i++) {
        djinn_arg_t args[] = {arg_tensor(&y)};
        assert_ok(djinn_record(djinn, djinn_op("aten::tanh"), args, 1, &next));
        djinn_release(y.storage);
        y = next;
    }
    djinn_arg_t mul[] = {arg_tensor(&x), arg_tensor(&y)};
    assert_ok(djinn_record(djinn, djinn_op("aten::mul.Tensor"), mul, 2, &next));
    djinn_release(y.storage);
    assert_ok(djinn_fetch(djinn, &next, result, sizeof(result)));
    djinn_release(next.storage);
    djinn_release(x.storage);
    djinn_release(w.storage);
    sleep_ms(300);
    return server_number(&server, 0, "plan_bytes") - before;
}

static void the_folded_part_is_weighed(void **state)
{
    djinn_t *djinn = open_client();
    uint64_t whole = weight_of_program(djinn, 0);
    assert_true(whole > 0);
    assert_true(weight_of_program(djinn, DJINN_UPLOAD_WEIGHT) > whole);
    djinn_close(djinn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fine_tunes_share_plans_and_no_value),
        cmocka_unit_test(a_value_made_of_parts_belongs_to_all_of_them),
        cmocka_unit_test(the_folded_part_is_weighed),
        cmocka_unit_test(a_number_that_moves_leaves_little_behind),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
