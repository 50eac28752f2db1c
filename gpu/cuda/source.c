/* source.c - the text of a fused pointwise kernel, from the expressions of planner/ops.def.
 *
 * One function computes N elements that follow one another in the output's order: it loads what comes from memory,
 * then goes step by step, each over its N lanes, with a step's value as it is stored (rounded to its dtype) left
 * in registers for later steps, as if they had read it back. The kernel calls it with N lanes where all addresses allow
 * whole accesses, which only the request decides, and with one lane else and for the rest.
 *
 * All loads come before all stores. That changes nothing: what an earlier step of the part writes and a later one
 * reads stays in registers, and where the planner gave one place to two values, both lie element by element in it.
 *
 * The name is a hash of the text, so that texts of one program never meet. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/part.h"
#include "runtime/base/hash.h"

#define NAME_BYTES 32

typedef struct text {
    FILE *out;
    const dj_part_t *part;
    char name[NAME_BYTES];
} text_t;

static const char *const stored_types[DJ_DTYPE_COUNT] = {
    [DJ_BOOL] = "dj_bool", [DJ_U8] = "uint8_t", [DJ_I8] = "int8_t",  [DJ_I16] = "int16_t",  [DJ_I32] = "int32_t",
    [DJ_I64] = "long",     [DJ_F16] = "dj_f16", [DJ_BF16] = "dj_bf16", [DJ_F32] = "float", [DJ_F64] = "double",
};
static const char *const class_names[DJ_CLASSES] = {"f32", "f64", "i64", "b8"};
static const char *const class_types[DJ_CLASSES] = {"float", "double", "dj_wrap", "unsigned char"};

static const char *stored(const dj_part_window_t *window)
{
    return stored_types[window->view->dtype];
}

static const char *index_type(const text_t *t)
{
    return t->part->narrow ? "uint32_t" : "int64_t";
}

/* ---- the parameters ---- */

static void write_params(const text_t *t)
{
    const dj_part_t *part = t->part;
    fprintf(t->out, "struct %s_t {\n    dj_cuda_head_t head;\n    int64_t count, packs;\n", t->name);
    if (part->n_inputs)
        fprintf(t->out, "    dj_cuda_ref_t inputs[%u];\n", part->n_inputs);
    fprintf(t->out, "    dj_cuda_ref_t outs[%u];\n", part->n_steps);
    if (part->n_scalars)
        fprintf(t->out, "    dj_cuda_scalar_t scalars[%u];\n", part->n_scalars);
    if (part->n_rows)
        fprintf(t->out, "    int64_t sizes[%u], strides[%u][%u];\n", part->rank, part->n_rows, part->rank);
    fprintf(t->out, "};\nstatic_assert(sizeof(%s_t) == %u, \"as the host fills it\");\n\n", t->name,
            dj_part_layout(part).bytes);
}

/* ---- what each thread finds out once: addresses, scalars ---- */

static bool is_power(const dj_part_step_t *step)
{
    return step->node->call.op == DJ_OP_POW_SCALAR && step->class <= DJ_CLASS_F64 &&
           step->scalars[0] != DJ_PART_NONE;
}

/* Classes in which scalar `index` is wanted, a bit each; bit DJ_CLASSES: as an exponent. */
static uint32_t scalar_uses(const dj_part_t *part, uint32_t index)
{
    uint32_t uses = 0;
    for (uint32_t i = 0; i < part->n_steps; i++) {
        const dj_part_step_t *step = &part->steps[i];
        for (uint32_t k = 0; k < step->n_values; k++)
            if (step->values[k].from == DJ_FROM_SCALAR && step->values[k].index == index)
                uses |= 1u << step->class;
        for (uint32_t k = 0; k < step->n_scalars; k++)
            if (step->scalars[k] == index)
                uses |= 1u << step->class | (is_power(step) ? 1u << DJ_CLASSES : 0);
    }
    return uses;
}

