/* test_text.c - weights: sealed, shared by content and owner, counted, dropped by age and pressure.
 */
#include "tests/gpu/fixture.h"

#include "gpu/text.h"

#define PAGE 4096ull

static dj_device_t *device;

static dj_text_t *add(dj_text_store_t *store, uint64_t bytes, uint8_t fill, uint32_t owner)
{
    dj_text_t *draft = NULL, *text = NULL;
    assert_int_equal(dj_text_draft(store, bytes, &draft), DJ_OK);
    memset(draft->data, fill, bytes);
    assert_int_equal(dj_text_publish(store, draft, owner, &text), DJ_OK);
    return text;
}

static dj_text_counters_t count(dj_text_store_t *store)
{
    dj_text_counters_t counters;
    dj_text_counters(store, &counters);
    return counters;
}

static dj_text_store_t *open_store(uint64_t limit)
{
    dj_text_store_t *store = NULL;
    assert_int_equal(dj_text_store_create(device, limit, &store), DJ_OK);
    assert_ptr_equal(dj_text_store_of(device), store);
    return store;
}

static void more_than_the_limit_is_refused(void **state)
{
    dj_text_store_t *store = open_store(8 * PAGE);
    dj_text_t *draft = NULL;
    assert_int_equal(dj_text_draft(store, 8 * PAGE + 1, &draft), DJ_ERR_RESOURCE);
    assert_non_null(strstr(dj_error_text(), "32768"));
    assert_int_equal(dj_text_draft(store, UINT64_MAX, &draft), DJ_ERR_LIMIT);
    assert_null(draft);
    assert_int_equal(dj_text_draft(store, 8 * PAGE, &draft), DJ_OK);
    dj_text_discard(store, draft);
    assert_int_equal(dj_text_draft(store, 8 * PAGE, &draft), DJ_OK);
    dj_text_discard(store, draft);
    assert_int_equal(count(store).entries, 0);
    dj_text_store_destroy(store);
    assert_null(dj_text_store_of(device));
}

static void a_published_weight_is_sealed(void **state)
{
    dj_text_store_t *store = open_store(1 << 20);
    dj_text_t *draft = NULL, *text = NULL;
    assert_int_equal(dj_text_draft(store, PAGE + 10, &draft), DJ_OK);
    assert_false(fixture_faults(draft->data, FIXTURE_WRITE));
    assert_int_equal(dj_text_publish(store, draft, 7, &text), DJ_OK);
    assert_true(fixture_faults(text->data, FIXTURE_WRITE));
    assert_true(fixture_faults((uint8_t *)text->data + PAGE + 9, FIXTURE_WRITE));
    assert_false(fixture_faults(text->data, FIXTURE_READ));
    dj_text_release(store, text);
    dj_text_store_destroy(store);
}

static void equal_content_is_shared_by_one_owner(void **state)
{
    dj_text_store_t *store = open_store(1 << 20);
    dj_text_t *first = add(store, 5000, 3, 7), *again = add(store, 5000, 3, 7);
    assert_ptr_equal(first, again);
    assert_int_equal(first->references, 2);
    assert_int_equal(count(store).shared, 1);
    assert_int_equal(count(store).loads, 1);
    assert_int_equal(count(store).bytes, 5000);
    dj_text_t *other_content = add(store, 5000, 4, 7), *other_owner = add(store, 5000, 3, 8);
    dj_text_t *other_length = add(store, 5001, 3, 7);
    assert_ptr_not_equal(first, other_content);
    assert_ptr_not_equal(first, other_owner);
    assert_ptr_not_equal(first, other_length);
    assert_int_equal(count(store).entries, 4);
    assert_int_equal(count(store).bytes, 20001);
    dj_text_store_destroy(store);
}

