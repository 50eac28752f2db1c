/* test_bounce.c - host memory that bytes pass through: page-locked as far as allowed, kept, given back; and what
 * else goes to a device in parts: its poison, and the names of its weights. */
#include "tests/gpu/fixture.h"

#include "gpu/bounce.h"
#include "gpu/poison.h"
#include "gpu/text.h"
#include "tests/gpu/blind_device.h"

#include <unistd.h>

static dj_device_t *open_blind(bool no_extras)
{
    dj_config_t config = {.device = "host", .threads = 1, .cores = ""};
    const blind_options_t options = {.page_bytes = 65536, .no_extras = no_extras};
    dj_device_t *device = NULL;
    assert_true(dj_hash_setup());
    assert_int_equal(blind_open(&config, &options, &device), DJ_OK);
    return device;
}

static dj_bounce_t take(dj_bounce_pool_t *pool, uint64_t bytes)
{
    dj_bounce_t bounce;
    assert_int_equal(dj_bounce_take(pool, bytes, &bounce), DJ_OK);
    assert_int_equal(bounce.bytes, bytes);
    assert_int_equal((uintptr_t)bounce.memory % (bounce.pinned ? DJ_BOUNCE_ALIGN : 64), 0);
    memset(bounce.memory, 0xab, bytes);
    return bounce;
}

static void what_cannot_be_is_refused(void **state)
{
    dj_bounce_t bounce = {0};
    assert_int_equal(dj_bounce_take(NULL, UINT64_MAX, &bounce), DJ_ERR_MEMORY);
    assert_int_equal(dj_bounce_take(NULL, UINT64_MAX - 100, &bounce), DJ_ERR_MEMORY);
    assert_null(bounce.memory);
    dj_bounce_give(NULL, &bounce);
    bounce = take(NULL, 0);
    assert_false(bounce.pinned);
    dj_bounce_give(NULL, &bounce);
    assert_null(bounce.memory);
    dj_bounce_pool_destroy(NULL);
}

static void buffers_are_kept_and_bounded(void **state)
{
    dj_device_t *device = open_blind(false);
    dj_bounce_pool_t *pool;
    dj_bounce_counters_t counters;
    assert_int_equal(dj_bounce_pool_create(device, 40u << 20, &pool), DJ_OK);
    dj_bounce_t a = take(pool, 4u << 20), b = take(pool, (4u << 20) + DJ_BOUNCE_SLACK);
    assert_true(a.pinned && b.pinned);
    void *was = b.memory;
    dj_bounce_give(pool, &b);
    b = take(pool, 3u << 20); /* the same class */
    assert_ptr_equal(b.memory, was);
    dj_bounce_t large = take(pool, (16u << 20) + DJ_BOUNCE_SLACK), beyond = take(pool, 16u << 20);
    assert_true(large.pinned);
    assert_false(beyond.pinned); /* 8 and 16 of 40 MiB, and 16 more with their slack */
    dj_bounce_t huge = take(pool, 17u << 20);
    assert_false(huge.pinned);
    dj_bounce_counters(pool, &counters);
    assert_true(counters.pinned_bytes <= 40u << 20);
    assert_int_equal(counters.pinned_bytes, blind_pinned_bytes(device));
    assert_int_equal(counters.idle_bytes, 0);
    dj_bounce_give(pool, &large);
    dj_bounce_give(pool, &a);
    dj_bounce_give(pool, &b);
    dj_bounce_give(pool, &huge);
    dj_bounce_give(pool, &beyond);
    /* Idle ones of other sizes make room. */
    dj_bounce_t many[64];
    for (int i = 0; i < 64; i++)
        assert_true((many[i] = take(pool, 512u << 10)).pinned);
    for (int i = 0; i < 64; i++)
        dj_bounce_give(pool, &many[i]);
    dj_bounce_pool_destroy(pool);
    assert_int_equal(blind_pinned_bytes(device), 0);
    dj_device_close(device);
}

static dj_bounce_pool_t *asked;
static void (*unpin_of)(dj_device_t *device, void *memory, uint64_t bytes);
static uint64_t unpinned_bytes;

