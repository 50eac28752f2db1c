/* test_group_loss.c - a member is killed or stopped in the middle of broadcasts, barriers and
 * gathers, as a leaf, an inner node or the root: nobody hangs, what is called a success is one, and
 * then the rest goes on as if it had never been there. Real processes; the victim ends by its own
 * timer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/prctl.h>
#include <time.h>

#include "group_node.h"

enum { MEMBERS = 7, ROOT = 0, INNER = 4, LEAF = 5, BIG = 16 << 20, BLOCK = 200000 };

static struct plan {
    dj_group_kind_t kind;
    int victim, signal;
    uint64_t deadline_ms;
    int calls;
    uint32_t die_us; /* at most, after the first common barrier */
} plan;

static int end_signal;

static void end_now(int number)
{
    kill(getpid(), end_signal);
}

static void end_by_timer(uint64_t after_us)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec when = {.it_value = {.tv_nsec = (long)(after_us * 1000 + 1)}};
    timer_t timer;
    end_signal = plan.signal;
    CHECK(signal(SIGUSR1, end_now) != SIG_ERR);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &when, NULL) == 0);
}

/* ---- one call, with what must hold whatever it says ---- */

static dj_status_t call_broadcast(member_t *member, uint8_t *data, uint32_t root, uint64_t bytes,
                                  uint64_t deadline_ms)
{
    uint64_t round = dj_group_round(member->group) + 1;
    memset(data, 0, bytes);
    if ((uint32_t)node_number == root)
        fill(data, bytes, round);
    dj_status_t status = dj_group_broadcast(member->group, root, data, bytes, in_ms(deadline_ms));
    if (status == DJ_OK)
        check_filled(data, bytes, round);
    return status;
}

static bool all_zero(const uint8_t *data, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; ++i)
        if (data[i] != 0)
            return false;
    return true;
}

static dj_status_t call_gather(member_t *member, uint8_t *data, uint32_t root, uint64_t deadline_ms,
                               bool without)
{
    uint8_t *all = data + BLOCK;
    fill(data, BLOCK, (uint64_t)node_number);
    memset(all, 0xee, (size_t)MEMBERS * BLOCK);
    dj_status_t status = dj_group_gather(member->group, root, data, BLOCK, all, in_ms(deadline_ms));
    if ((uint32_t)node_number != root)
        return status;
    for (int i = 0; i < MEMBERS; ++i) {
        const uint8_t *part = all + (size_t)i * BLOCK;
        if ((i == plan.victim || status != DJ_OK) && all_zero(part, BLOCK))
            continue;
        CHECK(i != plan.victim || !without);
        check_filled(part, BLOCK, (uint64_t)i);
    }
    return status;
}

static dj_status_t call(member_t *member, uint8_t *data)
{
    if (plan.kind == DJ_GROUP_BROADCAST)
        return call_broadcast(member, data, ROOT, BIG, plan.deadline_ms);
    if (plan.kind == DJ_GROUP_GATHER)
        return call_gather(member, data, ROOT, plan.deadline_ms, false);
    return dj_group_barrier(member->group, in_ms(plan.deadline_ms));
}

/* ---- members ---- */

/* What the owner does when heartbeats end. */
static void give_up_victim(member_t *member)
{
    if (member->dead[plan.victim])
        return;
    member->dead[plan.victim] = true;
    dj_endpoint_close(member->node->endpoints[plan.victim]);
    dj_group_lost(member->group, (uint32_t)plan.victim);
}

static void wait_for_end(member_t *member)
{
    dj_endpoint_t *endpoint;
    uint64_t until_ns = in_ms(10000);
    while (plan.signal == SIGKILL &&
           member_reach(member, (uint32_t)plan.victim, &endpoint) == DJ_OK) {
        dj_comm_wait(member->node->comm, 0, 1);
        dj_group_progress(member->group);
        CHECK(dj_clock_ns() < until_ns);
    }
    dj_group_lost(member->group, (uint32_t)plan.victim);
    give_up_victim(member);
}

static void go_on_without(member_t *member, uint8_t *data)
{
    uint32_t root = plan.victim == 0 ? 1 : 0;
    for (int i = 0; i < 3; ++i) {
        CHECK(dj_group_barrier(member->group, in_ms(10000)) == DJ_OK);
        CHECK(call_broadcast(member, data, root + 1, (1 << 20) + 3, 10000) == DJ_OK);
        CHECK(call_broadcast(member, data, root, 100, 10000) == DJ_OK);
        CHECK(call_gather(member, data, root, 10000, true) == DJ_OK);
    }
}

static void main_survives(node_t *node)
{
    member_t member = {0};
    uint8_t *data = malloc(BIG);
    int failed = 0;
    member_open(&member, node, 2);
    CHECK(dj_group_barrier(member.group, in_ms(20000)) == DJ_OK);
    for (int i = 0; i < plan.calls; ++i) {
        uint64_t begun_ns = dj_clock_ns();
        dj_status_t status = call(&member, data);
        uint64_t took_ns = dj_clock_ns() - begun_ns;
        CHECK(status == DJ_OK || status == DJ_ERR_PEER_DIED || status == DJ_ERR_DEADLINE);
        CHECK(took_ns < (plan.deadline_ms + 3000) * DJ_NS_PER_MS);
        if (plan.signal == SIGKILL)
            CHECK(took_ns < 8 * DJ_NS_PER_S); /* the news, not the deadline, ended it */
        failed += status != DJ_OK;
        if (status != DJ_OK && plan.signal == SIGSTOP)
            give_up_victim(&member);
    }
    __atomic_fetch_add((int *)node->shared + 1, failed, __ATOMIC_SEQ_CST);
    wait_for_end(&member);
    go_on_without(&member, data);
    if (plan.signal == SIGSTOP)
        kill(*(pid_t *)node->shared, SIGKILL);
    member_close(&member);
    free(data);
}

