"""CONTRIBUTING's "Add a distribution in six steps", done with a toy: what is named there is all that there is to do.

The toy is logistic noise, x = mean + scale (ln u - ln(1 - u)). No kernel is built for it, so it is filled by the reference; all
else (init, rules, plans and their files, deferred(), diagnosis, arithmetic) is the library's own code, unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.diagnosis.doctor import diagnose
from weightinit_cuda.init import catalog, schemes, torch_ops
from weightinit_cuda.init.call import fill
from weightinit_cuda.numerics import lowering, reference
from weightinit_cuda.numerics.distributions import KINDS, Distribution
from weightinit_cuda.numerics.lowering import Kind, Transform
from weightinit_cuda.numerics.streams import stream_of

LOGISTIC = cast(Kind, 99)  # step 2 would put it into csrc/job.h and Kind


# Step 3: the transform, in plain PyTorch.
def logistic_32(w: torch.Tensor, mean: float, scale: float) -> torch.Tensor:
    u = (w.double() + 0.5) / 2**32
    return (mean + scale * (u.log() - (1 - u).log())).float()


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Step 4: the class, and its lowering.
    @dataclass(frozen=True)
    class Logistic(Distribution):
        kind = "logistic"
        scales = ("mean", "scale")
        moves = ("mean",)

        mean: float
        scale: float

        def standard_deviation(self) -> float:
            return self.scale * math.pi / math.sqrt(3)

    # Step 5: the function that users call, its scheme and its row.
    def scheme(dtype: torch.dtype, mean: float, scale: float) -> Distribution:
        if not scale >= 0:
            raise ValueError(f"logistic_: scale must not be negative, got {scale}")
        return Logistic(float(mean), float(scale))

    scheme.__name__ = "logistic_"

    def logistic_(tensor: torch.Tensor, mean: float = 0.0, scale: float = 1.0, **drawn: Any) -> torch.Tensor:
        given = (drawn.get(key) for key in ("generator", "seed"))
        return fill(tensor, cached, (tensor.dtype, mean, scale), *given, drawn.get("stream", 0), None, None, None)

    cached = schemes._cached(scheme)
    row = catalog.Function("logistic_", cached, {"mean": 0.0, "scale": 1.0})
    monkeypatch.setitem(KINDS, "logistic", Logistic)
    monkeypatch.setitem(lowering.LOWERINGS, Logistic, lambda d, _: Transform(LOGISTIC, (d.mean, d.scale)))
    monkeypatch.setitem(reference.TRANSFORMS, (LOGISTIC, False), lambda words, params, _: logistic_32(words, *params))
    monkeypatch.setitem(catalog.CATALOG, "logistic_", row)
    monkeypatch.setattr(wi.init, "logistic_", logistic_, raising=False)
    library: Any = torch.library.Library(torch_ops.NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    torch_ops.define(library, row)  # which importing the library does for rows that are there
    with engine.reference_only():
        yield
    library._destroy()


def logistic(mean: float, scale: float) -> Distribution:
    return KINDS["logistic"](mean, scale)  # type: ignore[call-arg]


def test_in_init() -> None:
    made = getattr(wi.init, "logistic_")(torch.empty(20_000), 1.0, 0.5, seed=3)  # noqa: B009
    words = wi.bits(3, 0, 20_000).long()
    assert torch.equal(made, logistic_32(words, 1.0, 0.5))
    assert abs(made.std().item() - 0.5 * math.pi / math.sqrt(3)) < 0.02
    with pytest.raises(ValueError, match="scale must not be negative"):
        getattr(wi.init, "logistic_")(torch.empty(2), 0.0, -1.0)  # noqa: B009


def test_in_rules_and_plans() -> None:
    model = nn.Linear(8, 4)
    plan = wi.plan(model, [wi.Rule("bias", "zeros_"), wi.Rule("*", "logistic_", scale=0.1)], seed=5)
    assert plan["weight"][0].distribution == logistic(0.0, 0.1)
    assert "logistic(mean=0, scale=0.1)" in str(plan)
    plan.apply_(model)
    again = wi.Plan.from_json(plan.to_json())
    assert again == plan
    assert torch.equal(wi.regenerate(again, "weight", (slice(1, 3), 2)), model.weight[1:3, 2])
    assert wi.verify(again, model).ok
    with pytest.raises(ValueError, match="scale must not be negative"):
        wi.plan(model, wi.Rule("*", logistic(0.0, -1.0)))


def test_in_recorded_code() -> None:
    with wi.deferred() as recorded:
        net = nn.Linear(8, 4, bias=False)
        getattr(wi.init, "logistic_")(net.weight, 0.0, 2.0)  # noqa: B009
        net.weight.data.mul_(0.5).add_(3.0)
    plan = recorded.plan(net, seed=5)
    assert plan["weight"][0].distribution == logistic(3.0, 1.0)
    recorded.materialize_(net, device="cpu", seed=5)
    words = wi.bits(5, stream_of("weight"), 32).long()
    assert torch.equal(net.weight.detach().view(-1), logistic_32(words, 3.0, 1.0))


def test_in_the_diagnosis() -> None:
    model = nn.Linear(64, 64, bias=False)
    plan = wi.plan(model, wi.Rule("*", "logistic_", scale=5.0))
    assert [symptom.kind for symptom in diagnose(plan, model)] == ["std"]
