/* ask.h - other programs and libraries are asked, none for longer than two seconds.
 *
 * Each question is a process of its own: a program found in PATH, or a function of ours that loads
 * a library or touches a file system which may hang or crash. All are started before the first
 * check and work side by side. What one writes to standard output and standard error is kept up to
 * a limit; one that does not end in time is killed with what it started in its process group.
 *
 * Threads: one, and no other may run when the questions are started. */
#ifndef DJ_LAUNCHER_DOCTOR_ASK_H
#define DJ_LAUNCHER_DOCTOR_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    DJ_ASK_TEXT_MAX = 16384,
    DJ_ASK_MS = 2000,
    DJ_ASK_WORDS_MAX = 8,
};

typedef enum dj_ask_id {
    DJ_ASK_SRUN_MPI, /* srun --mpi=list */
    DJ_ASK_SCONTROL, /* scontrol show config */
    DJ_ASK_MUNGE,    /* munge -n */
    DJ_ASK_MPIRUN,   /* mpirun --version */
    DJ_ASK_PYTHON,   /* which torch, which djinn package */
    DJ_ASK_SERVER,   /* djinn-server --version */
    DJ_ASK_RANK,     /* djinn-rank --version */
    DJ_ASK_CUDA,     /* libcuda.so.1 and libnvidia-ml.so.1 */
    DJ_ASK_PMIX,     /* libpmix.so.2 */
    DJ_ASK_FILES,    /* folders that may hang */
    DJ_ASK_HOST,     /* the host name's addresses */
    DJ_ASK_COUNT,
} dj_ask_id_t;

typedef enum dj_ask_state {
    DJ_ASKED_NOT,     /* nobody asked (--quick, or another check was wanted) */
    DJ_ASKED_MISSING, /* there is no such program */
    DJ_ASKED_RUNS,
    DJ_ASKED_ANSWERED, /* it ended; see status */
    DJ_ASKED_LATE,     /* it was killed, or will not even die */
} dj_ask_state_t;

typedef struct dj_ask {
    dj_ask_state_t state;
    pid_t pid;
    int fd;
    uint64_t end_ns;
    int status; /* exit status, 128 and the signal */
    size_t length;
    char text[DJ_ASK_TEXT_MAX]; /* what it wrote, a string without NUL inside */
} dj_ask_t;

/* Starts a program by its words (the first a name in PATH or a path) or, with `words` NULL, a
 * function that writes its answer to standard output. */
void dj_ask_start(dj_ask_t *ask, const char *const *words, void (*function)(const void *argument),
                  const void *argument);
/* Waits for the end of it, at most until its time is over, and returns the state. */
dj_ask_state_t dj_ask_wait(dj_ask_t *ask);

/* The rest of the line after `key` ("MpiDefault"), without what stands around '=' or ':' and
 * blanks; false when no line starts with the key. */
bool dj_ask_value(const dj_ask_t *ask, const char *key, char *value, size_t room);
/* The last line with words in it: what a failing program usually means. */
const char *dj_ask_last_line(const dj_ask_t *ask, char *line, size_t room);

#endif
