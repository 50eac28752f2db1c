/* text.c - the store of weights (text.h).
 *
 * One store a device. Every entry and every pack is a mapping of its own, so sealing, dropping and
 * counting are exact to the page and nothing fragments. Hashing and filling happen outside the
 * lock; the lock guards the table, the reference counts, the pack lists and the totals. */
#define DJ_LOG_MODULE "text"
#include "gpu/text.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "runtime/base/log.h"
#include "runtime/base/table.h"

struct dj_text_store {
    dj_device_t *device;
    uint64_t limit_bytes, mapped_bytes; /* all mappings, drafts included */
    pthread_mutex_t lock;
    dj_table_t entries;
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
    if (pthread_mutex_init(&store->lock, NULL) != 0) {
        free(store);
        return dj_fail(DJ_ERR_SYSTEM, "text store: cannot make a lock");
    }
    store->device = device;
    store->limit_bytes = limit_bytes;
    device->text = store;
    *store_p = store;
    return DJ_OK;
}

dj_text_store_t *dj_text_store_of(const dj_device_t *device)
{
    return device->text;
}

/* A committed mapping; its bytes are in store->mapped_bytes already. */
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

static void unmap(dj_text_store_t *store, void *data, uint64_t mapped)
{
    store->device->ops->memory.release(store->device, data, mapped);
    store->mapped_bytes -= mapped;
}

/* Under the lock: frees an entry that is in no table. */
static void free_entry(dj_text_store_t *store, dj_text_t *text)
{
    while (text->packs) {
        dj_text_pack_t *next = text->packs->next;
        store->counters.pack_bytes -= text->packs->bytes;
        unmap(store, text->packs->data, text->packs->mapped_bytes);
        free(text->packs);
        text->packs = next;
    }
    unmap(store, text->data, text->mapped_bytes);
    free(text);
}

/* Under the lock. */
static void drop_entry(dj_text_store_t *store, dj_text_t *text)
{
    dj_table_remove(&store->entries, name_of(text->content, text->owner));
    store->counters.entries--;
    store->counters.bytes -= text->bytes;
    free_entry(store, text);
}

/* Under the lock: the unreferenced entry that has waited longest, or NULL. */
static dj_text_t *find_idle(dj_text_store_t *store)
{
    dj_text_t *text, *oldest = NULL;
    dj_hash_t key;
    for (size_t at = 0; (text = dj_table_next(&store->entries, &at, &key));)
        if (text->references == 0 && (!oldest || text->idle_sweeps > oldest->idle_sweeps))
            oldest = text;
    return oldest;
}

/* Counts `bytes` more against the limit, dropping idle entries for it. */
static dj_status_t charge(dj_text_store_t *store, uint64_t bytes, uint64_t *mapped_p)
{
    uint64_t page = store->device->ops->info(store->device)->page_bytes;
    if (bytes > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "weight of %llu bytes: at most %llu",
                       (unsigned long long)bytes, DJ_TENSOR_BYTES_MAX);
    uint64_t mapped = (bytes + page - 1) / page * page;
    mapped = mapped ? mapped : page;
    pthread_mutex_lock(&store->lock);
    dj_text_t *idle;
    while (mapped > store->limit_bytes - store->mapped_bytes && (idle = find_idle(store)))
        drop_entry(store, idle);
    uint64_t held = store->mapped_bytes;
    bool fits = mapped <= store->limit_bytes - held;
    if (fits)
        store->mapped_bytes += mapped;
    pthread_mutex_unlock(&store->lock);
    if (!fits)
        return dj_fail(DJ_ERR_RESOURCE,
                       "Text: %llu bytes wanted, %llu held, limit %llu (--text_bytes)",
                       (unsigned long long)bytes, (unsigned long long)held,
                       (unsigned long long)store->limit_bytes);
    *mapped_p = mapped;
    return DJ_OK;
}

static void uncharge(dj_text_store_t *store, uint64_t mapped)
{
    pthread_mutex_lock(&store->lock);
    store->mapped_bytes -= mapped;
    pthread_mutex_unlock(&store->lock);
}

dj_status_t dj_text_draft(dj_text_store_t *store, uint64_t bytes, dj_text_t **text_p)
{
    uint64_t mapped;
    dj_status_t status = charge(store, bytes, &mapped);
    if (status != DJ_OK)
        return status;
    dj_text_t *text = calloc(1, sizeof(*text));
    status = text ? map(store, mapped, &text->data)
                  : dj_fail(DJ_ERR_MEMORY, "weight of %llu bytes: out of memory",
                            (unsigned long long)bytes);
    if (status != DJ_OK) {
        free(text);
        uncharge(store, mapped);
        return status;
    }
    text->bytes = bytes;
    text->mapped_bytes = mapped;
    text->serial = atomic_fetch_add(&store->last_serial, 1) + 1;
    *text_p = text;
    return DJ_OK;
}

void dj_text_discard(dj_text_store_t *store, dj_text_t *draft)
{
    pthread_mutex_lock(&store->lock);
    free_entry(store, draft);
    pthread_mutex_unlock(&store->lock);
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
    dj_status_t status =
        store->device->ops->memory.seal(store->device, draft->data, draft->mapped_bytes, true);
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
        free_entry(store, draft);
    } else {
        text = draft;
        status = dj_table_put(&store->entries, name, draft);
        if (status == DJ_OK) {
            store->counters.entries++;
            store->counters.loads++;
            store->counters.bytes += draft->bytes;
        } else {
            free_entry(store, draft);
        }
    }
    pthread_mutex_unlock(&store->lock);
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
            drop_entry(store, text);
        else
            text->idle_sweeps++;
    }
    pthread_mutex_unlock(&store->lock);
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
    uint64_t mapped;
    dj_status_t status = charge(store, bytes, &mapped);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "packed form");
    dj_text_pack_t *pack = calloc(1, sizeof(*pack));
    status = pack ? map(store, mapped, &pack->data)
                  : dj_fail(DJ_ERR_MEMORY, "packed form of %llu bytes: out of memory",
                            (unsigned long long)bytes);
    if (status != DJ_OK) {
        free(pack);
        uncharge(store, mapped);
        return status;
    }
    pack->key = key;
    pack->bytes = bytes;
    pack->mapped_bytes = mapped;
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
    dj_status_t status =
        store->device->ops->memory.seal(store->device, pack->data, pack->mapped_bytes, true);
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
    unmap(store, pack->data, pack->mapped_bytes);
    pthread_mutex_unlock(&store->lock);
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
        drop_entry(store, text);
    dj_table_fini(&store->entries);
    if (store->device->text == store)
        store->device->text = NULL;
    pthread_mutex_destroy(&store->lock);
    free(store);
}
