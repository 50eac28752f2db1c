/* ops.h - the op table: every op that Djinn records, with its signature, shape rule and expression.
 *
 * Names are ATen's ("aten::add.Tensor"); the table is planner/ops.def, one row an op:
 *     OP(ID, "aten::name.overload", "signature", shape rule, expression)
 *
 * Signature: one character per argument of the ATen schema, in its order:
 *   t  tensor        T  tensor or none     l  list of tensors     L  list of tensors or nones
 *   n  shaping integer (a size)            N  list of shaping integers
 *   d  structural integer (a dimension)    D  list of structural integers, or none
 *   b  structural flag                     y  dtype, or none
 *   s  scalar        S  scalar or none     (an input of the request: it shapes nothing)
 *   -  not recorded (layout, device, pin_memory, memory_format, generator, names)
 * Then '>' and what the op does with memory:
 *   1..5  that many new outputs (one that an output mask leaves out has no elements)
 *   !     writes part of its first tensor argument in place (index_copy and its like); no new output
 *   v     nothing: its output views the storage of its first tensor argument, which counts from
 *         offset 0 of that storage as the argument does. Such rows answer dj_op_infer() and are never
 *         part of a program, where every use carries its own window.
 * A tensor argument may be a scalar (ATen's wrapped numbers: x * 2 arrives as mul.Tensor): it then
 * counts as a 0-dimensional operand that only lifts the dtype category.
 *
 * Every op with new outputs may instead be told to write its output 0 INTO a view of an existing
 * storage (ATen's in-place and out= variants): see program.h.
 *
 * Expression: a pointwise op is one C expression over a, b, c (operands, or scalars standing in for
 * tensors, in order, converted to the compute type) and s0, s1 (scalar arguments in order). Host and
 * CUDA compile the same text. Functions it may call: fabs exp log sqrt tanh erf sin cos pow floor
 * ceil (through the DJ_* names of gpu/pointwise.h, one per compute type). Others have `-`.
 *
 * "Is it supported?" is answered by a device's kernel slot alone. The table's hash is exchanged in the
 * hello: two builds with different tables do not talk. */
#ifndef DJ_PLANNER_OPS_H
#define DJ_PLANNER_OPS_H

#include "planner/tensor.h"
#include "runtime/base/hash.h"

typedef enum dj_op {
#define OP(id, name, signature, shape, ...) DJ_OP_##id,
#include "planner/ops.def"
#undef OP
    DJ_OP_COUNT,
} dj_op_t;

#define DJ_ARGS_MAX 16
#define DJ_OUTS_MAX 5
#define DJ_LIST_MAX 1024 /* operands of one list argument (cat) */
#define DJ_STRUCTURAL_MAX (2 * DJ_RANK_MAX) /* integers of one D: two pads a dimension */

/* A tensor operand. `storage` numbers the storages of one program (program.h); shape rules ignore
 * it. With DJ_STORAGE_SCALAR the operand is a scalar standing in for a tensor: view.dtype is its
 * dtype, rank 0, and `scalar` the value. */
#define DJ_STORAGE_NONE UINT32_MAX
#define DJ_STORAGE_SCALAR (UINT32_MAX - 1)
#define DJ_SLOT_NONE UINT32_MAX

typedef struct dj_operand {
    uint32_t storage;
    uint32_t version; /* which write of the storage this reads: 0 before the first (graph.h) */
    uint32_t slot;    /* of the view's offset, or of the scalar; DJ_SLOT_NONE when offset is 0 */
    dj_scalar_t scalar;
    dj_view_t view;
} dj_operand_t;

typedef enum dj_arg_kind {
    DJ_ARG_NONE,
    DJ_ARG_TENSORS, /* t, T, l, L: `count` operands (an absent list element: DJ_STORAGE_NONE) */
    DJ_ARG_INTEGER, /* n, d, b, y */
    DJ_ARG_INTEGERS,
    DJ_ARG_SCALAR,
} dj_arg_kind_t;

typedef struct dj_arg {
    uint8_t kind;
    uint32_t count; /* operands or integers */
    uint32_t slot;  /* of a scalar in the request's scalar vector */
    union {
        const dj_operand_t *operands;
        int64_t integer;
        const int64_t *integers;
        dj_scalar_t scalar;
    };
} dj_arg_t;

/* One op with its arguments, as the recorder gives it and as the server decodes it. */
typedef struct dj_call {
    uint16_t op;
    uint16_t n_args; /* exactly the letters of the signature before '>', '-' included */
    const dj_arg_t *args;
} dj_call_t;

typedef dj_status_t (*dj_shape_fn_t)(const dj_call_t *call, dj_view_t *outs);

typedef struct dj_op_info {
    const char *name;
    const char *signature;  /* with '>' and what follows */
    const char *expression; /* "" unless pointwise */
    dj_shape_fn_t shape;
    uint8_t n_args, n_outs; /* n_outs 0: writes its first tensor argument in place, or is a view */
    bool pointwise;  /* has an expression */
    bool broadcasts; /* each element from the operands' at the same place, expression or not */
    bool is_view;    /* '>v' */
} dj_op_info_t;

const dj_op_info_t *dj_op_info(uint16_t op); /* NULL for an unknown value */
/* Finds by ATen name with or without "aten::"; DJ_OP_COUNT when absent. Constant time. */
uint16_t dj_op_find(const char *name);
dj_hash_t dj_op_table_hash(void);

/* Checks argument kinds against the signature and infers every new output's dtype, sizes and
 * strides (offset 0), as PyTorch's meta functions do. For an op with '!' there is nothing to infer,
 * but the arguments are checked all the same. For a view op outs[0] is the window, with its offset;
 * whether it lies inside its storage, dj_view_check() says. outs has room for DJ_OUTS_MAX.
 * DJ_ERR_SHAPE, DJ_ERR_DTYPE, DJ_ERR_INVALID, DJ_ERR_LIMIT: the sentence names op, rule and shapes. */
dj_status_t dj_op_infer(const dj_call_t *call, dj_view_t *outs);

/* May output 0, inferred as `inferred`, be written INTO `target`? Same sizes; no element of the
 * target twice at one place; same dtype, except that copies convert to any dtype and pointwise ops
 * to any that PyTorch can cast their result to. DJ_ERR_SHAPE, DJ_ERR_DTYPE. */
dj_status_t dj_op_check_target(uint16_t op, const dj_view_t *inferred, const dj_view_t *target);

/* Ops that compute each element from the operands' elements at the same place: the pointwise ones
 * and the copies. They may run in place. */
bool dj_op_is_elementwise(uint16_t op);

/* Ops whose result differs from run to run: two of them are never one. */
bool dj_op_is_random(uint16_t op);

/* The dtype in which a pointwise op computes: PyTorch's promotion over operands and scalars, lifted
 * to float32 by ops that need a real number. Shared by the shape rules and the kernels. */
uint8_t dj_op_compute_dtype(const dj_call_t *call);

#endif
