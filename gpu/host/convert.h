/* convert.h - rows of any dtype into a compute class and back.
 *
 * The kernels compute in four types only (float, double, int64, bool); these functions carry every
 * other dtype to and from them, a strided row at a time. Stride 0 fills. Integers wrap when stored
 * narrower; a float becomes an integer by truncation; anything becomes true when it is not 0. */
#ifndef DJ_GPU_HOST_CONVERT_H
#define DJ_GPU_HOST_CONVERT_H

#include "gpu/host/kernel.h"

typedef void (*dj_host_load_fn_t)(int64_t n, const void *source, int64_t stride_bytes,
                                  void *target);
typedef void (*dj_host_store_fn_t)(int64_t n, const void *source, void *target,
                                   int64_t stride_bytes);

/* Both are total over known dtypes; NULL for an unknown one. */
#define dj_host_load_of DJ_ISA_NAME(dj_host_load_of)
#define dj_host_store_of DJ_ISA_NAME(dj_host_store_of)
dj_host_load_fn_t dj_host_load_of(uint8_t dtype, dj_class_t class);
dj_host_store_fn_t dj_host_store_of(dj_class_t class, uint8_t dtype);

#endif
