"""Writes what PyTorch says about shapes, for test_shape.c to hold the shape rules against.

Cases are listed here family by family, and drawn at random by shape_random.py. Every row of the table must
have one, and every overload of Core ATen a row (shape_core.py).

One case is one call of a row of planner/ops.def: the arguments, then dtype, sizes and strides of every
output as PyTorch computes them for meta tensors, or `error`. Calls that PyTorch refuses are kept where
the case says that they should be. Usage: shape_cases.py OPS_DEF OUTPUT

Tokens, separated by blanks:
  case NAME N_ARGS ARG... (error | OUTS N OUT...)
  ARG: t VIEW | number DTYPE VALUE | none | l COUNT (t VIEW | none)... | i INT | I COUNT INT...
       | s DTYPE VALUE
  VIEW, OUT: DTYPE RANK SIZE... STRIDE... OFFSET; an OUT that PyTorch leaves out is `-1`
The last line is `end CASES OVERLOADS_OF_CORE COVERED REASONED`.
"""

import itertools
import re
import sys

import torch

from shape_core import REASONED, ROWS, core_overloads
from shape_random import random_cases

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
          torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64, torch.complex128]
CODE = {dtype: code for code, dtype in enumerate(DTYPES)}
DTYPES = DTYPES[:10]  # of the listed cases; complex types are drawn
FLOATS = DTYPES[6:]
ROUNDS = 90  # of every draw
F32, I64, BOOL = torch.float32, torch.int64, torch.bool


class Number:
    """A plain number that stands in for a tensor."""

    def __init__(self, value):
        self.value = value


class Dim(int):
    """An integer argument (n, d, b, y); plain int and float are scalars (s)."""


def meta(sizes, dtype=F32, strides=None):
    if strides is None:
        return torch.empty(sizes, dtype=dtype, device="meta")
    return torch.empty_strided(sizes, strides, dtype=dtype, device="meta")


def view_tokens(tensor):
    if tensor is None:
        return [-1]
    return [CODE[tensor.dtype], tensor.dim(), *tensor.shape, *tensor.stride(), tensor.storage_offset()]


def scalar_tokens(value):
    if isinstance(value, bool):
        return [0, int(value)]
    if isinstance(value, int):
        return [5, value]
    return [9, repr(value)]


def arg_tokens(arg, letter):
    if arg is None:
        return ["none"]
    if isinstance(arg, Number):
        return ["number", *scalar_tokens(arg.value)]
    if isinstance(arg, torch.Tensor):
        return ["t", *view_tokens(arg)]
    if isinstance(arg, torch.dtype):
        return ["i", CODE[arg]]
    if letter in "lL":
        tokens = ["l", len(arg)]
        for item in arg:
            tokens += ["none"] if item is None else ["t", *view_tokens(item)]
        return tokens
    if letter in "ND":
        return ["I", len(arg), *arg]
    if letter in "sS":
        return ["s", *scalar_tokens(arg)]
    return ["i", int(arg)]


def layouts(sizes):
    """The ways in which a tensor of these sizes may lie."""
    sizes = list(sizes)
    rank = len(sizes)
    yield meta(sizes)
    for order in itertools.permutations(range(rank)):
        if list(order) != list(range(rank)):
            inverse = [order.index(i) for i in range(rank)]
            yield meta([sizes[i] for i in order]).permute(inverse)
    if rank > 0:
        yield meta([size * 2 for size in sizes])[tuple(slice(None, None, 2) for _ in sizes)]
        yield meta(sizes[:-1] + [1]).expand(sizes)
        yield meta([1] + sizes[1:]).expand(sizes)
    if rank > 1:
        yield meta([sizes[-1] + 3] + sizes[:-1])[: sizes[-1]].movedim(0, -1)


def attempt(call, args):
    try:
        return call(*args)
    except (RuntimeError, IndexError, TypeError, ValueError, AssertionError, ZeroDivisionError, KeyError):
        return None


def on_processor(arg, divisor=False):
    if isinstance(arg, torch.Tensor):
        room = sum((size - 1) * stride for size, stride in zip(arg.shape, arg.stride()) if size > 0) + 1
        fill = torch.ones if divisor else torch.zeros
        return fill(max(room, 1), dtype=arg.dtype).as_strided(arg.shape, arg.stride())
    return [on_processor(item, divisor) for item in arg] if isinstance(arg, list) else arg


