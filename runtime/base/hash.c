/* hash.c - BLAKE2b as fingerprint, content hash and proof.
 *
 * One-piece and piecewise hashing of the same bytes agree. Pairs use a personalisation of their
 * own, so that no pair has the hash of a plain string.
 *
 * Called by everything that names things by content: plans, programs, weights, refs. */
#include "runtime/base/hash.h"

#include <endian.h>
#include <sodium.h>
#include <stdlib.h>

_Static_assert(crypto_generichash_blake2b_BYTES_MIN <= sizeof(dj_hash_t), "hash size");

struct dj_hasher {
    crypto_generichash_blake2b_state state;
};

bool dj_hash_setup(void)
{
    return sodium_init() >= 0; /* also chooses the vector code, so hashing before it is slower */
}

static dj_hash_t hash_from(const uint8_t bytes[16])
{
    dj_hash_t hash;
    memcpy(&hash, bytes, sizeof hash);
    hash.word[0] = le64toh(hash.word[0]);
    hash.word[1] = le64toh(hash.word[1]);
    return hash;
}

dj_hash_t dj_hash_of(const void *data, size_t size)
{
    uint8_t bytes[16];
    crypto_generichash_blake2b(bytes, sizeof bytes, data, size, NULL, 0);
    return hash_from(bytes);
}

dj_hash_t dj_hash_pair(const void *a, size_t a_size, const void *b, size_t b_size)
{
    static const uint8_t person[crypto_generichash_blake2b_PERSONALBYTES] = "djinn pair";
    crypto_generichash_blake2b_state state;
    uint8_t bytes[16];
    uint64_t length = htole64(a_size);
    crypto_generichash_blake2b_init_salt_personal(&state, NULL, 0, sizeof bytes, NULL, person);
    crypto_generichash_blake2b_update(&state, (const uint8_t *)&length, sizeof length);
    crypto_generichash_blake2b_update(&state, a, a_size);
    crypto_generichash_blake2b_update(&state, b, b_size);
    crypto_generichash_blake2b_final(&state, bytes, sizeof bytes);
    return hash_from(bytes);
}

dj_hasher_t *dj_hasher_create(void)
{
    dj_hasher_t *hasher = aligned_alloc(64, (sizeof *hasher + 63) / 64 * 64);
    if (hasher)
        crypto_generichash_blake2b_init(&hasher->state, NULL, 0, sizeof(dj_hash_t));
    return hasher;
}

void dj_hasher_update(dj_hasher_t *hasher, const void *data, size_t size)
{
    crypto_generichash_blake2b_update(&hasher->state, data, size);
}

dj_hash_t dj_hasher_destroy(dj_hasher_t *hasher)
{
    uint8_t bytes[16];
    crypto_generichash_blake2b_final(&hasher->state, bytes, sizeof bytes);
    free(hasher);
    return hash_from(bytes);
}

void dj_proof_make(uint8_t proof[DJ_PROOF_BYTES], const uint8_t key[32], const void *data,
                   size_t size)
{
    crypto_generichash_blake2b(proof, DJ_PROOF_BYTES, data, size, key, 32);
}

bool dj_proof_equal(const uint8_t a[DJ_PROOF_BYTES], const uint8_t b[DJ_PROOF_BYTES])
{
    return sodium_memcmp(a, b, DJ_PROOF_BYTES) == 0; /* in constant time */
}

void dj_random_bytes(void *target, size_t size)
{
    randombytes_buf(target, size);
}

uint64_t dj_random_u64(void)
{
    uint64_t value;
    randombytes_buf(&value, sizeof value);
    return value;
}

void dj_hash_hex(dj_hash_t hash, char hex[33])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < 32; i++) {
        unsigned byte = (unsigned)(hash.word[i / 16] >> (8 * (i / 2 % 8))) & 0xff;
        hex[i] = digits[i % 2 ? byte & 15 : byte >> 4];
    }
    hex[32] = 0;
}
