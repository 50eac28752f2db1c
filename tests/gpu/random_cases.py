"""Kernels on rows that nobody thought of: random shapes, layouts, dtypes and attributes.

    python3 tests/gpu/random_cases.py build/release/bin/gpu_test_kernels [SEED ...]

Writes rows in the grammar of op_case.h and has the test program run them against its reference on every
instruction set. A failing row is printed as it would stand in op_cases.def.
"""
import random
import subprocess
import sys
import tempfile

REALS = ("f32", "f32", "f32", "f64", "f16", "bf16")
INTEGERS = ("i64", "i64", "i32", "u8", "i16")


class Rows:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.rows = []

    def add(self, op, *words):
        self.rows.append(" ".join([op, *(str(w) for w in words if w != "")]))

    def int(self, low, high):
        return self.random.randint(low, high)

    def pick(self, *choices):
        return self.random.choice(choices)

    def chance(self, share):
        return self.random.random() < share

    def sizes(self, rank, high=9, low=1):
        return [0 if low == 0 and self.chance(0.05) else self.int(1, high) for _ in range(rank)]

    def tensor(self, dtype, sizes, layouts=("", "", "", ":t", ":s", ":o", ":to", ":so", ":e")):
        return f"{dtype}[{','.join(map(str, sizes))}]{self.pick(*layouts)}"

    def broadcast(self, sizes):
        """A shape that broadcasts to `sizes`."""
        cut = self.int(0, len(sizes)) if self.chance(0.4) else 0
        return [1 if self.chance(0.3) else n for n in sizes][cut:]


def pointwise(r):
    op = r.pick("ADD", "SUB", "MUL", "MAXIMUM", "EQ", "LT", "LOGICAL_AND")
    a = r.sizes(r.int(0, 5), 7, 0)
    left = r.pick(r.pick(*REALS), r.pick(*INTEGERS), "f32" if op == "SUB" else "bool")
    right = r.pick(r.pick(*REALS), r.pick(*INTEGERS))
    words = [r.tensor(left, a), r.tensor(right, r.broadcast(a))]
    words += ["1"] if op in ("ADD", "SUB") else []
    if op in ("ADD", "SUB", "MUL") and r.chance(0.2):
        words.append(">f32" + r.pick("", ":s", ":t"))
    r.add(op, *words)


def where(r):
    a = r.sizes(r.int(1, 4), 9, 0)
    r.add("WHERE", r.tensor("bool", r.broadcast(a)), r.tensor("f32", a),
          r.tensor("f32", r.broadcast(a)))


def reduction(r):
    op = r.pick("SUM", "MEAN", "AMAX", "AMIN", "VAR", "VECTOR_NORM", "ANY")
    a = r.sizes(r.int(1, 5))
    if r.chance(0.3):
        a[-1] = r.int(1, 700)
    dims = r.random.sample(range(len(a)), r.int(1, len(a)))
    keep, listed = r.pick("true", "false"), f"({','.join(map(str, dims))})"
    x = r.tensor({"ANY": "bool", "AMAX": r.pick("f32", "i64"), "AMIN": "f32"}.get(op, "f32"), a)
    if op in ("SUM", "MEAN"):
        r.add(op, x, listed, keep, "_")
    elif op == "VAR":
        r.add(op, x, listed, "0", keep)
    elif op == "VECTOR_NORM":
        r.add(op, x, r.pick("2", "1", "inf"), listed, keep, "_")
    else:
        r.add(op, x, listed, keep)


def along(r):
    op = r.pick("SOFTMAX", "LOG_SOFTMAX", "CUMSUM", "ARGMAX", "MAX_DIM", "MIN_DIM")
    a = r.sizes(r.int(1, 4))
    if r.chance(0.5):
        a[-1] = r.int(1, 600)
    dim, keep = r.int(-len(a), len(a) - 1), r.pick("true", "false")
    if op in ("SOFTMAX", "LOG_SOFTMAX"):
        in_place = r.chance(0.3)
        x = r.tensor("f32", a, ("", ":o")) if in_place else r.tensor("f32", a)
        r.add(op, x, dim, "false", ">0" if in_place else "")
    elif op == "CUMSUM":
        r.add(op, r.tensor(r.pick("f32", "i64"), a), dim, "_")
    elif op == "ARGMAX":
        r.add(op, r.tensor("f32", a), f"({dim})", keep)
    else:
        r.add(op, r.tensor(r.pick("f32", "i64"), a), dim, keep)


