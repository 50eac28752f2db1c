/* pointwise.h - the functions that the expressions of planner/ops.def call, one per compute class.
 *
 * A class is the type in which a pointwise op computes: f32, f64, i64 (every integer dtype), b8
 * (bool). An expression says DJ_EXP(a); whoever compiles it defines DJ_PW_CLASS as f32, f64, i64 or
 * b8 and thereby calls dj_exp_f32() and so on. Host and CUDA compile this same text, so it includes
 * no system header and leaves the qualifiers to DJ_PW_FUNCTION.
 *
 * Semantics are PyTorch's: NaN wins in maximum, minimum and clamp; remainder takes the sign of the
 * divisor; integer division floors, and by zero gives 0 (no trap on a server). Integer overflow
 * wraps: compile with -fwrapv, or, where a compiler has no such thing, say in DJ_PW_LONG what to
 * compute with (gpu/cuda/kernels/fused.cuh). */
#ifndef DJ_GPU_POINTWISE_H
#define DJ_GPU_POINTWISE_H

#ifndef DJ_PW_FUNCTION
#define DJ_PW_FUNCTION static inline __attribute__((always_inline, unused))
#endif

#ifndef DJ_PW_LONG
#define DJ_PW_LONG long
#endif

#define DJ_PW_PASTE2(name, class) dj_##name##_##class
#define DJ_PW_PASTE(name, class) DJ_PW_PASTE2(name, class)
#define DJ_PW_CALL(name) DJ_PW_PASTE(name, DJ_PW_CLASS)

#define DJ_EXP(a) DJ_PW_CALL(exp)(a)
#define DJ_LOG(a) DJ_PW_CALL(log)(a)
#define DJ_SQRT(a) DJ_PW_CALL(sqrt)(a)
#define DJ_SIN(a) DJ_PW_CALL(sin)(a)
#define DJ_COS(a) DJ_PW_CALL(cos)(a)
#define DJ_TANH(a) DJ_PW_CALL(tanh)(a)
#define DJ_ERF(a) DJ_PW_CALL(erf)(a)
#define DJ_GELU(a) DJ_PW_CALL(gelu)(a)
#define DJ_GELU_TANH(a) DJ_PW_CALL(gelu_tanh)(a)
#define DJ_POW(a, b) DJ_PW_CALL(pow)(a, b)
#define DJ_ABS(a) DJ_PW_CALL(abs)(a)
#define DJ_MAX(a, b) DJ_PW_CALL(max)(a, b)
#define DJ_MIN(a, b) DJ_PW_CALL(min)(a, b)
#define DJ_CLAMP(a, low, high) DJ_PW_CALL(clamp)(a, low, high)
#define DJ_REMAINDER(a, b) DJ_PW_CALL(remainder)(a, b)
#define DJ_FLOOR_DIVIDE(a, b) DJ_PW_CALL(floor_divide)(a, b)
#define DJ_BITNOT(a) DJ_PW_CALL(bitnot)(a)
#define DJ_BITAND(a, b) DJ_PW_CALL (bitand)(a, b)
#define DJ_BITOR(a, b) DJ_PW_CALL(bitor)(a, b)
#define DJ_BITXOR(a, b) DJ_PW_CALL(bitxor)(a, b)

