/* attention_tiles.cuh - attention of many query rows in float32: a block holds a tile of them in shared memory and
 * walks over the keys, a tile at a time. Sixteen threads have a row: the threads of a half warp share theirs by
 * exchanges and meet the others only where tiles are loaded. */
#ifndef DJ_GPU_CUDA_KERNELS_ATTENTION_TILES_CUH
#define DJ_GPU_CUDA_KERNELS_ATTENTION_TILES_CUH

#include "gpu/cuda/kernels/attention.cuh"

/* Fills [rows][stride] of shared memory, columns up to a multiple of 4; rows from `valid` on and columns from
 * `columns` on are 0. */
template <typename T>
DJ_DEVICE void tile_load(float *to, int stride, const T *from, const int64_t *strides, int rows, int64_t valid,
                         int columns, float factor)
{
    const int n = dj_pack<T>::n;
    if (is_packed(from, strides, columns)) {
        int packs = columns / n;
        for (int i = (int)threadIdx.x; i < rows * packs; i += DJ_ATTENTION_TILE_THREADS) {
            int row = i / packs, column = (i - row * packs) * n;
            float x[n];
            for (int j = 0; j < n; ++j)
                x[j] = 0;
            if (row < valid)
                dj_load_pack<n>(from + row * strides[2] + column, x);
            for (int j = 0; j < n; ++j)
                to[row * stride + column + j] = x[j] * factor;
        }
        return;
    }
    int padded = (columns + 3) & ~3;
    for (int i = (int)threadIdx.x; i < rows * padded; i += DJ_ATTENTION_TILE_THREADS) {
        int row = i / padded, column = i - row * padded;
        bool inside = row < valid && column < columns;
        to[row * stride + column] = inside ? dj_float(from[row * strides[2] + column * strides[3]]) * factor : 0;
    }
}

/* 16 threads have a row: thread `tx` columns tx and tx + 16 of the scores, and every fourth quad of the values. A
 * thread has `Rows` rows; they, their weights and their results never leave the 16, which are half a warp. */
template <typename T, int Depth, int Rows> struct tile {
    static const int keys = DJ_ATTENTION_TILE_KEYS, columns = keys / 16, quads = Depth / 64, height = 16 * Rows;
    static const int wide = Depth + 4, weights_wide = keys + 4; /* rows begin in different banks */

    const dj_attention_params_t &p;
    float *queries, *pairs, *weights; /* pairs: keys, then values */
    int tx, ty;
    int64_t mask_stride; /* of a row, bytes */
    float max[Rows], sum[Rows], result[Rows][quads * 4];

    DJ_MEMBER tile(const dj_attention_params_t &params, float *shared) : p(params)
    {
        queries = shared;
        pairs = queries + height * wide;
        weights = pairs + keys * wide;
        tx = (int)threadIdx.x & 15;
        ty = (int)threadIdx.x >> 4;
        mask_stride = p.mask.strides[2] * (p.mask_kind == DJ_ATTENTION_BOOL_MASK ? 1 : (int64_t)sizeof(T));
    }

    DJ_MEMBER void clear()
    {
        DJ_UNROLL
        for (int i = 0; i < Rows; ++i) {
            max[i] = -INFINITY;
            sum[i] = 0;
            DJ_UNROLL
            for (int j = 0; j < quads * 4; ++j)
                result[i][j] = 0;
        }
    }

    /* scores[i][j] = query row ty * Rows + i times key tx + 16 j */
    DJ_MEMBER void multiply_keys(float (&scores)[Rows][columns]) const
    {
        DJ_UNROLL
        for (int i = 0; i < Rows; ++i)
            DJ_UNROLL
            for (int j = 0; j < columns; ++j)
                scores[i][j] = 0;
        for (int d = 0; d < p.depth; d += 4) {
            quad q[Rows], k[columns];
            DJ_UNROLL
            for (int i = 0; i < Rows; ++i)
                q[i] = quad_at(queries + (ty * Rows + i) * wide + d);
            DJ_UNROLL
            for (int j = 0; j < columns; ++j)
                k[j] = quad_at(pairs + (tx + 16 * j) * wide + d);
            DJ_UNROLL
            for (int i = 0; i < Rows; ++i)
                DJ_UNROLL
                for (int j = 0; j < columns; ++j)
                    DJ_UNROLL
                    for (int e = 0; e < 4; ++e)
                        scores[i][j] += q[i].x[e] * k[j].x[e];
        }
    }

    /* Scores become weights relative to the largest score so far, in shared memory. */
    DJ_MEMBER void weigh(float (&scores)[Rows][columns], int64_t first_row, int first_key, const char *mask)
    {
        DJ_UNROLL
        for (int i = 0; i < Rows; ++i) {
            int64_t row = first_row + ty * Rows + i;
            int seen = row < p.length ? keys_seen(p, row) : 0;
            const char *mask_of = mask + (ty * Rows + i) * mask_stride;
            float largest = max[i];
            DJ_UNROLL
            for (int j = 0; j < columns; ++j) {
                int key = first_key + tx + 16 * j;
                if (key >= seen)
                    scores[i][j] = -INFINITY;
                else if (mask)
                    scores[i][j] += mask_at<T>(p, mask_of, key);
                largest = fmaxf(largest, scores[i][j]);
            }
            for (int bits = 1; bits < 16; bits <<= 1)
                largest = fmaxf(largest, dj_exchange(largest, bits));
            float from = largest == -INFINITY ? 0 : largest, factor = expf(max[i] - from);
            max[i] = largest;
            sum[i] *= factor;
            DJ_UNROLL
            for (int j = 0; j < columns; ++j) {
                float weight = expf(scores[i][j] - from);
                sum[i] += weight;
                weights[(ty * Rows + i) * weights_wide + tx + 16 * j] = weight;
            }
            DJ_UNROLL
            for (int j = 0; j < quads * 4; ++j)
                result[i][j] *= factor;
        }
    }

    DJ_MEMBER void multiply_values()
    {
        for (int s = 0; s < keys; s += 4) {
            quad w[Rows];
            DJ_UNROLL
            for (int i = 0; i < Rows; ++i)
                w[i] = quad_at(weights + (ty * Rows + i) * weights_wide + s);
            DJ_UNROLL
            for (int e = 0; e < 4; ++e)
                DJ_UNROLL
                for (int j = 0; j < quads; ++j) {
                    quad v = quad_at(pairs + (s + e) * wide + tx * 4 + 64 * j);
                    DJ_UNROLL
                    for (int i = 0; i < Rows; ++i)
                        DJ_UNROLL
                        for (int c = 0; c < 4; ++c)
                            result[i][j * 4 + c] += w[i].x[e] * v.x[c];
                }
        }
    }

    DJ_MEMBER void write(T *out, int64_t first_row) const
    {
        DJ_UNROLL
        for (int i = 0; i < Rows; ++i) {
            int64_t row = first_row + ty * Rows + i;
            float total = sum[i];
            for (int bits = 1; bits < 16; bits <<= 1)
                total += dj_exchange(total, bits);
            float factor = total == 0 ? 0 : 1 / total;
            if (row >= p.length)
                continue;
            T *at = out + row * p.out.strides[2];
            DJ_UNROLL
            for (int j = 0; j < quads * 4; ++j) {
                int column = tx * 4 + 64 * (j / 4) + j % 4;
                if (column < p.value_depth)
                    dj_put(at + column * p.out.strides[3], result[i][j] * factor);
            }
        }
    }
};

