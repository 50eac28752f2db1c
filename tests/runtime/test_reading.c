/* test_reading.c - weights read by several threads: the bytes and names that one thread would find, from any
 * offset, past the page cache or not, into memory that the host writes or does not; and files that lie. */
#include "tests/gpu/fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "runtime/reading.h"
#include "tests/gpu/blind_device.h"

#define FILE_BYTES (41ull << 20)
#define READ_MAX 8

typedef struct where {
    uint64_t begin, bytes;
} where_t;

static uint8_t *content;
static char path[] = "djinn-reading-XXXXXX"; /* here: /tmp may be in memory, which knows no direct reads */

static int make_file(void **state)
{
    content = malloc(FILE_BYTES);
    for (uint64_t i = 0; i < FILE_BYTES; i++)
        content[i] = (uint8_t)(i * 2654435761u >> 11);
    int fd = mkstemp(path);
    for (uint64_t done = 0; fd >= 0 && done < FILE_BYTES;) {
        ssize_t n = write(fd, content + done, FILE_BYTES - done);
        if (n <= 0)
            return -1;
        done += (uint64_t)n;
    }
    close(fd);
    return fd < 0 ? -1 : 0;
}

static int drop_file(void **state)
{
    unlink(path);
    free(content);
    return 0;
}

typedef struct bench {
    dj_device_t *device;
    dj_text_store_t *store;
    dj_bounce_pool_t *pool;
    dj_reading_file_t file;
    dj_reading_t readings[READ_MAX];
} bench_t;

enum { HOST, BLIND, BARE };

static void open_bench(bench_t *bench, int kind)
{
    dj_config_t config = {.device = "host", .threads = 1, .cores = ""};
    const blind_options_t options = {.page_bytes = 2u << 20, .no_extras = kind == BARE};
    *bench = (bench_t){0};
    assert_true(dj_hash_setup());
    if (kind == HOST)
        bench->device = fixture_open(1);
    else
        assert_int_equal(blind_open(&config, &options, &bench->device), DJ_OK);
    assert_int_equal(dj_text_store_create(bench->device, 1u << 30, &bench->store), DJ_OK);
    if (kind != HOST)
        assert_int_equal(dj_bounce_pool_create(bench->device, 64u << 20, &bench->pool), DJ_OK);
    bench->file = (dj_reading_file_t){bench->device, bench->pool, open(path, O_RDONLY | O_CLOEXEC), path};
    assert_true(bench->file.fd >= 0);
}

static void close_bench(bench_t *bench)
{
    close(bench->file.fd);
    dj_text_store_destroy(bench->store);
    dj_bounce_pool_destroy(bench->pool);
    if (bench->pool) {
        assert_int_equal(blind_committed_bytes(bench->device), 0);
        assert_int_equal(blind_pinned_bytes(bench->device), 0);
    }
    dj_device_close(bench->device);
}

static dj_status_t read_some(bench_t *bench, const where_t *where, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        bench->readings[i] = (dj_reading_t){.begin = where[i].begin};
        assert_int_equal(dj_text_draft(bench->store, where[i].bytes, &bench->readings[i].draft), DJ_OK);
    }
    return dj_readings_read(&bench->file, bench->readings, n);
}

static void discard(bench_t *bench, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        dj_text_discard(bench->store, bench->readings[i].draft);
}

static void bytes_and_names_are_those_of_the_file(void **state)
{
    static const where_t where[] = {{0, 100}, {100, 0}, {101, (9ull << 20) + 7}, {4096, 4096},
                                    {FILE_BYTES - 1, 1}, {FILE_BYTES, 0},
                                    {12345, FILE_BYTES - 12345}, {5, 2 * DJ_TEXT_PART_BYTES}};
    enum { N = sizeof(where) / sizeof(where[0]) };
    uint8_t *copy = malloc(FILE_BYTES);
    for (int kind = HOST; kind <= BARE; kind++) {
        bench_t bench;
        open_bench(&bench, kind);
        for (int turn = 0; turn < 3; turn++) {
            assert_int_equal(read_some(&bench, where, N), DJ_OK);
            for (uint32_t i = 0; i < N; i++) {
                dj_hash_t name;
                dj_device_memory_t memory = bench.device->ops->memory;
                memory.copy_out(bench.device, copy, bench.readings[i].draft->data, where[i].bytes);
                assert_memory_equal(copy, content + where[i].begin, where[i].bytes);
                assert_int_equal(dj_text_name_of(copy, where[i].bytes, &name), DJ_OK);
                assert_true(dj_hash_equal(name, bench.readings[i].content));
            }
            discard(&bench, N);
        }
        close_bench(&bench);
    }
    free(copy);
}

static void a_file_that_ends_early_is_told(void **state)
{
    const where_t where[] = {{0, 20u << 20}, {30ull << 20, 20u << 20}, {0, 5}};
    for (int kind = HOST; kind <= BARE; kind++) {
        bench_t bench;
        open_bench(&bench, kind);
        assert_int_equal(read_some(&bench, where, 3), DJ_ERR_FILE);
        assert_non_null(strstr(dj_error_text(), "ends before byte"));
        discard(&bench, 3);
        close_bench(&bench);
    }
}

static void a_file_that_cannot_be_read_is_told(void **state)
{
    const where_t where[] = {{0, 20u << 20}};
    bench_t bench;
    open_bench(&bench, BLIND);
    close(bench.file.fd);
    bench.file.fd = open(".", O_RDONLY | O_CLOEXEC);
    assert_int_equal(read_some(&bench, where, 1), DJ_ERR_FILE);
    discard(&bench, 1);
    close_bench(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_cannot_be_read_is_told),
        cmocka_unit_test(a_file_that_ends_early_is_told),
        cmocka_unit_test(bytes_and_names_are_those_of_the_file),
    };
    return cmocka_run_group_tests(tests, make_file, drop_file);
}
