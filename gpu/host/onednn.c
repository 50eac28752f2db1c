/* onednn.c - the only file that includes oneDNN's headers (C API of 2.x; in 3.x
 * dnnl_matmul_desc_init and dnnl_primitive_desc_create become one call, and memory descriptors
 * become opaque).
 *
 * A run must not allocate. dnnl_primitive_execute() builds a map of its arguments with operator new
 * at every call, so it runs inside an arena (new_arena.h) over the first bytes of the workspace;
 * the scratchpad follows. And of the implementations only brgemm keeps to that scratchpad; gemm
 * calls malloc for its packing buffers and generates code at its first run, so it counts as
 * unsupported. */
#include "gpu/host/onednn.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/host/new_arena.h"

#define ALIGN_BYTES 256u
#define ARENA_BYTES 4096u

struct dj_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

/* Memory objects in the order of execution arguments. */
enum { ARG_A, ARG_B, ARG_C, ARG_SCRATCHPAD, ARG_BIAS, N_ARGS };

struct dj_onednn_product {
    dj_onednn_t *dnn;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t plain_b, chosen_b;
    dnnl_exec_arg_t args[N_ARGS];
    int n_args;
    bool packed;
    size_t scratchpad_bytes;
};

/* Strides that oneDNN does not take are invalid arguments to it. */
static dj_status_t convert(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return DJ_OK;
    dj_status_t kind = status == dnnl_out_of_memory ? DJ_ERR_MEMORY
                       : status == dnnl_unimplemented || status == dnnl_invalid_arguments
                           ? DJ_ERR_UNSUPPORTED
                           : DJ_ERR_INTERNAL;
    return dj_fail(kind, "oneDNN: %s failed with status %d", what, (int)status);
}

const char *dj_onednn_version(void)
{
    static char text[48];
    const dnnl_version_t *version = dnnl_version();
    if (!text[0])
        snprintf(text, sizeof(text), "oneDNN %d.%d.%d", version->major, version->minor,
                 version->patch);
    return text;
}

dj_status_t dj_onednn_open(dj_onednn_t **dnn_p)
{
    dj_onednn_t *dnn = calloc(1, sizeof(*dnn));
    if (!dnn)
        return dj_fail(DJ_ERR_MEMORY, "oneDNN: out of memory");
    dj_status_t status = convert(dnnl_engine_create(&dnn->engine, dnnl_cpu, 0), "engine_create");
    if (status == DJ_OK)
        status = convert(dnnl_stream_create(&dnn->stream, dnn->engine, dnnl_stream_default_flags),
                         "stream_create");
    if (status != DJ_OK) {
        dj_onednn_close(dnn);
        return status;
    }
    *dnn_p = dnn;
    return DJ_OK;
}

void dj_onednn_close(dj_onednn_t *dnn)
{
    if (!dnn)
        return;
    if (dnn->stream)
        dnnl_stream_destroy(dnn->stream);
    if (dnn->engine)
        dnnl_engine_destroy(dnn->engine);
    free(dnn);
}

/* Descriptors of A, B, bias and C for this shape. A batch stride of 0 is a batch of 1 to oneDNN,
 * which it then broadcasts. */
