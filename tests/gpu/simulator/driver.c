/* driver.c - the simulated driver's gate, its device, its context, and the hooks of tests. */
#include "tests/gpu/simulator/inner.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static bool initialized;
static uint64_t retains, generation = 1; /* of the primary context; the generation is its handle */
static _Thread_local uint64_t current;
static struct {
    char name[SIM_NAME_MAX];
    unsigned passed;
    CUresult result;
} injected;
static sim_object_t *objects;

sim_counters_t sim_count;
uint64_t sim_memory_bytes = 4ull << 30;
bool sim_strict = true;
uint64_t sim_seed;
CUresult sim_fault;

void sim_say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("simulator: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

void *sim_object_create(size_t bytes, enum sim_magic magic)
{
    sim_object_t *object = calloc(1, bytes);
    if (object == NULL)
        abort();
    object->magic = magic;
    object->next = objects;
    objects = object;
    return object;
}

/* Handles come from here alone and are never freed, so a pointer that is none of them is a caller's error that may
 * as well crash here. */
bool sim_is(const void *object, enum sim_magic magic)
{
    return object != NULL && ((const sim_object_t *)object)->magic == magic;
}

uint64_t sim_draw(void)
{
    static uint64_t state;
    if (state == 0)
        state = sim_seed * 0x9e3779b97f4a7c15ull + 1;
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return state >> 33;
}

/* ---- the gate ---- */

CUresult sim_enter(const char *name, enum sim_need need)
{
    pthread_mutex_lock(&lock);
    ++sim_count.entered;
    if (injected.name[0] && !strcmp(injected.name, name) && injected.passed-- == 0) {
        injected.name[0] = 0;
        return injected.result;
    }
    if (need >= SIM_INIT && !initialized)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (need < SIM_CONTEXT)
        return CUDA_SUCCESS;
    if (current == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (current != generation || retains == 0)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return sim_fault;
}

CUresult sim_leave(CUresult result)
{
    pthread_mutex_unlock(&lock);
    return result;
}

void sim_fail_after(const char *function, unsigned passed, CUresult result)
{
    pthread_mutex_lock(&lock);
    snprintf(injected.name, sizeof injected.name, "%s", function);
    injected.passed = passed;
    injected.result = result;
    pthread_mutex_unlock(&lock);
}

void sim_fail_next(const char *function, CUresult result)
{
    sim_fail_after(function, 0, result);
}

int sim_has_failed(void)
{
    pthread_mutex_lock(&lock);
    int has = injected.name[0] == 0;
    pthread_mutex_unlock(&lock);
    return has;
}

void sim_set_fault(CUresult result)
{
    pthread_mutex_lock(&lock);
    sim_fault = result;
    pthread_mutex_unlock(&lock);
}

void sim_stand(void)
{
    pthread_cond_wait(&ended, &lock);
}

void sim_hang_next(int stuck)
{
    pthread_mutex_lock(&lock);
    sim_hang_wanted = stuck ? SIM_STUCK : SIM_HANGS;
    pthread_mutex_unlock(&lock);
}

void sim_end_hang(void)
{
    pthread_mutex_lock(&lock);
    sim_hang_wanted = SIM_RUNS;
    for (sim_stream_t *stream = sim_streams; stream; stream = stream->next)
        stream->hangs = false;
    pthread_cond_broadcast(&ended);
    pthread_mutex_unlock(&lock);
}

void sim_counters(sim_counters_t *counters)
{
    pthread_mutex_lock(&lock);
    *counters = sim_count;
    counters->contexts = retains;
    pthread_mutex_unlock(&lock);
}

/* ---- init ---- */

static uint64_t size_of(const char *text, uint64_t otherwise)
{
    char *end;
    uint64_t size = text ? strtoull(text, &end, 10) : 0;
    if (size == 0)
        return otherwise;
    switch (*end) {
    case 'g':
    case 'G':
        return size << 30;
    case 'm':
    case 'M':
        return size << 20;
    case 'k':
    case 'K':
        return size << 10;
    default:
        return size;
    }
}

CUresult cuInit(unsigned flags)
{
    CUresult result = sim_enter("cuInit", SIM_ANYTIME);
    if (result == CUDA_SUCCESS && flags != 0)
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && !initialized) {
        const char *strict = getenv("DJ_SIM_STRICT");
        sim_memory_bytes = size_of(getenv("DJ_SIM_MEMORY"), sim_memory_bytes);
        sim_strict = !strict || strcmp(strict, "0");
        sim_seed = size_of(getenv("DJ_SIM_SEED"), 0);
        initialized = true;
    }
    return sim_leave(result);
}

CUresult cuDriverGetVersion(int *version)
{
    CUresult result = sim_enter("cuDriverGetVersion", SIM_ANYTIME);
    if (result == CUDA_SUCCESS)
        *version = 13000;
    return sim_leave(result);
}

/* X(code, what it means) */
#define ERRORS(X)                                                                                  \
    X(CUDA_SUCCESS, "no error")                                                                    \
    X(CUDA_ERROR_INVALID_VALUE, "invalid argument")                                                \
    X(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")                                                   \
    X(CUDA_ERROR_NOT_INITIALIZED, "initialization error")                                          \
    X(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected")                                  \
    X(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal")                                         \
    X(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid")                                  \
    X(CUDA_ERROR_INVALID_CONTEXT, "invalid device context")                                        \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device")    \
    X(CUDA_ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered")                         \
    X(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle")                                        \
    X(CUDA_ERROR_NOT_FOUND, "named symbol not found")                                              \
    X(CUDA_ERROR_NOT_READY, "device not ready")                                                    \
    X(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered")                      \
    X(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch")               \
    X(CUDA_ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated")                        \
    X(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed")                                     \
    X(CUDA_ERROR_ASSERT, "device-side assert triggered")                                           \
    X(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part of the memory range is already registered") \
    X(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered region") \
    X(CUDA_ERROR_HARDWARE_STACK_ERROR, "hardware stack error")                                     \
    X(CUDA_ERROR_ILLEGAL_INSTRUCTION, "an illegal instruction was encountered")                    \
    X(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned address")                                         \
    X(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure")                                      \
    X(CUDA_ERROR_NOT_PERMITTED, "operation not permitted")                                         \
    X(CUDA_ERROR_NOT_SUPPORTED, "operation not supported")                                         \
    X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing")   \
    X(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture") \
    X(CUDA_ERROR_STREAM_CAPTURE_MERGE, "operation would result in a merge of separate captures")   \
    X(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "capture was not ended in the same stream as it began") \
    X(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work")                    \
    X(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream") \
    X(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capture") \
    X(CUDA_ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capture") \
    X(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "capture was begun in a different thread")           \
    X(CUDA_ERROR_UNKNOWN, "unknown error")

CUresult cuGetErrorName(CUresult error, const char **name)
{
#define NAME(code, meaning)                                                                        \
    case code:                                                                                     \
        *name = #code;                                                                             \
        return CUDA_SUCCESS;
    switch ((int)error) {
        ERRORS(NAME)
    default:
        *name = NULL;
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
#define TEXT(code, meaning)                                                                        \
    case code:                                                                                     \
        *text = meaning;                                                                           \
        return CUDA_SUCCESS;
    switch ((int)error) {
        ERRORS(TEXT)
    default:
        *text = NULL;
        return CUDA_ERROR_INVALID_VALUE;
    }
}

/* ---- the context ---- */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    CUresult result = sim_enter("cuDevicePrimaryCtxRetain", SIM_INIT);
    if (result == CUDA_SUCCESS && device != 0)
        result = CUDA_ERROR_INVALID_DEVICE;
    if (result == CUDA_SUCCESS) {
        ++retains;
        *context = (CUcontext)(uintptr_t)generation;
    }
    return sim_leave(result);
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    CUresult result = sim_enter("cuDevicePrimaryCtxRelease", SIM_INIT);
    if (result == CUDA_SUCCESS && device != 0)
        result = CUDA_ERROR_INVALID_DEVICE;
    if (result == CUDA_SUCCESS && retains == 0)
        result = CUDA_ERROR_INVALID_CONTEXT;
    if (result == CUDA_SUCCESS && --retains == 0) {
        if (sim_fault == CUDA_SUCCESS)
            sim_run_all();
        sim_drop_all();
        sim_fault = CUDA_SUCCESS;
        ++generation;
    }
    return sim_leave(result);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    uint64_t value = (uint64_t)(uintptr_t)context;
    CUresult result = sim_enter("cuCtxSetCurrent", SIM_INIT);
    if (result == CUDA_SUCCESS && value != 0 && (value != generation || retains == 0))
        result = CUDA_ERROR_INVALID_CONTEXT;
    if (result == CUDA_SUCCESS)
        current = value;
    return sim_leave(result);
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    CUresult result = sim_enter("cuCtxGetCurrent", SIM_INIT);
    if (result == CUDA_SUCCESS)
        *context = (CUcontext)(uintptr_t)current;
    return sim_leave(result);
}

CUresult cuCtxSynchronize(void)
{
    CUresult result = sim_enter("cuCtxSynchronize", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = sim_capture_forbid(true);
    if (result == CUDA_SUCCESS) {
        ++sim_count.synchronizations;
        result = sim_run_all();
    }
    return sim_leave(result);
}
