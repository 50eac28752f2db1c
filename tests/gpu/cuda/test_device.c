/* test_device.c - a device opens or says why not, and what was half open is closed; its class follows what plans
 * depend on; built-in kernels are found; NVML's words. */
#include <sys/wait.h>
#include <unistd.h>

#include "tests/gpu/cuda/table.h"

/* ---- a driver that answers otherwise ---- */

static CUdevice_attribute changed;
static int changed_to;

static CUresult get_attribute(int *value, CUdevice_attribute what, CUdevice device)
{
    CUresult result = real.cuDeviceGetAttribute(value, what, device);
    if (what == changed)
        *value = changed_to;
    return result;
}

static void change(CUdevice_attribute what, int value)
{
    dj_cuda.cuDeviceGetAttribute = get_attribute;
    changed = what;
    changed_to = value;
}

static CUresult no_devices(int *count)
{
    *count = 0;
    return CUDA_SUCCESS;
}

static CUresult two_devices(int *count)
{
    *count = 2;
    return CUDA_SUCCESS;
}

static CUresult any_device(CUdevice *device, int ordinal)
{
    *device = 0;
    return ordinal < 2 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult known_uuid(CUuuid *uuid, CUdevice device)
{
    for (int i = 0; i < 16; i++)
        uuid->bytes[i] = (char)(0xa0 + i);
    return CUDA_SUCCESS;
}

static void nothing_is_left(void)
{
    sim_counters_t sim = table_counters();
    assert_int_equal(sim.contexts, 0);
    assert_int_equal(sim.streams, 0);
    assert_int_equal(sim.events, 0);
    assert_int_equal(sim.modules, 0);
    assert_int_equal(sim.reservations, 0);
    assert_int_equal(sim.used_bytes, 0);
    assert_int_equal(sim.pinned_bytes, 0);
}

static void refused(const dj_config_t *config, dj_status_t wanted, const char *words)
{
    dj_device_t *device = NULL;
    assert_int_equal(dj_device_open(config, &device), wanted);
    assert_null(device);
    TABLE_SAYS(words);
    nothing_is_left();
}

/* ---- open ---- */

static void what_does_not_serve_is_refused(void **state)
{
    dj_config_t config = table_config();
    sim_fail_next("cuInit", CUDA_ERROR_NO_DEVICE);
    refused(&config, DJ_ERR_UNSUPPORTED, "0 may be used");
    sim_fail_next("cuInit", CUDA_ERROR_SYSTEM_NOT_READY);
    refused(&config, DJ_ERR_UNSUPPORTED, "nvidia-smi");
    change(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 7);
    refused(&config, DJ_ERR_UNSUPPORTED, "compute capability 7.");
    change(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 0);
    refused(&config, DJ_ERR_UNSUPPORTED, "virtual memory management");
    dj_cuda.cuDeviceGetCount = no_devices;
    refused(&config, DJ_ERR_UNSUPPORTED, "GPU '0' is not here");
}

static void a_stack_larger_than_free_memory_is_refused(void **state)
{
    dj_config_t config = table_config();
    config.stack_bytes = 1ull << 50;
    refused(&config, DJ_ERR_RESOURCE, "--stack-bytes");
    TABLE_SAYS("1125899906842624");
}

static void each_step_that_fails_undoes_the_others(void **state)
{
    const char *const calls[] = {
        "cuDeviceGetName",   "cuDeviceGetPCIBusId", "cuDeviceTotalMem",
        "cuMemGetInfo",      "cuCtxSetCurrent",     "cuStreamCreateWithPriority",
        "cuMemHostAlloc",    "cuEventCreate",       "cuMemGetAllocationGranularity",
        "cuMemAddressReserve", "cuDevicePrimaryCtxRetain"};
    dj_config_t config = table_config();
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        sim_fail_next(calls[i], CUDA_ERROR_OUT_OF_MEMORY);
        refused(&config, DJ_ERR_MEMORY, "OUT_OF_MEMORY");
    }
}

