/* test_messages.c - the gate: nothing passes dj_frame_check() or dj_header_check() that is not
 * exactly a message of its channel; proofs depend on every bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/messages.h"

typedef struct row {
    uint16_t type;
    bool control;
    uint32_t bytes;
    const char *name, *struct_name, *text;
} row_t;

enum { CONTROL = 1, DATA = 0 };

static const row_t rows[] = {
#define X(name, value, type, channel, text) {(value), channel, sizeof(type), #name, #type, text},
    DJ_MESSAGE_LIST(X)
#undef X
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static void test_frame_refuses_foreign_bytes(void **state)
{
    dj_frame_t frame;
    uint64_t seed = 88172645463325252ull;
    for (int i = 0; i < 100000; ++i) {
        uint64_t words[2];
        for (int k = 0; k < 2; ++k) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            words[k] = seed;
        }
        memcpy(&frame, words, sizeof(frame));
        assert_int_equal(dj_frame_check(&frame, i & 1), DJ_ERR_PROTOCOL);
    }
}

static void test_frame_refuses_other_versions(void **state)
{
    dj_frame_t frame;
    dj_frame_init(&frame, DJ_MESSAGE_HEARTBEAT, sizeof(dj_heartbeat_t), 0);
    for (int version = 0; version < 65536; ++version) {
        frame.version = (uint16_t)version;
        dj_status_t wanted = version == DJ_PROTOCOL_VERSION ? DJ_OK : DJ_ERR_VERSION;
        assert_int_equal(dj_frame_check(&frame, 1), wanted);
    }
    frame.version = DJ_PROTOCOL_VERSION + 1;
    dj_frame_check(&frame, 1);
    assert_non_null(strstr(dj_error_text(), "install the same version"));
}

static void test_frame_refuses_unknown_types_and_data_types(void **state)
{
    for (uint32_t type = 0; type < 65536; ++type) {
        bool control = false;
        for (size_t i = 0; i < N_ROWS; ++i)
            control = control || (rows[i].type == type && rows[i].control);
        dj_frame_t frame;
        dj_frame_init(&frame, (dj_message_t)type, dj_message_struct_bytes((uint16_t)type), 0);
        assert_int_equal(dj_frame_check(&frame, 1), control ? DJ_OK : DJ_ERR_PROTOCOL);
    }
}

static void test_frame_bounds_lengths(void **state)
{
    for (size_t i = 0; i < N_ROWS; ++i) {
        dj_frame_t frame;
        if (!rows[i].control)
            continue;
        dj_frame_init(&frame, rows[i].type, rows[i].bytes - 1, 0);
        assert_int_equal(dj_frame_check(&frame, 1), DJ_ERR_PROTOCOL);
        frame.length = 0;
        assert_int_equal(dj_frame_check(&frame, 1), DJ_ERR_PROTOCOL);
        frame.length = UINT32_MAX;
        assert_int_equal(dj_frame_check(&frame, 1), DJ_ERR_LIMIT);
        frame.length = DJ_FRAME_BYTES_MAX + 1;
        assert_int_equal(dj_frame_check(&frame, 1), DJ_ERR_LIMIT);
        frame.length = rows[i].bytes;
        assert_int_equal(dj_frame_check(&frame, 1), DJ_OK);
    }
    dj_frame_t frame;
    dj_frame_init(&frame, DJ_MESSAGE_HEARTBEAT, sizeof(dj_heartbeat_t) + 1, 0);
    assert_int_equal(dj_frame_check(&frame, 1), DJ_ERR_LIMIT);
    dj_frame_init(&frame, DJ_MESSAGE_HELLO, sizeof(dj_hello_t) + DJ_ADDRESS_BYTES_MAX, 0);
    assert_int_equal(dj_frame_check(&frame, 0), DJ_OK);
    frame.length += 1;
    assert_int_equal(dj_frame_check(&frame, 0), DJ_ERR_LIMIT);
}

static void test_frame_before_hello(void **state)
{
    for (size_t i = 0; i < N_ROWS; ++i) {
        dj_frame_t frame;
        if (!rows[i].control)
            continue;
        bool early = rows[i].type <= DJ_MESSAGE_REFUSE;
        dj_frame_init(&frame, rows[i].type, rows[i].bytes, 0);
        assert_int_equal(dj_frame_check(&frame, 0), early ? DJ_OK : DJ_ERR_PROTOCOL);
    }
}

static void test_header_refuses(void **state)
{
    _Alignas(8) uint8_t bytes[512] = {0};
    dj_header_t *header = (dj_header_t *)bytes;
    assert_int_equal(dj_header_check(bytes, 0), DJ_ERR_PROTOCOL);
    assert_int_equal(dj_header_check(bytes, sizeof(*header) - 1), DJ_ERR_PROTOCOL);
    assert_int_equal(dj_header_check(bytes, sizeof(*header)), DJ_ERR_PROTOCOL);
    header->magic = DJ_HEADER_MAGIC;
    header->version = DJ_PROTOCOL_VERSION + 1;
    assert_int_equal(dj_header_check(bytes, sizeof(*header)), DJ_ERR_VERSION);
    header->version = DJ_PROTOCOL_VERSION;
    for (uint32_t type = 0; type < 65536; ++type) {
        bool data = false;
        for (size_t i = 0; i < N_ROWS; ++i)
            data = data || (rows[i].type == type && !rows[i].control);
        uint64_t right = sizeof(*header) + dj_message_struct_bytes((uint16_t)type);
        header->type = (uint16_t)type;
        assert_int_equal(dj_header_check(bytes, right), data ? DJ_OK : DJ_ERR_PROTOCOL);
        assert_int_equal(dj_header_check(bytes, right + 1), DJ_ERR_PROTOCOL);
        assert_int_equal(dj_header_check(bytes, right - 1), DJ_ERR_PROTOCOL);
        assert_int_equal(dj_header_check(bytes, UINT64_MAX), DJ_ERR_PROTOCOL);
    }
}

static void test_names_and_sizes(void **state)
{
    assert_string_equal(dj_message_name(0), "?");
    assert_string_equal(dj_message_name(65535), "?");
    assert_int_equal(dj_message_struct_bytes(9999), 0);
    for (size_t i = 0; i < N_ROWS; ++i) {
        assert_string_equal(dj_message_name(rows[i].type), rows[i].name);
        assert_int_equal(dj_message_struct_bytes(rows[i].type), rows[i].bytes);
        for (size_t k = 0; k < i; ++k)
            assert_int_not_equal(rows[k].type, rows[i].type);
    }
}

static void test_hello_proof_depends_on_everything(void **state)
{
    uint8_t token[32] = {1}, nonce[32] = {2}, tail[100] = {3};
    uint8_t proof[DJ_PROOF_BYTES], other[DJ_PROOF_BYTES];
    dj_hello_t hello = {.role = DJ_ROLE_CLIENT, .uid = 1000, .address_bytes = sizeof(tail)};
    dj_hello_prove(proof, token, nonce, &hello, tail, sizeof(tail));
    memset(hello.proof, 0xff, sizeof(hello.proof)); /* the field itself does not count */
    dj_hello_prove(other, token, nonce, &hello, tail, sizeof(tail));
    assert_true(dj_proof_equal(proof, other));

    uint8_t *const parts[] = {token, nonce, tail};
    const size_t sizes[] = {sizeof(token), sizeof(nonce), sizeof(tail)};
    for (int part = 0; part < 3; ++part) {
        for (size_t bit = 0; bit < sizes[part] * 8; ++bit) {
            parts[part][bit / 8] ^= (uint8_t)(1 << bit % 8);
            dj_hello_prove(other, token, nonce, &hello, tail, sizeof(tail));
            assert_false(dj_proof_equal(proof, other));
            parts[part][bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
    for (size_t at = offsetof(dj_hello_t, role); at < sizeof(hello); ++at) {
        ((uint8_t *)&hello)[at] ^= 1;
        dj_hello_prove(other, token, nonce, &hello, tail, sizeof(tail));
        assert_false(dj_proof_equal(proof, other));
        ((uint8_t *)&hello)[at] ^= 1;
    }
    dj_hello_prove(other, token, nonce, &hello, tail, sizeof(tail) - 1);
    assert_false(dj_proof_equal(proof, other));
    dj_hello_prove(other, token, nonce, &hello, NULL, 0);
    assert_false(dj_proof_equal(proof, other));
}

static void test_grant_proof_depends_on_everything(void **state)
{
    uint8_t token[32] = {1}, proof[DJ_PROOF_BYTES], other[DJ_PROOF_BYTES];
    dj_grant_prove(proof, token, 1, 2, 3, 4, 5);
    dj_grant_prove(other, token, 1, 2, 3, 4, 5);
    assert_true(dj_proof_equal(proof, other));
    dj_grant_prove(other, token, 9, 2, 3, 4, 5);
    assert_false(dj_proof_equal(proof, other));
    dj_grant_prove(other, token, 1, 9, 3, 4, 5);
    assert_false(dj_proof_equal(proof, other));
    dj_grant_prove(other, token, 1, 2, 9, 4, 5);
    assert_false(dj_proof_equal(proof, other));
    dj_grant_prove(other, token, 1, 2, 3, 9, 5);
    assert_false(dj_proof_equal(proof, other));
    dj_grant_prove(other, token, 1, 2, 3, 4, 9);
    assert_false(dj_proof_equal(proof, other));
    token[31] ^= 1;
    dj_grant_prove(other, token, 1, 2, 3, 4, 5);
    assert_false(dj_proof_equal(proof, other));
}

/* docs/protocol.md is written by hand around this table; every row must stand there as it is here.
 */
static void test_protocol_document_has_every_row(void **state)
{
    FILE *file = fopen(DJINN_SOURCE_DIR "/docs/protocol.md", "r");
    assert_non_null(file);
    static char text[1 << 18];
    size_t size = fread(text, 1, sizeof(text) - 1, file);
    text[size] = '\0';
    fclose(file);
    for (size_t i = 0; i < N_ROWS; ++i) {
        char row[512];
        snprintf(row, sizeof(row), "| %s | %u | %s | `%s` | %u | %s |", rows[i].name, rows[i].type,
                 rows[i].control ? "control" : "data", rows[i].struct_name, rows[i].bytes,
                 rows[i].text);
        if (!strstr(text, row))
            fail_msg("docs/protocol.md lacks the row: %s", row);
    }
    char version[64];
    snprintf(version, sizeof(version), "protocol version %d", DJ_PROTOCOL_VERSION);
    assert_non_null(strstr(text, version));
    static const struct {
        const char *name;
        long long value;
        const char *text;
    } limits[] = {
#define X(name, value, text) {#name, value, text},
        DJ_LIMIT_LIST(X)
#undef X
    };
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); ++i) {
        char row[256];
        snprintf(row, sizeof(row), "| `%s` | %lld | %s |", limits[i].name, limits[i].value,
                 limits[i].text);
        if (!strstr(text, row))
            fail_msg("docs/protocol.md lacks the row: %s", row);
    }
}

int main(void)
{
    dj_hash_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_refuses_foreign_bytes),
        cmocka_unit_test(test_frame_refuses_other_versions),
        cmocka_unit_test(test_frame_refuses_unknown_types_and_data_types),
        cmocka_unit_test(test_frame_bounds_lengths),
        cmocka_unit_test(test_frame_before_hello),
        cmocka_unit_test(test_header_refuses),
        cmocka_unit_test(test_names_and_sizes),
        cmocka_unit_test(test_hello_proof_depends_on_everything),
        cmocka_unit_test(test_grant_proof_depends_on_everything),
        cmocka_unit_test(test_protocol_document_has_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
