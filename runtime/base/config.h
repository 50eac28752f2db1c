/* config.h - every setting of Djinn: one table, parsed once at start, handed down as a const struct.
 *
 * A row gives the variable DJINN_<NAME>, the option --<name> (with '-' for '_'), the default and the
 * help line; enum, parser, `--help`, docs/configuration.md and completion come from it. An unknown
 * DJINN_* variable warns with the nearest name; a value that does not parse stops the start. This is
 * the only file that reads the environment (the launcher's bootstrap, which must ask for other
 * programs' variables, goes through dj_environment() here).
 *
 * Kinds: TEXT, SIZE (bytes; K, M, G, T suffixes are powers of 1024), COUNT, TIME (milliseconds;
 * "ms" and "s" suffixes), FLAG (0/1, on/off, yes/no, true/false). */
#ifndef DJ_BASE_CONFIG_H
#define DJ_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

/* X(name, kind, default, help) */
#define DJ_CONFIG_LIST(X)                                                                          \
    X(address, TEXT, "", "host:port of rank 0's control socket (clients); empty: a private server") \
    X(token, TEXT, "", "credential of the server, 64 hexadecimal digits; wins over token_file")    \
    X(token_file, TEXT, "", "file with the credential, mode 0600; default ~/.djinn/token")         \
    X(auth, TEXT, "token", "token, or none (must be typed): who may connect")                      \
    X(execution_mode, TEXT, "", "local, local_remote, remote or zero_copy; empty: chosen at connect") \
    X(fallback, TEXT, "error", "what a client does when nothing can serve: error or local")        \
    X(log, TEXT, "warn", "level, then module=level pairs: info,comm=debug")                        \
    X(listen, TEXT, "127.0.0.1:0", "where rank 0 listens; port 0: any free port")                  \
    X(ranks, COUNT, "1", "ranks to start; above 1, rank 0 coordinates and the others serve")       \
    X(threads, COUNT, "0", "kernel threads of a host device; 0: its share of the machine's cores") \
    X(device, TEXT, "host", "device of a rank: host or cuda")                                      \
    X(numerics, TEXT, "exact", "exact or fast (reassociation, TF32)")                              \
    X(transports, TEXT, "auto", "auto, shm or tcp: what carries tensors")                          \
    X(stack_bytes, SIZE, "8G", "limit of planned memory of one running request")                   \
    X(data_bytes, SIZE, "64G", "virtual range reserved for one session's Data")                    \
    X(data_quota_bytes, SIZE, "8G", "most Data one session may hold")                              \
    X(text_bytes, SIZE, "16G", "most Text a rank may hold")                                        \
    X(ingress_bytes, SIZE, "1G", "most bytes of one session's inputs not yet run")                 \
    X(model_roots, TEXT, "/", "colon-separated folders under which clients may name weight files") \
    X(sessions, COUNT, "1024", "most sessions of one rank")                                        \
    X(plans, COUNT, "4096", "most plans a rank keeps")                                             \
    X(deadline_ms, TIME, "60s", "deadline of a request where the client names none")               \
    X(connect_ms, TIME, "5s", "deadline of connecting, hello included")                            \
    X(heartbeat_ms, TIME, "100ms", "interval of heartbeats")                                       \
    X(suspect_ms, TIME, "1s", "silence after which a peer is taken for dead")                      \
    X(lease_grace_ms, TIME, "60s", "how long a lost client's memory is kept for its return")       \
    X(spin_us, COUNT, "50", "microseconds of polling before a progress thread sleeps")             \
    X(restarts, COUNT, "100", "how often a supervisor restarts one rank")                          \
    X(poison, FLAG, "0", "fill Stack before every replay and verify the peak after (tests)")       \
    X(incarnation, COUNT, "0", "set by the supervisor: how often this rank was started")           \
    X(rank, COUNT, "0", "set by the supervisor: this rank")                                        \
    X(listen_fd, COUNT, "0", "set by the supervisor: this rank's listening socket")                \
    X(coordinator, TEXT, "", "set by the supervisor: host:port of rank 0")                         \
    X(cores, TEXT, "", "set by the supervisor: cores of this rank, as 0-3,8")

typedef struct dj_config {
#define DJ_CONFIG_TEXT const char *
#define DJ_CONFIG_SIZE uint64_t
#define DJ_CONFIG_COUNT uint64_t
#define DJ_CONFIG_TIME uint64_t
#define DJ_CONFIG_FLAG bool
#define X(name, kind, initial, help) DJ_CONFIG_##kind name;
    DJ_CONFIG_LIST(X)
#undef X
} dj_config_t;

/* Defaults, then DJINN_* of the environment, then --options of argv up to the first non-option or
 * "--"; *used_p is the index of the first word not taken (NULL: options are not looked at).
 * An option's value follows as "--name=value" or as the next word; a FLAG may stand alone.
 * ERR_INVALID with a sentence naming the option, its value and the nearest known name.
 * Strings point into a copy that lives as long as the process. */
dj_status_t dj_config_load(dj_config_t *config, int argc, char *const *argv, int *used_p);

/* The option table as --help prints it, to standard output. */
void dj_config_print_help(void);

/* The same table as a Markdown table (docs/configuration.md) or as words for shell completion. */
void dj_config_print_markdown(void);
void dj_config_print_words(void);

/* One foreign variable (PMIX_NAMESPACE, SLURM_PROCID, HOME, ...); NULL when unset or empty. */
const char *dj_environment(const char *name);

#endif
