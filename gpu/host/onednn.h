/* onednn.h - matrix products by oneDNN, behind the one file that includes its headers.
 *
 * A product is C[b] = alpha * A[b] B[b] + bias in float32, prepared for exact sizes and strides:
 * the primitive and its memory objects are made once, the scratchpad is the caller's, and a run
 * sets handles and executes. B may be in a packed layout of oneDNN's choosing, filled once a
 * weight.
 *
 * Threads: a product keeps its memory objects' handles, so one run at a time per product. */
#ifndef DJ_GPU_HOST_ONEDNN_H
#define DJ_GPU_HOST_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/hash.h"
#include "runtime/base/status.h"

typedef struct dj_onednn dj_onednn_t;
typedef struct dj_onednn_product dj_onednn_product_t;

typedef struct dj_onednn_shape {
    int64_t batch, m, n, k; /* batch 1: two-dimensional */
    /* Elements between rows, columns and batches. A and B have a unit stride in one of their two
     * dimensions; batch stride 0 means the same matrix for every batch. */
    int64_t a_row, a_column, a_batch;
    int64_t b_row, b_column, b_batch;
    int64_t c_row, c_batch; /* the column stride of C is 1 */
    bool bias;              /* one value a column, contiguous */
    bool pack;              /* B comes packed; batch must be 1 */
} dj_onednn_shape_t;

/* DJ_ERR_UNSUPPORTED, DJ_ERR_MEMORY. */
dj_status_t dj_onednn_open(dj_onednn_t **dnn_p);
void dj_onednn_close(dj_onednn_t *dnn);
/* "oneDNN 2.6.3"; static. */
const char *dj_onednn_version(void);

/* DJ_ERR_UNSUPPORTED, also for strides that oneDNN does not take; DJ_ERR_MEMORY. */
dj_status_t dj_onednn_product_create(dj_onednn_t *dnn, const dj_onednn_shape_t *shape,
                                     dj_onednn_product_t **product_p);
void dj_onednn_product_destroy(dj_onednn_product_t *product);
/* Scratchpad of a run, bytes, replay arena included. */
uint64_t dj_onednn_product_workspace(const dj_onednn_product_t *product);
/* Bytes of packed B; 0 when its preferred layout is the plain one. */
uint64_t dj_onednn_product_pack_bytes(const dj_onednn_product_t *product);
/* Names the packed layout: equal keys, equal bytes for equal content. */
dj_hash_t dj_onednn_product_pack_key(const dj_onednn_product_t *product);
/* Plain B (strides of the shape) into packed. DJ_ERR_INTERNAL, DJ_ERR_MEMORY. */
dj_status_t dj_onednn_product_pack(dj_onednn_product_t *product, const void *b, void *packed);
void dj_onednn_product_run(dj_onednn_product_t *product, const void *a, const void *b,
                           const void *bias, void *c, void *workspace);

#endif
