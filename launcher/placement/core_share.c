/* core_share.c - cores for ranks that own a GPU.
 *
 * Ranks are shared out package by package, so that none computes across packages while the other
 * package idles; only where a package has fewer cores than ranks, or nothing is known of where a
 * GPU lies, do all share all. Within such a group every rank gets the same number of cores, and
 * flow says how many of them from which NUMA node. What does not divide evenly stays free, for the
 * coordinator and for programs beside the server. */
#include <stdlib.h>
#include <string.h>

#include "launcher/placement/flow.h"
#include "launcher/placement/placement_steps.h"

enum { ALL_PACKAGES = -1, FREE = -1, OURS_NOT = -2 };

typedef struct sharing {
    const dj_topology_t *topology;
    dj_layout_t *layout;
    uint32_t n, rank[DJ_GPUS_MAX]; /* in the layout */
    int32_t owner[DJ_CORES_MAX];   /* index in `rank`; FREE */
} sharing_t;

static const dj_gpu_t *gpu_of(const sharing_t *sharing, uint32_t i)
{
    return &sharing->topology->gpu[sharing->layout->rank[sharing->rank[i]].gpu];
}

static uint32_t distance(const dj_topology_t *topology, const dj_gpu_t *gpu, uint32_t node)
{
    if (gpu->node >= 0)
        return topology->distance[gpu->node][node];
    if (gpu->package >= 0 && topology->node[node].package != (uint32_t)gpu->package)
        return 21;
    return 10;
}

static bool in_group(const dj_topology_t *topology, uint32_t core, int32_t package)
{
    return package == ALL_PACKAGES || topology->core[core].package == (uint32_t)package;
}

static uint32_t free_cores(const sharing_t *sharing, int32_t package)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < sharing->topology->n_cores; i++)
        count += sharing->owner[i] == FREE && in_group(sharing->topology, i, package);
    return count;
}

static uint32_t ranks_in(const sharing_t *sharing, int32_t package)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < sharing->n; i++)
        count += package == ALL_PACKAGES || gpu_of(sharing, i)->package == package;
    return count;
}

/* ---- the coordinator ---- */

/* Fewer ranks near is better, in the node first, then in its package. */
static uint32_t crowd(const sharing_t *sharing, uint32_t core)
{
    const dj_core_t *at = &sharing->topology->core[core];
    uint32_t near = 0;
    for (uint32_t i = 0; i < sharing->n; i++) {
        near += (DJ_GPUS_MAX + 1) * (gpu_of(sharing, i)->node == at->node);
        near += gpu_of(sharing, i)->package == at->package;
    }
    return near;
}

static void seat_coordinator(sharing_t *sharing, dj_layout_rank_t *rank)
{
    const dj_topology_t *topology = sharing->topology;
    uint32_t best = topology->n_cores - 1;
    if (topology->n_cores < 2 * sharing->n + 1)
        return;
    for (uint32_t i = topology->n_cores; i-- > 0;) {
        if (crowd(sharing, i) < crowd(sharing, best))
            best = i;
    }
    sharing->owner[best] = OURS_NOT;
    rank->share.bound = true;
    rank->share.processors = topology->core[best].processors;
    rank->node = topology->core[best].node;
    dj_processors_format(&rank->share.processors, rank->share.cores, sizeof rank->share.cores);
}

/* ---- one group ---- */

typedef struct group {
    int32_t package;                           /* or ALL_PACKAGES */
    uint32_t each;                             /* cores of a rank */
    uint32_t units[DJ_GPUS_MAX][DJ_NODES_MAX]; /* of them, from each node */
} group_t;

static bool is_member(const sharing_t *sharing, const group_t *group, uint32_t i)
{
    return group->package == ALL_PACKAGES || gpu_of(sharing, i)->package == group->package;
}

/* Ranks whose GPUs lie in one place see all cores alike and count as one guest: the first of them.
 */
