/* test_requests.c - one client, one rank: plans that are hit, bytes both ways, order, deadlines,
 * waiting.
 *
 * Each test has a connection of its own on one server; afterwards the rank must hold nothing. Run a
 * second time with DJINN_EXECUTION_MODE=remote semantics (tcp) and a third under --poison. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "tests/client/ops.h"
#include "tests/runtime/server.h"

enum { N = 64 };

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

static djinn_t *connect_with(uint32_t deadline_ms)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    options.mode = getenv("TEST_MODE");
    options.deadline_ms = deadline_ms;
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
}

static int open_client(void **state)
{
    *state = connect_with(20000);
    return 0;
}

/* Closing returns after the memory is back: the rank is asked at once. */
static int close_client(void **state)
{
    djinn_close(*state);
    return server_is_empty(&server, 0) ? 0 : -1;
}

static void fill(float *values, int64_t n, float first)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = first + (float)i;
}

/* ---- plans ---- */

static void add_once(djinn_t *djinn, int64_t n)
{
    float a[N], b[N], c[N];
    fill(a, n, 1);
    fill(b, n, 100);
    djinn_tensor_t ta = upload_vector(djinn, a, n), tb = upload_vector(djinn, b, n);
    djinn_tensor_t tc = record_add(djinn, ta, tb);
    assert_ok(djinn_fetch(djinn, &tc, c, (uint64_t)n * sizeof(float)));
    for (int64_t i = 0; i < n; i++)
        assert_true(c[i] == a[i] + b[i]);
    djinn_release(ta.storage);
    djinn_release(tb.storage);
    djinn_release(tc.storage);
}

static void sizes_resize_and_repeats_hit(void **state)
{
    djinn_stats_t s;
    add_once(*state, 32);
    djinn_stats(*state, &s);
    assert_int_equal(s.plan_misses, 1);
    add_once(*state, 40);
    djinn_stats(*state, &s);
    assert_int_equal(s.plan_misses, 1);
    assert_int_equal(s.plan_resizes, 1);
    add_once(*state, 32);
    add_once(*state, 40);
    djinn_stats(*state, &s);
    assert_int_equal(s.plan_misses + s.plan_resizes, 2);
    assert_int_equal(s.plan_hits, 2);
}

static void a_second_client_hits_at_once(void **state)
{
    djinn_stats_t s;
    add_once(*state, 32);
    djinn_t *second = connect_with(0);
    add_once(second, 32);
    djinn_stats(second, &s);
    assert_int_equal(s.plan_hits, 1);
    assert_int_equal(s.plan_misses + s.plan_resizes, 0);
    djinn_close(second);
}

/* One message each way a warm request, by the client's count and by the rank's. */
static void a_warm_request_is_one_message_each_way(void **state)
{
    djinn_stats_t before, after;
    add_once(*state, 16);
    add_once(*state, 16); /* releases of the first are on their way too */
    sleep_ms(120);        /* two sweeps of the rank's counters */
    uint64_t in = server_number(&server, 0, "messages_in");
    uint64_t out = server_number(&server, 0, "messages_out");
    djinn_stats(*state, &before);
    for (int i = 0; i < 50; i++)
        add_once(*state, 16);
    djinn_stats(*state, &after);
    assert_int_equal(after.requests - before.requests, 50);
    assert_int_equal(after.messages_out - before.messages_out, 50);
    assert_int_equal(after.messages_in - before.messages_in, 50);
    assert_int_equal(after.program_bytes, before.program_bytes);
    assert_true(server_becomes(&server, 0, "messages_in", in + 50, 2000));
    assert_true(server_becomes(&server, 0, "messages_out", out + 50, 2000));
}

/* ---- bytes ---- */

