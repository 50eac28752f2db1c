/* attention.c - scaled dot product attention: tiles of query rows, or few rows with the keys split among blocks
 * (kernels/attention.cu says how). Which of the two, and how many splits, is chosen here. */
#include <stdio.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/kernels/attention.h"
#include "gpu/cuda/prepare.h"

#define FEW_LENGTH_MAX 8        /* query rows of a head that are decoded rather than tiled */
#define LONE_LENGTH_MAX 64      /* and up to here when their tiles would leave most of the GPU idle */
#define LONE_KEYS_MIN 1024      /* with so many keys to share out */
#define KEYS_MAX (1 << 30)      /* the kernels count keys in 32 bits */
#define SPLIT_KEYS_MIN 128      /* fewer keys are not worth a block */
#define SPLITS_MAX 256
#define SHARED_FREE (48u << 10) /* what a block may have without asking */

typedef struct attention {
    dj_attention_params_t params;
    CUfunction run, join;
    dj_cuda_grid_t grid, join_grid;
    uint32_t places[5]; /* operands of query, key, value, mask, out */
} attention_t;

static int64_t divide_up(int64_t n, int64_t by)
{
    return (n + by - 1) / by;
}

/* --- emit --- */

static dj_status_t emit_attention(const dj_cuda_kernel_t *kernel, dj_cuda_emit_t *emit)
{
    const attention_t *a = kernel->state;
    dj_attention_params_t params = a->params;
    dj_attention_matrix_t *matrices[5] = {&params.query, &params.key, &params.value, &params.mask, &params.out};
    if (params.units == 0 || params.value_depth == 0)
        return DJ_OK;
    for (uint32_t i = 0; i < 5; i++)
        if (a->places[i] != DJ_SLOT_NONE)
            matrices[i]->ref = dj_cuda_emit_ref(emit, a->places[i]);
    params.partials = params.splits > 1 ? dj_cuda_emit_workspace(emit) : 0;
    dj_status_t status = dj_cuda_emit_kernel(emit, a->run, &a->grid, &params, sizeof(params));
    if (status != DJ_OK || params.splits == 1)
        return status;
    params.units = a->join_grid.blocks[0];
    return dj_cuda_emit_kernel(emit, a->join, &a->join_grid, &params, sizeof(params));
}

/* --- operands --- */

static int64_t size_of(const dj_view_t *view, uint32_t d)
{
    return d + view->rank >= 4 ? view->sizes[d + view->rank - 4] : 1;
}

/* Views of up to four dimensions, the missing ones leading; size 1 broadcasts. */
static bool matrix_take(const dj_view_t *view, const int64_t *sizes, dj_attention_matrix_t *matrix)
{
    if (view->rank > 4)
        return false;
    uint32_t lead = 4u - view->rank;
    for (uint32_t d = 0; d < 4; d++) {
        int64_t size = size_of(view, d);
        if (size != 1 && size != sizes[d])
            return false;
        matrix->strides[d] = size == 1 ? 0 : view->strides[d - lead];
    }
    /* One column lies as densely as any. */
    if (sizes[3] == 1)
        matrix->strides[3] = 1;
    return true;
}

static const char *suffix_of(uint8_t dtype)
{
    return dtype == DJ_F32 ? "f32" : dtype == DJ_F16 ? "f16" : dtype == DJ_BF16 ? "bf16" : NULL;
}

