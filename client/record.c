/* record.c - recording: an op becomes bytes of a program the moment it is called.
 *
 * Arguments are checked against the op's signature and shapes are inferred before anything is written,
 * so a refused call leaves no trace. Storages get their numbers in the open segment here; one that
 * another thread has recorded and not sent is flushed first. */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"

dj_recorder_t *dj_recorder_mine(djinn_t *djinn)
{
    static _Thread_local struct {
        uint64_t generation;
        djinn_t *djinn;
        dj_recorder_t *recorder;
    } mine;
    if (mine.djinn == djinn && mine.generation == djinn->session)
        return mine.recorder;
    dj_recorder_t *recorder = NULL;
    for (recorder = djinn->recorders; recorder; recorder = recorder->next)
        if (pthread_equal(recorder->thread, pthread_self()))
            break;
    if (!recorder) {
        recorder = calloc(1, sizeof(*recorder));
        if (!recorder)
            return NULL;
        recorder->djinn = djinn;
        recorder->thread = pthread_self();
        recorder->tail = &recorder->closed;
        recorder->next = djinn->recorders;
        djinn->recorders = recorder;
    }
    mine.djinn = djinn;
    mine.generation = djinn->session;
    mine.recorder = recorder;
    return recorder;
}

dj_segment_record_t *dj_recorder_open(dj_recorder_t *recorder)
{
    djinn_t *djinn = recorder->djinn;
    dj_segment_record_t *segment = recorder->open;
    if (segment)
        return segment;
    segment = djinn->free_segments;
    if (segment)
        djinn->free_segments = segment->next;
    else if (!(segment = calloc(1, sizeof(*segment))))
        return NULL;
    dj_program_reset(&segment->program);
    segment->next = NULL;
    segment->serial = ++djinn->next_serial;
    recorder->open = segment;
    return segment;
}

void dj_segment_recycle(djinn_t *djinn, dj_segment_record_t *segment)
{
    for (uint32_t i = 0; i < segment->n_storages; i++) {
        djinn_storage_t *storage = segment->storages[i].storage;
        if (storage->serial == segment->serial)
            storage->recorder = NULL;
        dj_storage_put(storage);
    }
    for (uint32_t i = 0; i < segment->n_inputs; i++)
        free(segment->immediates[i]);
    segment->n_storages = segment->n_inputs = segment->n_outputs = 0;
    segment->next = djinn->free_segments;
    djinn->free_segments = segment;
}

void dj_segment_free(dj_segment_record_t *segment)
{
    dj_program_fini(&segment->program);
    free(segment->storages);
    free(segment->inputs);
    free(segment->outputs);
    free(segment->immediates);
    free(segment);
}

void dj_recorder_discard(dj_recorder_t *recorder)
{
    dj_segment_record_t *segment, *next;
    if (recorder->open)
        dj_segment_recycle(recorder->djinn, recorder->open);
    recorder->open = NULL;
    for (segment = recorder->closed; segment; segment = next) {
        next = segment->next;
        dj_segment_recycle(recorder->djinn, segment);
    }
    recorder->closed = NULL;
    recorder->tail = &recorder->closed;
    recorder->n_closed = 0;
}

static dj_status_t segment_append(dj_recorder_t *recorder, dj_segment_record_t *segment,
                                  djinn_storage_t *storage, dj_segment_role_t role, uint32_t local)
{
    if (segment->n_storages == segment->room) {
        uint32_t room = segment->room ? segment->room * 2 : 64;
        void *grown = realloc(segment->storages, room * sizeof(*segment->storages));
        if (!grown)
            return dj_fail(DJ_ERR_MEMORY, "no memory for the storages of a segment");
        segment->storages = grown;
        segment->room = room;
    }
    segment->storages[segment->n_storages++] =
        (dj_segment_storage_t){.storage = djinn_retain(storage), .role = (uint8_t)role};
    storage->recorder = recorder;
    storage->serial = segment->serial;
    storage->local = local;
    return DJ_OK;
}

static dj_status_t segment_append_input(dj_segment_record_t *segment, const djinn_storage_t *storage,
                                        void *immediate)
{
    if (segment->n_inputs == segment->inputs_room) {
        uint32_t room = segment->inputs_room ? segment->inputs_room * 2 : 64;
        void *inputs = realloc(segment->inputs, room * sizeof(*segment->inputs));
        if (inputs)
            segment->inputs = inputs;
        void *immediates = realloc(segment->immediates, room * sizeof(*segment->immediates));
        if (immediates)
            segment->immediates = immediates;
        if (!inputs || !immediates)
            return dj_fail(DJ_ERR_MEMORY, "no memory for the inputs of a segment");
        segment->inputs_room = room;
    }
    segment->inputs[segment->n_inputs] =
        (dj_binding_t){storage->ref, immediate ? 0 : DJ_BINDING_REF, storage->bytes};
    segment->immediates[segment->n_inputs++] = immediate;
    return DJ_OK;
}

