/* part.c - see part.h. */
#include "gpu/cuda/part.h"

#include <string.h>

#include "gpu/rules.h"

/* ---- is there a kernel? ---- */

#define RULE_VALUE 1
#define RULE_REAL 2
#define RULE_TEST 3
#define RULE_NONE 0
#define OP(id, name, signature, rule, ...) [DJ_OP_##id] = DJ_RULE_OF(RULE_, rule),
static const uint8_t rules[DJ_OP_COUNT] = {
#include "planner/ops.def"
};
#undef OP

static bool is_stored(uint8_t dtype)
{
    return dtype <= DJ_F64;
}

static dj_status_t check_dtype(const dj_node_t *node, uint8_t dtype)
{
    if (is_stored(dtype))
        return DJ_OK;
    return dj_fail(DJ_ERR_UNSUPPORTED, "%s has no CUDA kernel for %s", dj_op_info(node->call.op)->name,
                   dj_dtype_name(dtype));
}

static dj_status_t check_operands(const dj_node_t *node)
{
    const char *signature = dj_op_info(node->call.op)->signature;
    uint32_t tensors = 0, scalars = 0;
    for (uint32_t i = 0; i < node->call.n_args; i++) {
        const dj_arg_t *arg = &node->call.args[i];
        tensors += signature[i] == 't';
        scalars += signature[i] == 's' || signature[i] == 'S';
        if (signature[i] != 't')
            continue;
        const dj_operand_t *operand = arg->kind == DJ_ARG_TENSORS && arg->count ? &arg->operands[0] : NULL;
        if (!operand || operand->storage == DJ_STORAGE_NONE ||
            (operand->storage == DJ_STORAGE_SCALAR && operand->slot == DJ_SLOT_NONE))
            return dj_fail(DJ_ERR_INVALID, "%s: argument %u is no tensor", dj_op_info(node->call.op)->name, i);
        dj_status_t status = check_dtype(node, operand->view.dtype);
        if (status != DJ_OK)
            return status;
    }
    if (tensors > DJ_PART_OPERANDS || scalars > 2 || node->n_outs != 1)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s: %u tensors, %u scalars and %u outputs; a pointwise kernel has at "
                       "most 3, 2 and 1", dj_op_info(node->call.op)->name, tensors, scalars, node->n_outs);
    return check_dtype(node, node->outs[0].view.dtype);
}

dj_status_t dj_part_check(const dj_node_t *node)
{
    uint16_t op = node->call.op;
    const dj_op_info_t *info = dj_op_info(op);
    if (!info || rules[op] == RULE_NONE || node->call.n_args != info->n_args)
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s has no pointwise kernel", info ? info->name : "an unknown op");
    dj_status_t status = check_operands(node);
    if (status != DJ_OK)
        return status;
    uint8_t compute = dj_op_compute_dtype(&node->call);
    status = check_dtype(node, compute);
    if (status != DJ_OK)
        return status;
    dj_class_t class = dj_class_of(compute);
    bool bits = op == DJ_OP_BITWISE_NOT || op == DJ_OP_BITWISE_AND || op == DJ_OP_BITWISE_OR ||
                op == DJ_OP_BITWISE_XOR;
    if ((rules[op] == RULE_REAL && class > DJ_CLASS_F64) || (bits && class <= DJ_CLASS_F64))
        return dj_fail(DJ_ERR_UNSUPPORTED, "%s has no CUDA kernel that computes in %s", info->name,
                       dj_dtype_name(dj_class_dtype(class)));
    return DJ_OK;
}

/* ---- steps ---- */

/* Do both see the same elements in the same order? Their shapes broadcast to one. */
static bool windows_equal(const dj_part_window_t *a, const dj_part_window_t *b)
{
    if (a->slot != b->slot || a->view->dtype != b->view->dtype || a->view->offset != b->view->offset)
        return false;
    return dj_view_equal(a->view, b->view) ||
           (dj_view_is_contiguous(a->view) && dj_view_is_contiguous(b->view) &&
            dj_view_count(a->view) == dj_view_count(b->view));
}

