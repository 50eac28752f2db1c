/* device.cpp - the device itself: guard, allocator, storages, moves between host and rank, views.
 *
 * Views are PyTorch's own functions: they change sizes, strides and offset of the torch tensor and
 * record nothing. */
#include "shim.h"

#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/strides.h>
#include <torch/library.h>

namespace djinn_torch {

thread_local bool uploading_weights = false;

Cell::~Cell()
{
    djinn_release(handle.load());
}

/* ---- guard, allocator, hooks ---- */

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kDevice> {
    c10::Device getDevice() const override
    {
        return {kDevice, 0};
    }
    c10::Device exchangeDevice(c10::Device) const override
    {
        return {kDevice, 0};
    }
    c10::Stream getStream(c10::Device) const noexcept override
    {
        return c10::Stream(c10::Stream::DEFAULT, {kDevice, 0});
    }
    c10::Stream getDefaultStream(c10::Device) const override
    {
        return c10::Stream(c10::Stream::DEFAULT, {kDevice, 0});
    }
    c10::Stream exchangeStream(c10::Stream) const noexcept override
    {
        return c10::Stream(c10::Stream::DEFAULT, {kDevice, 0});
    }
    /* One stream, in order, whichever thread records: so an event has happened when it is asked for. */
    void record(void **, const c10::Stream &, c10::DeviceIndex, c10::EventFlag) const override {}
    void block(void *, const c10::Stream &) const override {}
    bool queryEvent(void *) const override
    {
        return true;
    }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

static void delete_cell(void *cell)
{
    delete static_cast<Cell *>(cell);
}

struct CellAllocator final : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override
    {
        auto *cell = new Cell;
        cell->bytes = bytes;
        return {cell, cell, &delete_cell, c10::Device(kDevice, 0)};
    }
    c10::DeleterFnPtr raw_deleter() const override
    {
        return &delete_cell;
    }
    void copy_data(void *, const void *, std::size_t) const override
    {
        TORCH_CHECK(false, "the bytes of a djinn tensor cannot be copied through pointers");
    }
};
static CellAllocator allocator;

struct Hooks final : at::PrivateUse1HooksInterface {
    bool isBuilt() const override
    {
        return true;
    }
    bool isAvailable() const override
    {
        return true;
    }
    bool hasPrimaryContext(c10::DeviceIndex) const override
    {
        return true;
    }
    c10::DeviceIndex deviceCount() const override
    {
        return 1;
    }
    c10::DeviceIndex getCurrentDevice() const override
    {
        return 0;
    }
    void setCurrentDevice(c10::DeviceIndex) const override {}
    c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override
    {
        return 0;
    }
    c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override
    {
        return 0;
    }
    /* Random numbers are drawn on the host and uploaded, so the host's generator is ours. */
    const at::Generator &getDefaultGenerator(c10::DeviceIndex) const override
    {
        return at::detail::getDefaultCPUGenerator();
    }
    at::Generator getNewGenerator(c10::DeviceIndex) const override
    {
        return at::detail::createCPUGenerator();
    }
    c10::Device getDeviceFromPtr(void *) const override
    {
        return {kDevice, 0};
    }
    void resizePrivateUse1Bytes(const c10::Storage &storage, size_t bytes) const override;
};

/* ---- data types ---- */

static constexpr c10::ScalarType kTypes[] = {
    c10::ScalarType::Bool,  c10::ScalarType::Byte, c10::ScalarType::Char,
    c10::ScalarType::Short, c10::ScalarType::Int,  c10::ScalarType::Long,
    c10::ScalarType::Half,  c10::ScalarType::BFloat16, c10::ScalarType::Float,
    c10::ScalarType::Double,
};

c10::ScalarType scalar_type(int dtype)
{
    TORCH_INTERNAL_ASSERT(dtype >= 0 && dtype < (int)std::size(kTypes));
    return kTypes[dtype];
}

int dtype_of(c10::ScalarType type)
{
    for (int i = 0; i < (int)std::size(kTypes); i++)
        if (kTypes[i] == type)
            return i;
    TORCH_CHECK_TYPE(false, "djinn has no tensors of type ", type, ": convert on the host first");
}

/* ---- tensors ---- */

static at::Tensor make(c10::DataPtr data, size_t bytes, c10::ScalarType type, c10::IntArrayRef sizes,
                       c10::IntArrayRef strides)
{
    auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), bytes,
                                                         std::move(data), &allocator, true);
    auto tensor = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(std::move(storage)), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
        c10::scalarTypeToTypeMeta(type));
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
    return tensor;
}

