/* dnn.c - convolutions by cuDNN (dnn.h).
 *
 * Exact numbers leave out what reorders sums a lot: Winograd and Fourier transforms, TF32, and algorithms that add with
 * atomics. */
#include "gpu/cuda/dnn.h"

#include "runtime/base/log.h"

#define DJ_LOG_MODULE "cuda"
#define WORKSPACE_BYTES ((size_t)64 << 20)

static dj_status_t status_of(cudnnStatus_t result, const char *what)
{
    if (result == CUDNN_STATUS_SUCCESS)
        return DJ_OK;
    return dj_fail(DJ_ERR_SYSTEM, "cuDNN: %s: status %d", what, (int)result);
}

cudnnHandle_t dj_cuda_dnn_handle(dj_cuda_device_t *device)
{
    static atomic_bool warned;
    cudnnStatus_t result = CUDNN_STATUS_SUCCESS;
    pthread_mutex_lock(&device->lock);
    if (!device->dnn && dj_cuda.has.dnn)
        result = dj_cuda.cudnnCreate(&device->dnn);
    if (result != CUDNN_STATUS_SUCCESS)
        device->dnn = NULL;
    cudnnHandle_t handle = device->dnn;
    pthread_mutex_unlock(&device->lock);
    if (!handle && !atomic_exchange(&warned, true)) {
        if (dj_cuda.has.dnn)
            dj_log(WARN, "cuDNN does not start, status %d: convolutions run on plain kernels, many times slower",
                   (int)result);
        else
            dj_log(WARN, "no libcudnn: convolutions run on plain kernels, many times slower; install cuDNN 9, or the "
                         "Python package nvidia-cudnn-cu13, where the loader finds it");
    }
    return handle;
}

static cudnnDataType_t type_of(uint8_t dtype)
{
    switch (dtype) {
    case DJ_F16:
        return CUDNN_DATA_HALF;
    case DJ_BF16:
        return CUDNN_DATA_BFLOAT16;
    case DJ_F64:
        return CUDNN_DATA_DOUBLE;
    default:
        return CUDNN_DATA_FLOAT;
    }
}

static bool is_half(uint8_t dtype)
{
    return dtype == DJ_F16 || dtype == DJ_BF16;
}

static cudnnMathType_t math_of(const dj_cuda_device_t *device, uint8_t dtype)
{
    if (is_half(dtype))
        return CUDNN_TENSOR_OP_MATH;
    return device->fast && dtype == DJ_F32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
}

static cudnnStatus_t tensor_make(cudnnTensorDescriptor_t *tensor_p, const dj_cuda_dnn_shape_t *shape,
                                 const int *sizes)
{
    int strides[DJ_CUDA_DNN_RANK_MAX];
    for (int d = shape->rank - 1, step = 1; d >= 0; step *= sizes[d--])
        strides[d] = step;
    cudnnStatus_t result = dj_cuda.cudnnCreateTensorDescriptor(tensor_p);
    if (result != CUDNN_STATUS_SUCCESS)
        return result;
    return dj_cuda.cudnnSetTensorNdDescriptor(*tensor_p, type_of(shape->dtype), shape->rank, sizes, strides);
}

static cudnnStatus_t descriptors_make(const dj_cuda_device_t *device, const dj_cuda_dnn_shape_t *shape,
                                      dj_cuda_dnn_t *dnn)
{
    cudnnDataType_t compute = shape->dtype == DJ_F64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
    cudnnStatus_t result = tensor_make(&dnn->input, shape, shape->input);
    if (result == CUDNN_STATUS_SUCCESS)
        result = tensor_make(&dnn->output, shape, shape->output);
    if (result == CUDNN_STATUS_SUCCESS)
        result = dj_cuda.cudnnCreateFilterDescriptor(&dnn->weight);
    if (result == CUDNN_STATUS_SUCCESS)
        result = dj_cuda.cudnnSetFilterNdDescriptor(dnn->weight, type_of(shape->dtype), CUDNN_TENSOR_NCHW,
                                                    shape->rank, shape->weight);
    if (result == CUDNN_STATUS_SUCCESS)
        result = dj_cuda.cudnnCreateConvolutionDescriptor(&dnn->convolution);
    if (result == CUDNN_STATUS_SUCCESS)
        result = dj_cuda.cudnnSetConvolutionNdDescriptor(dnn->convolution, shape->rank - 2, shape->padding,
                                                         shape->stride, shape->dilation, CUDNN_CROSS_CORRELATION,
                                                         compute);
    if (result == CUDNN_STATUS_SUCCESS && shape->groups > 1)
        result = dj_cuda.cudnnSetConvolutionGroupCount(dnn->convolution, shape->groups);
    if (result == CUDNN_STATUS_SUCCESS)
        result = dj_cuda.cudnnSetConvolutionMathType(dnn->convolution, math_of(device, shape->dtype));
    return result;
}

/* An advice that exact numbers may follow, and that fits. */
static bool is_fit(const dj_cuda_device_t *device, const dj_cuda_dnn_shape_t *shape, int algo, cudnnStatus_t status,
                   size_t memory, cudnnMathType_t math)
{
    bool tensor = math == CUDNN_TENSOR_OP_MATH || math == CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION;
    if (status != CUDNN_STATUS_SUCCESS || memory > WORKSPACE_BYTES)
        return false;
    if (device->fast)
        return true;
    if (tensor && !is_half(shape->dtype))
        return false;
    return shape->transposed ? algo == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1
                             : algo <= CUDNN_CONVOLUTION_FWD_ALGO_DIRECT;
}

