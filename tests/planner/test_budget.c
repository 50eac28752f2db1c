/* Programs at the limits, made to make planning slow: each is decoded, folded, rewritten, planned, proven and
 * fitted within a time that only a mistake in the order of growth would pass. */
#include "planner/fit.h"
#include "planner/fold.h"
#include "planner/rewrite.h"
#include "runtime/base/clock.h"
#include "tests/planner/builder.h"

#define LIMIT_NS 20000000000ull /* a hundred times what it takes: sanitizers and busy machines */

static const dj_plan_needs_t needs = {
    .device_class = {{1, 2}}, .flops_per_ns = 100, .bytes_per_ns = 10, .step_ns = 200};

static uint64_t lap(uint64_t *began_p)
{
    uint64_t now = dj_clock_ns(), took = now - *began_p;
    *began_p = now;
    return took;
}

static void try_program(const char *name, dj_program_t *program)
{
    dj_graph_t *graph, *twin;
    dj_plan_t *plan;
    dj_fit_report_t report;
    uint64_t began = dj_clock_ns(), start = began;
    assert_ok(decode(program, &graph));
    assert_ok(decode(program, &twin));
    uint64_t decoding = lap(&began) / 2, n_nodes = graph->n_nodes;
    assert_ok(dj_graph_fold(graph, twin));
    assert_ok(dj_graph_rewrite(graph, NULL, 0, NULL));
    assert_ok(dj_graph_check(graph));
    uint64_t rewriting = lap(&began);
    assert_ok(dj_plan_make(graph, &needs, &plan));
    uint64_t planning = lap(&began);
    assert_ok(dj_plan_verify(plan, graph));
    uint64_t proving = lap(&began);
    dj_fit_limits_t limits = {plan->bound_bytes / 2, 0, 1ull << 40, 10};
    dj_graph_fit(graph, &needs, &limits, &report); /* fits or is refused */
    uint64_t fitting = lap(&began);
    print_message("%-8s %6llu nodes: decode %.0f, rewrite %.0f, plan %.0f, prove %.0f, fit %.0f ms\n",
                  name, (unsigned long long)n_nodes, (double)decoding / 1e6, (double)rewriting / 1e6,
                  (double)planning / 1e6, (double)proving / 1e6, (double)fitting / 1e6);
    assert_true(dj_clock_ns() - start < LIMIT_NS);
    dj_plan_destroy(plan);
    dj_graph_destroy(graph);
    dj_graph_destroy(twin);
    dj_program_fini(program);
}

/* Everything alive at once, in sizes that fit badly, then read in another order than it came. */
static void everything_alive(void **state)
{
    enum { N = 40000 };
    dj_program_t program = {0};
    dj_operand_t *all = calloc(N, sizeof *all);
    uint64_t seed = 3;
    assert_non_null(all);
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 4096));
    for (uint32_t i = 0; i < N; i++) {
        dj_operand_t part = x;
        part.view.sizes[0] = 1 + random_below(&seed, 4095);
        dj_operand_t number = number_operand(DJ_F64, 2);
        dj_arg_t args[] = {arg_tensor(&part), arg_tensor(&number)};
        all[i] = add_op(&program, "mul.Tensor", args);
    }
    dj_operand_t sum = x;
    int64_t dims[] = {0};
    for (uint32_t i = 0; i < N; i++) {
        dj_operand_t *other = &all[(i * 7919ull) % N];
        dj_arg_t args[] = {arg_tensor(other), arg_integers(dims, 1), arg_integer(1), arg_none()};
        dj_operand_t one = add_op(&program, "sum.dim_IntList", args);
        sum = add_binary(&program, "maximum", sum, one);
    }
    finish(&program, &sum.storage, 1);
    free(all);
    try_program("alive", &program);
}

/* The same op on the same value, again and again, and every result kept. */
static void everything_equal(void **state)
{
    enum { N = 60000 };
    dj_program_t program = {0};
    uint32_t *outputs = calloc(N, sizeof *outputs);
    assert_non_null(outputs);
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    for (uint32_t i = 0; i < N; i++) {
        dj_operand_t y = add_unary(&program, "exp", x);
        if (i % 2 == 0)
            x = add_binary(&program, "maximum", x, y);
        outputs[i] = y.storage;
    }
    finish(&program, outputs, N);
    free(outputs);
    try_program("equal", &program);
}

