/* cudnn.c - a libcudnn.so.9 on the simulator: the calls of gpu/cuda/abi/cudnn.h in naive C.
 *
 * Its advice begins with what exact numbers must not take (Winograd, TF32 by its math type, atomics) and with what
 * needs too much memory, so that a caller who takes the first shows. A convolution fills its workspace. */
#include <cuda.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/abi/cudnn.h"
#include "tests/gpu/simulator/simulator.h"

#define EXPORT __attribute__((visibility("default")))
#define RANK_MAX 5
#define WORKSPACE_BYTES 2048u
enum { BAD_PARAM = 2000, ALLOC_FAILED = 1003, NOT_SUPPORTED = 3000, EXECUTION_FAILED = 5000 };

struct cudnnContext {
    struct CUstream_st *stream;
};

struct cudnnTensorStruct {
    cudnnDataType_t type;
    int rank, sizes[RANK_MAX], strides[RANK_MAX];
};

struct cudnnFilterStruct {
    cudnnDataType_t type;
    int rank, sizes[RANK_MAX];
};

struct cudnnConvolutionStruct {
    int spatial, padding[3], stride[3], dilation[3], groups;
    cudnnDataType_t compute;
    cudnnMathType_t math;
};

/* One convolution with three spatial dimensions, as the stream runs it. */
typedef struct work {
    struct cudnnTensorStruct x, y;
    struct cudnnFilterStruct w;
    struct cudnnConvolutionStruct c;
    const void *at_x, *at_w;
    void *at_y, *workspace;
    bool transposed;
} work_t;

EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    *handle = calloc(1, sizeof(**handle));
    return *handle ? CUDNN_STATUS_SUCCESS : ALLOC_FAILED;
}

EXPORT cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}

EXPORT size_t cudnnGetVersion(void)
{
    return 90000;
}

EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, struct CUstream_st *stream)
{
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

#define MAKE_AND_FREE(Name, type)                                                                  \
    EXPORT cudnnStatus_t cudnnCreate##Name(type *p)                                                \
    {                                                                                              \
        *p = calloc(1, sizeof(**p));                                                               \
        return *p ? CUDNN_STATUS_SUCCESS : ALLOC_FAILED;                                           \
    }                                                                                              \
    EXPORT cudnnStatus_t cudnnDestroy##Name(type p)                                                \
    {                                                                                              \
        free(p);                                                                                   \
        return CUDNN_STATUS_SUCCESS;                                                               \
    }
MAKE_AND_FREE(TensorDescriptor, cudnnTensorDescriptor_t)
MAKE_AND_FREE(FilterDescriptor, cudnnFilterDescriptor_t)
MAKE_AND_FREE(ConvolutionDescriptor, cudnnConvolutionDescriptor_t)

static bool take_sizes(int *to, const int *from, int rank, int least)
{
    for (int i = 0; i < rank; i++) {
        to[i] = from[i];
        if (from[i] < least)
            return false;
    }
    return true;
}

EXPORT cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t tensor, cudnnDataType_t type, int rank,
                                                const int *sizes, const int *strides)
{
    if (rank < 4 || rank > RANK_MAX || !take_sizes(tensor->sizes, sizes, rank, 1) ||
        !take_sizes(tensor->strides, strides, rank, 1))
        return BAD_PARAM;
    tensor->type = type;
    tensor->rank = rank;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t filter, cudnnDataType_t type,
                                                cudnnTensorFormat_t format, int rank, const int *sizes)
{
    if (rank < 4 || rank > RANK_MAX || format != CUDNN_TENSOR_NCHW || !take_sizes(filter->sizes, sizes, rank, 1))
        return BAD_PARAM;
    filter->type = type;
    filter->rank = rank;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnSetConvolutionNdDescriptor(cudnnConvolutionDescriptor_t convolution, int spatial,
                                                     const int *padding, const int *stride, const int *dilation,
                                                     cudnnConvolutionMode_t mode, cudnnDataType_t compute)
{
    if (spatial < 2 || spatial > 3 || mode != CUDNN_CROSS_CORRELATION ||
        !take_sizes(convolution->padding, padding, spatial, 0) ||
        !take_sizes(convolution->stride, stride, spatial, 1) ||
        !take_sizes(convolution->dilation, dilation, spatial, 1))
        return BAD_PARAM;
    convolution->spatial = spatial;
    convolution->compute = compute;
    convolution->groups = 1;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t convolution, int groups)
{
    convolution->groups = groups;
    return groups > 0 ? CUDNN_STATUS_SUCCESS : BAD_PARAM;
}

EXPORT cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t convolution, cudnnMathType_t math)
{
    convolution->math = math;
    return CUDNN_STATUS_SUCCESS;
}

