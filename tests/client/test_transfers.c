/* test_transfers.c - bytes over tensors that exist: alone, gathered, in parts; order, progress, cancel.
 *
 * Each test has a connection of its own on one server; afterwards the rank must hold nothing. */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "tests/client/ops.h"
#include "tests/runtime/server.h"

enum { MIB = 1 << 20 };

static server_t server;

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", "--ingress-bytes", "64M", NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static int open_client(void **state)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    options.mode = getenv("TEST_MODE");
    options.deadline_ms = 20000;
    assert_ok(djinn_connect(&options, &djinn));
    *state = djinn;
    return 0;
}

static int close_client(void **state)
{
    djinn_close(*state);
    return server_is_empty(&server, 0) ? 0 : -1;
}

static djinn_tensor_t bytes_tensor(djinn_t *djinn, const uint8_t *data, int64_t n)
{
    djinn_tensor_t tensor;
    assert_ok(djinn_upload(djinn, DJINN_UINT8, 1, &n, data, 0, &tensor));
    return tensor;
}

static djinn_tensor_t window(const djinn_tensor_t *tensor, int64_t offset, int64_t n)
{
    djinn_tensor_t part = *tensor;
    part.offset += offset;
    part.sizes[0] = n;
    return part;
}

/* A byte for every place and moment; no period that a part or a page has. */
static uint8_t pattern(uint64_t at, uint32_t seed)
{
    uint64_t z = (at + seed * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
    return (uint8_t)(z >> 56);
}

static uint8_t *patterned(uint64_t n, uint32_t seed)
{
    uint8_t *data = malloc(n ? n : 1);
    assert_non_null(data);
    for (uint64_t i = 0; i < n; i++)
        data[i] = pattern(i, seed);
    return data;
}

static void check(djinn_t *djinn, const djinn_tensor_t *tensor, const uint8_t *wanted, uint64_t n)
{
    uint8_t *back = malloc(n);
    assert_non_null(back);
    assert_ok(djinn_fetch(djinn, tensor, back, n));
    assert_memory_equal(back, wanted, n);
    free(back);
}

/* ---- bad input ---- */

static void what_cannot_be_put_is_refused(void **state)
{
    djinn_t *djinn = *state;
    djinn_request_t *request;
    uint8_t data[64] = {0};
    djinn_tensor_t tensor = bytes_tensor(djinn, data, 64), bad = tensor;
    assert_status(DJINN_ERR_INVALID, djinn_put(djinn, &tensor, data, 63, &request));
    assert_told("64 bytes");
    bad.sizes[0] = 65;
    assert_true(djinn_put(djinn, &bad, data, 65, &request) < 0);
    bad = tensor;
    bad.offset = 1;
    assert_true(djinn_put(djinn, &bad, data, 64, NULL) < 0);
    bad = window(&tensor, 0, 32);
    bad.strides[0] = 2;
    assert_status(DJINN_ERR_SHAPE, djinn_put(djinn, &bad, data, 32, &request));
    assert_told("strided");
    bad = tensor;
    bad.storage = NULL;
    assert_status(DJINN_ERR_INVALID, djinn_put(djinn, &bad, data, 64, &request));
    djinn_release(tensor.storage);
}

static void a_window_beyond_the_storage_is_refused(void **state)
{
    djinn_t *djinn = *state;
    float values[4] = {1, 2, 3, 4};
    djinn_tensor_t a = upload_vector(djinn, values, 4), b = upload_vector(djinn, values, 3), view;
    view = b;
    view.sizes[0] = 4; /* larger than what stands behind it: refused here, before it is sent */
    assert_true(djinn_put(djinn, &view, values, 16, NULL) < 0);
    assert_ok(djinn_put(djinn, &a, values, 16, NULL));
    assert_ok(djinn_synchronize(djinn));
    djinn_release(a.storage);
    djinn_release(b.storage);
}

/* ---- content ---- */

static void every_size_arrives(void **state)
{
    static const uint64_t sizes[] = {1,       7,         64,         4095,        4096,
                                     8192,    32767,     32768,      65536,       262144,
                                     MIB + 3, 4 * MIB,   4 * MIB + 1, 6 * MIB - 1, 6 * MIB + 1,
                                     17 * MIB};
    djinn_t *djinn = *state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t n = sizes[i];
        uint8_t *data = patterned(n, 1), *zeros = calloc(n, 1);
        djinn_tensor_t tensor = bytes_tensor(djinn, zeros, (int64_t)n);
        assert_ok(djinn_put(djinn, &tensor, data, n, NULL));
        check(djinn, &tensor, data, n);
        djinn_request_t *request;
        for (uint64_t k = 0; k < n; k++)
            data[k] ^= 0xff;
        assert_ok(djinn_put(djinn, &tensor, data, n, &request));
        assert_ok(djinn_wait(request));
        djinn_request_free(request);
        check(djinn, &tensor, data, n);
        djinn_release(tensor.storage);
        free(data);
        free(zeros);
    }
}

