/* json.c - everything that the text shows, for programs. */
#include <jansson.h>

#include "launcher/topo/topo.h"

static json_t *text_or_null(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static json_t *index_or_null(int32_t index)
{
    return index >= 0 ? json_integer(index) : json_null();
}

static json_t *nodes(const dj_topology_t *topology)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < topology->n_nodes; i++) {
        char cores[DJ_CORES_TEXT_MAX];
        uint32_t count = 0;
        cpu_set_t all;
        CPU_ZERO(&all);
        for (uint32_t k = 0; k < topology->n_cores; k++) {
            if (topology->core[k].node != i)
                continue;
            count++;
            CPU_OR(&all, &all, &topology->core[k].processors);
        }
        dj_processors_format(&all, cores, sizeof cores);
        json_array_append_new(list, json_pack("{s:i, s:i, s:I, s:i, s:s}", "node",
                                              topology->node[i].os_index, "package",
                                              topology->node[i].package, "memory_bytes",
                                              (json_int_t)topology->node[i].memory_bytes, "cores",
                                              count, "processors", cores));
    }
    return list;
}

static json_t *near_gpus(const dj_topology_t *topology, uint32_t gpu)
{
    json_t *row = json_array();
    for (uint32_t k = 0; k < topology->n_gpus; k++)
        json_array_append_new(row, json_integer(topology->nvlink_mbps[gpu][k]));
    return row;
}

static json_t *near_nics(const dj_topology_t *topology, uint32_t gpu)
{
    json_t *row = json_array();
    for (uint32_t k = 0; k < topology->n_nics; k++)
        json_array_append_new(row, json_string(dj_near_text((dj_near_t)topology->gpu_nic[gpu][k])));
    return row;
}

static json_t *gpus(const dj_topology_t *topology)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        const dj_gpu_t *gpu = &topology->gpu[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:o, s:o}", "name", gpu->name,
                            "bus_id", gpu->bus_id, "model", text_or_null(gpu->model), "uuid",
                            text_or_null(gpu->uuid), "node_index", index_or_null(gpu->node),
                            "package", index_or_null(gpu->package), "cuda", gpu->cuda,
                            "nvlink_mbps", near_gpus(topology, i), "nics", near_nics(topology, i)));
    }
    return list;
}

static json_t *nics(const dj_topology_t *topology)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < topology->n_nics; i++) {
        const dj_nic_t *nic = &topology->nic[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o, s:s, s:b, s:i, s:o, s:o}", "name", nic->name, "bus_id",
                            nic->bus_id, "interface", text_or_null(nic->network), "kind",
                            nic->rdma ? "rdma" : "ethernet", "active", nic->active, "port",
                            nic->port, "node_index", index_or_null(nic->node), "package",
                            index_or_null(nic->package)));
    }
    return list;
}

static json_t *ranks(const dj_layout_t *layout)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < layout->n; i++) {
        const dj_layout_rank_t *rank = &layout->rank[i];
        const dj_share_t *share = &rank->share;
        json_array_append_new(
            list, json_pack("{s:i, s:s, s:o, s:o, s:o, s:b, s:o, s:i, s:o, s:o, s:o, s:s}", "rank",
                            i, "role", rank->coordinates ? "coordinator" : "worker", "gpu",
                            text_or_null(rank->gpu_name), "nic", text_or_null(share->nic),
                            "memory_node", text_or_null(share->memory_node), "bound", share->bound,
                            "cores", text_or_null(share->cores), "threads", share->threads,
                            "progress_cores", text_or_null(share->progress_cores), "device_cores",
                            text_or_null(share->device_cores), "heartbeat_cores",
                            text_or_null(share->heartbeat_cores), "why", rank->why));
    }
    return list;
}

dj_status_t dj_topo_json(const dj_topology_t *topology, const dj_layout_t *layout, FILE *out)
{
    json_t *root =
        json_pack("{s:s, s:o, s:i, s:i, s:o, s:o, s:o, s:{s:s, s:b, s:i, s:i, s:o}}", "source",
                  topology->source, "processor", text_or_null(topology->processor), "packages",
                  topology->n_packages, "cores", topology->n_cores, "nodes", nodes(topology),
                  "gpus", gpus(topology), "nics", nics(topology), "layout", "device",
                  layout->devices ? "cuda" : "host", "exact", layout->exact, "nic_cost",
                  layout->nic_cost, "link_cost", layout->link_cost, "ranks", ranks(layout));
    if (!root)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the answer");
    int failed = json_dumpf(root, out, JSON_INDENT(2));
    fputc('\n', out);
    json_decref(root);
    return failed ? dj_fail(DJ_ERR_MEMORY, "no memory for the answer") : DJ_OK;
}
