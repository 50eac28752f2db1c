/* nvml.h - what is called of NVML (telemetry.c): NVIDIA's documented ABI. */
#ifndef DJ_GPU_CUDA_ABI_NVML_H
#define DJ_GPU_CUDA_ABI_NVML_H

typedef struct nvmlDevice_st *nvmlDevice_t;
typedef int nvmlReturn_t; /* 0: success */

nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlShutdown(void);
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pci, nvmlDevice_t *device);

#define DJ_CUDA_NVML(X)                                                                            \
    X(nvmlInit_v2)                                                                                 \
    X(nvmlShutdown)                                                                                \
    X(nvmlDeviceGetHandleByPciBusId_v2)

#endif