class Cases:
    Number, Dim = Number, Dim

    def __init__(self, rows, output):
        self.rows = rows
        self.output = output
        self.count = 0
        self.seen = set()
        self.core = set()
        self.surprises = []

    def emit(self, name, args, outs):
        signature = self.rows[name]
        tokens = ["case", name, len(args)]
        for arg, letter in zip(args, signature, strict=True):
            tokens += arg_tokens(arg, letter)
        if outs is None:
            tokens.append("error")
        else:
            tokens += ["outs", len(outs)]
            for out in outs:
                tokens += view_tokens(out)
        print(*tokens, file=self.output)
        self.count += 1
        self.seen.add(name)
        self.core.add(name)

    def compare(self, name, *args, call=None, core=None, device=False, eager=False):
        """Whatever PyTorch says is the case. With `device`, what meta tensors let through must also pass on
        the processor. With `eager`, strides are those of the processor's result where it has one: the meta
        functions of some pointwise ops are decompositions, whose strides are no device's. `core` is the overload
        of Core ATen that `call` stands for, where the row has another name. Returns the outputs, None when
        PyTorch refuses."""
        signature = self.rows[name]
        plain = [arg.value if isinstance(arg, Number) else arg for arg in args]
        plain = [bool(arg) if letter == "b" and arg is not None else int(arg) if isinstance(arg, Dim) else arg
                 for arg, letter in zip(plain, signature, strict=True)]
        call = call or overload(name)
        outs = attempt(call, plain)
        if (device or eager) and outs is not None:
            real = attempt(call, on_processor(plain, "div" in name or "rem" in name or "fmod" in name))
            outs = None if real is None and device else real if real is not None and eager else outs
        if outs is not None:
            outs = outs if isinstance(outs, (tuple, list)) else (outs,)
        self.emit(name, args, () if outs is not None and signature.endswith("!") else outs)
        if core:
            self.core.add(core)
        return outs

    def add(self, name, *args, call=None, fails=False):
        """`call` computes the outputs; else the ATen overload of the same name does. `fails` None:
        where PyTorch refuses, for reasons of its own, there is no case."""
        if call is None:
            call = overload(name)
        plain = [arg.value if isinstance(arg, Number) else arg for arg in args]
        plain = [bool(arg) if letter == "b" and arg is not None else int(arg) if isinstance(arg, Dim) else arg
                 for arg, letter in zip(plain, self.rows[name], strict=True)]
        outs = attempt(call, plain)
        if fails and outs is not None:  # meta tensors let through what devices refuse
            outs = attempt(call, on_processor(plain))
        if (outs is None) != bool(fails) and fails is not None:
            self.surprises.append(f"{name}{args}: PyTorch {'refuses' if outs is None else 'accepts'}")
        if outs is None:
            if fails:
                self.emit(name, args, None)
            return
        if self.rows[name].endswith("!"):
            outs = ()
        self.emit(name, args, outs if isinstance(outs, (tuple, list)) else (outs,))


def overload(name):
    packet, _, which = name.split("::")[1].partition(".")
    function = getattr(getattr(torch.ops.aten, packet), which or "default")
    if packet in ("add", "sub"):
        return lambda a, b, alpha: function(a, b, alpha=alpha)
    return function


