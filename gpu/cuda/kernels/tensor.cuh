/* tensor.cuh - the tensor cores' product of small matrices of float16 or bfloat16, summed in float32, and loads of
 * its operands from shared memory.
 *
 * nvcc gets the instructions (mma, ldmatrix; sm_80 and later); for the simulator there is a plain form of each that
 * does by exchanges between lanes what PTX's manual says of them, so that a kernel's own layouts are tested.
 *
 * With g = lane / 4 and t = lane % 4, two elements a register, the lower one first:
 *   A, 16 x 16:  a[0] = (g, 2t)   a[1] = (g + 8, 2t)   a[2] = (g, 2t + 8)   a[3] = (g + 8, 2t + 8)
 *   B, 16 x 8:   b0 = (2t, g) and (2t + 1, g)          b1 = the same, 8 rows down
 *   C, 16 x 8:   c[0], c[1] = (g, 2t), (g, 2t + 1)     c[2], c[3] = the same, 8 rows down */
#ifndef DJ_GPU_CUDA_KERNELS_TENSOR_CUH
#define DJ_GPU_CUDA_KERNELS_TENSOR_CUH

#include "gpu/cuda/kernels/block.cuh"

#if defined(__CUDACC__)

/* Two numbers in one register. */
#define DJ_PAIR(T, name)                                                                           \
    DJ_DEVICE uint32_t dj_pair(T, float low, float high)                                           \
    {                                                                                              \
        uint32_t pair;                                                                             \
        asm("cvt.rn." name "x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));               \
        return pair;                                                                               \
    }
DJ_PAIR(dj_f16, "f16")
DJ_PAIR(dj_bf16, "bf16")

#define DJ_TENSOR_MULTIPLY(T, name)                                                                \
    DJ_DEVICE void dj_tensor_multiply(T, float (&c)[4], const uint32_t (&a)[4], uint32_t b0,       \
                                      uint32_t b1)                                                 \
    {                                                                                              \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 {%0, %1, %2, %3}, "       \
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                        \
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                       \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                       \
    }
DJ_TENSOR_MULTIPLY(dj_f16, "f16")
DJ_TENSOR_MULTIPLY(dj_bf16, "bf16")

/* Four 8 x 8 matrices; lane i brings the address of row i % 8 of matrix i / 8, a multiple of 16 bytes. Of matrix m
 * the lane gets (g, 2t) and (g, 2t + 1) in r[m]; transposed (2t, g) and (2t + 1, g). */
DJ_DEVICE void dj_tensor_load(uint32_t (&r)[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

DJ_DEVICE void dj_tensor_load_transposed(uint32_t (&r)[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

#else

template <typename T> DJ_DEVICE uint32_t dj_pair(T, float low, float high)
{
    T pair[2];
    dj_put(&pair[0], low);
    dj_put(&pair[1], high);
    return (uint32_t)pair[0].bits | (uint32_t)pair[1].bits << 16;
}

template <typename T> DJ_DEVICE float dj_pair_part(uint32_t pair, int i)
{
    T item = {(uint16_t)(pair >> (16 * i))};
    return dj_float(item);
}

template <typename T>
DJ_DEVICE void dj_tensor_multiply(T, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    int lane = dj_lane(), mine = lane & ~3, t = lane & 3;
    for (int k = 0; k < 4; ++k) {
        uint32_t x[4], y[2][2];
        for (int i = 0; i < 4; ++i)
            x[i] = __shfl_sync(0xffffffffu, a[i], mine | k);
        for (int j = 0; j < 2; ++j) {
            y[j][0] = __shfl_sync(0xffffffffu, b0, (2 * t + j) * 4 + k);
            y[j][1] = __shfl_sync(0xffffffffu, b1, (2 * t + j) * 4 + k);
        }
        for (int i = 0; i < 4; ++i) /* c[i]: row g + 8 (i / 2), column 2t + i % 2 */
            for (int half = 0; half < 2; ++half)
                for (int e = 0; e < 2; ++e)
                    c[i] += dj_pair_part<T>(x[2 * half + i / 2], e) * dj_pair_part<T>(y[i % 2][half], e);
    }
}

DJ_DEVICE void dj_tensor_load(uint32_t (&r)[4], const void *row)
{
    int lane = dj_lane();
    for (int m = 0; m < 4; ++m) {
        uint64_t from = __shfl_sync(0xffffffffu, (uint64_t)(uintptr_t)row, 8 * m + lane / 4);
        r[m] = reinterpret_cast<const uint32_t *>(from)[lane % 4];
    }
}

DJ_DEVICE void dj_tensor_load_transposed(uint32_t (&r)[4], const void *row)
{
    int lane = dj_lane();
    for (int m = 0; m < 4; ++m) {
        uint64_t low = __shfl_sync(0xffffffffu, (uint64_t)(uintptr_t)row, 8 * m + 2 * (lane % 4));
        uint64_t high = __shfl_sync(0xffffffffu, (uint64_t)(uintptr_t)row, 8 * m + 2 * (lane % 4) + 1);
        r[m] = (uint32_t)reinterpret_cast<const uint16_t *>(low)[lane / 4] |
               (uint32_t)reinterpret_cast<const uint16_t *>(high)[lane / 4] << 16;
    }
}

#endif

#endif
