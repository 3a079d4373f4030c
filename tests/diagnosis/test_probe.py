"""A probe leaves everything as before, takes any model and any output, and says in a sentence what it cannot do."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nets import GPT, mlp, quiet  # noqa: F401 a fixture
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import weightinit_cuda as wi

X = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))


def figures(report: wi.ProbeReport) -> list[tuple[Any, ...]]:
    """What is equal if two reports are."""
    return [
        (r.name, r.kind, *(f"{v:.6g}" for v in (r.rms, r.signal, r.rank, r.gradient, r.weight_gradient))) for r in report.rows
    ]


class Everything(nn.Module):
    """Norms with running statistics, dropout of all sorts, frozen parts, hooks, a gradient that is there already."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.frozen = nn.Linear(32, 32).requires_grad_(False)
        self.lstm = nn.LSTM(32, 32, 2, dropout=0.5, batch_first=True)
        self.attention = nn.MultiheadAttention(32, 4, dropout=0.5, batch_first=True)
        self.head = nn.Linear(32, 10)
        self.register_buffer("nothing", None)
        self.register_buffer("steps", torch.zeros(()))
        self.eval()
        self.body.train()
        self.head.weight.grad = torch.ones_like(self.head.weight)
        self.calls: list[str] = []
        self.head.register_forward_hook(lambda *_: self.calls.append("forward"))
        self.head.weight.register_post_accumulate_grad_hook(lambda _: self.calls.append("optimizer"))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += torch.rand(()) + random.random() + np.random.rand()
        x = F.dropout(F.relu(self.frozen(self.body(x))), 0.5, self.training)
        x, _ = self.lstm(x.view(8, 4, 32))
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.flatten(0, 1))


def state(net: nn.Module) -> list[Any]:
    tensors = [*net.named_parameters(), *net.named_buffers()]
    grads = [(n, p.grad, None if p.grad is None else p.grad.clone()) for n, p in net.named_parameters()]
    hooks = [
        (
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            len(m._forward_hooks_with_kwargs),
            len(m._forward_pre_hooks_with_kwargs),
        )
        for m in net.modules()
    ]
    return [
        [(n, id(t), t.clone(), t.requires_grad) for n, t in tensors],
        [(n, id(g), c) for n, g, c in grads],
        [m.training for m in net.modules()],
        hooks,
        [len(t._backward_hooks or ()) for _, t in tensors],
        random.getstate(),
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("around", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_everything_is_as_before(around: Callable[[], Any]) -> None:
    net = Everything()
    before = state(net)
    report = wi.probe(net, X)
    for part, (a, b) in enumerate(zip(before, state(net), strict=True)):
        assert same(a, b), part
    assert net.calls == ["forward"], "the model's own hooks run, those of its optimizer do not"
    with around():
        assert figures(wi.probe(net, X)) == figures(report)


def test_everything_is_as_before_after_an_error() -> None:
    class Breaks(Everything):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise ZeroDivisionError

    net = Breaks()
    before = state(net)
    with pytest.raises(ZeroDivisionError):
        wi.probe(net, X)
    assert all(same(a, b) for a, b in zip(before, state(net), strict=True))


def test_the_tests_of_before_and_after_have_power() -> None:
    net = Everything()
    before = state(net)
    net.train()(X).sum().backward()
    changed = [part for part, (a, b) in enumerate(zip(before, state(net), strict=True)) if not same(a, b)]
    assert changed == [0, 1, 2, 5, 6, 7], "values of buffers, gradients, modes, three generators"


def test_a_seed_gives_the_same_report_and_dropout_does_not_matter() -> None:
    net = Everything()
    first = figures(wi.probe(net, X, seed=1))
    torch.manual_seed(77)
    assert figures(wi.probe(net, X, seed=1)) == first
    assert figures(wi.probe(net, X, seed=2)) != first
    for module in net.modules():
        if isinstance(module, (nn.Dropout, nn.LSTM, nn.MultiheadAttention)):
            setattr(module, "p" if isinstance(module, nn.Dropout) else "dropout", 0.0)
    assert [row[:4] for row in figures(wi.probe(net, X, seed=1))] == [row[:4] for row in first]


# ---- models that hide their layers -----------------------------------------------------------------------------------


def test_checkpointed_parts() -> None:
    """Of both sorts, with dropout inside; and where a reentrant one gives no gradient in training, it gives none here."""

    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool | None) -> None:
            super().__init__()
            self.reentrant, self.first = reentrant, nn.Linear(64, 64)
            self.parts = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.ReLU()) for _ in range(3))
            self.last = nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for part in self.parts:
                x = part(x) if self.reentrant is None else checkpoint(part, x, use_reentrant=self.reentrant)
            return self.last(x)

    nets = [wi.initialize_(Checkpointed(reentrant), seed=0) for reentrant in (None, False, True)]
    plain, modern, reentrant = (figures(wi.probe(net, X)) for net in nets)
    assert plain == modern == reentrant
    nets[2].first.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = wi.probe(nets[2], X)
    assert all(np.isnan(row.gradient) for row in report.rows if row.name != "last.weight")


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable")
def test_checkpointed_transformers() -> None:
    transformers = pytest.importorskip("transformers", "5")
    settings = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 90}
    plain = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings))
    reports = [figures(wi.probe(plain))]
    plain.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    reports.append(figures(wi.probe(plain)))
    assert reports[0] == reports[1]


