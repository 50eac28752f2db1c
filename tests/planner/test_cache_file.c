/* Files that are none first, then there and back, then the disk: owners, links, locks, killed writers. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "planner/cache_file.h"
#include "tests/planner/random_program.h"

static const dj_hash_t device_class = {{0x1234, 0x5678}}, other_class = {{1, 2}};
static const dj_plan_needs_t needs = {.device_class = {{0x1234, 0x5678}}};
static char folder[64], path[128];

static dj_cache_t *cache_of(uint32_t limit)
{
    dj_cache_t *cache;
    dj_cache_options_t options = {.limit = limit};
    assert_ok(dj_cache_create(&options, &cache));
    return cache;
}

/* An entry with a random program, planned. */
static dj_hash_t put(dj_cache_t *cache, uint64_t seed)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_plan_t *plan;
    dj_cache_entry_t *entry;
    random_program(&program, seed, 12);
    assert_ok(decode(&program, &graph));
    assert_ok(dj_plan_make(graph, &needs, &plan));
    dj_hash_t key = graph->exact_key;
    assert_ok(dj_cache_insert(cache, graph, plan, NULL, program.structure.data,
                              program.structure.size, program.sizes.data, program.sizes.size,
                              false, false, &entry));
    dj_cache_release(cache, entry);
    dj_program_fini(&program);
    return key;
}

static void encode(dj_cache_t *cache, const dj_bytes_t *before, dj_bytes_t *bytes)
{
    dj_bytes_clear(bytes);
    assert_ok(dj_cache_file_encode(cache, device_class, before ? before->data : NULL,
                                   before ? before->size : 0, bytes));
}

static void make_small(dj_bytes_t *bytes)
{
    dj_cache_t *cache = cache_of(10);
    put(cache, 3);
    put(cache, 4);
    encode(cache, NULL, bytes);
    dj_cache_destroy(cache);
}

static void seal(dj_bytes_t *bytes)
{
    dj_hash_t hash = dj_hash_of(bytes->data, bytes->size - sizeof hash);
    memcpy(bytes->data + bytes->size - sizeof hash, &hash, sizeof hash);
}

static dj_status_t read_into(dj_cache_t *cache, const void *data, size_t size)
{
    uint32_t n_plans = 77;
    dj_status_t status = dj_cache_file_decode(data, size, device_class, cache, &n_plans);
    dj_cache_counters_t counters;
    dj_cache_counters(cache, &counters);
    assert_int_equal(status == DJ_OK ? n_plans : 77, n_plans);
    assert_int_equal(status == DJ_OK ? n_plans : 0, counters.loaded); /* all or nothing */
    return status;
}

static dj_status_t read_fresh(const void *data, size_t size)
{
    dj_cache_t *cache = cache_of(100);
    dj_status_t status = read_into(cache, data, size);
    dj_cache_destroy(cache);
    return status;
}

static void damaged_files_are_refused(void **state)
{
    dj_bytes_t bytes = {0};
    make_small(&bytes);
    assert_ok(read_fresh(bytes.data, bytes.size));
    for (size_t size = 0; size < bytes.size; size++)
        assert_int_not_equal(read_fresh(bytes.data, size), DJ_OK);
    for (size_t at = 0; at < bytes.size; at++) {
        bytes.data[at] ^= 0x10;
        assert_int_not_equal(read_fresh(bytes.data, bytes.size), DJ_OK);
        bytes.data[at] ^= 0x10;
    }
    dj_bytes_put_u8(&bytes, 0);
    assert_int_equal(read_fresh(bytes.data, bytes.size), DJ_ERR_CORRUPT);
    dj_bytes_fini(&bytes);
}

/* Behind a good hash. Only plans may differ: they are proven later. */
static void what_a_good_hash_covers_is_checked_all_the_same(void **state)
{
    dj_bytes_t bytes = {0};
    uint32_t taken = 0;
    make_small(&bytes);
    for (size_t at = 0; at + sizeof(dj_hash_t) < bytes.size; at++) {
        for (int bit = 0; bit < 8; bit += 3) {
            bytes.data[at] ^= (uint8_t)(1 << bit);
            seal(&bytes);
            taken += read_fresh(bytes.data, bytes.size) == DJ_OK;
            bytes.data[at] ^= (uint8_t)(1 << bit);
        }
    }
    assert_true(taken > 0);
    bytes.data[4 + 3 + 32 + 1] ^= 1; /* of the first plan's key */
    seal(&bytes);
    assert_int_equal(read_fresh(bytes.data, bytes.size), DJ_ERR_CORRUPT);
    assert_non_null(strstr(dj_error_text(), "another key"));
    bytes.data[4 + 3 + 32 + 1] ^= 1;
    for (size_t size = sizeof(dj_hash_t); size < bytes.size; size++) {
        dj_bytes_t cut = {0};
        dj_bytes_put(&cut, bytes.data, size);
        seal(&cut);
        assert_int_not_equal(read_fresh(cut.data, cut.size), DJ_OK);
        dj_bytes_fini(&cut);
    }
    dj_bytes_fini(&bytes);
}

