/* features.c - one pass over a graph that counts what the detectors ask.
 *
 * Each storage carries where its content came from (dj_origin_t) and what it is just now (marks):
 * both are handed from operands to results, so a question such as "is this a product of two
 * activations that a softmax later sees" needs no search. */
#include <stdlib.h>

#include "planner/cost.h"
#include "planner/detect.h"
#include "planner/shape.h"
#include "runtime/base/table.h"

/* What a value is, as long as only pointwise ops, copies and layouts touch it. */
enum {
    MARK_WAVE = 1 << 0,   /* sines and cosines */
    MARK_SCORES = 1 << 1, /* products of two activations */
    MARK_ROWS = 1 << 2,   /* looked-up rows, nothing done to them */
    MARK_CACHE = 1 << 3,  /* state, grown or written */
    MARK_PATCHES = 1 << 4,
    MARK_PLAIN = MARK_WAVE | MARK_SCORES | MARK_CACHE | MARK_PATCHES,
};

enum {
    TABLES_MAX = 256,
    VOCABULARY_MIN = 32,
    IMAGE_SIDE_MIN = 8,
    SAMPLES_MIN = 400,
    FREQUENCIES_MIN = 20
};

typedef struct dj_trail {
    uint16_t origin;
    uint8_t marks;
    bool seen;             /* an input whose first use was looked at */
    bool like_weight;      /* the second factor of a product, a filter, a table */
    const dj_view_t *view; /* an input's first window; a made storage's last */
} dj_trail_t;

typedef struct dj_scan {
    const dj_graph_t *graph;
    dj_features_t *features;
    dj_trail_t *trails;
    struct {
        uint32_t storage, ids;
        int64_t rows;
    } tables[TABLES_MAX];
    uint32_t n_tables;
    dj_table_t weight_shapes; /* by key_of_shape() */
    dj_table_t input_counts;  /* elements of the float inputs of rank 3 and more */
    dj_status_t status;       /* of the two */
} dj_scan_t;

static const dj_operand_t *operand_at(const dj_node_t *node, uint32_t arg)
{
    return arg < node->call.n_args && dj_call_has(&node->call, arg)
               ? &node->call.args[arg].operands[0]
               : NULL;
}

static const dj_storage_t *storage_of(const dj_scan_t *scan, const dj_operand_t *operand)
{
    return operand != NULL && operand->storage < scan->graph->n_storages
               ? &scan->graph->storages[operand->storage]
               : NULL;
}

static bool is_input(const dj_scan_t *scan, const dj_operand_t *operand)
{
    const dj_storage_t *storage = storage_of(scan, operand);
    return storage != NULL && storage->is_input;
}

static bool is_weight(const dj_scan_t *scan, const dj_operand_t *operand)
{
    return is_input(scan, operand) && storage_of(scan, operand)->input_class == DJ_CLASS_WEIGHT;
}

static dj_trail_t *trail_of(const dj_scan_t *scan, const dj_operand_t *operand)
{
    static dj_trail_t nothing;
    return storage_of(scan, operand) != NULL ? &scan->trails[operand->storage] : &nothing;
}

static bool reads_origin(const dj_scan_t *scan, const dj_operand_t *operand, uint16_t origin)
{
    return operand != NULL && (trail_of(scan, operand)->origin & origin) != 0;
}

static int64_t size_back(const dj_view_t *view, uint32_t back)
{
    return view->rank >= back ? view->sizes[view->rank - back] : 1;
}

/* Sets of numbers: two that meet by chance cost a detector a little certainty, no more. */
static void remember(dj_scan_t *scan, dj_table_t *set, uint64_t key)
{
    if (scan->status == DJ_OK)
        scan->status = dj_table_put(set, dj_key_u64(key), scan);
}

/* The same for a matrix and its transpose. */
static uint64_t key_of_shape(const dj_view_t *view)
{
    uint64_t a = (uint64_t)view->sizes[0], b = (uint64_t)view->sizes[1];
    return a < b ? a * 0x9e3779b97f4a7c15ull + b : b * 0x9e3779b97f4a7c15ull + a;
}

