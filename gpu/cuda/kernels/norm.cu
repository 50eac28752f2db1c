/* norm.cu - softmax, log_softmax, layer norm, batch norm with running statistics.
 *
 * A row belongs to a group of threads: a warp or less for short rows, a block for long ones. Each pass reads the
 * row again, which after the first one comes from a cache; everything is float32 from the load to the store. */
#include "gpu/cuda/kernels/block.cuh"
#include "gpu/cuda/kernels/norm.h"
#include "gpu/cuda/kernels/values.cuh"

#define CHUNK 8 /* elements a thread takes at once; as many as 16 bytes of float16 */

/* ---- softmax ---- */

/* The largest element so far and the sum of exponentials relative to it. */
struct soft {
    float max, sum;
};

DJ_DEVICE soft dj_exchange(soft value, int bits)
{
    soft other;
    other.max = dj_exchange(value.max, bits);
    other.sum = dj_exchange(value.sum, bits);
    return other;
}

/* exp(x - max), where nothing but minus infinity was seen: no part of the sum yet. */
DJ_DEVICE float exponential(float x, float max)
{
    return max == -INFINITY ? 0 : expf(x - max);
}

struct join_soft {
    DJ_MEMBER soft operator()(soft a, soft b) const
    {
        soft both;
        both.max = dj_join_max()(a.max, b.max);
        both.sum = a.sum * exponential(a.max, both.max) + b.sum * exponential(b.max, both.max);
        return both;
    }
};

DJ_DEVICE void soft_take(soft &s, const float *x, int n)
{
    float max = s.max;
    for (int i = 0; i < n; ++i)
        max = dj_join_max()(max, x[i]);
    s.sum *= exponential(s.max, max);
    for (int i = 0; i < n; ++i)
        s.sum += exponential(x[i], max);
    s.max = max;
}

template <typename In>
DJ_DEVICE soft soft_scan(const dj_softmax_params_t &p, const char *in, int64_t lane, bool packed)
{
    soft s = {-INFINITY, 0};
    float x[CHUNK];
    int64_t lanes = p.lanes, i = 0;
    if (packed) {
        for (i = lane * CHUNK; i + CHUNK <= p.size; i += lanes * CHUNK) {
            dj_load_pack<CHUNK>(reinterpret_cast<const In *>(in) + i, x);
            soft_take(s, x, CHUNK);
        }
        i = p.size / CHUNK * CHUNK;
    }
    for (i += lane; i + 3 * lanes < p.size; i += 4 * lanes) {
        for (int j = 0; j < 4; ++j)
            x[j] = dj_float(*reinterpret_cast<const In *>(in + (i + j * lanes) * p.in_stride));
        soft_take(s, x, 4);
    }
    for (; i < p.size; i += lanes) {
        x[0] = dj_float(*reinterpret_cast<const In *>(in + i * p.in_stride));
        soft_take(s, x, 1);
    }
    return s;
}

struct soft_result {
    float max, scale, shift;
    bool is_log;

    DJ_MEMBER float operator()(float x) const
    {
        return is_log ? x - max - shift : expf(x - max) * scale;
    }
};

template <typename In, typename Out>
DJ_DEVICE void soft_write(const dj_softmax_params_t &p, const char *in, char *out, int64_t lane, bool packed,
                          const soft_result &result)
{
    int64_t lanes = p.lanes, i = 0;
    if (packed) {
        for (i = lane * CHUNK; i + CHUNK <= p.size; i += lanes * CHUNK) {
            float x[CHUNK];
            dj_load_pack<CHUNK>(reinterpret_cast<const In *>(in) + i, x);
            for (int j = 0; j < CHUNK; ++j)
                x[j] = result(x[j]);
            dj_store_pack<CHUNK>(reinterpret_cast<Out *>(out) + i, x);
        }
        i = p.size / CHUNK * CHUNK;
    }
    for (i += lane; i < p.size; i += lanes) {
        float x = dj_float(*reinterpret_cast<const In *>(in + i * p.in_stride));
        dj_put(reinterpret_cast<Out *>(out + i * p.out_stride), result(x));
    }
}

/* The lanes' parts of `width` rows that lie across the block; all lanes of a row get the whole. */
DJ_DEVICE soft join_columns(soft value, int lane, int lanes, int width, soft *shared)
{
    int which = (int)threadIdx.x % width;
    shared[threadIdx.x] = value;
    __syncthreads();
    DJ_ROLLED
    for (int half = lanes / 2; half > 0; half /= 2) {
        if (lane < half)
            shared[threadIdx.x] = join_soft()(shared[threadIdx.x], shared[(int)threadIdx.x + half * width]);
        __syncthreads();
    }
    value = shared[which];
    __syncthreads();
    return value;
}

