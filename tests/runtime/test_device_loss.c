/* test_device_loss.c - a GPU that fails for good: its rank says so once, answers and ends, its supervisor starts
 * it anew, and no other rank minds. The device is the blind one, which fails on demand. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

static server_t server;

static int start_one(void **state)
{
    return server_start(&server, 1, NULL) ? 0 : -1;
}

static int start_three(void **state)
{
    return server_start(&server, 3, NULL) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static djinn_t *open_client(void)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
}

/* The next replay, of whichever rank, finds its device failed. */
static void break_device(void)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/fail", server.home);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static int compute(djinn_t *djinn, float *result)
{
    static const float values[] = {1, 2, 3};
    int64_t n = 3;
    djinn_tensor_t x;
    int status = djinn_upload(djinn, DJINN_FLOAT32, 1, &n, values, 0, &x);
    if (status != DJINN_OK)
        return status;
    djinn_tensor_t sum = record_add(djinn, x, x);
    status = djinn_fetch(djinn, &sum, result, 3 * sizeof(float));
    djinn_release(sum.storage);
    djinn_release(x.storage);
    return status;
}

static int count_words(const char *words)
{
    char *text = server_errors(&server);
    int count = 0;
    for (const char *at = text; (at = strstr(at, words)); at++)
        count++;
    free(text);
    return count;
}

static void expect_loss(int status)
{
    if (status != DJINN_ERR_DEVICE && status != DJINN_ERR_PEER_DIED)
        print_error("%s: %s\n", djinn_status_name(status), djinn_error());
    assert_true(status == DJINN_ERR_DEVICE || status == DJINN_ERR_PEER_DIED);
}

static void a_failed_device_ends_its_rank_which_returns(void **state)
{
    float result[3];
    djinn_t *unlucky = open_client(), *other = open_client();
    assert_ok(compute(unlucky, result));
    assert_ok(compute(other, result));
    break_device();
    assert_status(DJINN_ERR_DEVICE, compute(unlucky, result));
    assert_told("made to fail");
    assert_true(server_becomes(&server, 0, "incarnation", 1, 5000));
    expect_loss(compute(other, result));
    djinn_close(unlucky);
    djinn_close(other);
    assert_int_equal(count_words("loses its device"), 1);
    assert_int_equal(count_words("made to fail"), 1);
    assert_int_equal(count_words("rank 0 died by the failure of its GPU (exit status 4); restart 1"), 1);
    djinn_t *next = open_client();
    assert_ok(compute(next, result));
    assert_true(result[2] == 6);
    djinn_close(next);
}

/* Many requests in flight: each is answered, or its client hears of the loss; nobody waits. */
static void requests_in_flight_are_over_at_once(void **state)
{
    float results[40][3], values[] = {1, 2, 3};
    djinn_t *djinn = open_client();
    djinn_tensor_t x = upload_vector(djinn, values, 3), sums[40];
    assert_ok(djinn_synchronize(djinn));
    for (int i = 0; i < 40; i++)
        sums[i] = record_add(djinn, x, i ? sums[i - 1] : x);
    break_device();
    uint64_t began = now_ms();
    for (int i = 0; i < 40; i++)
        expect_loss(djinn_fetch(djinn, &sums[i], results[i], sizeof(results[i])));
    assert_true(now_ms() - began < 3000);
    for (int i = 0; i < 40; i++)
        djinn_release(sums[i].storage);
    djinn_release(x.storage);
    djinn_close(djinn);
    assert_true(server_becomes(&server, 0, "incarnation", 2, 8000));
}

static void telemetry_is_shown(void **state)
{
    assert_true(server_becomes(&server, 0, "gpu_utilization_percent", 37, 5000));
    assert_int_equal(server_number(&server, 0, "gpu_temperature_c"), 41);
    assert_int_equal(server_number(&server, 0, "gpu_ecc_corrected"), UINT64_MAX);
    assert_int_equal(server_number(&server, 0, "gpu_xid"), 0);
}

/* The clients of other ranks do not notice. */
static void other_ranks_go_on(void **state)
{
    float result[3];
    djinn_t *clients[2] = {open_client(), open_client()};
    assert_ok(compute(clients[0], result));
    assert_ok(compute(clients[1], result));
    break_device();
    expect_loss(compute(clients[0], result));
    assert_ok(compute(clients[1], result));
    assert_true(server_becomes(&server, 1, "incarnation", 1, 5000) ||
                server_becomes(&server, 2, "incarnation", 1, 1000));
    assert_int_equal(server_number(&server, 1, "incarnation") + server_number(&server, 2, "incarnation"), 1);
    assert_ok(compute(clients[1], result));
    djinn_close(clients[0]);
    djinn_close(clients[1]);
}

int main(void)
{
    const struct CMUnitTest one[] = {
        cmocka_unit_test(telemetry_is_shown),
        cmocka_unit_test(a_failed_device_ends_its_rank_which_returns),
        cmocka_unit_test(requests_in_flight_are_over_at_once),
    };
    const struct CMUnitTest three[] = {
        cmocka_unit_test(other_ranks_go_on),
    };
    setenv("TEST_BLIND", "1", 0);
    int failed = cmocka_run_group_tests(one, start_one, stop);
    return server_verdict(failed + cmocka_run_group_tests(three, start_three, stop));
}
