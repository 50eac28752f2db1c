/* host_device.c - the host device: a full device whose memory is mapped memory.
 *
 * Reserve is a mapping without access and without backing; commit gives it access, and the kernel
 * supplies zeroed pages on first touch; decommit maps the range anew, which returns the pages and
 * the access in one call; seal takes write access away, so a stray write to a weight is a fault at
 * the writer and not a wrong answer somewhere else.
 *
 * Executables are in replay.c. The class hash holds what a plan depends on: the instruction set,
 * the library's version, and the thread count, because oneDNN sizes its scratchpads by it. */
#define DJ_LOG_MODULE "gpu"

#include <cpuid.h>
#include <errno.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu/host/executable.h"
#include "planner/plugin.h"
#include "runtime/base/log.h"

#define THREADS_MAX 1024u

static dj_status_t memory_reserve(dj_device_t *device, uint64_t bytes, void **base_p)
{
    void *base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return dj_fail(DJ_ERR_MEMORY, "cannot reserve %llu bytes of address space: %s",
                       (unsigned long long)bytes, strerror(errno));
    *base_p = base;
    return DJ_OK;
}

static dj_status_t memory_commit(dj_device_t *device, void *base, uint64_t bytes)
{
    if (mprotect(base, bytes, PROT_READ | PROT_WRITE) != 0)
        return dj_fail(DJ_ERR_MEMORY, "cannot back %llu bytes with memory: %s",
                       (unsigned long long)bytes, strerror(errno));
    return DJ_OK;
}

static void memory_decommit(dj_device_t *device, void *base, uint64_t bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (mmap(base, bytes, PROT_NONE, flags, -1, 0) != MAP_FAILED)
        return;
    /* Out of mappings: the pages can go even so. */
    dj_log(WARN, "cannot unmap %llu bytes: %s; dropping their pages", (unsigned long long)bytes,
           strerror(errno));
    madvise(base, bytes, MADV_DONTNEED);
}

static dj_status_t memory_seal(dj_device_t *device, void *base, uint64_t bytes, bool sealed)
{
    if (mprotect(base, bytes, sealed ? PROT_READ : PROT_READ | PROT_WRITE) != 0)
        return dj_fail(DJ_ERR_SYSTEM, "cannot %s %llu bytes: %s", sealed ? "seal" : "unseal",
                       (unsigned long long)bytes, strerror(errno));
    return DJ_OK;
}

static void memory_release(dj_device_t *device, void *base, uint64_t bytes)
{
    munmap(base, bytes);
}

static dj_status_t memory_copy_in(dj_device_t *device, void *target, const void *host, uint64_t bytes)
{
    if (bytes)
        memcpy(target, host, bytes);
    return DJ_OK;
}

static dj_status_t memory_copy_out(dj_device_t *device, void *host, const void *source, uint64_t bytes)
{
    if (bytes)
        memcpy(host, source, bytes);
    return DJ_OK;
}

static dj_status_t memory_copy(dj_device_t *device, void *target, const void *source, uint64_t bytes)
{
    if (bytes)
        memmove(target, source, bytes);
    return DJ_OK;
}

static const dj_host_kernels_t *choose_kernels(void)
{
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi2");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
    if (avx512)
        return &dj_host_kernels_avx512;
    return avx2 ? &dj_host_kernels_avx2 : &dj_host_kernels_base;
}

static void processor_name(char *name, size_t size)
{
    char text[49] = "";
    for (unsigned i = 0; i < 3; i++) {
        unsigned word[4];
        if (!__get_cpuid(0x80000002u + i, &word[0], &word[1], &word[2], &word[3]))
            break;
        memcpy(text + 16 * i, word, sizeof(word));
    }
    const char *start = text;
    while (*start == ' ')
        start++;
    snprintf(name, size, "%s", *start ? start : "x86-64 processor");
}

/* How many cores a list like "0-3,8" names. */
static dj_status_t count_cores(const char *list, uint32_t *count_p)
{
    uint32_t count = 0;
    for (const char *at = list; *at;) {
        char *end;
        long first = strtol(at, &end, 10), last = first;
        bool good = end != at;
        if (good && *end == '-') {
            at = end + 1;
            last = strtol(at, &end, 10);
            good = end != at;
        }
        if (!good || first < 0 || last < first || last >= 65536 || (*end && *end != ','))
            return dj_fail(DJ_ERR_INVALID, "cores '%s': not a list like 0-3,8", list);
        count += (uint32_t)(last - first + 1);
        at = *end ? end + 1 : end;
    }
    *count_p = count;
    return DJ_OK;
}

