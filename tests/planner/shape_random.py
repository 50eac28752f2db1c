"""Cases of the shape rules drawn at random, from a fixed seed: sizes, layouts, dtypes and parameters that
fit, and some that do not. shape_cases.py calls random_cases() and writes what PyTorch says.

A draw is a function of this file that takes a Draw (the generator of random numbers, with the makers of
tensors) and the Cases; it is found by its name's first letters, `draw_`.
"""

import math

import torch

from shape_draw import ALL, BOOL, COMPLEX, F32, I64, ORDERED, REALS, WHOLE, Draw

aten = torch.ops.aten


# ---- pointwise ----

BINARY = ["mul.Tensor", "div.Tensor", "maximum", "minimum", "pow.Tensor_Tensor", "floor_divide",
          "remainder.Tensor", "fmod.Tensor", "atan2", "logical_and", "logical_or", "logical_xor", "eq.Tensor",
          "ne.Tensor", "lt.Tensor", "le.Tensor", "gt.Tensor", "ge.Tensor"]
UNARY = ["neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "erf", "sigmoid",
         "isnan", "logical_not", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "sinh", "tan",
         "expm1", "log10", "log1p", "log2", "ceil", "floor", "round", "trunc", "sign", "isinf"]
ON_PROCESSOR = [*ORDERED, torch.complex64, torch.complex128]  # which does not compute with complex32
NO_COMPLEX = {"maximum", "minimum", "floor_divide", "remainder.Tensor", "fmod.Tensor", "atan2", "lt.Tensor",
              "le.Tensor", "gt.Tensor", "ge.Tensor", "erf", "ceil", "floor", "round", "trunc", "sign"}


def function(name):
    packet, _, which = name.partition(".")
    return getattr(getattr(aten, packet), which or "default")


def draw_binary(draw, cases):
    for name in BINARY:
        pair(draw, cases, name)


def pair(draw, cases, name):
    dtypes = ORDERED if name in NO_COMPLEX or draw.maybe(0.7) else ON_PROCESSOR
    a, b = draw.choice(dtypes), draw.choice(dtypes)
    if a == b == BOOL and name == "pow.Tensor_Tensor":
        return  # refused by devices, not by meta tensors
    sizes = draw.sizes()
    x, y = draw.tensor(sizes, a), draw.tensor(draw.partner(sizes), b)
    x, y = (y, x) if draw.maybe(0.5) else (x, y)
    if name == "atan2":
        cases.compare("aten::atan2", x, y, core="aten::atan2.out", call=lambda x, y: aten.atan2.out(
            x, y, out=torch.empty_like(aten.atan2(x, y))), eager=True)
    else:
        cases.compare("aten::" + name, x, y, eager=True)


def draw_number(draw, cases):
    """Overloads for a number are rows whose tensor is a number."""
    x, value = draw.any(ORDERED), draw.number()
    kind = draw.choice(["mul", "div", "fmod", "bitwise_and", "bitwise_or", "bitwise_xor", "add", "sub", "pow"])
    number = cases.Number(value)
    if kind == "pow":
        if x.dtype == BOOL and isinstance(value, bool):
            return
        cases.compare("aten::pow.Tensor_Tensor", number, x, core="aten::pow.Scalar", call=aten.pow.Scalar)
    elif kind in ("add", "sub"):
        alpha = draw.choice([1, 2, 1.5])
        scalar = aten.add.Scalar if kind == "add" else aten.sub.Scalar
        if x.dtype == BOOL and isinstance(value, bool):
            return  # refused by devices, not by meta tensors
        cases.compare(f"aten::{kind}.Tensor", x, number, alpha, core=f"aten::{kind}.Scalar", call=scalar,
                      device=True)
    else:
        if kind.startswith("bitwise") and isinstance(value, float):
            value = 2
            number = cases.Number(value)
        cases.compare(f"aten::{kind}.Tensor", x, number, core=f"aten::{kind}.Scalar",
                      call=function(kind + ".Scalar"), device=kind.startswith("bitwise"))


def draw_sum(draw, cases):
    kind, sizes = draw.choice(["add", "sub"]), draw.sizes()
    dtypes = ON_PROCESSOR if draw.maybe(0.2) else ORDERED
    x = draw.tensor(sizes, draw.choice(dtypes))
    y = draw.tensor(draw.partner(sizes), draw.choice(dtypes))
    alpha = draw.choice([1, 1, 3, 0.5])
    call = function(kind + ".Tensor")
    cases.compare(f"aten::{kind}.Tensor", x, y, alpha, call=lambda x, y, a: call(x, y, alpha=a),
                  eager=True, device=kind == "sub" or x.dtype == y.dtype == BOOL)


def draw_bits(draw, cases):
    name, sizes = draw.choice(["and", "or", "xor"]), draw.sizes()
    x, y = draw.tensor(sizes, draw.choice(ORDERED)), draw.tensor(draw.partner(sizes), draw.choice(WHOLE + [BOOL]))
    cases.compare(f"aten::bitwise_{name}.Tensor", x, y, device=True, eager=True)
    cases.compare("aten::bitwise_not", x, device=True)