static void mark_weight(dj_scan_t *scan, const dj_operand_t *operand)
{
    dj_trail_t *trail = trail_of(scan, operand);
    if (!is_input(scan, operand) || trail->like_weight)
        return;
    trail->like_weight = true;
    if (operand->view.rank == 2)
        remember(scan, &scan->weight_shapes, key_of_shape(&operand->view));
}

/* An input's origin is known at its first use, which gives it a type. */
static void meet_input(dj_scan_t *scan, const dj_operand_t *operand)
{
    dj_trail_t *trail = trail_of(scan, operand);
    if (!is_input(scan, operand) || trail->seen)
        return;
    trail->seen = true;
    trail->view = &operand->view;
    if (storage_of(scan, operand)->input_class != DJ_CLASS_WEIGHT)
        trail->origin |= dj_dtype_is_float(operand->view.dtype) ? DJ_ORIGIN_FLOAT : DJ_ORIGIN_IDS;
}

static uint16_t gather_operands(dj_scan_t *scan, const dj_node_t *node, uint8_t *marks_p)
{
    uint16_t origin = 0;
    uint8_t marks = 0;
    for (uint32_t a = 0; a < node->call.n_args; a++) {
        const dj_arg_t *arg = &node->call.args[a];
        for (uint32_t j = 0; arg->kind == DJ_ARG_TENSORS && j < arg->count; j++) {
            const dj_operand_t *operand = &arg->operands[j];
            if (operand->storage >= scan->graph->n_storages)
                continue;
            meet_input(scan, operand);
            origin |= scan->trails[operand->storage].origin;
            marks |= scan->trails[operand->storage].marks;
        }
    }
    *marks_p = marks;
    return origin;
}

static int64_t integer_at(const dj_node_t *node, uint32_t arg, int64_t otherwise)
{
    return arg < node->call.n_args && node->call.args[arg].kind == DJ_ARG_INTEGER
               ? node->call.args[arg].integer
               : otherwise;
}

static bool flag_at(const dj_node_t *node, uint32_t arg)
{
    return integer_at(node, arg, 0) != 0;
}

/* One attention, fused or of single ops: how many queries look at how many keys, and does a mask
 * made of places hide some. */
static void count_attention(dj_scan_t *scan, int64_t queries, int64_t keys, bool causal,
                            bool cached)
{
    dj_features_t *f = scan->features;
    f->n_attention++;
    f->n_attention_one += queries == 1 && keys > 1;
    f->n_causal += queries > 1 && causal;
    f->n_cached += cached;
}

static void visit_fused(dj_scan_t *scan, const dj_node_t *node)
{
    const dj_operand_t *q = operand_at(node, 0), *k = operand_at(node, 1), *v = operand_at(node, 2);
    if (q == NULL || k == NULL)
        return;
    bool causal = flag_at(node, 5) || reads_origin(scan, operand_at(node, 3), DJ_ORIGIN_CAUSAL);
    bool cached = ((trail_of(scan, k)->marks | trail_of(scan, v)->marks) & MARK_CACHE) != 0;
    count_attention(scan, size_back(&q->view, 2), size_back(&k->view, 2), causal, cached);
}

static void visit_softmax(dj_scan_t *scan, const dj_node_t *node, uint16_t origin, uint8_t marks)
{
    const dj_operand_t *scores = operand_at(node, 0);
    if (scores == NULL || scores->view.rank < 3 || (marks & MARK_SCORES) == 0 ||
        dj_op_traits(node->call.op).backward)
        return;
    count_attention(scan, size_back(&scores->view, 2), size_back(&scores->view, 1),
                    (origin & DJ_ORIGIN_CAUSAL) != 0, (marks & MARK_CACHE) != 0);
}

static void remember_table(dj_scan_t *scan, const dj_operand_t *table, const dj_operand_t *ids)
{
    for (uint32_t i = 0; i < scan->n_tables; i++)
        if (scan->tables[i].storage == table->storage) {
            scan->features->n_reused_tables += scan->tables[i].ids != ids->storage;
            return;
        }
    scan->features->n_tables++;
    if (scan->n_tables == TABLES_MAX)
        return;
    scan->tables[scan->n_tables].storage = table->storage;
    scan->tables[scan->n_tables].ids = ids->storage;
    scan->tables[scan->n_tables++].rows = size_back(&table->view, 2);
}

