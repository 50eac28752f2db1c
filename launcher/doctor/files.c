/* files.c - the user's folder and the folders of weights. They may lie on a file server that
 * hangs, so a process of its own looks at them (dj_probe_files). */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher/doctor/questions.h"
#include "runtime/base/config.h"

static void add_folder(dj_folders_t *folders, const char *format, const char *root,
                       const char *path, int length)
{
    if (folders->count < DJ_FOLDERS_MAX)
        snprintf(folders->paths[folders->count++], DJ_FILE_PATH_MAX, format, root, length, path);
}

void dj_folders_list(const dj_exam_t *exam, dj_folders_t *folders)
{
    const char *home = dj_environment("HOME");
    const char *root = exam->doctor->root, *token = exam->doctor->config->token_file;
    folders->count = 0;
    if (!home)
        home = "/nonexistent";
    add_folder(folders, "%s%.*s/.djinn", root, home, (int)strlen(home));
    if (token[0])
        add_folder(folders, "%s%.*s", root, token, (int)strlen(token));
    else
        add_folder(folders, "%s%.*s/.djinn/token", root, home, (int)strlen(home));
    add_folder(folders, "%s%.*s", root, home, (int)strlen(home));
    for (const char *at = exam->doctor->config->model_roots; *at;) {
        int span = (int)strcspn(at, ":");
        if (span > 0)
            add_folder(folders, "%s%.*s", root, at, span);
        at += span + (at[span] == ':');
    }
}

void dj_probe_files(const void *argument)
{
    const dj_folders_t *folders = argument;
    for (int i = 0; i < folders->count; i++) {
        struct stat info;
        char real[PATH_MAX];
        printf("%d-path=%s\n", i, folders->paths[i]);
        fflush(stdout); /* the last line before a hang names it */
        if (stat(folders->paths[i], &info) != 0) {
            printf("%d-error=%s\n", i, strerror(errno));
            continue;
        }
        printf("%d-mode=%o\n%d-uid=%u\n%d-writable=%d\n%d-folder=%d\n", i,
               (unsigned)info.st_mode & 07777, i, (unsigned)info.st_uid, i,
               access(folders->paths[i], W_OK) == 0, i, S_ISDIR(info.st_mode));
        if (realpath(folders->paths[i], real))
            printf("%d-real=%s\n", i, real);
        fflush(stdout);
    }
    puts("all=1");
}

/* ---- what it said ---- */

typedef struct seen {
    bool exists, writable, is_folder;
    unsigned mode, uid;
    char error[128], real[PATH_MAX];
} seen_t;

static const char *value_of(const dj_ask_t *ask, int i, const char *key, char *value, size_t room)
{
    char name[32];
    snprintf(name, sizeof name, "%d-%s", i, key);
    dj_ask_value(ask, name, value, room);
    return value;
}

static void read_seen(const dj_exam_t *exam, int i, seen_t *seen)
{
    const dj_ask_t *ask = &exam->asks[DJ_ASK_FILES];
    char text[64];
    size_t root = strlen(exam->doctor->root);
    *seen = (seen_t){0};
    seen->mode = (unsigned)strtoul(value_of(ask, i, "mode", text, sizeof text), NULL, 8);
    seen->exists = text[0] != '\0';
    seen->uid = (unsigned)strtoul(value_of(ask, i, "uid", text, sizeof text), NULL, 10);
    seen->writable = strcmp(value_of(ask, i, "writable", text, sizeof text), "1") == 0;
    seen->is_folder = strcmp(value_of(ask, i, "folder", text, sizeof text), "1") == 0;
    value_of(ask, i, "error", seen->error, sizeof seen->error);
    value_of(ask, i, "real", seen->real, sizeof seen->real);
    if (root > 0 && strncmp(seen->real, exam->doctor->root, root) == 0)
        memmove(seen->real, seen->real + root, strlen(seen->real + root) + 1);
    if (!seen->real[0])
        snprintf(seen->real, sizeof seen->real, "/");
}

