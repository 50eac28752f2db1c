/* Rewrites on programs nobody would write, checked by simulation, and for each pass one program
 * that shows what it saves. */
#include "planner/rewrite.h"
#include "planner/schedule.h"
#include "tests/planner/random_program.h"
#include "tests/planner/simulate.h"

static const dj_plan_needs_t needs = {
    .device_class = {{1, 2}}, .flops_per_ns = 100, .bytes_per_ns = 10, .step_ns = 200};

typedef struct pair {
    dj_program_t program;
    dj_graph_t *recorded, *graph;
    dj_plan_t *before, *after;
    dj_rewrite_report_t report;
} pair_t;

/* The most bytes alive at one step, without what groups keep alive for their tiles: these differ
 * before and after. */
static uint64_t live_bytes(const dj_graph_t *graph)
{
    dj_schedule_t schedule;
    uint64_t bytes;
    assert_ok(dj_schedule_init(&schedule, graph));
    assert_ok(dj_schedule_arrange(&schedule));
    for (uint32_t i = 0; i < schedule.n_places; i++)
        schedule.places[i].from = schedule.places[i].first;
    assert_ok(dj_places_alive(schedule.places, schedule.n_places, schedule.n_steps, 1, &bytes));
    dj_schedule_fini(&schedule);
    return bytes;
}

/* Rewrites and plans; the results must be the same and take no more memory. */
static void pair_run(pair_t *p)
{
    uint64_t touched;
    const uint64_t *scalars = (const uint64_t *)p->program.scalars.data;
    assert_ok(decode(&p->program, &p->recorded));
    assert_ok(decode(&p->program, &p->graph));
    assert_ok(dj_graph_rewrite(p->graph, NULL, 0, &p->report));
    assert_ok(dj_graph_check(p->graph));
    assert_ok(dj_plan_make(p->recorded, &needs, &p->before));
    assert_ok(dj_plan_make(p->graph, &needs, &p->after));
    assert_ok(dj_plan_verify(p->after, p->graph));
    assert_true(live_bytes(p->graph) <= live_bytes(p->recorded));
    for (uint64_t tile = 1; tile < 12; tile += 5)
        if (!simulate_rewritten(p->recorded, p->graph, p->after, scalars, tile, &touched))
            fail_msg("the rewritten program computes something else");
    assert_int_equal(touched, p->after->peak_bytes);
}

static void pair_fini(pair_t *p)
{
    dj_plan_destroy(p->before);
    dj_plan_destroy(p->after);
    dj_graph_destroy(p->recorded);
    dj_graph_destroy(p->graph);
    dj_program_fini(&p->program);
}

static void random_programs_stay_the_same(void **state)
{
    dj_rewrite_report_t total = {0};
    uint64_t before = 0, after = 0;
    for (uint64_t seed = 1; seed <= 4000; seed++) {
        pair_t p = {0};
        random_program(&p.program, seed, 4 + seed % 60);
        pair_run(&p);
#define X(name, what) total.name += p.report.name;
        DJ_REWRITE_LIST(X)
#undef X
        before += p.before->peak_bytes;
        after += p.after->peak_bytes;
        pair_fini(&p);
    }
#define X(name, what) print_message("%8u %s\n", total.name, what);
    DJ_REWRITE_LIST(X)
#undef X
    print_message("peaks: %llu bytes before, %llu after\n", (unsigned long long)before,
                  (unsigned long long)after);
    assert_true(total.dead > 1000 && total.merged > 100 && total.copies > 100 &&
                total.appended > 20 && total.beside > 100 && total.in_place > 1000);
    assert_true(after < before);
}

static void dead_nodes_go(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    dj_operand_t y = add_unary(&p.program, "exp", x);
    add_unary(&p.program, "tanh", add_unary(&p.program, "neg", y));
    finish(&p.program, &y.storage, 1);
    pair_run(&p);
    assert_int_equal(p.report.dead, 2);
    assert_int_equal(p.graph->n_nodes, 1);
    pair_fini(&p);
}

static void equal_products_are_made_once(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 16, 16));
    dj_operand_t a = add_binary(&p.program, "maximum", x, x),
                 b = add_binary(&p.program, "maximum", x, x);
    dj_arg_t first[] = {arg_tensor(&a), arg_tensor(&a)},
             second[] = {arg_tensor(&b), arg_tensor(&b)};
    dj_operand_t c = add_op(&p.program, "mm", first), d = add_op(&p.program, "mm", second);
    dj_operand_t sum = add_binary(&p.program, "mul.Tensor", c, d);
    uint32_t outputs[] = {d.storage, sum.storage};
    finish(&p.program, outputs, 2);
    pair_run(&p);
    assert_int_equal(p.report.merged, 2); /* c's producer writes the output d */
    assert_int_equal(p.graph->n_nodes, 3);
    assert_int_equal(p.graph->nodes[1].outs[0].storage, d.storage);
    pair_fini(&p);
}

