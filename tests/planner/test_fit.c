/* Capacities that are too small, a little or much: what fits must compute the same and stay under it, what
 * cannot is refused with both numbers. */
#include "planner/fit.h"
#include "tests/planner/random_program.h"
#include "tests/planner/simulate.h"

static const dj_plan_needs_t needs = {
    .device_class = {{1, 2}}, .flops_per_ns = 100, .bytes_per_ns = 10, .step_ns = 200};

typedef struct fitted {
    dj_program_t program;
    dj_graph_t *recorded, *graph;
    dj_plan_t *plan;
    dj_fit_report_t report;
} fitted_t;

static void fitted_fini(fitted_t *f)
{
    dj_plan_destroy(f->plan);
    dj_graph_destroy(f->recorded);
    dj_graph_destroy(f->graph);
    dj_program_fini(&f->program);
}

/* Fits to `capacity`; false when refused. What was fitted is planned, proven and simulated. */
static bool fit(fitted_t *f, uint64_t capacity, uint64_t spill_bytes)
{
    const dj_fit_limits_t limits = {.stack_bytes = capacity,
                                    .spill_bytes = spill_bytes,
                                    .spill_bytes_per_ns = spill_bytes > 0 ? 1.0 : 0.0};
    const uint64_t *scalars = (const uint64_t *)f->program.scalars.data;
    uint64_t touched;
    assert_ok(decode(&f->program, &f->recorded));
    assert_ok(decode(&f->program, &f->graph));
    dj_status_t status = dj_graph_fit(f->graph, &needs, &limits, &f->report);
    if (status != DJ_OK) {
        assert_int_equal(status, DJ_ERR_RESOURCE);
        return false;
    }
    assert_true(f->report.after_bytes <= capacity);
    assert_ok(dj_graph_check(f->graph));
    assert_ok(dj_plan_make(f->graph, &needs, &f->plan));
    assert_ok(dj_plan_verify(f->plan, f->graph));
    assert_true(f->plan->spill_bytes <= spill_bytes);
    if (!simulate_rewritten(f->recorded, f->graph, f->plan, scalars, 3, &touched))
        fail_msg("the fitted program computes something else");
    return true;
}

static void random_programs_fit(void **state)
{
    uint32_t n_fitted = 0, n_refused = 0, n_reordered = 0, n_recomputed = 0, n_spilled = 0;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        fitted_t f = {0};
        uint64_t most;
        random_program(&f.program, seed, 10 + seed % 60);
        assert_ok(decode(&f.program, &f.graph));
        uint64_t *alive = calloc(f.graph->n_nodes + 1, sizeof *alive);
        assert_non_null(alive);
        most = dj_graph_alive(f.graph, alive);
        free(alive);
        dj_graph_destroy(f.graph);
        bool fits = fit(&f, most * (50 + seed % 50) / 100 + 1, seed % 3 == 0 ? 1 << 20 : 0);
        n_fitted += fits;
        n_refused += !fits;
        n_reordered += fits && f.report.reordered;
        n_recomputed += fits ? f.report.recomputed : 0;
        n_spilled += fits ? f.report.spilled : 0;
        fitted_fini(&f);
    }
    print_message("%u fitted, %u refused; %u reordered, %u values recomputed, %u spilled\n", n_fitted,
                  n_refused, n_reordered, n_recomputed, n_spilled);
    assert_true(n_fitted > 300 && n_refused > 100 && n_reordered > 100 && n_recomputed > 100 &&
                n_spilled > 30);
}

/* Ten products of one input, made first and needed last: each can be made when it is needed. */
static void record_fan(dj_program_t *program, dj_operand_t *x_p, uint32_t n)
{
    dj_operand_t made[64];
    dj_program_reset(program);
    dj_operand_t x = input_of(program, DJ_CLASS_STATE, shape(DJ_F32, 2, 64, 64));
    for (uint32_t i = 0; i < n; i++) {
        dj_arg_t softmax[] = {arg_tensor(&x), arg_integer(i % 2), arg_integer(0)};
        made[i] = add_op(program, "_softmax", softmax);
    }
    dj_operand_t sum = made[0];
    for (uint32_t i = 1; i < n; i++) {
        dj_arg_t mm[] = {arg_tensor(&sum), arg_tensor(&made[i])};
        sum = add_op(program, "mm", mm);
    }
    finish(program, &sum.storage, 1);
    *x_p = x;
}

