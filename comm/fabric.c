/* fabric.c - component by component, domain by domain, what UCX finds here. */
#include "comm/fabric.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uct/api/uct.h>

#include "comm/ucx.h"

/* What a domain can do with CUDA memory; a build without CUDA has none that can. */
static void add_memory(dj_fabric_t *fabric, uct_md_h domain, const char *name)
{
    const uint64_t cuda = UCS_BIT(UCS_MEMORY_TYPE_CUDA);
    uct_md_attr_t attributes;
    if (uct_md_query(domain, &attributes) != UCS_OK)
        return;
    if (strncmp(name, "cuda", 4) == 0)
        fabric->cuda |= (attributes.cap.access_mem_types & cuda) != 0;
    else
        fabric->rdma_reads_cuda |= (attributes.cap.reg_mem_types & cuda) != 0;
    fabric->cuda_ipc |= strncmp(name, "cuda_ipc", 8) == 0;
}

static void add_lanes(dj_fabric_t *fabric, uct_component_h component, const char *name)
{
    uct_md_config_t *config;
    uct_md_h domain;
    uct_tl_resource_desc_t *found;
    unsigned count;
    if (uct_md_config_read(component, NULL, NULL, &config) != UCS_OK)
        return;
    ucs_status_t status = uct_md_open(component, name, config, &domain);
    uct_config_release(config);
    if (status != UCS_OK)
        return;
    add_memory(fabric, domain, name);
    if (uct_md_query_tl_resources(domain, &found, &count) == UCS_OK) {
        for (unsigned i = 0; i < count && fabric->n_lanes < DJ_LANES_MAX; ++i) {
            dj_lane_t *lane = &fabric->lanes[fabric->n_lanes++];
            snprintf(lane->transport, sizeof(lane->transport), "%.31s", found[i].tl_name);
            snprintf(lane->device, sizeof(lane->device), "%.31s", found[i].dev_name);
        }
        uct_release_tl_resource_list(found);
    }
    uct_md_close(domain);
}

static void add_component(dj_fabric_t *fabric, uct_component_h component)
{
    uct_component_attr_t attributes = {.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT};
    if (uct_component_query(component, &attributes) != UCS_OK || attributes.md_resource_count == 0)
        return;
    uct_md_resource_desc_t *domains = calloc(attributes.md_resource_count, sizeof(*domains));
    attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
    attributes.md_resources = domains;
    if (domains && uct_component_query(component, &attributes) == UCS_OK)
        for (unsigned i = 0; i < attributes.md_resource_count; ++i)
            add_lanes(fabric, component, domains[i].md_name);
    free(domains);
}

dj_status_t dj_fabric_read(dj_fabric_t *fabric)
{
    unsigned major, minor, release, count;
    uct_component_h *components;
    dj_ucx_setup();
    *fabric = (dj_fabric_t){0};
    ucp_get_version(&major, &minor, &release);
    snprintf(fabric->version, sizeof(fabric->version), "%u.%u.%u", major, minor, release);
    ucs_status_t status = uct_query_components(&components, &count);
    if (status != UCS_OK)
        return dj_fail(DJ_ERR_UNSUPPORTED, "ucx %s tells no transports: %s", fabric->version,
                       ucs_status_string(status));
    for (unsigned i = 0; i < count; ++i)
        add_component(fabric, components[i]);
    uct_release_component_list(components);
    return DJ_OK;
}

/* UCX only says that a card may register such memory; without peermem it must be by dma-buf. */
void dj_fabric_facts(const dj_fabric_t *fabric, bool dma_buf, dj_path_facts_t *facts)
{
    facts->device_known = fabric->cuda;
    facts->cuda_ipc = fabric->cuda_ipc;
    facts->peermem = fabric->rdma_reads_cuda && facts->peermem;
    facts->dma_buf = fabric->rdma_reads_cuda && dma_buf;
}
