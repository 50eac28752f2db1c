/* bytes.c - the one place where integers become bytes and back.
 *
 * Byte order is fixed by shifts, which compilers turn into single moves on little-endian machines.
 * A varint has one encoding only: a longer spelling of the same number is refused, so that equal
 * programs are equal bytes. */
#include "runtime/base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALLEST_CAPACITY 256

void dj_bytes_fini(dj_bytes_t *bytes)
{
    free(bytes->data);
    *bytes = (dj_bytes_t){0};
}

void dj_bytes_clear(dj_bytes_t *bytes)
{
    bytes->size = 0;
    bytes->failed = false;
}

bool dj_bytes_reserve(dj_bytes_t *bytes, size_t more)
{
    if (bytes->failed)
        return false;
    if (more <= bytes->capacity - bytes->size)
        return true;
    size_t needed = bytes->size + more; /* used below only where it did not wrap */
    size_t capacity = bytes->capacity + bytes->capacity / 2;
    if (capacity < SMALLEST_CAPACITY)
        capacity = SMALLEST_CAPACITY;
    if (capacity < needed)
        capacity = needed;
    uint8_t *data = more > DJ_BYTES_LIMIT - bytes->size ? NULL : realloc(bytes->data, capacity);
    if (!data) {
        bytes->failed = true;
        return false;
    }
    bytes->data = data;
    bytes->capacity = capacity;
    return true;
}

void dj_bytes_put(dj_bytes_t *bytes, const void *data, size_t size)
{
    if (size == 0 || !dj_bytes_reserve(bytes, size))
        return;
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

void dj_bytes_put_zeros(dj_bytes_t *bytes, size_t size)
{
    if (size == 0 || !dj_bytes_reserve(bytes, size))
        return;
    memset(bytes->data + bytes->size, 0, size);
    bytes->size += size;
}

static void put_little(dj_bytes_t *bytes, uint64_t value, unsigned width)
{
    if (!dj_bytes_reserve(bytes, width))
        return;
    uint8_t *at = bytes->data + bytes->size;
    for (unsigned i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    bytes->size += width;
}

void dj_bytes_put_u8(dj_bytes_t *bytes, uint8_t value)
{
    put_little(bytes, value, 1);
}

void dj_bytes_put_u16(dj_bytes_t *bytes, uint16_t value)
{
    put_little(bytes, value, 2);
}

void dj_bytes_put_u32(dj_bytes_t *bytes, uint32_t value)
{
    put_little(bytes, value, 4);
}

void dj_bytes_put_u64(dj_bytes_t *bytes, uint64_t value)
{
    put_little(bytes, value, 8);
}

void dj_bytes_put_varint(dj_bytes_t *bytes, uint64_t value)
{
    if (!dj_bytes_reserve(bytes, 10))
        return;
    uint8_t *at = bytes->data + bytes->size;
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    bytes->size = (size_t)(at - bytes->data);
}

void dj_bytes_put_signed(dj_bytes_t *bytes, int64_t value)
{
    uint64_t sign = value < 0 ? UINT64_MAX : 0;
    dj_bytes_put_varint(bytes, ((uint64_t)value << 1) ^ sign);
}

void dj_bytes_align(dj_bytes_t *bytes, size_t alignment)
{
    dj_bytes_put_zeros(bytes, -bytes->size & (alignment - 1));
}

void dj_bytes_printf(dj_bytes_t *bytes, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    size_t room = bytes->failed ? 0 : bytes->capacity - bytes->size;
    int length =
        vsnprintf(room ? (char *)bytes->data + bytes->size : NULL, room, format, arguments);
    /* The terminator takes room but is not counted, so that prints can follow each other. */
    if (length < 0)
        bytes->failed = true;
    else if ((size_t)length >= room && dj_bytes_reserve(bytes, (size_t)length + 1))
        vsnprintf((char *)bytes->data + bytes->size, (size_t)length + 1, format, again);
    if (!bytes->failed)
        bytes->size += (size_t)length;
    va_end(again);
    va_end(arguments);
}

void dj_reader_init(dj_reader_t *reader, const void *data, size_t size)
{
    static const uint8_t nothing;
    *reader = (dj_reader_t){.data = data ? data : &nothing, .size = data ? size : 0};
    reader->failed = !data && size > 0;
}

static void reader_fail(dj_reader_t *reader)
{
    reader->failed = true;
    reader->at = reader->size; /* so that loops over what is left end */
}

const void *dj_reader_take(dj_reader_t *reader, size_t size)
{
    if (reader->failed || size > dj_reader_left(reader)) {
        reader_fail(reader);
        return NULL;
    }
    const void *data = reader->data + reader->at;
    reader->at += size;
    return data;
}

void dj_reader_copy(dj_reader_t *reader, void *target, size_t size)
{
    const void *data = dj_reader_take(reader, size);
    if (size == 0)
        return;
    if (data)
        memcpy(target, data, size);
    else
        memset(target, 0, size);
}

static uint64_t take_little(dj_reader_t *reader, unsigned width)
{
    const uint8_t *at = dj_reader_take(reader, width);
    uint64_t value = 0;
    for (unsigned i = 0; at && i < width; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

uint16_t dj_reader_u16(dj_reader_t *reader)
{
    return (uint16_t)take_little(reader, 2);
}

uint32_t dj_reader_u32(dj_reader_t *reader)
{
    return (uint32_t)take_little(reader, 4);
}

uint64_t dj_reader_u64(dj_reader_t *reader)
{
    return take_little(reader, 8);
}

uint64_t dj_reader_long_varint(dj_reader_t *reader)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint8_t *at = dj_reader_take(reader, 1);
        if (!at)
            return 0;
        uint64_t bits = *at & 0x7f;
        if (shift == 63 && *at > 1) /* past 64 bits, or an eleventh byte */
            break;
        value |= bits << shift;
        if (*at & 0x80)
            continue;
        if (bits == 0 && shift > 0) /* a longer spelling of a shorter number */
            break;
        return value;
    }
    reader_fail(reader);
    return 0;
}

int64_t dj_reader_signed(dj_reader_t *reader)
{
    uint64_t value = dj_reader_varint(reader);
    return (int64_t)((value >> 1) ^ -(value & 1));
}

void dj_reader_align(dj_reader_t *reader, size_t alignment)
{
    dj_reader_take(reader, -reader->at & (alignment - 1));
}
