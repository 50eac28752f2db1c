/* placement.h - the cores of this machine, shared out among the ranks that run kernels on it.
 *
 * hwloc gives the cores we may use (control group and binding of this process) in its own order, in
 * which neighbours share caches and memory, so a contiguous slice is a good slice. A rank alone
 * with its slice is bound to it. More ranks than cores are not bound: each has one kernel thread
 * and the system's scheduler does better than a fixed assignment, because idle ranks lend their
 * core.
 *
 * A rank that only coordinates has no kernels: it takes part in nothing here.
 *
 * Limit: processors with a number of 1024 or more are left unused. */
#ifndef DJ_LAUNCHER_PLACEMENT_H
#define DJ_LAUNCHER_PLACEMENT_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

enum {
    DJ_CORES_MAX = CPU_SETSIZE,
    DJ_CORES_TEXT_MAX = 512,
};

typedef struct dj_machine {
    uint32_t n_cores;             /* that this process is bound to */
    uint32_t n_allowed;           /* that it could be bound to */
    cpu_set_t core[DJ_CORES_MAX]; /* the processors (hardware threads) of each */
} dj_machine_t;

typedef struct dj_share {
    bool bound;
    cpu_set_t processors;
    uint32_t threads;              /* one a core, at least 1 */
    char cores[DJ_CORES_TEXT_MAX]; /* processors as "0-3,8"; "" when not bound or too long a list */
} dj_share_t;

/* Ownership: free(). DJ_ERR_SYSTEM, DJ_ERR_MEMORY. Takes 2 to 4 ms. */
dj_status_t dj_machine_find(dj_machine_t **machine_p);
/* The share of kernel rank `index` of `count` on this node. `is_bound_apart`: the launcher gave
 * this task cores of its own already (dj_machine_is_apart()). */
void dj_share_compute(const dj_machine_t *machine, uint32_t index, uint32_t count,
                      dj_share_t *share);
/* Whether `count` tasks bound as we are must have disjoint cores: then ours are ours alone. */
bool dj_machine_is_apart(const dj_machine_t *machine, uint32_t count);
/* "0-3,8"; false when text is too small. */
bool dj_processors_format(const cpu_set_t *set, char *text, uint32_t room);

#endif
