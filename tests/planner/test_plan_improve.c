/* What may not be improved, first; then that better plans are proven, better, and found in time. */
#include <pthread.h>
#include <stdio.h>

#include "planner/fit.h"
#include "runtime/base/clock.h"
#include "tests/planner/intervals.h"
#include "tests/planner/random_program.h"

static const dj_plan_needs_t needs = {.device_class = {{3, 4}}};

static void interval_program(dj_program_t *program, const interval_step_t *steps,
                                    uint32_t n_steps)
{
    dj_operand_t tensors[INTERVALS_MAX];
    dj_program_reset(program);
    dj_operand_t x = input_of(program, DJ_CLASS_STATE, shape(DJ_F32, 1, INTERVAL_UNITS * 64));
    dj_operand_t sum = input_of(program, DJ_CLASS_STATE, shape(DJ_F32, 1, 1));
    for (uint32_t i = 0; i < n_steps; i++) {
        dj_operand_t part = steps[i].units ? x : tensors[steps[i].number];
        part.view = shape(DJ_F32, 1, steps[i].units ? (int)steps[i].units * 64 : 1);
        if (steps[i].units)
            tensors[steps[i].number] = add_unary(program, "exp", part);
        else
            sum = add_binary(program, "add.Tensor", sum, part);
    }
    finish(program, &sum.storage, 1);
}

typedef struct made {
    dj_program_t program;
    dj_graph_t *graph;
    dj_plan_t *plan;
} made_t;

static void make(made_t *m)
{
    assert_ok(decode(&m->program, &m->graph));
    assert_ok(dj_plan_make(m->graph, &needs, &m->plan));
}

static void make_intervals(made_t *m, uint64_t seed, uint32_t n, uint32_t alive_max)
{
    interval_step_t steps[2 * INTERVALS_MAX];
    *m = (made_t){0};
    interval_program(&m->program, steps, random_intervals(seed, n, alive_max, steps));
    make(m);
}

static void discard(made_t *m)
{
    dj_plan_destroy(m->plan);
    dj_graph_destroy(m->graph);
    dj_program_fini(&m->program);
}

static dj_plan_limits_t within_ms(uint64_t ms)
{
    return (dj_plan_limits_t){.deadline_ns = dj_clock_ns() + ms * DJ_NS_PER_MS};
}

static void check_better(const made_t *m, const dj_plan_t *better)
{
    assert_true(better->peak_bytes < m->plan->peak_bytes);
    assert_true(better->peak_bytes >= better->bound_bytes);
    assert_int_equal(better->bound_bytes, m->plan->bound_bytes);
    assert_ok(dj_plan_verify(better, m->graph));
}

static void a_plan_at_its_bound_is_left_alone(void **state)
{
    made_t m = {0};
    dj_plan_t *better = (dj_plan_t *)&m;
    dj_plan_limits_t limits = within_ms(1000);
    dj_program_reset(&m.program);
    dj_operand_t x = input_of(&m.program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    dj_operand_t y = add_unary(&m.program, "exp", add_unary(&m.program, "neg", x));
    finish(&m.program, &y.storage, 1);
    make(&m);
    assert_int_equal(m.plan->peak_bytes, m.plan->bound_bytes);
    assert_ok(dj_plan_improve(m.graph, m.plan, &limits, &better));
    assert_null(better);
    discard(&m);
}

/* The first plan of the family that is above its bound. */
static void make_hard(made_t *m)
{
    for (uint64_t seed = 1; seed < 5000; seed++) {
        make_intervals(m, seed, 60, 9);
        if (m->plan->peak_bytes > m->plan->bound_bytes + 256)
            return;
        discard(m);
    }
    fail_msg("every plan is at its bound");
}

static void no_time_is_no_search(void **state)
{
    made_t m;
    dj_plan_t *better;
    dj_plan_limits_t limits = {.deadline_ns = 1};
    make_hard(&m);
    assert_ok(dj_plan_improve(m.graph, m.plan, &limits, &better));
    assert_null(better);
    discard(&m);
}

static void *cancel_soon(void *flag)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    atomic_store((atomic_bool *)flag, true);
    return NULL;
}

static void a_search_is_cancelled(void **state)
{
    made_t m;
    pthread_t thread;
    atomic_bool cancel = false;
    dj_plan_t *better = NULL;
    make_hard(&m);
    uint64_t began_ns = dj_clock_ns();
    dj_plan_limits_t limits = {.deadline_ns = began_ns + 60 * DJ_NS_PER_S, .cancel = &cancel};
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &cancel), 0);
    assert_ok(dj_plan_improve(m.graph, m.plan, &limits, &better));
    assert_true(dj_clock_ns() - began_ns < 10 * DJ_NS_PER_S);
    pthread_join(thread, NULL);
    dj_plan_destroy(better);
    discard(&m);
}

