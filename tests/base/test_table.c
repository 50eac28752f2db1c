/* test_table.c - the table against a plain array that holds the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/table.h"

#define KEYS 700

static char values[2][KEYS];

static void an_empty_table_answers(void **state)
{
    dj_table_t table = {0};
    size_t at = 0;
    assert_null(dj_table_get(&table, dj_key_u64(0)));
    assert_null(dj_table_remove(&table, dj_key_u64(0)));
    assert_null(dj_table_next(&table, &at, NULL));
    dj_table_fini(&table);
}

static void keys_differ_in_either_word(void **state)
{
    dj_table_t table = {0};
    assert_int_equal(dj_table_put(&table, (dj_hash_t){{1, 0}}, &values[0][0]), DJ_OK);
    assert_null(dj_table_get(&table, (dj_hash_t){{0, 1}}));
    assert_null(dj_table_get(&table, (dj_hash_t){{1, 1}}));
    assert_null(dj_table_remove(&table, (dj_hash_t){{0, 0}}));
    assert_ptr_equal(dj_table_get(&table, (dj_hash_t){{1, 0}}), &values[0][0]);
    dj_table_fini(&table);
}

static void a_put_replaces(void **state)
{
    dj_table_t table = {0};
    dj_table_put(&table, dj_key_u64(5), &values[0][0]);
    dj_table_put(&table, dj_key_u64(5), &values[1][0]);
    assert_int_equal(table.count, 1);
    assert_ptr_equal(dj_table_remove(&table, dj_key_u64(5)), &values[1][0]);
    assert_int_equal(table.count, 0);
    assert_null(dj_table_get(&table, dj_key_u64(5)));
    dj_table_fini(&table);
}

static void random_use_agrees_with_an_array(void **state)
{
    dj_table_t table = {0};
    char *model[KEYS] = {0};
    uint64_t random = 12345, live = 0;
    for (unsigned step = 0; step < 200000; step++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        unsigned key = (unsigned)(random >> 33) % KEYS, action = (unsigned)(random >> 20) % 3;
        /* First words 64 apart share their low bits and must still spread; some are equal. */
        dj_hash_t hash = {{(uint64_t)(key / 16) * 64, key % 16}};
        if (action == 0) {
            char *value = &values[step % 2][key];
            live += !model[key];
            assert_int_equal(dj_table_put(&table, hash, value), DJ_OK);
            model[key] = value;
        } else if (action == 1) {
            assert_ptr_equal(dj_table_remove(&table, hash), model[key]);
            live -= model[key] != NULL;
            model[key] = NULL;
        } else {
            assert_ptr_equal(dj_table_get(&table, hash), model[key]);
        }
        assert_int_equal(table.count, live);
    }
    dj_table_fini(&table);
}

static void removed_entries_do_not_make_it_grow(void **state)
{
    dj_table_t table = {0};
    for (uint64_t i = 0; i < 10000; i++) {
        assert_int_equal(dj_table_put(&table, dj_key_u64(i), values), DJ_OK);
        if (i >= 4)
            assert_ptr_equal(dj_table_remove(&table, dj_key_u64(i - 4)), values);
    }
    assert_int_equal(table.count, 4);
    assert_true(table.capacity <= 16);
    dj_table_fini(&table);
}

static void a_walk_sees_each_entry_once_and_may_remove_it(void **state)
{
    dj_table_t table = {0};
    bool seen[KEYS] = {0};
    for (unsigned i = 0; i < KEYS; i++)
        assert_int_equal(dj_table_put(&table, dj_key_u64(i), &values[0][i]), DJ_OK);
    size_t at = 0;
    dj_hash_t key;
    char *value;
    unsigned visited = 0;
    while ((value = dj_table_next(&table, &at, &key))) {
        assert_ptr_equal(value, &values[0][key.word[0]]);
        assert_false(seen[key.word[0]]);
        seen[key.word[0]] = true;
        visited++;
        if (key.word[0] % 3 == 0)
            assert_ptr_equal(dj_table_remove(&table, key), value);
    }
    assert_int_equal(visited, KEYS);
    for (unsigned i = 0; i < KEYS; i++)
        assert_ptr_equal(dj_table_get(&table, dj_key_u64(i)), i % 3 ? &values[0][i] : NULL);
    for (at = 0; dj_table_next(&table, &at, &key); visited--)
        assert_int_not_equal(key.word[0] % 3, 0);
    assert_int_equal(visited, (KEYS + 2) / 3);
    dj_table_fini(&table);
    assert_int_equal(table.capacity, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_table_answers),
        cmocka_unit_test(keys_differ_in_either_word),
        cmocka_unit_test(a_put_replaces),
        cmocka_unit_test(random_use_agrees_with_an_array),
        cmocka_unit_test(removed_entries_do_not_make_it_grow),
        cmocka_unit_test(a_walk_sees_each_entry_once_and_may_remove_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
