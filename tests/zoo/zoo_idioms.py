"""How models initialise themselves: small constructors, each with one idiom of real code.

Each function builds a module. What Python sees of values on the way is kept in ``notes``.
"""

from __future__ import annotations

import copy
import functools
import io
import itertools
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Build = Callable[[], nn.Module]
IDIOMS: dict[str, Build] = {}


def idiom(build: Build) -> Build:
    IDIOMS[build.__name__] = build
    return build


def module(**held: Any) -> nn.Module:
    """Tensors become buffers."""
    made = nn.Module()
    for name, value in held.items():
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            made.register_buffer(name, value)
        else:
            setattr(made, name, value)
    return made


# ---- loops over modules and parameters ----------------------------------------------------------------------------------


def block() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


@idiom
def loop_over_modules() -> nn.Module:
    net = block()
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.constant_(m.weight, 1)
            nn.init.constant_(m.bias, 0)
        elif isinstance(m, nn.Linear):
            n = m.weight.shape[0] * m.weight.shape[1]
            m.weight.data.normal_(0, math.sqrt(2.0 / n))
            m.bias.data.zero_()
    return net


@idiom
def apply_function() -> nn.Module:
    @torch.no_grad()
    def init(m: nn.Module) -> None:
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(m.weight, std=0.02)
            m.bias.fill_(0.01)

    return block().apply(init)


@idiom
def loop_over_parameters() -> nn.Module:
    net = nn.GRU(3, 4, 2)
    for name, p in net.named_parameters():
        if p.dim() > 1:
            nn.init.orthogonal_(p)
        elif "bias_hh" in name:
            p.data[4:8].fill_(1.0)
    return net


@idiom
def uniform_by_stdv() -> nn.Module:
    net = nn.LSTMCell(3, 4)
    stdv = 1.0 / math.sqrt(4)
    for p in net.parameters():
        p.data.uniform_(-stdv, stdv)
    return net


@idiom
def forget_gate_bias() -> nn.Module:
    net = nn.LSTM(3, 4)
    for names in net._all_weights:
        for name in filter(lambda n: "bias" in n, names):
            bias = getattr(net, name)
            n = bias.size(0)
            bias.data[n // 4 : n // 2].fill_(1.0)
    return net


@idiom
def residual_scaling() -> nn.Module:
    net = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    for name, p in net.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * len(net)))
    return net


@idiom
def fixup() -> nn.Module:
    net = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    with torch.no_grad():
        for at, layer in enumerate(net):
            layer.weight.mul_((at + 1) ** -0.5)
            layer.weight.data = layer.weight.data / 2
    return net


@idiom
def subnet_dispatch_by_class_name() -> nn.Module:
    def init(m: nn.Module) -> None:
        name = m.__class__.__name__
        if name.find("Conv") != -1:
            m.weight.data.normal_(0.0, 0.02)
        elif name.find("BatchNorm") != -1:
            m.weight.data.normal_(1.0, 0.02)
            m.bias.data.fill_(0)

    return block().apply(init)


@idiom
def default_init_twice() -> nn.Module:
    net = nn.Linear(4, 4)
    net.reset_parameters()
    net.reset_parameters()
    return net


@idiom
def functional_init() -> nn.Module:
    init = functools.partial(nn.init.trunc_normal_, std=0.02, a=-0.04, b=0.04)
    net = nn.Embedding(7, 4)
    init(net.weight)
    init(tensor=net.weight.data[2:4])
    return net


@idiom
def all_of_nn_init() -> nn.Module:
    w = {f"w{i}": nn.Parameter(torch.empty(6, 4)) for i in range(11)}
    nn.init.xavier_uniform_(w["w0"], gain=nn.init.calculate_gain("tanh"))
    nn.init.xavier_normal_(w["w1"])
    nn.init.kaiming_uniform_(w["w2"], a=math.sqrt(5))
    nn.init.kaiming_normal_(w["w3"])
    nn.init.orthogonal_(w["w4"], gain=2)
    nn.init.sparse_(w["w5"], 0.5)
    nn.init.eye_(w["w6"])
    nn.init.ones_(w["w7"])
    nn.init.zeros_(w["w8"])
    nn.init.constant_(w["w9"], 0.3)
    nn.init.trunc_normal_(w["w10"], 0.5, 2.0)
    conv = nn.Conv2d(4, 4, 3)
    nn.init.dirac_(conv.weight, 2)
    return module(conv=conv, **w)


