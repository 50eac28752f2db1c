/* gemv.h - products of a few rows with a whole weight: bound by reading the weight once.
 *
 * C[m, n] = A[m, k] B + bias for m up to DJ_GEMV_ROWS_MAX. Beside oneDNN's packed form this reads
 * the plain Text: no second copy of each weight (matmul.c has the numbers). */
#ifndef DJ_GPU_HOST_GEMV_H
#define DJ_GPU_HOST_GEMV_H

#include "gpu/host/host.h"

#define DJ_GEMV_ROWS_MAX 4

typedef struct dj_gemv {
    int64_t m, n, k;
    const float *a, *b, *bias; /* bias may be NULL */
    float *c;
    int64_t a_row, c_row; /* elements; columns are adjacent */
    int64_t b_line;       /* elements from one line of B to the next */
    bool b_transposed;    /* a line of B is one column of it: [n, k]; else one row: [k, n] */
    uint32_t threads;
} dj_gemv_t;

void dj_gemv_avx512(const dj_gemv_t *gemv);
void dj_gemv_avx2(const dj_gemv_t *gemv);
void dj_gemv_base(const dj_gemv_t *gemv);

#endif
