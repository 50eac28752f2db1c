/* tensor.c - data types and strided windows.
 *
 * Views come from clients and from files, so everything that multiplies does it under a limit:
 * after dj_view_check() no product of a view's numbers can overflow, and the other functions rely
 * on that. */
#include "planner/tensor.h"

#include <stdio.h>
#include <string.h>

uint32_t dj_dtype_bytes(uint8_t dtype)
{
    static const uint8_t sizes[UINT8_MAX + 1] = {
#define X(name, value, bytes, text) [value] = (bytes),
        DJ_DTYPE_LIST(X)
#undef X
    };
    return sizes[dtype];
}

const char *dj_dtype_name(uint8_t dtype)
{
    switch (dtype) {
#define X(name, value, bytes, text)                                                                \
    case value:                                                                                    \
        return text;
        DJ_DTYPE_LIST(X)
#undef X
    default:
        return "?";
    }
}

bool dj_dtype_is_float(uint8_t dtype)
{
    return dtype >= DJ_F16 && dtype <= DJ_F64;
}

bool dj_dtype_is_complex(uint8_t dtype)
{
    return dtype >= DJ_C32 && dtype <= DJ_C128;
}

uint8_t dj_dtype_to_complex(uint8_t dtype)
{
    return dtype == DJ_F16 ? DJ_C32 : dtype == DJ_F64 ? DJ_C128 : DJ_C64;
}

uint8_t dj_dtype_to_real(uint8_t dtype)
{
    return dtype == DJ_C32 ? DJ_F16 : dtype == DJ_C128 ? DJ_F64 : DJ_F32;
}

int64_t dj_view_count(const dj_view_t *view)
{
    int64_t count = 1;
    for (uint32_t i = 0; i < view->rank; i++)
        count *= view->sizes[i];
    return count;
}

uint64_t dj_view_extent_bytes(const dj_view_t *view)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < view->rank; i++) {
        if (view->sizes[i] == 0)
            return 0;
        last += (uint64_t)(view->sizes[i] - 1) * (uint64_t)view->strides[i];
    }
    return (last + 1) * dj_dtype_bytes(view->dtype);
}

uint64_t dj_view_dense_bytes(const dj_view_t *view)
{
    return (uint64_t)dj_view_count(view) * dj_dtype_bytes(view->dtype);
}

bool dj_view_is_contiguous(const dj_view_t *view)
{
    int64_t expected = 1;
    for (uint32_t i = view->rank; i-- > 0;) {
        if (view->sizes[i] == 0)
            return true;
        if (view->sizes[i] != 1 && view->strides[i] != expected)
            expected = -1; /* only an empty view may still be called contiguous */
        else if (expected > 0)
            expected *= view->sizes[i];
    }
    return expected > 0;
}

bool dj_view_is_dense(const dj_view_t *view)
{
    int64_t expected = 1;
    uint32_t taken = 0;
    if (dj_view_count(view) == 0)
        return true;
    for (;;) {
        uint32_t next = view->rank, left = 0;
        for (uint32_t i = 0; i < view->rank; i++) {
            if (view->sizes[i] == 1 || (taken & 1u << i))
                continue;
            left++;
            if (view->strides[i] == expected)
                next = i;
        }
        if (left == 0)
            return true;
        if (next == view->rank)
            return false;
        taken |= 1u << next;
        expected *= view->sizes[next];
    }
}

bool dj_view_is_spread(const dj_view_t *view)
{
    int64_t reach = 0;
    uint32_t taken = 0;
    if (dj_view_is_contiguous(view) || dj_view_count(view) == 0)
        return true;
    for (uint32_t n = 0; n < view->rank; n++) {
        uint32_t next = view->rank;
        for (uint32_t i = 0; i < view->rank; i++)
            if (!(taken & 1u << i) &&
                (next == view->rank || view->strides[i] < view->strides[next]))
                next = i;
        taken |= 1u << next;
        if (view->sizes[next] == 1)
            continue;
        if (view->strides[next] <= reach)
            return false;
        reach += (view->sizes[next] - 1) * view->strides[next];
    }
    return true;
}

bool dj_view_same_shape(const dj_view_t *a, const dj_view_t *b)
{
    return a->rank == b->rank && memcmp(a->sizes, b->sizes, a->rank * sizeof a->sizes[0]) == 0;
}