static bool operands_take(attention_t *a, const dj_node_t *node, int64_t *batch_p)
{
    dj_attention_params_t *p = &a->params;
    const dj_view_t *views[4] = {NULL}, *out = &node->outs[0].view;
    for (uint32_t i = 0; i < 4; i++) {
        const dj_operand_t *operand = dj_node_operand(node, i);
        views[i] = operand ? &operand->view : NULL;
        a->places[i] = operand ? dj_node_operand_index(&node->call, i) : DJ_SLOT_NONE;
        if (i < 3 && (!operand || operand->view.dtype != out->dtype || operand->view.rank > 4 ||
                      operand->view.rank < 2))
            return false;
    }
    a->places[4] = dj_node_operand_index(&node->call, node->call.n_args);
    int64_t batch = *batch_p = size_of(views[0], 0), key_heads = size_of(views[1], 1);
    int64_t depth = size_of(views[0], 3), value_depth = size_of(views[2], 3);
    p->heads = size_of(views[0], 1);
    p->length = size_of(views[0], 2);
    p->keys = size_of(views[1], 2);
    if (!suffix_of(out->dtype) || key_heads <= 0 || p->heads % key_heads != 0 || p->keys > KEYS_MAX ||
        p->heads / key_heads > KEYS_MAX || depth > KEYS_MAX || value_depth > KEYS_MAX)
        return false;
    p->group = (int32_t)(p->heads / key_heads);
    p->depth = (int32_t)depth;
    p->value_depth = (int32_t)value_depth;
    p->mask_kind = !views[3] ? DJ_ATTENTION_NO_MASK
                   : views[3]->dtype == DJ_BOOL ? DJ_ATTENTION_BOOL_MASK
                                                : DJ_ATTENTION_ADDED_MASK;
    if (p->mask_kind == DJ_ATTENTION_ADDED_MASK && views[3]->dtype != out->dtype)
        return false;
    int64_t query[4] = {batch, p->heads, p->length, depth}, key[4] = {batch, key_heads, p->keys, depth};
    int64_t value[4] = {batch, key_heads, p->keys, value_depth}, mask[4] = {batch, p->heads, p->length, p->keys};
    int64_t written[4] = {batch, p->heads, p->length, value_depth};
    return matrix_take(views[0], query, &p->query) && matrix_take(views[1], key, &p->key) &&
           matrix_take(views[2], value, &p->value) && (!views[3] || matrix_take(views[3], mask, &p->mask)) &&
           matrix_take(out, written, &p->out);
}

/* --- ways --- */

/* Lets a block have so much shared memory. */
static dj_status_t shared_ask(const dj_cuda_device_t *device, CUfunction function, uint32_t bytes)
{
    if (bytes <= SHARED_FREE)
        return DJ_OK;
    if (bytes > device->shared_bytes_max)
        return dj_fail(DJ_ERR_UNSUPPORTED, "attention needs %u bytes of shared memory a block; this GPU has %u",
                       bytes, device->shared_bytes_max);
    CUresult result =
        dj_cuda.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)bytes);
    return dj_cuda_status(result, "cuFuncSetAttribute");
}

static uint32_t blocks_of(int64_t units)
{
    return (uint32_t)(units < INT32_MAX ? units : INT32_MAX);
}

/* The kernel's name holds the columns it has room for. */
static int32_t room_of(const dj_attention_params_t *p)
{
    int32_t depth = p->depth > p->value_depth ? p->depth : p->value_depth;
    return depth <= 64 ? 64 : depth <= 128 ? 128 : 256;
}

/* Tensor cores for the types and depths that they are good for. */
static dj_status_t tiles_prepare(attention_t *a, dj_cuda_device_t *device, const char *suffix, int64_t batch)
{
    dj_attention_params_t *p = &a->params;
    int32_t room = room_of(p), height = room == 256 ? 32 : 64, keys = DJ_ATTENTION_TILE_KEYS;
    bool tensor = p->out_dtype != DJ_F32 && room <= 128;
    uint32_t bytes = (uint32_t)((height + keys) * (room + 4) + height * (keys + 4)) * (uint32_t)sizeof(float);
    if (tensor) {
        height = DJ_ATTENTION_TENSOR_ROWS;
        bytes = (uint32_t)(2 * height * (room + DJ_ATTENTION_TENSOR_PAD) * 2);
    }
    char name[64];
    snprintf(name, sizeof(name), "dj_attention_%s_%s_%d", tensor ? "tensor" : "tiles", suffix, room);
    p->splits = 1;
    p->tiles = divide_up(p->length, height);
    p->units = batch * p->heads * p->tiles;
    a->grid = (dj_cuda_grid_t){
        .blocks = {blocks_of(p->units), 1, 1},
        .threads = {tensor ? DJ_ATTENTION_TENSOR_THREADS : DJ_ATTENTION_TILE_THREADS, 1, 1},
        .shared_bytes = bytes};
    dj_status_t status = dj_cuda_function(device, name, &a->run);
    return status != DJ_OK ? status : shared_ask(device, a->run, bytes);
}

