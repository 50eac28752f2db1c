/* stage.c - the place among the launcher's processes, the streams to process 0, and private
 * servers. */
#include "benchmarks/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/control.h"
#include "launcher/child.h"
#include "launcher/home.h"
#include "launcher/network.h"
#include "runtime/base/clock.h"
#include "runtime/base/config.h"
#include "runtime/base/hash.h"

#define MEET_S 60        /* for all processes to be there */
#define MEASURE_S 3600   /* for the slowest to measure one row */
#define GREETING_MS 2000 /* for who connects to say who he is */
#define END_MS 8000      /* for a server to end in good order */

extern char **environ;

/* ---- streams with a deadline ---- */

static dj_status_t await(int fd, short events, uint64_t deadline_ns, void (*idle)(void *),
                         void *context)
{
    struct pollfd polled = {.fd = fd, .events = events};
    for (;;) {
        int found = poll(&polled, 1, idle ? 1 : 1000);
        if (found > 0)
            return DJ_OK;
        if (found < 0 && errno != EINTR)
            return dj_fail(DJ_ERR_SYSTEM, "cannot wait for a process of the benchmark: %s",
                           strerror(errno));
        if (dj_clock_ns() > deadline_ns)
            return dj_fail(DJ_ERR_DEADLINE, "a process of the benchmark does not answer in time");
        if (idle)
            idle(context);
    }
}

static dj_status_t lost(void)
{
    return dj_fail(DJ_ERR_PEER_DIED, "another process of the benchmark has ended early");
}

static dj_status_t give(int fd, const void *data, size_t bytes, uint64_t deadline_ns)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t sent =
            send(fd, (const char *)data + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            done += (size_t)sent;
        else if (errno != EAGAIN && errno != EINTR)
            return lost();
        else if (await(fd, POLLOUT, deadline_ns, NULL, NULL) != DJ_OK)
            return DJ_ERR_DEADLINE;
    }
    return DJ_OK;
}

static dj_status_t take(int fd, void *data, size_t bytes, uint64_t deadline_ns,
                        void (*idle)(void *), void *context)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t got = recv(fd, (char *)data + done, bytes - done, MSG_DONTWAIT);
        dj_status_t status = DJ_OK;
        if (got > 0)
            done += (size_t)got;
        else if (got == 0 || (errno != EAGAIN && errno != EINTR))
            return lost();
        else
            status = await(fd, POLLIN, deadline_ns, idle, context);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

/* ---- gathering ---- */

static dj_status_t gather(dj_stage_t *stage, uint32_t rank, uint32_t count, const void *mine,
                          uint32_t bytes, char *all, uint64_t deadline_ns, void (*idle)(void *),
                          void *context)
{
    dj_status_t status = DJ_OK;
    memcpy(all + (size_t)rank * bytes, mine, bytes);
    if (count == 1)
        return DJ_OK;
    if (rank > 0) {
        status = give(stage->links[0], mine, bytes, deadline_ns);
        if (status == DJ_OK)
            status = take(stage->links[0], all, (size_t)count * bytes, deadline_ns, idle, context);
        return status;
    }
    for (uint32_t i = 1; i < count && status == DJ_OK; i++)
        status = take(stage->links[i], all + (size_t)i * bytes, bytes, deadline_ns, idle, context);
    for (uint32_t i = 1; i < count && status == DJ_OK; i++)
        status = give(stage->links[i], all, (size_t)count * bytes, deadline_ns);
    return status;
}

dj_status_t dj_stage_gather(dj_stage_t *stage, const void *mine, uint32_t bytes, void *all,
                            void (*idle)(void *context), void *context)
{
    return gather(stage, stage->rank, stage->size, mine, bytes, all,
                  dj_clock_ns() + MEASURE_S * DJ_NS_PER_S, idle, context);
}

/* ---- meeting at the hub ---- */

typedef struct greeting {
    char token[64];
    uint32_t rank;
} greeting_t;

static void random_token(char text[65])
{
    uint8_t token[32];
    dj_random_bytes(token, sizeof(token));
    dj_token_format(token, text);
}

static dj_status_t room_for(dj_stage_t *stage, uint32_t count)
{
    stage->links = malloc(count * sizeof(*stage->links));
    if (!stage->links)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u processes", count);
    stage->n_links = count;
    for (uint32_t i = 0; i < count; i++)
        stage->links[i] = -1;
    return DJ_OK;
}