def copy(r):
    a = r.sizes(r.int(0, 5), 9, 0)
    for place in (-1, -2):
        if len(a) >= -place and r.chance(0.4):
            a[place] = r.int(20, 90)
    dtype = r.pick("f32", "i64", "u8", "bool", "f16", "f64")
    target = ""
    if r.chance(0.7):
        wide = r.pick("f32", "i64", "f64", dtype, dtype, dtype)
        target = f">{wide}{r.pick('', ':t', ':s')}"
    r.add("COPY", r.tensor(dtype, a), target)


def attention(r):
    batch, heads, length, keys = r.int(1, 3), r.int(1, 4), r.int(1, 90), r.int(1, 150)
    depth, group = r.pick(8, 16, 20, 32, 40, 64), r.pick(1, 1, 2)
    value, layouts = r.pick(depth, depth, 8, 24), ("", ":t", ":s")
    mask = r.pick("_", "_", f"bool[{r.pick(1, batch)},1,{r.pick(1, length)},{keys}]",
                  f"f32[{batch},{r.pick(1, heads * group)},{length},{keys}]:m",
                  f"bool[{length},{keys}]", f"f32[{batch},1,1,{keys}]:m")
    r.add("SDPA", r.tensor("f32", (batch, heads * group, length, depth), layouts),
          r.tensor("f32", (batch, heads, keys, depth), layouts),
          r.tensor("f32", (batch, heads, keys, value), layouts), mask, "0.0",
          r.pick("true", "false") if mask == "_" else "false", r.pick("_", "0.3"),
          "true" if group > 1 else "false")


def index_list(r, a, dtype):
    """Index tensors for some of the dimensions; the first has the common shape, so they broadcast."""
    chosen = sorted(r.random.sample(range(len(a)), r.int(1, len(a))))
    common, words = r.sizes(r.int(0, 2), 3), []
    for d in range(chosen[-1] + 1):
        if d not in chosen:
            words.append("_")
            continue
        sizes = [1 if r.chance(0.2) and d != chosen[0] else n for n in common]
        words.append(f"{r.tensor(dtype, sizes, ('',))}<{r.pick('', '-')}{a[d]}")
    return "{" + " ".join(words) + "}"


def indexing(r):
    op = r.pick("INDEX", "INDEX_PUT", "INDEX_SELECT", "GATHER", "EMBEDDING", "INDEX_COPY")
    a, index, layouts = r.sizes(r.int(1, 4), 7), r.pick("i64", "i32"), ("", ":t", ":s", ":o")
    dim, dtype = r.int(0, len(a) - 1), r.pick("f32", "i64", "u8")
    x, other = r.tensor(dtype, a, layouts), list(a)
    if op == "INDEX_SELECT":
        r.add(op, x, dim, f"{index}[{r.int(0, 9)}]<{a[dim]}")
    elif op == "INDEX_COPY":
        other[dim] = r.int(1, 5)
        r.add(op, x, dim, f"{index}[{other[dim]}]<{a[dim]}", r.tensor(dtype, other, ("", ":t")))
    elif op == "EMBEDDING":
        rows = r.int(1, 9)
        r.add(op, r.tensor("f32", (rows, r.int(1, 40)), layouts),
              f"{r.tensor(index, r.sizes(r.int(0, 3), 9, 0), ('',))}<{rows}")
    elif op == "GATHER":
        other = [r.int(1, n) for n in a]
        other[dim] = r.int(1, 8)
        r.add(op, x, dim, f"{r.tensor(index, other, (':t', ':s', ':o'))}<{a[dim]}", "false")
    elif op == "INDEX":
        r.add(op, x, index_list(r, a, index))
    else:
        r.add(op, x, index_list(r, a, index), f"{dtype}[]", r.pick("true", "false"))


def layer_norm(r):
    n = r.int(1, 500)
    r.add("LAYER_NORM", r.tensor("f32", (r.int(1, 5), r.int(1, 6), n), ("", ":t", ":s")), f"({n})",
          f"f32[{n}]", f"f32[{n}]", "1e-5")


