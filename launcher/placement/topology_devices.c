/* topology_devices.c - GPUs, NICs and the links between them out of hwloc.
 *
 * Nothing of a vendor is linked: a GPU is a PCI device of NVIDIA or AMD, its names come from the
 * operating-system devices below it where hwloc knows any, and from the driver's files on this
 * machine. NVLink is hwloc's matrix "NVLinkBandwidth" where its NVML plugin wrote one (into a file,
 * usually); ports of switches are merged and paths through them closed, so that what is left are
 * GPUs. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/placement/topology_read.h"

enum {
    VENDOR_NVIDIA = 0x10de,
    VENDOR_AMD = 0x1002,
    CLASS_DISPLAY = 0x03,
    CLASS_ACCELERATOR = 0x12,
};

typedef struct found {
    hwloc_obj_t gpu[DJ_GPUS_MAX], nic[DJ_NICS_MAX];
} found_t;

static void bus_id(hwloc_obj_t pci, char text[16])
{
    const struct hwloc_pcidev_attr_s *at = &pci->attr->pcidev;
    snprintf(text, 16, "%04x:%02x:%02x.%01x", at->domain & 0xffff, at->bus, at->dev, at->func & 7);
}

static uint64_t bus_key(hwloc_obj_t pci)
{
    const struct hwloc_pcidev_attr_s *at = &pci->attr->pcidev;
    return (uint64_t)at->domain << 24 | (uint32_t)at->bus << 16 | (uint32_t)at->dev << 8 | at->func;
}

static void locate(const dj_topology_t *topology, hwloc_topology_t loaded, hwloc_obj_t pci,
                   int32_t *node_p, int32_t *package_p)
{
    hwloc_obj_t near = hwloc_get_non_io_ancestor_obj(loaded, pci);
    *node_p = near ? dj_topology_node_of(topology, near) : -1;
    *package_p = *node_p >= 0 ? (int32_t)topology->node[*node_p].package : -1;
    if (*package_p < 0 && near) {
        hwloc_obj_t package = near->type == HWLOC_OBJ_PACKAGE
                                  ? near
                                  : hwloc_get_ancestor_obj_by_type(loaded, HWLOC_OBJ_PACKAGE, near);
        if (package && package->logical_index < DJ_PACKAGES_MAX)
            *package_p = (int32_t)package->logical_index;
    }
    if (*package_p < 0 && topology->n_packages == 1)
        *package_p = 0;
}

/* ---- GPUs ---- */

static bool is_gpu(hwloc_obj_t pci)
{
    uint32_t kind = pci->attr->pcidev.class_id >> 8, vendor = pci->attr->pcidev.vendor_id;
    return (vendor == VENDOR_NVIDIA || vendor == VENDOR_AMD) &&
           (kind == CLASS_DISPLAY || kind == CLASS_ACCELERATOR);
}

/* cuda0 before nvml0 before opencl0d0 before card0: the name that its users know. */
static uint32_t name_worth(const char *name)
{
    static const char *const known[] = {"card", "render", "opencl", "rsmi", "nvml", "cuda"};
    for (uint32_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strncmp(name, known[i], strlen(known[i])) == 0)
            return i + 2;
    }
    return 1;
}

static void read_gpu(const dj_topology_t *topology, hwloc_topology_t loaded, hwloc_obj_t pci,
                     dj_gpu_t *gpu)
{
    uint32_t best = 0;
    *gpu = (dj_gpu_t){.cuda = pci->attr->pcidev.vendor_id == VENDOR_NVIDIA};
    bus_id(pci, gpu->bus_id);
    dj_topology_copy_name(gpu->name, sizeof gpu->name, gpu->bus_id);
    dj_topology_copy_name(gpu->model, sizeof gpu->model,
                          hwloc_obj_get_info_by_name(pci, "PCIDevice"));
    locate(topology, loaded, pci, &gpu->node, &gpu->package);
    for (hwloc_obj_t os = pci->io_first_child; os; os = os->next_sibling) {
        if (os->type != HWLOC_OBJ_OS_DEVICE || !os->name)
            continue;
        const char *uuid = hwloc_obj_get_info_by_name(os, "NVIDIAUUID");
        const char *model = hwloc_obj_get_info_by_name(os, "GPUModel");
        uint32_t worth = name_worth(os->name);
        if (uuid)
            dj_topology_copy_name(gpu->uuid, sizeof gpu->uuid, uuid);
        if (model)
            dj_topology_copy_name(gpu->model, sizeof gpu->model, model);
        if (worth <= best)
            continue;
        best = worth;
        dj_topology_copy_name(gpu->name, sizeof gpu->name, os->name);
    }
}

/* ---- NICs ---- */

