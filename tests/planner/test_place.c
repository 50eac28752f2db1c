/* Placements that lie first; then every pair of places looked at by code of its own, how near the
 * bound the quick mode comes, and that no input holds it up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "benchmarks/cuts.h"
#include "planner/place.h"

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* The rule of place.h, in other words: two places of one time lie apart, unless the later one lies
 * exactly on an earlier one of its size that died in the group both are walked in. */
static void assert_valid(const dj_place_t *places, uint32_t n, uint64_t base)
{
    for (uint32_t i = 0; i < n; i++) {
        const dj_place_t *a = &places[i];
        assert_true(a->offset % DJ_ALIGN_BYTES == 0 && a->offset >= base);
        for (uint32_t j = 0; j < n && a->bytes > 0; j++) {
            const dj_place_t *b = &places[j];
            bool apart = a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset;
            if (i == j || b->bytes == 0 || apart || a->last < b->from || b->last < a->from)
                continue;
            const dj_place_t *old = a->last < b->first ? a : b, *new = old == a ? b : a;
            assert_true(old->last < new->first && old->hands_over &&new->takes_over);
            assert_true(old->offset == new->offset && old->bytes == new->bytes);
        }
    }
    assert_int_equal(dj_places_check(places, n, base), DJ_OK);
}

static uint64_t assign(dj_place_t *places, uint32_t n, uint64_t base)
{
    uint64_t end = 0, highest = (base + 255) / 256 * 256;
    assert_int_equal(dj_places_assign(places, n, base, &end), DJ_OK);
    for (uint32_t i = 0; i < n; i++)
        if (places[i].bytes > 0 && places[i].offset + places[i].bytes > highest)
            highest = places[i].offset + places[i].bytes;
    if (n > 0)
        assert_int_equal(end, highest);
    return end;
}

static dj_place_t place(uint64_t offset, uint64_t bytes, uint32_t from, uint32_t first,
                        uint32_t last)
{
    return (dj_place_t){
        .bytes = bytes, .offset = offset, .from = from, .first = first, .last = last};
}

static void test_lies(void **state)
{
    dj_place_t honest[] = {place(0, 300, 0, 0, 4), place(512, 256, 2, 2, 5),
                           place(0, 300, 5, 5, 6)};
    dj_place_t lies[3];
    assert_int_equal(dj_places_check(honest, 3, 0), DJ_OK);
    assert_int_equal(dj_places_check(honest, 3, 1), DJ_ERR_CORRUPT); /* below the base */
    memcpy(lies, honest, sizeof lies);
    lies[1].offset = 256; /* the first ends at 300 */
    assert_int_equal(dj_places_check(lies, 3, 0), DJ_ERR_CORRUPT);
    lies[1].offset = 513;
    assert_int_equal(dj_places_check(lies, 3, 0), DJ_ERR_CORRUPT);
    memcpy(lies, honest, sizeof lies);
    lies[2].from = 4; /* its group began while the first was in use */
    assert_int_equal(dj_places_check(lies, 3, 0), DJ_ERR_CORRUPT);
    lies[0].hands_over = lies[2].takes_over = true;
    assert_int_equal(dj_places_check(lies, 3, 0), DJ_OK);
    lies[2].bytes = 256; /* not exactly the range */
    assert_int_equal(dj_places_check(lies, 3, 0), DJ_ERR_CORRUPT);
    (void)state;
}

static void test_corners(void **state)
{
    dj_place_t nothing[] = {place(7, 0, 0, 0, 3), place(7, 0, 1, 1, 2)};
    dj_place_t one[] = {place(7, 5, 0, 0, 0)};
    assign(NULL, 0, 0);
    assert_int_equal(assign(nothing, 2, 1000), 1024);
    assert_int_equal(nothing[0].offset, 1024);
    assert_int_equal(assign(one, 1, 1), 261);
    (void)state;
}

