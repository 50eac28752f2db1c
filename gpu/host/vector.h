/* vector.h - vector forms of the C mathematical functions and the widest vector of the build.
 *
 * glibc has them in libmvec but declares them only under -ffast-math, which `exact` numerics
 * forbids. Declared here with the simd attribute, a loop under `#pragma omp simd` calls 4, 8 or 16
 * lanes at once; their error is below 4 units in the last place. */
#ifndef DJ_GPU_HOST_VECTOR_H
#define DJ_GPU_HOST_VECTOR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#define DJ_SIMD __attribute__((simd("notinbranch")))
DJ_SIMD extern float expf(float);
DJ_SIMD extern float logf(float);
DJ_SIMD extern float sinf(float);
DJ_SIMD extern float cosf(float);
DJ_SIMD extern float tanhf(float);
DJ_SIMD extern float powf(float, float);
DJ_SIMD extern double exp(double);
DJ_SIMD extern double log(double);
DJ_SIMD extern double sin(double);
DJ_SIMD extern double cos(double);
DJ_SIMD extern double tanh(double);
DJ_SIMD extern double erf(double);
DJ_SIMD extern double pow(double, double);

#if defined(__AVX512F__)
#define DJ_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define DJ_VECTOR_BYTES 32
#else
#define DJ_VECTOR_BYTES 16
#endif
#define DJ_LANES (DJ_VECTOR_BYTES / 4)

/* A vector of floats at any address. */
typedef float dj_vector_t __attribute__((vector_size(DJ_VECTOR_BYTES), aligned(4), may_alias));

typedef int dj_vector_mask_t __attribute__((vector_size(DJ_VECTOR_BYTES)));

/* Where x is larger x, else y; a NaN in x loses. */
static inline dj_vector_t dj_vector_max(dj_vector_t x, dj_vector_t y)
{
    dj_vector_mask_t larger = x > y;
    return (dj_vector_t)((larger & (dj_vector_mask_t)x) | (~larger & (dj_vector_mask_t)y));
}

typedef float dj_quad_t __attribute__((vector_size(16), aligned(4), may_alias));
typedef int dj_quad_mask_t __attribute__((vector_size(16)));

static inline dj_quad_t dj_quad_max(dj_quad_t x, dj_quad_t y)
{
    dj_quad_mask_t larger = x > y;
    return (dj_quad_t)((larger & (dj_quad_mask_t)x) | (~larger & (dj_quad_mask_t)y));
}

/* Across the lanes: quarters of the vector first, then within one. */
static inline float dj_vector_sum(dj_vector_t x)
{
    union {
        dj_vector_t vector;
        dj_quad_t quads[DJ_LANES / 4];
    } parts = {x};
    dj_quad_t sum = parts.quads[0];
    for (int i = 1; i < DJ_LANES / 4; i++)
        sum += parts.quads[i];
    sum += __builtin_shuffle(sum, (dj_quad_mask_t){2, 3, 0, 1});
    return sum[0] + sum[1];
}

static inline float dj_vector_largest(dj_vector_t x)
{
    union {
        dj_vector_t vector;
        dj_quad_t quads[DJ_LANES / 4];
    } parts = {x};
    dj_quad_t max = parts.quads[0];
    for (int i = 1; i < DJ_LANES / 4; i++)
        max = dj_quad_max(parts.quads[i], max);
    max = dj_quad_max(__builtin_shuffle(max, (dj_quad_mask_t){2, 3, 0, 1}), max);
    return max[0] > max[1] ? max[0] : max[1];
}

/* exp(x) for x <= 0, as softmax needs it: inline, without the slow path that libmvec takes for
 * minus infinity, and zero below exp(-87). A NaN stays one. Within 2 units in the last place. */
static inline dj_vector_t dj_vector_exp(dj_vector_t x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer */
    dj_vector_t zero = {0}, shift = zero + round, floor = zero - 87.0f;
    dj_vector_mask_t tiny = x < floor;
    x = (dj_vector_t)((tiny & (dj_vector_mask_t)floor) | (~tiny & (dj_vector_mask_t)x));
    dj_vector_t shifted = x * 1.44269504f + shift, n = shifted - shift;
    dj_vector_t r = x - n * 0.693359375f + n * 2.12194440e-4f;
    dj_vector_t p = zero + 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    dj_vector_mask_t power = (dj_vector_mask_t)shifted - (dj_vector_mask_t)shift;
    dj_vector_t scale = (dj_vector_t)((power + 127) << 23);
    return (dj_vector_t)(~tiny & (dj_vector_mask_t)(p * scale));
}

/* The same for one number; a loop of it vectorises. */
static inline __attribute__((always_inline)) float dj_float_exp(float x)
{
    const float round = 12582912.0f;
    union {
        float value;
        int32_t bits;
    } shifted, shift = {round}, scale;
    bool tiny = x < -87.0f;
    x = tiny ? -87.0f : x;
    shifted.value = x * 1.44269504f + round;
    float n = shifted.value - round, r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    scale.bits = (int32_t)((uint32_t)(shifted.bits - shift.bits + 127) << 23);
    return tiny ? 0 : p * scale.value;
}

/* erf within 2 units in the last place: x + x P(x^2) below 1, 1 - exp(-Q(x)) above; both
 * polynomials are our own weighted least squares fits. libmvec's is more than twice as slow. */
static inline __attribute__((always_inline)) float dj_float_erf(float x)
{
    float t = fabsf(x), s = x * x;
    float p = 7.855393778e-5f;
    p = p * s - 8.010692545e-4f;
    p = p * s + 5.188390147e-3f;
    p = p * s - 2.685385011e-2f;
    p = p * s + 1.128358617e-1f;
    p = p * s - 3.761262596e-1f;
    p = p * s + 1.283791661e-1f;
    float near = x + x * p, far = t > 4.1f ? 4.1f : t;
    float q = -1.924483222e-4f;
    q = q * far + 3.008743981e-3f;
    q = q * far - 2.208842337e-2f;
    q = q * far + 1.036418602e-1f;
    q = q * far + 6.375153661e-1f;
    q = q * far + 1.127475977f;
    q = q * far + 2.444947604e-4f;
    return t < 1.0f ? near : copysignf(1.0f - dj_float_exp(-q), x);
}

/* x Phi(x): the tail of the normal distribution at |x| is exp(-Q(|x|)) / 2, Q our own fit with its
 * weight where the product is large. One polynomial where erf needs two, and no cancellation left
 * of 0; within 1e-7 of the exact value or 2 units in the last place. */
static inline __attribute__((always_inline)) float dj_float_gelu(float x)
{
    float t = fabsf(x), q = 1.719467946e-8f;
    q = q * t - 5.216505770e-7f;
    q = q * t + 6.785862297e-6f;
    q = q * t - 4.807435471e-5f;
    q = q * t + 1.763378823e-4f;
    q = q * t + 3.730814569e-5f;
    q = q * t - 4.861538764e-3f;
    q = q * t + 3.638073057e-2f;
    q = q * t + 3.182977438e-1f;
    q = q * t + 7.978856564e-1f;
    float tail = 0.5f * dj_float_exp(t > 6.2f ? -100.0f : -q * t);
    return x * (x < 0 ? tail : 1 - tail);
}

#endif
