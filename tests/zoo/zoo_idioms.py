"""How models initialise themselves: small constructors, each with one idiom of real code.

Each function builds a module. What Python sees of values on the way is kept in ``notes``.
"""

from __future__ import annotations

import functools
import itertools
import math
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
    _, _, v = qkv.weight.data.split(4)
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
    return module(
        inverse=torch.inverse(w), pinv=torch.linalg.pinv(w), det=torch.det(w), solved=torch.linalg.solve(w, torch.ones(3))
    )


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
    return module(
        a=nn.Parameter(torch.view_as_real(-real + 1j * imaginary)),
        c=nn.Parameter(torch.view_as_real(torch.randn(2, 3, dtype=torch.cfloat))),
    )
