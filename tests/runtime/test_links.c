/* test_links.c - links between ranks against lies, deaths and silence.
 *
 * A raw client asks rank 1 for MOVEs from rank 2, where an honest client holds tensors; others send PULLs,
 * RESULTs and hellos of peers that they are not. Then ranks are stopped and killed under moves: each ends
 * with a typed status in time, what was half made is gone to the byte, and the next move opens a new link. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"
#include "planner/ops.h"
#include "runtime/base/clock.h"
#include "tests/runtime/raw.h"

#define REF(index) ((uint64_t)0x5eed << 32 | (index))
enum { RANKS = 4, TARGET = 1, SOURCE = 2, BYTES = 100000, BIG = 64 << 20, IN_TIME_MS = 2000 };

static server_t server;

static bool over_tcp(void)
{
    const char *mode = getenv("TEST_MODE");
    return mode && strcmp(mode, "remote") == 0;
}

/* The lease is short for the sake of clients whose rank was killed or stopped. */
static int start_with(const char *suspect_ms)
{
    const char *const words[] = {"--threads",        "1",
                                 "--log",            "info,links=debug",
                                 "--suspect-ms",     suspect_ms,
                                 "--lease-grace-ms", "200ms",
                                 "--transports",     over_tcp() ? "tcp" : "auto",
                                 NULL};
    return server_start(&server, RANKS, words) ? 0 : -1;
}

/* A crowded machine may not run a thread for a second: deaths are seen without a clock. */
static int start(void **state)
{
    return start_with("8s");
}

static int start_watchful(void **state)
{
    return start_with("1s");
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

/* ---- clients ---- */

static djinn_t *connect_to(int rank)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn = NULL;
    options.mode = getenv("TEST_MODE");
    options.flags = DJINN_CONNECT_RANK;
    options.rank = rank;
    options.deadline_ms = 30000;
    if (djinn_connect(&options, &djinn) != DJINN_OK)
        print_error("connect to rank %d: %s\n", rank, djinn_error());
    assert_non_null(djinn);
    return djinn;
}

/* The server as seen by who knows a worker's own port. */
static server_t at_rank(int rank)
{
    server_t worker = server;
    djinn_t *djinn = connect_to(rank);
    snprintf(worker.address, sizeof(worker.address), "%s", djinn->peer);
    djinn_close(djinn);
    return worker;
}

static void open_raw(raw_t *raw, int rank, uint32_t deadline_ms)
{
    server_t worker = at_rank(rank);
    assert_int_equal(raw_open_with(raw, &worker,
                                   &(dj_hello_t){.rank = (uint32_t)rank, .deadline_ms = deadline_ms},
                                   NULL, 0),
                     DJ_OK);
}

/* What an honest client holds on the source rank. */
typedef struct source {
    djinn_t *djinn;
    djinn_tensor_t tensor;
} source_t;

static source_t make_source(int rank, int64_t bytes)
{
    source_t source = {.djinn = connect_to(rank)};
    uint8_t *data = malloc((size_t)bytes);
    memset(data, 0x5a, (size_t)bytes);
    assert_int_equal(djinn_upload(source.djinn, DJINN_UINT8, 1, &bytes, data, 0, &source.tensor),
                     DJINN_OK);
    assert_int_equal(djinn_synchronize(source.djinn), DJINN_OK);
    free(data);
    return source;
}

static void drop_source(source_t *source)
{
    djinn_release(source->tensor.storage);
    djinn_close(source->djinn);
}

static dj_move_t honest_move(const source_t *source, uint64_t ref)
{
    return (dj_move_t){.ref = ref,
                       .bytes = djinn_storage_bytes(source->tensor.storage),
                       .source_session = source->djinn->session,
                       .source_ref = source->tensor.storage->ref,
                       .source_generation = source->djinn->generation,
                       .source_rank = source->djinn->rank};
}

