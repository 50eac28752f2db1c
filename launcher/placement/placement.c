/* placement.c - the steps of a layout, in order: which GPUs may be used, GPUs and NICs
 * (gpu_match.c), cores (core_share.c), words. */
#include "launcher/placement/placement.h"

#include <stdlib.h>
#include <string.h>

#include "launcher/placement/placement_steps.h"

bool dj_cores_are_apart(const dj_topology_t *topology, uint32_t count)
{
    return topology->n_cores < topology->n_allowed &&
           (uint64_t)topology->n_cores * count <= topology->n_allowed;
}

void dj_share_compute(const dj_topology_t *topology, uint32_t index, uint32_t count,
                      dj_share_t *share)
{
    *share = (dj_share_t){.bound = count <= topology->n_cores && index < count, .threads = 1};
    if (!share->bound)
        return;
    uint32_t first = (uint32_t)((uint64_t)topology->n_cores * index / count);
    uint32_t end = (uint32_t)((uint64_t)topology->n_cores * (index + 1) / count);
    share->threads = end - first;
    for (uint32_t i = first; i < end; i++)
        CPU_OR(&share->processors, &share->processors, &topology->core[i].processors);
    dj_processors_format(&share->processors, share->cores, sizeof share->cores);
}

/* ---- which GPUs ---- */

/* The GPU that a word of CUDA_VISIBLE_DEVICES means; -1: none. */
static int32_t gpu_named(const dj_topology_t *topology, const char *word)
{
    char *end;
    unsigned long number = strtoul(word, &end, 10), seen = 0;
    bool by_number = *word >= '0' && *word <= '9' && *end == '\0';
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        const dj_gpu_t *gpu = &topology->gpu[i];
        if (!gpu->cuda)
            continue;
        if (by_number ? seen++ == number
                      : strlen(word) > 4 && strncmp(gpu->uuid, word, strlen(word)) == 0)
            return (int32_t)i;
    }
    return -1;
}

uint64_t dj_gpus_visible(const dj_topology_t *topology, const char *visible)
{
    uint64_t found = 0;
    char word[64];
    for (uint32_t i = 0; i < topology->n_gpus; i++)
        found |= (uint64_t)topology->gpu[i].cuda << i;
    if (!visible)
        return found;
    for (found = 0;; visible++) {
        size_t length = strcspn(visible, ",");
        while (length > 0 && *visible == ' ') {
            visible++;
            length--;
        }
        snprintf(word, sizeof word, "%.*s", (int)length, visible);
        int32_t gpu = length < sizeof word ? gpu_named(topology, word) : -1;
        if (gpu < 0)
            return found;
        found |= 1ull << gpu;
        visible += length;
        if (*visible == '\0')
            return found;
    }
}

static dj_status_t too_many(const dj_layout_request_t *request, uint32_t wanted, uint32_t usable)
{
    char limit[160] = "";
    if (request->visible)
        snprintf(limit, sizeof limit, " (%s is '%.64s')",
                 request->visible_name ? request->visible_name : "CUDA_VISIBLE_DEVICES",
                 request->visible);
    if (usable == 0)
        return dj_fail(
            DJ_ERR_INVALID,
            "no GPU may be used on this node%s, and %u rank%s would need one each; start "
            "the ranks with --device host, or where there are GPUs",
            limit, wanted, wanted == 1 ? "" : "s");
    return dj_fail(
        DJ_ERR_INVALID,
        "%u ranks of this node would need a GPU each, and %u may be used%s; start at most "
        "%u ranks with a GPU here, or give --device host",
        wanted, usable, limit, usable);
}

/* ---- layouts ---- */

static void lay_out_host(const dj_topology_t *topology, const dj_layout_request_t *request,
                         dj_layout_t *layout)
{
    for (uint32_t i = 0; i < layout->n; i++) {
        dj_layout_rank_t *rank = &layout->rank[i];
        uint32_t at = i - request->coordinator, count = request->n_ranks;
        if (rank->coordinates) {
            snprintf(rank->why, sizeof rank->why, "only coordinates: no kernels, not bound");
            continue;
        }
        if (request->cores_apart &&
            (at < request->first || at >= request->first + request->count)) {
            snprintf(rank->why, sizeof rank->why, "another task's");
            continue;
        }
        if (request->cores_apart) {
            at -= request->first;
            count = request->count;
        }
        dj_share_compute(topology, at, count, &rank->share);
        if (!rank->share.bound)
            snprintf(rank->why, sizeof rank->why, "%u ranks on %u cores: not bound", count,
                     topology->n_cores);
        else if (request->cores_apart)
            snprintf(rank->why, sizeof rank->why, "the cores that the launcher bound us to");
        else
            snprintf(rank->why, sizeof rank->why, "slice %u of %u of the cores", at + 1, count);
    }
}

static dj_status_t lay_out_devices(const dj_topology_t *topology,
                                   const dj_layout_request_t *request, dj_layout_t *layout)
{
    dj_match_t match = {.topology = topology,
                        .usable = dj_gpus_visible(topology, request->visible)};
    uint32_t usable = (uint32_t)__builtin_popcountll(match.usable);
    uint32_t first = request->gpus_apart ? request->first : 0;
    match.n = request->gpus_apart ? request->count : request->n_ranks;
    if (match.n > usable)
        return too_many(request, match.n, usable);
    /* Tasks that are bound apart lie on the cores in the order of their numbers, as a rule. */
    match.by_place = request->cores_apart && !request->gpus_apart;
    dj_status_t status = dj_match_gpus(&match);
    for (uint32_t i = 0; i < match.n && status == DJ_OK; i++) {
        dj_layout_rank_t *rank = &layout->rank[request->coordinator + first + i];
        rank->gpu = match.gpu[i];
        rank->nic = match.nic[i];
    }
    layout->exact = match.exact;
    layout->nic_cost = match.nic_cost;
    layout->link_cost = match.link_cost;
    if (status == DJ_OK)
        status = dj_share_cores(topology, request, layout);
    for (uint32_t i = 0; i < layout->n && status == DJ_OK; i++)
        dj_layout_describe(topology, layout, i);
    return status;
}

dj_status_t dj_layout_compute(const dj_topology_t *topology, const dj_layout_request_t *request,
                              dj_layout_t **layout_p)
{
    uint32_t n = request->n_ranks + request->coordinator;
    if (request->first + request->count > request->n_ranks)
        return dj_fail(DJ_ERR_INVALID, "ranks %u and %u more of %u", request->first, request->count,
                       request->n_ranks);
    dj_layout_t *layout = calloc(1, sizeof *layout + n * sizeof layout->rank[0]);
    if (!layout)
        return dj_fail(DJ_ERR_MEMORY, "no memory to place %u ranks", n);
    layout->n = n;
    layout->devices = request->devices;
    layout->exact = true;
    for (uint32_t i = 0; i < n; i++) {
        layout->rank[i].coordinates = request->coordinator && i == 0;
        layout->rank[i].share.threads = 1;
        layout->rank[i].gpu = layout->rank[i].nic = layout->rank[i].node = -1;
    }
    dj_status_t status = DJ_OK;
    if (request->devices)
        status = lay_out_devices(topology, request, layout);
    else
        lay_out_host(topology, request, layout);
    if (status != DJ_OK) {
        free(layout);
        return status;
    }
    *layout_p = layout;
    return DJ_OK;
}
