/* text.c - the store of weights (text.h).
 *
 * One store a device. An entry and a pack have pages of their own where these are used well, else a spot on a shelf;
 * either way what is mapped is counted to the page.
 *
 * Two locks. `lock` guards the table, the reference counts, the pack lists and the totals, and is held for moments.
 * `paging` is held while pages are made and returned, which a device may take long for, and guards the shelves; it is
 * taken first. What leaves the table waits in `leaving`, counted, until a thread with `paging` returns its pages.
 * Hashing, filling and sealing of whole mappings happen outside of both. */
#define DJ_LOG_MODULE "text"
#include "gpu/text.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "runtime/base/log.h"
#include "runtime/base/table.h"

struct dj_text_store {
    dj_device_t *device;
    uint64_t limit_bytes;
    pthread_mutex_t paging, lock;
    dj_shelves_t shelves;
    bool no_shelves; /* the device has refused; under `paging` */
    dj_table_t entries;
    dj_text_t *leaving;
    dj_text_counters_t counters;
    _Atomic uint64_t last_serial;
};

static dj_hash_t name_of(dj_hash_t content, uint32_t owner)
{
    struct {
        dj_hash_t content;
        uint64_t owner;
    } name = {content, owner};
    return dj_hash_of(&name, sizeof(name));
}

dj_status_t dj_text_store_create(dj_device_t *device, uint64_t limit_bytes,
                                 dj_text_store_t **store_p)
{
    dj_text_store_t *store = calloc(1, sizeof(*store));
    if (!store)
        return dj_fail(DJ_ERR_MEMORY, "text store: out of memory");
    if (pthread_mutex_init(&store->lock, NULL) != 0)
        goto err_lock;
    if (pthread_mutex_init(&store->paging, NULL) != 0)
        goto err_paging;
    store->device = device;
    store->limit_bytes = limit_bytes;
    dj_shelves_init(&store->shelves, device);
    device->text = store;
    *store_p = store;
    return DJ_OK;

err_paging:
    pthread_mutex_destroy(&store->lock);
err_lock:
    free(store);
    return dj_fail(DJ_ERR_SYSTEM, "text store: cannot make a lock");
}

dj_text_store_t *dj_text_store_of(const dj_device_t *device)
{
    return device->text;
}

/* ---- rooms: under `paging` ---- */

/* A committed mapping. */
static dj_status_t map(dj_text_store_t *store, uint64_t mapped, void **data_p)
{
    const dj_device_memory_t *memory = &store->device->ops->memory;
    dj_status_t status = memory->reserve(store->device, mapped, data_p);
    if (status != DJ_OK)
        return status;
    status = memory->commit(store->device, *data_p, mapped);
    if (status != DJ_OK)
        memory->release(store->device, *data_p, mapped);
    return status;
}

static void uncount(dj_text_store_t *store, uint64_t mapped)
{
    pthread_mutex_lock(&store->lock);
    store->counters.mapped_bytes -= mapped;
    pthread_mutex_unlock(&store->lock);
}

static void room_return(dj_text_store_t *store, dj_text_room_t *room, void *data)
{
    uint64_t mapped = room->mapped_bytes;
    if (room->is_open)
        dj_shelf_close(&room->spot);
    if (room->spot.shelf)
        mapped = dj_shelf_remove(&store->shelves, &room->spot);
    else
        store->device->ops->memory.release(store->device, data, mapped);
    uncount(store, mapped);
}

/* One that is in no table, and what hangs on it. */
static void free_entry(dj_text_store_t *store, dj_text_t *text)
{
    while (text->packs) {
        dj_text_pack_t *pack = text->packs;
        text->packs = pack->next;
        room_return(store, &pack->room, pack->data);
        free(pack);
    }
    room_return(store, &text->room, text->data);
    free(text);
}

/* ---- leaving ---- */

/* Under `lock`. */
static void leave(dj_text_store_t *store, dj_text_t *text)
{
    dj_table_remove(&store->entries, name_of(text->content, text->owner));
    store->counters.entries--;
    store->counters.bytes -= text->bytes;
    for (const dj_text_pack_t *pack = text->packs; pack; pack = pack->next)
        store->counters.pack_bytes -= pack->bytes;
    text->next = store->leaving;
    store->leaving = text;
}

