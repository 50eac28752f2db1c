/* devices.c - counts what placement will hand out, so that no more ranks start than it can place.
 */
#include "launcher/placement/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/placement/layout.h"

static dj_status_t count_gpus(uint32_t *count_p)
{
    dj_topology_t *topology;
    dj_layout_request_t request = {0};
    dj_status_t status = dj_topology_find(true, &topology);
    if (status != DJ_OK)
        return status;
    dj_layout_visible(topology, &request);
    *count_p = (uint32_t)__builtin_popcountll(dj_gpus_visible(topology, request.visible));
    free(topology);
    char why[128] = "none is on the PCI bus, or the control group keeps it from us";
    if (request.visible)
        snprintf(why, sizeof why, "%s is '%.64s'", request.visible_name, request.visible);
    if (*count_p > 0)
        return DJ_OK;
    return dj_fail(DJ_ERR_UNSUPPORTED,
                   "no GPU is here for --device cuda (%s); ask the launcher for GPUs, or take "
                   "--device host",
                   why);
}

dj_status_t dj_devices_count(const char *device, uint32_t *count_p)
{
    uint32_t count = 1;
    dj_status_t status = strcmp(device, "cuda") == 0 ? count_gpus(&count) : DJ_OK;
    if (status == DJ_OK)
        *count_p = count;
    return status;
}
