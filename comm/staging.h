/* staging.h - the ring of pinned slots through which device memory meets a network that cannot read it.
 *
 * Used where neither dma-buf, nvidia_peermem nor cuda_ipc serves a pair of peers: a transfer of device memory
 * is cut into parts of one slot; while one part is on the wire the next is copied between device and host.
 * Copies are those of the memory-operation table (runtime/base/memops.h), so all of it is tested through host
 * operations.
 *
 * Outgoing: dj_staging_out() copies a part to a slot and calls `send` with it; the slot is given back by
 * dj_staging_release() once the network is done with it. Incoming: dj_staging_in() gives a slot to receive
 * into; dj_staging_land() copies it on to the device and gives it back. A part that finds no free slot waits
 * in order; nothing is allocated after creation.
 *
 * Threads: the owner's; dj_staging_progress() drives the copies. */
#ifndef DJ_COMM_STAGING_H
#define DJ_COMM_STAGING_H

#include "runtime/base/memops.h"

enum {
    DJ_STAGING_SLOTS = 4, /* a direction a peer */
    DJ_STAGING_SLOT_BYTES = 1 << 20,
};

typedef struct dj_staging dj_staging_t;

/* A slot's bytes are in host memory: send them. Called from dj_staging_out() or dj_staging_progress(). */
typedef void (*dj_staging_send_t)(void *argument, uint32_t slot, const void *host, uint64_t bytes,
                                  uint64_t offset);
/* A whole transfer is over: all its parts landed or were released; or why not. */
typedef void (*dj_staging_done_t)(void *argument, dj_status_t status);

dj_status_t dj_staging_create(const dj_memops_t *ops, uint32_t slots, uint64_t slot_bytes,
                              dj_staging_t **staging_p);
void dj_staging_destroy(dj_staging_t *staging);
uint64_t dj_staging_slot_bytes(const dj_staging_t *staging);

dj_status_t dj_staging_out(dj_staging_t *staging, const void *device, uint64_t bytes,
                           dj_staging_send_t send, dj_staging_done_t done, void *argument);
/* A free slot for an incoming part: DJ_OK, or DJ_ERR_BUSY when all are in use. */
dj_status_t dj_staging_in(dj_staging_t *staging, uint32_t *slot_p, void **host_p);
/* The slot holds `bytes` for `device`: copies them there; `done` follows, then the slot is free. */
dj_status_t dj_staging_land(dj_staging_t *staging, uint32_t slot, void *device, uint64_t bytes,
                            dj_staging_done_t done, void *argument);
void dj_staging_release(dj_staging_t *staging, uint32_t slot);
/* Looks after copies under way; returns how many finished. */
unsigned dj_staging_progress(dj_staging_t *staging);
bool dj_staging_idle(const dj_staging_t *staging);

#endif