def pointwise(cases):
    arithmetic = ["aten::mul.Tensor", "aten::div.Tensor", "aten::maximum", "aten::eq.Tensor",
                  "aten::lt.Tensor", "aten::pow.Tensor_Tensor", "aten::logical_and",
                  "aten::floor_divide", "aten::minimum", "aten::ne.Tensor", "aten::le.Tensor",
                  "aten::gt.Tensor", "aten::ge.Tensor", "aten::logical_or"]
    for name in arithmetic:
        for a, b in itertools.product(DTYPES, DTYPES):
            if name == "aten::pow.Tensor_Tensor" and a == b == BOOL:
                continue  # refused by devices, not by meta tensors
            cases.add(name, meta([2, 3], a), meta([3], b), fails=None)
            cases.add(name, meta([2, 3], a), meta([], b), fails=None)
            cases.add(name, meta([], a), meta([], b), fails=None)
    for a, value in itertools.product(DTYPES, [True, 3, 2.5]):
        for sizes in ([2, 3], []):
            cases.add("aten::mul.Tensor", meta(sizes, a), Number(value))
            cases.add("aten::div.Tensor", meta(sizes, a), Number(value))
            if a != BOOL or not isinstance(value, bool):
                cases.add("aten::add.Tensor", meta(sizes, a), Number(value), 1)
            cases.add("aten::eq.Scalar", meta(sizes, a), value)
            if a != BOOL or not isinstance(value, bool):
                cases.add("aten::pow.Tensor_Scalar", meta(sizes, a), value)
            if a != BOOL and not isinstance(value, bool):
                cases.add("aten::rsub.Scalar", meta(sizes, a), value, 1)
                cases.add("aten::remainder.Scalar", meta(sizes, a), value)
                cases.add("aten::clamp", meta(sizes, a), value, None)
                cases.add("aten::clamp_min", meta(sizes, a), value)
                cases.add("aten::clamp_max", meta(sizes, a), value)
            for name in ("ne", "lt", "le", "gt", "ge"):
                cases.add(f"aten::{name}.Scalar", meta(sizes, a), value)
    cases.add("aten::clamp", meta([4]), 0, 2.5)
    cases.add("aten::add.Tensor", meta([3], I64), meta([3], I64), 1.5, fails=True)
    cases.add("aten::sub.Tensor", meta([3], BOOL), meta([3], BOOL), 1, fails=True)
    cases.add("aten::sub.Tensor", meta([3], I64), meta([3]), 2.5)
    cases.add("aten::mul.Tensor", meta([2, 3]), meta([2]), fails=True)
    cases.add("aten::mul.Tensor", meta([2, 0]), meta([2, 1]))
    cases.add("aten::mul.Tensor", meta([2, 0]), meta([2, 3]), fails=True)


def pointwise_unary(cases):
    plain = ["neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "erf",
             "sigmoid", "relu", "silu", "isnan", "logical_not"]
    for name in plain:
        for dtype in DTYPES:
            if (name == "silu" and dtype not in FLOATS) or (name == "relu" and dtype == BOOL):
                continue  # refused by devices, not by meta tensors
            cases.add(f"aten::{name}", meta([2, 3], dtype), fails=name == "neg" and dtype == BOOL)
    for dtype in FLOATS:
        cases.add("aten::gelu", meta([2, 3], dtype), None, call=lambda a, _: torch.ops.aten.gelu(a))
        cases.add("djinn::gelu_tanh", meta([2, 3], dtype),
                  call=lambda a: torch.ops.aten.gelu(a, approximate="tanh"))
    for name in ("and", "or", "xor"):
        for a, b in itertools.product(DTYPES, DTYPES):
            cases.add(f"aten::bitwise_{name}.Tensor", meta([2, 3], a), meta([3], b),
                      fails=a in FLOATS or b in FLOATS)
    for a in DTYPES:
        cases.add("aten::bitwise_not", meta([2, 3], a), fails=a in FLOATS)


def pointwise_layout(cases):
    for a in layouts([2, 3, 4]):
        cases.add("aten::exp", a)
        cases.add("aten::logical_not", a)
        cases.add("aten::add.Tensor", a, Number(2), 1)
        cases.add("djinn::copy", a, call=torch.clone)
        cases.add("djinn::to_copy", a, I64, call=lambda a, d: torch.ops.aten._to_copy(a, dtype=d))
        for b in layouts([2, 3, 4]):
            cases.add("aten::add.Tensor", a, b, 1)
            cases.add("aten::where.self", a.to(BOOL), b, a)
        for b in layouts([3, 4]):
            cases.add("aten::mul.Tensor", a, b)
            cases.add("aten::mul.Tensor", b, a)
        for b in ([4], [1, 4], [2, 1, 4], [2, 3, 1], [1, 1, 1], []):
            cases.add("aten::mul.Tensor", a, meta(b))
    for a, b in itertools.product(layouts([2, 1, 4]), layouts([1, 3, 4])):
        cases.add("aten::mul.Tensor", a, b)
    for a in layouts([2, 3, 4, 5]):
        cases.add("aten::mul.Tensor", a, meta([2, 3, 4, 5]))
        cases.add("aten::mul.Tensor", a, meta([4, 1]))
    for a, b in itertools.product(DTYPES, DTYPES):
        cases.add("aten::where.self", meta([3], BOOL), meta([2, 3], a), meta([], b))
    cases.add("aten::where.self", meta([3]), meta([3]), meta([3]), fails=True)
    for a in layouts([2, 3, 4]):
        cases.add("aten::masked_fill.Scalar", a, meta([3, 4], BOOL), 1.5)
        cases.add("aten::masked_fill.Tensor", a, meta([2, 3, 4], BOOL), meta([]))
    cases.add("aten::masked_fill.Scalar", meta([3, 4], I64), meta([2, 1, 4], BOOL), 1)
    cases.add("aten::masked_fill.Scalar", meta([3, 4]), meta([3, 4]), 1.5, fails=True)