/* A storage whose producing segment was recorded by another thread and has not left yet. */
static dj_status_t flush_other(dj_recorder_t *mine, djinn_storage_t *storage)
{
    dj_recorder_t *other = storage->recorder;
    if (!other || other == mine)
        return DJ_OK;
    return dj_recorder_submit(other, NULL, 0, NULL);
}

dj_status_t dj_recorder_localise(dj_recorder_t *recorder, djinn_storage_t *storage, bool write,
                                 uint32_t *local_p)
{
    dj_status_t status = flush_other(recorder, storage);
    if (status != DJ_OK)
        return status;
    dj_segment_record_t *segment = recorder->open;
    bool known = segment && storage->serial == segment->serial;
    if (known && write && storage->weight) {
        /* declared as a sealed weight, now written: the next segment sees it as state */
        status = dj_recorder_close_segment(recorder);
        if (status != DJ_OK)
            return status;
        known = false;
    }
    if (write)
        storage->weight = false;
    if (known) {
        segment->storages[storage->local].written |= write;
        *local_p = storage->local;
        return DJ_OK;
    }
    if (!(segment = dj_recorder_open(recorder)))
        return dj_fail(DJ_ERR_MEMORY, "no memory for a segment");
    void *immediate = storage->immediate;
    if (!immediate && !storage->ref)
        return dj_fail(DJ_ERR_STALE, "a tensor whose request failed cannot be used: make it again");
    dj_operand_class_t class = immediate         ? DJ_CLASS_IMMEDIATE
                               : storage->weight ? DJ_CLASS_WEIGHT
                                                 : DJ_CLASS_STATE;
    uint32_t local = segment->program.n_storages;
    status = segment_append(recorder, segment, storage,
                            immediate ? DJ_ROLE_IMMEDIATE : DJ_ROLE_INPUT, local);
    if (status != DJ_OK)
        return status;
    status = segment_append_input(segment, storage, immediate);
    if (status != DJ_OK)
        return status;
    storage->immediate = NULL; /* the segment owns the bytes from here on */
    dj_program_input(&segment->program, class, storage->bytes);
    segment->storages[local].written = write;
    *local_p = local;
    return DJ_OK;
}

/* ---- calls ---- */

typedef struct dj_building {
    dj_arg_t args[DJ_ARGS_MAX];
    djinn_storage_t **storages; /* of each operand, in order; NULL where it is none */
    dj_operand_t *operands;
    uint32_t n_operands;
    dj_call_t call;
} dj_building_t;

static dj_status_t building_reserve(dj_recorder_t *recorder, dj_building_t *building,
                                    const djinn_arg_t *args, int n_args)
{
    uint32_t need = 1; /* a target */
    for (int i = 0; i < n_args; i++)
        need += args[i].kind == DJINN_ARG_TENSORS ? (uint32_t)args[i].count : 1u;
    if (need > recorder->operands_room) {
        uint32_t room = need > 32 ? need : 32;
        void *grown = realloc(recorder->operands, room * (sizeof(dj_operand_t) + sizeof(void *)));
        if (!grown)
            return dj_fail(DJ_ERR_MEMORY, "no memory for %u operands", need);
        recorder->operands = grown;
        recorder->operands_room = room;
    }
    building->operands = recorder->operands;
    building->storages = (djinn_storage_t **)(recorder->operands + recorder->operands_room);
    building->n_operands = 0;
    return DJ_OK;
}

static dj_status_t add_operand(djinn_t *djinn, dj_building_t *building, const djinn_tensor_t *tensor)
{
    dj_operand_t *operand = &building->operands[building->n_operands];
    operand->slot = DJ_SLOT_NONE;
    operand->version = 0;
    building->storages[building->n_operands++] = tensor ? tensor->storage : NULL;
    if (!tensor || !tensor->storage) {
        operand->storage = DJ_STORAGE_NONE;
        return DJ_OK;
    }
    if (djinn && tensor->storage->djinn != djinn)
        return dj_fail(DJ_ERR_INVALID, "a tensor of another connection: move it first");
    if (tensor->rank < 0 || tensor->rank > DJ_RANK_MAX)
        return dj_fail(DJ_ERR_LIMIT, "rank %d: at most %d dimensions", tensor->rank, DJ_RANK_MAX);
    operand->storage = 0;
    dj_view_of_tensor(tensor, &operand->view);
    return dj_view_check(&operand->view, tensor->storage->bytes);
}

