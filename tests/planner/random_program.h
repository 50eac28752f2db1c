/* random_program.h - programs nobody would write: views of views, in-place ops, aliased windows.
 *
 * random_program() records `n_ops` ops over a pool of tensors with several storages each seen through
 * several windows, so that every hazard of the planner turns up. */
#ifndef DJ_TESTS_PLANNER_RANDOM_PROGRAM_H
#define DJ_TESTS_PLANNER_RANDOM_PROGRAM_H

#include "tests/planner/builder.h"

#define POOL_MAX 512

typedef struct pool {
    dj_program_t *program;
    uint64_t seed;
    dj_operand_t tensors[POOL_MAX];
    uint32_t n_tensors;
    uint8_t sealed[POOL_MAX]; /* by storage */
    uint8_t inputs[POOL_MAX];
} pool_t;

static inline void pool_add(pool_t *pool, dj_operand_t operand)
{
    uint32_t at = pool->n_tensors < POOL_MAX ? pool->n_tensors++
                                             : random_below(&pool->seed, POOL_MAX);
    pool->tensors[at] = operand;
}

static inline dj_operand_t pool_any(pool_t *pool)
{
    /* mostly recent ones, so that chains form */
    uint32_t span = random_below(&pool->seed, 4) != 0 && pool->n_tensors > 6 ? 6 : pool->n_tensors;
    return pool->tensors[pool->n_tensors - 1 - random_below(&pool->seed, span)];
}

/* Another window on the storage of a tensor. */
static inline void pool_view(pool_t *pool)
{
    dj_operand_t operand = pool_any(pool);
    dj_view_t *view = &operand.view;
    if (view->rank == 0)
        return;
    uint32_t dim = random_below(&pool->seed, view->rank);
    switch (random_below(&pool->seed, 4)) {
    case 0: /* narrow */
        if (view->sizes[dim] > 1) {
            int64_t length = (view->sizes[dim] + 1) / 2;
            uint32_t room = (uint32_t)(view->sizes[dim] - length + 1);
            view->offset += random_below(&pool->seed, room) * view->strides[dim];
            view->sizes[dim] = length;
        }
        break;
    case 1:
        *view = transposed(*view, dim, view->rank - 1);
        break;
    case 2: /* every second element */
        view->sizes[dim] = (view->sizes[dim] + 1) / 2;
        view->strides[dim] *= 2;
        break;
    default: /* a row, broadcast back */
        view->strides[dim] = 0;
        break;
    }
    pool_add(pool, operand);
}

static inline bool writable(pool_t *pool, const dj_operand_t *operand)
{
    return operand->storage < POOL_MAX && !pool->sealed[operand->storage];
}

/* Records the call if its shapes fit, sometimes INTO something. */
static inline void pool_call(pool_t *pool, const char *name, const dj_arg_t *args, bool may_write)
{
    dj_call_t call = call_of(name, args);
    dj_view_t outs[DJ_OUTS_MAX];
    uint32_t storages[DJ_OUTS_MAX];
    dj_target_t targets[DJ_OUTS_MAX] = {{0}};
    dj_operand_t other = pool_any(pool);
    uint32_t way = random_below(&pool->seed, 4);
    if (dj_op_infer(&call, outs) != DJ_OK)
        return;
    if (may_write && way == 0 && args[0].kind == DJ_ARG_TENSORS &&
        writable(pool, &args[0].operands[0]) &&
        dj_op_check_target(call.op, &outs[0], &args[0].operands[0].view) == DJ_OK)
        targets[0].kind = DJ_TARGET_ARGUMENT;
    if (may_write && way == 1 && writable(pool, &other) &&
        dj_op_check_target(call.op, &outs[0], &other.view) == DJ_OK)
        targets[0] = (dj_target_t){.kind = DJ_TARGET_VIEW, .operand = &other};
    bool again = random_below(&pool->seed, 8) == 0; /* the same once more */
    for (uint32_t round = 0; round <= again; round++) {
        assert_ok(dj_program_add(pool->program, &call, targets, storages));
        for (uint32_t i = 0; i < dj_op_info(call.op)->n_outs; i++)
            if (targets[i].kind == DJ_TARGET_NEW)
                pool_add(pool, operand_of(storages[i], outs[i]));
    }
}

