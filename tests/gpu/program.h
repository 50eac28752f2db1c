/* program.h - records a small program, plans it, and replays it under every promise of the
 * contract.
 *
 * Each replay runs in a poisoned slab and twice; the highest byte changed must be the plan's peak,
 * and no allocation may happen, not even in the first. */
#ifndef DJ_TESTS_GPU_PROGRAM_H
#define DJ_TESTS_GPU_PROGRAM_H

#include "tests/gpu/allocations.h"
#include "tests/gpu/fixture.h"

#include "gpu/poison.h"
#include "gpu/segment.h"
#include "gpu/text.h"

#define CASE_BINDINGS_MAX 16

typedef struct test_case {
    dj_device_t *device;
    dj_program_t program;
    dj_text_t *texts[CASE_BINDINGS_MAX];
    void *bindings[CASE_BINDINGS_MAX];
    uint32_t n_inputs;
    dj_graph_t *graph;
    dj_plan_t *plan;
    dj_executable_t *exe;
    uint32_t slack; /* bytes past the peak that must stay untouched */
} test_case_t;

static inline void case_open(test_case_t *test, dj_device_t *device)
{
    memset(test, 0, sizeof(*test));
    test->device = device;
    dj_program_reset(&test->program);
}

static inline dj_operand_t case_input(test_case_t *test, dj_operand_class_t class, void *data,
                                      uint64_t bytes, dj_view_t view)
{
    test->bindings[test->n_inputs++] = data;
    return (dj_operand_t){.storage = dj_program_input(&test->program, class, bytes),
                          .slot = DJ_SLOT_NONE,
                          .view = view};
}

static inline dj_operand_t case_weight(test_case_t *test, dj_text_t *text, dj_view_t view)
{
    test->texts[test->n_inputs] = text;
    return case_input(test, DJ_CLASS_WEIGHT, text->data, text->bytes, view);
}

static inline dj_arg_t tensor_arg(const dj_operand_t *operand)
{
    if (!operand)
        return (dj_arg_t){.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE};
    return (dj_arg_t){.kind = DJ_ARG_TENSORS, .count = 1, .operands = operand};
}

static inline dj_arg_t real_arg(double value)
{
    return (dj_arg_t){.kind = DJ_ARG_SCALAR, .scalar = {.dtype = DJ_F64, .real = value}};
}

static inline dj_arg_t integer_arg(int64_t value)
{
    return (dj_arg_t){.kind = DJ_ARG_SCALAR, .scalar = {.dtype = DJ_I64, .integer = value}};
}

/* Records one op; output 0 is new, or goes into `target`. Returns output 0 as an operand. */
static inline dj_operand_t case_add(test_case_t *test, uint16_t op, const dj_arg_t *args,
                                    uint16_t n_args, const dj_operand_t *target)
{
    dj_call_t call = {.op = op, .n_args = n_args, .args = args};
    dj_view_t outs[DJ_OUTS_MAX];
    uint32_t storages[DJ_OUTS_MAX];
    dj_target_t targets[DJ_OUTS_MAX] = {{0}};
    if (target)
        targets[0] = (dj_target_t){.kind = DJ_TARGET_VIEW, .operand = target};
    dj_status_t status = dj_op_infer(&call, outs);
    if (status == DJ_OK)
        status = dj_program_add(&test->program, &call, target ? targets : NULL, storages);
    if (status != DJ_OK)
        print_error("%s\n", dj_error_text());
    assert_int_equal(status, DJ_OK);
    return (dj_operand_t){
        .storage = storages[0], .slot = DJ_SLOT_NONE, .view = target ? target->view : outs[0]};
}

/* Decodes, compiles, plans and places; called again after a failure, it goes on where it was. */
static inline dj_status_t case_build(test_case_t *test, const uint32_t *outputs, uint32_t n_outputs)
{
    dj_hash_t program_key, exact_key;
    dj_program_t *p = &test->program;
    dj_status_t status = DJ_OK;
    if (!test->graph)
        status = dj_program_finish(p, outputs, n_outputs, &program_key, &exact_key);
    if (status == DJ_OK && !test->graph)
        status = dj_graph_decode(p->structure.data, p->structure.size, p->sizes.data, p->sizes.size,
                                 (uint32_t)(p->scalars.size / 8), &test->graph);
    if (status == DJ_OK && !test->exe)
        status = test->device->ops->compile(test->device, test->graph, &test->exe);
    if (status != DJ_OK)
        return status;
    const dj_device_info_t *info = test->device->ops->info(test->device);
    dj_plan_needs_t needs = {.device_class = info->class_hash,
                             .workspace_bytes = test->device->ops->workspaces(test->exe)};
    if (!test->plan)
        status = dj_plan_make(test->graph, &needs, &test->plan);
    return status == DJ_OK ? test->device->ops->place(test->exe, test->plan) : status;
}

static inline dj_status_t case_replay(test_case_t *test)
{
    dj_segment_t stack;
    const dj_device_ops_t *ops = test->device->ops;
    uint64_t peak = test->plan->peak_bytes, slab = peak + 4096;
    if (!ops->bound(test->exe, test->texts)) {
        dj_status_t bound = ops->bind(test->exe, test->texts);
        if (bound != DJ_OK)
            return bound;
    }
    assert_true(ops->bound(test->exe, test->texts));
    assert_int_equal(dj_segment_init(&stack, test->device, slab), DJ_OK);
    assert_int_equal(dj_segment_grow(&stack, slab), DJ_OK);
    dj_launch_t launch = {test->bindings, stack.base, NULL,
                            (uint64_t *)test->program.scalars.data};
    dj_poison_fill(stack.base, slab, DJ_POISON_BYTE);
    allocations_start();
    dj_status_t status = ops->replay(test->exe, &launch);
    assert_int_equal(allocations_stop(), 0);
    if (status == DJ_OK)
        assert_int_equal(dj_poison_peak(stack.base, slab, DJ_POISON_BYTE), peak);
    dj_segment_fini(&stack);
    return status;
}

static inline void case_close(test_case_t *test)
{
    if (test->exe)
        test->device->ops->destroy(test->exe);
    dj_plan_destroy(test->plan);
    dj_graph_destroy(test->graph);
    dj_program_fini(&test->program);
}

#endif
