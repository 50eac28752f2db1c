/* device.c - opens a device by kind.
 *
 * The only place that knows which kinds exist; everyone above works through the table it returns.
 */
#include "gpu/device.h"

#include <string.h>

#include "gpu/host/host.h"

#ifdef DJINN_HAS_CUDA
extern const dj_device_ops_t dj_cuda_device_ops; /* gpu/cuda/cuda_device.h needs CUDA's headers */
#endif

dj_status_t dj_device_open(const dj_config_t *config, dj_device_t **device_p)
{
    const char *kind = config->device;
    if (!kind || !*kind || strcmp(kind, "host") == 0)
        return dj_host_device_ops.open(config, device_p);
#ifdef DJINN_HAS_CUDA
    if (strcmp(kind, "cuda") == 0)
        return dj_cuda_device_ops.open(config, device_p);
#endif
    if (strcmp(kind, "cuda") == 0)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "device cuda: this build has no CUDA kernels; use --device=host");
    return dj_fail(DJ_ERR_INVALID, "device '%s' is unknown; known kinds: host, cuda", kind);
}
