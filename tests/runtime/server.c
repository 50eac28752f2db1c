/* server.c - see server.h. */
#include "tests/runtime/server.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS_MAX = 32 };

static bool all_ended_well = true;

uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void sleep_ms(int ms)
{
    poll(NULL, 0, ms);
}

/* ---- start ---- */

/* djinn-run of the build; where the tests are installed (lib/djinn/tests), of the installation. */
static const char *find_run(char path[512])
{
    static const char built[] = DJINN_BIN "/djinn-run";
    ssize_t length = readlink("/proc/self/exe", path, 400);
    char *slash = length > 0 ? memrchr(path, '/', (size_t)length) : NULL;
    if (access(built, X_OK) == 0 || !slash)
        return built;
    strcpy(slash, "/../../../bin/djinn-run");
    return path;
}

/* What leads to a GPU, or to the simulated one. The count of env. */
static int pass_on(char **env, int n_env)
{
    static const char *const names[] = {"LD_LIBRARY_PATH", "HWLOC_XMLFILE", "HWLOC_THISSYSTEM", "DJ_SIM_MEMORY",
                                        "CUDA_VISIBLE_DEVICES"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (getenv(names[i]) && asprintf(&env[n_env], "%s=%s", names[i], getenv(names[i])) > 0)
            n_env++;
    return n_env;
}

static void run(const server_t *server, int out, const char *const *words)
{
    char home[80], preload[512], errors[96], count[16], path[512], program[512], fail[96], release[48];
    const char *blind = getenv("TEST_BLIND"), *slow = getenv("TEST_RELEASE_MS");
    const char *argv[WORDS_MAX + 4] = {find_run(path), "-n", count};
    char *env[] = {home,
                   "PATH=/usr/bin:/bin",
                   "LC_ALL=C",
                   "LSAN_OPTIONS=print_suppressions=0:suppressions=" SUPPRESSED,
                   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                   NULL, NULL};
    int n_env = 4;
    int n = 3;
    snprintf(count, sizeof(count), "%d", server->ranks);
    snprintf(home, sizeof(home), "HOME=%s", server->home);
    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", ALLOC_COUNT);
    snprintf(errors, sizeof(errors), "%s/errors", server->home);
    if (server->poison) {
        env[n_env++] = "DJINN_POISON=1";
        if (!getenv("TEST_SIMULATED")) /* a driver allocates for itself */
            env[n_env++] = preload;
    }
    if (blind) {
        snprintf(program, sizeof(program), "DJINN_RANK_PROGRAM=%s/blind/djinn-rank", DJINN_BIN);
        env[n_env++] = program;
        snprintf(fail, sizeof(fail), "BLIND_FAIL_FILE=%s/fail", server->home);
        env[n_env++] = fail;
        env[n_env++] = blind[0] == '2' ? "BLIND_EXTRAS=0" : "BLIND_EXTRAS=1";
        env[n_env++] = getenv("TEST_SLAB") ? "BLIND_SLAB=1" : "BLIND_SLAB=0";
        env[n_env++] = blind[0] == '2' ? "BLIND_COPY_MB_PER_S=2000" : "BLIND_COPY_MB_PER_S=0";
        snprintf(release, sizeof(release), "BLIND_RELEASE_MS=%s", slow ? slow : "0");
        env[n_env++] = release;
    }
    if (getenv("TEST_SIMULATED")) {
        snprintf(program, sizeof(program), "DJINN_RANK_PROGRAM=%s/simulated/djinn-rank", DJINN_BIN);
        env[n_env++] = program;
    }
    if (getenv("TEST_CUDA")) {
        snprintf(fail, sizeof(fail), "DJ_SIM_FAULT_FILE=%s/fail", server->home);
        env[n_env++] = fail;
        n_env = pass_on(env, n_env);
        env[n_env++] = "DJINN_DEVICE=cuda";
        env[n_env++] = "DJINN_STACK_BYTES=1G";
    }
    if (getenv("UCX_MEM_MMAP_HOOK_MODE"))
        env[n_env++] = "UCX_MEM_MMAP_HOOK_MODE=none"; /* tools/tsan.c */
    for (int i = 0; words && words[i] && i < WORDS_MAX; i++)
        argv[n++] = words[i];
    argv[n] = NULL;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int err = open(errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (err < 0 || dup2(err, 2) < 0 || dup2(out, 1) < 0)
        _exit(125);
    execve(argv[0], (char *const *)argv, env);
    _exit(126);
}

static bool read_line(int fd, char *line, size_t size, uint64_t end_ms)
{
    size_t n = 0;
    while (n + 1 < size && now_ms() < end_ms) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        poll(&poller, 1, (int)(end_ms - now_ms()));
        ssize_t got = poller.revents ? read(fd, line + n, 1) : 0;
        if (poller.revents && got <= 0)
            return false;
        if (got == 1 && line[n++] == '\n') {
            line[n - 1] = 0;
            return true;
        }
    }
    return false;
}

static bool read_token(server_t *server)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/.djinn/token", server->home);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, server->token, 64);
    if (fd >= 0)
        close(fd);
    server->token[64] = 0;
    return got == 64;
}

char *server_errors(const server_t *server)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/errors", server->home);
    char *text = calloc(1, 65536);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && text && read(fd, text, 65535) < 0)
        text[0] = 0;
    if (fd >= 0)
        close(fd);
    return text;
}

static void print_errors(const server_t *server)
{
    char *text = server_errors(server);
    fprintf(stderr, "the server wrote:\n%s\n", text);
    free(text);
}