static void better_plans_are_found_and_proven(void **state)
{
    uint32_t above = 0, improved = 0, at_bound = 0;
    for (uint64_t seed = 1; seed < 400 && above < 12; seed++) {
        made_t m;
        dj_plan_t *better;
        dj_plan_limits_t limits = within_ms(300);
        make_intervals(&m, seed, 60, 9);
        if (m.plan->peak_bytes > m.plan->bound_bytes + 256) {
            above++;
            assert_ok(dj_plan_improve(m.graph, m.plan, &limits, &better));
            if (better != NULL) {
                check_better(&m, better);
                improved++;
                at_bound += better->peak_bytes <= better->bound_bytes + 256;
                dj_plan_destroy(better);
            }
        }
        discard(&m);
    }
    print_message("%u plans above their bound, %u improved, %u of them to it\n", above, improved,
                  at_bound);
    assert_true(above > 0 && improved > 0);
}

static uint64_t lay(const made_t *m, uint64_t offset, uint64_t bytes)
{
    if (bytes > 0 && offset + bytes > m->plan->peak_bytes)
        m->plan->peak_bytes = offset + bytes;
    return (offset + bytes + 255) & ~255ull;
}

/* Everything beside everything else: a valid plan, and as bad as can be. */
static void make_worse(const made_t *m)
{
    uint64_t end = (m->plan->workspace_bytes + 255) & ~255ull;
    for (uint32_t i = 0; i < m->plan->n_storages; i++) {
        if (m->plan->offsets[i] == DJ_OFFSET_NONE || m->graph->storages[i].is_spilled)
            continue;
        m->plan->offsets[i] = end;
        end = lay(m, end, m->graph->storages[i].bytes);
    }
    for (uint32_t i = 0; i < m->plan->n_steps; i++) {
        dj_plan_step_t *step = &m->plan->steps[i];
        if (step->staging == DJ_OFFSET_NONE)
            continue;
        step->staging = end;
        end = lay(m, end, dj_view_dense_bytes(&m->graph->nodes[step->node].outs[0].view));
    }
    assert_ok(dj_plan_verify(m->plan, m->graph));
}

/* Groups that are walked tile by tile, staging, aliased windows: whatever comes out is a proven plan. */
static void random_programs_stay_valid(void **state)
{
    uint32_t improved = 0;
    for (uint64_t seed = 1; seed < 300; seed++) {
        made_t m = {0};
        dj_plan_t *better;
        uint32_t limit_ms = seed % 2 == 0 ? 320 : 5;
        random_program(&m.program, seed, 60);
        make(&m);
        if (seed % 2 == 0)
            make_worse(&m);
        for (uint32_t ms = 5; ms <= limit_ms; ms *= 4) { /* other processes may take some of it */
            dj_plan_limits_t limits = within_ms(ms);
            assert_ok(dj_plan_improve(m.graph, m.plan, &limits, &better));
            if (better != NULL)
                break;
        }
        if (better != NULL)
            check_better(&m, better);
        improved += better != NULL;
        dj_plan_destroy(better);
        discard(&m);
    }
    print_message("%u of 299 improved\n", improved);
    assert_true(improved > 140); /* of 149 that were made worse */
}

/* A graph that was made to fit has places in two slabs; those of the second stay. */
static void what_is_spilled_stays(void **state)
{
    const dj_plan_needs_t slow = {.device_class = {{3, 4}}, .step_ns = 1000000}; /* so that it spills */
    uint32_t spilled = 0, improved = 0;
    for (uint64_t seed = 1; seed < 600 && (spilled < 20 || improved == 0); seed++) {
        made_t m = {0};
        dj_plan_t *better;
        dj_fit_report_t report;
        random_program(&m.program, seed, 80);
        make(&m);
        dj_fit_limits_t limits = {.stack_bytes = m.plan->bound_bytes * 3 / 4,
                                  .spill_bytes = 1 << 30,
                                  .spill_bytes_per_ns = 1000};
        dj_plan_destroy(m.plan);
        m.plan = NULL;
        if (dj_graph_fit(m.graph, &slow, &limits, &report) == DJ_OK) {
            dj_plan_limits_t search = within_ms(50);
            assert_ok(dj_plan_make(m.graph, &needs, &m.plan));
            make_worse(&m);
            assert_ok(dj_plan_improve(m.graph, m.plan, &search, &better));
            spilled += report.spilled > 0;
            if (better != NULL) {
                check_better(&m, better);
                assert_int_equal(better->spill_bytes, m.plan->spill_bytes);
                improved += report.spilled > 0;
            }
            dj_plan_destroy(better);
        }
        discard(&m);
    }
    print_message("%u graphs with spilled values, %u improved\n", spilled, improved);
    assert_true(spilled > 0 && improved > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_at_its_bound_is_left_alone),
        cmocka_unit_test(no_time_is_no_search),
        cmocka_unit_test(a_search_is_cancelled),
        cmocka_unit_test(better_plans_are_found_and_proven),
        cmocka_unit_test(random_programs_stay_valid),
        cmocka_unit_test(what_is_spilled_stays),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
