/* test_connection.c - the public face used wrongly: options, calls, tensors, orders of calls that
 * cannot be.
 *
 * Each mistake is a status and a sentence; none costs the connection, and a closed one leaves
 * handles that are inert but must still be released. */
#include <stdlib.h>
#include <string.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

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

static djinn_t *connect_now(void)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    assert_ok(djinn_connect(&options, &djinn));
    return djinn;
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

static void still_works(djinn_t *djinn)
{
    float values[3] = {1, 2, 3}, back[3];
    djinn_tensor_t t = upload_vector(djinn, values, 3), sum = record_add(djinn, t, t);
    assert_ok(djinn_fetch(djinn, &sum, back, sizeof(back)));
    assert_true(back[2] == 6);
    djinn_release(t.storage);
    djinn_release(sum.storage);
    assert_ok(djinn_alive(djinn));
}

/* ---- options ---- */

static void options_that_cannot_be(void **state)
{
    djinn_t *none = (djinn_t *)&server;
    djinn_options_t options = server_options(&server);
    options.abi_version = DJINN_ABI_VERSION + 1;
    assert_status(DJINN_ERR_VERSION, djinn_connect(&options, &none));
    assert_told("ABI");
    options = server_options(&server), options.mode = "zero_copy";
    assert_status(DJINN_ERR_UNSUPPORTED, djinn_connect(&options, &none));
    assert_told("RDMA");
    options.mode = "sideways";
    assert_status(DJINN_ERR_INVALID, djinn_connect(&options, &none));
    assert_told("sideways");
    options = server_options(&server), options.address = "nowhere";
    assert_true(djinn_connect(&options, &none) < 0);
    assert_told("nowhere");
    options.address = "";
    assert_status(DJINN_ERR_CONNECT, djinn_connect(&options, &none));
    assert_told("DJINN_ADDRESS");
    options = server_options(&server), options.token = "zz";
    assert_status(DJINN_ERR_INVALID, djinn_connect(&options, &none));
    assert_ptr_equal(none, &server); /* outputs are set on success alone */
    assert_int_equal(djinn_abi_version(), DJINN_ABI_VERSION);
}

/* ---- recording ---- */

static void ops_that_are_none(void **state)
{
    djinn_tensor_t out;
    djinn_arg_t arg = {.kind = DJINN_ARG_NONE};
    assert_int_equal(djinn_op("aten::no_such_op"), -1);
    assert_null(djinn_op_signature(-1));
    assert_null(djinn_op_signature(100000));
    assert_status(DJINN_ERR_UNSUPPORTED, djinn_record(*state, -1, &arg, 1, &out));
    assert_status(DJINN_ERR_UNSUPPORTED, djinn_record(*state, 100000, &arg, 1, &out));
    assert_status(DJINN_ERR_INVALID,
                  djinn_record(*state, djinn_op("aten::add.Tensor"), &arg, 1, &out));
    assert_told("takes 3");
    still_works(*state);
}