static dnnl_status_t describe(const dj_onednn_shape_t *shape, dnnl_memory_desc_t *a,
                              dnnl_memory_desc_t *b, dnnl_memory_desc_t *bias,
                              dnnl_memory_desc_t *c)
{
    int rank = shape->batch > 1 ? 3 : 2, skip = 3 - rank;
    dnnl_dims_t a_dims = {shape->a_batch ? shape->batch : 1, shape->m, shape->k};
    dnnl_dims_t b_dims = {shape->b_batch ? shape->batch : 1, shape->k, shape->n};
    dnnl_dims_t c_dims = {shape->batch, shape->m, shape->n}, bias_dims = {1, 1, shape->n};
    dnnl_dims_t a_strides = {shape->a_batch ? shape->a_batch : shape->m * shape->k, shape->a_row,
                             shape->a_column};
    dnnl_dims_t b_strides = {shape->b_batch ? shape->b_batch : shape->k * shape->n, shape->b_row,
                             shape->b_column};
    dnnl_dims_t c_strides = {shape->c_batch, shape->c_row, 1};
    dnnl_dims_t bias_strides = {shape->n, shape->n, 1};
    dnnl_status_t status =
        dnnl_memory_desc_init_by_strides(a, rank, a_dims + skip, dnnl_f32, a_strides + skip);
    if (status == dnnl_success)
        status =
            dnnl_memory_desc_init_by_strides(b, rank, b_dims + skip, dnnl_f32, b_strides + skip);
    if (status == dnnl_success)
        status =
            dnnl_memory_desc_init_by_strides(c, rank, c_dims + skip, dnnl_f32, c_strides + skip);
    if (status == dnnl_success && shape->bias)
        status = dnnl_memory_desc_init_by_strides(bias, rank, bias_dims + skip, dnnl_f32,
                                                  bias_strides + skip);
    return status;
}

