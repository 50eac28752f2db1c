/* read.c - sentences, files below the root, the mount table and cgroups. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/doctor/check.h"

enum { MOUNTS_MAX = 1 << 20 };

/* ---- sentences ---- */

static void make_printable(char *text)
{
    for (; *text; text++)
        *text = isprint((unsigned char)*text) ? *text : '?';
}

dj_verdict_t dj_find(dj_finding_t *finding, dj_verdict_t verdict, const char *next,
                     const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->text, sizeof finding->text, format, arguments);
    va_end(arguments);
    make_printable(finding->text);
    snprintf(finding->next, sizeof finding->next, "%s", next);
    return verdict;
}

void dj_advise(dj_finding_t *finding, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->next, sizeof finding->next, format, arguments);
    va_end(arguments);
    make_printable(finding->next);
}

void dj_list_add(char *text, size_t room, const char *format, ...)
{
    char entry[512];
    size_t end = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(entry, sizeof entry, format, arguments);
    va_end(arguments);
    if (end + strlen(entry) + 3 < room)
        snprintf(text + end, room - end, "%s%s", end ? ", " : "", entry);
}

/* ---- files ---- */

const char *dj_exam_path(const dj_exam_t *exam, char path[DJ_FILE_PATH_MAX], const char *format,
                         ...)
{
    va_list arguments;
    int used = snprintf(path, DJ_FILE_PATH_MAX, "%s", exam->doctor->root);
    if (used < 0 || used >= DJ_FILE_PATH_MAX)
        return path;
    va_start(arguments, format);
    vsnprintf(path + used, (size_t)(DJ_FILE_PATH_MAX - used), format, arguments);
    va_end(arguments);
    return path;
}

bool dj_exam_exists(const dj_exam_t *exam, const char *path)
{
    char full[DJ_FILE_PATH_MAX];
    return access(dj_exam_path(exam, full, "%s", path), F_OK) == 0;
}

static bool read_whole(const char *path, char *text, size_t room)
{
    size_t used = 0;
    ssize_t got = 0;
    text[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    while (used < room - 1 && (got = read(fd, text + used, room - 1 - used)) > 0)
        used += (size_t)got;
    close(fd);
    text[used] = '\0';
    return got >= 0;
}

bool dj_exam_read(const dj_exam_t *exam, const char *path, char *text, size_t room)
{
    char full[DJ_FILE_PATH_MAX];
    bool good = read_whole(dj_exam_path(exam, full, "%s", path), text, room);
    size_t end = good ? strlen(text) : 0;
    if (end > 0 && text[end - 1] == '\n')
        end--;
    text[end] = '\0';
    return good;
}

bool dj_exam_number(const dj_exam_t *exam, const char *path, long long *number_p)
{
    char text[64], *end;
    if (!dj_exam_read(exam, path, text, sizeof text))
        return false;
    long long number = strtoll(text, &end, 10);
    if (end == text)
        return false;
    *number_p = number;
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

int dj_exam_entries(const dj_exam_t *exam, const char *folder, char (*names)[DJ_ENTRY_MAX],
                    int most)
{
    char full[DJ_FILE_PATH_MAX];
    DIR *directory = opendir(dj_exam_path(exam, full, "%s", folder));
    struct dirent *entry;
    int count = 0;
    if (!directory)
        return 0;
    while (count < most && (entry = readdir(directory))) {
        if (entry->d_name[0] != '.' && strlen(entry->d_name) < DJ_ENTRY_MAX)
            snprintf(names[count++], DJ_ENTRY_MAX, "%.63s", entry->d_name);
    }
    closedir(directory);
    qsort(names, (size_t)count, sizeof names[0], compare_names);
    return count;
}

/* ---- mounts ---- */

typedef struct mount {
    char root[DJ_FILE_PATH_MAX], point[DJ_FILE_PATH_MAX], type[DJ_ENTRY_MAX], options[512];
} mount_t;

/* "\040" is a blank. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at; at++) {
        unsigned code;
        if (at[0] == '\\' && sscanf(at + 1, "%3o", &code) == 1 && code > 0 && code < 256) {
            *to++ = (char)code;
            at += strspn(at + 1, "01234567") < 3 ? strspn(at + 1, "01234567") : 3;
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
}

/* "36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue" */
static bool read_mount(const char *line, mount_t *mount)
{
    const char *rest = strstr(line, " - ");
    const char *end = line + strcspn(line, "\n");
    mount->options[0] = '\0';
    if (!rest || rest > end ||
        sscanf(line, "%*s %*s %*s %1023s %1023s", mount->root, mount->point) != 2 ||
        sscanf(rest + 3, "%63s %*s %511[^\n]", mount->type, mount->options) < 1)
        return false;
    unescape(mount->root);
    unescape(mount->point);
    return true;
}

/* Calls `see` with each mount of the table. */
static void walk_mounts(const dj_exam_t *exam, void (*see)(const mount_t *mount, void *context),
                        void *context)
{
    char *text = malloc(MOUNTS_MAX);
    mount_t mount;
    if (text && dj_exam_read(exam, "/proc/self/mountinfo", text, MOUNTS_MAX)) {
        for (const char *at = text; *at;) {
            if (read_mount(at, &mount))
                see(&mount, context);
            at += strcspn(at, "\n");
            at += *at == '\n';
        }
    }
    free(text);
}

/* Whether `path` is the folder or lies below it. */
static bool is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    if (strcmp(folder, "/") == 0)
        return path[0] == '/';
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

typedef struct holder {
    const char *path;
    size_t longest;
    char *type;
    size_t room;
} holder_t;

static void see_holder(const mount_t *mount, void *context)
{
    holder_t *holder = context;
    size_t length = strlen(mount->point);
    /* The last of several at one point is the one that is seen. */
    if (is_below(holder->path, mount->point) && length >= holder->longest) {
        holder->longest = length;
        snprintf(holder->type, holder->room, "%s", mount->type);
    }
}

const char *dj_exam_file_system(const dj_exam_t *exam, const char *path, char *type, size_t room)
{
    holder_t holder = {path, 0, type, room};
    snprintf(type, room, "?");
    walk_mounts(exam, see_holder, &holder);
    return type;
}

bool dj_is_shared_file_system(const char *type)
{
    static const char *const shared[] = {"nfs",   "nfs4",      "lustre",   "gpfs",   "beegfs",
                                         "ceph",  "glusterfs", "afs",      "cifs",   "smb3",
                                         "panfs", "orangefs",  "pvfs2",    "wekafs", "gfs2",
                                         "ocfs2", "daos",      "virtiofs", "9p",     "autofs"};
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++)
        if (strcmp(type, shared[i]) == 0)
            return true;
    return strncmp(type, "fuse.", 5) == 0; /* sshfs, ceph-fuse, glusterfs, dfuse, s3fs, ... */
}

/* ---- cgroups ---- */

typedef struct group {
    const char *controller;
    bool is_v2;
    char path[DJ_FILE_PATH_MAX];  /* of this process */
    char point[DJ_FILE_PATH_MAX]; /* of the mount; empty: none */
    char root[DJ_FILE_PATH_MAX];
} group_t;

static bool is_in_list(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; *at;) {
        size_t span = strcspn(at, ",:\n");
        if (span == length && strncmp(at, word, length) == 0)
            return true;
        at += span;
        if (*at != ',')
            return false;
        at++;
    }
    return false;
}