static void unpin_and_ask(dj_device_t *device, void *memory, uint64_t bytes)
{
    dj_bounce_counters_t counters;
    dj_bounce_counters(asked, &counters);
    unpinned_bytes += bytes;
    unpin_of(device, memory, bytes);
}

/* It may take as long as the device computes. */
static void nobody_waits_while_a_buffer_is_unpinned(void **state)
{
    dj_device_t *device = open_blind(false);
    const dj_device_ops_t *before = device->ops;
    dj_device_ops_t ops = *before;
    unpin_of = ops.memory.unpin;
    ops.memory.unpin = unpin_and_ask;
    device->ops = &ops;
    assert_int_equal(dj_bounce_pool_create(device, 9u << 20, &asked), DJ_OK);
    dj_bounce_t small = take(asked, 1u << 20), more = take(asked, 2u << 20);
    assert_true(small.pinned && more.pinned);
    dj_bounce_give(asked, &small);
    dj_bounce_give(asked, &more);
    alarm(20); /* it would wait for itself */
    dj_bounce_t large = take(asked, 6u << 20);
    alarm(0);
    assert_in_range(unpinned_bytes, 1u << 20, 4u << 20);
    dj_bounce_give(asked, &large);
    dj_bounce_pool_destroy(asked);
    device->ops = before;
    dj_device_close(device);
}

/* ---- slabs ---- */

#define SLAB (64ull * 65536)

static dj_device_t *open_slab(bool fails)
{
    dj_config_t config = {.device = "host", .threads = 1, .cores = ""};
    const blind_options_t options = {.page_bytes = 65536, .slab = true, .slab_fails = fails};
    dj_device_t *device = NULL;
    assert_true(dj_hash_setup());
    assert_int_equal(blind_open(&config, &options, &device), DJ_OK);
    return device;
}

static dj_bounce_t take_slab(dj_bounce_pool_t *pool, uint64_t bytes)
{
    dj_bounce_t bounce;
    assert_int_equal(dj_bounce_take_slab(pool, bytes, &bounce), DJ_OK);
    assert_int_equal(bounce.bytes, bytes);
    return bounce;
}

static void parts_of_a_slab_are_apart(void **state)
{
    dj_device_t *device = open_slab(false);
    dj_bounce_pool_t *pool;
    void *memory;
    assert_int_equal(dj_bounce_pool_create(device, 1u << 20, &pool), DJ_OK);
    dj_bounce_t before = take_slab(pool, 100); /* there is none yet */
    assert_false(before.slab);
    dj_bounce_give(pool, &before);
    assert_int_equal(dj_bounce_slab_open(pool, SLAB, &memory), DJ_OK);
    assert_int_equal(blind_slab_bytes(device), SLAB);
    static const uint64_t sizes[] = {1, 65536, 65537, 5 * 65536, SLAB / 2};
    dj_bounce_t parts[5];
    uint8_t *at = memory;
    for (int i = 0; i < 5; i++) {
        parts[i] = take_slab(pool, sizes[i]);
        assert_true(parts[i].slab && !parts[i].pinned);
        assert_ptr_equal(parts[i].memory, at);
        at += (sizes[i] + 65535) / 65536 * 65536;
    }
    dj_bounce_t none = take_slab(pool, SLAB / 2); /* 23 pages are left */
    assert_false(none.slab);
    dj_bounce_give(pool, &none);
    dj_bounce_t rest = take_slab(pool, 23 * 65536), more = take_slab(pool, 1);
    assert_true(rest.slab && !more.slab);
    dj_bounce_give(pool, &parts[2]); /* two pages between others */
    dj_bounce_t large = take_slab(pool, 3 * 65536), fits = take_slab(pool, 2 * 65536);
    assert_false(large.slab);
    assert_ptr_equal(fits.memory, (uint8_t *)memory + 2 * 65536);
    dj_bounce_t *all[] = {&parts[0], &parts[1], &parts[3], &parts[4], &rest, &more, &large, &fits};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        dj_bounce_give(pool, all[i]);
    dj_bounce_t whole = take_slab(pool, SLAB), beyond = take_slab(pool, SLAB + 1), nothing = take_slab(pool, 0);
    assert_true(whole.slab && !beyond.slab && !nothing.slab);
    dj_bounce_give(pool, &whole);
    dj_bounce_give(pool, &beyond);
    dj_bounce_give(pool, &nothing);
    dj_bounce_pool_destroy(pool);
    assert_int_equal(blind_slab_bytes(device), 0);
    dj_device_close(device);
}

