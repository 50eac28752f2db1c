/* gemm.c - a blocked matrix product (gemm.h).
 *
 * The usual scheme: a block of B is packed into strips of NR columns, a block of A into strips of
 * MR rows, and an inner kernel keeps an MR by NR tile of C in registers while it walks down both
 * strips. Packing takes any strides and pads with zeros, so the inner kernel has one form only; its
 * tile goes to C directly when it is whole and through a small buffer at the edges.
 *
 * Threads share the matrices of a batch, or else the columns or rows of one product, whichever are
 * more. Each packs for itself into its own buffers: a little work is done twice, but nobody waits
 * for anybody before the end, which matters where ranks outnumber cores. */
#include "gpu/host/gemm.h"

#include <omp.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define MR 12
#elif defined(__AVX2__)
#define LANES 8
#define MR 6
#else
#define LANES 4
#define MR 4
#endif
#define NR (2 * LANES)
#define KC 256       /* depth of a block: one strip of B stays in the first-level cache */
#define MC (20 * MR) /* rows of a block of A: stays in the second-level cache */
#define NC (64 * NR) /* columns of a block of B */
#define A_FLOATS (MC * KC)

typedef float vector_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t strips(int64_t count, int64_t width)
{
    return (count + width - 1) / width;
}

/* One strip: `depth` steps of `width` elements, those past `count` zero. */
static void pack_strip(float *restrict to, int64_t width, int64_t depth, int64_t count,
                       const float *from, int64_t across, int64_t along)
{
    if (count == width && across == 1) {
        for (int64_t p = 0; p < depth; p++, to += width, from += along)
            memcpy(to, from, (size_t)width * sizeof(float));
        return;
    }
    if (count < width)
        memset(to, 0, (size_t)(width * depth) * sizeof(float));
    for (int64_t i = 0; i < count; i++)
        for (int64_t p = 0; p < depth; p++)
            to[p * width + i] = from[i * across + p * along];
}

/* An MR by NR tile of A B over `depth`, in registers. */
static inline __attribute__((always_inline)) void
multiply(int64_t depth, const float *restrict a, const float *restrict b, vector_t sum[MR][2])
{
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
        sum[i][0] = sum[i][1] = (vector_t){0};
    for (int64_t p = 0; p < depth; p++, a += MR, b += NR) {
        vector_t left = *(const vector_t *)b, right = *(const vector_t *)(b + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            sum[i][0] += a[i] * left;
            sum[i][1] += a[i] * right;
        }
    }
}

static void whole_tile(int64_t depth, const float *a, const float *b, const float *bias, bool first,
                       float *c, int64_t c_row)
{
    vector_t sum[MR][2];
    multiply(depth, a, b, sum);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
        vector_t *row = (vector_t *)(c + i * c_row), *next = (vector_t *)(c + i * c_row + LANES);
        if (!first) {
            *row += sum[i][0];
            *next += sum[i][1];
        } else if (bias) {
            *row = sum[i][0] + *(const vector_t *)bias;
            *next = sum[i][1] + *(const vector_t *)(bias + LANES);
        } else {
            *row = sum[i][0];
            *next = sum[i][1];
        }
    }
}

static void edge_tile(int64_t depth, const float *a, const float *b, const float *bias, bool first,
                      float *c, int64_t c_row, int64_t rows, int64_t columns)
{
    vector_t sum[MR][2];
    float tile[MR][NR];
    multiply(depth, a, b, sum);
    memcpy(tile, sum, sizeof(tile));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            float base = !first ? c[i * c_row + j] : bias ? bias[j] : 0;
            c[i * c_row + j] = base + tile[i][j];
        }
}

/* One block: `rows` rows from row i, `depth` steps from step p, `columns` columns from j. */
typedef struct block {
    const dj_gemm_t *g;
    float *a_packed, *b_packed;
    int64_t i, rows, p, depth, j, columns;
} block_t;

static void pack_a(const block_t *k)
{
    const dj_gemm_t *g = k->g;
    for (int64_t s = 0; s < strips(k->rows, MR); s++)
        pack_strip(k->a_packed + s * MR * k->depth, MR, k->depth, least(MR, k->rows - s * MR),
                   g->a + (k->i + s * MR) * g->a_row + k->p * g->a_column, g->a_row, g->a_column);
}