def test_compiled_models_are_probed_as_they_are_written() -> None:
    """The whole and its parts, compiled by a backend that fails where it is run."""

    def backend(graph: Any, inputs: Any) -> Any:
        raise AssertionError("compiled")

    net = mlp(3, 32, nn.ReLU)
    expected = figures(wi.probe(net, X))
    assert figures(wi.probe(torch.compile(net, backend=backend), X)) == expected
    net[2] = torch.compile(net[2], backend=backend)
    net[4].compile(backend=backend)
    assert figures(wi.probe(net, X)) == expected


def test_wrappers_of_parallel_training_are_looked_into() -> None:
    net = mlp(2, 32, nn.ReLU)
    assert figures(wi.probe(nn.DataParallel(net), X)) == figures(wi.probe(net, X))


def test_dtypes() -> None:
    """bfloat16 and float16 show the same as float32, within their precision; a mean loss of float16 does not underflow."""
    net, target = wi.initialize_(mlp(4, 64, nn.Tanh), "xavier", seed=0), torch.arange(32) % 10
    wide = wi.probe(net.double(), X.double(), target=target)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        report = wi.probe(net.to(dtype), X.to(dtype), target=target)
        for a, b in zip(wide.rows, report.rows, strict=True):
            for figure in ("signal", "gradient", "weight_gradient", "rank"):
                assert getattr(a, figure) == pytest.approx(getattr(b, figure), rel=0.05, nan_ok=True), (dtype, a.name, figure)
        assert report.verdict == wide.verdict


def test_autocast() -> None:
    net = wi.initialize_(mlp(3, 64, nn.Tanh), "xavier", seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        report = wi.probe(net, X, target=torch.arange(32) % 10)
    assert report.verdict == "ok"
    assert [row.name for row in report.rows if row.kind == "weight"] == ["0.weight", "2.weight", "4.weight", "6.weight"]


@contextmanager
def one_of_two_ranks() -> Iterator[Any]:
    """This process is rank 0 of two; what the other one would send is missing."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (2,))
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.skipif(torch.__version__ < (2, 7), reason="torch 2.6 asks the other ranks for the values, and there are none")
def test_of_a_dtensor_each_rank_sees_its_shard() -> None:
    """Column-parallel, then row-parallel layers: the hidden units of this rank."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    net = wi.initialize_(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 4)), seed=0)
    whole = wi.probe(net, X)
    with one_of_two_ranks() as mesh:
        report = wi.probe(parallelize_module(net, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()}), X)
    assert [(row.name, row.kind) for row in report.rows] == [(row.name, row.kind) for row in whole.rows]
    assert report.rows[0].units == 16
    assert report.rows[0].signal == pytest.approx(whole.rows[0].signal, rel=0.2)
    assert report.rows[0].weight > 0
    assert report.rows[0].gradient > 0


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.skipif(torch.__version__ < (2, 7), reason="FSDP2 of torch 2.6 has no streams on a CPU")
def test_fsdp2() -> None:
    """Its parameters are gathered for a pass: other objects, under the same names."""
    from torch.distributed.fsdp import fully_shard

    net = mlp(2, 32, nn.ReLU)
    names = [row.name for row in wi.probe(net, X).rows]
    with one_of_two_ranks() as mesh:
        for layer in net:
            fully_shard(layer, mesh=mesh)
        report = wi.probe(fully_shard(net, mesh=mesh), X)
    assert [row.name for row in report.rows] == names
    assert all(row.gradient >= 0 for row in report.rows)


