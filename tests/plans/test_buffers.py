"""Buffers that no plan has: what is said of them before ``to_empty()``, and how they are computed again after it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi

GARBAGE = 1.1e14


def emptied(model: nn.Module) -> nn.Module:
    """As ``to_empty()``, where the memory happened to hold something."""
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(GARBAGE if tensor.is_floating_point() else 77)
    return model


def on_meta(kind: str, **sizes: Any) -> tuple[nn.Module, nn.Module]:
    """A model of transformers on meta, and the same in memory."""
    transformers = pytest.importorskip("transformers", "5")

    def made() -> nn.Module:
        model: nn.Module = getattr(transformers, kind)(getattr(transformers, kind.partition("For")[0] + "Config")(**sizes))
        return model

    with torch.device("meta"):
        model = made()
    return model, made()


LLAMA = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}
SCALED = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("LlamaForCausalLM", LLAMA), ("LlamaForCausalLM", {**LLAMA, "rope_parameters": SCALED}), ("BertForMaskedLM", LLAMA)],
)
@pytest.mark.parametrize("rules", ["xavier", [wi.Rule("*", "zeros_")]])
def test_transformers_buffers_are_computed_again(kind: str, sizes: dict[str, Any], rules: Any) -> None:
    model, eager = on_meta(kind, **sizes)
    wi.initialize_(emptied(model), rules, seed=0, buffers="recompute")
    own = dict(eager.named_buffers())
    assert own
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, own[name]), name
    made = dict(model.named_parameters())  # more than there were: to_empty() unties
    for name, parameter in wi.initialize_(eager, rules, seed=0).named_parameters():
        assert torch.equal(parameter, made[name]), name


def test_by_default_buffers_are_left_alone() -> None:
    model, _ = on_meta("LlamaForCausalLM", **LLAMA)
    wi.initialize_(emptied(model), "xavier", seed=0)
    assert all(bool((buffer == GARBAGE).all()) for buffer in model.buffers())


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("steps", torch.arange(3.0), persistent=False)


class Resets(Holder):
    def reset_parameters(self) -> None:
        torch.arange(3.0, out=self.steps)
        nn.init.ones_(self.fc.weight)
        torch.rand(3)


class Replaces(Holder):
    def rope_init(self) -> None:
        self.register_buffer("steps", torch.arange(3.0), persistent=False)


class AsTimm(Holder):
    def init_non_persistent_buffers(self) -> None:
        self.steps.copy_(torch.arange(3.0, device=self.steps.device))


class WritesPart(Holder):
    def reset_parameters(self) -> None:
        self.steps[0] = 0


class Raises(Holder):
    def reset_buffers(self) -> None:
        raise OSError("no table")


@pytest.mark.parametrize("kind", [Resets, Replaces, AsTimm])
def test_modules_with_code_of_their_own(kind: type[Holder]) -> None:
    model = emptied(nn.Sequential(kind()))
    steps = model[0].get_buffer("steps")
    state = torch.random.get_rng_state()
    wi.initialize_(model, "xavier", seed=3, buffers="recompute")
    assert torch.equal(state, torch.random.get_rng_state())
    assert model[0].get_buffer("steps") is steps
    assert steps.tolist() == [0, 1, 2]
    assert torch.equal(model[0].fc.weight, wi.initialize_(nn.Sequential(kind()), "xavier", seed=3)[0].fc.weight)


@pytest.mark.parametrize(("kind", "why"), [(Holder, ""), (WritesPart, ""), (Raises, r" \(reset_buffers: OSError: no table\)")])
def test_what_cannot_be_computed_is_named(kind: type[Holder], why: str) -> None:
    model = emptied(nn.Sequential(kind()))
    with pytest.raises(ValueError, match=rf"got 1 that are not\. .*deferred.*\n  0\.steps \(3,\) of {kind.__name__}{why}$"):
        wi.initialize_(model, "xavier", seed=0, buffers="recompute")
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    assert all(bool((tensor == GARBAGE).all()) for tensor in tensors), "something was written"


def test_buffers_of_norms_are_the_plans() -> None:
    model = wi.initialize_(emptied(nn.Sequential(nn.BatchNorm1d(3))), seed=0, buffers="recompute")
    assert model[0].get_buffer("running_var").tolist() == [1, 1, 1]


def test_on_meta_the_error_names_what_to_empty_would_leave() -> None:
    model = nn.Sequential(Holder()).to("meta")
    for buffers in ("keep", "recompute"):
        with pytest.raises(
            ValueError, match=r"under deferred\(\).*leaves 1 buffers without values \(0\.steps\): .*'recompute'"
        ):
            wi.initialize_(model, "xavier", seed=0, buffers=buffers)
    with pytest.raises(ValueError, match=r"under deferred\(\) .* or use model\.to_empty\(device=\.\.\.\)\.$"):
        wi.initialize_(nn.Linear(2, 2, device="meta"))


def test_buffers_must_be_known() -> None:
    with pytest.raises(ValueError, match='buffers must be "keep" or "recompute", got True'):
        wi.initialize_(nn.Linear(2, 2), buffers=True)  # type: ignore[arg-type]
