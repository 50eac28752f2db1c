/* test_hostile_puts.c - PUTs, batches and checksums from a client that lies: each lie is answered with its
 * status and a sentence or dropped, changes nothing, and the session goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/runtime/raw.h"

enum { BYTES = 100000 };
#define REF(index) (0xabcdull << 32 | (index))

static server_t server;
static raw_t raw;
static uint8_t data[BYTES];

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static int say(dj_message_t type, const void *body, uint32_t struct_bytes, const void *payload,
               uint64_t bytes)
{
    dj_header_t header = raw_header(&raw, type);
    raw_say(&raw, &header, body, struct_bytes, payload, bytes);
    return raw_hear(&raw, 5000);
}

static int upload(uint64_t ref, uint64_t bytes, uint32_t flags)
{
    dj_upload_t upload = {.ref = ref, .bytes = bytes, .flags = flags};
    return say(DJ_MESSAGE_UPLOAD, &upload, sizeof(upload), data,
               flags & DJ_UPLOAD_EMPTY ? 0 : bytes);
}

static int put(dj_put_t put, const void *payload, uint64_t bytes)
{
    return say(DJ_MESSAGE_PUT, &put, sizeof(put), payload, bytes);
}

static int fetch(uint64_t ref, uint64_t offset, uint64_t bytes)
{
    dj_exec_t exec = {.n_fetches = 1};
    dj_fetch_t fetch = {ref, offset, bytes};
    return say(DJ_MESSAGE_EXEC, &exec, sizeof(exec), &fetch, sizeof(fetch));
}

static int open_raw(void **state)
{
    if (raw_open(&raw, &server) != DJ_OK)
        return -1;
    for (int i = 0; i < BYTES; i++)
        data[i] = (uint8_t)(i * 7);
    return upload(REF(1), BYTES, 0) == DJ_OK ? 0 : -1;
}

static int close_raw(void **state)
{
    return raw_close(&raw) && server_is_empty(&server, 0) ? 0 : -1;
}

/* The tensor is as it was uploaded. */
static void unchanged(void)
{
    assert_int_equal(fetch(REF(1), 0, 60000), DJ_OK);
    assert_memory_equal(raw.payload, data, 60000);
    assert_int_equal(fetch(REF(1), BYTES - 60000, 60000), DJ_OK);
    assert_memory_equal(raw.payload, data + BYTES - 60000, 60000);
}

static void puts_that_lie(void **state)
{
    static const struct {
        int want;
        dj_put_t put;
        uint64_t bytes;
    } lies[] = {
        {DJ_ERR_PROTOCOL, {0, 0, 8, 0, 0}, 8},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 9, 0, 0}, 8},
        {DJ_ERR_PROTOCOL, {REF(1), 0, UINT64_MAX, 0, 0}, 8},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 8, 0, 2}, 8},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 8, 0, 0x80000001}, 8},
        {DJ_ERR_STALE, {REF(2), 0, 8, 0, 0}, 8},
        {DJ_ERR_STALE, {REF(1) ^ 1ull << 40, 0, 8, 0, 0}, 8},
        {DJ_ERR_STALE, {UINT64_MAX, 0, 8, 0, 0}, 8},
        {DJ_ERR_SHAPE, {REF(1), BYTES - 7, 8, 0, 0}, 8},
        {DJ_ERR_SHAPE, {REF(1), BYTES + 1, 0, 0, 0}, 0},
        {DJ_ERR_LIMIT, {REF(1), UINT64_MAX - 3, 8, 0, 0}, 8},
        {DJ_ERR_SHAPE, {REF(1), 1, BYTES, 0, 0}, BYTES}, /* a rendezvous */
        {DJ_ERR_STALE, {REF(9), 0, BYTES, 0, 0}, BYTES},
        {DJ_ERR_PROTOCOL, {REF(1), 0, BYTES + 1, 0, 0}, BYTES},
        {DJ_ERR_LIMIT, {0, 0, 0, DJ_PUT_PARTS_MAX + 1, 0}, 64},
        {DJ_ERR_LIMIT, {0, 0, 0, UINT32_MAX, 0}, 64},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 0, 1, 0}, 64},
        {DJ_ERR_PROTOCOL, {0, 0, 0, 3, 0}, 64},
    };
    static const uint8_t other[BYTES] = {1};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        int got = put(lies[i].put, other, lies[i].bytes);
        if (got != lies[i].want || raw.payload_bytes == 0)
            print_error("lie %zu: %s '%.*s'\n", i, dj_status_name(got), (int)raw.payload_bytes,
                        raw.payload);
        assert_int_equal(got, lies[i].want);
        assert_true(raw.payload_bytes > 0);
    }
    unchanged();
}

typedef struct parts {
    dj_put_part_t part[2];
    uint8_t pad[48];
    uint8_t data[2][64];
} parts_t;

static int put_parts(const parts_t *parts, uint64_t bytes)
{
    return put((dj_put_t){.n_parts = 2}, parts, bytes);
}