# ---- parameters made of tensors -----------------------------------------------------------------------------------------


@idiom
def parameter_of_randn() -> nn.Module:
    return module(w=nn.Parameter(torch.randn(3, 4) * 0.02), cls=nn.Parameter(torch.zeros(1, 1, 4)))


@idiom
def parameter_of_scaled_randn() -> nn.Module:
    scale = 4**-0.5
    return module(w=nn.Parameter(scale * torch.randn(4, 5)), v=nn.Parameter(torch.randn(4) / 2 + 1))


@idiom
def parameter_of_tensor_data() -> nn.Module:
    return module(t=nn.Parameter(torch.tensor([0.07]).log()), s=nn.Parameter(torch.ones([]) * np.log(1 / 0.07)))


@idiom
def float_tensor_constructor() -> nn.Module:
    return module(
        w=nn.Parameter(torch.FloatTensor(3, 4).uniform_(-1, 1)),
        b=nn.Parameter(torch.Tensor(4).fill_(0.5)),
        d=torch.FloatTensor([1.0, 2.0]),
        n=torch.LongTensor([1, 2]),
    )


@idiom
def frozen_parameter() -> nn.Module:
    net = nn.Linear(3, 4)
    net.weight.requires_grad = False
    return module(net=net, w=nn.Parameter(torch.rand(2), requires_grad=False), b=net.bias.requires_grad_(False))


@idiom
def copy_into() -> nn.Module:
    a, b = nn.Linear(3, 4), nn.Linear(3, 4)
    with torch.no_grad():
        b.weight.copy_(a.weight)
        b.bias.copy_(a.bias * 2)
    return module(a=a, b=b)


@idiom
def data_assignment() -> nn.Module:
    net = nn.Linear(3, 4)
    net.weight.data = torch.eye(4, 3)
    net.bias = nn.Parameter(torch.full((4,), 0.5))
    return net


@idiom
def identity_plus_noise() -> nn.Module:
    return module(w=nn.Parameter(torch.eye(4) + 1e-2 * torch.randn(4, 4)))


@idiom
def cat_of_parts() -> nn.Module:
    return module(w=nn.Parameter(torch.cat([torch.zeros(2, 3), torch.randn(2, 3)])), s=torch.stack([torch.ones(3)] * 2))


@idiom
def chunks_filled_apart() -> nn.Module:
    qkv = nn.Linear(4, 12)
    for part in qkv.weight.chunk(3):
        nn.init.xavier_uniform_(part)
    q, k, v = qkv.weight.data.split(4)
    v.mul_(0.5)
    return qkv


@idiom
def chunks_of_one_draw() -> nn.Module:
    a, b = torch.randn(6, 3).chunk(2)
    return module(a=nn.Parameter(a), b=nn.Parameter(b.clone()))


@idiom
def kronecker() -> nn.Module:
    return module(w=torch.kron(torch.eye(2), torch.randn(2, 3)), k=torch.kron(torch.ones(2, 1), torch.arange(3.0)[None]))


@idiom
def repeat_and_tile() -> nn.Module:
    w = torch.randn(1, 3)
    return module(a=w.repeat(4, 1), b=w.tile(2, 2), c=w.expand(4, 3).clone(), d=w.repeat_interleave(2, dim=1))


@idiom
def inflated_kernel() -> nn.Module:
    flat, deep = nn.Conv2d(2, 3, 3), nn.Conv3d(2, 3, 3)
    deep.weight.data.copy_(flat.weight.data.unsqueeze(2).repeat(1, 1, 3, 1, 1) / 3)
    return module(flat=flat, deep=deep)


@idiom
def bilinear_upsampling() -> nn.Module:
    net = nn.ConvTranspose2d(2, 2, 4)
    f, c = math.ceil(4 / 2), (2 * math.ceil(4 / 2) - 1 - math.ceil(4 / 2) % 2) / (2.0 * math.ceil(4 / 2))
    w = net.weight.data
    for i, j in itertools.product(range(w.size(2)), range(w.size(3))):
        w[0, 0, i, j] = (1 - math.fabs(i / f - c)) * (1 - math.fabs(j / f - c))
    for c in range(1, w.size(0)):
        w[c, 0, :, :] = w[0, 0, :, :]
    return net


