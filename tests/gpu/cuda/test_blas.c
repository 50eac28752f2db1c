/* test_blas.c - what is told to cuBLASLt: descriptors, preferences and addresses, against a table of fakes that write
 * down what they are given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/cuda/blas.h"

struct cublasLtMatrixLayout {
    int type;
    uint64_t rows, columns;
    int64_t ld, batch_stride;
    int32_t batch;
    bool live;
};

struct cublasLtMatmulDesc {
    int compute, scale;
    int32_t turn_a, turn_b, pointer_mode;
    uint32_t epilogue;
    const void *bias;
    bool live;
};

struct cublasLtMatmulPreference {
    uint64_t workspace;
    uint32_t scheme, align[4];
    bool live;
};

static struct fake {
    struct cublasLtMatrixLayout layouts[4];
    struct cublasLtMatmulDesc desc;
    struct cublasLtMatmulPreference preference;
    const struct cublasLtMatrixLayout *a, *b, *d; /* as the heuristic was given them */
    int n_layouts;
    cublasStatus_t advice, state;
    int found;
    size_t workspace;
    struct {
        float alpha, beta;
        const void *factors, *a, *b, *c, *d, *bias;
        void *workspace;
        size_t workspace_bytes;
        CUstream stream;
    } call;
} fake;

static cublasStatus_t create(cublasLtHandle_t *handle)
{
    *handle = (cublasLtHandle_t)&fake;
    return 0;
}

static cublasStatus_t layout_create(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows, uint64_t columns,
                                    int64_t ld)
{
    *layout = &fake.layouts[fake.n_layouts++];
    **layout = (struct cublasLtMatrixLayout){type, rows, columns, ld, 0, 1, true};
    return 0;
}

static cublasStatus_t layout_destroy(cublasLtMatrixLayout_t layout)
{
    assert_true(layout->live);
    layout->live = false;
    return 0;
}

static cublasStatus_t layout_set(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
                                 const void *value, size_t bytes)
{
    if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT)
        memcpy(&layout->batch, value, bytes);
    else if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET)
        memcpy(&layout->batch_stride, value, bytes);
    else
        fail();
    return 0;
}

static cublasStatus_t desc_create(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType scale)
{
    *desc = &fake.desc;
    fake.desc = (struct cublasLtMatmulDesc){
        .compute = compute, .scale = scale, .epilogue = CUBLASLT_EPILOGUE_DEFAULT, .live = true};
    return 0;
}

static cublasStatus_t desc_destroy(cublasLtMatmulDesc_t desc)
{
    assert_true(desc->live);
    desc->live = false;
    return 0;
}

static cublasStatus_t desc_set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value,
                               size_t bytes)
{
    void *to = attribute == CUBLASLT_MATMUL_DESC_TRANSA         ? (void *)&desc->turn_a
               : attribute == CUBLASLT_MATMUL_DESC_TRANSB       ? (void *)&desc->turn_b
               : attribute == CUBLASLT_MATMUL_DESC_POINTER_MODE ? (void *)&desc->pointer_mode
               : attribute == CUBLASLT_MATMUL_DESC_EPILOGUE     ? (void *)&desc->epilogue
               : attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? (void *)&desc->bias
                                                                : NULL;
    assert_non_null(to);
    assert_int_equal(bytes, attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof(void *) : sizeof(int32_t));
    memcpy(to, value, bytes);
    return 0;
}

static cublasStatus_t preference_create(cublasLtMatmulPreference_t *preference)
{
    *preference = &fake.preference;
    fake.preference = (struct cublasLtMatmulPreference){.live = true};
    return 0;
}

static cublasStatus_t preference_destroy(cublasLtMatmulPreference_t preference)
{
    assert_true(preference->live);
    preference->live = false;
    return 0;
}

