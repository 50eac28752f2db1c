/* schedule.c - dead code, hazards, fusion groups, lifetimes. */
#include "planner/schedule.h"

#include <stdlib.h>
#include <string.h>

/* Calls visit for every operand of a node that is a tensor; stops when it returns false. */
typedef bool (*visit_fn_t)(void *context, const dj_operand_t *operand);

static bool visit_operands(const dj_graph_t *graph, const dj_node_t *node, visit_fn_t visit,
                           void *context)
{
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++)
            if (arg->operands[j].storage < graph->n_storages && !visit(context, &arg->operands[j]))
                return false;
    }
    return true;
}

static bool mark_needed(void *context, const dj_operand_t *operand)
{
    uint8_t *needed = context;
    needed[operand->storage] = 1;
    return true;
}

/* Backwards: a node lives when something it writes is still needed. A write keeps the storage needed,
 * since it may cover only a part. */
static uint32_t find_live(const dj_graph_t *graph, uint8_t *needed, uint8_t *live)
{
    uint32_t n_live = 0;
    for (uint32_t i = 0; i < graph->n_storages; i++)
        needed[i] = graph->storages[i].is_output;
    for (uint32_t i = graph->n_nodes; i-- > 0;) {
        const dj_node_t *node = &graph->nodes[i];
        for (uint32_t j = 0; j < node->n_outs; j++)
            live[i] |= needed[node->outs[j].storage];
        if (!live[i])
            continue;
        n_live++;
        visit_operands(graph, node, mark_needed, needed);
    }
    return n_live;
}

static bool same_window(const dj_operand_t *operand, const dj_output_t *out)
{
    return operand->slot == out->slot && dj_view_equal(&operand->view, &out->view);
}

/* Known to share no byte: constant ranges one behind the other. */
static bool windows_apart(const dj_view_t *a, uint32_t a_slot, const dj_view_t *b, uint32_t b_slot)
{
    uint64_t a_first = (uint64_t)a->offset * dj_dtype_bytes(a->dtype);
    uint64_t b_first = (uint64_t)b->offset * dj_dtype_bytes(b->dtype);
    return a_slot == DJ_SLOT_NONE && b_slot == DJ_SLOT_NONE &&
           (a_first + dj_view_extent_bytes(a) <= b_first ||
            b_first + dj_view_extent_bytes(b) <= a_first);
}

typedef struct hazard {
    const dj_output_t *out;
    bool in_place; /* reading the very same window does no harm */
} hazard_t;

static bool is_harmless(void *context, const dj_operand_t *operand)
{
    const hazard_t *hazard = context;
    return operand->storage != hazard->out->storage ||
           (hazard->in_place && same_window(operand, hazard->out)) ||
           windows_apart(&operand->view, operand->slot, &hazard->out->view, hazard->out->slot);
}

/* Does the node read the storage that it writes INTO so that writing first would change what it
 * reads? Offsets are data, so two windows of one storage are taken to overlap. Ops with '!' read
 * their own target only and the decoder saw to the rest. */
bool dj_node_must_stage(const dj_graph_t *graph, const dj_node_t *node)
{
    hazard_t hazard = {&node->outs[0], dj_op_is_elementwise(node->call.op)};
    if (hazard.out->target == DJ_TARGET_NEW || dj_op_info(node->call.op)->n_outs == 0)
        return false;
    return !visit_operands(graph, node, is_harmless, &hazard);
}

static bool needs_place(const dj_storage_t *storage)
{
    return storage->binding == DJ_SLOT_NONE;
}

static dj_status_t allocate(dj_schedule_t *schedule, uint32_t n_steps)
{
    uint64_t n_places = (uint64_t)n_steps + schedule->graph->n_storages + 1, n_spills = 1;
    for (uint32_t i = 0; i < schedule->graph->n_storages; i++)
        n_spills += schedule->graph->storages[i].is_spilled;
    schedule->nodes = calloc(n_steps + 1ull, sizeof schedule->nodes[0]);
    schedule->groups = calloc(n_steps + 1ull, sizeof schedule->groups[0]);
    schedule->group_first = calloc(n_steps + 1ull, sizeof schedule->group_first[0]);
    schedule->alone = calloc(n_steps + 1ull, 1);
    schedule->stage_place = calloc(n_steps + 1ull, sizeof schedule->stage_place[0]);
    schedule->place_of = calloc(schedule->graph->n_storages + 1ull, sizeof schedule->place_of[0]);
    schedule->places = calloc(n_places, sizeof schedule->places[0]);
    schedule->spills = calloc(n_spills, sizeof schedule->spills[0]);
    if (schedule->nodes == NULL || schedule->groups == NULL || schedule->group_first == NULL ||
        schedule->alone == NULL ||
        schedule->stage_place == NULL || schedule->place_of == NULL || schedule->places == NULL ||
        schedule->spills == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to plan %u steps", n_steps);
    return DJ_OK;
}

static dj_status_t list_steps(dj_schedule_t *schedule, uint8_t *flags)
{
    const dj_graph_t *graph = schedule->graph;
    uint8_t *live = flags + graph->n_storages;
    dj_status_t status = allocate(schedule, find_live(graph, flags, live));
    if (status != DJ_OK)
        return status;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        if (!live[i])
            continue;
        /* 0 says "to be staged" until lifetimes gives the place its index */
        schedule->stage_place[schedule->n_steps] =
            dj_node_must_stage(graph, &graph->nodes[i]) ? 0 : DJ_SLOT_NONE;
        schedule->nodes[schedule->n_steps++] = i;
    }
    return DJ_OK;
}

