/* attention.cuh - what the ways of attention (attention.cu) share: where a head's operands lie, what a row may see,
 * what a mask adds. */
#ifndef DJ_GPU_CUDA_KERNELS_ATTENTION_CUH
#define DJ_GPU_CUDA_KERNELS_ATTENTION_CUH

#include "gpu/cuda/kernels/attention.h"
#include "gpu/cuda/kernels/block.cuh"
#include "gpu/cuda/kernels/values.cuh"

#define PACK 8 /* columns a thread takes at once */

struct alignas(16) quad {
    float x[4];
};

DJ_DEVICE quad quad_at(const float *at)
{
    return *reinterpret_cast<const quad *>(at);
}

DJ_DEVICE float scale_of(const dj_attention_params_t &p)
{
    return p.scale.slot < 0 ? 1 / sqrtf((float)p.depth) : (float)dj_scalar_as_real(p.head, p.scale);
}

template <typename T>
DJ_DEVICE T *head_at(const dj_attention_params_t &p, const dj_attention_matrix_t &matrix, int64_t b, int64_t h)
{
    return reinterpret_cast<T *>(dj_at(p.head, matrix.ref)) + b * matrix.strides[0] + h * matrix.strides[1];
}

/* Keys that row `row` may see, the mask aside. */
DJ_DEVICE int keys_seen(const dj_attention_params_t &p, int64_t row)
{
    return (int)(p.is_causal && row + 1 < p.keys ? row + 1 : p.keys);
}

/* The mask's row, null where there is no mask. */
template <typename T>
DJ_DEVICE const char *mask_row(const dj_attention_params_t &p, int64_t b, int64_t h, int64_t row)
{
    int64_t at = row * p.mask.strides[2], item = p.mask_kind == DJ_ATTENTION_BOOL_MASK ? 1 : (int64_t)sizeof(T);
    if (p.mask_kind == DJ_ATTENTION_NO_MASK)
        return nullptr;
    at += b * p.mask.strides[0] + h * p.mask.strides[1];
    return dj_at(p.head, p.mask.ref) + at * item;
}

/* What it adds to the score of a key. */
template <typename T> DJ_DEVICE float mask_at(const dj_attention_params_t &p, const char *mask, int key)
{
    int64_t at = key * p.mask.strides[3];
    if (p.mask_kind == DJ_ATTENTION_BOOL_MASK)
        return mask[at] ? 0 : -INFINITY;
    return dj_float(reinterpret_cast<const T *>(mask)[at]);
}

/* Rows that can be read 16 bytes at a time, `columns` of them each. */
template <typename T> DJ_DEVICE bool is_packed(const T *at, const int64_t *strides, int columns)
{
    return strides[3] == 1 && columns % dj_pack<T>::n == 0 && dj_is_aligned(at) &&
           strides[2] % dj_pack<T>::n == 0;
}

#endif
