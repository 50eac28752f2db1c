"""Every row of op_cases.def against PyTorch: runs `gpu_test_kernels --dump` and replays each row there.

    build/venv/bin/python tests/gpu/kernel_cases.py build/release/bin/gpu_test_kernels [SEED ...] [--rows FILE]

With seeds the rows that random_cases.py draws from them, with a file its rows. The program may as well be
gpu_cuda_test_ops, which has the rows that only GPUs compute. The reference in C says what a kernel must compute; this
says that the reference means what PyTorch does: in values, in types, and in what is refused.
"""
import json
import subprocess
import sys
import tempfile

import torch

import random_cases

TOLERANCE = {torch.float32: 4e-6, torch.float64: 2e-12, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = {"bool": torch.bool, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16,
          "int32": torch.int32, "int64": torch.int64, "float16": torch.float16,
          "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
# Sums of many terms, whose own size counts and not the sum's.
SUMS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::linear", "djinn::attention",
        "aten::convolution", "aten::sum", "aten::mean", "aten::cumsum")
# Equal keys may be listed in any order, so places are compared through the values they choose; and what inference
# makes of a batch norm's statistics nobody reads.
FIRST_ALONE = ("aten::topk", "aten::_native_batch_norm_legit_no_training")


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
    if base == "sort": # ours keeps the order of equal ones whether asked to or not
        return torch.sort(args[0], stable=True, dim=args[1], descending=args[2])
    if base == "avg_pool2d" and args[6]:
        args[6] = args[6][0]
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
    scale = 10 if row["op"].startswith(SUMS) else 1
    if not got.dtype.is_floating_point:
        return torch.equal(want.to(got.dtype), got)
    inputs = [a for a in row["args"] if isinstance(a, dict)]
    limit = max([TOLERANCE[got.dtype]] + [TOLERANCE.get(DTYPES[a["dtype"]], 0) for a in inputs])
    return torch.allclose(want.to(torch.float64), got.to(torch.float64), rtol=limit * scale,
                          atol=limit * scale, equal_nan=True)


# What a kernel cannot do (raise where PyTorch divides by zero), and what it can where PyTorch's for the CPU cannot.
LENIENT = ("ZeroDivisionError", "does not support", "not implemented for", "not supported", "Expected a long tensor",
           "expected scalar type", "Explicit attn_mask should not be set")


def check(row):
    """How the row differs from PyTorch; None: not at all."""
    refused = row.get("refused")
    try:
        want = expected(row)
    except (RuntimeError, IndexError) as error:
        if refused or any(text in str(error) for text in LENIENT):
            return None
        return f"PyTorch refuses it: {str(error).splitlines()[0]}"
    if refused: # without a kernel it is the frontend's to compute
        return None if "UNSUPPORTED" in refused else f"{refused}; PyTorch takes it"
    outs = [tensor(o) for o in row["outs"]]
    wants = list(want) if isinstance(want, (tuple, list)) else [want]
    if row["op"] in FIRST_ALONE:
        wants, outs = wants[:1], outs[:1]
    for i, (w, g) in enumerate(zip(wants, outs)):
        # PyTorch keeps statistics of float16 in float32 on a GPU, as Djinn does everywhere.
        is_statistic = row["op"] == "aten::native_layer_norm" and i > 0
        bad_dtype = w.dtype != g.dtype and ">" not in row["text"] and not is_statistic
        if w.shape != g.shape and w.numel() == g.numel() and "norm" in row["op"]:
            w = w.reshape(g.shape)  # statistics of a layer norm may drop single dimensions
        if bad_dtype or w.shape != g.shape or not same(row, w, g):
            return (f"output {i}: {g.dtype}{list(g.shape)} {g.flatten()[:6]}, "
                    f"PyTorch {w.dtype}{list(w.shape)} {w.flatten()[:6]}")
    return None


def compare(program, *options):
    lines = subprocess.run([program, "--dump", *options], check=True, capture_output=True, text=True).stdout
    failed, n_rows = 0, 0
    for line in lines.splitlines():
        row = json.loads(line)
        n_rows += 1
        difference = None if row["op"] == "djinn::empty" else check(row)
        if difference:
            failed += 1
            print(f"{row['op']} {row['text']}: {difference}")
    print(f"{n_rows} rows, {failed} differ from PyTorch {torch.__version__}")
    return failed or n_rows == 0


def main():
    program, seeds, failed = sys.argv[1], sys.argv[2:], 0
    if not seeds or seeds[0] == "--rows":
        return 1 if compare(program, *seeds) else 0
    for seed in seeds:
        with tempfile.NamedTemporaryFile("w", suffix=".rows") as file:
            file.write("\n".join(random_cases.draw(int(seed))) + "\n")
            file.flush()
            failed += compare(program, "--rows", file.name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
