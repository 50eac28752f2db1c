/* test_many_clients.c - a thousand clients of one rank, a hundred of them at work.
 *
 * Ten processes hold ten active connections each, nine more hold a hundred idle ones each. What the active
 * ones ask is checked to the element; each connection must be served every time. Latencies are taken with
 * the idle ones connected and without them, in turns, because nothing else may differ; a figure of one pair
 * is news, not a verdict: `runtime_test_many_clients 15` takes as many pairs and prints the median of their
 * ratios. Memory of an idle client is what its coming adds to the rank, and to its own process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "tests/runtime/server.h"

enum {
    ACTIVE_PROCESSES = 10, ACTIVE_EACH = 10,
    IDLE_PROCESSES = 9, IDLE_EACH = 100,
    PROCESSES = ACTIVE_PROCESSES + IDLE_PROCESSES,
    SAMPLES = 1 << 18,
    ELEMENTS = 16,
    PAUSE_US = 2000,
};

typedef struct part { /* of one process, shared with the parent */
    uint32_t samples, wrong, connected;
    uint32_t asked[IDLE_EACH];
    uint64_t before_kb, after_kb; /* its memory without and with its connections */
    char error[256];
    float us[SAMPLES];
} part_t;

typedef struct process {
    pid_t pid;
    int order, answer; /* pipes */
    part_t *part;
} process_t;

typedef struct order {
    char what; /* o: open, r: run, c: close */
    uint32_t value; /* connections; milliseconds; - */
} order_t;

static server_t server;
static process_t processes[PROCESSES];
static int pairs = 1, run_ms = 1500;

/* ---- measuring ---- */

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static uint64_t resident_kb(pid_t pid)
{
    char path[64], line[256];
    unsigned long kb = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmRSS: %lu", &kb) == 1)
            break;
    if (file)
        fclose(file);
    return kb;
}

/* Percent of one core over `ms`. */
static double cpu_percent(pid_t pid, int ms)
{
    unsigned long user[2] = {0}, system[2] = {0};
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    double began = now_us();
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(path, "re");
        if (file && fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                           &user[i], &system[i]) != 2)
            user[i] = 0;
        if (file)
            fclose(file);
        if (i == 0)
            sleep_ms(ms);
    }
    double ticks = (double)(user[1] - user[0] + system[1] - system[0]);
    return ticks / (double)sysconf(_SC_CLK_TCK) / ((now_us() - began) / 1e6) * 100;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- a process of clients ---- */

static bool ask(djinn_t *djinn, float number)
{
    float a[ELEMENTS], sum[ELEMENTS];
    int64_t count = ELEMENTS;
    djinn_tensor_t in, out;
    for (int i = 0; i < ELEMENTS; i++)
        a[i] = number + (float)i;
    if (djinn_upload(djinn, DJINN_FLOAT32, 1, &count, a, 0, &in) != DJINN_OK)
        return false;
    djinn_arg_t args[] = {{.kind = DJINN_ARG_TENSOR, .value.tensors = &in},
                          {.kind = DJINN_ARG_TENSOR, .value.tensors = &in},
                          {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1}};
    djinn_status_t status = djinn_record(djinn, djinn_op("aten::add.Tensor"), args, 3, &out);
    djinn_release(in.storage);
    if (status != DJINN_OK)
        return false;
    status = djinn_fetch(djinn, &out, sum, sizeof(sum));
    djinn_release(out.storage);
    for (int i = 0; i < ELEMENTS && status == DJINN_OK; i++)
        if (sum[i] != 2 * a[i])
            status = DJINN_ERR_CORRUPT;
    return status == DJINN_OK;
}

static void open_all(part_t *part, djinn_t **djinns, uint32_t count)
{
    djinn_options_t options = server_options(&server);
    options.mode = getenv("TEST_MODE");
    part->before_kb = resident_kb(getpid());
    for (part->connected = 0; part->connected < count; part->connected++)
        if (djinn_connect(&options, &djinns[part->connected]) != DJINN_OK) {
            snprintf(part->error, sizeof(part->error), "connection %u: %s", part->connected,
                     djinn_error());
            break;
        }
    part->after_kb = resident_kb(getpid());
}

static void run_all(part_t *part, djinn_t **djinns, uint32_t ms)
{
    double until = now_us() + ms * 1e3;
    struct timespec pause = {.tv_nsec = PAUSE_US * 1000};
    part->samples = part->wrong = 0;
    memset(part->asked, 0, sizeof(part->asked));
    do {
        for (uint32_t i = 0; i < part->connected; i++) {
            double began = now_us();
            if (!ask(djinns[i], (float)(part->samples % 1000))) {
                part->wrong++;
                snprintf(part->error, sizeof(part->error), "client %u: %s", i, djinn_error());
            }
            if (part->samples < SAMPLES)
                part->us[part->samples++] = (float)(now_us() - began);
            part->asked[i]++;
            if (ms)
                nanosleep(&pause, NULL);
        }
    } while (now_us() < until);
}

static void obey(const process_t *process)
{
    static djinn_t *djinns[IDLE_EACH];
    part_t *part = process->part;
    order_t order;
    while (read(process->order, &order, sizeof(order)) == sizeof(order)) {
        if (order.what == 'o')
            open_all(part, djinns, order.value);
        if (order.what == 'r')
            run_all(part, djinns, order.value);
        for (uint32_t i = 0; order.what == 'c' && i < part->connected; i++)
            djinn_close(djinns[i]);
        if (order.what == 'c')
            part->connected = 0;
        if (write(process->answer, "", 1) != 1)
            break;
    }
}