static void the_gpu_may_be_named(void **state)
{
    dj_config_t config = table_config();
    dj_device_t *device;
    dj_cuda.cuDeviceGetCount = two_devices;
    dj_cuda.cuDeviceGet = any_device;
    dj_cuda.cuDeviceGetUuid = known_uuid;
    const char *const good[] = {"", "0", "1", "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf", "GPU-a0a1"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        config.gpu = good[i];
        TABLE_OK(dj_device_open(&config, &device));
        dj_device_close(device);
    }
    config.gpu = "2";
    refused(&config, DJ_ERR_UNSUPPORTED, "GPU '2' is not here: 2 may be used");
    config.gpu = "GPU-b0";
    refused(&config, DJ_ERR_UNSUPPORTED, "not set");
    setenv("CUDA_VISIBLE_DEVICES", "GPU-b0", 1); /* as runtime/bind.c does: the driver has renumbered them */
    TABLE_OK(dj_device_open(&config, &device));
    dj_device_close(device);
    unsetenv("CUDA_VISIBLE_DEVICES");
}

/* ---- info ---- */

static dj_hash_t class_of(const dj_config_t *config)
{
    dj_device_t *device;
    TABLE_OK(dj_device_open(config, &device));
    dj_hash_t hash = device->ops->info(device)->class_hash;
    dj_device_close(device);
    return hash;
}

static void the_class_follows_what_plans_depend_on(void **state)
{
    dj_config_t config = table_config();
    dj_hash_t first = class_of(&config);
    assert_true(dj_hash_equal(first, class_of(&config)));
    config.cuda_graphs = true;
    assert_true(dj_hash_equal(first, class_of(&config)));
    config.numerics = "fast";
    assert_false(dj_hash_equal(first, class_of(&config)));
    config.numerics = "exact";
    change(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 12);
    assert_false(dj_hash_equal(first, class_of(&config)));
    change(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 7);
    assert_false(dj_hash_equal(first, class_of(&config)));
    dj_cuda.cuDeviceGetAttribute = real.cuDeviceGetAttribute;
    dj_cuda.driver_version += 10;
    assert_false(dj_hash_equal(first, class_of(&config)));
}

static void info_is_whole(void **state)
{
    change(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 0); /* some virtual GPUs do not say */
    dj_device_t *device = table_open();
    const dj_device_info_t *info = device->ops->info(device);
    assert_string_equal(info->kind, "cuda");
    assert_memory_equal(info->isa, "sm_", 3);
    assert_true(info->name[0] && info->memory_bytes > 0 && info->page_bytes > 0);
    assert_false(info->host_reads);
    assert_true(info->flops_per_ns > 0 && info->bytes_per_ns > 0 && info->step_ns > 0);
    assert_true(device->ops->supports(device, DJ_OP_MM));
    assert_false(device->ops->supports(device, DJ_OP_COUNT));
    device->ops->thread_start(device);
    dj_device_close(device);
    nothing_is_left();
}

static void a_process_may_fork_before_it_opens(void **state)
{
    uint64_t calls = table_counters().calls;
    assert_int_equal(dj_cuda_api_load(), DJ_OK);
    assert_int_equal(table_counters().calls, calls);
}

/* ---- built-in kernels ---- */

static void kernels_are_found_once(void **state)
{
    dj_device_t *device = table_open();
    CUfunction first = NULL, second = NULL, other = NULL;
    dj_cuda_device_t *cuda = (dj_cuda_device_t *)device;
    assert_int_equal(table_counters().modules, 0);
    TABLE_OK(dj_cuda_function(cuda, "dj_layout_fill", &first));
    assert_int_equal(table_counters().modules, 1);
    uint64_t calls = table_counters().calls;
    TABLE_OK(dj_cuda_function(cuda, "dj_layout_fill", &second));
    assert_ptr_equal(first, second);
    assert_in_range(table_counters().calls - calls, 0, 1); /* the context */
    TABLE_OK(dj_cuda_function(cuda, "dj_layout_copy", &other));
    assert_ptr_not_equal(first, other);
    assert_int_equal(table_counters().modules, 1);
    dj_device_close(device);
    nothing_is_left();
}

