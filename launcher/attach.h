/* attach.h - djinn-run --attach: a command beside a server that runs already. */
#ifndef DJ_LAUNCHER_ATTACH_H
#define DJ_LAUNCHER_ATTACH_H

#include "launcher/arguments.h"

/* Looks whether the server answers and knows our token, then becomes the command (exec), with
 * DJINN_ADDRESS set for it; so its status is the process's. Comes back only when that failed:
 * DJ_ERR_INVALID (no command), DJ_ERR_FILE, DJ_ERR_CONNECT, DJ_ERR_AUTH, DJ_ERR_DEADLINE. A command
 * that cannot be run ends the process with 126 or 127. */
dj_status_t dj_attach_run(const dj_arguments_t *arguments);

#endif
