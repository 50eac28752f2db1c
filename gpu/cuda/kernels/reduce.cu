/* reduce.cu - sums, products, extremes and their places, norms, variances.
 *
 * One skeleton: a fold has a value, says what the first one is, takes elements into it and joins two. A thread
 * folds every lanes-th element of its output, the lanes of an output are joined, and where an output was split
 * among blocks the joined values lie in the workspace for a second kernel. No atomics: the order is the same in
 * every run.
 *
 * Sums and extremes of float32, float16 and bfloat16 fold in float32 and have kernels of their own; everything else
 * learns its dtype when it runs and folds in float64 (norms, products, variances, float64) or int64. */
#include "gpu/cuda/kernels/block.cuh"
#include "gpu/cuda/kernels/reduce.h"
#include "gpu/cuda/kernels/values.cuh"

/* ---- folds ---- */

DJ_DEVICE double scalar_of(const dj_reduce_params_t &p)
{
    return p.scalar.slot < 0 ? p.scalar_absent : dj_scalar_as_real(p.head, p.scalar);
}

DJ_DEVICE uint32_t kind_of(const dj_reduce_params_t &p, double order)
{
    if (p.kind != DJ_REDUCE_NORM)
        return p.kind;
    if (order == 2)
        return DJ_REDUCE_SQUARE_SUM;
    if (order == 1)
        return DJ_REDUCE_ABS_SUM;
    if (order == 0)
        return DJ_REDUCE_NONZERO_SUM;
    if (order == (double)INFINITY)
        return DJ_REDUCE_ABS_MAX;
    return order == -(double)INFINITY ? DJ_REDUCE_ABS_MIN : DJ_REDUCE_POWER_SUM;
}

/* A float32 sum and what rounding took from it: as good as float64 without its price. Not for NaN and infinities,
 * where `lost` means nothing. */
struct sum2 {
    float sum, lost;
};

DJ_DEVICE sum2 dj_exchange(sum2 value, int bits)
{
    sum2 other;
    other.sum = dj_exchange(value.sum, bits);
    other.lost = dj_exchange(value.lost, bits);
    return other;
}

template <typename T> struct fold_sum {
    typedef sum2 value_t;
    static const int unroll = 4;

    DJ_MEMBER explicit fold_sum(const dj_reduce_params_t &)
    {
    }
    DJ_MEMBER sum2 first() const
    {
        sum2 none = {0, 0};
        return none;
    }
    DJ_MEMBER sum2 operator()(sum2 a, sum2 b) const
    {
        float sum = a.sum + b.sum, part = sum - a.sum;
        a.lost += b.lost + ((a.sum - (sum - part)) + (b.sum - part));
        a.sum = sum;
        return a;
    }
    DJ_MEMBER void take(sum2 &r, const char *at, int64_t) const
    {
        sum2 x = {dj_float(*reinterpret_cast<const T *>(at)), 0};
        if (sizeof(T) == 4)
            r = (*this)(r, x);
        else
            r.sum += x.sum; /* float32 has digits enough for what float16 has */
    }
    DJ_MEMBER void finish(const dj_reduce_params_t &p, int64_t output, sum2 r) const
    {
        char *out = dj_at(p.head, p.out) + dj_loop_offset(p.kept, 1, output);
        double sum = r.sum - r.sum == 0 ? (double)r.sum + (double)r.lost : (double)r.sum;
        dj_store(out, p.out_dtype, p.mean ? sum / (double)p.along.count : sum);
    }
};

template <typename T, bool Largest> struct fold_extreme {
    typedef float value_t;
    static const int unroll = 4;

    DJ_MEMBER explicit fold_extreme(const dj_reduce_params_t &)
    {
    }
    DJ_MEMBER float first() const
    {
        return Largest ? -INFINITY : INFINITY;
    }
    DJ_MEMBER float operator()(float r, float x) const
    {
        return ((Largest ? x > r : x < r) || x != x) ? x : r;
    }
    DJ_MEMBER void take(float &r, const char *at, int64_t) const
    {
        r = (*this)(r, dj_float(*reinterpret_cast<const T *>(at)));
    }
    DJ_MEMBER void finish(const dj_reduce_params_t &p, int64_t output, float r) const
    {
        dj_store(dj_at(p.head, p.out) + dj_loop_offset(p.kept, 1, output), p.out_dtype, r);
    }
};

struct fold_real {
    typedef double value_t;
    static const int unroll = 1;
    double order;
    uint32_t kind, dtype;

