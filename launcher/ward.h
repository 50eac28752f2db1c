/* ward.h - one rank in our care: its socket, its process, its deaths.
 *
 * The listening socket is ours and outlives every incarnation, so the rank's address never changes
 * and peers that connect while it is down wait in the backlog. A rank says on its ready pipe that
 * it serves.
 *
 * A rank that dies is started anew: at once if it had served for a second, else after a pause that
 * doubles from 10 ms to 5 s, and not more than `restarts` times. Not started anew: one that ended
 * with status 0 (somebody asked it to), one that ended with status 3 (the coordinator has a newer
 * incarnation from another supervisor), and one that ended by itself before it served in any
 * incarnation (its settings are wrong, and will be wrong again).
 *
 * Ownership: whoever opened listen_fd closes it; the rest is dj_ward_*'s. */
#ifndef DJ_LAUNCHER_WARD_H
#define DJ_LAUNCHER_WARD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "comm/messages.h"
#include "launcher/placement/placement.h"
#include "runtime/base/config.h"

enum {
    DJ_WARD_READY_LIMIT_S = 60, /* a rank that does not serve by then is killed */
};

typedef enum dj_ward_state {
    DJ_WARD_WAITING,  /* to be started at start_at_ns */
    DJ_WARD_STARTING, /* runs, does not serve yet */
    DJ_WARD_SERVING,
    DJ_WARD_FINISHED, /* ended with status 0 */
    DJ_WARD_LOST,     /* died and is not started again */
} dj_ward_state_t;

typedef struct dj_ward {
    uint32_t rank;
    int listen_fd;
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    dj_share_t share;

    dj_ward_state_t state;
    pid_t pid;    /* 0: no process */
    int ready_fd; /* -1: not waited for */
    bool has_served;
    uint32_t incarnation, early_deaths;
    uint32_t restarts; /* by this supervisor */
    uint64_t started_ns, start_at_ns;
} dj_ward_t;

/* What all ranks of one server have in common. */
typedef struct dj_ward_setup {
    const dj_config_t *config;
    const char *program;
    char *const *words; /* options as the user gave them */
    int n_words;
    const char *coordinator;
    const char *lifeline; /* "": no other supervisor is there, or may come */
    uint32_t size;
} dj_ward_setup_t;

/* Starts the process of the next incarnation. DJ_ERR_SYSTEM, DJ_ERR_MEMORY. */
dj_status_t dj_ward_start(dj_ward_t *ward, const dj_ward_setup_t *setup);
/* Reads the ready pipe; true when the rank has just begun to serve. */
bool dj_ward_hear(dj_ward_t *ward);
/* The process ended (as waitpid() says): decides what comes next and says so on stderr. */
void dj_ward_ended(dj_ward_t *ward, int wait_status, uint64_t restarts);

#endif