/* Of a convolution from x to y. */
static bool fit(const struct cudnnTensorStruct *x, const struct cudnnFilterStruct *w,
                const struct cudnnConvolutionStruct *c, const struct cudnnTensorStruct *y)
{
    bool same = x->rank == y->rank && x->rank == w->rank && x->rank == c->spatial + 2 && x->type == y->type &&
                x->type == w->type && c->compute == (x->type == CUDNN_DATA_DOUBLE ? CUDNN_DATA_DOUBLE
                                                                                  : CUDNN_DATA_FLOAT);
    if (!same || x->sizes[0] != y->sizes[0] || y->sizes[1] != w->sizes[0] ||
        x->sizes[1] != w->sizes[1] * c->groups || w->sizes[0] % c->groups)
        return false;
    for (int d = 0; d < c->spatial; d++) {
        int free = x->sizes[d + 2] + 2 * c->padding[d] - (c->dilation[d] * (w->sizes[d + 2] - 1) + 1);
        if (free < 0 || y->sizes[d + 2] != free / c->stride[d] + 1)
            return false;
    }
    return true;
}

EXPORT cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                            const cudnnFilterDescriptor_t w,
                                                            const cudnnConvolutionDescriptor_t convolution,
                                                            const cudnnTensorDescriptor_t y, const int wanted,
                                                            int *found, cudnnConvolutionFwdAlgoPerf_t *results)
{
    const cudnnConvolutionFwdAlgoPerf_t advice[] = {
        {.algo = 6, .memory = WORKSPACE_BYTES, .mathType = convolution->math},
        {.algo = CUDNN_CONVOLUTION_FWD_ALGO_GEMM, .memory = (size_t)1 << 40, .mathType = convolution->math},
        {.algo = CUDNN_CONVOLUTION_FWD_ALGO_GEMM, .memory = 1, .mathType = CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION,
         .status = x->type == CUDNN_DATA_FLOAT ? CUDNN_STATUS_SUCCESS : NOT_SUPPORTED},
        {.algo = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, .memory = WORKSPACE_BYTES,
         .mathType = convolution->math}};
    *found = 0;
    if (!handle || !fit(x, w, convolution, y))
        return BAD_PARAM;
    while (*found < wanted && *found < (int)(sizeof(advice) / sizeof(*advice))) {
        results[*found] = advice[*found];
        ++*found;
    }
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                             const cudnnFilterDescriptor_t w,
                                                             const cudnnConvolutionDescriptor_t convolution,
                                                             const cudnnTensorDescriptor_t y,
                                                             cudnnConvolutionFwdAlgo_t algo, size_t *bytes)
{
    *bytes = algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM ? WORKSPACE_BYTES : 0;
    return handle && fit(x, w, convolution, y) ? CUDNN_STATUS_SUCCESS : BAD_PARAM;
}

