/* test_group.c - collectives among processes that live: every root, odd sizes, every byte. The tree
 * itself is arithmetic and tested as such. Losses: test_group_loss.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "comm/group_tree.h"
#include "group_node.h"

/* ---- the tree ---- */

static void check_tree(uint32_t n, uint32_t radix)
{
    uint32_t reached = 1, height = dj_tree_height(n, radix);
    for (uint32_t place = 0; place < n; ++place) {
        uint32_t span = 1, child = DJ_TREE_NONE;
        while ((child = dj_tree_next_child(n, radix, place, child)) != DJ_TREE_NONE) {
            assert_true(child > place && child < n);
            assert_int_equal(dj_tree_parent(radix, child), place);
            assert_int_equal(dj_tree_depth(radix, child), dj_tree_depth(radix, place) + 1);
            uint32_t below = dj_tree_span(n, radix, child);
            assert_true(child + below <= place + dj_tree_span(n, radix, place));
            span += below;
            ++reached;
        }
        assert_int_equal(span, dj_tree_span(n, radix, place));
        assert_true(dj_tree_depth(radix, place) <= height);
    }
    assert_int_equal(reached, n);
}

static void test_every_place_hangs_once(void **state)
{
    for (uint32_t n = 1; n < 70; ++n)
        for (uint32_t radix = 2; radix < 10; ++radix)
            check_tree(n, radix);
    check_tree(9, 4096);
    check_tree(4096, 2);
    check_tree(4096, UINT32_MAX);
}

/* ---- all roots, all sizes ---- */

static const uint64_t sizes[] = {0, 1, 4095, 32768, (1 << 20) + 3};
enum { N_SIZES = sizeof(sizes) / sizeof(sizes[0]), BIGGEST = (1 << 20) + 3 };

static void broadcast_all(member_t *member)
{
    node_t *node = member->node;
    uint8_t *data = malloc(BIGGEST + 1);
    for (int i = 0; i < N_SIZES; ++i) {
        for (int root = 0; root < node->count; ++root) {
            uint64_t round = dj_group_round(member->group) + 1;
            memset(data, 0, BIGGEST + 1);
            data[sizes[i]] = 0xa5;
            if (root == node->number)
                fill(data, sizes[i], round);
            CHECK(dj_group_broadcast(member->group, (uint32_t)root, data, sizes[i], in_ms(20000)) ==
                  DJ_OK);
            check_filled(data, sizes[i], round);
            CHECK(data[sizes[i]] == 0xa5);
        }
    }
    free(data);
}

static void gather_once(member_t *member, int root, uint64_t bytes)
{
    node_t *node = member->node;
    uint64_t total = bytes * (uint64_t)node->count;
    uint8_t *mine = malloc(bytes + 1), *all = NULL;
    fill(mine, bytes, (uint64_t)node->number);
    if (root == node->number) {
        all = malloc(total + 1);
        memset(all, 0xee, total + 1);
    }
    CHECK(dj_group_gather(member->group, (uint32_t)root, mine, bytes, all, in_ms(20000)) == DJ_OK);
    if (root == node->number) {
        for (int i = 0; i < node->count; ++i)
            check_filled(all + (uint64_t)i * bytes, bytes, (uint64_t)i);
        CHECK(all[total] == 0xee);
    }
    free(all);
    free(mine);
}

static void gather_all(member_t *member)
{
    static const uint64_t gathered[] = {0, 1, 4095, 32768, 100003};
    for (size_t i = 0; i < sizeof(gathered) / sizeof(gathered[0]); ++i)
        for (int root = 0; root < member->node->count; ++root)
            gather_once(member, root, gathered[i]);
}

static void run_all(node_t *node, uint32_t radix)
{
    member_t member = {0};
    dj_group_counters_t counters;
    member_open(&member, node, radix);
    broadcast_all(&member);
    for (int i = 0; i < 20; ++i)
        CHECK(dj_group_barrier(member.group, in_ms(20000)) == DJ_OK);
    gather_all(&member);
    dj_group_counters(member.group, &counters);
    CHECK(counters.refused == 0);
    member_close(&member);
}

static void main_runs_all(node_t *node)
{
    run_all(node, 0);
}

static void main_runs_all_flat(node_t *node)
{
    run_all(node, 4096);
}

static void main_runs_all_ternary(node_t *node)
{
    run_all(node, 3);
}

static void run_same(int count, node_main_t start, transport_t transport)
{
    node_main_t mains[NODES_MAX];
    int statuses[NODES_MAX];
    for (int i = 0; i < count; ++i)
        mains[i] = start;
    run_nodes(count, mains, transport, statuses);
    for (int i = 0; i < count; ++i)
        assert_int_equal(statuses[i], 0);
}

static void test_few_members(void **state)
{
    for (int count = 1; count <= 5; ++count)
        run_same(count, main_runs_all, TRANSPORT_SHM);
}

static void test_nine_members(void **state)
{
    run_same(9, main_runs_all, TRANSPORT_SHM);
}

static void test_other_trees(void **state)
{
    run_same(6, main_runs_all_flat, TRANSPORT_SHM);
    run_same(7, main_runs_all_ternary, TRANSPORT_SHM);
}

static void test_tcp(void **state)
{
    run_same(5, main_runs_all, TRANSPORT_LOOPBACK);
}

/* ---- a barrier holds ---- */

/* Each member raises its counter before a barrier; nobody may see one that is behind afterwards. */
static void main_counts(node_t *node)
{
    member_t member = {0};
    member_open(&member, node, 0);
    uint32_t *counts = node->shared;
    for (uint32_t i = 1; i <= 50; ++i) {
        if (i % 10 == (uint32_t)node->number)
            usleep(2000);
        __atomic_store_n(&counts[node->number], i, __ATOMIC_SEQ_CST);
        CHECK(dj_group_barrier(member.group, in_ms(20000)) == DJ_OK);
        for (int j = 0; j < node->count; ++j)
            CHECK(__atomic_load_n(&counts[j], __ATOMIC_SEQ_CST) >= i);
    }
    member_close(&member);
}

static void test_barrier_holds(void **state)
{
    run_same(7, main_counts, TRANSPORT_SHM);
}

/* ---- many ---- */

static void main_is_one_of_many(node_t *node)
{
    member_t member = {0};
    member_open(&member, node, 0);
    uint8_t *data = malloc(BIGGEST);
    for (int i = 0; i < N_SIZES; ++i) {
        uint64_t round = dj_group_round(member.group) + 1;
        uint32_t root = (uint32_t)(5 * i + 3) % (uint32_t)node->count;
        memset(data, 0, BIGGEST);
        if (root == (uint32_t)node->number)
            fill(data, sizes[i], round);
        CHECK(dj_group_broadcast(member.group, root, data, sizes[i], in_ms(20000)) == DJ_OK);
        check_filled(data, sizes[i], round);
        gather_once(&member, (int)root, 1000);
    }
    free(data);
    member_close(&member);
}

static void test_many_members(void **state)
{
    run_same(17, main_is_one_of_many, TRANSPORT_SHM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_place_hangs_once),
        cmocka_unit_test(test_few_members),
        cmocka_unit_test(test_nine_members),
        cmocka_unit_test(test_other_trees),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_barrier_holds),
        cmocka_unit_test(test_many_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
