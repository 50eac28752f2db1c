/* loader.c - LOAD: the rank reads weights from a safetensors file straight into Text.
 *
 * The file is a client's word: it must lie under an allowed root, be regular and readable by its owner or
 * the world, and every offset of its header is checked against its real size. It is read with pread(),
 * never mapped: a file truncated behind our back is then a short read, not a SIGBUS. The header is JSON
 * and goes to jansson. A load is all or nothing.
 *
 * Tensors are read some hundred MiB at a time by several threads (reading.c): what is in Text already then
 * takes no more than that much beside it. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/rank.h"
#include "runtime/reading.h"

#define BATCH_BYTES (256ull << 20)

typedef struct dj_weight_file {
    int fd;
    char path[PATH_MAX];
    uint64_t data_start, data_bytes;
    json_t *header;
} dj_weight_file_t;

static bool under_root(const char *roots, const char *path)
{
    while (*roots) {
        size_t n = strcspn(roots, ":");
        size_t bare = n;
        while (bare && roots[bare - 1] == '/')
            bare--;
        if (n && strncmp(path, roots, bare) == 0 && (path[bare] == '/' || path[bare] == 0))
            return true;
        roots += n + (roots[n] == ':');
    }
    return false;
}

static dj_status_t open_file(const dj_rank_t *rank, const char *named, dj_weight_file_t *file,
                             uint64_t *size_p)
{
    struct stat info;
    if (!realpath(named, file->path))
        return dj_fail(DJ_ERR_FILE, "%s: %s (the path is the rank's, not the client's)", named,
                       strerror(errno));
    if (!under_root(rank->config->model_roots, file->path))
        return dj_fail(DJ_ERR_FILE, "%s is not under the allowed roots %s: set --model-roots",
                       file->path, rank->config->model_roots);
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return dj_fail(DJ_ERR_FILE, "%s: %s", file->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return dj_fail(DJ_ERR_FILE, "%s is not a regular file", file->path);
    if (info.st_uid != getuid() && info.st_uid != 0 && !(info.st_mode & S_IROTH))
        return dj_fail(DJ_ERR_FILE, "%s belongs to user %u and is not readable by others",
                       file->path, (unsigned)info.st_uid);
    *size_p = (uint64_t)info.st_size;
    return DJ_OK;
}

static dj_status_t read_all(const dj_weight_file_t *file, void *target, uint64_t bytes, uint64_t at)
{
    uint8_t *to = target;
    while (bytes) {
        ssize_t n = pread(file->fd, to, bytes < (1u << 30) ? bytes : (1u << 30), (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dj_fail(DJ_ERR_FILE, "%s: reading %llu bytes at %llu: %s", file->path,
                           (unsigned long long)bytes, (unsigned long long)at, strerror(errno));
        if (n == 0)
            return dj_fail(DJ_ERR_FILE, "%s ends at byte %llu, %llu short: copy it again",
                           file->path, (unsigned long long)at, (unsigned long long)bytes);
        to += n;
        at += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return DJ_OK;
}

static dj_status_t read_header(dj_weight_file_t *file, uint64_t file_bytes)
{
    uint64_t length;
    json_error_t error;
    if (file_bytes < 8)
        return dj_fail(DJ_ERR_FILE, "%s has %llu bytes: too short for safetensors", file->path,
                       (unsigned long long)file_bytes);
    dj_status_t status = read_all(file, &length, 8, 0);
    if (status != DJ_OK)
        return status;
    if (length > DJ_SAFETENSORS_HEADER_MAX || length > file_bytes - 8)
        return dj_fail(DJ_ERR_FILE, "%s announces a header of %llu bytes, the file has %llu",
                       file->path, (unsigned long long)length, (unsigned long long)file_bytes);
    char *text = malloc(length + 1);
    if (!text)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the header of %s", file->path);
    status = read_all(file, text, length, 8);
    if (status == DJ_OK) {
        file->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
        if (!json_is_object(file->header))
            status = dj_fail(DJ_ERR_FILE, "%s: the header is not a JSON object: %s", file->path,
                             error.text);
    }
    free(text);
    file->data_start = 8 + length;
    file->data_bytes = file_bytes - file->data_start;
    return status;
}

static uint8_t dtype_of(const char *name)
{
    static const struct {
        const char *name;
        uint8_t dtype;
    } names[] = {{"F32", DJ_F32}, {"F64", DJ_F64}, {"F16", DJ_F16}, {"BF16", DJ_BF16},
                 {"I64", DJ_I64}, {"I32", DJ_I32}, {"I16", DJ_I16}, {"I8", DJ_I8},
                 {"U8", DJ_U8},   {"BOOL", DJ_BOOL}};
    for (size_t i = 0; name && i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i].name) == 0)
            return names[i].dtype;
    return DJ_DTYPE_NONE;
}

/* Where one tensor lies, from its header entry: everything there is a claim. */
static dj_status_t find_tensor(const dj_weight_file_t *file, const char *name, uint64_t *begin_p,
                               dj_view_t *view)
{
    json_t *entry = json_object_get(file->header, name);
    json_t *shape = json_object_get(entry, "shape");
    json_t *offsets = json_object_get(entry, "data_offsets");
    int64_t sizes[DJ_RANK_MAX];
    if (!json_is_object(entry))
        return dj_fail(DJ_ERR_FILE, "%s holds no tensor %s", file->path, name);
    uint8_t dtype = dtype_of(json_string_value(json_object_get(entry, "dtype")));
    if (dtype == DJ_DTYPE_NONE)
        return dj_fail(DJ_ERR_DTYPE, "%s: tensor %s has a dtype that is not supported", file->path,
                       name);
    if (!json_is_array(shape) || json_array_size(shape) > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_FILE, "%s: tensor %s has no shape of at most %d dimensions",
                       file->path, name, DJ_RANK_MAX);
    for (size_t d = 0; d < json_array_size(shape); d++) {
        json_t *size = json_array_get(shape, d);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return dj_fail(DJ_ERR_FILE, "%s: tensor %s: size %zu is no size", file->path, name, d);
        sizes[d] = json_integer_value(size);
    }
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin) ||
        (uint64_t)json_integer_value(end) > file->data_bytes)
        return dj_fail(DJ_ERR_FILE, "%s: tensor %s lies outside the file's %llu bytes of data: "
                                    "truncated or not safetensors", file->path, name,
                       (unsigned long long)file->data_bytes);
    *view = (dj_view_t){.dtype = dtype, .rank = (uint8_t)json_array_size(shape)};
    memcpy(view->sizes, sizes, view->rank * sizeof(*sizes));
    dj_status_t status = dj_view_check(view, UINT64_MAX);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "%s: tensor %s", file->path, name);
    *view = dj_view_contiguous(dtype, view->rank, sizes);
    if (dj_view_dense_bytes(view) !=
        (uint64_t)(json_integer_value(end) - json_integer_value(begin)))
        return dj_fail(DJ_ERR_FILE, "%s: tensor %s: shape and byte range disagree", file->path,
                       name);
    *begin_p = file->data_start + (uint64_t)json_integer_value(begin);
    return DJ_OK;
}

