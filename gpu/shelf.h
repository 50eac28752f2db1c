/* shelf.h - pages that many small weights share.
 *
 * A page of a GPU has 2 MiB and most tensors of a model have less, or have a little more than some pages. They lie side
 * by side on shelves instead: each a reserved range with a table of what lies where. Pages come as far as something put
 * there needs them, and go when nothing lies on them any more.
 *
 * Sealing: a shelf's pages are read-only by mapping at the address by which everybody knows them, from before the first
 * byte is written until they go. No mapping changes its access while kernels run on it. Who fills a new thing does so
 * at a second, writable address of the same pages (mirror() of device.h), the window. It is open over an extent, below,
 * for as long as something on it is being filled, and shows no later what lies there.
 *
 * Fragmentation: pages come in extents, those that one thing lacks at a time (so at most DJ_SHELF_THING_PAGES), and an
 * extent goes with the last thing that touches it. So what outlives its neighbours holds the extents under it: each of
 * them at most DJ_SHELF_THING_PAGES pages. What is free between things is reused at any time: a new thing goes where
 * the fewest new pages are needed, whatever is or was there. A model that is loaded and dropped as a whole leaves
 * nothing, and loses less than a page at its end.
 *
 * Threads: the caller's lock. */
#ifndef DJ_GPU_SHELF_H
#define DJ_GPU_SHELF_H

#include "gpu/device.h"

#define DJ_SHELF_ALIGN 256u
#define DJ_SHELF_THING_PAGES 16u /* at most of one thing */

typedef struct dj_shelf dj_shelf_t;

typedef struct dj_shelves {
    dj_device_t *device;
    dj_shelf_t *first;
} dj_shelves_t;

typedef struct dj_shelf_spot {
    dj_shelf_t *shelf;      /* NULL: none yet */
    uint64_t offset, bytes; /* bytes: rounded up to the alignment */
} dj_shelf_spot_t;

void dj_shelves_init(dj_shelves_t *shelves, dj_device_t *device);
void dj_shelves_fini(dj_shelves_t *shelves); /* everything was taken away */

/* Whether this device has shelves, and pages of its own would cost a thing of this size more than a 16th of it. */
bool dj_shelf_suits(const dj_device_t *device, uint64_t bytes);

/* The spot that needs the fewest new pages, and their bytes. It holds until the next put or remove. */
uint64_t dj_shelf_find(const dj_shelves_t *shelves, uint64_t bytes, dj_shelf_spot_t *spot);
/* Takes the spot: *window_p is where to write. Contents undefined. DJ_ERR_MEMORY and others of the device; nothing is
 * taken then. */
dj_status_t dj_shelf_put(dj_shelves_t *shelves, dj_shelf_spot_t *spot, void **window_p);
/* It is filled: nothing is written there any more. Where it lies for good. */
void *dj_shelf_close(const dj_shelf_spot_t *spot);
/* A closed one goes. The bytes of the pages that went with it. */
uint64_t dj_shelf_remove(dj_shelves_t *shelves, const dj_shelf_spot_t *spot);

#endif
