/* path.c - the decision, rule by rule: the first that holds wins and names its reason. */
#include "comm/path.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/config.h"

static const char *const carriers[] = {
#define X(name, text) text,
    DJ_CARRIER_LIST(X)
#undef X
};

static const char *const reaches[] = {
#define X(name, text) text,
    DJ_REACH_LIST(X)
#undef X
};

const char *dj_carrier_name(dj_carrier_t carrier)
{
    return (unsigned)carrier < sizeof(carriers) / sizeof(carriers[0]) ? carriers[carrier] : "?";
}

const char *dj_reach_name(dj_reach_t reach)
{
    return (unsigned)reach < sizeof(reaches) / sizeof(reaches[0]) ? reaches[reach] : "?";
}

/* ---- what carries the bytes ---- */

/* Why memory cannot be shared; NULL when it can. */
static const char *why_no_shm(const dj_path_facts_t *facts)
{
    if (!facts->same_host)
        return "the peer is on another host";
    if (!facts->same_user)
        return "the peer runs as another user";
    return facts->shm ? NULL : "UCX has no shared memory here";
}

static dj_status_t choose_carrier(const dj_path_facts_t *facts, dj_carrier_t *carrier_p,
                                  const char **why_p)
{
    const char *no_shm = why_no_shm(facts);
    bool ask_shm = strcmp(facts->transports, "shm") == 0;
    bool ask_tcp = strcmp(facts->transports, "tcp") == 0;
    if (facts->relay) {
        *carrier_p = DJ_CARRIER_RELAY;
        *why_p = "only one port of the server is to be used";
    } else if (ask_shm && no_shm) {
        return dj_fail(DJ_ERR_CONNECT, "shm was asked for, but %s: use --transports auto or tcp",
                       no_shm);
    } else if (!ask_tcp && !no_shm) {
        *carrier_p = DJ_CARRIER_SHM;
        *why_p = "same host and user";
    } else if (!ask_tcp && facts->rdma) {
        *carrier_p = DJ_CARRIER_RDMA;
        *why_p = no_shm;
    } else if (facts->tcp) {
        *carrier_p = DJ_CARRIER_TCP;
        *why_p = ask_tcp ? "tcp was asked for" : no_shm;
    } else {
        return dj_fail(DJ_ERR_CONNECT,
                       "nothing carries bytes to the peer: %s, and UCX has no tcp here; look at "
                       "UCX_TLS and at ucx_info -d",
                       ask_tcp ? "tcp was asked for" : no_shm);
    }
    return DJ_OK;
}

/* ---- how device memory comes into its reach ---- */

static dj_reach_t choose_reach(const dj_path_facts_t *facts, dj_carrier_t carrier,
                               const char **why_p)
{
    if (facts->here == DJ_MEMORY_HOST && facts->there == DJ_MEMORY_HOST)
        return DJ_REACH_HOST;
    if (facts->checksums) {
        *why_p = "the host reads it for checksums";
        return DJ_REACH_STAGING;
    }
    if (!facts->slabs_in_host && (carrier == DJ_CARRIER_RELAY || carrier == DJ_CARRIER_TCP)) {
        *why_p = "sockets read host memory alone";
        return DJ_REACH_STAGING;
    }
    if (facts->unproven) {
        *why_p = facts->unproven;
        return DJ_REACH_STAGING;
    }
    if (facts->slabs_in_host) {
        *why_p = "the device shows the network host memory";
        return DJ_REACH_MAPPED;
    }
    if (!facts->device_known) {
        *why_p = "UCX here knows no device memory";
        return DJ_REACH_STAGING;
    }
    if (carrier == DJ_CARRIER_RDMA && facts->dma_buf) {
        *why_p = "the network card reads device memory by dma-buf";
        return DJ_REACH_DMA_BUF;
    }
    if (carrier == DJ_CARRIER_RDMA && facts->peermem) {
        *why_p = "nvidia_peermem is loaded";
        return DJ_REACH_PEERMEM;
    }
    if (carrier == DJ_CARRIER_SHM && facts->cuda_ipc && facts->here == facts->there) {
        *why_p = "both ends' devices can map each other";
        return DJ_REACH_CUDA_IPC;
    }
    if (carrier == DJ_CARRIER_RDMA)
        *why_p = "neither dma-buf nor nvidia_peermem is there";
    else
        *why_p = facts->cuda_ipc ? "only one end is device memory" : "UCX has no cuda_ipc here";
    return DJ_REACH_STAGING;
}

dj_status_t dj_path_choose(const dj_path_facts_t *facts, dj_path_t *path_p)
{
    dj_path_t path;
    const char *why = "", *why_reach = "";
    dj_status_t status = choose_carrier(facts, &path.carrier, &why);
    if (status != DJ_OK)
        return status;
    path.reach = choose_reach(facts, path.carrier, &why_reach);
    const char *carrier = dj_carrier_name(path.carrier);
    if (path.reach == DJ_REACH_HOST)
        snprintf(path.text, sizeof(path.text), "%s, because %s", carrier, why);
    else
        snprintf(path.text, sizeof(path.text), "%s, because %s; device memory by %s, because %s",
                 carrier, why, dj_reach_name(path.reach), why_reach);
    *path_p = path;
    return DJ_OK;
}

/* ---- facts of the system ---- */

static bool is_word(const char *list, const char *word, size_t length)
{
    for (const char *at = list; *at;) {
        size_t span = strcspn(at, ",");
        if (span == length && strncmp(at, word, length) == 0)
            return true;
        at += span + (at[span] == ',');
    }
    return false;
}

/* "a,b" allows these alone, "^a,b" all but these. */
bool dj_path_tls_allows(const char *tls, const char *names)
{
    bool denies = tls && tls[0] == '^';
    if (!tls || strcmp(tls, "all") == 0)
        return true;
    for (const char *at = tls + denies; *at;) {
        size_t span = strcspn(at, ",");
        if (is_word(names, at, span))
            return !denies;
        at += span + (at[span] == ',');
    }
    return denies;
}

static bool has_entry(const char *folder)
{
    DIR *directory = opendir(folder);
    struct dirent *entry;
    bool found = false;
    if (!directory)
        return false;
    while (!found && (entry = readdir(directory)))
        found = entry->d_name[0] != '.';
    closedir(directory);
    return found;
}

void dj_path_facts_read(const char *system, dj_path_facts_t *facts)
{
    char path[512];
    const char *tls = dj_environment("UCX_TLS");
    facts->shm = dj_path_tls_allows(tls, "shm,sm,mm,posix,sysv");
    facts->tcp = dj_path_tls_allows(tls, "tcp");
    snprintf(path, sizeof(path), "%s/class/infiniband", system);
    facts->rdma =
        dj_path_tls_allows(tls, "ib,rc,rc_v,rc_x,rc_verbs,rc_mlx5,dc,dc_x,dc_mlx5,ud,ud_v,ud_x,"
                                "ud_verbs,ud_mlx5") &&
        has_entry(path);
    snprintf(path, sizeof(path), "%s/module/nvidia_peermem", system);
    facts->peermem = access(path, F_OK) == 0;
}
