/* table.c - linear probing with tombstones.
 *
 * At most three quarters of the slots are filled (live or tombstone), so a probe is short and
 * always meets an empty slot. Removal leaves a tombstone and never moves an entry, which is why a
 * walk may remove what it stands on; a put rebuilds and must not run inside a walk. */
#include "runtime/base/table.h"

#include <stdlib.h>

#define SMALLEST_CAPACITY 16

typedef struct dj_table_slot {
    dj_hash_t key;
    void *value; /* NULL: empty; &tombstone: removed */
} slot_t;

static char tombstone;

static size_t slot_of(dj_hash_t key, size_t capacity)
{
    uint64_t mixed = key.word[0] ^ (key.word[1] * 0x9e3779b97f4a7c15ull);
    mixed = (mixed ^ (mixed >> 32)) * 0xd6e8feb86659fd93ull;
    return (size_t)(mixed ^ (mixed >> 32)) & (capacity - 1);
}

static bool is_live(const slot_t *slot)
{
    return slot->value && slot->value != &tombstone;
}

static slot_t *find(const dj_table_t *table, dj_hash_t key)
{
    if (table->capacity == 0)
        return NULL;
    for (size_t at = slot_of(key, table->capacity);; at = (at + 1) & (table->capacity - 1)) {
        slot_t *slot = &table->slots[at];
        if (!slot->value)
            return NULL;
        if (slot->value != &tombstone && dj_hash_equal(slot->key, key))
            return slot;
    }
}

void dj_table_fini(dj_table_t *table)
{
    free(table->slots);
    *table = (dj_table_t){0};
}

void *dj_table_get(const dj_table_t *table, dj_hash_t key)
{
    slot_t *slot = find(table, key);
    return slot ? slot->value : NULL;
}

/* Puts into the first slot without a live entry; the key must be absent. */
static void insert(dj_table_t *table, dj_hash_t key, void *value)
{
    size_t at = slot_of(key, table->capacity);
    while (is_live(&table->slots[at]))
        at = (at + 1) & (table->capacity - 1);
    if (!table->slots[at].value)
        table->filled++;
    table->slots[at] = (slot_t){key, value};
    table->count++;
}

static dj_status_t rebuild(dj_table_t *table)
{
    /* Many tombstones: the same size again; many entries: twice the size. */
    size_t capacity = table->capacity ? table->capacity : SMALLEST_CAPACITY;
    if (table->count >= capacity / 2)
        capacity *= 2;
    dj_table_t fresh = {.slots = calloc(capacity, sizeof(slot_t)), .capacity = capacity};
    if (!fresh.slots)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a table of %zu slots", capacity);
    for (size_t i = 0; i < table->capacity; i++) {
        if (is_live(&table->slots[i]))
            insert(&fresh, table->slots[i].key, table->slots[i].value);
    }
    free(table->slots);
    *table = fresh;
    return DJ_OK;
}

dj_status_t dj_table_put(dj_table_t *table, dj_hash_t key, void *value)
{
    slot_t *slot = find(table, key);
    if (slot) {
        slot->value = value;
        return DJ_OK;
    }
    if ((table->filled + 1) * 4 > table->capacity * 3) {
        dj_status_t status = rebuild(table);
        if (status != DJ_OK)
            return status;
    }
    insert(table, key, value);
    return DJ_OK;
}

void *dj_table_remove(dj_table_t *table, dj_hash_t key)
{
    slot_t *slot = find(table, key);
    if (!slot)
        return NULL;
    void *value = slot->value;
    slot->value = &tombstone;
    table->count--;
    return value;
}

void *dj_table_next(const dj_table_t *table, size_t *at_p, dj_hash_t *key_p)
{
    while (*at_p < table->capacity) {
        const slot_t *slot = &table->slots[(*at_p)++];
        if (!is_live(slot))
            continue;
        if (key_p)
            *key_p = slot->key;
        return slot->value;
    }
    return NULL;
}
