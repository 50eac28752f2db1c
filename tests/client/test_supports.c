/* test_supports.c - what a rank cannot run is known to its client and not recorded: by the WELCOME,
 * directly and through the relay. */
#include <stdlib.h>
#include <string.h>

#include "gpu/device.h"
#include "planner/ops.h"
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

static void bad_handles_are_not_supported(void **state)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    djinn_tensor_t out;
    assert_ok(djinn_connect(&options, &djinn));
    assert_int_equal(djinn_supports(djinn, -1), 0);
    assert_int_equal(djinn_supports(djinn, DJ_OP_COUNT), 0);
    assert_int_equal(djinn_supports(djinn, 1 << 30), 0);
    assert_status(DJINN_ERR_UNSUPPORTED, djinn_record(djinn, DJ_OP_COUNT, NULL, 0, &out));
    assert_told("not in the table");
    djinn_close(djinn);
}

/* As the rank's device has it, row by row; a row without a kernel is refused by name, one with a
 * kernel is only missing its arguments here. */
static void clients_know_what_the_device_has(void **state)
{
    dj_config_t config;
    dj_device_t *device;
    static const uint32_t flags[] = {0, DJINN_CONNECT_RELAY};
    assert_int_equal(dj_config_load(&config, 0, NULL, NULL), DJ_OK);
    assert_int_equal(dj_device_open(&config, &device), DJ_OK);
    for (int i = 0; i < 2; i++) {
        djinn_options_t options = server_options(&server);
        djinn_t *djinn;
        options.flags = flags[i];
        assert_ok(djinn_connect(&options, &djinn));
        for (uint16_t op = 0; op < DJ_OP_COUNT; op++) {
            djinn_tensor_t out[DJINN_MAX_OUTS];
            int supported = device->ops->supports(device, op);
            assert_int_equal(djinn_supports(djinn, op), supported);
            assert_status(supported ? DJINN_ERR_INVALID : DJINN_ERR_UNSUPPORTED,
                          djinn_record(djinn, op, NULL, 0, out));
            assert_told(dj_op_info(op)->name);
        }
        assert_ok(djinn_synchronize(djinn)); /* nothing was recorded that could fail */
        djinn_close(djinn);
    }
    dj_device_close(device);
}

static djinn_status_t nobody(void *context, const djinn_local_message_t *message)
{
    return DJINN_OK;
}

static void an_executor_is_offered_all_that_can_be_recorded(void **state)
{
    djinn_t *djinn;
    assert_ok(djinn_connect_local(nobody, NULL, &djinn));
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
        assert_int_equal(djinn_supports(djinn, op),
                         !dj_op_info(op)->is_view && op != DJ_OP_NONZERO);
    assert_int_equal(djinn_supports(djinn, DJ_OP_COUNT), 0);
    djinn_close(djinn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_handles_are_not_supported),
        cmocka_unit_test(clients_know_what_the_device_has),
        cmocka_unit_test(an_executor_is_offered_all_that_can_be_recorded),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
