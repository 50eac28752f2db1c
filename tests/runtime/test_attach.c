/* test_attach.c - hellos with a good token: sessions taken up again, addresses that are none, too
 * many at once.
 *
 * A session is a capability: its id and generation. Whoever brings both gets it back with what it
 * held, under the next generation; the old one's messages are dropped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>

#include "runtime/base/clock.h"
#include "tests/runtime/raw.h"

#define REF(index) ((uint64_t)0x5eed << 32 | (index))
enum { BYTES = 256, SESSIONS = 4 };

static server_t server;
static raw_t raw, other;

static int start(void **state)
{
    static const char *const words[] = {"--threads",        "1",   "--sessions", "4",
                                        "--lease-grace-ms", "30s", NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static int was_empty(void **state)
{
    return server_is_empty(&server, 0) ? 0 : -1;
}

static void assert_open(dj_status_t status)
{
    if (status != DJ_OK)
        print_error("%s\n", dj_error_text());
    assert_int_equal(status, DJ_OK);
}

static void refused(dj_hello_t hello, const void *address, uint32_t bytes, dj_status_t want,
                    const char *word)
{
    dj_status_t status = raw_open_with(&other, &server, &hello, address, bytes);
    if (status != want || !strstr(dj_error_text(), word))
        print_error("%s: %s\n", dj_status_name(status), dj_error_text());
    assert_int_equal(status, want);
    assert_non_null(strstr(dj_error_text(), word));
    raw_drop(&other);
}

static void upload(raw_t *client, uint64_t ref)
{
    uint8_t data[BYTES];
    dj_upload_t message = {ref, BYTES, 0, 0};
    dj_header_t header = raw_header(client, DJ_MESSAGE_UPLOAD);
    memset(data, (int)ref, sizeof(data));
    assert_int_equal(raw_say(client, &header, &message, sizeof(message), data, BYTES), DJ_OK);
    assert_int_equal(raw_hear(client, 5000), DJ_OK);
}

static int fetch(raw_t *client, uint64_t ref)
{
    dj_fetch_t wanted = {ref, 0, BYTES};
    dj_exec_t exec = {.n_fetches = 1};
    dj_header_t header = raw_header(client, DJ_MESSAGE_EXEC);
    assert_int_equal(raw_say(client, &header, &exec, sizeof(exec), &wanted, sizeof(wanted)), DJ_OK);
    return raw_hear(client, 5000);
}

/* The client's end of everything goes, without a word; the session waits for it. */
static dj_hello_t leave(raw_t *client)
{
    dj_hello_t hello = {
        .session = client->session, .generation = client->generation, .flags = DJ_HELLO_REATTACH};
    raw_drop(client);
    assert_true(server_becomes(&server, 0, "detached", 1, 3000));
    return hello;
}

static void a_session_is_taken_up_again(void **state)
{
    assert_open(raw_open(&raw, &server));
    upload(&raw, REF(1));
    uint64_t request = raw.request;
    dj_hello_t hello = leave(&raw);
    assert_true(server_becomes(&server, 0, "refs", 1, 1000));
    assert_open(raw_open_with(&raw, &server, &hello, NULL, 0));
    assert_int_equal(raw.session, hello.session);
    assert_int_equal(raw.generation, hello.generation + 1);
    raw.request = request;
    assert_int_equal(fetch(&raw, REF(1)), DJ_OK);
    assert_int_equal(raw.payload_bytes, BYTES);
    assert_int_equal(raw.payload[BYTES - 1], 1);
    assert_true(server_becomes(&server, 0, "detached", 0, 1000));
    /* the life before is over */
    uint64_t stale = server_number(&server, 0, "stale");
    dj_exec_t exec = {0};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_EXEC);
    header.generation = hello.generation;
    raw_say(&raw, &header, &exec, sizeof(exec), NULL, 0);
    assert_int_equal(raw_hear(&raw, 100), DJ_IN_PROGRESS);
    assert_true(server_becomes(&server, 0, "stale", stale + 1, 1000));
    assert_int_equal(fetch(&raw, REF(1)), DJ_OK);
    assert_true(raw_close(&raw));
}

static void a_session_whose_client_is_still_here(void **state)
{
    assert_open(raw_open(&raw, &server));
    upload(&raw, REF(1));
    dj_hello_t hello = {
        .session = raw.session, .generation = raw.generation, .flags = DJ_HELLO_REATTACH};
    assert_open(raw_open_with(&other, &server, &hello, NULL, 0));
    other.request = raw.request;
    assert_int_equal(fetch(&other, REF(1)), DJ_OK); /* it came back before its loss was noticed */
    raw_drop(&raw);                                 /* the first one's end is not the session's */
    for (int i = 0; i < 20; i++) {
        sleep_ms(10);
        assert_int_equal(fetch(&other, REF(1)), DJ_OK);
    }
    assert_int_equal(server_number(&server, 0, "detached"), 0);
    assert_true(raw_close(&other));
}

