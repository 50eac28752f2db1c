/* capture.cpp - one boxed kernel records every op of the table.
 *
 * register_rows() walks PyTorch's schemas and registers a Row for each that a row of
 * planner/ops.def serves: the functional form by its name, the in-place form (same arguments, name
 * with '_') and the out= form (same arguments, then out) beside it. The kernel turns the IValues on
 * the stack into djinn_arg_t as the row's signature says, so a new row needs no code here. What has
 * no schema of its own (djinn::full, attention ...) or another argument order is mapped by hand in
 * ops.cpp, which also has the way to the host for ops without a row. */
#include "encoder.h"

#include <string>

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace djinn_torch
{

using torch::jit::Stack;

int row(const char *name)
{
    int op = djinn_op(name);
    TORCH_CHECK(op >= 0, "libdjinn has no op ", name, ": library and frontend are of two builds");
    return op;
}

/* ---- arguments ---- */

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

/* A wrapped number (x * 2) travels as a scalar. Another 0-dimensional host tensor is a tensor to
 * type promotion, and is sent as one. */
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
        integers_[n_integers_++] = value.isBool() ? value.toBool() : value.toInt();
    return {start, values.size()};
}

void Encoder::element(const at::Tensor &tensor, std::vector<djinn_tensor_t> &places)
{
    places.emplace_back();
    if (tensor.device().type() == kDevice)
        return look(tensor, &places.back());
    uploads_.push_back(upload(tensor));
    look(uploads_.back(), &places.back());
}

/* Elements of a list may be absent; indices may lie on the host. A mask as an index gives a result
 * whose size only its values tell: they are fetched here, and the mask becomes the places where it
 * is true. */
void Encoder::list(const c10::IValue &value)
{
    TORCH_INTERNAL_ASSERT(n_lists_ < 2);
    auto &places = list_[n_lists_++];
    for (const auto &given : value.toListRef()) {
        if (given.isNone() || !given.toTensor().defined()) {
            places.emplace_back().storage = nullptr;
            continue;
        }
        const at::Tensor &tensor = given.toTensor();
        if (letter_ == 'L' && (tensor.dtype() == at::kBool || tensor.dtype() == at::kByte))
            for (const auto &index : tensor.cpu().nonzero().unbind(1))
                element(index, places);
        else
            element(tensor, places);
    }
    args[n].kind = DJINN_ARG_TENSORS;
    args[n].count = (int32_t)places.size();
    args[n++].value.tensors = places.data();
}

void Encoder::argument(char letter, const c10::IValue &value)
{
    if (letter == '-' || value.isNone())
        return none();
    letter_ = letter;
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
        return value.isList() ? integers(keep(value.toListRef())) : integers(keep({value}));
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

class RowKernel final : public c10::OperatorKernel
{
  public:
    explicit RowKernel(const Row &row) : row_(row)
    {
    }
    void operator()(const c10::OperatorHandle &handle, c10::DispatchKeySet, Stack *stack);

  private:
    void run(const at::ArrayRef<c10::IValue> &args, c10::SmallVectorImpl<at::Tensor> &results);
    void into(int op, Encoder &encoder, const at::Tensor &target);
    Row row_;
};

void record_new(int op, Encoder &encoder, int n_outs, c10::SmallVectorImpl<at::Tensor> &results)
{
    djinn_tensor_t outs[DJINN_MAX_OUTS];
    check(djinn_record(connection(), op, encoder.args, encoder.n, outs));
    for (int i = 0; i < n_outs; i++)
        results.push_back(wrap(outs[i]));
}

/* out=: an untouched target of the right layout takes the new storage as it is. In place, a result
 * may not lose its category (int += 1.5). */
void RowKernel::into(int op, Encoder &encoder, const at::Tensor &target)
{
    djinn_tensor_t outs[DJINN_MAX_OUTS], to;
    int count;
    if (row_.form == Form::out || !target.is_floating_point()) {
        check(djinn_infer(op, encoder.args, encoder.n, outs, &count));
        TORCH_CHECK(c10::canCast(scalar_type(outs[0].dtype), target.scalar_type()), "result type ",
                    scalar_type(outs[0].dtype), " can't be cast to the desired output type ",
                    target.scalar_type());
    }
    if (row_.form == Form::out) {
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

void RowKernel::run(const at::ArrayRef<c10::IValue> &args,
                    c10::SmallVectorImpl<at::Tensor> &results)
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
    djinn_t *djinn = connection();
    if (C10_UNLIKELY(!djinn_supports(djinn, row_.op) ||
                     (row_.alternate >= 0 && !djinn_supports(djinn, row_.alternate))))
        return run_on_host_for_rank(handle, stack);
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
            if (end[1] == 'v')
                continue; /* views are PyTorch's own (device.cpp) */
            Row row{op, -1, signature, (int)(end - signature), end[1] == '!' ? 0 : end[1] - '0',
                    {}};
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

} // namespace djinn_torch
