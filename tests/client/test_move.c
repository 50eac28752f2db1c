/* test_move.c - tensors from rank to rank through djinn_move(), on a server of three workers.
 *
 * First what cannot be, then bytes of every size and shape, chains, both ways at once, a source that is
 * busy. The client's own counters show that what moved did not pass through it. After each test all
 * ranks hold nothing. A second time over tcp with checksums, links between ranks included. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

enum { RANKS = 4, BIG = 64 << 20, PART = 4 << 20 };

static server_t server;

static bool over_tcp(void)
{
    const char *mode = getenv("TEST_MODE");
    return mode && strcmp(mode, "remote") == 0;
}

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", "--link-idle-ms", "300ms", NULL};
    static const char *const tcp[] = {"--threads",    "1",   "--link-idle-ms", "300ms",
                                      "--transports", "tcp", "--checksums", NULL};
    return server_start(&server, RANKS, over_tcp() ? tcp : words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static djinn_t *connect_to(int rank, uint32_t deadline_ms)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    options.mode = getenv("TEST_MODE");
    options.flags = DJINN_CONNECT_RANK;
    options.rank = rank;
    options.deadline_ms = deadline_ms;
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
}

/* One connection a worker, by rank. */
typedef struct fixture {
    djinn_t *at[RANKS];
} fixture_t;

static int open_all(void **state)
{
    static fixture_t fixture;
    for (int rank = 1; rank < RANKS; rank++)
        fixture.at[rank] = connect_to(rank, 20000);
    *state = &fixture;
    return 0;
}

static int close_all(void **state)
{
    fixture_t *fixture = *state;
    bool empty = true;
    for (int rank = 1; rank < RANKS; rank++)
        djinn_close(fixture->at[rank]);
    for (int rank = 1; rank < RANKS; rank++)
        empty = server_is_empty(&server, rank) && empty;
    return empty ? 0 : -1;
}

static uint8_t *pattern(uint64_t bytes, uint32_t seed)
{
    uint8_t *data = malloc(bytes + 4);
    for (uint64_t i = 0; i < bytes; i += 4) {
        uint32_t word = ((uint32_t)(i / 4) + seed) * 2654435761u;
        memcpy(data + i, &word, 4);
    }
    return data;
}

static djinn_tensor_t upload_bytes(djinn_t *djinn, const uint8_t *data, int64_t bytes)
{
    djinn_tensor_t tensor;
    assert_ok(djinn_upload(djinn, DJINN_UINT8, 1, &bytes, data, 0, &tensor));
    return tensor;
}

static void holds(djinn_t *djinn, const djinn_tensor_t *tensor, const uint8_t *want, uint64_t bytes)
{
    uint8_t *got = malloc(bytes + 1);
    assert_ok(djinn_fetch(djinn, tensor, got, bytes));
    assert_memory_equal(got, want, bytes);
    free(got);
}

/* ---- what cannot be ---- */

static void ranks_that_are_none(void **state)
{
    static const int wrong[] = {0, RANKS, 1 << 20, -1};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        djinn_options_t options = server_options(&server);
        djinn_t *djinn;
        options.flags = DJINN_CONNECT_RANK;
        options.rank = wrong[i];
        assert_status(DJINN_ERR_INVALID, djinn_connect(&options, &djinn));
        assert_told("rank");
    }
}

static void tensors_that_cannot_move(void **state)
{
    fixture_t *f = *state;
    djinn_tensor_t out, none = {.dtype = DJINN_UINT8, .rank = 1, .sizes = {1}, .strides = {1}};
    djinn_tensor_t t = upload_bytes(f->at[1], (const uint8_t *)"abcd", 4);
    assert_status(DJINN_ERR_INVALID, djinn_move(f->at[2], &none, &out));
    assert_status(DJINN_ERR_INVALID, djinn_move(NULL, &t, &out));
    djinn_tensor_t outside = t;
    outside.offset = 1;
    assert_true(djinn_move(f->at[2], &outside, &out) < 0);
    djinn_t *gone = connect_to(1, 5000);
    djinn_tensor_t orphan = upload_bytes(gone, (const uint8_t *)"abcd", 4);
    djinn_close(gone);
    assert_true(djinn_move(f->at[2], &orphan, &out) < 0);
    assert_told("closed");
    djinn_release(orphan.storage);
    djinn_release(t.storage);
}