bool server_start(server_t *server, int ranks, const char *const *words)
{
    int out[2];
    char line[128] = "";
    const char *poison = getenv("TEST_POISON");
    *server = (server_t){.ranks = ranks, .poison = poison && poison[0] == '1'};
    snprintf(server->home, sizeof(server->home), "/tmp/djinn-test-XXXXXX");
    if (!mkdtemp(server->home) || pipe2(out, O_CLOEXEC) != 0)
        return false;
    server->pid = fork();
    if (server->pid == 0)
        run(server, out[1], words);
    close(out[1]);
    bool ready =
        server->pid > 0 && read_line(out[0], line, sizeof(line), now_ms() + SERVER_LIMIT_MS);
    close(out[0]);
    if (ready && sscanf(line, "DJINN_ADDRESS=%63s", server->address) == 1 && read_token(server))
        return true;
    fprintf(stderr, "no server: %s\n", line);
    print_errors(server);
    server_stop(server);
    return false;
}

/* ---- asking ---- */

djinn_options_t server_options(const server_t *server)
{
    return (djinn_options_t){
        .abi_version = DJINN_ABI_VERSION, .address = server->address, .token = server->token};
}

static json_t *describe(const server_t *server)
{
    djinn_options_t options = server_options(server);
    char *text;
    if (djinn_info(&options, &text) != DJINN_OK) {
        fprintf(stderr, "info: %s\n", djinn_error());
        return NULL;
    }
    json_t *root = json_loads(text, 0, NULL);
    free(text);
    return root;
}

static uint64_t number_of(json_t *root, int rank, const char *name)
{
    json_t *one, *found = NULL;
    size_t i;
    json_array_foreach(json_object_get(root, "ranks"), i,
                       one) if (json_integer_value(json_object_get(one, "rank")) == rank) found =
        json_object_get(one, name);
    return found ? (uint64_t)json_integer_value(found) : UINT64_MAX;
}

uint64_t server_number(const server_t *server, int rank, const char *name)
{
    json_t *root = describe(server);
    uint64_t value = number_of(root, rank, name);
    json_decref(root);
    return value;
}

bool server_becomes(const server_t *server, int rank, const char *name, uint64_t value,
                    int limit_ms)
{
    uint64_t end_ms = now_ms() + (uint64_t)limit_ms, last;
    while ((last = server_number(server, rank, name)) != value && now_ms() < end_ms)
        sleep_ms(10);
    if (last != value)
        fprintf(stderr, "rank %d: %s is %llu after %d ms, not %llu\n", rank, name,
                (unsigned long long)last, limit_ms, (unsigned long long)value);
    return last == value;
}

bool server_is_empty(const server_t *server, int rank)
{
    static const char *const names[] = {"sessions",   "detached",          "refs",
                                        "data_bytes", "data_backed_bytes", "ingress_bytes"};
    bool empty = true;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        empty = server_becomes(server, rank, names[i], 0, 2000) && empty;
    return empty;
}

/* ---- stop ---- */

static bool peaks_agree(const server_t *server)
{
    json_t *root = describe(server);
    uint64_t checks = 0;
    bool agree = root != NULL;
    for (int rank = server->ranks > 1; root && rank < server->ranks; rank++) {
        uint64_t bad = number_of(root, rank, "peak_mismatches");
        checks += number_of(root, rank, "peak_checks");
        if (bad != 0) {
            fprintf(stderr, "rank %d: %llu peaks differ\n", rank, (unsigned long long)bad);
            agree = false;
        }
    }
    json_decref(root);
    fprintf(stderr, "%llu peaks checked\n", (unsigned long long)checks);
    return agree;
}

static bool wait_end(pid_t pid, int limit_ms, int *status_p)
{
    uint64_t end_ms = now_ms() + (uint64_t)limit_ms;
    pid_t done;
    while ((done = waitpid(pid, status_p, WNOHANG)) == 0 && now_ms() < end_ms)
        sleep_ms(2);
    return done == pid;
}

static void remove_home(const server_t *server)
{
    static const char *const names[] = {".djinn/token", ".djinn/address", ".djinn", "errors", "fail", ""};
    char path[128];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", server->home, names[i]);
        remove(path);
    }
}

/* Of a build with sanitizers: what the ranks wrote while they ended, leaks too; and of blind ones. */
static bool sanitizers_are_silent(const server_t *server)
{
    char *text = server_errors(server);
    bool silent = text && !strstr(text, "Sanitizer") && !strstr(text, ": runtime error: ") &&
                  !strstr(text, "are left at its end");
    free(text);
    return silent;
}

bool server_stop(server_t *server)
{
    int status = 0;
    bool good = server->pid > 0 && (!server->poison || !server->address[0] || peaks_agree(server));
    if (server->pid > 0) {
        kill(server->pid, SIGTERM);
        if (!wait_end(server->pid, 10000, &status)) {
            kill(server->pid, SIGKILL);
            wait_end(server->pid, 5000, &status);
            good = false;
        }
        good =
            good && WIFEXITED(status) && WEXITSTATUS(status) == 0 && sanitizers_are_silent(server);
    }
    if (!good) {
        fprintf(stderr, "the server ended with %#x\n", status);
        print_errors(server);
    }
    remove_home(server);
    server->pid = 0;
    all_ended_well = all_ended_well && good;
    return good;
}

int server_verdict(int cmocka_failures)
{
    return cmocka_failures || !all_ended_well;
}
