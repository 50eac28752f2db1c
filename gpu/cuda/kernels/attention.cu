/* attention.cu - scaled dot product attention, forward: softmax(q k' * scale + mask) v.
 *
 * Two ways. *Tiles* is for many query rows: a block holds a tile of them in shared memory and walks over the keys,
 * a tile at a time. *Few* is for decoding: the keys are what there is to read, so they are split among blocks, each
 * is read once for all query heads that share it, and the parts are joined by a second kernel. Both keep for each
 * row the largest score so far, the sum of exponentials relative to it and the weighted values relative to it, and
 * rescale when a larger score comes. All of it is float32; nothing is rounded between the load and the store.
 *
 * A row that may attend to nothing gives zeros. Causal means that key s is seen by rows s and after. */
#include "gpu/cuda/kernels/attention.h"
#include "gpu/cuda/kernels/block.cuh"
#include "gpu/cuda/kernels/values.cuh"

#define PACK 8 /* columns a thread takes at once */

struct alignas(16) quad {
    float x[4];
};

DJ_DEVICE quad quad_at(const float *at)
{
    return *reinterpret_cast<const quad *>(at);
}

DJ_DEVICE float scale_of(const dj_attention_params_t &p)
{
    return p.scale.slot < 0 ? 1 / sqrtf((float)p.depth) : (float)dj_scalar_as_real(p.head, p.scale);
}

template <typename T>
DJ_DEVICE T *head_at(const dj_attention_params_t &p, const dj_attention_matrix_t &matrix, int64_t b, int64_t h)
{
    return reinterpret_cast<T *>(dj_at(p.head, matrix.ref)) + b * matrix.strides[0] + h * matrix.strides[1];
}

/* Keys that row `row` may see, the mask aside. */
DJ_DEVICE int keys_seen(const dj_attention_params_t &p, int64_t row)
{
    return (int)(p.is_causal && row + 1 < p.keys ? row + 1 : p.keys);
}

/* The mask's row, null where there is no mask. */
template <typename T>
DJ_DEVICE const char *mask_row(const dj_attention_params_t &p, int64_t b, int64_t h, int64_t row)
{
    int64_t at = row * p.mask.strides[2], item = p.mask_kind == DJ_ATTENTION_BOOL_MASK ? 1 : (int64_t)sizeof(T);
    if (p.mask_kind == DJ_ATTENTION_NO_MASK)
        return nullptr;
    at += b * p.mask.strides[0] + h * p.mask.strides[1];
    return dj_at(p.head, p.mask.ref) + at * item;
}

/* What it adds to the score of a key. */
template <typename T> DJ_DEVICE float mask_at(const dj_attention_params_t &p, const char *mask, int key)
{
    int64_t at = key * p.mask.strides[3];
    if (p.mask_kind == DJ_ATTENTION_BOOL_MASK)
        return mask[at] ? 0 : -INFINITY;
    return dj_float(reinterpret_cast<const T *>(mask)[at]);
}

/* Rows that can be read 16 bytes at a time, `columns` of them each. */
template <typename T> DJ_DEVICE bool is_packed(const T *at, const int64_t *strides, int columns)
{
    return strides[3] == 1 && columns % dj_pack<T>::n == 0 && dj_is_aligned(at) &&
           strides[2] % dj_pack<T>::n == 0;
}

/* ---- tiles ---- */

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