/* One connection; strangers and repeats are sent away. */
static dj_status_t accept_one(dj_stage_t *stage, int listener, uint64_t deadline_ns,
                              uint32_t *missing_p)
{
    greeting_t greeting;
    dj_status_t status = await(listener, POLLIN, deadline_ns, NULL, NULL);
    if (status != DJ_OK)
        return dj_fail(status, "%u of %u processes have not come within %d s", *missing_p,
                       stage->place.size, MEET_S);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return DJ_OK;
    status = take(fd, &greeting, sizeof(greeting), dj_clock_ns() + GREETING_MS * DJ_NS_PER_MS, NULL,
                  NULL);
    if (status == DJ_OK && memcmp(greeting.token, stage->hub.token, 64) == 0 && greeting.rank > 0 &&
        greeting.rank < stage->place.size && stage->links[greeting.rank] < 0) {
        stage->links[greeting.rank] = fd;
        --*missing_p;
        return DJ_OK;
    }
    close(fd);
    return DJ_OK;
}

static dj_status_t accept_all(dj_stage_t *stage, int listener, uint64_t deadline_ns)
{
    uint32_t missing = stage->place.size - 1;
    dj_status_t status = room_for(stage, stage->place.size);
    while (status == DJ_OK && missing > 0)
        status = accept_one(stage, listener, deadline_ns, &missing);
    return status;
}

static dj_status_t go_to_hub(dj_stage_t *stage, uint64_t deadline_ns)
{
    dj_control_t *control;
    greeting_t greeting = {.rank = stage->place.rank};
    dj_status_t status = room_for(stage, 1);
    if (status == DJ_OK)
        status = dj_control_connect(stage->hub.endpoint, deadline_ns, &control);
    if (status != DJ_OK)
        return status;
    stage->links[0] = fcntl(dj_control_fd(control), F_DUPFD_CLOEXEC, 3);
    dj_control_close(control);
    if (stage->links[0] < 0)
        return dj_fail(DJ_ERR_SYSTEM, "no descriptor left: %s", strerror(errno));
    memcpy(greeting.token, stage->hub.token, sizeof(greeting.token));
    return give(stage->links[0], &greeting, sizeof(greeting), deadline_ns);
}

static dj_status_t listen_as_hub(dj_stage_t *stage, int *listener_p)
{
    char listen[DJ_ENDPOINT_TEXT_MAX] = "127.0.0.1:0";
    dj_status_t status = DJ_OK;
    if (stage->place.local_size < stage->place.size)
        status = dj_network_first_listen("127.0.0.1:0", listen);
    if (status == DJ_OK)
        status = dj_control_listen(listen, listener_p, stage->hub.endpoint);
    random_token(stage->hub.token);
    snprintf(stage->hub.lifeline, sizeof(stage->hub.lifeline), "-"); /* there is no supervisor to hear */
    return status;
}

static dj_status_t meet(dj_stage_t *stage)
{
    uint64_t deadline_ns = dj_clock_ns() + MEET_S * DJ_NS_PER_S;
    dj_status_t status = DJ_OK;
    int listener = -1;
    if (stage->place.rank == 0 && stage->place.size > 1)
        status = listen_as_hub(stage, &listener);
    if (status == DJ_OK)
        status = dj_bootstrap_exchange(&stage->place, &stage->hub, deadline_ns);
    alarm(0);
    if (status == DJ_OK && stage->place.size > 1)
        status = stage->place.rank == 0 ? accept_all(stage, listener, deadline_ns)
                                        : go_to_hub(stage, deadline_ns);
    if (listener >= 0)
        close(listener);
    return status;
}

/* ---- processes of our own ---- */

/* The parent becomes process 0, each child one of the others. */
static dj_status_t fork_others(dj_stage_t *stage, uint32_t count)
{
    dj_status_t status = room_for(stage, count);
    stage->size = count;
    if (status == DJ_OK && !(stage->children = calloc(count, sizeof(*stage->children))))
        status = dj_fail(DJ_ERR_MEMORY, "no memory for %u processes", count);
    pid_t parent = getpid();
    for (uint32_t i = 1; i < count && status == DJ_OK; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
            return dj_fail(DJ_ERR_SYSTEM, "no stream to process %u: %s", i, strerror(errno));
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                _exit(1);
            for (uint32_t before = 1; before < i; before++)
                close(stage->links[before]);
            close(pair[0]);
            free(stage->children);
            stage->children = NULL;
            stage->rank = i;
            stage->links[0] = pair[1];
            stage->n_links = 1;
            return DJ_OK;
        }
        close(pair[1]);
        stage->links[i] = pair[0];
        if (pid < 0)
            status = dj_fail(DJ_ERR_SYSTEM, "process %u cannot be forked: %s", i, strerror(errno));
        else
            stage->children[i] = pid;
    }
    return status;
}

/* ---- a private server ---- */