static void sixteen_mebibytes_both_ways(void **state)
{
    int64_t n = 4 << 20;
    float *up = malloc((size_t)n * 4), *down = malloc((size_t)n * 4);
    djinn_tensor_t sum;
    djinn_stats_t s;
    fill(up, n, 3);
    djinn_tensor_t t = upload_vector(*state, up, n);
    assert_ok(djinn_fetch(*state, &t, down, (uint64_t)n * 4));
    assert_memory_equal(up, down, (size_t)n * 4);
    sum = record_add(*state, t, t);
    assert_ok(djinn_fetch(*state, &sum, down, (uint64_t)n * 4));
    for (int64_t i = 0; i < n; i++)
        assert_true(down[i] == up[i] + up[i]);
    djinn_stats(*state, &s);
    assert_true(s.rendezvous >= 2);
    assert_true(s.bytes_up >= 16 << 20);
    djinn_release(t.storage);
    djinn_release(sum.storage);
    free(up);
    free(down);
}

static void several_large_fetches_in_one_request(void **state)
{
    enum { COUNT = 5, BYTES = 1 << 20 };
    uint8_t *up = malloc(BYTES), *down[COUNT];
    djinn_fetch_t fetches[COUNT];
    djinn_request_t *request;
    for (int i = 0; i < COUNT; i++) {
        int64_t size = BYTES;
        memset(up, 'a' + i, BYTES);
        down[i] = malloc(BYTES);
        assert_ok(djinn_upload(*state, DJINN_UINT8, 1, &size, up, 0, &fetches[i].tensor));
        fetches[i].target = down[i];
        fetches[i].bytes = BYTES;
    }
    assert_ok(djinn_submit(*state, fetches, COUNT, &request));
    assert_ok(djinn_wait(request));
    djinn_request_free(request);
    for (int i = 0; i < COUNT; i++) {
        memset(up, 'a' + i, BYTES);
        assert_memory_equal(up, down[i], BYTES);
        djinn_release(fetches[i].tensor.storage);
        free(down[i]);
    }
    free(up);
}

static void views_arrive_dense(void **state)
{
    float m[6 * 8], t[8 * 6], part[2 * 3];
    int64_t sizes[] = {6, 8};
    djinn_tensor_t whole;
    fill(m, 48, 0);
    assert_ok(djinn_upload(*state, DJINN_FLOAT32, 2, sizes, m, 0, &whole));
    djinn_tensor_t view = whole;
    view.sizes[0] = 8, view.sizes[1] = 6, view.strides[0] = 1, view.strides[1] = 8;
    assert_ok(djinn_fetch(*state, &view, t, sizeof(t)));
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 6; j++)
            assert_true(t[i * 6 + j] == m[j * 8 + i]);
    view = whole; /* every other row and column from (1, 2) on */
    view.offset = 10, view.sizes[0] = 2, view.sizes[1] = 3, view.strides[0] = 16,
    view.strides[1] = 2;
    assert_ok(djinn_fetch(*state, &view, part, sizeof(part)));
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            assert_true(part[i * 3 + j] == m[(1 + 2 * i) * 8 + 2 + 2 * j]);
    view.sizes[0] = 5; /* leads past the storage's end */
    assert_true(djinn_fetch(*state, &view, t, 60) < 0);
    assert_status(DJINN_ERR_INVALID, djinn_fetch(*state, &whole, m, sizeof(m) - 1));
    djinn_release(whole.storage);
}

static void nothing_is_a_tensor_too(void **state)
{
    float none[1] = {7};
    int64_t sizes[] = {0, 5};
    djinn_tensor_t empty, weight;
    assert_ok(djinn_upload(*state, DJINN_FLOAT32, 2, sizes, none, 0, &empty));
    djinn_tensor_t sum = record_add(*state, empty, empty);
    assert_int_equal(sum.sizes[0], 0);
    assert_ok(djinn_fetch(*state, &sum, none, 0));
    assert_ok(djinn_fetch(*state, &empty, none, 0));
    assert_true(none[0] == 7);
    assert_ok(djinn_upload(*state, DJINN_FLOAT32, 2, sizes, none, DJINN_UPLOAD_WEIGHT, &weight));
    assert_ok(djinn_fetch(*state, &weight, none, 0));
    djinn_release(empty.storage);
    djinn_release(weight.storage);
    djinn_release(sum.storage);
}

