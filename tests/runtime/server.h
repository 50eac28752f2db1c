/* server.h - a real server for tests: djinn-run in a home of its own, ended by its pid, asked by
 * djinn_info().
 *
 * The server's environment is made here and inherits nothing. With TEST_POISON in the test's own
 * environment every rank runs with --poison and counts allocations, and server_stop() fails when a
 * measured peak differed from the predicted one or a replay allocated.
 *
 * With TEST_BLIND the ranks' device is one whose memory the host cannot touch (tests/gpu/blind_device.h); 2: without
 * the optional slots of its table. With TEST_SLAB, too, it has memory that the network reads. A file `fail` in the
 * server's home then makes the device fail at the next replay.
 * With TEST_SIMULATED it is the CUDA device on the simulator of CUDA (tests/gpu/simulated_rank),
 * whose own allocations are not counted.
 *
 * With TEST_CUDA the ranks' device is a GPU, or the simulated one where LD_LIBRARY_PATH leads to it and HWLOC_XMLFILE
 * shows the launcher GPUs. There the file `fail` makes the next launch fault (simulator.h).
 *
 * Every wait is bounded. Functions that fail print why on stderr. */
#ifndef TESTS_RUNTIME_SERVER_H
#define TESTS_RUNTIME_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/djinn.h"

#define SERVER_LIMIT_MS 20000

typedef struct server {
    pid_t pid;
    int ranks;
    bool poison;
    char home[64];
    char address[64], token[65];
} server_t;

/* djinn-run -n RANKS with further words (NULL-terminated; may be NULL), until all ranks are ready.
 */
bool server_start(server_t *server, int ranks, const char *const *words);
/* Ends it and its folder. False: it ended badly, or peaks differed. */
bool server_stop(server_t *server);
/* What main() returns: CMocka does not count a group's teardown, where servers are stopped. */
int server_verdict(int cmocka_failures);

/* For djinn_connect() and djinn_info(). */
djinn_options_t server_options(const server_t *server);
/* A number of one rank's description; UINT64_MAX: no such rank or name. */
uint64_t server_number(const server_t *server, int rank, const char *name);
/* Waits until the number is `value`; prints the last one when it never was. */
bool server_becomes(const server_t *server, int rank, const char *name, uint64_t value,
                    int limit_ms);
/* Waits until the rank holds nothing: no session, no ref, no Data, no ingress. */
bool server_is_empty(const server_t *server, int rank);
/* What the server wrote on stderr, for messages; owned by the caller. */
char *server_errors(const server_t *server);

uint64_t now_ms(void);
void sleep_ms(int ms);

#endif