static void add_scalar_operand(dj_building_t *building, const djinn_arg_t *arg)
{
    dj_operand_t *operand = &building->operands[building->n_operands];
    building->storages[building->n_operands++] = NULL;
    *operand = (dj_operand_t){.storage = DJ_STORAGE_SCALAR, .slot = DJ_SLOT_NONE};
    operand->scalar.dtype = arg->kind == DJINN_ARG_REAL_SCALAR   ? DJ_F64
                            : arg->kind == DJINN_ARG_BOOL_SCALAR ? DJ_BOOL
                                                                 : DJ_I64;
    operand->view.dtype = operand->scalar.dtype;
    if (arg->kind == DJINN_ARG_REAL_SCALAR)
        operand->scalar.real = arg->value.real;
    else
        operand->scalar.integer = arg->value.integer;
}

static bool is_scalar(const djinn_arg_t *arg)
{
    return arg->kind >= DJINN_ARG_BOOL_SCALAR && arg->kind <= DJINN_ARG_REAL_SCALAR;
}

static dj_status_t build_arg(djinn_t *djinn, dj_building_t *building, char letter,
                             const djinn_arg_t *from, dj_arg_t *to)
{
    dj_status_t status = DJ_OK;
    *to = (dj_arg_t){.kind = DJ_ARG_NONE, .slot = DJ_SLOT_NONE};
    if (from->kind == DJINN_ARG_NONE || letter == '-')
        return DJ_OK;
    if (strchr("tTlL", letter)) {
        to->kind = DJ_ARG_TENSORS;
        to->operands = &building->operands[building->n_operands];
        to->count = 1;
        if (is_scalar(from)) {
            add_scalar_operand(building, from);
            return DJ_OK;
        }
        if (from->kind == DJINN_ARG_TENSORS)
            to->count = (uint32_t)from->count;
        else if (from->kind != DJINN_ARG_TENSOR)
            return dj_fail(DJ_ERR_INVALID, "a tensor is expected");
        for (uint32_t i = 0; i < to->count && status == DJ_OK; i++)
            status = add_operand(djinn, building, &from->value.tensors[i]);
        return status;
    }
    if (is_scalar(from)) {
        to->kind = DJ_ARG_SCALAR;
        to->scalar.dtype = from->kind == DJINN_ARG_REAL_SCALAR   ? DJ_F64
                           : from->kind == DJINN_ARG_BOOL_SCALAR ? DJ_BOOL
                                                                 : DJ_I64;
        to->scalar.integer = from->value.integer; /* same bits as real */
    } else if (from->kind == DJINN_ARG_INT) {
        to->kind = DJ_ARG_INTEGER;
        to->integer = from->value.integer;
    } else if (from->kind == DJINN_ARG_INTS) {
        to->kind = DJ_ARG_INTEGERS;
        to->count = (uint32_t)from->count;
        to->integers = from->value.integers;
    } else {
        return dj_fail(DJ_ERR_INVALID, "an attribute is expected, not a tensor");
    }
    return DJ_OK;
}

/* Fills building->call. `djinn` NULL: inference only, storages are not looked at. */
static dj_status_t build_call(dj_recorder_t *recorder, djinn_t *djinn, dj_building_t *building,
                              int op, const djinn_arg_t *args, int n_args)
{
    const dj_op_info_t *info = op < 0 ? NULL : dj_op_info((uint16_t)op);
    if (!info)
        return dj_fail(DJ_ERR_UNSUPPORTED, "op handle %d is not in the table", op);
    if (n_args != info->n_args)
        return dj_fail(DJ_ERR_INVALID, "%s takes %d arguments (%s), %d given", info->name,
                       info->n_args, info->signature, n_args);
    dj_status_t status = building_reserve(recorder, building, args, n_args);
    for (int i = 0; i < n_args && status == DJ_OK; i++) {
        status = build_arg(djinn, building, info->signature[i], &args[i], &building->args[i]);
        if (status != DJ_OK)
            dj_fail_prefix(status, "%s argument %d", info->name, i);
    }
    building->call = (dj_call_t){(uint16_t)op, (uint16_t)n_args, building->args};
    return status;
}

