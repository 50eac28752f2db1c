/* module.c - the kernels built in (fatbins.c): one fatbin a family, and the functions found in them.
 *
 * A fatbin holds machine code for each architecture of the build and PTX for others; the driver picks at load. It is
 * loaded when the first of its functions is asked for, because loading costs milliseconds and device memory, and a
 * program of matrix products needs no sort. A function's name says its family: dj_<family>_<what>.
 *
 * Functions are looked up while programs are compiled, never in replay, so a short table under a lock serves. They
 * are loaded then, too: a driver may put that off to the first launch (CUDA_MODULE_LOADING is LAZY unless set), and
 * there it allocates, and may wait for all work of the GPU, in a request or in the middle of a capture.
 *
 * Called by the kernel families' prepare functions. */
#define DJ_LOG_MODULE "cuda"

#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/fatbins.h"
#include "runtime/base/log.h"
#include "runtime/base/table.h"

#define PREFIX "dj_"

struct dj_cuda_modules {
    pthread_mutex_t lock;
    CUmodule loaded[DJ_CUDA_FATBINS_MAX];
    dj_table_t functions; /* CUfunction by the hash of its name */
};

dj_status_t dj_cuda_modules_open(dj_cuda_device_t *device)
{
    device->modules = calloc(1, sizeof(*device->modules));
    if (!device->modules)
        return dj_fail(DJ_ERR_MEMORY, "device cuda: out of memory");
    pthread_mutex_init(&device->modules->lock, NULL);
    return DJ_OK;
}

void dj_cuda_modules_close(dj_cuda_device_t *device)
{
    struct dj_cuda_modules *modules = device->modules;
    if (!modules)
        return;
    for (size_t i = 0; i < DJ_CUDA_FATBINS_MAX; i++)
        if (modules->loaded[i])
            dj_cuda.cuModuleUnload(modules->loaded[i]);
    dj_table_fini(&modules->functions);
    pthread_mutex_destroy(&modules->lock);
    free(modules);
    device->modules = NULL;
}

/* The fatbin whose family the name begins with, the longest such; DJ_CUDA_FATBINS_MAX when there is none. */
static size_t fatbin_of(const char *name)
{
    size_t found = DJ_CUDA_FATBINS_MAX, found_bytes = 0, prefix_bytes = sizeof(PREFIX) - 1;
    if (strncmp(name, PREFIX, prefix_bytes) != 0)
        return DJ_CUDA_FATBINS_MAX;
    name += prefix_bytes;
    for (size_t i = 0; dj_cuda_fatbins()[i].family; i++) {
        size_t bytes = strlen(dj_cuda_fatbins()[i].family);
        if (bytes >= found_bytes && strncmp(name, dj_cuda_fatbins()[i].family, bytes) == 0 && name[bytes] == '_') {
            found = i;
            found_bytes = bytes;
        }
    }
    return found;
}

/* What the driver refuses for want of code is "not supported"; a lost context or no memory stays what it is. */
static dj_status_t refuse(const dj_cuda_device_t *device, CUresult result, const char *name)
{
    dj_status_t status = DJ_ERR_UNSUPPORTED;
    if (result != CUDA_SUCCESS)
        status = dj_cuda_status(result, "loading it");
    else
        dj_fail(status, "this build has no such kernel");
    dj_fail_prefix(status, "kernel %s for GPU %s (sm_%d%d, driver with CUDA %d.%d)", name, device->info.name,
                   device->major, device->minor, dj_cuda.driver_version / 1000,
                   dj_cuda.driver_version % 1000 / 10);
    return status == DJ_ERR_SYSTEM ? DJ_ERR_UNSUPPORTED : status;
}

static dj_status_t find_locked(dj_cuda_device_t *device, const char *name, CUfunction *function_p)
{
    struct dj_cuda_modules *modules = device->modules;
    size_t at = fatbin_of(name);
    CUfunction function = NULL;
    if (at == DJ_CUDA_FATBINS_MAX)
        return refuse(device, CUDA_SUCCESS, name);
    if (!modules->loaded[at]) {
        CUresult result = dj_cuda.cuModuleLoadData(&modules->loaded[at], dj_cuda_fatbins()[at].image);
        if (result != CUDA_SUCCESS) {
            modules->loaded[at] = NULL;
            return refuse(device, result, name);
        }
        dj_log(DEBUG, "kernels of family %s are loaded", dj_cuda_fatbins()[at].family);
    }
    CUresult result = dj_cuda.cuModuleGetFunction(&function, modules->loaded[at], name);
    if (result == CUDA_SUCCESS)
        result = dj_cuda.cuFuncLoad(function);
    if (result != CUDA_SUCCESS)
        return refuse(device, result == CUDA_ERROR_NOT_FOUND ? CUDA_SUCCESS : result, name);
    dj_log(DEBUG, "device function %s", name);
    *function_p = function;
    return dj_table_put(&modules->functions, dj_hash_of(name, strlen(name)), function);
}

dj_status_t dj_cuda_function(dj_cuda_device_t *device, const char *name, CUfunction *function_p)
{
    struct dj_cuda_modules *modules = device->modules;
    dj_status_t status = dj_cuda_enter(device);
    if (status != DJ_OK)
        return status;
    pthread_mutex_lock(&modules->lock);
    CUfunction function = dj_table_get(&modules->functions, dj_hash_of(name, strlen(name)));
    if (!function)
        status = find_locked(device, name, &function);
    pthread_mutex_unlock(&modules->lock);
    if (status == DJ_OK)
        *function_p = function;
    return status;
}