/* Fields that share one table: each has its own range of rows, given by a constant row of offsets.
 */
static bool are_offset_fields(const dj_scan_t *scan, const dj_operand_t *ids)
{
    const dj_storage_t *storage = storage_of(scan, ids);
    if (storage == NULL || storage->is_input || storage->producer >= scan->graph->n_nodes)
        return false;
    const dj_node_t *node = &scan->graph->nodes[storage->producer];
    const dj_operand_t *a = operand_at(node, 0), *b = operand_at(node, 1);
    return node->call.op == DJ_OP_ADD && is_input(scan, a) && is_input(scan, b) &&
           dj_view_count(&a->view) != dj_view_count(&b->view) &&
           size_back(&a->view, 1) == size_back(&b->view, 1);
}

/* Ids that count, or that name each row of the table once, are places, not words. */
static bool are_places(const dj_scan_t *scan, const dj_operand_t *ids, const dj_operand_t *table)
{
    uint16_t origin = trail_of(scan, ids)->origin;
    return is_weight(scan, ids) || (origin & (DJ_ORIGIN_IDS | DJ_ORIGIN_RANGE)) != DJ_ORIGIN_IDS ||
           dj_view_count(&ids->view) == size_back(&table->view, 2);
}

static uint16_t visit_lookup(dj_scan_t *scan, const dj_node_t *node)
{
    const dj_operand_t *table = operand_at(node, 0), *ids = operand_at(node, 1);
    bool bag = node->call.op != DJ_OP_EMBEDDING;
    if (table == NULL || ids == NULL)
        return 0;
    mark_weight(scan, table);
    if (are_places(scan, ids, table) && !bag)
        return 0;
    remember_table(scan, table, ids);
    scan->features->n_bags += bag;
    scan->features->n_offset_fields += are_offset_fields(scan, ids);
    int64_t length = ids->view.rank >= 2 ? size_back(&ids->view, 1) : 0;
    if (bag || ids->view.rank < 2) {
        scan->features->n_field_gathers++;
        return DJ_ORIGIN_FIELD;
    }
    scan->features->n_token_gathers++;
    if (length > scan->features->tokens_per_row)
        scan->features->tokens_per_row = length;
    return DJ_ORIGIN_TOKEN;
}

static bool is_vocabulary(const dj_scan_t *scan, int64_t columns)
{
    for (uint32_t i = 0; i < scan->n_tables; i++)
        if (scan->tables[i].rows == columns && columns >= VOCABULARY_MIN)
            return true;
    return false;
}

static uint16_t visit_product(dj_scan_t *scan, const dj_node_t *node, uint16_t origin,
                              uint8_t *marks_p)
{
    dj_features_t *f = scan->features;
    bool adds = node->call.op == DJ_OP_ADDMM || node->call.op == DJ_OP_BADDBMM;
    const dj_operand_t *left = operand_at(node, adds), *right = operand_at(node, adds + 1);
    const dj_view_t *out = &node->outs[0].view;
    if (left == NULL || right == NULL)
        return origin;
    bool made = !is_input(scan, left) && !is_input(scan, right);
    f->n_products++;
    f->n_sequence_products += out->rank >= 3 && out->sizes[out->rank - 2] > 1 && !made;
    f->n_vocabulary += (origin & (DJ_ORIGIN_TOKEN | DJ_ORIGIN_SOUND | DJ_ORIGIN_IMAGE)) != 0 &&
                       is_vocabulary(scan, size_back(out, 1)) && !made;
    mark_weight(scan, right);
    if (made && node->call.op == DJ_OP_MM &&
        dj_table_get(&scan->weight_shapes, dj_key_u64(key_of_shape(out))) != NULL)
        f->n_weight_grads++;
    if ((*marks_p & MARK_WAVE) != 0 && !made) {
        f->n_time_embeddings++;
        origin |= DJ_ORIGIN_TIME;
    }
    if ((*marks_p & MARK_PATCHES) != 0 && !made) {
        f->n_patches++;
        origin |= DJ_ORIGIN_IMAGE;
    }
    *marks_p = (*marks_p & MARK_CACHE) | (made && out->rank >= 3 ? MARK_SCORES : 0);
    return origin;
}

/* Sound is looked at along one dimension, or as a picture of one channel whose sides are a count of
 * frequencies and a longer time. */
