/* child.h - forks and execs one process that must not outlive us.
 *
 * The kernel kills the child when we die, even by SIGKILL. A rank gets a process group of its own,
 * so that Ctrl-C at the terminal reaches only the supervisor, which then asks the ranks to end in
 * good order. */
#ifndef DJ_LAUNCHER_CHILD_H
#define DJ_LAUNCHER_CHILD_H

#include <sched.h>
#include <stdbool.h>
#include <sys/types.h>

#include "runtime/base/status.h"

typedef struct dj_child_setup {
    const char *program; /* a path, or a name looked up in PATH */
    char *const *argv;
    char *const *variables; /* "NAME=value" to set in the child, ends with NULL; may be NULL */
    const int *kept_fds;    /* beside 0, 1, 2; everything else is closed when is_rank */
    int n_kept_fds;
    const cpu_set_t *processors; /* NULL: not bound */
    bool is_rank; /* own process group, input from /dev/null, killed when we die; else SIGTERM then
                   */
} dj_child_setup_t;

/* DJ_ERR_SYSTEM. A program that cannot be run ends with status 126 or 127, its cause on stderr. */
dj_status_t dj_child_start(const dj_child_setup_t *setup, pid_t *pid_p);

/* Exit status as a shell gives it: the program's, or 128 and the signal. */
int dj_exit_status(int wait_status);
/* "exit status 3", "signal 9 (Killed)" */
const char *dj_exit_describe(int wait_status, char *text, unsigned room);

#endif
