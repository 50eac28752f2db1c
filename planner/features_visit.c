/* features_visit.c - what each family of ops says about a workload.
 *
 * Thresholds are of what exists, not of a model: sound has at least a few hundred samples or twenty
 * frequencies, a picture more than a few places a side, a vocabulary more than a few words. */
#include "planner/features_scan.h"

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

static void count_family(dj_scan_t *scan, dj_op_traits_t traits)
{
    dj_features_t *f = scan->features;
    f->n_norms += traits.family == DJ_FAMILY_NORM;
    f->n_pools += traits.family == DJ_FAMILY_POOL;
    f->n_scans += traits.family == DJ_FAMILY_SCAN;
    f->n_sorts += traits.family == DJ_FAMILY_SORT;
    f->n_losses += traits.family == DJ_FAMILY_LOSS;
    f->n_conv_turned += traits.family == DJ_FAMILY_RESAMPLE;
    f->n_backward += traits.backward;
}

uint16_t dj_scan_visit(dj_scan_t *scan, const dj_node_t *node, uint16_t origin, uint8_t *marks_p)
{
    dj_op_traits_t traits = dj_op_traits(node->call.op);
    uint8_t marks = *marks_p, kept = 0;
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
        scan->features->n_messages += passes_messages(scan, node);
        kept = marks & MARK_CACHE;
        break;
    case DJ_FAMILY_SCATTER:
        kept = marks & MARK_CACHE;
        break;
    default:
        break;
    }
    count_family(scan, traits);
    *marks_p = kept;
    return origin;
}