/* With slabs what is large passes through them, both ways, and what is small does not. */
static void large_bytes_travel_directly_where_the_path_does(void **state)
{
    djinn_t *djinn = *state;
    uint64_t n = 17 * MIB, before = server_number(&server, 0, "direct_bytes");
    uint64_t each = getenv("TEST_SLAB") ? n : 0;
    uint8_t *data = patterned(n, 3), *zeros = calloc(n, 1);
    djinn_tensor_t tensor = bytes_tensor(djinn, zeros, (int64_t)n), part = window(&tensor, 5, 60000);
    assert_ok(djinn_synchronize(djinn));
    before += each; /* an upload of this size is puts */
    assert_true(server_becomes(&server, 0, "direct_bytes", before, 2000));
    assert_ok(djinn_put(djinn, &tensor, data, n, NULL));
    assert_ok(djinn_synchronize(djinn));
    assert_true(server_becomes(&server, 0, "direct_bytes", before + each, 2000));
    check(djinn, &tensor, data, n);
    assert_true(server_becomes(&server, 0, "direct_bytes", before + 2 * each, 2000));
    assert_ok(djinn_put(djinn, &part, zeros, 60000, NULL));
    check(djinn, &part, zeros, 60000);
    assert_true(server_becomes(&server, 0, "direct_bytes", before + 2 * each, 2000));
    djinn_release(tensor.storage);
    free(data);
    free(zeros);
}

/* Windows of neighbouring small puts become few messages, and a lone one is not kept back. */
static void small_neighbours_travel_together(void **state)
{
    enum { EACH = 512, COUNT = 2000 };
    djinn_t *djinn = *state;
    djinn_stats_t before, after;
    uint8_t *data = patterned(EACH * COUNT, 2), *zeros = calloc(EACH, COUNT);
    djinn_tensor_t tensor = bytes_tensor(djinn, zeros, EACH * COUNT);
    assert_ok(djinn_synchronize(djinn));
    djinn_stats(djinn, &before);
    for (int i = 0; i < COUNT; i++) {
        djinn_tensor_t part = window(&tensor, i * EACH, EACH);
        assert_ok(djinn_put(djinn, &part, data + i * EACH, EACH, NULL));
        memset(data + i * EACH, 0, EACH); /* the bytes are the caller's again */
    }
    assert_ok(djinn_synchronize(djinn));
    djinn_stats(djinn, &after);
    assert_in_range(after.messages_out - before.messages_out, 2, COUNT / 4);
    free(data);
    data = patterned(EACH * COUNT, 2);
    check(djinn, &tensor, data, EACH * COUNT);
    djinn_stats(djinn, &before);
    djinn_tensor_t one = window(&tensor, 5, 1);
    assert_ok(djinn_put(djinn, &one, "x", 1, NULL));
    djinn_stats(djinn, &after);
    assert_int_equal(after.messages_out - before.messages_out, 1); /* it has left already */
    djinn_release(tensor.storage);
    free(data);
    free(zeros);
}

