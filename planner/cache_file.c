/* cache_file.c - the bytes of the file: cache_folder.c brings them to disk and back.
 *
 * A file is walked twice: the first time everything is checked, the second time it is used. */
#include "planner/cache_file.h"

#include <stdlib.h>

#include "runtime/base/table.h"

#define MAGIC "DJPC"

/* One plan of a file; points into it. */
typedef struct plan_record {
    dj_hash_t key;
    const uint8_t *structure, *sizes, *plan;
    size_t structure_size, sizes_size, plan_size;
} plan_record_t;

typedef dj_status_t (*visit_fn_t)(void *context, const plan_record_t *record);

static dj_hash_t read_hash(dj_reader_t *reader)
{
    dj_hash_t hash;
    hash.word[0] = dj_reader_u64(reader);
    hash.word[1] = dj_reader_u64(reader);
    return hash;
}

static void put_hash(dj_bytes_t *bytes, dj_hash_t hash)
{
    dj_bytes_put_u64(bytes, hash.word[0]);
    dj_bytes_put_u64(bytes, hash.word[1]);
}

static void put_part(dj_bytes_t *bytes, const void *part, size_t size)
{
    dj_bytes_put_varint(bytes, size);
    dj_bytes_put(bytes, part, size);
}

/* ---- reading ---- */

static const uint8_t *read_part(dj_reader_t *reader, size_t *size_p)
{
    uint64_t size = dj_reader_varint(reader);
    if (size > dj_reader_left(reader))
        reader->failed = true;
    *size_p = reader->failed ? 0 : (size_t)size;
    return dj_reader_take(reader, *size_p);
}

static dj_status_t read_record(dj_reader_t *reader, plan_record_t *record)
{
    record->key = read_hash(reader);
    record->structure = read_part(reader, &record->structure_size);
    record->sizes = read_part(reader, &record->sizes_size);
    record->plan = read_part(reader, &record->plan_size);
    if (reader->failed)
        return dj_fail(DJ_ERR_CORRUPT, "a file of plans ends in the middle of one");
    if (record->structure_size > DJ_PROGRAM_BYTES_MAX || record->sizes_size > DJ_PROGRAM_BYTES_MAX)
        return dj_fail(DJ_ERR_CORRUPT, "a program of %zu bytes with %zu of sizes",
                       record->structure_size, record->sizes_size);
    dj_hash_t program_key = dj_program_key(record->structure, record->structure_size);
    dj_hash_t key = dj_program_exact_key(program_key, record->sizes, record->sizes_size);
    if (!dj_hash_equal(key, record->key))
        return dj_fail(DJ_ERR_CORRUPT, "a plan has another key than its program");
    return DJ_OK;
}

static dj_status_t read_head(dj_reader_t *reader, dj_hash_t device_class)
{
    const char *magic = dj_reader_take(reader, 4);
    if (magic == NULL || memcmp(magic, MAGIC, 4) != 0)
        return dj_fail(DJ_ERR_CORRUPT, "not a file of plans");
    uint8_t version = dj_reader_u8(reader), program = dj_reader_u8(reader);
    uint8_t plan = dj_reader_u8(reader);
    dj_hash_t its_class = read_hash(reader), op_table = read_hash(reader);
    if (version != DJ_CACHE_FILE_VERSION || program != DJ_PROGRAM_VERSION ||
        plan != DJ_PLAN_VERSION || !dj_hash_equal(op_table, dj_op_table_hash()))
        return dj_fail(DJ_ERR_VERSION, "plans of another version of Djinn, or with other ops");
    if (!dj_hash_equal(its_class, device_class))
        return dj_fail(DJ_ERR_CLASS, "plans made for another device class");
    return DJ_OK;
}

static dj_status_t check_hash(const uint8_t *data, size_t size)
{
    dj_reader_t tail;
    if (size < sizeof(dj_hash_t))
        return dj_fail(DJ_ERR_CORRUPT, "a file of plans of %zu bytes", size);
    dj_reader_init(&tail, data + size - sizeof(dj_hash_t), sizeof(dj_hash_t));
    if (!dj_hash_equal(read_hash(&tail), dj_hash_of(data, size - sizeof(dj_hash_t))))
        return dj_fail(DJ_ERR_CORRUPT, "a damaged file of plans: its hash is not that of its bytes");
    return DJ_OK;
}