static inline void pool_index_copy(pool_t *pool, dj_operand_t a)
{
    int64_t count = a.view.rank > 0 ? a.view.sizes[0] : 1;
    dj_arg_t range[] = {arg_integer(count), arg_whole(0), arg_whole(1), arg_integer(DJ_I64)};
    if (!writable(pool, &a) || dj_op_check_target(DJ_OP_ADD, &a.view, &a.view) != DJ_OK)
        return;
    dj_operand_t index = add_op(pool->program, "djinn::arange", range);
    dj_operand_t source = add_unary(pool->program, "djinn::copy", a);
    dj_arg_t args[] = {arg_tensor(&a), arg_integer(0), arg_tensor(&index), arg_tensor(&source)};
    pool_call(pool, "index_copy_", args, false);
}

static inline void pool_step(pool_t *pool)
{
    static const char *const unary[] = {"neg", "exp", "sin", "tanh"};
    static const uint8_t dtypes[] = {DJ_F32, DJ_F32, DJ_F64, DJ_I64};
    dj_operand_t a = pool_any(pool), b = pool_any(pool), pair[2] = {a, b};
    dj_operand_t number = number_operand(DJ_F64, 2);
    dj_arg_t two[] = {arg_tensor(&a), arg_tensor(&b), arg_whole(1)};
    dj_arg_t scaled[] = {arg_tensor(&a), arg_tensor(&number)};
    dj_arg_t softmax[] = {arg_tensor(&a), arg_integer(-1), arg_integer(0)};
    dj_arg_t norm[] = {arg_tensor(&a),
                       arg_integers(a.view.sizes + (a.view.rank > 0 ? a.view.rank - 1 : 0), 1),
                       arg_none(), arg_none(), arg_real(1e-5)};
    dj_arg_t cat[] = {arg_list(pair, 2), arg_integer(0)};
    dj_arg_t cast[] = {arg_tensor(&a), arg_integer(dtypes[random_below(&pool->seed, 4)])};
    switch (random_below(&pool->seed, 16)) {
    case 0:
    case 1:
    case 2:
    case 3:
        pool_call(pool, "add.Tensor", two, true);
        break;
    case 4:
    case 5:
        pool_call(pool, "mul.Tensor", scaled, true);
        break;
    case 6:
    case 7:
        pool_call(pool, unary[random_below(&pool->seed, 4)], two, true);
        break;
    case 8:
        pool_call(pool, "djinn::copy", two, true);
        break;
    case 9:
        pool_call(pool, "_softmax", softmax, true);
        break;
    case 10:
        pool_call(pool, "native_layer_norm", norm, true);
        break;
    case 11:
        pool_call(pool, "cat", cat, true);
        break;
    case 12:
        pool_index_copy(pool, a);
        break;
    case 13:
        pool_call(pool, "djinn::to_copy", cast, true);
        break;
    case 14:
        pool_call(pool, "gt.Tensor", two, true);
        break;
    default:
        pool_view(pool);
        break;
    }
}

/* The program is reset, recorded and finished. */
static inline void random_program(dj_program_t *program, uint64_t seed, uint32_t n_ops)
{
    pool_t *pool = calloc(1, sizeof *pool);
    uint32_t outputs[POOL_MAX], n_outputs = 0;
    assert_non_null(pool);
    pool->program = program;
    pool->seed = seed * 0x9e3779b97f4a7c15ull + 88172645463325252ull;
    dj_program_reset(program);
    for (uint32_t i = 0; i < 3; i++) {
        dj_view_t view = i == 1 ? shape(DJ_F32, 2, 4, 8) : shape(DJ_F32, 3, 2, 4, 8);
        dj_operand_t input = input_of(program, (dj_operand_class_t)i, view);
        pool->sealed[input.storage] = i == DJ_CLASS_WEIGHT;
        pool->inputs[input.storage] = 1;
        pool_add(pool, input);
    }
    while (program->n_nodes < n_ops && program->n_storages < POOL_MAX - 8)
        pool_step(pool);
    for (uint32_t i = 3; i < program->n_storages; i++)
        if (random_below(&pool->seed, 8) == 0)
            outputs[n_outputs++] = i;
    finish(program, outputs, n_outputs);
    free(pool);
}

#endif
