"""Architectures in plain torch.nn that transformers has not: diffusion, recommendation, an MLP.

Each is written as its paper describes it, at a size people train.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def timestep_features(steps, width):
    """Sines and cosines of geometrically spaced frequencies."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=steps.device) * (-math.log(10000) / half))
    angles = steps[:, None].float() * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


# ---- DDPM's UNet (Ho et al. 2020) ----


class ResidualBlock(nn.Module):
    def __init__(self, c_in, c_out, c_time):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(c_time, c_out)
        self.norm2, self.conv2 = nn.GroupNorm(32, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, time):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + self.skip(x)


class PixelAttention(nn.Module):
    def __init__(self, channels, heads=1):
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(32, channels), heads
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        y = F.scaled_dot_product_attention(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3))
        return x + self.out(y.transpose(2, 3).reshape(n, c, h, w))


class DdpmUNet(nn.Module):
    def __init__(self, channels=128, multipliers=(1, 2, 2, 2), attended=(1,), blocks=2):
        super().__init__()
        time = channels * 4
        self.channels = channels
        self.time = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(3, channels, 3, padding=1)
        self.down, self.up, skips, c = nn.ModuleList(), nn.ModuleList(), [channels], channels
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(self._stage(c, channels * multiplier, time, level in attended))
                c = channels * multiplier
                skips.append(c)
            if level + 1 < len(multipliers):
                self.down.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
        self.middle = nn.ModuleList([ResidualBlock(c, c, time), PixelAttention(c), ResidualBlock(c, c, time)])
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(self._stage(c + skips.pop(), channels * multiplier, time, level in attended))
                c = channels * multiplier
            if level > 0:
                self.up.append(nn.Conv2d(c, c, 3, padding=1))
        self.norm, self.leave = nn.GroupNorm(32, c), nn.Conv2d(c, 3, 3, padding=1)

    @staticmethod
    def _stage(c_in, c_out, time, attended):
        return nn.ModuleList([ResidualBlock(c_in, c_out, time)] + [PixelAttention(c_out)] * attended)

    def forward(self, x, steps):
        time = self.time(timestep_features(steps, self.channels))
        x = self.enter(x)
        kept = [x]
        for stage in self.down:
            if isinstance(stage, nn.Conv2d):
                x = stage(x)
            else:
                x = stage[0](x, time)
                for attention in stage[1:]:
                    x = attention(x)
            kept.append(x)
        x = self.middle[2](self.middle[1](self.middle[0](x, time)), time)
        for stage in self.up:
            if isinstance(stage, nn.Conv2d):
                x = stage(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            else:
                x = stage[0](torch.cat([x, kept.pop()], dim=1), time)
                for attention in stage[1:]:
                    x = attention(x)
        return self.leave(F.silu(self.norm(x)))


# ---- DiT (Peebles and Xie 2023) ----


class DitBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, condition):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(condition)[:, None].chunk(6, dim=-1)
        n, length, width = x.shape
        h = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
        x = x + gate1 * self.out(h)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class Dit(nn.Module):
    """DiT-S/2 on 32 x 32 latents."""

    def __init__(self, width=384, depth=12, heads=6, patch=2, channels=4, size=32, classes=1000):
        super().__init__()
        self.patch, self.channels = patch, channels
        self.enter = nn.Conv2d(channels, width, patch, stride=patch)
        self.place = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)
        self.blocks = nn.ModuleList(DitBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.leave = nn.Linear(width, patch * patch * 2 * channels)

    def forward(self, x, steps, labels):
        n, _, height, width = x.shape
        x = self.enter(x).flatten(2).transpose(1, 2) + self.place
        condition = self.time(timestep_features(steps, 256)) + self.label(labels)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulate(condition)[:, None].chunk(2, dim=-1)
        x = self.leave(self.norm(x) * (1 + scale) + shift)
        p, h, w = self.patch, height // self.patch, width // self.patch
        x = x.reshape(n, h, w, p, p, 2 * self.channels).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(n, 2 * self.channels, h * p, w * p)


# ---- recommendation ----


def mlp(widths, last=None):
    layers = []
    for a, b in zip(widths, widths[1:]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1], *([last] if last else []))


class Dlrm(nn.Module):
    """Naumov et al. 2019: tables of categorical features, pairwise products, two MLPs."""

    def __init__(self, tables=26, rows=20000, width=64, dense=13, bag=4):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for _ in range(tables))
        self.bottom = mlp([dense, 512, 256, width], nn.ReLU())
        pairs = tables * (tables + 1) // 2
        self.top = mlp([pairs + width, 1024, 512, 256, 1], nn.Sigmoid())
        rows, columns = torch.tril_indices(tables + 1, tables + 1, offset=-1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, dense, ids):
        """dense: [batch, 13]; ids: [tables, batch, bag], summed over the bag."""
        x = self.bottom(dense)
        vectors = torch.stack([x] + [table(i).sum(dim=1) for table, i in zip(self.tables, ids)], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        return self.top(torch.cat([x, products[:, self.rows, self.columns]], dim=1))


class NeuralFiltering(nn.Module):
    """He et al. 2017: a product of two embeddings beside an MLP over two others."""

    def __init__(self, users=100000, items=50000, width=64):
        super().__init__()
        self.user_gmf, self.item_gmf = nn.Embedding(users, width), nn.Embedding(items, width)
        self.user_mlp, self.item_mlp = nn.Embedding(users, width), nn.Embedding(items, width)
        self.tower = mlp([2 * width, 128, 64, 32], nn.ReLU())
        self.out = nn.Linear(width + 32, 1)

    def forward(self, users, items):
        product = self.user_gmf(users) * self.item_gmf(items)
        deep = self.tower(torch.cat([self.user_mlp(users), self.item_mlp(items)], dim=-1))
        return torch.sigmoid(self.out(torch.cat([product, deep], dim=-1)))


class TwoTower(nn.Module):
    """Retrieval: a query and many candidates, each an embedding through a tower, scored by products."""

    def __init__(self, users=100000, items=50000, genres=500, width=64):
        super().__init__()
        self.user, self.item, self.genre = (nn.Embedding(n, width) for n in (users, items, genres))
        self.user_tower = mlp([width + 16, 256, 128, 64])
        self.item_tower = mlp([2 * width, 256, 128, 64])

    def forward(self, users, context, items, genres):
        u = F.normalize(self.user_tower(torch.cat([self.user(users), context], dim=-1)), dim=-1)
        i = F.normalize(self.item_tower(torch.cat([self.item(items), self.genre(genres)], dim=-1)), dim=-1)
        return (u @ i.T).topk(10, dim=-1)


# ---- none of the phases ----


class Mlp(nn.Module):
    def __init__(self, widths=(784, 2048, 2048, 1024, 10)):
        super().__init__()
        self.layers = mlp(list(widths))

    def forward(self, x):
        return self.layers(x)