static void say_move(raw_t *raw, const dj_move_t *move)
{
    dj_header_t header = raw_header(raw, DJ_MESSAGE_MOVE);
    assert_int_equal(raw_say(raw, &header, move, sizeof(*move), NULL, 0), DJ_OK);
}

/* The status answered; DJ_IN_PROGRESS: none in time. */
static int exchange_move(raw_t *raw, const dj_move_t *move, int limit_ms)
{
    say_move(raw, move);
    return raw_hear(raw, limit_ms);
}

static void release(raw_t *raw, uint64_t ref)
{
    dj_exec_t exec = {.n_releases = 1};
    dj_header_t header = raw_header(raw, DJ_MESSAGE_EXEC);
    assert_int_equal(raw_say(raw, &header, &exec, sizeof(exec), &ref, sizeof(ref)), DJ_OK);
    assert_int_equal(raw_hear(raw, 5000), DJ_OK);
}

static void assert_answer(raw_t *raw, int got, int want, const char *word)
{
    const char *text = (const char *)raw->payload;
    if (got != want || (word && !memmem(text, raw->payload_bytes, word, strlen(word))))
        print_error("%s and '%.*s', not %s with '%s'\n", dj_status_name(got),
                    (int)raw->payload_bytes, text, dj_status_name(want), word ? word : "");
    assert_int_equal(got, want);
    if (word)
        assert_non_null(memmem(text, raw->payload_bytes, word, strlen(word)));
}

/* A tensor moves from source to target as it should, with its first bytes looked at. */
static void still_moves(int from, int to)
{
    source_t source = make_source(from, BYTES);
    djinn_t *target = connect_to(to);
    djinn_tensor_t moved;
    uint8_t *back = malloc(BYTES);
    djinn_status_t status = djinn_move(target, &source.tensor, &moved);
    if (status != DJINN_OK)
        print_error("%d to %d: %s\n", from, to, djinn_error());
    assert_int_equal(status, DJINN_OK);
    assert_int_equal(djinn_fetch(target, &moved, back, BYTES), DJINN_OK);
    for (int i = 0; i < BYTES; i++)
        assert_int_equal(back[i], 0x5a);
    free(back);
    djinn_release(moved.storage);
    djinn_close(target);
    drop_source(&source);
}

static int all_empty(void **state)
{
    bool empty = true;
    for (int rank = 1; rank < RANKS; rank++)
        empty = empty && server_is_empty(&server, rank);
    return empty ? 0 : -1;
}

/* server_becomes() with a raw client that must stay alive meanwhile. */
static bool becomes(raw_t *raw, const char *name, uint64_t value)
{
    uint64_t end_ms = now_ms() + 2000, last;
    while ((last = server_number(&server, TARGET, name)) != value && now_ms() < end_ms) {
        raw_pump(raw);
        sleep_ms(5);
    }
    raw_pump(raw);
    if (last != value)
        print_error("%s is %llu, not %llu\n", name, (unsigned long long)last,
                    (unsigned long long)value);
    return last == value;
}

/* ---- lies in a MOVE ---- */

#define SPOIL(want, word, ...)                                                                     \
    do {                                                                                           \
        dj_move_t move = honest_move(&source, REF(7));                                             \
        __VA_ARGS__;                                                                               \
        assert_answer(&raw, exchange_move(&raw, &move, 5000), want, word);                         \
        assert_true(becomes(&raw, "refs", rank == TARGET));                                        \
    } while (0)

