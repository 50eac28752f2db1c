/* test_status.c - names, texts and the sentence of each thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/status.h"

static void unknown_values_have_a_name(void **state)
{
    const int foreign[] = {2, 127, -24, -1000, INT32_MAX, INT32_MIN};
    for (unsigned i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        assert_string_equal(dj_status_name(foreign[i]), "?");
        assert_string_equal(dj_status_text(foreign[i]), "?");
    }
}

static void every_row_has_its_name_and_text(void **state)
{
#define X(name, value, text)                                                                       \
    assert_string_equal(dj_status_name(value), #name);                                             \
    assert_string_equal(dj_status_text(value), text);                                              \
    assert_int_equal(DJ_##name, value);
    DJ_STATUS_LIST(X)
#undef X
}

static void values_are_distinct_and_signed(void **state)
{
    static const int values[] = {
#define X(name, value, text) value,
        DJ_STATUS_LIST(X)
#undef X
    };
    const unsigned count = sizeof values / sizeof values[0];
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < i; j++)
            assert_int_not_equal(values[i], values[j]);
        if (values[i] != DJ_OK && values[i] != DJ_IN_PROGRESS)
            assert_true(values[i] < 0);
    }
}

static void a_long_sentence_is_cut(void **state)
{
    char text[2000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    assert_int_equal(dj_fail(DJ_ERR_LIMIT, "%s", text), DJ_ERR_LIMIT);
    assert_int_equal(strlen(dj_error_text()), 511);
    assert_int_equal(dj_fail_prefix(DJ_ERR_LIMIT, "%s", text), DJ_ERR_LIMIT);
    assert_int_equal(strlen(dj_error_text()), 511);
}

static void a_sentence_may_quote_the_last_one(void **state)
{
    dj_fail(DJ_ERR_SHAPE, "two rows");
    dj_fail(DJ_ERR_INVALID, "bad (%s)", dj_error_text());
    assert_string_equal(dj_error_text(), "bad (two rows)");
}

static void a_prefix_goes_in_front(void **state)
{
    dj_fail(DJ_ERR_SHAPE, "3 is not 4");
    assert_int_equal(dj_fail_prefix(DJ_ERR_SHAPE, "op %d", 7), DJ_ERR_SHAPE);
    assert_string_equal(dj_error_text(), "op 7: 3 is not 4");
    dj_fail_prefix(DJ_ERR_SHAPE, "add");
    assert_string_equal(dj_error_text(), "add: op 7: 3 is not 4");
}

static void *fail_elsewhere(void *result)
{
    strcpy(result, dj_error_text());
    dj_fail(DJ_ERR_FILE, "elsewhere");
    return NULL;
}

static void threads_have_their_own_sentence(void **state)
{
    char seen[512] = "unset";
    pthread_t thread;
    dj_fail(DJ_ERR_MEMORY, "here");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, seen), 0);
    pthread_join(thread, NULL);
    assert_string_equal(seen, "");
    assert_string_equal(dj_error_text(), "here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_values_have_a_name),
        cmocka_unit_test(a_long_sentence_is_cut),
        cmocka_unit_test(every_row_has_its_name_and_text),
        cmocka_unit_test(values_are_distinct_and_signed),
        cmocka_unit_test(a_sentence_may_quote_the_last_one),
        cmocka_unit_test(a_prefix_goes_in_front),
        cmocka_unit_test(threads_have_their_own_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
