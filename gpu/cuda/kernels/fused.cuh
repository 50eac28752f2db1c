/* fused.cuh - what the text of a fused pointwise kernel (gpu/cuda/source.c) is written with.
 *
 * Stored types: what lies in memory, one a dtype. dj_plain() reads one as a number; dj_as_f32() and its like bring
 * that into the compute class; dj_keep() stores a result. Conversions are those of gpu/host/convert.c, so a real
 * number that no int64 holds becomes the most negative one, NaN too, whatever the processor would do.
 *
 * Signed overflow is undefined in CUDA C++ and no option changes that, but an op wraps: the integer class computes
 * in dj_wrap, which adds, subtracts and multiplies unsigned. */
#ifndef DJ_GPU_CUDA_KERNELS_FUSED_CUH
#define DJ_GPU_CUDA_KERNELS_FUSED_CUH

#ifdef __CUDACC_RTC__ /* has no stdint.h */
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef unsigned long uintptr_t;
#endif

#include "gpu/cuda/kernels/kernel.cuh"

#ifdef __CUDACC__
#define DJ_INSIDE __device__ __forceinline__
#else
#define DJ_INSIDE inline
#endif

struct dj_wrap {
    long value;
    DJ_INSIDE dj_wrap() {}
    DJ_INSIDE dj_wrap(long from) : value(from) {}
    DJ_INSIDE operator long() const
    {
        return value;
    }
};

DJ_DEVICE dj_wrap operator+(dj_wrap a, dj_wrap b)
{
    return (long)((unsigned long)a.value + (unsigned long)b.value);
}

DJ_DEVICE dj_wrap operator-(dj_wrap a, dj_wrap b)
{
    return (long)((unsigned long)a.value - (unsigned long)b.value);
}

DJ_DEVICE dj_wrap operator-(dj_wrap a, int b)
{
    return a - dj_wrap(b);
}

DJ_DEVICE dj_wrap operator-(dj_wrap a)
{
    return dj_wrap(0) - a;
}

DJ_DEVICE dj_wrap operator*(dj_wrap a, dj_wrap b)
{
    return (long)((unsigned long)a.value * (unsigned long)b.value);
}

DJ_DEVICE dj_wrap &operator*=(dj_wrap &a, dj_wrap b)
{
    return a = a * b;
}

DJ_DEVICE dj_wrap &operator>>=(dj_wrap &a, int bits)
{
    a.value >>= bits;
    return a;
}

#define DJ_PW_FUNCTION DJ_DEVICE
#define DJ_PW_LONG dj_wrap
#include "gpu/pointwise.h"

/* ---- stored types to numbers ---- */

struct dj_bool {
    uint8_t byte;
};

template <class T> DJ_DEVICE T dj_plain(T stored)
{
    return stored;
}

DJ_DEVICE int dj_plain(dj_bool stored)
{
    return stored.byte != 0;
}

DJ_DEVICE float dj_plain(dj_bf16 stored)
{
    return dj_float(stored);
}

DJ_DEVICE float dj_plain(dj_f16 stored)
{
#ifdef __CUDACC__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(stored.bits));
    return value;
#else
    return dj_float(stored);
#endif
}

/* ---- numbers to a compute class ---- */

DJ_DEVICE long dj_integer(double value)
{
    const double end = 9223372036854775808.0;
    return value >= -end && value < end ? (long)value : (long)(1ul << 63);
}

DJ_DEVICE long dj_integer(float value)
{
    const float end = 9223372036854775808.0f;
    return value >= -end && value < end ? (long)value : (long)(1ul << 63);
}

DJ_DEVICE long dj_integer(dj_wrap value)
{
    return value.value;
}

template <class T> DJ_DEVICE long dj_integer(T value)
{
    return (long)value;
}

template <class T> DJ_DEVICE float dj_as_f32(T value)
{
    return (float)value;
}

template <class T> DJ_DEVICE double dj_as_f64(T value)
{
    return (double)value;
}

template <class T> DJ_DEVICE dj_wrap dj_as_i64(T value)
{
    return dj_wrap(dj_integer(value));
}

template <class T> DJ_DEVICE unsigned char dj_as_b8(T value)
{
    return value != 0;
}

/* ---- scalars of the request ---- */

DJ_DEVICE float dj_scalar_f32(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar)
{
    return (float)dj_scalar_as_real(head, scalar);
}

DJ_DEVICE double dj_scalar_f64(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar)
{
    return dj_scalar_as_real(head, scalar);
}

DJ_DEVICE dj_wrap dj_scalar_i64(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar)
{
    long bits = (long)dj_scalar_bits(head, scalar);
    return dj_wrap(scalar.is_real ? dj_integer(dj_scalar_as_real(head, scalar)) : bits);
}

DJ_DEVICE unsigned char dj_scalar_b8(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar)
{
    return dj_scalar_as_real(head, scalar) != 0;
}

/* What an absent limit is: below, above everything. */
DJ_DEVICE double dj_infinity()
{
    union {
        uint64_t bits;
        double real;
    } value;
    value.bits = 0x7ff0000000000000ul;
    return value.real;
}

