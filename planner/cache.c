/* cache.c - entries by exact key, structures by program key, published plans by exact key.
 *
 * Three tables, each with a list in order of use and limits. Entries are counted by their holders;
 * the other two are records (cache_record.h), which nobody holds.
 *
 * A hit on an entry that a session holds takes no lock, so hits are atomics beside the other counters. */
#include "planner/cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "planner/arena.h"
#include "planner/cache_record.h"

struct dj_cache {
    pthread_mutex_t lock;
    dj_cache_options_t options;
    uint32_t n_entries;
    _Atomic uint64_t bytes; /* written under the lock */
    dj_table_t entries;
    dj_cache_entry_t *newest, *oldest;
    dj_records_t structures, published;
    _Atomic uint64_t hits, n_hot;
    uint64_t n_hot_seen; /* when no hot entry was left to give */
    dj_cache_counters_t counters;
};

dj_status_t dj_cache_create(const dj_cache_options_t *options, dj_cache_t **cache_p)
{
    dj_cache_t *cache = calloc(1, sizeof *cache);
    if (cache == NULL || pthread_mutex_init(&cache->lock, NULL) != 0) {
        free(cache);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a plan cache");
    }
    cache->options = *options;
    cache->options.limit += options->limit == 0;
    if (options->limit_bytes == 0)
        cache->options.limit_bytes = UINT64_MAX;
    cache->structures.limit = cache->published.limit = cache->options.limit;
    cache->structures.limit_bytes = cache->published.limit_bytes = cache->options.limit_bytes / 4;
    *cache_p = cache;
    return DJ_OK;
}

static void free_parts(dj_cache_t *cache, dj_graph_t *graph, dj_plan_t *plan, void *executable)
{
    /* The executable refers to graph and plan: it goes first. */
    if (executable != NULL && cache->options.free_executable != NULL)
        cache->options.free_executable(executable);
    dj_plan_destroy(plan);
    dj_graph_destroy(graph);
}