/* ---- order ---- */

enum { THREADS = 4, TURNS = 50 };

typedef struct counting {
    djinn_t *djinn;
    djinn_tensor_t shared;
    pthread_mutex_t *turn;
} counting_t;

static void *count_up(void *argument)
{
    counting_t *counting = argument;
    for (int i = 0; i < TURNS; i++) {
        pthread_mutex_lock(counting->turn);
        record_add_into(counting->djinn, counting->shared, 1);
        pthread_mutex_unlock(counting->turn);
        add_once(counting->djinn, 8); /* sends mine between the others' */
    }
    return NULL;
}

/* Increments commute, so this one is about none getting lost. */
static void threads_lose_nothing(void **state)
{
    float start_at[N] = {0}, end[N];
    pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    counting_t counting = {*state, upload_vector(*state, start_at, N), &turn};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &counting), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_ok(djinn_fetch(*state, &counting.shared, end, sizeof(end)));
    for (int i = 0; i < N; i++)
        assert_true(end[i] == THREADS * TURNS);
    djinn_release(counting.shared.storage);
}

static void more_requests_in_flight_than_there_are_credits(void **state)
{
    enum { COUNT = 2500 };
    float zero[8] = {0}, *seen = calloc(COUNT, sizeof(zero));
    djinn_request_t **requests = calloc(COUNT, sizeof(*requests));
    djinn_tensor_t t = upload_vector(*state, zero, 8);
    for (int i = 0; i < COUNT; i++) {
        djinn_fetch_t fetch = {t, seen + i * 8, sizeof(zero)};
        record_add_into(*state, t, 1);
        assert_ok(djinn_submit(*state, &fetch, 1, &requests[i]));
    }
    for (int i = COUNT; i-- > 0;) { /* waiting for the last first */
        assert_ok(djinn_wait(requests[i]));
        djinn_request_free(requests[i]);
    }
    for (int i = 0; i < COUNT; i++)
        assert_true(seen[i * 8] == (float)(i + 1) && seen[i * 8 + 7] == (float)(i + 1));
    djinn_release(t.storage);
    free(requests);
    free(seen);
}

typedef struct alternating {
    counting_t counting;
    pthread_barrier_t barrier;
} alternating_t;

/* Doubles at every odd beat; the other thread adds 1 at every even one. Neither sends anything. */
static void *double_by_turns(void *argument)
{
    alternating_t *a = argument;
    djinn_arg_t twice[] = {arg_tensor(&a->counting.shared), arg_int(2)};
    for (int i = 0; i < 10; i++) {
        pthread_barrier_wait(&a->barrier);
        assert_ok(djinn_record_into(a->counting.djinn, djinn_op("aten::mul.Tensor"), twice, 2,
                                    &a->counting.shared));
        pthread_barrier_wait(&a->barrier);
    }
    return NULL;
}

/* What one thread has recorded and another uses goes first. */
static void turns_of_two_threads_stay_in_order(void **state)
{
    float values[4] = {0}, want = 0;
    alternating_t a = {.counting = {*state, upload_vector(*state, values, 4), NULL}};
    pthread_t thread;
    pthread_barrier_init(&a.barrier, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, double_by_turns, &a), 0);
    for (int i = 0; i < 10; i++) {
        record_add_into(*state, a.counting.shared, 1);
        pthread_barrier_wait(&a.barrier);
        pthread_barrier_wait(&a.barrier);
        want = 2 * (want + 1);
    }
    pthread_join(thread, NULL);
    assert_ok(djinn_fetch(*state, &a.counting.shared, values, sizeof(values)));
    assert_true(values[0] == want && values[3] == want);
    pthread_barrier_destroy(&a.barrier);
    djinn_release(a.counting.shared.storage);
}