/* Do they share no byte, as far as ranges tell? */
static bool windows_apart(const dj_part_window_t *a, const dj_part_window_t *b)
{
    uint64_t a_item = dj_dtype_bytes(a->view->dtype), b_item = dj_dtype_bytes(b->view->dtype);
    uint64_t a_first = (uint64_t)a->view->offset * a_item, b_first = (uint64_t)b->view->offset * b_item;
    if (a->slot != b->slot || (a->slot != DJ_SLOT_NONE && a_item != b_item))
        return false;
    return a_first + dj_view_extent_bytes(a->view) <= b_first || b_first + dj_view_extent_bytes(b->view) <= a_first;
}

static bool windows_agree(const dj_part_window_t *a, const dj_part_window_t *b)
{
    return a->storage != b->storage || windows_equal(a, b) || windows_apart(a, b);
}

/* False: the step must come after all elements of an earlier one, in a kernel of its own. */
static bool take_tensor(dj_part_t *part, const dj_part_window_t *window, dj_part_value_t *value)
{
    for (uint32_t i = part->n_steps; i-- > 0;) {
        if (!windows_agree(&part->steps[i].out, window))
            return false;
        if (part->steps[i].out.storage == window->storage && windows_equal(&part->steps[i].out, window)) {
            *value = (dj_part_value_t){DJ_FROM_STEP, (uint8_t)i};
            return true;
        }
    }
    for (uint32_t i = 0; i < part->n_inputs; i++) {
        const dj_part_window_t *known = &part->inputs[i];
        if (known->storage == window->storage && known->slot == window->slot &&
            dj_view_equal(known->view, window->view)) {
            *value = (dj_part_value_t){DJ_FROM_INPUT, (uint8_t)i};
            return true;
        }
    }
    if (part->n_inputs == DJ_PART_INPUTS_MAX)
        return false;
    *value = (dj_part_value_t){DJ_FROM_INPUT, (uint8_t)part->n_inputs};
    part->inputs[part->n_inputs++] = *window;
    return true;
}

static bool take_scalar(dj_part_t *part, dj_node_scalar_t scalar, uint8_t *index_p)
{
    *index_p = DJ_PART_NONE;
    if (scalar.slot == DJ_SLOT_NONE)
        return true;
    dj_cuda_scalar_t wanted = {.slot = (int32_t)scalar.slot, .is_real = scalar.dtype == DJ_F64};
    uint32_t at = 0;
    while (at < part->n_scalars &&
           (part->scalars[at].slot != wanted.slot || part->scalars[at].is_real != wanted.is_real))
        at++;
    if (at == DJ_PART_SCALARS_MAX)
        return false;
    part->n_scalars += at == part->n_scalars;
    part->scalars[at] = wanted;
    *index_p = (uint8_t)at;
    return true;
}

static bool take_arguments(dj_part_t *part, dj_part_step_t *step)
{
    const dj_call_t *call = &step->node->call;
    const char *signature = dj_op_info(call->op)->signature;
    for (uint32_t i = 0; i < call->n_args; i++) {
        dj_node_scalar_t scalar = dj_node_scalar(step->node, i);
        if (signature[i] == 's' || signature[i] == 'S') {
            if (!take_scalar(part, scalar, &step->scalars[step->n_scalars++]))
                return false;
        } else if (signature[i] == 't' && scalar.slot != DJ_SLOT_NONE) {
            dj_part_value_t *value = &step->values[step->n_values++];
            value->from = DJ_FROM_SCALAR;
            if (!take_scalar(part, scalar, &value->index))
                return false;
        } else if (signature[i] == 't') {
            const dj_operand_t *operand = &call->args[i].operands[0];
            dj_part_window_t window = {.view = &operand->view,
                                       .storage = operand->storage,
                                       .slot = operand->slot,
                                       .step = part->n_steps,
                                       .operand = dj_node_operand_index(call, i)};
            if (!take_tensor(part, &window, &step->values[step->n_values++]))
                return false;
        }
    }
    return true;
}