static void others_files_are_told_apart(void **state)
{
    dj_bytes_t bytes = {0};
    dj_cache_t *cache = cache_of(10);
    uint32_t n_plans;
    make_small(&bytes);
    assert_int_equal(dj_cache_file_decode(bytes.data, bytes.size, other_class, cache, &n_plans),
                     DJ_ERR_CLASS);
    for (size_t at = 4; at < 7; at++) { /* of the file, of programs, of plans */
        bytes.data[at]++;
        assert_int_equal(read_into(cache, bytes.data, bytes.size), DJ_ERR_VERSION);
        bytes.data[at]--;
    }
    bytes.data[7 + 16] ^= 1; /* the op table's hash */
    assert_int_equal(read_into(cache, bytes.data, bytes.size), DJ_ERR_VERSION);
    dj_cache_destroy(cache);
    dj_bytes_fini(&bytes);
}

/* The waiting plan of a key, proven against its own program. */
static void prove(dj_cache_t *cache, dj_hash_t key)
{
    dj_bytes_t structure = {0}, sizes = {0}, bytes = {0};
    dj_graph_t *graph;
    dj_plan_t *plan;
    assert_ok(dj_cache_published(cache, key, &structure, &sizes, &bytes));
    uint32_t n_scalars = 0;
    while (dj_graph_decode(structure.data, structure.size, sizes.data, sizes.size, n_scalars,
                           &graph) != DJ_OK)
        assert_true(n_scalars++ < 1000);
    assert_true(dj_hash_equal(graph->exact_key, key));
    assert_ok(dj_plan_decode(bytes.data, bytes.size, graph, &needs, &plan));
    dj_plan_destroy(plan);
    dj_graph_destroy(graph);
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    dj_bytes_fini(&bytes);
}

static bool waits(dj_cache_t *cache, dj_hash_t key)
{
    dj_bytes_t structure = {0}, sizes = {0}, plan = {0};
    dj_status_t status = dj_cache_published(cache, key, &structure, &sizes, &plan);
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    dj_bytes_fini(&plan);
    return status == DJ_OK;
}

static void plans_come_back(void **state)
{
    enum { N = 20 };
    dj_cache_t *first = cache_of(100), *second = cache_of(100), *narrow = cache_of(5);
    dj_bytes_t bytes = {0}, again = {0};
    dj_hash_t keys[N];
    for (int i = 0; i < N; i++)
        keys[i] = put(first, 100 + (uint64_t)i);
    encode(first, NULL, &bytes);
    assert_ok(read_into(second, bytes.data, bytes.size));
    for (int i = 0; i < N; i++)
        prove(second, keys[i]);
    encode(second, NULL, &again); /* unused so far, and yet kept for the next time */
    assert_int_equal(again.size, bytes.size);
    assert_memory_equal(again.data, bytes.data, bytes.size);
    assert_ok(read_into(narrow, bytes.data, bytes.size));
    for (int i = 0; i < N; i++) /* the last five made were the last five used */
        assert_int_equal(waits(narrow, keys[i]), i >= N - 5);
    dj_cache_destroy(first);
    dj_cache_destroy(second);
    dj_cache_destroy(narrow);
    dj_bytes_fini(&bytes);
    dj_bytes_fini(&again);
}

static void what_was_fitted_to_one_rank_is_left_out(void **state)
{
    dj_cache_t *cache = cache_of(10);
    dj_bytes_t bytes = {0};
    uint32_t n_plans;
    dj_hash_t fitted = put(cache, 1);
    put(cache, 2);
    dj_cache_entry_t *entry = dj_cache_peek(cache, fitted);
    entry->graph->fitted = true;
    dj_cache_release(cache, entry);
    encode(cache, NULL, &bytes);
    dj_cache_t *second = cache_of(10);
    assert_ok(dj_cache_file_decode(bytes.data, bytes.size, device_class, second, &n_plans));
    assert_int_equal(n_plans, 1);
    assert_false(waits(second, fitted));
    dj_cache_destroy(cache);
    dj_cache_destroy(second);
    dj_bytes_fini(&bytes);
}

