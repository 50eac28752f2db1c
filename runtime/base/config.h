/* config.h - every setting of Djinn: one table, parsed once at start, handed down as a const struct.
 *
 * A row gives the variable DJINN_<NAME>, the option --<name> (with '-' for '_'), the default and the
 * help line; enum, parser, `--help`, docs/configuration.md and completion come from it. An unknown
 * DJINN_* variable warns with the nearest name; a value that does not parse stops the start. This is
 * the only file that reads the environment (the launcher's bootstrap, which must ask for other
 * programs' variables, goes through dj_environment() here).
 *
 * Kinds: TEXT, SIZE (bytes; K, M, G, T suffixes are powers of 1024), COUNT (K, M too), TIME
 * (milliseconds; "ms", "s", "m", "h" suffixes), FLAG (0/1, on/off, yes/no, true/false).
 *
 * `allowed` is checked by the parser: for TEXT the words that may be given, "a|b" (the default is
 * always allowed); for numbers a range, "low:high", in the kind's own spelling; empty: anything. */
#ifndef DJ_BASE_CONFIG_H
#define DJ_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

/* X(name, kind, default, allowed, help), a list a group of --help */
#define DJ_CONFIG_CLIENT_LIST(X)                                                                   \
    X(address, TEXT, "", "",                                                                       \
      "host:port of rank 0's control socket (clients); empty: a private server")                   \
    X(token, TEXT, "", "",                                                                         \
      "credential of the server, 64 hexadecimal digits; wins over token_file")                     \
    X(token_file, TEXT, "", "", "file with the credential, mode 0600; empty: ~/.djinn/token")      \
    X(auth, TEXT, "token", "token|none", "who may connect; none must be typed")                    \
    X(execution_mode, TEXT, "", "local|local_remote|remote|zero_copy",                             \
      "where programs run; empty: chosen at connect")                                              \
    X(checksums, FLAG, "0", "",                                                                    \
      "a checksum on every message between client and rank, where either side asks")               \
    X(connect_ms, TIME, "5s", "1ms:1h", "deadline of connecting, hello included")

#define DJ_CONFIG_SERVER_LIST(X)                                                                   \
    X(listen, TEXT, "127.0.0.1:0", "", "where rank 0 listens; port 0: any free port")              \
    X(ranks, COUNT, "1", "1:4096",                                                                 \
      "ranks to start; above 1, rank 0 coordinates and the others serve")                          \
    X(device, TEXT, "host", "host|cuda", "device of a rank")                                       \
    X(threads, COUNT, "0", "0:4096",                                                               \
      "threads of host kernels, and of a GPU's compiler; 0: the share of cores")          \
    X(numerics, TEXT, "exact", "exact|fast",                                                       \
      "fast allows TF32 in float32 products of a GPU")                                             \
    X(cuda_graphs, FLAG, "on", "", "replay plans of exact sizes as CUDA graphs")                   \
    X(kernel_cache, TEXT, "", "", "directory of kernels compiled here; empty: in the user's cache") \
    X(batch_bytes, SIZE, "1400", "0:1536",                                                         \
      "answers of one moment to one client leave together up to this size; 0: never")              \
    X(transports, TEXT, "auto", "auto|shm|tcp|relay",                                              \
      "what carries tensors; relay (clients): all through the one port of rank 0")                 \
    X(model_roots, TEXT, "/", "",                                                                  \
      "colon-separated folders under which clients may name weight files")                         \
    X(plan_buckets, TEXT, "pow2", "",                                                              \
      "what djinn.bucket() pads to (clients): none, pow2 or 64,128,512")                            \
    X(plan_cache, TEXT, "", "",                                                                    \
      "folder where plans wait for a rank's next start; empty: none are kept")                       \
    X(improve_hits, COUNT, "100", "",                                                              \
      "uses after which a rank looks for a better plan of a program; 0: never")                    \
    X(improve_percent, COUNT, "10", "1:100",                                                       \
      "most of one core's time, in percent, that it spends on that")                               \
    X(plan_cache_ms, TIME, "30s", "10ms:24h", "how often plans that are new go to plan_cache")     \
    X(restarts, COUNT, "100", "", "how often a supervisor restarts one rank")                      \
    X(ranks_per_node, TEXT, "auto", "",                                                            \
      "workers of a supervisor: auto (one a device), task (one a task) or a number") \
    X(join, TEXT, "", "", "host:port or address file of a server: mind ranks that it has lost")    \
    X(address_file, TEXT, "", "", "where the server leaves its address, mode 0600, while it serves") \
    X(follow, FLAG, "0", "", "end the server when the process that started it ends")

