/* test_improve.c - hot programs get better plans while they run: results stay what they were, and the
 * peak that is measured (under --poison) is the one predicted.
 *
 * Better plans are published: a rank that sees these programs for the first time adopts them.
 *
 * Programs are makings and deaths at random whose first plan is above the bound (hard_intervals.h). Two clients replay each without a pause, one of them long enough for the device thread and one
 * short enough for the progress thread, while the rank searches and exchanges.
 *
 * A search gets what others leave, which beside other tests may be little: limits are wide. And a rank ends in time
 * although its search gets next to nothing. */
#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/client/ops.h"
#include "tests/runtime/hard_intervals.h"
#include "tests/runtime/server.h"

enum { ELEMENTS = INTERVAL_ELEMENTS, PROGRAMS = 24, SHORT_PROGRAMS = 6, FEW = 3, MANY = 24, LIMIT_MS = 100000 };

static uint64_t seeds[PROGRAMS], short_seeds[SHORT_PROGRAMS];

static server_t server;

/* Silence is no subject here, where clients and ranks get little of a core. */
#define SILENCE "60s"

static bool start_ranks(int ranks)
{
    static const char *const words[] = {"--threads", "1", "--improve-hits", "20",
                                        "--improve-percent", "100", "--suspect-ms", SILENCE, NULL};
    setenv("DJINN_SUSPECT_MS", SILENCE, 1); /* of clients */
    return server_start(&server, ranks, words);
}

static int start(void **state)
{
    return start_ranks(1) ? 0 : -1;
}

static int start_workers(void **state)
{
    return start_ranks(3) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

/* ---- a core that is never idle ---- */

static cpu_set_t cores;
static pid_t spinners[MANY];

static void spin(int first, int end)
{
    for (int i = first; i < end; i++)
        if ((spinners[i] = fork()) == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (volatile unsigned n = 0;; n++)
                continue;
        }
}

/* This process and those it starts have one core, and others compute on it. */
static int start_on_a_busy_core(void **state)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    sched_getaffinity(0, sizeof(cores), &cores);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &cores))
            CPU_SET(i, &one);
    if (sched_setaffinity(0, sizeof(one), &one) != 0)
        return -1;
    spin(0, FEW);
    return start_ranks(1) ? 0 : -1;
}

static int leave_the_core(void **state)
{
    for (int i = 0; i < MANY; i++)
        if (spinners[i] > 0) {
            kill(spinners[i], SIGKILL);
            waitpid(spinners[i], NULL, 0);
        }
    return sched_setaffinity(0, sizeof(cores), &cores);
}

static bool reads(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "r");
    bool good = file && fgets(text, (int)size, file);
    if (file)
        fclose(file);
    return good;
}

/* Has a rank, a child of the server, a search under way? */
static bool searches(void)
{
    char path[512], text[64];
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", server.pid, server.pid);
    if (!reads(path, text, sizeof(text)))
        return false;
    snprintf(path, sizeof(path), "/proc/%ld/task", strtol(text, NULL, 10));
    DIR *folder = opendir(path);
    for (struct dirent *task; folder && !found && (task = readdir(folder));) {
        snprintf(path, sizeof(path), "/proc/%ld/task/%s/comm", strtol(text, NULL, 10), task->d_name);
        char name[32];
        found = isdigit((unsigned char)task->d_name[0]) && reads(path, name, sizeof(name)) &&
                strcmp(name, "dj-search\n") == 0;
    }
    if (folder)
        closedir(folder);
    return found;
}

static djinn_tensor_t window(djinn_tensor_t tensor, int64_t offset, int64_t size)
{
    tensor.offset = offset;
    tensor.sizes[0] = size;
    return tensor;
}

/* The program's one output: the sum of one element of each tensor, which differ. */
static float run(djinn_t *djinn, djinn_tensor_t x, const interval_step_t *steps, uint32_t n_steps)
{
    djinn_tensor_t tensors[INTERVALS_MAX], sum = window(x, 0, 1);
    float result;
    djinn_retain(sum.storage);
    for (uint32_t i = 0; i < n_steps; i++) {
        uint32_t number = steps[i].number;
        if (steps[i].units) {
            djinn_tensor_t part = window(x, number, steps[i].units * 64);
            djinn_arg_t args[] = {(djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = &part}};
            assert_ok(djinn_record(djinn, djinn_op("aten::exp"), args, 1, &tensors[number]));
        } else {
            djinn_tensor_t next = record_add(djinn, sum, window(tensors[number], 0, 1));
            djinn_release(sum.storage);
            djinn_release(tensors[number].storage);
            sum = next;
        }
    }
    assert_ok(djinn_fetch(djinn, &sum, &result, sizeof(result)));
    djinn_release(sum.storage);
    return result;
}

typedef struct client {
    pthread_t thread;
    uint32_t n, alive_max, n_programs;
    const uint64_t *seeds; /* of the programs */
    int rank;      /* 0: any */
    atomic_bool *enough;
    uint32_t rounds, wrong;
} client_t;

static float expected(const float *values, uint32_t n)
{
    float sum = values[0];
    for (uint32_t i = 0; i < n; i++)
        sum += expf(values[i]);
    return sum;
}