static void lies_about_a_source(int rank)
{
    raw_t raw;
    source_t source = make_source(rank, BYTES);
    open_raw(&raw, TARGET, 0);
    SPOIL(DJ_ERR_STALE, "session", move.source_session ^= 1);
    SPOIL(DJ_ERR_STALE, "session", move.source_session = 0);
    SPOIL(DJ_ERR_STALE, "generation", move.source_generation++);
    SPOIL(DJ_ERR_STALE, "ref", move.source_ref ^= 1ull << 40);
    SPOIL(DJ_ERR_STALE, "ref", move.source_ref ^= 1);
    SPOIL(DJ_ERR_STALE, "ref", move.source_ref = UINT64_MAX);
    SPOIL(DJ_ERR_STALE, "ref", move.source_ref = 0);
    SPOIL(DJ_ERR_SHAPE, "bytes", move.bytes++);
    SPOIL(DJ_ERR_SHAPE, "bytes", move.source_offset = 1);
    SPOIL(DJ_ERR_SHAPE, "bytes", move.source_offset = UINT64_MAX);
    SPOIL(DJ_ERR_SHAPE, "bytes", move.source_offset = UINT64_MAX - BYTES + 1);
    SPOIL(DJ_ERR_LIMIT, NULL, move.bytes = 1ull << 50);
    SPOIL(DJ_ERR_RESOURCE, "quota", move.bytes = 16ull << 30);
    SPOIL(DJ_ERR_LIMIT, "ref", move.ref = UINT64_MAX);
    SPOIL(DJ_ERR_LIMIT, "ref", move.ref = 7);
    SPOIL(DJ_ERR_INVALID, "ranks 1 to 3", move.source_rank = 0);
    SPOIL(DJ_ERR_INVALID, "ranks 1 to 3", move.source_rank = RANKS);
    SPOIL(DJ_ERR_INVALID, "ranks 1 to 3", move.source_rank = UINT32_MAX);
    SPOIL(DJ_ERR_STALE, "session", move.source_rank = rank == TARGET ? SOURCE : TARGET);
    dj_move_t move = honest_move(&source, REF(7));
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_MOVE);
    assert_int_equal(raw_say(&raw, &header, &move, sizeof(move), "payload!", 8), DJ_OK);
    assert_answer(&raw, raw_hear(&raw, 5000), DJ_ERR_PROTOCOL, "payload");
    assert_answer(&raw, exchange_move(&raw, &move, 5000), DJ_OK, NULL);
    assert_answer(&raw, exchange_move(&raw, &move, 5000), DJ_ERR_STALE, "taken");
    release(&raw, REF(7));
    assert_true(becomes(&raw, "refs", rank == TARGET));
    assert_true(raw_close(&raw));
    drop_source(&source);
}

static void a_move_lies_about_another_rank(void **state)
{
    lies_about_a_source(SOURCE);
}

static void a_move_lies_about_its_own_rank(void **state)
{
    raw_t raw;
    lies_about_a_source(TARGET);
    open_raw(&raw, TARGET, 0); /* a ref from itself, which is not there before the move has ended */
    dj_move_t move = {.ref = REF(3), .bytes = 64, .source_session = raw.session,
                      .source_ref = REF(3), .source_generation = raw.generation,
                      .source_rank = TARGET};
    assert_answer(&raw, exchange_move(&raw, &move, 5000), DJ_ERR_STALE, "move");
    assert_true(raw_close(&raw));
}

static void many_moves_of_one_client(void **state)
{
    enum { COUNT = 200 };
    raw_t raw;
    source_t source = make_source(SOURCE, BYTES), near = make_source(TARGET, BYTES);
    open_raw(&raw, TARGET, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        dj_move_t move = honest_move(i % 3 ? &source : &near, REF(i));
        say_move(&raw, &move);
    }
    assert_int_equal(raw_hear(&raw, 10000), DJ_OK);
    assert_int_equal(raw.answers, COUNT);
    assert_true(raw_close(&raw)); /* its refs go with it */
    drop_source(&source);
    drop_source(&near);
}

/* ---- lies of a client that plays a rank ---- */