static void what_the_file_held_stays(void **state)
{
    dj_cache_t *ours = cache_of(100), *theirs = cache_of(100), *both = cache_of(100);
    dj_bytes_t before = {0}, bytes = {0};
    dj_hash_t shared = put(ours, 1), own = put(ours, 2), other = put(theirs, 3);
    assert_true(dj_hash_equal(put(theirs, 1), shared));
    encode(theirs, NULL, &before);
    encode(ours, &before, &bytes);
    assert_ok(read_into(both, bytes.data, bytes.size));
    assert_true(waits(both, shared) && waits(both, own) && waits(both, other));
    dj_cache_counters_t counters;
    dj_cache_counters(both, &counters);
    assert_int_equal(counters.loaded, 3);
    before.data[before.size / 2] ^= 1; /* a damaged one is as none */
    encode(ours, &before, &bytes);
    assert_ok(read_fresh(bytes.data, bytes.size));
    dj_cache_destroy(ours);
    dj_cache_destroy(theirs);
    dj_cache_destroy(both);
    dj_bytes_fini(&before);
    dj_bytes_fini(&bytes);
}

/* ---- the disk ---- */

static int make_folder(void **state)
{
    char hex[33];
    snprintf(folder, sizeof folder, "/tmp/djinn-plans-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    dj_hash_hex(device_class, hex);
    snprintf(path, sizeof path, "%s/%s.plans", folder, hex);
    return 0;
}

static int remove_folder(void **state)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char name[400];
        snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.' && unlink(name) != 0)
            rmdir(name);
    }
    if (dir)
        closedir(dir);
    return rmdir(folder);
}

static dj_status_t load(uint32_t *n_plans_p)
{
    dj_cache_t *cache = cache_of(100);
    dj_status_t status = dj_cache_file_load(folder, device_class, cache, n_plans_p);
    dj_cache_destroy(cache);
    return status;
}

static void refuses_to_load(dj_status_t expected, const char *sentence)
{
    uint32_t n_plans = 77;
    assert_int_equal(load(&n_plans), expected);
    assert_int_equal(n_plans, 0);
    if (strstr(dj_error_text(), sentence) == NULL || strstr(dj_error_text(), folder) == NULL)
        fail_msg("'%s' does not say '%s'", dj_error_text(), sentence);
}

static void write_file(const void *data, size_t size, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void foreign_files_are_refused(void **state)
{
    dj_bytes_t bytes = {0};
    make_small(&bytes);
    write_file(bytes.data, bytes.size, 0666);
    refuses_to_load(DJ_ERR_FILE, "lets others write");
    write_file(bytes.data, bytes.size, 0620);
    refuses_to_load(DJ_ERR_FILE, "chmod go-w");
    write_file(bytes.data, bytes.size / 2, 0600);
    refuses_to_load(DJ_ERR_CORRUPT, "damaged");
    write_file("", 0, 0600);
    refuses_to_load(DJ_ERR_CORRUPT, "not a file of plans");
    assert_int_equal(truncate(path, DJ_CACHE_FILE_BYTES_MAX + 1ll), 0);
    refuses_to_load(DJ_ERR_LIMIT, "at most");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    refuses_to_load(DJ_ERR_FILE, "no regular file");
    unlink(path);
    assert_int_equal(symlink("/etc/hostname", path), 0);
    refuses_to_load(DJ_ERR_FILE, "cannot read");
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    refuses_to_load(DJ_ERR_FILE, "no regular file");
    rmdir(path);
    write_file(bytes.data, bytes.size, 0600);
    assert_int_equal(chmod(folder, 0777), 0);
    refuses_to_load(DJ_ERR_FILE, "lets others write");
    assert_int_equal(chmod(folder, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, 12345), 0);
        refuses_to_load(DJ_ERR_FILE, "belongs to user 12345");
    }
    dj_bytes_fini(&bytes);
}

