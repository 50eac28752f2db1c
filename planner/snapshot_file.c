/* snapshot_file.c - snapshots on disk (snapshot.h). A file is read with pread() into memory of our
 * own, so that one which is cut short meanwhile is a short read, and written beside its place, then
 * renamed. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "planner/snapshot.h"

static dj_status_t open_regular(const char *path, int *fd_p, size_t *size_p)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us */
    if (fd < 0)
        return dj_fail(DJ_ERR_FILE, "%s: %s", path, strerror(errno));
    dj_status_t status = DJ_OK;
    if (fstat(fd, &info) != 0)
        status = dj_fail(DJ_ERR_FILE, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        status = dj_fail(DJ_ERR_FILE, "%s is not a regular file", path);
    else if (info.st_size > DJ_SNAPSHOT_BYTES_MAX)
        status = dj_fail(DJ_ERR_LIMIT, "%s has %lld bytes; a snapshot has at most %d", path,
                         (long long)info.st_size, DJ_SNAPSHOT_BYTES_MAX);
    if (status != DJ_OK) {
        close(fd);
        return status;
    }
    *fd_p = fd;
    *size_p = (size_t)info.st_size;
    return DJ_OK;
}

static dj_status_t read_whole(const char *path, int fd, uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = pread(fd, data + at, size - at, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dj_fail(DJ_ERR_FILE, "%s: %s", path, strerror(errno));
        if (n == 0)
            return dj_fail(DJ_ERR_FILE, "%s was cut to %zu bytes while it was read", path, at);
        at += (size_t)n;
    }
    return DJ_OK;
}

dj_status_t dj_snapshot_read(const char *path, dj_snapshot_t **snapshot_p)
{
    int fd = -1;
    size_t size = 0;
    dj_status_t status = open_regular(path, &fd, &size);
    if (status != DJ_OK)
        return status;
    uint8_t *data = malloc(size + 1);
    if (data == NULL)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for the %zu bytes of %s", size, path);
    else
        status = read_whole(path, fd, data, size);
    close(fd);
    if (status == DJ_OK && (status = dj_snapshot_decode(data, size, snapshot_p)) != DJ_OK)
        dj_fail_prefix(status, "%s", path);
    free(data);
    return status;
}

static dj_status_t write_whole(const char *path, int fd, const dj_bytes_t *bytes)
{
    for (size_t at = 0; at < bytes->size;) {
        ssize_t n = write(fd, bytes->data + at, bytes->size - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dj_fail(DJ_ERR_FILE, "cannot write %s: %s", path, strerror(errno));
        at += (size_t)n;
    }
    return DJ_OK;
}

static dj_status_t put_file(const char *path, const dj_bytes_t *bytes)
{
    char beside[PATH_MAX];
    int length =
        snprintf(beside, sizeof beside, "%s.%016llx", path, (unsigned long long)dj_random_u64());
    if (length < 0 || (size_t)length >= sizeof beside)
        return dj_fail(DJ_ERR_FILE, "the path of a snapshot is too long: %.40s...", path);
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return dj_fail(DJ_ERR_FILE, "cannot make %s: %s", path, strerror(errno));
    dj_status_t status = write_whole(path, fd, bytes);
    if (close(fd) != 0 && status == DJ_OK)
        status = dj_fail(DJ_ERR_FILE, "cannot write %s: %s", path, strerror(errno));
    if (status == DJ_OK && rename(beside, path) != 0)
        status = dj_fail(DJ_ERR_FILE, "cannot put %s in its place: %s", path, strerror(errno));
    if (status != DJ_OK)
        unlink(beside);
    return status;
}

dj_status_t dj_snapshot_write(const char *path, const dj_snapshot_t *snapshot)
{
    dj_bytes_t bytes = {0};
    dj_status_t status = dj_snapshot_encode(snapshot, &bytes);
    if (status == DJ_OK)
        status = put_file(path, &bytes);
    dj_bytes_fini(&bytes);
    return status;
}