/* Thousands of small weights: few messages, each of them at least a megabyte. */
static void small_weights_travel_together(void **state)
{
    enum { EACH = 1500, COUNT = 3000 };
    djinn_t *djinn = *state;
    djinn_stats_t before, after;
    djinn_tensor_t *tensors = calloc(COUNT, sizeof(*tensors));
    int64_t n = EACH;
    djinn_stats(djinn, &before);
    for (int i = 0; i < COUNT; i++) {
        uint8_t *data = patterned(EACH, (uint32_t)(i % 1000)); /* each content three times */
        assert_ok(djinn_upload(djinn, DJINN_UINT8, 1, &n, data, DJINN_UPLOAD_WEIGHT, &tensors[i]));
        free(data);
    }
    assert_ok(djinn_synchronize(djinn));
    djinn_stats(djinn, &after);
    assert_in_range(after.messages_out - before.messages_out, 2,
                    (uint64_t)EACH * COUNT / MIB + 3);
    assert_int_equal(server_number(&server, 0, "text_entries"), 1000);
    for (int i = 0; i < COUNT; i += 7) {
        uint8_t *data = patterned(EACH, (uint32_t)(i % 1000));
        check(djinn, &tensors[i], data, EACH);
        free(data);
    }
    for (int i = 0; i < COUNT; i++)
        djinn_release(tensors[i].storage);
    assert_ok(djinn_synchronize(djinn));
    free(tensors);
}

/* An empty tensor, filled afterwards; a weight must have bytes. */
static void a_tensor_without_bytes_is_filled_later(void **state)
{
    enum { N = 5 * MIB };
    djinn_t *djinn = *state;
    djinn_tensor_t tensor;
    int64_t n = N;
    uint8_t *data = patterned(N, 9);
    assert_status(DJINN_ERR_INVALID, djinn_upload(djinn, DJINN_UINT8, 1, &n, NULL,
                                                  DJINN_UPLOAD_WEIGHT, &tensor));
    assert_ok(djinn_upload(djinn, DJINN_UINT8, 1, &n, NULL, 0, &tensor));
    assert_ok(djinn_put(djinn, &tensor, data, N, NULL));
    check(djinn, &tensor, data, N);
    djinn_release(tensor.storage);
    free(data);
}

/* The later of two writes of one place stays, whatever their sizes and however they travel. */
static void the_last_write_of_a_place_stays(void **state)
{
    enum { N = 3 * MIB, ROUNDS = 400, OPEN = 24 };
    djinn_t *djinn = *state;
    uint8_t *model = calloc(N, 1), *sources[OPEN] = {NULL};
    djinn_request_t *open[OPEN] = {NULL};
    djinn_tensor_t tensor = bytes_tensor(djinn, model, N);
    uint32_t state_ = 12345;
    for (int round = 0; round < ROUNDS; round++) {
        int slot = round % OPEN;
        if (open[slot])
            assert_ok(djinn_wait(open[slot]));
        djinn_request_free(open[slot]);
        free(sources[slot]);
        state_ = state_ * 1664525u + 1013904223u;
        uint64_t n = 1 + (state_ >> 8) % (round % 7 == 0 ? 2 * MIB : round % 3 ? 3000 : 100000);
        state_ = state_ * 1664525u + 1013904223u;
        uint64_t at = (state_ >> 4) % (N - n);
        sources[slot] = patterned(n, (uint32_t)round);
        memcpy(model + at, sources[slot], n);
        djinn_tensor_t part = window(&tensor, (int64_t)at, (int64_t)n);
        open[slot] = NULL;
        assert_ok(djinn_put(djinn, &part, sources[slot], n, round % 5 ? &open[slot] : NULL));
        if (round % 97 == 0)
            check(djinn, &tensor, model, N);
    }
    for (int slot = 0; slot < OPEN; slot++) {
        djinn_request_free(open[slot]);
        free(sources[slot]);
    }
    check(djinn, &tensor, model, N);
    djinn_release(tensor.storage);
    free(model);
}

