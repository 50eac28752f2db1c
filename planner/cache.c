/* cache.c - entries by exact key, structures by program key, published plans by exact key.
 *
 * Three tables, each with a list in order of use and the same limit. Entries are counted by their
 * holders; the other two are copied out under the lock, so nobody holds them. */
#include "planner/cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/table.h"

/* A structure (level one) or a published plan: bytes under a key. */
typedef struct record {
    struct record *newer, *older;
    dj_hash_t key;
    size_t structure_size, sizes_size, plan_size;
    uint8_t bytes[]; /* structure, sizes, plan */
} record_t;

/* Beyond this many bytes the oldest records go, however few there are. */
#define RECORD_BYTES_MAX (256ull << 20)

typedef struct record_list {
    dj_table_t table;
    record_t *newest, *oldest;
    uint32_t count;
    uint64_t bytes;
} record_list_t;

struct dj_cache {
    pthread_mutex_t lock;
    uint32_t limit, n_entries;
    void (*free_executable)(void *executable);
    dj_table_t entries;
    dj_cache_entry_t *newest, *oldest;
    record_list_t structures, published;
    dj_cache_counters_t counters;
};

static void unlink_record(record_list_t *list, record_t *record)
{
    *(record->newer != NULL ? &record->newer->older : &list->newest) = record->older;
    *(record->older != NULL ? &record->older->newer : &list->oldest) = record->newer;
    record->newer = record->older = NULL;
}

static void push_record(record_list_t *list, record_t *record)
{
    record->older = list->newest;
    *(list->newest != NULL ? &list->newest->newer : &list->oldest) = record;
    list->newest = record;
}

static size_t record_bytes(const record_t *record)
{
    return record->structure_size + record->sizes_size + record->plan_size;
}

static void drop_record(record_list_t *list, record_t *record)
{
    unlink_record(list, record);
    dj_table_remove(&list->table, record->key);
    list->count--;
    list->bytes -= record_bytes(record);
    free(record);
}

static record_t *use_record(record_list_t *list, dj_hash_t key)
{
    record_t *record = dj_table_get(&list->table, key);
    if (record != NULL) {
        unlink_record(list, record);
        push_record(list, record);
    }
    return record;
}

static dj_status_t keep_record(record_list_t *list, uint32_t limit, const record_t *head,
                               const void *structure, const void *sizes, const void *plan)
{
    size_t bytes = record_bytes(head);
    record_t *record = malloc(sizeof *record + bytes);
    if (record == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to keep %zu bytes of a program", bytes);
    *record = *head;
    uint8_t *at = record->bytes;
    if (head->structure_size > 0)
        memcpy(at, structure, head->structure_size);
    if (head->sizes_size > 0)
        memcpy(at + head->structure_size, sizes, head->sizes_size);
    if (head->plan_size > 0)
        memcpy(at + head->structure_size + head->sizes_size, plan, head->plan_size);
    if (dj_table_put(&list->table, record->key, record) != DJ_OK) {
        free(record);
        return DJ_ERR_MEMORY;
    }
    push_record(list, record);
    list->count++;
    list->bytes += bytes;
    while (list->count > limit || (list->bytes > RECORD_BYTES_MAX && list->count > 1))
        drop_record(list, list->oldest);
    return DJ_OK;
}

static void free_records(record_list_t *list)
{
    while (list->oldest != NULL)
        drop_record(list, list->oldest);
    dj_table_fini(&list->table);
}

dj_status_t dj_cache_create(uint32_t limit, void (*free_executable)(void *executable),
                            dj_cache_t **cache_p)
{
    dj_cache_t *cache = calloc(1, sizeof *cache);
    if (cache == NULL || pthread_mutex_init(&cache->lock, NULL) != 0) {
        free(cache);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a plan cache");
    }
    cache->limit = limit > 0 ? limit : 1;
    cache->free_executable = free_executable;
    *cache_p = cache;
    return DJ_OK;
}

static void free_parts(dj_cache_t *cache, dj_graph_t *graph, dj_plan_t *plan, void *executable)
{
    /* The executable refers to graph and plan: it goes first. */
    if (executable != NULL && cache->free_executable != NULL)
        cache->free_executable(executable);
    dj_plan_destroy(plan);
    dj_graph_destroy(graph);
}

static void free_entry(dj_cache_t *cache, dj_cache_entry_t *entry)
{
    free_parts(cache, entry->graph, entry->plan, entry->executable);
    free(entry->structure);
    free(entry->sizes);
    free(entry);
}

static void unlink_entry(dj_cache_t *cache, dj_cache_entry_t *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &cache->oldest) = entry->newer;
    entry->newer = entry->older = NULL;
}

