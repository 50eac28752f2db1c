/* cache_folder.c - the file of plans on disk (cache_file.h).
 *
 * Everything goes through the folder's descriptor, so that a folder that is moved meanwhile stays the
 * one that was checked. A file is read with pread() into memory of our own: one that is cut short
 * meanwhile is a short read. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "planner/cache_file.h"
#include "runtime/base/clock.h"

enum { NAME_BYTES = 48 };

typedef struct shelf {
    const char *folder;
    char name[NAME_BYTES], lock[NAME_BYTES], beside[NAME_BYTES];
    int folder_fd;
} shelf_t;

static dj_status_t fail_file(const shelf_t *shelf, const char *name, const char *what)
{
    return dj_fail(DJ_ERR_FILE, "%s %s/%s: %s", what, shelf->folder, name, strerror(errno));
}

/* Ours, and nobody else may write it. */
static dj_status_t check_owner(const shelf_t *shelf, const char *name, const struct stat *info)
{
    if (info->st_uid != geteuid())
        return dj_fail(DJ_ERR_FILE, "plans in %s/%s are not read: it belongs to user %u",
                       shelf->folder, name, (unsigned)info->st_uid);
    if (info->st_mode & (S_IWGRP | S_IWOTH))
        return dj_fail(DJ_ERR_FILE, "plans in %s/%s are not read: its mode %03o lets others write; "
                       "chmod go-w", shelf->folder, name, (unsigned)info->st_mode & 0777);
    return DJ_OK;
}

/* DJ_ERR_NO_PLAN: there is no folder, and `make` was false. */
static dj_status_t open_shelf(const char *folder, dj_hash_t device_class, bool make, shelf_t *shelf)
{
    struct stat info;
    char hex[33];
    dj_hash_hex(device_class, hex);
    *shelf = (shelf_t){.folder = folder};
    snprintf(shelf->name, NAME_BYTES, "%s.plans", hex);
    snprintf(shelf->lock, NAME_BYTES, "%s.lock", hex);
    snprintf(shelf->beside, NAME_BYTES, "%s.tmp", hex);
    if (make && mkdir(folder, 0700) != 0 && errno != EEXIST)
        return dj_fail(DJ_ERR_FILE, "cannot make the folder %s for plans: %s", folder,
                       strerror(errno));
    shelf->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (shelf->folder_fd < 0 && errno == ENOENT && !make)
        return DJ_ERR_NO_PLAN;
    if (shelf->folder_fd < 0)
        return dj_fail(DJ_ERR_FILE, "cannot open the folder %s for plans: %s", folder,
                       strerror(errno));
    dj_status_t status = fstat(shelf->folder_fd, &info) == 0 ? check_owner(shelf, "", &info)
                                                             : fail_file(shelf, "", "cannot open");
    if (status != DJ_OK)
        close(shelf->folder_fd);
    return status;
}

/* ---- reading ---- */

static dj_status_t check_regular(const shelf_t *shelf, int fd, size_t *size_p)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return fail_file(shelf, shelf->name, "cannot read");
    if (!S_ISREG(info.st_mode))
        return dj_fail(DJ_ERR_FILE, "%s/%s is no regular file", shelf->folder, shelf->name);
    if (info.st_size > DJ_CACHE_FILE_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "%s/%s has %lld bytes; plans have at most %d", shelf->folder,
                       shelf->name, (long long)info.st_size, DJ_CACHE_FILE_BYTES_MAX);
    *size_p = (size_t)info.st_size;
    return check_owner(shelf, shelf->name, &info);
}

static dj_status_t read_whole(const shelf_t *shelf, int fd, uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = pread(fd, data + at, size - at, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_file(shelf, shelf->name, "cannot read");
        if (n == 0)
            return dj_fail(DJ_ERR_FILE, "%s/%s was cut to %zu bytes while it was read",
                           shelf->folder, shelf->name, at);
        at += (size_t)n;
    }
    return DJ_OK;
}