static bool is_spectrogram(const dj_view_t *data)
{
    int64_t a = size_back(data, 2), b = size_back(data, 1);
    int64_t low = a < b ? a : b, high = a < b ? b : a;
    return data->rank == 4 && data->sizes[1] == 1 && low >= FREQUENCIES_MIN && low <= 257 &&
           a != b && high >= low;
}

/* Samples come in one or two channels and are many; frames have a count of frequencies. */
static bool is_sound(const dj_view_t *data, const dj_view_t *filter)
{
    if (data->rank != 3)
        return false;
    return data->sizes[1] <= 2 ? data->sizes[2] >= SAMPLES_MIN
                               : data->sizes[1] >= FREQUENCIES_MIN && filter->sizes[2] > 1;
}

static uint16_t visit_stem(dj_scan_t *scan, const dj_node_t *node, const dj_view_t *data,
                           const dj_view_t *filter)
{
    dj_features_t *f = scan->features;
    if (filter->rank == 3) {
        bool sound = is_sound(data, filter);
        bool thin = integer_at(node, 8, 1) != 1;
        f->n_sound_stems += sound && !thin;
        f->n_thin_stems += sound && thin;
        return sound ? DJ_ORIGIN_SOUND : 0;
    }
    if (filter->rank == 4 && is_spectrogram(data)) {
        f->n_spectrogram_stems++;
        return DJ_ORIGIN_SOUND;
    }
    if (size_back(data, 1) < IMAGE_SIDE_MIN && filter->rank == 4)
        return 0;
    f->n_image_stems++;
    return DJ_ORIGIN_IMAGE;
}

static uint16_t visit_convolution(dj_scan_t *scan, const dj_node_t *node, uint16_t origin)
{
    const uint16_t known = DJ_ORIGIN_TOKEN | DJ_ORIGIN_FIELD | DJ_ORIGIN_IMAGE | DJ_ORIGIN_SOUND;
    const dj_operand_t *data = operand_at(node, 0), *filter = operand_at(node, 1);
    dj_features_t *f = scan->features;
    if (data == NULL || filter == NULL || dj_op_traits(node->call.op).backward)
        return origin;
    f->n_conv_1d += filter->view.rank == 3;
    f->n_conv_1d_wide +=
        filter->view.rank == 3 && filter->view.sizes[2] > 1 && integer_at(node, 8, 1) == 1;
    f->n_conv_2d += filter->view.rank == 4;
    f->n_conv_3d += filter->view.rank == 5;
    f->n_conv_turned += flag_at(node, 6);
    mark_weight(scan, filter);
    if ((trail_of(scan, data)->origin & known) == 0)
        origin |= visit_stem(scan, node, &data->view, &filter->view);
    return origin;
}

/* Places compared with places: [queries, 1] against [keys] in one way or another. */
static bool compares_places(const dj_scan_t *scan, const dj_node_t *node)
{
    const dj_operand_t *a = operand_at(node, 0), *b = operand_at(node, 1);
    switch (node->call.op) {
    case DJ_OP_LT:
    case DJ_OP_LE:
    case DJ_OP_GT:
    case DJ_OP_GE:
        break;
    default:
        return false;
    }
    return a != NULL && b != NULL && !dj_dtype_is_float(a->view.dtype) &&
           !dj_dtype_is_float(b->view.dtype) &&
           reads_origin(scan, a, DJ_ORIGIN_RANGE | DJ_ORIGIN_IDS) &&
           reads_origin(scan, b, DJ_ORIGIN_RANGE | DJ_ORIGIN_IDS) && node->outs[0].view.rank >= 2 &&
           size_back(&node->outs[0].view, 1) > 1;
}

static uint16_t visit_pointwise(dj_scan_t *scan, const dj_node_t *node, uint16_t origin,
                                uint8_t *marks_p)
{
    scan->features->n_gates += node->call.op == DJ_OP_SIGMOID || node->call.op == DJ_OP_TANH;
    if (compares_places(scan, node))
        origin |= DJ_ORIGIN_CAUSAL;
    if (node->call.op == DJ_OP_SIN || node->call.op == DJ_OP_COS)
        *marks_p = MARK_WAVE;
    else if (node->outs[0].view.rank > 0 && node->call.n_args >= 2 && operand_at(node, 1) != NULL &&
             !dj_operand_is_scalar(operand_at(node, 1)))
        *marks_p &= MARK_PLAIN & ~MARK_WAVE; /* rotated, added to something: no longer a wave */
    else
        *marks_p &= MARK_PLAIN;
    return origin;
}

