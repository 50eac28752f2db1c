/* plugin.c - loading, checking and listing plugins.
 *
 * A file is opened once, and what was checked and hashed is what is loaded: the dynamic linker is
 * given the open descriptor's name in /proc, not the path, so nobody can put another file there in
 * between. */
#include "planner/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16, PATH_BYTES = 4096 };

static const dj_plugin_host_t host = {
    .abi = DJ_PLUGIN_ABI,
    .struct_bytes = sizeof(dj_plugin_host_t),
    .layout = DJ_PLUGIN_LAYOUT,
    .op_find = dj_op_find,
    .op_info = dj_op_info,
    .fail = dj_fail,
    .view_equal = dj_view_equal,
    .graph = dj_rewriter_graph,
    .root = dj_rewriter_root,
    .uses = dj_rewriter_uses,
    .rename = dj_rewriter_rename,
    .drop = dj_rewriter_drop,
    .dropped = dj_rewriter_dropped,
    .move = dj_rewriter_move,
    .commit = dj_rewriter_commit,
    .alloc = dj_rewriter_alloc,
};

/* The process's plugins. Written by dj_plugins_load() alone, before threads. */
static struct {
    bool loaded;
    uint32_t count, n_rewrites;
    const dj_plugin_t *plugins[DJ_PLUGINS_MAX];
    void *handles[DJ_PLUGINS_MAX];
    dj_rewrite_fn_t rewrites[DJ_PLUGINS_MAX * DJ_PLUGIN_REWRITES_MAX];
    dj_hash_t hash;
} all;

/* ---- descriptions ---- */

static bool is_text(const char *text)
{
    size_t length = text != NULL ? strnlen(text, DJ_PLUGIN_TEXT_MAX + 1) : 0;
    for (size_t i = 0; i < length; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    return length > 0 && length <= DJ_PLUGIN_TEXT_MAX;
}

static dj_status_t check_detector(const dj_plugin_t *plugin, uint32_t at)
{
    const dj_detector_t *row = &plugin->detectors[at];
    if (row->name == NULL || strnlen(row->name, 256) == 256 || row->name[0] == '\0' ||
        row->match == NULL)
        return dj_fail(DJ_ERR_INVALID, "plugin %s: detector %u has no name or no function",
                       plugin->name, at);
    if (row->phase == DJ_PHASE_UNKNOWN || row->phase >= DJ_PHASE_COUNT || !(row->weight > 0) ||
        !isfinite(row->weight))
        return dj_fail(DJ_ERR_INVALID, "plugin %s: detector %u, phase %u with weight %g",
                       plugin->name, at, row->phase, (double)row->weight);
    return DJ_OK;
}

dj_status_t dj_plugin_check(const dj_plugin_t *plugin)
{
    if (plugin->abi != DJ_PLUGIN_ABI)
        return dj_fail(DJ_ERR_VERSION,
                       "a plugin of version %u of the interface; this Djinn has %u: "
                       "compile it anew",
                       plugin->abi, DJ_PLUGIN_ABI);
    if (!is_text(plugin->name) || !is_text(plugin->version))
        return dj_fail(DJ_ERR_INVALID,
                       "a plugin whose name or version is not 1 to %d printable "
                       "characters",
                       DJ_PLUGIN_TEXT_MAX);
    if (plugin->features_bytes == 0 || plugin->features_bytes > sizeof(dj_features_t))
        return dj_fail(DJ_ERR_VERSION,
                       "plugin %s was compiled for features of %u bytes; this Djinn "
                       "has %zu: compile it anew",
                       plugin->name, plugin->features_bytes, sizeof(dj_features_t));
    if (plugin->n_rewrites > 0 && plugin->layout != DJ_PLUGIN_LAYOUT)
        return dj_fail(DJ_ERR_VERSION,
                       "plugin %s rewrites graphs of another Djinn: compile it anew", plugin->name);
    if (plugin->n_detectors > DJ_PLUGIN_DETECTORS_MAX ||
        plugin->n_rewrites > DJ_PLUGIN_REWRITES_MAX)
        return dj_fail(DJ_ERR_LIMIT,
                       "plugin %s has %u detectors and %u rewrites; at most %d and %d",
                       plugin->name, plugin->n_detectors, plugin->n_rewrites,
                       DJ_PLUGIN_DETECTORS_MAX, DJ_PLUGIN_REWRITES_MAX);
    if ((plugin->n_detectors > 0 && plugin->detectors == NULL) ||
        (plugin->n_rewrites > 0 && plugin->rewrites == NULL))
        return dj_fail(DJ_ERR_INVALID, "plugin %s counts what it does not give", plugin->name);
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; status == DJ_OK && i < plugin->n_detectors; i++)
        status = check_detector(plugin, i);
    for (uint32_t i = 0; status == DJ_OK && i < plugin->n_rewrites; i++)
        if (plugin->rewrites[i] == NULL)
            status =
                dj_fail(DJ_ERR_INVALID, "plugin %s: rewrite %u has no function", plugin->name, i);
    return status;
}

/* ---- files ---- */