static void push_entry(dj_cache_t *cache, dj_cache_entry_t *entry)
{
    entry->older = cache->newest;
    *(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

/* Takes entries beyond the limit that nobody holds out of the cache; returns them as a list through
 * `older`, to be freed outside the lock (executables may take their time). */
static dj_cache_entry_t *evict(dj_cache_t *cache)
{
    dj_cache_entry_t *evicted = NULL, *entry = cache->oldest;
    while (cache->n_entries > cache->limit && entry != NULL) {
        dj_cache_entry_t *newer = entry->newer;
        if (atomic_load(&entry->references) == 0) {
            unlink_entry(cache, entry);
            dj_table_remove(&cache->entries, entry->graph->exact_key);
            cache->n_entries--;
            cache->counters.evicted++;
            entry->older = evicted;
            evicted = entry;
        }
        entry = newer;
    }
    return evicted;
}

static void free_evicted(dj_cache_t *cache, dj_cache_entry_t *evicted)
{
    while (evicted != NULL) {
        dj_cache_entry_t *next = evicted->older;
        free_entry(cache, evicted);
        evicted = next;
    }
}

void dj_cache_destroy(dj_cache_t *cache)
{
    if (cache == NULL)
        return;
    while (cache->oldest != NULL) {
        dj_cache_entry_t *entry = cache->oldest;
        unlink_entry(cache, entry);
        free_entry(cache, entry);
    }
    dj_table_fini(&cache->entries);
    free_records(&cache->structures);
    free_records(&cache->published);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

static dj_cache_entry_t *find_locked(dj_cache_t *cache, dj_hash_t exact_key)
{
    dj_cache_entry_t *entry = dj_table_get(&cache->entries, exact_key);
    if (entry == NULL)
        return NULL;
    atomic_fetch_add(&entry->references, 1);
    unlink_entry(cache, entry);
    push_entry(cache, entry);
    use_record(&cache->structures, entry->graph->program_key);
    return entry;
}

dj_cache_entry_t *dj_cache_find(dj_cache_t *cache, dj_hash_t exact_key)
{
    pthread_mutex_lock(&cache->lock);
    dj_cache_entry_t *entry = find_locked(cache, exact_key);
    cache->counters.hits += entry != NULL;
    pthread_mutex_unlock(&cache->lock);
    return entry;
}

static bool same_bytes(const void *a, size_t a_size, const void *b, size_t b_size)
{
    return a_size == b_size && (a_size == 0 || memcmp(a, b, a_size) == 0);
}

dj_status_t dj_cache_compare(const dj_cache_entry_t *entry, const void *structure,
                             size_t structure_size, const void *sizes, size_t sizes_size)
{
    if (same_bytes(entry->structure, entry->structure_size, structure, structure_size) &&
        same_bytes(entry->sizes, entry->sizes_size, sizes, sizes_size))
        return DJ_OK;
    return dj_fail(DJ_ERR_CORRUPT, "another program came under the key of a known one");
}

dj_status_t dj_cache_structure(dj_cache_t *cache, dj_hash_t program_key, dj_bytes_t *bytes)
{
    dj_status_t status = DJ_OK;
    pthread_mutex_lock(&cache->lock);
    const record_t *record = use_record(&cache->structures, program_key);
    if (record != NULL)
        dj_bytes_put(bytes, record->bytes, record->structure_size);
    pthread_mutex_unlock(&cache->lock);
    if (record == NULL)
        status = dj_fail(DJ_ERR_NO_PLAN, "the program's structure is not known here");
    else if (bytes->failed)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for a program's structure");
    return status;
}

static void *copy_of(const void *data, size_t size)
{
    void *copy = malloc(size > 0 ? size : 1);
    if (copy != NULL && size > 0)
        memcpy(copy, data, size);
    return copy;
}

static dj_cache_entry_t *make_entry(dj_graph_t *graph, dj_plan_t *plan, void *executable,
                                    const void *structure, size_t structure_size,
                                    const void *sizes, size_t sizes_size)
{
    dj_cache_entry_t *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return NULL;
    entry->structure = copy_of(structure, structure_size);
    entry->sizes = copy_of(sizes, sizes_size);
    if (entry->structure == NULL || entry->sizes == NULL) {
        free(entry->structure);
        free(entry->sizes);
        free(entry);
        return NULL;
    }
    entry->structure_size = structure_size;
    entry->sizes_size = sizes_size;
    entry->graph = graph;
    entry->plan = plan;
    entry->executable = executable;
    atomic_init(&entry->references, 1);
    return entry;
}

static dj_status_t keep_structure(dj_cache_t *cache, dj_hash_t program_key,
                                  const dj_cache_entry_t *entry)
{
    record_t head = {.key = program_key, .structure_size = entry->structure_size};
    if (use_record(&cache->structures, program_key) != NULL)
        return DJ_OK;
    return keep_record(&cache->structures, cache->limit, &head, entry->structure, NULL, NULL);
}

/* Under the lock: the entry of the key, `fresh` if there was none. */
static dj_status_t insert_locked(dj_cache_t *cache, dj_cache_entry_t *fresh,
                                 dj_cache_entry_t **entry_p)
{
    dj_hash_t exact_key = fresh->graph->exact_key;
    dj_cache_entry_t *older = dj_table_get(&cache->entries, exact_key);
    dj_status_t status;
    if (older != NULL) {
        status = dj_cache_compare(older, fresh->structure, fresh->structure_size, fresh->sizes,
                                  fresh->sizes_size);
        if (status == DJ_OK)
            *entry_p = find_locked(cache, exact_key);
        return status;
    }
    status = keep_structure(cache, fresh->graph->program_key, fresh);
    if (status == DJ_OK)
        status = dj_table_put(&cache->entries, exact_key, fresh);
    if (status != DJ_OK)
        return status;
    push_entry(cache, fresh);
    cache->n_entries++;
    *entry_p = fresh;
    return DJ_OK;
}

static void count_insert(dj_cache_t *cache, bool resized, bool adopted)
{
    if (adopted)
        cache->counters.adopted++;
    else if (resized)
        cache->counters.resizes++;
    else
        cache->counters.misses++;
}

dj_status_t dj_cache_insert(dj_cache_t *cache, dj_graph_t *graph, dj_plan_t *plan, void *executable,
                            const void *structure, size_t structure_size, const void *sizes,
                            size_t sizes_size, bool resized, bool adopted,
                            dj_cache_entry_t **entry_p)
{
    dj_cache_entry_t *entry = NULL, *evicted = NULL;
    dj_cache_entry_t *fresh =
        make_entry(graph, plan, executable, structure, structure_size, sizes, sizes_size);
    if (fresh == NULL) {
        free_parts(cache, graph, plan, executable);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a cache entry");
    }
    pthread_mutex_lock(&cache->lock);
    dj_status_t status = insert_locked(cache, fresh, &entry);
    count_insert(cache, resized, adopted);
    if (entry == fresh)
        evicted = evict(cache);
    pthread_mutex_unlock(&cache->lock);
    free_evicted(cache, evicted);
    if (entry != fresh)
        free_entry(cache, fresh);
    if (status == DJ_OK)
        *entry_p = entry;
    return status;
}

void dj_cache_release(dj_cache_t *cache, dj_cache_entry_t *entry)
{
    pthread_mutex_lock(&cache->lock);
    atomic_fetch_sub(&entry->references, 1);
    dj_cache_entry_t *evicted = evict(cache);
    pthread_mutex_unlock(&cache->lock);
    free_evicted(cache, evicted);
}

dj_status_t dj_cache_publish(dj_cache_t *cache, dj_hash_t exact_key, const void *structure,
                             size_t structure_size, const void *sizes, size_t sizes_size,
                             const void *plan, size_t plan_size)
{
    record_t head = {.key = exact_key,
                     .structure_size = structure_size,
                     .sizes_size = sizes_size,
                     .plan_size = plan_size};
    if (structure_size > DJ_PROGRAM_BYTES_MAX || sizes_size > DJ_PROGRAM_BYTES_MAX ||
        plan_size > 4 * (size_t)DJ_PROGRAM_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a published plan of %zu bytes", plan_size);
    pthread_mutex_lock(&cache->lock);
    record_t *older = dj_table_get(&cache->published.table, exact_key);
    if (older != NULL)
        drop_record(&cache->published, older);
    cache->counters.received++;
    dj_status_t status =
        keep_record(&cache->published, cache->limit, &head, structure, sizes, plan);
    pthread_mutex_unlock(&cache->lock);
    return status;
}

dj_status_t dj_cache_published(dj_cache_t *cache, dj_hash_t exact_key, dj_bytes_t *structure,
                               dj_bytes_t *sizes, dj_bytes_t *plan)
{
    pthread_mutex_lock(&cache->lock);
    const record_t *record = dj_table_get(&cache->published.table, exact_key);
    if (record != NULL) {
        const uint8_t *at = record->bytes;
        dj_bytes_put(structure, at, record->structure_size);
        dj_bytes_put(sizes, at + record->structure_size, record->sizes_size);
        dj_bytes_put(plan, at + record->structure_size + record->sizes_size, record->plan_size);
    }
    pthread_mutex_unlock(&cache->lock);
    if (record == NULL)
        return dj_fail(DJ_ERR_NO_PLAN, "nobody published a plan under this key");
    if (structure->failed || sizes->failed || plan->failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a published plan");
    return DJ_OK;
}

void dj_cache_count_rejected(dj_cache_t *cache)
{
    pthread_mutex_lock(&cache->lock);
    cache->counters.rejected++;
    pthread_mutex_unlock(&cache->lock);
}

void dj_cache_counters(dj_cache_t *cache, dj_cache_counters_t *counters)
{
    pthread_mutex_lock(&cache->lock);
    *counters = cache->counters;
    pthread_mutex_unlock(&cache->lock);
}