/* State grown: a piece made now is put behind one that was there. */
static bool grows(const dj_scan_t *scan, const dj_node_t *node)
{
    const dj_arg_t *list = &node->call.args[0];
    if (node->call.op != DJ_OP_CAT || list->count != 2)
        return false;
    const dj_operand_t *old = &list->operands[0], *fresh = &list->operands[1];
    return is_input(scan, old) && !is_weight(scan, old) && old->view.rank >= 3 &&
           dj_dtype_is_float(old->view.dtype) && storage_of(scan, fresh) != NULL &&
           !is_input(scan, fresh) && dj_view_count(&old->view) > 0;
}

static uint8_t visit_layout(dj_scan_t *scan, const dj_node_t *node, uint8_t marks)
{
    const dj_arg_t *list = &node->call.args[0];
    if (node->call.op == DJ_OP_CAT) {
        uint32_t rows = 0;
        for (uint32_t i = 0; i < list->count; i++)
            rows += storage_of(scan, &list->operands[i]) != NULL &&
                    (trail_of(scan, &list->operands[i])->marks & MARK_ROWS) != 0;
        scan->features->n_fields_joined += rows >= 2 ? rows : 0;
    }
    return (uint8_t)((marks & MARK_PLAIN) | (grows(scan, node) ? MARK_CACHE : 0));
}

/* Pictures cut into patches by a copy: [b, c, rows, p, columns, p] in another order. */
static bool cuts_patches(const dj_scan_t *scan, const dj_node_t *node)
{
    const dj_operand_t *from = operand_at(node, 0);
    return from != NULL && from->view.rank >= 5 && is_input(scan, from) && !is_weight(scan, from) &&
           dj_dtype_is_float(from->view.dtype) && !dj_view_is_contiguous(&from->view);
}

/* What graph networks do: each edge fetches the row of its node. */
static bool passes_messages(const dj_scan_t *scan, const dj_node_t *node)
{
    const dj_operand_t *rows = operand_at(node, 0);
    const dj_view_t *out = &node->outs[0].view;
    return rows != NULL && !is_input(scan, rows) && rows->view.rank == 2 && out->rank == 2 &&
           dj_dtype_is_float(out->dtype) && out->sizes[1] == rows->view.sizes[1] &&
           out->sizes[0] > rows->view.sizes[0];
}

static uint16_t visit(dj_scan_t *scan, const dj_node_t *node, uint16_t origin, uint8_t *marks_p)
{
    dj_op_traits_t traits = dj_op_traits(node->call.op);
    uint8_t marks = *marks_p, kept = 0;
    dj_features_t *f = scan->features;
    switch (traits.family) {
    case DJ_FAMILY_PRODUCT:
        kept = marks;
        origin = visit_product(scan, node, origin, &kept);
        break;
    case DJ_FAMILY_CONVOLUTION:
        origin = visit_convolution(scan, node, origin);
        break;
    case DJ_FAMILY_ATTENTION:
        visit_fused(scan, node);
        break;
    case DJ_FAMILY_SOFTMAX:
        visit_softmax(scan, node, origin, marks);
        kept = marks & MARK_CACHE;
        break;
    case DJ_FAMILY_EMBEDDING:
        origin |= visit_lookup(scan, node);
        kept = MARK_ROWS;
        break;
    case DJ_FAMILY_POINTWISE:
        kept = marks;
        origin = visit_pointwise(scan, node, origin, &kept);
        break;
    case DJ_FAMILY_COPY:
        kept = (uint8_t)((marks & (MARK_PLAIN | MARK_ROWS)) |
                         (cuts_patches(scan, node) ? MARK_PATCHES : 0));
        break;
    case DJ_FAMILY_LAYOUT:
        if (node->call.op == DJ_OP_TRIL || node->call.op == DJ_OP_TRIU)
            origin |= DJ_ORIGIN_CAUSAL;
        kept = visit_layout(scan, node, marks);
        break;
    case DJ_FAMILY_CREATE:
        origin |= node->call.op == DJ_OP_ARANGE ? DJ_ORIGIN_RANGE : 0;
        break;
    case DJ_FAMILY_SCAN:
        origin |= dj_dtype_is_float(node->outs[0].view.dtype) ? 0 : DJ_ORIGIN_RANGE;
        break;
    case DJ_FAMILY_GATHER:
        f->n_messages += passes_messages(scan, node);
        kept = marks & MARK_CACHE;
        break;
    case DJ_FAMILY_SCATTER:
        kept = marks & MARK_CACHE;
        break;
    default:
        break;
    }
    f->n_norms += traits.family == DJ_FAMILY_NORM;
    f->n_pools += traits.family == DJ_FAMILY_POOL;
    f->n_scans += traits.family == DJ_FAMILY_SCAN;
    f->n_sorts += traits.family == DJ_FAMILY_SORT;
    f->n_losses += traits.family == DJ_FAMILY_LOSS;
    f->n_conv_turned += traits.family == DJ_FAMILY_RESAMPLE;
    f->n_backward += traits.backward;
    *marks_p = kept;
    return origin;
}

