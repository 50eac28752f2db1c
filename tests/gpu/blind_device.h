/* blind_device.h - the host device behind an address translation: host code that touches its memory faults.
 *
 * A device address is a mapping without access; the bytes lie in a shared mapping elsewhere that copies and
 * replays alone know. So whatever would be wrong with a GPU's memory (a dereference, a memcpy, a pointer handed
 * to UCX, a copy between the wrong kinds) ends the process here, on any machine. Pages are as large as a test
 * wants them, copies that go on alone happen as late as they may, and the weights behind bindings are not shown
 * to the kernels, which would read them.
 *
 * In a rank (blind_rank.c) it reads its environment: BLIND_PAGE_BYTES; BLIND_FAIL_FILE: the replay that finds this
 * file removes it, and the device has failed for good; BLIND_SLAB=1: it has slabs; BLIND_COPY_MB_PER_S: what its one
 * copy engine moves, to measure what runs beside copies; BLIND_RELEASE_MS: how long its driver takes to return pages.
 *
 * Threads: as gpu/device.h. */
#ifndef DJ_TESTS_GPU_BLIND_DEVICE_H
#define DJ_TESTS_GPU_BLIND_DEVICE_H

#include "gpu/device.h"

typedef struct blind_options {
    uint64_t page_bytes;   /* a power of two, at least 4096 */
    uint64_t memory_bytes; /* commit refuses beyond; 0: no limit */
    bool no_extras;        /* leaves the optional slots NULL */
    const char *fail_file; /* or NULL */
    bool slab;             /* it has slabs, which are host memory and say so */
    bool slab_hidden;      /* they do not say so: whoever uses them must prove that CUDA memory travels */
    bool slab_fails;       /* none can be made */
    uint32_t release_ms;
    uint64_t copy_mb_per_s; /* copies between host and device take their time, one after another; 0: a memcpy's */
} blind_options_t;

dj_status_t blind_open(const dj_config_t *config, const blind_options_t *options, dj_device_t **device_p);
uint64_t blind_committed_bytes(const dj_device_t *device); /* behind all ranges */
uint64_t blind_ranges(const dj_device_t *device);          /* reserved, not released */
uint64_t blind_pinned_bytes(const dj_device_t *device);
uint64_t blind_slab_bytes(const dj_device_t *device);
/* Where the bytes of a committed address really are; NULL: it is no address of the device's. */
void *blind_alias(const dj_device_t *device, const void *address);

#endif
