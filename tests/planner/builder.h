/* builder.h - programs for the planner's tests, written in few lines.
 *
 * A tensor here is an operand; ops are named, arguments are made by arg_*(). The builder asserts
 * where a test has no business failing. Operands handed to arg_tensor() must outlive the call. */
#ifndef DJ_TESTS_PLANNER_BUILDER_H
#define DJ_TESTS_PLANNER_BUILDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "planner/cache.h"
#include "planner/plan.h"

/* What cmocka prints is not enough where a status fails: say the sentence too. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        dj_status_t status_ = (call);                                                              \
        if (status_ != DJ_OK)                                                                      \
            fail_msg("%s: %s", dj_status_name(status_), dj_error_text());                          \
    } while (0)

/* xorshift: the same numbers on every machine. */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline uint32_t random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)((random_next(state) >> 16) % limit);
}

static inline dj_arg_t arg_none(void)
{
    return (dj_arg_t){.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE};
}

static inline dj_arg_t arg_list(const dj_operand_t *operands, uint32_t count)
{
    return (dj_arg_t){.kind = DJ_ARG_TENSORS, .count = count, .slot = DJ_SLOT_NONE,
                      .operands = operands};
}

static inline dj_arg_t arg_tensor(const dj_operand_t *operand)
{
    return arg_list(operand, 1);
}

static inline dj_arg_t arg_integer(int64_t integer)
{
    return (dj_arg_t){.kind = DJ_ARG_INTEGER, .slot = DJ_SLOT_NONE, .integer = integer};
}

static inline dj_arg_t arg_integers(const int64_t *integers, uint32_t count)
{
    return (dj_arg_t){.kind = DJ_ARG_INTEGERS, .count = count, .slot = DJ_SLOT_NONE,
                      .integers = integers};
}

static inline dj_arg_t arg_real(double real)
{
    return (dj_arg_t){.kind = DJ_ARG_SCALAR, .slot = DJ_SLOT_NONE,
                      .scalar = {.dtype = DJ_F64, .real = real}};
}

static inline dj_arg_t arg_whole(int64_t integer)
{
    return (dj_arg_t){.kind = DJ_ARG_SCALAR, .slot = DJ_SLOT_NONE,
                      .scalar = {.dtype = DJ_I64, .integer = integer}};
}

static inline dj_operand_t number_operand(uint8_t dtype, double value)
{
    dj_operand_t operand = {.storage = DJ_STORAGE_SCALAR, .slot = DJ_SLOT_NONE};
    operand.view.dtype = operand.scalar.dtype = dtype;
    if (dtype == DJ_F64)
        operand.scalar.real = value;
    else
        operand.scalar.integer = (int64_t)value;
    return operand;
}

static inline dj_view_t shape(uint8_t dtype, uint32_t rank, ...)
{
    int64_t sizes[DJ_RANK_MAX] = {0};
    va_list list;
    va_start(list, rank);
    for (uint32_t i = 0; i < rank; i++)
        sizes[i] = va_arg(list, int);
    va_end(list);
    return dj_view_contiguous(dtype, (uint8_t)rank, sizes);
}

static inline dj_view_t transposed(dj_view_t view, uint32_t a, uint32_t b)
{
    int64_t size = view.sizes[a], stride = view.strides[a];
    view.sizes[a] = view.sizes[b], view.strides[a] = view.strides[b];
    view.sizes[b] = size, view.strides[b] = stride;
    return view;
}

static inline dj_operand_t operand_of(uint32_t storage, dj_view_t view)
{
    return (dj_operand_t){.storage = storage, .slot = DJ_SLOT_NONE, .view = view};
}

static inline dj_operand_t input_of(dj_program_t *program, dj_operand_class_t operand_class,
                                    dj_view_t view)
{
    return operand_of(dj_program_input(program, operand_class, dj_view_extent_bytes(&view)), view);
}

static inline dj_call_t call_of(const char *name, const dj_arg_t *args)
{
    uint16_t op = dj_op_find(name);
    if (op == DJ_OP_COUNT)
        fail_msg("no op %s", name);
    return (dj_call_t){.op = op, .n_args = dj_op_info(op)->n_args, .args = args};
}

/* Adds an op with one new output. */
static inline dj_operand_t add_op(dj_program_t *program, const char *name, const dj_arg_t *args)
{
    dj_call_t call = call_of(name, args);
    dj_view_t outs[DJ_OUTS_MAX];
    uint32_t storages[DJ_OUTS_MAX];
    assert_ok(dj_op_infer(&call, outs));
    assert_ok(dj_program_add(program, &call, NULL, storages));
    return operand_of(storages[0], outs[0]);
}

static inline dj_operand_t add_unary(dj_program_t *program, const char *name, dj_operand_t a)
{
    dj_arg_t args[] = {arg_tensor(&a)};
    return add_op(program, name, args);
}

static inline dj_operand_t add_binary(dj_program_t *program, const char *name, dj_operand_t a,
                                      dj_operand_t b)
{
    dj_arg_t args[] = {arg_tensor(&a), arg_tensor(&b), arg_whole(1)};
    return add_op(program, name, args);
}

/* Adds an op whose output 0 goes INTO argument 0, or into `view` when given. */
static inline void add_into(dj_program_t *program, const char *name, const dj_arg_t *args,
                            const dj_operand_t *view)
{
    dj_call_t call = call_of(name, args);
    dj_target_t targets[DJ_OUTS_MAX] = {
        {.kind = view != NULL ? DJ_TARGET_VIEW : DJ_TARGET_ARGUMENT, .operand = view}};
    uint32_t storages[DJ_OUTS_MAX];
    assert_ok(dj_program_add(program, &call, targets, storages));
}

static inline void finish(dj_program_t *program, const uint32_t *outputs, uint32_t n_outputs)
{
    dj_hash_t program_key, exact_key;
    assert_ok(dj_program_finish(program, outputs, n_outputs, &program_key, &exact_key));
}

static inline dj_status_t decode(const dj_program_t *program, dj_graph_t **graph_p)
{
    return dj_graph_decode(program->structure.data, program->structure.size, program->sizes.data,
                           program->sizes.size, (uint32_t)(program->scalars.size / 8), graph_p);
}

#endif
