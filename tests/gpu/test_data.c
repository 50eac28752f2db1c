/* test_data.c - a session's memory: quotas, growth in place, and every byte back at the end. */
#include "tests/gpu/fixture.h"

#include "gpu/data.h"
#include "tests/gpu/blind_device.h"

#define PAGE 4096ull
#define LARGE (2ull << 20)

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

/* ---- a GPU's pages, which the host cannot touch ---- */

static dj_device_t *open_large(uint64_t memory_bytes)
{
    dj_config_t config = {.device = "host", .threads = 1, .cores = ""};
    const blind_options_t options = {.page_bytes = LARGE, .memory_bytes = memory_bytes};
    dj_device_t *large = NULL;
    assert_int_equal(blind_open(&config, &options, &large), DJ_OK);
    return large;
}

static dj_data_t *open_data_on(dj_device_t *large, uint64_t quota)
{
    dj_data_t *data = NULL;
    assert_int_equal(dj_data_create(large, 1ull << 36, quota, &data), DJ_OK);
    return data;
}

static dj_block_t take_on(dj_device_t *large, dj_data_t *data, uint64_t bytes, uint8_t fill)
{
    dj_block_t block;
    assert_int_equal(dj_data_alloc(data, bytes, 0, &block), DJ_OK);
    assert_int_equal((uintptr_t)block.data % (bytes >= 4096 ? DJ_ALIGN_BYTES : 64), 0);
    uint8_t *alias = blind_alias(large, block.data);
    assert_non_null(alias);
    memset(alias, fill, bytes); /* all of it has pages */
    return block;
}

static bool holds(dj_device_t *large, const dj_block_t *block, uint8_t fill)
{
    const uint8_t *alias = blind_alias(large, block->data);
    for (uint64_t i = 0; i < block->bytes; i++)
        if (alias[i] != fill)
            return false;
    return true;
}

/* Ten thousand scalars do not take twenty gigabytes; every class up to half a page shares pages. */
static void small_blocks_share_large_pages(void **state)
{
    enum { BLOCKS = 40000 };
    dj_device_t *large = open_large(0);
    dj_data_t *data = open_data_on(large, 1ull << 30);
    dj_block_t *blocks = calloc(BLOCKS, sizeof(*blocks));
    for (uint32_t i = 0; i < BLOCKS; i++)
        blocks[i] = take_on(large, data, 4, (uint8_t)i);
    assert_int_equal(count(data).backed_bytes, 2 * LARGE); /* 32768 slots of 64 bytes a page */
    assert_int_equal(blind_committed_bytes(large), 2 * LARGE);
    for (uint32_t i = 0; i < BLOCKS; i++)
        assert_true(holds(large, &blocks[i], (uint8_t)i));
    for (uint32_t i = 0; i < BLOCKS; i++)
        dj_data_free(data, &blocks[i]);
    assert_int_equal(count(data).backed_bytes, 0);
    for (uint64_t bytes = 64; bytes <= LARGE / 2; bytes *= 2) {
        uint64_t a_page = LARGE / bytes;
        for (uint64_t i = 0; i < a_page && i < BLOCKS; i++)
            blocks[i] = take_on(large, data, bytes - i % 2, 1);
        assert_int_equal(count(data).backed_bytes, LARGE);
        dj_block_t one_more = take_on(large, data, bytes, 2);
        assert_int_equal(count(data).backed_bytes, 2 * LARGE);
        dj_data_free(data, &one_more);
        for (uint64_t i = 0; i < a_page && i < BLOCKS; i++) {
            assert_true(holds(large, &blocks[i], 1));
            dj_data_free(data, &blocks[i]);
        }
    }
    for (uint32_t i = 0; i < LARGE / 64; i++) /* the first slot is found again, last freed or not */
        blocks[i] = take_on(large, data, 64, 1);
    void *first = blocks[5].data;
    dj_data_free(data, &blocks[5]);
    dj_data_free(data, &blocks[LARGE / 64 - 1]);
    blocks[5] = take_on(large, data, 64, 1);
    assert_ptr_equal(blocks[5].data, first);
    assert_int_equal(count(data).backed_bytes, LARGE);
    for (uint32_t i = 0; i < LARGE / 64; i++)
        dj_data_free(data, &blocks[i]);
    dj_block_t whole = take_on(large, data, LARGE / 2 + 1, 3);
    assert_int_equal(whole.backed_bytes, LARGE);
    free(blocks);
    dj_data_destroy(data); /* with a block and a cache in it */
    assert_int_equal(blind_committed_bytes(large), 0);
    assert_int_equal(blind_ranges(large), 0);
    dj_device_close(large);
}

/* As a_long_life_ends_with_nothing_held(), over all sizes up to some pages. */
static void a_long_life_on_large_pages(void **state)
{
    enum { BLOCKS = 150, TURNS = 6000 };
    static dj_block_t blocks[BLOCKS];
    static uint8_t fills[BLOCKS];
    dj_device_t *large = open_large(0);
    dj_data_t *data = open_data_on(large, 1ull << 30);
    uint32_t random = 99;
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        random = random * 1664525 + 1013904223;
        uint32_t i = (random >> 8) % BLOCKS;
        uint64_t bytes = ((uint64_t)random >> 10) >> (random >> 5) % 22;
        if (blocks[i].data) {
            assert_true(holds(large, &blocks[i], fills[i]));
            dj_data_free(data, &blocks[i]);
        } else {
            fills[i] = (uint8_t)turn;
            blocks[i] = take_on(large, data, bytes, fills[i]);
        }
        dj_data_counters_t now = count(data);
        assert_int_equal(blind_committed_bytes(large), now.backed_bytes + now.cached_bytes);
        assert_true(now.cached_bytes <= 2 * DJ_DATA_CACHE_BYTES);
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        dj_data_free(data, &blocks[i]);
    assert_int_equal(count(data).used_bytes, 0);
    assert_int_equal(count(data).backed_bytes, 0);
    dj_data_destroy(data);
    assert_int_equal(blind_committed_bytes(large), 0);
    dj_device_close(large);
}

/* Another session needs the pages that this one's cache holds: its own cache is asked first. */
static void a_full_device_takes_the_cache(void **state)
{
    dj_device_t *large = open_large(8 * LARGE);
    dj_data_t *data = open_data_on(large, 1ull << 30);
    dj_block_t block = take_on(large, data, 6 * LARGE, 1);
    dj_data_free(data, &block);
    assert_int_equal(count(data).cached_bytes, 6 * LARGE);
    block = take_on(large, data, 7 * LARGE, 1);
    assert_int_equal(count(data).cached_bytes, 0);
    dj_block_t more = {0};
    assert_int_equal(dj_data_alloc(data, 2 * LARGE, 0, &more), DJ_ERR_MEMORY);
    assert_int_equal(count(data).backed_bytes, 7 * LARGE);
    dj_data_destroy(data);
    assert_int_equal(blind_committed_bytes(large), 0);
    dj_device_close(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beyond_quota_or_range_is_refused),
        cmocka_unit_test(growth_keeps_pointer_and_content),
        cmocka_unit_test(small_blocks_share_pages_and_never_overlap),
        cmocka_unit_test(freed_pages_are_reused_then_returned),
        cmocka_unit_test(a_long_life_ends_with_nothing_held),
        cmocka_unit_test(small_blocks_share_large_pages),
        cmocka_unit_test(a_long_life_on_large_pages),
        cmocka_unit_test(a_full_device_takes_the_cache),
    };
    device = fixture_open(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dj_device_close(device);
    return failed;
}
