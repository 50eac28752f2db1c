/* test_parts.c - moves in PARTs from a source that lies, and answers that nobody reads.
 *
 * A peer that holds the token takes the place of rank 2 on a link to rank 1 and answers its PULLs with whatever a
 * test wants: each lie ends the MOVE with a typed status and leaves nothing behind. Then a client asks for many
 * bytes and does not receive them: what leans on the session's memory holds its queue, what does not leaves it,
 * up to a limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "planner/ops.h"
#include "runtime/base/clock.h"
#include "tests/runtime/raw.h"

#define REF(index) ((uint64_t)0x5eed << 32 | (index))
enum { RANKS = 3, TARGET = 1, SOURCE = 2, BYTES = 8000, PART = 1000, FETCHED = 4 << 20, INGRESS_MIB = 10 };

static server_t server;

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", "--lease-grace-ms", "200ms", "--ingress-bytes", "10M",
                                        NULL};
    return server_start(&server, RANKS, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static int all_empty(void **state)
{
    return server_is_empty(&server, TARGET) && server_is_empty(&server, SOURCE) ? 0 : -1;
}

/* The server as seen by who knows a worker's own port. */
static server_t at_rank(int rank)
{
    server_t worker = server;
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    options.flags = DJINN_CONNECT_RANK;
    options.rank = rank;
    assert_int_equal(djinn_connect(&options, &djinn), DJINN_OK);
    snprintf(worker.address, sizeof(worker.address), "%s", djinn->peer);
    djinn_close(djinn);
    return worker;
}

/* ---- a source that lies ---- */

typedef struct liar {
    dj_control_t *control;
    dj_comm_t *comm;
    dj_endpoint_t *endpoint;
    dj_header_t header; /* of the last PULL */
    dj_pull_t pull;
    bool asked;
} liar_t;

static dj_status_t hear(void *context, const dj_incoming_t *incoming, void **memory_p, void **token_p)
{
    liar_t *liar = context;
    if (incoming->header->type != DJ_MESSAGE_PULL)
        return DJ_ERR_PROTOCOL;
    liar->header = *incoming->header;
    memcpy(&liar->pull, incoming->body, sizeof(liar->pull));
    liar->asked = true;
    return DJ_OK;
}

/* Dials rank 1 as rank 2. */
static void take_place(liar_t *liar)
{
    dj_comm_options_t options = {.shared_memory = true, .loopback_only = true, .on_message = hear, .context = liar};
    server_t worker = at_rank(TARGET);
    uint64_t deadline_ns = dj_clock_ns() + 3 * DJ_NS_PER_S;
    dj_hello_t hello = {.role = DJ_ROLE_PEER, .op_table = dj_op_table_hash(), .rank = SOURCE,
                        .incarnation = (uint32_t)server_number(&server, SOURCE, "incarnation")};
    uint8_t token[32];
    const void *address, *body;
    dj_frame_t frame;
    *liar = (liar_t){0};
    assert_int_equal(dj_token_parse(worker.token, token), DJ_OK);
    assert_int_equal(dj_comm_create(&options, &liar->comm), DJ_OK);
    dj_comm_address(liar->comm, &address, &hello.address_bytes);
    assert_int_equal(dj_control_connect(worker.address, deadline_ns, &liar->control), DJ_OK);
    assert_int_equal(dj_control_greet(liar->control, token, &hello, address, deadline_ns, &frame, &body), DJ_OK);
    const dj_welcome_t *welcome = body;
    assert_int_equal(dj_endpoint_create(liar->comm, welcome + 1, welcome->address_bytes, &liar->endpoint), DJ_OK);
}

static void leave_place(liar_t *liar)
{
    dj_endpoint_close(liar->endpoint);
    dj_control_close(liar->control);
    dj_comm_destroy(liar->comm);
}

static void pump(liar_t *liar, raw_t *raw)
{
    dj_comm_progress(liar->comm);
    raw_pump(raw);
}

static void count_sent(void *argument, dj_status_t status)
{
    *(int *)argument = status == DJ_OK ? 1 : -1;
}

