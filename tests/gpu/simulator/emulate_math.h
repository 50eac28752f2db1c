/* emulate_math.h - CUDA's vector types, intrinsics and the functions that C's library does not have. */
#ifndef DJ_TESTS_SIMULATOR_EMULATE_MATH_H
#define DJ_TESTS_SIMULATOR_EMULATE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ---- vector types ---- */

#define SIM_VECTORS(T, name)                                                                       \
    struct name##1 {                                                                               \
        T x;                                                                                       \
    };                                                                                             \
    struct alignas(2 * sizeof(T)) name##2 {                                                        \
        T x, y;                                                                                    \
    };                                                                                             \
    struct name##3 {                                                                               \
        T x, y, z;                                                                                 \
    };                                                                                             \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 {                              \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline name##1 make_##name##1(T x)                                                      \
    {                                                                                              \
        return {x};                                                                                \
    }                                                                                              \
    static inline name##2 make_##name##2(T x, T y)                                                 \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    static inline name##3 make_##name##3(T x, T y, T z)                                            \
    {                                                                                              \
        return {x, y, z};                                                                          \
    }                                                                                              \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                                       \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
SIM_VECTORS(signed char, char)
SIM_VECTORS(unsigned char, uchar)
SIM_VECTORS(short, short)
SIM_VECTORS(unsigned short, ushort)
SIM_VECTORS(int, int)
SIM_VECTORS(unsigned, uint)
SIM_VECTORS(long long, longlong)
SIM_VECTORS(unsigned long long, ulonglong)
SIM_VECTORS(float, float)
SIM_VECTORS(double, double)

/* ---- min and max: CUDA's overloads; for reals a NaN loses ---- */

#define SIM_MIN_MAX(T, A, B)                                                                       \
    static inline T min(A a, B b)                                                                  \
    {                                                                                              \
        return (T)b < (T)a ? (T)b : (T)a;                                                          \
    }                                                                                              \
    static inline T max(A a, B b)                                                                  \
    {                                                                                              \
        return (T)a < (T)b ? (T)b : (T)a;                                                          \
    }
#define SIM_MIN_MAX_OF(T, U)                                                                       \
    SIM_MIN_MAX(T, T, T)                                                                           \
    SIM_MIN_MAX(U, U, U)                                                                           \
    SIM_MIN_MAX(U, T, U)                                                                           \
    SIM_MIN_MAX(U, U, T)
SIM_MIN_MAX_OF(int, unsigned)
SIM_MIN_MAX_OF(long, unsigned long)
SIM_MIN_MAX_OF(long long, unsigned long long)
static inline float min(float a, float b)
{
    return fminf(a, b);
}
static inline float max(float a, float b)
{
    return fmaxf(a, b);
}
static inline double min(double a, double b)
{
    return fmin(a, b);
}
static inline double max(double a, double b)
{
    return fmax(a, b);
}
static inline double min(float a, double b)
{
    return fmin(a, b);
}
static inline double min(double a, float b)
{
    return fmin(a, b);
}
static inline double max(float a, double b)
{
    return fmax(a, b);
}
static inline double max(double a, float b)
{
    return fmax(a, b);
}

/* ---- bits ---- */

#define SIM_CAST(name, to, from)                                                                   \
    static inline to name(from value)                                                              \
    {                                                                                              \
        to result;                                                                                 \
        static_assert(sizeof result == sizeof value, "same size");                                 \
        memcpy(&result, &value, sizeof result);                                                    \
        return result;                                                                             \
    }
SIM_CAST(__int_as_float, float, int)
SIM_CAST(__uint_as_float, float, unsigned)
SIM_CAST(__float_as_int, int, float)
SIM_CAST(__float_as_uint, unsigned, float)
SIM_CAST(__longlong_as_double, double, long long)
SIM_CAST(__double_as_longlong, long long, double)

static inline int __popc(unsigned value)
{
    return __builtin_popcount(value);
}
static inline int __popcll(unsigned long long value)
{
    return __builtin_popcountll(value);
}
static inline int __clz(int value)
{
    return value ? __builtin_clz((unsigned)value) : 32;
}
static inline int __clzll(long long value)
{
    return value ? __builtin_clzll((unsigned long long)value) : 64;
}
static inline int __ffs(int value)
{
    return __builtin_ffs(value);
}
static inline int __ffsll(long long value)
{
    return __builtin_ffsll(value);
}
static inline unsigned __brev(unsigned value)
{
    unsigned result = 0;
    for (int i = 0; i < 32; ++i)
        result |= (value >> i & 1u) << (31 - i);
    return result;
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline int __mulhi(int a, int b)
{
    return (int)((int64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

/* ---- loads and stores with a cache's advice ---- */

#define SIM_LOAD(name)                                                                             \
    template <typename T> static inline T name(const T *at)                                        \
    {                                                                                              \
        return *at;                                                                                \
    }
#define SIM_STORE(name)                                                                            \
    template <typename T> static inline void name(T *at, T value)                                  \
    {                                                                                              \
        *at = value;                                                                               \
    }
SIM_LOAD(__ldg)
SIM_LOAD(__ldca)
SIM_LOAD(__ldcg)
SIM_LOAD(__ldcs)
SIM_LOAD(__ldlu)
SIM_LOAD(__ldcv)
SIM_STORE(__stwb)
SIM_STORE(__stcg)
SIM_STORE(__stcs)
SIM_STORE(__stwt)

/* ---- arithmetic ---- */

/* glibc has these names for itself. */
#define __expf(a) expf(a)
#define __logf(a) logf(a)
#define __log2f(a) log2f(a)
#define __log10f(a) log10f(a)
#define __sinf(a) sinf(a)
#define __cosf(a) cosf(a)
#define __tanf(a) tanf(a)
#define __powf(a, b) powf(a, b)

#define SIM_REAL1(name, T, expression)                                                             \
    static inline T name(T a)                                                                      \
    {                                                                                              \
        return expression;                                                                         \
    }
#define SIM_REAL2(name, T, expression)                                                             \
    static inline T name(T a, T b)                                                                 \
    {                                                                                              \
        return expression;                                                                         \
    }
SIM_REAL1(rsqrtf, float, 1.0f / sqrtf(a))
SIM_REAL1(rsqrt, double, 1.0 / sqrt(a))
SIM_REAL1(rcbrtf, float, 1.0f / cbrtf(a))
SIM_REAL1(sinpif, float, sinf((float)M_PI *fmodf(a, 2.0f)))
SIM_REAL1(cospif, float, cosf((float)M_PI *fmodf(a, 2.0f)))
SIM_REAL1(normcdff, float, 0.5f * erfcf(-a * (float)M_SQRT1_2))
SIM_REAL1(normcdf, double, 0.5 * erfc(-a *M_SQRT1_2))
SIM_REAL1(__saturatef, float, !(a > 0.0f) ? 0.0f : a > 1.0f ? 1.0f : a)
SIM_REAL1(__frcp_rn, float, 1.0f / a)
SIM_REAL1(__fsqrt_rn, float, sqrtf(a))
SIM_REAL1(__frsqrt_rn, float, 1.0f / sqrtf(a))
SIM_REAL1(__dsqrt_rn, double, sqrt(a))
SIM_REAL1(__drcp_rn, double, 1.0 / a)
SIM_REAL2(__fdividef, float, a / b)
SIM_REAL2(__fadd_rn, float, a + b)
SIM_REAL2(__fsub_rn, float, a - b)
SIM_REAL2(__fmul_rn, float, a *b)
SIM_REAL2(__fdiv_rn, float, a / b)
SIM_REAL2(__dadd_rn, double, a + b)
SIM_REAL2(__dsub_rn, double, a - b)
SIM_REAL2(__dmul_rn, double, a *b)
SIM_REAL2(__ddiv_rn, double, a / b)
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}
static inline int __float2int_rn(float a)
{
    return (int)rintf(a);
}
static inline int __float2int_rz(float a)
{
    return (int)a;
}
static inline long long __double2ll_rn(double a)
{
    return llrint(a);
}

#endif