@idiom
def gabor_kernels() -> nn.Module:
    net = nn.Conv2d(1, 4, 5, bias=False)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 5), indexing="ij")
    for at in range(4):
        theta = at * math.pi / 4
        rotated = x * math.cos(theta) + y * math.sin(theta)
        net.weight.data[at, 0] = torch.exp(-(x**2 + y**2)) * torch.cos(3 * rotated)
    return net


@idiom
def normalised_rows() -> nn.Module:
    w = torch.randn(5, 4)
    return module(w=nn.Parameter(F.normalize(w, dim=1)), v=nn.Parameter(w / w.norm(dim=1, keepdim=True)))


@idiom
def centred() -> nn.Module:
    w = torch.randn(5, 4)
    w -= w.mean(0, keepdim=True)
    w.div_(w.std())
    return module(w=nn.Parameter(w))


# ---- linear algebra -----------------------------------------------------------------------------------------------------


@idiom
def orthogonal_by_qr() -> nn.Module:
    q, r = torch.linalg.qr(torch.randn(4, 4))
    return module(w=nn.Parameter(q * torch.sign(torch.diagonal(r))), r=r)


@idiom
def invertible_1x1() -> nn.Module:
    w = torch.linalg.qr(torch.randn(3, 3))[0]
    p, lower, upper = torch.linalg.lu(w)
    s = torch.diag(upper)
    return module(
        p=p,
        sign=torch.sign(s),
        log_s=nn.Parameter(torch.log(torch.abs(s))),
        lower=nn.Parameter(lower),
        upper=nn.Parameter(torch.triu(upper, 1)),
        mask=torch.tril(torch.ones(3, 3), -1),
        eye=torch.eye(3),
    )


@idiom
def low_rank_by_svd() -> nn.Module:
    net = nn.Linear(4, 5)
    u, s, vh = torch.linalg.svd(net.weight.data, full_matrices=False)
    return module(net=net, a=nn.Parameter(u[:, :2] * s[:2]), b=nn.Parameter(vh[:2]), notes=[len(s)])


@idiom
def inverse_and_determinant() -> nn.Module:
    w = torch.eye(3) * 2 + torch.ones(3, 3) * 0.1
    return module(inverse=torch.inverse(w), pinv=torch.linalg.pinv(w), det=torch.det(w), solved=torch.linalg.solve(w, torch.ones(3)))


@idiom
def matrix_exponential() -> nn.Module:
    a = torch.randn(3, 3)
    return module(w=nn.Parameter(torch.matrix_exp(a - a.T)), c=torch.linalg.cholesky(a @ a.T + torch.eye(3)))


@idiom
def legendre_matrix() -> nn.Module:
    n = 6
    q = np.arange(n, dtype=np.float64)
    r = (2 * q + 1)[:, None]
    j, i = np.meshgrid(q, q)
    a = np.where(i < j, -1, (-1.0) ** (i - j + 1)) * r
    return module(a=torch.from_numpy(a).float(), b=nn.Parameter(torch.tensor(((-1.0) ** q[:, None]) * r, dtype=torch.float32)))


@idiom
def state_space_a() -> nn.Module:
    a = torch.arange(1, 5, dtype=torch.float32)[None, :].expand(3, -1).contiguous()
    dt = torch.exp(torch.rand(3) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4)
    inverse = dt + torch.log(-torch.expm1(-dt))
    projection = nn.Linear(2, 3)
    with torch.no_grad():
        projection.bias.copy_(inverse)
    projection.bias._no_reinit = True
    return module(a_log=nn.Parameter(torch.log(a)), projection=projection, d=nn.Parameter(torch.ones(3)))


@idiom
def diagonal_state_space() -> nn.Module:
    real, imaginary = 0.5 * torch.ones(2, 3), math.pi * torch.arange(3).repeat(2, 1)
    return module(a=nn.Parameter(torch.view_as_real(-real + 1j * imaginary)), c=nn.Parameter(torch.view_as_real(torch.randn(2, 3, dtype=torch.cfloat))))


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
    return module(f=torch.einsum("i,j->ij", torch.arange(4.0), torch.arange(3.0)), g=torch.einsum("ij,kj->ik", torch.randn(2, 3), torch.ones(4, 3)))


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
    mask, count = torch.zeros(1, 4, 4, 1), 0
    slices = (slice(0, -2), slice(-2, -1), slice(-1, None))
    for h, w in itertools.product(slices, slices):
        mask[:, h, w, :] = count
        count += 1
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
    return module(fb=torch.max(torch.zeros(1), torch.min(down, up)), window=torch.hann_window(8), hamming=torch.hamming_window(6))


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
    return module(w=w, g=torch.arange(6.0).view(2, 3).gather(1, index), o=F.one_hot(torch.tensor([0, 2]), 3), t=torch.take(w, index))


