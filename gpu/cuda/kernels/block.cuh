/* block.cuh - joining what the threads of a group hold into one value that all of them get.
 *
 * A group is a power of two of neighbouring threads, from one to the whole block. Within a warp the values meet by
 * exchange (an xor of lanes), across warps through shared memory; always in the same order, so that two runs give
 * the same bits. Warp shuffles and not cub::BlockReduce: that does the same exchanges, gives the result to one
 * thread only and wants the block's size at compile time, and a plain form of it beside would be another program
 * than the one that the simulator tests.
 *
 * A value is a number or a struct with an overload of dj_exchange(); how two become one is a functor whose
 * operator() is symmetric enough: every thread of a group must come to the same result from either side. */
#ifndef DJ_GPU_CUDA_KERNELS_BLOCK_CUH
#define DJ_GPU_CUDA_KERNELS_BLOCK_CUH

#include "gpu/cuda/kernels/kernel.cuh"

#if defined(__CUDACC__)
#define DJ_MEMBER __device__ __forceinline__
#define DJ_UNROLL _Pragma("unroll")
#define DJ_ROLLED _Pragma("unroll 1") /* a loop that is not worth its copies */
/* Before DJ_KERNEL: how many threads its blocks have, and how many blocks a multiprocessor should hold. */
#define DJ_BOUNDS(name, type, threads, blocks)                                                     \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ type p);
#else
#define DJ_BOUNDS(name, type, threads, blocks)
#define DJ_MEMBER inline
#define DJ_UNROLL
#define DJ_ROLLED
#endif

#define DJ_WARP 32
#define DJ_WARPS_MAX 32

DJ_DEVICE int dj_lane(void)
{
    return (int)(threadIdx.x & (DJ_WARP - 1));
}

/* The value of the lane whose number differs in `bits`. */
DJ_DEVICE float dj_exchange(float value, int bits)
{
    return __shfl_xor_sync(0xffffffffu, value, bits);
}

DJ_DEVICE double dj_exchange(double value, int bits)
{
    return __shfl_xor_sync(0xffffffffu, value, bits);
}

DJ_DEVICE int64_t dj_exchange(int64_t value, int bits)
{
    return (int64_t)__shfl_xor_sync(0xffffffffu, (long long)value, bits);
}

/* Groups of `size` lanes of a warp, a power of two up to 32. */
template <typename T, typename Join> DJ_DEVICE T dj_warp_join(T value, int size, const Join &join)
{
    DJ_ROLLED
    for (int bits = 1; bits < size; bits <<= 1) {
        T other = dj_exchange(value, bits);
        value = dj_lane() & bits ? join(other, value) : join(value, other);
    }
    return value;
}

/* Groups of `size` threads of a one-dimensional block; `size` is the same for all. Above 32 it is the whole block,
 * which must be full warps, and `shared` has room for DJ_WARPS_MAX values; it may be used again at once. */
template <typename T, typename Join> DJ_DEVICE T dj_block_join(T value, int size, T *shared, const Join &join)
{
    value = dj_warp_join(value, size < DJ_WARP ? size : DJ_WARP, join);
    if (size <= DJ_WARP)
        return value;
    int warps = size / DJ_WARP;
    if (dj_lane() == 0)
        shared[threadIdx.x / DJ_WARP] = value;
    __syncthreads();
    value = shared[0];
    DJ_ROLLED
    for (int w = 1; w < warps; ++w)
        value = join(value, shared[w]);
    __syncthreads();
    return value;
}

/* ---- places in a loop ---- */

/* dj_loop_at(), which divides in 32 bits where the loop is small enough. */
DJ_DEVICE int64_t dj_loop_offset(const dj_cuda_loop_t &loop, int k, int64_t element)
{
    if (loop.rank == 1)
        return element * loop.strides[k][0];
    bool wide = loop.count > INT32_MAX;
    int64_t offset = 0;
    DJ_ROLLED
    for (int d = loop.rank - 1; d > 0; --d) {
        int64_t size = loop.sizes[d], rest;
        if (wide)
            rest = element / size;
        else
            rest = (uint32_t)element / (uint32_t)size;
        offset += (element - rest * size) * loop.strides[k][d];
        element = rest;
    }
    return offset + element * loop.strides[k][0];
}

/* The same for the first N views at once. */
template <int N> DJ_DEVICE void dj_loop_offsets(const dj_cuda_loop_t &loop, int64_t element, int64_t *offsets)
{
    bool wide = loop.count > INT32_MAX;
    for (int k = 0; k < N; ++k)
        offsets[k] = 0;
    DJ_ROLLED
    for (int d = loop.rank - 1; d > 0; --d) {
        int64_t size = loop.sizes[d], rest;
        if (wide)
            rest = element / size;
        else
            rest = (uint32_t)element / (uint32_t)size;
        for (int k = 0; k < N; ++k)
            offsets[k] += (element - rest * size) * loop.strides[k][d];
        element = rest;
    }
    for (int k = 0; k < N; ++k)
        offsets[k] += element * loop.strides[k][0];
}

/* ---- 16 bytes at once ---- */

template <typename T> struct alignas(16) dj_pack {
    static const int n = 16 / (int)sizeof(T);
    T item[n];
};

/* N floats of dense elements; the address is a multiple of 16 and N one of dj_pack<T>::n. */
template <int N, typename T> DJ_DEVICE void dj_load_pack(const T *at, float *x)
{
    const int n = dj_pack<T>::n;
    for (int j = 0; j < N / n; ++j) {
        dj_pack<T> pack = reinterpret_cast<const dj_pack<T> *>(at)[j];
        for (int i = 0; i < n; ++i)
            x[j * n + i] = dj_float(pack.item[i]);
    }
}

template <int N, typename T> DJ_DEVICE void dj_store_pack(T *at, const float *x)
{
    const int n = dj_pack<T>::n;
    for (int j = 0; j < N / n; ++j) {
        dj_pack<T> pack;
        for (int i = 0; i < n; ++i)
            dj_put(&pack.item[i], x[j * n + i]);
        reinterpret_cast<dj_pack<T> *>(at)[j] = pack;
    }
}

DJ_DEVICE bool dj_is_aligned(const void *at)
{
    return (reinterpret_cast<uint64_t>(at) & 15) == 0;
}

/* ---- ways to join ---- */

struct dj_join_sum {
    template <typename T> DJ_MEMBER T operator()(T a, T b) const
    {
        return a + b;
    }
};

/* The larger; a NaN wins. */
struct dj_join_max {
    template <typename T> DJ_MEMBER T operator()(T a, T b) const
    {
        return (b > a || b != b) ? b : a;
    }
};

#endif
