/* hash.h - 128-bit content and structure hashes, keyed proofs, random bytes.
 *
 * BLAKE2b from libsodium: a kept, reviewed library with the one primitive that fingerprints,
 * content hashes and the hello proof all need.
 *
 * Threads: pure, except that dj_hash_setup() must run once before anything else here. */
#ifndef DJ_BASE_HASH_H
#define DJ_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct dj_hash {
    uint64_t word[2];
} dj_hash_t;

#define DJ_PROOF_BYTES 32

/* Idempotent; false when the system has no entropy source. */
bool dj_hash_setup(void);
dj_hash_t dj_hash_of(const void *data, size_t size);
/* Hash over two pieces, length-prefixed so that no two pairs collide by shifting the cut. */
dj_hash_t dj_hash_pair(const void *a, size_t a_size, const void *b, size_t b_size);

/* For content that does not arrive in one piece. */
typedef struct dj_hasher dj_hasher_t;
dj_hasher_t *dj_hasher_create(void);
void dj_hasher_update(dj_hasher_t *hasher, const void *data, size_t size);
dj_hash_t dj_hasher_destroy(dj_hasher_t *hasher); /* returns the hash and frees */

/* Keyed 32-byte proof over `data`; keys are 32 bytes. */
void dj_proof_make(uint8_t proof[DJ_PROOF_BYTES], const uint8_t key[32], const void *data,
                   size_t size);
bool dj_proof_equal(const uint8_t a[DJ_PROOF_BYTES], const uint8_t b[DJ_PROOF_BYTES]);
void dj_random_bytes(void *target, size_t size);
uint64_t dj_random_u64(void);

static inline bool dj_hash_equal(dj_hash_t a, dj_hash_t b)
{
    return a.word[0] == b.word[0] && a.word[1] == b.word[1];
}

/* 32 hexadecimal digits and a terminator. */
void dj_hash_hex(dj_hash_t hash, char hex[33]);

#endif