/* Requests above 32 KiB go by rendezvous and arrive in two steps; what is sent behind them must
 * wait. With c = c + 1 and c = 2c by turns, any other order gives another number. */
static void small_requests_do_not_overtake_large_ones(void **state)
{
    enum { SIDE = 12000, TURNS_HERE = 20 };
    float *ones = malloc(SIDE * 4), *end = malloc(SIDE * 4), want = 0;
    for (int i = 0; i < SIDE; i++)
        ones[i] = 1;
    memset(end, 0, SIDE * 4);
    djinn_tensor_t c = upload_vector(*state, end, SIDE);
    for (int turn = 0; turn < TURNS_HERE; turn++) {
        djinn_tensor_t big = upload_vector(*state, ones, SIDE); /* travels with its request */
        djinn_arg_t add[] = {arg_tensor(&c), arg_tensor(&big), arg_int(1)};
        assert_ok(djinn_record_into(*state, djinn_op("aten::add.Tensor"), add, 3, &c));
        assert_ok(djinn_flush(*state));
        djinn_release(big.storage);
        djinn_arg_t twice[] = {arg_tensor(&c), arg_int(2)};
        assert_ok(djinn_record_into(*state, djinn_op("aten::mul.Tensor"), twice, 2, &c));
        assert_ok(djinn_flush(*state));
        want = 2 * (want + 1);
    }
    assert_ok(djinn_fetch(*state, &c, end, SIDE * 4));
    assert_true(end[0] == want && end[SIDE - 1] == want);
    djinn_release(c.storage);
    free(ones);
    free(end);
}

/* ---- waiting ---- */

/* One core of today takes several times the deadline for these products. */
enum { SIDE = 1024, PRODUCTS = 40, DEADLINE_MS = 150 };

static djinn_tensor_t record_long(djinn_t *djinn, djinn_tensor_t m, int products)
{
    djinn_tensor_t out = m;
    for (int i = 0; i < products; i++) {
        djinn_tensor_t next = record_mm(djinn, out, m);
        if (out.storage != m.storage)
            djinn_release(out.storage);
        out = next;
    }
    return out;
}

/* SIDE x SIDE, each element 1/SIDE: a projection, so that powers stay in range. Nothing is
 * uploaded. */
static djinn_tensor_t record_square(djinn_t *djinn)
{
    djinn_tensor_t m;
    djinn_arg_t args[] = {
        {.kind = DJINN_ARG_INTS, .count = 2, .value.integers = (int64_t[]){SIDE, SIDE}},
        {.kind = DJINN_ARG_REAL_SCALAR, .value.real = 1.0 / SIDE},
        {.kind = DJINN_ARG_INT, .value.integer = DJINN_FLOAT32}};
    assert_ok(djinn_record(djinn, djinn_op("djinn::full"), args, 3, &m));
    return m;
}

/* The rank works long enough that the client really sleeps; the descriptor must wake it. */
static void a_descriptor_tells_of_answers(void **state)
{
    float one;
    djinn_tensor_t m = record_square(*state);
    for (int turn = 0; turn < 3; turn++) {
        djinn_tensor_t out = record_long(*state, m, 6), first = out;
        first.rank = 1, first.sizes[0] = 1, first.strides[0] = 1;
        djinn_fetch_t fetch = {first, &one, sizeof(one)};
        djinn_request_t *request;
        djinn_status_t status;
        int slept = 0;
        assert_ok(djinn_submit(*state, &fetch, 1, &request));
        while ((status = djinn_test(request)) == DJINN_IN_PROGRESS) {
            struct pollfd poller = {.fd = djinn_fd(*state), .events = POLLIN};
            if (djinn_arm(*state) != DJINN_OK)
                continue;
            assert_int_equal(poll(&poller, 1, 20000), 1);
            slept++;
        }
        assert_ok(status);
        assert_in_range(slept, 1, 1000);
        assert_true(one > 0);
        djinn_request_free(request);
        djinn_release(out.storage);
    }
    djinn_release(m.storage);
}