static cublasStatus_t preference_set(cublasLtMatmulPreference_t preference,
                                     cublasLtMatmulPreferenceAttributes_t attribute, const void *value, size_t bytes)
{
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        memcpy(&preference->workspace, value, bytes);
    else if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        memcpy(&preference->scheme, value, bytes);
    else
        memcpy(&preference->align[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    return 0;
}

static cublasStatus_t heuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                cublasLtMatmulPreference_t preference, int wanted,
                                cublasLtMatmulHeuristicResult_t *results, int *found)
{
    assert_ptr_equal(handle, &fake);
    assert_ptr_equal(c, d);
    fake.a = a;
    fake.b = b;
    fake.d = d;
    *results = (cublasLtMatmulHeuristicResult_t){.workspaceSize = fake.workspace, .state = fake.state};
    results->algo.data[3] = 77;
    *found = fake.found;
    return fake.advice;
}

static cublasStatus_t matmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                             cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                             const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                             cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo, void *workspace,
                             size_t workspace_bytes, struct CUstream_st *stream)
{
    assert_int_equal(algo->data[3], 77);
    if (desc->pointer_mode == CUBLASLT_POINTER_MODE_HOST) {
        fake.call.alpha = *(const float *)alpha;
        fake.call.beta = *(const float *)beta;
    }
    fake.call.factors = alpha;
    fake.call.a = a;
    fake.call.b = b;
    fake.call.c = c;
    fake.call.d = d;
    fake.call.bias = desc->bias;
    fake.call.workspace = workspace;
    fake.call.workspace_bytes = workspace_bytes;
    fake.call.stream = stream;
    return 0;
}

static dj_cuda_device_t device;

static int set_up(void **state)
{
    dj_cuda.has.blas = true;
    dj_cuda.cublasLtCreate = create;
    dj_cuda.cublasLtMatrixLayoutCreate = layout_create;
    dj_cuda.cublasLtMatrixLayoutDestroy = layout_destroy;
    dj_cuda.cublasLtMatrixLayoutSetAttribute = layout_set;
    dj_cuda.cublasLtMatmulDescCreate = desc_create;
    dj_cuda.cublasLtMatmulDescDestroy = desc_destroy;
    dj_cuda.cublasLtMatmulDescSetAttribute = desc_set;
    dj_cuda.cublasLtMatmulPreferenceCreate = preference_create;
    dj_cuda.cublasLtMatmulPreferenceDestroy = preference_destroy;
    dj_cuda.cublasLtMatmulPreferenceSetAttribute = preference_set;
    dj_cuda.cublasLtMatmulAlgoGetHeuristic = heuristic;
    dj_cuda.cublasLtMatmul = matmul;
    memset(&fake, 0, sizeof(fake));
    fake.found = 1;
    fake.workspace = 4096;
    device = (dj_cuda_device_t){.major = 9};
    pthread_mutex_init(&device.lock, NULL);
    return 0;
}

/* C[5][7] = A[5][3] B[3][7] */
static dj_cuda_blas_shape_t plain(void)
{
    return (dj_cuda_blas_shape_t){.dtype = DJ_F32,
                                  .batch = 1,
                                  .m = 5,
                                  .n = 7,
                                  .k = 3,
                                  .a = {.line = 3, .align_bytes = 16},
                                  .b = {.line = 7, .align_bytes = 256},
                                  .c = {.line = 9, .align_bytes = 4}};
}

static void check_layout(const struct cublasLtMatrixLayout *layout, uint64_t rows, uint64_t columns, int64_t ld)
{
    assert_int_equal(layout->rows, rows);
    assert_int_equal(layout->columns, columns);
    assert_int_equal(layout->ld, ld);
}

static void nothing_is_left(void)
{
    assert_false(fake.desc.live);
    assert_false(fake.preference.live);
    for (int i = 0; i < fake.n_layouts; i++)
        assert_false(fake.layouts[i].live);
}

