/* test_weights.c - weights that the rank reads itself: files that lie, files that are none, and
 * sharing.
 *
 * The files lie in a folder of the test's own, the server's only model root. A refused load names
 * the file and leaves nothing behind; afterwards the same session loads a good one. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

#define GOOD                                                                                       \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"                          \
    "\"b\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[24,40]}}"

static server_t server;
static char root[64], outside[64];
static float values[10] = {1, 2, 3, 4, 5, 6};

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void put_file(const char *path, uint64_t length, const char *header, uint64_t data_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(&length, 1, 8, file);
    fputs(header, file);
    fwrite(values, 1, data_bytes, file);
    fclose(file);
}

/* A file with this header, its length as it is, and 40 bytes of data. */
static const char *file_with(const char *name, const char *header)
{
    put_file(path_of(name), strlen(header), header, 40);
    return path_of(name);
}

static djinn_t *connect_now(void)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    options.mode = getenv("TEST_MODE");
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
}

static djinn_tensor_t load_good(djinn_t *djinn)
{
    djinn_tensor_t tensor;
    float back[6];
    assert_ok(djinn_load(djinn, file_with("good", GOOD), "a", &tensor));
    assert_int_equal(tensor.dtype, DJINN_FLOAT32);
    assert_int_equal(tensor.rank, 2);
    assert_int_equal(tensor.sizes[0], 2);
    assert_int_equal(tensor.sizes[1], 3);
    assert_ok(djinn_fetch(djinn, &tensor, back, sizeof(back)));
    assert_memory_equal(back, values, sizeof(back));
    return tensor;
}

static void refused_as(djinn_t *djinn, djinn_status_t want, const char *path, const char *name,
                       const char *word)
{
    djinn_tensor_t tensor;
    assert_status(want, djinn_load(djinn, path, name, &tensor));
    assert_told(strrchr(path, '/') ? strrchr(path, '/') : path);
    assert_told(word);
    djinn_release(load_good(djinn).storage);
    assert_ok(djinn_synchronize(djinn));
    assert_true(server_becomes(&server, 0, "refs", 0, 2000));
}

static void refused(djinn_t *djinn, const char *path, const char *word)
{
    refused_as(djinn, DJINN_ERR_FILE, path, "a", word);
}

/* ---- files that lie ---- */

static void headers_that_lie_about_their_length(void **state)
{
    const char *path = path_of("length");
    put_file(path, strlen(GOOD) + 1000, GOOD, 40);
    refused(*state, path, "header");
    put_file(path, UINT64_MAX, GOOD, 40);
    refused(*state, path_of("length"), "header");
    put_file(path_of("length"), 3, GOOD, 40);
    refused(*state, path_of("length"), "JSON");
    put_file(path_of("length"), 0, GOOD, 40);
    refused(*state, path_of("length"), "JSON");
    put_file(path_of("length"), 101 << 20, GOOD, 40);
    assert_int_equal(truncate(path_of("length"), 200 << 20), 0);
    refused(*state, path_of("length"), "header");
    assert_int_equal(truncate(path_of("length"), 7), 0);
    refused(*state, path_of("length"), "too short");
    assert_int_equal(truncate(path_of("length"), 0), 0);
    refused(*state, path_of("length"), "too short");
}

static void a_truncated_file(void **state)
{
    put_file(path_of("cut"), strlen(GOOD), GOOD, 23);
    refused(*state, path_of("cut"), "truncated");
    put_file(path_of("cut"), strlen(GOOD), GOOD, 30); /* `a` is whole, `b` is not */
    refused_as(*state, DJINN_ERR_FILE, path_of("cut"), "b", "truncated");
}

static void headers_that_are_no_headers(void **state)
{
    char *deep = malloc(200001);
    refused(*state, file_with("json", "this is no JSON"), "JSON");
    refused(*state, file_with("json", "[1,2,3]"), "JSON");
    refused(*state, file_with("json", "\"a\""), "JSON");
    refused(*state, file_with("json", "{\"a\":"), "JSON");
    refused(*state, file_with("json", "{\"a\":{},\"a\":{}}"), "duplicate");
    memset(deep, '[', 200000);
    deep[200000] = 0;
    refused(*state, file_with("json", deep), "JSON");
    free(deep);
}

