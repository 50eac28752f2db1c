/* device.cpp - the device itself: guard, allocator, storages, creation, views.
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
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/strides.h>
#include <torch/library.h>

namespace djinn_torch
{

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
    /* One stream, in order, whichever thread records: so an event has happened when it is asked
     * for. */
    void record(void **, const c10::Stream &, c10::DeviceIndex, c10::EventFlag) const override
    {
    }
    void block(void *, const c10::Stream &) const override
    {
    }
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

c10::DataPtr new_cell(size_t bytes)
{
    return allocator.allocate(bytes);
}

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
    void setCurrentDevice(c10::DeviceIndex) const override
    {
    }
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
    void resizePrivateUse1Bytes(const c10::Storage &storage, size_t bytes) const override
    {
        resize_storage(storage, bytes);
    }
};

/* ---- data types ---- */

static constexpr c10::ScalarType kTypes[] = {
    c10::ScalarType::Bool,   c10::ScalarType::Byte,     c10::ScalarType::Char,
    c10::ScalarType::Short,  c10::ScalarType::Int,      c10::ScalarType::Long,
    c10::ScalarType::Half,   c10::ScalarType::BFloat16, c10::ScalarType::Float,
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

static at::Tensor make(c10::DataPtr data, size_t bytes, c10::ScalarType type,
                       c10::IntArrayRef sizes, c10::IntArrayRef strides)
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

/* The Cell is the storage's data and its context: PyTorch's serialiser makes tensors of the data
 * alone. */
static Cell *cell_in(const c10::StorageImpl &storage)
{
    auto *cell = static_cast<Cell *>(storage.data_ptr().get());
    TORCH_CHECK(cell != nullptr, "a djinn tensor without a storage");
    return cell;
}

Cell *cell_of(const at::Tensor &tensor)
{
    TORCH_INTERNAL_ASSERT(tensor.device().type() == kDevice);
    return cell_in(*tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl());
}

djinn_storage_t *materialise(Cell *cell)
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
    return cell->handle.load(std::memory_order_relaxed) == nullptr &&
           tensor.storage_offset() == 0 && tensor.nbytes() == cell->bytes &&
           tensor.is_non_overlapping_and_dense();
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
