/* devices.h - how many devices of a kind this process may give to ranks. */
#ifndef DJ_LAUNCHER_DEVICES_H
#define DJ_LAUNCHER_DEVICES_H

#include <stdint.h>

#include "runtime/base/status.h"

/* "host": 1, the machine. "cuda": the GPUs that placement would hand out (layout.h).
 * DJ_ERR_UNSUPPORTED: none, with the next step. */
dj_status_t dj_devices_count(const char *device, uint32_t *count_p);

#endif
