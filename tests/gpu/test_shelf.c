/* test_shelf.c - small weights beside each other on large pages: whole, sealed where everybody reads them, counted to
 * the page, and gone to the byte. On a device whose memory the host cannot touch. */
#include "tests/gpu/fixture.h"

#include <pthread.h>
#include <time.h>

#include "gpu/text.h"
#include "tests/gpu/blind_device.h"

#define PAGE (64ull << 10)
#define LIMIT (64ull << 20)

static dj_device_t *device;
static dj_text_store_t *store;

static int open_store(void **state)
{
    dj_config_t config = {.device = "host", .threads = 1, .cores = ""};
    blind_options_t options = {.page_bytes = PAGE};
    assert_int_equal(blind_open(&config, &options, &device), DJ_OK);
    assert_int_equal(dj_text_store_create(device, LIMIT, &store), DJ_OK);
    return 0;
}

/* Whatever a test left in the store, nothing is left on the device. */
static int close_store(void **state)
{
    dj_text_store_destroy(store);
    assert_int_equal(blind_committed_bytes(device), 0);
    assert_int_equal(blind_ranges(device), 0);
    dj_device_close(device);
    return 0;
}

static dj_text_counters_t count(void)
{
    dj_text_counters_t counters;
    dj_text_counters(store, &counters);
    return counters;
}

static uint64_t mapped_bytes(void)
{
    assert_int_equal(count().mapped_bytes, blind_committed_bytes(device));
    return count().mapped_bytes;
}

/* What a weight with this number has in it. */
static void bytes_of(uint64_t number, uint8_t *to, uint64_t bytes)
{
    uint64_t random = number * 0x9e3779b97f4a7c15ull + 1;
    for (uint64_t i = 0; i < bytes; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        to[i] = (uint8_t)random;
    }
}

static dj_text_t *draft(uint64_t bytes, uint64_t number)
{
    dj_text_t *text = NULL;
    uint8_t *content = malloc(bytes + 1);
    bytes_of(number, content, bytes);
    assert_int_equal(dj_text_draft(store, bytes, &text), DJ_OK);
    assert_int_equal(device->ops->memory.copy_in(device, text->data, content, bytes), DJ_OK);
    free(content);
    return text;
}

static dj_text_t *publish(dj_text_t *text)
{
    assert_int_equal(dj_text_publish(store, text, 7, &text), DJ_OK);
    return text;
}

static dj_text_t *add(uint64_t bytes, uint64_t number)
{
    return publish(draft(bytes, number));
}

static void go(dj_text_t *text)
{
    dj_text_release(store, text);
    dj_text_sweep(store, 0);
}

static bool holds(const dj_text_t *text, uint64_t number)
{
    uint8_t *wanted = malloc(text->bytes + 1), *got = malloc(text->bytes + 1);
    bytes_of(number, wanted, text->bytes);
    assert_int_equal(device->ops->memory.copy_out(device, got, text->data, text->bytes), DJ_OK);
    bool same = memcmp(wanted, got, text->bytes) == 0;
    free(wanted);
    free(got);
    return same;
}

/* A byte behind it, which nobody reads: another process's write would stay. */
static bool writes(const dj_text_t *text)
{
    assert_true(text->bytes % DJ_SHELF_ALIGN);
    return !fixture_faults(blind_alias(device, (uint8_t *)text->data + text->bytes), FIXTURE_WRITE);
}

static bool reads(const void *address)
{
    return !fixture_faults(blind_alias(device, address), FIXTURE_READ);
}

/* ---- where they lie ---- */

static void many_small_weights_share_few_pages(void **state)
{
    dj_text_t *texts[100];
    for (uint64_t i = 0; i < 100; i++)
        texts[i] = add(3000 + i, i);
    assert_int_equal(mapped_bytes(), (100 * 3072 + PAGE - 1) / PAGE * PAGE);
    assert_int_equal(count().bytes, 100 * 3000 + 99 * 50);
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal((uintptr_t)texts[i]->data % DJ_SHELF_ALIGN, 0);
        assert_true(holds(texts[i], i));
    }
}

static void what_fills_its_pages_has_its_own(void **state)
{
    dj_text_t *small = add(100, 1), *exact = add(2 * PAGE, 2), *large = add(40 * PAGE + 5, 3);
    assert_int_equal(mapped_bytes(), PAGE + 2 * PAGE + 41 * PAGE);
    assert_null(exact->room.spot.shelf);
    assert_null(large->room.spot.shelf);
    assert_non_null(small->room.spot.shelf);
    go(large);
    assert_int_equal(mapped_bytes(), 3 * PAGE);
}

