/* convolution.cu - convolution of any strides, groups and one to three dimensions, for what a library does not compute,
 * and pooling.
 *
 * One thread an element of the output; float16 and bfloat16 are summed in float32. Pooling reads every element once or
 * a few times, so memory is all that counts; of maxima, the first counts, and NaN is the greatest. */
#include "gpu/cuda/kernels/convolution.h"

#include "gpu/cuda/kernels/kernel.cuh"

DJ_DEVICE double dj_float(double value)
{
    return value;
}

DJ_DEVICE void dj_put(double *at, double value)
{
    *at = value;
}

/* ---- elements ---- */

typedef struct element {
    int64_t batch, channel, at[DJ_CONVOLUTION_SPATIAL];
} element_t;

DJ_DEVICE int64_t take(int64_t *rest, int64_t size)
{
    int64_t whole = *rest / size, index = *rest - whole * size;
    *rest = whole;
    return index;
}

/* An element of the output by its number, channels innermost where the output lies so. */
DJ_DEVICE element_t element_of(const dj_picture_t &out, int64_t channels, int64_t number, bool channels_inner)
{
    element_t e;
    if (channels_inner)
        e.channel = take(&number, channels);
    for (int d = DJ_CONVOLUTION_SPATIAL - 1; d >= 0; --d)
        e.at[d] = take(&number, out.sizes[d]);
    if (!channels_inner)
        e.channel = take(&number, channels);
    e.batch = number;
    return e;
}

DJ_DEVICE int64_t offset_of(const dj_picture_t &picture, const element_t &e)
{
    int64_t offset = e.batch * picture.batch_stride + e.channel * picture.channel_stride;
    for (int d = 0; d < DJ_CONVOLUTION_SPATIAL; ++d)
        offset += e.at[d] * picture.strides[d];
    return offset;
}

/* ---- convolution ---- */

/* Where in the input kernel element k of dimension d looks from output position `at`; -1: nowhere. */
DJ_DEVICE int64_t look(const dj_convolution_t &p, int d, int64_t at, int64_t k)
{
    int64_t place = at * p.window.stride[d] - p.window.padding[d] + k * p.window.dilation[d];
    if (p.transposed) {
        place = at + p.window.padding[d] - k * p.window.dilation[d];
        if (place < 0 || place % p.window.stride[d] != 0)
            return -1;
        place /= p.window.stride[d];
    }
    return place >= 0 && place < p.in.sizes[d] ? place : -1;
}

/* One kernel over one channel. */
template <typename T, typename S>
DJ_DEVICE S slide(const dj_convolution_t &p, const T *input, const T *weight, const element_t &e)
{
    S sum = 0;
    for (int64_t i = 0; i < p.window.kernel[0]; ++i) {
        int64_t z = look(p, 0, e.at[0], i);
        for (int64_t j = 0; z >= 0 && j < p.window.kernel[1]; ++j) {
            int64_t y = look(p, 1, e.at[1], j);
            for (int64_t k = 0; y >= 0 && k < p.window.kernel[2]; ++k) {
                int64_t x = look(p, 2, e.at[2], k);
                if (x < 0)
                    continue;
                sum += dj_float(input[z * p.in.strides[0] + y * p.in.strides[1] + x * p.in.strides[2]]) *
                       dj_float(weight[i * p.kernel.strides[0] + j * p.kernel.strides[1] + k * p.kernel.strides[2]]);
            }
        }
    }
    return sum;
}

template <typename T, typename S> DJ_DEVICE void convolve(const dj_convolution_t &p)
{
    const T *input = reinterpret_cast<const T *>(dj_at(p.head, p.input));
    const T *weight = reinterpret_cast<const T *>(dj_at(p.head, p.weight));
    const T *bias = reinterpret_cast<const T *>(dj_at(p.head, p.bias));
    T *output = reinterpret_cast<T *>(dj_at(p.head, p.output));
    for (int64_t i = dj_grid_first(); i < p.count; i += dj_grid_stride()) {
        element_t e = element_of(p.out, p.channels, i, false);
        int64_t group = e.channel / p.group_outputs, inside = e.channel - group * p.group_outputs;
        S sum = 0;
        for (int64_t c = 0; c < p.group_inputs; ++c) {
            int64_t channel = group * p.group_inputs + c;
            int64_t first = p.transposed ? channel : e.channel, second = p.transposed ? inside : c;
            sum += slide<T, S>(p, input + e.batch * p.in.batch_stride + channel * p.in.channel_stride,
                               weight + first * p.kernel.batch_stride + second * p.kernel.channel_stride, e);
        }
        if (bias)
            sum += dj_float(bias[e.channel * p.bias_stride]);
        dj_put(output + offset_of(p.out, e), sum);
    }
}

