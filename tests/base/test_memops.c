/* test_memops.c - the memory-operation table, with a fake device whose memory is an array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/memops.h"

static char device[64];
static unsigned copies_in, copies_out, copies_between;

static dj_status_t copy_in(void *target, const void *host, size_t size)
{
    copies_in++;
    memcpy(target, host, size);
    return DJ_OK;
}

static dj_status_t copy_out(void *host, const void *source, size_t size)
{
    copies_out++;
    memcpy(host, source, size);
    return DJ_OK;
}

static dj_status_t copy_between(void *target, const void *source, size_t size)
{
    copies_between++;
    memcpy(target, source, size);
    return DJ_OK;
}

static bool owns(const void *address)
{
    uintptr_t at = (uintptr_t)address;
    return at >= (uintptr_t)device && at < (uintptr_t)(device + sizeof device);
}

static const dj_memops_t fake = {.kind = DJ_MEMORY_CUDA,
                                 .name = "fake",
                                 .copy_in = copy_in,
                                 .copy_out = copy_out,
                                 .copy_between = copy_between,
                                 .owns = owns};

/* ---- a device whose copies go on alone: one under way, over when the test says so ---- */

static struct late {
    void *target;
    const void *source;
    size_t size;
    bool over;
    dj_status_t outcome, answer; /* of test and of start */
    unsigned prepared, pinned;
} late;

static dj_status_t late_prepare(void **handle_p)
{
    late.prepared++;
    *handle_p = &late;
    return DJ_OK;
}

static dj_status_t late_start(void *handle, dj_copy_direction_t direction, void *target,
                              const void *source, size_t size)
{
    assert_ptr_equal(handle, &late);
    assert_ptr_equal(direction == DJ_COPY_IN ? target : source, device);
    late.target = target;
    late.source = source;
    late.size = size;
    late.over = false;
    return late.answer;
}

static dj_status_t late_test(void *handle)
{
    assert_ptr_equal(handle, &late);
    if (!late.over)
        return DJ_IN_PROGRESS;
    memcpy(late.target, late.source, late.size);
    return late.outcome;
}

static void late_unprepare(void *handle)
{
    assert_ptr_equal(handle, &late);
    late.prepared--;
}

static dj_status_t late_pin(size_t size, void **memory_p)
{
    late.pinned += (unsigned)size;
    *memory_p = malloc(size);
    return *memory_p ? DJ_OK : DJ_ERR_MEMORY;
}

static void late_unpin(void *memory, size_t size)
{
    late.pinned -= (unsigned)size;
    free(memory);
}

static const dj_memops_t late_ops = {.kind = DJ_MEMORY_CUDA,
                                     .name = "late",
                                     .copy_in = copy_in,
                                     .copy_out = copy_out,
                                     .copy_between = copy_between,
                                     .owns = owns,
                                     .copy_prepare = late_prepare,
                                     .copy_start = late_start,
                                     .copy_test = late_test,
                                     .copy_unprepare = late_unprepare,
                                     .pin = late_pin,
                                     .unpin = late_unpin};

static void bad_rows_are_refused(void **state)
{
    dj_memops_t row = fake;
    row.kind = DJ_MEMORY_HOST;
    assert_int_equal(dj_memops_register(&row), DJ_ERR_INVALID);
    row.kind = DJ_MEMORY_KIND_COUNT;
    assert_int_equal(dj_memops_register(&row), DJ_ERR_INVALID);
    assert_string_equal(dj_error_text(), "memory kind 2 cannot be registered");
    row = fake;
    row.owns = NULL;
    assert_int_equal(dj_memops_register(&row), DJ_ERR_INVALID);
    row = late_ops;
    row.copy_test = NULL;
    assert_int_equal(dj_memops_register(&row), DJ_ERR_INVALID);
    row = late_ops;
    row.unpin = NULL;
    assert_int_equal(dj_memops_register(&row), DJ_ERR_INVALID);
    assert_null(dj_memops_get(DJ_MEMORY_CUDA));
    assert_null(dj_memops_get(DJ_MEMORY_KIND_COUNT));
    assert_null(dj_memops_get((dj_memory_kind_t)-1));
}

static void without_a_device_only_host_copies(void **state)
{
    char a[4] = "abc", b[4] = "";
    assert_int_equal(dj_memops_query(device), DJ_MEMORY_HOST);
    assert_int_equal(dj_memops_copy(DJ_MEMORY_CUDA, device, DJ_MEMORY_HOST, a, 4),
                     DJ_ERR_UNSUPPORTED);
    assert_int_equal(dj_memops_copy(DJ_MEMORY_HOST, b, DJ_MEMORY_HOST, a, 4), DJ_OK);
    assert_string_equal(b, "abc");
    assert_int_equal(dj_memops_copy(DJ_MEMORY_HOST, NULL, DJ_MEMORY_HOST, NULL, 0), DJ_OK);
}