def draw_division(draw, cases):
    sizes = draw.sizes()
    x, y = draw.tensor(sizes, draw.choice(ORDERED)), draw.tensor(draw.partner(sizes), draw.choice(ORDERED))
    if draw.maybe(0.5):
        cases.compare("djinn::div_trunc", x, y, core="aten::div.Tensor_mode", eager=True,
                      call=lambda x, y: aten.div.Tensor_mode(x, y, rounding_mode="trunc"))
    else:
        cases.compare("aten::floor_divide", x, y, eager=True, device=True,
                      call=lambda x, y: aten.div.Tensor_mode(x, y, rounding_mode="floor"))
    value = draw.number("ir")
    cases.compare("djinn::div_trunc", x, cases.Number(value), core="aten::div.Scalar_mode",
                  call=lambda x, v: aten.div.Scalar_mode(x, v, rounding_mode="trunc"))


def draw_unary(draw, cases):
    for name in UNARY:
        dtypes = ORDERED if name in NO_COMPLEX or draw.maybe(0.7) else ALL
        cases.compare("aten::" + name, draw.any(dtypes), eager=True)


def draw_activation(draw, cases):
    x = draw.any(REALS if draw.maybe(0.9) else ORDERED)
    alpha, scale = draw.number("r"), draw.number("r")
    cases.compare("aten::elu", x, alpha, scale, 1.5)
    cases.compare("aten::leaky_relu", x, alpha)
    if x.dtype in REALS:
        cases.compare("aten::hardtanh", x, -1.0, 1.0)
        cases.compare("aten::silu", x)
        cases.compare("aten::gelu", x, None, call=lambda x, _: aten.gelu(x))
        cases.compare("djinn::gelu_tanh", x, call=lambda x: aten.gelu(x, approximate="tanh"))
    if x.dtype != BOOL:
        cases.compare("aten::relu", x)


def draw_clamp(draw, cases):
    sizes = draw.sizes()
    x = draw.tensor(sizes, draw.choice(ORDERED))
    low = draw.tensor(draw.partner(sizes), draw.choice(ORDERED)) if draw.maybe(0.7) else None
    high = draw.tensor(draw.partner(sizes), draw.choice(ORDERED)) if draw.maybe(0.7) else None
    cases.compare("aten::clamp.Tensor", x, low, high, eager=True)
    if x.dtype != BOOL:
        cases.compare("aten::clamp", x, draw.number("ir"), None if draw.maybe(0.5) else draw.number("ir"))


def draw_scalar(draw, cases):
    x, value = draw.any(ORDERED), draw.number("ir")
    name = draw.choice(["eq", "ne", "lt", "le", "gt", "ge"])
    cases.compare(f"aten::{name}.Scalar", x, value)
    if x.dtype != BOOL:
        cases.compare("aten::remainder.Scalar", x, value)
    cases.compare("aten::pow.Tensor_Scalar", x, value)


def draw_where(draw, cases):
    sizes = draw.sizes()
    condition = draw.tensor(draw.partner(sizes), BOOL if draw.maybe(0.95) else F32)
    x, y = draw.tensor(sizes, draw.choice(ORDERED)), draw.tensor(draw.partner(sizes), draw.choice(ORDERED))
    cases.compare("aten::where.self", condition, x, y, eager=True)
    cases.compare("aten::masked_fill.Scalar", x, condition, 1)
    cases.compare("aten::masked_scatter", x, condition, draw.tensor(
        draw.sizes(), x.dtype if draw.maybe(0.9) else y.dtype))


# ---- copies, creation ----

def draw_copy(draw, cases):
    x, dtype = draw.any(ALL), draw.dtype_or_none(ALL)
    cases.compare("djinn::copy", x, core="aten::clone", call=aten.clone)
    cases.compare("djinn::to_copy", x, dtype, core="aten::_to_copy",
                  call=lambda x, d: aten._to_copy(x, dtype=d))
    cases.compare("djinn::full_like", x, 1, dtype, core="aten::full_like",
                  call=lambda x, v, d: aten.full_like(x, v, dtype=d))
    cases.compare("djinn::full_like", x, 1, None, core="aten::fill.Scalar",
                  call=lambda x, v, _: aten.fill.Scalar(x, v))
    cases.compare("djinn::copy_like", x, draw.tensor(draw.partner(x.shape)[-x.dim():], draw.choice(ORDERED)),
                  core="aten::copy", call=aten.copy)


def draw_creation(draw, cases):
    sizes, dtype, device = draw.sizes(most=8), draw.dtype_or_none(ALL), torch.device("meta")
    cases.compare("djinn::empty", sizes, dtype, core="aten::empty.memory_format",
                  call=lambda s, d: aten.empty.memory_format(s, dtype=d, device=device))
    value = draw.number()
    cases.compare("djinn::full", sizes, value, dtype, core="aten::full",
                  call=lambda s, v, d: aten.full(s, v, dtype=d, device=device))
    cases.compare("djinn::full", [], value, dtype or F32, core="aten::scalar_tensor",
                  call=lambda s, v, d: aten.scalar_tensor(v, dtype=d, device=device))
    strides = [draw.randint(0, 20) for _ in sizes]
    cases.compare("djinn::empty_strided", sizes, strides[:-1] if strides and draw.maybe(0.1) else strides,
                  dtype, core="aten::empty_strided",
                  call=lambda s, t, d: aten.empty_strided(s, t, dtype=d, device=device))
    real = draw.dtype_or_none(REALS)
    for name in ("rand", "randn"):
        cases.compare("djinn::" + name, sizes, real, core="aten::" + name,
                      call=lambda s, d: function(name)(s, dtype=d, device=device))
    cases.compare("djinn::randperm", cases.Dim(draw.randint(0, 50)), draw.choice(WHOLE),
                  core="aten::randperm", call=lambda n, d: aten.randperm(n, dtype=d, device=device))
    start, step = draw.number("ir"), draw.choice([1, 2, 0.5, -1, 3])
    n = draw.randint(0, 20)
    plain = draw.dtype_or_none(WHOLE[2:] + REALS)
    if plain in WHOLE:
        start, step = int(start), int(step) or 1
    whole = isinstance(start, int) and isinstance(step, int)
    count = n if whole else math.ceil(((start + n * step) - start) / step)
    cases.compare("djinn::arange", cases.Dim(count), start, step, plain, core="aten::arange.start_step",
                  call=lambda _, s, t, d: aten.arange.start_step(s, start + n * step, t, dtype=d, device=device))


