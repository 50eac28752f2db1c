/* fake_driver.c - a libcuda.so.1 and a libnvidia-ml.so.1 in one, for a doctor that looks at GPUs
 * where there are none. What they answer comes from the environment: FAKE_GPU="key=number,...". */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int answer(const char *key, int otherwise)
{
    const char *at = getenv("FAKE_GPU");
    size_t length = strlen(key);
    for (; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, key, length) == 0 && at[length] == '=')
            return atoi(at + length + 1);
    return otherwise;
}

int cuInit(unsigned flags)
{
    if (answer("hang", 0))
        pause();
    if (answer("crash", 0))
        abort();
    return answer("init", 0);
}

int cuDriverGetVersion(int *version)
{
    *version = answer("cuda", 12040);
    return 0;
}

int cuDeviceGetCount(int *count)
{
    *count = answer("devices", 2);
    return 0;
}

int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = answer(attribute == 20    ? "mode"
                    : attribute == 116 ? "rdma"
                    : attribute == 110 ? "vmm"
                                       : "dmabuf",
                    0);
    return 0;
}

int nvmlInit_v2(void)
{
    return answer("nvml", 0);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = (unsigned)answer("devices", 2);
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    static char devices[64];
    *device = &devices[index];
    return 0;
}

int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *count)
{
    *count = type == 1 && counter == 0 ? (unsigned long long)answer("ecc", 0) : 999;
    return 0;
}

int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed)
{
    *corrected = *uncorrected = 0;
    *pending = (unsigned)answer("pending", 0);
    *failed = (unsigned)answer("failed", 0);
    return 0;
}