static void shapes_and_dtypes_that_do_not_fit(void **state)
{
    float values[12] = {0};
    int64_t matrix[] = {3, 4}, one = 5;
    djinn_tensor_t m, v, out;
    assert_ok(djinn_upload(*state, DJINN_FLOAT32, 2, matrix, values, 0, &m));
    assert_ok(djinn_upload(*state, DJINN_FLOAT32, 1, &one, values, 0, &v));
    djinn_arg_t add[] = {arg_tensor(&m), arg_tensor(&v), arg_int(1)};
    assert_status(DJINN_ERR_SHAPE,
                  djinn_record(*state, djinn_op("aten::add.Tensor"), add, 3, &out));
    assert_told("add");
    djinn_arg_t mm[] = {arg_tensor(&m), arg_tensor(&m)};
    assert_status(DJINN_ERR_SHAPE, djinn_record(*state, djinn_op("aten::mm"), mm, 2, &out));
    djinn_arg_t bits[] = {arg_tensor(&m), arg_tensor(&m)};
    assert_status(DJINN_ERR_DTYPE,
                  djinn_record(*state, djinn_op("aten::bitwise_and.Tensor"), bits, 2, &out));
    djinn_arg_t into[] = {arg_tensor(&m), arg_tensor(&m), arg_int(1)};
    assert_status(DJINN_ERR_SHAPE,
                  djinn_record_into(*state, djinn_op("aten::add.Tensor"), into, 3, &v));
    djinn_tensor_t wild = m;
    wild.offset = 1;
    djinn_arg_t beyond[] = {arg_tensor(&wild), arg_tensor(&wild), arg_int(1)};
    assert_status(DJINN_ERR_SHAPE,
                  djinn_record(*state, djinn_op("aten::add.Tensor"), beyond, 3, &out));
    wild = m, wild.rank = 9;
    assert_true(djinn_record(*state, djinn_op("aten::add.Tensor"), beyond, 3, &out) < 0);
    wild = m, wild.strides[0] = -4;
    assert_true(djinn_record(*state, djinn_op("aten::add.Tensor"), beyond, 3, &out) < 0);
    wild = m, wild.dtype = 77;
    assert_true(djinn_record(*state, djinn_op("aten::add.Tensor"), beyond, 3, &out) < 0);
    still_works(*state);
    djinn_release(m.storage);
    djinn_release(v.storage);
}

