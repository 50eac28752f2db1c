/* Files that are none first: every prefix, every flipped byte, lies behind a good hash. Then random
 * programs there and back, a file by a build with another op table, and the disk. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "planner/snapshot.h"
#include "tests/planner/random_program.h"

static dj_snapshot_program_t program_of(const dj_program_t *program)
{
    return (dj_snapshot_program_t){
        .structure = program->structure.data,
        .structure_size = program->structure.size,
        .sizes = program->sizes.data,
        .sizes_size = program->sizes.size,
        .scalars = (const uint64_t *)program->scalars.data,
        .n_scalars = (uint32_t)(program->scalars.size / 8),
    };
}

/* A small one with two programs and names. */
static void make_small(dj_bytes_t *bytes)
{
    static const dj_snapshot_name_t names[] = {{0, "wte.weight"}, {2, "\xc3\xa9"}};
    dj_program_t a = {0}, b = {0};
    random_program(&a, 3, 6);
    random_program(&b, 4, 9);
    dj_snapshot_program_t programs[] = {program_of(&a), program_of(&b)};
    programs[0].names = names;
    programs[0].n_names = 2;
    dj_snapshot_t snapshot = {.name = "small", .phase = 2, .n_programs = 2, .programs = programs};
    assert_ok(dj_snapshot_encode(&snapshot, bytes));
    dj_program_fini(&a);
    dj_program_fini(&b);
}

static void seal(dj_bytes_t *bytes)
{
    dj_hash_t hash = dj_hash_of(bytes->data, bytes->size);
    dj_bytes_put(bytes, &hash, sizeof hash);
}

static void refuse(const void *data, size_t size, dj_status_t expected, const char *sentence)
{
    dj_snapshot_t *snapshot = NULL;
    assert_int_equal(dj_snapshot_decode(data, size, &snapshot), expected);
    assert_null(snapshot);
    if (strstr(dj_error_text(), sentence) == NULL)
        fail_msg("'%s' does not say '%s'", dj_error_text(), sentence);
}

static void what_is_no_snapshot_is_refused(void **state)
{
    dj_bytes_t bytes = {0};
    refuse("", 0, DJ_ERR_PROTOCOL, "not a snapshot");
    refuse("DJSN\1", 5, DJ_ERR_PROTOCOL, "not a snapshot");
    make_small(&bytes);
    for (size_t size = 0; size < bytes.size; size++) {
        dj_snapshot_t *snapshot;
        assert_true(dj_snapshot_decode(bytes.data, size, &snapshot) < 0);
    }
    for (size_t i = 0; i < bytes.size; i++) {
        dj_snapshot_t *snapshot;
        bytes.data[i] ^= 0x10;
        dj_status_t status = dj_snapshot_decode(bytes.data, bytes.size, &snapshot);
        assert_int_equal(status, i < 4    ? DJ_ERR_PROTOCOL
                                 : i == 4 ? DJ_ERR_VERSION
                                          : DJ_ERR_CORRUPT);
        bytes.data[i] ^= 0x10;
    }
    dj_bytes_fini(&bytes);
}

/* Every prefix and every byte changed again, now with the hash made good: any status, no harm. */
static void lies_behind_a_good_hash_do_no_harm(void **state)
{
    dj_bytes_t whole = {0}, lie = {0};
    uint32_t refused = 0;
    make_small(&whole);
    size_t body = whole.size - sizeof(dj_hash_t);
    for (size_t i = 5; i < 9 * body; i++) {
        dj_snapshot_t *snapshot;
        bool cut = i < body;
        dj_bytes_clear(&lie);
        dj_bytes_put(&lie, whole.data, cut ? i : body);
        if (!cut)
            lie.data[i % body] ^= (uint8_t)(1u << (i / body - 1));
        seal(&lie);
        if (dj_snapshot_decode(lie.data, lie.size, &snapshot) != DJ_OK) {
            assert_true(dj_error_text()[0] != '\0');
            refused++;
            continue;
        }
        assert_false(cut);
        for (uint32_t n = 0; n < snapshot->n_programs; n++) {
            dj_graph_t *graph;
            if (dj_snapshot_graph(snapshot, n, &graph) == DJ_OK)
                dj_graph_destroy(graph);
        }
        dj_snapshot_destroy(snapshot);
    }
    assert_true(refused > body);
    dj_bytes_fini(&whole);
    dj_bytes_fini(&lie);
}

/* Head, then what the caller adds, sealed. */
static void begin(dj_bytes_t *bytes)
{
    dj_bytes_clear(bytes);
    dj_bytes_put(bytes, "DJSN\1\4name", 10);
    dj_bytes_put_u8(bytes, 0);
}

static void put_text(dj_bytes_t *bytes, const char *text)
{
    dj_bytes_put_varint(bytes, strlen(text));
    dj_bytes_put(bytes, text, strlen(text));
}