def creation(cases):
    for dtype in (F32, I64, BOOL, None):
        cases.add("djinn::empty", [2, 0, 3], dtype,
                  call=lambda s, d: torch.empty(s, dtype=d, device="meta"))
        cases.add("djinn::full", [2, 3], 1.5, dtype,
                  call=lambda s, v, d: torch.full(s, v, dtype=d, device="meta"))
        cases.add("djinn::full", [], 3, dtype,
                  call=lambda s, v, d: torch.full(s, v, dtype=d, device="meta"))
        cases.add("djinn::arange", Dim(5), 0, 2, dtype, call=lambda n, start, step, d: torch.arange(
            start, start + n * step, step, dtype=d, device="meta"))
        if dtype != BOOL:
            cases.add("djinn::arange", Dim(4), 0.5, 1, dtype,
                      call=lambda n, start, step, d: torch.arange(
                          start, start + n * step, step, dtype=d, device="meta"))


def reductions(cases):
    dims = [None, [], [0], [-1], [1, 2], [0, -1], [0, 1, 2]]
    for dim, keep in itertools.product(dims, (0, 1)):
        for a in layouts([2, 3, 4]):
            cases.add("aten::sum.dim_IntList", a, dim, Dim(keep), None,
                      call=lambda a, d, k, y: torch.ops.aten.sum.dim_IntList(a, d, k, dtype=y))
            cases.add("aten::mean.dim", a, dim, Dim(keep), None,
                      call=lambda a, d, k, y: torch.ops.aten.mean.dim(a, d, k, dtype=y))
            if dim is not None:
                cases.add("aten::amax", a, dim, Dim(keep))
                cases.add("aten::amin", a, dim, Dim(keep))
            if dim != [] or a.is_contiguous():  # no dimension at all keeps strides; ours does not
                cases.add("aten::any.dims", a, dim, Dim(keep))
                cases.add("aten::all.dims", a, dim, Dim(keep))
            cases.add("aten::linalg_vector_norm", a, 2.0, dim, Dim(keep), None,
                      call=lambda a, o, d, k, y: torch.linalg.vector_norm(a, o, d, bool(k), dtype=y))
            cases.add("aten::var.correction", a, dim, 1, Dim(keep),
                      call=lambda a, d, c, k: torch.ops.aten.var.correction(
                          a, d, correction=c, keepdim=k))
    for dtype in DTYPES:
        a = meta([2, 3], dtype)
        for out in (None, F32, I64):
            cases.add("aten::sum.dim_IntList", a, [1], Dim(0), out,
                      call=lambda a, d, k, y: torch.ops.aten.sum.dim_IntList(a, d, k, dtype=y))
            cases.add("aten::prod.dim_int", a, Dim(1), Dim(0), out,
                      call=lambda a, d, k, y: torch.ops.aten.prod.dim_int(a, d, k, dtype=y))
            cases.add("aten::cumsum", a, Dim(-1), out,
                      call=lambda a, d, y: torch.ops.aten.cumsum(a, d, dtype=y))
            cases.add("aten::mean.dim", a, [1], Dim(1), out,
                      call=lambda a, d, k, y: torch.ops.aten.mean.dim(a, d, k, dtype=y),
                      fails=(out or dtype) not in FLOATS)
        cases.add("aten::any.dims", a, [1], Dim(0))
        cases.add("aten::amax", a, [1], Dim(0))
        cases.add("aten::max.dim", a, Dim(0), Dim(1))
        cases.add("aten::min.dim", a, Dim(1), Dim(0))
    for a in layouts([2, 3, 4]):
        for dim in (0, 1, -1):
            cases.add("aten::max.dim", a, Dim(dim), Dim(0))
            cases.add("aten::argmax", a, [dim], Dim(1),
                      call=lambda a, d, k: torch.argmax(a, d[0], bool(k)))
        cases.add("aten::cumsum", a, Dim(1), None, call=lambda a, d, y: torch.cumsum(a, d))
        cases.add("aten::argmax", a, None, Dim(0), call=lambda a, d, k: torch.argmax(a))
        cases.add("aten::argmin", a, None, Dim(0), call=lambda a, d, k: torch.argmin(a))
    cases.add("aten::sum.dim_IntList", meta([]), [0], Dim(1), None,
              call=lambda a, d, k, y: torch.ops.aten.sum.dim_IntList(a, d, k))
    cases.add("aten::sum.dim_IntList", meta([2, 3]), [2], Dim(0), None, fails=True,
              call=lambda a, d, k, y: torch.ops.aten.sum.dim_IntList(a, d, k))
    cases.add("aten::sum.dim_IntList", meta([2, 3]), [1, -1], Dim(0), None, fails=True,
              call=lambda a, d, k, y: torch.ops.aten.sum.dim_IntList(a, d, k))
    cases.add("aten::sum.dim_IntList", meta([2, 0]), [1], Dim(0), None,
              call=lambda a, d, k, y: torch.ops.aten.sum.dim_IntList(a, d, k))
    cases.add("aten::amax", meta([2, 0]), [1], Dim(0), fails=True)
    cases.add("aten::amax", meta([2, 0]), [0], Dim(0))
    cases.add("aten::max.dim", meta([2, 0]), Dim(1), Dim(0), fails=True)
    cases.add("aten::linalg_vector_norm", meta([3], I64), 2.0, None, Dim(0), None, fails=True,
              call=lambda a, o, d, k, y: torch.linalg.vector_norm(a, o, d, bool(k), dtype=y))