static uint32_t first_beside(const sharing_t *sharing, const group_t *group, uint32_t i)
{
    uint32_t first = 0;
    while (!is_member(sharing, group, first) ||
           gpu_of(sharing, first)->node != gpu_of(sharing, i)->node ||
           gpu_of(sharing, first)->package != gpu_of(sharing, i)->package)
        first++;
    return first;
}

/* Splits what one place got among its ranks: from every node, the nearest first, the next core goes
 * to the rank that has fewest. */
static void deal(const sharing_t *sharing, group_t *group, uint32_t guest,
                 uint32_t from_node[DJ_NODES_MAX])
{
    const dj_topology_t *topology = sharing->topology;
    uint32_t has[DJ_GPUS_MAX] = {0};
    for (uint32_t turn = 0; turn < topology->n_nodes; turn++) {
        uint32_t nearest = UINT32_MAX;
        for (uint32_t node = 0; node < topology->n_nodes; node++) {
            if (from_node[node] > 0 &&
                (nearest == UINT32_MAX || distance(topology, gpu_of(sharing, guest), node) <
                                              distance(topology, gpu_of(sharing, guest), nearest)))
                nearest = node;
        }
        for (; nearest != UINT32_MAX && from_node[nearest] > 0; from_node[nearest]--) {
            uint32_t poorest = guest;
            for (uint32_t i = guest; i < sharing->n; i++) {
                if (is_member(sharing, group, i) && first_beside(sharing, group, i) == guest &&
                    has[i] < has[poorest])
                    poorest = i;
            }
            has[poorest]++;
            group->units[poorest][nearest]++;
        }
    }
}

/* Gives each rank its number of a node's free cores, neighbours together. */
static void hand_out(sharing_t *sharing, const group_t *group)
{
    const dj_topology_t *topology = sharing->topology;
    for (uint32_t node = 0; node < topology->n_nodes; node++) {
        uint32_t core = 0;
        for (uint32_t i = 0; i < sharing->n; i++) {
            for (uint32_t left = group->units[i][node]; left > 0; core++) {
                if (sharing->owner[core] != FREE || topology->core[core].node != node ||
                    !in_group(topology, core, group->package))
                    continue;
                sharing->owner[core] = (int32_t)i;
                left--;
            }
        }
    }
}

/* Nodes of the flow: source, sink, guests, NUMA nodes. */
static dj_status_t share_group(sharing_t *sharing, int32_t package)
{
    const dj_topology_t *topology = sharing->topology;
    const uint32_t sink = 1, guest_0 = 2, node_0 = guest_0 + DJ_GPUS_MAX;
    uint32_t ranks = ranks_in(sharing, package), guests[DJ_GPUS_MAX] = {0};
    uint32_t room[DJ_NODES_MAX] = {0}, edge[DJ_GPUS_MAX][DJ_NODES_MAX];
    group_t group = {.package = package};
    int64_t cost;
    dj_flow_t *flow;
    if (ranks == 0)
        return DJ_OK;
    group.each = free_cores(sharing, package) / ranks;
    dj_status_t status = dj_flow_create(
        node_0 + DJ_NODES_MAX, sharing->n * (1 + topology->n_nodes) + topology->n_nodes, &flow);
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < topology->n_cores; i++)
        room[topology->core[i].node] += sharing->owner[i] == FREE && in_group(topology, i, package);
    for (uint32_t i = 0; i < sharing->n; i++) {
        if (is_member(sharing, &group, i))
            guests[first_beside(sharing, &group, i)]++;
    }
    for (uint32_t i = 0; i < sharing->n; i++) {
        if (guests[i] > 0)
            dj_flow_edge(flow, 0, guest_0 + i, guests[i] * group.each, 0);
        for (uint32_t node = 0; node < topology->n_nodes && guests[i] > 0; node++)
            edge[i][node] = dj_flow_edge(flow, guest_0 + i, node_0 + node, guests[i] * group.each,
                                         (int32_t)distance(topology, gpu_of(sharing, i), node));
    }
    for (uint32_t node = 0; node < topology->n_nodes; node++)
        dj_flow_edge(flow, node_0 + node, sink, room[node], 0);
    dj_flow_run(flow, 0, sink, group.each * ranks, &cost);
    for (uint32_t i = 0; i < sharing->n; i++) {
        uint32_t from_node[DJ_NODES_MAX] = {0};
        for (uint32_t node = 0; node < topology->n_nodes && guests[i] > 0; node++)
            from_node[node] = dj_flow_on(flow, edge[i][node]);
        deal(sharing, &group, i, from_node);
    }
    hand_out(sharing, &group);
    dj_flow_destroy(flow);
    return DJ_OK;
}

