"""Every row of op_cases.def against PyTorch: runs `gpu_test_kernels --dump` and replays each row there.

    build/venv/bin/python tests/gpu/kernel_cases.py build/release/bin/gpu_test_kernels

The reference in C says what a kernel must compute; this says that the reference means what PyTorch does.
"""
import json
import subprocess
import sys

import torch

TOLERANCE = {torch.float32: 4e-6, torch.float64: 2e-12, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = {"bool": torch.bool, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16,
          "int32": torch.int32, "int64": torch.int64, "float16": torch.float16,
          "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::linear", "djinn::attention")
# Equal keys may be listed in any order, so places are compared through the values they choose.
UNORDERED = ("aten::topk",)


def tensor(value):
    if isinstance(value, dict):
        data = torch.tensor(value["data"], dtype=torch.float64 if "float" in value["dtype"] else None)
        return data.to(DTYPES[value["dtype"]]).reshape(value["sizes"])
    return [tensor(v) for v in value] if isinstance(value, list) else value


def own_op(name, args):
    """The rows that are not ATen's."""
    if name == "djinn::copy":
        return args[0].clone() if torch.is_tensor(args[0]) else torch.tensor(args[0])
    if name == "djinn::to_copy":
        return args[0].to(DTYPES[args[1]] if args[1] else args[0].dtype)
    if name == "djinn::full":
        return torch.full(args[0], args[1], dtype=DTYPES[args[2]])
    if name == "djinn::arange":
        count, start, step, dtype = args
        return torch.arange(start, start + count * step, step, dtype=DTYPES[dtype])
    if name == "djinn::gelu_tanh":
        return torch.nn.functional.gelu(args[0], approximate="tanh")
    q, k, v, mask, _, causal, scale, grouped = args
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)


def expected(row):
    name, letters = row["op"], row["signature"].split(">")[0]
    args = [tensor(a) for a in row["args"]]
    if name.startswith("djinn::"):
        return own_op(name, args)
    base, _, overload = name.split("::")[1].partition(".")
    if base == "index_put_" and not torch.is_tensor(args[2]):
        args[2] = torch.tensor(args[2], dtype=args[0].dtype)
    # A plain number in place of a tensor is what only the public functions take.
    if any(l == "t" and isinstance(v, (int, float)) for l, v in zip(letters, args)):
        named = {"alpha": args[2]} if base in ("add", "sub") else {}
        return getattr(torch, base)(*args[:2 if named else None], **named)
    packet = getattr(torch.ops.aten, base)
    op = getattr(packet, overload or "default")
    named = {}
    for argument, letter, value in zip(op._schema.arguments, letters, args):
        if letter == "-":
            continue
        if letter == "y":
            value = DTYPES[value] if value else None
        if value is not None or argument.default_value is None:
            named[argument.name] = value
    if base in ("argmax", "argmin"):
        named["dim"] = named["dim"][0] if named["dim"] else None
    return op(**named)


def same(row, want, got):
    if row["op"] in PRODUCTS:
        scale = 10
    else:
        scale = 1
    if not got.dtype.is_floating_point:
        return torch.equal(want.to(got.dtype), got)
    inputs = [a for a in row["args"] if isinstance(a, dict)]
    limit = max([TOLERANCE[got.dtype]] + [TOLERANCE.get(DTYPES[a["dtype"]], 0) for a in inputs])
    return torch.allclose(want.to(torch.float64), got.to(torch.float64), rtol=limit * scale,
                          atol=limit * scale, equal_nan=True)


def main():
    lines = subprocess.run([sys.argv[1], "--dump"], check=True, capture_output=True, text=True).stdout
    failed, n_rows = 0, 0
    for line in lines.splitlines():
        row = json.loads(line)
        n_rows += 1
        if row["op"] == "djinn::empty":
            continue
        try:
            want = expected(row)
        except RuntimeError as error:
            # A kernel cannot raise where PyTorch divides by zero, and serves more types than it does.
            if "ZeroDivisionError" not in str(error) and "does not support" not in str(error):
                raise
            continue
        outs = [tensor(o) for o in row["outs"]]
        wants = list(want) if isinstance(want, (tuple, list)) else [want]
        if row["op"] in UNORDERED:
            wants, outs = wants[:1], outs[:1]
        for i, (w, g) in enumerate(zip(wants, outs)):
            bad_dtype = w.dtype != g.dtype and ">" not in row["text"]
            if w.shape != g.shape and w.numel() == g.numel():
                w = w.reshape(g.shape)  # statistics of a layer norm may drop single dimensions
            if bad_dtype or w.shape != g.shape or not same(row, w, g):
                failed += 1
                print(f"{row['op']} {row['text']}: output {i}: {g.dtype} {g.flatten()[:6]}, "
                      f"PyTorch {w.dtype} {w.flatten()[:6]}")
    print(f"{n_rows} rows, {failed} differ from PyTorch {torch.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