#define DJ_CONFIG_COMMAND_LIST(X)                                                                  \
    X(attach, TEXT, "", "", "host:port or address file of a server that runs: start no ranks")      \
    X(per_node, FLAG, "0", "", "start the command in every task of the launcher, not in the first") \
    X(dry_run, FLAG, "0", "", "print which rank would be where, and end")

#define DJ_CONFIG_LIMIT_LIST(X)                                                                    \
    X(text_bytes, SIZE, "16G", "", "most memory a rank may map for Text (weights)")                \
    X(data_bytes, SIZE, "64G", "", "virtual range reserved for one session's Data")                \
    X(data_quota_bytes, SIZE, "8G", "", "most Data one session may hold")                          \
    X(stack_bytes, SIZE, "8G", "", "limit of planned memory of one running request")               \
    X(spill_bytes, SIZE, "8G", "",                                                                 \
      "room beside Stack for values of a request that does not fit; 0: none")                       \
    X(ingress_bytes, SIZE, "1G", "", "most bytes of one session's inputs not yet run")             \
    X(sessions, COUNT, "1024", "1:1M", "most sessions of one rank")                                \
    X(plans, COUNT, "4096", "1:1M", "most plans a rank keeps")                                     \
    X(plan_bytes, SIZE, "1G", "",                                                                  \
      "most memory of the plans a rank keeps beyond those that sessions use; 0: any")

#define DJ_CONFIG_TIME_LIST(X)                                                                     \
    X(deadline_ms, TIME, "60s", "1ms:24h", "deadline of a request where the client names none")      \
    X(kernel_limit_ms, TIME, "60s", "0:24h",                                                         \
      "silence of a GPU at work after which its rank starts anew; 0: never")           \
    X(heartbeat_ms, TIME, "100ms", "10ms:1h", "interval of heartbeats")                              \
    X(suspect_ms, TIME, "1s", "20ms:1h", "silence after which a peer is taken for dead")             \
    X(lease_grace_ms, TIME, "60s", "0:24h",                                                        \
      "how long a lost client's memory is kept for its return")                                    \
    X(drain_ms, TIME, "3s", "0:1h",                                                               \
      "at the end, how long requests that were accepted may still run")                            \
    X(meet_ms, TIME, "60s", "100ms:1h", "how long the tasks of a launcher wait for each other")     \
    X(link_idle_ms, TIME, "30s", "1ms:24h",                                                        \
      "how long a link between two ranks stays open unused")                                       \
    X(spin_us, COUNT, "50", "0:1M", "microseconds of polling before a progress thread sleeps")

#define DJ_CONFIG_TOOL_LIST(X)                                                                     \
    X(log, TEXT, "warn", "", "level, then module=level pairs: info,comm=debug")                    \
    X(poison, FLAG, "0", "", "fill Stack before every replay and verify the peak after (tests)")   \
    X(plugins, TEXT, "", "",                                                                       \
      "colon-separated shared objects that add detectors and rewrites to the planner")             \
    X(rank_program, TEXT, "", "", "the program started as a rank; empty: djinn-rank beside us")