static void entries_that_lie(void **state)
{
    static const struct {
        const char *entry, *word;
    } cases[] = {
        {"\"F32\",\"shape\":[2,3],\"data_offsets\":[0,20]", "disagree"},
        {"\"F32\",\"shape\":[2,2],\"data_offsets\":[0,24]", "disagree"},
        {"\"F64\",\"shape\":[2,3],\"data_offsets\":[0,24]", "disagree"},
        {"\"F32\",\"shape\":[2,3],\"data_offsets\":[24,0]", "outside"},
        {"\"F32\",\"shape\":[2,3],\"data_offsets\":[-24,0]", "outside"},
        {"\"F32\",\"shape\":[2,3],\"data_offsets\":[17,41]", "outside"},
        {"\"F32\",\"shape\":[2,3],\"data_offsets\":[9000000000000000000,9000000000000000024]",
         "outside"},
        {"\"F32\",\"shape\":[2,3],\"data_offsets\":[0]", "outside"},
        {"\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24,48]", "outside"},
        {"\"F32\",\"shape\":[2,3],\"data_offsets\":\"0-24\"", "outside"},
        {"\"F32\",\"shape\":[2,3]", "outside"},
        {"\"F32\",\"shape\":[-2,-3],\"data_offsets\":[0,24]", "no size"},
        {"\"F32\",\"shape\":[2.0,3],\"data_offsets\":[0,24]", "no size"},
        {"\"F32\",\"shape\":6,\"data_offsets\":[0,24]", "shape"},
        {"\"F32\",\"shape\":[1,1,1,1,1,1,1,2,3],\"data_offsets\":[0,24]", "dimensions"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char header[256];
        snprintf(header, sizeof(header), "{\"a\":{\"dtype\":%s}}", cases[i].entry);
        refused(*state, file_with("entry", header), cases[i].word);
    }
    refused(*state, file_with("entry", "{\"a\":7}"), "no tensor a");
    refused_as(
        *state, DJINN_ERR_DTYPE,
        file_with("entry", "{\"a\":{\"dtype\":\"F8\",\"shape\":[24],\"data_offsets\":[0,24]}}"),
        "a", "dtype");
    refused_as(*state, DJINN_ERR_LIMIT,
               file_with("entry",
                         "{\"a\":{\"dtype\":\"F32\",\"shape\":[1099511627776,1099511627776],"
                         "\"data_offsets\":[0,24]}}"),
               "a", "tensor a");
}

static void a_tensor_that_is_not_there(void **state)
{
    djinn_tensor_t tensors[3];
    const char *names[] = {"a", "b", "c"};
    refused_as(*state, DJINN_ERR_FILE, file_with("good", GOOD), "nothing", "no tensor nothing");
    refused_as(*state, DJINN_ERR_FILE, file_with("good", GOOD), "", "no tensor");
    assert_status(DJINN_ERR_FILE,
                  djinn_load_many(*state, file_with("good", GOOD), 3, names, tensors));
    assert_told("no tensor c");
    assert_ok(djinn_synchronize(*state));
    assert_true(server_becomes(&server, 0, "refs", 0, 2000)); /* all or nothing */
}

static void overlapping_entries_are_fine(void **state)
{
    djinn_tensor_t tensor;
    float back[4];
    const char *path =
        file_with("overlap", "{\"__metadata__\":{\"format\":\"pt\"},"
                             "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
                             "\"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[8,24]}}");
    assert_ok(djinn_load(*state, path, "b", &tensor));
    assert_ok(djinn_fetch(*state, &tensor, back, sizeof(back)));
    assert_memory_equal(back, values + 2, sizeof(back));
    djinn_release(tensor.storage);
}

/* ---- what is no file ---- */

static void paths_that_are_no_weights(void **state)
{
    char link[128];
    djinn_tensor_t tensor;
    refused(*state, path_of("missing"), "No such file");
    assert_int_equal(mkdir(path_of("folder"), 0700), 0);
    refused(*state, path_of("folder"), "regular");
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    refused(*state, path_of("fifo"), "regular");
    refused(*state, "/dev/zero", "roots");
    refused(*state, "/etc/passwd", "--model-roots");
    snprintf(link, sizeof(link), "%s/good", outside);
    put_file(link, strlen(GOOD), GOOD, 40);
    refused(*state, link, "--model-roots");
    assert_int_equal(symlink(link, path_of("way-out")), 0);
    assert_status(DJINN_ERR_FILE, djinn_load(*state, path_of("way-out"), "a", &tensor));
    assert_told("--model-roots");
    snprintf(link, sizeof(link), "%s/../%s/good", root, strrchr(outside, '/') + 1);
    refused(*state, link, "--model-roots");
    snprintf(link, sizeof(link), "%s-more", root); /* the root is a prefix of its name alone */
    assert_int_equal(mkdir(link, 0700), 0);
    strcat(link, "/good");
    put_file(link, strlen(GOOD), GOOD, 40);
    refused(*state, link, "--model-roots");
    assert_status(DJINN_ERR_FILE, djinn_load(*state, "good", "a", &tensor));
    assert_told("absolute");
    unlink(link);
    *strrchr(link, '/') = 0;
    rmdir(link);
}

static void a_link_inside_the_root(void **state)
{
    djinn_tensor_t tensor;
    char target[128];
    snprintf(target, sizeof(target), "%s", file_with("good", GOOD));
    assert_int_equal(symlink(target, path_of("link")), 0);
    assert_ok(djinn_load(*state, path_of("link"), "a", &tensor));
    djinn_release(tensor.storage);
}

/* ---- sharing ---- */

static void two_clients_share_one_copy(void **state)
{
    djinn_t *second = connect_now();
    djinn_tensor_t mine = load_good(*state);
    uint64_t text = server_number(&server, 0, "text_bytes");
    uint64_t shared = server_number(&server, 0, "text_shared");
    djinn_tensor_t theirs = load_good(second);
    assert_int_equal(server_number(&server, 0, "text_bytes"), text);
    assert_int_equal(server_number(&server, 0, "text_shared"), shared + 1);
    /* the same content by upload is the same weight */
    djinn_tensor_t third;
    int64_t sizes[] = {2, 3};
    assert_ok(djinn_upload(second, DJINN_FLOAT32, 2, sizes, values, DJINN_UPLOAD_WEIGHT, &third));
    assert_ok(djinn_synchronize(second)); /* small ones wait for the next request */
    assert_int_equal(server_number(&server, 0, "text_bytes"), text);
    assert_int_equal(server_number(&server, 0, "text_shared"), shared + 2);
    assert_true(server_becomes(&server, 0, "data_bytes", 0, 2000)); /* weights are no Data */
    djinn_release(mine.storage);
    djinn_release(theirs.storage);
    djinn_release(third.storage);
    djinn_close(second);
}

static void a_written_weight_is_private(void **state)
{
    djinn_t *second = connect_now();
    djinn_tensor_t mine = load_good(*state), theirs = load_good(second);
    float back[6];
    uint64_t text = server_number(&server, 0, "text_bytes");
    djinn_tensor_t before = record_add(*state, mine, mine); /* reads it as a weight first */
    record_add_into(*state, mine, 100);
    assert_ok(djinn_fetch(*state, &mine, back, sizeof(back)));
    for (int i = 0; i < 6; i++)
        assert_true(back[i] == values[i] + 100);
    assert_ok(djinn_fetch(*state, &before, back, sizeof(back)));
    for (int i = 0; i < 6; i++)
        assert_true(back[i] == 2 * values[i]);
    assert_ok(djinn_fetch(second, &theirs, back, sizeof(back)));
    assert_memory_equal(back, values, sizeof(back));
    assert_int_equal(server_number(&server, 0, "text_bytes"), text);
    assert_true(server_becomes(&server, 0, "data_bytes", 48, 2000)); /* mine and before */
    record_add_into(*state, mine, 1);                                /* and once more */
    assert_ok(djinn_fetch(*state, &mine, back, sizeof(back)));
    assert_true(back[5] == values[5] + 101);
    djinn_release(before.storage);
    djinn_release(mine.storage);
    djinn_release(theirs.storage);
    djinn_close(second);
}

static void weights_go_with_their_last_user(void **state)
{
    djinn_tensor_t tensor = load_good(*state);
    assert_true(server_number(&server, 0, "text_entries") > 0);
    djinn_release(tensor.storage);
    for (int i = 0; i < 4; i++) /* each end of a session ages what nobody uses */
        djinn_close(connect_now());
    assert_ok(djinn_synchronize(*state));
    for (int i = 0; i < 4; i++)
        djinn_close(connect_now());
    assert_true(server_becomes(&server, 0, "text_bytes", 0, 2000));
    assert_true(server_becomes(&server, 0, "text_entries", 0, 2000));
}

/* ---- the run ---- */

static int start(void **state)
{
    static const char *words[] = {"--threads", "1", "--model-roots", root, NULL};
    snprintf(root, sizeof(root), "/tmp/djinn-weights-XXXXXX");
    snprintf(outside, sizeof(outside), "/tmp/djinn-outside-XXXXXX");
    if (!mkdtemp(root) || !mkdtemp(outside))
        return -1;
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    static const char *const names[] = {"good",    "length", "cut",  "json",    "entry",
                                        "overlap", "folder", "fifo", "way-out", "link"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        remove(path_of(names[i]));
    rmdir(root);
    snprintf(root, sizeof(root), "%s", outside);
    remove(path_of("good"));
    rmdir(outside);
    return server_stop(&server) ? 0 : -1;
}

static int open_client(void **state)
{
    *state = connect_now();
    return 0;
}

static int close_client(void **state)
{
    djinn_close(*state);
    return server_is_empty(&server, 0) ? 0 : -1;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_client, close_client)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(headers_that_lie_about_their_length), CASE(a_truncated_file),
        CASE(headers_that_are_no_headers),         CASE(entries_that_lie),
        CASE(a_tensor_that_is_not_there),          CASE(overlapping_entries_are_fine),
        CASE(paths_that_are_no_weights),           CASE(a_link_inside_the_root),
        CASE(two_clients_share_one_copy),          CASE(a_written_weight_is_private),
        CASE(weights_go_with_their_last_user),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
