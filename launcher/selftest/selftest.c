/* selftest.c - djinn-selftest: runs the tables of checks and prints what they found.
 *
 * Exit status: 0 when no check failed, 1 when one did, 2 for wrong use. Every request has a
 * deadline, and an alarm ends the whole run; each line is printed when its check is done, so that
 * the last one tells what hangs. */
#include "launcher/selftest/selftest.h"

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/credential.h"
#include "runtime/base/config.h"
#include "runtime/base/log.h"

enum { ONLY_MAX = 64, LIMIT_S = 120, GPU_TESTS_LIMIT_S = 600, LIMIT_S_MAX = 86400, DEVICE_WAIT_MS = 3000 };

static const char usage[] =
    "usage: djinn-selftest [--json] [--only NAME]... [--limit-s N] [--OPTION VALUE]...\n"
    "       djinn-selftest --gpu-tests [--limit-s N]\n"
    "       djinn-selftest --list\n"
    "Proves an installation: connects to a server (djinn-run -n 3 -- djinn-selftest starts one),\n"
    "sends and fetches, computes what models compute and compares each result with plain C.\n"
    "  --json       one object instead of a table\n"
    "  --only NAME  this check, or this group (op: all that begin with op-); may be repeated\n"
    "  --list       the checks, one a line\n"
    "  --gpu-tests  runs the CUDA device's test programs on this machine's GPU instead, without a\n"
    "               server; a row for each\n"
    "  --limit-s N  ends with status 1 when not done within N seconds (120; --gpu-tests: 600)\n"
    "Exit status: 0 when no check failed, 1 when one did, 2 for wrong use.\n\n";

static const char *const verdicts[] = {"ok", "FAIL", "skipped"};

typedef struct words {
    dj_config_t config;
    bool json, list, gpu_tests, help, version;
    unsigned limit_s;
    const char *only[ONLY_MAX];
    int n_only;
} words_t;

/* The check under way, for the sentence of an alarm. */
static const char *volatile under_way = "connecting";

static void end_by_signal(int number)
{
    static const char late[] = "djinn-selftest: not done in time, within the check ";
    const char *name = under_way;
    if (number == SIGALRM && write(STDERR_FILENO, late, sizeof late - 1) > 0 &&
        write(STDERR_FILENO, name, strlen(name)) > 0 && write(STDERR_FILENO, "\n", 1) > 0)
        _exit(1);
    _exit(number == SIGALRM ? 1 : 128 + number);
}

/* ---- words ---- */

static const dj_check_t *check_at(size_t index)
{
    if (index < dj_selftest_n_checks)
        return &dj_selftest_checks[index];
    index -= dj_selftest_n_checks;
    if (index < dj_selftest_n_ops)
        return &dj_selftest_ops[index];
    index -= dj_selftest_n_ops;
    return index < dj_selftest_n_gpu ? &dj_selftest_gpu[index] : NULL;
}

/* A name names itself, and a group all that begin with it and '-'. */
static bool names(const char *word, const dj_check_t *check)
{
    size_t length = strlen(word);
    return strncmp(check->name, word, length) == 0 &&
           (check->name[length] == '\0' || check->name[length] == '-');
}

static bool is_named(const words_t *words, const dj_check_t *check)
{
    for (int i = 0; i < words->n_only; i++)
        if (names(words->only[i], check))
            return true;
    return false;
}

/* Without names all are, but for those of a device that no rank has. */
static bool is_wanted(dj_selftest_t *self, const words_t *words, const dj_check_t *check)
{
    int rank;
    if (words->n_only)
        return is_named(words, check);
    return !check->device || dj_selftest_workers(self, check->device, &rank, 1) > 0;
}

static dj_status_t take_only(words_t *words, const char *name)
{
    if (!name)
        return dj_fail(DJ_ERR_INVALID, "--only needs the name of a check; --list shows them");
    if (words->n_only == ONLY_MAX)
        return dj_fail(DJ_ERR_INVALID, "--only is taken %d times at most", ONLY_MAX);
    for (size_t i = 0; check_at(i); i++) {
        if (names(name, check_at(i))) {
            words->only[words->n_only++] = name;
            return DJ_OK;
        }
    }
    return dj_fail(DJ_ERR_INVALID, "there is no check %.64s; --list shows them", name);
}

