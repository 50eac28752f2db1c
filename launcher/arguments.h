/* arguments.h - the command line of djinn-server and djinn-run.
 *
 * Both take every option of the configuration table and a few short words of their own:
 *   -n N   the same as --ranks N
 *   -q     no progress lines
 *   -h, --help, -V, --version
 * djinn-run also takes a command, after "--" or as the first word that is no option. The options
 * are handed to the ranks word for word, so that a rank reads the same settings as its supervisor.
 *
 * Ownership: words and command lead into argv. */
#ifndef DJ_LAUNCHER_ARGUMENTS_H
#define DJ_LAUNCHER_ARGUMENTS_H

#include <stdbool.h>

#include "runtime/base/config.h"

typedef struct dj_arguments {
    const char *program; /* "djinn-run" */
    dj_config_t config;
    bool quiet, help, version;
    char **words; /* options for the ranks */
    int n_words;
    char *const *command; /* ends with NULL; NULL: none was given */
} dj_arguments_t;

/* Frees nothing but words. */
void dj_arguments_fini(dj_arguments_t *arguments);
/* `takes_command`: whether a word that is no option begins a command (else it is an error). With
 * help or version set, nothing behind them was looked at. DJ_ERR_INVALID with the sentence for the
 * user, DJ_ERR_MEMORY. */
dj_status_t dj_arguments_parse(dj_arguments_t *arguments, int argc, char *const *argv,
                               bool takes_command);

#endif
