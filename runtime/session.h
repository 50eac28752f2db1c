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
 * Order: every message of a session joins its queue of jobs in the order it arrived, a rendezvous at
 * its first callback, and only the head runs; the next one starts when the head's answer has left,
 * releases included, or when the answer leans on nothing of the session's: it then leaves by itself, and
 * beside a blind device bytes are copied out while those before them travel. The progress thread runs a job itself when the queue is empty and the job is warm
 * and short; else the device thread does. So refs and arena belong to exactly one thread at a time,
 * without a lock, and bytes on their way to a client are never overwritten by the next request.
 * Destruction waits for an empty queue, and happens beside the progress thread (reaper.h).
 *
 * Ingress: bytes of requests not yet run, counted against ingress_bytes before memory is made for them;
 * a slow sender holds its own quota and nothing else. It is host memory, but on direct paths.
 *
 * Blind devices (their info's host_reads is false): nothing but the device's own copies and replays touches
 * Text, Data and Stack. What arrives waits in ingress or in a bounce buffer (gpu/bounce.h) and is copied in
 * when its turn comes; what leaves is copied out to one first, and counted until it has left: past
 * ingress_bytes of it no further job starts. Where the path is direct (direct.c), such a buffer may itself be
 * device memory, and ingress, too, for a PUT of one tensor.
 *
 * Refs: slot by low 32 bits, tag in the high 32 bits, owner is the session. A ref stands for a block of
 * Data or for Text. The first write to Text moves it: a private copy in Data takes its place under the
 * same ref. */
#ifndef DJ_RUNTIME_SESSION_H
#define DJ_RUNTIME_SESSION_H

#include "comm/endpoint.h"
#include "gpu/bounce.h"
#include "gpu/data.h"
#include "gpu/text.h"
#include "planner/cache.h"
#include "runtime/base/gauge.h"
#include "runtime/base/table.h"

typedef enum dj_session_state {
    DJ_SESSION_ATTACHED,
    DJ_SESSION_DETACHED,
    DJ_SESSION_ENDING, /* destroyed as soon as pending and leaving are 0 */
} dj_session_state_t;

/* One ref's storage. tag 0: the slot is free. */
typedef struct dj_ref_slot {
    uint32_t tag;
    dj_text_t *text; /* or NULL: block */
    dj_block_t block;
} dj_ref_slot_t;

/* Slots come in chunks, so a client that names a high index costs one chunk. */
enum { DJ_REF_CHUNK = 1024 };
typedef struct dj_refs {
    dj_ref_slot_t *chunks[DJ_REFS_MAX / DJ_REF_CHUNK];
    dj_gauge_t count; /* any thread may read it */
} dj_refs_t;

/* The last answer, kept for a repeat of the same request. */
typedef struct dj_kept_answer {
    uint64_t request;
    dj_result_t result;
} dj_kept_answer_t;

/* The exact keys this session has shown, oldest first, as the client mirrors them: a key is pushed when
 * its structure arrives, whether or not it could be planned (then without an entry). */
typedef struct dj_shown_plans {
    dj_table_t entries; /* exact key → dj_cache_entry_t *, one reference each, or DJ_PARKED */
    dj_hash_t ring[DJ_SHOWN_MAX];
    uint64_t count;
    uint64_t n_parked; /* of the ring, in order: all before it are parked, or not there */
    dj_cache_entry_t *leaving[DJ_EXEC_SEGMENTS_MAX]; /* pushed out by the request under way, which may use them */
    uint32_t n_leaving;
} dj_shown_plans_t;

/* In the place of an entry that was let go for want of memory: its program and plan wait in the cache. */
extern dj_cache_entry_t dj_parked;
#define DJ_PARKED (&dj_parked)

struct dj_job;

typedef struct dj_session {
    uint64_t id;
    uint32_t generation;
    uint32_t uid, pid;
    uint64_t host;      /* identity of the client's host */
    uint64_t connection; /* of the control thread; 0: detached */
    dj_session_state_t state;
    uint64_t lease_ends_ns; /* when DETACHED */
    bool closing;           /* the client said CLOSE: its connection ends when memory is back */
    dj_endpoint_t *endpoint;
    bool direct; /* its bytes travel through the slab: the path reaches device memory (direct.c) */
    struct dj_job *first_job, **last_job_p; /* the head is running or receiving */
    uint32_t pending;                       /* jobs in the queue */
    uint32_t landing;                       /* of them: arriving in the blocks of their refs */
    struct dj_job *first_leaving;           /* in no queue any more: their answers are on their way */
    uint32_t leaving;
    uint64_t ingress_bytes;
    uint64_t outgoing_bytes; /* in host memory on their way to the client and to other ranks (blind devices) */
    uint32_t sequence_out;
    dj_kept_answer_t last;
    uint64_t last_seen_request; /* ids rise; a repeat is not run again */
    uint64_t default_deadline_ms;

    dj_data_t *data;
    dj_refs_t refs;
    dj_shown_plans_t shown;
    uint64_t planning_ns, busy_ns;
} dj_session_t;

static inline bool dj_session_is_full(const dj_session_t *session)
{
    return session->pending + session->leaving >= DJ_REQUESTS_MAX;
}

/* What sessions need of their rank. */
typedef struct dj_session_home {
    const dj_config_t *config;
    dj_device_t *device;
    dj_text_store_t *text;
    dj_cache_t *cache;
    dj_bounce_pool_t *bounce; /* NULL: the host reads the device's memory, nothing passes through here */
} dj_session_home_t;

static inline bool dj_home_is_blind(const dj_session_home_t *home)
{
    return home->bounce != NULL;
}

dj_status_t dj_session_create(const dj_session_home_t *home, uint64_t id, dj_session_t **session_p);
/* Returns Data to the byte, releases Text and plans. The endpoint is the caller's business. */
void dj_session_destroy(dj_session_t *session, const dj_session_home_t *home);

/* The entry behind a key the session has shown, DJ_PARKED, or NULL. */
dj_cache_entry_t *dj_session_plan(const dj_session_t *session, dj_hash_t exact_key);
/* Notes that a structure was shown. Takes over the entry's reference; `entry` NULL: it could not be
 * planned, and the key alone will be answered with DJ_ERR_NO_PLAN. */
dj_status_t dj_session_show(dj_session_t *session, const dj_session_home_t *home,
                            dj_hash_t exact_key, dj_cache_entry_t *entry);

/* A parked entry is back. Takes over the reference. DJ_ERR_MEMORY. */
dj_status_t dj_session_recall(dj_session_t *session, const dj_session_home_t *home,
                              dj_hash_t exact_key, dj_cache_entry_t *entry);
/* After a request: lets go of what it pushed out, and where the cache is heavy parks what was shown first,
 * all but the latest few. */
void dj_session_settle(dj_session_t *session, const dj_session_home_t *home);

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
void dj_refs_fini(dj_session_t *session, const dj_session_home_t *home); /* drops all */
static inline void *dj_ref_data(const dj_ref_slot_t *slot)
{
    return slot->text ? slot->text->data : slot->block.data;
}
static inline uint64_t dj_ref_bytes(const dj_ref_slot_t *slot)
{
    return slot->text ? slot->text->bytes : slot->block.bytes;
}

#endif
