/* session.h - contract 6: a session is a lease on one rank: Data, refs, known programs, quotas.
 *
 * Born in the hello on the control socket, named by 64 random bits and a generation, owned by a uid. It
 * holds an arena of Data (gpu/data.h), a table of refs, references on Text, and the set of programs the
 * client has shown, so that a warm request names a program by its key alone.
 *
 * Lease: the client's heartbeats keep it. When the control socket ends, the session is DETACHED: at once
 * destroyed if the client is provably dead (same host, its process gone) or said CLOSE, else kept for
 * lease_grace_ms, in which a hello with id and generation re-attaches it with the next generation.
 * Messages of an older generation are dropped (DJ_ERR_STALE).
 *
 * Order: requests of a session run in the order sent. `pending` counts those handed to the device
 * thread; the progress thread runs one itself only while it is 0. So refs and arena belong to exactly
 * one thread at a time, without a lock: to the progress thread while pending is 0, else to the device
 * thread. Destruction waits for pending 0.
 *
 * Ingress: bytes of requests not yet run, counted against ingress_bytes before memory is made for them;
 * a slow sender holds its own quota and nothing else.
 *
 * Refs: slot by low 32 bits, tag in the high 32 bits, owner is the session. A ref stands for a block of
 * Data or for Text. The first write to Text moves it: a private copy in Data takes its place under the
 * same ref. */
#ifndef DJ_RUNTIME_SESSION_H
#define DJ_RUNTIME_SESSION_H

#include <stdatomic.h>

#include "comm/endpoint.h"
#include "gpu/data.h"
#include "gpu/text.h"
#include "planner/cache.h"
#include "runtime/base/table.h"

typedef enum dj_session_state {
    DJ_SESSION_ATTACHED,
    DJ_SESSION_DETACHED,
    DJ_SESSION_ENDING, /* destroyed as soon as pending is 0 */
} dj_session_state_t;

/* One ref's storage. tag 0: the slot is free. */
typedef struct dj_ref_slot {
    uint32_t tag;
    dj_text_t *text; /* or NULL: block */
    dj_block_t block;
} dj_ref_slot_t;

typedef struct dj_refs {
    dj_ref_slot_t *slots;
    uint32_t capacity;
    uint64_t count;
} dj_refs_t;

/* The last answer, kept for a repeat of the same request. */
typedef struct dj_kept_answer {
    uint64_t request;
    dj_result_t result;
} dj_kept_answer_t;

typedef struct dj_session {
    uint64_t id;
    uint32_t generation;
    uint32_t uid, pid;
    uint64_t host;
    _Atomic int state;
    uint64_t lease_ends_ns; /* when DETACHED */
    struct dj_endpoint *endpoint;
    atomic_uint pending;
    _Atomic uint64_t ingress_bytes;
    uint32_t sequence_out, sequence_in;
    dj_kept_answer_t last;
    uint64_t default_deadline_ms;

    dj_data_t *data;
    dj_refs_t refs;
    dj_table_t plans; /* exact key → dj_cache_entry_t *, one reference each */
    /* What `plans` costs is bounded: the oldest half goes beyond `plans` of the configuration. */
    uint64_t planning_ns, busy_ns;
} dj_session_t;

/* What sessions need of their rank. */
typedef struct dj_session_home {
    const dj_config_t *config;
    dj_device_t *device;
    dj_text_store_t *text;
    dj_cache_t *cache;
} dj_session_home_t;

dj_status_t dj_session_create(const dj_session_home_t *home, uint64_t id, dj_session_t **session_p);
/* Returns Data to the byte, releases Text and plans. The endpoint is the caller's business. */
void dj_session_destroy(dj_session_t *session, const dj_session_home_t *home);

/* ---- refs (runtime/refs.c) ---- */

/* A new ref with a block of `bytes`. DJ_ERR_STALE when the slot is taken, DJ_ERR_LIMIT,
 * DJ_ERR_RESOURCE. */
dj_status_t dj_ref_create(dj_session_t *session, uint64_t ref, uint64_t bytes,
                          dj_ref_slot_t **slot_p);
/* A new ref standing for Text; takes over the caller's reference on success. */
dj_status_t dj_ref_create_text(dj_session_t *session, uint64_t ref, dj_text_t *text);
/* DJ_ERR_STALE for a free slot or another tag. */
dj_status_t dj_ref_find(dj_session_t *session, uint64_t ref, dj_ref_slot_t **slot_p);
void dj_ref_drop(dj_session_t *session, const dj_session_home_t *home, uint64_t ref);
/* Makes the ref writable: Text is copied into Data. */
dj_status_t dj_ref_make_private(dj_session_t *session, const dj_session_home_t *home,
                                dj_ref_slot_t *slot);
static inline void *dj_ref_data(const dj_ref_slot_t *slot)
{
    return slot->text ? slot->text->data : slot->block.data;
}
static inline uint64_t dj_ref_bytes(const dj_ref_slot_t *slot)
{
    return slot->text ? slot->text->bytes : slot->block.bytes;
}

#endif
