/* storage.c - counted handles of bytes on the rank, and the refs that name them there.
 *
 * The client numbers refs itself (low half, an index reused after release) and tags them at random
 * (high half), so that a name is known before the request that makes it is sent. A release waits for the
 * next request; the rank drops refs after that request's answer. */
#include <stdlib.h>

#include "client/client.h"

dj_status_t dj_storage_create(djinn_t *djinn, uint64_t bytes, djinn_storage_t **storage_p)
{
    djinn_storage_t *storage = calloc(1, sizeof(*storage));
    if (!storage)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a storage handle");
    storage->djinn = djinn;
    storage->bytes = bytes;
    atomic_init(&storage->references, 1);
    atomic_fetch_add(&djinn->references, 1);
    djinn->stats.storages++;
    *storage_p = storage;
    return DJ_OK;
}

/* Tags need only be unknown to other clients, and the system's generator costs a quarter of a
 * microsecond: splitmix64 from a random seed. */
static uint32_t next_tag(djinn_t *djinn)
{
    uint64_t z = djinn->tag_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)(z >> 32);
}

dj_status_t dj_storage_assign_ref(djinn_storage_t *storage)
{
    djinn_t *djinn = storage->djinn;
    uint32_t index, tag;
    if (storage->ref)
        return DJ_OK;
    if (djinn->n_free_refs)
        index = djinn->free_refs[--djinn->n_free_refs];
    else if (djinn->n_refs < DJ_REFS_MAX)
        index = djinn->n_refs++;
    else
        return dj_fail(DJ_ERR_LIMIT, "the session holds %u refs, the most it may: release some",
                       (unsigned)DJ_REFS_MAX);
    do
        tag = next_tag(djinn);
    while (tag == 0);
    storage->ref = (uint64_t)tag << 32 | index;
    return DJ_OK;
}

void dj_refs_recycle(djinn_t *djinn)
{
    uint32_t n = (uint32_t)(djinn->releases.size / 8);
    const uint64_t *refs = (const uint64_t *)djinn->releases.data;
    if (djinn->n_free_refs + n > djinn->free_refs_room) {
        uint32_t room = (djinn->n_free_refs + n) * 2 + 256;
        uint32_t *grown = realloc(djinn->free_refs, room * sizeof(*grown));
        if (!grown)
            return; /* these indices are not reused; nothing else is lost */
        djinn->free_refs = grown;
        djinn->free_refs_room = room;
    }
    for (uint32_t i = 0; i < n; i++)
        djinn->free_refs[djinn->n_free_refs++] = (uint32_t)refs[i];
}

void dj_storage_put(djinn_storage_t *storage)
{
    djinn_t *djinn = storage->djinn;
    if (atomic_fetch_sub(&storage->references, 1) != 1)
        return;
    if (storage->ref && !djinn->closed)
        dj_bytes_put_u64(&djinn->releases, storage->ref);
    djinn->stats.storages--;
    free(storage->immediate);
    free(storage->name);
    free(storage);
    atomic_fetch_sub(&djinn->references, 1); /* the caller holds another */
}

djinn_storage_t *djinn_retain(djinn_storage_t *storage)
{
    if (storage)
        atomic_fetch_add(&storage->references, 1);
    return storage;
}

void djinn_release(djinn_storage_t *storage)
{
    if (!storage)
        return;
    unsigned held = atomic_load(&storage->references);
    while (held > 1) /* not the last: nothing to lock for */
        if (atomic_compare_exchange_weak(&storage->references, &held, held - 1))
            return;
    djinn_t *djinn = storage->djinn;
    atomic_fetch_add(&djinn->references, 1);
    dj_djinn_lock(djinn);
    dj_storage_put(storage);
    dj_djinn_unlock(djinn);
    dj_djinn_put_unlocked(djinn);
}

uint64_t djinn_storage_bytes(const djinn_storage_t *storage)
{
    return storage->bytes;
}

djinn_t *djinn_storage_owner(const djinn_storage_t *storage)
{
    return storage->djinn;
}

void dj_view_of_tensor(const djinn_tensor_t *tensor, dj_view_t *view)
{
    view->dtype = (uint8_t)tensor->dtype;
    view->rank = (uint8_t)tensor->rank;
    view->offset = tensor->offset;
    for (int d = 0; d < tensor->rank && d < DJ_RANK_MAX; d++) {
        view->sizes[d] = tensor->sizes[d];
        view->strides[d] = tensor->strides[d];
    }
}

void dj_tensor_of_view(const dj_view_t *view, djinn_storage_t *storage, djinn_tensor_t *tensor)
{
    *tensor = (djinn_tensor_t){.storage = storage, .dtype = view->dtype, .rank = view->rank,
                               .offset = view->offset};
    for (int d = 0; d < view->rank; d++) {
        tensor->sizes[d] = view->sizes[d];
        tensor->strides[d] = view->strides[d];
    }
}
