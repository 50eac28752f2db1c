/* schedule.h - inside the planner: what follows from a graph alone, before anything is placed.
 *
 * Which nodes are steps (the others' results nobody uses), which steps stage their result, which
 * steps may form a group, and what needs a place in Stack and for how long. The planner builds one to
 * plan, the proof builds one to check a plan that came from elsewhere, so none of this is ever
 * believed.
 *
 * Ownership: dj_schedule_fini(). Threads: the caller's. */
#ifndef DJ_PLANNER_SCHEDULE_H
#define DJ_PLANNER_SCHEDULE_H

#include "planner/place.h"

/* Steps of one group: bounds what a device must keep for a tile. */
#define DJ_GROUP_STEPS_MAX 32

typedef struct dj_schedule {
    const dj_graph_t *graph;
    uint32_t n_steps, n_groups, n_places, n_spills;
    uint32_t *nodes;       /* of each step, ascending */
    uint32_t *groups;      /* of each step */
    uint32_t *group_first; /* first step of each group */
    uint8_t *alone;        /* steps that are in no group with others */
    uint32_t *stage_place; /* of each step: index in places, or DJ_SLOT_NONE */
    uint32_t *place_of;    /* of each storage: index in places or spills, or DJ_SLOT_NONE */
    dj_place_t *places;    /* in Stack */
    dj_place_t *spills;    /* in the second slab: storages that are spilled */
} dj_schedule_t;

/* Does the node read the storage that it writes INTO so that its result must be staged? */
bool dj_node_must_stage(const dj_graph_t *graph, const dj_node_t *node);

/* Steps and staging. DJ_ERR_MEMORY. */
dj_status_t dj_schedule_init(dj_schedule_t *schedule, const dj_graph_t *graph);
void dj_schedule_fini(dj_schedule_t *schedule);

/* May this step run in one group with the steps from `first` up to it? */
bool dj_schedule_joins(const dj_schedule_t *schedule, uint32_t first, uint32_t step);
/* Groups, places and their times. Groups are as long as they can be, but a group whose tiles would keep more
 * bytes alive than its steps do one after the other, at the step where most are, is run step by step.
 * DJ_ERR_MEMORY. */
dj_status_t dj_schedule_arrange(dj_schedule_t *schedule);
/* Places and their times under the groups that are set. */
void dj_schedule_lifetimes(dj_schedule_t *schedule);

#endif