static void write_here(const text_t *t)
{
    const dj_part_t *part = t->part;
    fprintf(t->out, "struct %s_here {\n", t->name);
    for (uint32_t i = 0; i < part->n_inputs; i++)
        if (part->inputs[i].walk == DJ_WALK_ONE)
            fprintf(t->out, "    %s one%u;\n", stored(&part->inputs[i]), i);
        else
            fprintf(t->out, "    const char *in%u;\n", i);
    for (uint32_t i = 0; i < part->n_steps; i++)
        fprintf(t->out, "    char *out%u;\n", i);
    for (uint32_t i = 0; i < part->n_scalars; i++) {
        uint32_t uses = scalar_uses(part, i);
        for (uint32_t class = 0; class < DJ_CLASSES; class++)
            if (uses & 1u << class)
                fprintf(t->out, "    %s s%u_%s;\n", class_types[class], i, class_names[class]);
        if (uses & 1u << DJ_CLASSES)
            fprintf(t->out, "    int power%u;\n", i);
    }
    fputs("};\n\n", t->out);
}

static void fill_here(const text_t *t)
{
    const dj_part_t *part = t->part;
    fprintf(t->out, "    %s_here at;\n", t->name);
    for (uint32_t i = 0; i < part->n_inputs; i++)
        if (part->inputs[i].walk == DJ_WALK_ONE)
            fprintf(t->out, "    at.one%u = *reinterpret_cast<const %s *>(dj_at(p.head, p.inputs[%u]));\n", i,
                    stored(&part->inputs[i]), i);
        else
            fprintf(t->out, "    at.in%u = dj_at(p.head, p.inputs[%u]);\n", i, i);
    for (uint32_t i = 0; i < part->n_steps; i++)
        fprintf(t->out, "    at.out%u = dj_at(p.head, p.outs[%u]);\n", i, i);
    for (uint32_t i = 0; i < part->n_scalars; i++) {
        uint32_t uses = scalar_uses(part, i);
        for (uint32_t class = 0; class < DJ_CLASSES; class++)
            if (uses & 1u << class)
                fprintf(t->out, "    at.s%u_%s = dj_scalar_%s(p.head, p.scalars[%u]);\n", i, class_names[class],
                        class_names[class], i);
        if (uses & 1u << DJ_CLASSES)
            fprintf(t->out, "    at.power%u = dj_power_kind(dj_scalar_f64(p.head, p.scalars[%u]));\n", i, i);
    }
}

/* ---- loads and stores ---- */

/* Coordinates c0.. of element i and the bytes row0.. to it. */
static void write_coordinates(const text_t *t)
{
    const dj_part_t *part = t->part;
    const char *index = index_type(t);
    if (part->n_rows == 0)
        return;
    for (uint32_t d = part->rank; d-- > 0;) {
        char rest[16] = "i";
        if (d + 1 < part->rank)
            snprintf(rest, sizeof(rest), "rest%u", d + 1);
        if (d == 0)
            fprintf(t->out, "    const %s c0 = %s;\n", index, rest);
        else
            fprintf(t->out, "    const %s rest%u = %s / (%s)p.sizes[%u], c%u = %s - rest%u * (%s)p.sizes[%u];\n",
                    index, d, rest, index, d, d, rest, d, index, d);
    }
    for (uint32_t row = 0; row < part->n_rows; row++) {
        fprintf(t->out, "    const int64_t row%u =", row);
        for (uint32_t d = 0; d < part->rank; d++)
            fprintf(t->out, "%s dj_steps(c%u, p.strides[%u][%u])", d ? " +" : "", d, row, d);
        fputs(";\n", t->out);
    }
}

/* Where window `at.in3` or the like has its element i. */
static void write_place(const text_t *t, const dj_part_window_t *window, const char *base, uint32_t number)
{
    fprintf(t->out, "at.%s%u + ", base, number);
    if (window->walk == DJ_WALK_DENSE)
        fprintf(t->out, "dj_steps(i, %u)", dj_dtype_bytes(window->view->dtype));
    else
        fprintf(t->out, "row%u", window->row);
}