/* ---- bytes ---- */

static void move_of(fixture_t *f, uint64_t bytes, int from, int to)
{
    uint8_t *data = pattern(bytes, (uint32_t)bytes);
    djinn_stats_t before, after;
    djinn_tensor_t there, here = upload_bytes(f->at[from], data, (int64_t)bytes);
    assert_ok(djinn_synchronize(f->at[from]));
    djinn_stats(f->at[to], &before);
    assert_ok(djinn_move(f->at[to], &here, &there));
    djinn_stats(f->at[to], &after);
    assert_int_equal(after.bytes_up, before.bytes_up);
    assert_int_equal(after.bytes_down, before.bytes_down);
    assert_int_equal(djinn_storage_bytes(there.storage), bytes);
    assert_ptr_equal(djinn_storage_owner(there.storage), f->at[to]);
    holds(f->at[to], &there, data, bytes);
    holds(f->at[from], &here, data, bytes); /* a copy: the source stays */
    djinn_release(here.storage);
    djinn_release(there.storage);
    free(data);
}

static void small_and_large(void **state)
{
    static const uint64_t sizes[] = {1, 4096, 32767, 32768, 1 << 20, PART, PART + 1, 6 * PART - 3, BIG};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        move_of(*state, sizes[i], 1, 2);
        move_of(*state, sizes[i], 2, 1); /* over the same link, the other way */
    }
}

static void nothing_moves_too(void **state)
{
    fixture_t *f = *state;
    djinn_tensor_t there, here = upload_bytes(f->at[1], (const uint8_t *)"", 0);
    assert_ok(djinn_move(f->at[2], &here, &there));
    assert_int_equal(djinn_storage_bytes(there.storage), 0);
    djinn_release(here.storage);
    djinn_release(there.storage);
}

static void on_one_rank(void **state)
{
    fixture_t *f = *state;
    static const uint64_t sizes[] = {1, 4096, 1 << 20, BIG};
    djinn_t *mine = f->at[1], *other = connect_to(1, 20000);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *data = pattern(sizes[i], 7);
        djinn_tensor_t t = upload_bytes(mine, data, (int64_t)sizes[i]), there, back;
        assert_ok(djinn_move(other, &t, &there));
        assert_ok(djinn_move(other, &there, &back)); /* within one session */
        holds(other, &there, data, sizes[i]);
        holds(other, &back, data, sizes[i]);
        djinn_release(t.storage);
        djinn_release(there.storage);
        djinn_release(back.storage);
        free(data);
    }
    djinn_close(other);
}

static void windows(void **state)
{
    fixture_t *f = *state;
    float values[64];
    for (int i = 0; i < 64; i++)
        values[i] = (float)i;
    int64_t sizes[] = {8, 8};
    djinn_tensor_t t, moved;
    assert_ok(djinn_upload(f->at[1], DJINN_FLOAT32, 2, sizes, values, 0, &t));
    djinn_tensor_t rows = t; /* rows 2 to 4 */
    rows.offset = 16, rows.sizes[0] = 3;
    assert_ok(djinn_move(f->at[2], &rows, &moved));
    assert_int_equal(djinn_storage_bytes(moved.storage), 3 * 8 * 4);
    holds(f->at[2], &moved, (const uint8_t *)(values + 16), 3 * 8 * 4);
    djinn_release(moved.storage);
    djinn_tensor_t turned = t; /* transposed, every second column: made dense there */
    turned.sizes[0] = 4, turned.strides[0] = 2, turned.strides[1] = 8;
    float want[32];
    for (int i = 0; i < 32; i++)
        want[i] = values[(i / 8) * 2 + (i % 8) * 8];
    assert_ok(djinn_move(f->at[2], &turned, &moved));
    assert_int_equal(moved.strides[0], 8);
    assert_int_equal(djinn_storage_bytes(moved.storage), sizeof(want));
    holds(f->at[2], &moved, (const uint8_t *)want, sizeof(want));
    djinn_release(moved.storage);
    djinn_release(t.storage);
}

/* ---- order ---- */