@idiom
def diagonals() -> nn.Module:
    w = torch.randn(4, 4)
    w.fill_diagonal_(0.0)
    v = torch.zeros(4, 4)
    v.diagonal().copy_(torch.arange(4.0))
    return module(w=nn.Parameter(w), v=v, d=torch.diag(torch.ones(3), 1), e=torch.diag_embed(torch.arange(2.0)), b=torch.block_diag(torch.ones(2, 2), torch.eye(2)))


@idiom
def flipped_and_rolled() -> nn.Module:
    w = torch.arange(12.0).view(3, 4)
    return module(a=w.flip(0), b=torch.roll(w, 1, 1), c=w.rot90(), d=w.t().contiguous(), e=w.unfold(1, 2, 1).clone(), f=w.movedim(0, 1))


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
    return module(i=w.view(torch.int32), h=w.half().view(torch.int16).clone(), q=torch.round(torch.randn(6) * 10).clamp(-8, 7).to(torch.int8))


@idiom
def sorting() -> nn.Module:
    w, order = torch.randn(6).sort()
    return module(w=w, order=order, top=torch.topk(w, 2).values, a=torch.argsort(w, descending=True), k=w.kthvalue(2).values, m=w.median(), c=w.cumsum(0))


@idiom
def data_dependent_shapes() -> nn.Module:
    w = torch.randn(8)
    return module(p=w[w > 0], n=(w > 0).nonzero(), u=torch.unique(torch.tensor([3, 1, 3])), m=w.masked_select(w < 0), b=torch.bincount(torch.tensor([0, 2, 2])))


@idiom
def where_and_clamp() -> nn.Module:
    w = torch.randn(4, 4)
    return module(a=torch.where(w > 0, w, torch.zeros(())), b=w.clamp(-1, 1), c=w.masked_fill(torch.eye(4, dtype=torch.bool), 0.0), d=torch.maximum(w, w.T), e=w.abs_().add_(1).log_())


@idiom
def searching() -> nn.Module:
    edges = torch.linspace(0, 1, 5)
    return module(a=torch.bucketize(torch.tensor([0.1, 0.6]), edges), b=torch.searchsorted(edges, torch.tensor([0.3])), h=torch.histc(edges, 4), c=torch.cartesian_prod(torch.arange(2), torch.arange(3)), d=torch.combinations(torch.arange(4)))


# ---- random draws of other kinds ----------------------------------------------------------------------------------------


@idiom
def many_draws() -> nn.Module:
    return module(
        bernoulli=torch.bernoulli(torch.full((6,), 0.5)),
        bernoulli_=torch.empty(6).bernoulli_(0.3),
        randint=torch.randint(0, 5, (4,)),
        exponential=torch.empty(5).exponential_(2.0),
        cauchy=torch.empty(5).cauchy_(),
        log_normal=torch.empty(5).log_normal_(),
        geometric=torch.empty(5).geometric_(0.4),
        normal=torch.normal(torch.arange(4.0), 1.0),
        sized=torch.normal(1.0, 2.0, (3,)),
        poisson=torch.poisson(torch.full((4,), 3.0)),
        random=torch.empty(4, dtype=torch.int64).random_(10),
        half_=torch.randn(4, dtype=torch.float16),
        double_=torch.rand(4, dtype=torch.float64),
        like=torch.randn_like(torch.ones(2, 3)),
        ints=torch.randint_like(torch.ones(3), 7),
    )


@idiom
def permutations() -> nn.Module:
    order = torch.randperm(6)
    return module(order=order, inverse=torch.argsort(order), w=torch.randn(6, 2)[order], kept=order[:3].sort().values)


@idiom
def multinomial() -> nn.Module:
    return module(a=torch.multinomial(torch.ones(5), 3), b=torch.multinomial(torch.rand(2, 4), 2, replacement=True))


