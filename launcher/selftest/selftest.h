/* selftest.h - djinn-selftest: does this installation compute, and does the wire carry what it is
 * given?
 *
 * A table of checks. Each opens what it needs on the server, compares what comes back with what
 * plain C says, and leaves nothing behind. A check is of one device kind or of any; those of a kind
 * that no rank has are left out, and skipped where they are named.
 *
 * Only the public client API is used: what passes here, a user's program can do. */
#ifndef DJ_LAUNCHER_SELFTEST_H
#define DJ_LAUNCHER_SELFTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/djinn.h"

enum { DJ_SELFTEST_RANKS_MAX = 4096 };

typedef enum dj_verdict { DJ_CHECK_OK, DJ_CHECK_FAIL, DJ_CHECK_SKIPPED } dj_verdict_t;

typedef struct dj_selftest {
    djinn_options_t server; /* as the user named it */
    djinn_t *djinn;         /* the connection of the checks in a row; NULL: none could be had */
    char text[512];         /* what the check found */
} dj_selftest_t;

typedef struct dj_check {
    const char *name;   /* "op-mm": groups are what stands before the first '-' */
    const char *device; /* "cuda", or how the rank's device begins; NULL: any */
    const char *about;
    dj_verdict_t (*run)(dj_selftest_t *self, const struct dj_check *check);
    const void *detail; /* of the function's own */
} dj_check_t;

/* Writes self->text and returns the verdict. */
dj_verdict_t dj_found(dj_selftest_t *self, dj_verdict_t verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* FAIL with what was tried and djinn_error(). */
dj_verdict_t dj_found_error(dj_selftest_t *self, const char *tried);

/* Checks of the connection and of transfers (checks.c), of ops (ops.c), of ranks with a GPU (gpu.c):
 * count of each table. */
extern const dj_check_t dj_selftest_checks[];
extern const size_t dj_selftest_n_checks;
extern const dj_check_t dj_selftest_ops[];
extern const size_t dj_selftest_n_ops;
extern const dj_check_t dj_selftest_gpu[];
extern const size_t dj_selftest_n_gpu;

/* --gpu-tests (programs.c): runs the test programs of the CUDA device that are installed, or built, and prints a row
 * for each. The exit status. No server is needed: each uses the GPU itself or starts ranks of its own. */
int dj_selftest_programs(unsigned limit_s);

/* Ranks that serve, by djinn_info(): at most `room` numbers; `device`: only whose device is of this
 * kind (see dj_check_t; a GPU is known within seconds of its rank's start; NULL: any). -1 with djinn_error() or the text set when the server does not tell. */
int dj_selftest_workers(dj_selftest_t *self, const char *device, int *ranks, int room);
/* A number of rank's row in the server's description; UINT64_MAX: none. */
uint64_t dj_selftest_number(dj_selftest_t *self, int rank, const char *name);

double dj_selftest_now_ms(void);

#endif
