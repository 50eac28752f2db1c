/* fuzz_messages.c - libFuzzer over everything that takes bytes from a peer in comm: frames,
 * headers, EXEC payloads, tokens. Built with -DDJINN_FUZZ=ON and clang; no crash, no leak, and what
 * decodes must lie inside its payload. */
#include <stdlib.h>
#include <string.h>

#include "comm/control.h"
#include "comm/messages.h"

static void fuzz_frame(const uint8_t *data, size_t size)
{
    dj_frame_t frame;
    if (size < sizeof(frame))
        return;
    memcpy(&frame, data, sizeof(frame));
    for (int trusted = 0; trusted < 2; ++trusted)
        if (dj_frame_check(&frame, trusted) == DJ_OK &&
            frame.length < dj_message_struct_bytes(frame.type))
            abort();
}

static void fuzz_header(const uint8_t *data, size_t size)
{
    dj_header_t header;
    if (dj_header_check(data, size) != DJ_OK)
        return;
    memcpy(&header, data, sizeof(header));
    if (size != sizeof(header) + dj_message_struct_bytes(header.type))
        abort();
}

static void touch(const void *data, uint64_t bytes)
{
    static volatile uint8_t sink;
    if (bytes > 0) {
        sink ^= ((const uint8_t *)data)[0];
        sink ^= ((const uint8_t *)data)[bytes - 1];
    }
}

static void fuzz_exec(const uint8_t *data, size_t size)
{
    static dj_exec_segment_t segments[DJ_EXEC_SEGMENTS_MAX];
    dj_exec_t exec;
    dj_exec_body_t body;
    if (size < sizeof(exec))
        return;
    memcpy(&exec, data, sizeof(exec));
    size -= sizeof(exec);
    uint8_t *payload = aligned_alloc(64, (size + 64) & ~(size_t)63);
    memcpy(payload, data + sizeof(exec), size);
    if (dj_exec_decode(&exec, payload, size, segments, DJ_EXEC_SEGMENTS_MAX, &body) == DJ_OK) {
        touch(body.releases, exec.n_releases * sizeof(uint64_t));
        touch(body.fetches, exec.n_fetches * sizeof(dj_fetch_t));
        touch(body.data, exec.data_bytes);
        for (uint32_t i = 0; i < exec.n_segments; ++i) {
            const dj_segment_header_t *header = &segments[i].header;
            touch(segments[i].inputs, header->n_inputs * sizeof(dj_binding_t));
            touch(segments[i].outputs, header->n_outputs * sizeof(uint64_t));
            touch(segments[i].scalars, header->n_scalars * sizeof(uint64_t));
            touch(segments[i].sizes, header->sizes_bytes);
            touch(segments[i].structure, header->structure_bytes);
        }
    }
    free(payload);
}

static void fuzz_token(const uint8_t *data, size_t size)
{
    char text[80];
    uint8_t token[32];
    size = size < sizeof(text) - 1 ? size : sizeof(text) - 1;
    memcpy(text, data, size);
    text[size] = '\0';
    dj_token_parse(text, token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0:
        fuzz_frame(data + 1, size - 1);
        break;
    case 1:
        fuzz_header(data + 1, size - 1);
        break;
    case 2:
        fuzz_exec(data + 1, size - 1);
        break;
    default:
        fuzz_token(data + 1, size - 1);
    }
    return 0;
}
