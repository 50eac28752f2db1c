/* placement.h - which rank gets which GPU, NIC, cores and memory: a pure function over a topology.
 *
 * A rank of the host device gets a contiguous slice of the cores, which are listed so that
 * neighbours share caches and memory. More ranks than cores are not bound: each has one kernel
 * thread and the system's scheduler does better than a fixed assignment, because idle ranks lend
 * their core.
 *
 * A rank with a GPU gets more. What is made as small as it can be, all in one sum of whole numbers:
 *   - for each rank, how far its NIC is from its GPU (dj_near_cost(): 0 behind one switch, 16
 * across packages), and 8 for the second rank of a NIC, 16 for the third, and so on: sharing is
 * balanced, but not at the price of another package;
 *   - for each two neighbours in the order of ranks, who talk most, what joins their GPUs
 *     (dj_link_cost()): 0 to 7 for NVLink, the fastest of the machine being 0; without one 8 and
 * how far they are over PCI. GPUs equally linked among each other (a switch joins all, or nothing
 * does): minimum-cost flow picks GPUs and NICs (flow.h), exactly. Else the order is Held and Karp's
 * dynamic program (route.h) over the GPUs, with the flow's answer for each set of them it looks at:
 * exact for up to 16 GPUs unless more than DJ_ROUTE_TRIES sets had to be looked at; beyond 16,
 * nearest neighbour and 2-opt (Croes 1958). `exact` in the layout says which it was.
 *
 * Then cores: the ranks of a package share its cores evenly, each taking those of the NUMA nodes
 * nearest to its GPU: the least sum of distances, again by flow. No two ranks share a core.
 * Progress, device and heartbeat threads have a core each where the share has four or more. A rank
 * 0 that only coordinates gets a core in the node that has fewest of the ranks' GPUs, when at least
 * two cores are left for every rank; else, and on the host device, it is not bound.
 *
 * NICs that count are RDMA devices with an active port; Ethernet is left to UCX. */
#ifndef DJ_LAUNCHER_PLACEMENT_H
#define DJ_LAUNCHER_PLACEMENT_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "launcher/placement/topology.h"
#include "runtime/base/status.h"

enum {
    DJ_CORES_TEXT_MAX = 512,
    DJ_THREAD_CORES_MAX = 64,
    DJ_NET_DEVICES_MAX = 256,
    DJ_WHY_MAX = 192,
};

/* What one rank gets. Zeroed but for threads = 1: nothing. */
typedef struct dj_share {
    bool bound;
    cpu_set_t processors;
    uint32_t threads;              /* kernel threads, one a core, at least 1 */
    char cores[DJ_CORES_TEXT_MAX]; /* processors as "0-3,8"; "" when not bound or too long a list */

    /* Of a rank with a GPU, else "". */
    char gpu[48];                         /* as CUDA_VISIBLE_DEVICES takes it */
    char nic[DJ_DEVICE_NAME_MAX + 8];     /* "mlx5_0:1" */
    char net_devices[DJ_NET_DEVICES_MAX]; /* as UCX_NET_DEVICES takes it (layout.h) */
    char memory_node[8];                  /* number of the NUMA node, as the system counts */
    char progress_cores[DJ_THREAD_CORES_MAX], device_cores[DJ_THREAD_CORES_MAX],
        heartbeat_cores[DJ_THREAD_CORES_MAX];
} dj_share_t;

typedef struct dj_layout_request {
    uint32_t n_ranks;         /* of this node that run kernels, of all its tasks */
    bool coordinator;         /* beside them, before them, one that only coordinates */
    bool devices;             /* each of them owns a GPU */
    const char *visible;      /* CUDA_VISIBLE_DEVICES or its like; NULL: every GPU may be used */
    const char *visible_name; /* how to call it in a sentence */
    /* Our part of them where other tasks have the rest: count ranks from `first` on. */
    uint32_t first, count;
    bool gpus_apart;  /* what is visible to us is for our ranks alone */
    bool cores_apart; /* the cores of the topology are for our ranks alone */
} dj_layout_request_t;

typedef struct dj_layout_rank {
    dj_share_t share;
    bool coordinates;
    int32_t gpu, nic, node; /* in the topology; -1: none */
    char gpu_name[DJ_DEVICE_NAME_MAX];
    char why[DJ_WHY_MAX];
} dj_layout_rank_t;

typedef struct dj_layout {
    uint32_t n; /* ranks, the coordinator first where there is one */
    bool devices;
    bool exact;                   /* no layout costs less */
    uint32_t nic_cost, link_cost; /* the two parts of the sum */
    dj_layout_rank_t rank[];
} dj_layout_t;

/* Ownership: free(). DJ_ERR_INVALID: more ranks than GPUs, with a sentence for the user;
 * DJ_ERR_MEMORY. 16 GPUs and 16 NICs take 2 to 4 ms at most. */
dj_status_t dj_layout_compute(const dj_topology_t *topology, const dj_layout_request_t *request,
                              dj_layout_t **layout_p);
/* A line for each rank, then a reason for each (layout_text.c). */
void dj_layout_print(const dj_layout_t *layout, FILE *out);

/* The costs of the sum above. */
uint32_t dj_near_cost(dj_near_t near);
uint32_t dj_link_cost(const dj_topology_t *topology, uint32_t gpu_a, uint32_t gpu_b);
enum { DJ_SHARED_NIC_COST = 8 };

/* GPUs of `topology` that may be used, as bits: NVIDIA's, and of these what `visible` names.
 * Numbers count NVIDIA's GPUs by bus id; names are UUIDs or their beginnings. As in CUDA, the list
 * ends at the first name that means nothing. */
uint64_t dj_gpus_visible(const dj_topology_t *topology, const char *visible);

/* The slice of kernel rank `index` of `count`, host device. */
void dj_share_compute(const dj_topology_t *topology, uint32_t index, uint32_t count,
                      dj_share_t *share);
/* Whether `count` tasks bound as we are must have disjoint cores: then ours are ours alone. */
bool dj_cores_are_apart(const dj_topology_t *topology, uint32_t count);

#endif
