/* test_plan_memory.c - a session that shows more programs than a rank may keep: they are let go, made again
 * when they are asked for, and never taken away from under a request that uses them. */
#include <stdlib.h>
#include <string.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

enum { MANY = 200, SHOWN_MAX = 4096, LIMIT_BYTES = 1 << 20 };

static server_t server;

static int start_light(void **state)
{
    static const char *const words[] = {"--threads", "1", "--plan-bytes", "1M", NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int start_few(void **state)
{
    static const char *const words[] = {"--threads", "1", "--plans", "8", NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static djinn_t *connected(void)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
}

static djinn_tensor_t window(djinn_tensor_t tensor, int64_t size)
{
    tensor.sizes[0] = size;
    return tensor;
}

/* x + x of the first `size` elements, of which the last one comes back. */
static void add(djinn_t *djinn, djinn_tensor_t x, int64_t size)
{
    float last = 0;
    djinn_tensor_t sum = record_add(djinn, window(x, size), window(x, size));
    djinn_tensor_t end = sum;
    end.offset = size - 1;
    end.sizes[0] = 1;
    assert_ok(djinn_fetch(djinn, &end, &last, sizeof(last)));
    assert_true(last == 2 * (float)(size - 1));
    djinn_release(sum.storage);
}

static djinn_tensor_t upload(djinn_t *djinn, int64_t n)
{
    float *values = malloc((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)i;
    djinn_tensor_t x = upload_vector(djinn, values, n);
    assert_ok(djinn_fetch(djinn, &x, values, (uint64_t)n * sizeof(float))); /* it is there */
    free(values);
    return x;
}

static void programs_beyond_the_limit_are_made_again(void **state)
{
    djinn_t *djinn = connected();
    djinn_tensor_t x = upload(djinn, MANY);
    djinn_stats_t before, stats;
    djinn_stats(djinn, &before);
    for (int round = 0; round < 3; round++)
        for (int64_t size = 1; size <= MANY; size++)
            add(djinn, x, size);
    djinn_stats(djinn, &stats);
    uint64_t made = stats.plan_misses - before.plan_misses, hit = stats.plan_hits - before.plan_hits;
    assert_int_equal(made + stats.plan_resizes - before.plan_resizes, MANY); /* none planned twice */
    assert_int_equal(hit, 2 * MANY);
    assert_true(server_number(&server, 0, "plan_bytes") <= LIMIT_BYTES);
    assert_true(server_number(&server, 0, "plan_entries") < MANY / 2);
    assert_true(server_number(&server, 0, "plan_evicted") > MANY);
    assert_true(server_number(&server, 0, "plan_adopted") > MANY);
    djinn_release(x.storage);
    djinn_close(djinn);
    assert_true(server_is_empty(&server, 0));
}

/* The last program shown pushes the first one out, which the same request uses. */
static void a_request_keeps_what_it_pushes_out(void **state)
{
    djinn_t *djinn = connected();
    djinn_tensor_t x = upload(djinn, SHOWN_MAX + 64);
    for (int64_t size = 1; size <= SHOWN_MAX; size++)
        add(djinn, x, size);
    for (int64_t i = 1; i <= 32; i++) {
        djinn_tensor_t old = record_add(djinn, window(x, i), window(x, i));
        assert_ok(djinn_boundary(djinn));
        djinn_tensor_t new = record_add(djinn, window(x, SHOWN_MAX + i), window(x, SHOWN_MAX + i));
        float *sum = calloc((size_t)i, sizeof(float));
        assert_ok(djinn_fetch(djinn, &old, sum, (uint64_t)i * sizeof(float)));
        assert_true(sum[i - 1] == 2 * (float)(i - 1));
        free(sum);
        djinn_release(old.storage);
        djinn_release(new.storage);
    }
    djinn_release(x.storage);
    djinn_close(djinn);
    assert_true(server_is_empty(&server, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(programs_beyond_the_limit_are_made_again, start_light, stop),
        cmocka_unit_test_setup_teardown(a_request_keeps_what_it_pushes_out, start_few, stop),
    };
    return server_verdict(cmocka_run_group_tests(tests, NULL, NULL));
}
