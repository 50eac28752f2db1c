/* Reductions against all permutations of six pieces: which sets can lie together at once, how many
 * orders are left, and what heirs do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "planner/pack_tree.h"

enum { PIECES = 6, ORDERS = 720, ROOM = 64, HEIR = PIECES };

typedef struct fixture {
    uint8_t orders[ORDERS][PIECES];
    bool alive[ORDERS]; /* every set so far lies together in it */
    dj_tree_node_t nodes[2][ROOM];
    dj_tree_t tree, other;
    uint32_t numbers[6][ROOM];
    dj_tree_work_t work;
} fixture_t;

static void fill_orders(fixture_t *f)
{
    uint8_t now[PIECES] = {0, 1, 2, 3, 4, 5};
    for (uint32_t i = 0; i < ORDERS; i++) {
        memcpy(f->orders[i], now, PIECES);
        f->alive[i] = true;
        int at = PIECES - 2, with = PIECES - 1;
        while (at >= 0 && now[at] > now[at + 1])
            at--;
        if (at < 0)
            break;
        while (now[with] < now[at])
            with--;
        uint8_t piece = now[at];
        now[at] = now[with];
        now[with] = piece;
        for (int low = at + 1, high = PIECES - 1; low < high; low++, high--) {
            piece = now[low];
            now[low] = now[high];
            now[high] = piece;
        }
    }
}

static void init(fixture_t *f)
{
    static const uint32_t pieces[PIECES] = {0, 1, 2, 3, 4, 5};
    memset(f, 0, sizeof *f);
    fill_orders(f);
    f->tree.nodes = f->nodes[0];
    f->other.nodes = f->nodes[1];
    f->work = (dj_tree_work_t){.full = f->numbers[0],
                               .leaves = f->numbers[1],
                               .path = f->numbers[2],
                               .empty_list = f->numbers[3],
                               .full_list = f->numbers[4],
                               .list = f->numbers[5]};
    dj_tree_any(&f->tree, pieces, PIECES);
}

static bool lies_together(const uint8_t *order, uint32_t set)
{
    int first = -1, last = -1;
    for (int i = 0; i < PIECES; i++)
        if ((set >> order[i] & 1) != 0) {
            first = first < 0 ? i : first;
            last = i;
        }
    return last - first + 1 == __builtin_popcount(set);
}

static double factorial(uint32_t n)
{
    return n < 2 ? 1 : n * factorial(n - 1);
}

/* Orders a tree allows: the product over its nodes. Spans are checked on the way. */
static double count_orders(const dj_tree_t *tree)
{
    double orders = 1;
    for (uint32_t i = 0; i < tree->n; i++) {
        uint32_t children = 0, end = i + tree->nodes[i].span;
        assert_true(end <= tree->n);
        if (tree->nodes[i].piece >= 0)
            continue;
        for (uint32_t c = i + 1; c < end; c += tree->nodes[c].span)
            children++;
        assert_true(children >= 2);
        orders *= tree->nodes[i].piece == DJ_TREE_P ? factorial(children) : 2;
    }
    return orders;
}

static void set_marks(bool *marks, uint32_t set)
{
    for (uint32_t i = 0; i <= PIECES; i++)
        marks[i] = (set >> i & 1) != 0;
}

static void narrow_once(fixture_t *f, uint32_t set, bool *fits_p)
{
    bool marks[PIECES + 1];
    uint32_t n_marked = (uint32_t)__builtin_popcount(set), before = 0, after = 0;
    set_marks(marks, set);
    for (uint32_t i = 0; i < ORDERS; i++) {
        before += f->alive[i];
        f->alive[i] = f->alive[i] && lies_together(f->orders[i], set);
        after += f->alive[i];
    }
    assert_int_equal(dj_tree_together(&f->tree, marks, n_marked, &f->work), before == after);
    *fits_p = dj_tree_reduce(&f->tree, marks, n_marked, NULL, 0, &f->other, &f->work);
    assert_int_equal(*fits_p, after > 0);
    if (!*fits_p)
        return;
    assert_true(count_orders(&f->other) == after);
    dj_tree_t tree = f->tree;
    f->tree = f->other;
    f->other = tree;
}

static void test_narrowing(void **state)
{
    uint64_t random = 1;
    fixture_t *f = malloc(sizeof *f);
    assert_non_null(f);
    uint32_t refused = 0, deep = 0;
    for (uint32_t round = 0; round < 3000; round++) {
        bool fits = true;
        init(f);
        for (uint32_t turn = 0; turn < 6 && fits; turn++) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            uint32_t set = 1 + (uint32_t)(random >> 33) % 63;
            narrow_once(f, set, &fits);
            deep += fits && turn == 5;
        }
        refused += !fits;
    }
    assert_true(refused > 100 && deep > 100);
    free(f);
    (void)state;
}

/* Where the marked pieces stood stands the heir: the orders of the others stay what they were. */
static void test_heirs(void **state)
{
    uint64_t random = 7;
    fixture_t *f = malloc(sizeof *f);
    assert_non_null(f);
    for (uint32_t round = 0; round < 1000; round++) {
        bool fits = true, marks[PIECES + 1];
        static const uint32_t heir[] = {HEIR};
        uint32_t set = 0, turns = 1 + round % 4;
        init(f);
        for (uint32_t turn = 0; turn < turns && fits; turn++) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            set = 1 + (uint32_t)(random >> 33) % 62;
            if (turn + 1 < turns)
                narrow_once(f, set, &fits);
        }
        if (!fits)
            continue;
        set_marks(marks, set);
        dj_tree_t old = f->tree;
        fits = dj_tree_reduce(&old, marks, (uint32_t)__builtin_popcount(set), NULL, 0, &f->other,
                              &f->work);
        if (!fits)
            continue;
        double inside = 1, all = count_orders(&f->other);
        assert_true(dj_tree_reduce(&old, marks, (uint32_t)__builtin_popcount(set), heir, 1,
                                   &f->other, &f->work));
        double left = count_orders(&f->other);
        inside = all / left;
        assert_true(inside >= 0.5 && left >= 1);
        uint32_t heirs = 0, others = 0;
        for (uint32_t i = 0; i < f->other.n; i++) {
            heirs += f->other.nodes[i].piece == HEIR;
            others += f->other.nodes[i].piece >= 0 && f->other.nodes[i].piece != HEIR;
        }
        assert_int_equal(heirs, 1);
        assert_int_equal(others, PIECES - __builtin_popcount(set));
    }
    free(f);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_narrowing),
                                       cmocka_unit_test(test_heirs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
