/* launch.h - what djinn-server and djinn-run have in common: from argv to a running server.
 *
 * Order: arguments, place (bootstrap.h), rank 0's socket and the token, the exchange, the other
 * ranks' sockets, cores (placement.h), then the supervisor. Under a launcher with several tasks
 * each task minds one rank; a task alone minds `ranks` of them. */
#ifndef DJ_LAUNCHER_LAUNCH_H
#define DJ_LAUNCHER_LAUNCH_H

#include <stdbool.h>

typedef struct dj_launch {
    const char *usage; /* printed before the options by --help */
    bool takes_command;
} dj_launch_t;

/* The process's exit status: 2 for wrong use, else as dj_supervisor_run(). */
int dj_launch_main(const dj_launch_t *launch, int argc, char **argv);

#endif
