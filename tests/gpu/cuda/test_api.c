/* test_api.c - the loader against folders of shared objects that pretend (fakes/): a driver that is missing, too old,
 * silent or lacks a function is refused with a sentence; a library beside it is there whole or not at all. And what
 * results become.
 *
 * A process finds libraries where LD_LIBRARY_PATH was at its start, so each case is a process: this program with
 * "--load" prints what it found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/cuda/api.h"

static char self[4096], output[4096];

/* Answers of a driver table without a driver. */
static CUresult name_of(CUresult result, const char **text)
{
    *text = result == CUDA_ERROR_OUT_OF_MEMORY ? "OUT" : result == 12345 ? NULL : "SOME";
    return result == 12345 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static CUresult meaning_of(CUresult result, const char **text)
{
    *text = "words";
    return result == CUDA_ERROR_ASSERT ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static int load_and_print(void)
{
    dj_status_t status = dj_cuda_api_load(), again = dj_cuda_api_load();
    printf("%s %s driver=%d,%d nvrtc=%d,%d blas=%d,%d dnn=%d,%d nvml=%d,%d elapsed=%d version=%d: %s\n",
           dj_status_name(status), again == status ? "twice" : "changed", dj_cuda.has.driver, dj_cuda.cuInit != NULL,
           dj_cuda.has.nvrtc, dj_cuda.nvrtcVersion != NULL, dj_cuda.has.blas, dj_cuda.cublasLtCreate != NULL,
           dj_cuda.has.dnn, dj_cuda.cudnnCreate != NULL, dj_cuda.has.nvml, dj_cuda.nvmlShutdown != NULL,
           dj_cuda.cuEventElapsedTime != NULL, dj_cuda.driver_version, dj_error_text());
    return 0;
}

static const char *load(const char *folder)
{
    char command[9000];
    snprintf(command, sizeof(command), "LD_LIBRARY_PATH='%s/%s' '%s' --load", FAKES, folder, self);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t bytes = fread(output, 1, sizeof(output) - 1, pipe);
    output[bytes] = 0;
    assert_int_equal(pclose(pipe), 0);
    return output;
}

static void says(const char *words)
{
    if (!strstr(output, words))
        fail_msg("'%s' is not in: %s", words, output);
}

static bool has_real(const char *library)
{
    char command[256];
    snprintf(command, sizeof(command), "ldconfig -p 2>/dev/null | grep -q '%s'", library);
    return system(command) == 0;
}

static void a_missing_driver_is_refused(void **state)
{
    if (has_real("libcuda.so.1"))
        skip(); /* it cannot be hidden */
    load("none");
    says("ERR_UNSUPPORTED twice driver=0,0 nvrtc=0,0 blas=0,0 dnn=0,0 nvml=0,0 elapsed=0 version=0: device cuda: no "
         "NVIDIA driver here: libcuda.so.1: ");
    says("or later), or use --device=host\n");
}

static void an_old_driver_is_refused(void **state)
{
    load("old");
    says("ERR_UNSUPPORTED twice driver=0,0 nvrtc=0,0");
    says("here speaks CUDA 12.2, but CUDA ");
    says(" or later is needed; update the driver, or use --device=host\n");
}

static void a_driver_that_does_not_say_its_version_is_refused(void **state)
{
    load("silent");
    says("ERR_UNSUPPORTED twice driver=0,0");
    says("does not say its version; reinstall the NVIDIA driver");
    load("mute");
    says("ERR_UNSUPPORTED twice driver=0,0");
    says("does not say its version");
}

static void a_driver_without_a_function_is_refused(void **state)
{
    load("partial");
    says("ERR_UNSUPPORTED twice driver=0,0");
    says("has no cuMemSetAccess; update it to release ");
}

static void a_driver_alone_will_do(void **state)
{
    load("alone");
    says("OK twice driver=1,1");
    says("version=99000");
    if (!has_real("libcublasLt.so"))
        says("blas=0,0");
    if (!has_real("libcudnn.so.9"))
        says("dnn=0,0");
}

static void older_names_will_do(void **state)
{
    load("older_names");
    says("OK twice driver=1,1");
    says("elapsed=1");
}

static void libraries_are_found(void **state)
{
    load("whole");
    says("OK twice driver=1,1 nvrtc=1,1 blas=1,1 dnn=1,1 nvml=1,1");
}

static void libraries_are_taken_whole_or_not(void **state)
{
    load("mixed"); /* NVRTC of 12; a cuBLASLt and an NVML that lack a function */
    if (!has_real("libnvrtc.so.13"))
        says("nvrtc=1,1");
    says("blas=0,0");
    says("nvml=0,0");
}

/* Libraries of CUDA 13 beside a driver that speaks 12. */
static void a_library_newer_than_the_driver_is_not_taken(void **state)
{
    if (CUDA_VERSION >= 13000)
        skip(); /* such a driver is refused */
    load("newer_libraries");
    says("OK twice driver=1,1");
    if (!has_real("libnvrtc.so.12"))
        says("nvrtc=0,0");
    if (!has_real("libcublasLt.so.12"))
        says("blas=0,0");
}

/* ---- results ---- */

static void results_become_statuses(void **state)
{
    dj_cuda.cuGetErrorName = name_of;
    dj_cuda.cuGetErrorString = meaning_of;
    assert_int_equal(dj_cuda_status(CUDA_SUCCESS, "x"), DJ_OK);
    assert_int_equal(dj_cuda_status(CUDA_ERROR_OUT_OF_MEMORY, "a thing"), DJ_ERR_MEMORY);
    assert_string_equal(dj_error_text(), "a thing: OUT, words");
    assert_int_equal(dj_cuda_status(CUDA_ERROR_INVALID_VALUE, "a thing"), DJ_ERR_SYSTEM);
    assert_int_equal(dj_cuda_status(CUDA_ERROR_ASSERT, "a thing"), DJ_ERR_DEVICE);
    assert_string_equal(dj_error_text(), "a thing: SOME, no more is known");
    assert_int_equal(dj_cuda_status(12345, "a thing"), DJ_ERR_SYSTEM);
    assert_string_equal(dj_error_text(), "a thing: CUDA error 12345");
    dj_cuda.cuGetErrorName = NULL;
    dj_cuda.cuGetErrorString = NULL;
    assert_int_equal(dj_cuda_status(CUDA_ERROR_LAUNCH_FAILED, "a thing"), DJ_ERR_DEVICE);
    assert_string_equal(dj_error_text(), "a thing: CUDA error 719");
}

/* Every number cuda.h 13.0 gives a result that is more than a failed call; all others are that. */
static void every_result_is_of_its_kind(void **state)
{
    static const struct {
        int first, last;
        dj_status_t status;
    } rows[] = {
        {CUDA_SUCCESS, CUDA_SUCCESS, DJ_OK},
        {CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY, DJ_ERR_MEMORY},
        {CUDA_ERROR_DEINITIALIZED, CUDA_ERROR_DEINITIALIZED, DJ_ERR_DEVICE},
        {CUDA_ERROR_DEVICE_UNAVAILABLE, CUDA_ERROR_DEVICE_UNAVAILABLE, DJ_ERR_RESOURCE},
        {CUDA_ERROR_ECC_UNCORRECTABLE, CUDA_ERROR_ECC_UNCORRECTABLE, DJ_ERR_DEVICE},
        {CUDA_ERROR_NVLINK_UNCORRECTABLE, CUDA_ERROR_NVLINK_UNCORRECTABLE, DJ_ERR_DEVICE},
        {226, 226, DJ_ERR_DEVICE}, /* CONTAINED */
        {CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS, DJ_ERR_DEVICE},
        {CUDA_ERROR_LAUNCH_TIMEOUT, CUDA_ERROR_LAUNCH_TIMEOUT, DJ_ERR_DEVICE},
        {CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_ASSERT, DJ_ERR_DEVICE},
        {CUDA_ERROR_HARDWARE_STACK_ERROR, CUDA_ERROR_LAUNCH_FAILED, DJ_ERR_DEVICE}, /* 714 to 719 */
        {721, 721, DJ_ERR_DEVICE}, /* TENSOR_MEMORY_LEAK */
        {CUDA_ERROR_MPS_CONNECTION_FAILED, CUDA_ERROR_MPS_CONNECTION_FAILED, DJ_ERR_RESOURCE},
        {CUDA_ERROR_MPS_RPC_FAILURE, CUDA_ERROR_MPS_RPC_FAILURE, DJ_ERR_DEVICE},
        {CUDA_ERROR_MPS_SERVER_NOT_READY, CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED, DJ_ERR_RESOURCE}, /* 807 to 809 */
        {CUDA_ERROR_MPS_CLIENT_TERMINATED, CUDA_ERROR_MPS_CLIENT_TERMINATED, DJ_ERR_DEVICE},
        {CUDA_ERROR_EXTERNAL_DEVICE, CUDA_ERROR_EXTERNAL_DEVICE, DJ_ERR_DEVICE},
        {CUDA_ERROR_UNKNOWN, CUDA_ERROR_UNKNOWN, DJ_ERR_DEVICE},
    };
    for (int result = 0; result <= CUDA_ERROR_UNKNOWN; result++) {
        dj_status_t wanted = DJ_ERR_SYSTEM;
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
            wanted = result >= rows[i].first && result <= rows[i].last ? rows[i].status : wanted;
        if (dj_cuda_status((CUresult)result, "a call") != wanted)
            fail_msg("result %d: not %s", result, dj_status_name(wanted));
        assert_int_equal(dj_cuda_is_fault((CUresult)result), wanted == DJ_ERR_DEVICE);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_driver_is_refused),
        cmocka_unit_test(an_old_driver_is_refused),
        cmocka_unit_test(a_driver_that_does_not_say_its_version_is_refused),
        cmocka_unit_test(a_driver_without_a_function_is_refused),
        cmocka_unit_test(a_driver_alone_will_do),
        cmocka_unit_test(older_names_will_do),
        cmocka_unit_test(libraries_are_found),
        cmocka_unit_test(libraries_are_taken_whole_or_not),
        cmocka_unit_test(a_library_newer_than_the_driver_is_not_taken),
        cmocka_unit_test(results_become_statuses),
        cmocka_unit_test(every_result_is_of_its_kind),
    };
    if (argc == 2 && strcmp(argv[1], "--load") == 0)
        return load_and_print();
    ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (bytes <= 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
