/* ops.cpp - ops that no row serves as it stands: other names (full, attention), other arguments
 * (any, max), parts of autograd, and those that run on the host because the table has no row for
 * them. */
#include "encoder.h"

#include <mutex>
#include <set>
#include <string>

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/library.h>

namespace djinn_torch
{

using torch::jit::Stack;

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

static at::Tensor arange_step(const c10::Scalar &start, const c10::Scalar &end,
                              const c10::Scalar &step, std::optional<c10::ScalarType> type,
                              std::optional<c10::Layout>, std::optional<c10::Device>,
                              std::optional<bool>)
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
    encoder.dtype(type    ? *type
                  : whole ? c10::ScalarType::Long
                          : c10::get_default_dtype_as_scalartype());
    return record_one("djinn::arange", encoder);
}

static at::Tensor arange_start(const c10::Scalar &start, const c10::Scalar &end,
                               std::optional<c10::ScalarType> type,
                               std::optional<c10::Layout> layout, std::optional<c10::Device> device,
                               std::optional<bool> pin)
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
    TORCH_CHECK(self.numel() > 0,
                "max(): Expected reduction dim to be specified for input.numel() == 0");
    return reduce("aten::amax", self, nullptr, false);
}

static at::Tensor min_all(const at::Tensor &self)
{
    TORCH_CHECK(self.numel() > 0,
                "min(): Expected reduction dim to be specified for input.numel() == 0");
    return reduce("aten::amin", self, nullptr, false);
}

static at::Tensor index_copy(const at::Tensor &self, int64_t dim, const at::Tensor &index,
                             const at::Tensor &source)
{
    return self.clone().index_copy_(dim, index, source);
}

/* One head of keys for all of the queries' (multi-query): a view says it. */
static at::Tensor spread(const at::Tensor &keys, const at::Tensor &query, bool grouped)
{
    bool batch = keys.size(0) == 1 && query.size(0) != 1;
    bool heads = keys.size(1) == 1 && query.size(1) != 1 && !grouped;
    if (!batch && !heads)
        return keys;
    return keys.expand({batch ? query.size(0) : -1, heads ? query.size(1) : -1, -1, -1});
}

static at::Tensor attention(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value,
                            const std::optional<at::Tensor> &mask, double dropout, bool causal,
                            std::optional<double> scale, bool grouped)
{
    Encoder encoder;
    encoder.tensor(query);
    encoder.tensor(spread(key, query, grouped));
    encoder.tensor(spread(value, query, grouped));
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

/* Attention stays one op unless gradients, dropout or another rank ask for its parts. */
static at::Tensor attention_autograd(const at::Tensor &query, const at::Tensor &key,
                                     const at::Tensor &value, const std::optional<at::Tensor> &mask,
                                     double dropout, bool causal, std::optional<double> scale,
                                     bool grouped)
{
    bool shape = query.dim() == 4 && key.dim() == 4 && value.dim() == 4;
    bool grad = c10::GradMode::is_enabled() &&
                (any_grad({&query, &key, &value}) || (mask && any_grad({&*mask})));
    if (grad || !shape || dropout > 0)
        return std::get<0>(at::_scaled_dot_product_attention_math(query, key, value, mask, dropout,
                                                                  causal, {}, scale, grouped));
    at::AutoDispatchBelowADInplaceOrView below;
    return at::scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale,
                                            grouped);
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

/* ---- ops without a row, or without a kernel on the rank ---- */

static void warn_host(const std::string &name, const char *why)
{
    static std::mutex lock;
    static std::set<std::string> warned;
    {
        std::lock_guard<std::mutex> guard(lock);
        if (!warned.insert(name).second)
            return;
    }
    warn(name + why + ": it runs on the host, its operands fetched and its results sent back at "
                      "every call");
}

static const char kNoRow[] = " is not an op of djinn's table";
static const char kNoKernel[] = " has no kernel on this rank";

void run_on_host(const c10::OperatorHandle &handle, Stack *stack)
{
    warn_host(c10::toString(handle.operator_name()), kNoRow);
    at::native::cpu_fallback(handle, stack);
}

void run_on_host_for_rank(const c10::OperatorHandle &handle, Stack *stack)
{
    /* What PyTorch writes in terms of other ops goes to their rows. The one of convolution_backward
     * ends in a function that only says that there is none. */
    if (handle.hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd) &&
        handle.operator_name().name != "aten::convolution_backward")
        return handle.callBoxedForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd, *stack);
    warn_host(c10::toString(handle.operator_name()), kNoKernel);
    at::native::cpu_fallback(handle, stack);
}

/* PyTorch hands every convolution of a device it does not know to this one, and the host has none.
 */
static at::Tensor convolution(const at::Tensor &input, const at::Tensor &weight,
                              const std::optional<at::Tensor> &bias, c10::SymIntArrayRef stride,
                              c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                              bool transposed, c10::SymIntArrayRef output_padding,
                              c10::SymInt groups)
{
    std::optional<at::Tensor> host_bias;
    warn_host("aten::convolution", kNoRow);
    if (bias && bias->defined())
        host_bias = bias->cpu();
    return upload(at::convolution_symint(input.cpu(), weight.cpu(), host_bias, stride, padding,
                                         dilation, transposed, output_padding, groups));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m)
{
    m.impl("convolution_overrideable", TORCH_FN(convolution));
}

/* Autocast has no lists here: torch says so when asked for it, and ops pass. */
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m)
{
    m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m)
{
    m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

} // namespace djinn_torch
