/* move.cuh - what kernels that move elements share: offsets in several views at once, and moves of 1 to 16 bytes.
 *
 * Moves do not look at what they move, so they come by size, not by dtype. A view's rows may be moved in pieces
 * wider than an element (dj_cuda_loop_widen()); whether the addresses allow it is only known here, because an
 * offset may travel with the request. */
#ifndef DJ_GPU_CUDA_KERNELS_MOVE_CUH
#define DJ_GPU_CUDA_KERNELS_MOVE_CUH

#include "gpu/cuda/kernels/kernel.cuh"

struct alignas(16) dj_item16 {
    uint64_t low, high;
};

/* value / by and what is left, in 32 bits where both fit. */
DJ_DEVICE int64_t dj_divide(int64_t value, int64_t by, int64_t *rest_p)
{
    int64_t whole = ((uint64_t)value | (uint64_t)by) >> 32 ? value / by : (int64_t)((uint32_t)value / (uint32_t)by);
    *rest_p = value - whole * by;
    return whole;
}

/* Byte offsets of one element of a loop in the first N views. */
template <int N> DJ_DEVICE void dj_loop_offsets(const dj_cuda_loop_t &loop, int64_t element, int64_t *at)
{
    for (int k = 0; k < N; ++k)
        at[k] = 0;
    for (int d = loop.rank - 1; d > 0; --d) {
        int64_t index;
        element = dj_divide(element, loop.sizes[d], &index);
        for (int k = 0; k < N; ++k)
            at[k] += index * loop.strides[k][d];
    }
    for (int k = 0; k < N; ++k)
        at[k] += element * loop.strides[k][0];
}

/* `value` inside 0..size-1: itself, counted from the end where that is allowed, else 0 and a fault. Where size is 0
 * there is nothing to access, and the caller must not. */
DJ_DEVICE int64_t dj_index_clamp(const dj_cuda_head_t &head, int64_t value, int64_t size, bool negative_allowed)
{
    if (value < 0 && negative_allowed)
        value += size;
    if (value >= 0 && value < size)
        return value;
    dj_fault(head);
    return 0;
}

DJ_DEVICE int64_t dj_index_load(const char *at, bool is_wide)
{
    return is_wide ? *reinterpret_cast<const int64_t *>(at) : *reinterpret_cast<const int32_t *>(at);
}

template <typename T> DJ_DEVICE void dj_move(char *to, const char *from, uint32_t n)
{
#pragma unroll 1
    for (uint32_t i = 0; i < n; ++i)
        reinterpret_cast<T *>(to)[i] = reinterpret_cast<const T *>(from)[i];
}

/* `n` neighbours of `width` bytes each. */
DJ_DEVICE void dj_move_items(char *to, const char *from, uint32_t width, uint32_t n)
{
    switch (width) {
    case 1: return dj_move<uint8_t>(to, from, n);
    case 2: return dj_move<uint16_t>(to, from, n);
    case 4: return dj_move<uint32_t>(to, from, n);
    case 8: return dj_move<uint64_t>(to, from, n);
    case 16: return dj_move<dj_item16>(to, from, n);
    }
}

/* The width at which pieces of `wide` bytes at these addresses can be moved. */
DJ_DEVICE uint32_t dj_move_width(const void *from, const void *to, uint32_t item, uint32_t wide)
{
    uint64_t bits = reinterpret_cast<uint64_t>(from) | reinterpret_cast<uint64_t>(to);
    return bits & (wide - 1) ? item : wide;
}

#endif
