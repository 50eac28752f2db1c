/* matmul.cu - matrix products of any strides and dtypes, for what a library does not compute, and what goes before
 * and after the library's.
 *
 * Plain tiles in shared memory: float16 and bfloat16 are summed in float32, integers modulo their width. */
#include "gpu/cuda/kernels/matmul.h"

#include "gpu/cuda/kernels/kernel.cuh"

#define DEPTH 16

/* ---- an element as the type it is summed in, and back; integers are summed without a sign ---- */

DJ_DEVICE float widen(float value)
{
    return value;
}

DJ_DEVICE float widen(dj_f16 value)
{
    return dj_float(value);
}

DJ_DEVICE float widen(dj_bf16 value)
{
    return dj_float(value);
}

DJ_DEVICE double widen(double value)
{
    return value;
}

template <typename T> DJ_DEVICE uint64_t widen(T value)
{
    return (uint64_t)(int64_t)value;
}

DJ_DEVICE void put(float *at, float value)
{
    *at = value;
}

DJ_DEVICE void put(dj_f16 *at, float value)
{
    dj_put(at, value);
}

DJ_DEVICE void put(dj_bf16 *at, float value)
{
    dj_put(at, value);
}

DJ_DEVICE void put(double *at, double value)
{
    *at = value;
}

template <typename T> DJ_DEVICE void put(T *at, uint64_t value)
{
    *at = (T)value;
}

DJ_DEVICE void factor(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar, float &value)
{
    value = scalar.slot < 0 ? 1.0f : (float)dj_scalar_as_real(head, scalar);
}

DJ_DEVICE void factor(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar, double &value)
{
    value = scalar.slot < 0 ? 1.0 : dj_scalar_as_real(head, scalar);
}

DJ_DEVICE void factor(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar, uint64_t &value)
{
    value = scalar.slot < 0 ? 1u : (uint64_t)dj_scalar_as_integer(head, scalar);
}

/* ---- the product ---- */

/* One tile of a matrix into shared memory as [depth][line]; zeros outside. Neighbouring threads read along the
 * stride that is 1. */
template <typename T, typename S>
DJ_DEVICE void load(S (*tile)[DJ_MATMUL_TILE + 1], const T *from, int64_t line, int64_t lines, int64_t line_stride,
                    int64_t depth, int64_t depths, int64_t depth_stride)
{
    for (int i = threadIdx.x; i < DJ_MATMUL_TILE * DEPTH; i += DJ_MATMUL_THREADS) {
        int at_line = depth_stride == 1 ? i / DEPTH : i % DJ_MATMUL_TILE;
        int at_depth = depth_stride == 1 ? i % DEPTH : i / DJ_MATMUL_TILE;
        bool inside = line + at_line < lines && depth + at_depth < depths;
        tile[at_depth][at_line] =
            inside ? widen(from[(line + at_line) * line_stride + (depth + at_depth) * depth_stride]) : S(0);
    }
}

template <typename T, typename S>
DJ_DEVICE void store(const dj_matmul_t &p, const S (&sum)[4][4], int64_t batch, int64_t row, int64_t column)
{
    S alpha, beta;
    factor(p.head, p.alpha, alpha);
    factor(p.head, p.beta, beta);
    T *c = reinterpret_cast<T *>(dj_at(p.head, p.c)) + batch * p.c_strides[0];
    const T *addend = reinterpret_cast<const T *>(dj_at(p.head, p.addend));
    bool adds = addend != nullptr && beta != S(0);
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) {
            int64_t at_row = row + i, at_column = column + 16 * j;
            if (at_row >= p.rows || at_column >= p.columns)
                continue;
            S value = alpha * sum[i][j];
            if (adds)
                value += beta * widen(addend[batch * p.addend_strides[0] + at_row * p.addend_strides[1] +
                                             at_column * p.addend_strides[2]]);
            put(c + at_row * p.c_strides[1] + at_column * p.c_strides[2], value);
        }
    }
}