static void larger_ones_begin_where_others_end(void **state)
{
    for (uint64_t i = 0; i < 16; i++)
        add(PAGE + PAGE / 8, i); /* 32 pages by themselves */
    assert_int_equal(mapped_bytes(), 18 * PAGE);
    add(0, 99);
    assert_int_equal(mapped_bytes(), 19 * PAGE);
}

static void a_gap_is_used_before_a_page_is_made(void **state)
{
    dj_text_t *texts[3] = {add(PAGE - 5000, 1), add(PAGE / 2, 2), add(PAGE / 4, 3)};
    assert_int_equal(mapped_bytes(), 2 * PAGE);
    void *gap = texts[1]->data;
    go(texts[1]);
    assert_int_equal(mapped_bytes(), 2 * PAGE); /* its neighbours hold them */
    dj_text_t *again = add(PAGE / 2 - 300, 4);
    assert_ptr_equal(again->data, gap);
    assert_int_equal(mapped_bytes(), 2 * PAGE);
    assert_true(holds(texts[0], 1) && holds(texts[2], 3) && holds(again, 4));
}

static void pages_go_with_the_last_weight_on_them(void **state)
{
    dj_text_t *first = add(PAGE / 2, 1), *second = add(5 * PAGE / 2, 2), *third = add(PAGE / 2, 3);
    assert_int_equal(mapped_bytes(), 4 * PAGE);
    go(first);
    assert_int_equal(mapped_bytes(), 4 * PAGE); /* the second begins on its page */
    go(second);
    assert_int_equal(mapped_bytes(), PAGE); /* and the third lies behind it */
    assert_true(holds(third, 3));
    go(third);
    assert_int_equal(mapped_bytes(), 0);
    assert_int_equal(blind_ranges(device), 0);
}

/* ---- sealed ---- */

static void no_address_that_is_found_is_ever_writable(void **state)
{
    dj_text_t *first = draft(1000, 1), *second = draft(1000, 2);
    uint8_t *window = first->data;
    assert_true(writes(first) && writes(second));
    publish(first);
    assert_ptr_not_equal(first->data, window);
    assert_false(writes(first)); /* while its neighbour is being filled */
    assert_true(reads(first->data));
    assert_true(writes(second));
    void *other_window = second->data;
    publish(second);
    assert_false(writes(second));
    assert_false(reads(window) || reads(other_window)); /* closed with the last draft */
    dj_text_t *third = draft(1000, 3);
    assert_false(writes(first) || writes(second));
    assert_true(writes(third));
    dj_text_discard(store, third);
    assert_true(holds(first, 1) && holds(second, 2));
    assert_int_equal(mapped_bytes(), PAGE);
}

static void equal_content_leaves_one(void **state)
{
    dj_text_t *first = add(1000, 1), *again = add(1000, 1);
    assert_ptr_equal(first, again);
    dj_text_t *next = add(1000, 2);
    assert_ptr_equal((uint8_t *)first->data + 1024, next->data); /* where the draft was */
    assert_int_equal(mapped_bytes(), PAGE);
}

static void packs_lie_there_too(void **state)
{
    dj_text_t *text = add(1000, 1);
    dj_text_pack_t *pack = NULL, *other = NULL;
    uint8_t content[500], got[500];
    bytes_of(9, content, sizeof(content));
    assert_int_equal(dj_text_pack_add(store, text, (dj_hash_t){{1, 2}}, sizeof(content), &pack), DJ_OK);
    assert_int_equal(dj_text_pack_add(store, text, (dj_hash_t){{1, 3}}, sizeof(content), &other), DJ_OK);
    assert_int_equal(mapped_bytes(), PAGE);
    assert_int_equal(device->ops->memory.copy_in(device, pack->data, content, sizeof(content)), DJ_OK);
    assert_int_equal(dj_text_pack_seal(store, pack), DJ_OK);
    assert_true(fixture_faults(blind_alias(device, pack->data), FIXTURE_WRITE));
    dj_text_pack_discard(store, text, other);
    assert_int_equal(device->ops->memory.copy_out(device, got, pack->data, sizeof(got)), DJ_OK);
    assert_memory_equal(got, content, sizeof(got));
    go(text);
    assert_int_equal(count().pack_bytes, 0);
    assert_int_equal(mapped_bytes(), 0);
}

/* ---- the limit ---- */

