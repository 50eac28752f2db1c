/* blind_device.c - see blind_device.h. */
#define DJ_LOG_MODULE "gpu"
#include "tests/gpu/blind_device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gpu/host/host.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

typedef struct range {
    uint8_t *base, *alias, *mapping;
    uint64_t bytes, mapped_bytes;
    bool is_window; /* its pages are others' */
} range_t;

typedef struct late_copy {
    void *target;
    const void *host;
    uint64_t bytes;
} late_copy_t;

typedef struct blind_device {
    dj_device_t base;
    dj_device_ops_t ops; /* with or without extras */
    dj_device_info_t info;
    dj_device_t *inner;
    uint64_t memory_bytes;
    char fail_file[256];
    atomic_bool failed;
    pthread_rwlock_t lock;
    range_t *ranges;
    uint64_t n_ranges, room, committed_bytes, pinned_bytes, slab_bytes;
    bool slab_fails;
    pthread_mutex_t engine; /* held by the copy that has it */
    uint64_t copy_mb_per_s;
    uint32_t release_ms;
    pthread_mutex_t copies_lock;
    late_copy_t late[DJ_COPIES_MAX]; /* by ticket */
    uint64_t started, finished;
} blind_device_t;

typedef struct blind_executable {
    dj_executable_t base;
    dj_executable_t *inner;
    struct dj_text **nothing; /* as many as bindings, all NULL */
} blind_executable_t;

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "blind device: %s\n", what);
    abort();
}

/* ---- ranges ---- */

static range_t *find(const blind_device_t *device, const void *address)
{
    for (uint64_t i = 0; i < device->n_ranges; i++) {
        range_t *range = &device->ranges[i];
        if ((const uint8_t *)address >= range->base && (const uint8_t *)address < range->base + range->bytes)
            return range;
    }
    return NULL;
}

static uint8_t *translate(blind_device_t *device, const void *address)
{
    pthread_rwlock_rdlock(&device->lock);
    const range_t *range = find(device, address);
    uint8_t *alias = range ? range->alias + ((const uint8_t *)address - range->base) : NULL;
    pthread_rwlock_unlock(&device->lock);
    return alias;
}

void *blind_alias(const dj_device_t *device, const void *address)
{
    return translate((blind_device_t *)device, address);
}

