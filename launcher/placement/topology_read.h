/* topology_read.h - from hwloc's objects to a topology; topology.c calls it with a source chosen.
 */
#ifndef DJ_LAUNCHER_TOPOLOGY_READ_H
#define DJ_LAUNCHER_TOPOLOGY_READ_H

#include <hwloc.h>

#include "launcher/placement/topology.h"

/* Cores, nodes and packages of a loaded topology; of the cores those in `binding` (NULL: all).
 * `nodes`: packages and NUMA nodes too, else all is in node 0. */
void dj_topology_read_cores(dj_topology_t *topology, hwloc_topology_t loaded,
                            const cpu_set_t *binding, bool nodes);
/* GPUs, NICs, how near they are, NVLinks. Needs nodes. */
void dj_topology_read_devices(dj_topology_t *topology, hwloc_topology_t loaded);
/* The index of the node or package that an object lies in; -1: in several. */
int32_t dj_topology_node_of(const dj_topology_t *topology, hwloc_obj_t object);
/* Printable ASCII only: what comes from a file is shown, never obeyed. NULL: "". */
void dj_topology_copy_name(char *to, size_t room, const char *from);
/* Removes a GPU whose device file this process may not open, finds its UUID (this machine only). */
void dj_topology_check_gpus(dj_topology_t *topology);

#endif
