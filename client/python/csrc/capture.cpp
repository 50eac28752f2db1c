/* capture.cpp - one boxed kernel records every op of the table.
 *
 * register_rows() walks PyTorch's schemas and registers a Row for each that a row of planner/ops.def
 * serves: the functional form by its name, the in-place form (same arguments, name with '_') and the
 * out= form (same arguments, then out) beside it. The kernel turns the IValues on the stack into
 * djinn_arg_t as the row's signature says, so a new row needs no code here. What has no schema of its
 * own (djinn::full, attention ...) or another argument order is mapped by hand at the end.
 *
 * Ops without a row run on the host: fetched, computed, sent back, with one warning a name. */
#include "shim.h"

#include <set>
#include <mutex>
#include <string>

#include <ATen/ExpandUtils.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/library.h>

namespace djinn_torch {

using torch::jit::Stack;

int row(const char *name)
{
    int op = djinn_op(name);
    TORCH_CHECK(op >= 0, "libdjinn has no op ", name, ": library and frontend are of two builds");
    return op;
}

/* ---- arguments ---- */

/* The arguments of one call. Tensors and integers live in arrays that never move. */
class Encoder {
public:
    djinn_arg_t args[DJINN_MAX_ARGS];
    int n = 0;

    void tensor(const at::Tensor &tensor);
    void none()
    {
        args[n++].kind = DJINN_ARG_NONE;
    }
    void integer(int64_t value)
    {
        args[n].kind = DJINN_ARG_INT;
        args[n++].value.integer = value;
    }
    void integers(c10::IntArrayRef values); /* which outlive the encoder */
    void scalar(const c10::Scalar &value);
    void dtype(std::optional<c10::ScalarType> type)
    {
        type ? integer(dtype_of(*type)) : none();
    }
    void argument(char letter, const c10::IValue &value);

private:
    void list(const c10::IValue &value);
    c10::IntArrayRef keep(c10::ArrayRef<c10::IValue> values);
    djinn_tensor_t fixed_[DJINN_MAX_ARGS];
    int n_fixed_ = 0;
    int64_t integers_[4 * DJINN_MAX_RANK];
    size_t n_integers_ = 0;
    std::vector<djinn_tensor_t> list_[2];
    int n_lists_ = 0;
    c10::SmallVector<at::Tensor, 2> uploads_;
};

void Encoder::scalar(const c10::Scalar &value)
{
    djinn_arg_t &arg = args[n++];
    if (value.isBoolean()) {
        arg.kind = DJINN_ARG_BOOL_SCALAR;
        arg.value.integer = value.toBool();
    } else if (value.isIntegral(false)) {
        arg.kind = DJINN_ARG_INT_SCALAR;
        arg.value.integer = value.toLong();
    } else {
        TORCH_CHECK_TYPE(value.isFloatingPoint(), "djinn has no complex numbers");
        arg.kind = DJINN_ARG_REAL_SCALAR;
        arg.value.real = value.toDouble();
    }
}

/* A wrapped number (x * 2) travels as a scalar. Another 0-dimensional host tensor is a tensor to type
 * promotion, and is sent as one. */
void Encoder::tensor(const at::Tensor &tensor)
{
    djinn_arg_t &arg = args[n];
    TORCH_CHECK(tensor.defined(), "an undefined tensor has no place on a djinn device");
    const at::Tensor *used = &tensor;
    if (C10_UNLIKELY(tensor.device().type() != kDevice)) {
        TORCH_CHECK(tensor.is_cpu() && tensor.dim() == 0,
                    "Expected all tensors to be on the same device, but found one on ",
                    tensor.device(), " beside djinn: move it with .to('djinn')");
        if (tensor.unsafeGetTensorImpl()->is_wrapped_number())
            return scalar(tensor.item());
        uploads_.push_back(upload(tensor));
        used = &uploads_.back();
    }
    djinn_tensor_t *place = &fixed_[n_fixed_++];
    look(*used, place);
    arg.kind = DJINN_ARG_TENSOR;
    arg.count = 1;
    arg.value.tensors = place;
    n++;
}

void Encoder::integers(c10::IntArrayRef values)
{
    args[n].kind = DJINN_ARG_INTS;
    args[n].count = (int32_t)values.size();
    args[n++].value.integers = values.data();
}

c10::IntArrayRef Encoder::keep(c10::ArrayRef<c10::IValue> values)
{
    TORCH_CHECK(values.size() <= std::size(integers_) - n_integers_, "a list of ", values.size(),
                " integers is longer than djinn's ", std::size(integers_));
    int64_t *start = integers_ + n_integers_;
    for (const auto &value : values)
        integers_[n_integers_++] = value.toInt();
    return {start, values.size()};
}

/* Elements of a list may be absent; indices may lie on the host. */
void Encoder::list(const c10::IValue &value)
{
    auto elements = value.toListRef();
    TORCH_INTERNAL_ASSERT(n_lists_ < 2);
    auto &places = list_[n_lists_++];
    places.resize(elements.size());
    for (size_t i = 0; i < elements.size(); i++) {
        if (elements[i].isNone() || !elements[i].toTensor().defined()) {
            places[i].storage = nullptr;
        } else if (elements[i].toTensor().is_cpu()) {
            uploads_.push_back(upload(elements[i].toTensor()));
            look(uploads_.back(), &places[i]);
        } else {
            look(elements[i].toTensor(), &places[i]);
        }
    }
    args[n].kind = DJINN_ARG_TENSORS;
    args[n].count = (int32_t)places.size();
    args[n++].value.tensors = places.data();
}

void Encoder::argument(char letter, const c10::IValue &value)
{
    if (letter == '-' || value.isNone())
        return none();
    switch (letter) {
    case 't':
    case 'T':
        if (value.isTensor())
            return value.toTensor().defined() ? tensor(value.toTensor()) : none();
        return scalar(value.toScalar());
    case 'l':
    case 'L':
        return list(value);
    case 'N':
    case 'D':
        return value.isInt() ? integers(keep({value})) : integers(keep(value.toListRef()));
    case 'y':
        return integer(dtype_of(value.toScalarType()));
    case 's':
    case 'S':
        return scalar(value.toScalar());
    default:
        return integer(value.isBool() ? value.toBool() : value.toInt());
    }
}

/* ---- the kernel of every row ---- */

enum class Form { functional, in_place, out, writes };

struct Row {
    int op;
    int alternate = -1; /* gelu: the op for approximate="tanh" */
    const char *signature;
    int n_args, n_outs;
    Form form;
};

class RowKernel final : public c10::OperatorKernel {
public:
    explicit RowKernel(const Row &row) : row_(row) {}
    void operator()(const c10::OperatorHandle &handle, c10::DispatchKeySet, Stack *stack);

private:
    void run(const at::ArrayRef<c10::IValue> &args, c10::SmallVectorImpl<at::Tensor> &results);
    void into(int op, Encoder &encoder, const at::Tensor &target);
    Row row_;
};

static void record_new(int op, Encoder &encoder, int n_outs, c10::SmallVectorImpl<at::Tensor> &results)
{
    djinn_tensor_t outs[DJINN_MAX_OUTS];
    check(djinn_record(connection(), op, encoder.args, encoder.n, outs));
    for (int i = 0; i < n_outs; i++)
        results.push_back(wrap(outs[i]));
}

/* out=: an untouched target of the right layout takes the new storage as it is. */
void RowKernel::into(int op, Encoder &encoder, const at::Tensor &target)
{
    djinn_tensor_t outs[DJINN_MAX_OUTS], to;
    int count;
    if (row_.form == Form::out) {
        check(djinn_infer(op, encoder.args, encoder.n, outs, &count));
        c10::IntArrayRef sizes(outs[0].sizes, (size_t)outs[0].rank);
        if (target.sizes() != sizes)
            target.resize_(sizes);
        if (is_untouched(target) && outs[0].dtype == dtype_of(target.scalar_type()) &&
            target.strides() == c10::IntArrayRef(outs[0].strides, (size_t)outs[0].rank)) {
            check(djinn_record(connection(), op, encoder.args, encoder.n, outs));
            return adopt(target, outs[0].storage);
        }
    }
    look(target, &to);
    check(djinn_record_into(connection(), op, encoder.args, encoder.n, &to));
}

void RowKernel::run(const at::ArrayRef<c10::IValue> &args, c10::SmallVectorImpl<at::Tensor> &results)
{
    Encoder encoder;
    int op = row_.op, n_args = row_.n_args;
    if (row_.alternate >= 0 && args[1].toStringRef() == "tanh") {
        op = row_.alternate;
        n_args = 1;
    }
    for (int i = 0; i < n_args; i++)
        encoder.argument(row_.signature[i], args[(size_t)i]);
    switch (row_.form) {
    case Form::functional:
        return record_new(op, encoder, row_.n_outs, results);
    case Form::writes:
        check(djinn_record(connection(), op, encoder.args, encoder.n, nullptr));
        return results.push_back(args[0].toTensor());
    case Form::in_place:
        into(op, encoder, args[0].toTensor());
        return results.push_back(args[0].toTensor());
    case Form::out:
        break;
    }
    if (row_.n_outs == 1) {
        into(op, encoder, args[(size_t)row_.n_args].toTensor());
        return results.push_back(args[(size_t)row_.n_args].toTensor());
    }
    c10::SmallVector<at::Tensor, DJINN_MAX_OUTS> made;
    record_new(op, encoder, row_.n_outs, made);
    for (int i = 0; i < row_.n_outs; i++) {
        at::Tensor out = args[(size_t)(row_.n_args + i)].toTensor();
        if (out.sizes() != made[i].sizes())
            out.resize_(made[i].sizes());
        results.push_back(copy_(out, made[i], false));
    }
}

void RowKernel::operator()(const c10::OperatorHandle &handle, c10::DispatchKeySet, Stack *stack)
{
    size_t n = handle.schema().arguments().size();
    c10::SmallVector<at::Tensor, DJINN_MAX_OUTS> results;
    run(torch::jit::last(*stack, n), results);
    torch::jit::drop(*stack, n);
    for (auto &result : results)
        stack->emplace_back(std::move(result));
}

/* ---- registration ---- */

static bool same_arguments(const c10::FunctionSchema &a, const c10::FunctionSchema &b, size_t extra)
{
    const auto &x = a.arguments(), &y = b.arguments();
    if (x.size() + extra != y.size())
        return false;
    for (size_t i = 0; i < x.size(); i++)
        if (x[i].name() != y[i].name() || *x[i].type() != *y[i].type())
            return false;
    for (size_t i = x.size(); i < y.size(); i++)
        if (!y[i].is_out())
            return false;
    return true;
}

static torch::Library &library()
{
    static torch::Library lib(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__,
                              __LINE__);
    return lib;
}

static void register_form(const c10::OperatorName &name, Row row, Form form)
{
    row.form = form;
    std::string text = name.name + (name.overload_name.empty() ? "" : "." + name.overload_name);
    library().impl(text.c_str(),
                   torch::CppFunction::makeFromBoxedFunctor(std::make_unique<RowKernel>(row)));
}

void register_rows()
{
    auto &dispatcher = c10::Dispatcher::singleton();
    std::unordered_map<std::string, std::vector<const c10::FunctionSchema *>> by_name;
    auto names = dispatcher.getAllOpNames();
    for (const auto &name : names)
        if (name.name.compare(0, 6, "aten::") == 0)
            if (auto handle = dispatcher.findSchema(name))
                by_name[name.name].push_back(&handle->schema());
    for (const auto &[base, schemas] : by_name) {
        for (const auto *schema : schemas) {
            const auto &name = schema->operator_name();
            int op = djinn_op(c10::toString(name).c_str());
            if (op < 0)
                continue;
            const char *signature = djinn_op_signature(op);
            const char *end = strchr(signature, '>');
            Row row{op, -1, signature, (int)(end - signature), end[1] == '!' ? 0 : end[1] - '0', {}};
            if (base == "aten::gelu")
                row.alternate = djinn_op("djinn::gelu_tanh");
            register_form(name, row, row.n_outs ? Form::functional : Form::writes);
            for (const auto *other : schemas)
                if (other != schema && row.n_outs &&
                    same_arguments(*schema, *other, (size_t)row.n_outs))
                    register_form(other->operator_name(), row, Form::out);
            auto in_place = by_name.find(base + "_");
            if (in_place != by_name.end() && row.n_outs == 1)
                for (const auto *other : in_place->second)
                    if (same_arguments(*schema, *other, 0))
                        register_form(other->operator_name(), row, Form::in_place);
        }
    }
}

/* ---- rows mapped by hand ---- */

static at::Tensor record_one(const char *name, Encoder &encoder)
{
    c10::SmallVector<at::Tensor, DJINN_MAX_OUTS> made;
    record_new(row(name), encoder, 1, made);
    return std::move(made[0]);
}

static void record_full(const at::Tensor &self, const c10::Scalar &value)
{
    static const int op = row("djinn::full");
    Encoder encoder;
    djinn_tensor_t out;
    int64_t flat = self.numel();
    bool fresh = is_untouched(self);
    if (flat == 0)
        return;
    encoder.integers(fresh ? c10::IntArrayRef(flat) : self.sizes());
    encoder.scalar(value);
    encoder.dtype(self.scalar_type());
    if (fresh) {
        check(djinn_record(connection(), op, encoder.args, encoder.n, &out));
        return adopt(self, out.storage);
    }
    look(self, &out);
    check(djinn_record_into(connection(), op, encoder.args, encoder.n, &out));
}

static at::Tensor &fill_scalar(at::Tensor &self, const c10::Scalar &value)
{
    record_full(self, value);
    return self;
}

static at::Tensor &fill_tensor(at::Tensor &self, const at::Tensor &value)
{
    TORCH_CHECK(value.dim() == 0, "fill_ takes a number or a 0-dimensional tensor, not ",
                value.dim(), " dimensions");
    if (value.is_cpu())
        return fill_scalar(self, value.item());
    return copy_(self, value, false);
}

static at::Tensor &zero_(at::Tensor &self)
{
    record_full(self, 0);
    return self;
}

static at::Tensor arange_step(const c10::Scalar &start, const c10::Scalar &end, const c10::Scalar &step,
                              std::optional<c10::ScalarType> type, std::optional<c10::Layout>,
                              std::optional<c10::Device>, std::optional<bool>)
{
    bool whole = start.isIntegral(true) && end.isIntegral(true) && step.isIntegral(true);
    double from = start.toDouble(), to = end.toDouble(), by = step.toDouble();
    TORCH_CHECK(by != 0, "step must be nonzero");
    TORCH_CHECK(std::isfinite(from) && std::isfinite(to), "unsupported range: ", from, " -> ", to);
    TORCH_CHECK(by > 0 ? to >= from : to <= from,
                "upper bound and lower bound inconsistent with step sign");
    int64_t count = (int64_t)std::ceil((to - from) / by);
    if (whole) {
        int64_t span = end.toLong() - start.toLong(), stride = step.toLong();
        count = (span + stride - (stride > 0 ? 1 : -1)) / stride;
    }
    Encoder encoder;
    encoder.integer(count);
    encoder.scalar(start);
    encoder.scalar(step);
    encoder.dtype(type ? *type : whole ? c10::ScalarType::Long : c10::get_default_dtype_as_scalartype());
    return record_one("djinn::arange", encoder);
}

static at::Tensor arange_start(const c10::Scalar &start, const c10::Scalar &end,
                               std::optional<c10::ScalarType> type, std::optional<c10::Layout> layout,
                               std::optional<c10::Device> device, std::optional<bool> pin)
{
    return arange_step(start, end, 1, type, layout, device, pin);
}

static at::Tensor arange(const c10::Scalar &end, std::optional<c10::ScalarType> type,
                         std::optional<c10::Layout> layout, std::optional<c10::Device> device,
                         std::optional<bool> pin)
{
    return arange_step(0, end, 1, type, layout, device, pin);
}

/* Reductions over everything, or over one dimension, in terms of the rows that take lists. */
static at::Tensor reduce(const char *name, const at::Tensor &self, const int64_t *dim, bool keepdim)
{
    Encoder encoder;
    encoder.tensor(self);
    dim ? encoder.integers({dim, 1}) : encoder.none();
    encoder.integer(keepdim);
    return record_one(name, encoder);
}

static at::Tensor any_all(const at::Tensor &self)
{
    return reduce("aten::any.dims", self, nullptr, false);
}

static at::Tensor all_all(const at::Tensor &self)
{
    return reduce("aten::all.dims", self, nullptr, false);
}

static at::Tensor any_dim(const at::Tensor &self, int64_t dim, bool keepdim)
{
    return reduce("aten::any.dims", self, &dim, keepdim);
}

static at::Tensor all_dim(const at::Tensor &self, int64_t dim, bool keepdim)
{
    return reduce("aten::all.dims", self, &dim, keepdim);
}

static at::Tensor max_all(const at::Tensor &self)
{
    TORCH_CHECK(self.numel() > 0, "max(): Expected reduction dim to be specified for input.numel() == 0");
    return reduce("aten::amax", self, nullptr, false);
}

static at::Tensor min_all(const at::Tensor &self)
{
    TORCH_CHECK(self.numel() > 0, "min(): Expected reduction dim to be specified for input.numel() == 0");
    return reduce("aten::amin", self, nullptr, false);
}

static at::Tensor index_copy(const at::Tensor &self, int64_t dim, const at::Tensor &index,
                             const at::Tensor &source)
{
    return self.clone().index_copy_(dim, index, source);
}

static at::Tensor attention(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value,
                            const std::optional<at::Tensor> &mask, double dropout, bool causal,
                            std::optional<double> scale, bool grouped)
{
    Encoder encoder;
    encoder.tensor(query);
    encoder.tensor(key);
    encoder.tensor(value);
    mask && mask->defined() ? encoder.tensor(*mask) : encoder.none();
    encoder.scalar(dropout);
    encoder.integer(causal);
    scale ? encoder.scalar(*scale) : encoder.none();
    encoder.integer(grouped);
    return record_one("djinn::attention", encoder);
}

/* What autograd asks of linear, which it sees whole; in terms of matrix products. */
static std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_backward(const at::Tensor &self,
                                                                      const at::Tensor &grad,
                                                                      const at::Tensor &weight,
                                                                      std::array<bool, 3> wanted)
{
    at::Tensor flat = grad.reshape({-1, weight.size(0)}), input, weights, bias;
    if (wanted[0])
        input = flat.mm(weight).reshape(self.sizes());
    if (wanted[1])
        weights = flat.t().mm(self.reshape({-1, weight.size(1)}));
    if (wanted[2])
        bias = flat.sum(0);
    return {input, weights, bias};
}

static bool any_grad(std::initializer_list<const at::Tensor *> tensors)
{
    for (const auto *tensor : tensors)
        if (tensor->defined() && tensor->requires_grad())
            return true;
    return false;
}

/* Attention stays one op unless gradients, or dropout, ask for its parts. */
static at::Tensor attention_autograd(const at::Tensor &query, const at::Tensor &key,
                                     const at::Tensor &value, const std::optional<at::Tensor> &mask,
                                     double dropout, bool causal, std::optional<double> scale,
                                     bool grouped)
{
    bool grad = c10::GradMode::is_enabled() &&
                (any_grad({&query, &key, &value}) || (mask && any_grad({&*mask})));
    if (grad || dropout > 0)
        return std::get<0>(at::_scaled_dot_product_attention_math(query, key, value, mask, dropout,
                                                                  causal, {}, scale, grouped));
    at::AutoDispatchBelowADInplaceOrView below;
    return at::scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale, grouped);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m)
{
    m.impl("fill_.Scalar", TORCH_FN(fill_scalar));
    m.impl("fill_.Tensor", TORCH_FN(fill_tensor));
    m.impl("zero_", TORCH_FN(zero_));
    m.impl("arange", TORCH_FN(arange));
    m.impl("arange.start", TORCH_FN(arange_start));
    m.impl("arange.start_step", TORCH_FN(arange_step));
    m.impl("any", TORCH_FN(any_all));
    m.impl("all", TORCH_FN(all_all));
    m.impl("any.dim", TORCH_FN(any_dim));
    m.impl("all.dim", TORCH_FN(all_dim));
    m.impl("max", TORCH_FN(max_all));
    m.impl("min", TORCH_FN(min_all));
    m.impl("index_copy", TORCH_FN(index_copy));
    m.impl("linear_backward", TORCH_FN(linear_backward));
    m.impl("scaled_dot_product_attention", TORCH_FN(attention));
}

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m)
{
    m.impl("scaled_dot_product_attention", TORCH_FN(attention_autograd));
}

/* ---- ops without a row ---- */

static void run_on_host(const c10::OperatorHandle &handle, Stack *stack)
{
    static std::mutex lock;
    static std::set<std::string> warned;
    std::string name = c10::toString(handle.operator_name());
    bool first;
    {
        std::lock_guard<std::mutex> guard(lock);
        first = warned.insert(name).second;
    }
    if (first)
        warn(name + " is not an op of djinn's table: it runs on the host, its operands fetched and its "
                    "results sent back at every call");
    at::native::cpu_fallback(handle, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m)
{
    m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

} // namespace djinn_torch
