/* index.h - what the kernels that follow index tensors share. */
#ifndef DJ_GPU_HOST_INDEX_H
#define DJ_GPU_HOST_INDEX_H

#include "gpu/host/convert.h"

/* `value` inside 0..size-1: itself, counted from the end where that is allowed, else 0 and a fault.
 * Where size is 0 there is nothing to access, and the caller must not. */
static inline int64_t dj_index_clamp(const dj_host_run_t *run, int64_t value, int64_t size,
                                     bool negative_allowed)
{
    if (value < 0 && negative_allowed)
        value += size;
    if (value >= 0 && value < size)
        return value;
    __atomic_store_n(run->fault_p, 1, __ATOMIC_RELAXED);
    return 0;
}

/* A scalar as one element of `dtype`, 8 bytes at *item. */
static inline void dj_index_item(const dj_host_run_t *run, dj_node_scalar_t value, uint8_t dtype,
                                 dj_host_store_fn_t store, dj_class_t class, uint64_t *item)
{
    double real = dj_host_scalar_real(run, value);
    int64_t integer = dj_host_scalar_integer(run, value);
    store(1, class == DJ_CLASS_F64 ? (void *)&real : (void *)&integer, item, dj_dtype_bytes(dtype));
}

#endif
