/* blas.c - matrix products by cuBLASLt (blas.h). */
#include "gpu/cuda/blas.h"

#include "runtime/base/log.h"

#define DJ_LOG_MODULE "cuda"
/* What NVIDIA advises for the library's workspace. */
#define WORKSPACE_BYTES(major) ((uint64_t)((major) >= 9 ? 32 : 8) << 20)
/* The library looks at a bias's address for its alignment even where it only advises. */
#define BIAS_ADDRESS ((const void *)DJ_ALIGN_BYTES)

static dj_status_t status_of(cublasStatus_t result, const char *what)
{
    if (result == CUBLAS_STATUS_SUCCESS)
        return DJ_OK;
    dj_status_t status = DJ_ERR_SYSTEM;
    if (result == CUBLAS_STATUS_ALLOC_FAILED)
        status = DJ_ERR_MEMORY;
    if (result == CUBLAS_STATUS_NOT_SUPPORTED || result == CUBLAS_STATUS_INVALID_VALUE ||
        result == CUBLAS_STATUS_ARCH_MISMATCH)
        status = DJ_ERR_UNSUPPORTED;
    return dj_fail(status, "cuBLASLt: %s: status %d", what, (int)result);
}

cublasLtHandle_t dj_cuda_blas_handle(dj_cuda_device_t *device)
{
    static atomic_bool warned;
    pthread_mutex_lock(&device->lock);
    cublasStatus_t result = CUBLAS_STATUS_SUCCESS;
    if (!device->blas && dj_cuda.has.blas)
        result = dj_cuda.cublasLtCreate(&device->blas);
    if (result != CUBLAS_STATUS_SUCCESS)
        device->blas = NULL;
    cublasLtHandle_t handle = device->blas;
    pthread_mutex_unlock(&device->lock);
    if (!handle && !atomic_exchange(&warned, true)) {
        if (dj_cuda.has.blas)
            dj_log(WARN, "cuBLASLt does not start, status %d: matrix products run on plain kernels, many times slower",
                   (int)result);
        else
            dj_log(WARN, "no libcublasLt: matrix products run on plain kernels, many times slower; install the CUDA "
                         "toolkit's libcublas, or the Python package nvidia-cublas, where the loader finds it");
    }
    return handle;
}

static cudaDataType type_of(uint8_t dtype)
{
    switch (dtype) {
    case DJ_F16:
        return CUDA_R_16F;
    case DJ_BF16:
        return CUDA_R_16BF;
    case DJ_F64:
        return CUDA_R_64F;
    default:
        return CUDA_R_32F;
    }
}

static cublasStatus_t layout_make(cublasLtMatrixLayout_t *layout_p, const dj_cuda_blas_shape_t *shape,
                                  const dj_cuda_blas_matrix_t *m, int64_t rows, int64_t columns)
{
    uint64_t lines = (uint64_t)(m->turned ? columns : rows), length = (uint64_t)(m->turned ? rows : columns);
    int32_t batch = (int32_t)shape->batch;
    cublasStatus_t result = dj_cuda.cublasLtMatrixLayoutCreate(layout_p, type_of(shape->dtype), length, lines, m->line);
    if (result != CUBLAS_STATUS_SUCCESS || batch == 1)
        return result;
    result = dj_cuda.cublasLtMatrixLayoutSetAttribute(*layout_p, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch,
                                                      sizeof(batch));
    if (result != CUBLAS_STATUS_SUCCESS)
        return result;
    return dj_cuda.cublasLtMatrixLayoutSetAttribute(*layout_p, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                    &m->batch_stride, sizeof(m->batch_stride));
}

static cublasStatus_t desc_set(dj_cuda_blas_t *blas, cublasLtMatmulDescAttributes_t attribute, int32_t value)
{
    return dj_cuda.cublasLtMatmulDescSetAttribute(blas->desc, attribute, &value, sizeof(value));
}

