/* features_scan.h - inside the planner: the state of one pass of dj_features_of().
 *
 * Split over two files: features.c walks the graph, features_visit.c knows the families of ops. */
#ifndef DJ_PLANNER_FEATURES_SCAN_H
#define DJ_PLANNER_FEATURES_SCAN_H

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

static inline const dj_operand_t *operand_at(const dj_node_t *node, uint32_t arg)
{
    return arg < node->call.n_args && dj_call_has(&node->call, arg)
               ? &node->call.args[arg].operands[0]
               : NULL;
}

static inline const dj_storage_t *storage_of(const dj_scan_t *scan, const dj_operand_t *operand)
{
    return operand != NULL && operand->storage < scan->graph->n_storages
               ? &scan->graph->storages[operand->storage]
               : NULL;
}

static inline bool is_input(const dj_scan_t *scan, const dj_operand_t *operand)
{
    const dj_storage_t *storage = storage_of(scan, operand);
    return storage != NULL && storage->is_input;
}

static inline bool is_weight(const dj_scan_t *scan, const dj_operand_t *operand)
{
    return is_input(scan, operand) && storage_of(scan, operand)->input_class == DJ_CLASS_WEIGHT;
}

static inline dj_trail_t *trail_of(const dj_scan_t *scan, const dj_operand_t *operand)
{
    static dj_trail_t nothing;
    return storage_of(scan, operand) != NULL ? &scan->trails[operand->storage] : &nothing;
}

static inline bool reads_origin(const dj_scan_t *scan, const dj_operand_t *operand, uint16_t origin)
{
    return operand != NULL && (trail_of(scan, operand)->origin & origin) != 0;
}

static inline int64_t size_back(const dj_view_t *view, uint32_t back)
{
    return view->rank >= back ? view->sizes[view->rank - back] : 1;
}

/* Sets of numbers: two that meet by chance cost a detector a little certainty, no more. */
static inline void remember(dj_scan_t *scan, dj_table_t *set, uint64_t key)
{
    if (scan->status == DJ_OK)
        scan->status = dj_table_put(set, dj_key_u64(key), scan);
}

/* The same for a matrix and its transpose. */
static inline uint64_t key_of_shape(const dj_view_t *view)
{
    uint64_t a = (uint64_t)view->sizes[0], b = (uint64_t)view->sizes[1];
    return a < b ? a * 0x9e3779b97f4a7c15ull + b : b * 0x9e3779b97f4a7c15ull + a;
}

static inline void mark_weight(dj_scan_t *scan, const dj_operand_t *operand)
{
    dj_trail_t *trail = trail_of(scan, operand);
    if (!is_input(scan, operand) || trail->like_weight)
        return;
    trail->like_weight = true;
    if (operand->view.rank == 2)
        remember(scan, &scan->weight_shapes, key_of_shape(&operand->view));
}

static inline int64_t integer_at(const dj_node_t *node, uint32_t arg, int64_t otherwise)
{
    return arg < node->call.n_args && node->call.args[arg].kind == DJ_ARG_INTEGER
               ? node->call.args[arg].integer
               : otherwise;
}

static inline bool flag_at(const dj_node_t *node, uint32_t arg)
{
    return integer_at(node, arg, 0) != 0;
}

/* Counts a node; takes where its operands came from and what they were (`*marks_p`), gives the same
 * of its results. */
uint16_t dj_scan_visit(dj_scan_t *scan, const dj_node_t *node, uint16_t origin, uint8_t *marks_p);

#endif
