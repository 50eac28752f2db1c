/* test_rank.c - a rank whose device is a GPU, as its clients meet it: what a thousand sessions leave behind, a rank
 * that is killed at work, a GPU that faults or never ends. On a GPU, or on the simulator where tests.cmake puts that in
 * front.
 *
 * "gpu_cuda_test_rank N" opens N sessions instead. What goes wrong with a GPU is the simulator's to make: elsewhere
 * those tests are skipped. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

#include "gpu/device.h"
#include "runtime/base/config.h"

enum { LENGTH = 257, STEPS = 3, WARM_SESSIONS = 8, TELEMETRY_MS = 1000, LIMIT_MS = 2000 };

static server_t server;
#ifdef __SANITIZE_ADDRESS__ /* which tells of what is left by itself */
static int n_sessions = 200;
#else
static int n_sessions = 1000;
#endif

static int start(void **state)
{
    static const char *const words[] = {"--kernel-limit-ms=2s", NULL};
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
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
}

/* Grows by a copy of `row` a step, as a cache does; the owner of `grown` before is let go. */
static void grow(djinn_t *djinn, djinn_tensor_t *grown, djinn_tensor_t row)
{
    djinn_tensor_t parts[2] = {*grown, row}, joined;
    djinn_arg_t args[] = {{.kind = DJINN_ARG_TENSORS, .count = 2, .value.tensors = parts},
                          {.kind = DJINN_ARG_INT, .value.integer = 0}};
    assert_ok(djinn_record(djinn, djinn_op("aten::cat"), args, 2, &joined));
    djinn_release(grown->storage);
    *grown = joined;
    assert_ok(djinn_flush(djinn));
}

/* Uploads, computes, grows, fetches; the caller's djinn is used up. */
static void use(djinn_t *djinn, float seed)
{
    float values[LENGTH], got[(STEPS + 1) * LENGTH];
    for (int i = 0; i < LENGTH; i++)
        values[i] = seed + (float)i;
    djinn_tensor_t x = upload_vector(djinn, values, LENGTH), grown = record_add(djinn, x, x);
    for (int i = 0; i < STEPS; i++)
        grow(djinn, &grown, x);
    assert_ok(djinn_fetch(djinn, &grown, got, sizeof(got)));
    for (int i = 0; i < (STEPS + 1) * LENGTH; i++)
        assert_true(got[i] == (i < LENGTH ? 2 : 1) * values[i % LENGTH]);
    djinn_release(grown.storage);
    djinn_release(x.storage);
    djinn_close(djinn);
}

/* What the GPU says is in use, asked for after now. */
static uint64_t used_bytes(void)
{
    sleep_ms(2 * TELEMETRY_MS);
    return server_number(&server, 0, "gpu_memory_used_bytes");
}

static void sessions_leave_the_memory_as_it_was(void **state)
{
    for (int i = 0; i < WARM_SESSIONS; i++)
        use(open_client(), (float)i);
    assert_true(server_is_empty(&server, 0));
    uint64_t before = used_bytes(), stacks = server_number(&server, 0, "stack_bytes");
    assert_true(before != UINT64_MAX && before > 0);
    for (int i = 0; i < n_sessions; i++)
        use(open_client(), (float)i);
    assert_true(server_is_empty(&server, 0));
    assert_int_equal(used_bytes(), before);
    assert_int_equal(server_number(&server, 0, "stack_bytes"), stacks);
}

/* Small weights and some of more than a page, each read once: 66 pages, had each its own. */
static void use_weights(djinn_t *djinn, djinn_tensor_t *weights, int n)
{
    enum { LARGE = 700000 };
    float *values = malloc(LARGE * sizeof(float)), *got = malloc(LARGE * sizeof(float));
    assert_true(values && got);
    for (int i = 0; i < n; i++) {
        int64_t length = i % 20 ? 100 + 37 * i : LARGE;
        for (int64_t j = 0; j < length; j++)
            values[j] = (float)(i + j % 1000);
        assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 1, &length, values, DJINN_UPLOAD_WEIGHT, &weights[i]));
        djinn_tensor_t sum = record_add(djinn, weights[i], weights[i]);
        assert_ok(djinn_fetch(djinn, &sum, got, (size_t)length * sizeof(float)));
        for (int64_t j = 0; j < length; j++)
            assert_true(got[j] == 2 * values[j]);
        djinn_release(sum.storage);
    }
    free(values);
    free(got);
}

