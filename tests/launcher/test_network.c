/* Addresses: what is refused, what faces whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "launcher/network.h"

static void bad_addresses(void **state)
{
    static const char *const bad[] = {
        "",
        ":",
        "host",
        "host:",
        "host:x",
        "host:1x",
        "host:-1",
        "host:65536",
        "host:99999999",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:1",
    };
    char host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX], listen[DJ_ENDPOINT_TEXT_MAX];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(dj_network_split(bad[i], host, port), DJ_ERR_INVALID);
        assert_int_equal(dj_network_first_listen(bad[i], listen), DJ_ERR_INVALID);
        assert_int_equal(dj_network_facing(bad[i], listen), DJ_ERR_INVALID);
    }
}

static void expect_split(const char *address, const char *host, const char *port)
{
    char found_host[DJ_ENDPOINT_TEXT_MAX], found_port[DJ_ENDPOINT_TEXT_MAX];
    assert_int_equal(dj_network_split(address, found_host, found_port), DJ_OK);
    assert_string_equal(found_host, host);
    assert_string_equal(found_port, port);
}

static void good_addresses(void **state)
{
    expect_split("127.0.0.1:0", "127.0.0.1", "0");
    expect_split("node-7.cluster:65535", "node-7.cluster", "65535");
    expect_split("[::1]:80", "::1", "80");
    expect_split(":80", "", "80");
}

static void kinds_of_hosts(void **state)
{
    assert_true(dj_network_is_loopback("127.0.0.1"));
    assert_true(dj_network_is_loopback("::1"));
    assert_false(dj_network_is_loopback("128.0.0.1"));
    assert_true(dj_network_is_any("0.0.0.0"));
    assert_true(dj_network_is_any(""));
    assert_false(dj_network_is_any("10.0.0.0"));
}

static void a_typed_address_is_kept(void **state)
{
    char listen[DJ_ENDPOINT_TEXT_MAX];
    assert_int_equal(dj_network_first_listen("10.9.8.7:4000", listen), DJ_OK);
    assert_string_equal(listen, "10.9.8.7:4000");
    /* Loopback would be unreachable from other nodes; another address of this machine is, if any.
     */
    if (dj_network_first_listen("127.0.0.1:4000", listen) == DJ_OK) {
        assert_memory_not_equal(listen, "127.", 4);
        assert_non_null(strstr(listen, ":4000"));
    }
}

static void the_side_that_faces_a_peer(void **state)
{
    char listen[DJ_ENDPOINT_TEXT_MAX];
    assert_int_equal(dj_network_facing("127.0.0.1:4123", listen), DJ_OK);
    assert_string_equal(listen, "127.0.0.1:0");
    assert_int_equal(dj_network_facing("no-such-host.invalid:1", listen), DJ_ERR_CONNECT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_addresses),
        cmocka_unit_test(good_addresses),
        cmocka_unit_test(kinds_of_hosts),
        cmocka_unit_test(a_typed_address_is_kept),
        cmocka_unit_test(the_side_that_faces_a_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