/* May the step's output be written while others go on? Those of its own windows the planner has looked after. */
static bool output_agrees(const dj_part_t *part, const dj_part_step_t *step)
{
    for (uint32_t i = 0; i < part->n_steps; i++)
        if (!windows_agree(&part->steps[i].out, &step->out))
            return false;
    for (uint32_t i = 0; i < step->inputs_before; i++)
        if (!windows_agree(&part->inputs[i], &step->out))
            return false;
    return part->n_steps == 0 || dj_view_same_shape(part->steps[0].out.view, step->out.view);
}

static bool add_step(dj_part_t *part, const dj_node_t *node)
{
    if (part->n_steps == DJ_PART_STEPS_MAX)
        return false;
    dj_part_step_t *step = &part->steps[part->n_steps];
    dj_class_t class = dj_class_of(dj_op_compute_dtype(&node->call));
    *step = (dj_part_step_t){
        .node = node,
        .class = (uint8_t)class,
        .result = rules[node->call.op] == RULE_TEST ? DJ_CLASS_B8 : (uint8_t)class,
        .out = {.view = &node->outs[0].view,
                .storage = node->outs[0].storage,
                .slot = node->outs[0].slot,
                .step = part->n_steps,
                .operand = dj_node_operand_index(&node->call, node->call.n_args)},
        .inputs_before = part->n_inputs,
        .scalars_before = part->n_scalars,
    };
    if (output_agrees(part, step) && take_arguments(part, step)) {
        part->n_steps++;
        return true;
    }
    part->n_inputs = step->inputs_before;
    part->n_scalars = step->scalars_before;
    return false;
}

static void drop_step(dj_part_t *part)
{
    const dj_part_step_t *last = &part->steps[--part->n_steps];
    part->n_inputs = last->inputs_before;
    part->n_scalars = last->scalars_before;
}

/* ---- the joint walk ---- */

#define WINDOWS_MAX (DJ_PART_INPUTS_MAX + DJ_PART_STEPS_MAX)

typedef struct walk {
    uint32_t n, rank;
    dj_part_window_t *windows[WINDOWS_MAX];
    int64_t sizes[DJ_RANK_MAX];
    int64_t strides[WINDOWS_MAX][DJ_RANK_MAX]; /* bytes */
} walk_t;

static dj_status_t add_window(walk_t *walk, dj_part_window_t *window, const dj_view_t *shape)
{
    const dj_view_t *view = window->view;
    uint32_t k = walk->n++, rank = 0;
    walk->windows[k] = window;
    for (uint32_t d = 0; d < shape->rank; d++) {
        uint32_t lead = (uint32_t)shape->rank - view->rank;
        bool spread = view->rank <= shape->rank && d >= lead && view->sizes[d - lead] != 1;
        if (view->rank > shape->rank || (spread && view->sizes[d - lead] != shape->sizes[d])) {
            char text[160];
            return dj_fail(DJ_ERR_SHAPE, "an operand does not broadcast to the output %s",
                           dj_view_format(shape, text, sizeof(text)));
        }
        if (shape->sizes[d] != 1)
            walk->strides[k][rank++] =
                spread ? view->strides[d - lead] * (int64_t)dj_dtype_bytes(view->dtype) : 0;
    }
    return DJ_OK;
}

static void swap_dims(walk_t *walk, uint32_t a, uint32_t b)
{
    int64_t size = walk->sizes[a];
    walk->sizes[a] = walk->sizes[b];
    walk->sizes[b] = size;
    for (uint32_t k = 0; k < walk->n; k++) {
        int64_t stride = walk->strides[k][a];
        walk->strides[k][a] = walk->strides[k][b];
        walk->strides[k][b] = stride;
    }
}