static void what_scalars_tell_apart_stays_apart(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    dj_operand_t two = number_operand(DJ_F64, 2);
    dj_arg_t args[] = {arg_tensor(&x), arg_tensor(&two)};
    dj_operand_t a = add_op(&p.program, "mul.Tensor", args),
                 b = add_op(&p.program, "mul.Tensor", args);
    dj_operand_t c = add_binary(&p.program, "maximum", a, b);
    finish(&p.program, &c.storage, 1);
    pair_run(&p);
    assert_int_equal(p.report.merged, 0); /* a request may bring 2 and 3 */
    pair_fini(&p);
}

/* relu(x^T made contiguous): relu may look through the transposition itself. */
static void copies_are_looked_through(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 32, 64));
    dj_operand_t exp = add_unary(&p.program, "exp", x), turned = exp;
    turned.view = transposed(exp.view, 0, 1);
    dj_view_t target_view = shape(DJ_F32, 2, 64, 32);
    int64_t sizes[] = {64, 32};
    dj_arg_t empty[] = {arg_integers(sizes, 2), arg_integer(DJ_F32)};
    dj_operand_t fresh = add_op(&p.program, "djinn::empty", empty);
    assert_true(dj_view_equal(&fresh.view, &target_view));
    dj_operand_t same = add_unary(&p.program, "djinn::copy", exp); /* a whole repeated */
    dj_operand_t y = add_unary(&p.program, "relu", same);
    dj_arg_t add[] = {arg_tensor(&turned), arg_tensor(&turned), arg_whole(1)};
    dj_operand_t z = add_op(&p.program, "add.Tensor", add);
    uint32_t outputs[] = {y.storage, z.storage};
    finish(&p.program, outputs, 2);
    pair_run(&p);
    assert_int_equal(p.report.copies, 1);
    assert_int_equal(p.report.dead, 1);
    assert_true(p.report.bytes_moved >= 2 * 32 * 64 * 4);
    pair_fini(&p);
}

/* expand + contiguous, as grouped attention repeats its keys: the product reads the broadcast. */
static void windows_are_looked_through(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 1, 64));
    dj_operand_t row = add_unary(&p.program, "exp", x), wide = row;
    wide.view.sizes[0] = 128;
    wide.view.strides[0] = 0;
    dj_operand_t keep = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 128, 64));
    dj_arg_t copy[] = {arg_tensor(&wide)};
    dj_operand_t copied = add_op(&p.program, "djinn::copy", copy);
    dj_operand_t y = add_binary(&p.program, "maximum", copied, keep);
    finish(&p.program, &y.storage, 1);
    pair_run(&p);
    assert_int_equal(p.report.copies, dj_view_is_contiguous(&copied.view) ? 1 : 0);
    assert_int_equal(p.after->peak_bytes, 64 * 4);
    assert_int_equal(p.before->peak_bytes, 64 * 4 + 128 * 64 * 4);
    pair_fini(&p);
}

/* Four steps of decoding: each appends a row to a cache that nobody needs any more. */
static void a_dead_cache_is_appended_to(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 100, 64));
    dj_operand_t row = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 1, 64));
    dj_operand_t cache = add_unary(&p.program, "exp", x), sums[4];
    for (uint32_t i = 0; i < 4; i++) {
        int64_t dims[] = {0};
        dj_operand_t pieces[] = {cache, row};
        dj_arg_t cat[] = {arg_list(pieces, 2), arg_integer(0)};
        cache = add_op(&p.program, "cat", cat);
        dj_arg_t sum[] = {arg_tensor(&cache), arg_integers(dims, 1), arg_integer(0), arg_none()};
        sums[i] = add_op(&p.program, "sum.dim_IntList", sum);
    }
    uint32_t outputs[] = {sums[0].storage, sums[1].storage, sums[2].storage, sums[3].storage};
    finish(&p.program, outputs, 4);
    pair_run(&p);
    assert_true(p.report.appended >= 1);
    assert_true(p.report.bytes_moved >= 2 * 100 * 64 * 4);
    assert_true(p.after->peak_bytes < p.before->peak_bytes);
    pair_fini(&p);
}

