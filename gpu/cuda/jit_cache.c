/* jit_cache.c - see jit_cache.h. Everything goes through the folder's descriptor, so that a folder that is moved
 * meanwhile stays the one that was checked. */
#include "gpu/cuda/jit_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/config.h"

#define MAGIC 0x314a44u /* "DJ1" */
#define NAME_BYTES 64
#define STALE_SECONDS 3600
#define FILES_MAX 65536u

typedef struct header {
    uint32_t magic, header_bytes;
    dj_hash_t key, content;
    uint64_t bytes;
} header_t;

static void name_of(dj_hash_t key, char name[NAME_BYTES])
{
    char hex[33];
    dj_hash_hex(key, hex);
    snprintf(name, NAME_BYTES, "%s.cubin", hex);
}

/* ---- the folder ---- */

static int fail_folder(const char *path, const char *what)
{
    dj_fail(DJ_ERR_FILE, "kernels are not kept in %s: %s", path, what);
    return -1;
}

/* Every missing part of the path, for us alone. */
static int make_folders(char *path)
{
    for (char *at = path + 1;; at++) {
        char was = *at;
        if (was != '/' && was != 0)
            continue;
        *at = 0;
        int failed = mkdir(path, 0700) != 0 && errno != EEXIST;
        *at = was;
        if (failed || was == 0)
            return failed ? -1 : 0;
    }
}

static bool default_path(char *path, size_t bytes)
{
    const char *cache = dj_environment("XDG_CACHE_HOME"), *home = dj_environment("HOME");
    int length = cache && cache[0] == '/' ? snprintf(path, bytes, "%s/djinn/kernels", cache)
                 : home && home[0] == '/' ? snprintf(path, bytes, "%s/.cache/djinn/kernels", home)
                                          : 0;
    return length > 0 && (size_t)length < bytes;
}

int dj_jit_cache_open(const char *path)
{
    char own[PATH_MAX], text[96];
    struct stat info;
    if (!path[0] && !default_path(own, sizeof(own)))
        return fail_folder("the user's cache", "neither XDG_CACHE_HOME nor HOME is a path; set DJINN_KERNEL_CACHE");
    if (path[0] && (size_t)snprintf(own, sizeof(own), "%s", path) >= sizeof(own))
        return fail_folder(path, "the path is too long");
    if (make_folders(own) != 0)
        return fail_folder(own, strerror(errno));
    int folder = open(own, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 || fstat(folder, &info) != 0) {
        int error = errno;
        dj_jit_cache_close(folder);
        return fail_folder(own, strerror(error));
    }
    if (info.st_uid == geteuid() && (info.st_mode & 077) == 0)
        return folder;
    if (info.st_uid != geteuid())
        snprintf(text, sizeof(text), "it belongs to user %u", (unsigned)info.st_uid);
    else
        snprintf(text, sizeof(text), "its mode %03o lets others in; chmod go-rwx", (unsigned)info.st_mode & 0777);
    close(folder);
    return fail_folder(own, text);
}

void dj_jit_cache_close(int folder)
{
    if (folder >= 0)
        close(folder);
}

/* ---- reading ---- */

static bool read_whole(int fd, uint8_t *data, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t n = pread(fd, data + at, bytes - at, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

/* File contents into memory of our own: one that is cut short meanwhile is a short read. */
static uint8_t *read_file(int fd, size_t *bytes_p)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 022) ||
        info.st_size < (off_t)sizeof(header_t) || info.st_size > (off_t)(sizeof(header_t) + DJ_JIT_CUBIN_BYTES_MAX))
        return NULL;
    size_t bytes = (size_t)info.st_size;
    uint8_t *data = malloc(bytes);
    if (data && read_whole(fd, data, bytes)) {
        *bytes_p = bytes;
        return data;
    }
    free(data);
    return NULL;
}

static bool vouches(const header_t *header, dj_hash_t key, const uint8_t *content, size_t bytes)
{
    return header->magic == MAGIC && header->header_bytes == sizeof(*header) && dj_hash_equal(header->key, key) &&
           header->bytes == bytes && bytes > 0 && dj_hash_equal(header->content, dj_hash_of(content, bytes));
}

