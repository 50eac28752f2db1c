/* messages.c - names, sizes and checks of messages, all made from the one list.
 *
 * Here is the gate for every frame and every active message: what passes has a known type of the
 * right channel and exactly the struct (and at most the tail) its type allows, so that code behind
 * the gate may cast. What the struct says is still to be checked by whoever acts on it. */
#include "comm/messages.h"

#include <stddef.h>
#include <string.h>

_Static_assert((int)DJ_OP_COUNT <= (int)DJ_OPS_MAX, "every op has its bit in a WELCOME");

typedef enum dj_channel {
    CHANNEL_CONTROL,
    CHANNEL_DATA,
} dj_channel_t;

typedef struct dj_message_row {
    uint8_t channel;
    uint32_t struct_bytes;
    const char *name; /* NULL: no such message */
} dj_message_row_t;

static const dj_message_row_t rows[] = {
#define X(name, value, type, channel, text)                                                        \
    [(value)] = {CHANNEL_##channel, (uint32_t)sizeof(type), #name},
    DJ_MESSAGE_LIST(X)
#undef X
};

/* Structs go over the wire as they lie in memory: whole words, and small enough for a header. */
#define X(name, value, type, channel, text)                                                        \
    _Static_assert(sizeof(type) % 8 == 0, #type " must be a multiple of 8 bytes");
DJ_MESSAGE_LIST(X)
#undef X
_Static_assert(sizeof(dj_frame_t) == 16 && sizeof(dj_header_t) == 40, "wire structs have no holes");
_Static_assert(sizeof(dj_segment_header_t) == 56, "wire structs have no holes");
_Static_assert(sizeof(dj_binding_t) == 24 && sizeof(dj_fetch_t) == 24, "no holes");
_Static_assert(sizeof(dj_hello_t) % 8 == 0 && offsetof(dj_hello_t, grant) % 8 == 0, "no holes");

static const dj_message_row_t *find(uint32_t type)
{
    return type < sizeof(rows) / sizeof(rows[0]) && rows[type].name ? &rows[type] : NULL;
}

const char *dj_message_name(uint16_t type)
{
    const dj_message_row_t *row = find(type);
    return row ? row->name : "?";
}

uint32_t dj_message_struct_bytes(uint16_t type)
{
    const dj_message_row_t *row = find(type);
    return row ? row->struct_bytes : 0;
}

void dj_frame_init(dj_frame_t *frame, dj_message_t type, uint32_t length, uint32_t sequence)
{
    frame->magic = DJ_FRAME_MAGIC;
    frame->version = DJ_PROTOCOL_VERSION;
    frame->type = (uint16_t)type;
    frame->length = length;
    frame->sequence = sequence;
}

/* What may follow the struct of a control message. */
static uint32_t tail_bytes_max(uint16_t type)
{
    switch (type) {
    case DJ_MESSAGE_HELLO:
    case DJ_MESSAGE_WELCOME:
        return DJ_ADDRESS_BYTES_MAX;
    case DJ_MESSAGE_PLAN:
    case DJ_MESSAGE_INFO_REPLY:
        return DJ_FRAME_BYTES_MAX - 4096;
    case DJ_MESSAGE_TUNNEL:
        return DJ_TUNNEL_PART_BYTES_MAX + DJ_ENDPOINT_HEADER_MAX;
    default:
        return 0;
    }
}

static bool belongs_to_hello(uint16_t type)
{
    return type >= DJ_MESSAGE_CHALLENGE && type <= DJ_MESSAGE_REFUSE;
}

static dj_status_t check_version(uint16_t version, const char *what)
{
    if (version == DJ_PROTOCOL_VERSION)
        return DJ_OK;
    return dj_fail(DJ_ERR_VERSION,
                   "%s of protocol version %u, but this build speaks version %d; install the same "
                   "version of djinn on both sides",
                   what, version, DJ_PROTOCOL_VERSION);
}

dj_status_t dj_frame_check(const dj_frame_t *frame, int authenticated)
{
    if (frame->magic != DJ_FRAME_MAGIC)
        return dj_fail(DJ_ERR_PROTOCOL, "not a djinn control frame: magic 0x%08x instead of 0x%08x",
                       frame->magic, DJ_FRAME_MAGIC);
    dj_status_t status = check_version(frame->version, "a control frame");
    if (status != DJ_OK)
        return status;
    const dj_message_row_t *row = find(frame->type);
    if (!row || row->channel != CHANNEL_CONTROL)
        return dj_fail(DJ_ERR_PROTOCOL, "message type %u is not one of the control channel",
                       frame->type);
    if (!authenticated && !belongs_to_hello(frame->type))
        return dj_fail(DJ_ERR_PROTOCOL, "%s before the hello was accepted", row->name);
    if (frame->length < row->struct_bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "%s of %u bytes, but its struct has %u", row->name,
                       frame->length, row->struct_bytes);
    uint32_t limit = row->struct_bytes + tail_bytes_max(frame->type);
    if (!authenticated && limit > DJ_HELLO_BYTES_MAX)
        limit = DJ_HELLO_BYTES_MAX;
    if (frame->length > limit)
        return dj_fail(DJ_ERR_LIMIT, "%s of %u bytes, but the limit is %u", row->name,
                       frame->length, limit);
    return DJ_OK;
}

dj_status_t dj_header_check(const void *header, uint64_t header_bytes)
{
    if (header_bytes < sizeof(dj_header_t))
        return dj_fail(DJ_ERR_PROTOCOL, "a message header of %llu bytes, but it has at least %zu",
                       (unsigned long long)header_bytes, sizeof(dj_header_t));
    dj_header_t head;
    memcpy(&head, header, sizeof(head));
    if (head.magic != DJ_HEADER_MAGIC)
        return dj_fail(DJ_ERR_PROTOCOL, "not a djinn message: magic 0x%08x instead of 0x%08x",
                       head.magic, DJ_HEADER_MAGIC);
    dj_status_t status = check_version(head.version, "a message");
    if (status != DJ_OK)
        return status;
    const dj_message_row_t *row = find(head.type);
    if (!row || row->channel != CHANNEL_DATA)
        return dj_fail(DJ_ERR_PROTOCOL, "message type %u is not one of the data channel",
                       head.type);
    if (header_bytes != sizeof(head) + row->struct_bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "%s with a header of %llu bytes instead of %zu", row->name,
                       (unsigned long long)header_bytes, sizeof(head) + row->struct_bytes);
    return DJ_OK;
}

/* The tail enters as its hash, so that any length fits a fixed buffer. */
void dj_hello_prove(uint8_t proof[DJ_PROOF_BYTES], const uint8_t token[32], const uint8_t nonce[32],
                    const dj_hello_t *hello, const void *tail, uint32_t tail_bytes)
{
    struct {
        uint8_t nonce[32];
        dj_hello_t hello;
        dj_hash_t tail;
        uint64_t tail_bytes;
    } signed_part;
    memset(&signed_part, 0, sizeof(signed_part));
    memcpy(signed_part.nonce, nonce, sizeof(signed_part.nonce));
    signed_part.hello = *hello;
    memset(signed_part.hello.proof, 0, sizeof(signed_part.hello.proof));
    if (tail_bytes > 0)
        signed_part.tail = dj_hash_of(tail, tail_bytes);
    signed_part.tail_bytes = tail_bytes;
    dj_proof_make(proof, token, &signed_part, sizeof(signed_part));
}

void dj_grant_prove(uint8_t proof[DJ_PROOF_BYTES], const uint8_t token[32], uint64_t session,
                    uint32_t rank, uint32_t incarnation, uint64_t expires_ms, uint32_t uid)
{
    const uint64_t signed_part[] = {0x746e617267 /* "grant": no hello proof can serve as one */,
                                    session,
                                    rank,
                                    incarnation,
                                    expires_ms,
                                    uid};
    dj_proof_make(proof, token, signed_part, sizeof(signed_part));
}