static void free_entry(dj_cache_t *cache, dj_cache_entry_t *entry)
{
    free_parts(cache, entry->graph, entry->plan, entry->executable);
    dj_plan_destroy(entry->replaced);
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

static bool is_full(const dj_cache_t *cache)
{
    return cache->n_entries > cache->options.limit || cache->bytes > cache->options.limit_bytes;
}

/* Takes entries beyond the limits that nobody holds out of the cache; returns them as a list through
 * `older`, to be freed outside the lock (executables may take their time). */
static dj_cache_entry_t *evict(dj_cache_t *cache)
{
    dj_cache_entry_t *evicted = NULL, *entry = cache->oldest;
    while (is_full(cache) && entry != NULL) {
        dj_cache_entry_t *newer = entry->newer;
        if (atomic_load(&entry->references) == 0) {
            unlink_entry(cache, entry);
            dj_table_remove(&cache->entries, entry->graph->exact_key);
            cache->n_entries--;
            cache->bytes -= entry->bytes;
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
    dj_records_fini(&cache->structures);
    dj_records_fini(&cache->published);
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
    dj_records_use(&cache->structures, entry->graph->program_key);
    return entry;
}

void dj_cache_count_hit(dj_cache_t *cache, dj_cache_entry_t *entry)
{
    uint64_t before = atomic_fetch_add_explicit(&entry->hits, 1, memory_order_relaxed);
    if (before + 1 == cache->options.hot_hits)
        atomic_fetch_add_explicit(&cache->n_hot, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cache->hits, 1, memory_order_relaxed);
}

dj_cache_entry_t *dj_cache_find(dj_cache_t *cache, dj_hash_t exact_key)
{
    pthread_mutex_lock(&cache->lock);
    dj_cache_entry_t *entry = find_locked(cache, exact_key);
    pthread_mutex_unlock(&cache->lock);
    if (entry != NULL)
        dj_cache_count_hit(cache, entry);
    return entry;
}

dj_cache_entry_t *dj_cache_peek(dj_cache_t *cache, dj_hash_t exact_key)
{
    pthread_mutex_lock(&cache->lock);
    dj_cache_entry_t *entry = dj_table_get(&cache->entries, exact_key);
    if (entry != NULL)
        atomic_fetch_add(&entry->references, 1);
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
    const dj_record_t *record = dj_records_use(&cache->structures, program_key);
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

static uint64_t plan_bytes(const dj_plan_t *plan)
{
    return sizeof *plan + plan->n_steps * sizeof plan->steps[0] +
           plan->n_storages * sizeof plan->offsets[0];
}

static uint64_t weigh(const dj_cache_t *cache, const dj_cache_entry_t *entry)
{
    uint64_t bytes = sizeof *entry + entry->structure_size + entry->sizes_size +
                     plan_bytes(entry->plan) + dj_arena_bytes(entry->graph->arena);
    if (entry->executable != NULL && cache->options.executable_bytes != NULL)
        bytes += cache->options.executable_bytes(entry->executable);
    return bytes;
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
    atomic_init(&entry->plan, plan);
    entry->executable = executable;
    atomic_init(&entry->references, 1);
    return entry;
}

static dj_status_t keep_structure(dj_cache_t *cache, dj_hash_t program_key,
                                  const dj_cache_entry_t *entry)
{
    dj_record_t head = {.key = program_key, .structure_size = entry->structure_size};
    if (dj_records_use(&cache->structures, program_key) != NULL)
        return DJ_OK;
    return dj_records_keep(&cache->structures, &head, entry->structure, NULL, NULL);
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
    cache->bytes += fresh->bytes;
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
    fresh->bytes = weigh(cache, fresh);
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

bool dj_cache_is_heavy(const dj_cache_t *cache)
{
    return atomic_load_explicit(&cache->bytes, memory_order_relaxed) > cache->options.limit_bytes;
}

dj_status_t dj_cache_park(dj_cache_t *cache, const dj_cache_entry_t *entry)
{
    dj_bytes_t plan = {0};
    if (entry->graph->fitted)
        return dj_fail(DJ_ERR_LIMIT, "the plan of a fitted graph cannot be proven later");
    dj_status_t status = dj_plan_encode(entry->plan, &plan);
    dj_record_t head = {.key = entry->graph->exact_key,
                        .structure_size = entry->structure_size,
                        .sizes_size = entry->sizes_size,
                        .plan_size = plan.size};
    pthread_mutex_lock(&cache->lock);
    if (status == DJ_OK)
        status = dj_records_keep(&cache->published, &head, entry->structure, entry->sizes,
                                 plan.data);
    pthread_mutex_unlock(&cache->lock);
    dj_bytes_fini(&plan);
    return status;
}

dj_status_t dj_cache_publish(dj_cache_t *cache, dj_hash_t exact_key, const void *structure,
                             size_t structure_size, const void *sizes, size_t sizes_size,
                             const void *plan, size_t plan_size, bool loaded)
{
    dj_record_t head = {.key = exact_key,
                        .structure_size = structure_size,
                        .sizes_size = sizes_size,
                        .plan_size = plan_size};
    if (structure_size > DJ_PROGRAM_BYTES_MAX || sizes_size > DJ_PROGRAM_BYTES_MAX ||
        plan_size > 4 * (size_t)DJ_PROGRAM_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a published plan of %zu bytes", plan_size);
    pthread_mutex_lock(&cache->lock);
    (*(loaded ? &cache->counters.loaded : &cache->counters.received))++;
    dj_status_t status = dj_records_keep(&cache->published, &head, structure, sizes, plan);
    pthread_mutex_unlock(&cache->lock);
    return status;
}

dj_status_t dj_cache_published(dj_cache_t *cache, dj_hash_t exact_key, dj_bytes_t *structure,
                               dj_bytes_t *sizes, dj_bytes_t *plan)
{
    pthread_mutex_lock(&cache->lock);
    const dj_record_t *record = dj_table_get(&cache->published.table, exact_key);
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

/* Under the lock. */
static dj_cache_entry_t *find_hottest(dj_cache_t *cache)
{
    dj_cache_entry_t *hottest = NULL;
    uint64_t least = cache->options.hot_hits;
    for (dj_cache_entry_t *entry = cache->newest; entry != NULL; entry = entry->older) {
        uint64_t hits = atomic_load_explicit(&entry->hits, memory_order_relaxed);
        const dj_plan_t *plan = entry->plan;
        if (!entry->tried && hits >= least && plan->peak_bytes > plan->bound_bytes) {
            least = hits + 1;
            hottest = entry;
        }
    }
    return hottest;
}

dj_cache_entry_t *dj_cache_hottest(dj_cache_t *cache)
{
    dj_cache_entry_t *hottest = NULL;
    pthread_mutex_lock(&cache->lock);
    uint64_t n_hot = atomic_load_explicit(&cache->n_hot, memory_order_relaxed);
    if (n_hot != cache->n_hot_seen)
        hottest = find_hottest(cache);
    if (hottest != NULL) {
        hottest->tried = true;
        atomic_fetch_add(&hottest->references, 1);
    } else {
        cache->n_hot_seen = n_hot;
    }
    pthread_mutex_unlock(&cache->lock);
    return hottest;
}

dj_status_t dj_cache_replace(dj_cache_t *cache, dj_cache_entry_t *entry, dj_plan_t *better)
{
    pthread_mutex_lock(&cache->lock);
    bool first = entry->replaced == NULL;
    if (first) {
        entry->replaced = entry->plan;
        entry->plan = better;
        entry->bytes += plan_bytes(better); /* the caller holds it, so it is in the cache */
        cache->bytes += plan_bytes(better);
        cache->counters.improved++;
    }
    pthread_mutex_unlock(&cache->lock);
    return first ? DJ_OK : dj_fail(DJ_ERR_STALE, "the plan was exchanged before");
}

dj_status_t dj_cache_keys(dj_cache_t *cache, dj_hash_t **keys_p, uint32_t *n_keys_p)
{
    uint32_t n = 0;
    pthread_mutex_lock(&cache->lock);
    dj_hash_t *keys = calloc((size_t)cache->n_entries + cache->published.count + 1, sizeof *keys);
    for (dj_cache_entry_t *entry = cache->newest; keys != NULL && entry != NULL;
         entry = entry->older)
        keys[n++] = entry->graph->exact_key;
    for (dj_record_t *record = cache->published.newest; keys != NULL && record != NULL;
         record = record->older)
        if (dj_table_get(&cache->entries, record->key) == NULL)
            keys[n++] = record->key;
    pthread_mutex_unlock(&cache->lock);
    if (keys == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the keys of a plan cache");
    *keys_p = keys;
    *n_keys_p = n;
    return DJ_OK;
}

void dj_cache_counters(dj_cache_t *cache, dj_cache_counters_t *counters)
{
    pthread_mutex_lock(&cache->lock);
    *counters = cache->counters;
    counters->hits = atomic_load_explicit(&cache->hits, memory_order_relaxed);
    counters->entries = cache->n_entries;
    counters->bytes = cache->bytes;
    pthread_mutex_unlock(&cache->lock);
}
