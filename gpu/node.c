/* node.c - what every device reads off a node, and refuses of it (node.h). */
#include "gpu/node.h"

dj_status_t dj_node_refuse_complex(const dj_node_t *node, const char *kind)
{
    uint8_t complex = DJ_DTYPE_NONE;
    for (uint32_t a = 0; a < node->call.n_args; a++) {
        const dj_arg_t *arg = &node->call.args[a];
        for (uint32_t i = 0; arg->kind == DJ_ARG_TENSORS && i < arg->count; i++)
            if (arg->operands[i].storage != DJ_STORAGE_NONE && dj_dtype_is_complex(arg->operands[i].view.dtype))
                complex = arg->operands[i].view.dtype;
    }
    for (uint32_t i = 0; i < node->n_outs; i++)
        if (dj_dtype_is_complex(node->outs[i].view.dtype))
            complex = node->outs[i].view.dtype;
    if (complex == DJ_DTYPE_NONE)
        return DJ_OK;
    return dj_fail(DJ_ERR_UNSUPPORTED, "the %s device has no kernel for %s", kind, dj_dtype_name(complex));
}

void dj_node_mark_dims(const dj_node_t *node, uint32_t arg, uint32_t rank, bool *marked)
{
    const dj_arg_t *dims = &node->call.args[arg];
    bool literal = node->call.op == DJ_OP_ANY || node->call.op == DJ_OP_ALL;
    bool empty = dims->kind == DJ_ARG_INTEGERS && dims->count == 0;
    bool all = dims->kind == DJ_ARG_NONE || (empty && !literal);
    for (uint32_t d = 0; d < rank; d++)
        marked[d] = all;
    if (dims->kind == DJ_ARG_INTEGER && rank)
        marked[dj_node_dim(dims->integer, rank)] = true;
    for (uint32_t i = 0; dims->kind == DJ_ARG_INTEGERS && i < dims->count && rank; i++)
        marked[dj_node_dim(dims->integers[i], rank)] = true;
}

dj_status_t dj_node_kept_dims(const dj_view_t *in, const dj_view_t *out, const bool *marked, dj_view_t *kept_p)
{
    bool keepdim = out->rank == in->rank;
    *kept_p = (dj_view_t){.dtype = out->dtype};
    for (uint32_t d = 0, o = 0; d < in->rank; d++) {
        if (marked[d]) {
            o += keepdim;
            continue;
        }
        if (o >= out->rank || out->sizes[o] != in->sizes[d])
            return dj_fail(DJ_ERR_SHAPE, "the output of a reduction does not fit its input");
        kept_p->sizes[kept_p->rank] = out->sizes[o];
        kept_p->strides[kept_p->rank++] = out->strides[o++];
    }
    return DJ_OK;
}