static void kernels_that_are_not_there_are_named(void **state)
{
    dj_device_t *device = table_open();
    dj_cuda_device_t *cuda = (dj_cuda_device_t *)device;
    const char *const bad[] = {"dj_layout_nothing", "dj_nothing", "dj_layout", "x", "", "dj_layoutx_fill"};
    CUfunction function = NULL;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(dj_cuda_function(cuda, bad[i], &function), DJ_ERR_UNSUPPORTED);
        TABLE_SAYS("no such kernel");
        TABLE_SAYS(cuda->info.name);
        TABLE_SAYS("sm_");
        TABLE_SAYS("driver with CUDA");
    }
    sim_fail_next("cuModuleLoadData", CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_int_equal(dj_cuda_function(cuda, "dj_reduce_any", &function), DJ_ERR_UNSUPPORTED);
    TABLE_SAYS("NO_BINARY");
    sim_fail_next("cuModuleLoadData", CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(dj_cuda_function(cuda, "dj_reduce_any", &function), DJ_ERR_MEMORY);
    assert_null(function);
    sim_set_fault(CUDA_ERROR_ECC_UNCORRECTABLE);
    assert_int_equal(dj_cuda_function(cuda, "dj_norm_layer", &function), DJ_ERR_DEVICE);
    sim_set_fault(CUDA_SUCCESS);
    dj_device_close(device);
}

/* ---- telemetry ---- */

static int no_ecc(nvmlDevice_t device, int error, int counter, unsigned long long *count)
{
    return 3; /* not supported */
}

static int no_nvml(void)
{
    return 9; /* the driver is not loaded */
}

static void nvml_is_asked_field_by_field(void **state)
{
    dj_telemetry_t says;
    dj_device_t *device = table_open();
    device->ops->telemetry(device, &says);
    assert_int_equal(says.known & DJ_TELEMETRY_XID, DJ_TELEMETRY_XID);
    assert_int_equal(says.xid_count, 0);
    assert_true(says.known & DJ_TELEMETRY_MEMORY && says.memory_total_bytes > 0);
    assert_true(says.known & DJ_TELEMETRY_ECC);
    sim_set_fault(CUDA_ERROR_ECC_UNCORRECTABLE); /* the context is lost, NVML is not */
    sim_post_xid(48);
    sim_post_xid(79);
    device->ops->telemetry(device, &says);
    assert_int_equal(says.xid, 79);
    assert_int_equal(says.xid_count, 2);
    device->ops->telemetry(device, &says);
    assert_int_equal(says.xid, 79);
    assert_int_equal(says.xid_count, 2);
    sim_set_fault(CUDA_SUCCESS);
    dj_cuda.nvmlDeviceGetTotalEccErrors = no_ecc;
    device->ops->telemetry(device, &says);
    assert_false(says.known & DJ_TELEMETRY_ECC);
    assert_true(says.known & DJ_TELEMETRY_TEMPERATURE);
    dj_device_close(device);
}

static void without_nvml_all_is_unknown(void **state)
{
    dj_telemetry_t says = {.known = 1, .xid = 3};
    dj_cuda.has.nvml = false;
    dj_device_t *device = table_open();
    device->ops->telemetry(device, &says);
    assert_int_equal(says.known, 0);
    assert_int_equal(says.xid, 0);
    dj_device_close(device);
    dj_cuda.has.nvml = true;
    dj_cuda.nvmlInit_v2 = no_nvml;
    device = table_open();
    device->ops->telemetry(device, &says);
    assert_int_equal(says.known, 0);
    dj_device_close(device);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup(test, table_restore)
    const struct CMUnitTest tests[] = {
        TEST(what_does_not_serve_is_refused),
        TEST(a_stack_larger_than_free_memory_is_refused),
        TEST(each_step_that_fails_undoes_the_others),
        TEST(the_gpu_may_be_named),
        TEST(the_class_follows_what_plans_depend_on),
        TEST(info_is_whole),
        TEST(a_process_may_fork_before_it_opens),
        TEST(kernels_that_are_not_there_are_named),
        TEST(kernels_are_found_once),
        TEST(nvml_is_asked_field_by_field),
        TEST(without_nvml_all_is_unknown),
    };
    unsetenv("CUDA_VISIBLE_DEVICES");
    if (!table_load())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
