/* gemm.h - our own matrix product, for what oneDNN does not serve without allocating.
 *
 * oneDNN 2.6 has a product that allocates nothing (brgemm) for AVX-512 and regular strides alone;
 * its older one packs into buffers from malloc at every call. So other processors and other strides
 * come here: C = A B + bias in float32, any strides for A and B, packed into the caller's
 * workspace. */
#ifndef DJ_GPU_HOST_GEMM_H
#define DJ_GPU_HOST_GEMM_H

#include "gpu/host/host.h"

typedef struct dj_gemm {
    int64_t batch, m, n, k;
    const float *a, *b, *bias; /* bias: one value a column, or NULL */
    float *c;
    int64_t a_row, a_column, a_batch, b_row, b_column, b_batch; /* elements; 0 broadcasts */
    int64_t c_row, c_batch;                                     /* columns are adjacent */
    uint32_t threads;
} dj_gemm_t;

/* Bytes of workspace for this shape and thread count. */
uint64_t dj_gemm_workspace_avx512(const dj_gemm_t *gemm);
uint64_t dj_gemm_workspace_avx2(const dj_gemm_t *gemm);
uint64_t dj_gemm_workspace_base(const dj_gemm_t *gemm);
/* k > 0. The workspace is aligned to 64 bytes. */
void dj_gemm_avx512(const dj_gemm_t *gemm, void *workspace);
void dj_gemm_avx2(const dj_gemm_t *gemm, void *workspace);
void dj_gemm_base(const dj_gemm_t *gemm, void *workspace);

#endif
