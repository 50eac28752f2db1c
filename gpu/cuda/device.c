/* device.c - opens one GPU: context, streams, and what the files beside this one keep for it.
 *
 * A rank has one GPU. Its supervisor named it, and runtime/bind.c has put the name into CUDA_VISIBLE_DEVICES before
 * the first thread, so it is device 0 here; a program that opens a device without that may name one itself. The
 * context is the primary one, which libraries find, too.
 *
 * CUDA does not survive fork(): nothing before open() starts it, the supervisor never comes here, and a rank that has
 * opened its device forks no more.
 *
 * What a plan depends on is in the class hash: the architecture and how many multiprocessors there are, because
 * libraries choose workspaces by them; driver, toolkit and library versions; numerics; plugins.
 *
 * Called through dj_device_open(). */
#define DJ_LOG_MODULE "cuda"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/memory.h"
#include "gpu/cuda/watch.h"
#include "planner/plugin.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define CAPABILITY_MIN 80 /* what the lowest PTX of the build runs on */
#define STEP_NS 2000      /* of a launch, about */

dj_status_t dj_cuda_enter(dj_cuda_device_t *device)
{
    if (dj_cuda_hangs(device))
        return dj_fail(DJ_ERR_DEVICE, "the GPU was given up, as the log of its rank says");
    return dj_cuda_status(dj_cuda.cuCtxSetCurrent(device->context), "entering the GPU's context");
}

/* ---- which GPU ---- */

static bool uuid_begins(CUdevice device, const char *wanted)
{
    CUuuid uuid;
    char text[48] = "GPU-";
    size_t at = 4;
    if (dj_cuda.cuDeviceGetUuid(&uuid, device) != CUDA_SUCCESS)
        return false;
    for (int i = 0; i < 16; i++) {
        const char *dash = i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%02x", dash, (unsigned)(uint8_t)uuid.bytes[i]);
    }
    return strncmp(text, wanted, strlen(wanted)) == 0;
}

static dj_status_t refuse_gpu(const char *wanted, int count)
{
    const char *visible = dj_environment("CUDA_VISIBLE_DEVICES");
    return dj_fail(DJ_ERR_UNSUPPORTED,
                   "device cuda: GPU '%s' is not here: %d may be used (CUDA_VISIBLE_DEVICES is %s%s%s); look at "
                   "nvidia-smi -L, or use --device=host",
                   wanted, count, visible ? "'" : "", visible ? visible : "not set", visible ? "'" : "");
}

static dj_status_t choose_gpu(const char *wanted, CUdevice *device_p)
{
    int count = 0;
    dj_status_t status = dj_cuda_status(dj_cuda.cuDeviceGetCount(&count), "counting GPUs");
    if (status != DJ_OK)
        return status;
    if (!wanted || !*wanted || dj_environment("CUDA_VISIBLE_DEVICES"))
        return count > 0 ? dj_cuda_status(dj_cuda.cuDeviceGet(device_p, 0), "GPU 0") : refuse_gpu("0", count);
    char *end;
    long number = strtol(wanted, &end, 10);
    for (int i = 0; i < count; i++) {
        CUdevice device;
        if (dj_cuda.cuDeviceGet(&device, i) != CUDA_SUCCESS)
            continue;
        if (*end ? !uuid_begins(device, wanted) : number != i)
            continue;
        *device_p = device;
        return DJ_OK;
    }
    return refuse_gpu(wanted, count);
}

/* ---- what it is ---- */

static int attribute(const dj_cuda_device_t *device, CUdevice_attribute what)
{
    int value = 0;
    return dj_cuda.cuDeviceGetAttribute(&value, what, device->device) == CUDA_SUCCESS ? value : 0;
}

/* float32 products of one multiprocessor in one cycle. */
static double flops_per_cycle(int capability)
{
    return capability == 80 ? 128 : 256;
}

/* The cost model: peak rates as the hardware names them. It ranks plans and bounds graph cuts; nothing depends on its
 * being exact. */
static void fill_costs(dj_cuda_device_t *device)
{
    dj_device_info_t *info = &device->info;
    double cycles_per_ns = attribute(device, CU_DEVICE_ATTRIBUTE_CLOCK_RATE) / 1e6;
    double memory_per_ns = attribute(device, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE) / 1e6;
    double width_bytes = attribute(device, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH) / 8.0;
    if (cycles_per_ns <= 0)
        cycles_per_ns = 1.4;
    info->flops_per_ns =
        device->multiprocessors * cycles_per_ns * flops_per_cycle(device->major * 10 + device->minor);
    info->bytes_per_ns = 2 * memory_per_ns * width_bytes;
    if (info->bytes_per_ns <= 0)
        info->bytes_per_ns = 1000;
    info->step_ns = STEP_NS;
}

