"""Modules made of modules, run, copied and loaded in constructors."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_idioms import idiom, module

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
    return module(
        w=w,
        c=nn.Parameter(torch.randn(3, dtype=torch.complex64)),
        conj=torch.randn(3, dtype=torch.complex64).conj(),
        r=w.real.detach().clone(),
    )


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
    params, _ = torch.func.stack_module_state([nn.Linear(2, 3) for _ in range(2)])
    return module(params=nn.ParameterDict({key.replace(".", "_"): nn.Parameter(p.detach()) for key, p in params.items()}))
