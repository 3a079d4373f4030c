"""The rule set ``transformers`` against what ``deferred()`` records of the same models, for each family of the zoo.

By `make test-zoo`. Where they differ, it must be one of the exceptions below, and the set must have said so.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from bitwise import same_bits

import weightinit_cuda as wi
from benchmarks.suites.zoo import libraries
from weightinit_cuda.numerics.distributions import Computed, Constant, Distribution

pytestmark = [pytest.mark.zoo, pytest.mark.peer]

# Sinusoids, and what _init_weights computes from draws.
OTHERWISE = {"fsmt", "marian", "pegasus", "roformer"} | {"falcon_mamba", "mamba", "nemotron_h"}


def equal(own: Distribution, ours: Distribution) -> bool:
    if isinstance(own, Constant) and isinstance(ours, Constant):
        return ours.value == pytest.approx(own.value, rel=2**-24)  # one was rounded to float32 by torch
    if isinstance(own, Computed):
        return "pad" in own.how and ours == Constant(0.0)  # zeros, and as many more as a tied weight has rows
    return type(own) is type(ours) and list(own.numbers().values()) == pytest.approx(list(ours.numbers().values()), rel=1e-12)


@pytest.mark.parametrize("name", libraries.configurations("transformers"))
def test_rules_are_what_the_model_does(name: str) -> None:
    pytest.importorskip("transformers", "5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with wi.deferred() as recorded:
                model = libraries.builder("transformers", name)()
        except ImportError as error:
            pytest.skip(str(error).strip().splitlines()[0])
        own = recorded.plan(model, seed=0, rules="torch")
    said = plan = None
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            plan = wi.plan(model, "transformers", seed=0)
        except ValueError as error:
            assert "a rule that fits is required" in str(error)  # noqa: PT017 there is no plan, which is said by name
    said = "\n".join(str(each.message) for each in seen)
    for entries in _by_name(plan, {parameter for parameter, _ in model.named_parameters()}):
        if 0 in entries[0].shape:
            continue  # a recording has nothing of them
        given = own[entries[0].name]
        if len(entries) > 1 and all(isinstance(e.distribution, Constant) for e in entries):
            assert plan is not None
            assert same_bits(
                wi.regenerate(plan, entries[0].name), recorded.values(model, seed=0, rules="torch")(entries[0].name)
            )
        elif [e.box for e in given] != [e.box for e in entries] or not all(
            equal(a.distribution, b.distribution) for a, b in zip(given, entries, strict=True)
        ):
            assert name in OTHERWISE
            assert f"\n  {entries[0].name}: " in said


def _by_name(plan: wi.Plan | None, parameters: set[str]) -> list[list[Any]]:
    by_name: dict[str, list[Any]] = {}
    for entry in plan or ():
        if entry.name in parameters:
            by_name.setdefault(entry.name, []).append(entry)
    return list(by_name.values())
