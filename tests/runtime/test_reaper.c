/* test_reaper.c - a device whose driver takes its time to return memory: nobody but the one who waits for it waits.
 *
 * Run with a blind device that takes TEST_RELEASE_MS a range. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

static server_t server;

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", "--lease-grace-ms", "100ms", NULL};
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

static djinn_tensor_t something(djinn_t *djinn)
{
    uint8_t bytes[1 << 16] = {0};
    int64_t size = sizeof(bytes);
    djinn_tensor_t tensor;
    assert_ok(djinn_upload(djinn, DJINN_UINT8, 1, &size, bytes, 0, &tensor));
    assert_ok(djinn_fetch(djinn, &tensor, bytes, sizeof(bytes))); /* it is there */
    return tensor;
}

typedef struct closing {
    djinn_t *djinn;
    uint64_t took_ms;
    atomic_bool over;
} closing_t;

static void *close_it(void *argument)
{
    closing_t *closing = argument;
    uint64_t began_ms = now_ms();
    djinn_close(closing->djinn);
    closing->took_ms = now_ms() - began_ms;
    atomic_store(&closing->over, true);
    return NULL;
}

static void a_close_holds_nobody_else(void **state)
{
    uint64_t release_ms = strtoull(getenv("TEST_RELEASE_MS"), NULL, 10), slowest_ms = 0;
    djinn_t *djinn = connected();
    djinn_tensor_t mine = something(djinn);
    closing_t closing = {.djinn = connected()};
    djinn_tensor_t other = something(closing.djinn);
    uint8_t byte[1 << 16];
    pthread_t thread;
    int asked = 0;
    djinn_release(other.storage);
    assert_int_equal(pthread_create(&thread, NULL, close_it, &closing), 0);
    for (; !atomic_load(&closing.over); asked++) {
        uint64_t began_ms = now_ms();
        assert_ok(djinn_fetch(djinn, &mine, byte, sizeof(byte)));
        uint64_t took_ms = now_ms() - began_ms;
        slowest_ms = took_ms > slowest_ms ? took_ms : slowest_ms;
    }
    pthread_join(thread, NULL);
    assert_true(closing.took_ms >= release_ms); /* its memory is back when it returns */
    assert_true(asked > 10);
    assert_true(slowest_ms < release_ms / 2);
    assert_int_equal(server_number(&server, 0, "sessions"), 1);
    djinn_release(mine.storage);
    djinn_close(djinn);
    assert_true(server_is_empty(&server, 0));
}

/* Sessions that end faster than their memory goes back: it counts until it has. */
static void many_go_at_once(void **state)
{
    enum { CLIENTS = 3 };
    djinn_t *clients[CLIENTS];
    djinn_tensor_t held[CLIENTS];
    closing_t closing[CLIENTS];
    pthread_t threads[CLIENTS];
    uint64_t release_ms = strtoull(getenv("TEST_RELEASE_MS"), NULL, 10), began_ms;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connected();
        held[i] = something(clients[i]);
        closing[i] = (closing_t){.djinn = clients[i]};
    }
    began_ms = now_ms();
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, close_it, &closing[i]), 0);
    djinn_t *djinn = connected(); /* does not wait for them */
    djinn_tensor_t mine = something(djinn);
    assert_true(now_ms() - began_ms < release_ms);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    djinn_release(mine.storage);
    djinn_close(djinn); /* behind the others: its patience ends first */
    assert_true(server_number(&server, 0, "data_backed_bytes") > 0);
    assert_true(server_is_empty(&server, 0));
    assert_true(now_ms() - began_ms >= CLIENTS * release_ms);
    for (int i = 0; i < CLIENTS; i++)
        djinn_release(held[i].storage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_close_holds_nobody_else),
        cmocka_unit_test(many_go_at_once),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