static void rows_become_columns(void **state)
{
    dj_cuda_blas_t blas;
    dj_cuda_blas_shape_t shape = plain();
    assert_int_equal(dj_cuda_blas_prepare(&device, &shape, &blas), DJ_OK);
    check_layout(fake.a, 7, 3, 7); /* the library's A is our B */
    check_layout(fake.b, 3, 5, 3);
    check_layout(fake.d, 7, 5, 9);
    assert_int_equal(fake.a->type, CUDA_R_32F);
    assert_int_equal(fake.desc.turn_a, CUBLAS_OP_N);
    assert_int_equal(fake.desc.turn_b, CUBLAS_OP_N);
    assert_int_equal(fake.desc.compute, CUBLAS_COMPUTE_32F);
    assert_int_equal(fake.desc.scale, CUDA_R_32F);
    assert_int_equal(fake.desc.epilogue, CUBLASLT_EPILOGUE_DEFAULT);
    const uint32_t align[] = {256, 16, 4, 4};
    assert_memory_equal(fake.preference.align, align, sizeof(align));
    assert_int_equal(fake.preference.workspace, 32 << 20);
    assert_int_equal(blas.workspace_bytes, 4096);
    dj_cuda_blas_destroy(&blas);
    nothing_is_left();
}

static void turned_matrices_and_batches(void **state)
{
    dj_cuda_blas_t blas;
    dj_cuda_blas_shape_t shape = plain();
    shape.batch = 4;
    shape.a = (dj_cuda_blas_matrix_t){.turned = true, .line = 6, .batch_stride = 0, .align_bytes = 256};
    shape.b = (dj_cuda_blas_matrix_t){.turned = true, .line = 8, .batch_stride = 100, .align_bytes = 256};
    shape.c.batch_stride = 45;
    device.major = 8;
    assert_int_equal(dj_cuda_blas_prepare(&device, &shape, &blas), DJ_OK);
    check_layout(fake.a, 3, 7, 8);
    check_layout(fake.b, 5, 3, 6);
    assert_int_equal(fake.desc.turn_a, CUBLAS_OP_T);
    assert_int_equal(fake.desc.turn_b, CUBLAS_OP_T);
    assert_int_equal(fake.a->batch, 4);
    assert_int_equal(fake.b->batch, 4);
    assert_int_equal(fake.d->batch, 4);
    assert_int_equal(fake.a->batch_stride, 100);
    assert_int_equal(fake.b->batch_stride, 0);
    assert_int_equal(fake.d->batch_stride, 45);
    assert_int_equal(fake.preference.workspace, 8 << 20);
    dj_cuda_blas_destroy(&blas);
}

static void check_numbers(uint8_t dtype, bool fast, int type, int compute, int scale, uint32_t scheme)
{
    dj_cuda_blas_t blas;
    dj_cuda_blas_shape_t shape = plain();
    shape.dtype = dtype;
    device.fast = fast;
    fake.n_layouts = 0;
    assert_int_equal(dj_cuda_blas_prepare(&device, &shape, &blas), DJ_OK);
    assert_int_equal(fake.a->type, type);
    assert_int_equal(fake.desc.compute, compute);
    assert_int_equal(fake.desc.scale, scale);
    assert_int_equal(fake.preference.scheme, scheme);
    dj_cuda_blas_destroy(&blas);
}

