/* dtypes.h - the dtypes by number for kernels that learn them when they run: as planner/tensor.h has them, which
 * device code does not include. layout.c asserts that the two agree. */
#ifndef DJ_GPU_CUDA_KERNELS_DTYPES_H
#define DJ_GPU_CUDA_KERNELS_DTYPES_H

/* X(name, value): the real ones; complex numbers are only moved. */
#define DJ_CUDA_DTYPES(X)                                                                          \
    X(BOOL, 0)                                                                                     \
    X(U8, 1)                                                                                       \
    X(I8, 2)                                                                                       \
    X(I16, 3)                                                                                      \
    X(I32, 4)                                                                                      \
    X(I64, 5)                                                                                      \
    X(F16, 6)                                                                                      \
    X(BF16, 7)                                                                                     \
    X(F32, 8)                                                                                      \
    X(F64, 9)

enum {
#define DJ_CUDA_DTYPE_VALUE(name, value) DJ_CUDA_##name = (value),
    DJ_CUDA_DTYPES(DJ_CUDA_DTYPE_VALUE)
#undef DJ_CUDA_DTYPE_VALUE
};

#endif
