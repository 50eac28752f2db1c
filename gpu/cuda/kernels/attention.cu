/* attention.cu - scaled dot product attention, forward: softmax(q k' * scale + mask) v.
 *
 * Three ways. *Tiles* is for many query rows: a block holds a tile of them and walks over the keys, a tile at a time;
 * *tensor* is the same by tensor cores, for float16 and bfloat16. *Few* is for decoding: the keys are split among
 * blocks. All keep for each row the largest score so far, the sum of exponentials relative to it and the weighted
 * values relative to it, and rescale when a larger score comes. Scores, weights and sums are float32; only tensor
 * cores are given weights that are rounded to the operands' type.
 *
 * A row that may attend to nothing gives zeros. Causal means that key s is seen by rows s and after. */
#include "gpu/cuda/kernels/attention_few.cuh"
#include "gpu/cuda/kernels/attention_tensor.cuh"
#include "gpu/cuda/kernels/attention_tiles.cuh"

#define TILES(name, T, Depth, Rows)                                                                \
    DJ_KERNEL(dj_attention_tiles_##name##_##Depth, dj_attention_params_t)                          \
    {                                                                                              \
        DJ_SHARED(float, shared);                                                                  \
        tiles_run<T, Depth, Rows>(p, shared);                                                      \
    }
TILES(f32, float, 64, 4)
TILES(f32, float, 128, 4)
TILES(f32, float, 256, 2)
TILES(f16, dj_f16, 256, 2)
TILES(bf16, dj_bf16, 256, 2)

#define TENSOR(name, T, Depth)                                                                     \
    DJ_BOUNDS(dj_attention_tensor_##name##_##Depth, dj_attention_params_t,                         \
              DJ_ATTENTION_TENSOR_THREADS, Depth > 64 ? 2 : 3)                                     \
    DJ_KERNEL(dj_attention_tensor_##name##_##Depth, dj_attention_params_t)                         \
    {                                                                                              \
        DJ_SHARED(T, shared);                                                                      \
        tensor_run<T, Depth>(p, shared);                                                           \
    }
TENSOR(f16, dj_f16, 64)
TENSOR(f16, dj_f16, 128)
TENSOR(bf16, dj_bf16, 64)
TENSOR(bf16, dj_bf16, 128)

#define FEW(name, T, R)                                                                            \
    DJ_BOUNDS(dj_attention_few_##name##_##R, dj_attention_params_t, DJ_ATTENTION_FEW_THREADS,      \
              R > 1 ? 2 : 4)                                                                      \
    DJ_KERNEL(dj_attention_few_##name##_##R, dj_attention_params_t)                                \
    {                                                                                              \
        DJ_SHARED(float, shared);                                                                  \
        few_run<T, R>(p, shared);                                                                  \
    }
FEW(f32, float, 1)
FEW(f32, float, 4)
FEW(f32, float, 8)
FEW(f16, dj_f16, 1)
FEW(f16, dj_f16, 4)
FEW(f16, dj_f16, 8)
FEW(bf16, dj_bf16, 1)
FEW(bf16, dj_bf16, 4)
FEW(bf16, dj_bf16, 8)

/* A block a row: the splits of it. */
DJ_KERNEL(dj_attention_join, dj_attention_params_t)
{
    int64_t stride = p.value_depth + 2;
    for (int64_t at = blockIdx.x; at < p.units; at += gridDim.x) {
        int64_t head = at / p.length, row = at - head * p.length, b = head / p.heads, h = head - b * p.heads;
        const float *parts = reinterpret_cast<const float *>(p.partials) + at * p.splits * stride;
        for (int column = (int)threadIdx.x; column < p.value_depth; column += (int)blockDim.x) {
            float max, sum, result = parts_join(parts, stride, p.splits, column, p.value_depth, &max, &sum);
            row_write(p, b, h, row, column, result, sum);
        }
    }
}
