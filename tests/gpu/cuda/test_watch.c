/* test_watch.c - a GPU that ends nothing any more is given up, and one that is only slow is not. On the simulator. */
#include "tests/gpu/cuda/replayed.h"

#include <pthread.h>
#include <unistd.h>

#include "runtime/base/clock.h"

enum { LIMIT_MS = 300 };

static uint64_t ms_since(uint64_t began_ns)
{
    return (dj_clock_ns() - began_ns) / DJ_NS_PER_MS;
}

/* Everything is refused at once, and nothing waits for the driver, but for the thread that is held: that one is let go
 * here, so that it can be joined. */
static void nobody_is_kept(program_t *program, session_t *session, pthread_t *held)
{
    uint64_t began_ns = dj_clock_ns();
    uint8_t byte = 0;
    assert_int_equal(cuda->ops->memory.copy_out(cuda, &byte, session->bindings[0], 1), DJ_ERR_DEVICE);
    dj_launch_t launch = {session->bindings, program->stack.base, NULL, scalars_of(program)};
    assert_true(ms_since(began_ns) < LIMIT_MS);
    end_hang();
    assert_int_equal(pthread_join(*held, NULL), 0);
    assert_int_equal(cuda->ops->replay(program->on_cuda.exe, &launch), DJ_ERR_DEVICE);
    session_close(session);
    program_close(program);
    dj_device_close(cuda);
}

typedef struct victim {
    program_t program;
    session_t session;
    atomic_bool over;
    dj_status_t status;
} victim_t;

static void *replay_alone(void *argument)
{
    victim_t *victim = argument;
    victim->status = replay(&victim->program, &victim->session);
    victim->over = true;
    return NULL;
}

/* A replay on a thread of its own, looked after by this one; DJ_OK: it has ended. */
static dj_status_t look_after(victim_t *victim, pthread_t *thread)
{
    uint64_t began_ns = dj_clock_ns();
    dj_status_t status = DJ_OK;
    victim->over = false;
    assert_int_equal(pthread_create(thread, NULL, replay_alone, victim), 0);
    while (!victim->over && status == DJ_OK && ms_since(began_ns) < 20 * LIMIT_MS) {
        usleep(10000);
        status = cuda->ops->responds(cuda);
    }
    if (status != DJ_OK)
        assert_true(ms_since(began_ns) >= LIMIT_MS);
    return status;
}

static void lose(record_t record, int warm, int stuck, const char *words)
{
    dj_device_t *whole = cuda;
    victim_t victim = {.status = DJ_OK};
    pthread_t thread;
    cuda = open_cuda_within(LIMIT_MS);
    assert_non_null(cuda);
    program_open(&victim.program, record);
    session_open(&victim.session, &victim.program, 1, NULL);
    for (int i = 0; i < warm; i++)
        run_both(&victim.program, &victim.session);
    CHECK_OK(cuda->ops->responds(cuda));
    hang_next(stuck);
    assert_int_equal(look_after(&victim, &thread), DJ_ERR_DEVICE);
    assert_non_null(strstr(dj_error_text(), cuda->ops->info(cuda)->name));
    assert_non_null(strstr(dj_error_text(), "nothing has ended there for 300 ms (--kernel-limit-ms)"));
    if (words && !strstr(dj_error_text(), words))
        print_error("%s\n", dj_error_text());
    assert_true(!words || strstr(dj_error_text(), words));
    nobody_is_kept(&victim.program, &victim.session, &thread);
    cuda = whole;
}

static void a_kernel_that_never_ends_loses_the_device(void **state)
{
    if (!hang_next)
        skip();
    lose(record_network, 0, 0, "a replay, nodes 0, ");
    lose(record_network, 3, 0, "a replay, nodes 0, ");
    lose(record_cache, 3, 0, NULL);
}

/* It is in the driver for something else than to wait. */
static void a_call_that_never_returns_loses_the_device(void **state)
{
    if (!hang_next)
        skip();
    lose(record_network, 0, 1, NULL);
    lose(record_network, 3, 1, NULL);
}

static void rest(void *argument)
{
    usleep(*(const unsigned *)argument);
}

static dj_status_t call_rest(const dj_cuda_kernel_t *kernel, dj_cuda_device_t *device, CUstream stream,
                             const CUdeviceptr *addresses)
{
    unsigned us = 2 * LIMIT_MS * 1000 / 3;
    return dj_cuda_status(enqueue(stream, rest, &us, sizeof(us)), "a rest");
}

static dj_status_t emit_rest(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    return dj_cuda_emit_call(emit, kernel, call_rest, NULL, 0);
}

/* The limit is of silence, not of a replay. */
static void a_long_replay_that_gets_on_is_let_be(void **state)
{
    victim_t victim = {.status = DJ_OK};
    pthread_t thread;
    dj_device_t *whole = cuda;
    if (!enqueue)
        skip();
    cuda = open_cuda_within(LIMIT_MS);
    assert_non_null(cuda);
    program_open(&victim.program, record_moves);
    session_open(&victim.session, &victim.program, 1, NULL);
    for (uint32_t i = 0; i < 4; i++) {
        exe_of(&victim.program.on_cuda)->kernels[i].emit = emit_rest;
        exe_of(&victim.program.on_cuda)->steps[i].predicted_ns = 3e6;
        exe_of(&victim.program.on_cuda)->steps[i].fused = NULL;
    }
    for (int i = 0; i < 2; i++) {
        CHECK_OK(look_after(&victim, &thread));
        assert_int_equal(pthread_join(thread, NULL), 0);
        CHECK_OK(victim.status);
    }
    assert_int_equal(exe_of(&victim.program.on_cuda)->counters.graph_replays, 1);
    session_close(&victim.session);
    program_close(&victim.program);
    dj_device_close(cuda);
    cuda = whole;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_that_never_ends_loses_the_device),
        cmocka_unit_test(a_call_that_never_returns_loses_the_device),
        cmocka_unit_test(a_long_replay_that_gets_on_is_let_be),
    };
    if (!devices_open())
        return 77;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    devices_close();
    return failed;
}