/* Larger strides of the first output outside. */
static void order_dims(walk_t *walk, uint32_t k)
{
    for (uint32_t i = 1; i < walk->rank; i++)
        for (uint32_t d = i; d > 0 && walk->strides[k][d - 1] < walk->strides[k][d]; d--)
            swap_dims(walk, d - 1, d);
}

static bool dims_merge(const walk_t *walk, uint32_t outer, uint32_t inner)
{
    for (uint32_t k = 0; k < walk->n; k++)
        if (walk->strides[k][outer] != walk->strides[k][inner] * walk->sizes[inner])
            return false;
    return true;
}

static void merge_dims(walk_t *walk)
{
    uint32_t kept = 0;
    for (uint32_t d = 1; d < walk->rank; d++) {
        if (dims_merge(walk, kept, d))
            walk->sizes[kept] *= walk->sizes[d];
        else
            walk->sizes[++kept] = walk->sizes[d];
        for (uint32_t k = 0; k < walk->n; k++)
            walk->strides[k][kept] = walk->strides[k][d];
    }
    walk->rank = walk->rank ? kept + 1 : 0;
}

static dj_part_walk_t classify(const walk_t *walk, uint32_t k, uint32_t n_inputs)
{
    int64_t item = dj_dtype_bytes(walk->windows[k]->view->dtype), dense = item;
    bool is_dense = true, is_one = true;
    for (uint32_t d = walk->rank; d-- > 0;) {
        is_dense &= walk->strides[k][d] == dense;
        is_one &= walk->strides[k][d] == 0;
        dense *= walk->sizes[d];
    }
    bool is_output = k >= n_inputs; /* never all in one place, but nobody may write beyond it */
    int64_t inner = walk->rank ? walk->strides[k][walk->rank - 1] : 0;
    return is_dense                ? DJ_WALK_DENSE
           : is_one && !is_output  ? DJ_WALK_ONE
           : inner == item         ? DJ_WALK_ROW
           : inner == 0            ? DJ_WALK_REPEAT
                                   : DJ_WALK_EACH;
}

static uint8_t row_of(dj_part_t *part, const walk_t *walk, uint32_t k)
{
    size_t bytes = walk->rank * sizeof(int64_t);
    uint32_t row = 0;
    while (row < part->n_rows && memcmp(part->strides[row], walk->strides[k], bytes) != 0)
        row++;
    if (row == part->n_rows)
        memcpy(part->strides[part->n_rows++], walk->strides[k], bytes);
    return (uint8_t)row;
}

/* How many elements a thread takes: 16 bytes of the widest, at most 8. */
static uint32_t lanes_of(const walk_t *walk)
{
    uint32_t widest = 2;
    for (uint32_t k = 0; k < walk->n; k++) {
        uint32_t item = dj_dtype_bytes(walk->windows[k]->view->dtype);
        if (walk->windows[k]->walk != DJ_WALK_ONE && item > widest)
            widest = item;
    }
    return 16 / widest;
}

/* Packs must not cross the end of a row, and where a row is loaded whole, each must begin aligned. */
static bool packs_fit(const dj_part_t *part, const walk_t *walk)
{
    if (part->n_rows && part->sizes[part->rank - 1] % part->lanes != 0)
        return false;
    for (uint32_t k = 0; k < walk->n; k++) {
        int64_t bytes = (int64_t)dj_dtype_bytes(walk->windows[k]->view->dtype) * part->lanes;
        for (uint32_t d = 0; walk->windows[k]->walk == DJ_WALK_ROW && d + 1 < part->rank; d++)
            if (walk->strides[k][d] % (bytes < 16 ? bytes : 16) != 0)
                return false;
    }
    return true;
}

static bool is_narrow(const dj_part_t *part)
{
    for (uint32_t row = 0; row < part->n_rows; row++)
        for (uint32_t d = 0; d < part->rank; d++)
            if (part->strides[row][d] > UINT32_MAX)
                return false;
    return part->count <= INT32_MAX;
}