static bool read_nic(const dj_topology_t *topology, hwloc_topology_t loaded, hwloc_obj_t pci,
                     dj_nic_t *nic)
{
    bool told = false;
    *nic = (dj_nic_t){.port = 1, .active = true};
    for (hwloc_obj_t os = pci->io_first_child; os; os = os->next_sibling) {
        if (os->type != HWLOC_OBJ_OS_DEVICE || !os->name)
            continue;
        if (os->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK && !nic->network[0])
            dj_topology_copy_name(nic->network, sizeof nic->network, os->name);
        if (os->attr->osdev.type != HWLOC_OBJ_OSDEV_OPENFABRICS || nic->rdma)
            continue;
        nic->rdma = true;
        dj_topology_copy_name(nic->name, sizeof nic->name, os->name);
        for (uint32_t port = 1; port <= 8; port++) {
            char name[16];
            snprintf(name, sizeof name, "Port%uState", port);
            const char *state = hwloc_obj_get_info_by_name(os, name);
            if (state && !told)
                nic->active = false;
            told = told || state;
            if (state && atoi(state) == 4 && !nic->active) {
                nic->active = true;
                nic->port = port;
            }
        }
    }
    if (!nic->rdma)
        memcpy(nic->name, nic->network, sizeof nic->name);
    bus_id(pci, nic->bus_id);
    locate(topology, loaded, pci, &nic->node, &nic->package);
    return nic->name[0];
}

/* ---- how near ---- */

static uint32_t bridges_below(hwloc_obj_t pci, hwloc_obj_t ancestor)
{
    uint32_t count = 0;
    for (hwloc_obj_t at = pci->parent; at && at != ancestor; at = at->parent)
        count += at->type == HWLOC_OBJ_BRIDGE;
    return count;
}

/* hwloc's own function takes no devices: their depth says what they are, not how deep they lie. */
static hwloc_obj_t common_ancestor(hwloc_obj_t a, hwloc_obj_t b)
{
    for (hwloc_obj_t up = a->parent; up; up = up->parent) {
        for (hwloc_obj_t other = b->parent; other; other = other->parent) {
            if (up == other)
                return up;
        }
    }
    return NULL;
}

static dj_near_t nearness(hwloc_obj_t a, hwloc_obj_t b, const int32_t nodes[2],
                          const int32_t packages[2])
{
    hwloc_obj_t common = common_ancestor(a, b);
    if (common && common->type == HWLOC_OBJ_BRIDGE) {
        if (common->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_HOST)
            return DJ_NEAR_HOST;
        bool one = bridges_below(a, common) <= 1 && bridges_below(b, common) <= 1;
        return one ? DJ_NEAR_SWITCH : DJ_NEAR_BRIDGES;
    }
    if (nodes[0] >= 0 && nodes[0] == nodes[1])
        return DJ_NEAR_NODE;
    return packages[0] >= 0 && packages[0] == packages[1] ? DJ_NEAR_PACKAGE : DJ_NEAR_FAR;
}

static void measure(dj_topology_t *topology, const found_t *found)
{
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        const dj_gpu_t *gpu = &topology->gpu[i];
        for (uint32_t k = 0; k < topology->n_gpus; k++) {
            const dj_gpu_t *other = &topology->gpu[k];
            if (i != k)
                topology->gpu_gpu[i][k] = (uint8_t)nearness(
                    found->gpu[i], found->gpu[k], (int32_t[]){gpu->node, other->node},
                    (int32_t[]){gpu->package, other->package});
        }
        for (uint32_t k = 0; k < topology->n_nics; k++) {
            const dj_nic_t *nic = &topology->nic[k];
            topology->gpu_nic[i][k] =
                (uint8_t)nearness(found->gpu[i], found->nic[k], (int32_t[]){gpu->node, nic->node},
                                  (int32_t[]){gpu->package, nic->package});
        }
    }
}

/* ---- NVLink ---- */

static int32_t gpu_of(const dj_topology_t *topology, const found_t *found, hwloc_obj_t object)
{
    while (object && object->type != HWLOC_OBJ_PCI_DEVICE)
        object = object->type == HWLOC_OBJ_OS_DEVICE ? object->parent : NULL;
    for (uint32_t i = 0; i < topology->n_gpus && object; i++) {
        if (found->gpu[i] == object)
            return (int32_t)i;
    }
    return -1;
}

/* Keeps the best bandwidth seen of each pair: a message goes both ways. */
static void keep_links(dj_topology_t *topology, const found_t *found,
                       const struct hwloc_distances_s *links)
{
    for (unsigned a = 0; a < links->nbobjs; a++) {
        int32_t from = gpu_of(topology, found, links->objs[a]);
        for (unsigned b = 0; b < links->nbobjs && from >= 0; b++) {
            int32_t to = gpu_of(topology, found, links->objs[b]);
            hwloc_uint64_t value = links->values[a * links->nbobjs + b];
            uint32_t mbps = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
            if (to >= 0 && to != from && mbps > topology->nvlink_mbps[from][to])
                topology->nvlink_mbps[from][to] = topology->nvlink_mbps[to][from] = mbps;
        }
    }
}

/* Links from GPU to GPU, then those through switches, where there are any (without one hwloc's
 * closure leaves nothing). */