static void the_limit_counts_pages(void **state)
{
    dj_text_t *held = add(PAGE / 2, 1), *idle = add(LIMIT - 2 * PAGE, 2), *text = NULL;
    dj_text_release(store, idle);
    for (uint64_t i = 0; i < 3; i++)
        add(PAGE / 4, 10 + i); /* one beside the first, two on the last page */
    assert_int_equal(mapped_bytes(), LIMIT);
    add(PAGE / 2, 20); /* and that is full */
    assert_int_equal(count().entries, 6);
    add(PAGE / 4, 21); /* fits beside the first */
    assert_int_equal(count().entries, 7);
    add(100, 22); /* the idle one goes */
    assert_int_equal(count().entries, 7);
    assert_int_equal(mapped_bytes(), 3 * PAGE);
    assert_int_equal(dj_text_draft(store, LIMIT - 2 * PAGE, &text), DJ_ERR_RESOURCE);
    assert_non_null(strstr(dj_error_text(), "pages of 196608 held, limit 67108864"));
    assert_int_equal(mapped_bytes(), 3 * PAGE);
    assert_true(holds(held, 1));
}

/* ---- whatever the order ---- */

typedef struct one {
    dj_text_t *text;
    uint64_t number;
    bool is_draft;
} one_t;

static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13, *random ^= *random >> 7, *random ^= *random << 17;
    return *random;
}

static void step(one_t *one, uint64_t *random, uint64_t number)
{
    uint64_t what = next(random) % 4, sizes[] = {PAGE / 16, PAGE, 4 * PAGE, 15 * PAGE};
    if (!one->text) {
        *one = (one_t){draft(next(random) % sizes[next(random) % 4], number), number, true};
    } else if (one->is_draft && what < 3) {
        one->text = publish(one->text);
        one->is_draft = false;
    } else {
        assert_true(holds(one->text, one->number));
        if (one->is_draft)
            dj_text_discard(store, one->text);
        else
            go(one->text);
        one->text = NULL;
    }
}

static void check(const one_t *all, uint32_t n)
{
    uint64_t alone = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!all[i].text)
            continue;
        assert_true(holds(all[i].text, all[i].number));
        alone += all[i].text->room.mapped_bytes;
    }
    if (alone == 0)
        assert_int_equal(mapped_bytes(), 0);
    assert_true(mapped_bytes() <= LIMIT);
}

static void random_orders_keep_contents_and_pages(void **state)
{
    one_t all[40] = {0};
    uint64_t random = 88172645463325252ull;
    for (uint64_t i = 0; i < 3000; i++) {
        step(&all[next(&random) % 40], &random, i + 1);
        if (i % 100 == 0)
            check(all, 40);
    }
    check(all, 40);
    for (uint32_t i = 0; i < 40; i++) {
        if (all[i].text && all[i].is_draft)
            all[i].text = publish(all[i].text);
        if (all[i].text)
            go(all[i].text);
    }
    assert_int_equal(mapped_bytes(), 0);
    assert_int_equal(blind_ranges(device), 0);
}

static void *work(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument * 7919 + 1;
    for (uint64_t i = 0; i < 400; i++) {
        uint64_t number = next(&random) % 50; /* others have the same */
        dj_text_t *text = add(100 + number * 700, number);
        assert_true(holds(text, number));
        dj_text_release(store, text);
        if (i % 16 == 0)
            dj_text_sweep(store, next(&random) % 2);
    }
    return NULL;
}

static void several_threads_fill_one_page(void **state)
{
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    dj_text_sweep(store, 0);
    assert_int_equal(count().entries, 0);
    assert_int_equal(mapped_bytes(), 0);
}

/* ---- devices that are otherwise ---- */

static dj_device_ops_t bent;

static void (*real_release)(dj_device_t *, void *, uint64_t);

static void bend(void)
{
    bent = *device->ops;
    device->ops = &bent;
    real_release = bent.memory.release;
}

static void without_a_second_address_each_has_its_pages(void **state)
{
    bend();
    bent.memory.mirror = NULL;
    dj_text_t *first = draft(100, 1);
    void *data = first->data;
    publish(first);
    assert_ptr_equal(first->data, data);
    add(100, 2);
    assert_int_equal(mapped_bytes(), 2 * PAGE);
}

static int refusals;

static dj_status_t refuse_mirror(dj_device_t *refusing, void *window, void *base, uint64_t bytes)
{
    refusals++;
    return dj_fail(DJ_ERR_SYSTEM, "no page has two addresses here");
}

static void a_device_that_refuses_is_asked_once(void **state)
{
    bend();
    bent.memory.mirror = refuse_mirror;
    refusals = 0;
    dj_text_t *first = add(100, 1), *second = add(100, 2);
    assert_int_equal(refusals, 1);
    assert_int_equal(mapped_bytes(), 2 * PAGE);
    assert_int_equal(blind_ranges(device), 2); /* and no shelf is left */
    assert_true(holds(first, 1) && holds(second, 2));
    assert_false(writes(first));
}

static int commits_left;
static dj_status_t (*real_commit)(dj_device_t *, void *, uint64_t);