static dnnl_status_t make_attributes(dnnl_primitive_attr_t *attr_p)
{
    dnnl_status_t status = dnnl_primitive_attr_create(attr_p);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(*attr_p, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_fpmath_mode(*attr_p, dnnl_fpmath_mode_strict);
    return status;
}

static dnnl_status_t add_argument(dj_onednn_product_t *product, int arg,
                                  const dnnl_memory_desc_t *descriptor)
{
    dnnl_exec_arg_t *slot = &product->args[product->n_args];
    dnnl_status_t status =
        dnnl_memory_create(&slot->memory, descriptor, product->dnn->engine, DNNL_MEMORY_NONE);
    slot->arg = arg;
    if (status == dnnl_success)
        product->n_args++;
    return status;
}

static dnnl_status_t add_arguments(dj_onednn_product_t *product, const_dnnl_primitive_desc_t chosen,
                                   const dnnl_memory_desc_t *a, const dnnl_memory_desc_t *bias,
                                   const dnnl_memory_desc_t *c)
{
    const dnnl_memory_desc_t *scratchpad =
        dnnl_primitive_desc_query_md(chosen, dnnl_query_scratchpad_md, 0);
    product->scratchpad_bytes = dnnl_memory_desc_get_size(scratchpad);
    dnnl_status_t status = add_argument(product, DNNL_ARG_SRC, a);
    if (status == dnnl_success)
        status = add_argument(product, DNNL_ARG_WEIGHTS, &product->chosen_b);
    if (status == dnnl_success)
        status = add_argument(product, DNNL_ARG_DST, c);
    if (status == dnnl_success)
        status = add_argument(product, DNNL_ARG_SCRATCHPAD, scratchpad);
    if (status == dnnl_success && bias)
        status = add_argument(product, DNNL_ARG_BIAS, bias);
    return status;
}

static dnnl_status_t check_implementation(const_dnnl_primitive_desc_t chosen)
{
    const char *name = NULL;
    dnnl_status_t status = dnnl_primitive_desc_query(chosen, dnnl_query_impl_info_str, 0, &name);
    if (status == dnnl_success && (!name || strncmp(name, "brg:", 4) != 0))
        status = dnnl_unimplemented;
    return status;
}

static dnnl_status_t build(dj_onednn_product_t *product, const dj_onednn_shape_t *shape)
{
    dnnl_memory_desc_t a, b, bias, c;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t chosen = NULL;
    dnnl_status_t status = describe(shape, &a, &product->plain_b, &bias, &c);
    if (status != dnnl_success)
        return status;
    b = product->plain_b;
    if (shape->pack)
        b.format_kind = dnnl_format_kind_any;
    status = dnnl_matmul_desc_init(&matmul, &a, &b, shape->bias ? &bias : NULL, &c);
    if (status == dnnl_success)
        status = make_attributes(&attr);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(&chosen, &matmul, attr, product->dnn->engine, NULL);
    if (status == dnnl_success)
        status = check_implementation(chosen);
    if (status != dnnl_success)
        goto out;
    product->chosen_b = *dnnl_primitive_desc_query_md(chosen, dnnl_query_weights_md, 0);
    product->packed = !dnnl_memory_desc_equal(&product->chosen_b, &product->plain_b);
    status = dnnl_primitive_create(&product->primitive, chosen);
    if (status == dnnl_success)
        status = add_arguments(product, chosen, &a, shape->bias ? &bias : NULL, &c);
out:
    if (chosen)
        dnnl_primitive_desc_destroy(chosen);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

dj_status_t dj_onednn_product_create(dj_onednn_t *dnn, const dj_onednn_shape_t *shape,
                                     dj_onednn_product_t **product_p)
{
    dj_onednn_product_t *product = calloc(1, sizeof(*product));
    if (!product)
        return dj_fail(DJ_ERR_MEMORY, "oneDNN: out of memory");
    product->dnn = dnn;
    dj_status_t status = convert(build(product, shape), "making a matrix product");
    if (status != DJ_OK) {
        dj_onednn_product_destroy(product);
        return status;
    }
    *product_p = product;
    return DJ_OK;
}

void dj_onednn_product_destroy(dj_onednn_product_t *product)
{
    if (!product)
        return;
    for (int i = 0; i < product->n_args; i++)
        dnnl_memory_destroy(product->args[i].memory);
    if (product->primitive)
        dnnl_primitive_destroy(product->primitive);
    free(product);
}

uint64_t dj_onednn_product_workspace(const dj_onednn_product_t *product)
{
    return ARENA_BYTES + product->scratchpad_bytes;
}

uint64_t dj_onednn_product_pack_bytes(const dj_onednn_product_t *product)
{
    return product->packed ? dnnl_memory_desc_get_size(&product->chosen_b) : 0;
}

dj_hash_t dj_onednn_product_pack_key(const dj_onednn_product_t *product)
{
    return dj_hash_pair(&product->plain_b, sizeof(product->plain_b), &product->chosen_b,
                        sizeof(product->chosen_b));
}

dj_status_t dj_onednn_product_pack(dj_onednn_product_t *product, const void *b, void *packed)
{
    dj_onednn_t *dnn = product->dnn;
    dnnl_primitive_desc_t chosen = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_status_t status =
        dnnl_memory_create(&from, &product->plain_b, dnn->engine, (void *)(uintptr_t)b);
    if (status == dnnl_success)
        status = dnnl_memory_create(&to, &product->chosen_b, dnn->engine, packed);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&chosen, &product->plain_b, dnn->engine,
                                                    &product->chosen_b, dnn->engine, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&reorder, chosen);
    if (status == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        status = dnnl_primitive_execute(reorder, dnn->stream, 2, args);
    }
    if (status == dnnl_success)
        status = dnnl_stream_wait(dnn->stream);
    if (reorder)
        dnnl_primitive_destroy(reorder);
    if (chosen)
        dnnl_primitive_desc_destroy(chosen);
    if (to)
        dnnl_memory_destroy(to);
    if (from)
        dnnl_memory_destroy(from);
    return convert(status, "packing a weight");
}

void dj_onednn_product_run(dj_onednn_product_t *product, const void *a, const void *b,
                           const void *bias, void *c, void *workspace)
{
    void *scratchpad = (uint8_t *)workspace + ARENA_BYTES;
    dnnl_memory_set_data_handle(product->args[ARG_A].memory, (void *)(uintptr_t)a);
    dnnl_memory_set_data_handle(product->args[ARG_B].memory, (void *)(uintptr_t)b);
    dnnl_memory_set_data_handle(product->args[ARG_C].memory, c);
    dnnl_memory_set_data_handle(product->args[ARG_SCRATCHPAD].memory, scratchpad);
    if (product->n_args > ARG_BIAS)
        dnnl_memory_set_data_handle(product->args[ARG_BIAS].memory, (void *)(uintptr_t)bias);
    dj_new_arena_open(workspace, ARENA_BYTES);
    dnnl_primitive_execute(product->primitive, product->dnn->stream, product->n_args,
                           product->args);
    dj_new_arena_close();
}
