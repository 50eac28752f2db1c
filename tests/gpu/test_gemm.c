/* test_gemm.c - our own products, of every instruction set this processor has, against double sums.
 */
#include <math.h>

#include "tests/gpu/fixture.h"

#include "gpu/host/gemm.h"
#include "gpu/host/gemv.h"

#define FLOATS 600000

static float numbers[FLOATS], result[FLOATS];

static const struct isa {
    const char *name;
    void (*gemv)(const dj_gemv_t *gemv);
    void (*gemm)(const dj_gemm_t *gemm, void *workspace);
    uint64_t (*workspace)(const dj_gemm_t *gemm);
} isas[] = {{"base", dj_gemv_base, dj_gemm_base, dj_gemm_workspace_base},
            {"avx2", dj_gemv_avx2, dj_gemm_avx2, dj_gemm_workspace_avx2},
            {"avx512", dj_gemv_avx512, dj_gemm_avx512, dj_gemm_workspace_avx512}};

static uint32_t count_isas(void)
{
    uint32_t n = 3;
    dj_device_t *device = fixture_open(1);
    while (strcmp(device->ops->info(device)->isa, isas[n - 1].name) != 0)
        n--;
    dj_device_close(device);
    return n;
}

static void check(const dj_gemm_t *g)
{
    for (int64_t b = 0; b < g->batch; b++)
        for (int64_t i = 0; i < g->m; i++)
            for (int64_t j = 0; j < g->n; j++) {
                double sum = g->bias ? g->bias[j] : 0, size = fabs(sum);
                for (int64_t l = 0; l < g->k; l++) {
                    double x = g->a[b * g->a_batch + i * g->a_row + l * g->a_column];
                    double y = g->b[b * g->b_batch + l * g->b_row + j * g->b_column];
                    sum += x * y, size += fabs(x * y);
                }
                double got = g->c[b * g->c_batch + i * g->c_row + j];
                assert_true(fabs(got - sum) <= 2e-6 * size + 1e-6);
            }
}

static void run_gemm(const struct isa *isa, dj_gemm_t g, uint32_t threads)
{
    g.threads = threads;
    g.c = result;
    g.c_row = g.n + 3;
    g.c_batch = g.m * g.c_row;
    uint64_t bytes = isa->workspace(&g);
    uint8_t *workspace = aligned_alloc(64, ((bytes + 63) & ~63ull) + 64);
    assert_non_null(workspace);
    memset(workspace + bytes, 0x5a, 64);
    for (int64_t i = 0; i < g.batch * g.c_batch; i++)
        result[i] = 77;
    isa->gemm(&g, workspace);
    check(&g);
    for (int64_t i = 0; i < g.batch * g.m; i++)
        for (int64_t j = g.n; j < g.c_row; j++)
            assert_true(result[i * g.c_row + j] == 77);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(workspace[bytes + i], 0x5a);
    free(workspace);
}

static void products_of_any_shape_and_strides(void **state)
{
    static const int64_t shapes[][4] = {
        {1, 1, 1, 1},      {1, 7, 5, 3},    {1, 12, 32, 64}, {1, 13, 33, 257}, {1, 250, 70, 20},
        {1, 40, 100, 300}, {1, 5, 2100, 7}, {3, 9, 17, 31},  {7, 30, 20, 10},  {1, 50, 60, 600}};
    uint32_t n_isas = count_isas();
    for (uint32_t i = 0; i < n_isas; i++)
        for (uint32_t j = 0; j < sizeof(shapes) / sizeof(*shapes); j++)
            for (uint32_t form = 0; form < 16; form++) {
                const int64_t *s = shapes[j];
                int64_t m = s[1], n = s[2], k = s[3];
                dj_gemm_t g = {.batch = s[0],
                               .m = m,
                               .n = n,
                               .k = k,
                               .a = numbers + 5,
                               .b = numbers + 300001,
                               .a_row = k,
                               .a_column = 1,
                               .a_batch = m * k,
                               .b_row = n,
                               .b_column = 1,
                               .b_batch = k * n,
                               .bias = form & 4 ? numbers + 11 : NULL};
                if (form & 1)
                    g.a_row = 1, g.a_column = m;
                if (form & 2)
                    g.b_row = 1, g.b_column = k;
                if (form == 8)
                    g.a_row = 0, g.b_batch = 0, g.b_column = 2;
                run_gemm(&isas[i], g, form & 8 ? 2 : 1);
            }
}

static void products_of_few_rows(void **state)
{
    static const int64_t shapes[][2] = {{1, 1},    {3, 5},     {64, 8},    {65, 9},
                                        {700, 33}, {1025, 17}, {31, 1000}, {2500, 100}};
    uint32_t n_isas = count_isas();
    for (uint32_t i = 0; i < n_isas; i++)
        for (uint32_t j = 0; j < sizeof(shapes) / sizeof(*shapes); j++)
            for (uint32_t form = 0; form < 32; form++) {
                int64_t m = 1 + form % 4, n = shapes[j][0], k = shapes[j][1];
                bool turned = form & 4;
                dj_gemv_t v = {.m = m,
                               .n = n,
                               .k = k,
                               .a = numbers + 5,
                               .b = numbers + 300001,
                               .bias = form & 8 ? numbers + 11 : NULL,
                               .c = result,
                               .a_row = k + 2,
                               .c_row = n + 1,
                               .b_line = (turned ? k : n) + 1,
                               .b_transposed = turned,
                               .threads = form & 16 ? 2 : 1};
                isas[i].gemv(&v);
                dj_gemm_t g = {.batch = 1,
                               .m = m,
                               .n = n,
                               .k = k,
                               .a = v.a,
                               .b = v.b,
                               .bias = v.bias,
                               .c = result,
                               .a_row = v.a_row,
                               .a_column = 1,
                               .b_row = turned ? 1 : v.b_line,
                               .b_column = turned ? v.b_line : 1,
                               .c_row = v.c_row};
                check(&g);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_any_shape_and_strides),
        cmocka_unit_test(products_of_few_rows),
    };
    uint32_t random = 7;
    for (uint32_t i = 0; i < FLOATS; i++) {
        random = random * 1664525 + 1013904223;
        numbers[i] = (float)((int32_t)(random >> 8) % 2001 - 1000) / 700;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
