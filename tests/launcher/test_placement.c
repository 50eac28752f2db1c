/* Shares of cores: more ranks than cores, slices that cover everything once, tasks bound apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "launcher/placement.h"

static dj_machine_t *machine_of(uint32_t cores, uint32_t allowed)
{
    dj_machine_t *machine = calloc(1, sizeof *machine);
    assert_non_null(machine);
    machine->n_cores = cores;
    machine->n_allowed = allowed;
    for (uint32_t i = 0; i < cores; i++)
        CPU_SET(i, &machine->core[i]);
    return machine;
}

static void more_ranks_than_cores(void **state)
{
    dj_machine_t *machine = machine_of(2, 2);
    dj_share_t share;
    for (uint32_t i = 0; i < 8; i++) {
        dj_share_compute(machine, i, 8, &share);
        assert_false(share.bound);
        assert_int_equal(share.threads, 1);
        assert_string_equal(share.cores, "");
    }
    dj_share_compute(machine, 0, 0, &share);
    assert_false(share.bound);
    dj_share_compute(machine, 2, 2, &share);
    assert_false(share.bound);
    free(machine);
}

static void slices_cover_each_core_once(void **state)
{
    for (uint32_t cores = 1; cores <= 40; cores++) {
        dj_machine_t *machine = machine_of(cores, cores);
        for (uint32_t count = 1; count <= cores; count++) {
            cpu_set_t seen;
            uint32_t threads = 0;
            CPU_ZERO(&seen);
            for (uint32_t i = 0; i < count; i++) {
                dj_share_t share;
                cpu_set_t both;
                dj_share_compute(machine, i, count, &share);
                CPU_AND(&both, &seen, &share.processors);
                assert_int_equal(CPU_COUNT(&both), 0);
                CPU_OR(&seen, &seen, &share.processors);
                assert_in_range(share.threads, cores / count, cores / count + 1);
                threads += share.threads;
            }
            assert_int_equal(threads, cores);
            assert_int_equal(CPU_COUNT(&seen), (int)cores);
        }
        free(machine);
    }
}

static void tasks_bound_apart(void **state)
{
    static const struct {
        uint32_t cores, allowed, count;
        bool apart;
    } cases[] = {
        {16, 16, 1, false}, /* not bound at all */
        {16, 16, 4, false}, {4, 16, 4, true},
        {1, 16, 16, true},  {8, 16, 4, false}, /* two to a socket: they share its cores */
        {4, 16, 5, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dj_machine_t *machine = machine_of(cases[i].cores, cases[i].allowed);
        assert_int_equal(dj_machine_is_apart(machine, cases[i].count), cases[i].apart);
        free(machine);
    }
}

static void lists_of_processors(void **state)
{
    cpu_set_t set;
    char text[16], small[4];
    CPU_ZERO(&set);
    assert_true(dj_processors_format(&set, text, sizeof text));
    assert_string_equal(text, "");
    CPU_SET(0, &set);
    CPU_SET(1, &set);
    CPU_SET(2, &set);
    CPU_SET(8, &set);
    CPU_SET(CPU_SETSIZE - 1, &set);
    assert_true(dj_processors_format(&set, text, sizeof text));
    assert_string_equal(text, "0-2,8,1023");
    assert_false(dj_processors_format(&set, small, sizeof small));
}

static void this_machine(void **state)
{
    dj_machine_t *machine;
    cpu_set_t ours, found;
    assert_int_equal(dj_machine_find(&machine), DJ_OK);
    assert_int_equal(sched_getaffinity(0, sizeof ours, &ours), 0);
    CPU_ZERO(&found);
    for (uint32_t i = 0; i < machine->n_cores; i++)
        CPU_OR(&found, &found, &machine->core[i]);
    assert_true(CPU_EQUAL(&ours, &found));
    assert_in_range(machine->n_cores, 1, machine->n_allowed);
    free(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_ranks_than_cores), cmocka_unit_test(slices_cover_each_core_once),
        cmocka_unit_test(tasks_bound_apart),     cmocka_unit_test(lists_of_processors),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