EXPORT cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(
    cudnnHandle_t handle, const cudnnFilterDescriptor_t w, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t convolution, const cudnnTensorDescriptor_t dx, const int wanted, int *found,
    cudnnConvolutionBwdDataAlgoPerf_t *results)
{
    if (!handle || !fit(dx, w, convolution, dy) || wanted < 2)
        return BAD_PARAM;
    results[0] = (cudnnConvolutionBwdDataAlgoPerf_t){.algo = CUDNN_CONVOLUTION_BWD_DATA_ALGO_0};
    results[1] = (cudnnConvolutionBwdDataAlgoPerf_t){.algo = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
                                                     .memory = WORKSPACE_BYTES,
                                                     .mathType = convolution->math};
    *found = 2;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(
    cudnnHandle_t handle, const cudnnFilterDescriptor_t w, const cudnnTensorDescriptor_t dy,
    const cudnnConvolutionDescriptor_t convolution, const cudnnTensorDescriptor_t dx,
    cudnnConvolutionBwdDataAlgo_t algo, size_t *bytes)
{
    *bytes = algo == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1 ? WORKSPACE_BYTES : 0;
    return handle && fit(dx, w, convolution, dy) ? CUDNN_STATUS_SUCCESS : BAD_PARAM;
}

/* ---- arithmetic ---- */

static double get(cudnnDataType_t type, const void *base, int64_t at)
{
    union {
        uint32_t bits;
        float real;
    } wide;
    switch (type) {
    case CUDNN_DATA_HALF:
        return (double)((const _Float16 *)base)[at];
    case CUDNN_DATA_BFLOAT16:
        wide.bits = (uint32_t)((const uint16_t *)base)[at] << 16;
        return wide.real;
    case CUDNN_DATA_DOUBLE:
        return ((const double *)base)[at];
    default:
        return ((const float *)base)[at];
    }
}

static void put(cudnnDataType_t type, void *base, int64_t at, double value)
{
    union {
        float real;
        uint32_t bits;
    } wide = {.real = (float)value};
    switch (type) {
    case CUDNN_DATA_HALF:
        ((_Float16 *)base)[at] = (_Float16)(float)value;
        break;
    case CUDNN_DATA_BFLOAT16:
        ((uint16_t *)base)[at] = (uint16_t)(value != value
                                                ? 0x7fc0u
                                                : (wide.bits + 0x7fffu + (wide.bits >> 16 & 1u)) >> 16);
        break;
    case CUDNN_DATA_DOUBLE:
        ((double *)base)[at] = value;
        break;
    default:
        ((float *)base)[at] = (float)value;
    }
}

/* Two spatial dimensions become three. */
static void widen(int *numbers, int from, int rank, int added)
{
    for (int i = rank; i > from; i--)
        numbers[i] = numbers[i - 1];
    numbers[from] = added;
}

static void widen_all(work_t *k)
{
    if (k->c.spatial == 3)
        return;
    widen(k->x.sizes, 2, 4, 1);
    widen(k->x.strides, 2, 4, 1);
    widen(k->y.sizes, 2, 4, 1);
    widen(k->y.strides, 2, 4, 1);
    widen(k->w.sizes, 2, 4, 1);
    widen(k->c.padding, 0, 2, 0);
    widen(k->c.stride, 0, 2, 1);
    widen(k->c.dilation, 0, 2, 1);
}

static int64_t offset_of(const struct cudnnTensorStruct *t, int n, int c, const int *at)
{
    return (int64_t)n * t->strides[0] + (int64_t)c * t->strides[1] + (int64_t)at[0] * t->strides[2] +
           (int64_t)at[1] * t->strides[3] + (int64_t)at[2] * t->strides[4];
}

/* y[to] += sum over one channel and the kernel, or where transposed x[...] += y[to] * w. `sums` is y's, or x's. */
static void slide(const work_t *k, double *sums, int n, int out, int in, const int *to)
{
    const struct cudnnConvolutionStruct *c = &k->c;
    const int *size = &k->w.sizes[2];
    int channel = out / (k->w.sizes[0] / c->groups) * k->w.sizes[1] + in;
    for (int i = 0; i < size[0] * size[1] * size[2]; i++) {
        int at[3] = {i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]};
        bool inside = true;
        for (int d = 0; d < 3; d++) {
            at[d] = to[d] * c->stride[d] - c->padding[d] + at[d] * c->dilation[d];
            inside &= at[d] >= 0 && at[d] < k->x.sizes[d + 2];
        }
        if (!inside)
            continue;
        double w = get(k->w.type, k->at_w,
                       ((int64_t)out * k->w.sizes[1] + in) * size[0] * size[1] * size[2] + i);
        int64_t x = offset_of(&k->x, n, channel, at), y = offset_of(&k->y, n, out, to);
        if (k->transposed)
            sums[x] += w * get(k->y.type, k->at_y, y);
        else
            sums[y] += w * get(k->x.type, k->at_x, x);
    }
}