static dj_status_t walk_jointly(dj_part_t *part)
{
    walk_t walk = {0};
    const dj_view_t *shape = part->steps[0].out.view;
    dj_status_t status = DJ_OK;
    for (uint32_t d = 0; d < shape->rank; d++)
        if (shape->sizes[d] != 1)
            walk.sizes[walk.rank++] = shape->sizes[d];
    for (uint32_t i = 0; i < part->n_inputs && status == DJ_OK; i++)
        status = add_window(&walk, &part->inputs[i], shape);
    for (uint32_t i = 0; i < part->n_steps && status == DJ_OK; i++)
        status = add_window(&walk, &part->steps[i].out, shape);
    if (status != DJ_OK)
        return status;
    part->count = dj_view_count(shape);
    part->n_rows = 0;
    if (part->count <= 1)
        walk.rank = 0; /* nothing to walk: all are dense */
    order_dims(&walk, part->n_inputs);
    merge_dims(&walk);
    part->rank = walk.rank;
    memcpy(part->sizes, walk.sizes, sizeof(part->sizes));
    for (uint32_t k = 0; k < walk.n; k++) {
        dj_part_window_t *window = walk.windows[k];
        window->walk = (uint8_t)classify(&walk, k, part->n_inputs);
        bool strided = window->walk != DJ_WALK_DENSE && window->walk != DJ_WALK_ONE;
        window->row = strided ? row_of(part, &walk, k) : DJ_PART_NONE;
    }
    part->lanes = lanes_of(&walk);
    part->packs = packs_fit(part, &walk) ? part->count / part->lanes : 0;
    part->narrow = is_narrow(part);
    return DJ_OK;
}

/* ---- the whole ---- */

dj_status_t dj_part_make(dj_part_t *part, const dj_node_t *const *nodes, uint32_t n)
{
    *part = (dj_part_t){0};
    for (uint32_t i = 0; i < n && i < DJ_PART_STEPS_MAX; i++) {
        dj_status_t status = dj_part_check(nodes[i]);
        if (status != DJ_OK)
            return status;
        if (!add_step(part, nodes[i]))
            break;
    }
    if (part->n_steps == 0)
        return dj_fail(DJ_ERR_INVALID, "a pointwise kernel of no steps");
    dj_status_t status = walk_jointly(part);
    while (status == DJ_OK && part->n_steps > 1 && dj_part_layout(part).bytes > DJ_CUDA_PARAMS_MAX) {
        drop_step(part);
        status = walk_jointly(part);
    }
    return status;
}

dj_part_layout_t dj_part_layout(const dj_part_t *part)
{
    uint32_t item = sizeof(int64_t), at = sizeof(dj_cuda_head_t);
    uint32_t rank = part->n_rows ? part->rank : 0;
    dj_part_layout_t layout = {.count = at, .packs = at + item, .inputs = at + 2 * item};
    layout.outs = layout.inputs + part->n_inputs * (uint32_t)sizeof(dj_cuda_ref_t);
    layout.scalars = layout.outs + part->n_steps * (uint32_t)sizeof(dj_cuda_ref_t);
    layout.sizes = layout.scalars + part->n_scalars * (uint32_t)sizeof(dj_cuda_scalar_t);
    layout.strides = layout.sizes + rank * item;
    layout.bytes = layout.strides + part->n_rows * rank * item;
    return layout;
}

void dj_part_params(const dj_part_t *part, uint8_t *params)
{
    dj_part_layout_t layout = dj_part_layout(part);
    uint32_t row_bytes = part->rank * (uint32_t)sizeof(int64_t);
    memcpy(params + layout.count, &part->count, sizeof(part->count));
    memcpy(params + layout.packs, &part->packs, sizeof(part->packs));
    memcpy(params + layout.scalars, part->scalars, part->n_scalars * sizeof(part->scalars[0]));
    if (part->n_rows)
        memcpy(params + layout.sizes, part->sizes, row_bytes);
    for (uint32_t row = 0; row < part->n_rows; row++)
        memcpy(params + layout.strides + row * row_bytes, part->strides[row], row_bytes);
}