/* True, and a finding, when the folders cannot be judged: nobody looked, or one of them hangs. */
static bool nothing_seen(dj_exam_t *exam, dj_finding_t *finding, dj_verdict_t *verdict_p)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_FILES];
    char text[DJ_FILE_PATH_MAX] = "", path[DJ_FILE_PATH_MAX] = "?";
    dj_ask_state_t state = dj_ask_wait(ask);
    if (state == DJ_ASKED_ANSWERED && dj_ask_value(ask, "all", text, sizeof text))
        return false;
    *verdict_p = DJ_VERDICT_INFO;
    if (state == DJ_ASKED_NOT || state == DJ_ASKED_MISSING) {
        dj_find(finding, DJ_VERDICT_INFO, "", "nobody looked at folders (--quick)");
        return true;
    }
    for (int i = 0; i < DJ_FOLDERS_MAX; i++)
        if (value_of(ask, i, "path", text, sizeof text)[0])
            snprintf(path, sizeof path, "%s", text);
    *verdict_p = dj_find(finding, DJ_VERDICT_FAIL,
                         "mount | grep the folder; a file server that is down makes every start "
                         "wait for it",
                         "%s does not answer within %d s", path, DJ_ASK_MS / 1000);
    return true;
}

dj_verdict_t dj_check_home(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_verdict_t verdict;
    seen_t folder, token, home;
    char type[64];
    if (nothing_seen(exam, finding, &verdict))
        return verdict;
    read_seen(exam, 0, &folder);
    read_seen(exam, 1, &token);
    read_seen(exam, 2, &home);
    if (!home.exists || (!folder.exists && !home.writable))
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "set HOME to a folder of yours, or DJINN_TOKEN and DJINN_ADDRESS",
                       "~/.djinn cannot be made: the home folder %s",
                       home.exists ? "may not be written to" : "does not exist");
    dj_exam_file_system(exam, home.real, type, sizeof type);
    if (token.exists && (token.uid != getuid() || (token.mode & 077)))
        return dj_find(finding, DJ_VERDICT_FAIL,
                       token.uid != getuid() ? "remove it; the next server makes a new one"
                                             : "chmod 600 ~/.djinn/token",
                       "the token file has mode %o and owner %u; it is refused", token.mode,
                       token.uid);
    if (folder.exists && (folder.uid != getuid() || (folder.mode & 077)))
        return dj_find(finding, DJ_VERDICT_WARN, "chmod 700 ~/.djinn",
                       "~/.djinn has mode %o and owner %u: others may see what is in it",
                       folder.mode, folder.uid);
    return dj_find(finding, DJ_VERDICT_OK, "",
                   "~/.djinn %s, on %s (%s); srun --mpi=none needs it "
                   "to be the same on all nodes",
                   folder.exists ? "is private" : "can be made", type,
                   dj_is_shared_file_system(type) ? "shared" : "local");
}

dj_verdict_t dj_check_weights(dj_exam_t *exam, dj_finding_t *finding)
{
    const char *nodes = dj_environment("SLURM_JOB_NUM_NODES");
    bool several = nodes && strtoul(nodes, NULL, 10) > 1, local = false;
    char list[DJ_FINDING_MAX - 256] = "", type[64];
    static dj_folders_t folders;
    dj_verdict_t verdict;
    if (nothing_seen(exam, finding, &verdict))
        return verdict;
    dj_folders_list(exam, &folders);
    for (int i = DJ_FOLDERS_FIXED; i < folders.count; i++) {
        const char *path = folders.paths[i] + strlen(exam->doctor->root);
        seen_t seen;
        read_seen(exam, i, &seen);
        if (!seen.exists || !seen.is_folder)
            return dj_find(
                finding, DJ_VERDICT_FAIL, "mount it, or name other folders with --model-roots",
                "the folder of weights %s: %s", path, seen.exists ? "is no folder" : seen.error);
        dj_exam_file_system(exam, seen.real, type, sizeof type);
        bool shared = dj_is_shared_file_system(type);
        local |= !shared;
        dj_list_add(list, sizeof list, "%s is %s (%s)", path, type, shared ? "shared" : "local");
    }
    if (several && local)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "put the weights on a shared file system, or the same files on every node",
                       "%s; in a job of several nodes each rank reads its own node's files", list);
    return dj_find(finding, DJ_VERDICT_OK, "",
                   "%s; ranks on other nodes must see the same files (not looked at)",
                   list[0] ? list : "no folder is named");
}