template <typename T, typename S>
DJ_DEVICE void multiply_tile(const dj_matmul_t &p, int64_t batch, int64_t row, int64_t column)
{
    __shared__ S left[DEPTH][DJ_MATMUL_TILE + 1], right[DEPTH][DJ_MATMUL_TILE + 1];
    const T *a = reinterpret_cast<const T *>(dj_at(p.head, p.a)) + batch * p.a_strides[0];
    const T *b = reinterpret_cast<const T *>(dj_at(p.head, p.b)) + batch * p.b_strides[0];
    int thread_row = threadIdx.x / 16 * 4, thread_column = threadIdx.x % 16;
    S sum[4][4] = {};
    for (int64_t depth = 0; depth < p.depth; depth += DEPTH) {
        __syncthreads();
        load(left, a, row, p.rows, p.a_strides[1], depth, p.depth, p.a_strides[2]);
        load(right, b, column, p.columns, p.b_strides[2], depth, p.depth, p.b_strides[1]);
        __syncthreads();
        for (int k = 0; k < DEPTH; ++k)
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j)
                    sum[i][j] += left[k][thread_row + i] * right[k][thread_column + 16 * j];
    }
    store<T, S>(p, sum, batch, row + thread_row, column + thread_column);
}

template <typename T, typename S> DJ_DEVICE void multiply(const dj_matmul_t &p)
{
    int64_t down = (p.rows + DJ_MATMUL_TILE - 1) / DJ_MATMUL_TILE;
    int64_t across = (p.columns + DJ_MATMUL_TILE - 1) / DJ_MATMUL_TILE;
    for (int64_t tile = blockIdx.x; tile < p.batch * down * across; tile += gridDim.x) {
        int64_t rest = tile / across;
        multiply_tile<T, S>(p, rest / down, rest % down * DJ_MATMUL_TILE, tile % across * DJ_MATMUL_TILE);
    }
}

#define MULTIPLY(name, T, S)                                                                       \
    DJ_KERNEL(dj_matmul_##name, dj_matmul_t)                                                       \
    {                                                                                              \
        multiply<T, S>(p);                                                                         \
    }
MULTIPLY(float32, float, float)
MULTIPLY(float64, double, double)
MULTIPLY(float16, dj_f16, float)
MULTIPLY(bfloat16, dj_bf16, float)
MULTIPLY(int64, int64_t, uint64_t)
MULTIPLY(int32, int32_t, uint64_t)
MULTIPLY(int16, int16_t, uint64_t)
MULTIPLY(int8, int8_t, uint64_t)
MULTIPLY(uint8, uint8_t, uint64_t)

/* ---- what a library's product adds to ---- */

template <typename T, typename S> DJ_DEVICE void spread(const dj_matmul_addend_t &p)
{
    S alpha, beta;
    factor(p.head, p.alpha, alpha);
    factor(p.head, p.beta, beta);
    if (dj_grid_first() == 0 && p.factors.present) {
        S *factors = reinterpret_cast<S *>(dj_at(p.head, p.factors));
        factors[0] = alpha;
        factors[1] = p.scaled ? S(0) : beta;
    }
    const char *from = dj_at(p.head, p.from);
    char *to = dj_at(p.head, p.to);
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        T *at = reinterpret_cast<T *>(to + dj_loop_at(p.loop, 1, i));
        if (beta == S(0)) {
            put(at, S(0));
            continue;
        }
        S value = widen(*reinterpret_cast<const T *>(from + dj_loop_at(p.loop, 0, i)));
        put(at, p.scaled ? beta * value : value);
    }
}

#define ADDEND(name, T, S)                                                                         \
    DJ_KERNEL(dj_matmul_addend_##name, dj_matmul_addend_t)                                         \
    {                                                                                              \
        spread<T, S>(p);                                                                           \
    }
ADDEND(float32, float, float)
ADDEND(float64, double, double)
ADDEND(float16, dj_f16, float)
ADDEND(bfloat16, dj_bf16, float)
