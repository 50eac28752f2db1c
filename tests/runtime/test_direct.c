/* test_direct.c - when a path reaches device memory: the proof, each step of it failing, and that it is made once and no
 * earlier than needed. UCX here has no CUDA or has one without a GPU; a device whose slabs are host memory proves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "runtime/rank.h"
#include "tests/gpu/blind_device.h"

static dj_config_t config = {.device = "host", .threads = 1, .cores = "", .transports = "auto"};
static dj_rank_t rank;

static dj_status_t ignore(void *context, const dj_incoming_t *incoming, void **memory_p, void **token_p)
{
    return DJ_ERR_STALE;
}

static void open_rank(blind_options_t options)
{
    const dj_comm_options_t comm = {.shared_memory = true, .on_message = ignore};
    options.page_bytes = 65536;
    assert_true(dj_hash_setup());
    rank = (dj_rank_t){.config = &config};
    assert_int_equal(blind_open(&config, &options, &rank.home.device), DJ_OK);
    assert_int_equal(dj_bounce_pool_create(rank.home.device, 1u << 20, &rank.home.bounce), DJ_OK);
    assert_int_equal(dj_comm_create(&comm, &rank.comm), DJ_OK);
}

static void close_rank(void)
{
    dj_comm_destroy(rank.comm);
    dj_bounce_pool_destroy(rank.home.bounce);
    assert_int_equal(blind_slab_bytes(rank.home.device), 0);
    dj_device_close(rank.home.device);
}

/* A path to a peer of this host and user, whose tensors lie in device memory if `there`. */
static dj_path_t choose(bool there, bool checksums)
{
    dj_path_facts_t facts = {.same_host = true, .same_user = true, .transports = "auto", .checksums = checksums,
                             .there = there ? DJ_MEMORY_CUDA : DJ_MEMORY_HOST};
    dj_path_t path;
    assert_int_equal(dj_direct_choose(&rank, &facts, &path), DJ_OK);
    return path;
}

static void expect_staging(dj_path_t path, const char *why)
{
    assert_int_equal(path.reach, DJ_REACH_STAGING);
    if (!strstr(path.text, why))
        fail_msg("%s", path.text);
}

static void a_device_of_the_host_proves_nothing(void **state)
{
    open_rank((blind_options_t){.slab = true});
    dj_bounce_pool_t *pool = rank.home.bounce;
    rank.home.bounce = NULL;
    assert_int_equal(choose(false, false).reach, DJ_REACH_HOST);
    assert_false(rank.direct.asked);
    rank.home.bounce = pool;
    close_rank();
}

static void nothing_is_asked_before_it_could_help(void **state)
{
    open_rank((blind_options_t){.slab = true, .slab_hidden = true});
    expect_staging(choose(false, false), "only one end is device memory");
    expect_staging(choose(true, true), "the host reads it for checksums");
    assert_false(rank.direct.asked);
    close_rank();
}

static void a_device_without_slabs_stages(void **state)
{
    open_rank((blind_options_t){0});
    expect_staging(choose(true, false), "the device has no memory to show");
    assert_true(rank.direct.asked);
    close_rank();
}

static void a_slab_that_cannot_be_made_stages(void **state)
{
    open_rank((blind_options_t){.slab = true, .slab_fails = true});
    expect_staging(choose(true, false), "blind device: no slab of 67108864 bytes");
    expect_staging(choose(true, false), "blind device: no slab of 67108864 bytes");
    close_rank();
}

static void a_ucx_that_knows_no_device_memory_stages(void **state)
{
    open_rank((blind_options_t){.slab = true, .slab_hidden = true});
    if (dj_comm_knows(rank.comm, DJ_MEMORY_CUDA))
        expect_staging(choose(true, false), "does not register");
    else
        expect_staging(choose(true, false), "UCX here knows no device memory");
    assert_int_equal(blind_slab_bytes(rank.home.device), 0);
    close_rank();
}

/* The comm has a registration already: the slab's is refused, and the slab given back. */
static void a_slab_that_is_not_registered_stages(void **state)
{
    static uint8_t other[65536];
    open_rank((blind_options_t){.slab = true});
    assert_int_equal(dj_comm_map(rank.comm, other, sizeof(other), DJ_MEMORY_HOST), DJ_OK);
    expect_staging(choose(true, false), "memory is mapped already");
    assert_int_equal(blind_slab_bytes(rank.home.device), 0);
    dj_bounce_t bounce;
    assert_int_equal(dj_bounce_take_slab(rank.home.bounce, 100, &bounce), DJ_OK);
    assert_false(bounce.slab);
    dj_bounce_give(rank.home.bounce, &bounce);
    close_rank();
}

static void what_is_proven_is_proven_once(void **state)
{
    open_rank((blind_options_t){.slab = true});
    for (int i = 0; i < 3; i++) {
        dj_path_t path = choose(i & 1, false);
        assert_int_equal(path.reach, DJ_REACH_MAPPED);
        assert_true(dj_reach_is_direct(path.reach));
        assert_int_equal(blind_slab_bytes(rank.home.device), 64u << 20);
    }
    dj_bounce_t bounce;
    assert_int_equal(dj_bounce_take_slab(rank.home.bounce, 4u << 20, &bounce), DJ_OK);
    assert_true(bounce.slab);
    dj_bounce_give(rank.home.bounce, &bounce);
    close_rank();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_without_slabs_stages),
        cmocka_unit_test(a_slab_that_cannot_be_made_stages),
        cmocka_unit_test(a_ucx_that_knows_no_device_memory_stages),
        cmocka_unit_test(a_slab_that_is_not_registered_stages),
        cmocka_unit_test(a_device_of_the_host_proves_nothing),
        cmocka_unit_test(nothing_is_asked_before_it_could_help),
        cmocka_unit_test(what_is_proven_is_proven_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