static void say(liar_t *liar, raw_t *raw, dj_message_t type, const void *body, uint32_t body_bytes, uint64_t bytes)
{
    static const uint8_t payload[BYTES + PART];
    uint8_t message[DJ_ENDPOINT_HEADER_MAX];
    dj_header_t header = {.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION, .type = type,
                          .request = liar->header.request};
    dj_piece_t piece = {payload, bytes};
    int sent = 0;
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), body, body_bytes);
    dj_status_t status = dj_endpoint_send(liar->endpoint, message, (uint32_t)sizeof(header) + body_bytes, &piece,
                                          bytes > 0, count_sent, &sent);
    uint64_t end_ns = dj_clock_ns() + 2 * DJ_NS_PER_S;
    while (status == DJ_IN_PROGRESS && !sent && dj_clock_ns() < end_ns)
        pump(liar, raw);
}

static void say_part(liar_t *liar, raw_t *raw, uint64_t offset, uint64_t announced, uint64_t bytes)
{
    dj_part_t part = {offset, announced};
    say(liar, raw, DJ_MESSAGE_PART, &part, sizeof(part), bytes);
}

/* A MOVE whose PULL has reached the liar, after `parts` true parts. */
static void ask(liar_t *liar, raw_t *raw, uint32_t parts)
{
    dj_move_t move = {.ref = REF(1), .bytes = BYTES, .source_session = 1, .source_ref = REF(2),
                      .source_generation = 1, .source_rank = SOURCE};
    dj_header_t header = raw_header(raw, DJ_MESSAGE_MOVE);
    uint64_t end_ns = dj_clock_ns() + 5 * DJ_NS_PER_S;
    liar->asked = false;
    assert_int_equal(raw_say(raw, &header, &move, sizeof(move), NULL, 0), DJ_OK);
    while (!liar->asked && dj_clock_ns() < end_ns)
        pump(liar, raw);
    assert_true(liar->asked);
    assert_int_equal(liar->pull.bytes, BYTES);
    for (uint32_t i = 0; i < parts; i++)
        say_part(liar, raw, i * PART, PART, PART);
}

static void assert_answer(raw_t *raw, int want, const char *word)
{
    int got = raw_hear(raw, 5000);
    if (got != want || (word && !memmem(raw->payload, raw->payload_bytes, word, strlen(word))))
        print_error("%s and '%.*s', not %s with '%s'\n", dj_status_name(got), (int)raw->payload_bytes,
                    (const char *)raw->payload, dj_status_name(want), word ? word : "");
    assert_int_equal(got, want);
    if (word)
        assert_non_null(memmem(raw->payload, raw->payload_bytes, word, strlen(word)));
}

static void release(raw_t *raw, uint64_t ref)
{
    dj_exec_t exec = {.n_releases = 1};
    dj_header_t header = raw_header(raw, DJ_MESSAGE_EXEC);
    assert_int_equal(raw_say(raw, &header, &exec, sizeof(exec), &ref, sizeof(ref)), DJ_OK);
    assert_int_equal(raw_hear(raw, 5000), DJ_OK);
}

static void parts_that_lie(void **state)
{
    static const struct {
        uint32_t before;
        uint64_t offset, announced, bytes;
    } lies[] = {
        {0, 64, PART, PART},                 /* a gap */
        {2, PART, PART, PART},               /* the same once more */
        {2, UINT64_MAX - 10, PART, PART},
        {1, PART, 0, 0},                     /* nothing */
        {1, PART, PART, PART / 2},           /* less than it says */
        {1, PART, PART / 2, PART},           /* more */
        {1, PART, BYTES, BYTES},             /* past the end */
        {1, PART, UINT64_MAX, PART},
    };
    raw_t raw;
    liar_t liar;
    server_t worker = at_rank(TARGET);
    assert_int_equal(raw_open_with(&raw, &worker, &(dj_hello_t){.rank = TARGET}, NULL, 0), DJ_OK);
    take_place(&liar);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        ask(&liar, &raw, lies[i].before);
        say_part(&liar, &raw, lies[i].offset, lies[i].announced, lies[i].bytes);
        assert_answer(&raw, DJ_ERR_PROTOCOL, "source of this version");
        say_part(&liar, &raw, lies[i].before * PART, PART, PART); /* nobody waits for it */
    }
    ask(&liar, &raw, BYTES / PART); /* the truth */
    assert_answer(&raw, DJ_OK, NULL);
    say_part(&liar, &raw, BYTES, PART, PART);
    release(&raw, REF(1));
    assert_true(raw_close(&raw));
    leave_place(&liar);
}

