/* supervisor.h - starts ranks, keeps them alive, ends them; runs a command beside them if one is
 * given.
 *
 * One thread, one poll() over a signalfd, the ready pipes and the process that started us (pidfd).
 * Dead ranks are reaped at once: a zombie still answers over shared memory as if it lived.
 *
 * The end: SIGTERM, SIGINT or SIGHUP (or the end of the process we follow, or of the command) sends
 * the ranks SIGTERM; what lives 2 s after --drain-ms, or at a second signal, gets SIGKILL. SIGKILL of the
 * supervisor kills its ranks with it (PR_SET_PDEATHSIG).
 *
 * With a command: it starts once when every rank serves. SIGTERM and SIGHUP are passed on to it,
 * and SIGINT when it came from a process (from the terminal the command has it already); the server
 * ends after it.
 *
 * Several supervisors of one server (head.h, member.h): it is ready when the ranks of all serve, it
 * ends when rank 0's supervisor ends, and then the others' first. Their commands, if they have
 * some, are waited for. */
#ifndef DJ_LAUNCHER_SUPERVISOR_H
#define DJ_LAUNCHER_SUPERVISOR_H

#include "launcher/head.h"
#include "launcher/member.h"
#include "launcher/ward.h"

enum {
    DJ_EXIT_LOST = 1,     /* ranks could not be started or kept, or rank 0's supervisor is gone */
    DJ_EXIT_WRONG_USE = 2 /* nothing was started: one sentence on stderr says why */
};

typedef struct dj_supervisor_setup {
    dj_ward_setup_t ranks;
    dj_ward_t *wards; /* state WAITING, start_at_ns 0 */
    uint32_t n_wards;
    char *const *command;            /* NULL: none */
    char *const *variables;          /* for the command, "NAME=value", ends with NULL */
    bool per_node;                   /* others run it, too: their ends are waited for (rank 0's) */
    dj_head_t *head;                 /* we are rank 0's, and there are or may be others; else NULL */
    dj_member_t *member;             /* we are one of the others; else NULL */
    int parent_fd;                   /* a pidfd: the end of that process ends us; -1 */
    bool quiet;                      /* no progress lines */
    bool seats_are_open;             /* ranks beyond ours come when somebody joins */
    void (*on_ready)(void *context); /* once: every rank serves, or ours with open seats */
    void *context;
} dj_supervisor_setup_t;

/* Exit status: the command's (128 and the signal); without one 0 after an end in good order; 1 when
 * the ranks could not be started or kept, 128 and the signal when one came before the command. */
int dj_supervisor_run(const dj_supervisor_setup_t *setup);

#endif