dj_status_t dj_schedule_init(dj_schedule_t *schedule, const dj_graph_t *graph)
{
    *schedule = (dj_schedule_t){.graph = graph};
    uint8_t *flags = calloc(1, (size_t)graph->n_storages + graph->n_nodes + 1);
    if (flags == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to plan %u nodes", graph->n_nodes);
    dj_status_t status = list_steps(schedule, flags);
    free(flags);
    if (status != DJ_OK)
        dj_schedule_fini(schedule);
    return status;
}

void dj_schedule_fini(dj_schedule_t *schedule)
{
    free(schedule->nodes);
    free(schedule->groups);
    free(schedule->group_first);
    free(schedule->alone);
    free(schedule->stage_place);
    free(schedule->place_of);
    free(schedule->places);
    free(schedule->spills);
    *schedule = (dj_schedule_t){0};
}

static const dj_node_t *step_node(const dj_schedule_t *schedule, uint32_t step)
{
    return &schedule->graph->nodes[schedule->nodes[step]];
}

static bool fuses(const dj_schedule_t *schedule, uint32_t step)
{
    const dj_node_t *node = step_node(schedule, step);
    return dj_op_info(node->call.op)->pointwise && schedule->stage_place[step] == DJ_SLOT_NONE &&
           dj_view_is_contiguous(&node->outs[0].view) && dj_view_count(&node->outs[0].view) > 0;
}

/* Run tile by tile, two steps must see a storage that one of them writes through the same window. */
static bool windows_agree(const dj_schedule_t *schedule, uint32_t early, uint32_t late)
{
    const dj_node_t *a = step_node(schedule, early), *b = step_node(schedule, late);
    hazard_t early_write = {&a->outs[0], true}, late_write = {&b->outs[0], true};
    if (a->outs[0].storage == b->outs[0].storage &&
        (a->outs[0].slot != b->outs[0].slot ||
         !dj_view_equal(&a->outs[0].view, &b->outs[0].view)) &&
        !windows_apart(&a->outs[0].view, a->outs[0].slot, &b->outs[0].view, b->outs[0].slot))
        return false;
    return visit_operands(schedule->graph, b, is_harmless, &early_write) &&
           visit_operands(schedule->graph, a, is_harmless, &late_write);
}

bool dj_schedule_joins(const dj_schedule_t *schedule, uint32_t first, uint32_t step)
{
    if (step - first >= DJ_GROUP_STEPS_MAX || !fuses(schedule, first) || !fuses(schedule, step) ||
        !dj_view_same_shape(&step_node(schedule, first)->outs[0].view,
                            &step_node(schedule, step)->outs[0].view))
        return false;
    for (uint32_t i = first; i < step; i++)
        if (!windows_agree(schedule, i, step))
            return false;
    return true;
}

static void group_steps(dj_schedule_t *schedule)
{
    uint32_t first = 0;
    schedule->n_groups = 0;
    for (uint32_t i = 0; i < schedule->n_steps; i++) {
        if (i == 0 || schedule->alone[i] || schedule->alone[i - 1] ||
            !dj_schedule_joins(schedule, first, i)) {
            first = i;
            schedule->group_first[schedule->n_groups++] = i;
        }
        schedule->groups[i] = schedule->n_groups - 1;
    }
}

typedef struct toucher {
    dj_schedule_t *schedule;
    uint32_t step;
    bool check; /* second pass: who is not walked element by element in its last group */
} toucher_t;

static void touch(toucher_t *t, uint32_t storage, const dj_view_t *view, uint32_t slot)
{
    dj_schedule_t *s = t->schedule;
    uint32_t group = s->groups[t->step], index = s->place_of[storage];
    bool spilled = s->graph->storages[storage].is_spilled;
    dj_place_t *places = spilled ? s->spills : s->places;
    const dj_view_t *shape = &step_node(s, t->step)->outs[0].view;
    if (!needs_place(&s->graph->storages[storage]))
        return;
    if (index == DJ_SLOT_NONE) {
        index = s->place_of[storage] = spilled ? s->n_spills++ : s->n_places++;
        places[index] = (dj_place_t){.bytes = s->graph->storages[storage].bytes,
                                        .first = t->step,
                                        .hands_over = true,
                                        .takes_over = true};
    }
    dj_place_t *place = &places[index];
    if (!t->check) {
        place->last = t->step;
        return;
    }
    if (slot == DJ_SLOT_NONE && view->offset == 0 && dj_view_same_shape(view, shape) &&
        dj_view_is_contiguous(view) && dj_view_dense_bytes(view) == place->bytes)
        return;
    place->hands_over &= group != s->groups[place->last];
    place->takes_over &= group != s->groups[place->first];
}

static bool touch_operand(void *context, const dj_operand_t *operand)
{
    touch(context, operand->storage, &operand->view, operand->slot);
    return true;
}

static void touch_all(dj_schedule_t *schedule, bool check)
{
    for (uint32_t i = 0; i < schedule->n_steps; i++) {
        const dj_node_t *node = step_node(schedule, i);
        toucher_t toucher = {schedule, i, check};
        visit_operands(schedule->graph, node, touch_operand, &toucher);
        for (uint32_t j = 0; j < node->n_outs; j++)
            touch(&toucher, node->outs[j].storage, &node->outs[j].view, node->outs[j].slot);
    }
}

void dj_schedule_lifetimes(dj_schedule_t *schedule)
{
    for (uint32_t i = 0; i < schedule->graph->n_storages; i++)
        schedule->place_of[i] = DJ_SLOT_NONE;
    schedule->n_places = schedule->n_spills = 0;
    touch_all(schedule, false);
    touch_all(schedule, true);
    for (uint32_t i = 0; i < schedule->n_steps; i++) {
        if (schedule->stage_place[i] == DJ_SLOT_NONE)
            continue;
        schedule->stage_place[i] = schedule->n_places;
        schedule->places[schedule->n_places++] = (dj_place_t){
            .bytes = dj_view_dense_bytes(&step_node(schedule, i)->outs[0].view),
            .first = i,
            .last = i,
        };
    }
    for (uint32_t i = 0; i < schedule->n_places; i++)
        schedule->places[i].from =
            schedule->group_first[schedule->groups[schedule->places[i].first]];
    for (uint32_t i = 0; i < schedule->n_spills; i++)
        schedule->spills[i].from =
            schedule->group_first[schedule->groups[schedule->spills[i].first]];
}

#define LOOSEN_MAX 32 /* groups taken apart: each costs a look at all places */

/* The most bytes alive at a step, in *most_p, and the first such step. `tiled`: all that a group makes is there
 * from its first step on, which is more than what it takes where places take over others. */
static uint32_t fullest_step(const dj_schedule_t *schedule, bool tiled, uint64_t *change,
                             uint64_t *most_p)
{
    uint64_t alive = 0, most = 0;
    uint32_t fullest = 0;
    memset(change, 0, (schedule->n_steps + 1ull) * sizeof change[0]);
    for (uint32_t i = 0; i < schedule->n_places; i++) {
        const dj_place_t *place = &schedule->places[i];
        uint32_t from = tiled ? place->from : place->first;
        change[from] += dj_align_up(place->bytes);
        change[place->last + 1] -= dj_align_up(place->bytes); /* wraps; the sums do not */
    }
    for (uint32_t i = 0; i < schedule->n_steps; i++) {
        alive += change[i];
        if (alive > most) {
            most = alive;
            fullest = i;
        }
    }
    *most_p = most;
    return fullest;
}

static void set_alone(dj_schedule_t *schedule, uint32_t group)
{
    for (uint32_t i = schedule->group_first[group];
         i < schedule->n_steps && schedule->groups[i] == group; i++)
        schedule->alone[i] = 1;
}

dj_status_t dj_schedule_arrange(dj_schedule_t *schedule)
{
    uint64_t *change = malloc((schedule->n_steps + 1ull) * sizeof change[0]), single, tiled, most;
    dj_status_t status = DJ_OK;
    if (change == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to plan %u steps", schedule->n_steps);
    for (uint32_t i = 0; i <= LOOSEN_MAX && status == DJ_OK; i++) {
        group_steps(schedule);
        dj_schedule_lifetimes(schedule);
        status = dj_places_alive(schedule->places, schedule->n_places, schedule->n_steps,
                                 DJ_ALIGN_BYTES, &tiled);
        fullest_step(schedule, false, change, &single);
        if (tiled <= single)
            break;
        set_alone(schedule, schedule->groups[fullest_step(schedule, true, change, &most)]);
    }
    free(change);
    return status;
}
