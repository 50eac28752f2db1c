/* copy.h - copying one view onto another of the same shape, with conversion of dtypes.
 *
 * The engine behind copy, to_copy, cat, repeat, flip and index_select: made once from two views,
 * run with pointers. Equal dtypes move bytes; a transposition goes block by block. */
#ifndef DJ_GPU_HOST_COPY_H
#define DJ_GPU_HOST_COPY_H

#include "gpu/host/convert.h"

typedef enum dj_copy_mode {
    DJ_COPY_BYTES,     /* same dtype, dense rows */
    DJ_COPY_ITEMS,     /* same dtype, strided rows */
    DJ_COPY_TRANSPOSE, /* same dtype; the source is dense along the next to last dimension */
    DJ_COPY_CONVERT,
} dj_copy_mode_t;

typedef struct dj_copy {
    dj_loop_t loop; /* source, target */
    dj_copy_mode_t mode;
    uint32_t item_bytes;    /* of the target */
    dj_host_load_fn_t load; /* NULL: the source is dense and of the class */
    dj_host_store_fn_t store;
} dj_copy_t;

#define dj_copy_make DJ_ISA_NAME(dj_copy_make)
#define dj_copy_run DJ_ISA_NAME(dj_copy_run)
#define dj_copy_fill DJ_ISA_NAME(dj_copy_fill)

/* `source` broadcasts to `target`. Strides may be negative (flip). DJ_ERR_SHAPE. */
dj_status_t dj_copy_make(dj_copy_t *copy, const dj_view_t *source, const dj_view_t *target);
void dj_copy_run(const dj_copy_t *copy, const void *source, void *target, uint32_t threads);

/* Every element of the loop's last view, which has items of item_bytes, becomes `item`. */
void dj_copy_fill(const dj_loop_t *loop, void *target, const void *item, uint32_t item_bytes);

#endif