# ---- reductions ----

def draw_reduction(draw, cases):
    x, keep = draw.any(ORDERED), cases.Dim(draw.maybe(0.5))
    dims = None if draw.maybe(0.15) else draw.dims(x.dim())
    out = draw.dtype_or_none(WHOLE + REALS)
    real = draw.tensor(x.shape, draw.choice(REALS))
    cases.compare("aten::sum.dim_IntList", x, dims, keep, out,
                  call=lambda x, d, k, y: aten.sum.dim_IntList(x, d, k, dtype=y))
    cases.compare("aten::mean.dim", x, dims, keep, out,
                  call=lambda x, d, k, y: aten.mean.dim(x, d, k, dtype=y))
    cases.compare("aten::mean.dim", x, None, cases.Dim(0), out, core="aten::mean",
                  call=lambda x, d, k, y: aten.mean(x, dtype=y))
    cases.compare("aten::prod", x, out, call=lambda x, y: aten.prod(x, dtype=y))
    cases.compare("aten::any.dims", x, dims, keep)
    cases.compare("aten::all.dims", x, dims, keep)
    cases.compare("aten::any.dims", x, None, cases.Dim(0), core="aten::any", call=lambda x, d, k: aten.any(x))
    if dims is not None:
        cases.compare("aten::amax", x, dims, keep)
        cases.compare("aten::amin", x, dims, keep)
    unbiased = draw.maybe(0.5)
    cases.compare("aten::var.correction", real, dims, int(unbiased), keep, core="aten::var.dim",
                  call=lambda x, d, c, k: aten.var.dim(x, d, unbiased, k))
    cases.compare("aten::var.correction", real, dims, 1.5, keep,
                  call=lambda x, d, c, k: aten.var.correction(x, d, correction=c, keepdim=k))
    cases.compare("aten::linalg_vector_norm", real, 2.0, dims, keep, None,
                  call=lambda x, o, d, k, y: torch.linalg.vector_norm(x, o, d, k, dtype=y), device=True)


def draw_along(draw, cases):
    x, keep = draw.any(ORDERED, empty=0.06), cases.Dim(draw.maybe(0.5))
    dim = cases.Dim(draw.dim(x.dim()))
    out = draw.dtype_or_none(WHOLE + REALS)
    cases.compare("aten::max.dim", x, dim, keep, device=True)
    cases.compare("aten::min.dim", x, dim, keep, device=True)
    if x.dtype != BOOL:
        cases.compare("aten::argmax", x, [int(dim)], keep, call=lambda x, d, k: aten.argmax(x, d[0], k))
        cases.compare("aten::argmin", x, None, keep, call=lambda x, d, k: aten.argmin(x, None, k))
    cases.compare("aten::prod.dim_int", x, dim, keep, out,
                  call=lambda x, d, k, y: aten.prod.dim_int(x, d, k, dtype=y))
    cases.compare("aten::cumsum", x, dim, out, call=lambda x, d, y: aten.cumsum(x, d, dtype=y))
    cases.compare("aten::any.dims", x, [int(dim)], keep, core="aten::any.dim",
                  call=lambda x, d, k: aten.any.dim(x, d[0], k))
    cases.compare("aten::sort", x, dim, cases.Dim(draw.maybe(0.5)), device=True)
    if x.dtype in REALS:
        for name in ("_softmax", "_log_softmax"):
            # the meta function does not look at the dimension, and the processor widens nothing
            right = -max(x.dim(), 1) <= dim < max(x.dim(), 1)
            widen = cases.Dim(x.dtype == torch.float16 and right and draw.maybe(0.3))
            cases.compare("aten::" + name, x, dim, widen, device=not widen)
    size = x.shape[int(dim)] if x.dim() > 0 and -x.dim() <= dim < x.dim() else 1
    if x.dtype != BOOL:
        cases.compare("aten::topk", x, cases.Dim(draw.randint(0, size + 1)), dim, cases.Dim(1), cases.Dim(1))


# ---- products ----

def draw_product(draw, cases):
    m, k, n, b = (draw.size() for _ in range(4))
    dtype = draw.choice(REALS + [torch.int64])
    inner = k + 1 if draw.maybe(0.05) else k
    x, y = draw.tensor([m, k], dtype), draw.tensor([inner, n], dtype if draw.maybe(0.95) else torch.float64)
    cases.compare("aten::mm", x, y, device=True)
    cases.compare("aten::addmm", draw.tensor(draw.partner([m, n])[-2:], dtype), x, y, 1, 1,
                  call=lambda c, x, y, _a, _b: aten.addmm(c, x, y), device=True)
    p = draw.tensor([b, m, k], dtype)
    q = draw.tensor([b + 1 if draw.maybe(0.05) else b, inner, n], dtype)
    cases.compare("aten::bmm", p, q, device=True)
    cases.compare("aten::baddbmm", draw.tensor(draw.partner([b, m, n])[-3:], dtype), p, q, 1, 1,
                  call=lambda c, x, y, _a, _b: aten.baddbmm(c, x, y), device=True)


