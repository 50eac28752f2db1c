/* text.c - the machine in lines, boxes being indentation, as lstopo does on a console. */
#include <string.h>

#include "launcher/topo/topo.h"

static void add_count(char *text, size_t room, uint32_t count, const char *noun)
{
    size_t used = strlen(text);
    if (count > 0 && used < room)
        snprintf(text + used, room - used, "%s%u %s%s", used ? ", " : "", count, noun,
                 count == 1 ? "" : "s");
}

void dj_topo_title(const dj_topology_t *topology, char *text, size_t room)
{
    snprintf(text, room, "%s", topology->processor);
    add_count(text, room, topology->n_packages, "package");
    add_count(text, room, topology->n_nodes, "NUMA node");
    add_count(text, room, topology->n_cores, "core");
    add_count(text, room, topology->n_gpus, "GPU");
    add_count(text, room, topology->n_nics, "NIC");
}

uint32_t dj_topo_even_links(const dj_topology_t *topology)
{
    uint32_t mbps = topology->n_gpus > 1 ? topology->nvlink_mbps[0][1] : 0;
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        for (uint32_t k = 0; k < topology->n_gpus; k++) {
            if (i != k && topology->nvlink_mbps[i][k] != mbps)
                return 0;
        }
    }
    return mbps;
}

void dj_topo_verdict(const dj_layout_t *layout, char *text, size_t room)
{
    if (!layout->devices)
        snprintf(text, room, "host device, one slice of the cores a rank");
    else
        snprintf(text, room, "cost %u (NICs %u, links %u): %s",
                 layout->nic_cost + layout->link_cost, layout->nic_cost, layout->link_cost,
                 layout->exact ? "no layout costs less" : "good, not proven the best");
}

static void print_gpu(const dj_topology_t *topology, uint32_t index, int indent, FILE *out)
{
    const dj_gpu_t *gpu = &topology->gpu[index];
    bool named = strcmp(gpu->name, gpu->bus_id) != 0;
    fprintf(out, "%*sGPU %s%s%s%s%s%s\n", indent, "", gpu->name, named ? "  " : "",
            named ? gpu->bus_id : "", gpu->model[0] ? "  " : "", gpu->model,
            gpu->cuda ? "" : "  (not NVIDIA's: not used)");
}

static void print_nic(const dj_topology_t *topology, uint32_t index, int indent, FILE *out)
{
    const dj_nic_t *nic = &topology->nic[index];
    fprintf(out, "%*sNIC %s  %s  %s%s%s%s", indent, "", nic->name, nic->bus_id,
            nic->rdma ? "RDMA" : "Ethernet", nic->rdma && nic->network[0] ? ", " : "",
            nic->rdma ? nic->network : "", nic->active ? "" : ", no active port");
    int32_t nearest = -1;
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        if (nearest < 0 || topology->gpu_nic[i][index] < topology->gpu_nic[nearest][index])
            nearest = (int32_t)i;
    }
    if (nearest >= 0 && topology->gpu_nic[nearest][index] <= DJ_NEAR_BRIDGES)
        fprintf(out, "  with GPU %s %s", topology->gpu[nearest].name,
                dj_near_text((dj_near_t)topology->gpu_nic[nearest][index]));
    fputc('\n', out);
}

static void print_devices(const dj_topology_t *topology, int32_t node, int indent, FILE *out)
{
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        if (topology->gpu[i].node == node)
            print_gpu(topology, i, indent, out);
    }
    for (uint32_t i = 0; i < topology->n_nics; i++) {
        if (topology->nic[i].node == node)
            print_nic(topology, i, indent, out);
    }
}

static void print_node(const dj_topology_t *topology, uint32_t node, FILE *out)
{
    char cores[DJ_CORES_TEXT_MAX];
    uint32_t count = 0;
    cpu_set_t all;
    CPU_ZERO(&all);
    for (uint32_t i = 0; i < topology->n_cores; i++) {
        if (topology->core[i].node != node)
            continue;
        count++;
        CPU_OR(&all, &all, &topology->core[i].processors);
    }
    if (!dj_processors_format(&all, cores, sizeof cores))
        snprintf(cores, sizeof cores, "a long list");
    fprintf(out, "  NUMA node %u  %.0f GB  %u core%s%s%s\n", topology->node[node].os_index,
            (double)topology->node[node].memory_bytes / 1e9, count, count == 1 ? "" : "s",
            count ? "  " : "", cores);
    print_devices(topology, (int32_t)node, 4, out);
}

static void print_links(const dj_topology_t *topology, FILE *out)
{
    uint32_t even = dj_topo_even_links(topology);
    if (even) {
        fprintf(out, "NVLink  every GPU to every other, %.0f GB/s\n", even / 1000.0);
        return;
    }
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        for (uint32_t k = i + 1; k < topology->n_gpus; k++) {
            if (topology->nvlink_mbps[i][k])
                fprintf(out, "NVLink  %s - %s  %.0f GB/s\n", topology->gpu[i].name,
                        topology->gpu[k].name, topology->nvlink_mbps[i][k] / 1000.0);
        }
    }
}

void dj_topo_print(const dj_topology_t *topology, const dj_layout_t *layout, FILE *out)
{
    char title[160], verdict[128];
    dj_topo_title(topology, title, sizeof title);
    fprintf(out, "%s: %s\n\n", topology->source, title);
    for (uint32_t package = 0; package < topology->n_packages; package++) {
        fprintf(out, "Package %u\n", package);
        for (uint32_t node = 0; node < topology->n_nodes; node++) {
            if (topology->node[node].package == package)
                print_node(topology, node, out);
        }
    }
    print_devices(topology, -1, 0, out);
    print_links(topology, out);
    if (topology->n_left_out)
        fprintf(out, "%u objects more than this program takes were left out\n",
                topology->n_left_out);
    dj_topo_verdict(layout, verdict, sizeof verdict);
    fprintf(out, "\n%u rank%s, %s\n\n", layout->n, layout->n == 1 ? "" : "s", verdict);
    dj_layout_print(layout, out);
}