#define DJ_CONFIG_RANK_LIST(X)                                                                     \
    X(rank, COUNT, "0", "0:4096", "this rank")                                                     \
    X(incarnation, COUNT, "0", "", "how often this rank was started")                              \
    X(listen_fd, COUNT, "0", "0:1M", "this rank's listening socket")                               \
    X(ready_fd, COUNT, "0", "0:1M", "pipe on which this rank says that it serves; 0: nobody asks") \
    X(coordinator, TEXT, "", "", "host:port of rank 0")                                            \
    X(lifeline, TEXT, "", "", "host:port where rank 0's supervisor hears others (rank 0)")          \
    X(cores, TEXT, "", "", "cores of this rank, as 0-3,8")                                         \
    X(progress_cores, TEXT, "", "", "cores of its progress thread; empty: not bound")              \
    X(device_cores, TEXT, "", "", "cores of its device thread; empty: not bound")                  \
    X(heartbeat_cores, TEXT, "", "", "cores of its heartbeat thread; empty: not bound")            \
    X(gpu, TEXT, "", "", "GPU of this rank, as CUDA_VISIBLE_DEVICES takes it")                     \
    X(memory_node, TEXT, "", "", "NUMA node that its memory comes from first; empty: any")         \
    X(net_devices, TEXT, "", "", "its network devices, as UCX_NET_DEVICES takes them; that wins")

/* G(group, title) */
#define DJ_CONFIG_GROUPS(G)                                                                        \
    G(CLIENT, "Finding a server")                                                                  \
    G(SERVER, "Starting a server")                                                                 \
    G(COMMAND, "Starting a command (djinn-run)")                                                   \
    G(LIMIT, "Limits of a rank")                                                                   \
    G(TIME, "Time")                                                                                \
    G(TOOL, "Watching")                                                                            \
    G(RANK, "Set by the supervisor for its ranks")

#define DJ_CONFIG_LIST(X)                                                                          \
    DJ_CONFIG_CLIENT_LIST(X)                                                                       \
    DJ_CONFIG_SERVER_LIST(X)                                                                       \
    DJ_CONFIG_COMMAND_LIST(X)                                                                      \
    DJ_CONFIG_LIMIT_LIST(X)                                                                        \
    DJ_CONFIG_TIME_LIST(X)                                                                         \
    DJ_CONFIG_TOOL_LIST(X)                                                                         \
    DJ_CONFIG_RANK_LIST(X)

typedef struct dj_config {
#define DJ_CONFIG_TEXT const char *
#define DJ_CONFIG_SIZE uint64_t
#define DJ_CONFIG_COUNT uint64_t
#define DJ_CONFIG_TIME uint64_t
#define DJ_CONFIG_FLAG bool
#define X(name, kind, initial, allowed, help) DJ_CONFIG_##kind name;
    DJ_CONFIG_LIST(X)
#undef X
} dj_config_t;

/* Defaults, then DJINN_* of the environment, then --options of argv up to the first non-option or
 * "--"; *used_p is the index of the first word not taken (NULL: options are not looked at).
 * An option's value follows as "--name=value" or as the next word; a FLAG stands alone or takes
 * "=value". "--help" and "--version" end the options like a non-option: the program answers them.
 * ERR_INVALID with a sentence naming the option, its value and the nearest known name.
 * Strings point into a copy that lives as long as the process. */
dj_status_t dj_config_load(dj_config_t *config, int argc, char *const *argv, int *used_p);
/* Takes options from argv[*at_p] on in the same way and moves *at_p: for programs with words of
 * their own between options. */
dj_status_t dj_config_options(dj_config_t *config, int argc, char *const *argv, int *at_p);

/* The option table as --help prints it, to standard output. */
void dj_config_print_help(void);

/* The same table as a Markdown table (docs/configuration.md). */
void dj_config_print_markdown(void);

/* A row as users see it, for whatever prints it elsewhere (pages of the manual, completion). */
typedef struct dj_config_row {
    char option[64], variable[64], takes[128]; /* "--log", "DJINN_LOG", "text" */
    const char *group, *initial, *help;
    const char *choices; /* "a|b"; empty where anything may be given */
    bool is_flag;        /* needs no value */
} dj_config_row_t;
/* Row `index`, in the order of --help; false behind the last. */
bool dj_config_row(unsigned index, dj_config_row_t *row);

/* One foreign variable (PMIX_NAMESPACE, SLURM_PROCID, HOME, ...); NULL when unset or empty. */
const char *dj_environment(const char *name);

#endif