static void refuse_sealed(dj_bytes_t *bytes, dj_status_t expected, const char *sentence)
{
    seal(bytes);
    refuse(bytes->data, bytes->size, expected, sentence);
}

static void counts_and_names_have_limits(void **state)
{
    dj_bytes_t bytes = {0};
    begin(&bytes);
    dj_bytes_put_varint(&bytes, 1 << 20);
    refuse_sealed(&bytes, DJ_ERR_LIMIT, "1048576 ops; at most 4096");
    begin(&bytes);
    dj_bytes_put_varint(&bytes, 4000);
    refuse_sealed(&bytes, DJ_ERR_PROTOCOL, "ends before its ops");
    begin(&bytes);
    dj_bytes_put_varint(&bytes, 0);
    dj_bytes_put_varint(&bytes, UINT64_MAX);
    refuse_sealed(&bytes, DJ_ERR_LIMIT, "programs; at most 65536");
    begin(&bytes);
    dj_bytes_put_varint(&bytes, 0);
    dj_bytes_put_varint(&bytes, 0);
    dj_bytes_put_u8(&bytes, 0);
    refuse_sealed(&bytes, DJ_ERR_PROTOCOL, "1 bytes too many");
    begin(&bytes);
    bytes.data[6] = 27; /* an escape */
    refuse_sealed(&bytes, DJ_ERR_PROTOCOL, "control characters");
    begin(&bytes);
    dj_bytes_put_varint(&bytes, 0);
    dj_bytes_put_varint(&bytes, 1);
    dj_bytes_put_varint(&bytes, 7);
    dj_bytes_put(&bytes, "DJP\1\2\0\0\0\0\0\0\0", 12);
    refuse_sealed(&bytes, DJ_ERR_PROTOCOL, "program 0: op 0 is not in the file's list of 0");
    dj_bytes_fini(&bytes);
}

static void ops_of_another_build_are_refused_by_name(void **state)
{
    dj_bytes_t bytes = {0};
    begin(&bytes);
    dj_bytes_put_varint(&bytes, 1);
    put_text(&bytes, "aten::nothing");
    put_text(&bytes, "t>1");
    dj_bytes_put_varint(&bytes, 0);
    refuse_sealed(&bytes, DJ_ERR_UNSUPPORTED, "aten::nothing is not in this build's op table");
    begin(&bytes);
    dj_bytes_put_varint(&bytes, 1);
    put_text(&bytes, "aten::relu");
    put_text(&bytes, "tt>1");
    dj_bytes_put_varint(&bytes, 0);
    refuse_sealed(&bytes, DJ_ERR_UNSUPPORTED, "signature tt>1, here it has t>1");
    dj_bytes_fini(&bytes);
}

static void bad_snapshots_are_not_written(void **state)
{
    static const dj_snapshot_name_t names[] = {{2, "a"}, {2, "b"}};
    dj_bytes_t bytes = {0};
    dj_program_t a = {0};
    random_program(&a, 3, 6);
    dj_snapshot_program_t program = program_of(&a);
    dj_snapshot_t snapshot = {.name = "two\nlines", .n_programs = 1, .programs = &program};
    assert_int_equal(dj_snapshot_encode(&snapshot, &bytes), DJ_ERR_INVALID);
    snapshot.name = "fine";
    program.names = names;
    program.n_names = 2;
    assert_int_equal(dj_snapshot_encode(&snapshot, &bytes), DJ_ERR_INVALID);
    program.n_names = 0;
    program.structure_size = 7;
    assert_int_equal(dj_snapshot_encode(&snapshot, &bytes), DJ_ERR_PROTOCOL);
    assert_non_null(strstr(dj_error_text(), "program 0"));
    dj_program_fini(&a);
    dj_bytes_fini(&bytes);
}

static void random_programs_come_back_as_they_were(void **state)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        dj_program_t program = {0};
        dj_bytes_t bytes = {0};
        dj_snapshot_t *again;
        dj_graph_t *graph;
        random_program(&program, seed, 4 + seed % 40);
        dj_snapshot_program_t one = program_of(&program);
        dj_snapshot_t snapshot = {.n_programs = 1, .programs = &one};
        assert_ok(dj_snapshot_encode(&snapshot, &bytes));
        assert_ok(dj_snapshot_decode(bytes.data, bytes.size, &again));
        assert_int_equal(again->programs[0].structure_size, one.structure_size);
        assert_memory_equal(again->programs[0].structure, one.structure, one.structure_size);
        assert_int_equal(again->programs[0].sizes_size, one.sizes_size);
        assert_memory_equal(again->programs[0].sizes, one.sizes, one.sizes_size);
        assert_int_equal(again->programs[0].n_scalars, one.n_scalars);
        assert_memory_equal(again->programs[0].scalars, one.scalars, program.scalars.size);
        assert_ok(dj_snapshot_graph(again, 0, &graph));
        assert_int_equal(graph->n_nodes, program.n_nodes);
        dj_graph_destroy(graph);
        assert_int_equal(dj_snapshot_graph(again, 1, &graph), DJ_ERR_INVALID);
        dj_snapshot_destroy(again);
        dj_bytes_fini(&bytes);
        dj_program_fini(&program);
    }
}

