/* doctor.h - djinn doctor: is this machine fit for Djinn, and if not, what to do.
 *
 * A table of checks (doctor.c), each with a verdict, a sentence and, where something is wrong, the
 * next step; check.h is what a check sees. Nothing is changed on the machine; the server,
 * where one is known, is asked for one connection. docs/doctor.md is the manual. */
#ifndef DJ_LAUNCHER_DOCTOR_H
#define DJ_LAUNCHER_DOCTOR_H

#include <stdbool.h>
#include <stdio.h>

#include "client/djinn.h"
#include "runtime/base/config.h"

enum { DJ_DOCTOR_ONLY_MAX = 32 };

typedef struct dj_doctor {
    const dj_config_t *config;
    djinn_options_t server; /* address NULL: no server is known */
    const char *root;       /* before /proc, /sys, /etc and /dev; "" but for tests and copies */
    const char *only[DJ_DOCTOR_ONLY_MAX]; /* names of checks or groups; none: all */
    int n_only;
    bool quick, as_json;
} dj_doctor_t;

/* The subcommand: its exit status. argv[1] is "doctor". */
int dj_doctor_main(int argc, char **argv);

/* Prints lines for people, or one JSON object. True: no check failed (a warning is no failure). */
bool dj_doctor_run(const dj_doctor_t *doctor, FILE *out);
bool dj_doctor_knows(const char *name); /* a check or a group */
void dj_doctor_list(FILE *out);

#endif
