/* fuzz_worker.c - data messages through a whole rank: queue, decoding, planning, kernels, refs.
 *
 * Input: messages, each `type:u8 tweak:u8 struct payload_bytes:u16 payload`. Header, session and request
 * are as they should be unless a tweak says otherwise; EXEC can be signed (keys computed from the
 * program it brings, so that decoder and kernels see it) and fitted (its immediate bytes appended).
 * After each input the session ends, and nothing may be left of it. */
#include "tests/fuzz/fuzz_rank.h"

enum {
    TWEAK_RENDEZVOUS = 1,
    TWEAK_FAILS = 2,
    TWEAK_STALE = 4,
    TWEAK_REPEAT = 8,
    TWEAK_SIGN = 16,
    TWEAK_FIT = 32,
    TWEAK_WAIT = 64, /* what came before does not run first */
};

typedef struct message {
    dj_header_t header;
    union {
        dj_exec_t exec;
        uint8_t body[DJ_ENDPOINT_HEADER_MAX];
    };
} message_t;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_rank_open("/nowhere");
    return 0;
}

/* Appends the immediate bytes that the struct announces, small integers among them. */
static void fit(dj_exec_t *exec, dj_bytes_t *payload)
{
    exec->data_bytes &= 0xfff;
    dj_bytes_align(payload, 64);
    exec->data_offset = payload->size;
    for (uint64_t i = 0; i < exec->data_bytes; i++)
        dj_bytes_put_u8(payload, i % 8 ? 0 : (uint8_t)(i / 8 % 5));
}

/* The keys of every program that is here with its structure. */
static void sign(const dj_exec_t *exec, dj_bytes_t *payload)
{
    static dj_exec_segment_t segments[DJ_EXEC_SEGMENTS_MAX];
    dj_exec_body_t body;
    if (dj_exec_decode(exec, payload->data, payload->size, segments, DJ_EXEC_SEGMENTS_MAX, &body) !=
        DJ_OK)
        return;
    for (uint32_t i = 0; i < exec->n_segments; i++) {
        const dj_exec_segment_t *segment = &segments[i];
        size_t at = (size_t)((const uint8_t *)segment->inputs - payload->data);
        dj_segment_header_t header = segment->header;
        if (!header.structure_bytes)
            continue;
        header.program_key = dj_program_key(segment->structure, header.structure_bytes);
        header.exact_key =
            dj_program_exact_key(header.program_key, segment->sizes, header.sizes_bytes);
        memcpy(payload->data + at - sizeof(header), &header, sizeof(header));
    }
}

static void say(const message_t *message, const dj_bytes_t *payload, uint8_t tweak)
{
    /* A buffer of exactly its size: one byte past it is a finding. */
    uint8_t *copy = malloc(payload->size ? payload->size : 1);
    if (payload->size)
        memcpy(copy, payload->data, payload->size);
    bool rendezvous = (tweak & TWEAK_RENDEZVOUS) && payload->size > 0;
    fuzz_rank_message(message, copy, payload->size, rendezvous, tweak & TWEAK_FAILS);
    if (!(tweak & TWEAK_WAIT))
        fuzz_rank_run();
    free(copy);
}

static void next_message(dj_reader_t *reader, const dj_session_t *session, uint64_t *request,
                         dj_bytes_t *payload)
{
    message_t message = {.header = {.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION}};
    size_t taken;
    message.header.type = dj_reader_u8(reader);
    uint8_t tweak = dj_reader_u8(reader);
    uint32_t struct_bytes = dj_message_struct_bytes(message.header.type);
    if (message.header.type < DJ_MESSAGE_EXEC || struct_bytes == 0)
        return;
    const uint8_t *body = fuzz_take(reader, struct_bytes, &taken);
    if (taken)
        memcpy(message.body, body, taken);
    const uint8_t *bytes = fuzz_take(reader, dj_reader_u16(reader), &taken);
    dj_bytes_clear(payload);
    dj_bytes_put(payload, bytes, taken);
    if (message.header.type != DJ_MESSAGE_PULL) /* which names its session in the struct */
        message.header.session = session->id;
    message.header.generation = session->generation + (tweak & TWEAK_STALE ? 1 : 0);
    message.header.request = tweak & TWEAK_REPEAT ? *request : ++*request;
    if (message.header.type == DJ_MESSAGE_EXEC) {
        if (message.exec.deadline_ms > FUZZ_REQUEST_MS)
            message.exec.deadline_ms = FUZZ_REQUEST_MS;
        if (tweak & TWEAK_FIT)
            fit(&message.exec, payload);
        if (tweak & TWEAK_SIGN)
            sign(&message.exec, payload);
    }
    FUZZ_ASSERT(dj_header_check(&message, sizeof(message.header) + struct_bytes) == DJ_OK);
    say(&message, payload, tweak);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_reader_t reader;
    dj_bytes_t payload = {0};
    uint64_t request = 0;
    dj_session_t *session = fuzz_session_open();
    dj_reader_init(&reader, data, size);
    for (int i = 0; i < 16 && dj_reader_left(&reader) > 2; i++)
        next_message(&reader, session, &request, &payload);
    fuzz_rank_run();
    fuzz_session_close(session);
    dj_bytes_fini(&payload);
    return 0;
}
