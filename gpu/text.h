/* text.h - contract 3, Text: weights by content, sealed, counted, shared.
 *
 * An entry is one weight, named by the hash of its content that this rank computed itself, and read-only
 * by mapping from the moment it is published. Two sessions (or two files) with equal content share one
 * entry; a request that would write one is given a copy in its session's Data instead (runtime/refs.c).
 * Packed forms that kernels made of a weight hang on its entry, are sealed and counted too, and go with
 * it.
 *
 * Where they lie: on pages of their own, returned with them; or, where these would cost a 16th more than
 * what lies on them and the device can show pages at two addresses, beside others on a shelf (shelf.h
 * says when its pages go). Until it is published a draft there is written at an address that is its own;
 * `data` is then another one, which never was writable. The host device's pages are so small that all
 * of GPT-2's 148 weights together lose under 0.3 MiB: there every entry has its own.
 *
 * An entry at zero references stays for `linger` more dj_text_sweep() calls, then goes; under pressure
 * at once.
 *
 * Sharing: `owner` (a uid) is part of an entry's name, so weights are shared among the sessions of one
 * user; sharing across users needs proof that both may read the source, and comes with it.
 *
 * Threads: any; an entry's data is immutable. Retaining, releasing, finding and counting never wait for the
 * device; making and dropping wait for each other. */
#ifndef DJ_GPU_TEXT_H
#define DJ_GPU_TEXT_H

#include "gpu/shelf.h"

typedef struct dj_text_store dj_text_store_t;

typedef struct dj_text_room {
    uint64_t mapped_bytes; /* of pages of its own; those it would have, where `spot` has a shelf */
    dj_shelf_spot_t spot;
    bool is_open; /* on its shelf, and not sealed yet */
} dj_text_room_t;

typedef struct dj_text_pack {
    struct dj_text_pack *next;
    dj_hash_t key; /* of kernel, layout and sizes */
    uint64_t bytes;
    void *data; /* another address once it is sealed */
    dj_text_room_t room;
    bool sealed; /* until then dj_text_pack_find() does not see it */
} dj_text_pack_t;

typedef struct dj_text {
    struct dj_text *next; /* the store's */
    dj_hash_t content;
    uint32_t owner;
    uint64_t serial;     /* never used twice: tells an entry from one that lay here before */
    uint32_t references; /* under the store's lock */
    uint32_t idle_sweeps;
    uint64_t bytes;
    void *data;          /* sealed; a draft's is writable and another address */
    dj_text_room_t room;
    dj_text_pack_t *packs;
} dj_text_t;

typedef struct dj_text_counters {
    uint64_t entries, bytes, pack_bytes; /* held now: what weights and packs have themselves */
    uint64_t mapped_bytes;               /* pages behind them and behind drafts: what the limit bounds */
    uint64_t loads, shared;              /* entries made; requests served by an existing one */
} dj_text_counters_t;

/* `limit_bytes` bounds the pages of data and packs together. */
dj_status_t dj_text_store_create(dj_device_t *device, uint64_t limit_bytes,
                                 dj_text_store_t **store_p);
void dj_text_store_destroy(dj_text_store_t *store);

/* Step one of adding: unsealed memory for `bytes`, not yet visible; contents undefined. DJ_ERR_RESOURCE names the
 * limit. */
dj_status_t dj_text_draft(dj_text_store_t *store, uint64_t bytes, dj_text_t **text_p);
/* Step two: hashes the content, seals and publishes it; if equal content is there already the draft
 * goes and the existing entry is returned. One reference for the caller either way. */
dj_status_t dj_text_publish(dj_text_store_t *store, dj_text_t *draft, uint32_t owner,
                            dj_text_t **text_p);
void dj_text_discard(dj_text_store_t *store, dj_text_t *draft);

/* Step two for whoever hashed the bytes on their way into the draft, so that memory which the host does not
 * read need not be read back. dj_text_publish() copies it out in parts where it must. */
dj_status_t dj_text_publish_as(dj_text_store_t *store, dj_text_t *draft, dj_hash_t content, uint32_t owner,
                               dj_text_t **text_p);

/* The content's name: the hash of its bytes, or, where there are more than DJ_TEXT_PART_BYTES, of its length
 * and the hashes of its parts, so that parts can be read and hashed side by side. */
#define DJ_TEXT_PART_BYTES (4ull << 20)
static inline uint64_t dj_text_parts(uint64_t bytes)
{
    return bytes ? (bytes + DJ_TEXT_PART_BYTES - 1) / DJ_TEXT_PART_BYTES : 1;
}
dj_hash_t dj_text_name(const dj_hash_t *parts, uint64_t bytes); /* of dj_text_parts(bytes) hashes */
dj_status_t dj_text_name_of(const void *data, uint64_t bytes, dj_hash_t *content_p); /* DJ_ERR_MEMORY */

dj_text_t *dj_text_retain(dj_text_store_t *store, dj_text_t *text);
void dj_text_release(dj_text_store_t *store, dj_text_t *text);
/* Ages entries without references; drops those idle for `linger` sweeps. */
void dj_text_sweep(dj_text_store_t *store, uint32_t linger);

/* The pack with this key, or NULL. */
dj_text_pack_t *dj_text_pack_find(dj_text_store_t *store, dj_text_t *text, dj_hash_t key);
uint32_t dj_text_pack_count(dj_text_store_t *store, const dj_text_t *text);
/* Unsealed memory for a pack; fill it, then dj_text_pack_seal(), after which its data has its lasting address.
 * DJ_ERR_RESOURCE. */
dj_status_t dj_text_pack_add(dj_text_store_t *store, dj_text_t *text, dj_hash_t key, uint64_t bytes,
                             dj_text_pack_t **pack_p);
dj_status_t dj_text_pack_seal(dj_text_store_t *store, dj_text_pack_t *pack);
/* Gives up a pack that was never found by others: one that could not be filled or sealed. */
void dj_text_pack_discard(dj_text_store_t *store, dj_text_t *text, dj_text_pack_t *pack);

void dj_text_counters(dj_text_store_t *store, dj_text_counters_t *counters);

/* The store of a device, for kernels that pack at bind; set by dj_text_store_create(). */
dj_text_store_t *dj_text_store_of(const dj_device_t *device);

#endif
