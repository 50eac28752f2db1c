/* nvml.c - NVML of the simulated device: facts that do not change, and the memory in use.
 *
 * The types are NVML's own, as documented; the product's header (gpu/cuda/abi/nvml.h) is not included, so that the
 * two are written apart. */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "tests/gpu/simulator/simulator.h"

typedef struct device *nvml_device_t;
typedef struct {
    unsigned gpu, memory; /* percent */
} utilization_t;
typedef struct {
    unsigned long long total, available, used;
} memory_t;

typedef struct set *nvml_event_set_t;
typedef struct {
    nvml_device_t device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} event_t;

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
};
enum { EVENT_XID = 8, XIDS_MAX = 256 };

static int users;
static unsigned sets, xids[XIDS_MAX], xids_first, xids_end; /* one queue for all sets */
static unsigned long long registered;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char the_set;
static char the_device;
#define DEVICE ((nvml_device_t)(void *)&the_device)

static int check(nvml_device_t device)
{
    if (users == 0)
        return UNINITIALIZED;
    return device == DEVICE ? SUCCESS : INVALID_ARGUMENT;
}

static int put_text(char *text, unsigned bytes, const char *value)
{
    if (strlen(value) >= bytes)
        return INSUFFICIENT_SIZE;
    strcpy(text, value);
    return SUCCESS;
}

int nvmlInit_v2(void)
{
    ++users;
    return SUCCESS;
}

int nvmlShutdown(void)
{
    if (users == 0)
        return UNINITIALIZED;
    --users;
    return SUCCESS;
}

const char *nvmlErrorString(int result)
{
    return result == SUCCESS ? "Success" : result == NOT_FOUND ? "Not Found" : "Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned bytes)
{
    return users ? put_text(text, bytes, "580.0.0") : UNINITIALIZED;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = 1;
    return users ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvml_device_t *device)
{
    *device = DEVICE;
    return !users ? UNINITIALIZED : index ? INVALID_ARGUMENT : SUCCESS;
}

/* "0000:01:00.0" of the driver or "00000000:01:00.0" of NVML. */
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, nvml_device_t *device)
{
    unsigned domain, bus, slot, function;
    if (users == 0)
        return UNINITIALIZED;
    if (sscanf(pci, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
        return INVALID_ARGUMENT;
    if (domain || bus != 1 || slot || function)
        return NOT_FOUND;
    *device = DEVICE;
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, nvml_device_t *device)
{
    *device = DEVICE;
    return users ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetName(nvml_device_t device, char *name, unsigned bytes)
{
    int result = check(device);
    return result == SUCCESS ? put_text(name, bytes, "Simulated GPU") : result;
}

int nvmlDeviceGetUtilizationRates(nvml_device_t device, utilization_t *rates)
{
    *rates = (utilization_t){37, 11};
    return check(device);
}

int nvmlDeviceGetTemperature(nvml_device_t device, int sensor, unsigned *celsius)
{
    *celsius = 51;
    return sensor ? INVALID_ARGUMENT : check(device);
}

int nvmlDeviceGetPowerUsage(nvml_device_t device, unsigned *milliwatts)
{
    *milliwatts = 123456;
    return check(device);
}

int nvmlDeviceGetEnforcedPowerLimit(nvml_device_t device, unsigned *milliwatts)
{
    *milliwatts = 700000;
    return check(device);
}

int nvmlDeviceGetClockInfo(nvml_device_t device, int kind, unsigned *mhz)
{
    *mhz = 1000;
    return check(device);
}

int nvmlDeviceGetMaxClockInfo(nvml_device_t device, int kind, unsigned *mhz)
{
    *mhz = 1980;
    return check(device);
}

int nvmlDeviceGetMemoryInfo(nvml_device_t device, memory_t *memory)
{
    sim_counters_t now;
    size_t total = 0;
    sim_counters(&now);
    cuDeviceTotalMem(&total, 0);
    *memory = (memory_t){total, total - now.used_bytes, now.used_bytes};
    return check(device);
}

int nvmlDeviceGetTotalEccErrors(nvml_device_t device, int kind, int period, unsigned long long *count)
{
    *count = 0;
    return check(device);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(nvml_device_t device, unsigned long long *reasons)
{
    *reasons = 0;
    return check(device);
}

int nvmlDeviceGetCurrentClocksEventReasons(nvml_device_t device, unsigned long long *reasons)
{
    *reasons = 0;
    return check(device);
}

/* ---- events ---- */

void sim_post_xid(unsigned xid)
{
    pthread_mutex_lock(&lock);
    if (registered & EVENT_XID && xids_end - xids_first < XIDS_MAX)
        xids[xids_end++ % XIDS_MAX] = xid;
    pthread_mutex_unlock(&lock);
}

int nvmlEventSetCreate(nvml_event_set_t *set)
{
    if (users == 0)
        return UNINITIALIZED;
    ++sets;
    *set = (nvml_event_set_t)(void *)&the_set;
    return SUCCESS;
}

int nvmlEventSetFree(nvml_event_set_t set)
{
    if (sets == 0 || (void *)set != &the_set)
        return INVALID_ARGUMENT;
    if (--sets == 0)
        registered = 0;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(nvml_device_t device, unsigned long long types, nvml_event_set_t set)
{
    if ((void *)set != &the_set)
        return INVALID_ARGUMENT;
    registered |= types;
    return check(device);
}

/* Does not wait: what is not there now is a timeout. */
int nvmlEventSetWait_v2(nvml_event_set_t set, event_t *event, unsigned timeout_ms)
{
    if (sets == 0 || (void *)set != &the_set)
        return INVALID_ARGUMENT;
    int result = TIMEOUT;
    pthread_mutex_lock(&lock);
    if (xids_first != xids_end) {
        *event = (event_t){DEVICE, EVENT_XID, xids[xids_first++ % XIDS_MAX], 0, 0};
        result = SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return result;
}
