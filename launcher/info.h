/* info.h - the server's description of itself, as a table for people.
 *
 * The server sends JSON (client/djinn.h, djinn_info()):
 *   {"version": "0.1.0", "address": "127.0.0.1:4123", "ranks": [
 *     {"rank": 1, "incarnation": 0, "role": "worker", "alive": true, "pid": 77, "endpoint":
 * "127.0.0.1:4124", "device": "host ...", "threads": 2, "memory_bytes": 8589934592, and each
 * counter of dj_report_t (comm/messages.h) under its own name}]} role is "coordinator", "worker" or
 * "both". What is missing is shown as "-": an older or a newer server can be asked. Nothing of the
 * text is believed: it comes from the network. */
#ifndef DJ_LAUNCHER_INFO_H
#define DJ_LAUNCHER_INFO_H

#include <stdio.h>

#include "runtime/base/status.h"

/* DJ_ERR_PROTOCOL: no JSON, or not an object with a list "ranks". */
dj_status_t dj_info_print(const char *json, FILE *out);

#endif
