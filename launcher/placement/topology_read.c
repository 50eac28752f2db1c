/* topology_read.c - cores, NUMA nodes and packages out of hwloc.
 *
 * hwloc hangs memory beside the tree of cores. A core belongs to the first NUMA node (in hwloc's
 * order, which puts DRAM before other kinds) whose cores it is among; nodes without cores (memory
 * of GPUs, persistent memory) are left out. */
#include "launcher/placement/topology_read.h"

#include <hwloc/glibc-sched.h>
#include <stdio.h>
#include <string.h>

static uint32_t package_of(hwloc_topology_t loaded, hwloc_obj_t object)
{
    hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(loaded, HWLOC_OBJ_PACKAGE, object);
    return package && package->logical_index < DJ_PACKAGES_MAX ? package->logical_index : 0;
}

static void read_nodes(dj_topology_t *topology, hwloc_topology_t loaded)
{
    int packages = hwloc_get_nbobjs_by_type(loaded, HWLOC_OBJ_PACKAGE);
    topology->n_packages = packages < 1                 ? 1
                           : packages > DJ_PACKAGES_MAX ? DJ_PACKAGES_MAX
                                                        : (uint32_t)packages;
    for (hwloc_obj_t node = NULL;
         (node = hwloc_get_next_obj_by_type(loaded, HWLOC_OBJ_NUMANODE, node));) {
        if (!node->cpuset || hwloc_bitmap_iszero(node->cpuset))
            continue;
        if (topology->n_nodes == DJ_NODES_MAX) {
            topology->n_left_out++;
            continue;
        }
        /* Two kinds of memory beside the same cores: the first is theirs. */
        bool beside = false;
        for (uint32_t i = 0; i < topology->n_nodes && !beside; i++) {
            hwloc_obj_t other =
                hwloc_get_numanode_obj_by_os_index(loaded, topology->node[i].os_index);
            beside = other && hwloc_bitmap_isequal(other->cpuset, node->cpuset);
        }
        if (beside)
            continue;
        topology->node[topology->n_nodes++] = (dj_numa_t){
            .os_index = node->os_index,
            .package = package_of(loaded, node),
            .memory_bytes = node->attr->numanode.local_memory,
        };
    }
    if (topology->n_nodes == 0)
        topology->n_nodes = 1;
}

static uint32_t assumed_distance(const dj_topology_t *topology, uint32_t a, uint32_t b)
{
    if (a == b)
        return 10;
    return topology->node[a].package == topology->node[b].package ? 12 : 21;
}

/* What the firmware says of the latency between nodes, else what is usual. */
static void read_distances(dj_topology_t *topology, hwloc_topology_t loaded)
{
    struct hwloc_distances_s *found = NULL;
    unsigned one = 1;
    if (hwloc_distances_get_by_name(loaded, "NUMALatency", &one, &found, 0) != 0 || one == 0)
        found = NULL;
    for (uint32_t a = 0; a < topology->n_nodes; a++) {
        for (uint32_t b = 0; b < topology->n_nodes; b++) {
            hwloc_obj_t from =
                hwloc_get_numanode_obj_by_os_index(loaded, topology->node[a].os_index);
            hwloc_obj_t to = hwloc_get_numanode_obj_by_os_index(loaded, topology->node[b].os_index);
            hwloc_uint64_t value = 0, back;
            bool told = found && from && to &&
                        hwloc_distances_obj_pair_values(found, from, to, &value, &back) == 0;
            topology->distance[a][b] = told && value > 0 && value <= 255
                                           ? (uint32_t)value
                                           : assumed_distance(topology, a, b);
        }
    }
    if (found)
        hwloc_distances_release(loaded, found);
}

int32_t dj_topology_node_of(const dj_topology_t *topology, hwloc_obj_t object)
{
    int32_t found = -1;
    for (uint32_t i = 0; i < topology->n_nodes; i++) {
        if (!object->nodeset || !hwloc_bitmap_isset(object->nodeset, topology->node[i].os_index))
            continue;
        if (found >= 0)
            return -1;
        found = (int32_t)i;
    }
    return found;
}

static uint16_t node_of_core(const dj_topology_t *topology, hwloc_obj_t core)
{
    for (uint32_t i = 0; i < topology->n_nodes; i++) {
        if (core->nodeset && hwloc_bitmap_isset(core->nodeset, topology->node[i].os_index))
            return (uint16_t)i;
    }
    return 0;
}

void dj_topology_copy_name(char *to, size_t room, const char *from)
{
    snprintf(to, room, "%s", from ? from : "");
    for (char *at = to; *at; at++) {
        if (*at < ' ' || *at > '~')
            *at = '?';
    }
}

void dj_topology_read_cores(dj_topology_t *topology, hwloc_topology_t loaded,
                            const cpu_set_t *binding, bool nodes)
{
    int depth = hwloc_get_type_depth(loaded, HWLOC_OBJ_CORE);
    if (depth < 0 || hwloc_get_nbobjs_by_depth(loaded, depth) == 0)
        depth = hwloc_get_type_depth(loaded, HWLOC_OBJ_PU);
    topology->n_packages = 1;
    if (nodes) {
        read_nodes(topology, loaded);
        read_distances(topology, loaded);
    } else {
        topology->n_nodes = 1;
        topology->distance[0][0] = 10;
    }
    for (hwloc_obj_t at = NULL; (at = hwloc_get_next_obj_by_depth(loaded, depth, at));) {
        cpu_set_t set;
        if (hwloc_cpuset_to_glibc_sched_affinity(loaded, at->cpuset, &set, sizeof set) != 0)
            continue;
        topology->n_allowed++;
        if (binding)
            CPU_AND(&set, &set, binding);
        if (CPU_COUNT(&set) == 0)
            continue;
        if (topology->n_cores == DJ_CORES_MAX) {
            topology->n_left_out++;
            continue;
        }
        topology->core[topology->n_cores++] = (dj_core_t){
            .processors = set,
            .node = nodes ? node_of_core(topology, at) : 0,
            .package = (uint16_t)(nodes ? package_of(loaded, at) : 0),
        };
    }
    const char *model = hwloc_obj_get_info_by_name(hwloc_get_root_obj(loaded), "CPUModel");
    hwloc_obj_t package = hwloc_get_obj_by_type(loaded, HWLOC_OBJ_PACKAGE, 0);
    if (package && !model)
        model = hwloc_obj_get_info_by_name(package, "CPUModel");
    dj_topology_copy_name(topology->processor, sizeof topology->processor, model);
}