#define TILES(name, T, Depth, Rows)                                                                \
    DJ_KERNEL(dj_attention_tiles_##name##_##Depth, dj_attention_params_t)                          \
    {                                                                                              \
        DJ_SHARED(float, shared);                                                                  \
        tiles_run<T, Depth, Rows>(p, shared);                                                      \
    }
TILES(f32, float, 64, 4)
TILES(f32, float, 128, 4)
TILES(f32, float, 256, 2)
TILES(f16, dj_f16, 64, 4)
TILES(f16, dj_f16, 128, 4)
TILES(f16, dj_f16, 256, 2)
TILES(bf16, dj_bf16, 64, 4)
TILES(bf16, dj_bf16, 128, 4)
TILES(bf16, dj_bf16, 256, 2)

/* ---- few rows ---- */

/* PACK columns of a row, 0 from `columns` on. */
template <typename T>
DJ_DEVICE void few_load(float *x, const T *row, int64_t stride, int column, int columns, bool packed)
{
    if (packed && column + PACK <= columns) {
        dj_load_pack<PACK>(row + column, x);
        return;
    }
    DJ_UNROLL
    for (int e = 0; e < PACK; ++e)
        x[e] = column + e < columns ? dj_float(row[(column + e) * stride]) : 0;
}

/* A group of `lanes` threads has a key at a time, PACK columns a thread, for all R rows. */
template <typename T, int R> struct few {
    static const int together = R > 4 ? 2 : 4; /* keys in flight */

    const dj_attention_params_t &p;
    int lane, column;
    const T *key, *value;
    const char *masks[R];
    int seen[R];
    float query[R][PACK], max[R], sum[R], result[R][PACK];
    bool key_packed, value_packed;

    DJ_MEMBER explicit few(const dj_attention_params_t &params) : p(params)
    {
        lane = (int)threadIdx.x & (p.lanes - 1);
        column = lane * PACK;
    }

    /* Rows `first` on of a key head: those of one query head after those of another. */
    DJ_MEMBER void begin(int64_t b, int64_t key_head, int64_t first)
    {
        float scale = scale_of(p);
        key = head_at<const T>(p, p.key, b, key_head);
        value = head_at<const T>(p, p.value, b, key_head);
        key_packed = is_packed(key, p.key.strides, p.depth);
        value_packed = is_packed(value, p.value.strides, p.value_depth);
        DJ_UNROLL
        for (int r = 0; r < R; ++r) {
            int64_t at = first + r, h = at / p.length;
            bool there = at < p.length * p.group;
            h = key_head * p.group + (there ? h : 0);
            int64_t row = there ? at % p.length : 0;
            seen[r] = there ? keys_seen(p, row) : 0;
            masks[r] = mask_row<T>(p, b, h, row);
            const T *from = head_at<const T>(p, p.query, b, h) + row * p.query.strides[2];
            max[r] = -INFINITY;
            sum[r] = 0;
            DJ_UNROLL
            for (int e = 0; e < PACK; ++e) {
                result[r][e] = 0;
                query[r][e] = column + e < p.depth ? dj_float(from[(column + e) * p.query.strides[3]]) * scale : 0;
            }
        }
    }

    /* Keys first, first + step, ...: `together` of them, those before `end`. All lanes of a warp come along. */
    DJ_MEMBER void take(int first, int step, int end)
    {
        float scores[together][R], x[together][PACK];
        DJ_UNROLL
        for (int u = 0; u < together; ++u) {
            int s = first + u * step < end ? first + u * step : end - 1;
            few_load(x[u], key + s * p.key.strides[2], p.key.strides[3], column, p.depth, key_packed);
        }
        DJ_UNROLL
        for (int u = 0; u < together; ++u)
            DJ_UNROLL
            for (int r = 0; r < R; ++r) {
                float score = 0;
                DJ_UNROLL
                for (int e = 0; e < PACK; ++e)
                    score += query[r][e] * x[u][e];
                scores[u][r] = score;
            }
        DJ_ROLLED
        for (int bits = 1; bits < p.lanes; bits <<= 1)
            DJ_UNROLL
            for (int u = 0; u < together; ++u)
                DJ_UNROLL
                for (int r = 0; r < R; ++r)
                    scores[u][r] += dj_exchange(scores[u][r], bits);
        DJ_UNROLL
        for (int u = 0; u < together; ++u) {
            int s = first + u * step < end ? first + u * step : end - 1;
            few_load(x[u], value + s * p.value.strides[2], p.value.strides[3], column, p.value_depth, value_packed);
        }
        DJ_UNROLL
        for (int r = 0; r < R; ++r)
            weigh(r, scores, x, first, step, end);
    }

    DJ_MEMBER void weigh(int r, float (&scores)[together][R], const float (&x)[together][PACK], int first, int step,
                         int end)
    {
        float largest = max[r];
        DJ_UNROLL
        for (int u = 0; u < together; ++u) {
            int s = first + u * step;
            if (s >= end || s >= seen[r])
                scores[u][r] = -INFINITY;
            else if (masks[r])
                scores[u][r] += mask_at<T>(p, masks[r], s);
            largest = fmaxf(largest, scores[u][r]);
        }
        float from = rescale(r, largest);
        DJ_UNROLL
        for (int u = 0; u < together; ++u) {
            if (first + u * step >= end)
                continue;
            float weight = expf(scores[u][r] - from);
            sum[r] += weight;
            DJ_UNROLL
            for (int e = 0; e < PACK; ++e)
                result[r][e] += weight * x[u][e];
        }
    }

    /* Makes sum and result relative to `largest`; returns what scores are relative to. */
    DJ_MEMBER float rescale(int r, float largest)
    {
        float from = largest == -INFINITY ? 0 : largest, factor = expf(max[r] - from);
        max[r] = largest;
        sum[r] *= factor;
        DJ_UNROLL
        for (int e = 0; e < PACK; ++e)
            result[r][e] *= factor;
        return from;
    }

    /* The groups of a warp into each of them. */
    DJ_MEMBER void join_warp()
    {
        for (int bits = p.lanes; bits < DJ_WARP; bits <<= 1)
            DJ_UNROLL
            for (int r = 0; r < R; ++r) {
                rescale(r, fmaxf(max[r], dj_exchange(max[r], bits)));
                sum[r] += dj_exchange(sum[r], bits);
                DJ_UNROLL
                for (int e = 0; e < PACK; ++e)
                    result[r][e] += dj_exchange(result[r][e], bits);
            }
    }
};

/* Parts of one row, `stride` floats apart: value_depth results, maximum, sum. Column `column` of the whole, and its
 * maximum and sum. */
DJ_DEVICE float parts_join(const float *parts, int64_t stride, int64_t n, int column, int value_depth, float *max_p,
                           float *sum_p)
{
    float max = -INFINITY, sum = 0, result = 0;
    for (int64_t i = 0; i < n; ++i)
        max = fmaxf(max, parts[i * stride + value_depth]);
    float from = max == -INFINITY ? 0 : max;
    for (int64_t i = 0; i < n; ++i) {
        float factor = expf(parts[i * stride + value_depth] - from);
        sum += parts[i * stride + value_depth + 1] * factor;
        result += parts[i * stride + column] * factor;
    }
    *max_p = max;
    *sum_p = sum;
    return result;
}

DJ_DEVICE void row_write(const dj_attention_params_t &p, int64_t b, int64_t h, int64_t row, int column, float result,
                         float sum)
{
    int64_t at = b * p.out.strides[0] + h * p.out.strides[1] + row * p.out.strides[2] + column * p.out.strides[3];
    uint32_t dtype = p.out_dtype;
    dj_store(dj_at(p.head, p.out.ref) + at * (dtype == DJ_CUDA_F32 ? 4 : 2), dtype, sum == 0 ? 0 : result * (1 / sum));
}

template <typename T, int R> DJ_DEVICE void few_run(const dj_attention_params_t &p, float *shared)
{
    few<T, R> f(p);
    const int warps = DJ_ATTENTION_FEW_THREADS / DJ_WARP, warp = (int)threadIdx.x / DJ_WARP;
    int groups = DJ_ATTENTION_FEW_THREADS / p.lanes, group = (int)threadIdx.x / p.lanes;
    int64_t stride = p.value_depth + 2, key_heads = p.heads / p.group;
    for (int64_t unit = blockIdx.x; unit < p.units; unit += gridDim.x) {
        int64_t set = unit / p.splits, split = unit - set * p.splits;
        int64_t head = set / p.row_sets, row = (set - head * p.row_sets) * R;
        int64_t b = head / key_heads, key_head = head - b * key_heads;
        int first = (int)(split * p.split_keys);
        int end = (int)(p.keys - first < p.split_keys ? p.keys : first + p.split_keys);
        f.begin(b, key_head, row);
        for (int s = first; s < end; s += groups * f.together)
            f.take(s + group, groups, end);
        f.join_warp();
        if ((int)threadIdx.x % DJ_WARP < p.lanes)
            for (int r = 0; r < R; ++r) {
                float *part = shared + (r * warps + warp) * stride;
                for (int e = 0; e < PACK; ++e)
                    if (f.column + e < p.value_depth)
                        part[f.column + e] = f.result[r][e];
                part[p.value_depth] = f.max[r];
                part[p.value_depth + 1] = f.sum[r];
            }
        __syncthreads();
        for (int i = (int)threadIdx.x; i < R * p.value_depth; i += DJ_ATTENTION_FEW_THREADS) {
            int r = i / p.value_depth, column = i - r * p.value_depth;
            float max, sum, result;
            if (row + r >= p.length * p.group)
                break;
            result = parts_join(shared + r * warps * stride, stride, warps, column, p.value_depth, &max, &sum);
            int64_t h = key_head * p.group + (row + r) / p.length, l = (row + r) % p.length;
            if (p.splits == 1) {
                row_write(p, b, h, l, column, result, sum);
                continue;
            }
            float *part = reinterpret_cast<float *>(p.partials) +
                          (((b * p.heads + h) * p.length + l) * p.splits + split) * stride;
            part[column] = result;
            if (column == 0) {
                part[p.value_depth] = max;
                part[p.value_depth + 1] = sum;
            }
        }
        __syncthreads();
    }
}

#define FEW(name, T, R)                                                                            \
    DJ_BOUNDS(dj_attention_few_##name##_##R, dj_attention_params_t, DJ_ATTENTION_FEW_THREADS,      \
              R > 1 ? 2 : 4)                                                                      \
    DJ_KERNEL(dj_attention_few_##name##_##R, dj_attention_params_t)                                \
    {                                                                                              \
        DJ_SHARED(float, shared);                                                                  \
        few_run<T, R>(p, shared);                                                                  \
    }
FEW(f32, float, 1)
FEW(f32, float, 4)
FEW(f32, float, 8)
FEW(f16, dj_f16, 1)
FEW(f16, dj_f16, 4)
FEW(f16, dj_f16, 8)
FEW(bf16, dj_bf16, 1)
FEW(bf16, dj_bf16, 4)
FEW(bf16, dj_bf16, 8)

/* A block a row: the splits of it. */
DJ_KERNEL(dj_attention_join, dj_attention_params_t)
{
    int64_t stride = p.value_depth + 2;
    for (int64_t at = blockIdx.x; at < p.units; at += gridDim.x) {
        int64_t head = at / p.length, row = at - head * p.length, b = head / p.heads, h = head - b * p.heads;
        const float *parts = reinterpret_cast<const float *>(p.partials) + at * p.splits * stride;
        for (int column = (int)threadIdx.x; column < p.value_depth; column += (int)blockDim.x) {
            float max, sum, result = parts_join(parts, stride, p.splits, column, p.value_depth, &max, &sum);
            row_write(p, b, h, row, column, result, sum);
        }
    }
}