@idiom
def distributions() -> nn.Module:
    d = torch.distributions
    return module(
        a=nn.Parameter(d.Normal(0.0, 0.5).sample((3, 2))),
        b=d.Uniform(torch.tensor(-1.0), torch.tensor(1.0)).sample((4,)),
        c=d.Bernoulli(0.5).sample((5,)),
        e=d.Categorical(torch.tensor([0.2, 0.8])).sample((3,)),
        f=d.MultivariateNormal(torch.zeros(2), torch.eye(2)).rsample((2,)),
        g=d.Laplace(0.0, 1.0).sample((3,)),
    )


@idiom
def sparse_random_mask() -> nn.Module:
    net = nn.Linear(5, 5)
    net.register_buffer("mask", (torch.rand(5, 5) < 0.4).float())
    net.weight.data.mul_(net.mask)
    return net


@idiom
def reservoir() -> nn.Module:
    w = torch.rand(5, 5) - 0.5
    w[torch.rand(5, 5) > 0.5] = 0
    radius = torch.max(torch.abs(torch.linalg.eigvals(w)))
    return module(w=nn.Parameter(w * (0.9 / radius), requires_grad=False), notes=[radius.item()])


# ---- values that Python asks for ----------------------------------------------------------------------------------------


@idiom
def stochastic_depth() -> nn.Module:
    rates = [x.item() for x in torch.linspace(0, 0.2, 4)]
    return module(layers=nn.ModuleList(nn.Dropout(rate) for rate in rates), notes=rates)


@idiom
def tolist_and_item() -> nn.Module:
    w = torch.randn(3)
    return module(w=w, notes=[w.tolist(), w.sum().item(), float(w[0]), int(w[1] * 10), bool(w[2] > 0), f"{w.mean():.3f}", len(w)])


@idiom
def branch_on_values() -> nn.Module:
    w = torch.randn(4, 4)
    tries = 0
    while torch.linalg.det(w) < 0 and tries < 5:
        w, tries = torch.randn(4, 4), tries + 1
    return module(w=nn.Parameter(w if w.max() > 1 else w * 2), notes=[tries, bool((w > 0).any())])


@idiom
def rejection() -> nn.Module:
    w = torch.empty(6).normal_()
    for _ in range(9):
        bad = w.abs() > 1
        if not bad.any():
            break
        w[bad] = torch.randn(int(bad.sum()))
    return module(w=nn.Parameter(w))


@idiom
def asserts() -> nn.Module:
    net = nn.Linear(3, 3)
    assert torch.isfinite(net.weight).all()
    assert torch.allclose(net.weight, net.weight.clone())
    assert not torch.equal(net.weight, torch.zeros(3, 3))
    assert net.weight.numel() == 9
    assert net.weight.storage().size() == 9
    return net


@idiom
def through_numpy() -> nn.Module:
    w = torch.randn(4, 3)
    u, s, vt = np.linalg.svd(w.numpy(), full_matrices=False)
    net = nn.Linear(3, 4)
    net.weight.data = torch.from_numpy((u * s) @ vt)
    net.bias.data.copy_(torch.from_numpy(np.asarray(w[:, 0]) * 2))
    return module(net=net, back=torch.tensor(w.detach().cpu().numpy()[::-1].copy()), notes=[np.array(w).shape, float(np.mean(w.numpy()))])


@idiom
def printed() -> nn.Module:
    w = torch.arange(3.0)
    return module(w=w, notes=[repr(w), str(w.sum()), repr(nn.Parameter(w)), f"{w}", repr(nn.Linear(2, 2))])


# ---- modules in modules -------------------------------------------------------------------------------------------------


@idiom
def ema_copy() -> nn.Module:
    online = nn.Linear(3, 4)
    target = copy.deepcopy(online)
    for p, q in zip(online.parameters(), target.parameters(), strict=True):
        q.data.copy_(p.data)
        q.requires_grad = False
    return module(online=online, target=target)


@idiom
def clones_of_a_layer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    net = nn.ModuleList(copy.deepcopy(layer) for _ in range(2))
    for p in net.parameters():
        if p.dim() > 1:
            nn.init.xavier_uniform_(p)
    return net


@idiom
def momentum_queue() -> nn.Module:
    queue = F.normalize(torch.randn(4, 8), dim=0)
    return module(queue=queue, pointer=torch.zeros(1, dtype=torch.long))