/* ---- what a rank does with its cores ---- */

static void seat_threads(dj_share_t *share, const cpu_set_t *const *cores, uint32_t count)
{
    if (count < 4)
        return;
    dj_processors_format(cores[0], share->progress_cores, sizeof share->progress_cores);
    dj_processors_format(cores[1], share->device_cores, sizeof share->device_cores);
    dj_processors_format(cores[2], share->heartbeat_cores, sizeof share->heartbeat_cores);
    share->threads = count - 3;
}

/* Its cores, the nearest to its GPU first. */
static void fill_share(const sharing_t *sharing, uint32_t i)
{
    const dj_topology_t *topology = sharing->topology;
    dj_share_t *share = &sharing->layout->rank[sharing->rank[i]].share;
    const cpu_set_t *cores[DJ_CORES_MAX];
    uint32_t count = 0, far = 0;
    for (uint32_t next; far != UINT32_MAX; far = next) {
        next = UINT32_MAX;
        for (uint32_t core = 0; core < topology->n_cores; core++) {
            uint32_t at = distance(topology, gpu_of(sharing, i), topology->core[core].node);
            if (sharing->owner[core] != (int32_t)i)
                continue;
            if (at == far) {
                cores[count++] = &topology->core[core].processors;
                CPU_OR(&share->processors, &share->processors, cores[count - 1]);
            } else if (at > far && at < next) {
                next = at;
            }
        }
    }
    share->bound = count > 0;
    share->threads = count > 0 ? count : 1;
    seat_threads(share, cores, count);
    dj_processors_format(&share->processors, share->cores, sizeof share->cores);
}

static bool by_package(const sharing_t *sharing)
{
    for (uint32_t i = 0; i < sharing->n; i++) {
        int32_t package = gpu_of(sharing, i)->package;
        if (package < 0 || free_cores(sharing, package) < ranks_in(sharing, package))
            return false;
    }
    return true;
}

dj_status_t dj_share_cores(const dj_topology_t *topology, const dj_layout_request_t *request,
                           dj_layout_t *layout)
{
    sharing_t sharing = {.topology = topology, .layout = layout};
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; i < topology->n_cores; i++)
        sharing.owner[i] = FREE;
    for (uint32_t i = request->coordinator; i < layout->n; i++) {
        uint32_t at = i - request->coordinator;
        bool ours = at >= request->first && at < request->first + request->count;
        if (layout->rank[i].gpu < 0)
            continue;
        layout->rank[i].node = topology->gpu[layout->rank[i].gpu].node;
        if (ours || !request->cores_apart)
            sharing.rank[sharing.n++] = i;
    }
    if (request->coordinator && !request->cores_apart)
        seat_coordinator(&sharing, &layout->rank[0]);
    if (sharing.n == 0 || free_cores(&sharing, ALL_PACKAGES) < sharing.n)
        return DJ_OK;
    if (by_package(&sharing)) {
        for (uint32_t i = 0; i < DJ_PACKAGES_MAX && status == DJ_OK; i++)
            status = share_group(&sharing, (int32_t)i);
    } else {
        status = share_group(&sharing, ALL_PACKAGES);
    }
    for (uint32_t i = 0; i < sharing.n && status == DJ_OK; i++)
        fill_share(&sharing, i);
    return status;
}
