/* api.c - finds the functions of CUDA's libraries, by dlopen and dlsym.
 *
 * The driver must be whole: a rank that found half of it would fail at its first weight instead of at its start. The
 * libraries beside it are taken whole or not at all, and their absence is said once in the log; whoever needs one
 * refuses its ops with a sentence of its own. Symbol names are what cuda.h's macros make of a function's name, so a
 * slot and its prototype cannot part. cuda.h of a newer toolkit may name a version of a function that an older driver
 * has not: where both have one prototype, the older name is tried, too.
 *
 * What was opened stays open: a driver has threads. Nothing here starts CUDA (cuInit is device.c's), so a process that
 * only asks what is there may still fork.
 *
 * Called by device.c, tools and tests. */
#define DJ_LOG_MODULE "cuda"

#include "gpu/cuda/api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/log.h"

#define FILES_MAX 2

typedef struct symbol {
    const char *name;
    size_t slot; /* where in dj_cuda_api_t */
} symbol_t;

typedef struct library {
    const char *title;
    struct {
        const char *name;
        int cuda; /* the version that its driver must speak, 0: any that we take */
    } files[FILES_MAX]; /* newest first */
    const symbol_t *symbols;
    size_t n_symbols, has; /* has: where in dj_cuda_api_t */
} library_t;

#define AS_TEXT(name) #name
#define EXPANDED(name) AS_TEXT(name)
#define ROW(name) {EXPANDED(name), offsetof(dj_cuda_api_t, name)},
static const symbol_t driver_symbols[] = {DJ_CUDA_DRIVER(ROW)};
static const symbol_t nvrtc_symbols[] = {DJ_CUDA_NVRTC(ROW)};
static const symbol_t blas_symbols[] = {DJ_CUDA_BLAS(ROW)};
static const symbol_t dnn_symbols[] = {DJ_CUDA_DNN(ROW)};
static const symbol_t nvml_symbols[] = {DJ_CUDA_NVML(ROW)};

#define LIBRARY(title, table, has, ...)                                                            \
    {title, {__VA_ARGS__}, table, sizeof(table) / sizeof(table[0]), offsetof(dj_cuda_api_t, has)}
static const library_t driver = LIBRARY("the driver", driver_symbols, has.driver, {"libcuda.so.1", 0});
static const library_t others[] = {
    LIBRARY("NVRTC", nvrtc_symbols, has.nvrtc, {"libnvrtc.so.13", 13000}, {"libnvrtc.so.12", 12000}),
    LIBRARY("cuBLASLt", blas_symbols, has.blas, {"libcublasLt.so.13", 13000}, {"libcublasLt.so.12", 12000}),
    LIBRARY("cuDNN", dnn_symbols, has.dnn, {"libcudnn.so.9", 0}),
    LIBRARY("NVML", nvml_symbols, has.nvml, {"libnvidia-ml.so.1", 0}),
};

/* Prototypes did not change with the version. */
static const struct {
    const char *name, *older;
} older_names[] = {
    {"cuEventElapsedTime_v2", "cuEventElapsedTime"},
    {"cuMemHostRegister_v2", "cuMemHostRegister"},
    {"cuDeviceGetUuid_v2", "cuDeviceGetUuid"},
};

/* Code made by a toolkit runs on drivers of its major version, from its first release on. */
#define TOOLKIT_NEEDS (CUDA_VERSION / 1000 * 1000)
#define DRIVER_NEEDED (DJ_CUDA_DRIVER_MIN > TOOLKIT_NEEDS ? DJ_CUDA_DRIVER_MIN : TOOLKIT_NEEDS)

/* Releases of NVIDIA's driver, by the CUDA version that each was first to have. */
static const struct {
    int version;
    const char *release;
} releases[] = {{13000, "580"}, {12080, "570"}, {12060, "560"}, {12050, "555"}, {12040, "550"}};

dj_cuda_api_t dj_cuda;
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;

static void *symbol_find(void *handle, const char *name)
{
    void *found = dlsym(handle, name);
    for (size_t i = 0; !found && i < sizeof(older_names) / sizeof(older_names[0]); i++)
        if (strcmp(name, older_names[i].name) == 0)
            found = dlsym(handle, older_names[i].older);
    return found;
}

/* NULL: the table has them all. Else the name of the first that is missing, and it has none. */
static const char *library_fill(const library_t *library, void *handle)
{
    char *table = (char *)&dj_cuda;
    const char *missing = NULL;
    for (size_t i = 0; i < library->n_symbols && !missing; i++) {
        void *found = symbol_find(handle, library->symbols[i].name);
        if (found)
            memcpy(table + library->symbols[i].slot, &found, sizeof(found));
        else
            missing = library->symbols[i].name;
    }
    if (missing)
        for (size_t i = 0; i < library->n_symbols; i++)
            memset(table + library->symbols[i].slot, 0, sizeof(void *));
    *(bool *)(table + library->has) = !missing;
    return missing;
}

