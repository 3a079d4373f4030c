"""What code sets in modules inside a block is what it sets outside, errors included."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.engine.backend import kernels
from weightinit_cuda.recording import plain_attributes


class Mixin:
    """Comes after Module, and sees what it stores."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, ("seen", value))


class Mixed(nn.Module, Mixin):
    def __init__(self) -> None:
        super().__init__()
        self.x = 3


class WithProperty(nn.Module):
    @property
    def x(self) -> int:
        return 1

    @property
    def y(self) -> Any:
        return self._y

    @y.setter
    def y(self, value: Any) -> None:
        self._y = ("set", value)


class Overriding(nn.Module):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(f"{name}_", value)


class Odd(int):
    """May be anything."""

    __class__ = nn.Parameter  # type: ignore[assignment]


def values() -> list[Any]:
    return [3, True, 2.5, None, "text", (1, 2), [1], {"a": 1}, print, nn.ReLU(), nn.Parameter(torch.ones(1)), torch.ones(1), 1j]


def before_init() -> Any:
    module = nn.Module.__new__(nn.Module)
    module.x = 3  # type: ignore[assignment]
    return vars(module)


def on(make: Callable[[], nn.Module], name: str, value: Any) -> Callable[[], Any]:
    def run() -> Any:
        module = make()
        setattr(module, name, value() if callable(value) else value)
        kept = {key: x for key, x in vars(module).items() if not key.startswith("_") or key == "_y"}
        return [type(module), kept, *({key: type(x) for key, x in vars(module)[k].items()} for k in KINDS)]

    return run


KINDS = ("_parameters", "_buffers", "_modules")
CASES: dict[str, Callable[[], Any]] = {
    **{f"value {n}": on(nn.Module, "x", lambda n=n: values()[n]) for n in range(len(values()))},
    **{f"parameter {n}": on(lambda: nn.Linear(1, 1), "weight", lambda n=n: values()[n]) for n in range(len(values()))},
    **{f"buffer {n}": on(lambda: nn.BatchNorm1d(1), "running_mean", lambda n=n: values()[n]) for n in range(len(values()))},
    **{f"module {n}": on(lambda: nn.Sequential(nn.ReLU()), "0", lambda n=n: values()[n]) for n in range(len(values()))},
    "mixed": on(Mixed, "y", 4),
    "read only": on(WithProperty, "x", 4),
    "property": on(WithProperty, "y", 4),
    "overriding": on(Overriding, "y", 4),
    "before init": before_init,
}


def outcome(case: Callable[[], Any]) -> str:
    try:
        return repr(case())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("name", CASES)
def test_modules_are_set_as_outside(name: str) -> None:
    outside = outcome(CASES[name])
    with wi.deferred():
        inside = outcome(CASES[name])
    assert inside == outside


@pytest.mark.skipif(kernels is None, reason="the native module is not built")
def test_what_is_plain_is_stored_and_all_else_is_declined() -> None:
    stored = plain_attributes._stored
    module = nn.Linear(1, 1)
    assert all(stored(module, "x", value) for value in (3, True, 2.5, None, "a", (1,), [1], {}))
    assert module.x == {}
    assert not any(stored(module, "x", value) for value in (Odd(3), print, nn.ReLU(), module.weight, torch.ones(1)))
    assert not stored(module, "weight", None)
    module.__dict__["_parameters"] = None
    assert stored(module, "weight", None)
    module.__dict__["_buffers"] = OrderedDict()
    assert not stored(module, "x", 3), "whose keys are whose?"
    assert not stored(Mixed(), "x", 3)
    assert not stored(3, "x", 3)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        stored(WithProperty(), "x", 3)


@pytest.mark.skipif(kernels is None, reason="the native module is not built")
def test_the_code_is_torchs_again_with_the_last_block() -> None:
    torchs = nn.Module.__setattr__.__code__
    seen = []

    def other() -> None:
        with wi.deferred():
            seen.append(nn.Module.__setattr__.__code__ is torchs)

    with wi.deferred():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert nn.Module.__setattr__.__code__ is not torchs
    assert seen == [False]
    assert nn.Module.__setattr__.__code__ is torchs


def test_another_thread_compiles_meanwhile() -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.calls = 3
            return x * 2

    module, found = Counting(), []

    def other() -> None:
        found.append(torch.compile(module, backend="eager", fullgraph=True)(torch.ones(2)))

    with wi.deferred():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert module.calls == 3
    assert found[0].tolist() == [2, 2]