static bool map_range(blind_device_t *device, uint64_t bytes, range_t *range)
{
    uint64_t page = device->info.page_bytes;
    int fd = memfd_create("djinn-blind", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
        return false;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    *range = (range_t){.bytes = bytes, .mapped_bytes = bytes + page};
    range->alias = mmap(NULL, bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    range->mapping = mmap(NULL, range->mapped_bytes, PROT_NONE, flags, -1, 0);
    close(fd);
    range->base = (uint8_t *)(((uintptr_t)range->mapping + page - 1) & ~(uintptr_t)(page - 1));
    return range->alias != MAP_FAILED && range->mapping != MAP_FAILED;
}

static void add_range(blind_device_t *device, const range_t *range)
{
    pthread_rwlock_wrlock(&device->lock);
    if (device->n_ranges == device->room) {
        device->room = device->room * 2 + 64;
        device->ranges = realloc(device->ranges, device->room * sizeof(*range));
        must(device->ranges != NULL, "no memory");
    }
    device->ranges[device->n_ranges++] = *range;
    pthread_rwlock_unlock(&device->lock);
}

static dj_status_t reserve(dj_device_t *base, uint64_t bytes, void **base_p)
{
    blind_device_t *device = (blind_device_t *)base;
    range_t range;
    must(bytes % device->info.page_bytes == 0, "a range is no multiple of pages");
    if (!map_range(device, bytes, &range))
        return dj_fail(DJ_ERR_MEMORY, "blind device: no address space");
    add_range(device, &range);
    *base_p = range.base;
    return DJ_OK;
}

/* How many bytes of [alias, alias + bytes) are accessible: committed pages are counted here alone. */
static dj_status_t commit(dj_device_t *base, void *address, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    uint8_t *alias = translate(device, address);
    must(alias && (uintptr_t)address % device->info.page_bytes == 0 && bytes % device->info.page_bytes == 0,
         "commit of what is no range of pages");
    pthread_rwlock_wrlock(&device->lock);
    bool fits = !device->memory_bytes || bytes <= device->memory_bytes - device->committed_bytes;
    device->committed_bytes += fits ? bytes : 0;
    pthread_rwlock_unlock(&device->lock);
    if (!fits)
        return dj_fail(DJ_ERR_MEMORY, "blind device: all of %llu bytes are taken",
                       (unsigned long long)device->memory_bytes);
    must(mprotect(alias, bytes, PROT_READ | PROT_WRITE) == 0, "mprotect");
    return DJ_OK;
}

static void uncommit(blind_device_t *device, uint8_t *alias, uint64_t bytes)
{
    must(mprotect(alias, bytes, PROT_READ | PROT_WRITE) == 0, "mprotect");
    must(madvise(alias, bytes, MADV_REMOVE) == 0, "madvise");
    must(mprotect(alias, bytes, PROT_NONE) == 0, "mprotect");
}

static bool is_window(blind_device_t *device, const void *address)
{
    pthread_rwlock_rdlock(&device->lock);
    const range_t *range = find(device, address);
    bool is = range && range->is_window;
    pthread_rwlock_unlock(&device->lock);
    return is;
}

/* A range is a window from its first mirror on. The pages are shared memory, so they have as many addresses as one
 * maps. Without libc: UCX's hook of mremap() forgets its last argument. */
static dj_status_t mirror(dj_device_t *base, void *window, void *address, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    uint8_t *from = translate(device, address), *to = translate(device, window);
    must(from && to && (uintptr_t)address % device->info.page_bytes == 0 && bytes % device->info.page_bytes == 0,
         "a mirror of what is no range of pages");
    must((uint8_t *)syscall(SYS_mremap, from, 0, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
    must(mprotect(to, bytes, PROT_READ | PROT_WRITE) == 0, "mprotect");
    pthread_rwlock_wrlock(&device->lock);
    find(device, window)->is_window = true;
    pthread_rwlock_unlock(&device->lock);
    return DJ_OK;
}

static void decommit(dj_device_t *base, void *address, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    uint8_t *alias = translate(device, address);
    must(alias && bytes % device->info.page_bytes == 0, "decommit of what is no range of pages");
    if (device->release_ms)
        usleep(device->release_ms * 1000);
    if (is_window(device, address)) {
        must(mmap(alias, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == alias,
             "mmap");
        return;
    }
    uncommit(device, alias, bytes);
    pthread_rwlock_wrlock(&device->lock);
    device->committed_bytes -= bytes;
    pthread_rwlock_unlock(&device->lock);
}

static dj_status_t seal(dj_device_t *base, void *address, uint64_t bytes, bool sealed)
{
    uint8_t *alias = translate((blind_device_t *)base, address);
    must(alias && mprotect(alias, bytes, sealed ? PROT_READ : PROT_READ | PROT_WRITE) == 0, "seal");
    return DJ_OK;
}

/* What is committed, from the kernel's own account. */
static uint64_t accessible_bytes(const range_t *range)
{
    char line[512];
    uint64_t bytes = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof(line), maps)) {
        unsigned long from, to;
        char access[8];
        if (sscanf(line, "%lx-%lx %7s", &from, &to, access) == 3 && access[0] == 'r' &&
            from >= (uintptr_t)range->alias && to <= (uintptr_t)range->alias + range->bytes)
            bytes += to - from;
    }
    if (maps)
        fclose(maps);
    return bytes;
}

static void release(dj_device_t *base, void *address, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    if (device->release_ms)
        usleep(device->release_ms * 1000);
    pthread_rwlock_wrlock(&device->lock);
    range_t *range = find(device, address);
    must(range && range->base == address && range->bytes == bytes, "release of what was not reserved");
    device->committed_bytes -= range->is_window ? 0 : accessible_bytes(range);
    munmap(range->alias, range->bytes);
    munmap(range->mapping, range->mapped_bytes);
    *range = device->ranges[--device->n_ranges];
    pthread_rwlock_unlock(&device->lock);
}

uint64_t blind_committed_bytes(const dj_device_t *device)
{
    return ((const blind_device_t *)device)->committed_bytes;
}

uint64_t blind_ranges(const dj_device_t *device)
{
    return ((const blind_device_t *)device)->n_ranges;
}

/* ---- copies ---- */

static dj_status_t check(blind_device_t *device)
{
    return atomic_load(&device->failed) ? dj_fail(DJ_ERR_DEVICE, "blind device: it was made to fail") : DJ_OK;
}

static uint8_t *device_range(blind_device_t *device, const void *address)
{
    uint8_t *alias = translate(device, address);
    must(alias != NULL, "a copy of host memory where the device's is due");
    return alias;
}

static void be_host(blind_device_t *device, const void *address)
{
    must(!translate(device, address), "a copy of device memory where the host's is due");
}

/* As a memcpy, but on an engine that takes the time it takes and leaves the processor alone meanwhile. */
static void engine_copy(blind_device_t *device, void *target, const void *source, uint64_t bytes)
{
    if (!device->copy_mb_per_s) {
        memcpy(target, source, bytes);
        return;
    }
    pthread_mutex_lock(&device->engine);
    uint64_t until_ns = dj_clock_ns() + bytes * 1000 / device->copy_mb_per_s;
    memcpy(target, source, bytes);
    struct timespec end = {(time_t)(until_ns / DJ_NS_PER_S), (long)(until_ns % DJ_NS_PER_S)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL);
    pthread_mutex_unlock(&device->engine);
}

static dj_status_t copy_in(dj_device_t *base, void *target, const void *host, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    if (bytes == 0)
        return DJ_OK;
    be_host(device, host);
    engine_copy(device, device_range(device, target), host, bytes);
    return check(device);
}

static dj_status_t copy_out(dj_device_t *base, void *host, const void *source, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    if (bytes == 0)
        return DJ_OK;
    be_host(device, host);
    engine_copy(device, host, device_range(device, source), bytes);
    return check(device);
}

static dj_status_t copy(dj_device_t *base, void *target, const void *source, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    if (bytes)
        memmove(device_range(device, target), device_range(device, source), bytes);
    return check(device);
}

static dj_status_t fill(dj_device_t *base, void *target, uint8_t value, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    if (bytes)
        memset(device_range(device, target), value, bytes);
    return check(device);
}

static dj_status_t pin(dj_device_t *base, uint64_t bytes, void **memory_p)
{
    blind_device_t *device = (blind_device_t *)base;
    *memory_p = aligned_alloc(4096, (bytes + 4095) & ~4095ull);
    if (!*memory_p)
        return dj_fail(DJ_ERR_MEMORY, "blind device: no memory to pin");
    pthread_rwlock_wrlock(&device->lock);
    device->pinned_bytes += bytes;
    pthread_rwlock_unlock(&device->lock);
    return DJ_OK;
}

static void unpin(dj_device_t *base, void *memory, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    pthread_rwlock_wrlock(&device->lock);
    device->pinned_bytes -= bytes;
    pthread_rwlock_unlock(&device->lock);
    free(memory);
}

uint64_t blind_pinned_bytes(const dj_device_t *device)
{
    return ((const blind_device_t *)device)->pinned_bytes;
}

/* A range that lies where it says: UCX must read it. Copies still know it from host memory. */
static dj_status_t slab_make(dj_device_t *base, uint64_t bytes, void **memory_p)
{
    blind_device_t *device = (blind_device_t *)base;
    void *memory = device->slab_fails ? MAP_FAILED
                                      : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return dj_fail(DJ_ERR_MEMORY, "blind device: no slab of %llu bytes", (unsigned long long)bytes);
    const range_t range = {.base = memory, .alias = memory, .bytes = bytes};
    add_range(device, &range);
    device->slab_bytes += bytes;
    *memory_p = memory;
    return DJ_OK;
}

static void slab_drop(dj_device_t *base, void *memory, uint64_t bytes)
{
    blind_device_t *device = (blind_device_t *)base;
    pthread_rwlock_wrlock(&device->lock);
    range_t *range = find(device, memory);
    must(range && range->base == memory && range->alias == memory && range->bytes == bytes,
         "a slab that was not made is dropped");
    *range = device->ranges[--device->n_ranges];
    device->slab_bytes -= bytes;
    pthread_rwlock_unlock(&device->lock);
    munmap(memory, bytes);
}

uint64_t blind_slab_bytes(const dj_device_t *device)
{
    return ((const blind_device_t *)device)->slab_bytes;
}

/* Under the copies' lock: as late as they may be. */
static void finish_to(blind_device_t *device, uint64_t ticket)
{
    for (; device->finished < ticket; device->finished++) {
        const late_copy_t *late = &device->late[(device->finished + 1) % DJ_COPIES_MAX];
        memcpy(device_range(device, late->target), late->host, late->bytes);
    }
}

static dj_status_t copy_in_start(dj_device_t *base, void *target, const void *host, uint64_t bytes,
                                 uint64_t *ticket_p)
{
    blind_device_t *device = (blind_device_t *)base;
    pthread_mutex_lock(&device->copies_lock);
    if (device->started - device->finished == DJ_COPIES_MAX)
        finish_to(device, device->finished + 1);
    device->started++;
    device->late[device->started % DJ_COPIES_MAX] = (late_copy_t){target, host, bytes};
    *ticket_p = device->started;
    pthread_mutex_unlock(&device->copies_lock);
    return check(device);
}

static dj_status_t copy_in_finish(dj_device_t *base, uint64_t ticket)
{
    blind_device_t *device = (blind_device_t *)base;
    pthread_mutex_lock(&device->copies_lock);
    must(ticket <= device->started, "a ticket that was not given");
    finish_to(device, ticket);
    pthread_mutex_unlock(&device->copies_lock);
    return check(device);
}

/* ---- executables ---- */

static bool supports(const dj_device_t *base, uint16_t op)
{
    const blind_device_t *device = (const blind_device_t *)base;
    return device->inner->ops->supports(device->inner, op);
}

static dj_status_t compile(dj_device_t *base, const dj_graph_t *graph, dj_executable_t **exe_p)
{
    blind_device_t *device = (blind_device_t *)base;
    blind_executable_t *exe = calloc(1, sizeof(*exe));
    struct dj_text **nothing = calloc(graph->n_bindings + graph->n_folded + 1, sizeof(*nothing));
    must(exe && nothing, "no memory");
    dj_status_t status = device->inner->ops->compile(device->inner, graph, &exe->inner);
    if (status != DJ_OK) {
        free(nothing);
        free(exe);
        return status;
    }
    exe->base = (dj_executable_t){.ops = base->ops, .device = base, .graph = graph};
    exe->nothing = nothing;
    *exe_p = &exe->base;
    return DJ_OK;
}

static dj_executable_t *inner_of(const dj_executable_t *exe)
{
    return ((const blind_executable_t *)exe)->inner;
}

static const uint64_t *workspaces(const dj_executable_t *exe)
{
    return inner_of(exe)->ops->workspaces(inner_of(exe));
}

static dj_status_t place(dj_executable_t *exe, const dj_plan_t *plan)
{
    dj_status_t status = inner_of(exe)->ops->place(inner_of(exe), plan);
    if (status == DJ_OK)
        exe->plan = plan;
    return status;
}

static dj_status_t bind(dj_executable_t *exe, struct dj_text *const *texts)
{
    return inner_of(exe)->ops->bind(inner_of(exe), ((blind_executable_t *)exe)->nothing);
}

static bool bound(const dj_executable_t *exe, struct dj_text *const *texts)
{
    return inner_of(exe)->ops->bound(inner_of(exe), ((const blind_executable_t *)exe)->nothing);
}

static bool reentrant(const dj_executable_t *exe)
{
    return inner_of(exe)->ops->reentrant(inner_of(exe));
}

static dj_status_t replay(dj_executable_t *exe, const dj_launch_t *launch)
{
    blind_device_t *device = (blind_device_t *)exe->device;
    uint32_t n = exe->graph->n_bindings + exe->graph->n_folded;
    void *bindings[n + 1];
    if (device->fail_file[0] && unlink(device->fail_file) == 0)
        atomic_store(&device->failed, true);
    dj_status_t status = check(device);
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < n; i++)
        bindings[i] = launch->bindings[i] ? device_range(device, launch->bindings[i]) : NULL;
    dj_launch_t seen = {bindings, device_range(device, launch->stack), device_range(device, launch->spill),
                        launch->scalars};
    return inner_of(exe)->ops->replay(inner_of(exe), &seen);
}

static uint64_t bytes(const dj_executable_t *exe)
{
    return inner_of(exe)->ops->bytes(inner_of(exe));
}

static void destroy(dj_executable_t *exe)
{
    inner_of(exe)->ops->destroy(inner_of(exe));
    free(((blind_executable_t *)exe)->nothing);
    free(exe);
}

/* ---- the device ---- */

static void blind_close(dj_device_t *base)
{
    blind_device_t *device = (blind_device_t *)base;
    if (device->n_ranges || device->committed_bytes || device->pinned_bytes)
        dj_log(ERROR, "blind device: %llu ranges, %llu bytes and %llu pinned bytes are left at its end",
               (unsigned long long)device->n_ranges, (unsigned long long)device->committed_bytes,
               (unsigned long long)device->pinned_bytes);
    dj_device_close(device->inner);
    free(device->ranges);
    free(device);
}

static const dj_device_info_t *info(const dj_device_t *device)
{
    return &((const blind_device_t *)device)->info;
}

static void thread_start(dj_device_t *base)
{
    dj_device_t *inner = ((blind_device_t *)base)->inner;
    inner->ops->thread_start(inner);
}

static void telemetry(dj_device_t *base, dj_telemetry_t *telemetry)
{
    blind_device_t *device = (blind_device_t *)base;
    pthread_rwlock_rdlock(&device->lock);
    uint64_t used = device->committed_bytes;
    pthread_rwlock_unlock(&device->lock);
    *telemetry = (dj_telemetry_t){.known = DJ_TELEMETRY_UTILIZATION | DJ_TELEMETRY_MEMORY |
                                           DJ_TELEMETRY_TEMPERATURE | DJ_TELEMETRY_XID,
                                  .utilization_percent = 37, .temperature_c = 41,
                                  .memory_used_bytes = used,
                                  .memory_total_bytes = device->info.memory_bytes,
                                  .xid = atomic_load(&device->failed) ? 79 : 0,
                                  .xid_count = atomic_load(&device->failed)};
}

static const dj_device_ops_t blind_ops = {
    .kind = "blind", .close = blind_close, .info = info,
    .memory = {.reserve = reserve, .commit = commit, .decommit = decommit, .seal = seal, .release = release,
               .mirror = mirror,
               .copy_in = copy_in, .copy_out = copy_out, .copy = copy, .fill = fill, .pin = pin,
               .unpin = unpin, .copy_in_start = copy_in_start, .copy_in_finish = copy_in_finish,
               .slab_make = slab_make, .slab_drop = slab_drop},
    .thread_start = thread_start, .supports = supports, .compile = compile, .workspaces = workspaces,
    .place = place, .bind = bind, .bound = bound, .reentrant = reentrant, .replay = replay, .bytes = bytes,
    .destroy = destroy, .telemetry = telemetry,
};

dj_status_t blind_open(const dj_config_t *config, const blind_options_t *options, dj_device_t **device_p)
{
    blind_device_t *device = calloc(1, sizeof(*device));
    must(device != NULL, "no memory");
    dj_status_t status = dj_host_device_ops.open(config, &device->inner);
    if (status != DJ_OK) {
        free(device);
        return status;
    }
    pthread_rwlock_init(&device->lock, NULL);
    pthread_mutex_init(&device->copies_lock, NULL);
    pthread_mutex_init(&device->engine, NULL);
    device->copy_mb_per_s = options->copy_mb_per_s;
    device->release_ms = options->release_ms;
    device->ops = blind_ops;
    if (options->no_extras) {
        dj_device_memory_t *memory = &device->ops.memory;
        memory->mirror = NULL;
        memory->fill = NULL;
        memory->pin = NULL;
        memory->unpin = NULL;
        memory->copy_in_start = NULL;
        memory->copy_in_finish = NULL;
    }
    if (!options->slab) {
        device->ops.memory.slab_make = NULL;
        device->ops.memory.slab_drop = NULL;
    }
    device->base.ops = &device->ops;
    device->info = *device->inner->ops->info(device->inner);
    device->info.host_reads = false;
    device->info.slabs_in_host = options->slab && !options->slab_hidden;
    device->slab_fails = options->slab_fails;
    device->info.page_bytes = options->page_bytes;
    device->memory_bytes = options->memory_bytes;
    snprintf(device->info.kind, sizeof(device->info.kind), "blind");
    if (options->fail_file)
        snprintf(device->fail_file, sizeof(device->fail_file), "%s", options->fail_file);
    *device_p = &device->base;
    return DJ_OK;
}
