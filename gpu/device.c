/* device.c - opens a device by kind.
 *
 * The only place that knows which kinds exist; everyone above works through the table it returns.
 */
#include "gpu/device.h"

#include <string.h>

#include "gpu/host/host.h"

dj_status_t dj_device_open(const dj_config_t *config, dj_device_t **device_p)
{
    const char *kind = config->device;
    if (!kind || !*kind || strcmp(kind, "host") == 0)
        return dj_host_device_ops.open(config, device_p);
    if (strcmp(kind, "cuda") == 0)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "device cuda: this build has no CUDA kernels; use --device=host");
    return dj_fail(DJ_ERR_INVALID, "device '%s' is unknown; known kinds: host, cuda", kind);
}