/* An activation function in place is no update, whatever it is applied to. */
static bool updates(const dj_node_t *node)
{
    switch (node->call.op) {
    case DJ_OP_RELU:
    case DJ_OP_SILU:
    case DJ_OP_GELU:
    case DJ_OP_GELU_TANH:
    case DJ_OP_SIGMOID:
    case DJ_OP_TANH:
    case DJ_OP_CLAMP:
    case DJ_OP_CLAMP_MIN:
        return false;
    default:
        return dj_op_traits(node->call.op).family == DJ_FAMILY_POINTWISE;
    }
}

/* An input overwritten: whole and pointwise is an update of a parameter or a statistic, a window or
 * a copy is state that moves on. */
static void visit_write(dj_scan_t *scan, const dj_node_t *node, const dj_output_t *out)
{
    const dj_storage_t *storage = &scan->graph->storages[out->storage];
    if (!storage->is_input || !dj_dtype_is_float(out->view.dtype))
        return;
    if (updates(node) && out->view.rank >= 1 && dj_view_dense_bytes(&out->view) == storage->bytes) {
        scan->features->n_updates++;
    } else if (out->view.rank >= 2) {
        scan->features->n_state_writes++;
        scan->trails[out->storage].marks |= MARK_CACHE;
    }
}

static void visit_outputs(dj_scan_t *scan, const dj_node_t *node, uint16_t origin, uint8_t marks)
{
    for (uint32_t i = 0; i < node->n_outs; i++) {
        const dj_output_t *out = &node->outs[i];
        dj_trail_t *trail = &scan->trails[out->storage];
        trail->origin |= origin;
        trail->marks |= marks;
        if (!scan->graph->storages[out->storage].is_input)
            trail->view = &out->view; /* the last: a result may begin as bytes without a type */
        visit_write(scan, node, out);
    }
}

static void add_flops(dj_scan_t *scan, const dj_node_t *node, uint16_t origin)
{
    const uint16_t kinds = DJ_ORIGIN_TOKEN | DJ_ORIGIN_IMAGE | DJ_ORIGIN_SOUND;
    dj_features_t *f = scan->features;
    double flops;
    uint64_t bytes;
    dj_node_cost(scan->graph, node, &flops, &bytes);
    f->flops += flops;
    f->token_flops += (origin & kinds) == DJ_ORIGIN_TOKEN ? flops : 0;
    f->image_flops += (origin & kinds) == DJ_ORIGIN_IMAGE ? flops : 0;
    f->sound_flops += (origin & kinds) == DJ_ORIGIN_SOUND ? flops : 0;
}

/* A denoiser's result is as large as what it was given, or twice as large where it learns a
 * variance too. Only sizes are compared: what the caller sees of the result is a window of its own.
 */
