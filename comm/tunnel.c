/* tunnel.c - see tunnel.h.
 *
 * The first part of a message carries its header; from then on every part must continue exactly where the last
 * one ended, so a joined message has no holes and nothing in it was written twice. */
#include "comm/tunnel.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM_BYTES = 256 << 10 };

/* ---- cutting ---- */

dj_status_t dj_tunnel_begin(dj_tunnel_outgoing_t *outgoing, const void *header,
                            uint32_t header_bytes, const dj_piece_t *pieces, uint32_t n_pieces)
{
    uint64_t bytes = 0;
    if (header_bytes > DJ_ENDPOINT_HEADER_MAX || n_pieces > DJ_PIECES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a message with a header of %u bytes in %u pieces: at most %d and %d",
                       header_bytes, n_pieces, DJ_ENDPOINT_HEADER_MAX, DJ_PIECES_MAX);
    for (uint32_t i = 0; i < n_pieces; ++i) {
        if (pieces[i].bytes > DJ_TUNNEL_MESSAGE_BYTES_MAX - bytes)
            return dj_fail(DJ_ERR_LIMIT, "a message of more than %d bytes cannot go through the relay: "
                                         "send it in parts", DJ_TUNNEL_MESSAGE_BYTES_MAX);
        bytes += pieces[i].bytes;
    }
    memcpy(outgoing->header, header, header_bytes);
    if (n_pieces)
        memcpy(outgoing->pieces, pieces, n_pieces * sizeof(*pieces));
    outgoing->header_bytes = header_bytes;
    outgoing->n_pieces = n_pieces;
    outgoing->payload_bytes = bytes;
    outgoing->offset = outgoing->piece_offset = 0;
    outgoing->piece = 0;
    outgoing->begun = false;
    return DJ_OK;
}

bool dj_tunnel_finished(const dj_tunnel_outgoing_t *outgoing)
{
    return outgoing->begun && outgoing->offset == outgoing->payload_bytes;
}

/* Copies the next `bytes` of payload, which are there. */
static void copy_payload(dj_tunnel_outgoing_t *outgoing, uint8_t *target, uint64_t bytes)
{
    outgoing->offset += bytes;
    while (bytes > 0) {
        const dj_piece_t *piece = &outgoing->pieces[outgoing->piece];
        uint64_t left = piece->bytes - outgoing->piece_offset;
        uint64_t now = left < bytes ? left : bytes;
        if (now > 0)
            memcpy(target, (const uint8_t *)piece->data + outgoing->piece_offset, now);
        target += now;
        bytes -= now;
        outgoing->piece_offset += now;
        if (outgoing->piece_offset == piece->bytes) {
            outgoing->piece++;
            outgoing->piece_offset = 0;
        }
    }
}

uint32_t dj_tunnel_cut(dj_tunnel_outgoing_t *outgoing, dj_tunnel_t *part,
                       uint8_t tail[DJ_TUNNEL_TAIL_BYTES])
{
    uint64_t left = outgoing->payload_bytes - outgoing->offset;
    *part = (dj_tunnel_t){.payload_bytes = outgoing->payload_bytes, .offset = outgoing->offset,
                          .header_bytes = outgoing->begun ? 0 : outgoing->header_bytes,
                          .bytes = (uint32_t)(left < DJ_TUNNEL_CUT_BYTES ? left
                                                                         : DJ_TUNNEL_CUT_BYTES)};
    memcpy(tail, outgoing->header, part->header_bytes);
    copy_payload(outgoing, tail + part->header_bytes, part->bytes);
    outgoing->begun = true;
    return part->header_bytes + part->bytes;
}

/* ---- joining ---- */

void dj_tunnel_assembly_fini(dj_tunnel_assembly_t *assembly)
{
    free(assembly->message.payload);
    *assembly = (dj_tunnel_assembly_t){0};
}