def products(cases):
    for a in layouts([3, 4]):
        for b in layouts([4, 5]):
            cases.add("aten::mm", a, b)
            for bias in ([5], [3, 1], [1], [3, 5], []):
                cases.add("aten::addmm", meta(bias), a, b, 1, 1,
                          call=lambda c, a, b, _x, _y: torch.addmm(c, a, b))
    for a, b in itertools.product(layouts([2, 3, 4]), layouts([2, 4, 5])):
        cases.add("aten::bmm", a, b)
        cases.add("aten::baddbmm", meta([5]), a, b, 1, 1,
                  call=lambda c, a, b, _x, _y: torch.baddbmm(c, a, b))
    for a in [*layouts([2, 3, 4]), *layouts([3, 4]), meta([4]), meta([2, 0, 4]), meta([2, 3, 2, 4])]:
        for weight in layouts([5, 4]):
            cases.add("aten::linear", a, weight, None)
            cases.add("aten::linear", a, weight, meta([5]))
    cases.add("aten::mm", meta([3, 4]), meta([3, 4]), fails=True)
    cases.add("aten::mm", meta([3]), meta([3, 4]), fails=True)
    cases.add("aten::mm", meta([3, 4]), meta([4, 3], I64), fails=True)
    cases.add("aten::mm", meta([3, 0]), meta([0, 4]))
    cases.add("aten::bmm", meta([2, 3, 4]), meta([3, 4, 5]), fails=True)
    cases.add("aten::addmm", meta([4]), meta([3, 4]), meta([4, 5]), 1, 1, fails=True,
              call=lambda c, a, b, _x, _y: torch.addmm(c, a, b))
    cases.add("aten::linear", meta([2, 3]), meta([5, 4]), None, fails=True)
    cases.add("aten::linear", meta([2, 4]), meta([5, 4]), meta([4]), fails=True)


