/* jit.c - texts to functions: NVRTC, in front of it the cubins on disk (jit_cache.h), in front of these a table.
 *
 * The key is a hash over all that decides the machine code: the text, the headers that it includes, the options, the
 * compute capability and NVRTC's version. The headers are in this program, so that a compiled kernel and the host
 * that fills its parameters come from the same tree.
 *
 * Two threads may compile one text at the same time; the later one takes the earlier one's function. Nothing is
 * locked while a compiler runs.
 *
 * An executable holds what it uses. Of what nobody holds the DJ_CUDA_JIT_IDLE_MAX that were dropped last are kept; so
 * the table does not grow with every program that ever came. The oldest one is unloaded by whoever drops one more,
 * outside of the lock, because the driver may wait there for the work of all streams. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/jit_cache.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "jit"

/* X(symbol, name as it is included) */
#define HEADERS(X)                                                                                                    \
    X(params, "gpu/cuda/kernels/params.h")                                                                            \
    X(kernel, "gpu/cuda/kernels/kernel.cuh")                                                                          \
    X(fused, "gpu/cuda/kernels/fused.cuh")                                                                            \
    X(pointwise, "gpu/pointwise.h")
#define EMBED(symbol, name)                                                                                           \
    __asm__(".pushsection .rodata\n.globl dj_jit_" #symbol "\n.hidden dj_jit_" #symbol "\n"                           \
            "dj_jit_" #symbol ":\n.incbin \"" DJ_SOURCE_FOLDER "/" name "\"\n.byte 0\n.popsection\n");                \
    extern const char dj_jit_##symbol[];
HEADERS(EMBED)
#define HEADER_TEXT(symbol, name) dj_jit_##symbol,
static const char *const header_texts[] = {HEADERS(HEADER_TEXT)};
#define HEADER_NAME(symbol, name) name,
static const char *const header_names[] = {HEADERS(HEADER_NAME)};
enum { N_HEADERS = sizeof(header_texts) / sizeof(*header_texts) };

/* --fmad=false: each operation of an expression rounds, as written, however the steps were grouped. */
static const char *const fixed_options[] = {"--std=c++17", "-default-device", "--fmad=false"};
enum { N_FIXED = sizeof(fixed_options) / sizeof(*fixed_options) };

#define LOG_BYTES_MAX (1u << 20)
#define INVALID_OPTION 5 /* NVRTC_ERROR_INVALID_OPTION */

typedef struct dj_cuda_jit_entry entry_t;
struct dj_cuda_jit_entry {
    dj_hash_t source;
    CUmodule module;
    CUfunction function;
    entry_t *next;
    uint32_t holders;
    entry_t *older, *newer; /* of those without holders */
};

#define BUCKETS 256u

typedef struct dj_cuda_jit dj_cuda_jit_t;
struct dj_cuda_jit {
    pthread_mutex_t lock;
    entry_t *buckets[BUCKETS];
    entry_t *oldest, *newest; /* that nobody holds */
    uint32_t n_idle;
    dj_hash_t headers; /* and options, compute capability, NVRTC's version */
    int major, minor;
    int folder; /* of cubins, -1: none */
};

dj_status_t dj_cuda_jit_open(dj_cuda_device_t *device, const char *cache_directory)
{
    int version[4] = {0, 0, device->major, device->minor};
    dj_cuda_jit_t *jit = calloc(1, sizeof(*jit));
    dj_hasher_t *hasher = dj_hasher_create();
    if (!jit || !hasher) {
        free(jit);
        if (hasher)
            dj_hasher_destroy(hasher);
        return dj_fail(DJ_ERR_MEMORY, "no memory for compiled kernels");
    }
    pthread_mutex_init(&jit->lock, NULL);
    if (dj_cuda.has.nvrtc)
        dj_cuda.nvrtcVersion(&version[0], &version[1]);
    jit->major = device->major;
    jit->minor = device->minor;
    dj_hasher_update(hasher, version, sizeof(version));
    for (uint32_t i = 0; i < N_FIXED; i++)
        dj_hasher_update(hasher, fixed_options[i], strlen(fixed_options[i]) + 1);
    for (uint32_t i = 0; i < N_HEADERS; i++)
        dj_hasher_update(hasher, header_texts[i], strlen(header_texts[i]) + 1);
    jit->headers = dj_hasher_destroy(hasher);
    jit->folder = dj_cuda.has.nvrtc ? dj_jit_cache_open(cache_directory ? cache_directory : "") : -1;
    if (dj_cuda.has.nvrtc && jit->folder < 0)
        dj_log(WARN, "%s", dj_error_text());
    device->jit = jit;
    return DJ_OK;
}

void dj_cuda_jit_close(dj_cuda_device_t *device)
{
    dj_cuda_jit_t *jit = device->jit;
    if (!jit)
        return;
    for (uint32_t i = 0; i < BUCKETS; i++)
        while (jit->buckets[i]) {
            entry_t *entry = jit->buckets[i];
            jit->buckets[i] = entry->next;
            dj_cuda.cuModuleUnload(entry->module);
            free(entry);
        }
    dj_jit_cache_close(jit->folder);
    pthread_mutex_destroy(&jit->lock);
    free(jit);
    device->jit = NULL;
}

/* ---- compile ---- */

/* The end of the compiler's log into the status's sentence, all of it into our log. */
static dj_status_t fail_compile(nvrtcProgram program, const char *name, int result)
{
    size_t bytes = 0;
    char *log = NULL;
    if (dj_cuda.nvrtcGetProgramLogSize(program, &bytes) == 0 && bytes > 0 && bytes <= LOG_BYTES_MAX)
        log = calloc(1, bytes + 1);
    if (log && dj_cuda.nvrtcGetProgramLog(program, log) != 0)
        log[0] = 0;
    dj_log(ERROR, "%s: NVRTC failed with %d: %s", name, result, log ? log : "");
    dj_status_t status =
        dj_fail(DJ_ERR_INTERNAL, "kernel %s: NVRTC failed with %d: %.300s", name, result, log ? log : "");
    free(log);
    return status;
}

static dj_status_t take_cubin(nvrtcProgram program, const char *name, void **cubin_p, size_t *bytes_p)
{
    size_t bytes = 0;
    if (dj_cuda.nvrtcGetCUBINSize(program, &bytes) != 0 || bytes == 0 || bytes > DJ_JIT_CUBIN_BYTES_MAX)
        return dj_fail(DJ_ERR_INTERNAL, "kernel %s: NVRTC made a cubin of %zu bytes", name, bytes);
    char *cubin = malloc(bytes);
    if (!cubin)
        return dj_fail(DJ_ERR_MEMORY, "kernel %s: no memory for its cubin of %zu bytes", name, bytes);
    if (dj_cuda.nvrtcGetCUBIN(program, cubin) != 0) {
        free(cubin);
        return dj_fail(DJ_ERR_INTERNAL, "kernel %s: NVRTC gave no cubin", name);
    }
    *cubin_p = cubin;
    *bytes_p = bytes;
    return DJ_OK;
}

/* An NVRTC older than the GPU may know a lower number of its generation, whose machine code runs there, too. */
static int compile_for(const dj_cuda_jit_t *jit, nvrtcProgram program)
{
    const char *options[N_FIXED + 1];
    char architecture[48];
    int result = INVALID_OPTION;
    memcpy(options, fixed_options, sizeof(fixed_options));
    options[N_FIXED] = architecture;
    for (int minor = jit->minor; minor >= 0 && result == INVALID_OPTION; minor--) {
        snprintf(architecture, sizeof(architecture), "--gpu-architecture=sm_%d%d", jit->major, minor);
        result = dj_cuda.nvrtcCompileProgram(program, N_FIXED + 1, options);
    }
    return result;
}

static dj_status_t compile(const dj_cuda_jit_t *jit, const char *source, const char *name, void **cubin_p,
                           size_t *bytes_p)
{
    nvrtcProgram program;
    uint64_t start_ns = dj_clock_ns();
    int result = dj_cuda.nvrtcCreateProgram(&program, source, name, N_HEADERS, header_texts, header_names);
    if (result != 0)
        return dj_fail(DJ_ERR_INTERNAL, "kernel %s: NVRTC does not start, with %d", name, result);
    result = compile_for(jit, program);
    dj_status_t status = result == INVALID_OPTION ? dj_fail(DJ_ERR_UNSUPPORTED, "this NVRTC has no code for a GPU of "
                                                            "compute capability %d.%d; install a newer CUDA",
                                                            jit->major, jit->minor)
                         : result != 0 ? fail_compile(program, name, result)
                                       : take_cubin(program, name, cubin_p, bytes_p);
    dj_cuda.nvrtcDestroyProgram(&program);
    if (status == DJ_OK)
        dj_log(DEBUG, "%s: compiled in %.1f ms, %zu bytes", name, (double)(dj_clock_ns() - start_ns) / 1e6, *bytes_p);
    return status;
}

/* ---- load ---- */

static dj_status_t load(const void *cubin, const char *name, entry_t *entry)
{
    dj_status_t status = dj_cuda_status(dj_cuda.cuModuleLoadData(&entry->module, cubin), name);
    if (status != DJ_OK)
        return status;
    status = dj_cuda_status(dj_cuda.cuModuleGetFunction(&entry->function, entry->module, name), name);
    if (status == DJ_OK) /* not at its first launch: module.c says why */
        status = dj_cuda_status(dj_cuda.cuFuncLoad(entry->function), name);
    if (status != DJ_OK)
        dj_cuda.cuModuleUnload(entry->module);
    return status;
}

static dj_status_t load_kept(const dj_cuda_jit_t *jit, dj_hash_t key, const char *name, entry_t *entry)
{
    size_t bytes;
    void *cubin = dj_jit_cache_read(jit->folder, key, &bytes);
    if (!cubin)
        return DJ_ERR_NO_PLAN;
    dj_status_t status = load(cubin, name, entry);
    free(cubin);
    if (status != DJ_OK && status != DJ_ERR_DEVICE && status != DJ_ERR_MEMORY) { /* whole, and no kernel for this driver */
        dj_log(WARN, "%s; it is compiled again", dj_error_text());
        dj_jit_cache_remove(jit->folder, key);
        return DJ_ERR_NO_PLAN;
    }
    return status;
}

static dj_status_t make(const dj_cuda_jit_t *jit, const char *source, const char *name, entry_t *entry)
{
    void *cubin = NULL;
    size_t bytes = 0;
    dj_hash_t key = dj_hash_pair(&jit->headers, sizeof(jit->headers), source, strlen(source));
    if (!dj_cuda.has.nvrtc)
        return dj_fail(DJ_ERR_UNSUPPORTED, "pointwise kernels need NVRTC, and there is no libnvrtc here; install "
                       "CUDA's or put its folder in LD_LIBRARY_PATH");
    dj_status_t status = load_kept(jit, key, name, entry);
    if (status != DJ_ERR_NO_PLAN)
        return status;
    status = compile(jit, source, name, &cubin, &bytes);
    if (status == DJ_OK)
        status = load(cubin, name, entry);
    if (status == DJ_OK && dj_jit_cache_write(jit->folder, key, cubin, bytes) != DJ_OK)
        dj_log(DEBUG, "%s", dj_error_text());
    else if (status == DJ_OK)
        dj_jit_cache_trim(jit->folder, DJ_JIT_CACHE_BYTES_MAX);
    free(cubin);
    return status;
}

/* ---- the table ---- */

static entry_t *find(const dj_cuda_jit_t *jit, dj_hash_t source)
{
    entry_t *entry = jit->buckets[source.word[0] % BUCKETS];
    while (entry && !dj_hash_equal(entry->source, source))
        entry = entry->next;
    return entry;
}

static void idle_remove(dj_cuda_jit_t *jit, entry_t *entry)
{
    *(entry->older ? &entry->older->newer : &jit->oldest) = entry->newer;
    *(entry->newer ? &entry->newer->older : &jit->newest) = entry->older;
    entry->older = entry->newer = NULL;
    jit->n_idle--;
}

static void idle_add(dj_cuda_jit_t *jit, entry_t *entry)
{
    entry->older = jit->newest;
    *(jit->newest ? &jit->newest->newer : &jit->oldest) = entry;
    jit->newest = entry;
    jit->n_idle++;
}

static entry_t *hold(dj_cuda_jit_t *jit, entry_t *entry)
{
    if (entry && entry->holders++ == 0)
        idle_remove(jit, entry);
    return entry;
}

static void forget(dj_cuda_jit_t *jit, entry_t *entry)
{
    entry_t **at = &jit->buckets[entry->source.word[0] % BUCKETS];
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    idle_remove(jit, entry);
}

static void unload(entry_t *entry)
{
    dj_cuda.cuModuleUnload(entry->module);
    free(entry);
}

/* The entry that stays, held: another thread's, if it was faster. */
static entry_t *keep(dj_cuda_jit_t *jit, entry_t *made)
{
    pthread_mutex_lock(&jit->lock);
    entry_t *entry = hold(jit, find(jit, made->source));
    if (!entry) {
        entry_t **bucket = &jit->buckets[made->source.word[0] % BUCKETS];
        made->next = *bucket;
        made->holders = 1;
        *bucket = entry = made;
    }
    pthread_mutex_unlock(&jit->lock);
    if (entry != made)
        unload(made);
    return entry;
}

dj_status_t dj_cuda_jit_function(dj_cuda_device_t *device, const char *source, const char *name,
                                 CUfunction *function_p, dj_cuda_jit_entry_t **held_p)
{
    dj_cuda_jit_t *jit = device->jit;
    dj_hash_t hash = dj_hash_pair(name, strlen(name), source, strlen(source));
    pthread_mutex_lock(&jit->lock);
    entry_t *entry = hold(jit, find(jit, hash));
    pthread_mutex_unlock(&jit->lock);
    if (!entry) {
        entry_t *made = calloc(1, sizeof(*made));
        if (!made)
            return dj_fail(DJ_ERR_MEMORY, "kernel %s: no memory", name);
        made->source = hash;
        dj_status_t status = make(jit, source, name, made);
        if (status != DJ_OK) {
            free(made);
            return status;
        }
        entry = keep(jit, made);
    }
    *function_p = entry->function;
    *held_p = entry;
    return DJ_OK;
}

void dj_cuda_jit_drop(dj_cuda_device_t *device, dj_cuda_jit_entry_t *held)
{
    dj_cuda_jit_t *jit = device->jit;
    entry_t *surplus = NULL;
    pthread_mutex_lock(&jit->lock);
    if (--held->holders == 0)
        idle_add(jit, held);
    if (jit->n_idle > DJ_CUDA_JIT_IDLE_MAX) {
        surplus = jit->oldest;
        forget(jit, surplus);
    }
    pthread_mutex_unlock(&jit->lock);
    if (surplus)
        unload(surplus);
}