/* Under `lock`: the unreferenced entry that has waited longest leaves. */
static void oldest_leaves(dj_text_store_t *store)
{
    dj_text_t *text, *oldest = NULL;
    dj_hash_t key;
    for (size_t at = 0; (text = dj_table_next(&store->entries, &at, &key));)
        if (text->references == 0 && (!oldest || text->idle_sweeps > oldest->idle_sweeps))
            oldest = text;
    if (oldest)
        leave(store, oldest);
}

/* Under `paging`: one of those that are leaving is gone. `pressed`: the oldest leaves, when none does. */
static bool see_off(dj_text_store_t *store, bool pressed)
{
    pthread_mutex_lock(&store->lock);
    if (!store->leaving && pressed)
        oldest_leaves(store);
    dj_text_t *text = store->leaving;
    if (text)
        store->leaving = text->next;
    pthread_mutex_unlock(&store->lock);
    if (text)
        free_entry(store, text);
    return text != NULL;
}

/* ---- making rooms ---- */

/* Counts what `room` will map against the limit; entries leave for it. Where it lies is found anew each time: what left
 * may have taken pages with it. Under `paging`. */
static dj_status_t count_in(dj_text_store_t *store, uint64_t bytes, bool on_shelf, dj_text_room_t *room,
                            uint64_t *mapped_p)
{
    uint64_t page = store->device->ops->info(store->device)->page_bytes, held;
    bool fits;
    do {
        *room = (dj_text_room_t){.mapped_bytes = bytes ? (bytes + page - 1) / page * page : page};
        *mapped_p = on_shelf ? dj_shelf_find(&store->shelves, bytes, &room->spot) : room->mapped_bytes;
        pthread_mutex_lock(&store->lock);
        held = store->counters.mapped_bytes;
        fits = *mapped_p <= store->limit_bytes - held;
        store->counters.mapped_bytes += fits ? *mapped_p : 0;
        pthread_mutex_unlock(&store->lock);
    } while (!fits && see_off(store, true));
    if (!fits)
        return dj_fail(DJ_ERR_RESOURCE,
                       "Text: %llu bytes wanted, pages of %llu held, limit %llu (--text_bytes)",
                       (unsigned long long)bytes, (unsigned long long)held,
                       (unsigned long long)store->limit_bytes);
    return DJ_OK;
}

/* Under `paging`. A device that shows no page twice is asked once. */
static dj_status_t room_take(dj_text_store_t *store, uint64_t bytes, dj_text_room_t *room, void **data_p)
{
    bool on_shelf = !store->no_shelves && dj_shelf_suits(store->device, bytes);
    uint64_t mapped;
    dj_status_t status = count_in(store, bytes, on_shelf, room, &mapped);
    if (status != DJ_OK)
        return status;
    status = on_shelf ? dj_shelf_put(&store->shelves, &room->spot, data_p) : map(store, mapped, data_p);
    room->is_open = on_shelf;
    if (status == DJ_OK)
        return DJ_OK;
    uncount(store, mapped);
    if (!on_shelf || status == DJ_ERR_MEMORY || status == DJ_ERR_DEVICE)
        return status;
    dj_log(WARN, "small weights have pages of their own: %s", dj_error_text());
    store->no_shelves = true;
    return room_take(store, bytes, room, data_p);
}

static dj_status_t room_make(dj_text_store_t *store, uint64_t bytes, dj_text_room_t *room, void **data_p)
{
    if (bytes > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "weight of %llu bytes: at most %llu",
                       (unsigned long long)bytes, DJ_TENSOR_BYTES_MAX);
    dj_status_t status;
    pthread_mutex_lock(&store->paging);
    do
        status = room_take(store, bytes, room, data_p);
    while (status == DJ_ERR_MEMORY && see_off(store, true)); /* the device is full before the limit is reached */
    pthread_mutex_unlock(&store->paging);
    return status;
}

/* Read-only from here on, at the address that *data_p becomes. */
static dj_status_t room_seal(dj_text_store_t *store, dj_text_room_t *room, void **data_p)
{
    if (!room->spot.shelf)
        return store->device->ops->memory.seal(store->device, *data_p, room->mapped_bytes, true);
    pthread_mutex_lock(&store->paging);
    *data_p = dj_shelf_close(&room->spot);
    room->is_open = false;
    pthread_mutex_unlock(&store->paging);
    return DJ_OK;
}

