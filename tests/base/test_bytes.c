/* test_bytes.c - writing, reading back, and every way to run past an end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/bytes.h"

static void reading_past_the_end_fails_and_stays_failed(void **state)
{
    const uint8_t data[3] = {1, 2, 3};
    uint8_t target[4] = {9, 9, 9, 9};
    dj_reader_t reader;
    dj_reader_init(&reader, data, sizeof data);
    assert_int_equal(dj_reader_u32(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(dj_reader_left(&reader), 0);
    assert_int_equal(dj_reader_u8(&reader), 0);
    assert_null(dj_reader_take(&reader, 0));
    dj_reader_copy(&reader, target, sizeof target);
    assert_memory_equal(target, "\0\0\0\0", 4);

    dj_reader_init(&reader, data, sizeof data);
    assert_null(dj_reader_take(&reader, SIZE_MAX));
    assert_true(reader.failed);
}

static void no_bytes_at_all(void **state)
{
    dj_reader_t reader;
    dj_reader_init(&reader, NULL, 0);
    assert_non_null(dj_reader_take(&reader, 0));
    assert_false(reader.failed);
    assert_int_equal(dj_reader_varint(&reader), 0);
    assert_true(reader.failed);
    dj_reader_init(&reader, NULL, 8);
    assert_true(reader.failed);
    assert_int_equal(dj_reader_left(&reader), 0);
}

static void refuse_varint(const char *data, size_t size)
{
    dj_reader_t reader;
    dj_reader_init(&reader, data, size);
    assert_int_equal(dj_reader_varint(&reader), 0);
    assert_true(reader.failed);
}

static void bad_varints_are_refused(void **state)
{
    refuse_varint("\x80", 1);                                          /* cut */
    refuse_varint("\x80\x00", 2);                                      /* zero in two bytes */
    refuse_varint("\xff\x00", 2);                                      /* 127 in two bytes */
    refuse_varint("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10);     /* 65 bits */
    refuse_varint("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 11); /* eleven bytes */
}

static void alignment_past_the_end_fails(void **state)
{
    dj_reader_t reader;
    dj_reader_init(&reader, "abc", 3);
    dj_reader_u8(&reader);
    dj_reader_align(&reader, 8);
    assert_true(reader.failed);
}

static void a_buffer_that_cannot_grow_fails(void **state)
{
    dj_bytes_t bytes = {0};
    dj_bytes_put_u32(&bytes, 1);
    assert_false(dj_bytes_reserve(&bytes, SIZE_MAX - 2)); /* the sum overflows */
    assert_true(bytes.failed);
    dj_bytes_put_u64(&bytes, 2);
    dj_bytes_printf(&bytes, "%d", 3);
    assert_int_equal(bytes.size, 4);
    dj_bytes_clear(&bytes);
    assert_false(bytes.failed);
    dj_bytes_put_u32(&bytes, 1);
    assert_false(dj_bytes_reserve(&bytes, DJ_BYTES_LIMIT - 3)); /* one past the limit */
    assert_true(bytes.failed);
    dj_bytes_fini(&bytes);
    assert_null(bytes.data);
}

static void integers_are_little_endian(void **state)
{
    dj_bytes_t bytes = {0};
    dj_bytes_put_u8(&bytes, 0x01);
    dj_bytes_put_u16(&bytes, 0x0302);
    dj_bytes_put_u32(&bytes, 0x07060504);
    dj_bytes_put_u64(&bytes, 0x0f0e0d0c0b0a0908);
    assert_int_equal(bytes.size, 15);
    for (unsigned i = 0; i < 15; i++)
        assert_int_equal(bytes.data[i], i + 1);
    dj_reader_t reader;
    dj_reader_init(&reader, bytes.data, bytes.size);
    assert_int_equal(dj_reader_u8(&reader), 0x01);
    assert_int_equal(dj_reader_u16(&reader), 0x0302);
    assert_int_equal(dj_reader_u32(&reader), 0x07060504);
    assert_true(dj_reader_u64(&reader) == 0x0f0e0d0c0b0a0908);
    assert_int_equal(dj_reader_left(&reader), 0);
    assert_false(reader.failed);
    dj_bytes_fini(&bytes);
}

static void varints_come_back(void **state)
{
    dj_bytes_t bytes = {0};
    dj_reader_t reader;
    for (unsigned bit = 0; bit < 64; bit++) {
        const uint64_t edge = 1ull << bit;
        dj_bytes_put_varint(&bytes, edge - 1);
        dj_bytes_put_varint(&bytes, edge);
        dj_bytes_put_signed(&bytes, (int64_t)edge);
        dj_bytes_put_signed(&bytes, (int64_t)(0 - edge));
    }
    dj_bytes_put_varint(&bytes, UINT64_MAX);
    dj_bytes_put_signed(&bytes, INT64_MIN);
    dj_reader_init(&reader, bytes.data, bytes.size);
    for (unsigned bit = 0; bit < 64; bit++) {
        const uint64_t edge = 1ull << bit;
        assert_true(dj_reader_varint(&reader) == edge - 1);
        assert_true(dj_reader_varint(&reader) == edge);
        assert_true(dj_reader_signed(&reader) == (int64_t)edge);
        assert_true(dj_reader_signed(&reader) == (int64_t)(0 - edge));
    }
    assert_true(dj_reader_varint(&reader) == UINT64_MAX);
    assert_true(dj_reader_signed(&reader) == INT64_MIN);
    assert_int_equal(dj_reader_left(&reader), 0);
    assert_false(reader.failed);
    dj_bytes_fini(&bytes);
}

static void small_numbers_are_one_byte(void **state)
{
    dj_bytes_t bytes = {0};
    dj_bytes_put_varint(&bytes, 127);
    dj_bytes_put_signed(&bytes, -64);
    dj_bytes_put_signed(&bytes, 63);
    assert_int_equal(bytes.size, 3);
    dj_bytes_put_varint(&bytes, 128);
    assert_int_equal(bytes.size, 5);
    dj_bytes_fini(&bytes);
}

static void padding_is_zero_and_skipped(void **state)
{
    dj_bytes_t bytes = {0};
    dj_reader_t reader;
    dj_bytes_put(&bytes, "abc", 3);
    dj_bytes_align(&bytes, 16);
    assert_int_equal(bytes.size, 16);
    for (unsigned i = 3; i < 16; i++)
        assert_int_equal(bytes.data[i], 0);
    dj_bytes_align(&bytes, 16);
    assert_int_equal(bytes.size, 16);
    dj_bytes_put_u8(&bytes, 7);
    dj_reader_init(&reader, bytes.data, bytes.size);
    assert_memory_equal(dj_reader_take(&reader, 3), "abc", 3);
    dj_reader_align(&reader, 16);
    assert_int_equal(dj_reader_u8(&reader), 7);
    assert_false(reader.failed);
    dj_bytes_fini(&bytes);
}

static void prints_follow_each_other(void **state)
{
    dj_bytes_t bytes = {0};
    char expected[2000] = "";
    for (unsigned i = 0; i < 200; i++) { /* over several growths */
        dj_bytes_printf(&bytes, "%u,%s", i, i % 2 ? "odd" : "");
        sprintf(expected + strlen(expected), "%u,%s", i, i % 2 ? "odd" : "");
    }
    dj_bytes_printf(&bytes, "%s", "");
    assert_false(bytes.failed);
    assert_int_equal(bytes.size, strlen(expected));
    assert_memory_equal(bytes.data, expected, bytes.size);
    dj_bytes_put_u8(&bytes, 0);
    assert_string_equal((const char *)bytes.data, expected);
    dj_bytes_fini(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_past_the_end_fails_and_stays_failed),
        cmocka_unit_test(no_bytes_at_all),
        cmocka_unit_test(bad_varints_are_refused),
        cmocka_unit_test(alignment_past_the_end_fails),
        cmocka_unit_test(a_buffer_that_cannot_grow_fails),
        cmocka_unit_test(integers_are_little_endian),
        cmocka_unit_test(varints_come_back),
        cmocka_unit_test(small_numbers_are_one_byte),
        cmocka_unit_test(padding_is_zero_and_skipped),
        cmocka_unit_test(prints_follow_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
