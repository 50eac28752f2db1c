/* layout.c - asks the environment and the system, then the pure function. */
#include "launcher/placement/layout.h"

#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"

#define DJ_LOG_MODULE "launcher"

/* Slurm gave every task GPUs of its own; under another launcher all tasks see the same. */
static bool slurm_binds_gpus(void)
{
    static const char *const names[] = {"SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND",
                                        "SLURM_NTASKS_PER_GPU", "SLURM_TRES_PER_TASK"};
    if (!dj_environment("SLURM_STEP_ID") || dj_environment("OMPI_COMM_WORLD_RANK"))
        return false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = dj_environment(names[i]);
        if (value && !strstr(value, "none"))
            return true;
    }
    return false;
}

static uint32_t count_words(const char *list)
{
    uint32_t count = 1;
    for (const char *at = list; *at; at++)
        count += *at == ',';
    return count;
}

void dj_layout_visible(const dj_topology_t *topology, dj_layout_request_t *request)
{
    static const char *const granted[] = {"SLURM_STEP_GPUS", "SLURM_JOB_GPUS"};
    uint32_t usable = (uint32_t)__builtin_popcountll(dj_gpus_visible(topology, NULL));
    request->visible_name = "CUDA_VISIBLE_DEVICES";
    request->visible = dj_environment(request->visible_name);
    for (size_t i = 0; i < 2 && !request->visible; i++) {
        const char *list = dj_environment(granted[i]);
        /* Numbers of the whole node: of no use where the control group hides the others. */
        if (list && usable > count_words(list)) {
            request->visible = list;
            request->visible_name = granted[i];
        }
        if (list)
            break;
    }
}

/* Whether a network interface belongs to an RDMA NIC other than `nic`. */
static bool is_of_another(const dj_topology_t *topology, int32_t nic, const char *interface)
{
    for (uint32_t i = 0; i < topology->n_nics; i++) {
        if (topology->nic[i].rdma && (int32_t)i != nic &&
            strcmp(topology->nic[i].network, interface) == 0)
            return true;
    }
    return false;
}

/* The rank's own RDMA port, and every interface that is not another rank's: tcp must go on to reach
 * clients that have no RDMA. */
static void name_net_devices(const dj_topology_t *topology, dj_layout_rank_t *rank)
{
    dj_share_t *share = &rank->share;
    struct if_nameindex *all = if_nameindex();
    size_t used = (size_t)snprintf(share->net_devices, sizeof share->net_devices, "%s", share->nic);
    for (struct if_nameindex *at = all; at && at->if_index != 0; at++) {
        if (is_of_another(topology, rank->nic, at->if_name))
            continue;
        used += (size_t)snprintf(share->net_devices + used, sizeof share->net_devices - used, ",%s",
                                 at->if_name);
        if (used >= sizeof share->net_devices) {
            share->net_devices[0] = '\0'; /* a list cut short would hide the rest */
            break;
        }
    }
    if (!all)
        share->net_devices[0] = '\0';
    else
        if_freenameindex(all);
}

static void log_layout(const dj_layout_t *layout)
{
    for (uint32_t i = 0; i < layout->n; i++) {
        const dj_layout_rank_t *rank = &layout->rank[i];
        dj_log(DEBUG, "rank %u of this node: threads %u, cores %s, gpu %s, nic %s: %s", i,
               rank->share.threads, rank->share.bound ? rank->share.cores : "not bound",
               rank->gpu_name[0] ? rank->gpu_name : "none",
               rank->share.nic[0] ? rank->share.nic : "none", rank->why);
    }
}

dj_status_t dj_layout_find(const dj_config_t *config, const dj_layout_place_t *place,
                           dj_layout_t **layout_p)
{
    dj_topology_t *topology;
    dj_layout_request_t request = {.devices = strcmp(config->device, "cuda") == 0,
                                   .coordinator = place->coordinator};
    dj_status_t status = dj_topology_find(request.devices, &topology);
    if (status != DJ_OK)
        return status;
    uint32_t end = place->first + place->count;
    request.n_ranks = place->ranks - place->coordinator;
    request.first = place->first > place->coordinator ? place->first - place->coordinator : 0;
    request.count = (end > place->coordinator ? end - place->coordinator : 0) - request.first;
    request.cores_apart = place->tasks > 1 && dj_cores_are_apart(topology, place->tasks);
    if (request.devices)
        dj_layout_visible(topology, &request);
    request.gpus_apart =
        request.devices && place->tasks > 1 && request.visible && slurm_binds_gpus();
    status = dj_layout_compute(topology, &request, layout_p);
    if (status == DJ_ERR_INVALID && place->first > 0 && !request.gpus_apart)
        status = dj_fail(DJ_ERR_CANCELLED, "the first task of this node says why it cannot start");
    for (uint32_t i = 0; status == DJ_OK && i < (*layout_p)->n; i++) {
        if ((*layout_p)->rank[i].nic >= 0 && topology->is_this_machine)
            name_net_devices(topology, &(*layout_p)->rank[i]);
    }
    if (status == DJ_OK)
        log_layout(*layout_p);
    free(topology);
    return status;
}