bool dj_view_equal(const dj_view_t *a, const dj_view_t *b)
{
    if (a->dtype != b->dtype || a->offset != b->offset || !dj_view_same_shape(a, b))
        return false;
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->sizes[i] > 1 && a->strides[i] != b->strides[i])
            return false;
    return true;
}

/* Dimension `at` of a view goes past a limit, or is none. */
static dj_status_t fail_numbers(const dj_view_t *view, uint32_t at)
{
    long long size = view->sizes[at], stride = view->strides[at];
    if (size < 0 || stride < 0)
        return dj_fail(DJ_ERR_SHAPE, "dimension %u has size %lld and stride %lld", at, size, stride);
    return dj_fail(DJ_ERR_LIMIT, "a tensor of more than %llu bytes: dimension %u has size %lld and "
                   "stride %lld", (unsigned long long)DJ_TENSOR_BYTES_MAX, at, size, stride);
}

/* Sizes next to a 0 count too: rules multiply them before they meet the 0. */
static dj_status_t check_numbers(const dj_view_t *view, uint64_t item, uint64_t *extent_p)
{
    uint64_t limit = DJ_TENSOR_BYTES_MAX >> __builtin_ctzll(item); /* items are powers of 2 */
    uint64_t count = 1, last = 0;
    bool empty = false;
    for (uint32_t i = 0; i < view->rank; i++) {
        /* A negative number is beyond the limit when it counts as unsigned. */
        uint64_t size = (uint64_t)view->sizes[i], stride = (uint64_t)view->strides[i], reach;
        if (size > limit || stride > DJ_TENSOR_BYTES_MAX)
            return fail_numbers(view, i);
        if (size > 1) {
            if (__builtin_mul_overflow(count, size, &count) || count > limit ||
                __builtin_mul_overflow(size - 1, stride, &reach) || reach > limit)
                return fail_numbers(view, i);
            last += reach; /* at most 8 terms of 2^46 */
        }
        empty |= size == 0;
    }
    if (last + 1 > limit)
        return dj_fail(DJ_ERR_LIMIT, "a view that reaches beyond %llu bytes",
                       (unsigned long long)DJ_TENSOR_BYTES_MAX);
    *extent_p = empty ? 0 : (last + 1) * item;
    return DJ_OK;
}

dj_status_t dj_view_check(const dj_view_t *view, uint64_t storage_bytes)
{
    uint64_t item = dj_dtype_bytes(view->dtype), extent = 0;
    if (item == 0)
        return dj_fail(DJ_ERR_DTYPE, "data type %u is not known", view->dtype);
    if (view->rank > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "rank %u is above the limit of %d", view->rank, DJ_RANK_MAX);
    if (view->offset < 0 || (uint64_t)view->offset > DJ_TENSOR_BYTES_MAX >> __builtin_ctzll(item))
        return dj_fail(DJ_ERR_LIMIT, "offset %lld is out of range", (long long)view->offset);
    dj_status_t status = check_numbers(view, item, &extent);
    if (status != DJ_OK)
        return status;
    if (storage_bytes != UINT64_MAX && (uint64_t)view->offset * item + extent > storage_bytes)
        return dj_fail(DJ_ERR_SHAPE, "a view of %llu bytes from byte %llu leaves its storage of "
                       "%llu bytes", (unsigned long long)extent,
                       (unsigned long long)view->offset * item, (unsigned long long)storage_bytes);
    return DJ_OK;
}

dj_view_t dj_view_contiguous(uint8_t dtype, uint8_t rank, const int64_t *sizes)
{
    dj_view_t view = {.dtype = dtype, .rank = rank};
    uint64_t stride = 1; /* unsigned: sizes may not have been checked yet */
    for (uint32_t i = rank; i-- > 0;) {
        view.sizes[i] = sizes[i];
        view.strides[i] = (int64_t)(stride & INT64_MAX);
        stride *= sizes[i] > 0 ? (uint64_t)sizes[i] : 1;
    }
    return view;
}

const char *dj_view_format(const dj_view_t *view, char *text, uint32_t size)
{
    uint32_t at = (uint32_t)snprintf(text, size, "%s[", dj_dtype_name(view->dtype));
    for (uint32_t i = 0; i < view->rank && i < DJ_RANK_MAX && at < size; i++)
        at += (uint32_t)snprintf(text + at, size - at, "%s%lld", i > 0 ? ", " : "",
                                 (long long)view->sizes[i]);
    if (at < size)
        snprintf(text + at, size - at, "]");
    return text;
}
