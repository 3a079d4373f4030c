"""What the code never writes, and what becomes of it: rules fill it and nothing else, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitwise import same_bits
from recorded import drawn
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Normal

RULE = wi.Rule("*", "normal_", std=1.0)
N = float("nan")  # unwritten


def recorded(make: Callable[[], Any]) -> tuple[wi.Recording, Any]:
    with wi.deferred() as recording:
        made = make()
        made = made if isinstance(made, dict) else {"w": made}
        model = nn.ParameterDict({name: nn.Parameter(tensor) for name, tensor in made.items()})
    return recording, model


def rows() -> Tensor:
    v = torch.empty(2, 3)
    v[1].zero_()
    return v


def stripes() -> Tensor:
    v = torch.empty(6)
    v[::2].zero_()
    return v


def half_computed() -> Tensor:
    v = torch.empty(4)
    v[:2].copy_(torch.arange(2.0))
    return v


def onto(v: Tensor) -> Tensor:
    return torch.zeros(3, 2, dtype=torch.float64).copy_(v.t())


FILLED: dict[str, tuple[Callable[[], Tensor], Any]] = {
    "all": (lambda: torch.empty(3), [N, N, N]),
    "rows": (rows, [[N] * 3, [0.0] * 3]),
    "stack": (lambda: torch.stack([torch.empty(3), torch.zeros(3)]), [[N] * 3, [0.0] * 3]),
    "cat": (lambda: torch.cat([torch.empty(2), torch.ones(1), torch.empty(1)]), [N, N, 1.0, N]),
    "cat of columns": (lambda: torch.cat([torch.ones(2, 1), torch.empty(2, 1)], 1), [[1.0, N], [1.0, N]]),
    "with what is computed": (lambda: torch.stack([torch.empty(3), torch.arange(3.0)]), [[N] * 3, [0.0, 1.0, 2.0]]),
    "cat of parts": (lambda: torch.cat([rows(), torch.ones(1, 3)]), [[N] * 3, [0.0] * 3, [1.0] * 3]),
    "clone": (lambda: rows().clone(), [[N] * 3, [0.0] * 3]),
    "transposed": (lambda: rows().t().contiguous(), [[N, 0.0]] * 3),
    "copy_ and cast": (lambda: onto(rows()), [[N, 0.0]] * 3),
    "arithmetic": (lambda: rows() * 2 + 1, [[N] * 3, [1.0] * 3]),
    "in place": (lambda: rows().add_(1), [[N] * 3, [1.0] * 3]),
    "pointwise": (lambda: torch.empty(3).neg().exp(), [N, N, N]),
    "every other one": (lambda: torch.empty(6)[::2], [N, N, N]),
    "doubled, half computed": (lambda: half_computed() * 2, [0.0, 2.0, N, N]),
}
MIXED: dict[str, Callable[[], Tensor]] = {
    "triangle": lambda: torch.empty(3, 3).tril(),
    "padded": lambda: torch.nn.functional.pad(torch.empty(2), (1, 1)),
    "chosen": lambda: torch.where(torch.tensor([True, False]), torch.empty(2), torch.zeros(2)),
    "sum": lambda: rows() + torch.randn(2, 3),
    "stripes": stripes,
    "copy of stripes": lambda: stripes().clone(),
    "stripes side by side": lambda: torch.cat([stripes(), torch.ones(1)]),
    "conjugates": lambda: torch.stack([torch.empty(3), torch.zeros(3)]).to(torch.complex64).conj(),
}


@pytest.mark.parametrize("name", FILLED)
def test_rules_fill_what_is_unwritten_and_nothing_else(name: str) -> None:
    make, pattern = FILLED[name]
    recording, holder = recorded(make)
    assert recording.unwritten(holder) == ["w"]
    values = recording.values(holder, seed=1, rules=RULE)("w")
    recording.materialize_(holder, seed=1, rules=RULE)
    made = holder.w.detach()
    expected = torch.tensor(pattern, dtype=made.dtype)
    rule = drawn(Normal(0.0, 1.0), expected.shape, dtype=expected.dtype, seed=1)
    assert same_bits(made, torch.where(expected.isnan(), rule, expected))
    assert same_bits(values, made)


@pytest.mark.parametrize("name", [*FILLED, *MIXED])
def test_nothing_is_made_without_rules(name: str) -> None:
    recording, holder = recorded(MIXED[name] if name in MIXED else FILLED[name][0])
    with pytest.raises(ValueError, match=r"got 1 that it only allocates \(w\)"):
        recording.materialize_(holder, seed=1)


@pytest.mark.parametrize("name", MIXED)
def test_rules_are_refused_where_that_is_not_known(name: str) -> None:
    recording, holder = recorded(MIXED[name])
    with pytest.raises(ValueError, match=r"deferred: rules= can fill what the code leaves unwritten, got 1 tensors .* \(w\)"):
        recording.materialize_(holder, seed=1, rules=RULE)
    assert holder.w.is_meta


def test_rules_must_cover_buffers_too() -> None:
    with wi.deferred() as recording:
        model = nn.Linear(2, 2)
        model.register_buffer("scale", torch.empty(2))
    with pytest.raises(ValueError, match=r"deferred: rules= must cover every tensor .*, got 1 without a rule \(scale\)"):
        recording.materialize_(model, seed=1, rules=RULE)
    assert model.weight.is_meta
    recording.materialize_(model, seed=1, rules=wi.Rule((wi.rules.buffer, "scale"), "ones_"))
    assert model.scale.tolist() == [1, 1]


def test_a_rule_fills_conjugates() -> None:
    recording, holder = recorded(lambda: torch.empty(3, dtype=torch.complex64).conj())
    recording.materialize_(holder, seed=1, rules=RULE)
    expected = wi.init.normal_(torch.empty(3, dtype=torch.complex64), seed=1, stream="w")
    assert same_bits(holder.w.detach().resolve_conj(), expected)


def test_sums_of_what_is_known_in_parts() -> None:
    """Zeros in one row, a draw in the other, and a draw over both."""

    def build() -> dict[str, Tensor]:
        v = torch.zeros(2, 3)
        v[0].normal_()
        w = torch.randn(2, 3)
        return {"v": v, "w": w, "sum": v + w}

    recording, holder = recorded(build)
    recording.materialize_(holder, seed=1)
    assert same_bits(holder.sum.detach(), (holder.v + holder.w).detach())
    assert not holder.v[1].any()


@pytest.mark.parametrize("cut", [lambda w: w[:, :0], lambda w: w[:, 0:0:2], lambda w: w[2:2]], ids=["columns", "steps", "rows"])
def test_views_without_elements_are_written(cut: Callable[[Tensor], Tensor]) -> None:
    recording, model = recorded(lambda: {"empty": cut(torch.randn(6, 3)), "w": torch.randn(2)})
    assert recording.unwritten(model) == []
    assert recording.materialize_(model).empty.numel() == 0


@pytest.mark.parametrize("values", [lambda: torch.arange(4.0), lambda: torch.randn(4)], ids=["computed", "drawn"])
def test_what_nobody_has_written_over_values_is_refused(values: Callable[[], Tensor]) -> None:
    def build() -> nn.Module:
        model, w = nn.Module(), values()
        w[:2].copy_(torch.empty(2))
        model.register_buffer("w", w)
        return model

    with wi.deferred() as recorded:
        model = build()
    assert recorded.unwritten(model) == ["w"]
    with pytest.raises(ValueError, match=r"lies among values that it writes \(w\)"):
        recorded.materialize_(model, seed=0, rules=[wi.Rule("*", "normal_")])
    assert model.w.is_meta