static void pulls_and_results_of_a_client(void **state)
{
    raw_t raw;
    source_t source = make_source(SOURCE, BYTES);
    still_moves(SOURCE, TARGET); /* so that there is a link for an answer to go astray on */
    open_raw(&raw, SOURCE, 0);
    static const uint32_t ranks[] = {TARGET, SOURCE, 0, 3, RANKS, UINT32_MAX};
    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++)
        for (int truth = 0; truth < 3; truth++) {
            dj_pull_t pull = {.session = source.djinn->session + (truth == 1),
                              .ref = source.tensor.storage->ref, .bytes = BYTES,
                              .generation = source.djinn->generation, .rank = ranks[i]};
            dj_header_t header = raw_header(&raw, DJ_MESSAGE_PULL);
            header.session = 0;
            raw_say(&raw, &header, &pull, sizeof(pull), "12345678", truth == 2 ? 8 : 0);
        }
    for (uint64_t request = 0; request < 3; request++) {
        static uint8_t large[1 << 18];
        dj_result_t result = {.bytes = sizeof(large)};
        dj_header_t header = raw_header(&raw, DJ_MESSAGE_RESULT);
        header.request = request;
        raw_say(&raw, &header, &result, sizeof(result), large, request ? sizeof(large) : 0);
    }
    dj_exec_t exec = {0};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_EXEC);
    assert_int_equal(raw_say(&raw, &header, &exec, sizeof(exec), NULL, 0), DJ_OK);
    assert_int_equal(raw_hear(&raw, 5000), DJ_OK);
    assert_int_equal(raw.answers, 1); /* of all that it said */
    assert_true(raw_close(&raw));
    drop_source(&source);
    still_moves(SOURCE, TARGET);
}

/* A hello as `peer`; what the rank says to it. `control_p` is open after DJ_OK. */
static dj_status_t greet_as(const dj_hello_t *peer, int rank, bool good_address,
                            dj_control_t **control_p, dj_comm_t **comm_p)
{
    dj_comm_options_t options = {.shared_memory = true, .loopback_only = true};
    dj_hello_t hello = *peer;
    server_t worker = rank ? at_rank(rank) : server;
    uint64_t deadline_ns = dj_clock_ns() + 3 * DJ_NS_PER_S;
    uint8_t token[32], garbage[200] = {1, 2, 3};
    const void *address = garbage, *body;
    dj_frame_t frame;
    hello.role = DJ_ROLE_PEER;
    hello.op_table = dj_op_table_hash();
    hello.address_bytes = sizeof(garbage);
    assert_int_equal(dj_token_parse(worker.token, token), DJ_OK);
    assert_int_equal(dj_comm_create(&options, comm_p), DJ_OK);
    if (good_address)
        dj_comm_address(*comm_p, &address, &hello.address_bytes);
    assert_int_equal(dj_control_connect(worker.address, deadline_ns, control_p), DJ_OK);
    dj_status_t status = dj_control_greet(*control_p, token, &hello, address, deadline_ns, &frame,
                                          &body);
    if (status != DJ_OK) {
        dj_control_close(*control_p);
        dj_comm_destroy(*comm_p);
    }
    return status;
}

static void refused_peer(int want, const dj_hello_t *peer, int rank, bool good_address)
{
    dj_control_t *control;
    dj_comm_t *comm;
    dj_status_t status = greet_as(peer, rank, good_address, &control, &comm);
    if (status != (dj_status_t)want)
        print_error("%s: %s\n", dj_status_name(status), dj_error_text());
    assert_int_equal(status, want);
}

