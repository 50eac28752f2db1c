/* test_tunnel.c - what is cut comes back whole, and no part that does not continue the last one is taken.
 *
 * Wrong parts first: each one must be refused with the right status and leave no memory behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "comm/tunnel.h"

enum { HEADER = sizeof(dj_header_t) + sizeof(dj_upload_t), LIMIT = 1 << 20 };

typedef struct frame {
    dj_tunnel_t part;
    uint8_t tail[DJ_TUNNEL_PART_BYTES_MAX + DJ_ENDPOINT_HEADER_MAX + 8];
} frame_t;

static frame_t frame;

static void put_header(uint8_t *target)
{
    dj_header_t header = {.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                          .type = DJ_MESSAGE_UPLOAD, .session = 7, .request = 9};
    memset(target, 0x55, HEADER);
    memcpy(target, &header, sizeof(header));
}

static dj_status_t join(dj_tunnel_assembly_t *assembly, uint64_t payload, uint64_t offset,
                        uint32_t header_bytes, uint32_t bytes, dj_tunnel_whole_t *whole)
{
    frame.part = (dj_tunnel_t){payload, offset, header_bytes, bytes};
    if (header_bytes >= HEADER)
        put_header(frame.tail);
    return dj_tunnel_join(assembly, &frame.part,
                          (uint32_t)sizeof(frame.part) + header_bytes + bytes, LIMIT, whole);
}

static void first_parts_that_are_wrong(void **state)
{
    dj_tunnel_assembly_t assembly = {0};
    dj_tunnel_whole_t whole;
    assert_int_equal(join(&assembly, 100, 0, 0, 100, &whole), DJ_ERR_PROTOCOL);
    assert_int_equal(join(&assembly, 100, 1, HEADER, 99, &whole), DJ_ERR_PROTOCOL);
    assert_int_equal(join(&assembly, 100, 0, HEADER, 101, &whole), DJ_ERR_PROTOCOL);
    assert_int_equal(join(&assembly, 100, 0, HEADER, 0, &whole), DJ_ERR_PROTOCOL);
    assert_int_equal(join(&assembly, LIMIT + 1, 0, HEADER, 8, &whole), DJ_ERR_LIMIT);
    assert_int_equal(join(&assembly, UINT64_MAX, 0, HEADER, 8, &whole), DJ_ERR_LIMIT);
    assert_int_equal(join(&assembly, 100, 0, HEADER + 8, 100, &whole), DJ_ERR_PROTOCOL);
    assert_int_equal(join(&assembly, 100, 0, HEADER - 8, 100, &whole), DJ_ERR_PROTOCOL);
    assert_int_equal(join(&assembly, 100, 0, DJ_ENDPOINT_HEADER_MAX + 1, 0, &whole),
                     DJ_ERR_PROTOCOL);
    assert_int_equal(join(&assembly, 8, 0, DJ_ENDPOINT_HEADER_MAX + 1, 8, &whole), DJ_ERR_LIMIT);
    assert_int_equal(join(&assembly, LIMIT, 0, HEADER, DJ_TUNNEL_PART_BYTES_MAX + 1, &whole),
                     DJ_ERR_LIMIT);
    frame.part = (dj_tunnel_t){100, 0, HEADER, 100};
    for (uint32_t length = sizeof(frame.part); length < sizeof(frame.part) + HEADER + 110; length++)
        if (length != sizeof(frame.part) + HEADER + 100)
            assert_int_equal(dj_tunnel_join(&assembly, &frame.part, length, LIMIT, &whole),
                             DJ_ERR_PROTOCOL);
    memset(frame.tail, 0xff, sizeof(frame.tail));
    assert_int_equal(dj_tunnel_join(&assembly, &frame.part, sizeof(frame.part) + HEADER + 100, LIMIT,
                                    &whole),
                     DJ_ERR_PROTOCOL);
    assert_false(assembly.open);
    assert_null(assembly.message.payload);
}

static void later_parts_that_are_wrong(void **state)
{
    static const struct {
        uint64_t payload, offset;
        uint32_t header_bytes, bytes;
    } wrong[] = {{100, 0, HEADER, 50}, {100, 50, HEADER, 50}, {100, 49, 0, 50}, {100, 51, 0, 49},
                 {100, 50, 0, 51},     {100, 50, 0, 0},       {101, 50, 0, 51}, {99, 50, 0, 49}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        dj_tunnel_assembly_t assembly = {0};
        dj_tunnel_whole_t whole;
        assert_int_equal(join(&assembly, 100, 0, HEADER, 50, &whole), DJ_IN_PROGRESS);
        assert_int_equal(join(&assembly, wrong[i].payload, wrong[i].offset, wrong[i].header_bytes,
                              wrong[i].bytes, &whole),
                         DJ_ERR_PROTOCOL);
        dj_tunnel_assembly_fini(&assembly);
    }
}

/* A first part that promises much gets room for what it brought. */
static void memory_follows_what_arrived(void **state)
{
    dj_tunnel_assembly_t assembly = {0};
    dj_tunnel_whole_t whole;
    frame.part = (dj_tunnel_t){DJ_TUNNEL_MESSAGE_BYTES_MAX, 0, HEADER, 8};
    put_header(frame.tail);
    assert_int_equal(dj_tunnel_join(&assembly, &frame.part, sizeof(frame.part) + HEADER + 8,
                                    UINT64_MAX, &whole),
                     DJ_IN_PROGRESS);
    assert_true(assembly.room <= 256 << 10);
    uint64_t at = 8;
    while (at < 5 << 20) {
        frame.part = (dj_tunnel_t){DJ_TUNNEL_MESSAGE_BYTES_MAX, at, 0, DJ_TUNNEL_PART_BYTES_MAX};
        assert_int_equal(dj_tunnel_join(&assembly, &frame.part,
                                        sizeof(frame.part) + DJ_TUNNEL_PART_BYTES_MAX, UINT64_MAX,
                                        &whole),
                         DJ_IN_PROGRESS);
        at += DJ_TUNNEL_PART_BYTES_MAX;
        assert_true(assembly.room <= 2 * at + (256 << 10));
    }
    dj_tunnel_assembly_fini(&assembly);
}

