/* test_emulate.c - the threads of a block: barriers, shuffles, votes, shared memory, and what ends a kernel. */
#include "tests/gpu/simulator/fixture.h"

static int host[4096];

static void test_threads(void **state)
{
    fill(a, 1);
    add(stream, b, a, 4);
    assert_int_equal(read_one(stream, b + 4 * (N - 1)), 5);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* the simulator's way to open memory must work still */
    for (unsigned warps = 1; warps <= 32; warps *= 2) {
        fill(b, 0);
        OK(launch("k_sum", stream, 3, 32 * warps, 0, (params_t){a, b, N, 0}));
        assert_int_equal(read_one(stream, b), N);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void test_shared(void **state)
{
    for (int i = 0; i < 1024; ++i)
        host[i] = i;
    OK(cuMemcpyHtoDAsync(a, host, 4096, stream));
    OK(launch("k_turn", stream, 1, 1000, 4000, (params_t){a, b, 0, 0}));
    OK(cuMemcpyDtoHAsync(host, b, 4096, stream));
    for (int i = 0; i < 1000; ++i)
        assert_int_equal(host[i], 999 - i);
    for (int i = 0; i < 2; ++i) { /* nothing stays in shared memory */
        OK(launch("k_unset", stream, 1, 1, 0, (params_t){a, b, 0, 0}));
        assert_int_equal(read_one(stream, b), 0x7f7f7f7f);
    }
    assert_int_equal(launch("k_turn", stream, 1, 32, 49153, (params_t){a, b, 0, 0}), CUDA_ERROR_INVALID_VALUE);
    OK(cuFuncSetAttribute(function_of("k_turn"), CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 60000));
    OK(launch("k_turn", stream, 1, 32, 49153, (params_t){a, b, 0, 0}));
    OK(cuStreamSynchronize(stream));
}

static void test_votes(void **state)
{
    OK(launch("k_vote", stream, 1, 64, 0, (params_t){a, b, 0, 0}));
    OK(cuMemcpyDtoHAsync(host, b, 64 * 16, stream));
    for (int i = 0; i < 64; ++i) {
        unsigned votes = 0;
        for (int k = 0; k < 32; ++k)
            votes |= (unsigned)((i / 32 * 32 + k) % 3 == 0) << k;
        assert_int_equal(host[4 * i], (int)votes);
        assert_int_equal(host[4 * i + 1], i % 32 ? i - 1 : i);
        assert_int_equal(host[4 * i + 2], i / 32 * 32 + 5);
        assert_int_equal(host[4 * i + 3], i % 8 < 5 ? i + 3 : i);
    }
}

static void test_grid(void **state)
{
    params_t p = {0, b, 0, 0};
    void *params[] = {&p};
    OK(cuLaunchKernel(function_of("k_where"), 3, 2, 1, 4, 3, 2, 0, stream, params, NULL));
    OK(cuMemcpyDtoHAsync(host, b, 4 * 144, stream));
    for (int i = 0; i < 144; ++i)
        assert_int_equal(host[i], i);
    CUfunction function = function_of("k_where");
    assert_int_equal(cuLaunchKernel(function, 0, 1, 1, 1, 1, 1, 0, stream, params, NULL), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuLaunchKernel(function, 1, 65536, 1, 1, 1, 1, 0, stream, params, NULL),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuLaunchKernel(function, 1, 1, 1, 1025, 1, 1, 0, stream, params, NULL),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuModuleGetFunction(&function, module, "k_none"), CUDA_ERROR_NOT_FOUND);
}

static void run_stuck(void)
{
    launch("k_stuck", stream, 1, 32, 0, (params_t){a, b, 0, 0});
    cuStreamSynchronize(stream);
}

static void run_gone(void)
{
    launch("k_gone", stream, 1, 32, 0, (params_t){a, b, 0, 0});
    cuStreamSynchronize(stream);
}

static void test_deadlock(void **state)
{
    assert_int_equal(signal_of(run_stuck), SIGABRT);
    assert_int_equal(signal_of(run_gone), SIGABRT);
}

/* What the compiler checks in device code. A sanitizer in this program takes the reports for itself. */
static void test_checks(void **state)
{
#ifndef __SANITIZE_ADDRESS__
    OK(launch("k_skew", stream, 1, 1, 0, (params_t){a, b, 0, 4}));
    OK(cuStreamSynchronize(stream));
    OK(launch("k_skew", stream, 1, 1, 0, (params_t){a, b, 0, 2}));
    check_fault(CUDA_ERROR_MISALIGNED_ADDRESS);
    OK(launch("k_beside", stream, 1, 1, 0, (params_t){a, b, 0, 3}));
    OK(cuStreamSynchronize(stream));
    OK(launch("k_beside", stream, 1, 1, 0, (params_t){a, b, 0, 4}));
    check_fault(CUDA_ERROR_LAUNCH_FAILED);
#endif
}

/* The order of threads goes with the seed: a race shows itself. */
static void test_seeds(void **state)
{
    int first = 0, others = 0;
    for (int i = 0; i < 16; ++i) {
        OK(launch("k_race", stream, 1, 128, 0, (params_t){a, b, 0, 0}));
        int value = read_one(stream, b);
        if (i == 0)
            first = value;
        others += value != first;
    }
    assert_int_equal(others > 0, is_random);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads), cmocka_unit_test(test_shared),   cmocka_unit_test(test_votes),
        cmocka_unit_test(test_grid),    cmocka_unit_test(test_deadlock), cmocka_unit_test(test_checks),
        cmocka_unit_test(test_seeds),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
