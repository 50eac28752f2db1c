/* cache.h - the plan cache of a rank: two levels, counted, bounded.
 *
 * Level one keeps structures by program key: a request with known structure and new sizes sends only
 * the sizes. Level two keeps entries by exact key: graph, plan, and whatever a device compiled for
 * it. Hashes are compared, then bytes: structure and sizes that arrive for a known key must equal
 * the kept ones, or the request is refused (DJ_ERR_CORRUPT), so a collision can never run foreign
 * code.
 *
 * Plans that arrive from another rank or from a file wait here as bytes until their first use.
 *
 * Eviction: least recently used entries beyond `limit` or `limit_bytes`, once nobody holds them. An
 * entry weighs what it holds in memory: graph, plan, program, and what the device says of its
 * executable. Structures and waiting plans have the same limit of their own, and a quarter of the
 * bytes each.
 *
 * Threads: every function takes the cache's lock; entries are reference-counted and immutable, except
 * `executable`, which its device guards, and `plan`, which is exchanged at most once for a better one
 * (dj_cache_replace); the old one stays as long as the entry, so whoever read the pointer may use it. */
#ifndef DJ_PLANNER_CACHE_H
#define DJ_PLANNER_CACHE_H

#include <stdatomic.h>

#include "planner/plan.h"

typedef struct dj_cache dj_cache_t;

typedef struct dj_cache_entry {
    dj_graph_t *graph;
    dj_plan_t *_Atomic plan;
    void *executable;                     /* set by dj_cache_insert, freed by free_executable */
    void *structure, *sizes;              /* owned copies */
    size_t structure_size, sizes_size;
    atomic_uint references;
    _Atomic uint64_t hits;
    uint64_t bytes;                       /* private from here on */
    dj_plan_t *replaced;
    bool tried;                           /* dj_cache_hottest() gave it */
    struct dj_cache_entry *newer, *older;
} dj_cache_entry_t;

typedef struct dj_cache_counters {
    uint64_t hits;      /* exact key known */
    uint64_t resizes;   /* structure known, sizes new: not a miss */
    uint64_t misses;    /* structure unknown, no published plan */
    uint64_t received;  /* plans that other ranks published to us */
    uint64_t loaded;    /* plans that came from a file */
    uint64_t adopted;   /* of both, put to use */
    uint64_t rejected;  /* of both, refused by class or proof */
    uint64_t improved;  /* entries whose plan was exchanged for a better one */
    uint64_t evicted;
    uint64_t entries, bytes; /* now */
} dj_cache_counters_t;

typedef struct dj_cache_options {
    uint32_t limit;       /* entries; 0 counts as 1 */
    uint64_t limit_bytes; /* 0: any */
    void (*free_executable)(void *executable);
    uint64_t (*executable_bytes)(const void *executable); /* NULL: not known */
    uint64_t hot_hits; /* hits that make an entry hot; 0: never */
} dj_cache_options_t;

dj_status_t dj_cache_create(const dj_cache_options_t *options, dj_cache_t **cache_p);
void dj_cache_destroy(dj_cache_t *cache);

/* The entry with one more reference, or NULL. Counts a hit when found. */
dj_cache_entry_t *dj_cache_find(dj_cache_t *cache, dj_hash_t exact_key);
/* The same, but neither a hit nor a use: for whoever looks after the cache. */
dj_cache_entry_t *dj_cache_peek(dj_cache_t *cache, dj_hash_t exact_key);
/* A hit on an entry that the caller holds; no lock. */
void dj_cache_count_hit(dj_cache_t *cache, dj_cache_entry_t *entry);
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

/* Whether entries weigh more than `limit_bytes`: then those who hold some had better let go. No lock. */
bool dj_cache_is_heavy(const dj_cache_t *cache);
/* Keeps program and plan of an entry as a waiting plan, so that the entry can be let go and made again
 * without the client. DJ_ERR_LIMIT (also: a fitted graph, fit.h), DJ_ERR_MEMORY. */
dj_status_t dj_cache_park(dj_cache_t *cache, const dj_cache_entry_t *entry);

/* A plan from elsewhere, with its structure and sizes. Kept as bytes under its exact key. `loaded`:
 * from a file, else from another rank. DJ_ERR_LIMIT, DJ_ERR_MEMORY. */
dj_status_t dj_cache_publish(dj_cache_t *cache, dj_hash_t exact_key, const void *structure,
                             size_t structure_size, const void *sizes, size_t sizes_size,
                             const void *plan, size_t plan_size, bool loaded);
/* The published plan's bytes appended to `plan`, its structure and sizes too; DJ_ERR_NO_PLAN. */
dj_status_t dj_cache_published(dj_cache_t *cache, dj_hash_t exact_key, dj_bytes_t *structure,
                               dj_bytes_t *sizes, dj_bytes_t *plan);
void dj_cache_count_rejected(dj_cache_t *cache);

/* Of the hot entries whose peak is above its bound, the one hit most, with one more reference; NULL.
 * Each entry is given once. Costs nothing unless an entry has become hot since the last NULL. */
dj_cache_entry_t *dj_cache_hottest(dj_cache_t *cache);
/* Exchanges the entry's plan for a better one of the same graph, which the cache then owns; the
 * executable was given it already. An entry's plan is exchanged once: DJ_ERR_STALE after that. */
dj_status_t dj_cache_replace(dj_cache_t *cache, dj_cache_entry_t *entry, dj_plan_t *better);

/* The exact keys of all entries, the most recently used first, then of the waiting plans that have no
 * entry; free() them. DJ_ERR_MEMORY. */
dj_status_t dj_cache_keys(dj_cache_t *cache, dj_hash_t **keys_p, uint32_t *n_keys_p);

void dj_cache_counters(dj_cache_t *cache, dj_cache_counters_t *counters);

#endif
