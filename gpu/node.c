/* node.c - what every device refuses of a node (node.h). */
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
