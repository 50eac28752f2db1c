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


def main():
    program, seeds = sys.argv[1], [int(s) for s in sys.argv[2:]] or [1]
    failed = 0
    for seed in seeds:
        rows = Rows(seed)
        for family, count in ((pointwise, 150), (where, 40), (reduction, 120), (along, 60), (copy, 80),
                              (attention, 60), (indexing, 80), (layer_norm, 20)):
            for _ in range(count):
                family(rows)
        with tempfile.NamedTemporaryFile("w", suffix=".rows") as file:
            file.write("\n".join(rows.rows) + "\n")
            file.flush()
            run = subprocess.run([program, "--rows", file.name], capture_output=True, text=True)
        bad = sorted({line for line in run.stdout.splitlines() + run.stderr.splitlines()
                      if line.startswith("[  FAILED  ]") and "::" in line})
        print(f"seed {seed}: {len(rows.rows)} rows, {len(bad)} failures, exit {run.returncode}")
        print("\n".join(bad))
        failed += run.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