static dj_status_t choose_threads(const dj_config_t *config, uint32_t *threads_p)
{
    uint64_t threads = config->threads;
    uint32_t cores = 0;
    if (threads > THREADS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "threads %llu: at most %u", (unsigned long long)threads,
                       THREADS_MAX);
    if (config->cores && *config->cores) {
        dj_status_t status = count_cores(config->cores, &cores);
        if (status != DJ_OK)
            return status;
    }
    if (threads == 0)
        threads = cores;
    if (threads == 0) {
        cpu_set_t set;
        threads = sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint64_t)CPU_COUNT(&set) : 1;
    }
    *threads_p = threads > THREADS_MAX ? THREADS_MAX : (uint32_t)threads;
    return DJ_OK;
}

/* The cost model: what one core of each generation reaches in float32 products and in streaming
 * from memory. It ranks plans and bounds graph cuts; nothing depends on its being exact. */
static void fill_costs(dj_device_info_t *info)
{
    double flops = strcmp(info->isa, "avx512") == 0 ? 100
                   : strcmp(info->isa, "avx2") == 0 ? 45
                                                    : 12;
    info->flops_per_ns = flops * info->threads;
    info->bytes_per_ns = info->threads < 4 ? 8.0 * info->threads : 32.0;
    info->step_ns = info->threads > 1 ? 1500 : 200;
}

static void fill_info(dj_host_device_t *device, uint32_t threads)
{
    dj_device_info_t *info = &device->info;
    snprintf(info->kind, sizeof(info->kind), "host");
    snprintf(info->isa, sizeof(info->isa), "%s", device->kernels->isa);
    processor_name(info->name, sizeof(info->name));
    info->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    info->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * info->page_bytes;
    info->threads = threads;
    info->host_reads = true;
    fill_costs(info);
    char text[192], plugins[33];
    dj_hash_hex(dj_plugins_hash(), plugins); /* their rewrites change what is planned */
    int length = snprintf(text, sizeof(text), "host %s %s threads %u plugins %s", info->isa,
                          dj_onednn_version(), threads, plugins);
    info->class_hash = dj_hash_of(text, (size_t)length);
}

static dj_status_t host_open(const dj_config_t *config, dj_device_t **device_p)
{
    uint32_t threads = 1;
    dj_status_t status = choose_threads(config, &threads);
    if (status != DJ_OK)
        return status;
    dj_host_device_t *device = calloc(1, sizeof(*device));
    if (!device)
        return dj_fail(DJ_ERR_MEMORY, "host device: out of memory");
    device->base.ops = &dj_host_device_ops;
    device->kernels = choose_kernels();
    fill_info(device, threads);
    status = dj_onednn_open(&device->onednn);
    if (status != DJ_OK) {
        free(device);
        return status;
    }
    dj_log(INFO, "host device: %s, %s, %s, threads %u", device->info.name, device->info.isa,
           dj_onednn_version(), threads);
    *device_p = &device->base;
    return DJ_OK;
}

static void host_close(dj_device_t *base)
{
    dj_host_device_t *device = (dj_host_device_t *)base;
    dj_onednn_close(device->onednn);
    free(device);
}

static const dj_device_info_t *host_info(const dj_device_t *device)
{
    return &((const dj_host_device_t *)device)->info;
}

static void host_thread_start(dj_device_t *base)
{
    const dj_host_device_t *device = (const dj_host_device_t *)base;
    volatile uint32_t present = 0;
    omp_set_num_threads((int)device->info.threads);
    if (device->info.threads > 1) {
#pragma omp parallel num_threads(device->info.threads)
        {
#pragma omp atomic
            present++;
        }
    }
}

static bool host_supports(const dj_device_t *device, uint16_t op)
{
    return op < DJ_OP_COUNT && ((const dj_host_device_t *)device)->kernels->prepare[op];
}

const dj_device_ops_t dj_host_device_ops = {
    .kind = "host",
    .open = host_open,
    .close = host_close,
    .info = host_info,
    .memory = {.reserve = memory_reserve,
               .commit = memory_commit,
               .decommit = memory_decommit,
               .seal = memory_seal,
               .release = memory_release,
               .copy_in = memory_copy_in,
               .copy_out = memory_copy_out,
               .copy = memory_copy},
    .thread_start = host_thread_start,
    .supports = host_supports,
    .compile = dj_host_compile,
    .workspaces = dj_host_workspaces,
    .place = dj_host_place,
    .bind = dj_host_bind,
    .bound = dj_host_bound,
    .reentrant = dj_host_reentrant,
    .replay = dj_host_replay,
    .bytes = dj_host_bytes,
    .destroy = dj_host_destroy,
};
