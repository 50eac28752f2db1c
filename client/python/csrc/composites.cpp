/* composites.cpp - ops of ATen that are several of the table's: normalisations over a batch,
 * losses, what autograd and the optimizers ask for. Each is written in terms of ATen's own
 * functions, which come back to the rows' kernels (capture.cpp) one by one, so that one that a rank
 * has no kernel for runs on the host alone. The formulas are those of PyTorch's documentation and
 * derivatives.
 *
 * Below autograd: gradients of these are registered by PyTorch as for every device. */
#include "shim.h"

#include <cmath>
#include <limits>

#include <ATen/Functions.h>
#include <ATen/ScalarOps.h>
#include <ATen/TensorOperators.h>
#include <torch/library.h>

namespace djinn_torch
{

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

/* ---- batch normalisation ---- */

static std::tuple<Tensor, Tensor, Tensor>
batch_norm(const Tensor &input, const OptionalTensor &weight, const OptionalTensor &bias,
           const OptionalTensor &running_mean, const OptionalTensor &running_var, bool training,
           double momentum, double eps)
{
    bool running = running_mean && running_mean->defined() && running_var && running_var->defined();
    if (!training) {
        TORCH_CHECK(running, "batch_norm: without running statistics there is only training");
        return at::_native_batch_norm_legit_no_training(input, weight, bias, *running_mean,
                                                        *running_var, momentum, eps);
    }
    if (!running)
        return at::_native_batch_norm_legit(input, weight, bias, true, momentum, eps);
    auto [output, mean, rstd, new_mean, new_var] = at::_native_batch_norm_legit_functional(
        input, weight, bias, *running_mean, *running_var, true, momentum, eps);
    running_mean->copy_(new_mean);
    running_var->copy_(new_var);
    return {output, mean, rstd};
}

/* With batch statistics, what the mean and the deviation took from each element is given back as
 * well. */
static std::tuple<Tensor, Tensor, Tensor>
batch_norm_backward(const Tensor &grad, const Tensor &input, const OptionalTensor &weight,
                    const OptionalTensor &running_mean, const OptionalTensor &running_var,
                    const OptionalTensor &save_mean, const OptionalTensor &save_rstd, bool training,
                    double eps, std::array<bool, 3> wanted)
{
    c10::SmallVector<int64_t, DJINN_MAX_RANK> shape(input.dim(), 1), others;
    for (int64_t i = 0; i < input.dim(); i++)
        if (i != 1)
            others.push_back(i);
    shape[1] = input.size(1);
    Tensor mean = training ? *save_mean : *running_mean;
    Tensor rstd = (training ? *save_rstd : at::rsqrt(*running_var + eps)).reshape(shape);
    Tensor unit = (input - mean.reshape(shape)) * rstd;
    Tensor sum = grad.sum(others), product = (grad * unit).sum(others), back;
    if (wanted[0]) {
        double n = (double)input.numel() / (double)std::max<int64_t>(input.size(1), 1);
        back = training ? grad - (sum.reshape(shape) + unit * product.reshape(shape)) / n : grad;
        back = back * rstd;
        if (weight && weight->defined())
            back = back * weight->reshape(shape);
    }
    return {back, wanted[1] ? product : Tensor(), wanted[2] ? sum : Tensor()};
}

/* ---- statistics ---- */

static std::tuple<Tensor, Tensor> var_mean(const Tensor &self, at::OptionalIntArrayRef dim,
                                           const std::optional<c10::Scalar> &correction,
                                           bool keepdim)
{
    return {at::var(self, dim, correction, keepdim), at::mean(self, dim, keepdim)};
}

static Tensor deviation(const Tensor &self, at::OptionalIntArrayRef dim,
                        const std::optional<c10::Scalar> &correction, bool keepdim)
{
    return at::sqrt(at::var(self, dim, correction, keepdim));
}

/* A weight as direction and length: the length of each slice along `dim`. */
static std::tuple<Tensor, Tensor> weight_norm(const Tensor &v, const Tensor &g, int64_t dim)
{
    c10::SmallVector<int64_t, DJINN_MAX_RANK> others;
    dim = c10::maybe_wrap_dim(dim, v.dim());
    for (int64_t i = 0; i < v.dim(); i++)
        if (i != dim)
            others.push_back(i);
    Tensor norm = at::linalg_vector_norm(v, 2, others, true);
    return {v * (g / norm), norm};
}

/* ---- pointwise ---- */

static Tensor div_mode(const Tensor &self, const Tensor &other,
                       std::optional<c10::string_view> mode)
{
    if (!mode)
        return at::div(self, other);
    if (*mode == "floor")
        return at::floor_divide(self, other);
    TORCH_CHECK(*mode == "trunc",
                "div expected rounding_mode to be one of None, 'trunc', or 'floor' "
                "but found '",
                *mode, "'");
    Tensor quotient = at::div(self, other);
    bool whole = !c10::isFloatingType(at::result_type(self, other));
    return whole ? at::trunc(quotient).to(at::result_type(self, other)) : at::trunc(quotient);
}

static Tensor power_of_number(const c10::Scalar &base, const Tensor &exponent)
{
    return at::pow(at::native::wrapped_scalar_tensor(base), exponent);
}

static Tensor is_negative_infinity(const Tensor &self)
{
    return at::eq(self, -std::numeric_limits<double>::infinity());
}

static Tensor is_positive_infinity(const Tensor &self)
{
    return at::eq(self, std::numeric_limits<double>::infinity());
}

static Tensor addcmul(const Tensor &self, const Tensor &a, const Tensor &b,
                      const c10::Scalar &value)
{
    return at::add(self, at::mul(a, b), value);
}

static Tensor &addcmul_(Tensor &self, const Tensor &a, const Tensor &b, const c10::Scalar &value)
{
    return self.add_(at::mul(a, b), value);
}

static Tensor addcdiv(const Tensor &self, const Tensor &a, const Tensor &b,
                      const c10::Scalar &value)
{
    return at::add(self, at::div(a, b), value);
}

static Tensor &addcdiv_(Tensor &self, const Tensor &a, const Tensor &b, const c10::Scalar &value)
{
    return self.add_(at::div(a, b), value);
}

/* From whichever end is nearer, so that a weight of 1 gives the end exactly. */
static Tensor lerp(const Tensor &self, const Tensor &end, const c10::Scalar &weight)
{
    double w = weight.toDouble();
    Tensor way = at::sub(end, self);
    return std::abs(w) < 0.5 ? at::add(self, way, weight) : at::sub(end, way, 1 - w);
}

static Tensor &lerp_(Tensor &self, const Tensor &end, const c10::Scalar &weight)
{
    double w = weight.toDouble();
    Tensor way = at::sub(end, self);
    return std::abs(w) < 0.5 ? self.add_(way, weight) : self.copy_(at::sub(end, way, 1 - w));
}

static Tensor glu(const Tensor &self, int64_t dim)
{
    dim = c10::maybe_wrap_dim(dim, self.dim());
    int64_t half = self.size(dim) / 2;
    TORCH_CHECK(self.size(dim) == 2 * half, "glu: dimension ", dim, " has ", self.size(dim),
                " elements, and is to be halved");
    return self.narrow(dim, 0, half) * at::sigmoid(self.narrow(dim, half, half));
}

/* ---- layout ---- */

static Tensor roll_one(const Tensor &self, int64_t shift, int64_t dim)
{
    int64_t size = self.size(dim), start = size ? ((size - shift) % size + size) % size : 0;
    if (start == 0)
        return self.clone();
    return at::cat({self.narrow(dim, start, size - start), self.narrow(dim, 0, start)}, dim);
}

static Tensor roll(const Tensor &self, c10::SymIntArrayRef shifts, c10::IntArrayRef dims)
{
    auto by = C10_AS_INTARRAYREF_SLOW(shifts);
    if (dims.empty()) {
        TORCH_CHECK(by.size() == 1, "roll: without dims there is one shift");
        return roll_one(self.reshape({-1}), by[0], 0).reshape(self.sizes());
    }
    TORCH_CHECK(by.size() == dims.size(), "roll: ", by.size(), " shifts for ", dims.size(),
                " dims");
    Tensor rolled = self;
    for (size_t i = 0; i < dims.size(); i++)
        rolled = roll_one(rolled, by[i], dims[i]);
    return rolled;
}

/* A line is a picture of one row. */
static Tensor upsample_line(const Tensor &self, c10::SymIntArrayRef size, bool align_corners,
                            std::optional<double> scale)
{
    TORCH_CHECK(self.dim() == 3 && size.size() == 1, "upsample_linear1d: ", self.dim(),
                " dimensions");
    return at::upsample_bilinear2d(self.unsqueeze(2), {1, size[0].expect_int()}, align_corners, {},
                                   scale)
        .squeeze(2);
}

/* ---- backward of activations ---- */

static Tensor threshold_backward(const Tensor &grad, const Tensor &self,
                                 const c10::Scalar &threshold)
{
    return grad.masked_fill(at::le(self, threshold), 0);
}

static Tensor tanh_backward(const Tensor &grad, const Tensor &output)
{
    return grad * at::rsub(output * output, 1);
}

static Tensor sigmoid_backward(const Tensor &grad, const Tensor &output)
{
    return grad * (at::rsub(output, 1) * output);
}

static Tensor silu_backward(const Tensor &grad, const Tensor &self)
{
    Tensor s = at::sigmoid(self);
    return grad * s * (self * at::rsub(s, 1) + 1);
}

static Tensor gelu_backward(const Tensor &grad, const Tensor &self, c10::string_view approximate)
{
    constexpr double kRootHalf = M_SQRT1_2, kCube = 0.044715;
    constexpr double kRate = M_SQRT2 * M_2_SQRTPI * 0.5;
    if (approximate != "tanh") {
        Tensor area = (at::erf(self * kRootHalf) + 1) * 0.5;
        Tensor density = at::exp(self * self * -0.5) * (M_2_SQRTPI * M_SQRT1_2 * 0.5);
        return grad * (area + self * density);
    }
    Tensor square = self * self;
    Tensor bend = at::tanh((square * kCube + 1) * self * kRate);
    Tensor slope = at::rsub(bend * bend, 1) * (square * (3 * kCube) + 1) * kRate;
    return grad * ((bend + 1) * 0.5 + self * slope * 0.5);
}

static Tensor softmax_backward(const Tensor &grad, const Tensor &output, int64_t dim,
                               c10::ScalarType type)
{
    Tensor weighted = grad * output;
    return (weighted - output * weighted.sum(dim, true)).to(type);
}

static Tensor log_softmax_backward(const Tensor &grad, const Tensor &output, int64_t dim,
                                   c10::ScalarType type)
{
    return (grad - at::exp(output) * grad.sum(dim, true)).to(type);
}

/* ---- the loss of a classifier ---- */

enum { REDUCE_NONE, REDUCE_MEAN };

struct Targets {
    Tensor classes; /* of each sample, 0 where it is ignored; a column */
    Tensor weights; /* of each sample, 0 where it is ignored */
};

static Targets targets_of(const Tensor &self, const Tensor &target, const OptionalTensor &weight,
                          int64_t ignored)
{
    TORCH_CHECK(self.dim() == target.dim() + 1 && self.dim() <= 2, "nll_loss: scores of ",
                self.dim(), " dimensions and targets of ", target.dim());
    Tensor out = at::eq(target, ignored);
    Tensor classes = target.masked_fill(out, 0);
    Tensor weights =
        weight && weight->defined()
            ? at::index_select(*weight, 0, classes.reshape({-1})).reshape(target.sizes())
            : at::ones(target.sizes(), self.options());
    return {classes.unsqueeze(-1), weights.masked_fill(out, 0)};
}

static std::tuple<Tensor, Tensor> nll_loss_forward(const Tensor &self, const Tensor &target,
                                                   const OptionalTensor &weight, int64_t reduction,
                                                   c10::SymInt ignored)
{
    Targets targets = targets_of(self, target, weight, ignored.expect_int());
    Tensor each = at::neg(at::gather(self, -1, targets.classes).squeeze(-1)) * targets.weights;
    Tensor total = targets.weights.sum();
    if (reduction == REDUCE_NONE)
        return {each, total};
    return {reduction == REDUCE_MEAN ? each.sum() / total : each.sum(), total};
}

static Tensor nll_loss_backward(const Tensor &grad, const Tensor &self, const Tensor &target,
                                const OptionalTensor &weight, int64_t reduction,
                                c10::SymInt ignored, const Tensor &total)
{
    Targets targets = targets_of(self, target, weight, ignored.expect_int());
    Tensor each = at::neg(targets.weights) * (reduction == REDUCE_MEAN ? grad / total : grad);
    return at::scatter(at::zeros_like(self), -1, targets.classes, each.unsqueeze(-1));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m)
{
    m.impl("native_batch_norm", TORCH_FN(batch_norm));
    m.impl("native_batch_norm_backward", TORCH_FN(batch_norm_backward));
    m.impl("pow.Scalar", TORCH_FN(power_of_number));
    m.impl("var_mean.correction", TORCH_FN(var_mean));
    m.impl("std.correction", TORCH_FN(deviation));
    m.impl("_weight_norm_interface", TORCH_FN(weight_norm));
    m.impl("div.Tensor_mode", TORCH_FN(div_mode));
    m.impl("isneginf", TORCH_FN(is_negative_infinity));
    m.impl("isposinf", TORCH_FN(is_positive_infinity));
    m.impl("addcmul", TORCH_FN(addcmul));
    m.impl("addcmul_", TORCH_FN(addcmul_));
    m.impl("addcdiv", TORCH_FN(addcdiv));
    m.impl("addcdiv_", TORCH_FN(addcdiv_));
    m.impl("lerp.Scalar", TORCH_FN(lerp));
    m.impl("lerp_.Scalar", TORCH_FN(lerp_));
    m.impl("glu", TORCH_FN(glu));
    m.impl("roll", TORCH_FN(roll));
    m.impl("upsample_linear1d", TORCH_FN(upsample_line));
    m.impl("threshold_backward", TORCH_FN(threshold_backward));
    m.impl("tanh_backward", TORCH_FN(tanh_backward));
    m.impl("sigmoid_backward", TORCH_FN(sigmoid_backward));
    m.impl("silu_backward", TORCH_FN(silu_backward));
    m.impl("gelu_backward", TORCH_FN(gelu_backward));
    m.impl("_softmax_backward_data", TORCH_FN(softmax_backward));
    m.impl("_log_softmax_backward_data", TORCH_FN(log_softmax_backward));
    m.impl("nll_loss_forward", TORCH_FN(nll_loss_forward));
    m.impl("nll_loss_backward", TORCH_FN(nll_loss_backward));
}

} // namespace djinn_torch