static void outgoing_limits(void **state)
{
    static dj_tunnel_outgoing_t outgoing;
    uint8_t header[DJ_ENDPOINT_HEADER_MAX + 1] = {0};
    dj_piece_t much[2] = {{header, DJ_TUNNEL_MESSAGE_BYTES_MAX}, {header, 1}};
    dj_piece_t more[2] = {{header, UINT64_MAX}, {header, 2}};
    assert_int_equal(dj_tunnel_begin(&outgoing, header, sizeof(header), NULL, 0), DJ_ERR_LIMIT);
    assert_int_equal(dj_tunnel_begin(&outgoing, header, HEADER, much, 2), DJ_ERR_LIMIT);
    assert_int_equal(dj_tunnel_begin(&outgoing, header, HEADER, more, 2), DJ_ERR_LIMIT);
    assert_int_equal(dj_tunnel_begin(&outgoing, header, HEADER, much, DJ_PIECES_MAX + 1),
                     DJ_ERR_LIMIT);
}

/* Pieces of any lengths, empty ones too; several messages one after the other. */
static void what_is_cut_comes_back(void **state)
{
    static const uint64_t sizes[] = {0, 1, 63, 64, 65535, 65536, 65537, 200000, 1 << 20};
    static dj_tunnel_outgoing_t outgoing;
    dj_tunnel_assembly_t assembly = {0};
    dj_tunnel_whole_t whole;
    uint8_t header[HEADER], *bytes = malloc(LIMIT);
    assert_non_null(bytes);
    put_header(header);
    for (size_t i = 0; i < LIMIT; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
        for (uint32_t n = sizes[s] ? 1 : 0; n < 5; n++) {
            dj_piece_t pieces[5];
            uint64_t at = 0;
            for (uint32_t i = 0; i < n; i++) {
                uint64_t part = i + 1 == n ? sizes[s] - at : i == 1 ? 0 : sizes[s] / 3;
                pieces[i] = (dj_piece_t){bytes + at, part};
                at += part;
            }
            assert_int_equal(dj_tunnel_begin(&outgoing, header, HEADER, pieces, n), DJ_OK);
            dj_status_t status = DJ_IN_PROGRESS;
            uint32_t parts = 0;
            while (!dj_tunnel_finished(&outgoing)) {
                assert_int_equal(status, DJ_IN_PROGRESS);
                uint32_t tail = dj_tunnel_cut(&outgoing, &frame.part, frame.tail);
                status = dj_tunnel_join(&assembly, &frame.part, (uint32_t)sizeof(frame.part) + tail,
                                        LIMIT, &whole);
                parts++;
            }
            assert_int_equal(status, DJ_OK);
            assert_int_equal(parts, sizes[s] ? (sizes[s] + DJ_TUNNEL_CUT_BYTES - 1) /
                                                   DJ_TUNNEL_CUT_BYTES
                                             : 1);
            assert_int_equal(whole.header_bytes, HEADER);
            assert_memory_equal(whole.header, header, HEADER);
            assert_int_equal(whole.payload_bytes, sizes[s]);
            assert_int_equal((uintptr_t)whole.payload % 64, 0);
            if (sizes[s])
                assert_memory_equal(whole.payload, bytes, sizes[s]);
            free(whole.payload);
        }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_parts_that_are_wrong),  cmocka_unit_test(later_parts_that_are_wrong),
        cmocka_unit_test(memory_follows_what_arrived), cmocka_unit_test(outgoing_limits),
        cmocka_unit_test(what_is_cut_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