static void uploads_that_cannot_be(void **state)
{
    float value = 0;
    int64_t sizes[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    djinn_tensor_t t;
    assert_status(DJINN_ERR_LIMIT, djinn_upload(*state, DJINN_FLOAT32, 9, sizes, &value, 0, &t));
    assert_status(DJINN_ERR_LIMIT, djinn_upload(*state, DJINN_FLOAT32, -1, sizes, &value, 0, &t));
    assert_true(djinn_upload(*state, (djinn_dtype_t)55, 1, sizes, &value, 0, &t) < 0);
    sizes[0] = -1;
    assert_true(djinn_upload(*state, DJINN_FLOAT32, 1, sizes, &value, 0, &t) < 0);
    sizes[0] = INT64_MAX;
    assert_true(djinn_upload(*state, DJINN_FLOAT32, 1, sizes, &value, 0, &t) < 0);
    still_works(*state);
}

static void tensors_of_another_connection(void **state)
{
    float values[3] = {1, 2, 3};
    djinn_t *other = connect_now();
    djinn_tensor_t mine = upload_vector(*state, values, 3),
                   theirs = upload_vector(other, values, 3);
    djinn_tensor_t out;
    djinn_arg_t args[] = {arg_tensor(&mine), arg_tensor(&theirs), arg_int(1)};
    assert_status(DJINN_ERR_INVALID,
                  djinn_record(*state, djinn_op("aten::add.Tensor"), args, 3, &out));
    assert_told("another connection");
    assert_status(DJINN_ERR_INVALID, djinn_fetch(*state, &theirs, values, sizeof(values)));
    assert_ptr_equal(djinn_storage_owner(theirs.storage), other);
    djinn_release(mine.storage);
    djinn_release(theirs.storage);
    djinn_close(other);
    still_works(*state);
}

/* ---- failures on the rank ---- */

static djinn_tensor_t record_bad_index(djinn_t *djinn, djinn_tensor_t *table, djinn_tensor_t *index)
{
    float values[8] = {0};
    int64_t sizes[] = {4, 2}, one = 1, far = 1000;
    djinn_tensor_t out;
    assert_ok(djinn_upload(djinn, DJINN_FLOAT32, 2, sizes, values, 0, table));
    assert_ok(djinn_upload(djinn, DJINN_INT64, 1, &one, &far, 0, index));
    djinn_arg_t args[] = {
        arg_tensor(table), {.kind = DJINN_ARG_INT, .value.integer = 0}, arg_tensor(index)};
    assert_ok(djinn_record(djinn, djinn_op("aten::index_select"), args, 3, &out));
    return out;
}

static void an_index_out_of_range_is_found_where_the_data_is(void **state)
{
    djinn_tensor_t table, index, out = record_bad_index(*state, &table, &index);
    float back[8];
    assert_true(djinn_fetch(*state, &out, back, 8) < 0);
    assert_told("index");
    assert_status(DJINN_ERR_STALE, djinn_fetch(*state, &out, back, 8)); /* it was never made */
    assert_ok(djinn_fetch(*state, &table, back, sizeof(back)));         /* its inputs were */
    djinn_release(table.storage);
    djinn_release(index.storage);
    djinn_release(out.storage);
    still_works(*state);
}

static void what_failed_unseen_is_told_at_the_next_call(void **state)
{
    djinn_tensor_t table, index, out = record_bad_index(*state, &table, &index);
    float values[3] = {1, 2, 3};
    assert_ok(djinn_flush(*state));
    djinn_tensor_t t = upload_vector(*state, values, 3);
    djinn_status_t status = djinn_fetch(*state, &t, values, sizeof(values));
    if (status == DJINN_OK) /* the answer came with this one's */
        status = djinn_alive(*state);
    assert_true(status < 0);
    assert_told("earlier");
    djinn_release(t.storage);
    djinn_release(table.storage);
    djinn_release(index.storage);
    djinn_release(out.storage);
    still_works(*state);
}

/* ---- the end ---- */

static void handles_outlive_their_connection(void **state)
{
    float values[3] = {1, 2, 3}, back[3];
    djinn_t *djinn = connect_now();
    djinn_tensor_t t = upload_vector(djinn, values, 3), sum = record_add(djinn, t, t), out;
    djinn_fetch_t fetch = {sum, back, sizeof(back)};
    djinn_request_t *request;
    assert_ok(djinn_submit(djinn, &fetch, 1, &request));
    assert_ok(djinn_wait(request));
    djinn_close(djinn);
    assert_ok(djinn_wait(request)); /* what is known stays known */
    djinn_arg_t args[] = {arg_tensor(&t), arg_tensor(&t), arg_int(1)};
    assert_true(djinn_record(djinn, djinn_op("aten::add.Tensor"), args, 3, &out) < 0);
    assert_told("closed");
    assert_true(djinn_fetch(djinn, &sum, back, sizeof(back)) < 0);
    assert_true(djinn_alive(djinn) < 0);
    djinn_request_free(request);
    djinn_release(t.storage);
    djinn_release(sum.storage);
}

static void a_close_with_requests_under_way(void **state)
{
    enum { COUNT = 50 };
    float values[64] = {0}, *back = calloc(COUNT, sizeof(values));
    djinn_t *djinn = connect_now();
    djinn_request_t *requests[COUNT];
    djinn_tensor_t t = upload_vector(djinn, values, 64);
    for (int i = 0; i < COUNT; i++) {
        djinn_fetch_t fetch = {t, back + i * 64, sizeof(values)};
        record_add_into(djinn, t, 1);
        assert_ok(djinn_submit(djinn, &fetch, 1, &requests[i]));
    }
    record_add_into(djinn, t, 1); /* and this is never sent */
    djinn_close(djinn);
    for (int i = 0; i < COUNT; i++) {
        djinn_status_t status = djinn_wait(requests[i]);
        assert_true(status == DJINN_OK || status == DJINN_ERR_CANCELLED);
        djinn_request_free(requests[i]);
    }
    djinn_release(t.storage);
    djinn_release(NULL);
    djinn_close(NULL);
    free(back);
}

static void two_connections_of_one_thread_take_turns(void **state)
{
    djinn_t *other = connect_now();
    for (int i = 0; i < 20; i++) {
        still_works(*state);
        still_works(other);
    }
    djinn_close(other);
    for (int i = 0; i < 20; i++) { /* a new one may live where an old one lived */
        other = connect_now();
        still_works(other);
        djinn_close(other);
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_client, close_client)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(options_that_cannot_be),
        CASE(ops_that_are_none),
        CASE(shapes_and_dtypes_that_do_not_fit),
        CASE(uploads_that_cannot_be),
        CASE(tensors_of_another_connection),
        CASE(an_index_out_of_range_is_found_where_the_data_is),
        CASE(what_failed_unseen_is_told_at_the_next_call),
        CASE(handles_outlive_their_connection),
        CASE(a_close_with_requests_under_way),
        CASE(two_connections_of_one_thread_take_turns),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