template <typename T, int Depth, int Rows> DJ_DEVICE void tiles_run(const dj_attention_params_t &p, float *shared)
{
    typedef tile<T, Depth, Rows> tile_t;
    tile_t t(p, shared);
    float scale = scale_of(p);
    /* Values narrower than a quad's columns are multiplied with what is there: let it be numbers. */
    for (int i = (int)threadIdx.x; i < tile_t::keys * tile_t::wide; i += DJ_ATTENTION_TILE_THREADS)
        t.pairs[i] = 0;
    for (int64_t unit = blockIdx.x; unit < p.units; unit += gridDim.x) {
        /* The last rows of a head first: where it is causal they have the most to do. */
        int64_t head = unit / p.tiles, row = (p.tiles - 1 - (unit - head * p.tiles)) * tile_t::height;
        int64_t b = head / p.heads, h = head - b * p.heads;
        const T *query = head_at<const T>(p, p.query, b, h) + row * p.query.strides[2];
        const T *key = head_at<const T>(p, p.key, b, h / p.group);
        const T *value = head_at<const T>(p, p.value, b, h / p.group);
        const char *mask = mask_row<T>(p, b, h, row);
        int64_t last = row + tile_t::height < p.length ? row + tile_t::height : p.length;
        int end = keys_seen(p, last - 1);
        t.clear();
        __syncthreads();
        tile_load(t.queries, tile_t::wide, query, p.query.strides, tile_t::height, p.length - row, p.depth, scale);
        for (int first = 0; first < end; first += tile_t::keys) {
            float scores[Rows][tile_t::columns];
            tile_load(t.pairs, tile_t::wide, key + first * p.key.strides[2], p.key.strides, tile_t::keys,
                      p.keys - first, p.depth, 1);
            __syncthreads();
            t.multiply_keys(scores);
            __syncthreads();
            tile_load(t.pairs, tile_t::wide, value + first * p.value.strides[2], p.value.strides, tile_t::keys,
                      p.keys - first, p.value_depth, 1);
            t.weigh(scores, row, first, mask);
            __syncthreads();
            t.multiply_values();
            __syncthreads();
        }
        t.write(head_at<T>(p, p.out, b, h), row);
    }
}

#endif
