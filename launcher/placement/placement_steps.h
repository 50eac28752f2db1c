/* placement_steps.h - the parts of placement.c that are files of their own. */
#ifndef DJ_LAUNCHER_PLACEMENT_STEPS_H
#define DJ_LAUNCHER_PLACEMENT_STEPS_H

#include "launcher/placement/placement.h"

typedef struct dj_match {
    const dj_topology_t *topology;
    uint64_t usable; /* GPUs, as bits; at least n */
    uint32_t n;      /* ranks */
    bool by_place;   /* order GPUs by package and node, not by their links */
    /* out */
    int32_t gpu[DJ_GPUS_MAX], nic[DJ_GPUS_MAX]; /* of each rank; nic -1: none */
    bool exact;
    uint32_t nic_cost, link_cost;
} dj_match_t;

/* gpu_match.c: DJ_ERR_MEMORY. */
dj_status_t dj_match_gpus(dj_match_t *match);

/* core_share.c: cores of every rank that has a GPU, and the coordinator's. DJ_ERR_MEMORY. */
dj_status_t dj_share_cores(const dj_topology_t *topology, const dj_layout_request_t *request,
                           dj_layout_t *layout);
/* The other words of a rank's share, and why. */
void dj_layout_describe(const dj_topology_t *topology, dj_layout_t *layout, uint32_t index);

#endif