@idiom
def parameter_containers() -> nn.Module:
    return module(
        a=nn.ParameterList([nn.Parameter(torch.randn(2)) for _ in range(3)]),
        b=nn.ParameterDict({"x": nn.Parameter(torch.ones(2)), "y": torch.zeros(3)}),
        c=nn.ModuleDict({"l": nn.Linear(2, 2)}),
        d=nn.ParameterList(torch.rand(2, 2).unbind()),
    )


@idiom
def lazy_modules() -> nn.Module:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    with torch.no_grad():
        net(torch.zeros(2, 3, 5, 5))
    nn.init.zeros_(net[3].weight)
    return net


@idiom
def size_by_dummy_forward() -> nn.Module:
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    with torch.no_grad():
        out = features(torch.zeros(1, 1, 8, 8))
    return module(features=features, head=nn.Linear(out.flatten(1).shape[1], 2), size=int(np.prod(out.size())))


@idiom
def data_dependent_init() -> nn.Module:
    net = nn.Linear(4, 3)
    with torch.no_grad():
        out = net(torch.randn(16, 4))
        net.weight.data /= out.std(0, keepdim=True).T
        net.bias.data = -out.mean(0) / out.std(0)
    return net


@idiom
def lsuv() -> nn.Module:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), torch.randn(8, 4)
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)
            for _ in range(3):
                std = layer(x).std().item()
                if abs(std - 1) < 0.05:
                    break
                layer.weight.data /= std
        x = layer(x).detach()
    return net


@idiom
def hooks_that_note() -> nn.Module:
    seen: list[Any] = []
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    for layer in net:
        layer.register_forward_hook(lambda m, args, out: seen.append((out.shape, round(out.sum().item(), 4))))
    net(torch.ones(1, 2))
    net[0].weight.register_hook(lambda g: g)
    return module(net=net, notes=seen)


@idiom
def gradient_in_constructor() -> nn.Module:
    net = nn.Linear(3, 1)
    net(torch.ones(2, 3)).sum().backward()
    grad = net.weight.grad.clone()
    net.zero_grad()
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([w], lr=0.1)
    (w**2).sum().backward()
    optimizer.step()
    w.grad = None
    return module(net=net, grad=grad, w=w)


@idiom
def state_dict_loaded() -> nn.Module:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    state = {key: value.clone() * 2 for key, value in a.state_dict().items()}
    b.load_state_dict(state)
    return module(a=a, b=b, notes=[str(b.load_state_dict(state))])


@idiom
def saved_and_loaded() -> nn.Module:
    file = io.BytesIO()
    torch.save({"w": torch.arange(3.0)}, file)
    file.seek(0)
    return module(w=torch.load(file)["w"], p=pickle.loads(pickle.dumps(torch.arange(2.0))))


@idiom
def hypernetwork() -> nn.Module:
    generator, target = nn.Linear(2, 12), nn.Linear(3, 4)
    with torch.no_grad():
        target.weight.copy_(generator(torch.ones(2)).view(4, 3))
    return module(generator=generator, target=target)


@idiom
def lora() -> nn.Module:
    base = nn.Linear(4, 5)
    base.weight.requires_grad = False
    a, b = nn.Parameter(base.weight.new_zeros((2, 4))), nn.Parameter(base.weight.new_zeros((5, 2)))
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    nn.init.zeros_(b)
    return module(base=base, a=a, b=b)


@idiom
def pissa() -> nn.Module:
    base = nn.Linear(4, 5, bias=False)
    v, s, uh = torch.linalg.svd(base.weight.data.to(torch.float32), full_matrices=False)
    vr, sr, uhr = v[:, :2], s[:2] / 1.0, uh[:2]
    a, b = torch.diag(torch.sqrt(sr)) @ uhr, vr @ torch.diag(torch.sqrt(sr))
    base.weight.data = (base.weight.data - b @ a).to(base.weight.dtype)
    return module(base=base, a=nn.Parameter(a), b=nn.Parameter(b))


@idiom
def dora() -> nn.Module:
    base = nn.Linear(4, 5)
    return module(base=base, magnitude=nn.Parameter(torch.linalg.norm(base.weight, dim=1).detach()))


@idiom
def mixture_of_experts() -> nn.Module:
    w = nn.Parameter(torch.empty(3, 4, 5))
    for expert in range(3):
        nn.init.kaiming_uniform_(w[expert], a=math.sqrt(5))
    bias = nn.Parameter(torch.empty(3, 5))
    with torch.no_grad():
        for row in bias:
            row.uniform_(-0.1, 0.1)
    return module(w=w, bias=bias)


