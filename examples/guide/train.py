"""The nets of the guide, and plain stochastic gradient descent: no momentum, no schedule, one thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from images import Data
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(depth: int, width: int, activation: Callable[[], nn.Module], inputs: int = 64, classes: int = 10) -> nn.Sequential:
    """``depth`` hidden layers."""
    sizes = [inputs] + [width] * depth
    layers = [module for a, b in pairwise(sizes) for module in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers, nn.Linear(width, classes))


@contextmanager
def one_thread() -> Iterator[None]:
    """Nets this small are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sgd(net: nn.Module, data: Data, epochs: int, rate: float, batch: int = 32, seed: int = 0) -> list[float]:
    """Trains a net, and returns the mean training loss of each epoch, before which the first entry has the loss of 1024 images.

    ``rate`` is that of a mean over the batch: a summed loss wants ``rate / batch``.
    """
    images, classes = data
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), rate)
    losses = [loss_of(net, (images[:1024], classes[:1024]))]
    for _ in range(epochs):
        total, order = 0.0, torch.randperm(len(images), generator=generator)
        for some in order.split(batch):
            loss = F.cross_entropy(net(images[some]), classes[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(some)
        losses.append(total / len(images))
        if not math.isfinite(losses[-1]):
            return losses + [math.nan] * (epochs + 1 - len(losses))
    return losses


def loss_of(net: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(net(data[0]), data[1]))


def accuracy(net: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((net(data[0]).argmax(1) == data[1]).float().mean())


def logits_loss(output: Tensor, target: Tensor) -> Tensor:
    """Of language models: a class for each token."""
    return F.cross_entropy(output.flatten(0, -2), target.flatten())
