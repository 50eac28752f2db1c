/* test_reader_fuzz.c - dj_reader over random bytes and random calls, against a plain model.
 *
 * The data ends exactly at a page that faults when touched, so reading one byte too far is a crash
 * and not luck. A model of a few lines says what each call must return. The seed is fixed: a
 * failure repeats; its round is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/bytes.h"

#define ROUNDS 200000
#define LONGEST 96
#define CALLS 40

static uint64_t seed = 88172645463325252ull;
static uint8_t *fence; /* the first byte that faults */

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* The model: where reading stands, and whether it failed. */
typedef struct model {
    const uint8_t *data;
    size_t size, at;
    bool failed;
} model_t;

static bool model_take(model_t *model, size_t size)
{
    if (model->failed || size > model->size - model->at) {
        model->failed = true;
        model->at = model->size;
        return false;
    }
    model->at += size;
    return true;
}

static uint64_t model_integer(model_t *model, size_t width)
{
    uint64_t value = 0;
    if (!model_take(model, width))
        return 0;
    for (size_t i = width; i > 0; i--)
        value = value << 8 | model->data[model->at - width + i - 1];
    return value;
}

/* Decodes what it finds, then encodes it again: only the shortest spelling is the same bytes. */
static uint64_t model_varint(model_t *model)
{
    size_t length = 0, left = model->size - model->at;
    const uint8_t *data = model->data + model->at;
    while (length < left && length < 10 && data[length] & 0x80)
        length++;
    if (model->failed || length == left || length == 10)
        return model_take(model, SIZE_MAX);
    unsigned __int128 value = 0;
    for (size_t i = length + 1; i > 0; i--)
        value = value << 7 | (data[i - 1] & 0x7f);
    dj_bytes_t again = {0};
    dj_bytes_put_varint(&again, (uint64_t)value);
    bool shortest = value <= UINT64_MAX && again.size == length + 1;
    dj_bytes_fini(&again);
    if (!model_take(model, shortest ? length + 1 : SIZE_MAX))
        return 0;
    return (uint64_t)value;
}

static size_t random_size(void)
{
    switch (next_random() % 8) {
    case 0:
        return 0;
    case 1:
        return (size_t)next_random(); /* nearly always far too much */
    case 2:
        return SIZE_MAX - next_random() % 4;
    default:
        return next_random() % 24;
    }
}

static void take_both(dj_reader_t *reader, model_t *model)
{
    size_t size = random_size(), at = model->at;
    const uint8_t *data = dj_reader_take(reader, size);
    if (model_take(model, size))
        assert_ptr_equal(data, model->data + at);
    else
        assert_null(data);
}

static void copy_both(dj_reader_t *reader, model_t *model)
{
    uint8_t target[32], expected[32] = {0};
    size_t size = next_random() % sizeof target, at = model->at;
    memset(target, 0xa5, sizeof target);
    dj_reader_copy(reader, target, size);
    if (model_take(model, size))
        memcpy(expected, model->data + at, size);
    assert_memory_equal(target, expected, size);
    for (size_t i = size; i < sizeof target; i++)
        assert_int_equal(target[i], 0xa5);
}

static void call_both(dj_reader_t *reader, model_t *model)
{
    const size_t alignment = (size_t)1 << next_random() % 8;
    switch (next_random() % 9) {
    case 0:
        take_both(reader, model);
        break;
    case 1:
        copy_both(reader, model);
        break;
    case 2:
        assert_int_equal(dj_reader_u8(reader), model_integer(model, 1));
        break;
    case 3:
        assert_int_equal(dj_reader_u16(reader), model_integer(model, 2));
        break;
    case 4:
        assert_int_equal(dj_reader_u32(reader), model_integer(model, 4));
        break;
    case 5:
        assert_true(dj_reader_u64(reader) == model_integer(model, 8));
        break;
    case 6:
        assert_true(dj_reader_varint(reader) == model_varint(model));
        break;
    case 7: {
        uint64_t coded = model_varint(model);
        int64_t value = coded & 1 ? (int64_t) ~(coded >> 1) : (int64_t)(coded >> 1);
        assert_true(dj_reader_signed(reader) == value);
        break;
    }
    case 8:
        dj_reader_align(reader, alignment);
        model_take(model, (alignment - model->at % alignment) % alignment);
        break;
    }
}

static void random_calls_over_random_bytes(void **state)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        size_t size = next_random() % LONGEST;
        uint8_t *data = fence - size;
        /* Half of the rounds are rich in continuation bytes, zeros and small numbers. */
        for (size_t i = 0; i < size; i++) {
            uint8_t byte = (uint8_t)(next_random() >> 32);
            data[i] = round % 2 && byte < 192 ? (byte % 3 == 0 ? 0x80 | byte : byte % 3 - 1) : byte;
        }
        dj_reader_t reader;
        model_t model = {.data = data, .size = size};
        dj_reader_init(&reader, data, size);
        for (unsigned call = 0; call < CALLS; call++) {
            call_both(&reader, &model);
            if (reader.failed != model.failed || reader.at != model.at)
                fail_msg("round %u call %u: at %zu failed %d, expected %zu %d", round, call,
                         reader.at, reader.failed, model.at, model.failed);
        }
    }
}

/* What was written comes back whole, and every cut of it fails instead of inventing values. */
static void every_cut_of_a_written_record_fails(void **state)
{
    for (unsigned round = 0; round < 2000; round++) {
        dj_bytes_t bytes = {0};
        uint64_t a = next_random() >> next_random() % 64, c = next_random();
        int64_t b = (int64_t)next_random() >> next_random() % 64;
        dj_bytes_put_varint(&bytes, a);
        dj_bytes_put_signed(&bytes, b);
        dj_bytes_align(&bytes, 8);
        dj_bytes_put_u64(&bytes, c);
        for (size_t size = 0; size <= bytes.size; size++) {
            memcpy(fence - size, bytes.data, size);
            dj_reader_t reader;
            dj_reader_init(&reader, fence - size, size);
            uint64_t got_a = dj_reader_varint(&reader);
            int64_t got_b = dj_reader_signed(&reader);
            dj_reader_align(&reader, 8);
            uint64_t got_c = dj_reader_u64(&reader);
            assert_true(reader.failed == (size < bytes.size));
            if (!reader.failed)
                assert_true(got_a == a && got_b == b && got_c == c);
        }
        dj_bytes_fini(&bytes);
    }
}

static int make_fence(void **state)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages, page, PROT_READ | PROT_WRITE) != 0)
        return -1;
    fence = pages + page;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_calls_over_random_bytes),
        cmocka_unit_test(every_cut_of_a_written_record_fails),
    };
    return cmocka_run_group_tests(tests, make_fence, NULL);
}
