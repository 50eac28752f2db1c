/* credential.c - finds or makes the token; keeps ~/.djinn/address. */
#include "launcher/credential.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "comm/control.h"
#include "launcher/home.h"
#include "launcher/network.h"
#include "runtime/base/clock.h"
#include "runtime/base/hash.h"

#define LOOK_NS (20 * (long)DJ_NS_PER_MS)

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

dj_status_t dj_credential_known(const dj_config_t *config, char text[65])
{
    char path[DJ_PATH_MAX];
    uint8_t token[32] = {0};
    dj_status_t status = DJ_OK;
    if (config->token[0]) {
        status = dj_token_parse(config->token, token);
    } else if (strcmp(config->auth, "none") != 0) {
        if (config->token_file[0])
            snprintf(path, sizeof path, "%s", config->token_file);
        else
            status = dj_home_path("token", path);
        if (status == DJ_OK)
            status = dj_token_read(path, token);
    }
    if (status == DJ_OK)
        dj_token_format(token, text);
    return status;
}

/* ---- addresses ---- */

static dj_status_t read_line(const char *path, char *line, size_t room)
{
    long long modified_s;
    dj_status_t status = dj_home_read(path, line, room, &modified_s);
    if (status == DJ_OK)
        line[strcspn(line, "\n")] = '\0';
    return status;
}

dj_status_t dj_address_read(const char *word, uint64_t deadline_ns,
                            char address[DJ_ENDPOINT_TEXT_MAX])
{
    const struct timespec pause = {.tv_nsec = LOOK_NS};
    char host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX];
    bool is_file = strchr(word, '/') || !strchr(word, ':');
    dj_status_t status = DJ_OK;
    if (!is_file && strlen(word) >= DJ_ENDPOINT_TEXT_MAX)
        return dj_fail(DJ_ERR_INVALID, "the address %.64s... is too long", word);
    snprintf(address, DJ_ENDPOINT_TEXT_MAX, "%.63s", is_file ? "" : word);
    while (is_file && (status = read_line(word, address, DJ_ENDPOINT_TEXT_MAX)) == DJ_ERR_FILE &&
           dj_clock_ns() < deadline_ns)
        nanosleep(&pause, NULL);
    if (status == DJ_OK)
        status = dj_network_split(address, host, port);
    return status == DJ_OK || !is_file ? status
                                       : dj_fail_prefix(status, "no server's address in %s", word);
}

dj_status_t dj_address_leave(const char *path, const char *address)
{
    char line[128];
    snprintf(line, sizeof line, "%.120s\n", address);
    return dj_home_write(path, line);
}

void dj_address_take(const char *path, const char *address)
{
    char line[128];
    if (read_line(path, line, sizeof line) == DJ_OK && strcmp(line, address) == 0)
        unlink(path);
}

dj_status_t dj_address_announce(const char *address)
{
    char path[DJ_PATH_MAX];
    dj_status_t status = dj_home_path("address", path);
    return status == DJ_OK ? dj_address_leave(path, address) : status;
}

dj_status_t dj_address_find(char *address, size_t room)
{
    char path[DJ_PATH_MAX];
    dj_status_t status = dj_home_path("address", path);
    return status == DJ_OK ? read_line(path, address, room) : status;
}

void dj_address_withdraw(const char *address)
{
    char path[DJ_PATH_MAX];
    if (dj_home_path("address", path) == DJ_OK)
        dj_address_take(path, address);
}