static size_t extent_bytes(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType type)
{
    return at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(type));
}

at::Tensor make_empty(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType type)
{
    dtype_of(type);
    size_t bytes = extent_bytes(sizes, strides, type);
    return make(allocator.allocate(bytes), bytes, type, sizes, strides);
}

at::Tensor wrap(const djinn_tensor_t &tensor)
{
    size_t bytes = djinn_storage_bytes(tensor.storage);
    auto data = allocator.allocate(bytes);
    static_cast<Cell *>(data.get())->handle = tensor.storage;
    size_t rank = (size_t)tensor.rank;
    return make(std::move(data), bytes, scalar_type(tensor.dtype), {tensor.sizes, rank},
                {tensor.strides, rank});
}

Cell *cell_of(const at::Tensor &tensor)
{
    TORCH_INTERNAL_ASSERT(tensor.device().type() == kDevice);
    return static_cast<Cell *>(
        tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl()->data_ptr().get_context());
}

static djinn_storage_t *materialise(Cell *cell)
{
    djinn_storage_t *handle = cell->handle.load(std::memory_order_acquire);
    if (handle)
        return handle;
    static const int op = row("djinn::empty");
    int64_t bytes = (int64_t)cell->bytes;
    djinn_arg_t args[2] = {};
    djinn_tensor_t out;
    args[0].kind = DJINN_ARG_INTS;
    args[0].count = 1;
    args[0].value.integers = &bytes;
    args[1].kind = DJINN_ARG_INT;
    args[1].value.integer = DJINN_UINT8;
    check(djinn_record(connection(), op, args, 2, &out));
    if (cell->handle.compare_exchange_strong(handle, out.storage))
        return out.storage;
    djinn_release(out.storage);
    return handle;
}

static void look_at(const at::Tensor &tensor, djinn_storage_t *storage, djinn_tensor_t *out)
{
    auto *impl = tensor.unsafeGetTensorImpl();
    auto sizes = impl->sizes(), strides = impl->strides();
    TORCH_CHECK(sizes.size() <= DJINN_MAX_RANK, "a djinn tensor has at most ", DJINN_MAX_RANK,
                " dimensions, this one ", sizes.size());
    out->storage = storage;
    out->dtype = dtype_of(c10::typeMetaToScalarType(impl->dtype()));
    out->rank = (int32_t)sizes.size();
    out->offset = impl->storage_offset();
    for (size_t i = 0; i < sizes.size(); i++) {
        out->sizes[i] = sizes[i];
        out->strides[i] = strides[i];
    }
}

void look(const at::Tensor &tensor, djinn_tensor_t *out)
{
    look_at(tensor, materialise(cell_of(tensor)), out);
}

bool is_untouched(const at::Tensor &tensor)
{
    Cell *cell = cell_of(tensor);
    return cell->handle.load(std::memory_order_relaxed) == nullptr && tensor.storage_offset() == 0 &&
           tensor.nbytes() == cell->bytes && tensor.is_non_overlapping_and_dense();
}

void adopt(const at::Tensor &tensor, djinn_storage_t *storage)
{
    Cell *cell = cell_of(tensor);
    djinn_storage_t *none = nullptr;
    if (djinn_storage_bytes(storage) >= cell->bytes &&
        cell->handle.compare_exchange_strong(none, storage))
        return;
    djinn_release(storage);
    TORCH_CHECK(false, "a djinn tensor was written by two threads at once");
}

/* ---- moves ---- */

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

