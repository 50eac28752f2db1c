/* write_kernels.c - prints the texts of fused kernels as one CUDA file, for nvcc to prove that they are CUDA: every
 * pointwise op in every dtype class and in the two short floats, operands in memory walked in every way. */
#include <stdio.h>
#include <stdlib.h>

#include "gpu/cuda/part.h"
#include "runtime/base/hash.h"
#include "tests/gpu/cuda/pointwise_nodes.h"

enum { STEPS = 20 };

static const uint8_t dtypes[] = {DJ_F32, DJ_F64, DJ_I64, DJ_BOOL, DJ_F16, DJ_BF16, DJ_I32, DJ_U8};
static made_node_t made[STEPS];
static uint32_t n_made, n_kernels, n_steps;

static void print_kernels(void)
{
    static dj_part_t part;
    const dj_node_t *nodes[STEPS];
    for (uint32_t i = 0; i < n_made; i++)
        nodes[i] = &made[i].node;
    for (uint32_t at = 0; at < n_made; at += part.n_steps) {
        char *source;
        const char *name;
        if (dj_part_make(&part, &nodes[at], n_made - at) != DJ_OK || dj_part_source(&part, &source, &name) != DJ_OK) {
            fprintf(stderr, "%s\n", dj_error_text());
            exit(1);
        }
        puts(source);
        free(source);
        n_kernels++;
        n_steps += part.n_steps;
    }
    n_made = 0;
}

/* The operand's view by number: dense, a row, a column, one element, transposed. */
static dj_operand_t operand(uint32_t way, uint8_t dtype)
{
    static const int64_t whole[] = {6, 16}, row[] = {16}, column[] = {6, 1}, one[] = {1}, turned[] = {16, 6};
    switch (way % 5) {
    case 1:
        return made_tensor(100 + way, dtype, 1, row);
    case 2:
        return made_tensor(100 + way, dtype, 2, column);
    case 3:
        return made_tensor(100 + way, dtype, 1, one);
    case 4: {
        dj_operand_t o = made_tensor(100 + way, dtype, 2, turned);
        o.view.sizes[0] = 6, o.view.sizes[1] = 16;
        o.view.strides[0] = 1, o.view.strides[1] = 6;
        return o;
    }
    default:
        return made_tensor(100 + way, dtype, 2, whole);
    }
}

static void add_op(uint16_t op, uint8_t dtype, uint32_t way)
{
    bool masks = op == DJ_OP_MASKED_FILL || op == DJ_OP_MASKED_FILL_SCALAR;
    dj_operand_t operands[3] = {operand(0, dtype), operand(way % 3, masks ? DJ_BOOL : dtype),
                                operand(op == DJ_OP_MASKED_FILL ? 0 : way, dtype)};
    if (op == DJ_OP_WHERE)
        operands[0] = operand(0, DJ_BOOL);
    if (op == DJ_OP_MASKED_FILL)
        operands[2].view.rank = 0;
    uint8_t scalar = dj_dtype_is_float(dtype) ? DJ_F64 : DJ_I64;
    if (made_node(&made[n_made], op, operands, scalar, 0, 1 + n_made) != DJ_OK ||
        dj_part_check(&made[n_made].node) != DJ_OK)
        return; /* the op does not take this dtype */
    if (++n_made == STEPS)
        print_kernels();
}

int main(void)
{
    if (!dj_hash_setup())
        return 1;
    for (uint32_t d = 0; d < sizeof(dtypes); d++) {
        for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
            if (dj_op_info(op)->pointwise)
                add_op(op, dtypes[d], op + d);
        print_kernels();
    }
    fprintf(stderr, "%u kernels of %u steps\n", n_kernels, n_steps);
    return 0;
}