template <typename In, typename Out> DJ_DEVICE void softmax_run(const dj_softmax_params_t &p, soft *shared)
{
    char *const in_base = dj_at(p.head, p.in), *const out_base = dj_at(p.head, p.out);
    int lanes = p.lanes, width = (int)blockDim.x / lanes, thread = (int)threadIdx.x;
    int lane = p.columns ? thread / width : thread % lanes;
    int which = p.columns ? thread % width : thread / lanes;
    for (int64_t first = (int64_t)blockIdx.x * width; first < p.rows.count; first += (int64_t)gridDim.x * width) {
        int64_t row = first + which;
        bool mine = row < p.rows.count;
        int64_t at[2] = {0, 0};
        dj_loop_offsets<2>(p.rows, mine ? row : first, at);
        const char *in = in_base + at[0];
        char *out = out_base + at[1];
        bool packed = p.dense && dj_is_aligned(in) && dj_is_aligned(out);
        soft s = soft_scan<In>(p, in, lane, packed);
        s = p.columns ? join_columns(s, lane, lanes, width, shared) : dj_block_join(s, lanes, shared, join_soft());
        soft_result result = {s.max, 1 / s.sum, logf(s.sum), p.is_log != 0};
        if (mine)
            soft_write<In, Out>(p, in, out, lane, packed, result);
    }
}

