/* shape.h - inside the planner: what shape rules share.
 *
 * A rule dj_shape_<name>(call, outs) is named by the rows of ops.def and called by dj_op_infer()
 * alone, after it checked every argument's kind against the signature and every view's numbers; so
 * a rule may index its arguments by position and multiply sizes of one tensor. A rule writes dtype,
 * sizes and strides of each new output, or fails with a sentence that names the shapes;
 * dj_op_infer() puts the op's name before it and checks the outputs' limits.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_SHAPE_H
#define DJ_PLANNER_SHAPE_H

#include <string.h>

#include "planner/ops.h"

#define OP(id, name, signature, rule, ...)                                                         \
    dj_status_t dj_shape_##rule(const dj_call_t *call, dj_view_t *outs);
#include "planner/ops.def"
#undef OP

/* Room for one formatted view. */
#define DJ_VIEW_TEXT 192

static inline const dj_view_t *dj_call_view(const dj_call_t *call, uint32_t arg)
{
    return &call->args[arg].operands[0].view;
}

/* Is there a tensor (or a scalar standing in for one) in this optional argument? */
static inline bool dj_call_has(const dj_call_t *call, uint32_t arg)
{
    return call->args[arg].kind == DJ_ARG_TENSORS && call->args[arg].count == 1 &&
           call->args[arg].operands[0].storage != DJ_STORAGE_NONE;
}

static inline bool dj_operand_is_scalar(const dj_operand_t *operand)
{
    return operand->storage == DJ_STORAGE_SCALAR;
}

/* The dtype argument, DJ_DTYPE_NONE when absent. */
static inline uint8_t dj_call_dtype(const dj_call_t *call, uint32_t arg)
{
    return call->args[arg].kind == DJ_ARG_INTEGER ? (uint8_t)call->args[arg].integer
                                                  : (uint8_t)DJ_DTYPE_NONE;
}

/* PyTorch's promotion of two types (torch.promote_types); DJ_DTYPE_NONE is neutral. */
uint8_t dj_promote(uint8_t a, uint8_t b);

/* *dim_p counted from the front, 0 <= *dim_p < max(rank, 1). DJ_ERR_SHAPE. */
dj_status_t dj_shape_dim(int64_t dim, uint32_t rank, uint32_t *dim_p);

/* Widens sizes[0, *rank_p) so that `view` broadcasts to it too. DJ_ERR_SHAPE. */
dj_status_t dj_shape_broadcast(const dj_view_t *view, int64_t *sizes, uint8_t *rank_p);
/* Does `view` broadcast to exactly these sizes? DJ_ERR_SHAPE. */
dj_status_t dj_shape_expands(const dj_view_t *view, const int64_t *sizes, uint8_t rank);

/* `view` with the strides that it has after a journey over the wire, where a contiguous view
 * travels without: a rule that looks at strides of dimensions of size 1 looks at these, so that
 * recorder and rank agree. The result is `view` or `room`. */
const dj_view_t *dj_shape_as_sent(const dj_view_t *view, dj_view_t *room);

/* A dense view of `sizes` whose order of dimensions follows the inputs' strides, as PyTorch's
 * pointwise ops lay out their result. At most DJ_ARGS_MAX inputs. */
dj_view_t dj_shape_dense_like(uint8_t dtype, const dj_view_t *const *inputs, uint32_t n_inputs,
                              const int64_t *sizes, uint8_t rank);
/* The same for one tensor with its own sizes: torch.preserve_format. */
dj_view_t dj_shape_preserved(uint8_t dtype, const dj_view_t *view);

/* As `view` lies, holes and all, where every element has its place; else as preserved. */
dj_view_t dj_shape_spread(const dj_view_t *view);

/* Do a picture's channels ([batch, channels, 2 or 3 spatial dimensions]) vary fastest? PyTorch's
 * suggest_memory_format, but never of a contiguous view: strides of dimensions of size 1 mean
 * nothing to Djinn and do not cross the wire. */
bool dj_shape_channels_last(const dj_view_t *view);
/* Contiguous, or with channels last (rank 4 or 5). */
dj_view_t dj_shape_formatted(uint8_t dtype, uint8_t rank, const int64_t *sizes, bool channels_last);
/* A result that an output mask leaves out: a tensor of no elements. */
dj_view_t dj_shape_absent(uint8_t dtype);
/* A list of `n` flags as bits. DJ_ERR_SHAPE. */
dj_status_t dj_shape_mask(const dj_call_t *call, uint32_t arg, uint32_t n, uint32_t *mask_p);
/* view[start:end:step] along `dim`, and view[index] along `dim` (not yet counted from the front):
 * the windows of slice and select. start and end are lists of one number, or absent. DJ_ERR_SHAPE.
 */
dj_status_t dj_shape_take_slice(dj_view_t *view, uint32_t dim, const dj_arg_t *start,
                                const dj_arg_t *end, int64_t step);
dj_status_t dj_shape_take_index(dj_view_t *view, int64_t dim, int64_t index);
/* Fails: `view` does not fit `other`, as `what` says. DJ_ERR_DTYPE, DJ_ERR_SHAPE. */
dj_status_t dj_shape_misfit(const char *what, const dj_view_t *view, const dj_view_t *other);

#endif