static parts_t honest_parts(void)
{
    parts_t parts = {.part = {{REF(1), 0, 64, 0, 0}, {REF(5), 0, 32, DJ_PART_NEW, 0}}};
    memcpy(parts.data, data, sizeof(parts.data));
    return parts;
}

static void parts_that_lie(void **state)
{
    _Static_assert(sizeof(dj_put_part_t) == 32 && offsetof(parts_t, data) == 112, "as laid out");
    static const struct {
        int want;
        dj_put_part_t first;
        uint64_t cut;
    } lies[] = {
        {DJ_ERR_PROTOCOL, {0, 0, 64, 0, 0}, 0},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 64, 8, 0}, 0},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 64, DJ_PART_WEIGHT, 0}, 0},
        {DJ_ERR_PROTOCOL, {REF(6), 8, 64, DJ_PART_NEW, 0}, 0},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 64, 0, 1}, 0},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 4096, 0, 0}, 0},
        {DJ_ERR_LIMIT, {REF(1), 0, UINT64_MAX, 0, 0}, 0},
        {DJ_ERR_PROTOCOL, {REF(1), 0, 64, 0, 0}, 100},
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        parts_t parts = honest_parts();
        parts.part[0] = lies[i].first;
        int got = put_parts(&parts, sizeof(parts) - lies[i].cut);
        if (got != lies[i].want)
            print_error("lie %zu: %s '%.*s'\n", i, dj_status_name(got), (int)raw.payload_bytes,
                        raw.payload);
        assert_int_equal(got, lies[i].want);
    }
    unchanged();
    assert_int_equal(fetch(REF(5), 0, 32), DJ_ERR_STALE); /* none of them was begun */
}

/* Laid out by the header's rule: table, padding to 64, each part at a multiple of 64. */
static void parts_arrive(void **state)
{
    uint8_t payload[64 + 128] = {0};
    const dj_put_part_t table[2] = {{REF(1), 4, 10, 0, 0}, {REF(7), 0, 32, DJ_PART_NEW, 0}};
    memcpy(payload, table, sizeof(table));
    assert_int_equal(dj_put_data_offset(2), 64);
    memset(payload + 64, 0xaa, 10);
    memset(payload + 128, 0xbb, 32);
    assert_int_equal(put((dj_put_t){.n_parts = 2}, payload, 128 + 32), DJ_OK);
    assert_int_equal(fetch(REF(1), 0, 16), DJ_OK);
    assert_memory_equal(raw.payload, data, 4);
    assert_memory_equal(raw.payload + 4, payload + 64, 10);
    assert_memory_equal(raw.payload + 14, data + 14, 2);
    assert_int_equal(fetch(REF(7), 0, 32), DJ_OK);
    assert_memory_equal(raw.payload, payload + 128, 32);
}

/* Silence is consent; a failure is told. */
static void quiet_ones_answer_only_failures(void **state)
{
    uint64_t before = raw.answers;
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_PUT);
    dj_put_t good = {REF(1), 8, 8, 0, DJ_PUT_QUIET}, bad = {REF(3), 8, 8, 0, DJ_PUT_QUIET};
    assert_int_equal(raw_say(&raw, &header, &good, sizeof(good), "12345678", 8), DJ_OK);
    assert_int_equal(fetch(REF(1), 8, 8), DJ_OK);
    assert_memory_equal(raw.payload, "12345678", 8);
    assert_int_equal(raw.answers, before + 1);
    assert_int_equal(say(DJ_MESSAGE_PUT, &bad, sizeof(bad), "12345678", 8), DJ_ERR_STALE);
    dj_exec_t exec = {.n_releases = 1, .flags = DJ_EXEC_QUIET};
    uint64_t ref = REF(1);
    header = raw_header(&raw, DJ_MESSAGE_EXEC);
    before = raw.answers;
    assert_int_equal(raw_say(&raw, &header, &exec, sizeof(exec), &ref, sizeof(ref)), DJ_OK);
    assert_int_equal(fetch(REF(1), 0, 8), DJ_ERR_STALE); /* it was released */
    assert_int_equal(raw.answers, before + 1);
}

static void empty_uploads(void **state)
{
    assert_int_equal(upload(REF(4), 5000, DJ_UPLOAD_EMPTY), DJ_OK);
    assert_int_equal(put((dj_put_t){REF(4), 4000, 1000, 0, 0}, data, 1000), DJ_OK);
    assert_int_equal(fetch(REF(4), 4000, 1000), DJ_OK);
    assert_memory_equal(raw.payload, data, 1000);
    assert_int_equal(upload(REF(4), 5000, DJ_UPLOAD_EMPTY), DJ_ERR_STALE);
    assert_int_equal(upload(REF(6), 5000, DJ_UPLOAD_EMPTY | DJ_UPLOAD_WEIGHT), DJ_ERR_PROTOCOL);
    dj_upload_t empty = {.ref = REF(6), .bytes = 64, .flags = DJ_UPLOAD_EMPTY};
    assert_int_equal(say(DJ_MESSAGE_UPLOAD, &empty, sizeof(empty), data, 64), DJ_ERR_PROTOCOL);
    empty.bytes = UINT64_MAX;
    int got = say(DJ_MESSAGE_UPLOAD, &empty, sizeof(empty), NULL, 0);
    assert_true(got < 0 && got != DJ_IN_PROGRESS);
}

