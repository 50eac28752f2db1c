/* open.h - the CUDA device for a test: of a GPU, or of the simulator where tests.cmake puts that in front. */
#ifndef DJ_TESTS_GPU_CUDA_OPEN_H
#define DJ_TESTS_GPU_CUDA_OPEN_H

#include "tests/gpu/program.h"

#include "gpu/cuda/executable.h"

/* NULL: none here, and why is printed. With a limit of its silence (watch.c); 0: none. */
static inline dj_device_t *open_cuda_within(uint64_t limit_ms)
{
    dj_config_t config = {.device = "cuda", .cores = "", .cuda_graphs = true, .numerics = "exact", .kernel_cache = "",
                          .kernel_limit_ms = limit_ms};
    dj_device_t *device = NULL;
    if (!dj_hash_setup())
        return NULL;
    if (dj_device_open(&config, &device) != DJ_OK)
        printf("skipped: %s\n", dj_error_text());
    return device;
}

static inline dj_device_t *open_cuda(void)
{
    return open_cuda_within(0);
}

static inline dj_cuda_executable_t *exe_of(const test_case_t *test)
{
    return (dj_cuda_executable_t *)test->exe;
}

#define CHECK_OK(expression)                                                                       \
    do {                                                                                           \
        dj_status_t status_ = (expression);                                                        \
        if (status_ != DJ_OK)                                                                      \
            print_error("%s\n", dj_error_text());                                                  \
        assert_int_equal(status_, DJ_OK);                                                          \
    } while (0)

#endif
