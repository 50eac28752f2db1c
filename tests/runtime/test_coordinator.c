/* test_coordinator.c - what rank 0 remembers: no worker that is not there, and always the latest plans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/coordinator.h"

static int create(void **state)
{
    *state = calloc(1, sizeof(dj_coordinator_t));
    return *state ? 0 : -1;
}

static int destroy(void **state)
{
    dj_coordinator_fini(*state);
    free(*state);
    return 0;
}

static dj_status_t enter(dj_coordinator_t *coordinator, uint64_t connection, uint32_t rank,
                         uint32_t incarnation)
{
    const dj_register_t about = {.rank = rank, .incarnation = incarnation, .endpoint = "127.0.0.1:1"};
    uint64_t replaced;
    return dj_coordinator_register(coordinator, connection, &about, &replaced);
}

static void a_worker_that_cannot_be(void **state)
{
    dj_register_t about = {.rank = 1};
    uint64_t replaced;
    assert_int_equal(enter(*state, 16, 0, 0), DJ_ERR_LIMIT);
    assert_int_equal(enter(*state, 16, DJ_WORKERS_MAX, 0), DJ_ERR_LIMIT);
    memset(about.endpoint, 'x', sizeof(about.endpoint));
    assert_int_equal(dj_coordinator_register(*state, 16, &about, &replaced), DJ_ERR_LIMIT);
    assert_null(dj_coordinator_choose(*state, DJ_RANK_ANY));
}

static void an_older_incarnation_beside_a_later_one(void **state)
{
    assert_int_equal(enter(*state, 16, 1, 2), DJ_OK);
    assert_int_equal(enter(*state, 17, 1, 1), DJ_ERR_STALE);
    assert_int_equal(enter(*state, 18, 1, 3), DJ_OK);
    dj_coordinator_lost(*state, 16); /* the connection of before */
    assert_non_null(dj_coordinator_choose(*state, 1));
}

static dj_status_t enter_as(dj_coordinator_t *coordinator, uint64_t connection, uint32_t incarnation,
                            uint32_t pid, const char *endpoint, uint64_t *replaced_p)
{
    dj_register_t about = {.rank = 1, .incarnation = incarnation, .pid = pid};
    strcpy(about.endpoint, endpoint);
    return dj_coordinator_register(coordinator, connection, &about, replaced_p);
}

static void two_processes_that_are_one_rank(void **state)
{
    dj_coordinator_t *coordinator = *state;
    uint64_t replaced = 99;
    dj_roster_t row;
    assert_int_equal(enter_as(coordinator, 16, 1, 7, "a:1", &replaced), DJ_OK);
    assert_int_equal(replaced, 0);
    assert_int_equal(enter_as(coordinator, 17, 1, 7, "b:1", &replaced), DJ_ERR_STALE);
    assert_int_equal(enter_as(coordinator, 17, 1, 8, "a:1", &replaced), DJ_ERR_STALE);
    assert_non_null(strstr(dj_error_text(), "process 8 at a:1"));
    assert_int_equal(enter_as(coordinator, 18, 1, 7, "a:1", &replaced), DJ_OK); /* a new connection of the first */
    assert_int_equal(replaced, 16);
    dj_coordinator_lost(coordinator, 16);
    assert_non_null(dj_coordinator_choose(coordinator, 1));
    dj_coordinator_lost(coordinator, 18);
    assert_int_equal(enter_as(coordinator, 19, 1, 8, "b:1", &replaced), DJ_ERR_STALE);
    assert_int_equal(enter_as(coordinator, 19, 0, 8, "b:1", &replaced), DJ_ERR_STALE);
    assert_null(dj_coordinator_choose(coordinator, 1));
    assert_int_equal(enter_as(coordinator, 20, 2, 8, "b:1", &replaced), DJ_OK);
    assert_int_equal(replaced, 0);
    assert_int_equal(enter_as(coordinator, 21, 3, 9, "c:1", &replaced), DJ_OK);
    assert_int_equal(replaced, 20);
    assert_true(dj_coordinator_row(coordinator, 1, &row));
    assert_string_equal(row.endpoint, "c:1");
}

static void no_client_is_sent_to_one_that_ends(void **state)
{
    assert_int_equal(enter(*state, 16, 1, 0), DJ_OK);
    assert_int_equal(enter(*state, 17, 2, 0), DJ_OK);
    dj_coordinator_ending(*state, 16);
    dj_coordinator_ending(*state, 99); /* of nobody */
    for (int i = 0; i < 4; i++)
        assert_int_equal(dj_coordinator_choose(*state, DJ_RANK_ANY)->about.rank, 2);
    assert_null(dj_coordinator_choose(*state, 1));
}

