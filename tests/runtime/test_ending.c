/* test_ending.c - a client that does not listen: what it asks for after ENDING is answered, by the rank itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>

#include "tests/runtime/raw.h"

enum { SIDE = 1024, PRODUCTS = 100, LIMIT_MS = 15000 };

static server_t server;
static raw_t raw;

static djinn_arg_t of(const djinn_tensor_t *tensor)
{
    return (djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = tensor};
}

/* A request that keeps the rank busy for a second or so. */
static djinn_request_t *ask_much(djinn_t *djinn)
{
    djinn_tensor_t m, out;
    djinn_request_t *request;
    djinn_arg_t full[] = {
        {.kind = DJINN_ARG_INTS, .count = 2, .value.integers = (int64_t[]){SIDE, SIDE}},
        {.kind = DJINN_ARG_REAL_SCALAR, .value.real = 1.0 / SIDE},
        {.kind = DJINN_ARG_INT, .value.integer = DJINN_FLOAT32}};
    assert_int_equal(djinn_record(djinn, djinn_op("djinn::full"), full, 3, &m), DJINN_OK);
    for (int i = 0; i < PRODUCTS; i++) {
        djinn_arg_t mm[] = {of(&m), of(&m)};
        assert_int_equal(djinn_record(djinn, djinn_op("aten::mm"), mm, 2, &out), DJINN_OK);
        djinn_release(m.storage);
        m = out;
    }
    assert_int_equal(djinn_submit(djinn, NULL, 0, &request), DJINN_OK);
    djinn_release(m.storage);
    return request;
}

/* The answer to a request with nothing in it, and its sentence. */
static int ask_nothing(void)
{
    dj_exec_t exec = {0};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_EXEC);
    assert_int_equal(raw_say(&raw, &header, &exec, sizeof(exec), NULL, 0), DJ_OK);
    return raw_hear(&raw, 5000);
}

static int put_much(void)
{
    static uint8_t bytes[1 << 20];
    dj_put_t put = {.ref = (uint64_t)7 << 32 | 7};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_PUT);
    raw_say(&raw, &header, &put, sizeof(put), bytes, sizeof(bytes)); /* the rank does not take it */
    return raw_hear(&raw, 5000);
}

static void requests_that_come_too_late(void **state)
{
    static const char *const words[] = {"--threads", "1", "--drain-ms", "20s", NULL};
    djinn_t *djinn;
    assert_true(server_start(&server, 1, words));
    djinn_options_t options = server_options(&server);
    pid_t pid = (pid_t)server_number(&server, 0, "pid");
    assert_int_equal(djinn_connect(&options, &djinn), DJINN_OK);
    assert_int_equal(raw_open(&raw, &server), DJ_OK);
    assert_int_equal(ask_nothing(), DJ_OK);
    uint64_t before = server_number(&server, 0, "messages_in");
    djinn_request_t *much = ask_much(djinn);
    for (uint64_t end_ms = now_ms() + LIMIT_MS;
         server_number(&server, 0, "messages_in") == before && now_ms() < end_ms;)
        djinn_test(much);
    kill(pid, SIGTERM);
    for (uint64_t end_ms = now_ms() + LIMIT_MS; djinn_alive(djinn) == DJINN_OK && now_ms() < end_ms;)
        raw_pump(&raw);
    assert_int_equal(djinn_alive(djinn), DJINN_ERR_CANCELLED);
    assert_int_equal(ask_nothing(), DJ_ERR_CANCELLED);
    assert_non_null(strstr((const char *)raw.payload, "the server is ending"));
    assert_int_equal(put_much(), DJ_ERR_CANCELLED);
    assert_int_equal(ask_nothing(), DJ_ERR_CANCELLED);
    assert_int_equal(djinn_wait(much), DJINN_OK);
    djinn_request_free(much);
    djinn_close(djinn);
    raw_drop(&raw);
    assert_true(server_stop(&server)); /* it has ended by itself, well */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(requests_that_come_too_late)};
    return dj_hash_setup() ? server_verdict(cmocka_run_group_tests(tests, NULL, NULL)) : 1;
}
