/* poison.h - measuring the peak that a replay really reached.
 *
 * Before a replay the whole slab is filled with one byte value; after it, the highest byte that
 * differs marks the peak. A float 0x7f7f7f7f is 3.4e38, so a kernel that reads what nobody wrote
 * shows up in results too. Where the last byte of the highest storage happens to be written with the
 * poison's own value the measure falls short; a second replay over the complement settles it.
 *
 * Threads: pure. */
#ifndef DJ_GPU_POISON_H
#define DJ_GPU_POISON_H

#include "gpu/device.h"

#define DJ_POISON_BYTE 0x7f

/* Of memory that the host reads. */
void dj_poison_fill(void *slab, uint64_t bytes, uint8_t value);
/* One past the highest byte that differs from the poison; 0 when none does. */
uint64_t dj_poison_peak(const void *slab, uint64_t bytes, uint8_t value);

/* The same of any device's memory: by its fill, and by copies of at most 1 MiB where the host does not read
 * it. DJ_ERR_MEMORY, DJ_ERR_DEVICE. */
dj_status_t dj_poison_fill_slab(dj_device_t *device, void *slab, uint64_t bytes, uint8_t value);
dj_status_t dj_poison_peak_slab(dj_device_t *device, const void *slab, uint64_t bytes, uint8_t value,
                                uint64_t *peak_p);

#endif