    DJ_MEMBER explicit fold_real(const dj_reduce_params_t &p)
    {
        order = scalar_of(p);
        kind = kind_of(p, order);
        dtype = p.in_dtype;
    }
    DJ_MEMBER double first() const
    {
        switch (kind) {
        case DJ_REDUCE_PROD: return 1;
        case DJ_REDUCE_MAX: return -(double)INFINITY;
        case DJ_REDUCE_MIN:
        case DJ_REDUCE_ABS_MIN: return (double)INFINITY;
        default: return 0;
        }
    }
    DJ_MEMBER double operator()(double r, double x) const
    {
        switch (kind) {
        case DJ_REDUCE_PROD: return r * x;
        case DJ_REDUCE_MAX:
        case DJ_REDUCE_ABS_MAX: return (x > r || x != x) ? x : r;
        case DJ_REDUCE_MIN:
        case DJ_REDUCE_ABS_MIN: return (x < r || x != x) ? x : r;
        default: return r + x;
        }
    }
    DJ_MEMBER void take(double &r, const char *at, int64_t) const
    {
        double x = dj_load<double>(at, dtype);
        switch (kind) {
        case DJ_REDUCE_ABS_SUM:
        case DJ_REDUCE_ABS_MAX:
        case DJ_REDUCE_ABS_MIN: x = fabs(x); break;
        case DJ_REDUCE_SQUARE_SUM: x *= x; break;
        case DJ_REDUCE_NONZERO_SUM: x = x != 0; break;
        case DJ_REDUCE_POWER_SUM: x = pow(fabs(x), order); break;
        default: break;
        }
        r = (*this)(r, x);
    }
    DJ_MEMBER void finish(const dj_reduce_params_t &p, int64_t output, double r) const
    {
        char *out = dj_at(p.head, p.out) + dj_loop_offset(p.kept, 1, output);
        if (p.mean)
            r /= (double)p.along.count;
        else if (kind == DJ_REDUCE_SQUARE_SUM)
            r = sqrt(r);
        else if (kind == DJ_REDUCE_POWER_SUM)
            r = pow(r, 1 / order);
        dj_store(out, p.out_dtype, r);
    }
};

struct fold_integer {
    typedef int64_t value_t;
    static const int unroll = 1;
    uint32_t kind, dtype;

    DJ_MEMBER explicit fold_integer(const dj_reduce_params_t &p)
    {
        kind = p.kind;
        dtype = p.in_dtype;
    }
    DJ_MEMBER int64_t first() const
    {
        switch (kind) {
        case DJ_REDUCE_PROD:
        case DJ_REDUCE_ALL: return 1;
        case DJ_REDUCE_MAX: return INT64_MIN;
        case DJ_REDUCE_MIN: return INT64_MAX;
        default: return 0;
        }
    }
    DJ_MEMBER int64_t operator()(int64_t r, int64_t x) const
    {
        switch (kind) {
        case DJ_REDUCE_PROD: return (int64_t)((uint64_t)r * (uint64_t)x);
        case DJ_REDUCE_MAX: return x > r ? x : r;
        case DJ_REDUCE_MIN: return x < r ? x : r;
        case DJ_REDUCE_ANY: return r | x;
        case DJ_REDUCE_ALL: return r & x;
        default: return (int64_t)((uint64_t)r + (uint64_t)x);
        }
    }
    DJ_MEMBER void take(int64_t &r, const char *at, int64_t) const
    {
        bool truth = kind == DJ_REDUCE_ANY || kind == DJ_REDUCE_ALL;
        int64_t x;
        if (dj_is_floating(dtype)) {
            double real = dj_load<double>(at, dtype);
            x = truth ? real != 0 : dj_truncate(real);
        } else {
            x = dj_load<int64_t>(at, dtype);
            x = truth ? x != 0 : x;
        }
        r = (*this)(r, x);
    }
    DJ_MEMBER void finish(const dj_reduce_params_t &p, int64_t output, int64_t r) const
    {
        dj_store(dj_at(p.head, p.out) + dj_loop_offset(p.kept, 1, output), p.out_dtype, r);
    }
};

/* Mean and sum of squared deviations of n elements (Welford; joined as Chan does). */
struct moments {
    double mean, squares;
    int64_t n;
};

DJ_DEVICE moments dj_exchange(moments value, int bits)
{
    moments other;
    other.mean = dj_exchange(value.mean, bits);
    other.squares = dj_exchange(value.squares, bits);
    other.n = dj_exchange(value.n, bits);
    return other;
}

struct fold_variance {
    typedef moments value_t;
    static const int unroll = 1;
    double correction;
    uint32_t dtype;

