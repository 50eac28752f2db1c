/* test_data.c - a session's memory: quotas, growth in place, and every byte back at the end. */
#include "tests/gpu/fixture.h"

#include "gpu/data.h"

#define PAGE 4096ull

static dj_device_t *device;

static dj_data_t *open_data(uint64_t reserve, uint64_t quota)
{
    dj_data_t *data = NULL;
    assert_int_equal(dj_data_create(device, reserve, quota, &data), DJ_OK);
    return data;
}

static dj_data_counters_t count(const dj_data_t *data)
{
    dj_data_counters_t counters;
    dj_data_counters(data, &counters);
    return counters;
}

static dj_block_t take(dj_data_t *data, uint64_t bytes, uint64_t reserve)
{
    dj_block_t block;
    assert_int_equal(dj_data_alloc(data, bytes, reserve, &block), DJ_OK);
    assert_int_equal(block.bytes, bytes);
    assert_true(block.backed_bytes >= bytes && block.reserve_bytes >= reserve);
    assert_int_equal((uintptr_t)block.data % (bytes >= 4096 ? DJ_ALIGN_BYTES : 64), 0);
    memset(block.data, 0xee, bytes);
    return block;
}

static void beyond_quota_or_range_is_refused(void **state)
{
    dj_data_t *data = open_data(64 * PAGE, 8 * PAGE);
    dj_block_t block = {0};
    assert_int_equal(dj_data_alloc(data, 8 * PAGE + 1, 0, &block), DJ_ERR_RESOURCE);
    assert_non_null(strstr(dj_error_text(), "quota 32768"));
    assert_int_equal(dj_data_alloc(data, PAGE, 65 * PAGE, &block), DJ_ERR_MEMORY);
    assert_int_equal(dj_data_alloc(data, UINT64_MAX, 0, &block), DJ_ERR_LIMIT);
    assert_null(block.data);
    assert_int_equal(count(data).backed_bytes, 0);
    assert_int_equal(count(data).blocks, 0);
    block = take(data, PAGE, 2 * PAGE);
    assert_int_equal(dj_data_grow(data, &block, 2 * PAGE + 1), DJ_ERR_LIMIT);
    dj_block_t rest = take(data, 7 * PAGE, 0);
    assert_int_equal(dj_data_grow(data, &block, PAGE + 1), DJ_ERR_RESOURCE);
    assert_int_equal(block.bytes, PAGE);
    dj_data_free(data, &rest);
    assert_int_equal(dj_data_grow(data, &block, PAGE + 1), DJ_OK); /* the cache gave way */
    dj_data_free(data, &block);
    dj_data_free(data, &block);
    assert_int_equal(count(data).blocks, 0);
    dj_data_destroy(data);
}

static void growth_keeps_pointer_and_content(void **state)
{
    dj_data_t *data = open_data(1ull << 36, 1ull << 30);
    dj_block_t block = take(data, 100, 1024 * PAGE);
    uint8_t *old = block.data;
    for (uint64_t bytes = 200; bytes <= 1024 * PAGE; bytes *= 2) {
        assert_int_equal(dj_data_grow(data, &block, bytes), DJ_OK);
        assert_ptr_equal(block.data, old);
        assert_int_equal(old[99], 0xee);
        old[bytes - 1] = 1;
        assert_int_equal(count(data).backed_bytes, (bytes + PAGE - 1) / PAGE * PAGE);
    }
    assert_true(fixture_faults(old + block.backed_bytes, FIXTURE_READ));
    dj_data_destroy(data);
}

