/* Who minds which rank: ranks shared out among tasks, seats left behind and taken over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "launcher/seats.h"

static void splits_that_cannot_be(void **state)
{
    uint32_t counts[3], few[3] = {1, 1, 1};
    assert_int_equal(dj_seats_split(2, 3, few, counts), DJ_ERR_INVALID); /* a task without work */
    assert_non_null(strstr(dj_error_text(), "task 1 of 3"));
    assert_int_equal(dj_seats_split(5, 3, few, counts), DJ_ERR_INVALID); /* two on one device */
    assert_non_null(strstr(dj_error_text(), "devices for 1"));
}

static void splits(void **state)
{
    uint32_t counts[3], capacity[3] = {4, 2, 3};
    assert_int_equal(dj_seats_split(0, 3, capacity, counts), DJ_OK);
    assert_memory_equal(counts, ((uint32_t[]){5, 2, 3}), sizeof counts);
    assert_int_equal(dj_seats_split(6, 3, capacity, counts), DJ_OK);
    assert_memory_equal(counts, ((uint32_t[]){3, 2, 1}), sizeof counts);
    assert_int_equal(dj_seats_split(4, 3, capacity, counts), DJ_OK);
    assert_memory_equal(counts, ((uint32_t[]){2, 1, 1}), sizeof counts);
}

static void seats_out_of_bounds(void **state)
{
    dj_seats_t seats;
    assert_int_equal(dj_seats_init(&seats, 4), DJ_OK);
    assert_false(dj_seats_take(&seats, 7, 0, 0));
    assert_false(dj_seats_take(&seats, 7, 4, 1));
    assert_false(dj_seats_take(&seats, 7, 1, 4));
    assert_false(dj_seats_take(&seats, 7, 1, UINT32_MAX));
    dj_seats_fini(&seats);
}

static void a_lost_run_is_taken_over(void **state)
{
    dj_seats_t seats;
    uint32_t first = 9, count = 9;
    assert_int_equal(dj_seats_init(&seats, 6), DJ_OK);
    assert_true(dj_seats_take(&seats, 1, 0, 2));
    assert_true(dj_seats_take(&seats, 7, 2, 2));
    assert_true(dj_seats_take(&seats, 8, 4, 2));
    assert_false(dj_seats_take(&seats, 9, 3, 1)); /* it is minded */
    assert_false(dj_seats_join(&seats, 9, 0, &first, &count));
    seats.of_rank[3].incarnation = 5;
    assert_int_equal(dj_seats_leave(&seats, 7, &first), 2);
    assert_int_equal(first, 2);
    assert_int_equal(dj_seats_leave(&seats, 8, &first), 2);
    assert_int_equal(dj_seats_leave(&seats, 8, &first), 0);
    assert_false(dj_seats_take(&seats, 8, 2, 2)); /* another left them */
    assert_true(dj_seats_join(&seats, 9, 0, &first, &count));
    assert_int_equal(first, 2); /* of the two runs the first, and not both at once */
    assert_int_equal(count, 2);
    assert_int_equal(seats.of_rank[2].incarnation, 1);
    assert_int_equal(seats.of_rank[3].incarnation, 6);
    assert_false(dj_seats_take(&seats, 7, 2, 2)); /* replaced */
    assert_true(dj_seats_take(&seats, 8, 4, 2));  /* back, and nobody came between */
    assert_int_equal(seats.of_rank[4].incarnation, 0);
    dj_seats_fini(&seats);
}

static void open_seats_in_parts(void **state)
{
    dj_seats_t seats;
    uint32_t first, count;
    assert_int_equal(dj_seats_init(&seats, 5), DJ_OK);
    assert_true(dj_seats_take(&seats, 1, 0, 2));
    assert_true(dj_seats_join(&seats, 7, 2, &first, &count));
    assert_int_equal(first, 2);
    assert_int_equal(count, 2);
    assert_int_equal(seats.of_rank[2].incarnation, 0);
    assert_true(dj_seats_join(&seats, 8, 2, &first, &count));
    assert_int_equal(first, 4);
    assert_int_equal(count, 1);
    for (uint32_t i = 0; i < 5; i++) {
        assert_false(dj_seats_all_serve(&seats));
        seats.of_rank[i].serves = true;
    }
    assert_true(dj_seats_all_serve(&seats));
    dj_seats_leave(&seats, 7, &first);
    assert_false(dj_seats_all_serve(&seats));
    dj_seats_fini(&seats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_that_cannot_be),    cmocka_unit_test(splits),
        cmocka_unit_test(seats_out_of_bounds),      cmocka_unit_test(a_lost_run_is_taken_over),
        cmocka_unit_test(open_seats_in_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