static void come_and_go(uint64_t before)
{
    enum { WEIGHTS = 60, SWEEPS = 3 };
    djinn_tensor_t weights[WEIGHTS];
    djinn_t *djinn = open_client();
    use_weights(djinn, weights, WEIGHTS);
    assert_int_equal(server_number(&server, 0, "text_entries"), WEIGHTS);
    uint64_t used = used_bytes(); /* waits: the numbers below travel too */
    uint64_t bytes = server_number(&server, 0, "text_bytes");
    uint64_t data = server_number(&server, 0, "data_backed_bytes");
    if (before)
        assert_in_range(used - before, bytes, bytes + data + (4ull << 20));
    for (int i = 0; i < WEIGHTS; i++)
        djinn_release(weights[i].storage);
    djinn_close(djinn);
    for (int i = 0; i < SWEEPS; i++) /* each end of a session ages what nobody uses */
        use(open_client(), (float)i);
    assert_true(server_becomes(&server, 0, "text_entries", 0, 5000));
    assert_true(server_is_empty(&server, 0));
}

static void weights_share_pages_and_leave_the_memory_as_it_was(void **state)
{
    assert_true(server_is_empty(&server, 0));
    come_and_go(0); /* its plans stay */
    uint64_t before = used_bytes();
    come_and_go(before);
    assert_int_equal(used_bytes(), before);
}

static void expect_loss(int status)
{
    if (status != DJINN_ERR_DEVICE && status != DJINN_ERR_PEER_DIED)
        print_error("%s: %s\n", djinn_status_name(status), djinn_error());
    assert_true(status == DJINN_ERR_DEVICE || status == DJINN_ERR_PEER_DIED);
}

/* How often? */
static int written(const char *words)
{
    char *text = server_errors(&server);
    int n = 0;
    for (const char *at = text; at && (at = strstr(at, words)); at++)
        n++;
    if (n == 0)
        print_error("'%s' is not in: %s\n", words, text ? text : "");
    free(text);
    return n;
}

static void a_killed_rank_has_a_successor(void **state)
{
    enum { SIDE = 256, PRODUCTS = 24 };
    static float values[SIDE * SIDE], got[SIDE * SIDE];
    uint64_t incarnation = server_number(&server, 0, "incarnation");
    int64_t sides[] = {SIDE, SIDE};
    djinn_t *djinn = open_client();
    djinn_tensor_t x;
    assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 2, sides, values, 0, &x));
    djinn_tensor_t y = x;
    for (int i = 0; i < PRODUCTS; i++) {
        djinn_tensor_t before = y;
        y = record_mm(djinn, before, x);
        if (i)
            djinn_release(before.storage);
    }
    djinn_fetch_t fetch = {y, got, sizeof(got)};
    djinn_request_t *request;
    assert_ok(djinn_submit(djinn, &fetch, 1, &request));
    assert_int_equal(kill((pid_t)server_number(&server, 0, "pid"), SIGKILL), 0);
    assert_status(DJINN_ERR_PEER_DIED, djinn_wait(request));
    djinn_request_free(request);
    djinn_release(y.storage);
    djinn_release(x.storage);
    djinn_close(djinn);
    assert_true(server_becomes(&server, 0, "incarnation", incarnation + 1, 15000));
    use(open_client(), 1);
}

static void break_gpu(const char *order)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/fail", server.home);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, order, strlen(order)), strlen(order));
    close(fd);
}