static dj_status_t open_message(dj_tunnel_assembly_t *assembly, const dj_tunnel_t *part,
                                uint64_t payload_limit)
{
    dj_tunnel_whole_t *message = &assembly->message;
    if (payload_limit > DJ_TUNNEL_MESSAGE_BYTES_MAX)
        payload_limit = DJ_TUNNEL_MESSAGE_BYTES_MAX;
    if (part->header_bytes > DJ_ENDPOINT_HEADER_MAX)
        return dj_fail(DJ_ERR_LIMIT, "TUNNEL: a header of %u bytes, at most %d", part->header_bytes,
                       DJ_ENDPOINT_HEADER_MAX);
    if (part->payload_bytes > payload_limit)
        return dj_fail(DJ_ERR_LIMIT, "TUNNEL: a message of %llu bytes, at most %llu",
                       (unsigned long long)part->payload_bytes, (unsigned long long)payload_limit);
    memcpy(message->header, part + 1, part->header_bytes);
    dj_status_t status = dj_header_check(message->header, part->header_bytes);
    if (status != DJ_OK)
        return status;
    message->header_bytes = part->header_bytes;
    message->payload_bytes = part->payload_bytes;
    assembly->open = true;
    return DJ_OK;
}

static dj_status_t check_part(const dj_tunnel_assembly_t *assembly, const dj_tunnel_t *part,
                              uint32_t length)
{
    uint64_t tail = (uint64_t)part->header_bytes + part->bytes;
    if (length < sizeof(*part) || tail != length - sizeof(*part))
        return dj_fail(DJ_ERR_PROTOCOL, "TUNNEL announces %llu bytes in a frame of %u",
                       (unsigned long long)tail, length);
    if (part->bytes > DJ_TUNNEL_PART_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "TUNNEL: a part of %u bytes, at most %d", part->bytes,
                       DJ_TUNNEL_PART_BYTES_MAX);
    if (part->offset != assembly->arrived || (part->header_bytes != 0) == assembly->open ||
        (assembly->open && part->payload_bytes != assembly->message.payload_bytes))
        return dj_fail(DJ_ERR_PROTOCOL, "TUNNEL: a part at %llu of %llu bytes where %llu was to come",
                       (unsigned long long)part->offset, (unsigned long long)part->payload_bytes,
                       (unsigned long long)assembly->arrived);
    if (part->offset > part->payload_bytes || part->bytes > part->payload_bytes - part->offset ||
        (part->bytes == 0 && part->payload_bytes != 0))
        return dj_fail(DJ_ERR_PROTOCOL, "TUNNEL: %u bytes at %llu of a message of %llu", part->bytes,
                       (unsigned long long)part->offset, (unsigned long long)part->payload_bytes);
    return DJ_OK;
}

/* Twice the room each time, up to what was announced. */
static dj_status_t make_room(dj_tunnel_assembly_t *assembly, uint64_t wanted)
{
    uint64_t room = assembly->room ? assembly->room : FIRST_ROOM_BYTES;
    if (wanted <= assembly->room)
        return DJ_OK;
    while (room < wanted)
        room *= 2;
    if (room > assembly->message.payload_bytes)
        room = assembly->message.payload_bytes;
    uint8_t *grown = aligned_alloc(64, (room + 63) & ~63ull);
    if (!grown)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %llu bytes of a message through the relay",
                       (unsigned long long)room);
    if (assembly->arrived)
        memcpy(grown, assembly->message.payload, assembly->arrived);
    free(assembly->message.payload);
    assembly->message.payload = grown;
    assembly->room = room;
    return DJ_OK;
}

dj_status_t dj_tunnel_join(dj_tunnel_assembly_t *assembly, const dj_tunnel_t *part, uint32_t length,
                           uint64_t payload_limit, dj_tunnel_whole_t *whole_p)
{
    dj_status_t status = check_part(assembly, part, length);
    if (status == DJ_OK && !assembly->open)
        status = open_message(assembly, part, payload_limit);
    if (status == DJ_OK)
        status = make_room(assembly, part->offset + part->bytes);
    if (status != DJ_OK)
        return status;
    if (part->bytes)
        memcpy(assembly->message.payload + part->offset,
               (const uint8_t *)(part + 1) + part->header_bytes, part->bytes);
    assembly->arrived += part->bytes;
    if (assembly->arrived < part->payload_bytes)
        return DJ_IN_PROGRESS;
    *whole_p = assembly->message;
    *assembly = (dj_tunnel_assembly_t){0};
    return DJ_OK;
}
