/* gemv.c - products of one to four rows with a weight in memory (gemv.h).
 *
 * The columns of the result are shared out among the threads. With B as [k, n] a share is swept
 * eight lines of B at a time, so that memory sees eight long sequential streams and the sums stay
 * in the first-level cache; with B as [n, k] four lines at a time are reduced to four results. The
 * number of rows is a constant in each copy of the inner loops, so one pass over B serves all rows.
 */
#include "gpu/host/gemv.h"

#include <omp.h>

#define LINES 8    /* of B a sweep takes at once, [k, n] */
#define COLUMNS 4  /* results reduced at once, [n, k] */
#define GRAIN 64   /* columns: a multiple of every vector and cache line */
#define STRIP 1024 /* columns whose sums stay in the first-level cache for four rows */
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float vector_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE void sweep_lines(const dj_gemv_t *g, int64_t rows, int64_t lines, int64_t line,
                        int64_t first, int64_t end)
{
    const float *b = g->b + line * g->b_line;
    for (int64_t r = 0; r < rows; r++) {
        const float *a = g->a + r * g->a_row + line;
        float *c = g->c + r * g->c_row;
#pragma omp simd
        for (int64_t j = first; j < end; j++) {
            float sum = c[j];
            for (int64_t l = 0; l < lines; l++)
                sum += a[l] * b[l * g->b_line + j];
            c[j] = sum;
        }
    }
}

/* B as [k, n]: columns [first, end). */
INLINE void sweep(const dj_gemv_t *g, int64_t rows, int64_t first, int64_t end)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = first; j < end; j++)
            g->c[r * g->c_row + j] = g->bias ? g->bias[j] : 0;
    int64_t line = 0;
    for (; line + LINES <= g->k; line += LINES)
        sweep_lines(g, rows, LINES, line, first, end);
    for (; line < g->k; line++)
        sweep_lines(g, rows, 1, line, first, end);
}

/* B as [n, k]: `columns` results from column j on. The lines of the next turn are fetched ahead: a
 * fetch past the end of B is harmless. */
INLINE void reduce(const dj_gemv_t *g, int64_t rows, int64_t columns, int64_t j)
{
    const float *b = g->b + j * g->b_line, *next = b + columns * g->b_line;
    int64_t whole = g->k / LANES * LANES;
    for (int64_t r = 0; r < rows; r++) {
        const float *a = g->a + r * g->a_row;
        vector_t sum[COLUMNS] = {{0}};
        for (int64_t l = 0; l < whole; l += LANES)
            for (int64_t i = 0; i < columns; i++) {
                if (r == 0)
                    __builtin_prefetch(next + i * g->b_line + l);
                sum[i] += *(const vector_t *)(a + l) * *(const vector_t *)(b + i * g->b_line + l);
            }
        for (int64_t i = 0; i < columns; i++) {
            float total = g->bias ? g->bias[j + i] : 0;
            for (int64_t l = 0; l < LANES; l++)
                total += sum[i][l];
            for (int64_t l = whole; l < g->k; l++)
                total += a[l] * b[i * g->b_line + l];
            g->c[r * g->c_row + j + i] = total;
        }
    }
}

INLINE void share(const dj_gemv_t *g, int64_t rows, int64_t first, int64_t end)
{
    if (!g->b_transposed) {
        for (int64_t j = first; j < end; j += STRIP)
            sweep(g, rows, j, j + STRIP < end ? j + STRIP : end);
        return;
    }
    int64_t j = first;
    for (; j + COLUMNS <= end; j += COLUMNS)
        reduce(g, rows, COLUMNS, j);
    for (; j < end; j++)
        reduce(g, rows, 1, j);
}

static void run_share(const dj_gemv_t *g, int64_t first, int64_t end)
{
    switch (g->m) {
    case 1:
        share(g, 1, first, end);
        break;
    case 2:
        share(g, 2, first, end);
        break;
    case 3:
        share(g, 3, first, end);
        break;
    default:
        share(g, 4, first, end);
    }
}

void DJ_ISA_NAME(dj_gemv)(const dj_gemv_t *g)
{
    if (g->threads <= 1) {
        run_share(g, 0, g->n);
        return;
    }
#pragma omp parallel num_threads(g->threads)
    {
        int64_t n = omp_get_num_threads(), i = omp_get_thread_num();
        int64_t columns = ((g->n + GRAIN - 1) / GRAIN + n - 1) / n * GRAIN;
        int64_t first = i * columns, end = first + columns;
        run_share(g, first < g->n ? first : g->n, end < g->n ? end : g->n);
    }
}
