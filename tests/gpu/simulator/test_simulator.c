/* test_simulator.c - the double of CUDA's driver keeps CUDA's rules: threads of a block, memory, streams, capture,
 * faults. Kernels come through the simulated NVRTC. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dlfcn.h>

#include <cmocka.h>

#include "gpu/cuda/api.h"
#include "tests/gpu/simulator/simulator.h"

#define PIECE (2ull << 20)
#define N 1000u
#define OK(call) assert_int_equal(call, CUDA_SUCCESS)

static const char text[] =
    "#include \"given.h\"\n"
    "#include \"gpu/cuda/kernels/kernel.cuh\"\n"
    "DJ_KERNEL(k_add, params_t) { for (int64_t i = dj_grid_first(); i < p.n; i += dj_grid_stride())\n"
    "    p.out[i] = p.in[i] + p.value; }\n"
    "DJ_KERNEL(k_sum, params_t) {\n"
    "    __shared__ int part[32];\n"
    "    int sum = 0;\n"
    "    for (int64_t i = dj_grid_first(); i < p.n; i += dj_grid_stride()) sum += p.in[i];\n"
    "    for (int m = 16; m; m >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, m);\n"
    "    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;\n"
    "    __syncthreads();\n"
    "    if (threadIdx.x >= 32) return;\n"
    "    sum = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;\n"
    "    for (int d = 16; d; d >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, d);\n"
    "    if (threadIdx.x == 0) atomicAdd(p.out, sum); }\n"
    "DJ_KERNEL(k_turn, params_t) {\n" /* dynamic shared memory, turned around within a block */
    "    DJ_SHARED(int, room);\n"
    "    room[threadIdx.x] = p.in[threadIdx.x];\n"
    "    __syncthreads();\n"
    "    p.out[threadIdx.x] = room[blockDim.x - 1 - threadIdx.x]; }\n"
    "DJ_KERNEL(k_vote, params_t) {\n"
    "    unsigned votes = __ballot_sync(0xffffffffu, threadIdx.x % 3 == 0);\n"
    "    int up = __shfl_up_sync(0xffffffffu, (int)threadIdx.x, 1), of = __shfl_sync(0xffffffffu, (int)threadIdx.x, 5);\n"
    "    int down = __shfl_down_sync(0xffffffffu, (int)threadIdx.x, 3, 8);\n"
    "    p.out[4 * threadIdx.x] = (int)votes; p.out[4 * threadIdx.x + 1] = up; p.out[4 * threadIdx.x + 2] = of;\n"
    "    p.out[4 * threadIdx.x + 3] = down; }\n"
    "DJ_KERNEL(k_where, params_t) {\n"
    "    int at = (blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x * blockDim.y * blockDim.z\n"
    "        + (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;\n"
    "    p.out[at] = at; }\n"
    "DJ_KERNEL(k_race, params_t) {\n" /* no barrier between a write and a read of shared memory */
    "    __shared__ int last;\n"
    "    if (threadIdx.x == 0) last = 0;\n"
    "    __syncthreads();\n"
    "    last = threadIdx.x;\n"
    "    __syncthreads();\n"
    "    p.out[0] = last; }\n"
    "DJ_KERNEL(k_stuck, params_t) { if (threadIdx.x < 16) __syncthreads(); else __syncwarp(); }\n"
    "DJ_KERNEL(k_gone, params_t) { if (threadIdx.x == 7) return;\n"
    "    p.out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 7); }\n"
    "DJ_KERNEL(k_trap, params_t) { __trap(); }\n"
    "DJ_KERNEL(k_skew, params_t) { p.out[0] = *(int *)((char *)p.in + p.value); }\n"
    "DJ_KERNEL(k_beside, params_t) { __shared__ int room[4]; room[p.value] = 1; p.out[0] = room[0]; }\n"
    "DJ_KERNEL(k_unset, params_t) { __shared__ int room; p.out[0] = room; __syncthreads(); room = 1; }\n"
    "__attribute__((noinline)) static int deep(int n) { volatile int room[1000]; room[0] = n;\n"
    "    return n ? deep(n - 1) + room[0] : 0; }\n"
    "DJ_KERNEL(k_deep, params_t) { p.out[0] = deep(p.value); }\n";

