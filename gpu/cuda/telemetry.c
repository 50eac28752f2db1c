/* telemetry.c - what NVML says of the GPU: `djinn info` shows it, and after a fault it is the only witness left.
 *
 * NVML is another library with another way to the GPU; it answers when CUDA's context is lost. Each field is asked for
 * itself, because a GPU may have no ECC or a container no right to its power. Xid errors come as events from open on;
 * NVML keeps those that nobody fetched. The handle is the whole GPU's, also where the rank has a slice of it (MIG).
 *
 * Threads: one at a time (device.h). */
#define DJ_LOG_MODULE "cuda"

#include <stdlib.h>

#include "gpu/cuda/cuda_device.h"
#include "runtime/base/log.h"

#define EVENTS_MAX 64 /* of one call: more wait for the next */

struct dj_cuda_telemetry {
    nvmlDevice_t device;
    nvmlEventSet_t events; /* NULL: this GPU reports none */
    uint32_t xid, xid_count;
};

static nvmlEventSet_t events_open(nvmlDevice_t device)
{
    nvmlEventSet_t set;
    if (dj_cuda.nvmlEventSetCreate(&set) != 0)
        return NULL;
    if (dj_cuda.nvmlDeviceRegisterEvents(device, DJ_NVML_EVENT_XID, set) == 0)
        return set;
    dj_cuda.nvmlEventSetFree(set);
    return NULL;
}

void dj_cuda_telemetry_open(dj_cuda_device_t *device)
{
    nvmlDevice_t found;
    if (!dj_cuda.has.nvml)
        return;
    nvmlReturn_t result = dj_cuda.nvmlInit_v2();
    if (result != 0) {
        dj_log(INFO, "GPU %s: no telemetry: NVML does not start (%d)", device->pci, result);
        return;
    }
    result = dj_cuda.nvmlDeviceGetHandleByPciBusId_v2(device->pci, &found);
    struct dj_cuda_telemetry *telemetry = result == 0 ? calloc(1, sizeof(*telemetry)) : NULL;
    if (!telemetry) {
        dj_log(INFO, "GPU %s: no telemetry: NVML does not find it (%d)", device->pci, result);
        dj_cuda.nvmlShutdown();
        return;
    }
    telemetry->device = found;
    telemetry->events = events_open(found);
    device->telemetry = telemetry;
}

void dj_cuda_telemetry_close(dj_cuda_device_t *device)
{
    if (!device->telemetry)
        return;
    if (device->telemetry->events)
        dj_cuda.nvmlEventSetFree(device->telemetry->events);
    dj_cuda.nvmlShutdown();
    free(device->telemetry);
    device->telemetry = NULL;
}

static void fetch_xids(struct dj_cuda_telemetry *telemetry, dj_telemetry_t *says)
{
    dj_nvml_event_t event = {0};
    if (!telemetry->events)
        return;
    for (int i = 0; i < EVENTS_MAX && dj_cuda.nvmlEventSetWait_v2(telemetry->events, &event, 0) == 0; i++) {
        if (!(event.type & DJ_NVML_EVENT_XID))
            continue;
        telemetry->xid = (uint32_t)event.data;
        telemetry->xid_count++;
    }
    says->xid = telemetry->xid;
    says->xid_count = telemetry->xid_count;
    says->known |= DJ_TELEMETRY_XID;
}

static void fetch_ecc(nvmlDevice_t device, dj_telemetry_t *says)
{
    unsigned long long corrected, uncorrected;
    if (dj_cuda.nvmlDeviceGetTotalEccErrors(device, DJ_NVML_ECC_CORRECTED, DJ_NVML_ECC_VOLATILE, &corrected) != 0 ||
        dj_cuda.nvmlDeviceGetTotalEccErrors(device, DJ_NVML_ECC_UNCORRECTED, DJ_NVML_ECC_VOLATILE, &uncorrected) != 0)
        return;
    says->ecc_corrected = corrected;
    says->ecc_uncorrected = uncorrected;
    says->known |= DJ_TELEMETRY_ECC;
}

static void fetch_state(nvmlDevice_t device, dj_telemetry_t *says)
{
    dj_nvml_utilization_t utilization;
    dj_nvml_memory_t memory;
    unsigned int value;
    if (dj_cuda.nvmlDeviceGetUtilizationRates(device, &utilization) == 0) {
        says->utilization_percent = utilization.gpu;
        says->known |= DJ_TELEMETRY_UTILIZATION;
    }
    if (dj_cuda.nvmlDeviceGetMemoryInfo(device, &memory) == 0) {
        says->memory_used_bytes = memory.used;
        says->memory_total_bytes = memory.total;
        says->known |= DJ_TELEMETRY_MEMORY;
    }
    if (dj_cuda.nvmlDeviceGetTemperature(device, DJ_NVML_TEMPERATURE_GPU, &value) == 0) {
        says->temperature_c = value;
        says->known |= DJ_TELEMETRY_TEMPERATURE;
    }
    if (dj_cuda.nvmlDeviceGetPowerUsage(device, &value) == 0) {
        says->power_mw = value;
        says->known |= DJ_TELEMETRY_POWER;
    }
}

void dj_cuda_telemetry_read(dj_device_t *base, dj_telemetry_t *says)
{
    struct dj_cuda_telemetry *telemetry = ((dj_cuda_device_t *)base)->telemetry;
    *says = (dj_telemetry_t){0};
    if (!telemetry)
        return;
    fetch_state(telemetry->device, says);
    fetch_ecc(telemetry->device, says);
    fetch_xids(telemetry, says);
}
