/* sorting.cuh - what scans and sorts are made of: sums before each thread of a block, keys whose unsigned order is
 * the order wanted, and a sorting network in shared memory.
 *
 * A key carries its element's index, so no two are equal and any order of comparisons gives the one stable result.
 * The network is the same text for every compiler: between 2 and 4096 elements it is short enough, and longer rows
 * are merged from such tiles (scan.cu). */
#ifndef DJ_GPU_CUDA_KERNELS_SORTING_CUH
#define DJ_GPU_CUDA_KERNELS_SORTING_CUH

#include "gpu/cuda/kernels/values.cuh"

/* The sum of `value` over all lower threads of the block; *total_p: over all threads. `warps` has room for one value
 * a warp and is shared. The order of additions is always the same. Every thread of the block calls it. */
template <typename C> DJ_DEVICE C dj_block_sums(C value, C *warps, C *total_p)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    C before = 0, total = 0, sum = value;
    for (int offset = 1; offset < 32; offset *= 2) {
        C other = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset)
            sum = dj_add(sum, other);
    }
    C lower = __shfl_up_sync(0xffffffffu, sum, 1);
    if (lane == 31)
        warps[warp] = sum;
    __syncthreads();
    for (int w = 0; w < n_warps; ++w) {
        before = w == warp ? total : before;
        total = dj_add(total, warps[w]);
    }
    __syncthreads();
    *total_p = total;
    return lane ? dj_add(before, lower) : before;
}

/* Elements of up to 4 bytes: key and index in one number. */
struct dj_narrow_key {
    uint64_t bits;
};

struct alignas(16) dj_wide_key {
    uint64_t bits, index;
};

DJ_DEVICE bool dj_key_less(const dj_narrow_key &a, const dj_narrow_key &b)
{
    return a.bits < b.bits;
}

DJ_DEVICE bool dj_key_less(const dj_wide_key &a, const dj_wide_key &b)
{
    return a.bits != b.bits ? a.bits < b.bits : a.index < b.index;
}

DJ_DEVICE uint64_t dj_key_index(const dj_narrow_key &key)
{
    return key.bits & 0xffffffffu;
}

DJ_DEVICE uint64_t dj_key_index(const dj_wide_key &key)
{
    return key.index;
}

/* Behind every element. */
DJ_DEVICE void dj_key_last(dj_narrow_key *key)
{
    key->bits = ~(uint64_t)0;
}

DJ_DEVICE void dj_key_last(dj_wide_key *key)
{
    key->bits = key->index = ~(uint64_t)0;
}

/* A NaN is greater than everything, and equal to every NaN; both zeros are equal. */
DJ_DEVICE void dj_key_make(dj_narrow_key *key, const char *at, uint32_t dtype, uint64_t index, bool descending)
{
    union {
        float real;
        uint32_t bits;
    } value;
    uint32_t bits;
    if (dj_is_floating(dtype)) {
        value.real = dj_load<float>(at, dtype);
        bits = value.real == 0 ? 0 : value.bits;
        bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
        bits = value.real != value.real ? 0xffffffffu : bits;
    } else {
        bits = (uint32_t)dj_load<int64_t>(at, dtype) ^ 0x80000000u;
    }
    key->bits = (uint64_t)(descending ? ~bits : bits) << 32 | index;
}

DJ_DEVICE void dj_key_make(dj_wide_key *key, const char *at, uint32_t dtype, uint64_t index, bool descending)
{
    union {
        double real;
        uint64_t bits;
    } value;
    const uint64_t sign = (uint64_t)1 << 63;
    uint64_t bits;
    if (dj_is_floating(dtype)) {
        value.real = dj_load<double>(at, dtype);
        bits = value.real == 0 ? 0 : value.bits;
        bits = bits & sign ? ~bits : bits | sign;
        bits = value.real != value.real ? ~(uint64_t)0 : bits;
    } else {
        bits = (uint64_t)dj_load<int64_t>(at, dtype) ^ sign;
    }
    key->bits = descending ? ~bits : bits;
    key->index = index;
}

/* Sorts `n` keys, a power of two, in shared memory. Every thread of the block calls it after a barrier; it ends with
 * one. */
template <typename K> DJ_DEVICE void dj_block_sort(K *keys, uint32_t n)
{
    for (uint32_t size = 2; size <= n; size *= 2) {
        for (uint32_t stride = size / 2; stride > 0; stride /= 2) {
            for (uint32_t i = threadIdx.x; i < n / 2; i += blockDim.x) {
                uint32_t low = 2 * i - (i & (stride - 1)), high = low + stride;
                K a = keys[low], b = keys[high];
                bool upward = (low & size) == 0;
                if (dj_key_less(b, a) == upward) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
            __syncthreads();
        }
    }
}

/* How many of `n` sorted keys are less. */
template <typename K> DJ_DEVICE int64_t dj_keys_below(const K *keys, int64_t n, const K &key)
{
    int64_t low = 0;
    while (n > 0) {
        int64_t half = n / 2;
        if (dj_key_less(keys[low + half], key)) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

#endif
