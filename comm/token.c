/* token.c - the credential of a server: 32 random bytes, as 64 hexadecimal digits in a file that
 * only its owner can read.
 *
 * The file is refused, not repaired, when others could have read it: a token that leaked must be
 * made anew by its owner. It is written beside its place and renamed, so that a reader never sees
 * half of it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/control.h"

static int digit_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

/* Exactly 64 digits; the text itself never enters a message, it may be half a secret. */
dj_status_t dj_token_parse(const char *text, uint8_t token[32])
{
    uint8_t parsed[32];
    if (strnlen(text, 65) != 64)
        return dj_fail(DJ_ERR_INVALID, "a token has 64 hexadecimal digits, this one has another "
                                       "length; copy it whole from the server's token file");
    for (int i = 0; i < 32; ++i) {
        int high = digit_value(text[2 * i]), low = digit_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return dj_fail(DJ_ERR_INVALID,
                           "a token has 64 hexadecimal digits, but character %d of "
                           "this one is none",
                           2 * i + (high < 0 ? 0 : 1) + 1);
        parsed[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(token, parsed, sizeof(parsed));
    return DJ_OK;
}

void dj_token_format(const uint8_t token[32], char text[65])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; ++i) {
        text[2 * i] = digits[token[i] >> 4];
        text[2 * i + 1] = digits[token[i] & 15];
    }
    text[64] = '\0';
}

static dj_status_t check_file(int fd, const char *path)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return dj_fail(DJ_ERR_FILE, "token file %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return dj_fail(DJ_ERR_FILE, "token file %s is not a regular file", path);
    if (info.st_uid != geteuid())
        return dj_fail(DJ_ERR_AUTH,
                       "token file %s belongs to uid %u, not to uid %u; name a file of "
                       "your own with DJINN_TOKEN_FILE",
                       path, (unsigned)info.st_uid, (unsigned)geteuid());
    if (info.st_mode & 077)
        return dj_fail(DJ_ERR_AUTH,
                       "token file %s is open to others (mode %03o); remove it, start "
                       "the server anew and keep mode 600",
                       path, (unsigned)(info.st_mode & 0777));
    return DJ_OK;
}

dj_status_t dj_token_read(const char *path, uint8_t token[32])
{
    char text[80];
    /* O_NONBLOCK: a FIFO of that name must not hang us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return dj_fail(DJ_ERR_FILE,
                       "cannot open token file %s: %s; start the server first, or set "
                       "DJINN_TOKEN",
                       path, strerror(errno));
    dj_status_t status = check_file(fd, path);
    if (status != DJ_OK)
        goto close_file;
    ssize_t size = pread(fd, text, sizeof(text) - 1, 0);
    if (size < 0) {
        status = dj_fail(DJ_ERR_FILE, "cannot read token file %s: %s", path, strerror(errno));
        goto close_file;
    }
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r' || text[size - 1] == ' '))
        --size;
    text[size] = '\0';
    status = dj_token_parse(text, token);
    if (status != DJ_OK)
        dj_fail_prefix(status, "token file %s", path);
    explicit_bzero(text, sizeof(text));
close_file:
    close(fd);
    return status;
}

static dj_status_t make_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return DJ_OK;
    snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return dj_fail(DJ_ERR_FILE, "cannot make folder %s for the token: %s", folder,
                       strerror(errno));
    return DJ_OK;
}

static dj_status_t write_all(int fd, const char *path, const uint8_t token[32])
{
    char text[66];
    dj_token_format(token, text);
    text[64] = '\n';
    ssize_t written = write(fd, text, 65);
    explicit_bzero(text, sizeof(text));
    if (written != 65)
        return dj_fail(DJ_ERR_FILE, "cannot write token file %s: %s", path,
                       written < 0 ? strerror(errno) : "the disk is full");
    return DJ_OK;
}

dj_status_t dj_token_write(const char *path, const uint8_t token[32])
{
    char beside[PATH_MAX];
    if (snprintf(beside, sizeof(beside), "%s.XXXXXX", path) >= (int)sizeof(beside))
        return dj_fail(DJ_ERR_FILE, "the path of the token file is longer than %d bytes", PATH_MAX);
    dj_status_t status = make_folder(path);
    if (status != DJ_OK)
        return status;
    int fd = mkostemp(beside, O_CLOEXEC); /* mode 0600 */
    if (fd < 0)
        return dj_fail(DJ_ERR_FILE, "cannot make token file %s: %s", path, strerror(errno));
    status = write_all(fd, path, token);
    close(fd);
    if (status == DJ_OK && rename(beside, path) != 0)
        status = dj_fail(DJ_ERR_FILE, "cannot put token file %s in its place: %s", path,
                         strerror(errno));
    if (status != DJ_OK)
        unlink(beside);
    return status;
}