#define SOFTMAX(name, In, Out)                                                                     \
    DJ_KERNEL(dj_norm_softmax_##name, dj_softmax_params_t)                                         \
    {                                                                                              \
        __shared__ soft shared[256];                                                               \
        softmax_run<In, Out>(p, shared);                                                           \
    }
SOFTMAX(f32, float, float)
SOFTMAX(f16, dj_f16, dj_f16)
SOFTMAX(bf16, dj_bf16, dj_bf16)
SOFTMAX(f16_f32, dj_f16, float)

/* ---- layer norm ---- */

/* Calls visit(values, how many, number of the first one) for this thread's share of a row: CHUNK or one. */
template <typename T, typename Visit>
DJ_DEVICE void row_visit(const dj_layer_norm_params_t &p, const char *in, int64_t lane, bool packed,
                         const Visit &visit)
{
    float x[CHUNK];
    int64_t lanes = p.lanes, i = 0, n = p.along.count;
    if (packed) {
        for (i = lane * CHUNK; i + CHUNK <= n; i += lanes * CHUNK) {
            dj_load_pack<CHUNK>(reinterpret_cast<const T *>(in) + i, x);
            visit(x, CHUNK, i);
        }
        i = n / CHUNK * CHUNK;
    }
    for (i += lane; i < n; i += lanes) {
        x[0] = dj_float(*reinterpret_cast<const T *>(in + dj_loop_offset(p.along, 0, i)));
        visit(x, 1, i);
    }
}

template <typename T>
DJ_DEVICE void write_pack(T *out, const T *weight, const T *bias, const float *x, float mean, float scale)
{
    float y[CHUNK], w[CHUNK], b[CHUNK];
    if (weight)
        dj_load_pack<CHUNK>(weight, w);
    if (bias)
        dj_load_pack<CHUNK>(bias, b);
    for (int j = 0; j < CHUNK; ++j) {
        y[j] = (x[j] - mean) * scale;
        y[j] = weight ? y[j] * w[j] : y[j];
        y[j] = bias ? y[j] + b[j] : y[j];
    }
    dj_store_pack<CHUNK>(out, y);
}

template <typename T>
DJ_DEVICE void write_one(const dj_layer_norm_params_t &p, char *out, const char *weight, const char *bias, float x,
                         int64_t i)
{
    int64_t at[4];
    dj_loop_offsets<4>(p.along, i, at);
    if (weight)
        x *= dj_float(*reinterpret_cast<const T *>(weight + at[1]));
    if (bias)
        x += dj_float(*reinterpret_cast<const T *>(bias + at[2]));
    dj_put(reinterpret_cast<T *>(out + at[3]), x);
}

template <typename T> DJ_DEVICE void layer_norm_run(const dj_layer_norm_params_t &p, float *shared)
{
    const char *weight = dj_at(p.head, p.weight), *bias = dj_at(p.head, p.bias);
    char *mean_base = dj_at(p.head, p.mean), *deviation_base = dj_at(p.head, p.deviation);
    char *in_base = dj_at(p.head, p.in), *out_base = dj_at(p.head, p.out);
    bool aligned = p.dense && dj_is_aligned(weight) && dj_is_aligned(bias);
    int lanes = p.lanes, width = (int)blockDim.x / lanes;
    int lane = (int)threadIdx.x % lanes, which = (int)threadIdx.x / lanes;
    float eps = (float)dj_scalar_as_real(p.head, p.eps), n = (float)p.along.count;
    for (int64_t first = (int64_t)blockIdx.x * width; first < p.rows.count; first += (int64_t)gridDim.x * width) {
        bool mine = first + which < p.rows.count;
        int64_t at[3];
        dj_loop_offsets<3>(p.rows, mine ? first + which : first, at);
        const char *in = in_base + at[0];
        char *out = out_base + at[1];
        bool packed = aligned && dj_is_aligned(in) && dj_is_aligned(out);
        float sum = 0, squares = 0;
        row_visit<T>(p, in, lane, packed, [&](const float *x, int count, int64_t) {
            for (int j = 0; j < count; ++j)
                sum += x[j];
        });
        float mean = dj_block_join(sum, lanes, shared, dj_join_sum()) / n;
        row_visit<T>(p, in, lane, packed, [&](const float *x, int count, int64_t) {
            for (int j = 0; j < count; ++j)
                squares += (x[j] - mean) * (x[j] - mean);
        });
        float scale = 1 / sqrtf(dj_block_join(squares, lanes, shared, dj_join_sum()) / n + eps);
        if (!mine)
            continue;
        row_visit<T>(p, in, lane, packed, [&](const float *x, int count, int64_t i) {
            if (count == CHUNK)
                write_pack(reinterpret_cast<T *>(out) + i, weight ? reinterpret_cast<const T *>(weight) + i : nullptr,
                           bias ? reinterpret_cast<const T *>(bias) + i : nullptr, x, mean, scale);
            else
                write_one<T>(p, out, weight, bias, (x[0] - mean) * scale, i);
        });
        if (lane == 0 && mean_base)
            *reinterpret_cast<float *>(mean_base + at[2]) = mean;
        if (lane == 0 && deviation_base)
            *reinterpret_cast<float *>(deviation_base + at[2]) = scale;
    }
}

#define LAYER_NORM(name, T)                                                                        \
    DJ_KERNEL(dj_norm_layer_##name, dj_layer_norm_params_t)                                        \
    {                                                                                              \
        __shared__ float shared[DJ_WARPS_MAX];                                                     \
        layer_norm_run<T>(p, shared);                                                              \
    }
LAYER_NORM(f32, float)
LAYER_NORM(f16, dj_f16)
LAYER_NORM(bf16, dj_bf16)

/* ---- batch norm ---- */

DJ_DEVICE float channel_value(const dj_batch_norm_params_t &p, const dj_cuda_ref_t &ref, int k, int64_t c,
                              float absent)
{
    const char *at = dj_at(p.head, ref);
    return at ? dj_load<float>(at + c * p.strides[k], p.dtypes[k]) : absent;
}

DJ_KERNEL(dj_norm_batch_channels, dj_batch_norm_params_t)
{
    float *channels = reinterpret_cast<float *>(p.channels);
    float *saved_mean = reinterpret_cast<float *>(dj_at(p.head, p.saved_mean));
    float *saved_deviation = reinterpret_cast<float *>(dj_at(p.head, p.saved_deviation));
    float eps = (float)dj_scalar_as_real(p.head, p.eps);
    for (int64_t c = dj_grid_first(); c < p.n_channels; c += dj_grid_stride()) {
        float mean = channel_value(p, p.mean, 2, c, 0);
        float scale = 1 / sqrtf(channel_value(p, p.variance, 3, c, 1) + eps);
        channels[c] = mean;
        channels[p.n_channels + c] = scale * channel_value(p, p.weight, 0, c, 1);
        channels[2 * p.n_channels + c] = channel_value(p, p.bias, 1, c, 0);
        if (saved_mean)
            saved_mean[c] = mean;
        if (saved_deviation)
            saved_deviation[c] = scale;
    }
}

template <typename T> DJ_DEVICE void batch_norm_run(const dj_batch_norm_params_t &p)
{
    const char *in = dj_at(p.head, p.in);
    char *out = dj_at(p.head, p.out);
    const float *mean = reinterpret_cast<const float *>(p.channels);
    const float *factor = mean + p.n_channels, *term = factor + p.n_channels;
    for (int64_t i = dj_grid_first(); i < p.elements.count; i += dj_grid_stride()) {
        int64_t at[3];
        dj_loop_offsets<3>(p.elements, i, at);
        float x = dj_float(*reinterpret_cast<const T *>(in + at[0]));
        dj_put(reinterpret_cast<T *>(out + at[2]), (x - mean[at[1]]) * factor[at[1]] + term[at[1]]);
    }
}

#define BATCH_NORM(name, T)                                                                        \
    DJ_KERNEL(dj_norm_batch_##name, dj_batch_norm_params_t)                                        \
    {                                                                                              \
        batch_norm_run<T>(p);                                                                      \
    }
BATCH_NORM(f32, float)
BATCH_NORM(f16, dj_f16)
BATCH_NORM(bf16, dj_bf16)
