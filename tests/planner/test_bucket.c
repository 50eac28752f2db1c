/* What is no bucket, first; then rounding. */
#include <stdio.h>

#include "planner/bucket.h"
#include "tests/planner/builder.h"

static void refuses_what_is_no_bucket(void **state)
{
    static const char *const wrong[] = {
        "", "pow3", "none,64", ",", "64,", ",64", "64,,128", "64,64", "128,64", "0", "0,64", "-1",
        "+1", " 64", "64 ,128", "0x40", "1e3", "64;128", "99999999999999999999999999", "POW2",
        "18446744073709551616", "70368744177665",
    };
    dj_buckets_t buckets = {.kind = DJ_BUCKETS_POW2};
    char many[DJ_BUCKETS_MAX * 8] = "1";
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(dj_buckets_parse(wrong[i], &buckets), DJ_ERR_INVALID);
        assert_int_equal(buckets.kind, DJ_BUCKETS_POW2); /* untouched */
    }
    for (int i = 2; i <= DJ_BUCKETS_MAX; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), ",%d", i);
    assert_ok(dj_buckets_parse(many, &buckets));
    assert_int_equal(buckets.n_sizes, DJ_BUCKETS_MAX);
    strcat(many, ",65");
    assert_int_equal(dj_buckets_parse(many, &buckets), DJ_ERR_INVALID);
}

static void rounds_up(void **state)
{
    static const struct {
        const char *text;
        uint64_t size, bucket;
    } cases[] = {
        {"none", 0, 0}, {"none", 77, 77}, {"pow2", 0, 0}, {"pow2", 1, 1}, {"pow2", 2, 2},
        {"pow2", 3, 4}, {"pow2", 4, 4}, {"pow2", 5, 8}, {"pow2", 1000, 1024},
        {"pow2", (1ull << 46) - 1, 1ull << 46}, {"pow2", UINT64_MAX, UINT64_MAX},
        {"pow2", 1ull << 63, 1ull << 63}, {"64,128,512", 0, 0}, {"64,128,512", 1, 1},
        {"64,128,512", 2, 64}, {"64,128,512", 64, 64}, {"64,128,512", 65, 128},
        {"64,128,512", 129, 512}, {"64,128,512", 512, 512}, {"64,128,512", 513, 513}, {"7", 3, 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dj_buckets_t buckets;
        assert_ok(dj_buckets_parse(cases[i].text, &buckets));
        assert_int_equal(dj_bucket_of(&buckets, cases[i].size), cases[i].bucket);
    }
}

/* Never below the size, the same for the bucket itself, and in order. */
static void is_a_rounding(void **state)
{
    static const char *const texts[] = {"none", "pow2", "3,17,64,1000"};
    for (int t = 0; t < 3; t++) {
        dj_buckets_t buckets;
        uint64_t before = 0;
        assert_ok(dj_buckets_parse(texts[t], &buckets));
        for (uint64_t size = 0; size < 3000; size++) {
            uint64_t bucket = dj_bucket_of(&buckets, size);
            assert_true(bucket >= size && bucket >= before);
            assert_int_equal(dj_bucket_of(&buckets, bucket), bucket);
            before = bucket;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_no_bucket),
        cmocka_unit_test(rounds_up),
        cmocka_unit_test(is_a_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