static cudnnStatus_t find_forward(dj_cuda_device_t *device, const dj_cuda_dnn_shape_t *shape, dj_cuda_dnn_t *dnn)
{
    cudnnConvolutionFwdAlgoPerf_t advice[CUDNN_CONVOLUTION_FWD_ALGO_COUNT];
    int found = 0, i = 0;
    cudnnStatus_t result = dj_cuda.cudnnGetConvolutionForwardAlgorithm_v7(
        device->dnn, dnn->input, dnn->weight, dnn->convolution, dnn->output, CUDNN_CONVOLUTION_FWD_ALGO_COUNT, &found,
        advice);
    while (i < found && !is_fit(device, shape, (int)advice[i].algo, advice[i].status, advice[i].memory,
                                advice[i].mathType))
        i++;
    dnn->algo = result == CUDNN_STATUS_SUCCESS && i < found ? (int)advice[i].algo
                                                            : CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM;
    return dj_cuda.cudnnGetConvolutionForwardWorkspaceSize(device->dnn, dnn->input, dnn->weight, dnn->convolution,
                                                           dnn->output, dnn->algo, &dnn->workspace_bytes);
}

static cudnnStatus_t find_backward(dj_cuda_device_t *device, const dj_cuda_dnn_shape_t *shape, dj_cuda_dnn_t *dnn)
{
    cudnnConvolutionBwdDataAlgoPerf_t advice[CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT];
    int found = 0, i = 0;
    cudnnStatus_t result = dj_cuda.cudnnGetConvolutionBackwardDataAlgorithm_v7(
        device->dnn, dnn->weight, dnn->input, dnn->convolution, dnn->output, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT,
        &found, advice);
    while (i < found && !is_fit(device, shape, (int)advice[i].algo, advice[i].status, advice[i].memory,
                                advice[i].mathType))
        i++;
    dnn->algo = result == CUDNN_STATUS_SUCCESS && i < found ? (int)advice[i].algo
                                                            : CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
    return dj_cuda.cudnnGetConvolutionBackwardDataWorkspaceSize(device->dnn, dnn->weight, dnn->input,
                                                                dnn->convolution, dnn->output, dnn->algo,
                                                                &dnn->workspace_bytes);
}

dj_status_t dj_cuda_dnn_prepare(dj_cuda_device_t *device, const dj_cuda_dnn_shape_t *shape, dj_cuda_dnn_t *dnn)
{
    *dnn = (dj_cuda_dnn_t){.transposed = shape->transposed, .wide = shape->dtype == DJ_F64};
    if (!dj_cuda_dnn_handle(device))
        return dj_fail(DJ_ERR_UNSUPPORTED, "no cuDNN here");
    cudnnStatus_t result = descriptors_make(device, shape, dnn);
    pthread_mutex_lock(&device->lock);
    if (result == CUDNN_STATUS_SUCCESS)
        result = shape->transposed ? find_backward(device, shape, dnn) : find_forward(device, shape, dnn);
    pthread_mutex_unlock(&device->lock);
    if (result == CUDNN_STATUS_SUCCESS && dnn->workspace_bytes <= WORKSPACE_BYTES)
        return DJ_OK;
    dj_cuda_dnn_destroy(dnn);
    return dj_fail(DJ_ERR_UNSUPPORTED, "cuDNN has no algorithm for a convolution: status %d", (int)result);
}

void dj_cuda_dnn_destroy(dj_cuda_dnn_t *dnn)
{
    if (dnn->convolution)
        dj_cuda.cudnnDestroyConvolutionDescriptor(dnn->convolution);
    if (dnn->weight)
        dj_cuda.cudnnDestroyFilterDescriptor(dnn->weight);
    if (dnn->output)
        dj_cuda.cudnnDestroyTensorDescriptor(dnn->output);
    if (dnn->input)
        dj_cuda.cudnnDestroyTensorDescriptor(dnn->input);
    *dnn = (dj_cuda_dnn_t){0};
}

static void *pointer(CUdeviceptr address)
{
    return (void *)(uintptr_t)address;
}

dj_status_t dj_cuda_dnn_run(const dj_cuda_dnn_t *dnn, dj_cuda_device_t *device, CUstream stream,
                            const dj_cuda_dnn_at_t *at)
{
    const float single[] = {1, 0};
    const double twofold[] = {1, 0};
    const void *one = dnn->wide ? (const void *)&twofold[0] : &single[0];
    const void *none = dnn->wide ? (const void *)&twofold[1] : &single[1];
    void *workspace = dnn->workspace_bytes ? pointer(at->workspace) : NULL;
    pthread_mutex_lock(&device->lock);
    cudnnStatus_t result = dj_cuda.cudnnSetStream(device->dnn, stream);
    if (result == CUDNN_STATUS_SUCCESS && dnn->transposed)
        result = dj_cuda.cudnnConvolutionBackwardData(device->dnn, one, dnn->weight, pointer(at->weight), dnn->input,
                                                      pointer(at->input), dnn->convolution, dnn->algo, workspace,
                                                      dnn->workspace_bytes, none, dnn->output, pointer(at->output));
    else if (result == CUDNN_STATUS_SUCCESS)
        result = dj_cuda.cudnnConvolutionForward(device->dnn, one, dnn->input, pointer(at->input), dnn->weight,
                                                 pointer(at->weight), dnn->convolution, dnn->algo, workspace,
                                                 dnn->workspace_bytes, none, dnn->output, pointer(at->output));
    pthread_mutex_unlock(&device->lock);
    return status_of(result, "a convolution");
}
