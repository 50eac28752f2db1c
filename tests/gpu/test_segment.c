/* test_segment.c - growth keeps pointers and brings usable pages; what is given back faults. */
#include "tests/gpu/fixture.h"

#include "gpu/segment.h"

#define PAGE 4096ull

static dj_device_t *device;

static void too_much_is_refused(void **state)
{
    dj_segment_t segment = {0};
    assert_int_equal(dj_segment_init(&segment, device, UINT64_MAX), DJ_ERR_LIMIT);
    assert_null(segment.base);
    assert_int_equal(dj_segment_init(&segment, device, 4 * PAGE), DJ_OK);
    assert_int_equal(dj_segment_grow(&segment, 4 * PAGE + 1), DJ_ERR_LIMIT);
    assert_int_equal(dj_gauge_get(&segment.committed_bytes), 0);
    assert_non_null(strstr(dj_error_text(), "16384"));
    dj_segment_fini(&segment);
    dj_segment_fini(&segment);
}

static void reserved_pages_fault_until_grown(void **state)
{
    dj_segment_t segment;
    assert_int_equal(dj_segment_init(&segment, device, 1ull << 40), DJ_OK);
    assert_true(fixture_faults(segment.base, FIXTURE_READ));
    assert_int_equal(dj_segment_grow(&segment, 1), DJ_OK);
    assert_int_equal(dj_gauge_get(&segment.committed_bytes), PAGE);
    assert_false(fixture_faults(segment.base + PAGE - 1, FIXTURE_WRITE));
    assert_true(fixture_faults(segment.base + PAGE, FIXTURE_READ));
    dj_segment_fini(&segment);
}

static void growth_keeps_pointers_and_content(void **state)
{
    dj_segment_t segment;
    assert_int_equal(dj_segment_init(&segment, device, 1024 * PAGE), DJ_OK);
    assert_int_equal(dj_segment_grow(&segment, 2 * PAGE), DJ_OK);
    uint8_t *old = segment.base;
    memset(old, 0x5a, 2 * PAGE);
    for (uint64_t pages = 3; pages <= 1024; pages *= 2) {
        assert_int_equal(dj_segment_grow(&segment, pages * PAGE), DJ_OK);
        assert_ptr_equal(segment.base, old);
        assert_int_equal(old[0], 0x5a);
        assert_int_equal(old[2 * PAGE - 1], 0x5a);
        assert_int_equal(old[pages * PAGE - 1], 0);
        old[pages * PAGE - 1] = 1;
    }
    dj_segment_fini(&segment);
}

static void shrinking_returns_pages(void **state)
{
    dj_segment_t segment;
    uint64_t bytes = 64ull << 20;
    assert_int_equal(dj_segment_init(&segment, device, bytes), DJ_OK);
    uint64_t before = fixture_resident_bytes();
    assert_int_equal(dj_segment_grow(&segment, bytes), DJ_OK);
    memset(segment.base, 1, bytes);
    assert_true(fixture_resident_bytes() >= before + bytes - (1 << 20));
    dj_segment_shrink(&segment, PAGE + 1);
    assert_int_equal(dj_gauge_get(&segment.committed_bytes), 2 * PAGE);
    assert_true(fixture_resident_bytes() < before + (4 << 20));
    assert_int_equal(segment.base[2 * PAGE - 1], 1);
    assert_true(fixture_faults(segment.base + 2 * PAGE, FIXTURE_READ));
    assert_int_equal(dj_segment_grow(&segment, 3 * PAGE), DJ_OK);
    assert_int_equal(segment.base[2 * PAGE], 0);
    dj_segment_fini(&segment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(reserved_pages_fault_until_grown),
        cmocka_unit_test(growth_keeps_pointers_and_content),
        cmocka_unit_test(shrinking_returns_pages),
    };
    device = fixture_open(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dj_device_close(device);
    return failed;
}
