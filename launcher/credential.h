/* credential.h - the token of a server, and the files by which a second terminal finds it.
 *
 * A token that the user gave (DJINN_TOKEN) is used and written nowhere. Else the user's token file
 * is:
 * ~/.djinn/token or DJINN_TOKEN_FILE, one for all servers of this user, made at the first start. A
 * private server (djinn-run with a command) has a fresh token that only its command learns. */
#ifndef DJ_LAUNCHER_CREDENTIAL_H
#define DJ_LAUNCHER_CREDENTIAL_H

#include <stdbool.h>
#include <stddef.h>

#include "comm/messages.h"
#include "runtime/base/config.h"

typedef struct dj_credential {
    char token[65];
    bool shared; /* from the user's token file: the address is worth announcing beside it */
} dj_credential_t;

/* DJ_ERR_INVALID (the given token), DJ_ERR_FILE, DJ_ERR_AUTH (a token file that others may read),
 * DJ_ERR_SYSTEM (no random bytes). */
dj_status_t dj_credential_find(const dj_config_t *config, bool is_private,
                               dj_credential_t *credential);

/* The token of a server that runs already, as 64 digits: DJINN_TOKEN, or the token file, which is
 * not made. With --auth none it is all zeros. DJ_ERR_FILE, DJ_ERR_AUTH, DJ_ERR_INVALID. */
dj_status_t dj_credential_known(const dj_config_t *config, char token[65]);

/* "host:port" as it stands, or from the first line of a file (a word with a '/', or without a ':'),
 * for which is waited until the deadline. DJ_ERR_FILE, DJ_ERR_INVALID. */
dj_status_t dj_address_read(const char *word, uint64_t deadline_ns,
                            char address[DJ_ENDPOINT_TEXT_MAX]);
/* Puts the address into a file of mode 0600; takes it away while it is still ours. */
dj_status_t dj_address_leave(const char *path, const char *address);
void dj_address_take(const char *path, const char *address);

/* Writes ~/.djinn/address. DJ_ERR_FILE. */
dj_status_t dj_address_announce(const char *address);
/* Reads it. DJ_ERR_FILE when there is none. */
dj_status_t dj_address_find(char *address, size_t room);
/* Removes it, if it still holds this address. */
void dj_address_withdraw(const char *address);

#endif
