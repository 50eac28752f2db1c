/* Bad input first; then answers against an exhaustive search of small inputs, and every placement
 * looked at pair by pair, by code that shares nothing with the search. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/cuts.h"
#include "planner/pack.h"
#include "runtime/base/clock.h"

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static void assert_valid(const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                         const uint64_t *offsets)
{
    for (uint32_t i = 0; i < n; i++) {
        assert_true(offsets[i] <= capacity && rects[i].size <= capacity - offsets[i]);
        for (uint32_t j = 0; j < i; j++) {
            bool times = rects[i].lower < rects[j].upper && rects[j].lower < rects[i].upper;
            bool bytes =
                offsets[i] < offsets[j] + rects[j].size && offsets[j] < offsets[i] + rects[i].size;
            bool nothing = rects[i].lower == rects[i].upper || rects[j].lower == rects[j].upper;
            assert_false(times && bytes && !nothing);
        }
    }
    assert_int_equal(dj_pack_check(rects, n, capacity, offsets), DJ_OK);
}

static dj_pack_end_t solve(const dj_rect_t *rects, uint32_t n, uint64_t capacity, uint64_t nodes)
{
    dj_pack_limits_t limits = {.nodes = nodes, .seed = 1};
    dj_pack_result_t result = {0};
    uint64_t *offsets = calloc(n + 1, sizeof offsets[0]);
    assert_non_null(offsets);
    assert_int_equal(dj_pack_solve(rects, n, capacity, &limits, offsets, &result), DJ_OK);
    if (result.end == DJ_PACK_FOUND)
        assert_valid(rects, n, capacity, offsets);
    free(offsets);
    return result.end;
}

static void test_bad_input(void **state)
{
    dj_rect_t backwards = {.lower = 5, .upper = 4, .size = 1}, good = {.upper = 1, .size = 1};
    dj_pack_limits_t limits = {0};
    dj_pack_result_t result;
    uint64_t offset = 77;
    assert_int_equal(dj_pack_solve(&backwards, 1, 10, &limits, &offset, &result), DJ_ERR_INVALID);
    assert_int_equal(dj_pack_solve(&good, 1, DJ_PACK_SIZE_MAX + 1, &limits, &offset, &result),
                     DJ_ERR_LIMIT);
    assert_int_equal(dj_pack_solve(&good, DJ_PACK_RECTS_MAX + 1, 10, &limits, &offset, &result),
                     DJ_ERR_LIMIT);
    assert_int_equal(offset, 77);
    (void)state;
}

static void test_lying_placements(void **state)
{
    dj_rect_t rects[] = {{0, 10, 8}, {5, 15, 8}, {10, 12, 4}};
    uint64_t good[] = {0, 8, 0}, shared[] = {0, 7, 16}, high[] = {0, 9, 0}, same[] = {0, 8, 8};
    uint64_t far[] = {0, UINT64_MAX - 4, 0};
    assert_int_equal(dj_pack_check(rects, 3, 16, good), DJ_OK);
    assert_int_equal(dj_pack_check(rects, 3, 20, shared), DJ_ERR_CORRUPT);
    assert_int_equal(dj_pack_check(rects, 3, 16, high), DJ_ERR_CORRUPT);
    assert_int_equal(dj_pack_check(rects, 3, 16, same), DJ_ERR_CORRUPT);
    assert_int_equal(dj_pack_check(rects, 3, 16, far), DJ_ERR_CORRUPT);
    (void)state;
}

static void test_corners(void **state)
{
    dj_rect_t nothing[] = {{3, 3, 1000}, {0, 9, 0}, {UINT64_MAX, UINT64_MAX, 5}};
    dj_rect_t whole[] = {{0, UINT64_MAX, DJ_PACK_SIZE_MAX}, {UINT64_MAX, UINT64_MAX, 1}};
    dj_rect_t heavy[] = {{0, 1, UINT64_MAX}, {0, 1, UINT64_MAX}};
    dj_rect_t one[] = {{0, 9, 8}};
    assert_int_equal(solve(NULL, 0, 0, 0), DJ_PACK_FOUND);
    assert_int_equal(solve(one, 1, 7, 0), DJ_PACK_NONE);
    assert_int_equal(solve(one, 1, 8, 0), DJ_PACK_FOUND);
    assert_int_equal(solve(heavy, 2, DJ_PACK_SIZE_MAX, 0), DJ_PACK_NONE);
    assert_int_equal(solve(whole, 2, DJ_PACK_SIZE_MAX, 0), DJ_PACK_FOUND);
    /* what takes nothing is placed at 0, even when it is larger than everything */
    dj_pack_limits_t limits = {0};
    dj_pack_result_t result;
    uint64_t offsets[3] = {7, 7, 7};
    assert_int_equal(dj_pack_solve(nothing, 3, 1000, &limits, offsets, &result), DJ_OK);
    assert_int_equal(result.end, DJ_PACK_FOUND);
    assert_true(offsets[0] == 0 && offsets[1] == 0 && offsets[2] == 0);
    (void)state;
}

