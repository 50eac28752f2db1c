/* test_queue.c - order, closing, waking a poller, and many producers at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/clock.h"
#include "runtime/base/queue.h"

#define PRODUCERS 4
#define ENTRIES 20000

typedef struct item {
    dj_queue_entry_t entry; /* first: items are recovered from entries by a cast */
    unsigned producer, number;
} item_t;

typedef struct producer {
    dj_queue_t *queue;
    item_t *items;
} producer_t;

static item_t items[PRODUCERS][ENTRIES];

static void an_empty_or_closed_queue_gives_nothing(void **state)
{
    dj_queue_t queue;
    assert_int_equal(dj_queue_init(&queue), DJ_OK);
    assert_null(dj_queue_try_pop(&queue));
    dj_queue_close(&queue);
    assert_null(dj_queue_try_pop(&queue));
    assert_null(dj_queue_pop(&queue, 0));
    assert_null(dj_queue_pop(&queue, 1000));
    dj_queue_fini(&queue);
}

static void a_closed_queue_is_still_emptied_in_order(void **state)
{
    dj_queue_t queue;
    assert_int_equal(dj_queue_init(&queue), DJ_OK);
    for (unsigned i = 0; i < 3; i++)
        dj_queue_push(&queue, &items[0][i].entry);
    dj_queue_close(&queue);
    assert_ptr_equal(dj_queue_pop(&queue, 0), &items[0][0].entry);
    assert_ptr_equal(dj_queue_try_pop(&queue), &items[0][1].entry);
    assert_ptr_equal(dj_queue_pop(&queue, 1000), &items[0][2].entry);
    assert_null(dj_queue_pop(&queue, 0));
    dj_queue_fini(&queue);
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

static void a_poller_is_woken_when_the_queue_fills_and_closes(void **state)
{
    dj_queue_t queue;
    uint64_t count;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(dj_queue_init(&queue), DJ_OK);
    dj_queue_wake_by(&queue, fd);
    assert_false(is_readable(fd));
    dj_queue_push(&queue, &items[0][0].entry);
    assert_true(is_readable(fd));
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
    dj_queue_push(&queue, &items[0][1].entry); /* not empty: the poller knows already */
    assert_false(is_readable(fd));
    assert_non_null(dj_queue_try_pop(&queue));
    assert_non_null(dj_queue_try_pop(&queue));
    dj_queue_push(&queue, &items[0][0].entry);
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
    dj_queue_close(&queue);
    assert_true(is_readable(fd));
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
    assert_non_null(dj_queue_try_pop(&queue));
    dj_queue_wake_by(&queue, -1);
    dj_queue_push(&queue, &items[0][0].entry);
    assert_false(is_readable(fd));
    dj_queue_fini(&queue);
    close(fd);
}

static void *produce(void *argument)
{
    producer_t *producer = argument;
    for (unsigned i = 0; i < ENTRIES; i++)
        dj_queue_push(producer->queue, &producer->items[i].entry);
    return NULL;
}

static void each_producer_keeps_its_order(void **state)
{
    dj_queue_t queue;
    pthread_t threads[PRODUCERS];
    producer_t producers[PRODUCERS];
    unsigned next[PRODUCERS] = {0};
    assert_int_equal(dj_queue_init(&queue), DJ_OK);
    for (unsigned p = 0; p < PRODUCERS; p++) {
        for (unsigned i = 0; i < ENTRIES; i++)
            items[p][i] = (item_t){.producer = p, .number = i};
        producers[p] = (producer_t){&queue, items[p]};
        assert_int_equal(pthread_create(&threads[p], NULL, produce, &producers[p]), 0);
    }
    for (unsigned i = 0; i < PRODUCERS * ENTRIES; i++) {
        /* Every way to pop takes its turn. */
        dj_queue_entry_t *entry = i % 3 == 0 ? dj_queue_try_pop(&queue) : NULL;
        item_t *item = (item_t *)(entry ? entry : dj_queue_pop(&queue, i % 2 ? 5000 : 0));
        assert_non_null(item);
        assert_int_equal(item->number, next[item->producer]++);
    }
    for (unsigned p = 0; p < PRODUCERS; p++)
        pthread_join(threads[p], NULL);
    assert_null(dj_queue_try_pop(&queue));
    assert_int_equal(queue.count, 0);
    dj_queue_fini(&queue);
}

typedef struct sleeper {
    dj_queue_t queue;
    pthread_t thread;
    atomic_int task; /* kernel's name of the thread, once it is about to pop */
} sleeper_t;

static void *pop_once(void *argument)
{
    sleeper_t *sleeper = argument;
    atomic_store(&sleeper->task, (int)gettid());
    return dj_queue_pop(&sleeper->queue, 0);
}

static bool is_asleep(int task)
{
    char path[64], stat[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", task);
    FILE *file = task ? fopen(path, "r") : NULL;
    if (!file)
        return false;
    size_t size = fread(stat, 1, sizeof stat - 1, file);
    fclose(file);
    stat[size] = 0;
    const char *name_end = strrchr(stat, ')');
    return name_end && strncmp(name_end, ") S", 3) == 0;
}

/* Returns once the thread sleeps inside dj_queue_pop(). */
static void start_sleeper(sleeper_t *sleeper)
{
    const uint64_t end_ns = dj_clock_ns() + 10 * DJ_NS_PER_S;
    sleeper->task = 0;
    assert_int_equal(dj_queue_init(&sleeper->queue), DJ_OK);
    assert_int_equal(pthread_create(&sleeper->thread, NULL, pop_once, sleeper), 0);
    while (!is_asleep(atomic_load(&sleeper->task))) {
        assert_true(dj_clock_ns() < end_ns);
        sched_yield();
    }
}

static void *join_sleeper(sleeper_t *sleeper)
{
    struct timespec end;
    void *popped = sleeper;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 10;
    assert_int_equal(pthread_timedjoin_np(sleeper->thread, &popped, &end), 0);
    dj_queue_fini(&sleeper->queue);
    return popped;
}

static void a_push_wakes_a_sleeper(void **state)
{
    sleeper_t sleeper;
    start_sleeper(&sleeper);
    dj_queue_push(&sleeper.queue, &items[0][0].entry);
    assert_ptr_equal(join_sleeper(&sleeper), &items[0][0].entry);
}

static void closing_wakes_a_sleeper(void **state)
{
    sleeper_t sleeper;
    start_sleeper(&sleeper);
    dj_queue_close(&sleeper.queue);
    assert_null(join_sleeper(&sleeper));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_or_closed_queue_gives_nothing),
        cmocka_unit_test(a_closed_queue_is_still_emptied_in_order),
        cmocka_unit_test(a_push_wakes_a_sleeper),
        cmocka_unit_test(closing_wakes_a_sleeper),
        cmocka_unit_test(a_poller_is_woken_when_the_queue_fills_and_closes),
        cmocka_unit_test(each_producer_keeps_its_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
