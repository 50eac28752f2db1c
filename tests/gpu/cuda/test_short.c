/* test_short.c - a GPU whose memory is short: each call of the driver that may want some fails in turn, from opening the
 * device to a third replay. Whoever asked hears so, nothing is lost or kept, and the next try succeeds. On the
 * simulator, where each trial opens a device of its own. */
#define ATTEMPT(call)                                                                              \
    do {                                                                                           \
        bool failed_before = has_failed();                                                         \
        dj_status_t status = (call);                                                               \
        if (status == DJ_OK)                                                                       \
            break;                                                                                 \
        if (failed_before || !has_failed() || status != DJ_ERR_MEMORY)                             \
            print_error("%s call %u: %s: %s: %s\n", failing, passed, #call, dj_status_name(status), \
                        dj_error_text());                                                          \
        assert_true(!failed_before && has_failed());                                               \
        assert_int_equal(status, DJ_ERR_MEMORY);                                                   \
        n_refusals++;                                                                              \
        CHECK_OK(call);                                                                            \
    } while (0)

static int (*has_failed)(void);
static const char *failing;
static unsigned passed;
static int n_refusals;

#include "tests/gpu/cuda/replayed.h"

static void (*fail_after)(const char *, unsigned, CUresult);

static void live(record_t record)
{
    dj_config_t config = {.device = "cuda", .cores = "", .cuda_graphs = true, .numerics = "exact", .kernel_cache = ""};
    program_t program;
    session_t session;
    ATTEMPT(dj_device_open(&config, &cuda));
    program_open(&program, record);
    session_open(&session, &program, 1, NULL);
    for (int i = 0; i < 3; i++)
        run_both(&program, &session);
    session_close(&session);
    program_close(&program);
    dj_device_close(cuda);
}

static void nothing_is_left(void)
{
    sim_counters_t left;
    counters_of(&left);
    uint64_t all = left.allocations + left.handles + left.reservations + left.mapped_bytes + left.used_bytes +
                   left.pinned_bytes + left.streams + left.events + left.modules + left.graphs + left.graph_execs;
    if (all)
        print_error("%s, call %u: %llu allocations, %llu handles, %llu reservations, %llu pinned bytes, %llu streams, "
                    "%llu events, %llu modules, %llu graphs, %llu of them ready\n",
                    failing, passed, (unsigned long long)left.allocations, (unsigned long long)left.handles,
                    (unsigned long long)left.reservations, (unsigned long long)left.pinned_bytes,
                    (unsigned long long)left.streams, (unsigned long long)left.events,
                    (unsigned long long)left.modules, (unsigned long long)left.graphs,
                    (unsigned long long)left.graph_execs);
    assert_int_equal(all, 0);
}

/* Every call of it in turn, until a life has none left to fail. */
static void fail_each(const char *function, record_t record)
{
    failing = function;
    for (passed = 0;; passed++) {
        fail_after(function, passed, CUDA_ERROR_OUT_OF_MEMORY);
        live(record);
        nothing_is_left();
        if (!has_failed())
            break;
    }
    fail_after("", 0, CUDA_SUCCESS);
    print_message("%s: %u calls\n", function, passed);
}

static void each_call_may_fail_for_want_of_memory(void **state)
{
    static const char *const functions[] = {
        "cuDevicePrimaryCtxRetain", "cuMemGetInfo", "cuStreamCreateWithPriority", "cuEventCreate", "cuMemHostAlloc",
        "cuMemAlloc", "cuMemAddressReserve", "cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuModuleLoadData",
        "cuModuleGetFunction", "cuFuncLoad", "cuFuncSetAttribute", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync",
        "cuMemsetD8Async", "cuLaunchKernel", "cuEventRecord", "cuStreamBeginCapture", "cuStreamEndCapture",
        "cuGraphInstantiate", "cuGraphUpload", "cuGraphLaunch"};
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        fail_each(functions[i], record_network);
        fail_each(functions[i], record_lookup);
    }
    assert_true(n_refusals > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_call_may_fail_for_want_of_memory)};
    if (!devices_open())
        return 77;
    dj_device_close(cuda);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *(void **)&fail_after = driver ? dlsym(driver, "sim_fail_after") : NULL;
    *(void **)&has_failed = driver ? dlsym(driver, "sim_has_failed") : NULL;
    int failed = fail_after ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
    dj_device_close(host);
    return failed;
}