def function(r):
    """One real number at a time; the inputs stay where the function is smooth."""
    op = r.pick("EXP", "LOG", "SQRT", "RSQRT", "RECIPROCAL", "SIN", "COS", "TANH", "ERF", "SIGMOID", "RELU", "SILU",
                "GELU", "GELU_TANH", "NEG", "ABS", "ISNAN", "LOGICAL_NOT")
    positive = op in ("LOG", "SQRT", "RSQRT", "RECIPROCAL")
    special = op in ("EXP", "TANH", "SIGMOID", "RELU", "ABS", "NEG", "ISNAN", "LOGICAL_NOT", "ERF")
    letters = ("p", "pt", "ps") if positive else ("n", "nt", "s", "t") if special else ("", "t", "s", "o")
    letter = r.pick(*letters)
    r.add(op, r.tensor(r.pick(*REALS), r.sizes(r.int(0, 4), 20, 0), (f":{letter}" if letter else "",)))


def number(r):
    """A tensor and a plain number, in its place or as a scalar."""
    op = r.pick("ADD", "MUL", "EQ_SCALAR", "LT_SCALAR", "GE_SCALAR", "CLAMP", "CLAMP_MIN", "CLAMP_MAX", "RSUB",
                "POW_SCALAR", "MAXIMUM", "MASKED_FILL_SCALAR", "REMAINDER_SCALAR")
    dtype = r.pick(r.pick(*REALS), r.pick("i64", "i32", "i16"))
    is_real, a = dtype in REALS, r.sizes(r.int(0, 4), 9, 0)
    value = r.pick("2", "3", "0.5", "-1.5") if is_real else r.pick("2", "3")
    x = r.tensor(dtype, a, (":n", ":nt", ":ns") if is_real and op not in ("POW_SCALAR", "REMAINDER_SCALAR") else
                 ("", ":t", ":s"))
    if op == "ADD":
        r.add(op, x, value, "1")
    elif op == "CLAMP":
        r.add(op, x, r.pick("_", "-1"), r.pick("1", value))
    elif op == "RSUB":
        r.add(op, x, value, "1")
    elif op == "POW_SCALAR":
        r.add(op, x, r.pick("2", "3"))
    elif op == "MAXIMUM":
        r.add(op, x, r.tensor(dtype, r.broadcast(a), (":n", "") if is_real else ("",)))
    elif op == "MASKED_FILL_SCALAR":
        r.add(op, x, r.tensor("bool", r.broadcast(a)), value)
    else:
        r.add(op, x, value)


def special(r):
    """NaN, infinities and equal elements where an order decides."""
    op = r.pick("TOPK", "SORT", "ARGMAX", "ARGMIN", "MAX_DIM", "MIN_DIM", "AMAX", "AMIN", "SOFTMAX", "LOG_SOFTMAX",
                "ANY", "ALL", "SUM", "MEAN", "VECTOR_NORM")
    a = r.sizes(r.int(1, 4))
    if r.chance(0.3):
        a[-1] = r.int(1, 600)
    dtype = r.pick(*REALS) if op in ("SOFTMAX", "LOG_SOFTMAX", "MEAN", "VECTOR_NORM") else r.pick(
        *REALS, *INTEGERS, "i8", "bool")
    dim, flag = r.int(-len(a), len(a) - 1), r.pick("true", "false")
    layouts = (":n", ":qn", ":m", ":qnt", ":q", ":ns", ":mo") if dtype in REALS else ("", ":t", ":s")
    x = r.tensor(dtype, a, layouts)
    if op == "TOPK":
        r.add(op, x, r.int(0, a[dim]), dim, flag, "true")
    elif op in ("ARGMAX", "ARGMIN", "AMAX", "AMIN"):
        r.add(op, x, r.pick(f"({dim})", "_" if op in ("ARGMAX", "ARGMIN") else "()"), flag)
    elif op in ("ANY", "ALL"):
        r.add(op, x, r.pick(f"({dim})", "()", "_"), flag)
    elif op in ("SUM", "MEAN"):
        r.add(op, x, r.pick(f"({dim})", "()", "_"), flag, "_")
    elif op == "VECTOR_NORM":
        r.add(op, x, r.pick("0", "1", "2", "inf", "-inf", "3"), r.pick(f"({dim})", "()", "_"), flag, "_")
    else:
        r.add(op, x, dim, "false" if "SOFTMAX" in op else flag)