static void write_loads(const text_t *t)
{
    for (uint32_t i = 0; i < t->part->n_inputs; i++) {
        const dj_part_window_t *window = &t->part->inputs[i];
        const char *type = stored(window);
        fprintf(t->out, "    const dj_pack<%s, N> x%u = ", type, i);
        switch (window->walk) {
        case DJ_WALK_ONE:
            fprintf(t->out, "dj_load_one<%s, N>(at.one%u);\n", type, i);
            continue;
        case DJ_WALK_REPEAT:
            fprintf(t->out, "dj_load_one<%s, N>(*reinterpret_cast<const %s *>(", type, type);
            write_place(t, window, "in", i);
            fputs("));\n", t->out);
            continue;
        case DJ_WALK_EACH:
            fprintf(t->out, "dj_load_each<%s, N>(", type);
            write_place(t, window, "in", i);
            fprintf(t->out, ", p.strides[%u][%u]);\n", window->row, t->part->rank - 1);
            continue;
        default:
            fprintf(t->out, "dj_load_row<%s, N>(", type);
            write_place(t, window, "in", i);
            fputs(");\n", t->out);
        }
    }
}

static void write_store(const text_t *t, uint32_t i)
{
    const dj_part_window_t *window = &t->part->steps[i].out;
    bool whole = window->walk == DJ_WALK_DENSE || window->walk == DJ_WALK_ROW;
    fprintf(t->out, "    %s(", whole ? "dj_store_row" : "dj_store_each");
    write_place(t, window, "out", i);
    if (!whole)
        fprintf(t->out, ", p.strides[%u][%u]", window->row, t->part->rank - 1);
    fprintf(t->out, ", y%u);\n", i);
}

/* ---- steps ---- */

/* A scalar in the step's class. Of a narrow integer dtype it is what that dtype holds (dj_integer_as()). */
static void write_scalar(const text_t *t, const dj_part_step_t *step, uint32_t index)
{
    uint8_t own = dj_op_compute_dtype(&step->node->call);
    if (step->class == DJ_CLASS_I64 && own != DJ_I64)
        fprintf(t->out, "(%s)(long)", stored_types[own]);
    fprintf(t->out, "at.s%u_%s;\n", index, class_names[step->class]);
}

static void write_value(const text_t *t, const dj_part_step_t *step, uint32_t k)
{
    const char *class = class_names[step->class];
    dj_part_value_t value = step->values[k];
    fprintf(t->out, "        const %s %c = ", class_types[step->class], "abc"[k]);
    if (value.from == DJ_FROM_SCALAR)
        write_scalar(t, step, value.index);
    else
        fprintf(t->out, "dj_as_%s(dj_plain(%c%u.at[l]));\n", class, value.from == DJ_FROM_STEP ? 'y' : 'x',
                value.index);
}

/* Is the result of the op's own dtype first, and of the output's then? So uint8 wraps before it becomes float32. */
static bool rounds(const dj_part_step_t *step, uint8_t own)
{
    return step->result != DJ_CLASS_B8 && own != step->out.view->dtype && own != dj_class_dtype(step->class);
}

static void write_step(const text_t *t, uint32_t i)
{
    const dj_part_step_t *step = &t->part->steps[i];
    const char *class = class_names[step->class], *type = class_types[step->class];
    uint8_t own = dj_op_compute_dtype(&step->node->call);
    fprintf(t->out, "    dj_pack<%s, N> y%u;\n#define DJ_PW_CLASS %s\n", stored(&step->out), i, class);
    fputs("#pragma unroll\n    for (int l = 0; l < N; ++l) {\n", t->out);
    for (uint32_t k = 0; k < step->n_values; k++)
        write_value(t, step, k);
    for (uint32_t k = 0; k < step->n_scalars; k++) {
        fprintf(t->out, "        const %s s%u = ", type, k);
        if (step->scalars[k] == DJ_PART_NONE)
            fprintf(t->out, "DJ_ABSENT_%s_%u;\n", class, k);
        else
            write_scalar(t, step, step->scalars[k]);
    }
    if (rounds(step, own))
        fprintf(t->out, "        %s own;\n        dj_keep(own, ", stored_types[own]);
    else
        fprintf(t->out, "        dj_keep(y%u.at[l], ", i);
    if (is_power(step))
        fprintf(t->out, "dj_power_%s(a, s0, at.power%u)", class, step->scalars[0]);
    else if (step->result == DJ_CLASS_B8)
        fprintf(t->out, "(unsigned char)((%s) != 0)", dj_op_info(step->node->call.op)->expression);
    else
        fprintf(t->out, "(%s)(%s)", type, dj_op_info(step->node->call.op)->expression);
    fputs(");\n", t->out);
    if (rounds(step, own))
        fprintf(t->out, "        dj_keep(y%u.at[l], dj_as_%s(dj_plain(own)));\n", i, class);
    fputs("    }\n#undef DJ_PW_CLASS\n", t->out);
    write_store(t, i);
}

