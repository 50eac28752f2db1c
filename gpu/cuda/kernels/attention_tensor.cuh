/* attention_tensor.cuh - attention of many query rows by tensor cores, for float16 and bfloat16.
 *
 * A block has 64 query rows, 16 a warp, and walks over 64 keys at a time. Queries stay in registers as the left
 * operand; keys and values pass through shared memory. A lane has two rows (g and g + 8 of its warp) and of each
 * sixteen scores, two a column pair of tensor.cuh's C; four lanes have a whole row. */
#ifndef DJ_GPU_CUDA_KERNELS_ATTENTION_TENSOR_CUH
#define DJ_GPU_CUDA_KERNELS_ATTENTION_TENSOR_CUH

#include "gpu/cuda/kernels/attention.cuh"
#include "gpu/cuda/kernels/tensor.cuh"

/* exp(x). Of differences only: a score that a mask has made the lowest number there is has no multiple. */
DJ_DEVICE float power(float x)
{
    return exp2f(x * 1.4426950408889634f);
}

/* Fills [64][Depth] of shared memory, rows of `wide`; rows from `valid` on and columns from `columns` on are 0. */
template <typename T, int Depth>
DJ_DEVICE void tensor_fill(T *to, const T *from, const int64_t *strides, int64_t valid, int columns)
{
    const int n = dj_pack<T>::n, packs = Depth / n, wide = Depth + DJ_ATTENTION_TENSOR_PAD;
    bool packed = is_packed(from, strides, columns);
    DJ_UNROLL
    for (int k = 0; k < DJ_ATTENTION_TENSOR_ROWS * packs / DJ_ATTENTION_TENSOR_THREADS; ++k) {
        int i = (int)threadIdx.x + k * DJ_ATTENTION_TENSOR_THREADS, row = i / packs, column = (i % packs) * n;
        const T *at = from + row * strides[2];
        dj_pack<T> pack = {};
        if (packed) {
            if (row < valid && column < columns)
                pack = *reinterpret_cast<const dj_pack<T> *>(at + column);
        } else {
            for (int e = 0; e < n; ++e)
                if (row < valid && column + e < columns)
                    pack.item[e] = at[(column + e) * strides[3]];
        }
        *reinterpret_cast<dj_pack<T> *>(to + row * wide + column) = pack;
    }
}