static void resize(const at::Tensor &self, c10::IntArrayRef sizes)
{
    size_t bytes = (size_t)c10::multiply_integers(sizes) * self.itemsize() +
                   (size_t)self.storage_offset() * self.itemsize();
    if (bytes > self.storage().nbytes())
        at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(self.storage(), bytes);
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

void Hooks::resizePrivateUse1Bytes(const c10::Storage &storage, size_t bytes) const
{
    auto *impl = storage.unsafeGetStorageImpl();
    auto bytes_of = [](const c10::DataPtr &data, int64_t n) {
        djinn_tensor_t view = {};
        view.storage = materialise(static_cast<Cell *>(data.get_context()));
        view.dtype = DJINN_UINT8;
        view.rank = 1;
        view.sizes[0] = n;
        view.strides[0] = 1;
        return view;
    };
    size_t old = impl->nbytes();
    c10::DataPtr grown = allocator.allocate(bytes);
    if (static_cast<Cell *>(impl->data_ptr().get_context())->handle.load() && old > 0) {
        int64_t kept = (int64_t)std::min(old, bytes);
        djinn_tensor_t from = bytes_of(impl->data_ptr(), kept), to = bytes_of(grown, kept);
        djinn_arg_t arg = {};
        arg.kind = DJINN_ARG_TENSOR;
        arg.value.tensors = &from;
        check(djinn_record_into(connection(), row("djinn::copy"), &arg, 1, &to));
    }
    impl->set_data_ptr(std::move(grown));
    impl->set_nbytes(bytes);
}

static c10::Scalar local_scalar(const at::Tensor &self)
{
    at::Tensor host = at::empty({}, at::TensorOptions().dtype(self.dtype()));
    fetch(self, host.mutable_data_ptr(), host.nbytes());
    return host.item();
}

/* ---- creation and views ---- */

static at::Tensor empty_format(c10::SymIntArrayRef sizes, std::optional<c10::ScalarType> type,
                               std::optional<c10::Layout>, std::optional<c10::Device>,
                               std::optional<bool>, std::optional<c10::MemoryFormat> format)
{
    auto shape = C10_AS_INTARRAYREF_SLOW(sizes);
    auto strides = c10::contiguous_strides(shape);
    at::Tensor tensor = make_empty(shape, strides, c10::dtype_or_default(type));
    if (format && *format != c10::MemoryFormat::Contiguous &&
        *format != c10::MemoryFormat::Preserve)
        tensor.unsafeGetTensorImpl()->empty_tensor_restride(*format);
    return tensor;
}

static at::Tensor empty_strided(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                                std::optional<c10::ScalarType> type, std::optional<c10::Layout>,
                                std::optional<c10::Device>, std::optional<bool>)
{
    return make_empty(C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides),
                      c10::dtype_or_default(type));
}

static at::Tensor as_strided(const at::Tensor &self, c10::SymIntArrayRef sizes,
                             c10::SymIntArrayRef strides, std::optional<c10::SymInt> offset)
{
    std::optional<int64_t> at_element;
    if (offset)
        at_element = offset->expect_int();
    return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(sizes),
                                             C10_AS_INTARRAYREF_SLOW(strides), at_element);
}

static at::Tensor view(const at::Tensor &self, c10::SymIntArrayRef sizes)
{
    return at::native::view(self, C10_AS_INTARRAYREF_SLOW(sizes));
}

static at::Tensor reshape_alias(const at::Tensor &self, c10::SymIntArrayRef sizes,
                                c10::SymIntArrayRef strides)
{
    return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(sizes),
                                      C10_AS_INTARRAYREF_SLOW(strides));
}

static at::Tensor &set_storage(at::Tensor &self, c10::Storage source, c10::SymInt offset,
                               c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides)
{
    auto *impl = self.unsafeGetTensorImpl();
    impl->set_storage_keep_dtype(std::move(source));
    impl->set_storage_offset(offset.expect_int());
    auto shape = C10_AS_INTARRAYREF_SLOW(sizes);
    if (strides.size() == shape.size())
        impl->set_sizes_and_strides(shape, C10_AS_INTARRAYREF_SLOW(strides));
    else
        impl->set_sizes_contiguous(shape);
    return self;
}

static at::Tensor &set_tensor(at::Tensor &self, const at::Tensor &source)
{
    return set_storage(self, source.storage(), source.sym_storage_offset(), source.sym_sizes(),
                       source.sym_strides());
}

static at::Tensor &set_source(at::Tensor &self, c10::Storage source)
{
    int64_t n = (int64_t)(source.nbytes() / self.itemsize());
    return set_storage(self, std::move(source), 0, c10::SymIntArrayRef({c10::SymInt(n)}), {});
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m)
{
    m.impl("empty.memory_format", TORCH_FN(empty_format));
    m.impl("empty_strided", TORCH_FN(empty_strided));
    m.impl("as_strided", TORCH_FN(as_strided));
    m.impl("view", TORCH_FN(view));
    m.impl("_reshape_alias", TORCH_FN(reshape_alias));
    m.impl("unfold", TORCH_FN(at::native::unfold));
    m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
    m.impl("set_.source_Tensor", TORCH_FN(set_tensor));
    m.impl("set_.source_Storage", TORCH_FN(set_source));
    m.impl("resize_", TORCH_FN(resize_));
    m.impl("copy_", TORCH_FN(copy_));
    m.impl("_copy_from", TORCH_FN(copy_from));
    m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
    m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
}

struct AtLoad {
    AtLoad()
    {
        static Hooks hooks;
        at::RegisterPrivateUse1HooksInterface(&hooks);
        c10::SetAllocator(kDevice, &allocator);
    }
};
static AtLoad at_load;

} // namespace djinn_torch
