/* info.h - the server's description of itself, as a table for people.
 *
 * The server sends JSON (client/djinn.h, djinn_info()): "version", "ranks_expected" and a list
 * "ranks" of objects with "rank", "role" (coordinator, worker, both), "state" (serving, lost),
 * "endpoint", "device", "threads", "incarnation" and each counter of dj_report_t (comm/messages.h)
 * under its own name. What is missing is shown as "-": an older or a newer server can be asked.
 * Nothing of the text is believed: it comes from the network. */
#ifndef DJ_LAUNCHER_INFO_H
#define DJ_LAUNCHER_INFO_H

#include <stdio.h>

#include "runtime/base/status.h"

/* DJ_ERR_PROTOCOL: no JSON, or not an object with a list "ranks". */
dj_status_t dj_info_print(const char *json, FILE *out);

#endif
