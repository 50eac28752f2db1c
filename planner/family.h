/* family.h - inside the planner: what kind of work an op is.
 *
 * Cost, phases and pictures ask the same question of two hundred rows: is this a product, a
 * convolution, a norm ...? The answer is found by the row's name once a process and then is one
 * load. A pointwise row is known by its expression and needs no entry; an op that is in no entry is
 * DJ_FAMILY_OTHER and costs what its largest tensor has elements (a test tells which rows those
 * are).
 *
 * Threads: any. */
#ifndef DJ_PLANNER_FAMILY_H
#define DJ_PLANNER_FAMILY_H

#include "planner/ops.h"

/* X(NAME, text) */
#define DJ_FAMILY_LIST(X)                                                                          \
    X(OTHER, "other")                                                                              \
    X(POINTWISE, "pointwise")                                                                      \
    X(COPY, "copy")                                                                                \
    X(CREATE, "create")                                                                            \
    X(REDUCE, "reduce")                                                                            \
    X(NORM, "norm")                                                                                \
    X(SOFTMAX, "softmax")                                                                          \
    X(PRODUCT, "product")                                                                          \
    X(CONVOLUTION, "convolution")                                                                  \
    X(ATTENTION, "attention")                                                                      \
    X(EMBEDDING, "embedding")                                                                      \
    X(GATHER, "gather")                                                                            \
    X(SCATTER, "scatter")                                                                          \
    X(SORT, "sort")                                                                                \
    X(SCAN, "scan")                                                                                \
    X(POOL, "pool")                                                                                \
    X(RESAMPLE, "resample")                                                                        \
    X(LAYOUT, "layout")                                                                            \
    X(DISTANCE, "distance")                                                                        \
    X(TRANSFORM, "transform")                                                                      \
    X(LOSS, "loss")

typedef enum dj_family {
#define X(name, text) DJ_FAMILY_##name,
    DJ_FAMILY_LIST(X)
#undef X
        DJ_FAMILY_COUNT,
} dj_family_t;

typedef struct dj_op_traits {
    uint8_t family;      /* dj_family_t */
    bool backward;       /* computes a gradient */
    bool transcendental; /* a pointwise op that calls exp, sin, pow ... */
} dj_op_traits_t;

/* `op` must be below DJ_OP_COUNT. */
dj_op_traits_t dj_op_traits(uint16_t op);
const char *dj_family_name(uint8_t family);

#endif
