/* program.h - a recorded graph as bytes: what a client writes and a rank reads.
 *
 * A program is three streams:
 *   structure  ops, storages, dtypes, ranks, structural attributes, which operands are strided
 *   sizes      every integer that shapes something: sizes, strides, storage bytes (varints)
 *   scalars    everything that shapes nothing: scalar attributes and view offsets (8 bytes each)
 * The program key is the hash of the structure, so one structure serves every batch and sequence
 * length; the exact key hashes the program key with the sizes. Scalars travel with each request and
 * are no part of any key: a cache position that moves at every step misses no plan. Weights are
 * bindings of a request and no part of a key either.
 *
 * Structure grammar (bytes; `v` is a varint):
 *   program := "DJP" version:u8, item*, 0x00, n_outputs:v, storage:v ...
 *   item    := 0x01 class:u8                       an input storage; its bytes in `sizes`
 *            | 0x02 op:v arg* target*              an op; args as its signature says
 *   tensor  := 0x00 (none) | 0x01 dtype (a scalar standing in; value in `scalars`)
 *            | flags:u8 dtype:u8 rank:u8 storage:v flags: 0x02 always, 0x04 strided, 0x08 offset
 *              `sizes`: rank sizes, then rank strides if strided; `scalars`: offset if flagged
 *   list    := count:v element...
 *   integer := n: in `sizes`;  d, b, y: signed varint in the structure;  N, D: count:v (0 = none,
 *              else 1 + length) and the elements in `sizes` or the structure
 *   scalar  := dtype:u8 (255 none), value in `scalars`
 *   target  := one per new output: 0x00 (a new storage) | 0x01 arg:v (into the tensor of that
 *              argument, same view) | 0x02 tensor (into another view); only output 0 may have
 *              another target than a new storage (dj_op_check_target() says which)
 *   '-'     := nothing
 * Storages are numbered in order of appearance: each input and each new output takes the next.
 * A new output's storage holds exactly the extent of its inferred view.
 *
 * Outputs: the storages that outlive the request, in ascending order. An input that the program
 * writes is an output by nature and not listed.
 *
 * The client holds a dj_program_t a thread and appends; the rank decodes with dj_graph_decode()
 * (graph.h), infers every shape itself, and believes no size that the client claims. */
#ifndef DJ_PLANNER_PROGRAM_H
#define DJ_PLANNER_PROGRAM_H

#include "planner/ops.h"
#include "runtime/base/bytes.h"

#define DJ_PROGRAM_VERSION 1

/* Limits on what a decoder accepts. */
enum {
    DJ_PROGRAM_BYTES_MAX = 16 << 20,
    DJ_PROGRAM_NODES_MAX = 1 << 17,
    DJ_PROGRAM_STORAGES_MAX = 1 << 18,
    DJ_PROGRAM_SCALARS_MAX = 1 << 19,
    DJ_PROGRAM_OPERANDS_MAX = 1 << 19,
};

/* What stands behind an input storage. Part of the structure: a program recorded for a sealed weight
 * does not write it, and packed forms may be made of it. */
typedef enum dj_operand_class {
    DJ_CLASS_WEIGHT = 0,    /* Text: sealed, shared */
    DJ_CLASS_STATE = 1,     /* Data: a ref of the session */
    DJ_CLASS_IMMEDIATE = 2, /* ingress: bytes that came with the request */
} dj_operand_class_t;

typedef struct dj_program {
    dj_bytes_t structure, sizes, scalars;
    uint32_t n_storages, n_nodes, n_inputs, n_operands;
} dj_program_t;

/* All-zero plus dj_program_reset() is a fresh program; fini frees. */
void dj_program_reset(dj_program_t *program);
void dj_program_fini(dj_program_t *program);

/* Declares an input storage of `bytes`; returns its number. */
uint32_t dj_program_input(dj_program_t *program, dj_operand_class_t operand_class, uint64_t bytes);

typedef enum dj_target_kind {
    DJ_TARGET_NEW,
    DJ_TARGET_ARGUMENT, /* into the tensor of argument `arg`, with its view */
    DJ_TARGET_VIEW,     /* into `operand` */
} dj_target_kind_t;

typedef struct dj_target {
    uint8_t kind;
    uint8_t arg;
    const dj_operand_t *operand;
} dj_target_t;

/* Appends one op. The call must have passed dj_op_infer(). `targets` may be NULL: all new.
 * out_storages (room for DJ_OUTS_MAX) receives the storage number of each new or targeted output; for
 * an op with '!', that of its first tensor.
 * DJ_ERR_LIMIT, DJ_ERR_MEMORY. */
dj_status_t dj_program_add(dj_program_t *program, const dj_call_t *call, const dj_target_t *targets,
                           uint32_t *out_storages);

/* Closes the structure with its outputs and computes both keys (NULL: the caller knows them or will).
 * Nothing may be added after. */
dj_status_t dj_program_finish(dj_program_t *program, const uint32_t *outputs, uint32_t n_outputs,
                              dj_hash_t *program_key_p, dj_hash_t *exact_key_p);

dj_hash_t dj_program_key(const void *structure, size_t size);
dj_hash_t dj_program_exact_key(dj_hash_t program_key, const void *sizes, size_t size);

#endif