/* "5:memory:/job" (v1) wins over "0::/job" (v2), where the controller then is not. */
static bool find_group(const dj_exam_t *exam, group_t *group)
{
    char text[8192];
    bool found = false;
    if (!dj_exam_read(exam, "/proc/self/cgroup", text, sizeof text))
        return false;
    for (const char *at = text; *at;) {
        const char *list = strchr(at, ':'), *path = list ? strchr(list + 1, ':') : NULL;
        const char *end = at + strcspn(at, "\n");
        bool is_v2 = path && path == list + 1;
        if (path && path < end && ((is_v2 && !found) || is_in_list(list + 1, group->controller))) {
            snprintf(group->path, sizeof group->path, "%.*s", (int)(end - path - 1), path + 1);
            group->is_v2 = is_v2;
            found = true;
        }
        at = end + (*end == '\n');
    }
    return found;
}

static void see_group(const mount_t *mount, void *context)
{
    group_t *group = context;
    bool fits = group->is_v2 ? strcmp(mount->type, "cgroup2") == 0
                             : strcmp(mount->type, "cgroup") == 0 &&
                                   is_in_list(mount->options, group->controller);
    /* "rw,memory": the controller stands among the options of the super block */
    if (!fits || group->point[0])
        return;
    snprintf(group->point, sizeof group->point, "%s", mount->point);
    snprintf(group->root, sizeof group->root, "%s", mount->root);
}

double dj_cgroup_limit(const dj_exam_t *exam, const dj_cgroup_file_t *file,
                       double (*parse)(const dj_exam_t *exam, const char *folder, const char *text),
                       char folder[DJ_FILE_PATH_MAX], bool *is_v2_p)
{
    group_t group = {.controller = file->controller};
    double lowest = -1;
    char at[2 * DJ_FILE_PATH_MAX], name[2 * DJ_FILE_PATH_MAX + 64], text[256];
    folder[0] = '\0';
    if (!find_group(exam, &group))
        return -1;
    *is_v2_p = group.is_v2;
    walk_mounts(exam, see_group, &group);
    if (!group.point[0])
        return -1;
    /* A container sees its own cgroup at the mount's top, whatever the path says. */
    const char *below = group.path;
    if (strcmp(group.root, "/") != 0)
        below = is_below(below, group.root) ? below + strlen(group.root) : "";
    snprintf(at, sizeof at, "%s%s", group.point, strcmp(below, "/") == 0 ? "" : below);
    for (size_t top = strlen(group.point); strlen(at) >= top; *strrchr(at, '/') = '\0') {
        snprintf(name, sizeof name, "%s/%s", at, group.is_v2 ? file->v2 : file->v1);
        double limit = dj_exam_read(exam, name, text, sizeof text) ? parse(exam, at, text) : -1;
        if (limit >= 0 && (lowest < 0 || limit < lowest)) {
            lowest = limit;
            snprintf(folder, DJ_FILE_PATH_MAX, "%.1023s", at);
        }
        if (!strrchr(at, '/'))
            break;
    }
    return lowest;
}
