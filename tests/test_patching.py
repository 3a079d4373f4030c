"""``patched()``: whoever calls torch.nn.init inside gets the bits of ``wi.init``, and outside nothing has changed.

Two oracles: ``REFILL`` repeats what a module's constructor draws by calling ``wi.init``; ``by_hand`` puts ``wi.init`` into a fixed
list of places, as one would without ``patched()``.
"""

from __future__ import annotations

import copy
import functools
import importlib
import math
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import weightinit_cuda as wi
from weightinit_cuda import patching

TORCH = {name: value for name, value in vars(nn.init).items() if isinstance(value, types.FunctionType)}
TORCH_METHOD = torch._C.TensorBase.normal_


def drawn(function: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return function()


def normals(n: int = 5) -> Tensor:
    return drawn(lambda: wi.init.normal_(torch.empty(n)))


def torch_normals(n: int = 5) -> Tensor:
    return drawn(lambda: torch.randn(n))


def is_ours(draw: Callable[[Tensor], Any]) -> bool:
    """Whether ``draw`` gives our normal values; else it must be torch's."""
    tensor = torch.empty(5)
    drawn(lambda: draw(tensor))
    assert torch.equal(tensor, normals()) or torch.equal(tensor, torch_normals())
    return torch.equal(tensor, normals())


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Everything that holds a function of torch.nn.init, the functions themselves and torch.Tensor are as before."""

    def state() -> Any:
        namespaces = [object.__getattribute__(m, "__dict__") for m in list(sys.modules.values()) if isinstance(m, types.ModuleType)]
        tables = [t for n in namespaces for t in (n, *(v for v in list(n.values()) if type(v) is dict))]
        held = {(id(t), k): id(v) for t in tables for k, v in list(t.items()) if isinstance(v, types.FunctionType) and v in known}
        codes = {name: function.__code__ for name, function in TORCH.items()}
        return held, codes, list(vars(nn.init)), list(vars(Tensor)), patching._users, patching._everywhere, patching._thread.depth

    known = set(TORCH.values())
    held, *before = state()
    yield
    now, *after = state()
    assert held.items() <= now.items()
    assert after == before
    assert Tensor.normal_ is TORCH_METHOD


def affine(m: Any) -> None:
    wi.init.kaiming_uniform_(m.weight, a=math.sqrt(5))
    bound = 1 / math.sqrt(m.weight[0].numel())
    wi.init.uniform_(m.bias, -bound, bound)


def recurrent(m: Any) -> None:
    for p in m.parameters():
        wi.init.uniform_(p, -1 / math.sqrt(m.hidden_size), 1 / math.sqrt(m.hidden_size))


def attention(m: nn.MultiheadAttention) -> None:
    affine(m.out_proj)
    wi.init.xavier_uniform_(m.in_proj_weight)
    nn.init.zeros_(m.out_proj.bias)


def embedding(m: nn.Embedding) -> None:
    wi.init.normal_(m.weight)
    m.weight.data[m.padding_idx] = 0


def bilinear(m: nn.Bilinear) -> None:
    bound = 1 / math.sqrt(m.weight.size(1))
    wi.init.uniform_(m.weight, -bound, bound)
    wi.init.uniform_(m.bias, -bound, bound)


REFILL: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], None]]] = {
    "Linear": (lambda: nn.Linear(7, 5), affine),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3), affine),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3), affine),
    "LSTM": (lambda: nn.LSTM(3, 8, num_layers=2), recurrent),
    "GRU": (lambda: nn.GRU(3, 8, bidirectional=True), recurrent),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2), attention),
    "Embedding": (lambda: nn.Embedding(10, 4, padding_idx=3), embedding),
    "Bilinear": (lambda: nn.Bilinear(3, 4, 5), bilinear),
}


@pytest.mark.parametrize("name", REFILL)
def test_a_module_of_torch_gets_our_bits(name: str) -> None:
    build, refill = REFILL[name]
    torchs = drawn(build)
    with wi.patched():
        ours = drawn(build)
        after = torch.get_rng_state()
        again = copy.deepcopy(torchs)
        if hasattr(again, "reset_parameters"):
            drawn(again.reset_parameters)
    expected = copy.deepcopy(torchs)
    drawn(lambda: refill(expected))
    assert equal(ours, expected)
    assert torch.equal(after, torch.get_rng_state())
    assert not equal(ours, torchs)
    assert not hasattr(again, "reset_parameters") or equal(again, expected)
    assert equal(drawn(build), torchs)


def test_batch_norm_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with wi.patched():
        assert equal(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    assert torch.equal(torch.get_rng_state(), before)


def by_hand(monkeypatch: pytest.MonkeyPatch, build: Callable[[], nn.Module]) -> nn.Module:
    with monkeypatch.context() as m:
        for place in (nn.init, nn.modules.activation, nn.modules.transformer, sys.modules.get("transformers.initialization")):
            for name in TORCH:
                if place is not None and hasattr(wi.init, name) and vars(place).get(name) is TORCH[name]:
                    m.setattr(place, name, getattr(wi.init, name))
        if "transformers.initialization" in sys.modules:
            table = sys.modules["transformers.initialization"].TORCH_INIT_FUNCTIONS
            for name in table:
                m.setitem(table, name, getattr(wi.init, name))
        return drawn(build)


def test_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    build = functools.partial(nn.Transformer, 8, 2, 1, 1, 16)
    expected = by_hand(monkeypatch, build)
    with wi.patched():
        ours = drawn(build)
    assert equal(ours, expected)
    assert not equal(ours, drawn(build))


SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_a_model_of_transformers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = getattr(transformers, f"{kind}Config")(**SMALL)
    build = functools.partial(transformers.AutoModelForCausalLM.from_config, config)
    torchs = drawn(build)
    expected = by_hand(monkeypatch, build)
    with wi.patched():
        ours = drawn(build)
        kept = drawn(build)
        mark = kept.get_input_embeddings().weight
        mark._is_hf_initialized = True
        mark.data.fill_(7)
        torch.manual_seed(1)
        kept._init_weights(kept.get_input_embeddings())
    assert equal(ours, expected)
    assert not equal(ours, torchs)
    assert bool((mark == 7).all())
    assert equal(drawn(build), torchs)


@pytest.mark.peer
def test_the_guards_of_transformers_go_on() -> None:
    hf = pytest.importorskip("transformers.initialization", reason="transformers is not installed")
    marked = torch.zeros(5)
    marked._is_hf_initialized = True  # type: ignore[attr-defined]
    with wi.patched():
        assert is_ours(hf.normal_)
        hf.normal_(marked)
        with hf.guard_torch_init_functions():
            assert is_ours(nn.init.normal_)
            nn.init.normal_(marked)
        with hf.no_init_weights():
            nn.init.normal_(marked)
        assert is_ours(nn.init.normal_)
    assert not marked.any()
    with hf.no_init_weights(), wi.patched():
        assert nn.Linear(3, 3) is not None
        nn.init.normal_(marked)
        assert is_ours(hf.normal_)
    assert not marked.any()


SOURCE = """
    from functools import partial
    from torch.nn import init
    from torch.nn.init import normal_, normal_ as alias, _no_grad_normal_
    from weightinit_cuda.init import normal_ as on_purpose
    class Layer:
        draw = staticmethod(normal_)
    def default(tensor, draw=normal_):
        return draw(tensor)
    bound = [normal_, alias, init.normal_, Layer.draw, default, partial(normal_, std=1.0), lambda t: _no_grad_normal_(t, 0.0, 1.0)]
"""


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_users_module(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"bound_{when}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    if when == "before":
        importlib.import_module("bound_before")
    with wi.patched():
        module = importlib.import_module(f"bound_{when}")
        assert all(is_ours(draw) for draw in module.bound)
    assert not any(is_ours(draw) for draw in module.bound)
    assert module.alias is module.normal_ is TORCH["normal_"]
    assert module.on_purpose is wi.init.normal_
    assert is_ours(module.on_purpose)


def test_every_function_is_covered() -> None:
    public = {n for n, f in TORCH.items() if not n.startswith("_") and f.__code__.co_name != "deprecated_init"}
    assert set(patching._forks) == public | {"_no_grad_uniform_", "_no_grad_normal_", "_no_grad_trunc_normal_"}


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    *((name, ()) for name in ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_")),
    *((name, ()) for name in ("kaiming_uniform_", "kaiming_normal_", "orthogonal_", "eye_", "ones_", "zeros_")),
    *(("sparse_", (0.5,)), ("constant_", (3.0,)), ("uniform_", (-1, 2)), ("trunc_normal_", (0, 1, 3, 4))),
]


@pytest.mark.parametrize(("name", "args"), CALLS)
def test_a_function_is_ours(name: str, args: tuple[Any, ...]) -> None:
    expected = drawn(lambda: getattr(wi.init, name)(torch.empty(6, 4), *args))
    with wi.patched():
        tensor = torch.empty(6, 4)
        assert drawn(lambda: getattr(nn.init, name)(tensor, *args)) is tensor
        assert torch.equal(tensor, expected)
        if hasattr(nn.init, name[:-1]):
            with pytest.warns(FutureWarning, match="deprecated in favor of"):
                assert torch.equal(drawn(lambda: getattr(nn.init, name[:-1])(torch.empty(6, 4), *args)), expected)
        assert nn.init.calculate_gain("gelu") == wi.init.calculate_gain("gelu")