static void both_kinds_are_filled_and_drained(void **state)
{
    dj_device_t *device = open_slab(false);
    dj_bounce_pool_t *pool;
    void *memory, *data;
    uint8_t in[200], out[200];
    assert_int_equal(dj_bounce_pool_create(device, 1u << 20, &pool), DJ_OK);
    assert_int_equal(dj_bounce_slab_open(pool, SLAB, &memory), DJ_OK);
    assert_int_equal(device->ops->memory.reserve(device, 65536, &data), DJ_OK);
    assert_int_equal(device->ops->memory.commit(device, data, 65536), DJ_OK);
    for (int i = 0; i < 200; i++)
        in[i] = (uint8_t)(i + 1);
    for (int slab = 0; slab < 2; slab++) {
        dj_bounce_t bounce = slab ? take_slab(pool, 300) : take(pool, 300);
        assert_int_equal(bounce.slab, slab);
        assert_int_equal(device->ops->memory.copy_in(device, data, in, 200), DJ_OK);
        assert_int_equal(dj_bounce_fill(device, &bounce, 100, data, 200), DJ_OK);
        assert_int_equal(device->ops->memory.fill(device, data, 0, 200), DJ_OK);
        assert_int_equal(dj_bounce_drain(device, data, &bounce, 150, 150), DJ_OK);
        assert_int_equal(device->ops->memory.copy_out(device, out, data, 200), DJ_OK);
        assert_memory_equal(out, in + 50, 150);
        assert_int_equal(out[150], 0);
        dj_bounce_give(pool, &bounce);
    }
    device->ops->memory.release(device, data, 65536);
    dj_bounce_pool_destroy(pool);
    dj_device_close(device);
}

static void without_a_slab_all_goes_on(void **state)
{
    for (int fails = 0; fails < 2; fails++) {
        dj_device_t *device = fails ? open_slab(true) : open_blind(false);
        dj_bounce_pool_t *pool;
        void *memory = NULL;
        assert_int_equal(dj_bounce_pool_create(device, 1u << 20, &pool), DJ_OK);
        assert_int_equal(dj_bounce_slab_open(pool, SLAB, &memory), fails ? DJ_ERR_MEMORY : DJ_ERR_UNSUPPORTED);
        assert_null(memory);
        dj_bounce_t bounce = take_slab(pool, 100);
        assert_true(bounce.pinned && !bounce.slab);
        dj_bounce_give(pool, &bounce);
        dj_bounce_slab_close(pool);
        dj_bounce_pool_destroy(pool);
        dj_device_close(device);
    }
}

static void without_pin_all_is_plain(void **state)
{
    dj_device_t *device = open_blind(true);
    dj_bounce_pool_t *pool;
    assert_int_equal(dj_bounce_pool_create(device, 40u << 20, &pool), DJ_OK);
    dj_bounce_t a = take(pool, 100);
    assert_false(a.pinned);
    dj_bounce_give(pool, &a);
    dj_bounce_pool_destroy(pool);
    dj_device_close(device);
}

/* ---- poison ---- */

static void check_peaks(dj_device_t *device)
{
    const uint64_t slab_bytes = (5u << 20) + 65536;
    void *base;
    uint64_t peak = 1;
    uint8_t one = 1;
    assert_int_equal(device->ops->memory.reserve(device, slab_bytes, &base), DJ_OK);
    assert_int_equal(device->ops->memory.commit(device, base, slab_bytes), DJ_OK);
    uint8_t *slab = base;
    const uint64_t sizes[] = {0, 1, 1000, 1 << 20, (1 << 20) + 1, slab_bytes - 3, slab_bytes};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t bytes = sizes[i];
        assert_int_equal(dj_poison_fill_slab(device, slab, bytes, DJ_POISON_BYTE), DJ_OK);
        assert_int_equal(dj_poison_peak_slab(device, slab, bytes, DJ_POISON_BYTE, &peak), DJ_OK);
        assert_int_equal(peak, 0);
        const uint64_t touched[] = {0, bytes / 2, bytes - 1};
        for (size_t j = 0; bytes && j < 3; j++) { /* from below to above */
            assert_int_equal(device->ops->memory.copy_in(device, slab + touched[j], &one, 1), DJ_OK);
            assert_int_equal(dj_poison_peak_slab(device, slab, bytes, DJ_POISON_BYTE, &peak), DJ_OK);
            assert_int_equal(peak, touched[j] + 1);
        }
    }
    device->ops->memory.release(device, base, slab_bytes);
}

