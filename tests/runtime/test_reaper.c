/* test_reaper.c - a device whose driver takes its time to return pages: nobody waits but who asked for it.
 *
 * Run with a blind device that takes TEST_RELEASE_MS a time. */
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

static djinn_tensor_t something(djinn_t *djinn, int64_t size)
{
    uint8_t *bytes = calloc((size_t)size, 1);
    djinn_tensor_t tensor;
    assert_ok(djinn_upload(djinn, DJINN_UINT8, 1, &size, bytes, 0, &tensor));
    assert_ok(djinn_fetch(djinn, &tensor, bytes, (uint64_t)size)); /* it is there */
    free(bytes);
    return tensor;
}

/* What a thread does, by itself. */
typedef struct going {
    djinn_t *djinn;
    djinn_storage_t *storage; /* to be released; NULL: the session ends */
    uint64_t took_ms;
    atomic_bool over;
} going_t;

static void *let_go(void *argument)
{
    going_t *going = argument;
    uint64_t began_ms = now_ms();
    if (going->storage) {
        djinn_release(going->storage);
        djinn_synchronize(going->djinn);
    } else {
        djinn_close(going->djinn);
    }
    going->took_ms = now_ms() - began_ms;
    atomic_store(&going->over, true);
    return NULL;
}

/* The slowest of another session's requests meanwhile. */
static uint64_t watch(going_t *going)
{
    uint64_t slowest_ms = 0;
    djinn_t *djinn = connected();
    djinn_tensor_t mine = something(djinn, 1 << 16);
    uint8_t bytes[1 << 16];
    pthread_t thread;
    int asked = 0;
    assert_int_equal(pthread_create(&thread, NULL, let_go, going), 0);
    for (; !atomic_load(&going->over); asked++) {
        uint64_t began_ms = now_ms();
        assert_ok(djinn_fetch(djinn, &mine, bytes, sizeof(bytes)));
        uint64_t took_ms = now_ms() - began_ms;
        slowest_ms = took_ms > slowest_ms ? took_ms : slowest_ms;
    }
    pthread_join(thread, NULL);
    assert_true(asked > 10);
    djinn_release(mine.storage);
    djinn_close(djinn);
    return slowest_ms;
}

static uint64_t release_ms(void)
{
    return strtoull(getenv("TEST_RELEASE_MS"), NULL, 10);
}

static void a_close_holds_nobody_else(void **state)
{
    going_t going = {.djinn = connected()};
    djinn_tensor_t other = something(going.djinn, 1 << 16);
    assert_true(watch(&going) < release_ms() / 2);
    assert_true(going.took_ms >= release_ms()); /* its memory is back when it returns */
    djinn_release(other.storage);
    assert_true(server_is_empty(&server, 0));
}

static void a_release_holds_nobody_else(void **state)
{
    going_t going = {.djinn = connected()};
    djinn_tensor_t kept = something(going.djinn, 1 << 16), large = something(going.djinn, 160 << 20); /* more than is kept for the next one */
    going.storage = large.storage;
    assert_true(watch(&going) < release_ms() / 2);
    assert_true(going.took_ms >= release_ms());
    djinn_release(kept.storage);
    djinn_close(going.djinn);
    assert_true(server_is_empty(&server, 0));
}

/* Sessions that end faster than their memory goes back: it counts until it has. */
static void many_go_at_once(void **state)
{
    enum { CLIENTS = 3 };
    djinn_t *clients[CLIENTS];
    djinn_tensor_t held[CLIENTS];
    going_t going[CLIENTS];
    pthread_t threads[CLIENTS];
    uint64_t began_ms;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connected();
        held[i] = something(clients[i], 1 << 16);
        going[i] = (going_t){.djinn = clients[i]};
    }
    began_ms = now_ms();
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, let_go, &going[i]), 0);
    djinn_t *djinn = connected(); /* does not wait for them */
    djinn_tensor_t mine = something(djinn, 1 << 16);
    assert_true(now_ms() - began_ms < release_ms());
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    djinn_release(mine.storage);
    djinn_close(djinn); /* behind the others: its patience ends first */
    assert_true(server_number(&server, 0, "data_backed_bytes") > 0);
    assert_true(server_is_empty(&server, 0));
    assert_true(now_ms() - began_ms >= CLIENTS * release_ms());
    for (int i = 0; i < CLIENTS; i++)
        djinn_release(held[i].storage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_close_holds_nobody_else),
        cmocka_unit_test(a_release_holds_nobody_else),
        cmocka_unit_test(many_go_at_once),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