def attention_call(q, k, v, mask, dropout, causal, scale, grouped):
    """Sizes from PyTorch; strides as the table promises."""
    out = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, mask, dropout, bool(causal), scale=scale, enable_gqa=bool(grouped))
    return torch.empty_like(out.transpose(1, 2).contiguous()).transpose(1, 2)


def attention(cases):
    def add(q, k, v, mask=None, causal=0, scale=None, grouped=0, fails=False):
        cases.add("djinn::attention", q, k, v, mask, 0.0, Dim(causal), scale, Dim(grouped),
                  call=attention_call, fails=fails)
    q, k, v = meta([2, 6, 5, 8]), meta([2, 6, 7, 8]), meta([2, 6, 7, 9])
    for mask in ([5, 7], [2, 1, 5, 7], [2, 1, 1, 7], [2, 6, 5, 7]):
        add(q, k, v, meta(mask, BOOL))
        add(q, k, v, meta(mask))
    add(q, k, v, causal=1, scale=0.25)
    for a in layouts([2, 6, 5, 8]):
        add(a, k, v)
    add(q, meta([2, 2, 7, 8]), meta([2, 2, 7, 9]), grouped=1)
    add(q, meta([2, 4, 7, 8]), meta([2, 4, 7, 9]), grouped=1, fails=True)
    add(q, meta([2, 6, 7, 9]), v, fails=True)
    add(q, k, meta([2, 6, 8, 9]), fails=True)
    add(q, k, v, meta([5, 8], BOOL), fails=True)
    add(q, k, v, meta([5, 7], I64), fails=True)


def norms(cases):
    for a in layouts([2, 3, 4]):
        for shape in ([4], [3, 4], [2, 3, 4]):
            for affine in (meta(shape), None):
                cases.add("aten::native_layer_norm", a, shape, affine, affine, 1e-5)
        for name in ("_softmax", "_log_softmax"):
            for dim in (0, 1, -1):
                cases.add(f"aten::{name}", a, Dim(dim), Dim(0))
    for name in ("_softmax", "_log_softmax"):
        cases.add(f"aten::{name}", meta([]), Dim(0), Dim(0))
        cases.add(f"aten::{name}", meta([2, 3]), Dim(2), Dim(0), fails=True)
    cases.add("aten::native_layer_norm", meta([2, 3]), [2], None, None, 1e-5, fails=True)
    cases.add("aten::native_layer_norm", meta([2, 3]), [3], meta([2]), None, 1e-5, fails=True)
    cases.add("aten::native_layer_norm", meta([2, 3]), [3], None, meta([3, 1]), 1e-5, fails=True)
    cases.add("aten::native_layer_norm", meta([2, 3]), [], None, None, 1e-5, fails=True)


def gathers(cases):
    for index in ([], [5], [2, 5], [2, 5, 1]):
        cases.add("aten::embedding", meta([10, 4]), meta(index, I64), None, None, None,
                  call=lambda w, i, *_: torch.embedding(w, i))
    cases.add("aten::embedding", meta([10]), meta([3], I64), None, None, None, fails=True,
              call=lambda w, i, *_: torch.embedding(w, i))
    cases.add("aten::embedding", meta([10, 4]), meta([3]), None, None, None, fails=True,
              call=lambda w, i, *_: torch.embedding(w, i))
    for a in layouts([2, 3, 4]):
        for dim in (0, 1, -1):
            cases.add("aten::index_select", a, Dim(dim), meta([7], I64))
            cases.add("aten::gather", a, Dim(dim), meta([2, 2, 3], I64), Dim(0),
                      call=lambda a, d, i, _: torch.gather(a, d, i))
            cases.add("aten::scatter.value", a, Dim(dim), meta([2, 2, 3], I64), 1.5)
            cases.add("aten::scatter.src", a, Dim(dim), meta([2, 2, 3], I64), meta([2, 3, 4]))
        cases.add("aten::index_select", a, Dim(1), meta([], I64))
    cases.add("aten::index_select", meta([]), Dim(0), meta([1], I64))
    cases.add("aten::index_select", meta([2, 3]), Dim(0), meta([2, 2], I64), fails=True)
    cases.add("aten::index_select", meta([2, 3]), Dim(2), meta([2], I64), fails=True)
    cases.add("aten::index_select", meta([2, 3]), Dim(0), meta([2]), fails=True)
    gather = dict(call=lambda a, d, i, _: torch.gather(a, d, i))
    cases.add("aten::gather", meta([2, 3]), Dim(1), meta([2, 9], I64), Dim(0), **gather)
    cases.add("aten::gather", meta([2, 3]), Dim(1), meta([3, 2], I64), Dim(0), fails=True, **gather)
    cases.add("aten::gather", meta([2, 3]), Dim(1), meta([3], I64), Dim(0), fails=True, **gather)
    cases.add("aten::scatter.src", meta([2, 3]), Dim(1), meta([2, 2], I64), meta([1, 2]), fails=True)
    cases.add("aten::scatter.src", meta([2, 3]), Dim(1), meta([2, 2], I64), meta([2, 2], I64),
              fails=True)