static const char given[] = "struct params_t; typedef struct params_t params_t;\n"
                            "#include <stdint.h>\n"
                            "struct params_t { int *in, *out; int64_t n; int value; };\n";

typedef struct params {
    CUdeviceptr in, out;
    int64_t n;
    int value;
} params_t;

static CUmodule module;
static CUcontext context;
static CUstream stream, other;
static CUdeviceptr a, b;
static int host[4096];
static bool is_random; /* DJ_SIM_SEED: other streams may run ahead */

/* ---- helpers ---- */

static CUfunction function_of(const char *name)
{
    CUfunction function;
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

static CUresult launch(const char *name, CUstream on, unsigned blocks, unsigned threads, unsigned shared, params_t p)
{
    void *params[] = {&p};
    CUresult result = cuLaunchKernel(function_of(name), blocks, 1, 1, threads, 1, 1, shared, on, params, NULL);
    memset(&p, 0, sizeof p); /* they were copied */
    return result;
}

static void add(CUstream on, CUdeviceptr out, CUdeviceptr in, int value)
{
    OK(launch("k_add", on, 3, 64, 0, (params_t){in, out, N, value}));
}

/* The first number of device memory, as it is when `on` is done. */
static int read_one(CUstream on, CUdeviceptr from)
{
    int value;
    OK(cuMemcpyDtoHAsync(&value, from, sizeof value, on));
    OK(cuStreamSynchronize(on));
    return value;
}

static void fill(CUdeviceptr at, int value)
{
    OK(cuMemsetD32Async(at, (unsigned)value, N, stream));
    OK(cuStreamSynchronize(stream));
}

static int setup(void **state)
{
    nvrtcProgram program;
    size_t bytes;
    const char *headers[] = {given}, *names[] = {"given.h"};
    is_random = getenv("DJ_SIM_SEED") != NULL;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    OK(nvrtcCreateProgram(&program, text, "text", 1, headers, names));
    int result = nvrtcCompileProgram(program, 0, NULL);
    OK(nvrtcGetProgramLogSize(program, &bytes));
    char *log = malloc(bytes);
    OK(nvrtcGetProgramLog(program, log));
    if (log[0])
        fprintf(stderr, "%s\n", log);
    free(log);
    OK(result);
    OK(nvrtcGetCUBINSize(program, &bytes));
    char *cubin = malloc(bytes);
    OK(nvrtcGetCUBIN(program, cubin));
    OK(nvrtcDestroyProgram(&program));
    OK(cuModuleLoadData(&module, cubin));
    free(cubin);
    OK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, 0));
    OK(cuStreamCreateWithPriority(&other, CU_STREAM_NON_BLOCKING, 0));
    OK(cuMemAlloc(&a, 16384));
    OK(cuMemAlloc(&b, 16384));
    return 0;
}

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

/* ---- threads ---- */

static void test_threads(void **state)
{
    fill(a, 1);
    add(stream, b, a, 4);
    assert_int_equal(read_one(stream, b + 4 * (N - 1)), 5);
    for (unsigned warps = 1; warps <= 32; warps *= 2) {
        fill(b, 0);
        OK(launch("k_sum", stream, 3, 32 * warps, 0, (params_t){a, b, N, 0}));
        assert_int_equal(read_one(stream, b), N);
    }
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

/* Runs the function in a process of its own; the signal that ended it, 0: none. */
static int signal_of(void (*fn)(void))
{
    pid_t child = fork();
    int status;
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        fn();
        _exit(0);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
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

static void check_fault(CUresult expected)
{
    assert_int_equal(cuStreamSynchronize(stream), expected);
    assert_int_equal(cuStreamQuery(other), expected); /* sticky */
    sim_set_fault(CUDA_SUCCESS);
    fill(a, 3); /* the simulator itself is well */
    assert_int_equal(read_one(stream, a), 3);
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
        cmocka_unit_test(test_symbols),
        cmocka_unit_test(test_telemetry),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_votes),
        cmocka_unit_test(test_grid),
        cmocka_unit_test(test_deadlock),
        cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_default_stream),
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_capture_forbids),
        cmocka_unit_test(test_library_call),
        cmocka_unit_test(test_mapping),
        cmocka_unit_test(test_pointers),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_inject),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