static dj_status_t few_prepare(attention_t *a, dj_cuda_device_t *device, const char *suffix, int64_t batch,
                               uint64_t *workspace_bytes_p)
{
    dj_attention_params_t *p = &a->params;
    int64_t rows = p->length * p->group, multiprocessors = device->multiprocessors ? device->multiprocessors : 1;
    int32_t together = rows == 1 ? 1 : rows <= 4 ? 4 : 8;
    char name[64];
    snprintf(name, sizeof(name), "dj_attention_few_%s_%d", suffix, together);
    p->lanes = room_of(p) / 8;
    p->row_sets = divide_up(rows, together);
    int64_t sets = batch * (p->heads / p->group) * p->row_sets;
    int64_t splits = sets ? 4 * multiprocessors / sets : 1, most = p->keys / SPLIT_KEYS_MIN;
    splits = splits < most ? splits : most;
    splits = splits < 1 ? 1 : splits < SPLITS_MAX ? splits : SPLITS_MAX;
    p->split_keys = p->keys ? divide_up(p->keys, splits) : 1;
    p->splits = p->keys ? divide_up(p->keys, p->split_keys) : 1;
    p->units = sets * p->splits;
    uint32_t warps = DJ_ATTENTION_FEW_THREADS / 32;
    int64_t rows_all = batch * p->heads * p->length;
    a->grid = (dj_cuda_grid_t){
        .blocks = {blocks_of(p->units), 1, 1},
        .threads = {DJ_ATTENTION_FEW_THREADS, 1, 1},
        .shared_bytes = warps * (uint32_t)(together * (p->value_depth + 2)) * (uint32_t)sizeof(float)};
    a->join_grid = (dj_cuda_grid_t){.blocks = {blocks_of(rows_all), 1, 1}, .threads = {128, 1, 1}};
    if (p->splits > 1)
        *workspace_bytes_p = (uint64_t)(rows_all * p->splits * (p->value_depth + 2)) * sizeof(float);
    dj_status_t status = dj_cuda_function(device, name, &a->run);
    if (status == DJ_OK && p->splits > 1)
        status = dj_cuda_function(device, "dj_attention_join", &a->join);
    return status;
}

/* Splits of the keys, rather than tiles of the query rows? */
static bool is_few(const dj_attention_params_t *p, int64_t batch, int64_t multiprocessors)
{
    if (p->length <= FEW_LENGTH_MAX)
        return true;
    return p->length <= LONE_LENGTH_MAX && p->keys >= LONE_KEYS_MIN && batch * p->heads * 4 <= multiprocessors;
}

dj_status_t dj_cuda_attention_prepare(dj_executable_t *exe, dj_cuda_kernel_t *kernel)
{
    const dj_node_t *node = kernel->node;
    dj_cuda_device_t *device = dj_cuda_device_of(exe);
    attention_t *a = dj_cuda_arena(exe, sizeof(*a));
    int64_t batch = 0;
    if (!a)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a kernel's state");
    if (!operands_take(a, node, &batch))
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "attention of %s has no CUDA kernel; float32, float16 and bfloat16 [batch, heads, length, "
                       "depth] with a mask of bool or the same dtype have one",
                       dj_dtype_name(node->outs[0].view.dtype));
    dj_attention_params_t *p = &a->params;
    if (p->depth > DJ_ATTENTION_DEPTH_MAX || p->value_depth > DJ_ATTENTION_DEPTH_MAX)
        return dj_fail(DJ_ERR_UNSUPPORTED, "attention has CUDA kernels for heads of up to %d columns; these have %d",
                       DJ_ATTENTION_DEPTH_MAX, p->depth > p->value_depth ? p->depth : p->value_depth);
    p->is_causal = dj_node_flag(node, 5, 0) != 0;
    p->scale = dj_cuda_scalar_of(node, 6);
    p->out_dtype = node->outs[0].view.dtype;
    kernel->state = a;
    kernel->emit = emit_attention;
    const char *suffix = suffix_of(node->outs[0].view.dtype);
    if (is_few(p, batch, device->multiprocessors))
        return few_prepare(a, device, suffix, batch, &kernel->workspace_bytes);
    return tiles_prepare(a, device, suffix, batch);
}