@idiom
def vector_quantiser() -> nn.Module:
    net = nn.Embedding(6, 3)
    net.weight.data.uniform_(-1 / 6, 1 / 6)
    return module(net=net, cluster=torch.zeros(6), ema=net.weight.data.clone(), embed=net.weight.detach().T)


@idiom
def half_types() -> nn.Module:
    a = nn.Linear(3, 4, dtype=torch.bfloat16)
    b = nn.Linear(3, 4).half()
    nn.init.normal_(a.weight, std=0.02)
    c = nn.Linear(3, 4).double()
    return module(a=a, b=b, c=c, f=torch.ones(3).to(torch.float8_e4m3fn), i=torch.arange(4, dtype=torch.uint8))


@idiom
def default_dtype() -> nn.Module:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return module(l=nn.Linear(2, 2), t=torch.tensor(1.5), r=torch.randn(3), s=torch.arange(3.0).sin())
    finally:
        torch.set_default_dtype(before)


@idiom
def complex_parameters() -> nn.Module:
    w = nn.Parameter(torch.view_as_complex(torch.randn(3, 4, 2) * 0.02))
    return module(w=w, c=nn.Parameter(torch.randn(3, dtype=torch.complex64)), conj=torch.randn(3, dtype=torch.complex64).conj(), r=w.real.detach().clone())


@idiom
def spectral_convolution() -> nn.Module:
    return module(w=nn.Parameter((1 / 16) * torch.rand(2, 3, 4, 4, dtype=torch.cfloat)), f=torch.fft.rfft2(torch.randn(4, 4)))


@idiom
def weight_standardised() -> nn.Module:
    net = nn.Conv2d(2, 3, 3)
    w = net.weight.data
    net.weight.data = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    return net


@idiom
def detached_and_cloned() -> nn.Module:
    w = nn.Parameter(torch.randn(3))
    return module(w=w, a=w.detach(), b=w.detach().clone(), c=w.data, d=torch.empty_like(w).copy_(w).detach())


@idiom
def out_arguments() -> nn.Module:
    w = torch.empty(3)
    torch.arange(3.0, out=w)
    v = torch.empty(3, 3)
    torch.mul(w[:, None], w[None], out=v)
    r = torch.empty(4)
    torch.randn(4, out=r)
    return module(w=w, v=v, r=r)


@idiom
def resized() -> nn.Module:
    w = torch.zeros(2)
    w.resize_(3).fill_(4.0)
    old = nn.Embedding(4, 3)
    new = nn.Embedding(6, 3)
    new.weight.data[:4] = old.weight.data
    new.weight.data[4:] = old.weight.data.mean(0, keepdim=True)
    return module(w=w, new=new, i=F.interpolate(torch.randn(1, 2, 3, 3), size=(5, 5), mode="bicubic", align_corners=False))


@idiom
def removed_and_replaced() -> nn.Module:
    net = nn.Linear(3, 4)
    w = net.weight
    del net.weight
    net.register_parameter("weight_raw", nn.Parameter(w.data))
    net.bias = None
    net.register_buffer("weight", w.data * 2, persistent=False)
    return net


@idiom
def subclass_of_parameter() -> nn.Module:
    class Marked(nn.Parameter):
        pass

    w = Marked(torch.randn(3))
    w.mark = 1
    return module(w=w, b=nn.Buffer(torch.ones(2), persistent=False))


@idiom
def scripted_function() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = torch.jit.script(lambda_like)
    return module(w=f(torch.arange(4.0)))


def lambda_like(x: Tensor) -> Tensor:
    return x * 2 + torch.ones(4)


@idiom
def vmapped_and_grad() -> nn.Module:
    w = torch.func.vmap(lambda x: x.sum() * 2)(torch.arange(6.0).view(2, 3))
    g = torch.func.grad(lambda x: (x**3).sum())(torch.arange(3.0))
    return module(w=w, g=g)


@idiom
def stacked_ensemble() -> nn.Module:
    params, buffers = torch.func.stack_module_state([nn.Linear(2, 3) for _ in range(2)])
    return module(params=nn.ParameterDict({key.replace(".", "_"): nn.Parameter(p.detach()) for key, p in params.items()}))
