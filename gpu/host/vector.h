/* vector.h - vector forms of the C mathematical functions and the widest vector of the build.
 *
 * glibc has them in libmvec but declares them only under -ffast-math, which `exact` numerics forbids.
 * Declared here with the simd attribute, a loop under `#pragma omp simd` calls 4, 8 or 16 lanes at
 * once; their error is below 4 units in the last place. */
#ifndef DJ_GPU_HOST_VECTOR_H
#define DJ_GPU_HOST_VECTOR_H

#include <math.h>
#include <stdint.h>

#define DJ_SIMD __attribute__((simd("notinbranch")))
DJ_SIMD extern float expf(float);
DJ_SIMD extern float logf(float);
DJ_SIMD extern float sinf(float);
DJ_SIMD extern float cosf(float);
DJ_SIMD extern float tanhf(float);
DJ_SIMD extern float erff(float);
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
typedef float dj_vector_t
    __attribute__((vector_size(DJ_VECTOR_BYTES), aligned(4), may_alias));

#endif
