/* assembly.h - from argv and the launcher's variables to the ranks that this process minds.
 *
 * Three ways lead there: alone (we mind all ranks, or the first --ranks-per-node of them and the
 * rest is for supervisors that join), one of several tasks of a launcher (rank 0's address goes
 * through the launcher, then the tasks muster over the lifeline, head.h), and --join (a server that
 * runs has seats to give).
 *
 * Tasks that are each alone on their node mind the whole node: `--ranks-per-node auto` gives each a
 * rank for every device there, the first one rank 0 besides. Else each task minds one rank.
 *
 * Ownership: dj_assembly_fini() closes and frees everything. Threads: one. */
#ifndef DJ_LAUNCHER_ASSEMBLY_H
#define DJ_LAUNCHER_ASSEMBLY_H

#include "launcher/arguments.h"
#include "launcher/bootstrap.h"
#include "launcher/head.h"
#include "launcher/member.h"
#include "launcher/ward.h"

typedef struct dj_assembly {
    const dj_arguments_t *arguments;
    dj_place_t place;
    dj_meeting_t meeting;
    bool announces;        /* others find us by ~/.djinn/address */
    bool whole_node;       /* we mind all ranks of this node */
    uint32_t size;         /* ranks of the whole server */
    dj_ward_t *wards;      /* with their sockets */
    uint32_t n_wards;
    dj_head_t *head;       /* rank 0's, where there are or may be others */
    dj_member_t *member;   /* others' */
} dj_assembly_t;

/* `ready`: DJ_OK, or why we cannot start, with its sentence; then the other tasks are told before
 * it comes back. Errors with a sentence; DJ_ERR_SYSTEM and DJ_ERR_MEMORY are this machine's, all
 * others what the user asked for or how the job was started. DJ_ERR_CANCELLED: rank 0's task cannot
 * start, and says why itself. */
dj_status_t dj_assembly_make(dj_assembly_t *assembly, const dj_arguments_t *arguments,
                             dj_status_t ready);
void dj_assembly_fini(dj_assembly_t *assembly);

/* "auto" and "task" come back as 0, the number else. DJ_ERR_INVALID. */
dj_status_t dj_ranks_per_node(const dj_config_t *config, uint32_t *workers_p);

#endif