static void what_was_recorded_before_is_moved(void **state)
{
    fixture_t *f = *state;
    float values[1024] = {0}, want[1024];
    djinn_tensor_t t = upload_vector(f->at[1], values, 1024), moved;
    for (int i = 1; i <= 5; i++)
        record_add_into(f->at[1], t, i); /* nothing of it was sent yet */
    assert_ok(djinn_move(f->at[2], &t, &moved));
    record_add_into(f->at[1], t, 100); /* and this comes after */
    assert_ok(djinn_synchronize(f->at[1]));
    for (int i = 0; i < 1024; i++)
        want[i] = 15;
    holds(f->at[2], &moved, (const uint8_t *)want, sizeof(want));
    djinn_release(t.storage);
    djinn_release(moved.storage);
}

static void a_chain_with_work_at_every_stop(void **state)
{
    fixture_t *f = *state;
    float values[4096] = {0}, want[4096];
    djinn_tensor_t t = upload_vector(f->at[1], values, 4096);
    for (int hop = 0; hop < 12; hop++) {
        djinn_tensor_t next;
        record_add_into(f->at[hop % 3 + 1], t, 1);
        assert_ok(djinn_move(f->at[(hop + 1) % 3 + 1], &t, &next));
        djinn_release(t.storage);
        t = next;
    }
    for (int i = 0; i < 4096; i++)
        want[i] = 12;
    holds(f->at[1], &t, (const uint8_t *)want, sizeof(want));
    djinn_release(t.storage);
}

/* A second or so of products. */
static djinn_tensor_t record_work(djinn_t *djinn, int products)
{
    enum { SIDE = 512 };
    djinn_tensor_t m, out;
    djinn_arg_t full[] = {
        {.kind = DJINN_ARG_INTS, .count = 2, .value.integers = (int64_t[]){SIDE, SIDE}},
        {.kind = DJINN_ARG_REAL_SCALAR, .value.real = 1.0 / SIDE},
        {.kind = DJINN_ARG_INT, .value.integer = DJINN_FLOAT32}};
    assert_ok(djinn_record(djinn, djinn_op("djinn::full"), full, 3, &m));
    out = m;
    djinn_retain(m.storage);
    for (int i = 0; i < products; i++) {
        djinn_tensor_t next = record_mm(djinn, out, m);
        djinn_release(out.storage);
        out = next;
    }
    djinn_release(m.storage);
    return out;
}

static void the_source_is_busy(void **state)
{
    fixture_t *f = *state;
    uint8_t *data = pattern(1 << 20, 3);
    djinn_tensor_t t = upload_bytes(f->at[1], data, 1 << 20), moved;
    djinn_tensor_t work = record_work(f->at[1], 50);
    assert_ok(djinn_flush(f->at[1]));
    djinn_t *other = connect_to(2, 5000); /* and who does not move is served meanwhile */
    djinn_tensor_t small = upload_bytes(other, (const uint8_t *)"abcd", 4);
    holds(other, &small, (const uint8_t *)"abcd", 4);
    assert_ok(djinn_move(f->at[2], &t, &moved));
    holds(f->at[2], &moved, data, 1 << 20);
    djinn_release(small.storage);
    djinn_close(other);
    djinn_release(t.storage);
    djinn_release(work.storage);
    djinn_release(moved.storage);
    free(data);
}

/* ---- at once ---- */

typedef struct shuttle {
    djinn_t *from, *to;
    uint32_t seed;
    int failures;
} shuttle_t;

static void *go_to_and_fro(void *argument)
{
    enum { BYTES = 300000, ROUNDS = 25 };
    shuttle_t *shuttle = argument;
    uint8_t *data = pattern(BYTES, shuttle->seed), *got = malloc(BYTES);
    int64_t size = BYTES;
    for (int i = 0; i < ROUNDS; i++) {
        djinn_tensor_t here, there;
        bool good = djinn_upload(shuttle->from, DJINN_UINT8, 1, &size, data, 0, &here) == DJINN_OK &&
                    djinn_move(shuttle->to, &here, &there) == DJINN_OK;
        if (!good)
            print_error("round %d: %s\n", i, djinn_error());
        shuttle->failures += !good || djinn_fetch(shuttle->to, &there, got, BYTES) != DJINN_OK ||
                             memcmp(got, data, BYTES) != 0;
        if (!good)
            break;
        djinn_release(here.storage);
        djinn_release(there.storage);
    }
    free(data);
    free(got);
    return NULL;
}

static void run_shuttles(shuttle_t *shuttles, int count)
{
    pthread_t threads[8];
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, go_to_and_fro, &shuttles[i]), 0);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < count; i++)
        assert_int_equal(shuttles[i].failures, 0);
}

