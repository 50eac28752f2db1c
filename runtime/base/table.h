/* table.h - an open-addressing hash table from a 128-bit key to a pointer.
 *
 * Keys are dj_hash_t (already well mixed); integers are stored with word[1] = 0 and mixed here.
 *
 * Ownership: the table owns its slots, never the values. Threads: the caller's lock. */
#ifndef DJ_BASE_TABLE_H
#define DJ_BASE_TABLE_H

#include "runtime/base/hash.h"
#include "runtime/base/status.h"

typedef struct dj_table {
    struct dj_table_slot *slots;
    size_t capacity, count, filled;
} dj_table_t;

/* All-zero is an empty table. */
void dj_table_fini(dj_table_t *table);
void *dj_table_get(const dj_table_t *table, dj_hash_t key); /* NULL when absent */
/* Inserts or replaces; `value` must not be NULL. DJ_ERR_MEMORY. */
dj_status_t dj_table_put(dj_table_t *table, dj_hash_t key, void *value);
void *dj_table_remove(dj_table_t *table, dj_hash_t key); /* the old value or NULL */
/* Walk: start with *at_p = 0; NULL at the end. Removing the current entry is allowed. */
void *dj_table_next(const dj_table_t *table, size_t *at_p, dj_hash_t *key_p);

static inline dj_hash_t dj_key_u64(uint64_t value)
{
    return (dj_hash_t){{value, 0}};
}

#endif