template <typename T, int Depth> struct tensor_tile {
    static const int size = DJ_ATTENTION_TENSOR_ROWS, wide = Depth + DJ_ATTENTION_TENSOR_PAD;

    const dj_attention_params_t &p;
    T *keys, *values;
    int warp, g, t, row_in_8, matrix; /* the last two: of the address this lane brings to a load */
    float scale;
    uint32_t query[Depth / 16][4];
    float max[2], sum[2], result[Depth / 8][4];

    DJ_MEMBER tensor_tile(const dj_attention_params_t &params, T *shared) : p(params)
    {
        keys = shared;
        values = keys + size * wide;
        warp = (int)threadIdx.x / DJ_WARP;
        g = dj_lane() / 4;
        t = dj_lane() % 4;
        row_in_8 = dj_lane() % 8;
        matrix = dj_lane() / 8;
        scale = scale_of(p);
    }

    /* The warp's 16 rows of what lies at `keys`. */
    DJ_MEMBER void begin()
    {
        const T *row = keys + (warp * 16 + (matrix & 1) * 8 + row_in_8) * wide + (matrix >> 1) * 8;
        DJ_UNROLL
        for (int k = 0; k < Depth / 16; ++k)
            dj_tensor_load(query[k], row + k * 16);
        DJ_UNROLL
        for (int i = 0; i < 2; ++i) {
            max[i] = -INFINITY;
            sum[i] = 0;
        }
        DJ_UNROLL
        for (int j = 0; j < Depth / 8; ++j)
            DJ_UNROLL
            for (int i = 0; i < 4; ++i)
                result[j][i] = 0;
    }

    DJ_MEMBER void multiply_keys(float (&scores)[size / 8][4]) const
    {
        const T *row = keys + ((matrix >> 1) * 8 + row_in_8) * wide + (matrix & 1) * 8;
        DJ_UNROLL
        for (int j = 0; j < size / 8; ++j)
            DJ_UNROLL
            for (int i = 0; i < 4; ++i)
                scores[j][i] = 0;
        DJ_UNROLL
        for (int k = 0; k < Depth / 16; ++k)
            DJ_UNROLL
            for (int j = 0; j < size / 8; j += 2) {
                uint32_t b[4];
                dj_tensor_load(b, row + j * 8 * wide + k * 16);
                dj_tensor_multiply(T(), scores[j], query[k], b[0], b[1]);
                dj_tensor_multiply(T(), scores[j + 1], query[k], b[2], b[3]);
            }
    }

    /* Hides what a row may not see and adds the mask. `row` is the lane's first one, `mask` its row. */
    DJ_MEMBER void hide(float (&scores)[size / 8][4], int64_t row, int first_key, const char *mask) const
    {
        int64_t down = p.mask.strides[2] * (p.mask_kind == DJ_ATTENTION_BOOL_MASK ? 8 : 8 * (int64_t)sizeof(T));
        int seen[2] = {row < p.length ? keys_seen(p, row) : 0, row + 8 < p.length ? keys_seen(p, row + 8) : 0};
        DJ_UNROLL
        for (int j = 0; j < size / 8; ++j)
            DJ_UNROLL
            for (int i = 0; i < 4; ++i) {
                int key = first_key + j * 8 + 2 * t + (i & 1);
                if (key >= seen[i >> 1])
                    scores[j][i] = -INFINITY;
                else if (mask)
                    scores[j][i] += mask_at<T>(p, i >> 1 ? mask + down : mask, key);
            }
    }

    /* Scores become weights relative to the largest score so far. */
    DJ_MEMBER void weigh(float (&scores)[size / 8][4])
    {
        DJ_UNROLL
        for (int i = 0; i < 2; ++i) {
            float largest = max[i];
            DJ_UNROLL
            for (int j = 0; j < size / 8; ++j)
                largest = fmaxf(largest, fmaxf(scores[j][2 * i], scores[j][2 * i + 1]));
            largest = fmaxf(largest, dj_exchange(largest, 1));
            largest = fmaxf(largest, dj_exchange(largest, 2));
            float from = largest == -INFINITY ? 0 : largest, factor = power(max[i] - from);
            max[i] = largest;
            sum[i] *= factor;
            DJ_UNROLL
            for (int j = 0; j < size / 8; ++j)
                DJ_UNROLL
                for (int e = 2 * i; e < 2 * i + 2; ++e) {
                    scores[j][e] = power(scores[j][e] - from);
                    sum[i] += scores[j][e];
                }
            DJ_UNROLL
            for (int j = 0; j < Depth / 8; ++j) {
                result[j][2 * i] *= factor;
                result[j][2 * i + 1] *= factor;
            }
        }
    }

    /* C's layout of two neighbouring column blocks is A's of one. */
    DJ_MEMBER void multiply_values(const float (&weights)[size / 8][4])
    {
        const T *row = values + ((matrix & 1) * 8 + row_in_8) * wide + (matrix >> 1) * 8;
        DJ_UNROLL
        for (int k = 0; k < size / 16; ++k) {
            uint32_t a[4] = {dj_pair(T(), weights[2 * k][0], weights[2 * k][1]),
                             dj_pair(T(), weights[2 * k][2], weights[2 * k][3]),
                             dj_pair(T(), weights[2 * k + 1][0], weights[2 * k + 1][1]),
                             dj_pair(T(), weights[2 * k + 1][2], weights[2 * k + 1][3])};
            DJ_UNROLL
            for (int j = 0; j < Depth / 8; j += 2) {
                uint32_t b[4];
                dj_tensor_load_transposed(b, row + k * 16 * wide + j * 8);
                dj_tensor_multiply(T(), result[j], a, b[0], b[1]);
                dj_tensor_multiply(T(), result[j + 1], a, b[2], b[3]);
            }
        }
    }

    DJ_MEMBER void write(T *out, int64_t row) const
    {
        DJ_UNROLL
        for (int i = 0; i < 2; ++i, row += 8) {
            float total = sum[i];
            total += dj_exchange(total, 1);
            total += dj_exchange(total, 2);
            float factor = total == 0 ? 0 : 1 / total;
            if (row >= p.length)
                continue;
            T *at = out + row * p.out.strides[2];
            DJ_UNROLL
            for (int j = 0; j < Depth / 8; ++j)
                DJ_UNROLL
                for (int e = 0; e < 2; ++e) {
                    int column = j * 8 + 2 * t + e;
                    if (column < p.value_depth)
                        dj_put(at + column * p.out.strides[3], result[j][2 * i + e] * factor);
                }
        }
    }
};

template <typename T, int Depth> DJ_DEVICE void tensor_run(const dj_attention_params_t &p, T *shared)
{
    typedef tensor_tile<T, Depth> tile_t;
    tile_t x(p, shared);
    for (int64_t unit = blockIdx.x; unit < p.units; unit += gridDim.x) {
        int64_t head = unit / p.tiles, first_row = (p.tiles - 1 - (unit - head * p.tiles)) * tile_t::size;
        int64_t b = head / p.heads, h = head - b * p.heads, row = first_row + x.warp * 16 + x.g;
        const T *query = head_at<const T>(p, p.query, b, h) + first_row * p.query.strides[2];
        const T *key = head_at<const T>(p, p.key, b, h / p.group);
        const T *value = head_at<const T>(p, p.value, b, h / p.group);
        const char *mask = mask_row<T>(p, b, h, row);
        int64_t last = first_row + tile_t::size < p.length ? first_row + tile_t::size : p.length;
        int end = keys_seen(p, last - 1), all = keys_seen(p, first_row);
        tensor_fill<T, Depth>(x.keys, query, p.query.strides, p.length - first_row, p.depth);
        __syncthreads();
        x.begin();
        __syncthreads();
        for (int first = 0; first < end; first += tile_t::size) {
            float scores[tile_t::size / 8][4];
            tensor_fill<T, Depth>(x.keys, key + first * p.key.strides[2], p.key.strides, p.keys - first, p.depth);
            tensor_fill<T, Depth>(x.values, value + first * p.value.strides[2], p.value.strides, p.keys - first,
                                  p.value_depth);
            __syncthreads();
            x.multiply_keys(scores);
            DJ_UNROLL
            for (int j = 0; j < tile_t::size / 8; ++j)
                DJ_UNROLL
                for (int i = 0; i < 4; ++i)
                    scores[j][i] *= x.scale;
            if (mask || first + tile_t::size > all)
                x.hide(scores, row, first, mask);
            x.weigh(scores);
            x.multiply_values(scores);
            __syncthreads();
        }
        x.write(head_at<T>(p, p.out, b, h), row);
    }
}

#endif