void *dj_jit_cache_read(int folder, dj_hash_t key, size_t *bytes_p)
{
    char name[NAME_BYTES];
    header_t header;
    size_t bytes = 0;
    name_of(key, name);
    int fd = folder < 0 ? -1 : openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    uint8_t *data = read_file(fd, &bytes);
    if (data)
        futimens(fd, NULL); /* used: the oldest go first */
    close(fd);
    if (!data)
        return NULL;
    memcpy(&header, data, sizeof(header));
    bytes -= sizeof(header);
    memmove(data, data + sizeof(header), bytes);
    if (!vouches(&header, key, data, bytes)) {
        free(data);
        return NULL;
    }
    *bytes_p = bytes;
    return data;
}

/* ---- writing ---- */

static bool write_whole(int fd, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0) {
        ssize_t n = write(fd, at, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        bytes -= (size_t)n;
    }
    return true;
}

dj_status_t dj_jit_cache_write(int folder, dj_hash_t key, const void *cubin, size_t bytes)
{
    char name[NAME_BYTES], beside[NAME_BYTES];
    header_t header = {MAGIC, sizeof(header), key, dj_hash_of(cubin, bytes), bytes};
    if (folder < 0 || bytes == 0 || bytes > DJ_JIT_CUBIN_BYTES_MAX)
        return DJ_OK;
    name_of(key, name);
    snprintf(beside, sizeof(beside), ".%016llx.tmp", (unsigned long long)dj_random_u64());
    int fd = openat(folder, beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return dj_fail(DJ_ERR_FILE, "a compiled kernel is not kept: %s", strerror(errno));
    bool written = write_whole(fd, &header, sizeof(header)) && write_whole(fd, cubin, bytes);
    written = close(fd) == 0 && written;
    if (written && renameat(folder, beside, folder, name) == 0)
        return DJ_OK;
    dj_status_t status = dj_fail(DJ_ERR_FILE, "a compiled kernel is not kept: %s", strerror(errno));
    unlinkat(folder, beside, 0);
    return status;
}

void dj_jit_cache_remove(int folder, dj_hash_t key)
{
    char name[NAME_BYTES];
    name_of(key, name);
    if (folder >= 0)
        unlinkat(folder, name, 0);
}

/* ---- keeping it small ---- */

typedef struct kept {
    char name[NAME_BYTES];
    struct timespec used;
    uint64_t bytes;
} kept_t;

static int by_age(const void *a, const void *b)
{
    const struct timespec *x = &((const kept_t *)a)->used, *y = &((const kept_t *)b)->used;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* False when memory is short. `*files_p` grows by doubling, to at most FILES_MAX. */
static bool add_file(kept_t **files_p, uint32_t *n_p, const kept_t *file)
{
    if ((*n_p & (*n_p - 1)) == 0) {
        kept_t *more = realloc(*files_p, (*n_p ? 2 * (size_t)*n_p : 1) * sizeof(kept_t));
        if (!more)
            return false;
        *files_p = more;
    }
    (*files_p)[(*n_p)++] = *file;
    return true;
}

static uint32_t list_files(int folder, DIR *entries, kept_t **files_p, uint64_t *total_p)
{
    uint32_t n = 0;
    time_t now = time(NULL);
    for (struct dirent *entry; n < FILES_MAX && (entry = readdir(entries));) {
        struct stat info;
        kept_t file;
        size_t length = strlen(entry->d_name);
        if (length >= NAME_BYTES || fstatat(folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode))
            continue;
        if (length > 4 && strcmp(entry->d_name + length - 4, ".tmp") == 0) {
            if (now - info.st_mtime > STALE_SECONDS)
                unlinkat(folder, entry->d_name, 0);
            continue;
        }
        memcpy(file.name, entry->d_name, length + 1);
        file.used = info.st_mtim;
        file.bytes = (uint64_t)info.st_size;
        if (!add_file(files_p, &n, &file))
            break;
        *total_p += file.bytes;
    }
    return n;
}

void dj_jit_cache_trim(int folder, uint64_t bytes_max)
{
    kept_t *files = NULL;
    uint64_t total = 0;
    int again = folder < 0 ? -1 : openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = again < 0 ? NULL : fdopendir(again);
    if (!entries) {
        dj_jit_cache_close(again);
        return;
    }
    uint32_t n = list_files(folder, entries, &files, &total);
    closedir(entries);
    if (total > bytes_max)
        qsort(files, n, sizeof(*files), by_age);
    for (uint32_t i = 0; i < n && total > bytes_max; i++)
        if (unlinkat(folder, files[i].name, 0) == 0)
            total -= files[i].bytes;
    free(files);
}
