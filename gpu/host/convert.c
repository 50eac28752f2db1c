/* convert.c - see convert.h. One load and one store for each pair of dtype and class, generated;
 * each has a dense loop that vectorises, a fill, and a strided loop. */
#include "gpu/host/convert.h"

/* X(dtype, stored type) */
#define STORED(X)                                                                                  \
    X(BOOL, uint8_t)                                                                               \
    X(U8, uint8_t)                                                                                 \
    X(I8, int8_t)                                                                                  \
    X(I16, int16_t)                                                                                \
    X(I32, int32_t)                                                                                \
    X(I64, int64_t)                                                                                \
    X(F16, _Float16)                                                                               \
    X(BF16, uint16_t)                                                                              \
    X(F32, float)                                                                                  \
    X(F64, double)

static inline float bf16_read(uint16_t bits)
{
    union {
        uint32_t bits;
        float value;
    } wide = {.bits = (uint32_t)bits << 16};
    return wide.value;
}

/* To nearest, ties to even; a NaN stays one. */
static inline uint16_t bf16_write(float value)
{
    union {
        float value;
        uint32_t bits;
    } wide = {.value = value};
    uint32_t rounded = (wide.bits + 0x7fff + ((wide.bits >> 16) & 1)) >> 16;
    return (uint16_t)(value != value ? 0x7fc0 : rounded);
}

#define READ_BOOL(x) ((x) != 0)
#define READ_U8(x) (x)
#define READ_I8(x) (x)
#define READ_I16(x) (x)
#define READ_I32(x) (x)
#define READ_I64(x) (x)
#define READ_F16(x) ((float)(x))
#define READ_BF16(x) bf16_read(x)
#define READ_F32(x) (x)
#define READ_F64(x) (x)

#define WRITE_BOOL(x) ((x) != 0)
#define WRITE_U8(x) ((uint8_t)(int64_t)(x))
#define WRITE_I8(x) ((int8_t)(int64_t)(x))
#define WRITE_I16(x) ((int16_t)(int64_t)(x))
#define WRITE_I32(x) ((int32_t)(int64_t)(x))
#define WRITE_I64(x) ((int64_t)(x))
#define WRITE_F16(x) ((_Float16)(x))
#define WRITE_BF16(x) bf16_write((float)(x))
#define WRITE_F32(x) ((float)(x))
#define WRITE_F64(x) ((double)(x))

#define AS_F32(x) ((float)(x))
#define AS_F64(x) ((double)(x))
#define AS_I64(x) ((int64_t)(x))
#define AS_B8(x) ((uint8_t)((x) != 0))

#define LOAD(dtype, S, class, T)                                                                   \
    static void load_##dtype##_##class(int64_t n, const void *source, int64_t stride,              \
                                       void *target)                                               \
    {                                                                                              \
        T *restrict to = target;                                                                   \
        const char *from = source;                                                                 \
        if (stride == (int64_t)sizeof(S)) {                                                        \
            const S *restrict row = source;                                                        \
            for (int64_t i = 0; i < n; i++)                                                        \
                to[i] = AS_##class(READ_##dtype(row[i]));                                          \
        } else if (stride == 0) {                                                                  \
            T value = AS_##class(READ_##dtype(*(const S *)source));                                \
            for (int64_t i = 0; i < n; i++)                                                        \
                to[i] = value;                                                                     \
        } else {                                                                                   \
            for (int64_t i = 0; i < n; i++)                                                        \
                to[i] = AS_##class(READ_##dtype(*(const S *)(from + i * stride)));                 \
        }                                                                                          \
    }
#define STORE(dtype, S, class, T)                                                                  \
    static void store_##dtype##_##class(int64_t n, const void *source, void *target,               \
                                        int64_t stride)                                            \
    {                                                                                              \
        const T *restrict from = source;                                                           \
        char *to = target;                                                                         \
        if (stride == (int64_t)sizeof(S)) {                                                        \
            S *restrict row = target;                                                              \
            for (int64_t i = 0; i < n; i++)                                                        \
                row[i] = WRITE_##dtype(from[i]);                                                   \
        } else {                                                                                   \
            for (int64_t i = 0; i < n; i++)                                                        \
                *(S *)(to + i * stride) = WRITE_##dtype(from[i]);                                  \
        }                                                                                          \
    }
#define BOTH(dtype, S)                                                                             \
    LOAD(dtype, S, F32, float)                                                                     \
    LOAD(dtype, S, F64, double)                                                                    \
    LOAD(dtype, S, I64, int64_t)                                                                   \
    LOAD(dtype, S, B8, uint8_t)                                                                    \
    STORE(dtype, S, F32, float)                                                                    \
    STORE(dtype, S, F64, double)                                                                   \
    STORE(dtype, S, I64, int64_t)                                                                  \
    STORE(dtype, S, B8, uint8_t)
STORED(BOTH)

#define ROW(dtype, S)                                                                              \
    [DJ_##dtype] = {load_##dtype##_F32, load_##dtype##_F64, load_##dtype##_I64, load_##dtype##_B8},
static const dj_host_load_fn_t loads[DJ_DTYPE_COUNT][DJ_CLASSES] = {STORED(ROW)};
#undef ROW

#define ROW(dtype, S)                                                                              \
    [DJ_##dtype] = {store_##dtype##_F32, store_##dtype##_F64, store_##dtype##_I64,                 \
                    store_##dtype##_B8},
static const dj_host_store_fn_t stores[DJ_DTYPE_COUNT][DJ_CLASSES] = {STORED(ROW)};
#undef ROW

dj_host_load_fn_t dj_host_load_of(uint8_t dtype, dj_class_t class)
{
    return dtype < DJ_DTYPE_COUNT ? loads[dtype][class] : NULL;
}

dj_host_store_fn_t dj_host_store_of(dj_class_t class, uint8_t dtype)
{
    return dtype < DJ_DTYPE_COUNT ? stores[dtype][class] : NULL;
}
