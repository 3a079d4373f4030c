"""Draws of all kinds, and values that constructors look at."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from zoo_idioms import idiom, module

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
    return module(
        w=w, notes=[w.tolist(), w.sum().item(), float(w[0]), int(w[1] * 10), bool(w[2] > 0), f"{w.mean():.3f}", len(w)]
    )


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
    return module(
        net=net, back=torch.tensor(w.detach().cpu().numpy()[::-1].copy()), notes=[np.array(w).shape, float(np.mean(w.numpy()))]
    )


@idiom
def printed() -> nn.Module:
    w = torch.arange(3.0)
    return module(w=w, notes=[repr(w), str(w.sum()), repr(nn.Parameter(w)), f"{w}", repr(nn.Linear(2, 2))])
