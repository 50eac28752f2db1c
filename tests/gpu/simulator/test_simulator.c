/* test_simulator.c - the double of CUDA's driver keeps CUDA's rules: memory, streams, capture, faults. Kernels come
 * through the simulated NVRTC. */
#include "tests/gpu/simulator/fixture.h"

/* ---- the libraries ---- */

#define TEXT_OF(name) #name
#define SYMBOL(name) TEXT_OF(name),
static const char *const driver_symbols[] = {DJ_CUDA_DRIVER(SYMBOL) NULL};
static const char *const nvrtc_symbols[] = {DJ_CUDA_NVRTC(SYMBOL) NULL};
static const char *const nvml_symbols[] = {DJ_CUDA_NVML(SYMBOL) NULL};

static void check_symbols(const char *file, const char *const *symbols)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fail_msg("%s", dlerror());
    for (; *symbols; ++symbols) {
        if (dlsym(library, *symbols) == NULL)
            fail_msg("%s has no %s", file, *symbols);
    }
}

static void test_symbols(void **state)
{
    check_symbols("libcuda.so.1", driver_symbols);
    check_symbols("libnvrtc.so.13", nvrtc_symbols);
    check_symbols("libnvidia-ml.so.1", nvml_symbols);
}

static void test_telemetry(void **state)
{
    nvmlDevice_t device;
    nvmlEventSet_t set;
    dj_nvml_event_t event;
    dj_nvml_memory_t memory;
    char pci[16];
    OK(cuDeviceGetPCIBusId(pci, sizeof pci, 0));
    OK(nvmlInit_v2());
    OK(nvmlDeviceGetHandleByPciBusId_v2(pci, &device));
    OK(nvmlDeviceGetMemoryInfo(device, &memory));
    assert_int_equal(memory.used, 32768); /* a and b */
    OK(nvmlEventSetCreate(&set));
    OK(nvmlDeviceRegisterEvents(device, DJ_NVML_EVENT_XID, set));
    sim_post_xid(79);
    OK(nvmlEventSetWait_v2(set, &event, 0));
    assert_int_equal(event.data, 79);
    assert_int_not_equal(nvmlEventSetWait_v2(set, &event, 0), 0);
    OK(nvmlEventSetFree(set));
    OK(nvmlShutdown());
}

/* ---- streams ---- */

static void test_lazy(void **state)
{
    sim_counters_t before, after;
    CUevent event;
    int value = -1, *pinned;
    OK(cuMemHostAlloc((void **)&pinned, 4096, 0));
    OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    fill(a, 7);
    sim_counters(&before);
    *pinned = -1;
    add(stream, b, a, 1);
    OK(cuMemcpyDtoHAsync(pinned, b, 4, stream));
    OK(cuEventRecord(event, stream));
    add(stream, b, b, 1);
    sim_counters(&after);
    assert_int_equal(after.kernel_launches, before.kernel_launches);
    assert_int_equal(*pinned, -1);
    assert_int_equal(cuEventQuery(event), CUDA_ERROR_NOT_READY);
    OK(cuEventSynchronize(event));
    assert_int_equal(*pinned, 8);
    sim_counters(&after);
    assert_int_equal(after.kernel_launches, before.kernel_launches + 1); /* what is behind the event waits on */
    while (cuStreamQuery(stream) == CUDA_ERROR_NOT_READY)
        ;
    OK(cuMemcpyDtoHAsync(&value, b, 4, other)); /* pageable: there when the call returns */
    assert_int_equal(value, 9);
    /* Pageable memory is read at the call, pinned memory later. */
    value = *pinned = 1;
    OK(cuMemcpyHtoDAsync(a, &value, 4, stream));
    OK(cuMemcpyHtoDAsync(b, pinned, 4, stream));
    value = *pinned = 2;
    assert_int_equal(read_one(stream, a), 1);
    assert_int_equal(read_one(stream, b), 2);
    OK(cuEventDestroy(event));
    OK(cuMemFreeHost(pinned));
}

static void test_order(void **state)
{
    CUevent event;
    OK(cuEventCreate(&event, 0));
    fill(a, 0);
    fill(b, 0);
    /* Without a wait the other stream is free to be late: it is. */
    add(stream, a, a, 5);
    if (!is_random)
        assert_int_equal(read_one(other, a), 0);
    OK(cuStreamSynchronize(stream));
    add(stream, a, a, 5);
    OK(cuEventRecord(event, stream));
    OK(cuStreamWaitEvent(other, event, 0));
    OK(cuEventRecord(event, other)); /* the wait is for the record before */
    assert_int_equal(read_one(other, a), 10);
    for (int i = 0; i < 20; ++i) {
        CUstream from = i % 2 ? stream : other, to = i % 2 ? other : stream;
        add(from, a, a, 1);
        OK(cuEventRecord(event, from));
        OK(cuStreamWaitEvent(to, event, 0));
    }
    assert_int_equal(read_one(other, a), 30);
    OK(cuEventDestroy(event));
    assert_int_equal(cuEventRecord(event, stream), CUDA_ERROR_INVALID_HANDLE);
}