/* What was recorded before a put runs before it, what is recorded after sees it. */
static void puts_and_ops_keep_their_order(void **state)
{
    enum { N = 600000 };
    djinn_t *djinn = *state;
    float *values = malloc(N * sizeof(float));
    for (int64_t n = 4; n <= N; n = n == 4 ? 5000 : n * 120) {
        for (int64_t i = 0; i < n; i++)
            values[i] = 1;
        djinn_tensor_t a = upload_vector(djinn, values, n);
        record_add_into(djinn, a, 10);
        djinn_tensor_t half = window(&a, 0, n / 2);
        assert_ok(djinn_put(djinn, &half, values, (uint64_t)n / 2 * 4, NULL));
        record_add_into(djinn, a, 100);
        assert_ok(djinn_fetch(djinn, &a, values, (uint64_t)n * 4));
        for (int64_t i = 0; i < n; i++)
            assert_true(values[i] == (i < n / 2 ? 101 : 111));
        djinn_release(a.storage);
    }
    free(values);
}

/* A transfer whose parts have not all left, then an op on the same tensor. */
static void parts_leave_before_what_comes_after(void **state)
{
    enum { N = 12 * MIB };
    djinn_t *djinn = *state;
    djinn_request_t *put, *fetch;
    float *ones = malloc(N * sizeof(float)), *back = malloc(N * sizeof(float));
    for (int i = 0; i < N; i++)
        ones[i] = 1;
    memset(back, 0, N * sizeof(float));
    djinn_tensor_t a = upload_vector(djinn, back, N);
    assert_ok(djinn_put(djinn, &a, ones, N * sizeof(float), &put));
    record_add_into(djinn, a, 5);
    djinn_fetch_t wanted = {a, back, N * sizeof(float)};
    assert_ok(djinn_submit(djinn, &wanted, 1, &fetch));
    record_add_into(djinn, a, 1000);
    assert_ok(djinn_flush(djinn));
    assert_ok(djinn_wait(fetch));
    for (int i = 0; i < N; i++)
        assert_true(back[i] == 6);
    assert_ok(djinn_wait(put));
    djinn_request_free(put);
    djinn_request_free(fetch);
    djinn_release(a.storage);
    free(ones);
    free(back);
}

static void a_put_over_a_weight_leaves_the_shared_one(void **state)
{
    djinn_t *djinn = *state;
    int64_t n = 1000;
    uint8_t *data = patterned(1000, 3), changed[1000];
    djinn_tensor_t one, other;
    memcpy(changed, data, 1000);
    memset(changed + 10, 7, 20);
    assert_ok(djinn_upload(djinn, DJINN_UINT8, 1, &n, data, DJINN_UPLOAD_WEIGHT, &one));
    assert_ok(djinn_upload(djinn, DJINN_UINT8, 1, &n, data, DJINN_UPLOAD_WEIGHT, &other));
    djinn_tensor_t part = window(&one, 10, 20);
    assert_ok(djinn_put(djinn, &part, changed + 10, 20, NULL));
    check(djinn, &one, changed, 1000);
    check(djinn, &other, data, 1000);
    djinn_release(one.storage);
    djinn_release(other.storage);
    free(data);
}

/* ---- progress, cancel, completion ---- */

typedef struct outcome {
    int calls;
    djinn_status_t status;
} outcome_t;

static void note(void *argument, djinn_request_t *request, djinn_status_t status)
{
    outcome_t *outcome = argument;
    outcome->calls++;
    outcome->status = status;
}

/* Polls on the connection's descriptor, as an event loop would. */
static void finish_by_events(djinn_t *djinn, djinn_request_t *request, uint64_t total)
{
    djinn_transfer_t seen = {0, 0}, now;
    outcome_t outcome = {0, DJINN_IN_PROGRESS};
    uint64_t until = now_ms() + 10000;
    int steps = 0;
    assert_ok(djinn_when_done(request, note, &outcome));
    while (djinn_test(request) == DJINN_IN_PROGRESS) {
        assert_true(now_ms() < until);
        assert_ok(djinn_progress(request, &now));
        assert_true(now.done_bytes >= seen.done_bytes && now.total_bytes == total);
        steps += now.done_bytes > seen.done_bytes && now.done_bytes < total;
        seen = now;
        if (djinn_arm(djinn) != DJINN_OK)
            continue;
        struct pollfd entry = {.fd = djinn_fd(djinn), .events = POLLIN};
        poll(&entry, 1, 100);
    }
    assert_ok(djinn_progress(request, &now));
    assert_int_equal(now.done_bytes, total);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.status, DJINN_OK);
    assert_true(steps > 0);
    djinn_request_free(request);
}

