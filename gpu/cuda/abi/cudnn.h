/* cudnn.h - what is called of cuDNN 9 (dnn.c): NVIDIA's documented ABI.
 *
 * With DJ_CUDA_ABI_CHECK as in cublaslt.h. */
#ifndef DJ_GPU_CUDA_ABI_CUDNN_H
#define DJ_GPU_CUDA_ABI_CUDNN_H

#include <stddef.h>

/* X(name, value) */
#define DJ_CUDA_DNN_VALUES(X)                                                                      \
    X(CUDNN_STATUS_SUCCESS, 0)                                                                     \
    X(CUDNN_DATA_FLOAT, 0)                                                                         \
    X(CUDNN_DATA_DOUBLE, 1)                                                                        \
    X(CUDNN_DATA_HALF, 2)                                                                          \
    X(CUDNN_DATA_BFLOAT16, 9)                                                                      \
    X(CUDNN_DEFAULT_MATH, 0)                                                                       \
    X(CUDNN_TENSOR_OP_MATH, 1)                                                                     \
    X(CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION, 2)                                                    \
    X(CUDNN_FMA_MATH, 3)                                                                           \
    X(CUDNN_TENSOR_NCHW, 0)                                                                        \
    X(CUDNN_CROSS_CORRELATION, 1)                                                                  \
    X(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, 0)                                                 \
    X(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, 1)                                         \
    X(CUDNN_CONVOLUTION_FWD_ALGO_GEMM, 2)                                                          \
    X(CUDNN_CONVOLUTION_FWD_ALGO_DIRECT, 3)                                                        \
    X(CUDNN_CONVOLUTION_FWD_ALGO_COUNT, 8)                                                         \
    X(CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, 0)                                                        \
    X(CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, 1)                                                        \
    X(CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT, 6)

/* X(type, bytes) */
#define DJ_CUDA_DNN_SIZES(X)                                                                       \
    X(cudnnStatus_t, 4)                                                                            \
    X(cudnnDataType_t, 4)                                                                          \
    X(cudnnTensorFormat_t, 4)                                                                      \
    X(cudnnMathType_t, 4)                                                                          \
    X(cudnnConvolutionMode_t, 4)                                                                   \
    X(cudnnConvolutionFwdAlgo_t, 4)                                                                \
    X(cudnnConvolutionBwdDataAlgo_t, 4)                                                            \
    X(cudnnConvolutionFwdAlgoPerf_t, 48)                                                           \
    X(cudnnConvolutionBwdDataAlgoPerf_t, 48)

/* X(type, member, offset) */
#define DJ_CUDA_DNN_OFFSETS(X)                                                                     \
    X(cudnnConvolutionFwdAlgoPerf_t, status, 4)                                                    \
    X(cudnnConvolutionFwdAlgoPerf_t, memory, 16)                                                   \
    X(cudnnConvolutionFwdAlgoPerf_t, mathType, 28)                                                 \
    X(cudnnConvolutionBwdDataAlgoPerf_t, status, 4)                                                \
    X(cudnnConvolutionBwdDataAlgoPerf_t, memory, 16)                                               \
    X(cudnnConvolutionBwdDataAlgoPerf_t, mathType, 28)

#ifndef DJ_CUDA_ABI_CHECK
typedef struct cudnnContext *cudnnHandle_t;
typedef struct cudnnTensorStruct *cudnnTensorDescriptor_t;
typedef struct cudnnFilterStruct *cudnnFilterDescriptor_t;
typedef struct cudnnConvolutionStruct *cudnnConvolutionDescriptor_t;
typedef int cudnnStatus_t;
typedef int cudnnDataType_t;
typedef int cudnnTensorFormat_t;
typedef int cudnnMathType_t;
typedef int cudnnDeterminism_t;
typedef int cudnnConvolutionMode_t;
typedef int cudnnConvolutionFwdAlgo_t;
typedef int cudnnConvolutionBwdDataAlgo_t;

enum {
#define DJ_CUDA_DNN_VALUE(name, value) name = (value),
    DJ_CUDA_DNN_VALUES(DJ_CUDA_DNN_VALUE)
#undef DJ_CUDA_DNN_VALUE
};

typedef struct cudnnConvolutionFwdAlgoPerfStruct {
    cudnnConvolutionFwdAlgo_t algo;
    cudnnStatus_t status;
    float time;
    size_t memory;
    cudnnDeterminism_t determinism;
    cudnnMathType_t mathType;
    int reserved[3];
} cudnnConvolutionFwdAlgoPerf_t;