/* The file's bytes, to be freed; DJ_OK and NULL when there is none. */
static dj_status_t read_file(const shelf_t *shelf, uint8_t **data_p, size_t *size_p)
{
    *data_p = NULL;
    *size_p = 0;
    /* a link is not followed, a FIFO must not hold us */
    int fd = openat(shelf->folder_fd, shelf->name,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? DJ_OK : fail_file(shelf, shelf->name, "cannot read");
    dj_status_t status = check_regular(shelf, fd, size_p);
    uint8_t *data = status == DJ_OK ? malloc(*size_p + 1) : NULL;
    if (status == DJ_OK && data == NULL)
        status = dj_fail(DJ_ERR_MEMORY, "no memory for the %zu bytes of %s/%s", *size_p,
                         shelf->folder, shelf->name);
    if (status == DJ_OK)
        status = read_whole(shelf, fd, data, *size_p);
    close(fd);
    if (status == DJ_OK)
        *data_p = data;
    else
        free(data);
    return status;
}

dj_status_t dj_cache_file_load(const char *folder, dj_hash_t device_class, dj_cache_t *cache,
                               uint32_t *n_plans_p)
{
    shelf_t shelf;
    uint8_t *data;
    size_t size;
    *n_plans_p = 0;
    dj_status_t status = open_shelf(folder, device_class, false, &shelf);
    if (status != DJ_OK)
        return status == DJ_ERR_NO_PLAN ? DJ_OK : status;
    status = read_file(&shelf, &data, &size);
    close(shelf.folder_fd);
    if (status == DJ_OK && data != NULL) {
        status = dj_cache_file_decode(data, size, device_class, cache, n_plans_p);
        if (status != DJ_OK)
            dj_fail_prefix(status, "%s/%s", folder, shelf.name);
    }
    free(data);
    return status;
}

/* ---- writing ---- */

static dj_status_t write_whole(const shelf_t *shelf, int fd, const dj_bytes_t *bytes)
{
    for (size_t at = 0; at < bytes->size;) {
        ssize_t n = write(fd, bytes->data + at, bytes->size - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_file(shelf, shelf->beside, "cannot write");
        at += (size_t)n;
    }
    return fsync(fd) == 0 ? DJ_OK : fail_file(shelf, shelf->beside, "cannot write");
}

/* The lock is held. What a killed writer left goes first. */
static dj_status_t put_file(const shelf_t *shelf, const dj_bytes_t *bytes)
{
    unlinkat(shelf->folder_fd, shelf->beside, 0);
    int fd = openat(shelf->folder_fd, shelf->beside,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_file(shelf, shelf->beside, "cannot make");
    dj_status_t status = write_whole(shelf, fd, bytes);
    if (close(fd) != 0 && status == DJ_OK)
        status = fail_file(shelf, shelf->beside, "cannot write");
    if (status == DJ_OK &&
        renameat(shelf->folder_fd, shelf->beside, shelf->folder_fd, shelf->name) != 0)
        status = fail_file(shelf, shelf->name, "cannot put in its place");
    if (status != DJ_OK)
        unlinkat(shelf->folder_fd, shelf->beside, 0);
    return status;
}

/* A lock that ends with its holder, so that nothing is left to be cleared away. */
static dj_status_t take_lock(const shelf_t *shelf, uint32_t wait_ms, int *fd_p)
{
    uint64_t until_ns = dj_clock_ns() + wait_ms * DJ_NS_PER_MS;
    int fd = openat(shelf->folder_fd, shelf->lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_file(shelf, shelf->lock, "cannot open");
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        bool busy = errno == EWOULDBLOCK || errno == EINTR;
        if (busy && dj_clock_ns() < until_ns) {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            continue;
        }
        dj_status_t status = busy ? dj_fail(DJ_ERR_BUSY, "another rank writes plans to %s",
                                            shelf->folder)
                                  : fail_file(shelf, shelf->lock, "cannot lock");
        close(fd);
        return status;
    }
    *fd_p = fd;
    return DJ_OK;
}

/* A file that cannot be used is written anew, unless it is not ours to replace. */
static dj_status_t write_locked(const shelf_t *shelf, dj_hash_t device_class, dj_cache_t *cache)
{
    uint8_t *before = NULL;
    size_t before_size = 0;
    dj_bytes_t bytes = {0};
    dj_status_t status = read_file(shelf, &before, &before_size);
    if (status == DJ_ERR_LIMIT)
        status = DJ_OK;
    if (status == DJ_OK)
        status = dj_cache_file_encode(cache, device_class, before, before_size, &bytes);
    if (status == DJ_OK)
        status = put_file(shelf, &bytes);
    dj_bytes_fini(&bytes);
    free(before);
    return status;
}

dj_status_t dj_cache_file_save(const char *folder, dj_hash_t device_class, dj_cache_t *cache,
                               uint32_t wait_ms)
{
    shelf_t shelf;
    int lock_fd = -1;
    dj_status_t status = open_shelf(folder, device_class, true, &shelf);
    if (status != DJ_OK)
        return status;
    status = take_lock(&shelf, wait_ms, &lock_fd);
    if (status == DJ_OK) {
        status = write_locked(&shelf, device_class, cache);
        close(lock_fd);
    }
    close(shelf.folder_fd);
    return status;
}
