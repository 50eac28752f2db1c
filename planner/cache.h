/* cache.h - the plan cache of a rank: two levels, counted, bounded.
 *
 * Level one keeps structures by program key: a request with known structure and new sizes sends only
 * the sizes. Level two keeps entries by exact key: graph, plan, and whatever a device compiled for
 * it. Hashes are compared, then bytes: structure and sizes that arrive for a known key must equal
 * the kept ones, or the request is refused (DJ_ERR_CORRUPT), so a collision can never run foreign
 * code.
 *
 * Plans that arrive from another rank wait here as bytes until their first use.
 *
 * Eviction: least recently used entries beyond `limit`, once nobody holds them.
 * Threads: every function takes the cache's lock; entries are reference-counted and immutable, except
 * `executable`, which its device guards. */
#ifndef DJ_PLANNER_CACHE_H
#define DJ_PLANNER_CACHE_H

#include <stdatomic.h>

#include "planner/plan.h"

typedef struct dj_cache dj_cache_t;

typedef struct dj_cache_entry {
    dj_graph_t *graph;
    dj_plan_t *plan;
    void *executable;                     /* set by dj_cache_insert, freed by free_executable */
    void *structure, *sizes;              /* owned copies */
    size_t structure_size, sizes_size;
    atomic_uint references;
    struct dj_cache_entry *newer, *older; /* LRU, private */
} dj_cache_entry_t;

typedef struct dj_cache_counters {
    uint64_t hits;      /* exact key known */
    uint64_t resizes;   /* structure known, sizes new: not a miss */
    uint64_t misses;    /* structure unknown, no published plan */
    uint64_t received;  /* plans that other ranks published to us */
    uint64_t adopted;   /* of those, put to use */
    uint64_t rejected;  /* of those, refused by class or proof */
    uint64_t evicted;
} dj_cache_counters_t;

dj_status_t dj_cache_create(uint32_t limit, void (*free_executable)(void *executable),
                            dj_cache_t **cache_p);
void dj_cache_destroy(dj_cache_t *cache);

/* The entry with one more reference, or NULL. Counts a hit when found. */
dj_cache_entry_t *dj_cache_find(dj_cache_t *cache, dj_hash_t exact_key);
/* Compares what a client sent with the entry: DJ_OK or DJ_ERR_CORRUPT. */
dj_status_t dj_cache_compare(const dj_cache_entry_t *entry, const void *structure,
                             size_t structure_size, const void *sizes, size_t sizes_size);
/* A copy of the kept structure appended to `bytes`: DJ_OK, or DJ_ERR_NO_PLAN when unknown. */
dj_status_t dj_cache_structure(dj_cache_t *cache, dj_hash_t program_key, dj_bytes_t *bytes);

/* Puts a new entry (the cache owns graph, plan and executable from here on, also on failure) and
 * returns it with a reference for the caller. If the key came in meanwhile, the older entry is
 * returned and the new parts are freed. `resized`, `adopted` say what to count. */
dj_status_t dj_cache_insert(dj_cache_t *cache, dj_graph_t *graph, dj_plan_t *plan, void *executable,
                            const void *structure, size_t structure_size, const void *sizes,
                            size_t sizes_size, bool resized, bool adopted,
                            dj_cache_entry_t **entry_p);
void dj_cache_release(dj_cache_t *cache, dj_cache_entry_t *entry);

/* A plan published by another rank, with its structure and sizes. Kept as bytes under its exact key
 * (at most `limit` such; the oldest goes). */
dj_status_t dj_cache_publish(dj_cache_t *cache, dj_hash_t exact_key, const void *structure,
                             size_t structure_size, const void *sizes, size_t sizes_size,
                             const void *plan, size_t plan_size);
/* The published plan's bytes appended to `plan`, its structure and sizes too; DJ_ERR_NO_PLAN. */
dj_status_t dj_cache_published(dj_cache_t *cache, dj_hash_t exact_key, dj_bytes_t *structure,
                               dj_bytes_t *sizes, dj_bytes_t *plan);
void dj_cache_count_rejected(dj_cache_t *cache);

void dj_cache_counters(dj_cache_t *cache, dj_cache_counters_t *counters);

#endif