static bool start_process(process_t *process)
{
    int order[2], answer[2];
    process->part = mmap(NULL, sizeof(part_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                         -1, 0);
    if (process->part == MAP_FAILED || pipe(order) != 0 || pipe(answer) != 0)
        return false;
    process->pid = fork();
    if (process->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(order[1]);
        close(answer[0]);
        for (process_t *before = processes; before < process; before++)
            close(before->order);
        process->order = order[0];
        process->answer = answer[1];
        obey(process);
        _exit(0);
    }
    close(order[0]);
    close(answer[1]);
    process->order = order[1];
    process->answer = answer[0];
    return process->pid > 0;
}

/* All of them at once; each has answered on return. */
static void command(int first, int count, char what, uint32_t value)
{
    order_t order = {what, value};
    char byte;
    for (int i = first; i < first + count; i++)
        assert_int_equal(write(processes[i].order, &order, sizeof(order)), sizeof(order));
    for (int i = first; i < first + count; i++) {
        assert_int_equal(read(processes[i].answer, &byte, 1), 1);
        if (processes[i].part->error[0])
            print_error("process %d: %s\n", i, processes[i].part->error);
    }
}

static void command_idle(char what, uint32_t value)
{
    command(ACTIVE_PROCESSES, IDLE_PROCESSES, what, value);
}

static void assert_served(int first, int count, uint32_t each)
{
    for (int i = first; i < first + count; i++) {
        assert_int_equal(processes[i].part->connected, each);
        assert_int_equal(processes[i].part->wrong, 0);
        for (uint32_t c = 0; c < each; c++)
            assert_true(processes[i].part->asked[c] > 0);
    }
}

typedef struct figures {
    double median_us, p99_us, per_s;
} figures_t;

static figures_t work(void)
{
    static double all[SAMPLES];
    size_t n = 0;
    command(0, ACTIVE_PROCESSES, 'r', (uint32_t)run_ms);
    assert_served(0, ACTIVE_PROCESSES, ACTIVE_EACH);
    for (int i = 0; i < ACTIVE_PROCESSES; i++)
        for (uint32_t k = 0; k < processes[i].part->samples && n < SAMPLES; k++)
            all[n++] = processes[i].part->us[k];
    qsort(all, n, sizeof(*all), by_value);
    return (figures_t){all[n / 2], all[n * 99 / 100], (double)n * 1e3 / run_ms};
}

/* ---- the test ---- */

static void print_memory(pid_t rank, uint64_t before_kb)
{
    uint64_t client_kb = 0;
    for (int i = ACTIVE_PROCESSES; i < PROCESSES; i++)
        client_kb += processes[i].part->after_kb - processes[i].part->before_kb;
    print_message("memory of an idle client: %.1f KiB on the rank, %.1f KiB in its own process\n",
                  ((double)resident_kb(rank) - (double)before_kb) / (IDLE_PROCESSES * IDLE_EACH),
                  (double)client_kb / (IDLE_PROCESSES * IDLE_EACH));
}

static void test_thousand_clients(void **state)
{
    double *ratios = calloc((size_t)pairs, sizeof(*ratios));
    pid_t rank = (pid_t)server_number(&server, 0, "pid");
    assert_non_null(ratios);
    for (int i = 0; i < PROCESSES; i++)
        assert_true(start_process(&processes[i]));
    print_message("an idle rank without clients: %.1f%% of a core\n", cpu_percent(rank, 2000));
    command(0, ACTIVE_PROCESSES, 'o', ACTIVE_EACH);
    work(); /* plans, page faults */
    for (int pair = 0; pair < pairs; pair++) {
        figures_t alone = work();
        uint64_t before_kb = resident_kb(rank);
        double began = now_us();
        command_idle('o', IDLE_EACH);
        if (!pair)
            print_message("%d clients came in %.1f s\n", IDLE_PROCESSES * IDLE_EACH,
                          (now_us() - began) / 1e6);
        if (!pair)
            print_memory(rank, before_kb);
        if (!pair)
            print_message("a rank with 1000 idle clients: %.1f%% of a core\n",
                          cpu_percent(rank, 2000));
        figures_t crowd = work();
        ratios[pair] = crowd.median_us / alone.median_us;
        print_message("100 clients: median %.1f us, p99 %.1f us, %.0f/s; with 900 idle ones: median %.1f us, "
                      "p99 %.1f us, %.0f/s; ratio of medians %.3f\n", alone.median_us, alone.p99_us,
                      alone.per_s, crowd.median_us, crowd.p99_us, crowd.per_s, ratios[pair]);
        command_idle('r', 0); /* the idle ones are still there: one request each */
        assert_served(ACTIVE_PROCESSES, IDLE_PROCESSES, IDLE_EACH);
        command_idle('c', 0);
    }
    qsort(ratios, (size_t)pairs, sizeof(*ratios), by_value);
    print_message("median ratio of %d pairs: %.3f\n", pairs, ratios[pairs / 2]);
    free(ratios);
    command(0, ACTIVE_PROCESSES, 'c', 0);
    assert_true(server_is_empty(&server, 0));
}

static int start(void **state)
{
    /* A hundred clients at work on few cores: who is late is not dead. */
    static const char *const words[] = {"--threads", "1", "--suspect-ms", "20s", NULL};
    setenv("DJINN_SUSPECT_MS", "20s", 1);
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    for (int i = 0; i < PROCESSES; i++)
        if (processes[i].pid > 0) {
            close(processes[i].order);
            waitpid(processes[i].pid, NULL, 0);
        }
    return server_stop(&server) ? 0 : -1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_thousand_clients)};
    if (argc > 1)
        pairs = atoi(argv[1]);
    if (pairs < 1 || pairs > 1000)
        return 1;
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