static void a_missing_folder_is_empty_and_is_made(void **state)
{
    struct stat info;
    uint32_t n_plans = 77;
    dj_cache_t *cache = cache_of(10);
    put(cache, 5);
    assert_int_equal(rmdir(folder), 0);
    assert_ok(load(&n_plans));
    assert_int_equal(n_plans, 0);
    assert_ok(dj_cache_file_save(folder, device_class, cache, 0));
    assert_int_equal(stat(folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_ok(load(&n_plans));
    assert_int_equal(n_plans, 1);
    assert_int_equal(dj_cache_file_save("/nonexistent/of/plans", device_class, cache, 0),
                     DJ_ERR_FILE);
    dj_cache_destroy(cache);
}

static void a_damaged_file_is_replaced(void **state)
{
    dj_cache_t *cache = cache_of(10);
    uint32_t n_plans;
    put(cache, 5);
    write_file("rubbish", 7, 0600);
    char hex[33], beside[160];
    dj_hash_hex(device_class, hex);
    snprintf(beside, sizeof beside, "%s/%s.tmp", folder, hex);
    assert_int_equal(symlink("/etc/hostname", beside), 0); /* what is in the way goes, unfollowed */
    assert_ok(dj_cache_file_save(folder, device_class, cache, 0));
    assert_ok(load(&n_plans));
    assert_int_equal(n_plans, 1);
    write_file("rubbish", 7, 0666); /* somebody else's, as it seems: left alone */
    assert_int_equal(dj_cache_file_save(folder, device_class, cache, 0), DJ_ERR_FILE);
    refuses_to_load(DJ_ERR_FILE, "lets others write");
    dj_cache_destroy(cache);
}

static void writers_take_turns(void **state)
{
    char lock[160], hex[33];
    dj_cache_t *cache = cache_of(10);
    dj_hash_hex(device_class, hex);
    snprintf(lock, sizeof lock, "%s/%s.lock", folder, hex);
    put(cache, 5);
    int fd = open(lock, O_RDWR | O_CREAT, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(dj_cache_file_save(folder, device_class, cache, 20), DJ_ERR_BUSY);
    assert_int_equal(access(path, F_OK), -1);
    close(fd);
    assert_ok(dj_cache_file_save(folder, device_class, cache, 0));
    dj_cache_destroy(cache);
}

/* Forks a process that saves a cache of its own again and again. */
static pid_t start_writer(uint64_t seed, uint64_t n_plans, int rounds)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    dj_cache_t *cache = cache_of(1000);
    for (uint64_t i = 0; i < n_plans; i++)
        put(cache, seed + i);
    for (int i = 0; rounds == 0 || i < rounds; i++)
        if (dj_cache_file_save(folder, device_class, cache, 5000) != DJ_OK)
            _exit(1);
    _exit(0);
}

static void a_killed_writer_leaves_a_whole_file(void **state)
{
    uint32_t n_plans;
    uint64_t seed = 77;
    int status;
    pid_t writer = start_writer(1000, 200, 1);
    assert_int_equal(waitpid(writer, &status, 0), writer);
    assert_int_equal(status, 0);
    for (int round = 0; round < 25; round++) {
        writer = start_writer(1000, 200, 0);
        struct timespec wait = {.tv_nsec = 5000000 + random_below(&seed, 20000000)};
        nanosleep(&wait, NULL);
        kill(writer, SIGKILL);
        assert_int_equal(waitpid(writer, &status, 0), writer);
        assert_true(WIFSIGNALED(status));
        assert_ok(load(&n_plans));
        assert_int_equal(n_plans, 200);
    }
}

static void writers_at_once_lose_nothing(void **state)
{
    enum { WRITERS = 4, PLANS = 10 };
    pid_t writers[WRITERS];
    uint32_t n_plans;
    int status;
    for (uint64_t i = 0; i < WRITERS; i++)
        writers[i] = start_writer(1 + 100 * i, PLANS, 10);
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(waitpid(writers[i], &status, 0), writers[i]);
        assert_int_equal(status, 0);
    }
    assert_ok(load(&n_plans));
    assert_int_equal(n_plans, WRITERS * PLANS);
}

int main(void)
{
#define ON_DISK(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(what_a_good_hash_covers_is_checked_all_the_same),
        cmocka_unit_test(others_files_are_told_apart),
        cmocka_unit_test(plans_come_back),
        cmocka_unit_test(what_was_fitted_to_one_rank_is_left_out),
        cmocka_unit_test(what_the_file_held_stays),
        ON_DISK(foreign_files_are_refused),
        ON_DISK(a_missing_folder_is_empty_and_is_made),
        ON_DISK(a_damaged_file_is_replaced),
        ON_DISK(writers_take_turns),
        ON_DISK(a_killed_writer_leaves_a_whole_file),
        ON_DISK(writers_at_once_lose_nothing),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