dj_status_t dj_text_draft(dj_text_store_t *store, uint64_t bytes, dj_text_t **text_p)
{
    dj_text_t *text = calloc(1, sizeof(*text));
    if (!text)
        return dj_fail(DJ_ERR_MEMORY, "weight of %llu bytes: out of memory", (unsigned long long)bytes);
    dj_status_t status = room_make(store, bytes, &text->room, &text->data);
    if (status != DJ_OK) {
        free(text);
        return status;
    }
    text->bytes = bytes;
    text->serial = atomic_fetch_add(&store->last_serial, 1) + 1;
    *text_p = text;
    return DJ_OK;
}

void dj_text_discard(dj_text_store_t *store, dj_text_t *draft)
{
    pthread_mutex_lock(&store->paging);
    free_entry(store, draft);
    pthread_mutex_unlock(&store->paging);
}

/* ---- content ---- */

dj_hash_t dj_text_name(const dj_hash_t *parts, uint64_t bytes)
{
    uint64_t n = dj_text_parts(bytes);
    return n == 1 ? parts[0] : dj_hash_pair(&bytes, sizeof(bytes), parts, n * sizeof(*parts));
}

/* `device` NULL: the host reads `data`. */
static dj_status_t name_parts(dj_device_t *device, const uint8_t *data, uint64_t bytes,
                              dj_hash_t *content_p)
{
    uint64_t n = dj_text_parts(bytes);
    dj_hash_t *parts = malloc(n * sizeof(*parts));
    uint8_t *part = device ? malloc(bytes < DJ_TEXT_PART_BYTES ? bytes + 1 : DJ_TEXT_PART_BYTES) : NULL;
    dj_status_t status = DJ_OK;
    if (!parts || (device && !part))
        status = dj_fail(DJ_ERR_MEMORY, "weight of %llu bytes: no memory for its hash",
                         (unsigned long long)bytes);
    for (uint64_t i = 0; i < n && status == DJ_OK; i++) {
        uint64_t at = i * DJ_TEXT_PART_BYTES;
        uint64_t size = bytes - at < DJ_TEXT_PART_BYTES ? bytes - at : DJ_TEXT_PART_BYTES;
        if (device)
            status = device->ops->memory.copy_out(device, part, data + at, size);
        if (status == DJ_OK)
            parts[i] = dj_hash_of(device ? part : data + at, size);
    }
    if (status == DJ_OK)
        *content_p = dj_text_name(parts, bytes);
    free(part);
    free(parts);
    return status;
}

dj_status_t dj_text_name_of(const void *data, uint64_t bytes, dj_hash_t *content_p)
{
    if (bytes > DJ_TEXT_PART_BYTES)
        return name_parts(NULL, data, bytes, content_p);
    *content_p = dj_hash_of(data, bytes);
    return DJ_OK;
}

dj_status_t dj_text_publish(dj_text_store_t *store, dj_text_t *draft, uint32_t owner,
                            dj_text_t **text_p)
{
    dj_hash_t content;
    bool reads = store->device->ops->info(store->device)->host_reads;
    dj_status_t status = reads ? dj_text_name_of(draft->data, draft->bytes, &content)
                               : name_parts(store->device, draft->data, draft->bytes, &content);
    if (status != DJ_OK) {
        dj_text_discard(store, draft);
        return status;
    }
    return dj_text_publish_as(store, draft, content, owner, text_p);
}

dj_status_t dj_text_publish_as(dj_text_store_t *store, dj_text_t *draft, dj_hash_t content, uint32_t owner,
                               dj_text_t **text_p)
{
    draft->content = content;
    draft->owner = owner;
    draft->references = 1;
    dj_status_t status = room_seal(store, &draft->room, &draft->data);
    if (status != DJ_OK) {
        dj_text_discard(store, draft);
        return status;
    }
    dj_hash_t name = name_of(draft->content, owner);
    pthread_mutex_lock(&store->lock);
    dj_text_t *text = dj_table_get(&store->entries, name);
    if (text) {
        text->references++;
        text->idle_sweeps = 0;
        store->counters.shared++;
    } else {
        text = draft;
        status = dj_table_put(&store->entries, name, draft);
        if (status == DJ_OK) {
            store->counters.entries++;
            store->counters.loads++;
            store->counters.bytes += draft->bytes;
        }
    }
    pthread_mutex_unlock(&store->lock);
    if (text != draft || status != DJ_OK)
        dj_text_discard(store, draft);
    if (status == DJ_OK)
        *text_p = text;
    return status;
}

dj_text_t *dj_text_retain(dj_text_store_t *store, dj_text_t *text)
{
    pthread_mutex_lock(&store->lock);
    text->references++;
    text->idle_sweeps = 0;
    pthread_mutex_unlock(&store->lock);
    return text;
}