static void large_transfers_tell_their_progress(void **state)
{
    enum { N = 96 * MIB };
    djinn_t *djinn = *state;
    djinn_request_t *request;
    uint8_t *data = patterned(N, 4), *back = calloc(N, 1);
    djinn_tensor_t tensor = bytes_tensor(djinn, back, N);
    assert_ok(djinn_put(djinn, &tensor, data, N, &request));
    finish_by_events(djinn, request, N);
    djinn_fetch_t fetch = {tensor, back, N};
    assert_ok(djinn_submit(djinn, &fetch, 1, &request));
    finish_by_events(djinn, request, N);
    assert_memory_equal(back, data, N);
    djinn_release(tensor.storage);
    free(data);
    free(back);
}

/* After a cancel the memory is the caller's, and the connection goes on. */
static void a_cancelled_transfer_gives_the_memory_back(void **state)
{
    enum { N = 96 * MIB };
    djinn_t *djinn = *state;
    djinn_request_t *request;
    djinn_transfer_t transfer;
    uint8_t *data = patterned(N, 5), *zeros = calloc(N, 1);
    djinn_tensor_t tensor = bytes_tensor(djinn, zeros, N);
    for (int round = 0; round < 4; round++) {
        bool put = round % 2 == 0;
        djinn_fetch_t fetch = {tensor, data, N};
        assert_ok(put ? djinn_put(djinn, &tensor, data, N, &request)
                      : djinn_submit(djinn, &fetch, 1, &request));
        assert_status(DJINN_ERR_CANCELLED, djinn_cancel(request));
        assert_ok(djinn_progress(request, &transfer));
        assert_true(transfer.done_bytes < N);
        memset(data, round, N); /* nobody reads or writes it any more */
        djinn_request_free(request);
        assert_ok(djinn_put(djinn, &tensor, data, N, NULL));
        check(djinn, &tensor, data, N);
    }
    assert_ok(djinn_put(djinn, &tensor, data, N, &request));
    assert_ok(djinn_wait(request));
    assert_ok(djinn_cancel(request)); /* it had finished */
    djinn_request_free(request);
    djinn_release(tensor.storage);
    free(data);
    free(zeros);
}

/* More bytes at once than the rank takes unanswered (64 MiB here), behind a request that is at work. */
static void more_than_the_credit_waits_here(void **state)
{
    enum { N = 24 * MIB, COUNT = 6 };
    djinn_t *djinn = *state;
    djinn_request_t *requests[COUNT];
    uint8_t *data[COUNT];
    djinn_tensor_t tensor[COUNT];
    for (int i = 0; i < COUNT; i++) {
        data[i] = patterned(N, (uint32_t)i);
        tensor[i] = bytes_tensor(djinn, data[(i + COUNT - 1) % COUNT] ? data[0] : data[i], N);
    }
    float values[64] = {0};
    djinn_tensor_t a = upload_vector(djinn, values, 64);
    for (int i = 0; i < 200; i++)
        record_add_into(djinn, a, 1);
    assert_ok(djinn_flush(djinn));
    for (int i = 0; i < COUNT; i++)
        assert_ok(djinn_put(djinn, &tensor[i], data[i], N, &requests[i]));
    for (int i = 0; i < COUNT; i++) {
        assert_ok(djinn_wait(requests[i]));
        djinn_request_free(requests[i]);
        check(djinn, &tensor[i], data[i], N);
        djinn_release(tensor[i].storage);
        free(data[i]);
    }
    djinn_release(a.storage);
}