static void claims_that_are_not_true(void **state)
{
    assert_open(raw_open(&raw, &server));
    upload(&raw, REF(1));
    dj_hello_t hello = leave(&raw), wrong = hello;
    wrong.generation++;
    refused(wrong, NULL, 0, DJ_ERR_STALE, "re-attached");
    wrong = hello, wrong.session ^= 1;
    refused(wrong, NULL, 0, DJ_ERR_STALE, "re-attached");
    wrong = hello, wrong.flags = 0; /* names a session, has no grant */
    refused(wrong, NULL, 0, DJ_ERR_AUTH, "grant");
    wrong.grant_expires_ms = UINT64_MAX;
    refused(wrong, NULL, 0, DJ_ERR_STALE, "grant");
    assert_open(raw_open_with(&raw, &server, &hello, NULL, 0));
    raw.request = 100;
    assert_int_equal(fetch(&raw, REF(1)), DJ_OK); /* nothing of it hurt the session */
    assert_true(raw_close(&raw));
    refused(hello, NULL, 0, DJ_ERR_STALE, "re-attached"); /* closed is closed */
}

static void worker_addresses_that_are_none(void **state)
{
    uint8_t noise[DJ_ADDRESS_BYTES_MAX];
    const void *good;
    uint32_t bytes;
    uint64_t x = 88172645463325252ull;
    assert_open(raw_open(&raw, &server));
    dj_comm_address(raw.comm, &good, &bytes);
    for (uint32_t i = 0; i < sizeof(noise); i++)
        x ^= x << 13, x ^= x >> 7, x ^= x << 17, noise[i] = (uint8_t)x;
    refused((dj_hello_t){0}, noise, 1, DJ_ERR_PROTOCOL, "address");
    refused((dj_hello_t){0}, noise, 300, DJ_ERR_PROTOCOL, "address");
    refused((dj_hello_t){0}, noise, sizeof(noise), DJ_ERR_PROTOCOL, "address");
    memcpy(noise, good, bytes);
    refused((dj_hello_t){0}, noise, bytes - 1, DJ_ERR_PROTOCOL, "address");
    noise[bytes / 2] ^= 4;
    refused((dj_hello_t){0}, noise, bytes, DJ_ERR_PROTOCOL, "address");
    upload(&raw, REF(1));
    assert_int_equal(fetch(&raw, REF(1)), DJ_OK);
    assert_true(server_becomes(&server, 0, "sessions", 1, 1000));
    assert_true(raw_close(&raw));
}

static void no_more_sessions_than_allowed(void **state)
{
    static raw_t many[SESSIONS];
    for (int i = 0; i < SESSIONS; i++)
        assert_open(raw_open(&many[i], &server));
    refused((dj_hello_t){0}, NULL, 0, DJ_ERR_LIMIT, "--sessions");
    for (int i = 0; i < SESSIONS; i++)
        assert_true(raw_close(&many[i]));
    assert_open(raw_open(&raw, &server));
    assert_true(raw_close(&raw));
}

/* A hello that comes to nothing costs the session neither its memory nor its generation. */
static void a_session_that_could_not_be_taken_up(void **state)
{
    static const uint8_t noise[64] = {1, 2, 3};
    assert_open(raw_open(&raw, &server));
    upload(&raw, REF(1));
    uint64_t request = raw.request;
    dj_hello_t hello = leave(&raw);
    refused(hello, noise, sizeof(noise), DJ_ERR_PROTOCOL, "address");
    assert_open(raw_open_with(&raw, &server, &hello, NULL, 0));
    raw.request = request;
    assert_int_equal(fetch(&raw, REF(1)), DJ_OK);
    assert_true(raw_close(&raw));
}

static void close_is_said_twice(void **state)
{
    assert_open(raw_open(&raw, &server));
    const dj_close_t wrong = {raw.session ^ 1, raw.generation, 0};
    uint64_t end_ms = now_ms() + 2000;
    for (int i = 0; i < 2; i++)
        dj_control_send(raw.control, DJ_MESSAGE_CLOSE, &wrong, sizeof(wrong), NULL, 0,
                        dj_clock_ns() + DJ_NS_PER_S);
    while (!raw.ended && now_ms() < end_ms)
        raw_pump(&raw);
    assert_true(raw.ended);
    dj_hello_t hello = leave(&raw);
    assert_open(raw_open_with(&raw, &server, &hello, NULL, 0));
    assert_true(raw_close(&raw));
}

/* Stopped for longer than it would wait for a client: what the client said meanwhile counts. */
static void a_rank_that_was_stopped(void **state)
{
    pid_t pid = (pid_t)server_number(&server, 0, "pid");
    assert_open(raw_open(&raw, &server));
    upload(&raw, REF(1));
    for (int i = 0; i < 2; i++) {
        uint64_t end_ms = now_ms() + 1300;
        kill(pid, SIGSTOP);
        while (now_ms() < end_ms)
            raw_pump(&raw);
        kill(pid, SIGCONT);
        for (end_ms = now_ms() + 200; now_ms() < end_ms;)
            raw_pump(&raw);
        assert_false(raw.ended);
        assert_int_equal(fetch(&raw, REF(1)), DJ_OK);
    }
    assert_true(raw_close(&raw));
}

#define CASE(name) cmocka_unit_test_teardown(name, was_empty)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_session_is_taken_up_again),   CASE(a_session_whose_client_is_still_here),
        CASE(claims_that_are_not_true),      CASE(worker_addresses_that_are_none),
        CASE(no_more_sessions_than_allowed), CASE(a_session_that_could_not_be_taken_up),
        CASE(close_is_said_twice),           CASE(a_rank_that_was_stopped),
    };
    return dj_hash_setup() ? server_verdict(cmocka_run_group_tests(tests, start, stop)) : 1;
}
