/* pmix_exchange.c - place and meeting through PMIx.
 *
 * libpmix.so.2 is opened by name, so that the same binary runs where there is none. Its structs are
 * filled by hand, because the macros of newer headers call into the library. */
#include "launcher/pmix_exchange.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/config.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "launcher"

#ifdef DJ_HAVE_PMIX

#include <pmix.h>

#define MEETING_KEY "djinn.meeting"

/* X(name, parameters) */
#define PMIX_CALLS(X)                                                                              \
    X(Init, (pmix_proc_t *, pmix_info_t *, size_t))                                                \
    X(Finalize, (const pmix_info_t *, size_t))                                                     \
    X(Get, (const pmix_proc_t *, const char *, const pmix_info_t *, size_t, pmix_value_t **))      \
    X(Put, (pmix_scope_t, const char *, pmix_value_t *))                                           \
    X(Commit, (void))                                                                              \
    X(Fence, (const pmix_proc_t *, size_t, const pmix_info_t *, size_t))

static struct {
#define X(name, parameters) pmix_status_t(*name) parameters;
    PMIX_CALLS(X)
#undef X
    pmix_proc_t self;
} pmix;

static dj_status_t load_library(void)
{
    void *library = dlopen("libpmix.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return dj_fail(DJ_ERR_UNSUPPORTED, "libpmix.so.2 cannot be loaded: %s", dlerror());
    struct {
        const char *name;
        void *slot;
    } calls[] = {
#define X(name, parameters) {"PMIx_" #name, &pmix.name},
        PMIX_CALLS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        void *symbol = dlsym(library, calls[i].name);
        if (!symbol)
            return dj_fail(DJ_ERR_UNSUPPORTED, "libpmix.so.2 has no %s", calls[i].name);
        memcpy(calls[i].slot, &symbol, sizeof symbol);
    }
    return DJ_OK;
}

/* A key of the whole job (rank wildcard) or of us. NULL when the server does not know it. */
static pmix_value_t *get(const char *key, pmix_rank_t rank, const pmix_info_t *info, size_t n_info)
{
    pmix_proc_t process = pmix.self;
    pmix_value_t *value = NULL;
    process.rank = rank;
    return pmix.Get(&process, key, info, n_info, &value) == PMIX_SUCCESS ? value : NULL;
}

static void free_value(pmix_value_t *value)
{
    if (value && value->type == PMIX_STRING)
        free(value->data.string);
    free(value);
}

static uint32_t get_count(const char *key, pmix_rank_t rank, uint32_t otherwise)
{
    pmix_value_t *value = get(key, rank, NULL, 0);
    uint32_t count = otherwise;
    if (value && value->type == PMIX_UINT32)
        count = value->data.uint32;
    else if (value && value->type == PMIX_UINT16)
        count = value->data.uint16;
    free_value(value);
    return count;
}

/* Whether rank 0 is in the comma-separated list of ranks on this node. */
static bool first_is_here(void)
{
    pmix_value_t *value = get(PMIX_LOCAL_PEERS, PMIX_RANK_WILDCARD, NULL, 0);
    bool here = pmix.self.rank == 0;
    if (value && value->type == PMIX_STRING && value->data.string) {
        const char *list = value->data.string;
        here = here || (list[0] == '0' && (list[1] == ',' || list[1] == '\0'));
    }
    free_value(value);
    return here;
}

dj_status_t dj_pmix_open(dj_place_t *place)
{
    dj_status_t status = load_library();
    if (status != DJ_OK)
        return status;
    pmix_status_t code = pmix.Init(&pmix.self, NULL, 0);
    if (code != PMIX_SUCCESS)
        return dj_fail(DJ_ERR_UNSUPPORTED, "PMIx_Init answers %d", code);
    place->launcher = DJ_LAUNCHER_PMIX;
    place->rank = pmix.self.rank;
    place->size = get_count(PMIX_JOB_SIZE, PMIX_RANK_WILDCARD, 0);
    place->local_rank = get_count(PMIX_LOCAL_RANK, pmix.self.rank, 0);
    place->local_size = get_count(PMIX_LOCAL_SIZE, PMIX_RANK_WILDCARD, 1);
    place->first_here = first_is_here();
    if (place->size >= 1 && place->size <= DJ_TASKS_MAX && place->rank < place->size &&
        place->local_rank < place->local_size)
        return DJ_OK;
    pmix.Finalize(NULL, 0);
    return dj_fail(DJ_ERR_INVALID, "PMIx gives rank %u of %u, local rank %u of %u; at most %d",
                   place->rank, place->size, place->local_rank, place->local_size, DJ_TASKS_MAX);
}

static void set_info(pmix_info_t *info, const char *key, pmix_data_type_t type)
{
    memset(info, 0, sizeof *info);
    snprintf(info->key, sizeof info->key, "%s", key);
    info->value.type = type;
}

static dj_status_t publish(const dj_meeting_t *meeting)
{
    char text[sizeof *meeting + 4];
    dj_meeting_format(meeting, text);
    pmix_value_t value = {.type = PMIX_STRING, .data.string = text};
    pmix_status_t code = pmix.Put(PMIX_GLOBAL, MEETING_KEY, &value);
    if (code == PMIX_SUCCESS)
        code = pmix.Commit();
    if (code != PMIX_SUCCESS)
        return dj_fail(DJ_ERR_CONNECT, "PMIx takes no value from rank 0: status %d", code);
    return DJ_OK;
}

static dj_status_t collect(dj_meeting_t *meeting, const pmix_info_t *limit)
{
    pmix_value_t *value = get(MEETING_KEY, 0, limit, 1);
    bool good = value && value->type == PMIX_STRING && value->data.string &&
                dj_meeting_parse(value->data.string, meeting);
    free_value(value);
    if (!good)
        return dj_fail(DJ_ERR_CONNECT, "PMIx did not bring rank 0's address; did rank 0 start?");
    return DJ_OK;
}

dj_status_t dj_pmix_exchange(const dj_place_t *place, dj_meeting_t *meeting, uint64_t deadline_ns)
{
    if (place->size == 1) {
        pmix.Finalize(NULL, 0);
        return DJ_OK;
    }
    dj_status_t status = place->rank == 0 ? publish(meeting) : DJ_OK;
    uint64_t now = dj_clock_ns();
    pmix_info_t limits[2];
    set_info(&limits[0], PMIX_TIMEOUT, PMIX_INT);
    limits[0].value.data.integer =
        deadline_ns > now ? (int)((deadline_ns - now) / DJ_NS_PER_S) + 1 : 1;
    set_info(&limits[1], PMIX_COLLECT_DATA, PMIX_BOOL);
    limits[1].value.data.flag = true;
    if (status == DJ_OK) {
        pmix_status_t code = pmix.Fence(NULL, 0, limits, 2);
        if (code != PMIX_SUCCESS)
            status = dj_fail(DJ_ERR_CONNECT, "the %u tasks did not meet: PMIx_Fence answers %d",
                             place->size, code);
    }
    if (status == DJ_OK && place->rank != 0)
        status = collect(meeting, limits);
    pmix.Finalize(NULL, 0);
    return status;
}

#else

dj_status_t dj_pmix_open(dj_place_t *place)
{
    return dj_fail(DJ_ERR_UNSUPPORTED, "built without PMIx");
}

dj_status_t dj_pmix_exchange(const dj_place_t *place, dj_meeting_t *meeting, uint64_t deadline_ns)
{
    return dj_fail(DJ_ERR_UNSUPPORTED, "built without PMIx");
}

#endif
