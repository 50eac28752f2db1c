/* cache_record.c - one allocation a record, a table to find it, a list to know the oldest. */
#include "planner/cache_record.h"

#include <stdlib.h>
#include <string.h>

static void unlink_record(dj_records_t *records, dj_record_t *record)
{
    *(record->newer != NULL ? &record->newer->older : &records->newest) = record->older;
    *(record->older != NULL ? &record->older->newer : &records->oldest) = record->newer;
    record->newer = record->older = NULL;
}

static void push_record(dj_records_t *records, dj_record_t *record)
{
    record->older = records->newest;
    *(records->newest != NULL ? &records->newest->newer : &records->oldest) = record;
    records->newest = record;
}

static size_t bytes_of(const dj_record_t *record)
{
    return record->structure_size + record->sizes_size + record->plan_size;
}

void dj_records_drop(dj_records_t *records, dj_record_t *record)
{
    unlink_record(records, record);
    dj_table_remove(&records->table, record->key);
    records->count--;
    records->bytes -= bytes_of(record);
    free(record);
}

dj_record_t *dj_records_use(dj_records_t *records, dj_hash_t key)
{
    dj_record_t *record = dj_table_get(&records->table, key);
    if (record != NULL) {
        unlink_record(records, record);
        push_record(records, record);
    }
    return record;
}

static void copy_part(uint8_t **at_p, const void *part, size_t size)
{
    if (size > 0)
        memcpy(*at_p, part, size);
    *at_p += size;
}

dj_status_t dj_records_keep(dj_records_t *records, const dj_record_t *head, const void *structure,
                            const void *sizes, const void *plan)
{
    size_t bytes = bytes_of(head);
    dj_record_t *record = malloc(sizeof *record + bytes);
    dj_record_t *older = dj_table_get(&records->table, head->key);
    if (record == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to keep %zu bytes of a program", bytes);
    *record = *head;
    uint8_t *at = record->bytes;
    copy_part(&at, structure, head->structure_size);
    copy_part(&at, sizes, head->sizes_size);
    copy_part(&at, plan, head->plan_size);
    if (older != NULL)
        dj_records_drop(records, older);
    if (dj_table_put(&records->table, record->key, record) != DJ_OK) {
        free(record);
        return DJ_ERR_MEMORY;
    }
    push_record(records, record);
    records->count++;
    records->bytes += bytes;
    while (records->count > 1 &&
           (records->count > records->limit || records->bytes > records->limit_bytes))
        dj_records_drop(records, records->oldest);
    return DJ_OK;
}

void dj_records_fini(dj_records_t *records)
{
    while (records->oldest != NULL)
        dj_records_drop(records, records->oldest);
    dj_table_fini(&records->table);
}