static dj_status_t commit_some(dj_device_t *full, void *base, uint64_t bytes)
{
    return commits_left-- > 0 ? real_commit(full, base, bytes) : dj_fail(DJ_ERR_MEMORY, "the device is full");
}

/* Once the pages of a whole weight have gone there is room for one. */
static void one_more_commit(dj_device_t *full, void *base, uint64_t bytes)
{
    commits_left = bytes > PAGE ? 1 : commits_left;
    real_release(full, base, bytes);
}

static void a_full_device_takes_nothing(void **state)
{
    bend();
    real_commit = bent.memory.commit;
    bent.memory.commit = commit_some;
    commits_left = 1;
    dj_text_t *first = add(PAGE - 5000, 1), *text = NULL;
    assert_int_equal(dj_text_draft(store, PAGE / 2, &text), DJ_ERR_MEMORY);
    assert_int_equal(mapped_bytes(), PAGE);
    add(200, 2); /* no page is wanted */
    commits_left = 1;
    add(PAGE / 2, 3);
    assert_int_equal(mapped_bytes(), 2 * PAGE);
    assert_true(holds(first, 1));
}

static void a_full_device_makes_idle_weights_go(void **state)
{
    bend();
    real_commit = bent.memory.commit;
    bent.memory.commit = commit_some;
    commits_left = 3;
    dj_text_t *held = add(PAGE, 1), *texts[2] = {add(2 * PAGE, 2), add(3 * PAGE, 3)};
    for (int i = 0; i < 2; i++) {
        dj_text_release(store, texts[i]);
        dj_text_sweep(store, 9);
    }
    commits_left = -1;
    bent.memory.release = one_more_commit;
    dj_text_t *text = add(PAGE, 4); /* for the older of the two */
    assert_int_equal(count().entries, 3);
    assert_int_equal(mapped_bytes(), 5 * PAGE);
    assert_true(holds(held, 1) && holds(texts[1], 3) && holds(text, 4));
    bent.memory.release = real_release;
}

/* ---- nobody waits for pages that go ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static bool inside, passed, timed_out;

/* As slow as a driver that waits for kernels: until others have used the store, or for long. */
static void slow_release(dj_device_t *slow, void *base, uint64_t bytes)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    pthread_mutex_lock(&gate);
    inside = true;
    pthread_cond_broadcast(&moved);
    while (!passed && !timed_out)
        timed_out = pthread_cond_timedwait(&moved, &gate, &until) != 0;
    pthread_mutex_unlock(&gate);
    real_release(slow, base, bytes);
}

static void *sweep(void *argument)
{
    dj_text_sweep(store, 0);
    return NULL;
}

static void nobody_waits_for_pages_that_go(void **state)
{
    pthread_t sweeper;
    dj_text_t *idle = add(40 * PAGE, 1), *used = add(100, 2);
    bend();
    bent.memory.release = slow_release;
    inside = passed = timed_out = false;
    dj_text_release(store, idle);
    assert_int_equal(pthread_create(&sweeper, NULL, sweep, NULL), 0);
    pthread_mutex_lock(&gate);
    while (!inside)
        pthread_cond_wait(&moved, &gate);
    pthread_mutex_unlock(&gate);
    dj_text_release(store, dj_text_retain(store, used));
    assert_null(dj_text_pack_find(store, used, (dj_hash_t){{1, 2}}));
    assert_int_equal(count().entries, 1);
    assert_int_equal(count().mapped_bytes, 41 * PAGE); /* not gone yet */
    pthread_mutex_lock(&gate);
    passed = true;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&gate);
    pthread_join(sweeper, NULL);
    assert_false(timed_out);
    assert_int_equal(mapped_bytes(), PAGE);
}

int main(void)
{
#define STORED(test) cmocka_unit_test_setup_teardown(test, open_store, close_store)
    const struct CMUnitTest tests[] = {
        STORED(many_small_weights_share_few_pages),
        STORED(what_fills_its_pages_has_its_own),
        STORED(larger_ones_begin_where_others_end),
        STORED(a_gap_is_used_before_a_page_is_made),
        STORED(pages_go_with_the_last_weight_on_them),
        STORED(no_address_that_is_found_is_ever_writable),
        STORED(equal_content_leaves_one),
        STORED(packs_lie_there_too),
        STORED(the_limit_counts_pages),
        STORED(random_orders_keep_contents_and_pages),
        STORED(several_threads_fill_one_page),
        STORED(without_a_second_address_each_has_its_pages),
        STORED(a_device_that_refuses_is_asked_once),
        STORED(a_full_device_takes_nothing),
        STORED(a_full_device_makes_idle_weights_go),
        STORED(nobody_waits_for_pages_that_go),
    };
    if (!dj_hash_setup())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
