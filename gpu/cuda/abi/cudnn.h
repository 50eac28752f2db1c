/* cudnn.h - what is called of cuDNN 9 (convolution.c): NVIDIA's documented ABI. */
#ifndef DJ_GPU_CUDA_ABI_CUDNN_H
#define DJ_GPU_CUDA_ABI_CUDNN_H

#include <stddef.h>

typedef struct cudnnContext *cudnnHandle_t;
typedef int cudnnStatus_t; /* 0: success */

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle);
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle);
size_t cudnnGetVersion(void);

#define DJ_CUDA_DNN(X)                                                                             \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnGetVersion)

#endif
