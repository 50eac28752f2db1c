/* layout.h - the layout of this node, now: what launch.c asks for.
 *
 * Finds the machine (quickly where only cores matter), what may be used of it
 * (CUDA_VISIBLE_DEVICES; without it Slurm's SLURM_STEP_GPUS or SLURM_JOB_GPUS; the control group by
 * the device files), and asks dj_layout_compute(). Every task of a node computes the same layout
 * and takes its own ranks out of it, unless the launcher gave it cores or GPUs of its own. */
#ifndef DJ_LAUNCHER_LAYOUT_H
#define DJ_LAUNCHER_LAYOUT_H

#include "launcher/placement/placement.h"
#include "runtime/base/config.h"

typedef struct dj_layout_place {
    uint32_t tasks;        /* of the launcher on this node; 1: we are alone */
    uint32_t ranks;        /* of all of them on this node */
    bool coordinator;      /* the first of these ranks only coordinates */
    uint32_t first, count; /* which of these ranks are ours */
} dj_layout_place_t;

/* layout->rank[place->first + i].share is what our rank i gets. Ownership: free(). DJ_ERR_INVALID:
 * more ranks than GPUs, with a sentence for the user; DJ_ERR_CANCELLED: the same, and the first
 * task of the node says it for all; DJ_ERR_SYSTEM, DJ_ERR_MEMORY. */
dj_status_t dj_layout_find(const dj_config_t *config, const dj_layout_place_t *place,
                           dj_layout_t **layout_p);

/* Fills in what the environment says of the GPUs that may be used. */
void dj_layout_visible(const dj_topology_t *topology, dj_layout_request_t *request);

#endif