/* Every result of a program must be the first one, to the bit. */
static void *client_main(void *argument)
{
    client_t *client = argument;
    interval_step_t steps[PROGRAMS][2 * INTERVALS_MAX];
    uint32_t n_steps[PROGRAMS];
    float values[ELEMENTS], first[PROGRAMS];
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    options.flags = client->rank ? DJINN_CONNECT_RANK : 0;
    options.rank = client->rank;
    assert_ok(djinn_connect(&options, &djinn));
    for (int i = 0; i < ELEMENTS; i++)
        values[i] = (float)(i % 997) / 997;
    djinn_tensor_t x = upload_vector(djinn, values, ELEMENTS);
    for (uint32_t i = 0; i < client->n_programs; i++) {
        n_steps[i] = random_intervals(client->seeds[i], client->n, client->alive_max, steps[i]);
        first[i] = run(djinn, x, steps[i], n_steps[i]);
        client->wrong += fabsf(first[i] - expected(values, client->n)) > 1e-3f * first[i];
    }
    for (; !atomic_load(client->enough); client->rounds++)
        for (uint32_t i = 0; i < client->n_programs; i++)
            client->wrong += run(djinn, x, steps[i], n_steps[i]) != first[i];
    djinn_release(x.storage);
    djinn_close(djinn);
    return NULL;
}

static bool rises_to(const char *name, int rank, uint64_t least)
{
    uint64_t end_ms = now_ms() + LIMIT_MS;
    while (server_number(&server, rank, name) < least && now_ms() < end_ms)
        sleep_ms(20);
    return server_number(&server, rank, name) >= least;
}

#define LONG_ONES(flag)                                                                            \
    {.n = 60, .alive_max = 9, .n_programs = PROGRAMS, .seeds = seeds, .enough = (flag)}
/* Short enough for the progress thread. */
#define SHORT_ONES(flag)                                                                           \
    {.n = 14, .alive_max = 8, .n_programs = SHORT_PROGRAMS, .seeds = short_seeds, .enough = (flag)}

/* Two clients, so that one's requests run while the other's plan is exchanged. */
static void short_programs_too(void **state)
{
    atomic_bool enough = false;
    client_t clients[] = {SHORT_ONES(&enough), SHORT_ONES(&enough)};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    bool improved = rises_to("plan_improved", 0, 1);
    sleep_ms(200);
    atomic_store(&enough, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(clients[i].thread, NULL);
        assert_int_equal(clients[i].wrong, 0);
    }
    assert_true(improved);
}

static void hot_programs_get_better_plans(void **state)
{
    atomic_bool enough = false;
    client_t clients[] = {LONG_ONES(&enough), LONG_ONES(&enough), SHORT_ONES(&enough)};
    enum { CLIENTS = sizeof(clients) / sizeof(*clients) };
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    bool improved = rises_to("plan_improved", 0, 4);
    sleep_ms(200); /* with the new plans, too */
    atomic_store(&enough, true);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        assert_int_equal(clients[i].wrong, 0);
        assert_true(clients[i].rounds > 0);
    }
    print_message("%llu plans improved in %u rounds\n",
                  (unsigned long long)server_number(&server, 0, "plan_improved"),
                  clients[0].rounds);
    assert_true(improved);
    assert_true(server_is_empty(&server, 0));
}

static void better_plans_travel(void **state)
{
    atomic_bool enough = false;
    client_t first = LONG_ONES(&enough), second = LONG_ONES(&enough);
    first.rank = 1;
    second.rank = 2;
    assert_int_equal(pthread_create(&first.thread, NULL, client_main, &first), 0);
    bool improved = rises_to("plan_improved", 1, 3);
    atomic_store(&enough, true);
    pthread_join(first.thread, NULL);
    assert_true(improved);
    assert_true(rises_to("plan_received", 2, PROGRAMS + 3)); /* each made, then better */
    client_main(&second);
    assert_int_equal(first.wrong + second.wrong, 0);
    assert_true(rises_to("plan_adopted", 2, PROGRAMS));
    assert_int_equal(server_number(&server, 2, "plan_misses"), 0);
    assert_int_equal(server_number(&server, 2, "plan_rejected"), 0);
}

static void ends_beside_busy_neighbours(void **state)
{
    atomic_bool enough = false;
    client_t client = LONG_ONES(&enough);
    assert_int_equal(pthread_create(&client.thread, NULL, client_main, &client), 0);
    uint64_t end_ms = now_ms() + LIMIT_MS;
    while (!searches() && now_ms() < end_ms)
        sleep_ms(5);
    bool under_way = searches();
    spin(FEW, MANY);
    atomic_store(&enough, true);
    pthread_join(client.thread, NULL);
    assert_int_equal(client.wrong, 0);
    assert_true(server_stop(&server)); /* else it says that a rank had to be killed */
    assert_true(under_way);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hot_programs_get_better_plans, start, stop),
        cmocka_unit_test_setup_teardown(short_programs_too, start, stop),
        cmocka_unit_test_setup_teardown(better_plans_travel, start_workers, stop),
        cmocka_unit_test_setup_teardown(ends_beside_busy_neighbours, start_on_a_busy_core,
                                        leave_the_core),
    };
    if (hard_intervals(60, 9, PROGRAMS, seeds) < PROGRAMS ||
        hard_intervals(14, 8, SHORT_PROGRAMS, short_seeds) < SHORT_PROGRAMS) {
        print_error("quick placement leaves nothing to improve in these programs: make harder ones\n");
        return 1;
    }
    return server_verdict(cmocka_run_group_tests(tests, NULL, NULL));
}