/* Small puts over the end of a large one whose last parts have not left: they came later and stay. */
static void a_small_put_does_not_overtake_parts(void **state)
{
    enum { N = 40 * MIB, SMALL = 64 };
    static const int64_t sizes[] = {SMALL, 4096, 16 << 10};
    djinn_t *djinn = *state;
    djinn_request_t *request;
    uint8_t *old = patterned(N, 20), *later = patterned(N, 21), *back = calloc(N, 1);
    djinn_tensor_t tensor = bytes_tensor(djinn, back, N);
    for (int i = 0; i < 3; i++) {
        int64_t n = sizes[i], first = N - 4 * n;
        assert_ok(djinn_put(djinn, &tensor, old, N, &request));
        for (int64_t at = first; at < N; at += 2 * n) { /* no neighbours: each leaves by itself */
            djinn_tensor_t part = window(&tensor, at, n);
            assert_ok(djinn_put(djinn, &part, later + at, (uint64_t)n, NULL));
        }
        assert_ok(djinn_wait(request));
        djinn_request_free(request);
        assert_ok(djinn_fetch(djinn, &tensor, back, N));
        for (int64_t at = first; at < N; at += 2 * n) {
            assert_memory_equal(back + at, later + at, n);
            assert_memory_equal(back + at + n, old + at + n, n);
        }
    }
    djinn_release(tensor.storage);
    free(old);
    free(later);
    free(back);
}

/* The oldest unanswered put is a quiet one, and what would answer it is far away: no request may need a
 * place among the unanswered to make one free. */
static void a_full_credit_of_quiet_puts_is_waited_for(void **state)
{
    enum { COUNT = 1200, SIDE = 1024 };
    djinn_t *djinn = *state;
    uint8_t byte[2 * COUNT] = {0}, back[2 * COUNT];
    float *zeros = calloc(SIDE * SIDE, sizeof(*zeros));
    djinn_tensor_t tensor = bytes_tensor(djinn, byte, 2 * COUNT), matrix;
    int64_t sizes[] = {SIDE, SIDE};
    assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 2, sizes, zeros, 0, &matrix));
    assert_ok(djinn_fetch(djinn, &tensor, back, sizeof(back)));
    for (int i = 0; i < COUNT; i++) {
        djinn_tensor_t part = window(&tensor, 2 * i, 1);
        byte[2 * i] = (uint8_t)(i % 251 + 1);
        assert_ok(djinn_put(djinn, &part, &byte[2 * i], 1, NULL));
        if (i != 2)
            continue; /* one that is answered, one quiet: then work for half a second */
        djinn_tensor_t product = record_binary(djinn, "aten::mm", matrix, matrix);
        for (int n = 0; n < 20; n++) {
            djinn_tensor_t next = record_binary(djinn, "aten::mm", product, matrix);
            djinn_release(product.storage);
            product = next;
        }
        assert_ok(djinn_flush(djinn));
        djinn_release(product.storage);
    }
    assert_ok(djinn_synchronize(djinn));
    check(djinn, &tensor, byte, sizeof(byte));
    djinn_release(tensor.storage);
    djinn_release(matrix.storage);
    free(zeros);
}

/* ---- the data connection fails first: the heartbeats have not told yet ---- */

static void fail_endpoint(djinn_t *djinn)
{
    dj_djinn_lock(djinn);
    dj_endpoint_fail(djinn->endpoint);
    dj_djinn_unlock(djinn);
}

static void a_large_fetch_on_a_failed_endpoint_is_told(void **state)
{
    enum { N = 9 * MIB };
    djinn_t *djinn = *state;
    djinn_request_t *request;
    uint8_t *data = calloc(N, 1);
    djinn_tensor_t tensor = bytes_tensor(djinn, data, N);
    djinn_fetch_t fetch = {tensor, data, N};
    fail_endpoint(djinn);
    assert_status(DJINN_ERR_PEER_DIED, djinn_submit(djinn, &fetch, 1, &request));
    dj_djinn_lock(djinn); /* no request lies twice in the pool */
    for (djinn_request_t *at = djinn->free_requests; at; at = at->next_free)
        for (djinn_request_t *after = at->next_free; after; after = after->next_free)
            if (after == at) {
                dj_djinn_unlock(djinn);
                fail_msg("a request was given back twice");
            }
    dj_djinn_unlock(djinn);
    djinn_release(tensor.storage);
    free(data);
}

