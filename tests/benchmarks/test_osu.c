/* Sums over samples, slots of a ring and checked patterns, against figures worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "benchmarks/osu.h"

static const dj_osu_options_t options = {
    .window = 64, .max_bytes = 16, .n_percentiles = 3, .percentiles = {1, 50, 99}};

static void test_one_sample(void **state)
{
    double samples[] = {7};
    dj_osu_summary_t summary;
    dj_osu_summarise(&options, samples, 1, 0, &summary);
    assert_true(summary.average_us == 7 && summary.min_us == 7 && summary.max_us == 7);
    assert_true(summary.median_us == 7 && summary.p99_us == 7 && summary.total_us == 7);
    for (int i = 0; i < 3; i++)
        assert_true(summary.percentiles_us[i] == 7);
}

static void test_a_hundred_samples(void **state)
{
    double samples[100];
    dj_osu_summary_t summary;
    for (int i = 0; i < 100; i++)
        samples[(i * 37) % 100] = i + 1;
    dj_osu_summarise(&options, samples, 100, 5, &summary);
    assert_true(summary.average_us == 50.5 && summary.total_us == 5050);
    assert_true(summary.min_us == 1 && summary.max_us == 100);
    assert_true(summary.percentiles_us[0] == 2 && summary.percentiles_us[1] == 51);
    assert_true(summary.percentiles_us[2] == 100);
    assert_int_equal(summary.iterations, 100);
    assert_int_equal(summary.wrong, 5);
}

static void test_merge(void **state)
{
    dj_osu_summary_t all[] = {
        {.average_us = 4, .min_us = 1, .max_us = 9, .total_us = 40, .iterations = 10, .wrong = 1},
        {.average_us = 2, .min_us = 2, .max_us = 2, .total_us = 20, .iterations = 10},
        {.average_us = 6, .min_us = 3, .max_us = 8, .total_us = 60, .iterations = 10, .wrong = 2},
    };
    dj_osu_summary_t merged;
    dj_osu_merge(all, 1, &merged);
    assert_true(merged.min_us == 1 && merged.max_us == 9); /* of iterations */
    dj_osu_merge(all, 3, &merged);
    assert_true(merged.average_us > 3.999 && merged.average_us < 4.001);
    assert_true(merged.min_us == 2 && merged.max_us == 6); /* of processes */
    assert_true(merged.total_us == 60);
    assert_int_equal(merged.wrong, 3);
    assert_int_equal(merged.iterations, 10);
}

static void test_slots(void **state)
{
    assert_int_equal(dj_osu_slots(&options, 1), 64);
    assert_int_equal(dj_osu_slots(&options, 64 << 10), 64);
    assert_int_equal(dj_osu_slots(&options, 128 << 10), 32);
    assert_int_equal(dj_osu_slots(&options, 3 << 20), 1);
    assert_int_equal(dj_osu_slots(&options, 1 << 30), 1);
    for (uint64_t bytes = 1; bytes <= DJ_OSU_BYTES_MAX; bytes = bytes * 3 + 1) {
        dj_osu_options_t wide = options;
        wide.max_bytes = bytes;
        assert_true(dj_osu_slots(&wide, bytes) * bytes <= dj_osu_ring_bytes(&wide));
    }
}

static void test_pattern(void **state)
{
    uint8_t data[1000];
    dj_osu_fill(data, sizeof(data), 3);
    assert_int_equal(dj_osu_wrong(data, sizeof(data), 3), 0);
    assert_int_not_equal(dj_osu_wrong(data, sizeof(data), 4),
                         0); /* the round before is not taken for this */
    assert_int_not_equal(dj_osu_wrong(data + 1, sizeof(data) - 1, 3), 0); /* nor a shifted one */
    data[999] ^= 1;
    assert_int_equal(dj_osu_wrong(data, sizeof(data), 3), 1);
    memset(data, 0, sizeof(data));
    assert_true(dj_osu_wrong(data, sizeof(data), 0) > 990);
}

static void test_nonsense(void **state)
{
    static const dj_osu_test_t test = {.program = "x",
                                       .title = "X",
                                       .about = "",
                                       .sized = true,
                                       .first_bytes = 4,
                                       .last_bytes = 64,
                                       .least_bytes = 1,
                                       .iterations = 10};
    static const char *const good[][2] = {
        {"8", "1 8"}, {"2:8", "2 8"}, {"8:", "8 64"}, {":8", "1 8"}};
    dj_osu_options_t parsed;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        char *argv[] = {"x", "-m", (char *)good[i][0], NULL};
        char text[64];
        assert_int_equal(dj_osu_parse(&test, 3, argv, &parsed), -1);
        snprintf(text, sizeof(text), "%llu %llu", (unsigned long long)parsed.min_bytes,
                 (unsigned long long)parsed.max_bytes);
        assert_string_equal(text, good[i][1]);
    }
    char *none[] = {"x", NULL}, *above[] = {"x", "-m", "65:", NULL};
    assert_int_equal(dj_osu_parse(&test, 1, none, &parsed), -1);
    assert_int_equal(parsed.min_bytes, 4);
    assert_int_equal(dj_osu_iterations(&test, &parsed, 1), 10);
    assert_int_equal(dj_osu_parse(&test, 3, above, &parsed), 1);
    assert_int_equal(parsed.min_bytes, 4); /* a refusal leaves the options alone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_one_sample),
        cmocka_unit_test(test_a_hundred_samples),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_pattern),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