/* Two sessions that pull from each other must not wait for each other; all links are dialled at once. */
static void against_each_other(void **state)
{
    fixture_t *f = *state;
    for (int rank = 1; rank < RANKS; rank++)
        assert_true(server_becomes(&server, rank, "links", 0, 5000));
    shuttle_t shuttles[] = {{f->at[1], f->at[2], 1, 0}, {f->at[2], f->at[1], 2, 0},
                            {f->at[2], f->at[3], 3, 0}, {f->at[3], f->at[2], 4, 0},
                            {f->at[3], f->at[1], 5, 0}, {f->at[1], f->at[3], 6, 0}};
    run_shuttles(shuttles, 6);
}

static void against_each_other_on_one_rank(void **state)
{
    fixture_t *f = *state;
    djinn_t *other = connect_to(1, 20000);
    shuttle_t shuttles[] = {
        {f->at[1], other, 1, 0}, {other, f->at[1], 2, 0}, {other, other, 3, 0}};
    run_shuttles(shuttles, 3);
    djinn_close(other);
}

/* Where slabs are proven both ends use theirs; a server of its own, whose counts begin at 0. */
static void between_devices_directly(void **state)
{
    enum { BYTES = BIG + 100001 };
    const uint64_t moved = getenv("TEST_SLAB") ? BYTES : 0;
    const char *words[] = {"--threads", "1", NULL, "--transports", "tcp", NULL};
    const server_t shared = server;
    words[2] = over_tcp() ? "--checksums" : NULL;
    assert_true(server_start(&server, 3, words));
    djinn_t *from = connect_to(1, 20000), *to = connect_to(2, 20000);
    uint8_t *data = pattern(BYTES, 77);
    djinn_tensor_t there, small_there, here = upload_bytes(from, data, BYTES), small = upload_bytes(from, data, 60000);
    assert_ok(djinn_move(to, &here, &there));
    assert_ok(djinn_move(to, &small, &small_there));
    assert_true(server_becomes(&server, 1, "direct_bytes", 2 * moved, 3000)); /* the upload's puts, too */
    assert_true(server_becomes(&server, 2, "direct_bytes", moved, 3000));
    holds(to, &there, data, BYTES);
    holds(to, &small_there, data, 60000);
    djinn_release(here.storage);
    djinn_release(there.storage);
    djinn_release(small.storage);
    djinn_release(small_there.storage);
    djinn_close(from);
    djinn_close(to);
    free(data);
    assert_true(server_stop(&server));
    server = shared;
}

/* ---- what stays ---- */

static void a_hundred_moves_leave_nothing(void **state)
{
    fixture_t *f = *state;
    uint64_t moves = server_number(&server, 2, "moves");
    for (int i = 0; i < 100; i++) {
        uint8_t *data = pattern(50000, (uint32_t)i);
        djinn_tensor_t there, here = upload_bytes(f->at[1], data, 50000);
        assert_ok(djinn_move(f->at[2], &here, &there));
        holds(f->at[2], &there, data, 50000);
        djinn_release(here.storage);
        djinn_release(there.storage);
        free(data);
    }
    assert_true(server_becomes(&server, 2, "moves", moves + 100, 2000));
    for (int rank = 1; rank < RANKS; rank++)
        assert_true(server_becomes(&server, rank, "links", 0, 5000));
    for (int i = 0; i < 3; i++) { /* closed as idle, and opened again */
        move_of(f, 100000, 1, 2);
        assert_true(server_becomes(&server, 1, "links", 0, 5000));
        assert_true(server_becomes(&server, 2, "links", 0, 5000));
        move_of(f, 100000, 2, 1);
        assert_true(server_becomes(&server, 1, "links", 0, 5000));
        assert_true(server_becomes(&server, 2, "links", 0, 5000));
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(ranks_that_are_none),
        CASE(tensors_that_cannot_move),
        CASE(small_and_large),
        CASE(nothing_moves_too),
        CASE(on_one_rank),
        CASE(windows),
        CASE(what_was_recorded_before_is_moved),
        CASE(a_chain_with_work_at_every_stop),
        CASE(the_source_is_busy),
        CASE(against_each_other),
        CASE(against_each_other_on_one_rank),
        cmocka_unit_test(between_devices_directly),
        CASE(a_hundred_moves_leave_nothing),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
