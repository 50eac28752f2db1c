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

#include "runtime/base/config.h"

typedef struct dj_credential {
    char token[65];
    bool shared; /* from the user's token file: the address is worth announcing beside it */
} dj_credential_t;

/* DJ_ERR_INVALID (the given token), DJ_ERR_FILE, DJ_ERR_AUTH (a token file that others may read),
 * DJ_ERR_SYSTEM (no random bytes). */
dj_status_t dj_credential_find(const dj_config_t *config, bool is_private,
                               dj_credential_t *credential);

/* Writes ~/.djinn/address. DJ_ERR_FILE. */
dj_status_t dj_address_announce(const char *address);
/* Reads it. DJ_ERR_FILE when there is none. */
dj_status_t dj_address_find(char *address, size_t room);
/* Removes it, if it still holds this address. */
void dj_address_withdraw(const char *address);

#endif
