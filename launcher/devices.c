/* devices.c - asks the driver's list in /proc, which costs nothing and needs no CUDA. */
#include "launcher/devices.h"

#include <dirent.h>
#include <string.h>

#include "runtime/base/config.h"

#define DRIVER_LIST "/proc/driver/nvidia/gpus"

static uint32_t installed(void)
{
    uint32_t count = 0;
    DIR *folder = opendir(DRIVER_LIST);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    if (folder)
        closedir(folder);
    return count;
}

/* Entries of "0,1,GPU-1234"; a number below zero ends the list, as CUDA reads it. */
static uint32_t named(const char *list, uint32_t most)
{
    uint32_t count = 0;
    for (const char *at = list; at && *at && *at != '-' && count < most; count++) {
        at = strchr(at, ',');
        at = at ? at + 1 : NULL;
    }
    return count;
}

dj_status_t dj_devices_count(const char *device, uint32_t *count_p)
{
    const char *visible = dj_environment("CUDA_VISIBLE_DEVICES");
    uint32_t count = 1;
    if (strcmp(device, "cuda") == 0) {
        count = installed();
        if (visible)
            count = named(visible, count);
    }
    if (count == 0)
        return dj_fail(DJ_ERR_UNSUPPORTED, "no GPU is here for --device cuda (%s%s); ask the "
                                           "launcher for GPUs, or take --device host",
                       visible ? "CUDA_VISIBLE_DEVICES is " : DRIVER_LIST " is empty",
                       visible ? visible : "");
    *count_p = count;
    return DJ_OK;
}