static dj_status_t take_limit(words_t *words, const char *text)
{
    char *end = NULL;
    unsigned long seconds = text ? strtoul(text, &end, 10) : 0;
    if (!text || *end || text[0] == '-' || seconds < 1 || seconds > LIMIT_S_MAX)
        return dj_fail(DJ_ERR_INVALID, "--limit-s takes seconds from 1 to %d", LIMIT_S_MAX);
    words->limit_s = (unsigned)seconds;
    return DJ_OK;
}

static bool *find_flag(words_t *words, const char *word)
{
    const struct {
        const char *name, *brief;
        bool *flag;
    } flags[] = {{"--json", "", &words->json},
                 {"--list", "", &words->list},
                 {"--gpu-tests", "", &words->gpu_tests},
                 {"--help", "-h", &words->help},
                 {"--version", "-V", &words->version}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (strcmp(word, flags[i].name) == 0 || strcmp(word, flags[i].brief) == 0)
            return flags[i].flag;
    return NULL;
}

static bool find_row(const char *word, dj_config_row_t *row)
{
    size_t length = strcspn(word, "=");
    unsigned at = 0;
    while (dj_config_row(at, row)) {
        if (strlen(row->option) == length && strncmp(row->option, word, length) == 0)
            return true;
        at++;
    }
    return false;
}

/* One option of the table, of `left` words; *at_p moves behind it. It goes to the environment, too,
 * where the library reads its settings. */
static dj_status_t take_setting(words_t *words, int left, char *const *argv, int *at_p)
{
    dj_config_row_t row;
    int taken = 0;
    const char *equals = strchr(argv[0], '=');
    bool known = find_row(argv[0], &row), alone = !known || equals || row.is_flag;
    dj_status_t status =
        dj_config_options(&words->config, alone || left == 1 ? 1 : 2, argv, &taken);
    if (status != DJ_OK)
        return status;
    *at_p += taken;
    if (setenv(row.variable, equals ? equals + 1 : alone ? "1" : argv[1], 1) != 0)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the environment");
    return DJ_OK;
}

static dj_status_t parse(words_t *words, int argc, char **argv)
{
    dj_status_t status = dj_config_load(&words->config, 0, NULL, NULL);
    for (int at = 1; status == DJ_OK && at < argc;) {
        bool *flag = find_flag(words, argv[at]);
        bool only = strcmp(argv[at], "--only") == 0, limit = strcmp(argv[at], "--limit-s") == 0;
        if (flag) {
            *flag = true;
            at++;
        } else if (only || limit) {
            const char *value = at + 1 < argc ? argv[at + 1] : NULL;
            status = only ? take_only(words, value) : take_limit(words, value);
            at += 2;
        } else if (strncmp(argv[at], "--", 2) == 0 && argv[at][2]) {
            status = take_setting(words, argc - at, argv + at, &at);
        } else {
            status = dj_fail(DJ_ERR_INVALID, "djinn-selftest takes no '%.64s'", argv[at]);
        }
    }
    return status;
}

/* ---- the run ---- */

/* Of a server that has just started, GPUs are known a little later. Waits once. */
static bool has_device(dj_selftest_t *self, const char *device)
{
    static bool has_waited;
    int rank;
    double end = dj_selftest_now_ms() + (has_waited ? 0 : DEVICE_WAIT_MS);
    has_waited = true;
    while (dj_selftest_workers(self, device, &rank, 1) < 1) {
        if (dj_selftest_now_ms() >= end)
            return false;
        poll(NULL, 0, 50);
    }
    return true;
}

static dj_verdict_t run_check(dj_selftest_t *self, const dj_check_t *check)
{
    self->text[0] = '\0';
    under_way = check->name;
    if (self->djinn && djinn_alive(self->djinn) != DJINN_OK) {
        djinn_close(self->djinn);
        self->djinn = NULL;
    }
    if (!self->djinn && djinn_connect(&self->server, &self->djinn) != DJINN_OK) {
        self->djinn = NULL;
        dj_found_error(self, "connecting");
        if (strcmp(check->name, "connect") != 0)
            return dj_found(self, DJ_CHECK_SKIPPED, "no connection");
    }
    if (check->device && !has_device(self, check->device))
        return dj_found(self, DJ_CHECK_SKIPPED, "no rank with a device %s", check->device);
    return check->run(self, check);
}

static void print_line(const dj_check_t *check, dj_verdict_t verdict, const char *text, double ms)
{
    printf("%-8s %-20s %9.1f ms  %s\n", verdicts[verdict], check->name, ms, text);
    fflush(stdout);
}

static int report(dj_selftest_t *self, const words_t *words)
{
    unsigned counts[3] = {0};
    json_t *list = json_array();
    double began = dj_selftest_now_ms();
    for (size_t i = 0; check_at(i); i++) {
        const dj_check_t *check = check_at(i);
        if (!is_wanted(self, words, check))
            continue;
        double start = dj_selftest_now_ms();
        dj_verdict_t verdict = run_check(self, check);
        double ms = dj_selftest_now_ms() - start;
        counts[verdict]++;
        if (!words->json)
            print_line(check, verdict, self->text, ms);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:f}", "name", check->name, "verdict",
                                        verdicts[verdict], "text", self->text, "ms", ms));
    }
    /* Only skipped is nothing proven. */
    bool good = counts[DJ_CHECK_FAIL] == 0 && counts[DJ_CHECK_OK] > 0;
    json_t *all = json_pack("{s:o, s:s}", "checks", list, "verdict", good ? "ok" : "FAIL");
    if (words->json && all) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        printf("%u ok, %u failed, %u skipped in %.1f s\n", counts[DJ_CHECK_OK],
               counts[DJ_CHECK_FAIL], counts[DJ_CHECK_SKIPPED],
               (dj_selftest_now_ms() - began) / 1e3);
    }
    json_decref(all);
    return good ? 0 : 1;
}