/* Groups of up to four steps, some of whose places are handed over. */
static void make_program(dj_place_t *places, uint32_t n, uint32_t lives, uint64_t seed)
{
    uint64_t random = seed * 77 + 1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t length = 1 + (uint32_t)next_random(&random) % 4;
        if (next_random(&random) % 16 == 0)
            length += (uint32_t)next_random(&random) % lives;
        places[i] = place(0, 1 + next_random(&random) % 8 * 500, i / 4 * 4, i, i + length);
        places[i].hands_over = next_random(&random) % 2 == 0;
        places[i].takes_over = next_random(&random) % 2 == 0;
    }
}

static void test_programs(void **state)
{
    static dj_place_t places[400], again[400];
    for (uint64_t seed = 0; seed < 150; seed++) {
        uint32_t n = 1 + (uint32_t)seed * 7 % 400;
        make_program(places, n, 1 + (uint32_t)seed % 90, seed);
        memcpy(again, places, sizeof again);
        assign(places, n, seed % 600);
        assert_valid(places, n, seed % 600);
        assign(again, n, seed % 600);
        assert_memory_equal(places, again, n * sizeof places[0]);
    }
    (void)state;
}

/* What a group hands over need not be there twice. */
static void test_hand_over_saves(void **state)
{
    dj_place_t chain[6];
    for (uint32_t i = 0; i < 6; i++) {
        chain[i] = place(0, 1 << 20, 0, i, i + 1);
        chain[i].hands_over = chain[i].takes_over = true;
    }
    assert_int_equal(assign(chain, 6, 0), 2 << 20);
    assert_valid(chain, 6, 0);
    (void)state;
}

/* Perfect packings: at most a tenth above in the mean. */
static void test_ratio(void **state)
{
    static dj_rect_t rects[450];
    static uint64_t offsets[450];
    static dj_place_t places[450];
    double sum = 0;
    uint32_t rounds = 0;
    for (uint32_t n = 100; n <= 450; n += 25, rounds++) {
        dj_cuts_t cuts = {.seed = n,
                          .times = n % 2 == 0 ? 1000 : 100,
                          .height = 10000,
                          .count = n,
                          .pinwheels = n % 3 * 10,
                          .by_area = n % 4 == 0};
        dj_cuts_make(&cuts, rects, offsets);
        for (uint32_t i = 0; i < n; i++)
            places[i] = place(0, rects[i].size * 256, (uint32_t)rects[i].lower,
                              (uint32_t)rects[i].lower, (uint32_t)rects[i].upper - 1);
        sum += (double)assign(places, n, 0) / (double)(cuts.height * 256);
        assert_valid(places, n, 0);
    }
    print_message("mean ratio %.4f of %u\n", sum / rounds, rounds);
    assert_true(sum / rounds <= 1.10);
    (void)state;
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A hundred thousand places, as programs have them and as an adversary would: half of them alive at
 * once, in sizes that fit nowhere. The limits are for sanitizers and busy machines. */
static void test_budget(void **state)
{
    enum { N = 100000 };
    dj_place_t *places = calloc(N, sizeof places[0]);
    uint64_t alive;
    assert_non_null(places);
    make_program(places, N, 400, 5);
    double began = cpu_seconds();
    uint64_t end = assign(places, N, 0);
    assert_int_equal(dj_places_check(places, N, 0), DJ_OK);
    assert_int_equal(dj_places_alive(places, N, 2 * N, 1, &alive), DJ_OK);
    assert_true(end >= alive && end < 2 * alive);
    for (uint32_t i = 0; i < N; i++)
        places[i] = place(0, 256 * (1 + i * 7919ull % 1000), i / 4, i / 4,
                          i * 7ull % 3 > 0 ? i / 4 + N / 8 : N);
    assign(places, N, 0);
    assert_true(cpu_seconds() - began < 5);
    assert_int_equal(dj_places_check(places, N, 0), DJ_OK);
    free(places);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies),     cmocka_unit_test(test_corners),
        cmocka_unit_test(test_programs), cmocka_unit_test(test_hand_over_saves),
        cmocka_unit_test(test_ratio),    cmocka_unit_test(test_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