static void test_default_stream(void **state)
{
    CUstream blocking;
    OK(cuStreamCreateWithPriority(&blocking, CU_STREAM_DEFAULT, 0));
    fill(a, 0);
    add(blocking, a, a, 1);
    add(NULL, a, a, 1);
    add(blocking, a, a, 1);
    assert_int_equal(read_one(blocking, a), 3);
    add(blocking, a, a, 1);
    assert_int_equal(read_one(NULL, a), 4);
    OK(cuStreamDestroy(blocking));
}

/* ---- capture ---- */

static void test_capture(void **state)
{
    CUevent fork_event, join_event;
    CUgraph graph;
    CUgraphExec exec;
    OK(cuEventCreate(&fork_event, CU_EVENT_DISABLE_TIMING));
    OK(cuEventCreate(&join_event, CU_EVENT_DISABLE_TIMING));
    fill(a, 1);
    fill(b, 0);
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    add(stream, a, a, 1);
    OK(cuEventRecord(fork_event, stream));
    OK(cuStreamWaitEvent(other, fork_event, 0));
    add(other, b, a, 10);
    OK(cuMemsetD32Async(a + 4 * 2000, 6, 4, stream));
    OK(cuEventRecord(join_event, other));
    OK(cuStreamWaitEvent(stream, join_event, 0));
    OK(cuMemcpyDtoDAsync(b + 4 * 2000, b, 4, stream));
    assert_int_equal(cuEventQuery(join_event), CUDA_ERROR_CAPTURED_EVENT);
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiate(&exec, graph, 0));
    OK(cuGraphDestroy(graph));
    assert_int_equal(read_one(stream, a), 1); /* nothing ran */
    OK(cuGraphUpload(exec, stream));
    for (int i = 2; i < 5; ++i) {
        OK(cuGraphLaunch(exec, stream));
        assert_int_equal(read_one(stream, b + 4 * 2000), i + 10);
        assert_int_equal(read_one(stream, a + 4 * 2003), 6);
    }
    OK(cuGraphLaunch(exec, stream));
    OK(cuGraphExecDestroy(exec)); /* what was launched still runs */
    assert_int_equal(read_one(stream, b), 15);
    assert_int_equal(cuGraphLaunch(exec, stream), CUDA_ERROR_INVALID_VALUE);
    OK(cuEventDestroy(fork_event));
    OK(cuEventDestroy(join_event));
}

static void begin(void)
{
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    add(stream, a, a, 1);
}

static void end_spoiled(CUresult expected)
{
    CUgraph graph;
    assert_int_equal(cuStreamEndCapture(stream, &graph), expected);
    assert_null(graph);
}

