/* path.h - how bytes get from one process to another, and why that way.
 *
 * Two questions, decided once when two processes meet and never again: what carries the bytes
 * (shared memory, tcp, RDMA, or rank 0 as a relay), and how bytes of device memory come into its
 * reach. The decision is a pure function of facts, so it is tested as a table; who meets whom
 * brings the facts (client/connect.c, runtime/attach.c, launcher/doctor/doctor.c). The text is what the
 * log, the doctor and djinn_path() show.
 *
 * Threads: pure, or reads files; any thread. */
#ifndef DJ_COMM_PATH_H
#define DJ_COMM_PATH_H

#include <stdbool.h>

#include "runtime/base/status.h"

/* Where the tensors of one side lie. */
typedef enum dj_memory_kind {
    DJ_MEMORY_HOST,
    DJ_MEMORY_CUDA,
} dj_memory_kind_t;

/* X(name, text) */
#define DJ_CARRIER_LIST(X)                                                                         \
    X(SHM, "shm")                                                                                  \
    X(TCP, "tcp")                                                                                  \
    X(RDMA, "rdma")                                                                                \
    X(RELAY, "relay")

/* How device memory reaches the carrier; host memory needs nothing. */
#define DJ_REACH_LIST(X)                                                                           \
    X(HOST, "host")                                                                                \
    X(DMA_BUF, "dma-buf")                                                                          \
    X(PEERMEM, "peermem")                                                                          \
    X(CUDA_IPC, "cuda_ipc")                                                                        \
    X(MAPPED, "mapping")                                                                           \
    X(STAGING, "staging")

typedef enum dj_carrier {
#define X(name, text) DJ_CARRIER_##name,
    DJ_CARRIER_LIST(X)
#undef X
} dj_carrier_t;

typedef enum dj_reach {
#define X(name, text) DJ_REACH_##name,
    DJ_REACH_LIST(X)
#undef X
} dj_reach_t;

typedef struct dj_path_facts {
    bool same_host, same_user;    /* of both processes; same_host as dj_host_identity() says */
    bool relay;                   /* no port but rank 0's can be reached */
    const char *transports;       /* the option: "auto", "shm", "tcp" */
    bool shm, tcp, rdma;          /* can be used on this machine */
    dj_memory_kind_t here, there;
    bool checksums;               /* agreed: the host reads every byte that travels */
    bool slabs_in_host;           /* what the device shows the network is host memory (gpu/device.h) */
    const char *unproven;         /* why nothing has proven here that UCX moves device memory directly; NULL: it is */
    bool device_known;            /* UCX itself says that it knows this machine's device memory */
    bool dma_buf, peermem, cuda_ipc;
} dj_path_facts_t;

enum { DJ_PATH_TEXT_MAX = 256 };

typedef struct dj_path {
    dj_carrier_t carrier;
    dj_reach_t reach;
    char text[DJ_PATH_TEXT_MAX]; /* "shm, because same host and user" */
} dj_path_t;

/* ERR_CONNECT: what was asked for cannot be had, or nothing can; the sentence names the fact. */
dj_status_t dj_path_choose(const dj_path_facts_t *facts, dj_path_t *path_p);

/* What the system says without asking UCX, which takes milliseconds: shm and tcp are there, RDMA
 * where the kernel shows devices. UCX_TLS is obeyed. Fills shm, tcp, rdma and peermem and leaves
 * the rest. `system` is "/sys" but for tests. */
void dj_path_facts_read(const char *system, dj_path_facts_t *facts);
/* Whether a UCX_TLS value (NULL: unset) lets UCX use any of the comma-separated names. */
bool dj_path_tls_allows(const char *tls, const char *names);

/* "shm", "staging"; "?" for a value not in the list. */
const char *dj_carrier_name(dj_carrier_t carrier);
const char *dj_reach_name(dj_reach_t reach);
/* Whether device memory travels without a copy in host memory. */
static inline bool dj_reach_is_direct(dj_reach_t reach)
{
    return reach == DJ_REACH_DMA_BUF || reach == DJ_REACH_PEERMEM || reach == DJ_REACH_CUDA_IPC ||
           reach == DJ_REACH_MAPPED;
}

#endif
