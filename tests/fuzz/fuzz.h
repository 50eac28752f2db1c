/* fuzz.h - what the libFuzzer targets share: how an input becomes frames, and what is always asserted.
 *
 * An input is a program of small commands, read with dj_reader_t. In its polite form a frame is
 * `type:u8 length:u16 body`, and magic, version and sequence are filled in here, so that mutations
 * spend themselves on what lies behind the first check and a corpus survives a new protocol version.
 * A rude input is bytes for the wire as they are. Each target's file says what its input looks like.
 *
 * FUZZ_ASSERT is abort(): a finding, in every build. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/messages.h"
#include "runtime/base/bytes.h"

#define FUZZ_ASSERT(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads the first and the last byte, which is what the sanitizer wants to see. */
static inline void fuzz_touch(const void *data, uint64_t bytes)
{
    static volatile uint8_t sink;
    if (bytes > 0)
        sink = (uint8_t)(sink ^ ((const uint8_t *)data)[0] ^ ((const uint8_t *)data)[bytes - 1]);
}

/* The next `wanted` bytes, or what is left. */
static inline const uint8_t *fuzz_take(dj_reader_t *reader, size_t wanted, size_t *taken_p)
{
    size_t left = dj_reader_left(reader);
    *taken_p = wanted < left ? wanted : left;
    return dj_reader_take(reader, *taken_p);
}

/* One frame of the input in its polite form; `body` is padded with zeros up to the message's struct. */
static inline void fuzz_put_frame(dj_reader_t *reader, dj_bytes_t *wire, uint32_t sequence)
{
    static const uint8_t zeros[DJ_HELLO_BYTES_MAX];
    uint16_t type = dj_reader_u8(reader);
    size_t taken, wanted = dj_reader_u16(reader);
    const uint8_t *body = fuzz_take(reader, wanted, &taken);
    uint32_t struct_bytes = dj_message_struct_bytes(type);
    size_t padding = taken < struct_bytes ? struct_bytes - taken : 0;
    dj_frame_t frame;
    dj_frame_init(&frame, (dj_message_t)type, (uint32_t)(taken + padding), sequence);
    dj_bytes_put(wire, &frame, sizeof(frame));
    dj_bytes_put(wire, body, taken);
    dj_bytes_put(wire, zeros, padding);
}

/* All that is left of the input, as it goes over the wire. */
static inline void fuzz_put_stream(dj_reader_t *reader, dj_bytes_t *wire, bool polite,
                                   uint32_t sequence)
{
    size_t taken;
    while (polite && dj_reader_left(reader) >= 3)
        fuzz_put_frame(reader, wire, sequence++);
    const uint8_t *rest = fuzz_take(reader, SIZE_MAX, &taken);
    if (!polite)
        dj_bytes_put(wire, rest, taken);
}

/* Makes the proof of a first HELLO right, and its op table where one is given. */
static inline void fuzz_prove(dj_bytes_t *wire, const uint8_t token[32], const uint8_t nonce[32],
                              const dj_hash_t *op_table)
{
    dj_frame_t frame;
    dj_hello_t hello;
    if (wire->size < sizeof(frame) + sizeof(hello))
        return;
    memcpy(&frame, wire->data, sizeof(frame));
    memcpy(&hello, wire->data + sizeof(frame), sizeof(hello));
    if (frame.type != DJ_MESSAGE_HELLO || frame.length < sizeof(hello) ||
        frame.length > wire->size - sizeof(frame))
        return;
    if (op_table)
        hello.op_table = *op_table;
    hello.uid = (uint32_t)getuid();
    dj_hello_prove(hello.proof, token, nonce, &hello, wire->data + sizeof(frame) + sizeof(hello),
                   frame.length - (uint32_t)sizeof(hello));
    memcpy(wire->data + sizeof(frame), &hello, sizeof(hello));
}

/* Every sentence of an error is short, ends, and steers no terminal. */
static inline void fuzz_check_text(const char *text)
{
    size_t length = strlen(text);
    FUZZ_ASSERT(length > 0 && length < 4096);
    for (size_t i = 0; i < length; i++)
        FUZZ_ASSERT((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
}

#endif