/* Concatenations of everything so far. */
static void everything_concatenated(void **state)
{
    enum { N = 400 };
    dj_program_t program = {0};
    dj_operand_t *parts = calloc(DJ_LIST_MAX, sizeof *parts);
    assert_non_null(parts);
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 1));
    for (uint32_t i = 0; i < DJ_LIST_MAX; i++)
        parts[i] = add_unary(&program, "exp", x);
    dj_operand_t last = x;
    for (uint32_t i = 0; i < N; i++) {
        dj_arg_t cat[] = {arg_list(parts, DJ_LIST_MAX), arg_integer(0)};
        dj_operand_t all = add_op(&program, "cat", cat);
        int64_t dims[] = {0};
        dj_arg_t sum[] = {arg_tensor(&all), arg_integers(dims, 1), arg_integer(1), arg_none()};
        last = parts[i] = add_op(&program, "sum.dim_IntList", sum);
    }
    finish(&program, &last.storage, 1);
    free(parts);
    try_program("concat", &program);
}

/* One storage written through windows that move with the request: a hazard at every node. */
static void everything_overlaps(void **state)
{
    enum { N = 60000 };
    dj_program_t program = {0};
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 4096));
    dj_operand_t base = add_unary(&program, "exp", x), low = base, high = base;
    low.view.sizes[0] = high.view.sizes[0] = 64;
    low.view.offset = 1;
    high.view.offset = 2;
    for (uint32_t i = 0; i < N; i++) {
        dj_arg_t args[] = {arg_tensor(i % 2 ? &low : &high), arg_tensor(i % 2 ? &high : &low),
                           arg_whole(1)};
        add_into(&program, "add.Tensor", args, NULL);
    }
    finish(&program, &base.storage, 1);
    try_program("overlap", &program);
}

/* Values that wait for long, made of a storage that is written while they do: none can be made again. */
static void everything_idles(void **state)
{
    enum { N = 40000 };
    dj_program_t program = {0};
    dj_operand_t *all = calloc(N, sizeof *all);
    assert_non_null(all);
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    dj_operand_t base = add_unary(&program, "exp", x);
    for (uint32_t i = 0; i < N; i++) {
        dj_operand_t number = number_operand(DJ_F64, 2);
        dj_arg_t args[] = {arg_tensor(&base), arg_tensor(&number)};
        all[i] = add_op(&program, "mul.Tensor", args);
    }
    dj_arg_t args[] = {arg_tensor(&base), arg_tensor(&x), arg_whole(1)};
    add_into(&program, "add.Tensor", args, NULL);
    dj_operand_t sum = base;
    for (uint32_t i = 0; i < N; i++)
        sum = add_binary(&program, "maximum", sum, all[i]);
    finish(&program, &sum.storage, 1);
    free(all);
    try_program("idle", &program);
}

/* The same parts concatenated again and again with a large input, which is refused each time: in place, the
 * large wholes would be alive together. A long chain between makes every look at their lives long. */
static void everything_is_refused(void **state)
{
    enum { N = 6000, PARTS = 63, CHAIN = 100000 };
    dj_program_t program = {0};
    dj_operand_t parts[PARTS + 1];
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 4));
    dj_operand_t large = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 100000));
    for (uint32_t i = 0; i < PARTS; i++) {
        dj_operand_t number = number_operand(DJ_F64, 2);
        dj_arg_t args[] = {arg_tensor(&x), arg_tensor(&number)};
        parts[i] = add_op(&program, "mul.Tensor", args);
    }
    parts[PARTS] = large;
    dj_operand_t last = x;
    for (uint32_t i = 0; i < CHAIN; i++)
        last = add_unary(&program, "exp", last);
    for (uint32_t i = 0; i < N; i++) {
        int64_t dims[] = {0};
        dj_arg_t cat[] = {arg_list(parts, PARTS + 1), arg_integer(0)};
        dj_operand_t all = add_op(&program, "cat", cat);
        dj_arg_t sum[] = {arg_tensor(&all), arg_integers(dims, 1), arg_integer(1), arg_none()};
        dj_operand_t one = add_op(&program, "sum.dim_IntList", sum);
        last = add_binary(&program, "maximum", last, one);
        dj_operand_t number = number_operand(DJ_F64, 2);
        dj_arg_t args[] = {arg_tensor(&x), arg_tensor(&number)};
        parts[i % 8] = add_op(&program, "mul.Tensor", args);
    }
    finish(&program, &last.storage, 1);
    try_program("refused", &program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_alive),
        cmocka_unit_test(everything_equal),
        cmocka_unit_test(everything_concatenated),
        cmocka_unit_test(everything_overlaps),
        cmocka_unit_test(everything_idles),
        cmocka_unit_test(everything_is_refused),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
