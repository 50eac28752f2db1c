/* graph.h - contract 1: the graph (SRG), decoded, inferred and checked.
 *
 * Values are SSA. A storage is a chain of versions: version 0 is what an input holds before the
 * program runs (or nothing, for a storage the program makes), and every write makes the next one. So
 * (storage, version) is a value, an in-place op makes a new value of an old storage, and a view is
 * not a value at all but the window (offset, sizes, strides) through which a use looks at one. There
 * are no view nodes and no copies for views.
 *
 * Nodes are ops of the table in recorded order, which is a valid order by construction: a use can
 * only name a storage that already appeared. Whatever the bytes claimed, every output's shape is the
 * one the shape rules infer here from the inputs' sizes.
 *
 * View offsets and scalars are requests' data: the graph holds their slots in the scalar vector and a
 * table of offset slots with the storage and extent that bound them, which
 * dj_graph_check_offsets() tests for every request before anything runs.
 *
 * Programs are compared on a hit before they are believed: the cache keeps the structure bytes.
 * Semantic fields (phase, lifecycle bytes, FLOPs, bytes moved) are a view computed at first query
 * (srg.h), never stored in the structure.
 *
 * Ownership: dj_graph_destroy() frees the graph and everything it points to.
 * Threads: immutable once decoded; share freely. */
#ifndef DJ_PLANNER_GRAPH_H
#define DJ_PLANNER_GRAPH_H

#include "planner/program.h"

typedef struct dj_storage {
    uint64_t bytes;
    uint8_t is_input;      /* else made by `producer` */
    uint8_t input_class;   /* dj_operand_class_t */
    uint8_t is_output;     /* listed, or an input that is written */
    uint8_t is_spilled;    /* lives in the second slab (fit.h) */
    uint32_t binding;      /* index in the request's binding table; DJ_SLOT_NONE when in Stack */
    uint32_t producer;     /* node; DJ_SLOT_NONE for inputs */
    uint32_t first_use, last_use; /* node indices over reads and writes; first_use = producer */
    uint32_t n_versions;
} dj_storage_t;

/* view.offset of a decoded operand or output is 0, and a slot says what the request adds; rewrites place
 * windows at constant offsets (rewrite.h). What counts is the sum of the two. */
typedef struct dj_output {
    uint32_t storage, version; /* the version this write makes */
    uint32_t slot;             /* of the view's offset, DJ_SLOT_NONE when the request adds nothing */
    uint8_t target;            /* dj_target_kind_t */
    uint8_t arg;               /* with DJ_TARGET_ARGUMENT */
    dj_view_t view;            /* as stored: the inferred view, or the target's */
} dj_output_t;

typedef struct dj_node {
    dj_call_t call;
    uint32_t n_outs;   /* at least 1: an op with '!' has its first tensor argument as output 0 */
    uint32_t recorded; /* its number in the program, whatever rewrites did */
    dj_output_t *outs;
} dj_node_t;

/* A use whose offset travels in the scalar vector. */
typedef struct dj_offset_slot {
    uint32_t slot, storage;
    uint32_t item_bytes;
    uint64_t extent_bytes; /* from the view's first to past its last element */
} dj_offset_slot_t;

typedef struct dj_graph {
    dj_hash_t program_key, exact_key;
    uint32_t n_nodes, n_storages, n_scalars, n_offsets;
    dj_node_t *nodes;
    dj_storage_t *storages;
    dj_offset_slot_t *offsets;
    uint8_t *scalar_dtypes; /* of each slot: DJ_BOOL, DJ_I64, DJ_F64; offsets are DJ_I64 */
    /* Bindings: the input storages in order of appearance, then the listed outputs that are not
     * inputs, ascending. A binding is where a request says which ref stands behind a storage. */
    uint32_t n_inputs, n_bindings;
    uint32_t n_folded;  /* values that were folded (fold.h): bound behind the request's bindings */
    uint32_t *bindings; /* storage of each of the n_bindings + n_folded */
    bool fitted;        /* changed for one rank's Stack (fit.h): its plan is nobody else's */
    void *arena;        /* all of the above lives here */
} dj_graph_t;

/* Decodes, infers and checks. The three pieces are foreign bytes: any byte string gives a graph or a
 * status, in time and memory linear in its length. n_scalars is the length of the scalar vector that
 * came along; it must match what the structure consumes.
 * DJ_ERR_PROTOCOL, DJ_ERR_VERSION, DJ_ERR_UNSUPPORTED (op not in the table), DJ_ERR_LIMIT,
 * DJ_ERR_SHAPE, DJ_ERR_DTYPE, DJ_ERR_MEMORY; the sentence names node, op and rule. */
dj_status_t dj_graph_decode(const void *structure, size_t structure_size, const void *sizes,
                            size_t sizes_size, uint32_t n_scalars, dj_graph_t **graph_p);
void dj_graph_destroy(dj_graph_t *graph);

/* Derives versions, producers and first and last uses from the nodes as they are: after a rewrite. */
void dj_graph_relink(dj_graph_t *graph);
/* Is the graph one that a program could have: every window inside its storage, every value made before it
 * is read, no weight written? For graphs that somebody changed. DJ_ERR_CORRUPT names the node. */
dj_status_t dj_graph_check(const dj_graph_t *graph);

/* Every offset slot of a request against its storage. DJ_ERR_SHAPE names node and numbers. */
dj_status_t dj_graph_check_offsets(const dj_graph_t *graph, const uint64_t *scalars);

#endif
