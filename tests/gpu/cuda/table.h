/* table.h - a device on the simulator whose driver table a test bends: `real` is the table as it was found, and the
 * slots of `dj_cuda` may be replaced by functions that watch, refuse or pass on. */
#ifndef DJ_TESTS_GPU_CUDA_TABLE_H
#define DJ_TESTS_GPU_CUDA_TABLE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/memory.h"
#include "tests/gpu/simulator/simulator.h"

static dj_cuda_api_t real;

#define TABLE_OK(expression)                                                                       \
    do {                                                                                           \
        dj_status_t status_ = (expression);                                                        \
        if (status_ != DJ_OK)                                                                      \
            print_error("%s\n", dj_error_text());                                                  \
        assert_int_equal(status_, DJ_OK);                                                          \
    } while (0)

#define TABLE_SAYS(words) assert_non_null(strstr(dj_error_text(), words))

static inline dj_config_t table_config(void)
{
    return (dj_config_t){.device = "cuda", .cores = "", .gpu = "", .numerics = "exact", .kernel_cache = ""};
}

static inline dj_device_t *table_open(void)
{
    dj_config_t config = table_config();
    dj_device_t *device = NULL;
    TABLE_OK(dj_device_open(&config, &device));
    return device;
}

static inline sim_counters_t table_counters(void)
{
    sim_counters_t counters;
    sim_counters(&counters);
    return counters;
}

/* Every test starts with the driver as it is. */
static inline int table_restore(void **state)
{
    dj_cuda = real;
    return 0;
}

/* First thing in main(). */
static inline bool table_load(void)
{
    if (!dj_hash_setup() || dj_cuda_api_load() != DJ_OK)
        return false;
    real = dj_cuda;
    return true;
}

#endif