template <typename T> DJ_DEVICE void add_bias(const dj_convolution_bias_t &p)
{
    const char *bias = dj_at(p.head, p.bias);
    char *output = dj_at(p.head, p.output);
    for (int64_t i = dj_grid_first(); i < p.loop.count; i += dj_grid_stride()) {
        T *at = reinterpret_cast<T *>(output + dj_loop_at(p.loop, 1, i));
        dj_put(at, dj_float(*at) + dj_float(*reinterpret_cast<const T *>(bias + dj_loop_at(p.loop, 0, i))));
    }
}

/* ---- pooling ---- */

/* What the window covers in one dimension: [first, end) inside the picture, `covered` of it and its padding. */
typedef struct span {
    int64_t first, end, covered;
} span_t;

DJ_DEVICE span_t span_of(const dj_pool_t &p, int d, int64_t at)
{
    span_t span;
    int64_t edge = p.in.sizes[d] + p.window.padding[d];
    span.first = at * p.window.stride[d] - p.window.padding[d];
    span.end = span.first + p.window.kernel[d] < edge ? span.first + p.window.kernel[d] : edge;
    span.covered = span.end - span.first;
    span.first = span.first > 0 ? span.first : 0;
    span.end = span.end < p.in.sizes[d] ? span.end : p.in.sizes[d];
    return span;
}

template <typename T, typename S>
DJ_DEVICE S span_sum(const dj_pool_t &p, const T *plane, const span_t &y, const span_t &x)
{
    S sum = 0;
    for (int64_t i = y.first; i < y.end; ++i)
        for (int64_t j = x.first; j < x.end; ++j)
            sum += dj_float(plane[i * p.in.strides[1] + j * p.in.strides[2]]);
    return sum;
}

template <typename T, typename S> DJ_DEVICE void average(const dj_pool_t &p)
{
    const T *input = reinterpret_cast<const T *>(dj_at(p.head, p.input));
    T *output = reinterpret_cast<T *>(dj_at(p.head, p.output));
    for (int64_t i = dj_grid_first(); i < p.count; i += dj_grid_stride()) {
        element_t e = element_of(p.out, p.channels, i, p.channels_inner);
        span_t y = span_of(p, 1, e.at[1]), x = span_of(p, 2, e.at[2]);
        int64_t divisor = p.divisor;
        S value = 0;
        if (divisor == 0)
            divisor = p.with_padding ? y.covered * x.covered : (y.end - y.first) * (x.end - x.first);
        if (y.first < y.end && x.first < x.end)
            value = span_sum<T, S>(p, input + e.batch * p.in.batch_stride + e.channel * p.in.channel_stride, y, x) /
                    (S)divisor;
        dj_put(output + offset_of(p.out, e), value);
    }
}

/* Part `at` of `parts` of a dimension; parts overlap where they do not divide it. */
DJ_DEVICE span_t part_of(int64_t size, int64_t parts, int64_t at)
{
    span_t span;
    span.first = at * size / parts;
    span.end = ((at + 1) * size + parts - 1) / parts;
    span.covered = span.end - span.first;
    return span;
}

template <typename T, typename S> DJ_DEVICE void adapt(const dj_pool_t &p)
{
    const T *input = reinterpret_cast<const T *>(dj_at(p.head, p.input));
    T *output = reinterpret_cast<T *>(dj_at(p.head, p.output));
    for (int64_t i = dj_grid_first(); i < p.count; i += dj_grid_stride()) {
        element_t e = element_of(p.out, p.channels, i, p.channels_inner);
        span_t y = part_of(p.in.sizes[1], p.out.sizes[1], e.at[1]);
        span_t x = part_of(p.in.sizes[2], p.out.sizes[2], e.at[2]);
        S sum = span_sum<T, S>(p, input + e.batch * p.in.batch_stride + e.channel * p.in.channel_stride, y, x);
        dj_put(output + offset_of(p.out, e), sum / (S)y.covered / (S)x.covered);
    }
}

/* Is `value` greater, in the order in which NaN is the greatest? The last of several NaN is taken, as PyTorch does. */
template <typename T> DJ_DEVICE bool wins(T value, T best)
{
    return value > best || value != value;
}

DJ_DEVICE bool wins(dj_f16 value, dj_f16 best)
{
    return wins(dj_float(value), dj_float(best));
}