static void numbers_are_exact_unless_fast(void **state)
{
    check_numbers(DJ_F32, false, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUBLASLT_REDUCTION_SCHEME_MASK);
    check_numbers(DJ_F32, true, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F, CUBLASLT_REDUCTION_SCHEME_MASK);
    check_numbers(DJ_F16, false, CUDA_R_16F, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    check_numbers(DJ_BF16, false, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    check_numbers(DJ_BF16, true, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUBLASLT_REDUCTION_SCHEME_MASK);
    check_numbers(DJ_F64, true, CUDA_R_64F, CUBLAS_COMPUTE_64F, CUDA_R_64F, CUBLASLT_REDUCTION_SCHEME_MASK);
}

static void calls_carry_addresses(void **state)
{
    dj_cuda_blas_t blas;
    dj_cuda_blas_shape_t shape = plain();
    const dj_cuda_blas_at_t at = {0x100, 0x200, 0x300, 0x400, 0x500, 0x600};
    shape.bias = true;
    assert_int_equal(dj_cuda_blas_prepare(&device, &shape, &blas), DJ_OK);
    assert_int_equal(fake.desc.epilogue, CUBLASLT_EPILOGUE_BIAS);
    assert_int_equal((uintptr_t)fake.desc.bias % 16, 0);
    assert_non_null(fake.desc.bias); /* the heuristic looks at it */
    assert_int_equal(dj_cuda_blas_run(&blas, &device, (CUstream)0x700, &at), DJ_OK);
    assert_int_equal((uintptr_t)fake.call.a, 0x200); /* our B */
    assert_int_equal((uintptr_t)fake.call.b, 0x100);
    assert_int_equal((uintptr_t)fake.call.c, 0x300);
    assert_int_equal((uintptr_t)fake.call.d, 0x300);
    assert_int_equal((uintptr_t)fake.call.workspace, 0x400);
    assert_int_equal(fake.call.workspace_bytes, 4096);
    assert_int_equal((uintptr_t)fake.call.bias, 0x500);
    assert_int_equal((uintptr_t)fake.call.stream, 0x700);
    assert_true(fake.call.alpha == 1 && fake.call.beta == 0);
    dj_cuda_blas_destroy(&blas);
    shape.bias = false;
    shape.factors = true;
    fake.n_layouts = 0;
    assert_int_equal(dj_cuda_blas_prepare(&device, &shape, &blas), DJ_OK);
    assert_int_equal(fake.desc.pointer_mode, CUBLASLT_POINTER_MODE_DEVICE);
    assert_int_equal(dj_cuda_blas_run(&blas, &device, NULL, &at), DJ_OK);
    assert_int_equal((uintptr_t)fake.call.factors, 0x600);
    dj_cuda_blas_destroy(&blas);
}

static void what_c_holds_is_added_to(void **state)
{
    dj_cuda_blas_t blas;
    dj_cuda_blas_shape_t shape = plain();
    const dj_cuda_blas_at_t at = {0x100, 0x200, 0x300, 0x400, 0, 0};
    shape.adds = true;
    assert_int_equal(dj_cuda_blas_prepare(&device, &shape, &blas), DJ_OK);
    assert_int_equal(dj_cuda_blas_run(&blas, &device, NULL, &at), DJ_OK);
    assert_true(fake.call.alpha == 1 && fake.call.beta == 1);
    dj_cuda_blas_destroy(&blas);
}

static void check_refused(dj_status_t status)
{
    dj_cuda_blas_t blas;
    dj_cuda_blas_shape_t shape = plain();
    fake.n_layouts = 0;
    assert_int_equal(dj_cuda_blas_prepare(&device, &shape, &blas), status);
    nothing_is_left();
}

static void no_algorithm_is_a_status(void **state)
{
    fake.found = 0;
    check_refused(DJ_ERR_UNSUPPORTED);
    fake.found = 1;
    fake.workspace = (size_t)33 << 20;
    check_refused(DJ_ERR_UNSUPPORTED);
    fake.workspace = 0;
    fake.state = CUBLAS_STATUS_NOT_SUPPORTED;
    check_refused(DJ_ERR_UNSUPPORTED);
    fake.advice = CUBLAS_STATUS_ALLOC_FAILED;
    check_refused(DJ_ERR_MEMORY);
    dj_cuda.has.blas = false;
    device.blas = NULL;
    check_refused(DJ_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(rows_become_columns, set_up),
        cmocka_unit_test_setup(turned_matrices_and_batches, set_up),
        cmocka_unit_test_setup(numbers_are_exact_unless_fast, set_up),
        cmocka_unit_test_setup(calls_carry_addresses, set_up),
        cmocka_unit_test_setup(what_c_holds_is_added_to, set_up),
        cmocka_unit_test_setup(no_algorithm_is_a_status, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