static void test_capture_forbids_to_load(void **state)
{
    CUgraph graph;
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    assert_int_equal(launch("k_trap", stream, 1, 32, 0, (params_t){a, b, 0, 0}),
                     CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    end_spoiled(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    OK(cuFuncLoad(function_of("k_trap")));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(launch("k_trap", stream, 1, 32, 0, (params_t){a, b, 0, 0}));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphDestroy(graph));
}

static void test_capture_forbids(void **state)
{
    CUevent event, outside;
    CUdeviceptr c;
    CUgraph graph;
    OK(cuEventCreate(&event, 0));
    OK(cuEventCreate(&outside, 0));
    begin();
    assert_int_equal(cuStreamSynchronize(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_int_equal(cuMemsetD8Async(a, 0, 1, stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    end_spoiled(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin();
    assert_int_equal(cuMemAlloc(&c, 100), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    end_spoiled(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin();
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    end_spoiled(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin();
    OK(cuEventRecord(event, stream));
    OK(cuStreamWaitEvent(other, event, 0));
    add(other, b, b, 1);
    end_spoiled(CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    OK(cuEventRecord(outside, other));
    begin();
    assert_int_equal(cuStreamWaitEvent(stream, outside, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    end_spoiled(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_int_equal(cuStreamEndCapture(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuMemAlloc(&c, 100));
    OK(cuMemFree(c));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphDestroy(graph));
    OK(cuEventDestroy(event));
    OK(cuEventDestroy(outside));
    OK(cuStreamSynchronize(other));
}

static void on_call(void *argument)
{
    int **cell = argument;
    **cell += 1; /* device memory */
}

static void test_library_call(void **state)
{
    CUgraph graph;
    CUgraphExec exec;
    fill(a, 0);
    OK(sim_enqueue(stream, on_call, &a, sizeof a));
    assert_int_equal(read_one(stream, a), 1);
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(sim_enqueue(stream, on_call, &a, sizeof a));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiate(&exec, graph, 0));
    OK(cuGraphDestroy(graph));
    OK(cuGraphLaunch(exec, stream));
    OK(cuGraphLaunch(exec, stream));
    assert_int_equal(read_one(stream, a), 3);
    OK(cuGraphExecDestroy(exec));
}

/* ---- memory ---- */

static const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                         .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};

static CUresult access_of(CUdeviceptr at, size_t bytes, CUmemAccess_flags flags)
{
    CUmemAccessDesc desc = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}, .flags = flags};
    return cuMemSetAccess(at, bytes, &desc, 1);
}

static void test_mapping(void **state)
{
    CUdeviceptr base;
    CUmemGenericAllocationHandle one, two;
    size_t left, now, total;
    const CUmemAccess_flags both = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    OK(cuMemGetInfo(&left, &total));
    assert_int_equal(cuMemAddressReserve(&base, PIECE + 1, 0, 0, 0), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemAddressReserve(&base, 8 * PIECE, 0, 0, 0));
    assert_int_equal(cuMemCreate(&one, 4096, &prop, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemCreate(&one, total + PIECE, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemCreate(&one, PIECE, &prop, 0));
    OK(cuMemCreate(&two, 2 * PIECE, &prop, 0));
    OK(cuMemGetInfo(&now, &total));
    assert_int_equal(left - now, 3 * PIECE);
    assert_int_equal(cuMemMap(base, PIECE, 0, two, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemMap(base + 7 * PIECE, 2 * PIECE, 0, two, 0), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemMap(base, PIECE, 0, one, 0));
    assert_int_equal(cuMemMap(base, 2 * PIECE, 0, two, 0), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemMap(base + PIECE, 2 * PIECE, 0, two, 0));
    assert_int_equal(cuMemsetD8Async(base, 1, 1, stream), CUDA_ERROR_INVALID_VALUE); /* no access yet */
    assert_int_equal(access_of(base, 2 * PIECE, both), CUDA_ERROR_INVALID_VALUE);
    OK(access_of(base, 3 * PIECE, both));
    assert_int_equal(read_one(stream, base + 3 * PIECE - 4), 0x7f7f7f7f);
    OK(cuMemsetD8Async(base, 1, 3 * PIECE, stream)); /* across mappings */
    assert_int_equal(read_one(stream, base + 3 * PIECE - 4), 0x01010101);
    assert_int_equal(cuMemsetD8Async(base, 1, 3 * PIECE + 1, stream), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemRelease(two));
    assert_int_equal(cuMemRelease(two), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(base + PIECE, PIECE), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(base + 2 * PIECE, 2 * PIECE), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemUnmap(base + PIECE, 2 * PIECE));
    OK(cuMemGetInfo(&now, &total));
    assert_int_equal(left - now, PIECE);
    OK(cuMemUnmap(base, PIECE)); /* the handle keeps its bytes */
    OK(cuMemMap(base + 4 * PIECE, PIECE, 0, one, 0));
    OK(access_of(base + 4 * PIECE, PIECE, CU_MEM_ACCESS_FLAGS_PROT_READ));
    assert_int_equal(read_one(stream, base + 4 * PIECE), 0x01010101);
    assert_int_equal(cuMemAddressFree(base, 8 * PIECE), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemUnmap(base + 4 * PIECE, PIECE));
    assert_int_equal(cuMemAddressFree(base, PIECE), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemAddressFree(base, 8 * PIECE));
    OK(cuMemRelease(one));
    OK(cuMemGetInfo(&now, &total));
    assert_int_equal(left, now);
}

static void test_pointers(void **state)
{
    unsigned kind;
    CUdeviceptr start;
    static char room[8192];
    OK(cuPointerGetAttribute(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, a + 8));
    assert_int_equal(kind, CU_MEMORYTYPE_DEVICE);
    OK(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, a + 8));
    assert_int_equal(start, a);
    assert_int_equal(cuPointerGetAttribute(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)room),
                     CUDA_ERROR_INVALID_VALUE);
    OK(cuMemHostRegister(room, sizeof room, 0));
    assert_int_equal(cuMemHostRegister(room + 4096, 4096, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    OK(cuPointerGetAttribute(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)room));
    assert_int_equal(kind, CU_MEMORYTYPE_HOST);
    OK(cuMemHostUnregister(room));
    assert_int_equal(cuMemHostUnregister(room), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    assert_int_equal(cuMemsetD8Async(a, 0, 16385, stream), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree(a + 512), CUDA_ERROR_INVALID_VALUE);
}

static void touch_device(void)
{
    *(volatile int *)a = 1;
}

static void touch_device_after_work(void)
{
    add(stream, a, a, 1);
    cuStreamSynchronize(stream);
    *(volatile int *)a = 1;
}

static void test_strict(void **state)
{
    assert_int_equal(signal_of(touch_device), SIGSEGV);
    assert_int_equal(signal_of(touch_device_after_work), SIGSEGV);
}

/* ---- faults ---- */

static void test_inject(void **state)
{
    CUdeviceptr c;
    sim_fail_next("cuMemAlloc", CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuStreamQuery(stream));
    assert_int_equal(cuMemAlloc(&c, 1), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemAlloc(&c, 1));
    OK(cuMemFree(c));
    sim_set_fault(CUDA_ERROR_ECC_UNCORRECTABLE);
    assert_int_equal(cuStreamQuery(stream), CUDA_ERROR_ECC_UNCORRECTABLE);
    assert_int_equal(cuMemAlloc(&c, 1), CUDA_ERROR_ECC_UNCORRECTABLE);
    sim_set_fault(CUDA_SUCCESS);
    OK(cuStreamQuery(stream));
}

static void test_faults(void **state)
{
    CUdeviceptr base;
    CUmemGenericAllocationHandle handle;
    OK(launch("k_add", stream, 1, 32, 0, (params_t){a, 64, 1, 0}));
    check_fault(CUDA_ERROR_ILLEGAL_ADDRESS);
    OK(launch("k_add", stream, 1, 64, 0, (params_t){a, b, 4200, 0})); /* past the end */
    check_fault(CUDA_ERROR_ILLEGAL_ADDRESS);
    OK(launch("k_trap", stream, 1, 64, 0, (params_t){a, b, 0, 0}));
    check_fault(CUDA_ERROR_LAUNCH_FAILED);
    OK(launch("k_deep", stream, 1, 64, 0, (params_t){a, b, 0, 100000}));
    check_fault(CUDA_ERROR_ILLEGAL_ADDRESS);
    OK(cuMemAddressReserve(&base, PIECE, 0, 0, 0));
    OK(cuMemCreate(&handle, PIECE, &prop, 0));
    OK(cuMemMap(base, PIECE, 0, handle, 0));
    OK(cuMemRelease(handle));
    OK(access_of(base, PIECE, CU_MEM_ACCESS_FLAGS_PROT_READ));
    add(stream, b, base, 0);
    OK(cuStreamSynchronize(stream));
    add(stream, base, b, 0); /* sealed */
    check_fault(CUDA_ERROR_ILLEGAL_ADDRESS);
    OK(access_of(base, PIECE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE));
    add(stream, base, b, 0);
    OK(cuMemUnmap(base, PIECE)); /* too early */
    check_fault(CUDA_ERROR_ILLEGAL_ADDRESS);
    OK(cuMemAddressFree(base, PIECE));
}

static void test_context(void **state)
{
    CUdeviceptr c;
    OK(cuCtxSetCurrent(NULL));
    assert_int_equal(cuMemAlloc(&c, 1), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuCtxSetCurrent(context));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuDevicePrimaryCtxRelease(0));
    OK(cuMemAlloc(&c, 1));
    OK(cuMemFree(c));
}

static void test_leaves_nothing(void **state)
{
    sim_counters_t now;
    OK(cuMemFree(a));
    OK(cuMemFree(b));
    OK(cuStreamDestroy(stream));
    OK(cuStreamDestroy(other));
    OK(cuModuleUnload(module));
    sim_counters(&now);
    assert_int_equal(now.allocations + now.handles + now.reservations + now.reserved_bytes + now.mapped_bytes +
                         now.used_bytes + now.pinned_bytes + now.streams + now.events + now.modules + now.graphs +
                         now.graph_execs,
                     0);
    OK(cuDevicePrimaryCtxRelease(0));
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_symbols),
        cmocka_unit_test(test_telemetry),
        cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_default_stream),
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_capture_forbids),
        cmocka_unit_test(test_capture_forbids_to_load),
        cmocka_unit_test(test_library_call),
        cmocka_unit_test(test_mapping),
        cmocka_unit_test(test_pointers),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_inject),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
