/* fuzz_data.c - the decoders of data messages, alone and fast: headers, EXEC and PUT
 * bodies, batches, the parts of a TUNNEL, addresses, tokens.
 *
 * Input: which:u8, then its bytes. What decodes must lie inside its payload. (fuzz_worker.c sends whole
 * messages through a rank; here a hundred thousand a second go through the checks themselves.) */
#include "comm/control.h"
#include "comm/messages.h"
#include "comm/tunnel.h"
#include "comm/ucx.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return dj_hash_setup() ? 0 : 1;
}

static void fuzz_header(const uint8_t *data, size_t size)
{
    dj_header_t header;
    if (dj_header_check(data, size) != DJ_OK)
        return;
    memcpy(&header, data, sizeof(header));
    FUZZ_ASSERT(size == sizeof(header) + dj_message_struct_bytes(header.type));
    FUZZ_ASSERT(size <= DJ_ENDPOINT_HEADER_MAX);
}

static void touch_exec(const dj_exec_t *exec, const dj_exec_segment_t *segments,
                       const dj_exec_body_t *body)
{
    fuzz_touch(body->releases, exec->n_releases * sizeof(uint64_t));
    fuzz_touch(body->fetches, exec->n_fetches * sizeof(dj_fetch_t));
    fuzz_touch(body->data, exec->data_bytes);
    for (uint32_t i = 0; i < exec->n_segments; ++i) {
        const dj_segment_header_t *header = &segments[i].header;
        fuzz_touch(segments[i].inputs, header->n_inputs * sizeof(dj_binding_t));
        fuzz_touch(segments[i].outputs, header->n_outputs * sizeof(uint64_t));
        fuzz_touch(segments[i].scalars, header->n_scalars * sizeof(uint64_t));
        fuzz_touch(segments[i].sizes, header->sizes_bytes);
        fuzz_touch(segments[i].structure, header->structure_bytes);
    }
}

/* A payload of its own, so that one byte past it is a finding. */
static uint8_t *payload_of(const uint8_t *data, size_t size)
{
    uint8_t *payload = malloc(size ? size : 1);
    if (size)
        memcpy(payload, data, size);
    return payload;
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
    uint8_t *payload = payload_of(data + sizeof(exec), size);
    if (dj_exec_decode(&exec, payload, size, segments, DJ_EXEC_SEGMENTS_MAX, &body) == DJ_OK)
        touch_exec(&exec, segments, &body);
    free(payload);
}

static void fuzz_put(const uint8_t *data, size_t size)
{
    dj_put_t put;
    const dj_put_part_t *parts;
    if (size < sizeof(put))
        return;
    memcpy(&put, data, sizeof(put));
    size -= sizeof(put);
    uint8_t *payload = payload_of(data + sizeof(put), size);
    if (dj_put_decode(&put, payload, size, &parts) == DJ_OK && put.n_parts > 0) {
        uint64_t at = dj_put_data_offset(put.n_parts);
        for (uint32_t i = 0; i < put.n_parts; i++) {
            fuzz_touch(payload + at, parts[i].bytes);
            at = dj_put_next_offset(at, &parts[i]);
        }
    }
    free(payload);
}

/* Every message of it lies inside, and it comes to an end. */
static void fuzz_batch(const uint8_t *data, size_t size)
{
    uint8_t *payload = payload_of(data, size);
    dj_batch_item_t item;
    for (uint64_t at = 0, before = 0; at < size; before = at) {
        if (dj_batch_next(payload, size, &at, &item) != DJ_OK)
            break;
        FUZZ_ASSERT(at > before);
        fuzz_touch(item.header, item.header_bytes);
        fuzz_touch(item.payload, item.payload_bytes);
        dj_header_check(item.header, item.header_bytes);
    }
    free(payload);
}