/* One definition for every class; `T` is the class's type. */
#define DJ_PW_COMMON(class, T)                                                                     \
    DJ_PW_FUNCTION T dj_max_##class(T a, T b)                                                      \
    {                                                                                              \
        return (a > b || a != a) ? a : b;                                                          \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_min_##class(T a, T b)                                                      \
    {                                                                                              \
        return (a < b || a != a) ? a : b;                                                          \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_clamp_##class(T a, T low, T high)                                          \
    {                                                                                              \
        return dj_min_##class(dj_max_##class(a, low), high);                                       \
    }

DJ_PW_COMMON(f32, float)
DJ_PW_COMMON(f64, double)
DJ_PW_COMMON(i64, DJ_PW_LONG)
DJ_PW_COMMON(b8, unsigned char)

/* The floats: `f` is the suffix of the C functions. */
#define DJ_PW_FLOAT(class, T, f)                                                                   \
    DJ_PW_FUNCTION T dj_exp_##class(T a)                                                           \
    {                                                                                              \
        return exp##f(a);                                                                          \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_log_##class(T a)                                                           \
    {                                                                                              \
        return log##f(a);                                                                          \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_sqrt_##class(T a)                                                          \
    {                                                                                              \
        return sqrt##f(a);                                                                         \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_sin_##class(T a)                                                           \
    {                                                                                              \
        return sin##f(a);                                                                          \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_cos_##class(T a)                                                           \
    {                                                                                              \
        return cos##f(a);                                                                          \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_tanh_##class(T a)                                                          \
    {                                                                                              \
        return tanh##f(a);                                                                         \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_erf_##class(T a)                                                           \
    {                                                                                              \
        return erf##f(a);                                                                          \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_pow_##class(T a, T b)                                                      \
    {                                                                                              \
        return pow##f(a, b);                                                                       \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_abs_##class(T a)                                                           \
    {                                                                                              \
        return fabs##f(a);                                                                         \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_gelu_##class(T a)                                                          \
    {                                                                                              \
        return a * (T)0.5 * (1 + erf##f(a * (T)0.70710678118654752440));                           \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_gelu_tanh_##class(T a)                                                     \
    {                                                                                              \
        T inner = (T)0.79788456080286535588 * (a + (T)0.044715 * (a * a * a));                     \
        return (T)0.5 * a * (1 + tanh##f(inner));                                                  \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_remainder_##class(T a, T b)                                                \
    {                                                                                              \
        T rest = fmod##f(a, b);                                                                    \
        return (rest != 0 && (b < 0) != (rest < 0)) ? rest + b : rest;                             \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_floor_divide_##class(T a, T b)                                             \
    {                                                                                              \
        if (b == 0)                                                                                \
            return a / b;                                                                          \
        T rest = fmod##f(a, b), whole = (a - rest) / b;                                            \
        if (rest != 0 && (b < 0) != (rest < 0))                                                    \
            whole -= 1;                                                                            \
        if (whole == 0)                                                                            \
            return copysign##f((T)0, a / b);                                                       \
        T floored = floor##f(whole);                                                               \
        return whole - floored > (T)0.5 ? floored + 1 : floored;                                   \
    }

DJ_PW_FLOAT(f32, float, f)
DJ_PW_FLOAT(f64, double, )

DJ_PW_FUNCTION DJ_PW_LONG dj_abs_i64(DJ_PW_LONG a)
{
    return a < 0 ? -a : a;
}

/* -1 apart: the most negative number over -1 traps. */
DJ_PW_FUNCTION DJ_PW_LONG dj_remainder_i64(DJ_PW_LONG a, DJ_PW_LONG b)
{
    if (b == 0 || b == -1)
        return 0;
    DJ_PW_LONG rest = a % b;
    return (rest != 0 && (rest < 0) != (b < 0)) ? rest + b : rest;
}

DJ_PW_FUNCTION DJ_PW_LONG dj_floor_divide_i64(DJ_PW_LONG a, DJ_PW_LONG b)
{
    if (b == 0)
        return 0;
    if (b == -1)
        return -a;
    DJ_PW_LONG whole = a / b;
    return (whole * b != a && (a < 0) != (b < 0)) ? whole - 1 : whole;
}

DJ_PW_FUNCTION DJ_PW_LONG dj_pow_i64(DJ_PW_LONG a, DJ_PW_LONG b)
{
    if (b < 0)
        return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
    DJ_PW_LONG power = 1;
    for (; b; b >>= 1, a *= a)
        if (b & 1)
            power *= a;
    return power;
}

DJ_PW_FUNCTION unsigned char dj_abs_b8(unsigned char a)
{
    return a;
}

DJ_PW_FUNCTION unsigned char dj_remainder_b8(unsigned char a, unsigned char b)
{
    return 0;
}

DJ_PW_FUNCTION unsigned char dj_floor_divide_b8(unsigned char a, unsigned char b)
{
    return a && b;
}

DJ_PW_FUNCTION unsigned char dj_pow_b8(unsigned char a, unsigned char b)
{
    return a || !b;
}

#define DJ_PW_BITS(class, T, invert)                                                               \
    DJ_PW_FUNCTION T dj_bitnot_##class(T a)                                                        \
    {                                                                                              \
        return invert a;                                                                           \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_bitand_##class(T a, T b)                                                   \
    {                                                                                              \
        return a & b;                                                                              \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_bitor_##class(T a, T b)                                                    \
    {                                                                                              \
        return a | b;                                                                              \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_bitxor_##class(T a, T b)                                                   \
    {                                                                                              \
        return a ^ b;                                                                              \
    }

DJ_PW_BITS(i64, DJ_PW_LONG, ~)
DJ_PW_BITS(b8, unsigned char, !)

#define DJ_PW_NO_BITS(class, T)                                                                    \
    DJ_PW_FUNCTION T dj_bitnot_##class(T a)                                                        \
    {                                                                                              \
        return a;                                                                                  \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_bitand_##class(T a, T b)                                                   \
    {                                                                                              \
        return a;                                                                                  \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_bitor_##class(T a, T b)                                                    \
    {                                                                                              \
        return a;                                                                                  \
    }                                                                                              \
    DJ_PW_FUNCTION T dj_bitxor_##class(T a, T b)                                                   \
    {                                                                                              \
        return a;                                                                                  \
    }

/* A float has no bits to a program: backends refuse these, and they exist so that one text compiles
 * for every class. */
DJ_PW_NO_BITS(f32, float)
DJ_PW_NO_BITS(f64, double)

#endif