static void peers_that_are_none(void **state)
{
    uint32_t incarnation = (uint32_t)server_number(&server, 3, "incarnation");
    still_moves(SOURCE, TARGET);
    refused_peer(DJ_ERR_UNSUPPORTED, &(dj_hello_t){.rank = 3}, 0, true);
    refused_peer(DJ_ERR_INVALID, &(dj_hello_t){.rank = TARGET}, TARGET, true);
    refused_peer(DJ_ERR_INVALID, &(dj_hello_t){.rank = RANKS}, TARGET, true);
    refused_peer(DJ_ERR_INVALID, &(dj_hello_t){.rank = UINT32_MAX}, TARGET, true);
    refused_peer(DJ_ERR_BUSY, &(dj_hello_t){.rank = 0}, TARGET, true);
    refused_peer(DJ_ERR_BUSY, &(dj_hello_t){.rank = 3, .incarnation = incarnation + 1}, TARGET, true);
    refused_peer(DJ_ERR_BUSY,
                 &(dj_hello_t){.rank = 3, .incarnation = incarnation, .generation = 1 << 30},
                 TARGET, true);
    refused_peer(DJ_ERR_BUSY, /* it has a link */
                 &(dj_hello_t){.rank = SOURCE,
                               .incarnation = (uint32_t)server_number(&server, SOURCE, "incarnation")},
                 TARGET, true);
    refused_peer(DJ_ERR_PROTOCOL, &(dj_hello_t){.rank = 3, .incarnation = incarnation}, TARGET,
                 false);
    still_moves(SOURCE, TARGET);
    still_moves(3, TARGET);
}

/* Who holds the token may take a rank's place while there is no link; the place is free after it. */
static void a_peer_that_takes_a_place(void **state)
{
    dj_control_t *control;
    dj_comm_t *comm;
    dj_hello_t peer = {.rank = SOURCE,
                       .incarnation = (uint32_t)server_number(&server, SOURCE, "incarnation")};
    assert_int_equal(greet_as(&peer, 3, true, &control, &comm), DJ_OK);
    refused_peer(DJ_ERR_BUSY, &peer, 3, true);
    dj_control_close(control);
    dj_comm_destroy(comm);
    still_moves(SOURCE, 3);
    still_moves(3, SOURCE);
}

/* ---- a source that dies, stops, or is slow ---- */

static pid_t pid_of(int rank)
{
    return (pid_t)server_number(&server, rank, "pid");
}

static void kill_and_wait(int rank)
{
    uint64_t incarnation = server_number(&server, rank, "incarnation");
    kill(pid_of(rank), SIGKILL);
    assert_true(server_becomes(&server, rank, "incarnation", incarnation + 1, 10000));
}

/* A request of a second or more, not waited for. */
static void keep_busy(djinn_t *djinn, djinn_storage_t **kept_p)
{
    enum { SIDE = 1024, PRODUCTS = 40 };
    djinn_tensor_t m, out, next;
    djinn_arg_t full[] = {
        {.kind = DJINN_ARG_INTS, .count = 2, .value.integers = (int64_t[]){SIDE, SIDE}},
        {.kind = DJINN_ARG_REAL_SCALAR, .value.real = 1.0 / SIDE},
        {.kind = DJINN_ARG_INT, .value.integer = DJINN_FLOAT32}};
    assert_int_equal(djinn_record(djinn, djinn_op("djinn::full"), full, 3, &m), DJINN_OK);
    out = m;
    djinn_retain(m.storage);
    for (int i = 0; i < PRODUCTS; i++) {
        djinn_arg_t args[] = {{.kind = DJINN_ARG_TENSOR, .value.tensors = &out},
                              {.kind = DJINN_ARG_TENSOR, .value.tensors = &m}};
        assert_int_equal(djinn_record(djinn, djinn_op("aten::mm"), args, 2, &next), DJINN_OK);
        djinn_release(out.storage);
        out = next;
    }
    djinn_release(m.storage);
    assert_int_equal(djinn_flush(djinn), DJINN_OK);
    *kept_p = out.storage;
}

static void until_idle(raw_t *raw, djinn_t *djinn)
{
    djinn_request_t *request;
    djinn_status_t status;
    assert_int_equal(djinn_submit(djinn, NULL, 0, &request), DJINN_OK);
    while ((status = djinn_test(request)) == DJINN_IN_PROGRESS)
        raw_pump(raw);
    assert_int_equal(status, DJINN_OK);
    djinn_request_free(request);
}