    DJ_MEMBER explicit fold_variance(const dj_reduce_params_t &p)
    {
        correction = scalar_of(p);
        dtype = p.in_dtype;
    }
    DJ_MEMBER moments first() const
    {
        moments none = {0, 0, 0};
        return none;
    }
    DJ_MEMBER moments operator()(moments a, moments b) const
    {
        int64_t n = a.n + b.n;
        if (a.n == 0 || b.n == 0)
            return a.n == 0 ? b : a;
        double step = b.mean - a.mean, share = (double)b.n / (double)n;
        a.mean += step * share;
        a.squares += b.squares + step * step * share * (double)a.n;
        a.n = n;
        return a;
    }
    DJ_MEMBER void take(moments &r, const char *at, int64_t) const
    {
        double x = dj_load<double>(at, dtype), step = x - r.mean;
        r.n += 1;
        r.mean += step / (double)r.n;
        r.squares += step * (x - r.mean);
    }
    DJ_MEMBER void finish(const dj_reduce_params_t &p, int64_t output, moments r) const
    {
        char *out = dj_at(p.head, p.out) + dj_loop_offset(p.kept, 1, output);
        double count = (double)p.along.count;
        dj_store(out, p.out_dtype, r.squares / (count > correction ? count - correction : 0));
    }
};

/* An extreme and the first place that has it; a NaN is more extreme than everything. No place yet: -1. */
template <typename V> struct place {
    V value;
    int64_t index;
};

template <typename V> DJ_DEVICE place<V> dj_exchange(place<V> value, int bits)
{
    place<V> other;
    other.value = dj_exchange(value.value, bits);
    other.index = dj_exchange(value.index, bits);
    return other;
}

template <typename V> struct fold_place {
    typedef place<V> value_t;
    static const int unroll = 1;
    bool smallest;
    uint32_t dtype;

    DJ_MEMBER explicit fold_place(const dj_reduce_params_t &p)
    {
        smallest = p.smallest != 0;
        dtype = p.in_dtype;
    }
    DJ_MEMBER place<V> first() const
    {
        place<V> none = {0, -1};
        return none;
    }
    DJ_MEMBER bool beats(V x, V r) const
    {
        if (x != x || r != r)
            return x != x && r == r;
        return smallest ? x < r : x > r;
    }
    DJ_MEMBER place<V> operator()(place<V> a, place<V> b) const
    {
        if (a.index < 0 || b.index < 0)
            return a.index < 0 ? b : a;
        if (beats(a.value, b.value))
            return a;
        return beats(b.value, a.value) || b.index < a.index ? b : a;
    }
    DJ_MEMBER void take(place<V> &r, const char *at, int64_t i) const
    {
        V x = dj_load<V>(at, dtype);
        if (r.index < 0 || beats(x, r.value)) {
            r.value = x;
            r.index = i;
        }
    }
    DJ_MEMBER void finish(const dj_reduce_params_t &p, int64_t output, place<V> r) const
    {
        char *out = dj_at(p.head, p.out), *index = dj_at(p.head, p.index);
        if (out)
            dj_store(out + dj_loop_offset(p.kept, 1, output), p.out_dtype, r.value);
        *reinterpret_cast<int64_t *>(index + dj_loop_offset(p.kept, 2, output)) = r.index;
    }
};

/* ---- the skeleton ---- */

/* Elements i, i + step, ... before `end`. */
template <typename F>
DJ_DEVICE typename F::value_t run_fold(const dj_reduce_params_t &p, const F &fold, const char *base, int64_t i,
                                       int64_t end, int64_t step)
{
    typename F::value_t values[F::unroll];
    for (int j = 0; j < F::unroll; ++j)
        values[j] = fold.first();
    if (p.along.rank == 1) {
        int64_t stride = p.along.strides[0][0], hop = step * stride;
        const char *at = base + i * stride;
        DJ_ROLLED
        for (; i + (F::unroll - 1) * step < end; i += F::unroll * step, at += F::unroll * hop)
            for (int j = 0; j < F::unroll; ++j)
                fold.take(values[j], at + j * hop, i + j * step);
        DJ_ROLLED
        for (; i < end; i += step, at += hop)
            fold.take(values[0], at, i);
    } else {
        DJ_ROLLED
        for (; i < end; i += step)
            fold.take(values[0], base + dj_loop_offset(p.along, 0, i), i);
    }
    for (int j = 1; j < F::unroll; ++j)
        values[0] = fold(values[0], values[j]);
    return values[0];
}