/* ---- tensors into Text ---- */

/* Those of one LOAD: `n_made` stand behind refs, `n_drafted` have drafts to be read, the rest is still to come. */
typedef struct dj_loading {
    dj_rank_t *rank;
    dj_job_t *job;
    const dj_weight_file_t *file;
    uint32_t n_made, n_drafted;
    uint64_t drafted_bytes;
    uint64_t *refs;
    dj_reading_t *readings;
    dj_loaded_t *loaded;
} dj_loading_t;

static dj_status_t decode_tensor(dj_reader_t *reader, uint32_t at, uint64_t *ref_p,
                                 char name[DJ_LOAD_NAME_MAX + 1])
{
    *ref_p = dj_reader_u64(reader);
    uint32_t name_bytes = dj_reader_u32(reader);
    memset(name, 0, DJ_LOAD_NAME_MAX + 1);
    if (name_bytes > DJ_LOAD_NAME_MAX)
        reader->failed = true;
    else
        dj_reader_copy(reader, name, name_bytes);
    return reader->failed ? dj_fail(DJ_ERR_PROTOCOL, "LOAD: tensor %u is cut short", at) : DJ_OK;
}

/* Takes the draft over. */
static dj_status_t publish(dj_loading_t *l, uint32_t at)
{
    dj_text_store_t *store = l->rank->home.text;
    dj_reading_t *reading = &l->readings[at];
    dj_text_t *draft = reading->draft, *text;
    dj_status_t status = dj_text_publish_as(store, draft, reading->content, (uint32_t)getuid(), &text);
    if (status != DJ_OK)
        return status;
    l->loaded[at].shared = text != draft;
    status = dj_ref_create_text(l->job->session, l->refs[at], text);
    if (status != DJ_OK)
        dj_text_release(store, text);
    return status;
}

/* Reads all drafts; they become refs. */
static dj_status_t load_drafts(dj_loading_t *l)
{
    const dj_reading_file_t file = {l->rank->home.device, l->rank->home.bounce, l->file->fd, l->file->path};
    dj_status_t status = dj_readings_read(&file, l->readings + l->n_made, l->n_drafted);
    while (status == DJ_OK && l->n_drafted) {
        l->n_drafted--;
        status = publish(l, l->n_made);
        if (status == DJ_OK)
            l->n_made++;
        else
            memmove(&l->readings[l->n_made], &l->readings[l->n_made + 1],
                    l->n_drafted * sizeof(*l->readings));
    }
    l->drafted_bytes = 0;
    return status;
}

