/* Plugins: what is refused and why, then the example of examples/plugin at work. */
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu/device.h"
#include "planner/plugin.h"
#include "tests/planner/builder.h"

static double never(const dj_features_t *features)
{
    return 0;
}

static dj_status_t nothing(dj_rewriter_t *rewriter)
{
    return DJ_OK;
}

static void refuses_descriptions(void **state)
{
    char control[] = "na\nme", endless[80];
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    const dj_detector_t good_row = {"a row", DJ_PHASE_VISION, 1, never};
    const dj_detector_t bad_rows[] = {
        {NULL, DJ_PHASE_VISION, 1, never}, {"", DJ_PHASE_VISION, 1, never},
        {"x", DJ_PHASE_VISION, 1, NULL},   {"x", DJ_PHASE_UNKNOWN, 1, never},
        {"x", DJ_PHASE_COUNT, 1, never},   {"x", DJ_PHASE_VISION, 0, never},
        {"x", DJ_PHASE_VISION, -1, never}, {"x", DJ_PHASE_VISION, HUGE_VALF, never}};
    const dj_rewrite_fn_t rewrite = nothing, none = NULL;
    const dj_plugin_t good = {.abi = DJ_PLUGIN_ABI,
                              .features_bytes = sizeof(dj_features_t),
                              .layout = DJ_PLUGIN_LAYOUT,
                              .name = "good",
                              .version = "1",
                              .n_detectors = 1,
                              .detectors = &good_row,
                              .n_rewrites = 1,
                              .rewrites = &rewrite};
    assert_ok(dj_plugin_check(&good));
#define REFUSED(status, change)                                                                    \
    do {                                                                                           \
        dj_plugin_t plugin = good;                                                                 \
        plugin.change;                                                                             \
        assert_int_equal(dj_plugin_check(&plugin), status);                                        \
        assert_true(dj_error_text()[0] != '\0');                                                   \
    } while (0)
    REFUSED(DJ_ERR_VERSION, abi = 2);
    REFUSED(DJ_ERR_VERSION, features_bytes = sizeof(dj_features_t) + 8);
    REFUSED(DJ_ERR_VERSION, features_bytes = 0);
    REFUSED(DJ_ERR_VERSION, layout = 7);
    REFUSED(DJ_ERR_INVALID, name = NULL);
    REFUSED(DJ_ERR_INVALID, name = "");
    REFUSED(DJ_ERR_INVALID, name = control);
    REFUSED(DJ_ERR_INVALID, version = endless);
    REFUSED(DJ_ERR_INVALID, detectors = NULL);
    REFUSED(DJ_ERR_INVALID, rewrites = NULL);
    REFUSED(DJ_ERR_INVALID, rewrites = &none);
    REFUSED(DJ_ERR_LIMIT, n_detectors = DJ_PLUGIN_DETECTORS_MAX + 1);
    REFUSED(DJ_ERR_LIMIT, n_rewrites = DJ_PLUGIN_REWRITES_MAX + 1);
    for (uint32_t i = 0; i < sizeof bad_rows / sizeof bad_rows[0]; i++)
        REFUSED(DJ_ERR_INVALID, detectors = &bad_rows[i]);
    dj_plugin_t older = good; /* one that only detects may know fewer features */
    older.n_rewrites = 0, older.layout = 0, older.features_bytes = 64;
    assert_ok(dj_plugin_check(&older));
}