def draw_distance(draw, cases):
    batch = draw.sizes(most=3)
    p, r, m = draw.size(), draw.size(), draw.size()
    dtype = draw.choice(REALS if draw.maybe(0.9) else ORDERED)
    x = draw.tensor([*batch, p, m], dtype)
    y = draw.tensor([*draw.partner(batch), r, m + 1 if draw.maybe(0.05) else m], dtype)
    mode = draw.choice([None, 0, 1, 2, 3])
    cases.compare("aten::_cdist_forward", x, y, 2.0, mode if mode is None else [mode],
                  call=lambda x, y, p, m: aten._cdist_forward(x, y, p, m and m[0]))
    cases.compare("aten::_pdist_forward", draw.tensor([p, m], draw.choice(REALS)), 2.0)


def draw_transform(draw, cases):
    x = draw.any(REALS, rank=draw.randint(1, 5), empty=0)
    dims = draw.sample(range(x.dim()), draw.randint(1, x.dim()))
    cases.compare("aten::_fft_r2c", x, dims, cases.Dim(0), cases.Dim(draw.maybe(0.5)))
    z = draw.tensor(x.shape, draw.choice(COMPLEX))
    cases.compare("aten::_fft_c2r", z, dims, cases.Dim(0), cases.Dim(draw.randint(1, 9)))
    cases.compare("aten::_fft_c2r", x, dims, cases.Dim(0), cases.Dim(3))


# ---- norms ----

def draw_norm(draw, cases):
    dtype = draw.choice(REALS)
    x = draw.any([dtype], rank=draw.randint(1, 5))
    tail = draw.randint(1, x.dim())
    shape = list(x.shape[x.dim() - tail:])
    if draw.maybe(0.05):
        shape[0] += 1
    w = draw.tensor(shape, dtype, "plain") if draw.maybe(0.7) else None
    b = draw.tensor(shape, dtype, "plain") if draw.maybe(0.7) else None
    cases.compare("aten::native_layer_norm", x, shape, w, b, 1e-5)


def draw_norm_backward(draw, cases):
    dtype = draw.choice(REALS)
    sizes = draw.sizes(draw.randint(1, 5), empty=0)
    tail = draw.randint(1, len(sizes))
    shape, lead = sizes[len(sizes) - tail:], sizes[:len(sizes) - tail]
    x, grad = draw.tensor(sizes, dtype), draw.tensor(sizes, dtype)
    mean = draw.tensor([*lead, *[1] * tail], dtype, "plain")
    w = draw.tensor(shape, dtype, "plain") if draw.maybe(0.7) else None
    b = draw.tensor(shape, dtype, "plain") if draw.maybe(0.7) else None
    mask = [int(draw.maybe(0.7)) for _ in range(3)]
    if not (x.is_contiguous() and grad.is_contiguous()):  # the processor wants a weight for its gradient
        mask = [mask[0], mask[1] and int(w is not None), mask[2] and int(b is not None)]
    cases.compare("aten::native_layer_norm_backward", grad, x, shape, mean, mean, w, b, mask, eager=True,
                  call=lambda *a: aten.native_layer_norm_backward(*a[:-1], [bool(m) for m in a[-1]]))


def draw_batch_norm(draw, cases):
    dtype = draw.choice(REALS)
    x = draw.any([dtype], rank=draw.randint(2, 5), empty=0)
    channels = [x.shape[1]]
    w = draw.tensor(channels, dtype) if draw.maybe(0.7) else None
    b = draw.tensor(channels, dtype) if draw.maybe(0.7) else None
    mean, var = draw.tensor(channels, F32), draw.tensor(channels, F32)
    training = cases.Dim(draw.maybe(0.5))
    cases.compare("aten::_native_batch_norm_legit_functional", x, w, b, mean, var, training, 0.1, 1e-5,
                  core="aten::_native_batch_norm_legit",
                  call=lambda x, w, b, m, v, t, *rest: (
                      *aten._native_batch_norm_legit(x, w, b, m, v, t, *rest), m.clone(), v.clone()))
    cases.compare("aten::_native_batch_norm_legit.no_stats", x, w, b, cases.Dim(1), 0.1, 1e-5)
    cases.compare("aten::_native_batch_norm_legit.no_stats", x, w, b, cases.Dim(0), 0.1, 1e-5)
    cases.compare("aten::_native_batch_norm_legit_no_training", x, w, b, mean, var, 0.1, 1e-5)
    if channels == [1]:
        return
    wrong = draw.tensor([channels[0] + 2], dtype)
    cases.compare("aten::_native_batch_norm_legit_no_training", x, wrong, b, mean, var, 0.1, 1e-5,
                  device=True)