typedef struct cudnnConvolutionBwdDataAlgoPerfStruct {
    cudnnConvolutionBwdDataAlgo_t algo;
    cudnnStatus_t status;
    float time;
    size_t memory;
    cudnnDeterminism_t determinism;
    cudnnMathType_t mathType;
    int reserved[3];
} cudnnConvolutionBwdDataAlgoPerf_t;
#endif

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle);
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle);
size_t cudnnGetVersion(void);
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, struct CUstream_st *stream);
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *tensor);
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensor);
cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t tensor, cudnnDataType_t type, int rank,
                                         const int *sizes, const int *strides);
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *filter);
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t filter);
cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t filter, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int rank, const int *sizes);
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *convolution);
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t convolution);
cudnnStatus_t cudnnSetConvolutionNdDescriptor(cudnnConvolutionDescriptor_t convolution, int spatial,
                                              const int *padding, const int *stride, const int *dilation,
                                              cudnnConvolutionMode_t mode, cudnnDataType_t compute);
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t convolution, int groups);
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t convolution, cudnnMathType_t math);
cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                     const cudnnFilterDescriptor_t w,
                                                     const cudnnConvolutionDescriptor_t convolution,
                                                     const cudnnTensorDescriptor_t y, const int wanted, int *found,
                                                     cudnnConvolutionFwdAlgoPerf_t *results);
cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                      const cudnnFilterDescriptor_t w,
                                                      const cudnnConvolutionDescriptor_t convolution,
                                                      const cudnnTensorDescriptor_t y,
                                                      cudnnConvolutionFwdAlgo_t algo, size_t *bytes);
cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t x_desc,
                                      const void *x, const cudnnFilterDescriptor_t w_desc, const void *w,
                                      const cudnnConvolutionDescriptor_t convolution, cudnnConvolutionFwdAlgo_t algo,
                                      void *workspace, size_t workspace_bytes, const void *beta,
                                      const cudnnTensorDescriptor_t y_desc, void *y);
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t handle, const cudnnFilterDescriptor_t w,
                                                          const cudnnTensorDescriptor_t dy,
                                                          const cudnnConvolutionDescriptor_t convolution,
                                                          const cudnnTensorDescriptor_t dx, const int wanted,
                                                          int *found, cudnnConvolutionBwdDataAlgoPerf_t *results);
cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t handle, const cudnnFilterDescriptor_t w,
                                                           const cudnnTensorDescriptor_t dy,
                                                           const cudnnConvolutionDescriptor_t convolution,
                                                           const cudnnTensorDescriptor_t dx,
                                                           cudnnConvolutionBwdDataAlgo_t algo, size_t *bytes);
cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void *alpha,
                                           const cudnnFilterDescriptor_t w_desc, const void *w,
                                           const cudnnTensorDescriptor_t dy_desc, const void *dy,
                                           const cudnnConvolutionDescriptor_t convolution,
                                           cudnnConvolutionBwdDataAlgo_t algo, void *workspace,
                                           size_t workspace_bytes, const void *beta,
                                           const cudnnTensorDescriptor_t dx_desc, void *dx);

#define DJ_CUDA_DNN(X)                                                                             \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnGetVersion)                                                                             \
    X(cudnnSetStream)                                                                              \
    X(cudnnCreateTensorDescriptor)                                                                 \
    X(cudnnDestroyTensorDescriptor)                                                                \
    X(cudnnSetTensorNdDescriptor)                                                                  \
    X(cudnnCreateFilterDescriptor)                                                                 \
    X(cudnnDestroyFilterDescriptor)                                                                \
    X(cudnnSetFilterNdDescriptor)                                                                  \
    X(cudnnCreateConvolutionDescriptor)                                                            \
    X(cudnnDestroyConvolutionDescriptor)                                                           \
    X(cudnnSetConvolutionNdDescriptor)                                                             \
    X(cudnnSetConvolutionGroupCount)                                                               \
    X(cudnnSetConvolutionMathType)                                                                 \
    X(cudnnGetConvolutionForwardAlgorithm_v7)                                                      \
    X(cudnnGetConvolutionForwardWorkspaceSize)                                                     \
    X(cudnnConvolutionForward)                                                                     \
    X(cudnnGetConvolutionBackwardDataAlgorithm_v7)                                                 \
    X(cudnnGetConvolutionBackwardDataWorkspaceSize)                                                \
    X(cudnnConvolutionBackwardData)

#endif
