/* ask.c - fork, a pipe, a deadline. */
#include "launcher/doctor/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/config.h"

/* The first executable file of that name in PATH. */
static bool find_program(const char *name, char *path, size_t room)
{
    const char *at = dj_environment("PATH");
    if (strchr(name, '/'))
        return (size_t)snprintf(path, room, "%s", name) < room && access(path, X_OK) == 0;
    while (at && *at) {
        size_t span = strcspn(at, ":");
        int size = snprintf(path, room, "%.*s/%s", (int)span, at, name);
        if (span > 0 && (size_t)size < room && access(path, X_OK) == 0)
            return true;
        at += span + (at[span] == ':');
    }
    return false;
}

static void enter(int out, pid_t parent)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0)
        dup2(nothing, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
}

void dj_ask_start(dj_ask_t *ask, const char *const *words, void (*function)(const void *argument),
                  const void *argument)
{
    char path[4096];
    char *argv[DJ_ASK_WORDS_MAX + 1] = {NULL};
    int ends[2];
    ask->state = DJ_ASKED_MISSING;
    if (words && !find_program(words[0], path, sizeof path))
        return;
    for (int i = 0; words && words[i] && i < DJ_ASK_WORDS_MAX; i++)
        argv[i] = (char *)words[i];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        enter(ends[1], parent);
        if (words)
            execv(path, argv);
        else
            function(argument);
        fflush(stdout);
        _exit(words ? 127 : 0);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return;
    }
    setpgid(pid, pid); /* both do it, so that it is done when either goes on */
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    *ask = (dj_ask_t){.state = DJ_ASKED_RUNS,
                      .pid = pid,
                      .fd = ends[0],
                      .end_ns = dj_clock_ns() + DJ_ASK_MS * DJ_NS_PER_MS};
}

/* Takes what is there; false at the end of it. What has no room is read and dropped. */
static bool take(dj_ask_t *ask)
{
    for (int turns = 0; turns < 64; turns++) {
        char more[4096];
        ssize_t got = read(ask->fd, more, sizeof more);
        if (got <= 0)
            return got < 0 && (errno == EAGAIN || errno == EINTR);
        for (ssize_t i = 0; i < got && ask->length < sizeof ask->text - 1; i++)
            ask->text[ask->length++] = more[i] ? more[i] : '?';
    }
    return true;
}

/* Whether the process has ended, and how. */
static bool reap(dj_ask_t *ask)
{
    int wait_status;
    if (waitpid(ask->pid, &wait_status, WNOHANG) != ask->pid)
        return false;
    ask->status = WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    return true;
}

dj_ask_state_t dj_ask_wait(dj_ask_t *ask)
{
    if (ask->state != DJ_ASKED_RUNS)
        return ask->state;
    bool open = true, ended = false, last = false;
    while (!last && !ended) {
        uint64_t now = dj_clock_ns();
        last = now >= ask->end_ns; /* one more look, for who answered while we were busy */
        struct pollfd wait = {.fd = open ? ask->fd : -1, .events = POLLIN};
        /* A program may end and leave its output open to what it started: look for both. */
        int ms = last ? 0 : open ? 5 : 1;
        poll(&wait, 1, ms);
        ended = reap(ask);
        open = open && take(ask);
    }
    if (!ended) {
        kill(-ask->pid, SIGKILL);
        for (int turns = 0; turns < 50 && !reap(ask); turns++)
            poll(NULL, 0, 1); /* one that hangs in the kernel is left to it */
    } else {
        kill(-ask->pid, SIGKILL); /* what it may have left running in its group */
    }
    close(ask->fd);
    ask->text[ask->length] = '\0';
    ask->state = ended ? DJ_ASKED_ANSWERED : DJ_ASKED_LATE;
    return ask->state;
}

/* Length of the line at `at`. */
static size_t line_length(const char *at)
{
    return strcspn(at, "\r\n");
}

static const char *next_line(const char *at)
{
    at += line_length(at);
    return at + strspn(at, "\r\n");
}

bool dj_ask_value(const dj_ask_t *ask, const char *key, char *value, size_t room)
{
    size_t length = strlen(key);
    value[0] = '\0';
    for (const char *at = ask->text; *at; at = next_line(at)) {
        const char *rest = at + length;
        if (strncmp(at, key, length) != 0 || !strchr(" \t=:\r\n", *rest))
            continue;
        rest += strspn(rest, " \t=:");
        snprintf(value, room, "%.*s", (int)line_length(rest), rest);
        return true;
    }
    return false;
}

const char *dj_ask_last_line(const dj_ask_t *ask, char *line, size_t room)
{
    line[0] = '\0';
    for (const char *at = ask->text; *at; at = next_line(at))
        if (strspn(at, " \t") < line_length(at))
            snprintf(line, room, "%.*s", (int)line_length(at), at);
    return line;
}