static void read_nvlinks(dj_topology_t *topology, hwloc_topology_t loaded, const found_t *found)
{
    struct hwloc_distances_s *links = NULL;
    unsigned one = 1;
    if (hwloc_distances_get_by_name(loaded, "NVLinkBandwidth", &one, &links, 0) != 0 || one == 0 ||
        !links)
        return;
    keep_links(topology, found, links);
    if (hwloc_distances_transform(loaded, links, HWLOC_DISTANCES_TRANSFORM_MERGE_SWITCH_PORTS, NULL,
                                  0) == 0 &&
        hwloc_distances_transform(loaded, links, HWLOC_DISTANCES_TRANSFORM_TRANSITIVE_CLOSURE, NULL,
                                  0) == 0)
        keep_links(topology, found, links);
    hwloc_distances_release(loaded, links);
}

/* ---- all of it ---- */

static int by_bus(const void *a, const void *b)
{
    uint64_t left = bus_key(*(hwloc_obj_t const *)a), right = bus_key(*(hwloc_obj_t const *)b);
    return left < right ? -1 : left > right;
}

void dj_topology_read_devices(dj_topology_t *topology, hwloc_topology_t loaded)
{
    found_t found;
    dj_nic_t nic;
    for (hwloc_obj_t pci = NULL; (pci = hwloc_get_next_pcidev(loaded, pci));) {
        bool gpu = is_gpu(pci);
        bool net = !gpu && read_nic(topology, loaded, pci, &nic);
        if ((gpu && topology->n_gpus == DJ_GPUS_MAX) || (net && topology->n_nics == DJ_NICS_MAX))
            topology->n_left_out++;
        else if (gpu)
            found.gpu[topology->n_gpus++] = pci;
        else if (net)
            found.nic[topology->n_nics++] = pci;
    }
    qsort(found.gpu, topology->n_gpus, sizeof found.gpu[0], by_bus);
    qsort(found.nic, topology->n_nics, sizeof found.nic[0], by_bus);
    for (uint32_t i = 0; i < topology->n_gpus; i++)
        read_gpu(topology, loaded, found.gpu[i], &topology->gpu[i]);
    for (uint32_t i = 0; i < topology->n_nics; i++)
        read_nic(topology, loaded, found.nic[i], &topology->nic[i]);
    measure(topology, &found);
    read_nvlinks(topology, loaded, &found);
}

/* ---- what the driver of this machine says ---- */

static bool driver_value(const char *text, const char *name, char *value, size_t room)
{
    const char *at = strstr(text, name);
    if (!at)
        return false;
    at += strlen(name);
    at += strspn(at, " \t");
    snprintf(value, room, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
}

/* False: the control group keeps us from it. */
static bool check_gpu(dj_gpu_t *gpu)
{
    char path[96], text[2048], minor[16], device[48];
    snprintf(path, sizeof path, "/proc/driver/nvidia/gpus/%.15s/information", gpu->bus_id);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (size <= 0)
        return true;
    text[size] = '\0';
    char uuid[48] = "";
    if (driver_value(text, "GPU UUID:", uuid, sizeof uuid) && strncmp(uuid, "GPU-", 4) == 0)
        dj_topology_copy_name(gpu->uuid, sizeof gpu->uuid, uuid);
    char model[64] = "";
    if (driver_value(text, "Model:", model, sizeof model) && model[0])
        dj_topology_copy_name(gpu->model, sizeof gpu->model, model);
    if (!driver_value(text, "Device Minor:", minor, sizeof minor))
        return true;
    snprintf(device, sizeof device, "/dev/nvidia%u", (unsigned)strtoul(minor, NULL, 10));
    fd = open(device, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static void remove_gpu(dj_topology_t *topology, uint32_t gone)
{
    uint32_t last = topology->n_gpus - 1, after = last - gone;
    memmove(&topology->gpu[gone], &topology->gpu[gone + 1], after * sizeof topology->gpu[0]);
    memmove(&topology->gpu_nic[gone], &topology->gpu_nic[gone + 1],
            after * sizeof topology->gpu_nic[0]);
    memmove(&topology->gpu_gpu[gone], &topology->gpu_gpu[gone + 1],
            after * sizeof topology->gpu_gpu[0]);
    memmove(&topology->nvlink_mbps[gone], &topology->nvlink_mbps[gone + 1],
            after * sizeof topology->nvlink_mbps[0]);
    for (uint32_t i = 0; i < last; i++) {
        memmove(&topology->gpu_gpu[i][gone], &topology->gpu_gpu[i][gone + 1], after);
        memmove(&topology->nvlink_mbps[i][gone], &topology->nvlink_mbps[i][gone + 1],
                after * sizeof topology->nvlink_mbps[i][0]);
    }
    topology->n_gpus = last;
}

void dj_topology_check_gpus(dj_topology_t *topology)
{
    for (uint32_t i = topology->n_gpus; i-- > 0;) {
        if (topology->gpu[i].cuda && !check_gpu(&topology->gpu[i]))
            remove_gpu(topology, i);
    }
}