def indexing(cases):
    i5, i25, i21 = meta([5], I64), meta([2, 5], I64), meta([2, 1], I64)
    groups = [[i5], [None, i5], [i5, i5], [i25, None, i5], [None, i5, i25], [i5, None, None, i25],
              [None, None, i25], [i21, i5], [i25, i5, i25, i21]]
    for indices in groups:
        a = meta([3, 4, 6, 7])
        cases.add("aten::index.Tensor", a, indices)
        value = torch.ops.aten.index.Tensor(a, indices)
        for values in (value, meta([7]) if value.shape[-1] == 7 else meta([1]), meta([])):
            cases.add("aten::index_put_", a, indices, values, Dim(0))
    cases.add("aten::index_put_", meta([3, 4]), [i5], meta([5, 3]), Dim(0), fails=True)
    cases.add("aten::index_put_", meta([3, 4]), [i5], meta([4], I64), Dim(0), fails=True)
    cases.add("aten::index.Tensor", meta([3]), [i5, i5], fails=True)
    cases.add("aten::index.Tensor", meta([3, 4]), [i5, meta([4], I64)], fails=True)
    cases.add("aten::index_copy_", meta([3, 4, 5]), Dim(1), meta([2], I64), meta([3, 2, 5]))
    cases.add("aten::index_copy_", meta([3, 4, 5]), Dim(-1), meta([], I64), meta([3, 4, 1]))
    cases.add("aten::index_copy_", meta([3, 4]), Dim(1), meta([2], I64), meta([2, 2]), fails=True)
    cases.add("aten::index_copy_", meta([3, 4]), Dim(1), meta([2], I64), meta([3, 2], I64), fails=True)


def windows(cases):
    """What the meta functions let through and no device takes."""
    x, w, b = meta([2, 4, 8, 8]), meta([6, 2, 3, 3]), meta([6])

    def conv(x=x, w=w, b=b, stride=(1,), padding=(0,), dilation=(1,), transposed=0, more=(0,), groups=2):
        cases.add("aten::convolution", x, w, b, list(stride), list(padding), list(dilation), Dim(transposed),
                  list(more), Dim(groups), fails=True)
    conv(b=meta([5]))
    conv(b=meta([6], torch.float64))
    conv(w=meta([6, 2, 3, 3], torch.float64))
    conv(w=meta([5, 2, 3, 3]), b=None)
    conv(padding=[-1])
    conv(stride=[0])
    conv(stride=[-1])
    conv(dilation=[0])
    conv(groups=0)
    conv(groups=-1)
    conv(w=meta([6, 2, 9, 9]))
    conv(w=meta([5, 2, 3, 3]), transposed=1, b=None, groups=1)
    conv(w=meta([4, 3, 3, 3]), transposed=1, more=[1])
    conv(w=meta([4, 3, 3, 3]), transposed=1, more=[-1])
    conv(x=meta([2, 4]))
    conv(w=meta([6, 2, 3]))
    pool = ([3], [2], [1])
    for name, args in (("aten::avg_pool2d", (Dim(0), Dim(1), None)),
                       ("aten::max_pool2d_with_indices", ([1], Dim(0)))):
        for bad in (([0], *pool[1:]), (pool[0], [0], pool[2]), (*pool[:2], [2]), (*pool[:2], [-1]),
                    ([3, 3, 3], *pool[1:]), ([30], *pool[1:])):
            cases.add(name, x, *bad, *args, fails=True)
        cases.add(name, meta([2, 0, 8, 8]), *pool, *args, fails=True)
        cases.add(name, meta([8, 8]), *pool, *args, fails=True)