/* A wrong checksum is answered, eager or rendezvous, and nothing is written but a landing's own range. The host reads
 * what brings one, agreed or not: it may not lie in device memory, as the same without one may. */
static void damaged_messages(void **state)
{
    uint64_t direct = server_number(&server, 0, "direct_bytes");
    static const uint64_t sizes[] = {8, 20000, 90000};
    static const uint8_t other[BYTES] = {1};
    for (int i = 0; i < 3; i++) {
        dj_header_t header = raw_header(&raw, DJ_MESSAGE_PUT);
        header.checksum = 12345;
        assert_int_equal(upload(REF(20 + (unsigned)i), BYTES, 0), DJ_OK);
        dj_put_t body = {REF(20 + (unsigned)i), 0, sizes[i], 0, 0};
        header.request = ++raw.request;
        raw_say(&raw, &header, &body, sizeof(body), other, sizes[i]);
        assert_int_equal(raw_hear(&raw, 5000), DJ_ERR_CORRUPT);
        assert_true(raw.payload_bytes > 0);
    }
    assert_true(server_becomes(&server, 0, "direct_bytes", direct, 1000));
    assert_int_equal(put((dj_put_t){REF(22), 0, 90000, 0, 0}, other, 90000), DJ_OK);
    assert_true(server_becomes(&server, 0, "direct_bytes", direct + (getenv("TEST_SLAB") ? 90000 : 0), 1000));
    unchanged();
}

static void put_item(uint8_t **at, const dj_header_t *header, const void *body, uint32_t bytes,
                     const void *payload, uint32_t payload_bytes)
{
    uint32_t lengths[2] = {(uint32_t)sizeof(*header) + bytes, payload_bytes};
    memcpy(*at, lengths, 8);
    memcpy(*at + 8, header, sizeof(*header));
    memcpy(*at + 8 + sizeof(*header), body, bytes);
    memcpy(*at + 8 + lengths[0], payload, payload_bytes);
    *at += 8 + lengths[0] + ((payload_bytes + 7) & ~7u);
}

static void say_batch(uint32_t n_messages, const void *payload, uint64_t bytes)
{
    dj_header_t header = {.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                          .type = DJ_MESSAGE_BATCH};
    dj_batch_t batch = {n_messages, 0};
    raw_say(&raw, &header, &batch, sizeof(batch), payload, bytes);
}

static void batches(void **state)
{
    uint8_t payload[4096] = {0}, *at = payload;
    dj_put_t one = {REF(1), 0, 3, 0, 0}, two = {REF(1), 3, 3, 0, 0};
    uint64_t before = raw.answers;
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_PUT);
    put_item(&at, &header, &one, sizeof(one), "abc", 3);
    header = raw_header(&raw, DJ_MESSAGE_PUT);
    put_item(&at, &header, &two, sizeof(two), "def", 3);
    uint64_t bytes = (uint64_t)(at - payload);
    say_batch(2, payload, bytes);
    assert_int_equal(raw_hear(&raw, 5000), DJ_OK);
    assert_int_equal(raw.answers, before + 2);
    assert_int_equal(fetch(REF(1), 0, 8), DJ_OK);
    assert_memory_equal(raw.payload, "abcdef", 6);
    /* repeats of the same ids, counts and lengths that lie: dropped, nobody falls */
    say_batch(2, payload, bytes);
    say_batch(UINT32_MAX, payload, bytes);
    say_batch(0, payload, bytes);
    say_batch(1, payload, 7);
    say_batch(2, payload, bytes - 8);
    for (int i = 0; i < 2000; i++) {
        uint8_t spoilt[sizeof(payload)];
        uint64_t place = (unsigned)i * 7 % bytes;
        if (place % (bytes / 2) / 8 == 4)
            continue; /* the request's id: a higher one makes ours repeats */
        memcpy(spoilt, payload, sizeof(spoilt));
        spoilt[place] ^= (uint8_t)(1 << i % 8);
        say_batch(1 + (unsigned)i % 3, spoilt, bytes);
    }
    say_batch(1, data, 40000); /* as a rendezvous */
    header.type = DJ_MESSAGE_BATCH; /* one inside another */
    at = payload;
    put_item(&at, &header, &(dj_batch_t){1, 0}, sizeof(dj_batch_t), "", 0);
    say_batch(1, payload, (uint64_t)(at - payload));
    assert_int_equal(fetch(REF(1), 6, 8), DJ_OK);
    assert_memory_equal(raw.payload, data + 6, 8);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_raw, close_raw)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(puts_that_lie),   CASE(parts_that_lie), CASE(parts_arrive),
        CASE(quiet_ones_answer_only_failures),       CASE(empty_uploads),
        CASE(damaged_messages), CASE(batches),
    };
    return dj_hash_setup() ? server_verdict(cmocka_run_group_tests(tests, start, stop)) : 1;
}