/* The PULL waits behind a long request; the rank dies under it. */
static void a_source_is_killed_while_it_is_asked(void **state)
{
    raw_t raw;
    djinn_storage_t *kept;
    still_moves(SOURCE, TARGET); /* the link is open */
    source_t source = make_source(SOURCE, BYTES);
    open_raw(&raw, TARGET, 0);
    dj_move_t move = honest_move(&source, REF(1));
    pid_t pid = pid_of(SOURCE);
    keep_busy(source.djinn, &kept);
    say_move(&raw, &move);
    assert_int_equal(raw_hear(&raw, 100), DJ_IN_PROGRESS);
    uint64_t began_ms = now_ms();
    kill(pid, SIGKILL);
    assert_answer(&raw, raw_hear(&raw, 5000), DJ_ERR_PEER_DIED, "rank 2");
    assert_true(now_ms() - began_ms < IN_TIME_MS);
    assert_true(becomes(&raw, "refs", 0));
    assert_true(becomes(&raw, "data_bytes", 0));
    djinn_release(kept);
    drop_source(&source);
    while (server_number(&server, SOURCE, "incarnation") != 1 && now_ms() - began_ms < 10000)
        raw_pump(&raw);
    assert_answer(&raw, exchange_move(&raw, &move, 5000), DJ_ERR_STALE, "session"); /* another life */
    assert_true(raw_close(&raw));
    still_moves(SOURCE, TARGET);
    still_moves(TARGET, SOURCE);
}

static void no_source_is_there(void **state)
{
    raw_t raw;
    source_t source = make_source(3, BYTES);
    dj_move_t move = honest_move(&source, REF(1));
    open_raw(&raw, TARGET, 0);
    drop_source(&source);
    assert_answer(&raw, exchange_move(&raw, &move, 5000), DJ_ERR_STALE, "session");
    kill(pid_of(3), SIGKILL); /* and as soon as it is back: the roster may be a moment behind */
    while (server_number(&server, 3, "incarnation") == 0)
        raw_pump(&raw);
    assert_answer(&raw, exchange_move(&raw, &move, 5000), DJ_ERR_STALE, "session");
    assert_true(raw_close(&raw));
}

/* Stopped: with a link it is found by its silence, without one by a dial that is not answered. */
static void stopped(bool linked)
{
    raw_t raw;
    source_t source = make_source(SOURCE, BYTES);
    pid_t pid = pid_of(SOURCE);
    if (linked)
        still_moves(SOURCE, TARGET);
    open_raw(&raw, TARGET, 0);
    dj_move_t move = honest_move(&source, REF(1));
    kill(pid, SIGSTOP);
    uint64_t began_ms = now_ms();
    int status = exchange_move(&raw, &move, 5000);
    uint64_t took_ms = now_ms() - began_ms;
    kill(pid, SIGCONT);
    assert_answer(&raw, status, DJ_ERR_PEER_DIED, "rank 2");
    assert_true(took_ms < 2 * IN_TIME_MS); /* one second and what the machine makes of it */
    assert_true(becomes(&raw, "refs", 0));
    assert_true(raw_close(&raw));
    drop_source(&source);
    assert_true(server_becomes(&server, SOURCE, "sessions", 0, 5000));
    still_moves(SOURCE, TARGET);
    still_moves(TARGET, SOURCE);
}

static void a_source_is_stopped(void **state)
{
    for (int i = 0; i < 2; i++)
        stopped(true);
}

static void a_source_is_stopped_and_no_link_is_open(void **state)
{
    kill_and_wait(TARGET);
    stopped(false);
}