static dj_status_t walk(const void *data, size_t size, dj_hash_t device_class, visit_fn_t visit,
                        void *context)
{
    dj_reader_t reader;
    plan_record_t record;
    if (size > DJ_CACHE_FILE_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "%zu bytes of plans; at most %d", size,
                       DJ_CACHE_FILE_BYTES_MAX);
    dj_reader_init(&reader, data, size > sizeof(dj_hash_t) ? size - sizeof(dj_hash_t) : 0);
    dj_status_t status = read_head(&reader, device_class);
    uint64_t n_plans = dj_reader_varint(&reader);
    if (status == DJ_OK && (reader.failed || n_plans > DJ_CACHE_FILE_PLANS_MAX))
        status = dj_fail(DJ_ERR_CORRUPT, "a file of %llu plans", (unsigned long long)n_plans);
    for (uint64_t i = 0; i < n_plans && status == DJ_OK; i++) {
        status = read_record(&reader, &record);
        if (status == DJ_OK)
            status = visit(context, &record);
    }
    if (status == DJ_OK && dj_reader_left(&reader) > 0)
        status = dj_fail(DJ_ERR_CORRUPT, "%zu bytes after the last plan", dj_reader_left(&reader));
    return status;
}

static dj_status_t count_record(void *context, const plan_record_t *record)
{
    ++*(uint32_t *)context;
    return DJ_OK;
}

/* Everything in order? Version and class are told before damage. */
static dj_status_t check_file(const void *data, size_t size, dj_hash_t device_class,
                              uint32_t *n_plans_p)
{
    dj_reader_t reader;
    dj_reader_init(&reader, data, size);
    dj_status_t status = read_head(&reader, device_class);
    if (status == DJ_OK)
        status = check_hash(data, size);
    *n_plans_p = 0;
    return status == DJ_OK ? walk(data, size, device_class, count_record, n_plans_p) : status;
}

static dj_status_t publish_record(void *context, const plan_record_t *record)
{
    return dj_cache_publish(context, record->key, record->structure, record->structure_size,
                            record->sizes, record->sizes_size, record->plan, record->plan_size,
                            true);
}

dj_status_t dj_cache_file_decode(const void *data, size_t size, dj_hash_t device_class,
                                 dj_cache_t *cache, uint32_t *n_plans_p)
{
    uint32_t n_plans;
    dj_status_t status = check_file(data, size, device_class, &n_plans);
    if (status == DJ_OK)
        status = walk(data, size, device_class, publish_record, cache);
    if (status == DJ_OK)
        *n_plans_p = n_plans;
    return status;
}

/* ---- writing ---- */

/* Records as they will stand in the file, the most recently used first. */
typedef struct gathering {
    dj_bytes_t pool;
    size_t *ends; /* of each record in the pool */
    uint32_t n_plans, room;
    dj_table_t taken; /* keys */
    bool full;
} gathering_t;

static dj_status_t gather(void *context, const plan_record_t *record)
{
    enum { AROUND = 64 + 3 * 10 }; /* head, hash and lengths of a file with one plan */
    gathering_t *g = context;
    size_t bytes = record->structure_size + record->sizes_size + record->plan_size + AROUND;
    if (g->full || g->n_plans == g->room || dj_table_get(&g->taken, record->key) != NULL)
        return DJ_OK;
    if (g->pool.size + bytes > DJ_CACHE_FILE_BYTES_MAX - AROUND) {
        g->full = true;
        return DJ_OK;
    }
    put_hash(&g->pool, record->key);
    put_part(&g->pool, record->structure, record->structure_size);
    put_part(&g->pool, record->sizes, record->sizes_size);
    put_part(&g->pool, record->plan, record->plan_size);
    g->ends[g->n_plans++] = g->pool.size;
    return dj_table_put(&g->taken, record->key, g);
}

static dj_status_t gather_entry(gathering_t *g, const dj_cache_entry_t *entry, dj_bytes_t *plan)
{
    dj_bytes_clear(plan);
    if (entry->graph->fitted)
        return DJ_OK; /* of no use after a restart with another Stack */
    dj_status_t status = dj_plan_encode(entry->plan, plan);
    plan_record_t record = {
        .key = entry->graph->exact_key,
        .structure = entry->structure,
        .structure_size = entry->structure_size,
        .sizes = entry->sizes,
        .sizes_size = entry->sizes_size,
        .plan = plan->data,
        .plan_size = plan->size,
    };
    return status == DJ_OK ? gather(g, &record) : status;
}