static void run(void *argument)
{
    work_t *k = argument;
    const struct cudnnTensorStruct *to = k->transposed ? &k->x : &k->y;
    int64_t count = 1;
    for (int d = 0; d < 5; d++)
        count *= to->sizes[d];
    double *sums = calloc((size_t)count, sizeof(*sums));
    if (!sums)
        abort();
    memset(k->workspace, 0x5a, k->workspace ? WORKSPACE_BYTES : 0);
    const int *size = &k->y.sizes[2];
    for (int n = 0; n < k->y.sizes[0]; n++)
        for (int out = 0; out < k->y.sizes[1]; out++)
            for (int i = 0; i < size[0] * size[1] * size[2]; i++)
                for (int in = 0; in < k->w.sizes[1]; in++) {
                    const int at[3] = {i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]};
                    slide(k, sums, n, out, in, at);
                }
    for (int64_t i = 0; i < count; i++)
        put(to->type, k->transposed ? (void *)(uintptr_t)k->at_x : k->at_y, i, sums[i]);
    free(sums);
}

static bool is_dense(const struct cudnnTensorStruct *t)
{
    int step = 1;
    for (int d = t->rank - 1; d >= 0; step *= t->sizes[d--])
        if (t->strides[d] != step)
            return false;
    return true;
}

static cudnnStatus_t enqueue(cudnnHandle_t handle, work_t *k, size_t workspace_bytes, const void *alpha,
                             const void *beta)
{
    bool wide = k->x.type == CUDNN_DATA_DOUBLE;
    if (!handle || !fit(&k->x, &k->w, &k->c, &k->y) || !is_dense(&k->x) || !is_dense(&k->y) || !k->at_x || !k->at_w ||
        !k->at_y || (workspace_bytes && (workspace_bytes < WORKSPACE_BYTES || !k->workspace)))
        return BAD_PARAM;
    if (get(wide ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT, alpha, 0) != 1 ||
        get(wide ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT, beta, 0) != 0)
        return NOT_SUPPORTED;
    if (!workspace_bytes)
        k->workspace = NULL;
    widen_all(k);
    return sim_enqueue(handle->stream, run, k, sizeof(*k)) == CUDA_SUCCESS ? CUDNN_STATUS_SUCCESS : EXECUTION_FAILED;
}

EXPORT cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void *alpha,
                                             const cudnnTensorDescriptor_t x_desc, const void *x,
                                             const cudnnFilterDescriptor_t w_desc, const void *w,
                                             const cudnnConvolutionDescriptor_t convolution,
                                             cudnnConvolutionFwdAlgo_t algo, void *workspace, size_t workspace_bytes,
                                             const void *beta, const cudnnTensorDescriptor_t y_desc, void *y)
{
    work_t k = {.x = *x_desc, .y = *y_desc, .w = *w_desc, .c = *convolution, .at_x = x, .at_w = w, .at_y = y,
                .workspace = workspace};
    if (algo != CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM)
        return NOT_SUPPORTED;
    return enqueue(handle, &k, workspace_bytes, alpha, beta);
}

EXPORT cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void *alpha,
                                                  const cudnnFilterDescriptor_t w_desc, const void *w,
                                                  const cudnnTensorDescriptor_t dy_desc, const void *dy,
                                                  const cudnnConvolutionDescriptor_t convolution,
                                                  cudnnConvolutionBwdDataAlgo_t algo, void *workspace,
                                                  size_t workspace_bytes, const void *beta,
                                                  const cudnnTensorDescriptor_t dx_desc, void *dx)
{
    work_t k = {.x = *dx_desc, .y = *dy_desc, .w = *w_desc, .c = *convolution, .at_x = dx, .at_w = w,
                .at_y = (void *)(uintptr_t)dy, .workspace = workspace, .transposed = true};
    if (algo != CUDNN_CONVOLUTION_BWD_DATA_ALGO_1)
        return NOT_SUPPORTED;
    return enqueue(handle, &k, workspace_bytes, alpha, beta);
}
