/* programs.c - djinn-selftest --gpu-tests: the test programs of the CUDA device on this machine's GPU, one table.
 *
 * They lie in lib/djinn/tests of the installation, or beside this program in a build. Each is a CMocka program that
 * says how many of its cases passed; a program that ends badly without saying so has failed. What failed is printed
 * before the table's row. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/selftest/selftest.h"

enum { SKIPPED = 77, LINE_MAX_BYTES = 1024, PATH_BYTES = 640 };

static const char *const programs[] = {"ops", "emit", "replay", "rank"};

typedef struct row {
    unsigned passed, failed, skipped;
    int status; /* of waitpid() */
    double seconds;
    char why[LINE_MAX_BYTES]; /* of a program that was skipped */
} row_t;

/* False: it is not there. */
static bool find(const char *name, char path[PATH_BYTES])
{
    static const char *const places[] = {"%s/gpu_cuda_test_%s", "%s/../" DJINN_TESTS_DIR "/gpu_cuda_test_%s"};
    char here[512];
    ssize_t length = readlink("/proc/self/exe", here, sizeof here - 1);
    char *slash = length > 0 ? memrchr(here, '/', (size_t)length) : NULL;
    if (!slash)
        return false;
    *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(path, PATH_BYTES, places[i], here, name); /* NOLINT: both are ours */
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static void read_line(row_t *row, const char *name, const char *line)
{
    unsigned count;
    if (sscanf(line, "[  PASSED  ] %u test", &count) == 1)
        row->passed += count;
    else if (sscanf(line, "[  FAILED  ] %*[^:]: %u test", &count) == 1 || sscanf(line, "[  FAILED  ] %u test", &count) == 1)
        row->failed += count;
    else if (sscanf(line, "[  SKIPPED ] %*[^:]: %u test", &count) == 1 || sscanf(line, "[  SKIPPED ] %u test", &count) == 1)
        row->skipped += count;
    else if (strncmp(line, "[  ERROR   ]", 12) == 0 || strncmp(line, "[  FAILED  ]", 12) == 0)
        fprintf(stderr, "%s: %s\n", name, line);
    else if (strncmp(line, "skipped: ", 9) == 0)
        snprintf(row->why, sizeof row->why, "%s", line + 9);
}

static void read_output(row_t *row, const char *name, int fd)
{
    char line[LINE_MAX_BYTES];
    FILE *file = fdopen(fd, "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        read_line(row, name, line);
    }
    if (file)
        fclose(file);
}

/* In a process group of its own, which an alarm of its own ends. */
static void run(row_t *row, const char *name, const char *path, unsigned limit_s)
{
    int out[2];
    double began = dj_selftest_now_ms();
    row->status = -1;
    if (pipe(out) != 0)
        return;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        alarm(limit_s);
        if (dup2(out[1], 1) >= 0 && dup2(out[1], 2) >= 0 && close(out[0]) == 0 && close(out[1]) == 0)
            execl(path, path, (char *)NULL);
        _exit(126);
    }
    close(out[1]);
    if (pid < 0) {
        close(out[0]);
        return;
    }
    read_output(row, name, out[0]);
    while (waitpid(pid, &row->status, 0) < 0 && errno == EINTR)
        continue;
    row->seconds = (dj_selftest_now_ms() - began) / 1e3;
}

static void judge(row_t *row, const char *name)
{
    bool exited = row->status >= 0 && WIFEXITED(row->status);
    if (exited && WEXITSTATUS(row->status) == SKIPPED) {
        row->skipped++;
        return;
    }
    if (exited && WEXITSTATUS(row->status) == 0 && row->passed + row->skipped > 0)
        return;
    if (row->failed == 0) {
        fprintf(stderr, "%s: ended with %s %d\n", name, exited ? "status" : "signal",
                exited ? WEXITSTATUS(row->status) : row->status & 0x7f);
        row->failed++;
    }
}

int dj_selftest_programs(unsigned limit_s)
{
    double began = dj_selftest_now_ms();
    unsigned passed = 0, failed = 0, skipped = 0;
    printf("%-20s %7s %7s %7s %9s\n", "program", "passed", "failed", "skipped", "seconds");
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
        char path[PATH_BYTES];
        row_t row = {0};
        double spent = (dj_selftest_now_ms() - began) / 1e3;
        if (!find(programs[i], path))
            snprintf(row.why, sizeof row.why, "it is not installed"), row.skipped = 1;
        else if (spent + 1 > limit_s)
            snprintf(row.why, sizeof row.why, "no time is left"), row.failed = 1;
        else
            run(&row, programs[i], path, limit_s - (unsigned)spent), judge(&row, programs[i]);
        passed += row.passed, failed += row.failed, skipped += row.skipped;
        printf("%-20s %7u %7u %7u %9.1f%s%s\n", programs[i], row.passed, row.failed, row.skipped, row.seconds,
               row.why[0] ? "  " : "", row.why);
        fflush(stdout);
    }
    printf("%u passed, %u failed, %u skipped in %.1f s\n", passed, failed, skipped,
           (dj_selftest_now_ms() - began) / 1e3);
    return failed == 0 && passed > 0 ? 0 : 1;
}