static void assert_moves(djinn_t *target, const djinn_tensor_t *tensor, int for_ms)
{
    djinn_tensor_t moved;
    for (uint64_t end_ms = now_ms() + (uint64_t)for_ms; now_ms() < end_ms;) {
        djinn_status_t status = djinn_move(target, tensor, &moved);
        if (status != DJINN_OK)
            print_error("%s: %s\n", djinn_status_name(status), djinn_error());
        assert_int_equal(status, DJINN_OK);
        djinn_release(moved.storage);
    }
}

/* Workers lose it, come back one after the other, and hear that the others are not there yet. Their links
 * know better. The first test of its server: nobody has been killed. */
static void the_coordinator_is_stopped(void **state)
{
    source_t source = make_source(SOURCE, BIG);
    djinn_t *target = connect_to(TARGET);
    pid_t pid = pid_of(0);
    assert_moves(target, &source.tensor, 1);
    kill(pid, SIGSTOP);
    assert_moves(target, &source.tensor, 1500);
    kill(pid, SIGCONT);
    assert_moves(target, &source.tensor, 1000);
    char *said = server_errors(&server);
    assert_non_null(strstr(said, "the coordinator is lost"));
    assert_null(strstr(said, "link to rank 1 ends"));
    assert_null(strstr(said, "link to rank 2 ends"));
    free(said);
    djinn_close(target);
    drop_source(&source);
}

static void a_deadline_passes_first(void **state)
{
    raw_t raw;
    djinn_storage_t *kept;
    source_t source = make_source(SOURCE, BYTES);
    still_moves(SOURCE, TARGET);
    open_raw(&raw, TARGET, 300);
    dj_move_t move = honest_move(&source, REF(1));
    keep_busy(source.djinn, &kept);
    uint64_t began_ms = now_ms();
    assert_answer(&raw, exchange_move(&raw, &move, 5000), DJ_ERR_DEADLINE, "rank 2");
    assert_in_range(now_ms() - began_ms, 250, IN_TIME_MS);
    assert_true(becomes(&raw, "refs", 0));
    djinn_release(kept);
    until_idle(&raw, source.djinn); /* its PULL is answered to nobody */
    assert_answer(&raw, exchange_move(&raw, &move, 5000), DJ_OK, NULL);
    assert_true(raw_close(&raw));
    drop_source(&source);
}

/* Its client goes while the MOVE waits: the rank does not keep the memory until the deadline. */
static void a_client_goes_while_it_waits(void **state)
{
    djinn_storage_t *kept;
    for (int local = 0; local < 2; local++) {
        raw_t raw;
        source_t source = make_source(local ? TARGET : SOURCE, BYTES);
        open_raw(&raw, TARGET, 0);
        dj_move_t move = honest_move(&source, REF(1));
        keep_busy(source.djinn, &kept);
        say_move(&raw, &move);
        assert_int_equal(raw_hear(&raw, 50), DJ_IN_PROGRESS);
        assert_true(raw_close(&raw));
        djinn_release(kept);
        assert_int_equal(djinn_synchronize(source.djinn), DJINN_OK);
        drop_source(&source);
    }
}

/* ---- deaths amid bytes ---- */

typedef struct mover {
    djinn_t *target;
    djinn_tensor_t tensor;
    djinn_status_t status;
    char text[256];
    uint64_t ended_ms;
    _Atomic int moved;
} mover_t;

static void *move_until_it_fails(void *argument)
{
    mover_t *mover = argument;
    djinn_tensor_t moved;
    while ((mover->status = djinn_move(mover->target, &mover->tensor, &moved)) == DJINN_OK) {
        djinn_release(moved.storage);
        mover->moved++;
    }
    mover->ended_ms = now_ms();
    snprintf(mover->text, sizeof(mover->text), "%s", djinn_error());
    return NULL;
}

