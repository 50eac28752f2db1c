/* test_hash.c - one hash for one content, however it arrives; proofs; random bytes.
 *
 * The expected digest is BLAKE2b-128 as other implementations print it (`b2sum -l 128`). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/hash.h"

static void any_changed_bit_changes_the_hash(void **state)
{
    uint8_t data[300] = {0};
    const dj_hash_t hash = dj_hash_of(data, sizeof data);
    for (unsigned bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(dj_hash_equal(hash, dj_hash_of(data, sizeof data)));
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_false(dj_hash_equal(hash, dj_hash_of(data, sizeof data - 1)));
    assert_true(dj_hash_equal(hash, dj_hash_of(data, sizeof data)));
}

static void pairs_do_not_collide_by_shifting_the_cut(void **state)
{
    static const char text[] = "abcdef";
    dj_hash_t seen[8];
    for (unsigned cut = 0; cut <= 6; cut++) {
        seen[cut] = dj_hash_pair(text, cut, text + cut, 6 - cut);
        assert_false(dj_hash_equal(seen[cut], dj_hash_of(text, 6)));
        for (unsigned i = 0; i < cut; i++)
            assert_false(dj_hash_equal(seen[i], seen[cut]));
    }
    assert_true(dj_hash_equal(seen[2], dj_hash_pair("ab", 2, "cdef", 4)));
    /* Nor is a pair the hash of its own encoding as one string. */
    const uint8_t spelled[10] = {1, 0, 0, 0, 0, 0, 0, 0, 'a', 'b'};
    assert_false(dj_hash_equal(dj_hash_pair("a", 1, "b", 1), dj_hash_of(spelled, sizeof spelled)));
}

static void a_proof_needs_its_key_and_data(void **state)
{
    uint8_t key[32] = {1}, other[32] = {2}, proof[DJ_PROOF_BYTES], wrong[DJ_PROOF_BYTES];
    dj_proof_make(proof, key, "hello", 5);
    dj_proof_make(wrong, other, "hello", 5);
    assert_false(dj_proof_equal(proof, wrong));
    dj_proof_make(wrong, key, "hellp", 5);
    assert_false(dj_proof_equal(proof, wrong));
    dj_proof_make(wrong, key, "hello", 5);
    assert_true(dj_proof_equal(proof, wrong));
    wrong[DJ_PROOF_BYTES - 1] ^= 1;
    assert_false(dj_proof_equal(proof, wrong));
}

static void the_digest_is_the_published_one(void **state)
{
    char hex[33];
    dj_hash_hex(dj_hash_of("abc", 3), hex);
    assert_string_equal(hex, "cf4ab791c62b8d2b2109c90275287816");
    dj_hash_hex(dj_hash_of(NULL, 0), hex);
    assert_string_equal(hex, "cae66941d9efbd404e4d88758ea67670");
}

static void pieces_hash_as_the_whole(void **state)
{
    uint8_t data[1000];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t piece = 1; piece < 400; piece += 37) {
        dj_hasher_t *hasher = dj_hasher_create();
        assert_non_null(hasher);
        for (size_t at = 0; at < sizeof data; at += piece)
            dj_hasher_update(hasher, data + at,
                             sizeof data - at < piece ? sizeof data - at : piece);
        assert_true(dj_hash_equal(dj_hasher_destroy(hasher), dj_hash_of(data, sizeof data)));
    }
}

static void random_numbers_differ(void **state)
{
    uint64_t seen[64];
    uint8_t bytes[256] = {0}, zeros[256] = {0};
    for (unsigned i = 0; i < 64; i++) {
        seen[i] = dj_random_u64();
        for (unsigned j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    }
    dj_random_bytes(bytes, sizeof bytes);
    assert_memory_not_equal(bytes, zeros, sizeof bytes);
}

static int set_up(void **state)
{
    return dj_hash_setup() && dj_hash_setup() ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_changed_bit_changes_the_hash),
        cmocka_unit_test(pairs_do_not_collide_by_shifting_the_cut),
        cmocka_unit_test(a_proof_needs_its_key_and_data),
        cmocka_unit_test(the_digest_is_the_published_one),
        cmocka_unit_test(pieces_hash_as_the_whole),
        cmocka_unit_test(random_numbers_differ),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