/* sin and cos of one angle, side by side: both write the concatenation. */
static void parts_are_written_in_place(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 8, 64));
    dj_operand_t parts[] = {add_unary(&p.program, "sin", x), add_unary(&p.program, "cos", x)};
    dj_arg_t cat[] = {arg_list(parts, 2), arg_integer(0)};
    dj_operand_t both = add_op(&p.program, "cat", cat);
    finish(&p.program, &both.storage, 1);
    pair_run(&p);
    assert_int_equal(p.report.appended, 2);
    assert_int_equal(p.graph->n_nodes, 2);
    assert_int_equal(p.after->peak_bytes, 0); /* both in the output itself */
    assert_int_equal(p.after->n_groups, 1);   /* apart, and so still one group */
    pair_fini(&p);
}

/* Logits wait for their argmax while something else runs. */
static void reductions_move_to_their_producer(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 16, 16));
    dj_operand_t w = input_of(&p.program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 16, 4096));
    dj_operand_t v = input_of(&p.program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 16, 4096));
    dj_arg_t mm[] = {arg_tensor(&x), arg_tensor(&w)}, mm2[] = {arg_tensor(&x), arg_tensor(&v)};
    int64_t dims[] = {1};
    dj_operand_t logits = add_op(&p.program, "mm", mm);
    dj_operand_t other = add_op(&p.program, "mm", mm2);
    dj_operand_t more = add_unary(&p.program, "exp", other);
    dj_arg_t argmax[] = {arg_tensor(&logits), arg_integers(dims, 1), arg_integer(0)};
    dj_arg_t softmax[] = {arg_tensor(&more), arg_integer(1), arg_integer(0)};
    dj_operand_t soft = add_op(&p.program, "_softmax", softmax);
    dj_operand_t best = add_op(&p.program, "argmax", argmax);
    dj_arg_t sum[] = {arg_tensor(&soft), arg_integers(dims, 1), arg_integer(0), arg_none()};
    dj_operand_t total = add_op(&p.program, "sum.dim_IntList", sum);
    uint32_t outputs[] = {best.storage, total.storage};
    finish(&p.program, outputs, 2);
    pair_run(&p);
    assert_int_equal(p.report.beside, 1);
    assert_int_equal(p.graph->nodes[1].call.op, DJ_OP_ARGMAX);
    assert_true(p.before->peak_bytes >= 3 * 16 * 4096 * 4);
    assert_true(p.after->peak_bytes < 2 * 16 * 4096 * 4 + 1024);
    pair_fini(&p);
}

static void chains_run_in_one_place(void **state)
{
    pair_t p = {0};
    dj_program_reset(&p.program);
    dj_operand_t x = input_of(&p.program, DJ_CLASS_STATE, shape(DJ_F32, 2, 64, 64));
    for (uint32_t i = 0; i < 20; i++)
        x = add_unary(&p.program, "tanh", x);
    dj_arg_t softmax[] = {arg_tensor(&x), arg_integer(1), arg_integer(0)};
    dj_operand_t y = add_op(&p.program, "_softmax", softmax);
    finish(&p.program, &y.storage, 1);
    pair_run(&p);
    assert_int_equal(p.report.in_place, 19);
    assert_int_equal(p.before->peak_bytes, 2 * 64 * 64 * 4);
    assert_int_equal(p.after->peak_bytes, 64 * 64 * 4);
    pair_fini(&p);
}

static dj_status_t breaks(dj_rewriter_t *rewriter)
{
    dj_graph_t *graph = dj_rewriter_graph(rewriter);
    dj_rewriter_drop(rewriter, 0);
    return graph->n_nodes > 0 ? DJ_OK : DJ_ERR_INVALID;
}

static void a_plugin_that_breaks_the_graph_is_found(void **state)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    const dj_rewrite_fn_t plugins[] = {breaks};
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 64));
    dj_operand_t y = add_unary(&program, "exp", x);
    dj_arg_t softmax[] = {arg_tensor(&y), arg_integer(0), arg_integer(0)};
    dj_operand_t z = add_op(&program, "_softmax", softmax);
    finish(&program, &z.storage, 1);
    assert_ok(decode(&program, &graph));
    assert_int_equal(dj_graph_rewrite(graph, plugins, 1, NULL), DJ_ERR_INTERNAL);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plugin_that_breaks_the_graph_is_found),
        cmocka_unit_test(what_scalars_tell_apart_stays_apart),
        cmocka_unit_test(dead_nodes_go),
        cmocka_unit_test(equal_products_are_made_once),
        cmocka_unit_test(copies_are_looked_through),
        cmocka_unit_test(windows_are_looked_through),
        cmocka_unit_test(a_dead_cache_is_appended_to),
        cmocka_unit_test(parts_are_written_in_place),
        cmocka_unit_test(reductions_move_to_their_producer),
        cmocka_unit_test(chains_run_in_one_place),
        cmocka_unit_test(random_programs_stay_the_same),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
