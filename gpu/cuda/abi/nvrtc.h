/* nvrtc.h - what is called of NVRTC 13 (and 12): NVIDIA's documented ABI, declared here because a toolkit may come
 * without the header. */
#ifndef DJ_GPU_CUDA_ABI_NVRTC_H
#define DJ_GPU_CUDA_ABI_NVRTC_H

#include <stddef.h>

#ifndef DJ_CUDA_ABI_CHECK /* NVIDIA's own header comes before (tests/gpu/cuda/abi_check.c) */
typedef int nvrtcResult; /* 0: success */
typedef struct _nvrtcProgram *nvrtcProgram;
#endif

nvrtcResult nvrtcVersion(int *major, int *minor);
nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int n_headers,
                               const char *const *headers, const char *const *include_names);
nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program);
nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int n_options, const char *const *options);
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes);
nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *cubin);
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes);
nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log);

#define DJ_CUDA_NVRTC(X)                                                                           \
    X(nvrtcVersion)                                                                                \
    X(nvrtcCreateProgram)                                                                          \
    X(nvrtcDestroyProgram)                                                                         \
    X(nvrtcCompileProgram)                                                                         \
    X(nvrtcGetCUBINSize)                                                                           \
    X(nvrtcGetCUBIN)                                                                               \
    X(nvrtcGetProgramLogSize)                                                                      \
    X(nvrtcGetProgramLog)

#endif