static dj_status_t gather_waiting(gathering_t *g, dj_cache_t *cache, dj_hash_t key)
{
    dj_bytes_t structure = {0}, sizes = {0}, plan = {0};
    dj_status_t status = dj_cache_published(cache, key, &structure, &sizes, &plan);
    plan_record_t record = {
        .key = key,
        .structure = structure.data,
        .structure_size = structure.size,
        .sizes = sizes.data,
        .sizes_size = sizes.size,
        .plan = plan.data,
        .plan_size = plan.size,
    };
    if (status == DJ_OK)
        status = gather(g, &record);
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    dj_bytes_fini(&plan);
    return status == DJ_ERR_NO_PLAN ? DJ_OK : status; /* gone meanwhile */
}

static dj_status_t gather_cache(gathering_t *g, dj_cache_t *cache, const dj_hash_t *keys,
                                uint32_t n_keys)
{
    dj_status_t status = DJ_OK;
    dj_bytes_t plan = {0};
    for (uint32_t i = 0; i < n_keys && status == DJ_OK && !g->full; i++) {
        dj_cache_entry_t *entry = dj_cache_peek(cache, keys[i]);
        if (entry == NULL) {
            status = gather_waiting(g, cache, keys[i]);
            continue;
        }
        status = gather_entry(g, entry, &plan);
        dj_cache_release(cache, entry);
    }
    dj_bytes_fini(&plan);
    return status;
}

static void put_file(const gathering_t *g, dj_hash_t device_class, dj_bytes_t *bytes)
{
    size_t began = bytes->size;
    dj_bytes_put(bytes, MAGIC, 4);
    dj_bytes_put_u8(bytes, DJ_CACHE_FILE_VERSION);
    dj_bytes_put_u8(bytes, DJ_PROGRAM_VERSION);
    dj_bytes_put_u8(bytes, DJ_PLAN_VERSION);
    put_hash(bytes, device_class);
    put_hash(bytes, dj_op_table_hash());
    dj_bytes_put_varint(bytes, g->n_plans);
    for (uint32_t i = g->n_plans; i-- > 0;) {
        size_t from = i > 0 ? g->ends[i - 1] : 0;
        dj_bytes_put(bytes, g->pool.data + from, g->ends[i] - from);
    }
    if (!bytes->failed)
        put_hash(bytes, dj_hash_of(bytes->data + began, bytes->size - began));
}

static dj_status_t note_record(void *context, const plan_record_t *record)
{
    plan_record_t **next_p = context;
    *(*next_p)++ = *record;
    return DJ_OK;
}

/* What a file of `n_plans` holds besides, from its end on, where the latest are. */
static dj_status_t gather_before(gathering_t *g, dj_hash_t device_class, const void *before,
                                 size_t before_size, uint32_t n_plans)
{
    if (n_plans == 0)
        return DJ_OK;
    plan_record_t *records = calloc(n_plans + 1ull, sizeof *records), *next = records;
    if (records == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u plans of a file", n_plans);
    dj_status_t status = walk(before, before_size, device_class, note_record, &next);
    while (next > records && status == DJ_OK)
        status = gather(g, --next);
    free(records);
    return status;
}

dj_status_t dj_cache_file_encode(dj_cache_t *cache, dj_hash_t device_class, const void *before,
                                 size_t before_size, dj_bytes_t *bytes)
{
    gathering_t g = {.n_plans = 0};
    dj_hash_t *keys = NULL;
    uint32_t n_keys = 0, n_before = 0;
    if (before != NULL && check_file(before, before_size, device_class, &n_before) != DJ_OK)
        n_before = 0;
    dj_status_t status = dj_cache_keys(cache, &keys, &n_keys);
    g.room = n_keys < DJ_CACHE_FILE_PLANS_MAX - n_before ? n_keys + n_before
                                                         : DJ_CACHE_FILE_PLANS_MAX;
    g.ends = calloc(g.room + 1ull, sizeof *g.ends);
    if (status == DJ_OK && g.ends == NULL)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for a file of plans");
    if (status == DJ_OK)
        status = gather_cache(&g, cache, keys, n_keys);
    if (status == DJ_OK)
        status = gather_before(&g, device_class, before, before_size, n_before);
    if (status == DJ_OK)
        put_file(&g, device_class, bytes);
    if (status == DJ_OK && (bytes->failed || g.pool.failed))
        status = dj_fail(DJ_ERR_MEMORY, "no memory for %u plans as a file", g.n_plans);
    dj_bytes_fini(&g.pool);
    dj_table_fini(&g.taken);
    free(g.ends);
    free(keys);
    return status;
}
