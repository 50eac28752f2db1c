/* credential.c - finds or makes the token; keeps ~/.djinn/address. */
#include "launcher/credential.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/control.h"
#include "launcher/home.h"
#include "runtime/base/hash.h"

/* Of servers that make the first token at the same time, one link() wins and all read its token. */
static dj_status_t make_file(const char *path)
{
    char fresh[DJ_PATH_MAX + 16];
    uint8_t token[32];
    snprintf(fresh, sizeof fresh, "%s.%d", path, (int)getpid());
    dj_random_bytes(token, sizeof token);
    dj_status_t status = dj_token_write(fresh, token);
    if (status != DJ_OK)
        return status;
    if (link(fresh, path) != 0 && errno != EEXIST)
        status = dj_fail(DJ_ERR_FILE, "cannot make the token file %s: %s", path, strerror(errno));
    unlink(fresh);
    return status;
}

static dj_status_t use_file(const char *path, uint8_t token[32])
{
    dj_status_t status = access(path, F_OK) == 0 ? DJ_OK : make_file(path);
    return status == DJ_OK ? dj_token_read(path, token) : status;
}

dj_status_t dj_credential_find(const dj_config_t *config, bool is_private,
                               dj_credential_t *credential)
{
    char path[DJ_PATH_MAX];
    uint8_t token[32];
    dj_status_t status = DJ_OK;
    credential->shared = false;
    if (!dj_hash_setup())
        return dj_fail(DJ_ERR_SYSTEM, "the system gives no random bytes for a token");
    if (config->token[0]) {
        status = dj_token_parse(config->token, token);
    } else if (strcmp(config->auth, "none") == 0 || is_private) {
        dj_random_bytes(token, sizeof token);
    } else {
        if (config->token_file[0])
            snprintf(path, sizeof path, "%s", config->token_file); /* below 4096 bytes */
        else
            status = dj_home_path("token", path);
        if (status == DJ_OK)
            status = use_file(path, token);
        credential->shared = status == DJ_OK;
    }
    if (status == DJ_OK)
        dj_token_format(token, credential->token);
    return status;
}

dj_status_t dj_address_announce(const char *address)
{
    char path[DJ_PATH_MAX], line[128];
    dj_status_t status = dj_home_path("address", path);
    if (status != DJ_OK)
        return status;
    snprintf(line, sizeof line, "%.120s\n", address);
    return dj_home_write(path, line);
}

dj_status_t dj_address_find(char *address, size_t room)
{
    char path[DJ_PATH_MAX];
    long long modified_s;
    dj_status_t status = dj_home_path("address", path);
    if (status == DJ_OK)
        status = dj_home_read(path, address, room, &modified_s);
    if (status == DJ_OK)
        address[strcspn(address, "\n")] = '\0';
    return status;
}

void dj_address_withdraw(const char *address)
{
    char path[DJ_PATH_MAX], line[128];
    if (dj_address_find(line, sizeof line) == DJ_OK && strcmp(line, address) == 0 &&
        dj_home_path("address", path) == DJ_OK)
        unlink(path);
}
