/* child.c - what happens between fork() and exec(). */
#include "launcher/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void enter_rank(const dj_child_setup_t *setup)
{
    setpgid(0, 0);
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0)
        dup2(nothing, STDIN_FILENO);
    /* A launcher's sockets and other ranks' listening sockets stay ours. */
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    for (int i = 0; i < setup->n_kept_fds; i++)
        fcntl(setup->kept_fds[i], F_SETFD, 0);
    if (setup->processors)
        sched_setaffinity(0, sizeof *setup->processors, setup->processors);
    /* libgomp reads it before main(): a rank that waits for its next request spins 0.3 ms after a
     * parallel region, not 5 ms in which it would keep the cores from everybody else. */
    setenv("GOMP_SPINCOUNT", "10000", 0);
}

static void enter(const dj_child_setup_t *setup, pid_t parent)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, setup->is_rank ? SIGKILL : SIGTERM);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
    if (setup->is_rank)
        enter_rank(setup);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (char *const *variable = setup->variables; variable && *variable; variable++)
        putenv(*variable);
    execvp(setup->program, setup->argv);
    int wrong = errno;
    dprintf(STDERR_FILENO, "djinn: cannot run %s: %s\n", setup->program, strerror(wrong));
    _exit(wrong == ENOENT ? 127 : 126);
}

dj_status_t dj_child_start(const dj_child_setup_t *setup, pid_t *pid_p)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return dj_fail(DJ_ERR_SYSTEM, "cannot start %s: fork: %s", setup->program, strerror(errno));
    if (pid == 0)
        enter(setup, parent);
    *pid_p = pid;
    return DJ_OK;
}

int dj_exit_status(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

const char *dj_exit_describe(int wait_status, char *text, unsigned room)
{
    if (WIFSIGNALED(wait_status))
        snprintf(text, room, "signal %d (%s)", WTERMSIG(wait_status),
                 strsignal(WTERMSIG(wait_status)));
    else
        snprintf(text, room, "exit status %d", WEXITSTATUS(wait_status));
    return text;
}