/* A part that follows what has arrived, of a message that may pass. */
static void make_plausible(dj_tunnel_t *part, size_t tail, uint64_t at)
{
    uint32_t header_bytes = sizeof(dj_header_t) + sizeof(dj_put_t);
    part->offset = at;
    part->header_bytes = at == 0 && tail >= header_bytes ? header_bytes : 0;
    part->bytes = (uint32_t)tail - part->header_bytes;
    part->payload_bytes = at + part->bytes + part->payload_bytes % 2 * 64;
    if (part->header_bytes == 0)
        return;
    dj_header_t *header = (dj_header_t *)(part + 1);
    header->magic = DJ_HEADER_MAGIC;
    header->version = DJ_PROTOCOL_VERSION;
    header->type = DJ_MESSAGE_PUT;
}

/* Parts as frames bring them: u16 bytes of tail (odd: made plausible), the part's struct, the tail. */
static void fuzz_tunnel(const uint8_t *data, size_t size)
{
    enum { LIMIT = 1 << 20 };
    static uint8_t sent[LIMIT];
    uint64_t at = 0;
    _Alignas(64) static uint8_t body[sizeof(dj_tunnel_t) + UINT16_MAX];
    dj_tunnel_assembly_t assembly = {0};
    dj_tunnel_whole_t whole;
    dj_status_t status = DJ_IN_PROGRESS;
    while (status >= 0 && size >= 2 + sizeof(dj_tunnel_t)) {
        uint16_t tail;
        memcpy(&tail, data, sizeof(tail));
        size_t bytes = sizeof(dj_tunnel_t) + tail;
        bytes = bytes < size - 2 ? bytes : size - 2;
        memcpy(body, data + 2, bytes);
        data += 2 + bytes;
        size -= 2 + bytes;
        if (tail % 2)
            make_plausible((dj_tunnel_t *)body, bytes - sizeof(dj_tunnel_t), at);
        status = dj_tunnel_join(&assembly, (const dj_tunnel_t *)body, (uint32_t)bytes, LIMIT, &whole);
        if (status < 0)
            break;
        const dj_tunnel_t *part = (const dj_tunnel_t *)body;
        FUZZ_ASSERT(part->offset == at && part->bytes <= LIMIT - at);
        memcpy(sent + at, body + bytes - part->bytes, part->bytes);
        at += part->bytes;
        if (status != DJ_OK)
            continue;
        FUZZ_ASSERT(whole.payload_bytes == at);
        FUZZ_ASSERT(dj_header_check(whole.header, whole.header_bytes) == DJ_OK);
        FUZZ_ASSERT(at == 0 || memcmp(whole.payload, sent, at) == 0);
        free(whole.payload);
        at = 0;
    }
    dj_tunnel_assembly_fini(&assembly);
}

static void fuzz_token(const uint8_t *data, size_t size)
{
    uint8_t token[32];
    char *text = strndup((const char *)data, size);
    dj_token_parse(text, token);
    free(text);
}

/* As it is, and with UCX's part behind the prefix it should have. */
static void fuzz_address(const uint8_t *data, size_t size)
{
    void *address;
    uint8_t *wrapped;
    uint32_t bytes;
    if (dj_address_unwrap(data, (uint32_t)size, &address) == DJ_OK)
        free(address);
    if (dj_address_wrap(data, size, &wrapped, &bytes) != DJ_OK)
        return;
    FUZZ_ASSERT((dj_address_unwrap(wrapped, bytes, &address) == DJ_OK) == (size >= 8));
    if (size >= 8) {
        FUZZ_ASSERT(memcmp(address, data, size) == 0);
        free(address);
        wrapped[bytes - 1] ^= 1;
        FUZZ_ASSERT(dj_address_unwrap(wrapped, bytes, &address) != DJ_OK);
    }
    free(wrapped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const parts[])(const uint8_t *, size_t) = {fuzz_header, fuzz_exec, fuzz_token,
                                                             fuzz_address, fuzz_put, fuzz_batch,
                                                             fuzz_tunnel};
    if (size > 0)
        parts[data[0] % (sizeof(parts) / sizeof(parts[0]))](data + 1, size - 1);
    return 0;
}
