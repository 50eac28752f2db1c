/* moves.cpp - bytes between host and rank, copies on the rank, and the one element that .item()
 * asks for.
 *
 * An upload into a tensor nobody wrote becomes its storage as it is; anything else is an upload and
 * a recorded copy. A fetch asks the rank for dense elements, whatever the view. */
#include "shim.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <torch/library.h>

namespace djinn_torch
{

void fetch(const at::Tensor &tensor, void *target, size_t bytes)
{
    if (bytes == 0)
        return;
    if (!cell_of(tensor)->handle.load()) {
        memset(target, 0, bytes);
        return;
    }
    djinn_tensor_t from;
    look(tensor, &from);
    check(djinn_fetch(connection(), &from, target, bytes));
}

static djinn_storage_t *upload_bytes(const at::Tensor &dense)
{
    djinn_tensor_t out;
    auto sizes = dense.sizes();
    TORCH_CHECK(sizes.size() <= DJINN_MAX_RANK, "a djinn tensor has at most ", DJINN_MAX_RANK,
                " dimensions, this one ", sizes.size());
    check(djinn_upload(connection(), (djinn_dtype_t)dtype_of(dense.scalar_type()),
                       (int)sizes.size(), sizes.data(), dense.const_data_ptr(),
                       uploading_weights ? DJINN_UPLOAD_WEIGHT : 0, &out));
    return out.storage;
}

at::Tensor upload(const at::Tensor &host)
{
    at::Tensor dense = host.contiguous();
    at::Tensor tensor = make_empty(dense.sizes(), dense.strides(), dense.scalar_type());
    if (tensor.numel() > 0)
        adopt(tensor, upload_bytes(dense));
    return tensor;
}

/* Device to device: djinn::copy, which converts to its target's type. */
static void record_copy(const at::Tensor &self, const at::Tensor &source)
{
    static const int copy_op = row("djinn::copy"), to_op = row("djinn::to_copy");
    at::Tensor expanded = source.sizes() == self.sizes() ? source : source.expand(self.sizes());
    djinn_tensor_t from, to, out;
    djinn_arg_t args[2] = {};
    int count, op = self.dtype() == source.dtype() ? copy_op : to_op;
    look(expanded, &from);
    args[0].kind = DJINN_ARG_TENSOR;
    args[0].value.tensors = &from;
    args[1].kind = DJINN_ARG_INT;
    args[1].value.integer = dtype_of(self.scalar_type());
    int n_args = op == to_op ? 2 : 1;
    if (is_untouched(self)) {
        check(djinn_infer(op, args, n_args, &out, &count));
        if (c10::IntArrayRef(out.strides, (size_t)out.rank) == self.strides()) {
            check(djinn_record(connection(), op, args, n_args, &out));
            adopt(self, out.storage);
            return;
        }
    }
    look(self, &to);
    check(djinn_record_into(connection(), copy_op, args, 1, &to));
}

static void copy_up(at::Tensor &self, const at::Tensor &source)
{
    at::Tensor host = source.to(self.scalar_type()).expand(self.sizes());
    if (!is_untouched(self))
        return record_copy(self, upload(host));
    /* the host side takes the layout of the target, so that the bytes can be taken as they are */
    at::Tensor dense = at::empty_strided(self.sizes(), self.strides(), host.options());
    if (host.strides() == self.strides())
        dense = host;
    else
        dense.copy_(host);
    adopt(self, upload_bytes(dense.as_strided({self.numel()}, {1})));
}

static void copy_down(at::Tensor &self, const at::Tensor &source)
{
    at::Tensor expanded = source.sizes() == self.sizes() ? source : source.expand(self.sizes());
    if (self.is_contiguous() && self.dtype() == source.dtype())
        return fetch(expanded, self.mutable_data_ptr(), self.nbytes());
    at::Tensor dense = at::empty(expanded.sizes(), self.options().dtype(source.dtype()));
    fetch(expanded, dense.mutable_data_ptr(), dense.nbytes());
    self.copy_(dense);
}

at::Tensor &copy_(at::Tensor &self, const at::Tensor &source, bool)
{
    bool from = source.device().type() == kDevice, to = self.device().type() == kDevice;
    if (self.numel() == 0 || self.is_same(source))
        return self;
    TORCH_CHECK((from || source.is_cpu()) && (to || self.is_cpu()),
                "tensors move between djinn and the host only: pass through .cpu()");
    if (from && to)
        record_copy(self, source);
    else if (to)
        copy_up(self, source);
    else
        copy_down(self, source);
    return self;
}

static at::Tensor copy_from(const at::Tensor &self, const at::Tensor &target, bool non_blocking)
{
    at::Tensor to = target;
    return copy_(to, self, non_blocking);
}

static djinn_tensor_t leading_bytes(Cell *cell, size_t count)
{
    djinn_tensor_t view = {};
    view.storage = materialise(cell);
    view.dtype = DJINN_UINT8;
    view.rank = 1;
    view.sizes[0] = (int64_t)count;
    view.strides[0] = 1;
    return view;
}

void resize_storage(const c10::Storage &storage, size_t bytes)
{
    auto *impl = storage.unsafeGetStorageImpl();
    auto *cell = static_cast<Cell *>(impl->data_ptr().get());
    size_t kept = std::min(impl->nbytes(), bytes);
    c10::DataPtr grown = new_cell(bytes);
    if (cell && cell->handle.load() && kept > 0) {
        djinn_tensor_t from = leading_bytes(cell, kept);
        djinn_tensor_t to = leading_bytes(static_cast<Cell *>(grown.get()), kept);
        djinn_arg_t arg = {};
        arg.kind = DJINN_ARG_TENSOR;
        arg.value.tensors = &from;
        check(djinn_record_into(connection(), row("djinn::copy"), &arg, 1, &to));
    }
    impl->set_data_ptr(std::move(grown));
    impl->set_nbytes(bytes);
}

static void resize(const at::Tensor &self, c10::IntArrayRef sizes)
{
    size_t bytes = (size_t)c10::multiply_integers(sizes) * self.itemsize() +
                   (size_t)self.storage_offset() * self.itemsize();
    if (bytes > self.storage().nbytes())
        resize_storage(self.storage(), bytes);
    self.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
}

static const at::Tensor &resize_(const at::Tensor &self, c10::SymIntArrayRef sizes,
                                 std::optional<c10::MemoryFormat>)
{
    resize(self, C10_AS_INTARRAYREF_SLOW(sizes));
    return self;
}

static at::Tensor copy_from_and_resize(const at::Tensor &self, const at::Tensor &target)
{
    if (self.sizes() != target.sizes())
        resize(target, self.sizes());
    return copy_from(self, target, false);
}

static c10::Scalar local_scalar(const at::Tensor &self)
{
    at::Tensor host = at::empty({}, at::TensorOptions().dtype(self.dtype()));
    fetch(self, host.mutable_data_ptr(), host.nbytes());
    return host.item();
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m)
{
    m.impl("copy_", TORCH_FN(copy_));
    m.impl("resize_", TORCH_FN(resize_));
    m.impl("_copy_from", TORCH_FN(copy_from));
    m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
    m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
}

} // namespace djinn_torch
