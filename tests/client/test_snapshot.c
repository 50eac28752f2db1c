/* test_snapshot.c - snapshots of a recording (djinn.h): what cannot be written first; then that one
 * taken now is what leaves later, that taking it changes nothing, and that what leaves between
 * begin and end is collected. The rank is an executor that does nothing. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "planner/snapshot.h"
#include "tests/client/ops.h"

static char folder[] = "/tmp/djinn-snapshots-XXXXXX";
static char first[64], second[64];

static djinn_status_t nobody(void *context, const djinn_local_message_t *message)
{
    memset(message->reply, 0, message->reply_bytes);
    return DJINN_OK;
}

static djinn_t *open_client(void)
{
    djinn_t *djinn;
    assert_ok(djinn_connect_local(nobody, NULL, &djinn));
    return djinn;
}

static dj_snapshot_t *read_back(const char *path)
{
    dj_snapshot_t *snapshot = NULL;
    if (dj_snapshot_read(path, &snapshot) != DJ_OK)
        fail_msg("%s", dj_error_text());
    return snapshot;
}

static void assert_same_program(const dj_snapshot_t *a, const dj_snapshot_t *b, uint32_t i)
{
    const dj_snapshot_program_t *x = &a->programs[i], *y = &b->programs[i];
    assert_int_equal(x->structure_size, y->structure_size);
    assert_memory_equal(x->structure, y->structure, x->structure_size);
    assert_int_equal(x->sizes_size, y->sizes_size);
    assert_memory_equal(x->sizes, y->sizes, x->sizes_size);
    assert_int_equal(x->n_scalars, y->n_scalars);
    assert_memory_equal(x->scalars, y->scalars, x->n_scalars * 8);
}

static void what_cannot_be_is_refused(void **state)
{
    static const djinn_snapshot_about_t no_phase = {"name", 256};
    static const djinn_snapshot_about_t no_name = {"two\nlines", 0};
    char text[300];
    djinn_t *djinn = open_client();
    djinn_tensor_t a = upload_vector(djinn, (float[]){1, 2}, 2);
    assert_status(DJINN_ERR_FILE, djinn_snapshot(djinn, "/nowhere/a.djs"));
    assert_told("/nowhere/a.djs");
    assert_status(DJINN_ERR_INVALID, djinn_snapshot_now(djinn, first, &no_phase));
    assert_status(DJINN_ERR_INVALID, djinn_snapshot_now(djinn, first, &no_name));
    assert_int_equal(access(first, F_OK), -1);
    assert_status(DJINN_ERR_INVALID, djinn_snapshot_end(djinn, first, NULL));
    assert_ok(djinn_snapshot_begin(djinn));
    assert_status(DJINN_ERR_BUSY, djinn_snapshot_begin(djinn));
    assert_ok(djinn_snapshot_end(djinn, NULL, NULL));
    assert_ok(djinn_snapshot_begin(djinn));
    assert_status(DJINN_ERR_FILE, djinn_snapshot_end(djinn, "/nowhere/a.djs", NULL));
    assert_status(DJINN_ERR_INVALID, djinn_storage_set_name(a.storage, "\x1b[2J"));
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_status(DJINN_ERR_LIMIT, djinn_storage_set_name(a.storage, text));
    assert_ok(djinn_storage_set_name(a.storage, text + 44)); /* 255 bytes */
    assert_ok(djinn_snapshot_begin(djinn)); /* never ended: goes with the connection */
    djinn_release(a.storage);
    djinn_close(djinn);
}

static void nothing_recorded_is_no_program(void **state)
{
    djinn_t *djinn = open_client();
    assert_ok(djinn_snapshot(djinn, first));
    dj_snapshot_t *snapshot = read_back(first);
    assert_int_equal(snapshot->n_programs, 0);
    assert_string_equal(snapshot->name, "first.djs");
    dj_snapshot_destroy(snapshot);
    djinn_close(djinn);
}

/* Two segments, one closed: taken now, then sent while a second one collects. */
static void a_snapshot_is_what_leaves(void **state)
{
    static const djinn_snapshot_about_t about = {"two sums", 2};
    djinn_stats_t before, after;
    djinn_t *djinn = open_client();
    djinn_tensor_t a = upload_vector(djinn, (float[]){1, 2, 3}, 3);
    assert_ok(djinn_storage_set_name(a.storage, "a"));
    djinn_tensor_t b = record_add(djinn, a, a);
    assert_ok(djinn_boundary(djinn));
    djinn_tensor_t dropped = record_add(djinn, b, a), c = record_add(djinn, dropped, b);
    djinn_release(dropped.storage);
    djinn_stats(djinn, &before);
    assert_ok(djinn_snapshot_now(djinn, first, &about));
    djinn_stats(djinn, &after);
    assert_memory_equal(&before, &after, sizeof(before)); /* nothing was sent or closed */
    assert_ok(djinn_snapshot_begin(djinn));
    assert_ok(djinn_synchronize(djinn));
    assert_ok(djinn_snapshot_end(djinn, second, NULL));
    dj_snapshot_t *now = read_back(first), *left = read_back(second);
    assert_int_equal(now->n_programs, 2);
    assert_int_equal(left->n_programs, 2);
    assert_string_equal(now->name, "two sums");
    assert_int_equal(now->phase, 2);
    assert_string_equal(left->name, "second.djs");
    for (uint32_t i = 0; i < 2; i++) {
        dj_graph_t *graph;
        assert_same_program(now, left, i);
        assert_int_equal(dj_snapshot_graph(now, i, &graph), DJ_OK);
        assert_int_equal(graph->n_bindings - graph->n_inputs, 1); /* what is still held */
        dj_graph_destroy(graph);
    }
    assert_string_equal(dj_snapshot_name(&now->programs[0], 0), "a");
    assert_string_equal(dj_snapshot_name(&left->programs[1], 1), "a");
    assert_null(dj_snapshot_name(&left->programs[1], 0));
    dj_snapshot_destroy(now);
    dj_snapshot_destroy(left);
    djinn_release(a.storage);
    djinn_release(b.storage);
    djinn_release(c.storage);
    djinn_close(djinn);
}

static void what_left_before_and_after_is_not_collected(void **state)
{
    float sum[2];
    djinn_t *djinn = open_client();
    djinn_tensor_t a = upload_vector(djinn, (float[]){1, 2}, 2), out[3];
    for (int i = 0; i < 3; i++) {
        if (i == 1)
            assert_ok(djinn_snapshot_begin(djinn));
        out[i] = record_add(djinn, i ? out[i - 1] : a, a);
        assert_ok(djinn_fetch(djinn, &out[i], sum, sizeof(sum)));
        if (i == 1)
            assert_ok(djinn_snapshot_end(djinn, first, NULL));
    }
    dj_snapshot_t *snapshot = read_back(first);
    assert_int_equal(snapshot->n_programs, 1);
    dj_snapshot_destroy(snapshot);
    for (int i = 0; i < 3; i++)
        djinn_release(out[i].storage);
    djinn_release(a.storage);
    djinn_close(djinn);
}

static int make_folder(void **state)
{
    if (!mkdtemp(folder) || !dj_hash_setup())
        return -1;
    snprintf(first, sizeof(first), "%s/first.djs", folder);
    snprintf(second, sizeof(second), "%s/second.djs", folder);
    return 0;
}

static int remove_folder(void **state)
{
    unlink(first);
    unlink(second);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(nothing_recorded_is_no_program),
        cmocka_unit_test(a_snapshot_is_what_leaves),
        cmocka_unit_test(what_left_before_and_after_is_not_collected),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