def draw_group_norm(draw, cases):
    dtype = draw.choice(REALS)
    groups, each = draw.choice([1, 2, 3]), draw.choice([1, 2, 3])
    sizes = [draw.size(0), groups * each, *draw.sizes(draw.randint(1, 3), empty=0)]
    # devices take no other layouts; the meta function lays those out by what it could reshape without a copy
    x = draw.tensor(sizes, dtype, draw.choice(["plain", "last", "stepped", "sliced"]))
    if draw.maybe(0.05):
        groups += 1
    n, c, pixels = (cases.Dim(v) for v in (sizes[0], sizes[1], math.prod(sizes[2:])))
    w = draw.tensor([sizes[1]], dtype, "plain") if draw.maybe(0.7) else None
    b = draw.tensor([sizes[1]], dtype, "plain") if draw.maybe(0.7) else None
    cases.compare("aten::native_group_norm", x, w, b, n, c, pixels, cases.Dim(groups), 1e-5)
    # the meta function cannot reshape others without a copy, and refuses
    layout = draw.choice(["plain", "last"])
    x, grad = draw.tensor(sizes, dtype, layout), draw.tensor(sizes, dtype, layout)
    mean = draw.tensor([sizes[0], groups], dtype, "plain")
    mask = [int(draw.maybe(0.7)) for _ in range(3)]
    cases.compare("aten::native_group_norm_backward", grad, x, mean, mean, w, n, c, pixels, cases.Dim(groups),
                  mask, call=lambda *a: aten.native_group_norm_backward(*a[:-1], [bool(m) for m in a[-1]]))


def draw_dropout(draw, cases):
    train = draw.choice([None, [0], [1], [1]])
    x = draw.any(REALS if draw.maybe(0.9) else ORDERED)
    if train != [1] and not torch._prims_common.is_non_overlapping_and_dense_or_false(x):
        return  # PyTorch hands back its argument
    cases.compare("aten::native_dropout", x, 0.5, train,
                  call=lambda x, p, t: aten.native_dropout(x, p, t and bool(t[0])))


# ---- windows ----

def window(draw, n, low=1, high=3):
    count = 1 if draw.maybe(0.3) else n
    return [draw.randint(low, high) for _ in range(count)]


def draw_convolution(draw, cases):
    n, groups = draw.choice([1, 2, 2, 2, 3]), draw.choice([1, 1, 1, 2, 3])
    transposed = draw.maybe(0.3)
    inside, outside = draw.choice([1, 2, 3]), draw.choice([1, 2, 4])
    channels = groups * inside
    dtype = draw.choice(REALS)
    x = draw.tensor([draw.size(0.02), channels, *[draw.randint(1, 12) for _ in range(n)]], dtype)
    kernel = [draw.randint(1, 4) for _ in range(n)]
    wrong = draw.maybe(0.04)
    weight = draw.tensor([channels, outside, *kernel] if transposed else
                         [groups * outside, inside + wrong, *kernel], dtype)
    bias = draw.tensor([groups * outside], dtype, "plain") if draw.maybe(0.5) else None
    stride = window(draw, n)
    more = window(draw, n, 0, 1) if min(stride) > 1 else [0]
    args = (x, weight, bias, stride, window(draw, n, 0, 2), window(draw, n, 1, 2), cases.Dim(transposed), more,
            cases.Dim(groups))
    out = cases.compare("aten::convolution", *args)
    if out is None:
        return
    mask = [int(draw.maybe(0.7)) for _ in range(3)]
    grad = draw.tensor(out[0].shape, dtype)
    cases.compare("aten::convolution_backward", grad, x, weight, [groups * outside], *args[3:], mask,
                  call=lambda *a: aten.convolution_backward(*a[:-1], [bool(m) for m in a[-1]]))


def picture(draw, n, dtype, empty=0.02):
    sizes = [draw.size(empty) for _ in range(draw.choice([1, 2, 2]))] + [draw.randint(1, 12) for _ in range(n)]
    if draw.maybe(empty):
        sizes[-1] = 0
    return draw.tensor(sizes, dtype)


