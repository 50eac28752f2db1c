/* values.cuh - elements of a dtype that is known when the kernel runs: loaded into float, double or int64, and
 * stored from them.
 *
 * The rules are the host's (gpu/host/convert.h): integers wrap when stored narrower; a float becomes an integer by
 * truncation, and what no int64 holds (NaN too) becomes the lowest one, whose low bits a narrower type keeps;
 * anything is true when it is not 0. */
#ifndef DJ_GPU_CUDA_KERNELS_VALUES_CUH
#define DJ_GPU_CUDA_KERNELS_VALUES_CUH

#include "gpu/cuda/kernels/dtypes.h"
#include "gpu/cuda/kernels/kernel.cuh"

template <typename T> DJ_DEVICE T dj_peek(const char *at)
{
    return *reinterpret_cast<const T *>(at);
}

template <typename T> DJ_DEVICE void dj_poke(char *at, T value)
{
    *reinterpret_cast<T *>(at) = value;
}

/* Any dtype as C, which is float, double or int64_t and should hold it. */
template <typename C> DJ_DEVICE C dj_load(const char *at, uint32_t dtype)
{
    switch (dtype) {
    case DJ_CUDA_BOOL: return (C)(dj_peek<uint8_t>(at) != 0);
    case DJ_CUDA_U8: return (C)dj_peek<uint8_t>(at);
    case DJ_CUDA_I8: return (C)dj_peek<int8_t>(at);
    case DJ_CUDA_I16: return (C)dj_peek<int16_t>(at);
    case DJ_CUDA_I32: return (C)dj_peek<int32_t>(at);
    case DJ_CUDA_I64: return (C)dj_peek<int64_t>(at);
    case DJ_CUDA_F16: return (C)dj_float(dj_peek<dj_f16>(at));
    case DJ_CUDA_BF16: return (C)dj_float(dj_peek<dj_bf16>(at));
    case DJ_CUDA_F32: return (C)dj_peek<float>(at);
    default: return (C)dj_peek<double>(at);
    }
}

DJ_DEVICE int64_t dj_truncate(int64_t value)
{
    return value;
}

template <typename F> DJ_DEVICE int64_t dj_truncate(F value)
{
    const F edge = (F)9223372036854775808.0;
    return value >= -edge && value < edge ? (int64_t)value : (int64_t)((uint64_t)1 << 63);
}

/* The float that rounds to the float16 that `value` rounds to: to odd, so that the second rounding sees whether
 * anything was cut off. */
DJ_DEVICE float dj_for_half(double value)
{
    union {
        float real;
        uint32_t bits;
    } near;
    near.real = (float)value;
    if (near.real - near.real == 0 && (double)near.real != value && (near.bits & 1) == 0)
        near.bits += (fabs((double)near.real) > fabs(value)) ? -1 : 1;
    return near.real;
}

DJ_DEVICE float dj_for_half(float value)
{
    return value;
}

DJ_DEVICE float dj_for_half(int64_t value)
{
    return dj_for_half((double)value);
}

template <typename C> DJ_DEVICE void dj_store(char *at, uint32_t dtype, C value)
{
    switch (dtype) {
    case DJ_CUDA_BOOL: return dj_poke<uint8_t>(at, value != 0);
    case DJ_CUDA_U8:
    case DJ_CUDA_I8: return dj_poke<uint8_t>(at, (uint8_t)dj_truncate(value));
    case DJ_CUDA_I16: return dj_poke<uint16_t>(at, (uint16_t)dj_truncate(value));
    case DJ_CUDA_I32: return dj_poke<uint32_t>(at, (uint32_t)dj_truncate(value));
    case DJ_CUDA_I64: return dj_poke<int64_t>(at, dj_truncate(value));
    case DJ_CUDA_F16: return dj_put(reinterpret_cast<dj_f16 *>(at), dj_for_half(value));
    case DJ_CUDA_BF16: return dj_put(reinterpret_cast<dj_bf16 *>(at), (float)value);
    case DJ_CUDA_F32: return dj_poke<float>(at, (float)value);
    default: return dj_poke<double>(at, (double)value);
    }
}

/* A scalar of the request stored as an element; an absent one is 0. */
DJ_DEVICE void dj_store_scalar(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar, char *at, uint32_t dtype)
{
    if (scalar.slot < 0)
        dj_store(at, dtype, (int64_t)0);
    else if (scalar.is_real)
        dj_store(at, dtype, dj_scalar_as_real(head, scalar));
    else
        dj_store(at, dtype, dj_scalar_as_integer(head, scalar));
}

/* Integers wrap. */
DJ_DEVICE float dj_add(float a, float b)
{
    return a + b;
}

DJ_DEVICE double dj_add(double a, double b)
{
    return a + b;
}

DJ_DEVICE int64_t dj_add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

DJ_DEVICE bool dj_is_floating(uint32_t dtype)
{
    return dtype >= DJ_CUDA_F16;
}

#endif
