/* matrix.h - a view as the matrix that a product library takes: for every device's matmul.c.
 *
 * Threads: pure. */
#ifndef DJ_GPU_MATRIX_H
#define DJ_GPU_MATRIX_H

#include "planner/graph.h"

typedef struct dj_matrix {
    int64_t batch, rows, columns, batch_stride, row_stride, column_stride; /* elements */
} dj_matrix_t;

/* A view of any rank as one matrix: leading dimensions fold into rows, or the first of three becomes the batch.
 * False when they do not fold. */
bool dj_matrix_of_view(const dj_view_t *view, bool batched, dj_matrix_t *matrix);
void dj_matrix_transpose(dj_matrix_t *matrix);
/* Rows that lie dense, far enough apart; strides of single rows and columns become regular. */
bool dj_matrix_rows_are_dense(dj_matrix_t *matrix);
/* Rows or columns that do. */
bool dj_matrix_is_regular(dj_matrix_t *matrix);

#endif
