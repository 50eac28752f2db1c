/* tunnel.h - data messages as TUNNEL frames, for clients that reach one port only: cutting and joining.
 *
 * A message is cut into parts small enough that heartbeats pass between them, and joined again at the other
 * end. Both are functions over buffers; who sends and receives the frames is the caller's business.
 *
 * Threads: an outgoing message and an assembly each belong to one thread at a time. */
#ifndef DJ_COMM_TUNNEL_H
#define DJ_COMM_TUNNEL_H

#include "comm/endpoint.h"

/* Payload bytes of the parts made here; up to DJ_TUNNEL_PART_BYTES_MAX are taken. */
#define DJ_TUNNEL_CUT_BYTES (64u << 10)
#define DJ_TUNNEL_TAIL_BYTES (DJ_TUNNEL_CUT_BYTES + DJ_ENDPOINT_HEADER_MAX)

/* ---- cutting ---- */

/* A message on its way out. Header and list of pieces are copied; the pieces' bytes stay the caller's and must
 * stay until all of it was cut. */
typedef struct dj_tunnel_outgoing {
    _Alignas(8) uint8_t header[DJ_ENDPOINT_HEADER_MAX];
    uint32_t header_bytes, n_pieces;
    dj_piece_t pieces[DJ_PIECES_MAX];
    uint64_t payload_bytes, offset; /* of all pieces; cut so far */
    uint32_t piece;                 /* the next byte to cut: where it lies */
    uint64_t piece_offset;
    bool begun;
} dj_tunnel_outgoing_t;

/* DJ_ERR_LIMIT: header, number of pieces or payload are more than a tunnel carries. */
dj_status_t dj_tunnel_begin(dj_tunnel_outgoing_t *outgoing, const void *header,
                            uint32_t header_bytes, const dj_piece_t *pieces, uint32_t n_pieces);
bool dj_tunnel_finished(const dj_tunnel_outgoing_t *outgoing);
/* The next part: its struct, and what follows it in the frame; returns that tail's length. */
uint32_t dj_tunnel_cut(dj_tunnel_outgoing_t *outgoing, dj_tunnel_t *part,
                       uint8_t tail[DJ_TUNNEL_TAIL_BYTES]);

/* ---- joining ---- */

/* A message that is whole. payload is the owner's to free() (NULL when payload_bytes is 0), aligned to 64. */
typedef struct dj_tunnel_whole {
    _Alignas(8) uint8_t header[DJ_ENDPOINT_HEADER_MAX];
    uint32_t header_bytes;
    uint8_t *payload;
    uint64_t payload_bytes;
} dj_tunnel_whole_t;

/* What has arrived of one message; memory grows with that and not with what the first part promises. All-zero:
 * nothing has. */
typedef struct dj_tunnel_assembly {
    dj_tunnel_whole_t message;
    uint64_t arrived, room;
    bool open;
} dj_tunnel_assembly_t;

/* Adds a TUNNEL frame's body of `length` bytes (checked by dj_frame_check()). `payload_limit`: most payload
 * bytes of one message. DJ_OK: *whole_p is the caller's; DJ_IN_PROGRESS; else the stream cannot go on:
 * DJ_ERR_PROTOCOL, DJ_ERR_VERSION, DJ_ERR_LIMIT, DJ_ERR_MEMORY. */
dj_status_t dj_tunnel_join(dj_tunnel_assembly_t *assembly, const dj_tunnel_t *part, uint32_t length,
                           uint64_t payload_limit, dj_tunnel_whole_t *whole_p);
void dj_tunnel_assembly_fini(dj_tunnel_assembly_t *assembly);

#endif
