/* test_pressure.c - programs that need more Stack than the rank allows: run all the same, with values made
 * twice or kept in the second slab, to the same bytes as step by step; and refused where that cannot be. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

enum { SIDE = 64, COUNT = SIDE * SIDE, STEPS = 4 };

static server_t server;

static int start(void **state)
{
    /* two matrices of 16 KiB, not three */
    static const char *const words[] = {"--threads", "1", "--stack-bytes", "40K", "--spill-bytes",
                                        "20K", NULL};
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

static djinn_tensor_t softmax(djinn_t *djinn, djinn_tensor_t x, int64_t dim)
{
    djinn_arg_t args[] = {arg_tensor(&x), {.kind = DJINN_ARG_INT, .value.integer = dim},
                          {.kind = DJINN_ARG_INT, .value.integer = 0}};
    djinn_tensor_t out;
    assert_ok(djinn_record(djinn, djinn_op("aten::_softmax"), args, 3, &out));
    return out;
}

/* A value made first, read first and last. `from_input`: it can be made again of what the client sent.
 * `step_by_step`: every value of a request of its own, and so in Data. */
static void run(djinn_t *djinn, bool from_input, bool step_by_step, float *result)
{
    int64_t sizes[] = {SIDE, SIDE};
    float values[COUNT];
    djinn_tensor_t made[STEPS + 3], x;
    int n = 0;
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)(i * 37 % 101) / 10;
    assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 2, sizes, values, 0, &x));
    if (!from_input)
        made[n++] = softmax(djinn, x, 0);
    djinn_tensor_t kept = softmax(djinn, from_input ? x : made[0], 1);
    made[n++] = kept;
    for (int i = 0; i < STEPS; i++) {
        if (step_by_step)
            assert_ok(djinn_synchronize(djinn));
        made[n] = softmax(djinn, made[n - 1], i % 2);
        n++;
    }
    djinn_tensor_t last = record_add(djinn, made[n - 1], kept);
    for (int i = 0; i < n; i++)
        djinn_release(made[i].storage); /* only the last leaves the request, unless it did already */
    assert_ok(djinn_fetch(djinn, &last, result, COUNT * sizeof(float)));
    djinn_release(last.storage);
    djinn_release(x.storage);
    assert_ok(djinn_synchronize(djinn));
}

static void expect_fitted(bool from_input, const char *word)
{
    float whole[COUNT], steps[COUNT];
    djinn_t *djinn = open_client();
    run(djinn, from_input, false, whole);
    djinn_stats_t stats;
    djinn_stats(djinn, &stats);
    assert_true(stats.stack_peak_bytes > 0 && stats.stack_peak_bytes <= 40 << 10);
    run(djinn, from_input, true, steps);
    assert_memory_equal(whole, steps, sizeof(whole));
    run(djinn, from_input, false, steps); /* warm */
    assert_memory_equal(whole, steps, sizeof(whole));
    char *errors = server_errors(&server);
    if (!strstr(errors, word))
        print_error("no '%s' in: %s\n", word, errors);
    assert_non_null(strstr(errors, word));
    free(errors);
    djinn_close(djinn);
}

static void what_can_be_made_again_is(void **state)
{
    expect_fitted(true, "1 values recomputed, 0 spilled");
}

static void what_cannot_be_made_again_is_spilled(void **state)
{
    expect_fitted(false, "0 values recomputed, 1 spilled");
}

/* One op whose operand and result are more than there is. */
static void what_one_op_needs_is_refused(void **state)
{
    int64_t sizes[] = {2 * SIDE, 2 * SIDE};
    static float values[4 * COUNT];
    djinn_t *djinn = open_client();
    djinn_tensor_t x, y, z, last;
    assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 2, sizes, values, 0, &x));
    for (int i = 0; i < 2; i++) {
        y = softmax(djinn, x, 1);
        z = softmax(djinn, y, 0);
        last = softmax(djinn, z, 1);
        djinn_release(y.storage);
        djinn_release(z.storage);
        assert_status(DJINN_ERR_RESOURCE, djinn_fetch(djinn, &last, values, sizeof(values)));
        assert_told("--stack-bytes");
        djinn_release(last.storage);
    }
    djinn_release(x.storage);
    run(djinn, true, false, values); /* the session goes on */
    djinn_close(djinn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_op_needs_is_refused),
        cmocka_unit_test(what_can_be_made_again_is),
        cmocka_unit_test(what_cannot_be_made_again_is_spilled),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