static void main_is_victim(node_t *node)
{
    member_t member = {0};
    uint8_t *data = malloc(BIG);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* stopped, it would outlive a test that was ended */
    *(pid_t *)node->shared = getpid();
    member_open(&member, node, 2);
    CHECK(dj_group_barrier(member.group, in_ms(20000)) == DJ_OK);
    end_by_timer(dj_random_u64() % plan.die_us);
    for (;;)
        call(&member, data);
}

static void lose(dj_group_kind_t kind, int victim, int signal)
{
    node_main_t mains[MEMBERS];
    int statuses[MEMBERS];
    plan = (struct plan){.kind = kind,
                         .victim = victim,
                         .signal = signal,
                         .deadline_ms = signal == SIGSTOP ? 1200 : 20000,
                         .calls = kind == DJ_GROUP_BARRIER ? 100 : 3,
                         .die_us = kind == DJ_GROUP_BARRIER ? 1500 : 15000};
    for (int i = 0; i < MEMBERS; ++i)
        mains[i] = i == victim ? main_is_victim : main_survives;
    /* Barriers are small messages without a pause: over shared memory a member killed inside one may leave
     * the queue of another blocked for good, which is UCX's matter (runtime/probe.c), not the group's. */
    run_nodes(MEMBERS, mains, kind == DJ_GROUP_BARRIER ? TRANSPORT_LOOPBACK : TRANSPORT_SHM,
              statuses);
    for (int i = 0; i < MEMBERS; ++i) {
        if (i == victim)
            assert_true(WIFSIGNALED(statuses[i]) && WTERMSIG(statuses[i]) == SIGKILL);
        else
            assert_int_equal(statuses[i], 0);
    }
}

static void lose_each(dj_group_kind_t kind, int signal)
{
    static const int victims[] = {LEAF, INNER, ROOT};
    for (int i = 0; i < 3; ++i)
        lose(kind, victims[i], signal);
}

static void test_kill_in_broadcast(void **state)
{
    lose_each(DJ_GROUP_BROADCAST, SIGKILL);
}

static void test_kill_in_barrier(void **state)
{
    lose_each(DJ_GROUP_BARRIER, SIGKILL);
}

static void test_kill_in_gather(void **state)
{
    lose_each(DJ_GROUP_GATHER, SIGKILL);
}

static void test_stop_in_broadcast(void **state)
{
    lose_each(DJ_GROUP_BROADCAST, SIGSTOP);
}

/* ---- who knows of a death, and who does not ---- */

static void main_root_ends(node_t *node)
{
    member_t member = {0};
    int *through = node->shared;
    member_open(&member, node, 2);
    CHECK(dj_group_barrier(member.group, in_ms(20000)) == DJ_OK);
    while (__atomic_load_n(through, __ATOMIC_SEQ_CST) < MEMBERS - 1) {
        dj_comm_wait(node->comm, 0, 1);
        dj_group_progress(member.group);
    }
    _exit(0);
}

/* Members 1, 2 and 4 know that the root is dead when they come; 3, 5 and 6 come before that, and wait for 2 and 4,
 * who ask elsewhere. */
static void main_meets_without_root(node_t *node)
{
    member_t member = {0};
    dj_endpoint_t *endpoint;
    int *through = node->shared;
    bool knows = node->number == 1 || node->number == 2 || node->number == 4;
    member_open(&member, node, 2);
    CHECK(dj_group_barrier(member.group, in_ms(20000)) == DJ_OK);
    __atomic_fetch_add(through, 1, __ATOMIC_SEQ_CST);
    while (knows && member_reach(&member, ROOT, &endpoint) == DJ_OK) {
        dj_comm_wait(node->comm, 0, 1);
        dj_group_progress(member.group);
    }
    if (knows)
        dj_group_lost(member.group, ROOT);
    uint64_t begun_ns = dj_clock_ns();
    dj_status_t status = dj_group_barrier(member.group, in_ms(20000));
    CHECK(status == DJ_OK || status == DJ_ERR_PEER_DIED);
    CHECK(dj_clock_ns() - begun_ns < 8 * DJ_NS_PER_S); /* silence would be told of after 12 s */
    CHECK(dj_group_barrier(member.group, in_ms(10000)) == DJ_OK);
    member_close(&member);
}

static void test_root_known_dead_by_some(void **state)
{
    node_main_t mains[MEMBERS];
    int statuses[MEMBERS];
    for (int i = 0; i < MEMBERS; ++i)
        mains[i] = i == ROOT ? main_root_ends : main_meets_without_root;
    run_nodes(MEMBERS, mains, TRANSPORT_LOOPBACK, statuses);
    for (int i = 0; i < MEMBERS; ++i)
        assert_int_equal(statuses[i], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root_known_dead_by_some),
        cmocka_unit_test(test_kill_in_broadcast), cmocka_unit_test(test_kill_in_barrier),
        cmocka_unit_test(test_kill_in_gather),    cmocka_unit_test(test_stop_in_broadcast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