static void a_device_serves_its_own_addresses(void **state)
{
    char a[4] = "abc", b[4] = "";
    assert_int_equal(dj_memops_register(&fake), DJ_OK);
    assert_int_equal(dj_memops_register(&fake), DJ_OK);
    dj_memops_t second = fake;
    assert_int_equal(dj_memops_register(&second), DJ_ERR_INVALID);
    assert_ptr_equal(dj_memops_get(DJ_MEMORY_CUDA), &fake);
    assert_int_equal(dj_memops_query(device + 63), DJ_MEMORY_CUDA);
    assert_int_equal(dj_memops_query(device + 64), DJ_MEMORY_HOST);
    assert_int_equal(dj_memops_copy(DJ_MEMORY_CUDA, device, DJ_MEMORY_HOST, a, 4), DJ_OK);
    assert_int_equal(dj_memops_copy(DJ_MEMORY_CUDA, device + 8, DJ_MEMORY_CUDA, device, 4), DJ_OK);
    assert_int_equal(dj_memops_copy(DJ_MEMORY_HOST, b, DJ_MEMORY_CUDA, device + 8, 4), DJ_OK);
    assert_string_equal(b, "abc");
    assert_int_equal(copies_in, 1);
    assert_int_equal(copies_between, 1);
    assert_int_equal(copies_out, 1);
}

static void a_row_without_slots_copies_at_once(void **state)
{
    dj_memcopy_t copy;
    char there[8] = "";
    assert_int_equal(dj_memcopy_init(&copy, &fake), DJ_OK);
    unsigned in = copies_in, out = copies_out;
    assert_int_equal(dj_memcopy_start(&copy, DJ_COPY_IN, device, "within", 7), DJ_OK);
    assert_int_equal(dj_memcopy_test(&copy), DJ_OK);
    assert_int_equal(dj_memcopy_start(&copy, DJ_COPY_OUT, there, device, 7), DJ_OK);
    assert_string_equal(there, "within");
    assert_int_equal(copies_in, in + 1);
    assert_int_equal(copies_out, out + 1);
    assert_int_equal(dj_memcopy_start(&copy, DJ_COPY_OUT, NULL, NULL, 0), DJ_OK);
    dj_memcopy_fini(&copy);
    assert_int_equal(dj_memcopy_init(&copy, dj_memops_get(DJ_MEMORY_HOST)), DJ_OK);
    assert_int_equal(dj_memcopy_start(&copy, DJ_COPY_IN, there, "host", 5), DJ_OK);
    assert_string_equal(there, "host");
    dj_memcopy_fini(&copy);
}

static void one_copy_goes_on_alone(void **state)
{
    dj_memcopy_t copy;
    char there[8] = "";
    memcpy(device, "before", 7);
    late.answer = DJ_IN_PROGRESS;
    late.outcome = DJ_OK;
    assert_int_equal(dj_memcopy_init(&copy, &late_ops), DJ_OK);
    assert_int_equal(dj_memcopy_test(&copy), DJ_OK);
    assert_int_equal(dj_memcopy_start(&copy, DJ_COPY_OUT, there, device, 7), DJ_IN_PROGRESS);
    assert_int_equal(dj_memcopy_start(&copy, DJ_COPY_OUT, there, device, 7), DJ_ERR_BUSY);
    assert_int_equal(dj_memcopy_test(&copy), DJ_IN_PROGRESS);
    assert_string_equal(there, "");
    late.over = true;
    assert_int_equal(dj_memcopy_test(&copy), DJ_OK);
    assert_string_equal(there, "before");
    /* Both ways to fail leave it ready for the next. */
    late.outcome = DJ_ERR_SYSTEM;
    assert_int_equal(dj_memcopy_start(&copy, DJ_COPY_IN, device, "x", 1), DJ_IN_PROGRESS);
    late.over = true;
    assert_int_equal(dj_memcopy_test(&copy), DJ_ERR_SYSTEM);
    assert_int_equal(dj_memcopy_test(&copy), DJ_OK);
    late.answer = DJ_ERR_RESOURCE;
    assert_int_equal(dj_memcopy_start(&copy, DJ_COPY_IN, device, "x", 1), DJ_ERR_RESOURCE);
    assert_int_equal(dj_memcopy_test(&copy), DJ_OK);
    assert_int_equal(late.prepared, 1);
    dj_memcopy_fini(&copy);
    assert_int_equal(late.prepared, 0);
}

static void pinned_memory_is_the_rows_or_a_page(void **state)
{
    void *memory = NULL;
    const dj_memops_t *host = dj_memops_get(DJ_MEMORY_HOST);
    assert_int_equal(dj_memops_pin(host, 0, &memory), DJ_ERR_INVALID);
    assert_int_equal(dj_memops_pin(host, SIZE_MAX, &memory), DJ_ERR_MEMORY);
#ifndef __SANITIZE_ADDRESS__ /* whose allocator ends the process instead */
    assert_int_equal(dj_memops_pin(host, SIZE_MAX / 2, &memory), DJ_ERR_MEMORY);
#endif
    assert_null(memory);
    assert_int_equal(dj_memops_pin(host, 4097, &memory), DJ_OK);
    assert_int_equal((uintptr_t)memory % 4096, 0);
    memset(memory, 1, 4097);
    dj_memops_unpin(host, memory, 4097);
    assert_int_equal(dj_memops_pin(&late_ops, 100, &memory), DJ_OK);
    assert_int_equal(late.pinned, 100);
    dj_memops_unpin(&late_ops, memory, 100);
    assert_int_equal(late.pinned, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_rows_are_refused),
        cmocka_unit_test(without_a_device_only_host_copies),
        cmocka_unit_test(a_device_serves_its_own_addresses),
        cmocka_unit_test(a_row_without_slots_copies_at_once),
        cmocka_unit_test(one_copy_goes_on_alone),
        cmocka_unit_test(pinned_memory_is_the_rows_or_a_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