# ---- inputs and outputs ----------------------------------------------------------------------------------------------


@dataclass
class Output:
    note: str
    inner: dict[str, Any]


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda y: (None, 3, (y, y.argmax(-1))),
    "dict": lambda y: {"first": y.argmax(-1), "second": [y]},
    "dataclass": lambda y: Output("x", {"y": y}),
    "object": lambda y: SimpleNamespace(a=SimpleNamespace(b=y)),
    "distribution": lambda y: torch.distributions.Categorical(logits=y),
    "logits": lambda y: SimpleNamespace(hidden=torch.cat([y, y]), logits=y),
}


class Wrapped(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.wrap = nn.Linear(64, 10), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


@pytest.mark.parametrize("structure", OUTPUTS)
def test_an_output_of_any_structure(structure: str) -> None:
    [row] = wi.probe(Wrapped(OUTPUTS[structure]), X).rows
    assert (row.name, row.kind) == ("net.weight", "weight")
    assert row.gradient > 0


def test_losses_alone_are_added_up() -> None:
    """As detectors of torchvision give them in training."""
    net = Wrapped(lambda y: {"boxes": y.square().mean(), "classes": y.exp().mean()})
    report = wi.probe(net, X)
    assert report.loss == pytest.approx(sum(net(X).values()).item())


def test_dicts_keywords_and_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 8), nn.Linear(64, 8)

        def forward(self, batch: dict[str, Tensor], *more: Tensor, scale: float = 1.0) -> Tensor:
            return self.a(batch["x"]) + scale * self.b(more[0])

    report = wi.probe(Two(), {"x": X}, X, scale=0.0)
    assert [row.name for row in report.rows] == ["a.weight", "b.weight"]
    assert report.rows[1].gradient == 0.0


def test_losses() -> None:
    net, classes = nn.Linear(64, 10), torch.arange(32) % 10
    expected = F.cross_entropy(net(X), classes).item()
    assert wi.probe(net, X, target=classes).loss == pytest.approx(expected)
    assert wi.probe(net, X, target=classes, loss=nn.CrossEntropyLoss()).loss == pytest.approx(expected)
    assert wi.probe(net, X, loss=lambda out: F.cross_entropy(out, classes)).loss == pytest.approx(expected)
    assert wi.probe(net, X, target=torch.zeros(32, 10)).loss == pytest.approx(net(X).square().mean().item())
    assert wi.probe(net, X).loss is None
    channels = wi.probe(nn.Conv2d(1, 10, 3), X.view(32, 1, 8, 8), target=torch.zeros(32, 6, 6).long())
    assert channels.loss == pytest.approx(2.3, abs=0.5)
    gradient = torch.autograd.grad(F.cross_entropy(net(X), classes), net.weight)[0]
    assert wi.probe(net, X, target=classes).rows[0].weight_gradient == pytest.approx(gradient.square().mean().sqrt().item())


# ---- without inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", [X, (X,), {"input": X}, lambda: (X,)], ids=["tensor", "tuple", "dict", "function"])
@pytest.mark.parametrize("name", ["example_inputs", "example_input_array", "dummy_inputs"])
def test_an_example_that_a_module_declares(example: Any, name: str) -> None:
    net = mlp(1, 8, nn.ReLU)[0]
    setattr(net, name, example)
    report = wi.probe(net)
    assert name in report.note
    assert figures(report) == figures(wi.probe(net, X))


def test_configurations_say_what_goes_in() -> None:
    transformers = pytest.importorskip("transformers", "5")
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, vocab_size=90,
        encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=20, pad_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    report = wi.probe(transformers.WhisperForConditionalGeneration(config).half().float())
    assert report.loss == pytest.approx(np.log(90), abs=1)
    assert "configuration" in report.note