static void a_deadline_passes_while_the_rank_works(void **state)
{
    djinn_t *hurried = connect_with(DEADLINE_MS);
    float *down = malloc(SIDE * SIDE * 4);
    djinn_tensor_t m = record_square(hurried), out = record_long(hurried, m, PRODUCTS);
    uint64_t began_ms = now_ms();
    assert_status(DJINN_ERR_DEADLINE, djinn_fetch(hurried, &out, down, SIDE * SIDE * 4));
    assert_told("deadline");
    /* deadlines count from the kernel's last tick, up to 10 ms ago */
    assert_in_range(now_ms() - began_ms, DEADLINE_MS - 11, DEADLINE_MS + 1500);
    djinn_release(m.storage);
    djinn_release(out.storage);
    djinn_close(hurried); /* the rank may still multiply: its memory returns afterwards */
    free(down);
    assert_true(server_becomes(&server, 0, "sessions", 1, 15000));
    add_once(*state, 8);
}

static void a_request_that_waited_too_long_is_not_run(void **state)
{
    djinn_t *hurried = connect_with(DEADLINE_MS);
    djinn_tensor_t m = record_square(hurried), out = record_long(hurried, m, PRODUCTS);
    float one[4] = {1};
    djinn_request_t *first, *second;
    uint64_t refused = server_number(&server, 0, "refused");
    assert_ok(djinn_submit(hurried, NULL, 0, &first));
    djinn_tensor_t late = upload_vector(hurried, one, 4);
    record_add_into(hurried, late, 1);
    assert_ok(djinn_submit(hurried, NULL, 0, &second));
    assert_status(DJINN_ERR_DEADLINE, djinn_wait(second));
    djinn_request_free(first);
    djinn_request_free(second);
    assert_true(server_becomes(&server, 0, "refused", refused + 1, 15000));
    djinn_release(late.storage);
    djinn_release(m.storage);
    djinn_release(out.storage);
    djinn_close(hurried);
    assert_true(server_becomes(&server, 0, "sessions", 1, 15000));
}

/* Nothing is under way that UCX could report as lost: the request has been sent, the answer is not there. */
static void a_failed_data_path_is_told_before_the_deadline(void **state)
{
    djinn_t *broken = connect_with(20000);
    djinn_tensor_t m = record_square(broken), out = record_long(broken, m, PRODUCTS);
    djinn_request_t *request;
    uint64_t began_ms = now_ms();
    assert_ok(djinn_submit(broken, NULL, 0, &request));
    dj_djinn_lock(broken);
    dj_endpoint_fail(broken->endpoint);
    dj_djinn_unlock(broken);
    assert_status(DJINN_ERR_PEER_DIED, djinn_wait(request));
    assert_told("data path");
    assert_in_range(now_ms() - began_ms, 0, 2000);
    djinn_request_free(request);
    djinn_release(m.storage);
    djinn_release(out.storage);
    djinn_close(broken);
    assert_true(server_becomes(&server, 0, "sessions", 1, 15000)); /* it was told of the close */
    add_once(*state, 8);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_client, close_client)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(sizes_resize_and_repeats_hit),
        CASE(a_second_client_hits_at_once),
        CASE(a_warm_request_is_one_message_each_way),
        CASE(sixteen_mebibytes_both_ways),
        CASE(several_large_fetches_in_one_request),
        CASE(views_arrive_dense),
        CASE(nothing_is_a_tensor_too),
        CASE(threads_lose_nothing),
        CASE(turns_of_two_threads_stay_in_order),
        CASE(more_requests_in_flight_than_there_are_credits),
        CASE(small_requests_do_not_overtake_large_ones),
        CASE(a_descriptor_tells_of_answers),
        CASE(a_deadline_passes_while_the_rank_works),
        CASE(a_request_that_waited_too_long_is_not_run),
        CASE(a_failed_data_path_is_told_before_the_deadline),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
