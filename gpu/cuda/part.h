/* part.h - a run of pointwise steps as one device function sees it: what it loads, computes and stores.
 *
 * A part is made from nodes step by step; one that does not fit (its parameters, or a storage that two steps see
 * through different windows) ends it, and the next part is a kernel of its own. Then the windows of all steps are
 * walked jointly: dimensions of size 1 dropped, ordered as the output lies, merged where all allow it. What the
 * text of the kernel depends on is the structure alone: ops, dtypes, how each window is walked, the rank.
 *
 * Parameters: the struct of the generated text, written here by offsets. Every member's size is a multiple of
 * 8 bytes and none is aligned to more, so there is no padding and both sides agree; the text asserts the sum.
 *
 *   dj_cuda_head_t head; int64_t count, packs; dj_cuda_ref_t inputs[], outs[]; dj_cuda_scalar_t scalars[];
 *   int64_t sizes[rank], strides[n_rows][rank];  (the last two only with n_rows)
 *
 * Threads: pure. */
#ifndef DJ_GPU_CUDA_PART_H
#define DJ_GPU_CUDA_PART_H

#include "gpu/cuda/kernels/params.h"
#include "gpu/node.h"

#define DJ_PART_STEPS_MAX 32  /* the planner's groups have no more */
#define DJ_PART_INPUTS_MAX 24 /* all are loaded first: registers */
#define DJ_PART_SCALARS_MAX 32
#define DJ_PART_OPERANDS 3 /* of one op */
#define DJ_PART_ROWS_MAX (DJ_PART_STEPS_MAX + DJ_PART_INPUTS_MAX)
#define DJ_PART_NONE 255

typedef enum dj_part_walk {
    DJ_WALK_DENSE,  /* element i at i */
    DJ_WALK_ROW,    /* strided, the innermost dimension dense */
    DJ_WALK_REPEAT, /* strided, the innermost dimension stands still */
    DJ_WALK_EACH,   /* strided in every dimension */
    DJ_WALK_ONE,    /* one element for all */
} dj_part_walk_t;

/* An operand in memory, read or written. */
typedef struct dj_part_window {
    const dj_view_t *view;
    uint32_t storage, slot;
    uint32_t step, operand; /* its place is refs[step][operand] */
    uint8_t walk, row;      /* `row` of strides, for the strided ones */
} dj_part_window_t;

typedef enum dj_part_from { DJ_FROM_INPUT, DJ_FROM_STEP, DJ_FROM_SCALAR } dj_part_from_t;

typedef struct dj_part_value {
    uint8_t from, index; /* of inputs, steps or scalars */
} dj_part_value_t;

typedef struct dj_part_step {
    const dj_node_t *node;
    uint8_t class, result; /* dj_class_t in which it computes, and of its result */
    uint8_t n_values, n_scalars;
    dj_part_value_t values[DJ_PART_OPERANDS]; /* a, b, c */
    uint8_t scalars[2];                       /* s0, s1; DJ_PART_NONE: absent */
    dj_part_window_t out;
    uint32_t inputs_before, scalars_before; /* of the part, to take the step back */
} dj_part_step_t;

typedef struct dj_part {
    uint32_t n_steps, n_inputs, n_scalars, n_rows, rank;
    uint32_t lanes; /* elements that a thread takes at once */
    bool narrow;    /* indices and strides are of 32 bits */
    int64_t count;
    int64_t packs; /* of `lanes` elements, that windows allow; 0: one element at a time */
    dj_part_step_t steps[DJ_PART_STEPS_MAX];
    dj_part_window_t inputs[DJ_PART_INPUTS_MAX];
    dj_cuda_scalar_t scalars[DJ_PART_SCALARS_MAX];
    int64_t sizes[DJ_RANK_MAX];
    int64_t strides[DJ_PART_ROWS_MAX][DJ_RANK_MAX]; /* bytes */
} dj_part_t;

typedef struct dj_part_layout {
    uint32_t count, packs, inputs, outs, scalars, sizes, strides, bytes; /* offsets, and the sum */
} dj_part_layout_t;

/* Is there a kernel for the node's op and dtypes? DJ_ERR_UNSUPPORTED says what is missing. */
dj_status_t dj_part_check(const dj_node_t *node);

/* The longest part of nodes[0..n), at least one step; part->n_steps says how many. Steps count from `nodes`.
 * DJ_ERR_UNSUPPORTED, DJ_ERR_SHAPE. */
dj_status_t dj_part_make(dj_part_t *part, const dj_node_t *const *nodes, uint32_t n);

dj_part_layout_t dj_part_layout(const dj_part_t *part);
/* All of the parameters but head and places, into layout.bytes zeroed bytes. */
void dj_part_params(const dj_part_t *part, uint8_t *params);

/* The text (source.c); malloc'ed, the caller frees it. *name_p lies in the same memory. DJ_ERR_MEMORY. */
dj_status_t dj_part_source(const dj_part_t *part, char **source_p, const char **name_p);

#endif
