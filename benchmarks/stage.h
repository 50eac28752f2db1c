/* stage.h - how the processes of a benchmark find each other, and who plays which part.
 *
 * Started three ways:
 *
 *   djinn-run -n K -- djinn_bw          one process; DJINN_ADDRESS names the server. More clients
 * (-p) are forked. mpirun -np N djinn_bw, srun ...     no server is named: as in OSU the first half
 * are clients, and each process of the second half keeps a private server of one rank for its
 * client. With DJINN_ADDRESS set all are clients of that server. either, for a test of members
 * every process is a member (broadcast, barrier); no server.
 *
 * Process 0 is the hub: the others hold a stream to it, over which they gather what each has to
 * tell. Its address travels by the launcher's bootstrap (PMIx or a file). The end of a stream is
 * the end of the process behind it, so a death anywhere ends all: what a process waits for is a
 * stream, and each has a deadline besides. A server ends when its stream does; the kernel ends
 * forked processes with their parent, and launched ones with their launcher.
 *
 * Order: dj_stage_open(); a server calls dj_stage_serve() and exits with its result; the others
 * gather as they like, all the same number of times; dj_stage_close(). Threads: one, and none
 * others before dj_stage_open(). */
#ifndef DJ_BENCHMARKS_STAGE_H
#define DJ_BENCHMARKS_STAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "launcher/bootstrap.h"

typedef struct dj_stage_setup {
    bool members;         /* all processes do the same; no servers */
    uint32_t least, most; /* clients, or members, that the test can be run with */
    uint32_t processes;   /* to fork where no launcher started several; 0: `least` */
} dj_stage_setup_t;

typedef struct dj_stage {
    uint32_t rank, size; /* among clients, or members */
    bool serves;         /* this process is to call dj_stage_serve() */
    dj_meeting_t server; /* a client's; empty endpoint: as the environment says */
    dj_meeting_t hub;
    dj_place_t place;
    int *links; /* the hub's: a stream to each other process; else links[0] to the hub */
    uint32_t n_links;
    pid_t *children; /* forked by the hub */
    pid_t server_pid;
} dj_stage_t;

/* DJ_ERR_INVALID: the number of processes does not suit the test, or there is neither a server nor
 * a launcher; DJ_ERR_CONNECT, DJ_ERR_DEADLINE, DJ_ERR_PEER_DIED, DJ_ERR_SYSTEM, DJ_ERR_MEMORY.
 * After a failure too dj_stage_close() is to be called. */
dj_status_t dj_stage_open(const dj_stage_setup_t *setup, dj_stage_t *stage);
/* Until the clients have ended. The process's exit status. */
int dj_stage_serve(dj_stage_t *stage);
/* Every process gives `bytes` bytes and gets all of them, by rank. `idle` (or NULL) is called about
 * each millisecond of the wait. DJ_ERR_PEER_DIED, DJ_ERR_DEADLINE, DJ_ERR_PROTOCOL. */
dj_status_t dj_stage_gather(dj_stage_t *stage, const void *mine, uint32_t bytes, void *all,
                            void (*idle)(void *context), void *context);
/* Ends the streams and waits for forked processes. True: they all ended well. */
bool dj_stage_close(dj_stage_t *stage);

#endif
