"""Random numbers, and tensors that lie in random ways, for shape_random.py."""

import random

import torch

REALS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
COMPLEX = [torch.complex32, torch.complex64, torch.complex128]
ORDERED = [torch.bool, *WHOLE, *REALS]
ALL = [*ORDERED, *COMPLEX]
F32, I64, BOOL = torch.float32, torch.int64, torch.bool


def canonical(tensor):
    """Djinn gives dimensions of size 1 of a contiguous tensor no stride of their own."""
    if not tensor.is_contiguous():
        return tensor
    strides, stride = [], 1
    for size in reversed(tensor.shape):
        strides.insert(0, stride)
        stride *= max(size, 1)
    return tensor.as_strided(tensor.shape, strides, tensor.storage_offset())


class Draw(random.Random):
    def maybe(self, share):
        return self.random() < share

    def size(self, empty=0.03):
        return 0 if self.maybe(empty) else self.choice([1, 1, 2, 3, 4, 5, 7])

    def sizes(self, rank=None, most=5, empty=0.03):
        rank = self.randint(0, most) if rank is None else rank
        return [self.size(empty) for _ in range(rank)]

    def tensor(self, sizes, dtype=F32, layout=None):
        """A meta tensor of these sizes that lies somehow."""
        sizes, rank = list(sizes), len(sizes)
        layout = layout or self.choice(["plain", "plain", "last", "permuted", "permuted", "expanded",
                                        "sliced", "stepped", "mixed"])
        if layout == "last" and rank in (4, 5):
            order = [0, *range(2, rank), 1]
        elif layout in ("permuted", "mixed"):
            order = self.sample(range(rank), rank)
        else:
            order = list(range(rank))
        inner = [sizes[i] for i in order]
        room = list(inner)
        keep = [slice(None)] * rank
        if layout in ("sliced", "mixed"):
            for i in range(rank):
                before, after = self.choice([0, 0, 1, 2]), self.choice([0, 0, 1, 3])
                room[i] += before + after
                keep[i] = slice(before, before + inner[i])
        if layout == "stepped":
            for i in range(rank):
                step = self.choice([1, 2, 3])
                room[i] = inner[i] * step
                keep[i] = slice(None, None, step)
        widen = [layout == "expanded" and self.maybe(0.5) or layout == "mixed" and self.maybe(0.1)
                 for _ in range(rank)]
        base = [1 if wide else size for size, wide in zip(room, widen)]
        tensor = torch.empty(base, dtype=dtype, device="meta").expand(room)[tuple(keep)] \
            if rank > 0 else torch.empty([], dtype=dtype, device="meta")
        return canonical(tensor.permute([order.index(i) for i in range(rank)]))

    def any(self, dtypes=ORDERED, most=5, rank=None, empty=0.03):
        return self.tensor(self.sizes(rank, most, empty), self.choice(dtypes))

    def partner(self, sizes, wrong=0.04):
        """Sizes that broadcast with these, mostly."""
        sizes = [1 if self.maybe(0.25) else size for size in sizes[self.choice([0, 0, 0, 1, 2]):]]
        if self.maybe(0.1):
            sizes = [self.size()] * self.choice([1, 2]) + sizes
            sizes = sizes[-8:]
        if sizes and self.maybe(wrong):
            sizes[self.randrange(len(sizes))] += 1
        return sizes

    def dim(self, rank, wrong=0.03):
        limit = max(rank, 1)
        if self.maybe(wrong):
            return self.choice([limit, -limit - 1, limit + 3])
        return self.randrange(-limit, limit)

    def dims(self, rank, wrong=0.03):
        """A list of different dimensions."""
        some = self.sample(range(rank), self.randint(0, rank))
        some = [d - rank if self.maybe(0.3) else d for d in some]
        if some and self.maybe(wrong):
            some.append(self.choice([some[0], rank, -rank - 1]))
        return some

    def number(self, kinds="bir"):
        kind = self.choice(kinds)
        return self.maybe(0.5) if kind == "b" else self.randint(-4, 9) if kind == "i" else \
            self.uniform(-3, 3)

    def dtype_or_none(self, dtypes=ORDERED):
        return None if self.maybe(0.5) else self.choice(dtypes)