def draw_pool(draw, cases):
    n = draw.choice([1, 2, 2, 3])
    dtype = draw.choice(REALS + [torch.int64] if draw.maybe(0.95) else [torch.uint8])
    x = picture(draw, n, dtype)
    kernel, stride = window(draw, n, 1, 4), draw.choice([[], window(draw, n)])
    padding, dilation = window(draw, n, 0, 2), window(draw, n, 1, 2)
    if draw.maybe(0.85):  # more would be refused
        padding = [draw.randint(0, min(kernel) // 2)]
    ceil, count = cases.Dim(draw.maybe(0.5)), cases.Dim(draw.maybe(0.5))
    if n == 1:
        return cases.compare("djinn::avg_pool1d", x, kernel, stride, padding, ceil, count,
                             core="aten::avg_pool1d", call=aten.avg_pool1d)
    divisor = draw.choice([None, None, [3], [0]])
    out = cases.compare(f"aten::avg_pool{n}d", x, kernel, stride, padding, ceil, count, divisor,
                        call=lambda *a: function(f"avg_pool{n}d")(*a[:-1], a[-1] and a[-1][0]))
    if n == 2 and out is not None:
        grad = draw.tensor([*out[0].shape[:-1], out[0].shape[-1] + draw.maybe(0.1)], dtype)
        cases.compare("aten::avg_pool2d_backward", grad, x, kernel, stride, padding, ceil, count, divisor,
                      call=lambda *a: aten.avg_pool2d_backward(*a[:-1], a[-1] and a[-1][0]))
    out = cases.compare(f"aten::max_pool{n}d_with_indices", x, kernel, stride, padding, dilation, ceil)
    if n == 2 and out is not None:
        grad = draw.tensor(out[0].shape, dtype if draw.maybe(0.95) else torch.float64)
        where = draw.tensor([*out[0].shape[:-1], out[0].shape[-1] + draw.maybe(0.1)], I64)
        cases.compare("aten::max_pool2d_with_indices_backward", grad, x, kernel, stride, padding, dilation,
                      ceil, where)


def draw_adaptive(draw, cases):
    n = draw.choice([1, 2, 2, 3])
    dtype = draw.choice(REALS)
    x = picture(draw, n, dtype, empty=0)
    if draw.maybe(0.05):
        x = draw.any([dtype])
    wanted = [draw.randint(1, 6) for _ in range(n)]
    if n == 1:
        return cases.compare("djinn::adaptive_avg_pool1d", x, wanted, core="aten::adaptive_avg_pool1d",
                             call=aten.adaptive_avg_pool1d)
    out = cases.compare(f"aten::_adaptive_avg_pool{n}d", x, wanted)
    if n == 2 and out is not None:
        cases.compare("aten::_adaptive_avg_pool2d_backward", draw.tensor(out[0].shape, dtype), x)


def draw_columns(draw, cases):
    out, kernel = [draw.randint(1, 9) for _ in range(2)], [draw.randint(1, 3) for _ in range(2)]
    dilation, padding = [draw.randint(1, 2) for _ in range(2)], [draw.randint(0, 1) for _ in range(2)]
    stride = [draw.randint(1, 3) for _ in range(2)]
    blocks = math.prod((o + 2 * p - d * (k - 1) - 1) // s + 1
                       for o, p, d, k, s in zip(out, padding, dilation, kernel, stride))
    if blocks < 0 or draw.maybe(0.05):
        blocks = 1
    rows = draw.choice([1, 2, 3]) * math.prod(kernel) + draw.maybe(0.05)
    x = draw.tensor([*draw.choice([[], [2], [1]]), rows, blocks], draw.choice(REALS))
    cases.compare("aten::col2im", x, out, kernel, dilation, padding, stride)


def draw_pad(draw, cases):
    dtype = draw.choice(REALS + [I64])
    x = draw.any([dtype])
    pads = [draw.randint(-2, 3) for _ in range(2 * draw.randint(0, x.dim()))]
    if draw.maybe(0.03):
        pads.append(1)
    cases.compare("aten::constant_pad_nd", x, pads, 0)
    n = draw.choice([1, 2, 2, 3])
    x = picture(draw, n, dtype)
    if draw.maybe(0.03):
        x = draw.any([dtype], rank=1)
    pads = [draw.randint(-1, 3) for _ in range(2 * n)]
    cases.compare(f"aten::reflection_pad{n}d", x, pads)
    if n > 1:
        cases.compare(f"aten::replication_pad{n}d", x, pads)


def draw_upsample(draw, cases):
    dtype = draw.choice(REALS)
    x = picture(draw, 2, dtype)
    out = [draw.randint(0 if draw.maybe(0.05) else 1, 20) for _ in range(2)]
    align = cases.Dim(draw.maybe(0.5))
    if x.dim() == 4 and x.numel() == 0:
        return  # the meta function of upsample_nearest2d stumbles over an empty batch
    cases.compare("aten::upsample_nearest2d", x, out, None, None, core="aten::upsample_nearest2d.vec",
                  call=lambda x, s, _h, _w: aten.upsample_nearest2d.vec(x, s, None))
    cases.compare("aten::upsample_bilinear2d", x, out, align, None, None, core="aten::upsample_bilinear2d.vec",
                  call=lambda x, s, a, _h, _w: aten.upsample_bilinear2d.vec(x, s, a, None), device=True,
                  eager=True)
    if x.dim() != 4:
        return
    scales = [draw.choice([0.5, 1.0, 1.5, 2.0, 3.3]) for _ in range(2)]
    out = [int(size * scale) for size, scale in zip(x.shape[2:], scales)]
    cases.compare("aten::upsample_nearest2d", x, out, *scales,
                  call=lambda x, _s, h, w: aten.upsample_nearest2d.vec(x, None, [h, w]))
    cases.compare("aten::upsample_bilinear2d", x, out, align, *scales,
                  call=lambda x, _s, a, h, w: aten.upsample_bilinear2d.vec(x, None, a, [h, w]), device=True,
                  eager=True)


def draw_grid(draw, cases):
    dtype = draw.choice(REALS)
    x = draw.tensor([2, draw.size(), draw.size(), draw.size()], dtype)
    grid = draw.tensor([2 + draw.maybe(0.05), draw.size(), draw.size(), 2 + draw.maybe(0.05)], dtype)
    cases.compare("aten::grid_sampler_2d", x, grid, cases.Dim(0), cases.Dim(0), cases.Dim(draw.maybe(0.5)),
                  device=True)


# ---- index, scatter ----

def index_type(draw):
    return draw.choice([I64, I64, I64, torch.int32, F32] if draw.maybe(0.2) else [I64])


def draw_gather(draw, cases):
    x = draw.any(ORDERED, empty=0.02)
    dim = draw.dim(x.dim())
    at = dim % max(x.dim(), 1)
    sizes = [draw.randint(0, 6) if i == at else draw.randint(1, max(size, 1)) for i, size in enumerate(x.shape)]
    if sizes and draw.maybe(0.05):
        sizes[draw.randrange(len(sizes))] += 6
    index = draw.tensor(sizes, index_type(draw))
    cases.compare("aten::gather", x, cases.Dim(dim), index, cases.Dim(0),
                  call=lambda x, d, i, _: aten.gather(x, d, i))
    source = draw.tensor([size + draw.choice([0, 1]) for size in sizes],
                         x.dtype if draw.maybe(0.95) else torch.float64)
    cases.compare("aten::scatter.src", x, cases.Dim(dim), index, source)
    cases.compare("aten::scatter.value", x, cases.Dim(dim), index, 1)
    cases.compare("aten::scatter_add", x, cases.Dim(dim), index, source)
    which = draw.choice(["sum", "prod", "mean", "amax", "amin"])
    code = ["sum", "prod", "mean", "amax", "amin"].index(which)
    cases.compare("djinn::scatter_reduce", x, cases.Dim(dim), index, source, cases.Dim(code), cases.Dim(1),
                  core="aten::scatter_reduce.two",
                  call=lambda x, d, i, s, _r, k: aten.scatter_reduce.two(x, d, i, s, which, include_self=k))


def draw_index(draw, cases):
    x = draw.any(ORDERED, rank=draw.randint(1, 5))
    # for an index without dimensions the meta function drops the stride of another dimension
    common = draw.sizes(rank=draw.choice([1, 2]), empty=0)
    indices = [draw.tensor(draw.partner(common, wrong=0.02)[-3:] or [1], index_type(draw)) if draw.maybe(0.6) else None
               for _ in range(draw.randint(1, x.dim()))]
    if all(index is None for index in indices):
        return
    out = cases.compare("aten::index.Tensor", x, indices)
    if out is None:
        return
    values = draw.tensor(draw.partner(out[0].shape)[-out[0].dim():] if out[0].dim() else [], x.dtype)
    if x.numel() > 0:  # the processor looks at the indices, which are 0
        cases.compare("aten::index_put_", x, indices, values, cases.Dim(0), core="aten::index_put",
                      call=lambda x, i, v, a: aten.index_put(x, i, v, a), device=True)


def draw_select_rows(draw, cases):
    x = draw.any(ORDERED, rank=draw.randint(1, 4))
    dim = draw.dim(x.dim())
    cases.compare("aten::index_select", x, cases.Dim(dim), draw.tensor(draw.sizes(most=1), I64))
    weight = draw.tensor([draw.size(0), draw.size()], draw.choice(REALS))
    rows = draw.tensor(draw.sizes(most=4), draw.choice([I64, torch.int32]))
    out = cases.compare("aten::embedding", weight, rows, None, None, None, call=lambda w, i, *_: aten.embedding(w, i))
    if out is not None:
        grad = draw.tensor(out[0].shape, weight.dtype)
        cases.compare("aten::embedding_dense_backward", grad, rows, cases.Dim(draw.randint(1, 9)), cases.Dim(-1),
                      cases.Dim(0))


def draw_bag(draw, cases):
    dtype = draw.choice(REALS)
    weight = draw.tensor([draw.size(0), draw.size(0)], dtype)
    integer = draw.choice([I64, torch.int32])
    n = draw.randint(1, 9)
    rows, offsets = draw.tensor([n], integer), draw.tensor([draw.randint(0, 4)], integer)
    mode = draw.randrange(3)
    scale = draw.tensor([n + draw.maybe(0.1)], dtype) if draw.maybe(0.3) else None
    cases.compare("aten::_embedding_bag", weight, rows, offsets, cases.Dim(0), cases.Dim(mode), cases.Dim(0),
                  scale, cases.Dim(draw.maybe(0.4)), cases.Dim(-1))


def draw_join(draw, cases):
    sizes = draw.sizes(draw.randint(1, 5))
    dim = draw.dim(len(sizes))
    at = dim % len(sizes)
    last = draw.maybe(0.3)
    tensors = []
    for _ in range(draw.randint(1, 4)):
        own = [draw.size() if i == at else size + draw.maybe(0.01) for i, size in enumerate(sizes)]
        own = [0] if draw.maybe(0.05) else own
        tensors.append(draw.tensor(own, draw.choice(ORDERED), "last" if last else None))
    cases.compare("aten::cat", tensors, cases.Dim(dim))


def draw_layout(draw, cases):
    x = draw.any(ORDERED)
    cases.compare("aten::flip", x, draw.dims(x.dim()))
    repeats = [draw.randint(0, 3) for _ in range(x.dim() + draw.choice([0, 0, 1, 2]) - draw.maybe(0.05))]
    cases.compare("aten::repeat", x, repeats)
    cases.compare("aten::tril", x, cases.Dim(draw.randint(-2, 2)))
    cases.compare("aten::triu", x, cases.Dim(draw.randint(-2, 2)))
    cases.compare("aten::nonzero", x, call=refuse)


def refuse(*_):
    raise RuntimeError("its size depends on data")


# ---- views ----

def optional(value):
    return None if value is None else [value]


def draw_view(draw, cases):
    x = draw.any(ALL)
    rank = x.dim()
    dim = draw.dim(rank)
    cases.compare("aten::alias", x)
    cases.compare("aten::squeeze.dim", x, cases.Dim(dim))
    cases.compare("aten::squeeze.dims", x, draw.dims(rank))
    cases.compare("aten::unsqueeze", x, cases.Dim(draw.dim(rank + 1)))
    cases.compare("aten::permute", x, draw.choice([draw.sample(range(rank), rank), draw.dims(rank)]))
    cases.compare("aten::select.int", x, cases.Dim(dim), cases.Dim(draw.randint(-4, 3)))
    start, end = draw.choice([None, draw.randint(-5, 5)]), draw.choice([None, draw.randint(-5, 9), 2 ** 62])
    step = draw.choice([1, 1, 2, 3, 0])
    cases.compare("aten::slice.Tensor", x, cases.Dim(dim), optional(start), optional(end), cases.Dim(step),
                  call=lambda x, d, s, e, t: aten.slice.Tensor(x, d, s and s[0], e and e[0], t))
    cases.compare("aten::diagonal", x, cases.Dim(draw.randint(-3, 3)), cases.Dim(dim),
                  cases.Dim(draw.dim(rank)))
    wide = [draw.size() for _ in range(draw.choice([0, 1, 2]))]
    wide += [draw.choice([-1, size]) if size != 1 else draw.choice([-1, 1, 4]) for size in x.shape]
    if wide and draw.maybe(0.05):
        wide[draw.randrange(len(wide))] = draw.choice([-1, 9])
    cases.compare("aten::expand", x, wide, cases.Dim(0), call=lambda x, s, _: aten.expand(x, s))
    wanted = regroup(draw, x)
    cases.compare("aten::view", x, wanted)
    sizes = draw.choice([draw.sizes(most=4), list(x.shape)])
    if x.storage_offset() == 0:
        cases.compare("aten::resize_", x, sizes, None,
                      call=lambda x, s, _: aten.resize_(x.as_strided(x.shape, x.stride()), s))


def regroup(draw, x):
    """Sizes of as many elements, mostly."""
    sizes = list(x.shape)
    for _ in range(draw.randint(0, 3)):
        if len(sizes) > 1 and draw.maybe(0.5):
            i = draw.randrange(len(sizes) - 1)
            sizes[i:i + 2] = [sizes[i] * sizes[i + 1]]
        elif sizes and len(sizes) < 8:
            i = draw.randrange(len(sizes))
            by = draw.choice([d for d in range(1, 8) if sizes[i] % d == 0] or [1])
            sizes[i:i + 1] = draw.choice([[by, sizes[i] // by], [sizes[i] // by, by]])
    if sizes and draw.maybe(0.2):
        sizes[draw.randrange(len(sizes))] = -1
    if sizes and draw.maybe(0.05):
        sizes[0] += 1
    return sizes


def draw_split(draw, cases):
    x = draw.any(ALL, rank=draw.randint(0, 4))
    dim = draw.dim(x.dim())
    size = x.shape[dim] if -x.dim() <= dim < x.dim() else 1
    parts = []
    while sum(parts) < size:
        parts.append(draw.randint(0, size - sum(parts)))
    parts = parts or [0]
    if draw.maybe(0.05):
        parts[0] += draw.choice([1, -1])
    which = draw.randrange(len(parts))
    cases.compare("djinn::split_with_sizes", x, parts, cases.Dim(dim), cases.Dim(which),
                  core="aten::split_with_sizes", call=lambda x, p, d, w: aten.split_with_sizes(x, p, d)[w])


def draw_strided(draw, cases):
    sizes = draw.sizes(most=4)
    strides = [draw.randint(0, 9) for _ in sizes]
    offset = draw.choice([None, draw.randint(0, 9)])
    x = torch.empty(1000, dtype=draw.choice(ALL), device="meta")[draw.randint(0, 5):]
    cases.compare("aten::as_strided", x, sizes, strides[1:] if draw.maybe(0.05) else strides, optional(offset),
                  call=lambda x, s, t, o: aten.as_strided(x, s, t, o and o[0]))


def draw_write(draw, cases):
    x = draw.any(ORDERED)
    rank, dim = x.dim(), draw.dim(x.dim())
    row = list(x.shape)
    if rank > 0:
        del row[dim % rank]
    if row and draw.maybe(0.05):
        row[0] += 1
    # PyTorch's meta tensors look at neither source nor index; devices do
    cases.compare("aten::select_scatter", x, draw.tensor(row, x.dtype), cases.Dim(dim),
                  cases.Dim(draw.randint(-3, 2)), device=True)
    start, end = draw.choice([None, draw.randint(-5, 5)]), draw.choice([None, draw.randint(-5, 9)])
    step = draw.choice([1, 1, 2])
    part = list(x.shape)
    if rank > 0:
        part[dim % rank] = len(range(*slice(start, end, step).indices(part[dim % rank])))
    cases.compare("aten::slice_scatter", x, draw.tensor(part, x.dtype), cases.Dim(dim), optional(start),
                  optional(end), cases.Dim(step), device=True,
                  call=lambda x, s, d, a, b, t: aten.slice_scatter(x, s, d, a and a[0], b and b[0], t))


DRAWS = [function for name, function in sorted(globals().items()) if name.startswith("draw_")]


def random_cases(cases, rounds, seed=4):
    """`rounds` times every draw. Each draw has random numbers of its own, so a new one changes no other."""
    for function in DRAWS:
        draw = Draw(f"{seed} {function.__name__}")
        for _ in range(rounds):
            function(draw, cases)
