"""Which row of the op table serves which overload of Core ATen.

Most overloads are a row of their own name. ROWS names the row for those that PyTorch writes differently:
a number where the row takes a tensor (which may be a number), a list for one dimension, one overload for
several string arguments, sizes instead of an end. REASONED are those that no row can serve.
"""

import torch

ROWS = {
    "aten::_native_batch_norm_legit": "aten::_native_batch_norm_legit_functional",
    "aten::_to_copy": "djinn::to_copy",
    "aten::adaptive_avg_pool1d": "djinn::adaptive_avg_pool1d",
    "aten::add.Scalar": "aten::add.Tensor",
    "aten::any": "aten::any.dims",
    "aten::any.dim": "aten::any.dims",
    "aten::arange.start_step": "djinn::arange",
    "aten::atan2.out": "aten::atan2",
    "aten::avg_pool1d": "djinn::avg_pool1d",
    "aten::bitwise_and.Scalar": "aten::bitwise_and.Tensor",
    "aten::bitwise_or.Scalar": "aten::bitwise_or.Tensor",
    "aten::bitwise_xor.Scalar": "aten::bitwise_xor.Tensor",
    "aten::clone": "djinn::copy",
    "aten::copy": "djinn::copy_like",
    "aten::div.Scalar": "aten::div.Tensor",
    "aten::div.Scalar_mode": "djinn::div_trunc",
    "aten::div.Tensor_mode": "djinn::div_trunc",
    "aten::empty.memory_format": "djinn::empty",
    "aten::empty_strided": "djinn::empty_strided",
    "aten::fill.Scalar": "djinn::full_like",
    "aten::fmod.Scalar": "aten::fmod.Tensor",
    "aten::full": "djinn::full",
    "aten::full_like": "djinn::full_like",
    "aten::index_put": "aten::index_put_",  # into a copy
    "aten::mean": "aten::mean.dim",
    "aten::mul.Scalar": "aten::mul.Tensor",
    "aten::pow.Scalar": "aten::pow.Tensor_Tensor",
    "aten::rand": "djinn::rand",
    "aten::randn": "djinn::randn",
    "aten::randperm": "djinn::randperm",
    "aten::scalar_tensor": "djinn::full",
    "aten::scatter_reduce.two": "djinn::scatter_reduce",
    "aten::split_with_sizes": "djinn::split_with_sizes",
    "aten::sub.Scalar": "aten::sub.Tensor",
    "aten::upsample_bilinear2d.vec": "aten::upsample_bilinear2d",
    "aten::upsample_nearest2d.vec": "aten::upsample_nearest2d",
    "aten::var.dim": "aten::var.correction",
}

REASONED = {
    "aten::_local_scalar_dense": "returns a number: the value is fetched, there is no tensor to shape",
    "aten::sym_is_contiguous": "returns a flag that the recorder reads off the tensor's strides",
    "aten::sym_numel": "returns an integer that the recorder reads off the tensor's sizes",
    "aten::sym_size.int": "returns an integer that the recorder reads off the tensor's sizes",
    "aten::sym_storage_offset": "returns an integer that the recorder reads off the tensor's window",
    "aten::sym_stride.int": "returns an integer that the recorder reads off the tensor's strides",
}


def core_overloads():
    """Every overload that carries PyTorch's `core` tag."""
    found = set()
    for schema in torch._C._jit_get_all_schemas():
        if not schema.name.startswith("aten::"):
            continue
        packet = getattr(torch.ops.aten, schema.name[6:], None)
        overload = getattr(packet, schema.overload_name or "default", None)
        if overload is not None and torch.Tag.core in overload.tags:
            found.add(overload.name())
    return sorted(found)