static dj_status_t draft_tensor(dj_loading_t *l, uint64_t ref, const char *name)
{
    uint32_t at = l->n_made + l->n_drafted;
    dj_text_store_t *store = l->rank->home.text;
    dj_view_t view;
    uint64_t begin = 0;
    dj_text_t *draft;
    dj_status_t status = find_tensor(l->file, name, &begin, &view);
    if (status != DJ_OK)
        return status;
    uint64_t bytes = dj_view_dense_bytes(&view);
    status = dj_text_draft(store, bytes, &draft);
    if (status == DJ_ERR_RESOURCE && l->n_drafted) { /* perhaps what waits is there already */
        status = load_drafts(l);
        at = l->n_made;
        status = status == DJ_OK ? dj_text_draft(store, bytes, &draft) : status;
    }
    if (status != DJ_OK)
        return status;
    l->loaded[at] = (dj_loaded_t){.bytes = bytes, .dtype = view.dtype, .rank = view.rank};
    memcpy(l->loaded[at].sizes, view.sizes, view.rank * sizeof(*view.sizes));
    l->readings[at] = (dj_reading_t){.draft = draft, .begin = begin};
    l->refs[at] = ref;
    l->n_drafted++;
    l->drafted_bytes += bytes;
    return l->drafted_bytes >= BATCH_BYTES ? load_drafts(l) : DJ_OK;
}

static dj_status_t load_tensors(dj_loading_t *l, dj_reader_t *reader)
{
    char name[DJ_LOAD_NAME_MAX + 1];
    uint32_t n = l->job->load.n_tensors;
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; i < n && status == DJ_OK; i++) {
        uint64_t ref;
        status = decode_tensor(reader, i, &ref, name);
        if (status == DJ_OK)
            status = draft_tensor(l, ref, name);
    }
    if (status == DJ_OK)
        status = load_drafts(l);
    if (status == DJ_OK) {
        dj_bytes_put(&l->job->reply, l->loaded, n * sizeof(*l->loaded));
        return DJ_OK;
    }
    for (uint32_t i = 0; i < l->n_drafted; i++)
        dj_text_discard(l->rank->home.text, l->readings[l->n_made + i].draft);
    for (uint32_t i = 0; i < l->n_made; i++)
        dj_ref_drop(l->job->session, &l->rank->home, l->refs[i]);
    return status;
}

static dj_status_t load_all(dj_rank_t *rank, dj_job_t *job, const dj_weight_file_t *file,
                            dj_reader_t *reader)
{
    size_t n = job->load.n_tensors + 1ull;
    dj_loading_t loading = {.rank = rank, .job = job, .file = file,
                            .refs = calloc(n, sizeof(uint64_t)),
                            .readings = calloc(n, sizeof(dj_reading_t)),
                            .loaded = calloc(n, sizeof(dj_loaded_t))};
    dj_status_t status = loading.refs && loading.readings && loading.loaded
                             ? load_tensors(&loading, reader)
                             : dj_fail(DJ_ERR_MEMORY, "no memory for a load of %u tensors", job->load.n_tensors);
    free(loading.refs);
    free(loading.readings);
    free(loading.loaded);
    return status;
}

dj_status_t dj_load_execute(dj_rank_t *rank, dj_job_t *job)
{
    dj_weight_file_t *file = calloc(1, sizeof(*file));
    char named[DJ_LOAD_PATH_MAX + 1] = {0};
    dj_reader_t reader;
    uint64_t file_bytes = 0;
    if (!file)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a load");
    file->fd = -1;
    dj_reader_init(&reader, job->payload, job->payload_bytes);
    dj_status_t status = DJ_OK;
    if (job->load.path_bytes > DJ_LOAD_PATH_MAX || job->load.n_tensors > DJ_LOAD_TENSORS_MAX)
        status = dj_fail(DJ_ERR_LIMIT, "LOAD: a path of %u bytes and %u tensors, at most %u and %u",
                         job->load.path_bytes, job->load.n_tensors, (unsigned)DJ_LOAD_PATH_MAX,
                         (unsigned)DJ_LOAD_TENSORS_MAX);
    else
        dj_reader_copy(&reader, named, job->load.path_bytes);
    if (status == DJ_OK && (reader.failed || named[0] != '/'))
        status = dj_fail(DJ_ERR_FILE, "LOAD: '%s' is not an absolute path", named);
    if (status == DJ_OK)
        status = open_file(rank, named, file, &file_bytes);
    if (status == DJ_OK)
        status = read_header(file, file_bytes);
    if (status == DJ_OK)
        status = load_all(rank, job, file, &reader);
    if (status == DJ_OK)
        job->answer.result.bytes = job->reply.size;
    json_decref(file->header);
    if (file->fd >= 0)
        close(file->fd);
    free(file);
    return status;
}
