/* nvml.h - what is called of NVML (telemetry.c): NVIDIA's documented ABI. */
#ifndef DJ_GPU_CUDA_ABI_NVML_H
#define DJ_GPU_CUDA_ABI_NVML_H

typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlEventSet_st *nvmlEventSet_t;
typedef int nvmlReturn_t; /* 0: success */

#define DJ_NVML_TEMPERATURE_GPU 0 /* the die's sensor */
#define DJ_NVML_ECC_CORRECTED 0
#define DJ_NVML_ECC_UNCORRECTED 1
#define DJ_NVML_ECC_VOLATILE 0 /* counted since the driver was loaded */
#define DJ_NVML_EVENT_XID 0x8ull

typedef struct dj_nvml_utilization {
    unsigned int gpu, memory; /* percent of the last sample's time */
} dj_nvml_utilization_t;

typedef struct dj_nvml_memory {
    unsigned long long total, free, used;
} dj_nvml_memory_t;

typedef struct dj_nvml_event {
    nvmlDevice_t device;
    unsigned long long type, data; /* data: the Xid */
    unsigned int gpu_instance, compute_instance;
} dj_nvml_event_t;

nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlShutdown(void);
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pci, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, dj_nvml_utilization_t *utilization);
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, dj_nvml_memory_t *memory);
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned int *celsius);
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts);
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, int error, int counter, unsigned long long *count);
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set);
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set);
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set);
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, dj_nvml_event_t *event, unsigned int timeout_ms);

#define DJ_CUDA_NVML(X)                                                                            \
    X(nvmlInit_v2)                                                                                 \
    X(nvmlShutdown)                                                                                \
    X(nvmlDeviceGetHandleByPciBusId_v2)                                                            \
    X(nvmlDeviceGetUtilizationRates)                                                               \
    X(nvmlDeviceGetMemoryInfo)                                                                     \
    X(nvmlDeviceGetTemperature)                                                                    \
    X(nvmlDeviceGetPowerUsage)                                                                     \
    X(nvmlDeviceGetTotalEccErrors)                                                                 \
    X(nvmlEventSetCreate)                                                                          \
    X(nvmlEventSetFree)                                                                            \
    X(nvmlDeviceRegisterEvents)                                                                    \
    X(nvmlEventSetWait_v2)

#endif