static void die_amid_bytes(int victim, int round)
{
    source_t source = make_source(SOURCE, BIG);
    mover_t mover = {.target = connect_to(TARGET), .tensor = source.tensor};
    pthread_t thread;
    pid_t pid = pid_of(victim);
    uint64_t incarnation = server_number(&server, victim, "incarnation"), end_ms = now_ms() + 10000;
    assert_int_equal(pthread_create(&thread, NULL, move_until_it_fails, &mover), 0);
    while (mover.moved < 2 && now_ms() < end_ms)
        sleep_ms(1);
    sleep_ms(round * 7);
    uint64_t killed_ms = now_ms();
    kill(pid, SIGKILL);
    pthread_join(thread, NULL);
    if (mover.status != DJINN_ERR_PEER_DIED)
        print_error("%s: %s\n", djinn_status_name(mover.status), mover.text);
    assert_int_equal(mover.status, DJINN_ERR_PEER_DIED);
    assert_non_null(strstr(mover.text, victim == SOURCE ? "rank 2" : "rank 1"));
    assert_true(mover.ended_ms - killed_ms < IN_TIME_MS);
    assert_true(server_becomes(&server, victim, "incarnation", incarnation + 1, 10000));
    djinn_close(mover.target);
    drop_source(&source);
    assert_int_equal(all_empty(NULL), 0);
    still_moves(SOURCE, TARGET);
}

/* Asked only in its next life, it knows no such session; the mover hears of its death. */
static void a_source_dies_before_it_is_asked(void **state)
{
    djinn_storage_t *kept;
    source_t source = make_source(SOURCE, BYTES);
    mover_t mover = {.target = connect_to(TARGET), .tensor = source.tensor};
    pthread_t thread;
    pid_t pid = pid_of(SOURCE);
    uint64_t incarnation = server_number(&server, SOURCE, "incarnation");
    keep_busy(mover.target, &kept);
    assert_int_equal(pthread_create(&thread, NULL, move_until_it_fails, &mover), 0);
    sleep_ms(50); /* its MOVE waits for the products; were it late, it would hear of the death without asking */
    kill(pid, SIGKILL);
    pthread_join(thread, NULL);
    if (mover.status != DJINN_ERR_PEER_DIED)
        print_error("%s: %s\n", djinn_status_name(mover.status), mover.text);
    assert_int_equal(mover.status, DJINN_ERR_PEER_DIED);
    assert_non_null(strstr(mover.text, "rank 2"));
    assert_int_equal(mover.moved, 0);
    assert_true(server_becomes(&server, SOURCE, "incarnation", incarnation + 1, 10000));
    djinn_release(kept);
    djinn_close(mover.target);
    drop_source(&source);
}

static void a_source_dies_amid_bytes(void **state)
{
    for (int round = 0; round < 4; round++)
        die_amid_bytes(SOURCE, round);
}

static void a_target_dies_amid_bytes(void **state)
{
    for (int round = 0; round < 4; round++)
        die_amid_bytes(TARGET, round);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, all_empty, all_empty)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_move_lies_about_another_rank),
        CASE(a_move_lies_about_its_own_rank),
        CASE(many_moves_of_one_client),
        CASE(pulls_and_results_of_a_client),
        CASE(peers_that_are_none),
        CASE(a_peer_that_takes_a_place),
        CASE(a_source_is_killed_while_it_is_asked),
        CASE(no_source_is_there),
        CASE(a_deadline_passes_first),
        CASE(a_client_goes_while_it_waits),
        CASE(a_source_dies_before_it_is_asked),
        CASE(a_source_dies_amid_bytes),
        CASE(a_target_dies_amid_bytes),
    };
    const struct CMUnitTest silent[] = {
        CASE(the_coordinator_is_stopped),
        CASE(a_source_is_stopped),
        CASE(a_source_is_stopped_and_no_link_is_open),
    };
    dj_hash_setup();
    setenv("DJINN_SUSPECT_MS", "8s", 1); /* of clients */
    int failures = cmocka_run_group_tests(tests, start, stop);
    failures += cmocka_run_group_tests(silent, start_watchful, stop);
    return server_verdict(failures);
}