def movers(cases):
    for a, b in itertools.product(layouts([2, 3, 4]), (meta([2, 3, 4]), meta([2, 3, 4], I64))):
        for dim in (0, 1, -1):
            cases.add("aten::cat", [a.contiguous(), b, b], Dim(dim))
    for a, b in itertools.product(DTYPES, DTYPES):
        cases.add("aten::cat", [meta([2, 3], a), meta([2, 1], b)], Dim(1))
    cases.add("aten::cat", [meta([0]), meta([2, 3])], Dim(1))
    cases.add("aten::cat", [meta([0]), meta([0])], Dim(0))
    cases.add("aten::cat", [meta([2, 3]), meta([3, 3])], Dim(1), fails=True)
    cases.add("aten::cat", [meta([2, 3]), meta([2])], Dim(1), fails=True)
    cases.add("aten::cat", [meta([])], Dim(0), fails=True)
    for a in layouts([2, 3, 4]):
        cases.add("aten::tril", a, Dim(-1))
        cases.add("aten::triu", a, Dim(1))
        cases.add("aten::flip", a, [0, 2])
        cases.add("aten::topk", a, Dim(2), Dim(1), Dim(1), Dim(1))
        cases.add("aten::repeat", a, [2, 1, 3])
        cases.add("aten::repeat", a, [5, 2, 1, 3])
        cases.add("aten::isin.Tensor_Tensor", a.to(I64).contiguous(), meta([5], I64), Dim(0), Dim(0),
                  call=lambda a, t, *_: torch.isin(a, t))
    cases.add("aten::tril", meta([3]), Dim(0), fails=True)
    cases.add("aten::flip", meta([2, 3]), [0, 0], fails=True)
    cases.add("aten::topk", meta([2, 3]), Dim(4), Dim(1), Dim(1), Dim(1), fails=True)
    cases.add("aten::repeat", meta([2, 3]), [2], fails=True)
    cases.add("aten::repeat", meta([2, 3]), [0, 2])


def check_core(rows, cases):
    """Sentences about overloads of Core ATen that no row serves, or that no case has tried."""
    core = core_overloads()
    wrong = [f"{name} is listed, but not in Core ATen" for name in {*ROWS, *REASONED} - set(core)]
    for name in core:
        row = ROWS.get(name, name)
        if name in REASONED:
            continue
        if row not in rows:
            wrong.append(f"{name}: no row {row}")
        elif name not in cases.core and row == name:
            wrong.append(f"{name}: no case")
        elif name not in cases.core:
            wrong.append(f"{name}: no case by way of {row}")
    return core, wrong


def main():
    text = open(sys.argv[1], encoding="utf-8").read()
    rows = {name: Signature(args + ("!" if end == "!" else "")) for name, args, end in
            re.findall(r'^OP\(\w+, "([^"]+)", "([^">]+)>(.)"', text, re.M)}
    with open(sys.argv[2], "w", encoding="utf-8") as output:
        cases = Cases(rows, output)
        for family in (pointwise, pointwise_unary, pointwise_layout, creation, reductions, products,
                       attention, norms, windows, gathers, indexing, movers):
            family(cases)
        random_cases(cases, int(sys.argv[3]) if len(sys.argv) > 3 else ROUNDS, *sys.argv[4:])
        missing = [name for name in rows if name not in cases.seen]
        core, wrong = check_core(rows, cases)
        print("end", cases.count, len(core), len(core) - len(REASONED), len(REASONED), file=output)
    for surprise in cases.surprises + wrong:
        print(surprise)
    print(f"{cases.count} cases of {len(cases.seen)} rows; without a case: {missing or 'none'}")
    return 1 if missing or cases.surprises or wrong else 0


class Signature(str):
    """Letters of the arguments; endswith("!") tells an op in place."""

    def __iter__(self):
        return iter(str(self).rstrip("!"))


if __name__ == "__main__":
    sys.exit(main())