static int run(const words_t *words)
{
    char found[128];
    dj_selftest_t self = {.server = {.abi_version = DJINN_ABI_VERSION,
                                     .deadline_ms = (uint32_t)words->config.deadline_ms}};
    self.server.token = words->config.token[0] ? words->config.token : NULL;
    if (words->config.address[0]) {
        self.server.address = words->config.address;
    } else if (dj_address_find(found, sizeof found) == DJ_OK) {
        self.server.address = found;
    } else {
        fputs(
            "djinn-selftest: no server is known here; djinn-run -n 3 -- djinn-selftest starts one, "
            "--address HOST:PORT names one\n",
            stderr);
        return 2;
    }
    signal(SIGALRM, end_by_signal);
    signal(SIGINT, end_by_signal);
    signal(SIGTERM, end_by_signal);
    alarm(words->limit_s);
    int exit_status = report(&self, words);
    if (self.djinn)
        djinn_close(self.djinn);
    return exit_status;
}

int main(int argc, char **argv)
{
    words_t words = {.limit_s = 0};
    if (parse(&words, argc, argv) != DJ_OK) {
        fprintf(stderr, "djinn-selftest: %s\n", dj_error_text());
        return 2;
    }
    if (words.help) {
        fputs(usage, stdout);
        dj_config_print_help();
        return 0;
    }
    if (words.version) {
        printf("djinn-selftest %s\n", DJINN_VERSION);
        return 0;
    }
    if (words.list) {
        for (size_t i = 0; check_at(i); i++)
            printf("%-20s %s\n", check_at(i)->name, check_at(i)->about);
        return 0;
    }
    dj_log_init(words.config.log, "selftest");
    if (words.gpu_tests)
        return dj_selftest_programs(words.limit_s ? words.limit_s : GPU_TESTS_LIMIT_S);
    words.limit_s = words.limit_s ? words.limit_s : LIMIT_S;
    return run(&words);
}
