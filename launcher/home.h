/* home.h - the user's folder ~/.djinn: the token, the address of the last server, exchange files.
 *
 * The folder has mode 0700 and what is written there mode 0600. */
#ifndef DJ_LAUNCHER_HOME_H
#define DJ_LAUNCHER_HOME_H

#include <stddef.h>

#include "runtime/base/status.h"

enum {
    DJ_PATH_MAX = 4096,
};

/* "/home/ada/.djinn/<name>"; the folder is made when it is missing. DJ_ERR_FILE. */
dj_status_t dj_home_path(const char *name, char path[DJ_PATH_MAX]);
/* Puts the text there in one step: a reader sees the old or the new file, never a part.
 * DJ_ERR_FILE. */
dj_status_t dj_home_write(const char *path, const char *text);
/* Reads a regular file of our own that nobody else may read, as one string; when it was last
 * written comes in seconds of the real clock. DJ_ERR_FILE, DJ_ERR_AUTH when others may read it. */
dj_status_t dj_home_read(const char *path, char *text, size_t room, long long *modified_s_p);

#endif
