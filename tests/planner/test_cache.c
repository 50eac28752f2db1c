/* A program under a known key that is another one, first; then counting, eviction, publishing, threads. */
#include <pthread.h>

#include "tests/planner/builder.h"

static atomic_uint n_freed;

static void free_executable(void *executable)
{
    atomic_fetch_add(&n_freed, 1);
    free(executable);
}

static dj_status_t cache_of(uint32_t limit, void (*free_one)(void *executable), dj_cache_t **cache_p)
{
    dj_cache_options_t options = {.limit = limit, .free_executable = free_one, .hot_hits = 10};
    return dj_cache_create(&options, cache_p);
}

/* exp of `size` elements; the graph, plan and bytes of an entry to be. */
typedef struct parts {
    dj_program_t program;
    dj_graph_t *graph;
    dj_plan_t *plan;
} parts_t;

static void parts_make(parts_t *parts, int size)
{
    dj_plan_needs_t needs = {0};
    *parts = (parts_t){0};
    dj_program_reset(&parts->program);
    dj_operand_t x = input_of(&parts->program, DJ_CLASS_STATE, shape(DJ_F32, 1, size));
    dj_operand_t y = add_unary(&parts->program, "exp", x);
    finish(&parts->program, &y.storage, 1);
    assert_ok(decode(&parts->program, &parts->graph));
    assert_ok(dj_plan_make(parts->graph, &needs, &parts->plan));
}

static dj_status_t insert(dj_cache_t *cache, parts_t *parts, bool resized, bool adopted,
                          dj_cache_entry_t **entry_p)
{
    return dj_cache_insert(cache, parts->graph, parts->plan, malloc(8),
                           parts->program.structure.data, parts->program.structure.size,
                           parts->program.sizes.data, parts->program.sizes.size, resized, adopted,
                           entry_p);
}

static void refuses_another_program_under_a_key(void **state)
{
    dj_cache_t *cache;
    dj_cache_entry_t *entry, *none = NULL;
    parts_t parts, twin;
    assert_ok(cache_of(4, free_executable, &cache));
    parts_make(&parts, 16);
    parts_make(&twin, 16);
    assert_ok(insert(cache, &parts, false, false, &entry));
    assert_ok(dj_cache_compare(entry, parts.program.structure.data, parts.program.structure.size,
                               parts.program.sizes.data, parts.program.sizes.size));
    parts.program.sizes.data[0] ^= 1; /* a collision: same key, other bytes */
    assert_int_equal(dj_cache_compare(entry, parts.program.structure.data,
                                      parts.program.structure.size, parts.program.sizes.data,
                                      parts.program.sizes.size), DJ_ERR_CORRUPT);
    assert_int_equal(dj_cache_compare(entry, parts.program.structure.data,
                                      parts.program.structure.size - 1, entry->sizes,
                                      entry->sizes_size), DJ_ERR_CORRUPT);
    twin.program.structure.data[5] ^= 1;
    atomic_store(&n_freed, 0);
    assert_int_equal(insert(cache, &twin, false, false, &none), DJ_ERR_CORRUPT);
    assert_null(none);
    assert_int_equal(atomic_load(&n_freed), 1); /* what it was handed is gone */
    dj_cache_release(cache, entry);
    dj_cache_destroy(cache);
    dj_program_fini(&parts.program);
    dj_program_fini(&twin.program);
}

