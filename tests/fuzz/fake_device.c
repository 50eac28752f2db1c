/* fake_device.c - a device of mapped memory whose kernels touch what they were given and compute nothing.
 *
 * For fuzz targets: the host device's kernels want another compiler than libFuzzer has, and an input
 * that multiplies matrices finds nothing that it would not find without. A replay reads both ends of
 * every binding, writes both ends of every output, and the top of the Stack that the plan promised, so
 * a wrong pointer, size or offset still faults. (Kernels with spoilt programs: test_hostile_random.c.) */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu/device.h"
#include "tests/fuzz/fuzz.h"

typedef struct fake_executable {
    dj_executable_t base;
    uint64_t *workspaces;
    struct dj_text **texts;
    bool was_bound;
} fake_executable_t;

static dj_device_info_t about = {.kind = "fake", .name = "touches its bindings", .isa = "none",
                                 .class_hash = {{7, 7}}, .threads = 1, .host_reads = true, .flops_per_ns = 50,
                                 .bytes_per_ns = 10, .step_ns = 200};

static dj_status_t reserve(dj_device_t *device, uint64_t bytes, void **base_p)
{
    void *base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return dj_fail(DJ_ERR_MEMORY, "no address space");
    *base_p = base;
    return DJ_OK;
}

static dj_status_t commit(dj_device_t *device, void *base, uint64_t bytes)
{
    return mprotect(base, bytes, PROT_READ | PROT_WRITE) == 0 ? DJ_OK
                                                               : dj_fail(DJ_ERR_MEMORY, "no pages");
}

static void decommit(dj_device_t *device, void *base, uint64_t bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    FUZZ_ASSERT(mmap(base, bytes, PROT_NONE, flags, -1, 0) != MAP_FAILED);
}

static dj_status_t seal(dj_device_t *device, void *base, uint64_t bytes, bool sealed)
{
    FUZZ_ASSERT(mprotect(base, bytes, sealed ? PROT_READ : PROT_READ | PROT_WRITE) == 0);
    return DJ_OK;
}

static void release(dj_device_t *device, void *base, uint64_t bytes)
{
    munmap(base, bytes);
}

static dj_status_t copy_in(dj_device_t *device, void *target, const void *host, uint64_t bytes)
{
    memmove(target, host, bytes);
    return DJ_OK;
}

static void device_close(dj_device_t *device)
{
    free(device);
}

static const dj_device_info_t *info(const dj_device_t *device)
{
    return &about;
}

static bool supports(const dj_device_t *device, uint16_t op)
{
    return op < DJ_OP_COUNT;
}

static dj_status_t compile(dj_device_t *device, const dj_graph_t *graph, dj_executable_t **exe_p)
{
    fake_executable_t *exe = calloc(1, sizeof(*exe));
    exe->workspaces = calloc(graph->n_nodes + 1, sizeof(uint64_t));
    exe->texts = calloc(graph->n_bindings + 1, sizeof(void *));
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        exe->workspaces[i] = i % 3 * 100;
    exe->base = (dj_executable_t){.ops = device->ops, .device = device, .graph = graph};
    *exe_p = &exe->base;
    return DJ_OK;
}

static const uint64_t *workspaces(const dj_executable_t *exe)
{
    return ((const fake_executable_t *)exe)->workspaces;
}

static dj_status_t place(dj_executable_t *exe, const dj_plan_t *plan)
{
    FUZZ_ASSERT(dj_plan_verify(plan, exe->graph) == DJ_OK);
    exe->plan = plan;
    return DJ_OK;
}

static dj_status_t bind(dj_executable_t *base, struct dj_text *const *texts)
{
    fake_executable_t *exe = (fake_executable_t *)base;
    memcpy(exe->texts, texts, base->graph->n_bindings * sizeof(void *));
    exe->was_bound = true;
    return DJ_OK;
}

static bool bound(const dj_executable_t *base, struct dj_text *const *texts)
{
    const fake_executable_t *exe = (const fake_executable_t *)base;
    return exe->was_bound &&
           memcmp(exe->texts, texts, base->graph->n_bindings * sizeof(void *)) == 0;
}

static bool reentrant(const dj_executable_t *exe)
{
    return exe->graph->n_nodes % 2;
}

static dj_status_t replay(dj_executable_t *exe, const dj_launch_t *launch)
{
    const dj_graph_t *graph = exe->graph;
    FUZZ_ASSERT(dj_graph_check_offsets(graph, launch->scalars) == DJ_OK);
    if (exe->plan->peak_bytes)
        ((volatile uint8_t *)launch->stack)[exe->plan->peak_bytes - 1] = 1;
    for (uint32_t i = 0; i < graph->n_bindings; i++) {
        const dj_storage_t *storage = &graph->storages[graph->bindings[i]];
        volatile uint8_t *bytes = launch->bindings[i];
        if (!storage->bytes)
            continue;
        uint8_t first = bytes[0], last = bytes[storage->bytes - 1];
        if (storage->is_output) {
            bytes[0] = last;
            bytes[storage->bytes - 1] = first;
        }
    }
    return graph->n_nodes % 7 == 6 ? dj_fail(DJ_ERR_SHAPE, "an index out of range") : DJ_OK;
}

static void destroy(dj_executable_t *base)
{
    fake_executable_t *exe = (fake_executable_t *)base;
    free(exe->workspaces);
    free(exe->texts);
    free(exe);
}

static dj_status_t device_open(const dj_config_t *config, dj_device_t **device_p);

static const dj_device_ops_t ops = {
    .kind = "fake", .open = device_open, .close = device_close, .info = info,
    .memory = {.reserve = reserve, .commit = commit, .decommit = decommit, .seal = seal,
               .release = release, .copy_in = copy_in, .copy_out = copy_in, .copy = copy_in},
    .supports = supports, .compile = compile, .workspaces = workspaces, .place = place,
    .bind = bind, .bound = bound, .reentrant = reentrant, .replay = replay, .destroy = destroy,
};

static dj_status_t device_open(const dj_config_t *config, dj_device_t **device_p)
{
    dj_device_t *device = calloc(1, sizeof(*device));
    about.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    about.memory_bytes = 1ull << 30;
    device->ops = &ops;
    *device_p = device;
    return DJ_OK;
}

/* In the place of gpu/device.c. */
dj_status_t dj_device_open(const dj_config_t *config, dj_device_t **device_p)
{
    return device_open(config, device_p);
}