void dj_text_release(dj_text_store_t *store, dj_text_t *text)
{
    pthread_mutex_lock(&store->lock);
    if (text->references > 0)
        text->references--;
    else
        dj_log(ERROR, "a weight of %llu bytes was released once too often",
               (unsigned long long)text->bytes);
    pthread_mutex_unlock(&store->lock);
}

void dj_text_sweep(dj_text_store_t *store, uint32_t linger)
{
    dj_text_t *text;
    dj_hash_t key;
    pthread_mutex_lock(&store->lock);
    for (size_t at = 0; (text = dj_table_next(&store->entries, &at, &key));) {
        if (text->references > 0)
            continue;
        if (text->idle_sweeps >= linger)
            leave(store, text);
        else
            text->idle_sweeps++;
    }
    bool leaving = store->leaving != NULL;
    pthread_mutex_unlock(&store->lock);
    if (!leaving)
        return;
    pthread_mutex_lock(&store->paging);
    while (see_off(store, false))
        ;
    pthread_mutex_unlock(&store->paging);
}

dj_text_pack_t *dj_text_pack_find(dj_text_store_t *store, dj_text_t *text, dj_hash_t key)
{
    pthread_mutex_lock(&store->lock);
    dj_text_pack_t *pack = text->packs;
    while (pack && !(pack->sealed && dj_hash_equal(pack->key, key)))
        pack = pack->next;
    pthread_mutex_unlock(&store->lock);
    return pack;
}

uint32_t dj_text_pack_count(dj_text_store_t *store, const dj_text_t *text)
{
    uint32_t count = 0;
    pthread_mutex_lock(&store->lock);
    for (const dj_text_pack_t *pack = text->packs; pack; pack = pack->next)
        count++;
    pthread_mutex_unlock(&store->lock);
    return count;
}

dj_status_t dj_text_pack_add(dj_text_store_t *store, dj_text_t *text, dj_hash_t key, uint64_t bytes,
                             dj_text_pack_t **pack_p)
{
    dj_text_pack_t *pack = calloc(1, sizeof(*pack));
    if (!pack)
        return dj_fail(DJ_ERR_MEMORY, "packed form of %llu bytes: out of memory", (unsigned long long)bytes);
    dj_status_t status = room_make(store, bytes, &pack->room, &pack->data);
    if (status != DJ_OK) {
        free(pack);
        return dj_fail_prefix(status, "packed form");
    }
    pack->key = key;
    pack->bytes = bytes;
    pthread_mutex_lock(&store->lock);
    pack->next = text->packs;
    text->packs = pack;
    store->counters.pack_bytes += bytes;
    pthread_mutex_unlock(&store->lock);
    *pack_p = pack;
    return DJ_OK;
}

dj_status_t dj_text_pack_seal(dj_text_store_t *store, dj_text_pack_t *pack)
{
    dj_status_t status = room_seal(store, &pack->room, &pack->data);
    if (status != DJ_OK)
        return status;
    pthread_mutex_lock(&store->lock);
    pack->sealed = true;
    pthread_mutex_unlock(&store->lock);
    return DJ_OK;
}

void dj_text_pack_discard(dj_text_store_t *store, dj_text_t *text, dj_text_pack_t *pack)
{
    pthread_mutex_lock(&store->lock);
    dj_text_pack_t **at = &text->packs;
    while (*at != pack)
        at = &(*at)->next;
    *at = pack->next;
    store->counters.pack_bytes -= pack->bytes;
    pthread_mutex_unlock(&store->lock);
    pthread_mutex_lock(&store->paging);
    room_return(store, &pack->room, pack->data);
    pthread_mutex_unlock(&store->paging);
    free(pack);
}

void dj_text_counters(dj_text_store_t *store, dj_text_counters_t *counters)
{
    pthread_mutex_lock(&store->lock);
    *counters = store->counters;
    pthread_mutex_unlock(&store->lock);
}

void dj_text_store_destroy(dj_text_store_t *store)
{
    dj_text_t *text;
    dj_hash_t key;
    if (!store)
        return;
    for (size_t at = 0; (text = dj_table_next(&store->entries, &at, &key));)
        leave(store, text);
    while (see_off(store, false))
        ;
    dj_shelves_fini(&store->shelves);
    dj_table_fini(&store->entries);
    if (store->device->text == store)
        store->device->text = NULL;
    pthread_mutex_destroy(&store->paging);
    pthread_mutex_destroy(&store->lock);
    free(store);
}