/* A client's request meets what was ordered, and then both clients know; what the first one heard, and when. */
static int lose_gpu(const char *order, uint64_t *ms_p)
{
    static const float values[] = {1, 2, 3};
    float got[3];
    uint64_t incarnation = server_number(&server, 0, "incarnation");
    djinn_t *unlucky = open_client(), *other = open_client();
    djinn_tensor_t x = upload_vector(unlucky, values, 3), y = upload_vector(other, values, 3);
    assert_ok(djinn_synchronize(other));
    djinn_tensor_t sum = record_add(unlucky, x, x);
    uint64_t began_ms = now_ms();
    break_gpu(order);
    int status = djinn_fetch(unlucky, &sum, got, sizeof(got));
    *ms_p = now_ms() - began_ms;
    expect_loss(status);
    if (*order)
        assert_non_null(strstr(djinn_error(), "--kernel-limit-ms"));
    assert_true(server_becomes(&server, 0, "incarnation", incarnation + 1, 15000));
    expect_loss(djinn_fetch(other, &y, got, sizeof(got)));
    djinn_release(sum.storage);
    djinn_release(x.storage);
    djinn_release(y.storage);
    djinn_close(unlucky);
    djinn_close(other);
    return status;
}

static void a_gpu_that_faults_ends_its_rank(void **state)
{
    uint64_t ms;
    if (!getenv("DJ_SIM_MEMORY"))
        skip(); /* no GPU faults to order */
    lose_gpu("", &ms);
    assert_int_equal(written("rank 0 loses its device"), 1);
    assert_true(written("0000:01:00.0")); /* which GPU */
    assert_true(written("CUDA_ERROR_ILLEGAL_ADDRESS"));
    assert_int_equal(written("died by the failure of its GPU (exit status 4)"), 1);
    use(open_client(), 2);
}

static void a_kernel_that_never_ends_ends_its_rank(void **state)
{
    uint64_t ms;
    if (!getenv("DJ_SIM_MEMORY"))
        skip();
    assert_int_equal(lose_gpu("hang", &ms), DJINN_ERR_DEVICE);
    assert_in_range(ms, LIMIT_MS, LIMIT_MS + 1000);
    assert_int_equal(written("rank 0 loses its device"), 2);
    assert_int_equal(written("nothing has ended there for 2000 ms (--kernel-limit-ms)"), 1);
    assert_int_equal(written("died by the failure of its GPU (exit status 4)"), 2);
    use(open_client(), 3);
}

static void a_rank_whose_thread_never_leaves_the_driver_ends(void **state)
{
    uint64_t ms;
    if (!getenv("DJ_SIM_MEMORY"))
        skip();
    assert_int_equal(lose_gpu("stuck", &ms), DJINN_ERR_DEVICE);
    assert_in_range(ms, LIMIT_MS, LIMIT_MS + 1000);
    assert_int_equal(written("rank 0 loses its device"), 3);
    assert_int_equal(written("nothing has ended there for 2000 ms (--kernel-limit-ms)"), 2);
    assert_int_equal(written("died by the failure of its GPU (exit status 4)"), 3);
    use(open_client(), 4);
}

static bool has_gpu(void)
{
    dj_config_t config = {.device = "cuda", .cores = "", .cuda_graphs = true, .numerics = "exact", .kernel_cache = ""};
    dj_device_t *device;
    if (dj_device_open(&config, &device) != DJ_OK) {
        printf("skipped: %s\n", dj_error_text());
        return false;
    }
    dj_device_close(device);
    return true;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_leave_the_memory_as_it_was),
        cmocka_unit_test(weights_share_pages_and_leave_the_memory_as_it_was),
        cmocka_unit_test(a_killed_rank_has_a_successor),
        cmocka_unit_test(a_gpu_that_faults_ends_its_rank),
        cmocka_unit_test(a_kernel_that_never_ends_ends_its_rank),
        cmocka_unit_test(a_rank_whose_thread_never_leaves_the_driver_ends),
    };
    if (argc == 2)
        n_sessions = atoi(argv[1]);
    if (!has_gpu())
        return 77;
    setenv("TEST_CUDA", "1", 1);
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