static void results_after_parts(void **state)
{
    raw_t raw;
    liar_t liar;
    server_t worker = at_rank(TARGET);
    assert_int_equal(raw_open_with(&raw, &worker, &(dj_hello_t){.rank = TARGET}, NULL, 0), DJ_OK);
    take_place(&liar);
    dj_result_t result = {.bytes = BYTES};
    ask(&liar, &raw, 1);
    say(&liar, &raw, DJ_MESSAGE_RESULT, &result, sizeof(result), BYTES); /* all of it, with a part here already */
    assert_answer(&raw, DJ_ERR_PROTOCOL, "7000 were asked for");
    result.bytes = 0;
    ask(&liar, &raw, 2);
    say(&liar, &raw, DJ_MESSAGE_RESULT, &result, sizeof(result), 0); /* the end, before the end */
    assert_answer(&raw, DJ_ERR_PROTOCOL, "6000 were asked for");
    result.status = DJ_ERR_MEMORY;
    ask(&liar, &raw, 3);
    say(&liar, &raw, DJ_MESSAGE_RESULT, &result, sizeof(result), 0);
    assert_answer(&raw, DJ_ERR_MEMORY, "rank 2");
    ask(&liar, &raw, 3); /* and then silence for ever */
    leave_place(&liar);
    assert_answer(&raw, DJ_ERR_PEER_DIED, "rank 2");
    assert_true(raw_close(&raw));
}

/* ---- answers that nobody reads ---- */

static bool is_blind(void)
{
    return getenv("TEST_BLIND") || getenv("TEST_SIMULATED");
}

static void say_fetch(raw_t *raw)
{
    dj_fetch_t fetch = {.ref = REF(1), .bytes = FETCHED};
    dj_exec_t exec = {.n_fetches = 1};
    dj_header_t header = raw_header(raw, DJ_MESSAGE_EXEC);
    assert_int_equal(raw_say(raw, &header, &exec, sizeof(exec), &fetch, sizeof(fetch)), DJ_OK);
}

/* Half a megabyte a second would be slow; this one does not take a byte. */
static void answers_that_nobody_reads(void **state)
{
    enum { ASKED = 6 };
    raw_t raw;
    server_t worker = at_rank(TARGET);
    assert_int_equal(raw_open_with(&raw, &worker, &(dj_hello_t){.rank = TARGET}, NULL, 0), DJ_OK);
    dj_upload_t upload = {.ref = REF(1), .bytes = FETCHED, .flags = DJ_UPLOAD_EMPTY};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_UPLOAD);
    assert_int_equal(raw_say(&raw, &header, &upload, sizeof(upload), NULL, 0), DJ_OK);
    assert_int_equal(raw_hear(&raw, 5000), DJ_OK);
    sleep_ms(200); /* numbers travel to rank 0 */
    uint64_t before = server_number(&server, TARGET, "requests");
    raw.holds = true;
    for (int i = 0; i < ASKED; i++)
        say_fetch(&raw);
    /* Beside a blind device answers leave until more than --ingress-bytes of them lie in host memory. */
    uint64_t ran = is_blind() ? INGRESS_MIB * (1 << 20) / FETCHED + 1 : 1;
    assert_true(server_becomes(&server, TARGET, "requests", before + ran, 3000));
    sleep_ms(200);
    assert_int_equal(server_number(&server, TARGET, "requests"), before + ran);
    raw_drop(&raw);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, all_empty, all_empty)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(parts_that_lie),
        CASE(results_after_parts),
        CASE(answers_that_nobody_reads),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
