/* direct.c - which way bytes take between this rank's device and a peer, and whether through host memory.
 *
 * At the first path on which device memory could travel by itself, it is proven once that it does: the device makes a
 * slab (gpu/bounce.h), UCX registers it, and UCX, the driver and the kernel say what reaches it. Then what travels on
 * such paths passes through the slab. Whatever fails is no error: bytes pass through pinned host memory, and the path's
 * text says why. */
#include <stdio.h>
#include <string.h>

#include "comm/fabric.h"
#include "runtime/base/log.h"
#include "runtime/rank.h"

#define DJ_LOG_MODULE "rank"
#define DJ_SLAB_BYTES (64ull << 20) /* sixteen parts of a transfer */
#define DJ_DIRECT_MIN_BYTES (64u << 10) /* below, host memory is as good; and eager messages must lie in it */

static dj_status_t register_slab(dj_rank_t *rank, bool in_host)
{
    char why[DJ_ERROR_TEXT_MAX];
    void *slab;
    dj_status_t status = dj_bounce_slab_open(rank->home.bounce, DJ_SLAB_BYTES, &slab);
    if (status != DJ_OK)
        return status;
    status = dj_comm_map(rank->comm, slab, DJ_SLAB_BYTES, in_host ? DJ_MEMORY_HOST : DJ_MEMORY_CUDA);
    if (status == DJ_OK)
        return DJ_OK;
    snprintf(why, sizeof(why), "%s", dj_error_text());
    dj_bounce_slab_close(rank->home.bounce);
    return dj_fail(status, "%s", why);
}

/* What UCX does not know at all is a fact, not a failure. */
static dj_status_t prove(dj_rank_t *rank, dj_path_facts_t *facts)
{
    const dj_device_t *device = rank->home.device;
    const dj_device_info_t *info = device->ops->info(device);
    dj_fabric_t fabric = {0};
    if (!device->ops->memory.slab_make)
        return dj_fail(DJ_ERR_UNSUPPORTED, "the device has no memory to show the network");
    if (info->slabs_in_host)
        return register_slab(rank, true);
    if (!dj_comm_knows(rank->comm, DJ_MEMORY_CUDA))
        return DJ_OK;
    dj_status_t status = register_slab(rank, false);
    if (status == DJ_OK)
        status = dj_fabric_read(&fabric);
    if (status == DJ_OK)
        dj_fabric_facts(&fabric, info->dma_buf, facts);
    return status;
}

static const dj_direct_t *proof(dj_rank_t *rank)
{
    dj_direct_t *direct = &rank->direct;
    if (direct->asked)
        return direct;
    direct->asked = true;
    dj_path_facts_read("/sys", &direct->facts);
    if (prove(rank, &direct->facts) != DJ_OK)
        snprintf(direct->why_not, sizeof(direct->why_not), "%.160s", dj_error_text());
    dj_log(DEBUG, "device memory and the network: %s", direct->why_not[0] ? direct->why_not : "proven");
    return direct;
}

/* The path if nothing is in the way that only a proof can tell. */
static dj_status_t choose_hopefully(const dj_path_facts_t *facts, dj_path_t *path_p)
{
    dj_path_facts_t hopeful = *facts;
    hopeful.device_known = hopeful.dma_buf = hopeful.peermem = hopeful.cuda_ipc = true;
    return dj_path_choose(&hopeful, path_p);
}

dj_status_t dj_direct_choose(dj_rank_t *rank, dj_path_facts_t *facts, dj_path_t *path_p)
{
    const dj_device_t *device = rank->home.device;
    dj_path_facts_read("/sys", facts);
    if (!dj_home_is_blind(&rank->home))
        return dj_path_choose(facts, path_p);
    facts->here = DJ_MEMORY_CUDA;
    facts->slabs_in_host = device->ops->info(device)->slabs_in_host;
    dj_status_t status = choose_hopefully(facts, path_p);
    if (status != DJ_OK || !dj_reach_is_direct(path_p->reach))
        return status;
    const dj_direct_t *direct = proof(rank);
    facts->unproven = direct->why_not[0] ? direct->why_not : NULL;
    facts->device_known = direct->facts.device_known;
    facts->dma_buf = direct->facts.dma_buf;
    facts->peermem = direct->facts.peermem;
    facts->cuda_ipc = direct->facts.cuda_ipc;
    return dj_path_choose(facts, path_p);
}

/* ---- use ---- */

dj_status_t dj_direct_take(dj_rank_t *rank, bool direct, uint64_t bytes, dj_bounce_t *bounce)
{
    if (!direct || bytes < DJ_DIRECT_MIN_BYTES)
        return dj_bounce_take(rank->home.bounce, bytes, bounce);
    dj_status_t status = dj_bounce_take_slab(rank->home.bounce, bytes, bounce);
    if (status == DJ_OK && bounce->slab)
        atomic_fetch_add_explicit(&rank->counters.direct_bytes, bytes, memory_order_relaxed);
    return status;
}

dj_status_t dj_rank_fill(dj_rank_t *rank, const dj_bounce_t *bounce, uint64_t at, const void *source, uint64_t bytes)
{
    return bytes ? dj_rank_heed(rank, dj_bounce_fill(rank->home.device, bounce, at, source, bytes)) : DJ_OK;
}

dj_status_t dj_rank_drain(dj_rank_t *rank, void *target, const dj_bounce_t *bounce, uint64_t at, uint64_t bytes)
{
    return bytes ? dj_rank_heed(rank, dj_bounce_drain(rank->home.device, target, bounce, at, bytes)) : DJ_OK;
}