static void peaks_of_memory_that_is_not_read(void **state)
{
    for (int i = 0; i < 2; i++) {
        dj_device_t *device = open_blind(i);
        check_peaks(device);
        dj_device_close(device);
    }
    dj_device_t *host = fixture_open(1);
    check_peaks(host);
    dj_device_close(host);
}

/* ---- names ---- */

static dj_text_t *publish(dj_text_store_t *store, dj_device_t *device, const uint8_t *data, uint64_t bytes,
                          bool known)
{
    dj_text_t *draft, *text;
    dj_hash_t name;
    assert_int_equal(dj_text_draft(store, bytes, &draft), DJ_OK);
    assert_int_equal(device->ops->memory.copy_in(device, draft->data, data, bytes), DJ_OK);
    assert_int_equal(dj_text_name_of(data, bytes, &name), DJ_OK);
    assert_int_equal(known ? dj_text_publish_as(store, draft, name, 1, &text)
                           : dj_text_publish(store, draft, 1, &text), DJ_OK);
    return text;
}

/* One weight, whether it was hashed on its way or read back, on this device or another; each byte counts. */
static void a_weight_has_one_name(void **state)
{
    const uint64_t sizes[] = {0, 1, DJ_TEXT_PART_BYTES, DJ_TEXT_PART_BYTES + 1, 3 * DJ_TEXT_PART_BYTES};
    uint8_t *data = malloc(3 * DJ_TEXT_PART_BYTES);
    dj_device_t *blind = open_blind(false), *host = fixture_open(1);
    dj_text_store_t *there, *here;
    for (uint64_t i = 0; i < 3 * DJ_TEXT_PART_BYTES; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_int_equal(dj_text_store_create(blind, 1u << 30, &there), DJ_OK);
    assert_int_equal(dj_text_store_create(host, 1u << 30, &here), DJ_OK);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        dj_text_t *known = publish(there, blind, data, sizes[i], true);
        assert_ptr_equal(publish(there, blind, data, sizes[i], false), known);
        dj_text_t *other = publish(here, host, data, sizes[i], false);
        assert_true(dj_hash_equal(other->content, known->content));
        if (sizes[i] == 0)
            continue;
        data[sizes[i] - 1] ^= 1;
        assert_ptr_not_equal(publish(there, blind, data, sizes[i], false), known);
        data[sizes[i] - 1] ^= 1;
    }
    /* The hashes of a weight's parts are no weight of the same name. */
    dj_hash_t parts[2], name, whole;
    parts[0] = dj_hash_of(data, DJ_TEXT_PART_BYTES);
    parts[1] = dj_hash_of(data + DJ_TEXT_PART_BYTES, 1);
    assert_int_equal(dj_text_name_of(data, DJ_TEXT_PART_BYTES + 1, &whole), DJ_OK);
    assert_int_equal(dj_text_name_of(parts, sizeof(parts), &name), DJ_OK);
    assert_false(dj_hash_equal(name, whole));
    dj_text_store_destroy(there);
    dj_text_store_destroy(here);
    assert_int_equal(blind_committed_bytes(blind), 0);
    dj_device_close(blind);
    dj_device_close(host);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(buffers_are_kept_and_bounded),
        cmocka_unit_test(nobody_waits_while_a_buffer_is_unpinned),
        cmocka_unit_test(parts_of_a_slab_are_apart),
        cmocka_unit_test(both_kinds_are_filled_and_drained),
        cmocka_unit_test(without_a_slab_all_goes_on),
        cmocka_unit_test(without_pin_all_is_plain),
        cmocka_unit_test(peaks_of_memory_that_is_not_read),
        cmocka_unit_test(a_weight_has_one_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
