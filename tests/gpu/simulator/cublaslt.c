/* cublaslt.c - a libcublasLt.so.13 on the simulator: the calls of gpu/cuda/abi/cublaslt.h in naive C.
 *
 * It is strict where the real one would be, or would fail later: what fits together, alignments that were promised to
 * the heuristic, no bias for float64 (so that callers need a second way). Every product fills its workspace, so that
 * one that overlaps an operand shows. */
#include <cuda.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/abi/cublaslt.h"
#include "tests/gpu/simulator/simulator.h"

#define EXPORT __attribute__((visibility("default")))
#define WORKSPACE_BYTES 4096u

struct cublasLtContext {
    int alive;
};

struct cublasLtMatrixLayout {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t ld, batch_stride;
    int32_t batch;
};

struct cublasLtMatmulDesc {
    cublasComputeType_t compute;
    cudaDataType scale;
    int32_t turn_a, turn_b, pointer_mode;
    uint32_t epilogue;
    const void *bias;
};

struct cublasLtMatmulPreference {
    uint64_t workspace_bytes;
    uint32_t scheme, align[4];
};

/* What the heuristic writes into the 64 opaque bytes. */
typedef struct algo {
    uint32_t magic, align[3];
} algo_t;

/* One product, as the stream runs it. */
typedef struct product {
    struct cublasLtMatmulDesc desc;
    struct cublasLtMatrixLayout a, b, d;
    const void *at_a, *at_b, *at_c, *alpha, *beta;
    void *at_d, *workspace;
    double factors[2]; /* where they are the host's */
} product_t;

EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = calloc(1, sizeof(**handle));
    return *handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT size_t cublasLtGetVersion(void)
{
    return 130000;
}

EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                                                 uint64_t columns, int64_t ld)
{
    if (rows == 0 || columns == 0 || ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *layout = malloc(sizeof(**layout));
    if (!*layout)
        return CUBLAS_STATUS_ALLOC_FAILED;
    **layout =
        (struct cublasLtMatrixLayout){.type = type, .rows = rows, .columns = columns, .ld = ld, .batch = 1};
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    free(layout);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t take(void *to, size_t to_bytes, const void *value, size_t bytes)
{
    if (bytes != to_bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                       cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                       size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return take(&layout->batch, sizeof(layout->batch), value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return take(&layout->batch_stride, sizeof(layout->batch_stride), value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                               cudaDataType scale)
{
    *desc = malloc(sizeof(**desc));
    if (!*desc)
        return CUBLAS_STATUS_ALLOC_FAILED;
    **desc = (struct cublasLtMatmulDesc){
        .compute = compute, .scale = scale, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                                     cublasLtMatmulDescAttributes_t attribute, const void *value,
                                                     size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return take(&desc->pointer_mode, sizeof(desc->pointer_mode), value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&desc->turn_a, sizeof(desc->turn_a), value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&desc->turn_b, sizeof(desc->turn_b), value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&desc->epilogue, sizeof(desc->epilogue), value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&desc->bias, sizeof(desc->bias), value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = malloc(sizeof(**preference));
    if (!*preference)
        return CUBLAS_STATUS_ALLOC_FAILED;
    **preference = (struct cublasLtMatmulPreference){.scheme = CUBLASLT_REDUCTION_SCHEME_MASK,
                                                     .align = {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t attribute,
                                                           const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&preference->workspace_bytes, sizeof(preference->workspace_bytes), value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return take(&preference->scheme, sizeof(preference->scheme), value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&preference->align[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], sizeof(uint32_t),
                    value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

static bool fit(const struct cublasLtMatmulDesc *desc, const struct cublasLtMatrixLayout *a,
                const struct cublasLtMatrixLayout *b, const struct cublasLtMatrixLayout *d)
{
    uint64_t m = desc->turn_a ? a->columns : a->rows, k = desc->turn_a ? a->rows : a->columns;
    uint64_t n = desc->turn_b ? b->rows : b->columns, other = desc->turn_b ? b->columns : b->rows;
    bool wide = desc->compute == CUBLAS_COMPUTE_64F;
    return m == d->rows && n == d->columns && k == other && a->batch == d->batch && b->batch == d->batch &&
           a->type == b->type && a->type == d->type && wide == (a->type == CUDA_R_64F) &&
           desc->scale == (wide ? CUDA_R_64F : CUDA_R_32F);
}

EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t preference, int wanted,
                                                     cublasLtMatmulHeuristicResult_t *results, int *found)
{
    *found = 0;
    if (!handle || wanted < 1 || !fit(desc, a, b, d) || !fit(desc, a, b, c))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (desc->epilogue != CUBLASLT_EPILOGUE_DEFAULT &&
        (desc->scale == CUDA_R_64F || (uintptr_t)desc->bias % 16 != 0 || !desc->bias))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    algo_t algo = {0x616c676f, {preference->align[0], preference->align[1], preference->align[3]}};
    *results = (cublasLtMatmulHeuristicResult_t){.wavesCount = 1};
    memcpy(results->algo.data, &algo, sizeof(algo));
    results->workspaceSize =
        preference->workspace_bytes < WORKSPACE_BYTES ? (size_t)preference->workspace_bytes : WORKSPACE_BYTES;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static double get(cudaDataType type, const void *base, int64_t at)
{
    union {
        uint32_t bits;
        float real;
    } wide;
    switch (type) {
    case CUDA_R_16F:
        return (double)((const _Float16 *)base)[at];
    case CUDA_R_16BF:
        wide.bits = (uint32_t)((const uint16_t *)base)[at] << 16;
        return wide.real;
    case CUDA_R_64F:
        return ((const double *)base)[at];
    default:
        return ((const float *)base)[at];
    }
}

static void put(cudaDataType type, void *base, int64_t at, double value)
{
    union {
        float real;
        uint32_t bits;
    } wide = {.real = (float)value};
    switch (type) {
    case CUDA_R_16F:
        ((_Float16 *)base)[at] = (_Float16)(float)value;
        break;
    case CUDA_R_16BF:
        ((uint16_t *)base)[at] = (uint16_t)(value != value
                                                ? 0x7fc0u
                                                : (wide.bits + 0x7fffu + (wide.bits >> 16 & 1u)) >> 16);
        break;
    case CUDA_R_64F:
        ((double *)base)[at] = value;
        break;
    default:
        ((float *)base)[at] = (float)value;
    }
}

/* Rows that are summed side by side, so that no addition waits for the one before it. */
enum { ROWS = 8 };

static double dot(const product_t *p, int64_t at_a, int64_t step_a, int64_t at_b, int64_t step_b, int64_t k)
{
    double sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += get(p->a.type, p->at_a, at_a + i * step_a) * get(p->b.type, p->at_b, at_b + i * step_b);
    return sum;
}

/* Of `n` rows, at most ROWS, with a column. */
static void dots(const product_t *p, int64_t batch, int64_t row, int64_t n, int64_t column, double *sums)
{
    const struct cublasLtMatrixLayout *a = &p->a, *b = &p->b;
    int64_t k = (int64_t)(p->desc.turn_a ? a->rows : a->columns);
    int64_t row_step = p->desc.turn_a ? a->ld : 1, step_a = p->desc.turn_a ? 1 : a->ld;
    int64_t at_a = batch * a->batch_stride + row * row_step, step_b = p->desc.turn_b ? b->ld : 1;
    int64_t at_b = batch * b->batch_stride + (p->desc.turn_b ? column : column * b->ld);
    if (a->type != CUDA_R_32F) {
        for (int64_t r = 0; r < n; r++)
            sums[r] = dot(p, at_a + r * row_step, step_a, at_b, step_b, k);
        return;
    }
    const float *left = (const float *)p->at_a + at_a, *right = (const float *)p->at_b + at_b;
    float singles[ROWS] = {0};
    if (n < ROWS) {
        for (int64_t i = 0; i < k; i++)
            for (int64_t r = 0; r < n; r++)
                singles[r] += left[r * row_step + i * step_a] * right[i * step_b];
    } else {
        for (int64_t i = 0; i < k; i++)
            for (int64_t r = 0; r < ROWS; r++)
                singles[r] += left[r * row_step + i * step_a] * right[i * step_b];
    }
    for (int64_t r = 0; r < n; r++)
        sums[r] = singles[r];
}

static void run(void *argument)
{
    const product_t *p = argument;
    double sums[ROWS];
    bool wide = p->desc.scale == CUDA_R_64F;
    double alpha = get(wide ? CUDA_R_64F : CUDA_R_32F, p->alpha ? p->alpha : &p->factors[0], 0);
    double beta = get(wide ? CUDA_R_64F : CUDA_R_32F, p->beta ? p->beta : &p->factors[1], 0);
    memset(p->workspace, 0x5a, p->workspace ? WORKSPACE_BYTES : 0);
    for (int64_t batch = 0; batch < p->d.batch; batch++)
        for (int64_t j = 0; j < (int64_t)p->d.columns; j++)
            for (int64_t i = 0; i < (int64_t)p->d.rows; i++) {
                int64_t at = batch * p->d.batch_stride + i + j * p->d.ld, left = (int64_t)p->d.rows - i;
                if (i % ROWS == 0)
                    dots(p, batch, i, left < ROWS ? left : ROWS, j, sums);
                double value = alpha * sums[i % ROWS];
                if (beta != 0)
                    value += beta * get(p->d.type, p->at_c, at);
                if (p->desc.epilogue == CUBLASLT_EPILOGUE_BIAS)
                    value += get(p->d.type, p->desc.bias, i);
                put(p->d.type, p->at_d, at, value);
            }
}

static bool aligned(const void *address, uint32_t bytes)
{
    return bytes && (uintptr_t)address % bytes == 0;
}

EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                                     const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                                     cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                                     cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                                     const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                                     struct CUstream_st *stream)
{
    algo_t chosen;
    memcpy(&chosen, algo->data, sizeof(chosen));
    product_t p = {.desc = *desc, .a = *a_layout, .b = *b_layout, .d = *d_layout, .at_a = a, .at_b = b, .at_c = c};
    if (!handle || chosen.magic != 0x616c676f || !fit(desc, a_layout, b_layout, d_layout) ||
        !fit(desc, a_layout, b_layout, c_layout) || !a || !b || !d || !alpha || !beta)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!aligned(a, chosen.align[0]) || !aligned(b, chosen.align[1]) || !aligned(d, chosen.align[2]) ||
        (desc->epilogue == CUBLASLT_EPILOGUE_BIAS && !aligned(desc->bias, 16)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (workspace_bytes && (!aligned(workspace, 16) || workspace_bytes < WORKSPACE_BYTES))
        return CUBLAS_STATUS_INVALID_VALUE;
    p.at_d = d;
    p.workspace = workspace_bytes ? workspace : NULL;
    if (desc->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE) {
        p.alpha = alpha;
        p.beta = beta;
    } else {
        size_t bytes = desc->scale == CUDA_R_64F ? sizeof(double) : sizeof(float);
        memcpy(&p.factors[0], alpha, bytes);
        memcpy(&p.factors[1], beta, bytes);
    }
    return sim_enqueue(stream, run, &p, sizeof(p)) == CUDA_SUCCESS ? CUBLAS_STATUS_SUCCESS : 13;
}
