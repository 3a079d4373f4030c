"""Layers that are run in the constructor, as models do to learn their sizes: outputs are those of eager code, and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi


def ramp(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.linspace(-1, 1, math.prod(shape)).reshape(shape)


def numbers(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.arange(math.prod(shape)).reshape(shape) % 5


IMAGE, ROWS, STEPS = ramp(2, 4, 6, 6), ramp(4, 3), ramp(5, 2, 4)
LAYERS: dict[str, tuple[Callable[[], nn.Module], list[Callable[[], Tensor]]]] = {
    "Linear": (lambda: nn.Linear(3, 4), [ROWS]),
    "Bilinear": (lambda: nn.Bilinear(3, 3, 2), [ROWS, ROWS]),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3), [ramp(2, 2, 8)]),
    "Conv2d": (lambda: nn.Conv2d(4, 3, 3, padding=1), [IMAGE]),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 3, 3), [IMAGE]),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), [ROWS]),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), [IMAGE]),
    "BatchNorm2d bare": (lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False), [IMAGE]),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(4), [IMAGE]),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), [IMAGE]),
    "LayerNorm": (lambda: nn.LayerNorm(3), [ROWS]),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), [IMAGE]),
    "RMSNorm": (lambda: nn.RMSNorm(3), [ROWS]),
    "RNN": (lambda: nn.RNN(4, 3, 2), [STEPS]),
    "LSTM": (lambda: nn.LSTM(4, 3, bidirectional=True), [STEPS]),
    "GRU": (lambda: nn.GRU(4, 3, batch_first=True), [STEPS]),
    "Embedding": (lambda: nn.Embedding(5, 3), [numbers(2, 4)]),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(5, 3), [numbers(2, 4)]),
    "EmbeddingBag max": (lambda: nn.EmbeddingBag(5, 3, mode="max"), [numbers(2, 4)]),
    "EmbeddingBag sum": (lambda: nn.EmbeddingBag(5, 3, mode="sum"), [numbers(2, 4)]),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2), [STEPS] * 3),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), [STEPS]),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(4, 2, 8, 0.0), [STEPS, STEPS]),
    "MaxPool2d": (lambda: nn.MaxPool2d(2, return_indices=True), [IMAGE]),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d(2), [IMAGE]),
    "Upsample": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), [IMAGE]),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), [IMAGE]),
    "Unfold": (lambda: nn.Unfold(2), [IMAGE]),
    "PReLU": (lambda: nn.PReLU(), [ROWS]),
    "ReflectionPad2d": (lambda: nn.ReflectionPad2d(1), [IMAGE]),
    "AdaptiveLogSoftmaxWithLoss": (lambda: nn.AdaptiveLogSoftmaxWithLoss(3, 6, [2, 4]), [ROWS, numbers(4)]),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), [ROWS]),
    "LazyLinear": (lambda: nn.LazyLinear(3), [ROWS]),
    "LazyConv2d": (lambda: nn.LazyConv2d(3, 3), [IMAGE]),
    "LazyConvTranspose2d": (lambda: nn.LazyConvTranspose2d(3, 3), [IMAGE]),
    "LazyBatchNorm2d": (lambda: nn.LazyBatchNorm2d(), [IMAGE]),
    "LazyInstanceNorm2d": (lambda: nn.LazyInstanceNorm2d(affine=True), [IMAGE]),
}


class Run(nn.Module):
    """A layer with weights that are known, and what it returns."""

    def __init__(self, name: str, train: bool) -> None:
        super().__init__()
        make, inputs = LAYERS[name]
        self.layer = make().train(train)
        self.layer(*[x() for x in inputs])  # a lazy one knows its sizes now
        with torch.no_grad():
            for weight in self.layer.parameters():
                weight.copy_(torch.linspace(-1, 1, weight.numel()).reshape(weight.shape))
        self.keep("out", self.layer(*[x() for x in inputs]))

    def keep(self, name: str, out: Any) -> None:
        if isinstance(out, Tensor):
            self.register_buffer(name, out.detach().clone())
        for number, each in enumerate(out if isinstance(out, tuple) else ()):
            self.keep(f"{name}_{number}", each)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:enable_nested_tensor")
def test_outputs_of_layers_are_eagers(name: str, train: bool) -> None:
    expected = Run(name, train).state_dict()
    with wi.deferred() as recording:
        net = Run(name, train)
    found = recording.materialize_(net, device="cpu", seed=0).state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].shape == tensor.shape
        torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-6)  # torch fuses some of them on the CPU, not on meta


def test_lazy_layers_that_are_run() -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.LazyLinear(3), nn.LazyLinear(2))
        weight = net[0].weight
        net[0](torch.zeros(1, 5))
    assert net[0].weight is weight
    assert type(weight) is nn.Parameter
    bound = 1 / math.sqrt(5)
    plan = recording.plan(net[0], seed=0)
    for name in ("weight", "bias"):
        assert [plan[name][0].distribution.b] == pytest.approx([bound])
    recording.materialize_(net, seed=0)
    assert weight.abs().max() < 1.01 * bound
    assert nn.parameter.is_lazy(net[1].weight)
    assert net(torch.zeros(1, 5)).shape == (1, 2)