static cublasStatus_t desc_make(const dj_cuda_device_t *device, const dj_cuda_blas_shape_t *shape,
                                dj_cuda_blas_t *blas)
{
    bool wide = shape->dtype == DJ_F64;
    cublasComputeType_t compute = wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
    if (shape->dtype == DJ_F32 && device->fast)
        compute = CUBLAS_COMPUTE_32F_FAST_TF32;
    const void *address = BIAS_ADDRESS;
    cublasStatus_t result = dj_cuda.cublasLtMatmulDescCreate(&blas->desc, compute, wide ? CUDA_R_64F : CUDA_R_32F);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = desc_set(blas, CUBLASLT_MATMUL_DESC_TRANSA, shape->b.turned ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = desc_set(blas, CUBLASLT_MATMUL_DESC_TRANSB, shape->a.turned ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (result == CUBLAS_STATUS_SUCCESS && shape->factors)
        result = desc_set(blas, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
    if (result == CUBLAS_STATUS_SUCCESS && shape->bias)
        result = desc_set(blas, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    if (result == CUBLAS_STATUS_SUCCESS && shape->bias)
        result = dj_cuda.cublasLtMatmulDescSetAttribute(blas->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &address,
                                                        sizeof(address));
    return result;
}

/* Partial sums of halves are kept in float32, unless asked to be fast. */
static cublasStatus_t preference_make(const dj_cuda_device_t *device, const dj_cuda_blas_shape_t *shape,
                                      cublasLtMatmulPreference_t *preference_p)
{
    bool halves = shape->dtype == DJ_F16 || shape->dtype == DJ_BF16;
    uint64_t workspace = WORKSPACE_BYTES(device->major);
    uint32_t scheme = halves && !device->fast ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_MASK;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } settings[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)},
                    {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme, sizeof(scheme)},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &shape->b.align_bytes, sizeof(uint32_t)},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &shape->a.align_bytes, sizeof(uint32_t)},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &shape->c.align_bytes, sizeof(uint32_t)},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &shape->c.align_bytes, sizeof(uint32_t)}};
    cublasStatus_t result = dj_cuda.cublasLtMatmulPreferenceCreate(preference_p);
    for (uint32_t i = 0; i < sizeof(settings) / sizeof(*settings) && result == CUBLAS_STATUS_SUCCESS; i++)
        result = dj_cuda.cublasLtMatmulPreferenceSetAttribute(*preference_p, settings[i].attribute, settings[i].value,
                                                              settings[i].bytes);
    return result;
}

static cublasStatus_t algo_find(dj_cuda_device_t *device, const dj_cuda_blas_shape_t *shape, dj_cuda_blas_t *blas)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t best = {.state = CUBLAS_STATUS_NOT_SUPPORTED};
    int found = 0;
    cublasStatus_t result = preference_make(device, shape, &preference);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = dj_cuda.cublasLtMatmulAlgoGetHeuristic(device->blas, blas->desc, blas->left, blas->right,
                                                        blas->result, blas->result, preference, 1, &best, &found);
    if (preference)
        dj_cuda.cublasLtMatmulPreferenceDestroy(preference);
    if (result != CUBLAS_STATUS_SUCCESS)
        return result;
    if (found < 1 || best.workspaceSize > WORKSPACE_BYTES(device->major))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    blas->algo = best.algo;
    blas->workspace_bytes = best.workspaceSize;
    return best.state;
}

dj_status_t dj_cuda_blas_prepare(dj_cuda_device_t *device, const dj_cuda_blas_shape_t *shape, dj_cuda_blas_t *blas)
{
    *blas = (dj_cuda_blas_t){.bias = shape->bias, .factors = shape->factors};
    if (!dj_cuda_blas_handle(device))
        return dj_fail(DJ_ERR_UNSUPPORTED, "no cuBLASLt here");
    blas->scale_bytes = shape->dtype == DJ_F64 ? sizeof(double) : sizeof(float);
    if (shape->dtype == DJ_F64)
        blas->host_factors[0] = 1, blas->host_factors[1] = shape->adds;
    else
        memcpy(blas->host_factors, (float[2]){1, shape->adds}, 2 * sizeof(float));
    cublasStatus_t result = desc_make(device, shape, blas);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = layout_make(&blas->left, shape, &shape->b, shape->k, shape->n);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = layout_make(&blas->right, shape, &shape->a, shape->m, shape->k);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = layout_make(&blas->result, shape, &shape->c, shape->m, shape->n);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = algo_find(device, shape, blas);
    if (result != CUBLAS_STATUS_SUCCESS)
        dj_cuda_blas_destroy(blas);
    return status_of(result, "no algorithm for a product");
}

void dj_cuda_blas_destroy(dj_cuda_blas_t *blas)
{
    if (blas->desc)
        dj_cuda.cublasLtMatmulDescDestroy(blas->desc);
    cublasLtMatrixLayout_t layouts[] = {blas->left, blas->right, blas->result};
    for (uint32_t i = 0; i < 3; i++)
        if (layouts[i])
            dj_cuda.cublasLtMatrixLayoutDestroy(layouts[i]);
    *blas = (dj_cuda_blas_t){0};
}

static void *pointer(CUdeviceptr address)
{
    return (void *)(uintptr_t)address;
}

dj_status_t dj_cuda_blas_run(const dj_cuda_blas_t *blas, dj_cuda_device_t *device, CUstream stream,
                             const dj_cuda_blas_at_t *at)
{
    const char *factors = blas->factors ? pointer(at->factors) : (const void *)blas->host_factors;
    void *bias = pointer(at->bias);
    cublasStatus_t result = CUBLAS_STATUS_SUCCESS;
    if (blas->bias)
        result = dj_cuda.cublasLtMatmulDescSetAttribute(blas->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                        sizeof(bias));
    if (result == CUBLAS_STATUS_SUCCESS)
        result = dj_cuda.cublasLtMatmul(device->blas, blas->desc, factors, pointer(at->b), blas->left, pointer(at->a),
                                        blas->right, factors + blas->scale_bytes, pointer(at->c), blas->result,
                                        pointer(at->c), blas->result, &blas->algo, pointer(at->workspace),
                                        blas->workspace_bytes, stream);
    return status_of(result, "a product");
}
