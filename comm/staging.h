/* staging.h - the ring of pinned slots through which device memory meets a network that cannot read
 * it.
 *
 * Used where neither dma-buf, nvidia_peermem nor cuda_ipc serves a pair of peers: a transfer of
 * device memory is cut into parts of one slot; while one part is on the wire the next is copied
 * between device and host. Copies are those of the memory-operation table (runtime/base/memops.h),
 * so all of it is tested through host operations. A ring serves one peer and pins
 * 2 * slots * slot_bytes, so it is made when a peer first moves device memory.
 *
 * Outgoing: dj_staging_out() queues a transfer; its parts are copied to slots and handed to `send`,
 * parts in order of offset, transfers in the order they came. `send` answers as
 * dj_endpoint_send() does: DJ_OK (sent, the slot is free), DJ_IN_PROGRESS (dj_staging_release()
 * says when the network is done with the slot), DJ_ERR_BUSY (the peer takes nothing now: the same
 * part is offered again by the next progress), or an error, which ends the transfer.
 *
 * Incoming: dj_staging_in() gives a slot to receive into; dj_staging_land() copies it on to the
 * device, after which it is free. The two directions have slots of their own: peers that send to
 * each other at once cannot fill each other's rings and wait for ever. A peer must not have more
 * parts in flight than the other has slots: who sends counts credits and answers DJ_ERR_BUSY.
 *
 * A transfer that fails (a copy, a send, dj_staging_fail()) copies nothing further; `done` comes
 * when its last slot is back. Parts that were sent before are the receiver's to forget.
 *
 * Nothing is allocated after creation. Callbacks come from dj_staging_progress() and
 * dj_staging_destroy() alone, and may call anything of the ring but those two.
 *
 * Ownership: device ranges are the caller's and stay until `done`. Threads: the owner's. */
#ifndef DJ_COMM_STAGING_H
#define DJ_COMM_STAGING_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/memops.h"

enum {
    DJ_STAGING_SLOTS = 4, /* a direction a peer */
    DJ_STAGING_SLOT_BYTES = 1 << 20,
    DJ_STAGING_SLOTS_MAX = 64,
    DJ_STAGING_SLOT_BYTES_MAX = 64 << 20,
    DJ_STAGING_TRANSFERS_MAX = 64, /* outgoing, not yet over */
};

typedef struct dj_staging dj_staging_t;

/* `bytes` of the transfer, from `offset` on, lie at `host` in slot `slot`: send them. */
typedef dj_status_t (*dj_staging_send_t)(void *argument, uint32_t slot, const void *host,
                                         uint64_t bytes, uint64_t offset);
/* A transfer is over: all its parts were released or landed; or why not. */
typedef void (*dj_staging_done_t)(void *argument, dj_status_t status);

/* `ops` is the row of the device's memory and outlives the ring. ERR_INVALID: a size of 0 or above
 * its limit. ERR_MEMORY, or the row's error. */
dj_status_t dj_staging_create(const dj_memops_t *ops, uint32_t slots, uint64_t slot_bytes,
                              dj_staging_t **staging_p);
/* Waits for copies under way (the device's work, not the peer's). What is not over is reported as
 * DJ_ERR_CANCELLED. Slots that the network still holds stay valid: the last dj_staging_release() of
 * them frees the ring. NULL is ignored. */
void dj_staging_destroy(dj_staging_t *staging);
uint64_t dj_staging_slot_bytes(const dj_staging_t *staging);

/* DJ_IN_PROGRESS: `done` will be called once. DJ_OK: 0 bytes, nothing to do. ERR_BUSY: as many
 * transfers are under way as a ring takes. */
dj_status_t dj_staging_out(dj_staging_t *staging, const void *device, uint64_t bytes,
                           dj_staging_send_t send, dj_staging_done_t done, void *argument);
/* A free slot for an incoming part of up to a slot's bytes: DJ_OK, or ERR_BUSY when all are in use.
 * It is given back by dj_staging_land(), or by dj_staging_release() when the part does not come. */
dj_status_t dj_staging_in(dj_staging_t *staging, uint32_t *slot_p, void **host_p);
/* The slot holds `bytes` for `device`. DJ_OK: they are there, `done` is not called. DJ_IN_PROGRESS:
 * `done` will be. Else an error. The slot is the ring's again in any case. */
dj_status_t dj_staging_land(dj_staging_t *staging, uint32_t slot, void *device, uint64_t bytes,
                            dj_staging_done_t done, void *argument);
/* The network is done with a slot (not from inside the `send` that lent it); a status other than
 * DJ_OK ends the transfer it belongs to. */
void dj_staging_release(dj_staging_t *staging, uint32_t slot, dj_status_t status);
/* Ends all outgoing transfers with `status`: the peer is gone. */
void dj_staging_fail(dj_staging_t *staging, dj_status_t status);

/* Looks after copies under way, hands on what is copied, reports what is over. Returns how many
 * parts and transfers moved on. */
unsigned dj_staging_progress(dj_staging_t *staging);
/* Progress has work that no event of the network announces: do not sleep. */
bool dj_staging_restless(const dj_staging_t *staging);
/* No transfer, no copy, and no slot in the network's hands. */
bool dj_staging_idle(const dj_staging_t *staging);

#endif
