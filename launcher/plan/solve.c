/* solve.c - see solve.h.
 *
 * The search runs in a thread of its own; this one waits for it, for a signal and for the next line
 * of progress, so that Ctrl-C ends a search at once and cleanly. */
#include "launcher/plan/solve.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "launcher/plan/rows.h"
#include "runtime/base/clock.h"

#define TIME_DEFAULT_S 60.0
#define TIME_MAX_S 1e9
#define PROGRESS_FIRST_S 2

typedef struct solver {
    const dj_plan_rows_t *rows;
    uint64_t capacity;
    dj_pack_limits_t limits;
    atomic_bool cancel;
    uint64_t *offsets;
    dj_pack_result_t result;
    dj_status_t status;
    char sentence[512]; /* of an error: it belongs to the thread that met it */
    pthread_t waiter;
} solver_t;

typedef struct words {
    const char *path;
    uint64_t capacity;
    double seconds;
    bool has_capacity;
} words_t;

static int wrong(const char *sentence)
{
    fprintf(stderr, "djinn: %s; djinn plan --help shows what there is\n", sentence);
    return 2;
}

static dj_status_t parse_capacity(const char *text, uint64_t *value_p)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > DJ_PACK_SIZE_MAX)
        return dj_fail(DJ_ERR_INVALID, "--capacity takes a number up to 2^62, not '%.32s'", text);
    *value_p = value;
    return DJ_OK;
}

static dj_status_t parse_seconds(const char *text, double *value_p)
{
    char *end;
    double value = strtod(text, &end);
    if (text[0] < '.' || text[0] > '9' || *end != '\0' || !(value > 0) || value > TIME_MAX_S)
        return dj_fail(DJ_ERR_INVALID, "--time takes seconds above 0, not '%.32s'", text);
    *value_p = value;
    return DJ_OK;
}

static dj_status_t parse(int argc, char **argv, words_t *words)
{
    dj_status_t status = DJ_OK;
    *words = (words_t){.seconds = TIME_DEFAULT_S};
    for (int i = 3; i < argc && status == DJ_OK; i++) {
        bool capacity = strcmp(argv[i], "--capacity") == 0, time = strcmp(argv[i], "--time") == 0;
        if ((capacity || time) && i + 1 == argc)
            return dj_fail(DJ_ERR_INVALID, "%s needs a value", argv[i]);
        if (capacity)
            status = parse_capacity(argv[++i], &words->capacity);
        else if (time)
            status = parse_seconds(argv[++i], &words->seconds);
        else if (words->path == NULL && (argv[i][0] != '-' || argv[i][1] == '\0'))
            words->path = argv[i];
        else
            return dj_fail(DJ_ERR_INVALID, "plan solve takes no '%.64s'", argv[i]);
        words->has_capacity = words->has_capacity || capacity;
    }
    if (status == DJ_OK && words->path == NULL)
        return dj_fail(DJ_ERR_INVALID, "plan solve needs a file");
    if (status == DJ_OK && !words->has_capacity)
        return dj_fail(DJ_ERR_INVALID, "plan solve needs --capacity N");
    return status;
}

static void *search(void *context)
{
    solver_t *solver = context;
    solver->status = dj_pack_solve(solver->rows->rects, solver->rows->n, solver->capacity,
                                   &solver->limits, solver->offsets, &solver->result);
    if (solver->status != DJ_OK)
        snprintf(solver->sentence, sizeof solver->sentence, "%s", dj_error_text());
    pthread_kill(solver->waiter, SIGCHLD);
    return NULL;
}

/* Until the search is done. Returns the signal that ended it, or 0. */
static int wait_for_search(solver_t *solver, const sigset_t *signals)
{
    bool shows = isatty(STDERR_FILENO) != 0;
    uint64_t began = dj_clock_ns();
    for (;;) {
        struct timespec second = {.tv_sec = 1};
        int signal = sigtimedwait(signals, NULL, &second);
        if (signal == SIGCHLD)
            break;
        if (signal > 0) {
            atomic_store(&solver->cancel, true);
            return signal;
        }
        uint64_t passed_s = (dj_clock_ns() - began) / DJ_NS_PER_S;
        if (shows && passed_s >= PROGRESS_FIRST_S)
            fprintf(stderr, "\r%u rectangles, %llu s of %llu ", solver->rows->n,
                    (unsigned long long)passed_s,
                    (unsigned long long)((solver->limits.deadline_ns - began) / DJ_NS_PER_S));
    }
    if (shows && dj_clock_ns() - began >= PROGRESS_FIRST_S * DJ_NS_PER_S)
        fputs("\r\033[K", stderr);
    return 0;
}

static int report(const solver_t *solver, const words_t *words)
{
    if (solver->status != DJ_OK) {
        fprintf(stderr, "djinn: %s\n", solver->sentence);
        return 1;
    }
    if (solver->result.end == DJ_PACK_FOUND) {
        if (dj_plan_rows_print(solver->rows, solver->offsets, stdout) == DJ_OK)
            return 0;
        fprintf(stderr, "djinn: %s\n", dj_error_text());
        return 1;
    }
    if (solver->result.end == DJ_PACK_NONE)
        fprintf(stderr, "djinn: no placement of %s fits in %llu\n", words->path,
                (unsigned long long)words->capacity);
    else
        fprintf(stderr,
                "djinn: no placement of %s in %llu was found in %g s; there may be one: give it "
                "more --time\n",
                words->path, (unsigned long long)words->capacity, words->seconds);
    return 1;
}

static int solve(const words_t *words, const dj_plan_rows_t *rows)
{
    pthread_t thread;
    sigset_t signals;
    solver_t solver = {.rows = rows, .capacity = words->capacity, .waiter = pthread_self()};
    solver.offsets = calloc(rows->n + 1ull, sizeof solver.offsets[0]);
    if (solver.offsets == NULL)
        return wrong("no memory for the offsets");
    solver.limits = (dj_pack_limits_t){.cancel = &solver.cancel, .seed = 1};
    solver.limits.deadline_ns = dj_clock_ns() + (uint64_t)(words->seconds * (double)DJ_NS_PER_S);
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int failed = pthread_create(&thread, NULL, search, &solver);
    if (failed != 0) {
        fprintf(stderr, "djinn: cannot start a thread: %s\n", strerror(failed));
        free(solver.offsets);
        return 1;
    }
    int signal = wait_for_search(&solver, &signals);
    pthread_join(thread, NULL);
    int status = signal != 0 ? 128 + signal : report(&solver, words);
    if (signal != 0)
        fprintf(stderr, "djinn: stopped; no placement was found yet\n");
    free(solver.offsets);
    return status;
}

int dj_plan_solve_main(int argc, char **argv)
{
    words_t words;
    dj_plan_rows_t rows;
    if (parse(argc, argv, &words) != DJ_OK)
        return wrong(dj_error_text());
    int status = 2;
    if (dj_plan_rows_read(&rows, words.path) == DJ_OK)
        status = solve(&words, &rows);
    else
        fprintf(stderr, "djinn: %s\n", dj_error_text());
    dj_plan_rows_fini(&rows);
    return status;
}
