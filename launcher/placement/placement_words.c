/* placement_words.c - what a rank is told of its place, and why it has it. */
#include <string.h>

#include "launcher/placement/placement_steps.h"

/* As CUDA_VISIBLE_DEVICES takes it: the UUID, else the number among NVIDIA's GPUs by bus id. */
static void name_gpu(const dj_topology_t *topology, uint32_t gpu, char *text, size_t room)
{
    uint32_t number = 0;
    for (uint32_t i = 0; i < gpu; i++)
        number += topology->gpu[i].cuda;
    if (topology->gpu[gpu].uuid[0])
        snprintf(text, room, "%s", topology->gpu[gpu].uuid);
    else
        snprintf(text, room, "%u", number);
}

static void describe_coordinator(const dj_topology_t *topology, dj_layout_t *layout,
                                 dj_layout_rank_t *rank)
{
    uint32_t beside = 0;
    for (uint32_t i = 0; i < layout->n; i++)
        beside += !layout->rank[i].coordinates && layout->rank[i].node == rank->node;
    if (!rank->share.bound)
        snprintf(rank->why, sizeof rank->why, "only coordinates; no core to spare, so not bound");
    else
        snprintf(rank->why, sizeof rank->why,
                 "only coordinates; a core of its own in NUMA node %u, %s",
                 topology->node[rank->node].os_index,
                 beside ? "no other has fewer of the GPUs" : "where none of the GPUs is");
}

static void describe_cores(const dj_topology_t *topology, const dj_layout_rank_t *rank, char *text,
                           size_t room)
{
    uint32_t inside = 0, all = 0;
    for (uint32_t i = 0; i < topology->n_cores; i++) {
        cpu_set_t both;
        CPU_AND(&both, &topology->core[i].processors, &rank->share.processors);
        if (CPU_COUNT(&both) == 0)
            continue;
        all++;
        inside += rank->node >= 0 && topology->core[i].node == (uint32_t)rank->node;
    }
    if (!rank->share.bound)
        snprintf(text, room, "too few cores: not bound");
    else if (inside == all)
        snprintf(text, room, "all cores in the GPU's NUMA node");
    else
        snprintf(text, room, "%u of %u cores in the GPU's NUMA node, the rest nearest to it",
                 inside, all);
}

static void describe_link(const dj_topology_t *topology, const dj_layout_t *layout, uint32_t index,
                          char *text, size_t room)
{
    int32_t ours = layout->rank[index].gpu;
    int32_t next = index + 1 < layout->n ? layout->rank[index + 1].gpu : -1;
    text[0] = '\0';
    if (next < 0)
        return;
    if (topology->nvlink_mbps[ours][next])
        snprintf(text, room, "; NVLink %.0f GB/s to the next rank",
                 topology->nvlink_mbps[ours][next] / 1000.0);
    else
        snprintf(text, room, "; the next rank's GPU lies %s",
                 dj_near_text((dj_near_t)topology->gpu_gpu[ours][next]));
}

void dj_layout_describe(const dj_topology_t *topology, dj_layout_t *layout, uint32_t index)
{
    dj_layout_rank_t *rank = &layout->rank[index];
    char nic[48] = "no RDMA NIC", cores[64], link[64];
    if (rank->coordinates) {
        describe_coordinator(topology, layout, rank);
        return;
    }
    if (rank->gpu < 0) {
        snprintf(rank->why, sizeof rank->why, "another task's");
        return;
    }
    memcpy(rank->gpu_name, topology->gpu[rank->gpu].name, sizeof rank->gpu_name);
    name_gpu(topology, (uint32_t)rank->gpu, rank->share.gpu, sizeof rank->share.gpu);
    if (rank->node >= 0)
        snprintf(rank->share.memory_node, sizeof rank->share.memory_node, "%u",
                 topology->node[rank->node].os_index);
    if (rank->nic >= 0) {
        const dj_nic_t *at = &topology->nic[rank->nic];
        snprintf(rank->share.nic, sizeof rank->share.nic, "%s:%u", at->name, at->port);
        snprintf(nic, sizeof nic, "its NIC lies %s",
                 dj_near_text((dj_near_t)topology->gpu_nic[rank->gpu][rank->nic]));
    }
    describe_cores(topology, rank, cores, sizeof cores);
    describe_link(topology, layout, index, link, sizeof link);
    snprintf(rank->why, sizeof rank->why, "%s; %s%s", nic, cores, link);
}