/* A library of a newer CUDA than the driver's makes code that the driver does not load, or does not start; the older
 * one beside it would do. NULL: `why` has dlopen's words about the newest. */
static void *library_open(const library_t *library, const char **file_p, char *why, size_t why_bytes)
{
    why[0] = 0;
    for (int i = 0; i < FILES_MAX && library->files[i].name; i++) {
        if (library->files[i].cuda > dj_cuda.driver_version) {
            snprintf(why, why_bytes, "%s needs a newer driver", library->files[i].name);
            continue;
        }
        void *handle = dlopen(library->files[i].name, RTLD_NOW | RTLD_LOCAL);
        *file_p = library->files[i].name;
        if (handle)
            return handle;
        const char *error = dlerror();
        if (!why[0])
            snprintf(why, why_bytes, "%s", error ? error : "dlopen failed");
    }
    return NULL;
}

static void library_load(const library_t *library)
{
    const char *file = "";
    char why[256];
    void *handle = library_open(library, &file, why, sizeof(why));
    if (!handle) {
        dj_log(INFO, "%s is not here: %s", library->title, why);
        return;
    }
    const char *missing = library_fill(library, handle);
    if (missing)
        dj_log(WARN, "%s is not used: %s has no %s; install a newer one", library->title, file, missing);
    else
        dj_log(DEBUG, "%s: %s", library->title, file);
}

/* "535.129.03", or "" where the kernel module does not say. */
static void driver_release(char *release, size_t bytes)
{
    FILE *file = fopen("/sys/module/nvidia/version", "re");
    release[0] = 0;
    if (!file)
        return;
    if (!fgets(release, (int)bytes, file))
        release[0] = 0;
    release[strcspn(release, "\n")] = 0;
    fclose(file);
}

static const char *release_needed(void)
{
    for (size_t i = 0; i < sizeof(releases) / sizeof(releases[0]); i++)
        if (DRIVER_NEEDED >= releases[i].version)
            return releases[i].release;
    return "550";
}

static dj_status_t driver_check_version(void *handle)
{
    CUresult (*get)(int *) = NULL;
    void *found = dlsym(handle, "cuDriverGetVersion");
    int version = 0;
    char release[32], named[48] = "";
    memcpy(&get, &found, sizeof(get));
    if (!get || get(&version) != CUDA_SUCCESS)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "device cuda: libcuda.so.1 does not say its version; reinstall the NVIDIA driver (release %s or "
                       "later), or use --device=host",
                       release_needed());
    dj_cuda.driver_version = version;
    if (version >= DRIVER_NEEDED)
        return DJ_OK;
    driver_release(release, sizeof(release));
    if (release[0])
        snprintf(named, sizeof(named), " %s", release);
    return dj_fail(DJ_ERR_UNSUPPORTED,
                   "device cuda: the NVIDIA driver%s here speaks CUDA %d.%d, but CUDA %d.%d (driver release %s) or later "
                   "is needed; update the driver, or use --device=host",
                   named, version / 1000, version % 1000 / 10, DRIVER_NEEDED / 1000, DRIVER_NEEDED % 1000 / 10,
                   release_needed());
}

static dj_status_t driver_load(void)
{
    const char *file;
    char why[256];
    void *handle = library_open(&driver, &file, why, sizeof(why));
    if (!handle)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "device cuda: no NVIDIA driver here: %s; install one (release %s or later), or use --device=host",
                       why, release_needed());
    dj_status_t status = driver_check_version(handle);
    if (status == DJ_OK) {
        const char *missing = library_fill(&driver, handle);
        if (missing)
            status = dj_fail(DJ_ERR_UNSUPPORTED,
                             "device cuda: the NVIDIA driver here has no %s; update it to release %s or later, or use "
                             "--device=host",
                             missing, release_needed());
    }
    return status;
}

dj_status_t dj_cuda_api_load(void)
{
    dj_status_t status = DJ_OK;
    pthread_mutex_lock(&load_lock);
    if (!dj_cuda.has.driver) {
        status = driver_load();
        for (size_t i = 0; status == DJ_OK && i < sizeof(others) / sizeof(others[0]); i++)
            library_load(&others[i]);
    }
    pthread_mutex_unlock(&load_lock);
    return status;
}