static void write_run(const text_t *t)
{
    fprintf(t->out, "template <int N> DJ_DEVICE void %s_run(const %s_t &p, const %s_here &at, %s i)\n{\n", t->name,
            t->name, t->name, index_type(t));
    write_coordinates(t);
    write_loads(t);
    for (uint32_t i = 0; i < t->part->n_steps; i++)
        write_step(t, i);
    fputs("}\n\n", t->out);
}

/* ---- the kernel ---- */

static void write_aligned(const text_t *t, const dj_part_window_t *window, const char *base, uint32_t i)
{
    uint32_t bytes = dj_dtype_bytes(window->view->dtype) * t->part->lanes;
    if (window->walk == DJ_WALK_DENSE || window->walk == DJ_WALK_ROW)
        fprintf(t->out, " &&\n        dj_is_aligned(at.%s%u, %u)", base, i, bytes < 16 ? bytes : 16);
}

static void write_kernel(const text_t *t)
{
    const dj_part_t *part = t->part;
    const char *index = index_type(t);
    fprintf(t->out, "DJ_KERNEL(%s, %s_t)\n{\n", t->name, t->name);
    fill_here(t);
    fprintf(t->out, "    const %s stride = (%s)dj_grid_stride(), count = (%s)p.count, packs = (%s)p.packs;\n",
            index, index, index, index);
    fprintf(t->out, "    %s first = (%s)dj_grid_first();\n    if (packs > 0", index, index);
    for (uint32_t i = 0; i < part->n_inputs; i++)
        write_aligned(t, &part->inputs[i], "in", i);
    for (uint32_t i = 0; i < part->n_steps; i++)
        write_aligned(t, &part->steps[i].out, "out", i);
    fprintf(t->out, ") {\n        for (%s i = first; i < packs; i += stride)\n", index);
    fprintf(t->out, "            %s_run<%u>(p, at, i * %uu);\n", t->name, part->lanes, part->lanes);
    fprintf(t->out, "        first += packs * %uu;\n    }\n", part->lanes);
    fprintf(t->out, "    for (%s i = first; i < count; i += stride)\n        %s_run<1>(p, at, i);\n}\n", index,
            t->name);
}

static void write_all(const text_t *t)
{
    for (uint32_t i = 0; i < t->part->n_steps; i++)
        fprintf(t->out, "%s%s", i ? ", " : "/* ", dj_op_info(t->part->steps[i].node->call.op)->name);
    fputs(" */\n#include \"gpu/cuda/kernels/fused.cuh\"\n\n", t->out);
    write_params(t);
    write_here(t);
    write_run(t);
    write_kernel(t);
}

static dj_status_t write_text(text_t *t, char **text_p, size_t *bytes_p)
{
    *text_p = NULL;
    t->out = open_memstream(text_p, bytes_p);
    if (!t->out)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's text");
    write_all(t);
    bool failed = ferror(t->out) != 0;
    if (fclose(t->out) == 0 && !failed)
        return DJ_OK;
    free(*text_p);
    return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's text");
}

dj_status_t dj_part_source(const dj_part_t *part, char **source_p, const char **name_p)
{
    text_t t = {.part = part, .name = "dj_fused"};
    char *text;
    size_t bytes;
    dj_status_t status = write_text(&t, &text, &bytes);
    if (status != DJ_OK)
        return status;
    dj_hash_t hash = dj_hash_of(text, bytes);
    free(text);
    snprintf(t.name, sizeof(t.name), "dj_fused_%016llx", (unsigned long long)hash.word[0]);
    status = write_text(&t, &text, &bytes);
    if (status != DJ_OK)
        return status;
    size_t name_bytes = strlen(t.name) + 1;
    char *source = realloc(text, bytes + 1 + name_bytes);
    if (!source) {
        free(text);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's text");
    }
    memcpy(source + bytes + 1, t.name, name_bytes);
    *source_p = source;
    *name_p = source + bytes + 1;
    return DJ_OK;
}
