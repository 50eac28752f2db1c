/* node.h - what a kernel reads off its node when it is prepared, the same for every device: operands,
 * scalars, flags, and the type in which it computes.
 *
 * Threads: pure. */
#ifndef DJ_GPU_NODE_H
#define DJ_GPU_NODE_H

#include "planner/graph.h"

/* One dtype class a compute type (gpu/pointwise.h). */
typedef enum dj_class {
    DJ_CLASS_F32,
    DJ_CLASS_F64,
    DJ_CLASS_I64,
    DJ_CLASS_B8,
    DJ_CLASSES,
} dj_class_t;

static inline dj_class_t dj_class_of(uint8_t dtype)
{
    if (dtype == DJ_BOOL)
        return DJ_CLASS_B8;
    if (dtype == DJ_F64)
        return DJ_CLASS_F64;
    return dtype >= DJ_F16 && dtype <= DJ_F32 ? DJ_CLASS_F32 : DJ_CLASS_I64;
}

/* The dtype whose bytes are the class's own. */
static inline uint8_t dj_class_dtype(dj_class_t class)
{
    static const uint8_t dtypes[] = {DJ_F32, DJ_F64, DJ_I64, DJ_BOOL};
    return dtypes[class];
}

/* The operand of a tensor argument; NULL when absent. */
static inline const dj_operand_t *dj_node_operand(const dj_node_t *node, uint32_t arg)
{
    const dj_arg_t *a = &node->call.args[arg];
    if (a->kind != DJ_ARG_TENSORS || a->count == 0 || a->operands[0].storage == DJ_STORAGE_NONE)
        return NULL;
    return &a->operands[0];
}

/* A scalar argument, or a scalar standing in for a tensor: where its value will be. */
typedef struct dj_node_scalar {
    uint32_t slot; /* DJ_SLOT_NONE: absent */
    uint8_t dtype;
} dj_node_scalar_t;

static inline dj_node_scalar_t dj_node_scalar(const dj_node_t *node, uint32_t arg)
{
    const dj_arg_t *a = &node->call.args[arg];
    if (a->kind == DJ_ARG_TENSORS && a->count && a->operands[0].storage == DJ_STORAGE_SCALAR)
        return (dj_node_scalar_t){a->operands[0].slot, a->operands[0].view.dtype};
    if (a->kind == DJ_ARG_SCALAR && a->scalar.dtype != DJ_DTYPE_NONE)
        return (dj_node_scalar_t){a->slot, a->scalar.dtype};
    return (dj_node_scalar_t){DJ_SLOT_NONE, DJ_DTYPE_NONE};
}

/* A structural integer or flag; `absent` when the argument is none. */
static inline int64_t dj_node_flag(const dj_node_t *node, uint32_t arg, int64_t absent)
{
    const dj_arg_t *a = &node->call.args[arg];
    return a->kind == DJ_ARG_INTEGER ? a->integer : absent;
}

/* A dimension argument brought into 0..rank-1 (0 for rank 0). */
static inline uint32_t dj_node_dim(int64_t dim, uint32_t rank)
{
    dim = dim < 0 ? dim + rank : dim;
    return dim >= 0 && dim < (int64_t)rank ? (uint32_t)dim : 0;
}

/* Which dimensions a reduction's argument names: one, a list, or, absent or an empty list, all; but any and all take an
 * empty list as it is, as PyTorch does. Fills marked[0..rank-1]. */
void dj_node_mark_dims(const dj_node_t *node, uint32_t arg, uint32_t rank, bool *marked);

/* The output less the dimensions that only keepdim has there. DJ_ERR_SHAPE: it is not the input reduced so. */
dj_status_t dj_node_kept_dims(const dj_view_t *in, const dj_view_t *out, const bool *marked, dj_view_t *kept_p);

/* Number of an argument's first operand among a node's operands: every operand of every tensor
 * argument in call order, then the outputs. A DJ_ARG_NONE argument takes no
 * place; an absent list element takes one that is NULL. With arg = n_args: of the first output. */
static inline uint32_t dj_node_operand_index(const dj_call_t *call, uint32_t arg)
{
    uint32_t index = 0;
    for (uint32_t i = 0; i < arg; i++)
        if (call->args[i].kind == DJ_ARG_TENSORS)
            index += call->args[i].count;
    return index;
}

/* As an integer dtype holds it: PyTorch has a plain number wrap that is out of the range of the tensor beside it. */
static inline int64_t dj_integer_as(uint8_t dtype, int64_t value)
{
    switch (dtype) {
    case DJ_U8:
        return (uint8_t)value;
    case DJ_I8:
        return (int8_t)value;
    case DJ_I16:
        return (int16_t)value;
    case DJ_I32:
        return (int32_t)value;
    default:
        return value;
    }
}

/* No kernel of any device computes with complex numbers, and none has to ask: DJ_ERR_UNSUPPORTED names the dtype and
 * the `kind` of device. */
dj_status_t dj_node_refuse_complex(const dj_node_t *node, const char *kind);

/* A scalar from the vector, converted. */
static inline double dj_scalar_real(uint64_t bits, uint8_t dtype)
{
    union {
        uint64_t bits;
        double real;
        int64_t integer;
    } value = {.bits = bits};
    return dtype == DJ_F64 ? value.real : (double)value.integer;
}

static inline int64_t dj_scalar_integer(uint64_t bits, uint8_t dtype)
{
    union {
        uint64_t bits;
        double real;
        int64_t integer;
    } value = {.bits = bits};
    return dtype == DJ_F64 ? (int64_t)value.real : value.integer;
}

#endif
