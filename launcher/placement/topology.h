/* topology.h - a machine as plain data: packages, NUMA nodes, cores, GPUs, NICs and how near they
 * are.
 *
 * What placement (placement.h) needs to know and nothing else, without a pointer in it, so that a
 * topology can be made by hand in a test, copied, and handed from one process to another. hwloc
 * fills it (topology_read.c, topology_devices.c) from one of three sources: this machine, an XML
 * file of hwloc (lstopo --of xml), or a line of hwloc's synthetic text.
 *
 * This machine: only what the control group allows counts, and of that only the cores this process
 * is bound to. GPUs whose device file may not be opened (control group of a Slurm job) are left
 * out. Cores alone take 2 to 4 ms; devices cost a walk through the PCI tree and are asked for when
 * they matter.
 *
 * A file or a text comes from anybody: it is parsed in a process of its own with limits on memory
 * and time, so that a parser that crashes or loops ends as a sentence.
 *
 * GPUs are PCI devices of NVIDIA or AMD that display or accelerate; NICs are PCI devices with a
 * network interface or an RDMA device of the kernel. Objects are matched by PCI bus id. */
#ifndef DJ_LAUNCHER_TOPOLOGY_H
#define DJ_LAUNCHER_TOPOLOGY_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

enum {
    DJ_CORES_MAX = CPU_SETSIZE, /* processors with a higher number are left unused */
    DJ_NODES_MAX = 64,
    DJ_PACKAGES_MAX = 64,
    DJ_GPUS_MAX = 64,
    DJ_NICS_MAX = 64,
    DJ_TOPOLOGY_FILE_BYTES_MAX = 16 << 20,
    DJ_TOPOLOGY_TEXT_BYTES_MAX = 4096,
    DJ_DEVICE_NAME_MAX = 32,
    DJ_TOPOLOGY_SOURCE_MAX = 128,
};

/* How far two PCI devices are from one another, nearest first. */
typedef enum dj_near {
    DJ_NEAR_SWITCH,  /* one PCI switch between them */
    DJ_NEAR_BRIDGES, /* several, below one host bridge */
    DJ_NEAR_HOST,    /* one host bridge */
    DJ_NEAR_NODE,    /* one NUMA node */
    DJ_NEAR_PACKAGE, /* one package */
    DJ_NEAR_FAR,     /* across packages, or unknown */
} dj_near_t;

typedef struct dj_numa {
    uint32_t os_index, package;
    uint64_t memory_bytes;
} dj_numa_t;

typedef struct dj_core {
    cpu_set_t processors; /* its hardware threads */
    uint16_t node, package;
} dj_core_t;

typedef struct dj_gpu {
    char bus_id[16];               /* "0000:34:00.0" */
    char name[DJ_DEVICE_NAME_MAX]; /* "cuda0", "nvml0"; the bus id where the system has no name */
    char model[64];                /* "" when unknown */
    char uuid[48];                 /* "GPU-..."; "" when unknown */
    int32_t node, package;         /* index here; -1: equally far from several */
    bool cuda;                     /* NVIDIA's */
} dj_gpu_t;

typedef struct dj_nic {
    char bus_id[16];
    char name[DJ_DEVICE_NAME_MAX];    /* "mlx5_0", "hfi1_0", else its interface */
    char network[DJ_DEVICE_NAME_MAX]; /* "ib0", "eth0"; "" when it has no interface */
    int32_t node, package;
    uint32_t port; /* the first active one */
    bool rdma;
    bool active; /* false: the kernel says that every port is down */
} dj_nic_t;

typedef struct dj_topology {
    char source[DJ_TOPOLOGY_SOURCE_MAX]; /* "this machine", "dgx.xml" */
    char processor[64];                  /* model; "" when unknown */
    bool is_this_machine;
    uint32_t n_allowed; /* cores that this process could be bound to */
    uint32_t n_packages, n_nodes, n_cores, n_gpus, n_nics;
    uint32_t n_left_out; /* devices beyond the limits above */
    dj_numa_t node[DJ_NODES_MAX];
    uint32_t distance[DJ_NODES_MAX]
                     [DJ_NODES_MAX];           /* of nodes, as the firmware counts: 10 is local */
    dj_core_t core[DJ_CORES_MAX];              /* neighbours share caches and memory */
    dj_gpu_t gpu[DJ_GPUS_MAX];                 /* by bus id */
    dj_nic_t nic[DJ_NICS_MAX];                 /* by bus id */
    uint8_t gpu_gpu[DJ_GPUS_MAX][DJ_GPUS_MAX]; /* dj_near_t */
    uint8_t gpu_nic[DJ_GPUS_MAX][DJ_NICS_MAX]; /* dj_near_t */
    uint32_t nvlink_mbps[DJ_GPUS_MAX][DJ_GPUS_MAX]; /* MB/s, through switches too; 0: none */
} dj_topology_t;

/* Each: ownership free(); DJ_ERR_MEMORY, DJ_ERR_SYSTEM. */

/* This machine. Without `devices` only cores are filled, all in node 0 of package 0. */
dj_status_t dj_topology_find(bool devices, dj_topology_t **topology_p);
/* hwloc's XML. DJ_ERR_FILE: not a regular file, or unreadable; DJ_ERR_LIMIT: too large, or more
 * than this program takes; DJ_ERR_CORRUPT: hwloc cannot read it. */
dj_status_t dj_topology_read(const char *path, dj_topology_t **topology_p);
/* hwloc's synthetic text, as "pack:2 numa:4 core:16 pu:2", and behind it, in any order, what hwloc
 * has no words for: "gpu:8 nic:8 nvlink:600" (spread evenly over the NUMA nodes, NIC i behind the
 * switch of GPU i; every GPU joined to every other, GB/s). DJ_ERR_INVALID, DJ_ERR_LIMIT,
 * DJ_ERR_CORRUPT. */
dj_status_t dj_topology_parse(const char *text, dj_topology_t **topology_p);

/* "one PCI switch" */
const char *dj_near_text(dj_near_t near);
/* "0-3,8"; false (and "" in text) when text is too small. */
bool dj_processors_format(const cpu_set_t *set, char *text, uint32_t room);

#endif