static void fill_class(dj_cuda_device_t *device)
{
    char text[320], plugins[33];
    int nvrtc[2] = {0, 0};
    if (dj_cuda.has.nvrtc)
        dj_cuda.nvrtcVersion(&nvrtc[0], &nvrtc[1]);
    dj_hash_hex(dj_plugins_hash(), plugins); /* their rewrites change what is planned */
    int length = snprintf(text, sizeof(text), "cuda %s x %u driver %d toolkit %d nvrtc %d.%d blas %zu dnn %zu %s plugins %s",
                          device->info.isa, device->multiprocessors, dj_cuda.driver_version, CUDA_VERSION, nvrtc[0],
                          nvrtc[1], dj_cuda.has.blas ? dj_cuda.cublasLtGetVersion() : 0,
                          dj_cuda.has.dnn ? dj_cuda.cudnnGetVersion() : 0, device->fast ? "fast" : "exact", plugins);
    device->info.class_hash = dj_hash_of(text, (size_t)length);
}

static dj_status_t fill_info(dj_cuda_device_t *device)
{
    dj_device_info_t *info = &device->info;
    size_t total_bytes = 0;
    dj_status_t status = dj_cuda_status(dj_cuda.cuDeviceGetName(info->name, sizeof(info->name), device->device),
                                        "the GPU's name");
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuDeviceGetPCIBusId(device->pci, sizeof(device->pci), device->device),
                                "the GPU's address");
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuDeviceTotalMem(&total_bytes, device->device), "the GPU's memory");
    if (status != DJ_OK)
        return status;
    snprintf(info->kind, sizeof(info->kind), "cuda");
    info->memory_bytes = total_bytes;
    info->threads = 1;
    info->host_reads = false;
    device->flushes = attribute(device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING) <
                      CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER;
    info->dma_buf = attribute(device, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED) == 1;
    device->major = attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    device->minor = attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    device->multiprocessors = (uint32_t)attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    device->shared_bytes_max = (uint32_t)attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    snprintf(info->isa, sizeof(info->isa), "sm_%d%d", device->major, device->minor);
    if (device->major * 10 + device->minor < CAPABILITY_MIN)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "GPU %s (%s) has compute capability %d.%d, but kernels need %d.%d or later; use --device=host",
                       info->name, device->pci, device->major, device->minor, CAPABILITY_MIN / 10,
                       CAPABILITY_MIN % 10);
    fill_costs(device);
    fill_class(device);
    return DJ_OK;
}

/* As many as the rank has cores. */
static uint32_t count_compilers(const dj_config_t *config)
{
    cpu_set_t cores;
    uint64_t n = config->threads;
    if (n == 0 && sched_getaffinity(0, sizeof(cores), &cores) == 0)
        n = (uint64_t)CPU_COUNT(&cores);
    return n == 0 ? 1 : n < DJ_CUDA_COMPILERS_MAX ? (uint32_t)n : DJ_CUDA_COMPILERS_MAX;
}

/* ---- open and close ---- */

/* The context needs memory of its own, so this comes after it. */
static dj_status_t check_room(const dj_cuda_device_t *device, const dj_config_t *config)
{
    size_t free_bytes = 0, total_bytes = 0;
    dj_status_t status = dj_cuda_status(dj_cuda.cuMemGetInfo(&free_bytes, &total_bytes), "the GPU's free memory");
    if (status != DJ_OK || config->stack_bytes <= free_bytes)
        return status;
    return dj_fail(DJ_ERR_RESOURCE,
                   "GPU %s (%s) has %llu bytes free of %llu, but Stack may take %llu; end what else uses the GPU, or "
                   "start with a lower --stack-bytes",
                   device->info.name, device->pci, (unsigned long long)free_bytes, (unsigned long long)total_bytes,
                   (unsigned long long)config->stack_bytes);
}

static dj_status_t open_streams(dj_cuda_device_t *device)
{
    CUstream *streams[] = {&device->compute, &device->in, &device->out, &device->weights};
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        dj_status_t status = dj_cuda_status(
            dj_cuda.cuStreamCreateWithPriority(streams[i], CU_STREAM_NON_BLOCKING, 0), "the GPU's streams");
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

static dj_cuda_device_t *_Atomic kept; /* those that hang, so that what looks for leaks finds them held */

static void cuda_close(dj_device_t *base)
{
    dj_cuda_device_t *device = (dj_cuda_device_t *)base;
    CUstream streams[] = {device->compute, device->in, device->out, device->weights};
    if (dj_cuda_hangs(device)) { /* its driver might keep us; the process has to end, and all of it goes then */
        device->kept = atomic_exchange(&kept, device);
        return;
    }
    if (device->context)
        dj_cuda_enter(device);
    dj_cuda_telemetry_close(device);
    if (device->jit)
        dj_cuda_jit_close(device);
    dj_cuda_modules_close(device);
    if (device->blas)
        dj_cuda.cublasLtDestroy(device->blas);
    if (device->dnn)
        dj_cuda.cudnnDestroy(device->dnn);
    dj_cuda_copies_close(device);
    dj_cuda_memory_close(device);
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++)
        if (streams[i])
            dj_cuda.cuStreamDestroy(streams[i]);
    if (device->context) {
        dj_cuda.cuCtxSetCurrent(NULL);
        dj_cuda.cuDevicePrimaryCtxRelease(device->device);
    }
    pthread_mutex_destroy(&device->lock);
    free(device);
}