static void small_blocks_share_pages_and_never_overlap(void **state)
{
    enum { BLOCKS = 600 };
    static dj_block_t blocks[BLOCKS];
    dj_data_t *data = open_data(1ull << 30, 1ull << 24);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        blocks[i] = take(data, (i * 37) % 2049, 0);
        memset(blocks[i].data, (int)(i % 251), blocks[i].bytes);
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        for (uint64_t j = 0; j < blocks[i].bytes; j++)
            assert_int_equal(((uint8_t *)blocks[i].data)[j], i % 251);
    assert_true(count(data).backed_bytes < 600 * PAGE);
    for (uint32_t i = 0; i < BLOCKS; i += 2)
        dj_data_free(data, &blocks[i]);
    for (uint32_t i = 0; i < BLOCKS; i += 2)
        blocks[i] = take(data, 64, 0);
    for (uint32_t i = 0; i < BLOCKS; i++)
        dj_data_free(data, &blocks[i]);
    assert_int_equal(count(data).used_bytes, 0);
    assert_int_equal(count(data).backed_bytes, 0);
    assert_int_equal(count(data).blocks, 0);
    dj_data_destroy(data);
}

static void freed_pages_are_reused_then_returned(void **state)
{
    dj_data_t *data = open_data(1ull << 36, 1ull << 32);
    dj_block_t block = take(data, 3 * PAGE, 0);
    void *first = block.data;
    dj_data_free(data, &block);
    assert_int_equal(count(data).cached_bytes, 3 * PAGE);
    assert_int_equal(count(data).backed_bytes, 0);
    block = take(data, 3 * PAGE, 0);
    assert_ptr_equal(block.data, first);
    assert_int_equal(count(data).cached_bytes, 0);
    uint64_t before = fixture_resident_bytes();
    dj_block_t large = take(data, DJ_DATA_CACHE_BYTES + PAGE, 0);
    assert_true(fixture_resident_bytes() > before + DJ_DATA_CACHE_BYTES - (1 << 20));
    dj_data_free(data, &large); /* more than the cache holds */
    assert_true(fixture_resident_bytes() < before + (4 << 20));
    assert_int_equal(count(data).cached_bytes, 0);
    assert_true(count(data).peak_bytes >= DJ_DATA_CACHE_BYTES);
    dj_data_destroy(data);
}

/* Blocks come and go at random; a shadow array says what each must hold. */
static void a_long_life_ends_with_nothing_held(void **state)
{
    enum { BLOCKS = 200, TURNS = 20000 };
    static dj_block_t blocks[BLOCKS];
    static uint8_t fills[BLOCKS];
    dj_data_t *data = open_data(1ull << 32, 1ull << 28);
    uint32_t random = 12345;
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        random = random * 1664525 + 1013904223;
        uint32_t i = (random >> 8) % BLOCKS, bytes = (random >> 16) % (turn % 2 ? 100000 : 3000);
        if (blocks[i].data) {
            uint8_t *bytes_of = blocks[i].data;
            if (blocks[i].bytes) {
                assert_int_equal(bytes_of[0], fills[i]);
                assert_int_equal(bytes_of[blocks[i].bytes - 1], fills[i]);
            }
            dj_data_free(data, &blocks[i]);
        } else {
            fills[i] = (uint8_t)turn;
            blocks[i] = take(data, bytes, turn % 3 ? 0 : 2 * bytes);
            memset(blocks[i].data, fills[i], bytes);
        }
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        dj_data_free(data, &blocks[i]);
    assert_int_equal(count(data).blocks, 0);
    assert_int_equal(count(data).used_bytes, 0);
    assert_int_equal(count(data).backed_bytes, 0);
    assert_true(count(data).cached_bytes <= DJ_DATA_CACHE_BYTES);
    /* A block of the whole quota drives out the cache; then the range is one piece again. */
    dj_block_t all;
    assert_int_equal(dj_data_alloc(data, 1ull << 28, 0, &all), DJ_OK);
    assert_int_equal(count(data).cached_bytes, 0);
    dj_data_free(data, &all);
    assert_int_equal(dj_data_alloc(data, PAGE, 1ull << 32, &all), DJ_OK);
    dj_data_destroy(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beyond_quota_or_range_is_refused),
        cmocka_unit_test(growth_keeps_pointer_and_content),
        cmocka_unit_test(small_blocks_share_pages_and_never_overlap),
        cmocka_unit_test(freed_pages_are_reused_then_returned),
        cmocka_unit_test(a_long_life_ends_with_nothing_held),
    };
    device = fixture_open(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dj_device_close(device);
    return failed;
}