/* The launcher's variables would make the server take our place in the job for its own. */
static void forget_launcher(void)
{
    static const char *const prefixes[] = {"PMIX_", "PMI_",          "OMPI_",      "SLURM_",
                                           "PRTE_", "DJINN_ADDRESS", "DJINN_TOKEN"};
    char **variable = environ;
    while (*variable) {
        char name[128];
        bool foreign = false;
        size_t length = strcspn(*variable, "=");
        for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
            foreign = foreign || strncmp(*variable, prefixes[i], strlen(prefixes[i])) == 0;
        if (foreign && length < sizeof(name)) {
            memcpy(name, *variable, length);
            name[length] = '\0';
            unsetenv(name);
        } else {
            variable++;
        }
    }
}

static dj_status_t beside_us(const char *program, char path[DJ_PATH_MAX])
{
    ssize_t size = readlink("/proc/self/exe", path, DJ_PATH_MAX - 32);
    char *slash = NULL;
    if (size > 0) {
        path[size] = '\0';
        slash = strrchr(path, '/');
    }
    if (!slash)
        return dj_fail(DJ_ERR_SYSTEM, "cannot read /proc/self/exe: %s", strerror(errno));
    snprintf(slash + 1, 32, "%s", program);
    if (access(path, X_OK) != 0)
        return dj_fail(DJ_ERR_FILE, "cannot run %.2000s: %s", path, strerror(errno));
    return DJ_OK;
}

/* "DJINN_ADDRESS=host:port" is all that a server writes. */
static dj_status_t read_address(int fd, char endpoint[DJ_ENDPOINT_TEXT_MAX])
{
    char line[DJ_ENDPOINT_TEXT_MAX + 16];
    size_t size = 0;
    uint64_t deadline_ns = dj_clock_ns() + MEET_S * DJ_NS_PER_S;
    while (size < sizeof(line) - 1 && (size == 0 || line[size - 1] != '\n')) {
        dj_status_t status = await(fd, POLLIN, deadline_ns, NULL, NULL);
        if (status != DJ_OK)
            return status;
        ssize_t got = read(fd, line + size, 1);
        if (got == 0 || (got < 0 && errno != EINTR))
            return dj_fail(DJ_ERR_CONNECT, "the private server did not start");
        size += got > 0;
    }
    line[size] = '\0';
    if (sscanf(line, "DJINN_ADDRESS=%63s", endpoint) != 1)
        return dj_fail(DJ_ERR_PROTOCOL, "the private server says '%.40s'", line);
    return DJ_OK;
}

static dj_status_t start_server(dj_stage_t *stage)
{
    char program[DJ_PATH_MAX], listen[DJ_ENDPOINT_TEXT_MAX] = "127.0.0.1:0", token[96];
    char *argv[] = {program, "-q", "--follow", "--ranks", "1", "--listen", listen, NULL};
    char *variables[] = {token, NULL};
    int out[2];
    dj_status_t status = beside_us("djinn-server", program);
    if (status == DJ_OK && stage->place.local_size < stage->place.size)
        status = dj_network_facing(stage->hub.endpoint, listen);
    if (status != DJ_OK)
        return status;
    random_token(stage->server.token);
    snprintf(token, sizeof(token), "DJINN_TOKEN=%s", stage->server.token);
    forget_launcher();
    if (pipe2(out, O_CLOEXEC) != 0 || dup2(out[1], STDOUT_FILENO) < 0)
        return dj_fail(DJ_ERR_SYSTEM, "no pipe for the private server: %s", strerror(errno));
    close(out[1]);
    status = dj_child_start(
        &(dj_child_setup_t){.program = program, .argv = argv, .variables = variables},
        &stage->server_pid);
    close(STDOUT_FILENO);
    if (status == DJ_OK)
        status = read_address(out[0], stage->server.endpoint);
    close(out[0]);
    return status;
}

/* SIGTERM, and SIGKILL when that is not enough. */
static bool end_server(pid_t pid)
{
    int wait_status = 0, watch = pidfd_open(pid, 0);
    kill(pid, SIGTERM);
    struct pollfd polled = {.fd = watch, .events = POLLIN};
    bool ended = watch >= 0 && poll(&polled, 1, END_MS) > 0;
    if (!ended)
        kill(pid, SIGKILL);
    waitpid(pid, &wait_status, 0);
    if (watch >= 0)
        close(watch);
    return ended && WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
}

int dj_stage_serve(dj_stage_t *stage)
{
    int watch = pidfd_open(stage->server_pid, 0);
    struct pollfd polled[] = {{.fd = stage->links[0], .events = POLLIN},
                              {.fd = watch, .events = POLLIN}};
    while (poll(polled, 2, -1) < 0 && errno == EINTR)
        continue;
    bool early = polled[1].revents && !polled[0].revents;
    if (early)
        fprintf(stderr, "djinn: the private server of process %u has ended early\n",
                stage->place.rank);
    if (watch >= 0)
        close(watch);
    bool well = end_server(stage->server_pid);
    stage->server_pid = 0;
    dj_stage_close(stage);
    return early || !well;
}

