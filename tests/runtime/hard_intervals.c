/* hard_intervals.c - records each candidate as the client of test_improve.c does, and plans it. */
#include "planner/rewrite.h"
#include "tests/planner/builder.h"
#include "tests/runtime/hard_intervals.h"

enum { SEED_MAX = 200000, MARGIN = 2 * DJ_ALIGN_BYTES };

static dj_operand_t window(dj_operand_t tensor, int64_t offset, int64_t size)
{
    tensor.view = shape(DJ_F32, 1, (int)size);
    tensor.view.offset = offset;
    return tensor;
}

static void record(dj_program_t *program, const interval_step_t *steps, uint32_t n_steps)
{
    dj_operand_t tensors[INTERVALS_MAX];
    dj_program_reset(program);
    dj_operand_t x = input_of(program, DJ_CLASS_STATE, shape(DJ_F32, 1, INTERVAL_ELEMENTS));
    dj_operand_t sum = window(x, 0, 1);
    for (uint32_t i = 0; i < n_steps; i++) {
        uint32_t number = steps[i].number;
        if (steps[i].units)
            tensors[number] = add_unary(program, "exp", window(x, number, steps[i].units * 64));
        else
            sum = add_binary(program, "add.Tensor", sum, window(tensors[number], 0, 1));
    }
    finish(program, &sum.storage, 1);
}

static bool is_hard(uint64_t seed, uint32_t n, uint32_t alive_max)
{
    static const dj_plan_needs_t needs = {.flops_per_ns = 1, .bytes_per_ns = 1};
    interval_step_t steps[2 * INTERVALS_MAX];
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_plan_t *plan;
    record(&program, steps, random_intervals(seed, n, alive_max, steps));
    assert_ok(decode(&program, &graph));
    assert_ok(dj_graph_rewrite(graph, NULL, 0, NULL));
    assert_ok(dj_plan_make(graph, &needs, &plan));
    bool hard = plan->peak_bytes > plan->bound_bytes + MARGIN;
    dj_plan_destroy(plan);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
    return hard;
}

uint32_t hard_intervals(uint32_t n, uint32_t alive_max, uint32_t count, uint64_t *seeds)
{
    uint32_t found = 0;
    dj_hash_setup();
    for (uint64_t seed = 1; seed < SEED_MAX && found < count; seed++)
        if (is_hard(seed, n, alive_max))
            seeds[found++] = seed;
    return found;
}
