/* decode.h - inside the planner: the state of one run of dj_graph_decode().
 *
 * Split over two files: graph_read.c turns bytes into arguments, graph.c turns arguments into
 * nodes, storages and bindings.
 *
 * Every piece of memory a program can ask for is paid with at least one of its bytes, and the
 * counts are limited (program.h and below), so a decode is linear in its input. */
#ifndef DJ_PLANNER_DECODE_H
#define DJ_PLANNER_DECODE_H

#include "planner/arena.h"
#include "planner/graph.h"
#include "planner/shape.h"

/* Bytes of the structure grammar (program.h). */
enum { DJ_ITEM_END = 0, DJ_ITEM_INPUT = 1, DJ_ITEM_OP = 2 };
enum {
    DJ_TENSOR_NONE = 0,
    DJ_TENSOR_SCALAR = 1,
    DJ_TENSOR_VIEW = 2,
    DJ_TENSOR_STRIDED = 4,
    DJ_TENSOR_OFFSET = 8,
};

/* An array in an arena that doubles. */
typedef struct dj_vector {
    void *data;
    uint32_t count, capacity;
} dj_vector_t;

typedef struct dj_decoder {
    dj_reader_t structure, sizes;
    dj_arena_t *arena;
    dj_vector_t nodes, storages, offsets;
    uint8_t *scalar_dtypes;
    uint32_t n_scalars, next_scalar, n_operands, n_inputs;
} dj_decoder_t;

void *dj_decoder_alloc(dj_decoder_t *decoder, size_t count, size_t size); /* NULL: DJ_ERR_MEMORY */
/* Room for one more element, zeroed; NULL when memory is short. */
void *dj_vector_add(dj_decoder_t *decoder, dj_vector_t *vector, size_t size);

/* The next tensor into a zeroed operand; versions are filled in. */
dj_status_t dj_decode_operand(dj_decoder_t *decoder, dj_operand_t *operand);
/* The next argument, as its letter says. */
dj_status_t dj_decode_argument(dj_decoder_t *decoder, char letter, dj_arg_t *arg);

static inline dj_storage_t *dj_decoder_storage(const dj_decoder_t *decoder, uint32_t storage)
{
    return (dj_storage_t *)decoder->storages.data + storage;
}

#endif
