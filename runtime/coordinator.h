/* coordinator.h - what rank 0 remembers of the workers: where they are, what they reported, their plans.
 *
 * It places clients (fewest sessions first), grants sessions, passes published plans on to ranks of the
 * same device class, and keeps the latest ones for ranks that come late or come back. All of it is
 * rebuilt from the workers' own words when rank 0 is started again.
 *
 * Threads: the control thread alone. */
#ifndef DJ_RUNTIME_COORDINATOR_H
#define DJ_RUNTIME_COORDINATOR_H

#include "runtime/rank.h"

enum {
    DJ_WORKERS_MAX = 1024,
    DJ_KEPT_PLANS_MAX = 512,
    DJ_KEPT_PLANS_BYTES = 64 << 20,
};

typedef struct dj_worker {
    uint64_t connection; /* 0: lost */
    dj_register_t about;
    dj_report_t report;
    uint64_t granted; /* sessions granted and in no report yet */
    uint64_t granted_ns, heard_ns;
    bool ending; /* it said so: no client is sent there */
    bool news; /* the other workers have not been told of it yet */
} dj_worker_t;

typedef struct dj_kept_plan {
    dj_hash_t device_class, exact_key;
    uint32_t bytes;
    uint8_t *data; /* the PLAN frame's body */
} dj_kept_plan_t;

typedef struct dj_coordinator {
    dj_worker_t workers[DJ_WORKERS_MAX]; /* by rank */
    dj_kept_plan_t plans[DJ_KEPT_PLANS_MAX];
    uint64_t n_plans, oldest_plan; /* ever kept; of them dropped again */
    uint64_t plan_bytes;           /* held now */
    uint64_t redirected;
    bool news; /* of some worker */
} dj_coordinator_t;

/* A worker said who it is. DJ_ERR_LIMIT for a rank that cannot be, DJ_ERR_PROTOCOL for a connection that
 * is another rank already. Of two processes that are one rank the later incarnation is believed, of equal ones
 * the first, also when its connection is lost by now: the other gets DJ_ERR_STALE. *replaced_p: the connection
 * of an earlier process, which is this rank no more; or 0. The caller then sends it the kept plans of its
 * class. */
dj_status_t dj_coordinator_register(dj_coordinator_t *coordinator, uint64_t connection,
                                    const dj_register_t *about, uint64_t *replaced_p);
void dj_coordinator_ending(dj_coordinator_t *coordinator, uint64_t connection);
void dj_coordinator_report(dj_coordinator_t *coordinator, uint64_t connection,
                           const dj_report_t *report);
void dj_coordinator_lost(dj_coordinator_t *coordinator, uint64_t connection);
/* The worker to use next: the one wanted, or of any (DJ_RANK_ANY) the one with the fewest sessions. NULL
 * when it, or every one, is not here. */
dj_worker_t *dj_coordinator_choose(dj_coordinator_t *coordinator, uint32_t wanted);
/* A worker's row of the roster; false: it was never here. */
bool dj_coordinator_row(const dj_coordinator_t *coordinator, uint32_t rank, dj_roster_t *row);
/* The same, but false also when the others know it; from then on they do. */
bool dj_coordinator_news(dj_coordinator_t *coordinator, uint32_t rank, dj_roster_t *row);
/* Copies a plan's frame body, in place of an earlier one for the same program and class; the oldest ones go until it fits. One past an eighth of the room is not kept. */
void dj_coordinator_keep(dj_coordinator_t *coordinator, const void *body, uint32_t bytes);
void dj_coordinator_fini(dj_coordinator_t *coordinator);

/* The server's description as JSON; NULL when memory is short. free() it. */
char *dj_coordinator_describe(const dj_coordinator_t *coordinator, dj_rank_t *rank);

#endif