DJ_DEVICE bool wins(dj_bf16 value, dj_bf16 best)
{
    return wins(dj_float(value), dj_float(best));
}

/* What no element is below: of integers the least, of reals minus infinity. */
template <typename T> DJ_DEVICE void put_least(T *at)
{
    *at = (T)-1 < (T)0 ? (T)((uint64_t)1 << (8 * sizeof(T) - 1)) : (T)0;
}

DJ_DEVICE void put_least(float *at)
{
    *at = -INFINITY;
}

DJ_DEVICE void put_least(double *at)
{
    *at = -(double)INFINITY;
}

DJ_DEVICE void put_least(dj_f16 *at)
{
    dj_put(at, -INFINITY);
}

DJ_DEVICE void put_least(dj_bf16 *at)
{
    dj_put(at, -INFINITY);
}

/* The first place of a window that is inside the picture, or past its end. */
DJ_DEVICE int64_t first_inside(const dj_pool_t &p, int d, int64_t at)
{
    int64_t first = at * p.window.stride[d] - p.window.padding[d], dilation = p.window.dilation[d];
    return first < 0 ? first + (-first + dilation - 1) / dilation * dilation : first;
}

template <typename T> DJ_DEVICE void maximum(const dj_pool_t &p)
{
    const T *input = reinterpret_cast<const T *>(dj_at(p.head, p.input));
    T *output = reinterpret_cast<T *>(dj_at(p.head, p.output));
    int64_t *indices = reinterpret_cast<int64_t *>(dj_at(p.head, p.indices));
    for (int64_t i = dj_grid_first(); i < p.count; i += dj_grid_stride()) {
        element_t e = element_of(p.out, p.channels, i, p.channels_inner);
        const T *plane = input + e.batch * p.in.batch_stride + e.channel * p.in.channel_stride;
        int64_t y_end = e.at[1] * p.window.stride[1] - p.window.padding[1] +
                        (p.window.kernel[1] - 1) * p.window.dilation[1] + 1;
        int64_t x_end = e.at[2] * p.window.stride[2] - p.window.padding[2] +
                        (p.window.kernel[2] - 1) * p.window.dilation[2] + 1;
        int64_t y_first = first_inside(p, 1, e.at[1]), x_first = first_inside(p, 2, e.at[2]);
        y_end = y_end < p.in.sizes[1] ? y_end : p.in.sizes[1];
        x_end = x_end < p.in.sizes[2] ? x_end : p.in.sizes[2];
        /* A dilated window may step over the whole picture: then the least value and a place outside are its own,
         * as in PyTorch. */
        int64_t best = y_first * p.in.sizes[2] + x_first;
        T value;
        put_least(&value);
        for (int64_t y = y_first; y < y_end; y += p.window.dilation[1])
            for (int64_t x = x_first; x < x_end; x += p.window.dilation[2]) {
                T other = plane[y * p.in.strides[1] + x * p.in.strides[2]];
                if (wins(other, value)) {
                    value = other;
                    best = y * p.in.sizes[2] + x;
                }
            }
        output[offset_of(p.out, e)] = value;
        if (indices)
            indices[offset_of(p.places, e)] = best;
    }
}

/* ---- kernels ---- */

#define REAL(name, T, S)                                                                           \
    DJ_KERNEL(dj_convolution_##name, dj_convolution_t)                                             \
    {                                                                                              \
        convolve<T, S>(p);                                                                         \
    }                                                                                              \
    DJ_KERNEL(dj_convolution_bias_##name, dj_convolution_bias_t)                                   \
    {                                                                                              \
        add_bias<T>(p);                                                                            \
    }                                                                                              \
    DJ_KERNEL(dj_convolution_pool_average_##name, dj_pool_t)                                       \
    {                                                                                              \
        average<T, S>(p);                                                                          \
    }                                                                                              \
    DJ_KERNEL(dj_convolution_pool_adaptive_##name, dj_pool_t)                                      \
    {                                                                                              \
        adapt<T, S>(p);                                                                            \
    }                                                                                              \
    ANY(name, T)
#define ANY(name, T)                                                                               \
    DJ_KERNEL(dj_convolution_pool_max_##name, dj_pool_t)                                           \
    {                                                                                              \
        maximum<T>(p);                                                                             \
    }
REAL(float32, float, float)
REAL(float64, double, double)
REAL(float16, dj_f16, float)
REAL(bfloat16, dj_bf16, float)
ANY(int64, int64_t)
ANY(int32, int32_t)
ANY(int16, int16_t)
ANY(int8, int8_t)
ANY(uint8, uint8_t)
