/* checksum.c - one number over a whole message, where the peers agreed on it.
 *
 * XXH3 (libxxhash: kept, vectorised, some 20 GB/s a core) finds what a broken memory, card or driver
 * has changed; it is no protection from a peer that means harm. The payload's hash is seeded with that
 * of the header, so one number covers both, whatever pieces the sender had. */
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the state on our stack */
#include <xxhash.h>

#include "comm/ucx.h"

static uint64_t of_header(const void *header, uint32_t header_bytes)
{
    _Alignas(8) uint8_t copy[DJ_ENDPOINT_HEADER_MAX];
    memcpy(copy, header, header_bytes);
    memset(copy + offsetof(dj_header_t, checksum), 0, sizeof(uint64_t));
    return XXH3_64bits(copy, header_bytes);
}

/* 0 means that there is none. */
static uint64_t never_zero(uint64_t checksum)
{
    return checksum ? checksum : 1;
}

void dj_checksum_put(void *header, uint32_t header_bytes, const dj_piece_t *pieces,
                     uint32_t n_pieces)
{
    uint64_t checksum = of_header(header, header_bytes);
    if (n_pieces == 1) {
        checksum = XXH3_64bits_withSeed(pieces[0].data, pieces[0].bytes, checksum);
    } else if (n_pieces > 1) {
        XXH3_state_t state;
        XXH3_64bits_reset_withSeed(&state, checksum);
        for (uint32_t i = 0; i < n_pieces; ++i)
            XXH3_64bits_update(&state, pieces[i].data, pieces[i].bytes);
        checksum = XXH3_64bits_digest(&state);
    } else {
        checksum = XXH3_64bits_withSeed(NULL, 0, checksum);
    }
    checksum = never_zero(checksum);
    memcpy((uint8_t *)header + offsetof(dj_header_t, checksum), &checksum, sizeof(checksum));
}

bool dj_checksum_good(const void *header, uint32_t header_bytes, const void *payload,
                      uint64_t payload_bytes)
{
    uint64_t stated;
    memcpy(&stated, (const uint8_t *)header + offsetof(dj_header_t, checksum), sizeof(stated));
    if (stated == 0)
        return true;
    return stated == never_zero(XXH3_64bits_withSeed(payload, payload_bytes,
                                                     of_header(header, header_bytes)));
}