static void an_idle_weight_goes_after_its_sweeps(void **state)
{
    dj_text_store_t *store = open_store(1 << 20);
    dj_text_t *kept = add(store, PAGE, 1, 7), *idle = add(store, PAGE, 2, 7);
    dj_text_release(store, idle);
    dj_text_sweep(store, 2);
    dj_text_sweep(store, 2);
    assert_int_equal(count(store).entries, 2);
    assert_ptr_equal(add(store, PAGE, 2, 7), idle); /* its age starts anew */
    dj_text_release(store, idle);
    dj_text_sweep(store, 2);
    dj_text_sweep(store, 2);
    assert_int_equal(count(store).entries, 2);
    dj_text_sweep(store, 2);
    assert_int_equal(count(store).entries, 1);
    assert_int_equal(count(store).bytes, PAGE);
    dj_text_release(store, kept);
    dj_text_sweep(store, 0);
    assert_int_equal(count(store).entries, 0);
    assert_int_equal(count(store).bytes, 0);
    dj_text_store_destroy(store);
}

static void pressure_takes_the_longest_idle_first(void **state)
{
    dj_text_store_t *store = open_store(4 * PAGE);
    dj_text_t *held = add(store, PAGE, 1, 7), *older = add(store, PAGE, 2, 7);
    void *older_data = older->data;
    dj_text_release(store, older);
    dj_text_sweep(store, 9);
    dj_text_t *younger = add(store, PAGE, 3, 7);
    dj_text_release(store, younger);
    add(store, 2 * PAGE, 4, 7);
    assert_int_equal(count(store).entries, 3);
    assert_false(fixture_faults(younger->data, FIXTURE_READ));
    assert_true(fixture_faults(older_data, FIXTURE_READ));
    dj_text_t *draft = NULL;
    assert_int_equal(dj_text_draft(store, 2 * PAGE, &draft), DJ_ERR_RESOURCE);
    assert_int_equal(held->references, 1);
    dj_text_store_destroy(store);
}

static void packs_are_sealed_counted_and_go_with_their_weight(void **state)
{
    dj_text_store_t *store = open_store(16 * PAGE);
    dj_text_t *text = add(store, PAGE, 1, 7);
    dj_hash_t key = {{1, 2}}, other = {{1, 3}};
    dj_text_pack_t *pack = NULL;
    assert_null(dj_text_pack_find(store, text, key));
    assert_int_equal(dj_text_pack_add(store, text, key, 16 * PAGE, &pack), DJ_ERR_RESOURCE);
    assert_int_equal(dj_text_pack_add(store, text, key, 3 * PAGE - 5, &pack), DJ_OK);
    memset(pack->data, 9, 3 * PAGE - 5);
    assert_null(dj_text_pack_find(store, text, key)); /* not before it is complete */
    assert_int_equal(dj_text_pack_seal(store, pack), DJ_OK);
    assert_ptr_equal(dj_text_pack_find(store, text, key), pack);
    assert_null(dj_text_pack_find(store, text, other));
    assert_true(fixture_faults(pack->data, FIXTURE_WRITE));
    assert_int_equal(count(store).pack_bytes, 3 * PAGE - 5);
    dj_text_release(store, text);
    dj_text_sweep(store, 0);
    assert_int_equal(count(store).pack_bytes, 0);
    dj_text_t *draft = NULL;
    assert_int_equal(dj_text_draft(store, 16 * PAGE, &draft), DJ_OK); /* all of it is back */
    dj_text_discard(store, draft);
    dj_text_store_destroy(store);
}

static void an_empty_weight_is_a_weight(void **state)
{
    dj_text_store_t *store = open_store(4 * PAGE);
    dj_text_t *text = add(store, 0, 0, 7);
    assert_non_null(text->data);
    assert_ptr_equal(add(store, 0, 0, 7), text);
    dj_text_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_than_the_limit_is_refused),
        cmocka_unit_test(a_published_weight_is_sealed),
        cmocka_unit_test(equal_content_is_shared_by_one_owner),
        cmocka_unit_test(an_idle_weight_goes_after_its_sweeps),
        cmocka_unit_test(pressure_takes_the_longest_idle_first),
        cmocka_unit_test(packs_are_sealed_counted_and_go_with_their_weight),
        cmocka_unit_test(an_empty_weight_is_a_weight),
    };
    device = fixture_open(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dj_device_close(device);
    return failed;
}
