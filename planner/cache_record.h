/* cache_record.h - inside the planner: programs that the cache keeps as bytes, in order of use.
 *
 * A record is a structure alone (level one of the cache), or structure, sizes and plan as they came
 * from elsewhere. Nobody holds a record: bytes are copied out under the cache's lock.
 *
 * Ownership: dj_records_fini() frees all. Threads: the cache's lock. */
#ifndef DJ_PLANNER_CACHE_RECORD_H
#define DJ_PLANNER_CACHE_RECORD_H

#include "runtime/base/table.h"

typedef struct dj_record {
    struct dj_record *newer, *older;
    dj_hash_t key;
    size_t structure_size, sizes_size, plan_size;
    uint8_t bytes[]; /* structure, sizes, plan */
} dj_record_t;

/* All-zero but for the limits is an empty list. The last record stays, whatever its size. */
typedef struct dj_records {
    uint32_t limit;
    uint64_t limit_bytes;
    dj_table_t table;
    dj_record_t *newest, *oldest;
    uint32_t count;
    uint64_t bytes;
} dj_records_t;

/* The record of a key, which is now the newest; NULL. */
dj_record_t *dj_records_use(dj_records_t *records, dj_hash_t key);
/* A copy of what `head` describes, in place of an older one; the oldest go as the limits want.
 * DJ_ERR_MEMORY. */
dj_status_t dj_records_keep(dj_records_t *records, const dj_record_t *head, const void *structure,
                            const void *sizes, const void *plan);
void dj_records_drop(dj_records_t *records, dj_record_t *record);
void dj_records_fini(dj_records_t *records);

#endif
