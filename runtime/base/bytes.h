/* bytes.h - a growable byte buffer to write, and a bounded reader over foreign bytes.
 *
 * Everything that leaves or enters the process as bytes (programs, plans, messages, files) is
 * written and read here, so that bounds are checked in one place. Integers are little-endian;
 * "varint" is LEB128, signed values zigzag first.
 *
 * Limit: no buffer grows past DJ_BYTES_LIMIT; tensors of such sizes travel in segments, not here.
 * Errors: a buffer that cannot grow and a reader that runs past its end set `failed`, after which
 * every further call is harmless (reads return 0). Check once at the end.
 * Ownership: dj_bytes_fini() frees the buffer; a reader owns nothing. */
#ifndef DJ_BASE_BYTES_H
#define DJ_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DJ_BYTES_LIMIT ((size_t)1 << 36)

typedef struct dj_bytes {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
} dj_bytes_t;

/* All-zero is an empty buffer. */
void dj_bytes_fini(dj_bytes_t *bytes);
void dj_bytes_clear(dj_bytes_t *bytes); /* size 0, keeps the memory, clears `failed` */
/* Makes room for `more` bytes past size; false (and failed) past the limit or when memory is short. */
bool dj_bytes_reserve(dj_bytes_t *bytes, size_t more);
void dj_bytes_put(dj_bytes_t *bytes, const void *data, size_t size);
void dj_bytes_put_u8(dj_bytes_t *bytes, uint8_t value);
void dj_bytes_put_u16(dj_bytes_t *bytes, uint16_t value);
void dj_bytes_put_u32(dj_bytes_t *bytes, uint32_t value);
void dj_bytes_put_u64(dj_bytes_t *bytes, uint64_t value);
void dj_bytes_put_varint(dj_bytes_t *bytes, uint64_t value);
void dj_bytes_put_signed(dj_bytes_t *bytes, int64_t value);
void dj_bytes_put_zeros(dj_bytes_t *bytes, size_t size);
/* Pads with zeros to a multiple of `alignment` (a power of two). */
void dj_bytes_align(dj_bytes_t *bytes, size_t alignment);
void dj_bytes_printf(dj_bytes_t *bytes, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

typedef struct dj_reader {
    const uint8_t *data;
    size_t size, at;
    bool failed;
} dj_reader_t;

void dj_reader_init(dj_reader_t *reader, const void *data, size_t size);
/* A pointer to the next `size` bytes, or NULL (and failed) when fewer are left. */
const void *dj_reader_take(dj_reader_t *reader, size_t size);
void dj_reader_copy(dj_reader_t *reader, void *target, size_t size); /* zeros on failure */
uint16_t dj_reader_u16(dj_reader_t *reader);
uint32_t dj_reader_u32(dj_reader_t *reader);
uint64_t dj_reader_u64(dj_reader_t *reader);
uint64_t dj_reader_long_varint(dj_reader_t *reader); /* of any length; dj_reader_varint() below */
int64_t dj_reader_signed(dj_reader_t *reader);
/* Skips padding written by dj_bytes_align() for a buffer that began at data[0]. */
void dj_reader_align(dj_reader_t *reader, size_t alignment);
static inline size_t dj_reader_left(const dj_reader_t *reader)
{
    return reader->size - reader->at;
}

/* Inline: a program is read byte by byte, thousands of them in a millisecond. */
static inline uint8_t dj_reader_u8(dj_reader_t *reader)
{
    if (!reader->failed && reader->at < reader->size)
        return reader->data[reader->at++];
    dj_reader_take(reader, 1);
    return 0;
}

static inline uint64_t dj_reader_varint(dj_reader_t *reader)
{
    if (!reader->failed && reader->at < reader->size && reader->data[reader->at] < 0x80)
        return reader->data[reader->at++];
    return dj_reader_long_varint(reader);
}

#endif