def windows(r):
    """Pooling; also where only ceil_mode lets a last window be."""
    op = r.pick("MAX_POOL2D", "MAX_POOL2D", "AVG_POOL2D", "ADAPTIVE_AVG_POOL2D")
    a = r.sizes(r.pick(3, 4), 4)
    a[-1], a[-2] = r.int(1, 11), r.int(1, 11)
    dtype = r.pick("f32", "f64", "f16", "bf16", "i64", "u8", "i32") if op == "MAX_POOL2D" else r.pick(*REALS)
    x = r.tensor(dtype, a, ("", ":t", ":s", ":c", ":n", ":q", ":m") if dtype in REALS else ("", ":t", ":c"))
    kernel = [r.int(1, 4), r.int(1, 4)]
    pads = [r.int(0, k // 2) for k in kernel]
    stride = r.pick("_", f"({r.int(1, 4)},{r.int(1, 4)})")
    if op == "ADAPTIVE_AVG_POOL2D":
        r.add(op, x, f"({r.int(1, 6)},{r.int(1, 6)})")
    elif op == "AVG_POOL2D":
        r.add(op, x, f"({kernel[0]},{kernel[1]})", stride, f"({pads[0]},{pads[1]})", r.pick("true", "false"),
              r.pick("true", "false"), r.pick("_", "_", "(3)", "(-2)"))
    else:
        r.add(op, x, f"({kernel[0]},{kernel[1]})", stride, f"({pads[0]},{pads[1]})", f"({r.int(1, 3)},{r.int(1, 3)})",
              r.pick("true", "false"))


def convolution(r):
    n, groups = r.int(1, 3), r.pick(1, 1, 2)
    channels, outs, transposed = groups * r.int(1, 3), groups * r.int(1, 3), r.chance(0.3)
    lists = [[r.int(1, 2) for _ in range(n)], [r.int(0, 2) for _ in range(n)], [r.int(1, 2) for _ in range(n)]]
    weight = [channels, outs // groups] if transposed else [outs, channels // groups]
    dtype, layouts = r.pick("f32", "f32", "f64", "f16", "bf16"), ("", ":t", ":s", ":c", ":o")
    r.add("CONVOLUTION", r.tensor(dtype, [r.int(1, 2), channels, *r.sizes(n, 7, 4)[:0], *(r.int(5, 8) for _ in range(n))],
                                  layouts),
          r.tensor(dtype, [*weight, *(r.int(1, 3) for _ in range(n))], layouts),
          r.pick("_", f"{dtype}[{outs}]"), *(f"({','.join(map(str, l))})" for l in lists),
          "true" if transposed else "false", f"({','.join('0' * n)})", groups)


def product(r):
    op = r.pick("MM", "BMM", "ADDMM", "BADDBMM", "LINEAR")
    m, k, n, batch = (r.int(0 if r.chance(0.1) else 1, high) for high in (40, 50, 40, 3))
    dtype, layouts = r.pick(*REALS, "i64"), ("", ":t", ":s", ":o", ":e")
    if op == "MM":
        r.add(op, r.tensor(dtype, (m, k), layouts), r.tensor(dtype, (k, n), layouts))
    elif op == "BMM":
        r.add(op, r.tensor(dtype, (batch, m, k), layouts), r.tensor(dtype, (batch, k, n), layouts))
    elif op == "LINEAR":
        lead = r.sizes(r.int(0, 2), 4)
        r.add(op, r.tensor(dtype, (*lead, k), layouts), r.tensor(dtype, (n, k), layouts), r.pick("_", f"{dtype}[{n}]"))
    else:
        lead = [] if op == "ADDMM" else [batch]
        added = r.broadcast([*lead, m, n])
        r.add(op, r.tensor(dtype, added, ("", ":t", ":n") if dtype in REALS else ("",)),
              r.tensor(dtype, (*lead, m, k), layouts), r.tensor(dtype, (*lead, k, n), layouts), r.pick(0, 1, 2),
              r.pick(1, 2, 3))


def moving(r):
    op = r.pick("TO_COPY", "CAT", "TRIL", "TRIU", "REPEAT", "FLIP", "ISIN", "FULL", "ARANGE", "SCATTER", "SCATTER_VALUE")
    every = (*REALS, *INTEGERS, "i8", "bool")
    dtype, a, layouts = r.pick(*every), r.sizes(r.int(1, 4), 7, 0), ("", ":t", ":s", ":o")
    if op == "TO_COPY":
        r.add(op, r.tensor(dtype, a, layouts if dtype not in REALS else ("", ":t", ":s", ":q")), r.pick(*every))
    elif op == "CAT":
        dim, words = r.int(-len(a), len(a) - 1), []
        for _ in range(r.int(1, 4)):
            a[dim] = r.int(0, 5)
            words.append(r.tensor(r.pick(dtype, dtype, *every), a, layouts))
        r.add(op, "{" + " ".join(words) + "}", dim)
    elif op in ("TRIL", "TRIU"):
        r.add(op, r.tensor(dtype, [*a, r.int(1, 6)], layouts), r.int(-4, 4))
    elif op == "REPEAT":
        times = [r.int(1, 3) for _ in range(len(a) + r.pick(0, 0, 1))]
        r.add(op, r.tensor(dtype, a, layouts), f"({','.join(map(str, times))})")
    elif op == "FLIP":
        dims = r.random.sample(range(len(a)), r.int(0, len(a)))
        r.add(op, r.tensor(dtype, a, layouts), f"({','.join(map(str, dims))})")
    elif op == "ISIN":
        r.add(op, r.tensor("i64", a, layouts), f"i64[{r.int(0, 5)}]", "false", r.pick("true", "false"))
    elif op == "FULL":
        r.add(op, f"({','.join(map(str, a))})", r.pick("1.5", "-2", "true"), r.pick(*every))
    elif op == "ARANGE":
        r.add(op, r.int(0, 40), r.int(-5, 5), r.pick(1, 2, 3, -1), r.pick("i64", "f32", "i32", "f64"))
    else: # one place is written once, so the order does not matter
        a = [max(n, 1) for n in a]
        index = f"i64[{','.join(str(1 if d == 0 else r.int(1, n)) for d, n in enumerate(a))}]<{a[0]}"
        sizes = [max(n, 1) for n in a]
        r.add(op, r.tensor(dtype, a, layouts), 0, index,
              r.tensor(dtype, sizes, layouts) if op == "SCATTER" else "1" if dtype != "bool" else "true")


def norm(r):
    if r.chance(0.5):
        n = r.int(1, 300)
        dtype = r.pick("f32", "f64", "f16", "bf16")
        r.add("LAYER_NORM", r.tensor(dtype, (r.int(0, 5), r.int(1, 6), n), ("", ":t", ":s")), f"({n})",
              r.pick("_", f"{dtype}[{n}]"), r.pick("_", f"{dtype}[{n}]"), "1e-5")
        return
    c, dtype = r.int(1, 6), r.pick("f32", "f16", "bf16")
    r.add("BATCH_NORM_EVAL", r.tensor(dtype, [r.int(1, 4), c, *r.sizes(r.int(0, 3), 6)], ("", ":t", ":c")),
          r.pick("_", f"{dtype}[{c}]"), r.pick("_", f"{dtype}[{c}]"), f"{dtype}[{c}]", f"{dtype}[{c}]:p", "0.1", "1e-5")


FAMILIES = ((pointwise, 150), (where, 40), (reduction, 120), (along, 60), (copy, 80), (attention, 60), (indexing, 80),
            (layer_norm, 20), (function, 60), (number, 80), (special, 160), (windows, 60), (convolution, 40),
            (product, 60), (moving, 100), (norm, 30))


def draw(seed):
    """The rows of a seed."""
    rows = Rows(seed)
    for family, count in FAMILIES:
        for _ in range(count):
            family(rows)
    return rows.rows


def main():
    program, seeds = sys.argv[1], [int(s) for s in sys.argv[2:]] or [1]
    failed = 0
    for seed in seeds:
        rows = draw(seed)
        with tempfile.NamedTemporaryFile("w", suffix=".rows") as file:
            file.write("\n".join(rows) + "\n")
            file.flush()
            run = subprocess.run([program, "--tries", file.name], capture_output=True, text=True)
        bad = sorted({line for line in run.stdout.splitlines() + run.stderr.splitlines()
                      if line.startswith("[  FAILED  ]") and "::" in line})
        print(f"seed {seed}: {len(rows)} rows, {len(bad)} failures, exit {run.returncode}")
        print("\n".join(bad))
        failed += run.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