static void finds_and_counts(void **state)
{
    dj_cache_t *cache;
    dj_cache_entry_t *a, *b, *found;
    dj_cache_counters_t counters;
    dj_bytes_t bytes = {0};
    parts_t small, large, twin;
    assert_ok(cache_of(4, free_executable, &cache));
    parts_make(&small, 16);
    parts_make(&large, 32);
    parts_make(&twin, 16);
    dj_hash_t exact_key = small.graph->exact_key, program_key = small.graph->program_key;
    assert_null(dj_cache_find(cache, exact_key));
    assert_int_equal(dj_cache_structure(cache, program_key, &bytes), DJ_ERR_NO_PLAN);
    assert_ok(insert(cache, &small, false, false, &a));
    assert_ok(dj_cache_structure(cache, program_key, &bytes));
    assert_int_equal(bytes.size, small.program.structure.size);
    assert_memory_equal(bytes.data, small.program.structure.data, bytes.size);
    assert_ok(insert(cache, &large, true, false, &b));
    assert_ptr_not_equal(a, b);
    atomic_store(&n_freed, 0);
    assert_ok(insert(cache, &twin, false, true, &found)); /* came in meanwhile: the older one stays */
    assert_ptr_equal(found, a);
    assert_int_equal(atomic_load(&n_freed), 1);
    dj_cache_release(cache, found);
    found = dj_cache_find(cache, exact_key);
    assert_ptr_equal(found, a);
    dj_cache_counters(cache, &counters);
    assert_int_equal(counters.hits, 1);
    assert_int_equal(counters.misses, 1);
    assert_int_equal(counters.resizes, 1);
    assert_int_equal(counters.adopted, 1);
    dj_cache_release(cache, found);
    dj_cache_release(cache, a);
    dj_cache_release(cache, b);
    dj_cache_destroy(cache);
    dj_bytes_fini(&bytes);
    dj_program_fini(&small.program);
    dj_program_fini(&large.program);
    dj_program_fini(&twin.program);
}

static void evicts_the_oldest_that_nobody_holds(void **state)
{
    enum { N = 8, LIMIT = 3 };
    dj_cache_t *cache;
    dj_cache_entry_t *entries[N], *held;
    dj_cache_counters_t counters;
    dj_hash_t keys[N];
    assert_ok(cache_of(LIMIT, free_executable, &cache));
    atomic_store(&n_freed, 0);
    for (int i = 0; i < N; i++) {
        parts_t parts;
        parts_make(&parts, 16 + i);
        keys[i] = parts.graph->exact_key;
        assert_ok(insert(cache, &parts, i > 0, false, &entries[i]));
        dj_program_fini(&parts.program);
    }
    assert_int_equal(atomic_load(&n_freed), 0); /* all are held, so none may go */
    for (int i = 1; i < N; i++)
        dj_cache_release(cache, entries[i]);
    dj_cache_counters(cache, &counters);
    assert_int_equal(counters.evicted, N - LIMIT);
    assert_int_equal(atomic_load(&n_freed), N - LIMIT);
    held = dj_cache_find(cache, keys[0]); /* the oldest of all, but held */
    assert_ptr_equal(held, entries[0]);
    assert_null(dj_cache_find(cache, keys[1]));
    dj_cache_release(cache, held);
    dj_cache_release(cache, entries[0]);
    dj_cache_destroy(cache);
    assert_int_equal(atomic_load(&n_freed), N);
}

static uint64_t says_a_mebibyte(const void *executable)
{
    return 1 << 20;
}

static void evicts_by_bytes(void **state)
{
    enum { N = 6 };
    dj_cache_t *cache;
    dj_cache_entry_t *entry;
    dj_cache_counters_t counters;
    dj_hash_t keys[N];
    dj_cache_options_t options = {.limit = 100,
                                  .limit_bytes = (3 << 20) + (1 << 19),
                                  .free_executable = free_executable,
                                  .executable_bytes = says_a_mebibyte};
    assert_ok(dj_cache_create(&options, &cache));
    for (int i = 0; i < N; i++) {
        parts_t parts;
        parts_make(&parts, 16 + i);
        keys[i] = parts.graph->exact_key;
        assert_ok(insert(cache, &parts, i > 0, false, &entry));
        dj_cache_release(cache, entry);
        dj_program_fini(&parts.program);
        if (i >= 1) { /* the first stays in use */
            entry = dj_cache_find(cache, keys[0]);
            assert_non_null(entry);
            dj_cache_release(cache, entry);
        }
    }
    dj_cache_counters(cache, &counters);
    assert_int_equal(counters.entries, 3);
    assert_int_equal(counters.evicted, N - 3);
    assert_true(counters.bytes > 3 << 20 && counters.bytes <= options.limit_bytes);
    for (int i = 0; i < N; i++) {
        entry = dj_cache_peek(cache, keys[i]);
        assert_int_equal(entry != NULL, i == 0 || i >= N - 2);
        if (entry != NULL)
            dj_cache_release(cache, entry);
    }
    dj_cache_destroy(cache);
}

