/* test_staging_wire.c - device memory to device memory through staging rings, between real
 * processes over shared memory and over tcp: whole, both ways at once, and with the peer killed on
 * the way.
 *
 * `comm_test_staging_wire measure [shm|tcp]` tells what the ring is worth on a device whose copies
 * take their time on a thread of their own: rings of 1, 2 and 4 slots in turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "fake_device.h"
#include "mover.h"

enum { BYTES = (64 << 20) + 5, SLOTS = DJ_STAGING_SLOTS };

static void fill(uint8_t *data, uint64_t bytes, uint64_t seed)
{
    for (uint64_t i = 0; i < bytes; ++i)
        data[i] = (uint8_t)((i * 0x9e3779b97f4a7c15ull >> 56) + seed + (i >> 20));
}

static bool filled(const uint8_t *data, uint64_t bytes, uint64_t seed)
{
    for (uint64_t i = 0; i < bytes; ++i)
        if (data[i] != (uint8_t)((i * 0x9e3779b97f4a7c15ull >> 56) + seed + (i >> 20)))
            return false;
    return true;
}

static void run_pair(node_main_t a, node_main_t b, transport_t transport, int *statuses)
{
    const node_main_t mains[] = {a, b};
    run_nodes(2, mains, transport, statuses);
}

/* ---- whole ---- */

static void close_mover(mover_t *mover)
{
    node_meet(mover->node, mover->other);
    node_close(mover->node);
    CHECK(dj_staging_idle(mover->ring));
    dj_staging_destroy(mover->ring);
    CHECK(fake.pinned == 0 && fake_prepared() == 0);
}

static void main_moves_both_ways(node_t *node)
{
    static mover_t mover;
    fake.patience = 2;
    mover_open(&mover, node, 1 - node->number, &fake_ops, SLOTS, BYTES);
    mover.source = malloc(BYTES);
    mover.target = calloc(1, BYTES);
    CHECK(mover.source && mover.target);
    fill(mover.source, BYTES, (uint64_t)node->number);
    mover_start(&mover);
    uint64_t until_ns = dj_clock_ns() + 30 * DJ_NS_PER_S;
    while (!mover.sent || mover.in_flight > 0 || mover.landed < BYTES / DJ_STAGING_SLOT_BYTES + 1) {
        mover_progress(&mover);
        CHECK(dj_clock_ns() < until_ns);
    }
    CHECK(mover.status == DJ_OK);
    CHECK(filled(mover.target, BYTES, (uint64_t)mover.other));
    CHECK(mover.peak_out <= SLOTS && mover.peak_in <= SLOTS);
    close_mover(&mover);
}

static void device_memory_arrives_whole_both_ways(void **state)
{
    for (transport_t transport = TRANSPORT_SHM; transport <= TRANSPORT_TCP; ++transport) {
        int statuses[2];
        run_pair(main_moves_both_ways, main_moves_both_ways, transport, statuses);
        assert_int_equal(statuses[0], 0);
        assert_int_equal(statuses[1], 0);
    }
}

/* ---- a killed peer ---- */

static void main_dies_on_the_way(node_t *node)
{
    static mover_t mover;
    fake.patience = 2;
    mover_open(&mover, node, 0, &fake_ops, SLOTS, BYTES);
    mover.source = calloc(1, BYTES);
    mover.target = calloc(1, BYTES);
    mover_start(&mover);
    while (mover.landed < 9)
        mover_progress(&mover);
    raise(SIGKILL);
}

static void main_survives(node_t *node)
{
    static mover_t mover;
    char word;
    fake.patience = 2;
    mover_open(&mover, node, 1, &fake_ops, SLOTS, BYTES);
    mover.source = calloc(1, BYTES);
    mover.target = calloc(1, BYTES);
    mover_start(&mover);
    uint64_t until_ns = dj_clock_ns() + 20 * DJ_NS_PER_S;
    while (!mover.sent || mover.incoming > 0) {
        mover_progress(&mover);
        if (!mover.lost && recv(node->links[1], &word, 1, MSG_DONTWAIT) == 0) {
            mover.lost = true;
            dj_endpoint_close(node->endpoints[1]);
            dj_staging_fail(mover.ring, DJ_ERR_PEER_DIED);
        }
        CHECK(dj_clock_ns() < until_ns);
    }
    CHECK(mover.status == DJ_ERR_PEER_DIED);
    CHECK(dj_staging_idle(mover.ring));
    dj_staging_destroy(mover.ring);
    CHECK(fake.pinned == 0 && fake_prepared() == 0);
    node_close(node);
}

static void main_survives_in_a_hurry(node_t *node)
{
    static mover_t mover;
    fake.patience = 2;
    mover_open(&mover, node, 1, &fake_ops, SLOTS, BYTES);
    mover.source = calloc(1, BYTES);
    mover.target = calloc(1, BYTES);
    mover_start(&mover);
    char word;
    while (recv(node->links[1], &word, 1, MSG_DONTWAIT) != 0)
        mover_progress(&mover);
    mover.lost = true;
    dj_staging_destroy(mover.ring); /* with slots in the network's hands */
    CHECK(mover.sent && mover.status < 0);
    node_close(node);
    CHECK(fake.pinned == 0 && fake_prepared() == 0);
}

static void a_killed_peer_costs_no_slot(void **state)
{
    for (transport_t transport = TRANSPORT_SHM; transport <= TRANSPORT_TCP; ++transport) {
        int statuses[2];
        run_pair(main_survives, main_dies_on_the_way, transport, statuses);
        assert_int_equal(statuses[0], 0);
        assert_int_equal(WTERMSIG(statuses[1]), SIGKILL);
        run_pair(main_survives_in_a_hurry, main_dies_on_the_way, transport, statuses);
        assert_int_equal(statuses[0], 0);
    }
}

