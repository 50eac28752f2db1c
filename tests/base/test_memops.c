/* test_memops.c - the memory-operation table, with a fake device whose memory is an array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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

static const dj_memops_t fake = {DJ_MEMORY_CUDA, "fake", copy_in, copy_out, copy_between, owns};

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_rows_are_refused),
        cmocka_unit_test(without_a_device_only_host_copies),
        cmocka_unit_test(a_device_serves_its_own_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
