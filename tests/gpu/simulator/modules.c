/* modules.c - images and functions.
 *
 * A fatbin stands for the kernels that were compiled into this library: all families, by name. An ELF file of the
 * host's own machine is what the simulated NVRTC makes: it is loaded as a shared object, whose threadIdx and barriers
 * are this library's because it needs libcuda.so.1. */
#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/gpu/simulator/inner.h"

#ifdef __x86_64__
#define MACHINE EM_X86_64
#else
#define MACHINE EM_AARCH64
#endif
#define FATBIN_MAGIC 0xba55ed50u

typedef struct sim_module {
    sim_object_t object;
    void *library;
    bool built_in;
    sim_function_t **functions;
    uint32_t n_functions;
} sim_module_t;

/* Loads the bytes from a file of a name never used before, because the loader knows libraries by their names. */
static void *load(const void *image, size_t bytes)
{
    char path[] = "/tmp/djinn-simulator-XXXXXX";
    int file = mkstemp(path);
    if (file < 0)
        return NULL;
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = write(file, (const char *)image + done, bytes - done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    close(file);
    void *library = done == bytes ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL)
        sim_say("an image does not load: %s", done == bytes ? dlerror() : "it cannot be written");
    unlink(path);
    return library;
}

static void *load_self(void)
{
    Dl_info info;
    return dladdr(&sim_count, &info) ? dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD) : NULL;
}

static CUresult module_load(CUmodule *handle, const void *image)
{
    Elf64_Ehdr header;
    uint32_t magic;
    void *library;
    memcpy(&magic, image, sizeof magic);
    bool built_in = magic == FATBIN_MAGIC;
    if (built_in) {
        library = load_self();
    } else if (!memcmp(image, ELFMAG, SELFMAG)) {
        memcpy(&header, image, sizeof header);
        if (header.e_machine != MACHINE)
            return CUDA_ERROR_NO_BINARY_FOR_GPU;
        library = load(image, header.e_shoff + (size_t)header.e_shnum * header.e_shentsize);
    } else {
        return CUDA_ERROR_INVALID_IMAGE;
    }
    if (library == NULL)
        return CUDA_ERROR_INVALID_IMAGE;
    sim_module_t *module = sim_object_create(sizeof *module, SIM_MODULE);
    module->library = library;
    module->built_in = built_in;
    ++sim_count.modules;
    *handle = (CUmodule)module;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    CUresult result = sim_enter("cuModuleLoadData", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = sim_capture_forbid(false);
    if (result == CUDA_SUCCESS && image == NULL)
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        result = module_load(module, image);
    return sim_leave(result);
}

static CUresult module_unload(sim_module_t *module)
{
    CUresult result = sim_run_all();
    for (uint32_t i = 0; i < module->n_functions; ++i)
        module->functions[i]->object.magic = SIM_DEAD;
    free(module->functions);
    module->functions = NULL;
    dlclose(module->library);
    module->object.magic = SIM_DEAD;
    --sim_count.modules;
    return result;
}

CUresult cuModuleUnload(CUmodule module)
{
    CUresult result = sim_enter("cuModuleUnload", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = sim_capture_forbid(false);
    if (result == CUDA_SUCCESS && !sim_is(module, SIM_MODULE))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS)
        result = module_unload((sim_module_t *)module);
    return sim_leave(result);
}

static CUresult get_function(CUfunction *handle, sim_module_t *module, const char *name)
{
    char symbol[SIM_NAME_MAX + sizeof "_params_bytes"], shared[SIM_NAME_MAX + sizeof "_shared"];
    if (strlen(name) >= SIM_NAME_MAX)
        return CUDA_ERROR_NOT_FOUND;
    for (uint32_t i = 0; i < module->n_functions; ++i) {
        if (!strcmp(module->functions[i]->name, name)) {
            *handle = (CUfunction)module->functions[i];
            return CUDA_SUCCESS;
        }
    }
    snprintf(symbol, sizeof symbol, "%s_params_bytes", name);
    void *kernel = dlsym(module->library, name);
    const uint64_t *bytes = dlsym(module->library, symbol);
    if (kernel == NULL || bytes == NULL)
        return CUDA_ERROR_NOT_FOUND;
    if (*bytes > SIM_PARAMS_MAX) {
        sim_say("kernel %s takes %llu bytes of parameters, more than %d", name, (unsigned long long)*bytes,
                SIM_PARAMS_MAX);
        return CUDA_ERROR_INVALID_IMAGE;
    }
    sim_function_t *function = sim_object_create(sizeof *function, SIM_FUNCTION);
    snprintf(function->name, sizeof function->name, "%s", name);
    memcpy(&function->kernel, &kernel, sizeof kernel);
    function->params_bytes = *bytes;
    snprintf(shared, sizeof shared, "%s_shared", name);
    function->shared = dlsym(module->library, shared);
    function->module = module;
    function->shared_max = 48 << 10;
    module->functions = realloc(module->functions, (module->n_functions + 1) * sizeof(*module->functions));
    if (module->functions == NULL)
        abort();
    module->functions[module->n_functions++] = function;
    *handle = (CUfunction)function;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    CUresult result = sim_enter("cuModuleGetFunction", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && !sim_is(module, SIM_MODULE))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS)
        result = get_function(function, (sim_module_t *)module, name);
    return sim_leave(result);
}

CUresult cuFuncLoad(CUfunction handle)
{
    CUresult result = sim_enter("cuFuncLoad", SIM_CONTEXT);
    if (result == CUDA_SUCCESS)
        result = sim_capture_forbid(false);
    if (result == CUDA_SUCCESS && !sim_is(handle, SIM_FUNCTION))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS)
        ((sim_function_t *)handle)->loaded = true;
    return sim_leave(result);
}

CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value)
{
    CUresult result = sim_enter("cuFuncSetAttribute", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && !sim_is(handle, SIM_FUNCTION))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        if (value < 0 || value > 227 << 10)
            result = CUDA_ERROR_INVALID_VALUE;
        else
            ((sim_function_t *)handle)->shared_max = (unsigned)value;
    }
    return sim_leave(result);
}

static int function_fact(const sim_function_t *function, CUfunction_attribute attribute)
{
    switch ((int)attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        return 1024;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        return 32;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        return 90;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        return (int)function->shared_max;
    default:
        return 0;
    }
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction handle)
{
    CUresult result = sim_enter("cuFuncGetAttribute", SIM_CONTEXT);
    if (result == CUDA_SUCCESS && !sim_is(handle, SIM_FUNCTION))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS)
        *value = function_fact((const sim_function_t *)handle, attribute);
    return sim_leave(result);
}
