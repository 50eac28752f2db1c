/* transformer.c - records through the same two calls as a client: dj_op_infer(), dj_program_add(). */
#include "benchmarks/transformer.h"

#include <stdlib.h>

enum { HEADS = 12, WIDTH = 768, INNER = 4 * WIDTH, DEPTH = WIDTH / HEADS, PAST = 256 };

/* The first failure stays, and what follows it does nothing. */
typedef struct recorder {
    dj_program_t *program;
    int64_t length;
    uint32_t *outputs, n_outputs;
    dj_status_t status;
} recorder_t;

static dj_arg_t tensor(const dj_operand_t *operand)
{
    return (dj_arg_t){.kind = DJ_ARG_TENSORS, .count = 1, .slot = DJ_SLOT_NONE, .operands = operand};
}

static dj_arg_t integer(int64_t value)
{
    return (dj_arg_t){.kind = DJ_ARG_INTEGER, .slot = DJ_SLOT_NONE, .integer = value};
}

static dj_arg_t real(double value)
{
    return (dj_arg_t){.kind = DJ_ARG_SCALAR, .slot = DJ_SLOT_NONE,
                      .scalar = {.dtype = DJ_F64, .real = value}};
}

static dj_operand_t number(double value)
{
    dj_operand_t operand = {.storage = DJ_STORAGE_SCALAR, .slot = DJ_SLOT_NONE};
    operand.view.dtype = DJ_F64;
    operand.scalar = (dj_scalar_t){.dtype = DJ_F64, .real = value};
    return operand;
}

static dj_view_t dense(uint32_t rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    int64_t sizes[DJ_RANK_MAX] = {a, b, c, d};
    return dj_view_contiguous(DJ_F32, (uint8_t)rank, sizes);
}

static dj_operand_t input(recorder_t *r, dj_operand_class_t operand_class, dj_view_t view)
{
    uint32_t storage = dj_program_input(r->program, operand_class, dj_view_extent_bytes(&view));
    return (dj_operand_t){.storage = storage, .slot = DJ_SLOT_NONE, .view = view};
}

static dj_operand_t weight(recorder_t *r, int64_t rows, int64_t columns)
{
    dj_view_t view = columns ? dense(2, rows, columns, 0, 0) : dense(1, rows, 0, 0, 0);
    return input(r, DJ_CLASS_WEIGHT, view);
}

/* The op's first output. */
static dj_operand_t op(recorder_t *r, uint16_t number, const dj_arg_t *args)
{
    dj_call_t call = {.op = number, .n_args = dj_op_info(number)->n_args, .args = args};
    dj_view_t outs[DJ_OUTS_MAX] = {0};
    uint32_t storages[DJ_OUTS_MAX] = {0};
    if (r->status == DJ_OK)
        r->status = dj_op_infer(&call, outs);
    if (r->status == DJ_OK)
        r->status = dj_program_add(r->program, &call, NULL, storages);
    return (dj_operand_t){.storage = storages[0], .slot = DJ_SLOT_NONE, .view = outs[0]};
}

static dj_operand_t unary(recorder_t *r, uint16_t number, dj_operand_t a)
{
    dj_arg_t args[] = {tensor(&a)};
    return op(r, number, args);
}

static dj_operand_t multiply(recorder_t *r, dj_operand_t a, dj_operand_t b)
{
    dj_arg_t args[] = {tensor(&a), tensor(&b)};
    return op(r, DJ_OP_MUL, args);
}

static dj_operand_t add(recorder_t *r, dj_operand_t a, dj_operand_t b)
{
    dj_arg_t args[] = {tensor(&a), tensor(&b), real(1)};
    return op(r, DJ_OP_ADD, args);
}

/* The same elements as another shape; dense tensors only. */
static dj_operand_t seen_as(dj_operand_t operand, dj_view_t view)
{
    operand.view = view;
    return operand;
}

static dj_operand_t norm(recorder_t *r, dj_operand_t x)
{
    static const int64_t shape[] = {WIDTH};
    dj_operand_t scale = weight(r, WIDTH, 0), shift = weight(r, WIDTH, 0);
    dj_arg_t dims = {.kind = DJ_ARG_INTEGERS, .count = 1, .slot = DJ_SLOT_NONE, .integers = shape};
    dj_arg_t args[] = {tensor(&x), dims, tensor(&scale), tensor(&shift), real(1e-5)};
    return op(r, DJ_OP_LAYER_NORM, args);
}