/* They are over when UCX has let go of their bytes, and say why. */
static void puts_on_a_failed_endpoint_are_told(void **state)
{
    enum { N = 100 << 10, COUNT = 4 };
    djinn_t *djinn = *state;
    djinn_request_t *requests[COUNT];
    uint8_t *data = patterned(N, 7);
    djinn_tensor_t tensor = bytes_tensor(djinn, data, N);
    bool tcp = getenv("TEST_MODE") && strcmp(getenv("TEST_MODE"), "remote") == 0;
    if (tcp) { /* such puts are gathered there */
        djinn_release(tensor.storage);
        free(data);
        return;
    }
    for (int i = 0; i < COUNT; i++)
        assert_ok(djinn_put(djinn, &tensor, data, N, &requests[i]));
    fail_endpoint(djinn);
    for (int i = COUNT - 1; i >= 0; i--) {
        djinn_status_t status = djinn_wait(requests[i]);
        if (status != DJINN_OK) /* the rank may have taken it a moment before */
            assert_status(DJINN_ERR_PEER_DIED, status);
        assert_int_equal(requests[i]->transfer.open, 0);
    }
    for (int i = 0; i < COUNT; i++)
        djinn_request_free(requests[i]);
    djinn_release(tensor.storage);
    free(data);
}

/* ---- the deadline passes while the answer arrives ---- */

/* Stops the rank in the middle of its answer, which goes over tcp in many pieces. */
static bool stop_halfway(djinn_t *djinn, djinn_request_t *request, pid_t rank)
{
    uint64_t until = now_ms() + 5000;
    bool receiving = false;
    dj_djinn_lock(djinn);
    while (!receiving && request->status == DJ_IN_PROGRESS && now_ms() < until) {
        dj_comm_progress(djinn->comm);
        receiving = request->receiving;
    }
    dj_djinn_unlock(djinn);
    kill(rank, SIGSTOP);
    return receiving;
}

static void a_late_answer_does_not_write_behind_its_request(void **state)
{
    enum { N = 4 * MIB };
    static const char *const words[] = {"--threads", "1", "--suspect-ms", "5000", NULL};
    server_t own;
    djinn_t *djinn;
    djinn_request_t *request;
    assert_true(server_start(&own, 1, words));
    djinn_options_t options = server_options(&own);
    options.mode = "remote";
    options.deadline_ms = 400;
    pid_t rank = (pid_t)server_number(&own, 0, "pid");
    assert_ok(djinn_connect(&options, &djinn));
    uint8_t *data = calloc(N, 1);
    djinn_tensor_t tensor = bytes_tensor(djinn, data, N);
    djinn_fetch_t fetch = {tensor, data, N};
    assert_ok(djinn_submit(djinn, &fetch, 1, &request));
    bool receiving = stop_halfway(djinn, request, rank);
    uint64_t from = now_ms();
    djinn_status_t status = djinn_wait(request);
    bool writes = request->receiving;
    kill(rank, SIGCONT);
    assert_true(receiving);
    assert_status(DJINN_ERR_DEADLINE, status);
    assert_told("give the memory back");
    assert_false(writes);
    assert_true(now_ms() - from < 3000);
    djinn_request_free(request);
    djinn_release(tensor.storage);
    djinn_close(djinn);
    free(data);
    assert_true(server_stop(&own));
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, open_client, close_client)
    const struct CMUnitTest tests[] = {
        TEST(what_cannot_be_put_is_refused),
        TEST(a_window_beyond_the_storage_is_refused),
        TEST(every_size_arrives),
        TEST(large_bytes_travel_directly_where_the_path_does),
        TEST(small_neighbours_travel_together),
        TEST(small_weights_travel_together),
        TEST(a_tensor_without_bytes_is_filled_later),
        TEST(the_last_write_of_a_place_stays),
        TEST(puts_and_ops_keep_their_order),
        TEST(parts_leave_before_what_comes_after),
        TEST(a_put_over_a_weight_leaves_the_shared_one),
        TEST(large_transfers_tell_their_progress),
        TEST(a_cancelled_transfer_gives_the_memory_back),
        TEST(more_than_the_credit_waits_here),
        TEST(a_small_put_does_not_overtake_parts),
        TEST(a_full_credit_of_quiet_puts_is_waited_for),
        TEST(a_large_fetch_on_a_failed_endpoint_is_told),
        TEST(puts_on_a_failed_endpoint_are_told),
        cmocka_unit_test(a_late_answer_does_not_write_behind_its_request),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
