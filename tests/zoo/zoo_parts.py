"""Parametrisations, ties, and layers that a constructor runs."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as P
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from zoo_idioms import Build, module

# ---- parametrisations -----------------------------------------------------------------------------------------------------


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x: Tensor) -> Tensor:
        return x.triu()


class Skew(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu(1) - x.triu(1).transpose(-1, -2)


class LowRank(nn.Module):
    def __init__(self, net: nn.Linear) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(net.out_features, 2)), nn.Parameter(torch.randn(2, net.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.a @ self.b


class Scaled(nn.Module):
    def __init__(self, net: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("scale", net.weight.detach().abs().max())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / self.scale


class Exponential(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.matrix_exp(x)


def old(function: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Callable[[nn.Module], nn.Module]:
    def apply(net: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(net, *args, **kwargs)

    return apply


def parametrised(kind: Callable[..., nn.Module], *then: Callable[..., nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def apply(net: nn.Module) -> nn.Module:
        for each in (kind, *then):
            made = each(net) if each in (LowRank, Scaled) else each()
            parametrize.register_parametrization(net, "weight", made)
        return net

    return apply


def removed(net: nn.Module) -> nn.Module:
    P.weight_norm(net)
    parametrize.remove_parametrizations(net, "weight")
    return net


def assigned(net: nn.Module) -> nn.Module:
    parametrize.register_parametrization(net, "weight", Symmetric())
    net.weight = torch.arange(16.0).view(4, 4)
    return net


def unsafe_cached(net: nn.Module) -> nn.Module:
    parametrize.register_parametrization(net, "weight", Skew())
    with parametrize.cached():
        net.bias.data.fill_(net.weight.sum().item())
    return net


def pruned_away(net: nn.Module) -> nn.Module:
    prune.random_unstructured(net, "weight", 0.5)
    return prune.remove(net, "weight")


PARAMETRISATIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": P.weight_norm,
    "weight_norm of a dimension": lambda net: P.weight_norm(net, dim=1),
    "spectral_norm": P.spectral_norm,
    "orthogonal by exp": lambda net: P.orthogonal(net, orthogonal_map="matrix_exp"),
    "orthogonal by cayley": lambda net: P.orthogonal(net, orthogonal_map="cayley"),
    "orthogonal by householder": lambda net: P.orthogonal(net, orthogonal_map="householder"),
    "old weight_norm": old(nn.utils.weight_norm),
    "old spectral_norm": old(nn.utils.spectral_norm),
    "old orthogonal": lambda net: P.orthogonal(net, use_trivialization=False),
    "symmetric": parametrised(Symmetric),
    "two after each other": parametrised(Skew, Exponential),
    "low rank": parametrised(LowRank),
    "scaled": parametrised(Scaled),
    "removed": removed,
    "assigned": assigned,
    "cached": unsafe_cached,
    "pruned by magnitude": lambda net: prune.l1_unstructured(net, "weight", 0.3),
    "pruned at random": lambda net: prune.random_structured(net, "weight", 0.5, dim=0),
    "pruned away": pruned_away,
}


def on_linear(apply: Callable[[nn.Module], nn.Module]) -> Build:
    return lambda: apply(nn.Linear(4, 4))


# ---- ties -----------------------------------------------------------------------------------------------------------------

TIES: dict[str, Build] = {}


def tie(build: Build) -> Build:
    TIES[build.__name__] = build
    return build


@tie
def embedding_and_head() -> nn.Module:
    made = module(embedding=nn.Embedding(6, 4), head=nn.Linear(4, 6, bias=False))
    made.head.weight = made.embedding.weight
    return made


@tie
def head_and_embedding() -> nn.Module:
    made = module(head=nn.Linear(4, 6, bias=False), embedding=nn.Embedding(6, 4))
    made.embedding.weight = made.head.weight
    nn.init.normal_(made.embedding.weight, std=0.02)
    return made


@tie
def data_alone() -> nn.Module:
    made = module(a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    made.b.weight.data = made.a.weight.data
    made.a.weight.data[0].zero_()
    return made


@tie
def transposed() -> nn.Module:
    encoder = nn.Linear(4, 3)
    return module(encoder=encoder, decoder=nn.Parameter(encoder.weight.t()))


@tie
def transposed_data() -> nn.Module:
    made = module(a=nn.Linear(4, 3), b=nn.Linear(3, 4))
    made.b.weight.data = made.a.weight.data.t()
    return made


@tie
def one_module_twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


@tie
def one_layer_many_times() -> nn.Module:
    return nn.ModuleList([nn.LayerNorm(3)] * 3)


@tie
def buffer_and_parameter() -> nn.Module:
    made = module(net=nn.Linear(3, 3))
    made.register_buffer("alias", made.net.weight.data)
    return made


@tie
def parameter_and_attribute() -> nn.Module:
    made = module(net=nn.Linear(3, 3))
    made.plain, made.listed = made.net.weight, [made.net.bias.data]
    return made


@tie
def slice_of_a_table() -> nn.Module:
    table = nn.Parameter(torch.randn(6, 4))
    return module(table=table, part=table.data[2:4], row=table.data[5])


@tie
def parts_without_their_whole() -> nn.Module:
    flat = torch.randn(10)
    return module(a=nn.Parameter(flat[:4]), b=nn.Parameter(flat[4:]))


@tie
def overlapping_parts() -> nn.Module:
    flat = torch.randn(10)
    return module(a=nn.Parameter(flat[:6]), b=nn.Parameter(flat[4:]))


@tie
def same_parameter_two_names() -> nn.Module:
    w = nn.Parameter(torch.rand(3))
    return module(a=w, b=w, c=nn.ParameterList([w, w]))


@tie
def copied_whole() -> nn.Module:
    made = embedding_and_head()
    return module(one=made, two=copy.deepcopy(made))


@tie
def averaged() -> nn.Module:
    net = nn.Linear(3, 3)
    return module(net=net, average=AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)))


@tie
def shared_by_a_loop() -> nn.Module:
    layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
    for layer in layers[1:]:
        layer.weight = layers[0].weight
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
    return layers


@tie
def tied_and_untied() -> nn.Module:
    made = embedding_and_head()
    made.head.weight = nn.Parameter(made.head.weight.clone())
    return made


@tie
def tied_parametrisation() -> nn.Module:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    P.weight_norm(a)
    return module(a=a, b=b)


@tie
def rnn_of_tied_directions() -> nn.Module:
    net = nn.GRU(3, 4, bidirectional=True)
    net.weight_ih_l0_reverse = net.weight_ih_l0
    return net


@tie
def lazy_and_tied() -> nn.Module:
    made = module(a=nn.LazyLinear(3), b=nn.Linear(2, 3))
    made.a(torch.zeros(1, 2))
    made.b.weight = made.a.weight
    return made


@tie
def expanded() -> nn.Module:
    w = nn.Parameter(torch.randn(1, 4))
    return module(w=w, e=w.data.expand(3, 4))


@tie
def channels_last_view() -> nn.Module:
    w = torch.randn(2, 3, 4, 4)
    return module(a=nn.Parameter(w), b=w.permute(0, 2, 3, 1))


@tie
def by_a_weak_reference() -> nn.Module:
    made = module(a=nn.Linear(2, 2))
    made.__dict__["other"] = weakref.ref(made.a)
    made.b = made.__dict__["other"]()
    return made


@tie
def bits_shared() -> nn.Module:
    w = torch.randn(4)
    return module(w=w, bits=w.view(torch.int32))


@tie
def real_and_complex() -> nn.Module:
    w = torch.randn(3, dtype=torch.complex64)
    return module(w=nn.Parameter(w), parts=torch.view_as_real(w), re=w.real)


# ---- layers that a constructor runs -----------------------------------------------------------------------------------------

Run = tuple[Callable[[], nn.Module], tuple[int, ...] | Callable[[nn.Module], Any]]
LAYERS: dict[str, Run] = {
    "Linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "Bilinear": (lambda: nn.Bilinear(4, 4, 3), lambda m: m(torch.ones(2, 4), torch.ones(2, 4))),
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), (2, 3, 8)),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3, stride=2, groups=1), (2, 3, 8, 8)),
    "Conv2d reflect": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 8, 8)),
    "Conv3d": (lambda: nn.Conv3d(1, 2, 3), (1, 1, 5, 5, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), (2, 3, 4, 4)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), (3, 4)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), (2, 3, 4, 4)),
    "BatchNorm without statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 4)),
    "BatchNorm averaging": (lambda: nn.BatchNorm1d(4, momentum=None), (3, 4)),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(3)).eval(), (2, 3, 4, 4)),
    "InstanceNorm": (lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (2, 3, 4, 4)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (2, 4, 3)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (2, 4)),
    "RMSNorm": (lambda: nn.RMSNorm(4), (2, 4)),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(2), (2, 4, 3, 3)),
    "Embedding": (lambda: nn.Embedding(6, 3, padding_idx=0), lambda m: m(torch.arange(4))),
    "Embedding with max_norm": (lambda: nn.Embedding(6, 3, max_norm=0.5), lambda m: m(torch.arange(4))),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(6, 3), lambda m: m(torch.tensor([[0, 1], [2, 3]]))),
    "EmbeddingBag max": (lambda: nn.EmbeddingBag(6, 3, mode="max"), lambda m: m(torch.arange(4), torch.tensor([0, 2]))),
    "RNN": (lambda: nn.RNN(3, 4), (5, 2, 3)),
    "LSTM": (lambda: nn.LSTM(3, 4, 2, dropout=0.5, bidirectional=True), (5, 2, 3)),
    "GRU": (lambda: nn.GRU(3, 4, batch_first=True), (2, 5, 3)),
    "LSTMCell": (lambda: nn.LSTMCell(3, 4), (2, 3)),
    "packed LSTM": (
        lambda: nn.LSTM(3, 4),
        lambda m: m(nn.utils.rnn.pack_sequence([torch.ones(3, 3), torch.ones(2, 3)]))[0].data,
    ),
    "MultiheadAttention": (
        lambda: nn.MultiheadAttention(4, 2, dropout=0.1),
        lambda m: m(torch.ones(3, 2, 4), torch.ones(3, 2, 4), torch.ones(3, 2, 4)),
    ),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (2, 3, 4)),
    "TransformerDecoderLayer": (
        lambda: nn.TransformerDecoderLayer(4, 2, 8),
        lambda m: m(torch.ones(3, 2, 4), torch.ones(3, 2, 4)),
    ),
    "Transformer": (lambda: nn.Transformer(4, 2, 1, 1, 8), lambda m: m(torch.ones(3, 2, 4), torch.ones(3, 2, 4))),
    "scaled_dot_product_attention": (
        lambda: nn.Linear(8, 24),
        lambda m: nn.functional.scaled_dot_product_attention(
            *m(torch.ones(1, 2, 5, 8)).chunk(3, -1), dropout_p=0.1 * m.training, is_causal=True
        ),
    ),
    "Dropout": (lambda: nn.Dropout(0.3), (4, 4)),
    "Dropout2d": (lambda: nn.Dropout2d(0.3), (2, 4, 3, 3)),
    "AlphaDropout": (lambda: nn.AlphaDropout(0.3), (4, 4)),
    "RReLU": (lambda: nn.RReLU(), lambda m: m(-torch.ones(3, 3))),
    "PReLU": (lambda: nn.PReLU(4), (2, 4)),
    "activations": (
        lambda: nn.Sequential(nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Hardswish(), nn.GLU(), nn.Softmax(-1)),
        (2, 4),
    ),
    "MaxPool with indices": (lambda: nn.MaxPool2d(2, return_indices=True), (1, 2, 4, 4)),
    "pools": (lambda: nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (1, 2, 6, 6)),
    "LPPool and FractionalMaxPool": (
        lambda: nn.Sequential(nn.LPPool2d(2, 2), nn.FractionalMaxPool2d(2, output_size=2)),
        (1, 2, 8, 8),
    ),
    "Upsample": (lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelShuffle(2)), (1, 4, 3, 3)),
    "Unfold": (lambda: nn.Unfold(2), (1, 2, 4, 4)),
    "AdaptiveLogSoftmax": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, [3, 6]),
        lambda m: m(torch.ones(3, 4), torch.tensor([0, 4, 8])).loss,
    ),
    "CrossEntropyLoss": (
        lambda: nn.Linear(4, 3),
        lambda m: nn.functional.cross_entropy(m(torch.ones(2, 4)), torch.tensor([0, 2])),
    ),
    "CTCLoss": (
        lambda: nn.CTCLoss(),
        lambda m: m(torch.zeros(5, 1, 4).log_softmax(2), torch.tensor([[1, 2]]), torch.tensor([5]), torch.tensor([2])),
    ),
    "grid_sample": (
        lambda: nn.Conv2d(1, 1, 1),
        lambda m: nn.functional.grid_sample(m(torch.ones(1, 1, 3, 3)), torch.zeros(1, 2, 2, 2), align_corners=False),
    ),
}


def run(name: str, train: bool) -> Build:
    """The layer, its output as buffers, what Python sees of it, and the layer's own state after the run."""
    make, call = LAYERS[name]

    def build() -> nn.Module:
        layer = make().train(train)
        out = call(layer) if callable(call) else layer(torch.linspace(-1, 1, int(torch.Size(call).numel())).view(call))
        flat = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)]
        made = module(layer=layer, notes=[(tuple(t.shape), t.dtype, t.requires_grad) for t in flat])
        for at, t in enumerate(flat):
            made.register_buffer(f"out{at}", t.detach())
        return made

    return build