/* From the GPU's choice to all that is kept for it; cuda_close() undoes any part of it. */
static dj_status_t open_parts(dj_cuda_device_t *device, const dj_config_t *config)
{
    dj_status_t status = choose_gpu(config->gpu, &device->device);
    if (status == DJ_OK)
        status = fill_info(device);
    if (status == DJ_OK)
        status = dj_cuda_status(dj_cuda.cuDevicePrimaryCtxRetain(&device->context, device->device),
                                "making the GPU's context");
    if (status == DJ_OK)
        status = dj_cuda_enter(device);
    if (status == DJ_OK)
        status = check_room(device, config);
    if (status == DJ_OK)
        status = open_streams(device);
    if (status == DJ_OK)
        status = dj_cuda_memory_open(device);
    if (status == DJ_OK)
        status = dj_cuda_copies_open(device);
    if (status == DJ_OK)
        status = dj_cuda_modules_open(device);
    if (status == DJ_OK)
        status = dj_cuda_jit_open(device, config->kernel_cache);
    if (status == DJ_OK)
        dj_cuda_telemetry_open(device);
    return status;
}

static dj_status_t start_cuda(void)
{
    dj_status_t status = dj_cuda_api_load();
    if (status != DJ_OK)
        return status;
    CUresult result = dj_cuda.cuInit(0);
    if (result == CUDA_ERROR_NO_DEVICE)
        return refuse_gpu("0", 0);
    status = dj_cuda_status(result, "device cuda: CUDA does not start");
    if (status == DJ_OK)
        return DJ_OK;
    if (status == DJ_ERR_RESOURCE)
        return dj_fail(status, "%s; other processes hold what it needs: end them, or try again later", dj_error_text());
    return dj_fail(DJ_ERR_UNSUPPORTED, "%s; see whether nvidia-smi works, or use --device=host", dj_error_text());
}

static dj_status_t cuda_open(const dj_config_t *config, dj_device_t **device_p)
{
    dj_status_t status = start_cuda();
    if (status != DJ_OK)
        return status;
    dj_cuda_device_t *device = calloc(1, sizeof(*device));
    if (!device)
        return dj_fail(DJ_ERR_MEMORY, "device cuda: out of memory");
    device->base.ops = &dj_cuda_device_ops;
    device->fast = config->numerics && strcmp(config->numerics, "fast") == 0;
    device->use_graphs = config->cuda_graphs;
    device->poison = config->poison;
    device->n_compilers = count_compilers(config);
    device->limit_ns = config->kernel_limit_ms * DJ_NS_PER_MS;
    pthread_mutex_init(&device->lock, NULL);
    status = open_parts(device, config);
    if (status != DJ_OK) {
        cuda_close(&device->base);
        return status;
    }
    dj_log(INFO, "GPU %s (%s): %s, %llu bytes, driver with CUDA %d.%d, page %llu bytes, graphs %s, numerics %s",
           device->info.name, device->pci, device->info.isa, (unsigned long long)device->info.memory_bytes,
           dj_cuda.driver_version / 1000, dj_cuda.driver_version % 1000 / 10,
           (unsigned long long)device->info.page_bytes, device->use_graphs ? "on" : "off",
           device->fast ? "fast" : "exact");
    *device_p = &device->base;
    return DJ_OK;
}

static const dj_device_info_t *cuda_info(const dj_device_t *device)
{
    return &((const dj_cuda_device_t *)device)->info;
}

static void cuda_thread_start(dj_device_t *device)
{
    if (dj_cuda_enter((dj_cuda_device_t *)device) != DJ_OK)
        dj_log(ERROR, "%s", dj_error_text());
}

static bool cuda_supports(const dj_device_t *device, uint16_t op)
{
    return op < DJ_OP_COUNT && dj_cuda_slots[op];
}

const dj_device_ops_t dj_cuda_device_ops = {
    .kind = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .info = cuda_info,
    .memory = DJ_CUDA_MEMORY_OPS,
    .thread_start = cuda_thread_start,
    .supports = cuda_supports,
    .compile = dj_cuda_compile,
    .workspaces = dj_cuda_workspaces,
    .place = dj_cuda_place,
    .bind = dj_cuda_bind,
    .bound = dj_cuda_bound,
    .reentrant = dj_cuda_reentrant,
    .replay = dj_cuda_replay,
    .bytes = dj_cuda_bytes,
    .destroy = dj_cuda_destroy,
    .telemetry = dj_cuda_telemetry_read,
    .responds = dj_cuda_responds,
};