/* The same as dj_block_join(), where a group's threads are `width` apart; only its first thread has the result. */
template <typename F>
DJ_DEVICE typename F::value_t join_columns(typename F::value_t value, int lanes, int width,
                                           typename F::value_t *shared, const F &fold)
{
    int at = (int)threadIdx.x, lane = at / width;
    shared[at] = value;
    __syncthreads();
    DJ_ROLLED
    for (int half = lanes / 2; half > 0; half /= 2) {
        if (lane < half)
            shared[at] = fold(shared[at], shared[at + half * width]);
        __syncthreads();
    }
    value = shared[at];
    __syncthreads();
    return value;
}

template <typename F> DJ_DEVICE void reduce_run(const dj_reduce_params_t &p, typename F::value_t *shared)
{
    const F fold(p);
    const char *in = dj_at(p.head, p.in);
    int lanes = p.lanes, width = DJ_REDUCE_THREADS / lanes, thread = (int)threadIdx.x;
    int lane = p.columns ? thread / width : thread % lanes;
    int which = p.columns ? thread % width : thread / lanes;
    for (int64_t unit = blockIdx.x; unit < p.units; unit += gridDim.x) {
        int64_t group = unit / p.splits, split = unit - group * p.splits;
        int64_t output = group * width + which, first = split * p.split_size;
        int64_t end = p.along.count - first < p.split_size ? p.along.count : first + p.split_size;
        typename F::value_t value = fold.first();
        if (output < p.kept.count)
            value = run_fold(p, fold, in + dj_loop_offset(p.kept, 0, output), first + lane, end, lanes);
        if (p.columns)
            value = join_columns(value, lanes, width, shared, fold);
        else
            value = dj_block_join(value, lanes, shared, fold);
        if (lane != 0 || output >= p.kept.count)
            continue;
        if (p.splits > 1)
            reinterpret_cast<typename F::value_t *>(p.partials)[output * p.splits + split] = value;
        else
            fold.finish(p, output, value);
    }
}

/* The second kernel: a warp an output. */
template <typename F> DJ_DEVICE void join_run(const dj_reduce_params_t &p)
{
    const F fold(p);
    const typename F::value_t *partials = reinterpret_cast<const typename F::value_t *>(p.partials);
    int lane = dj_lane();
    int64_t output = dj_grid_first() / DJ_WARP, step = dj_grid_stride() / DJ_WARP;
    for (; output < p.kept.count; output += step) {
        typename F::value_t value = fold.first();
        for (int s = lane; s < p.splits; s += DJ_WARP)
            value = fold(value, partials[output * p.splits + s]);
        value = dj_warp_join(value, DJ_WARP, fold);
        if (lane == 0)
            fold.finish(p, output, value);
    }
}

#define REDUCE(name, ...)                                                                          \
    DJ_KERNEL(dj_reduce_##name, dj_reduce_params_t)                                                \
    {                                                                                              \
        __shared__ __VA_ARGS__::value_t shared[DJ_REDUCE_THREADS];                                 \
        reduce_run<__VA_ARGS__>(p, shared);                                                        \
    }
#define JOIN(name, ...)                                                                            \
    DJ_KERNEL(dj_reduce_join_##name, dj_reduce_params_t)                                           \
    {                                                                                              \
        join_run<__VA_ARGS__>(p);                                                                  \
    }

REDUCE(sum_f32, fold_sum<float>)
REDUCE(sum_f16, fold_sum<dj_f16>)
REDUCE(sum_bf16, fold_sum<dj_bf16>)
REDUCE(max_f32, fold_extreme<float, true>)
REDUCE(max_f16, fold_extreme<dj_f16, true>)
REDUCE(max_bf16, fold_extreme<dj_bf16, true>)
REDUCE(min_f32, fold_extreme<float, false>)
REDUCE(min_f16, fold_extreme<dj_f16, false>)
REDUCE(min_bf16, fold_extreme<dj_bf16, false>)
REDUCE(real, fold_real)
REDUCE(integer, fold_integer)
REDUCE(variance, fold_variance)
REDUCE(place_f32, fold_place<float>)
REDUCE(place_f64, fold_place<double>)
REDUCE(place_i64, fold_place<int64_t>)
JOIN(sum, fold_sum<float>)
JOIN(max, fold_extreme<float, true>)
JOIN(min, fold_extreme<float, false>)
JOIN(real, fold_real)
JOIN(integer, fold_integer)
JOIN(variance, fold_variance)
JOIN(place_f32, fold_place<float>)
JOIN(place_f64, fold_place<double>)
JOIN(place_i64, fold_place<int64_t>)