static void one_larger_than_the_limit_goes_when_it_is_let_go(void **state)
{
    dj_cache_t *cache;
    dj_cache_entry_t *entry;
    dj_cache_counters_t counters;
    parts_t parts;
    dj_cache_options_t options = {.limit = 100, .limit_bytes = 100};
    assert_ok(dj_cache_create(&options, &cache));
    parts_make(&parts, 16);
    assert_ok(dj_cache_insert(cache, parts.graph, parts.plan, NULL, parts.program.structure.data,
                              parts.program.structure.size, parts.program.sizes.data,
                              parts.program.sizes.size, false, false, &entry));
    dj_cache_counters(cache, &counters);
    assert_int_equal(counters.entries, 1);
    dj_cache_release(cache, entry);
    dj_cache_counters(cache, &counters);
    assert_int_equal(counters.entries, 0);
    assert_int_equal(counters.bytes, 0);
    dj_cache_destroy(cache);
    dj_program_fini(&parts.program);
}

/* The plan of `exp` needs no Stack; one that claims to could be better. */
static dj_cache_entry_t *insert_bad(dj_cache_t *cache, int size, uint64_t hits)
{
    dj_cache_entry_t *entry;
    parts_t parts;
    parts_make(&parts, size);
    parts.plan->peak_bytes = 4096;
    assert_ok(insert(cache, &parts, false, false, &entry));
    for (uint64_t i = 0; i < hits; i++)
        dj_cache_count_hit(cache, entry);
    dj_program_fini(&parts.program);
    return entry;
}

static void finds_the_hottest_that_could_be_better(void **state)
{
    dj_cache_t *cache;
    dj_cache_entry_t *entries[4], *none;
    dj_cache_counters_t counters;
    parts_t better, good;
    assert_ok(cache_of(100, free_executable, &cache));
    entries[0] = insert_bad(cache, 16, 9); /* too cold */
    entries[1] = insert_bad(cache, 17, 12);
    entries[2] = insert_bad(cache, 18, 11);
    parts_make(&good, 19); /* hot, but at its bound */
    assert_ok(insert(cache, &good, false, false, &entries[3]));
    for (int i = 0; i < 100; i++)
        dj_cache_count_hit(cache, entries[3]);
    assert_ptr_equal(dj_cache_hottest(cache), entries[1]);
    assert_ptr_equal(dj_cache_hottest(cache), entries[2]);
    assert_null(dj_cache_hottest(cache)); /* each once */
    dj_cache_count_hit(cache, entries[0]); /* now it is hot, too */
    assert_ptr_equal(dj_cache_hottest(cache), entries[0]);
    assert_null(dj_cache_hottest(cache));
    dj_cache_release(cache, entries[0]);
    parts_make(&better, 17);
    dj_plan_t *old = entries[1]->plan;
    assert_ok(dj_cache_replace(cache, entries[1], better.plan));
    assert_ptr_equal(entries[1]->plan, better.plan);
    assert_int_equal(old->peak_bytes, 4096); /* still there for whoever reads it */
    assert_int_equal(dj_cache_replace(cache, entries[1], old), DJ_ERR_STALE);
    dj_cache_counters(cache, &counters);
    assert_int_equal(counters.improved, 1);
    assert_int_equal(counters.hits, 9 + 1 + 12 + 11 + 100);
    dj_cache_release(cache, entries[1]);
    dj_cache_release(cache, entries[2]);
    for (int i = 0; i < 4; i++)
        dj_cache_release(cache, entries[i]);
    none = dj_cache_peek(cache, (dj_hash_t){{7, 7}});
    assert_null(none);
    dj_cache_destroy(cache);
    dj_graph_destroy(better.graph);
    dj_program_fini(&better.program);
    dj_program_fini(&good.program);
}