/* Whoever says it is two ranks must not leave one of them behind, to which clients would be sent. */
static void one_connection_that_is_two_ranks(void **state)
{
    dj_roster_t row;
    assert_int_equal(enter(*state, 16, 1, 0), DJ_OK);
    assert_int_equal(enter(*state, 16, 2, 0), DJ_ERR_PROTOCOL);
    assert_int_equal(enter(*state, 16, 1, 0), DJ_OK);
    dj_coordinator_lost(*state, 16);
    assert_null(dj_coordinator_choose(*state, DJ_RANK_ANY));
    assert_true(dj_coordinator_row(*state, 1, &row));
    assert_string_equal(row.endpoint, "");
}

static uint32_t keep(dj_coordinator_t *coordinator, uint32_t number, uint32_t bytes)
{
    dj_plan_message_t *plan = calloc(1, bytes);
    plan->origin_rank = number;
    plan->exact_key.word[0] = number;
    dj_coordinator_keep(coordinator, plan, bytes);
    free(plan);
    return number;
}

/* Whether plan `number` is kept; and that what is kept is within its bounds. */
static bool has(const dj_coordinator_t *coordinator, uint32_t number)
{
    uint64_t bytes = 0;
    bool found = false;
    for (uint32_t i = 0; i < DJ_KEPT_PLANS_MAX; i++) {
        const dj_kept_plan_t *kept = &coordinator->plans[i];
        bytes += kept->bytes;
        found = found || (kept->data && ((dj_plan_message_t *)kept->data)->origin_rank == number);
    }
    assert_true(bytes == coordinator->plan_bytes && bytes <= DJ_KEPT_PLANS_BYTES);
    return found;
}

static void the_latest_plans_are_kept(void **state)
{
    enum { LARGEST = DJ_KEPT_PLANS_BYTES / 8, SMALL = 4096 };
    uint32_t number = 0;
    keep(*state, ++number, LARGEST + 1);
    assert_false(has(*state, number));
    for (int i = 0; i < 20; i++)
        assert_true(has(*state, keep(*state, ++number, LARGEST)));
    assert_true(has(*state, number - 7));
    assert_false(has(*state, number - 8));
    for (int i = 0; i < 2 * DJ_KEPT_PLANS_MAX; i++)
        assert_true(has(*state, keep(*state, ++number, SMALL)));
    assert_true(has(*state, number - DJ_KEPT_PLANS_MAX + 1));
    assert_false(has(*state, number - DJ_KEPT_PLANS_MAX));
}

static void keep_of(dj_coordinator_t *coordinator, uint64_t key, uint64_t device_class,
                    uint32_t number, uint32_t bytes)
{
    dj_plan_message_t *plan = calloc(1, bytes);
    *plan = (dj_plan_message_t){.exact_key = {{key, 1}}, .device_class = {{device_class, 2}},
                                .origin_rank = number};
    dj_coordinator_keep(coordinator, plan, bytes);
    free(plan);
}

static void a_better_plan_takes_the_place_of_the_first(void **state)
{
    const dj_coordinator_t *coordinator = *state;
    keep_of(*state, 1, 1, 10, 4096);
    keep_of(*state, 2, 1, 20, 4096);
    keep_of(*state, 1, 2, 30, 4096); /* of another class */
    keep_of(*state, 1, 1, 11, 9000);
    assert_false(has(*state, 10));
    assert_true(has(*state, 11) && has(*state, 20) && has(*state, 30));
    assert_int_equal(coordinator->n_plans, 3);
    keep_of(*state, 1, 1, 12, 100);
    assert_true(has(*state, 12) && !has(*state, 11));
    assert_int_equal(coordinator->plan_bytes, 100 + 2 * 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_worker_that_cannot_be, create, destroy),
        cmocka_unit_test_setup_teardown(an_older_incarnation_beside_a_later_one, create, destroy),
        cmocka_unit_test_setup_teardown(one_connection_that_is_two_ranks, create, destroy),
        cmocka_unit_test_setup_teardown(two_processes_that_are_one_rank, create, destroy),
        cmocka_unit_test_setup_teardown(no_client_is_sent_to_one_that_ends, create, destroy),
        cmocka_unit_test_setup_teardown(the_latest_plans_are_kept, create, destroy),
        cmocka_unit_test_setup_teardown(a_better_plan_takes_the_place_of_the_first, create,
                                        destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