static void pack_b(const block_t *k)
{
    const dj_gemm_t *g = k->g;
    for (int64_t s = 0; s < strips(k->columns, NR); s++)
        pack_strip(k->b_packed + s * NR * k->depth, NR, k->depth, least(NR, k->columns - s * NR),
                   g->b + k->p * g->b_row + (k->j + s * NR) * g->b_column, g->b_column, g->b_row);
}

static void multiply_block(const block_t *k)
{
    const dj_gemm_t *g = k->g;
    for (int64_t t = 0; t < strips(k->columns, NR); t++) {
        const float *b = k->b_packed + t * NR * k->depth;
        const float *bias = g->bias ? g->bias + k->j + t * NR : NULL;
        int64_t columns = least(NR, k->columns - t * NR);
        for (int64_t s = 0; s < strips(k->rows, MR); s++) {
            const float *a = k->a_packed + s * MR * k->depth;
            float *c = g->c + (k->i + s * MR) * g->c_row + k->j + t * NR;
            int64_t rows = least(MR, k->rows - s * MR);
            if (rows == MR && columns == NR)
                whole_tile(k->depth, a, b, bias, k->p == 0, c, g->c_row);
            else
                edge_tile(k->depth, a, b, bias, k->p == 0, c, g->c_row, rows, columns);
        }
    }
}

/* One matrix product by one thread. */
static void multiply_matrices(const dj_gemm_t *g, float *buffers)
{
    block_t k = {.g = g, .a_packed = buffers, .b_packed = buffers + A_FLOATS};
    for (k.j = 0; k.j < g->n; k.j += NC) {
        k.columns = least(NC, g->n - k.j);
        for (k.p = 0; k.p < g->k; k.p += KC) {
            k.depth = least(KC, g->k - k.p);
            pack_b(&k);
            for (k.i = 0; k.i < g->m; k.i += MC) {
                k.rows = least(MC, g->m - k.i);
                pack_a(&k);
                multiply_block(&k);
            }
        }
    }
}

static int64_t buffer_floats(const dj_gemm_t *g)
{
    return A_FLOATS + strips(least(g->n, NC), NR) * NR * least(g->k, KC);
}

uint64_t DJ_ISA_NAME(dj_gemm_workspace)(const dj_gemm_t *g)
{
    return (uint64_t)g->threads * (uint64_t)buffer_floats(g) * sizeof(float);
}

/* Thread `part` of `parts`: some matrices of the batch, or a slice of the one. */
static void run_part(const dj_gemm_t *g, float *buffers, int64_t part, int64_t parts)
{
    dj_gemm_t mine = *g;
    if (g->batch > 1) {
        int64_t share = strips(g->batch, parts), end = least((part + 1) * share, g->batch);
        for (int64_t i = part * share; i < end; i++) {
            mine.a = g->a + i * g->a_batch;
            mine.b = g->b + i * g->b_batch;
            mine.c = g->c + i * g->c_batch;
            multiply_matrices(&mine, buffers);
        }
    } else if (g->n >= g->m) {
        int64_t share = strips(strips(g->n, NR), parts) * NR, first = least(part * share, g->n);
        mine.n = least(share, g->n - first);
        mine.b = g->b + first * g->b_column;
        mine.c = g->c + first;
        mine.bias = g->bias ? g->bias + first : NULL;
        multiply_matrices(&mine, buffers);
    } else {
        int64_t share = strips(strips(g->m, MR), parts) * MR, first = least(part * share, g->m);
        mine.m = least(share, g->m - first);
        mine.a = g->a + first * g->a_row;
        mine.c = g->c + first * g->c_row;
        multiply_matrices(&mine, buffers);
    }
}

void DJ_ISA_NAME(dj_gemm)(const dj_gemm_t *g, void *workspace)
{
    float *buffers = workspace;
    if (g->threads <= 1) {
        run_part(g, buffers, 0, 1);
        return;
    }
#pragma omp parallel num_threads(g->threads)
    {
        int64_t part = omp_get_thread_num();
        run_part(g, buffers + part * buffer_floats(g), part, omp_get_num_threads());
    }
}