def test_a_size_of_images_that_a_module_declares() -> None:
    """As timm's models do."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    net.pretrained_cfg = {"input_size": (3, 8, 8)}
    report = wi.probe(net)
    assert "pretrained_cfg" in report.note
    assert report.rows[0].samples == 8


def test_a_configuration_that_does_not_say_what_goes_in() -> None:
    net = nn.Linear(64, 8)
    net.config, net.main_input_name = SimpleNamespace(), "input_values"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="does not say what it takes"):
        wi.probe(net)


def test_a_model_without_inputs_needs_none() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latent, self.map = nn.Parameter(torch.randn(16, 8)), nn.Linear(8, 8)

        def forward(self, scale: float = 1.0) -> Tensor:
            return self.map(self.latent) * scale

    assert [row.name for row in wi.probe(Alone()).rows] == ["map.weight"]


# ---- what it cannot do, in a sentence --------------------------------------------------------------------------------

FROZEN = nn.Linear(64, 8).requires_grad_(False)
REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any], str]] = {
    "all frozen": (lambda: FROZEN, (X,), {}, "2 parameters that are all frozen"),
    "no parameters": (nn.ReLU, (X,), {}, "a model without parameters"),
    "on meta": (lambda: nn.Linear(64, 8, device="meta"), (X,), {}, "on meta"),
    "lazy": (lambda: nn.LazyLinear(8), (X,), {}, "lazy"),
    "no tensor": (lambda: Wrapped(lambda y: "text"), (X,), {}, "an output with a tensor"),
    "no gradient": (lambda: Wrapped(lambda y: y.detach()), (X,), {}, "an output with a tensor"),
    "one sample": (lambda: nn.Linear(64, 8), (X[:1],), {}, "two samples or more are required, got 1"),
    "no sample": (lambda: nn.Linear(64, 8), (X[:0],), {}, "two samples or more are required, got 0"),
    "scripted": (lambda: nn.Sequential(torch.jit.script(nn.Linear(64, 8))), (X,), {}, "A scripted module hides its own"),
    "no layer": (lambda: nn.PReLU(), (X,), {}, "multiplies by a parameter"),
    "a loss of many": (lambda: nn.Linear(64, 8), (X,), {"loss": lambda out: out}, "a loss of one element"),
    "a loss of none": (lambda: nn.Linear(64, 8), (X,), {"loss": lambda out: 3.0}, "got a float"),
    "a loss without gradient": (
        lambda: nn.Linear(64, 8),
        (X,),
        {"loss": lambda out: out.detach().sum()},
        "a loss of one element",
    ),
    "no tokens": (lambda: nn.Sequential(nn.Embedding(30, 8)), (), {}, r"such as torch.randint\(30, \(8, 64\)\)"),
    "no images": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3)), (), {}, r"such as torch.randn\(8, 3, 64, 64\)"),
    "no hint": (lambda: nn.Sequential(nn.Bilinear(3, 8, 3)), (), {}, r"Give a batch, or set model.example_inputs"),
    "no inputs": (lambda: nn.Sequential(nn.Linear(64, 8)), (), {}, r"such as torch.randn\(64, 64\)"),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_probed_is_said(case: str) -> None:
    model, inputs, kwargs, message = REFUSED[case]
    net = model()
    with pytest.raises(ValueError, match=message) as caught:
        wi.probe(net, *inputs, **kwargs)
    assert str(caught.value).startswith("probe: ")
    assert str(caught.value).endswith(".")
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in net.modules() if "Lazy" not in type(module).__name__
    )


def test_a_module_is_required() -> None:
    with pytest.raises(TypeError, match="a module is required, got a dict"):
        wi.probe({}, X)  # type: ignore[arg-type]


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_no_second_copy_of_activations() -> None:
    """What a pass holds at its peak, counted by the hooks of saved tensors, is what a plain one holds."""
    net, ids = GPT(layers=2, width=64), torch.randint(256, (8, 32))

    def held(run: Callable[[], Any]) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run()
        return sum(sizes.values())

    plain = held(lambda: net(ids).square().mean())
    assert held(lambda: wi.probe(net, ids, loss=lambda out: out.square().mean())) == pytest.approx(plain, rel=0.02)
