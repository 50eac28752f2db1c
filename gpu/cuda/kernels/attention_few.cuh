/* attention_few.cuh - attention of few query rows: the keys are what there is to read, so they are split among blocks
 * and each is read once for all query heads that share it. The parts are joined by a second kernel. */
#ifndef DJ_GPU_CUDA_KERNELS_ATTENTION_FEW_CUH
#define DJ_GPU_CUDA_KERNELS_ATTENTION_FEW_CUH

#include "gpu/cuda/kernels/attention.cuh"

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

#endif
