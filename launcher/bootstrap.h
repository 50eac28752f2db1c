/* bootstrap.h - who started us, which place we have among our kind, and how rank 0 is found.
 *
 * Asked in this order: PMIx (mpirun, srun --mpi=pmix), Open MPI's variables, Slurm's (a step, not a
 * batch script: SLURM_PROCID alone is the batch script's or mpirun's daemon's), else we stand
 * alone.
 *
 * Only rank 0's addresses and the token are exchanged. PMIx is ended at once after that: a task that
 * has finalized is no longer part of the launcher's fate, so one death kills no other. Where the
 * launcher has no PMIx, the two travel in a file of mode 0600 under ~/.djinn, which a shared home
 * makes visible to every node.
 *
 * Order of calls: dj_bootstrap_open(), dj_bootstrap_exchange(), once each, in a process of one
 * thread. */
#ifndef DJ_LAUNCHER_BOOTSTRAP_H
#define DJ_LAUNCHER_BOOTSTRAP_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/messages.h"

typedef enum dj_launcher {
    DJ_LAUNCHER_NONE,
    DJ_LAUNCHER_PMIX,
    DJ_LAUNCHER_OPENMPI,
    DJ_LAUNCHER_SLURM,
} dj_launcher_t;

enum {
    DJ_JOB_TEXT_MAX = 128,
    DJ_TASKS_MAX = 4096,
};

/* Counts are of the launcher's tasks; a task that stands alone is task 0 of 1. */
typedef struct dj_place {
    dj_launcher_t launcher;
    uint32_t rank, size;
    uint32_t local_rank, local_size; /* on this node */
    bool first_here;                 /* rank 0 runs on this node */
    char job[DJ_JOB_TEXT_MAX];       /* names the job where a file carries the exchange */
} dj_place_t;

/* What rank 0 tells the others. */
typedef struct dj_meeting {
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    char token[65];
    char lifeline[DJ_ENDPOINT_TEXT_MAX]; /* of its supervisor (head.h) */
} dj_meeting_t;

/* As one line of text, for whatever carries it; false for a text that is none. */
void dj_meeting_format(const dj_meeting_t *meeting, char text[sizeof(dj_meeting_t) + 4]);
bool dj_meeting_parse(const char *text, dj_meeting_t *meeting);

/* A launcher is taken for present when all of its variables are set. */
typedef struct dj_sign {
    dj_launcher_t launcher;
    const char *variables[2]; /* the second may be NULL */
} dj_sign_t;

const char *dj_launcher_name(dj_launcher_t launcher); /* "pmix" */
/* The detection order, ended by DJ_LAUNCHER_NONE: the first launcher that is present wins. */
const dj_sign_t *dj_bootstrap_signs(void);
bool dj_sign_is_set(const dj_sign_t *sign);

/* Finds the place; with PMIx, a connection to the launcher stays open until the exchange.
 * DJ_ERR_INVALID: a launcher's variable makes no sense (named). */
dj_status_t dj_bootstrap_open(dj_place_t *place);
/* Rank 0's meeting goes out, everybody else's is filled in. DJ_ERR_CONNECT, DJ_ERR_DEADLINE,
 * DJ_ERR_FILE. */
dj_status_t dj_bootstrap_exchange(const dj_place_t *place, dj_meeting_t *meeting,
                                  uint64_t deadline_ns);
/* Removes what the exchange left behind; rank 0, at its end. */
void dj_bootstrap_close(const dj_place_t *place);

/* The part that reads only variables (without PMIx). */
dj_status_t dj_place_from_environment(dj_place_t *place);

#endif
