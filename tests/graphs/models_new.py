"""Plain torch.nn architectures of the set `new` (new.py)."""

import torch
from torch import nn
from torch.nn import functional as F

from models import mlp, timestep_features


# ---- diffusion ----


class PixArtBlock(nn.Module):
    """One modulation for all blocks, a table of its own in each; cross-attention to the prompt."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.table = nn.Parameter(torch.randn(6, width) / width ** 0.5)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.told, self.heard = (nn.Linear(width, n * width) for n in (1, 2, 1))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def split(self, x, parts):
        n, length, _ = x.shape
        return x.reshape(n, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4)

    def forward(self, x, prompt, condition):
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.table[None] + condition).chunk(6, dim=1)
        h = self.norm1(x) * (1 + scale1) + shift1
        attended = F.scaled_dot_product_attention(*self.split(self.qkv(h), 3))
        x = x + gate1 * self.out(attended.transpose(1, 2).reshape(x.shape))
        k, v = self.split(self.told(prompt), 2)
        attended = F.scaled_dot_product_attention(self.split(self.query(x), 1)[0], k, v)
        x = x + self.heard(attended.transpose(1, 2).reshape(x.shape))
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class PixArt(nn.Module):
    """Chen et al. 2023, with fewer blocks."""

    def __init__(self, width=768, depth=8, heads=12, patch=2, channels=4, size=32, words=4096):
        super().__init__()
        self.patch, self.channels, self.width = patch, channels, width
        self.enter = nn.Conv2d(channels, width, patch, stride=patch)
        self.place = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.caption = nn.Sequential(nn.Linear(words, width), nn.GELU("tanh"), nn.Linear(width, width))
        self.blocks = nn.ModuleList(PixArtBlock(width, heads) for _ in range(depth))
        self.table = nn.Parameter(torch.randn(2, width) / width ** 0.5)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.leave = nn.Linear(width, patch * patch * 2 * channels)

    def forward(self, x, steps, prompt):
        n, _, height, width = x.shape
        x = self.enter(x).flatten(2).transpose(1, 2) + self.place
        time = self.time(timestep_features(steps, 256))
        condition = self.modulate(time).reshape(n, 6, self.width)
        prompt = self.caption(prompt)
        for block in self.blocks:
            x = block(x, prompt, condition)
        shift, scale = (self.table[None] + time[:, None]).chunk(2, dim=1)
        x = self.leave(self.norm(x) * (1 + scale) + shift)
        p, h, w = self.patch, height // self.patch, width // self.patch
        x = x.reshape(n, h, w, p, p, 2 * self.channels).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(n, 2 * self.channels, h * p, w * p)


class CrossBlock(nn.Module):
    """Of a latent UNet: self-attention, attention to the prompt, a gated MLP."""

    def __init__(self, channels, prompt, heads=8):
        super().__init__()
        self.group, self.enter = nn.GroupNorm(32, channels), nn.Conv2d(channels, channels, 1)
        self.leave, self.heads = nn.Conv2d(channels, channels, 1), heads
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.q1, self.k1, self.v1 = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.q2 = nn.Linear(channels, channels, bias=False)
        self.k2, self.v2 = (nn.Linear(prompt, channels, bias=False) for _ in range(2))
        self.o1, self.o2 = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.gate, self.down = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)

    def attend(self, q, k, v):
        n, length, channels = q.shape
        q, k, v = (t.reshape(n, t.shape[1], self.heads, -1).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, channels)

    def forward(self, x, prompt):
        n, c, h, w = x.shape
        y = self.enter(self.group(x)).flatten(2).transpose(1, 2)
        z = self.norms[0](y)
        y = y + self.o1(self.attend(self.q1(z), self.k1(z), self.v1(z)))
        z = self.norms[1](y)
        y = y + self.o2(self.attend(self.q2(z), self.k2(prompt), self.v2(prompt)))
        a, b = self.gate(self.norms[2](y)).chunk(2, dim=-1)
        y = y + self.down(a * F.gelu(b))
        return x + self.leave(y.transpose(1, 2).reshape(n, c, h, w))


class LatentUNet(nn.Module):
    """Rombach et al. 2022, two levels of it: convolutions, and attention to a prompt of 77 words."""

    def __init__(self, channels=192, prompt=768):
        super().__init__()
        from models import ResidualBlock

        time, c = channels * 4, channels
        self.channels = channels
        self.time = nn.Sequential(nn.Linear(c, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(4, c, 3, padding=1)
        self.a, self.a_words = ResidualBlock(c, c, time), CrossBlock(c, prompt)
        self.shrink = nn.Conv2d(c, c, 3, stride=2, padding=1)
        self.b, self.b_words = ResidualBlock(c, 2 * c, time), CrossBlock(2 * c, prompt)
        self.m1, self.m_words = ResidualBlock(2 * c, 2 * c, time), CrossBlock(2 * c, prompt)
        self.m2 = ResidualBlock(2 * c, 2 * c, time)
        self.d, self.d_words = ResidualBlock(4 * c, 2 * c, time), CrossBlock(2 * c, prompt)
        self.grow = nn.Conv2d(2 * c, 2 * c, 3, padding=1)
        self.e, self.e_words = ResidualBlock(3 * c, c, time), CrossBlock(c, prompt)
        self.norm, self.leave = nn.GroupNorm(32, c), nn.Conv2d(c, 4, 3, padding=1)

    def forward(self, x, steps, prompt):
        time = self.time(timestep_features(steps, self.channels))
        a = self.a_words(self.a(self.enter(x), time), prompt)
        b = self.b_words(self.b(self.shrink(a), time), prompt)
        m = self.m2(self.m_words(self.m1(b, time), prompt), time)
        d = self.d_words(self.d(torch.cat([m, b], 1), time), prompt)
        e = torch.cat([self.grow(F.interpolate(d, scale_factor=2.0, mode="nearest")), a], 1)
        return self.leave(F.silu(self.norm(self.e_words(self.e(e, time), prompt))))


# ---- recommendation ----


class DcnV2(nn.Module):
    """Wang et al. 2021: crosses of features beside a deep tower."""

    def __init__(self, fields=26, rows=20000, width=32, dense=13, crosses=3):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for _ in range(fields))
        total = fields * width + dense
        self.crosses = nn.ModuleList(nn.Linear(total, total) for _ in range(crosses))
        self.deep = mlp([total, 512, 256], nn.ReLU())
        self.out = nn.Linear(total + 256, 1)

    def forward(self, dense, ids):
        start = torch.cat([table(ids[:, i]) for i, table in enumerate(self.tables)] + [dense], dim=1)
        x = start
        for cross in self.crosses:
            x = start * cross(x) + x
        return torch.sigmoid(self.out(torch.cat([x, self.deep(start)], dim=1)))


class WideAndDeep(nn.Module):
    """Cheng et al. 2016: weights of single features summed, beside an MLP over their embeddings."""

    def __init__(self, fields=20, rows=30000, width=16, dense=8):
        super().__init__()
        self.rows = rows
        self.wide, self.wide_dense = nn.Embedding(fields * rows, 1), nn.Linear(dense, 1)
        self.deep_table = nn.Embedding(fields * rows, width)
        self.deep = mlp([fields * width + dense, 1024, 512, 256, 1])
        self.register_buffer("starts", torch.arange(fields) * rows)

    def forward(self, dense, ids):
        places = ids + self.starts
        wide = self.wide(places).sum(dim=1) + self.wide_dense(dense)
        deep = self.deep(torch.cat([self.deep_table(places).flatten(1), dense], dim=1))
        return torch.sigmoid(wide + deep)


class DeepFm(nn.Module):
    """Guo et al. 2017: a factorisation machine and an MLP on one table."""

    def __init__(self, fields=39, rows=20000, width=16):
        super().__init__()
        self.first, self.table = nn.Embedding(fields * rows, 1), nn.Embedding(fields * rows, width)
        self.deep = mlp([fields * width, 400, 400, 400, 1])
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("starts", torch.arange(fields) * rows)

    def forward(self, ids, values):
        places = ids + self.starts
        first = (self.first(places).squeeze(-1) * values).sum(dim=1, keepdim=True)
        vectors = self.table(places) * values[:, :, None]
        second = 0.5 * (vectors.sum(dim=1) ** 2 - (vectors ** 2).sum(dim=1)).sum(dim=1, keepdim=True)
        return torch.sigmoid(first + second + self.deep(vectors.flatten(1)) + self.bias)


# ---- none of the phases ----


class GraphConvolution(nn.Module):
    """Kipf and Welling 2017: two layers over a list of edges."""

    def __init__(self, features=256, hidden=128, classes=16):
        super().__init__()
        self.one, self.two = nn.Linear(features, hidden), nn.Linear(hidden, classes)

    @staticmethod
    def spread(x, source, target, weight):
        moved = x[source] * weight[:, None]
        return torch.zeros_like(x).scatter_add(0, target[:, None].expand(-1, x.shape[1]), moved)

    def forward(self, x, source, target, weight):
        x = torch.relu(self.spread(self.one(x), source, target, weight))
        return self.spread(self.two(x), source, target, weight)


class RadianceField(nn.Module):
    """Mildenhall et al. 2020: colour and density of points, from sines of their coordinates."""

    def __init__(self, width=256, bands=10):
        super().__init__()
        self.bands = bands
        self.first = mlp([3 + 6 * bands] + [width] * 4, nn.ReLU())
        self.second = mlp([width + 3 + 6 * bands] + [width] * 4, nn.ReLU())
        self.density, self.colour = nn.Linear(width, 1), mlp([width + 3, width // 2, 3], nn.Sigmoid())

    def forward(self, points, directions):
        rates = 2.0 ** torch.arange(self.bands, device=points.device)
        angles = (points[..., None] * rates).flatten(-2)
        x = torch.cat([points, angles.sin(), angles.cos()], dim=-1)
        h = self.second(torch.cat([self.first(x), x], dim=-1))
        return self.colour(torch.cat([h, directions], dim=-1)), F.relu(self.density(h))