/* The lowest end of all orders in which each goes to the lowest place that is free: some order is
 * that of an optimal placement by offset. */
static uint64_t least_end(const dj_rect_t *rects, uint32_t n, uint32_t *order, uint32_t turn,
                          uint64_t *offsets)
{
    uint64_t least = UINT64_MAX;
    if (turn == n) {
        least = 0;
        for (uint32_t i = 0; i < n; i++)
            if (offsets[i] + rects[i].size > least)
                least = offsets[i] + rects[i].size;
        return least;
    }
    for (uint32_t i = turn; i < n; i++) {
        uint32_t number = order[i];
        uint64_t offset = 0;
        order[i] = order[turn];
        order[turn] = number;
        for (uint32_t again = 0; again <= turn; again++)
            for (uint32_t j = 0; j < turn; j++) {
                const dj_rect_t *other = &rects[order[j]];
                if (rects[number].lower < other->upper && other->lower < rects[number].upper &&
                    offset < offsets[order[j]] + other->size &&
                    offsets[order[j]] < offset + rects[number].size)
                    offset = offsets[order[j]] + other->size;
            }
        offsets[number] = offset;
        uint64_t end = least_end(rects, n, order, turn + 1, offsets);
        least = end < least ? end : least;
        order[turn] = order[i];
        order[i] = number;
    }
    return least;
}

static uint64_t most_alive(const dj_rect_t *rects, uint32_t n)
{
    uint64_t most = 0;
    for (uint64_t time = 0; time < 16; time++) {
        uint64_t alive = 0;
        for (uint32_t i = 0; i < n; i++)
            alive += rects[i].lower <= time && time < rects[i].upper ? rects[i].size : 0;
        most = alive > most ? alive : most;
    }
    return most;
}

/* Two pieces give way, one after the other, to a, b and to c, d; then a and c together to one, b
 * and d to one. Unless sizes are equal by chance, a and c must be neighbours, and b and d too,
 * which the halves forbid: full at all times, and without an answer. */
static uint32_t make_crossing(dj_rect_t *rects, uint64_t *random)
{
    uint64_t size[4];
    for (uint32_t i = 0; i < 4; i++)
        size[i] = 1 + next_random(random) % 9;
    const dj_rect_t pieces[] = {{0, 1, size[0] + size[1]}, {0, 2, size[2] + size[3]},
                                {1, 3, size[0]},           {1, 4, size[1]},
                                {2, 3, size[2]},           {2, 4, size[3]},
                                {3, 5, size[0] + size[2]}, {4, 5, size[1] + size[3]}};
    memcpy(rects, pieces, sizeof pieces);
    return 8;
}

static uint32_t make_random(dj_rect_t *rects, uint32_t n, uint64_t *random)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t lower = next_random(random) % 6;
        rects[i] =
            (dj_rect_t){lower, lower + 1 + next_random(random) % 4, 1 + next_random(random) % 5};
    }
    return n;
}

static void test_against_all_orders(void **state)
{
    uint64_t random = 3;
    uint32_t above = 0, far_above = 0;
    for (uint32_t round = 0; round < 400; round++) {
        dj_rect_t rects[8];
        uint32_t order[8] = {0, 1, 2, 3, 4, 5, 6, 7};
        uint64_t offsets[8];
        uint32_t n = round % 4 == 0 ? make_crossing(rects, &random)
                                    : make_random(rects, 3 + round % 5, &random);
        uint64_t bound = most_alive(rects, n);
        uint64_t least = least_end(rects, n, order, 0, offsets);
        above += least > bound;
        far_above += least > bound + 1;
        assert_int_equal(solve(rects, n, least, 0), DJ_PACK_FOUND);
        assert_int_equal(solve(rects, n, least + 1, 0), DJ_PACK_FOUND);
        assert_int_equal(solve(rects, n, least - 1, 0), DJ_PACK_NONE);
        assert_int_equal(solve(rects, n, bound, 0), least > bound ? DJ_PACK_NONE : DJ_PACK_FOUND);
    }
    assert_true(above > 20 && far_above > 3);
    (void)state;
}