static void lists_keys_in_order_of_use(void **state)
{
    dj_cache_t *cache;
    dj_cache_entry_t *a, *b;
    dj_hash_t *keys, a_key, b_key, waiting = {{5, 5}};
    uint32_t n_keys;
    assert_ok(cache_of(100, free_executable, &cache));
    a = insert_bad(cache, 16, 0);
    b = insert_bad(cache, 17, 0);
    a_key = a->graph->exact_key, b_key = b->graph->exact_key;
    assert_ok(dj_cache_publish(cache, waiting, "abc", 3, "de", 2, "plan", 4, false));
    assert_ok(dj_cache_publish(cache, a_key, "abc", 3, "de", 2, "plan", 4, false)); /* has an entry */
    assert_ptr_equal(dj_cache_find(cache, a_key), a);
    assert_ok(dj_cache_keys(cache, &keys, &n_keys));
    assert_int_equal(n_keys, 3);
    assert_true(dj_hash_equal(keys[0], a_key) && dj_hash_equal(keys[1], b_key));
    assert_true(dj_hash_equal(keys[2], waiting));
    free(keys);
    dj_cache_release(cache, a);
    dj_cache_release(cache, a);
    dj_cache_release(cache, b);
    dj_cache_destroy(cache);
}

static void keeps_published_plans_as_bytes(void **state)
{
    dj_cache_t *cache;
    dj_cache_counters_t counters;
    dj_bytes_t structure = {0}, sizes = {0}, plan = {0};
    assert_ok(cache_of(2, NULL, &cache));
    assert_int_equal(dj_cache_published(cache, (dj_hash_t){{1, 1}}, &structure, &sizes, &plan),
                     DJ_ERR_NO_PLAN);
    for (uint64_t i = 1; i <= 3; i++)
        assert_ok(dj_cache_publish(cache, (dj_hash_t){{i, i}}, "abc", 3, "de", 2, "plan", 4,
                                   false));
    assert_ok(dj_cache_publish(cache, (dj_hash_t){{3, 3}}, "abc", 3, NULL, 0, "newer", 5, true));
    assert_int_equal(dj_cache_published(cache, (dj_hash_t){{1, 1}}, &structure, &sizes, &plan),
                     DJ_ERR_NO_PLAN);
    assert_ok(dj_cache_published(cache, (dj_hash_t){{3, 3}}, &structure, &sizes, &plan));
    assert_int_equal(structure.size, 3);
    assert_int_equal(sizes.size, 0);
    assert_memory_equal(plan.data, "newer", 5);
    assert_int_equal(dj_cache_publish(cache, (dj_hash_t){{9, 9}}, "a", 1, "b", 1, "c", SIZE_MAX,
                                      false),
                     DJ_ERR_LIMIT);
    dj_cache_count_rejected(cache);
    dj_cache_counters(cache, &counters);
    assert_int_equal(counters.received, 3);
    assert_int_equal(counters.loaded, 1);
    assert_int_equal(counters.rejected, 1);
    dj_cache_destroy(cache);
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    dj_bytes_fini(&plan);
}

static void *hammer(void *context)
{
    dj_cache_t *cache = context;
    uint64_t seed = (uint64_t)(uintptr_t)&seed | 1;
    for (uint32_t i = 0; i < 3000; i++) {
        parts_t parts;
        dj_cache_entry_t *entry;
        parts_make(&parts, 16 + (int)random_below(&seed, 12));
        entry = dj_cache_find(cache, parts.graph->exact_key);
        if (entry != NULL) {
            dj_plan_destroy(parts.plan);
            dj_graph_destroy(parts.graph);
        } else {
            assert_ok(insert(cache, &parts, false, false, &entry));
        }
        assert_int_equal(entry->graph->n_nodes, 1);
        dj_cache_release(cache, entry);
        dj_program_fini(&parts.program);
    }
    return NULL;
}

static void serves_threads(void **state)
{
    enum { N = 4 };
    dj_cache_t *cache;
    pthread_t threads[N];
    dj_cache_counters_t counters;
    assert_ok(cache_of(6, free_executable, &cache));
    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, cache), 0);
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    dj_cache_counters(cache, &counters);
    assert_int_equal(counters.hits + counters.misses, N * 3000);
    dj_cache_destroy(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_another_program_under_a_key),
        cmocka_unit_test(finds_and_counts),
        cmocka_unit_test(evicts_the_oldest_that_nobody_holds),
        cmocka_unit_test(evicts_by_bytes),
        cmocka_unit_test(one_larger_than_the_limit_goes_when_it_is_let_go),
        cmocka_unit_test(finds_the_hottest_that_could_be_better),
        cmocka_unit_test(lists_keys_in_order_of_use),
        cmocka_unit_test(keeps_published_plans_as_bytes),
        cmocka_unit_test(serves_threads),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
