"""The zoo: constructors as models have them, eager and under ``deferred()``. By `make test-zoo`.

Two truths. With eager code's own draws handed to the recorder, all that a constructor makes must be eager's bit for bit: names,
shapes, dtypes, strides, ties, attributes, and what Python saw. And with the plan's draws, the tensors that are filled must be
what a replay of the tape gives with the same numbers: so copies and parts of one draw stay copies and parts.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import zoo_modules  # noqa: F401  # each adds to the idioms
import zoo_tables  # noqa: F401
import zoo_values  # noqa: F401
from eager_draws import drawing, logged
from torch import Tensor, nn
from zoo_idioms import IDIOMS, Build
from zoo_parts import LAYERS, PARAMETRISATIONS, TIES, on_linear, run

import weightinit_cuda as wi
from weightinit_cuda.recording.replay import place_of, replay

pytestmark = pytest.mark.zoo

ZOO: dict[str, Build] = {
    **{f"idiom: {name}": build for name, build in IDIOMS.items()},
    **{f"parametrisation: {name}": on_linear(apply) for name, apply in PARAMETRISATIONS.items()},
    **{f"tie: {name}": build for name, build in TIES.items()},
    **{f"{mode} layer: {name}": run(name, mode == "training") for name in LAYERS for mode in ("training", "evaluated")},
}
COUNTS: Counter[str] = Counter()
each = pytest.mark.parametrize("name", ZOO)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_rng_state(state)


def test_the_zoo_is_not_smaller_than_it_was() -> None:
    sizes = [len(kind) for kind in (IDIOMS, PARAMETRISATIONS, TIES, LAYERS)]
    assert all(size >= least for size, least in zip(sizes, (111, 19, 25, 46), strict=True)), sizes


def held(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers and plain attributes, under all their names."""
    found = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for prefix, each in model.named_modules(remove_duplicate=False):
        for key, value in vars(each).items():
            for at, one in enumerate(value if isinstance(value, (list, tuple)) else [value]):
                if isinstance(one, Tensor) and not key.startswith("_"):
                    found[f"{prefix}.{key}[{at}]"] = one
    return found


def ties(tensors: dict[str, Tensor]) -> set[tuple[str, ...]]:
    """Names of one object, and names on one memory."""
    by: dict[Any, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if nn.parameter.is_lazy(tensor):
            continue
        by["object", id(tensor)].append(name)
        by["memory", tensor.untyped_storage().data_ptr(), tensor.numel() > 0 or name].append(
            f"{name}+{tensor.storage_offset()}"
        )
    return {tuple(sorted(names)) for names in by.values() if len(names) > 1}


def described(tensor: Tensor) -> Any:
    strides = tuple(s for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1)
    trained = tensor.is_leaf and tensor.requires_grad  # a graph is not recorded
    return type(tensor), tuple(tensor.shape), tensor.dtype, strides, trained, tensor.device, tensor.grad is not None


@each
def test_all_but_the_draws_is_eagers(name: str) -> None:
    torch.manual_seed(5)
    with logged() as log:
        eager = ZOO[name]()
    with drawing(log), wi.deferred() as recording:
        ours = ZOO[name]()
    recording.materialize_(ours, seed=0)
    expected, made = held(eager), held(ours)
    assert made.keys() == expected.keys()
    for key, tensor in expected.items():
        if nn.parameter.is_lazy(tensor):
            assert nn.parameter.is_lazy(made[key]), key
            continue
        assert str(described(made[key])) == str(described(tensor)), key
        # operators of several threads, or other kernels for memory that is aligned otherwise, may differ in the last bit
        exact = not tensor.dtype.is_floating_point or torch.equal(made[key], tensor)
        close = {} if exact else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(made[key].detach(), tensor.detach(), **(close or {"rtol": 0, "atol": 0}), equal_nan=True)
    assert ties(made) == ties(expected)
    assert [m.training for m in ours.modules()] == [m.training for m in eager.modules()]
    same(getattr(ours, "notes", None), getattr(eager, "notes", None))
    COUNTS[name.partition(":")[0] + ", equal to eager"] += 1


def same(ours: Any, eager: Any) -> None:
    if isinstance(eager, (list, tuple)) and isinstance(ours, (list, tuple)):
        assert len(ours) == len(eager)
        for a, b in zip(ours, eager, strict=True):
            same(a, b)
    else:
        assert ours == eager or (isinstance(eager, float) and math.isclose(ours, eager, rel_tol=1e-5))


@each
def test_fills_are_what_a_replay_gives(name: str) -> None:
    torch.manual_seed(5)
    with wi.deferred() as recording:
        model = ZOO[name]()
    found = recording._found("test", model)
    _, claims = recording._claims("test", model, found, found.held(), None)
    sources = claims._owners | claims.owners
    replayed = {}
    for target in found.targets:
        steps = claims.needed(target.memory)
        try:
            bytes_ = replay(steps, [target.memory], lambda step: sources[step]._replace(seed=3))
        except KeyError:  # parts of one draw, each of which has a name of its own
            COUNTS["tensors without an owner of their draw"] += 1
            continue
        replayed[target] = place_of(target.view, bytes_[target.memory]).clone()
    recording.materialize_(model, seed=3)
    for target, values in replayed.items():
        ours = target.objects[0].detach()
        rtol = {1: 0.0, 2: 2e-3}.get(ours.dtype.itemsize, 1e-5)
        torch.testing.assert_close(ours, values, rtol=rtol, atol=1e-6 if rtol else 0, equal_nan=True)
        COUNTS["tensors as replayed"] += 1