djinn_status_t djinn_infer(int op, const djinn_arg_t *args, int n_args, djinn_tensor_t *outs,
                           int *count_p)
{
    dj_recorder_t scratch = {0};
    dj_building_t building;
    dj_view_t views[DJ_OUTS_MAX];
    dj_status_t status = build_call(&scratch, NULL, &building, op, args, n_args);
    if (status == DJ_OK)
        status = dj_op_infer(&building.call, views);
    if (status == DJ_OK) {
        const dj_op_info_t *info = dj_op_info((uint16_t)op);
        *count_p = info->is_view ? 1 : info->n_outs;
        for (int i = 0; i < *count_p; i++)
            dj_tensor_of_view(&views[i], NULL, &outs[i]);
    }
    free(scratch.operands);
    return (djinn_status_t)status;
}

/* Numbers every operand in the open segment. Flushing or closing may happen on the way, after which
 * numbers given before are void: then it starts over. */
static dj_status_t localise_all(dj_recorder_t *recorder, dj_building_t *building,
                                djinn_storage_t *written)
{
    uint64_t serial;
    do {
        dj_segment_record_t *segment = dj_recorder_open(recorder);
        if (!segment)
            return dj_fail(DJ_ERR_MEMORY, "no memory for a segment");
        serial = segment->serial;
        for (uint32_t i = 0; i < building->n_operands; i++) {
            djinn_storage_t *storage = building->storages[i];
            if (!storage)
                continue;
            dj_status_t status = dj_recorder_localise(recorder, storage, storage == written,
                                                      &building->operands[i].storage);
            if (status != DJ_OK)
                return status;
        }
    } while (!recorder->open || recorder->open->serial != serial);
    return DJ_OK;
}

static dj_status_t make_outputs(dj_recorder_t *recorder, const dj_view_t *views, uint32_t n_outs,
                                djinn_tensor_t *outs, djinn_storage_t **made)
{
    dj_status_t status;
    for (uint32_t i = 0; i < n_outs; i++) {
        uint64_t bytes = dj_view_extent_bytes(&views[i]);
        status = dj_storage_create(recorder->djinn, bytes, &made[i]);
        if (status != DJ_OK) {
            while (i-- > 0)
                dj_storage_put(made[i]);
            return status;
        }
        dj_tensor_of_view(&views[i], made[i], &outs[i]);
    }
    return DJ_OK;
}

/* Into which argument's exact tensor the target is, or -1. */
static int target_argument(const dj_building_t *building, const djinn_tensor_t *target)
{
    dj_view_t view;
    dj_view_of_tensor(target, &view);
    for (int i = 0; i < building->call.n_args; i++) {
        const dj_arg_t *arg = &building->args[i];
        if (arg->kind != DJ_ARG_TENSORS || arg->count != 1)
            continue;
        uint32_t at = (uint32_t)(arg->operands - building->operands);
        if (building->storages[at] == target->storage && dj_view_equal(&arg->operands->view, &view))
            return i;
    }
    return -1;
}

static dj_status_t append_op(dj_recorder_t *recorder, dj_building_t *building,
                             const dj_op_info_t *info, const djinn_tensor_t *target,
                             const dj_view_t *views, djinn_tensor_t *outs)
{
    djinn_storage_t *made[DJ_OUTS_MAX], *written = NULL;
    dj_target_t targets[DJ_OUTS_MAX] = {{0}};
    uint32_t numbers[DJ_OUTS_MAX], n_outs = target ? 0 : info->n_outs;
    dj_status_t status;
    if (target) {
        int arg = target_argument(building, target);
        written = target->storage;
        targets[0].kind = arg >= 0 ? DJ_TARGET_ARGUMENT : DJ_TARGET_VIEW;
        targets[0].arg = (uint8_t)(arg >= 0 ? arg : 0);
        targets[0].operand = &building->operands[building->n_operands];
        if (arg < 0)
            add_operand(NULL, building, target);
    } else if (info->n_outs == 0) {
        written = building->storages[0];
    }
    if ((status = localise_all(recorder, building, written)) != DJ_OK)
        return status;
    dj_segment_record_t *segment = recorder->open;
    if ((status = make_outputs(recorder, views, n_outs, outs, made)) != DJ_OK)
        return status;
    status = dj_program_add(&segment->program, &building->call, target ? targets : NULL, numbers);
    for (uint32_t i = 0; i < n_outs && status == DJ_OK; i++)
        status = segment_append(recorder, segment, made[i], DJ_ROLE_PRODUCED, numbers[i]);
    if (status != DJ_OK) {
        for (uint32_t i = 0; i < n_outs; i++)
            dj_storage_put(made[i]);
        return status;
    }
    recorder->djinn->stats.ops++;
    if (segment->program.n_nodes >= DJ_SEGMENT_NODES_MAX)
        return dj_recorder_close_segment(recorder);
    return DJ_OK;
}