static void copy_example(const char *path, mode_t mode)
{
    char buffer[4096];
    size_t n;
    FILE *from = fopen(PLUGIN_EXAMPLE, "rb"), *to = fopen(path, "wb");
    assert_non_null(from);
    assert_non_null(to);
    while ((n = fread(buffer, 1, sizeof buffer, from)) > 0)
        assert_int_equal(fwrite(buffer, 1, n, to), n);
    fclose(from);
    assert_int_equal(fclose(to), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void refused(const char *paths, dj_status_t status, const char *why)
{
    assert_int_equal(dj_plugins_load(paths), status);
    if (strstr(dj_error_text(), why) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", dj_error_text(), why);
    assert_int_equal(dj_plugins_count(), 0);
    assert_null(dj_plugins_at(0));
}

static void refuses_files(void **state)
{
    char folder[] = "/tmp/djinn-plugin-XXXXXX", path[128], list[512];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/p.so", folder);
    assert_ok(dj_plugins_load(""));
    assert_ok(dj_plugins_load("::"));
    refused("p.so", DJ_ERR_FILE, "absolute");
    refused("/nowhere/p.so", DJ_ERR_FILE, "No such file");
    refused(folder, DJ_ERR_FILE, "regular");
    copy_example(path, 0662);
    refused(path, DJ_ERR_FILE, "chmod go-w");
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 100), 0);
    refused(path, DJ_ERR_FILE, path);
    if (geteuid() == 0) {
        copy_example(path, 0600);
        assert_int_equal(chown(path, 4711, (gid_t)-1), 0);
        refused(path, DJ_ERR_FILE, "belongs to user 4711");
        assert_int_equal(chown(path, 0, (gid_t)-1), 0);
    }
    /* A good one before a bad one is not kept; one that is called like another is bad. */
    snprintf(list, sizeof list, "%s:/nowhere.so", PLUGIN_EXAMPLE);
    refused(list, DJ_ERR_FILE, "/nowhere.so");
    copy_example(path, 0600);
    snprintf(list, sizeof list, "%s:%s", PLUGIN_EXAMPLE, path);
    refused(list, DJ_ERR_INVALID, "rankers");
    refused(PLUGIN_NONE, DJ_ERR_FILE, "exports no djinn_plugin()");
    unlink(path);
    rmdir(folder);
}

static dj_hash_t device_class(void)
{
    dj_config_t config = {.device = "host", .threads = 1, .cores = ""};
    dj_device_t *device;
    assert_ok(dj_device_open(&config, &device));
    dj_hash_t class = device->ops->info(device)->class_hash;
    dj_device_close(device);
    return class;
}

/* relu(relu(x W)) and a second layer with one column. */
static dj_graph_t *ranker(void)
{
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_program_reset(&program);
    dj_operand_t x = input_of(&program, DJ_CLASS_STATE, shape(DJ_F32, 2, 32, 16));
    dj_operand_t w = input_of(&program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 16, 8));
    dj_operand_t v = input_of(&program, DJ_CLASS_WEIGHT, shape(DJ_F32, 2, 8, 1));
    dj_operand_t y = add_unary(&program, "relu", add_binary(&program, "mm", x, w));
    dj_operand_t z = add_binary(&program, "mm", add_unary(&program, "relu", y), v);
    finish(&program, &z.storage, 1);
    assert_ok(decode(&program, &graph));
    dj_program_fini(&program);
    return graph;
}

static uint8_t phase_of(const dj_graph_t *graph)
{
    dj_features_t features = {0};
    dj_verdict_t verdict;
    assert_ok(dj_features_of(graph, &features, NULL));
    dj_detect(&features, DJ_PHASE_UNKNOWN, &verdict);
    return verdict.phase;
}

static void the_example_serves(void **state)
{
    dj_hash_t before = device_class();
    dj_graph_t *graph = ranker();
    dj_rewrite_report_t report;
    uint32_t count;
    assert_int_equal(phase_of(graph), DJ_PHASE_UNKNOWN);
    assert_ok(dj_plugins_load(PLUGIN_EXAMPLE));
    assert_int_equal(dj_plugins_count(), 1);
    assert_string_equal(dj_plugins_at(0)->name, "rankers");
    assert_int_equal(phase_of(graph), DJ_PHASE_RECOMMENDATION);
    const dj_rewrite_fn_t *extra = dj_plugins_rewrites(&count);
    assert_int_equal(count, 1);
    assert_int_equal(graph->n_nodes, 4);
    assert_ok(dj_graph_rewrite(graph, extra, count, &report));
    assert_int_equal(report.plugin, 1);
    assert_int_equal(graph->n_nodes, 3);
    dj_graph_destroy(graph);
    /* Ranks without it, or with another, are of another class and exchange no plans. */
    assert_false(dj_hash_equal(before, device_class()));
    assert_int_equal(dj_plugins_load(PLUGIN_EXAMPLE), DJ_ERR_BUSY);
    assert_int_equal(dj_plugins_count(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_descriptions),
        cmocka_unit_test(refuses_files),
        cmocka_unit_test(the_example_serves),
    };
    dj_hash_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
