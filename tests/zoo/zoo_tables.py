"""Tables, masks, indices and views that constructors make."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from zoo_idioms import idiom, module

# ---- tables and masks ---------------------------------------------------------------------------------------------------


@idiom
def sinusoidal_positions() -> nn.Module:
    table = torch.zeros(10, 8)
    position = torch.arange(0, 10, dtype=torch.float).unsqueeze(1)
    div = torch.exp(torch.arange(0, 8, 2).float() * (-math.log(10000.0) / 8))
    table[:, 0::2] = torch.sin(position * div)
    table[:, 1::2] = torch.cos(position * div)
    return module(pe=table.unsqueeze(0).transpose(0, 1))


@idiom
def sinusoids_by_numpy() -> nn.Module:
    table = np.array([[p / np.power(10000, 2 * (j // 2) / 8) for j in range(8)] for p in range(5)])
    net = nn.Embedding(5, 8)
    net.weight.requires_grad = False
    net.weight[:, 0:4] = torch.FloatTensor(np.sin(table[:, 0::2]))
    net.weight[:, 4:] = torch.FloatTensor(np.cos(table[:, 1::2]))
    net.weight.detach_()
    return net


@idiom
def rotary() -> nn.Module:
    inv_freq = 1.0 / (10000 ** (torch.arange(0, 8, 2).float() / 8))
    freqs = torch.outer(torch.arange(6, dtype=torch.float32), inv_freq)
    emb = torch.cat((freqs, freqs), dim=-1)
    made = module(inv_freq=inv_freq)
    made.register_buffer("cos_cached", emb.cos()[None, None], persistent=False)
    made.register_buffer("sin_cached", emb.sin()[None, None], persistent=False)
    made.plain = torch.polar(torch.ones_like(freqs), freqs)
    return made


@idiom
def einsum_table() -> nn.Module:
    return module(
        f=torch.einsum("i,j->ij", torch.arange(4.0), torch.arange(3.0)),
        g=torch.einsum("ij,kj->ik", torch.randn(2, 3), torch.ones(4, 3)),
    )


@idiom
def alibi() -> nn.Module:
    slopes = torch.tensor([2 ** (-8 * (i + 1) / 4) for i in range(4)])
    bias = slopes.view(4, 1, 1) * torch.arange(5).view(1, 1, 5).expand(4, -1, -1)
    return module(slopes=slopes, bias=bias, mask=torch.triu(torch.full((5, 5), float("-inf")), 1) + bias)


@idiom
def relative_position_index() -> nn.Module:
    coords = torch.stack(torch.meshgrid([torch.arange(3), torch.arange(3)], indexing="ij"))
    flat = torch.flatten(coords, 1)
    relative = (flat[:, :, None] - flat[:, None, :]).permute(1, 2, 0).contiguous()
    relative[:, :, 0] += 2
    relative[:, :, 1] += 2
    relative[:, :, 0] *= 5
    table = nn.Parameter(torch.zeros(25, 2))
    nn.init.trunc_normal_(table, std=0.02)
    return module(index=relative.sum(-1), table=table)


@idiom
def shifted_window_mask() -> nn.Module:
    mask = torch.zeros(1, 4, 4, 1)
    slices = (slice(0, -2), slice(-2, -1), slice(-1, None))
    for count, (h, w) in enumerate(itertools.product(slices, slices)):
        mask[:, h, w, :] = count
    windows = mask.view(1, 2, 2, 2, 2, 1).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, 4)
    attn = windows.unsqueeze(1) - windows.unsqueeze(2)
    return module(mask=attn.masked_fill(attn != 0, -100.0).masked_fill(attn == 0, 0.0))


@idiom
def causal_masks() -> nn.Module:
    return module(
        a=torch.tril(torch.ones(4, 4)).view(1, 1, 4, 4),
        b=torch.tril(torch.ones((4, 4), dtype=torch.bool)),
        c=torch.triu(torch.ones(4, 4) * float("-inf"), diagonal=1),
        d=nn.Transformer.generate_square_subsequent_mask(4),
        e=torch.full((4, 4), torch.finfo(torch.float32).min).triu_(1),
        f=torch.arange(4)[None] < torch.tensor([[2], [3]]),
    )


@idiom
def masked_made() -> nn.Module:
    net = nn.Linear(4, 4)
    degrees = torch.arange(4) % 3
    mask = (degrees.unsqueeze(-1) >= degrees.unsqueeze(0)).float()
    net.register_buffer("mask", mask)
    net.weight.data *= mask
    net.weight.data[mask == 0] = 0
    return net


@idiom
def masked_convolution() -> nn.Module:
    net = nn.Conv2d(2, 2, 3)
    net.register_buffer("mask", net.weight.data.clone())
    _, _, h, w = net.weight.size()
    net.mask.fill_(1)
    net.mask[:, :, h // 2, w // 2 :] = 0
    net.mask[:, :, h // 2 + 1 :] = 0
    return net


@idiom
def fourier_features() -> nn.Module:
    b = torch.randn(2, 4) * 10
    return module(b=b, basis=2.0 ** torch.linspace(0.0, 3.0, 4), w=nn.Parameter(torch.randn(3) * 30, requires_grad=False))


@idiom
def siren() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4))
    with torch.no_grad():
        net[0].weight.uniform_(-1 / 2, 1 / 2)
        net[1].weight.uniform_(-np.sqrt(6 / 4) / 30, np.sqrt(6 / 4) / 30)
    return net


@idiom
def mel_filters() -> nn.Module:
    points = torch.linspace(0, 2595 * math.log10(1 + 4000 / 700), 6)
    f = 700 * (10 ** (points / 2595) - 1)
    slopes = f.unsqueeze(0) - torch.linspace(0, 4000, 9).unsqueeze(1)
    down, up = -slopes[:, :-2] / (f[1:] - f[:-1])[:-1], slopes[:, 2:] / (f[1:] - f[:-1])[1:]
    return module(
        fb=torch.max(torch.zeros(1), torch.min(down, up)), window=torch.hann_window(8), hamming=torch.hamming_window(6)
    )


@idiom
def fourier_bases() -> nn.Module:
    basis = torch.fft.fft(torch.eye(8))
    both = torch.cat([basis.real[:5], basis.imag[:5]])
    return module(forward_basis=both[:, None, :], inverse=torch.linalg.pinv(both).T[:, None, :])


@idiom
def diffusion_schedule() -> nn.Module:
    betas = torch.linspace(1e-4**0.5, 0.02**0.5, 10, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1.0 - betas, dim=0)
    before = F.pad(alphas[:-1], (1, 0), value=1.0)
    variance = betas * (1.0 - before) / (1.0 - alphas)
    return module(
        betas=betas.float(),
        root=torch.sqrt(alphas).to(torch.float32),
        log_variance=torch.log(variance.clamp(min=1e-20)).float(),
        weight=torch.where(alphas > 0.9, torch.ones_like(alphas), alphas),
        steps=torch.arange(9, -1, -2),
    )


@idiom
def anchors() -> nn.Module:
    scales, ratios = torch.as_tensor([32, 64], dtype=torch.float32), torch.as_tensor([0.5, 1.0, 2.0])
    h = torch.sqrt(ratios)
    ws, hs = ((1 / h)[:, None] * scales[None, :]).view(-1), (h[:, None] * scales[None, :]).view(-1)
    return module(base=(torch.stack([-ws, -hs, ws, hs], dim=1) / 2).round())


@idiom
def image_mean() -> nn.Module:
    return module(mean=torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1), std=torch.Tensor([0.2, 0.2, 0.2]).view(3, 1, 1))


# ---- indices, views, aliases --------------------------------------------------------------------------------------------


@idiom
def padding_row() -> nn.Module:
    net = nn.Embedding(6, 3)
    nn.init.normal_(net.weight, mean=0, std=3**-0.5)
    nn.init.constant_(net.weight[1], 0)
    net.weight.data[net.num_embeddings - 1].zero_()
    return net


@idiom
def index_put() -> nn.Module:
    w = torch.zeros(4, 4)
    w[torch.arange(4), torch.tensor([3, 2, 1, 0])] = 1.0
    w[[0, 1], [0, 1]] += torch.tensor([5.0, 6.0])
    w.index_put_((torch.tensor([2]),), torch.ones(4), accumulate=True)
    w.index_fill_(1, torch.tensor([1]), -1)
    w.index_add_(0, torch.tensor([0, 0]), torch.ones(2, 4))
    w.index_copy_(0, torch.tensor([3]), torch.full((1, 4), 9.0))
    return module(w=w)


@idiom
def scatter_gather() -> nn.Module:
    index = torch.tensor([[0, 1], [2, 0]])
    w = torch.zeros(2, 3).scatter_(1, index, 1.0).scatter_add_(1, index, torch.ones(2, 2))
    return module(
        w=w, g=torch.arange(6.0).view(2, 3).gather(1, index), o=F.one_hot(torch.tensor([0, 2]), 3), t=torch.take(w, index)
    )


@idiom
def diagonals() -> nn.Module:
    w = torch.randn(4, 4)
    w.fill_diagonal_(0.0)
    v = torch.zeros(4, 4)
    v.diagonal().copy_(torch.arange(4.0))
    return module(
        w=nn.Parameter(w),
        v=v,
        d=torch.diag(torch.ones(3), 1),
        e=torch.diag_embed(torch.arange(2.0)),
        b=torch.block_diag(torch.ones(2, 2), torch.eye(2)),
    )


@idiom
def flipped_and_rolled() -> nn.Module:
    w = torch.arange(12.0).view(3, 4)
    return module(
        a=w.flip(0), b=torch.roll(w, 1, 1), c=w.rot90(), d=w.t().contiguous(), e=w.unfold(1, 2, 1).clone(), f=w.movedim(0, 1)
    )


@idiom
def strided_views() -> nn.Module:
    w = torch.arange(12.0)
    v = torch.randn(4, 4)
    v.as_strided((4,), (5,)).zero_()
    return module(a=w.as_strided((3, 2), (4, 1)), b=w[::2], c=w.view(3, 4).T, v=v, e=torch.ones(1, 3).expand(4, 3))


@idiom
def views_of_one_buffer() -> nn.Module:
    flat = torch.zeros(10)
    a, b = flat[:6].view(2, 3), flat[6:]
    nn.init.normal_(a)
    b.fill_(2.0)
    return module(flat=flat, a=nn.Parameter(a), b=nn.Parameter(b))


@idiom
def memory_formats() -> nn.Module:
    net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    nn.init.kaiming_normal_(net.weight)
    return module(net=net, p=nn.Parameter(torch.randn(2, 3).t()), q=torch.randn(2, 3, 4).permute(2, 0, 1))


@idiom
def bits_as_integers() -> nn.Module:
    w = torch.arange(4.0)
    return module(
        i=w.view(torch.int32),
        h=w.half().view(torch.int16).clone(),
        q=torch.round(torch.randn(6) * 10).clamp(-8, 7).to(torch.int8),
    )


@idiom
def sorting() -> nn.Module:
    w, order = torch.randn(6).sort()
    return module(
        w=w,
        order=order,
        top=torch.topk(w, 2).values,
        a=torch.argsort(w, descending=True),
        k=w.kthvalue(2).values,
        m=w.median(),
        c=w.cumsum(0),
    )


@idiom
def data_dependent_shapes() -> nn.Module:
    w = torch.randn(8)
    return module(
        p=w[w > 0],
        n=(w > 0).nonzero(),
        u=torch.unique(torch.tensor([3, 1, 3])),
        m=w.masked_select(w < 0),
        b=torch.bincount(torch.tensor([0, 2, 2])),
    )


@idiom
def where_and_clamp() -> nn.Module:
    w = torch.randn(4, 4)
    return module(
        a=torch.where(w > 0, w, torch.zeros(())),
        b=w.clamp(-1, 1),
        c=w.masked_fill(torch.eye(4, dtype=torch.bool), 0.0),
        d=torch.maximum(w, w.T),
        e=w.abs_().add_(1).log_(),
    )


@idiom
def searching() -> nn.Module:
    edges = torch.linspace(0, 1, 5)
    return module(
        a=torch.bucketize(torch.tensor([0.1, 0.6]), edges),
        b=torch.searchsorted(edges, torch.tensor([0.3])),
        h=torch.histc(edges, 4),
        c=torch.cartesian_prod(torch.arange(2), torch.arange(3)),
        d=torch.combinations(torch.arange(4)),
    )