/* ---- opening ---- */

/* All processes come to the same refusal. Process 0 tells it, and the others wait for its end: a
 * launcher that saw one of them fail first would end the job before the reason is out. */
static dj_status_t check_count(const dj_stage_setup_t *setup, dj_stage_t *stage, bool given)
{
    uint32_t count = stage->place.size;
    dj_status_t status = DJ_OK;
    if (!given && count % 2)
        status = dj_fail(DJ_ERR_INVALID,
                         "%u processes make no pairs: start an even number, half of them clients, "
                         "half servers",
                         count);
    else if (stage->size < setup->least || stage->size > setup->most)
        status = dj_fail(DJ_ERR_INVALID,
                         "this test runs with %u to %u %s; the launcher started %u processes%s",
                         setup->least, setup->most, setup->members ? "members" : "clients", count,
                         given ? "" : ", half of them servers");
    if (status != DJ_OK && stage->place.rank > 0)
        await(stage->links[0], POLLIN, dj_clock_ns() + GREETING_MS * DJ_NS_PER_MS, NULL, NULL);
    return status;
}

/* Under a launcher: who serves whom. Each tells all others its server's address, empty for a
 * client. */
static dj_status_t share_out(const dj_stage_setup_t *setup, dj_stage_t *stage)
{
    uint32_t count = stage->place.size, clients = count / 2;
    bool given = setup->members || dj_environment("DJINN_ADDRESS");
    stage->rank = stage->place.rank;
    stage->size = given ? count : clients;
    dj_status_t status = check_count(setup, stage, given);
    if (status != DJ_OK || given)
        return status;
    dj_meeting_t *all = calloc(count, sizeof(*all));
    if (!all)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u addresses", count);
    stage->serves = stage->rank >= clients;
    if (stage->serves)
        status = start_server(stage);
    if (status == DJ_OK)
        status = gather(stage, stage->rank, count, &stage->server, sizeof(*all), (char *)all,
                        dj_clock_ns() + MEET_S * DJ_NS_PER_S, NULL, NULL);
    if (status == DJ_OK && !stage->serves)
        stage->server = all[clients + stage->rank];
    free(all);
    return status;
}

static void meeting_hangs(int number)
{
    static const char text[] = "djinn: the launcher did not let the processes meet in time; is one "
                               "of them missing?\n";
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(2);
    _exit(1);
}

dj_status_t dj_stage_open(const dj_stage_setup_t *setup, dj_stage_t *stage)
{
    *stage = (dj_stage_t){.size = 1};
    if (!dj_hash_setup())
        return dj_fail(DJ_ERR_SYSTEM, "the system has no source of random bytes");
    signal(SIGALRM, meeting_hangs);
    alarm(MEET_S + 10); /* the launcher's library has waits of its own that know no deadline */
    dj_status_t status = dj_bootstrap_open(&stage->place);
    if (status == DJ_OK)
        status = meet(stage);
    alarm(0);
    if (status != DJ_OK)
        return status;
    if (stage->place.launcher != DJ_LAUNCHER_NONE)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (stage->place.size > 1)
        return share_out(setup, stage);
    if (!setup->members && !dj_environment("DJINN_ADDRESS"))
        return dj_fail(DJ_ERR_INVALID, "there is no server: start me with djinn-run -n 1 -- ..., "
                                       "or as 2 processes with mpirun or srun");
    uint32_t count = setup->processes ? setup->processes : setup->least;
    if (count < setup->least || count > setup->most)
        return dj_fail(DJ_ERR_INVALID, "this test runs with %u to %u %s, not %u", setup->least,
                       setup->most, setup->members ? "members" : "clients", count);
    return count > 1 ? fork_others(stage, count) : DJ_OK;
}

bool dj_stage_close(dj_stage_t *stage)
{
    bool well = true;
    if (stage->server_pid > 0)
        end_server(stage->server_pid);
    for (uint32_t i = 0; i < stage->n_links; i++)
        if (stage->links[i] >= 0)
            close(stage->links[i]);
    for (uint32_t i = 1; stage->children && i < stage->size; i++) {
        int wait_status = 0;
        if (stage->children[i] <= 0)
            continue;
        int watch = pidfd_open(stage->children[i], 0);
        struct pollfd polled = {.fd = watch, .events = POLLIN};
        if (watch < 0 || poll(&polled, 1, END_MS) <= 0)
            kill(stage->children[i], SIGKILL);
        waitpid(stage->children[i], &wait_status, 0);
        well = well && wait_status == 0;
        if (watch >= 0)
            close(watch);
    }
    dj_bootstrap_close(&stage->place);
    free(stage->links);
    free(stage->children);
    stage->links = NULL;
    stage->children = NULL;
    stage->n_links = 0;
    return well;
}