static void remember_inputs(dj_scan_t *scan)
{
    for (uint32_t i = 0; i < scan->graph->n_inputs; i++) {
        const dj_storage_t *storage = &scan->graph->storages[scan->graph->bindings[i]];
        const dj_trail_t *in = &scan->trails[scan->graph->bindings[i]];
        if (storage->input_class == DJ_CLASS_WEIGHT || in->view == NULL || in->like_weight ||
            in->view->rank < 3 || !dj_dtype_is_float(in->view->dtype) || storage->bytes == 0)
            continue;
        uint64_t count = storage->bytes / dj_dtype_bytes(in->view->dtype);
        remember(scan, &scan->input_counts, count);
        remember(scan, &scan->input_counts, 2 * count);
    }
}

static void visit_results(dj_scan_t *scan)
{
    const dj_graph_t *graph = scan->graph;
    for (uint32_t i = graph->n_inputs; i < graph->n_bindings; i++) {
        uint32_t storage = graph->bindings[i];
        const dj_trail_t *trail = &scan->trails[storage];
        if (trail->view == NULL || !dj_dtype_is_float(trail->view->dtype))
            continue;
        int64_t count = dj_view_count(trail->view);
        scan->features->n_scalar_outputs +=
            trail->view->rank <= 1 || count == trail->view->sizes[0];
        uint64_t elements = graph->storages[storage].bytes / dj_dtype_bytes(trail->view->dtype);
        scan->features->n_like_input +=
            dj_table_get(&scan->input_counts, dj_key_u64(elements)) != NULL;
    }
}

static void scan_graph(dj_scan_t *scan, uint16_t *origins)
{
    for (uint32_t i = 0; i < scan->graph->n_nodes; i++) {
        const dj_node_t *node = &scan->graph->nodes[i];
        uint8_t marks;
        uint16_t origin = gather_operands(scan, node, &marks);
        origin = visit(scan, node, origin, &marks);
        add_flops(scan, node, origin);
        visit_outputs(scan, node, origin, marks);
        if (origins != NULL)
            origins[i] = origin;
    }
    remember_inputs(scan);
    visit_results(scan);
}

dj_status_t dj_features_of(const dj_graph_t *graph, dj_features_t *features, uint16_t *origins)
{
    dj_features_t fresh = {.n_nodes = graph->n_nodes};
    dj_scan_t *scan = calloc(1, sizeof *scan);
    dj_trail_t *trails = calloc((size_t)graph->n_storages + 1, sizeof *trails);
    dj_status_t status = DJ_ERR_MEMORY;
    if (scan != NULL && trails != NULL) {
        *scan = (dj_scan_t){.graph = graph, .features = &fresh, .trails = trails};
        scan_graph(scan, origins);
        status = scan->status;
        dj_table_fini(&scan->weight_shapes);
        dj_table_fini(&scan->input_counts);
    }
    free(scan);
    free(trails);
    if (status != DJ_OK)
        return dj_fail(status, "no memory for the features of %u nodes", graph->n_nodes);
    dj_features_add(features, &fresh);
    return DJ_OK;
}

void dj_features_add(dj_features_t *into, const dj_features_t *from)
{
#define ADD(field) into->field += from->field
    ADD(n_nodes), ADD(n_products), ADD(n_norms), ADD(n_pools), ADD(n_scans), ADD(n_sorts);
    ADD(n_conv_1d), ADD(n_conv_2d), ADD(n_conv_3d), ADD(n_conv_turned);
    ADD(n_attention), ADD(n_attention_one), ADD(n_causal), ADD(n_cached);
    ADD(n_token_gathers), ADD(n_field_gathers), ADD(n_bags), ADD(n_tables), ADD(n_vocabulary);
    ADD(n_conv_1d_wide), ADD(n_reused_tables), ADD(n_offset_fields), ADD(n_gates);
    ADD(n_thin_stems), ADD(n_messages);
    ADD(n_image_stems), ADD(n_sound_stems), ADD(n_spectrogram_stems), ADD(n_patches);
    ADD(n_time_embeddings), ADD(n_like_input), ADD(n_fields_joined), ADD(n_sequence_products);
    ADD(n_scalar_outputs), ADD(n_state_writes);
    ADD(n_backward), ADD(n_weight_grads), ADD(n_losses), ADD(n_updates);
    ADD(flops), ADD(token_flops), ADD(image_flops), ADD(sound_flops);
#undef ADD
    if (from->tokens_per_row > into->tokens_per_row)
        into->tokens_per_row = from->tokens_per_row;
}
