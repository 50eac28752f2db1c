/* matrix.c - views as matrices (matrix.h). */
#include "gpu/matrix.h"

bool dj_matrix_of_view(const dj_view_t *view, bool batched, dj_matrix_t *matrix)
{
    int last = view->rank - 1, first = batched ? 1 : 0;
    dj_matrix_t m = {.batch = 1,
                  .rows = 1,
                  .columns = view->sizes[last],
                  .row_stride = 1,
                  .column_stride = view->strides[last]};
    if (batched) {
        m.batch = view->sizes[0];
        m.batch_stride = view->strides[0];
    }
    for (int d = last - 1; d >= first; d--) {
        if (view->sizes[d] == 1)
            continue;
        if (m.rows != 1 && view->strides[d] != m.row_stride * m.rows)
            return false;
        if (m.rows == 1)
            m.row_stride = view->strides[d];
        m.rows *= view->sizes[d];
    }
    *matrix = m;
    return true;
}

void dj_matrix_transpose(dj_matrix_t *matrix)
{
    int64_t rows = matrix->rows, stride = matrix->row_stride;
    matrix->rows = matrix->columns;
    matrix->row_stride = matrix->column_stride;
    matrix->columns = rows;
    matrix->column_stride = stride;
}

bool dj_matrix_rows_are_dense(dj_matrix_t *m)
{
    if ((m->columns > 1 && m->column_stride != 1) || (m->rows > 1 && m->row_stride < m->columns))
        return false;
    m->column_stride = 1;
    if (m->rows == 1)
        m->row_stride = m->columns;
    return true;
}

bool dj_matrix_is_regular(dj_matrix_t *matrix)
{
    dj_matrix_t turned = *matrix;
    if (dj_matrix_rows_are_dense(matrix))
        return true;
    dj_matrix_transpose(&turned);
    if (!dj_matrix_rows_are_dense(&turned))
        return false;
    dj_matrix_transpose(&turned);
    *matrix = turned;
    return true;
}
