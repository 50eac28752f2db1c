/* kernel.cuh - what device code is written with: kernels, operands, numbers.
 *
 * A kernel is DJ_KERNEL(name, params_type) { ... p.head ... }. Names are global to the program: dj_<family>_<what>.
 * Three compilers read this text: nvcc (the fatbin), NVRTC (fused pointwise kernels) and the host's C++ compiler
 * for the simulator (tests/gpu/simulator/emulate.h), which runs each thread of a block as a fiber. So device code
 * keeps to: threadIdx, blockIdx, blockDim, gridDim; __shared__ arrays of fixed size, DJ_SHARED(type, name) for the
 * launch's dynamic ones; __syncthreads(), __syncwarp(); __shfl_sync, __shfl_xor_sync, __shfl_down_sync,
 * __shfl_up_sync, __ballot_sync with full warps and mask 0xffffffff; atomicAdd, atomicCAS, atomicMax, atomicMin,
 * atomicExch; C's math functions. What a device has beyond that (CUB, tensor cores) stands behind #ifdef __CUDACC__
 * with a plain form beside it. Warps are 32 threads; every block of a kernel that uses a warp primitive has a
 * multiple of 32 threads. No thread returns before a barrier that others wait at. */
#ifndef DJ_GPU_CUDA_KERNELS_KERNEL_CUH
#define DJ_GPU_CUDA_KERNELS_KERNEL_CUH

#include "gpu/cuda/kernels/params.h"

#if defined(__CUDACC__)
#define DJ_KERNEL(name, type) extern "C" __global__ void name(const __grid_constant__ type p)
#define DJ_DEVICE static __device__ __forceinline__
#define DJ_SHARED(type, name)                                                                      \
    extern __shared__ __align__(16) unsigned char dj_shared_memory[];                              \
    type *name = reinterpret_cast<type *>(dj_shared_memory)
#ifndef __CUDACC_RTC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif
#else
#include "tests/gpu/simulator/emulate.h" /* defines the three above */
#endif

/* ---- operands ---- */

DJ_DEVICE char *dj_at(const dj_cuda_head_t &head, const dj_cuda_ref_t &ref)
{
    uint64_t at = ref.base;
    if (!ref.present)
        return nullptr;
    if (ref.table >= 0)
        at += reinterpret_cast<const uint64_t *>(head.table)[ref.table];
    if (ref.slot >= 0)
        at += reinterpret_cast<const uint64_t *>(head.scalars)[ref.slot] * ref.item_bytes;
#ifdef __CUDACC__ /* never shared or local memory: loads and stores need not ask */
    return static_cast<char *>(__cvta_global_to_generic(at));
#else
    return reinterpret_cast<char *>(at);
#endif
}

DJ_DEVICE uint64_t dj_scalar_bits(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar)
{
    return reinterpret_cast<const uint64_t *>(head.scalars)[scalar.slot];
}

DJ_DEVICE double dj_scalar_as_real(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar)
{
    union {
        uint64_t bits;
        double real;
    } value;
    value.bits = dj_scalar_bits(head, scalar);
    return scalar.is_real ? value.real : (double)(int64_t)value.bits;
}

DJ_DEVICE int64_t dj_scalar_as_integer(const dj_cuda_head_t &head, const dj_cuda_scalar_t &scalar)
{
    union {
        uint64_t bits;
        double real;
    } value;
    value.bits = dj_scalar_bits(head, scalar);
    return scalar.is_real ? (int64_t)value.real : (int64_t)value.bits;
}

/* A kernel that meets a bad value (an index out of range) clamps its access and says so. */
DJ_DEVICE void dj_fault(const dj_cuda_head_t &head)
{
    atomicCAS(reinterpret_cast<unsigned int *>(head.fault), 0u, head.node + 1u);
}

/* Byte offsets of one element of a loop in view k. */
DJ_DEVICE int64_t dj_loop_at(const dj_cuda_loop_t &loop, int k, int64_t element)
{
    int64_t offset = 0;
    for (int d = loop.rank - 1; d > 0; --d) {
        int64_t size = loop.sizes[d], rest = element / size;
        offset += (element - rest * size) * loop.strides[k][d];
        element = rest;
    }
    return offset + element * loop.strides[k][0];
}

/* The grid's first element for this thread, and the stride between its elements. */
DJ_DEVICE int64_t dj_grid_first(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

DJ_DEVICE int64_t dj_grid_stride(void)
{
    return (int64_t)gridDim.x * blockDim.x;
}

/* ---- numbers: float16 and bfloat16 are stored so and computed in float32 ---- */

struct dj_f16 {
    uint16_t bits;
};

struct dj_bf16 {
    uint16_t bits;
};

DJ_DEVICE float dj_float(float value)
{
    return value;
}

DJ_DEVICE float dj_float(dj_bf16 value)
{
    union {
        uint32_t bits;
        float real;
    } wide;
    wide.bits = (uint32_t)value.bits << 16;
    return wide.real;
}

#if defined(__CUDACC__) && !defined(__CUDACC_RTC__)
DJ_DEVICE float dj_float(dj_f16 value)
{
    return __half2float(__ushort_as_half(value.bits));
}
#else
DJ_DEVICE float dj_float(dj_f16 value)
{
    union {
        uint32_t bits;
        float real;
    } wide, scale;
    uint32_t magnitude = value.bits & 0x7fffu;
    wide.bits = magnitude << 13;
    scale.bits = 0x77800000u; /* 2^112: rebiases the exponent, subnormal numbers too */
    wide.real *= scale.real;
    if (magnitude >= 0x7c00u)
        wide.bits = 0x7f800000u | (magnitude & 0x3ffu) << 13;
    wide.bits |= (uint32_t)(value.bits & 0x8000u) << 16;
    return wide.real;
}
#endif

/* Round to nearest even, NaN stays NaN. */
DJ_DEVICE void dj_put(float *at, float value)
{
    *at = value;
}

DJ_DEVICE void dj_put(dj_bf16 *at, float value)
{
    union {
        float real;
        uint32_t bits;
    } wide;
    wide.real = value;
    if (value != value)
        at->bits = (uint16_t)((wide.bits >> 16 & 0x8000u) | 0x7fc0u);
    else
        at->bits = (uint16_t)((wide.bits + 0x7fffu + (wide.bits >> 16 & 1u)) >> 16);
}

#if defined(__CUDACC__) && !defined(__CUDACC_RTC__)
DJ_DEVICE void dj_put(dj_f16 *at, float value)
{
    at->bits = __half_as_ushort(__float2half_rn(value));
}
#else
DJ_DEVICE void dj_put(dj_f16 *at, float value)
{
    union {
        float real;
        uint32_t bits;
    } wide, magic;
    wide.real = value;
    uint32_t sign = wide.bits >> 16 & 0x8000u, bits = wide.bits & 0x7fffffffu;
    if (bits >= 0x7f800000u) { /* infinity, NaN */
        bits = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
    } else if (bits >= 0x477ff000u) { /* rounds to infinity */
        bits = 0x7c00u;
    } else if (bits < 0x38800000u) { /* subnormal: the adder rounds */
        magic.bits = 0x3f000000u;    /* 0.5 */
        wide.bits = bits;
        wide.real += magic.real;
        bits = wide.bits - magic.bits;
    } else {
        bits = (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1u)) >> 13;
    }
    at->bits = (uint16_t)(sign | bits);
}
#endif

#endif
