/* fixture.h - kernels, streams and memory on the simulator, for its own tests. Include in one file. */
#ifndef DJ_TESTS_SIMULATOR_FIXTURE_H
#define DJ_TESTS_SIMULATOR_FIXTURE_H

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

/* A group's setup: kernels, two streams, two pieces of 16 KiB of memory. */
static int setup(void **state)
{
    nvrtcProgram program;
    size_t bytes;
    const char *headers[] = {given}, *names[] = {"given.h"};
    const char *seed = getenv("DJ_SIM_SEED");
    is_random = seed && strcmp(seed, "0") != 0;
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

/* Runs the function in a process of its own; the signal that ended it, 0: none. */
__attribute__((unused)) static int signal_of(void (*fn)(void))
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

__attribute__((unused)) static void check_fault(CUresult expected)
{
    assert_int_equal(cuStreamSynchronize(stream), expected);
    assert_int_equal(cuStreamQuery(other), expected); /* sticky */
    sim_set_fault(CUDA_SUCCESS);
    fill(a, 3); /* the simulator itself is well */
    assert_int_equal(read_one(stream, a), 3);
}

#endif
