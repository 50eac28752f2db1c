/* dnn.h - one convolution prepared with cuDNN: descriptors, the algorithm it advises, the workspace that this needs.
 *
 * All tensors lie densely in their own order. A transposed convolution is what the library calls the gradient of a
 * convolution with respect to its data.
 *
 * Ownership: dj_cuda_dnn_destroy() after a prepare that succeeded.
 * Threads: as kernel.h says of prepare and emit; the library's handle is the device's, used under its lock. */
#ifndef DJ_GPU_CUDA_DNN_H
#define DJ_GPU_CUDA_DNN_H

#include "gpu/cuda/cuda_device.h"

#define DJ_CUDA_DNN_RANK_MAX 5

typedef struct dj_cuda_dnn_shape {
    uint8_t dtype;
    int rank; /* 4 or 5: batch, channels, two or three spatial dimensions */
    int input[DJ_CUDA_DNN_RANK_MAX], weight[DJ_CUDA_DNN_RANK_MAX], output[DJ_CUDA_DNN_RANK_MAX];
    int padding[3], stride[3], dilation[3]; /* of the spatial dimensions, in order */
    int groups;
    bool transposed;
} dj_cuda_dnn_shape_t;

typedef struct dj_cuda_dnn {
    cudnnTensorDescriptor_t input, output;
    cudnnFilterDescriptor_t weight;
    cudnnConvolutionDescriptor_t convolution;
    int algo;
    size_t workspace_bytes;
    bool transposed, wide; /* wide: alpha and beta are double */
} dj_cuda_dnn_t;

/* DJ_ERR_UNSUPPORTED: no library here, or it has no algorithm for this; DJ_ERR_MEMORY. */
dj_status_t dj_cuda_dnn_prepare(dj_cuda_device_t *device, const dj_cuda_dnn_shape_t *shape, dj_cuda_dnn_t *dnn);
void dj_cuda_dnn_destroy(dj_cuda_dnn_t *dnn);

typedef struct dj_cuda_dnn_at {
    CUdeviceptr input, weight, output, workspace;
} dj_cuda_dnn_at_t;
dj_status_t dj_cuda_dnn_run(const dj_cuda_dnn_t *dnn, dj_cuda_device_t *device, CUstream stream,
                            const dj_cuda_dnn_at_t *at);

/* The device's handle, made at first use; NULL, after one warning, where there is no library. */
cudnnHandle_t dj_cuda_dnn_handle(dj_cuda_device_t *device);

#endif
