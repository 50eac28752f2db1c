/* fuzz_cache_file.c - files of plans from anywhere (planner/cache_file.h).
 *
 * Input, rude (first byte even): what comes after the file's head and before its hash, both of which are
 * made here. Polite (odd): structure_bytes:u16 sizes_bytes:u16 n_scalars:u8 plan_bytes:u16 and these bytes,
 * again and again, each of which becomes a record with a good key; a plan gets its magic and keys too, so that
 * the proof has to find what is wrong. Whatever was read comes back the same from what is written of it, and
 * a plan that its graph's proof lets in is a good one. */
#include "planner/cache_file.h"
#include "tests/fuzz/fuzz.h"

enum { RECORDS_MAX = 8 };

static const dj_hash_t device_class = {{1, 2}};
static const dj_plan_needs_t needs = {
    .device_class = {{1, 2}}, .flops_per_ns = 10, .bytes_per_ns = 10, .step_ns = 100};

typedef struct told {
    dj_hash_t keys[RECORDS_MAX];
    uint32_t n_scalars[RECORDS_MAX], n;
} told_t;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return dj_hash_setup() ? 0 : 1;
}

static void put_hash(dj_bytes_t *bytes, dj_hash_t hash)
{
    dj_bytes_put_u64(bytes, hash.word[0]);
    dj_bytes_put_u64(bytes, hash.word[1]);
}

static void put_head(dj_bytes_t *file)
{
    dj_bytes_put(file, "DJPC", 4);
    dj_bytes_put_u8(file, DJ_CACHE_FILE_VERSION);
    dj_bytes_put_u8(file, DJ_PROGRAM_VERSION);
    dj_bytes_put_u8(file, DJ_PLAN_VERSION);
    put_hash(file, device_class);
    put_hash(file, dj_op_table_hash());
}

static void put_record(dj_reader_t *reader, dj_bytes_t *records, told_t *told)
{
    size_t structure_bytes, sizes_bytes, plan_bytes;
    size_t structure_wanted = dj_reader_u16(reader), sizes_wanted = dj_reader_u16(reader);
    told->n_scalars[told->n] = dj_reader_u8(reader);
    size_t plan_wanted = dj_reader_u16(reader);
    const uint8_t *structure = fuzz_take(reader, structure_wanted, &structure_bytes);
    const uint8_t *sizes = fuzz_take(reader, sizes_wanted, &sizes_bytes);
    const uint8_t *body = fuzz_take(reader, plan_wanted, &plan_bytes);
    dj_hash_t program_key = dj_program_key(structure, structure_bytes);
    dj_hash_t key = dj_program_exact_key(program_key, sizes, sizes_bytes);
    dj_bytes_t plan = {0};
    dj_bytes_put(&plan, "DJPL", 4);
    dj_bytes_put_u8(&plan, DJ_PLAN_VERSION);
    put_hash(&plan, program_key);
    put_hash(&plan, key);
    put_hash(&plan, device_class);
    dj_bytes_put(&plan, body, plan_bytes);
    put_hash(records, key);
    dj_bytes_put_varint(records, structure_bytes);
    dj_bytes_put(records, structure, structure_bytes);
    dj_bytes_put_varint(records, sizes_bytes);
    dj_bytes_put(records, sizes, sizes_bytes);
    dj_bytes_put_varint(records, plan.size);
    dj_bytes_put(records, plan.data, plan.size);
    told->keys[told->n++] = key;
    dj_bytes_fini(&plan);
}

static void put_body(dj_reader_t *reader, bool polite, dj_bytes_t *file, told_t *told)
{
    dj_bytes_t records = {0};
    size_t taken;
    while (polite && told->n < RECORDS_MAX && dj_reader_left(reader) > 7)
        put_record(reader, &records, told);
    if (polite) {
        dj_bytes_put_varint(file, told->n);
        dj_bytes_put(file, records.data, records.size);
    } else {
        const uint8_t *rest = fuzz_take(reader, SIZE_MAX, &taken);
        dj_bytes_put(file, rest, taken);
    }
    dj_bytes_fini(&records);
}

/* As a rank adopts it. */
static void check_plan(dj_cache_t *cache, dj_hash_t key, uint32_t n_scalars)
{
    dj_bytes_t structure = {0}, sizes = {0}, bytes = {0};
    dj_graph_t *graph;
    dj_plan_t *plan;
    FUZZ_ASSERT(dj_cache_published(cache, key, &structure, &sizes, &bytes) == DJ_OK);
    if (dj_graph_decode(structure.data, structure.size, sizes.data, sizes.size, n_scalars,
                        &graph) == DJ_OK) {
        if (dj_plan_decode(bytes.data, bytes.size, graph, &needs, &plan) == DJ_OK) {
            FUZZ_ASSERT(dj_plan_verify(plan, graph) == DJ_OK);
            dj_plan_destroy(plan);
        }
        dj_graph_destroy(graph);
    }
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    dj_bytes_fini(&bytes);
}

static void check_again(dj_cache_t *cache, uint32_t n_plans)
{
    dj_cache_options_t options = {.limit = 1000};
    dj_cache_t *second;
    dj_bytes_t written = {0}, again = {0};
    uint32_t n_again;
    FUZZ_ASSERT(dj_cache_create(&options, &second) == DJ_OK);
    FUZZ_ASSERT(dj_cache_file_encode(cache, device_class, NULL, 0, &written) == DJ_OK);
    FUZZ_ASSERT(dj_cache_file_decode(written.data, written.size, device_class, second, &n_again) ==
                DJ_OK);
    FUZZ_ASSERT(n_again <= n_plans); /* a key that came twice is there once */
    FUZZ_ASSERT(dj_cache_file_encode(second, device_class, written.data, written.size, &again) ==
                DJ_OK);
    FUZZ_ASSERT(again.size == written.size && memcmp(again.data, written.data, again.size) == 0);
    dj_bytes_fini(&written);
    dj_bytes_fini(&again);
    dj_cache_destroy(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_cache_options_t options = {.limit = 1000};
    dj_reader_t reader;
    dj_cache_t *cache;
    dj_bytes_t file = {0};
    told_t told = {.n = 0};
    uint32_t n_plans;
    dj_reader_init(&reader, data, size);
    bool polite = dj_reader_u8(&reader) & 1;
    FUZZ_ASSERT(dj_cache_create(&options, &cache) == DJ_OK);
    put_head(&file);
    put_body(&reader, polite, &file, &told);
    put_hash(&file, dj_hash_of(file.data, file.size));
    if (dj_cache_file_decode(file.data, file.size, device_class, cache, &n_plans) == DJ_OK) {
        for (uint32_t i = 0; i < told.n; i++)
            check_plan(cache, told.keys[i], told.n_scalars[i]);
        check_again(cache, n_plans);
    } else {
        FUZZ_ASSERT(!polite);
        fuzz_check_text(dj_error_text());
    }
    dj_bytes_fini(&file);
    dj_cache_destroy(cache);
    return 0;
}