dj_status_t dj_recorder_record(dj_recorder_t *recorder, int op, const djinn_arg_t *args,
                               int n_args, const djinn_tensor_t *target, djinn_tensor_t *outs)
{
    dj_building_t building;
    dj_view_t views[DJ_OUTS_MAX];
    const dj_op_info_t *info = op < 0 ? NULL : dj_op_info((uint16_t)op);
    if (info && !djinn_supports(recorder->djinn, op))
        return dj_fail(DJ_ERR_UNSUPPORTED, "rank %u has no kernel for %s: compute it on the host",
                       recorder->djinn->rank, info->name);
    dj_status_t status = build_call(recorder, recorder->djinn, &building, op, args, n_args);
    if (status != DJ_OK)
        return status;
    if ((status = dj_op_infer(&building.call, views)) != DJ_OK)
        return status;
    if (target) {
        dj_view_t view;
        if (info->n_outs != 1)
            return dj_fail(DJ_ERR_UNSUPPORTED, "%s cannot write into a target", info->name);
        if (!target->storage || target->storage->djinn != recorder->djinn)
            return dj_fail(DJ_ERR_INVALID, "%s: the target is of another connection", info->name);
        dj_view_of_tensor(target, &view);
        if ((status = dj_view_check(&view, target->storage->bytes)) != DJ_OK ||
            (status = dj_op_check_target((uint16_t)op, &views[0], &view)) != DJ_OK)
            return status;
    }
    return append_op(recorder, &building, info, target, views, outs);
}

/* ---- closing ---- */

/* Who still holds a storage besides the segments that know it? Only then it outlives the request. The
 * open segment holds one reference; closed ones hold one each, but then it has a ref already. */
bool dj_storage_outlives(const djinn_storage_t *storage)
{
    return atomic_load(&storage->references) > 1;
}

static dj_status_t add_output(dj_segment_record_t *segment, uint64_t ref)
{
    if (segment->n_outputs == segment->outputs_room) {
        uint32_t room = segment->outputs_room ? segment->outputs_room * 2 : 16;
        void *grown = realloc(segment->outputs, room * sizeof(*segment->outputs));
        if (!grown)
            return dj_fail(DJ_ERR_MEMORY, "no memory for the outputs of a segment");
        segment->outputs = grown;
        segment->outputs_room = room;
    }
    segment->outputs[segment->n_outputs++] = ref;
    return DJ_OK;
}

dj_status_t dj_recorder_close_segment(dj_recorder_t *recorder)
{
    dj_segment_record_t *segment = recorder->open;
    dj_status_t status = DJ_OK;
    uint32_t input = 0, n_listed = 0;
    if (!segment)
        return DJ_OK;
    uint32_t few[64] = {0}, *listed = few;
    if (segment->n_storages > 64 && !(listed = malloc(segment->n_storages * sizeof(*listed))))
        return dj_fail(DJ_ERR_MEMORY, "no memory for the outputs of a segment");
    for (uint32_t i = 0; i < segment->n_storages && status == DJ_OK; i++) {
        dj_segment_storage_t *slot = &segment->storages[i];
        bool kept = dj_storage_outlives(slot->storage);
        if (slot->role != DJ_ROLE_INPUT && kept)
            status = dj_storage_assign_ref(slot->storage);
        if (slot->role == DJ_ROLE_PRODUCED) {
            if (kept && status == DJ_OK) {
                listed[n_listed++] = i;
                status = add_output(segment, slot->storage->ref);
            }
        } else {
            segment->inputs[input++].ref = slot->storage->ref;
        }
    }
    if (status == DJ_OK)
        status = dj_program_finish(&segment->program, listed, n_listed, NULL, NULL);
    if (listed != few)
        free(listed);
    if (status != DJ_OK)
        return status;
    dj_keys_find(recorder->djinn, &segment->program, &segment->program_key, &segment->exact_key);
    recorder->open = NULL;
    *recorder->tail = segment;
    recorder->tail = &segment->next;
    recorder->n_closed++;
    recorder->djinn->stats.segments++;
    return DJ_OK;
}
