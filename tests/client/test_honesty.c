/* test_honesty.c - what a client gets was made by the rank: every value, even one it had itself, and memory
 * that it gives up is given back while its session lives on. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

enum { N = 256 };

static server_t server;

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static djinn_t *open_client(void)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    options.mode = getenv("TEST_MODE");
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
}

static void an_upload_comes_back_from_the_rank(void **state)
{
    float sent[N], received[N];
    djinn_stats_t before, after;
    djinn_t *djinn = open_client();
    for (int i = 0; i < N; i++)
        sent[i] = (float)i - 3;
    djinn_tensor_t tensor = upload_vector(djinn, sent, N);
    djinn_stats(djinn, &before);
    assert_ok(djinn_fetch(djinn, &tensor, received, sizeof(received)));
    djinn_stats(djinn, &after);
    assert_memory_equal(sent, received, sizeof(sent));
    assert_int_equal(after.messages_out, before.messages_out + 1);
    assert_true(after.bytes_up >= before.bytes_up + sizeof(sent));
    assert_int_equal(after.bytes_down, before.bytes_down + sizeof(sent));
    djinn_release(tensor.storage);
    djinn_close(djinn);
}

/* The sum is not known to the client before the answer: it was never told the addends. */
static void a_sum_of_kept_tensors_needs_no_bytes_up(void **state)
{
    float values[N], sum[N];
    djinn_stats_t before, after;
    djinn_t *djinn = open_client();
    for (int i = 0; i < N; i++)
        values[i] = (float)i;
    djinn_tensor_t a = upload_vector(djinn, values, N);
    djinn_tensor_t b = record_add(djinn, a, a);
    assert_ok(djinn_synchronize(djinn));
    djinn_stats(djinn, &before);
    djinn_tensor_t c = record_add(djinn, b, b);
    assert_ok(djinn_fetch(djinn, &c, sum, sizeof(sum)));
    djinn_stats(djinn, &after);
    for (int i = 0; i < N; i++)
        assert_true(sum[i] == 4.0f * (float)i);
    assert_true(after.bytes_up - before.bytes_up < sizeof(values));
    djinn_release(a.storage);
    djinn_release(b.storage);
    djinn_release(c.storage);
    djinn_close(djinn);
}

static json_int_t refs_held(void)
{
    djinn_options_t options = server_options(&server);
    char *text;
    assert_ok(djinn_info(&options, &text));
    json_t *root = json_loads(text, 0, NULL);
    json_t *rank = json_array_get(json_object_get(root, "ranks"), 0);
    json_int_t refs = json_integer_value(json_object_get(rank, "refs"));
    json_decref(root);
    free(text);
    return refs;
}

/* Counters follow within a tenth of a second (a thousand questions take longer); what is leaked stays for ever. */
static void released_tensors_are_gone_while_the_session_lives(void **state)
{
    enum { MANY = 50 };
    float values[N] = {1};
    djinn_tensor_t tensors[MANY];
    djinn_t *djinn = open_client();
    djinn_tensor_t kept = upload_vector(djinn, values, N);
    for (int i = 0; i < MANY; i++)
        tensors[i] = record_add(djinn, kept, kept);
    assert_ok(djinn_synchronize(djinn));
    for (int i = 0; i < MANY; i++)
        djinn_release(tensors[i].storage);
    assert_ok(djinn_synchronize(djinn));
    json_int_t refs = 0;
    for (int tries = 0; tries < 1000; tries++)
        if ((refs = refs_held()) == 1)
            break;
    assert_int_equal(refs, 1);
    djinn_release(kept.storage);
    djinn_close(djinn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_upload_comes_back_from_the_rank),
        cmocka_unit_test(a_sum_of_kept_tensors_needs_no_bytes_up),
        cmocka_unit_test(released_tensors_are_gone_while_the_session_lives),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
