/* placement.c - hwloc, kept quick: only cores are looked at, and they are read from the system
 * instead of being asked one by one with cpuid (30 ms become 3). */
#include "launcher/placement.h"

#include <errno.h>
#include <hwloc.h>
#include <hwloc/glibc-sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fill(dj_machine_t *machine, hwloc_topology_t topology, const cpu_set_t *binding)
{
    int depth = hwloc_get_type_depth(topology, HWLOC_OBJ_CORE);
    if (depth < 0 || hwloc_get_nbobjs_by_depth(topology, depth) == 0)
        depth = hwloc_get_type_depth(topology, HWLOC_OBJ_PU);
    for (hwloc_obj_t core = NULL; (core = hwloc_get_next_obj_by_depth(topology, depth, core));) {
        cpu_set_t set;
        if (hwloc_cpuset_to_glibc_sched_affinity(topology, core->cpuset, &set, sizeof set) != 0)
            continue;
        machine->n_allowed++;
        if (binding)
            CPU_AND(&set, &set, binding);
        if (CPU_COUNT(&set) > 0 && machine->n_cores < DJ_CORES_MAX)
            machine->core[machine->n_cores++] = set;
    }
}

dj_status_t dj_machine_find(dj_machine_t **machine_p)
{
    hwloc_topology_t topology;
    cpu_set_t binding;
    dj_machine_t *machine = calloc(1, sizeof *machine);
    if (!machine)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the list of cores");
    if (hwloc_topology_init(&topology) != 0) {
        free(machine);
        return dj_fail(DJ_ERR_SYSTEM, "hwloc cannot start: %s", strerror(errno));
    }
    hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
    hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_type_filter(topology, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (hwloc_topology_load(topology) == 0) {
        /* A topology that came from a file knows nothing of our binding. */
        bool ours = hwloc_topology_is_thissystem(topology) &&
                    sched_getaffinity(0, sizeof binding, &binding) == 0;
        fill(machine, topology, ours ? &binding : NULL);
    }
    hwloc_topology_destroy(topology);
    if (machine->n_cores == 0) {
        free(machine);
        return dj_fail(DJ_ERR_SYSTEM, "hwloc finds no core that this process may use");
    }
    *machine_p = machine;
    return DJ_OK;
}

bool dj_machine_is_apart(const dj_machine_t *machine, uint32_t count)
{
    return machine->n_cores < machine->n_allowed &&
           (uint64_t)machine->n_cores * count <= machine->n_allowed;
}

bool dj_processors_format(const cpu_set_t *set, char *text, uint32_t room)
{
    uint32_t used = 0;
    text[0] = '\0';
    for (int from = 0; from < CPU_SETSIZE; from++) {
        int to = from;
        if (!CPU_ISSET(from, set))
            continue;
        while (to + 1 < CPU_SETSIZE && CPU_ISSET(to + 1, set))
            to++;
        const char *comma = used ? "," : "";
        int length = from == to ? snprintf(text + used, room - used, "%s%d", comma, from)
                                : snprintf(text + used, room - used, "%s%d-%d", comma, from, to);
        used += (uint32_t)length;
        if (used >= room)
            return false;
        from = to;
    }
    return true;
}

void dj_share_compute(const dj_machine_t *machine, uint32_t index, uint32_t count,
                      dj_share_t *share)
{
    uint32_t first = 0, end = machine->n_cores;
    *share = (dj_share_t){.bound = count <= machine->n_cores && index < count, .threads = 1};
    if (!share->bound)
        return;
    first = (uint32_t)((uint64_t)machine->n_cores * index / count);
    end = (uint32_t)((uint64_t)machine->n_cores * (index + 1) / count);
    share->threads = end - first;
    for (uint32_t i = first; i < end; i++)
        CPU_OR(&share->processors, &share->processors, &machine->core[i]);
    if (!dj_processors_format(&share->processors, share->cores, sizeof share->cores))
        share->cores[0] = '\0';
}