static void names_and_phase_come_back(void **state)
{
    dj_bytes_t bytes = {0};
    dj_snapshot_t *snapshot;
    make_small(&bytes);
    assert_ok(dj_snapshot_decode(bytes.data, bytes.size, &snapshot));
    assert_string_equal(snapshot->name, "small");
    assert_int_equal(snapshot->phase, 2);
    assert_int_equal(snapshot->n_programs, 2);
    assert_string_equal(dj_snapshot_name(&snapshot->programs[0], 0), "wte.weight");
    assert_null(dj_snapshot_name(&snapshot->programs[0], 1));
    assert_string_equal(dj_snapshot_name(&snapshot->programs[0], 2), "\xc3\xa9");
    assert_null(dj_snapshot_name(&snapshot->programs[1], 0));
    dj_snapshot_destroy(snapshot);
    dj_bytes_fini(&bytes);
}

/* The file says which op is which: sub stands where this file's add stood, whatever their numbers.
 */
static void ops_are_found_by_name(void **state)
{
    dj_bytes_t bytes = {0};
    dj_program_t program = {0};
    dj_snapshot_t *snapshot;
    dj_graph_t *graph;
    dj_program_reset(&program);
    dj_operand_t a = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 1, 8));
    uint32_t out = add_binary(&program, "add.Tensor", a, a).storage;
    finish(&program, &out, 1);
    dj_snapshot_program_t one = program_of(&program);
    dj_snapshot_t written = {.name = "x", .n_programs = 1, .programs = &one};
    assert_ok(dj_snapshot_encode(&written, &bytes));
    char *at = memmem(bytes.data, bytes.size, "aten::add.Tensor", 16);
    assert_non_null(at);
    memcpy(at, "aten::sub.Tensor", 16);
    bytes.size -= sizeof(dj_hash_t);
    seal(&bytes);
    assert_ok(dj_snapshot_decode(bytes.data, bytes.size, &snapshot));
    assert_ok(dj_snapshot_graph(snapshot, 0, &graph));
    assert_int_equal(graph->nodes[0].call.op, DJ_OP_SUB);
    dj_graph_destroy(graph);
    dj_snapshot_destroy(snapshot);
    dj_program_fini(&program);
    dj_bytes_fini(&bytes);
}

static void files_are_whole_or_not_there(void **state)
{
    char folder[] = "/tmp/djinn-snapshot-XXXXXX", path[64], fifo[64];
    dj_bytes_t bytes = {0};
    dj_snapshot_t *snapshot = NULL, *again;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.djs", folder);
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    assert_int_equal(dj_snapshot_read(path, &snapshot), DJ_ERR_FILE);
    assert_int_equal(dj_snapshot_read(folder, &snapshot), DJ_ERR_FILE);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(dj_snapshot_read(fifo, &snapshot), DJ_ERR_FILE);
    assert_non_null(strstr(dj_error_text(), "not a regular file"));
    unlink(fifo);
    make_small(&bytes);
    assert_ok(dj_snapshot_decode(bytes.data, bytes.size, &snapshot));
    assert_int_equal(dj_snapshot_write("/nowhere/a.djs", snapshot), DJ_ERR_FILE);
    assert_ok(dj_snapshot_write(path, snapshot));
    assert_ok(dj_snapshot_write(path, snapshot)); /* over itself */
    assert_ok(dj_snapshot_read(path, &again));
    assert_int_equal(again->n_programs, 2);
    dj_snapshot_destroy(again);
    assert_int_equal(truncate(path, 20000000000ll), 0); /* sparse */
    assert_int_equal(dj_snapshot_read(path, &again), DJ_ERR_LIMIT);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(dj_snapshot_read(path, &again), DJ_ERR_CORRUPT);
    assert_non_null(strstr(dj_error_text(), path));
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* nothing was left beside it */
    dj_snapshot_destroy(snapshot);
    dj_bytes_fini(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_snapshot_is_refused),
        cmocka_unit_test(lies_behind_a_good_hash_do_no_harm),
        cmocka_unit_test(counts_and_names_have_limits),
        cmocka_unit_test(ops_of_another_build_are_refused_by_name),
        cmocka_unit_test(bad_snapshots_are_not_written),
        cmocka_unit_test(random_programs_come_back_as_they_were),
        cmocka_unit_test(names_and_phase_come_back),
        cmocka_unit_test(ops_are_found_by_name),
        cmocka_unit_test(files_are_whole_or_not_there),
    };
    return dj_hash_setup() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