/* ---- what overlap is worth ---- */

enum { ROUNDS = 15, COPY_US_PER_PART = 200 }; /* 5.2 GB/s: PCIe of generation 3, in use by others */

typedef struct timed_copy {
    struct timed_copy *next;
    void *target;
    const void *source;
    size_t size;
    _Atomic bool over;
} timed_copy_t;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    timed_copy_t *first, **last_p;
} engine = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, NULL};

static void *engine_main(void *unused)
{
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&engine.lock);
        while (!engine.first)
            pthread_cond_wait(&engine.changed, &engine.lock);
        timed_copy_t *copy = engine.first;
        engine.first = copy->next;
        if (!engine.first)
            engine.last_p = &engine.first;
        pthread_mutex_unlock(&engine.lock);
        uint64_t due_ns =
            dj_clock_ns() + copy->size * COPY_US_PER_PART * 1000ull / DJ_STAGING_SLOT_BYTES;
        memcpy(copy->target, copy->source, copy->size);
        const struct timespec due = {(time_t)(due_ns / DJ_NS_PER_S), (long)(due_ns % DJ_NS_PER_S)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        copy->over = true;
    }
    return NULL;
}

static dj_status_t timed_prepare(void **handle_p)
{
    *handle_p = calloc(1, sizeof(timed_copy_t));
    return *handle_p ? DJ_OK : DJ_ERR_MEMORY;
}

static dj_status_t timed_start(void *handle, dj_copy_direction_t direction, void *target,
                               const void *source, size_t size)
{
    timed_copy_t *copy = handle;
    (void)direction;
    *copy = (timed_copy_t){.target = target, .source = source, .size = size};
    pthread_mutex_lock(&engine.lock);
    *engine.last_p = copy;
    engine.last_p = &copy->next;
    pthread_cond_signal(&engine.changed);
    pthread_mutex_unlock(&engine.lock);
    return DJ_IN_PROGRESS;
}

static dj_status_t timed_test(void *handle)
{
    return ((timed_copy_t *)handle)->over ? DJ_OK : DJ_IN_PROGRESS;
}

static const dj_memops_t timed_ops = {.kind = DJ_MEMORY_CUDA,
                                      .name = "timed",
                                      .copy_in = fake_copy_now,
                                      .copy_out = fake_copy_now,
                                      .copy_between = fake_copy_now,
                                      .owns = fake_owns,
                                      .copy_prepare = timed_prepare,
                                      .copy_start = timed_start,
                                      .copy_test = timed_test,
                                      .copy_unprepare = free};

static const uint32_t ring_sizes[] = {1, 2, SLOTS};
enum { RING_SIZES = sizeof(ring_sizes) / sizeof(ring_sizes[0]) };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Node 0 sends to node 1, with each size of ring in turns. */
static void main_measures(node_t *node)
{
    static mover_t movers[RING_SIZES];
    static double seconds[RING_SIZES][ROUNDS];
    const uint64_t parts = BYTES / DJ_STAGING_SLOT_BYTES + 1;
    uint8_t *device = calloc(1, BYTES);
    pthread_t thread;
    engine.last_p = &engine.first;
    CHECK(device && pthread_create(&thread, NULL, engine_main, NULL) == 0);
    mover_open(&movers[0], node, 1 - node->number, &timed_ops, ring_sizes[0], BYTES);
    for (int i = 0; i < RING_SIZES; ++i) {
        movers[i] = (mover_t){.node = node,
                              .other = 1 - node->number,
                              .slots = ring_sizes[i],
                              .bytes = BYTES,
                              .source = device,
                              .target = device,
                              .ring = movers[i].ring};
        if (i > 0)
            CHECK(dj_staging_create(&timed_ops, ring_sizes[i], DJ_STAGING_SLOT_BYTES,
                                    &movers[i].ring) == DJ_OK);
    }
    for (int round = 0; round < ROUNDS * RING_SIZES; ++round) {
        mover_t *mover = &movers[round % RING_SIZES];
        node->state = mover;
        node_meet(node, mover->other);
        uint64_t from_ns = dj_clock_ns(), wanted = mover->landed + parts;
        if (node->number == 0)
            mover_start(mover);
        while (node->number == 0 ? !mover->sent || mover->in_flight > 0 : mover->landed < wanted)
            mover_progress(mover);
        seconds[round % RING_SIZES][round / RING_SIZES] = (double)(dj_clock_ns() - from_ns) / 1e9;
        node_meet(node, mover->other);
    }
    for (int i = 0; i < RING_SIZES && node->number == 0; ++i) {
        qsort(seconds[i], ROUNDS, sizeof(double), by_size);
        printf("%u slots: %5.0f MB/s median, %5.0f to %5.0f\n", ring_sizes[i],
               BYTES / 1e6 / seconds[i][ROUNDS / 2], BYTES / 1e6 / seconds[i][ROUNDS - 1],
               BYTES / 1e6 / seconds[i][0]);
    }
    fflush(stdout);
}

static int measure(const char *transport)
{
    int statuses[2];
    run_pair(main_measures, main_measures,
             strcmp(transport, "tcp") == 0 ? TRANSPORT_TCP : TRANSPORT_SHM, statuses);
    return statuses[0] || statuses[1];
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_memory_arrives_whole_both_ways),
        cmocka_unit_test(a_killed_peer_costs_no_slot),
    };
    if (argc > 1 && strcmp(argv[1], "measure") == 0)
        return measure(argc > 2 ? argv[2] : "shm");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
