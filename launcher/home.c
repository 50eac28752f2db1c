/* home.c - small private files, written by rename and read with their owner and mode checked. */
#include "launcher/home.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/config.h"

dj_status_t dj_home_path(const char *name, char path[DJ_PATH_MAX])
{
    const char *home = dj_environment("HOME");
    struct passwd *entry = home ? NULL : getpwuid(getuid());
    if (!home && entry)
        home = entry->pw_dir;
    if (!home || snprintf(path, DJ_PATH_MAX, "%s/.djinn", home) >= DJ_PATH_MAX - 256)
        return dj_fail(DJ_ERR_FILE, "no home folder for ~/.djinn; set HOME or DJINN_TOKEN");
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return dj_fail(DJ_ERR_FILE, "cannot make the folder %s: %s", path, strerror(errno));
    size_t used = strlen(path);
    if (snprintf(path + used, DJ_PATH_MAX - used, "/%s", name) >= 256)
        return dj_fail(DJ_ERR_FILE, "the file name %.64s... is too long", name);
    return DJ_OK;
}

dj_status_t dj_home_write(const char *path, const char *text)
{
    char fresh[DJ_PATH_MAX + 16];
    size_t size = strlen(text);
    snprintf(fresh, sizeof fresh, "%s.%d", path, (int)getpid());
    unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return dj_fail(DJ_ERR_FILE, "cannot write %s: %s", fresh, strerror(errno));
    ssize_t written = write(fd, text, size);
    int wrong = written == (ssize_t)size ? 0 : written < 0 ? errno : ENOSPC;
    if (close(fd) != 0 && !wrong)
        wrong = errno;
    if (!wrong && rename(fresh, path) != 0)
        wrong = errno;
    if (!wrong)
        return DJ_OK;
    unlink(fresh);
    return dj_fail(DJ_ERR_FILE, "cannot write %s: %s", path, strerror(wrong));
}

dj_status_t dj_home_read(const char *path, char *text, size_t room, long long *modified_s_p)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return dj_fail(DJ_ERR_FILE, "cannot read %s: %s", path, strerror(errno));
    dj_status_t status = DJ_OK;
    ssize_t got = 0;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != getuid())
        status = dj_fail(DJ_ERR_FILE, "%s is no regular file of ours", path);
    else if (info.st_mode & 077)
        status = dj_fail(DJ_ERR_AUTH, "%s may be read by others; chmod 600 it", path);
    else if ((got = read(fd, text, room - 1)) < 0)
        status = dj_fail(DJ_ERR_FILE, "cannot read %s: %s", path, strerror(errno));
    close(fd);
    if (status != DJ_OK)
        return status;
    text[got] = '\0';
    *modified_s_p = (long long)info.st_mtime;
    return DJ_OK;
}