static void test_perfect(void **state)
{
    static const uint32_t counts[] = {10, 60, 100, 200, 450};
    for (uint32_t i = 0; i < 15; i++) {
        dj_cuts_t cuts = {.seed = i + 1,
                          .times = 1000,
                          .height = 1 << 20,
                          .count = counts[i % 5],
                          .pinwheels = i / 5 * 10,
                          .by_area = true};
        dj_rect_t *rects = calloc(cuts.count, sizeof rects[0]);
        uint64_t *offsets = calloc(cuts.count, sizeof offsets[0]);
        assert_true(rects != NULL && offsets != NULL);
        dj_cuts_make(&cuts, rects, offsets);
        assert_valid(rects, cuts.count, cuts.height, offsets);
        assert_int_equal(solve(rects, cuts.count, cuts.height, 1 << 20), DJ_PACK_FOUND);
        assert_int_equal(solve(rects, cuts.count, cuts.height - 1, 1 << 20), DJ_PACK_NONE);
        free(rects);
        free(offsets);
    }
    (void)state;
}

/* With room to spare the other search answers. */
static void test_slack(void **state)
{
    for (uint64_t seed = 1; seed < 6; seed++) {
        dj_cuts_t cuts = {.seed = seed, .times = 500, .height = 10000, .count = 60, .by_area = 1};
        dj_rect_t rects[60];
        uint64_t offsets[60];
        dj_cuts_make(&cuts, rects, offsets);
        assert_int_equal(solve(rects, 60, cuts.height * 5 / 4, 1 << 20), DJ_PACK_FOUND);
    }
    (void)state;
}

/* Many alike sizes in few columns: nothing tells a search where to go. */
static void make_hard(dj_rect_t *rects, uint32_t n)
{
    dj_cuts_t cuts = {.seed = 9, .times = 12, .height = 997, .count = n, .pinwheels = 30};
    uint64_t *offsets = calloc(n, sizeof offsets[0]);
    assert_non_null(offsets);
    dj_cuts_make(&cuts, rects, offsets);
    free(offsets);
}

static void test_limits(void **state)
{
    enum { N = 400 };
    static dj_rect_t rects[N];
    static uint64_t offsets[N];
    atomic_bool cancel = true;
    dj_pack_limits_t nodes = {.nodes = 20000, .seed = 1}, late = {.seed = 1}, off = {.seed = 1};
    dj_pack_result_t first, second;
    make_hard(rects, N);
    uint64_t began = dj_clock_ns();
    assert_int_equal(dj_pack_solve(rects, N, 997, &nodes, offsets, &first), DJ_OK);
    assert_int_equal(dj_pack_solve(rects, N, 997, &nodes, offsets, &second), DJ_OK);
    assert_int_equal(first.end, DJ_PACK_ENDED);
    assert_true(first.end == second.end && first.nodes == second.nodes);
    off.cancel = &cancel;
    assert_int_equal(dj_pack_solve(rects, N, 997, &off, offsets, &first), DJ_OK);
    assert_int_equal(first.end, DJ_PACK_ENDED);
    late.deadline_ns = dj_clock_ns() + 200 * DJ_NS_PER_MS;
    assert_int_equal(dj_pack_solve(rects, N, 998, &late, offsets, &first), DJ_OK);
    assert_true(dj_clock_ns() - began < 60 * DJ_NS_PER_S);
    (void)state;
}

/* The same limits give the same placement. */
static void test_same_answer(void **state)
{
    dj_cuts_t cuts = {.seed = 4, .times = 300, .height = 5000, .count = 150, .by_area = true};
    dj_rect_t rects[150];
    uint64_t offsets[2][150];
    dj_cuts_make(&cuts, rects, offsets[0]);
    for (uint32_t i = 0; i < 2; i++) {
        dj_pack_limits_t limits = {.nodes = 1 << 20, .seed = 5};
        dj_pack_result_t result;
        assert_int_equal(dj_pack_solve(rects, 150, 5000, &limits, offsets[i], &result), DJ_OK);
        assert_int_equal(result.end, DJ_PACK_FOUND);
    }
    assert_memory_equal(offsets[0], offsets[1], sizeof offsets[0]);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_input), cmocka_unit_test(test_lying_placements),
        cmocka_unit_test(test_corners),   cmocka_unit_test(test_against_all_orders),
        cmocka_unit_test(test_perfect),   cmocka_unit_test(test_slack),
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_same_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
