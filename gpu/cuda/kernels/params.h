/* params.h - what the host hands to kernels: plain structs, the same text for C, nvcc, NVRTC and the simulator.
 *
 * Pointers into a session's memory differ from request to request, so no kernel parameter holds one. An operand is
 * a dj_cuda_ref_t: either an address that stays (Text, Stack) or a row of the launch's pointer table, which lies in
 * device memory and is filled before each replay; and a view's offset, where it travels in the scalar vector, is
 * added on the device. So one captured graph serves every session.
 *
 * Every kernel takes one struct, passed by value, that begins with dj_cuda_head_t; at most DJ_CUDA_PARAMS_MAX
 * bytes. No pointers to host memory; sizes and strides in elements unless a name says bytes. */
#ifndef DJ_GPU_CUDA_KERNELS_PARAMS_H
#define DJ_GPU_CUDA_KERNELS_PARAMS_H

#ifndef __CUDACC_RTC__
#include <stdint.h>
#endif

#define DJ_CUDA_PARAMS_MAX 4096
#define DJ_CUDA_RANK_MAX 8   /* DJ_RANK_MAX */
#define DJ_CUDA_VIEWS_MAX 4  /* DJ_LOOP_MAX */
#define DJ_CUDA_NONE (-1)

typedef struct dj_cuda_ref {
    uint64_t base;       /* an address; with `table` >= 0 bytes to add to that row */
    int32_t table;       /* row of the pointer table, or DJ_CUDA_NONE */
    int32_t slot;        /* of the view's offset in the scalar vector, or DJ_CUDA_NONE */
    uint32_t item_bytes; /* of one element of that offset */
    uint32_t present;    /* 0: an absent operand; its address is null */
} dj_cuda_ref_t;

/* The same in every kernel of one executable; filled by dj_cuda_emit_kernel(). */
typedef struct dj_cuda_head {
    uint64_t table;   /* address of uint64_t[n_bindings] in device memory */
    uint64_t scalars; /* address of uint64_t[n_scalars] in device memory */
    uint64_t fault;   /* address of a uint32_t: node + 1 of the first kernel that met a bad value, else 0 */
    uint32_t node;
    uint32_t spare;
} dj_cuda_head_t;

/* A scalar of the request: a slot of the vector and how its 8 bytes read (DJ_F64 or an integer). */
typedef struct dj_cuda_scalar {
    int32_t slot;     /* DJ_CUDA_NONE: absent */
    uint32_t is_real; /* the bits are a double, else an int64_t */
} dj_cuda_scalar_t;

/* A joint walk (gpu/loop.h); strides in bytes. */
typedef struct dj_cuda_loop {
    int64_t count;
    int32_t rank; /* at least 1 */
    int32_t views;
    int64_t sizes[DJ_CUDA_RANK_MAX];
    int64_t strides[DJ_CUDA_VIEWS_MAX][DJ_CUDA_RANK_MAX];
} dj_cuda_loop_t;

#endif