static dj_operand_t product(recorder_t *r, dj_operand_t x, int64_t in, int64_t out)
{
    dj_operand_t bias = weight(r, out, 0), matrix = weight(r, in, out);
    x = seen_as(x, dense(2, r->length, in, 0, 0));
    dj_arg_t args[] = {tensor(&bias), tensor(&x), tensor(&matrix), real(1), real(1)};
    dj_operand_t y = op(r, DJ_OP_ADDMM, args);
    return seen_as(y, dense(3, 1, r->length, out, 0));
}

/* Queries, keys or values in the rows of their product: [1, heads, length, depth]. */
static dj_operand_t heads(const recorder_t *r, dj_operand_t rows, int64_t which)
{
    rows.view = dense(4, 1, HEADS, r->length, DEPTH);
    rows.view.offset = which * WIDTH;
    rows.view.strides[0] = r->length * 3 * WIDTH;
    rows.view.strides[1] = DEPTH;
    rows.view.strides[2] = 3 * WIDTH;
    return rows;
}

static dj_operand_t extended(recorder_t *r, dj_operand_t fresh)
{
    dj_operand_t both[] = {input(r, DJ_CLASS_STATE, dense(4, 1, HEADS, PAST, DEPTH)), fresh};
    dj_arg_t args[] = {{.kind = DJ_ARG_TENSORS, .count = 2, .slot = DJ_SLOT_NONE, .operands = both},
                       integer(2)};
    dj_operand_t longer = op(r, DJ_OP_CAT, args);
    r->outputs[r->n_outputs++] = longer.storage;
    return longer;
}

static dj_operand_t attention(recorder_t *r, dj_operand_t x)
{
    dj_operand_t rows = product(r, x, WIDTH, 3 * WIDTH);
    dj_operand_t q = heads(r, rows, 0), none = {.storage = DJ_STORAGE_NONE, .slot = DJ_SLOT_NONE};
    dj_operand_t k = extended(r, heads(r, rows, 1)), v = extended(r, heads(r, rows, 2));
    dj_arg_t args[] = {tensor(&q), tensor(&k), tensor(&v), tensor(&none),
                       real(0),    integer(0), {.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE},
                       integer(0)};
    return product(r, op(r, DJ_OP_SDPA, args), WIDTH, WIDTH);
}

/* x / 2 * (1 + tanh(0.798 * (x + 0.0447 * x^3))), as it is written in GPT-2. */
static dj_operand_t gelu(recorder_t *r, dj_operand_t x)
{
    dj_arg_t power[] = {tensor(&x), real(3)};
    dj_operand_t half = multiply(r, x, number(0.5));
    dj_operand_t cube = multiply(r, op(r, DJ_OP_POW_SCALAR, power), number(0.044715));
    dj_operand_t inner = multiply(r, add(r, x, cube), number(0.7978845608028654));
    return multiply(r, half, add(r, unary(r, DJ_OP_TANH, inner), number(1)));
}

static dj_operand_t layer(recorder_t *r, dj_operand_t x)
{
    x = add(r, x, attention(r, norm(r, x)));
    dj_operand_t inner = gelu(r, product(r, norm(r, x), WIDTH, INNER));
    return add(r, x, product(r, inner, INNER, WIDTH));
}

dj_status_t dj_transformer_record(uint32_t n_nodes, int64_t length, dj_program_t *program)
{
    recorder_t r = {.program = program, .length = length};
    if (n_nodes > DJ_TRANSFORMER_NODES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a transformer of %u ops; at most %d", n_nodes,
                       DJ_TRANSFORMER_NODES_MAX);
    /* a layer has more than two nodes, and two outputs */
    r.outputs = calloc(n_nodes + 32ull, sizeof(*r.outputs));
    if (!r.outputs)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a transformer of %u ops", n_nodes);
    dj_program_reset(program);
    dj_operand_t x = input(&r, DJ_CLASS_IMMEDIATE, dense(3, 1, length, WIDTH, 0));
    do
        x = layer(&r, x);
    while (r.status == DJ_OK && program->n_nodes + 1 < n_nodes);
    r.outputs[r.n_outputs++] = norm(&r, x).storage;
    if (r.status == DJ_OK)
        r.status = dj_program_finish(program, r.outputs, r.n_outputs, NULL, NULL);
    free(r.outputs);
    return r.status;
}