static void a_better_order_is_found(void **state)
{
    fitted_t f = {0};
    dj_operand_t x;
    record_fan(&f.program, &x, 10);
    assert_true(fit(&f, 4 * 64 * 64 * 4, 0));
    assert_true(f.report.reordered);
    assert_int_equal(f.report.recomputed + f.report.spilled, 0);
    assert_int_equal(f.report.before_bytes, 11 * 64 * 64 * 4);
    assert_true(f.plan->peak_bytes <= 3 * 64 * 64 * 4);
    fitted_fini(&f);
}

/* A value made first, read first and last, while much else happens between. */
static void record_long_life(dj_program_t *program, bool from_input)
{
    dj_program_reset(program);
    dj_operand_t x = input_of(program, DJ_CLASS_STATE, shape(DJ_F32, 2, 64, 64));
    dj_operand_t base = x;
    if (!from_input) { /* made of what is gone when it is needed again */
        dj_arg_t args[] = {arg_tensor(&x), arg_integer(0), arg_integer(0)};
        base = add_op(program, "_softmax", args);
    }
    dj_arg_t long_args[] = {arg_tensor(&base), arg_integer(1), arg_integer(0)};
    dj_operand_t kept = add_op(program, "_softmax", long_args), y = kept;
    for (uint32_t i = 0; i < 4; i++) {
        dj_arg_t mm[] = {arg_tensor(&y), arg_tensor(&y)};
        y = add_op(program, "mm", mm);
    }
    dj_arg_t last[] = {arg_tensor(&y), arg_tensor(&kept)};
    dj_operand_t z = add_op(program, "mm", last);
    finish(program, &z.storage, 1);
}

static void what_can_be_made_again_is(void **state)
{
    fitted_t f = {0};
    record_long_life(&f.program, true);
    assert_true(fit(&f, 2 * 64 * 64 * 4, 0));
    assert_int_equal(f.report.recomputed, 1);
    assert_int_equal(f.report.before_bytes, 3 * 64 * 64 * 4);
    assert_int_equal(f.plan->peak_bytes, 2 * 64 * 64 * 4);
    assert_true(f.report.extra_ns > 0);
    fitted_fini(&f);
}

static void what_cannot_be_made_again_is_spilled(void **state)
{
    fitted_t f = {0};
    record_long_life(&f.program, false);
    assert_false(fit(&f, 2 * 64 * 64 * 4, 0));
    assert_non_null(strstr(dj_error_text(), "32768"));
    dj_graph_destroy(f.graph);
    dj_graph_destroy(f.recorded);
    assert_true(fit(&f, 2 * 64 * 64 * 4, 64 * 64 * 4));
    assert_int_equal(f.report.spilled, 1);
    assert_int_equal(f.plan->spill_bytes, 64 * 64 * 4);
    assert_int_equal(f.plan->peak_bytes, 2 * 64 * 64 * 4);
    fitted_fini(&f);
}

static void what_one_step_needs_is_refused_below(void **state)
{
    fitted_t f = {0};
    record_long_life(&f.program, true);
    assert_false(fit(&f, 64 * 64 * 4, 1 << 20));
    fitted_fini(&f);
}

static void nothing_fits_into_nothing(void **state)
{
    fitted_t f = {0};
    dj_program_reset(&f.program);
    finish(&f.program, NULL, 0);
    assert_true(fit(&f, 1, 0));
    assert_int_equal(f.report.after_bytes, 0);
    fitted_fini(&f);
}

static void what_fits_is_left_alone(void **state)
{
    fitted_t f = {0};
    record_long_life(&f.program, true);
    assert_true(fit(&f, 3 * 64 * 64 * 4, 0));
    assert_int_equal(f.graph->n_nodes, f.recorded->n_nodes);
    assert_false(f.report.reordered);
    fitted_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_step_needs_is_refused_below),
        cmocka_unit_test(nothing_fits_into_nothing),
        cmocka_unit_test(what_fits_is_left_alone),
        cmocka_unit_test(a_better_order_is_found),
        cmocka_unit_test(what_can_be_made_again_is),
        cmocka_unit_test(what_cannot_be_made_again_is_spilled),
        cmocka_unit_test(random_programs_fit),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