#define DJ_ABSENT_f32_0 (float)-dj_infinity()
#define DJ_ABSENT_f32_1 (float)dj_infinity()
#define DJ_ABSENT_f64_0 -dj_infinity()
#define DJ_ABSENT_f64_1 dj_infinity()
#define DJ_ABSENT_i64_0 dj_wrap((long)(1ul << 63))
#define DJ_ABSENT_i64_1 dj_wrap((long)~(1ul << 63))
#define DJ_ABSENT_b8_0 0
#define DJ_ABSENT_b8_1 1

/* pow(x, s) for the exponents that models use; the same choice as the host's, made once a thread. */
DJ_DEVICE int dj_power_kind(double exponent)
{
    return exponent == 2      ? 1
           : exponent == 3    ? 2
           : exponent == 0.5  ? 3
           : exponent == -0.5 ? 4
           : exponent == -1   ? 5
           : exponent == -2   ? 6
                              : 0;
}

#define DJ_POWER(class, T)                                                                                            \
    DJ_DEVICE T dj_power_##class(T a, T exponent, int kind)                                                           \
    {                                                                                                                 \
        switch (kind) {                                                                                               \
        case 1:                                                                                                       \
            return a * a;                                                                                             \
        case 2:                                                                                                       \
            return a * a * a;                                                                                         \
        case 3:                                                                                                       \
            return dj_sqrt_##class(a);                                                                                \
        case 4:                                                                                                       \
            return 1 / dj_sqrt_##class(a);                                                                            \
        case 5:                                                                                                       \
            return 1 / a;                                                                                             \
        case 6:                                                                                                       \
            return 1 / (a * a);                                                                                       \
        }                                                                                                             \
        return dj_pow_##class(a, exponent);                                                                           \
    }
DJ_POWER(f32, float)
DJ_POWER(f64, double)

/* ---- results to stored types ---- */

template <class T, class R> DJ_DEVICE void dj_keep(T &at, R result)
{
    at = (T)dj_integer(result);
}

template <class R> DJ_DEVICE void dj_keep(dj_bool &at, R result)
{
    at.byte = result != 0;
}

template <class R> DJ_DEVICE void dj_keep(float &at, R result)
{
    at = (float)result;
}

template <class R> DJ_DEVICE void dj_keep(double &at, R result)
{
    at = (double)result;
}

template <class R> DJ_DEVICE void dj_keep(dj_bf16 &at, R result)
{
#ifdef __CUDACC__
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(at.bits) : "f"((float)result));
#else
    dj_put(&at, (float)result);
#endif
}

template <class R> DJ_DEVICE void dj_keep(dj_f16 &at, R result)
{
#ifdef __CUDACC__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(at.bits) : "f"((float)result));
#else
    dj_put(&at, (float)result);
#endif
}

/* A double is rounded once: by way of a float whose last bit remembers that something was cut off. */
DJ_DEVICE void dj_keep(dj_f16 &at, double result)
{
    union {
        float real;
        uint32_t bits;
    } cut;
    cut.real = (float)result;
    if ((double)cut.real != result && !(cut.bits & 1u) && result == result)
        cut.bits += ((double)cut.real < result) == (result > 0) ? 1u : ~0u;
    dj_keep(at, cut.real);
}

/* ---- elements ---- */

/* N elements that lie behind one another; moved in one access where `at` is aligned for it. */
template <class T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) dj_pack {
    T at[N];
};

template <class T, int N> DJ_DEVICE dj_pack<T, N> dj_load_row(const char *from)
{
    return *reinterpret_cast<const dj_pack<T, N> *>(from);
}

template <class T, int N> DJ_DEVICE dj_pack<T, N> dj_load_one(T value)
{
    dj_pack<T, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i)
        pack.at[i] = value;
    return pack;
}

template <class T, int N> DJ_DEVICE dj_pack<T, N> dj_load_each(const char *from, int64_t stride)
{
    dj_pack<T, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i)
        pack.at[i] = *reinterpret_cast<const T *>(from + i * stride);
    return pack;
}

template <class T, int N> DJ_DEVICE void dj_store_row(char *to, const dj_pack<T, N> &pack)
{
    *reinterpret_cast<dj_pack<T, N> *>(to) = pack;
}

template <class T, int N> DJ_DEVICE void dj_store_each(char *to, int64_t stride, const dj_pack<T, N> &pack)
{
#pragma unroll
    for (int i = 0; i < N; ++i)
        *reinterpret_cast<T *>(to + i * stride) = pack.at[i];
}

/* Bytes of `at` steps; where indices are of 32 bits, strides are too, and the product is exact. */
DJ_DEVICE int64_t dj_steps(uint32_t at, int64_t stride)
{
    return (int64_t)((uint64_t)at * (uint32_t)stride);
}

DJ_DEVICE int64_t dj_steps(int64_t at, int64_t stride)
{
    return at * stride;
}

DJ_DEVICE bool dj_is_aligned(const char *at, uint32_t bytes)
{
    return (reinterpret_cast<uintptr_t>(at) & (bytes - 1u)) == 0;
}

#endif
