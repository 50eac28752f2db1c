/* doctor.h - djinn doctor: is this machine fit for Djinn, and if not, what to do.
 *
 * A table of checks, each with a verdict, a sentence and, where something is wrong, the next step.
 * Nothing is changed on the machine; the server, where one is known, is asked for one connection.
 */
#ifndef DJ_LAUNCHER_DOCTOR_H
#define DJ_LAUNCHER_DOCTOR_H

#include <stdbool.h>
#include <stdio.h>

#include "client/djinn.h"

/* `server` names the server to connect to; its address NULL: none is known. Prints lines for
 * people, or one JSON object: {"checks": [{"name", "verdict", "text", "next"}], "verdict"}. True:
 * no check failed (a warning is no failure). */
bool dj_doctor_run(const djinn_options_t *server, bool as_json, FILE *out);

#endif