static dj_status_t open_file(const char *path, int *fd_p)
{
    struct stat info;
    if (path[0] != '/')
        return dj_fail(DJ_ERR_FILE, "plugin %s: name it by an absolute path", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0) {
        dj_status_t status = dj_fail(DJ_ERR_FILE, "plugin %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return status;
    }
    dj_status_t status = DJ_OK;
    if (!S_ISREG(info.st_mode))
        status = dj_fail(DJ_ERR_FILE, "plugin %s is not a regular file", path);
    else if (info.st_uid != geteuid() && info.st_uid != 0)
        status = dj_fail(DJ_ERR_FILE, "plugin %s belongs to user %u; it must be yours or root's",
                         path, (unsigned)info.st_uid);
    else if (info.st_mode & (S_IWGRP | S_IWOTH))
        status = dj_fail(DJ_ERR_FILE, "plugin %s may be written by others: chmod go-w it", path);
    if (status != DJ_OK)
        close(fd);
    else
        *fd_p = fd;
    return status;
}

static dj_status_t hash_file(const char *path, int fd, dj_hasher_t *hasher)
{
    uint8_t *buffer = malloc(READ_BYTES);
    if (buffer == NULL)
        return dj_fail(DJ_ERR_MEMORY, "plugin %s: no memory to read it", path);
    ssize_t n;
    while ((n = read(fd, buffer, READ_BYTES)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0)
            dj_hasher_update(hasher, buffer, (size_t)n);
    free(buffer);
    return n == 0 ? DJ_OK : dj_fail(DJ_ERR_FILE, "plugin %s: %s", path, strerror(errno));
}

static dj_status_t enter(const char *path, void *handle, const dj_plugin_t **plugin_p)
{
    dj_plugin_entry_t entry;
    *(void **)&entry = dlsym(handle, DJ_PLUGIN_ENTRY);
    if (entry == NULL)
        return dj_fail(DJ_ERR_FILE, "plugin %s: it exports no %s()", path, DJ_PLUGIN_ENTRY);
    const dj_plugin_t *plugin = entry(&host);
    if (plugin == NULL)
        return dj_fail(DJ_ERR_FILE, "plugin %s declined to serve this Djinn", path);
    dj_status_t status = dj_plugin_check(plugin);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "%s", path);
    for (uint32_t i = 0; i < all.count; i++)
        if (strcmp(all.plugins[i]->name, plugin->name) == 0)
            return dj_fail(DJ_ERR_INVALID, "plugin %s: another one is called %s, too", path,
                           plugin->name);
    *plugin_p = plugin;
    return DJ_OK;
}

static dj_status_t load_descriptor(const char *path, int fd, dj_hasher_t *hasher)
{
    char name[64];
    const dj_plugin_t *plugin = NULL;
    dj_status_t status = hash_file(path, fd, hasher);
    if (status != DJ_OK)
        return status;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return dj_fail(DJ_ERR_FILE, "plugin %s: %s", path, dlerror());
    status = enter(path, handle, &plugin);
    if (status != DJ_OK) {
        dlclose(handle);
        return status;
    }
    dj_hasher_update(hasher, plugin->name, strlen(plugin->name) + 1);
    dj_hasher_update(hasher, plugin->version, strlen(plugin->version) + 1);
    for (uint32_t i = 0; i < plugin->n_rewrites; i++)
        all.rewrites[all.n_rewrites++] = plugin->rewrites[i];
    all.handles[all.count] = handle;
    all.plugins[all.count++] = plugin;
    return DJ_OK;
}

static dj_status_t load_file(const char *path, dj_hasher_t *hasher)
{
    int fd = -1;
    if (all.count == DJ_PLUGINS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "plugin %s: at most %d are loaded", path, DJ_PLUGINS_MAX);
    dj_status_t status = open_file(path, &fd);
    if (status != DJ_OK)
        return status;
    status = load_descriptor(path, fd, hasher);
    close(fd);
    return status;
}

static void unload(void)
{
    while (all.count > 0)
        dlclose(all.handles[--all.count]);
    memset(&all, 0, sizeof all);
}

static dj_status_t load_list(const char *paths, dj_hasher_t *hasher)
{
    dj_status_t status = DJ_OK;
    char path[PATH_BYTES];
    for (const char *at = paths; status == DJ_OK && *at != '\0';) {
        size_t length = strcspn(at, ":");
        if (length >= sizeof path)
            return dj_fail(DJ_ERR_LIMIT, "a plugin's path of %zu bytes", length);
        memcpy(path, at, length);
        path[length] = '\0';
        if (length > 0)
            status = load_file(path, hasher);
        at += length + (at[length] == ':');
    }
    return status;
}

dj_status_t dj_plugins_load(const char *paths)
{
    if (all.loaded)
        return dj_fail(DJ_ERR_BUSY, "plugins are loaded once, when a process starts");
    if (paths[strspn(paths, ":")] == '\0')
        return DJ_OK;
    dj_hasher_t *hasher = dj_hasher_create();
    if (hasher == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to load plugins");
    dj_status_t status = load_list(paths, hasher);
    dj_hash_t hash = dj_hasher_destroy(hasher);
    if (status != DJ_OK) {
        unload();
        return status;
    }
    all.hash = hash;
    all.loaded = true;
    return DJ_OK;
}

uint32_t dj_plugins_count(void)
{
    return all.count;
}

const dj_plugin_t *dj_plugins_at(uint32_t index)
{
    return index < all.count ? all.plugins[index] : NULL;
}

const dj_rewrite_fn_t *dj_plugins_rewrites(uint32_t *count_p)
{
    *count_p = all.n_rewrites;
    return all.rewrites;
}

dj_hash_t dj_plugins_hash(void)
{
    return all.hash;
}
