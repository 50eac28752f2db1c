/* bucket.c - parses buckets, rounds a size. */
#include "planner/bucket.h"

#include <stdbool.h>
#include <string.h>

#include "planner/tensor.h"

/* Decimal digits up to `end`; false: no number, or too large for a size. */
static bool read_size(const char *text, const char *end, uint64_t *size_p)
{
    uint64_t size = 0;
    if (text == end)
        return false;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return false;
        size = size * 10 + (uint64_t)(*text - '0');
        if (size > DJ_TENSOR_BYTES_MAX)
            return false;
    }
    *size_p = size;
    return true;
}

static dj_status_t parse_list(const char *text, dj_buckets_t *buckets)
{
    buckets->kind = DJ_BUCKETS_LIST;
    for (const char *at = text, *end;; at = end + 1) {
        uint64_t size, before = buckets->n_sizes ? buckets->sizes[buckets->n_sizes - 1] : 0;
        end = at + strcspn(at, ",");
        if (buckets->n_sizes == DJ_BUCKETS_MAX)
            return dj_fail(DJ_ERR_INVALID, "more than %d buckets", DJ_BUCKETS_MAX);
        if (!read_size(at, end, &size) || size == 0)
            return dj_fail(DJ_ERR_INVALID, "buckets are none, pow2, or sizes as in 64,128,512; "
                                           "'%.*s' is no size", end - at < 40 ? (int)(end - at) : 40,
                           at);
        if (size <= before)
            return dj_fail(DJ_ERR_INVALID, "bucket %llu comes after %llu: they must rise",
                           (unsigned long long)size, (unsigned long long)before);
        buckets->sizes[buckets->n_sizes++] = size;
        if (!*end)
            return DJ_OK;
    }
}

dj_status_t dj_buckets_parse(const char *text, dj_buckets_t *buckets_p)
{
    dj_buckets_t buckets = {.kind = DJ_BUCKETS_NONE};
    dj_status_t status = DJ_OK;
    if (strcmp(text, "pow2") == 0)
        buckets.kind = DJ_BUCKETS_POW2;
    else if (strcmp(text, "none") != 0)
        status = parse_list(text, &buckets);
    if (status == DJ_OK)
        *buckets_p = buckets;
    return status;
}

uint64_t dj_bucket_of(const dj_buckets_t *buckets, uint64_t size)
{
    if (size < 2 || buckets->kind == DJ_BUCKETS_NONE)
        return size;
    if (buckets->kind == DJ_BUCKETS_POW2)
        return size > 1ull << 63 ? size : 1ull << (64 - __builtin_clzll(size - 1));
    for (uint32_t i = 0; i < buckets->n_sizes; i++)
        if (buckets->sizes[i] >= size)
            return buckets->sizes[i];
    return size;
}
