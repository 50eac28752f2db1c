/* fabric.h - what the UCX of this machine could use, for people to see.
 *
 * Asks every component of UCX for its transports and devices, as ucx_info -d does, which takes
 * milliseconds: for the doctor, not for connecting. UCX_TLS is not looked at.
 *
 * Threads: any. */
#ifndef DJ_COMM_FABRIC_H
#define DJ_COMM_FABRIC_H

#include <stdbool.h>

#include "comm/path.h"

enum { DJ_LANES_MAX = 64 };

typedef struct dj_lane {
    char transport[32], device[32]; /* "tcp", "eth0" */
} dj_lane_t;

typedef struct dj_fabric {
    char version[32];
    unsigned n_lanes; /* what is beyond the table is left out */
    dj_lane_t lanes[DJ_LANES_MAX];
    bool cuda, cuda_ipc;  /* UCX knows CUDA memory; maps it between processes of a host */
    bool rdma_reads_cuda; /* a network card may register CUDA memory (dma-buf or peermem) */
} dj_fabric_t;

/* ERR_UNSUPPORTED: UCX does not answer. */
dj_status_t dj_fabric_read(dj_fabric_t *fabric);

/* What that means for device memory: device_known, dma_buf, peermem, cuda_ipc. `dma_buf`: the driver exports such
 * memory; facts->peermem, as dj_path_facts_read() left it: the module is loaded. Pure. */
void dj_fabric_facts(const dj_fabric_t *fabric, bool dma_buf, dj_path_facts_t *facts);

#endif
